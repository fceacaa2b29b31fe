//! A large file that others bring before it is asked for.

use super::Work;
use crate::transfer::TransferError;
use crate::transfer::dest::Dest;
use crate::transfer::stager::{Bringing, StagedFile};
use protocol::checksum::Checksum;
use protocol::flist::FileEntry;
use protocol::handshake::Compat;
use std::time::{Duration, Instant};

/// How often it is looked whether the session still stands meanwhile.
const LOOK: Duration = Duration::from_millis(100);

impl Work<'_> {
    /// Has a file that is not here at all brought by others, if there are any for it, who have begun when this returns. It is
    /// built upon then, and only what differs comes by the session; `None` where all of it is to come so.
    pub(super) fn stage(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
    ) -> Result<Option<(StagedFile, Bringing)>, TransferError> {
        let provable = self.agreed.compat.has(Compat::INPLACE_PARTIAL_DIR) && self.agreed.checksum != Checksum::None;
        let usable = provable && !self.options.dry_run;
        let Some(stager) = self.stager.take_if(|stager| usable && stager.brings(entry)) else { return Ok(None) };
        // Whatever is wrong here the usual way meets, too, and tells.
        let Ok(output) = dest.create_staged(name, entry.len) else { return Ok(None) };
        let Ok(file) = output.file().try_clone() else { return Ok(None) };
        stager.begin(entry.len, file);
        let bringing = Bringing(stager);
        // What is missing in the end is of zeros, and comes by the session.
        let begun = self.await_staged(&bringing, 1)? && output.file().set_len(entry.len).is_ok();
        Ok(begun.then(|| (StagedFile::new(output), bringing)))
    }

    /// Waits until so many bytes of a file are there; false where they will not be.
    pub(super) fn await_staged(&mut self, bringing: &Bringing, bytes: u64) -> Result<bool, TransferError> {
        if let Some(there) = bringing.0.reaches(bytes, Duration::ZERO) {
            return Ok(there);
        }
        let mut said = Instant::now();
        loop {
            self.pass_notes()?;
            self.writer.flush()?;
            if let Some(there) = bringing.0.reaches(bytes, LOOK) {
                return Ok(there);
            }
            if self.keep_alive_every().is_some_and(|every| said.elapsed() >= every) {
                self.keep_alive();
                said = Instant::now();
            }
            if self.board.lock().over {
                return Ok(false);
            }
        }
    }
}
