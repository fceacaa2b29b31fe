//! The notes in MySQL.

use super::super::RecordId;
use super::super::files::IGNORED;
use super::super::note::{Keeping, NOTES, Note, short};
use super::row::{integer, text};
use super::{COMMAND_DENIED, is_lost_race};
use crate::clock::unix_now;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};

pub(super) const CREATE: &str = "CREATE TABLE IF NOT EXISTS archiver_note (table_name VARCHAR(64) NOT NULL, id BIGINT NOT NULL, attempts INT NOT NULL, noted_at DOUBLE NOT NULL, why VARCHAR(1000) NOT NULL, PRIMARY KEY (table_name, id)) CHARACTER SET utf8mb4";

/// Void notes that are removed at a time.
const TIDIED: u32 = 1000;

/// What is to be noted, and of which rows no longer anything.
#[derive(Default)]
pub(super) struct RowNotes {
    /// With the failures that are counted now.
    pub(super) failed: Vec<(RecordId, i64, String)>,
    pub(super) proven: Vec<RecordId>,
}

/// Whether notes are kept: found out when there is the first one.
#[derive(Default)]
pub(super) struct Notes(AtomicU8);

const UNKNOWN: u8 = 0;
const KEPT: u8 = 1;
const OFF: u8 = 2;

impl Notes {
    pub(super) fn kept(&self) -> bool {
        self.0.load(Ordering::Relaxed) == KEPT
    }

    /// Looks for the table, and makes it where we may. Outside of any transaction: making a table ends one.
    pub(super) async fn prepare(&self, conn: &mut Conn, table: &str) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) != UNKNOWN {
            return Ok(());
        }
        match make(conn, table).await {
            Ok(()) => self.0.store(KEPT, Ordering::Relaxed),
            Err(Error::Server(error)) if !is_lost_race(error.code) => self.off(&error.message),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn off(&self, why: &str) {
        self.0.store(OFF, Ordering::Relaxed);
        tracing::warn!(
            "Why rows fail is said only in this log: {why}. To have it kept, let `pysmurf-archiver init-db` make table \
             {NOTES} by an account that may CREATE, and grant SELECT, INSERT, UPDATE, DELETE on it"
        );
    }

    /// Writes notes within a transaction, as its last statements. They are not worth its failing.
    pub(super) async fn write(
        &self,
        transaction: &mut impl Queryable,
        table: &str,
        due: &RowNotes,
    ) -> Result<(), Error> {
        if !self.kept() {
            return Ok(());
        }
        match put(transaction, table, due).await {
            Err(Error::Server(error)) if !is_lost_race(error.code) => {
                self.off(&error.message);
                Ok(())
            }
            result => result,
        }
    }
}

pub(super) async fn exist(conn: &mut Conn) -> Result<bool, Error> {
    let query = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
    Ok(conn.exec_first::<mysql_async::Row, _, _>(query, (NOTES,)).await?.is_some())
}

/// The table, to be used: what we need is tried, without effect.
async fn make(conn: &mut Conn, table: &str) -> Result<(), Error> {
    if !exist(conn).await? {
        conn.query_drop(CREATE).await?;
    }
    conn.query_drop(
        "INSERT INTO archiver_note (table_name, id, attempts, noted_at, why) SELECT '', 0, 0, 0, '' FROM DUAL WHERE 1=0 \
         ON DUPLICATE KEY UPDATE attempts=0, noted_at=0, why=''",
    )
    .await?;
    conn.query_drop("DELETE FROM archiver_note WHERE 1=0").await?;
    // Their rows were deleted by others.
    let tidy = format!(
        "DELETE FROM archiver_note WHERE table_name=? AND NOT EXISTS \
         (SELECT 1 FROM {table} AS files WHERE files.id = archiver_note.id) LIMIT {TIDIED}"
    );
    conn.exec_drop(tidy, (unquoted(table),)).await
}

async fn put(
    transaction: &mut impl Queryable,
    table: &str,
    RowNotes { failed, proven }: &RowNotes,
) -> Result<(), Error> {
    let table = unquoted(table);
    if !failed.is_empty() {
        let insert = format!(
            "INSERT INTO archiver_note (table_name, id, attempts, noted_at, why) VALUES {} \
             ON DUPLICATE KEY UPDATE attempts=VALUES(attempts), noted_at=VALUES(noted_at), why=VALUES(why)",
            vec!["(?, ?, ?, ?, ?)"; failed.len()].join(", ")
        );
        let now = unix_now();
        let values = failed.iter().flat_map(|(id, attempts, why)| {
            [table.clone().into(), id.0.into(), (*attempts).into(), now.into(), short(why).into()]
        });
        transaction.exec_drop(insert, Params::Positional(values.collect())).await?;
    }
    if !proven.is_empty() {
        let marks = vec!["?"; proven.len()].join(", ");
        let delete = format!("DELETE FROM archiver_note WHERE table_name=? AND id IN ({marks})");
        let values = [Value::from(table)].into_iter().chain(proven.iter().map(|id| Value::from(id.0)));
        transaction.exec_drop(delete, Params::Positional(values.collect())).await?;
    }
    Ok(())
}

/// Forgets those of rows that have no failures any more and were not set aside, as far as we may.
pub(super) async fn forget_void(conn: &mut Conn, table: &str) -> Result<(), Error> {
    if !exist(conn).await? {
        return Ok(());
    }
    let delete = format!(
        "DELETE FROM archiver_note WHERE table_name=? AND NOT EXISTS \
         (SELECT 1 FROM {table} AS files WHERE files.id = archiver_note.id \
         AND (files.failed_copy_attempts > 0 OR archiver_note.attempts = {IGNORED})) \
         LIMIT {TIDIED}"
    );
    loop {
        match conn.exec_drop(&delete, (unquoted(table),)).await {
            Err(Error::Server(error)) => {
                tracing::debug!("Notes in {NOTES} stay: {}", error.message);
                return Ok(());
            }
            Ok(()) if conn.affected_rows() >= u64::from(TIDIED) => {}
            result => return result,
        }
    }
}

/// The rows that are meant by what stands behind the table's name, with its values, and what is `noted` of them where that is.
pub(super) async fn read(
    conn: &mut Conn,
    table: &str,
    noted: bool,
    (meant, values): (String, Vec<Value>),
    limit: usize,
) -> Result<Vec<Note>, Error> {
    let (columns, join, name) = match noted {
        true => (
            "n.noted_at, n.why",
            "LEFT JOIN archiver_note AS n ON n.table_name = ? AND n.id = files.id AND n.attempts = files.failed_copy_attempts",
            Some(Value::from(unquoted(table))),
        ),
        false => ("NULL, NULL", "", None),
    };
    let query = format!(
        "SELECT files.id, files.path, files.failed_copy_attempts, {columns} FROM \
         (SELECT id, path, failed_copy_attempts FROM {table} {meant} ORDER BY id LIMIT {limit}) AS files {join} \
         ORDER BY files.id"
    );
    let values = Params::Positional(values.into_iter().chain(name).collect());
    let rows: Vec<mysql_async::Row> = conn.exec(query, values).await?;
    let notes = rows.iter().map(|row| {
        let whole = |index| integer(row.as_ref(index)).ok().flatten().unwrap_or(0);
        let path = match row.as_ref(1) {
            Some(Value::Bytes(path)) => String::from_utf8_lossy(path).into_owned(),
            _ => String::new(),
        };
        let why = text(row.as_ref(4)).ok().flatten();
        Note { id: RecordId(whole(0)), path, attempts: whole(2), reason: moment(row.as_ref(3)).zip(why), node: None }
    });
    Ok(notes.collect())
}

/// What is noted of these rows, by id: of how many failures, when, and why.
pub(super) async fn of(conn: &mut Conn, table: &str, ids: &[i64]) -> Result<HashMap<i64, (i64, f64, String)>, Error> {
    let mut notes = HashMap::new();
    if !exist(conn).await? {
        return Ok(notes);
    }
    let list: Vec<String> = ids.iter().map(i64::to_string).collect();
    let query = format!(
        "SELECT id, attempts, noted_at, why FROM archiver_note WHERE table_name = ? AND id IN ({})",
        list.join(",")
    );
    let rows: Vec<mysql_async::Row> = conn.exec(query, (unquoted(table),)).await?;
    for row in &rows {
        let whole = |index| integer(row.as_ref(index)).ok().flatten();
        let why = text(row.as_ref(3)).ok().flatten();
        if let (Some(id), Some(attempts), Some(at), Some(why)) = (whole(0), whole(1), moment(row.as_ref(2)), why) {
            notes.insert(id, (attempts, at, why));
        }
    }
    Ok(notes)
}

fn moment(value: Option<&Value>) -> Option<f64> {
    match value {
        Some(Value::Double(at)) => Some(*at),
        Some(Value::Bytes(at)) => std::str::from_utf8(at).ok().and_then(|at| at.parse().ok()),
        _ => None,
    }
}

/// Writes down that a row was set aside, and why. A table that cannot be written is done without: the row says enough.
pub(super) async fn set_aside(conn: &mut impl Queryable, table: &str, id: i64, why: &str) -> Result<(), Error> {
    let insert = "INSERT INTO archiver_note (table_name, id, attempts, noted_at, why) VALUES (?, ?, ?, ?, ?) \
                  ON DUPLICATE KEY UPDATE attempts=VALUES(attempts), noted_at=VALUES(noted_at), why=VALUES(why)";
    passable(conn.exec_drop(insert, (unquoted(table), id, IGNORED, unix_now(), short(why))).await)
}

/// Forgets what was noted of a row.
pub(super) async fn forget(conn: &mut impl Queryable, table: &str, id: i64) -> Result<(), Error> {
    let delete = "DELETE FROM archiver_note WHERE table_name = ? AND id = ?";
    passable(conn.exec_drop(delete, (unquoted(table), id)).await)
}

/// Notes are not worth a transaction's failing.
fn passable(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Server(error)) if !is_lost_race(error.code) => {
            tracing::debug!("Table {NOTES}: {}", error.message);
            Ok(())
        }
        result => result,
    }
}

/// Whether notes are kept, or could be: as far as the account's own rights say.
pub(super) async fn keeping(conn: &mut Conn) -> Result<Keeping, Error> {
    if exist(conn).await? {
        return Ok(Keeping::There);
    }
    let may = "SELECT 1 FROM information_schema.user_privileges WHERE privilege_type = 'CREATE' UNION \
               SELECT 1 FROM information_schema.schema_privileges WHERE privilege_type = 'CREATE' \
               AND DATABASE() LIKE table_schema";
    match conn.query_first::<mysql_async::Row, _>(may).await? {
        Some(_) => Ok(Keeping::Later),
        None => Ok(Keeping::Not("the account may not CREATE it".into())),
    }
}

/// Makes the table for `init-db`; whether it is new, or `None` where we may not.
pub(super) async fn init(conn: &mut Conn) -> Result<Option<bool>, Error> {
    if exist(conn).await? {
        return Ok(Some(false));
    }
    match conn.query_drop(CREATE).await {
        Ok(()) => Ok(Some(true)),
        Err(Error::Server(error)) if COMMAND_DENIED.contains(&error.code) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name from its quoted form.
fn unquoted(name: &str) -> String {
    name.trim_matches('`').replace("``", "`")
}
