//! How fast a run goes.

use super::Snapshot;
use std::collections::VecDeque;

/// The last seconds, which say how fast it goes.
const OF_LATE: f64 = 10.0;

/// How fast it goes, of late.
#[derive(Default)]
pub(crate) struct Pace {
    /// Moments, with the bytes and files done until then.
    marks: VecDeque<(f64, u64, u64)>,
}

impl Pace {
    /// Bytes and files per second, with what has been done until now.
    pub(crate) fn learn(&mut self, now: &Snapshot) -> (f64, f64) {
        self.marks.push_back((now.seconds, done_bytes(now), now.confirmed));
        while self.marks.len() > 2 && self.marks.get(1).is_some_and(|(then, ..)| now.seconds - then > OF_LATE) {
            self.marks.pop_front();
        }
        let Some(&(then, bytes, files)) = self.marks.front() else { return (0.0, 0.0) };
        // The first moments say little.
        let (seconds, bytes, files) = match now.seconds - then {
            short if short < 1.0 => (now.seconds.max(0.001), 0, 0),
            seconds => (seconds, bytes, files),
        };
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (per_second(done_bytes(now), bytes), per_second(now.confirmed, files))
    }
}

/// Bytes of files that were read, or found in place.
pub(crate) fn done_bytes(now: &Snapshot) -> u64 {
    now.read_bytes + now.found_bytes
}
