//! The one signal that ends a run, for tasks and threads alike.

use crate::link::Closer;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Says when to stop. Clones share one state.
#[derive(Clone)]
pub(crate) struct Stop(Arc<StopShared>);

struct StopShared {
    state: Mutex<StopState>,
    bell: Condvar,
    told: watch::Sender<bool>,
}

#[derive(Default)]
struct StopState {
    stopped: bool,
    closed: bool,
    links: Vec<(u64, Closer)>,
    next: u64,
}

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(StopShared { state: Mutex::default(), bell: Condvar::new(), told: watch::Sender::new(false) }))
    }
}

impl Stop {
    /// Not yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Begins the end: no new work.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.0.bell.notify_all();
        self.0.told.send_replace(true);
    }

    /// Whether the end has begun.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Waits for the beginning of the end.
    pub(crate) async fn stopped(&self) {
        let mut told = self.0.told.subscribe();
        // The sender lives in us, so this ends only when told.
        let _ = told.wait_for(|told| *told).await;
    }

    /// Waits on a thread; true when the end began meanwhile.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !state.stopped {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Ends running work too: closes every registered link, and those to come.
    pub(crate) fn close_links(&self) {
        let links = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.links)
        };
        for (_, closer) in links {
            closer.close();
        }
    }

    /// Registers a link until the guard is dropped.
    pub(super) fn guard(&self, closer: Closer) -> LinkGuard {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        if state.closed {
            drop(state);
            closer.close();
        } else {
            state.links.push((number, closer));
        }
        LinkGuard { stop: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, StopState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registered link.
pub(super) struct LinkGuard {
    stop: Stop,
    number: u64,
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.stop.lock().links.retain(|(number, _)| *number != self.number);
    }
}
