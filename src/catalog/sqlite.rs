//! SupRsync's table `supersync_v0` in a file of SQLite.
//! Creates the tables where they are absent, never alters them. One connection, used on tokio's threads for blocking
//! work, one call at a time.

mod amend;
mod announced;
mod at_node;
pub(crate) mod batches;
mod changes;
mod claim;
mod counts;
mod earlier;
mod files;
mod fleet;
mod handle;
mod indexes;
mod links;
mod nodes;
mod note;
mod owed;
mod parts;
mod prunable;
mod record;
mod register;
mod relays;
mod retry;
mod row;
mod stand;
mod survey;
mod table;
mod timecodes;
mod trouble;
mod walk;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, params};

use self::changes::Changes;
use self::claim::Claim;
use self::fleet::SqliteFleet;
pub(super) use self::handle::OpenFor;
use self::handle::{Handle, connect, keep_log};
use self::parts::{Parts, Stirred};
use self::table::{PATH_LIMIT, create};
use self::trouble::{in_time, on_own_thread, trouble};
use self::walk::{FileCalls, reach_of_a_look};

pub(super) use links::limit_link;
pub(crate) use prunable::{Needed, Prunable};
pub(super) use stand::fleet_stand;
pub(super) use table::FILES;
pub(crate) use timecodes::{Complete, NewFile, QUIET, TimecodeStand};

use super::fleet::{Fleet, FleetExtent, FleetStand};
use super::nodes::{NO_RELAY_TABLE, NO_TABLES, RelayFeed, StorageNode};
use super::{
    Catalog, CatalogError, Claimed, CopyPlace, Created, Database, FarLink, FedRows, Hold, Keeping, LinkGrant, LinkNews,
    Looked, Note, Options, Pending, RecordId, Retry, Selection, Settled, Totals,
};
use crate::clock::boot_time;

/// What a local file's row must be so that no storage node needs the file.
const NOT_OWED: &str =
    "AND NOT EXISTS (SELECT 1 FROM fleet_owed WHERE table_name = 'supersync_v0' AND row_id = supersync_v0.id)";

/// SupRsync's table of files.
pub struct SqliteCatalog {
    calls: FileCalls,
    /// How often the file was found replaced.
    generation: Arc<AtomicU64>,
    database: String,
    /// Of the file and its write-ahead log.
    changes: Arc<Changes>,
    /// Held open and locked by the archiver that works on this archive.
    claim: Claim,
    /// Where several archivers share the rows, and into how many lanes these are parted.
    fleet: Option<(Fleet<SqliteFleet>, u32)>,
    /// The storage node that is worked for, where there are several.
    node: Option<StorageNode>,
    /// The link that is shared with others.
    link: Option<FarLink>,
    /// `AND …` of rows that no storage node owes, or nothing where there are no such tables.
    not_owed: &'static str,
    file: PathBuf,
    archive: String,
    max_attempts: i64,
    /// `AND "ignore" = 0`, or nothing where the table is older than that column. NULL never matches, as in SupRsync.
    not_ignored: &'static str,
    /// Older tables do not say which files may be deleted.
    has_deletable: bool,
    /// What was found in the table by those who do something beside the copying.
    parts: Arc<tokio::sync::Mutex<Parts>>,
    stirred: Stirred,
}

impl SqliteCatalog {
    /// Whether what is done but once for an archive, beside the copying, is ours to do.
    pub(crate) async fn is_on_duty(&self) -> Result<bool, CatalogError> {
        match &self.fleet {
            Some((fleet, _)) => fleet.is_on_duty().await.map(|mover| mover.is_some()),
            None => self.claim().await.map(|_| true),
        }
    }

    /// As which mover that is written, where several archivers share the rows.
    fn on_duty(&self) -> Result<Option<String>, CatalogError> {
        self.fleet.as_ref().map(|(fleet, _)| fleet.on_duty()).transpose()
    }

    /// How the fleet stands that this is part of, as far as this archive goes.
    pub(super) fn fleet_stand(&self) -> Option<FleetStand> {
        self.fleet.as_ref().and_then(|(fleet, _)| fleet.stand())
    }

    /// Opens the file. What is absent and not to be made is [`CatalogError::Setup`], as is a table that lacks a column.
    pub(super) async fn open(path: &Path, options: Options, purpose: OpenFor) -> Result<Self, CatalogError> {
        let Options { selection: Selection { targets, max_attempts }, node, link, .. } = options;
        let [archive] = <[String; 1]>::try_from(targets).map_err(|names| {
            CatalogError::Setup(format!(
                "A SQLite database serves exactly one archive, and {} are chosen; name one with --archive-name",
                names.len()
            ))
        })?;
        let database = Database::Sqlite(path.to_owned()).to_string();
        let file = path.to_owned();
        let opening = on_own_thread(&database, move |database| Handle::open(&file, database, purpose));
        let mut handle = in_time(&database, opening).await?;
        let fleet = match purpose {
            OpenFor::Look => None,
            OpenFor::Create | OpenFor::Use => open_fleet(path, (&database, &archive), node.as_ref()).await?,
        };
        let has_nodes = nodes::exist(handle.current(&database)?).map_err(|error| trouble(&database, error))?;
        if node.is_some() && !has_nodes {
            return Err(CatalogError::Setup(format!("Database {database} {NO_TABLES}")));
        }
        let shares = links::exist(handle.current(&database)?).map_err(|error| trouble(&database, error))?;
        let link = link.filter(|_| shares && fleet.is_some());
        if node.as_ref().is_some_and(|node| node.feed().is_some())
            && !nodes::know_relays(handle.current(&database)?).map_err(|error| trouble(&database, error))?
        {
            return Err(CatalogError::Setup(format!("Database {database} {NO_RELAY_TABLE}")));
        }
        let changes = Arc::new(Changes::new());
        handle.tell(Arc::clone(&changes));
        let (has_ignore, has_deletable) = (handle.has("ignore"), handle.has("deletable"));
        Ok(Self {
            calls: FileCalls::new(handle, &database),
            generation: Arc::default(),
            database,
            changes,
            claim: Claim::default(),
            fleet,
            node,
            link,
            not_owed: if has_nodes { NOT_OWED } else { "" },
            file: path.to_owned(),
            archive,
            max_attempts,
            not_ignored: if has_ignore { "AND \"ignore\" = 0" } else { "" },
            has_deletable,
            parts: Arc::default(),
            stirred: Stirred::default(),
        })
    }

    /// The storage node that is worked for and what feeds it, if it is a relayed one.
    fn relayed(&self) -> Option<(&StorageNode, &RelayFeed)> {
        self.node.as_ref().and_then(|node| Some((node, node.feed()?)))
    }

    /// What makes a row one of ours that still waits, apart from its attempts.
    fn waiting(&self) -> String {
        format!("archive_name = ?1 AND removed IS NULL {} AND remote_md5sum IS NOT local_md5sum", self.not_ignored)
    }
}

impl Catalog for SqliteCatalog {
    async fn claim(&self) -> Result<Claimed, CatalogError> {
        if let Some((fleet, _)) = &self.fleet {
            return fleet.claim().await;
        }
        let (claim, file, archive) = (self.claim.clone(), self.file.clone(), self.archive.clone());
        let claiming = on_own_thread(&self.database, move |database| claim.take(database, &file, &archive));
        in_time(&self.database, claiming).await.map(|()| Claimed::Settled)
    }

    async fn give_back(&self, in_flight: &BTreeSet<u32>) -> Result<bool, CatalogError> {
        match &self.fleet {
            Some((fleet, _)) => fleet.give_back(in_flight).await,
            None => Ok(false),
        }
    }

    async fn lanes_lost(&self) {
        match &self.fleet {
            Some((fleet, _)) => fleet.out().await,
            None => std::future::pending().await,
        }
    }

    async fn lanes_move(&self) {
        match &self.fleet {
            Some((fleet, _)) => fleet.moving().await,
            None => std::future::pending().await,
        }
    }

    async fn rest(&self) -> Result<(), CatalogError> {
        match &self.fleet {
            Some((fleet, _)) => fleet.rest().await,
            None => Ok(()),
        }
    }

    fn holds(&self, hold: Hold) -> bool {
        self.fleet.as_ref().is_none_or(|(fleet, _)| fleet.holds(hold))
    }

    fn shares_link(&self) -> bool {
        self.link.is_some()
    }

    async fn link_turn(&self, news: LinkNews) -> Result<LinkGrant, CatalogError> {
        match (&self.fleet, &self.link) {
            (Some((fleet, _)), Some(link)) => fleet.link_turn(link, news).await,
            _ => Ok(LinkGrant::default()),
        }
    }

    /// Rows whose `failed_copy_attempts` or `ignore` is NULL never match, as in SupRsync.
    async fn look(&self, after: RecordId, limit: usize) -> Result<Looked, CatalogError> {
        let relayed = self.relayed();
        let query = match (&self.node, relayed) {
            (_, Some((node, feed))) => relays::look(node, feed, self.not_ignored),
            (Some(node), None) => nodes::look(node, columns, &self.waiting()),
            (None, None) => format!(
                "SELECT id, CAST(failed_copy_attempts AS INTEGER), {} FROM {FILES} \
                 WHERE id > ?2 AND id <= ?5 AND {} AND failed_copy_attempts < ?3 ORDER BY id LIMIT ?4",
                columns("local_path"),
                self.waiting()
            ),
        };
        let held = self.fleet.as_ref().map(|(fleet, lanes)| (fleet.held(), *lanes));
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let found = move |connection: &mut Connection| {
            let Some((last, ended)) = reach_of_a_look(connection, after.0)? else {
                return Ok(Looked { rows: Vec::new(), until: after, ended: true });
            };
            let room = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(&query)?;
            let rows = statement.query_map(params![archive, after.0, max_attempts, room, last], row::read)?;
            Ok(Looked::new(rows.collect::<Result<_, _>>()?, limit, RecordId(last), ended))
        };
        let mut looked = self.run(found).await?;
        self.stirred.found_waiting(looked.rows.iter().map(Pending::id));
        if let Some((_, feed)) = relayed {
            looked.rows = looked.rows.into_iter().map(|row| feed.row(row)).collect();
        }
        let looked = match &self.node {
            Some(node) => fleet::of_node(looked, node),
            None => looked,
        };
        Ok(match held {
            Some((held, lanes)) => fleet::ours(looked, &held, lanes),
            None => looked,
        })
    }

    async fn fed_since(&self, since: Option<f64>) -> Result<Option<FedRows>, CatalogError> {
        self.rows_fed_since(since).await
    }

    async fn newest(&self) -> Result<RecordId, CatalogError> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(&format!("SELECT MAX(id) FROM {FILES}"))?;
            let newest: Option<i64> = statement.query_row([], |row| row.get(0))?;
            Ok(RecordId(newest.unwrap_or(0)))
        })
        .await
    }

    async fn changed(&self) {
        self.changes.heard().await;
    }

    async fn record(&self, settled: &[Settled]) -> Result<u64, CatalogError> {
        if settled.is_empty() {
            return Ok(0);
        }
        let rows = settled.to_vec();
        let permit =
            self.fleet.as_ref().map(|(fleet, _)| fleet.permit(settled.iter().map(|row| row.hold))).transpose()?;
        let (mover, began, node) = (permit.clone(), boot_time(), self.node.clone());
        let written =
            self.run(move |connection| record::write(connection, &rows, mover.as_deref(), node.as_ref())).await;
        // Also where it failed: it may have been written all the same.
        self.stirred.wrote(settled.iter().map(|row| row.id));
        match (&self.fleet, permit) {
            (Some((fleet, _)), Some(mover)) => {
                let changed = written?.ok_or_else(|| fleet.evicted(&mover))?;
                fleet.fenced(&mover, began);
                Ok(changed)
            }
            _ => written.map(Option::unwrap_or_default),
        }
    }

    async fn retry(&self, which: &Retry) -> Result<u64, CatalogError> {
        let changed = match which {
            Retry::Ids(ids) => self.retry_rows(ids).await?,
            Retry::All => self.retry_all(None).await?,
            Retry::Pattern(pattern) => self.retry_all(Some(pattern)).await?,
        };
        if changed > 0 {
            self.run(|connection| note::forget_void(connection)).await?;
        }
        Ok(changed)
    }

    async fn given_up(&self, which: &Retry, limit: usize) -> Result<Vec<Note>, CatalogError> {
        self.notes(which, limit).await
    }

    async fn keeping(&self) -> Result<Keeping, CatalogError> {
        // Who writes the file may make a table in it.
        self.run(|connection| Ok(if note::exist(connection)? { Keeping::There } else { Keeping::Later })).await
    }

    async fn totals(&self) -> Result<Totals, CatalogError> {
        self.count().await
    }

    async fn oldest(&self) -> Result<Option<f64>, CatalogError> {
        self.oldest_waiting().await
    }

    async fn names(&self, below: RecordId, rows: usize) -> Result<Option<(Vec<String>, RecordId)>, CatalogError> {
        let query = format!(
            "SELECT CAST(substr(archive_name, 1, 200) AS TEXT), MIN(id) FROM \
             (SELECT id, archive_name FROM {FILES} WHERE id < ?1 ORDER BY id DESC LIMIT ?2) GROUP BY 1"
        );
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let found =
                statement.query_map(params![below.0, rows], |row| Ok((row.get::<_, Option<String>>(0)?, row.get(1)?)));
            let found = found?.collect::<Result<Vec<(_, i64)>, _>>()?;
            let lowest = found.iter().map(|(_, lowest)| *lowest).min();
            let names = found.into_iter().filter_map(|(name, _)| name).collect();
            Ok(lowest.map(|lowest| (names, RecordId(lowest))))
        })
        .await
    }

    async fn last_copy(&self, copy: &CopyPlace) -> Result<Option<RecordId>, CatalogError> {
        self.last_of_same_file(copy).await
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire) + self.fleet.as_ref().map_or(0, |(fleet, _)| fleet.takings())
    }

    fn path_limit(&self) -> usize {
        PATH_LIMIT
    }

    fn describe(&self) -> String {
        format!("table {FILES} of {}", self.database)
    }

    async fn close(&self) {
        if let Some((fleet, _)) = &self.fleet {
            fleet.leave().await;
        }
        // Here, and not where the catalog is dropped: the last one out empties the write-ahead log. Trouble with that
        // costs the next one in some time, and nothing else.
        let _ = self
            .run_with(|handle, _| {
                handle.close();
                Ok(())
            })
            .await;
        let (claim, file, archive) = (self.claim.clone(), self.file.clone(), self.archive.clone());
        let releasing = on_own_thread(&self.database, move |_| {
            claim.release(&file, &archive);
            Ok(())
        });
        let _ = in_time(&self.database, releasing).await;
    }
}

/// The columns of a row behind its failures, given that of its file's path. A value may be a gigabyte: of one too long only its
/// length is fetched, which `row::read` refuses as no text. (`substr` and `length` would stop at a NUL.)
fn columns(path: &str) -> String {
    let bounded = |column| format!("iif(octet_length({column}) <= {PATH_LIMIT}, {column}, octet_length({column}))");
    [path, "remote_path", "local_md5sum"].map(bounded).join(", ")
}

/// The fleet of a file that has its tables.
async fn open_fleet(
    path: &Path,
    (database, archive): (&str, &str),
    node: Option<&StorageNode>,
) -> Result<Option<(Fleet<SqliteFleet>, u32)>, CatalogError> {
    let file = path.to_owned();
    let opening = on_own_thread(database, move |database| {
        let mut handle = Handle::open(&file, database, OpenFor::Use)?;
        let found = fleet::find(handle.current(database)?).map_err(|error| trouble(database, error))?;
        let rules = found.transpose().map_err(|why| CatalogError::Setup(format!("Database {database}: {why}")))?;
        Ok(rules.map(|rules| (handle, rules)))
    });
    let found = in_time(database, opening).await?;
    Ok(found.map(|(handle, rules)| {
        let tables = SqliteFleet::new(FileCalls::new(handle, database), archive, node.cloned(), rules);
        (Fleet::new(tables, rules), rules.lanes)
    }))
}

/// Creates the tables of a fleet, beside those of SupRsync.
pub(super) async fn make_fleet(path: &Path) -> Result<Vec<Created>, CatalogError> {
    init_db(path).await?;
    fleet::init(path, FleetExtent::Movers).await
}

/// Creates the tables for several storage nodes beside them.
pub(super) async fn make_node_tables(path: &Path) -> Result<Vec<Created>, CatalogError> {
    init_db(path).await?;
    fleet::init(path, FleetExtent::Nodes).await
}

/// Creates the two tables where they are absent.
pub(super) async fn init_db(path: &Path) -> Result<Vec<Created>, CatalogError> {
    let file = path.to_owned();
    let database = Database::Sqlite(path.to_owned()).to_string();
    let creating = on_own_thread(&database, move |database| {
        let mut connection = connect(&file, database, OpenFor::Create)?;
        let created = create(&mut connection).map_err(|error| trouble(database, error))?;
        keep_log(&connection, database)?;
        Ok(created)
    });
    in_time(&database, creating).await
}

/// Makes our indexes where they are absent. A large table takes longer than a call is waited for, so nothing limits it.
pub(super) async fn make_indexes(path: &Path) -> Result<Vec<Created>, CatalogError> {
    let file = path.to_owned();
    let database = Database::Sqlite(path.to_owned()).to_string();
    on_own_thread(&database, move |database| {
        let connection = connect(&file, database, OpenFor::Use)?;
        let made = indexes::create(&connection).map_err(|error| trouble(database, error))?;
        Ok(made.into_iter().map(|(table, new)| Created { table, new }).collect())
    })
    .await
}

/// Opens the file and reads its first page.
pub(super) async fn reach(path: &Path) -> Result<String, CatalogError> {
    let file = path.to_owned();
    let database = Database::Sqlite(path.to_owned()).to_string();
    let looking = on_own_thread(&database, move |database| {
        let connection = connect(&file, database, OpenFor::Look)?;
        let read = connection.query_row("SELECT COUNT(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0));
        read.map_err(|error| trouble(database, error))?;
        Ok(format!("SQLite {}", rusqlite::version()))
    });
    in_time(&database, looking).await
}
