//! The loops over bytes that vectors speed up, compiled for several processors; which one runs is chosen at run time.
//!
//! Each loop is plain Rust, written so that the compiler makes vector code of it, and the same source for every processor: so
//! they cannot differ in meaning, only in the instructions. The one unsafe thing here is calling a function compiled for
//! a processor, after that processor was found to be there.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
#[allow(clippy::disallowed_types, reason = "see `LoopKind::winner`")]
use std::time::Instant;

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

/// The widest that may be used as [`Vectors::limit`] has it; [`RACED`] where a race decides.
static WIDEST: AtomicU8 = AtomicU8::new(RACED);

const RACED: u8 = u8::MAX;

/// What is done with vectors: which are best for one need not be for the other.
#[derive(Debug, Clone, Copy)]
enum LoopKind {
    /// Sums of blocks, and the search for them.
    Search,
    /// Sums of several messages at once.
    Messages,
}

impl Vectors {
    /// The widest this machine has, within the limit.
    pub fn here() -> Self {
        Self::found().min(Self::limited().unwrap_or(Self::Avx512))
    }

    /// Those that sums of blocks, and the search for them, are made with.
    pub fn for_search() -> Self {
        Self::chosen(LoopKind::Search)
    }

    /// From now on these and no others are used in this process where the machine has them, or the widest it has; with
    /// `None` those that are fastest here. So each kind can be measured on one machine.
    pub fn limit(vectors: Option<Self>) {
        WIDEST.store(vectors.map_or(RACED, |vectors| vectors as u8), Relaxed);
    }

    fn limited() -> Option<Self> {
        match WIDEST.load(Relaxed) {
            0 => Some(Self::Plain),
            1 => Some(Self::Avx2),
            2 => Some(Self::Avx512),
            _ => None,
        }
    }

    /// Those that loops of this kind are fastest with.
    fn chosen(kind: LoopKind) -> Self {
        static BEST: [OnceLock<Vectors>; 2] = [const { OnceLock::new() }; 2];
        match Self::limited() {
            Some(_) => Self::here(),
            None => *BEST[kind as usize].get_or_init(|| match Self::found() {
                Self::Avx512 => kind.winner(),
                found => found,
            }),
        }
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
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("bmi1") && has!("bmi2") {
                let widest = has!("avx512f") && has!("avx512bw") && has!("avx512vl");
                return if widest { Self::Avx512 } else { Self::Avx2 };
            }
        }
        Self::Plain
    }
}

impl LoopKind {
    /// AVX-512 or AVX2: whichever is faster here. On some processors the wider ones are slower where the bytes are in a
    /// cache already. Takes some 100 µs.
    #[allow(
        clippy::disallowed_types,
        reason = "the core's one look at a clock: nothing else tells how fast a processor is"
    )]
    fn winner(self) -> Vectors {
        const BYTES: usize = 32 * 1024;
        const ROUNDS: usize = 8;
        let bytes = [0x5a_u8; BYTES];
        let time = |vectors| {
            let began = Instant::now();
            match self {
                Self::Search => {
                    black_box(weak_halves_with(vectors, black_box(&bytes)));
                }
                Self::Messages => {
                    let lanes: [&[u8]; LANES] = std::array::from_fn(|lane| &bytes[lane * (BYTES / LANES)..][..512]);
                    md5_lanes_with(vectors, black_box(&mut [[1; LANES]; 4]), black_box(&lanes));
                }
            }
            began.elapsed()
        };
        // The shortest of each counts: whatever else goes on only makes it longer.
        let best = |vectors| (0..ROUNDS).map(|_| time(vectors)).min();
        let [wide, widest] = [Vectors::Avx2, Vectors::Avx512].map(best);
        if widest < wide { Vectors::Avx512 } else { Vectors::Avx2 }
    }
}

/// Compiles a loop for each kind of vectors, with a function that chooses and one that is told.
macro_rules! compiled_for_each {
    ($(#[$doc:meta])* $kind_of_loop:ident: $name:ident, $with:ident = $plain:path, ($($arg:ident: $kind:ty),*) -> $result:ty) => {
        compiled_for_each! { $(#[$doc])* $kind_of_loop: $name, $with = $plain, $plain, $plain, ($($arg: $kind),*) -> $result }
    };
    ($(#[$doc:meta])* $kind_of_loop:ident: $name:ident, $with:ident = $wide:path, $widest:path, $plain:path, ($($arg:ident: $kind:ty),*) -> $result:ty) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $kind),*) -> $result {
            $with(Vectors::chosen(LoopKind::$kind_of_loop), $($arg),*)
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
                match vectors.min(Vectors::found()) {
                    // SAFETY: `found` saw the features that the function is compiled for, or more.
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
    /// Both halves of a block's weak sum as rsync has it.
    Search: weak_halves, weak_halves_with = plain_weak_halves::<false>, (block: &[u8]) -> (u16, u16)
}

compiled_for_each! {
    /// Both halves of a block's weak sum as librsync's rollsum has it.
    Search: raised_halves, raised_halves_with = plain_weak_halves::<true>, (block: &[u8]) -> (u16, u16)
}

compiled_for_each! {
    /// Rolls a weak sum of `(s1, s2, length)` over bytes and notes each value; returns the last halves.
    Search: roll_over, roll_over_with = avx2_roll_over::<false>, avx2_roll_over::<false>, plain_roll_over::<false>, (state: (u16, u16, u16), leaving: &[u8], entering: &[u8], sums: &mut [u32]) -> (u16, u16)
}

compiled_for_each! {
    /// The same for librsync's rollsum.
    Search: raised_roll_over, raised_roll_over_with = avx2_roll_over::<true>, avx2_roll_over::<true>, plain_roll_over::<true>, (state: (u16, u16, u16), leaving: &[u8], entering: &[u8], sums: &mut [u32]) -> (u16, u16)
}

compiled_for_each! {
    /// The bytes as digits to the base of [`MULTIPLIER`], the first the highest, modulo 2^32.
    Search: polynomial, polynomial_with = plain_polynomial, (block: &[u8]) -> u32
}

compiled_for_each! {
    /// The first of these weak sums whose bit is set in a filter: bit number `sum * SPREAD >> shift`. The filter's length is
    /// a power of two.
    Search: first_hit, first_hit_with = plain_first_hit, (filter: &[u64], shift: u32, sums: &[u32]) -> Option<usize>
}

/// A byte as a weak sum sees it: signed in rsync's, unsigned and raised by 31 in librsync's.
#[inline(always)]
pub(crate) fn widened<const RAISED: bool>(byte: u8) -> u16 {
    if RAISED { u16::from(byte) + RAISE } else { byte as i8 as u16 }
}

/// What librsync's rollsum adds to each byte, so that zeros count.
const RAISE: u16 = 31;

#[inline(always)]
fn plain_weak_halves<const RAISED: bool>(block: &[u8]) -> (u16, u16) {
    // The block is read as rows, and each column summed for itself, which the compiler turns into vector code:
    // `sums` adds up a column, `rows_before` how often its bytes count once more for every row that follows.
    const ROW: usize = 64;
    let (mut sums, mut rows_before) = ([0u16; ROW], [0u16; ROW]);
    let (rows, rest) = block.as_chunks::<ROW>();
    for row in rows {
        for i in 0..ROW {
            rows_before[i] = rows_before[i].wrapping_add(sums[i]);
            sums[i] = sums[i].wrapping_add(widened::<RAISED>(row[i]));
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
        s1 = s1.wrapping_add(widened::<RAISED>(byte));
        s2 = s2.wrapping_add(s1);
    }
    (s1, s2)
}

#[inline(always)]
fn plain_roll_over<const RAISED: bool>(
    (s1, s2, len): (u16, u16, u16),
    leaving: &[u8],
    entering: &[u8],
    sums: &mut [u32],
) -> (u16, u16) {
    let (mut s1, mut s2) = (s1, s2);
    for ((&out, &in_), sum) in leaving.iter().zip(entering).zip(sums) {
        s1 = s1.wrapping_add(widened::<RAISED>(in_).wrapping_sub(widened::<RAISED>(out)));
        s2 = s2.wrapping_add(s1.wrapping_sub(len.wrapping_mul(widened::<RAISED>(out))));
        *sum = u32::from(s1) | u32::from(s2) << 16;
    }
    (s1, s2)
}

/// Eight steps at a time. Both halves are running sums, which the compiler does not see, so here it is told: a running
/// sum over eight lanes is three shifts and additions.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn avx2_roll_over<const RAISED: bool>(
    state: (u16, u16, u16),
    leaving: &[u8],
    entering: &[u8],
    sums: &mut [u32],
) -> (u16, u16) {
    use std::arch::x86_64::*;
    const LANES: usize = 8;
    let running = |lanes: __m128i| {
        let lanes = _mm_add_epi16(lanes, _mm_slli_si128::<2>(lanes));
        let lanes = _mm_add_epi16(lanes, _mm_slli_si128::<4>(lanes));
        _mm_add_epi16(lanes, _mm_slli_si128::<8>(lanes))
    };
    let last_to_all = |lanes| _mm_shuffle_epi8(lanes, _mm_set1_epi16(0x0f0e));
    let widened = |bytes: &[u8; LANES]| {
        let bytes = _mm_set_epi64x(0, i64::from_le_bytes(*bytes));
        if RAISED {
            _mm_add_epi16(_mm_cvtepu8_epi16(bytes), _mm_set1_epi16(RAISE as i16))
        } else {
            _mm_cvtepi8_epi16(bytes)
        }
    };
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
    plain_roll_over::<RAISED>((halves.0, halves.1, state.2), outs_left, ins_left, places_left)
}

/// The base of librsync's polynomial sums, a constant of the format.
pub(crate) const MULTIPLIER: u32 = 0x0810_4225;

#[inline(always)]
fn plain_polynomial(block: &[u8]) -> u32 {
    // As above, the block is read as rows and each column is a polynomial of its own, to the base of a whole row's power.
    const ROW: usize = 32;
    const ROW_POWER: u32 = MULTIPLIER.wrapping_pow(ROW as u32);
    let mut columns = [0u32; ROW];
    let (rows, rest) = block.as_chunks::<ROW>();
    for row in rows {
        for i in 0..ROW {
            columns[i] = columns[i].wrapping_mul(ROW_POWER).wrapping_add(u32::from(row[i]));
        }
    }
    let sum = columns.into_iter().fold(0u32, |sum, column| sum.wrapping_mul(MULTIPLIER).wrapping_add(column));
    rest.iter().fold(sum, |sum, &byte| sum.wrapping_mul(MULTIPLIER).wrapping_add(u32::from(byte)))
}

/// Rolls librsync's polynomial, which begins with a one before all bytes, over bytes and notes each value; returns the
/// last. `power` is the multiplier's for the window's length. Each step waits for the one before, so vectors are of no use.
pub(crate) fn polynomial_over(sum: u32, power: u32, leaving: &[u8], entering: &[u8], sums: &mut [u32]) -> u32 {
    // The one moves up with the bytes, and leaves together with each of them.
    let leaves = |out: u8| power.wrapping_mul(u32::from(out).wrapping_add(MULTIPLIER - 1));
    leaving.iter().zip(entering).zip(sums).fold(sum, |sum, ((&out, &in_), place)| {
        *place = sum.wrapping_mul(MULTIPLIER).wrapping_add(u32::from(in_)).wrapping_sub(leaves(out));
        *place
    })
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

/// Messages that are summed at once.
pub(crate) const LANES: usize = 16;

/// One word of each message.
type Words = [u32; LANES];

compiled_for_each! {
    /// Takes as many bytes of each message, a multiple of 64, into the MD5 states of all of them.
    Messages: md5_lanes, md5_lanes_with = plain_md5_lanes, (state: &mut [Words; 4], lanes: &[&[u8]; LANES]) -> ()
}

compiled_for_each! {
    /// The same for MD4.
    Messages: md4_lanes, md4_lanes_with = plain_md4_lanes, (state: &mut [Words; 4], lanes: &[&[u8]; LANES]) -> ()
}

/// Runs `mix` over each 64 bytes, turned so that words of one place lie together.
#[inline(always)]
fn over_chunks(state: &mut [Words; 4], lanes: &[&[u8]; LANES], mix: impl Fn([Words; 4], &[Words; 16]) -> [Words; 4]) {
    let chunks: [&[[u8; 64]]; LANES] = std::array::from_fn(|lane| lanes[lane].as_chunks().0);
    let count = chunks.iter().map(|chunks| chunks.len()).min().unwrap_or(0);
    let mut words = [[0; LANES]; 16];
    for at in 0..count {
        for (lane, chunks) in chunks.iter().enumerate() {
            let (parts, _) = chunks[at].as_chunks::<4>();
            for (words, part) in words.iter_mut().zip(parts) {
                words[lane] = u32::from_le_bytes(*part);
            }
        }
        let mixed = mix(*state, &words);
        for (old, new) in state.iter_mut().zip(mixed) {
            for (old, new) in old.iter_mut().zip(new) {
                *old = old.wrapping_add(new);
            }
        }
    }
}

/// A round in all lanes. Each step is written out, so that places and turns are constants and the state stays in registers.
macro_rules! steps {
    ($a:ident $b:ident $c:ident $d:ident $words:ident, [$($step:literal)*], $place:expr, $turns:expr, $constant:expr, |$x:ident, $y:ident, $z:ident| $mixed:expr, $before:literal) => {
        $({
            let word = &$words[$place($step) % 16];
            let mut next = [0u32; LANES];
            #[allow(clippy::needless_range_loop, reason = "six arrays go side by side")]
            for lane in 0..LANES {
                let ($x, $y, $z) = ($b[lane], $c[lane], $d[lane]);
                let sum = $a[lane].wrapping_add($mixed).wrapping_add(word[lane]).wrapping_add($constant($step));
                let turned = sum.rotate_left($turns[$step % 4]);
                next[lane] = if $before { $x.wrapping_add(turned) } else { turned };
            }
            ($a, $d, $c, $b) = ($d, $c, $b, next);
        })*
    };
}

#[inline(always)]
fn plain_md5_lanes(state: &mut [Words; 4], lanes: &[&[u8]; LANES]) {
    over_chunks(
        state,
        lanes,
        #[inline(always)]
        |[mut a, mut b, mut c, mut d], words| {
            steps!(a b c d words, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], |n: usize| n, [7, 12, 17, 22], |n: usize| SINES[n], |x, y, z| z ^ (x & (y ^ z)), true);
            steps!(a b c d words, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], |n: usize| 5 * n + 1, [5, 9, 14, 20], |n: usize| SINES[16 + n], |x, y, z| y ^ (z & (x ^ y)), true);
            steps!(a b c d words, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], |n: usize| 3 * n + 5, [4, 11, 16, 23], |n: usize| SINES[32 + n], |x, y, z| x ^ y ^ z, true);
            steps!(a b c d words, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], |n: usize| 7 * n, [6, 10, 15, 21], |n: usize| SINES[48 + n], |x, y, z| y ^ (x | !z), true);
            [a, b, c, d]
        },
    );
}

#[inline(always)]
fn plain_md4_lanes(state: &mut [Words; 4], lanes: &[&[u8]; LANES]) {
    const PLACES: [usize; 16] = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];
    over_chunks(
        state,
        lanes,
        #[inline(always)]
        |[mut a, mut b, mut c, mut d], words| {
            steps!(a b c d words, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], |n: usize| n, [3, 7, 11, 19], |_: usize| 0, |x, y, z| z ^ (x & (y ^ z)), false);
            steps!(a b c d words, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], |n: usize| n / 4 + 4 * (n % 4), [3, 5, 9, 13], |_: usize| 0x5a82_7999, |x, y, z| (x & y) | (z & (x | y)), false);
            steps!(a b c d words, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], |n: usize| PLACES[n], [3, 9, 11, 15], |_: usize| 0x6ed9_eba1, |x, y, z| x ^ y ^ z, false);
            [a, b, c, d]
        },
    );
}

/// MD5's constants: the sines of 1 to 64, 32 bits behind the point.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a,
    0xa830_4613, 0xfd46_9501, 0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be,
    0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821, 0xf61e_2562, 0xc040_b340,
    0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8,
    0x676f_02d9, 0x8d2a_4c8a, 0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c,
    0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70, 0x289b_7ec6, 0xeaa1_27fa,
    0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92,
    0xffef_f47d, 0x8584_5dd1, 0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1,
    0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// Miri takes thousands of times as long.
    const CASES: u32 = if cfg!(miri) { 2 } else { 400 };
    const BYTES: usize = if cfg!(miri) { 150 } else { 900 };

    const KINDS: [Vectors; 3] = [Vectors::Plain, Vectors::Avx2, Vectors::Avx512];

    /// The definition, byte by byte.
    fn reference<const RAISED: bool>(block: &[u8]) -> (u16, u16) {
        block.iter().fold((0u16, 0u16), |(s1, s2), &byte| {
            let s1 = s1.wrapping_add(widened::<RAISED>(byte));
            (s1, s2.wrapping_add(s1))
        })
    }

    /// So that no kind below goes untested where the machine has it; `make avx512` counts on that.
    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn the_vectors_found_are_those_the_kernel_lists() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap();
        let has_all =
            |wanted: &str| wanted.split(' ').all(|one| flags.split_ascii_whitespace().any(|flag| flag == one));
        let expected = match has_all("avx2 bmi1 bmi2") {
            true if has_all("avx512f avx512bw avx512vl") => Vectors::Avx512,
            true => Vectors::Avx2,
            false => Vectors::Plain,
        };
        assert_eq!(Vectors::found(), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: CASES, rng_seed: RngSeed::Fixed(11), failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn every_kind_of_vectors_gives_the_same(bytes in prop::collection::vec(any::<u8>(), 1..BYTES), len in 1usize..BYTES / 2) {
            let len = len.min(bytes.len());
            let digits = |digits: &[u8]| {
                digits.iter().fold(0u32, |sum, &byte| sum.wrapping_mul(MULTIPLIER).wrapping_add(u32::from(byte)))
            };
            for vectors in KINDS {
                prop_assert_eq!(polynomial_with(vectors, &bytes), digits(&bytes));
                prop_assert_eq!(weak_halves_with(vectors, &bytes), reference::<false>(&bytes));
                prop_assert_eq!(raised_halves_with(vectors, &bytes), reference::<true>(&bytes));
                check_rolling::<false>(&bytes, len, |state, out, in_, sums| roll_over_with(vectors, state, out, in_, sums))?;
                check_rolling::<true>(&bytes, len, |state, out, in_, sums| {
                    raised_roll_over_with(vectors, state, out, in_, sums)
                })?;
            }
        }
    }

    #[test]
    fn every_kind_of_vectors_probes_and_mixes_the_same() {
        let numbers: Vec<u32> = (1..200u32).map(|n| n.wrapping_mul(0x85eb_ca6b)).collect();
        let mut filter = [0u64; 4];
        let wanted = numbers[150].wrapping_mul(SPREAD) >> 24;
        filter[(wanted >> 6) as usize] |= 1 << (wanted & 63);
        let bytes: Vec<u8> = numbers.iter().map(|n| (n >> 24) as u8).collect();
        let lanes: [&[u8]; LANES] = std::array::from_fn(|lane| &bytes[lane..][..128]);
        let found = plain_first_hit(&filter, 24, &numbers);
        assert!(found.is_some());
        let (mut md5, mut md4) = ([[7; LANES]; 4], [[7; LANES]; 4]);
        plain_md5_lanes(&mut md5, &lanes);
        plain_md4_lanes(&mut md4, &lanes);
        for vectors in KINDS {
            assert_eq!(first_hit_with(vectors, &filter, 24, &numbers), found);
            let mut state = [[7; LANES]; 4];
            md5_lanes_with(vectors, &mut state, &lanes);
            assert_eq!(state, md5);
            let mut state = [[7; LANES]; 4];
            md4_lanes_with(vectors, &mut state, &lanes);
            assert_eq!(state, md4);
        }
    }

    fn check_rolling<const RAISED: bool>(
        bytes: &[u8],
        len: usize,
        roll: impl Fn((u16, u16, u16), &[u8], &[u8], &mut [u32]) -> (u16, u16),
    ) -> Result<(), TestCaseError> {
        let steps = bytes.len() - len;
        let (s1, s2) = reference::<RAISED>(&bytes[..len]);
        let mut sums = vec![0; steps];
        let end = roll((s1, s2, len as u16), &bytes[..steps], &bytes[len..], &mut sums);
        prop_assert_eq!(end, reference::<RAISED>(&bytes[steps..]));
        for (at, sum) in sums.into_iter().enumerate() {
            let (s1, s2) = reference::<RAISED>(&bytes[at + 1..at + 1 + len]);
            prop_assert_eq!(sum, u32::from(s1) | u32::from(s2) << 16);
        }
        Ok(())
    }
}
