//! What is done beside the copying in the place of a SupRsync: deleting local files that were proven long enough ago, or whose
//! room is needed, and announcing complete timecode directories.

mod announce;
mod prune;
mod removal;
mod stays;

use super::Sources;
use super::control::Control;
use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::{AnyCatalog, CatalogError};
use crate::disk::room::FreeMark;
use prune::{PruneMemory, Pruner, Relieved};
pub(crate) use removal::{PruneMode, PruneReading, would_free};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is done.
const EVERY: Duration = Duration::from_secs(60);
/// When it is done first.
const BEGINNING: Duration = Duration::from_secs(10);
/// How often it is looked how much room there is, and how often where nothing helps.
const ROOM_EVERY: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];
/// When that is done first: a full disk does not wait.
const ROOM_BEGINNING: Duration = Duration::from_secs(1);
/// What share of the time asking the table may take, and the longest pause that makes.
const SCAN_SHARE: u32 = 50;
const EVERY_MOST: Duration = Duration::from_secs(3600);

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    pub deletion: PruneRules,
    /// Complete timecode directories are announced by files below this directory.
    pub announce: Option<Announcing>,
    /// Which files may be deleted.
    pub sources: Sources,
}

/// When local files are deleted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PruneRules {
    /// So long after they were proven.
    pub after: Option<Duration>,
    /// The oldest of them, where less room is free than this.
    pub below: Option<FreeMark>,
    pub doing: PruneMode,
}

/// What a round came to.
#[derive(Default)]
struct Round {
    /// Files that were registered for copying.
    announced: u64,
    /// How long the table was asked.
    scanned: Duration,
}

/// How timecode directories are announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcing {
    /// Where the announcing files are written.
    pub root: PathBuf,
    /// Who announces: the agent's instance id.
    pub who: String,
}

impl Upkeep {
    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.deletion.after.is_none() && self.deletion.below.is_none() && self.announce.is_none()
    }

    /// Does it now and then for as long as the run lasts; never ends by itself.
    pub(crate) async fn run(&self, catalog: Arc<AnyCatalog>, control: Control) {
        let AnyCatalog::Sqlite(table) = &*catalog else { return std::future::pending().await };
        let every = EVERY.min(self.deletion.after.unwrap_or(EVERY)).max(Duration::from_secs(1));
        let mut memory = PruneMemory::default();
        // What waits to be copied is looked for first.
        let mut due = Instant::now() + every.min(BEGINNING);
        let mut room_due = Instant::now() + ROOM_BEGINNING;
        loop {
            let next = if self.deletion.below.is_some() { due.min(room_due) } else { due };
            tokio::time::sleep_until(next.into()).await;
            let pause = match control.is_paused() {
                true => every,
                false if due <= Instant::now() => told(self.round(table, &mut memory, &control).await)
                    .map_or(every, |round| every.max((round.scanned * SCAN_SHARE).min(EVERY_MOST))),
                false => Duration::ZERO,
            };
            if !pause.is_zero() {
                due = Instant::now() + pause;
            }
            if room_due <= Instant::now() {
                let relieved = match control.is_paused() {
                    true => None,
                    false => told(self.relieve(table, &mut memory, &control).await),
                };
                room_due = Instant::now() + ROOM_EVERY[usize::from(relieved == Some(Relieved::Short))];
            }
        }
    }

    /// Does it once. Returns how many files were registered for copying.
    ///
    /// # Errors
    /// Those of the table; what was done before stays done.
    pub(crate) async fn once(&self, catalog: &AnyCatalog, control: &Control) -> Result<u64, CatalogError> {
        let AnyCatalog::Sqlite(table) = catalog else { return Ok(0) };
        let mut memory = PruneMemory::default();
        let announced = self.round(table, &mut memory, control).await?.announced;
        self.relieve(table, &mut memory, control).await?;
        Ok(announced)
    }

    async fn round(
        &self,
        table: &SqliteCatalog,
        memory: &mut PruneMemory,
        control: &Control,
    ) -> Result<Round, CatalogError> {
        let mut round = Round::default();
        if self.is_idle() {
            return Ok(round);
        }
        // Whoever does not hold the archive leaves its files alone; of several who share it, it is one's duty.
        if !table.is_on_duty().await? {
            return Ok(round);
        }
        if let Some(announcing) = &self.announce {
            let began = Instant::now();
            round.announced = announcing.announce(table).await?;
            round.scanned += began.elapsed();
        }
        if let Some(age) = self.deletion.after {
            round.scanned += self.pruner(table, memory, control).by_age(age).await?;
        }
        Ok(round)
    }

    async fn relieve(
        &self,
        table: &SqliteCatalog,
        memory: &mut PruneMemory,
        control: &Control,
    ) -> Result<Relieved, CatalogError> {
        let Some(mark) = self.deletion.below else { return Ok(Relieved::Enough) };
        if !table.is_on_duty().await? {
            return Ok(Relieved::Enough);
        }
        self.pruner(table, memory, control).relieve(mark).await
    }

    fn pruner<'a>(&'a self, table: &'a SqliteCatalog, memory: &'a mut PruneMemory, control: &'a Control) -> Pruner<'a> {
        Pruner { table, sources: &self.sources, doing: self.deletion.doing, control, memory }
    }
}

/// Says what is wrong with the table.
fn told<T>(done: Result<T, CatalogError>) -> Option<T> {
    // Who copies meets it too, and says when it lasts.
    done.map_err(|error| tracing::info!(event = "database_trouble", "{error}; trying again")).ok()
}
