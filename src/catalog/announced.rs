//! Files that their producers announce: rows as the Python monitor writes them, and beside them how far a spool of such
//! announcements has come, so that each is registered once whenever the process may end.

use super::{AnyCatalog, CatalogError, Md5};
use protocol::checksum::{Checksum, FileHasher};
use std::collections::{BTreeSet, HashMap};

/// The table of ours that says so: a row for each lane of each spool, and one for each announcement that was registered late.
pub(in crate::catalog) const SPOOLS: &str = "archiver_spool";
/// What stands in the place of a lane for those that were registered late.
pub(in crate::catalog) const LATE: &str = "late";
/// The table of files that were found in watched folders: by which stamp each was registered last, and with which sum.
pub(in crate::catalog) const WATCHED: &str = "archiver_watched";

/// A file to be registered as its producer means it, whatever the table has of it already.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AnnouncedFile {
    /// Where it is.
    pub(crate) path: String,
    pub(crate) md5: Md5,
    /// SupRsync: the agent that copies it.
    pub(crate) archive: String,
    /// SupRsync: where it goes, relative to the archive's base.
    pub(crate) remote: String,
    /// SupRsync: when it was registered, unix time in seconds.
    pub(crate) registered: f64,
    /// SupRsync: whether it may be deleted once it is copied.
    pub(crate) deletable: bool,
    /// The pysmurf tables: what stands in their columns.
    pub(crate) columns: PysmurfColumns,
    /// It was found in a watched folder, and is registered only if the table does not know it.
    pub(crate) watched: Option<WatchedMark>,
}

/// By what a table knows a file of a watched folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WatchedMark {
    /// As [`watched_key`] makes it.
    pub(crate) key: String,
    /// As it was when it was summed.
    pub(crate) stamp: String,
}

/// The key of a file of somebody's, whose path may be of any length.
pub(crate) fn watched_key(owner: &str, path: &[u8]) -> String {
    let mut hasher = FileHasher::new(Checksum::Md5);
    hasher.update(owner.as_bytes());
    hasher.update(b"\0");
    hasher.update(path);
    hasher.finish().to_string()
}

/// What the pysmurf tables have of a file beside path and sum; NULL where nothing is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PysmurfColumns {
    pub(crate) action: Option<String>,
    /// Tables older than actions.
    pub(crate) file_type: Option<String>,
    /// Unix time in whole seconds.
    pub(crate) timestamp: i64,
    pub(crate) action_timestamp: Option<i64>,
    pub(crate) format: Option<String>,
    pub(crate) plot: i64,
    pub(crate) publisher: Option<String>,
    pub(crate) site: String,
    pub(crate) instance: String,
}

/// One announcement of a spool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SpoolNumber {
    /// The spool's own name.
    pub(crate) spool: String,
    pub(crate) number: u64,
}

/// How far a lane of a spool comes by a batch: below these numbers all is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaneStep {
    pub(crate) spool: String,
    pub(crate) lane: &'static str,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What is written in one transaction, or not at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnnouncedBatch {
    /// In the order of their rows.
    pub(crate) files: Vec<AnnouncedFile>,
    pub(crate) steps: Vec<LaneStep>,
    /// Announcements among them that were passed over before.
    pub(crate) late: Vec<SpoolNumber>,
    /// Late ones of earlier batches of which nobody will ask any more.
    pub(crate) forgotten: Vec<SpoolNumber>,
}

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnnouncedOutcome {
    /// Those with these places had their row already.
    Registered(BTreeSet<usize>),
    /// Nothing was written: the table says of the spool something else than was thought, since it is another one, or since
    /// the batch was written although nobody heard of it.
    Elsewhere,
    /// Nothing was written: the table does not take this one of the files, in the server's words.
    Refused(usize, String),
}

/// What a table says of a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SpoolMarks {
    /// Of each lane that it knows the number below which all is done.
    pub(crate) lanes: Vec<(String, u64)>,
    /// Announcements of any spool that were registered late.
    pub(crate) late: Vec<SpoolNumber>,
}

impl AnyCatalog {
    /// What the table says of this spool; makes the place for it.
    pub(crate) async fn spool_marks(&self, spool: &str) -> Result<SpoolMarks, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.spool_marks(spool).await,
            Self::Sqlite(catalog) => catalog.spool_marks(spool).await,
        }
    }

    /// With which stamps it knows files of watched folders, by their keys; makes the place for them.
    pub(crate) async fn watched_stamps(&self, keys: Vec<String>) -> Result<HashMap<String, String>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.watched_stamps(keys).await,
            Self::Sqlite(catalog) => catalog.watched_stamps(keys).await,
        }
    }

    /// Writes a batch in one short transaction.
    pub(crate) async fn register_announced(&self, batch: AnnouncedBatch) -> Result<AnnouncedOutcome, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.register_announced(batch).await,
            Self::Sqlite(catalog) => catalog.register_announced(batch).await,
        }
    }
}
