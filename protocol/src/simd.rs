//! The loops over bytes that vectors speed up, compiled for several processors; which one runs is chosen at run time.
//!
//! Each loop is plain Rust, written so that the compiler makes vector code of it, and the same source for every processor: so
//! they cannot differ in meaning, only in the instructions. The one unsafe thing here is calling a function compiled for
//! a processor, after that processor was found to be there.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Which vectors this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vectors {
    /// What every machine of this kind has.
    Plain,
    /// AVX2, 32 bytes.
    Avx2,
    /// AVX-512 with byte and word operations, 64 bytes.
    Avx512,
}

/// The widest that may be used, see [`Vectors::limit`].
static WIDEST: AtomicU8 = AtomicU8::new(Vectors::Avx512 as u8);

impl Vectors {
    /// The best this machine has, within the limit.
    pub fn here() -> Self {
        let widest = match WIDEST.load(Relaxed) {
            0 => Self::Plain,
            1 => Self::Avx2,
            _ => Self::Avx512,
        };
        Self::found().min(widest)
    }

    /// From now on no wider ones are used in this process, so that each kind can be measured on one machine.
    pub fn limit(self) {
        WIDEST.store(self as u8, Relaxed);
    }

    /// Its name in words of lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    fn found() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx512vl") {
                return Self::Avx512;
            }
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2") {
                return Self::Avx2;
            }
        }
        Self::Plain
    }
}

/// Compiles a loop for each kind of vectors, with a function that chooses and one that is told.
macro_rules! compiled_for_each {
    ($(#[$doc:meta])* $name:ident, $with:ident = $plain:ident($($arg:ident: $kind:ty),*) -> $result:ty) => {
        compiled_for_each! { $(#[$doc])* $name, $with = $plain, $plain, $plain($($arg: $kind),*) -> $result }
    };
    ($(#[$doc:meta])* $name:ident, $with:ident = $wide:ident, $widest:ident, $plain:ident($($arg:ident: $kind:ty),*) -> $result:ty) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $kind),*) -> $result {
            $with(Vectors::here(), $($arg),*)
        }

        /// The same with these vectors, or with fewer where the machine lacks them.
        fn $with(vectors: Vectors, $($arg: $kind),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2")]
                fn avx2($($arg: $kind),*) -> $result {
                    $wide($($arg),*)
                }
                #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,bmi1,bmi2")]
                fn avx512($($arg: $kind),*) -> $result {
                    $widest($($arg),*)
                }
                match vectors.min(Vectors::here()) {
                    // SAFETY: `here` found the features that the function is compiled for, or more.
                    Vectors::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Vectors::Avx2 => return unsafe { avx2($($arg),*) },
                    Vectors::Plain => {}
                }
            }
            let _ = vectors;
            $plain($($arg),*)
        }
    };
}

compiled_for_each! {
    /// Both halves of a block's weak sum.
    weak_halves, weak_halves_with = plain_weak_halves(block: &[u8]) -> (u16, u16)
}

compiled_for_each! {
    /// Rolls a weak sum of `(s1, s2, length)` over bytes and notes each value; returns the last halves.
    roll_over, roll_over_with = avx2_roll_over, avx2_roll_over, plain_roll_over(state: (u16, u16, u16), leaving: &[u8], entering: &[u8], sums: &mut [u32]) -> (u16, u16)
}

compiled_for_each! {
    /// The first of these weak sums whose bit is set in a filter: bit number `sum * SPREAD >> shift`. The filter's length is
    /// a power of two.
    first_hit, first_hit_with = plain_first_hit(filter: &[u64], shift: u32, sums: &[u32]) -> Option<usize>
}

/// A byte as the weak sum sees it: signed.
#[inline(always)]
pub(crate) fn signed(byte: u8) -> u16 {
    byte as i8 as u16
}

#[inline(always)]
fn plain_weak_halves(block: &[u8]) -> (u16, u16) {
    // The block is read as rows, and each column summed for itself, which the compiler turns into vector code:
    // `sums` adds up a column, `rows_before` how often its bytes count once more for every row that follows.
    const ROW: usize = 64;
    let (mut sums, mut rows_before) = ([0u16; ROW], [0u16; ROW]);
    let (rows, rest) = block.as_chunks::<ROW>();
    for row in rows {
        for i in 0..ROW {
            rows_before[i] = rows_before[i].wrapping_add(sums[i]);
            sums[i] = sums[i].wrapping_add(signed(row[i]));
        }
    }
    let (mut s1, mut s2) = (0u16, 0u16);
    for i in 0..ROW {
        // Within its own row, the byte of column i counts (ROW - i) times.
        let of_row = sums[i].wrapping_mul((ROW - i) as u16);
        s2 = s2.wrapping_add(rows_before[i].wrapping_mul(ROW as u16)).wrapping_add(of_row);
        s1 = s1.wrapping_add(sums[i]);
    }
    for &byte in rest {
        s1 = s1.wrapping_add(signed(byte));
        s2 = s2.wrapping_add(s1);
    }
    (s1, s2)
}

#[inline(always)]
fn plain_roll_over((s1, s2, len): (u16, u16, u16), leaving: &[u8], entering: &[u8], sums: &mut [u32]) -> (u16, u16) {
    let (mut s1, mut s2) = (s1, s2);
    for ((&out, &in_), sum) in leaving.iter().zip(entering).zip(sums) {
        s1 = s1.wrapping_add(signed(in_).wrapping_sub(signed(out)));
        s2 = s2.wrapping_add(s1.wrapping_sub(len.wrapping_mul(signed(out))));
        *sum = u32::from(s1) | u32::from(s2) << 16;
    }
    (s1, s2)
}

/// Eight steps at a time. Both halves are running sums, which the compiler does not see, so here it is told: a running
/// sum over eight lanes is three shifts and additions.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn avx2_roll_over(state: (u16, u16, u16), leaving: &[u8], entering: &[u8], sums: &mut [u32]) -> (u16, u16) {
    use std::arch::x86_64::*;
    const LANES: usize = 8;
    let running = |lanes: __m128i| {
        let lanes = _mm_add_epi16(lanes, _mm_slli_si128::<2>(lanes));
        let lanes = _mm_add_epi16(lanes, _mm_slli_si128::<4>(lanes));
        _mm_add_epi16(lanes, _mm_slli_si128::<8>(lanes))
    };
    let last_to_all = |lanes| _mm_shuffle_epi8(lanes, _mm_set1_epi16(0x0f0e));
    let widened = |bytes: &[u8; LANES]| _mm_cvtepi8_epi16(_mm_set_epi64x(0, i64::from_le_bytes(*bytes)));
    let len = _mm_set1_epi16(state.2 as i16);
    let (mut s1, mut s2) = (_mm_set1_epi16(state.0 as i16), _mm_set1_epi16(state.1 as i16));
    let (outs, outs_left) = leaving.as_chunks::<LANES>();
    let (ins, ins_left) = entering.as_chunks::<LANES>();
    let (places, places_left) = sums[..leaving.len()].as_chunks_mut::<LANES>();
    for ((out, in_), place) in outs.iter().zip(ins).zip(places) {
        let (out, in_) = (widened(out), widened(in_));
        let first = _mm_add_epi16(s1, running(_mm_sub_epi16(in_, out)));
        let second = _mm_add_epi16(s2, running(_mm_sub_epi16(first, _mm_mullo_epi16(len, out))));
        let values = _mm256_set_m128i(_mm_unpackhi_epi16(first, second), _mm_unpacklo_epi16(first, second));
        // SAFETY: both are 32 bytes for which every value is valid.
        *place = unsafe { std::mem::transmute::<__m256i, [u32; LANES]>(values) };
        (s1, s2) = (last_to_all(first), last_to_all(second));
    }
    let halves = (_mm_extract_epi16::<0>(s1) as u16, _mm_extract_epi16::<0>(s2) as u16);
    plain_roll_over((halves.0, halves.1, state.2), outs_left, ins_left, places_left)
}

/// Spreads weak sums, which crowd in their lower half, over all 32 bits. Odd, so that equal keys mean equal sums.
pub(crate) const SPREAD: u32 = 0x9e37_79b1;

#[inline(always)]
fn plain_first_hit(filter: &[u64], shift: u32, sums: &[u32]) -> Option<usize> {
    let last = filter.len() - 1;
    let bit = |weak: u32| {
        let place = weak.wrapping_mul(SPREAD) >> shift;
        filter[(place >> 6) as usize & last].wrapping_shr(place & 63)
    };
    sums.iter().position(|&weak| bit(weak) & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    const KINDS: [Vectors; 3] = [Vectors::Plain, Vectors::Avx2, Vectors::Avx512];

    /// The definition, byte by byte.
    fn reference(block: &[u8]) -> (u16, u16) {
        block.iter().fold((0u16, 0u16), |(s1, s2), &byte| {
            let s1 = s1.wrapping_add(signed(byte));
            (s1, s2.wrapping_add(s1))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 400, rng_seed: RngSeed::Fixed(11), failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn every_kind_of_vectors_gives_the_same(bytes in prop::collection::vec(any::<u8>(), 1..900), len in 1usize..400) {
            let len = len.min(bytes.len());
            let steps = bytes.len() - len;
            for vectors in KINDS {
                prop_assert_eq!(weak_halves_with(vectors, &bytes), reference(&bytes));
                let (s1, s2) = reference(&bytes[..len]);
                let mut sums = vec![0; steps];
                let end = roll_over_with(vectors, (s1, s2, len as u16), &bytes[..steps], &bytes[len..], &mut sums);
                prop_assert_eq!(end, reference(&bytes[steps..]));
                for (at, sum) in sums.into_iter().enumerate() {
                    let (s1, s2) = reference(&bytes[at + 1..at + 1 + len]);
                    prop_assert_eq!(sum, u32::from(s1) | u32::from(s2) << 16);
                }
            }
        }
    }
}
