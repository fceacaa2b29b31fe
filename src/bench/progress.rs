//! The line on a terminal that says what is being measured.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::Duration;

/// A line on standard error if that is a terminal, else nothing; with how much is done of what was planned, and how long the
/// rest takes.
pub struct BenchProgress(ProgressBar);

impl BenchProgress {
    /// Nothing is ever said.
    pub fn silent() -> Self {
        Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()))
    }

    /// Nothing is said yet.
    pub fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self::silent();
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} [{elapsed_precise}]") {
            bar.set_style(style);
        }
        // Seldom enough not to count among what is measured.
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    /// So many parts are measured, each about as long as another.
    pub fn expect(&self, parts: usize) {
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {pos} of {len}: {wide_msg} [{elapsed_precise}, {eta_precise} left]")
        {
            self.0.set_style(style);
        }
        self.0.set_length(parts as u64);
    }

    /// A part is measured.
    pub fn done(&self) {
        self.0.inc(1);
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
        if !self.0.is_hidden() {
            let seconds = self.0.elapsed().as_secs();
            eprintln!(
                "Measured {} of {} parts in {}:{:02}",
                self.0.position(),
                self.0.length().unwrap_or(0),
                seconds / 60,
                seconds % 60
            );
        }
    }
}
