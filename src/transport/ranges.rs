//! One large file over several connections, each with ranges of it.
//!
//! A stock sshd takes no more of one connection than a window of its channel per round trip, so over a long link a
//! connection alone uses a part of it. How many a file is worth follows from the round trip, before its first byte.

use super::ssh::sftp::{Pieces, ReadRanges, SftpError};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a channel that a stock sshd lets be under way.
const WINDOW: u64 = 2 << 20;
/// Bytes per second of the fastest line that is reckoned with, a gigabit's and some. A connection that may move as many is not
/// held back by round trips.
const LINE: f64 = 150e6;
/// Bytes that each further connection is to have its part of at least: while it logs in, the first one moves ten windows.
const WORTH: u64 = 8 << 20;
/// Connections at most. Of those that have yet to log in an sshd with its defaults turns some away from the tenth on.
const CONNECTIONS_MOST: usize = 8;
/// Bytes per second at which no receiver sums a file, by far: one who begins at its beginning when so much of the end is missing is
/// still behind those who write it, also as they become fewer.
const SUMMED: f64 = 2e9;
/// What part of the ranges that somebody is at is not there yet, at most, when all of them soon are.
const STILL_MISSING: f64 = 0.75;
/// Bytes of one range.
const RANGE: std::ops::RangeInclusive<u64> = 4 << 20..=64 << 20;

/// Bytes per second that a connection moves at most over a link with this round trip.
pub(crate) fn ceiling(round_trip: Duration) -> f64 {
    WINDOW as f64 / round_trip.as_secs_f64().max(1e-6)
}

/// How many connections so many bytes are worth over a link with this round trip, if one of them may be read or written by
/// several.
pub(crate) fn connections_worth(bytes: u64, round_trip: Duration) -> usize {
    let for_line = (LINE / ceiling(round_trip)).ceil() as usize;
    let for_bytes = usize::try_from(bytes / WORTH).unwrap_or(usize::MAX);
    for_line.min(for_bytes).clamp(1, CONNECTIONS_MOST)
}

/// The ranges of a file that several write, from when it is known that they are to until all have left.
pub(crate) struct Ranges {
    len: u64,
    /// How many are to write.
    connections: usize,
    state: Mutex<RangesState>,
    changed: Condvar,
}

#[derive(Default)]
struct RangesState {
    stage: Admittance,
    /// Where the next range begins that nobody had.
    next: u64,
    /// What was missing of ranges when those at them broke off.
    returned: Vec<Range<u64>>,
    /// The ranges that somebody is at.
    at: Vec<Range<u64>>,
    /// Until a receiver begins to sum at the earliest, from when somebody leaves in haste for its session.
    way_there: Duration,
    /// Who may come.
    seats: usize,
    at_work: usize,
    /// Those of them who have nothing to do, and wait for what others may give back.
    waiting: usize,
    /// Somebody broke off.
    hurt: bool,
    /// When the first one began, and when the last one left.
    began: Option<Instant>,
    left: Option<Instant>,
}

/// How long one who writes stays when every range has been given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterStay {
    /// Not at all.
    Leaves,
    /// Until nobody can give one back any more.
    Waits,
    /// It leaves even before: others write the rest while the file's beginning is summed.
    Hastens,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Admittance {
    /// The file is not there yet.
    #[default]
    Expected,
    Open,
    /// Nobody may join any more.
    Closed,
    /// Nobody is to go on, either.
    Over,
}

/// What has become of a file once all have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is whole, and all have closed it in order: nobody writes to it any more.
    Whole,
    /// It is whole; what somebody wrote who broke off may still be on its way.
    Mended,
    /// Something is missing.
    Partly,
}

/// Why somebody broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RangeError {
    /// The far end's file, or the way there.
    #[error("{0}")]
    Far(SftpError),
    /// The file here; nobody can go on.
    #[error("{0}")]
    Here(io::Error),
    /// Told to stop.
    #[error("the work is to end")]
    Ended,
}

impl RangeError {
    /// The connection broke, which says nothing of the next one.
    pub(crate) fn is_of_the_line(&self) -> bool {
        matches!(self, Self::Far(error) if error.is_of_the_line())
    }
}

impl Ranges {
    /// Of a file of so many bytes, for so many connections.
    pub(crate) fn new(len: u64, connections: usize) -> Self {
        let state = RangesState { seats: connections.saturating_sub(1), ..RangesState::default() };
        Self { len, connections: connections.max(1), state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn lock(&self) -> MutexGuard<'_, RangesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut RangesState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn has_work(&self, state: &RangesState) -> bool {
        matches!(state.stage, Admittance::Expected | Admittance::Open)
            && (state.next < self.len || !state.returned.is_empty())
    }

    /// Somebody comes to help, if one more is to. Who fails on the way leaves the place empty: another would most likely fail,
    /// too.
    pub(crate) fn take_seat(&self) -> bool {
        let mut state = self.lock();
        let welcome = state.seats > 0 && self.has_work(&state);
        state.seats -= usize::from(welcome);
        welcome
    }

    /// The file is there: others may write it.
    pub(crate) fn open(&self) {
        self.change(|state| {
            state.stage = Admittance::Open;
            state.began.get_or_insert_with(Instant::now);
        });
    }

    /// The first one is at work: the file is there.
    pub(crate) fn begin(&self) -> RangeWriter<'_> {
        self.open();
        self.one_more(WriterStay::Waits)
    }

    /// The first one is at work, and leaves for the session that proves the file when what is left is soon written by others.
    pub(crate) fn begin_in_haste(&self, round_trip: Duration) -> RangeWriter<'_> {
        self.open();
        self.change(|state| state.way_there = round_trip / 2);
        self.one_more(WriterStay::Hastens)
    }

    fn one_more(&self, staying: WriterStay) -> RangeWriter<'_> {
        self.change(|state| state.at_work += 1);
        RangeWriter { ranges: self, range: None, moved: 0, staying }
    }

    /// Waits until the file is there; `None` where no help is needed any more. Whoever joins is waited for.
    pub(crate) fn join(&self) -> Option<RangeWriter<'_>> {
        let mut state = self.lock();
        while state.stage == Admittance::Expected {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.has_work(&state).then(|| {
            state.at_work += 1;
            RangeWriter { ranges: self, range: None, moved: 0, staying: WriterStay::Leaves }
        })
    }

    /// Somebody is at work on a file that is there, and waits for what others may leave; `None` where no help is needed any
    /// more.
    pub(crate) fn come(&self) -> Option<RangeWriter<'_>> {
        let mut state = self.lock();
        if state.stage == Admittance::Expected {
            state.stage = Admittance::Open;
        }
        self.has_work(&state).then(|| {
            state.at_work += 1;
            state.began.get_or_insert_with(Instant::now);
            RangeWriter { ranges: self, range: None, moved: 0, staying: WriterStay::Waits }
        })
    }

    /// Bytes from the beginning of the file that are all there.
    pub(crate) fn front(&self) -> u64 {
        self.lock().front()
    }

    /// Nobody is to join or go on.
    pub(crate) fn end(&self) {
        self.change(|state| state.stage = Admittance::Over);
    }

    /// Waits until all have left. Each is held to its connection's own limits.
    pub(crate) fn finish(&self) -> Written {
        let mut state = self.lock();
        if state.stage != Admittance::Over {
            state.stage = Admittance::Closed;
        }
        self.changed.notify_all();
        while state.at_work > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.next >= self.len && state.returned.is_empty() {
            true if state.hurt => Written::Mended,
            true => Written::Whole,
            false => Written::Partly,
        }
    }

    /// Bytes per second of all together; `None` while nobody writes, or as long as none has left.
    pub(crate) fn rate(&self) -> Option<f64> {
        let state = self.lock();
        let took = state.left?.saturating_duration_since(state.began?);
        Some(self.len as f64 / took.as_secs_f64().max(1e-6))
    }

    /// Whether others have the rest written by the time that a receiver has summed what stands before it.
    fn is_nearly_written(&self, state: &RangesState) -> bool {
        let others = state.at_work > 1 + state.waiting && state.returned.is_empty();
        let front = state.front();
        let rate = state.began.map_or(0.0, |began| front as f64 / began.elapsed().as_secs_f64().max(1e-6));
        // Of the ranges that somebody is at a part is there already.
        let under_way: u64 = state.at.iter().map(|range| range.end - range.start).sum();
        let missing = (self.len - state.next) as f64 + under_way as f64 * STILL_MISSING;
        let before = front as f64 / SUMMED + state.way_there.as_secs_f64();
        others && missing < self.len as f64 / 2.0 && missing < rate * before
    }

    /// The next range. Large ones at first, since a connection rests for a round trip between two, and small ones in the end,
    /// for all to end together.
    fn take(&self, staying: WriterStay) -> Option<Range<u64>> {
        let mut state = self.lock();
        loop {
            if state.stage == Admittance::Over || staying == WriterStay::Hastens && self.is_nearly_written(&state) {
                return None;
            }
            if let Some(range) = state.returned.pop() {
                state.at.push(range.clone());
                return Some(range);
            }
            if state.next < self.len {
                let left = self.len - state.next;
                let share = left / (2 * self.connections as u64);
                let begin = state.next;
                state.next += share.clamp(*RANGE.start(), *RANGE.end()).min(left);
                let range = begin..state.next;
                state.at.push(range.clone());
                return Some(range);
            }
            if staying == WriterStay::Leaves || state.at_work <= 1 + state.waiting {
                return None;
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }
}

/// One who writes. What it has not finished when it leaves, others take up.
pub(crate) struct RangeWriter<'a> {
    ranges: &'a Ranges,
    range: Option<Range<u64>>,
    /// Bytes at the beginning of it that have been moved for certain.
    moved: u64,
    staying: WriterStay,
}

impl RangesState {
    /// Bytes from the beginning of the file that are all there.
    fn front(&self) -> u64 {
        let missing = self.at.iter().chain(&self.returned).map(|range| range.start);
        missing.min().unwrap_or(self.next).min(self.next)
    }

    /// Nobody is at this range any more.
    fn leave(&mut self, range: &Range<u64>) {
        self.at.retain(|at| at.start != range.start);
    }
}

impl RangeWriter<'_> {
    fn begin_range(&mut self, range: &Range<u64>) {
        (self.range, self.moved) = (Some(range.clone()), 0);
    }

    /// The range is there.
    fn done(&mut self) {
        if let Some(range) = self.range.take() {
            self.ranges.change(|state| state.leave(&range));
        }
    }

    /// Writes ranges of `source` until none is left, and closes the file. `moved` hears of bytes, and says whether to go on.
    /// Returns how many were written.
    pub(crate) fn write(
        mut self,
        source: &mut (impl Read + Seek),
        pieces: Pieces<'_>,
        moved: &mut dyn FnMut(usize) -> bool,
    ) -> Result<u64, RangeError> {
        let written = self.write_all(source, pieces, moved);
        match &written {
            Ok(_) => self.range = None,
            Err(RangeError::Far(_)) => self.ranges.change(|state| state.hurt = true),
            Err(RangeError::Here(_) | RangeError::Ended) => self.ranges.end(),
        }
        written
    }

    /// Reads ranges of a file over there into one here until none is left. `moved` and what is returned are as with
    /// [`RangeWriter::write`].
    pub(crate) fn fetch(
        mut self,
        mut there: ReadRanges<'_>,
        here: &File,
        moved: &mut dyn FnMut(usize) -> bool,
    ) -> Result<u64, RangeError> {
        let fetched = self.fetch_all(&mut there, here, moved);
        match &fetched {
            Ok(_) => self.range = None,
            Err(RangeError::Far(_)) => self.ranges.change(|state| state.hurt = true),
            Err(RangeError::Here(_) | RangeError::Ended) => self.ranges.end(),
        }
        let total = fetched?;
        there.close().map_err(RangeError::Far)?;
        Ok(total)
    }

    fn fetch_all(
        &mut self,
        there: &mut ReadRanges<'_>,
        here: &File,
        moved: &mut dyn FnMut(usize) -> bool,
    ) -> Result<u64, RangeError> {
        let mut total = 0;
        while let Some(range) = self.ranges.take(self.staying) {
            self.begin_range(&range);
            let (moved_of_it, mut ended) = (&mut self.moved, false);
            let mut each = |bytes: &[u8]| {
                here.write_all_at(bytes, range.start + *moved_of_it)?;
                *moved_of_it += bytes.len() as u64;
                ended = !moved(bytes.len());
                if ended { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            };
            let read = there.read_at(range.clone(), &mut each).map_err(RangeError::Far)?;
            read.map_err(|error| if ended { RangeError::Ended } else { RangeError::Here(error) })?;
            total += range.end - range.start;
            self.done();
        }
        Ok(total)
    }

    fn write_all(
        &mut self,
        source: &mut (impl Read + Seek),
        mut pieces: Pieces<'_>,
        moved: &mut dyn FnMut(usize) -> bool,
    ) -> Result<u64, RangeError> {
        let mut total = 0;
        while let Some(range) = self.ranges.take(self.staying) {
            self.begin_range(&range);
            source.seek(SeekFrom::Start(range.start)).map_err(RangeError::Here)?;
            let mut left = range.end - range.start;
            let mut ended = false;
            let mut next = |buffer: &mut [u8]| {
                let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let n = source.read(&mut buffer[..most])?;
                left -= n as u64;
                if most > 0 && n == 0 {
                    return Err(io::Error::other("it became shorter while it was read"));
                }
                ended = n > 0 && !moved(n);
                if ended { Err(io::ErrorKind::Interrupted.into()) } else { Ok(n) }
            };
            let written = pieces.write_at(range.start, &mut next, &mut self.moved).map_err(RangeError::Far)?;
            written.map_err(|error| if ended { RangeError::Ended } else { RangeError::Here(error) })?;
            total += self.moved;
            self.done();
        }
        pieces.close().map_err(RangeError::Far)?;
        Ok(total)
    }
}

impl Drop for RangeWriter<'_> {
    fn drop(&mut self) {
        let range = self.range.take();
        self.ranges.change(|state| {
            state.at_work -= 1;
            state.left = Some(Instant::now());
            state.hurt |= range.is_some();
            range.iter().for_each(|range| state.leave(range));
            let rest = range.map(|range| range.start + self.moved..range.end);
            state.returned.extend(rest.filter(|rest| !rest.is_empty()));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// All that are left, one after another.
    fn take_all(ranges: &Ranges) -> Vec<Range<u64>> {
        let written = std::iter::from_fn(|| ranges.take(WriterStay::Leaves));
        written.inspect(|range| ranges.change(|state| state.leave(range))).collect()
    }

    #[test]
    fn a_long_link_is_worth_several_connections_and_a_short_one_is_not() {
        let worth = |mib: u64, millis| connections_worth(mib * MIB, Duration::from_millis(millis));
        assert_eq!([worth(512, 0), worth(512, 1), worth(512, 10), worth(512, 30)], [1, 1, 1, 3]);
        assert_eq!(
            [worth(512, 100), worth(1 << 20, 300), worth(64, 100), worth(20, 100), worth(1, 100)],
            [8, 8, 8, 2, 1]
        );
    }

    #[test]
    fn every_byte_is_in_one_range() {
        for (len, connections) in [(0, 1), (1, 8), (512 * MIB + 7, 8), (5 * MIB, 2)] {
            let ranges = Ranges::new(len, connections);
            let mut at = 0;
            for range in take_all(&ranges) {
                assert_eq!(range.start, at);
                assert!(range.end - range.start <= *RANGE.end());
                at = range.end;
            }
            assert_eq!(at, len);
        }
    }

    #[test]
    fn a_file_is_whole_only_if_all_left_in_order() {
        let ranges = Ranges::new(MIB, 3);
        let (first, second) = (ranges.begin(), ranges.join().unwrap());
        take_all(&ranges);
        drop((first, second));
        assert_eq!(ranges.finish(), Written::Whole);
        assert!(ranges.join().is_none(), "it is closed");
        // A range that nobody took.
        assert_eq!(Ranges::new(MIB, 1).finish(), Written::Partly);
    }

    #[test]
    fn what_one_leaves_another_takes_up() {
        let ranges = Ranges::new(40 * MIB, 2);
        let (first, mut second) = (ranges.begin(), ranges.join().unwrap());
        second.range = ranges.take(WriterStay::Leaves);
        let left = second.range.clone().unwrap();
        take_all(&ranges);
        drop(second);
        assert_eq!(ranges.take(WriterStay::Waits), Some(left.clone()));
        assert_eq!(ranges.take(WriterStay::Waits), None);
        drop(first);
        assert_eq!(ranges.finish(), Written::Mended);
        let ranges = Ranges::new(40 * MIB, 2);
        let mut alone = ranges.begin();
        alone.range = ranges.take(WriterStay::Waits);
        take_all(&ranges);
        drop(alone);
        assert_eq!(ranges.finish(), Written::Partly);
    }

    #[test]
    fn what_one_had_moved_before_it_broke_off_is_not_moved_again() {
        let ranges = Ranges::new(40 * MIB, 2);
        let (first, mut second) = (ranges.begin(), ranges.join().unwrap());
        let range = ranges.take(WriterStay::Leaves).unwrap();
        second.begin_range(&range);
        second.moved = 3 * MIB;
        take_all(&ranges);
        drop(second);
        assert_eq!(ranges.front(), range.start + 3 * MIB);
        assert_eq!(ranges.take(WriterStay::Waits), Some(range.start + 3 * MIB..range.end));
        // All of it was there, and its end was not told any more.
        let mut third = ranges.one_more(WriterStay::Leaves);
        third.begin_range(&range);
        third.moved = range.end - range.start;
        drop(third);
        assert_eq!(ranges.take(WriterStay::Waits), None);
        drop(first);
        assert_eq!(ranges.finish(), Written::Mended);
    }

    #[test]
    fn who_is_in_haste_leaves_when_others_will_have_the_rest_written_in_time() {
        let ranges = Ranges::new(512 * MIB, 2);
        let (hasty, other) = (ranges.begin_in_haste(Duration::ZERO), ranges.join().unwrap());
        // Two hundred megabytes a second, a tenth of what is reckoned with: a tenth may be left.
        let state = |written: u64| RangesState {
            next: written * MIB,
            at_work: 2,
            began: Some(Instant::now() - Duration::from_secs_f64((written * MIB) as f64 / 2e8)),
            ..RangesState::default()
        };
        let leaves = |state: &RangesState| ranges.is_nearly_written(state);
        assert!(!leaves(&state(450)) && leaves(&state(470)));
        assert!(
            !leaves(&RangesState { returned: Some(0..MIB).into_iter().collect(), ..state(470) }),
            "somebody has to write it"
        );
        assert!(!leaves(&RangesState { at_work: 1, ..state(470) }), "nobody else is there");
        let at = |begin: u64, end: u64| Some(begin * MIB..end * MIB).into_iter().collect();
        assert!(!leaves(&RangesState { at: at(400, 512), ..state(512) }), "what was given out is not there yet");
        assert!(leaves(&RangesState { at: at(470, 512), ..state(512) }), "but some of it");
        let way_there = Duration::from_millis(100);
        assert!(leaves(&RangesState { way_there, ..state(450) }), "the session takes its time to get there");
        take_all(&ranges);
        assert_eq!(ranges.take(hasty.staying), None);
        drop(hasty);
        drop(other);
        assert_eq!((ranges.finish(), ranges.rate().is_some()), (Written::Whole, true));
    }

    #[test]
    fn all_who_come_wait_for_what_others_leave() {
        let ranges = Ranges::new(40 * MIB, 3);
        let mut hands: Vec<_> = std::iter::repeat_with(|| ranges.come().unwrap()).take(3).collect();
        hands[0].range = ranges.take(WriterStay::Waits);
        let left = hands[0].range.clone();
        take_all(&ranges);
        assert_eq!(ranges.front(), 0, "the first range is missing");
        let broken = hands.remove(0);
        let taken: Vec<_> = std::thread::scope(|scope| {
            let waiting = hands.into_iter().map(|mut hand| {
                let ranges = &ranges;
                scope.spawn(move || {
                    hand.range = ranges.take(WriterStay::Waits);
                    let taken = hand.range.clone();
                    hand.done();
                    taken
                })
            });
            let waiting: Vec<_> = waiting.collect();
            drop(broken);
            waiting.into_iter().map(|hand| hand.join().unwrap()).collect()
        });
        assert!(taken.contains(&left) && taken.contains(&None), "{taken:?}");
        assert!(ranges.front() == ranges.len() && ranges.come().is_none());
    }

    #[test]
    fn no_more_come_than_are_wanted_and_none_once_it_is_over() {
        let ranges = Ranges::new(40 * MIB, 3);
        assert!(ranges.take_seat() && ranges.take_seat() && !ranges.take_seat());
        let ranges = Ranges::new(40 * MIB, 3);
        ranges.end();
        assert!(!ranges.take_seat() && ranges.join().is_none());
        assert_eq!(ranges.finish(), Written::Partly);
    }
}
