//! Compressed data on its way.

use super::{CHUNK, CHUNK_MOST};
use crate::mux::Outbox;

/// Writes compressed data that fits into one chunk.
pub(super) fn put_chunk(bytes: &[u8], out: &mut Outbox) {
    debug_assert!(bytes.len() <= CHUNK_MOST);
    if !bytes.is_empty() {
        out.put(&[CHUNK | (bytes.len() >> 8) as u8, bytes.len() as u8]);
        out.put(bytes);
    }
}
