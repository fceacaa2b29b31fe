//! The one way to make libssh2 wait.
//!
//! Every libssh2 call is made in non-blocking mode and repeated under our own deadline, because libssh2's own limits
//! start anew with each call and its blocking waits know no ceiling.

use libssh2_sys as sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use ssh2::{BlockDirections, ErrorCode, Session};
use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// No wait is longer than this: what libssh2 says it waits for may be wrong.
pub(in crate::transport) const CEILING: Duration = Duration::from_secs(1);

/// Why a libssh2 call came to nothing.
#[derive(Debug)]
pub(in crate::transport) enum CallFailure {
    /// Its deadline passed.
    TimedOut,
    /// libssh2's error.
    Failed(ssh2::Error),
}

/// Repeats a libssh2 call, which must be the same each time, until it no longer asks to wait.
pub(in crate::transport) fn drive<T>(
    session: &Session,
    tcp: &TcpStream,
    deadline: Instant,
    mut call: impl FnMut() -> Result<T, ssh2::Error>,
) -> Result<T, CallFailure> {
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(e) if e.code() == ErrorCode::Session(sys::LIBSSH2_ERROR_EAGAIN) => {}
            Err(e) => return Err(CallFailure::Failed(e)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CallFailure::TimedOut);
        }
        // Until it runs a command sshd holds a small packet back while the one before is not acknowledged, and the kernel
        // would wait 40 ms for something to send along with that.
        let _ = sockopt::set_tcp_quickack(tcp, true);
        await_socket(tcp, None, wants_out(session), left).map_err(|_| CallFailure::TimedOut)?;
    }
}

/// Did the last libssh2 call end because the socket takes no more?
pub(in crate::transport) fn wants_out(session: &Session) -> bool {
    matches!(session.block_directions(), BlockDirections::Outbound | BlockDirections::Both)
}

/// Sleeps until the socket is readable (with `outbound`, or writable), or `wake` is, at most `limit` and a second.
pub(in crate::transport) fn await_socket(
    tcp: &TcpStream,
    wake: Option<BorrowedFd<'_>>,
    outbound: bool,
    limit: Duration,
) -> io::Result<()> {
    let events = if outbound { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let socket = PollFd::new(tcp, events);
    let timeout = Timespec::try_from(limit.min(CEILING)).map_err(io::Error::other)?;
    let polled = match wake {
        Some(wake) => poll(&mut [socket, PollFd::from_borrowed_fd(wake, PollFlags::IN)], Some(&timeout)),
        None => poll(&mut [socket], Some(&timeout)),
    };
    match polled {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
