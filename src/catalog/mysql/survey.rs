//! A glance at the rows below another one.

use super::table::quote;
use super::{MySqlCatalog, row};
use crate::catalog::survey::{LOOK, SurveyLook};
use crate::catalog::{CatalogError, RecordId, Totals};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Value};

impl MySqlCatalog {
    /// What the rows below that one come to, some thousands of ids at most.
    pub(in crate::catalog) async fn survey_below(&self, below: RecordId) -> Result<SurveyLook, CatalogError> {
        let (table, ours) = (quote(&self.table.name), self.targets());
        let top = format!("SELECT MAX(id) FROM {table} WHERE id < ?");
        let found = self.run(async |conn| conn.exec_first::<mysql_async::Row, _, _>(&top, (below.0,)).await).await?;
        let Some(top) = found.and_then(|found| row::integer(found.as_ref(0)).ok().flatten()) else {
            return Ok(SurveyLook::default());
        };
        let lowest = top.saturating_sub(LOOK - 1);
        let query = format!(
            "SELECT COUNT(CASE WHEN copied=0 AND failed_copy_attempts < ? THEN 1 END), \
             COUNT(CASE WHEN copied=0 AND failed_copy_attempts >= ? THEN 1 END), COUNT(CASE WHEN copied<>0 THEN 1 END), \
             MIN(CASE WHEN copied=0 AND failed_copy_attempts < ? THEN NULLIF(UNIX_TIMESTAMP(`timestamp`), 0) END) \
             FROM {table} WHERE id >= ? AND id <= ? AND {ours}"
        );
        let most = Value::from(self.selection.max_attempts);
        let values = [most.clone(), most.clone(), most, lowest.into(), top.into()];
        let values = Params::Positional(values.into_iter().chain(self.target_values()).collect());
        let found = self.run(async |conn| conn.exec_first::<mysql_async::Row, _, _>(&query, values).await).await?;
        let number = |index| found.as_ref().and_then(|found| row::integer(found.as_ref(index)).ok().flatten());
        let count = |index| number(index).and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        Ok(SurveyLook {
            lowest: Some(RecordId(lowest)),
            totals: Totals { pending: count(0), given_up: count(1), copied: count(2) },
            oldest: number(3).filter(|&seconds| seconds > 0).map(|seconds| seconds as f64),
        })
    }
}
