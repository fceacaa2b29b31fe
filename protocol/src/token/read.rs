//! Reads the tokens of one file after the other.

use super::{CHUNK, COPY, COPY_RUN, END, LITERAL_MOST, LOW, NEAR, NEAR_RUN, TokenHead, block_of};
use super::{lz4, zlib, zstd};
use crate::PeerError;
use crate::compress::Method;
use crate::handshake::Negotiated;
use crate::sums::{BlockIndex, SumHead};
use crate::wire::{Decode, Decoded, Reader};

/// What a step through the bytes came to. What the reader is past has been used, whatever the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenEvent {
    /// Nothing to tell yet: go on.
    Nothing,
    /// So many of the bytes next in the reader are part of the file, as they stand there.
    Plain(usize),
    /// [`TokenReader::unpacked`] is part of the file.
    Unpacked,
    /// A block of the basis. Tell its bytes by [`TokenReader::matched`] before the next step.
    Copy(BlockIndex),
    /// The end of the file; its sum follows.
    End,
}

/// Turns bytes into literals and blocks, in the coding that the session agreed on.
///
/// Memory is a buffer of 32 KiB besides the method's own window: 32 KiB for deflate, at most 128 MiB for zstd.
#[derive(Debug)]
pub struct TokenReader {
    unpacker: Option<TokenUnpacker>,
    /// What the tokens of this file may name.
    head: SumHead,
    /// Bytes to come of the open literal or chunk.
    left: usize,
    /// The unpacker may have more for us without further bytes.
    more: bool,
    /// Bytes to come of what ends a flush and does not travel.
    flush_left: usize,
    /// Blocks to come of a run, and the one that is next.
    run: u32,
    next: BlockIndex,
    /// The block that the next distance counts from.
    base: u32,
    buffer: Box<[u8]>,
    filled: usize,
}

/// The decompressor of a session.
#[derive(Debug)]
enum TokenUnpacker {
    Zlib(zlib::ZlibUnpacker),
    Lz4,
    Zstd(zstd::ZstdUnpacker),
}

impl TokenReader {
    /// The reader of a session.
    pub fn new(n: &Negotiated) -> Self {
        let unpacker = match n.compression.method {
            Method::None => None,
            Method::Zlib => Some(TokenUnpacker::Zlib(zlib::ZlibUnpacker::new(zlib::History::with_blocks(n.version)))),
            Method::Zlibx => Some(TokenUnpacker::Zlib(zlib::ZlibUnpacker::new(zlib::History::literals_only()))),
            Method::Lz4 => Some(TokenUnpacker::Lz4),
            Method::Zstd => Some(TokenUnpacker::Zstd(zstd::ZstdUnpacker::default())),
        };
        let buffer = if unpacker.is_some() { vec![0; LITERAL_MOST].into() } else { Box::default() };
        Self {
            unpacker,
            head: SumHead::NONE,
            left: 0,
            more: false,
            flush_left: 0,
            run: 0,
            next: BlockIndex(0),
            base: 0,
            buffer,
            filled: 0,
        }
    }

    /// Begins a file whose tokens answer this head.
    pub fn begin(&mut self, head: SumHead) {
        (self.head, self.left, self.more, self.flush_left, self.run, self.base) = (head, 0, false, 0, 0, 0);
        if let Some(TokenUnpacker::Zlib(unpacker)) = &mut self.unpacker {
            unpacker.begin();
        }
    }

    /// Literal bytes, after [`TokenEvent::Unpacked`].
    pub fn unpacked(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Whether the coding needs the bytes of blocks.
    pub fn wants_matched(&self) -> bool {
        matches!(self.unpacker, Some(TokenUnpacker::Zlib(_)))
    }

    /// The bytes of the block that the last step named. One coding needs them, the others pass over them.
    pub fn matched(&mut self, block: &[u8]) -> Result<(), PeerError> {
        match &mut self.unpacker {
            Some(TokenUnpacker::Zlib(unpacker)) => unpacker.matched(block),
            _ => Ok(()),
        }
    }

    /// Goes one step through the bytes.
    pub fn step(&mut self, reader: &mut Reader<'_>) -> Decoded<TokenEvent> {
        if self.run > 0 {
            return self.next_of_run();
        }
        match self.unpacker {
            None => self.plain_step(reader),
            Some(_) => self.packed_step(reader),
        }
    }

    fn plain_step(&mut self, reader: &mut Reader<'_>) -> Decoded<TokenEvent> {
        if self.left == 0 {
            match TokenHead::decode(reader, &self.head)? {
                TokenHead::Literal(len) => self.left = len as usize,
                TokenHead::Copy(block) => return Ok(TokenEvent::Copy(block)),
                TokenHead::End => return Ok(TokenEvent::End),
            }
            return Ok(TokenEvent::Nothing);
        }
        let now = self.left.min(reader.rest().len());
        if now == 0 {
            return Err(Decode::Incomplete);
        }
        self.left -= now;
        Ok(TokenEvent::Plain(now))
    }

    fn packed_step(&mut self, reader: &mut Reader<'_>) -> Decoded<TokenEvent> {
        if self.left > 0 || self.more {
            return self.unpack(reader);
        }
        let mut after = reader.clone();
        let first = after.byte()?;
        if first & !LOW == CHUNK {
            self.left = usize::from(first & LOW) << 8 | usize::from(after.byte()?);
            self.flush_left = zlib::FLUSH_END.len();
            *reader = after;
            return Ok(TokenEvent::Nothing);
        }
        if self.flush_left > 0 && matches!(self.unpacker, Some(TokenUnpacker::Zlib(_))) {
            return self.end_flush();
        }
        let event = match (first & !LOW, first) {
            (_, END) => TokenEvent::End,
            (_, COPY) => self.blocks(i64::from(after.int()?), 0)?,
            (_, COPY_RUN) => {
                let block = after.int()?;
                self.blocks(i64::from(block), after.short()?)?
            }
            (NEAR, _) => self.blocks(i64::from(self.base) + i64::from(first & LOW), 0)?,
            (NEAR_RUN, _) => {
                let more = after.short()?;
                self.blocks(i64::from(self.base) + i64::from(first & LOW), more)?
            }
            _ => {
                let expected = "the first byte of a compressed token";
                return Err(PeerError::Range { what: "token", value: first.into(), expected }.into());
            }
        };
        *reader = after;
        Ok(event)
    }

    /// A block and `more` behind it.
    fn blocks(&mut self, first: i64, more: u16) -> Decoded<TokenEvent> {
        let last = block_of(first + i64::from(more), &self.head)?;
        let first = block_of(first, &self.head)?;
        (self.base, self.next, self.run) = (last.0, first, u32::from(more) + 1);
        self.next_of_run()
    }

    fn next_of_run(&mut self) -> Decoded<TokenEvent> {
        let block = self.next;
        self.run -= 1;
        self.next = BlockIndex(block.0 + 1);
        Ok(TokenEvent::Copy(block))
    }

    /// Takes what there is of the open chunk.
    fn unpack(&mut self, reader: &mut Reader<'_>) -> Decoded<TokenEvent> {
        let now = self.left.min(reader.rest().len());
        let input = &reader.rest()[..now];
        if input.is_empty() && !self.more {
            return Err(Decode::Incomplete);
        }
        let (used, came) = match &mut self.unpacker {
            Some(TokenUnpacker::Zlib(unpacker)) => unpacker.unpack(input, &mut self.buffer)?,
            Some(TokenUnpacker::Zstd(unpacker)) => unpacker.unpack(input, &mut self.buffer)?,
            // A block of this kind is expanded whole.
            Some(TokenUnpacker::Lz4) if now < self.left => return Err(Decode::Incomplete),
            Some(TokenUnpacker::Lz4) => (now, lz4::unpack(input, &mut self.buffer)?),
            None => (0, 0),
        };
        if used == 0 && came == 0 && !input.is_empty() && !self.more {
            return Err(PeerError::Malformed("compressed data that comes to nothing").into());
        }
        reader.take(used)?;
        self.left -= used;
        self.came(came)
    }

    /// Gives the inflater the end of a flush, which does not travel.
    fn end_flush(&mut self) -> Decoded<TokenEvent> {
        let Some(TokenUnpacker::Zlib(unpacker)) = &mut self.unpacker else { return Ok(TokenEvent::Nothing) };
        let input = &zlib::FLUSH_END[zlib::FLUSH_END.len() - self.flush_left..];
        let (used, came) = unpacker.unpack(input, &mut self.buffer)?;
        if used == 0 && came == 0 {
            return Err(PeerError::Malformed("deflated data that does not end with a flush").into());
        }
        self.flush_left -= used;
        self.came(came)
    }

    fn came(&mut self, came: usize) -> Decoded<TokenEvent> {
        self.filled = came;
        // A full buffer says that there may be more; LZ4 blocks are done with one.
        self.more = came == self.buffer.len() && !matches!(self.unpacker, Some(TokenUnpacker::Lz4));
        Ok(if came > 0 { TokenEvent::Unpacked } else { TokenEvent::Nothing })
    }
}
