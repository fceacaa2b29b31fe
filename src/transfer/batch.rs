//! Batch files: a session is recorded as it passes, and played back later. Counterpart: rsync's `batch.c`.

use super::TransferError;
use super::beneath::{open_operand_file, reason};
use super::greet::{Conversation, LinkReader, LinkWriter};
use crate::link::{Closer, Ending, Remote};
use protocol::args::Options;
use protocol::batch::{BatchHead, BatchMismatch};
use protocol::mux::{Inbox, Outbox};
use protocol::wire::Decode;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A batch file that is being written.
pub struct BatchFile {
    file: File,
    path: PathBuf,
}

impl BatchFile {
    /// Makes the file that keeps the session, or empties it; for its owner alone.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn create(path: &Path) -> Result<Self, TransferError> {
        Ok(Self { file: create(path, Mode::RUSR | Mode::WUSR)?, path: path.to_owned() })
    }

    /// Makes a script beside a batch file.
    ///
    /// # Errors
    /// Where it cannot be opened or written.
    pub fn script(path: &Path, text: &[u8]) -> Result<(), TransferError> {
        let mut file = create(path, Mode::RWXU)?;
        file.write_all(text).map_err(|error| write_error(path, error))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        self.file.write_all(bytes).map_err(|error| write_error(&self.path, error))
    }
}

fn create(path: &Path, mode: Mode) -> Result<File, TransferError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOCTTY;
    open_operand_file(path, flags, mode).map(File::from).map_err(|error| open_error(path, &error))
}

fn open_error(path: &Path, error: &io::Error) -> TransferError {
    TransferError::Batch(format!("Batch file \"{}\" open error: {}", path.display(), reason(error)))
}

fn write_error(path: &Path, error: io::Error) -> TransferError {
    TransferError::Local { what: format!("Batch file \"{}\" write error", path.display()), source: error }
}

/// Takes the sender's stream out of its frames as it is heard, and keeps it.
pub(super) struct Tap {
    inbox: Inbox,
    file: BatchFile,
}

impl Tap {
    /// Begins with what has been heard and not been used.
    pub(super) fn new(inbox: &Inbox, file: BatchFile) -> Result<Self, TransferError> {
        let mut tap = Self { inbox: inbox.clone(), file };
        tap.inbox.start_mux()?;
        tap.hear(&[])?;
        Ok(tap)
    }

    pub(super) fn hear(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        // What cannot be taken apart the receiver finds, too.
        if self.inbox.feed(bytes).is_err() {
            return Ok(());
        }
        loop {
            let payload = self.inbox.payload();
            self.file.write(payload)?;
            let used = payload.len();
            self.inbox.consume(used);
            if self.inbox.message().is_none() {
                return Ok(());
            }
        }
    }
}

/// What plays a batch file back.
pub struct Playback {
    /// The session.
    pub session: Conversation,
    /// What had to be changed of the options, for the user.
    pub changed: Vec<String>,
    /// Ends it from any thread.
    pub closer: Closer,
}

/// Why a batch file cannot be played back.
#[derive(Debug, thiserror::Error)]
pub enum PlaybackError {
    /// It cannot be read, or is none.
    #[error("{0}")]
    File(#[from] TransferError),
    /// It was made with options that these cannot follow.
    #[error("{0}")]
    Options(#[from] BatchMismatch),
}

/// Opens a batch file (`-` for standard input) as a session with a sender that never listens, and makes the options follow it.
///
/// # Errors
/// When it cannot be opened, is none, or is of a version beyond `newest`.
pub fn play(path: &Path, options: &mut Options, newest: u8) -> Result<Playback, PlaybackError> {
    let source: Box<dyn Read + Send> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => {
            let flags = OFlags::RDONLY | OFlags::NOCTTY;
            let fd = open_operand_file(path, flags, Mode::empty()).map_err(|error| open_error(path, &error))?;
            Box::new(File::from(fd))
        }
    };
    let closed = Arc::new(AtomicBool::new(false));
    let told = closed.clone();
    let closer = Closer::new(move || told.store(true, Ordering::Release));
    let remote = Remote::new();
    // There is no far end whose own end could be waited for.
    remote.end(Ending::Exited(0));
    let mut source = LinkReader::new(Box::new(Stoppable { source, closed }), remote);
    let mut inbox = Inbox::bare();
    let head = loop {
        let mut reader = inbox.reader();
        match BatchHead::decode(&mut reader, newest) {
            Ok(head) => {
                let used = reader.position();
                inbox.consume(used);
                break head;
            }
            Err(Decode::Bad(error)) => return Err(TransferError::from(error).into()),
            Err(Decode::Incomplete) => {
                let heard = source.read()?.to_vec();
                inbox.feed(&heard).map_err(TransferError::from)?;
            }
        }
    };
    let changed = head.apply(options)?;
    let session = Conversation {
        agreed: head.negotiated(options),
        inbox,
        out: Outbox::new(),
        reader: source,
        writer: LinkWriter::new(Box::new(io::sink())),
        closer: closer.clone(),
        batch: None,
        replay: true,
    };
    Ok(Playback { session, changed, closer })
}

impl Conversation {
    /// Records the session from here on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record(&mut self, options: &Options, mut file: BatchFile) -> Result<(), TransferError> {
        file.write(&BatchHead::new(options, &self.agreed).encode())?;
        self.batch = Some(file);
        Ok(())
    }
}

/// A file that can be ended from another thread.
struct Stoppable {
    source: Box<dyn Read + Send>,
    closed: Arc<AtomicBool>,
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.closed.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "The batch file was closed"));
        }
        self.source.read(buffer)
    }
}

/// What the user hears of an update that does not meet what is here.
pub(super) fn skipped(name: &[u8]) -> Vec<u8> {
    [b"(Skipping batched update for \"", name, b"\")\n"].concat()
}

/// The same of a file that is wanted and not in the batch.
pub(super) fn missing(name: &[u8]) -> Vec<u8> {
    [b"(No batched update for \"", name, b"\")\n"].concat()
}
