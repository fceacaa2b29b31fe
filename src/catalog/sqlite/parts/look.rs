//! One look at a part of the table: what all who do something beside the copying need to know of it.

use super::super::table::{FILES, PATH_LIMIT};
use super::IdRange;
use rusqlite::{Connection, Error, OptionalExtension, Row, params};
use std::collections::BTreeMap;

/// The first component of a remote path, where it is a timecode: five digits and a slash.
pub(in super::super) const HAS_TIMECODE: &str = "remote_path GLOB '[0-9][0-9][0-9][0-9][0-9]/*'";
/// Since when a copy is proven: never before the row was registered.
pub(in super::super) const SINCE: &str = "max(timestamp, ifnull(copied, timestamp))";
/// Files that announce a timecode: they belong to the day on which they are made, and are not late for it.
const ANNOUNCES: &str = "substr(remote_path, 6, 10) = '/suprsync/'";

/// How the files of a timecode stand.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in super::super) struct TimecodeTally {
    pub(in super::super) files: i64,
    /// Neither proven nor ignored.
    pub(in super::super) waiting: i64,
    /// When the newest of them was registered.
    pub(in super::super) newest: f64,
    /// The last of those that are proven and announce nothing, and when the newest of these was registered.
    pub(in super::super) last: i64,
    pub(in super::super) last_at: f64,
}

impl TimecodeTally {
    pub(in super::super) fn add(&mut self, more: &Self) {
        self.files += more.files;
        self.waiting += more.waiting;
        self.newest = self.newest.max(more.newest);
        self.last = self.last.max(more.last);
        self.last_at = self.last_at.max(more.last_at);
    }
}

/// By timecode: five digits, so there are not many.
pub(in super::super) type Tallies = BTreeMap<i64, TimecodeTally>;

/// What was found in a part.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct PartFound {
    /// Files of the archive.
    pub(in super::super) files: i64,
    /// Those that are neither proven nor ignored, and when the first of them was registered.
    pub(in super::super) uncopied: i64,
    pub(in super::super) oldest: Option<f64>,
    /// Those with the latest timestamp, of all and of the copied ones: the timestamp, and the source.
    pub(in super::super) added: Option<(f64, String)>,
    pub(in super::super) copied: Option<(f64, String)>,
    /// Rows of whatever archive whose files are still needed.
    pub(in super::super) waiting: i64,
    /// Since when the first of those is proven that are here and may be deleted.
    pub(in super::super) prunable: Option<f64>,
    pub(in super::super) tallies: Tallies,
}

impl PartFound {
    /// Whether only somebody who puts rows back changes it.
    pub(super) fn is_settled(&self) -> bool {
        self.uncopied == 0 && self.waiting == 0
    }
}

/// What is asked of a part.
#[derive(Clone)]
pub(in super::super) struct PartLook {
    archive: String,
    counts: String,
    added: String,
    copied: String,
}

impl PartLook {
    /// `has_deletable`: the table says of each file whether it may be deleted; else none may.
    pub(super) fn new(archive: &str, not_ignored: &str, has_deletable: bool) -> Self {
        let unproven = format!("remote_md5sum IS NOT local_md5sum {not_ignored}");
        // SQLite lets anything stand in a column: what is no time is the oldest, and never due.
        let number = |column: &str| format!("typeof({column}) IN ('real', 'integer')");
        let time = format!("iif({}, timestamp, 0.0)", number("timestamp"));
        let prunable = match has_deletable {
            true => format!("{} AND {}", prunable(), number(SINCE)),
            false => "0".to_owned(),
        };
        let of = |what: &str, condition: &str| format!("{what} THEN {condition} END)");
        let own = |more: &str| format!("CASE WHEN archive_name = ?1 {more}");
        let settled = format!("AND remote_md5sum IS local_md5sum AND NOT {ANNOUNCES}");
        let columns = [
            of(&format!("COUNT({}", own("")), "1"),
            of(&format!("COUNT({}", own(&format!("AND {unproven}"))), "1"),
            of(&format!("MIN({}", own(&format!("AND {unproven}"))), &time),
            of(&format!("COUNT(CASE WHEN removed IS NULL AND {unproven}"), "1"),
            of(&format!("MIN({}", own(&format!("AND {prunable}"))), SINCE),
            of(&format!("MAX({}", own("")), &time),
            of(&format!("MAX({}", own(&settled)), "id"),
            of(&format!("MAX({}", own(&settled)), &time),
        ];
        let within = format!("FROM {FILES} WHERE id > ?2 AND id <= ?3");
        let path = format!("CAST(substr(local_path, 1, {PATH_LIMIT}) AS TEXT)");
        // Of those of one time the one registered last.
        let newest = |which: &str| {
            format!("SELECT {time}, {path} {within} AND archive_name = ?1 {which} ORDER BY 1 DESC, id DESC LIMIT 1")
        };
        Self {
            archive: archive.to_owned(),
            counts: format!(
                "SELECT CASE WHEN {HAS_TIMECODE} THEN CAST(substr(remote_path, 1, 5) AS INTEGER) END, {} {within} GROUP BY 1",
                columns.join(", ")
            ),
            added: newest(""),
            copied: newest("AND remote_md5sum = local_md5sum"),
        }
    }

    pub(super) fn look(&self, connection: &Connection, ids: IdRange) -> Result<PartFound, Error> {
        let mut found = self.count(connection, ids)?;
        let given = params![self.archive, ids[0], ids[1]];
        let newest = |query: &str| {
            let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?.unwrap_or_default()));
            connection.prepare_cached(query)?.query_row(given, read).optional()
        };
        (found.added, found.copied) = (newest(&self.added)?, newest(&self.copied)?);
        Ok(found)
    }

    /// The counts alone.
    pub(in super::super) fn count(&self, connection: &Connection, ids: IdRange) -> Result<PartFound, Error> {
        let mut found = PartFound::default();
        let mut statement = connection.prepare_cached(&self.counts)?;
        let mut rows = statement.query(params![self.archive, ids[0], ids[1]])?;
        while let Some(row) = rows.next()? {
            let [files, uncopied, waiting] = [row.get(1)?, row.get(2)?, row.get(4)?];
            let [oldest, prunable]: [Option<f64>; 2] = [row.get(3)?, row.get(5)?];
            found.files += files;
            found.uncopied += uncopied;
            found.waiting += waiting;
            found.oldest = found.oldest.into_iter().chain(oldest).reduce(f64::min);
            found.prunable = found.prunable.into_iter().chain(prunable).reduce(f64::min);
            if let (Some(timecode), true) = (row.get::<_, Option<i64>>(0)?, files > 0) {
                let [newest, last_at] = [row.get::<_, Option<f64>>(6)?, row.get(8)?].map(Option::unwrap_or_default);
                let last = row.get::<_, Option<i64>>(7)?.unwrap_or(i64::MIN);
                found.tallies.insert(timecode, TimecodeTally { files, waiting: uncopied, newest, last, last_at });
            }
        }
        Ok(found)
    }
}

/// What makes a row one whose local file may be deleted, apart from its age.
pub(in super::super) fn prunable() -> &'static str {
    "removed IS NULL AND deletable = 1 AND remote_md5sum = local_md5sum AND length(local_md5sum) = 32"
}
