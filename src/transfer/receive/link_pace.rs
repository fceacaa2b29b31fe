//! How fast the link brings a file, as the receiver feels it.

use std::time::{Duration, Instant};

/// Where the receiver waits for less than this part of its time, it is itself what bytes wait for.
const BUSY: u32 = 8;

/// Bytes of one file that came over the link, and the time they took. Instants are given, never asked for.
#[derive(Debug)]
pub(super) struct LinkPace {
    /// Bytes of the reads that count.
    bytes: u64,
    waited: Duration,
    /// Waiting included.
    passed: Duration,
    /// When the last read that counts was begun, and when it brought something.
    read: Option<(Instant, Instant)>,
}

impl LinkPace {
    /// Nothing has come that counts.
    pub(super) fn new() -> Self {
        Self { bytes: 0, waited: Duration::ZERO, passed: Duration::ZERO, read: None }
    }

    /// A read from the link; it `counts` unless the sender had to wait for us when it began.
    pub(super) fn read(&mut self, began: Instant, ended: Instant, counts: bool) {
        self.settle(began);
        self.read = counts.then_some((began, ended));
    }

    /// Literal bytes that the last read brought.
    pub(super) fn bring(&mut self, bytes: u64) {
        if self.read.is_some() {
            self.bytes += bytes;
        }
    }

    /// The file has come: bytes, and the time of the link for them. That is all the time that passed, but next to none
    /// where the link was hardly waited for.
    pub(super) fn end(mut self, now: Instant) -> (u64, Duration) {
        self.settle(now);
        (self.bytes, self.passed.min(self.waited.saturating_mul(BUSY)))
    }

    /// What the last read brought is done with.
    fn settle(&mut self, now: Instant) {
        if let Some((began, ended)) = self.read.take() {
            self.waited += ended.saturating_duration_since(began);
            self.passed += now.saturating_duration_since(began);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays reads of so many milliseconds, each with the work after it, 1000 bytes each.
    fn play(reads: &[(u64, u64, bool)]) -> (u64, u128) {
        let mut now = Instant::now();
        let mut pace = LinkPace::new();
        // What came along with the file's beginning waited for nothing.
        pace.bring(500);
        for (wait, work, counts) in reads {
            let began = now;
            now += Duration::from_millis(*wait);
            pace.read(began, now, *counts);
            pace.bring(1000);
            now += Duration::from_millis(*work);
        }
        let (bytes, took) = pace.end(now);
        (bytes, took.as_millis())
    }

    #[test]
    fn a_slow_link_is_all_the_time_there_is() {
        assert_eq!(play(&[(90, 10, true), (80, 20, true)]), (2000, 200));
        assert_eq!(play(&[(20, 80, true)]), (1000, 100));
    }

    #[test]
    fn a_slow_receiver_is_no_slow_link() {
        assert_eq!(play(&[(1, 99, true), (1, 99, true)]), (2000, 16));
        assert_eq!(play(&[(0, 100, true)]), (1000, 0));
    }

    #[test]
    fn what_waits_for_sums_tells_nothing() {
        assert_eq!(play(&[(900, 10, false), (90, 10, true)]), (1000, 100));
        assert_eq!(play(&[]), (0, 0));
    }
}
