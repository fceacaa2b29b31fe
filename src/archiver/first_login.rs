//! The first login of all, which those who set out beside it wait for.
//!
//! What keeps the first one out keeps the others out as well: a key that is refused is to be refused once, as servers count.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What has become of it, and whoever waits to know.
#[derive(Default)]
pub(super) struct FirstLogin {
    state: Mutex<LoginState>,
    bell: Condvar,
}

#[derive(Default)]
struct LoginState {
    done: bool,
    /// How often it came to nothing so far.
    failures: u64,
}

impl FirstLogin {
    fn lock(&self) -> MutexGuard<'_, LoginState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody is in.
    pub(super) fn done(&self) {
        self.lock().done = true;
        self.bell.notify_all();
    }

    /// It came to nothing: whoever waits need not wait longer.
    pub(super) fn failed(&self) {
        self.lock().failures += 1;
        self.bell.notify_all();
    }

    pub(super) fn is_done(&self) -> bool {
        self.lock().done
    }

    /// Waits, at most so long; whether somebody is in.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let state = self.lock();
        let failures = state.failures;
        let waits = |state: &mut LoginState| !state.done && state.failures == failures;
        self.bell.wait_timeout_while(state, limit, waits).unwrap_or_else(PoisonError::into_inner).0.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_wait_until_it_is_known_what_became_of_it() {
        let first = FirstLogin::default();
        assert!(!first.wait(Duration::ZERO), "nothing is known in time");
        let outcome = |tell: &(dyn Fn() + Sync)| {
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| first.wait(Duration::from_secs(60)));
                while !waiting.is_finished() {
                    tell();
                }
                waiting.join().unwrap()
            })
        };
        assert!(!outcome(&|| first.failed()));
        assert!(outcome(&|| first.done()) && first.is_done());
        first.failed();
        assert!(first.wait(Duration::ZERO), "once in, in for good");
    }
}
