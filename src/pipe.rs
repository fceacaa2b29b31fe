//! A bounded byte pipe in memory.
//!
//! Each half has two faces: a blocking one (`Read`, `Write`) for the thread that speaks rsync, and one that never blocks
//! for the thread that owns a socket. Bytes travel in chunks; the reader owns the chunk at the head, so it can offer the
//! same bytes at the same address to an SSH write again and again without holding a lock.

use crate::link::{Closer, Link, Remote, Sink};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How many bytes a pipe holds unless told otherwise: enough to hide a disk's hiccup, small enough for many links.
pub const DEFAULT_CAPACITY: usize = 1 << 20;

/// Bytes are kept in pieces of at most this size.
const CHUNK: usize = 256 * 1024;

/// How many used-up chunks are kept for the next writes.
const SPARES: usize = 4;

/// A buffer below this size is copied to what waits already: a piece for each would cost more.
const WORTH_TAKING: usize = 16 * 1024;

/// Called when a pipe's state changed; must not block.
pub type Wakeup = Box<dyn Fn() + Send + Sync>;

/// A pipe that holds at most `capacity` bytes (at least one).
pub fn pipe(capacity: usize) -> (PipeReader, PipeWriter) {
    let capacity = capacity.max(1);
    let shared = Arc::new(PipeEnds {
        state: Mutex::new(PipeState { capacity, ..PipeState::default() }),
        data: Condvar::new(),
        space: Condvar::new(),
        on_data: OnceLock::new(),
        on_space: OnceLock::new(),
    });
    let reader = PipeReader { shared: shared.clone(), head: Vec::new(), at: 0, stall_limit: None };
    (reader, PipeWriter { shared, stall_limit: None })
}

/// Two links joined in memory: what one writes the other reads.
pub fn pair() -> (Link, Link) {
    let (reader_a, writer_b) = pipe(DEFAULT_CAPACITY);
    let (reader_b, writer_a) = pipe(DEFAULT_CAPACITY);
    let closers = [reader_a.closer(), reader_b.closer()];
    let closer = Closer::new(move || closers.iter().for_each(PipeCloser::close));
    let link = |reader, writer| Link {
        reader: Box::new(reader),
        writer: Box::new(writer),
        closer: closer.clone(),
        remote: Remote::new(),
        patience: None,
    };
    (link(reader_a, writer_a), link(reader_b, writer_b))
}

/// The half that gives bytes. Dropping it makes writes fail with `BrokenPipe`.
pub struct PipeReader {
    shared: Arc<PipeEnds>,
    head: Vec<u8>,
    at: usize,
    stall_limit: Option<Duration>,
}

/// The half that takes bytes. Dropping it is the end of the stream; dropping it in a panic is a failure.
pub struct PipeWriter {
    shared: Arc<PipeEnds>,
    stall_limit: Option<Duration>,
}

/// Ends a pipe with an error, from any thread.
#[derive(Clone)]
pub struct PipeCloser(Arc<PipeEnds>);

/// What stands at the head of a pipe.
#[derive(Debug, PartialEq, Eq)]
pub enum Front<'a> {
    /// These bytes; the same ones, at the same address, until [`PipeReader::consume`].
    Data(&'a [u8]),
    /// Nothing yet.
    Empty,
    /// Nothing, and nothing will come.
    End,
}

struct PipeEnds {
    state: Mutex<PipeState>,
    data: Condvar,
    space: Condvar,
    on_data: OnceLock<Wakeup>,
    on_space: OnceLock<Wakeup>,
}

#[derive(Default)]
struct PipeState {
    queue: VecDeque<Vec<u8>>,
    spares: Vec<Vec<u8>>,
    capacity: usize,
    /// Bytes written and not yet consumed, the reader's own chunk included.
    used: usize,
    writer_gone: bool,
    reader_gone: bool,
    /// Why no more comes; what has come is read before.
    broken_off: Option<(ErrorKind, String)>,
    failure: Option<(ErrorKind, String)>,
    reader_waits: Option<Instant>,
    /// The space that a waiting writer wants; 0 where none waits.
    writer_wants: usize,
}

impl PipeState {
    fn check(&self) -> io::Result<()> {
        match &self.failure {
            Some((kind, why)) => Err(io::Error::new(*kind, why.clone())),
            None => Ok(()),
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        self.check()?;
        if self.reader_gone {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "The far end no longer reads"));
        }
        Ok(())
    }

    fn free(&self) -> usize {
        self.capacity - self.used
    }

    /// Space worth waking a waiting writer for: a byte at a time would cost a switch of threads each.
    fn low_water(&self) -> usize {
        (self.capacity / 4).max(1)
    }

    fn append(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.free());
        let mut rest = &bytes[..taken];
        let size = CHUNK.min(self.capacity);
        while !rest.is_empty() {
            let room = self.queue.back().map_or(0, |tail| size.saturating_sub(tail.len()));
            if room == 0 {
                let fresh = self.spares.pop().unwrap_or_else(|| Vec::with_capacity(size));
                self.queue.push_back(fresh);
                continue;
            }
            let (now, later) = rest.split_at(room.min(rest.len()));
            if let Some(tail) = self.queue.back_mut() {
                tail.extend_from_slice(now);
            }
            rest = later;
        }
        self.used += taken;
        taken
    }
}

impl PipeEnds {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`PipeEnds::data_came`], but wakes a reader only if one waited: to wake nobody is a system call, too.
    fn more_data(&self, awaited: Option<Instant>) {
        if awaited.is_some() {
            self.data.notify_one();
        }
        if let Some(wake) = self.on_data.get() {
            wake();
        }
    }

    fn data_came(&self) {
        self.data.notify_one();
        if let Some(wake) = self.on_data.get() {
            wake();
        }
    }

    fn space_came(&self) {
        self.space.notify_one();
        if let Some(wake) = self.on_space.get() {
            wake();
        }
    }
}

/// Waits on `condvar`, at most to `deadline`.
fn wait<'a>(
    condvar: &Condvar,
    state: MutexGuard<'a, PipeState>,
    deadline: Option<Instant>,
    limit: Option<Duration>,
) -> io::Result<MutexGuard<'a, PipeState>> {
    let Some(deadline) = deadline else {
        return Ok(condvar.wait(state).unwrap_or_else(PoisonError::into_inner));
    };
    match deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        Some(left) => Ok(condvar.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0),
        None => Err(io::Error::new(ErrorKind::TimedOut, format!("No byte moved for {:?}", limit.unwrap_or_default()))),
    }
}

impl PipeReader {
    /// Makes a blocking read that waits longer fail with `TimedOut`.
    pub fn set_stall_limit(&mut self, limit: Option<Duration>) {
        self.stall_limit = limit;
    }

    /// Sets what to call whenever data appears or the pipe ends; the first one counts.
    pub fn on_data(&self, wake: Wakeup) {
        let _ = self.shared.on_data.set(wake);
    }

    /// A handle that ends this pipe from any thread.
    pub fn closer(&self) -> PipeCloser {
        PipeCloser(self.shared.clone())
    }

    /// The bytes at the head, without waiting. Fails when the pipe was closed with an error.
    pub fn front(&mut self) -> io::Result<Front<'_>> {
        let Self { shared, head, at, .. } = self;
        let mut state = shared.lock();
        state.check()?;
        if *at == head.len() {
            let Some(next) = state.queue.pop_front() else {
                return match &state.broken_off {
                    Some((kind, why)) => Err(io::Error::new(*kind, why.clone())),
                    None if state.writer_gone => Ok(Front::End),
                    None => Ok(Front::Empty),
                };
            };
            let mut old = std::mem::replace(head, next);
            *at = 0;
            if old.capacity() > 0 && state.spares.len() < SPARES {
                old.clear();
                state.spares.push(old);
            }
        }
        Ok(Front::Data(&head[*at..]))
    }

    /// Takes `n` bytes off the head; `n` is at most the length [`front`](Self::front) gave.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.head.len() - self.at);
        self.at += n;
        let enough = {
            let mut state = self.shared.lock();
            state.used -= n;
            state.writer_wants > 0 && state.free() >= state.writer_wants
        };
        if enough {
            self.shared.space.notify_one();
        }
        if let Some(wake) = self.shared.on_space.get() {
            wake();
        }
    }

    /// Reads what is there, without waiting: `WouldBlock` when nothing is, 0 at the end.
    pub fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match self.front()? {
            Front::Data(bytes) => {
                let n = bytes.len().min(buf.len());
                buf[..n].copy_from_slice(&bytes[..n]);
                n
            }
            Front::Empty => return Err(ErrorKind::WouldBlock.into()),
            Front::End => return Ok(0),
        };
        self.consume(n);
        Ok(n)
    }
}

impl Read for PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut deadline = None;
        loop {
            match self.try_read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            let now = Instant::now();
            let deadline = *deadline.get_or_insert_with(|| self.stall_limit.map(|limit| now + limit));
            let mut state = self.shared.lock();
            if state.queue.is_empty() && !state.writer_gone && state.failure.is_none() {
                state.reader_waits.get_or_insert(now);
                if let Err(e) = wait(&self.shared.data, state, deadline, self.stall_limit) {
                    self.shared.lock().reader_waits = None;
                    return Err(e);
                }
            }
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.reader_gone = true;
            state.reader_waits = None;
            state.queue.clear();
            state.spares.clear();
        }
        self.shared.space_came();
    }
}

impl PipeWriter {
    /// Ends the pipe with an error, which the reader meets once it has read what is there.
    pub fn break_off(self, kind: ErrorKind, why: &str) {
        self.shared.lock().broken_off = Some((kind, why.to_owned()));
    }

    /// Makes a blocking write that waits longer fail with `TimedOut`.
    pub fn set_stall_limit(&mut self, limit: Option<Duration>) {
        self.stall_limit = limit;
    }

    /// Sets what to call whenever space appears or the reader goes; the first one counts.
    pub fn on_space(&self, wake: Wakeup) {
        let _ = self.shared.on_space.set(wake);
    }

    /// A handle that ends this pipe from any thread.
    pub fn closer(&self) -> PipeCloser {
        PipeCloser(self.shared.clone())
    }

    /// How many bytes would be taken now. Fails when the reader is gone (`BrokenPipe`) or the pipe was closed.
    pub fn room(&self) -> io::Result<usize> {
        let state = self.shared.lock();
        state.check_writable()?;
        Ok(state.free())
    }

    /// Since when a blocking read has been waiting for data, if one is.
    pub fn reader_waits_since(&self) -> Option<Instant> {
        self.shared.lock().reader_waits
    }

    /// Writes what fits, without waiting: `WouldBlock` when nothing does.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let (taken, awaited) = {
            let mut state = self.shared.lock();
            state.check_writable()?;
            match state.append(bytes) {
                0 => return Err(ErrorKind::WouldBlock.into()),
                taken => (taken, state.reader_waits.take()),
            }
        };
        self.shared.more_data(awaited);
        Ok(taken)
    }

    /// Waits for so much space; when the time is over, any will do.
    fn await_space(&self, wanted: usize, deadline: Option<Instant>) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.writer_wants = wanted;
        while state.check_writable().is_ok() && state.free() < wanted {
            match wait(&self.shared.space, state, deadline, self.stall_limit) {
                Ok(woken) => state = woken,
                Err(e) => {
                    state = self.shared.lock();
                    if state.free() == 0 {
                        state.writer_wants = 0;
                        return Err(e);
                    }
                    // A reader that took less than was wanted is slow, not stalled.
                    break;
                }
            }
        }
        state.writer_wants = 0;
        Ok(())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut deadline = None;
        loop {
            match self.try_write(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            let deadline = *deadline.get_or_insert_with(|| self.stall_limit.map(|limit| Instant::now() + limit));
            let wanted = self.shared.lock().low_water();
            self.await_space(wanted, deadline)?;
        }
    }

    /// Does nothing: bytes are the reader's as soon as they are written.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for PipeWriter {
    fn give(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut deadline = None;
        while bytes.len() >= WORTH_TAKING {
            let mut state = self.shared.lock();
            state.check_writable()?;
            if bytes.len() > state.capacity {
                break;
            }
            if bytes.len() <= state.free() {
                let spare = state.spares.pop().unwrap_or_default();
                let taken = std::mem::replace(bytes, spare);
                state.used += taken.len();
                state.queue.push_back(taken);
                let awaited = state.reader_waits.take();
                drop(state);
                self.shared.more_data(awaited);
                return Ok(());
            }
            drop(state);
            let deadline = *deadline.get_or_insert_with(|| self.stall_limit.map(|limit| Instant::now() + limit));
            self.await_space(bytes.len(), deadline)?;
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
        }
        self.write_all(bytes)?;
        bytes.clear();
        Ok(())
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.writer_gone = true;
            if std::thread::panicking() && state.failure.is_none() {
                state.failure = Some((ErrorKind::ConnectionAborted, "The writing thread panicked".to_owned()));
            }
        }
        self.shared.data_came();
    }
}

impl PipeCloser {
    /// Makes both halves fail with this error from now on; the first one counts.
    pub fn fail(&self, kind: ErrorKind, why: &str) {
        self.0.lock().failure.get_or_insert_with(|| (kind, why.to_owned()));
        self.0.data_came();
        self.0.space_came();
    }

    /// Makes both halves fail with `ConnectionAborted`.
    pub fn close(&self) {
        self.fail(ErrorKind::ConnectionAborted, "The link was closed");
    }
}

#[cfg(test)]
mod tests;
