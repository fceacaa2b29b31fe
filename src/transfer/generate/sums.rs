//! The sums of a basis' blocks, on their way to the sender. Counterpart: rsync's `generate_and_send_sums`.

use super::{LARGE, OUT_MOST, Work};
use crate::transfer::TransferError;
use crate::transfer::dest::{Stamp, Whole};
use crate::transfer::stager::Bringing;
use protocol::checksum::{BlockRule, FileHasher, weak};
use protocol::flist::Ndx;
use protocol::sums::{BlockIndex, SumHead};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Bytes read at once.
const READ_SIZE: u32 = 256 * 1024;
/// Blocks that are read together at least: some sums are made fastest of so many at once.
const BLOCKS_AT_ONCE: u32 = 16;
/// Bytes of a basis whose sums may wait in the outbox: they are few, but the sender can begin with them.
const SPAN_MOST: u64 = 4 << 20;

/// Where the sum of the whole basis goes, if it is still the file it was.
pub(super) type WholePlace = (Stamp, Arc<OnceLock<Whole>>);

impl Work<'_> {
    /// Sends the sums of all blocks. Where the basis cannot be read they are of zeros, which match nothing that matters.
    pub(super) fn sums(&mut self, ndx: Ndx, basis: SummedBasis, head: &SumHead) -> Result<(), TransferError> {
        let SummedBasis { mut file, whole, mut bringing } = basis;
        let whole = whole.map(|(stamp, whole)| (stamp, whole, FileHasher::new(self.agreed.checksum)));
        let mut basis = OpenBasis { file: &mut file, head: *head, block: 0, whole };
        let (mut span, mut took) = (0, Duration::ZERO);
        let mut buffer = std::mem::take(&mut self.buffer);
        let is_large = head.basis_len() >= LARGE;
        self.board.lock().summing = is_large.then_some(ndx);
        loop {
            if let Some(begun) = &bringing {
                let (bytes, coming) = basis.next();
                // Before the last sums are out nobody writes any more: the answer may be here at once.
                if !self.await_staged(begun, bytes)? || !coming {
                    bringing = None;
                }
            }
            let began = self.board.now();
            if !basis.read(&mut buffer) {
                break;
            }
            self.sums_of(&buffer, head);
            took += self.board.now().saturating_duration_since(began);
            // Now and then what waits is said.
            span += buffer.len() as u64;
            if self.writer.out.len() > OUT_MOST || span > SPAN_MOST {
                self.writer.flush()?;
                span = 0;
            }
        }
        self.buffer = buffer;
        if is_large {
            // The sender waits for the last ones.
            self.writer.flush()?;
            let mut state = self.board.lock();
            state.summing = None;
            state.delta_choice.summed(head.basis_len(), took);
        }
        Ok(())
    }

    /// Sends the sums of some blocks.
    fn sums_of(&mut self, bytes: &[u8], head: &SumHead) {
        let rule = BlockRule::from(self.agreed.block_seed());
        let (speaker, out) = (&mut self.speaker, &mut self.writer.out);
        let summed = rule.strong_each(bytes, head.block_length as usize, |block, strong| {
            speaker.sum(head, weak(block), strong, out);
            Ok::<(), Infallible>(())
        });
        let Ok(()) = summed;
    }
}

/// A basis whose blocks are summed.
pub(super) struct SummedBasis {
    pub(super) file: File,
    /// Where the sum of it all is left, if the file stays what it was.
    pub(super) whole: Option<WholePlace>,
    /// It is still being brought: each part of it is waited for.
    pub(super) bringing: Option<Bringing>,
}

/// A basis that is read some blocks at a time.
struct OpenBasis<'f> {
    file: &'f mut File,
    head: SumHead,
    /// The next one to be read.
    block: u32,
    whole: Option<(Stamp, Arc<OnceLock<Whole>>, FileHasher)>,
}

impl OpenBasis<'_> {
    /// The block behind those that are read next.
    fn end_of_next(&self) -> u32 {
        let together = (READ_SIZE / self.head.block_length.max(1)).max(BLOCKS_AT_ONCE);
        self.head.count.min(self.block.saturating_add(together))
    }

    /// Where what is read next ends, bytes, and whether something comes behind it.
    fn next(&self) -> (u64, bool) {
        let end = self.end_of_next();
        let bytes = u64::from(end).saturating_mul(u64::from(self.head.block_length));
        (bytes.min(self.head.basis_len()), end < self.head.count)
    }

    /// Reads the next blocks; false when there are no more.
    fn read(&mut self, buffer: &mut Vec<u8>) -> bool {
        if self.block >= self.head.count {
            return false;
        }
        let last = self.end_of_next();
        let len: u64 = (self.block..last).map(|block| u64::from(self.head.block_len(BlockIndex(block)))).sum();
        buffer.resize(len as usize, 0);
        self.block = last;
        if !read_up_to(self.file, buffer) {
            self.whole = None;
        }
        if let Some((_, _, hasher)) = &mut self.whole {
            hasher.update(buffer);
        }
        // Before the last sums are out: the answer may be here at once.
        if self.block == self.head.count
            && let Some((stamp, whole, hasher)) = self.whole.take()
            && Stamp::of(self.file).is_ok_and(|now| now == stamp)
        {
            let _ = whole.set(Whole { sum: hasher.finish(), stamp });
        }
        true
    }
}

/// Whether the file had so many bytes; zeros stand for those that are missing.
fn read_up_to(file: &mut File, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(n) if n > 0 => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                buffer[filled..].fill(0);
                return false;
            }
        }
    }
    true
}
