//! TCP: connecting and listening, and a connection as a link.

use super::ConnectError;
use super::child::{Half, Line};
use crate::link::{Closer, Ending, Link, Remote, Sink};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Which addresses of a name are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// All, in the resolver's order.
    #[default]
    Any,
    /// IPv4 (`-4`).
    V4,
    /// IPv6 (`-6`).
    V6,
}

impl Family {
    fn wants(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Options of a socket, as `--sockopts` names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SocketOptions(Vec<(SocketOption, i64)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketOption {
    KeepAlive,
    ReuseAddress,
    ReusePort,
    NoDelay,
    SendBuffer,
    ReceiveBuffer,
    TypeOfService,
}

impl SocketOptions {
    /// Reads a list of `NAME` and `NAME=VALUE`, split at commas and spaces. An unknown name is the error.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let words = list.split(|letter: char| letter == ',' || letter.is_whitespace()).filter(|word| !word.is_empty());
        let option = |word: &str| {
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let fixed = |option, value| Ok((option, value));
            let valued = |option, default: Option<i64>| {
                let value = value.map_or(default, |value| value.parse().ok()).filter(|value| *value >= 0);
                value
                    .map(|value| (option, value))
                    .ok_or_else(|| format!("Socket option {name} needs a number: {name}=N"))
            };
            match name {
                "SO_KEEPALIVE" => valued(SocketOption::KeepAlive, Some(1)),
                "SO_REUSEADDR" => valued(SocketOption::ReuseAddress, Some(1)),
                "SO_REUSEPORT" => valued(SocketOption::ReusePort, Some(1)),
                "TCP_NODELAY" => valued(SocketOption::NoDelay, Some(1)),
                "SO_SNDBUF" => valued(SocketOption::SendBuffer, None),
                "SO_RCVBUF" => valued(SocketOption::ReceiveBuffer, None),
                "IPTOS_LOWDELAY" => fixed(SocketOption::TypeOfService, 0x10),
                "IPTOS_THROUGHPUT" => fixed(SocketOption::TypeOfService, 0x08),
                _ => Err(format!(
                    "Unknown socket option {name}: expected SO_KEEPALIVE, SO_REUSEADDR, SO_REUSEPORT, TCP_NODELAY, SO_SNDBUF=N, \
                     SO_RCVBUF=N, IPTOS_LOWDELAY or IPTOS_THROUGHPUT"
                )),
            }
        };
        words.map(option).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn apply(&self, socket: impl AsFd) -> io::Result<()> {
        for &(option, value) in &self.0 {
            let size = usize::try_from(value).unwrap_or(usize::MAX);
            match option {
                SocketOption::KeepAlive => sockopt::set_socket_keepalive(&socket, value != 0),
                SocketOption::ReuseAddress => sockopt::set_socket_reuseaddr(&socket, value != 0),
                SocketOption::ReusePort => sockopt::set_socket_reuseport(&socket, value != 0),
                SocketOption::NoDelay => sockopt::set_tcp_nodelay(&socket, value != 0),
                SocketOption::SendBuffer => sockopt::set_socket_send_buffer_size(&socket, size),
                SocketOption::ReceiveBuffer => sockopt::set_socket_recv_buffer_size(&socket, size),
                // An IPv6 socket has none; it is advice at best.
                SocketOption::TypeOfService => sockopt::set_ip_tos(&socket, value as u8).or(Ok(())),
            }?;
        }
        Ok(())
    }
}

fn socket(place: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if place.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Listens at one address.
pub(crate) fn listen(place: SocketAddr, backlog: i32, options: &SocketOptions) -> io::Result<TcpListener> {
    let socket = socket(&place)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if place.is_ipv6() {
        // IPv4 has a listener of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    options.apply(&socket)?;
    rustix::net::bind(&socket, &place)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket.into())
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Dial {
    /// Which addresses of the host are tried.
    pub family: Family,
    /// Our own address (`--address`).
    pub address: Option<String>,
    pub options: SocketOptions,
    /// How long all attempts together may take.
    pub limit: Option<Duration>,
}

impl Dial {
    /// Connects to the first of the host's addresses that answers.
    pub(crate) fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let unreachable = |error: io::Error| ConnectError::Unreachable { host: shown.clone(), why: error.to_string() };
        let deadline = self.limit.map(|limit| Instant::now() + limit);
        let places: Vec<_> = (host, port).to_socket_addrs().map_err(unreachable)?.collect();
        let mut trouble = io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address of that kind");
        for place in places.into_iter().filter(|place| self.family.wants(place)) {
            match self.attempt(place, deadline) {
                Ok(stream) => return Ok(stream),
                Err(error) => trouble = error,
            }
        }
        match self.limit.filter(|_| trouble.kind() == io::ErrorKind::TimedOut) {
            Some(limit) => Err(ConnectError::Timeout { host: shown, limit, stage: "connection" }),
            None => Err(unreachable(trouble)),
        }
    }

    fn attempt(&self, place: SocketAddr, deadline: Option<Instant>) -> io::Result<TcpStream> {
        let socket = socket(&place)?;
        self.options.apply(&socket)?;
        if let Some(own) = &self.address {
            let own = (own.as_str(), 0).to_socket_addrs()?.find(|own| own.is_ipv4() == place.is_ipv4());
            rustix::net::bind(&socket, &own.ok_or(io::ErrorKind::AddrNotAvailable)?)?;
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        match rustix::net::connect(&socket, &place) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                let left = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
                if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], left.as_ref())? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                sockopt::socket_error(&socket)??;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(socket.into())
    }
}

/// The link of a connection. A link on which no byte moves for `stall_limit`, while somebody waits, fails with `TimedOut`.
pub(crate) fn link(stream: TcpStream, stall_limit: Option<Duration>) -> io::Result<Link> {
    stream.set_nonblocking(true)?;
    let line = Arc::new(Line::new(2, stall_limit)?);
    let remote = Remote::new();
    // The far end's process is no business of ours.
    remote.end(Ending::Lost("the server closed the connection".into()));
    let writing = stream.try_clone()?;
    let closing = line.clone();
    Ok(Link {
        reader: Box::new(TcpReader { stream, line: Half(line.clone()) }),
        writer: Box::new(TcpWriter { stream: writing, line: Half(line.clone()) }),
        closer: Closer::new(move || closing.close()),
        remote,
        patience: None,
    })
}

struct TcpReader {
    stream: TcpStream,
    line: Half,
}

impl Read for TcpReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = &self.stream;
        self.line.0.attempt(stream.as_fd(), PollFlags::IN, || (&*stream).read(buffer))
    }
}

struct TcpWriter {
    stream: TcpStream,
    line: Half,
}

impl Write for TcpWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stream = &self.stream;
        self.line.0.attempt(stream.as_fd(), PollFlags::OUT, || (&*stream).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for TcpWriter {}

impl Drop for TcpWriter {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_options_are_known_by_name() {
        let parsed = SocketOptions::parse("SO_KEEPALIVE, TCP_NODELAY SO_SNDBUF=65536,IPTOS_LOWDELAY").unwrap();
        assert_eq!(parsed.0.len(), 4);
        let listener = listen("127.0.0.1:0".parse().unwrap(), 5, &parsed).unwrap();
        assert!(sockopt::socket_keepalive(&listener).unwrap());
        for bad in ["SO_DONTLINGER", "SO_SNDBUF", "SO_SNDBUF=-1", "TCP_NODELAY=x"] {
            assert!(SocketOptions::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_does_not_answer_is_given_up() {
        let dial = Dial { limit: Some(Duration::from_millis(200)), ..Dial::default() };
        // A listener whose backlog is full answers nobody; a closed port answers at once.
        let closed = listen("127.0.0.1:0".parse().unwrap(), 1, &SocketOptions::default()).unwrap();
        let port = closed.local_addr().unwrap().port();
        assert!(dial.connect("127.0.0.1", port).is_ok());
        drop(closed);
        assert!(matches!(dial.connect("127.0.0.1", port), Err(ConnectError::Unreachable { .. })));
        let only6 = Dial { family: Family::V6, ..dial };
        assert!(matches!(only6.connect("127.0.0.1", port), Err(ConnectError::Unreachable { .. })));
    }
}
