//! The line that shows how far a transfer has come. Counterpart: rsync's `rprint_progress`.

use crate::report::numbers;
use std::time::{Duration, Instant};

/// How often the line changes.
const EVERY: Duration = Duration::from_secs(1);

/// What is shown of the whole transfer beside a finished file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Files transferred so far.
    pub(super) transferred: u64,
    /// Entries still to look at.
    pub(super) left: u64,
    /// Entries of the list.
    pub(super) entries: u64,
}

/// One line of progress: of a file, or of everything.
#[derive(Debug)]
pub(super) struct ProgressLine {
    human: u8,
    started: Instant,
    shown: Option<Instant>,
    done: u64,
}

impl ProgressLine {
    /// Nothing done yet. `human` is the level of `-h`.
    pub(super) fn new(human: u8) -> Self {
        Self { human, started: Instant::now(), shown: None, done: 0 }
    }

    /// Another file begins, where each has its own line.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.human);
    }

    /// So many bytes more; the line, if it is time to show it again.
    pub(super) fn advance(&mut self, bytes: u64, total: u64) -> Option<String> {
        self.done += bytes;
        let now = Instant::now();
        if self.shown.is_some_and(|shown| now.duration_since(shown) < EVERY) {
            return None;
        }
        self.shown = Some(now);
        Some(self.line(total, now.duration_since(self.started), None))
    }

    /// The line of a finished file, with the tally of the transfer.
    pub(super) fn finished(&mut self, total: u64, tally: Tally) -> String {
        self.shown = Some(Instant::now());
        self.line(total, self.started.elapsed(), Some(tally))
    }

    fn line(&self, total: u64, elapsed: Duration, tally: Option<Tally>) -> String {
        let percent = match total {
            0 => 100,
            total if self.done >= total => 100,
            total => (self.done as f64 / total as f64 * 100.0) as u64,
        };
        let seconds = elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { self.done as f64 / seconds / 1024.0 } else { 0.0 };
        let left = match (tally, rate > 0.0) {
            (Some(_), _) => seconds,
            (None, true) => total.saturating_sub(self.done) as f64 / (rate * 1024.0),
            (None, false) => 0.0,
        };
        let (rate, unit) = match rate {
            rate if rate > 1024.0 * 1024.0 => (rate / 1024.0 / 1024.0, "GB/s"),
            rate if rate > 1024.0 => (rate / 1024.0, "MB/s"),
            rate => (rate, "kB/s"),
        };
        let left = left.min(9_999.0 * 3600.0) as u64;
        let (hours, minutes, seconds) = (left / 3600, left / 60 % 60, left % 60);
        let end = match tally {
            Some(tally) => format!(" (xfr#{}, to-chk={}/{})", tally.transferred, tally.left, tally.entries),
            None => "  ".into(),
        };
        let done = numbers::human(self.done, self.human);
        format!("\r{done:>15} {percent:>3}% {rate:>7.2}{unit} {hours:>4}:{minutes:02}:{seconds:02}{end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_shape_that_scripts_parse() {
        let mut progress = ProgressLine::new(1);
        progress.done = 32_768;
        let tally = Tally { transferred: 1, left: 6, entries: 8 };
        assert_eq!(
            progress.line(300_000, Duration::from_secs(16), None),
            "\r         32,768  10%    2.00kB/s    0:02:10  "
        );
        progress.done = 300_000;
        assert_eq!(
            progress.line(300_000, Duration::from_millis(1), Some(tally)),
            "\r        300,000 100%  286.10MB/s    0:00:00 (xfr#1, to-chk=6/8)"
        );
        assert!(ProgressLine::new(2).line(0, Duration::ZERO, None).contains("100%    0.00kB/s"));
    }

    #[test]
    fn the_line_is_shown_once_in_a_while() {
        let mut progress = ProgressLine::new(0);
        assert!(progress.advance(10, 100).is_some_and(|line| line.starts_with("\r             10  10%")));
        assert_eq!(progress.advance(10, 100), None);
        let tally = Tally { transferred: 1, left: 0, entries: 1 };
        assert!(progress.finished(20, tally).contains(" 20 100%"));
    }
}
