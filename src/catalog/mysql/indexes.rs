//! Indexes of our own, for questions to a large table. Writers keep them up without knowing of them.

use super::row::text;
use super::table::quote;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

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

/// Makes those that are absent; whether each is new. The server lets others write meanwhile.
pub(super) async fn create(conn: &mut Conn, table: &str) -> Result<Vec<(String, bool)>, Error> {
    // Sessions of ours end a statement after a while.
    conn.query_drop("SET SESSION innodb_lock_wait_timeout=50 /*M!100101 , max_statement_time=0 */").await?;
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
