//! `--bwlimit`: a token bucket for what a session says.

use std::time::{Duration, Instant};

/// How much may be said at once, at most.
const CHUNK_MOST: usize = 32 * 1024;
/// And at least, however slow the pace.
const CHUNK_LEAST: usize = 512;

/// A pace in bytes per second.
#[derive(Debug)]
pub(super) struct Pace {
    rate: u64,
    /// When all that was said so far will have been said at this rate.
    due: Instant,
}

impl Pace {
    /// So many bytes per second; at least one.
    pub(super) fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), due: Instant::now() }
    }

    /// How many bytes to say before waiting again: a tenth of a second's worth.
    pub(super) fn chunk(&self) -> usize {
        usize::try_from(self.rate / 10).unwrap_or(CHUNK_MOST).clamp(CHUNK_LEAST, CHUNK_MOST)
    }

    /// How long to wait now that so many more bytes were said. Time in which nothing was said is not made up for.
    pub(super) fn after(&mut self, bytes: usize, now: Instant) -> Duration {
        let takes = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.due = self.due.max(now) + takes;
        self.due.duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        let mut pace = Pace::new(10_000);
        assert_eq!(pace.chunk(), 1000);
        let start = pace.due;
        assert_eq!(pace.after(1000, start), Duration::from_millis(100));
        assert_eq!(pace.after(1000, start + Duration::from_millis(50)), Duration::from_millis(150));
        // A pause does not allow a burst.
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.after(500, later), Duration::from_millis(50));
        assert_eq!((Pace::new(1).chunk(), Pace::new(u64::MAX).chunk()), (CHUNK_LEAST, CHUNK_MOST));
    }
}
