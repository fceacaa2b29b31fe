//! Batches beside the table of files: which rows each of them has, and how far it has come. A batch whose end is written is
//! kept for as long as somebody may ask for it.

use super::SqliteCatalog;
use super::row::hex;
use super::table::{FILES, PATH_LIMIT};
use crate::catalog::{CatalogError, Md5, RecordId};
use crate::clock::unix_now;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, Error, OptionalExtension, TransactionBehavior, params};
use std::collections::HashSet;

/// Ours, made where the first batch is taken.
const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS archiver_batch (
        id VARCHAR NOT NULL, link VARCHAR NOT NULL, request VARCHAR NOT NULL, step VARCHAR NOT NULL, began FLOAT NOT NULL, ended FLOAT,
        error VARCHAR, spared VARCHAR NOT NULL, PRIMARY KEY (id)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS archiver_batch_file (
        batch VARCHAR NOT NULL, place VARCHAR NOT NULL, id INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (batch, place)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS archiver_batch_folder (
        batch VARCHAR NOT NULL, place VARCHAR NOT NULL, PRIMARY KEY (batch, place)) WITHOUT ROWID;";
const COLUMNS: &str = "id, link, request, step, began, ended, error, spared";

/// How far a batch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchStep {
    /// Nobody has looked yet what there is where it goes.
    Taken,
    /// Its files are being read.
    Reading,
    /// All of them have their rows.
    Listed,
    /// It has failed: what it has written goes.
    Undoing,
    Done,
    Failed,
}

impl BatchStep {
    const ALL: [(Self, &str); 6] = [
        (Self::Taken, "taken"),
        (Self::Reading, "reading"),
        (Self::Listed, "listed"),
        (Self::Undoing, "undoing"),
        (Self::Done, "done"),
        (Self::Failed, "failed"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("", |(_, name)| name)
    }

    /// Nothing is to be done any more.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

impl FromSql for BatchStep {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(step, _)| *step).ok_or(FromSqlError::InvalidType)
    }
}

/// A batch as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchRow {
    pub(crate) id: String,
    pub(crate) link: String,
    /// As it was handed over.
    pub(crate) request: String,
    pub(crate) step: BatchStep,
    /// Unix time in seconds.
    pub(crate) began: f64,
    pub(crate) ended: Option<f64>,
    /// Why it has failed.
    pub(crate) error: Option<String>,
    /// Places at which something stood before it began, in its own words: what stands there is never removed.
    pub(crate) spared: String,
}

/// A file of a batch, read.
#[derive(Debug, Clone)]
pub(crate) struct BatchedFile {
    pub(crate) source: String,
    /// Beneath the archive's base.
    pub(crate) place: String,
    pub(crate) md5: Md5,
    pub(crate) bytes: u64,
}

/// How the rows of a batch stand.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct BatchCount {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) proven: u64,
    /// A file that failed too often, and why it did last.
    pub(crate) given_up: Option<(String, String)>,
    /// The same of one that will be tried again.
    pub(crate) retrying: Option<(String, String)>,
}

/// What a batch has at the far end, beneath the archive's base.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct BatchPlaces {
    pub(crate) files: Vec<String>,
    pub(crate) folders: Vec<String>,
}

impl SqliteCatalog {
    /// Makes the tables where they are absent.
    pub(crate) async fn make_batches(&self) -> Result<(), CatalogError> {
        self.run(|connection| connection.execute_batch(CREATE)).await
    }

    /// Takes a batch, unless there is one of this id; whether it is new.
    pub(crate) async fn take_batch(&self, batch: BatchRow) -> Result<bool, CatalogError> {
        let insert =
            format!("INSERT OR IGNORE INTO archiver_batch ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
        self.run(move |connection| {
            let BatchRow { id, link, request, step, began, ended, error, spared } = batch;
            let values = params![id, link, request, step.name(), began, ended, error, spared];
            Ok(connection.execute(&insert, values)? > 0)
        })
        .await
    }

    /// All batches of this link that are not over, and those that are, if `wanted` says so; the oldest first.
    pub(crate) async fn batches(&self, wanted: WantedBatches) -> Result<Vec<BatchRow>, CatalogError> {
        let link = self.archive.clone();
        let which = match wanted {
            WantedBatches::Open => "AND step NOT IN ('done', 'failed')",
            WantedBatches::All => "",
        };
        let query = format!("SELECT {COLUMNS} FROM archiver_batch WHERE link = ?1 {which} ORDER BY began, id");
        self.run(move |connection| connection.prepare_cached(&query)?.query_map([link], read)?.collect()).await
    }

    /// The batch of this id, of whichever link.
    pub(crate) async fn batch(&self, id: &str) -> Result<Option<BatchRow>, CatalogError> {
        let (id, query) = (id.to_owned(), format!("SELECT {COLUMNS} FROM archiver_batch WHERE id = ?1"));
        self.run(move |connection| connection.prepare_cached(&query)?.query_row([id], read).optional()).await
    }

    /// It has come a step further, if it still is at the one that it was at.
    pub(crate) async fn step_batch(
        &self,
        batch: &BatchRow,
        step: BatchStep,
        spared: Option<String>,
    ) -> Result<bool, CatalogError> {
        let (id, before) = (batch.id.clone(), batch.step);
        let ended = step.is_over().then(unix_now);
        let update = "UPDATE archiver_batch SET step = ?3, spared = ifnull(?4, spared), ended = ifnull(ended, ?5) WHERE id = ?1 AND step = ?2";
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(update)?;
            Ok(statement.execute(params![id, before.name(), step.name(), spared, ended])? > 0)
        })
        .await
    }

    /// It has failed, for this reason: none of its rows is copied any more. Where nobody has looked yet what stands there, nothing
    /// was written, and nothing is to be removed.
    pub(crate) async fn undo_batch(&self, batch: &BatchRow, why: &str) -> Result<(), CatalogError> {
        let (id, why) = (batch.id.clone(), why.to_owned());
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "UPDATE archiver_batch SET error = ?2, step = iif(step = 'taken', 'failed', 'undoing'), ended = iif(step = 'taken', ?3, ended) \
                 WHERE id = ?1 AND step NOT IN ('undoing', 'done', 'failed')",
                params![id, why, unix_now()],
            )?;
            let ignore = format!(
                "UPDATE {FILES} SET \"ignore\" = 1 WHERE id IN (SELECT id FROM archiver_batch_file WHERE batch = ?1)"
            );
            transaction.execute(&ignore, [id])?;
            transaction.commit()
        })
        .await
    }

    /// People are told that it has failed, although what it has written is there still.
    pub(crate) async fn tell_batch_failed(&self, batch: &BatchRow, why: &str) -> Result<(), CatalogError> {
        let (id, why) = (batch.id.clone(), why.to_owned());
        let update = "UPDATE archiver_batch SET ended = ?2, error = ?3 WHERE id = ?1 AND ended IS NULL";
        self.run(move |connection| connection.execute(update, params![id, unix_now(), why]).map(drop)).await
    }

    /// Its rows are to be copied, or proven, once more.
    pub(crate) async fn reopen_batch(&self, batch: &str) -> Result<(), CatalogError> {
        let (batch, reopen) = (
            batch.to_owned(),
            format!(
                "UPDATE {FILES} SET remote_md5sum = NULL, failed_copy_attempts = 0 \
                 WHERE id IN (SELECT id FROM archiver_batch_file WHERE batch = ?1)"
            ),
        );
        self.run(move |connection| connection.execute(&reopen, [batch]).map(drop)).await
    }

    /// Registers files of a batch that is being read, and folders; those that are there already are left.
    pub(crate) async fn add_to_batch(
        &self,
        batch: &str,
        files: Vec<BatchedFile>,
        folders: Vec<String>,
    ) -> Result<(), CatalogError> {
        let (batch, archive) = (batch.to_owned(), self.archive.clone());
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let step = "SELECT step FROM archiver_batch WHERE id = ?1";
            let step: Option<BatchStep> = transaction.query_row(step, [&batch], |row| row.get(0)).optional()?;
            // Whoever has it fail meanwhile wants no more rows.
            if step != Some(BatchStep::Reading) {
                return Ok(());
            }
            for file in &files {
                add(&transaction, &batch, &archive, file)?;
            }
            let mut folder =
                transaction.prepare_cached("INSERT OR IGNORE INTO archiver_batch_folder VALUES (?1, ?2)")?;
            for place in &folders {
                folder.execute(params![batch, place])?;
            }
            drop(folder);
            transaction.commit()
        })
        .await
    }

    /// Places of the files of a batch that have their rows.
    pub(crate) async fn batch_places(&self, batch: &str) -> Result<BatchPlaces, CatalogError> {
        let batch = batch.to_owned();
        self.run(move |connection| {
            let all = |table: &str| {
                let query = format!("SELECT place FROM {table} WHERE batch = ?1 ORDER BY place");
                let mut statement = connection.prepare_cached(&query)?;
                statement.query_map([&batch], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
            };
            Ok(BatchPlaces { files: all("archiver_batch_file")?, folders: all("archiver_batch_folder")? })
        })
        .await
    }

    /// The rows of a batch.
    pub(crate) async fn batch_rows(&self, batch: &str) -> Result<HashSet<RecordId>, CatalogError> {
        let (batch, query) = (batch.to_owned(), "SELECT id FROM archiver_batch_file WHERE batch = ?1");
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(query)?;
            statement.query_map([batch], |row| row.get(0).map(RecordId))?.collect()
        })
        .await
    }

    /// How its rows stand.
    pub(crate) async fn batch_count(&self, batch: &str) -> Result<BatchCount, CatalogError> {
        let (batch, most) = (batch.to_owned(), self.max_attempts);
        self.run(move |connection| {
            let rows = format!("archiver_batch_file AS file JOIN {FILES} AS f ON f.id = file.id WHERE batch = ?1");
            let count = format!(
                "SELECT COUNT(*), ifnull(SUM(bytes), 0), ifnull(SUM(remote_md5sum IS local_md5sum), 0) FROM {rows}"
            );
            let number = |value: i64| u64::try_from(value).unwrap_or(0);
            let mut count = connection.prepare_cached(&count)?.query_row([&batch], |row| {
                let [files, bytes, proven] = [row.get(0)?, row.get(1)?, row.get(2)?].map(number);
                Ok(BatchCount { files, bytes, proven, ..BatchCount::default() })
            })?;
            let failed = format!(
                "SELECT CAST(substr(local_path, 1, {PATH_LIMIT}) AS TEXT), ifnull(why, 'it failed'), failed_copy_attempts >= ?2 \
                 FROM archiver_batch_file AS file JOIN {FILES} AS f ON f.id = file.id \
                 LEFT JOIN archiver_note AS note ON table_name = '{FILES}' AND note.id = f.id \
                 WHERE batch = ?1 AND failed_copy_attempts > 0 AND remote_md5sum IS NOT local_md5sum \
                 ORDER BY failed_copy_attempts DESC LIMIT 1"
            );
            let failed = connection
                .prepare_cached(&failed)?
                .query_row(params![batch, most], |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, bool>(2)?)))
                .optional()?;
            match failed {
                Some((file, true)) => count.given_up = Some(file),
                Some((file, false)) => count.retrying = Some(file),
                None => {}
            }
            Ok(count)
        })
        .await
    }

    /// Forgets batches of this link that have been over since before this time, with their rows; gives their ids.
    pub(crate) async fn forget_batches(&self, before: f64) -> Result<Vec<String>, CatalogError> {
        let link = self.archive.clone();
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let old = "SELECT id FROM archiver_batch WHERE link = ?1 AND step IN ('done', 'failed') AND ended < ?2";
            let old = transaction
                .prepare(old)?
                .query_map(params![link, before], |row| row.get(0))?
                .collect::<Result<Vec<String>, _>>()?;
            for id in &old {
                // Never the newest row: its number would be given to another.
                let rows = format!(
                    "DELETE FROM {FILES} WHERE id IN (SELECT id FROM archiver_batch_file WHERE batch = ?1) \
                     AND id < (SELECT MAX(id) FROM {FILES})"
                );
                transaction.execute(&rows, [id])?;
                for table in ["archiver_batch_file", "archiver_batch_folder"] {
                    transaction.execute(&format!("DELETE FROM {table} WHERE batch = ?1"), [id])?;
                }
                transaction.execute("DELETE FROM archiver_batch WHERE id = ?1", [id])?;
            }
            transaction.commit()?;
            Ok(old)
        })
        .await
    }
}

/// Which batches are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WantedBatches {
    /// Those that are not over.
    Open,
    All,
}

fn read(row: &rusqlite::Row<'_>) -> Result<BatchRow, Error> {
    Ok(BatchRow {
        id: row.get(0)?,
        link: row.get(1)?,
        request: row.get(2)?,
        step: row.get(3)?,
        began: row.get(4)?,
        ended: row.get(5)?,
        error: row.get(6)?,
        spared: row.get(7)?,
    })
}

/// Registers a file, unless the batch has its place already.
fn add(transaction: &Connection, batch: &str, archive: &str, file: &BatchedFile) -> Result<(), Error> {
    let has = "SELECT COUNT(*) FROM archiver_batch_file WHERE batch = ?1 AND place = ?2";
    if transaction.prepare_cached(has)?.query_row(params![batch, file.place], |row| row.get::<_, i64>(0))? > 0 {
        return Ok(());
    }
    let insert = format!(
        "INSERT INTO {FILES} (local_path, local_md5sum, archive_name, remote_path, timestamp, failed_copy_attempts, deletable, \"ignore\") \
         VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0)"
    );
    let values = params![file.source, hex(&file.md5), archive, file.place, unix_now()];
    transaction.prepare_cached(&insert)?.execute(values)?;
    let bytes = i64::try_from(file.bytes).unwrap_or(i64::MAX);
    transaction
        .prepare_cached("INSERT INTO archiver_batch_file (batch, place, id, bytes) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![batch, file.place, transaction.last_insert_rowid(), bytes])
        .map(drop)
}
