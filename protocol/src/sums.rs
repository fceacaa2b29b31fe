//! Sum heads and tables of block sums: what one side knows about the other's old copy of a file.
//! Holds numbers and sums only; the search over them is [`crate::delta`]. Counterpart: rsync's `sum_struct`.

use crate::PeerError;
use crate::checksum::Sum;

/// The longest block from protocol 30 on, bytes.
pub(crate) const MAX_BLOCK_LENGTH: u32 = 131_072;
/// Block length of small files, bytes.
const DEFAULT_BLOCK_LENGTH: u32 = 700;
/// The most of a strong sum that stock ever asks for, bytes.
const MAX_STRONG_LENGTH: usize = 16;

/// Number of a block in the basis, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u32);

/// How a basis is cut into blocks, and how much of each strong sum is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SumHead {
    /// Number of blocks.
    pub count: u32,
    /// Length of a block, bytes.
    pub block_length: u32,
    /// Bytes sent of each strong sum.
    pub strong_length: u32,
    /// Length of the last block if it is shorter than the others, else 0, bytes.
    pub remainder: u32,
}

/// How much of each strong sum goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrongSums {
    /// As little as a basis of its size needs.
    Short,
    /// All of it, as at the second attempt at a file.
    Whole,
}

impl SumHead {
    /// Bytes of it on the wire.
    pub const SIZE: u64 = 16;

    /// Bytes of it and its block sums on the wire.
    pub fn wire_len(&self) -> u64 {
        Self::SIZE + u64::from(self.count) * (4 + u64::from(self.strong_length))
    }

    /// No basis: send the whole file.
    pub const NONE: SumHead = SumHead { count: 0, block_length: 0, strong_length: 0, remainder: 0 };

    /// The cut stock chooses for a basis of `len` bytes (rsync: `sum_sizes_sqroot`).
    ///
    /// `digest_size` is in bytes. `block_length` is the user's choice in bytes, held to what the protocol allows. A basis of
    /// too many blocks gives [`SumHead::NONE`].
    pub fn for_basis(len: u64, digest_size: usize, strong: StrongSums, block_length: Option<u32>) -> SumHead {
        if len == 0 {
            return SumHead::NONE;
        }
        let block_length = match block_length {
            Some(chosen) => chosen.clamp(1, MAX_BLOCK_LENGTH),
            None => natural_block_length(len),
        };
        let longest = digest_size.min(MAX_STRONG_LENGTH) as u32;
        let strong_length = match strong {
            StrongSums::Short => short_strong_length(len, block_length).min(longest),
            StrongSums::Whole => longest,
        };
        let remainder = (len % u64::from(block_length)) as u32;
        match i32::try_from(len.div_ceil(u64::from(block_length))) {
            Ok(count) => SumHead { count: count as u32, block_length, strong_length, remainder },
            Err(_) => SumHead::NONE,
        }
    }

    /// The four numbers as the wire carries them (rsync: `write_sum_head`).
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let fields = [self.count, self.block_length, self.strong_length, self.remainder];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Reads a peer's head and refuses one outside the protocol's limits (rsync: `read_sum_head`).
    ///
    /// `digest_size` is the agreed checksum's, in bytes. Releases up to 3.4.3 announce 16 bytes at the second attempt
    /// even for shorter digests, so that much is allowed; a [`SumTable`] keeps the digest's own bytes only.
    pub fn decode(bytes: &[u8; 16], digest_size: usize) -> Result<SumHead, PeerError> {
        Self::decode_up_to(bytes, digest_size, MAX_BLOCK_LENGTH)
    }

    /// The same where blocks may be as long as `block_most`: before protocol 30.
    pub(crate) fn decode_up_to(bytes: &[u8; 16], digest_size: usize, block_most: u32) -> Result<SumHead, PeerError> {
        let field = |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let within = |what, at: usize, least: u32, most: u32, expected| {
            let value = field(at);
            u32::try_from(value).ok().filter(|n| (least..=most).contains(n)).ok_or(PeerError::Range {
                what,
                value: value.into(),
                expected,
            })
        };
        let count = within("block count", 0, 0, i32::MAX as u32, "0 to 2147483647")?;
        let least = u32::from(count > 0);
        let block_length = within(
            "block length",
            4,
            least,
            block_most,
            "1 to 131072 (before protocol 30 to 2^29), or 0 without blocks",
        )?;
        let longest = digest_size.max(MAX_STRONG_LENGTH) as u32;
        let strong_length = within("strong sum length", 8, 0, longest, "0 to the digest's length")?;
        let remainder = within("remainder", 12, 0, block_length, "0 to the block length")?;
        Ok(SumHead { count, block_length, strong_length, remainder })
    }

    /// Length of a block, bytes; 0 beyond the last block.
    pub fn block_len(&self, block: BlockIndex) -> u32 {
        if block.0 >= self.count {
            0
        } else if block.0 == self.count - 1 && self.remainder != 0 {
            self.remainder
        } else {
            self.block_length
        }
    }

    /// Where a block begins in the basis, bytes.
    pub fn offset(&self, block: BlockIndex) -> u64 {
        u64::from(block.0) * u64::from(self.block_length)
    }

    /// Length of the basis, bytes.
    pub fn basis_len(&self) -> u64 {
        let last = BlockIndex(self.count.saturating_sub(1));
        self.offset(last) + u64::from(self.block_len(last))
    }
}

/// Near the square root of the basis' length, a multiple of 8, so that table and literals weigh about the same.
fn natural_block_length(len: u64) -> u32 {
    let default = u64::from(DEFAULT_BLOCK_LENGTH);
    if len <= default * default {
        return DEFAULT_BLOCK_LENGTH;
    }
    let mut bit = 1u64 << (len.ilog2() / 2);
    if bit >= u64::from(MAX_BLOCK_LENGTH) {
        return MAX_BLOCK_LENGTH;
    }
    let mut root = 0u64;
    while bit >= 8 {
        if (root | bit) * (root | bit) <= len {
            root |= bit;
        }
        bit >>= 1;
    }
    (root as u32).max(DEFAULT_BLOCK_LENGTH)
}

/// Bytes of strong sum that make a false match unlikely in a basis of `len` bytes, on top of the weak sum's 32 bits.
fn short_strong_length(len: u64, block_length: u32) -> u32 {
    let bits = (10 + 2 * len.ilog2()).saturating_sub(block_length.ilog2());
    (bits.saturating_sub(24) / 8).max(2)
}

/// The sums of a basis' blocks, gathered as they arrive.
#[derive(Clone, Debug)]
pub struct SumTable {
    head: SumHead,
    kept_length: usize,
    keep: bool,
    arrived: u32,
    weak: Vec<u32>,
    strong: Vec<u8>,
}

impl SumTable {
    /// An empty table for the blocks that `head` announces.
    ///
    /// A table of more than `max_blocks` blocks is only counted, never kept, so memory stays of the order of
    /// `max_blocks` × (4 + `digest_size`) bytes: sending a whole file is always right.
    pub fn new(head: SumHead, digest_size: usize, max_blocks: u32) -> SumTable {
        let kept_length = digest_size.min(head.strong_length as usize);
        // A weak sum alone proves nothing. Blocks as long as old peers may have them would take a window as long.
        let keep = head.count <= max_blocks && kept_length > 0 && head.block_length <= MAX_BLOCK_LENGTH;
        SumTable { head, kept_length, keep, arrived: 0, weak: Vec::new(), strong: Vec::new() }
    }

    /// A table without any sums, of a basis that is only said to be there.
    pub(crate) fn without_sums(head: SumHead) -> SumTable {
        SumTable { arrived: head.count, ..SumTable::new(head, 0, 0) }
    }

    /// An empty table of blocks whose number nobody knows yet: each one that is [appended](SumTable::append) counts.
    ///
    /// `strong_length` bytes are known of each strong sum.
    pub fn open_ended(block_length: u32, strong_length: u32) -> SumTable {
        let head = SumHead { count: 0, block_length, strong_length, remainder: 0 };
        SumTable { keep: strong_length > 0, ..SumTable::new(head, strong_length as usize, u32::MAX) }
    }

    /// Adds one block more than were announced: its weak sum and `head().strong_length` bytes of its strong sum.
    pub fn append(&mut self, weak: u32, strong: &[u8]) {
        self.head.count += 1;
        self.push(weak, strong);
    }

    /// Adds the next block: its weak sum and `head().strong_length` bytes of its strong sum.
    ///
    /// Blocks beyond the announced count are ignored.
    pub fn push(&mut self, weak: u32, strong: &[u8]) {
        debug_assert_eq!(strong.len(), self.head.strong_length as usize, "strong sum of a wrong length");
        if self.remaining() == 0 {
            return;
        }
        self.arrived += 1;
        if self.keep {
            self.weak.push(weak);
            self.strong.extend_from_slice(&strong[..strong.len().min(self.kept_length)]);
            self.strong.resize(self.weak.len() * self.kept_length, 0);
        }
    }

    /// Blocks announced and not yet pushed.
    pub fn remaining(&self) -> u32 {
        self.head.count - self.arrived
    }

    /// The head this table belongs to.
    pub fn head(&self) -> SumHead {
        self.head
    }

    /// Weak sum of a block. Panics for a block that is not kept, see [`SumTable::kept`].
    pub fn weak(&self, block: BlockIndex) -> u32 {
        self.weak[block.0 as usize]
    }

    /// What is known of a block's strong sum, its first bytes. Panics for a block that is not kept.
    pub fn strong(&self, block: BlockIndex) -> &[u8] {
        let at = block.0 as usize * self.kept_length;
        &self.strong[at..at + self.kept_length]
    }

    /// As much of a strong sum as is known of each block's.
    pub(crate) fn known_part<'s>(&self, sum: &'s Sum) -> &'s [u8] {
        let bytes = sum.as_bytes();
        &bytes[..bytes.len().min(self.kept_length)]
    }

    /// Number of blocks of full length whose sums are here, from block 0 on.
    pub(crate) fn whole(&self) -> u32 {
        let kept = self.kept();
        // A last block that is shorter stands for no whole one.
        let is_short = |last: u32| self.head.block_len(BlockIndex(last)) != self.head.block_length;
        kept - u32::from(kept.checked_sub(1).is_some_and(is_short))
    }

    /// Number of blocks whose sums are here, from block 0 on.
    pub fn kept(&self) -> u32 {
        self.weak.len() as u32
    }

    /// There is nothing to match against.
    pub fn is_empty(&self) -> bool {
        self.weak.is_empty()
    }
}

#[cfg(test)]
mod tests;
