//! A glance at the rows below another one.

use super::SqliteCatalog;
use super::table::FILES;
use crate::catalog::survey::{LOOK, SurveyLook};
use crate::catalog::{CatalogError, RecordId, Totals};
use rusqlite::params;

impl SqliteCatalog {
    /// What the rows below that one come to, some thousands of ids at most.
    pub(in crate::catalog) async fn survey_below(&self, below: RecordId) -> Result<SurveyLook, CatalogError> {
        let waits = self.waiting();
        let top = format!("SELECT MAX(id) FROM {FILES} WHERE id < ?1");
        let query = format!(
            "SELECT COUNT(CASE WHEN {waits} AND failed_copy_attempts < ?2 THEN 1 END), \
             COUNT(CASE WHEN {waits} AND failed_copy_attempts >= ?2 THEN 1 END), \
             COUNT(CASE WHEN archive_name = ?1 AND remote_md5sum = local_md5sum THEN 1 END), \
             MIN(CASE WHEN {waits} AND failed_copy_attempts < ?2 THEN timestamp END) \
             FROM {FILES} WHERE id >= ?3 AND id <= ?4"
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        self.run(move |connection| {
            let top: Option<i64> = connection.prepare_cached(&top)?.query_row([below.0], |row| row.get(0))?;
            let Some(top) = top else { return Ok(SurveyLook::default()) };
            let lowest = top.saturating_sub(LOOK - 1);
            connection.prepare_cached(&query)?.query_row(params![archive, max_attempts, lowest, top], |row| {
                let count = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
                Ok(SurveyLook {
                    lowest: Some(RecordId(lowest)),
                    totals: Totals { pending: count(0)?, given_up: count(1)?, copied: count(2)? },
                    oldest: row.get(3)?,
                })
            })
        })
        .await
    }
}
