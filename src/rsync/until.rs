//! What may end a session before its time: a signal, or the moment that `--stop-at` names.

use super::exit;
use crate::clock::unix_seconds;
use crate::link::Closer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a session may take to tidy up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long is slept at once before `--stop-at` is looked at again, as the clock may be set meanwhile.
const STEP: Duration = Duration::from_secs(60);

/// Watches over one link until dropped.
pub(crate) struct Until {
    code: Arc<AtomicI32>,
    /// Dropping it ends the watch.
    _watched: UnixStream,
}

impl Until {
    /// Closes the link at a signal, or at `stop_at` (seconds since 1970), so that what was begun is removed or kept as after
    /// a lost link. At a second signal, or when the session does not end within seconds, the program ends at once.
    pub(crate) fn watch(closer: Closer, stop_at: Option<i64>) -> io::Result<Self> {
        let (watched, left) = UnixStream::pair()?;
        let signals = Signals { end: heard(&[SIGINT, SIGTERM, SIGHUP])?, user: heard(&[SIGUSR1])?, left };
        // A file that may not grow is an error of the write that meets the limit.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        let code = Arc::new(AtomicI32::new(0));
        let said = code.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            let why = match signals.wait(|| stop_at.map(until)) {
                WakeReason::Signal(code) => code,
                WakeReason::Late => exit::TIMEOUT,
                WakeReason::Left => return,
            };
            said.store(why, Ordering::Release);
            closer.close();
            let deadline = Instant::now() + PATIENCE;
            match signals.wait(|| Some(deadline.saturating_duration_since(Instant::now()))) {
                WakeReason::Signal(code) => std::process::exit(code),
                WakeReason::Late => std::process::exit(why),
                WakeReason::Left => {}
            }
        })?;
        Ok(Self { code, _watched: watched })
    }

    /// The exit code of what ended the session, if this did.
    pub(crate) fn ended(&self) -> Option<i32> {
        Some(self.code.load(Ordering::Acquire)).filter(|&code| code != 0)
    }
}

/// How long it is until then.
fn until(stop_at: i64) -> Duration {
    Duration::from_secs(stop_at.saturating_sub(unix_seconds()).try_into().unwrap_or(0))
}

/// Gets a byte for each of these signals.
fn heard(signals: &[i32]) -> io::Result<UnixStream> {
    let (heard, told) = UnixStream::pair()?;
    signals.iter().try_for_each(|&signal| pipe::register(signal, told.try_clone()?).map(drop))?;
    Ok(heard)
}

struct Signals {
    end: UnixStream,
    user: UnixStream,
    /// The other end of what is dropped with the session.
    left: UnixStream,
}

/// What a wait came to.
enum WakeReason {
    /// One that ends with this exit code.
    Signal(i32),
    /// The time is over.
    Late,
    /// The session has come to its end.
    Left,
}

impl Signals {
    /// Waits for a signal, for as long as there is time `left`; `None` is for ever.
    fn wait(&self, left: impl Fn() -> Option<Duration>) -> WakeReason {
        loop {
            let step = match left() {
                Some(Duration::ZERO) => return WakeReason::Late,
                left => left.map(|left| left.min(STEP)),
            };
            let step = step.and_then(|step| Timespec::try_from(step).ok());
            let mut fds = [&self.left, &self.end, &self.user].map(|fd| PollFd::new(fd, PollFlags::IN));
            match poll(&mut fds, step.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Without it the session still works; only what it leaves when told to end is not tidied.
                Err(_) => return WakeReason::Left,
            }
            let [left, end, user] = fds.map(|fd| !fd.revents().is_empty());
            match () {
                () if left => return WakeReason::Left,
                () if end && took(&self.end) => return WakeReason::Signal(exit::SIGNAL),
                () if user && took(&self.user) => return WakeReason::Signal(exit::USR1),
                () => {}
            }
        }
    }
}

/// Takes one signal out.
fn took(mut heard: &UnixStream) -> bool {
    heard.read(&mut [0]).is_ok_and(|count| count > 0)
}
