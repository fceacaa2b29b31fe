//! What runs at the far end.

use super::arguments::hello;
use crate::transfer::greet;
use crate::transport::{COMMAND_END, COMMAND_START, CommandOutput, Connect, ConnectError};
use std::ffi::OsString;

/// The first stock release with `--fsync`.
const FSYNC_SINCE: (u32, u32, u32) = (3, 2, 4);

/// What runs at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FarEnd {
    /// This program.
    Ours,
    /// Stock rsync of this version.
    Stock((u32, u32, u32)),
}

impl FarEnd {
    /// Whether it knows `--fsync`.
    pub(crate) fn syncs(self) -> bool {
        match self {
            Self::Ours => true,
            Self::Stock(version) => version >= FSYNC_SINCE,
        }
    }
}

/// Reads the first line of `--version`.
pub(super) fn far_end(output: &[u8]) -> Option<FarEnd> {
    let text = String::from_utf8_lossy(output);
    let mut words = text.lines().next()?.split_whitespace();
    match (words.next()?, words.next()?, words.next()) {
        ("pysmurf-archiver", _, _) => Some(FarEnd::Ours),
        ("rsync", "version", Some(version)) => {
            let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
            let mut parts = version.trim_start_matches('v').split('.').map(digits);
            let mut part = || parts.next().flatten();
            Some(FarEnd::Stock((part()?, part().unwrap_or(0), part().unwrap_or(0))))
        }
        _ => None,
    }
}

/// What a far end has answered to the question which rsync serves there.
pub(crate) enum Answer {
    /// One that serves: which, if that can be told, and the first line of what it said.
    Serves(Option<FarEnd>, String),
    /// None, and why.
    Nothing(String),
    /// Nothing that is known, and no session came of it.
    Unclear(String),
}

/// Asks which rsync serves there. `server_args` start a session, for those that tell no version.
pub(crate) fn ask(connect: &mut dyn Connect, server_args: &[OsString]) -> Result<Answer, ConnectError> {
    // Once may be the link's trouble.
    let output = match version(connect).or_else(|error| if no_command(&error) { version(connect) } else { Err(error) })
    {
        Ok(output) => output,
        Err(error) if no_command(&error) => return Ok(Answer::Nothing(error.to_string())),
        Err(error) => return Err(error),
    };
    let said = first_line(&output);
    if let Some(found) = far_end(&output.stdout) {
        return Ok(Answer::Serves(Some(found), said));
    }
    let place = connect.describe();
    let program = connect.program().join(" ".as_ref()).to_string_lossy().into_owned();
    let all = String::from_utf8_lossy(&[&output.stderr[..], &output.stdout[..]].concat()).to_lowercase();
    let status = output.status.map_or("no exit status".to_owned(), |status| format!("exit status {status}"));
    let how = if said.is_empty() { status } else { format!("{status}: {said}") };
    // What sshd says of an account that is for files alone.
    if all.contains("sftp connections only") {
        return Ok(Answer::Nothing(format!("The account runs no programs at {place} ({how})")));
    }
    if output.status == Some(127) || all.contains("command not found") {
        return Ok(Answer::Nothing(format!("There is no such program at {place} ({how}): {program}")));
    }
    if output.status == Some(126) {
        return Ok(Answer::Nothing(format!("Not allowed to run program {program} at {place} ({how})")));
    }
    let why = format!("{program} --version gives no version we know at {place} ({how})");
    Ok(match serves(connect, server_args) {
        Ok(()) => Answer::Serves(None, why),
        Err(trouble) => Answer::Unclear(format!("{why}, and starts no session: {trouble}")),
    })
}

pub(super) fn version(connect: &mut dyn Connect) -> Result<CommandOutput, ConnectError> {
    let argv = [connect.program(), vec![OsString::from("--version")]].concat();
    connect.run(&argv)
}

/// Were we let in, and no command run for us?
fn no_command(error: &ConnectError) -> bool {
    matches!(error, ConnectError::NoCommand { .. } | ConnectError::Timeout { stage: COMMAND_START | COMMAND_END, .. })
}

/// Whether a session begins.
fn serves(connect: &mut dyn Connect, server_args: &[OsString]) -> Result<(), String> {
    let link = connect.open(server_args).map_err(|error| error.to_string())?;
    let greeted = greet(link, hello(false)).map(drop).map_err(|error| error.to_string());
    // What still runs there is left.
    connect.disconnect();
    greeted
}

/// What a command said first, its error output before the other.
pub(super) fn first_line(output: &CommandOutput) -> String {
    let said = [&output.stderr[..], &output.stdout[..]].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let line = said.iter().flat_map(|said| said.lines()).map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or_default().chars().take(200).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(far_end(b"rsync  version 3.5.0  protocol version 32\nmore"), Some(FarEnd::Stock((3, 5, 0))));
        assert_eq!(far_end(b"rsync  version v3.2.7pre1  protocol version 31"), Some(FarEnd::Stock((3, 2, 7))));
        assert_eq!(far_end(b"pysmurf-archiver 0.1.0\n"), Some(FarEnd::Ours));
        assert_eq!(far_end(b"openrsync: protocol version 29\n"), None);
        assert_eq!(far_end(b""), None);
    }
}
