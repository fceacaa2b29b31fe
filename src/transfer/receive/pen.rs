//! What writes a file: at once, or a large one on a thread of its own, while the next bytes are read and summed.

use crate::transfer::dest::Output;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Bytes written at once.
const WRITE_SIZE: usize = 256 * 1024;
/// A file worth a thread, bytes.
const APART_LEAST: u64 = 8 << 20;
/// Pieces that may wait to be written.
const WAIT_MOST: usize = 3;

/// Writes a file from its beginning.
pub(super) enum Pen {
    /// Here and now.
    Here(Output),
    /// On another thread.
    Apart(Apart),
}

/// A thread that writes.
pub(super) struct Apart {
    /// `None` once there is nothing more to write.
    full: Option<SyncSender<Vec<u8>>>,
    used: Receiver<Vec<u8>>,
    /// Bytes too few to be handed over yet.
    pending: Vec<u8>,
    thread: Option<JoinHandle<io::Result<Output>>>,
}

impl Pen {
    /// For a file that will have `len` bytes, none of which is there yet.
    pub(super) fn new(output: Output, len: u64) -> Self {
        if len < APART_LEAST {
            return Self::Here(output);
        }
        let (full, pieces) = sync_channel(WAIT_MOST);
        let (spares, used) = sync_channel(WAIT_MOST + 1);
        let (give, take) = sync_channel::<Output>(1);
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || {
            let output = take.recv().map_err(|_| io::Error::other("nothing to write"))?;
            write_all(output, &pieces, &spares)
        });
        match thread {
            Ok(thread) => match give.send(output) {
                Ok(()) => Self::Apart(Apart { full: Some(full), used, pending: Vec::new(), thread: Some(thread) }),
                Err(unsent) => Self::Here(unsent.0),
            },
            Err(_) => Self::Here(output),
        }
    }

    /// Where the next byte goes, of a file that is written here.
    pub(super) fn position(&self) -> Option<u64> {
        match self {
            Self::Here(output) => Some(output.position()),
            Self::Apart(_) => None,
        }
    }

    /// Writes bytes. That an earlier write failed may be told here.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Here(output) => output.write_all(bytes),
            Self::Apart(apart) => {
                apart.pending.extend_from_slice(bytes);
                if apart.pending.len() >= WRITE_SIZE { apart.hand_over() } else { Ok(()) }
            }
        }
    }

    /// Writes what the buffer holds and may take the buffer for it: what it holds afterwards means nothing.
    pub(super) fn write_buffer(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Apart(apart) if buffer.len() >= WRITE_SIZE / 2 => {
                apart.hand_over()?;
                std::mem::swap(&mut apart.pending, buffer);
                apart.hand_over()
            }
            pen => pen.write(buffer),
        }
    }

    /// The file with all bytes written.
    pub(super) fn finish(self) -> io::Result<Output> {
        match self {
            Self::Here(output) => Ok(output),
            Self::Apart(mut apart) => {
                apart.hand_over()?;
                apart.join()
            }
        }
    }
}

impl Apart {
    fn hand_over(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut spare = self.used.try_recv().unwrap_or_default();
        spare.clear();
        let piece = std::mem::replace(&mut self.pending, spare);
        if self.full.as_ref().is_some_and(|full| full.send(piece).is_ok()) {
            return Ok(());
        }
        // It left before its time: a write failed.
        Err(self.join().err().unwrap_or_else(|| io::Error::other("the writer stopped")))
    }

    /// Waits until all is written.
    fn join(&mut self) -> io::Result<Output> {
        self.full = None;
        let stopped = || io::Error::other("the writer stopped");
        self.thread.take().ok_or_else(stopped)?.join().map_err(|_| stopped())?
    }
}

impl Drop for Apart {
    /// What is left of the file goes with its output, before the session does.
    fn drop(&mut self) {
        let _ = self.join();
    }
}

fn write_all(mut output: Output, pieces: &Receiver<Vec<u8>>, spares: &SyncSender<Vec<u8>>) -> io::Result<Output> {
    for piece in pieces {
        output.write_all(&piece)?;
        // The other side may have enough of them.
        let _ = spares.try_send(piece);
    }
    Ok(output)
}
