//! MD5 and MD4 of several messages of one length at once: each is a chain of steps that wait for one another, so one
//! message leaves most of a processor idle.

use crate::simd::{self, LANES, Vectors};

/// With fewer messages than this it is not worth while.
const LEAST: usize = 4;

/// Which sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneKind {
    Md5,
    Md4,
}

/// Whether this many messages are worth the trouble on this machine.
pub(super) fn pays(messages: usize) -> bool {
    messages >= LEAST && Vectors::here() > Vectors::Plain
}

/// The sums of `head`, a block and `tail`, for each block. All blocks have one length; `head` and `tail` are at most 4 bytes.
pub(super) fn sums(kind: LaneKind, head: &[u8], blocks: &[&[u8]; LANES], tail: &[u8]) -> [[u8; 16]; LANES] {
    let len = blocks[0].len();
    let total = head.len() + len + tail.len();
    let mut state = [[0x6745_2301; LANES], [0xefcd_ab89; LANES], [0x98ba_dcfe; LANES], [0x1032_5476; LANES]];
    let mut mix = |lanes: &[&[u8]; LANES]| match kind {
        LaneKind::Md5 => simd::md5_lanes(&mut state, lanes),
        LaneKind::Md4 => simd::md4_lanes(&mut state, lanes),
    };
    let mut buffers = [[0u8; 128]; LANES];
    let mut from = 0;
    let mut head = head;
    if !head.is_empty() && head.len() + len >= 64 {
        from = 64 - head.len();
        for (buffer, block) in buffers.iter_mut().zip(blocks) {
            buffer[..head.len()].copy_from_slice(head);
            buffer[head.len()..64].copy_from_slice(&block[..from]);
        }
        mix(&std::array::from_fn(|lane| &buffers[lane][..64]));
        head = &[];
    }
    let whole = (len - from) / 64 * 64;
    mix(&std::array::from_fn(|lane| &blocks[lane][from..from + whole]));
    from += whole;
    let rest = head.len() + (len - from) + tail.len();
    let padded = if rest + 9 <= 64 { 64 } else { 128 };
    for (buffer, block) in buffers.iter_mut().zip(blocks) {
        buffer.fill(0);
        let parts = [head, &block[from..], tail, &[0x80]];
        let mut at = 0;
        for part in parts {
            buffer[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        buffer[padded - 8..padded].copy_from_slice(&(total as u64 * 8).to_le_bytes());
    }
    mix(&std::array::from_fn(|lane| &buffers[lane][..padded]));
    std::array::from_fn(|lane| {
        let mut sum = [0; 16];
        for (place, words) in sum.chunks_exact_mut(4).zip(&state) {
            place.copy_from_slice(&words[lane].to_le_bytes());
        }
        sum
    })
}
