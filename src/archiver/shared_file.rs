//! One large file over several sessions.
//!
//! A session carries at most one window of its channel per round trip, so over a long link a file alone uses a part of it.
//! Then idle sessions help: each writes ranges of the file by SFTP where our receiver looks for an earlier try
//! (`--partial-dir`), and an ordinary session finds it there, proves it, and gives it its name. The session comes only when
//! nobody writes any more. If some range is missing then, it sends that; so nothing is sent twice, and what is proven is
//! what stays.

use super::flight::Job;
use super::sftp::make_way;
use super::terms::SessionTerms;
use super::unfinished::kept;
use super::{ArchiverSettings, Sources};
use crate::transport::ssh::sftp::{Sftp, SftpError};
use crate::transport::{Connect, ConnectError};
use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Bytes of one range.
const RANGE: u64 = 8 << 20;
/// A session that moves more per second is held back by something else than round trips.
const FAST: f64 = 60e6;
/// What several must move more than one, as a factor.
const PAYS: f64 = 1.2;
/// Between the arrivals of two who help.
const ARRIVAL: Duration = Duration::from_millis(60);
/// How long what was learned of the link is believed.
const LASTS: Duration = Duration::from_secs(600);

/// What is known of one session alone.
#[derive(Debug, Default)]
struct LoneSession {
    /// Bytes per second of one session with a large file, and when that was.
    alone: Option<(f64, Instant)>,
    /// Until when no file is shared, since that did not pay or work.
    no_use_before: Option<Instant>,
}

impl LoneSession {
    /// What one session moves alone, if several may move more.
    fn slow(&self) -> Option<f64> {
        let (rate, when) = self.alone?;
        let of_use = self.no_use_before.is_none_or(|then| Instant::now() >= then);
        (of_use && rate < FAST && when.elapsed() < LASTS).then_some(rate)
    }
}

/// What the workers know together: the file that help is wanted for, if there is one, and whether help pays.
pub(super) struct SharedFiles {
    /// The queue, which goes before all help.
    queue: mpsc::WeakSender<Vec<Job>>,
    offered: watch::Sender<Option<Arc<SharedFile>>>,
    lone: Mutex<LoneSession>,
}

impl SharedFiles {
    pub(super) fn new(queue: mpsc::WeakSender<Vec<Job>>) -> Self {
        Self { queue, offered: watch::Sender::new(None), lone: Mutex::default() }
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

    /// That several write one file did not pay or work.
    fn found_useless(&self) {
        self.lone().no_use_before = Some(Instant::now() + LASTS);
    }

    /// Whether help is wanted.
    pub(super) fn wants_help(&self) -> bool {
        self.offered.borrow().as_ref().is_some_and(|shared| shared.has_work())
    }

    /// Waits for a file that help is wanted for.
    async fn wanted(&self) -> Arc<SharedFile> {
        let mut files = self.offered.subscribe();
        loop {
            if let Some(shared) = files.borrow_and_update().as_ref().filter(|shared| shared.has_work()) {
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

/// A file that several write.
pub(super) struct SharedFile {
    source: PathBuf,
    sources: Sources,
    target: PathBuf,
    len: u64,
    /// Where the next range begins.
    next: AtomicU64,
    writers: Mutex<Writers>,
    left: Condvar,
}

#[derive(Default)]
struct Writers {
    at_work: usize,
    /// Nobody may join any more.
    closed: bool,
    /// Some range may be missing.
    failed: bool,
}

/// One who writes; leaves when dropped, in disorder unless all went well.
struct RangeWriter<'a> {
    shared: &'a SharedFile,
    clean: bool,
}

impl SharedFile {
    fn new(source: &Path, target: PathBuf, len: u64) -> Self {
        let (next, writers, left) = Default::default();
        Self { source: source.to_owned(), sources: Sources::default(), target, len, next, writers, left }
    }

    fn lock(&self) -> MutexGuard<'_, Writers> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_work(&self) -> bool {
        let writers = self.lock();
        self.next.load(Ordering::Relaxed) < self.len && !writers.closed && !writers.failed
    }

    fn join(&self) -> Option<RangeWriter<'_>> {
        let mut writers = self.lock();
        let welcome = !writers.closed && !writers.failed;
        welcome.then(|| {
            writers.at_work += 1;
            RangeWriter { shared: self, clean: true }
        })
    }

    /// Waits until all have left; whether the file is complete. Each is held to the connection's own limits.
    fn complete(&self) -> bool {
        let mut writers = self.lock();
        writers.closed = true;
        while writers.at_work > 0 {
            writers = self.left.wait(writers).unwrap_or_else(PoisonError::into_inner);
        }
        !writers.failed && self.next.load(Ordering::Relaxed) >= self.len
    }
}

impl RangeWriter<'_> {
    /// Writes ranges until none is left; `moved` hears of bytes, and says when to stop.
    fn write(mut self, sftp: &mut Sftp, new: bool, moved: &mut dyn FnMut(usize) -> bool) -> Result<u64, String> {
        self.clean = false;
        let shared = self.shared;
        let wrong = |error: SftpError| format!("{}: {error}", shared.target.display());
        let unread = |error: io::Error| format!("{}: {error}", shared.source.display());
        let mut file = shared.sources.open(&shared.source).map_err(unread)?;
        let mut pieces = sftp.pieces(&shared.target, new.then_some(0o600)).map_err(wrong)?;
        let mut total = 0;
        loop {
            let begin = shared.next.fetch_add(RANGE, Ordering::Relaxed);
            let end = shared.len.min(begin.saturating_add(RANGE));
            if begin >= end || shared.lock().failed {
                break;
            }
            file.seek(SeekFrom::Start(begin)).map_err(unread)?;
            let mut left = end - begin;
            let mut next = |buffer: &mut [u8]| {
                let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let n = file.read(&mut buffer[..most])?;
                left -= n as u64;
                if most > 0 && (n == 0 || !moved(n)) {
                    return Err(io::Error::other("it became shorter, or the work is to end"));
                }
                Ok(n)
            };
            let written = pieces.write_at(begin, &mut next).map_err(wrong)?;
            total += written.map_err(unread)?;
        }
        pieces.close().map_err(wrong)?;
        self.clean = true;
        Ok(total)
    }
}

impl Drop for RangeWriter<'_> {
    fn drop(&mut self) {
        let mut writers = self.shared.lock();
        writers.at_work -= 1;
        writers.failed |= !self.clean;
        drop(writers);
        self.shared.left.notify_all();
    }
}

/// One worker's part in large files that several write.
pub(super) struct Sharing {
    files: Arc<SharedFiles>,
    /// Until when nobody is helped, since that did not work.
    no_help_before: Option<Instant>,
}

impl Sharing {
    pub(super) fn new(files: Arc<SharedFiles>) -> Self {
        Self { files, no_help_before: None }
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
        // Not all at once: an sshd turns some away where many have yet to log in.
        if terms.control.stop().wait(ARRIVAL * u32::try_from(terms.number).unwrap_or(0)) || !shared.has_work() {
            return Ok(());
        }
        let mut sftp = connect.sftp().inspect_err(|_| self.no_help_before = Some(Instant::now() + LASTS))?;
        // Whoever joins is waited for, so nobody joins who has yet to connect.
        let Some(writer) = shared.join() else { return Ok(()) };
        let _guard = terms.guard(sftp.closer());
        match writer.write(&mut sftp, false, &mut |bytes| moved(terms, bytes)) {
            Ok(bytes) => tracing::debug!(bytes, "Helped with {}", shared.source.display()),
            Err(why) => {
                tracing::debug!(host = connect.describe(), "Help with a large file failed: {why}");
                self.no_help_before = Some(Instant::now() + LASTS);
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

    /// Writes large files of a batch beforehand with the help of others, where that promises to be faster; how many it was
    /// tried with.
    pub(super) fn stage(&self, jobs: &[Job], connect: &mut dyn Connect, terms: &SessionTerms) -> usize {
        let settings = &terms.settings;
        let least = settings.split_size;
        if least == 0 || settings.workers.most() < 2 {
            return 0;
        }
        let len = |job: &Job| {
            settings.sources.metadata(&job.source).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 })
        };
        let mut files = 0;
        let mut staging = Staging { files: &self.files, connect, terms, sftp: None };
        for job in jobs {
            let len = len(job);
            if len < least || terms.stopping() {
                continue;
            }
            match staging.stage_one(job, len) {
                Ok(true) => files += 1,
                Ok(false) => {}
                Err(why) => {
                    tracing::debug!(host = staging.connect.describe(), "Not written by several: {why}");
                    self.files.found_useless();
                    staging.sftp = None;
                    // Some of it may stand there all the same.
                    files += 1;
                }
            }
        }
        files
    }
}

/// Writes files of a batch where an ordinary session will find them, over one connection.
struct Staging<'a> {
    files: &'a SharedFiles,
    connect: &'a mut dyn Connect,
    terms: &'a SessionTerms,
    sftp: Option<Sftp>,
}

impl Staging<'_> {
    /// Writes one file; false where that is of no use.
    fn stage_one(&mut self, job: &Job, len: u64) -> Result<bool, String> {
        let Self { files, terms, .. } = *self;
        let settings = &terms.settings;
        let slow = files.lone().slow().filter(|_| settings.rate.get() == 0);
        let Some(alone) = slow else { return Ok(false) };
        if files.work_waits() {
            return Ok(false);
        }
        let sftp = match &mut self.sftp {
            Some(sftp) => sftp,
            none => none.insert(self.connect.sftp().map_err(|error| error.to_string())?),
        };
        let _guard = terms.guard(sftp.closer());
        let Some(path) = way_for(sftp, job, settings).map_err(|error| error.to_string())? else { return Ok(false) };
        let began = Instant::now();
        let shared = SharedFile::new(&job.source, path, len);
        let shared = Arc::new(SharedFile { sources: settings.sources.clone(), ..shared });
        let writer = shared.join().ok_or("nobody may join")?;
        let mut up = false;
        let mut moved = |bytes| {
            // Only now is the file there for others.
            if !up {
                up = true;
                files.offer(&shared);
            }
            moved(terms, bytes)
        };
        let written = writer.write(sftp, true, &mut moved);
        files.withdraw(&shared);
        let complete = shared.complete();
        match written {
            Ok(_) if complete => {
                let rate = len as f64 / began.elapsed().as_secs_f64().max(1e-6);
                let mb = |rate: f64| (rate / 1e5).round() / 10.0;
                tracing::debug!(rate_mb = mb(rate), alone_mb = mb(alone), "Several wrote {}", job.source.display());
                if rate < alone * PAYS {
                    files.found_useless();
                }
                Ok(true)
            }
            written => Err(written.err().unwrap_or_else(|| "one who helped broke off".to_owned())),
        }
    }
}

/// Where the file of a job is written for a session to find it, once all folders are there; `None` where something stands
/// at its place already, or an earlier session has begun.
fn way_for(sftp: &mut Sftp, job: &Job, settings: &ArchiverSettings) -> Result<Option<PathBuf>, SftpError> {
    let name = job.place.variant(job.variant);
    let base = PathBuf::from(&settings.data_dir);
    let place = base.join(&name);
    if !sftp.is_dir(&base)? || sftp.stat(&place)?.is_some() {
        return Ok(None);
    }
    make_way(sftp, &base, &name, settings.chmod.as_ref(), &mut HashSet::new())?;
    let path = base.join(kept(&settings.aside, job));
    if let Some(aside) = path.parent() {
        sftp.make_dir(aside, 0o700)?;
    }
    Ok(sftp.stat(&path)?.is_none().then_some(path))
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

    #[test]
    fn a_file_is_complete_only_if_all_left_in_order() {
        let shared = SharedFile::new(Path::new("a"), "b".into(), 2 * RANGE);
        let (first, second) = (shared.join().unwrap(), shared.join().unwrap());
        shared.next.store(2 * RANGE, Ordering::Relaxed);
        drop((first, second));
        assert!(shared.complete());
        assert!(shared.join().is_none(), "it is closed");
        let shared = SharedFile::new(Path::new("a"), "b".into(), RANGE);
        let mut writer = shared.join().unwrap();
        writer.clean = false;
        drop(writer);
        shared.next.store(RANGE, Ordering::Relaxed);
        assert!(!shared.complete() && !shared.has_work());
        // A range that nobody took.
        assert!(!SharedFile::new(Path::new("a"), "b".into(), RANGE).complete());
    }

    #[test]
    fn one_file_at_a_time_is_on_the_board() {
        let files = SharedFiles::new(mpsc::channel(1).0.downgrade());
        let shared = || Arc::new(SharedFile::new(Path::new("a"), "b".into(), RANGE));
        let (first, second) = (shared(), shared());
        assert!(!files.wants_help());
        assert!(files.offer(&first) && !files.offer(&second));
        files.withdraw(&second);
        assert!(files.wants_help());
        first.next.store(RANGE, Ordering::Relaxed);
        assert!(!files.wants_help(), "nothing is left to do");
        files.withdraw(&first);
        assert!(files.offer(&second));
    }

    #[test]
    fn only_slow_links_are_shared() {
        let files = SharedFiles::new(mpsc::channel(1).0.downgrade());
        assert_eq!(files.lone().slow(), None, "nothing is known");
        files.learn(200_000_000, Duration::from_secs(1));
        assert_eq!(files.lone().slow(), None);
        files.learn(20_000_000, Duration::from_secs(1));
        assert_eq!(files.lone().slow(), Some(20e6));
        files.found_useless();
        assert_eq!(files.lone().slow(), None);
    }
}
