//! What is done beside the copying in the place of a SupRsync: deleting local files that were proven long enough ago, and
//! announcing complete timecode directories.

mod announce;
mod prune;

use super::Sources;
use super::control::Control;
use crate::catalog::{AnyCatalog, Catalog, CatalogError};
use prune::Stays;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is done.
const EVERY: Duration = Duration::from_secs(60);
/// When it is done first.
const BEGINNING: Duration = Duration::from_secs(10);
/// What share of the time going through the table may take, and the longest pause that makes.
const SCAN_SHARE: u32 = 50;
const EVERY_MOST: Duration = Duration::from_secs(3600);

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    /// Local files are deleted so long after they were proven.
    pub delete_after: Option<Duration>,
    /// Complete timecode directories are announced by files below this directory.
    pub announce: Option<Announcing>,
    /// Which files may be deleted.
    pub sources: Sources,
}

/// What a round came to.
#[derive(Default)]
struct Round {
    /// Files that were registered for copying.
    announced: u64,
    /// How long the table was gone through.
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
        self.delete_after.is_none() && self.announce.is_none()
    }

    /// Does it now and then for as long as the run lasts; never ends by itself.
    pub(crate) async fn run(&self, catalog: Arc<AnyCatalog>, control: Control) {
        let every = EVERY.min(self.delete_after.unwrap_or(EVERY)).max(Duration::from_secs(1));
        let mut stays = Stays::default();
        // What waits to be copied is looked for first.
        tokio::time::sleep(every.min(BEGINNING)).await;
        loop {
            let mut pause = every;
            if !control.is_paused() {
                match self.round(&catalog, &mut stays, &control).await {
                    Ok(round) => pause = pause.max((round.scanned * SCAN_SHARE).min(EVERY_MOST)),
                    // Who copies meets it too, and says when it lasts.
                    Err(error) => tracing::info!(event = "database_trouble", "{error}; trying again"),
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Does it once. Returns how many files were registered for copying.
    ///
    /// # Errors
    /// Those of the table; what was done before stays done.
    pub(crate) async fn once(&self, catalog: &AnyCatalog, control: &Control) -> Result<u64, CatalogError> {
        Ok(self.round(catalog, &mut Stays::default(), control).await?.announced)
    }

    async fn round(&self, catalog: &AnyCatalog, stays: &mut Stays, control: &Control) -> Result<Round, CatalogError> {
        let mut round = Round::default();
        let AnyCatalog::Sqlite(table) = catalog else { return Ok(round) };
        if self.is_idle() {
            return Ok(round);
        }
        // Whoever does not hold the archive leaves its files alone.
        table.claim().await?;
        if let Some(announcing) = &self.announce {
            let began = Instant::now();
            round.announced = announcing.announce(table).await?;
            round.scanned += began.elapsed();
        }
        if let Some(age) = self.delete_after {
            round.scanned += prune::prune(table, &self.sources, age, stays, control).await?;
        }
        Ok(round)
    }
}
