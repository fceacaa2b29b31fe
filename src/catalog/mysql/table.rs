//! Finds a pysmurf table and judges whether it can serve.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Value};

use super::super::{CatalogError, Layout};
use super::row::{integer, text};

/// The tables of all ages, newest first.
pub(super) const DEFAULT_TABLES: [&str; 3] = ["pysmurf_files_v1", "pysmurf_files_v0", "pysmurf_files"];

/// The statement of `socs.db.pysmurf_files_manager`, letter by letter.
pub(super) const CREATE: &str = "CREATE TABLE pysmurf_files_v1 (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, path VARCHAR(260) NOT NULL, action VARCHAR(32) , timestamp TIMESTAMP , action_timestamp INT , format VARCHAR(32) , plot TINYINT(1) , site VARCHAR(32) , pub_id VARCHAR(32) , script_id VARCHAR(32) , instance_id VARCHAR(32) , copied TINYINT(1) , failed_copy_attempts INT , md5sum BINARY(16) NOT NULL, pysmurf_version VARCHAR(64) , socs_version VARCHAR(64) )";

/// Columns that every age has which ever ran.
const REQUIRED: [&str; 7] = ["id", "path", "timestamp", "instance_id", "copied", "failed_copy_attempts", "md5sum"];

/// Columns that we write; `timestamp` only to keep it.
const WRITTEN: [&str; 4] = ["path", "timestamp", "copied", "failed_copy_attempts"];

/// A table as the server describes it.
pub(super) struct Table {
    pub(super) name: String,
    /// Characters.
    pub(super) path_limit: usize,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    kind: String,
    writable: bool,
}

/// The first of `names` that exists. An account without rights on a table does not see it.
pub(super) async fn find(conn: &mut Conn, names: &[&str]) -> Result<Option<Table>, Error> {
    let query = format!(
        "SELECT table_name, column_name, data_type, character_maximum_length, privileges \
         FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name IN ({}) \
         ORDER BY ordinal_position",
        vec!["?"; names.len()].join(", ")
    );
    let values = names.iter().map(|name| Value::from(*name)).collect();
    let rows: Vec<mysql_async::Row> = conn.exec(query, Params::Positional(values)).await?;
    let word = |row: &mysql_async::Row, index| text(row.as_ref(index)).ok().flatten().unwrap_or_default();
    for name in names {
        let mut table = Table { name: (*name).to_owned(), path_limit: usize::MAX, columns: Vec::new() };
        for row in rows.iter().filter(|row| word(row, 0).eq_ignore_ascii_case(name)) {
            let column = Column {
                name: word(row, 1).to_ascii_lowercase(),
                kind: word(row, 2).to_ascii_lowercase(),
                writable: word(row, 4).split(',').any(|right| right.trim().eq_ignore_ascii_case("update")),
            };
            if column.name == "path" {
                let length = integer(row.as_ref(3)).ok().flatten();
                table.path_limit = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
            }
            table.columns.push(column);
        }
        if !table.columns.is_empty() {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

impl Table {
    pub(super) fn has(&self, name: &str) -> bool {
        self.column(name).is_some()
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The naming rule to follow, `wanted` if given. [`CatalogError::Setup`] says why the table cannot serve; `place`
    /// begins that sentence.
    pub(super) fn check(&self, place: &str, wanted: Option<Layout>) -> Result<Layout, CatalogError> {
        let missing: Vec<&str> = REQUIRED.into_iter().filter(|name| !self.has(name)).collect();
        if !missing.is_empty() {
            return Err(CatalogError::Setup(format!(
                "{place} lacks {}, or the user may not see them; give another table with --table, or grant SELECT on it",
                list("column", &missing)
            )));
        }
        let kind = self.column("timestamp").map_or("", |column| column.kind.as_str());
        if !["timestamp", "datetime"].contains(&kind) {
            return Err(CatalogError::Setup(format!(
                "{place} has a column timestamp of type {kind}; give a table where it is a TIMESTAMP"
            )));
        }
        let fixed: Vec<&str> =
            WRITTEN.into_iter().filter(|name| self.column(name).is_some_and(|column| !column.writable)).collect();
        if !fixed.is_empty() {
            return Err(CatalogError::Setup(format!(
                "{place}: the user may not write {}; grant UPDATE on the table",
                list("column", &fixed)
            )));
        }
        let by_action = wanted.map_or(self.has("action"), |layout| layout == Layout::Action);
        let (layout, needed, option) = if by_action {
            (Layout::Action, "action", "--layout type")
        } else {
            (Layout::Type, "type", "--layout action")
        };
        if self.has(needed) {
            return Ok(layout);
        }
        let remedy = if wanted.is_some() { option } else { "--table and a table of files" };
        Err(CatalogError::Setup(format!("{place} lacks column {needed}, by which files are named; use {remedy}")))
    }
}

/// `column a` or `columns a, b`.
fn list(noun: &str, names: &[&str]) -> String {
    format!("{noun}{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// A name as SQL takes it, whatever is in it.
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
