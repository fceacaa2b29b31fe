//! Makes a session: TCP, handshake, host key, login; and the one way to make libssh2 wait.
//!
//! Every libssh2 call is made in non-blocking mode and repeated under our own deadline, because libssh2's own limits
//! start anew with each call and its blocking waits know no ceiling.

use super::config::{self, SshTarget};
use super::settings::Value;
use super::{auth, known_hosts};
use crate::transport::ConnectError;
use libssh2_sys as sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use ssh2::{BlockDirections, ErrorCode, HashType, MethodType, Session};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No wait is longer than this: what libssh2 says it waits for may be wrong.
const CEILING: Duration = Duration::from_secs(1);

/// AES-GCM first: libssh2 would offer ChaCha20 first, in slow portable C and re-keyed every GiB.
const CIPHERS: [&str; 7] = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
    "aes192-ctr",
    "chacha20-poly1305@openssh.com",
    "chacha20-poly1305",
];

/// A logged-in session and its socket.
pub(in crate::transport) struct Dialled {
    pub(in crate::transport) session: Session,
    pub(in crate::transport) tcp: Arc<TcpStream>,
}

impl Drop for Dialled {
    /// In non-blocking mode libssh2 would give up freeing what still wants to say goodbye, and leak it; on a socket that is
    /// shut down, no goodbye can be waited for.
    fn drop(&mut self) {
        let _ = self.tcp.shutdown(Shutdown::Both);
        self.session.set_blocking(true);
        self.session.set_timeout(500);
    }
}

/// Why a libssh2 call came to nothing.
#[derive(Debug)]
pub(in crate::transport) enum Stop {
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
) -> Result<T, Stop> {
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(e) if e.code() == ErrorCode::Session(sys::LIBSSH2_ERROR_EAGAIN) => {}
            Err(e) => return Err(Stop::Failed(e)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Stop::TimedOut);
        }
        // Until it runs a command sshd holds a small packet back while the one before is not acknowledged, and the kernel
        // would wait 40 ms for something to send along with that.
        let _ = sockopt::set_tcp_quickack(tcp, true);
        await_socket(tcp, None, wants_out(session), left).map_err(|_| Stop::TimedOut)?;
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

/// Connects and logs in. The host's key is checked before anything about us is said.
pub(super) fn dial(target: &SshTarget) -> Result<Dialled, ConnectError> {
    let deadline = Instant::now() + target.connect_timeout;
    let mut session = Session::new().map_err(|e| ConnectError::Setup(format!("Cannot start libssh2: {e}")))?;
    session.set_blocking(false);
    let known = known_hosts::read(target, &session)?;
    let setup = |e: ssh2::Error| ConnectError::Setup(format!("Cannot set up libssh2: {e}"));
    let supported = session.supported_algs(MethodType::HostKey).map_err(setup)?;
    let ours = known.preference(&supported);
    let ours: Vec<&str> = ours.split(',').collect();
    prefer(&session, &[MethodType::HostKey], "HostKeyAlgorithms", target.algorithms.host_keys.as_ref(), &ours)?;
    let typed = Value { words: vec![target.ciphers.join(",")], place: "--ciphers".to_owned() };
    let ciphers = if target.ciphers.is_empty() { target.algorithms.ciphers.as_ref() } else { Some(&typed) };
    prefer(&session, &[MethodType::CryptCs, MethodType::CryptSc], "Ciphers", ciphers, &CIPHERS)?;
    let wanted = &target.algorithms;
    for (types, name, value) in [
        (&[MethodType::Kex][..], "KexAlgorithms", wanted.kex.as_ref()),
        (&[MethodType::MacCs, MethodType::MacSc], "MACs", wanted.macs.as_ref()),
    ] {
        if value.is_some() {
            let ours = session.supported_algs(types[0]).map_err(setup)?;
            prefer(&session, types, name, value, &ours)?;
        }
    }

    let tcp = Arc::new(connect(target, deadline)?);
    session.set_tcp_stream(tcp.clone());
    let mut shaking = session.clone();
    let line = Dialled { session, tcp };
    let Dialled { session, tcp } = &line;
    drive(session, tcp, deadline, || shaking.handshake()).map_err(|stop| match stop {
        Stop::TimedOut => timeout(target, "SSH handshake"),
        Stop::Failed(e) => ConnectError::Lost {
            host: target.place(),
            why: format!(
                "the SSH handshake failed: {}; is an SSH server (not older than OpenSSH 6) there?",
                e.message()
            ),
        },
    })?;
    let refused = |why: String| ConnectError::HostKey { host: target.place(), why };
    let fingerprint = session.host_key_hash(HashType::Sha256).map(known_hosts::base64).unwrap_or_default();
    let fingerprint = format!("SHA256:{}", fingerprint.trim_end_matches('='));
    let (blob, _) = session.host_key().ok_or_else(|| refused("it showed none; is an SSH server there?".to_owned()))?;
    known.check(blob, &fingerprint, target).map_err(refused)?;

    auth::authenticate(session, tcp, target)?;
    Ok(line)
}

/// Has these algorithms offered, or ours where nothing is said of them.
fn prefer(
    session: &Session,
    types: &[MethodType],
    name: &str,
    wanted: Option<&Value>,
    ours: &[&str],
) -> Result<(), ConnectError> {
    let setup = |e: ssh2::Error| ConnectError::Setup(format!("Cannot set up libssh2: {e}"));
    for &method in types {
        let there_are = session.supported_algs(method).map_err(setup)?;
        let list = wanted.map_or("+", |value| value.words[0].as_str());
        let chosen = config::chosen(list, ours, &there_are);
        if chosen.is_empty() {
            let place = wanted.map(|value| value.place.as_str()).unwrap_or_default();
            return Err(ConnectError::Setup(format!(
                "{place}: none of the {name} that {list} leaves is known to the built-in SSH, which has {}",
                there_are.join(",")
            )));
        }
        session.method_pref(method, &chosen.join(",")).map_err(setup)?;
    }
    Ok(())
}

fn timeout(target: &SshTarget, stage: &'static str) -> ConnectError {
    ConnectError::Timeout { host: target.place(), limit: target.connect_timeout, stage }
}

/// Tries every address of the host, each with a fair share of the time that is left.
fn connect(target: &SshTarget, deadline: Instant) -> Result<TcpStream, ConnectError> {
    let unreachable = |why: String| ConnectError::Unreachable { host: target.place(), why };
    let addresses: Vec<SocketAddr> = (target.hostname.as_str(), target.port)
        .to_socket_addrs()
        .map_err(|e| unreachable(format!("its name cannot be resolved ({e}); check the name and the network")))?
        .collect();
    let mut last = None;
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        if share.is_zero() {
            return Err(timeout(target, "TCP connection"));
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(tcp) => {
                set_options(&tcp);
                return Ok(tcp);
            }
            Err(e) => last = Some(e),
        }
    }
    match last {
        Some(e) if e.kind() == io::ErrorKind::TimedOut => Err(timeout(target, "TCP connection")),
        Some(e) => Err(unreachable(format!("{e}; check that an SSH server listens on port {} there", target.port))),
        None => Err(unreachable("its name has no address; check the name".to_owned())),
    }
}

/// Notices a pulled cable or a rebooted host within about two minutes. Failure costs only that.
fn set_options(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(tcp, true);
    let _ = sockopt::set_tcp_keepidle(tcp, Duration::from_secs(30));
    let _ = sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(tcp, 6);
    let _ = sockopt::set_tcp_user_timeout(tcp, 120_000);
}
