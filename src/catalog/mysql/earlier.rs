//! Whose copy stands at a place.

use super::MySqlCatalog;
use super::indexes::INDEX_PATH;
use super::row::integer;
use super::table::quote;
use crate::catalog::{CatalogError, CopyPlace, RecordId};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Value};

impl MySqlCatalog {
    /// A copied row says where the copy is and no longer where its file was: so the last row whose copy is there counts as one
    /// of the same file. (The place has the file's name in it, and what made it.)
    pub(super) async fn last_of_same_place(&self, copy: &CopyPlace) -> Result<Option<RecordId>, CatalogError> {
        if self.relayed().is_some() {
            // The places in the table are those of another node.
            return Ok(self.last_proven_at(&copy.path).await?.map(RecordId));
        }
        let mut last = None;
        if self.has_index(INDEX_PATH).await? {
            last = self.last_at(copy, &format!("FORCE INDEX ({INDEX_PATH})"), [0, i64::MAX]).await?;
        } else {
            let mut after = i64::MIN;
            while let Some((until, ended)) = self.reach_of_a_look(after).await? {
                last = self.last_at(copy, "", [after, until]).await?.or(last);
                if ended {
                    break;
                }
                after = until;
            }
        }
        // Also of rows that are not done yet, since other storage nodes have not proven them.
        let proven = self.last_proven_at(&copy.path).await?;
        Ok(last.max(proven).map(RecordId))
    }

    async fn last_at(&self, copy: &CopyPlace, by: &str, [after, until]: [i64; 2]) -> Result<Option<i64>, CatalogError> {
        let query = format!(
            "SELECT MAX(id) FROM {} {by} WHERE id > ? AND id <= ? AND path = ? AND copied<>0 AND {}",
            quote(&self.table.name),
            self.targets()
        );
        let values: Vec<Value> =
            [after.into(), until.into(), copy.path.clone().into()].into_iter().chain(self.target_values()).collect();
        let row: Option<mysql_async::Row> =
            self.run(async |conn| conn.exec_first(query, Params::Positional(values)).await).await?;
        Ok(row.and_then(|row| integer(row.as_ref(0)).ok().flatten()))
    }
}
