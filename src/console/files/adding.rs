//! Registers files and trees. One thread finds files, several sum them, and the caller's registers them.

use super::tree::{FoundFile, NamedTree, Sight};
use crate::archiver::layout::{RemotePath, place};
use crate::catalog::files::{NewRow, Registered, Writing};
use crate::catalog::{AnyCatalog, Catalog, CatalogError, Database, Hold, Layout, Naming, Record, RecordId};
use crate::clock::unix_now;
use crate::disk::shown;
use crate::disk::summed::{SummedFile, SymlinkRule, sum};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Files that are found and not read yet, and that are read and not registered yet.
const QUEUE: usize = 1024;
/// Rows of one transaction.
const BATCH: usize = 200;
/// What is read is registered after so long, be it little.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the observer is asked.
const TICK: Duration = Duration::from_millis(200);
/// More cores than this a disk seldom feeds.
const THREADS: usize = 8;
/// Letters that the columns of the pysmurf tables hold.
const COLUMN: usize = 32;
/// What a file without a usual suffix is called.
const NO_TYPE: &str = "files";
/// Suffixes of plots.
const PLOTS: [&str; 6] = ["png", "jpg", "jpeg", "pdf", "svg", "gif"];

/// When a file that is registered is said to be of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum TimeRule {
    /// When it was written.
    Mtime,
    /// When it is registered.
    Now,
    /// This time, in unix seconds.
    At(f64),
}

impl TimeRule {
    /// As it is told in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("mtime", _) => Ok(Self::Mtime),
            ("now", _) => Ok(Self::Now),
            (_, Ok(seconds)) if (0.0..4e9).contains(&seconds) => Ok(Self::At(seconds)),
            _ => Err("expected mtime, now, or unix seconds".into()),
        }
    }
}

/// What is asked of the rows that are made.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddTerms {
    /// SQLite: put before their places in the archive.
    pub(crate) remote_prefix: Option<String>,
    /// SQLite: local files may be deleted once they are proven.
    pub(crate) deletable: bool,
    /// MySQL: type, or action; the suffix of each name where it is not given.
    pub(crate) kind: Option<String>,
    /// MySQL: publisher; the target where it is not given.
    pub(crate) pub_id: Option<String>,
    /// Their time; when they were written in MySQL, and now in SQLite, where it is not given.
    pub(crate) timestamp: Option<TimeRule>,
}

/// What the terms are called by whoever gives them, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddWords {
    /// Before each name: `--`.
    pub(crate) mark: &'static str,
    /// What stands between the words of one.
    pub(crate) joint: char,
}

impl AddWords {
    fn name(self, words: &str) -> String {
        format!("{}{}", self.mark, words.replace(' ', &self.joint.to_string()))
    }
}

/// How rows are made of files.
pub(crate) struct Making {
    layout: Option<Layout>,
    prefix: String,
    kind: Option<String>,
    publisher: String,
    time: TimeRule,
    deletable: bool,
    path_limit: usize,
    /// Files of the database itself, which is written to all the time.
    own: Option<PathBuf>,
    words: AddWords,
}

/// Hears how the work comes on.
pub(crate) trait AddObserver: Sync {
    /// So many bytes more were read.
    fn bytes(&self, _bytes: u64) {}
    /// A file more was read.
    fn file(&self) {}
    /// A line about a file that is not registered, or not as it is.
    fn tell(&self, line: &str);
    /// Called several times a second; false ends the work behind what is read.
    fn goes_on(&self) -> bool {
        true
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Added {
    pub(crate) new: u64,
    pub(crate) bytes: u64,
    /// Registered already.
    pub(crate) same: u64,
    /// Registered with another MD5, and left so.
    pub(crate) changed: u64,
    pub(crate) left_out: u64,
    pub(crate) failed: u64,
}

/// What came of reading a file that was found.
enum TreeReading {
    Read(FoundFile, SummedFile),
    LeftOut { path: PathBuf, why: String, trouble: bool },
}

impl Making {
    /// What the terms mean for this table of a database, whose rows are of `target`.
    pub(crate) fn new(
        terms: AddTerms,
        catalog: &AnyCatalog,
        database: &Database,
        target: &str,
        words: AddWords,
    ) -> Result<Self, String> {
        let AddTerms { remote_prefix, deletable, kind, pub_id, timestamp } = terms;
        let layout = catalog.layout();
        let only = |option: &str, given: bool, kind: &str| match given {
            true => {
                let option = words.name(option);
                Err(format!("{option} is for {kind}, and this is {}; leave it out", catalog.describe()))
            }
            false => Ok(()),
        };
        match layout {
            None => {
                only("type", kind.is_some(), "MySQL tables")?;
                only("pub id", pub_id.is_some(), "MySQL tables")?;
            }
            Some(_) => {
                only("remote prefix", remote_prefix.is_some(), "databases of SupRsync")?;
                only("deletable", deletable, "databases of SupRsync")?;
            }
        }
        let publisher = pub_id.unwrap_or_else(|| target.to_owned());
        if layout.is_some() {
            for (option, text) in [("type", kind.as_deref()), ("pub id", Some(&*publisher)), ("target", Some(target))] {
                if text.is_some_and(|text| text.is_empty() || text.chars().count() > COLUMN) {
                    let (option, text) = (words.name(option), text.unwrap_or_default());
                    return Err(format!("{option} is given {text:?}; the table's column takes 1 to {COLUMN} letters"));
                }
            }
        }
        let prefix = remote_prefix.unwrap_or_default().trim_end_matches('/').to_owned();
        if !prefix.is_empty() {
            RemotePath::new(prefix.clone()).map_err(|why| format!("{}: {why}", words.name("remote prefix")))?;
        }
        let own = match database {
            Database::Sqlite(path) => std::fs::canonicalize(path).ok(),
            Database::Mysql(_) => None,
        };
        let time = timestamp.unwrap_or(if layout.is_some() { TimeRule::Mtime } else { TimeRule::Now });
        Ok(Self { layout, prefix, kind, publisher, time, deletable, path_limit: catalog.path_limit(), own, words })
    }

    /// Whether this is the database's own file, or one beside it that goes with it.
    fn is_own(&self, path: &Path) -> bool {
        let Some(own) = &self.own else { return false };
        let (own, path) = (own.as_os_str().as_bytes(), path.as_os_str().as_bytes());
        let tail = path.strip_prefix(own);
        tail.is_some_and(|tail| {
            matches!(tail, b"" | b"-wal" | b"-shm" | b"-journal")
                || (tail.starts_with(b".") && tail.ends_with(b".lock"))
        })
    }

    /// The row of a file; the error says why it can have none.
    fn row(&self, file: &FoundFile, summed: &SummedFile) -> Result<NewRow, String> {
        let no_text = || "its path is no UTF-8 text, which the table could not hold".to_owned();
        let source = file.path.to_str().ok_or_else(no_text)?;
        if source.chars().count() > self.path_limit {
            return Err(format!("its path has more than the {} letters that the table holds", self.path_limit));
        }
        let suffix = file.path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default().to_lowercase();
        let usual = (1..=16).contains(&suffix.len()) && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let suffix = if usual { suffix } else { NO_TYPE.to_owned() };
        let time = match self.time {
            TimeRule::Mtime => summed.stamp.mtime(),
            TimeRule::Now => unix_now(),
            TimeRule::At(seconds) => seconds,
        };
        let mut row = NewRow {
            source: source.to_owned(),
            remote: String::new(),
            md5: summed.md5,
            time,
            kind: self.kind.clone().unwrap_or_else(|| suffix.clone()),
            publisher: self.publisher.clone(),
            plot: PLOTS.contains(&&*suffix),
            format: suffix,
            deletable: self.deletable,
        };
        let naming = match self.layout {
            None => {
                let place = file.place.to_str().ok_or_else(no_text)?;
                let slash = if self.prefix.is_empty() { "" } else { "/" };
                Naming::Given(format!("{}{slash}{place}", self.prefix))
            }
            Some(Layout::Action) => Naming::Action {
                timestamp: Some(time as i64),
                pub_id: Some(row.publisher.clone()),
                action: Some(row.kind.clone()),
                action_timestamp: Some(time as i64),
                plot: row.plot,
            },
            Some(Layout::Type) => Naming::Type { timestamp: Some(time as i64), file_type: Some(row.kind.clone()) },
        };
        let record = Record {
            id: RecordId(0),
            source: file.path.clone(),
            md5: row.md5,
            naming,
            attempts: 0,
            hold: Hold::default(),
        };
        row.remote = place(&record)?.as_str().to_owned();
        Ok(row)
    }
}

/// What is to be registered, and how.
pub(crate) struct Addition<'a> {
    pub(crate) roots: &'a [NamedTree],
    pub(crate) making: &'a Making,
    /// Files that are read at once; as many as there are cores, up to 8, where it is not given.
    pub(crate) threads: Option<usize>,
    pub(crate) writing: Writing,
}

impl Addition<'_> {
    /// Counts the files there are and their bytes.
    pub(crate) fn count(&self) -> (u64, u64) {
        let (mut files, mut bytes) = (0, 0);
        for root in self.roots {
            root.walk(&mut |sight| {
                if let Sight::File(file) = sight
                    && !self.making.is_own(&file.path)
                {
                    files += 1;
                    bytes += file.len;
                }
                true
            });
        }
        (files, bytes)
    }

    /// Finds, reads and registers; on a thread that may wait.
    pub(crate) fn run(
        &self,
        runtime: &Handle,
        catalog: &AnyCatalog,
        observer: &dyn AddObserver,
    ) -> Result<Added, CatalogError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        let threads = self.threads.unwrap_or(cores);
        let (found, wanted) = sync_channel::<Sight>(QUEUE);
        let (read, results) = sync_channel::<TreeReading>(QUEUE);
        // Shared by those who sum alone: with the last of them it is gone, and whoever finds files ends.
        let wanted = Arc::new(Mutex::new(wanted));
        std::thread::scope(|scope| {
            scope.spawn(move || self.find(&found));
            for _ in 0..threads {
                let (wanted, read) = (wanted.clone(), read.clone());
                scope.spawn(move || sum_each(&wanted, &read, observer));
            }
            drop((wanted, read));
            // Gone at the end of this, whatever that is, so that the others end, too.
            let results = results;
            let mut adding = Adding { making: self.making, observer, added: Added::default(), batch: Vec::new() };
            let mut last = Instant::now();
            let mut asked = Instant::now();
            loop {
                let ended = match results.recv_timeout(TICK) {
                    Ok(reading) => {
                        adding.take(reading);
                        false
                    }
                    Err(RecvTimeoutError::Timeout) => false,
                    Err(RecvTimeoutError::Disconnected) => true,
                };
                // Not for each of many small files: whoever watches may have much to tell.
                let is_time = asked.elapsed() >= TICK;
                if is_time {
                    asked = Instant::now();
                }
                let ended = ended || (is_time && !observer.goes_on());
                if ended || adding.batch.len() >= BATCH || (!adding.batch.is_empty() && last.elapsed() > PATIENCE) {
                    runtime.block_on(adding.register(catalog, self.writing))?;
                    last = Instant::now();
                }
                if ended {
                    return Ok(adding.added);
                }
            }
        })
    }

    fn find(&self, found: &SyncSender<Sight>) {
        for root in self.roots {
            root.walk(&mut |sight| match sight {
                Sight::File(file) if self.making.is_own(&file.path) => {
                    let why = "it is the database itself".to_owned();
                    found.send(Sight::LeftOut { path: file.path, why, trouble: false }).is_ok()
                }
                sight => found.send(sight).is_ok(),
            });
        }
    }
}

/// One of the threads that sum.
fn sum_each(wanted: &Mutex<Receiver<Sight>>, read: &SyncSender<TreeReading>, observer: &dyn AddObserver) {
    loop {
        let sight = match wanted.lock() {
            Ok(wanted) => wanted.recv(),
            Err(_) => return,
        };
        let reading = match sight {
            Ok(Sight::File(file)) => match sum(&file.path, SymlinkRule::Refused, &|bytes| observer.bytes(bytes)) {
                Ok(summed) => TreeReading::Read(file, summed),
                Err(error) => TreeReading::LeftOut { path: file.path, why: error.to_string(), trouble: true },
            },
            Ok(Sight::LeftOut { path, why, trouble }) => TreeReading::LeftOut { path, why, trouble },
            Err(_) => return,
        };
        if read.send(reading).is_err() {
            return;
        }
    }
}

/// What was read, on its way into the table.
struct Adding<'a> {
    making: &'a Making,
    observer: &'a dyn AddObserver,
    added: Added,
    batch: Vec<(NewRow, u64)>,
}

impl Adding<'_> {
    fn take(&mut self, reading: TreeReading) {
        let (path, why, trouble) = match reading {
            TreeReading::LeftOut { path, why, trouble } => (path, why, trouble),
            TreeReading::Read(file, summed) => {
                self.observer.file();
                match self.making.row(&file, &summed) {
                    Ok(row) => {
                        self.batch.push((row, file.len));
                        return;
                    }
                    Err(why) => (file.path, why, true),
                }
            }
        };
        let path = shown(path.as_os_str().as_bytes());
        self.observer.tell(&format!("Left out {path}: {why}"));
        match trouble {
            true => self.added.failed += 1,
            false => self.added.left_out += 1,
        }
    }

    async fn register(&mut self, catalog: &AnyCatalog, writing: Writing) -> Result<(), CatalogError> {
        let (rows, lens): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        if rows.is_empty() {
            return Ok(());
        }
        let results = catalog.register(&rows, writing).await?;
        for ((row, len), result) in rows.iter().zip(lens).zip(results) {
            let source = &row.source;
            let added = &mut self.added;
            match result {
                Registered::New => {
                    added.new += 1;
                    added.bytes += len;
                }
                Registered::Same => added.same += 1,
                Registered::Changed(id) => {
                    added.changed += 1;
                    let id = id.0;
                    self.observer
                        .tell(&format!("{source} is registered with another MD5, in row {id}, and was left as it is"));
                }
                Registered::PlaceTaken(id) => {
                    added.failed += 1;
                    let place = &row.remote;
                    self.observer.tell(&format!(
                        "Left out {source}: another file goes to {place}, see row {}; give {}",
                        id.0,
                        self.making.words.name("remote prefix")
                    ));
                }
                Registered::Refused(why) => {
                    added.failed += 1;
                    self.observer.tell(&format!("Left out {source}: the table does not take it: {why}"));
                }
            }
        }
        Ok(())
    }
}
