//! Why rows failed last, in a table of our own beside theirs, so that it can be read again.
//!
//! A row has a note from its first failure on until it is proven or given a new chance. A note is of that many failures:
//! where the table of files counts another number, somebody else has changed the row since, and the note is void.

use super::RecordId;

/// The table's name, in either kind of database.
pub const NOTES: &str = "archiver_note";

/// Longest reason that is kept, in characters.
const WHY_MOST: usize = 1000;

/// Why a row failed last.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// The row.
    pub id: RecordId,
    /// Its path.
    pub path: String,
    /// Failures counted so far.
    pub attempts: i64,
    /// When it was noted, unix time in seconds, and why it failed; nothing where no reason was kept.
    pub reason: Option<(f64, String)>,
    /// The storage node that alone gave it up, where that is so.
    pub node: Option<String>,
}

/// Whether notes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeping {
    /// The table is there.
    There,
    /// It is made with the first failure.
    Later,
    /// It is not there and cannot be made, for this reason.
    Not(String),
}

/// A reason as it is kept.
pub(super) fn short(why: &str) -> String {
    let mut chars = why.chars();
    let text: String = chars.by_ref().take(WHY_MOST).collect();
    match chars.next() {
        None => text,
        Some(_) => text.chars().take(WHY_MOST - 1).chain(['…']).collect(),
    }
}
