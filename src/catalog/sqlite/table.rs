//! The tables as SupRsync makes them.

use super::super::{Created, NOTES};
use rusqlite::{Connection, Error, TransactionBehavior};

/// Longest path we read or write: what the kernel takes. The columns themselves have no limit.
pub(super) const PATH_LIMIT: usize = 4096;

pub(in crate::catalog) const FILES: &str = "supersync_v0";
pub(super) const TIMECODES: &str = "timecode_dirs_v0";

/// SupRsync's statements as SQLAlchemy emits them.
const CREATE_FILES: &str = "CREATE TABLE supersync_v0 (
    id INTEGER NOT NULL, local_path VARCHAR NOT NULL, local_md5sum VARCHAR NOT NULL, archive_name VARCHAR NOT NULL, remote_path VARCHAR NOT NULL,
    timestamp FLOAT NOT NULL, remote_md5sum VARCHAR, copied FLOAT, removed FLOAT, failed_copy_attempts INTEGER, deletable BOOLEAN, \"ignore\" BOOLEAN, PRIMARY KEY (id))";
const CREATE_TIMECODES: &str = "CREATE TABLE timecode_dirs_v0 (
    id INTEGER NOT NULL, timecode INTEGER NOT NULL, archive_name VARCHAR NOT NULL, completed BOOLEAN, synced BOOLEAN, finalized BOOLEAN, finalize_file_id INTEGER,
    PRIMARY KEY (id), FOREIGN KEY(finalize_file_id) REFERENCES supersync_v0 (id))";

/// Ours.
pub(super) const CREATE_NOTES: &str = "CREATE TABLE IF NOT EXISTS archiver_note (
    table_name VARCHAR NOT NULL, id INTEGER NOT NULL, attempts INTEGER NOT NULL, noted_at FLOAT NOT NULL, why VARCHAR NOT NULL,
    PRIMARY KEY (table_name, id)) WITHOUT ROWID";

/// Columns that every age of the table has, and without which we cannot work.
pub(super) const REQUIRED: [&str; 9] = [
    "id",
    "local_path",
    "local_md5sum",
    "archive_name",
    "remote_path",
    "remote_md5sum",
    "copied",
    "removed",
    "failed_copy_attempts",
];

pub(super) fn create(connection: &mut Connection) -> Result<Vec<Created>, Error> {
    let tables = [(FILES, CREATE_FILES), (TIMECODES, CREATE_TIMECODES), (NOTES, CREATE_NOTES)];
    let exists = |connection: &Connection, name: &str| {
        connection
            .query_row(
                "SELECT COUNT(*) FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?",
                [name],
                |row| row.get::<_, i64>(0),
            )
            .map(|count| count > 0)
    };
    // The usual case takes no lock.
    if exists(connection, FILES)? && exists(connection, TIMECODES)? && exists(connection, NOTES)? {
        return Ok(tables.map(|(name, _)| Created { table: name.to_owned(), new: false }).into());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut created = Vec::new();
    for (name, statement) in tables {
        let new = !exists(&transaction, name)?;
        if new {
            transaction.execute_batch(statement)?;
        }
        created.push(Created { table: name.to_owned(), new });
    }
    transaction.commit()?;
    Ok(created)
}

pub(super) fn columns(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut statement = connection.prepare("SELECT lower(name) FROM pragma_table_info(?)")?;
    statement.query_map([FILES], |row| row.get(0))?.collect()
}
