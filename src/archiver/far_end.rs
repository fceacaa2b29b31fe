//! What runs at the far end.

use super::arguments::hello;
use super::compression::Coding;
use super::origins::{FolderTrouble, far_place};
use crate::transfer::greet;
use crate::transport::{COMMAND_END, COMMAND_START, CommandOutput, Connect, ConnectError};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Folders of one batch that the far end is asked for.
const FOLDERS_ASKED: usize = 16;
/// The first stock release with `--fsync`.
const FSYNC_SINCE: (u32, u32, u32) = (3, 2, 4);

/// What runs at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FarProgram {
    /// This program.
    Ours,
    /// Stock rsync of this version.
    Stock((u32, u32, u32)),
}

impl FarProgram {
    /// Whether it knows `--fsync`.
    pub(crate) fn syncs(self) -> bool {
        match self {
            Self::Ours => true,
            Self::Stock(version) => version >= FSYNC_SINCE,
        }
    }
}

/// Reads the first line of `--version`.
pub(super) fn far_end(output: &[u8]) -> Option<FarProgram> {
    let text = String::from_utf8_lossy(output);
    let mut words = text.lines().next()?.split_whitespace();
    match (words.next()?, words.next()?, words.next()) {
        ("pysmurf-archiver", _, _) => Some(FarProgram::Ours),
        ("rsync", "version", Some(version)) => {
            let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
            let mut parts = version.trim_start_matches('v').split('.').map(digits);
            let mut part = || parts.next().flatten();
            Some(FarProgram::Stock((part()?, part().unwrap_or(0), part().unwrap_or(0))))
        }
        _ => None,
    }
}

/// What a far end has answered to the question which rsync serves there.
pub(crate) enum ServerProbe {
    /// One that serves: which, if that can be told, and the first line of what it said.
    Serves(Option<FarProgram>, String),
    /// None, and why.
    Nothing(String),
    /// Nothing that is known, and no session came of it.
    Unclear(String),
}

/// Asks which rsync serves there. `server_args` start a session, for those that tell no version.
pub(crate) fn probe(connect: &mut dyn Connect, server_args: &[OsString]) -> Result<ServerProbe, ConnectError> {
    // Once may be the link's trouble.
    let output = match version(connect).or_else(|error| if no_command(&error) { version(connect) } else { Err(error) })
    {
        Ok(output) => output,
        Err(error) if no_command(&error) => return Ok(ServerProbe::Nothing(error.to_string())),
        Err(error) => return Err(error),
    };
    let said = first_line(&output);
    if let Some(found) = far_end(&output.stdout) {
        return Ok(ServerProbe::Serves(Some(found), said));
    }
    let place = connect.describe();
    let program = connect.program().join(" ".as_ref()).to_string_lossy().into_owned();
    let all = String::from_utf8_lossy(&[&output.stderr[..], &output.stdout[..]].concat()).to_lowercase();
    let status = output.status.map_or("no exit status".to_owned(), |status| format!("exit status {status}"));
    let how = if said.is_empty() { status } else { format!("{status}: {said}") };
    // What sshd says of an account that is for files alone.
    if all.contains("sftp connections only") {
        return Ok(ServerProbe::Nothing(format!("The account runs no programs at {place} ({how})")));
    }
    if output.status == Some(127) || all.contains("command not found") {
        return Ok(ServerProbe::Nothing(format!("There is no such program at {place} ({how}): {program}")));
    }
    if output.status == Some(126) {
        return Ok(ServerProbe::Nothing(format!("Not allowed to run program {program} at {place} ({how})")));
    }
    let why = format!("{program} --version gives no version we know at {place} ({how})");
    Ok(match serves(connect, server_args) {
        Ok(()) => ServerProbe::Serves(None, why),
        Err(trouble) => ServerProbe::Unclear(format!("{why}, and starts no session: {trouble}")),
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
    let greeted = greet(link, hello(Coding::Plain)).map(drop).map_err(|error| error.to_string());
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

/// What keeps the archive's base directory on `side` from taking anything, if something does.
pub(super) fn base_trouble(side: &mut dyn Connect, base: &str) -> Option<String> {
    let questions = [("-d", "is not there"), ("-w", "cannot be written to")];
    // Into the root itself nothing is written where it is the base.
    let asked = if base == "/" { 1 } else { questions.len() };
    for (flag, why) in questions.into_iter().take(asked) {
        match side.run(&["test".into(), flag.into(), base.into()]) {
            Ok(output) if output.status == Some(0) => {}
            // `test` itself says nothing; whoever does is one in its place, that runs no such commands.
            Ok(output) if output.status == Some(1) && output.stdout.is_empty() && output.stderr.is_empty() => {
                return Some(format!("Directory {base} at {} {why}", side.describe()));
            }
            // A far end without `test` cannot be asked.
            Ok(output) => {
                let said = first_line(&output);
                tracing::debug!(host = side.describe(), "test {flag} {base}: {said}");
                return None;
            }
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}

/// The folders of the far end that files of one batch come from, asked for once each.
pub(super) struct FarFolders<'a> {
    connect: &'a mut dyn Connect,
    asked: HashMap<PathBuf, Option<FolderTrouble>>,
}

impl<'a> FarFolders<'a> {
    pub(super) fn new(connect: &'a mut dyn Connect) -> Self {
        Self { connect, asked: HashMap::new() }
    }

    /// The place whose trouble keeps a file from being had, if it is not the file's own; `why` is what is known of it.
    pub(super) fn place(&mut self, source: &Path, why: &str) -> Option<FolderTrouble> {
        let folder = source.parent()?.to_owned();
        if far_place(why) {
            return Some(FolderTrouble { folder, why: why.to_owned() });
        }
        if let Some(known) = self.asked.get(&folder) {
            return known.clone();
        }
        if self.asked.len() >= FOLDERS_ASKED {
            return None;
        }
        let trouble = self.trouble(&folder);
        let place = trouble.map(|why| FolderTrouble { folder: folder.clone(), why });
        self.asked.insert(folder, place.clone());
        place
    }

    fn trouble(&mut self, folder: &Path) -> Option<String> {
        // An account that is held to one command may answer anything else with failure.
        let answers = self.asked.values().any(Option::is_some)
            || self.connect.run(&["test".into(), "-d".into(), "/".into()]).is_ok_and(|output| output.status == Some(0));
        for (flag, why) in [("-d", "is not there"), ("-x", "cannot be entered")] {
            match self.connect.run(&["test".into(), flag.into(), folder.into()]) {
                Ok(output) if answers && output.status == Some(1) => {
                    return Some(format!("at {} {why}", self.connect.describe()));
                }
                // A far end without `test` cannot be asked.
                Ok(_) => {}
                // Then nothing is known, and nothing counted.
                Err(error) => return Some(format!("at {} cannot be asked for: {error}", self.connect.describe())),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(far_end(b"rsync  version 3.5.0  protocol version 32\nmore"), Some(FarProgram::Stock((3, 5, 0))));
        assert_eq!(far_end(b"rsync  version v3.2.7pre1  protocol version 31"), Some(FarProgram::Stock((3, 2, 7))));
        assert_eq!(far_end(b"pysmurf-archiver 0.1.0\n"), Some(FarProgram::Ours));
        assert_eq!(far_end(b"openrsync: protocol version 29\n"), None);
        assert_eq!(far_end(b""), None);
    }
}
