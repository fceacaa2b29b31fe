//! Delta files, applied.

use super::delta::{COPY, COPY_LAST, END, LITERAL, MAGIC, SHORT_MOST};
use super::{DeltaStats, Input, PIECE, RdiffError, fill};
use std::io::{Read, Seek, SeekFrom, Write};

/// Writes the new file that `delta` makes of `basis`. Needs one buffer of memory, however long the commands say they are.
pub(crate) fn apply<B: Read + Seek>(
    basis: &mut B,
    delta: &mut impl Read,
    out: &mut impl Write,
) -> Result<DeltaStats, RdiffError> {
    let mut patch = Patch { basis, delta, out, buffer: vec![0; PIECE], stats: DeltaStats::default() };
    if patch.bytes::<4>()? != MAGIC {
        return Err(corrupt("it does not begin as a delta does".into()));
    }
    while patch.command()? {}
    let mut more = [0];
    if fill(patch.delta, &mut more).map_err(unread)? != 0 {
        return Err(corrupt("it goes on after its end".into()));
    }
    patch.out.flush().map_err(RdiffError::Write)?;
    Ok(patch.stats)
}

struct Patch<'a, B, D, W> {
    basis: &'a mut B,
    delta: &'a mut D,
    out: &'a mut W,
    buffer: Vec<u8>,
    stats: DeltaStats,
}

impl<B: Read + Seek, D: Read, W: Write> Patch<'_, B, D, W> {
    /// Carries out the next command; false at the end.
    fn command(&mut self) -> Result<bool, RdiffError> {
        match self.bytes::<1>()?[0] {
            END => return Ok(false),
            len @ 1..=SHORT_MOST => self.literal(len.into())?,
            command @ LITERAL..COPY => {
                let len = self.number(command - LITERAL)?;
                self.literal(len)?;
            }
            command @ COPY..=COPY_LAST => {
                let offset = self.number((command - COPY) / 4)?;
                let len = self.number((command - COPY) % 4)?;
                self.copy(offset, len)?;
            }
            command => return Err(corrupt(format!("it holds the unknown command {command:#04x}"))),
        }
        Ok(true)
    }

    fn literal(&mut self, len: u64) -> Result<(), RdiffError> {
        self.stats.literals += 1;
        self.stats.literal_bytes += len;
        if len == 0 {
            return Err(corrupt("it holds a literal of no bytes".into()));
        }
        let mut left = len;
        while left > 0 {
            let piece = left.min(PIECE as u64) as usize;
            let got = fill(self.delta, &mut self.buffer[..piece]).map_err(unread)?;
            self.out.write_all(&self.buffer[..got]).map_err(RdiffError::Write)?;
            if got < piece {
                return Err(corrupt("it ends in the middle of a literal".into()));
            }
            left -= piece as u64;
        }
        Ok(())
    }

    fn copy(&mut self, offset: u64, len: u64) -> Result<(), RdiffError> {
        self.stats.copies += 1;
        if len == 0 {
            return Err(corrupt("it holds a copy of no bytes".into()));
        }
        let beyond = || corrupt(format!("it copies {len} bytes from byte {offset} on, which the basis does not have"));
        if offset.checked_add(len).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(beyond());
        }
        self.basis.seek(SeekFrom::Start(offset)).map_err(|error| RdiffError::Read(Input::Basis, error))?;
        let mut left = len;
        while left > 0 {
            let piece = left.min(PIECE as u64) as usize;
            let got = fill(self.basis, &mut self.buffer[..piece]);
            if got.map_err(|error| RdiffError::Read(Input::Basis, error))? < piece {
                return Err(beyond());
            }
            self.out.write_all(&self.buffer[..piece]).map_err(RdiffError::Write)?;
            self.stats.copy_bytes += piece as u64;
            left -= piece as u64;
        }
        Ok(())
    }

    fn number(&mut self, class: u8) -> Result<u64, RdiffError> {
        let mut bytes = [0; 8];
        let len = 1usize << class;
        self.exactly(&mut bytes[8 - len..])?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], RdiffError> {
        let mut bytes = [0; N];
        self.exactly(&mut bytes)?;
        Ok(bytes)
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), RdiffError> {
        self.stats.command_bytes += bytes.len() as u64;
        match fill(self.delta, bytes).map_err(unread)? {
            n if n < bytes.len() => Err(corrupt("it ends before its end command".into())),
            _ => Ok(()),
        }
    }
}

fn corrupt(why: String) -> RdiffError {
    RdiffError::Corrupt(Input::Delta, why)
}

fn unread(error: std::io::Error) -> RdiffError {
    RdiffError::Read(Input::Delta, error)
}
