//! Exit codes and what rsync calls them.

use crate::link::Ending;
use crate::transfer::TransferError;
use crate::transfer::serve::exit_code;

/// What was to be said could not be.
pub(super) const DIAGNOSTICS: i32 = 13;
/// Partial: some files or attributes were not transferred.
pub(super) const PARTIAL: i32 = 23;
/// Files vanished at the source.
pub(super) const VANISHED: i32 = 24;
/// `--max-delete` stopped deletions.
pub(super) const DELETE_LIMIT: i32 = 25;
/// A signal ended it.
pub(super) const SIGNAL: i32 = 20;
/// Too long without a byte, or longer than allowed.
pub(super) const TIMEOUT: i32 = 30;

/// The last line of a run that did not end well.
pub(super) fn line(code: i32, who: &str) -> String {
    let (kind, text) = match code {
        VANISHED => ("warning", "some files vanished before they could be transferred"),
        DELETE_LIMIT => ("warning", "the --max-delete limit stopped deletions"),
        code => ("error", name(code)),
    };
    let version = env!("CARGO_PKG_VERSION");
    format!("rsync {kind}: {text} (code {code}) at pysmurf-archiver [{who}={version}]")
}

fn name(code: i32) -> &'static str {
    match code {
        1 => "syntax or usage error",
        2 => "protocol incompatibility",
        3 => "errors selecting input/output files, dirs",
        4 => "requested action not supported",
        5 => "error starting client-server protocol",
        10 => "error in socket IO",
        11 => "error in file IO",
        12 => "error in rsync protocol data stream",
        DIAGNOSTICS => "errors with program diagnostics",
        14 => "error in IPC code",
        15 => "sibling process crashed",
        16 => "sibling process terminated abnormally",
        19 => "received SIGUSR1",
        SIGNAL => "received SIGINT, SIGTERM, or SIGHUP",
        21 => "waitpid() failed",
        22 => "error allocating core memory buffers",
        PARTIAL => "some files/attrs were not transferred (see previous errors)",
        TIMEOUT => "timeout in data send/receive",
        35 => "timeout waiting for daemon connection",
        124 => "remote shell failed",
        125 => "remote shell killed",
        126 => "remote command could not be run",
        127 => "remote command not found",
        _ => "unexplained error",
    }
}

/// The exit code of an error that ended a session.
pub(super) fn of(error: &TransferError) -> i32 {
    match error {
        TransferError::Remote { ending: Some(ending), .. } => of_ending(ending).max(12),
        error => exit_code(error),
    }
}

/// The exit code that the far end's program adds to ours.
pub(super) fn of_ending(ending: &Ending) -> i32 {
    match ending {
        Ending::Exited(status) => *status,
        Ending::Signalled(_) => 125,
        Ending::Lost(_) => 0,
    }
}
