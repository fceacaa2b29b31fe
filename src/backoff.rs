//! Growing pauses with jitter, so that many programs that have lost one far end do not all knock at once.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// The pauses between attempts at something that stays out of reach.
pub(crate) struct Backoff {
    /// Between these is the first pause, at random.
    first: RangeInclusive<Duration>,
    /// Each further one is longer by this factor, but for the random part.
    growth: f64,
    least: Duration,
    failures: usize,
}

impl Default for Backoff {
    /// From half a second to a second at first, doubled each time.
    fn default() -> Self {
        Self::new(Duration::from_millis(500)..=Duration::from_secs(1), 2.0)
    }
}

impl Backoff {
    /// Pauses that grow by this factor, up to a minute.
    pub(crate) fn new(first: RangeInclusive<Duration>, growth: f64) -> Self {
        Self { least: *first.start(), first, growth, failures: 0 }
    }

    /// After success.
    pub(crate) fn reset(&mut self) {
        (self.least, self.failures) = (*self.first.start(), 0);
    }

    /// After a failure: how long to pause.
    pub(crate) fn pause(&mut self) -> Duration {
        self.failures += 1;
        let random = self.first.end().saturating_sub(*self.first.start()).mul_f64(fastrand::f64());
        let pause = self.least.saturating_add(random).min(LONGEST);
        self.least = self.least.mul_f64(self.growth).min(LONGEST);
        pause
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> usize {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(1500)..=Duration::from_millis(2500), 1.5);
        for round in 0..2 {
            let mut least: f64 = 1.5;
            for failures in 1..=20 {
                let pause = backoff.pause().as_secs_f64();
                assert!(pause >= least.min(60.0) && pause <= (least + 1.0).min(60.0), "{round}: {pause} {least}");
                assert_eq!(backoff.failures(), failures);
                least *= 1.5;
            }
            backoff.reset();
        }
    }
}
