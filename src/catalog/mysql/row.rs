//! Reads a row of a pysmurf table. Any value may be NULL or of another type than the table's creator meant.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use mysql_async::{Row, Value};

use super::super::{Hold, Layout, Md5, Naming, Pending, Record, RecordId};

/// A value of the wrong type.
pub(super) struct WrongType;

/// A row of the columns id, path, time in seconds, md5sum, failed_copy_attempts, and then action, pub_id,
/// action_timestamp, plot or type. `None` when not even the id can be read.
pub(super) fn read(row: &Row, layout: Layout) -> Option<Pending> {
    let id = RecordId(integer(row.as_ref(0)).ok().flatten()?);
    let attempts = match integer(row.as_ref(4)) {
        Ok(attempts) => attempts.unwrap_or(0),
        Err(WrongType) => {
            let why = no_integer("failed_copy_attempts");
            return Some(Pending::Unusable { id, attempts: 0, source: named(row), why, hold: Hold::default() });
        }
    };
    Some(match content(row, layout) {
        Ok((source, md5, naming)) => {
            Pending::Ready(Record { id, source: source.into(), md5, naming, attempts, hold: Hold::default() })
        }
        Err(why) => Pending::Unusable { id, attempts, source: named(row), why, hold: Hold::default() },
    })
}

/// The path for messages, where there is one.
fn named(row: &Row) -> Option<String> {
    match row.as_ref(1) {
        Some(Value::Bytes(path)) if !path.is_empty() => Some(String::from_utf8_lossy(path).into_owned()),
        _ => None,
    }
}

fn content(row: &Row, layout: Layout) -> Result<(OsString, Md5, Naming), String> {
    let path = match row.as_ref(1) {
        Some(Value::Bytes(path)) if path.is_empty() => return Err("Column path is empty".to_owned()),
        Some(Value::Bytes(path)) if path.contains(&0) => return Err("Column path holds a NUL byte".to_owned()),
        Some(Value::Bytes(path)) => path.clone(),
        Some(Value::NULL) => return Err("Column path is NULL".to_owned()),
        _ => return Err("Column path holds no text".to_owned()),
    };
    let md5 = match row.as_ref(3) {
        Some(Value::Bytes(sum)) => {
            Md5::try_from(sum.as_slice()).map_err(|_| format!("Column md5sum holds {} bytes, not 16", sum.len()))?
        }
        Some(Value::NULL) => return Err("Column md5sum is NULL".to_owned()),
        _ => return Err("Column md5sum holds no bytes".to_owned()),
    };
    let whole = |index, column: &str| integer(row.as_ref(index)).map_err(|WrongType| no_integer(column));
    let words = |index, column: &str| {
        text(row.as_ref(index)).map_err(|WrongType| format!("Column {column} holds no UTF-8 text"))
    };
    // The zero date of old servers comes out as 0, and is no time.
    let timestamp = whole(2, "timestamp")?.filter(|seconds| *seconds > 0);
    let naming = match layout {
        Layout::Action => Naming::Action {
            timestamp,
            action: words(5, "action")?,
            pub_id: words(6, "pub_id")?,
            action_timestamp: whole(7, "action_timestamp")?,
            plot: whole(8, "plot")?.is_some_and(|plot| plot != 0),
        },
        Layout::Type => Naming::Type { timestamp, file_type: words(5, "type")? },
    };
    Ok((OsString::from_vec(path), md5, naming))
}

fn no_integer(column: &str) -> String {
    format!("Column {column} holds no integer")
}

/// A whole number, `None` for NULL. Decimals, as of `UNIX_TIMESTAMP` on a `TIMESTAMP(6)`, lose their fraction.
pub(super) fn integer(value: Option<&Value>) -> Result<Option<i64>, WrongType> {
    match value {
        None | Some(Value::NULL) => Ok(None),
        Some(Value::Int(number)) => Ok(Some(*number)),
        Some(Value::UInt(number)) => i64::try_from(*number).map(Some).map_err(|_| WrongType),
        Some(Value::Bytes(digits)) => {
            let digits = std::str::from_utf8(digits).map_err(|_| WrongType)?;
            let whole = digits.split_once('.').map_or(digits, |(whole, _)| whole);
            whole.parse().map(Some).map_err(|_| WrongType)
        }
        Some(Value::Float(number)) => from_float(f64::from(*number)),
        Some(Value::Double(number)) => from_float(*number),
        Some(Value::Date(..) | Value::Time(..)) => Err(WrongType),
    }
}

fn from_float(number: f64) -> Result<Option<i64>, WrongType> {
    // Beyond 2^53 a float no longer says which integer it means.
    if number.abs() <= 9_007_199_254_740_992.0 { Ok(Some(number as i64)) } else { Err(WrongType) }
}

/// A text, `None` for NULL; numbers are taken in their usual writing.
pub(super) fn text(value: Option<&Value>) -> Result<Option<String>, WrongType> {
    match value {
        None | Some(Value::NULL) => Ok(None),
        Some(Value::Bytes(bytes)) => String::from_utf8(bytes.clone()).map(Some).map_err(|_| WrongType),
        // `pub_id` once was an INT.
        Some(Value::Int(number)) => Ok(Some(number.to_string())),
        Some(Value::UInt(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(WrongType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_kind() {
        let read = |value: Value| integer(Some(&value)).ok();
        assert_eq!(read(Value::NULL), Some(None));
        assert_eq!(read(Value::Int(-3)), Some(Some(-3)));
        assert_eq!(read(Value::UInt(3)), Some(Some(3)));
        assert_eq!(read(Value::UInt(u64::MAX)), None);
        assert_eq!(read(Value::from("1589517264.600000")), Some(Some(1_589_517_264)));
        assert_eq!(read(Value::from("")), None);
        assert_eq!(read(Value::from("abc")), None);
        assert_eq!(read(Value::Bytes(vec![0xff])), None);
        assert_eq!(read(Value::Double(2.9)), Some(Some(2)));
        assert_eq!(read(Value::Double(f64::NAN)), None);
        assert_eq!(read(Value::Float(f32::INFINITY)), None);
        assert_eq!(read(Value::Date(2020, 1, 1, 0, 0, 0, 0)), None);
    }

    #[test]
    fn texts_of_every_kind() {
        let read = |value: Value| text(Some(&value)).ok();
        assert_eq!(read(Value::NULL), Some(None));
        assert_eq!(read(Value::from("é")), Some(Some("é".to_owned())));
        assert_eq!(read(Value::Int(7)), Some(Some("7".to_owned())));
        assert_eq!(read(Value::Bytes(vec![0xff])), None);
        assert_eq!(read(Value::Double(1.0)), None);
    }
}
