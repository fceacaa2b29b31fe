//! How rows stand at a storage node, whoever asks.

use super::indexes::UNCOPIED;
use super::table::FILES;
use super::walk::reach_of_a_look;
use super::{SqliteCatalog, nodes, relays};
use crate::catalog::at_node::{AtNode, AtNodeState, FoundKeys, NodeFacts, NodeKeys, NodeTrouble};
use crate::catalog::nodes::{NodeNames, RelayFeed, StorageNode};
use crate::catalog::{CatalogError, RecordId};
use rusqlite::types::ValueRef;
use rusqlite::{Error, Row, params};

/// So much of a place at its end has the file's name in it.
const NAME_MOST: usize = 1024;

impl SqliteCatalog {
    /// The storage nodes that the copies of the archive go to, and which of them are fed from others.
    pub(in crate::catalog) async fn node_names(&self) -> Result<NodeNames, CatalogError> {
        let known = self.storage_nodes().await?;
        if known.is_empty() {
            return Ok(NodeNames::default());
        }
        let archive = self.archive.clone();
        let relayed = self.run(move |connection| {
            if !nodes::know_relays(connection)? {
                return Ok(Vec::new());
            }
            let query = "SELECT node, source FROM fleet_relay WHERE table_name = ? AND target = ?";
            let mut query = connection.prepare(query)?;
            query.query_map([FILES, &archive], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        });
        Ok(NodeNames::of_tables(known, relayed.await?))
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
        let (name, room) = (node.name().to_owned(), i64::try_from(limit).unwrap_or(i64::MAX));
        self.run(move |connection| {
            let query = format!(
                "SELECT row_id FROM {table} WHERE table_name = ? AND node = ? AND row_id > ? AND row_id <= ? \
                 ORDER BY row_id LIMIT ?"
            );
            let mut query = connection.prepare_cached(&query)?;
            let ids = query.query_map(params![FILES, name, after, last, room], |row| row.get(0).map(RecordId))?;
            Ok(FoundKeys::new(ids.collect::<Result<_, _>>()?, limit, last))
        })
        .await
    }

    /// The same of what the node that feeds it has proven and it has not, in a short look.
    async fn fed_keys(
        &self,
        (node, feed): (&StorageNode, &RelayFeed),
        [after, last]: [i64; 2],
        limit: usize,
    ) -> Result<FoundKeys, CatalogError> {
        let query = format!(
            "SELECT p.row_id FROM {} AND p.row_id > ?2 AND p.row_id <= ?3 AND archive_name = ?1 AND {} \
             ORDER BY p.row_id LIMIT ?4",
            relays::proven(feed),
            relays::lacks(node, feed)
        );
        let (archive, room) = (self.archive.clone(), i64::try_from(limit).unwrap_or(i64::MAX));
        self.run(move |connection| {
            let last = match reach_of_a_look(connection, after)? {
                Some((reached, false)) => last.min(reached),
                _ => last,
            };
            let mut query = connection.prepare_cached(&query)?;
            let ids = query.query_map(params![archive, after, last, room], |row| row.get(0).map(RecordId))?;
            Ok(FoundKeys::new(ids.collect::<Result<_, _>>()?, limit, last))
        })
        .await
    }

    /// How those of these rows stand at the node which it lacks.
    pub(in crate::catalog) async fn at_node(
        &self,
        node: &StorageNode,
        ids: &[RecordId],
    ) -> Result<Vec<(RecordId, AtNode)>, CatalogError> {
        let ids: Vec<_> = ids.iter().map(|id| id.0.to_string()).collect();
        let query = match node.feed() {
            Some(feed) => of_relayed(node, feed, &ids.join(",")),
            None => of_direct(node, &ids.join(",")),
        };
        let (node, most) = (node.clone(), self.max_attempts);
        self.run(move |connection| {
            let (mut query, mut found) = (connection.prepare(&query)?, Vec::new());
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let at = match node.feed() {
                    Some(_) => Some(AtNode::tried(&node, AtNodeState::Waiting, most, trouble(row)?)),
                    None => AtNode::of(&node, most, facts(&node, row)?),
                };
                let id = RecordId(row.get(0)?);
                found.extend(at.map(|at| (id, at)));
            }
            Ok(found)
        })
        .await
    }
}

/// What the tables have of these rows and a node that gets its files from here.
fn of_direct(node: &StorageNode, ids: &str) -> String {
    let (proofs, name, list) = (nodes::proofs(), node.name(), node.list());
    let join = |table: &str| {
        format!(
            "LEFT JOIN {table} ON {table}.table_name = '{FILES}' AND {table}.node = '{name}' AND {table}.row_id = {FILES}.id"
        )
    };
    format!(
        "SELECT {FILES}.id, of_source, of_node, noted_at, why, {UNCOPIED}, IFNULL(CAST(failed_copy_attempts AS INTEGER), 0), \
         EXISTS (SELECT 1 FROM {proofs} AND node = '{name}'), (SELECT COUNT(*) FROM {proofs} AND node IN ({list})), \
         fleet_owed.row_id IS NOT NULL, IFNULL({}, 0), substr(remote_path, -{NAME_MOST}) FROM {FILES} {} {} WHERE {FILES}.id IN ({ids})",
        nodes::LACKING,
        join("fleet_trouble"),
        join("fleet_owed"),
    )
}

/// What it failed to make of the proven copies of another one, as far as it lacks them.
fn of_relayed(node: &StorageNode, feed: &RelayFeed, ids: &str) -> String {
    let of_trouble = |column: &str| {
        format!(
            "(SELECT {column} FROM fleet_trouble WHERE table_name = '{FILES}' AND node = '{}' AND row_id = p.row_id)",
            node.name()
        )
    };
    format!(
        "SELECT p.row_id, 0, {}, {}, {} FROM {} AND p.row_id IN ({ids}) AND {}",
        relays::attempts(node),
        of_trouble("noted_at"),
        of_trouble("why"),
        relays::proven(feed),
        relays::lacks(node, feed)
    )
}

/// What both questions have behind the row's id.
fn trouble(row: &Row<'_>) -> Result<NodeTrouble, Error> {
    let (at, why): (Option<f64>, Option<String>) = (row.get(3)?, row.get(4)?);
    let count = |index| row.get::<_, Option<i64>>(index).map(Option::unwrap_or_default);
    Ok(NodeTrouble { of_source: count(1)?, of_node: count(2)?, reason: at.zip(why) })
}

fn facts(node: &StorageNode, row: &Row<'_>) -> Result<NodeFacts, Error> {
    let place = match row.get_ref(11)? {
        ValueRef::Text(place) => String::from_utf8_lossy(place),
        _ => "".into(),
    };
    Ok(NodeFacts {
        takes: node.takes(place.rsplit('/').next().unwrap_or_default()),
        trouble: trouble(row)?,
        waits: row.get(5)?,
        counted: row.get(6)?,
        proven: row.get(7)?,
        proofs: usize::try_from(row.get::<_, i64>(8)?).unwrap_or_default(),
        owes: row.get(9)?,
        lacking: row.get(10)?,
    })
}
