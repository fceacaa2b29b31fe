//! Files that people register.

use super::SqliteCatalog;
use super::indexes::{self, INDEX_LOCAL, INDEX_REMOTE};
use super::row::hex;
use super::table::{FILES, PATH_LIMIT, TIMECODES};
use super::timecodes::{self, timecode_of};
use super::walk::BOTTOM;
use crate::catalog::files::{NewRow, Registered, Writing};
use crate::catalog::{CatalogError, RecordId};
use rusqlite::types::Value;
use rusqlite::{Connection, Error, TransactionBehavior, params, params_from_iter};
use std::collections::HashMap;

/// What the table has of some files.
#[derive(Default)]
struct KnownRows {
    /// By source: row and sum.
    sources: HashMap<String, (i64, String)>,
    /// By place: row and source.
    places: HashMap<String, (i64, String)>,
}

impl SqliteCatalog {
    /// What there is of them is looked for before the transaction, which looks only at what has come since.
    pub(in crate::catalog) async fn register(
        &self,
        rows: &[NewRow],
        writing: Writing,
    ) -> Result<Vec<Registered>, CatalogError> {
        let rows = rows.to_vec();
        let archive = self.archive.clone();
        let (wanted, of) = (rows.clone(), archive.clone());
        let quick = self
            .run(move |connection| {
                let newest = newest(connection)?;
                let mut known = KnownRows::default();
                if !indexes::has(connection, INDEX_LOCAL)? || !indexes::has(connection, INDEX_REMOTE)? {
                    return Ok((None, newest));
                }
                // Each condition has an index of its own; not to be answered by way of the archive's name.
                for column in ["local_path", "remote_path"] {
                    let condition = format!("+archive_name = ?1 AND {column} IN ({})", marks(wanted.len()));
                    let values =
                        wanted.iter().map(|row| if column == "local_path" { &row.source } else { &row.remote });
                    known.read(connection, &condition, &of, values)?;
                }
                Ok((Some(known), newest))
            })
            .await?;
        let (known, until) = match quick {
            (Some(known), newest) => (known, newest),
            (None, _) => {
                let (wanted, of) = (rows.clone(), archive.clone());
                let look = move |connection: &mut Connection, ids: [i64; 2], known: &mut KnownRows| {
                    known.look(connection, ids, &of, &wanted).map(|()| true)
                };
                let (known, until) = self.walk(BOTTOM, KnownRows::default(), look).await?;
                (known, until.0)
            }
        };
        let (deletable, ignore) = (self.has_deletable, !self.not_ignored.is_empty());
        self.run(move |connection| {
            let mut known = known;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            known.look(&transaction, [until, i64::MAX], &archive, &rows)?;
            let timecodes = has_table(&transaction, TIMECODES)?;
            let columns = KnownColumns { deletable, ignore, timecodes };
            let mut results = Vec::with_capacity(rows.len());
            for row in &rows {
                let result = known.judge(row);
                if result == Registered::New {
                    let id = match writing {
                        Writing::Tried => 0,
                        Writing::Done => insert(&transaction, &archive, row, columns)?,
                    };
                    known.sources.insert(row.source.clone(), (id, hex(&row.md5)));
                    known.places.insert(row.remote.clone(), (id, row.source.clone()));
                }
                results.push(result);
            }
            transaction.commit()?;
            Ok(results)
        })
        .await
    }
}

fn marks(count: usize) -> String {
    (2..count + 2).map(|number| format!("?{number}")).collect::<Vec<_>>().join(", ")
}

fn has_table(connection: &Connection, name: &str) -> Result<bool, Error> {
    let query = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?1";
    connection.prepare_cached(query)?.query_row([name], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

fn newest(connection: &Connection) -> Result<i64, Error> {
    let newest = format!("SELECT IFNULL(MAX(id), {}) FROM {FILES}", i64::MIN);
    connection.prepare_cached(&newest)?.query_row([], |row| row.get(0))
}

impl KnownRows {
    /// Those with ids above the first and up to the second.
    fn look(
        &mut self,
        connection: &Connection,
        [after, last]: [i64; 2],
        archive: &str,
        rows: &[NewRow],
    ) -> Result<(), Error> {
        let marks = marks(rows.len());
        for column in ["local_path", "remote_path"] {
            let condition = format!("id > {after} AND id <= {last} AND archive_name = ?1 AND {column} IN ({marks})");
            let values = rows.iter().map(|row| if column == "local_path" { &row.source } else { &row.remote });
            self.read(connection, &condition, archive, values)?;
        }
        Ok(())
    }

    fn read<'a>(
        &mut self,
        connection: &Connection,
        condition: &str,
        archive: &str,
        values: impl Iterator<Item = &'a String>,
    ) -> Result<(), Error> {
        let query = format!(
            "SELECT id, CAST(substr(local_path, 1, {PATH_LIMIT}) AS TEXT), CAST(substr(remote_path, 1, {PATH_LIMIT}) AS TEXT), \
             lower(CAST(substr(local_md5sum, 1, 32) AS TEXT)) FROM {FILES} WHERE {condition}"
        );
        let values = [archive.to_owned()].into_iter().chain(values.cloned()).map(Value::from);
        let mut statement = connection.prepare(&query)?;
        let mut found = statement.query(params_from_iter(values))?;
        while let Some(row) = found.next()? {
            let id = row.get(0)?;
            let text = |index| row.get::<_, Option<String>>(index).map(Option::unwrap_or_default);
            let (source, place, md5) = (text(1)?, text(2)?, text(3)?);
            self.places.insert(place, (id, source.clone()));
            // Of several rows of one file the last counts.
            self.sources.insert(source, (id, md5));
        }
        Ok(())
    }

    fn judge(&self, row: &NewRow) -> Registered {
        match (self.sources.get(&row.source), self.places.get(&row.remote)) {
            (Some((_, md5)), _) if *md5 == hex(&row.md5) => Registered::Same,
            (Some((id, _)), _) => Registered::Changed(RecordId(*id)),
            (None, Some((id, source))) if *source != row.source => Registered::PlaceTaken(RecordId(*id)),
            (None, _) => Registered::New,
        }
    }
}

/// What a database has that not every age of it has.
#[derive(Clone, Copy)]
struct KnownColumns {
    deletable: bool,
    ignore: bool,
    timecodes: bool,
}

/// As a producer inserts it.
fn insert(transaction: &Connection, archive: &str, row: &NewRow, columns: KnownColumns) -> Result<i64, Error> {
    let (column, value) = match (columns.deletable, row.deletable) {
        (true, true) => (", deletable", ", 1"),
        (true, false) => (", deletable", ", 0"),
        (false, _) => ("", ""),
    };
    let (ignore, of_ignore) = if columns.ignore { (", \"ignore\"", ", 0") } else { ("", "") };
    let insert = format!(
        "INSERT INTO {FILES} (local_path, local_md5sum, archive_name, remote_path, timestamp, failed_copy_attempts{column}{ignore}) \
         VALUES (?1, ?2, ?3, ?4, ?5, 0{value}{of_ignore})"
    );
    transaction.prepare_cached(&insert)?.execute(params![row.source, hex(&row.md5), archive, row.remote, row.time])?;
    let id = transaction.last_insert_rowid();
    // As SupRsync's own producers do.
    if let Some(timecode) = timecode_of(&row.remote).filter(|_| columns.timecodes) {
        timecodes::add(transaction, archive, timecode)?;
    }
    Ok(id)
}
