//! Rows as people ask for them.

use super::indexes::{INDEX_COPIED, INDEX_FAILED, INDEX_PATH};
use super::row::{self, integer, text};
use super::table::quote;
use super::{LOOK, MySqlCatalog, note};
use crate::catalog::files::{FilePage, FileQuery, FileRow, FileState, FileStates, IGNORED};
use crate::catalog::{Catalog, CatalogError, Layout, RecordId, Retry};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Value};

/// Rows of all targets with paths that end alike that are looked at.
const FOUND_MOST: usize = 10_000;

/// A condition with its values.
type MeantRows = (String, Vec<Value>);

impl MySqlCatalog {
    /// Which rows are in one of these states.
    fn in_states(&self, states: FileStates) -> String {
        let most = self.selection.max_attempts;
        let wanted = [
            (states.pending, format!("copied=0 AND failed_copy_attempts < {most}")),
            (states.failed, "copied=0 AND failed_copy_attempts > 0".to_owned()),
            (states.copied, "copied<>0".to_owned()),
            (states.ignored, "copied IS NULL OR copied=0 AND failed_copy_attempts IS NULL".to_owned()),
        ];
        let wanted: Vec<_> =
            wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, text)| format!("({text})")).collect();
        match wanted.is_empty() {
            true => "1=1".into(),
            false => format!("({})", wanted.join(" OR ")),
        }
    }

    pub(in crate::catalog) async fn files(
        &self,
        query: &FileQuery,
        after: RecordId,
        limit: usize,
    ) -> Result<FilePage, CatalogError> {
        let states = query.states;
        let table = quote(&self.table.name);
        let (mut condition, mut given) =
            (format!("{} AND {}", self.in_states(states), self.targets()), self.target_values().collect::<Vec<_>>());
        if let Some(like) = query.like() {
            condition.push_str(" AND path LIKE ? ESCAPE '|'");
            given.push(like.into());
        }
        if let Some(before) = query.before {
            condition.push_str(" AND UNIX_TIMESTAMP(`timestamp`) < ?");
            given.push(before.into());
        }
        if let Some(ids) = &query.ids {
            let mut ids: Vec<i64> = ids.iter().map(|id| id.0).filter(|id| *id > after.0).collect();
            ids.sort_unstable();
            ids.dedup();
            let ended = ids.len() <= limit;
            ids.truncate(limit);
            let Some(&until) = ids.last() else {
                return Ok(FilePage { rows: Vec::new(), until: after, ended: true });
            };
            let list: Vec<String> = ids.iter().map(i64::to_string).collect();
            let within = (format!("id IN ({}) AND {condition}", list.join(",")), given);
            return Ok(FilePage { rows: self.rows("", within, limit).await?, until: RecordId(until), ended });
        }
        let (base, index) = self.way_to(states).await?;
        let by = if index.is_empty() { String::new() } else { format!("FORCE INDEX ({index})") };
        let reach = format!(
            "SELECT MAX(id), COUNT(*) FROM (SELECT id FROM {table} {by} WHERE {base} AND id > ? ORDER BY id LIMIT {LOOK}) AS w"
        );
        let reached = self.run(async |conn| conn.exec_first::<mysql_async::Row, _, _>(reach, (after.0,)).await).await?;
        let number = |index| reached.as_ref().and_then(|row| integer(row.as_ref(index)).ok().flatten());
        let Some(last) = number(0) else {
            return Ok(FilePage { rows: Vec::new(), until: after, ended: true });
        };
        let within = (format!("id > {} AND id <= {last} AND {base} AND {condition}", after.0), given);
        let rows = self.rows(&by, within, limit).await?;
        let full = rows.last().filter(|_| rows.len() >= limit).map(FileRow::id);
        let ended = full.is_none() && number(1).is_some_and(|seen| seen < i64::from(LOOK));
        Ok(FilePage { until: full.unwrap_or(RecordId(last)), ended, rows })
    }

    /// By which index of ours, if it is there, and what it has of the condition.
    async fn way_to(&self, states: FileStates) -> Result<(&'static str, &'static str), CatalogError> {
        let (base, index) = match states {
            states if states.only_failed() => ("copied=0 AND failed_copy_attempts > 0", INDEX_FAILED),
            // What is ignored may have NULL there.
            states if states.uncopied() && !states.ignored => ("copied=0", INDEX_COPIED),
            _ => return Ok(("1=1", "")),
        };
        let there = self.has_index(index).await?;
        Ok(if there { (base, index) } else { ("1=1", "") })
    }

    pub(in crate::catalog) async fn find(&self, name: &str, limit: usize) -> Result<Vec<FileRow>, CatalogError> {
        let exact = |more: &str| {
            let values = [Value::from(name)].into_iter().chain(self.target_values()).collect();
            (format!("path = ? AND {} {more}", self.targets()), values)
        };
        let found = match self.has_index(INDEX_PATH).await? {
            true => self.rows("", exact(""), limit).await?,
            false => self.search(exact(""), limit).await?,
        };
        if !found.is_empty() || name.starts_with('/') {
            return Ok(found);
        }
        let like = Retry::like_end(name);
        if self.has_index(INDEX_PATH).await? {
            return self.search_index(&like, limit).await;
        }
        let values = [Value::from(like)].into_iter().chain(self.target_values()).collect();
        self.search((format!("path LIKE ? ESCAPE '|' AND {}", self.targets()), values), limit).await
    }

    /// Goes through the index of paths, which is a small part of the table.
    async fn search_index(&self, like: &str, limit: usize) -> Result<Vec<FileRow>, CatalogError> {
        let query = format!(
            "SELECT id FROM {} FORCE INDEX ({INDEX_PATH}) WHERE path LIKE ? ESCAPE '|' LIMIT {FOUND_MOST}",
            quote(&self.table.name)
        );
        let found = self.run(async |conn| conn.exec::<mysql_async::Row, _, _>(query, (like,)).await).await?;
        let ids: Vec<String> =
            found.iter().filter_map(|row| integer(row.as_ref(0)).ok().flatten()).map(|id| id.to_string()).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let within = format!("id IN ({}) AND {}", ids.join(","), self.targets());
        self.rows("", (within, self.target_values().collect()), limit).await
    }

    /// Goes through the table in short looks.
    async fn search(&self, (condition, given): MeantRows, limit: usize) -> Result<Vec<FileRow>, CatalogError> {
        let (mut after, mut found) = (i64::MIN, Vec::new());
        while found.len() < limit
            && let Some((last, _)) = self.reach_of_a_look(after).await?
        {
            let within = (format!("id > {after} AND id <= {last} AND {condition}"), given.clone());
            found.extend(self.rows("", within, limit - found.len()).await?);
            after = last;
        }
        Ok(found)
    }

    /// The rows of a condition, in order of id.
    async fn rows(&self, by: &str, (condition, given): MeantRows, limit: usize) -> Result<Vec<FileRow>, CatalogError> {
        let table = quote(&self.table.name);
        let query = format!(
            "SELECT {}, copied, instance_id FROM {table} {by} WHERE {condition} ORDER BY id LIMIT {limit}",
            self.columns("path", "failed_copy_attempts")
        );
        let found =
            self.run(async |conn| conn.exec::<mysql_async::Row, _, _>(query, Params::Positional(given)).await).await?;
        let mut rows = Vec::with_capacity(found.len());
        for row in &found {
            rows.push(self.file_row(row).ok_or_else(|| {
                let place = self.describe();
                CatalogError::Setup(format!("Column id of {place} holds no integers; give another table"))
            })?);
        }
        let of_note = |row: &&FileRow| row.state != FileState::Copied && row.state != FileState::Waiting;
        let ids: Vec<i64> = rows.iter().filter(of_note).map(|row| row.id().0).collect();
        if ids.is_empty() {
            return Ok(rows);
        }
        let mut notes = self.run(async |conn| note::of(conn, &table, &ids).await).await?;
        for row in &mut rows {
            let count = match row.state {
                FileState::Ignored(_) => IGNORED,
                _ => row.attempts(),
            };
            row.reason =
                notes.remove(&row.id().0).filter(|(attempts, ..)| *attempts == count).map(|(_, at, why)| (at, why));
        }
        Ok(rows)
    }

    fn file_row(&self, row: &mysql_async::Row) -> Option<FileRow> {
        let width = 5 + if self.layout == Layout::Action { 4 } else { 1 };
        let pending = row::read(row, self.layout)?;
        let (copied, count) = (integer(row.as_ref(width)).ok().flatten(), integer(row.as_ref(4)).ok().flatten());
        let most = self.selection.max_attempts;
        let state = match (copied, count) {
            (None, _) => FileState::Ignored("its column copied is NULL"),
            (Some(copied), _) if copied != 0 => FileState::Copied,
            (_, None) => FileState::Ignored("its column failed_copy_attempts is NULL"),
            (_, Some(count)) if count >= most => FileState::GivenUp,
            (_, Some(count)) if count > 0 => FileState::Retrying,
            _ => FileState::Waiting,
        };
        let time = integer(row.as_ref(2)).ok().flatten().filter(|seconds| *seconds > 0);
        Some(FileRow {
            row: pending,
            state,
            owner: text(row.as_ref(width + 1)).ok().flatten().unwrap_or_default(),
            time: time.map(|seconds| seconds as f64),
            copied_at: None,
            removed_at: None,
            reason: None,
            at: None,
        })
    }
}
