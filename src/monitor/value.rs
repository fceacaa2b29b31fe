//! Values of a message, and what Python's `str()` and `if` make of them: rows are named by that.

use serde_json::{Number, Value};
use std::fmt::Write;

/// A text of Python: letters, among them perhaps lone surrogates, which stand for bytes that are no text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PyText(Vec<u8>);

/// A value as `json.loads` gives it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PyValue {
    None,
    Bool(bool),
    /// In decimal digits, however many.
    Integer(String),
    Float(f64),
    Text(PyText),
    List(Vec<PyValue>),
    Dict(Vec<(PyText, PyValue)>),
}

impl PyText {
    /// Adds a letter or a surrogate; false of what is neither.
    pub(super) fn push(&mut self, letter: u32) -> bool {
        match char::from_u32(letter) {
            Some(letter) => self.0.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            None if letter < 0x1_0000 => {
                let tail = |shift: u32| 0x80 | (letter >> shift & 0x3f) as u8;
                self.0.extend_from_slice(&[0xe0 | (letter >> 12) as u8, tail(6), tail(0)]);
            }
            None => return false,
        }
        true
    }

    /// Adds what is generalized UTF-8.
    pub(super) fn push_general(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The text, if it has no surrogate.
    pub(crate) fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text for people, surrogates as JSON escapes them.
    pub(crate) fn shown(&self) -> String {
        let mut shown = String::new();
        let mut rest = &self.0[..];
        while let Err(error) = std::str::from_utf8(rest) {
            let (valid, other) = rest.split_at(error.valid_up_to());
            shown.push_str(std::str::from_utf8(valid).unwrap_or_default());
            let [first, second, third, after @ ..] = other else { break };
            let letter = u32::from(first & 0xf) << 12 | u32::from(second & 0x3f) << 6 | u32::from(third & 0x3f);
            let _ = write!(shown, "\\u{letter:04x}");
            rest = after;
        }
        shown.push_str(std::str::from_utf8(rest).unwrap_or_default());
        shown
    }
}

impl PyValue {
    /// The field of an object; of several of one name the last.
    pub(crate) fn get(&self, name: &str) -> Option<&PyValue> {
        let Self::Dict(fields) = self else { return None };
        fields.iter().rev().find(|(field, _)| field.0 == name.as_bytes()).map(|(_, value)| value)
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&PyText> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub(crate) fn as_number(&self) -> Option<f64> {
        match self {
            Self::Integer(digits) => digits.parse().ok(),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The same as JSON that everybody reads: a number that it has no letters for is null, and surrogates are escaped.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Bool(set) => Value::Bool(*set),
            Self::Integer(digits) => {
                let whole =
                    digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from));
                whole.ok().or_else(|| Number::from_f64(digits.parse().ok()?)).map_or(Value::Null, Value::Number)
            }
            Self::Float(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
            Self::Text(text) => Value::String(text.shown()),
            Self::List(values) => values.iter().map(Self::to_json).collect(),
            Self::Dict(fields) => fields.iter().map(|(name, value)| (name.shown(), value.to_json())).collect(),
        }
    }

    /// Whether `if` goes on.
    pub(crate) fn is_truthy(&self) -> bool {
        match self {
            Self::None => false,
            Self::Bool(set) => *set,
            Self::Integer(digits) => digits != "0",
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.0.is_empty(),
            Self::List(values) => !values.is_empty(),
            Self::Dict(fields) => !fields.is_empty(),
        }
    }

    /// What `str()` gives of a single value; `None` of lists and objects, by which nothing is named in earnest.
    pub(crate) fn str(&self) -> Option<PyText> {
        let plain = |text: &str| Some(PyText(text.as_bytes().to_vec()));
        match self {
            Self::None => plain("None"),
            Self::Bool(true) => plain("True"),
            Self::Bool(false) => plain("False"),
            Self::Integer(digits) => plain(digits),
            Self::Float(number) => plain(&repr(*number)),
            Self::Text(text) => Some(text.clone()),
            Self::List(_) | Self::Dict(_) => None,
        }
    }
}

/// A float as Python writes it: the shortest digits that read back, and an exponent from 1e16 on and below 1e-4.
fn repr(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number == 0.0 || (-4..16).contains(&exponent) {
        let fixed = format!("{number}");
        return if fixed.contains('.') { fixed } else { format!("{fixed}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CPython 3.11 prints them.
    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (number, written) in [
            (1589517264.5, "1589517264.5"),
            (1589517264.0, "1589517264.0"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
            (-123456.789e100, "-1.23456789e+105"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
            (0.1 + 0.2, "0.30000000000000004"),
        ] {
            assert_eq!(repr(number), written);
        }
    }

    #[test]
    fn values_are_json_that_everybody_reads() {
        let text = "{\"a\": [1, 1.0, true, null, NaN, -Infinity, \"\\udc80x\"], \"b\": 1, \"b\": 18446744073709551615, \"c\": 1e400, \"d\": 99999999999999999999}";
        let json = super::super::json::parse(text.as_bytes()).unwrap().to_json().to_string();
        assert_eq!(
            json,
            "{\"a\":[1,1.0,true,null,null,null,\"\\\\udc80x\"],\"b\":18446744073709551615,\"c\":null,\"d\":1e+20}"
        );
    }

    #[test]
    fn what_is_empty_or_naught_is_not_truthy() {
        let text = |text: &str| PyValue::Text(PyText(text.as_bytes().to_vec()));
        for falsy in [
            PyValue::None,
            PyValue::Bool(false),
            PyValue::Integer("0".into()),
            PyValue::Float(-0.0),
            text(""),
            PyValue::List(vec![]),
            PyValue::Dict(vec![]),
        ] {
            assert!(!falsy.is_truthy(), "{falsy:?}");
        }
        for truthy in [
            PyValue::Bool(true),
            PyValue::Integer("-1".into()),
            PyValue::Float(f64::NAN),
            text("no"),
            PyValue::List(vec![PyValue::None]),
        ] {
            assert!(truthy.is_truthy(), "{truthy:?}");
        }
    }
}
