//! How workers found the link to the far end, for whoever tells the others that share it.

use crate::catalog::LinkWay;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How the link was found since that was told last.
#[derive(Default)]
pub(super) struct LinkFound {
    last: Mutex<LinkWay>,
    /// It is known as one that is down.
    marked: AtomicBool,
    bell: Notify,
}

impl LinkFound {
    /// The far end has let us in.
    pub(super) fn through(&self) {
        *self.last() = LinkWay::Through;
        if self.marked.load(Relaxed) {
            self.bell.notify_one();
        }
    }

    /// The far end is out of reach.
    pub(super) fn down(&self, why: &str) {
        *self.last() = LinkWay::Down(why.to_owned());
        self.bell.notify_one();
    }

    /// A session was closed that others wait for.
    pub(super) fn gave_back(&self) {
        self.bell.notify_one();
    }

    /// What was found, to be told now.
    pub(super) fn take(&self) -> LinkWay {
        std::mem::take(&mut *self.last())
    }

    /// The link is known as one that is down, or is not. `marked`: it is.
    pub(super) fn set_marked(&self, marked: bool) {
        self.marked.store(marked, Relaxed);
    }

    /// Waits for something to be told at once.
    pub(super) async fn rings(&self) {
        self.bell.notified().await;
    }

    fn last(&self) -> MutexGuard<'_, LinkWay> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
