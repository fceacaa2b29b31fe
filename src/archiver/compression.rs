//! Whether sessions are compressed: always, never, or as long as it pays.
//!
//! It pays where the link is slower than the compressor and the files are not dense already. Neither is asked: what
//! sessions of both kinds have moved in a second tells, and the other kind is tried again now and then.

use protocol::compress::{Choice, Wish};
use std::time::Duration;

/// The quickest level: the link, not the disk, is what waits.
pub(super) const LEVEL: i32 = 1;
/// Sessions that move less say more of round trips than of bytes.
const TELLING_BYTES: u64 = 4 << 20;
/// What compressed sessions must move more, as a factor.
const PAYS: f64 = 1.1;
/// Telling sessions until the other kind is tried again.
const AGAIN: u32 = 32;
/// The weight of the newest session.
const WEIGHT: f64 = 0.4;

/// Compression of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Compress {
    /// Never
    #[default]
    No,
    /// Always, with what both ends know
    Yes,
    /// As long as it makes sessions faster
    Auto,
}

/// How one session sends the data of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Plain,
    Compressed,
}

impl Coding {
    /// What the handshake of the session says of it.
    pub(super) fn wish(self) -> Wish {
        match self {
            Self::Plain => Wish::OFF,
            Self::Compressed => Wish { choice: Choice::Negotiated, level: Some(LEVEL) },
        }
    }
}

/// Judges it for the sessions of one worker.
#[derive(Debug, Default)]
pub(super) struct CompressionTuner {
    /// Bytes of files per second in plain and in compressed sessions.
    rates: [Option<f64>; 2],
    /// Telling sessions of one kind in a row.
    alike: u32,
}

impl CompressionTuner {
    /// How the next session sends.
    pub(super) fn next(&self, compress: Compress) -> Coding {
        let compressed = match (compress, self.rates) {
            (Compress::No, _) => false,
            (Compress::Yes, _) => true,
            (Compress::Auto, [None, _]) => false,
            (Compress::Auto, [_, None]) => true,
            (Compress::Auto, [Some(plain), Some(compressed)]) => (compressed > plain * PAYS) ^ (self.alike >= AGAIN),
        };
        if compressed { Coding::Compressed } else { Coding::Plain }
    }

    /// A session moved so much of files in this time.
    pub(super) fn learn(&mut self, coding: Coding, bytes: u64, took: Duration) {
        if bytes < TELLING_BYTES {
            return;
        }
        let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
        let other_kind = self.alike >= AGAIN;
        self.alike = if other_kind { 0 } else { self.alike + 1 };
        let known = &mut self.rates[coding as usize];
        // What was learned of the kind that was tried again is old.
        *known = Some(known.filter(|_| !other_kind).map_or(rate, |known| known + (rate - known) * WEIGHT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays sessions of so many bytes; how many of them were compressed.
    fn play(tuner: &mut CompressionTuner, sessions: u32, bytes: u64, seconds: impl Fn(bool) -> f64) -> u32 {
        (0..sessions)
            .map(|_| {
                let coding = tuner.next(Compress::Auto);
                let compressed = coding == Coding::Compressed;
                tuner.learn(coding, bytes, Duration::from_secs_f64(seconds(compressed)));
                u32::from(compressed)
            })
            .sum()
    }

    #[test]
    fn what_is_faster_is_kept_and_the_other_tried_again() {
        let mut tuner = CompressionTuner::default();
        let slow_link = |compressed| if compressed { 2.0 } else { 8.0 };
        assert!((93..=97).contains(&play(&mut tuner, 100, 100 << 20, slow_link)));
        // The link becomes fast.
        let fast_link = |compressed| if compressed { 0.5 } else { 0.2 };
        assert!(play(&mut tuner, 200, 100 << 20, fast_link) <= 34 + 200 / AGAIN);
        // Dense files: nothing gained is nothing done.
        assert!(play(&mut CompressionTuner::default(), 100, 100 << 20, |_| 1.0) <= 4);
    }

    #[test]
    fn small_sessions_tell_nothing() {
        let mut tuner = CompressionTuner::default();
        assert_eq!(play(&mut tuner, 50, 1000, |compressed| if compressed { 0.1 } else { 1.0 }), 0);
        assert_eq!(
            [Compress::Yes, Compress::No].map(|compress| tuner.next(compress)),
            [Coding::Compressed, Coding::Plain]
        );
    }
}
