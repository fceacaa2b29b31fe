//! The data that is measured with: new files, and the old copies they replace.

use super::BenchError;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// How an old copy differs from the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldCopy {
    /// Not at all; only its time is another.
    Identical,
    /// In one percent of its bytes, in runs of 16 KiB all over it.
    Changed,
    /// It lacks a kilobyte after its first quarter.
    Inserted,
    /// It lacks the last eleventh: the new file is 10 % longer.
    Appended,
    /// In everything.
    Unrelated,
}

impl OldCopy {
    /// The scenario's id.
    pub fn id(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Changed => "changed",
            Self::Inserted => "inserted",
            Self::Appended => "appended",
            Self::Unrelated => "unrelated",
        }
    }

    /// All of them.
    pub const ALL: [Self; 5] = [Self::Identical, Self::Changed, Self::Inserted, Self::Appended, Self::Unrelated];

    /// The old copy that belongs to a new file.
    pub fn old_copy(self, new: &[u8]) -> Vec<u8> {
        match self {
            Self::Identical => new.to_vec(),
            Self::Changed => {
                const RUN: usize = 16 * 1024;
                let mut old = new.to_vec();
                let (every, run) = if old.len() >= 100 * RUN { (100 * RUN, RUN) } else { (100, 1) };
                for (number, part) in old.chunks_mut(every).enumerate() {
                    // At another place in each part, so that block borders are met in every way.
                    let at = number * 7919 % every;
                    part.iter_mut().skip(at).take(run).for_each(|byte| *byte = !*byte);
                }
                old
            }
            Self::Inserted => {
                let at = new.len() / 4;
                let gone = 1024.min(new.len() - at);
                [&new[..at], &new[at + gone..]].concat()
            }
            Self::Appended => new[..new.len() / 11 * 10].to_vec(),
            Self::Unrelated => noise(new.len(), 0x5eed),
        }
    }
}

/// Bytes that look random, and are the same for the same seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut state = Noise::new(seed);
    while bytes.len() < len {
        bytes.extend_from_slice(&state.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// SplitMix64.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Writes a file of noise, a piece at a time.
pub(super) fn write_noise(path: &Path, len: u64, seed: u64) -> Result<(), BenchError> {
    let write = || {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut state = Noise::new(seed);
        for _ in 0..len / 8 {
            file.write_all(&state.next().to_le_bytes())?;
        }
        file.write_all(&state.next().to_le_bytes()[..len as usize % 8])?;
        file.flush()
    };
    write().map_err(BenchError::local("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_copies_differ_as_they_say() {
        let new = noise(8 << 20, 1);
        let differing = |old: &[u8]| old.iter().zip(&new).filter(|(a, b)| a != b).count();
        assert_eq!(OldCopy::Identical.old_copy(&new), new);
        let changed = OldCopy::Changed.old_copy(&new);
        let share = differing(&changed) as f64 / new.len() as f64;
        assert!(changed.len() == new.len() && (0.005..=0.012).contains(&share), "{share}");
        let inserted = OldCopy::Inserted.old_copy(&new);
        assert_eq!(inserted.len(), new.len() - 1024);
        assert_eq!((&inserted[..2 << 20], &inserted[2 << 20..]), (&new[..2 << 20], &new[(2 << 20) + 1024..]));
        let appended = OldCopy::Appended.old_copy(&new);
        assert_eq!(appended, new[..appended.len()]);
        assert!(differing(&OldCopy::Unrelated.old_copy(&new)) > new.len() / 100 * 99);
        for kind in OldCopy::ALL {
            let _ = kind.old_copy(&[]);
            let _ = kind.old_copy(&[1]);
        }
    }

    #[test]
    fn noise_in_a_file_is_the_noise_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise");
        write_noise(&path, 100_003, 9).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), noise(100_003, 9));
        assert_ne!(noise(64, 9), noise(64, 10));
    }
}
