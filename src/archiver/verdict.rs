//! Under which terms a batch is carried, and what became of each of its jobs.

use super::Sources;
use super::origins::look;
use crate::link::{Ending, Remote};
use crate::status::Failure;
use crate::transfer::send::{Digest, Sent};
use crate::transfer::{Summary, TransferError};
use protocol::chmod::Chmod;
use protocol::mux::Message;
use std::fs::Metadata;
use std::path::Path;
use std::time::Duration;

/// What changes of permissions leave alone that do not say whose; a container's umask has no say in it.
const UMASK: u32 = 0o022;
/// Permissions of directories where nothing is said.
const DIR_MODE: u32 = 0o755;
/// Bytes of the peer's words that are kept for the log.
const WORDS_KEPT: usize = 64 * 1024;
/// How long the far end's program may take to end once its session has broken.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long the far end's program may take to end after a session that broke.
const ENDING_PATIENCE: Duration = Duration::from_secs(3);

/// What became of one job in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
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

/// How a batch is flown.
pub(super) struct Manner<'a> {
    /// Changes to the permissions of copies.
    pub(super) chmod: Option<&'a Chmod>,
    /// Which files rows may name.
    pub(super) sources: &'a Sources,
    /// File data is compressed on its way.
    pub(super) squeezed: bool,
    /// The BLAKE3 of what is sent is wanted.
    pub(super) digests: bool,
    /// Whether to take up no further file.
    pub(super) stopping: &'a dyn Fn() -> bool,
    /// Hears of bytes of files as they are moved.
    pub(super) progress: &'a dyn Fn(u64),
    /// Hears of each file that the far end has confirmed, and whether it was in place.
    pub(super) confirmed: &'a dyn Fn(&Sent, bool),
}

/// A session's result.
pub(super) struct Flown {
    pub(super) fates: Vec<Fate>,
    /// What the far end said, on whichever channel.
    pub(super) words: String,
    /// `None` where none was needed.
    pub(super) ended: Result<Option<Summary>, TransferError>,
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

/// Looks at a source file, see [`look`].
pub(super) fn source_metadata(sources: &Sources, path: &Path) -> Result<Metadata, Fate> {
    look(sources, path).map_err(|lack| Fate::Failed(lack.kind, lack.why))
}

/// The permissions of a copy. Set-id and sticky bits have no business in an archive, unless they were asked for.
pub(super) fn file_mode(mode: u32, chmod: Option<&Chmod>) -> u32 {
    let mode = mode & 0o777;
    chmod.map_or(mode, |chmod| chmod.apply(mode, false, UMASK))
}

/// The permissions of a directory on the way to a copy.
pub(super) fn dir_mode(chmod: Option<&Chmod>) -> u32 {
    chmod.map_or(DIR_MODE, |chmod| chmod.apply(DIR_MODE, true, UMASK))
}
