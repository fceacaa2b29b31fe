//! `-s`: arguments that come over the connection, past the shell. Counterpart: rsync's `read_args`.

use crate::transfer::glob::Globs;
use protocol::charset::Charset;
use std::ffi::OsString;
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
pub(super) fn expand(words: Vec<OsString>, charset: Option<Charset>) -> io::Result<Vec<OsString>> {
    let mut expanded: Vec<OsString> = Vec::with_capacity(words.len());
    let (mut paths, mut globs) = (false, Globs::new());
    for word in words {
        let word = match charset {
            Some(set) => OsString::from_vec(set.text_from_utf8(word.as_bytes())),
            None => word,
        };
        match paths {
            true => {
                let found = globs.expand(word.as_bytes(), None).map_err(io::Error::other)?;
                expanded.extend(found.into_iter().map(OsString::from_vec));
            }
            false => expanded.push(word.clone()),
        }
        paths |= word == ".";
    }
    Ok(expanded)
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
        let given = vec![
            "--x=*".into(),
            ".".into(),
            at("a*"),
            at(r"a\*"),
            at("nothing*"),
            at(r"nothing\*"),
            at("b"),
            at(r"a\\b"),
        ];
        let mut wanted = vec!["--x=*".into(), ".".into(), at("a*"), at("a1"), at("a2"), at("a*")];
        wanted.extend([at("nothing*"), at(r"nothing\*"), at("b"), at(r"a\\b")]);
        assert_eq!(expand(given, None).unwrap(), wanted);
    }
}
