//! SupRsync's table `supersync_v0` in a file of SQLite.
//! Creates the tables where they are absent, never alters them. One connection, used on tokio's threads for blocking
//! work, one call at a time.

mod handle;
mod note;
mod row;
mod upkeep;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Error, ErrorCode, OptionalExtension, TransactionBehavior, params};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::handle::{Handle, Wish, connect, keep_log};
use crate::clock::unix_now;
use crate::disk::open_operator_lock;
use crate::lock::{Lock, Taken};

pub use upkeep::{Complete, NewFile, Prunable};

use super::{
    ArchiveStats, Catalog, CatalogError, Created, Database, Keeping, Looked, Md5, NOTES, Note, Outcome, RecordId,
    Retry, Selection, Settled, Totals,
};

/// How long a call waits for another program's lock; SupRsync's own patience.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// Limit for one call, also when the disk hangs. A scan of ten million rows takes some seconds.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Rows of one look at the table by those who go through all of it: some milliseconds.
const LOOK: i64 = 10_000;

/// The longest rest between two looks.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// Below every row.
const BOTTOM: RecordId = RecordId(i64::MIN);

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
    handle: Arc<Mutex<Handle>>,
    /// How often the file was found replaced.
    generation: Arc<AtomicU64>,
    /// One call at a time, so that a hung disk holds one thread and not all.
    turn: Arc<Semaphore>,
    database: String,
    /// Held open and locked by the archiver that works on this archive.
    claim: Arc<Mutex<Option<Lock>>>,
    file: PathBuf,
    archive: String,
    max_attempts: i64,
    /// `AND "ignore" = 0`, or nothing where the table is older than that column. NULL never matches, as in SupRsync.
    not_ignored: &'static str,
    /// Older tables do not say which files may be deleted.
    has_deletable: bool,
}

impl SqliteCatalog {
    /// Opens the file. With `create` it is made, with its folder and its tables, where it is absent; else that is
    /// [`CatalogError::Setup`], as is a table that lacks a column.
    pub async fn open(path: &Path, selection: Selection, create: bool) -> Result<Self, CatalogError> {
        Self::open_as(path, selection, if create { Wish::Create } else { Wish::Use }).await
    }

    /// Opens the file for looking only: nothing is created or changed, and what is absent is [`CatalogError::Setup`].
    pub async fn inspect(path: &Path, selection: Selection) -> Result<Self, CatalogError> {
        Self::open_as(path, selection, Wish::Look).await
    }

    async fn open_as(path: &Path, selection: Selection, wish: Wish) -> Result<Self, CatalogError> {
        let [archive] = <[String; 1]>::try_from(selection.targets).map_err(|names| {
            CatalogError::Setup(format!(
                "A SQLite database serves exactly one archive, and {} are chosen; name one with --archive-name",
                names.len()
            ))
        })?;
        let database = Database::Sqlite(path.to_owned()).to_string();
        let file = path.to_owned();
        let opening = on_own_thread(&database, move |database| Handle::open(&file, database, wish));
        let handle = in_time(&database, opening).await?;
        let (has_ignore, has_deletable) = (handle.has("ignore"), handle.has("deletable"));
        Ok(Self {
            handle: Arc::new(Mutex::new(handle)),
            generation: Arc::default(),
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
        let generation = Arc::clone(&self.generation);
        self.run_with(move |handle, database| {
            let used = handle
                .current(database)
                .and_then(|connection| work(connection).map_err(|error| trouble(database, error)));
            generation.store(handle.replaced(), Ordering::Release);
            used
        })
        .await
    }

    async fn run_with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Handle, &str) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let handle = Arc::clone(&self.handle);
        let turn = Arc::clone(&self.turn);
        let calling = async {
            let turn = turn.acquire_owned().await;
            on_own_thread(&self.database, move |database| {
                // Held by the thread, also when nobody waits for it any more.
                let _turn = turn;
                work(&mut handle.lock().unwrap_or_else(PoisonError::into_inner), database)
            })
            .await
        };
        in_time(&self.database, calling).await
    }

    /// Goes through the table in short looks, between which others have their turn: `look` is given the ids above the
    /// first number and up to the second, and says whether to go on. Gives what was found, and up to where.
    async fn walk<T: Send + 'static>(
        &self,
        above: RecordId,
        mut found: T,
        look: impl Fn(&mut Connection, [i64; 2], &mut T) -> Result<bool, Error> + Send + Sync + 'static,
    ) -> Result<(T, RecordId), CatalogError> {
        let look = Arc::new(look);
        let mut after = above.0;
        loop {
            let look = Arc::clone(&look);
            let began = Instant::now();
            let (looked, last, more) = self
                .run(move |connection| {
                    let Some((last, _)) = reach_of_a_look(connection, after)? else {
                        return Ok((found, after, false));
                    };
                    let more = look(connection, [after, last], &mut found)?;
                    Ok((found, last, more))
                })
                .await?;
            (found, after) = (looked, last);
            if !more {
                return Ok((found, RecordId(after)));
            }
            // So that it never has the whole of a core.
            tokio::time::sleep((began.elapsed() / 2).min(LONGEST_REST)).await;
        }
    }

    /// What SupRsync publishes about the archive.
    pub async fn archive_stats(&self) -> Result<ArchiveStats, CatalogError> {
        let unverified = format!("remote_md5sum IS NOT local_md5sum {}", self.not_ignored);
        let within = format!("FROM {FILES} WHERE id > ?2 AND id <= ?3 AND archive_name = ?1");
        let count = format!(
            "SELECT COUNT(*), COUNT(CASE WHEN {unverified} THEN 1 END), MIN(CASE WHEN {unverified} THEN timestamp END) {within}"
        );
        let path = format!("CAST(substr(local_path, 1, {PATH_LIMIT}) AS TEXT)");
        let added = format!("SELECT {path} {within} ORDER BY id DESC LIMIT 1");
        let copied =
            format!("SELECT copied, {path} {within} AND remote_md5sum = local_md5sum ORDER BY copied DESC LIMIT 1");
        let archive = self.archive.clone();
        let nothing = (ArchiveStats::default(), None::<f64>, None::<f64>);
        let look = move |connection: &mut Connection,
                         [after, last]: [i64; 2],
                         (stats, oldest, latest): &mut (ArchiveStats, Option<f64>, Option<f64>)| {
            let given = params![archive, after, last];
            let (files, uncopied, first) = connection.prepare_cached(&count)?.query_row(given, |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<f64>>(2)?))
            })?;
            stats.num_files += files;
            stats.uncopied_files += uncopied;
            *oldest = oldest.take().into_iter().chain(first).reduce(f64::min);
            let path = connection.prepare_cached(&added)?.query_row(given, |row| row.get(0)).optional()?;
            stats.last_file_added = path.unwrap_or_else(|| std::mem::take(&mut stats.last_file_added));
            let newest = connection
                .prepare_cached(&copied)?
                .query_row(given, |row| Ok((row.get::<_, Option<f64>>(0)?, row.get(1)?)))
                .optional()?;
            if let Some((at, path)) = newest.filter(|(at, _)| at >= latest) {
                (*latest, stats.last_file_copied) = (at, path);
            }
            Ok(true)
        };
        let ((stats, oldest, _), _) = self.walk(BOTTOM, nothing, look).await?;
        Ok(ArchiveStats { finalized_until: oldest.map_or_else(unix_now, |oldest| oldest - 1.0), ..stats })
    }

    async fn retry_rows(&self, ids: &[RecordId]) -> Result<u64, CatalogError> {
        let update = format!(
            "UPDATE {FILES} SET failed_copy_attempts = 0 WHERE id = ?3 AND {} AND failed_copy_attempts >= ?2",
            self.waiting()
        );
        let (archive, max_attempts, ids) = (self.archive.clone(), self.max_attempts, ids.to_vec());
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut changed = 0;
            for id in ids {
                changed += transaction.prepare_cached(&update)?.execute(params![archive, max_attempts, id.0])?;
            }
            transaction.commit()?;
            Ok(changed as u64)
        })
        .await
    }

    /// What makes a row one of those given up that are meant, with the values of parameters 2 and 5; the ids it is looked
    /// for among are 3 and 4.
    fn meant(&self, pattern: Option<&String>) -> (String, String) {
        let (more, given) = match pattern {
            None => ("", String::new()),
            Some(pattern) => ("AND local_path LIKE ?5 ESCAPE '|'", Retry::like(pattern)),
        };
        // The fifth parameter is named in any case, so that both forms take five.
        let condition =
            format!("id > ?3 AND id <= ?4 AND {} AND failed_copy_attempts >= ?2 {more} AND (1 OR ?5)", self.waiting());
        (condition, given)
    }

    async fn retry_all(&self, pattern: Option<&String>) -> Result<u64, CatalogError> {
        let (condition, given) = self.meant(pattern);
        let update = format!("UPDATE {FILES} SET failed_copy_attempts = 0 WHERE {condition}");
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], changed: &mut u64| {
            let now =
                connection.prepare_cached(&update)?.execute(params![archive, max_attempts, after, last, given])?;
            *changed += now as u64;
            Ok(true)
        };
        Ok(self.walk(BOTTOM, 0, look).await?.0)
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
            // Whoever replaces the folder replaces the lock with it, and another archiver would take the new one.
            if claim.as_ref().is_some_and(|lock| is_at(lock, &path)) {
                return Ok(());
            }
            *claim = None;
            let busy = |why: String| unavailable(database, format!("{}: {why}", path.display()));
            let file = open_operator_lock(&path);
            let file = file.map_err(|error| busy(format!("{error}; the lock file must be ours and writable")))?;
            match Lock::take(file) {
                Ok(lock) => *claim = Some(lock),
                Err(Taken::ByAnother) => {
                    return Err(busy(
                        "another archiver works on the same --archive-name; stop one of the two".to_owned(),
                    ));
                }
                // Some network file systems have no such locks; then nobody watches but the operator.
                Err(Taken::NoLocks(file, error)) => {
                    tracing::warn!(%error, file = %path.display(), "No lock to be had; see to it that no second archiver runs");
                    *claim = Some(Lock::without(file));
                }
            }
            Ok(())
        });
        in_time(&self.database, claiming).await
    }

    /// Rows whose `failed_copy_attempts` or `ignore` is NULL never match, as in SupRsync.
    async fn look(&self, after: RecordId, limit: usize) -> Result<Looked, CatalogError> {
        // A value may be a gigabyte: of one too long only its length is fetched, which `row::read` refuses as no text.
        // (`substr` and `length` would stop at a NUL.)
        let bounded = |column| format!("iif(octet_length({column}) <= {PATH_LIMIT}, {column}, octet_length({column}))");
        let query = format!(
            "SELECT id, CAST(failed_copy_attempts AS INTEGER), {}, {}, {} FROM {FILES} \
             WHERE id > ?2 AND id <= ?5 AND {} AND failed_copy_attempts < ?3 ORDER BY id LIMIT ?4",
            bounded("local_path"),
            bounded("remote_path"),
            bounded("local_md5sum"),
            self.waiting()
        );
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
        self.run(found).await
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
        let (pattern, ids) = match which {
            Retry::All => (None, None),
            Retry::Pattern(pattern) => (Some(pattern), None),
            Retry::Ids(ids) => (None, Some(ids.clone())),
        };
        let (condition, given) = self.meant(pattern);
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let read = move |connection: &Connection, [after, last]: [i64; 2], notes: &mut Vec<Note>| {
            let values = params![archive, max_attempts, after, last, given];
            notes.extend(note::read(connection, &condition, values, limit.saturating_sub(notes.len()))?);
            Ok(notes.len() < limit)
        };
        if let Some(ids) = ids {
            return self
                .run(move |connection| {
                    let mut notes = Vec::new();
                    for id in ids {
                        if !read(connection, [id.0.saturating_sub(1), id.0], &mut notes)? {
                            break;
                        }
                    }
                    Ok(notes)
                })
                .await;
        }
        let look =
            move |connection: &mut Connection, ids: [i64; 2], notes: &mut Vec<Note>| read(connection, ids, notes);
        Ok(self.walk(BOTTOM, Vec::new(), look).await?.0)
    }

    async fn keeping(&self) -> Result<Keeping, CatalogError> {
        // Who writes the file may make a table in it.
        self.run(|connection| Ok(if note::exist(connection)? { Keeping::There } else { Keeping::Later })).await
    }

    async fn totals(&self) -> Result<Totals, CatalogError> {
        let query = format!(
            "SELECT COUNT(CASE WHEN {0} AND failed_copy_attempts < ?2 THEN 1 END), \
             COUNT(CASE WHEN {0} AND failed_copy_attempts >= ?2 THEN 1 END), \
             COUNT(CASE WHEN remote_md5sum = local_md5sum THEN 1 END) FROM {FILES} \
             WHERE id > ?3 AND id <= ?4 AND archive_name = ?1",
            self.waiting()
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], totals: &mut Totals| {
            connection.prepare_cached(&query)?.query_row(params![archive, max_attempts, after, last], |row| {
                let count = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
                totals.pending += count(0)?;
                totals.given_up += count(1)?;
                totals.copied += count(2)?;
                Ok(true)
            })
        };
        Ok(self.walk(BOTTOM, Totals::default(), look).await?.0)
    }

    async fn oldest(&self) -> Result<Option<f64>, CatalogError> {
        let query = format!(
            "SELECT MIN(timestamp) FROM {FILES} WHERE id > ?3 AND id <= ?4 AND {} AND failed_copy_attempts < ?2",
            self.waiting()
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], oldest: &mut Option<f64>| {
            let given = params![archive, max_attempts, after, last];
            let here: Option<f64> = connection.prepare_cached(&query)?.query_row(given, |row| row.get(0))?;
            *oldest = oldest.take().into_iter().chain(here).reduce(f64::min);
            Ok(true)
        };
        Ok(self.walk(BOTTOM, None, look).await?.0)
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

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
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
            .run_with(|handle, _| {
                handle.close();
                Ok(())
            })
            .await;
        drop(self.claim.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Up to which id a short look at the rows above `after` goes, and whether there are none above that; `None` where there
/// are no rows.
fn reach_of_a_look(connection: &Connection, after: i64) -> Result<Option<(i64, bool)>, Error> {
    let last = "SELECT MAX(id), COUNT(*) FROM (SELECT id FROM supersync_v0 WHERE id > ?1 ORDER BY id LIMIT ?2)";
    connection.prepare_cached(last)?.query_row(params![after, LOOK], |row| {
        let (last, rows) = (row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?);
        Ok(last.map(|last| (last, rows < LOOK)))
    })
}

/// Whether the lock is on the file of this name.
fn is_at(lock: &Lock, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (lock.file().metadata(), std::fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
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
        let mut connection = connect(&file, database, Wish::Create)?;
        let created = create(&mut connection).map_err(|error| trouble(database, error))?;
        keep_log(&connection, database)?;
        Ok(created)
    });
    in_time(&database, creating).await
}

/// Opens the file and reads its first page.
pub(super) async fn reach(path: &Path) -> Result<String, CatalogError> {
    let file = path.to_owned();
    let database = Database::Sqlite(path.to_owned()).to_string();
    let looking = on_own_thread(&database, move |database| {
        let connection = connect(&file, database, Wish::Look)?;
        let read = connection.query_row("SELECT COUNT(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0));
        read.map_err(|error| trouble(database, error))?;
        Ok(format!("SQLite {}", rusqlite::version()))
    });
    in_time(&database, looking).await
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
             WHERE id = ?1 AND lower(local_md5sum) = ?4 AND remote_md5sum IS NOT local_md5sum"
        ))?;
        let mut failed = transaction.prepare_cached(&format!(
            "UPDATE {FILES} SET failed_copy_attempts = ?2 + 1 \
             WHERE id = ?1 AND failed_copy_attempts = ?2 AND remote_md5sum IS NOT local_md5sum"
        ))?;
        for row in settled {
            changed += match &row.outcome {
                Outcome::Copied { path, md5 } => copied.execute(params![row.id.0, now, path, hex(md5)])?,
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

fn hex(md5: &Md5) -> String {
    md5.iter().map(|byte| format!("{byte:02x}")).collect()
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
