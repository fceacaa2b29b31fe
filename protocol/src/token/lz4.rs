//! LZ4: every chunk is a block of its own.

use super::chunk::put_chunk;
use super::{CHUNK_MOST, PackError};
use crate::PeerError;
use crate::mux::Outbox;
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

/// Source bytes in one block at most, as stock has it.
const SOURCE_MOST: usize = CHUNK_MOST;
/// Source bytes in a block that holds them as they are: what says so takes a byte, and one for each 255.
const STORED_MOST: usize = CHUNK_MOST - CHUNK_MOST / 255 - 2;
/// A literal of this length or more needs further bytes to say its length.
const LENGTH_IN_TOKEN: usize = 15;

/// The writing side.
#[derive(Debug)]
pub(super) struct Lz4Packer {
    store: bool,
    block: Vec<u8>,
}

impl Lz4Packer {
    pub(super) fn new() -> Self {
        Self { store: false, block: Vec::new() }
    }

    /// Begins a file; `store` as for [`super::TokenWriter::begin`].
    pub(super) fn begin(&mut self, store: bool) {
        self.store = store;
    }

    pub(super) fn pack(&mut self, bytes: &[u8], out: &mut Outbox) -> Result<(), PackError> {
        if self.store {
            for piece in bytes.chunks(STORED_MOST) {
                stored(piece, &mut self.block);
                put_chunk(&self.block, out);
            }
            return Ok(());
        }
        let mut rest = bytes;
        let mut most = SOURCE_MOST;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(most)];
            self.block.resize(get_maximum_output_size(piece.len()), 0);
            let len = compress_into(piece, &mut self.block)
                .map_err(|error| PackError { method: "lz4", reason: error.to_string() })?;
            // Bytes that grow are cut until they fit.
            if len > CHUNK_MOST {
                most = piece.len() / 2;
                continue;
            }
            put_chunk(&self.block[..len], out);
            rest = &rest[piece.len()..];
            most = SOURCE_MOST;
        }
        Ok(())
    }
}

/// A block of one literal and nothing else.
fn stored(piece: &[u8], block: &mut Vec<u8>) {
    block.clear();
    match piece.len().checked_sub(LENGTH_IN_TOKEN) {
        None => block.push((piece.len() as u8) << 4),
        Some(more) => {
            block.push(0xf0);
            block.extend(std::iter::repeat_n(0xff, more / 255));
            block.push((more % 255) as u8);
        }
    }
    block.extend_from_slice(piece);
}

/// The reading side: how many bytes came out of a whole block.
pub(super) fn unpack(block: &[u8], output: &mut [u8]) -> Result<usize, PeerError> {
    decompress_into(block, output).map_err(|_| PeerError::Malformed("an LZ4 block that cannot be expanded"))
}
