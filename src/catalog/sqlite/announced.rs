//! Rows as the Python monitor writes them.

use super::SqliteCatalog;
use super::row::hex;
use super::table::FILES;
use super::trouble::{trouble, unavailable};
use crate::catalog::CatalogError;
use crate::catalog::announced::{
    AnnouncedBatch, AnnouncedFile, AnnouncedOutcome, LATE, LaneStep, SPOOLS, SpoolMarks, SpoolNumber, WATCHED,
    WatchedMark,
};
use rusqlite::{Connection, Error, OptionalExtension, TransactionBehavior, params};
use std::collections::{BTreeSet, HashMap};

/// Of a number that a column of SQLite holds.
fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn create(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {SPOOLS} (spool VARCHAR NOT NULL, lane VARCHAR NOT NULL, position INTEGER NOT NULL, \
         PRIMARY KEY (spool, lane, position)) WITHOUT ROWID"
    ))
}

fn create_watched(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {WATCHED} (file VARCHAR NOT NULL PRIMARY KEY, stamp VARCHAR NOT NULL, md5sum VARCHAR NOT NULL) \
         WITHOUT ROWID"
    ))
}

impl SqliteCatalog {
    pub(in crate::catalog) async fn watched_stamps(
        &self,
        keys: Vec<String>,
    ) -> Result<HashMap<String, String>, CatalogError> {
        self.run(move |connection| {
            create_watched(connection)?;
            let mut known = HashMap::new();
            let mut statement = connection.prepare_cached(&format!("SELECT stamp FROM {WATCHED} WHERE file = ?1"))?;
            for key in keys {
                let stamp = statement.query_row([&key], |row| row.get(0)).optional()?;
                known.extend(stamp.map(|stamp| (key, stamp)));
            }
            Ok(known)
        })
        .await
    }

    pub(in crate::catalog) async fn spool_marks(&self, spool: &str) -> Result<SpoolMarks, CatalogError> {
        let spool = spool.to_owned();
        self.run(move |connection| {
            create(connection)?;
            let mut marks = SpoolMarks::default();
            let query = format!("SELECT spool, lane, position FROM {SPOOLS} WHERE spool = ?1 OR lane = '{LATE}'");
            let mut statement = connection.prepare(&query)?;
            let mut rows = statement.query([&spool])?;
            while let Some(row) = rows.next()? {
                let number = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
                match row.get::<_, String>(1)? {
                    lane if lane == LATE => marks.late.push(SpoolNumber { spool: row.get(0)?, number }),
                    lane => marks.lanes.push((lane, number)),
                }
            }
            Ok(marks)
        })
        .await
    }

    /// The file under the name is looked at once more behind the commit: what went into one that was just replaced is not
    /// registered.
    pub(in crate::catalog) async fn register_announced(
        &self,
        batch: AnnouncedBatch,
    ) -> Result<AnnouncedOutcome, CatalogError> {
        let columns = AgeColumns { deletable: self.has_deletable, ignore: !self.not_ignored.is_empty() };
        self.run_with(move |handle, database| {
            let connection = handle.current(database)?;
            let outcome = write(connection, &batch, columns).map_err(|error| trouble(database, error))?;
            let replaced = handle.replaced();
            handle.current(database)?;
            if handle.replaced() != replaced {
                return Err(unavailable(database, "the file was replaced while it was written to".to_owned()));
            }
            Ok(outcome)
        })
        .await
    }
}

/// What a table has that not every age of it has.
#[derive(Clone, Copy)]
struct AgeColumns {
    deletable: bool,
    ignore: bool,
}

fn write(connection: &mut Connection, batch: &AnnouncedBatch, columns: AgeColumns) -> Result<AnnouncedOutcome, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    create(&transaction)?;
    for step in &batch.steps {
        if !take_step(&transaction, step)? {
            return Ok(AnnouncedOutcome::Elsewhere);
        }
    }
    for late in &batch.late {
        let mark = format!("INSERT OR IGNORE INTO {SPOOLS} (spool, lane, position) VALUES (?1, '{LATE}', ?2)");
        if transaction.prepare_cached(&mark)?.execute(params![late.spool, column(late.number)])? == 0 {
            return Ok(AnnouncedOutcome::Elsewhere);
        }
    }
    for late in &batch.forgotten {
        let forget = format!("DELETE FROM {SPOOLS} WHERE spool = ?1 AND lane = '{LATE}' AND position = ?2");
        transaction.prepare_cached(&forget)?.execute(params![late.spool, column(late.number)])?;
    }
    let mut known = BTreeSet::new();
    for (index, file) in batch.files.iter().enumerate() {
        match &file.watched {
            Some(mark) if is_known(&transaction, mark, &hex(&file.md5))? => known.extend([index]),
            _ => insert(&transaction, file, columns)?,
        }
    }
    transaction.commit()?;
    Ok(AnnouncedOutcome::Registered(known))
}

/// Whether the file was registered with this sum last; from here on it is.
fn is_known(transaction: &Connection, mark: &WatchedMark, md5: &str) -> Result<bool, Error> {
    create_watched(transaction)?;
    let query = format!("SELECT md5sum FROM {WATCHED} WHERE file = ?1");
    let known: Option<String> =
        transaction.prepare_cached(&query)?.query_row([&mark.key], |row| row.get(0)).optional()?;
    let note = format!("REPLACE INTO {WATCHED} (file, stamp, md5sum) VALUES (?1, ?2, ?3)");
    transaction.prepare_cached(&note)?.execute(params![mark.key, mark.stamp, md5])?;
    Ok(known.as_deref() == Some(md5))
}

/// False where the table says another thing of the lane.
fn take_step(transaction: &Connection, step: &LaneStep) -> Result<bool, Error> {
    let update = format!("UPDATE {SPOOLS} SET position = ?3 WHERE spool = ?1 AND lane = ?2 AND position = ?4");
    let values = params![step.spool, step.lane, column(step.to), column(step.from)];
    if transaction.prepare_cached(&update)?.execute(values)? > 0 {
        return Ok(true);
    }
    let insert = format!(
        "INSERT INTO {SPOOLS} (spool, lane, position) SELECT ?1, ?2, ?3 \
         WHERE NOT EXISTS (SELECT 1 FROM {SPOOLS} WHERE spool = ?1 AND lane = ?2)"
    );
    Ok(transaction.prepare_cached(&insert)?.execute(params![step.spool, step.lane, column(step.to)])? > 0)
}

/// Without a row of its timecode: as that one does, it is left to who copies.
fn insert(transaction: &Connection, file: &AnnouncedFile, columns: AgeColumns) -> Result<(), Error> {
    let (deletable, its) = if columns.deletable { (", deletable", ", ?6") } else { ("", "") };
    let (ignore, of_ignore) = if columns.ignore { (", \"ignore\"", ", 0") } else { ("", "") };
    let insert = format!(
        "INSERT INTO {FILES} (local_path, local_md5sum, archive_name, remote_path, timestamp, failed_copy_attempts{deletable}{ignore}) \
         VALUES (?1, ?2, ?3, ?4, ?5, 0{its}{of_ignore})"
    );
    let mut statement = transaction.prepare_cached(&insert)?;
    let md5 = hex(&file.md5);
    match columns.deletable {
        true => {
            statement.execute(params![file.path, md5, file.archive, file.remote, file.registered, file.deletable])?
        }
        false => statement.execute(params![file.path, md5, file.archive, file.remote, file.registered])?,
    };
    Ok(())
}
