//! Batch files: a session is recorded as it passes, and played back later. Counterpart: rsync's `batch.c`.

mod play;

use super::TransferError;
use crate::disk::beneath::open_operand_file;
use crate::disk::reason;
pub(crate) use play::{Playback, PlaybackError, play};
use protocol::mux::Inbox;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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

/// What the user hears of an update that does not meet what is here.
pub(super) fn skipped(name: &[u8]) -> Vec<u8> {
    [b"(Skipping batched update for \"", name, b"\")\n"].concat()
}

/// The same of a file that is wanted and not in the batch.
pub(super) fn missing(name: &[u8]) -> Vec<u8> {
    [b"(No batched update for \"", name, b"\")\n"].concat()
}
