//! How far a long work is, drawn on a terminal.

use super::super::output::{clock, say};
use super::wording::bytes;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Lines about single files that are told.
const TOLD_MOST: u64 = 100;

/// How far a work is.
pub(super) struct Meter {
    bar: Option<ProgressBar>,
    began: Instant,
    files: AtomicU64,
    bytes: AtomicU64,
    /// All files and bytes, once they are counted.
    total: OnceLock<(u64, Option<u64>)>,
    told: AtomicU64,
}

impl Meter {
    /// With a bar where standard error is a terminal.
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {wide_msg} [{elapsed_precise}]");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = io::stderr().is_terminal().then(|| ProgressBar::new_spinner().with_style(style));
        let (files, bytes, told) = Default::default();
        Self { bar, began: Instant::now(), files, bytes, total: OnceLock::new(), told }
    }

    /// Whether anybody watches, so that counting beforehand is worth it.
    pub(super) fn is_drawn(&self) -> bool {
        self.bar.is_some()
    }

    pub(super) fn expect(&self, files: u64, bytes: Option<u64>) {
        let _ = self.total.set((files, bytes));
    }

    pub(super) fn count_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn count_files(&self, files: u64) {
        self.files.fetch_add(files, Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// The time it took, as people read it.
    pub(super) fn took(&self) -> String {
        clock(self.seconds())
    }

    pub(super) fn draw(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.line());
            bar.tick();
        }
    }

    fn line(&self) -> String {
        let (files, done, seconds) = (self.files.load(Relaxed), self.bytes(), self.seconds().max(0.001));
        let rate = done as f64 / seconds;
        match self.total.get() {
            None => format!("Files: {files}, {}, {:.1} MB/s", bytes(done), rate / 1e6),
            Some((all, of)) => {
                let of_bytes = of.map(|of| format!(" of {}", bytes(of))).unwrap_or_default();
                let left = match of {
                    Some(of) if done > 0 => Some(of.saturating_sub(done) as f64 / rate),
                    None if files > 0 => Some(all.saturating_sub(files) as f64 / (files as f64 / seconds)),
                    _ => None,
                };
                let left = left.filter(|left| *left < 1e6).map(|left| format!(", {} left", clock(left)));
                let left = left.unwrap_or_default();
                format!("Files: {files} of {all}, {}{of_bytes}, {:.1} MB/s{left}", bytes(done), rate / 1e6)
            }
        }
    }

    /// Tells of a file on standard error, above the bar; of so many, and then that there are more.
    pub(super) fn tell(&self, line: &str) {
        let told = self.told.fetch_add(1, Relaxed);
        let tell = || match told {
            0..TOLD_MOST => say(line),
            TOLD_MOST => say("… and more"),
            _ => {}
        };
        match &self.bar {
            Some(bar) => bar.suspend(tell),
            None => tell(),
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let meter = Meter::new();
        meter.count_files(3);
        meter.count_bytes(2_000_000);
        assert!(meter.line().starts_with("Files: 3, 2.0 MB, "), "{}", meter.line());
        meter.expect(4, Some(4_000_000));
        assert!(meter.line().starts_with("Files: 3 of 4, 2.0 MB of 4.0 MB, "), "{}", meter.line());
        assert!(meter.line().ends_with(" left"), "{}", meter.line());
    }
}
