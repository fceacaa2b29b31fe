//! The SSH link by itself: how long until one is let in, and how fast each cipher is, ours and OpenSSH's.

use super::far_end::{FarEnd, SshReach};
use super::report::Row;
use super::{BenchError, BenchProgress, Findings, Trial, find, measure};
use crate::link::Ending;
use crate::transport::Connect;
use crate::transport::ssh::Ssh;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Ciphers that both may know, ours first.
const CIPHERS: [&str; 4] =
    ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "chacha20-poly1305@openssh.com"];
/// How long the far end may take to end after the last byte.
const END_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) struct SshPlan {
    /// The user's own host; `None` for a private sshd on this machine.
    pub host: Option<String>,
    /// Bytes for each cipher.
    pub size: u64,
    /// Rounds, of which the median counts.
    pub rounds: u32,
    /// Where files go on this side.
    pub folder: PathBuf,
}

/// Measures connecting and every cipher.
///
/// # Errors
/// When the host cannot be reached, or OpenSSH's client is here and cannot reach it.
pub(crate) fn run(plan: &SshPlan, progress: &BenchProgress) -> Result<Findings, BenchError> {
    let scratch = tempfile::Builder::new().prefix("archiver-bench").tempdir_in(&plan.folder);
    let scratch = scratch.map_err(BenchError::local("make a folder in", &plan.folder))?;
    let far = match &plan.host {
        Some(host) => FarEnd::at(host, None)?,
        None => FarEnd::private(scratch.path())?,
    };
    let mut findings = Findings::default();
    let ssh = find("ssh");
    if let Err(why) = &ssh {
        findings.skip("OpenSSH's client", why);
    }
    let ssh = ssh.ok();
    let reach = &far.reach;
    progress.expect(1 + CIPHERS.len());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds.max(1) {
        progress.say(format!("Connecting, round {}", round + 1));
        if let Some(ssh) = &ssh {
            theirs.push(measure::run(&openssh(reach, ssh, None, "true"), scratch.path())?.trial);
        }
        ours.push(timed(|| {
            let mut ssh = Ssh::new(reach.options())?;
            ssh.run(&[OsString::from("true")])?;
            Ok(())
        })?);
    }
    progress.done();
    findings.rows.push(Row::of_times("ssh-connect", None, (&ours, 1000.0), (&theirs, 1000.0), "ms"));
    let data = scratch.path().join("data");
    super::scene::write_noise(&data, plan.size, 3)?;
    let data = fs::read(&data).map_err(BenchError::local("read", &data))?;
    let pushes = Pushes { rounds: plan.rounds, reach, ssh: ssh.as_deref(), data: &data, scratch: scratch.path() };
    for cipher in CIPHERS {
        match pushes.by(cipher, progress) {
            Ok(row) => findings.rows.push(row),
            Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
            Err(error) => findings.skip(format!("ssh-{cipher}"), error),
        }
        progress.done();
    }
    findings.notes.push(
        "ssh-connect: connect, authenticate, and run `true`. Ciphers: bytes to `cat >/dev/null` there; our CPU is that of \
         this process, theirs that of the ssh client."
            .to_owned(),
    );
    Ok(findings)
}

/// Bytes that are pushed by each cipher.
struct Pushes<'a> {
    rounds: u32,
    reach: &'a SshReach,
    /// OpenSSH's client, if it is here.
    ssh: Option<&'a Path>,
    data: &'a [u8],
    /// Where they stand in the file `data`.
    scratch: &'a Path,
}

impl Pushes<'_> {
    fn by(&self, cipher: &'static str, progress: &BenchProgress) -> Result<Row, BenchError> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..self.rounds.max(1) {
            progress.say(format!("{cipher}, round {}", round + 1));
            if let Some(ssh) = self.ssh {
                let mut command = Command::new("sh");
                let openssh = openssh(self.reach, ssh, Some(cipher), "cat >/dev/null");
                command.args(["-c", "file=$1; shift; exec \"$@\" <\"$file\"", "sh"]).arg(self.scratch.join("data"));
                command.arg(openssh.get_program()).args(openssh.get_args());
                theirs.push(measure::run(&command, self.scratch)?.trial);
            }
            let mut options = self.reach.options();
            options.ciphers = vec![cipher.to_owned()];
            ours.push(timed(|| send(&mut Ssh::new(options)?, self.data))?);
        }
        let id = format!("ssh-{}", cipher.trim_end_matches("@openssh.com"));
        Ok(Row::of_times(&id, None, (&ours, 1.0), (&theirs, 1.0), "s").as_rate(self.data.len() as u64))
    }
}

/// Pushes bytes to a program that takes them all, and waits for its end.
fn send(ssh: &mut Ssh, data: &[u8]) -> Result<(), BenchError> {
    let link = ssh.open_line("cat >/dev/null")?;
    let (mut reader, mut writer) = (link.reader, link.writer);
    let lost = |error: std::io::Error| BenchError::Setup(format!("The connection broke: {error}"));
    for piece in data.chunks(256 * 1024) {
        writer.write_all(piece).map_err(lost)?;
    }
    writer.flush().map_err(lost)?;
    drop(writer);
    reader.read_to_end(&mut Vec::new()).map_err(lost)?;
    match link.remote.wait(END_LIMIT) {
        Some(Ending::Exited(0)) => Ok(()),
        ending => Err(BenchError::Setup(format!("`cat` at the far end did not end well: {ending:?}"))),
    }
}

fn openssh(reach: &SshReach, ssh: &Path, cipher: Option<&str>, line: &str) -> Command {
    let mut command = reach.command(ssh);
    command.args(reach.words());
    command.args(cipher.map(|cipher| format!("-oCiphers={cipher}")));
    command.args([reach.host(), line]);
    command
}

/// What work in this very process takes.
fn timed(work: impl FnOnce() -> Result<(), BenchError>) -> Result<Trial, BenchError> {
    let cpu = || {
        let used = getrusage(UsageWho::RUSAGE_SELF).map_err(|error| BenchError::Setup(error.to_string()))?;
        Ok::<_, BenchError>((used.user_time().num_microseconds() + used.system_time().num_microseconds()) as f64 / 1e6)
    };
    if measure::is_interrupted() {
        return Err(BenchError::Interrupted);
    }
    let (began, before) = (Instant::now(), cpu()?);
    work()?;
    Ok(Trial { wall: began.elapsed().as_secs_f64(), cpu: cpu()? - before, ..Trial::default() })
}
