//! SupRsync's other duties: which local files may go, and which timecode directories are complete.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, Error, TransactionBehavior, params};

use super::table::{FILES, PATH_LIMIT, TIMECODES};
use super::walk::BOTTOM;
use super::{SqliteCatalog, row};
use crate::catalog::{CatalogError, Md5, Pending, RecordId};

/// Rows older than this have their timecode, or never will: seconds.
const TIMECODES_SINCE: f64 = 7.0 * 86_400.0;
/// Seconds of one timecode.
const TIMECODE: f64 = 100_000.0;
/// The first component of a remote path, where it is a timecode: five digits and a slash.
const HAS_TIMECODE: &str = "remote_path GLOB '[0-9][0-9][0-9][0-9][0-9]/*'";

/// Directories of one timecode that are told.
const SUBDIRS: usize = 10_000;
/// Timecodes of one round.
const TOLD_AT_ONCE: usize = 100;

/// A local file that has been proven at its destination long enough ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prunable {
    pub id: RecordId,
    pub path: PathBuf,
    /// What was proven.
    pub md5: Md5,
}

/// A timecode directory of which every file is proven, and that nobody has been told of.
#[derive(Debug, Clone, PartialEq)]
pub struct Complete {
    id: i64,
    /// The directory's five digits.
    pub timecode: i64,
    pub files: i64,
    /// Directories right below it that hold files further below.
    pub subdirs: Vec<String>,
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

impl SqliteCatalog {
    /// About `most` files at most with an id above `after` that were proven before `until` (unix seconds) and may be
    /// deleted, and up to which id that is; `None` once that is all.
    pub async fn due(
        &self,
        after: RecordId,
        until: f64,
        most: usize,
    ) -> Result<(Vec<Prunable>, Option<RecordId>), CatalogError> {
        if !self.has_deletable {
            return Ok((Vec::new(), None));
        }
        let query = format!(
            "SELECT id, 0, local_path, 'x', local_md5sum FROM {FILES} WHERE id > ?2 AND id <= ?3 AND archive_name = ?1 \
             AND removed IS NULL AND deletable = 1 AND remote_md5sum = local_md5sum AND length(local_md5sum) = 32 \
             AND max(timestamp, ifnull(copied, timestamp)) < ?4 AND octet_length(local_path) <= {PATH_LIMIT} \
             ORDER BY id LIMIT ?5"
        );
        let archive = self.archive.clone();
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], found: &mut DueRow| {
            let mut statement = connection.prepare_cached(&query)?;
            let room = most.saturating_sub(found.files.len());
            let rows = statement.query_map(params![archive, after, last, until, room as i64], row::read)?;
            let mut read = 0;
            for row in rows {
                let row = row?;
                read += 1;
                found.last = Some(row.id());
                // A row that cannot be read is no proof of anything: its file stays.
                if let Pending::Ready(record) = row {
                    found.files.push(Prunable { id: record.id, path: record.source, md5: record.md5 });
                }
            }
            found.full = read >= room;
            Ok(!found.full)
        };
        let (found, _) = self.walk(after, DueRow::default(), look).await?;
        Ok((found.files, found.last.filter(|_| found.full)))
    }

    /// Leaves out files that are also the source of a row above `above` that still waits, of whatever archive. Says up to
    /// which row it has looked.
    pub async fn unneeded(
        &self,
        files: Vec<Prunable>,
        above: Option<RecordId>,
    ) -> Result<(Vec<Prunable>, RecordId), CatalogError> {
        let query = format!(
            "SELECT CAST(local_path AS BLOB) FROM {FILES} WHERE id > ?1 AND id <= ?2 AND removed IS NULL \
             AND remote_md5sum IS NOT local_md5sum {} AND octet_length(local_path) <= {PATH_LIMIT}",
            self.not_ignored
        );
        let wanted: HashSet<Vec<u8>> = files.iter().map(|file| file.path.as_os_str().as_bytes().to_vec()).collect();
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], needed: &mut HashSet<Vec<u8>>| {
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query(params![after, last])?;
            while let Some(row) = rows.next()? {
                if let Ok(Some(path)) = row.get_ref(0)?.as_blob_or_null()
                    && wanted.contains(path)
                {
                    needed.insert(path.to_vec());
                }
            }
            Ok(true)
        };
        let (needed, last) = self.walk(above.unwrap_or(BOTTOM), HashSet::new(), look).await?;
        let keep = |file: &Prunable| !needed.contains(file.path.as_os_str().as_bytes());
        Ok((files.into_iter().filter(keep).collect(), last))
    }

    /// Says when these files were removed, in unix seconds; 0 of one that was not there any more. Only of rows that still
    /// are those of these files.
    pub async fn removed(&self, files: Vec<(Prunable, f64)>) -> Result<(), CatalogError> {
        let update = format!(
            "UPDATE {FILES} SET removed = ?2 WHERE id = ?1 AND removed IS NULL AND CAST(local_path AS BLOB) = ?3"
        );
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (file, at) in files {
                let path = file.path.as_os_str().as_bytes();
                transaction.prepare_cached(&update)?.execute(params![file.id.0, at, path])?;
            }
            transaction.commit()
        })
        .await
    }

    /// Brings the archive's timecodes up to date, and gives those to be announced. A timecode is completed once a later
    /// one has begun in this archive, or its time is over; synced once all its files are proven that are not ignored.
    /// (SupRsync counts files and timecodes of other archives too, so that one can hold up another.)
    pub async fn complete_timecodes(&self, now: f64) -> Result<Vec<Complete>, CatalogError> {
        let archive = self.archive.clone();
        let count = format!(
            "SELECT CAST(substr(remote_path, 1, 5) AS INTEGER), COUNT(*), COUNT(CASE WHEN timestamp > ?4 THEN 1 END), \
             COUNT(CASE WHEN remote_md5sum IS NOT local_md5sum {} THEN 1 END) FROM {FILES} \
             WHERE id > ?2 AND id <= ?3 AND archive_name = ?1 AND {HAS_TIMECODE} GROUP BY 1",
            self.not_ignored
        );
        let tally = move |connection: &Connection, [after, last]: [i64; 2], tallies: &mut Tallies| {
            let mut statement = connection.prepare_cached(&count)?;
            let mut rows = statement.query(params![archive, after, last, now - TIMECODES_SINCE])?;
            while let Some(row) = rows.next()? {
                let tally: &mut UpkeepTally = tallies.entry(row.get(0)?).or_default();
                tally.files += row.get::<_, i64>(1)?;
                tally.recent += row.get::<_, i64>(2)?;
                tally.waiting += row.get::<_, i64>(3)?;
            }
            Ok(true)
        };
        let tally = Arc::new(tally);
        let look = Arc::clone(&tally);
        let (mut tallies, last) =
            self.walk(BOTTOM, Tallies::new(), move |connection, ids, tallies| look(connection, ids, tallies)).await?;
        let archive = self.archive.clone();
        let mut complete = self
            .run(move |connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                // What has come meanwhile.
                tally(&transaction, [last.0, i64::MAX], &mut tallies)?;
                let complete = settle(&transaction, &archive, now, &tallies)?;
                transaction.commit()?;
                Ok(complete)
            })
            .await?;
        if !complete.is_empty() {
            let timecodes = complete.iter().map(|complete| complete.timecode).collect();
            let mut subdirs = self.subdirs(timecodes).await?;
            for complete in &mut complete {
                complete.subdirs = subdirs.remove(&complete.timecode).unwrap_or_default().into_iter().collect();
            }
        }
        Ok(complete)
    }

    /// Directories right below these timecodes that hold files further below.
    async fn subdirs(&self, timecodes: BTreeSet<i64>) -> Result<BTreeMap<i64, BTreeSet<String>>, CatalogError> {
        let query = format!(
            "SELECT DISTINCT CAST(substr(remote_path, 1, 5) AS INTEGER), \
             substr(remote_path, 7, instr(substr(remote_path, 7), '/') - 1) FROM {FILES} \
             WHERE id > ?2 AND id <= ?3 AND archive_name = ?1 AND {HAS_TIMECODE} AND instr(substr(remote_path, 7), '/') > 0"
        );
        let archive = self.archive.clone();
        let look =
            move |connection: &mut Connection, [after, last]: [i64; 2], found: &mut BTreeMap<i64, BTreeSet<String>>| {
                let mut statement = connection.prepare_cached(&query)?;
                let mut rows = statement.query(params![archive, after, last])?;
                while let Some(row) = rows.next()? {
                    let timecode = row.get(0)?;
                    if timecodes.contains(&timecode) {
                        let subdirs = found.entry(timecode).or_default();
                        if subdirs.len() < SUBDIRS {
                            subdirs.insert(row.get(1)?);
                        }
                    }
                }
                Ok(true)
            };
        Ok(self.walk(BOTTOM, BTreeMap::new(), look).await?.0)
    }

    /// Registers the file that announces a timecode, and opens the timecode that this file itself belongs to.
    pub async fn announce(&self, complete: Complete, file: NewFile, now: f64) -> Result<(), CatalogError> {
        let (archive, ignore) = (self.archive.clone(), !self.not_ignored.is_empty());
        let deletable = self.has_deletable;
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
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
            transaction.execute(
                &format!(
                    "INSERT INTO {TIMECODES} (timecode, archive_name, completed, synced, finalized) SELECT ?1, ?2, 0, 0, 0 \
                     WHERE NOT EXISTS (SELECT 1 FROM {TIMECODES} WHERE timecode = ?1 AND archive_name = ?2)"
                ),
                params![(now / TIMECODE).floor() as i64, archive],
            )?;
            transaction.commit()
        })
        .await
    }

    /// The archive's name.
    pub fn archive(&self) -> &str {
        &self.archive
    }
}

/// Files that are due, while they are gathered.
#[derive(Default)]
struct DueRow {
    files: Vec<Prunable>,
    last: Option<RecordId>,
    full: bool,
}

/// How the files of a timecode stand.
#[derive(Default)]
struct UpkeepTally {
    files: i64,
    /// Registered lately.
    recent: i64,
    /// Neither proven nor ignored.
    waiting: i64,
}

/// By timecode: five digits, so there are not many.
type Tallies = BTreeMap<i64, UpkeepTally>;

/// Writes down which timecodes there are, and which are completed and synced; gives those that nobody was told of.
fn settle(connection: &Connection, archive: &str, now: f64, tallies: &Tallies) -> Result<Vec<Complete>, Error> {
    for (timecode, _) in tallies.iter().filter(|(_, tally)| tally.recent > 0) {
        connection
            .prepare_cached(&format!(
                "INSERT INTO {TIMECODES} (timecode, archive_name, completed, synced, finalized) SELECT ?1, ?2, 0, 0, 0 \
                 WHERE NOT EXISTS (SELECT 1 FROM {TIMECODES} WHERE timecode = ?1 AND archive_name = ?2)"
            ))?
            .execute(params![timecode, archive])?;
    }
    let over = (now / TIMECODE).floor() as i64 - 1;
    connection.execute(
        &format!(
            "UPDATE {TIMECODES} SET completed = 1 WHERE archive_name = ?1 AND completed IS NOT 1 AND (timecode < ?2 \
             OR timecode < (SELECT MAX(timecode) FROM {TIMECODES} WHERE archive_name = ?1))"
        ),
        params![archive, over],
    )?;
    let select = |which: &str| {
        let query =
            format!("SELECT id, timecode FROM {TIMECODES} WHERE archive_name = ?1 AND {which} ORDER BY timecode");
        let mut statement = connection.prepare_cached(&query)?;
        let rows = statement.query_map([archive], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<Result<Vec<(i64, i64)>, Error>>()
    };
    for (id, timecode) in select("completed = 1 AND synced IS NOT 1")? {
        if tallies.get(&timecode).is_none_or(|tally| tally.waiting == 0) {
            connection.execute(&format!("UPDATE {TIMECODES} SET synced = 1 WHERE id = ?1"), [id])?;
        }
    }
    let told = select("synced = 1 AND finalized IS NOT 1")?.into_iter().take(TOLD_AT_ONCE).map(|(id, timecode)| {
        Complete { id, timecode, files: tallies.get(&timecode).map_or(0, |tally| tally.files), subdirs: Vec::new() }
    });
    Ok(told.collect())
}
