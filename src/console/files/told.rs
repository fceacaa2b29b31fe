//! A row in words, and as a record for programs.

use crate::archiver::audit::AuditedCopy;
use crate::archiver::layout::{RemotePath, place};
use crate::catalog::at_node::{AtNode, AtNodeState};
use crate::catalog::files::{FileRow, FileState};
use crate::catalog::{Naming, Pending};
use serde_json::Value;

/// What is told of a row to programs, in this order.
pub(crate) const FIELDS: [&str; 13] = [
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

/// What is told besides where rows are listed: of which storage node this is, and how the row stands there.
pub(crate) const NODE_FIELDS: [&str; 5] = ["node", "node_state", "node_attempts", "node_reason", "node_reason_at"];

/// Where a file is, was, and goes.
pub(crate) struct FilePlaces {
    /// Where it was when it was registered; a copied row of MySQL no longer says it.
    pub(crate) source: Option<String>,
    /// Where its copy is; in SQLite relative to the archive's base.
    pub(crate) copy: Option<String>,
    /// Where it goes, relative to the archive's base, if that is not known from the copy.
    pub(crate) place: Option<String>,
}

impl FilePlaces {
    pub(crate) fn of(row: &FileRow) -> Self {
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
    pub(crate) fn shown(&self) -> &str {
        self.source.as_deref().or(self.copy.as_deref()).unwrap_or("(no path)")
    }
}

/// The state in a word, for programs.
pub(crate) fn state_name(state: FileState) -> &'static str {
    match state {
        FileState::Waiting => "waiting",
        FileState::Retrying => "retrying",
        FileState::GivenUp => "given_up",
        FileState::Copied => "copied",
        FileState::Ignored(_) => "ignored",
    }
}

/// The state in a word or two, for people.
pub(crate) fn state_words(state: FileState) -> &'static str {
    match state {
        FileState::Waiting => "waits",
        FileState::Retrying => "failed, tries on",
        FileState::GivenUp => "given up",
        FileState::Copied => "copied",
        FileState::Ignored(_) => "ignored",
    }
}

/// The state at a storage node in a word, for programs.
fn node_state_name(state: AtNodeState) -> &'static str {
    match state {
        AtNodeState::Waiting => "waiting",
        AtNodeState::Owed => "owed",
        AtNodeState::Lacking => "lacking",
        AtNodeState::Retrying => "retrying",
        AtNodeState::GivenUp => "given_up",
    }
}

/// The state at a storage node in a word or two, for people.
pub(crate) fn node_state_words(state: AtNodeState) -> &'static str {
    match state {
        AtNodeState::Waiting => state_words(FileState::Waiting),
        AtNodeState::Owed => "owed",
        AtNodeState::Lacking => "owed, file gone",
        AtNodeState::Retrying => state_words(FileState::Retrying),
        AtNodeState::GivenUp => state_words(FileState::GivenUp),
    }
}

/// Why a storage node has no copy of a row, as far as that is known.
pub(crate) fn node_reason(row: &FileRow, at: &AtNode) -> Option<String> {
    let noted = at.reason.as_ref().map(|(_, why)| why.clone());
    // What was not met there counts in the row.
    noted.or_else(|| reason(row))
}

/// The values of [`NODE_FIELDS`].
pub(crate) fn node_values(row: &FileRow) -> [Value; 5] {
    let Some(at) = &row.at else { return Default::default() };
    [
        at.node.clone().into(),
        node_state_name(at.state).into(),
        at.attempts.into(),
        node_reason(row, at).into(),
        at.reason.as_ref().map(|(at, _)| *at).into(),
    ]
}

/// Why a row is not copied, as far as that is known.
pub(crate) fn reason(row: &FileRow) -> Option<String> {
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
pub(crate) fn unusable(row: &FileRow) -> Option<String> {
    match &row.row {
        Pending::Ready(_) => None,
        Pending::Unusable { why, .. } => Some(why.clone()),
    }
}

/// The values of [`FIELDS`].
pub(crate) fn values(row: &FileRow) -> [Value; 13] {
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

pub(crate) fn hex(md5: &[u8; 16]) -> String {
    md5.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The copy of a row, relative to the archive's base.
pub(crate) fn copy_of(row: &FileRow, data_dir: &str) -> Result<AuditedCopy, String> {
    if row.state != FileState::Copied {
        return Err("it is not copied".into());
    }
    let copy = FilePlaces::of(row).copy.ok_or("its row does not say where the copy is")?;
    copy_at(row, copy, data_dir)
}

/// The same, where its place is known.
pub(crate) fn copy_at(row: &FileRow, copy: String, data_dir: &str) -> Result<AuditedCopy, String> {
    let md5 = row.md5().ok_or("its row cannot be used as it stands")?;
    let base = format!("{}/", data_dir.trim_end_matches('/'));
    // SupRsync's rows have it relative already.
    let place = match copy.strip_prefix('/') {
        None => copy,
        Some(_) => match copy.strip_prefix(&base) {
            Some(place) => place.to_owned(),
            None => return Err(format!("its copy is at {copy}, and that is not below --data-dir")),
        },
    };
    // As the archiver places copies: without empty, `.` and `..` components, as the far end's list has names.
    RemotePath::new(place.clone())?;
    Ok(AuditedCopy { place, md5 })
}
