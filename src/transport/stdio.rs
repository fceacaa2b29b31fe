//! Our own standard input and output as a link: how a `--server` reaches its client.

use crate::link::{Closer, Ending, Link, Remote};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The link to whoever started us. `stall_limit` bounds every wait for the other side.
pub fn stdio(stall_limit: Duration) -> Link {
    let remote = Remote::new();
    // The client is no child of ours: nothing will ever be known of its end.
    remote.end(Ending::Lost("the client closed the connection".into()));
    // As stock rsync does: so a large write cannot hold us beyond the limit. Where it is refused, writes just block.
    for fd in [io::stdin().as_fd(), io::stdout().as_fd()] {
        if let Ok(flags) = fcntl_getfl(fd) {
            let _ = fcntl_setfl(fd, flags | OFlags::NONBLOCK);
        }
    }
    Link {
        reader: Box::new(Stdin { stall_limit }),
        writer: Box::new(Stdout { stall_limit }),
        closer: Closer::new(|| {}),
        remote,
    }
}

struct Stdin {
    stall_limit: Duration,
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        when_ready(stdin.as_fd(), PollFlags::IN, self.stall_limit, |fd| rustix::io::read(fd, &mut *buffer))
    }
}

struct Stdout {
    stall_limit: Duration,
}

impl Drop for Stdout {
    /// The client is to see the end of the stream now, not when the process ends.
    fn drop(&mut self) {
        if let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(&nowhere);
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        when_ready(stdout.as_fd(), PollFlags::OUT, self.stall_limit, |fd| rustix::io::write(fd, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tries, and waits for the descriptor as often as it is not ready after all.
fn when_ready(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    limit: Duration,
    mut act: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
) -> io::Result<usize> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        let mut fds = [PollFd::from_borrowed_fd(fd, events)];
        if poll(&mut fds, Some(&limit))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other side stalled"));
        }
        match act(fd) {
            Err(Errno::AGAIN) => {}
            result => return Ok(result?),
        }
    }
}
