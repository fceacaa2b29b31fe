//! Coding of plain tokens. Counterpart: rsync's `token.c`, the uncompressed half.

use crate::PeerError;
use crate::sums::{BlockIndex, SumHead};
use crate::wire::{Decode, Decoded, Reader};

/// Stock senders write at most this many literal bytes behind one token.
pub const LITERAL_MOST: usize = 32 * 1024;

/// A token as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenHead {
    /// This many literal bytes follow.
    Literal(u32),
    /// A block of the basis.
    Copy(BlockIndex),
    /// End of the file; its sum follows.
    End,
}

impl TokenHead {
    /// Reads a token, checked against the sum head it answers.
    pub fn decode(reader: &mut Reader<'_>, head: &SumHead) -> Decoded<Self> {
        let token = reader.int()?;
        Ok(match token {
            0 => Self::End,
            1.. => Self::Literal(token as u32),
            _ => {
                let block = token.unsigned_abs() - 1;
                if block >= head.count {
                    return Err(Decode::Bad(PeerError::Range {
                        what: "block token",
                        value: block.into(),
                        expected: "an index below the sum head's count",
                    }));
                }
                Self::Copy(BlockIndex(block))
            }
        })
    }

    /// The token's four bytes.
    pub fn encode(self) -> [u8; 4] {
        match self {
            Self::End => 0,
            Self::Literal(len) => len as i32,
            Self::Copy(block) => -(block.0 as i64 + 1) as i32,
        }
        .to_le_bytes()
    }
}
