//! Indexes of our own, for questions to a large table. Writers keep them up without knowing of them.

use super::table::FILES;
use rusqlite::{Connection, Error};

/// Rows without a proven copy, in order of id.
pub(super) const INDEX_UNCOPIED: &str = "archiver_uncopied";
/// Of these, those that failed.
pub(super) const INDEX_FAILED: &str = "archiver_failed";
/// All rows of an archive.
pub(super) const INDEX_ARCHIVE: &str = "archiver_archive";
/// Names of files, without their folders.
pub(super) const INDEX_NAME: &str = "archiver_name";
pub(super) const INDEX_LOCAL: &str = "archiver_local";
pub(super) const INDEX_REMOTE: &str = "archiver_remote";

/// The condition for a row without a proven copy, as our indexes have it.
pub(super) const UNCOPIED: &str = "remote_md5sum IS NOT local_md5sum";

/// What stands behind the last slash of a path.
pub(super) const NAME: &str = "substr(local_path, length(rtrim(local_path, replace(local_path, '/', ''))) + 1)";

/// What each is of. The conditions stand in our queries word for word, else SQLite would not see that they are the same.
const INDEXES: [(&str, &str); 6] = [
    (INDEX_UNCOPIED, "(archive_name) WHERE remote_md5sum IS NOT local_md5sum"),
    (INDEX_FAILED, "(archive_name) WHERE remote_md5sum IS NOT local_md5sum AND failed_copy_attempts > 0"),
    (INDEX_ARCHIVE, "(archive_name)"),
    // As NAME has it.
    (INDEX_NAME, "(substr(local_path, length(rtrim(local_path, replace(local_path, '/', ''))) + 1))"),
    (INDEX_LOCAL, "(local_path)"),
    (INDEX_REMOTE, "(remote_path)"),
];

pub(super) fn has(connection: &Connection, index: &str) -> Result<bool, Error> {
    let query = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'index' AND name = ?1 AND tbl_name = ?2";
    connection.prepare_cached(query)?.query_row((index, FILES), |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

/// Makes one that is absent; whether it is new. Writers wait meanwhile.
pub(super) fn create(connection: &Connection) -> Result<Vec<(String, bool)>, Error> {
    let mut made = Vec::new();
    for (name, of) in INDEXES {
        let new = !has(connection, name)?;
        if new {
            connection.execute_batch(&format!("CREATE INDEX IF NOT EXISTS {name} ON {FILES} {of}"))?;
        }
        made.push((name.to_owned(), new));
    }
    Ok(made)
}
