//! Decides now, later or never: whose trouble it is, and how long to wait.

use crate::link::Ending;
use crate::transfer::TransferError;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Attempts at a far end, or at the database, that stays out of reach, before a run with `once` gives up.
pub(super) const ONCE_PATIENCE: usize = 5;
/// Rows whose pause is remembered; others are simply tried at the next poll.
const PAUSES_MOST: usize = 10_000;
/// The longest pause between two attempts at one file.
const PAUSE_MOST: Duration = Duration::from_secs(3600);

/// Growing waits with jitter, so that many archivers do not knock at once.
pub(super) struct Backoff {
    waits: ExponentialBackoff,
    pub(super) failures: usize,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { waits: builder().build(), failures: 0 }
    }

    /// After success.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// After a failure: how long to wait.
    pub(super) fn next(&mut self) -> Duration {
        self.failures += 1;
        self.waits.next().unwrap_or(Duration::from_secs(60))
    }
}

fn builder() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(60))
        .without_max_times()
        .with_jitter()
}

/// Words by which a far end says that it has no room, or none for us: no file's fault.
const NO_ROOM: [&str; 4] =
    ["No space left on device", "Disk quota exceeded", "Read-only file system", "Too many open files in system"];

/// The line in which the far end says that it cannot store anything at all.
pub(super) fn no_room(words: &str) -> Option<&str> {
    words.lines().find(|line| NO_ROOM.iter().any(|words| line.contains(words)))
}

/// What the far end said about one file: the lines that hold its name, or the last lines of all.
pub(super) fn words_about(words: &str, name: &str) -> String {
    let about: Vec<_> = words.lines().filter(|line| line.contains(name)).collect();
    let lines = if about.is_empty() { words.lines().rev().take(2).collect() } else { about };
    let text = lines.into_iter().take(3).collect::<Vec<_>>().join(" / ");
    if text.is_empty() {
        "the far end did not say why".into()
    } else {
        text.escape_debug().to_string().replace("\\\"", "\"")
    }
}

/// Whether a broken session speaks of the link or of the far end as a whole, so that no file can be to blame.
pub(super) fn blames_the_link(error: &TransferError) -> bool {
    match error {
        TransferError::Link(_) | TransferError::Refused(_) => true,
        TransferError::Remote { ending, .. } => match ending {
            None | Some(Ending::Lost(_)) => true,
            // No such program, none that could be run, a shell that lost its terminal; and rsync told to go.
            Some(Ending::Exited(status)) => matches!(status, 20 | 126 | 127 | 255),
            Some(Ending::Signalled(signal)) => matches!(signal.as_str(), "HUP" | "INT" | "TERM" | "KILL" | "PIPE"),
        },
        // A far end that computes sums of one huge file in silence stalls too.
        TransferError::Stalled(_)
        | TransferError::Peer(_)
        | TransferError::Pack(_)
        | TransferError::Selection(_)
        | TransferError::Usage(_)
        | TransferError::Rules(_)
        | TransferError::Batch(_)
        | TransferError::Local { .. } => false,
    }
}

/// When rows that failed may be tried again: each failure doubles the pause.
#[derive(Default)]
pub(super) struct Pauses {
    until: HashMap<i64, Instant>,
}

impl Pauses {
    /// Whether the row may be tried now, given the failures read with it. A row seen failed for the first time is given
    /// its pause.
    pub(super) fn allows(&mut self, id: i64, attempts: i64, poll: Duration) -> bool {
        if attempts == 0 {
            return true;
        }
        let now = Instant::now();
        if let Some(&until) = self.until.get(&id) {
            return until <= now;
        }
        if self.until.len() >= PAUSES_MOST {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() >= PAUSES_MOST {
            return true;
        }
        let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(10);
        self.until.insert(id, now + (poll * 2u32.pow(doublings)).min(PAUSE_MOST));
        false
    }

    /// The row is tried now; a further failure begins a new pause.
    pub(super) fn forget(&mut self, id: i64) {
        self.until.remove(&id);
    }
}
