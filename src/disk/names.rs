//! Names and errors as the user reads them: what cannot be printed is escaped.

use std::io;

/// A name as rsync prints it: control bytes but the tab and DEL, and bytes that are not UTF-8 (unless `eight_bit`), as `\#ooo`.
pub(crate) fn put(name: &[u8], eight_bit: bool, out: &mut Vec<u8>) {
    escaped(name, eight_bit, true, out);
}

/// The same, `eight_bit` too, of a message, whose line ends stay and whose names may have been escaped where they come from.
pub(crate) fn put_text(text: &[u8], eight_bit: bool, out: &mut Vec<u8>) {
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                escaped(line, eight_bit, false, out);
                out.push(b'\n');
            }
            None => escaped(line, eight_bit, false, out),
        }
    }
}

fn escaped(name: &[u8], eight_bit: bool, backslashes: bool, out: &mut Vec<u8>) {
    let escape = |out: &mut Vec<u8>, byte: u8| out.extend_from_slice(format!("\\#{byte:03o}").as_bytes());
    for chunk in name.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        for (at, &byte) in valid.iter().enumerate() {
            // A backslash that would read as an escape is escaped itself.
            let poses = backslashes
                && byte == b'\\'
                && valid.get(at + 1) == Some(&b'#')
                && valid.len() > at + 4
                && valid[at + 2..at + 5].iter().all(u8::is_ascii_digit);
            if poses || (byte < b' ' && byte != b'\t') {
                escape(out, byte);
            } else {
                out.push(byte);
            }
        }
        for &byte in chunk.invalid() {
            if eight_bit { out.push(byte) } else { escape(out, byte) }
        }
    }
}

/// A name for a message, as rsync prints names.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut text = Vec::with_capacity(name.len());
    put(name, false, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// An error as rsync prints it: `Permission denied (13)`.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.rfind(" (os error")) {
        (Some(code), Some(end)) => format!("{} ({code})", &text[..end]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    /// As stock rsync 3.5.0 prints it.
    #[test]
    fn what_cannot_be_printed_is_escaped() {
        let name = b"a\tb\nc\x01\xc3\xa9\x7f\xff\\#012 e\\#9";
        for (eight_bit, wanted) in [
            (false, &b"a\tb\\#012c\\#001\xc3\xa9\x7f\\#377\\#134#012 e\\#9"[..]),
            (true, b"a\tb\\#012c\\#001\xc3\xa9\x7f\xff\\#134#012 e\\#9"),
        ] {
            let mut out = Vec::new();
            super::put(name, eight_bit, &mut out);
            assert_eq!(out, wanted);
        }
    }
}
