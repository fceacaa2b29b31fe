//! Rows to proven copies: poller, bounded queue, workers, recorder.
//!
//! The poller finds waiting rows and fills the queue; workers, one thread and one session each, have them copied; the
//! recorder writes back what became of them. The table is the only memory: everything here may be lost at any moment.

mod acknowledging;
mod append;
mod arguments;
mod asking;
pub(crate) mod audit;
mod blame;
mod bootstrap;
mod carrier;
mod compression;
pub(crate) mod control;
mod course;
mod entries;
mod far_end;
mod filling;
mod first_login;
mod flight;
mod folders;
mod headway;
pub(crate) mod layout;
mod link_found;
mod links;
mod origins;
mod patience;
mod poller;
mod pull;
mod push;
mod recorder;
mod results;
mod retry;
mod road;
mod sessions;
mod sftp;
mod shared_file;
mod sources;
pub(crate) mod stop;
mod syncing;
mod terms;
mod unfinished;
mod upkeep;
mod verdict;
mod worker;

use crate::catalog::{Catalog, CopyPlace, Outcome, RecordId};
use crate::manifest::Manifest;
use crate::status::Failure;
use crate::throttle::Rate;
use crate::transport::{Connect, ConnectError};
pub(crate) use arguments::{Demands, base, folder_args, hello, sender_args, server_args};
pub(crate) use bootstrap::{Bootstrap, UPLOAD_DIR, is_static};
pub(crate) use compression::Coding;
pub(crate) use compression::Compress;
use control::Control;
pub(crate) use far_end::{FarProgram, ServerProbe, probe};
pub(crate) use filling::{FillSource, Filler};
use flight::Flight;
use links::LinkKeeper;
use origins::Origins;
use poller::Poller;
use protocol::chmod::Chmod;
use recorder::Recorder;
use results::Results;
use road::FoundProgram;
use sessions::SessionPermits;
pub(crate) use sessions::Workers;
use shared_file::SharedFiles;
pub(crate) use sources::Sources;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use stop::Stop;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use unfinished::Strays;
pub(crate) use unfinished::aside_of;
pub(crate) use unfinished::is_aside;
pub(crate) use upkeep::{Announcing, PruneMode, PruneReading, PruneRules, Upkeep, would_free};
use worker::{Worker, Workplace};

/// Which way the files go. Rows, places and proofs are the same either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The files are here, the archive is at the far end.
    Push,
    /// The files are at the far end, the archive is here.
    Pull,
}

/// What becomes of the copy of a file that is registered anew with other bytes. Other files' copies stay in any case, and the
/// new one gets a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// The new copy takes its place, as with SupRsync.
    Replace,
    /// It stays, and the new one gets a number behind its name, as with the old archiver.
    Number,
    /// Whatever stands there stays, and the file has failed: it is to have this very name.
    Refuse,
}

/// How the archiver works.
#[derive(Debug, Clone)]
pub(crate) struct ArchiverSettings {
    /// Which way the files go.
    pub direction: Direction,
    /// Base directory of the archive, as written into the table.
    pub data_dir: String,
    /// The table's paths are relative to the base (`supersync_v0`); else they are absolute.
    pub relative_paths: bool,
    /// Pause between polls of a table that has nothing new.
    pub poll: Duration,
    /// Rows in flight at most.
    pub queue: usize,
    /// Bytes in flight at most, in files; one larger file may be in flight alone.
    pub queue_bytes: u64,
    /// Sessions, each with a thread.
    pub workers: Workers,
    /// Files of so many bytes and more are moved by several sessions where round trips hold one alone back; 0 for none.
    pub split_size: u64,
    /// Try each row that waits once, then end.
    pub once: bool,
    /// Rows up to this one are left alone.
    pub above: RecordId,
    /// Rows that failed so often are left alone by the catalog.
    pub max_attempts: i64,
    /// How long running work may go on once we are to stop.
    pub grace: Duration,
    /// Whether sessions are compressed.
    pub compress: Compress,
    /// A limit on what all sessions move together.
    pub rate: Rate,
    /// What is uploaded to a far end where no rsync serves; without, files are written by SFTP there.
    pub bootstrap: Option<Bootstrap>,
    /// Changes to the permissions of copies, and of the directories they are in.
    pub chmod: Option<Chmod>,
    /// What the directories are called that unfinished files are kept in, beside their places: see [`aside_of`].
    pub aside: String,
    /// What becomes of an earlier copy of the same file.
    pub existing: Existing,
    /// Which files rows may name.
    pub sources: Sources,
    /// The storage node whose copies are the rows' files, if they are such.
    pub fed_from: Option<String>,
    /// Where proven copies are listed.
    pub manifest: Option<Arc<Manifest>>,
}

/// Files of one session at most; with small ones, its beginning and end take more time than they do. What is proven is recorded
/// meanwhile, so that a lost link costs no more than the file under way.
const BATCH_FILES: usize = 1024;
/// Bytes of one session, so that a lost link costs little.
const BATCH_BYTES: u64 = 256 << 20;
/// How long the last results may take to be recorded once the links are closed.
const LAST_RECORDS: Duration = Duration::from_secs(2);

impl ArchiverSettings {
    /// Files of one session: so many that each of those at work can have its own while the next ones are gathered.
    fn batch_files(&self, sessions: usize) -> usize {
        (self.queue / (2 * sessions.max(1))).clamp(1, BATCH_FILES)
    }

    /// Bytes of one session, by the same measure.
    fn batch_bytes(&self, sessions: usize) -> u64 {
        (self.queue_bytes / (2 * sessions.max(1) as u64)).clamp(1, BATCH_BYTES)
    }

    /// A file's failure, and whose trouble it is.
    fn failure(&self, kind: Failure, why: String) -> Outcome {
        let why = match &self.fed_from {
            Some(node) if kind != Failure::Refused => {
                // Rows of MySQL no longer say where their files were.
                let more = match self.relative_paths {
                    true => "",
                    false => " from that of another node, `files recopy --source` from the file",
                };
                format!(
                    "the copy of {node} cannot be used (`files verify --node {node} --repair` has a bad one made again{more}): {why}"
                )
            }
            _ => why,
        };
        Outcome::Failed { why, side: blame::side_of(kind) }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing is left to do (only with `once`).
    Drained,
    /// It was told to stop.
    Stopped,
    /// The database or the far end stayed out of reach (only with `once`).
    OutOfReach(String),
}

/// Runs until stopped, or with `once` until the table is drained. `connect` makes each worker's way to the far end.
pub(crate) async fn run<C: Catalog>(
    settings: ArchiverSettings,
    catalog: Arc<C>,
    connect: impl Fn() -> Result<Box<dyn Connect>, ConnectError>,
    control: Control,
) -> Result<Ended, ConnectError> {
    let (progress, stop) = (control.progress().clone(), control.stop().clone());
    let link_rate = Rate::new(0);
    let settings = Arc::new(ArchiverSettings { rate: settings.rate.within(&link_rate), ..settings });
    let flight = Arc::new(Flight::new(settings.queue, settings.queue_bytes, progress.clone()));
    control.begin(&flight);
    let permits = Arc::new(SessionPermits::new(settings.workers));
    let strays = Arc::new(Strays::default());
    let origins = Arc::new(Origins::new(progress.clone(), settings.sources.clone(), settings.once));
    let (jobs, job_source) = mpsc::channel(settings.workers.most());
    let shared_files = Arc::new(SharedFiles::new(jobs.downgrade()));
    let (results, result_source) = mpsc::channel(settings.queue.max(1));
    let (table, runtime) = (catalog.clone(), tokio::runtime::Handle::current());
    let workplace = Workplace {
        last_copy: Arc::new(move |copy: &CopyPlace| runtime.block_on(table.last_copy(copy))),
        settings: settings.clone(),
        control: control.clone(),
        permits: permits.clone(),
        shared_files: shared_files.clone(),
        found: FoundProgram::default(),
        strays: strays.clone(),
        origins: origins.clone(),
        path_limit: catalog.path_limit(),
        jobs: Arc::new(tokio::sync::Mutex::new(job_source)),
        results: Results {
            settings: settings.clone(),
            strays: strays.clone(),
            progress: progress.clone(),
            recorder: results,
        },
        runtime: tokio::runtime::Handle::current(),
    };
    let workers = start(workplace, connect)?;
    let recorder = Recorder {
        catalog: catalog.clone(),
        flight: flight.clone(),
        results: result_source,
        manifest: settings.manifest.clone(),
        progress: progress.clone(),
        stop: stop.clone(),
        rules: recorder::AttemptRules { max_attempts: settings.max_attempts, once: settings.once },
    };
    let recorder = tokio::spawn(recorder.run());
    let keeper = LinkKeeper::new(
        catalog.clone(),
        (permits.clone(), shared_files.clone(), flight.clone()),
        link_rate,
        control.clone(),
    );
    let poller = Poller {
        catalog: catalog.clone(),
        settings: settings.clone(),
        permits: permits.clone(),
        flight,
        origins,
        strays,
        jobs,
        control,
    };
    let tune = permits.look_after(progress.clone(), stop.clone(), || shared_files.work_waits());
    let ended = poll(poller, async {
        tokio::join!(tune, keeper.run());
    })
    .await;
    permits.open_all();
    if matches!(ended, Ended::OutOfReach(_)) {
        stop.stop();
    }
    // The poller is gone and with it the queue's end: workers finish what they have and leave, then the recorder.
    finish(workers, recorder, &stop, settings.grace).await;
    let _ = tokio::time::timeout(LAST_RECORDS, catalog.close()).await;
    Ok(ended)
}

/// Polls to the end of that, with what is done beside it.
async fn poll<C: Catalog>(poller: Poller<C>, beside: impl Future<Output = ()>) -> Ended {
    // A task of its own, that ends with this call: within it each of its timers would wake two threads, and it has many.
    let mut poll = JoinSet::new();
    poll.spawn(poller.run());
    let beside = async {
        beside.await;
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = poll.join_next() => ended.and_then(Result::ok),
        () = beside => None,
    };
    ended.unwrap_or_else(|| Ended::OutOfReach("The poller has panicked; please report this".to_owned()))
}

/// Starts the workers, each on a thread. Only they hold the results' sender and the queue's end then: when they are gone, the
/// others notice.
fn start(
    workplace: Workplace,
    connect: impl Fn() -> Result<Box<dyn Connect>, ConnectError>,
) -> Result<Vec<JoinHandle<()>>, ConnectError> {
    let start = |number| {
        let worker = Worker::new(number, connect()?, workplace.clone());
        let thread = std::thread::Builder::new().name(format!("worker {number}"));
        let spawned = thread.spawn(move || worker.run());
        spawned.map_err(|error| ConnectError::Setup(format!("Cannot start a thread: {error}")))
    };
    (0..workplace.settings.workers.most()).map(start).collect()
}

/// Waits for the workers and the recorder; once we are to stop, for as long as `grace` allows.
async fn finish(workers: Vec<JoinHandle<()>>, recorder: tokio::task::JoinHandle<()>, stop: &Stop, grace: Duration) {
    let finish = async {
        let join = move || workers.into_iter().filter_map(|worker| worker.join().err()).count();
        if tokio::task::spawn_blocking(join).await.unwrap_or(1) > 0 {
            tracing::error!("A worker thread panicked; its rows stay pending. Please report this");
        }
        let _ = recorder.await;
    };
    let too_late = async {
        stop.stopped().await;
        tokio::time::sleep(grace).await;
        stop.close_links();
        tokio::time::sleep(LAST_RECORDS).await;
    };
    tokio::select! {
        () = finish => {}
        () = too_late => {
            tracing::warn!("Some results could not be recorded in time; their rows stay pending and will be confirmed next time");
        }
    }
}
