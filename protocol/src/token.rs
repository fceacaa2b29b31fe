//! Coding of tokens: what a file is made of on its way. Counterpart: rsync's `token.c`.
//!
//! Five codings share one writer and one reader: plain tokens, and four sorts of compressed ones.

mod chunk;
mod lz4;
mod read;
mod write;
mod zlib;
mod zstd;

pub use read::{TokenEvent, TokenReader};
pub use write::TokenWriter;

use crate::PeerError;
use crate::sums::{BlockIndex, SumHead};
use crate::wire::{Decode, Decoded, Reader};

/// Stock senders write at most this many literal bytes behind one token.
pub(crate) const LITERAL_MOST: usize = 32 * 1024;

/// The most that a chunk of compressed data holds, bytes: its length has 14 bits.
const CHUNK_MOST: usize = 0x3fff;

/// First byte of a compressed token: end of the file.
const END: u8 = 0x00;
/// A block by its number.
const COPY: u8 = 0x20;
/// Blocks in a row, the first by its number.
const COPY_RUN: u8 = 0x21;
/// A chunk of compressed data; the lower six bits begin its length.
const CHUNK: u8 = 0x40;
/// A block by its distance from the one before, in the lower six bits.
const NEAR: u8 = 0x80;
/// Blocks in a row, the first by its distance.
const NEAR_RUN: u8 = 0xc0;
/// The lower six bits.
const LOW: u8 = 0x3f;

/// Our own compressor gave up. Nothing that a peer does causes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Cannot compress file data with {method}: {reason}. Try without -z, or another --compress-choice")]
pub struct PackError {
    /// Name of the method.
    pub method: &'static str,
    /// What its library says.
    pub reason: String,
}

/// A plain token as it stands on the wire.
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
            _ => Self::Copy(block_of(i64::from(token.unsigned_abs()) - 1, head)?),
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

/// A block of the basis, if there is one of this number.
fn block_of(number: i64, head: &SumHead) -> Result<BlockIndex, Decode> {
    u32::try_from(number).ok().filter(|&block| block < head.count).map(BlockIndex).ok_or_else(|| {
        let expected = "an index below the sum head's count";
        PeerError::Range { what: "block token", value: number, expected }.into()
    })
}

#[cfg(test)]
mod tests;
