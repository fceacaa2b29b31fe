//! Reads a row of `supersync_v0`. SQLite lets any value stand in any column.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rusqlite::types::ValueRef;
use rusqlite::{Error, Row};

use super::super::database::hex_digit;
use super::super::{Hold, Md5, Naming, Pending, Record, RecordId};
use super::table::PATH_LIMIT;

/// A row of the columns id, failed_copy_attempts, local_path, remote_path, local_md5sum.
pub(super) fn read(row: &Row<'_>) -> Result<Pending, Error> {
    let id = RecordId(row.get(0)?);
    let attempts = row.get(1)?;
    Ok(match content(row.get_ref(2)?, row.get_ref(3)?, row.get_ref(4)?) {
        Ok((source, naming, md5)) => {
            Pending::Ready(Record { id, source, md5, naming, attempts, hold: Hold::default() })
        }
        Err(why) => Pending::Unusable { id, attempts, source: named(row.get_ref(2)?), why, hold: Hold::default() },
    })
}

/// The path for messages, where there is one.
fn named(local: ValueRef<'_>) -> Option<String> {
    text("local_path", local)
        .ok()
        .filter(|path| !path.is_empty())
        .map(|path| String::from_utf8_lossy(path).into_owned())
}

fn content(local: ValueRef<'_>, remote: ValueRef<'_>, sum: ValueRef<'_>) -> Result<(PathBuf, Naming, Md5), String> {
    let source = PathBuf::from(OsStr::from_bytes(path("local_path", local)?));
    let remote = std::str::from_utf8(path("remote_path", remote)?)
        .map_err(|_| "Column remote_path holds no UTF-8 text".to_owned())?;
    let md5 = text("local_md5sum", sum)
        .and_then(|hex| from_hex(hex).ok_or_else(|| "Column local_md5sum holds no 32 hex digits".to_owned()))?;
    Ok((source, Naming::Given(remote.to_owned()), md5))
}

fn path<'a>(column: &str, value: ValueRef<'a>) -> Result<&'a [u8], String> {
    let path = text(column, value)?;
    if path.is_empty() {
        Err(format!("Column {column} is empty"))
    } else if path.contains(&0) {
        Err(format!("Column {column} holds a NUL byte"))
    } else {
        Ok(path)
    }
}

fn text<'a>(column: &str, value: ValueRef<'a>) -> Result<&'a [u8], String> {
    match value {
        ValueRef::Text(text) => Ok(text),
        ValueRef::Null => Err(format!("Column {column} is NULL")),
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => {
            Err(format!("Column {column} holds no text of at most {PATH_LIMIT} bytes"))
        }
    }
}

/// A sum as the table has it.
pub(super) fn hex(md5: &Md5) -> String {
    md5.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &[u8]) -> Option<Md5> {
    if hex.len() != 32 {
        return None;
    }
    let mut sum = Md5::default();
    for (byte, digits) in sum.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = hex_digit(digits.first().copied())? << 4 | hex_digit(digits.last().copied())?;
    }
    Some(sum)
}
