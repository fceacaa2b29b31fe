//! Ways to reach a peer. A transport knows nothing of what the bytes mean.

pub mod stdio;

use crate::link::Link;
use std::ffi::OsString;
use std::time::Duration;

/// A way to start programs at one far end. Keeps its connection between calls.
pub trait Connect: Send {
    /// Starts the rsync server program of the far end with these arguments (`--server …`, without the program's name)
    /// and gives the link to it.
    fn open(&mut self, server_args: &[OsString]) -> Result<Link, ConnectError>;

    /// Runs a short command at the far end, nothing on its standard input, and collects its output (at most 64 KiB of
    /// each stream). `argv[0]` is the program; no word is seen by a shell unquoted.
    fn run(&mut self, argv: &[OsString]) -> Result<CommandOutput, ConnectError>;

    /// The words that start the rsync server program at the far end, normally just `rsync`.
    fn program(&self) -> Vec<OsString>;

    /// The far end, for messages: `user@host:port`, or `this machine`.
    fn describe(&self) -> String;

    /// Leaves the far end; the next call connects anew.
    fn disconnect(&mut self);
}

/// What a short command gave.
#[derive(Debug, Clone)]
pub struct CommandOutput {
    /// Exit status; `None` when a signal or a lost connection ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Error output.
    pub stderr: Vec<u8>,
}

/// Why a far end could not be reached. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve, nothing listens, or the network is down.
    #[error("Cannot reach {host}: {why}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The system's words.
        why: String,
    },
    /// The host's key is not the one we know, or none is known.
    #[error("Host key of {host} not accepted: {why}")]
    HostKey {
        /// Host and port.
        host: String,
        /// What is wrong and the remedy.
        why: String,
    },
    /// Nobody let us in.
    #[error("Authentication as {user} at {host} failed: {why}")]
    Auth {
        /// The user we tried.
        user: String,
        /// Host and port.
        host: String,
        /// What was tried and the remedy.
        why: String,
    },
    /// An option, key file or configuration file on this side cannot be used.
    #[error("{0}")]
    Setup(String),
    /// The far end took longer than the limit.
    #[error("{host} did not answer within {limit:?} ({stage})")]
    Timeout {
        /// Host and port.
        host: String,
        /// The limit.
        limit: Duration,
        /// What we were waiting for.
        stage: &'static str,
    },
    /// The connection broke.
    #[error("Connection to {host} lost: {why}")]
    Lost {
        /// Host and port.
        host: String,
        /// The transport's words.
        why: String,
    },
}
