//! What is on its way: rows, the places they go to, and how much of both may be.

use super::headway::Headway;
use super::layout::RemotePath;
use crate::catalog::{Hold, Md5, RecordId};
use crate::status::Progress;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in pieces of this size.
const PIECE: u64 = 64 * 1024;

/// A row on its way. While it lives, nobody else takes up the row or its place.
pub(super) struct Job {
    pub(super) id: RecordId,
    pub(super) attempts: i64,
    pub(super) source: PathBuf,
    pub(super) md5: Md5,
    /// How large its file was when it was looked at.
    pub(super) bytes: u64,
    /// Where the layout wants it; the copy may end up under a numbered variant.
    pub(super) place: RemotePath,
    /// Which variant is tried: 0 for the name itself, then `.1`, `.2` …
    pub(super) variant: u32,
    /// What stands at its place is an earlier copy of its file, and is to be replaced.
    pub(super) replaces: bool,
    /// How its file has come on.
    pub(super) headway: Headway,
    /// Its outcome has gone to be recorded.
    settled: AtomicBool,
    recalled: Arc<AtomicBool>,
    ticket: Arc<Ticket>,
}

impl Job {
    /// A session goes on with its file behind so many bytes of `len`.
    pub(super) fn resumes(&self, bytes: u64, len: u64) {
        if self.headway.found(bytes) {
            let percent = (bytes.saturating_mul(100) / len.max(1)).min(100);
            tracing::info!(event = "resuming", id = self.id.0, "Resuming {} at {percent} %", self.source.display());
        }
    }

    /// It has had its turn: recorded, or held back with its place. Dropped without, its row comes back untried.
    pub(super) fn had_its_turn(&self) {
        self.ticket.had_its_turn();
    }

    /// It is not wanted any more.
    pub(super) fn is_recalled(&self) -> bool {
        self.recalled.load(Relaxed)
    }

    /// Its outcome goes to be recorded, and with it what keeps its row from being taken up again; `None` if it has gone
    /// already.
    pub(super) fn settle(&self) -> Option<Arc<Ticket>> {
        (!self.settled.swap(true, Relaxed)).then(|| self.ticket.clone())
    }
}

/// Rows and places in flight, with the permits that bound them.
pub(super) struct Flight {
    in_flight: Mutex<InFlight>,
    files: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
    most_pieces: u32,
    freed: Notify,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct InFlight {
    /// Rows on their way, each with whether it was recalled.
    rows: HashMap<RecordId, Arc<AtomicBool>>,
    places: HashSet<RemotePath>,
    /// How many rows of each lane.
    lanes: BTreeMap<u32, usize>,
    /// Rows that came back untried since they were last asked for.
    untried: BTreeSet<RecordId>,
    /// Rows that are not to be taken up.
    recalled: HashSet<RecordId>,
}

/// What a job holds, and its outcome until that is recorded; given back when both are done.
pub(super) struct Ticket {
    flight: Arc<Flight>,
    id: RecordId,
    hold: Hold,
    place: RemotePath,
    since: Instant,
    over: AtomicBool,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Ticket {
    /// How long the job has been on its way.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// By which the row was ours when it was taken up.
    pub(super) fn hold(&self) -> Hold {
        self.hold
    }

    /// The row has had its turn, see [`Job::had_its_turn`].
    pub(super) fn had_its_turn(&self) {
        self.over.store(true, Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut in_flight = self.flight.lock();
        in_flight.rows.remove(&self.id);
        in_flight.places.remove(&self.place);
        if let Entry::Occupied(mut rows) = in_flight.lanes.entry(self.hold.lane) {
            *rows.get_mut() -= 1;
            if *rows.get() == 0 {
                rows.remove();
            }
        }
        if !self.over.load(Relaxed) {
            in_flight.untried.insert(self.id);
        }
        drop(in_flight);
        self.flight.progress.settled();
        self.flight.freed.notify_waiters();
    }
}

/// A row that may be taken into flight.
pub(super) struct Admission {
    pub(super) id: RecordId,
    pub(super) attempts: i64,
    pub(super) source: PathBuf,
    pub(super) md5: Md5,
    pub(super) place: RemotePath,
    pub(super) bytes: u64,
    pub(super) hold: Hold,
}

impl Flight {
    pub(super) fn new(files: usize, bytes: u64, progress: Arc<Progress>) -> Self {
        let most_pieces = u32::try_from(bytes / PIECE).unwrap_or(u32::MAX).clamp(1, Semaphore::MAX_PERMITS as u32);
        Self {
            in_flight: Mutex::default(),
            files: Arc::new(Semaphore::new(files.clamp(1, Semaphore::MAX_PERMITS))),
            pieces: Arc::new(Semaphore::new(most_pieces as usize)),
            most_pieces,
            freed: Notify::new(),
            progress,
        }
    }

    /// True when the row is on its way already.
    pub(super) fn has_row(&self, id: RecordId) -> bool {
        self.lock().rows.contains_key(&id)
    }

    /// Takes rows back: none of them is taken up any more, and those on their way are left. Whether some still are.
    pub(super) fn recall(&self, rows: &HashSet<RecordId>) -> bool {
        let mut in_flight = self.lock();
        in_flight.recalled.extend(rows);
        let mut on_their_way = in_flight.rows.iter().filter(|(id, _)| rows.contains(id)).peekable();
        let some = on_their_way.peek().is_some();
        on_their_way.for_each(|(_, recalled)| recalled.store(true, Relaxed));
        some
    }

    /// True when another row is on its way to this place: that must be settled first, since only then is it known whether the
    /// place is taken.
    pub(super) fn has_place(&self, place: &RemotePath) -> bool {
        self.lock().places.contains(place)
    }

    /// True when a row with a file of this size could be admitted at once.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.files.available_permits() > 0 && self.pieces.available_permits() >= self.pieces_of(bytes) as usize
    }

    fn pieces_of(&self, bytes: u64) -> u32 {
        u32::try_from(bytes / PIECE + 1).unwrap_or(u32::MAX).min(self.most_pieces)
    }

    /// The lanes of the rows that are on their way.
    pub(super) fn lanes(&self) -> BTreeSet<u32> {
        self.lock().lanes.keys().copied().collect()
    }

    /// How many rows are on their way.
    pub(super) fn rows(&self) -> usize {
        self.lock().rows.len()
    }

    /// True when nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Waits for room and takes a row into flight. `None` if it was recalled.
    pub(super) async fn admit(self: &Arc<Self>, row: Admission) -> Option<Job> {
        let row_bytes = row.bytes;
        let pieces = self.pieces_of(row_bytes);
        let file = self.files.clone().acquire_owned().await.ok()?;
        let bytes = self.pieces.clone().acquire_many_owned(pieces).await.ok()?;
        let Admission { id, attempts, source, md5, place, hold, .. } = row;
        let recalled = Arc::default();
        {
            let mut in_flight = self.lock();
            if in_flight.recalled.contains(&id) {
                return None;
            }
            in_flight.rows.insert(id, Arc::clone(&recalled));
            in_flight.places.insert(place.clone());
            *in_flight.lanes.entry(hold.lane).or_default() += 1;
        }
        self.progress.admitted(row_bytes);
        let (over, settled) = Default::default();
        let ticket = Ticket {
            flight: self.clone(),
            id,
            hold,
            place: place.clone(),
            since: Instant::now(),
            over,
            _permits: [file, bytes],
        };
        let ticket = Arc::new(ticket);
        let (variant, replaces, headway) = Default::default();
        Some(Job {
            id,
            attempts,
            source,
            md5,
            bytes: row_bytes,
            place,
            variant,
            replaces,
            headway,
            settled,
            recalled,
            ticket,
        })
    }

    /// The rows that came back untried since this was asked last.
    pub(super) fn take_untried(&self) -> BTreeSet<RecordId> {
        std::mem::take(&mut self.lock().untried)
    }

    /// Waits until a row is in flight no more. Register before looking at what is.
    pub(super) fn freeing(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    fn lock(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
