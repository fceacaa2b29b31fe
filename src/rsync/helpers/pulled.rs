//! A pull of one large file over a long link: several connections read ranges of it by SFTP into the file that the session
//! then finds as what an earlier try has left, and proves. If anything of this fails, it comes by the session.

use super::crew::Crew;
use super::ranged::{LEAST, is_simple};
use crate::rsync::command_line::CommandLine;
use crate::rsync::operands::{Host, Plan};
use crate::rsync::way::{HELPERS_PATIENCE, Way};
use crate::transfer::stager::Stager;
use crate::transport::Connect;
use crate::transport::ranges::{RangeError, Ranges};
use protocol::flist::FileEntry;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between the arrivals of two: an sshd turns some away where many have yet to log in.
const ARRIVAL: Duration = Duration::from_millis(30);

/// How often it is looked how far the ranges are.
const GLANCE: Duration = Duration::from_millis(10);

/// Whether what is pulled may be one large file that is not here yet, and SFTP leads to it as rsync does.
pub(super) fn may_be_one_file(line: &CommandLine, plan: &Plan) -> bool {
    let [source] = &plan.sources[..] else { return false };
    let Some(name) = leaf(source) else { return false };
    let options = &line.options;
    let same_place = line.rsync_path.as_deref().is_none_or(is_simple) || source[0] == b'/';
    let plain = !options.relative && options.files_from.is_none() && !options.compress && line.rsh.is_none();
    // What is there or beside it may be built upon, and a far end that waits hears nothing for long.
    let builds = options.whole_file || options.fuzzy > 0 || !options.alt_dirs.is_empty() || options.sparse;
    let timed = options.timeout.is_some_and(|seconds| seconds > 0);
    let destination = Path::new(OsStr::from_bytes(plan.destination.as_deref().unwrap_or_default()));
    let place = if destination.is_dir() { destination.join(OsStr::from_bytes(name)) } else { destination.to_owned() };
    is_simple(source) && same_place && plain && !builds && !timed && place.symlink_metadata().is_err()
}

/// The last component, where the path can be that of a file.
fn leaf(path: &[u8]) -> Option<&[u8]> {
    let leaf = path.rsplit(|&byte| byte == b'/').next()?;
    (!matches!(leaf, b"" | b"." | b"..")).then_some(leaf)
}

/// Those who read ranges.
pub(super) struct RangedPull {
    host: Host,
    source: Vec<u8>,
    crew: Arc<Crew>,
    connections: usize,
    state: Mutex<PullState>,
    changed: Condvar,
}

#[derive(Default)]
struct PullState {
    order: Option<Arc<PullOrder>>,
    /// No order will come any more.
    closed: bool,
    /// Those who have yet to leave.
    present: usize,
    /// Bytes that were read.
    read: u64,
}

/// What is to be read, and to where.
struct PullOrder {
    ranges: Ranges,
    here: File,
}

impl RangedPull {
    /// Has so many log in.
    pub(super) fn call(host: &Host, plan: &Plan, connections: usize) -> Arc<Self> {
        let source = plan.sources.first().cloned().unwrap_or_default();
        let state = Mutex::new(PullState { present: connections, ..PullState::default() });
        let crew = Arc::default();
        let pull = Arc::new(Self { host: host.clone(), source, crew, connections, state, changed: Condvar::new() });
        for number in 0..connections {
            let here = Presence(pull.clone());
            let come = move || {
                if let Err(why) = here.0.work(number) {
                    tracing::debug!(number, "A helper leaves: {why}");
                }
            };
            // Without it there is one less.
            let _ = thread::Builder::new().name(format!("range {number}")).spawn(come);
        }
        pull
    }

    /// They may log in.
    pub(super) fn admit(&self) {
        self.crew.admit();
    }

    /// Lets them go; gives the bytes that they have read.
    pub(super) fn dismiss(&self) -> u64 {
        self.end();
        self.crew.break_off();
        self.lock().read
    }

    fn lock(&self) -> MutexGuard<'_, PullState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut PullState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// One who reads ranges, once it is known where to.
    fn work(&self, number: usize) -> Result<(), String> {
        if !self.crew.pause(ARRIVAL * u32::try_from(number).unwrap_or(0)) {
            return Ok(());
        }
        let mut ssh = Way::ssh(&self.host, HELPERS_PATIENCE).map_err(|failure| failure.text)?;
        let crew = self.crew.clone();
        ssh.on_answer(Arc::new(move |_| crew.await_admission(HELPERS_PATIENCE)));
        let mut sftp = ssh.sftp().map_err(|error| error.to_string())?;
        if !self.crew.begins(number, &sftp.closer()) {
            return Ok(());
        }
        let mut read = || {
            let source = PathBuf::from(OsStr::from_bytes(&self.source));
            let there = sftp.reading(&source).map_err(RangeError::Far)?;
            let Some(order) = self.await_order(HELPERS_PATIENCE) else { return Ok(0) };
            // Whoever comes is waited for, so nobody comes who has yet to connect.
            let Some(hand) = order.ranges.come() else { return Ok(0) };
            hand.fetch(there, &order.here, &mut |_| true)
        };
        let done = read().map_err(|error| error.to_string());
        self.crew.ends(number);
        self.change(|state| state.read += done.as_ref().copied().unwrap_or(0));
        done.map(drop)
    }

    /// Waits until it is known what is to be read, at most so long: who has waited in vain leaves the file to the session.
    fn await_order(&self, limit: Duration) -> Option<Arc<PullOrder>> {
        let waits = |state: &mut PullState| state.order.is_none() && !state.closed;
        let waited = self.changed.wait_timeout_while(self.lock(), limit, waits);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.order.clone().filter(|_| !state.closed)
    }
}

/// One who has yet to leave.
struct Presence(Arc<RangedPull>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.change(|state| state.present -= 1);
    }
}

impl fmt::Debug for RangedPull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangedPull").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl Stager for RangedPull {
    fn brings(&self, entry: &FileEntry) -> bool {
        let is_it = entry.is_file() && leaf(&self.source) == Some(&entry.name[..]);
        is_it && entry.len >= LEAST && entry.extra.link.is_none() && self.lock().present > 0
    }

    fn begin(&self, len: u64, here: File) {
        let order = PullOrder { ranges: Ranges::new(len, self.connections), here };
        self.change(|state| state.order = Some(Arc::new(order)));
    }

    fn reaches(&self, bytes: u64, limit: Duration) -> Option<bool> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            let there = state.order.as_ref().is_some_and(|order| order.ranges.front() >= bytes);
            if there || state.present == 0 {
                return Some(there);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left.min(GLANCE)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn end(&self) {
        let order = {
            let mut state = self.lock();
            state.closed = true;
            state.order.clone()
        };
        self.changed.notify_all();
        // Of a file that is whole nobody writes any more, though some may still be closing it over there.
        if let Some(order) = order.filter(|order| order.ranges.front() < order.ranges.len()) {
            order.ranges.end();
            self.crew.break_off();
            order.ranges.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_an_order_in_vain_leaves_the_file_to_the_session() {
        let state = Mutex::new(PullState { present: 1, ..PullState::default() });
        let host = Host { user: None, name: b"host".to_vec(), port: None };
        let (source, crew, changed) = (b"/a".to_vec(), Arc::<Crew>::default(), Condvar::new());
        let pull = Arc::new(RangedPull { host, source, crew: crew.clone(), connections: 1, state, changed });
        let here = Presence(pull.clone());
        let short = Duration::from_millis(1);
        assert!(!crew.await_admission(short) && pull.await_order(short).is_none());
        assert_eq!(pull.reaches(7, short), None, "one is there still");
        drop(here);
        assert_eq!(pull.reaches(7, HELPERS_PATIENCE), Some(false), "nobody is");
        crew.admit();
        pull.begin(7, tempfile::tempfile().unwrap());
        assert!(crew.await_admission(short) && pull.await_order(short).is_some());
        pull.end();
        assert!(pull.await_order(short).is_none(), "it is over");
    }
}
