//! The one handle on a run, for whoever steers or watches it.

use super::stop::Stop;
use crate::status::Progress;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Steers one run. Clones share one state.
#[derive(Clone)]
pub(crate) struct Control(Arc<ControlShared>);

struct ControlShared {
    stop: Stop,
    progress: Arc<Progress>,
    paused: watch::Sender<bool>,
    again: Notify,
}

impl Default for Control {
    fn default() -> Self {
        Self(Arc::new(ControlShared {
            stop: Stop::new(),
            progress: Arc::default(),
            paused: watch::Sender::new(false),
            again: Notify::new(),
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
