//! What is wanted of a database, and what was made in one.

use super::{FarLink, Layout, Selection, StorageNode};

/// What is wanted of a database.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which rows.
    pub selection: Selection,
    /// MySQL: the table; by default the newest of `pysmurf_files_v1`, `pysmurf_files_v0`, `pysmurf_files` that exists.
    pub table: Option<String>,
    /// MySQL: the naming rule; by default by action if the table has that column, else by type.
    pub layout: Option<Layout>,
    /// SQLite: make the file, its folder and its tables where they are absent. Else that is an error: a mistyped name must
    /// not become a database that nobody fills.
    pub create: bool,
    /// The storage node that is worked for, where a target has several.
    pub node: Option<StorageNode>,
    /// The link to the far end, where there is one.
    pub link: Option<FarLink>,
}

/// A table that [`init_db`](super::init_db) was to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its name.
    pub table: String,
    /// False when it was there already, and has been left as it was.
    pub new: bool,
}
