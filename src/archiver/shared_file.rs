//! One large file over several sessions.
//!
//! Over a long link a session alone uses a part of it. Then idle workers help: each writes ranges of the file by SFTP where the
//! receiver looks for an earlier try (`--partial-dir`), whichever receiver that is, and an ordinary session finds it there,
//! proves it, and gives it its name. The session comes only when nobody writes any more. If some range is missing then, it
//! sends that; so nothing is sent twice, and what is proven is what stays. A file that is pulled they read by SFTP into the
//! place where its session keeps what an earlier one has brought; that session waits meanwhile, as it alone knows how large
//! the file is.

use super::flight::Job;
use super::sftp::make_way;
use super::terms::SessionTerms;
use super::unfinished::kept;
use super::{ArchiverSettings, Direction, Sources};
use crate::transport::ranges::{RangeError, RangeWriter, Ranges, Written, ceiling, connections_worth};
use crate::transport::ssh::sftp::{Pieces, Sftp, SftpError};
use crate::transport::{Connect, ConnectError};
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

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
    /// What one session moves alone over a link with this round trip, if several may move more.
    fn alone(&self, direction: Direction, round_trip: Duration) -> Option<f64> {
        let measured = self.alone.filter(|(_, when)| when.elapsed() < LASTS).map(|(rate, _)| rate);
        let of_use = self.no_use_before.is_none_or(|then| Instant::now() >= then);
        let alone = match (direction, measured) {
            // How much of a pull is under way, our own window says, and a kernel that we do not know.
            (Direction::Pull, Some(measured)) => measured,
            (_, measured) => measured.unwrap_or(f64::MAX).min(ceiling(round_trip)),
        };
        of_use.then_some(alone)
    }
}

/// What the workers know together: the file that help is wanted for, if there is one, and whether help pays.
pub(super) struct SharedFiles {
    /// The queue, which goes before all help.
    queue: mpsc::WeakSender<Vec<Job>>,
    offered: watch::Sender<Option<Arc<SharedFile>>>,
    lone: Mutex<LoneSession>,
    /// Sessions are numbered, and each carries its own files.
    one_each: AtomicBool,
}

impl SharedFiles {
    pub(super) fn new(queue: mpsc::WeakSender<Vec<Job>>) -> Self {
        Self { queue, offered: watch::Sender::new(None), lone: Mutex::default(), one_each: AtomicBool::new(false) }
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

    /// Waits for a file that help is wanted for; whoever gets it is to come.
    async fn wanted(&self) -> Arc<SharedFile> {
        let mut files = self.offered.subscribe();
        loop {
            if let Some(shared) = files.borrow_and_update().as_ref().filter(|shared| shared.ranges.take_seat()) {
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
        Arc::new(Self { source: source.to_owned(), course, ranges: Ranges::new(len, connections) })
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

/// What several have done about a file before its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Staged {
    /// Nothing: the session is the first.
    Not,
    /// It stands there whole, in a file that nobody else had to do with or writes to any more.
    Whole,
    /// Some of it may stand there, and somebody who broke off may still be writing to it.
    Partly,
}

/// One worker's part in large files that several write.
pub(super) struct Sharing {
    files: Arc<SharedFiles>,
    /// Until when nobody is helped, since that did not work.
    no_help_before: Option<Instant>,
    /// The connection of the last file, and since when it rests: to log in takes ten round trips.
    kept: Option<(Sftp, Instant)>,
}

impl Sharing {
    pub(super) fn new(files: Arc<SharedFiles>) -> Self {
        Self { files, no_help_before: None, kept: None }
    }

    /// A connection: the one that is kept, if it still answers, or a new one.
    fn sftp(&mut self, connect: &mut dyn Connect) -> Result<Sftp, ConnectError> {
        match self.kept.take() {
            Some((sftp, _)) if sftp.home().is_ok() => Ok(sftp),
            _ => connect.sftp(),
        }
    }

    fn keep(&mut self, sftp: Sftp) {
        self.kept = Some((sftp, Instant::now()));
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

    /// Waits for a file of another worker that help is wanted for.
    pub(super) async fn help_wanted(&self) -> Arc<SharedFile> {
        if let Some(then) = self.no_help_before {
            tokio::time::sleep_until(then.into()).await;
        }
        self.files.wanted().await
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

    /// Writes large files of a batch beforehand with the help of others, where that promises to be faster; what has become
    /// of each.
    pub(super) fn stage(&mut self, jobs: &[Job], connect: &mut dyn Connect, terms: &SessionTerms) -> Vec<Staged> {
        let settings = &terms.settings;
        let len = |job: &Job| {
            settings.sources.metadata(&job.source).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 })
        };
        let mut staged = vec![Staged::Not; jobs.len()];
        if !may_share(settings) {
            return staged;
        }
        for (job, staged) in jobs.iter().zip(&mut staged) {
            let len = len(job);
            if len < settings.split_size || terms.stopping() {
                continue;
            }
            *staged = Staging::new(self, connect, terms).push(job, len);
        }
        staged
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

/// What sharing a file promises.
#[derive(Clone, Copy)]
struct Prospect {
    connections: usize,
    /// Bytes per second of one session alone.
    alone: f64,
}

impl Prospect {
    /// Of a file of so many bytes; `None` where one session does as well.
    fn of(len: u64, files: &SharedFiles, connect: &dyn Connect, settings: &ArchiverSettings) -> Option<Self> {
        if files.one_each.load(Ordering::Relaxed) {
            return None;
        }
        let round_trip = connect.round_trip()?;
        let connections = connections_worth(len, round_trip).min(settings.workers.most());
        let alone = files.lone().alone(settings.direction, round_trip).filter(|_| connections > 1)?;
        Some(Self { connections, alone })
    }
}

/// Moves files of a batch to where an ordinary session will find them, over one connection.
struct Staging<'a> {
    files: Arc<SharedFiles>,
    connect: &'a mut dyn Connect,
    terms: &'a SessionTerms,
    sharing: &'a mut Sharing,
}

impl<'a> Staging<'a> {
    fn new(sharing: &'a mut Sharing, connect: &'a mut dyn Connect, terms: &'a SessionTerms) -> Self {
        Self { files: sharing.files.clone(), connect, terms, sharing }
    }

    /// Writes one file, if that is of use.
    fn push(&mut self, job: &Job, len: u64) -> Staged {
        let settings = &self.terms.settings;
        let Some(prospect) = Prospect::of(len, &self.files, self.connect, settings) else { return Staged::Not };
        let target = Path::new(&settings.data_dir).join(kept(&settings.aside, job));
        let course = FileCourse::Push(settings.sources.clone(), target.clone());
        let shared = SharedFile::of(&job.source, course, (len, prospect.connections));
        let new = !job.headway.has_begun();
        match self.share(&shared, prospect, |staging| staging.write(job, &shared, &target)) {
            Staged::Whole if !new => Staged::Partly,
            staged => staged,
        }
    }

    /// Reads one file into an empty one, if that is of use.
    fn pull(&mut self, job: &Job, len: u64, here: File) -> Staged {
        let settings = &self.terms.settings;
        let Some(prospect) = Prospect::of(len, &self.files, self.connect, settings) else { return Staged::Not };
        let shared = SharedFile::of(&job.source, FileCourse::Pull(here), (len, prospect.connections));
        self.share(&shared, prospect, |staging| staging.fetch(job, &shared))
    }

    /// Has a file moved by others and by what `first` does, which tells when it could be begun, or `None` where it is not to be.
    fn share(
        &mut self,
        shared: &Arc<SharedFile>,
        prospect: Prospect,
        first: impl FnOnce(&mut Self) -> Result<Option<Instant>, StagingError>,
    ) -> Staged {
        let files = self.files.clone();
        // The others log in while we do.
        if files.work_waits() || !files.offer(shared) {
            return Staged::Not;
        }
        let began = Instant::now();
        let moved = first(self);
        files.withdraw(shared);
        if !matches!(moved, Ok(Some(_))) {
            shared.ranges.end();
        }
        let ((did, done_by), source) = (shared.course.words(), shared.source.display());
        match (moved, shared.ranges.finish()) {
            (Ok(None), _) => Staged::Not,
            (Ok(Some(ready)), done @ (Written::Whole | Written::Mended)) => {
                let rate = shared.ranges.len() as f64 / ready.elapsed().as_secs_f64().max(1e-6);
                let (mb, ms) = (|rate: f64| (rate / 1e5).round() / 10.0, began.elapsed().as_millis() as u64);
                let (rate_mb, alone_mb) = (mb(rate), mb(prospect.alone));
                tracing::debug!(rate_mb, alone_mb, ms, "Several {did} {source}");
                if rate < prospect.alone * PAYS {
                    files.found_useless();
                }
                if done == Written::Whole { Staged::Whole } else { Staged::Partly }
            }
            (moved, _) => {
                let host = self.connect.describe();
                let why = match moved.err() {
                    None => "those who helped broke off".to_owned(),
                    Some(StagingError::Broken(why)) => why,
                    Some(StagingError::Refused(why)) => {
                        files.found_useless();
                        why
                    }
                };
                tracing::debug!(host, "Not {done_by} by several: {why}");
                Staged::Partly
            }
        }
    }

    /// Writes the file together with those who come; when it could be begun, or `None` where it is not to be.
    fn write(&mut self, job: &Job, shared: &SharedFile, target: &Path) -> Result<Option<Instant>, StagingError> {
        let terms = self.terms;
        let mut sftp = self.sftp()?;
        let guard = terms.guard(sftp.closer());
        let here = |error| StagingError::of(RangeError::Here(error), &shared.source);
        let there = |error| StagingError::of(RangeError::Far(error), target);
        let mut source = terms.settings.sources.open(&shared.source).map_err(here)?;
        let mut began = None;
        if let Some(pieces) = make(&mut sftp, job, target, &terms.settings).map_err(there)? {
            job.headway.is_staged();
            began = Some(Instant::now());
            let written = shared.ranges.begin().write(&mut source, pieces, &mut |bytes| moved(terms, bytes));
            written.map_err(|error| StagingError::of(error, &shared.source))?;
        }
        drop(guard);
        self.sharing.keep(sftp);
        Ok(began)
    }

    /// Reads the file together with those who come; when it was begun.
    fn fetch(&mut self, job: &Job, shared: &SharedFile) -> Result<Option<Instant>, StagingError> {
        let mut sftp = self.sftp()?;
        let guard = self.terms.guard(sftp.closer());
        job.headway.is_staged();
        let began = Instant::now();
        let fetched = shared.help(shared.ranges.begin(), &mut sftp, self.terms);
        fetched.map_err(|error| StagingError::of(error, &shared.source))?;
        drop(guard);
        self.sharing.keep(sftp);
        Ok(Some(began))
    }

    fn sftp(&mut self) -> Result<Sftp, StagingError> {
        self.sharing.sftp(self.connect).map_err(|error| StagingError::Refused(error.to_string()))
    }
}

/// Why a file was not moved by several.
enum StagingError {
    /// It broke off, and may go well with the next file.
    Broken(String),
    /// The far end does not want it so.
    Refused(String),
}

impl StagingError {
    fn of(error: RangeError, path: &Path) -> Self {
        let why = format!("{}: {error}", path.display());
        match error {
            RangeError::Far(error) if !error.is_of_the_line() => Self::Refused(why),
            _ => Self::Broken(why),
        }
    }
}

/// Makes the file where a session of this job will find it, in as few round trips as it takes; `None` where something stands
/// at its place already, or an earlier session has begun.
fn make<'a>(
    sftp: &'a mut Sftp,
    job: &Job,
    path: &Path,
    settings: &ArchiverSettings,
) -> Result<Option<Pieces<'a>>, SftpError> {
    const MODE: Option<u32> = Some(0o600);
    let name = job.place.variant(job.variant);
    let base = PathBuf::from(&settings.data_dir);
    if sftp.stat(&base.join(&name))?.is_some() {
        return Ok(None);
    }
    let aside = path.parent().unwrap_or(&base);
    let file = match sftp.open_to_write(path, MODE) {
        Err(SftpError::Absent) if sftp.new_dir(aside, 0o700).is_ok() => sftp.open_to_write(path, MODE),
        Err(SftpError::Absent) if !sftp.is_dir(&base)? => return Ok(None),
        Err(SftpError::Absent) => {
            make_way(sftp, &base, &name, settings.chmod.as_ref(), &mut HashSet::new())?;
            sftp.make_dir(aside, 0o700)?;
            sftp.open_to_write(path, MODE)
        }
        made => made,
    };
    match file {
        Err(error) if !error.is_of_the_line() && sftp.stat(path)?.is_some() => Ok(None),
        file => Ok(Some(sftp.in_pieces(file?))),
    }
}

/// Reports bytes, keeps to the rate, and says whether to go on.
fn moved(terms: &SessionTerms, bytes: usize) -> bool {
    terms.control.progress().read(terms.number, bytes as u64);
    terms.settings.rate.pay(bytes);
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
