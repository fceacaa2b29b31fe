//! A local program as the far end: rsync itself, or a remote shell command that starts it elsewhere.

use super::{CommandOutput, Connect, ConnectError, collect};
use crate::link::{Closer, Ending, Link, Remote, Sink};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the program may go on after both halves of its link are gone, before it is asked to end.
const LINGER: Duration = Duration::from_secs(10);

/// How long it has to obey, before it is killed.
const OBEY: Duration = Duration::from_secs(2);

/// Error output taken after the program's end, at most; a grandchild may hold the pipe and write for ever.
const LAST_WORDS: usize = 1 << 20;

/// Starts programs on this machine.
#[derive(Debug, Clone)]
pub struct Child {
    program: Vec<OsString>,
    stall_limit: Option<Duration>,
    /// Error output goes where ours goes, at once.
    shares_stderr: bool,
}

impl Child {
    /// Runs `program` (normally `rsync`) here.
    pub fn local(program: Vec<OsString>) -> Self {
        Self { program, stall_limit: Some(Duration::from_secs(60)), shares_stderr: false }
    }

    /// A link on which no byte moves for so long, while somebody waits, fails with `TimedOut`; 60 s unless set.
    pub fn stall_limit(mut self, limit: Option<Duration>) -> Self {
        self.stall_limit = limit;
        self
    }

    /// What the program says on its error output goes to ours, instead of into the link's [`Remote`].
    pub fn shares_stderr(mut self) -> Self {
        self.shares_stderr = true;
        self
    }

    fn start(&self, words: &[OsString]) -> Result<Link, ConnectError> {
        let Some((program, args)) = words.split_first() else {
            return Err(ConnectError::Setup("No program to run is given; name one with --rsync-path".to_owned()));
        };
        let cannot = |e: io::Error| {
            ConnectError::Setup(format!(
                "Cannot run {}: {e}; install it or correct its name",
                program.to_string_lossy()
            ))
        };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if self.shares_stderr { Stdio::inherit() } else { Stdio::piped() })
            .spawn()
            .map_err(cannot)?;
        let joined = self.join(&mut child);
        match joined {
            Ok((link, watch)) => thread::Builder::new()
                .name("child-watch".to_owned())
                .spawn(move || watch.run(child))
                .map(|_| link)
                .map_err(cannot),
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(cannot(e))
            }
        }
    }

    fn join(&self, child: &mut std::process::Child) -> io::Result<(Link, ChildWatch)> {
        let missing = || io::Error::other("a pipe is missing");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take();
        for fd in [Some(stdin.as_fd()), Some(stdout.as_fd()), stderr.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let line = Arc::new(Line::new(2, self.stall_limit)?);
        let remote = Remote::new();
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let closing = line.clone();
        let link = Link {
            reader: Box::new(ChildReader { stdout, line: Half(line.clone()) }),
            writer: Box::new(ChildWriter { stdin, line: Half(line.clone()) }),
            closer: Closer::new(move || closing.close()),
            remote: remote.clone(),
            patience: None,
        };
        Ok((link, ChildWatch { line, pidfd, stderr, remote }))
    }
}

impl Connect for Child {
    fn open(&mut self, server_args: &[OsString]) -> Result<Link, ConnectError> {
        self.start(&[&self.program[..], server_args].concat())
    }

    fn run_until(&mut self, argv: &[OsString], began: &mut dyn FnMut(Closer)) -> Result<CommandOutput, ConnectError> {
        let limit = self.stall_limit.unwrap_or(Duration::from_secs(60));
        let link = self.start(argv)?;
        began(link.closer.clone());
        collect(link, &self.describe(), limit)
    }

    fn program(&self) -> Vec<OsString> {
        self.program.clone()
    }

    fn describe(&self) -> String {
        "this machine".to_owned()
    }

    fn disconnect(&mut self) {}
}

/// What the halves of one link and its watcher share.
pub(super) struct Line {
    closed: AtomicBool,
    /// Readable for ever once the link is closed.
    closed_fd: OwnedFd,
    /// Tells the watcher to look again.
    nudge: OwnedFd,
    halves: AtomicUsize,
    /// When a byte last moved, in either direction: a reader may wait long while the writer is busy.
    moved: Mutex<Instant>,
    stall_limit: Option<Duration>,
}

impl Line {
    pub(super) fn new(halves: usize, stall_limit: Option<Duration>) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            closed: AtomicBool::new(false),
            closed_fd: eventfd(0, flags)?,
            nudge: eventfd(0, flags)?,
            halves: AtomicUsize::new(halves),
            moved: Mutex::new(Instant::now()),
            stall_limit,
        })
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for fd in [&self.closed_fd, &self.nudge] {
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }

    fn moved(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repeats `call`, which does not block, until it moves something, the link is closed, or all stands still too long.
    pub(super) fn attempt(
        &self,
        fd: BorrowedFd<'_>,
        events: PollFlags,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let began = Instant::now();
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Err(io::Error::new(ErrorKind::ConnectionAborted, "The link was closed"));
            }
            match call() {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                done => {
                    *self.moved() = Instant::now();
                    return done;
                }
            }
            let mut left = Duration::from_secs(1);
            if let Some(limit) = self.stall_limit {
                let stalled = (*self.moved()).max(began).elapsed();
                if stalled >= limit {
                    return Err(io::Error::new(ErrorKind::TimedOut, format!("No byte moved for {limit:?}")));
                }
                left = left.min(limit - stalled);
            }
            sleep(&mut [PollFd::from_borrowed_fd(fd, events), PollFd::new(&self.closed_fd, PollFlags::IN)], left)?;
        }
    }
}

fn sleep(fds: &mut [PollFd<'_>], limit: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Counts the half it belongs to.
pub(super) struct Half(pub(super) Arc<Line>);

impl Drop for Half {
    fn drop(&mut self) {
        self.0.halves.fetch_sub(1, Ordering::AcqRel);
        let _ = rustix::io::write(&self.0.nudge, &1u64.to_ne_bytes());
    }
}

struct ChildReader {
    stdout: ChildStdout,
    line: Half,
}

impl Read for ChildReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let fd = self.stdout.as_fd();
        self.line.0.attempt(fd, PollFlags::IN, || Ok(rustix::io::read(fd, &mut *buf)?))
    }
}

struct ChildWriter {
    stdin: ChildStdin,
    line: Half,
}

impl Write for ChildWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let fd = self.stdin.as_fd();
        self.line.0.attempt(fd, PollFlags::OUT, || Ok(rustix::io::write(fd, buf)?))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for ChildWriter {}

/// Collects the program's error output and its end, and sees to it that it ends.
struct ChildWatch {
    line: Arc<Line>,
    pidfd: OwnedFd,
    stderr: Option<ChildStderr>,
    remote: Remote,
}

impl ChildWatch {
    fn run(mut self, mut child: std::process::Child) {
        if self.await_end().is_err() {
            let _ = child.kill();
        }
        let ended = child.wait();
        self.read_stderr(LAST_WORDS);
        self.remote.end(match ended {
            Ok(status) => ending(status),
            Err(e) => Ending::Lost(format!("Its end could not be learned: {e}")),
        });
    }

    fn await_end(&mut self) -> io::Result<()> {
        let mut ask_at: Option<Instant> = None;
        let mut kill_at: Option<Instant> = None;
        loop {
            let _: Result<usize, Errno> = rustix::io::read(&self.line.nudge, &mut [0; 8]);
            let now = Instant::now();
            if self.line.closed.load(Ordering::Acquire) {
                ask_at = Some(ask_at.map_or(now, |at| at.min(now)));
            } else if self.line.halves.load(Ordering::Acquire) == 0 {
                ask_at.get_or_insert(now + LINGER);
            }
            if kill_at.is_some_and(|at| now >= at) {
                pidfd_send_signal(&self.pidfd, Signal::KILL)?;
                kill_at = Some(now + OBEY);
            } else if kill_at.is_none() && ask_at.is_some_and(|at| now >= at) {
                pidfd_send_signal(&self.pidfd, Signal::TERM)?;
                kill_at = Some(now + OBEY);
            }
            let next = kill_at.or(ask_at).map_or(Duration::from_secs(60), |at| at.saturating_duration_since(now));
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN), PollFd::new(&self.line.nudge, PollFlags::IN)];
            if let Some(stderr) = &self.stderr {
                fds.push(PollFd::new(stderr, PollFlags::IN));
            }
            sleep(&mut fds, next)?;
            let ended = fds[0].revents().contains(PollFlags::IN);
            let spoke = fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
            if ended {
                return Ok(());
            }
            if spoke {
                self.read_stderr(64 * 1024);
            }
        }
    }

    /// Takes what is there, at most about `limit` bytes.
    fn read_stderr(&mut self, limit: usize) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut buf = [0; 8192];
        let mut taken = 0;
        while taken < limit {
            match stderr.read(&mut buf) {
                Ok(n) if n > 0 => {
                    self.remote.push_stderr(&buf[..n]);
                    taken += n;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    self.stderr = None;
                    return;
                }
            }
        }
    }
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, Some(signal)) => Ending::Signalled(signal_name(signal)),
        (None, None) => Ending::Lost(format!("It ended in an unknown way: {status}")),
    }
}

/// The name without `SIG`, as SSH gives it; the number where there is no common name.
fn signal_name(signal: i32) -> String {
    let named = [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::ILL, "ILL"),
        (Signal::ABORT, "ABRT"),
        (Signal::BUS, "BUS"),
        (Signal::FPE, "FPE"),
        (Signal::KILL, "KILL"),
        (Signal::USR1, "USR1"),
        (Signal::SEGV, "SEGV"),
        (Signal::USR2, "USR2"),
        (Signal::PIPE, "PIPE"),
        (Signal::ALARM, "ALRM"),
        (Signal::TERM, "TERM"),
        (Signal::XCPU, "XCPU"),
        (Signal::XFSZ, "XFSZ"),
        (Signal::SYS, "SYS"),
    ];
    let found = named.iter().find(|(known, _)| known.as_raw() == signal);
    found.map_or_else(|| signal.to_string(), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests;
