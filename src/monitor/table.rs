//! The table that files are registered in, which may be out of reach at any time.

use super::counters::MonitorCounters;
use crate::backoff::Backoff;
use crate::catalog::announced::{AnnouncedBatch, AnnouncedOutcome, SpoolMarks};
use crate::catalog::{self, AnyCatalog, Catalog, CatalogError, Database};
use crate::status::{Ongoing, told};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// The longest pause between two attempts at a database that is out of reach.
const LONGEST: Duration = Duration::from_secs(5);
/// How soon it is noticed within one that it is over.
const TICK: Duration = Duration::from_millis(50);
/// How often the same trouble is said again.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Beside the spool: how far it has come, for a database that knows nothing of it.
const POSITIONS: &str = "positions";
/// How often that is written.
const REMEMBER_EVERY: Duration = Duration::from_secs(1);

/// A table, open or not.
pub(super) struct MonitorTable {
    database: Database,
    options: catalog::Options,
    runtime: Handle,
    counters: Arc<MonitorCounters>,
    catalog: Option<AnyCatalog>,
    backoff: Backoff,
    said: Option<(Instant, String)>,
    remembered: Option<Instant>,
}

impl MonitorTable {
    pub(super) fn new(
        database: Database,
        options: catalog::Options,
        runtime: Handle,
        counters: Arc<MonitorCounters>,
    ) -> Self {
        let backoff = Backoff::new(Duration::from_millis(300)..=Duration::from_millis(500), 1.5);
        Self { database, options, runtime, counters, catalog: None, backoff, said: None, remembered: None }
    }

    /// Letters of a path that it holds.
    pub(super) fn path_limit(&self) -> usize {
        self.catalog.as_ref().map_or(usize::MAX, Catalog::path_limit)
    }

    /// What it says of this spool; `None` where it is out of reach, after a pause.
    pub(super) fn marks(&mut self, spool: &str, stop: &AtomicBool) -> Option<SpoolMarks> {
        let read = self.open().and_then(|(catalog, runtime)| runtime.block_on(catalog.spool_marks(spool)));
        self.done(read, stop)
    }

    /// Registers a batch; `None` where it is out of reach, after a pause.
    pub(super) fn announce(&mut self, batch: AnnouncedBatch, stop: &AtomicBool) -> Option<AnnouncedOutcome> {
        let written = self.open().and_then(|(catalog, runtime)| runtime.block_on(catalog.register_announced(batch)));
        self.done(written, stop)
    }

    pub(super) fn close(&mut self) {
        if let Some(catalog) = self.catalog.take() {
            self.runtime.block_on(catalog.close());
        }
    }

    fn open(&mut self) -> Result<(&AnyCatalog, &Handle), CatalogError> {
        let catalog = match self.catalog.take() {
            Some(catalog) => catalog,
            None => self.runtime.block_on(async {
                if let (Database::Mysql(_), true) = (&self.database, self.options.create) {
                    // Not of a table that is there, and not by an account that may not.
                    let _ = catalog::init_db(&self.database).await;
                }
                catalog::open(&self.database, self.options.clone()).await
            })?,
        };
        Ok((self.catalog.insert(catalog), &self.runtime))
    }

    /// Tells of trouble, and that it is over.
    fn done<T>(&mut self, result: Result<T, CatalogError>, stop: &AtomicBool) -> Option<T> {
        match result {
            Ok(value) => {
                if self.said.take().is_some() {
                    tracing::info!(event = "database_fine", "Database {} takes files again", self.database);
                }
                self.counters.set_trouble(|troubles| troubles.database = None);
                self.backoff.reset();
                Some(value)
            }
            Err(error) => {
                let why = error.to_string();
                let trouble = self.counters.set_trouble(|troubles| Ongoing::renew(&mut troubles.database, &why));
                if self.said.as_ref().is_none_or(|(at, said)| *said != why || at.elapsed() > SAY_EVERY) {
                    let lasts = trouble.lasts();
                    told!(lasts, event = "database_trouble", "{why}; files wait in the spool, and it is tried again");
                    self.said = Some((Instant::now(), why));
                }
                let until = Instant::now() + self.backoff.pause().min(LONGEST);
                while Instant::now() < until && !stop.load(Relaxed) {
                    thread::sleep(TICK);
                }
                None
            }
        }
    }

    /// Keeps beside the spool how far it has come.
    pub(super) fn remember(&mut self, folder: &Path, spool: &str, lanes: [(&str, u64); 2]) {
        if self.remembered.is_some_and(|at| at.elapsed() < REMEMBER_EVERY) {
            return;
        }
        self.remembered = Some(Instant::now());
        let text: String = lanes.iter().map(|(lane, position)| format!("{spool} {lane} {position}\n")).collect();
        let fresh = folder.join(format!("{POSITIONS}.new"));
        // It is of use only with a database that was replaced, and then less is registered once more.
        let _ = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, folder.join(POSITIONS)));
    }

    /// What was kept there.
    pub(super) fn remembered(&self, folder: &Path) -> RememberedPositions {
        RememberedPositions(fs::read_to_string(folder.join(POSITIONS)).unwrap_or_default())
    }
}

/// How far spools had come when that was last kept.
pub(super) struct RememberedPositions(String);

impl RememberedPositions {
    /// Of a lane of a spool.
    pub(super) fn of(&self, spool: &str, lane: &str) -> u64 {
        let of = |line: &str| line.strip_prefix(spool)?.strip_prefix(' ')?.strip_prefix(lane)?.trim().parse().ok();
        self.0.lines().find_map(of).unwrap_or(0)
    }
}
