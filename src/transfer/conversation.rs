//! A session in being: what its ends agreed on, and both ways between them.

use super::TransferError;
use super::batch::{BatchFile, Tap};
use crate::link::{Closer, Remote, Sink};
use crate::throttle::Rate;
use protocol::charset::Charset;
use protocol::handshake::Negotiated;
use protocol::mux::{Inbox, Outbox};
use std::io::{self, Read, Write};
use std::num::NonZeroU64;

/// Bytes asked for by one read.
const READ_SIZE: usize = 128 * 1024;

/// A link whose two ends have agreed.
pub struct Conversation {
    /// What they agreed on.
    pub agreed: Negotiated,
    pub(super) inbox: Inbox,
    pub(super) out: Outbox,
    pub(super) reader: LinkReader,
    pub(super) writer: LinkWriter,
    pub(super) closer: Closer,
    /// What keeps the session for later.
    pub(super) batch: Option<BatchFile>,
    /// The other end is a batch file: it never listens, and knows nothing of what stands here.
    pub(super) replay: bool,
}

impl Conversation {
    /// Words and names in messages are in this set at our end (`--iconv`).
    pub fn convert(&mut self, charset: Option<Charset>) {
        self.inbox.convert(charset);
        self.out.convert(charset);
    }

    /// Says at most so many bytes in a second from now on.
    pub fn limit(&mut self, bytes_per_second: NonZeroU64) {
        let link = std::mem::replace(&mut self.writer.link, Box::new(io::sink()));
        self.writer.link = Rate::new(bytes_per_second.get()).slow(link);
    }
}

/// The reading half.
pub(super) struct LinkReader {
    link: Box<dyn Read + Send>,
    buffer: Box<[u8]>,
    pub(super) remote: Remote,
    /// Bytes read.
    pub(super) read: u64,
    /// What keeps what is read.
    pub(super) tap: Option<Tap>,
}

impl LinkReader {
    pub(super) fn new(link: Box<dyn Read + Send>, remote: Remote) -> Self {
        Self { link, buffer: vec![0; READ_SIZE].into(), remote, read: 0, tap: None }
    }

    /// Waits for bytes. The end of the stream is an error here: see [`TransferError::Remote`].
    pub(super) fn read(&mut self) -> Result<&[u8], TransferError> {
        match self.read_or_end()? {
            0 => Err(TransferError::closed(&self.remote)),
            n => Ok(&self.buffer[..n]),
        }
    }

    /// Reads to the end of the stream; what comes after the last word of a session means nothing.
    pub(super) fn read_to_end(&mut self) -> Result<(), TransferError> {
        while self.read_or_end()? > 0 {}
        Ok(())
    }

    fn read_or_end(&mut self) -> Result<usize, TransferError> {
        loop {
            match self.link.read(&mut self.buffer) {
                Ok(n) => {
                    self.read += n as u64;
                    if let Some(tap) = &mut self.tap {
                        tap.hear(&self.buffer[..n])?;
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TransferError::from_io(error)),
            }
        }
    }
}

/// The writing half.
pub(super) struct LinkWriter {
    link: Box<dyn Sink>,
    /// Bytes written.
    pub(super) written: u64,
    /// What keeps what is written and recorded.
    pub(super) batch: Option<BatchFile>,
}

impl LinkWriter {
    pub(super) fn new(link: Box<dyn Sink>) -> Self {
        Self { link, written: 0, batch: None }
    }

    /// Writes all that waits.
    pub(super) fn flush(&mut self, out: &mut Outbox) -> Result<(), TransferError> {
        if let Some(batch) = &mut self.batch {
            batch.write(&out.take_record())?;
        }
        if !out.is_empty() {
            self.written += out.bytes().len() as u64;
            out.hand_over(|bytes| self.link.give(bytes)).map_err(TransferError::from_io)?;
        }
        self.link.flush().map_err(TransferError::from_io)
    }

    /// Sends the names of `--files-from`, a piece at a time and after all that waits. Protocols before 31 want them outside
    /// of all framing.
    pub(super) fn send_names(
        &mut self,
        agreed: &Negotiated,
        names: impl Iterator<Item = Result<Vec<u8>, TransferError>>,
        out: &mut Outbox,
    ) -> Result<(), TransferError> {
        self.flush(out)?;
        for piece in names {
            let piece = piece?;
            if agreed.version >= 31 {
                out.put(&piece);
                self.flush(out)?;
                continue;
            }
            self.written += piece.len() as u64;
            self.link.write_all(&piece).and_then(|()| self.link.flush()).map_err(TransferError::from_io)?;
        }
        Ok(())
    }
}
