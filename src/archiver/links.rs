//! Our share of the link to the far end, where several archivers share it: how many sessions may be open, how fast they may be,
//! and who finds out when a link that is down is there again.

use super::control::Control;
use super::flight::Flight;
use super::sessions::SessionPermits;
use super::shared_file::SharedFiles;
use crate::catalog::{Catalog, CatalogError, LinkGrant, LinkNews, LinkWay};
use crate::status::Progress;
use crate::throttle::Rate;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Turns that may fail one after another before that is told. Where the database refuses them, and the first one has not come
/// through, it works without a share from then on, rather than not at all.
const TRIES: u32 = 5;
/// Until the next one.
const AGAIN: Duration = Duration::from_secs(1);
/// What the last turn's pace counts of the average.
const WEIGHT: f64 = 0.5;

/// Keeps to our share of the link for as long as it runs.
pub(super) struct LinkKeeper<C> {
    catalog: Arc<C>,
    permits: Arc<SessionPermits>,
    shared_files: Arc<SharedFiles>,
    flight: Arc<Flight>,
    rate: Rate,
    control: Control,
}

impl<C: Catalog> LinkKeeper<C> {
    /// Where a link is shared, nothing goes over it before the first turn. `rate` is that of all sessions together.
    pub(super) fn new(
        catalog: Arc<C>,
        (permits, shared_files, flight): (Arc<SessionPermits>, Arc<SharedFiles>, Arc<Flight>),
        rate: Rate,
        control: Control,
    ) -> Self {
        if catalog.shares_link() {
            permits.limit_to(0);
        }
        Self { catalog, permits, shared_files, flight, rate, control }
    }

    pub(super) async fn run(self) {
        if !self.catalog.shares_link() {
            return self.control.stop().stopped().await;
        }
        let (mut pace, mut last, mut failed) = (MovedPace::new(self.control.progress()), None::<LinkGrant>, 0);
        loop {
            let again = match self.catalog.link_turn(self.news(&mut pace)).await {
                Ok(grant) => {
                    self.apply(&grant, last.as_ref());
                    let again = grant.again;
                    (last, failed) = (Some(grant).filter(|grant| !grant.outside), 0);
                    again
                }
                // It joins anew.
                Err(CatalogError::Lost(_)) => AGAIN,
                Err(error) => {
                    failed += 1;
                    tracing::debug!(%error, "No turn at the link");
                    if failed == TRIES {
                        self.tell(&error, last.is_some());
                    }
                    AGAIN
                }
            };
            tokio::select! {
                () = tokio::time::sleep(again) => {}
                () = self.permits.found().rings() => {}
                // What is under way keeps to what it has.
                () = self.control.stop().stopped() => return,
            }
        }
    }

    /// Why there are no turns. `has_share`: there was one before.
    fn tell(&self, error: &CatalogError, has_share: bool) {
        match (error, has_share) {
            (CatalogError::Setup(_), false) => {
                tracing::warn!(
                    event = "link_not_shared",
                    "{error}. Until then it goes on without a share of the link to the storage node"
                );
                self.permits.limit_to(usize::MAX);
            }
            (CatalogError::Setup(_), true) => tracing::warn!(
                event = "link_not_shared",
                "{error}. Until then it goes on with the share of the link to the storage node that it had last"
            ),
            (_, false) => tracing::warn!(
                event = "link_unknown",
                "{error}. Nothing goes over the link to the storage node before the database has told our share of it; it goes on trying"
            ),
            (_, true) => tracing::warn!(
                event = "link_unknown",
                "{error}. It goes on with the share of the link to the storage node that it had last, and asks again"
            ),
        }
    }

    fn news(&self, pace: &mut MovedPace) -> LinkNews {
        let moved = pace.moved(self.control.progress());
        let way = self.permits.found().take();
        // Who moves something knows that the link is there.
        let way = if moved > 0 && way == LinkWay::Untried { LinkWay::Through } else { way };
        let wants = if self.flight.is_empty() { 0 } else { self.permits.wanted() };
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        LinkNews {
            moved: pace.average as u64,
            wants: small(wants),
            in_use: self.permits.open(),
            allowed: small(self.permits.sessions()),
            way,
        }
    }

    fn apply(&self, grant: &LinkGrant, before: Option<&LinkGrant>) {
        let sessions = grant.sessions.map_or(usize::MAX, |sessions| sessions as usize);
        self.permits.limit_to(sessions);
        self.permits.found().set_marked(grant.marked);
        self.shared_files.keep_to_one_each(grant.sessions.is_some());
        self.rate.set(grant.bandwidth.unwrap_or(0));
        if let Some((mover, why)) = &grant.waits_for
            && before.and_then(|before| before.waits_for.as_ref()).is_none()
        {
            tracing::info!(
                event = "link_waits",
                "The storage node is out of reach, as mover {mover} found and tries again: {why}"
            );
        }
        if before.is_none_or(|before| (before.sessions, before.bandwidth) != (grant.sessions, grant.bandwidth))
            && (grant.sessions.is_some() || grant.bandwidth.is_some())
        {
            tracing::debug!(sessions = grant.sessions, bandwidth = grant.bandwidth, "Share of the link");
        }
    }
}

/// What is moved, on average over the last turns.
struct MovedPace {
    /// Until the last turn.
    bytes: u64,
    /// Of those since this moment the average knows nothing yet.
    since: (u64, Instant),
    average: f64,
}

impl MovedPace {
    fn new(progress: &Progress) -> Self {
        let bytes = progress.snapshot().read_bytes;
        Self { bytes, since: (bytes, Instant::now()), average: 0.0 }
    }

    /// Bytes since the last turn.
    fn moved(&mut self, progress: &Progress) -> u64 {
        let now = progress.snapshot().read_bytes;
        let (before, since) = self.since;
        let seconds = since.elapsed().as_secs_f64();
        // Turns that come shortly after another say little.
        if seconds > 0.1 {
            self.average += (now.saturating_sub(before) as f64 / seconds - self.average) * WEIGHT;
            self.since = (now, Instant::now());
        }
        now.saturating_sub(std::mem::replace(&mut self.bytes, now))
    }
}
