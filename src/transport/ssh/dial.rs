//! Makes a session: TCP, handshake, host key, login.

use super::config::{self, SshTarget};
use super::drive::{CallFailure, drive};
use super::settings::Value;
use super::{auth, known_hosts};
use crate::transport::{ConnectError, OnAnswer};
use rustix::net::sockopt;
use ssh2::{HashType, MethodType, Session};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// A round trip at most, as the handshake has shown, which takes several.
    pub(in crate::transport) round_trip: Duration,
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

/// Round trips that a handshake takes at least: names and offers, keys, the service.
const HANDSHAKE: u32 = 3;

/// Connects and logs in. The host's key is checked before anything about us is said.
pub(super) fn dial(target: &SshTarget, answered: Option<&OnAnswer>) -> Result<Dialled, ConnectError> {
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
    let mut line = Dialled { session, tcp, round_trip: Duration::MAX };
    let Dialled { session, tcp, .. } = &line;
    let began = Instant::now();
    drive(session, tcp, deadline, || shaking.handshake()).map_err(|stop| match stop {
        CallFailure::TimedOut => timeout(target, "SSH handshake"),
        CallFailure::Failed(e) => ConnectError::Lost {
            host: target.place(),
            why: format!(
                "the SSH handshake failed: {}; is an SSH server (not older than OpenSSH 6) there?",
                e.message()
            ),
        },
    })?;
    let round_trip = began.elapsed() / HANDSHAKE;
    let refused = |why: String| ConnectError::HostKey { host: target.place(), why };
    let fingerprint = session.host_key_hash(HashType::Sha256).map(known_hosts::base64).unwrap_or_default();
    let fingerprint = format!("SHA256:{}", fingerprint.trim_end_matches('='));
    let (blob, _) = session.host_key().ok_or_else(|| refused("it showed none; is an SSH server there?".to_owned()))?;
    known.check(blob, &fingerprint, target).map_err(refused)?;
    if answered.is_some_and(|told| !told(round_trip)) {
        return Err(ConnectError::Lost { host: target.place(), why: "it is not wanted any more".to_owned() });
    }

    auth::authenticate(session, tcp, target)?;
    line.round_trip = round_trip;
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
