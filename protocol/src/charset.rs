//! Character sets of names (`--iconv`): each end has its own, and on the wire names are UTF-8. Counterpart: rsync's use of
//! `iconv`.
//!
//! What cannot be told in the other set is not told at all: nothing is ever replaced by something like it, since then two
//! names could become one.

use encoding_rs::{DecoderResult, EncoderResult, Encoding};

/// What the bytes of names mean at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset(CharsetKind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CharsetKind {
    Utf8,
    Ascii,
    /// ISO 8859-1 or 8859-9, by the letters that differ from Unicode's first 256.
    Latin(&'static [(u8, char)]),
    Other(&'static Encoding),
}

/// Where ISO 8859-9 (Turkish) is not ISO 8859-1.
const TURKISH: [(u8, char); 6] = [(0xd0, 'Ğ'), (0xdd, 'İ'), (0xde, 'Ş'), (0xf0, 'ğ'), (0xfd, 'ı'), (0xfe, 'ş')];

/// Names that web pages give to something else, or that they do not know: as `iconv` means them.
const NAMES: [(&str, &str); 32] = [
    ("ansix341968", "ascii"),
    ("usascii", "ascii"),
    ("646", "ascii"),
    ("iso646us", "ascii"),
    ("iso88591", "latin1"),
    ("88591", "latin1"),
    ("l1", "latin1"),
    ("cp819", "latin1"),
    ("ibm819", "latin1"),
    ("iso88599", "latin5"),
    ("l5", "latin5"),
    ("cp866", "ibm866"),
    ("866", "ibm866"),
    ("cp874", "windows-874"),
    ("cp932", "shift_jis"),
    ("mskanji", "shift_jis"),
    ("windows31j", "shift_jis"),
    ("cp949", "euc-kr"),
    ("uhc", "euc-kr"),
    ("cp936", "gbk"),
    ("euccn", "gbk"),
    ("gb2312", "gbk"),
    ("cp950", "big5"),
    ("bigfive", "big5"),
    ("big5hkscs", "big5"),
    ("ujis", "euc-jp"),
    ("eucjp", "euc-jp"),
    ("euckr", "euc-kr"),
    ("koi8", "koi8-r"),
    ("cskoi8r", "koi8-r"),
    ("koi8r", "koi8-r"),
    ("koi8u", "koi8-u"),
];

impl Charset {
    /// By its name, as `iconv --list` gives it: case, `-` and `_` mean nothing. `None` for a set we do not have.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let lower = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        let bare: String = lower.chars().filter(|letter| !matches!(letter, '-' | '_' | '.')).collect();
        let known = NAMES.iter().find(|(alias, _)| *alias == bare).map(|(_, known)| *known);
        Some(Self(match known.unwrap_or(&bare) {
            "utf8" => CharsetKind::Utf8,
            "ascii" => CharsetKind::Ascii,
            "latin1" => CharsetKind::Latin(&[]),
            "latin5" => CharsetKind::Latin(&TURKISH),
            name => {
                // `cp1251` is `windows-1251`; of all others the web knows some spelling.
                let dashed =
                    ["windows", "iso8859", "cp"].iter().find_map(|start| bare.strip_prefix(start).map(|n| (*start, n)));
                let dashed = match dashed {
                    Some(("iso8859", part)) => format!("iso-8859-{part}"),
                    Some((_, page)) => format!("windows-{page}"),
                    None => lower.clone(),
                };
                let found =
                    [name, &lower, &dashed].into_iter().find_map(|name| Encoding::for_label(name.as_bytes()))?;
                // Sets with states have no fixed bytes for a slash, and what the web reads otherwise than it says is no match.
                let odd = ["replacement", "x-user-defined", "ISO-2022-JP", "UTF-8", "UTF-16LE", "UTF-16BE"];
                let claims = found.name() == "windows-1252" && !bare.ends_with("1252");
                if odd.contains(&found.name()) || claims {
                    return None;
                }
                CharsetKind::Other(found)
            }
        }))
    }

    /// A name of this end in UTF-8; `None` where its bytes mean nothing here.
    pub fn to_utf8(self, name: &[u8]) -> Option<Vec<u8>> {
        match self.0 {
            CharsetKind::Utf8 => std::str::from_utf8(name).is_ok().then(|| name.to_vec()),
            _ if name.is_ascii() => Some(name.to_vec()),
            CharsetKind::Ascii => None,
            CharsetKind::Latin(table) => {
                let letter = |&byte: &u8| {
                    table.iter().find(|(known, _)| *known == byte).map_or(char::from(byte), |(_, letter)| *letter)
                };
                Some(name.iter().map(letter).collect::<String>().into_bytes())
            }
            CharsetKind::Other(encoding) => {
                let mut decoder = encoding.new_decoder_without_bom_handling();
                let mut text = String::with_capacity(decoder.max_utf8_buffer_length_without_replacement(name.len())?);
                let (result, _) = decoder.decode_to_string_without_replacement(name, &mut text, true);
                (result == DecoderResult::InputEmpty).then(|| text.into_bytes())
            }
        }
    }

    /// A name in UTF-8 as this end has it; `None` where it has a letter that is not in the set.
    pub fn from_utf8(self, name: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(name).ok()?;
        match self.0 {
            CharsetKind::Utf8 => Some(name.to_vec()),
            _ if name.is_ascii() => Some(name.to_vec()),
            CharsetKind::Ascii => None,
            CharsetKind::Latin(table) => {
                let byte = |letter: char| {
                    let known = table.iter().find(|(_, known)| *known == letter).map(|(byte, _)| *byte);
                    let plain =
                        || u8::try_from(letter).ok().filter(|byte| table.iter().all(|(known, _)| known != byte));
                    known.or_else(plain)
                };
                text.chars().map(byte).collect()
            }
            CharsetKind::Other(encoding) => {
                let mut encoder = encoding.new_encoder();
                let room = encoder.max_buffer_length_from_utf8_without_replacement(text.len())?;
                let mut bytes = Vec::with_capacity(room);
                let (result, _) = encoder.encode_from_utf8_to_vec_without_replacement(text, &mut bytes, true);
                (result == EncoderResult::InputEmpty).then_some(bytes)
            }
        }
    }

    /// Words in UTF-8, whatever they hold: bytes that mean nothing stay as they are.
    pub fn text_to_utf8(self, text: &[u8]) -> Vec<u8> {
        self.to_utf8(text).unwrap_or_else(|| text.to_vec())
    }

    /// Words of the peer as this end has them; what is not in the set stays as it is.
    pub fn text_from_utf8(self, text: &[u8]) -> Vec<u8> {
        self.from_utf8(text).unwrap_or_else(|| text.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(name: &str) -> Charset {
        Charset::from_name(name.as_bytes()).unwrap_or_else(|| panic!("{name}"))
    }

    #[test]
    fn names_of_sets_are_those_of_iconv() {
        for (name, letter, bytes) in [
            ("UTF-8", "ä", &b"\xc3\xa4"[..]),
            ("utf8", "€", b"\xe2\x82\xac"),
            ("ISO-8859-1", "ä", b"\xe4"),
            ("iso8859-1", "\u{80}", b"\x80"),
            ("latin1", "ÿ", b"\xff"),
            ("ISO_8859-9", "ı", b"\xfd"),
            ("iso-8859-15", "€", b"\xa4"),
            ("iso88592", "ł", b"\xb3"),
            ("ISO8859-5", "ж", b"\xd6"),
            ("latin2", "ł", b"\xb3"),
            ("KOI8-R", "ж", b"\xd6"),
            ("windows-1251", "ж", b"\xe6"),
            ("CP1252", "€", b"\x80"),
            ("CP1251", "ж", b"\xe6"),
            ("cp866", "ж", b"\xa6"),
            ("EUC-JP", "あ", b"\xa4\xa2"),
            ("Shift_JIS", "あ", b"\x82\xa0"),
            ("SJIS", "あ", b"\x82\xa0"),
            ("gbk", "中", b"\xd6\xd0"),
            ("GB18030", "中", b"\xd6\xd0"),
            ("big5", "中", b"\xa4\xa4"),
            ("euc-kr", "가", b"\xb0\xa1"),
            ("macintosh", "ä", b"\x8a"),
            ("US-ASCII", "a", b"a"),
        ] {
            assert_eq!(set(name).from_utf8(letter.as_bytes()).as_deref(), Some(bytes), "{name}");
            assert_eq!(set(name).to_utf8(bytes).as_deref(), Some(letter.as_bytes()), "{name}");
        }
        for name in
            ["bogus", "", "utf-16", "UTF-16LE", "iso-2022-jp", "iso-8859-11x", "cp437", "ansi", "x-user-defined"]
        {
            assert_eq!(Charset::from_name(name.as_bytes()), None, "{name}");
        }
        assert_eq!(Charset::from_name(b"\xff"), None);
    }

    #[test]
    fn what_a_set_lacks_is_not_replaced() {
        for (name, letter) in
            [("latin1", "€"), ("latin1", "ı"), ("iso-8859-9", "ý"), ("ascii", "ä"), ("koi8-r", "ä"), ("sjis", "ł")]
        {
            assert_eq!(set(name).from_utf8(letter.as_bytes()), None, "{name}");
        }
        for (name, bytes) in [("utf-8", &b"\xff"[..]), ("ascii", b"\x80"), ("euc-jp", b"\xa4"), ("sjis", b"a\x82")] {
            assert_eq!(set(name).to_utf8(bytes), None, "{name}");
            assert_eq!(set(name).text_to_utf8(bytes), bytes);
        }
        assert_eq!(set("latin1").from_utf8(b"\xff"), None);
    }

    proptest! {
        #[test]
        fn what_goes_comes_back(
            which in prop::sample::select(vec!["utf8", "latin1", "iso-8859-9", "koi8-r", "cp1251", "iso-8859-7"]),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let set = set(which);
            if let Some(text) = set.to_utf8(&bytes) {
                prop_assert_eq!(set.from_utf8(&text), Some(bytes));
            }
        }

        #[test]
        fn nothing_panics(
            which in prop::sample::select(vec!["euc-jp", "shift_jis", "gb18030", "big5", "euc-kr", "ascii"]),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            text in any::<String>(),
        ) {
            let set = set(which);
            let _ = set.to_utf8(&bytes);
            if let Some(there) = set.from_utf8(text.as_bytes()) {
                prop_assert!(!there.is_empty() || text.is_empty());
            }
        }
    }
}
