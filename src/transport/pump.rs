//! The thread that owns one SSH session and moves bytes between its channel and two pipes.
//!
//! A libssh2 session is not full duplex under a lock: a blocking read holds it while a write waits. So nobody but this
//! thread touches the session; it never blocks in libssh2, and sleeps in poll(2) on the socket and a wake-up descriptor.
//! A channel is always open ahead: it saves a round trip, and reading from it lets the server's own keepalives be answered
//! and its death be noticed while nothing runs. A session on which anything went wrong is thrown away.

use super::ConnectError;
use super::queued::queued;
use super::ssh::dial::Dialled;
use super::ssh::drive::{CEILING, CallFailure, await_socket, drive, wants_out};
use crate::link::{Closer, Ending, Link, Remote, SignOfLife};
use crate::pipe::{DEFAULT_CAPACITY, Front, PipeReader, PipeWriter, pipe};
use libssh2_sys as sys;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use ssh2::{Channel, ErrorCode, Stream};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often an idle session is asked whether it still lives; also keeps the network's address tables warm.
const PROBE_EVERY: Duration = Duration::from_secs(30);

/// How often a server may have an idle session look at what it says, until that is asked again, and how long that may take in
/// all: more is a flood.
const LOOKS_WHILE_IDLE: (u32, Duration) = (300, Duration::from_secs(2));

/// How long that answer may take.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// How long a far end may go on after both halves of its link are gone.
const LINGER: Duration = Duration::from_secs(10);

/// How much is thrown away of what it still sends then: enough for its last words, not for a file.
const DISCARDED: u64 = 64 << 20;

/// Receive window asked for: 2 MiB, libssh2's own, would carry only 12 MiB/s over a round trip of 167 ms.
const WINDOW: u32 = 16 << 20;

/// Largest packet we take; libssh2's own choice.
const PACKET: u32 = 32768;

/// Packets written before the other direction has its turn.
const BURST: usize = 16;

/// Least that the far end may be given ahead of what it is known to have passed on. sshd tells of every 96 KiB.
const AHEAD_LEAST: u32 = 512 * 1024;

/// Bytes that a link may carry in a microsecond: sshd takes no more of one connection.
const AHEAD_PER_MICROSECOND: u32 = 600;

/// How long nothing more is given before a far end is taken for one that tells more seldom.
const AHEAD_PATIENCE: Duration = Duration::from_millis(100);

/// Bytes that a far end has to take of what waits for it, in the time that a stall may take: fewer are a trickle.
const TRICKLE: u64 = 1024;

/// How often it is looked in that time whether the system still has bytes to send.
const LOOKS: u32 = 8;

/// Letters of a signal's name, of which a far end may say any.
const SIGNAL_NAME: usize = 32;

/// Bytes read at once.
const SCRATCH: usize = 256 * 1024;

/// How long a session may take for what it does.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// To be made.
    pub(super) dial: Duration,
    /// To start a command.
    pub(super) start: Duration,
    /// To move a byte, while somebody waits for it.
    pub(super) stall: Duration,
    /// What else a session has to bring, or to take, within that.
    pub(super) alive: SignOfLife,
    /// To be idle, and have a command trusted to it unasked.
    pub(super) trusted_idle: Duration,
}

/// A handle on the thread. Dropping it ends the session once it is idle.
pub(super) struct Pump {
    jobs: Option<SyncSender<LinkJob>>,
    wake: Arc<WakeUp>,
    stop: Arc<AtomicBool>,
    start_limit: Duration,
    /// Of the sessions on its links.
    patience: Option<Duration>,
    round_trip: RoundTrip,
}

/// The shortest that an answer has taken; the link's own time is no longer.
#[derive(Clone)]
struct RoundTrip(Arc<AtomicU64>);

impl RoundTrip {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    fn answered_in(&self, took: Duration) {
        self.0.fetch_min(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn shortest(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Why a command was not started.
#[derive(Debug)]
pub(super) enum ExecError {
    /// The session is gone. `sent`: the command may have reached the far end.
    Dead { sent: bool, why: String },
    /// The far end runs none.
    Refused(String),
    /// Another link still lives on this session.
    Busy,
    /// No answer.
    TimedOut,
}

struct LinkJob {
    command: String,
    reply: SyncSender<LinkReply>,
    input: PipeReader,
    output: PipeWriter,
    remote: Remote,
}

enum LinkReply {
    Taken,
    Started,
    Failed(ExecError),
}

impl Pump {
    /// Starts the thread, lets it make a session, and opens a channel on it.
    pub(super) fn start(
        dial: impl FnOnce() -> Result<Dialled, ConnectError> + Send + 'static,
        host: String,
        limits: Limits,
    ) -> Result<Self, ConnectError> {
        let setup = |what: &str, e: io::Error| ConnectError::Setup(format!("Cannot {what} for {host}: {e}"));
        let wake = Arc::new(WakeUp::new().map_err(|e| setup("make a wake-up descriptor", e))?);
        let stop = Arc::new(AtomicBool::new(false));
        let (jobs, inbox) = sync_channel(1);
        let (report, reported) = sync_channel(1);
        let (wake_here, stop_here, place) = (wake.clone(), stop.clone(), host.clone());
        let round_trip = RoundTrip::new();
        let measured = round_trip.clone();
        let body = move || {
            let opened = dial().and_then(|line| match open_channel(&line, limits.start) {
                Ok(spare) => Ok((line, spare)),
                Err(stop) => {
                    Err(ConnectError::Lost { host: place, why: format!("it opens no channel: {}", text(&stop)) })
                }
            });
            match opened {
                Ok((line, (spare, answered))) => {
                    let (wake, stop, round_trip) = (wake_here, stop_here, measured);
                    round_trip.answered_in(answered);
                    round_trip.answered_in(line.round_trip);
                    let session = PumpedSession { line, inbox, wake, stop, limits, round_trip };
                    if report.send(Ok(())).is_ok() {
                        session.run(spare);
                    }
                }
                Err(e) => drop(report.send(Err(e))),
            }
        };
        thread::Builder::new().name("ssh-pump".to_owned()).spawn(body).map_err(|e| setup("start a thread", e))?;
        match reported.recv_timeout(limits.dial + limits.start) {
            Ok(outcome) => {
                let patience = (limits.alive == SignOfLife::Progress).then_some(limits.stall);
                outcome.map(|()| Self { jobs: Some(jobs), wake, stop, start_limit: limits.start, patience, round_trip })
            }
            Err(RecvTimeoutError::Timeout) => {
                Err(ConnectError::Timeout { host, limit: limits.dial, stage: "connection" })
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(ConnectError::Lost { host, why: "the connecting thread panicked".to_owned() })
            }
        }
    }

    /// Runs a command line and gives the link to it.
    pub(super) fn exec(&self, command: &str) -> Result<Link, ExecError> {
        let dead = |sent| ExecError::Dead { sent, why: "the session ended".to_owned() };
        let (input, writer) = pipe(DEFAULT_CAPACITY);
        let (reader, output) = pipe(DEFAULT_CAPACITY);
        let remote = Remote::new();
        let closers = [input.closer(), output.closer()];
        input.on_data(self.wake.callback());
        output.on_space(self.wake.callback());
        let (reply, replies) = sync_channel(2);
        let job = LinkJob { command: command.to_owned(), reply, input, output, remote: remote.clone() };
        let Some(jobs) = &self.jobs else { return Err(dead(false)) };
        jobs.try_send(job).map_err(|e| match e {
            std::sync::mpsc::TrySendError::Full(_) => ExecError::Busy,
            std::sync::mpsc::TrySendError::Disconnected(_) => dead(false),
        })?;
        self.wake.wake();
        let mut taken = false;
        loop {
            let limit = if taken { PROBE_LIMIT + self.start_limit } else { self.start_limit };
            match replies.recv_timeout(limit) {
                Ok(LinkReply::Taken) => taken = true,
                Ok(LinkReply::Started) => break,
                Ok(LinkReply::Failed(e)) => return Err(e),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(if taken { ExecError::TimedOut } else { ExecError::Busy });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(dead(taken)),
            }
        }
        let closer = Closer::new(move || closers.iter().for_each(crate::pipe::PipeCloser::close));
        Ok(Link { reader: Box::new(reader), writer: Box::new(writer), closer, remote, patience: self.patience })
    }

    /// No shorter than the link's round trip.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip.shortest()
    }

    /// Ends the session now; a link on it fails.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.jobs = None;
        self.wake.wake();
    }
}

/// What the thread owns.
struct PumpedSession {
    line: Dialled,
    inbox: Receiver<LinkJob>,
    wake: Arc<WakeUp>,
    stop: Arc<AtomicBool>,
    limits: Limits,
    round_trip: RoundTrip,
}

impl PumpedSession {
    fn run(self, mut spare: Channel) {
        while let Some((job, idle)) = self.idle(&mut spare) {
            if job.reply.send(LinkReply::Taken).is_err() {
                continue; // Its caller has given up; nothing was started.
            }
            let asked = Instant::now();
            if let Err(e) = self.exec(&mut spare, &job.command, idle) {
                let _ = job.reply.send(LinkReply::Failed(e));
                return;
            }
            self.round_trip.answered_in(asked.elapsed());
            if job.reply.send(LinkReply::Started).is_err() || !self.serve(spare, job) {
                return;
            }
            match open_channel(&self.line, self.limits.start) {
                Ok((channel, answered)) => {
                    spare = channel;
                    self.round_trip.answered_in(answered);
                }
                Err(_) => return,
            }
        }
        let _ = self.line.session.disconnect(None, "", None);
    }

    /// Waits for a job and tells how long that took; `None` when nobody will send one, or the session died.
    fn idle(&self, spare: &mut Channel) -> Option<(LinkJob, Duration)> {
        let began = Instant::now();
        let mut probe_at = began + PROBE_EVERY;
        let mut looks = (0, Duration::ZERO);
        loop {
            self.wake.arm();
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            // Nothing is to be read; reading lets libssh2 hear the server.
            let looked = Instant::now();
            if !matches!(spare.read(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock) {
                return None;
            }
            looks = (looks.0 + 1, looks.1 + looked.elapsed());
            if looks.0 > LOOKS_WHILE_IDLE.0 || looks.1 > LOOKS_WHILE_IDLE.1 {
                return None;
            }
            match self.inbox.try_recv() {
                Ok(job) => return Some((job, began.elapsed().min(PROBE_EVERY))),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return None,
            }
            let now = Instant::now();
            if now >= probe_at {
                self.probe(spare).ok()?;
                probe_at = Instant::now() + PROBE_EVERY;
                looks = (0, Duration::ZERO);
            }
            let outbound = wants_out(&self.line.session);
            let limit = probe_at.saturating_duration_since(now);
            await_socket(&self.line.tcp, Some(self.wake.fd.as_fd()), outbound, limit).ok()?;
        }
    }

    /// Asks for something harmless that every server must answer, if only by a refusal. libssh2's keepalives would tell
    /// nothing: it does not look at the answers, and keeps them.
    fn probe(&self, spare: &mut Channel) -> Result<(), CallFailure> {
        let deadline = Instant::now() + PROBE_LIMIT.min(self.limits.start);
        match drive(&self.line.session, &self.line.tcp, deadline, || spare.setenv("ARCHIVER_PROBE", "1")) {
            Err(CallFailure::Failed(e))
                if e.code() == ErrorCode::Session(sys::LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn exec(&self, spare: &mut Channel, command: &str, idle: Duration) -> Result<(), ExecError> {
        if idle > self.limits.trusted_idle {
            self.probe(spare).map_err(|stop| ExecError::Dead { sent: false, why: text(&stop) })?;
        }
        let deadline = Instant::now() + self.limits.start;
        let start = || match spare.exec(command) {
            // In the place of an answer a far end may close the channel; libssh2 would go on waiting for one.
            Err(e) if e.code() == ErrorCode::Session(sys::LIBSSH2_ERROR_EAGAIN) && spare.eof() => {
                Err(ssh2::Error::new(ErrorCode::Session(sys::LIBSSH2_ERROR_CHANNEL_CLOSED), "it closed the channel"))
            }
            outcome => outcome,
        };
        drive(&self.line.session, &self.line.tcp, deadline, start).map_err(|stop| match &stop {
            CallFailure::TimedOut => ExecError::TimedOut,
            CallFailure::Failed(e) => match e.code() {
                ErrorCode::Session(sys::LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED | sys::LIBSSH2_ERROR_CHANNEL_CLOSED) => {
                    ExecError::Refused(text(&stop))
                }
                _ => ExecError::Dead { sent: true, why: format!("it ran no command: {}", text(&stop)) },
            },
        })
    }

    /// Carries one link to its end. False: the session must not be used again.
    fn serve(&self, channel: Channel, job: LinkJob) -> bool {
        let LinkJob { mut input, mut output, remote, .. } = job;
        let to_far_end = input.closer();
        let ahead = Ahead::new(self.round_trip.shortest());
        let mut transfer =
            Transfer { session: self, stderr: channel.stderr(), channel, ahead, remote: &remote, eof_sent: false };
        // Neither half of a pipe may go before it is known how: its end would be taken for a good one.
        let outcome = match transfer.carry(&mut input, &mut output) {
            Ok(()) => {
                // What is still unsent will not be read; who writes it should know.
                drop((input, output));
                transfer.finish()
            }
            Err(e) => {
                to_far_end.fail(e.kind(), &e.to_string());
                // What has come is of use.
                output.break_off(e.kind(), &e.to_string());
                Err(e)
            }
        };
        match outcome {
            Ok(ending) => {
                remote.end(ending);
                true
            }
            Err(e) => {
                remote.end(Ending::Lost(e.to_string()));
                false
            }
        }
    }
}

/// One link being carried.
struct Transfer<'a> {
    session: &'a PumpedSession,
    channel: Channel,
    ahead: Ahead,
    stderr: Stream,
    remote: &'a Remote,
    eof_sent: bool,
}

impl Transfer<'_> {
    /// Moves bytes until the far end has closed its outputs.
    fn carry(&mut self, input: &mut PipeReader, output: &mut PipeWriter) -> io::Result<()> {
        let mut scratch = vec![0; SCRATCH];
        let mut waits = Waits::new(self.session.limits);
        let mut left_at: Option<Instant> = None;
        let mut discarded = 0;
        loop {
            self.session.wake.arm();
            if self.session.stop.load(Ordering::Acquire) {
                return Err(io::Error::new(ErrorKind::ConnectionAborted, "The connection was left on request"));
            }
            let written = self.write(input)?;
            let read = self.read(output, &mut scratch)?;
            let heard = self.read_stderr(&mut scratch)?;
            if self.channel.eof() {
                return Ok(());
            }
            let now = Instant::now();
            waits.pass(now, &written, &read);
            if read.reader_gone && written.ended {
                let left = *left_at.get_or_insert(now);
                discarded += read.bytes;
                if now - left >= LINGER || discarded > DISCARDED {
                    return Err(io::Error::new(ErrorKind::TimedOut, "The far end went on after its link was left"));
                }
            }
            if written.progress || read.progress {
                continue;
            }
            // What was read may have been leave to write.
            if written.held && self.room() > 0 {
                continue;
            }
            let mut limit = waits.left(now, output.reader_waits_since(), &self.session.line.tcp)?;
            // It is read at once, and no sign of life however much there is.
            if heard.progress {
                continue;
            }
            if let Some(since) = waits.blocked_since.filter(|_| written.held && self.ahead.is_narrow()) {
                let left = AHEAD_PATIENCE.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() {
                    self.ahead.widen();
                    continue;
                }
                limit = limit.min(left);
            }
            let outbound = written.outbound || read.outbound || heard.outbound;
            await_socket(&self.session.line.tcp, Some(self.session.wake.fd.as_fd()), outbound, limit)?;
        }
    }

    fn write(&mut self, input: &mut PipeReader) -> io::Result<PumpMoved> {
        let mut moved = PumpMoved::default();
        for _ in 0..BURST {
            let taken = match input.front()? {
                Front::Empty => break,
                Front::Data(bytes) => match self.room() {
                    0 => {
                        moved.blocked = true;
                        moved.held = true;
                        break;
                    }
                    room => self.channel.write(&bytes[..bytes.len().min(room)]),
                },
                Front::End if self.eof_sent => {
                    moved.ended = true;
                    break;
                }
                Front::End => self.channel.send_eof().map_err(io::Error::from).map(|()| 0),
            };
            match taken {
                Ok(0) if matches!(input.front()?, Front::End) => self.eof_sent = true,
                Ok(0) => {
                    moved.blocked = true;
                    break;
                }
                Ok(n) => {
                    input.consume(n);
                    moved.pass(n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    moved.blocked = true;
                    moved.outbound = wants_out(&self.session.line.session);
                    break;
                }
                Err(e) => return Err(lost(e)),
            }
        }
        Ok(moved)
    }

    /// Bytes that may be written now.
    fn room(&mut self) -> usize {
        self.ahead.room(self.channel.write_window().remaining) as usize
    }

    fn read(&mut self, output: &mut PipeWriter, scratch: &mut [u8]) -> io::Result<PumpMoved> {
        let mut moved = PumpMoved::default();
        let room = match output.room() {
            Ok(room) => room.min(scratch.len()),
            // Nobody wants it; it must still be taken, or the far end could not end.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                moved.reader_gone = true;
                scratch.len()
            }
            Err(e) => return Err(e),
        };
        if room == 0 {
            return Ok(moved);
        }
        match self.channel.read(&mut scratch[..room]) {
            Ok(0) => {}
            Ok(n) => {
                moved.pass(n);
                match output.try_write(&scratch[..n]) {
                    Ok(taken) => debug_assert_eq!(taken, n, "only this thread fills the pipe"),
                    Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                    Err(e) => return Err(e),
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => moved.outbound = wants_out(&self.session.line.session),
            Err(e) => return Err(lost(e)),
        }
        Ok(moved)
    }

    /// Error output shares the window with the rest: left unread, it would stop everything.
    fn read_stderr(&mut self, scratch: &mut [u8]) -> io::Result<PumpMoved> {
        let mut moved = PumpMoved::default();
        match self.stderr.read(scratch) {
            Ok(0) => {}
            Ok(n) => {
                moved.pass(n);
                self.remote.push_stderr(&scratch[..n]);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => moved.outbound = wants_out(&self.session.line.session),
            Err(e) => return Err(lost(e)),
        }
        Ok(moved)
    }

    /// Closes the channel in the order that does not lose the exit status, which comes after the end of the outputs.
    fn finish(&mut self) -> io::Result<Ending> {
        let Dialled { session, tcp, .. } = &self.session.line;
        let deadline = Instant::now() + self.session.limits.stall.max(LINGER);
        let stopped = |stop: CallFailure| match stop {
            CallFailure::TimedOut => {
                io::Error::new(ErrorKind::TimedOut, "The far end closed its output but did not end")
            }
            CallFailure::Failed(e) => lost(e.into()),
        };
        let channel = &mut self.channel;
        if !self.eof_sent {
            drive(session, tcp, deadline, || channel.send_eof()).map_err(stopped)?;
        }
        drive(session, tcp, deadline, || channel.wait_close()).map_err(stopped)?;
        let ending = match channel.exit_signal()?.exit_signal {
            Some(name) => Ending::Signalled(name.chars().filter(char::is_ascii_graphic).take(SIGNAL_NAME).collect()),
            None => Ending::Exited(channel.exit_status()?),
        };
        drive(session, tcp, deadline, || channel.close()).map_err(stopped)?;
        Ok(ending)
    }
}

/// How much the far end may be given that it is not known to have passed on to the command.
///
/// Its window alone is too much: what a command does not take sshd keeps in a buffer that it copies whenever it grows, and two
/// megabytes cost it 0.3 s of CPU time in that way. So it has as much as keeps the link busy.
#[derive(Debug)]
struct Ahead {
    most: u32,
    /// The window when nothing was on its way.
    widest: u32,
}

impl Ahead {
    /// `round_trip`: no shorter than the link's.
    fn new(round_trip: Duration) -> Self {
        let micros = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
        Self { most: micros.saturating_mul(AHEAD_PER_MICROSECOND).max(AHEAD_LEAST), widest: 0 }
    }

    /// Bytes that may be written while the window is this.
    fn room(&mut self, window: u32) -> u32 {
        self.widest = self.widest.max(window);
        self.most.saturating_sub(self.widest - window).min(window)
    }

    /// Does the window allow more?
    fn is_narrow(&self) -> bool {
        self.most < self.widest
    }

    fn widen(&mut self) {
        self.most = self.most.saturating_mul(2);
    }
}

/// What one pass in one direction did.
#[derive(Default)]
struct PumpMoved {
    progress: bool,
    bytes: u64,
    /// Bytes are there that could not go on.
    blocked: bool,
    /// They wait for leave of the far end, or for its having passed on what is there.
    held: bool,
    /// libssh2 waits for the socket to take more.
    outbound: bool,
    /// All was sent, the end of the stream too.
    ended: bool,
    reader_gone: bool,
}

impl PumpMoved {
    fn pass(&mut self, bytes: usize) {
        self.progress = true;
        self.bytes += bytes as u64;
    }
}

/// Who waits on a link, and for how long nothing has moved for him. What the program over there says to people is no sign
/// that it is at work.
struct Waits {
    limits: Limits,
    /// When a byte moved last.
    moved_at: Instant,
    /// Since when bytes wait that cannot go on.
    blocked_since: Option<Instant>,
    /// Bytes that went on all the same.
    trickled: u64,
    /// What was still on its way when that was looked at last, and when.
    queued: Option<(Instant, u64)>,
    /// When it was seen last that it had become less.
    drained_at: Option<Instant>,
    /// What was on its way when that was looked at first since more than a trickle was written, less what has been seen to go on.
    /// Whatever else goes on are answers of the session itself, of which a far end can have as many as it likes.
    ours: Option<u64>,
}

impl Waits {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            moved_at: Instant::now(),
            blocked_since: None,
            trickled: 0,
            queued: None,
            drained_at: None,
            ours: None,
        }
    }

    /// So much moved now.
    fn pass(&mut self, now: Instant, written: &PumpMoved, read: &PumpMoved) {
        self.trickled += written.bytes;
        let wrote = written.progress && (!written.blocked || self.trickled >= TRICKLE);
        if wrote {
            self.ours = None;
        }
        if wrote || !written.blocked {
            (self.blocked_since, self.trickled) = (None, 0);
        }
        if written.blocked {
            self.blocked_since.get_or_insert(now);
        }
        if wrote || read.progress {
            self.moved_at = now;
        }
    }

    /// How long may still be waited before it is asked again, where a reader waits since then, if one does.
    fn left(&mut self, now: Instant, reader_since: Option<Instant>, tcp: &TcpStream) -> io::Result<Duration> {
        let limit = self.limits.stall;
        let blocked_since = match self.limits.alive {
            SignOfLife::AnyByte => self.blocked_since.map(|since| since.max(self.moved_at)),
            // Whatever comes meanwhile: nobody takes it.
            SignOfLife::Progress => self.blocked_since,
        };
        let reader_since = reader_since.map(|since| since.max(self.moved_at));
        let Some(since) = [blocked_since, reader_since].into_iter().flatten().min() else { return Ok(limit) };
        let every = limit / LOOKS;
        if now.saturating_duration_since(since) >= every {
            self.look_at_queue(now, every, tcp);
        }
        let since = self.drained_at.map_or(since, |at| at.max(since));
        let left = limit.saturating_sub(now.saturating_duration_since(since));
        match left.is_zero() {
            true => Err(io::Error::new(ErrorKind::TimedOut, format!("Nothing moved for {limit:?}"))),
            false => Ok(left.min(every)),
        }
    }

    /// Looks whether what was written is still on its way, and gets on. What answers a keep-alive is less than a trickle.
    fn look_at_queue(&mut self, now: Instant, every: Duration, tcp: &TcpStream) {
        let before = match self.queued {
            Some((at, _)) if now < at + every => return,
            Some((at, bytes)) if now < at + 2 * every + CEILING => bytes,
            _ => 0,
        };
        let left = queued(tcp).unwrap_or(0);
        let ours = self.ours.get_or_insert(before.max(left));
        if before >= left + TRICKLE && *ours >= TRICKLE {
            *ours = ours.saturating_sub(before - left);
            self.drained_at = Some(now);
        }
        self.queued = Some((now, left));
    }
}

/// A channel, and how long it took.
fn open_channel(line: &Dialled, limit: Duration) -> Result<(Channel, Duration), CallFailure> {
    let began = Instant::now();
    let open = || line.session.channel_open("session", WINDOW, PACKET, None);
    drive(&line.session, &line.tcp, began + limit, open).map(|channel| (channel, began.elapsed()))
}

fn lost(e: io::Error) -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, format!("The SSH connection broke: {e}"))
}

fn text(stop: &CallFailure) -> String {
    match stop {
        CallFailure::TimedOut => "no answer".to_owned(),
        CallFailure::Failed(e) => e.message().to_owned(),
    }
}

/// Ends the thread's sleep. Many calls between two sleeps cost one system call.
pub(super) struct WakeUp {
    fd: OwnedFd,
    pending: AtomicBool,
}

impl WakeUp {
    pub(super) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, pending: AtomicBool::new(false) })
    }

    pub(super) fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Called before looking at what may have changed: any change from now on ends the next sleep. In this order, a call
    /// between the two statements leaves the descriptor set, which costs one needless pass and no wake-up.
    fn arm(&self) {
        let _: Result<usize, Errno> = rustix::io::read(&self.fd, &mut [0; 8]);
        self.pending.store(false, Ordering::Release);
    }

    fn callback(self: &Arc<Self>) -> crate::pipe::Wakeup {
        let wake = self.clone();
        Box::new(move || wake.wake())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: u32 = 2 << 20;

    #[test]
    fn a_short_link_has_little_ahead() {
        let mut ahead = Ahead::new(Duration::from_micros(200));
        assert_eq!(ahead.room(0), 0, "sshd opens a channel's window when the command runs");
        assert_eq!(ahead.room(WHOLE), AHEAD_LEAST);
        assert_eq!(ahead.room(WHOLE - 100_000), AHEAD_LEAST - 100_000);
        assert_eq!(ahead.room(WHOLE - AHEAD_LEAST), 0);
        assert_eq!(ahead.room(WHOLE - 100_000), AHEAD_LEAST - 100_000, "what was passed on makes room");
    }

    #[test]
    fn a_long_link_has_the_whole_window() {
        let mut ahead = Ahead::new(Duration::from_millis(5));
        assert_eq!(ahead.room(WHOLE), WHOLE);
        assert_eq!(ahead.room(1), 1);
        assert!(!ahead.is_narrow());
    }

    #[test]
    fn it_widens_to_the_window() {
        let mut ahead = Ahead::new(Duration::ZERO);
        assert_eq!(ahead.room(WHOLE), AHEAD_LEAST);
        while ahead.is_narrow() {
            ahead.widen();
        }
        assert_eq!((ahead.room(WHOLE), ahead.room(3)), (WHOLE, 3));
    }
}
