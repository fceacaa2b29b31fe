//! Sums of blocks: seeded by the session, or as librsync's signature files have them.

use blake2::Blake2b256;
use md5::{Digest as _, Md5};
use twox_hash::{XxHash3_64, XxHash3_128, XxHash64};

use super::{Checksum, Rolling, Sum, Weak, lanes};
use crate::simd::LANES;

/// How the strong sums of blocks are made in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSeed {
    /// The agreed checksum.
    pub checksum: Checksum,
    /// The session's seed as the server sent it; 0 means none.
    pub seed: i32,
    /// MD5 takes the seed before the block (compat flag bit 5), not after it.
    pub seed_first: bool,
}

impl BlockSeed {
    /// Sums of `checksum` under the session's seed, `seed_first` as the session agreed on.
    pub fn new(checksum: Checksum, seed: i32, seed_first: bool) -> BlockSeed {
        BlockSeed { checksum, seed, seed_first }
    }

    /// The full strong sum of one block; the wire carries its first bytes only (rsync: `get_checksum2`).
    ///
    /// BLAKE3 is ours alone, and so is its rule: unkeyed, the seed's bytes before the block.
    pub fn sum(&self, block: &[u8]) -> Sum {
        let wide = i64::from(self.seed) as u64; // xxh takes 64 bits: the sign is extended
        let bytes = self.seed.to_le_bytes();
        let seed: &[u8] = if self.seed == 0 { &[] } else { &bytes };
        match self.checksum {
            Checksum::Xxh128 => Sum::of(XxHash3_128::oneshot_with_seed(wide, block).to_le_bytes()),
            Checksum::Xxh3 => Sum::of(XxHash3_64::oneshot_with_seed(wide, block).to_le_bytes()),
            Checksum::Xxh64 => Sum::of(XxHash64::oneshot(wide, block).to_le_bytes()),
            Checksum::Md5 => {
                let (first, second) = if self.seed_first { (seed, block) } else { (block, seed) };
                Sum::of(Md5::new().chain_update(first).chain_update(second).finalize().into())
            }
            Checksum::Md4 | Checksum::SeededMd4(_) => {
                Sum::of(md4::Md4::new().chain_update(block).chain_update(seed).finalize().into())
            }
            Checksum::Sha1 => Sum::of(sha1::Sha1::new().chain_update(seed).chain_update(block).finalize().into()),
            Checksum::None => Sum::zero(1),
            Checksum::Blake3 => Sum::of(*blake3::Hasher::new().update(seed).update(block).finalize().as_bytes()),
        }
    }
}

/// The strong sum of a block in librsync's signatures, unseeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureSum {
    /// BLAKE2b of 256 bits.
    Blake2,
    /// MD4, which anybody can collide.
    Md4,
}

impl SignatureSum {
    /// Length of the full sum, bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Blake2 => 32,
            Self::Md4 => 16,
        }
    }

    /// The full sum of a block.
    pub fn sum(self, block: &[u8]) -> Sum {
        match self {
            Self::Blake2 => Sum::of(Blake2b256::digest(block).into()),
            Self::Md4 => Sum::of(md4::Md4::digest(block).into()),
        }
    }
}

/// How both sums of the blocks in a table were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockRule {
    /// As an rsync session has them.
    Session(BlockSeed),
    /// As a signature of librsync has them; it does not say how long its last block is.
    Signature(Weak, SignatureSum),
}

impl From<BlockSeed> for BlockRule {
    fn from(seed: BlockSeed) -> Self {
        Self::Session(seed)
    }
}

impl BlockRule {
    /// The weak sum of a block, ready to roll on from there.
    pub fn rolling(&self, block: &[u8]) -> Rolling {
        match self {
            Self::Session(_) => Rolling::new(block),
            Self::Signature(weak, _) => Rolling::of(*weak, block),
        }
    }

    /// The full strong sum of a block.
    pub fn strong(&self, block: &[u8]) -> Sum {
        match self {
            Self::Session(seed) => seed.sum(block),
            Self::Signature(_, strong) => strong.sum(block),
        }
    }

    /// Blocks that are best summed together.
    pub(crate) fn at_once(&self) -> u32 {
        if self.lanes().is_some() { LANES as u32 } else { 1 }
    }

    /// The full strong sums of all blocks in these bytes, the last of which may be shorter, in order. An error comes from
    /// `each`, and ends it. Fastest with 16 blocks or more.
    pub fn strong_each<E>(
        &self,
        bytes: &[u8],
        block_length: usize,
        mut each: impl FnMut(&[u8], &Sum) -> Result<(), E>,
    ) -> Result<(), E> {
        let block_length = block_length.max(1);
        let mut rest = bytes;
        if let Some((kind, head, tail)) = self.lanes() {
            let whole = bytes.len() / block_length * block_length;
            for group in bytes[..whole].chunks(block_length * LANES) {
                let count = group.len() / block_length;
                if !lanes::pays(count) {
                    break;
                }
                // Lanes without a block of their own sum the last one once more.
                let block = |lane: usize| &group[lane.min(count - 1) * block_length..][..block_length];
                let blocks = std::array::from_fn(block);
                let sums = lanes::sums(kind, &head[..], &blocks, &tail[..]);
                blocks.iter().zip(sums).take(count).try_for_each(|(block, sum)| each(block, &Sum::of(sum)))?;
                rest = &rest[group.len()..];
            }
        }
        rest.chunks(block_length).try_for_each(|block| each(block, &self.strong(block)))
    }

    /// What several blocks at once are summed by, with what stands before and behind each, where that is possible.
    fn lanes(&self) -> Option<(lanes::LaneKind, Vec<u8>, Vec<u8>)> {
        let (kind, seed, seed_first) = match self {
            Self::Session(BlockSeed { checksum: Checksum::Md5, seed, seed_first }) => {
                (lanes::LaneKind::Md5, *seed, *seed_first)
            }
            Self::Session(BlockSeed { checksum: Checksum::Md4 | Checksum::SeededMd4(_), seed, .. }) => {
                (lanes::LaneKind::Md4, *seed, false)
            }
            Self::Signature(_, SignatureSum::Md4) => (lanes::LaneKind::Md4, 0, false),
            _ => return None,
        };
        let seed = if seed == 0 { Vec::new() } else { seed.to_le_bytes().to_vec() };
        Some(if seed_first { (kind, seed, Vec::new()) } else { (kind, Vec::new(), seed) })
    }

    /// Equal strong sums say nothing about blocks.
    pub(crate) fn proves_nothing(&self) -> bool {
        matches!(self, Self::Session(seed) if seed.checksum == Checksum::None)
    }
}
