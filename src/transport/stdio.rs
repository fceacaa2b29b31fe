//! Our own standard input and output as a link: how a `--server` reaches its client.

use crate::link::{Closer, Ending, Link, Remote, Sink};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// The link to whoever started us. `stall_limit` bounds every wait for the other side.
pub(crate) fn stdio(stall_limit: Duration) -> Link {
    let remote = Remote::new();
    // The client is no child of ours: nothing will ever be known of its end.
    remote.end(Ending::Lost("the client closed the connection".into()));
    // As stock rsync does: so a large write cannot hold us beyond the limit. Where it is refused, writes just block.
    for fd in [io::stdin().as_fd(), io::stdout().as_fd()] {
        if let Ok(flags) = fcntl_getfl(fd) {
            let _ = fcntl_setfl(fd, flags | OFlags::NONBLOCK);
        }
    }
    // Without it a close takes effect only when the stall limit does.
    let closed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok().map(Arc::new);
    let closing = closed.clone();
    let line = StdioLine { stall_limit, closed };
    Link {
        reader: Box::new(Stdin(line.clone())),
        writer: Box::new(Stdout(line)),
        closer: Closer::new(move || {
            if let Some(closed) = &closing {
                let _ = rustix::io::write(closed, &1u64.to_ne_bytes());
            }
        }),
        remote,
        patience: None,
    }
}

/// Our standard input alone, for what comes before the protocol.
pub(crate) fn input(stall_limit: Duration) -> impl Read {
    Stdin(StdioLine { stall_limit, closed: None })
}

#[derive(Clone)]
struct StdioLine {
    stall_limit: Duration,
    /// Readable for ever once the link is closed.
    closed: Option<Arc<OwnedFd>>,
}

struct Stdin(StdioLine);

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        self.0.when_ready(stdin.as_fd(), PollFlags::IN, |fd| rustix::io::read(fd, &mut *buffer))
    }
}

struct Stdout(StdioLine);

impl Drop for Stdout {
    /// The client is to see the end of the stream now, not when the process ends.
    fn drop(&mut self) {
        // A socket is our input as well, and stays open for it.
        let _ = rustix::net::shutdown(io::stdout(), rustix::net::Shutdown::Write);
        if let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(&nowhere);
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        self.0.when_ready(stdout.as_fd(), PollFlags::OUT, |fd| rustix::io::write(fd, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Stdout {}

impl StdioLine {
    /// Tries, and waits for the descriptor as often as it is not ready after all.
    fn when_ready(
        &self,
        fd: BorrowedFd<'_>,
        events: PollFlags,
        mut act: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> io::Result<usize> {
        let limit = Timespec::try_from(self.stall_limit).map_err(io::Error::other)?;
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(fd, events)];
            fds.extend(self.closed.as_deref().map(|closed| PollFd::new(closed, PollFlags::IN)));
            if poll(&mut fds, Some(&limit))? == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the other side stalled"));
            }
            if fds.get(1).is_some_and(|closed| !closed.revents().is_empty()) {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "The link was closed"));
            }
            match act(fd) {
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
    }
}
