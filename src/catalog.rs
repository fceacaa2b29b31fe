//! The table of files: what is to be copied, and what became of it.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;

pub(crate) mod announced;
pub(crate) mod at_node;
mod database;
pub(crate) mod files;
mod fleet;
mod listing;
pub(crate) mod mysql;
mod names;
pub(crate) mod nodes;
mod note;
mod open;
mod options;
pub(crate) mod sqlite;
mod survey;

pub use database::{Database, DatabaseServer, Secret, ServerAddress, Tls, TlsMode};
#[cfg(test)]
pub(crate) use fleet::HeldLanes;
pub use fleet::{Claimed, FarLink, Hold, LinkGrant, LinkNews, LinkWay};
pub(crate) use fleet::{
    FleetLane, FleetLook, FleetRules, FleetStand, LanePlan, LinkLimits, LinkStand, MoverStand, Muster, MusteredMover,
    NodeDebt, SESSIONS_MOST, Serves, TargetBacklog, TargetLanes,
};
pub use names::strangers;
pub use nodes::{FedRows, NodeNames, RelayFeed, Spread, StorageNode};
pub use note::{Keeping, NOTES, Note};
pub use open::{AnyCatalog, init_db, inspect, make_fleet, make_indexes, make_node_tables, open, reach};
pub(crate) use open::{fleet_stand, limit_link};
pub use options::{Created, Options};
pub use survey::Survey;

/// Primary key of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub i64);

/// An MD5 sum as registered, 16 bytes.
pub type Md5 = [u8; 16];

/// A row that waits to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The row.
    pub id: RecordId,
    /// Where the file is now.
    pub source: PathBuf,
    /// The sum registered with it.
    pub md5: Md5,
    /// What the table says about where it belongs.
    pub naming: Naming,
    /// Failures counted so far, as read.
    pub attempts: i64,
    /// By which it is ours.
    pub hold: Hold,
}

/// What a table says about a file's place in the archive. `archiver::layout` turns it into a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// `pysmurf_files_v1`: `<5 ctime digits>/<pub_id>/<action_timestamp>_<action>/<plots|outputs>/<basename>`.
    Action {
        /// File time, seconds since 1970 UTC; `None` where the row has none.
        timestamp: Option<i64>,
        /// Publisher id.
        pub_id: Option<String>,
        /// Name of the pysmurf action.
        action: Option<String>,
        /// Start of the action, seconds since 1970.
        action_timestamp: Option<i64>,
        /// True for plots.
        plot: bool,
    },
    /// `pysmurf_files` and `pysmurf_files_v0`: `<5 ctime digits>/<type>/<basename>`.
    Type {
        /// File time, seconds since 1970 UTC; `None` where the row has none.
        timestamp: Option<i64>,
        /// The file's type.
        file_type: Option<String>,
    },
    /// `supersync_v0`: the row says the path itself, relative to the archive's base.
    Given(String),
}

/// By which of the two rules of the pysmurf tables a file is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// By publisher and action, see [`Naming::Action`].
    Action,
    /// By type, see [`Naming::Type`].
    Type,
}

/// A row as the catalog hands it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// A row to work on.
    Ready(Record),
    /// A row that cannot be used as it stands.
    Unusable {
        /// The row.
        id: RecordId,
        /// Failures counted so far, as read.
        attempts: i64,
        /// Its path, for messages, where it has one.
        source: Option<String>,
        /// What is wrong with it, naming the column.
        why: String,
        /// By which it is ours.
        hold: Hold,
    },
}

impl Pending {
    /// The row's key.
    pub fn id(&self) -> RecordId {
        match self {
            Self::Ready(record) => record.id,
            Self::Unusable { id, .. } => *id,
        }
    }

    /// By which it is ours.
    pub fn hold(&self) -> Hold {
        match self {
            Self::Ready(record) => record.hold,
            Self::Unusable { hold, .. } => *hold,
        }
    }

    /// The same row by this hold.
    fn held_by(mut self, by: Hold) -> Self {
        match &mut self {
            Self::Ready(Record { hold, .. }) | Self::Unusable { hold, .. } => *hold = by,
        }
        self
    }
}

/// What a look at a bounded part of the table gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Rows that wait, in order of id.
    pub rows: Vec<Pending>,
    /// Up to which id that is all of them.
    pub until: RecordId,
    /// There is no row above.
    pub ended: bool,
}

impl Looked {
    /// These rows, `limit` at most, of a look up to `last`, where the table ends or not.
    fn new(rows: Vec<Pending>, limit: usize, last: RecordId, ended: bool) -> Self {
        let until = rows.last().filter(|_| rows.len() >= limit).map(Pending::id);
        Self { ended: ended && until.is_none(), until: until.unwrap_or(last), rows }
    }
}

/// What became of a row, to be written back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The storage node confirmed the bytes. `path` is what the table's path column shall say: absolute for the MySQL
    /// tables, relative to the base for `supersync_v0`.
    Copied {
        /// Where the copy is.
        path: String,
        /// What was proven: it is recorded only of a row that still says so.
        md5: Md5,
    },
    /// Trouble of the file: one failed attempt more.
    Failed {
        /// In words, for the log.
        why: String,
        /// Where the trouble is.
        side: FailedSide,
    },
}

/// Where the trouble of a file is. Of several storage nodes each has its own, and all have the same source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedSide {
    /// The file here, or its row.
    Source,
    /// The storage node, which does not take it.
    Destination,
}

/// A row with its outcome. `attempts` is the count that was read with the row: a failure is written only over that very
/// count, so writing the same result twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The row.
    pub id: RecordId,
    /// Failures counted when the row was read.
    pub attempts: i64,
    /// What became of it.
    pub outcome: Outcome,
    /// By which the row was ours when it was read.
    pub hold: Hold,
}

/// Where the copy of a row would go that stands there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPlace {
    /// The row.
    pub id: RecordId,
    /// Its file.
    pub source: PathBuf,
    /// The place, as the table's path column says it of a copy.
    pub path: String,
}

/// Which rows concern this archiver.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// MySQL: instance ids of the monitors (`--target`). SQLite: the archive's name (`--archive-name`), exactly one.
    pub targets: Vec<String>,
    /// Rows with this many failed attempts are left alone. 5 in the old agents.
    pub max_attempts: i64,
}

/// Which of the rows that were given up shall be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// All of them.
    All,
    /// These.
    Ids(Vec<RecordId>),
    /// Those whose source path is like this, `*` standing for anything and `?` for one character.
    Pattern(String),
}

impl Retry {
    /// What has come of it for so many rows, in words.
    pub fn told(rows: u64) -> String {
        match rows {
            1 => "1 row will be tried again".to_owned(),
            rows => format!("{rows} rows will be tried again"),
        }
    }

    /// What LIKE wants of a path that ends in `name`.
    fn like_end(name: &str) -> String {
        // Not as a pattern: what is named is meant.
        let name: String = name
            .chars()
            .flat_map(|char| match char {
                '%' | '_' | '|' => vec!['|', char],
                char => vec![char],
            })
            .collect();
        format!("%/{name}")
    }

    /// A pattern as SQL's LIKE wants it, with `|` as its escape character.
    fn like(pattern: &str) -> String {
        let mut like = String::with_capacity(pattern.len());
        for char in pattern.chars() {
            match char {
                '*' => like.push('%'),
                '?' => like.push('_'),
                '%' | '_' | '|' => like.extend(['|', char]),
                char => like.push(char),
            }
        }
        like
    }
}

/// How many rows are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Waiting to be copied.
    pub pending: u64,
    /// Given up: failed `max_attempts` times.
    pub given_up: u64,
    /// Copied.
    pub copied: u64,
}

/// What SupRsync publishes about an archive.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct ArchiveStats {
    /// Unix time in seconds: all that was registered before is proven.
    pub finalized_until: f64,
    /// Files of the archive.
    pub num_files: i64,
    /// Those that are neither proven nor ignored.
    pub uncopied_files: i64,
    /// Source of the file registered last; empty without any.
    pub last_file_added: String,
    /// Source of the file copied last; empty without any.
    pub last_file_copied: String,
}

/// Why the table could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// An option or URL that cannot be used, or a table that lacks what we need. Trying again will not help.
    #[error("{0}")]
    Setup(String),
    /// The database is out of reach, refuses us, or is busy. Trying again later may help.
    #[error("Database {database}: {why}")]
    Unavailable {
        /// The database, without any password.
        database: String,
        /// The database's words.
        why: String,
    },
    /// The rows are another archiver's now; nothing was written.
    #[error("{0}")]
    Lost(String),
}

/// A table of files. Every call is bounded in time and memory, and holds no lock that would block the producer.
pub trait Catalog: Send + Sync + 'static {
    /// Claims the rows for this process, or a share of them: two archivers at once could put different bytes under one name
    /// at the same moment. [`CatalogError::Unavailable`] while another one holds them and shares them with nobody. Cheap
    /// while the claim stands; it ends with [`Catalog::close`], or some time after the process.
    fn claim(&self) -> impl Future<Output = Result<Claimed, CatalogError>> + Send;

    /// Gives lanes back that others wait for, of which no rows are in flight; whether some are still to go. Called between
    /// two looks, when no row is on its way from one into flight.
    fn give_back(&self, in_flight: &BTreeSet<u32>) -> impl Future<Output = Result<bool, CatalogError>> + Send {
        let _ = in_flight;
        async { Ok(false) }
    }

    /// Comes back when others have taken over all that is ours, from the first poll on; never where nobody can.
    fn lanes_lost(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Comes back when it is time for a claim and to give lanes back; never where there is no such time.
    fn lanes_move(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Wants no rows until the next claim: all lanes are to be given back.
    fn rest(&self) -> impl Future<Output = Result<(), CatalogError>> + Send {
        async { Ok(()) }
    }

    /// Whether the link to the far end is shared with others, so that nothing goes over it before the first turn.
    fn shares_link(&self) -> bool {
        false
    }

    /// Takes our turn at that link: tells how it goes, and hears what may be used of it. [`CatalogError::Setup`] where the
    /// database refuses it to us, and not only is away.
    fn link_turn(&self, news: LinkNews) -> impl Future<Output = Result<LinkGrant, CatalogError>> + Send {
        let _ = news;
        async { Ok(LinkGrant::default()) }
    }

    /// Whether what was read by this hold still is ours.
    fn holds(&self, hold: Hold) -> bool {
        let _ = hold;
        true
    }

    /// Looks at some thousands of rows above `after`, for at most `limit` that wait: short, however long the table is.
    fn look(&self, after: RecordId, limit: usize) -> impl Future<Output = Result<Looked, CatalogError>> + Send;

    /// Of a storage node that another one feeds: rows that one has proven from this moment on and this one lacks, and until
    /// when that is seen, both in unix seconds by the clock that the proofs have; without a moment, none yet. `None` where
    /// only looks through all rows find them.
    fn fed_since(&self, since: Option<f64>) -> impl Future<Output = Result<Option<FedRows>, CatalogError>> + Send {
        let _ = since;
        async { Ok(None) }
    }

    /// At most `limit` waiting rows with an id above `after`, in order of id. May go through the table, look by look.
    fn pending(
        &self,
        after: RecordId,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Pending>, CatalogError>> + Send {
        async move {
            let mut rows = Vec::new();
            let (mut after, mut ended) = (after, false);
            while rows.len() < limit && !ended {
                let looked = self.look(after, limit - rows.len()).await?;
                (after, ended) = (looked.until, looked.ended);
                rows.extend(looked.rows);
            }
            Ok(rows)
        }
    }

    /// The largest id in the table, 0 when it is empty. Cheap.
    fn newest(&self) -> impl Future<Output = Result<RecordId, CatalogError>> + Send;

    /// Comes back when something may have been written to the table since this was called last. Where nobody tells, it never
    /// does; whoever relies on it finds out by asking.
    fn changed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Writes outcomes back in one short transaction; either all of them or none. Writing the same again is harmless. Why a
    /// row failed is noted with its failure, where notes can be kept. Returns how many rows changed. [`CatalogError::Lost`]
    /// where one of them is not ours any more.
    fn record(&self, settled: &[Settled]) -> impl Future<Output = Result<u64, CatalogError>> + Send;

    /// Sets the failures of rows that were given up to none, in short transactions; returns how many. May scan the table.
    fn retry(&self, which: &Retry) -> impl Future<Output = Result<u64, CatalogError>> + Send;

    /// What is noted of those rows that were given up which are meant; at most so many. May scan the table.
    fn given_up(&self, which: &Retry, limit: usize) -> impl Future<Output = Result<Vec<Note>, CatalogError>> + Send;

    /// Whether reasons of failures are kept.
    fn keeping(&self) -> impl Future<Output = Result<Keeping, CatalogError>> + Send;

    /// Counts rows. May scan the table; not for every poll.
    fn totals(&self) -> impl Future<Output = Result<Totals, CatalogError>> + Send;

    /// When the oldest waiting row was registered, or its file written: unix time in seconds. May scan the table.
    fn oldest(&self) -> impl Future<Output = Result<Option<f64>, CatalogError>> + Send;

    /// The names, targets or archives, of the `rows` rows below `below`, and the lowest of these rows' ids; `None` where
    /// there is no row below.
    fn names(
        &self,
        below: RecordId,
        rows: usize,
    ) -> impl Future<Output = Result<Option<(Vec<String>, RecordId)>, CatalogError>> + Send;

    /// The row that had a copy put at a place of the archive last, if that was one of the same file, by the table: an earlier one
    /// may be replaced, and has been by a later one. Looks at rows of that place alone where an index or the place's name leads
    /// to them.
    fn last_copy(&self, copy: &CopyPlace) -> impl Future<Output = Result<Option<RecordId>, CatalogError>> + Send;

    /// By how much ids grow from row to row: more than one where several servers give them out.
    fn id_step(&self) -> i64 {
        1
    }

    /// Grows each time another table is found under the same name, or other lanes are ours: what was remembered is void.
    fn generation(&self) -> u64 {
        0
    }

    /// The longest path the path column takes, in characters.
    fn path_limit(&self) -> usize;

    /// The table, for messages: `table pysmurf_files_v1 of mysql://host:3306/files`; never with a password.
    fn describe(&self) -> String;

    /// Leaves the database in order.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
