//! What storage nodes have of rows, and what they owe.

use super::table::FILES;
use super::{SqliteCatalog, columns, fleet, nodes, row};
use crate::catalog::nodes::{LackingCopy, NodeStand};
use crate::catalog::{CatalogError, Looked, Pending, Record, RecordId};
use rusqlite::params;

impl SqliteCatalog {
    /// The storage nodes that the copies of the archive go to.
    pub(in crate::catalog) async fn storage_nodes(&self) -> Result<Vec<String>, CatalogError> {
        let archive = self.archive.clone();
        self.run(move |connection| {
            if !nodes::exist(connection)? {
                return Ok(Vec::new());
            }
            let mut known = connection.prepare("SELECT node FROM fleet_node WHERE table_name = ? AND target = ?")?;
            known.query_map([FILES, &archive], |row| row.get(0))?.collect()
        })
        .await
    }

    /// How each of them stands to a row.
    pub(in crate::catalog) async fn stands(&self, id: RecordId) -> Result<Vec<NodeStand>, CatalogError> {
        let nodes = self.storage_nodes().await?;
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let archive = self.archive.clone();
        self.run(move |connection| {
            let from = match nodes::know_relays(connection)? {
                true => "(SELECT source FROM fleet_relay WHERE table_name = tn AND target = ?4 AND node = n)",
                false => "iif(?4 IS NULL, '', NULL)",
            };
            let query = format!(
                "SELECT p.path, p.at, o.row_id IS NOT NULL, t.of_source + t.of_node, t.why, {from} \
                 FROM (SELECT ?1 AS tn, ?2 AS n, ?3 AS r) \
                 LEFT JOIN fleet_proof AS p ON p.table_name = tn AND p.node = n AND p.row_id = r \
                 LEFT JOIN fleet_owed AS o ON o.table_name = tn AND o.node = n AND o.row_id = r \
                 LEFT JOIN fleet_trouble AS t ON t.table_name = tn AND t.node = n AND t.row_id = r"
            );
            let mut query = connection.prepare(&query)?;
            let stand = |node: String| {
                query.query_row(params![FILES, node, id.0, archive], |row| {
                    let (path, at): (Option<String>, Option<f64>) = (row.get(0)?, row.get(1)?);
                    let (failures, why): (Option<i64>, Option<String>) = (row.get(3)?, row.get(4)?);
                    let (node, owes, failed, from) = (node.clone(), row.get(2)?, failures.zip(why), row.get(5)?);
                    Ok(NodeStand { node, proof: path.zip(at), owes, failed, from })
                })
            };
            nodes.into_iter().map(stand).collect()
        })
        .await
    }

    /// Rows of which the storage node owes copies whose files are here no more, at most so many, with where other nodes have
    /// copies of them.
    pub(in crate::catalog) async fn lacking(&self, limit: usize) -> Result<Vec<LackingCopy>, CatalogError> {
        let Some(node) = self.node.clone() else { return Ok(Vec::new()) };
        let held = self.fleet.as_ref().map(|(fleet, lanes)| (fleet.held(), *lanes));
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let room = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(move |connection| {
            let rows = {
                let mut statement = connection.prepare_cached(&nodes::look_lacking(&node, columns))?;
                let rows = statement.query_map(params![archive, max_attempts, room], row::read)?;
                rows.collect::<Result<Vec<_>, _>>()?
            };
            let looked = Looked { rows, until: RecordId(0), ended: true };
            let looked = match held {
                Some((held, lanes)) => fleet::ours(looked, &held, lanes),
                None => looked,
            };
            let mut lacking = Vec::new();
            for row in looked.rows {
                if let Pending::Ready(Record { id, md5, source, .. }) = row {
                    let elsewhere = nodes::copies_elsewhere(connection, &node, id)?;
                    lacking.push(LackingCopy { id, md5, file: source, elsewhere });
                }
            }
            Ok(lacking)
        })
        .await
    }

    /// Says where the file of a row is now that the storage node owes.
    pub(in crate::catalog) async fn lend(&self, id: RecordId, path: &str) -> Result<(), CatalogError> {
        let (node, path) = (self.node.clone(), path.to_owned());
        self.run(move |connection| node.map_or(Ok(()), |node| nodes::lend(connection, &node, id, &path))).await
    }

    /// Which of these rows the storage node still owes.
    pub(in crate::catalog) async fn still_owed(&self, ids: Vec<RecordId>) -> Result<Vec<bool>, CatalogError> {
        let Some(node) = self.node.clone() else { return Ok(vec![false; ids.len()]) };
        self.run(move |connection| nodes::still_owed(connection, &node, &ids)).await
    }
}
