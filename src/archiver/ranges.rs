//! One large file over several sessions.
//!
//! A session carries at most one window of its channel per round trip, so over a long link a file alone uses a part of it.
//! Then idle sessions help: each writes ranges of the file by SFTP where our receiver looks for an earlier try
//! (`--partial-dir`), and an ordinary session finds it there, proves it, and gives it its name. The session comes only when
//! nobody writes any more. If some range is missing then, it sends that; so nothing is sent twice, and what is proven is
//! what stays.

use super::deliver::make_way;
use super::flight::Job;
use super::resume::kept;
use super::road::Road;
use super::worker::Worker;
use super::{Direction, Sources};
use crate::transport::ssh::sftp::{Sftp, SftpError};
use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

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

/// What is known of the link.
#[derive(Debug, Default)]
struct Pace {
    /// Bytes per second of one session with a large file, and when that was.
    alone: Option<(f64, Instant)>,
    /// Until when nothing is split, since it did not pay or work.
    no_use_before: Option<Instant>,
}

impl Pace {
    /// What one session moves alone, if several may move more.
    fn slow(&self) -> Option<f64> {
        let (rate, when) = self.alone?;
        let of_use = self.no_use_before.is_none_or(|then| Instant::now() >= then);
        (of_use && rate < FAST && when.elapsed() < LASTS).then_some(rate)
    }
}

/// What the workers know together: the file that help is wanted for, if there is one, and whether help pays.
pub(super) struct Board {
    split: watch::Sender<Option<Arc<Split>>>,
    pace: Mutex<Pace>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { split: watch::Sender::new(None), pace: Mutex::default() }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One session moved so much of files in this time.
    pub(super) fn learn(&self, bytes: u64, took: Duration) {
        self.pace().alone = Some((bytes as f64 / took.as_secs_f64().max(1e-6), Instant::now()));
    }

    /// Splitting did not pay or work.
    fn of_no_use(&self) {
        self.pace().no_use_before = Some(Instant::now() + LASTS);
    }

    /// Whether help is wanted.
    pub(super) fn calls(&self) -> bool {
        self.split.borrow().as_ref().is_some_and(|split| split.has_work())
    }

    /// Waits for a file that help is wanted for.
    pub(super) async fn wanted(&self) -> Arc<Split> {
        let mut board = self.split.subscribe();
        loop {
            if let Some(split) = board.borrow_and_update().as_ref().filter(|split| split.has_work()) {
                return split.clone();
            }
            if board.changed().await.is_err() {
                // The sender lives in us.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Puts a file up, if no other is there.
    fn put_up(&self, split: &Arc<Split>) -> bool {
        self.split.send_if_modified(|board| {
            let free = board.is_none();
            if free {
                *board = Some(split.clone());
            }
            free
        })
    }

    fn take_down(&self, split: &Arc<Split>) {
        self.split.send_if_modified(|board| {
            let ours = board.as_ref().is_some_and(|other| Arc::ptr_eq(other, split));
            if ours {
                *board = None;
            }
            ours
        });
    }
}

/// A file that several write.
pub(super) struct Split {
    source: PathBuf,
    sources: Sources,
    target: PathBuf,
    len: u64,
    /// Where the next range begins.
    next: AtomicU64,
    crowd: Mutex<Crowd>,
    left: Condvar,
}

#[derive(Default)]
struct Crowd {
    at_work: usize,
    /// Nobody may join any more.
    closed: bool,
    /// Some range may be missing.
    failed: bool,
}

/// One who writes; leaves when dropped, in disorder unless all went well.
struct Hand<'a> {
    split: &'a Split,
    clean: bool,
}

impl Split {
    fn new(source: &Path, target: PathBuf, len: u64) -> Self {
        let (next, crowd, left) = Default::default();
        Self { source: source.to_owned(), sources: Sources::default(), target, len, next, crowd, left }
    }

    fn lock(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_work(&self) -> bool {
        let crowd = self.lock();
        self.next.load(Ordering::Relaxed) < self.len && !crowd.closed && !crowd.failed
    }

    fn join(&self) -> Option<Hand<'_>> {
        let mut crowd = self.lock();
        let welcome = !crowd.closed && !crowd.failed;
        welcome.then(|| {
            crowd.at_work += 1;
            Hand { split: self, clean: true }
        })
    }

    /// Waits until all have left; whether the file is complete. Each is held to the connection's own limits.
    fn complete(&self) -> bool {
        let mut crowd = self.lock();
        crowd.closed = true;
        while crowd.at_work > 0 {
            crowd = self.left.wait(crowd).unwrap_or_else(PoisonError::into_inner);
        }
        !crowd.failed && self.next.load(Ordering::Relaxed) >= self.len
    }
}

impl Hand<'_> {
    /// Writes ranges until none is left; `moved` hears of bytes, and says when to stop.
    fn write(mut self, sftp: &mut Sftp, new: bool, moved: &mut dyn FnMut(usize) -> bool) -> Result<u64, String> {
        self.clean = false;
        let split = self.split;
        let wrong = |error: SftpError| format!("{}: {error}", split.target.display());
        let unread = |error: io::Error| format!("{}: {error}", split.source.display());
        let mut file = split.sources.open(&split.source).map_err(unread)?;
        let mut pieces = sftp.pieces(&split.target, new.then_some(0o600)).map_err(wrong)?;
        let mut total = 0;
        loop {
            let begin = split.next.fetch_add(RANGE, Ordering::Relaxed);
            let end = split.len.min(begin.saturating_add(RANGE));
            if begin >= end || split.lock().failed {
                break;
            }
            let mut left = end - begin;
            file.seek(SeekFrom::Start(begin)).map_err(unread)?;
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

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        let mut crowd = self.split.lock();
        crowd.at_work -= 1;
        crowd.failed |= !self.clean;
        drop(crowd);
        self.split.left.notify_all();
    }
}

/// What is laid down of a batch for an ordinary session to find.
#[derive(Default)]
pub(super) struct Laid {
    files: usize,
    sftp: Option<Sftp>,
}

impl Laid {
    pub(super) fn is_empty(&self) -> bool {
        self.files == 0
    }
}

impl Worker {
    /// Waits for a file of another worker that help is wanted for.
    pub(super) async fn call_for_help(&self) -> Arc<Split> {
        if let Some(then) = self.no_help_before {
            tokio::time::sleep_until(then.into()).await;
        }
        self.board.wanted().await
    }

    /// Helps with the file of another worker.
    pub(super) fn help(&mut self, split: &Split) {
        // Not all at once: an sshd turns some away where many have yet to log in.
        if self.stop.wait(ARRIVAL * u32::try_from(self.number).unwrap_or(0)) || !split.has_work() {
            return;
        }
        let mut sftp = match self.connect.sftp() {
            Ok(sftp) => sftp,
            Err(error) => {
                tracing::debug!(host = self.connect.describe(), "Cannot help with a large file: {error}");
                self.crew.give_back(self.number);
                self.no_help_before = Some(Instant::now() + LASTS);
                return;
            }
        };
        // Whoever joins is waited for, so nobody joins who has yet to connect.
        let Some(hand) = split.join() else { return };
        let _guard = self.stop.guard(sftp.closer());
        match hand.write(&mut sftp, false, &mut self.mover()) {
            Ok(bytes) => tracing::debug!(bytes, "Helped with {}", split.source.display()),
            Err(why) => {
                tracing::debug!(host = self.connect.describe(), "Help with a large file failed: {why}");
                self.no_help_before = Some(Instant::now() + LASTS);
            }
        }
    }

    /// Reports bytes, keeps to the rate, and says whether to go on.
    fn mover(&self) -> impl FnMut(usize) -> bool + use<> {
        let (progress, rate, stop, number) =
            (self.progress.clone(), self.settings.rate.clone(), self.stop.clone(), self.number);
        move |bytes| {
            progress.read(number, bytes as u64);
            rate.pay(bytes);
            !stop.is_stopped()
        }
    }

    /// Lays large files of a batch down with the help of others, where that promises to be faster.
    pub(super) fn lay_down(&mut self, jobs: &[Job]) -> Laid {
        let mut laid = Laid::default();
        let least = self.settings.split_size;
        let ours = matches!(self.road, Some((Road::Program { ours: true, .. }, _)));
        let push = self.settings.direction == Direction::Push;
        if least == 0 || !push || !ours || self.settings.workers.most() < 2 {
            return laid;
        }
        let settings = self.settings.clone();
        let len = |job: &Job| {
            settings.sources.metadata(&job.source).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 })
        };
        for job in jobs {
            let len = len(job);
            if len < least || self.stop.is_stopped() {
                continue;
            }
            match self.lay(job, len, &mut laid.sftp) {
                Ok(true) => laid.files += 1,
                Ok(false) => {}
                Err(why) => {
                    tracing::debug!(host = self.connect.describe(), "Not written by several: {why}");
                    self.board.of_no_use();
                    laid.sftp = None;
                    // Some of it may stand there all the same.
                    laid.files += 1;
                }
            }
        }
        // Its connection is of no more use.
        laid.sftp = None;
        laid
    }

    /// Lays one file down; false where that is of no use.
    fn lay(&mut self, job: &Job, len: u64, sftp: &mut Option<Sftp>) -> Result<bool, String> {
        let slow = self.board.pace().slow().filter(|_| self.settings.rate.get() == 0);
        let Some(alone) = slow else { return Ok(false) };
        // A lock that is held is held by one who waits for work.
        if self.jobs.try_lock().is_ok_and(|jobs| !jobs.is_empty()) {
            return Ok(false);
        }
        let sftp = match sftp {
            Some(sftp) => sftp,
            none => none.insert(self.connect.sftp().map_err(|error| error.to_string())?),
        };
        let _guard = self.stop.guard(sftp.closer());
        let wrong = |error: SftpError| error.to_string();
        let name = job.place.variant(job.variant);
        let base = PathBuf::from(&self.settings.data_dir);
        let place = base.join(&name);
        if !sftp.is_dir(&base).map_err(wrong)? || sftp.stat(&place).map_err(wrong)?.is_some() {
            return Ok(false);
        }
        make_way(sftp, &base, &name, self.settings.chmod.as_ref(), &mut HashSet::new()).map_err(wrong)?;
        let path = base.join(kept(&self.settings.aside, job));
        if let Some(aside) = path.parent() {
            sftp.make_dir(aside, 0o700).map_err(wrong)?;
        }
        // An earlier session has begun already.
        if sftp.stat(&path).map_err(wrong)?.is_some() {
            return Ok(false);
        }
        let began = Instant::now();
        let split = Split::new(&job.source, path.clone(), len);
        let split = Arc::new(Split { sources: self.settings.sources.clone(), ..split });
        let hand = split.join().ok_or("nobody may join")?;
        let (board, mut mover) = (self.board.clone(), self.mover());
        let mut up = false;
        let mut moved = |bytes| {
            // Only now is the file there for others.
            if !up {
                up = true;
                board.put_up(&split);
            }
            mover(bytes)
        };
        let written = hand.write(sftp, true, &mut moved);
        self.board.take_down(&split);
        let complete = split.complete();
        match written {
            Ok(_) if complete => {
                let rate = len as f64 / began.elapsed().as_secs_f64().max(1e-6);
                let mb = |rate: f64| (rate / 1e5).round() / 10.0;
                tracing::debug!(rate_mb = mb(rate), alone_mb = mb(alone), "Several wrote {}", job.source.display());
                if rate < alone * PAYS {
                    self.board.of_no_use();
                }
                Ok(true)
            }
            written => Err(written.err().unwrap_or_else(|| "one who helped broke off".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_complete_only_if_all_left_in_order() {
        let split = Split::new(Path::new("a"), "b".into(), 2 * RANGE);
        let (first, second) = (split.join().unwrap(), split.join().unwrap());
        split.next.store(2 * RANGE, Ordering::Relaxed);
        drop((first, second));
        assert!(split.complete());
        assert!(split.join().is_none(), "it is closed");
        let split = Split::new(Path::new("a"), "b".into(), RANGE);
        let mut hand = split.join().unwrap();
        hand.clean = false;
        drop(hand);
        split.next.store(RANGE, Ordering::Relaxed);
        assert!(!split.complete() && !split.has_work());
        // A range that nobody took.
        assert!(!Split::new(Path::new("a"), "b".into(), RANGE).complete());
    }

    #[test]
    fn one_file_at_a_time_is_on_the_board() {
        let board = Board::new();
        let split = || Arc::new(Split::new(Path::new("a"), "b".into(), RANGE));
        let (first, second) = (split(), split());
        assert!(!board.calls());
        assert!(board.put_up(&first) && !board.put_up(&second));
        board.take_down(&second);
        assert!(board.calls());
        first.next.store(RANGE, Ordering::Relaxed);
        assert!(!board.calls(), "nothing is left to do");
        board.take_down(&first);
        assert!(board.put_up(&second));
    }

    #[test]
    fn only_slow_links_are_shared() {
        let board = Board::new();
        assert_eq!(board.pace().slow(), None, "nothing is known");
        board.learn(200_000_000, Duration::from_secs(1));
        assert_eq!(board.pace().slow(), None);
        board.learn(20_000_000, Duration::from_secs(1));
        assert_eq!(board.pace().slow(), Some(20e6));
        board.of_no_use();
        assert_eq!(board.pace().slow(), None);
    }
}
