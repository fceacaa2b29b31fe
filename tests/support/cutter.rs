//! A slow link that ends each connection once so many bytes have gone through it, or on which other things go wrong.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes that a connection carries in a second, each way: what is lost of a cut one is then what was on its way, and not what
/// two ends of one machine pile up between them.
const PACE: f64 = 16e6;

/// How often a byte passes of what trickles.
const DRIP: Duration = Duration::from_millis(100);
/// How long a delay is: shorter than what anybody waits for.
const DELAY: Duration = Duration::from_millis(300);
/// Bytes after which a connection is cut, both ways together, that has got over what befell it.
const BEYOND: u64 = 100_000;

/// What befalls a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Both ways end.
    Cut,
    /// Both ends are told that there is no such connection.
    Reset,
    /// Nothing passes any more.
    Stall,
    /// A byte passes now and then.
    Trickle,
    /// Bits of a byte change.
    Flip,
    /// Everything waits for a while.
    Delay,
    /// What passed last passes once more.
    Duplicate,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Cut, Self::Reset, Self::Stall, Self::Trickle, Self::Flip, Self::Delay, Self::Duplicate];
}

/// What befalls a connection, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub action: Action,
    /// To the server, or from it.
    pub up: bool,
    /// Bytes that pass unharmed that way.
    pub at: u64,
}

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
    connections: AtomicU64,
    over: AtomicU64,
    /// Of each connection: to the server, and from it.
    each: Mutex<BTreeMap<u64, [u64; 2]>>,
}

impl Cutter {
    /// Relays to a port of this machine, so many bytes a connection, both ways together.
    pub fn start(to: u16, bytes: u64) -> Self {
        Self::relay(to, move |_| Terms { bytes, fault: None })
    }

    /// Relays to a port of this machine. `of` says what befalls the connection of a number, if anything does.
    pub fn faulty(to: u16, of: impl Fn(u64) -> Option<Fault> + Send + 'static) -> Self {
        Self::relay(to, move |number| Terms { bytes: u64::MAX, fault: of(number) })
    }

    fn relay(to: u16, of: impl Fn(u64) -> Terms + Send + 'static) -> Self {
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
                let number = shared.connections.fetch_add(1, Relaxed);
                let Terms { bytes, fault } = of(number);
                let left = Arc::new(AtomicU64::new(bytes));
                for (from, to, up) in [(&near, &far, true), (&far, &near, false)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (left, counts) = (left.clone(), shared.clone());
                    let way = OneWay { from, to, number, up, left, counts, passed: 0 };
                    let fault = fault.filter(|fault| fault.up == up);
                    std::thread::spawn(move || way.pass_all(fault));
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

    /// Connections that were cut, or that something else has befallen.
    pub fn cuts(&self) -> u64 {
        self.counts.cuts.load(Relaxed)
    }

    /// Bytes that went to the server and came from it, by the number of the connection.
    pub fn each(&self) -> BTreeMap<u64, [u64; 2]> {
        self.counts.each.lock().unwrap().clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Relaxed)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.counts.over.store(1, Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Of one connection.
struct Terms {
    bytes: u64,
    fault: Option<Fault>,
}

/// One way of a connection.
struct OneWay {
    from: TcpStream,
    to: TcpStream,
    number: u64,
    up: bool,
    /// What both ways may still carry.
    left: Arc<AtomicU64>,
    counts: Arc<Counts>,
    passed: u64,
}

impl OneWay {
    fn pass_all(mut self, fault: Option<Fault>) {
        let mut buffer = [0; 16 * 1024];
        let mut fault = fault;
        while let Ok(n @ 1..) = self.from.read(&mut buffer) {
            let mut piece = &mut buffer[..n];
            if let Some(Fault { action, at, .. }) = fault.filter(|fault| fault.at < self.passed + n as u64) {
                let (before, rest) = piece.split_at_mut((at - self.passed) as usize);
                let goes_on = self.pass(before) && self.befall(action, before, rest);
                if !goes_on {
                    break;
                }
                // It has got over that; there are to be more connections for more to befall them.
                fault = None;
                self.left.fetch_min(BEYOND, Relaxed);
                piece = rest;
            }
            if !self.pass(piece) {
                break;
            }
        }
        // What was passed on arrives, as before any end of a line: a reset would take it back.
        let _ = self.to.shutdown(Shutdown::Write);
        while let Ok(1..) = self.from.read(&mut buffer) {}
    }

    /// Passes bytes on; false where that is over.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let n = bytes.len() as u64;
        let before = self.left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(n))).unwrap();
        let passed = before.min(n) as usize;
        let count = if self.up { &self.counts.up } else { &self.counts.down };
        count.fetch_add(passed as u64, Relaxed);
        self.counts.each.lock().unwrap().entry(self.number).or_default()[usize::from(!self.up)] += passed as u64;
        self.passed += passed as u64;
        let written = self.to.write_all(&bytes[..passed]);
        std::thread::sleep(Duration::from_secs_f64(passed as f64 / PACE));
        if before <= n {
            self.counts.cuts.fetch_add(u64::from(before > 0), Relaxed);
            self.end();
            return false;
        }
        written.is_ok()
    }

    /// The other way as well, whatever waits to go it.
    fn end(&self) {
        let _ = self.from.shutdown(Shutdown::Write);
    }

    /// Does it between what has passed and what is to; whether anything goes on.
    fn befall(&mut self, action: Action, passed: &[u8], rest: &mut [u8]) -> bool {
        self.counts.cuts.fetch_add(1, Relaxed);
        match action {
            Action::Cut => self.end(),
            Action::Reset => {
                for end in [&self.from, &self.to] {
                    let _ = rustix::net::connect_unspec(end);
                }
            }
            Action::Stall => while let Ok(1..) = self.from.read(&mut [0; 4096]) {},
            Action::Trickle => {
                let mut byte = [0];
                let mut waiting = rest.iter().copied();
                loop {
                    match waiting.next() {
                        Some(next) => byte = [next],
                        None if matches!(self.from.read(&mut byte), Ok(1)) => {}
                        None => break,
                    }
                    if self.to.write_all(&byte).is_err() {
                        break;
                    }
                    std::thread::sleep(DRIP);
                }
            }
            Action::Flip => {
                if let Some(byte) = rest.first_mut() {
                    *byte ^= 0x21;
                }
                return true;
            }
            Action::Delay => {
                std::thread::sleep(DELAY);
                return true;
            }
            Action::Duplicate => {
                let last = if passed.is_empty() { &*rest } else { passed };
                return self.to.write_all(last).is_ok();
            }
        }
        false
    }
}
