//! Opens whichever catalog the address names.

use std::collections::BTreeSet;
use std::time::Duration;

use super::mysql::{self, MySqlCatalog};
use super::sqlite::{self, OpenFor, SqliteCatalog};
use super::{
    ArchiveStats, Catalog, CatalogError, Claimed, CopyPlace, Created, Database, FarLink, FedRows, FleetLook,
    FleetStand, Hold, Keeping, Layout, LinkGrant, LinkLimits, LinkNews, Looked, NodeDebt, Note, Options, RecordId,
    Retry, Settled, TargetBacklog, Totals,
};

/// A catalog of either kind.
pub enum AnyCatalog {
    /// MySQL or MariaDB.
    Mysql(Box<MySqlCatalog>),
    /// SQLite.
    Sqlite(Box<SqliteCatalog>),
}

/// Opens the catalog and checks that its table can serve. [`CatalogError::Unavailable`] may pass by itself;
/// [`CatalogError::Setup`] will not.
pub async fn open(database: &Database, options: Options) -> Result<AnyCatalog, CatalogError> {
    match database {
        Database::Mysql(server) => Ok(AnyCatalog::Mysql(Box::new(MySqlCatalog::open(server, options).await?))),
        Database::Sqlite(path) => {
            refuse_mysql_options(database, &options)?;
            let purpose = if options.create { OpenFor::Create } else { OpenFor::Use };
            SqliteCatalog::open(path, options, purpose).await.map(|catalog| AnyCatalog::Sqlite(Box::new(catalog)))
        }
    }
}

/// As [`open`], but for looking only: nothing is created or changed, and what is absent is an error.
pub async fn inspect(database: &Database, options: Options) -> Result<AnyCatalog, CatalogError> {
    match database {
        // Opening a MySQL table changes nothing anyway.
        Database::Mysql(_) => open(database, options).await,
        Database::Sqlite(path) => {
            refuse_mysql_options(database, &options)?;
            SqliteCatalog::open(path, options, OpenFor::Look).await.map(|catalog| AnyCatalog::Sqlite(Box::new(catalog)))
        }
    }
}

/// Whether the database is there and lets us in; gives its product and version. Creates nothing.
pub async fn reach(database: &Database) -> Result<String, CatalogError> {
    match database {
        Database::Mysql(server) => mysql::reach(server).await,
        Database::Sqlite(path) => sqlite::reach(path).await,
    }
}

/// How the fleet of a database stands. Takes as long as it takes to see who lives: two heartbeats where one does not.
pub(crate) async fn fleet_stand(database: &Database, look: FleetLook) -> Result<FleetStand, CatalogError> {
    match database {
        Database::Mysql(server) => mysql::fleet_stand(server, look).await,
        Database::Sqlite(path) => sqlite::fleet_stand(path, look).await,
    }
}

/// Sets what may go over a link at once, for all movers together.
pub(crate) async fn limit_link(database: &Database, link: FarLink, limits: LinkLimits) -> Result<(), CatalogError> {
    match database {
        Database::Mysql(server) => mysql::limit_link(server, &link, limits).await,
        Database::Sqlite(path) => sqlite::limit_link(path, link, limits).await,
    }
}

fn refuse_mysql_options(database: &Database, options: &Options) -> Result<(), CatalogError> {
    for (name, given) in [("--table", options.table.is_some()), ("--layout", options.layout.is_some())] {
        if given {
            return Err(CatalogError::Setup(format!(
                "Option {name} is for MySQL tables, and {database} is none; leave it out"
            )));
        }
    }
    Ok(())
}

/// Creates what a catalog needs: `pysmurf_files_v1`, or the two tables of SupRsync, and the table of notes. Never alters a
/// table. A MySQL database that has an older table of files gets none, since a new one would hide it.
pub async fn init_db(database: &Database) -> Result<Vec<Created>, CatalogError> {
    match database {
        Database::Mysql(server) => mysql::init_db(server).await,
        Database::Sqlite(path) => sqlite::init_db(path).await,
    }
}

/// Makes the tables of a fleet beside the table of files, where they are absent: from then on any number of archivers share
/// its rows.
pub async fn make_fleet(database: &Database) -> Result<Vec<Created>, CatalogError> {
    match database {
        Database::Mysql(server) => mysql::make_fleet(server).await,
        Database::Sqlite(path) => sqlite::make_fleet(path).await,
    }
}

/// Makes the tables for several storage nodes, and those of a fleet beside them, where they are absent.
pub async fn make_node_tables(database: &Database) -> Result<Vec<Created>, CatalogError> {
    match database {
        Database::Mysql(server) => mysql::make_node_tables(server).await,
        Database::Sqlite(path) => sqlite::make_node_tables(path).await,
    }
}

/// Makes indexes of ours in the table of files, where they are absent. That takes as long as it takes.
pub async fn make_indexes(database: &Database) -> Result<Vec<Created>, CatalogError> {
    match database {
        Database::Mysql(server) => mysql::make_indexes(server).await,
        Database::Sqlite(path) => sqlite::make_indexes(path).await,
    }
}

impl AnyCatalog {
    /// The table's name.
    pub fn table(&self) -> &str {
        match self {
            Self::Mysql(catalog) => catalog.table(),
            Self::Sqlite(_) => sqlite::FILES,
        }
    }

    /// How the fleet stands that this is part of, as far as our rows go; `None` where there is none.
    pub(crate) fn fleet_stand(&self) -> Option<FleetStand> {
        match self {
            Self::Mysql(catalog) => catalog.fleet_stand(),
            Self::Sqlite(catalog) => catalog.fleet_stand(),
        }
    }

    /// What waits of each of several targets, counted for about so long, and what the storage node lacks that is worked for;
    /// nothing where there is no fleet.
    pub(crate) async fn backlog_and_debts(
        &self,
        limit: Duration,
    ) -> Result<(Vec<TargetBacklog>, Vec<NodeDebt>), CatalogError> {
        match self {
            _ if self.fleet_stand().is_none() => Ok(Default::default()),
            Self::Mysql(catalog) => catalog.backlog_and_debts(limit).await,
            Self::Sqlite(catalog) => catalog.debts().await.map(|debts| (Vec::new(), debts)),
        }
    }

    /// The rule by which files are named; `None` where the rows themselves say the path.
    pub fn layout(&self) -> Option<Layout> {
        match self {
            Self::Mysql(catalog) => Some(catalog.layout()),
            Self::Sqlite(_) => None,
        }
    }
}

impl AnyCatalog {
    /// What SupRsync publishes about its archive; `None` for other tables.
    pub async fn archive_stats(&self) -> Result<Option<ArchiveStats>, CatalogError> {
        match self {
            Self::Mysql(_) => Ok(None),
            Self::Sqlite(catalog) => catalog.archive_stats().await.map(Some),
        }
    }
}

impl Catalog for AnyCatalog {
    async fn claim(&self) -> Result<Claimed, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.claim().await,
            Self::Sqlite(catalog) => catalog.claim().await,
        }
    }

    async fn give_back(&self, in_flight: &BTreeSet<u32>) -> Result<bool, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.give_back(in_flight).await,
            Self::Sqlite(catalog) => catalog.give_back(in_flight).await,
        }
    }

    async fn lanes_lost(&self) {
        match self {
            Self::Mysql(catalog) => catalog.lanes_lost().await,
            Self::Sqlite(catalog) => catalog.lanes_lost().await,
        }
    }

    async fn lanes_move(&self) {
        match self {
            Self::Mysql(catalog) => catalog.lanes_move().await,
            Self::Sqlite(catalog) => catalog.lanes_move().await,
        }
    }

    async fn rest(&self) -> Result<(), CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.rest().await,
            Self::Sqlite(catalog) => catalog.rest().await,
        }
    }

    fn holds(&self, hold: Hold) -> bool {
        match self {
            Self::Mysql(catalog) => catalog.holds(hold),
            Self::Sqlite(catalog) => catalog.holds(hold),
        }
    }

    fn shares_link(&self) -> bool {
        match self {
            Self::Mysql(catalog) => catalog.shares_link(),
            Self::Sqlite(catalog) => catalog.shares_link(),
        }
    }

    async fn link_turn(&self, news: LinkNews) -> Result<LinkGrant, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.link_turn(news).await,
            Self::Sqlite(catalog) => catalog.link_turn(news).await,
        }
    }

    async fn look(&self, after: RecordId, limit: usize) -> Result<Looked, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.look(after, limit).await,
            Self::Sqlite(catalog) => catalog.look(after, limit).await,
        }
    }

    async fn fed_since(&self, since: Option<f64>) -> Result<Option<FedRows>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.fed_since(since).await,
            Self::Sqlite(catalog) => catalog.fed_since(since).await,
        }
    }

    async fn newest(&self) -> Result<RecordId, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.newest().await,
            Self::Sqlite(catalog) => catalog.newest().await,
        }
    }

    async fn changed(&self) {
        match self {
            Self::Mysql(catalog) => catalog.changed().await,
            Self::Sqlite(catalog) => catalog.changed().await,
        }
    }

    async fn record(&self, settled: &[Settled]) -> Result<u64, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.record(settled).await,
            Self::Sqlite(catalog) => catalog.record(settled).await,
        }
    }

    async fn retry(&self, which: &Retry) -> Result<u64, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.retry(which).await,
            Self::Sqlite(catalog) => catalog.retry(which).await,
        }
    }

    async fn given_up(&self, which: &Retry, limit: usize) -> Result<Vec<Note>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.given_up(which, limit).await,
            Self::Sqlite(catalog) => catalog.given_up(which, limit).await,
        }
    }

    async fn keeping(&self) -> Result<Keeping, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.keeping().await,
            Self::Sqlite(catalog) => catalog.keeping().await,
        }
    }

    async fn totals(&self) -> Result<Totals, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.totals().await,
            Self::Sqlite(catalog) => catalog.totals().await,
        }
    }

    async fn oldest(&self) -> Result<Option<f64>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.oldest().await,
            Self::Sqlite(catalog) => catalog.oldest().await,
        }
    }

    async fn names(&self, below: RecordId, rows: usize) -> Result<Option<(Vec<String>, RecordId)>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.names(below, rows).await,
            Self::Sqlite(catalog) => catalog.names(below, rows).await,
        }
    }

    async fn last_copy(&self, copy: &CopyPlace) -> Result<Option<RecordId>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.last_copy(copy).await,
            Self::Sqlite(catalog) => catalog.last_copy(copy).await,
        }
    }

    fn id_step(&self) -> i64 {
        match self {
            Self::Mysql(catalog) => catalog.id_step(),
            Self::Sqlite(catalog) => catalog.id_step(),
        }
    }

    fn generation(&self) -> u64 {
        match self {
            Self::Mysql(catalog) => catalog.generation(),
            Self::Sqlite(catalog) => catalog.generation(),
        }
    }

    fn path_limit(&self) -> usize {
        match self {
            Self::Mysql(catalog) => catalog.path_limit(),
            Self::Sqlite(catalog) => catalog.path_limit(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Mysql(catalog) => catalog.describe(),
            Self::Sqlite(catalog) => catalog.describe(),
        }
    }

    async fn close(&self) {
        match self {
            Self::Mysql(catalog) => catalog.close().await,
            Self::Sqlite(catalog) => catalog.close().await,
        }
    }
}
