//! Who of the helpers is at work, and how they are sent home.

use crate::link::Closer;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is known of those who help.
#[derive(Default)]
pub(super) struct Crew {
    state: Mutex<CrewState>,
    bell: Condvar,
}

#[derive(Default)]
struct CrewState {
    /// Sessions at work, and what ends them.
    sessions: HashMap<usize, Closer>,
    /// The session of the command has logged in, so others may.
    admitted: bool,
    /// No session may begin.
    dismissed: bool,
}

impl Crew {
    fn lock(&self) -> MutexGuard<'_, CrewState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others may log in.
    pub(super) fn admit(&self) {
        self.lock().admitted = true;
        self.bell.notify_all();
    }

    /// Waits until others may log in, at most so long: a key that is refused is to be refused once. False when they may not
    /// by then, or all is over.
    pub(super) fn await_admission(&self, limit: Duration) -> bool {
        let waits = |state: &mut CrewState| !state.admitted && !state.dismissed;
        let waited = self.bell.wait_timeout_while(self.lock(), limit, waits);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.admitted && !state.dismissed
    }

    /// A session begins; false where none may.
    pub(super) fn begins(&self, number: usize, closer: &Closer) -> bool {
        let mut state = self.lock();
        if !state.dismissed {
            state.sessions.insert(number, closer.clone());
        }
        !state.dismissed
    }

    /// Waits; false when all is over meanwhile.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let state = self.lock();
        let over = |state: &mut CrewState| !state.dismissed;
        let waited = self.bell.wait_timeout_while(state, pause, over).unwrap_or_else(PoisonError::into_inner);
        !waited.0.dismissed
    }

    pub(super) fn ends(&self, number: usize) {
        self.lock().sessions.remove(&number);
        self.bell.notify_all();
    }

    /// No session may begin any more. Waits for those at work, at most so long.
    pub(super) fn dismiss(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        state.dismissed = true;
        self.bell.notify_all();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.sessions.is_empty() || left.is_zero() {
                return;
            }
            state = self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Breaks off whatever is at work.
    pub(super) fn break_off(&self) {
        self.dismiss(Duration::ZERO);
        self.lock().sessions.values().for_each(Closer::close);
    }
}
