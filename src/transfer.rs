//! One session's file work: greeting, listing, sending, receiving, over any link.

mod abort;
mod basis;
pub(crate) mod batch;
pub(crate) mod charset;
mod chmod;
mod conversation;
pub(crate) mod copy_as;
pub(crate) mod dest;
pub(crate) mod fetch;
pub(crate) mod filters;
mod generate;
pub(crate) mod glob;
pub(crate) mod greet;
pub mod guard;
pub(crate) mod held;
pub mod help;
pub(crate) mod ids;
mod news;
mod observer;
pub(crate) mod offers;
mod plan;
pub mod receive;
pub(crate) mod scanned;
pub mod send;
mod sent;
pub mod serve;
pub(crate) mod source;
pub mod stager;
pub mod suffixes;
mod target;

pub use conversation::Conversation;
pub use fetch::{FetchObserver, Fetched, WantedFile, fetch};
pub use greet::{greet, greet_agreed, greet_with};
pub use observer::{Answer, Item, ReceiveObserver, SendObserver};
pub use plan::{ReceivePlan, SendPlan};
pub use receive::{Expected, Operands, Received, receive};
pub use send::{Asked, Listing, Names, Source, Summary, send};
pub use sent::Sent;

use crate::disk::reason;
use crate::exit;
use crate::link::{Ending, Remote};
use protocol::PeerError;
use protocol::token::PackError;
use std::fmt;
use std::io;
use std::time::Duration;

/// How long the far end's process may take to end once its stream has ended.
const ENDING_PATIENCE: Duration = Duration::from_secs(10);

/// Why a session ended before its time. Trouble with a single file is never an error, but data.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The peer broke the rules.
    #[error("{0}")]
    Peer(#[from] PeerError),
    /// File data could not be compressed.
    #[error("{0}")]
    Pack(#[from] PackError),
    /// The link broke or stalled.
    #[error("Link lost: {0}")]
    Link(io::Error),
    /// No byte moved for longer than the limit while some were due.
    #[error("Link stalled: {0}")]
    Stalled(io::Error),
    /// The far end's program ended, or never started.
    #[error("{}", far_end(ending.as_ref(), text))]
    Remote {
        /// How it ended, where that is known.
        ending: Option<Ending>,
        /// The last lines it said.
        text: String,
    },
    /// Something on this side cannot be used.
    #[error("{what}: {}", reason(source))]
    Local {
        /// What, with its path.
        what: String,
        /// The system's words.
        source: io::Error,
    },
    /// The source or destination that was named cannot be used at all.
    #[error("{0}")]
    Selection(Refusal),
    /// A batch file cannot be opened.
    #[error("{0}")]
    Batch(String),
    /// An option's value cannot be used.
    #[error("{0}")]
    Usage(String),
    /// Filter rules that cannot be followed.
    #[error("{0}")]
    Rules(String),
    /// A list or argument that this side refuses.
    #[error("{0}")]
    Refused(Refusal),
    /// A thread of ours panicked.
    #[error("The {0} thread panicked; please report this")]
    Bug(&'static str),
    /// What came first was not the rsync protocol.
    #[error("{0}")]
    Garbled(String),
    /// The other half of this end gave up, and knows why.
    #[error("The other half of the session gave up")]
    Echo,
}

/// Why this side does not do what it is asked for, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    text: String,
    /// The name of who speaks stands before them.
    signed: bool,
}

impl Refusal {
    /// A line that stands for itself.
    fn unsigned(text: String) -> Self {
        Self { text, signed: false }
    }
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self { text, signed: true }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TransferError {
    /// The exit code that rsync gives for it.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Peer(PeerError::Exit(code)) => *code,
            Self::Peer(
                PeerError::NoCommonChecksum { .. }
                | PeerError::NoCommonCompression { .. }
                | PeerError::NotOffered(_)
                | PeerError::UnsafeName { .. },
            ) => exit::UNSUPPORTED,
            Self::Peer(PeerError::Frame { .. } | PeerError::Closed) => exit::STREAM,
            Self::Peer(_) | Self::Garbled(_) => exit::PROTOCOL,
            Self::Local { .. } | Self::Batch(_) => exit::FILE,
            Self::Usage(_) | Self::Rules(_) => exit::SYNTAX,
            Self::Selection(_) => exit::SELECTION,
            Self::Refused(_) => exit::UNSUPPORTED,
            Self::Bug(_) => exit::CRASHED,
            Self::Stalled(_) => exit::TIMEOUT,
            // How it was killed explains nothing that the break does not.
            Self::Remote { ending: Some(Ending::Exited(status)), .. } => exit::STREAM.max(*status),
            Self::Link(_) | Self::Remote { .. } | Self::Pack(_) | Self::Echo => exit::STREAM,
        }
    }

    /// Whether the name of who speaks stands before its words.
    pub(crate) fn is_signed(&self) -> bool {
        match self {
            Self::Selection(refusal) | Self::Refused(refusal) => refusal.signed,
            _ => true,
        }
    }

    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Stalled(error),
            _ => Self::Link(error),
        }
    }

    /// The stream ended too early: says what is known of the far end's program.
    fn closed(remote: &Remote) -> Self {
        let ending = remote.wait(ENDING_PATIENCE);
        Self::Remote { ending, text: remote.stderr() }
    }
}

/// How much is shown in an error of what a far end says that is not the protocol, letters: of its last words, or its first.
const WORDS_SHOWN: usize = 2000;

fn far_end(ending: Option<&Ending>, text: &str) -> String {
    let how = match ending {
        Some(Ending::Exited(127)) => "There is no such program at the far end (exit status 127)".to_owned(),
        Some(Ending::Exited(status)) => format!("The far end's program ended early with exit status {status}"),
        Some(Ending::Signalled(signal)) => format!("The far end's program was killed by SIG{signal}"),
        Some(Ending::Lost(why)) => format!("The connection was lost: {why}"),
        None => "The far end closed its stream and does not end".to_owned(),
    };
    match text.trim() {
        "" => how,
        text => {
            let from = text.char_indices().rev().nth(WORDS_SHOWN).map_or(0, |(at, _)| at);
            format!("{how}; it said: {}", text[from..].escape_debug().to_string().replace("\\n", " / "))
        }
    }
}
