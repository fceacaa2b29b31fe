//! Where a file belongs in the archive.
//!
//! The two layouts of the old archiver, always in UTC, and the paths that SupRsync's rows carry themselves. Values from a
//! table are not trusted: a component that would leave its directory is refused.

use super::ArchiverSettings;
use crate::catalog::{Naming, Record};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// Longest path component of common file systems, in bytes.
const COMPONENT_MOST: usize = 255;
/// Longest path that the file list carries, in bytes, with room for a number behind it.
const PATH_MOST: usize = 4000;

/// A path beneath the archive's base: no empty, `.` or `..` component, no slash at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RemotePath(String);

impl RemotePath {
    /// Checks a path.
    pub(crate) fn new(path: String) -> Result<Self, String> {
        if path.len() > PATH_MOST {
            return Err(format!(
                "its path in the archive would be {} bytes long, and {PATH_MOST} are allowed",
                path.len()
            ));
        }
        for component in path.split('/') {
            check_component("its path in the archive", component)?;
        }
        Ok(Self(path))
    }

    /// The path as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The numbered variant that is tried when the name is taken: `.1`, `.2` … behind the full name; 0 is the name itself.
    pub(crate) fn variant(&self, number: u32) -> String {
        match number {
            0 => self.0.clone(),
            number => format!("{}.{number}", self.0),
        }
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_debug())
    }
}

/// Where a record's file belongs; an error says what is wrong with the row, naming the column.
pub(crate) fn place(record: &Record) -> Result<RemotePath, String> {
    let path = match &record.naming {
        Naming::Given(path) => path.clone(),
        Naming::Type { timestamp, file_type } => {
            let file_type = needed("type", file_type.as_deref())?;
            check_component("column type", file_type)?;
            format!("{}/{file_type}/{}", five_digits(*timestamp)?, file_name(record)?)
        }
        Naming::Action { timestamp, pub_id, action, action_timestamp, plot } => {
            let pub_id = needed("pub_id", pub_id.as_deref())?;
            check_component("column pub_id", pub_id)?;
            // The old archiver wrote Python's None.
            let action = action.as_deref().unwrap_or("None");
            let name = file_name(record)?;
            let started = match action_timestamp.or_else(|| leading_number(name)).or(*timestamp) {
                Some(started) => started,
                None => return Err("columns timestamp and action_timestamp are both empty".into()),
            };
            let folder = format!("{started}_{action}");
            check_component("column action", &folder)?;
            let kind = if *plot { "plots" } else { "outputs" };
            format!("{}/{pub_id}/{folder}/{kind}/{name}", five_digits(*timestamp)?)
        }
    };
    RemotePath::new(path)
}

/// What the table's path column says of a copy.
pub(super) fn archived_path(settings: &ArchiverSettings, relative: &str) -> String {
    if settings.relative_paths {
        relative.to_owned()
    } else {
        format!("{}/{relative}", settings.data_dir.trim_end_matches('/'))
    }
}

/// What is wrong with a path that the table cannot hold.
pub(super) fn too_long(path: &str, limit: usize) -> String {
    format!(
        "its archived path has {} characters, and the table's path column holds {limit}: {path:?}",
        path.chars().count()
    )
}

fn needed<'a>(column: &str, value: Option<&'a str>) -> Result<&'a str, String> {
    value.ok_or_else(|| format!("column {column} is empty"))
}

/// The first five digits of the file's time, seconds since 1970.
fn five_digits(timestamp: Option<i64>) -> Result<String, String> {
    let timestamp = timestamp.ok_or("column timestamp is empty")?;
    if timestamp < 0 {
        return Err(format!("column timestamp is before 1970 ({timestamp})"));
    }
    Ok(timestamp.to_string().chars().take(5).collect())
}

fn file_name(record: &Record) -> Result<&str, String> {
    let bytes = record.source.as_os_str().as_bytes();
    let name = bytes.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| "column path does not end in a file name of UTF-8 text")?;
    check_component("the file name in column path", name)?;
    Ok(name)
}

/// What stands before the first `_` of the name less its last extension, where that is a number as Python reads one.
fn leading_number(name: &str) -> Option<i64> {
    let stem = match name.rfind('.') {
        Some(dot) if !name[..dot].chars().all(|char| char == '.') => &name[..dot],
        _ => name,
    };
    let number = stem.split('_').next()?.trim();
    number.strip_prefix('+').unwrap_or(number).parse().ok()
}

fn check_component(what: &str, component: &str) -> Result<(), String> {
    let wrong = match component {
        "" => "is empty or has an empty component",
        "." | ".." => "has a component . or ..",
        component if component.contains('/') => "holds a slash",
        component if component.contains('\0') => "holds a NUL",
        component if component.len() > COMPONENT_MOST => "has a component of more than 255 bytes",
        _ => return Ok(()),
    };
    Err(format!("{what} {wrong}: {component:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::RecordId;

    fn record(source: &str, naming: Naming) -> Record {
        Record {
            id: RecordId(1),
            source: source.into(),
            md5: [0; 16],
            naming,
            attempts: 0,
            hold: crate::catalog::Hold::default(),
        }
    }

    fn action(source: &str, action: Option<&str>, action_timestamp: Option<i64>) -> Result<String, String> {
        let naming = Naming::Action {
            timestamp: Some(1589517384),
            pub_id: Some("crate1slot2".into()),
            action: action.map(Into::into),
            action_timestamp,
            plot: false,
        };
        place(&record(source, naming)).map(|path| path.0)
    }

    #[test]
    fn action_layout_as_the_old_archiver() {
        for (source, name, started, expected) in [
            (
                "/d/1589517264_tuning.npy",
                Some("tracking_setup"),
                Some(1589517264),
                "15895/crate1slot2/1589517264_tracking_setup/outputs/1589517264_tuning.npy",
            ),
            (
                "/d/1589517300_noats.npy",
                Some("tracking_setup"),
                None,
                "15895/crate1slot2/1589517300_tracking_setup/outputs/1589517300_noats.npy",
            ),
            ("/d/plain.npy", Some("t"), None, "15895/crate1slot2/1589517384_t/outputs/plain.npy"),
            ("/d/12.5_x.npy", None, None, "15895/crate1slot2/1589517384_None/outputs/12.5_x.npy"),
        ] {
            assert_eq!(action(source, name, started).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn type_layout() {
        let naming = Naming::Type { timestamp: Some(1589517384), file_type: Some("tuning".into()) };
        assert_eq!(place(&record("/x/a b.txt", naming)).unwrap().as_str(), "15895/tuning/a b.txt");
    }

    #[test]
    fn nothing_leaves_its_directory() {
        assert!(action("/d/x", Some("../../../x"), Some(1)).is_err());
        assert!(action("/d/", Some("x"), Some(1)).is_err());
        assert!(action("/d/..", Some("x"), Some(1)).is_err());
        for path in ["../x", "/abs", "a//b", "a/./b", "", "a/"] {
            assert!(place(&record("/d/x", Naming::Given(path.into()))).is_err(), "{path}");
        }
        let none = Naming::Action {
            timestamp: None,
            pub_id: Some("p".into()),
            action: None,
            action_timestamp: None,
            plot: true,
        };
        assert!(place(&record("/d/x", none)).unwrap_err().contains("timestamp"));
        let naming = Naming::Type { timestamp: Some(1), file_type: None };
        assert!(place(&record("/d/x", naming)).unwrap_err().contains("type"));
    }

    #[test]
    fn variants_stand_behind_the_full_name() {
        let path = RemotePath::new("a/b.npy".into()).unwrap();
        assert_eq!((path.variant(0).as_str(), path.variant(12).as_str()), ("a/b.npy", "a/b.npy.12"));
    }
}
