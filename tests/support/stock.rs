//! Stock rsync as the client, with any program as its far end.

use super::tools::require;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Our own program.
pub const OURS: &str = env!("CARGO_BIN_EXE_pysmurf-archiver");

/// No run may take longer, seconds.
const LIMIT: &str = "600";

/// What a client's run came to.
#[derive(Debug, Clone)]
pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// Lines about items and totals that do not depend on who speaks to whom, in order.
    pub fn lines(&self) -> Vec<String> {
        let kept = |line: &[u8]| {
            let itemized = line.get(11) == Some(&b' ') && b"<>ch.*".contains(&line[0]) && b"fdLDS".contains(&line[1]);
            let totals = [
                &b"Number of"[..],
                b"Literal data",
                b"Matched data",
                b"Total file size",
                b"Total transferred",
                b"skipping",
            ];
            itemized || totals.iter().any(|start| line.starts_with(start))
        };
        let lines = self.stdout.split(|&byte| byte == b'\n').filter(|line| kept(line));
        let mut lines: Vec<_> = lines.map(|line| line.escape_ascii().to_string()).collect();
        lines.sort();
        lines
    }

    /// A number of `--stats`, such as `Literal data`.
    pub fn stat(&self, name: &str) -> u64 {
        let text = String::from_utf8_lossy(&self.stdout);
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        let digits = |c: &char| c.is_ascii_digit();
        let number: String = line.chars().skip_while(|c| !digits(c)).filter(|c| *c != ',').take_while(digits).collect();
        number.parse().unwrap()
    }
}

/// A folder to work in, with the remote shell that stays here.
pub struct Bench {
    dir: TempDir,
}

impl Bench {
    pub fn start() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        bench.script("rsh", "shift\nexec sh -c \"$*\"\n");
        bench
    }

    /// The same where these tools are installed.
    pub fn with(tools: &[&str]) -> Option<Self> {
        tools.iter().all(|tool| require(tool)).then(Self::start)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A new folder with this at the start of its name, gone when dropped.
    pub fn fresh(&self, name: &str) -> TempDir {
        let work = tempfile::Builder::new().prefix(name).tempdir_in(self.path()).unwrap();
        fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).unwrap();
        work
    }

    /// The remote shell that stays here.
    pub fn shell(&self) -> PathBuf {
        self.path().join("rsh")
    }

    /// Writes a shell script and returns its path.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        super::script::script(&path, text);
        path
    }

    /// Runs stock rsync in `cwd` with `server` as the far end's program.
    pub fn rsync<A: AsRef<OsStr>>(&self, server: &str, cwd: &Path, args: &[A]) -> Run {
        let mut command = client("rsync");
        command.arg("-e").arg(self.shell()).args(["--rsync-path", server]);
        ended(command.args(args).current_dir(cwd))
    }
}

/// Runs stock rsync with these words only.
pub fn rsync<A: AsRef<OsStr>>(cwd: &Path, args: &[A]) -> Run {
    ended(client("rsync").args(args).current_dir(cwd))
}

/// This program as a client: stock's, ours, or one under another name.
pub fn client(program: &str) -> Command {
    client_behind(&[], program)
}

/// The same behind such words as `setpriv …`.
pub fn client_behind(before: &[&str], program: &str) -> Command {
    let words = if program == OURS { &[OURS, "rsync"][..] } else { &[program] };
    limited(&[before, words].concat())
}

/// A program with its first words that may not run for ever.
pub fn limited(words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", LIMIT]).args(words).stdin(Stdio::null());
    command.env("TZ", "UTC").env_remove("RSYNC_RSH");
    command
}

/// Runs a [`limited`] program. One that does not end is a failure, as is one that panics.
pub fn ended(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().unwrap_or(-1);
    assert!(code != 124 && code != 137, "{command:?} does not end: {stderr}");
    assert!(!stderr.contains("panicked"), "{command:?}: {stderr}");
    Run { code, stdout: output.stdout, stderr }
}
