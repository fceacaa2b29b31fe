//! Receives datagrams, and does nothing else.

use super::counters::MonitorCounters;
use super::intake::Intake;
use super::spool::UnspooledMessage;
use crate::clock::unix_now;
use ipnet::IpNet;
use rustix::net::sockopt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// More than the longest datagram that UDP has over IPv4 (65,507 bytes).
const LONGEST: usize = 65_536;
/// Bytes asked of the kernel for what is not taken yet: some 20,000 small messages.
const BUFFER: usize = 32 << 20;
/// Less than this holds no burst of a few thousand messages.
const BUFFER_LEAST: usize = 8 << 20;
/// How soon it is noticed that it is over.
const TICK: Duration = Duration::from_millis(200);

/// A socket at which publishers send.
pub(crate) struct UdpSource {
    socket: UdpSocket,
    allowed: Vec<IpNet>,
    /// Its number in the kernel's list of sockets.
    inode: u64,
    /// What the kernel keeps for it, bytes.
    pub(crate) buffer: usize,
}

impl UdpSource {
    /// Listens there; only networks that are allowed are listened to, if any is named.
    pub(crate) fn bind(address: SocketAddr, allowed: Vec<IpNet>) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(TICK))?;
        // Who may, goes beyond what the system allows by itself.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, BUFFER).map_err(io::Error::from)?;
        }
        // The kernel doubles what it is asked for, for its own use, and says so.
        let buffer = sockopt::socket_recv_buffer_size(&socket).map_err(io::Error::from)? / 2;
        let inode = rustix::fs::fstat(&socket).map_err(io::Error::from)?.st_ino;
        if buffer < BUFFER_LEAST {
            tracing::warn!(
                event = "small_buffer",
                buffer,
                "The kernel grants {buffer} bytes for datagrams that wait, and a burst may need more: sysctl -w net.core.rmem_max={BUFFER}"
            );
        }
        Ok(Self { socket, allowed, inode, buffer })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Counts what the kernel drops.
    pub(crate) fn drops(&self) -> DropCount {
        DropCount { inode: self.inode }
    }

    /// Receives until told to stop.
    pub(crate) fn run(self, intake: &Intake, counters: &Arc<MonitorCounters>, stop: &AtomicBool) {
        let mut buffer = vec![0; LONGEST];
        let mut stranger: Option<IpAddr> = None;
        while !stop.load(Relaxed) {
            let (len, sender) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
                Err(error) => {
                    // Such as ENOBUFS, or word of an unreachable peer.
                    tracing::debug!(%error, "Receiving failed");
                    std::thread::sleep(TICK);
                    continue;
                }
            };
            let ip = sender.ip().to_canonical();
            if !self.allowed.is_empty() && !self.allowed.iter().any(|net| net.contains(&ip)) {
                add(&counters.strangers);
                if stranger != Some(ip) {
                    stranger = Some(ip);
                    tracing::warn!(event = "stranger", sender = %ip, "Datagrams of {ip} are left unread, which no --udp-allow names");
                }
                continue;
            }
            let bytes = buffer[..len].into();
            if !intake.offer(UnspooledMessage {
                received: unix_now(),
                sender: Some(SocketAddr::new(ip, sender.port())),
                bytes,
            }) {
                return;
            }
        }
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

/// What the kernel says of a socket.
pub(crate) struct DropCount {
    inode: u64,
}

impl DropCount {
    /// Datagrams that it had no room for.
    pub(crate) fn read(&self) -> Option<u64> {
        let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"]
            .into_iter()
            .filter_map(|table| fs::read_to_string(table).ok());
        tables.into_iter().find_map(|table| drops(&table, self.inode))
    }
}

/// The last column of the line of this socket.
fn drops(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields.get(9)?.parse() == Ok(inode)).then(|| fields.last()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_of_a_socket_is_found_by_its_number() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                     17: 00000000:2008 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 12\n\
                     18: 00000000:2009 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0\n";
        assert_eq!((drops(table, 4711), drops(table, 4712), drops(table, 1)), (Some(12), Some(0), None));
        let source = UdpSource::bind("127.0.0.1:0".parse().unwrap(), Vec::new()).unwrap();
        assert_eq!(source.drops().read(), Some(0));
    }
}
