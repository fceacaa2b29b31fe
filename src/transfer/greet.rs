//! The handshake over a link, and the session that comes of it.

use super::TransferError;
use super::abort::{HANG_UP, within};
use super::batch::{BatchFile, Tap};
use crate::link::{Closer, Link, Remote, Sink};
use crate::throttle::Rate;
use protocol::PeerError;
use protocol::args::Options;
use protocol::charset::Charset;
use protocol::handshake::{Handshake, Hello, Negotiated, Side};
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

/// Shakes hands. Errors name what the far end's program said, where it never came to speak the protocol.
pub fn greet(link: Link, hello: Hello) -> Result<Conversation, TransferError> {
    greet_with(link, hello, &Options::default())
}

/// The same for a client that wants these options, which not every version has.
pub fn greet_with(link: Link, hello: Hello, options: &Options) -> Result<Conversation, TransferError> {
    let mut out = Outbox::new();
    let serves = matches!(hello.side, Side::Server { .. });
    let handshake = Handshake::new(hello, &mut out);
    shake(link, handshake, out, options, serves)
}

/// Shakes hands where a daemon's greeting has agreed on `hello.version` already.
pub fn greet_agreed(link: Link, hello: Hello) -> Result<Conversation, TransferError> {
    let mut out = Outbox::new();
    let serves = matches!(hello.side, Side::Server { .. });
    let handshake = Handshake::agreed(hello, &mut out);
    shake(link, handshake, out, &Options::default(), serves)
}

fn shake(
    link: Link,
    mut handshake: Handshake,
    mut out: Outbox,
    options: &Options,
    serves: bool,
) -> Result<Conversation, TransferError> {
    let Link { reader, writer, closer, remote } = link;
    let mut reader = LinkReader::new(reader, remote);
    let mut writer = LinkWriter::new(writer);
    if let Some(agreed) = handshake.poll(&mut out)? {
        writer.flush(&mut out)?;
        return Ok(session(agreed, handshake, out, reader, writer, closer));
    }
    let agreed = loop {
        let heard = match writer.flush(&mut out) {
            Ok(()) => reader.read()?,
            // A far end that is gone already is explained by what it said, not by our failure to speak to it; a client that
            // does not listen may still hold its own end open, and says nothing.
            Err(TransferError::Link(_)) if !serves => within(HANG_UP, &closer, || reader.read())?,
            Err(error) => return Err(error),
        };
        handshake.feed(heard)?;
        match handshake.poll(&mut out) {
            Ok(Some(agreed)) => {
                writer.flush(&mut out)?;
                break agreed;
            }
            // An old peer that cannot do what is asked for says no more.
            Ok(None) => handshake.version().map_or(Ok(()), |version| options.check_version(version))?,
            Err(PeerError::Version(_)) if heard.iter().all(|byte| byte.is_ascii()) => {
                let words = String::from_utf8_lossy(heard).trim().escape_debug().to_string();
                return Err(TransferError::Garbled(format!(
                    "The far end printed {words:?} instead of speaking the rsync protocol. Is its shell start-up file silent?"
                )));
            }
            Err(error) => return Err(error.into()),
        }
    };
    Ok(session(agreed, handshake, out, reader, writer, closer))
}

fn session(
    agreed: Negotiated,
    handshake: Handshake,
    out: Outbox,
    reader: LinkReader,
    writer: LinkWriter,
    closer: Closer,
) -> Conversation {
    Conversation { agreed, inbox: handshake.into_inbox(), out, reader, writer, closer, batch: None, replay: false }
}
