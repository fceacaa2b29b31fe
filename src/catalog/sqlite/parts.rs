//! The parts of the table, and what was found in each: remembered, so that nobody goes through all of a long table time and
//! again. A part is looked at anew once we have written to it, or a row of it came up that was not known to wait, and else
//! after a while; what comes at the end always.

mod look;

use super::SqliteCatalog;
use super::walk::{BOTTOM, LONGEST_REST, LOOK, reach_of_a_look};
use crate::catalog::{ArchiveStats, CatalogError, RecordId};
use crate::clock::unix_now;
pub(super) use look::{HAS_TIMECODE, SINCE, Tallies, TimecodeTally, prunable};
use look::{PartFound, PartLook};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A part in which nothing waits is looked at again after so long, for what others may have put back in it.
const SETTLED: Duration = Duration::from_secs(3600);
/// One in which something waits, after the first of these, and after twice as long each time that it is as it was, up to
/// the second: others may work on it.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(600)];
/// How often the parts are looked at anew when the file is replaced meanwhile.
const RACES: usize = 3;

/// Ids above the first number and up to the second.
pub(crate) type IdRange = [i64; 2];

/// What is remembered of the table.
#[derive(Default)]
pub(super) struct Parts {
    /// Of which file, see [`SqliteCatalog::generation`].
    generation: u64,
    /// In order of id, without gaps.
    parts: Vec<Part>,
}

struct Part {
    ids: IdRange,
    /// It has all the rows that it may; else it is the last one.
    full: bool,
    found: PartFound,
    again: Instant,
    pause: Duration,
}

/// Which parts are to be looked at anew, by what was heard of their rows.
#[derive(Clone, Default)]
pub(super) struct Stirred(Arc<StirredRows>);

#[derive(Default)]
struct StirredRows {
    /// Ids, divided by the rows of a part, of rows that were written to.
    written: Mutex<BTreeSet<i64>>,
    /// And of rows that were found waiting.
    waiting: Mutex<BTreeSet<i64>>,
    /// How many looks were taken, for tests.
    looks: AtomicU64,
}

fn locked(set: &Mutex<BTreeSet<i64>>) -> std::sync::MutexGuard<'_, BTreeSet<i64>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stirred {
    /// These rows were written to.
    pub(super) fn wrote(&self, ids: impl Iterator<Item = RecordId>) {
        locked(&self.0.written).extend(ids.map(|id| id.0.div_euclid(LOOK)));
    }

    /// All in these ranges is to be looked at.
    pub(super) fn look_again_at(&self, ranges: &[IdRange]) {
        let first = |after: i64| RecordId(after.saturating_add(1));
        // The bottom is below all rows: the last one of a part is always there.
        let ends = ranges.iter().flat_map(|[after, last]| [first(*after).max(RecordId(0)), RecordId(*last)]);
        self.wrote(ends);
    }

    /// These rows wait.
    pub(super) fn found_waiting(&self, ids: impl Iterator<Item = RecordId>) {
        locked(&self.0.waiting).extend(ids.map(|id| id.0.div_euclid(LOOK)));
    }

    fn take(&self) -> [BTreeSet<i64>; 2] {
        [&self.0.written, &self.0.waiting].map(|set| std::mem::take(&mut *locked(set)))
    }

    fn give_back(&self, [written, waiting]: [BTreeSet<i64>; 2]) {
        locked(&self.0.written).extend(written);
        locked(&self.0.waiting).extend(waiting);
    }
}

fn has_of(set: &BTreeSet<i64>, [after, last]: IdRange) -> bool {
    let first = after.saturating_add(1).div_euclid(LOOK);
    set.range(first..=last.div_euclid(LOOK)).next().is_some()
}

impl Parts {
    /// Which parts are to be looked at again now, apart from what is at the end.
    fn due(&self, [written, waiting]: &[BTreeSet<i64>; 2], now: Instant) -> Vec<usize> {
        let due = |part: &Part| {
            part.again <= now || has_of(written, part.ids) || (part.found.waiting == 0 && has_of(waiting, part.ids))
        };
        (0..self.parts.len()).filter(|&at| self.parts[at].full && due(&self.parts[at])).collect()
    }

    fn put(&mut self, at: usize, found: PartFound) {
        let part = &mut self.parts[at];
        part.pause = match found.is_settled() {
            true => SETTLED,
            false if found == part.found => (part.pause * 2).clamp(PAUSES[0], PAUSES[1]),
            false => PAUSES[0],
        };
        part.again = Instant::now() + part.pause;
        part.found = found;
    }

    fn push(&mut self, ids: IdRange, full: bool, found: PartFound) {
        self.parts.push(Part { ids, full, found: PartFound::default(), again: Instant::now(), pause: PAUSES[0] });
        self.put(self.parts.len() - 1, found);
    }

    /// Takes the last part away if it may have got more rows; from where on the end is to be looked at.
    fn open_end(&mut self) -> i64 {
        self.parts.pop_if(|part| !part.full);
        self.parts.last().map_or(BOTTOM.0, |part| part.ids[1])
    }

    /// Up to which id the parts reach.
    pub(super) fn end(&self) -> i64 {
        self.parts.last().map_or(BOTTOM.0, |part| part.ids[1])
    }

    /// All parts.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (IdRange, &PartFound)> {
        self.parts.iter().map(|part| (part.ids, &part.found))
    }

    /// How the files of each timecode stand.
    pub(super) fn tallies(&self) -> Tallies {
        let mut all = Tallies::new();
        for tally in self.parts.iter().flat_map(|part| &part.found.tallies) {
            all.entry(*tally.0).or_default().add(tally.1);
        }
        all
    }

    /// The parts that have files of these timecodes.
    pub(super) fn with_timecodes(&self, timecodes: &BTreeSet<i64>) -> Vec<IdRange> {
        let has = |found: &PartFound| found.tallies.keys().any(|timecode| timecodes.contains(timecode));
        self.iter().filter(|(_, found)| has(found)).map(|(ids, _)| ids).collect()
    }

    fn stats(&self) -> ArchiveStats {
        let found = || self.parts.iter().map(|part| &part.found);
        let oldest = found().filter_map(|found| found.oldest).reduce(f64::min);
        // Of those of one time the one registered last.
        let latest = |of: fn(&PartFound) -> &Option<(f64, String)>| {
            let latest = found().filter_map(|found| of(found).as_ref()).max_by(|one, other| one.0.total_cmp(&other.0));
            latest.map(|(_, path)| path.clone()).unwrap_or_default()
        };
        ArchiveStats {
            finalized_until: oldest.map_or_else(unix_now, |oldest| oldest - 1.0),
            num_files: found().map(|found| found.files).sum(),
            uncopied_files: found().map(|found| found.uncopied).sum(),
            last_file_added: latest(|found| &found.added),
            last_file_copied: latest(|found| &found.copied),
        }
    }
}

impl SqliteCatalog {
    /// What SupRsync publishes about the archive. Last is what has the latest timestamp, also among the files that are copied:
    /// not what was copied last.
    pub async fn archive_stats(&self) -> Result<ArchiveStats, CatalogError> {
        self.survey(Parts::stats).await
    }

    /// Brings what is remembered of the table up to date, in short looks between which others have their turn, and has it
    /// read.
    pub(super) async fn survey<T>(&self, read: impl FnOnce(&Parts) -> T) -> Result<T, CatalogError> {
        let mut parts = self.parts.lock().await;
        for _ in 0..RACES {
            let generation = self.generation.load(std::sync::atomic::Ordering::Acquire);
            if parts.generation != generation {
                *parts = Parts { generation, ..Parts::default() };
            }
            self.look_again(&mut parts).await?;
            self.look_at_end(&mut parts).await?;
            if self.generation.load(std::sync::atomic::Ordering::Acquire) == generation {
                break;
            }
        }
        Ok(read(&parts))
    }

    async fn look_again(&self, parts: &mut Parts) -> Result<(), CatalogError> {
        let stirred = self.stirred.take();
        for at in parts.due(&stirred, Instant::now()) {
            match self.look_at_part(parts.parts[at].ids).await {
                Ok(found) => parts.put(at, found),
                Err(error) => {
                    self.stirred.give_back(stirred);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn look_at_end(&self, parts: &mut Parts) -> Result<(), CatalogError> {
        let mut after = parts.open_end();
        loop {
            let reached = self.run(move |connection| reach_of_a_look(connection, after)).await?;
            let Some((last, ended)) = reached else { return Ok(()) };
            let found = self.look_at_part([after, last]).await?;
            parts.push([after, last], !ended, found);
            if ended {
                return Ok(());
            }
            after = last;
        }
    }

    async fn look_at_part(&self, ids: IdRange) -> Result<PartFound, CatalogError> {
        let look = self.part_look();
        self.stirred.0.looks.fetch_add(1, Relaxed);
        let began = Instant::now();
        let found = self.run(move |connection| look.look(connection, ids)).await?;
        // So that it never has the whole of a core.
        tokio::time::sleep((began.elapsed() / 2).min(LONGEST_REST)).await;
        Ok(found)
    }

    pub(super) fn part_look(&self) -> PartLook {
        PartLook::new(&self.archive, self.not_ignored, self.has_deletable)
    }

    /// How many looks at parts were taken so far.
    pub fn looks(&self) -> u64 {
        self.stirred.0.looks.load(Relaxed)
    }
}

/// Adds up what is counted by timecode.
pub(super) fn add_up(all: &mut Tallies, more: &Tallies) {
    for (timecode, tally) in more {
        all.entry(*timecode).or_default().add(tally);
    }
}
