//! A large file that others bring before it is asked for.

use super::Work;
use crate::transfer::TransferError;
use crate::transfer::dest::Dest;
use crate::transfer::stager::{StagedFile, Stager};
use protocol::checksum::Checksum;
use protocol::flist::FileEntry;
use protocol::handshake::Compat;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether the session still stands meanwhile.
const LOOK: Duration = Duration::from_millis(100);

impl Work<'_> {
    /// Has a file that is not here at all brought by others, if there are any for it, and waits for that. It is built upon then,
    /// and only what differs comes by the session; `None` where all of it is to come so.
    pub(super) fn stage(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
    ) -> Result<Option<StagedFile>, TransferError> {
        let provable = self.agreed.compat.has(Compat::INPLACE_PARTIAL_DIR) && self.agreed.checksum != Checksum::None;
        let usable = provable && !self.options.dry_run;
        let Some(stager) = self.stager.take_if(|stager| usable && stager.brings(entry)) else { return Ok(None) };
        // Whatever is wrong here the usual way meets, too, and tells.
        let Ok(output) = dest.create_staged(name, entry.len) else { return Ok(None) };
        let Ok(file) = output.file().try_clone() else { return Ok(None) };
        stager.begin(entry.len, file);
        let waited = self.await_staged(&stager);
        stager.end();
        Ok(waited?.then(|| StagedFile::new(output)))
    }

    fn await_staged(&mut self, stager: &Arc<dyn Stager>) -> Result<bool, TransferError> {
        let mut said = Instant::now();
        loop {
            self.pass_notes()?;
            self.writer.flush()?;
            if let Some(whole) = stager.wait(LOOK) {
                return Ok(whole);
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
