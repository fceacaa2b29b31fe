//! Programs run as processes of their own, and what they used.
//!
//! Between us and the measured program stands a small process, `bench measure`: what the kernel says of its children is
//! said of nobody else's, and its own few MiB are all that a child's peak may inherit.

use super::{BenchError, Trial};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// No measured program may take longer.
const LIMIT: Duration = Duration::from_secs(1800);
/// How long a program that is to end may take for it.
const GRACE: Duration = Duration::from_secs(3);
/// How much of what a failed program said is shown, bytes.
const SHOWN: usize = 600;

/// A program that ended well.
#[derive(Debug)]
pub(crate) struct Ran {
    /// What it took; of this side only.
    pub trial: Trial,
    /// Its standard output.
    pub stdout: String,
}

/// Runs a program to its end and measures it, and all it waited for; `folder` holds files that are needed meanwhile.
///
/// # Errors
/// When it cannot be started, fails, or does not end within half an hour.
pub(crate) fn run(command: &Command, folder: &Path) -> Result<Ran, BenchError> {
    let scratch = tempfile::tempdir_in(folder).map_err(BenchError::local("make a folder in", folder))?;
    let at = |name: &str| scratch.path().join(name);
    let create = |name: &str| File::create(at(name)).map_err(BenchError::local("write in", folder));
    let ourselves = std::env::current_exe().map_err(BenchError::local("find", Path::new("this program's file")))?;
    let mut wrapped = Command::new(ourselves);
    wrapped.args(["bench", "measure", "--to"]).arg(at("used")).arg("--").arg(command.get_program());
    wrapped.args(command.get_args()).stdin(Stdio::null()).stdout(create("out")?).stderr(create("err")?);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    // A group of its own, so that whatever the program starts can be ended with it.
    wrapped.process_group(0);
    let mut child = wrapped.spawn().map_err(BenchError::local("start", Path::new(command.get_program())))?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().map_err(BenchError::local("wait for", Path::new(command.get_program())))? {
            Some(status) => break status,
            None if is_interrupted() => {
                end(&mut child);
                return Err(BenchError::Interrupted);
            }
            None if Instant::now() > deadline => {
                end(&mut child);
                return Err(failed(command, "not ended within half an hour".to_owned(), &[]));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let said = fs::read(at("err")).unwrap_or_default();
    if !status.success() {
        return Err(failed(command, status.to_string(), &said));
    }
    let trial = read(&at("used"))?;
    let stdout = String::from_utf8_lossy(&fs::read(at("out")).unwrap_or_default()).into_owned();
    Ok(Ran { trial, stdout })
}

/// Ends a group of processes, the gentle way first.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let deadline = Instant::now() + GRACE;
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = group.map(|group| kill_process_group(group, signal));
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let _ = child.wait();
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends the running measurement as soon as may be, its folders removed.
pub(crate) fn interrupt() {
    INTERRUPTED.store(true, Relaxed);
}

pub(super) fn is_interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

fn failed(command: &Command, status: String, said: &[u8]) -> BenchError {
    let mut what = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args().take(12) {
        what.push(' ');
        what.extend(word.to_string_lossy().chars().take(80));
    }
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(SHOWN)..]).trim().to_owned();
    BenchError::Failed { what, status, said }
}

/// What a process between has written.
pub(super) fn read(used: &Path) -> Result<Trial, BenchError> {
    let text = fs::read_to_string(used).map_err(BenchError::local("read", used))?;
    parse(&text).ok_or_else(|| BenchError::Setup(format!("{} holds no measurement: {text:?}", used.display())))
}

fn parse(used: &str) -> Option<Trial> {
    let mut words = used.split_whitespace();
    let mut next = || words.next()?.parse::<f64>().ok();
    let (wall, cpu, peak) = (next()?, next()?, next()?);
    Some(Trial { wall, cpu, peak: peak as u64, ..Trial::default() })
}

/// The process between: runs the words and writes wall seconds, CPU seconds and peak memory in bytes of them and all they
/// waited for. Ends as they do.
///
/// # Errors
/// When the program cannot be started, or the file not be written.
pub(crate) fn measure(to: &Path, words: &[OsString]) -> Result<u8, BenchError> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| BenchError::Setup("Name a program behind --".to_owned()))?;
    let began = Instant::now();
    let status =
        Command::new(program).args(arguments).status().map_err(BenchError::local("start", Path::new(program)))?;
    let wall = began.elapsed().as_secs_f64();
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|error| BenchError::Setup(format!("Cannot ask what the program used: {error}")))?;
    let cpu = (used.user_time().num_microseconds() + used.system_time().num_microseconds()) as f64 / 1e6;
    let peak = used.max_rss() * 1024;
    fs::write(to, format!("{wall} {cpu} {peak}\n")).map_err(BenchError::local("write", to))?;
    Ok(code(status))
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// What all programs of this machine have used of it by now.
pub(super) struct MachineUse {
    when: Instant,
    /// CPU seconds of all.
    busy: f64,
    /// CPU seconds of this process, which may be the link simulator.
    ours: f64,
}

impl MachineUse {
    /// `None` where the kernel does not say.
    pub(super) fn now() -> Option<Self> {
        let busy = busy_ticks(&fs::read_to_string("/proc/stat").ok()?)?;
        let used = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let ours = (used.user_time().num_microseconds() + used.system_time().num_microseconds()) as f64 / 1e6;
        Some(Self { when: Instant::now(), busy: busy / rustix::param::clock_ticks_per_second() as f64, ours })
    }

    /// The share of the machine that others have taken since, where what was measured has used so many CPU seconds.
    pub(super) fn others_until(&self, then: &Self, measured: f64) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let others = (then.busy - self.busy) - (then.ours - self.ours) - measured;
        let whole = then.when.duration_since(self.when).as_secs_f64() * cores;
        (others / whole.max(1e-3)).clamp(0.0, 1.0)
    }
}

/// Ticks of all cores that were not idle, of the text of `/proc/stat`.
fn busy_ticks(text: &str) -> Option<f64> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let fields: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
    // User, nice, system, then idle and waiting for disks, then interrupts and what other guests took.
    (fields.len() >= 8).then(|| fields[..3].iter().chain(&fields[5..8]).sum())
}

/// A command with a settled environment: no words of rsync's or ours from outside.
pub(super) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["RSYNC_", "ARCHIVER_", "MYSQL_", "RUST_LOG"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_used_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("used");
        let words = ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3"].map(OsString::from);
        assert_eq!(measure(&to, &words).unwrap(), 3);
        let trial = parse(&fs::read_to_string(&to).unwrap()).unwrap();
        assert!(trial.wall > 0.0 && trial.cpu > 0.0 && trial.peak > 100_000, "{trial:?}");
    }

    #[test]
    fn what_others_use_of_the_machine_is_what_is_left() {
        assert_eq!(busy_ticks("cpu  100 10 50 900 7 1 2 3 0 0\ncpu0 1\n"), Some(166.0));
        assert_eq!(busy_ticks("cpu  1 2\n"), None);
        let from = MachineUse { when: Instant::now(), busy: 10.0, ours: 1.0 };
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let then = |busy| MachineUse { when: from.when + Duration::from_secs(10), busy, ours: 2.0 };
        let share = from.others_until(&then(10.0 + 3.0 + 2.5 * cores), 2.0);
        assert!((share - 0.25).abs() < 1e-9, "{share}");
        assert_eq!(from.others_until(&then(11.0), 2.0), 0.0);
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = measure(&folder.path().join("used"), &["/nonexistent/tool".into()]).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/tool"), "{error}");
        assert!(measure(&folder.path().join("used"), &[]).is_err());
    }
}
