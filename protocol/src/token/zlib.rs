//! Raw deflate, one stream for each file.
//!
//! A literal between blocks ends with a sync flush whose last four bytes stay away, since they are always the same.

use super::chunk::put_chunk;
use super::{CHUNK_MOST, PackError};
use crate::PeerError;
use crate::mux::Outbox;
use flate2::{Compress, CompressError, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What every sync flush ends with.
pub(super) const FLUSH_END: [u8; 4] = [0, 0, 0xff, 0xff];
/// How far back deflate looks, bytes.
const WINDOW: usize = 32 * 1024;
/// Stock puts a block into the history in pieces of at most so many bytes.
const PIECE_MOST: usize = 0xffff;

/// Whether matched blocks are part of the history that deflate looks back into.
#[derive(Debug, Clone, Copy)]
pub(super) struct History {
    blocks: bool,
    /// Protocol 30 puts a long block's beginning into the history again where its rest belongs.
    beginnings: bool,
}

impl History {
    pub(super) fn literals_only() -> Self {
        Self { blocks: false, beginnings: false }
    }

    pub(super) fn with_blocks(version: u8) -> Self {
        Self { blocks: true, beginnings: version < 31 }
    }

    /// The parts of a block that go into the history one after the other, as far as they can be looked back at.
    fn parts(self, block: &[u8]) -> impl Iterator<Item = &[u8]> {
        let block = if self.blocks { block } else { &[] };
        block.chunks(PIECE_MOST).map(move |piece| {
            let piece = if self.beginnings { &block[..piece.len()] } else { piece };
            &piece[piece.len().saturating_sub(WINDOW)..]
        })
    }
}

/// The writing side.
#[derive(Debug)]
pub(super) struct ZlibPacker {
    stream: Compress,
    level: Compression,
    history: History,
    /// A chunk and the end of a flush, which must not go out.
    chunk: Box<[u8]>,
    filled: usize,
}

impl ZlibPacker {
    pub(super) fn new(level: i32, history: History) -> Self {
        let level = Compression::new(level.clamp(0, 9) as u32);
        let chunk = vec![0; CHUNK_MOST + FLUSH_END.len()].into();
        Self { stream: Compress::new(level, false), level, history, chunk, filled: 0 }
    }

    /// Begins a file; `store` as for [`super::TokenWriter::begin`].
    pub(super) fn begin(&mut self, store: bool) {
        let level = if store { Compression::none() } else { self.level };
        self.filled = 0;
        self.stream.reset();
        if self.stream.set_level(level).is_err() {
            self.stream = Compress::new(level, false);
        }
    }

    pub(super) fn pack(&mut self, bytes: &[u8], out: &mut Outbox) -> Result<(), PackError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = self.step(rest, FlushCompress::None)?;
            rest = &rest[used..];
            self.put_full_chunk(out);
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, out: &mut Outbox) -> Result<(), PackError> {
        loop {
            self.step(&[], FlushCompress::Sync)?;
            // Room left over says that nothing is left in the compressor.
            if self.filled < self.chunk.len() {
                break;
            }
            self.put_full_chunk(out);
        }
        let Some(data) = self.chunk[..self.filled].strip_suffix(&FLUSH_END) else {
            return Err(failed("a flush does not end as it should"));
        };
        put_chunk(data, out);
        self.filled = 0;
        Ok(())
    }

    /// The bytes of a block that was matched; only between flushes.
    pub(super) fn matched(&mut self, block: &[u8]) -> Result<(), PackError> {
        self.history.parts(block).try_for_each(|part| self.stream.set_dictionary(part).map(drop)).map_err(failed_in)
    }

    fn step(&mut self, bytes: &[u8], flush: FlushCompress) -> Result<usize, PackError> {
        let (before_in, before_out) = (self.stream.total_in(), self.stream.total_out());
        self.stream.compress(bytes, &mut self.chunk[self.filled..], flush).map_err(failed_in)?;
        self.filled += (self.stream.total_out() - before_out) as usize;
        Ok((self.stream.total_in() - before_in) as usize)
    }

    /// Writes a chunk if there is one, and keeps back what may be a flush's end.
    fn put_full_chunk(&mut self, out: &mut Outbox) {
        if self.filled == self.chunk.len() {
            put_chunk(&self.chunk[..CHUNK_MOST], out);
            self.chunk.copy_within(CHUNK_MOST.., 0);
            self.filled = FLUSH_END.len();
        }
    }
}

fn failed_in(error: CompressError) -> PackError {
    failed(&error.to_string())
}

fn failed(reason: &str) -> PackError {
    PackError { method: "zlib", reason: reason.into() }
}

/// The reading side.
#[derive(Debug)]
pub(super) struct ZlibUnpacker {
    stream: Decompress,
    history: History,
}

impl ZlibUnpacker {
    pub(super) fn new(history: History) -> Self {
        Self { stream: Decompress::new(false), history }
    }

    pub(super) fn begin(&mut self) {
        self.stream.reset(false);
    }

    /// How many bytes were used and how many came out.
    pub(super) fn unpack(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), PeerError> {
        let (before_in, before_out) = (self.stream.total_in(), self.stream.total_out());
        match self.stream.decompress(input, output, FlushDecompress::Sync) {
            Ok(Status::Ok | Status::BufError) => {}
            Ok(Status::StreamEnd) => return Err(PeerError::Malformed("deflated data that ends before its file")),
            Err(_) => return Err(PeerError::Malformed("deflated data that cannot be inflated")),
        }
        Ok(((self.stream.total_in() - before_in) as usize, (self.stream.total_out() - before_out) as usize))
    }

    /// The bytes of a block that was matched.
    pub(super) fn matched(&mut self, block: &[u8]) -> Result<(), PeerError> {
        let mut parts = self.history.parts(block);
        let set = parts.try_for_each(|part| self.stream.set_dictionary(part).map(drop));
        set.map_err(|_| PeerError::Malformed("a block in the middle of deflated data"))
    }
}
