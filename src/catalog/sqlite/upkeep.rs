//! SupRsync's other duties: which local files may go, and which timecode directories are complete.

use std::path::PathBuf;

use rusqlite::{Connection, Error, TransactionBehavior, params};

use super::{FILES, PATH_LIMIT, SqliteCatalog, TIMECODES, row};
use crate::catalog::{CatalogError, Md5, Pending, RecordId};

/// Rows older than this have their timecode, or never will: seconds.
const TIMECODES_SINCE: f64 = 7.0 * 86_400.0;
/// Seconds of one timecode.
const TIMECODE: f64 = 100_000.0;
/// The first component of a remote path, where it is a timecode: five digits and a slash.
const HAS_TIMECODE: &str = "remote_path GLOB '[0-9][0-9][0-9][0-9][0-9]/*'";

/// A local file that has been proven at its destination long enough ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prunable {
    /// Its row.
    pub id: RecordId,
    /// Where it is.
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
    /// Files in it.
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
    /// At most `limit` files with an id above `after` that were proven before `until` (unix seconds), may be deleted, and
    /// are not also the source of another row that still waits.
    pub async fn prunable(&self, after: RecordId, until: f64, limit: usize) -> Result<Vec<Prunable>, CatalogError> {
        if !self.has_deletable {
            return Ok(Vec::new());
        }
        let query = format!(
            "SELECT id, 0, local_path, 'x', local_md5sum FROM {FILES} AS f WHERE id > ?2 AND archive_name = ?1 \
             AND removed IS NULL AND deletable = 1 AND remote_md5sum = local_md5sum AND length(local_md5sum) = 32 \
             AND max(timestamp, ifnull(copied, timestamp)) < ?3 AND octet_length(local_path) <= {PATH_LIMIT} \
             AND NOT EXISTS (SELECT 1 FROM {FILES} AS o WHERE o.local_path = f.local_path AND o.removed IS NULL \
             AND o.remote_md5sum IS NOT o.local_md5sum {}) ORDER BY id LIMIT ?4",
            self.not_ignored.replace("\"ignore\"", "o.\"ignore\"")
        );
        let archive = self.archive.clone();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let rows = statement.query_map(params![archive, after.0, until, limit], row::read)?;
            let mut files = Vec::new();
            for row in rows {
                // A row that cannot be read is no proof of anything: its file stays.
                if let Pending::Ready(record) = row? {
                    files.push(Prunable { id: record.id, path: record.source, md5: record.md5 });
                }
            }
            Ok(files)
        })
        .await
    }

    /// Says when these files were removed, in unix seconds; 0 of one that was not there any more.
    pub async fn removed(&self, files: Vec<(RecordId, f64)>) -> Result<(), CatalogError> {
        let update = format!("UPDATE {FILES} SET removed = ?2 WHERE id = ?1 AND removed IS NULL");
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (id, at) in files {
                transaction.prepare_cached(&update)?.execute(params![id.0, at])?;
            }
            transaction.commit()
        })
        .await
    }

    /// Brings the archive's timecodes up to date, and gives those to be announced. A timecode is completed once a later
    /// one has begun in this archive, or its time is over; synced once all its files are proven that are not ignored.
    /// (SupRsync counts files and timecodes of other archives too, so that one can hold up another.)
    pub async fn complete_timecodes(&self, now: f64) -> Result<Vec<Complete>, CatalogError> {
        let (archive, not_ignored) = (self.archive.clone(), self.not_ignored);
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                &format!(
                    "INSERT INTO {TIMECODES} (timecode, archive_name, completed, synced, finalized) \
                     SELECT DISTINCT CAST(substr(remote_path, 1, 5) AS INTEGER), ?1, 0, 0, 0 FROM {FILES} \
                     WHERE archive_name = ?1 AND timestamp > ?2 AND {HAS_TIMECODE} \
                     AND CAST(substr(remote_path, 1, 5) AS INTEGER) NOT IN \
                     (SELECT timecode FROM {TIMECODES} WHERE archive_name = ?1)"
                ),
                params![archive, now - TIMECODES_SINCE],
            )?;
            let over = (now / TIMECODE).floor() as i64 - 1;
            transaction.execute(
                &format!(
                    "UPDATE {TIMECODES} SET completed = 1 WHERE archive_name = ?1 AND completed IS NOT 1 AND (timecode < ?2 \
                     OR timecode < (SELECT MAX(timecode) FROM {TIMECODES} WHERE archive_name = ?1))"
                ),
                params![archive, over],
            )?;
            transaction.execute(
                &format!(
                    "UPDATE {TIMECODES} AS t SET synced = 1 WHERE archive_name = ?1 AND completed = 1 AND synced IS NOT 1 \
                     AND NOT EXISTS (SELECT 1 FROM {FILES} WHERE archive_name = ?1 {not_ignored} \
                     AND remote_md5sum IS NOT local_md5sum AND remote_path GLOB printf('%05d/*', t.timecode))"
                ),
                params![archive],
            )?;
            let complete = announced_next(&transaction, &archive)?;
            transaction.commit()?;
            Ok(complete)
        })
        .await
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
                &format!("UPDATE {TIMECODES} SET finalized = 1, finalize_file_id = ?2 WHERE id = ?1"),
                params![complete.id, id],
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

fn announced_next(connection: &Connection, archive: &str) -> Result<Vec<Complete>, Error> {
    let mut timecodes = connection.prepare_cached(&format!(
        "SELECT id, timecode FROM {TIMECODES} WHERE archive_name = ?1 AND synced = 1 AND finalized IS NOT 1 \
         ORDER BY timecode LIMIT 100"
    ))?;
    let timecodes: Vec<(i64, i64)> =
        timecodes.query_map([archive], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut complete = Vec::new();
    for (id, timecode) in timecodes {
        let within = format!("FROM {FILES} WHERE archive_name = ?1 AND remote_path GLOB printf('%05d/*', ?2)");
        let files =
            connection.query_row(&format!("SELECT COUNT(*) {within}"), params![archive, timecode], |row| row.get(0))?;
        let mut subdirs = connection.prepare_cached(&format!(
            "SELECT DISTINCT substr(remote_path, 7, instr(substr(remote_path, 7), '/') - 1) {within} \
             AND instr(substr(remote_path, 7), '/') > 0 ORDER BY 1 LIMIT 10000"
        ))?;
        let subdirs = subdirs.query_map(params![archive, timecode], |row| row.get(0))?.collect::<Result<_, _>>()?;
        complete.push(Complete { id, timecode, files, subdirs });
    }
    Ok(complete)
}
