//! Writes outcomes back, many in one transaction.

use super::flight::{Flight, Ticket};
use super::stop::Stop;
use crate::backoff::Backoff;
use crate::catalog::{Catalog, CatalogError, Outcome, RecordId, Settled};
use crate::manifest::{Entry, Manifest};
use crate::status::{DatabaseUse, Progress, told};
use crate::transfer::Sent;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Outcomes of one transaction at most.
const BATCH: usize = 128;
/// How long an outcome waits for those of other rows in flight.
const COMPANY: Duration = Duration::from_millis(50);
/// Failures of a row that did not pass by itself: two and a half minutes with the default pauses. By default it is given up
/// then.
const ATTEMPTS_LASTING: i64 = 5;

/// What went over the wire for a file that is proven, and by which session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CarriedFile {
    pub(super) sent: Sent,
    pub(super) session: usize,
}

/// What is to be told of a proven copy.
#[derive(Debug, Default)]
pub(super) struct CopyProof {
    pub(super) carried: CarriedFile,
    /// What the manifest is to say of it.
    pub(super) entry: Option<Entry>,
}

/// What became of a job. Its row stays taken until that is recorded.
pub(super) struct JobResult {
    pub(super) ticket: Arc<Ticket>,
    pub(super) id: RecordId,
    pub(super) attempts: i64,
    pub(super) source: PathBuf,
    pub(super) outcome: Outcome,
    pub(super) proof: CopyProof,
}

pub(super) struct Recorder<C> {
    pub(super) catalog: Arc<C>,
    pub(super) flight: Arc<Flight>,
    pub(super) results: mpsc::Receiver<JobResult>,
    pub(super) manifest: Option<Arc<Manifest>>,
    pub(super) progress: Arc<Progress>,
    pub(super) stop: Stop,
    pub(super) rules: AttemptRules,
}

impl<C: Catalog> Recorder<C> {
    /// Records until all workers are gone.
    pub(super) async fn run(mut self) {
        let mut results = Vec::new();
        while self.results.recv_many(&mut results, BATCH).await > 0 {
            if results.len() < BATCH.min(self.flight.rows()) {
                // One commit for what comes at nearly the same time; the pause bounds what a crash makes us confirm again.
                let more =
                    async { while results.len() < BATCH && self.results.recv_many(&mut results, BATCH).await > 0 {} };
                let _ = tokio::time::timeout(COMPANY, more).await;
            }
            self.record(std::mem::take(&mut results)).await;
        }
    }

    /// Puts copies into the manifest, and leaves none to be put there again.
    async fn list(&self, entries: &mut Vec<Entry>) -> Result<(), String> {
        if let (Some(manifest), false) = (&self.manifest, entries.is_empty()) {
            let (manifest, lines) = (manifest.clone(), entries.clone());
            let append = tokio::task::spawn_blocking(move || manifest.append(&lines));
            append.await.map_err(|error| error.to_string())??;
            entries.clear();
        }
        Ok(())
    }

    /// Drops the outcomes of rows that others have now: they find the copies, and record them.
    fn drop_lost<T>(&self, rows: &mut Vec<T>, settled: &mut Vec<Settled>) {
        let held: Vec<_> = settled.iter().map(|row| self.catalog.holds(row.hold)).collect();
        let (mut of_rows, mut of_settled) = (held.iter(), held.iter());
        rows.retain(|_| of_rows.next().is_some_and(|held| *held));
        settled.retain(|_| of_settled.next().is_some_and(|held| *held));
        let dropped = held.iter().filter(|held| !**held).count();
        tracing::info!(event = "not_ours", "Dropped {dropped} outcomes of rows that others have now");
    }

    /// Tells why outcomes cannot be recorded, and waits; whether to try again then.
    async fn goes_on(&self, error: &str, wait: Duration, outcomes: usize) -> bool {
        let trouble = self.progress.database_trouble(DatabaseUse::Recording, error);
        told!(
            trouble.lasts() || self.rules.once,
            event = "database_trouble",
            wait_ms = wait.as_millis() as u64,
            "Cannot record {outcomes} outcomes: {error}; trying again"
        );
        if self.stop.is_stopped() {
            tracing::info!("Leaving with {outcomes} outcomes unrecorded; their rows will be confirmed next time");
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.stopped() => {}
        }
        true
    }

    async fn record(&self, results: Vec<JobResult>) {
        let mut entries = Vec::new();
        let (mut rows, mut settled): (Vec<_>, Vec<_>) = results
            .into_iter()
            .map(|JobResult { ticket, id, attempts, source, outcome, proof: CopyProof { carried, entry } }| {
                entries.extend(entry);
                let hold = ticket.hold();
                ((ticket, source, carried), Settled { id, attempts, outcome, hold })
            })
            .unzip();
        let mut backoff = Backoff::default();
        loop {
            // In this order: a row that is recorded does not come again.
            let recorded = match self.list(&mut entries).await {
                Ok(()) => self.catalog.record(&settled).await.map(drop).map_err(|error| match error {
                    CatalogError::Lost(_) => None,
                    error => Some(error.to_string()),
                }),
                Err(why) => Err(Some(why)),
            };
            match recorded {
                Ok(()) => break,
                Err(None) => {
                    self.drop_lost(&mut rows, &mut settled);
                    if settled.is_empty() {
                        return;
                    }
                }
                Err(Some(error)) => {
                    if !self.goes_on(&error, backoff.pause(), settled.len()).await {
                        return;
                    }
                }
            }
        }
        self.progress.database_fine(DatabaseUse::Recording);
        self.progress.recording();
        for ((ticket, source, carried), settled) in rows.iter().zip(&settled) {
            ticket.had_its_turn();
            let source = source.display().to_string();
            match &settled.outcome {
                Outcome::Copied { path, .. } => {
                    self.progress.recorded(&source, Some(path));
                    let Sent { literal_bytes: literal, matched_bytes: matched, .. } = carried.sent;
                    tracing::info!(
                        event = "copied",
                        id = settled.id.0,
                        source,
                        path,
                        bytes = literal + matched,
                        literal,
                        matched,
                        seconds = ticket.age().as_millis() as f64 / 1000.0,
                        attempt = settled.attempts.saturating_add(1),
                        session = carried.session,
                        "Copied and proven"
                    );
                }
                Outcome::Failed { why, .. } => {
                    self.rules.tell(&self.progress, settled, &source, why);
                }
            }
        }
    }
}

/// When a failed attempt is a row's last.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptRules {
    pub(super) max_attempts: i64,
    pub(super) once: bool,
}

impl AttemptRules {
    /// Says that an attempt failed, which is recorded; whether the row was given up with it.
    pub(super) fn tell(self, progress: &Progress, row: &Settled, source: &str, why: &str) -> bool {
        let (id, attempt) = (row.id.0, row.attempts.saturating_add(1));
        progress.recorded(source, None);
        // What a run with an end has not copied, nobody tries again for the time being.
        if self.once {
            tracing::error!(event = "failed", id, source, attempt, "Not copied: {why}");
        } else {
            // Of the last one the error speaks.
            let lasts = attempt >= ATTEMPTS_LASTING && attempt < self.max_attempts;
            told!(lasts, event = "failed", id, source, attempt, "Not copied: {why}");
        }
        let last = attempt >= self.max_attempts;
        if last {
            progress.gave_up();
            tracing::error!(
                event = "given_up",
                id,
                source,
                "Given up after {attempt} failed attempts, the last because {why}. To have it tried again: pysmurf-archiver retry --id {id}"
            );
        }
        last
    }
}
