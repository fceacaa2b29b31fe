//! Which road files take to the far end: its own rsync, this program uploaded, or plain SFTP. Found once per connection.

use super::batch::hello;
use super::worker::{FarEnd, far_end};
use crate::status::Progress;
use crate::transfer::digest::sum_of;
use crate::transfer::greet;
use crate::transport::ssh::sftp::{Sftp, SftpError};
use crate::transport::{COMMAND_END, COMMAND_START, CommandOutput, Connect, ConnectError};
use protocol::checksum::{Checksum, FileHasher, Sum};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where an upload goes unless another place is named; relative to where a login begins.
pub const UPLOAD_DIR: &str = ".cache/pysmurf-archiver";

/// A program to be uploaded where none serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The program: one that needs nothing of the machine it runs on.
    pub file: PathBuf,
    /// The directory over there; a relative one begins where a login does.
    pub dir: PathBuf,
    /// Remove it when the work is done.
    pub remove: bool,
}

/// The road that was found.
pub(super) enum Road {
    /// A program serves there.
    Program {
        /// It knows `--fsync`.
        syncs: bool,
        /// It is this program.
        ours: bool,
    },
    /// Nothing serves there; files are written one by one.
    Sftp(Box<Sftp>),
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

/// Finds the road. What serves there from now on is set in `connect`; `uploaded` is where an upload stands then.
pub(super) fn find(
    connect: &mut dyn Connect,
    server_args: &[OsString],
    bootstrap: Option<&Bootstrap>,
    uploaded: &mut Option<PathBuf>,
    progress: &Progress,
) -> Result<Road, ConnectError> {
    connect.serve_with(None);
    let (why, unclear) = match ask(connect, server_args)? {
        Answer::Serves(found, _) => {
            progress.set_road(None);
            return Ok(Road::Program { syncs: found.is_some_and(FarEnd::syncs), ours: found == Some(FarEnd::Ours) });
        }
        Answer::Nothing(why) => (why, false),
        Answer::Unclear(why) => (why, true),
    };
    let host = connect.describe();
    let mut sftp = match connect.sftp() {
        Ok(sftp) => sftp,
        // Its sessions say best what is wrong there.
        Err(_) if unclear => {
            progress.set_road(None);
            return Ok(Road::Program { syncs: false, ours: false });
        }
        Err(error @ (ConnectError::Timeout { .. } | ConnectError::Unreachable { .. })) => return Err(error),
        Err(error) => {
            let why = format!(
                "{why}; nor can files be written by SFTP: {error}. Install rsync there, or name it with --rsync-path"
            );
            return Err(ConnectError::Lost { host, why });
        }
    };
    let mut remedy = "install rsync there, or let this program be uploaded with --bootstrap".to_owned();
    if let Some(bootstrap) = bootstrap {
        match upload(&mut sftp, bootstrap).and_then(|path| {
            connect.serve_with(Some(vec![path.clone().into()]));
            runs(connect, &path).map(|()| path)
        }) {
            Ok(path) => {
                tracing::info!(host, program = %path.display(), "{why}; our own was uploaded and serves there");
                progress.set_road(Some(format!("uploaded program {}: {why}", path.display())));
                *uploaded = Some(path);
                return Ok(Road::Program { syncs: true, ours: true });
            }
            Err(trouble) => {
                connect.serve_with(None);
                remedy = trouble;
            }
        }
    }
    // Not again after each loss of the connection.
    if progress.set_road(Some(format!("SFTP, slower: {why}; {remedy}"))) {
        tracing::warn!(host, "{why}; files are written by SFTP, which is slower and read back to be proven; {remedy}");
    }
    Ok(Road::Sftp(Box::new(sftp)))
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

fn version(connect: &mut dyn Connect) -> Result<CommandOutput, ConnectError> {
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

/// Whether the uploaded program runs there.
fn runs(connect: &mut dyn Connect, path: &Path) -> Result<(), String> {
    let output = version(connect).map_err(|error| error.to_string())?;
    if far_end(&output.stdout) == Some(FarEnd::Ours) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().escape_debug().to_string();
    let how = output.status.map_or("no exit status".to_owned(), |status| format!("exit status {status}"));
    Err(format!(
        "the uploaded program {} does not run there ({how}: {said}); is the directory mounted noexec, or is it of another kind of machine? Name another directory with --bootstrap-dir, or another program with --bootstrap",
        path.display()
    ))
}

/// Puts the program there under the name of its sum, unless it is there, and gives its path. What stands under that name
/// was read back whole before it is run.
fn upload(sftp: &mut Sftp, bootstrap: &Bootstrap) -> Result<PathBuf, String> {
    let local =
        |error: io::Error| format!("{} cannot be read ({error}); correct --bootstrap", bootstrap.file.display());
    let (sum, len) = sum_of(&mut File::open(&bootstrap.file).map_err(local)?, Checksum::Blake3).map_err(local)?;
    let there = |error: SftpError| format!("the upload to {} failed: {error}", bootstrap.dir.display());
    let dir = sftp.home().map_err(there)?.join(&bootstrap.dir);
    let mut way = PathBuf::new();
    for part in dir.components() {
        way.push(part);
        sftp.make_dir(&way, 0o700).map_err(there)?;
    }
    // Whoever else could write here could have us run what they like.
    sftp.set(&dir, Some(0o700), None).map_err(there)?;
    let path = dir.join(sum.to_string());
    if stands(sftp, &path, &sum, len).map_err(there)? {
        return Ok(path);
    }
    sftp.remove(&path).map_err(there)?;
    let random: String = std::iter::repeat_with(fastrand::alphanumeric).take(6).collect();
    let temp = dir.join(format!(".{sum}.{random}"));
    let mut file = File::open(&bootstrap.file).map_err(local)?;
    let written = sftp.create(&temp, 0o600, &mut |buffer| file.read(buffer));
    let whole = written.map_err(there).and_then(|written| {
        written.map_err(local)?;
        let mut hasher = FileHasher::new(Checksum::Blake3);
        let back = sftp.read(&temp, &mut |bytes| hasher.update(bytes)).map_err(there)?;
        if (back, hasher.finish()) != (len, sum) {
            return Err(format!("the upload to {} arrived with other bytes; is the disk in order?", dir.display()));
        }
        sftp.set(&temp, Some(0o700), None).map_err(there)?;
        if sftp.rename(&temp, &path).map_err(there)? || stands(sftp, &path, &sum, len).map_err(there)? {
            return Ok(());
        }
        Err(format!("another file stands at {} and cannot be replaced", path.display()))
    });
    // After a rename nothing has the temporary name any more.
    let _ = sftp.remove(&temp);
    whole.map(|()| path)
}

/// Whether the program stands there as it should, for us alone to change, ready to be run.
fn stands(sftp: &mut Sftp, path: &Path, sum: &Sum, len: u64) -> Result<bool, SftpError> {
    match sftp.stat(path)? {
        Some(found) if found.is_file && found.len == len && found.perms & 0o077 == 0 => {}
        _ => return Ok(false),
    }
    let mut hasher = FileHasher::new(Checksum::Blake3);
    let back = sftp.read(path, &mut |bytes| hasher.update(bytes))?;
    if (back, hasher.finish()) != (len, *sum) {
        return Ok(false);
    }
    sftp.set(path, Some(0o700), None)?;
    Ok(true)
}

/// Whether a program needs no loader and no libraries of its machine; an ELF file without an interpreter.
pub fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let word = |at: usize, len: usize| -> Option<u64> {
        let bytes = program.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let headers = || -> Option<Vec<u32>> {
        // 64 bits, least byte first, as all machines are on which this program is built.
        if !program.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let (start, size, count) = (usize::try_from(word(32, 8)?).ok()?, word(54, 2)? as usize, word(56, 2)? as usize);
        (0..count).map(|n| word(start.checked_add(n * size)?, 4).map(|kind| kind as u32)).collect()
    };
    headers().is_some_and(|kinds| !kinds.is_empty() && !kinds.contains(&INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_a_loader_are_told_apart() {
        // The tests themselves need the machine's libraries; what is no program is not static either.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut elf = own[..64].to_vec();
        assert_eq!(is_static(&own), cfg!(target_feature = "crt-static"));
        assert!(!is_static(&elf) && !is_static(b"#!/bin/sh\n") && !is_static(b""));
        // One header, of a part to be loaded.
        elf[32..40].copy_from_slice(&64u64.to_le_bytes());
        elf[56..58].copy_from_slice(&1u16.to_le_bytes());
        elf.extend(1u32.to_le_bytes());
        assert!(is_static(&elf));
        elf[64] = 3;
        assert!(!is_static(&elf));
    }
}
