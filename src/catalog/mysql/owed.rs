//! What storage nodes have of rows, and what they owe.

use super::MySqlCatalog;
use super::fleet::Ours;
use super::nodes::{NodeRows, exist, know_relays};
use super::row::{integer, text};
use super::table::quote;
use crate::catalog::fleet::Fleet;
use crate::catalog::nodes::{LackingCopy, NodeStand};
use crate::catalog::{CatalogError, Md5, Note, RecordId, Retry};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Row, Value};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

impl MySqlCatalog {
    /// The storage nodes that the copies of the targets go to.
    pub(in crate::catalog) async fn storage_nodes(&self) -> Result<Vec<String>, CatalogError> {
        let marks = vec!["?"; self.selection.targets.len()].join(", ");
        let query =
            format!("SELECT DISTINCT node FROM fleet_node WHERE table_name=? AND target IN ({marks}) ORDER BY node");
        let values: Vec<Value> = std::iter::once(Value::from(&self.table.name)).chain(self.target_values()).collect();
        self.run(async |conn| {
            if !exist(conn).await? {
                return Ok(Vec::new());
            }
            let rows: Vec<Row> = conn.exec(query, Params::Positional(values)).await?;
            Ok(rows.iter().filter_map(|row| text(row.as_ref(0)).ok().flatten()).collect())
        })
        .await
    }

    /// How each of them stands to a row.
    pub(in crate::catalog) async fn stands(&self, id: RecordId) -> Result<Vec<NodeStand>, CatalogError> {
        let nodes = self.storage_nodes().await?;
        let known = self.run(async |conn| know_relays(conn).await).await?;
        let from = if known { "(SELECT MIN(source) FROM fleet_relay WHERE table_name=tn AND node=n)" } else { "NULL" };
        let query = format!(
            "SELECT p.path, UNIX_TIMESTAMP(p.at), o.row_id IS NOT NULL, t.of_source + t.of_node, t.why, {from} \
                     FROM (SELECT ? AS tn, ? AS n, ? AS r) AS w \
                     LEFT JOIN fleet_proof AS p ON p.table_name=tn AND p.node=n AND p.row_id=r \
                     LEFT JOIN fleet_owed AS o ON o.table_name=tn AND o.node=n AND o.row_id=r \
                     LEFT JOIN fleet_trouble AS t ON t.table_name=tn AND t.node=n AND t.row_id=r"
        );
        self.run(async |conn| {
            let mut stands = Vec::new();
            for node in nodes {
                let Some(row) = conn.exec_first::<Row, _, _>(&query, (&self.table.name, &node, id.0)).await? else {
                    continue;
                };
                let word = |index| text(row.as_ref(index)).ok().flatten();
                let number = |index| integer(row.as_ref(index)).ok().flatten();
                let at = word(1).and_then(|at| at.parse().ok()).or_else(|| number(1).map(|at| at as f64));
                let failed = number(3).zip(word(4));
                let (proof, from) = (word(0).zip(at), word(5));
                stands.push(NodeStand { proof, owes: number(2) == Some(1), failed, from, node });
            }
            Ok(stands)
        })
        .await
    }

    /// Rows of which the storage node owes copies whose files are here no more, at most so many, with where other nodes have
    /// copies of them.
    pub(in crate::catalog) async fn lacking(&self, limit: usize) -> Result<Vec<LackingCopy>, CatalogError> {
        let Some(node) = &self.node else { return Ok(Vec::new()) };
        let rows = NodeRows { node, table: &self.table.name };
        let held = self.fleet.as_ref().map(Fleet::held);
        let ours = Ours::new(held, self.lanes, &self.selection.targets);
        let query = format!(
            "SELECT o.row_id, md5sum, path FROM {} AND (o.lacking<>0 OR o.source IS NULL) AND {} < ? AND {} \
             ORDER BY o.row_id LIMIT ?",
            rows.owed(),
            rows.attempts_owed(),
            ours.condition("path")
        );
        let mut values = vec![Value::from(self.selection.max_attempts)];
        values.extend(ours.condition_values());
        values.push(Value::from(u64::try_from(limit).unwrap_or(u64::MAX)));
        let elsewhere = "SELECT node, path FROM fleet_proof WHERE table_name=? AND row_id=? AND node<>?";
        self.run(async |conn| {
            let found: Vec<Row> = conn.exec(query, Params::Positional(values)).await?;
            let mut lacking = Vec::new();
            for row in &found {
                let (Some(id), Some(Value::Bytes(md5)), Some(Value::Bytes(path))) =
                    (integer(row.as_ref(0)).ok().flatten(), row.as_ref(1), row.as_ref(2))
                else {
                    continue;
                };
                let Ok(md5) = Md5::try_from(md5.as_slice()) else { continue };
                let there: Vec<Row> = conn.exec(elsewhere, (&self.table.name, id, node.name())).await?;
                let word = |row: &Row, index| text(row.as_ref(index)).ok().flatten();
                let elsewhere = there.iter().filter_map(|row| Some((word(row, 0)?, word(row, 1)?))).collect();
                let file = PathBuf::from(OsString::from_vec(path.clone()));
                lacking.push(LackingCopy { id: RecordId(id), md5, file, elsewhere });
            }
            Ok(lacking)
        })
        .await
    }

    /// Says where the file of a row is now that the storage node owes.
    pub(in crate::catalog) async fn lend(&self, id: RecordId, path: &str) -> Result<(), CatalogError> {
        let Some(node) = &self.node else { return Ok(()) };
        let lend = "UPDATE fleet_owed SET source=?, lacking=0 WHERE table_name=? AND node=? AND row_id=?";
        self.run(async |conn| conn.exec_drop(lend, (path, &self.table.name, node.name(), id.0)).await).await
    }

    /// Which of these rows the storage node still owes.
    pub(in crate::catalog) async fn still_owed(&self, ids: Vec<RecordId>) -> Result<Vec<bool>, CatalogError> {
        let Some(node) = &self.node else { return Ok(vec![false; ids.len()]) };
        let query = "SELECT 1 FROM fleet_owed WHERE table_name=? AND node=? AND row_id=?";
        self.run(async |conn| {
            let mut owed = Vec::with_capacity(ids.len());
            for id in ids {
                let there: Option<Row> = conn.exec_first(query, (&self.table.name, node.name(), id.0)).await?;
                owed.push(there.is_some());
            }
            Ok(owed)
        })
        .await
    }

    /// The rows that are meant with what failed of them at storage nodes, behind FROM: files as `f`, troubles as `t`.
    pub(super) fn troubled(&self, which: &Retry) -> (String, Vec<Value>) {
        let (more, given): (String, Vec<Value>) = match which {
            Retry::All => (String::new(), Vec::new()),
            Retry::Ids(ids) => {
                (format!("AND id IN ({})", vec!["?"; ids.len()].join(", ")), ids.iter().map(|id| id.0.into()).collect())
            }
            Retry::Pattern(pattern) => ("AND f.path LIKE ? ESCAPE '|'".to_owned(), vec![Retry::like(pattern).into()]),
        };
        let rows = format!(
            "fleet_trouble AS t JOIN {} AS f ON f.id=t.row_id WHERE t.table_name=? AND {} {more}",
            quote(&self.table.name),
            self.targets()
        );
        (rows, std::iter::once(Value::from(&self.table.name)).chain(self.target_values()).chain(given).collect())
    }

    /// Why a storage node alone gave rows up that are meant, of so many at most: that which is worked for, or any.
    pub(super) async fn given_up_at_nodes(&self, which: &Retry, limit: usize) -> Result<Vec<Note>, CatalogError> {
        let none = matches!(which, Retry::Ids(ids) if ids.is_empty());
        if none || limit == 0 || !self.run(async |conn| exist(conn).await).await? {
            return Ok(Vec::new());
        }
        let (rows, mut values) = self.troubled(which);
        let most = self.selection.max_attempts;
        let of_node = self.node.as_ref().map_or("", |_| "AND t.node=?");
        values.extend(self.node.as_ref().map(|node| Value::from(node.name())));
        // Of a relayed one the row's own failures are no matter.
        let of_row = match self.relayed() {
            Some(_) => String::new(),
            None => format!("AND IFNULL(f.failed_copy_attempts, 0) < {most}"),
        };
        let query = format!(
            "SELECT f.id, f.path, t.of_source + t.of_node, UNIX_TIMESTAMP(t.noted_at), t.why, t.node FROM {rows} {of_node} {of_row} \
             AND LEAST(t.of_source, IFNULL(f.failed_copy_attempts, 0)) + t.of_node >= {most} \
             ORDER BY t.row_id, t.node LIMIT {limit}"
        );
        let rows = self.run(async |conn| conn.exec::<Row, _, _>(query, Params::Positional(values)).await).await?;
        let note = |row: &Row| {
            let number = |index| integer(row.as_ref(index)).ok().flatten();
            let word = |index| text(row.as_ref(index)).ok().flatten();
            let at = word(3).and_then(|at| at.parse().ok()).unwrap_or(0.0);
            let (id, path, reason) = (RecordId(number(0)?), word(1)?, Some((at, word(4)?)));
            Some(Note { id, path, attempts: number(2)?, reason, node: word(5) })
        };
        Ok(rows.iter().filter_map(note).collect())
    }

    /// The last row whose copy was proven at this place of the storage node.
    pub(super) async fn last_proven_at(&self, path: &str) -> Result<Option<i64>, CatalogError> {
        let Some(node) = &self.node else { return Ok(None) };
        let query = "SELECT MAX(row_id) FROM fleet_proof WHERE node=? AND path=? AND table_name=?";
        let row: Option<Row> =
            self.run(async |conn| conn.exec_first(query, (node.name(), path, &self.table.name)).await).await?;
        Ok(row.and_then(|row| integer(row.as_ref(0)).ok().flatten()))
    }
}
