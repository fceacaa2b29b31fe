//! JSON as Python's `json.loads` takes it from bytes: `NaN` and infinities, whole numbers of any size, lone surrogates, and
//! texts in UTF-16 and UTF-32 as well. What it refuses is refused here.

use super::value::{PyText, PyValue};

/// Deeper than this Python's own parser gives up, by and by.
const DEEPEST: usize = 500;
/// Digits of a whole number that Python reads.
const DIGITS_MOST: usize = 4300;

/// Why bytes are no JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("they are no text in {0}")]
    NoText(&'static str),
    #[error("they are no JSON, from byte {0} on")]
    Syntax(usize),
    #[error("they are JSON nested more than {DEEPEST} deep")]
    Deep,
}

/// Reads one value, with nothing behind it.
pub(super) fn parse(bytes: &[u8]) -> Result<PyValue, JsonError> {
    let text = decode(bytes)?;
    let mut reading = JsonReading { text: &text, at: 0, depth: 0 };
    reading.blanks();
    let value = reading.value()?;
    reading.blanks();
    if reading.at < text.len() { Err(JsonError::Syntax(reading.at)) } else { Ok(value) }
}

/// The bytes as generalized UTF-8, in which lone surrogates have three bytes as other letters of that range.
fn decode(bytes: &[u8]) -> Result<Vec<u8>, JsonError> {
    let wide = |bytes: &[u8], unit: fn([u8; 4]) -> u32| -> Option<Vec<u8>> {
        let mut text = PyText::default();
        let (units, rest) = bytes.as_chunks::<4>();
        for &four in units {
            text.push(unit(four)).then_some(())?;
        }
        rest.is_empty().then(|| text.into_bytes())
    };
    let double = |bytes: &[u8], unit: fn([u8; 2]) -> u16| -> Option<Vec<u8>> {
        let (units, rest) = bytes.as_chunks::<2>();
        let mut text = PyText::default();
        for letter in char::decode_utf16(units.iter().map(|&two| unit(two))) {
            text.push(letter.map_or_else(|lone| u32::from(lone.unpaired_surrogate()), u32::from));
        }
        rest.is_empty().then(|| text.into_bytes())
    };
    let (decoded, name) = match bytes {
        [0, 0, 0xfe, 0xff, rest @ ..] => (wide(rest, u32::from_be_bytes), "UTF-32"),
        [0xff, 0xfe, 0, 0, rest @ ..] => (wide(rest, u32::from_le_bytes), "UTF-32"),
        [0xfe, 0xff, rest @ ..] => (double(rest, u16::from_be_bytes), "UTF-16"),
        [0xff, 0xfe, rest @ ..] => (double(rest, u16::from_le_bytes), "UTF-16"),
        [0xef, 0xbb, 0xbf, rest @ ..] => (general(rest), "UTF-8"),
        [0, 0, _, _, ..] => (wide(bytes, u32::from_be_bytes), "UTF-32"),
        [0, _, _, _, ..] | [0, _] => (double(bytes, u16::from_be_bytes), "UTF-16"),
        [_, 0, 0, 0, ..] => (wide(bytes, u32::from_le_bytes), "UTF-32"),
        [_, 0, _, _, ..] | [_, 0] => (double(bytes, u16::from_le_bytes), "UTF-16"),
        _ => (general(bytes), "UTF-8"),
    };
    decoded.ok_or(JsonError::NoText(name))
}

/// The bytes, if they are UTF-8 but for surrogates.
fn general(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes;
    while let Err(error) = std::str::from_utf8(rest) {
        match rest.get(error.valid_up_to()..)? {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] => rest = after,
            _ => return None,
        }
    }
    Some(bytes.to_vec())
}

struct JsonReading<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl JsonReading<'_> {
    fn wrong<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Syntax(self.at))
    }

    fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn takes(&mut self, word: &str) -> bool {
        let there = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if there { word.len() } else { 0 };
        there
    }

    fn value(&mut self) -> Result<PyValue, JsonError> {
        let words = [
            ("null", PyValue::None),
            ("true", PyValue::Bool(true)),
            ("false", PyValue::Bool(false)),
            ("NaN", PyValue::Float(f64::NAN)),
            ("Infinity", PyValue::Float(f64::INFINITY)),
            ("-Infinity", PyValue::Float(f64::NEG_INFINITY)),
        ];
        match self.next() {
            Some(b'"') => self.string().map(PyValue::Text),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::list),
            _ => match words.into_iter().find(|(word, _)| self.takes(word)) {
                Some((_, value)) => Ok(value),
                None => self.number(),
            },
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<PyValue, JsonError>) -> Result<PyValue, JsonError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(JsonError::Deep);
        }
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<PyValue, JsonError> {
        let mut fields = Vec::new();
        self.blanks();
        if self.takes("}") {
            return Ok(PyValue::Dict(fields));
        }
        loop {
            self.blanks();
            if self.next() != Some(b'"') {
                return self.wrong();
            }
            let name = self.string()?;
            self.blanks();
            if !self.takes(":") {
                return self.wrong();
            }
            self.blanks();
            fields.push((name, self.value()?));
            self.blanks();
            if self.takes("}") {
                return Ok(PyValue::Dict(fields));
            }
            if !self.takes(",") {
                return self.wrong();
            }
        }
    }

    fn list(&mut self) -> Result<PyValue, JsonError> {
        let mut values = Vec::new();
        self.blanks();
        if self.takes("]") {
            return Ok(PyValue::List(values));
        }
        loop {
            self.blanks();
            values.push(self.value()?);
            self.blanks();
            if self.takes("]") {
                return Ok(PyValue::List(values));
            }
            if !self.takes(",") {
                return self.wrong();
            }
        }
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while matches!(self.next(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - from
    }

    fn number(&mut self) -> Result<PyValue, JsonError> {
        let from = self.at;
        self.takes("-");
        let begins = self.at;
        let whole = self.digits();
        if whole == 0 {
            return self.wrong();
        }
        if whole > 1 && self.text.get(begins) == Some(&b'0') {
            // What stands behind a leading zero is something else.
            self.at = begins + 1;
        }
        let ends = self.at;
        if self.takes(".") && self.digits() == 0 {
            self.at = ends;
        }
        let before = self.at;
        if self.takes("e") || self.takes("E") {
            let _ = self.takes("+") || self.takes("-");
            if self.digits() == 0 {
                self.at = before;
            }
        }
        let text = std::str::from_utf8(&self.text[from..self.at]).unwrap_or_default();
        if self.at > ends {
            return text.parse().map(PyValue::Float).or_else(|_| self.wrong());
        }
        if whole > DIGITS_MOST {
            return self.wrong();
        }
        Ok(PyValue::Integer(if text == "-0" { "0".to_owned() } else { text.to_owned() }))
    }

    fn string(&mut self) -> Result<PyText, JsonError> {
        self.at += 1;
        let mut text = PyText::default();
        loop {
            let from = self.at;
            while !matches!(self.next(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            text.push_general(&self.text[from..self.at]);
            match self.next() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let letter = self.escape()?;
                    text.push(letter);
                }
                _ => return self.wrong(),
            }
        }
    }

    fn escape(&mut self) -> Result<u32, JsonError> {
        let plain = match self.next() {
            Some(letter @ (b'"' | b'\\' | b'/')) => letter,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                let first = self.four()?;
                // Only what is escaped makes a pair.
                if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    match self.four() {
                        Ok(second @ 0xdc00..=0xdfff) => {
                            return Ok(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                        }
                        _ => self.at = back,
                    }
                }
                return Ok(first);
            }
            _ => return self.wrong(),
        };
        self.at += 1;
        Ok(plain.into())
    }

    fn four(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(letter) => {
                self.at += 4;
                Ok(letter)
            }
            None => self.wrong(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &[u8]) -> String {
        let Ok(PyValue::Text(text)) = parse(json) else { panic!("{:?}", parse(json)) };
        text.shown()
    }

    /// As CPython 3.11 reads them.
    #[test]
    fn values_are_those_that_python_reads() {
        let integer = |digits: &str| Ok(PyValue::Integer(digits.into()));
        assert_eq!(parse(b" 12 "), integer("12"));
        assert_eq!(parse(b"-0"), integer("0"));
        assert_eq!(parse(b"123456789012345678901234567890"), integer("123456789012345678901234567890"));
        assert_eq!(parse(b"1e2"), Ok(PyValue::Float(100.0)));
        assert_eq!(parse(b"-1.50"), Ok(PyValue::Float(-1.5)));
        assert_eq!(parse(b"1e999"), Ok(PyValue::Float(f64::INFINITY)));
        assert!(matches!(parse(b"NaN"), Ok(PyValue::Float(nan)) if nan.is_nan()));
        assert_eq!(parse(b"-Infinity"), Ok(PyValue::Float(f64::NEG_INFINITY)));
        let object = parse(b"{\"a\": [1, null], \"a\": true}").unwrap();
        assert_eq!(object.get("a"), Some(&PyValue::Bool(true)));
        for wrong in [
            &b""[..],
            b"01",
            b"1.",
            b".5",
            b"+1",
            b"nan",
            b"{\"a\":1,}",
            b"[1,]",
            b"{1:2}",
            b"\"a",
            b"\"\n\"",
            b"1 2",
            b"\"\\x\"",
            b"\"\\u12g4\"",
            b"\xff",
            b"\"\xed\xa0\"",
            &[b'['; 5000],
        ] {
            assert!(parse(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn texts_keep_what_is_no_letter() {
        assert_eq!(text(b"\"a\\n\\u00e9\\/\\ud83d\\ude00\""), "a\n\u{e9}/\u{1f600}");
        assert_eq!(text(b"\"x\\udc80y\""), "x\\udc80y");
        assert_eq!(text(b"\"\\ud83dx\""), "\\ud83dx");
        assert_eq!(text(b"\"\xed\xb2\x80\""), "\\udc80");
    }

    #[test]
    fn wide_encodings_are_told_by_their_zeros_or_their_mark() {
        let wide = |units: &[u16], order: fn(u16) -> [u8; 2]| units.iter().flat_map(|&u| order(u)).collect::<Vec<_>>();
        let units: Vec<u16> = "\"\u{e9}\u{1f600}\"".encode_utf16().collect();
        let marked: Vec<u16> = [0xfeff].into_iter().chain(units.iter().copied()).collect();
        for units in [&units, &marked] {
            assert_eq!(text(&wide(units, u16::to_be_bytes)), "\u{e9}\u{1f600}");
            assert_eq!(text(&wide(units, u16::to_le_bytes)), "\u{e9}\u{1f600}");
        }
        let four: Vec<u8> = "\"\u{e9}\"".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert_eq!(text(&four), "\u{e9}");
        assert_eq!(text(&[b"\xef\xbb\xbf".as_slice(), b"\"a\""].concat()), "a");
        assert_eq!(parse(&four[..7]), Err(JsonError::NoText("UTF-32")));
    }
}
