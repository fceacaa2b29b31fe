//! Weak sums, which roll over the bytes.

use crate::simd::{self, MULTIPLIER, widened};

/// A weak sum: cheap to move on by a byte, and equal by chance once in 2^32 at best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weak {
    /// Rsync's: the bytes are signed; two halves modulo 2^16.
    Rsync,
    /// Librsync's of old: the same of unsigned bytes, each raised by 31.
    Rollsum,
    /// Librsync's from 2.2 on: a polynomial modulo 2^32.
    RabinKarp,
}

/// The weak sum of a block: what [`Rolling`] reaches by rolling (rsync: `get_checksum1`).
pub fn weak(block: &[u8]) -> u32 {
    Rolling::new(block).value()
}

/// The weak sum of a window that slides over the bytes one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rolling {
    kind: Weak,
    sum: u32,
    power: u32, // of a polynomial: its multiplier to the power of the length
    len: u32,
}

impl Rolling {
    /// Rsync's sum of a first window.
    pub fn new(block: &[u8]) -> Rolling {
        Rolling::of(Weak::Rsync, block)
    }

    /// The sum of that kind of a first window.
    pub fn of(kind: Weak, block: &[u8]) -> Rolling {
        let len = block.len() as u32;
        let power = if kind == Weak::RabinKarp { MULTIPLIER.wrapping_pow(len) } else { 0 };
        let sum = match kind {
            Weak::Rsync => joined(simd::weak_halves(block)),
            Weak::Rollsum => joined(simd::raised_halves(block)),
            Weak::RabinKarp => simd::polynomial(block).wrapping_add(power),
        };
        Rolling { kind, sum, power, len }
    }

    /// Moves the window over `leaving.len()` bytes one by one and notes its value after each in `sums`, which is at least
    /// as long. As many bytes enter as leave.
    pub(crate) fn roll_over(&mut self, leaving: &[u8], entering: &[u8], sums: &mut [u32]) {
        let (s1, s2) = halves(self.sum);
        let state = (s1, s2, self.len as u16);
        self.sum = match self.kind {
            Weak::Rsync => joined(simd::roll_over(state, leaving, entering, sums)),
            Weak::Rollsum => joined(simd::raised_roll_over(state, leaving, entering, sums)),
            Weak::RabinKarp => simd::polynomial_over(self.sum, self.power, leaving, entering, sums),
        };
    }

    /// Takes the first byte, `out`, off the window, as at the end of a file. The window must not be empty.
    pub(crate) fn shrink(&mut self, out: u8) {
        let (s1, s2) = halves(self.sum);
        let without =
            |byte: u16| joined((s1.wrapping_sub(byte), s2.wrapping_sub((self.len as u16).wrapping_mul(byte))));
        self.sum = match self.kind {
            Weak::Rsync => without(widened::<false>(out)),
            Weak::Rollsum => without(widened::<true>(out)),
            Weak::RabinKarp => {
                self.power = self.power.wrapping_mul(INVERSE);
                self.sum.wrapping_sub(self.power.wrapping_mul(u32::from(out).wrapping_add(MULTIPLIER - 1)))
            }
        };
        self.len = self.len.wrapping_sub(1);
    }

    /// The weak sum as it is written.
    #[inline(always)]
    pub fn value(&self) -> u32 {
        self.sum
    }

    /// Length of the window, bytes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// The window holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn joined((s1, s2): (u16, u16)) -> u32 {
    u32::from(s1) | u32::from(s2) << 16
}

fn halves(sum: u32) -> (u16, u16) {
    (sum as u16, (sum >> 16) as u16)
}

/// What undoes a multiplication with the multiplier, modulo 2^32. Each round of Newton's doubles the bits that are right.
const INVERSE: u32 = {
    let mut inverse = MULTIPLIER;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(MULTIPLIER.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
};
