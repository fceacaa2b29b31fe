//! Zstandard: one stream for the session, flushed and never ended.

use super::chunk::put_chunk;
use super::{CHUNK_MOST, PackError};
use crate::PeerError;
use crate::mux::Outbox;
use std::fmt;
use zstd::stream::raw::{DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// The largest window accepted, as a power of two: what the highest level uses, 128 MiB of memory.
const WINDOW_MOST: u32 = 27;

/// The writing side.
pub(super) struct ZstdPacker {
    level: i32,
    encoder: Option<Encoder<'static>>,
    chunk: Box<[u8]>,
    filled: usize,
}

impl ZstdPacker {
    pub(super) fn new(level: i32) -> Self {
        Self { level, encoder: None, chunk: vec![0; CHUNK_MOST].into(), filled: 0 }
    }

    pub(super) fn pack(&mut self, bytes: &[u8], out: &mut Outbox) -> Result<(), PackError> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => self.encoder.insert(Encoder::new(self.level).map_err(failed)?),
        };
        let mut input = InBuffer::around(bytes);
        while input.pos < bytes.len() {
            let mut output = OutBuffer::around_pos(&mut self.chunk[..], self.filled);
            encoder.run(&mut input, &mut output).map_err(failed)?;
            self.filled = output.pos();
            put_full(&self.chunk, &mut self.filled, out);
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, out: &mut Outbox) -> Result<(), PackError> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        loop {
            let mut output = OutBuffer::around_pos(&mut self.chunk[..], self.filled);
            let left = encoder.flush(&mut output).map_err(failed)?;
            self.filled = output.pos();
            if left == 0 {
                break;
            }
            put_full(&self.chunk, &mut self.filled, out);
        }
        put_chunk(&self.chunk[..self.filled], out);
        self.filled = 0;
        Ok(())
    }
}

fn put_full(chunk: &[u8], filled: &mut usize, out: &mut Outbox) {
    if *filled == chunk.len() {
        put_chunk(chunk, out);
        *filled = 0;
    }
}

fn failed(error: std::io::Error) -> PackError {
    PackError { method: "zstd", reason: error.to_string() }
}

impl fmt::Debug for ZstdPacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("level", &self.level).field("filled", &self.filled).finish_non_exhaustive()
    }
}

/// The reading side.
#[derive(Default)]
pub(super) struct ZstdUnpacker {
    decoder: Option<Decoder<'static>>,
}

impl ZstdUnpacker {
    /// How many bytes were used and how many came out.
    pub(super) fn unpack(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), PeerError> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            None => self.decoder.insert(decoder().map_err(bad)?),
        };
        let (mut input, mut output) = (InBuffer::around(input), OutBuffer::around(output));
        decoder.run(&mut input, &mut output).map_err(bad)?;
        Ok((input.pos, output.pos()))
    }
}

fn decoder() -> std::io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_MOST))?;
    Ok(decoder)
}

fn bad(_: std::io::Error) -> PeerError {
    PeerError::Malformed("zstd data that cannot be expanded")
}

impl fmt::Debug for ZstdUnpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}
