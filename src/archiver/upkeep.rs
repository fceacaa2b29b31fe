//! What is done beside the copying in the place of a SupRsync: deleting local files that were proven long enough ago, and
//! announcing complete timecode directories.

mod announce;
mod prune;

use super::control::Control;
use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::{AnyCatalog, Catalog, CatalogError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often it is done.
const EVERY: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upkeep {
    /// Local files are deleted so long after they were proven.
    pub delete_after: Option<Duration>,
    /// Complete timecode directories are announced by files below this directory.
    pub announce: Option<Announcing>,
}

/// How timecode directories are announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcing {
    /// Where the announcing files are written.
    pub root: PathBuf,
    /// Who announces: the agent's instance id.
    pub who: String,
}

impl Upkeep {
    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.delete_after.is_none() && self.announce.is_none()
    }

    /// Does it now and then for as long as the run lasts; never ends by itself.
    pub async fn run(&self, catalog: Arc<AnyCatalog>, control: Control) {
        let mut turn = tokio::time::interval(EVERY.min(self.delete_after.unwrap_or(EVERY)).max(Duration::from_secs(1)));
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            if !control.is_paused()
                && let Err(error) = self.once(&catalog, &control).await
            {
                tracing::warn!("{error}; trying again");
            }
        }
    }

    /// Does it once. Returns how many files were registered for copying.
    ///
    /// # Errors
    /// Those of the table; what was done before stays done.
    pub async fn once(&self, catalog: &AnyCatalog, control: &Control) -> Result<u64, CatalogError> {
        let AnyCatalog::Sqlite(table) = catalog else { return Ok(0) };
        if self.is_idle() {
            return Ok(0);
        }
        // Whoever does not hold the archive leaves its files alone.
        table.claim().await?;
        let announced = match &self.announce {
            Some(announcing) => announcing.announce(table).await?,
            None => 0,
        };
        if let Some(age) = self.delete_after {
            prune::prune(table, age, control).await?;
        }
        Ok(announced)
    }
}

/// The table for a thread that does blocking work.
type Table = SqliteCatalog;
