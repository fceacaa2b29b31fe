//! Signature and delta files as librsync's `rdiff` has them, read and written in a stream.
//!
//! A signature holds the sums of a basis' blocks; a delta says, by literals and copies, how a new file comes from that
//! basis. The search is [`protocol::delta`]'s; only the sums are librsync's. Learned from librsync's documentation and
//! from the files its `rdiff` writes.

mod command;
mod delta;
mod patch;
mod signature;

pub(crate) use command::{RdiffWords, main};
pub(crate) use delta::{DeltaStats, write_delta};
pub(crate) use patch::apply;
pub(crate) use signature::{Cut, Signature, write_signature};

use std::io::{self, Read};

/// Bytes read or copied at once.
const PIECE: usize = 256 * 1024;

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RdiffError {
    /// One of the inputs could not be read.
    #[error("Cannot read the {0}: {1}")]
    Read(Input, io::Error),
    /// The output could not be written.
    #[error("Cannot write the result: {0}")]
    Write(io::Error),
    /// An input is not what it should be.
    #[error("The {0} is not usable: {1}")]
    Corrupt(Input, String),
}

/// An input, by its part in the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The old file.
    Basis,
    /// The sums of the old file's blocks.
    Signature,
    New,
    /// What makes the new file of the old one.
    Delta,
}

impl std::fmt::Display for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basis => "basis",
            Self::Signature => "signature",
            Self::New => "new file",
            Self::Delta => "delta",
        })
    }
}

/// Reads until the buffer is full or the input ends; gives the number of bytes.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
