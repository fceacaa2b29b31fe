//! The pysmurf tables in MySQL or MariaDB: `pysmurf_files_v1` and its two ancestors.
//! Reads without locks, writes single rows by their key; never alters a table.

mod amend;
mod announced;
mod at_node;
mod claim;
mod connections;
mod earlier;
mod files;
mod fleet;
mod indexes;
mod links;
mod nodes;
mod note;
mod owed;
mod register;
mod relays;
mod row;
mod setup;
mod stand;
mod survey;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Transaction, TxOpts, Value};
use protocol::checksum::{Checksum, FileHasher};

use self::claim::Claim;
use self::connections::Connections;
use self::fleet::MySqlFleet;
use self::indexes::{INDEX_COPIED, INDEX_FAILED};
use self::setup::{cluster_size, fleet_rules, have_links, have_nodes, id_step, know_relays, no_table, of_a_cluster};
use self::table::{DEFAULT_TABLES, Table, quote};
use super::fleet::{Fleet, FleetStand, NODE};
use super::nodes::{NO_RELAY_TABLE, NO_TABLES, StorageNode};
use super::{
    Catalog, CatalogError, Claimed, CopyPlace, Database, DatabaseServer, FailedSide, FarLink, FedRows, Hold, Keeping,
    Layout, LinkGrant, LinkNews, Looked, Md5, Note, Options, Outcome, RecordId, Retry, Selection, Settled, Totals,
};
use crate::clock::boot_time;

pub(super) use self::links::limit_link;
pub(super) use self::setup::{init_db, make_fleet, make_indexes, make_node_tables, reach};
pub(super) use self::stand::fleet_stand;

/// How often a transaction is tried that lost against another one. With [`connections`]' 3 s of waiting for
/// a row each, all tries fit into one call's limit.
const TRIES: u32 = 4;

/// Longest pause before a lost transaction is tried again; a random part of it is taken, so that two losers part.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Rows of one statement that goes through the table: short, so that nobody waits for its locks, and however long the
/// table is.
const LOOK: u32 = 10_000;

/// A pysmurf table of files.
pub struct MySqlCatalog {
    connections: Arc<Connections>,
    claim: Claim,
    /// Of each target.
    lanes: u32,
    /// Where several archivers share the rows.
    fleet: Option<Fleet<MySqlFleet>>,
    database: Database,
    table: Table,
    layout: Layout,
    selection: Selection,
    id_step: i64,
    notes: note::Notes,
    /// The storage node that is worked for, where there are several.
    node: Option<StorageNode>,
    /// The link that is shared with others.
    link: Option<FarLink>,
}

impl MySqlCatalog {
    /// Connects and looks for the table. [`CatalogError::Setup`] when there is none, or it cannot serve.
    pub async fn open(server: &DatabaseServer, options: Options) -> Result<Self, CatalogError> {
        let Options { selection, table, layout, node, link, create: _ } = options;
        if selection.targets.is_empty() {
            return Err(CatalogError::Setup(
                "No monitor is chosen; name at least one instance id with --target".to_owned(),
            ));
        }
        let database = Database::Mysql(server.clone());
        let connections = Connections::new(server);
        let conn = connections.connect().await.map_err(|error| connections.refusal(error))?;
        let names: Vec<&str> = table.as_deref().map_or(DEFAULT_TABLES.to_vec(), |name| vec![name]);
        let (found, id_step, nodes) = connections
            .run(conn, async |conn| {
                Ok((table::find(conn, &names).await?, id_step(conn).await?, cluster_size(conn).await?))
            })
            .await?;
        let found = found.ok_or_else(|| no_table(&database, &names))?;
        let place = format!("Table {} of {database}", found.name);
        let layout = found.check(&place, layout)?;
        let rules = fleet_rules(&connections, &found.name).await?;
        if node.is_some() && (rules.is_none() || !have_nodes(&connections).await?) {
            return Err(CatalogError::Setup(format!("Database {database} {NO_TABLES}")));
        }
        if node.as_ref().is_some_and(|node| node.feed().is_some()) && !know_relays(&connections).await? {
            return Err(CatalogError::Setup(format!("Database {database} {NO_RELAY_TABLE}")));
        }
        if rules.is_none() && nodes > 1 {
            tracing::warn!("{}", of_a_cluster(&database, nodes));
        }
        let connections = Arc::new(match (rules, nodes) {
            (Some(_), 1..) => {
                connections.close().await;
                Connections::in_step(server)
            }
            _ => connections,
        });
        let shares = rules.is_some() && have_links(&connections).await?;
        let link = link.filter(|_| shares);
        let fleet = rules.map(|rules| {
            let of = (&found, node.clone(), shares);
            let tables = MySqlFleet::new(connections.clone(), of, &selection.targets, rules);
            (Fleet::new(tables, rules), rules.lanes)
        });
        let (fleet, lanes) = fleet.unzip();
        Ok(Self {
            connections,
            claim: Claim::default(),
            fleet,
            lanes: lanes.unwrap_or(1),
            database,
            table: found,
            layout,
            selection,
            id_step,
            notes: note::Notes::default(),
            node,
            link,
        })
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table.name
    }

    /// How the fleet stands that this is part of, as far as our targets go.
    pub(super) fn fleet_stand(&self) -> Option<FleetStand> {
        self.fleet.as_ref().and_then(Fleet::stand)
    }

    /// The rule by which files are named.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The columns that [`row::read`] expects, in its order, with the file's path and its failures; NULL for those that the table
    /// lacks.
    fn columns(&self, path: &str, attempts: &str) -> String {
        let optional = |name: &str| if self.table.has(name) { quote(name) } else { "NULL".to_owned() };
        let naming = match self.layout {
            Layout::Action => ["action", "pub_id", "action_timestamp", "plot"].map(optional).join(", "),
            Layout::Type => "`type`".to_owned(),
        };
        // UNIX_TIMESTAMP is the same in every session's time zone, the column's own text is not.
        format!("id, {path}, UNIX_TIMESTAMP(`timestamp`), md5sum, {attempts}, {naming}")
    }

    /// `instance_id IN (?, …)` for the targets.
    fn targets(&self) -> String {
        format!("instance_id IN ({})", vec!["?"; self.selection.targets.len()].join(", "))
    }

    fn target_values(&self) -> impl Iterator<Item = Value> {
        self.selection.targets.iter().map(Value::from)
    }

    /// Which of the rows given up are meant.
    fn meant(&self, which: &Retry) -> (String, Vec<Value>) {
        let (more, given): (String, Vec<Value>) = match which {
            Retry::All => (String::new(), Vec::new()),
            Retry::Ids(ids) => {
                let marks = vec!["?"; ids.len()].join(", ");
                (format!("AND id IN ({marks})"), ids.iter().map(|id| Value::from(id.0)).collect())
            }
            Retry::Pattern(pattern) => ("AND path LIKE ? ESCAPE '|'".to_owned(), vec![Retry::like(pattern).into()]),
        };
        let values =
            [self.selection.max_attempts.into()].into_iter().chain(self.target_values()).chain(given).collect();
        (format!("copied=0 AND failed_copy_attempts >= ? AND {} {more}", self.targets()), values)
    }

    /// Forgets the failures at storage nodes of the rows that are meant; how many rows had been given up by some node alone.
    async fn forget_troubles(&self, which: &Retry) -> Result<u64, CatalogError> {
        if !self.run(async |conn| nodes::exist(conn).await).await? {
            return Ok(0);
        }
        let (rows, values) = self.troubled(which);
        let most = self.selection.max_attempts;
        let given_up = format!(
            "SELECT COUNT(DISTINCT t.row_id) FROM {rows} AND f.failed_copy_attempts < {most} \
             AND LEAST(t.of_source, f.failed_copy_attempts) + t.of_node >= {most}"
        );
        self.run(async |conn| {
            let count: Option<mysql_async::Row> = conn.exec_first(given_up, Params::Positional(values.clone())).await?;
            conn.exec_drop(format!("DELETE t FROM {rows}"), Params::Positional(values.clone())).await?;
            // What was here no more may be here again.
            let owed =
                rows.replacen("fleet_trouble", "fleet_owed", 1).replacen(" WHERE ", " SET t.lacking=0 WHERE ", 1);
            conn.exec_drop(format!("UPDATE {owed}"), Params::Positional(values)).await?;
            let again = conn.affected_rows();
            let count = count.and_then(|row| row::integer(row.as_ref(0)).ok().flatten());
            Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0) + again)
        })
        .await
    }

    /// Locks are the server's, not the database's, and their names are short.
    fn lock_name(&self, target: &str) -> String {
        let Database::Mysql(server) = &self.database else { return String::new() };
        let mut hasher = FileHasher::new(Checksum::Md5);
        for part in [&server.name, &self.table.name, target] {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        format!("pysmurf-archiver {}", hasher.finish())
    }

    async fn run<T>(&self, work: impl AsyncFnOnce(&mut Conn) -> Result<T, Error>) -> Result<T, CatalogError> {
        let conn = self.connections.connect().await.map_err(|error| self.connections.unavailable(error))?;
        self.connections.run(conn, work).await
    }

    /// Up to which id a short look at the rows above `after` goes, and whether there are none above that; `None` where
    /// there are no rows. Whoever goes through the table does it look by look, so that no statement grows with it.
    async fn reach_of_a_look(&self, after: i64) -> Result<Option<(i64, bool)>, CatalogError> {
        let table = quote(&self.table.name);
        let last = format!(
            "SELECT MAX(id), COUNT(*) FROM (SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT {LOOK}) AS w"
        );
        let row = self.run(async |conn| conn.exec_first::<mysql_async::Row, _, _>(last, (after,)).await).await?;
        let number = |index| row.as_ref().and_then(|row| row::integer(row.as_ref(index)).ok().flatten());
        Ok(number(0).map(|last| (last, number(1).is_some_and(|rows| rows < i64::from(LOOK)))))
    }

    /// One try to write `settled`, in a transaction of its own. The rows come in order of id, so that two recorders
    /// never wait for each other in a circle.
    /// `mover`: as whom, where several share the rows; `None` comes back where it is none any more.
    async fn write(&self, conn: &mut Conn, settled: &[&Settled], mover: Option<&str>) -> Result<Option<u64>, Error> {
        let table = quote(&self.table.name);
        let mut transaction = conn.start_transaction(TxOpts::default()).await?;
        if let Some(mover) = mover
            && !fleet::fence(&mut transaction, mover).await?
        {
            transaction.rollback().await?;
            return Ok(None);
        }
        let (changed, due) = match (&self.node, mover) {
            (Some(node), Some(mover)) => self.write_for(&mut transaction, settled, (node, mover)).await?,
            _ => self.write_for_all(&mut transaction, settled, mover).await?,
        };
        self.notes.write(&mut transaction, &table, &due).await?;
        transaction.commit().await?;
        Ok(Some(changed))
    }

    /// Where the rows have one destination.
    async fn write_for_all(
        &self,
        transaction: &mut Transaction<'_>,
        settled: &[&Settled],
        mover: Option<&str>,
    ) -> Result<(u64, note::RowNotes), Error> {
        let table = quote(&self.table.name);
        // `timestamp` is named because older servers declare it ON UPDATE current_timestamp(): unnamed, the file's time
        // would be lost.
        let copied = format!(
            "UPDATE {table} SET path=?, copied=1, `timestamp`=`timestamp` WHERE id=? AND copied=0 AND md5sum=?"
        );
        let failed = format!(
            "UPDATE {table} SET failed_copy_attempts=?, `timestamp`=`timestamp` \
             WHERE id=? AND copied=0 AND failed_copy_attempts=?"
        );
        let mut changed = 0;
        let mut proofs: Vec<(&Settled, &str, &Md5)> = Vec::new();
        let mut due = note::RowNotes::default();
        for row in settled {
            let failure = (row.attempts.saturating_add(1), row.id.0, row.attempts);
            let outcome = match &row.outcome {
                Outcome::Copied { path, md5 } => transaction.exec_drop(&copied, (path, row.id.0, &md5[..])).await,
                Outcome::Failed { .. } => transaction.exec_drop(&failed, failure).await,
            };
            match outcome {
                Err(Error::Server(error))
                    if matches!(row.outcome, Outcome::Copied { .. }) && is_bad_data(error.code) =>
                {
                    // A path that the column does not take must not hold up the rows beside it for ever.
                    tracing::warn!(row = row.id.0, table = %self.table.name, %error, "Path not accepted; counted as a failed attempt");
                    transaction.exec_drop(&failed, failure).await?;
                    if transaction.affected_rows() > 0 {
                        due.failed.push((
                            row.id,
                            failure.0,
                            format!("the table does not accept its new path: {}", error.message),
                        ));
                    }
                }
                outcome => {
                    outcome?;
                    match &row.outcome {
                        Outcome::Copied { path, md5 } if mover.is_some() && transaction.affected_rows() > 0 => {
                            proofs.push((row, path, md5));
                        }
                        _ => {}
                    }
                    match &row.outcome {
                        Outcome::Failed { why, .. } if transaction.affected_rows() > 0 => {
                            due.failed.push((row.id, failure.0, why.clone()))
                        }
                        Outcome::Copied { .. } if row.attempts > 0 => due.proven.push(row.id),
                        _ => {}
                    }
                }
            }
            changed += transaction.affected_rows();
        }
        if let Some(mover) = mover {
            self.prove(transaction, mover, &proofs).await?;
        }
        Ok((changed, due))
    }

    /// Where this is one of several storage nodes.
    async fn write_for(
        &self,
        transaction: &mut Transaction<'_>,
        settled: &[&Settled],
        (node, mover): (&StorageNode, &str),
    ) -> Result<(u64, note::RowNotes), Error> {
        let rows = nodes::NodeRows { node, table: &self.table.name };
        let (mut changed, mut due) = (0, note::RowNotes::default());
        for row in settled {
            let failed = match &row.outcome {
                Outcome::Copied { path, md5 } => match rows.prove(transaction, mover, row, (path, md5)).await? {
                    Ok(proven) => {
                        changed += u64::from(proven);
                        if row.attempts > 0 {
                            due.proven.push(row.id);
                        }
                        continue;
                    }
                    Err(why) => {
                        // A path that the column does not take must not hold up the rows beside it for ever.
                        tracing::warn!(row = row.id.0, table = %self.table.name, error = why, "Path not accepted; counted as a failed attempt");
                        (node.side(FailedSide::Source), format!("the table does not accept its new path: {why}"))
                    }
                },
                Outcome::Failed { why, side } => (node.side(*side), why.clone()),
            };
            if let Some(counted) = rows.fail(transaction, row, (failed.0, &failed.1)).await? {
                changed += 1;
                if failed.0 == FailedSide::Source {
                    due.failed.push((row.id, counted, failed.1));
                }
            }
        }
        Ok((changed, due))
    }
}

impl MySqlCatalog {
    /// The question for rows that wait among those with these ids, with its values.
    fn looking(&self, ours: &fleet::Ours<'_>, [after, last]: [i64; 2], limit: usize) -> (String, Vec<Value>) {
        let (table, most) = (quote(&self.table.name), Value::from(self.selection.max_attempts));
        let rows = self.node.as_ref().map(|node| nodes::NodeRows { node, table: &self.table.name });
        let mut values = Vec::new();
        let mut some = |path: &str, attempts: &str, of: &str, mosts: usize| {
            values.extend(ours.column_values());
            values.extend([after.into(), last.into()]);
            values.extend(std::iter::repeat_n(most.clone(), mosts));
            values.extend(ours.condition_values());
            let (columns, more, condition) = (self.columns(path, attempts), ours.columns(path), ours.condition(path));
            format!("SELECT {columns}{more} FROM {of} AND {condition}")
        };
        let waiting = format!("{table} WHERE id > ? AND id <= ? AND copied=0 AND failed_copy_attempts < ?");
        let query = match rows {
            None => some("path", "failed_copy_attempts", &waiting, 1),
            Some(rows) if let Some(feed) = rows.node.feed() => {
                let of = format!(
                    "{} AND id > ? AND id <= ? AND {} AND {} < ?",
                    rows.proven_at(feed),
                    rows.lacks(feed),
                    rows.attempts_relayed()
                );
                some("p.path", &rows.attempts_relayed(), &of, 1)
            }
            Some(rows) => {
                let (mine, lacking) = (rows.attempts(), rows.attempts_owed());
                let waiting = format!("{waiting} AND {mine} < ? AND {}", rows.is_due());
                let owed = format!(
                    "{} AND o.source IS NOT NULL AND o.lacking=0 AND o.row_id > ? AND o.row_id <= ? AND {lacking} < ?",
                    rows.owed()
                );
                format!("{} UNION ALL {}", some("path", &mine, &waiting, 2), some("o.source", &lacking, &owed, 1))
            }
        };
        values.push(Value::from(u64::try_from(limit).unwrap_or(u64::MAX)));
        (format!("{query} ORDER BY id LIMIT ?"), values)
    }

    /// What makes a row one that waits, for the storage node that is worked for, and its failures there.
    fn waiting(&self) -> (String, String) {
        match &self.node {
            None => ("copied=0".to_owned(), "failed_copy_attempts".to_owned()),
            Some(node) => {
                let rows = nodes::NodeRows { node, table: &self.table.name };
                let attempts = format!("GREATEST(failed_copy_attempts, {})", rows.attempts());
                (format!("copied=0 AND {}", rows.is_due()), attempts)
            }
        }
    }

    /// How many rows the storage node owes that is worked for: those that it tries, and those that it gave up.
    async fn owed(&self) -> Result<[u64; 2], CatalogError> {
        let Some(node) = &self.node else { return Ok([0; 2]) };
        let rows = nodes::NodeRows { node, table: &self.table.name };
        let lacking = rows.attempts_owed();
        let query = format!(
            "SELECT COUNT(CASE WHEN {lacking} < ? THEN 1 END), COUNT(CASE WHEN {lacking} >= ? THEN 1 END) FROM {} AND {}",
            rows.owed(),
            self.targets()
        );
        let most = Value::from(self.selection.max_attempts);
        let values = Params::Positional([most.clone(), most].into_iter().chain(self.target_values()).collect());
        let row = self.run(async |conn| conn.exec_first::<mysql_async::Row, _, _>(&query, values).await).await?;
        Ok([0, 1].map(|index| {
            let value = row.as_ref().and_then(|row| row::integer(row.as_ref(index)).ok().flatten());
            value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0)
        }))
    }

    /// Keeps the proofs of rows that this transaction has made copied ones. One that is there already is of a row that somebody
    /// has put back since, and void.
    async fn prove(
        &self,
        transaction: &mut impl Queryable,
        mover: &str,
        proofs: &[(&Settled, &str, &Md5)],
    ) -> Result<(), Error> {
        if proofs.is_empty() {
            return Ok(());
        }
        let insert = format!(
            "INSERT INTO fleet_proof (table_name, row_id, node, mover, gen, path, sum) VALUES {} ON DUPLICATE KEY UPDATE \
             mover=VALUES(mover), gen=VALUES(gen), path=VALUES(path), sum=VALUES(sum), at=CURRENT_TIMESTAMP(6)",
            vec!["(?, ?, ?, ?, ?, ?, ?)"; proofs.len()].join(", ")
        );
        let values = proofs.iter().flat_map(|(row, path, md5)| {
            let (table, id, taking) = (Value::from(&self.table.name), row.id.0.into(), row.hold.taking.into());
            [table, id, NODE.into(), mover.into(), taking, (*path).into(), Value::from(&md5[..])]
        });
        transaction.exec_drop(insert, Params::Positional(values.collect())).await
    }
}

impl MySqlCatalog {
    /// What is noted of rows that were given up, by the rows themselves.
    async fn notes_of_rows(&self, which: &Retry, limit: usize) -> Result<Vec<Note>, CatalogError> {
        if matches!(which, Retry::Ids(ids) if ids.is_empty()) {
            return Ok(Vec::new());
        }
        let (condition, values) = self.meant(which);
        let table = quote(&self.table.name);
        let noted = self.run(async |conn| note::exist(conn).await).await?;
        let by_index = match which {
            Retry::Ids(_) => Some(""),
            _ if self.has_index(INDEX_FAILED).await? => Some("FORCE INDEX (archiver_failed)"),
            _ => None,
        };
        if let Some(by) = by_index {
            let meant = (format!("{by} WHERE {condition}"), values);
            return self.run(async |conn| note::read(conn, &table, noted, meant, limit).await).await;
        }
        let (mut after, mut notes) = (i64::MIN, Vec::new());
        while notes.len() < limit
            && let Some((last, _)) = self.reach_of_a_look(after).await?
        {
            let meant = (format!("WHERE id > {after} AND id <= {last} AND {condition}"), values.clone());
            let room = limit - notes.len();
            notes.extend(self.run(async |conn| note::read(conn, &table, noted, meant, room).await).await?);
            after = last;
        }
        Ok(notes)
    }
}

impl Catalog for MySqlCatalog {
    async fn claim(&self) -> Result<Claimed, CatalogError> {
        if let Some(fleet) = &self.fleet {
            return fleet.claim().await;
        }
        let mut names: Vec<String> = self.selection.targets.iter().map(|target| self.lock_name(target)).collect();
        names.sort();
        names.dedup();
        self.claim.take(&self.connections, &names).await.map(|()| Claimed::Settled)
    }

    async fn give_back(&self, in_flight: &BTreeSet<u32>) -> Result<bool, CatalogError> {
        match &self.fleet {
            Some(fleet) => fleet.give_back(in_flight).await,
            None => Ok(false),
        }
    }

    async fn lanes_lost(&self) {
        match &self.fleet {
            Some(fleet) => fleet.out().await,
            None => std::future::pending().await,
        }
    }

    async fn lanes_move(&self) {
        match &self.fleet {
            Some(fleet) => fleet.moving().await,
            None => std::future::pending().await,
        }
    }

    async fn rest(&self) -> Result<(), CatalogError> {
        match &self.fleet {
            Some(fleet) => fleet.rest().await,
            None => Ok(()),
        }
    }

    fn holds(&self, hold: Hold) -> bool {
        self.fleet.as_ref().is_none_or(|fleet| fleet.holds(hold))
    }

    fn shares_link(&self) -> bool {
        self.link.is_some()
    }

    async fn link_turn(&self, news: LinkNews) -> Result<LinkGrant, CatalogError> {
        match (&self.fleet, &self.link) {
            (Some(fleet), Some(link)) => fleet.link_turn(link, news).await,
            _ => Ok(LinkGrant::default()),
        }
    }

    fn generation(&self) -> u64 {
        self.fleet.as_ref().map_or(0, Fleet::takings)
    }

    async fn look(&self, after: RecordId, limit: usize) -> Result<Looked, CatalogError> {
        let held = self.fleet.as_ref().map(Fleet::held);
        let ours = fleet::Ours::new(held, self.lanes, &self.selection.targets);
        let Some((last, ended)) = self.reach_of_a_look(after.0).await? else {
            return Ok(Looked { rows: Vec::new(), until: after, ended: true });
        };
        let (query, values) = self.looking(&ours, [after.0, last], limit);
        let values = Params::Positional(values);
        let rows = self.run(async |conn| conn.exec::<mysql_async::Row, _, _>(&query, values).await).await?;
        let feed = self.node.as_ref().and_then(StorageNode::feed);
        let rows = rows.iter().map(|row| {
            let pending = row::read(row, self.layout).map(|row| match feed {
                Some(feed) => feed.row(row),
                None => row,
            });
            pending.map(|pending| pending.held_by(ours.hold(row))).ok_or_else(|| {
                CatalogError::Setup(format!("Column id of {} holds no integers; give another table", self.describe()))
            })
        });
        Ok(Looked::new(rows.collect::<Result<_, _>>()?, limit, RecordId(last), ended))
    }

    async fn fed_since(&self, since: Option<f64>) -> Result<Option<FedRows>, CatalogError> {
        self.rows_fed_since(since).await
    }

    async fn newest(&self) -> Result<RecordId, CatalogError> {
        let query = format!("SELECT MAX(id) FROM {}", quote(&self.table.name));
        let row = self.connections.ask(&query).await?;
        Ok(RecordId(row.and_then(|row| row::integer(row.as_ref(0)).ok().flatten()).unwrap_or(0)))
    }

    async fn record(&self, settled: &[Settled]) -> Result<u64, CatalogError> {
        if settled.is_empty() {
            return Ok(0);
        }
        let mut ordered: Vec<&Settled> = settled.iter().collect();
        ordered.sort_by_key(|row| row.id);
        // Most outcomes are of rows that never failed.
        let notes = settled.iter().any(|row| row.attempts > 0 || matches!(row.outcome, Outcome::Failed { .. }));
        if let Some(fleet) = &self.fleet {
            let mover = fleet.permit(settled.iter().map(|row| row.hold))?;
            if notes {
                self.run(async |conn| self.notes.prepare(conn, &quote(&self.table.name)).await).await?;
            }
            let began = boot_time();
            let written = fleet
                .tables()
                .write(|conn| fleet::on(conn, async |conn| self.write(conn, &ordered, Some(&mover)).await))
                .await?;
            let changed = written.ok_or_else(|| fleet.evicted(&mover))?;
            fleet.fenced(&mover, began);
            return Ok(changed);
        }
        self.run(async |conn| {
            if notes {
                self.notes.prepare(conn, &quote(&self.table.name)).await?;
            }
            let mut tries = 1;
            loop {
                match self.write(conn, &ordered, None).await.map(Option::unwrap_or_default) {
                    Err(Error::Server(error)) if tries < TRIES && is_lost_race(error.code) => {
                        tracing::debug!(table = %self.table.name, %error, tries, "Transaction lost; trying again");
                        // Now, and not after the pause: the rows written before are still locked.
                        conn.query_drop("ROLLBACK").await?;
                        tries += 1;
                        tokio::time::sleep(LONGEST_PAUSE.mul_f64(fastrand::f64())).await;
                    }
                    result => return result,
                }
            }
        })
        .await
    }

    async fn retry(&self, which: &Retry) -> Result<u64, CatalogError> {
        if matches!(which, Retry::Ids(ids) if ids.is_empty()) {
            return Ok(0);
        }
        let table = quote(&self.table.name);
        let (condition, values) = self.meant(which);
        let update = format!(
            "UPDATE {table} SET failed_copy_attempts=0, `timestamp`=`timestamp` WHERE id > ? AND id <= ? AND {condition}"
        );
        let (mut after, mut changed) = (i64::MIN, self.forget_troubles(which).await?);
        while let Some((last, _)) = self.reach_of_a_look(after).await? {
            let within = [Value::from(after), Value::from(last)].into_iter().chain(values.iter().cloned()).collect();
            changed += self
                .run(async |conn| {
                    conn.exec_drop(&update, Params::Positional(within)).await?;
                    Ok(conn.affected_rows())
                })
                .await?;
            after = last;
        }
        if changed > 0 {
            self.run(async |conn| note::forget_void(conn, &table).await).await?;
        }
        Ok(changed)
    }

    async fn given_up(&self, which: &Retry, limit: usize) -> Result<Vec<Note>, CatalogError> {
        let mut notes = match self.relayed() {
            Some(_) => Vec::new(),
            None => self.notes_of_rows(which, limit).await?,
        };
        notes.extend(self.given_up_at_nodes(which, limit.saturating_sub(notes.len())).await?);
        Ok(notes)
    }

    async fn keeping(&self) -> Result<Keeping, CatalogError> {
        self.run(async |conn| note::keeping(conn).await).await
    }

    async fn totals(&self) -> Result<Totals, CatalogError> {
        if let Some((rows, feed)) = self.relayed() {
            return self.count_relayed(&rows, feed).await;
        }
        let (waits, attempts) = self.waiting();
        let query = format!(
            "SELECT COUNT(CASE WHEN {waits} AND {attempts} < ? THEN 1 END), \
             COUNT(CASE WHEN {waits} AND {attempts} >= ? THEN 1 END), \
             COUNT(CASE WHEN copied<>0 THEN 1 END) FROM {} WHERE id > ? AND id <= ? AND {}",
            quote(&self.table.name),
            self.targets()
        );
        let (mut after, mut totals) = (i64::MIN, Totals::default());
        if self.node.is_none()
            && let Some(totals) = self.totals_by_index().await?
        {
            return Ok(totals);
        }
        while let Some((last, _)) = self.reach_of_a_look(after).await? {
            let most = Value::from(self.selection.max_attempts);
            let first = [most.clone(), most, after.into(), last.into()];
            let values = Params::Positional(first.into_iter().chain(self.target_values()).collect());
            let row = self.run(async |conn| conn.exec_first::<mysql_async::Row, _, _>(&query, values).await).await?;
            let count = |index| {
                let value = row.as_ref().and_then(|row| row::integer(row.as_ref(index)).ok().flatten());
                value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0)
            };
            totals.pending += count(0);
            totals.given_up += count(1);
            totals.copied += count(2);
            after = last;
        }
        let [waiting, given_up] = self.owed().await?;
        totals.pending += waiting;
        totals.given_up += given_up;
        totals.copied = totals.copied.saturating_sub(waiting + given_up);
        Ok(totals)
    }

    async fn oldest(&self) -> Result<Option<f64>, CatalogError> {
        if let Some((rows, feed)) = self.relayed() {
            return self.oldest_relayed(&rows, feed).await;
        }
        let indexed = self.has_index(INDEX_COPIED).await?;
        let (waits, attempts) = self.waiting();
        let query = format!(
            "SELECT MIN(NULLIF(UNIX_TIMESTAMP(`timestamp`), 0)) FROM {} {} \
             WHERE id > ? AND id <= ? AND {waits} AND {attempts} < ? AND {}",
            quote(&self.table.name),
            if indexed { "FORCE INDEX (archiver_copied)" } else { "" },
            self.targets()
        );
        let (mut after, mut oldest) = (i64::MIN, None::<i64>);
        loop {
            let reached = match indexed {
                true => self.reach_past_copied(after).await?,
                false => self.reach_of_a_look(after).await?.map(|(last, _)| last),
            };
            let Some(last) = reached else { break };
            let first = [after.into(), last.into(), self.selection.max_attempts.into()];
            let values = Params::Positional(first.into_iter().chain(self.target_values()).collect());
            let row = self.run(async |conn| conn.exec_first::<mysql_async::Row, _, _>(&query, values).await).await?;
            let here = row.and_then(|row| row::integer(row.as_ref(0)).ok().flatten());
            oldest = oldest.into_iter().chain(here.filter(|&seconds| seconds > 0)).min();
            after = last;
        }
        Ok(oldest.map(|seconds| seconds as f64))
    }

    async fn names(&self, below: RecordId, rows: usize) -> Result<Option<(Vec<String>, RecordId)>, CatalogError> {
        let query = format!(
            "SELECT instance_id, MIN(id) FROM \
             (SELECT id, instance_id FROM {} WHERE id < ? ORDER BY id DESC LIMIT ?) AS w GROUP BY instance_id",
            quote(&self.table.name)
        );
        let values = (below.0, u64::try_from(rows).unwrap_or(u64::MAX));
        let found = self.run(async |conn| conn.exec::<mysql_async::Row, _, _>(query, values).await).await?;
        let lowest = found.iter().filter_map(|row| row::integer(row.as_ref(1)).ok().flatten()).min();
        let names = found.iter().filter_map(|row| row::text(row.as_ref(0)).ok().flatten()).collect();
        Ok(lowest.map(|lowest| (names, RecordId(lowest))))
    }

    fn id_step(&self) -> i64 {
        self.id_step
    }

    async fn last_copy(&self, copy: &CopyPlace) -> Result<Option<RecordId>, CatalogError> {
        self.last_of_same_place(copy).await
    }

    fn path_limit(&self) -> usize {
        self.table.path_limit
    }

    fn describe(&self) -> String {
        format!("table {} of {}", self.table.name, self.database)
    }

    async fn close(&self) {
        if let Some(fleet) = &self.fleet {
            fleet.leave().await;
        }
        self.claim.release().await;
        self.connections.close().await;
    }
}

/// ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR, ER_COLUMNACCESS_DENIED_ERROR, ER_SPECIFIC_ACCESS_DENIED_ERROR.
const COMMAND_DENIED: [u16; 4] = [1044, 1142, 1143, 1227];

/// ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, and ER_CHECKREAD ("Record has changed", MariaDB 11.6 and later).
fn is_lost_race(code: u16) -> bool {
    matches!(code, 1205 | 1213 | 1020)
}

/// What is wrong with a row's data, and holds up no other: ER_DATA_TOO_LONG, ER_TRUNCATED_WRONG_VALUE_FOR_FIELD (a letter that the
/// column's character set lacks), ER_DUP_ENTRY (in the tables of 2019 the path is UNIQUE), ER_BAD_NULL_ERROR, ER_WARN_DATA_OUT_OF_RANGE,
/// ER_TRUNCATED_WRONG_VALUE, ER_NO_DEFAULT_FOR_FIELD, ER_NO_REFERENCED_ROW_2, and a CHECK that failed, of MySQL and of MariaDB.
fn is_bad_data(code: u16) -> bool {
    matches!(code, 1406 | 1366 | 1062 | 1048 | 1264 | 1292 | 1364 | 1452 | 3819 | 4025)
}
