//! The line on a terminal that says what is being measured.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::Duration;

/// A line on standard error if that is a terminal, else nothing.
pub struct BenchProgress(ProgressBar);

impl BenchProgress {
    /// Nothing is said yet.
    pub fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} [{elapsed_precise}]") {
            bar.set_style(style);
        }
        // Seldom enough not to count among what is measured.
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    /// Says what is going on.
    pub fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Default for BenchProgress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BenchProgress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
