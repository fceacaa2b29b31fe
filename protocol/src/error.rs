//! What a peer can do wrong.

/// The peer broke the rules of the protocol; the session cannot go on.
///
/// Each variant carries what a log line needs. Our own misuse of a machine is never a variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// A value on the wire is outside its legal range.
    #[error("Protocol error: {what} is {value}, expected {expected}")]
    Range {
        /// The field, in the protocol's terms.
        what: &'static str,
        /// What came.
        value: i64,
        /// The legal range, in words.
        expected: &'static str,
    },
    /// The frames that all else comes in are broken.
    #[error("Protocol error: {what} is {value}, expected {expected}")]
    Frame {
        /// The field, in the protocol's terms.
        what: &'static str,
        /// What came.
        value: i64,
        /// The legal range, in words.
        expected: &'static str,
    },
    /// A sequence of bytes that means nothing at this place.
    #[error("Protocol error: {0}")]
    Malformed(&'static str),
    /// The file list holds a name we refuse.
    #[error("Unsafe name in the file list: {name:?} ({why})")]
    UnsafeName {
        /// The name, made printable.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// No protocol version. Most often the remote shell printed something.
    #[error(
        "Protocol version mismatch: the peer says {0}; we speak 27 to 32. Is the remote shell clean (does its start-up print anything)?"
    )]
    Version(i64),
    /// A version from before those we speak.
    #[error("Protocol version mismatch: the peer speaks only {0}; we speak 27 to 32 (27 came with rsync 2.6.0)")]
    TooOld(i64),
    /// An option that came with a later version.
    #[error("{option} requires protocol {least} or higher (negotiated {negotiated}).")]
    NeedsVersion {
        /// The option, as stock names it.
        option: String,
        /// The version it came with.
        least: u8,
        /// The session's.
        negotiated: u8,
    },
    /// A filter rule that the session's version cannot tell the server of.
    #[error("filter rules are too modern for remote rsync.")]
    RulesTooModern,
    /// A batch file that somebody newer wrote.
    #[error("The protocol version in the batch file is too new ({version} > {newest}).")]
    BatchTooNew {
        /// The version in the file.
        version: i64,
        /// The newest that is accepted.
        newest: u8,
    },
    /// No checksum both sides know.
    #[error("No common checksum: we offer {ours:?}, the peer {theirs:?}")]
    NoCommonChecksum {
        /// Our list.
        ours: String,
        /// The peer's list.
        theirs: String,
    },
    /// No compression both sides know.
    #[error(
        "No common compression: we offer {ours:?}, the peer {theirs:?}. Name one by --compress-choice, or do without -z"
    )]
    NoCommonCompression {
        /// Our list.
        ours: String,
        /// The peer's list.
        theirs: String,
    },
    /// The peer makes us hold more than we will.
    #[error("The other side makes us hold more than {most} bytes of {what}, which is our limit; send fewer of them")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The limit, in bytes of memory.
        most: usize,
    },
    /// The peer asks for a feature that we did not offer.
    #[error("The peer uses a feature we did not offer: {0}")]
    NotOffered(&'static str),
    /// The peer reported a fatal error and its exit code (MSG_ERROR_EXIT).
    #[error("The peer gave up with exit code {0}")]
    Exit(i32),
    /// The stream ended in the middle of a session.
    #[error("Connection closed in the middle of the session")]
    Closed,
}
