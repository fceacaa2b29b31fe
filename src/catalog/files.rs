//! Rows as people ask for them: what stands in the table of a file, what is changed at their word, what they register.

use super::at_node::{AtNode, AtNodes};
use super::nodes::{LackingCopy, NodeNames, NodeStand};
use super::{AnyCatalog, CatalogError, Md5, Pending, RecordId, Retry};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How many failures a note is of that says who has had a row ignored.
pub(super) const IGNORED: i64 = -1;

/// What is to become of a row, or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileState {
    /// It waits and never failed.
    Waiting,
    /// It failed, and will be tried again.
    Retrying,
    /// It failed too often.
    GivenUp,
    /// Its copy is proven.
    Copied,
    /// Nobody will copy it, and why.
    Ignored(&'static str),
}

/// Which states are asked for; none of them means any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileStates {
    /// Those that wait, whether they failed or not.
    pub(crate) pending: bool,
    /// Those that failed, given up or not.
    pub(crate) failed: bool,
    pub(crate) copied: bool,
    pub(crate) ignored: bool,
}

impl FileStates {
    /// Whether none is named.
    pub(crate) fn any(self) -> bool {
        self == Self::default()
    }

    /// Whether only rows without a proven copy are asked for.
    pub(super) fn uncopied(self) -> bool {
        !self.copied && !self.any()
    }

    /// Whether only rows that failed are asked for.
    pub(super) fn only_failed(self) -> bool {
        self == Self { failed: true, ..Self::default() }
    }
}

/// Which rows are asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FileQuery {
    pub(crate) states: FileStates,
    /// These alone.
    pub(crate) ids: Option<Vec<RecordId>>,
    /// One of its paths is like this, `*` standing for anything and `?` for one character.
    pub(crate) path: Option<String>,
    /// The row's time is before this, unix time in seconds.
    pub(crate) before: Option<f64>,
    /// As they stand at storage nodes, too, or only so.
    pub(crate) at: AtNodes,
}

impl FileQuery {
    /// The pattern as SQL's LIKE has it.
    pub(super) fn like(&self) -> Option<String> {
        self.path.as_deref().map(Retry::like)
    }
}

/// A row as it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileRow {
    /// What the archiver reads of it. Of a copied row of MySQL the source is where the copy is.
    pub(crate) row: Pending,
    pub(crate) state: FileState,
    /// The target, or the archive's name.
    pub(crate) owner: String,
    /// When it was registered, or its file written; unix time in seconds.
    pub(crate) time: Option<f64>,
    /// When the copy was made, as SupRsync's rows say.
    pub(crate) copied_at: Option<f64>,
    /// When the local file was deleted.
    pub(crate) removed_at: Option<f64>,
    /// When it failed last, or was set aside, and why.
    pub(crate) reason: Option<(f64, String)>,
    /// What this is about, if it is how the row stands at a storage node; all else is of the row itself.
    pub(crate) at: Option<AtNode>,
}

impl FileRow {
    /// The row's key.
    pub(crate) fn id(&self) -> RecordId {
        self.row.id()
    }

    /// Failures counted.
    pub(crate) fn attempts(&self) -> i64 {
        match &self.row {
            Pending::Ready(record) => record.attempts,
            Pending::Unusable { attempts, .. } => *attempts,
        }
    }

    /// The path that stands in the row; of a copied row of MySQL that of the copy.
    pub(crate) fn path(&self) -> &Path {
        match &self.row {
            Pending::Ready(record) => &record.source,
            Pending::Unusable { source, .. } => Path::new(source.as_deref().unwrap_or_default()),
        }
    }

    /// The registered sum.
    pub(crate) fn md5(&self) -> Option<Md5> {
        match &self.row {
            Pending::Ready(record) => Some(record.md5),
            Pending::Unusable { .. } => None,
        }
    }
}

/// Rows of a bounded part of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FilePage {
    /// In order of id.
    pub(crate) rows: Vec<FileRow>,
    /// Up to which id that is all.
    pub(crate) until: RecordId,
    /// There is none above.
    pub(crate) ended: bool,
}

/// What is done to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowChange {
    /// It is not to be copied; why, for the note.
    Ignore(String),
    /// It is to be copied after all.
    Unignore,
    /// The file has this sum now, and that counts.
    Accept(Md5),
    /// The copy is to be made or proven again, from this source where the row does not say it.
    Recopy(Option<PathBuf>),
    /// This storage node owes its copy, whatever it has proven.
    Owe(String),
}

/// A file to be registered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewRow {
    /// Where it is; absolute.
    pub(crate) source: String,
    /// Where it goes, relative to the archive's base. MySQL has it only once it is copied.
    pub(crate) remote: String,
    pub(crate) md5: Md5,
    /// Unix time in seconds.
    pub(crate) time: f64,
    /// MySQL: action or type.
    pub(crate) kind: String,
    /// MySQL: the publisher.
    pub(crate) publisher: String,
    /// MySQL: the suffix of its name.
    pub(crate) format: String,
    /// MySQL: it is a plot.
    pub(crate) plot: bool,
    /// SupRsync: the local file may be deleted once its copy is proven.
    pub(crate) deletable: bool,
}

/// What the table has of a file that is to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Nothing; it is registered now, or would be.
    New,
    /// The same file with the same sum.
    Same,
    /// The same file with another sum; left as it is.
    Changed(RecordId),
    /// Another file that goes to the same place; left as it is.
    PlaceTaken(RecordId),
    /// The table does not take it, in the server's words.
    Refused(String),
}

/// Whether the changes are made, or only judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    Done,
    Tried,
}

/// The tails of a path, longest first: what of it may stand in a column that is relative to a base nobody knows.
pub(super) fn tails(path: &str) -> Vec<String> {
    let mut tails = Vec::new();
    let mut rest = path.trim_start_matches('/');
    while !rest.is_empty() && tails.len() < 64 {
        tails.push(rest.to_owned());
        rest = rest.split_once('/').map_or("", |(_, rest)| rest);
    }
    tails
}

/// A path from what the table's column holds, which is bytes.
pub(super) fn bytes_of(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    OsStr::as_bytes(path.as_os_str())
}

impl AnyCatalog {
    /// A bounded look at the rows above `after`, for at most `limit` that are asked for, wherever they stand at storage nodes.
    pub(super) async fn files_themselves(
        &self,
        query: &FileQuery,
        after: RecordId,
        limit: usize,
    ) -> Result<FilePage, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.files(query, after, limit).await,
            Self::Sqlite(catalog) => catalog.files(query, after, limit).await,
        }
    }

    /// At most `limit` rows of a file that somebody names by one of its paths, or the end of one. May go through the table.
    pub(crate) async fn find(&self, name: &str, limit: usize) -> Result<Vec<FileRow>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.find(name, limit).await,
            Self::Sqlite(catalog) => catalog.find(name, limit).await,
        }
    }

    /// Changes rows in one short transaction, each only if it still is as it was read; says of which that was so.
    pub(crate) async fn change(&self, changes: &[(FileRow, RowChange)]) -> Result<Vec<bool>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.change(changes).await,
            Self::Sqlite(catalog) => catalog.change(changes).await,
        }
    }

    /// The storage nodes that the copies of these rows go to; none where there is one far end.
    pub(crate) async fn storage_nodes(&self) -> Result<Vec<String>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.storage_nodes().await,
            Self::Sqlite(catalog) => catalog.storage_nodes().await,
        }
    }

    /// The same, with those that are fed from others.
    pub(crate) async fn node_names(&self) -> Result<NodeNames, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.node_names().await,
            Self::Sqlite(catalog) => catalog.node_names().await,
        }
    }

    /// How each storage node stands to a row.
    pub(crate) async fn stands(&self, id: RecordId) -> Result<Vec<NodeStand>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.stands(id).await,
            Self::Sqlite(catalog) => catalog.stands(id).await,
        }
    }

    /// Rows of which the storage node that is worked for owes copies whose files are here no more, at most so many.
    pub(crate) async fn lacking(&self, limit: usize) -> Result<Vec<LackingCopy>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.lacking(limit).await,
            Self::Sqlite(catalog) => catalog.lacking(limit).await,
        }
    }

    /// Says where the file of such a row is now.
    pub(crate) async fn lend(&self, id: RecordId, path: &str) -> Result<(), CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.lend(id, path).await,
            Self::Sqlite(catalog) => catalog.lend(id, path).await,
        }
    }

    /// Which of these rows that node still owes.
    pub(crate) async fn still_owed(&self, ids: Vec<RecordId>) -> Result<Vec<bool>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.still_owed(ids).await,
            Self::Sqlite(catalog) => catalog.still_owed(ids).await,
        }
    }

    /// Registers what the table does not have, in one short transaction; says what it had of each.
    pub(crate) async fn register(&self, rows: &[NewRow], writing: Writing) -> Result<Vec<Registered>, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.register(rows, writing).await,
            Self::Sqlite(catalog) => catalog.register(rows, writing).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_its_tails() {
        assert_eq!(tails("/a/b c/d"), ["a/b c/d", "b c/d", "d"]);
        assert_eq!(tails("d"), ["d"]);
        assert!(tails("/").is_empty());
    }
}
