//! The face towards the Observatory Control System: an agent on the observatory's WAMP router.
//!
//! [`agent`] is the framework: operations, sessions, feeds and access control as the Python agents have them, and a
//! connection to the router that comes and goes without any operation noticing. [`wamp`] is the wire below it, [`site`]
//! finds out which agent we are.

pub(crate) mod access;
pub mod agent;
pub mod feeds;
pub mod operation;
pub mod session;
pub mod site;
pub mod wamp;

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Something that happens once. Waiting for it takes no turn from anybody.
struct Latch(watch::Sender<bool>);

impl Latch {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    fn raise(&self) {
        self.0.send_replace(true);
    }

    fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    async fn raised(&self) {
        let mut seen = self.0.subscribe();
        // The sender lives in us, so this ends only when raised.
        let _ = seen.wait_for(|raised| *raised).await;
    }
}

/// What a panicking holder left behind is still whole: every change below is a single store.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
