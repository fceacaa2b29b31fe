//! How a run stands: one truth for progress bars, summaries and whoever else asks.

use crate::clock::unix_now;
use crate::transfer::send::Sent;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Whose trouble a failed attempt was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The file is not there, or is no file.
    Missing,
    /// The file cannot be read.
    Unreadable,
    /// The file is not what was registered.
    Changed,
    /// The storage node does not take the file.
    Refused,
    /// The row cannot be used.
    Row,
}

/// How many kinds of failure there are.
const FAILURES: usize = 5;
/// What a link may swallow that carries nothing: all that fits into the buffers on the way.
const SWALLOWED_MOST: u64 = 16 << 20;
/// Copies that are remembered by name.
const COPIES_KEPT: usize = 100;

/// The copies recorded last.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LastCopy {
    /// When the first of them was recorded, unix time in seconds.
    pub start_time: f64,
    /// When the last one was.
    pub stop_time: f64,
    /// Sources, and whether they were proven; at most a hundred.
    pub files: Vec<(String, bool)>,
}

/// Counters of a running archiver. Shared by all its parts.
pub struct Progress {
    started: Instant,
    counts: Counts,
    words: Mutex<Words>,
}

#[derive(Default)]
struct Counts {
    copied: AtomicU64,
    failed: AtomicU64,
    read_bytes: AtomicU64,
    literal_bytes: AtomicU64,
    matched_bytes: AtomicU64,
    link_troubles: AtomicU64,
    timeouts: AtomicU64,
    database_troubles: AtomicU64,
    failures: [AtomicU64; FAILURES],
    passes: AtomicU64,
    in_flight: AtomicU64,
    confirmed: AtomicU64,
    found_bytes: AtomicU64,
    taken: AtomicU64,
    taken_bytes: AtomicU64,
    given_up: AtomicU64,
    read_since_trouble: AtomicU64,
    deleting: AtomicBool,
}

#[derive(Default)]
struct Words {
    sessions: Vec<u64>,
    last_copy: LastCopy,
    last_proven: Option<(f64, String)>,
    link: Option<String>,
    database: Option<String>,
    road: Option<String>,
    source: Option<String>,
    given_up: Option<String>,
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// Rows recorded as copied.
    pub copied: u64,
    /// Failed attempts recorded.
    pub failed: u64,
    /// Bytes read from files to be sent.
    pub read_bytes: u64,
    /// Bytes of proven files that went over the wire.
    pub literal_bytes: u64,
    /// Bytes of proven files that were there already.
    pub matched_bytes: u64,
    /// How often the far end was out of reach or a session broke.
    pub link_troubles: u64,
    /// How many of these were silence beyond a limit.
    pub timeouts: u64,
    /// How often the database was out of reach.
    pub database_troubles: u64,
    /// Failed attempts by kind, in the order of [`Failure`].
    pub failures: [u64; FAILURES],
    /// Passes through the waiting rows.
    pub passes: u64,
    /// Rows on their way now.
    pub in_flight: u64,
    /// Files that the far end has confirmed, some of which may not be recorded yet.
    pub confirmed: u64,
    /// Bytes of confirmed files that were in place, and so were not read.
    pub found_bytes: u64,
    /// Rows taken up, and the bytes of their files as far as they are known beforehand.
    pub taken: u64,
    /// See `taken`.
    pub taken_bytes: u64,
    /// Rows given up in this run.
    pub given_up: u64,
    /// File data has moved since the link was last in trouble.
    pub flows: bool,
    /// Local files are being deleted.
    pub deleting: bool,
    /// Bytes read by each session.
    pub session_bytes: Vec<u64>,
    /// The copies recorded last.
    pub last_copy: LastCopy,
    /// When the last proven copy was recorded, unix time in seconds, and where it is.
    pub last_proven: Option<(f64, String)>,
    /// Seconds since the run began.
    pub seconds: f64,
    /// What is wrong with the link now, if anything.
    pub link: Option<String>,
    /// What is wrong with the database now, if anything.
    pub database: Option<String>,
    /// What is wrong with the place where files come from now, if anything.
    pub source: Option<String>,
    /// The road files take where it is not the straight one, and why.
    pub road: Option<String>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { started: Instant::now(), counts: Counts::default(), words: Mutex::default() }
    }
}

impl Progress {
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let counts = &self.counts;
        let words = self.words();
        Snapshot {
            copied: counts.copied.load(Relaxed),
            failed: counts.failed.load(Relaxed),
            read_bytes: counts.read_bytes.load(Relaxed),
            literal_bytes: counts.literal_bytes.load(Relaxed),
            matched_bytes: counts.matched_bytes.load(Relaxed),
            link_troubles: counts.link_troubles.load(Relaxed),
            timeouts: counts.timeouts.load(Relaxed),
            database_troubles: counts.database_troubles.load(Relaxed),
            failures: std::array::from_fn(|kind| counts.failures[kind].load(Relaxed)),
            passes: counts.passes.load(Relaxed),
            in_flight: counts.in_flight.load(Relaxed),
            confirmed: counts.confirmed.load(Relaxed),
            found_bytes: counts.found_bytes.load(Relaxed),
            taken: counts.taken.load(Relaxed),
            taken_bytes: counts.taken_bytes.load(Relaxed),
            given_up: counts.given_up.load(Relaxed),
            flows: counts.read_since_trouble.load(Relaxed) > 0,
            deleting: counts.deleting.load(Relaxed),
            session_bytes: words.sessions.clone(),
            last_copy: words.last_copy.clone(),
            last_proven: words.last_proven.clone(),
            seconds: self.started.elapsed().as_secs_f64(),
            link: words.link.clone(),
            database: words.database.clone(),
            source: words.source.clone(),
            road: words.road.clone(),
        }
    }

    /// Bytes were read for the session of this number.
    pub(crate) fn read(&self, session: usize, bytes: u64) {
        self.counts.read_bytes.fetch_add(bytes, Relaxed);
        let since = self.counts.read_since_trouble.fetch_add(bytes, Relaxed) + bytes;
        let mut words = self.words();
        if since > SWALLOWED_MOST {
            words.link = None;
        }
        if words.sessions.len() <= session {
            words.sessions.resize(session + 1, 0);
        }
        words.sessions[session] += bytes;
    }

    pub(crate) fn failure(&self, kind: Failure) {
        self.counts.failures[kind as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn pass(&self) {
        self.counts.passes.fetch_add(1, Relaxed);
    }

    pub(crate) fn admitted(&self, bytes: u64) {
        self.counts.in_flight.fetch_add(1, Relaxed);
        self.counts.taken.fetch_add(1, Relaxed);
        self.counts.taken_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn settled(&self) {
        self.counts.in_flight.fetch_sub(1, Relaxed);
    }

    pub(crate) fn deleting(&self, now: bool) {
        self.counts.deleting.store(now, Relaxed);
    }

    /// A batch of outcomes begins to be recorded.
    pub(crate) fn recording(&self) {
        let now = unix_now();
        self.words().last_copy = LastCopy { start_time: now, stop_time: now, files: Vec::new() };
    }

    /// The far end has confirmed a file; `in_place` if it was there already and none of it was read.
    pub(crate) fn confirmed(&self, sent: &Sent, in_place: bool) {
        self.counts.confirmed.fetch_add(1, Relaxed);
        if in_place {
            self.counts.found_bytes.fetch_add(sent.matched_bytes, Relaxed);
        }
        self.counts.literal_bytes.fetch_add(sent.literal_bytes, Relaxed);
        self.counts.matched_bytes.fetch_add(sent.matched_bytes, Relaxed);
        self.words().link = None;
    }

    /// An outcome was recorded; `path` is where a proven copy is.
    pub(crate) fn recorded(&self, source: &str, path: Option<&str>) {
        let count = if path.is_some() { &self.counts.copied } else { &self.counts.failed };
        count.fetch_add(1, Relaxed);
        let mut words = self.words();
        let now = unix_now();
        words.last_copy.stop_time = now;
        if words.last_copy.files.len() < COPIES_KEPT {
            words.last_copy.files.push((source.to_owned(), path.is_some()));
        }
        if let Some(path) = path {
            words.last_proven = Some((now, path.to_owned()));
        }
    }

    pub(crate) fn link_trouble(&self, why: &str) {
        self.counts.link_troubles.fetch_add(1, Relaxed);
        self.counts.read_since_trouble.store(0, Relaxed);
        self.words().link = Some(why.to_owned());
    }

    /// Sets the road; whether it is another than before.
    pub(crate) fn set_road(&self, road: Option<String>) -> bool {
        let mut words = self.words();
        let is_new = words.road != road;
        words.road = road;
        is_new
    }

    pub(crate) fn timed_out(&self) {
        self.counts.timeouts.fetch_add(1, Relaxed);
    }

    pub(crate) fn database_trouble(&self, why: &str) {
        self.counts.database_troubles.fetch_add(1, Relaxed);
        self.words().database = Some(why.to_owned());
    }

    pub(crate) fn database_troubles(&self) -> u64 {
        self.counts.database_troubles.load(Relaxed)
    }

    pub(crate) fn database_fine(&self) {
        self.words().database = None;
    }

    /// What is wrong with the place where files come from.
    pub(crate) fn set_source(&self, why: Option<String>) {
        self.words().source = why;
    }

    /// A row was given up.
    pub(crate) fn gave_up(&self) {
        self.counts.given_up.fetch_add(1, Relaxed);
    }

    pub(crate) fn give_up(&self, why: &str) {
        self.words().given_up.get_or_insert(why.to_owned());
    }

    pub(crate) fn given_up(&self) -> Option<String> {
        self.words().given_up.clone()
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
