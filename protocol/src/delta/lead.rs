//! Blocks that follow each other in the source as they do in the basis: the common case, which needs no index.

use super::Token;
use crate::checksum::BlockRule;
use crate::sums::{BlockIndex, SumTable};
use std::convert::Infallible;

/// The blocks at a source's beginning that are those of the basis' beginning, found while the sums of the others are still
/// on their way. What comes behind them is for a [`Search`](super::Search), which gives the very tokens that it would have
/// given from the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Lead {
    rule: BlockRule,
    found: u32,
    is_over: bool,
}

impl Lead {
    /// Nothing found yet of blocks whose sums are made as `rule` says.
    pub fn new(rule: impl Into<BlockRule>) -> Self {
        let rule = rule.into();
        Lead { rule, found: 0, is_over: rule.proves_nothing() }
    }

    /// Takes blocks from the front of the source's next bytes and emits them; returns how many bytes they are. It takes no
    /// more once it [is over](Lead::is_over), or where the sums of the next block have not come or its bytes are
    /// not all here. An error comes from `emit`.
    pub fn push<E>(
        &mut self,
        bytes: &[u8],
        table: &SumTable,
        mut emit: impl FnMut(Token<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let block_length = table.head().block_length as usize;
        let mut settled = 0;
        while !self.is_over && self.found < table.whole() && bytes.len() - settled >= block_length {
            let rest = &bytes[settled..];
            let run = Run::at(rest, self.found, table, &self.rule);
            let blocks = rest.chunks(block_length).take(run.found as usize);
            (self.found..).zip(blocks).try_for_each(|(block, bytes)| emit(Token::Copy(BlockIndex(block), bytes)))?;
            self.found += run.found;
            settled += run.found as usize * block_length;
            // What is here of the next block is not it.
            let more = self.found < table.whole() && bytes.len() - settled >= block_length;
            self.is_over = run.is_over && more;
        }
        Ok(settled)
    }

    /// The next block is another than the basis has there.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Blocks found.
    pub(super) fn found(&self) -> u32 {
        self.found
    }

    pub(super) fn rule(&self) -> BlockRule {
        self.rule
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
