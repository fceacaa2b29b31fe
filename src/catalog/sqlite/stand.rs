//! How the fleet of a file stands. Nothing here grows with the table of files.

use super::handle::{Handle, OpenFor};
use super::indexes::{INDEX_UNCOPIED, UNCOPIED, has};
use super::table::FILES;
use super::trouble::{in_time, on_own_thread, trouble};
use super::walk::{FileCalls, LOOK, reach_past_copied};
use super::{SqliteCatalog, fleet, links, nodes, relays};
use crate::catalog::fleet::{
    BacklogCount, DEBTS_MOST, FleetLook, FleetStand, MoverStand, NodeDebt, TargetBacklog, no_fleet,
};
use crate::catalog::{CatalogError, Database};
use rusqlite::{Connection, Error, params};
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

impl SqliteCatalog {
    /// What the storage node lacks that is worked for.
    pub(in crate::catalog) async fn debts(&self) -> Result<Vec<NodeDebt>, CatalogError> {
        let Some(node) = self.node.as_ref().map(|node| node.name().to_owned()) else { return Ok(Vec::new()) };
        self.run(|connection| Ok(vec![debt(connection, node)?])).await
    }
}

/// Reads how it stands, and watches for long enough to see who lives.
pub(in crate::catalog) async fn fleet_stand(path: &Path, look: FleetLook) -> Result<FleetStand, CatalogError> {
    let file = path.to_owned();
    let database = Database::Sqlite(path.to_owned()).to_string();
    let opening = on_own_thread(&database, move |database| Handle::open(&file, database, OpenFor::Look));
    let handle = in_time(&database, opening).await?;
    let not_ignored = if handle.has("ignore") { "AND \"ignore\" = 0" } else { "" };
    let calls = FileCalls::new(handle, &database);
    let (mut stand, heartbeat) = calls
        .run_with(move |handle, database| {
            let connection = handle.current(database)?;
            let rules = fleet::find(connection).map_err(|error| trouble(database, error))?;
            let rules = rules.ok_or_else(|| no_fleet(database))?;
            let rules = rules.map_err(|why| CatalogError::Setup(format!("Database {database}: {why}")))?;
            let told = || {
                let movers = movers(connection)?;
                let lanes = "SELECT table_name, target, holder FROM fleet_lane ORDER BY target, table_name, lane";
                let mut lanes = connection.prepare(lanes)?;
                let lanes = lanes.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                let mut stand = FleetStand::new(rules.heartbeat, movers, &lanes.collect::<Result<Vec<_>, _>>()?);
                if nodes::exist(connection)? {
                    stand.nodes = debts(connection)?;
                }
                stand.links = links::stand(connection)?;
                stand.backlog = Counting { connection, not_ignored, look }.count(&stand)?;
                Ok((stand, rules.heartbeat))
            };
            told().map_err(|error| trouble(database, error))
        })
        .await?;
    let beats = async || {
        calls
            .run_with(|handle, database| {
                let movers = movers(handle.current(database)?).map_err(|error| trouble(database, error))?;
                Ok(movers.into_iter().map(|mover| (mover.mover, mover.beat)).collect::<HashMap<_, _>>())
            })
            .await
    };
    stand.watch(heartbeat, beats).await?;
    Ok(stand)
}

fn movers(connection: &Connection) -> Result<Vec<MoverStand>, Error> {
    let mut movers = connection.prepare_cached("SELECT mover, told, beat FROM fleet_mover")?;
    let read = movers.query_map([], |row| {
        Ok(MoverStand { mover: row.get(0)?, told: row.get(1)?, beat: row.get(2)?, ..MoverStand::default() })
    });
    read?.collect()
}

/// What each node owes, and what it failed at.
fn debts(connection: &Connection) -> Result<Vec<NodeDebt>, Error> {
    let mut known = connection.prepare("SELECT DISTINCT node FROM fleet_node WHERE table_name = ? ORDER BY node")?;
    let known = known.query_map([FILES], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    known.into_iter().map(|node| debt(connection, node)).collect()
}

fn debt(connection: &Connection, node: String) -> Result<NodeDebt, Error> {
    let count = |table: &str, what: &str| {
        let query = format!(
            "SELECT COUNT(*), SUM(w) FROM (SELECT {what} AS w FROM {table} WHERE table_name = ? AND node = ? LIMIT ?)"
        );
        connection.prepare_cached(&query)?.query_row(params![FILES, node, DEBTS_MOST as i64], |row| {
            Ok([row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?.unwrap_or(0)].map(i64::unsigned_abs))
        })
    };
    let [mut owed, lacking] = count("fleet_owed", "lacking <> 0")?;
    let [troubles, _] = count("fleet_trouble", "0")?;
    let mut at_least = owed.max(troubles) >= DEBTS_MOST;
    if let Some(from) = nodes::fed_from(connection, &node)? {
        let [seen, lacks] = relays::lacked(connection, &node, &from)?;
        (owed, at_least) = (lacks, seen >= DEBTS_MOST);
    }
    Ok(NodeDebt { node, owed, lacking, troubles, at_least })
}

/// Counts what waits, in short looks for as long as there is time.
struct Counting<'a> {
    connection: &'a Connection,
    not_ignored: &'static str,
    look: FleetLook,
}

impl Counting<'_> {
    fn count(&self, stand: &FleetStand) -> Result<Vec<TargetBacklog>, Error> {
        let (began, mut counted, mut complete) = (Instant::now(), BacklogCount::default(), true);
        let in_time = || began.elapsed() < self.look.limit;
        if has(self.connection, INDEX_UNCOPIED)? {
            // Past all that is copied; of those that the fleet has lanes of.
            let mut archives: Vec<&str> = stand.lanes.iter().map(|lanes| lanes.target.as_str()).collect();
            archives.dedup();
            for archive in archives {
                let mut after = i64::MIN;
                while let Some(last) = reach_past_copied(self.connection, archive, after)? {
                    if after > i64::MIN && !in_time() {
                        complete = false;
                        break;
                    }
                    self.look([after, last], Some(archive), &mut counted)?;
                    after = last;
                }
            }
        } else {
            let mut below = i64::MAX;
            loop {
                let top = format!("SELECT MAX(id) FROM {FILES} WHERE id < ?");
                let top: Option<i64> = self.connection.prepare_cached(&top)?.query_row([below], |row| row.get(0))?;
                let Some(top) = top else { break };
                if below < i64::MAX && !in_time() {
                    complete = false;
                    break;
                }
                below = top.saturating_sub(LOOK - 1);
                self.look([below - 1, top], None, &mut counted)?;
            }
        }
        let mut known = Vec::new();
        if nodes::exist(self.connection)? {
            let query = "SELECT target, node FROM fleet_node WHERE table_name = ? ORDER BY target, node";
            let mut query = self.connection.prepare(query)?;
            let all = query.query_map([FILES], |row| Ok((row.get(0)?, row.get(1)?)))?;
            for of in all.collect::<Result<Vec<(String, String)>, _>>()? {
                // What waits for a relayed one is done already.
                if nodes::fed_from(self.connection, &of.1)?.is_none() {
                    known.push(of);
                }
            }
        }
        Ok(counted.done(&known, !complete))
    }

    /// Rows above the first id and up to the second one.
    fn look(&self, [after, last]: [i64; 2], of: Option<&str>, counted: &mut BacklogCount) -> Result<(), Error> {
        let (by, one) = match of {
            Some(_) => (format!("INDEXED BY {INDEX_UNCOPIED}"), "AND archive_name = ?4"),
            None => (String::new(), "AND ?4 IS NULL"),
        };
        let waiting = format!(
            "id > ?1 AND id <= ?2 {one} AND removed IS NULL {} AND {UNCOPIED} AND archive_name IS NOT NULL",
            self.not_ignored
        );
        let query = format!(
            "SELECT CAST(archive_name AS TEXT), COUNT(CASE WHEN failed_copy_attempts < ?3 THEN 1 END), \
             COUNT(CASE WHEN failed_copy_attempts >= ?3 THEN 1 END) FROM {FILES} {by} WHERE {waiting} GROUP BY 1"
        );
        let values = params![after, last, self.look.max_attempts, of];
        let mut statement = self.connection.prepare_cached(&query)?;
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            let count = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
            counted.add(row.get(0)?, [count(1)?, count(2)?]);
        }
        let query = format!(
            "SELECT CAST(archive_name AS TEXT), node, COUNT(*) FROM {FILES} {by} CROSS JOIN fleet_proof \
             ON table_name = '{FILES}' AND row_id = id AND lower(hex(sum)) = lower(local_md5sum) \
             WHERE {waiting} AND failed_copy_attempts < ?3 GROUP BY 1, 2"
        );
        let mut statement = self.connection.prepare_cached(&query)?;
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            counted.add_proven(row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs());
        }
        Ok(())
    }
}
