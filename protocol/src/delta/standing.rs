//! Blocks of a basis that is written over which stay where they are.

use crate::sums::BlockIndex;
use std::ops::Range;

/// A bit for each block.
#[derive(Debug, Default)]
pub(super) struct Standing(Vec<u64>);

impl Standing {
    /// None yet, of so many blocks.
    pub(super) fn new(blocks: u32) -> Self {
        Self(vec![0; blocks as usize / 64 + 1])
    }

    pub(super) fn add(&mut self, blocks: Range<u32>) {
        self.each(blocks, |word, bit| *word |= bit);
    }

    pub(super) fn remove(&mut self, blocks: Range<u32>) {
        self.each(blocks, |word, bit| *word &= !bit);
    }

    fn each(&mut self, blocks: Range<u32>, change: impl Fn(&mut u64, u64)) {
        for block in blocks {
            if let Some(word) = self.0.get_mut(block as usize / 64) {
                change(word, 1 << (block % 64));
            }
        }
    }

    pub(super) fn has(&self, block: BlockIndex) -> bool {
        self.0.get(block.0 as usize / 64).is_some_and(|word| word >> (block.0 % 64) & 1 == 1)
    }
}
