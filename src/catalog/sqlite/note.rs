//! The notes in SQLite.

use super::super::RecordId;
use super::super::files::IGNORED;
use super::super::note::{NOTES, Note, short};
use super::table::{CREATE_NOTES, FILES, PATH_LIMIT};
use rusqlite::{Connection, Error, Transaction, params};

/// What is to be noted, and of which rows no longer anything.
#[derive(Default)]
pub(super) struct DueNotes<'a> {
    /// With the failures that are counted now.
    pub(super) failed: Vec<(RecordId, i64, &'a str)>,
    pub(super) proven: Vec<RecordId>,
}

pub(super) fn exist(connection: &Connection) -> Result<bool, Error> {
    let query = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?";
    connection.query_row(query, [NOTES], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

impl DueNotes<'_> {
    /// Writes them with whatever else the transaction does. They are not worth its failing.
    pub(super) fn write(&self, transaction: &mut Transaction<'_>, now: f64) -> Result<(), Error> {
        if self.failed.is_empty() && self.proven.is_empty() {
            return Ok(());
        }
        let savepoint = transaction.savepoint()?;
        match self.put(&savepoint, now) {
            Ok(()) => savepoint.commit(),
            Err(error) => {
                tracing::warn!("Why rows failed cannot be kept in table {NOTES}: {error}");
                // Dropped, it is rolled back.
                Ok(())
            }
        }
    }

    fn put(&self, connection: &Connection, now: f64) -> Result<(), Error> {
        if self.failed.is_empty() && !exist(connection)? {
            return Ok(());
        }
        connection.execute_batch(CREATE_NOTES)?;
        let mut put = connection.prepare_cached(
            "INSERT OR REPLACE INTO archiver_note (table_name, id, attempts, noted_at, why) VALUES (?, ?, ?, ?, ?)",
        )?;
        for (id, attempts, why) in &self.failed {
            put.execute(params![FILES, id.0, attempts, now, short(why)])?;
        }
        let mut forget = connection.prepare_cached("DELETE FROM archiver_note WHERE table_name = ? AND id = ?")?;
        for id in &self.proven {
            forget.execute(params![FILES, id.0])?;
        }
        Ok(())
    }
}

/// Forgets those of rows that have no failures and were not set aside, or are gone.
pub(super) fn forget_void(connection: &Connection) -> Result<(), Error> {
    if exist(connection)? {
        let delete = format!(
            "DELETE FROM archiver_note WHERE table_name = '{FILES}' AND NOT EXISTS \
             (SELECT 1 FROM {FILES} WHERE {FILES}.id = archiver_note.id \
             AND (failed_copy_attempts > 0 OR archiver_note.attempts = {IGNORED}))"
        );
        connection.execute(&delete, [])?;
    }
    Ok(())
}

/// The rows that are meant by what stands behind the table's name, with what is noted of them; `values` are its parameters.
pub(super) fn read(
    connection: &Connection,
    meant: &str,
    values: &[&dyn rusqlite::ToSql],
    limit: usize,
) -> Result<Vec<Note>, Error> {
    let (columns, join) = match exist(connection)? {
        true => (
            "noted_at, why",
            format!(
                "LEFT JOIN archiver_note ON table_name = '{FILES}' AND archiver_note.id = files.id \
                 AND attempts = files.failed_copy_attempts"
            ),
        ),
        false => ("NULL, NULL", String::new()),
    };
    let query = format!(
        "SELECT files.id, CAST(substr(local_path, 1, {PATH_LIMIT}) AS TEXT), CAST(failed_copy_attempts AS INTEGER), {columns} \
         FROM (SELECT id, local_path, failed_copy_attempts FROM {FILES} {meant} ORDER BY id LIMIT {limit}) AS files \
         {join} ORDER BY files.id"
    );
    let mut statement = connection.prepare(&query)?;
    let rows = statement.query_map(values, |row| {
        let noted: (Option<f64>, Option<String>) = (row.get(3)?, row.get(4)?);
        let path = row.get::<_, Option<String>>(1)?.unwrap_or_default();
        let reason = noted.0.zip(noted.1);
        Ok(Note { id: RecordId(row.get(0)?), path, attempts: row.get(2)?, reason, node: None })
    })?;
    rows.collect()
}
