//! Delta files, written: a magic number, then commands, each a byte with its numbers, the highest byte first.

use super::{Input, PIECE, RdiffError, Signature, fill};
use protocol::delta::{Search, Token};
use std::io::{self, Read, Write};

pub(super) const MAGIC: [u8; 4] = 0x7273_0236u32.to_be_bytes();
pub(super) const END: u8 = 0;
/// The longest literal whose length is the command itself.
pub(super) const SHORT_MOST: u8 = 0x40;
/// Literals whose length follows in 1, 2, 4 or 8 bytes.
pub(super) const LITERAL: u8 = 0x41;
/// Copies whose offset follows in 1, 2, 4 or 8 bytes (times four), and whose length in as many.
pub(super) const COPY: u8 = 0x45;
pub(super) const COPY_LAST: u8 = 0x54;

/// What a delta is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DeltaStats {
    pub literals: u64,
    pub literal_bytes: u64,
    /// Copy commands.
    pub copies: u64,
    pub copy_bytes: u64,
    /// Bytes of the commands themselves.
    pub command_bytes: u64,
}

/// Writes what makes the file `new` of the basis that has this signature. Needs a few blocks of memory besides the signature.
pub(crate) fn write_delta(
    signature: &Signature,
    new: &mut impl Read,
    out: &mut impl Write,
) -> Result<DeltaStats, RdiffError> {
    let mut writer = Writer { out, pending: None, stats: DeltaStats::default() };
    writer.command(&MAGIC).map_err(RdiffError::Write)?;
    let head = signature.table.head();
    let mut search = Search::new(&signature.table, signature.rule);
    let mut emit = |token: Token<'_>| match token {
        Token::Literal(bytes) => writer.literal(bytes),
        Token::Copy(block, bytes) => writer.copy(head.offset(block), bytes.len() as u64),
    };
    let mut buffer = vec![0; PIECE];
    let mut wrote = Ok(());
    while wrote.is_ok() {
        let len = fill(new, &mut buffer).map_err(|error| RdiffError::Read(Input::New, error))?;
        wrote = search.push(&buffer[..len], &mut emit);
        if len < buffer.len() {
            break;
        }
    }
    wrote.and_then(|()| search.finish(&mut emit)).and_then(|()| writer.end()).map_err(RdiffError::Write)
}

/// Writes commands; neighbouring copies become one.
struct Writer<'a, W> {
    out: &'a mut W,
    pending: Option<(u64, u64)>,
    stats: DeltaStats,
}

impl<W: Write> Writer<'_, W> {
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.settle()?;
        let len = bytes.len() as u64;
        if len <= SHORT_MOST.into() {
            self.command(&[len as u8])?;
        } else {
            let (class, number) = classed(len);
            self.command(&[LITERAL + class])?;
            self.command(&number[8 - (1 << class)..])?;
        }
        self.stats.literals += 1;
        self.stats.literal_bytes += len;
        self.out.write_all(bytes)
    }

    fn copy(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.stats.copy_bytes += len;
        match &mut self.pending {
            Some((start, so_far)) if *start + *so_far == offset => *so_far += len,
            _ => {
                self.settle()?;
                self.pending = Some((offset, len));
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        let Some((offset, len)) = self.pending.take() else { return Ok(()) };
        let ((at, offset), (long, len)) = (classed(offset), classed(len));
        self.stats.copies += 1;
        self.command(&[COPY + 4 * at + long])?;
        self.command(&offset[8 - (1 << at)..])?;
        self.command(&len[8 - (1 << long)..])
    }

    fn command(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stats.command_bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn end(mut self) -> io::Result<DeltaStats> {
        self.settle()?;
        self.command(&[END])?;
        self.out.flush()?;
        Ok(self.stats)
    }
}

/// The binary logarithm of how many bytes a number takes, and all eight of its bytes.
fn classed(number: u64) -> (u8, [u8; 8]) {
    let class = match number {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    };
    (class, number.to_be_bytes())
}
