//! What whoever writes to the database, or hands batches over, says of places in the archive.

pub(crate) mod layout;
#[path = "../../src/batches/request.rs"]
mod request;

use crate::catalog::{Naming, Record};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// What of an archiver's settings has to do with places.
pub(crate) struct ArchiverSettings {
    pub(crate) relative_paths: bool,
    pub(crate) data_dir: String,
}

/// A row: its columns a line each.
pub(crate) fn rows(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let mut column = || lines.next().filter(|line| !line.is_empty());
    let source = Path::new(OsStr::from_bytes(column().unwrap_or_default())).to_owned();
    let (timestamp, kind) = (number(column()), column().and_then(|line| line.first()).copied().unwrap_or(0));
    let naming = match kind & 3 {
        0 => Naming::Given(text(column()).unwrap_or_default()),
        1 => Naming::Type { timestamp, file_type: text(column()) },
        _ => {
            let (pub_id, action, action_timestamp) = (text(column()), text(column()), number(column()));
            Naming::Action { timestamp, pub_id, action, action_timestamp, plot: kind & 4 != 0 }
        }
    };
    if let Ok(place) = layout::place(&Record { source, naming }) {
        for number in [0, 1, u32::MAX] {
            stays_below(&place.variant(number));
        }
    }
}

/// A batch that is handed over.
pub(crate) fn batches(data: &[u8]) {
    let Ok(batch) = request::BatchRequest::parse(data) else { return };
    for file in &batch.files {
        stays_below(file.remote.trim_start_matches('/'));
    }
    assert!(request::BatchRequest::parse(batch.to_json().as_bytes()).is_ok_and(|again| again == batch));
}

fn text(line: Option<&[u8]>) -> Option<String> {
    line.map(|line| String::from_utf8_lossy(line).into_owned())
}

fn number(line: Option<&[u8]>) -> Option<i64> {
    std::str::from_utf8(line?).ok()?.parse().ok()
}

fn stays_below(place: &str) {
    let plain = Path::new(place).components().all(|component| matches!(component, Component::Normal(_)));
    assert!(plain && !place.is_empty() && !place.contains('\0'), "{place:?}");
}
