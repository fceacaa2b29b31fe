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
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "Waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
