//! Words for the shell at the other end. Wildcards of a path stay active, so that they expand where the files are.

use protocol::args::Options;

/// What the shell over there would take for something of its own.
const SPECIAL: &[u8] = b"!#$&;|<>(){}\"'` \t\n\r\\";
/// What it expands.
const WILD: &[u8] = b"*?[]";

/// How a path is used over there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A source that comes here.
    Source,
    Destination,
}

pub(super) fn path(path: &[u8], how: Use, options: &Options) -> Vec<u8> {
    if path.is_empty() {
        return b".".to_vec();
    }
    if options.old_args || options.secluded_args {
        return path.to_vec();
    }
    let mut word = Vec::with_capacity(path.len() + 8);
    let has = |what: &[u8]| path.windows(what.len()).any(|window| window == what);
    match path[0] {
        b'-' => word.extend_from_slice(b"./"),
        // A home directory in place of the last name would come back under a name that was never asked for.
        b'~' if how == Use::Source && !has(if options.relative { b"/./" } else { b"/" }) => word.push(b'\\'),
        _ => {}
    }
    let mut bytes = path.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escapes_wildcard = byte == b'\\' && bytes.peek().is_some_and(|next| WILD.contains(next));
        if SPECIAL.contains(&byte) && !escapes_wildcard {
            word.push(b'\\');
        }
        word.push(byte);
    }
    word
}

pub(super) fn option(word: &[u8], options: &Options) -> Vec<u8> {
    if options.old_args || options.secluded_args {
        return word.to_vec();
    }
    let mut quoted = Vec::with_capacity(word.len());
    for &byte in word {
        if SPECIAL.contains(&byte) || WILD.contains(&byte) {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted
}

/// The words of a remote shell command: split at spaces, quotes of both kinds keep them together and may be doubled.
pub(super) fn split(command: &[u8]) -> Result<Vec<Vec<u8>>, u8> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = command.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' => words.extend(word.take()),
            b'"' | b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next() {
                        None => return Err(byte),
                        Some(inner) if inner != byte => word.push(inner),
                        Some(_) if bytes.peek() == Some(&byte) => {
                            bytes.next();
                            word.push(byte);
                        }
                        Some(_) => break,
                    }
                }
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As stock rsync 3.5.0 quotes them.
    #[test]
    fn paths_keep_their_wildcards() {
        let mut options = Options::default();
        let source =
            |text: &str, options: &Options| String::from_utf8(path(text.as_bytes(), Use::Source, options)).unwrap();
        for (given, wanted) in [
            ("", "."),
            ("a b", r"a\ b"),
            ("a*b [c] ~x -d", r"a*b\ [c]\ ~x\ -d"),
            ("~x", r"\~x"),
            ("~/x", "~/x"),
            ("-x", "./-x"),
            ("y'z\"$", r#"y\'z\"\$"#),
            (r"a\*b\c", r"a\*b\\c"),
        ] {
            assert_eq!(source(given, &options), wanted, "{given}");
        }
        assert_eq!(path(b"~x", Use::Destination, &options), b"~x");
        assert_eq!(option(b"--suffix=a b*", &options), br"--suffix=a\ b\*");
        options.old_args = true;
        assert_eq!(source("a b", &options), "a b");
    }

    #[test]
    fn a_remote_shell_command_splits_at_spaces() {
        let words = |text: &str| {
            split(text.as_bytes()).map(|words| words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect())
        };
        assert_eq!(words("ssh  -p 2222 "), Ok(vec!["ssh".to_owned(), "-p".into(), "2222".into()]));
        assert_eq!(
            words("a 'b c'd \"e''f\" ''"),
            Ok(vec!["a".to_owned(), "b cd".into(), "e''f".into(), String::new()])
        );
        assert_eq!(words("a 'it''s'"), Ok(vec!["a".to_owned(), "it's".into()]));
        assert_eq!(words("a 'b"), Err::<Vec<String>, _>(b'\''));
    }
}
