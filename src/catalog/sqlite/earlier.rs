//! Whose copy stands at a place.

use super::SqliteCatalog;
use super::indexes::{INDEX_REMOTE, has};
use super::nodes;
use super::table::FILES;
use super::timecodes::timecode_of;
use crate::catalog::{CatalogError, CopyPlace, RecordId};
use rusqlite::{Connection, Error, params};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

/// Rows of one place that are looked at, the newest ones.
const SAME_MOST: usize = 1000;

/// The row that had a file copied to a place last.
type CopyAtPlace = Option<(i64, Vec<u8>)>;

impl SqliteCatalog {
    /// The last row that has put a copy there, this one itself included, if it is one of the same file.
    pub(super) async fn last_of_same_file(&self, copy: &CopyPlace) -> Result<Option<RecordId>, CatalogError> {
        if let Some((node, _)) = self.relayed() {
            // The places are those of another node, which has seen to it that all rows of one are of the same file.
            let (node, archive, path) = (node.clone(), self.archive.clone(), copy.path.clone());
            let last = self.run(move |connection| nodes::last_proven_at(connection, &node, (&archive, &path))).await?;
            return Ok(last.map(|(id, _)| RecordId(id)));
        }
        let last = match self.run(|connection| has(connection, INDEX_REMOTE)).await? {
            true => {
                let (archive, path) = (self.archive.clone(), copy.path.clone());
                let query = format!(
                    "SELECT id, CAST(local_path AS BLOB) FROM (SELECT * FROM {FILES} INDEXED BY {INDEX_REMOTE} \
                     WHERE remote_path = ?2 ORDER BY id DESC LIMIT {SAME_MOST}) \
                     WHERE archive_name = ?1 AND remote_md5sum <> '' ORDER BY id DESC LIMIT 1"
                );
                self.run(move |connection| last_of(connection, &query, params![archive, path])).await?
            }
            false => self.last_at(copy).await?,
        };
        let last = match self.node.clone() {
            Some(node) => {
                let (archive, path) = (self.archive.clone(), copy.path.clone());
                let proven =
                    self.run(move |connection| nodes::last_proven_at(connection, &node, (&archive, &path))).await?;
                // Also of rows that are not done yet, since other nodes have not proven them.
                last.into_iter().chain(proven).max_by_key(|(id, _)| *id)
            }
            None => last,
        };
        let source = copy.source.as_os_str().as_bytes();
        Ok(last.filter(|(_, path)| path == source).map(|(id, _)| RecordId(id)))
    }

    /// Looks where the place's timecode has files, or where it has none everywhere.
    async fn last_at(&self, copy: &CopyPlace) -> Result<CopyAtPlace, CatalogError> {
        let timecodes: BTreeSet<i64> = timecode_of(&copy.path).into_iter().collect();
        let ranges = self.survey(|parts| {
            let mut ranges = match timecodes.is_empty() {
                true => parts.iter().map(|(ids, _)| ids).collect(),
                false => parts.with_timecodes(&timecodes),
            };
            ranges.push([parts.end(), i64::MAX]);
            ranges
        });
        let query = format!(
            "SELECT id, CAST(local_path AS BLOB) FROM {FILES} WHERE id > ?3 AND id <= ?4 AND archive_name = ?1 \
             AND remote_path = ?2 AND remote_md5sum <> '' ORDER BY id DESC LIMIT 1"
        );
        for [after, last] in ranges.await?.into_iter().rev() {
            let (query, archive, path) = (query.clone(), self.archive.clone(), copy.path.clone());
            let found = self.run(move |connection| last_of(connection, &query, params![archive, path, after, last]));
            if let Some(found) = found.await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn last_of(connection: &Connection, query: &str, given: &[&dyn rusqlite::ToSql]) -> Result<CopyAtPlace, Error> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(given)?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((row.get(0)?, row.get::<_, Option<Vec<u8>>>(1)?.unwrap_or_default())))
}
