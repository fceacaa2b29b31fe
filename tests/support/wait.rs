//! Waiting for what must come.

use std::time::{Duration, Instant};

/// Long enough for anything here on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `done`.
pub fn wait_until(what: &str, done: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, done);
}

/// As [`wait_until`], with another limit.
pub fn wait_within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        let waited = began.elapsed();
        assert!(waited < limit, "Waited in vain: {what}");
        // To ask may take a process and a database: the longer it lasts, the less it matters to know at once.
        std::thread::sleep((waited / 30).clamp(Duration::from_millis(2), Duration::from_millis(20)));
    }
}
