//! Decides now, later or never: whose trouble it is, and how long to wait.

use crate::link::Ending;
use crate::transfer::TransferError;
use protocol::PeerError;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Attempts at a far end, or at the database, that stays out of reach, before a run with `once` gives up.
pub(super) const ONCE_PATIENCE: usize = 5;
/// Rows whose pause is remembered; others are simply tried at the next poll.
const PAUSES_MOST: usize = 10_000;
/// Lines of a far end's last words that are told.
const WORDS_MOST: usize = 3;
/// The longest pause between two attempts at one file.
const PAUSE_MOST: Duration = Duration::from_secs(3600);

/// Words by which a far end says that it has no room, or none for us: no file's fault.
const NO_ROOM: [&str; 4] =
    ["No space left on device", "Disk quota exceeded", "Read-only file system", "Too many open files"];

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

/// Why a session broke, with what the far end said last, unless the error says it already.
pub(super) fn with_words(error: &TransferError, words: &str) -> String {
    let text = error.to_string();
    let said: Vec<_> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if said.is_empty() || matches!(error, TransferError::Remote { text, .. } if !text.trim().is_empty()) {
        return text;
    }
    let last = said[said.len().saturating_sub(WORDS_MOST)..].join(" / ");
    format!("{text}; it said: {}", last.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'"))
}

/// Exit codes of an rsync that was told to go, that heard nothing for too long, or had no memory.
const GONE: [i32; 4] = [20, 22, 30, 35];

/// Whether a broken session speaks of the link or of the far end as a whole, so that no file can be to blame.
pub(super) fn blames_the_link(error: &TransferError) -> bool {
    match error {
        // A far end that computes sums of one huge file in silence stalls too; no file is to blame for that either.
        TransferError::Link(_) | TransferError::Stalled(_) | TransferError::Refused(_) => true,
        TransferError::Garbled(_) | TransferError::Echo => true,
        TransferError::Peer(PeerError::Exit(code)) => GONE.contains(code),
        TransferError::Remote { ending, .. } => match ending {
            None | Some(Ending::Lost(_)) => true,
            // No such program, none that could be run, a shell that lost its terminal; and rsync told to go.
            Some(Ending::Exited(status)) => matches!(status, 126 | 127 | 255) || GONE.contains(status),
            Some(Ending::Signalled(signal)) => matches!(signal.as_str(), "HUP" | "INT" | "TERM" | "KILL" | "PIPE"),
        },
        TransferError::Peer(_)
        | TransferError::Bug(_)
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
    /// The pause of all those together for which there is no room.
    others: Option<Instant>,
}

impl Pauses {
    /// Until when the row must wait, given the failures read with it; `None` where it may be tried now. A row seen failed
    /// for the first time is given its pause.
    pub(super) fn hold(&mut self, id: i64, attempts: i64, poll: Duration) -> Option<Instant> {
        if attempts == 0 {
            return None;
        }
        let now = Instant::now();
        if let Some(&until) = self.until.get(&id) {
            return Some(until).filter(|until| *until > now);
        }
        if self.until.len() >= PAUSES_MOST {
            let until = *self.others.get_or_insert(now + PAUSE_MOST);
            return Some(until).filter(|until| *until > now);
        }
        let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(16);
        let until = now + poll.saturating_mul(2u32.pow(doublings)).min(PAUSE_MOST);
        self.until.insert(id, until);
        Some(until)
    }

    /// The row is tried now; a further failure begins a new pause.
    pub(super) fn forget(&mut self, id: i64) {
        self.until.remove(&id);
    }

    /// A pass is over: those that shared a pause have had their turn, and rows that nobody has seen for long are gone.
    pub(super) fn tidy(&mut self) {
        let now = Instant::now();
        if self.others.is_some_and(|until| until <= now) {
            self.others = None;
        }
        if self.until.len() >= PAUSES_MOST {
            self.until.retain(|_, until| *until + PAUSE_MOST > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const POLL: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_double_with_each_failure_up_to_an_hour() {
        let mut pauses = Pauses::default();
        assert_eq!(pauses.hold(1, 0, POLL), None);
        let mut waits = Vec::new();
        for attempts in 1..=12 {
            let now = Instant::now();
            let until = pauses.hold(1, attempts, POLL).unwrap();
            assert_eq!(pauses.hold(1, attempts, POLL), Some(until), "it is the same pause");
            waits.push((until - now).as_secs());
            pauses.forget(1);
        }
        assert_eq!(waits[..4], [10, 20, 40, 80]);
        assert_eq!(waits[9..], [3600; 3]);
    }

    #[test]
    fn rows_beyond_those_remembered_wait_longest_and_not_never() {
        let mut pauses = Pauses::default();
        for id in 0..PAUSES_MOST as i64 {
            pauses.hold(id, 1, POLL);
        }
        let until = pauses.hold(-1, 1, POLL).unwrap();
        assert!(until - Instant::now() > Duration::from_secs(3500));
        assert_eq!(pauses.hold(-2, 4, POLL), Some(until));
        pauses.others = Some(Instant::now());
        assert_eq!((pauses.hold(-1, 1, POLL), pauses.hold(-2, 4, POLL)), (None, None));
        pauses.tidy();
        assert!(pauses.hold(-1, 1, POLL).is_some());
    }

    #[test]
    fn silence_and_a_far_end_that_is_gone_are_the_links_trouble() {
        let stalled = TransferError::Stalled(io::ErrorKind::TimedOut.into());
        assert!(blames_the_link(&stalled));
        for (code, link) in [(20, true), (30, true), (22, true), (11, false), (12, false), (23, false)] {
            assert_eq!(blames_the_link(&PeerError::Exit(code).into()), link, "{code}");
            let ending = Some(Ending::Exited(code));
            assert_eq!(blames_the_link(&TransferError::Remote { ending, text: String::new() }), link, "{code}");
        }
    }
}
