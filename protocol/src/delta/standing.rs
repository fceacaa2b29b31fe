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

    pub(super) fn set(&mut self, blocks: Range<u32>, stand: bool) {
        for block in blocks {
            if let Some(word) = self.0.get_mut(block as usize / 64) {
                let bit = 1 << (block % 64);
                *word = if stand { *word | bit } else { *word & !bit };
            }
        }
    }

    pub(super) fn has(&self, block: BlockIndex) -> bool {
        self.0.get(block.0 as usize / 64).is_some_and(|word| word >> (block.0 % 64) & 1 == 1)
    }
}
