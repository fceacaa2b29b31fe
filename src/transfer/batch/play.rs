//! A batch file that takes the place of a far end.

use super::{BatchFile, open_error};
use crate::disk::beneath::open_operand_file;
use crate::exit;
use crate::link::{Closer, Ending, Remote};
use crate::transfer::TransferError;
use crate::transfer::conversation::{Conversation, LinkReader, LinkWriter};
use protocol::args::Options;
use protocol::batch::{BatchHead, BatchMismatch};
use protocol::mux::{Inbox, Outbox};
use protocol::wire::Decode;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What plays a batch file back.
pub(crate) struct Playback {
    pub session: Conversation,
    /// What had to be changed of the options, for the user.
    pub changed: Vec<String>,
    /// Ends it from any thread.
    pub closer: Closer,
}

/// Why a batch file cannot be played back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaybackError {
    /// It cannot be read, or is none.
    #[error("{0}")]
    File(#[from] TransferError),
    /// It was made with options that these cannot follow.
    #[error("{0}")]
    Options(#[from] BatchMismatch),
}

impl PlaybackError {
    /// The exit code that rsync gives for it.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::File(error) => error.exit_code(),
            Self::Options(_) => exit::SYNTAX,
        }
    }
}

/// Opens a batch file (`-` for standard input) as a session with a sender that never listens, and makes the options follow it.
///
/// # Errors
/// When it cannot be opened, is none, or is of a version beyond `newest`.
pub(crate) fn play(path: &Path, options: &mut Options, newest: u8) -> Result<Playback, PlaybackError> {
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
    let mut source = LinkReader::new(Box::new(Stoppable { source, closed }), remote, None);
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
        server: false,
        inbox,
        reader: source,
        writer: LinkWriter::new(Box::new(io::sink()), Outbox::new()),
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
