//! SupRsync's table of timecode directories: which there are, which are complete, and which nobody was told of.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Error, OptionalExtension, TransactionBehavior, params};

use super::SqliteCatalog;
use super::fleet::fence;
use super::parts::{HAS_TIMECODE, IdRange, Tallies, add_up};
use super::table::{FILES, PATH_LIMIT, TIMECODES};
use crate::catalog::{CatalogError, RecordId};

/// Rows older than this have their timecode, or never will: seconds.
const TIMECODES_SINCE: f64 = 7.0 * 86_400.0;
/// Seconds of one timecode.
const TIMECODE: f64 = 100_000.0;
/// Directories of one timecode that are told.
const SUBDIRS: usize = 10_000;
/// Timecodes of one round.
const TOLD_AT_ONCE: usize = 100;
/// For so long, in seconds, no file may have been registered for a timecode that was announced before it is announced
/// again: late files come in flocks, and each announcement has somebody pack the data anew.
pub(crate) const QUIET: f64 = 600.0;

/// A timecode directory of which every file is proven, and that nobody has been told of as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Complete {
    id: i64,
    /// The directory's five digits.
    pub timecode: i64,
    pub files: i64,
    /// Directories right below it that hold files further below.
    pub subdirs: Vec<String>,
    /// It was announced before, and files came late.
    pub again: bool,
    /// Rows up to this one are counted.
    counted: i64,
}

/// A file to be registered, as a producer would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Where it is; absolute.
    pub local: String,
    /// Where it goes, relative to the base.
    pub remote: String,
    /// Its sum, in hex.
    pub md5: String,
}

/// A row of the table of timecodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TimecodeRow {
    pub(super) id: i64,
    pub(super) timecode: i64,
    pub(super) completed: bool,
    pub(super) synced: bool,
    pub(super) finalized: bool,
    /// The file that announced it.
    pub(super) file: Option<i64>,
}

/// What is to be written down of the timecodes.
#[derive(Default)]
struct Steps {
    new: Vec<i64>,
    completed: Vec<i64>,
    synced: Vec<i64>,
    told: Vec<Complete>,
}

impl Steps {
    /// The timecodes of which it matters whether every file is proven.
    fn judged(&self, rows: &[TimecodeRow]) -> BTreeSet<i64> {
        let synced = rows.iter().filter(|row| self.synced.contains(&row.id)).map(|row| row.timecode);
        synced.chain(self.told.iter().map(|complete| complete.timecode)).collect()
    }

    fn are_none(&self) -> bool {
        self.new.is_empty() && self.completed.is_empty() && self.synced.is_empty() && self.told.is_empty()
    }
}

impl SqliteCatalog {
    /// Brings the archive's timecodes up to date, and gives those to be announced. A timecode is completed once a later
    /// one has begun in this archive, or its time is over; synced once all its files are proven that are not ignored.
    /// (SupRsync counts files and timecodes of other archives too, so that one can hold up another, and announces once.)
    pub async fn complete_timecodes(&self, now: f64) -> Result<Vec<Complete>, CatalogError> {
        let (tallies, end) = self.survey(|parts| (parts.tallies(), parts.end())).await?;
        let archive = self.archive.clone();
        let judging = self.run(move |connection| {
            let rows = rows(connection, &archive)?;
            Ok((steps(&rows, &tallies, end, now), rows))
        });
        let (steps, rows) = judging.await?;
        if steps.are_none() {
            return Ok(Vec::new());
        }
        // What is remembered may be old. Before it counts, all that has files of these timecodes is looked at.
        let judged = steps.judged(&rows);
        let ranges = self.survey(|parts| parts.with_timecodes(&judged)).await?;
        self.stirred.look_again_at(&ranges);
        let (tallies, end) = self.survey(|parts| (parts.tallies(), parts.end())).await?;
        let mut complete = self.settle(tallies, end, now).await?;
        if !complete.is_empty() {
            let timecodes = complete.iter().map(|complete| complete.timecode).collect();
            let mut subdirs = self.subdirs(timecodes).await?;
            for complete in &mut complete {
                complete.subdirs = subdirs.remove(&complete.timecode).unwrap_or_default().into_iter().collect();
            }
        }
        Ok(complete)
    }

    /// Writes down which timecodes there are, and which are completed and synced; gives those that nobody was told of.
    async fn settle(&self, mut tallies: Tallies, end: i64, now: f64) -> Result<Vec<Complete>, CatalogError> {
        let (archive, look, mover) = (self.archive.clone(), self.part_look(), self.on_duty()?);
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !still_on_duty(&transaction, mover.as_deref())? {
                return Ok(Vec::new());
            }
            // What has come meanwhile.
            add_up(&mut tallies, &look.count(&transaction, [end, i64::MAX])?.tallies);
            let newest = format!("SELECT IFNULL(MAX(id), 0) FROM {FILES}");
            let counted = transaction.query_row(&newest, [], |row| row.get(0))?;
            let before = rows(&transaction, &archive)?;
            for timecode in steps(&before, &tallies, counted, now).new {
                add(&transaction, &archive, timecode)?;
            }
            let Steps { completed, synced, told, .. } = steps(&rows(&transaction, &archive)?, &tallies, counted, now);
            for (column, ids) in [("completed", completed), ("synced", synced)] {
                for id in ids {
                    transaction.execute(&format!("UPDATE {TIMECODES} SET {column} = 1 WHERE id = ?1"), [id])?;
                }
            }
            transaction.commit()?;
            Ok(told)
        })
        .await
    }

    /// Directories right below these timecodes that hold files further below.
    async fn subdirs(&self, timecodes: BTreeSet<i64>) -> Result<BTreeMap<i64, BTreeSet<String>>, CatalogError> {
        let query = format!(
            "SELECT DISTINCT CAST(substr(remote_path, 1, 5) AS INTEGER), \
             substr(remote_path, 7, instr(substr(remote_path, 7), '/') - 1) FROM {FILES} \
             WHERE id > ?2 AND id <= ?3 AND archive_name = ?1 AND {HAS_TIMECODE} AND instr(substr(remote_path, 7), '/') > 0"
        );
        let (mut ranges, end) = self.survey(|parts| (parts.with_timecodes(&timecodes), parts.end())).await?;
        ranges.push([end, i64::MAX]);
        let mut found: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
        for [after, last] in ranges {
            let (query, archive) = (query.clone(), self.archive.clone());
            let rows = self.run(move |connection| {
                let mut statement = connection.prepare_cached(&query)?;
                let rows = statement.query_map(params![archive, after, last], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect::<Result<Vec<(i64, String)>, Error>>()
            });
            for (timecode, subdir) in rows.await? {
                if timecodes.contains(&timecode) {
                    let subdirs = found.entry(timecode).or_default();
                    if subdirs.len() < SUBDIRS {
                        subdirs.insert(subdir);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Registers the file that announces a timecode, and opens the timecode that this file itself belongs to. Not if files
    /// came for the timecode since it was counted; whether it was done.
    pub async fn announce(&self, complete: Complete, file: NewFile, now: f64) -> Result<bool, CatalogError> {
        let (archive, ignore) = (self.archive.clone(), !self.not_ignored.is_empty());
        let (deletable, mover) = (self.has_deletable, self.on_duty()?);
        let late = format!(
            "SELECT COUNT(*) FROM {FILES} WHERE id > ?1 AND archive_name = ?2 AND {HAS_TIMECODE} \
             AND CAST(substr(remote_path, 1, 5) AS INTEGER) = ?3 AND NOT substr(remote_path, 6, 10) = '/suprsync/'"
        );
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !still_on_duty(&transaction, mover.as_deref())? {
                return Ok(false);
            }
            let given = params![complete.counted, archive, complete.timecode];
            if transaction.query_row(&late, given, |row| row.get::<_, i64>(0))? > 0 {
                return Ok(false);
            }
            let (columns, values) = match (deletable, ignore) {
                (true, true) => (", deletable, \"ignore\"", ", 1, 0"),
                (true, false) => (", deletable", ", 1"),
                (false, true) => (", \"ignore\"", ", 0"),
                (false, false) => ("", ""),
            };
            transaction.execute(
                &format!(
                    "INSERT INTO {FILES} (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                     failed_copy_attempts{columns}) VALUES (?1, ?2, ?3, ?4, ?5, 0{values})"
                ),
                params![file.local, file.md5, archive, file.remote, now],
            )?;
            let id = transaction.last_insert_rowid();
            transaction.execute(
                &format!("UPDATE {TIMECODES} SET finalized = 1, finalize_file_id = ?2 WHERE id = ?1 AND timecode = ?3"),
                params![complete.id, id, complete.timecode],
            )?;
            add(&transaction, &archive, (now / TIMECODE).floor() as i64)?;
            transaction.commit()?;
            Ok(true)
        })
        .await
    }

    /// The archive's name.
    pub fn archive(&self) -> &str {
        &self.archive
    }
}

/// The archive's timecodes, in order.
pub(super) fn rows(connection: &Connection, archive: &str) -> Result<Vec<TimecodeRow>, Error> {
    let query = format!(
        "SELECT id, timecode, completed IS 1, synced IS 1, finalized IS 1, finalize_file_id FROM {TIMECODES} \
         WHERE archive_name = ?1 AND typeof(timecode) = 'integer' ORDER BY timecode, id"
    );
    let mut statement = connection.prepare_cached(&query)?;
    let rows = statement.query_map([archive], |row| {
        let [completed, synced, finalized] = [row.get(2)?, row.get(3)?, row.get(4)?];
        Ok(TimecodeRow { id: row.get(0)?, timecode: row.get(1)?, completed, synced, finalized, file: row.get(5)? })
    })?;
    rows.collect()
}

/// Opens a timecode, if it is not there.
pub(super) fn add(connection: &Connection, archive: &str, timecode: i64) -> Result<(), Error> {
    let insert = format!(
        "INSERT INTO {TIMECODES} (timecode, archive_name, completed, synced, finalized) SELECT ?1, ?2, 0, 0, 0 \
         WHERE NOT EXISTS (SELECT 1 FROM {TIMECODES} WHERE timecode = ?1 AND archive_name = ?2)"
    );
    connection.prepare_cached(&insert)?.execute(params![timecode, archive])?;
    Ok(())
}

/// The timecode that a place belongs to: five digits before its first slash.
pub(super) fn timecode_of(remote: &str) -> Option<i64> {
    let (first, _) = remote.split_once('/')?;
    (first.len() == 5 && first.bytes().all(|byte| byte.is_ascii_digit())).then(|| first.parse().ok()).flatten()
}

/// The first timecode whose time is not over, by the clock.
pub(super) fn over_below(now: f64) -> i64 {
    (now / TIMECODE).floor() as i64 - 1
}

/// How a timecode stands.
#[derive(Debug, Clone, PartialEq)]
pub struct TimecodeStand {
    pub timecode: i64,
    pub files: i64,
    /// Files that are neither proven nor ignored, and those of them that were given up.
    pub waiting: i64,
    pub given_up: i64,
    /// The one of these that was registered first.
    pub oldest: Option<RecordId>,
    /// No more files are expected.
    pub completed: bool,
    /// The file that announced it, and when that was.
    pub announced: Option<Announcement>,
    /// Files have come since.
    pub late: bool,
    /// When the last of its files was registered.
    pub last_at: f64,
}

/// The file that announced a timecode.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    pub at: f64,
    /// Where it is, beneath the archive's base.
    pub remote: String,
    /// Its own copy is proven.
    pub copied: bool,
}

/// What is asked of files that wait, by timecode.
type WaitingFiles = BTreeMap<i64, (i64, f64, i64)>;

impl SqliteCatalog {
    /// How all timecodes of the archive stand, in order; also those that have files and no row yet.
    pub async fn timecodes(&self, now: f64) -> Result<Vec<TimecodeStand>, CatalogError> {
        let (tallies, uncopied) = self
            .survey(|parts| {
                let uncopied = parts.iter().filter(|(_, found)| found.uncopied > 0).map(|(ids, _)| ids);
                (parts.tallies(), uncopied.collect::<Vec<_>>())
            })
            .await?;
        let mut waiting = WaitingFiles::new();
        for ids in uncopied {
            waiting = self.waiting_of(ids, waiting).await?;
        }
        let archive = self.archive.clone();
        let (rows, announced) = self
            .run(move |connection| {
                let rows = rows(connection, &archive)?;
                let announced = rows.iter().map(|row| announcement(connection, row)).collect::<Result<Vec<_>, _>>()?;
                Ok((rows, announced))
            })
            .await?;
        let last = rows.iter().map(|row| row.timecode).max().unwrap_or(i64::MIN);
        let mut stands: BTreeMap<i64, TimecodeStand> = BTreeMap::new();
        let known = rows.iter().zip(announced).map(|(row, announced)| (row.timecode, Some(row), announced));
        let unknown = tallies.keys().filter(|timecode| !rows.iter().any(|row| row.timecode == **timecode));
        for (timecode, row, announced) in known.chain(unknown.map(|timecode| (*timecode, None, None))) {
            let tally = tallies.get(&timecode).copied().unwrap_or_default();
            let of_waiting = waiting.get(&timecode);
            let file = row.filter(|row| row.finalized).and_then(|row| row.file);
            stands.insert(
                timecode,
                TimecodeStand {
                    timecode,
                    files: tally.files,
                    waiting: tally.waiting,
                    given_up: of_waiting.map_or(0, |waiting| waiting.0),
                    oldest: of_waiting.map(|waiting| RecordId(waiting.2)),
                    completed: row.is_some_and(|row| row.completed) || timecode < over_below(now) || timecode < last,
                    announced,
                    late: file.is_some_and(|file| is_late(&tally, file) || tally.waiting > 0),
                    last_at: tally.last_at,
                },
            );
        }
        Ok(stands.into_values().collect())
    }

    /// Adds what waits in a part: files given up, when the first was registered, and which that is.
    async fn waiting_of(&self, [after, last]: IdRange, mut found: WaitingFiles) -> Result<WaitingFiles, CatalogError> {
        let query = format!(
            "SELECT CAST(substr(remote_path, 1, 5) AS INTEGER), COUNT(CASE WHEN failed_copy_attempts >= ?4 THEN 1 END), \
             MIN(iif(typeof(timestamp) IN ('real', 'integer'), timestamp, 0.0)), id FROM {FILES} \
             WHERE id > ?2 AND id <= ?3 AND archive_name = ?1 AND {HAS_TIMECODE} \
             AND remote_md5sum IS NOT local_md5sum {} GROUP BY 1",
            self.not_ignored
        );
        let (archive, most) = (self.archive.clone(), self.max_attempts);
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query(params![archive, after, last, most])?;
            while let Some(row) = rows.next()? {
                let (timecode, given_up, at, id): (i64, i64, f64, i64) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                let entry = found.entry(timecode).or_insert((0, f64::MAX, id));
                entry.0 += given_up;
                if at < entry.1 {
                    (entry.1, entry.2) = (at, id);
                }
            }
            Ok(found)
        })
        .await
    }

    /// Has a timecode judged and announced anew, its row made if it is absent; how many files it has. `None` where it has none,
    /// of which nothing is made.
    pub async fn rebuild_timecode(&self, timecode: i64) -> Result<Option<i64>, CatalogError> {
        let files = self.survey(|parts| parts.tallies().get(&timecode).map(|tally| tally.files)).await?;
        let Some(files) = files else { return Ok(None) };
        let archive = self.archive.clone();
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            add(&transaction, &archive, timecode)?;
            let update = format!(
                "UPDATE {TIMECODES} SET completed = 0, synced = 0, finalized = 0 WHERE archive_name = ?1 AND timecode = ?2"
            );
            transaction.execute(&update, params![archive, timecode])?;
            transaction.commit()
        })
        .await?;
        Ok(Some(files))
    }
}

/// Whether the mover still is one, by whom alone timecodes are settled and announced; anybody may where no rows are shared.
fn still_on_duty(transaction: &Connection, mover: Option<&str>) -> Result<bool, Error> {
    mover.map_or(Ok(true), |mover| fence(transaction, mover))
}

fn announcement(connection: &Connection, row: &TimecodeRow) -> Result<Option<Announcement>, Error> {
    let Some(file) = row.file.filter(|_| row.finalized) else { return Ok(None) };
    let query = format!(
        "SELECT CAST(timestamp AS REAL), CAST(substr(remote_path, 1, {PATH_LIMIT}) AS TEXT), remote_md5sum IS local_md5sum \
         FROM {FILES} WHERE id = ?1"
    );
    let read = |row: &rusqlite::Row<'_>| Ok(Announcement { at: row.get(0)?, remote: row.get(1)?, copied: row.get(2)? });
    connection.prepare_cached(&query)?.query_row([file], read).optional()
}

/// Decides what is to be written of the timecodes; rows up to `counted` are in the tallies.
fn steps(rows: &[TimecodeRow], tallies: &Tallies, counted: i64, now: f64) -> Steps {
    let is_there = |timecode: i64| rows.iter().any(|row| row.timecode == timecode);
    let recent = tallies.iter().filter(|(_, tally)| tally.newest > now - TIMECODES_SINCE);
    let new = recent.map(|(timecode, _)| *timecode).filter(|timecode| !is_there(*timecode)).collect();
    let mut steps = Steps { new, ..Steps::default() };
    let last = rows.iter().map(|row| row.timecode).max().unwrap_or(i64::MIN);
    for row in rows {
        let tally = tallies.get(&row.timecode).copied().unwrap_or_default();
        let completed = row.completed || row.timecode < over_below(now) || row.timecode < last;
        if completed && !row.completed && !row.finalized {
            steps.completed.push(row.id);
        }
        let synced = row.synced || (completed && tally.waiting == 0);
        if synced && !row.synced && !row.finalized {
            steps.synced.push(row.id);
        }
        let again = row.finalized;
        let due = match again {
            false => synced,
            true => {
                row.file.is_some_and(|file| is_late(&tally, file)) && tally.waiting == 0 && tally.last_at <= now - QUIET
            }
        };
        if due && steps.told.len() < TOLD_AT_ONCE {
            let (id, timecode, files) = (row.id, row.timecode, tally.files);
            steps.told.push(Complete { id, timecode, files, subdirs: Vec::new(), again, counted });
        }
    }
    steps
}

/// Whether files came for a timecode after it was announced by this one: rows get their ids in the order in which they are
/// registered.
pub(super) fn is_late(tally: &super::parts::TimecodeTally, announced_by: i64) -> bool {
    tally.last > announced_by
}
