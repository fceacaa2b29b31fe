//! `files add`: registers files and trees. One thread finds files, several sum them, and this one registers them.

use super::super::flags::files::{AddArgs, TimeRule};
use super::super::output::{json_object, print, printable};
use super::super::{SOME_FAILED, plan};
use super::meter::{Meter, TICK};
use super::open;
use super::wording::bytes;
use crate::archiver::layout::{RemotePath, place};
use crate::catalog::files::{NewRow, Registered, Writing};
use crate::catalog::{AnyCatalog, Catalog, Database, Hold, Layout, Naming, Record, RecordId};
use crate::clock::unix_now;
use crate::console::files::tree::{FoundFile, NamedTree, Sight};
use crate::disk::summed::{SummedFile, SymlinkRule, sum};
use crate::service::runtime;
use anyhow::{Context, Result, bail};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Files that are found and not read yet, and that are read and not registered yet.
const QUEUE: usize = 1024;
/// Rows of one transaction.
const BATCH: usize = 200;
/// What is read is registered after so long, be it little.
const PATIENCE: Duration = Duration::from_secs(2);
/// More cores than this a disk seldom feeds.
const THREADS: usize = 8;
/// Letters that the columns of the pysmurf tables hold.
const COLUMN: usize = 32;
/// What a file without a usual suffix is called.
const NO_TYPE: &str = "files";
/// Suffixes of plots.
const PLOTS: [&str; 6] = ["png", "jpg", "jpeg", "pdf", "svg", "gif"];

/// How rows are made of files.
struct Making {
    layout: Option<Layout>,
    prefix: String,
    kind: Option<String>,
    publisher: String,
    time: TimeRule,
    deletable: bool,
    path_limit: usize,
    /// Files of the database itself, which is written to all the time.
    own: Option<PathBuf>,
}

/// What was found, and what came of reading it.
enum TreeReading {
    Read(FoundFile, SummedFile),
    LeftOut { path: PathBuf, why: String, trouble: bool },
}

#[derive(Default)]
struct Added {
    new: u64,
    bytes: u64,
    same: u64,
    changed: u64,
    left_out: u64,
    failed: u64,
}

/// Registers files.
pub(super) fn add(args: &AddArgs) -> Result<u8> {
    let roots = args.paths.iter().map(|path| {
        NamedTree::new(path)
            .with_context(|| format!("Cannot find {}; name a file or a folder", printable(&path.to_string_lossy())))
    });
    let roots = roots.collect::<Result<Vec<_>>>()?;
    let runtime = runtime()?;
    let catalog = runtime.block_on(open(&args.table))?;
    let meter = Meter::new();
    let added = making(args, &catalog).and_then(|making| add_all(args, &roots, &making, (&runtime, &catalog, &meter)));
    runtime.block_on(catalog.close());
    meter.clear();
    let added = added?;
    if args.json {
        print(&json(&added, &meter));
    } else {
        print(&summary(args, &added, &meter));
    }
    Ok(if added.changed + added.failed > 0 { SOME_FAILED } else { 0 })
}

/// What the options mean for this table.
fn making(args: &AddArgs, catalog: &AnyCatalog) -> Result<Making> {
    let layout = catalog.layout();
    let only = |option: &str, given: bool, kind: &str| match given {
        true => bail!("Option {option} is for {kind}, and this is {}; leave it out", catalog.describe()),
        false => Ok(()),
    };
    let (database, options) = plan::table(&args.table)?;
    match layout {
        None => {
            only("--type", args.kind.is_some(), "MySQL tables")?;
            only("--pub-id", args.pub_id.is_some(), "MySQL tables")?;
        }
        Some(_) => {
            only("--remote-prefix", args.remote_prefix.is_some(), "databases of SupRsync")?;
            only("--deletable", args.deletable, "databases of SupRsync")?;
        }
    }
    let targets = options.selection.targets;
    if targets.len() != 1 {
        bail!("Files are registered for one monitor, and {} are named; give --target one instance id", targets.len());
    }
    let target = targets.into_iter().next().unwrap_or_default();
    let publisher = args.pub_id.clone().unwrap_or_else(|| target.clone());
    if layout.is_some() {
        for (option, text) in
            [("--type", args.kind.as_deref()), ("--pub-id", Some(&*publisher)), ("--target", Some(&*target))]
        {
            if text.is_some_and(|text| text.is_empty() || text.chars().count() > COLUMN) {
                bail!("Option {option} is given {text:?}; the table's column takes 1 to {COLUMN} letters");
            }
        }
    }
    let prefix = args.remote_prefix.clone().unwrap_or_default();
    let prefix = prefix.trim_end_matches('/').to_owned();
    if !prefix.is_empty() {
        RemotePath::new(prefix.clone()).map_err(|why| anyhow::anyhow!("Option --remote-prefix: {why}"))?;
    }
    let own = match database {
        Database::Sqlite(path) => std::fs::canonicalize(path).ok(),
        Database::Mysql(_) => None,
    };
    let time = args.timestamp.unwrap_or(if layout.is_some() { TimeRule::Mtime } else { TimeRule::Now });
    let kind = args.kind.clone();
    let path_limit = catalog.path_limit();
    Ok(Making { layout, prefix, kind, publisher, time, deletable: args.deletable, path_limit, own })
}

impl Making {
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
            TimeRule::Mtime => summed.mtime,
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

fn add_all(
    args: &AddArgs,
    roots: &[NamedTree],
    making: &Making,
    (runtime, catalog, meter): (&Runtime, &AnyCatalog, &Meter),
) -> Result<Added> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let threads = args.threads.map_or(cores, usize::from);
    let writing = if args.dry_run { Writing::Tried } else { Writing::Done };
    let (found, wanted) = sync_channel::<Sight>(QUEUE);
    let (read, results) = sync_channel::<TreeReading>(QUEUE);
    // Shared by those who sum alone: with the last of them it is gone, and whoever finds files ends.
    let wanted = Arc::new(Mutex::new(wanted));
    std::thread::scope(|scope| {
        if meter.is_drawn() {
            scope.spawn(|| count(roots, making, meter));
        }
        scope.spawn(move || {
            for root in roots {
                root.walk(&mut |sight| match sight {
                    Sight::File(file) if making.is_own(&file.path) => {
                        let why = "it is the database itself".to_owned();
                        found.send(Sight::LeftOut { path: file.path, why, trouble: false }).is_ok()
                    }
                    sight => found.send(sight).is_ok(),
                });
            }
        });
        for _ in 0..threads {
            let (wanted, read) = (wanted.clone(), read.clone());
            scope.spawn(move || sum_each(&wanted, &read, meter));
        }
        drop((wanted, read));
        // Gone at the end of this, whatever that is, so that the others end, too.
        let results = results;
        let mut adding = Adding { making, meter, added: Added::default(), batch: Vec::new() };
        let mut last = Instant::now();
        loop {
            let ended = match results.recv_timeout(TICK) {
                Ok(reading) => {
                    adding.take(reading);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if ended || adding.batch.len() >= BATCH || (!adding.batch.is_empty() && last.elapsed() > PATIENCE) {
                runtime.block_on(adding.register(catalog, writing))?;
                last = Instant::now();
            }
            meter.draw();
            if ended {
                return Ok(adding.added);
            }
        }
    })
}

/// Counts what there is, for the bar.
fn count(roots: &[NamedTree], making: &Making, meter: &Meter) {
    let (mut files, mut bytes) = (0, 0);
    for root in roots {
        root.walk(&mut |sight| {
            if let Sight::File(file) = sight
                && !making.is_own(&file.path)
            {
                files += 1;
                bytes += file.len;
            }
            true
        });
    }
    meter.expect(files, Some(bytes));
}

/// One of the threads that sum.
fn sum_each(wanted: &Mutex<Receiver<Sight>>, read: &SyncSender<TreeReading>, meter: &Meter) {
    loop {
        let sight = match wanted.lock() {
            Ok(wanted) => wanted.recv(),
            Err(_) => return,
        };
        let reading = match sight {
            Ok(Sight::File(file)) => match sum(&file.path, SymlinkRule::Refused, &|bytes| meter.count_bytes(bytes)) {
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
    meter: &'a Meter,
    added: Added,
    batch: Vec<(NewRow, u64)>,
}

impl Adding<'_> {
    fn take(&mut self, reading: TreeReading) {
        let (path, why, trouble) = match reading {
            TreeReading::LeftOut { path, why, trouble } => (path, why, trouble),
            TreeReading::Read(file, summed) => {
                self.meter.count_files(1);
                match self.making.row(&file, &summed) {
                    Ok(row) => {
                        self.batch.push((row, file.len));
                        return;
                    }
                    Err(why) => (file.path, why, true),
                }
            }
        };
        let shown = crate::disk::shown(path.as_os_str().as_bytes());
        self.meter.tell(&format!("Left out {}: {}", printable(&shown), printable(&why)));
        match trouble {
            true => self.added.failed += 1,
            false => self.added.left_out += 1,
        }
    }

    async fn register(&mut self, catalog: &AnyCatalog, writing: Writing) -> Result<()> {
        let (rows, lens): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        if rows.is_empty() {
            return Ok(());
        }
        let results = catalog.register(&rows, writing).await?;
        for ((row, len), result) in rows.iter().zip(lens).zip(results) {
            let source = printable(&row.source);
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
                    self.meter
                        .tell(&format!("{source} is registered with another MD5, in row {id}, and was left as it is"));
                }
                Registered::PlaceTaken(id) => {
                    added.failed += 1;
                    let place = printable(&row.remote);
                    self.meter.tell(&format!(
                        "Left out {source}: another file goes to {place}, see row {}; give --remote-prefix",
                        id.0
                    ));
                }
                Registered::Refused(why) => {
                    added.failed += 1;
                    self.meter.tell(&format!("Left out {source}: the table does not take it: {}", printable(&why)));
                }
            }
        }
        Ok(())
    }
}

fn summary(args: &AddArgs, added: &Added, meter: &Meter) -> String {
    let files = |count: u64| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    let did = if args.dry_run { "Would register" } else { "Registered" };
    let mut line = format!("{did} {}, {}, in {}", files(added.new), bytes(added.bytes), meter.took());
    for (count, what) in [
        (added.same, "registered already"),
        (added.changed, "registered with another MD5 and left so"),
        (added.left_out, "left out"),
        (added.failed, "could not be registered"),
    ] {
        if count > 0 {
            line.push_str(&format!("; {count} {what}"));
        }
    }
    line
}

fn json(added: &Added, meter: &Meter) -> String {
    json_object([
        ("registered", added.new.into()),
        ("registered_bytes", added.bytes.into()),
        ("known", added.same.into()),
        ("changed", added.changed.into()),
        ("left_out", added.left_out.into()),
        ("failed", added.failed.into()),
        ("read_bytes", meter.bytes().into()),
        ("seconds", ((meter.seconds() * 1000.0).round() / 1000.0).into()),
    ])
}
