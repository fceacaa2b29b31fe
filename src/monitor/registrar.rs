//! From the spool to the table: sums what messages announce, and registers it in the order of arrival, each message once.
//!
//! What is missing is waited for aside, and those behind it go on. The table itself says how far it has come, in the
//! transaction of the rows; what was set aside is on disk before that passes it by.

mod awaited;
mod settling;

use super::aside::{Aside, AsideChange};
use super::counters::MonitorCounters;
use super::frame::SpooledMessage;
use super::garbage::GarbageLog;
use super::gate::RegistrarGate;
use super::lane::{ArchiveLane, EntryStage};
use super::late::LateFiles;
use super::making::{RegistrarRules, read_notice, told};
use super::notice::{ArchiveName, FileNotice};
use super::spool::{Spool, SpoolReader};
use super::sums::{SumJob, SumPool};
use super::table::MonitorTable;
use crate::catalog::announced::SpoolNumber;
use crate::disk::summed::{SumError, SummedFile, SymlinkRule};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Messages in hand at once, and their bytes.
const WINDOW: usize = 16_384;
const WINDOW_BYTES: usize = 64 << 20;
/// Rows of one transaction.
const BATCH: usize = 1000;
/// Files that are waited for at once.
const WAITING_MOST: usize = 10_000;
/// How often it looks at what nobody tells it.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks for orders and for threads that hang.
const LOOK: Duration = Duration::from_millis(500);

/// What a registrar is told.
pub(super) enum RegistrarWord {
    /// There is more in the spool.
    Grown,
    /// A file was read.
    Summed(SumKey, Result<SummedFile, SumError>),
}

/// What a file is summed for.
#[derive(Debug, Clone)]
pub(super) struct SumKey {
    key: SpoolNumber,
    archive: ArchiveName,
}

/// The thread between spool and table.
pub(super) struct Registrar {
    pub(super) spool: Arc<Spool>,
    pub(super) name: String,
    pub(super) aside: Aside,
    pub(super) pool: SumPool<SumKey>,
    pub(super) words: Receiver<RegistrarWord>,
    pub(super) counters: Arc<MonitorCounters>,
    pub(super) rules: RegistrarRules,
    pub(super) table: MonitorTable,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) gate: RegistrarGate,
    pub(super) course: RegistrarCourse,
}

/// How far it has come.
pub(super) struct RegistrarCourse {
    lanes: [ArchiveLane; 3],
    late: LateFiles,
    reader: SpoolReader,
    /// Bytes of the messages in hand.
    bytes: usize,
    /// Late ones that are registered, which the table need not know any more.
    forgotten: Vec<SpoolNumber>,
    garbage: GarbageLog,
    looked: Instant,
}

impl RegistrarCourse {
    pub(super) fn new(spool: &Arc<Spool>, aside: &Aside) -> Self {
        Self {
            lanes: ArchiveName::ALL.map(ArchiveLane::new),
            late: LateFiles::of(aside),
            reader: SpoolReader::new(spool.clone(), 0),
            bytes: 0,
            forgotten: Vec::new(),
            garbage: GarbageLog::default(),
            looked: Instant::now(),
        }
    }

    fn lane(&mut self, archive: ArchiveName) -> &mut ArchiveLane {
        let [smurf, timestreams, watched] = &mut self.lanes;
        match archive {
            ArchiveName::Smurf => smurf,
            ArchiveName::Timestreams => timestreams,
            ArchiveName::Watched => watched,
        }
    }
}

impl Registrar {
    /// Works until told to stop; what is not registered then is in the spool.
    pub(super) fn run(mut self) {
        let mut known = false;
        while !self.stop.load(Relaxed) {
            let done = match (self.gate.is_open(), known) {
                (false, _) => {
                    self.hear();
                    self.count();
                    Ok(())
                }
                (true, true) => self.turn(),
                (true, false) => self.begin().map(|begun| known = begun),
            };
            if let Err(trouble) = done {
                known &= trouble != RegistrarTrouble::Elsewhere;
                if let RegistrarTrouble::Disk(why) = trouble {
                    tracing::error!(
                        event = "spool_trouble",
                        "The spool's folder {}: {why}",
                        self.spool.folder().display()
                    );
                    self.counters.set_trouble(|troubles| troubles.spool = Some(why));
                    std::thread::sleep(LOOK);
                }
            }
        }
        // What is summed already needs no second time.
        if known && self.gate.is_open() {
            let _ = self.turn();
        }
        self.table.close();
    }

    /// Learns from the table how far it has come; false while it is out of reach.
    fn begin(&mut self) -> Result<bool, RegistrarTrouble> {
        let Some(marks) = self.table.marks(&self.name, &self.stop) else { return Ok(false) };
        let behind = self.table.remembered(self.spool.folder());
        for lane in &mut self.course.lanes {
            let name = lane.archive.name();
            let of_table = marks.lanes.iter().find(|(lane, _)| lane == name).map(|(_, position)| *position);
            // Another database knows nothing of this spool: what went into the former one is done.
            lane.begin(of_table.unwrap_or_else(|| lane.position.max(behind.of(&self.name, name))));
        }
        let positions = self.course.lanes.each_ref().map(|lane| lane.position);
        let (first, last) = (positions.into_iter().min(), positions.into_iter().max().unwrap_or(0));
        if last > self.spool.next() {
            // What it holds under these numbers would be passed by.
            return Err(RegistrarTrouble::Disk(format!(
                "it is an older copy of a spool that {last} messages of were registered; have the monitor use another by --spool, and keep this one: it may hold messages that are not registered"
            )));
        }
        self.course.reader = SpoolReader::new(self.spool.clone(), first.unwrap_or(0));
        self.course.bytes = 0;
        // Registered late, and still aside: whoever did it ended in between.
        let done = marks.late.iter().filter(|key| self.aside.get(key).is_some()).cloned().map(AsideChange::Remove);
        self.aside.change(done.collect()).map_err(disk)?;
        self.course.forgotten = marks.late;
        self.course.late = LateFiles::of(&self.aside);
        Ok(true)
    }

    /// Takes in what there is, and registers what can be.
    fn turn(&mut self) -> Result<(), RegistrarTrouble> {
        self.take_in()?;
        if self.course.looked.elapsed() > LOOK {
            self.course.looked = Instant::now();
            self.pool.look_after();
            self.course.lanes.iter_mut().for_each(ArchiveLane::let_go);
            self.tell_garbage();
            self.hear_orders()?;
        }
        self.look_for_late()?;
        if !self.stop.load(Relaxed) {
            self.hear();
        }
        self.register()?;
        let read = self.course.reader.next();
        let first = self.course.lanes.iter().filter_map(ArchiveLane::first).min();
        self.spool.release(first.unwrap_or(read).min(read));
        self.count();
        self.counters.turns.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Tells how much waits.
    fn count(&self) {
        let at_work: usize = self.course.lanes.iter().map(ArchiveLane::len).sum();
        let unread = self.spool.next().saturating_sub(self.course.reader.next());
        self.counters.at_work.store(at_work as u64 + unread, Relaxed);
        self.counters.waiting.store(self.aside.waiting() as u64, Relaxed);
        self.counters.rejects.store(self.aside.rejected() as u64, Relaxed);
        self.counters.spool_bytes.store(self.spool.len(), Relaxed);
    }

    /// Reads from the spool what there is room for.
    fn take_in(&mut self) -> Result<(), RegistrarTrouble> {
        while self.course.lanes.iter().map(ArchiveLane::len).sum::<usize>() < WINDOW && self.course.bytes < WINDOW_BYTES
        {
            let Some(message) = self.course.reader.read().map_err(disk)? else { break };
            self.take(message);
        }
        Ok(())
    }

    fn take(&mut self, message: SpooledMessage) {
        let read = read_notice(&message);
        let archive = read.as_ref().map_or(ArchiveName::Smurf, |notice| notice.archive);
        if message.number < self.course.lane(archive).position {
            return;
        }
        self.course.bytes += message.bytes.len();
        let key = SpoolNumber { spool: self.name.clone(), number: message.number };
        let stage = match read.and_then(|notice| self.rules.check(&notice, self.table.path_limit()).map(|()| notice)) {
            _ if self.aside.get(&key).is_some() => EntryStage::Aside,
            Ok(notice) => {
                if !notice.supplied.is_empty() {
                    tracing::info!(
                        event = "supplied",
                        path = notice.path,
                        "Registering {} with what its message does not say: {}",
                        notice.path,
                        notice.supplied.join("; ")
                    );
                }
                self.pool.submit(job(SumKey { key, archive }, &notice));
                EntryStage::Summing(Instant::now())
            }
            Err(why) => EntryStage::ToReject(why),
        };
        self.course.lane(archive).push(message, stage);
    }

    /// Hears what it is told, for as long as there is nothing else to do.
    fn hear(&mut self) {
        match self.words.recv_timeout(TICK) {
            Ok(word) => self.hear_word(word),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TICK),
        }
        while let Ok(word) = self.words.try_recv() {
            self.hear_word(word);
        }
    }

    fn hear_word(&mut self, word: RegistrarWord) {
        let RegistrarWord::Summed(SumKey { key, archive }, result) = word else { return };
        let own = key.spool == self.name;
        let in_hand = self.course.lane(archive).entry(key.number);
        let entry = in_hand.filter(|entry| own && matches!(entry.stage, EntryStage::Summing(_)));
        let Some(message) = entry.map(|entry| entry.message.clone()) else {
            self.hear_of_late(&SumKey { key, archive }, result);
            return;
        };
        let stage = match result {
            Ok(summed) => match self.rules.row(&message, &summed, self.table.path_limit()) {
                Ok(row) => EntryStage::Ready(Box::new(row)),
                Err(why) => EntryStage::ToReject(why),
            },
            // It is found again by who has found it.
            Err(why) if archive == ArchiveName::Watched => unsummed(&message, &why),
            Err(why) => EntryStage::ToWait(why.to_string()),
        };
        if let Some(entry) = self.course.lane(archive).entry(key.number) {
            entry.stage = stage;
        }
    }
}

/// Why a turn was not done to its end.
#[derive(Debug, PartialEq, Eq)]
enum RegistrarTrouble {
    /// The table says another thing than was thought.
    Elsewhere,
    /// The spool's folder does not do as it should.
    Disk(String),
}

/// Has a file summed; one of a watched folder is itself or nothing.
fn job(key: SumKey, notice: &FileNotice) -> SumJob<SumKey> {
    let links = if key.archive == ArchiveName::Watched { SymlinkRule::Refused } else { SymlinkRule::Followed };
    SumJob { key, path: notice.file().to_owned(), links }
}

/// What comes of a watched file that cannot be summed: who has found it finds it again once it is whole, or read by us.
fn unsummed(message: &SpooledMessage, why: &SumError) -> EntryStage {
    let what = told(message);
    match why {
        SumError::Unreadable(why) if why.kind() == ErrorKind::NotFound => {
            tracing::info!(event = "vanished", "Not registered, since it is gone: {what}");
            EntryStage::Void
        }
        SumError::Unreadable(_) => EntryStage::ToReject(why.to_string()),
        SumError::NoFile | SumError::Changed => {
            tracing::info!(event = "awaited", "Not registered yet: {what}: {why}");
            EntryStage::Void
        }
    }
}

fn disk(error: io::Error) -> RegistrarTrouble {
    RegistrarTrouble::Disk(error.to_string())
}
