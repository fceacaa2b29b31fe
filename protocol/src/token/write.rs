//! Writes the tokens of one file after the other.

use super::{COPY, COPY_RUN, END, LITERAL_MOST, LOW, NEAR, NEAR_RUN, PackError, TokenHead};
use super::{lz4, zlib, zstd};
use crate::compress::Method;
use crate::handshake::Negotiated;
use crate::mux::Outbox;
use crate::sums::BlockIndex;

/// Blocks that one run token may stand for.
const RUN_MOST: u32 = 1 << 16;

/// Turns literals and blocks into bytes, in the coding that the session agreed on.
#[derive(Debug)]
pub struct TokenWriter {
    packer: Option<TokenPacker>,
    /// Literal bytes went into the packer and may still be there.
    open: bool,
    /// Blocks found and not yet written.
    run: Option<BlockRun>,
    /// The block that the next distance counts from.
    base: u32,
}

/// Blocks in a row.
#[derive(Debug, Clone, Copy)]
struct BlockRun {
    first: u32,
    last: u32,
}

/// The compressor of a session.
#[derive(Debug)]
enum TokenPacker {
    Zlib(zlib::ZlibPacker),
    Lz4(lz4::Lz4Packer),
    Zstd(zstd::ZstdPacker),
}

impl TokenWriter {
    /// The writer of a session.
    pub fn new(n: &Negotiated) -> Self {
        let level = n.compression.level;
        let packer = match n.compression.method {
            Method::None => None,
            Method::Zlib => {
                Some(TokenPacker::Zlib(zlib::ZlibPacker::new(level, zlib::History::with_blocks(n.version))))
            }
            Method::Zlibx => Some(TokenPacker::Zlib(zlib::ZlibPacker::new(level, zlib::History::literals_only()))),
            Method::Lz4 => Some(TokenPacker::Lz4(lz4::Lz4Packer::new())),
            Method::Zstd => Some(TokenPacker::Zstd(zstd::ZstdPacker::new(level))),
        };
        Self { packer, open: false, run: None, base: 0 }
    }

    /// Begins a file. `store` is for one whose bytes would not shrink: as little effort as the method can make is made.
    pub fn begin(&mut self, store: bool) {
        (self.open, self.run, self.base) = (false, None, 0);
        match &mut self.packer {
            Some(TokenPacker::Zlib(packer)) => packer.begin(store),
            Some(TokenPacker::Lz4(packer)) => packer.begin(store),
            // One stream for the session, at one level.
            Some(TokenPacker::Zstd(_)) | None => {}
        }
    }

    /// Literal bytes.
    pub fn literal(&mut self, bytes: &[u8], out: &mut Outbox) -> Result<(), PackError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.write_run(out);
        let Some(packer) = &mut self.packer else {
            for piece in bytes.chunks(LITERAL_MOST) {
                out.put(&TokenHead::Literal(piece.len() as u32).encode());
                out.put(piece);
            }
            return Ok(());
        };
        self.open = true;
        match packer {
            TokenPacker::Zlib(packer) => packer.pack(bytes, out),
            TokenPacker::Lz4(packer) => packer.pack(bytes, out),
            TokenPacker::Zstd(packer) => packer.pack(bytes, out),
        }
    }

    /// A block of the basis, and its bytes.
    pub fn copy(&mut self, block: BlockIndex, bytes: &[u8], out: &mut Outbox) -> Result<(), PackError> {
        if self.packer.is_none() {
            out.put(&TokenHead::Copy(block).encode());
            return Ok(());
        }
        self.flush(out)?;
        match &mut self.run {
            Some(run) if block.0 == run.last + 1 && run.last - run.first < RUN_MOST - 1 => run.last = block.0,
            _ => {
                self.write_run(out);
                self.run = Some(BlockRun { first: block.0, last: block.0 });
            }
        }
        match &mut self.packer {
            Some(TokenPacker::Zlib(packer)) => packer.matched(bytes),
            _ => Ok(()),
        }
    }

    /// The end of the file.
    pub fn end(&mut self, out: &mut Outbox) -> Result<(), PackError> {
        if self.packer.is_none() {
            out.put(&TokenHead::End.encode());
            return Ok(());
        }
        self.flush(out)?;
        self.write_run(out);
        out.put(&[END]);
        Ok(())
    }

    /// Ends the literal before a block or the end.
    fn flush(&mut self, out: &mut Outbox) -> Result<(), PackError> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        match &mut self.packer {
            Some(TokenPacker::Zlib(packer)) => packer.flush(out),
            Some(TokenPacker::Zstd(packer)) => packer.flush(out),
            Some(TokenPacker::Lz4(_)) | None => Ok(()),
        }
    }

    fn write_run(&mut self, out: &mut Outbox) {
        let Some(BlockRun { first, last }) = self.run.take() else { return };
        let more = last - first;
        match first.checked_sub(self.base).and_then(|distance| u8::try_from(distance).ok()) {
            Some(distance @ 0..=LOW) => out.put(&[if more > 0 { NEAR_RUN } else { NEAR } | distance]),
            _ => {
                out.put(&[if more > 0 { COPY_RUN } else { COPY }]);
                out.put(&first.to_le_bytes());
            }
        }
        if more > 0 {
            out.put(&(more as u16).to_le_bytes());
        }
        self.base = last;
    }
}
