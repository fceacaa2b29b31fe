//! Exit codes: rsync's numbers, and what rsync calls them. Which of them an error is worth, the error says (`exit_code`).

use crate::link::Ending;
use protocol::mux::{IO_DELETE_LIMIT, IO_GENERAL, IO_VANISHED};

/// A command line, or a module's rules, that cannot be followed.
pub(crate) const SYNTAX: i32 = 1;
/// The ends, or an end and what it was given, do not go together.
pub(crate) const PROTOCOL: i32 = 2;
/// What was named cannot be taken.
pub(crate) const SELECTION: i32 = 3;
/// What is not done here.
pub(crate) const UNSUPPORTED: i32 = 4;
/// There is no session with the far end's program.
pub(crate) const START: i32 = 5;
/// There is no way to the far end.
pub(crate) const SOCKET: i32 = 10;
/// A file that is no part of a transfer cannot be read or written.
pub(crate) const FILE: i32 = 11;
/// The stream between the two ends broke.
pub(crate) const STREAM: i32 = 12;
/// What was to be said could not be.
pub(crate) const DIAGNOSTICS: i32 = 13;
/// A program of this machine cannot be run or talked to.
pub(crate) const IPC: i32 = 14;
/// A thread of ours, which stands for one of rsync's processes, crashed.
pub(crate) const CRASHED: i32 = 15;
/// More would have to be held than memory is meant for.
pub(crate) const MEMORY: i32 = 22;
/// Partial: some files or attributes were not transferred.
pub(crate) const PARTIAL: i32 = 23;
/// Files vanished at the source.
pub(crate) const VANISHED: i32 = 24;
/// `--max-delete` stopped deletions.
pub(crate) const DELETE_LIMIT: i32 = 25;
/// A process of ours was killed.
const KILLED: i32 = 16;
/// `SIGUSR1` ended it.
pub(crate) const USR1: i32 = 19;
/// A signal ended it.
pub(crate) const SIGNAL: i32 = 20;
/// Too long without a byte, or longer than allowed.
pub(crate) const TIMEOUT: i32 = 30;
/// A daemon did not answer in time.
pub(crate) const CONNECT_TIMEOUT: i32 = 35;

/// The last line of a run that did not end well.
pub(crate) fn line(code: i32, who: &str) -> String {
    let (kind, text) = match code {
        VANISHED => ("warning", "some files vanished before they could be transferred"),
        code => ("error", name(code)),
    };
    let version = env!("CARGO_PKG_VERSION");
    format!("rsync {kind}: {text} (code {code}) at pysmurf-archiver [{who}={version}]")
}

fn name(code: i32) -> &'static str {
    match code {
        DELETE_LIMIT => "the --max-delete limit stopped deletions",
        SYNTAX => "syntax or usage error",
        PROTOCOL => "protocol incompatibility",
        SELECTION => "errors selecting input/output files, dirs",
        UNSUPPORTED => "requested action not supported",
        START => "error starting client-server protocol",
        SOCKET => "error in socket IO",
        FILE => "error in file IO",
        STREAM => "error in rsync protocol data stream",
        DIAGNOSTICS => "errors with program diagnostics",
        IPC => "error in IPC code",
        CRASHED => "sibling process crashed",
        KILLED => "sibling process terminated abnormally",
        USR1 => "received SIGUSR1",
        SIGNAL => "received SIGINT, SIGTERM, or SIGHUP",
        21 => "waitpid() failed",
        MEMORY => "error allocating core memory buffers",
        PARTIAL => "some files/attrs were not transferred (see previous errors)",
        TIMEOUT => "timeout in data send/receive",
        CONNECT_TIMEOUT => "timeout waiting for daemon connection",
        124 => "remote shell failed",
        125 => "remote shell killed",
        126 => "remote command could not be run",
        127 => "remote command not found",
        _ => "unexplained error",
    }
}

/// The exit code of a session that came to its end with this trouble; bits as the protocol has them.
pub(crate) fn of_trouble(bits: i32) -> i32 {
    match bits {
        bits if bits & IO_GENERAL != 0 => PARTIAL,
        bits if bits & IO_VANISHED != 0 => VANISHED,
        bits if bits & IO_DELETE_LIMIT != 0 => DELETE_LIMIT,
        _ => 0,
    }
}

/// The exit code that the far end's program adds to ours, where the session itself came to its end.
pub(crate) fn of_ending(ending: &Ending) -> i32 {
    match ending {
        Ending::Exited(status) => *status,
        Ending::Signalled(_) => KILLED,
        Ending::Lost(_) => 0,
    }
}

/// What a process ends with.
pub(crate) fn status(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_transferred_outweighs_what_was_not_deleted() {
        for (bits, code) in [(0, 0), (1, 23), (2, 24), (4, 25), (3, 23), (5, 23), (6, 24), (7, 23)] {
            assert_eq!(of_trouble(bits), code, "{bits}");
        }
    }
}
