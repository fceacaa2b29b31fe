//! Stock rsync as the client, with any program as its far end.

use super::tree::Tree;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Our own program.
pub const OURS: &str = env!("CARGO_BIN_EXE_pysmurf-archiver");

/// No run may take longer, seconds.
const LIMIT: &str = "120";

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
        super::script(&path, text);
        path
    }

    /// Runs stock rsync in `cwd` with `server` as the far end's program. A run that does not end is a failure.
    pub fn rsync<A: AsRef<OsStr>>(&self, server: &str, cwd: &Path, args: &[A]) -> Run {
        let mut words: Vec<OsString> =
            vec!["-e".into(), self.path().join("rsh").into(), "--rsync-path".into(), server.into()];
        words.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        rsync(cwd, &words)
    }
}

/// Runs stock rsync with these words only.
pub fn rsync<A: AsRef<OsStr>>(cwd: &Path, args: &[A]) -> Run {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", LIMIT, "rsync"]).args(args).current_dir(cwd).stdin(Stdio::null());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().unwrap_or(-1);
    let shown: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
    assert!(code != 124 && code != 137, "rsync {shown:?} does not end: {stderr}");
    Run { code, stdout: output.stdout, stderr }
}

/// What differs between two runs of the same command; empty when nothing does.
pub fn difference(stock: &(Run, Tree, Tree), ours: &(Run, Tree, Tree)) -> String {
    let mut text = String::new();
    if stock.0.code != ours.0.code {
        text += &format!("  exit code {} | {}\n", stock.0.code, ours.0.code);
    }
    let (left, right) = (stock.0.lines(), ours.0.lines());
    for line in left.iter().filter(|line| !right.contains(line)) {
        text += &format!("  only stock says {line}\n");
    }
    for line in right.iter().filter(|line| !left.contains(line)) {
        text += &format!("  only ours says {line}\n");
    }
    for (what, left, right) in [("source", &stock.1, &ours.1), ("destination", &stock.2, &ours.2)] {
        let lines = left.difference(right);
        if !lines.is_empty() {
            text += &format!("  {what} after stock | after ours:\n{lines}");
        }
    }
    if !text.is_empty() {
        text += &format!("  stock said {:?}\n  ours said {:?}\n", stock.0.stderr, ours.0.stderr);
    }
    text
}
