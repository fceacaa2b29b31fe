//! Indexes of our own, for questions to a large table. Writers keep them up without knowing of them.

use super::row::{integer, text};
use super::table::quote;
use super::{LOOK, MySqlCatalog};
use crate::catalog::{Catalog, CatalogError, Totals};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Value};

/// Rows with and without a copy, each in order of id.
pub(super) const INDEX_COPIED: &str = "archiver_copied";
/// Those that failed; with all that is counted.
pub(super) const INDEX_FAILED: &str = "archiver_failed";
pub(super) const INDEX_PATH: &str = "archiver_path";
pub(super) const INDEX_MD5: &str = "archiver_md5";

/// What each is of, and what instead where that is too long for the table's format.
const INDEXES: [(&str, &str, &str); 4] = [
    (INDEX_COPIED, "(copied)", ""),
    (INDEX_FAILED, "(copied, failed_copy_attempts, instance_id)", ""),
    (INDEX_PATH, "(path)", "(path(190))"),
    (INDEX_MD5, "(md5sum)", ""),
];

/// ER_TOO_LONG_KEY.
const TOO_LONG: u16 = 1071;
/// ER_DUP_KEYNAME.
const EXISTS: u16 = 1061;

pub(super) async fn has(conn: &mut Conn, table: &str, index: &str) -> Result<bool, Error> {
    let query = "SELECT COUNT(*) FROM information_schema.statistics \
                 WHERE table_schema = DATABASE() AND table_name = ? AND index_name = ?";
    let row: Option<mysql_async::Row> = conn.exec_first(query, (table, index)).await?;
    Ok(row.and_then(|row| text(row.as_ref(0)).ok().flatten()).is_some_and(|count| count != "0"))
}

/// Sessions of ours end a statement after a while; not this one.
pub(super) const UNLIMITED: &str = "SET SESSION innodb_lock_wait_timeout=50 /*M!100101 , max_statement_time=0 */";

/// Makes those that are absent; whether each is new. The server lets others write meanwhile.
pub(super) async fn create(conn: &mut Conn, table: &str) -> Result<Vec<(String, bool)>, Error> {
    conn.query_drop(UNLIMITED).await?;
    let mut made = Vec::new();
    for (name, of, instead) in INDEXES {
        let mut new = !has(conn, table, name).await?;
        if new {
            let make = |of: &str| format!("CREATE INDEX {name} ON {} {of}", quote(table));
            let mut result = conn.query_drop(make(of)).await;
            if matches!(&result, Err(Error::Server(error)) if error.code == TOO_LONG) && !instead.is_empty() {
                result = conn.query_drop(make(instead)).await;
            }
            match result {
                // Somebody else was quicker.
                Err(Error::Server(error)) if error.code == EXISTS => new = false,
                result => result?,
            }
        }
        made.push((name.to_owned(), new));
    }
    Ok(made)
}

/// Longest table whose rows are counted by one statement: ten seconds on a slow server.
const COUNTED_MOST: i64 = 20_000_000;

impl MySqlCatalog {
    /// Whether counts need not go through the table.
    pub(in crate::catalog) async fn is_indexed(&self) -> Result<bool, CatalogError> {
        Ok(self.has_index(INDEX_COPIED).await? && self.has_index(INDEX_FAILED).await?)
    }

    pub(super) async fn has_index(&self, index: &str) -> Result<bool, CatalogError> {
        let table = &self.table.name;
        self.run(async |conn| has(conn, table, index).await).await
    }

    /// Up to which id a short look at the rows without a copy above `after` goes; `None` where there are none.
    pub(super) async fn reach_past_copied(&self, after: i64) -> Result<Option<i64>, CatalogError> {
        let last = format!(
            "SELECT MAX(id) FROM (SELECT id FROM {} FORCE INDEX ({INDEX_COPIED}) WHERE copied=0 AND id > ? \
             ORDER BY id LIMIT {LOOK}) AS w",
            quote(&self.table.name)
        );
        let row = self.run(async |conn| conn.exec_first::<mysql_async::Row, _, _>(last, (after,)).await).await?;
        Ok(row.and_then(|row| integer(row.as_ref(0)).ok().flatten()))
    }

    /// How many rows are in which state, by the index that has all it takes; `None` where there is none, or it is too long.
    pub(super) async fn totals_by_index(&self) -> Result<Option<Totals>, CatalogError> {
        let table = &self.table.name;
        if self.newest().await?.0 > COUNTED_MOST || !self.run(async |conn| has(conn, table, INDEX_FAILED).await).await?
        {
            return Ok(None);
        }
        let count = |condition: &str| {
            format!(
                "SELECT COUNT(*) FROM {} FORCE INDEX ({INDEX_FAILED}) WHERE {condition} AND {}",
                quote(table),
                self.targets()
            )
        };
        let most = self.selection.max_attempts;
        let mut counts = [0; 3];
        let conditions = [
            format!("copied=0 AND failed_copy_attempts < {most}"),
            format!("copied=0 AND failed_copy_attempts >= {most}"),
            "copied<>0".to_owned(),
        ];
        for (counted, condition) in counts.iter_mut().zip(conditions) {
            let (query, values) = (count(&condition), self.target_values().collect::<Vec<Value>>());
            let row: Option<mysql_async::Row> =
                self.run(async |conn| conn.exec_first(query, Params::Positional(values)).await).await?;
            let number = row.and_then(|row| integer(row.as_ref(0)).ok().flatten());
            *counted = number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        }
        let [pending, given_up, copied] = counts;
        Ok(Some(Totals { pending, given_up, copied }))
    }
}
