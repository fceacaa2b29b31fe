//! The conversation before a session, on standard input and output, all of it within one time limit.

use super::proxy::{self, NoHeader};
use crate::link::{Link, Sink};
use crate::transport::stdio::stdio;
use protocol::PeerError;
use protocol::daemon::{Server, ServerEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use std::io::{self, Cursor, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long all of it may take: greeting, request and arguments together, however slowly they drip.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How much longer where a person may have to type a password.
const TYPING: Duration = Duration::from_secs(60);
/// How long a client may go on speaking to which we have nothing more to say, and how much of that is listened to.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 16 << 20;

/// Why the conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    /// The client broke the rules.
    #[error("{0}")]
    Peer(#[from] PeerError),
    /// The client is gone.
    #[error("connection lost before the transfer: {0}")]
    Lost(io::Error),
    /// No proxy speaks, though one should.
    #[error("{0}")]
    NoProxy(#[from] NoHeader),
    /// The client was too slow.
    #[error("no complete request within {0:?}")]
    Late(Duration),
}

pub(super) struct Talk {
    server: Server,
    began: Instant,
    patience: Duration,
}

impl Talk {
    pub(super) fn start() -> Self {
        for fd in [io::stdin().as_fd(), io::stdout().as_fd()] {
            if let Ok(flags) = fcntl_getfl(fd) {
                let _ = fcntl_setfl(fd, flags | OFlags::NONBLOCK);
            }
        }
        Self { server: Server::new(), began: Instant::now(), patience: PATIENCE }
    }

    /// The operator's `timeout`, in seconds, where there is one.
    pub(super) fn within(&mut self, seconds: i64) {
        if let Some(limit) = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0) {
            self.patience = self.patience.min(Duration::from_secs(limit));
        }
    }

    /// A challenge was sent.
    pub(super) fn challenge(&mut self) {
        self.server.challenge();
        self.patience += TYPING;
    }

    /// Says no more, and hears the client out for a while: a connection that is closed while it still speaks is reset,
    /// and our last words with it.
    pub(super) fn linger(&mut self) {
        let stdin = io::stdin();
        let _ = rustix::net::shutdown(io::stdout(), rustix::net::Shutdown::Write);
        (self.began, self.patience) = (Instant::now(), LINGER);
        let (mut left, mut buffer) = (LINGER_BYTES, [0; 4096]);
        while let Ok(n @ 1..) =
            self.when_ready(stdin.as_fd(), PollFlags::IN, |fd| rustix::io::read(fd, &mut buffer[..]))
        {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    }

    /// The client was accepted.
    pub(super) fn accept(&mut self) {
        self.server.accept();
    }

    /// Hears who is behind a proxy; nothing where the proxy speaks for itself. Comes before all else.
    pub(super) fn proxied(&mut self) -> Result<Option<IpAddr>, Gone> {
        let stdin = io::stdin();
        let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.when_ready(stdin.as_fd(), PollFlags::IN, |fd| rustix::io::read(fd, &mut buffer[..]))? {
                0 => return Err(Gone::Lost(io::ErrorKind::UnexpectedEof.into())),
                n => heard.extend_from_slice(&buffer[..n]),
            }
            if let Some(header) = proxy::read(&heard)? {
                self.server.feed(&heard[header.len..]);
                return Ok(header.client);
            }
        }
    }

    /// What the client says next.
    pub(super) fn hear(&mut self) -> Result<ServerEvent, Gone> {
        let stdin = io::stdin();
        let mut buffer = [0; 4096];
        loop {
            if let Some(event) = self.server.poll()? {
                return Ok(event);
            }
            match self.when_ready(stdin.as_fd(), PollFlags::IN, |fd| rustix::io::read(fd, &mut buffer[..]))? {
                0 => return Err(Gone::Lost(io::ErrorKind::UnexpectedEof.into())),
                n => self.server.feed(&buffer[..n]),
            }
        }
    }

    /// Says something to the client.
    pub(super) fn say(&self, mut bytes: &[u8]) -> Result<(), Gone> {
        let stdout = io::stdout();
        while !bytes.is_empty() {
            let n = self.when_ready(stdout.as_fd(), PollFlags::OUT, |fd| rustix::io::write(fd, bytes))?;
            bytes = bytes.get(n..).unwrap_or_default();
        }
        Ok(())
    }

    fn when_ready(
        &self,
        fd: BorrowedFd<'_>,
        events: PollFlags,
        mut act: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Result<usize, Gone> {
        loop {
            let left = self.patience.saturating_sub(self.began.elapsed());
            let limit = Timespec::try_from(left).map_err(|error| Gone::Lost(io::Error::other(error)))?;
            match poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&limit)) {
                Ok(0) => return Err(Gone::Late(self.patience)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Gone::Lost(error.into())),
            }
            match act(fd) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done.map_err(|error| Gone::Lost(error.into())),
            }
        }
    }

    /// The link for the session that follows; `stall_limit` bounds its waits.
    pub(super) fn into_link(self, stall_limit: Duration) -> (Link, Count) {
        let count = Count::default();
        let mut link = stdio(stall_limit);
        let rest = Cursor::new(self.server.into_rest());
        link.reader = Box::new(CountedStream(rest.chain(link.reader), count.clone()));
        link.writer = Box::new(CountedStream(link.writer, count.clone()));
        (link, count)
    }
}

/// Bytes of a session.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(Arc<(AtomicU64, AtomicU64)>);

impl Count {
    /// Bytes that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Bytes that were received.
    pub(super) fn received(&self) -> u64 {
        self.0.1.load(Ordering::Relaxed)
    }
}

struct CountedStream<T>(T, Count);

impl<T: Read> Read for CountedStream<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.0.1.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl<T: Write> Write for CountedStream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.0.write(bytes)?;
        self.1.0.0.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<T: Sink> Sink for CountedStream<T> {
    fn give(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let len = bytes.len();
        self.0.give(bytes)?;
        self.1.0.0.fetch_add(len as u64, Ordering::Relaxed);
        Ok(())
    }
}
