//! A link simulator: a relay for TCP that gives a near host the round-trip time, the bandwidth and the losses of a far one.
//!
//! Bytes are taken from one side, wait their time in a bounded queue, and are given to the other. The bandwidth is one for
//! all connections of a direction, as on a real link; a lost packet holds its connection up for a round trip, as TCP's
//! repair does. What it does not imitate is how TCP feels its way to a long link's speed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes taken in one go.
const PIECE: usize = 32 * 1024;
/// What a link holds beside what is under way, bytes: a router's buffer.
const BUFFER: usize = 256 * 1024;
/// The most that one direction of one connection may hold, bytes.
const HELD_MOST: usize = 32 << 20;
/// Connections at a time; more are refused.
const CONNECTIONS_MOST: usize = 256;
/// A packet's bytes, as losses are counted.
const PACKET: f64 = 1448.0;
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// What a link is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Time there and back.
    pub round_trip: Duration,
    /// Bytes per second in each direction; 0 for no limit.
    pub rate: u64,
    /// The share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Bytes that a connection has under way at most in either direction, as the buffers of its ends allow; 0 for no limit.
    pub window: u64,
}

impl Terms {
    /// The most that one direction of one connection holds under these terms, bytes.
    pub fn held_most(&self) -> usize {
        let under_way = self.rate as f64 * (self.round_trip / 2).as_secs_f64();
        let link =
            if self.rate == 0 { HELD_MOST / 4 } else { (under_way as usize).saturating_add(BUFFER).min(HELD_MOST) };
        // What is under way one way is half of what is not confirmed.
        let window = usize::try_from(self.window / 2).unwrap_or(usize::MAX);
        if self.window == 0 { link } else { link.min(window.max(PIECE)) }
    }
}

/// A running relay; its connections end when it is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<RelayShared>,
}

struct RelayShared {
    to: SocketAddr,
    terms: Terms,
    /// When each direction's wire has sent all that was given to it.
    wires: [Mutex<Instant>; 2],
    stopped: AtomicBool,
    connections: AtomicUsize,
    open: Mutex<Vec<(u64, TcpStream)>>,
    carried: AtomicU64,
    held: AtomicUsize,
    held_peak: AtomicUsize,
}

impl Relay {
    /// Listens on an address, port 0 for any, and relays each connection to `to`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(listen: SocketAddr, to: SocketAddr, terms: Terms) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let now = Instant::now();
        let shared = Arc::new(RelayShared {
            to,
            terms,
            wires: [Mutex::new(now), Mutex::new(now)],
            stopped: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: Mutex::default(),
            carried: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            held_peak: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        thread::Builder::new().name("bench-link".to_owned()).spawn(move || accept(&listener, &accepting))?;
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes carried so far, both directions.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Relaxed)
    }

    /// The most bytes that it has held at any time, all connections together.
    pub fn held_peak(&self) -> usize {
        self.shared.held_peak.load(Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Relaxed);
        for (_, socket) in lock(&self.shared.open).drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        // Wakes whoever accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<RelayShared>) {
    for (number, near) in listener.incoming().enumerate() {
        if shared.stopped.load(Relaxed) {
            return;
        }
        let Ok(near) = near else {
            // Out of descriptors, most likely: some will be closed.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        if shared.connections.fetch_add(1, Relaxed) >= CONNECTIONS_MOST {
            shared.connections.fetch_sub(1, Relaxed);
            continue;
        }
        let ours = shared.clone();
        let spawned = thread::Builder::new().name("bench-link".to_owned()).spawn(move || {
            // A connection that breaks is what a link does; its two ends see it.
            let _ = relay(near, number as u64, &ours);
            ours.connections.fetch_sub(1, Relaxed);
        });
        if spawned.is_err() {
            shared.connections.fetch_sub(1, Relaxed);
        }
    }
}

fn relay(near: TcpStream, number: u64, shared: &RelayShared) -> io::Result<()> {
    let far = TcpStream::connect_timeout(&shared.to, CONNECT_LIMIT)?;
    for socket in [&near, &far] {
        socket.set_nodelay(true)?;
        lock(&shared.open).push((number, socket.try_clone()?));
    }
    if shared.stopped.load(Relaxed) {
        return Ok(());
    }
    let lanes = [Lane::new(), Lane::new()];
    thread::scope(|scope| {
        for (direction, lane) in lanes.iter().enumerate() {
            let (from, to) = if direction == 0 { (&near, &far) } else { (&far, &near) };
            scope.spawn(move || take(from, lane, direction, shared));
            scope.spawn(move || give(to, lane, shared));
        }
    });
    lock(&shared.open).retain(|(open, _)| *open != number);
    Ok(())
}

/// One direction of one connection.
struct Lane {
    state: Mutex<LaneState>,
    changed: Condvar,
}

struct LaneState {
    queue: VecDeque<(Instant, Vec<u8>)>,
    held: usize,
    last_due: Instant,
    /// When the end reaches the other side.
    end: Option<Instant>,
    dead: bool,
}

impl Lane {
    fn new() -> Self {
        let last_due = Instant::now();
        let state = LaneState { queue: VecDeque::new(), held: 0, last_due, end: None, dead: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn wait_while(&self, mut condition: impl FnMut(&mut LaneState) -> bool) -> MutexGuard<'_, LaneState> {
        self.changed.wait_while(lock(&self.state), |state| condition(state)).unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut LaneState)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }
}

/// Takes bytes from a side as long as the link holds more.
fn take(mut from: &TcpStream, lane: &Lane, direction: usize, shared: &RelayShared) {
    let most = shared.terms.held_most();
    let delay = shared.terms.round_trip / 2;
    let mut buffer = vec![0; PIECE];
    loop {
        if lane.wait_while(|state| state.held + PIECE > most.max(PIECE) && !state.dead).dead {
            return;
        }
        let count = match from.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        if count == 0 {
            lane.change(|state| state.end = Some(state.last_due.max(Instant::now() + delay)));
            return;
        }
        let mut due = sent_at(&shared.wires[direction], count, shared.terms.rate) + delay;
        if fastrand::f64() < 1.0 - (1.0 - shared.terms.loss).powf((count as f64 / PACKET).ceil()) {
            due += shared.terms.round_trip;
        }
        let held = shared.held.fetch_add(count, Relaxed) + count;
        shared.held_peak.fetch_max(held, Relaxed);
        lane.change(|state| {
            state.last_due = state.last_due.max(due);
            state.held += count;
            state.queue.push_back((state.last_due, buffer[..count].to_vec()));
        });
    }
}

/// When a wire will have sent these bytes behind all it was given before.
fn sent_at(wire: &Mutex<Instant>, count: usize, rate: u64) -> Instant {
    let mut free = lock(wire);
    *free = (*free).max(Instant::now());
    if rate > 0 {
        *free += Duration::from_secs_f64(count as f64 / rate as f64);
    }
    *free
}

/// Gives a side what is due.
fn give(mut to: &TcpStream, lane: &Lane, shared: &RelayShared) {
    let dead = |lane: &Lane| {
        lane.change(|state| {
            state.dead = true;
            shared.held.fetch_sub(state.held, Relaxed);
            state.held = 0;
            state.queue.clear();
        });
    };
    loop {
        let mut state = lane.wait_while(|state| state.queue.is_empty() && state.end.is_none());
        let Some((due, bytes)) = state.queue.pop_front() else {
            let end = state.end;
            drop(state);
            thread::sleep(end.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now())));
            let _ = to.shutdown(Shutdown::Write);
            return;
        };
        drop(state);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            // The other direction ends too: nobody reads what this one would bring.
            let _ = to.shutdown(Shutdown::Both);
            return dead(lane);
        }
        shared.carried.fetch_add(bytes.len() as u64, Relaxed);
        shared.held.fetch_sub(bytes.len(), Relaxed);
        lane.change(|state| state.held -= bytes.len());
    }
}

#[cfg(test)]
mod tests;
