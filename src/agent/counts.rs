//! What the table says when it is asked now and then.

use crate::catalog::{AnyCatalog, ArchiveStats, Catalog, Pending, RecordId, Totals};

/// Waiting files whose sizes are looked up for the backlog; beyond, the sum is scaled.
const SIZED_MOST: usize = 1000;

/// What the table said when it was last asked.
#[derive(Default)]
pub(super) struct TableCounts {
    pub(super) totals: Totals,
    pub(super) backlog_bytes: u64,
    pub(super) oldest: Option<f64>,
    pub(super) archive: Option<ArchiveStats>,
}

impl TableCounts {
    /// Asks the table; what it does not answer stays as it was.
    pub(super) async fn look(catalog: &AnyCatalog, before: Self) -> Self {
        let totals = catalog.totals().await.unwrap_or(before.totals);
        let oldest = catalog.oldest().await.unwrap_or(before.oldest);
        let archive = catalog.archive_stats().await.unwrap_or(before.archive);
        let sizes = catalog.pending(RecordId(0), SIZED_MOST).await.map(sizes);
        let backlog_bytes = match sizes {
            Ok(sizes) => {
                let (files, bytes) = tokio::task::spawn_blocking(sizes).await.unwrap_or_default();
                if files == 0 { 0 } else { (bytes as f64 / files as f64 * totals.pending as f64) as u64 }
            }
            Err(_) => before.backlog_bytes,
        };
        Self { totals, backlog_bytes, oldest, archive }
    }
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
