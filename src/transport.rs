//! Ways to reach a peer. A transport knows nothing of what the bytes mean.

pub mod child;
mod pump;
mod queued;
pub(crate) mod ranges;
pub mod ssh;
pub(crate) mod stdio;
pub(crate) mod tcp;

use crate::link::{Closer, Ending, Link};
use ssh::sftp::Sftp;
use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who is told how long a round trip is at most, once the host is known, and says whether to log in.
pub type OnAnswer = Arc<dyn Fn(Duration) -> bool + Send + Sync>;

/// A way to start programs at one far end. Keeps its connection between calls.
pub trait Connect: Send {
    /// Starts the rsync server program of the far end with these arguments (`--server …`, without the program's name)
    /// and gives the link to it.
    fn open(&mut self, server_args: &[OsString]) -> Result<Link, ConnectError>;

    /// Reaches the far end and starts nothing there, where that can be done by itself.
    ///
    /// # Errors
    /// Why it is out of reach.
    fn login(&mut self) -> Result<(), ConnectError> {
        Ok(())
    }

    /// Has this told each time that a connection has been answered; see [`OnAnswer`]. Does nothing where nobody logs in.
    fn on_answer(&mut self, _told: OnAnswer) {}

    /// Starts the server program again as it was started last, ahead of need: the next [`Connect::open`] with the same
    /// arguments takes it over and saves that start. Whatever else is asked ends it. Does nothing where that saves nothing.
    fn open_ahead(&mut self) {}

    /// Since when a program started ahead waits.
    fn ahead_since(&self) -> Option<Instant> {
        None
    }

    /// Ends what was started or connected ahead and not taken over.
    fn leave_ahead(&mut self) {}

    /// Runs a short command at the far end, nothing on its standard input, and collects its output (at most 64 KiB of
    /// each stream). `argv[0]` is the program; no word is seen by a shell unquoted.
    fn run(&mut self, argv: &[OsString]) -> Result<CommandOutput, ConnectError> {
        self.run_until(argv, &mut drop)
    }

    /// As [`Connect::run`]; `began` is given what ends the command before its time.
    fn run_until(&mut self, argv: &[OsString], began: &mut dyn FnMut(Closer)) -> Result<CommandOutput, ConnectError>;

    /// The words that start the rsync server program at the far end, normally just `rsync`.
    fn program(&self) -> Vec<OsString>;

    /// Has another program serve from now on; `None` for the one of the options again.
    fn serve_with(&mut self, _program: Option<Vec<OsString>>) {}

    /// A connection of its own to the far end's files.
    fn sftp(&mut self) -> Result<Sftp, ConnectError> {
        Err(ConnectError::Setup(format!("There is no SFTP to {}", self.describe())))
    }

    /// The next [`Connect::login`] that is answered over a link with at least this round trip has the connection made as well
    /// that [`Connect::sftp`] will give, which logs in once the first has. Does nothing where that saves nothing.
    fn sftp_ahead(&mut self, _at_least: Duration) {}

    /// No shorter than the round trip to the far end, as the connection that is open has measured it; `None` where there is
    /// none, or nothing to measure.
    fn round_trip(&self) -> Option<Duration> {
        None
    }

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
    /// We were let in, but no command was run for us, or not to its end.
    #[error("{host} runs no command: {why}")]
    NoCommand {
        /// Host and port.
        host: String,
        /// How it was refused.
        why: String,
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

/// What was waited for when a command did not begin in time.
pub(crate) const COMMAND_START: &str = "start of the command";
/// What was waited for when it did not end.
pub(crate) const COMMAND_END: &str = "end of the command";

/// How much of each stream of a short command is kept, bytes.
const OUTPUT_KEPT: usize = 64 * 1024;

/// The words as one command line for a POSIX shell, each of them quoted.
fn shell_command(words: &[OsString]) -> Result<String, ConnectError> {
    let mut command = String::new();
    for word in words {
        if !command.is_empty() {
            command.push(' ');
        }
        if word.as_bytes().contains(&0) {
            return Err(ConnectError::Setup(format!(
                "The argument {word:?} holds a NUL byte; no command line can carry it"
            )));
        }
        if word.is_empty() {
            command.push_str("''");
        }
        for chunk in word.as_bytes().utf8_chunks() {
            if !chunk.valid().is_empty() {
                let quoted =
                    shlex::try_quote(chunk.valid()).map_err(|e| ConnectError::Setup(format!("{e}: {word:?}")))?;
                command.push_str(&quoted);
            }
            // libssh2's bindings take only UTF-8; the far end's shell makes the other bytes.
            for byte in chunk.invalid() {
                command.push_str(&format!("\"$(printf '\\{byte:03o}')\""));
            }
        }
    }
    Ok(command)
}

/// Gives the command no input and waits for its end, at most `limit` beyond the last stalled read.
fn collect(link: Link, host: &str, limit: Duration) -> Result<CommandOutput, ConnectError> {
    let Link { mut reader, writer, closer, remote, .. } = link;
    drop(writer);
    let deadline = Instant::now() + limit;
    let timeout = || ConnectError::Timeout { host: host.to_owned(), limit, stage: COMMAND_END };
    let mut stdout = Vec::new();
    let mut buf = [0; 8192];
    loop {
        if Instant::now() >= deadline {
            closer.close();
            return Err(timeout());
        }
        match reader.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => stdout.extend_from_slice(&buf[..n.min(OUTPUT_KEPT - stdout.len())]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::TimedOut => return Err(timeout()),
            Err(e) => return Err(ConnectError::Lost { host: host.to_owned(), why: e.to_string() }),
        }
    }
    let Some(ending) = remote.wait(deadline.saturating_duration_since(Instant::now())) else {
        closer.close();
        return Err(timeout());
    };
    let status = match ending {
        Ending::Exited(status) => Some(status),
        Ending::Signalled(_) | Ending::Lost(_) => None,
    };
    Ok(CommandOutput { status, stdout, stderr: remote.stderr().into_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;
    use std::process::Command;

    #[test]
    fn a_shell_gives_back_the_words() {
        let words: Vec<OsString> =
            [&b"plain"[..], b"", b"a b", b"it's", b"$HOME `x` \\ \"", b"~", b"*", b"\xff\xfe name", b"\n", b"!x"]
                .iter()
                .map(|word| OsString::from_vec(word.to_vec()))
                .collect();
        let line = format!("printf '%s\\0' {}", shell_command(&words).unwrap());
        let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
        let back: Vec<&[u8]> = output.stdout.split(|&b| b == 0).collect();
        let given: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        assert_eq!(back[..back.len() - 1], given);
    }

    #[test]
    fn a_nul_is_refused() {
        let error = shell_command(&[OsString::from("a\0b")]).unwrap_err();
        assert!(matches!(error, ConnectError::Setup(_)), "{error}");
    }
}
