//! The open database file, and whether it still is the one under its name.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::changes::Changes;
use super::table::{FILES, REQUIRED, columns, create};
use super::trouble::{trouble, unavailable};
use crate::catalog::CatalogError;
use std::sync::Arc;
use std::time::Duration;

/// How long a call waits for another program's lock; SupRsync's own patience.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::catalog) enum OpenFor {
    /// To be used, and made with its folder and tables where it is absent.
    Create,
    /// To be used; that it is absent is an error.
    Use,
    /// To be looked at; nothing is changed.
    Look,
}

/// An open file, and what stood under its name when it was opened.
pub(super) struct Handle {
    path: PathBuf,
    purpose: OpenFor,
    /// `None` once closed, and while a file that was replaced cannot be opened.
    connection: Option<Connection>,
    closed: bool,
    columns: Vec<String>,
    file: Id,
    /// Its write-ahead log, once it has one.
    log: Option<Id>,
    replaced: u64,
    /// Who is to hear of writes, and to which files by now.
    changes: Option<Arc<Changes>>,
    followed: Option<(Id, Option<Id>)>,
}

/// Device and number of a file.
type Id = (u64, u64);

impl Handle {
    /// Opens the file and looks for its table.
    pub(super) fn open(path: &Path, database: &str, purpose: OpenFor) -> Result<Self, CatalogError> {
        let path = absolute(path).map_err(|error| unavailable(database, error.to_string()))?;
        let mut connection = connect(&path, database, purpose)?;
        if purpose == OpenFor::Create {
            create(&mut connection).map_err(|error| trouble(database, error))?;
        }
        let columns = usable(&connection, database)?;
        if purpose != OpenFor::Look {
            keep_log(&connection, database)?;
        }
        let file = id(&path)
            .ok()
            .flatten()
            .ok_or_else(|| unavailable(database, "the file went away while it was opened".into()))?;
        let log = id(&log_of(&path)).ok().flatten();
        let connection = Some(connection);
        let (changes, followed) = (None, None);
        Ok(Self { path, purpose, connection, closed: false, columns, file, log, replaced: 0, changes, followed })
    }

    /// Whether the table has this column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }

    /// How often the file was found replaced by another one.
    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Has somebody hear of writes from the next use on.
    pub(super) fn tell(&mut self, changes: Arc<Changes>) {
        self.changes = Some(changes);
    }

    /// Has it followed what is under the two names now.
    fn follow(&mut self) {
        let now = Some((self.file, self.log));
        if let Some(changes) = &self.changes
            && self.followed != now
        {
            changes.follow(&[&self.path, &log_of(&self.path)]);
            self.followed = now;
        }
    }

    /// The connection to the file that is under the name now. One that was restored or rotated is opened anew: the old
    /// one would be watched for ever, and what is written to it be lost.
    pub(super) fn current(&mut self, database: &str) -> Result<&mut Connection, CatalogError> {
        if self.closed {
            return Err(unavailable(database, "closed".into()));
        }
        let look = |path: &Path| id(path).map_err(|error| unavailable(database, error.to_string()));
        let Some(file) = look(&self.path)? else {
            return Err(unavailable(
                database,
                "the file is not there any more; put it back, or restart with another --db".into(),
            ));
        };
        let log = look(&log_of(&self.path))?;
        let same = file == self.file && self.log.is_none_or(|before| log == Some(before));
        self.log = log;
        if !same || self.connection.is_none() {
            self.reopen(database)?;
        }
        self.follow();
        self.connection.as_mut().ok_or_else(|| unavailable(database, "closed".into()))
    }

    fn reopen(&mut self, database: &str) -> Result<(), CatalogError> {
        self.let_go();
        let again = |error: CatalogError| match error {
            // What is under the name now may still be on its way there.
            CatalogError::Setup(why) => unavailable(database, format!("the file was replaced. {why}")),
            error => error,
        };
        let purpose = if self.purpose == OpenFor::Create { OpenFor::Use } else { self.purpose };
        let fresh = Self::open(&self.path, database, purpose).map_err(again)?;
        for name in ["ignore", "deletable"] {
            if fresh.has(name) != self.has(name) {
                let why =
                    format!("the file was replaced by one whose table differs in column {name}; restart the archiver");
                return Err(unavailable(database, why));
            }
        }
        tracing::warn!("Database {database} was replaced while in use; the file that is there now is watched");
        let changes = self.changes.take();
        *self = Self { purpose: self.purpose, replaced: self.replaced + 1, changes, ..fresh };
        Ok(())
    }

    /// Closes a file that is not under its name any more: its log must stay as it is, for one of that name may be the new
    /// file's.
    fn let_go(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).is_err()
        {
            // Then rather never closed.
            std::mem::forget(connection);
        }
    }

    /// Closes the file in order.
    pub(super) fn close(&mut self) {
        let ours = id(&self.path).is_ok_and(|file| file == Some(self.file));
        if !ours || self.log.is_some_and(|log| !id(&log_of(&self.path)).is_ok_and(|now| now == Some(log))) {
            self.let_go();
        }
        self.connection = None;
        self.closed = true;
    }
}

fn id(path: &Path) -> std::io::Result<Option<Id>> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// SQLite's name for the write-ahead log. Through a symlink it stands beside the file itself.
fn log_of(path: &Path) -> PathBuf {
    let mut name = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    name.push("-wal");
    name.into()
}

/// The columns of the table, which must serve.
fn usable(connection: &Connection, database: &str) -> Result<Vec<String>, CatalogError> {
    let columns = columns(connection).map_err(|error| trouble(database, error))?;
    if columns.is_empty() {
        return Err(CatalogError::Setup(format!(
            "Database {database} has no table {FILES}; create it with init-db, or name another file in --db"
        )));
    }
    let missing: Vec<&str> = REQUIRED.into_iter().filter(|name| !columns.iter().any(|column| column == name)).collect();
    if !missing.is_empty() {
        return Err(CatalogError::Setup(format!(
            "Table {FILES} of {database} lacks column {}; give a database made by SupRsync",
            missing.join(", ")
        )));
    }
    Ok(columns)
}

pub(super) fn connect(path: &Path, database: &str, purpose: OpenFor) -> Result<Connection, CatalogError> {
    let setup =
        |why: String| CatalogError::Setup(format!("Database {database}: {why}; check --db and the rights there"));
    let file = absolute(path).map_err(|error| setup(error.to_string()))?;
    // Without SQLITE_OPEN_URI: a file name is a file name, also when it begins with `file:`.
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match (purpose, file.parent()) {
        (OpenFor::Create, folder) => {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
            if let Some(folder) = folder {
                std::fs::create_dir_all(folder)
                    .map_err(|error| setup(format!("Folder {} cannot be made: {error}", folder.display())))?;
            }
        }
        (OpenFor::Use | OpenFor::Look, folder) => {
            match std::fs::metadata(&file) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(CatalogError::Setup(format!(
                        "Database {database} is not there; correct --db, or create it with: pysmurf-archiver init-db --db {}",
                        shlex::try_quote(database).unwrap_or(database.into())
                    )));
                }
                Err(error) => return Err(setup(error.to_string())),
                Ok(meta) if !meta.is_file() => return Err(setup("this is no file".to_owned())),
                Ok(_) => {}
            }
            // The journal is made beside the file.
            if let Some(folder) = folder {
                rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(|error| {
                    let error = std::io::Error::from(error);
                    setup(format!("folder {} cannot be written: {error}", folder.display()))
                })?;
            }
        }
    }
    let connection = Connection::open_with_flags(&file, flags).map_err(|error| setup(error.to_string()))?;
    connection.busy_timeout(BUSY_LIMIT).map_err(|error| trouble(database, error))?;
    if connection.is_readonly("main").unwrap_or(false) {
        return Err(setup("the file cannot be written".to_owned()));
    }
    if purpose == OpenFor::Look {
        connection.pragma_update(None, "query_only", true).map_err(|error| trouble(database, error))?;
        return Ok(connection);
    }
    Ok(connection)
}

/// With a write-ahead log the producer can insert while we read.
pub(super) fn keep_log(connection: &Connection, database: &str) -> Result<(), CatalogError> {
    let mode: String = connection
        .query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))
        .map_err(|error| trouble(database, error))?;
    if mode != "wal" {
        tracing::warn!(database, mode, "No write-ahead log on this file system; reading blocks the producer");
    }
    Ok(())
}

/// SQLite gives some relative names a meaning of their own.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    if path.as_os_str() == OsStr::new("") {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "no file is named"));
    }
    std::path::absolute(path)
}
