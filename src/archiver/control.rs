//! The one handle on a run, for whoever steers or watches it.

use super::flight::Flight;
use super::stop::Stop;
use crate::catalog::RecordId;
use crate::status::Progress;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Notify, watch};

/// Steers one run. Clones share one state.
#[derive(Clone)]
pub(crate) struct Control(Arc<ControlShared>);

struct ControlShared {
    stop: Stop,
    progress: Arc<Progress>,
    paused: watch::Sender<bool>,
    again: Notify,
    flight: Mutex<Weak<Flight>>,
}

impl Default for Control {
    fn default() -> Self {
        Self(Arc::new(ControlShared {
            stop: Stop::new(),
            progress: Arc::default(),
            paused: watch::Sender::new(false),
            again: Notify::new(),
            flight: Mutex::default(),
        }))
    }
}

impl Control {
    /// For a run that has not begun.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Ends the run.
    pub(crate) fn stop(&self) -> &Stop {
        &self.0.stop
    }

    /// How it goes.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.0.progress
    }

    /// Takes up no further rows until resumed; what is under way is finished.
    pub(crate) fn pause(&self) {
        self.0.paused.send_replace(true);
    }

    /// Goes on after a pause.
    pub(crate) fn resume(&self) {
        self.0.paused.send_replace(false);
    }

    /// Whether it pauses.
    pub(crate) fn is_paused(&self) -> bool {
        *self.0.paused.borrow()
    }

    /// Has the whole table looked at soon, for rows that were given a new chance.
    pub(crate) fn look_again(&self) {
        self.0.again.notify_one();
    }

    /// What this run has in flight.
    pub(super) fn begin(&self, flight: &Arc<Flight>) {
        *self.0.flight.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(flight);
    }

    /// Takes rows back: none of them is taken up any more, and those on their way are left. Whether some still are.
    pub(crate) fn recall(&self, rows: &HashSet<RecordId>) -> bool {
        let flight = self.0.flight.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        flight.is_some_and(|flight| flight.recall(rows))
    }

    /// Waits for the end of a pause.
    pub(super) async fn resumed(&self) {
        // The sender lives in us, so this ends only when told.
        let _ = self.0.paused.subscribe().wait_for(|paused| !*paused).await;
    }

    /// Waits for the beginning of a pause.
    pub(super) async fn paused(&self) {
        let _ = self.0.paused.subscribe().wait_for(|paused| *paused).await;
    }

    /// Waits for [`Control::look_again`].
    pub(super) async fn asked(&self) {
        self.0.again.notified().await;
    }
}
