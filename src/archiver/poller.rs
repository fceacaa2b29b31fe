//! Finds waiting rows and fills the queue.
//!
//! A pass goes through rows in order of id, a page at a time: a slice of the older ones, as [`Course`] has it, and all new
//! ones. So a new file waits for a slice at most, however long the table is. Now and then a round begins at the bottom,
//! for rows that were put back by hand or committed late.

use super::asking::Asking;
use super::control::Control;
use super::course::Course;
use super::flight::{Admission, Flight, Job};
use super::layout::{RemotePath, archived_path, place, too_long};
use super::origins::{Lack, Look, Origins};
use super::recorder::AttemptRules;
use super::retry::{ONCE_PATIENCE, Pauses};
use super::sessions::SessionPermits;
use super::unfinished::Strays;
use super::{ArchiverSettings, Direction, Ended};
use crate::backoff::Backoff;
use crate::catalog::{Catalog, CatalogError, Claimed, Hold, Looked, Outcome, Pending, Record, RecordId, Settled};
use crate::clock::cpu_time;
use crate::status::{DatabaseUse, Failure, told};
use futures_util::FutureExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Rows of one page.
const PAGE: usize = 256;
/// How far below the newest row the new ones begin: rows get their ids before they are committed.
const MARGIN: i64 = 1000;
/// How often a round begins at the bottom.
const BOTTOM_EVERY: Duration = Duration::from_secs(300);
/// Of rows that become due at any age a round begins at the bottom when so many times as long has gone by as the last one took.
const ROUNDS_SHARE: u32 = 20;
/// How long before it was asked last what another node has proven since is asked for again: a proof may have its moment up to
/// two time limits of a transaction before it is seen, and from another clock.
const FED_MARGIN: f64 = 60.0;
/// How long a pass looks at older rows before it looks at new ones.
const SLICE: Duration = Duration::from_millis(200);
/// The longest rest between two passes of one round.
const REST_MOST: Duration = Duration::from_millis(100);
/// Files from this size on are large.
const LARGE: u64 = 16 << 20;
/// Where passes take long, the shorter of the last two, that many times as long is rested before one is made for new rows alone.
const REST_SHARE: u32 = 10;
/// Older rows proven of late that are remembered beside the rounds.
const FED_MOST: usize = 10_000;
/// How long looking at the files of a page may take beyond what one may; a slow file system must not stop the rest.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// How often lanes are given back that rows in flight have kept, while nothing else is done.
const GIVING: Duration = Duration::from_millis(200);

/// Rows that a run with `once` goes back to at most, before it goes on.
const LEFT_MOST: usize = 10_000;

/// A row whose attempt failed before it was in flight.
struct FailedRow {
    id: RecordId,
    hold: Hold,
    attempts: i64,
    source: String,
    /// Where it was going, if that is known.
    place: Option<RemotePath>,
    kind: Failure,
    why: String,
}

pub(super) struct Poller<C> {
    pub(super) catalog: Arc<C>,
    pub(super) settings: Arc<ArchiverSettings>,
    pub(super) permits: Arc<SessionPermits>,
    pub(super) flight: Arc<Flight>,
    pub(super) origins: Arc<Origins>,
    pub(super) strays: Arc<Strays>,
    pub(super) jobs: mpsc::Sender<Vec<Job>>,
    pub(super) control: Control,
}

/// What a pass came to.
#[derive(Default)]
struct Pass {
    /// The lowest row whose time has not come, and when the first one's does.
    parked: Option<(RecordId, Instant)>,
    /// Rows that were taken into flight.
    started: u64,
    /// Rows met of those that were left for another turn.
    met: BTreeSet<RecordId>,
}

impl Pass {
    /// A row has to wait.
    fn park(&mut self, id: RecordId, until: Instant) {
        self.parked = sooner(self.parked, Some((id, until)));
    }
}

/// The lower row and the earlier moment of both.
fn sooner(one: Option<(RecordId, Instant)>, other: Option<(RecordId, Instant)>) -> Option<(RecordId, Instant)> {
    match (one, other) {
        (Some((id, until)), Some((other, earlier))) => Some((id.min(other), until.min(earlier))),
        (one, other) => one.or(other),
    }
}

/// What the passes remember.
struct Memory {
    course: Course,
    bottom: BottomRound,
    pauses: Pauses,
    parked: Option<(RecordId, Instant)>,
    /// The newest row there was when the last pass began.
    newest: RecordId,
    /// Whether some row of this round waits for another one to be settled.
    waiting: bool,
    /// With `once`: which rows have had their turn.
    turns: Option<Turns>,
    asking: Asking,
    claimed: Claimed,
    /// How long the last pass took.
    took: Duration,
    /// Of a storage node that another one feeds.
    fed: FedMemory,
}

/// What is known of the proofs of the node that feeds ours.
#[derive(Default)]
struct FedMemory {
    /// Until when they were asked for, where that is known without going through all rows.
    until: Option<f64>,
    /// Older rows that it has proven of late, still to be seen.
    due: BTreeSet<RecordId>,
}

/// The last round that began at the bottom.
struct BottomRound {
    began: Instant,
    /// How much trouble there had been with the table by then.
    troubles: (u64, u64),
    /// How long it took, once it is over.
    took: Option<Duration>,
}

/// Each row has one turn: those above the last one seen, and those below it that had to wait or came back untried.
struct Turns {
    seen: RecordId,
    left: BTreeSet<RecordId>,
}

impl Turns {
    /// Whether the row has its turn still before it.
    fn has(&self, id: RecordId) -> bool {
        id > self.seen || self.left.contains(&id)
    }

    /// Below which no row has.
    fn floor(&self) -> RecordId {
        self.left.first().map_or(self.seen, |id| RecordId(id.0 - 1))
    }
}

impl<C: Catalog> Poller<C> {
    /// Runs until stopped; with `once`, until each row has had its turn and nothing is in flight.
    pub(super) async fn run(self) -> Ended {
        let mut backoff = Backoff::default();
        let mut memory = self.memory();
        loop {
            if self.control.stop().is_stopped() {
                return self.ended();
            }
            if self.control.is_paused() {
                tokio::select! {
                    () = self.rest() => {}
                    () = self.control.stop().stopped() => return self.ended(),
                }
            }
            let freeing = self.flight.freeing();
            let mut freeing = std::pin::pin!(freeing);
            // Registered before the pass looks at what is in flight: none is missed.
            freeing.as_mut().enable();
            let began = Instant::now();
            let pass = tokio::select! {
                pass = self.pass(&mut memory) => pass,
                () = self.control.paused() => continue,
                // It may wait for room, which there is only once we have joined anew: who has no lanes has no share of the link.
                () = self.catalog.lanes_lost() => continue,
                () = self.control.stop().stopped() => return self.ended(),
            };
            let (took, went_well) = (began.elapsed(), pass.is_ok());
            let pause = match pass {
                Ok(pass) => {
                    backoff.reset();
                    self.control.progress().database_fine(DatabaseUse::Asking);
                    match self.conclude(&pass, &mut memory, took) {
                        Some(pause) => pause,
                        None => return Ended::Drained,
                    }
                }
                Err(error) => {
                    memory.waiting = false;
                    let trouble = self.control.progress().database_trouble(DatabaseUse::Asking, &error.to_string());
                    let pause = backoff.pause();
                    if self.settings.once && backoff.failures() >= ONCE_PATIENCE {
                        return Ended::OutOfReach(error.to_string());
                    }
                    told!(
                        trouble.lasts() || self.settings.once,
                        event = "database_trouble",
                        wait_ms = pause.as_millis() as u64,
                        "{error}; trying again"
                    );
                    pause
                }
            };
            // One slow pass may be chance; two are the table's way.
            let rest = took.min(std::mem::replace(&mut memory.took, took)) * REST_SHARE;
            let row_settled = async {
                loop {
                    freeing.as_mut().await;
                    // Only a row that waits for a place, or a run that ends with its work, has a use for it.
                    if memory.waiting || (self.settings.once && self.flight.is_empty()) {
                        return;
                    }
                    freeing.set(self.flight.freeing());
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = row_settled => {}
                // A table that is in trouble, or that others work on, is left alone until the pause is over.
                () = self.news(memory.newest, rest, &mut memory.asking), if went_well => {}
                () = self.catalog.lanes_move(), if went_well => {}
                () = self.control.asked() => {
                    memory.course.begin_at_the_bottom();
                    memory.pauses = Pauses::default();
                    self.origins.look_again();
                }
                () = self.control.stop().stopped() => return self.ended(),
            }
        }
    }

    /// While others may work, whose rows we keep from nobody.
    async fn rest(&self) {
        let give_all = async {
            loop {
                let given = match self.catalog.rest().await {
                    Ok(()) => self.catalog.give_back(&self.flight.lanes()).await,
                    Err(error) => Err(error),
                };
                if let Ok(false) = given {
                    return std::future::pending().await;
                }
                tokio::time::sleep(GIVING).await;
            }
        };
        tokio::select! {
            () = give_all => {}
            () = self.control.resumed() => {}
        }
    }

    fn memory(&self) -> Memory {
        let above = self.settings.above;
        Memory {
            course: Course::new(above),
            bottom: BottomRound { began: Instant::now(), troubles: (0, 0), took: None },
            pauses: Pauses::default(),
            parked: None,
            newest: above,
            waiting: false,
            turns: self.settings.once.then(|| Turns { seen: above, left: BTreeSet::new() }),
            asking: Asking::new(Instant::now()),
            claimed: Claimed::Unsettled,
            took: Duration::ZERO,
            fed: FedMemory::default(),
        }
    }

    /// Decides which older rows are to be seen, before a pass.
    fn set_course(&self, memory: &mut Memory) {
        // A database that comes back from a crash, or from a backup, may have forgotten what was recorded.
        let troubles = (self.control.progress().database_troubles(), self.catalog.generation());
        let BottomRound { began, troubles: before, took } = memory.bottom;
        if let (Some(turns), true) = (&mut memory.turns, troubles.1 != before.1) {
            *turns = Turns { seen: self.settings.above, left: BTreeSet::new() };
        }
        let every = match (&self.settings.fed_from, took) {
            // Another node proves rows of any age, and nothing else tells of them.
            (Some(_), Some(took)) if memory.fed.until.is_none() => {
                (took * ROUNDS_SHARE).max(self.settings.poll).min(BOTTOM_EVERY)
            }
            _ => BOTTOM_EVERY,
        };
        if troubles != before || (began.elapsed() >= every && memory.course.round_is_over()) {
            memory.course.begin_at_the_bottom();
            memory.bottom = BottomRound { began: Instant::now(), troubles, took: None };
        }
        if let Some((lowest, _)) = memory.parked.take_if(|(_, until)| *until <= Instant::now()) {
            memory.course.see_from(lowest);
        }
    }

    /// How long to pause after a pass; `None` where a run with an end has come to it.
    fn conclude(&self, pass: &Pass, memory: &mut Memory, took: Duration) -> Option<Duration> {
        memory.parked = sooner(memory.parked, pass.parked);
        if let Some(turns) = &mut memory.turns {
            // In this order: what is freed now comes back before the flight is seen empty.
            let empty = self.flight.is_empty();
            turns.left.extend(self.flight.take_untried());
            if empty && pass.started == 0 && turns.left.is_empty() && memory.claimed == Claimed::Settled {
                return None;
            }
        } else if !memory.course.round_is_over() {
            // So that it never has the whole of a core.
            return Some((took / 2).min(REST_MOST).min(self.settings.poll));
        }
        memory.bottom.took.get_or_insert(memory.bottom.began.elapsed());
        self.origins.tidy(self.settings.poll);
        memory.pauses.tidy();
        let soon = memory.waiting || self.settings.once;
        Some(if soon { Duration::from_millis(200).min(self.settings.poll) } else { self.settings.poll })
    }

    /// Comes back when there is a row newer than the last pass saw, after so long a rest, or trouble with the table, which the
    /// next pass tells. While batches wait for a session nobody asks: then rows gather, and the next session has more of them.
    async fn news(&self, newest: RecordId, rest: Duration, asking: &mut Asking) {
        tokio::time::sleep(rest).await;
        asking.begin(Instant::now());
        loop {
            tokio::select! {
                () = self.catalog.changed(), if asking.listens() => {
                    asking.told(Instant::now());
                    continue;
                }
                () = tokio::time::sleep_until(asking.due().into()) => {}
            }
            let queue_is_empty = self.jobs.capacity() == self.jobs.max_capacity();
            if queue_is_empty {
                match self.catalog.newest().await {
                    Ok(now) if now <= newest => {}
                    Ok(_) => {
                        // The word of it may have come meanwhile.
                        if self.catalog.changed().now_or_never().is_some() {
                            asking.told(Instant::now());
                        }
                        return asking.found(Instant::now());
                    }
                    Err(_) => return,
                }
            }
            asking.asked(Instant::now(), self.flight.is_empty().then(cpu_time));
        }
    }

    fn ended(&self) -> Ended {
        match self.control.progress().given_up() {
            Some(why) => Ended::OutOfReach(why),
            None => Ended::Stopped,
        }
    }

    /// Goes through a slice of the older rows, and all new ones; with `once`, through all that may have their turn before
    /// them.
    async fn pass(&self, memory: &mut Memory) -> Result<Pass, CatalogError> {
        memory.claimed = self.catalog.claim().await?;
        self.set_course(memory);
        self.control.progress().pass();
        let newest = self.catalog.newest().await?;
        memory.newest = newest;
        let margin = margin(self.catalog.id_step());
        let began = Instant::now();
        if memory.course.round_is_over() || memory.turns.is_some() {
            memory.waiting = false;
        }
        match &memory.turns {
            Some(turns) => memory.course.see_all_at_once(turns.floor()),
            None => memory.course.begin_pass(newest, margin, |id| self.flight.has_row(id)),
        }
        let mut pass = Pass::default();
        let mut batch = GrowingBatch::default();
        while let Some(after) = memory.course.older() {
            let looked = self.look(after, memory, &mut pass, &mut batch).await?;
            memory.course.saw(&looked);
            match &mut memory.turns {
                Some(turns) => {
                    turns.seen = turns.seen.max(looked.until);
                    if turns.left.len() >= LEFT_MOST {
                        turns.left.retain(|id| *id > looked.until || pass.met.contains(id));
                        self.hand_over(&mut batch).await;
                        return Ok(pass);
                    }
                }
                None if began.elapsed() >= SLICE => break,
                None => {}
            }
        }
        if let Some(turns) = &mut memory.turns {
            // What waits no more, somebody else has settled.
            turns.left.retain(|id| pass.met.contains(id));
        } else {
            self.look_at_fed(memory, &mut pass, &mut batch).await?;
            let (mut after, mut ended) = (memory.course.fresh(), false);
            while !ended {
                let looked = self.look(after, memory, &mut pass, &mut batch).await?;
                (after, ended) = (looked.until, looked.ended);
            }
            memory.course.end_pass(newest, margin);
        }
        self.hand_over(&mut batch).await;
        Ok(pass)
    }

    /// Looks at older rows that the node which feeds ours has proven of late, for as long as a slice.
    async fn look_at_fed(
        &self,
        memory: &mut Memory,
        pass: &mut Pass,
        batch: &mut GrowingBatch,
    ) -> Result<(), CatalogError> {
        if self.settings.fed_from.is_none() {
            return Ok(());
        }
        let since = memory.fed.until.map(|until| until - FED_MARGIN);
        let fed = self.catalog.fed_since(since).await?;
        memory.fed.until = fed.as_ref().map(|fed| fed.until);
        let fresh = memory.course.fresh();
        for id in fed.into_iter().flat_map(|fed| fed.ids).filter(|id| *id <= fresh && !self.flight.has_row(*id)) {
            match memory.fed.due.len() < FED_MOST {
                true => drop(memory.fed.due.insert(id)),
                false => memory.course.see_again(id),
            }
        }
        let began = Instant::now();
        while let Some(id) = memory.fed.due.pop_first() {
            let looked = self.look(RecordId(id.0.saturating_sub(1)), memory, pass, batch).await?;
            memory.fed.due = memory.fed.due.split_off(&RecordId(looked.until.0.saturating_add(1)));
            if began.elapsed() >= SLICE {
                break;
            }
        }
        Ok(())
    }

    /// Looks at a page of rows, and takes those into flight that can be.
    async fn look(
        &self,
        after: RecordId,
        memory: &mut Memory,
        pass: &mut Pass,
        batch: &mut GrowingBatch,
    ) -> Result<Looked, CatalogError> {
        self.catalog.give_back(&self.flight.lanes()).await?;
        let mut looked = self.catalog.look(after, PAGE).await?;
        let (rows, mut failed) = self.sort_out(std::mem::take(&mut looked.rows), memory, pass);
        let rows = match self.settings.direction {
            Direction::Push => self.look_at(rows, memory, pass, &mut failed).await,
            // How large they are, their far end says when they are fetched.
            Direction::Pull => rows,
        };
        self.record_failed(failed, memory).await?;
        let together = rows.iter().map(|row| row.bytes).sum();
        for row in rows {
            // Never sit on a batch while waiting for room: the rows that fill the queue may be these very ones.
            let sessions = self.permits.likely();
            let bytes = fair_share(together, sessions).min(self.settings.batch_bytes(sessions));
            let most = (self.settings.batch_files(sessions), bytes);
            if batch.is_full(most, row.bytes) || !self.flight.has_room(row.bytes) {
                self.hand_over(batch).await;
            }
            // The same place may have come up twice in one page.
            if self.flight.has_place(&row.place) {
                self.wait(row.id, memory, pass);
                continue;
            }
            memory.pauses.forget(row.id.0);
            if let Some(turns) = &mut memory.turns {
                turns.left.remove(&row.id);
            }
            memory.course.see_again(row.id);
            let bytes = row.bytes;
            let Some(job) = self.flight.admit(row).await else { continue };
            pass.started += 1;
            batch.push(job, bytes);
        }
        Ok(looked)
    }

    /// The row waits for something that passes soon.
    fn wait(&self, id: RecordId, memory: &mut Memory, pass: &mut Pass) {
        memory.waiting = true;
        memory.course.see_again(id);
        if let Some(turns) = &mut memory.turns {
            turns.left.insert(id);
            pass.met.insert(id);
        }
    }

    /// The row waits until its time comes, or until the next poll. In a run with `once` it has had its turn.
    fn park(&self, id: RecordId, until: Option<Instant>, memory: &mut Memory, pass: &mut Pass) {
        match until {
            Some(until) => pass.park(id, until),
            None => memory.course.see_again(id),
        }
        if let Some(turns) = &mut memory.turns {
            turns.left.remove(&id);
        }
    }

    /// Takes out the rows that are in flight, must wait, or cannot be used.
    fn sort_out(&self, page: Vec<Pending>, memory: &mut Memory, pass: &mut Pass) -> (Vec<Admission>, Vec<FailedRow>) {
        let mut rows = Vec::new();
        let mut failed = Vec::new();
        for pending in page {
            let hold = pending.hold();
            let (id, attempts) = match &pending {
                Pending::Ready(record) => (record.id, record.attempts),
                Pending::Unusable { id, attempts, .. } => (*id, *attempts),
            };
            if self.flight.has_row(id) {
                memory.course.see_again(id);
                continue;
            }
            if let Some(turns) = &memory.turns {
                if !turns.has(id) {
                    continue;
                }
                if turns.left.contains(&id) {
                    pass.met.insert(id);
                }
            }
            let parked = match &pending {
                Pending::Ready(record) => self.origins.hold(&record.source),
                Pending::Unusable { .. } => None,
            };
            let paused = || match memory.turns {
                None => memory.pauses.hold(id.0, attempts, self.settings.poll),
                Some(_) => None,
            };
            if let Some(until) = parked.or_else(paused) {
                self.park(id, Some(until), memory, pass);
                continue;
            }
            let (source, placed) = match pending {
                Pending::Unusable { source, why, .. } => (source, Err(why)),
                Pending::Ready(record) => (Some(record.source.display().to_string()), self.placed(record)),
            };
            match placed {
                Ok((_, place)) if self.flight.has_place(&place) => {
                    tracing::debug!(id = id.0, %place, "Waits for another row of the same place");
                    self.wait(id, memory, pass);
                }
                Ok((record, place)) => {
                    let Record { source, md5, .. } = record;
                    rows.push(Admission { id, attempts, source, md5, place, bytes: 0, hold });
                }
                Err(why) => {
                    let source = source.unwrap_or_else(|| "(no path)".into());
                    let why = format!("its row cannot be used: {why}");
                    failed.push(FailedRow { id, hold, attempts, source, place: None, kind: Failure::Row, why });
                }
            }
        }
        (rows, failed)
    }

    /// The row's place in the archive; the error says why it has none.
    fn placed(&self, record: Record) -> Result<(Record, RemotePath), String> {
        self.settings.sources.admit(&record.source)?;
        let place = place(&record)?;
        let path = archived_path(&self.settings, place.as_str());
        match path.chars().count() > self.catalog.path_limit() {
            true => Err(too_long(&path, self.catalog.path_limit())),
            false => Ok((record, place)),
        }
    }

    /// Looks at the rows' files: gives those that are there, with their sizes. Of the others, those that are at fault
    /// themselves have failed; whose place is in trouble waits with it.
    async fn look_at(
        &self,
        rows: Vec<Admission>,
        memory: &mut Memory,
        pass: &mut Pass,
        failed: &mut Vec<FailedRow>,
    ) -> Vec<Admission> {
        if rows.is_empty() {
            return rows;
        }
        let since = Instant::now();
        let found = look_at(&rows, &self.origins).await;
        let looks: Vec<_> = rows
            .iter()
            .zip(&found)
            .map(|(row, found)| {
                let lack = found.as_ref().err().map(|lack| lack.place.clone());
                Look { source: &row.source, lack, failed_before: row.attempts > 0 }
            })
            .collect();
        let held = self.origins.judge(&looks, since);
        drop(looks);
        let seen = found.len();
        let mut there = Vec::with_capacity(rows.len());
        let mut rows = rows.into_iter();
        for ((row, found), held) in rows.by_ref().take(seen).zip(found).zip(held) {
            match found {
                Ok(bytes) => there.push(Admission { bytes, ..row }),
                Err(_) if held => self.park(row.id, self.origins.hold(&row.source), memory, pass),
                Err(Lack { kind, why, .. }) => {
                    let source = row.source.display().to_string();
                    let Admission { id, attempts, place, hold, .. } = row;
                    failed.push(FailedRow { id, hold, attempts, source, place: Some(place), kind, why });
                }
            }
        }
        // A look that did not come back in time says nothing about those behind it.
        for row in rows {
            match self.origins.hold(&row.source) {
                until @ Some(_) => self.park(row.id, until, memory, pass),
                None => self.wait(row.id, memory, pass),
            }
        }
        if self.permits.likely() > 1 {
            // They spread over the sessions while small ones fill what is left, and no session ends with a large one that
            // the others wait for. Rows of one size keep their order.
            there.sort_by_key(|row| std::cmp::Reverse(row.bytes / LARGE));
        }
        there
    }

    async fn record_failed(&self, failed: Vec<FailedRow>, memory: &mut Memory) -> Result<(), CatalogError> {
        if failed.is_empty() {
            return Ok(());
        }
        let settled: Vec<_> = failed
            .iter()
            .map(|row| {
                let outcome = self.settings.failure(row.kind, row.why.clone());
                Settled { id: row.id, attempts: row.attempts, outcome, hold: row.hold }
            })
            .collect();
        match self.catalog.record(&settled).await {
            // Whoever has them now finds out by himself what is wrong with them.
            Err(CatalogError::Lost(_)) => return Ok(()),
            recorded => recorded?,
        };
        let progress = self.control.progress();
        let mut swept = true;
        let rules = AttemptRules { max_attempts: self.settings.max_attempts, once: self.settings.once };
        for (row, settled) in failed.iter().zip(&settled) {
            // Its next pause begins when it is seen with this failure.
            memory.pauses.forget(row.id.0);
            memory.course.see_again(row.id);
            if let Some(turns) = &mut memory.turns {
                turns.left.remove(&row.id);
            }
            progress.failure(row.kind);
            let Outcome::Failed { why, .. } = &settled.outcome else { continue };
            if rules.tell(progress, settled, &row.source, why)
                && let Some(place) = &row.place
            {
                self.strays.give_up_row(row.id, place);
                swept = false;
            }
        }
        if !swept {
            // With no work, so that somebody removes what there is of these.
            let _ = self.jobs.send(Vec::new()).await;
        }
        Ok(())
    }

    async fn hand_over(&self, batch: &mut GrowingBatch) {
        let jobs = std::mem::take(batch).jobs;
        if !jobs.is_empty() && self.jobs.send(jobs).await.is_err() {
            self.control.progress().give_up("All worker threads have ended, which is a bug; please report it");
            self.control.stop().stop();
        }
    }
}

/// How far below the newest row the new ones begin where ids grow in steps. Those of a cluster's nodes are not even
/// committed in order.
fn margin(step: i64) -> i64 {
    let wider = if step > 1 { 10 } else { 1 };
    MARGIN.saturating_mul(step.max(1)).saturating_mul(wider)
}

/// Jobs on their way into one session.
#[derive(Default)]
struct GrowingBatch {
    jobs: Vec<Job>,
    bytes: u64,
}

impl GrowingBatch {
    /// Whether it has as many files, or bytes with the next one, as there may be.
    fn is_full(&self, most: (usize, u64), next: u64) -> bool {
        self.jobs.len() >= most.0 || (!self.jobs.is_empty() && self.bytes + next > most.1)
    }

    fn push(&mut self, job: Job, bytes: u64) {
        self.jobs.push(job);
        self.bytes += bytes;
    }
}

/// Bytes of a batch with which several sessions have done so many bytes at about the same time.
fn fair_share(together: u64, sessions: usize) -> u64 {
    if sessions > 1 { (together / (2 * sessions as u64)).max(LARGE) } else { u64::MAX }
}

/// Looks at the rows' files, in their order, on a thread of its own. What has not been seen in time is left out.
async fn look_at(rows: &[Admission], origins: &Arc<Origins>) -> Vec<Result<u64, Lack>> {
    let paths: Vec<_> = rows.iter().map(|row| row.source.clone()).collect();
    let (seen, mut looks) = mpsc::channel(paths.len().max(1));
    let eyes = origins.clone();
    tokio::task::spawn_blocking(move || {
        for look in eyes.look_at(paths) {
            // Room is there for all of them; when nobody listens any more, a look has taken too long.
            if seen.try_send(look.map(|meta| meta.len())).is_err() {
                break;
            }
        }
    });
    let mut found = Vec::with_capacity(rows.len());
    let all = async {
        while let Some(look) = looks.recv().await {
            found.push(look);
        }
    };
    let _ = tokio::time::timeout(origins.limit() + LOOK_LIMIT, all).await;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_cluster_have_more_time_to_appear() {
        assert_eq!([margin(1), margin(0), margin(3)], [1000, 1000, 30_000]);
        assert_eq!(margin(i64::MAX), i64::MAX);
    }

    #[test]
    fn sessions_share_what_waits() {
        assert_eq!(fair_share(1_600_000_000, 8), 100_000_000);
        assert_eq!(fair_share(1000, 8), LARGE);
        assert_eq!(fair_share(1_600_000_000, 1), u64::MAX);
    }
}
