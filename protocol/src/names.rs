//! The list of names that `--files-from` carries from one end to the other.

use crate::PeerError;
use crate::wire::{Decode, Decoded, Reader};

/// A longer name cannot be in a file list.
const NAME_MOST: usize = 4096;

/// Reads one name; `None` at the end of the list.
pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<Option<Vec<u8>>> {
    let mut name = Vec::new();
    loop {
        match reader.byte() {
            Ok(0) => return Ok(Some(name).filter(|name| !name.is_empty())),
            Ok(byte) if name.len() < NAME_MOST => name.push(byte),
            Ok(_) => return Err(PeerError::Malformed("a name of more than 4096 bytes in a list of names").into()),
            Err(_) => return Err(Decode::Incomplete),
        }
    }
}

/// The names of a file, without the blank ones: lines, or with `from0` what ends in zero bytes.
pub fn of_file(bytes: &[u8], from0: bool) -> impl Iterator<Item = &[u8]> {
    let ends = move |byte: &u8| if from0 { *byte == 0 } else { matches!(byte, b'\n' | b'\r' | 0) };
    bytes.split(ends).filter(|name| !name.is_empty())
}

/// Whether a line of a list is a comment; only who reads the list for itself leaves these out.
pub fn is_comment(name: &[u8]) -> bool {
    matches!(name.first(), Some(b'#' | b';'))
}

/// The list as it goes over the wire.
pub fn encode<'n>(names: impl Iterator<Item = &'n [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    names.for_each(|name| put(name, &mut bytes));
    end(&mut bytes);
    bytes
}

/// Writes one name of a list.
pub fn put(name: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(name);
    bytes.push(0);
}

/// Writes the end of a list.
pub fn end(bytes: &mut Vec<u8>) {
    bytes.push(0);
}

/// A name as it is looked up in the source folder: nothing in it leads above that folder. What begins with `./`, ends in
/// a slash or holds `/./` keeps that, for it means something; with `relative` it is a word of its own to `..`.
pub fn clean(name: &[u8], relative: bool) -> Vec<u8> {
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let contents = name.ends_with(b"/") || name.ends_with(b"/.") || last == b"..";
    let mut words: Vec<&[u8]> = Vec::new();
    for (at, word) in name.split(|&byte| byte == b'/').enumerate() {
        match word {
            b"" => {}
            b"." if words.last() != Some(&&b"."[..]) && (at == 0 || !words.is_empty()) => words.push(word),
            b"." => {}
            b".." => while words.pop() == Some(b".") && !relative {},
            word => words.push(word),
        }
    }
    // With a slash behind it, it is where names begin; else it only says that a folder is meant.
    let mut backwards = name.rsplit(|&byte| byte == b'/').filter(|word| !word.is_empty());
    let last_two = [backwards.next(), backwards.next()];
    let begins = last_two == [Some(&b"."[..]); 2] || (last_two[0] == Some(b".") && name.ends_with(b"/"));
    while words.len() > 1 && words.last() == Some(&&b"."[..]) && !begins {
        words.pop();
    }
    if words.is_empty() {
        return b".".to_vec();
    }
    let mut clean = words.join(&b'/');
    if contents && clean != b"." {
        clean.push(b'/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_folder() {
        for (name, expected) in [
            ("/top", "top"),
            ("//a//x", "a/x"),
            ("./g/h", "./g/h"),
            ("d/", "d/"),
            ("d/./", "d/./"),
            ("d/.//", "d/./"),
            ("d/././", "d/./"),
            ("d/.", "d/"),
            ("d/./.", "d/./"),
            ("d/./../d/e", "d/d/e"),
            ("d/./e/./", "d/./e/./"),
            (".", "."),
            ("/", "."),
            ("..", "."),
            ("../..", "."),
            ("../top2", "top2"),
            ("a/../..", "."),
            ("x/../a/x", "a/x"),
            ("a/b/../x", "a/x"),
            ("a/b/..", "a/"),
            ("a/./b", "a/./b"),
            ("a/./../../etc", "etc"),
            ("./../x", "x"),
            ("a/...", "a/..."),
            ("x..", "x.."),
        ] {
            assert_eq!(String::from_utf8(clean(name.as_bytes(), true)).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn lists_come_as_they_went() {
        let names: Vec<_> = of_file(b"a\r\nb c\n\n#d\n", false).collect();
        assert_eq!(names, [&b"a"[..], b"b c", b"#d"]);
        assert!(is_comment(b"#d") && is_comment(b"; e") && !is_comment(b"a#"));
        let bytes = encode(of_file(b"a\nb\0c", true));
        assert_eq!(bytes, b"a\nb\0c\0\0");
        let mut reader = Reader::new(&bytes);
        assert_eq!(decode(&mut reader).unwrap().unwrap(), b"a\nb");
        assert_eq!(decode(&mut reader).unwrap().unwrap(), b"c");
        assert_eq!(decode(&mut reader).unwrap(), None);
        assert!(decode(&mut reader).is_err());
        assert!(matches!(decode(&mut Reader::new(&[b'x'; 5000])), Err(Decode::Bad(_))));
    }
}
