//! A slow link that ends each connection once so many bytes have gone through it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Bytes that a connection carries in a second, each way: what is lost of a cut one is then what was on its way, and not what
/// two ends of one machine pile up between them.
const PACE: f64 = 16e6;

/// A running relay; it takes no further connections once it is dropped.
pub struct Cutter {
    pub port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    cuts: AtomicU64,
    over: AtomicU64,
}

impl Cutter {
    /// Relays to a port of this machine, so many bytes a connection, both ways together.
    pub fn start(to: u16, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if shared.over.load(Relaxed) > 0 {
                    return;
                }
                let Ok(far) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], to))) else { continue };
                let left = Arc::new(AtomicU64::new(bytes));
                for (from, to, is_up) in [(&near, &far, true), (&far, &near, false)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (left, counts) = (left.clone(), shared.clone());
                    std::thread::spawn(move || relay(from, to, is_up, &left, &counts));
                }
            }
        });
        Self { port, counts }
    }

    /// Bytes that went to the server.
    pub fn up(&self) -> u64 {
        self.counts.up.load(Relaxed)
    }

    /// Bytes that came from it.
    pub fn down(&self) -> u64 {
        self.counts.down.load(Relaxed)
    }

    /// Connections that were cut.
    pub fn cuts(&self) -> u64 {
        self.counts.cuts.load(Relaxed)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.counts.over.store(1, Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, is_up: bool, left: &AtomicU64, counts: &Counts) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let take = |left: u64| Some(left.saturating_sub(n as u64));
        let before = left.fetch_update(Relaxed, Relaxed, take).unwrap();
        let passed = before.min(n as u64) as usize;
        let count = if is_up { &counts.up } else { &counts.down };
        count.fetch_add(passed as u64, Relaxed);
        let written = to.write_all(&buffer[..passed]);
        std::thread::sleep(Duration::from_secs_f64(passed as f64 / PACE));
        if before <= n as u64 {
            counts.cuts.fetch_add(u64::from(before > 0), Relaxed);
            // The other way as well, whatever waits to go it.
            let _ = from.shutdown(Shutdown::Write);
            break;
        }
        if written.is_err() {
            break;
        }
    }
    // What was passed on arrives, as before any end of a line: a reset would take it back.
    let _ = to.shutdown(Shutdown::Write);
    while let Ok(1..) = from.read(&mut buffer) {}
}
