//! A glance at the rows below another one.

use super::table::quote;
use super::{MySqlCatalog, row};
use crate::catalog::survey::{LOOK, SurveyLook};
use crate::catalog::{CatalogError, RecordId, Totals};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Value};

impl MySqlCatalog {
    /// What the rows below that one come to, some thousands at most.
    pub(in crate::catalog) async fn survey_below(&self, below: RecordId) -> Result<SurveyLook, CatalogError> {
        let query = format!(
            "SELECT MIN(id), COUNT(CASE WHEN ours AND copied=0 AND attempts < ? THEN 1 END), \
             COUNT(CASE WHEN ours AND copied=0 AND attempts >= ? THEN 1 END), COUNT(CASE WHEN ours AND copied<>0 THEN 1 END), \
             MIN(CASE WHEN ours AND copied=0 AND attempts < ? THEN NULLIF(time, 0) END) \
             FROM (SELECT id, copied, failed_copy_attempts AS attempts, UNIX_TIMESTAMP(`timestamp`) AS time, {} AS ours \
             FROM {} WHERE id < ? ORDER BY id DESC LIMIT {LOOK}) AS w",
            self.targets(),
            quote(&self.table.name)
        );
        let most = Value::from(self.selection.max_attempts);
        let values = [most.clone(), most.clone(), most].into_iter().chain(self.target_values());
        let values = Params::Positional(values.chain([below.0.into()]).collect());
        let found = self.run(async |conn| conn.exec_first::<mysql_async::Row, _, _>(&query, values).await).await?;
        let number = |index| found.as_ref().and_then(|found| row::integer(found.as_ref(index)).ok().flatten());
        let count = |index| number(index).and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        Ok(SurveyLook {
            lowest: number(0).map(RecordId),
            totals: Totals { pending: count(1), given_up: count(2), copied: count(3) },
            oldest: number(4).filter(|&seconds| seconds > 0).map(|seconds| seconds as f64),
        })
    }
}
