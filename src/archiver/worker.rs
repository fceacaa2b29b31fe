//! A worker: one thread that has batch after batch carried, and decides on what is left of each.

use super::blame::{FileFailure, SessionFiles};
use super::carrier::Carrier;
use super::control::Control;
use super::flight::Job;
use super::layout::{archived_path, too_long};
use super::origins::Origins;
use super::recorder::CarriedFile;
use super::results::Results;
use super::retry::{ONCE_PATIENCE, blames_the_link, no_room, with_words, words_about};
use super::road::FoundProgram;
use super::sessions::SessionPermits;
use super::shared_file::{SharedFile, SharedFiles};
use super::unfinished::Strays;
use super::verdict::Verdict;
use super::{ArchiverSettings, BATCH_FILES, Direction, Existing};
use crate::backoff::Backoff;
use crate::catalog::{CatalogError, CopyPlace, RecordId};
use crate::status::{DatabaseUse, Failure, told};
use crate::transfer::{Summary, TransferError};
use crate::transport::Connect;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};

/// Numbered variants of a taken name that are tried.
const VARIANTS_MOST: u32 = 1000;
/// Sessions that one file may break, with the far end in order otherwise, before the file is to blame.
const BREAKS_MOST: u32 = 3;
/// Pause before a file alone is tried again that has broken its session.
const BREAK_PAUSE: Duration = Duration::from_millis(200);

/// Says of a place whether an earlier copy of the same file stands there.
pub(super) type AskTable = dyn Fn(&CopyPlace) -> Result<Option<RecordId>, CatalogError> + Send + Sync;

/// Bytes of a file of which hundreds take a long link no longer than the beginning and the end of a session.
const SMALL: u64 = 16 << 10;

/// What all workers have in common.
#[derive(Clone)]
pub(super) struct Workplace {
    /// Asks the table.
    pub(super) last_copy: Arc<AskTable>,
    pub(super) settings: Arc<ArchiverSettings>,
    pub(super) control: Control,
    pub(super) permits: Arc<SessionPermits>,
    pub(super) shared_files: Arc<SharedFiles>,
    pub(super) found: FoundProgram,
    pub(super) strays: Arc<Strays>,
    pub(super) origins: Arc<Origins>,
    pub(super) path_limit: usize,
    pub(super) jobs: Arc<Mutex<mpsc::Receiver<Vec<Job>>>>,
    pub(super) results: Results,
    pub(super) runtime: tokio::runtime::Handle,
}

impl Workplace {
    /// The next batch, with those behind it as far as there is room.
    async fn gather(&self) -> Option<Vec<Job>> {
        let mut queue = self.jobs.lock().await;
        let mut batch = queue.recv().await?;
        let sessions = self.permits.likely().min(self.settings.workers.most());
        let (files, bytes) = (self.settings.batch_files(sessions), self.settings.batch_bytes(sessions));
        let joining = Joining { sessions, files, bytes, is_long: self.permits.is_long() };
        joining.extend(&mut batch, &mut queue, |job| job.bytes);
        Some(batch)
    }
}

/// When batches go together in one session: they were made for more sessions than there are by now, or from what room there
/// was for rows, and each session costs the start of a program.
struct Joining {
    /// Those that work.
    sessions: usize,
    /// What one may have.
    files: usize,
    bytes: u64,
    is_long: bool,
}

impl Joining {
    /// Adds to a batch what waits behind it, as far as that goes with it; `bytes` are those of one file.
    fn extend<T>(&self, batch: &mut Vec<T>, queue: &mut mpsc::Receiver<Vec<T>>, bytes: impl Fn(&T) -> u64) {
        // Over a long link a session takes longer than its small files: where enough are left for half of those who work, two go
        // together.
        if self.is_long && queue.len() > self.sessions / 2 && batch.len() + self.files <= BATCH_FILES {
            let small = batch.iter().all(|file| bytes(file) <= SMALL);
            if let Some(next) = small.then(|| queue.try_recv().ok()).flatten() {
                batch.extend(next);
            }
        }
        // With one that is full it is half as much again as one may be.
        while batch.len() <= self.files / 2 && batch.iter().map(&bytes).sum::<u64>() <= self.bytes / 2 {
            let Ok(next) = queue.try_recv() else { break };
            batch.extend(next);
        }
    }
}

pub(super) struct Worker {
    number: usize,
    common: Workplace,
    carrier: Carrier,
    backoff: Backoff,
    /// What is left of the batch at work.
    rests: VecDeque<Rest>,
}

/// What a worker does next.
enum NextStep {
    /// A batch, or nothing ever again.
    Jobs(Option<Vec<Job>>),
    /// A large file of another worker.
    Help(Arc<SharedFile>),
    /// Such a file is expected.
    SetOut,
    /// It has long had no such file.
    LeaveSharing,
    /// The program that was started ahead has waited for long.
    LeaveAhead,
    /// It has lost its permit.
    Leave,
}

/// Work that is left of a batch.
struct Rest {
    jobs: Vec<Job>,
    /// How many sessions it has broken.
    breaks: u32,
}

/// What a session has not proven.
#[derive(Default)]
struct Unproven {
    /// It is carried again.
    left: Vec<Job>,
    failed: Vec<FileFailure>,
    refused: Vec<Job>,
}

impl Worker {
    pub(super) fn new(number: usize, connect: Box<dyn Connect>, common: Workplace) -> Self {
        let shared = (common.shared_files.clone(), common.found.clone(), common.permits.clone());
        let carrier = Carrier::new(number, connect, common.results.clone(), common.control.clone(), shared);
        Self { number, common, carrier, backoff: Backoff::default(), rests: VecDeque::new() }
    }

    /// Works until the queue is closed.
    pub(super) fn run(mut self) {
        loop {
            let jobs = match self.next() {
                NextStep::Jobs(Some(jobs)) => jobs,
                NextStep::Jobs(None) => {
                    self.carrier.part();
                    return self.common.permits.closed(self.number);
                }
                NextStep::Help(shared) => {
                    if let Err(error) = self.carrier.help(&shared) {
                        tracing::debug!(host = self.carrier.describe(), "Cannot help with a large file: {error}");
                        self.common.permits.give_back(self.number);
                    }
                    continue;
                }
                NextStep::SetOut => {
                    if let Err(error) = self.carrier.set_out() {
                        tracing::debug!(host = self.carrier.describe(), "Cannot connect for a large file: {error}");
                        self.common.permits.give_back(self.number);
                    }
                    continue;
                }
                NextStep::LeaveSharing => {
                    self.carrier.leave_sharing();
                    continue;
                }
                NextStep::LeaveAhead => {
                    self.carrier.leave_ahead();
                    continue;
                }
                NextStep::Leave => {
                    self.carrier.disconnect();
                    self.common.permits.closed(self.number);
                    continue;
                }
            };
            self.rests.push_back(Rest { jobs, breaks: 0 });
            while let Some(rest) = self.rests.pop_front() {
                self.work(rest);
                // Unfinished files that nobody will come back to.
                self.carrier.clear(&self.common.strays.due());
            }
            self.carrier.prepare();
        }
    }

    fn next(&self) -> NextStep {
        let Workplace { permits, runtime, .. } = &self.common;
        if permits.must_leave(self.number) {
            return NextStep::Leave;
        }
        let work = async {
            permits.granted(self.number).await;
            tokio::select! {
                next = self.common.gather() => NextStep::Jobs(next),
                () = permits.revoked(self.number) => NextStep::Leave,
            }
        };
        runtime.block_on(async {
            tokio::select! {
                next = work => next,
                // That takes no permit: a file knows how many it is worth.
                shared = self.carrier.help_wanted() => NextStep::Help(shared),
                () = self.carrier.expected() => NextStep::SetOut,
                () = self.carrier.sharing_lapsed() => NextStep::LeaveSharing,
                () = self.carrier.ahead_lapsed() => NextStep::LeaveAhead,
            }
        })
    }

    fn stopping(&self) -> bool {
        self.common.control.stop().is_stopped()
    }

    /// One session over what is left; puts what is still left then back.
    fn work(&mut self, rest: Rest) {
        if self.stopping() || rest.jobs.is_empty() {
            return self.common.results.release(rest.jobs);
        }
        let Rest { mut jobs, breaks } = rest;
        self.common.results.release(jobs.extract_if(.., |job| job.is_recalled()).collect());
        if jobs.is_empty() {
            return;
        }
        // Unfinished files of one session are kept in directories of one name.
        let variant = jobs.first().map_or(0, |job| job.variant);
        let others: Vec<_> = jobs.extract_if(.., |job| job.variant != variant).collect();
        if !others.is_empty() {
            self.rests.push_front(Rest { jobs: others, breaks });
        }
        self.common.strays.take_up(&jobs);
        let since = Instant::now();
        self.common.permits.opens(self.number);
        let carried = match self.carrier.carry(&jobs) {
            Ok(carried) => carried,
            Err(why) => return self.wait_for_link(Rest { jobs, breaks }, &why),
        };
        if let Err(TransferError::Stalled(_)) = &carried.ended {
            self.common.control.progress().timed_out();
        }
        let recalled = jobs.iter().any(Job::is_recalled);
        let listed = SessionFiles::of(&jobs, &self.common.origins, since);
        let full = no_room(&carried.words).map(str::to_owned);
        let Unproven { mut left, failed, refused } = self.sort(jobs, carried.verdicts, full.is_some());
        self.blame(failed, &listed);
        if !refused.is_empty() {
            // A base that takes nothing at all is no file's fault.
            if let Some(why) = self.carrier.base_trouble() {
                left.extend(refused);
                return self.wait_for_link(Rest { jobs: left, breaks }, &why);
            }
            self.refuse(refused, &carried.words);
        }
        if let (Some(why), false) = (&full, left.is_empty()) {
            self.common.strays.make_room(left.iter());
            return self.wait_for_link(Rest { jobs: left, breaks }, why);
        }
        if recalled && carried.ended.is_err() {
            // We broke it off ourselves.
            self.carrier.forget_road();
            return self.rests.push_front(Rest { jobs: left, breaks });
        }
        self.go_on(Rest { jobs: left, breaks }, listed.files, carried.ended, &carried.words);
    }

    /// Sorts the jobs of a session by what became of them, and lets those go that are proven. At a far end that is full, no
    /// file is refused for a reason of its own.
    fn sort(&mut self, jobs: Vec<Job>, verdicts: Vec<Verdict>, full: bool) -> Unproven {
        let mut unproven = Unproven::default();
        for (mut job, verdict) in jobs.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Proven(sent, digest) => {
                    self.backoff.reset();
                    self.common.results.proven(&job, digest, CarriedFile { sent, session: self.number });
                }
                Verdict::Arrived(digest) => {
                    job.headway.arrived = digest;
                    unproven.left.push(job);
                }
                Verdict::Failed(kind, why) => unproven.failed.push(FileFailure { job, kind, why }),
                Verdict::Taken => unproven.left.extend(self.next_variant(job)),
                Verdict::Refused if !full => unproven.refused.push(job),
                Verdict::Refused | Verdict::Open => unproven.left.push(job),
            }
        }
        unproven
    }

    /// Other bytes stand under the name: where they are an earlier copy of the same file the job replaces them, if it is to;
    /// else it is to try the next name, if there may be one.
    fn next_variant(&self, mut job: Job) -> Option<Job> {
        if job.variant == 0 && !job.replaces && self.common.settings.existing == Existing::Replace {
            let path = archived_path(&self.common.settings, job.place.as_str());
            let copy = CopyPlace { id: job.id, source: job.source.clone(), path };
            match (self.common.last_copy)(&copy) {
                Ok(Some(last)) if last <= copy.id => {
                    tracing::info!(
                        event = "replacing",
                        id = job.id.0,
                        path = copy.path,
                        "Registered anew: its earlier copy is replaced"
                    );
                    job.replaces = true;
                    return Some(job);
                }
                Ok(_) => {}
                Err(error) => {
                    let trouble =
                        self.common.control.progress().database_trouble(DatabaseUse::Asking, &error.to_string());
                    told!(trouble.lasts(), event = "database_trouble", "{error}; trying again");
                    self.common.results.release(vec![job]);
                    return None;
                }
            }
        }
        if self.common.settings.existing == Existing::Refuse {
            let why = format!("something else stands at its place, {}", job.place);
            self.common.results.failed(job, Failure::Refused, why);
            return None;
        }
        job.replaces = false;
        job.variant += 1;
        let limit = self.common.path_limit;
        let path = archived_path(&self.common.settings, &job.place.variant(job.variant));
        if path.chars().count() > limit {
            self.common.results.failed(job, Failure::Row, too_long(&path, limit));
        } else if job.variant > VARIANTS_MOST {
            let why = format!("the name and its first {VARIANTS_MOST} variants are taken");
            self.common.results.failed(job, Failure::Refused, why);
        } else {
            return Some(job);
        }
        None
    }

    /// The archive takes other files, and not these.
    fn refuse(&self, jobs: Vec<Job>, words: &str) {
        let who = match self.common.settings.direction {
            Direction::Push => "the storage node refused it",
            Direction::Pull => "it cannot be stored here",
        };
        for job in jobs {
            let name = job.place.variant(job.variant);
            self.common.results.failed(job, Failure::Refused, format!("{who}: {}", words_about(words, &name)));
        }
    }

    /// Counts failures of files of a session, but for those whose place is in trouble: they are held back with it.
    fn blame(&mut self, failed: Vec<FileFailure>, listed: &SessionFiles) {
        let Workplace { origins, settings, results, .. } = &self.common;
        let held = listed.held(&failed, origins, self.carrier.far_folders(), settings.direction);
        for (FileFailure { job, kind, why }, held) in failed.into_iter().zip(held) {
            match held {
                true => job.had_its_turn(),
                false => results.failed(job, kind, why),
            }
        }
    }

    /// Decides on what is left of a session of so many files, by how it ended.
    fn go_on(&mut self, rest: Rest, listed: usize, ended: Result<Option<Summary>, TransferError>, words: &str) {
        let Rest { jobs: mut left, breaks } = rest;
        match ended {
            Ok(_) => self.rests.push_back(Rest { jobs: left, breaks: 0 }),
            // Whatever broke it, the next one goes on from there, and at once; but a link on which nothing moved for so long is in
            // trouble, however far it came before.
            Err(error) if !matches!(error, TransferError::Stalled(_)) && advance(&mut left) => {
                tracing::debug!(host = self.carrier.describe(), "{error}; going on");
                if blames_the_link(&error) {
                    self.common.control.progress().link_trouble(&error.to_string());
                }
                self.backoff.reset();
                self.carrier.forget_road();
                self.rests.push_front(Rest { jobs: left, breaks: 0 });
            }
            Err(error) if blames_the_link(&error) => {
                let breaks = if left.len() < listed { 0 } else { breaks + 1 };
                self.after_loss(Rest { jobs: left, breaks }, &with_words(&error, words));
            }
            Err(error) => self.after_break(Rest { jobs: left, breaks: breaks + 1 }, &with_words(&error, words)),
        }
    }

    /// A session broke, and not for want of a link. If the far end is in order, some file breaks it: find out which.
    fn after_break(&mut self, rest: Rest, error: &str) {
        if let Some(why) = self.carrier.trouble() {
            return self.wait_for_link(rest, &why);
        }
        self.backoff.reset();
        let Rest { mut jobs, breaks } = rest;
        match jobs.len() {
            0 => {}
            1 if breaks >= BREAKS_MOST => {
                if let Some(job) = jobs.pop() {
                    let why = format!("the far end's rsync breaks off at it: {error}");
                    self.common.results.failed(job, Failure::Refused, why);
                }
            }
            1 => {
                // Whatever else there is goes first.
                if self.rests.is_empty() {
                    self.common.control.stop().wait(BREAK_PAUSE);
                }
                self.rests.push_back(Rest { jobs, breaks });
            }
            _ => self.halve(jobs, breaks),
        }
    }

    /// The link went away in the middle. Some file may be what kills it, time and again; then the others must get past it,
    /// and still nothing is counted against it.
    fn after_loss(&mut self, rest: Rest, error: &str) {
        if rest.breaks < BREAKS_MOST || self.carrier.trouble().is_some() {
            return self.wait_for_link(rest, error);
        }
        match rest.jobs.len() {
            0 => {}
            1 => {
                // Its turn comes again with a later pass.
                self.pause(error);
                self.common.results.release(rest.jobs);
            }
            _ => self.halve(rest.jobs, rest.breaks),
        }
    }

    fn halve(&mut self, mut jobs: Vec<Job>, breaks: u32) {
        let later = jobs.split_off(jobs.len() / 2);
        self.rests.extend([jobs, later].map(|jobs| Rest { jobs, breaks }));
    }

    fn wait_for_link(&mut self, rest: Rest, why: &str) {
        let wanted = self.number < self.common.permits.sessions();
        if self.common.permits.give_back(self.number) {
            if wanted {
                tracing::info!(event = "session_fewer", host = self.carrier.describe(), "One session less: {why}");
            }
            self.carrier.forget_road();
            return self.common.results.release(rest.jobs);
        }
        if rest.jobs.is_empty() || self.stopping() || !self.pause(why) {
            return self.common.results.release(rest.jobs);
        }
        // While another archiver finds out when the link is there again, this one lets it alone.
        if self.common.permits.must_leave(self.number) {
            return self.common.results.release(rest.jobs);
        }
        self.rests.push_front(rest);
    }

    /// Waits because of the link; false when a run with `once` gives up instead.
    fn pause(&mut self, why: &str) -> bool {
        let wait = self.backoff.pause();
        self.carrier.forget_road();
        let (progress, stop) = (self.common.control.progress(), self.common.control.stop());
        let trouble = progress.link_trouble(why);
        let host = self.carrier.describe();
        if self.common.settings.once && self.backoff.failures() >= ONCE_PATIENCE {
            tracing::error!(
                event = "link_given_up",
                host,
                "Giving up after {} attempts: {why}",
                self.backoff.failures()
            );
            progress.give_up(why);
            stop.stop();
            return false;
        }
        let lasts = trouble.lasts() || self.common.settings.once;
        told!(lasts, event = "link_trouble", host, wait_ms = wait.as_millis() as u64, "{why}; trying again");
        stop.wait(wait);
        true
    }
}

/// Whether a broken session brought one of these forward.
fn advance(jobs: &mut [Job]) -> bool {
    // Each of them is to hear of it.
    jobs.iter_mut().map(|job| job.headway.advance()).filter(|advanced| *advanced).count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 1 << 20;

    /// How many files of a batch, and of those behind it that are left, once it has been joined with what goes with it.
    fn joined(joining: &Joining, batch: &[u64], waiting: &[&[u64]]) -> (usize, usize) {
        let (put, mut queue) = mpsc::channel(16);
        waiting.iter().for_each(|batch| put.try_send(batch.to_vec()).unwrap());
        let mut batch = batch.to_vec();
        joining.extend(&mut batch, &mut queue, |bytes| *bytes);
        (batch.len(), queue.len())
    }

    #[test]
    fn a_batch_at_most_half_full_takes_those_behind_it_with_it() {
        let joining = Joining { sessions: 2, files: 8, bytes: 64 * LARGE, is_long: false };
        assert_eq!(joined(&joining, &[9; 2], &[&[9; 2], &[9; 1], &[9; 8]]), (5, 1));
        assert_eq!(joined(&joining, &[9; 4], &[&[9; 8], &[9; 8]]), (12, 1), "half as much again, and no more");
        assert_eq!(joined(&joining, &[9; 5], &[&[9; 1]]), (5, 1), "it is more than half full");
        assert_eq!(joined(&joining, &[33 * LARGE], &[&[9; 1]]), (1, 1), "of bytes, too");
        assert_eq!(joined(&joining, &[9; 2], &[]), (2, 0));
    }

    #[test]
    fn over_a_long_link_two_full_batches_of_small_files_go_together_while_enough_wait() {
        let joining = Joining { sessions: 4, files: 8, bytes: 64 * LARGE, is_long: true };
        let full = [9; 8];
        assert_eq!(joined(&joining, &full, &[&full, &full, &full]), (16, 2), "one more, not two");
        assert_eq!(joined(&joining, &full, &[&full, &full]), (8, 2), "half of those who work have work left");
        assert_eq!(joined(&joining, &[SMALL + 1; 8], &[&full, &full, &full]), (8, 3), "they are not small");
        let short = Joining { is_long: false, ..joining };
        assert_eq!(joined(&short, &full, &[&full, &full, &full]), (8, 3));
        let most = Joining { files: BATCH_FILES, is_long: true, ..short };
        assert_eq!(joined(&most, &[9; BATCH_FILES], &[&full, &full, &full]), (BATCH_FILES, 3), "none has more");
    }
}
