//! Rows as people ask for them.

use super::indexes::{self, INDEX_FAILED, INDEX_LOCAL, INDEX_NAME, INDEX_REMOTE, INDEX_UNCOPIED, NAME, UNCOPIED};
use super::table::{FILES, PATH_LIMIT};
use super::walk::LOOK;
use super::{SqliteCatalog, note, row};
use crate::catalog::files::{FilePage, FileQuery, FileRow, FileState, FileStates, IGNORED, tails};
use crate::catalog::{CatalogError, RecordId, Retry};
use rusqlite::types::Value;
use rusqlite::{Connection, Error, Row, params_from_iter};

/// What is read of a row, and how its state is known.
#[derive(Clone)]
struct RowReading {
    archive: String,
    max_attempts: i64,
    has_ignore: bool,
}

impl SqliteCatalog {
    fn reading(&self) -> RowReading {
        RowReading {
            archive: self.archive.clone(),
            max_attempts: self.max_attempts,
            has_ignore: !self.not_ignored.is_empty(),
        }
    }

    /// Which rows are in one of these states.
    fn in_states(&self, states: FileStates) -> String {
        let waits = format!("removed IS NULL {} AND failed_copy_attempts IS NOT NULL", self.not_ignored);
        let wanted = [
            (states.pending, format!("{waits} AND failed_copy_attempts < {}", self.max_attempts)),
            (states.failed, format!("{waits} AND failed_copy_attempts > 0")),
            (states.ignored, format!("NOT ({})", self.not_left_out())),
        ];
        let uncopied: Vec<_> =
            wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, text)| format!("({text})")).collect();
        let uncopied = uncopied.join(" OR ");
        match (states.copied, uncopied.is_empty()) {
            (true, true) => "AND remote_md5sum IS local_md5sum".into(),
            (true, false) => format!("AND (remote_md5sum IS local_md5sum OR {UNCOPIED} AND ({uncopied}))"),
            (false, true) => String::new(),
            // Word for word as the indexes have it.
            (false, false) if states.only_failed() => {
                format!("AND {UNCOPIED} AND failed_copy_attempts > 0 AND {waits}")
            }
            (false, false) => format!("AND {UNCOPIED} AND ({uncopied})"),
        }
    }

    /// What a row has that nobody leaves out; never NULL.
    fn not_left_out(&self) -> String {
        let ignore = if self.not_ignored.is_empty() { "" } else { " AND \"ignore\" IS 0" };
        format!("removed IS NULL{ignore} AND failed_copy_attempts IS NOT NULL")
    }

    pub(in crate::catalog) async fn files(
        &self,
        query: &FileQuery,
        after: RecordId,
        limit: usize,
    ) -> Result<FilePage, CatalogError> {
        if let Some(ids) = &query.ids {
            return self.files_of(query, ids, after, limit).await;
        }
        let reading = self.reading();
        let (condition, given) = self.condition(query);
        let states = query.states;
        let room = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(move |connection| {
            let (base, index) = match states {
                states if states.only_failed() && indexes::has(connection, INDEX_FAILED)? => {
                    (format!("archive_name = ?1 AND {UNCOPIED} AND failed_copy_attempts > 0"), INDEX_FAILED)
                }
                states if states.uncopied() && indexes::has(connection, INDEX_UNCOPIED)? => {
                    (format!("archive_name = ?1 AND {UNCOPIED}"), INDEX_UNCOPIED)
                }
                _ => ("?1 IS NOT NULL".to_owned(), ""),
            };
            let by = if index.is_empty() { String::new() } else { format!("INDEXED BY {index}") };
            let reach = format!(
                "SELECT MAX(id), COUNT(*) FROM (SELECT id FROM {FILES} {by} WHERE {base} AND id > ?2 ORDER BY id LIMIT {LOOK})"
            );
            let reached = connection
                .prepare_cached(&reach)?
                .query_row((&reading.archive, after.0), |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?)));
            let (Some(last), seen) = reached? else {
                return Ok(FilePage { rows: Vec::new(), until: after, ended: true });
            };
            let within = format!("id > {} AND id <= {last} AND {condition}", after.0);
            let rows = reading.rows(connection, &format!("{by} WHERE {within}"), given, room)?;
            let full = rows.last().filter(|_| rows.len() as i64 >= room).map(FileRow::id);
            Ok(FilePage { until: full.unwrap_or(RecordId(last)), ended: full.is_none() && seen < LOOK, rows })
        })
        .await
    }

    /// Those of some ids.
    async fn files_of(
        &self,
        query: &FileQuery,
        ids: &[RecordId],
        after: RecordId,
        limit: usize,
    ) -> Result<FilePage, CatalogError> {
        let mut ids: Vec<i64> = ids.iter().map(|id| id.0).filter(|id| *id > after.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let ended = ids.len() <= limit;
        ids.truncate(limit);
        let until = RecordId(ids.last().copied().unwrap_or(after.0));
        let reading = self.reading();
        let (condition, given) = self.condition(query);
        let list: Vec<String> = ids.iter().map(i64::to_string).collect();
        let within = format!("WHERE id IN ({}) AND {condition}", list.join(","));
        let rows = self.run(move |connection| reading.rows(connection, &within, given, i64::MAX)).await?;
        Ok(FilePage { rows, until, ended })
    }

    /// What is asked for of an archive's rows, and the values of its parameters but the first.
    fn condition(&self, query: &FileQuery) -> (String, Vec<Value>) {
        let mut condition = format!("archive_name = ?1 {}", self.in_states(query.states));
        let mut given = Vec::new();
        if let Some(like) = query.like() {
            given.push(Value::from(like));
            let number = given.len() + 1;
            condition.push_str(&format!(
                " AND (local_path LIKE ?{number} ESCAPE '|' OR remote_path LIKE ?{number} ESCAPE '|')"
            ));
        }
        if let Some(before) = query.before {
            given.push(Value::from(before));
            condition.push_str(&format!(" AND timestamp < ?{}", given.len() + 1));
        }
        (condition, given)
    }

    pub(in crate::catalog) async fn find(&self, name: &str, limit: usize) -> Result<Vec<FileRow>, CatalogError> {
        let tails = tails(name);
        let marks = |first: usize| {
            let marks: Vec<_> = (first..first + tails.len()).map(|number| format!("?{number}")).collect();
            marks.join(", ")
        };
        let exact = (
            format!("(local_path = ?2 OR remote_path IN ({}))", marks(3)),
            [name.to_owned()].into_iter().chain(tails.iter().cloned()).map(Value::from).collect::<Vec<_>>(),
        );
        let reading = self.reading();
        let (condition, given) = exact.clone();
        let (wanted, is_name) = (name.to_owned(), !name.contains('/'));
        let room = i64::try_from(limit).unwrap_or(i64::MAX);
        let quick = self
            .run(move |connection| {
                if !indexes::has(connection, INDEX_LOCAL)? || !indexes::has(connection, INDEX_REMOTE)? {
                    return Ok(None);
                }
                // Not to be answered by way of the archive's name.
                let found =
                    reading.rows(connection, &format!("WHERE +archive_name = ?1 AND {condition}"), given, room)?;
                if !found.is_empty() || !is_name || !indexes::has(connection, INDEX_NAME)? {
                    return Ok(Some(found));
                }
                let condition = format!("INDEXED BY {INDEX_NAME} WHERE archive_name = ?1 AND {NAME} = ?2");
                reading.rows(connection, &condition, vec![Value::from(wanted)], room).map(Some)
            })
            .await?;
        let found = match quick {
            Some(found) => found,
            None => self.search(&exact.0, &exact.1, limit).await?,
        };
        if !found.is_empty() || name.starts_with('/') {
            return Ok(found);
        }
        let like = Value::from(Retry::like_end(name));
        self.search("(local_path LIKE ?2 ESCAPE '|' OR remote_path LIKE ?2 ESCAPE '|')", &[like], limit).await
    }

    /// Goes through the table in short looks.
    async fn search(&self, condition: &str, given: &[Value], limit: usize) -> Result<Vec<FileRow>, CatalogError> {
        let (reading, condition, given) = (self.reading(), condition.to_owned(), given.to_vec());
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], found: &mut Vec<FileRow>| {
            let room = limit.saturating_sub(found.len()) as i64;
            let within = format!("WHERE id > {after} AND id <= {last} AND archive_name = ?1 AND {condition}");
            found.extend(reading.rows(connection, &within, given.clone(), room)?);
            Ok(found.len() < limit)
        };
        Ok(self.walk(super::walk::BOTTOM, Vec::new(), look).await?.0)
    }
}

impl RowReading {
    /// The rows of a condition, whose first parameter is the archive's name, in order of id.
    fn rows(
        &self,
        connection: &Connection,
        condition: &str,
        given: Vec<Value>,
        limit: i64,
    ) -> Result<Vec<FileRow>, Error> {
        let noted = note::exist(connection)?;
        // Of a value too long only its length is fetched, which is no text.
        let bounded =
            |column: &str| format!("iif(octet_length({column}) <= {PATH_LIMIT}, {column}, octet_length({column}))");
        let time = |column: &str| format!("iif(typeof({column}) IN ('real', 'integer'), {column}, NULL)");
        let (note, join) = match noted {
            true => (
                "n.noted_at, n.why, n.attempts",
                format!("LEFT JOIN archiver_note AS n ON n.table_name = '{FILES}' AND n.id = f.id"),
            ),
            false => ("NULL, NULL, NULL", String::new()),
        };
        let ignored = if self.has_ignore { "\"ignore\" IS NOT 0" } else { "0" };
        let query = format!(
            "SELECT f.*, {note} FROM (SELECT id, IFNULL(CAST(failed_copy_attempts AS INTEGER), 0), {}, {}, {}, \
             failed_copy_attempts IS NULL, {}, {}, {}, {ignored}, {UNCOPIED}, \
             CAST(substr(archive_name, 1, 200) AS TEXT) FROM {FILES} {condition} ORDER BY id LIMIT {limit}) AS f {join} \
             ORDER BY f.id",
            bounded("local_path"),
            bounded("remote_path"),
            bounded("local_md5sum"),
            time("removed"),
            time("copied"),
            time("timestamp"),
        );
        let values = [Value::from(self.archive.clone())].into_iter().chain(given);
        let mut statement = connection.prepare(&query)?;
        let rows = statement.query_map(params_from_iter(values), |row| self.row(row))?;
        rows.collect()
    }

    fn row(&self, row: &Row<'_>) -> Result<FileRow, Error> {
        let pending = row::read(row)?;
        let attempts: i64 = row.get(1)?;
        let (no_count, removed_at, copied_at): (bool, Option<f64>, Option<f64>) =
            (row.get(5)?, row.get(6)?, row.get(7)?);
        let (time, ignored, uncopied): (Option<f64>, bool, bool) = (row.get(8)?, row.get(9)?, row.get(10)?);
        let state = match () {
            () if !uncopied => FileState::Copied,
            () if ignored => FileState::Ignored("its column ignore is set"),
            () if removed_at.is_some() => FileState::Ignored("its file was gone or deleted before it was copied"),
            () if no_count => FileState::Ignored("its column failed_copy_attempts is NULL"),
            () if attempts >= self.max_attempts => FileState::GivenUp,
            () if attempts > 0 => FileState::Retrying,
            () => FileState::Waiting,
        };
        let noted: (Option<f64>, Option<String>, Option<i64>) = (row.get(12)?, row.get(13)?, row.get(14)?);
        let owner = row.get::<_, Option<String>>(11)?.unwrap_or_default();
        let reason = noted.0.zip(noted.1).filter(|_| is_of(state, attempts, noted.2));
        Ok(FileRow { row: pending, state, owner, time, copied_at, removed_at, reason, at: None })
    }
}

/// Whether a note of so many failures is of the row as it stands.
fn is_of(state: FileState, attempts: i64, noted: Option<i64>) -> bool {
    match state {
        FileState::Copied => false,
        FileState::Ignored(_) => noted == Some(IGNORED) || noted == Some(attempts),
        _ => noted == Some(attempts),
    }
}
