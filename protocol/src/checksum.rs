//! Rolling and strong checksums, and how each is seeded.
//! Knows no versions: what the handshake agreed arrives as a [`Checksum`], a seed and its place. Counterpart: rsync's
//! `checksum.c`.

mod blocks;
mod lanes;
mod rolling;

pub use blocks::{BlockRule, BlockSeed, SignatureSum};
pub use rolling::{Rolling, Weak, weak};

use std::fmt;
use std::hash::Hasher as _;

use md5::{Digest as _, Md5};
use twox_hash::{XxHash3_64, XxHash3_128, XxHash64};

/// A strong checksum both sides may agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// XXH3, 128 bits.
    Xxh128,
    /// XXH3, 64 bits.
    Xxh3,
    /// XXH64.
    Xxh64,
    /// MD5.
    Md5,
    /// MD4 as chosen by name.
    Md4,
    /// The unnamed MD4 of protocols below 30: sums of whole files begin with the session's seed, even if it is 0.
    SeededMd4(i32),
    /// SHA-1.
    Sha1,
    /// No checksum: one zero byte stands in its place.
    None,
    /// BLAKE3. Stock rsync does not know it; only for two ends of ours.
    Blake3,
}

impl Checksum {
    /// The name in negotiation lists and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xxh128 => "xxh128",
            Self::Xxh3 => "xxh3",
            Self::Xxh64 => "xxh64",
            Self::Md5 => "md5",
            Self::Md4 | Self::SeededMd4(_) => "md4",
            Self::Sha1 => "sha1",
            Self::None => "none",
            Self::Blake3 => "blake3",
        }
    }

    /// The checksum of that name; `xxhash` is an old name of `xxh64`.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"xxh128" => Self::Xxh128,
            b"xxh3" => Self::Xxh3,
            b"xxh64" | b"xxhash" => Self::Xxh64,
            b"md5" => Self::Md5,
            b"md4" => Self::Md4,
            b"sha1" => Self::Sha1,
            b"none" => Self::None,
            b"blake3" => Self::Blake3,
            _ => return None,
        })
    }

    /// Length of the full digest, bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Xxh128 | Self::Md5 | Self::Md4 | Self::SeededMd4(_) => 16,
            Self::Xxh3 | Self::Xxh64 => 8,
            Self::Sha1 => 20,
            Self::None => 1,
            Self::Blake3 => 32,
        }
    }
}

/// A strong checksum's value, 1 to 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    bytes: [u8; 32], // zero beyond `len`, so that the derived equality holds
    len: u8,
}

impl Sum {
    /// Takes over a value's bytes; `None` unless there are 1 to 32 of them.
    pub fn new(value: &[u8]) -> Option<Sum> {
        let len = u8::try_from(value.len()).ok().filter(|n| (1..=32).contains(n))?;
        let mut bytes = [0; 32];
        bytes[..value.len()].copy_from_slice(value);
        Some(Sum { bytes, len })
    }

    /// The value of `len` zero bytes, what stands for a file that could not be read; `len` is held to 1..=32.
    pub fn zero(len: usize) -> Sum {
        Sum { bytes: [0; 32], len: len.clamp(1, 32) as u8 }
    }

    /// The value in the order the wire carries it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// A digest of known size, 1 to 32 bytes.
    fn of<const N: usize>(digest: [u8; N]) -> Sum {
        const { assert!(N >= 1 && N <= 32) };
        let mut bytes = [0; 32];
        bytes[..N].copy_from_slice(&digest);
        Sum { bytes, len: N as u8 }
    }
}

impl Checksum {
    /// Whether the sums of whole files depend on the session.
    pub fn is_seeded(self) -> bool {
        matches!(self, Self::SeededMd4(_))
    }

    /// A sum as rsync shows it: the numbers that XXH makes are read from their high end.
    pub fn text(self, sum: &Sum) -> String {
        match self {
            Self::Xxh128 | Self::Xxh3 | Self::Xxh64 => {
                sum.as_bytes().iter().rev().map(|byte| format!("{byte:02x}")).collect()
            }
            _ => sum.to_string(),
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sum({self})")
    }
}

/// The sum of a whole file, as it is sent after the tokens and in the file list.
pub struct FileHasher(HasherState);

enum HasherState {
    Xxh128(Box<XxHash3_128>),
    Xxh3(Box<XxHash3_64>),
    Xxh64(XxHash64),
    Md5(Md5),
    Md4(md4::Md4),
    Sha1(sha1::Sha1),
    None,
    Blake3(Box<blake3::Hasher>),
}

impl FileHasher {
    /// Begins a file.
    pub fn new(checksum: Checksum) -> FileHasher {
        FileHasher(match checksum {
            Checksum::Xxh128 => HasherState::Xxh128(Box::new(XxHash3_128::new())),
            Checksum::Xxh3 => HasherState::Xxh3(Box::new(XxHash3_64::new())),
            Checksum::Xxh64 => HasherState::Xxh64(XxHash64::with_seed(0)),
            Checksum::Md5 => HasherState::Md5(Md5::new()),
            Checksum::Md4 => HasherState::Md4(md4::Md4::new()),
            Checksum::SeededMd4(seed) => HasherState::Md4(md4::Md4::new().chain_update(seed.to_le_bytes())),
            Checksum::Sha1 => HasherState::Sha1(sha1::Sha1::new()),
            Checksum::None => HasherState::None,
            Checksum::Blake3 => HasherState::Blake3(Box::default()),
        })
    }

    /// Adds the file's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            HasherState::Xxh128(state) => state.write(bytes),
            HasherState::Xxh3(state) => state.write(bytes),
            HasherState::Xxh64(state) => state.write(bytes),
            HasherState::Md5(state) => state.update(bytes),
            HasherState::Md4(state) => state.update(bytes),
            HasherState::Sha1(state) => state.update(bytes),
            HasherState::None => {}
            HasherState::Blake3(state) => {
                state.update(bytes);
            }
        }
    }

    /// The sum of everything added.
    pub fn finish(self) -> Sum {
        match self.0 {
            // The wire wants the low half first: the 128 bits little-endian.
            HasherState::Xxh128(state) => Sum::of(state.finish_128().to_le_bytes()),
            HasherState::Xxh3(state) => Sum::of(state.finish().to_le_bytes()),
            HasherState::Xxh64(state) => Sum::of(state.finish().to_le_bytes()),
            HasherState::Md5(state) => Sum::of(state.finalize().into()),
            HasherState::Md4(state) => Sum::of(state.finalize().into()),
            HasherState::Sha1(state) => Sum::of(state.finalize().into()),
            HasherState::None => Sum::zero(1),
            HasherState::Blake3(state) => Sum::of(*state.finalize().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests;
