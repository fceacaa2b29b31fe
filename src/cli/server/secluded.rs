//! `-s`: arguments that come over the connection, past the shell. Counterpart: rsync's `read_args`.

use protocol::charset::Charset;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Bytes of all arguments together.
const BYTES_MOST: usize = 1 << 20;
/// Arguments, those that wildcards expand to included.
const WORDS_MOST: usize = 16_000;

/// Whether the words of the command line say that the others are still to come.
pub(super) fn announced(words: &[OsString]) -> bool {
    let bundle = |word: &&OsString| matches!(word.as_bytes(), [b'-', letter, ..] if *letter != b'-');
    let letters = words.iter().find(bundle).map(|word| word.as_bytes()).unwrap_or_default();
    letters.split(|&byte| byte == b'e').next().unwrap_or_default().contains(&b's')
        && !words.iter().any(|word| word == ".")
}

/// Reads them: each ends with a zero byte, an empty one ends them all; the first is the program's name.
pub(super) fn read(from: &mut dyn Read) -> io::Result<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut bytes = 0;
    loop {
        // One at a time: what follows belongs to the protocol.
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        bytes += 1;
        if bytes > BYTES_MOST || words.len() > WORDS_MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more arguments than are accepted"));
        }
        match (byte[0], word.is_empty()) {
            (0, true) => break,
            (0, false) => words.push(OsString::from_vec(std::mem::take(&mut word))),
            (byte, _) => word.push(byte),
        }
    }
    if !words.is_empty() {
        words.remove(0);
    }
    Ok(words)
}

/// Expands wildcards in the paths, as a shell would have; a pattern that matches nothing stays as it is. What comes in
/// UTF-8 is had in our own set first.
pub(super) fn expand(words: Vec<OsString>, charset: Option<Charset>) -> Vec<OsString> {
    let mut expanded: Vec<OsString> = Vec::with_capacity(words.len());
    let mut paths = false;
    for word in words {
        let word = match charset {
            Some(set) => OsString::from_vec(set.text_from_utf8(word.as_bytes())),
            None => word,
        };
        let matches = if paths { matches(word.as_bytes()) } else { Vec::new() };
        let room = WORDS_MOST.saturating_sub(expanded.len());
        match matches.is_empty() {
            true => expanded.push(if paths { unescaped(word.as_bytes()) } else { word.clone() }),
            false => expanded.extend(matches.into_iter().take(room)),
        }
        paths |= word == ".";
    }
    expanded
}

fn matches(path: &[u8]) -> Vec<OsString> {
    let Ok(text) = std::str::from_utf8(path) else { return Vec::new() };
    let Some(pattern) = translated(text) else { return Vec::new() };
    let options =
        glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let Ok(found) = glob::glob_with(&pattern, options) else { return Vec::new() };
    let slash = if text.ends_with('/') { "/" } else { "" };
    let mut found: Vec<_> = found
        .filter_map(Result::ok)
        .take(WORDS_MOST)
        .map(|path| {
            let mut path = path.into_os_string();
            path.push(slash);
            path
        })
        .collect();
    found.sort();
    found
}

/// A pattern in which a backslash makes a wildcard literal, as one that knows only brackets for that; `None` without
/// a wildcard.
fn translated(text: &str) -> Option<String> {
    let mut pattern = String::with_capacity(text.len());
    let mut wild = false;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next()? {
                char @ ('*' | '?' | '[' | ']') => pattern.push_str(&format!("[{char}]")),
                char => pattern.push(char),
            },
            '*' | '?' | '[' => {
                wild = true;
                pattern.push(char);
            }
            char => pattern.push(char),
        }
    }
    wild.then_some(pattern)
}

/// A path without the backslashes that made its wildcards literal.
fn unescaped(path: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(path.len());
    let mut bytes = path.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escapes = byte == b'\\' && bytes.peek().is_some_and(|next| b"*?[]\\".contains(next));
        plain.push(if escapes { bytes.next().unwrap_or(byte) } else { byte });
    }
    OsStr::from_bytes(&plain).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn only_a_bundle_with_an_s_announces_them() {
        assert!(announced(&words("--server --sender -slogDtpre.iLsfxCIvu")));
        assert!(announced(&words("--server -svre.LsfxCIvu --iconv=utf8")));
        assert!(!announced(&words("--server -vre.LsfxCIvu . d")));
        assert!(!announced(&words("--server -sre.LsfxCIvu . d")));
    }

    #[test]
    fn what_comes_is_bounded() {
        let mut stream = &b"rsync\0--stats\0.\0a b\0\0\x1f\0"[..];
        assert_eq!(read(&mut stream).unwrap(), ["--stats", ".", "a b"]);
        assert_eq!(stream, b"\x1f\0");
        assert!(read(&mut &b"rsync\0."[..]).is_err());
        assert!(read(&mut std::io::repeat(b'x')).is_err());
        assert!(read(&mut &b"x\0".repeat(WORDS_MOST + 2)[..]).is_err());
    }

    #[test]
    fn wildcards_expand_behind_the_dot() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a1", "a2", "b", ".a3", "a*"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let at = |name: &str| OsString::from(format!("{}/{name}", folder.path().display()));
        let given = vec!["--x=*".into(), ".".into(), at("a*"), at(r"a\*"), at("nothing*"), at("b")];
        let wanted = vec!["--x=*".into(), ".".into(), at("a*"), at("a1"), at("a2"), at("a*"), at("nothing*"), at("b")];
        assert_eq!(expand(given, None), wanted);
    }
}
