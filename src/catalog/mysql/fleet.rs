//! Sessions and lanes in MySQL, on one connection for all that a mover writes: two of them, on two nodes of a cluster, would
//! fail each other's certification on the mover's row.

use super::connections::{Connections, MadeConnection, QUERY_LIMIT, is_gone, is_not_ready, within};
use super::row::{integer, text};
use super::table::Table;
use super::{COMMAND_DENIED, is_lost_race, links, nodes};
use crate::catalog::fleet::{
    FLEET_SETTINGS, FLEET_TABLES, FarLink, FleetExtent, FleetLane, FleetRules, FleetTables, LinkTurn, Muster,
    MusteredMover, SCHEMA, SCHEMA_OF_NODES, Serves, TurnTaker, told,
};
use crate::catalog::{CatalogError, Created, Database, DatabaseServer, Hold, StorageNode};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Row, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How often a transaction is tried that lost against another one: a cluster refuses them at any statement and at COMMIT.
const TRIES: u32 = 60;
/// By how much the longest pause before the next try grows each time.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a lost connection is replaced within a call.
const CONNECTIONS: u32 = 3;

/// Of one transaction's first statement: whether the mover still is one.
const FENCE: &str = "UPDATE fleet_mover SET beat=beat+1 WHERE mover=?";

const CREATE: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS fleet_setting (name VARCHAR(32) NOT NULL PRIMARY KEY, value VARCHAR(255) NOT NULL) ENGINE=InnoDB CHARACTER SET utf8mb4",
    "CREATE TABLE IF NOT EXISTS fleet_mover (mover VARCHAR(64) NOT NULL PRIMARY KEY, site VARCHAR(32) NOT NULL, beat BIGINT NOT NULL, told VARCHAR(255) NULL) ENGINE=InnoDB CHARACTER SET utf8mb4",
    "CREATE TABLE IF NOT EXISTS fleet_target (mover VARCHAR(64) NOT NULL, table_name VARCHAR(64) NOT NULL, target VARCHAR(64) NOT NULL, PRIMARY KEY (mover, table_name, target)) ENGINE=InnoDB CHARACTER SET utf8mb4",
    "CREATE TABLE IF NOT EXISTS fleet_lane (table_name VARCHAR(64) NOT NULL, target VARCHAR(64) NOT NULL, lane SMALLINT NOT NULL, holder VARCHAR(64) NULL, gen BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (table_name, target, lane), KEY (holder)) ENGINE=InnoDB CHARACTER SET utf8mb4",
    "CREATE TABLE IF NOT EXISTS fleet_proof (table_name VARCHAR(64) NOT NULL, row_id BIGINT NOT NULL, node VARCHAR(32) NOT NULL, mover VARCHAR(64) NOT NULL, gen BIGINT NOT NULL, path VARCHAR(4096) NOT NULL, sum BINARY(16) NOT NULL, at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), PRIMARY KEY (table_name, row_id, node)) ENGINE=InnoDB CHARACTER SET utf8mb4",
];

/// The tables, and the connection on which a mover writes.
pub(super) struct MySqlFleet {
    connections: Arc<Connections>,
    writer: Mutex<FleetWriter>,
    /// By what the lanes are known: the table, and those of each storage node are its own.
    table: String,
    files: String,
    node: Option<StorageNode>,
    targets: Vec<String>,
    rules: FleetRules,
    /// There are tables for links.
    links: bool,
}

/// The connection on which a mover writes, while there is one, and by which address the last one was made.
#[derive(Default)]
struct FleetWriter {
    conn: Option<Conn>,
    at: usize,
}

/// Whether there are tables of a fleet, and what they say.
pub(super) async fn find(conn: &mut Conn) -> Result<Option<Result<FleetRules, String>>, Error> {
    let marks = vec!["?"; FLEET_TABLES.len()].join(", ");
    let query = format!(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN ({marks})"
    );
    let values = FLEET_TABLES.iter().map(|name| Value::from(*name)).collect();
    let there: Vec<Row> = conn.exec(query, Params::Positional(values)).await?;
    let there: Vec<String> = there.iter().filter_map(|row| text(row.as_ref(0)).ok().flatten()).collect();
    let missing: Vec<&str> =
        FLEET_TABLES.into_iter().filter(|name| !there.iter().any(|there| there.eq_ignore_ascii_case(name))).collect();
    if missing.len() == FLEET_TABLES.len() {
        return Ok(None);
    }
    if !missing.is_empty() {
        return Ok(Some(Err(format!(
            "table {} is not there, or the user may not see it, and others of the fleet are; run init-db --fleet, or grant \
             SELECT, INSERT, UPDATE, DELETE on all of them",
            missing.join(", ")
        ))));
    }
    let rows: Vec<Row> = conn.query("SELECT name, value FROM fleet_setting").await?;
    let word = |row: &Row, index| text(row.as_ref(index)).ok().flatten().unwrap_or_default();
    let settings: BTreeMap<_, _> = rows.iter().map(|row| (word(row, 0), word(row, 1))).collect();
    Ok(Some(FleetRules::read(&settings)))
}

/// Why several archivers cannot share the table, if they cannot.
pub(super) async fn unfit(conn: &mut Conn, table: &str) -> Result<Option<String>, Error> {
    let engine = "SELECT engine FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
    let row: Option<Row> = conn.exec_first(engine, (table,)).await?;
    let engine = row.and_then(|row| text(row.as_ref(0)).ok().flatten()).unwrap_or_default();
    if !engine.eq_ignore_ascii_case("InnoDB") {
        return Ok(Some(format!(
            "table {table} has the engine {engine}, which knows no transactions, and a fleet needs them; have its owner say \
             ALTER TABLE {table} ENGINE=InnoDB"
        )));
    }
    let row: Option<Row> = conn.query_first("SELECT @@global.log_bin, @@global.binlog_format").await?;
    let logs = row.as_ref().and_then(|row| integer(row.as_ref(0)).ok().flatten()).unwrap_or(0) != 0;
    let format = row.and_then(|row| text(row.as_ref(1)).ok().flatten()).unwrap_or_default();
    if logs && format.eq_ignore_ascii_case("STATEMENT") {
        return Ok(Some(
            "the server has binlog_format=STATEMENT, with which it refuses every UPDATE under READ COMMITTED, and any other \
             isolation would hold up the producer; set binlog_format=ROW or MIXED"
                .to_owned(),
        ));
    }
    Ok(None)
}

/// Creates the tables where they are absent.
pub(super) async fn init(server: &DatabaseServer, extent: FleetExtent) -> Result<Vec<Created>, CatalogError> {
    let connections = Connections::new(server);
    let mut conn = connections.alone().await.map_err(|error| connections.refusal(error))?.conn;
    let making = async {
        let Some(table) = super::table::find(&mut conn, &super::DEFAULT_TABLES).await? else {
            return Ok(Err("there is no table of files".to_owned()));
        };
        if let Some(why) = unfit(&mut conn, &table.name).await? {
            return Ok(Err(why));
        }
        // An index of many proofs takes longer than a call is waited for, so nothing limits it.
        conn.query_drop(super::indexes::UNLIMITED).await?;
        match create(&mut conn, extent).await {
            Err(Error::Server(error)) if COMMAND_DENIED.contains(&error.code) => {
                Ok(Err(format!("{}; grant CREATE on it to user {}", error.message, server.user)))
            }
            made => made.map(Ok),
        }
    };
    let made = making.await.map_err(|error| connections.unavailable(error))?;
    let _ = timeout(Duration::from_secs(1), conn.disconnect()).await;
    made.map_err(|why| CatalogError::Setup(format!("Database {}: {why}", Database::Mysql(server.clone()))))
}

async fn create(conn: &mut Conn, extent: FleetExtent) -> Result<Vec<Created>, Error> {
    let mut created = Vec::new();
    for (name, statement) in FLEET_TABLES.into_iter().zip(CREATE) {
        let there = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
        let new = conn.exec_first::<Row, _, _>(there, (name,)).await?.is_none();
        if new {
            conn.query_drop(statement).await?;
        }
        created.push(Created { table: name.to_owned(), new });
    }
    for setting in FLEET_SETTINGS {
        conn.exec_drop("INSERT IGNORE INTO fleet_setting (name, value) VALUES (?, ?)", setting).await?;
    }
    let made = links::create(conn).await?.into_iter();
    created.extend(made.map(|(table, new)| Created { table: table.to_owned(), new }));
    if extent == FleetExtent::Nodes {
        let made = nodes::create(conn).await?.into_iter();
        created.extend(made.map(|(table, new)| Created { table: table.to_owned(), new }));
        let newer = "UPDATE fleet_setting SET value=? WHERE name='schema' AND value=?";
        conn.exec_drop(newer, (SCHEMA_OF_NODES, SCHEMA)).await?;
    }
    Ok(created)
}

impl MySqlFleet {
    pub(super) fn new(
        connections: Arc<Connections>,
        (table, node, links): (&Table, Option<StorageNode>, bool),
        targets: &[String],
        rules: FleetRules,
    ) -> Self {
        let (targets, files) = (targets.to_vec(), table.name.clone());
        let table = node.as_ref().map_or_else(|| files.clone(), |node| node.rows_of(&files));
        Self { connections, writer: Mutex::default(), table, files, node, targets, rules, links }
    }

    /// Has something done on the connection for writing, once more where it lost a race or the connection: each of our
    /// transactions may be repeated.
    pub(super) async fn write<T, F>(&self, work: impl Fn(Conn) -> F) -> Result<T, CatalogError>
    where
        F: Future<Output = (Conn, Result<T, Error>)>,
    {
        let mut writer = self.writer.lock().await;
        let written = within(QUERY_LIMIT, "answer", self.try_to_write(&mut writer, work)).await;
        written.map_err(|error| {
            // Nothing says in which state it is.
            writer.conn = None;
            self.connections.move_on(writer.at, &error);
            self.connections.unavailable(error)
        })
    }

    async fn try_to_write<T, F>(&self, writer: &mut FleetWriter, work: impl Fn(Conn) -> F) -> Result<T, Error>
    where
        F: Future<Output = (Conn, Result<T, Error>)>,
    {
        let (mut tries, mut lost) = (1, 0);
        loop {
            let conn = match writer.conn.take() {
                Some(conn) => conn,
                None => self.log_in(&mut writer.at).await?,
            };
            let (mut conn, done) = work(conn).await;
            match done {
                Ok(value) => {
                    writer.conn = Some(conn);
                    return Ok(value);
                }
                Err(Error::Server(error)) if tries < TRIES && is_lost_race(error.code) => {
                    tracing::debug!(%error, tries, "Transaction lost; trying again");
                    // Now, and not after the pause: rows written before may still be locked.
                    if conn.query_drop("ROLLBACK").await.is_ok() {
                        writer.conn = Some(conn);
                    }
                    tokio::time::sleep((PAUSE * tries).mul_f64(fastrand::f64())).await;
                    tries += 1;
                }
                Err(error) if lost < CONNECTIONS && (is_gone(&error) || is_not_ready(&error)) => {
                    tracing::debug!(%error, "Connection lost; trying again");
                    lost += 1;
                    tokio::time::sleep((PAUSE * 5 * lost).mul_f64(fastrand::f64())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn log_in(&self, at: &mut usize) -> Result<Conn, Error> {
        let MadeConnection { mut conn, at: by } = self.connections.alone().await?;
        *at = by;
        // A mover that stands still in the middle of a transaction must not hold its locks for hours.
        let seconds = self.rules.lease().as_secs().max(1);
        conn.query_drop(format!("SET SESSION wait_timeout={seconds}")).await?;
        Ok(conn)
    }

    /// Says goodbye on the connection for writing.
    async fn close(&self) {
        if let Some(conn) = self.writer.lock().await.conn.take() {
            let _ = timeout(Duration::from_secs(1), conn.disconnect()).await;
        }
    }

    /// One fenced transaction of these statements; false where the mover is none any more.
    async fn fenced(&self, mover: &str, statements: Vec<(String, Vec<Value>)>) -> Result<bool, CatalogError> {
        self.write(|conn| {
            on(conn, async |conn| {
                conn.query_drop("BEGIN").await?;
                if !fence(conn, mover).await? {
                    conn.query_drop("ROLLBACK").await?;
                    return Ok(false);
                }
                for (statement, values) in &statements {
                    conn.exec_drop(statement, Params::Positional(values.clone())).await?;
                }
                conn.query_drop("COMMIT").await?;
                Ok(true)
            })
        })
        .await
    }

    /// Which of our targets that is, counted from 0, as the table compares them.
    fn which(&self, column: &str) -> String {
        which(column, self.targets.len())
    }

    fn values(&self) -> impl Iterator<Item = Value> {
        self.targets.iter().map(Value::from)
    }

    /// A statement for each target, with the numbers of its lanes.
    fn of_lanes(&self, lanes: &[u32], first: Option<&str>, set: &str, more: &str) -> Vec<(String, Vec<Value>)> {
        let mut by_target: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for lane in lanes {
            by_target.entry(lane / self.rules.lanes).or_default().push((lane % self.rules.lanes).to_string());
        }
        let statement = |(target, lanes): (u32, Vec<String>)| {
            let target = self.targets.get(target as usize)?;
            let update = format!(
                "UPDATE fleet_lane SET {set} WHERE table_name=? AND target=? AND lane IN ({}) AND {more}",
                lanes.join(", ")
            );
            let values = first.map(Value::from).into_iter().chain([Value::from(&self.table), Value::from(target)]);
            Some((update, values.collect()))
        };
        by_target.into_iter().filter_map(statement).collect()
    }

    fn serving(&self, mover: &str) -> (String, Vec<Value>) {
        let rows = vec!["(?, ?, ?)"; self.targets.len()].join(", ");
        let values = self.targets.iter().flat_map(|target| [mover.into(), Value::from(&self.table), target.into()]);
        (format!("INSERT IGNORE INTO fleet_target (mover, table_name, target) VALUES {rows}"), values.collect())
    }
}

/// `CASE` that gives the place of a target among so many given ones.
pub(super) fn which(column: &str, targets: usize) -> String {
    let each: String = (0..targets).map(|number| format!(" WHEN {column}=? THEN {number}")).collect();
    format!("CASE{each} END")
}

/// Gives the connection back with what was done on it.
pub(super) async fn on<T>(
    mut conn: Conn,
    work: impl AsyncFnOnce(&mut Conn) -> Result<T, Error>,
) -> (Conn, Result<T, Error>) {
    let done = work(&mut conn).await;
    (conn, done)
}

/// Says that the mover lives; false where it is none any more.
pub(super) async fn fence(conn: &mut impl Queryable, mover: &str) -> Result<bool, Error> {
    let result = conn.exec_iter(FENCE, (mover,)).await?;
    let found = result.affected_rows() > 0;
    result.drop_result().await?;
    Ok(found)
}

impl FleetTables for MySqlFleet {
    async fn join(&self, mover: &str) -> Result<(), CatalogError> {
        let lanes = (0..self.rules.lanes).map(|lane| lane.to_string()).collect::<Vec<_>>();
        let (serving, serving_values) = self.serving(mover);
        let joined = self.write(|conn| {
            on(conn, async |conn| {
                if nodes::exist(conn).await?
                    && let Some(why) = nodes::enter(conn, &self.files, &self.targets, self.node.as_ref()).await?
                {
                    return Ok(Some(why));
                }
                // By itself, before there is anything of ours in a transaction: most find them there.
                for target in &self.targets {
                    let there = "SELECT COUNT(*) FROM fleet_lane WHERE table_name=? AND target=?";
                    let there: Option<i64> = conn.exec_first(there, (&self.table, target)).await?;
                    if there.unwrap_or(0) < i64::from(self.rules.lanes) {
                        let rows = lanes.iter().map(|lane| format!("(?, ?, {lane})")).collect::<Vec<_>>().join(", ");
                        let insert = format!("INSERT IGNORE INTO fleet_lane (table_name, target, lane) VALUES {rows}");
                        let values =
                            lanes.iter().flat_map(|_| [Value::from(&self.table), Value::from(target)]).collect();
                        conn.exec_drop(insert, Params::Positional(values)).await?;
                    }
                }
                conn.query_drop("BEGIN").await?;
                let insert = "INSERT IGNORE INTO fleet_mover (mover, site, beat, told) VALUES (?, '', 0, ?)";
                conn.exec_drop(insert, (mover, told())).await?;
                conn.exec_drop(&serving, Params::Positional(serving_values.clone())).await?;
                conn.query_drop("COMMIT").await?;
                Ok(None)
            })
        });
        joined.await?.map_or(Ok(()), |why| Err(CatalogError::Setup(why)))
    }

    async fn beat(&self, mover: &str) -> Result<bool, CatalogError> {
        self.write(|conn| on(conn, async |conn| fence(conn, mover).await)).await
    }

    async fn muster(&self) -> Result<Muster, CatalogError> {
        let marks = vec!["?"; self.targets.len()].join(", ");
        let lanes = format!(
            "SELECT {}, lane, holder, gen FROM fleet_lane WHERE table_name=? AND target IN ({marks}) AND lane < {}",
            self.which("target"),
            self.rules.lanes
        );
        let servers = format!(
            "SELECT {} AS w, COUNT(DISTINCT t.mover) FROM fleet_target AS t JOIN fleet_mover AS m ON m.mover=t.mover \
             WHERE table_name=? AND target IN ({marks}) GROUP BY w",
            self.which("target")
        );
        let values: Vec<Value> = self.values().chain([Value::from(&self.table)]).chain(self.values()).collect();
        let (movers, lanes, servers) = self
            .write(|conn| {
                on(conn, async |conn| {
                    let movers: Vec<Row> = conn.query("SELECT mover, beat, told FROM fleet_mover").await?;
                    let lanes: Vec<Row> = conn.exec(&lanes, Params::Positional(values.clone())).await?;
                    let servers: Vec<Row> = conn.exec(&servers, Params::Positional(values.clone())).await?;
                    Ok((movers, lanes, servers))
                })
            })
            .await?;
        let number = |row: &Row, index| integer(row.as_ref(index)).ok().flatten();
        let small = |row: &Row, index| number(row, index).and_then(|number| u32::try_from(number).ok());
        let word = |row: &Row, index| text(row.as_ref(index)).ok().flatten();
        let lane = |row: &Row| {
            let lane = small(row, 0)? * self.rules.lanes + small(row, 1)?;
            Some(FleetLane { lane, holder: word(row, 2), taking: number(row, 3)? })
        };
        let mover = |row: &Row| Some((word(row, 0)?, MusteredMover { beat: number(row, 1)?, told: word(row, 2) }));
        Ok(Muster {
            movers: movers.iter().filter_map(mover).collect(),
            servers: servers.iter().filter_map(|row| Some((small(row, 0)?, small(row, 1)?))).collect(),
            lanes: lanes.iter().filter_map(lane).collect(),
        })
    }

    async fn evict(&self, mover: &str, dead: &str, beat: i64) -> Result<bool, CatalogError> {
        self.write(|conn| {
            on(conn, async |conn| {
                conn.query_drop("BEGIN").await?;
                let fenced = fence(conn, mover).await?;
                let delete = "DELETE FROM fleet_mover WHERE mover=? AND beat=?";
                if fenced {
                    conn.exec_drop(delete, (dead, beat)).await?;
                }
                if !fenced || conn.affected_rows() == 0 {
                    conn.query_drop("ROLLBACK").await?;
                    return Ok(false);
                }
                conn.exec_drop("UPDATE fleet_lane SET holder=NULL WHERE holder=?", (dead,)).await?;
                conn.exec_drop("DELETE FROM fleet_target WHERE mover=?", (dead,)).await?;
                conn.query_drop("COMMIT").await?;
                Ok(true)
            })
        })
        .await
    }

    async fn sweep(&self, mover: &str) -> Result<bool, CatalogError> {
        let lanes = "UPDATE fleet_lane AS l LEFT JOIN fleet_mover AS m ON m.mover=l.holder SET l.holder=NULL \
                     WHERE l.holder IS NOT NULL AND m.mover IS NULL";
        let targets =
            "DELETE t FROM fleet_target AS t LEFT JOIN fleet_mover AS m ON m.mover=t.mover WHERE m.mover IS NULL";
        let shares =
            "DELETE s FROM fleet_share AS s LEFT JOIN fleet_mover AS m ON m.mover=s.mover WHERE m.mover IS NULL";
        let of = |statement: &&str| ((*statement).to_owned(), vec![]);
        let all = [lanes, targets].iter().chain(self.links.then_some(&shares)).map(of).collect();
        self.fenced(mover, all).await
    }

    async fn take(&self, mover: &str, lanes: &[u32]) -> Result<bool, CatalogError> {
        self.fenced(mover, self.of_lanes(lanes, Some(mover), "holder=?, gen=gen+1", "holder IS NULL")).await
    }

    async fn give(&self, mover: &str, lanes: &[u32]) -> Result<bool, CatalogError> {
        let mut statements = self.of_lanes(lanes, None, "holder=NULL", "holder=?");
        for (_, values) in &mut statements {
            values.push(mover.into());
        }
        self.fenced(mover, statements).await
    }

    async fn serve(&self, mover: &str, serves: Serves) -> Result<bool, CatalogError> {
        let statement = match serves {
            Serves::Lanes => self.serving(mover),
            Serves::Nothing => ("DELETE FROM fleet_target WHERE mover=?".to_owned(), vec![mover.into()]),
        };
        self.fenced(mover, vec![statement]).await
    }

    async fn leave(&self, mover: &str) -> Result<(), CatalogError> {
        let of = |statement: &str| (statement.to_owned(), vec![Value::from(mover)]);
        let mut statements = vec![
            of("UPDATE fleet_lane SET holder=NULL WHERE holder=?"),
            of("DELETE FROM fleet_target WHERE mover=?"),
            of("DELETE FROM fleet_mover WHERE mover=?"),
        ];
        if self.links {
            statements.push(of("DELETE FROM fleet_share WHERE mover=?"));
        }
        let left = self.fenced(mover, statements).await.map(drop);
        self.close().await;
        left
    }

    async fn link_turn(&self, link: &FarLink, taker: TurnTaker) -> Result<Option<LinkTurn>, CatalogError> {
        let taken = self.write(|conn| {
            on(conn, async |conn| {
                conn.query_drop("BEGIN").await?;
                if !fence(conn, &taker.mover).await? {
                    conn.query_drop("ROLLBACK").await?;
                    return Ok(Ok(None));
                }
                match links::turn(conn, link, &taker).await {
                    Err(Error::Server(error)) if let Some(remedy) = links::remedy(error.code) => {
                        conn.query_drop("ROLLBACK").await?;
                        Ok(Err(self.connections.words(&format!("{}; {remedy}", error.message))))
                    }
                    turn => {
                        let turn = turn?;
                        conn.query_drop("COMMIT").await?;
                        Ok(Ok(Some(turn)))
                    }
                }
            })
        });
        taken.await?.map_err(CatalogError::Setup)
    }

    fn name(&self) -> String {
        format!("table {}", self.table)
    }

    fn rows_of(&self, lane: u32) -> (String, String) {
        let target = self.targets.get((lane / self.rules.lanes) as usize);
        (self.table.clone(), target.cloned().unwrap_or_default())
    }
}

/// Which rows of a look are ours, and by which holds. All rows of one place in the archive are in one lane, since a place has
/// the name of the file: so no two movers ever put different bytes under one name.
pub(super) struct Ours<'a> {
    held: Option<BTreeMap<u32, i64>>,
    lanes: u32,
    targets: &'a [String],
}

/// The lane of a row, by the last part of its file's path, which is in this column.
fn lane(path: &str) -> String {
    format!("CRC32(IFNULL(SUBSTRING_INDEX({path}, '/', -1), ''))")
}

impl<'a> Ours<'a> {
    /// `held`: lanes with their takings; all rows of the targets where there are none.
    pub(super) fn new(held: Option<BTreeMap<u32, i64>>, lanes: u32, targets: &'a [String]) -> Self {
        Self { held, lanes, targets }
    }

    /// Columns behind all others, by which a row's hold is known.
    pub(super) fn columns(&self, path: &str) -> String {
        match &self.held {
            Some(_) => format!(
                ", {} AS fleet_target, {} % {} AS fleet_lane",
                which("instance_id", self.targets.len()),
                lane(path),
                self.lanes
            ),
            None => String::new(),
        }
    }

    pub(super) fn column_values(&self) -> Vec<Value> {
        self.held.iter().flat_map(|_| self.targets).map(Value::from).collect()
    }

    /// The targets of which lanes are ours, with the lanes.
    fn by_target(&self) -> BTreeMap<u32, Vec<u32>> {
        let mut by_target: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for lane in self.held.iter().flat_map(BTreeMap::keys) {
            by_target.entry(lane / self.lanes).or_default().push(lane % self.lanes);
        }
        by_target
    }

    pub(super) fn condition(&self, path: &str) -> String {
        if self.held.is_none() {
            return format!("instance_id IN ({})", vec!["?"; self.targets.len()].join(", "));
        }
        let by_target = self.by_target();
        if by_target.is_empty() {
            return "1=0".to_owned();
        }
        let of_target = |lanes: &Vec<u32>| match lanes.len() == self.lanes as usize {
            true => "instance_id=?".to_owned(),
            false => {
                let lanes: Vec<String> = lanes.iter().map(u32::to_string).collect();
                format!("instance_id=? AND {} % {} IN ({})", lane(path), self.lanes, lanes.join(", "))
            }
        };
        format!("({})", by_target.values().map(of_target).collect::<Vec<_>>().join(" OR "))
    }

    pub(super) fn condition_values(&self) -> Vec<Value> {
        match self.held {
            None => self.targets.iter().map(Value::from).collect(),
            Some(_) => self
                .by_target()
                .keys()
                .filter_map(|target| self.targets.get(*target as usize))
                .map(Value::from)
                .collect(),
        }
    }

    /// By which hold the row is ours.
    pub(super) fn hold(&self, row: &Row) -> Hold {
        let Some(held) = &self.held else { return Hold::default() };
        let small = |index| integer(row.as_ref(index)).ok().flatten().and_then(|number| u32::try_from(number).ok());
        let (Some(target), Some(lane)) = (small(row.len() - 2), small(row.len() - 1)) else { return Hold::default() };
        let lane = target * self.lanes + lane;
        Hold { lane, taking: held.get(&lane).copied().unwrap_or(0) }
    }
}
