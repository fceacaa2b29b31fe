//! What the table says when it is asked now and then.

use super::reasons::grouped;
use super::report::ReasonReport;
use crate::catalog::{AnyCatalog, ArchiveStats, Catalog, NodeDebt, Pending, RecordId, Retry, TargetBacklog, Totals};
use crate::clock::unix_now;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Waiting files whose sizes are looked up for the backlog; beyond, the sum is scaled.
const SIZED_MOST: usize = 1000;
/// Rows given up whose reasons are looked up.
const REASONS_MOST: usize = 100;
/// How long that may take: the files may lie on a file system that does not answer.
const SIZES_LIMIT: Duration = Duration::from_secs(10);
/// How long what waits of each of several targets is counted.
const BY_TARGET: Duration = Duration::from_millis(50);
/// One does it at a time, so that a file system that hangs has one thread of ours and not ever more.
static SIZING: Semaphore = Semaphore::const_new(1);

/// What the table said when it was last asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableCounts {
    pub(crate) totals: Totals,
    pub(crate) backlog_bytes: u64,
    pub(crate) oldest: Option<f64>,
    pub(crate) archive: Option<ArchiveStats>,
    /// Why rows were given up, of the first hundred.
    pub(crate) reasons: Vec<ReasonReport>,
    /// What waits of each of several targets, and what the storage node lacks; where several archivers share the rows.
    pub(crate) by_target: Vec<TargetBacklog>,
    pub(crate) debts: Vec<NodeDebt>,
    /// When that was, unix time in seconds; `None` before.
    pub(crate) counted: Option<f64>,
}

impl TableCounts {
    /// Asks the table; what it does not answer stays as it was.
    pub(super) async fn look(catalog: &AnyCatalog, before: Self) -> Self {
        let totals = catalog.totals().await;
        let counted = if totals.is_ok() { Some(unix_now()) } else { before.counted };
        let totals = totals.unwrap_or(before.totals);
        let oldest = catalog.oldest().await.unwrap_or(before.oldest);
        let archive = catalog.archive_stats().await.unwrap_or(before.archive);
        let backlog_bytes = match totals.pending {
            0 => 0,
            pending => bytes_of(catalog, pending).await.unwrap_or(before.backlog_bytes),
        };
        let reasons = match totals.given_up {
            0 => Vec::new(),
            given_up if given_up == before.totals.given_up && !before.reasons.is_empty() => before.reasons,
            _ => reasons_of(catalog).await.unwrap_or(before.reasons),
        };
        let fleet = catalog.backlog_and_debts(BY_TARGET).await;
        let (by_target, debts) = fleet.unwrap_or((before.by_target, before.debts));
        Self { totals, backlog_bytes, oldest, archive, reasons, by_target, debts, counted }
    }
}

/// Why rows were given up, as far as it was kept.
async fn reasons_of(catalog: &AnyCatalog) -> Option<Vec<ReasonReport>> {
    let notes = catalog.given_up(&Retry::All, REASONS_MOST).await.ok()?;
    Some(grouped(&notes))
}

/// How many bytes the waiting files have: some of them speak for all.
pub(super) async fn bytes_of(catalog: &AnyCatalog, pending: u64) -> Option<u64> {
    let rows = catalog.pending(RecordId(0), SIZED_MOST).await.ok()?;
    let sizing = async {
        let turn = SIZING.acquire().await.ok()?;
        let sizes = sizes(rows);
        // The thread has the turn, also when nobody waits for it any more.
        let look = tokio::task::spawn_blocking(move || (sizes(), turn).0);
        look.await.ok()
    };
    let (files, bytes) = tokio::time::timeout(SIZES_LIMIT, sizing).await.ok()??;
    Some(if files == 0 { 0 } else { (bytes as f64 / files as f64 * pending as f64) as u64 })
}

/// Looks up how many of the rows' files there are, and their bytes.
fn sizes(rows: Vec<Pending>) -> impl FnOnce() -> (u64, u64) + Send + 'static {
    move || {
        rows.iter().fold((0, 0), |(files, bytes), row| match row {
            Pending::Ready(record) => {
                (files + 1, bytes + std::fs::metadata(&record.source).map_or(0, |meta| meta.len()))
            }
            Pending::Unusable { .. } => (files + 1, bytes),
        })
    }
}
