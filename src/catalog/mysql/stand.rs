//! How the fleet of a database stands. Nothing here grows with the table of files.

use super::connections::Connections;
use super::indexes::{INDEX_COPIED, has};
use super::row::{integer, text};
use super::table::{DEFAULT_TABLES, quote};
use super::{LOOK, MySqlCatalog, fleet, links, no_table, nodes};
use crate::catalog::fleet::{
    BacklogCount, DEBTS_MOST, FleetLook, FleetStand, MoverStand, NodeDebt, TargetBacklog, no_fleet,
};
use crate::catalog::{CatalogError, Database, DatabaseServer};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use std::collections::HashMap;
use std::time::{Duration, Instant};

impl MySqlCatalog {
    /// What waits of each target, counted for about so long, and what the storage node lacks that is worked for.
    pub(in crate::catalog) async fn backlog_and_debts(
        &self,
        limit: Duration,
    ) -> Result<(Vec<TargetBacklog>, Vec<NodeDebt>), CatalogError> {
        let targets = &self.selection.targets;
        let node = self.node.as_ref().map(|node| node.name().to_owned());
        let known: Vec<_> =
            node.iter().flat_map(|node| targets.iter().map(|target| (target.clone(), node.clone()))).collect();
        let look = FleetLook { table: None, max_attempts: self.selection.max_attempts, limit };
        self.run(async |conn| {
            let mut lines = match self.relayed() {
                // Its rows are done already.
                Some(_) => Vec::new(),
                None => backlog(conn, &self.table.name, &known, &look).await?,
            };
            lines.retain(|line| targets.contains(&line.target));
            Ok((lines, debts(conn, &self.table.name, &known).await?))
        })
        .await
    }
}

/// Reads how it stands, and watches for long enough to see who lives.
pub(in crate::catalog) async fn fleet_stand(
    server: &DatabaseServer,
    look: FleetLook,
) -> Result<FleetStand, CatalogError> {
    let database = Database::Mysql(server.clone());
    let connections = Connections::new(server);
    let conn = connections.connect().await.map_err(|error| connections.refusal(error))?;
    let rules = connections.run(conn, async |conn| fleet::find(conn).await).await?;
    let rules = rules.ok_or_else(|| no_fleet(&database.to_string()))?;
    let rules = rules.map_err(|why| CatalogError::Setup(connections.words(&why)))?;
    let names: Vec<&str> = look.table.as_deref().map_or(DEFAULT_TABLES.to_vec(), |name| vec![name]);
    let conn = connections.connect().await.map_err(|error| connections.unavailable(error))?;
    let table = connections.run(conn, async |conn| super::table::find(conn, &names).await).await?;
    let table = table.ok_or_else(|| no_table(&database, &names))?.name;
    let conn = connections.connect().await.map_err(|error| connections.unavailable(error))?;
    let mut stand = connections
        .run(conn, async |conn| {
            let movers = movers(conn).await?;
            let lanes: Vec<Row> = conn
                .query("SELECT table_name, target, holder FROM fleet_lane ORDER BY target, table_name, lane")
                .await?;
            let lane = |row: &Row| Some((word(row, 0)?, word(row, 1)?, word(row, 2)));
            let lanes: Vec<_> = lanes.iter().filter_map(lane).collect();
            let mut stand = FleetStand::new(rules.heartbeat, movers, &lanes);
            let known = match nodes::exist(conn).await? {
                true => nodes_of(conn, &table).await?,
                false => Vec::new(),
            };
            stand.nodes = debts(conn, &table, &known).await?;
            stand.links = links::stand(conn).await?;
            // What waits for a relayed one is done already.
            let mut direct = Vec::new();
            for of in known {
                if nodes::fed_from(conn, &table, &of.1).await?.is_none() {
                    direct.push(of);
                }
            }
            stand.backlog = backlog(conn, &table, &direct, &look).await?;
            Ok(stand)
        })
        .await?;
    let beats = async || {
        let conn = connections.connect().await.map_err(|error| connections.unavailable(error))?;
        let movers = connections.run(conn, movers).await?;
        Ok::<_, CatalogError>(movers.into_iter().map(|mover| (mover.mover, mover.beat)).collect::<HashMap<_, _>>())
    };
    stand.watch(rules.heartbeat, beats).await?;
    connections.close().await;
    Ok(stand)
}

fn word(row: &Row, index: usize) -> Option<String> {
    text(row.as_ref(index)).ok().flatten()
}

fn number(row: &Row, index: usize) -> Option<i64> {
    integer(row.as_ref(index)).ok().flatten()
}

fn count(row: &Row, index: usize) -> u64 {
    number(row, index).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

async fn movers(conn: &mut Conn) -> Result<Vec<MoverStand>, Error> {
    let rows: Vec<Row> = conn.query("SELECT mover, told, beat FROM fleet_mover").await?;
    let mover = |row: &Row| {
        Some(MoverStand { mover: word(row, 0)?, told: word(row, 1), beat: number(row, 2)?, ..MoverStand::default() })
    };
    Ok(rows.iter().filter_map(mover).collect())
}

/// The storage nodes of each target.
async fn nodes_of(conn: &mut Conn, table: &str) -> Result<Vec<(String, String)>, Error> {
    let query = "SELECT target, node FROM fleet_node WHERE table_name=? ORDER BY target, node";
    let rows: Vec<Row> = conn.exec(query, (table,)).await?;
    Ok(rows.iter().filter_map(|row| Some((word(row, 0)?, word(row, 1)?))).collect())
}

/// What each node owes, and what it failed at.
async fn debts(conn: &mut Conn, table: &str, known: &[(String, String)]) -> Result<Vec<NodeDebt>, Error> {
    let mut names: Vec<&String> = known.iter().map(|(_, node)| node).collect();
    names.sort();
    names.dedup();
    let counting = |of: &str, what: &str| {
        format!(
            "SELECT COUNT(*), SUM(w) FROM (SELECT {what} AS w FROM {of} WHERE table_name=? AND node=? LIMIT {DEBTS_MOST}) AS x"
        )
    };
    let mut debts = Vec::new();
    for node in names {
        let owed: Option<Row> = conn.exec_first(counting("fleet_owed", "lacking<>0"), (table, node)).await?;
        let troubles: Option<Row> = conn.exec_first(counting("fleet_trouble", "0"), (table, node)).await?;
        let [mut owed, lacking] = [0, 1].map(|index| owed.as_ref().map_or(0, |row| count(row, index)));
        let troubles = troubles.as_ref().map_or(0, |row| count(row, 0));
        let mut at_least = owed.max(troubles) >= DEBTS_MOST;
        if let Some(from) = nodes::fed_from(conn, table, node).await? {
            let [seen, lacks] = lacked(conn, table, [node, &from]).await?;
            (owed, at_least) = (lacks, seen >= DEBTS_MOST);
        }
        debts.push(NodeDebt { node: node.clone(), owed, lacking, troubles, at_least });
    }
    Ok(debts)
}

/// Of the newest proofs of the second node, as far as is counted: how many there are, and of how many rows the first has none.
async fn lacked(conn: &mut Conn, table: &str, [node, from]: [&str; 2]) -> Result<[u64; 2], Error> {
    let query = format!(
        "SELECT COUNT(*), SUM(NOT EXISTS (SELECT 1 FROM fleet_proof AS r WHERE r.table_name=? AND r.row_id=p.row_id \
         AND r.node=? AND r.sum=p.sum)) FROM (SELECT row_id, sum FROM fleet_proof FORCE INDEX (PRIMARY) WHERE table_name=? \
         AND node=? ORDER BY row_id DESC LIMIT {DEBTS_MOST}) AS p"
    );
    let row: Option<Row> = conn.exec_first(query, (table, node, table, from)).await?;
    Ok([0, 1].map(|index| row.as_ref().map_or(0, |row| count(row, index))))
}

/// Counts what waits, in short looks from the newest row on down, for as long as there is time.
async fn backlog(
    conn: &mut Conn,
    name: &str,
    known: &[(String, String)],
    look: &FleetLook,
) -> Result<Vec<TargetBacklog>, Error> {
    let table = quote(name);
    let by = match has(conn, name, INDEX_COPIED).await? {
        true => format!("FORCE INDEX ({INDEX_COPIED})"),
        false => String::new(),
    };
    // By the index past all that is copied.
    let reach = match by.is_empty() {
        true => {
            format!("SELECT GREATEST(MAX(id) - {LOOK} + 1, -9223372036854775807), MAX(id) FROM {table} WHERE id < ?")
        }
        false => format!(
            "SELECT MIN(id), MAX(id) FROM (SELECT id FROM {table} {by} WHERE copied=0 AND id < ? \
             ORDER BY id DESC LIMIT {LOOK}) AS w"
        ),
    };
    let most = look.max_attempts;
    let waiting = format!("FROM {table} AS f {by}");
    let within = "f.copied=0 AND f.id >= ? AND f.id <= ? AND f.instance_id IS NOT NULL";
    let rows = format!(
        "SELECT f.instance_id, COUNT(CASE WHEN f.failed_copy_attempts < {most} THEN 1 END), \
         COUNT(CASE WHEN f.failed_copy_attempts >= {most} THEN 1 END) {waiting} WHERE {within} GROUP BY f.instance_id"
    );
    let proven = format!(
        "SELECT f.instance_id, p.node, COUNT(*) {waiting} STRAIGHT_JOIN fleet_proof AS p \
         ON p.table_name=? AND p.row_id=f.id AND p.sum=f.md5sum \
         WHERE {within} AND f.failed_copy_attempts < {most} GROUP BY f.instance_id, p.node"
    );
    let (began, mut counted, mut below, mut complete) = (Instant::now(), BacklogCount::default(), i64::MAX, true);
    loop {
        let reached: Option<Row> = conn.exec_first(&reach, (below,)).await?;
        let Some((lowest, top)) = reached.and_then(|row| Some((number(&row, 0)?, number(&row, 1)?))) else { break };
        if below < i64::MAX && began.elapsed() >= look.limit {
            complete = false;
            break;
        }
        for row in &conn.exec::<Row, _, _>(&rows, (lowest, top)).await? {
            if let Some(target) = word(row, 0) {
                counted.add(target, [count(row, 1), count(row, 2)]);
            }
        }
        if !known.is_empty() {
            for row in &conn.exec::<Row, _, _>(&proven, (name, lowest, top)).await? {
                if let Some((target, node)) = word(row, 0).zip(word(row, 1)) {
                    counted.add_proven(target, node, count(row, 2));
                }
            }
        }
        below = lowest;
    }
    Ok(counted.done(known, !complete))
}
