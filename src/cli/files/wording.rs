//! A row in words, and as a record for programs.

use super::super::output::printable;
use crate::archiver::layout::place;
use crate::catalog::files::{FileRow, FileState};
use crate::catalog::{Naming, Pending};
use crate::clock;
use serde_json::Value;

/// What is told of a row to programs, in this order.
pub(super) const FIELDS: [&str; 13] = [
    "id",
    "state",
    "archive",
    "source",
    "copy",
    "place",
    "md5",
    "attempts",
    "time",
    "copied_at",
    "removed_at",
    "reason",
    "reason_at",
];

/// Where a file is, was, and goes.
pub(super) struct FilePlaces {
    /// Where it was when it was registered; a copied row of MySQL no longer says it.
    pub(super) source: Option<String>,
    /// Where its copy is; in SQLite relative to the archive's base.
    pub(super) copy: Option<String>,
    /// Where it goes, relative to the archive's base, if that is not known from the copy.
    pub(super) place: Option<String>,
}

impl FilePlaces {
    pub(super) fn of(row: &FileRow) -> Self {
        let path = row.path().to_string_lossy().into_owned();
        let path = (!path.is_empty()).then_some(path);
        let copied = row.state == FileState::Copied;
        match &row.row {
            Pending::Ready(record) => match (&record.naming, copied) {
                (Naming::Given(remote), true) => Self { source: path, copy: Some(remote.clone()), place: None },
                (Naming::Given(remote), false) => Self { source: path, copy: None, place: Some(remote.clone()) },
                (_, true) => Self { source: None, copy: path, place: None },
                (_, false) => {
                    Self { source: path, copy: None, place: place(record).ok().map(|place| place.as_str().to_owned()) }
                }
            },
            Pending::Unusable { .. } => Self { source: path, copy: None, place: None },
        }
    }

    /// The one by which people know the file.
    pub(super) fn shown(&self) -> &str {
        self.source.as_deref().or(self.copy.as_deref()).unwrap_or("(no path)")
    }
}

/// The state in a word, for programs.
pub(super) fn state_name(state: FileState) -> &'static str {
    match state {
        FileState::Waiting => "waiting",
        FileState::Retrying => "retrying",
        FileState::GivenUp => "given_up",
        FileState::Copied => "copied",
        FileState::Ignored(_) => "ignored",
    }
}

/// The state in a word or two, for people.
pub(super) fn state_words(state: FileState) -> &'static str {
    match state {
        FileState::Waiting => "waits",
        FileState::Retrying => "failed, tries on",
        FileState::GivenUp => "given up",
        FileState::Copied => "copied",
        FileState::Ignored(_) => "ignored",
    }
}

/// Why a row is not copied, as far as that is known.
pub(super) fn reason(row: &FileRow) -> Option<String> {
    let noted = row.reason.as_ref().map(|(_, why)| why.clone());
    match row.state {
        FileState::Copied => None,
        FileState::Waiting => unusable(row),
        FileState::Ignored(why) => Some(noted.unwrap_or_else(|| why.to_owned())),
        FileState::Retrying | FileState::GivenUp => {
            Some(noted.or_else(|| unusable(row)).unwrap_or_else(|| "why was not kept; see the log of run".to_owned()))
        }
    }
}

/// What is wrong with the row itself.
pub(super) fn unusable(row: &FileRow) -> Option<String> {
    match &row.row {
        Pending::Ready(_) => None,
        Pending::Unusable { why, .. } => Some(why.clone()),
    }
}

/// The values of [`FIELDS`].
pub(super) fn values(row: &FileRow) -> [Value; 13] {
    let places = FilePlaces::of(row);
    [
        row.id().0.into(),
        state_name(row.state).into(),
        row.owner.clone().into(),
        places.source.into(),
        places.copy.into(),
        places.place.into(),
        row.md5().as_ref().map(hex).into(),
        row.attempts().into(),
        row.time.into(),
        row.copied_at.into(),
        row.removed_at.into(),
        reason(row).into(),
        row.reason.as_ref().map(|(at, _)| *at).into(),
    ]
}

pub(super) fn hex(md5: &[u8; 16]) -> String {
    md5.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long ago, in the largest unit that fits.
pub(super) fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A moment in local time.
pub(super) fn moment(seconds: f64) -> String {
    let local = clock::local(seconds as i64);
    format!("{} {}", local.date().replace('/', "-"), local.time())
}

/// A row in a line, for lists of what was done.
pub(super) fn named(row: &FileRow) -> String {
    format!("row {}, {}", row.id().0, printable(FilePlaces::of(row).shown()))
}

/// Bytes as people read them.
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_largest_unit() {
        assert_eq!([5.0, 130.0, 7300.0, 200_000.0, -1.0].map(age), ["5s", "2m", "2h", "2d", "0s"]);
    }
}
