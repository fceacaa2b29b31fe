//! Finds waiting rows and fills the queue.
//!
//! A pass goes through the waiting rows in order of id, a page at a time. It begins at a floor below which nothing waits,
//! so that a poll stays cheap however long the table is; now and then one begins at the bottom, for rows that were put
//! back by hand or committed late.

use super::control::Control;
use super::crew::Crew;
use super::flight::{Flight, Job, Takeoff};
use super::layout::place;
use super::retry::{Backoff, ONCE_PATIENCE, Pauses};
use super::worker::{archived_path, too_long};
use super::{Direction, Ended, Settings};
use crate::catalog::{Catalog, CatalogError, Outcome, Pending, RecordId, Settled};
use crate::status::Failure;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Rows of one page.
const PAGE: usize = 256;
/// How far below the newest row the floor stays: rows get their ids before they are committed.
const MARGIN: i64 = 1000;
/// How often a pass begins at the bottom.
const BOTTOM_EVERY: Duration = Duration::from_secs(300);
/// Files from this size on are large.
const LARGE: u64 = 16 << 20;
/// How long looking at the files of a page may take; a hung file system must not stop the rest.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Poller<C> {
    pub(super) catalog: Arc<C>,
    pub(super) settings: Arc<Settings>,
    pub(super) crew: Arc<Crew>,
    pub(super) flight: Arc<Flight>,
    pub(super) jobs: mpsc::Sender<Vec<Job>>,
    pub(super) control: Control,
}

/// What a pass came to.
#[derive(Default)]
struct Pass {
    /// The lowest row that still waits.
    lowest: Option<RecordId>,
    /// Rows that took off.
    started: u64,
    /// Rows that wait for another row's landing.
    waiting: u64,
    /// Rows that wait for the end of their pause.
    paused: u64,
}

impl<C: Catalog> Poller<C> {
    /// Runs until stopped; with `once`, until nothing waits and nothing is in flight.
    pub(super) async fn run(self) -> Ended {
        let mut floor = RecordId(0);
        let mut bottom = Instant::now();
        let mut backoff = Backoff::new();
        let mut pauses = Pauses::default();
        let mut troubles = (0, 0);
        loop {
            if self.control.stop().is_stopped() {
                return self.ended();
            }
            if self.control.is_paused() {
                tokio::select! {
                    () = self.control.resumed() => {}
                    () = self.control.stop().stopped() => return self.ended(),
                }
            }
            // A database that comes back from a crash, or from a backup, may have forgotten what was recorded.
            let troubles_now = (self.control.progress().database_troubles(), self.catalog.generation());
            if bottom.elapsed() >= BOTTOM_EVERY || troubles_now != troubles {
                (floor, bottom, troubles) = (RecordId(0), Instant::now(), troubles_now);
            }
            let landing = self.flight.landing();
            let mut landing = std::pin::pin!(landing);
            // Registered before the pass looks at what is in flight: no landing is missed.
            landing.as_mut().enable();
            let pass = tokio::select! {
                pass = self.pass(floor, &mut pauses) => pass,
                () = self.control.paused() => continue,
                () = self.control.stop().stopped() => return self.ended(),
            };
            let mut waiting = false;
            let pause = match pass {
                Ok((pass, newest)) => {
                    waiting = pass.waiting > 0;
                    backoff.reset();
                    self.control.progress().database_fine();
                    let settled_below = RecordId(newest.0.saturating_sub(MARGIN));
                    floor = pass
                        .lowest
                        .map_or(settled_below, |lowest| settled_below.min(RecordId(lowest.0 - 1)))
                        .max(RecordId(0));
                    if self.settings.once && pass.lowest.is_none() && self.flight.is_empty() {
                        return Ended::Drained;
                    }
                    if pass.waiting > 0 || (self.settings.once && pass.started + pass.paused + pass.waiting > 0) {
                        Duration::from_millis(200).min(self.settings.poll)
                    } else {
                        self.settings.poll
                    }
                }
                Err(error) => {
                    self.control.progress().database_trouble(&error.to_string());
                    let pause = backoff.next();
                    if self.settings.once && backoff.failures >= ONCE_PATIENCE {
                        return Ended::OutOfReach(error.to_string());
                    }
                    tracing::warn!(wait_ms = pause.as_millis() as u64, "{error}; trying again");
                    pause
                }
            };
            let landed = async {
                loop {
                    landing.as_mut().await;
                    // Only a row that waits for a place, or a run that ends with its work, has a use for a landing.
                    if waiting || (self.settings.once && self.flight.is_empty()) {
                        return;
                    }
                    landing.set(self.flight.landing());
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = landed => {}
                () = self.control.asked() => (floor, pauses) = (RecordId(0), Pauses::default()),
                () = self.control.stop().stopped() => return self.ended(),
            }
        }
    }

    fn ended(&self) -> Ended {
        match self.control.progress().given_up() {
            Some(why) => Ended::OutOfReach(why),
            None => Ended::Stopped,
        }
    }

    /// Goes through the waiting rows above the floor once.
    async fn pass(&self, floor: RecordId, pauses: &mut Pauses) -> Result<(Pass, RecordId), CatalogError> {
        self.catalog.claim().await?;
        self.control.progress().pass();
        let newest = self.catalog.newest().await?;
        let mut pass = Pass::default();
        let mut after = floor;
        let mut batch = Batch::default();
        loop {
            let page = self.catalog.pending(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id();
            pass.lowest = pass.lowest.or(page.first().map(Pending::id));
            let last_page = page.len() < PAGE;
            let (rows, unusable) = self.sort_out(page, pauses, &mut pass);
            self.record_unusable(unusable).await?;
            let rows = match self.settings.direction {
                Direction::Push => look_at(rows, self.crew.seats() > 1).await,
                // How large they are, their far end says when they are fetched.
                Direction::Pull => rows,
            };
            let together = rows.iter().map(|row| row.bytes).sum();
            for row in rows {
                // Never sit on a batch while waiting for room: the rows that fill the queue may be these very ones.
                let seats = self.crew.seats();
                let bytes = fair_share(together, seats).min(self.settings.batch_bytes(seats));
                let most = (self.settings.batch_files(seats), bytes);
                if batch.is_full(most, row.bytes) || !self.flight.has_room(row.bytes) {
                    self.hand_over(&mut batch).await;
                }
                // The same place may have come up twice in one page.
                if self.flight.has_place(&row.place) {
                    pass.waiting += 1;
                    continue;
                }
                pauses.forget(row.id.0);
                let bytes = row.bytes;
                let Some(job) = self.flight.take_off(row).await else { break };
                pass.started += 1;
                batch.push(job, bytes);
            }
            if last_page {
                break;
            }
        }
        self.hand_over(&mut batch).await;
        Ok((pass, newest))
    }

    /// Takes out the rows that are in flight, must wait, or cannot be used.
    fn sort_out(&self, page: Vec<Pending>, pauses: &mut Pauses, pass: &mut Pass) -> (Vec<Takeoff>, Vec<Settled>) {
        let mut rows = Vec::new();
        let mut unusable = Vec::new();
        for pending in page {
            let (id, attempts) = match &pending {
                Pending::Ready(record) => (record.id, record.attempts),
                Pending::Unusable { id, attempts, .. } => (*id, *attempts),
            };
            if self.flight.has_row(id) {
                continue;
            }
            if !self.settings.once && !pauses.allows(id.0, attempts, self.settings.poll) {
                pass.paused += 1;
                continue;
            }
            let placed = match pending {
                Pending::Unusable { why, .. } => Err(why),
                Pending::Ready(record) => place(&record).and_then(|place| {
                    let path = archived_path(&self.settings, place.as_str());
                    match path.chars().count() > self.catalog.path_limit() {
                        true => Err(too_long(&path, self.catalog.path_limit())),
                        false => Ok((record, place)),
                    }
                }),
            };
            match placed {
                Ok((record, place)) if self.flight.has_place(&place) => {
                    tracing::debug!(id = record.id.0, %place, "Waits for another row of the same place");
                    pass.waiting += 1;
                }
                Ok((record, place)) => {
                    rows.push(Takeoff { id, attempts, source: record.source, md5: record.md5, place, bytes: 0 });
                }
                Err(why) => unusable.push(Settled { id, attempts, outcome: Outcome::Failed { why } }),
            }
        }
        (rows, unusable)
    }

    async fn record_unusable(&self, unusable: Vec<Settled>) -> Result<(), CatalogError> {
        if unusable.is_empty() {
            return Ok(());
        }
        self.catalog.record(&unusable).await?;
        for row in &unusable {
            if let Outcome::Failed { why } = &row.outcome {
                self.control.progress().failure(Failure::Row);
                self.control.progress().recorded(&format!("row {}", row.id.0), None);
                tracing::warn!(id = row.id.0, attempt = row.attempts + 1, "Row cannot be used: {why}");
            }
        }
        Ok(())
    }

    async fn hand_over(&self, batch: &mut Batch) {
        let jobs = std::mem::take(batch).jobs;
        if !jobs.is_empty() && self.jobs.send(jobs).await.is_err() {
            self.control.progress().give_up("All worker threads have ended, which is a bug; please report it");
            self.control.stop().stop();
        }
    }
}

/// Jobs on their way into one session.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    bytes: u64,
}

impl Batch {
    /// Whether it has as many files, or bytes with the next one, as there may be.
    fn is_full(&self, most: (usize, u64), next: u64) -> bool {
        self.jobs.len() >= most.0 || (!self.jobs.is_empty() && self.bytes + next > most.1)
    }

    fn push(&mut self, job: Job, bytes: u64) {
        self.jobs.push(job);
        self.bytes += bytes;
    }
}

/// Bytes of a batch with which several sessions have done so many bytes at about the same time.
fn fair_share(together: u64, seats: usize) -> u64 {
    if seats > 1 { (together / (2 * seats as u64)).max(LARGE) } else { u64::MAX }
}

/// Finds out how large the files are. A file that cannot be looked at counts nothing; its worker will say why. With
/// `several` sessions the large ones go first.
async fn look_at(rows: Vec<Takeoff>, several: bool) -> Vec<Takeoff> {
    let paths: Vec<_> = rows.iter().map(|row| row.source.clone()).collect();
    let look = tokio::task::spawn_blocking(move || -> Vec<u64> {
        paths.iter().map(|path| std::fs::metadata(path).map_or(0, |meta| meta.len())).collect()
    });
    let sizes = match tokio::time::timeout(LOOK_LIMIT, look).await {
        Ok(Ok(sizes)) => sizes,
        _ => {
            tracing::warn!("Looking at {} files takes more than {LOOK_LIMIT:?}; is a file system hung?", rows.len());
            Vec::new()
        }
    };
    let sizes = sizes.into_iter().chain(std::iter::repeat(0));
    let mut rows: Vec<_> = rows.into_iter().zip(sizes).map(|(row, bytes)| Takeoff { bytes, ..row }).collect();
    if several {
        // They spread over the sessions while small ones fill what is left, and no session ends with a large one that the
        // others wait for. Rows of one size keep their order.
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes / LARGE));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_share_what_waits() {
        assert_eq!(fair_share(1_600_000_000, 8), 100_000_000);
        assert_eq!(fair_share(1000, 8), LARGE);
        assert_eq!(fair_share(1_600_000_000, 1), u64::MAX);
    }
}
