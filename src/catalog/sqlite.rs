//! SupRsync's table `supersync_v0` in a file of SQLite.
//! Creates the tables where they are absent, never alters them. One connection, used on tokio's threads for blocking
//! work, one call at a time.

mod note;
mod row;
mod upkeep;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, TransactionBehavior, params};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::status::unix_now;

pub use upkeep::{Complete, NewFile, Prunable};

use super::{
    ArchiveStats, Catalog, CatalogError, Created, Database, Keeping, NOTES, Note, Outcome, Pending, RecordId, Retry,
    Selection, Settled, Totals,
};

/// How long a call waits for another program's lock; SupRsync's own patience.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// Limit for one call, also when the disk hangs. A scan of ten million rows takes some seconds.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Longest path we read or write: what the kernel takes. The columns themselves have no limit.
const PATH_LIMIT: usize = 4096;

pub(super) const FILES: &str = "supersync_v0";
const TIMECODES: &str = "timecode_dirs_v0";

/// SupRsync's statements as SQLAlchemy emits them.
const CREATE_FILES: &str = "CREATE TABLE supersync_v0 (
    id INTEGER NOT NULL, local_path VARCHAR NOT NULL, local_md5sum VARCHAR NOT NULL, archive_name VARCHAR NOT NULL, remote_path VARCHAR NOT NULL,
    timestamp FLOAT NOT NULL, remote_md5sum VARCHAR, copied FLOAT, removed FLOAT, failed_copy_attempts INTEGER, deletable BOOLEAN, \"ignore\" BOOLEAN, PRIMARY KEY (id))";
const CREATE_TIMECODES: &str = "CREATE TABLE timecode_dirs_v0 (
    id INTEGER NOT NULL, timecode INTEGER NOT NULL, archive_name VARCHAR NOT NULL, completed BOOLEAN, synced BOOLEAN, finalized BOOLEAN, finalize_file_id INTEGER,
    PRIMARY KEY (id), FOREIGN KEY(finalize_file_id) REFERENCES supersync_v0 (id))";

/// Columns that every age of the table has, and without which we cannot work.
const REQUIRED: [&str; 9] = [
    "id",
    "local_path",
    "local_md5sum",
    "archive_name",
    "remote_path",
    "remote_md5sum",
    "copied",
    "removed",
    "failed_copy_attempts",
];

/// SupRsync's table of files.
pub struct SqliteCatalog {
    /// `None` once closed.
    connection: Arc<Mutex<Option<Connection>>>,
    /// One call at a time, so that a hung disk holds one thread and not all.
    turn: Arc<Semaphore>,
    database: String,
    /// Held open and locked by the archiver that works on this archive.
    claim: Arc<Mutex<Option<File>>>,
    file: PathBuf,
    archive: String,
    max_attempts: i64,
    /// `AND "ignore" = 0`, or nothing where the table is older than that column. NULL never matches, as in SupRsync.
    not_ignored: &'static str,
    /// Older tables do not say which files may be deleted.
    has_deletable: bool,
}

impl SqliteCatalog {
    /// Opens the file, and creates it, its folder, and its tables where they are absent. [`CatalogError::Setup`] when
    /// that cannot be, or the table lacks a column.
    pub async fn open(path: &Path, selection: Selection) -> Result<Self, CatalogError> {
        Self::open_as(path, selection, Absent::Create).await
    }

    /// Opens the file for looking only: nothing is created or changed, and what is absent is [`CatalogError::Setup`].
    pub async fn inspect(path: &Path, selection: Selection) -> Result<Self, CatalogError> {
        Self::open_as(path, selection, Absent::Refuse).await
    }

    async fn open_as(path: &Path, selection: Selection, absent: Absent) -> Result<Self, CatalogError> {
        let [archive] = <[String; 1]>::try_from(selection.targets).map_err(|names| {
            CatalogError::Setup(format!(
                "A SQLite database serves exactly one archive, and {} are chosen; name one with --archive-name",
                names.len()
            ))
        })?;
        let database = Database::Sqlite(path.to_owned()).to_string();
        let file = path.to_owned();
        let opening = on_own_thread(&database, move |database| {
            let mut connection = connect(&file, database, absent)?;
            if absent == Absent::Create {
                create(&mut connection).map_err(|error| trouble(database, error))?;
            }
            let columns = columns(&connection).map_err(|error| trouble(database, error))?;
            if columns.is_empty() {
                return Err(CatalogError::Setup(format!(
                    "Database {database} has no table {FILES}; create it with init-db, or name another file in --db"
                )));
            }
            let missing: Vec<&str> =
                REQUIRED.into_iter().filter(|name| !columns.iter().any(|column| column == name)).collect();
            if !missing.is_empty() {
                return Err(CatalogError::Setup(format!(
                    "Table {FILES} of {database} lacks column {}; give a database made by SupRsync",
                    missing.join(", ")
                )));
            }
            let has = |name: &str| columns.iter().any(|column| column == name);
            Ok((connection, has("ignore"), has("deletable")))
        });
        let (connection, has_ignore, has_deletable) = in_time(&database, opening).await?;
        Ok(Self {
            connection: Arc::new(Mutex::new(Some(connection))),
            turn: Arc::new(Semaphore::new(1)),
            database,
            claim: Arc::default(),
            file: path.to_owned(),
            archive,
            max_attempts: selection.max_attempts,
            not_ignored: if has_ignore { "AND \"ignore\" = 0" } else { "" },
            has_deletable,
        })
    }

    /// Runs `work` on a thread for blocking work, when its turn comes.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.run_with(move |place, database| match place {
            Some(connection) => work(connection).map_err(|error| trouble(database, error)),
            None => Err(unavailable(database, "closed".to_owned())),
        })
        .await
    }

    async fn run_with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Option<Connection>, &str) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let connection = Arc::clone(&self.connection);
        let turn = Arc::clone(&self.turn);
        let calling = async {
            let turn = turn.acquire_owned().await;
            on_own_thread(&self.database, move |database| {
                // Held by the thread, also when nobody waits for it any more.
                let _turn = turn;
                work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner), database)
            })
            .await
        };
        in_time(&self.database, calling).await
    }

    /// What SupRsync publishes about the archive.
    pub async fn archive_stats(&self) -> Result<ArchiveStats, CatalogError> {
        let unverified = format!("remote_md5sum IS NOT local_md5sum {}", self.not_ignored);
        let source = |order: &str| {
            format!(
                "(SELECT CAST(substr(local_path, 1, {PATH_LIMIT}) AS TEXT) FROM {FILES} \
                 WHERE archive_name = ?1 {order} DESC LIMIT 1)"
            )
        };
        let query = format!(
            "SELECT COUNT(*), COUNT(CASE WHEN {unverified} THEN 1 END), MIN(CASE WHEN {unverified} THEN timestamp END), \
             {}, {} FROM {FILES} WHERE archive_name = ?1",
            source("ORDER BY id"),
            source("AND remote_md5sum = local_md5sum ORDER BY copied")
        );
        let archive = self.archive.clone();
        self.run(move |connection| {
            connection.query_row(&query, params![archive], |row| {
                let oldest: Option<f64> = row.get(2)?;
                Ok(ArchiveStats {
                    num_files: row.get(0)?,
                    uncopied_files: row.get(1)?,
                    finalized_until: oldest.map_or_else(unix_now, |oldest| oldest - 1.0),
                    last_file_added: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                    last_file_copied: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
                })
            })
        })
        .await
    }

    /// Which of the rows given up are meant: archive, attempts, and what comes with the condition are its parameters.
    fn meant(&self, which: &Retry) -> (String, Vec<rusqlite::types::Value>) {
        let (more, given): (&str, Vec<rusqlite::types::Value>) = match which {
            Retry::All => ("", vec![rusqlite::types::Value::Null]),
            Retry::Ids(ids) => ("AND id = ?3", ids.iter().map(|id| id.0.into()).collect()),
            Retry::Pattern(pattern) => ("AND local_path LIKE ?3 ESCAPE '|'", vec![Retry::like(pattern).into()]),
        };
        // The third parameter is named in any case, so that every form takes three.
        (format!("{} AND failed_copy_attempts >= ?2 {more} AND (1 OR ?3)", self.waiting()), given)
    }

    /// What makes a row one of ours that still waits, apart from its attempts.
    fn waiting(&self) -> String {
        format!("archive_name = ?1 AND removed IS NULL {} AND remote_md5sum IS NOT local_md5sum", self.not_ignored)
    }
}

impl Catalog for SqliteCatalog {
    async fn claim(&self) -> Result<(), CatalogError> {
        let (claim, path) = (Arc::clone(&self.claim), lock_file(&self.file, &self.archive));
        let claiming = on_own_thread(&self.database, move |database| {
            let mut claim = claim.lock().unwrap_or_else(PoisonError::into_inner);
            if claim.is_some() {
                return Ok(());
            }
            let busy = |why: String| unavailable(database, format!("{}: {why}", path.display()));
            let file = File::options().create(true).append(true).open(&path);
            let file = file.map_err(|error| busy(format!("{error}; the lock file must be writable")))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => *claim = Some(file),
                Err(Errno::WOULDBLOCK) => {
                    return Err(busy(
                        "another archiver works on the same --archive-name; stop one of the two".to_owned(),
                    ));
                }
                // Some network file systems have no such locks; then nobody watches but the operator.
                Err(error) => {
                    tracing::warn!(%error, file = %path.display(), "No lock to be had; see to it that no second archiver runs");
                    *claim = Some(file);
                }
            }
            Ok(())
        });
        in_time(&self.database, claiming).await
    }

    /// Rows whose `failed_copy_attempts` or `ignore` is NULL never match, as in SupRsync.
    async fn pending(&self, after: RecordId, limit: usize) -> Result<Vec<Pending>, CatalogError> {
        // A value may be a gigabyte: of one too long only its length is fetched, which `row::read` refuses as no text.
        // (`substr` and `length` would stop at a NUL.)
        let bounded = |column| format!("iif(octet_length({column}) <= {PATH_LIMIT}, {column}, octet_length({column}))");
        let query = format!(
            "SELECT id, CAST(failed_copy_attempts AS INTEGER), {}, {}, {} FROM {FILES} \
             WHERE id > ?2 AND {} AND failed_copy_attempts < ?3 ORDER BY id LIMIT ?4",
            bounded("local_path"),
            bounded("remote_path"),
            bounded("local_md5sum"),
            self.waiting()
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let rows = statement.query_map(params![archive, after.0, max_attempts, limit], row::read)?;
            rows.collect()
        })
        .await
    }

    async fn newest(&self) -> Result<RecordId, CatalogError> {
        self.run(|connection| {
            let newest: Option<i64> =
                connection.query_row(&format!("SELECT MAX(id) FROM {FILES}"), [], |row| row.get(0))?;
            Ok(RecordId(newest.unwrap_or(0)))
        })
        .await
    }

    async fn record(&self, settled: &[Settled]) -> Result<u64, CatalogError> {
        if settled.is_empty() {
            return Ok(0);
        }
        let settled = settled.to_vec();
        self.run(move |connection| write(connection, &settled)).await
    }

    async fn retry(&self, which: &Retry) -> Result<u64, CatalogError> {
        let (condition, given) = self.meant(which);
        let update = format!("UPDATE {FILES} SET failed_copy_attempts = 0 WHERE {condition}");
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut changed = 0;
            for given in given {
                changed += transaction.prepare_cached(&update)?.execute(params![archive, max_attempts, given])?;
            }
            if changed > 0 {
                note::forget_void(&transaction)?;
            }
            transaction.commit()?;
            Ok(changed as u64)
        })
        .await
    }

    async fn given_up(&self, which: &Retry, limit: usize) -> Result<Vec<Note>, CatalogError> {
        let (condition, given) = self.meant(which);
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        self.run(move |connection| {
            let mut notes = Vec::new();
            for given in given {
                if notes.len() < limit {
                    let values = [archive.clone().into(), max_attempts.into(), given];
                    notes.extend(note::read(connection, &condition, &values, limit - notes.len())?);
                }
            }
            Ok(notes)
        })
        .await
    }

    async fn keeping(&self) -> Result<Keeping, CatalogError> {
        // Who writes the file may make a table in it.
        self.run(|connection| Ok(if note::exist(connection)? { Keeping::There } else { Keeping::Later })).await
    }

    async fn totals(&self) -> Result<Totals, CatalogError> {
        let query = format!(
            "SELECT COUNT(CASE WHEN {0} AND failed_copy_attempts < ?2 THEN 1 END), \
             COUNT(CASE WHEN {0} AND failed_copy_attempts >= ?2 THEN 1 END), \
             COUNT(CASE WHEN remote_md5sum = local_md5sum THEN 1 END) FROM {FILES} WHERE archive_name = ?1",
            self.waiting()
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        self.run(move |connection| {
            connection.query_row(&query, params![archive, max_attempts], |row| {
                let count = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
                Ok(Totals { pending: count(0)?, given_up: count(1)?, copied: count(2)? })
            })
        })
        .await
    }

    async fn oldest(&self) -> Result<Option<f64>, CatalogError> {
        let query =
            format!("SELECT MIN(timestamp) FROM {FILES} WHERE {} AND failed_copy_attempts < ?2", self.waiting());
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        self.run(move |connection| connection.query_row(&query, params![archive, max_attempts], |row| row.get(0))).await
    }

    fn path_limit(&self) -> usize {
        PATH_LIMIT
    }

    fn describe(&self) -> String {
        format!("table {FILES} of {}", self.database)
    }

    async fn close(&self) {
        // Here, and not where the catalog is dropped: the last one out empties the write-ahead log. Trouble with that
        // costs the next one in some time, and nothing else.
        let _ = self
            .run_with(|place, _| {
                drop(place.take());
                Ok(())
            })
            .await;
        drop(self.claim.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// The file that is locked by whoever works on an archive: beside the database, named by both.
fn lock_file(database: &Path, archive: &str) -> PathBuf {
    let archive: String = archive
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() || "-_".contains(char) {
                char.to_string()
            } else {
                format!("%{:x}", u32::from(char))
            }
        })
        .collect();
    let mut name = database.as_os_str().to_owned();
    name.push(format!(".{archive}.lock"));
    name.into()
}

/// Creates the two tables where they are absent.
pub(super) async fn init_db(path: &Path) -> Result<Vec<Created>, CatalogError> {
    let file = path.to_owned();
    let database = Database::Sqlite(path.to_owned()).to_string();
    let creating = on_own_thread(&database, move |database| {
        create(&mut connect(&file, database, Absent::Create)?).map_err(|error| trouble(database, error))
    });
    in_time(&database, creating).await
}

/// Opens the file and reads its first page.
pub(super) async fn reach(path: &Path) -> Result<String, CatalogError> {
    let file = path.to_owned();
    let database = Database::Sqlite(path.to_owned()).to_string();
    let looking = on_own_thread(&database, move |database| {
        let connection = connect(&file, database, Absent::Refuse)?;
        let read = connection.query_row("SELECT COUNT(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0));
        read.map_err(|error| trouble(database, error))?;
        Ok(format!("SQLite {}", rusqlite::version()))
    });
    in_time(&database, looking).await
}

/// What is done about a file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// It is made, with its folder and tables, and set up as we like it.
    Create,
    /// That is an error; the connection only looks.
    Refuse,
}

/// The thread of a call given up goes on until the disk answers.
async fn in_time<T>(database: &str, calling: impl Future<Output = Result<T, CatalogError>>) -> Result<T, CatalogError> {
    timeout(CALL_LIMIT, calling).await.unwrap_or_else(|_| {
        Err(unavailable(database, format!("no answer within {} s; look at the disk", CALL_LIMIT.as_secs())))
    })
}

async fn on_own_thread<T: Send + 'static>(
    database: &str,
    work: impl FnOnce(&str) -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    let name = database.to_owned();
    tokio::task::spawn_blocking(move || work(&name))
        .await
        .unwrap_or_else(|error| Err(unavailable(database, error.to_string())))
}

fn connect(path: &Path, database: &str, absent: Absent) -> Result<Connection, CatalogError> {
    let setup =
        |why: String| CatalogError::Setup(format!("Database {database}: {why}; check --db and the rights there"));
    let file = absolute(path).map_err(|error| setup(error.to_string()))?;
    // Without SQLITE_OPEN_URI: a file name is a file name, also when it begins with `file:`.
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match (absent, file.parent()) {
        (Absent::Create, folder) => {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
            if let Some(folder) = folder {
                std::fs::create_dir_all(folder)
                    .map_err(|error| setup(format!("Folder {} cannot be made: {error}", folder.display())))?;
            }
        }
        (Absent::Refuse, folder) => {
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
    if absent == Absent::Refuse {
        connection.pragma_update(None, "query_only", true).map_err(|error| trouble(database, error))?;
        return Ok(connection);
    }
    // With a write-ahead log the producer can insert while we read.
    let mode: String = connection
        .query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))
        .map_err(|error| trouble(database, error))?;
    if mode != "wal" {
        tracing::warn!(database, mode, "No write-ahead log on this file system; reading blocks the producer");
    }
    Ok(connection)
}

/// SQLite gives some relative names a meaning of their own.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    if path.as_os_str() == OsStr::new("") {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "no file is named"));
    }
    std::path::absolute(path)
}

fn create(connection: &mut Connection) -> Result<Vec<Created>, Error> {
    let tables = [(FILES, CREATE_FILES), (TIMECODES, CREATE_TIMECODES), (NOTES, note::CREATE)];
    let exists = |connection: &Connection, name: &str| {
        connection
            .query_row(
                "SELECT COUNT(*) FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?",
                [name],
                |row| row.get::<_, i64>(0),
            )
            .map(|count| count > 0)
    };
    // The usual case takes no lock.
    if exists(connection, FILES)? && exists(connection, TIMECODES)? && exists(connection, NOTES)? {
        return Ok(tables.map(|(name, _)| Created { table: name.to_owned(), new: false }).into());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut created = Vec::new();
    for (name, statement) in tables {
        let new = !exists(&transaction, name)?;
        if new {
            transaction.execute_batch(statement)?;
        }
        created.push(Created { table: name.to_owned(), new });
    }
    transaction.commit()?;
    Ok(created)
}

fn columns(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut statement = connection.prepare("SELECT lower(name) FROM pragma_table_info(?)")?;
    statement.query_map([FILES], |row| row.get(0))?.collect()
}

fn write(connection: &mut Connection, settled: &[Settled]) -> Result<u64, Error> {
    let now = unix_now();
    // Immediate: the lock is waited for here, and not refused at the first write.
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut changed = 0;
    let mut notes = note::Notes::default();
    {
        let mut copied = transaction.prepare_cached(&format!(
            "UPDATE {FILES} SET remote_md5sum = local_md5sum, copied = ?2, remote_path = ?3 \
             WHERE id = ?1 AND remote_md5sum IS NOT local_md5sum"
        ))?;
        let mut failed = transaction.prepare_cached(&format!(
            "UPDATE {FILES} SET failed_copy_attempts = ?2 + 1 \
             WHERE id = ?1 AND failed_copy_attempts = ?2 AND remote_md5sum IS NOT local_md5sum"
        ))?;
        for row in settled {
            changed += match &row.outcome {
                Outcome::Copied { path } => copied.execute(params![row.id.0, now, path])?,
                Outcome::Failed { why } => {
                    let counted = failed.execute(params![row.id.0, row.attempts])?;
                    if counted > 0 {
                        notes.failed.push((row, why));
                    }
                    counted
                }
            };
            if row.attempts > 0 && matches!(row.outcome, Outcome::Copied { .. }) {
                notes.proven.push(row.id);
            }
        }
    }
    notes.write(&mut transaction, now)?;
    transaction.commit()?;
    Ok(changed as u64)
}

/// What SQLite's words mean for us.
fn trouble(database: &str, error: Error) -> CatalogError {
    let remedy = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "name another file in --db",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "grant writing to the file and its folder"
        }
        _ => return unavailable(database, error.to_string()),
    };
    CatalogError::Setup(format!("Database {database}: {error}; {remedy}"))
}

fn unavailable(database: &str, why: String) -> CatalogError {
    CatalogError::Unavailable { database: database.to_owned(), why }
}
