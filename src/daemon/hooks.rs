//! Commands of the operator around a transfer. Counterpart: rsync's `pre_exec` and its wait for the transfer's end.

use super::config::DaemonVariables;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

/// How much of a command's output the client is shown.
const OUTPUT_MOST: u64 = 8192;

/// Reads the outcome of a transfer from its input, then runs the operator's command. The transfer's process cannot do so
/// itself: it has put away the rights for it by then.
const AFTER: &str = "IFS=' ' read -r RSYNC_EXIT_STATUS RSYNC_RAW_STATUS || { RSYNC_EXIT_STATUS=-1; RSYNC_RAW_STATUS=-1; }\n\
    export RSYNC_EXIT_STATUS RSYNC_RAW_STATUS\nexec \"$0\" -c \"$1\" </dev/null";

/// A command whose variables hold what no shell should see is not run.
pub(super) const REFUSED: &str = "refusing to run shell hook";

fn shell() -> OsString {
    std::env::var_os("RSYNC_SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into())
}

/// Whether the operator's commands run at all.
pub(super) fn enabled() -> bool {
    std::env::var_os("RSYNC_NO_XFER_EXEC").is_none()
}

/// The command with its `%RSYNC_…%` replaced, where each value is safe in any shell, however often it is read.
fn command_line(command: &str, environment: &DaemonVariables) -> Result<String, String> {
    let risky =
        |value: &str| value.chars().any(|letter| letter.is_control() || " \t'\"`$\\;&|<>()*?[]#!~{}".contains(letter));
    let check = |name: &str, value: String| match name.starts_with("RSYNC_") && risky(&value) {
        true => None,
        false => Some(value),
    };
    environment.replace(command, check).ok_or_else(|| format!("{REFUSED}: {command:?} holds a shell metacharacter"))
}

/// The shell that is to read a command, which may ask what the client's arguments are.
fn prepared(command: &str, environment: &DaemonVariables, args: &[Vec<u8>]) -> Result<Command, String> {
    let line = command_line(command, environment)?;
    let mut prepared = Command::new(shell());
    prepared.envs(environment.added());
    for (number, arg) in args.iter().enumerate() {
        prepared.env(format!("RSYNC_ARG{number}"), OsString::from_vec(arg.clone()));
    }
    prepared.arg("-c").arg(line).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(prepared)
}

/// Starts a program that goes on beside the session, with pipes of ours for its input and output.
pub(super) fn start(command: &str, environment: &DaemonVariables, args: &[Vec<u8>]) -> Result<Child, String> {
    prepared(command, environment, args)?.spawn().map_err(|error| format!("cannot run {command:?}: {error}"))
}

/// Runs a command to its end, with `input` on its standard input. A failure comes with what it printed.
pub(super) fn run(command: &str, environment: &DaemonVariables, args: &[Vec<u8>], input: &[u8]) -> Result<(), String> {
    let mut child = start(command, environment, args)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input may do without.
        let _ = stdin.write_all(input);
    }
    let mut output = Vec::new();
    if let Some(stdout) = &mut child.stdout {
        let _ = stdout.take(OUTPUT_MOST).read_to_end(&mut output);
        let _ = io::copy(stdout, &mut io::sink());
    }
    let status = child.wait().map_err(|error| format!("cannot wait for {command:?}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
    Err(format!("returned failure ({code})\n{}", String::from_utf8_lossy(&output)))
}

/// The command that waits for the transfer's end. Dropped without a word, it takes the transfer for broken off.
pub(super) struct After(Child);

impl After {
    /// Starts the wait, while this process may still do what its operator may.
    pub(super) fn start(command: &str, environment: &DaemonVariables) -> Result<Self, String> {
        let line = command_line(command, environment)?;
        let child = Command::new("/bin/sh")
            .envs(environment.added())
            .args(["-c", AFTER])
            .arg(shell())
            .arg(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        child.map(Self).map_err(|error| format!("cannot run {command:?}: {error}"))
    }

    /// The transfer has ended with this exit code.
    pub(super) fn ended(mut self, code: u8) {
        if let Some(stdin) = &mut self.0.stdin {
            let _ = writeln!(stdin, "{code} {}", i32::from(code) << 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_and_can_refuse() {
        let mut environment = DaemonVariables::default();
        environment.set("RSYNC_MODULE_NAME", "mod");
        environment.set("RSYNC_USER_NAME", "x;y");
        let args = [b"rsyncd".to_vec(), b"--server".to_vec()];
        let told = "test \"$RSYNC_MODULE_NAME,$RSYNC_ARG1,$(cat)\" = %RSYNC_MODULE_NAME%,--server,input";
        assert_eq!(run(told, &environment, &args, b"input"), Ok(()));
        assert_eq!(run("echo no; exit 3", &environment, &args, b""), Err("returned failure (3)\nno\n".into()));
        let refused = run("echo %RSYNC_USER_NAME%", &environment, &args, b"").unwrap_err();
        assert!(refused.starts_with(REFUSED), "{refused}");
    }

    #[test]
    fn the_end_is_heard_of_however_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let environment = DaemonVariables::default();
        for (code, expected) in [(Some(23), "23 5888\n"), (None, "-1 -1\n")] {
            let out = folder.path().join("out");
            let command = format!("echo $RSYNC_EXIT_STATUS $RSYNC_RAW_STATUS > {}", out.display());
            let mut after = After::start(&command, &environment).unwrap();
            let mut child = std::mem::replace(&mut after.0, Command::new("true").spawn().unwrap());
            after.0.wait().unwrap();
            std::mem::swap(&mut after.0.stdin, &mut child.stdin);
            match code {
                Some(code) => after.ended(code),
                None => drop(after),
            }
            child.wait().unwrap();
            assert_eq!(std::fs::read_to_string(&out).unwrap(), expected);
        }
    }
}
