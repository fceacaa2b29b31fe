//! How a run stands: one truth for progress bars, summaries and whoever else asks.

use crate::transfer::send::Sent;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    database_troubles: AtomicU64,
}

#[derive(Default)]
struct Words {
    link: Option<String>,
    database: Option<String>,
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
    /// How often the database was out of reach.
    pub database_troubles: u64,
    /// Seconds since the run began.
    pub seconds: f64,
    /// What is wrong with the link now, if anything.
    pub link: Option<String>,
    /// What is wrong with the database now, if anything.
    pub database: Option<String>,
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
            database_troubles: counts.database_troubles.load(Relaxed),
            seconds: self.started.elapsed().as_secs_f64(),
            link: words.link.clone(),
            database: words.database.clone(),
        }
    }

    pub(crate) fn read(&self, bytes: u64) {
        self.counts.read_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn proven(&self, sent: &Sent) {
        self.counts.literal_bytes.fetch_add(sent.literal_bytes, Relaxed);
        self.counts.matched_bytes.fetch_add(sent.matched_bytes, Relaxed);
        self.words().link = None;
    }

    pub(crate) fn recorded(&self, copied: bool) {
        if copied { &self.counts.copied } else { &self.counts.failed }.fetch_add(1, Relaxed);
    }

    pub(crate) fn link_trouble(&self, why: &str) {
        self.counts.link_troubles.fetch_add(1, Relaxed);
        self.words().link = Some(why.to_owned());
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
