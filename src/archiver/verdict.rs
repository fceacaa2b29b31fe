//! What became of a batch, and of each of its jobs.

use crate::disk::digest::Digest;
use crate::link::{Ending, Remote};
use crate::status::Failure;
use crate::transfer::Sent;
use crate::transfer::{Summary, TransferError};
use protocol::mux::Message;
use std::time::Duration;

/// Bytes of the peer's words that are kept for the log.
const WORDS_KEPT: usize = 64 * 1024;
/// How long the far end's program may take to end once its session has broken.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long the far end's program may take to end after a session that broke.
const ENDING_PATIENCE: Duration = Duration::from_secs(3);

/// What became of one job in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The far end confirmed the registered bytes under this variant of the name; with their digest, where it was asked
    /// for and we have read them.
    Proven(Sent, Option<Digest>),
    /// Other bytes stand under the name.
    Taken,
    /// Trouble of the file.
    Failed(Failure, String),
    /// The far end asked for the file or not, and did not confirm it, although the session ended in order.
    Refused,
    /// It came whole upon what was there of it. Whether that is what stands under its name the next session sees.
    Arrived(Option<Digest>),
    /// Nothing is known: the session ended too early, or we were told to stop.
    Open,
}

/// A session's result.
pub(super) struct Carried {
    pub(super) verdicts: Vec<Verdict>,
    /// What the far end said, on whichever channel.
    pub(super) words: String,
    /// `None` where none was needed.
    pub(super) ended: Result<Option<Summary>, TransferError>,
    /// How long it took, where that with the bytes moved tells of the link.
    pub(super) took: Option<Duration>,
}

/// A write that fails is often only the echo of a far end that gave up: what that said is worth more.
pub(super) fn explain(error: TransferError, remote: &Remote) -> TransferError {
    match (error, remote.wait(ENDING_PATIENCE)) {
        (TransferError::Link(_), Some(ending @ (Ending::Exited(_) | Ending::Signalled(_)))) => {
            TransferError::Remote { ending: Some(ending), text: remote.stderr() }
        }
        (error, _) => error,
    }
}

/// Keeps what the far end says, up to a limit.
pub(super) fn push_words(words: &mut String, message: &Message) {
    if let Message::Text(_, text) = message
        && words.len() < WORDS_KEPT
    {
        words.push_str(&String::from_utf8_lossy(text));
    }
}

/// A file that is not what was registered. Its true sum is not told: the log has other readers than the file.
pub(super) const CHANGED: &str = "it has changed since it was registered: its MD5 is another one now";
