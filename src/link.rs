//! A link: the two halves of a connection to a peer, and what becomes of its far end.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A running peer: one reader and one writer that two threads may use at once.
///
/// Deadlines live below: a read or write that stalls beyond the transport's limit fails with
/// [`std::io::ErrorKind::TimedOut`]. Dropping the writer tells the peer that nothing more will come.
pub struct Link {
    /// Bytes from the peer.
    pub reader: Box<dyn Read + Send>,
    /// Bytes to the peer.
    pub writer: Box<dyn Sink>,
    /// Ends the link from any thread.
    pub closer: Closer,
    /// The far end's process: its error output and how it ended.
    pub remote: Remote,
    /// How long a session waits for what brings it on, whatever else comes meanwhile; without it any byte is a sign of life,
    /// and the deadlines below are all there are.
    pub patience: Option<Duration>,
}

/// By what a link is known to be alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignOfLife {
    /// Any byte of the far end's output, as `--timeout` of rsync has it.
    AnyByte,
    /// What brings the session on: bytes of files, entries, requests, answers. Keep-alives, empty frames and words do not, nor
    /// does anything that comes while the far end takes nothing.
    Progress,
}

/// What takes bytes for a peer.
pub trait Sink: Write + Send {
    /// Writes all of the buffer and leaves an empty one. Who keeps bytes in memory anyway takes the buffer itself and gives
    /// another for it, which saves a copy.
    fn give(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.write_all(bytes)?;
        bytes.clear();
        Ok(())
    }
}

impl<T: Sink + ?Sized> Sink for Box<T> {
    fn give(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        (**self).give(bytes)
    }
}

impl Sink for io::Sink {}

impl Sink for std::process::ChildStdin {}

/// Makes both halves of a [`Link`] return an error; how a stuck worker is cancelled.
#[derive(Clone)]
pub struct Closer(Arc<dyn Fn() + Send + Sync>);

impl Closer {
    /// A closer that runs `close`, which must not block and may be called more than once.
    pub fn new(close: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(close))
    }

    /// Closes the link now.
    pub fn close(&self) {
        (self.0)();
    }
}

/// How the far end's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal, named without `SIG`.
    Signalled(String),
    /// The connection went away first, with this reason; nothing is known of the process.
    Lost(String),
}

/// How much of a peer's error output is kept: its last 64 KiB.
const STDERR_KEPT: usize = 64 * 1024;

/// What is known of the far end's process. Clones share the same state.
#[derive(Clone, Default)]
pub struct Remote(Arc<(Mutex<RemoteState>, Condvar)>);

#[derive(Default)]
struct RemoteState {
    stderr: VecDeque<u8>,
    ending: Option<Ending>,
}

impl Remote {
    /// A process that has said nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds error output; only the last 64 KiB are kept.
    pub fn push_stderr(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.stderr.extend(bytes);
        let excess = state.stderr.len().saturating_sub(STDERR_KEPT);
        state.stderr.drain(..excess);
    }

    /// Says how the process ended; the first word counts.
    pub fn end(&self, ending: Ending) {
        let mut state = self.lock();
        if state.ending.is_none() {
            state.ending = Some(ending);
            self.0.1.notify_all();
        }
    }

    /// Waits for the end of the process, at most `limit`; `None` when it has not ended by then.
    pub fn wait(&self, limit: Duration) -> Option<Ending> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while state.ending.is_none() {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            state = self.0.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ending.clone()
    }

    /// The error output so far (its last 64 KiB), as text.
    pub fn stderr(&self) -> String {
        let mut state = self.lock();
        String::from_utf8_lossy(state.stderr.make_contiguous()).into_owned()
    }

    fn lock(&self) -> MutexGuard<'_, RemoteState> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
