//! A session in being: what its ends agreed on, and both ways between them.

use super::batch::{BatchFile, Tap};
use super::news::{Awaited, NewsReader, Waker};
use super::{ENDING_PATIENCE, TransferError};
use crate::link::{Closer, Ending, Remote, Sink};
use crate::throttle::Rate;
use protocol::args::Options;
use protocol::handshake::Negotiated;
use protocol::mux::{Inbox, Message, Outbox};
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// Bytes asked for by one read.
const READ_SIZE: usize = 128 * 1024;

/// Bytes of a file that are more than a trickle, in the time that a stall may take.
const TRICKLE: usize = 1024;

/// A link whose two ends have agreed.
pub struct Conversation {
    /// What they agreed on.
    pub agreed: Negotiated,
    pub(super) server: bool,
    /// What has come since, for the machine that takes the session up.
    pub(super) inbox: Inbox,
    pub(super) reader: LinkReader,
    pub(super) writer: LinkWriter,
    pub(super) closer: Closer,
    /// What keeps the session for later.
    pub(super) batch: Option<BatchFile>,
    /// The other end is a batch file: it never listens, and knows nothing of what stands here.
    pub(super) replay: bool,
}

impl Conversation {
    /// Takes what the options say of the session itself, at either end.
    pub(crate) fn follow(&mut self, options: &Options) -> Result<(), TransferError> {
        options.check_version(self.agreed.version)?;
        self.inbox.convert(options.charset);
        self.writer.out.convert(options.charset);
        if let Some(rate) = options.bwlimit.filter(|&rate| rate > 0) {
            let link = std::mem::replace(&mut self.writer.link, Box::new(io::sink()));
            self.writer.link = Rate::new(rate).slow(link);
        }
        Ok(())
    }

    /// What has come since the handshake; from here on a machine holds it.
    pub(super) fn take_inbox(&mut self) -> Inbox {
        std::mem::take(&mut self.inbox)
    }

    /// Writes all that waits, and waits for bytes.
    pub(super) fn exchange(&mut self) -> Result<&[u8], TransferError> {
        self.writer.flush()?;
        self.reader.read()
    }
}

pub(super) struct LinkReader {
    link: Box<dyn Read + Send>,
    buffer: Box<[u8]>,
    pub(super) remote: Remote,
    pub(super) read: u64,
    /// What keeps what is read.
    pub(super) tap: Option<Tap>,
    /// What tells for whom a silence counts, where news come from within.
    awaited: Option<Awaited>,
    /// How long to wait for what brings the session on.
    patience: Option<Duration>,
    /// How long it has been waited for.
    waited: Duration,
    /// Bytes of a file that have come meanwhile.
    trickled: usize,
}

impl LinkReader {
    /// `patience`: see [`Link`](crate::link::Link).
    pub(super) fn new(link: Box<dyn Read + Send>, remote: Remote, patience: Option<Duration>) -> Self {
        let (buffer, waited) = (vec![0; READ_SIZE].into(), Duration::ZERO);
        Self { link, buffer, remote, read: 0, tap: None, awaited: None, patience, waited, trickled: 0 }
    }

    /// What came has brought the session on: to wait begins anew.
    pub(super) fn brought_on(&mut self) {
        (self.waited, self.trickled) = (Duration::ZERO, 0);
    }

    /// So many bytes of a file came.
    pub(super) fn brought(&mut self, bytes: usize) {
        self.trickled += bytes;
        if self.trickled >= TRICKLE {
            self.brought_on();
        }
    }

    /// A message came.
    pub(super) fn brought_message(&mut self, message: &Message) {
        if message.brings_on() {
            self.brought_on();
        }
    }

    /// Has waits end at news from within as well, and after so long; see [`LinkReader::read_or_news`].
    pub(super) fn hear_news(&mut self, every: Duration) -> Result<Waker, TransferError> {
        let link = std::mem::replace(&mut self.link, Box::new(io::empty()));
        let started = NewsReader::new(link, every).map_err(TransferError::Link);
        let (reader, waker) = started?;
        self.awaited = Some(reader.awaited());
        self.link = Box::new(reader);
        Ok(waker)
    }

    /// Waits for bytes or for news, which are no bytes at all.
    pub(super) fn read_or_news(&mut self) -> Result<Option<&[u8]>, TransferError> {
        match self.link.read(&mut self.buffer) {
            Ok(0) => Err(TransferError::closed(&self.remote)),
            Ok(n) => {
                self.read += n as u64;
                Ok(Some(&self.buffer[..n]))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(TransferError::from_io(error)),
        }
    }

    /// Waits for bytes. The end of the stream is an error here: see [`TransferError::Remote`].
    pub(super) fn read(&mut self) -> Result<&[u8], TransferError> {
        match self.read_or_end()? {
            0 => Err(TransferError::closed(&self.remote)),
            n => Ok(&self.buffer[..n]),
        }
    }

    /// Reads to the end of the stream, since what comes after the last word of a session means nothing, and waits for the
    /// far end's program; gives how that ended, or `None` where it does not.
    pub(super) fn await_end(&mut self) -> Result<Option<Ending>, TransferError> {
        while self.read_or_end()? > 0 {}
        Ok(self.remote.wait(ENDING_PATIENCE))
    }

    fn read_or_end(&mut self) -> Result<usize, TransferError> {
        self.awaited.iter().for_each(|awaited| awaited.set_awaited(true));
        let read = self.read_bytes();
        self.awaited.iter().for_each(|awaited| awaited.set_awaited(false));
        read
    }

    fn read_bytes(&mut self) -> Result<usize, TransferError> {
        loop {
            self.may_wait()?;
            let began = Instant::now();
            match self.link.read(&mut self.buffer) {
                Ok(n) => {
                    self.read += n as u64;
                    self.waited += began.elapsed();
                    if let Some(tap) = &mut self.tap {
                        tap.hear(&self.buffer[..n])?;
                    }
                    return Ok(n);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(TransferError::from_io(error)),
            }
        }
    }
}

impl LinkReader {
    /// Fails once nothing of what came for so long has brought the session on.
    fn may_wait(&self) -> Result<(), TransferError> {
        match self.patience.filter(|&patience| self.waited > patience) {
            Some(patience) => {
                let why = format!("What came for {patience:?} brought nothing on");
                Err(TransferError::Stalled(io::Error::new(ErrorKind::TimedOut, why)))
            }
            None => Ok(()),
        }
    }
}

/// The writing half, with what waits to be written.
pub(super) struct LinkWriter {
    link: Box<dyn Sink>,
    /// What waits.
    pub(super) out: Outbox,
    pub(super) written: u64,
    /// What keeps what is written and recorded.
    pub(super) batch: Option<BatchFile>,
}

impl LinkWriter {
    pub(super) fn new(link: Box<dyn Sink>, out: Outbox) -> Self {
        Self { link, out, written: 0, batch: None }
    }

    /// Writes all that waits.
    pub(super) fn flush(&mut self) -> Result<(), TransferError> {
        if let Some(batch) = &mut self.batch {
            batch.write(&self.out.take_record())?;
        }
        if !self.out.is_empty() {
            self.written += self.out.bytes().len() as u64;
            self.out.hand_over(|bytes| self.link.give(bytes)).map_err(TransferError::from_io)?;
        }
        self.link.flush().map_err(TransferError::from_io)
    }

    /// Writes what waits where that is more than so many bytes.
    pub(super) fn flush_beyond(&mut self, most: usize) -> Result<(), TransferError> {
        if self.out.len() > most { self.flush() } else { Ok(()) }
    }

    /// Sends the names of `--files-from`, a piece at a time and after all that waits. Protocols before 31 want them outside
    /// of all framing.
    pub(super) fn send_names(
        &mut self,
        agreed: &Negotiated,
        names: impl Iterator<Item = Result<Vec<u8>, TransferError>>,
    ) -> Result<(), TransferError> {
        self.flush()?;
        for piece in names {
            let piece = piece?;
            if agreed.version >= 31 {
                self.out.put(&piece);
                self.flush()?;
                continue;
            }
            self.written += piece.len() as u64;
            self.link.write_all(&piece).and_then(|()| self.link.flush()).map_err(TransferError::from_io)?;
        }
        Ok(())
    }
}
