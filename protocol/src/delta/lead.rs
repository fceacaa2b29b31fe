//! Blocks that follow each other in the source as they do in the basis: the common case, which needs no index.

use super::{Token, emit_literal};
use crate::checksum::BlockRule;
use crate::sums::{BlockIndex, SumTable};
use std::convert::Infallible;
use std::ops::Range;

/// The longest literal that a lead passes over, in blocks.
const GAP_MOST: u32 = 4;
/// Bytes of literals that a lead may pass over besides a share of what it found.
const GAP_ALLOWED: u64 = 64 << 10;
/// The share: one byte of this many.
const GAP_SHARE: u64 = 32;

/// The source's beginning as far as it is the basis' beginning, a few blocks that differ between others that do not
/// included, found while the sums of the others are still on their way. What comes behind is for a
/// [`Search`](super::Search).
///
/// What stands between in place of a block goes out as a literal, though a block from elsewhere may be in it: that would
/// tell only the whole table. It comes to at most a 32nd of what was found, and 64 KiB.
#[derive(Clone, Debug)]
pub struct Lead {
    rule: BlockRule,
    /// Blocks settled.
    position: u32,
    /// Of them, those that went out as literals, and where they are.
    gaps: u32,
    gap_ranges: Vec<Range<u32>>,
    is_over: bool,
}

impl Lead {
    /// Nothing found yet of blocks whose sums are made as `rule` says.
    pub fn new(rule: impl Into<BlockRule>) -> Self {
        let rule = rule.into();
        Lead { rule, position: 0, gaps: 0, gap_ranges: Vec::new(), is_over: rule.proves_nothing() }
    }

    /// Takes whole blocks from the front of the source's next bytes and emits them; returns how many bytes they are. It
    /// takes no more once it [is over](Lead::is_over), or where that depends on sums that have not come or on bytes that
    /// are not here. An error comes from `emit`.
    pub fn push<E>(
        &mut self,
        bytes: &[u8],
        table: &SumTable,
        mut emit: impl FnMut(Token<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let block_length = table.head().block_length as usize;
        let is_here = |rest: &[u8], position: u32, blocks: u32| {
            position + blocks < table.whole() && rest.len() / block_length.max(1) > blocks as usize
        };
        let mut rest = bytes;
        while !self.is_over && is_here(rest, self.position, 0) {
            let run = Run::at(rest, self.position, table, &self.rule);
            let (found, later) = rest.split_at(run.found as usize * block_length);
            (self.position..)
                .zip(found.chunks(block_length))
                .try_for_each(|(block, bytes)| emit(Token::Copy(BlockIndex(block), bytes)))?;
            self.position += run.found;
            rest = later;
            if !run.is_over || !is_here(rest, self.position, 0) {
                continue;
            }
            // The next block is another. Those behind it may be what they were.
            let fits = |&gap: &u32| {
                Run::at(&rest[gap as usize * block_length..], self.position + gap, table, &self.rule).found > 0
            };
            let most = self.gap_most(block_length);
            let seen = (1..=most).take_while(|&gap| is_here(rest, self.position, gap));
            match seen.clone().find(fits) {
                Some(gap) => {
                    let (literal, later) = rest.split_at(gap as usize * block_length);
                    emit_literal(literal, &mut emit)?;
                    self.gap_ranges.push(self.position..self.position + gap);
                    self.position += gap;
                    self.gaps += gap;
                    rest = later;
                }
                None if seen.count() < most as usize => break,
                None => self.is_over = true,
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// The source's next bytes are not those of the basis there, and not for a few blocks only.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether it could go on with so many more bytes of the source, had they been here; otherwise sums are missing.
    pub fn has_sums_for(&self, bytes: usize, table: &SumTable) -> bool {
        let blocks = u64::from(table.whole().saturating_sub(self.position));
        blocks * u64::from(table.head().block_length) > bytes as u64
    }

    /// Blocks of the source, from its beginning, that are settled.
    pub(super) fn position(&self) -> u32 {
        self.position
    }

    /// The blocks that went out as literals.
    pub(super) fn gaps(&self) -> &[Range<u32>] {
        &self.gap_ranges
    }

    pub(super) fn rule(&self) -> BlockRule {
        self.rule
    }

    /// The longest literal allowed now, in blocks.
    fn gap_most(&self, block_length: usize) -> u32 {
        let bytes = |blocks: u32| u64::from(blocks) * block_length as u64;
        let allowed = GAP_ALLOWED + bytes(self.position - self.gaps) / GAP_SHARE;
        let left = allowed.saturating_sub(bytes(self.gaps)) / block_length.max(1) as u64;
        left.min(GAP_MOST.into()) as u32
    }
}

/// What a look at some blocks together came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// Blocks that are those expected.
    pub(super) found: u32,
    /// Strong sums made without use.
    pub(super) vain: u32,
    /// The next one is not the one expected, or is not here.
    pub(super) is_over: bool,
}

impl Run {
    /// Whole blocks at the front of `bytes` that are `wanted` and those behind it: as many as are summed best at once.
    pub(super) fn at(bytes: &[u8], wanted: u32, table: &SumTable, rule: &BlockRule) -> Run {
        let block_length = table.head().block_length as usize;
        let most = table.whole().saturating_sub(wanted).min(rule.at_once());
        let fits = |(block, bytes): &(u32, &[u8])| table.weak(BlockIndex(*block)) == rule.rolling(bytes).value();
        let blocks = bytes.chunks_exact(block_length.max(1));
        let alike = (wanted..).zip(blocks).take(most as usize).take_while(fits).count() as u32;
        let mut found = 0;
        let mut summed = 0;
        let mut is_equal = true;
        let done = rule.strong_each(&bytes[..alike as usize * block_length], block_length, |_, strong| {
            summed += 1;
            is_equal &= table.strong(BlockIndex(wanted + found)) == table.known_part(strong);
            found += u32::from(is_equal);
            Ok::<(), Infallible>(())
        });
        let Ok(()) = done;
        Run { found, vain: summed - found, is_over: found < rule.at_once() }
    }
}
