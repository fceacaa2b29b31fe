//! Where messages come in, whoever brings them: handed over in bounded memory, looked at, and written to the spool in groups
//! before anything else is done for them.

use super::counters::MonitorCounters;
use super::gaps::Gaps;
use super::message::{MessageTopic, PublisherMessage};
use super::spool::{SpoolWriter, UnspooledMessage};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Messages that are handed over and not taken yet.
const HANDED_MOST: usize = 1 << 17;
/// A message waits so long for others that go to disk with it; the write itself comes on top, and 50 ms are the limit.
const GROUP: Duration = Duration::from_millis(15);
/// Messages and bytes of one group.
const GROUP_MOST: usize = 4096;
const GROUP_BYTES: usize = 1 << 20;
/// Between two attempts at a spool that takes nothing.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the last messages are tried to be written once it ends.
const LAST_TRIES: Duration = Duration::from_secs(5);
/// How often the same trouble is said again.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Who hears all messages as they come, files or not; must not wait for anything.
pub(crate) trait MessageAudience: Send {
    /// A message, and the very bytes of it.
    fn hear(&mut self, message: &PublisherMessage, bytes: &[u8]);
}

/// Where a source of messages hands them over.
#[derive(Clone)]
pub(crate) struct Intake {
    sender: SyncSender<UnspooledMessage>,
    bytes: Arc<AtomicUsize>,
    most: usize,
    counters: Arc<MonitorCounters>,
}

/// The other side of it.
pub(super) struct IntakeEnd {
    receiver: Receiver<UnspooledMessage>,
    bytes: Arc<AtomicUsize>,
}

impl Intake {
    /// With room for so many bytes.
    pub(super) fn new(most: usize, counters: Arc<MonitorCounters>) -> (Self, IntakeEnd) {
        let (sender, receiver) = sync_channel(HANDED_MOST);
        let bytes = Arc::new(AtomicUsize::new(0));
        (Self { sender, bytes: bytes.clone(), most, counters }, IntakeEnd { receiver, bytes })
    }

    /// Hands a message over and never waits; without room it is lost, and counted. False once the monitor has ended.
    pub(crate) fn offer(&self, message: UnspooledMessage) -> bool {
        self.counters.received.fetch_add(1, Relaxed);
        let len = message.bytes.len();
        if self.bytes.load(Relaxed) + len > self.most {
            self.counters.lost.fetch_add(1, Relaxed);
            return true;
        }
        self.bytes.fetch_add(len, Relaxed);
        match self.sender.try_send(message) {
            Ok(()) => true,
            Err(error) => {
                self.bytes.fetch_sub(len, Relaxed);
                self.counters.lost.fetch_add(1, Relaxed);
                matches!(error, TrySendError::Full(_))
            }
        }
    }
}

impl Intake {
    /// Hands over what is not to be lost, and waits for room; half of it stays for those who cannot wait.
    pub(crate) fn offer_patiently(&self, mut message: UnspooledMessage, stop: &AtomicBool) -> Offered {
        let len = message.bytes.len();
        loop {
            if self.bytes.load(Relaxed) + len <= self.most / 2 {
                self.bytes.fetch_add(len, Relaxed);
                match self.sender.try_send(message) {
                    Ok(()) => {
                        self.counters.received.fetch_add(1, Relaxed);
                        return Offered::Taken;
                    }
                    Err(TrySendError::Disconnected(_)) => return Offered::Stopped,
                    Err(TrySendError::Full(back)) => message = back,
                }
                self.bytes.fetch_sub(len, Relaxed);
            }
            if stop.load(Relaxed) {
                return Offered::Stopped;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// What became of a message that waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// It is over.
    Stopped,
}

/// The thread between those who bring messages and the spool.
pub(super) struct Intaker {
    pub(super) end: IntakeEnd,
    pub(super) writer: SpoolWriter,
    pub(super) counters: Arc<MonitorCounters>,
    pub(super) audience: Option<Box<dyn MessageAudience>>,
    /// The process is to end.
    pub(super) closing: Arc<AtomicBool>,
    /// Told that there is more in the spool.
    pub(super) grown: Box<dyn Fn() + Send>,
}

impl Intaker {
    /// Works until nobody can bring a message any more and all that was brought is in the spool.
    pub(super) fn run(mut self) {
        let mut gaps = Gaps::default();
        let mut ended = false;
        while !ended {
            let mut group = Vec::new();
            let mut bytes = 0;
            match self.end.receiver.recv() {
                Ok(message) => self.sort(message, &mut gaps, &mut group, &mut bytes),
                Err(_) => return,
            }
            let until = Instant::now() + GROUP;
            while group.len() < GROUP_MOST && bytes < GROUP_BYTES {
                match self.end.receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(message) => self.sort(message, &mut gaps, &mut group, &mut bytes),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => {
                        ended = true;
                        break;
                    }
                }
            }
            self.write(&group);
            self.end.bytes.fetch_sub(group.iter().map(|message| message.bytes.len()).sum(), Relaxed);
        }
    }

    /// Files go to the spool, and what nobody understands: it may have been one.
    fn sort(
        &mut self,
        message: UnspooledMessage,
        gaps: &mut Gaps,
        group: &mut Vec<UnspooledMessage>,
        bytes: &mut usize,
    ) {
        let read = PublisherMessage::read(&message.bytes);
        if let Ok(read) = &read {
            let lost = gaps.hear(read, message.sender);
            if lost > 0 {
                self.counters.gaps.fetch_add(lost, Relaxed);
                let sender = message.sender.map(|sender| sender.to_string()).unwrap_or_default();
                let id = read.get("id").and_then(super::value::PyValue::as_text).map(|id| id.shown());
                tracing::warn!(
                    event = "messages_missing",
                    messages = lost,
                    sender,
                    "{lost} messages of publisher {} at {sender} were never received; if they were files, register them with `files add`",
                    id.unwrap_or_default()
                );
            }
            if let Some(audience) = &mut self.audience {
                audience.hear(read, &message.bytes);
            }
        }
        match read {
            // Nobody else may tell of watched files.
            Ok(read)
                if !read.topic.is_file() || (read.topic == MessageTopic::WatchedFile && message.sender.is_some()) =>
            {
                self.counters.others.fetch_add(1, Relaxed);
                self.end.bytes.fetch_sub(message.bytes.len(), Relaxed);
            }
            _ => {
                *bytes += message.bytes.len();
                group.push(message);
            }
        }
    }

    /// Until it is on disk.
    fn write(&mut self, group: &[UnspooledMessage]) {
        let mut said: Option<Instant> = None;
        let began = Instant::now();
        while let Err(error) = self.writer.append(group) {
            if said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
                said = Some(Instant::now());
                let lost = self.counters.lost.load(Relaxed);
                tracing::error!(
                    event = "spool_trouble",
                    lost,
                    "{error}; messages are kept in memory meanwhile, and those beyond its bound are lost ({lost} so far)"
                );
            }
            self.counters.set_trouble(|troubles| troubles.spool = Some(error.to_string()));
            // Nobody brings any more, and the process is to end.
            if self.closing.load(Relaxed) && began.elapsed() > LAST_TRIES {
                self.counters.lost.fetch_add(group.len() as u64, Relaxed);
                tracing::error!(
                    event = "spool_trouble",
                    "{} messages are lost: they could not be written to the spool before the end",
                    group.len()
                );
                return;
            }
            std::thread::sleep(PAUSE);
        }
        if said.is_some() {
            self.counters.set_trouble(|troubles| troubles.spool = None);
            tracing::info!(event = "spool_fine", "The spool takes messages again");
        }
        self.counters.spooled.fetch_add(group.len() as u64, Relaxed);
        (self.grown)();
    }
}
