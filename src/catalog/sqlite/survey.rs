//! A glance at the rows below another one.

use super::SqliteCatalog;
use super::table::FILES;
use crate::catalog::survey::{LOOK, SurveyLook};
use crate::catalog::{CatalogError, RecordId, Totals};
use rusqlite::params;

impl SqliteCatalog {
    /// What the rows below that one come to, some thousands at most.
    pub(in crate::catalog) async fn survey_below(&self, below: RecordId) -> Result<SurveyLook, CatalogError> {
        let waits = self.waiting();
        let query = format!(
            "SELECT MIN(id), COUNT(CASE WHEN {waits} AND failed_copy_attempts < ?2 THEN 1 END), \
             COUNT(CASE WHEN {waits} AND failed_copy_attempts >= ?2 THEN 1 END), \
             COUNT(CASE WHEN archive_name = ?1 AND remote_md5sum = local_md5sum THEN 1 END), \
             MIN(CASE WHEN {waits} AND failed_copy_attempts < ?2 THEN timestamp END) \
             FROM (SELECT * FROM {FILES} WHERE id < ?3 ORDER BY id DESC LIMIT {LOOK})"
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        self.run(move |connection| {
            connection.prepare_cached(&query)?.query_row(params![archive, max_attempts, below.0], |row| {
                let count = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
                Ok(SurveyLook {
                    lowest: row.get::<_, Option<i64>>(0)?.map(RecordId),
                    totals: Totals { pending: count(1)?, given_up: count(2)?, copied: count(3)? },
                    oldest: row.get(4)?,
                })
            })
        })
        .await
    }
}
