//! The search: bytes against a table of block sums, giving tokens.
//! Sees the source once, front to back, in whatever pieces it comes, and remembers a block of it. Counterpart: rsync's
//! `match.c`.

mod index;
mod lead;
mod standing;

use crate::checksum::{BlockRule, Rolling};
use crate::sums::{BlockIndex, SumTable};
use index::Index;
pub use lead::Lead;
use standing::Standing;
use std::cell::OnceCell;
use std::ops::Range;

/// The longest literal in one token, bytes; as stock sends them.
const MAX_LITERAL: usize = 32 * 1024;
/// Weak sums made in one go before any is looked up: they stay in the first cache.
const ROLLED: usize = 2048;
/// Source bytes without any match, after which the search goes on in leaps: what matches nowhere shall cost little.
const LEAP_AFTER: u64 = 1 << 20;
/// Further bytes without a match, after each of which a leap is a block longer.
const LEAP_GROWS: u64 = 2 << 20;
/// The longest leap, in blocks. A run of two blocks more than a leap is never missed.
const LEAP_MOST: u64 = 31;
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
/// How the source is cut into pushes decides where literals are cut, and nothing else, as long as no stretch of 8 MiB
/// matches nowhere. Memory is at most three block lengths, besides an index of about 16 bytes a block: what is pushed
/// is read where it lies, and only its last block is remembered.
pub struct Search<'t> {
    table: &'t SumTable,
    rule: BlockRule,
    in_place: bool,
    settled: (u32, Vec<Range<u32>>), // blocks that went out before, at their offsets, and those of them as literals
    stands: Standing,                // blocks before the output that were found where they are
    block_length: usize,
    blocks: u32,            // whole ones
    index: OnceCell<Index>, // made where a block is not the expected one
    sums: Box<[u32; ROLLED]>,
    carry: Vec<u8>,           // the source's end as far as it is unsettled: at most a block
    offset: u64,              // of the carry in the source
    rolling: Option<Rolling>, // of the carry's first block length, where that was looked up in vain
    wanted: u32,              // the block after the last one found
    vain_bytes: u64,
    false_alarms: u64,
    missed: u64,    // bytes since the last match
    scanned: usize, // of them, those searched since the last leap
    leap: usize,    // bytes that are still to be leapt over
}

impl<'t> Search<'t> {
    /// A search for the blocks that `table` holds, whose sums were made as `rule` says.
    pub fn new(table: &'t SumTable, rule: impl Into<BlockRule>) -> Self {
        Search {
            table,
            rule: rule.into(),
            in_place: false,
            settled: Default::default(),
            stands: Standing::default(),
            block_length: table.head().block_length as usize,
            blocks: table.whole(),
            index: OnceCell::new(),
            sums: Box::new([0; ROLLED]),
            carry: Vec::new(),
            offset: 0,
            rolling: None,
            wanted: 0,
            vain_bytes: 0,
            false_alarms: 0,
            missed: 0,
            scanned: 0,
            leap: 0,
        }
    }

    /// A search that goes on behind what `lead` settled of the same source.
    pub fn behind(table: &'t SumTable, lead: &Lead) -> Self {
        let position = lead.position();
        let offset = u64::from(position) * u64::from(table.head().block_length);
        let settled = (position, lead.gaps().to_vec());
        Search { offset, wanted: position, settled, ..Search::new(table, lead.rule()) }
    }

    /// Uses only blocks that a receiver writing over its own basis still has: of those that begin before the output only
    /// what was found where it is.
    pub fn in_place(self) -> Self {
        let mut stands = Standing::new(self.blocks);
        let (settled, gaps) = &self.settled;
        stands.add(0..*settled);
        gaps.iter().for_each(|gap| stands.remove(gap.clone()));
        Search { in_place: true, stands, ..self }
    }

    /// Takes the source's next bytes and emits what they settle. An error comes from `emit`, and ends the search.
    pub fn push<E>(&mut self, bytes: &[u8], mut emit: impl FnMut(Token<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.is_hopeless() {
            return emit_literal(bytes, &mut emit);
        }
        let mut rest = bytes;
        if !self.carry.is_empty() {
            // With a block length more, whatever begins in the carry is settled there.
            let mut carry = std::mem::take(&mut self.carry);
            let carried = carry.len();
            let (topping, later) = rest.split_at(rest.len().min(self.block_length));
            carry.extend_from_slice(topping);
            let settled = self.scan(&carry, &mut emit)?;
            if later.is_empty() {
                carry.drain(..settled);
                self.carry = carry;
                return Ok(());
            }
            carry.clear();
            self.carry = carry;
            rest = &rest[settled - carried..];
        }
        let settled = self.scan(rest, &mut emit)?;
        self.carry.extend_from_slice(&rest[settled..]);
        Ok(())
    }

    /// Ends the source and emits the rest. An error comes from `emit`.
    pub fn finish<E>(self, mut emit: impl FnMut(Token<'_>) -> Result<(), E>) -> Result<(), E> {
        if let Some((block, start)) = self.find_short_block() {
            emit_literal(&self.carry[..start], &mut emit)?;
            return emit(Token::Copy(block, &self.carry[start..]));
        }
        emit_literal(&self.carry, &mut emit)
    }

    /// How often a weak sum fitted so far and the strong one did not.
    pub fn false_alarms(&self) -> u64 {
        self.false_alarms
    }

    /// No block can be found, so nothing need be remembered.
    fn is_hopeless(&self) -> bool {
        self.table.is_empty() || self.block_length == 0 || self.rule.proves_nothing()
    }

    /// Goes through the source's next bytes, the carry in front, as far as whole blocks reach (rsync: `hash_search`).
    /// Returns how many of them are settled; those are emitted.
    fn scan<E>(&mut self, data: &[u8], emit: &mut impl FnMut(Token<'_>) -> Result<(), E>) -> Result<usize, E> {
        let mut literal = 0; // where the unsent literal begins
        let mut at = 0;
        loop {
            if self.leap > 0 {
                let leapt = self.leap.min(data.len() - at);
                self.leap -= leapt;
                self.missed += leapt as u64;
                at += leapt;
            }
            if literal == at && self.rolling.is_none() {
                self.emit_expected(data, &mut at, emit)?;
                literal = at;
            }
            let Some(window) = data[at..].get(..self.block_length) else { break };
            let mut rolling = match self.rolling.take() {
                Some(rolling) => rolling,
                // Nothing is known of this offset: the beginning, or just after a block or a leap.
                None => {
                    let rolling = self.rule.rolling(window);
                    if let Some(found) = self.find(rolling.value(), data, at) {
                        self.emit_blocks(found, data, &mut literal, &mut at, emit)?;
                        continue;
                    }
                    rolling
                }
            };
            let ahead = data.len() - self.block_length - at;
            let steps = ahead.min(ROLLED);
            rolling.roll_over(&data[at..][..steps], &data[at + self.block_length..][..steps], &mut self.sums[..]);
            match self.find_rolled(steps, data, at) {
                Some((found, place)) => {
                    at = place;
                    self.emit_blocks(found, data, &mut literal, &mut at, emit)?;
                }
                None => {
                    at += steps;
                    self.rolling = Some(rolling);
                    self.missed += steps as u64;
                    self.scanned += steps;
                    self.consider_leap();
                    if steps == ahead && self.leap == 0 {
                        break;
                    }
                }
            }
        }
        emit_literal(&data[literal..at], emit)?;
        self.offset += at as u64;
        Ok(at)
    }

    /// Emits the blocks at `at` that are just those that follow the last one found.
    fn emit_expected<E>(
        &mut self,
        data: &[u8],
        at: &mut usize,
        emit: &mut impl FnMut(Token<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let offset = self.offset + *at as u64;
        let first = self.first_usable(offset);
        // Writing in place, another block that stays where it is would be tried before.
        let stays = self.in_place && self.table.head().offset(BlockIndex(first)) == offset;
        if self.wanted < first || (stays && self.wanted != first) || self.is_exhausted(offset) {
            return Ok(());
        }
        loop {
            let run = lead::Run::at(&data[*at..], self.wanted, self.table, &self.rule);
            let bytes = data[*at..].chunks(self.block_length).take(run.found as usize);
            (self.wanted..).zip(bytes).try_for_each(|(block, bytes)| emit(Token::Copy(BlockIndex(block), bytes)))?;
            self.note_standing(self.wanted..self.wanted + run.found, self.offset + *at as u64);
            *at += run.found as usize * self.block_length;
            self.wanted += run.found;
            self.vain_bytes += u64::from(run.vain) * (self.block_length as u64 + VAIN_LEAST);
            if run.found > 0 {
                (self.missed, self.scanned) = (0, 0);
            }
            if run.is_over {
                return Ok(());
            }
        }
    }

    /// Too much work was done in vain to go on with it.
    fn is_exhausted(&self, offset: u64) -> bool {
        self.vain_bytes > VAIN_ALLOWED.saturating_add(offset.saturating_mul(VAIN_PER_BYTE))
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::new(self.table))
    }

    /// After a long way without a match: scans one block length of offsets, then leaps over some.
    fn consider_leap(&mut self) {
        if self.missed >= LEAP_AFTER && self.scanned >= self.block_length {
            let blocks = (1 + (self.missed - LEAP_AFTER) / LEAP_GROWS).min(LEAP_MOST);
            self.leap = blocks as usize * self.block_length;
            self.scanned = 0;
            self.rolling = None;
        }
    }

    /// The first match among the weak sums of the `steps` offsets behind `at`, and where it begins.
    fn find_rolled(&mut self, steps: usize, data: &[u8], at: usize) -> Option<(BlockIndex, usize)> {
        let mut from = 0;
        while let Some(hit) = self.index().probe(&self.sums[from..steps]) {
            from += hit + 1;
            if let Some(found) = self.find(self.sums[from - 1], data, at + from) {
                return Some((found, at + from));
            }
        }
        None
    }

    /// A block equal to the one that begins at `at` and has this weak sum.
    ///
    /// Tries the expected block first, which settles a similar file without a look into the index and gives long runs.
    fn find(&mut self, weak: u32, data: &[u8], at: usize) -> Option<BlockIndex> {
        let offset = self.offset + at as u64;
        if self.is_exhausted(offset) {
            return None;
        }
        let first = self.first_usable(offset);
        let window = &data[at..at + self.block_length];
        let mut strong = None;
        if let Some(block) = self.expected(offset, first, weak) {
            let sum = strong.insert(self.rule.strong(window));
            if self.table.strong(block) == self.table.known_part(sum) {
                return Some(block);
            }
        }
        let index = self.index();
        let alike = index.alike(weak);
        if strong.is_none() && alike.is_empty() {
            return None;
        }
        let strong = strong.unwrap_or_else(|| self.rule.strong(window));
        let stands = |block| self.stands.has(block);
        let found = index.find(alike, self.table, self.table.known_part(&strong), first, stands);
        if found.is_none() {
            self.vain_bytes += self.block_length as u64 + VAIN_LEAST;
            self.false_alarms += 1;
        }
        found
    }

    /// The block to try before all others, if it may be used and has this weak sum.
    fn expected(&self, offset: u64, first: u32, weak: u32) -> Option<BlockIndex> {
        let usable = |block: BlockIndex| block.0 >= first || self.stands.has(block);
        let fits = |&block: &BlockIndex| block.0 < self.blocks && usable(block) && self.table.weak(block) == weak;
        // Writing in place, the block already at this very offset saves the receiver the writing.
        let same = BlockIndex(first);
        let stays = self.in_place && self.table.head().offset(same) == offset;
        Some(same).filter(|_| stays).filter(fits).or_else(|| Some(BlockIndex(self.wanted)).filter(fits))
    }

    /// Blocks went out, the first of them at this output offset.
    fn note_standing(&mut self, blocks: Range<u32>, offset: u64) {
        if self.in_place && self.table.head().offset(BlockIndex(blocks.start)) == offset {
            self.stands.add(blocks);
        }
    }

    /// The first block that may be used at an output offset; those behind it may be, too.
    fn first_usable(&self, offset: u64) -> u32 {
        if !self.in_place {
            return 0;
        }
        u32::try_from(offset.div_ceil(self.block_length as u64)).unwrap_or(u32::MAX)
    }

    /// True when `bytes`, at `offset` of the source, are this block.
    fn is_block(&self, block: BlockIndex, bytes: &[u8], offset: u64) -> bool {
        (block.0 >= self.first_usable(offset) || self.stands.has(block))
            && self.table.weak(block) == self.rule.rolling(bytes).value()
            && self.table.strong(block) == self.table.known_part(&self.rule.strong(bytes))
    }

    /// At the source's end: the short last block, and where in the carry it begins.
    fn find_short_block(&self) -> Option<(BlockIndex, usize)> {
        if self.is_hopeless() {
            return None;
        }
        let head = self.table.head();
        let last = BlockIndex(head.count.checked_sub(1)?);
        let len = head.block_len(last) as usize;
        if self.table.kept() < head.count {
            return None;
        }
        if let BlockRule::Signature(..) = self.rule {
            return self.find_last_block_of_any_length(last);
        }
        if len == self.block_length {
            return None;
        }
        let start = self.carry.len().checked_sub(len)?;
        self.is_block(last, &self.carry[start..], self.offset + start as u64).then_some((last, start))
    }

    /// The same where nobody knows how long the last block is: the longest end of the source that may be it.
    fn find_last_block_of_any_length(&self, last: BlockIndex) -> Option<(BlockIndex, usize)> {
        let weak = self.table.weak(last);
        let mut rolling = self.rule.rolling(&self.carry);
        // A peer can arrange that the weak sum fits everywhere.
        let mut vain_left = VAIN_ALLOWED;
        for start in 0..self.carry.len() {
            if rolling.value() == weak && rolling.len() < self.block_length {
                if self.table.strong(last) == self.table.known_part(&self.rule.strong(&self.carry[start..])) {
                    return Some((last, start));
                }
                vain_left = vain_left.checked_sub(rolling.len() as u64 + VAIN_LEAST)?;
            }
            rolling.shrink(self.carry[start]);
        }
        None
    }

    /// Emits a block found at `at`, after the literal before it. Where offsets were leapt over, the blocks before it
    /// may stand in that literal.
    fn emit_blocks<E>(
        &mut self,
        found: BlockIndex,
        data: &[u8],
        literal: &mut usize,
        at: &mut usize,
        emit: &mut impl FnMut(Token<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut first, mut start) = (found, *at);
        if self.missed >= LEAP_AFTER {
            while first.0 > 0 && start - *literal >= self.block_length {
                let (earlier, place) = (BlockIndex(first.0 - 1), start - self.block_length);
                if !self.is_block(earlier, &data[place..start], self.offset + place as u64) {
                    break;
                }
                (first, start) = (earlier, place);
            }
        }
        emit_literal(&data[*literal..start], emit)?;
        let bytes = data[start..*at + self.block_length].chunks(self.block_length);
        (first.0..=found.0).zip(bytes).try_for_each(|(block, bytes)| emit(Token::Copy(BlockIndex(block), bytes)))?;
        self.note_standing(first.0..found.0 + 1, self.offset + start as u64);
        *at += self.block_length;
        *literal = *at;
        self.wanted = found.0 + 1;
        (self.missed, self.scanned) = (0, 0);
        Ok(())
    }
}

fn emit_literal<E>(bytes: &[u8], emit: &mut impl FnMut(Token<'_>) -> Result<(), E>) -> Result<(), E> {
    bytes.chunks(MAX_LITERAL).try_for_each(|piece| emit(Token::Literal(piece)))
}

#[cfg(test)]
mod tests;
