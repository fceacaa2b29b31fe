//! One large file over several sessions.
//!
//! Over a long link a session alone uses a part of it. Then idle workers help: each writes ranges of the file by SFTP where the
//! receiver looks for an earlier try (`--partial-dir`), whichever receiver that is, and an ordinary session finds it there,
//! proves it, and gives it its name. That session begins while the last of the file is written, so that the receiver sums
//! what stands before; it is answered when nobody writes any more. If some range is missing then, or was summed too soon, it
//! sends that; what is proven is what stays. Stock's rsync only finds it whole where it stands, and we give it its name. A file that is pulled they read by SFTP into the place where its session keeps
//! what an earlier one has brought; that session waits meanwhile, as it alone knows how large the file is.
//!
//! To log in takes ten round trips. So those who are to help set out when the far end has answered for the first time, and log
//! in with the connection by which the file is made once the first has.

mod file_to_stage;
mod staging;

use super::flight::Job;
use super::terms::SessionTerms;
use super::{ArchiverSettings, Direction, Sources};
use crate::transport::ranges::{RangeError, RangeWriter, Ranges, ceiling, connections_worth};
use crate::transport::ssh::sftp::Sftp;
use crate::transport::{Connect, ConnectError};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

use staging::{Prospect, Staging};
pub(super) use staging::{Staged, StagedFiles};

/// What several must move more than one, as a factor.
const PAYS: f64 = 1.2;
/// How long what was learned of the link is believed.
const LASTS: Duration = Duration::from_secs(600);
/// How long a connection is kept for the next file.
const KEPT_FOR: Duration = Duration::from_secs(20);

/// What is known of one session alone.
#[derive(Debug, Default)]
struct LoneSession {
    /// Bytes per second of one session with a large file, and when that was.
    alone: Option<(f64, Instant)>,
    /// Until when no file is shared, since that did not pay or work.
    no_use_before: Option<Instant>,
}

impl LoneSession {
    /// Whether sharing has not lately shown to be useless.
    fn is_of_use(&self) -> bool {
        self.no_use_before.is_none_or(|then| Instant::now() >= then)
    }

    /// What one session moves alone over a link with this round trip, if several may move more.
    fn alone(&self, direction: Direction, round_trip: Duration) -> Option<f64> {
        let measured = self.alone.filter(|(_, when)| when.elapsed() < LASTS).map(|(rate, _)| rate);
        let alone = match (direction, measured) {
            // How much of a pull is under way, our own window says, and a kernel that we do not know.
            (Direction::Pull, Some(measured)) => measured,
            (_, measured) => measured.unwrap_or(f64::MAX).min(ceiling(round_trip)),
        };
        self.is_of_use().then_some(alone)
    }
}

/// What the workers know together: the file that help is wanted for, if there is one, and whether help pays.
pub(super) struct SharedFiles {
    /// The queue, which goes before all help.
    queue: mpsc::WeakSender<Vec<Job>>,
    offered: watch::Sender<Option<Arc<SharedFile>>>,
    /// How often a file was about to be offered, and below which number the workers are who connect for it; 0 once that is over.
    expected: watch::Sender<(u64, usize)>,
    lone: Mutex<LoneSession>,
    /// Sessions are numbered, and each carries its own files.
    one_each: AtomicBool,
}

impl SharedFiles {
    pub(super) fn new(queue: mpsc::WeakSender<Vec<Job>>) -> Self {
        let (offered, expected) = (watch::Sender::new(None), watch::Sender::default());
        Self { queue, offered, expected, lone: Mutex::default(), one_each: AtomicBool::new(false) }
    }

    /// A file of so many bytes is about to be offered, over a link with this round trip: those who will help may connect.
    pub(super) fn expect(&self, bytes: u64, round_trip: Duration) {
        let workers = connections_worth(bytes, round_trip);
        if workers > 1 && self.lone().is_of_use() {
            self.expected.send_modify(|(times, most)| (*times, *most) = (*times + 1, workers));
        }
    }

    /// Whether no file is to be shared, since that takes more connections than sessions. `limited`: others share the link,
    /// and so many sessions may be open.
    pub(super) fn keep_to_one_each(&self, limited: bool) {
        self.one_each.store(limited, Ordering::Relaxed);
    }

    /// Whether batches wait for a worker.
    pub(super) fn work_waits(&self) -> bool {
        self.queue.upgrade().is_some_and(|queue| queue.capacity() < queue.max_capacity())
    }

    fn lone(&self) -> MutexGuard<'_, LoneSession> {
        self.lone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One session moved so much of files in this time.
    fn learn(&self, bytes: u64, took: Duration) {
        self.lone().alone = Some((bytes as f64 / took.as_secs_f64().max(1e-6), Instant::now()));
    }

    /// That several move one file did not pay or work.
    fn found_useless(&self) {
        self.lone().no_use_before = Some(Instant::now() + LASTS);
    }

    /// Waits for a file that this worker's help is wanted for; whoever gets it is to come.
    async fn wanted(&self, number: usize) -> Arc<SharedFile> {
        // Where some have set out for it, no others are to come.
        let may_come = || matches!(*self.expected.borrow(), (_, workers) if workers == 0 || number < workers);
        let mut files = self.offered.subscribe();
        loop {
            if let Some(shared) =
                files.borrow_and_update().as_ref().filter(|shared| may_come() && shared.ranges.take_seat())
            {
                return shared.clone();
            }
            if files.changed().await.is_err() {
                // The sender lives in us.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Puts a file up, if no other is there.
    fn offer(&self, shared: &Arc<SharedFile>) -> bool {
        self.offered.send_if_modified(|files| {
            let free = files.is_none();
            if free {
                *files = Some(shared.clone());
            }
            free
        })
    }

    fn withdraw(&self, shared: &Arc<SharedFile>) {
        self.expected.send_modify(|(_, workers)| *workers = 0);
        self.offered.send_if_modified(|files| {
            let ours = files.as_ref().is_some_and(|other| Arc::ptr_eq(other, shared));
            if ours {
                *files = None;
            }
            ours
        });
    }
}

/// A file that several write, or read.
pub(super) struct SharedFile {
    source: PathBuf,
    course: FileCourse,
    ranges: Ranges,
}

/// Where a file is moved to, for a session to find it.
enum FileCourse {
    /// From these sources to a place over there.
    Push(Sources, PathBuf),
    /// From over there into a file here.
    Pull(File),
}

impl FileCourse {
    /// What several did, and what was done by them.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Push(..) => ("wrote", "written"),
            Self::Pull(_) => ("read", "read"),
        }
    }
}

impl SharedFile {
    fn of(source: &Path, course: FileCourse, (len, connections): (u64, usize)) -> Arc<Self> {
        let ranges = Ranges::new(len, connections);
        let ranges = if let FileCourse::Push(..) = course { ranges.end_first() } else { ranges };
        Arc::new(Self { source: source.to_owned(), course, ranges })
    }

    /// One who joins, over a connection of its own: moves ranges until none is left; how many bytes.
    fn help(&self, hand: RangeWriter<'_>, sftp: &mut Sftp, terms: &SessionTerms) -> Result<u64, RangeError> {
        let moved = &mut |bytes| moved(terms, bytes);
        match &self.course {
            FileCourse::Push(sources, target) => {
                let pieces = sftp.pieces(target, None).map_err(RangeError::Far)?;
                let mut source = sources.open(&self.source).map_err(RangeError::Here)?;
                hand.write(&mut source, pieces, moved)
            }
            FileCourse::Pull(here) => hand.fetch(sftp.reading(&self.source).map_err(RangeError::Far)?, here, moved),
        }
    }
}

/// One worker's part in large files that several write.
pub(super) struct Sharing {
    files: Arc<SharedFiles>,
    /// Until when nobody is helped, since that did not work.
    no_help_before: Option<Instant>,
    /// The connection of the last file, and since when it rests: to log in takes ten round trips.
    kept: Option<(Sftp, Instant)>,
    /// How often a file has been expected for which we have set out.
    set_out: u64,
}

impl Sharing {
    pub(super) fn new(files: Arc<SharedFiles>) -> Self {
        Self { files, no_help_before: None, kept: None, set_out: 0 }
    }

    /// A connection: the one that is kept, if it still answers, or a new one.
    fn sftp(&mut self, connect: &mut dyn Connect) -> Result<Sftp, ConnectError> {
        match self.kept.take() {
            Some((sftp, _)) if sftp.home().is_ok() => Ok(sftp),
            _ => connect.sftp(),
        }
    }

    /// Keeps a connection for the next file.
    pub(super) fn keep(&mut self, sftp: Sftp) {
        self.kept = Some((sftp, Instant::now()));
    }

    /// The connection that is kept.
    pub(super) fn take_kept(&mut self) -> Option<Sftp> {
        self.kept.take().map(|(sftp, _)| sftp)
    }

    /// What several write is not found by those who are to prove it.
    pub(super) fn is_elsewhere(&self) {
        self.files.found_useless();
    }

    /// Waits until the connection that is kept has rested for long enough to be left.
    pub(super) async fn lapsed(&self) {
        match &self.kept {
            Some((_, since)) => tokio::time::sleep_until((*since + KEPT_FOR).into()).await,
            None => std::future::pending().await,
        }
    }

    /// Leaves the connection that is kept.
    pub(super) fn leave(&mut self) {
        self.kept = None;
    }

    /// Waits until a file is expected that this worker will help with.
    pub(super) async fn expected(&self, number: usize) {
        if let Some(then) = self.no_help_before {
            tokio::time::sleep_until(then.into()).await;
        }
        let of_use = |(times, workers): &(u64, usize)| *times > self.set_out && number < *workers;
        // The sender lives in us, so this ends only when it is so.
        let _ = self.files.expected.subscribe().wait_for(of_use).await;
    }

    /// Connects for the file that is expected; the error says why no connection for that is to be had.
    pub(super) fn set_out(&mut self, connect: &mut dyn Connect) -> Result<(), ConnectError> {
        self.set_out = self.files.expected.borrow().0;
        if self.kept.is_none() {
            let sftp = connect.sftp().inspect_err(|_| self.no_help_before = Some(Instant::now() + LASTS))?;
            self.keep(sftp);
        }
        Ok(())
    }

    /// Before the first login: a file of so many bytes is to be written by several, as far as is known.
    pub(super) fn may_be_shared(&self, bytes: u64, settings: &ArchiverSettings) -> bool {
        let large = settings.split_size > 0 && bytes >= settings.split_size;
        let may = large && settings.direction == Direction::Push && may_share(settings) && self.kept.is_none();
        may && !self.files.one_each.load(Ordering::Relaxed)
    }

    /// Waits for a file of another worker that help is wanted for.
    pub(super) async fn help_wanted(&self, number: usize) -> Arc<SharedFile> {
        if let Some(then) = self.no_help_before {
            tokio::time::sleep_until(then.into()).await;
        }
        self.files.wanted(number).await
    }

    /// Helps with the file of another worker; the error says why no connection for that is to be had.
    pub(super) fn help(
        &mut self,
        shared: &SharedFile,
        connect: &mut dyn Connect,
        terms: &SessionTerms,
    ) -> Result<(), ConnectError> {
        let mut sftp = self.sftp(connect).inspect_err(|_| self.no_help_before = Some(Instant::now() + LASTS))?;
        let guard = terms.guard(sftp.closer());
        // Whoever joins is waited for, so nobody joins who has yet to connect.
        let Some(hand) = shared.ranges.join() else {
            drop(guard);
            self.keep(sftp);
            return Ok(());
        };
        match shared.help(hand, &mut sftp, terms) {
            Ok(bytes) => {
                tracing::debug!(bytes, "Helped with {}", shared.source.display());
                drop(guard);
                self.keep(sftp);
            }
            Err(why) => {
                tracing::debug!(host = connect.describe(), "Help with a large file failed: {why}");
                // A line that broke tells nothing of the next one.
                if !why.is_of_the_line() {
                    self.no_help_before = Some(Instant::now() + LASTS);
                }
            }
        }
        Ok(())
    }

    /// One session alone moved so much of files in this time.
    pub(super) fn learn(&self, bytes: u64, took: Duration, settings: &ArchiverSettings) {
        if settings.split_size > 0 && bytes >= settings.split_size / 2 {
            self.files.learn(bytes, took);
        }
    }

    /// Has large files of a batch written beforehand with the help of others, where that promises to be faster. The last of
    /// them is only begun.
    pub(super) fn stage(&mut self, jobs: &[Job], connect: &mut dyn Connect, terms: &SessionTerms) -> StagedFiles {
        let settings = &terms.settings;
        let len = |job: &Job| {
            settings.sources.metadata(&job.source).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 })
        };
        let mut files = StagedFiles::none(jobs.len());
        if !may_share(settings) {
            return files;
        }
        let large = jobs.iter().map(len).enumerate().filter(|(_, len)| *len >= settings.split_size);
        for (at, len) in large {
            if terms.stopping() {
                break;
            }
            files.finish_last(self, terms);
            let begun = Staging::new(self, connect, terms).push(&jobs[at], len);
            files.note(at, begun);
        }
        files
    }

    /// Whether several may read a file of so many bytes.
    pub(super) fn may_read(&self, len: u64, connect: &dyn Connect, terms: &SessionTerms) -> bool {
        let settings = &terms.settings;
        let pays = || Prospect::of(len, &self.files, connect, settings).is_some();
        may_share(settings) && len >= settings.split_size && !terms.stopping() && !self.files.work_waits() && pays()
    }

    /// Reads a file of so many bytes into an empty one here, with the help of others; what has become of it.
    pub(super) fn read(
        &mut self,
        job: &Job,
        (len, here): (u64, File),
        connect: &mut dyn Connect,
        terms: &SessionTerms,
    ) -> Staged {
        Staging::new(self, connect, terms).pull(job, len, here)
    }
}

/// Whether files are shared at all.
fn may_share(settings: &ArchiverSettings) -> bool {
    settings.split_size > 0 && settings.workers.most() > 1 && settings.rate.get() == 0
}

/// Reports bytes, keeps to the rate, and says whether to go on.
fn moved(terms: &SessionTerms, bytes: usize) -> bool {
    terms.control.progress().read(terms.number, bytes as u64);
    terms.settings.rate.pay(bytes, || !terms.stopping());
    !terms.stopping()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> SharedFiles {
        SharedFiles::new(mpsc::channel(1).0.downgrade())
    }

    #[test]
    fn one_file_at_a_time_is_on_the_board() {
        let files = files();
        let shared = || {
            let course = FileCourse::Push(Sources::default(), "b".into());
            SharedFile::of("a".as_ref(), course, (100 << 20, 2))
        };
        let (first, second) = (shared(), shared());
        assert!(files.offer(&first) && !files.offer(&second));
        files.withdraw(&second);
        assert!(files.offered.borrow().is_some());
        files.withdraw(&first);
        assert!(files.offer(&second));
    }

    #[tokio::test]
    async fn those_who_set_out_for_a_file_are_those_who_help_with_it() {
        let files = files();
        let (bytes, round_trip) = (100 << 20, Duration::from_millis(40));
        assert_eq!(connections_worth(bytes, round_trip), 3);
        files.expect(bytes, round_trip);
        let files = Arc::new(files);
        let sharing = Sharing::new(files.clone());
        sharing.expected(2).await;
        let shared = SharedFile::of("a".as_ref(), FileCourse::Push(Sources::default(), "b".into()), (bytes, 3));
        assert!(files.offer(&shared));
        let comes = |number| {
            let wanted = files.wanted(number);
            async move { tokio::time::timeout(Duration::ZERO, wanted).await.is_ok() }
        };
        assert!(!comes(3).await && comes(2).await && comes(1).await && !comes(1).await);
        files.withdraw(&shared);
        // Of one that nobody expected, whoever is free.
        let next = SharedFile::of("c".as_ref(), FileCourse::Push(Sources::default(), "d".into()), (bytes, 3));
        assert!(files.offer(&next) && comes(9).await);
    }

    #[test]
    fn what_one_session_moves_is_known_by_its_round_trip_and_by_what_it_moved() {
        let (files, round_trip) = (files(), Duration::from_millis(100));
        let pushed = || files.lone().alone(Direction::Push, round_trip);
        let pulled = || files.lone().alone(Direction::Pull, round_trip);
        assert_eq!((pushed(), pulled()), (Some(ceiling(round_trip)), Some(ceiling(round_trip))));
        files.learn(200_000_000, Duration::from_secs(1));
        assert_eq!((pushed(), pulled()), (Some(ceiling(round_trip)), Some(2e8)));
        files.learn(2_000_000, Duration::from_secs(1));
        assert_eq!((pushed(), pulled()), (Some(2e6), Some(2e6)));
        files.found_useless();
        assert_eq!((pushed(), pulled()), (None, None));
    }
}
