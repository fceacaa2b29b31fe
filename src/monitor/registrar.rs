//! From the spool to the table: sums what messages announce, and registers it in the order of arrival, each message once.
//!
//! What is missing is waited for aside, and those behind it go on. The table itself says how far it has come, in the
//! transaction of the rows; what was set aside is on disk before that passes it by.

mod awaited;

use super::aside::{Aside, AsideChange, AsideState};
use super::counters::MonitorCounters;
use super::frame::SpooledMessage;
use super::gate::RegistrarGate;
use super::lane::{ArchiveLane, EntryStage};
use super::late::LateFiles;
use super::making::{RegistrarRules, read_notice, told};
use super::notice::ArchiveName;
use super::spool::{Spool, SpoolReader};
use super::sums::{SumJob, SumPool};
use super::table::MonitorTable;
use crate::catalog::announced::{AnnouncedBatch, AnnouncedOutcome, LaneStep, SpoolNumber};
use crate::clock::unix_now;
use crate::disk::summed::{SumError, SummedFile};
use std::io;
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
    lanes: [ArchiveLane; 2],
    late: LateFiles,
    reader: SpoolReader,
    /// Bytes of the messages in hand.
    bytes: usize,
    /// Late ones that are registered, which the table need not know any more.
    forgotten: Vec<SpoolNumber>,
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
            looked: Instant::now(),
        }
    }

    fn lane(&mut self, archive: ArchiveName) -> &mut ArchiveLane {
        let [smurf, timestreams] = &mut self.lanes;
        if archive == ArchiveName::Smurf { smurf } else { timestreams }
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
                self.pool.submit(SumJob { key: SumKey { key, archive }, path: notice.file().to_owned() });
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
            self.hear_of_late(&key, result);
            return;
        };
        let stage = match result {
            Ok(summed) => match self.rules.row(&message, &summed, self.table.path_limit()) {
                Ok(row) => EntryStage::Ready(Box::new(row)),
                Err(why) => EntryStage::ToReject(why),
            },
            Err(why) => EntryStage::ToWait(why.to_string()),
        };
        if let Some(entry) = self.course.lane(archive).entry(key.number) {
            entry.stage = stage;
        }
    }

    /// Registers what is at the heads of the lanes and what is late, as far as it is settled.
    fn register(&mut self) -> Result<(), RegistrarTrouble> {
        loop {
            self.set_aside()?;
            let batch = self.batch();
            if batch.files.is_empty() && batch.steps.is_empty() {
                return Ok(());
            }
            let (rows, late) = (batch.files.len(), batch.late.clone());
            let steps: Vec<_> = batch.steps.iter().map(|step| (step.lane, step.to)).collect();
            let Some(outcome) = self.table.announce(batch.clone(), &self.stop) else { return Ok(()) };
            match outcome {
                AnnouncedOutcome::Elsewhere => return Err(RegistrarTrouble::Elsewhere),
                AnnouncedOutcome::Refused(index, why) => self.refused(index, &batch, &why)?,
                AnnouncedOutcome::Registered => {
                    for file in &batch.files {
                        tracing::info!(event = "registered", archive = file.archive, "Registered {}", file.path);
                    }
                    self.counters.registered.fetch_add(rows as u64, Relaxed);
                    self.registered(&steps, late)?;
                }
            }
        }
    }

    /// Puts on disk what the table is to pass by.
    fn set_aside(&mut self) -> Result<(), RegistrarTrouble> {
        let mut room = WAITING_MOST.saturating_sub(self.aside.waiting());
        room = if self.aside.has_room() { room } else { 0 };
        let (now, mut changes, mut waiting) = (unix_now(), Vec::new(), Vec::new());
        for lane in &mut self.course.lanes {
            for entry in lane.settled(BATCH) {
                let (state, why) = match std::mem::replace(&mut entry.stage, EntryStage::Aside) {
                    EntryStage::ToWait(why) if room > 0 => (AsideState::Waiting, why),
                    EntryStage::ToWait(why) => {
                        (AsideState::Rejected, format!("{why}; and {WAITING_MOST} files are waited for already"))
                    }
                    EntryStage::ToReject(why) => (AsideState::Rejected, why),
                    stage => {
                        entry.stage = stage;
                        continue;
                    }
                };
                let key = SpoolNumber { spool: self.name.clone(), number: entry.message.number };
                if state == AsideState::Waiting {
                    room -= 1;
                    waiting.push(key.clone());
                }
                changes.push(AsideChange::Put { key, state, since: now, why, message: entry.message.clone() });
            }
        }
        let changed = self.change(changes.clone());
        if changed.is_err() {
            // Nothing of it is on disk for sure.
            for change in changes {
                let AsideChange::Put { key, state, why, .. } = change else { continue };
                let entry = self.course.lanes.iter_mut().find_map(|lane| lane.entry(key.number));
                if let Some(entry) = entry {
                    entry.stage =
                        if state == AsideState::Waiting { EntryStage::ToWait(why) } else { EntryStage::ToReject(why) };
                }
            }
        }
        waiting.into_iter().for_each(|key| self.course.late.wait(key));
        changed
    }

    /// Changes what is aside, and tells of it.
    fn change(&mut self, changes: Vec<AsideChange>) -> Result<(), RegistrarTrouble> {
        let gone = self.aside.change(changes.clone()).map_err(disk)?;
        if gone > 0 {
            tracing::error!(
                event = "rejects_full",
                gone,
                "The {gone} oldest refusals had to give way to new ones; see `monitor rejects`"
            );
        }
        for change in changes {
            let AsideChange::Put { state, why, message, .. } = change else { continue };
            let what = told(&message);
            match state {
                AsideState::Waiting => tracing::info!(event = "awaited", "Waiting for {what}: {why}"),
                AsideState::Rejected => {
                    self.counters.rejected.fetch_add(1, Relaxed);
                    tracing::error!(event = "rejected", "Not registered: {what}: {why}; see `monitor rejects`");
                }
            }
        }
        Ok(())
    }

    fn batch(&mut self) -> AnnouncedBatch {
        let mut batch = AnnouncedBatch::default();
        for lane in &mut self.course.lanes {
            let (from, mut to) = (lane.position, None);
            for entry in lane.settled(BATCH) {
                match &entry.stage {
                    EntryStage::Ready(file) => batch.files.push((**file).clone()),
                    EntryStage::Aside => {}
                    // Not set aside yet.
                    _ => break,
                }
                to = Some(entry.message.number + 1);
            }
            let lane = lane.archive.name();
            batch.steps.extend(to.map(|to| LaneStep { spool: self.name.clone(), lane, from, to }));
        }
        let is_passed = |key: &SpoolNumber, archive: &str| {
            let lane = self.course.lanes.iter().find(|lane| lane.archive.name() == archive);
            key.spool != self.name || lane.is_some_and(|lane| key.number < lane.position)
        };
        for (key, file) in self.course.late.ready(BATCH).filter(|(key, file)| is_passed(key, file.archive)) {
            batch.files.push(file.clone());
            batch.late.push(key.clone());
        }
        batch.forgotten.clone_from(&self.course.forgotten);
        batch
    }

    /// The table does not take this one of a batch: it is set aside, and the others go on without it.
    fn refused(&mut self, index: usize, batch: &AnnouncedBatch, why: &str) -> Result<(), RegistrarTrouble> {
        let why = format!("The table does not take it: {why}");
        let late = batch.files.len() - batch.late.len();
        if let Some(key) = index.checked_sub(late).and_then(|at| batch.late.get(at)) {
            return self.reject_late(&key.clone(), why);
        }
        let heads = self.course.lanes.iter_mut().flat_map(|lane| lane.settled(BATCH));
        let mut ready = heads.filter(|entry| matches!(entry.stage, EntryStage::Ready(_)));
        if let Some(entry) = ready.nth(index) {
            entry.stage = EntryStage::ToReject(why);
        }
        Ok(())
    }

    fn registered(&mut self, steps: &[(&'static str, u64)], late: Vec<SpoolNumber>) -> Result<(), RegistrarTrouble> {
        for (name, to) in steps {
            for lane in self.course.lanes.iter_mut().filter(|lane| lane.archive.name() == *name) {
                let done: Vec<_> = lane
                    .settled(BATCH)
                    .filter(|entry| entry.message.number < *to)
                    .map(|entry| entry.message.bytes.len())
                    .collect();
                self.course.bytes -= done.iter().sum::<usize>();
                lane.done(done.len(), *to);
            }
        }
        let [smurf, timestreams] = &self.course.lanes;
        self.table.remember(
            self.spool.folder(),
            &self.name,
            [smurf, timestreams].map(|lane| (lane.archive.name(), lane.position)),
        );
        for key in &late {
            self.course.late.remove(key);
        }
        self.course.forgotten.clear();
        self.aside.change(late.iter().cloned().map(AsideChange::Remove).collect()).map_err(disk)?;
        self.course.forgotten = late;
        Ok(())
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

fn disk(error: io::Error) -> RegistrarTrouble {
    RegistrarTrouble::Disk(error.to_string())
}
