//! The search: bytes against a table of block sums, giving tokens.
//! Sees the source once, front to back, in whatever pieces it comes, and remembers a window of it. Counterpart: rsync's
//! `match.c`.

use crate::checksum::{BlockSeed, Checksum, Rolling, Sum};
use crate::sums::{BlockIndex, SumTable};

/// The longest literal in one token, bytes; as stock sends them.
const MAX_LITERAL: usize = 32 * 1024;
/// Source bytes taken in between two clean-ups of the window.
const INTAKE: usize = 256 * 1024;
/// Work in vain allowed for each byte of the source, and for the source as a whole, in bytes hashed.
///
/// Where a block's weak sum fits, its strong sum must be made, and a peer can arrange that it fits everywhere. Honest
/// tables stay far below: with random data the ratio is the length of the basis over 2^32.
const VAIN_PER_BYTE: u64 = 64;
const VAIN_ALLOWED: u64 = 64 << 20;
/// What a strong sum and its look-up cost besides the block's own bytes, in bytes hashed.
const VAIN_LEAST: u64 = 256;

/// A piece of the source: new bytes, or a block that the other side has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// Bytes that come over the wire, at most 32768.
    Literal(&'a [u8]),
    /// A block of the basis, and the bytes of the source that are equal to it.
    Copy(BlockIndex, &'a [u8]),
}

/// Finds the blocks of a basis in a source that is pushed through it.
///
/// Except for an empty table, whose literals are slices of what is pushed, the tokens do not depend on how the source
/// is cut into pushes. Memory is a window of one block length and 288 KiB, at most doubled by growing, besides an index
/// of about 16 bytes a block.
pub struct Search<'t> {
    table: &'t SumTable,
    seed: BlockSeed,
    in_place: bool,
    block_length: usize,
    index: Index,
    window: Vec<u8>,
    window_offset: u64,
    literal: usize, // where the unsent literal begins in the window
    at: usize,      // what lies before is settled; the block sought begins here
    rolling: Option<Rolling>,
    wanted: u32, // the block after the last one found
    vain_bytes: u64,
}

impl<'t> Search<'t> {
    /// A search for the blocks that `table` holds, whose strong sums were made as `seed` says.
    pub fn new(table: &'t SumTable, seed: BlockSeed) -> Self {
        Search {
            table,
            seed,
            in_place: false,
            block_length: table.head().block_length as usize,
            index: Index::new(table),
            window: Vec::new(),
            window_offset: 0,
            literal: 0,
            at: 0,
            rolling: None,
            wanted: 0,
            vain_bytes: 0,
        }
    }

    /// Uses only blocks that a receiver writing over its own basis still has: none that begins before the output.
    pub fn in_place(self) -> Self {
        Search { in_place: true, ..self }
    }

    /// Takes the source's next bytes and emits what they settle. An error comes from `emit`, and ends the search.
    pub fn push<E>(&mut self, bytes: &[u8], mut emit: impl FnMut(Token<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.is_hopeless() {
            return bytes.chunks(MAX_LITERAL).try_for_each(|piece| emit(Token::Literal(piece)));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            // What the scan leaves is less than a literal and a block, so each clean-up makes room for an intake.
            let capacity = MAX_LITERAL + self.block_length + INTAKE;
            if self.window.len() == capacity {
                self.forget();
            }
            let (taken, later) = rest.split_at(rest.len().min(capacity - self.window.len()));
            self.window.extend_from_slice(taken);
            rest = later;
            self.scan(&mut emit)?;
        }
        Ok(())
    }

    /// Ends the source and emits the rest. An error comes from `emit`.
    pub fn finish<E>(mut self, mut emit: impl FnMut(Token<'_>) -> Result<(), E>) -> Result<(), E> {
        if let Some((block, start)) = self.find_short_block() {
            self.emit_literal(start, &mut emit)?;
            return emit(Token::Copy(block, &self.window[start..]));
        }
        self.emit_literal(self.window.len(), &mut emit)
    }

    /// No block can be found, so nothing need be remembered.
    fn is_hopeless(&self) -> bool {
        self.table.is_empty() || self.block_length == 0 || self.seed.checksum == Checksum::None
    }

    /// Drops the part of the window that was emitted.
    fn forget(&mut self) {
        self.window.drain(..self.literal);
        self.window_offset += self.literal as u64;
        self.at -= self.literal;
        self.literal = 0;
    }

    /// Goes through the window as far as whole blocks reach (rsync: `hash_search`).
    fn scan<E>(&mut self, emit: &mut impl FnMut(Token<'_>) -> Result<(), E>) -> Result<(), E> {
        loop {
            let Some(mut rolling) = self.rolling.take() else {
                // Nothing is known of this offset: the beginning, or just after a block.
                let Some(block) = self.window[self.at..].get(..self.block_length) else { return Ok(()) };
                let rolling = Rolling::new(block);
                match self.find(rolling.value()) {
                    Some(found) => self.emit_block(found, emit)?,
                    None => self.rolling = Some(rolling),
                }
                continue;
            };
            let ahead = self.window.len() - self.block_length - self.at;
            let steps = ahead.min(MAX_LITERAL - (self.at - self.literal));
            let leaving = &self.window[self.at..self.at + steps];
            let entering = &self.window[self.at + self.block_length..][..steps];
            let hit = self.index.roll_to_hit(&mut rolling, leaving, entering);
            self.at += hit.unwrap_or(steps);
            match hit.and_then(|_| self.find(rolling.value())) {
                Some(found) => self.emit_block(found, emit)?,
                None => {
                    self.rolling = Some(rolling);
                    if self.at - self.literal == MAX_LITERAL {
                        self.emit_literal(self.at, emit)?;
                    } else if hit.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// A block equal to the one that begins at the present offset and has this weak sum.
    ///
    /// Tries the expected block first, which settles a similar file without a look into the index and gives long runs.
    fn find(&mut self, weak: u32) -> Option<BlockIndex> {
        let offset = self.window_offset + self.at as u64;
        if self.vain_bytes > VAIN_ALLOWED.saturating_add(offset.saturating_mul(VAIN_PER_BYTE)) {
            return None;
        }
        let first = self.first_usable(offset);
        let expected = self.expected(offset, first, weak);
        let alike = self.index.alike(weak);
        if expected.is_none() && alike.is_empty() {
            return None;
        }
        let sum = self.seed.sum(&self.window[self.at..self.at + self.block_length]);
        let strong = self.known_part(&sum);
        let found = expected
            .filter(|&block| self.table.strong(block) == strong)
            .or_else(|| self.index.find(alike, self.table, strong, first));
        if found.is_none() {
            self.vain_bytes += self.block_length as u64 + VAIN_LEAST;
        }
        found
    }

    /// The block to try before all others, if it may be used and has this weak sum.
    fn expected(&self, offset: u64, first: u32, weak: u32) -> Option<BlockIndex> {
        let fits =
            |&block: &BlockIndex| block.0 >= first && block.0 < self.index.blocks && self.table.weak(block) == weak;
        // Writing in place, the block already at this very offset saves the receiver the writing.
        let same = BlockIndex(first);
        let stays = self.in_place && self.table.head().offset(same) == offset;
        Some(same).filter(|_| stays).filter(fits).or_else(|| Some(BlockIndex(self.wanted)).filter(fits))
    }

    /// The first block that may be used at an output offset; those behind it may be, too.
    fn first_usable(&self, offset: u64) -> u32 {
        if !self.in_place {
            return 0;
        }
        u32::try_from(offset.div_ceil(self.block_length as u64)).unwrap_or(u32::MAX)
    }

    /// As much of a strong sum as the table has of each block's.
    fn known_part<'s>(&self, sum: &'s Sum) -> &'s [u8] {
        let bytes = sum.as_bytes();
        &bytes[..bytes.len().min(self.table.kept_length())]
    }

    /// At the source's end: the short last block, and where in the window it begins.
    fn find_short_block(&self) -> Option<(BlockIndex, usize)> {
        if self.is_hopeless() {
            return None;
        }
        let head = self.table.head();
        let last = BlockIndex(head.count.checked_sub(1)?);
        let len = head.block_len(last) as usize;
        if self.table.kept() < head.count || len == self.block_length {
            return None;
        }
        let start = self.window.len().checked_sub(len).filter(|&start| start >= self.at)?;
        let tail = &self.window[start..];
        let offset = self.window_offset + start as u64;
        let equal = last.0 >= self.first_usable(offset)
            && self.table.weak(last) == Rolling::new(tail).value()
            && self.table.strong(last) == self.known_part(&self.seed.sum(tail));
        equal.then_some((last, start))
    }

    /// Emits a block found at the present offset, after the literal before it.
    fn emit_block<E>(&mut self, block: BlockIndex, emit: &mut impl FnMut(Token<'_>) -> Result<(), E>) -> Result<(), E> {
        self.emit_literal(self.at, emit)?;
        let start = self.at;
        self.at += self.block_length;
        self.literal = self.at;
        self.wanted = block.0 + 1;
        emit(Token::Copy(block, &self.window[start..self.at]))
    }

    /// Emits the unsent literal up to `end`.
    fn emit_literal<E>(&mut self, end: usize, emit: &mut impl FnMut(Token<'_>) -> Result<(), E>) -> Result<(), E> {
        let literal = &self.window[self.literal..end];
        self.literal = end;
        literal.chunks(MAX_LITERAL).try_for_each(|piece| emit(Token::Literal(piece)))
    }
}

/// The whole blocks of a table by their sums.
///
/// Sorted by weak sum, then strong, then number, so that a look-up is a search by halves however many weak sums are
/// equal: no list of candidates to walk, and so none to cut off. A bit filter before it settles most offsets with one
/// load.
struct Index {
    blocks: u32,
    entries: Vec<Entry>,
    starts: Vec<u32>, // where in `entries` each value of a key's upper bits begins; one more marks the end
    starts_shift: u32,
    filter: Vec<u64>, // a power of two of words; two bits set for each weak sum
}

#[derive(Clone, Copy)]
struct Entry {
    key: u32,
    block: u32,
}

/// Spreads weak sums, which crowd in their lower half, over all 32 bits. Odd, so that equal keys mean equal sums.
#[inline(always)]
fn key_of(weak: u32) -> u32 {
    weak.wrapping_mul(0x9e37_79b1)
}

/// A weak sum's word in the filter, before it is cut to the filter's size, and its two bits there.
#[inline(always)]
fn filter_place(weak: u32) -> (usize, u32, u32) {
    let wide = u64::from(weak).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((wide >> 32) as usize, (wide >> 58) as u32, (wide >> 52) as u32 & 63)
}

impl Index {
    fn new(table: &SumTable) -> Index {
        let head = table.head();
        let whole = |&block: &u32| head.block_len(BlockIndex(block)) == head.block_length;
        let mut entries: Vec<Entry> = (0..table.kept())
            .filter(whole)
            .map(|block| Entry { key: key_of(table.weak(BlockIndex(block))), block })
            .collect();
        entries.sort_unstable_by(|a, b| {
            let strong = |entry: &Entry| table.strong(BlockIndex(entry.block));
            a.key.cmp(&b.key).then_with(|| strong(a).cmp(strong(b))).then(a.block.cmp(&b.block))
        });
        // About one entry for each start, and 16 to 32 filter bits for each entry up to some million.
        let bits = (entries.len() as u32).max(256).ilog2().min(26);
        let starts_shift = 32 - bits;
        let mut starts = vec![0u32; (1 << bits) + 1];
        let mut filter = vec![0u64; 1 << (bits - 1).min(20)];
        let last = filter.len() - 1;
        for entry in &entries {
            starts[(entry.key >> starts_shift) as usize + 1] += 1;
            let (place, one, other) = filter_place(table.weak(BlockIndex(entry.block)));
            filter[place & last] |= 1 << one | 1 << other;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        Index { blocks: entries.len() as u32, entries, starts, starts_shift, filter }
    }

    /// Rolls on, byte by byte, until a weak sum may be in the index: the steps made, or `None` for all in vain.
    #[inline(never)] // on its own, the loop's values all stay in registers
    fn roll_to_hit(&self, rolling: &mut Rolling, leaving: &[u8], entering: &[u8]) -> Option<usize> {
        let filter = &self.filter[..];
        let last = filter.len() - 1;
        let mut sum = *rolling;
        // Indices: where overflow checks are on, an iterator over pairs goes through memory.
        let mut step = 0;
        while step < leaving.len() && step < entering.len() {
            sum.roll(leaving[step], entering[step]);
            step += 1;
            let (place, one, other) = filter_place(sum.value());
            let word = filter[place & last];
            if word.wrapping_shr(one) & word.wrapping_shr(other) & 1 != 0 {
                *rolling = sum;
                return Some(step);
            }
        }
        *rolling = sum;
        None
    }

    /// The entries of one weak sum.
    fn alike(&self, weak: u32) -> &[Entry] {
        let key = key_of(weak);
        let slot = (key >> self.starts_shift) as usize;
        let near = &self.entries[self.starts[slot] as usize..self.starts[slot + 1] as usize];
        let from = &near[near.partition_point(|entry| entry.key < key)..];
        &from[..from.partition_point(|entry| entry.key == key)]
    }

    /// Among entries of one weak sum: the first block of that strong sum, from block `first` on.
    fn find(&self, alike: &[Entry], table: &SumTable, strong: &[u8], first: u32) -> Option<BlockIndex> {
        let before = |entry: &Entry| (table.strong(BlockIndex(entry.block)), entry.block) < (strong, first);
        let block = BlockIndex(alike.get(alike.partition_point(before))?.block);
        (table.strong(block) == strong).then_some(block)
    }
}

#[cfg(test)]
mod tests;
