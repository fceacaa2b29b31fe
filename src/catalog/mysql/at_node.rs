//! How rows stand at a storage node, whoever asks, in MySQL.

use super::MySqlCatalog;
use super::nodes::{NodeRows, know_relays};
use super::row::{integer, text};
use super::table::quote;
use crate::catalog::at_node::{AtNode, AtNodeState, FoundKeys, NodeFacts, NodeKeys, NodeTrouble};
use crate::catalog::nodes::{NodeNames, RelayFeed, StorageNode};
use crate::catalog::{CatalogError, RecordId};
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Row, Value};

impl MySqlCatalog {
    /// The storage nodes that the copies of the targets go to, and which of them are fed from others.
    pub(in crate::catalog) async fn node_names(&self) -> Result<NodeNames, CatalogError> {
        let known = self.storage_nodes().await?;
        if known.is_empty() {
            return Ok(NodeNames::default());
        }
        let marks = vec!["?"; self.selection.targets.len()].join(", ");
        let query = format!(
            "SELECT node, MIN(source) FROM fleet_relay WHERE table_name=? AND target IN ({marks}) GROUP BY node ORDER BY node"
        );
        let values: Vec<Value> = std::iter::once(Value::from(&self.table.name)).chain(self.target_values()).collect();
        let found: Vec<Row> = self
            .run(async |conn| match know_relays(conn).await? {
                true => conn.exec(query, Params::Positional(values)).await,
                false => Ok(Vec::new()),
            })
            .await?;
        let pair = |row: &Row| Some((word(row, 0)?, word(row, 1)?));
        Ok(NodeNames::of_tables(known, found.iter().filter_map(pair).collect()))
    }

    /// Keys of the node's rows above the first id and up to the second, `limit` at most.
    pub(in crate::catalog) async fn node_keys(
        &self,
        (node, which): (&StorageNode, NodeKeys),
        [after, last]: [i64; 2],
        limit: usize,
    ) -> Result<FoundKeys, CatalogError> {
        let table = match (which, node.feed()) {
            (NodeKeys::Fed, Some(feed)) => return self.fed_keys((node, feed), [after, last], limit).await,
            (NodeKeys::Owed | NodeKeys::Fed, _) => "fleet_owed",
            (NodeKeys::Troubled, _) => "fleet_trouble",
        };
        let query = format!(
            "SELECT row_id FROM {table} WHERE table_name=? AND node=? AND row_id > ? AND row_id <= ? ORDER BY row_id LIMIT ?"
        );
        let values = (&self.table.name, node.name(), after, last, u64::try_from(limit).unwrap_or(u64::MAX));
        let rows: Vec<Row> = self.run(async |conn| conn.exec(query, values).await).await?;
        Ok(FoundKeys::new(ids(&rows), limit, last))
    }

    /// The same of what the node that feeds it has proven and it has not, in a short look.
    async fn fed_keys(
        &self,
        (node, feed): (&StorageNode, &RelayFeed),
        [after, last]: [i64; 2],
        limit: usize,
    ) -> Result<FoundKeys, CatalogError> {
        let last = match self.reach_of_a_look(after).await? {
            Some((reached, false)) => last.min(reached),
            _ => last,
        };
        let rows = NodeRows { node, table: &self.table.name };
        let query = format!(
            "SELECT id FROM {} AND id > ? AND id <= ? AND {} AND {} ORDER BY id LIMIT {limit}",
            rows.proven_at(feed),
            rows.lacks(feed),
            self.targets()
        );
        let values = [after.into(), last.into()].into_iter().chain(self.target_values()).collect();
        let rows: Vec<Row> = self.run(async |conn| conn.exec(query, Params::Positional(values)).await).await?;
        Ok(FoundKeys::new(ids(&rows), limit, last))
    }

    /// How those of these rows stand at the node which it lacks.
    pub(in crate::catalog) async fn at_node(
        &self,
        node: &StorageNode,
        ids: &[RecordId],
    ) -> Result<Vec<(RecordId, AtNode)>, CatalogError> {
        let ids: Vec<_> = ids.iter().map(|id| id.0.to_string()).collect();
        let rows = NodeRows { node, table: &self.table.name };
        let query = match node.feed() {
            Some(feed) => rows.of_relayed(feed, &ids.join(",")),
            None => rows.of_direct(&ids.join(",")),
        };
        let most = self.selection.max_attempts;
        let rows: Vec<Row> = self.run(async |conn| conn.query(query).await).await?;
        let found = rows.iter().filter_map(|row| {
            let at = match node.feed() {
                Some(_) => AtNode::tried(node, AtNodeState::Waiting, most, trouble(row)),
                None => AtNode::of(node, most, facts(row))?,
            };
            Some((RecordId(number(row, 0)?), at))
        });
        Ok(found.collect())
    }
}

impl NodeRows<'_> {
    /// What the tables have of these rows and a node that gets its files from here.
    fn of_direct(&self, ids: &str) -> String {
        let (proofs, name, list, table) = (self.proofs(), self.node.name(), self.node.list(), quote(self.table));
        let join = |of: &str, alias: &str| {
            let named = self.named();
            format!(
                "LEFT JOIN {of} AS {alias} ON {alias}.table_name={named} AND {alias}.node='{name}' AND {alias}.row_id={table}.id"
            )
        };
        format!(
            "SELECT {table}.id, t.of_source, t.of_node, UNIX_TIMESTAMP(t.noted_at), t.why, copied=0, \
             IFNULL(failed_copy_attempts, 0), EXISTS (SELECT 1 FROM {proofs} AND p.node='{name}'), \
             (SELECT COUNT(*) FROM {proofs} AND p.node IN ({list})), o.row_id IS NOT NULL, \
             o.lacking<>0 OR o.source IS NULL, 1=1{} FROM {table} {} {} WHERE {table}.id IN ({ids})",
            self.takes(),
            join("fleet_trouble", "t"),
            join("fleet_owed", "o"),
        )
    }

    /// What it failed to make of the proven copies of another one, as far as it lacks them.
    fn of_relayed(&self, feed: &RelayFeed, ids: &str) -> String {
        let of_trouble = |column: &str| {
            format!(
                "(SELECT {column} FROM fleet_trouble AS t WHERE t.table_name={} AND t.node='{}' AND t.row_id=p.row_id)",
                self.named(),
                self.node.name()
            )
        };
        format!(
            "SELECT id, 0, {}, {}, {} FROM {} AND id IN ({ids}) AND {}",
            self.attempts_relayed(),
            of_trouble("UNIX_TIMESTAMP(t.noted_at)"),
            of_trouble("t.why"),
            self.proven_at(feed),
            self.lacks(feed)
        )
    }
}

fn number(row: &Row, column: usize) -> Option<i64> {
    integer(row.as_ref(column)).ok().flatten()
}

fn word(row: &Row, column: usize) -> Option<String> {
    text(row.as_ref(column)).ok().flatten()
}

fn ids(rows: &[Row]) -> Vec<RecordId> {
    rows.iter().filter_map(|row| number(row, 0)).map(RecordId).collect()
}

/// What both questions have behind the row's id.
fn trouble(row: &Row) -> NodeTrouble {
    let at = word(row, 3).and_then(|at| at.parse().ok());
    let count = |column| number(row, column).unwrap_or_default();
    NodeTrouble { of_source: count(1), of_node: count(2), reason: at.zip(word(row, 4)) }
}

fn facts(row: &Row) -> NodeFacts {
    let holds = |column| number(row, column) == Some(1);
    NodeFacts {
        trouble: trouble(row),
        waits: holds(5),
        takes: holds(11),
        counted: number(row, 6).unwrap_or_default(),
        proven: holds(7),
        proofs: number(row, 8).and_then(|proofs| usize::try_from(proofs).ok()).unwrap_or_default(),
        owes: holds(9),
        lacking: holds(10),
    }
}
