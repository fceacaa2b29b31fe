//! Sessions and lanes in SQLite, between processes of one host. The connection is the mover's own, so that no long look at the
//! table holds up a heartbeat.

use super::handle::OpenFor;
use super::handle::connect;
use super::table::FILES;
use super::trouble::{in_time, on_own_thread, trouble};
use super::walk::FileCalls;
use super::{links, nodes};
use crate::catalog::fleet::{
    FLEET_SETTINGS, FLEET_TABLES, FarLink, FleetExtent, FleetLane, FleetRules, FleetTables, LinkTurn, Muster,
    MusteredMover, NODE, SCHEMA, SCHEMA_OF_NODES, Serves, TurnTaker, fnv, told,
};
use crate::catalog::{CatalogError, Created, Database, Hold, Looked, Outcome, Pending, Settled, StorageNode};
use rusqlite::{Connection, Error, Transaction, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::path::Path;

const CREATE: [&str; 5] = [
    "CREATE TABLE fleet_setting (name VARCHAR NOT NULL PRIMARY KEY, value VARCHAR NOT NULL) WITHOUT ROWID",
    "CREATE TABLE fleet_mover (mover VARCHAR NOT NULL PRIMARY KEY, site VARCHAR NOT NULL, beat INTEGER NOT NULL, told VARCHAR) WITHOUT ROWID",
    "CREATE TABLE fleet_target (mover VARCHAR NOT NULL, table_name VARCHAR NOT NULL, target VARCHAR NOT NULL,
     PRIMARY KEY (mover, table_name, target)) WITHOUT ROWID",
    "CREATE TABLE fleet_lane (table_name VARCHAR NOT NULL, target VARCHAR NOT NULL, lane INTEGER NOT NULL, holder VARCHAR,
     gen INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (table_name, target, lane)) WITHOUT ROWID",
    "CREATE TABLE fleet_proof (table_name VARCHAR NOT NULL, row_id INTEGER NOT NULL, node VARCHAR NOT NULL, mover VARCHAR NOT NULL,
     gen INTEGER NOT NULL, path VARCHAR NOT NULL, sum BLOB NOT NULL, at FLOAT NOT NULL, PRIMARY KEY (table_name, row_id, node)) WITHOUT ROWID",
];

/// Whose lanes are meant.
struct FleetRows {
    table: String,
    archive: String,
}

/// The tables, as the mover's own connection reaches them.
pub(super) struct SqliteFleet {
    calls: FileCalls,
    archive: String,
    /// By what the lanes are known: those of each storage node are its own.
    rows: String,
    node: Option<StorageNode>,
    rules: FleetRules,
}

/// Whether there are tables of a fleet, and what they say.
pub(super) fn find(connection: &Connection) -> Result<Option<Result<FleetRules, String>>, Error> {
    let mut there = connection.prepare("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?")?;
    let mut missing = Vec::new();
    for name in FLEET_TABLES {
        if there.query_row([name], |row| row.get::<_, i64>(0))? == 0 {
            missing.push(name);
        }
    }
    if missing.len() == FLEET_TABLES.len() {
        return Ok(None);
    }
    if !missing.is_empty() {
        return Ok(Some(Err(format!("table {} is not there; run init-db --fleet", missing.join(", ")))));
    }
    let mut settings = connection.prepare("SELECT name, value FROM fleet_setting")?;
    let settings = settings.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Some(FleetRules::read(&settings.collect::<Result<BTreeMap<_, _>, _>>()?)))
}

/// Creates the tables where they are absent.
pub(super) async fn init(path: &Path, extent: FleetExtent) -> Result<Vec<Created>, CatalogError> {
    let file = path.to_owned();
    let database = Database::Sqlite(path.to_owned()).to_string();
    let creating = on_own_thread(&database, move |database| {
        let mut connection = connect(&file, database, OpenFor::Use)?;
        create(&mut connection, extent).map_err(|error| trouble(database, error))
    });
    in_time(&database, creating).await
}

fn create(connection: &mut Connection, extent: FleetExtent) -> Result<Vec<Created>, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut created = Vec::new();
    for (name, statement) in FLEET_TABLES.into_iter().zip(CREATE) {
        let there = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?";
        let new = transaction.query_row(there, [name], |row| row.get::<_, i64>(0))? == 0;
        if new {
            transaction.execute_batch(statement)?;
        }
        created.push(Created { table: name.to_owned(), new });
    }
    for (name, value) in FLEET_SETTINGS {
        transaction.execute("INSERT OR IGNORE INTO fleet_setting (name, value) VALUES (?, ?)", [name, value])?;
    }
    let made = links::create(&transaction)?.into_iter();
    created.extend(made.map(|(table, new)| Created { table: table.to_owned(), new }));
    if extent == FleetExtent::Nodes {
        let made = nodes::create(&transaction)?.into_iter();
        created.extend(made.map(|(table, new)| Created { table: table.to_owned(), new }));
        let newer = "UPDATE fleet_setting SET value = ? WHERE name = 'schema' AND value = ?";
        transaction.execute(newer, [SCHEMA_OF_NODES, SCHEMA])?;
    }
    transaction.commit()?;
    Ok(created)
}

/// Says within a transaction that the mover lives; false where it is none any more.
pub(super) fn fence(transaction: &Connection, mover: &str) -> Result<bool, Error> {
    Ok(transaction.prepare_cached("UPDATE fleet_mover SET beat = beat + 1 WHERE mover = ?")?.execute([mover])? > 0)
}

/// Keeps the proof of a row that this transaction has made a copied one. One that is there already is of a row that somebody
/// has put back since, and void.
pub(super) fn prove(transaction: &Connection, mover: &str, row: &Settled, now: f64) -> Result<(), Error> {
    let Outcome::Copied { path, md5 } = &row.outcome else { return Ok(()) };
    let insert = "INSERT OR REPLACE INTO fleet_proof (table_name, row_id, node, mover, gen, path, sum, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let values = params![FILES, row.id.0, NODE, mover, row.hold.taking, path, &md5[..], now];
    transaction.prepare_cached(insert)?.execute(values).map(drop)
}

/// Leaves of a look the rows that are ours, with their holds. All rows of one place in the archive are in one lane, since a
/// place ends with the name of the file: so no two movers ever put different bytes under one name.
pub(super) fn ours(looked: Looked, held: &BTreeMap<u32, i64>, lanes: u32) -> Looked {
    let of_lane = |row: Pending| {
        let lane = lane(file_name(&row), lanes);
        held.get(&lane).map(|taking| row.held_by(Hold { lane, taking: *taking }))
    };
    Looked { rows: looked.rows.into_iter().filter_map(of_lane).collect(), ..looked }
}

/// Leaves of a look the rows that go to this storage node.
pub(super) fn of_node(looked: Looked, node: &StorageNode) -> Looked {
    Looked { rows: looked.rows.into_iter().filter(|row| node.takes(file_name(row))).collect(), ..looked }
}

/// The last part of a row's place.
fn file_name(row: &Pending) -> &str {
    let place = match row {
        Pending::Ready(record) => match &record.naming {
            crate::catalog::Naming::Given(path) => path.as_str(),
            _ => "",
        },
        Pending::Unusable { .. } => "",
    };
    place.rsplit('/').next().unwrap_or_default()
}

/// The lane of a row by the name of its file.
fn lane(name: &str, lanes: u32) -> u32 {
    ((fnv(name.bytes()) >> 32) % u64::from(lanes.max(1))) as u32
}

impl SqliteFleet {
    pub(super) fn new(calls: FileCalls, archive: &str, node: Option<StorageNode>, rules: FleetRules) -> Self {
        let rows = node.as_ref().map_or_else(|| FILES.to_owned(), |node| node.rows_of(FILES));
        Self { calls, archive: archive.to_owned(), rows, node, rules }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &FleetRows) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let rows = FleetRows { table: self.rows.clone(), archive: self.archive.clone() };
        self.calls
            .run_with(move |handle, database| {
                let connection = handle.current(database)?;
                let written = || {
                    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                    let value = work(&transaction, &rows)?;
                    transaction.commit()?;
                    Ok(value)
                };
                written().map_err(|error| trouble(database, error))
            })
            .await
    }

    /// A transaction that begins with the fence; false, and nothing done, where the mover is none any more.
    async fn fenced(
        &self,
        mover: &str,
        work: impl FnOnce(&Transaction<'_>, &FleetRows) -> Result<(), Error> + Send + 'static,
    ) -> Result<bool, CatalogError> {
        let mover = mover.to_owned();
        self.run(move |transaction, rows| match fence(transaction, &mover)? {
            true => work(transaction, rows).map(|()| true),
            false => Ok(false),
        })
        .await
    }
}

impl FleetTables for SqliteFleet {
    async fn join(&self, mover: &str) -> Result<(), CatalogError> {
        let (mover, lanes, node) = (mover.to_owned(), self.rules.lanes, self.node.clone());
        let refused = self.run(move |transaction, rows| {
            if nodes::exist(transaction)?
                && let Some(why) = nodes::enter(transaction, &rows.archive, node.as_ref())?
            {
                return Ok(Some(why));
            }
            let insert = "INSERT OR IGNORE INTO fleet_mover (mover, site, beat, told) VALUES (?, '', 0, ?)";
            transaction.execute(insert, [&mover, &told()])?;
            serve(transaction, &mover, rows)?;
            for lane in 0..lanes {
                let insert = "INSERT OR IGNORE INTO fleet_lane (table_name, target, lane) VALUES (?, ?, ?)";
                transaction.execute(insert, params![rows.table, rows.archive, lane])?;
            }
            Ok(None)
        });
        refused.await?.map_or(Ok(()), |why| Err(CatalogError::Setup(why)))
    }

    async fn beat(&self, mover: &str) -> Result<bool, CatalogError> {
        self.fenced(mover, |_, _| Ok(())).await
    }

    async fn muster(&self) -> Result<Muster, CatalogError> {
        let rows = FleetRows { table: self.rows.clone(), archive: self.archive.clone() };
        let lanes = self.rules.lanes;
        self.calls
            .run_with(move |handle, database| {
                muster(handle.current(database)?, &rows, lanes).map_err(|error| trouble(database, error))
            })
            .await
    }

    async fn evict(&self, mover: &str, dead: &str, beat: i64) -> Result<bool, CatalogError> {
        let (mover, dead) = (mover.to_owned(), dead.to_owned());
        self.run(move |transaction, _| {
            let delete = "DELETE FROM fleet_mover WHERE mover = ? AND beat = ?";
            if !fence(transaction, &mover)? || transaction.execute(delete, params![dead, beat])? == 0 {
                return Ok(false);
            }
            free(transaction, &dead)?;
            Ok(true)
        })
        .await
    }

    async fn sweep(&self, mover: &str) -> Result<bool, CatalogError> {
        self.fenced(mover, |transaction, _| {
            transaction.execute_batch(
                "UPDATE fleet_lane SET holder = NULL WHERE holder NOT IN (SELECT mover FROM fleet_mover);
                 DELETE FROM fleet_target WHERE mover NOT IN (SELECT mover FROM fleet_mover)",
            )?;
            match links::exist(transaction)? {
                true => transaction
                    .execute_batch("DELETE FROM fleet_share WHERE mover NOT IN (SELECT mover FROM fleet_mover)"),
                false => Ok(()),
            }
        })
        .await
    }

    async fn take(&self, mover: &str, lanes: &[u32]) -> Result<bool, CatalogError> {
        let (holder, lanes) = (mover.to_owned(), lanes.to_vec());
        self.fenced(mover, move |transaction, rows| {
            let take = "UPDATE fleet_lane SET holder = ?, gen = gen + 1 \
                        WHERE table_name = ? AND target = ? AND lane = ? AND holder IS NULL";
            for lane in lanes {
                transaction.execute(take, params![holder, rows.table, rows.archive, lane])?;
            }
            Ok(())
        })
        .await
    }

    async fn give(&self, mover: &str, lanes: &[u32]) -> Result<bool, CatalogError> {
        let (holder, lanes) = (mover.to_owned(), lanes.to_vec());
        self.fenced(mover, move |transaction, rows| {
            let give =
                "UPDATE fleet_lane SET holder = NULL WHERE holder = ? AND table_name = ? AND target = ? AND lane = ?";
            for lane in lanes {
                transaction.execute(give, params![holder, rows.table, rows.archive, lane])?;
            }
            Ok(())
        })
        .await
    }

    async fn serve(&self, mover: &str, serves: Serves) -> Result<bool, CatalogError> {
        let who = mover.to_owned();
        self.fenced(mover, move |transaction, rows| match serves {
            Serves::Lanes => serve(transaction, &who, rows),
            Serves::Nothing => transaction.execute("DELETE FROM fleet_target WHERE mover = ?", [&who]).map(drop),
        })
        .await
    }

    async fn leave(&self, mover: &str) -> Result<(), CatalogError> {
        let who = mover.to_owned();
        let left = self.fenced(mover, move |transaction, _| {
            free(transaction, &who)?;
            if links::exist(transaction)? {
                transaction.execute("DELETE FROM fleet_share WHERE mover = ?", [&who])?;
            }
            transaction.execute("DELETE FROM fleet_mover WHERE mover = ?", [&who]).map(drop)
        });
        let left = left.await.map(drop);
        let closing = self.calls.run_with(|handle, _| {
            handle.close();
            Ok(())
        });
        left.and(closing.await)
    }

    async fn link_turn(&self, link: &FarLink, taker: TurnTaker) -> Result<Option<LinkTurn>, CatalogError> {
        let link = link.clone();
        self.run(move |transaction, _| match fence(transaction, &taker.mover)? {
            true => links::turn(transaction, &link, &taker).map(Some),
            false => Ok(None),
        })
        .await
    }

    fn name(&self) -> String {
        format!("table {}", self.rows)
    }

    fn rows_of(&self, _lane: u32) -> (String, String) {
        (self.rows.clone(), self.archive.clone())
    }
}

fn serve(transaction: &Connection, mover: &str, rows: &FleetRows) -> Result<(), Error> {
    let insert = "INSERT OR IGNORE INTO fleet_target (mover, table_name, target) VALUES (?, ?, ?)";
    transaction.execute(insert, [mover, &rows.table, &rows.archive]).map(drop)
}

/// Frees what is a mover's.
fn free(transaction: &Connection, mover: &str) -> Result<(), Error> {
    transaction.execute("UPDATE fleet_lane SET holder = NULL WHERE holder = ?", [mover])?;
    transaction.execute("DELETE FROM fleet_target WHERE mover = ?", [mover]).map(drop)
}

fn muster(connection: &mut Connection, rows: &FleetRows, lanes: u32) -> Result<Muster, Error> {
    let transaction = connection.transaction()?;
    let mut movers = transaction.prepare_cached("SELECT mover, beat, told FROM fleet_mover")?;
    let movers =
        movers.query_map([], |row| Ok((row.get(0)?, MusteredMover { beat: row.get(1)?, told: row.get(2)? })))?;
    let movers = movers.collect::<Result<_, _>>()?;
    let servers =
        "SELECT COUNT(*) FROM fleet_target JOIN fleet_mover USING (mover) WHERE table_name = ? AND target = ?";
    let servers = transaction.prepare_cached(servers)?.query_row([&rows.table, &rows.archive], |row| row.get(0))?;
    let query = "SELECT lane, holder, gen FROM fleet_lane WHERE table_name = ? AND target = ? AND lane < ?";
    let mut query = transaction.prepare_cached(query)?;
    let lanes = query.query_map(params![rows.table, rows.archive, lanes], |row| {
        Ok(FleetLane { lane: row.get(0)?, holder: row.get(1)?, taking: row.get(2)? })
    })?;
    Ok(Muster { movers, servers: [(0, servers)].into(), lanes: lanes.collect::<Result<_, _>>()? })
}
