//! One large file over several connections, each with ranges of it.
//!
//! A stock sshd takes no more of one connection than a window of its channel per round trip, so over a long link a
//! connection alone uses a part of it. How many a file is worth follows from the round trip, before its first byte.

use super::ssh::sftp::{NextPiece, PieceSource, Pieces, ReadRanges, SftpError};
use std::collections::VecDeque;
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
/// Bytes of one range at most.
const RANGE_MOST: u64 = 64 << 20;
/// And at least: who writes goes from one to the next without a rest, who reads does not.
const WRITTEN_LEAST: u64 = 1 << 20;
const READ_LEAST: u64 = 4 << 20;

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

/// Bytes at the end of a file that are written before all others, so that it has its length from the first moment: a receiver
/// that begins before all is there looks at that first.
const END: u64 = 64 << 10;

/// The ranges of a file that several write, from when it is known that they are to until all have left.
pub(crate) struct Ranges {
    len: u64,
    /// Where those end that are given out one behind the other.
    next_most: u64,
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
    /// Ranges of those who broke off.
    returned: Vec<Range<u64>>,
    /// What is not there yet of the ranges that somebody is at.
    at: Vec<Range<u64>>,
    /// Of whoever leaves in haste.
    haste: Haste,
    /// Who may come.
    seats: usize,
    at_work: usize,
    /// Those of them who only wait until what they have sent is confirmed.
    draining: usize,
    /// Those of them who have nothing to do, and wait for what others may give back.
    waiting: usize,
    /// Somebody broke off.
    hurt: bool,
    /// When the first one began, and when the last one left.
    began: Option<Instant>,
    left: Option<Instant>,
}

/// What is known of the receiver that somebody in haste leaves for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Haste {
    /// Until it is at the file, at least.
    pub(crate) way_there: Duration,
    /// Bytes per second at which it sums a file at most. So it stays behind those who write the end while it is at the beginning.
    pub(crate) summed: f64,
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
        Self { len, next_most: len, connections: connections.max(1), state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The end goes before all others.
    pub(crate) fn end_first(self) -> Self {
        let next_most = self.len.saturating_sub(END);
        if next_most > 0 {
            self.change(|state| state.returned.push(next_most..self.len));
        }
        Self { next_most: if next_most > 0 { next_most } else { self.len }, ..self }
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
            && (state.next < self.next_most || !state.returned.is_empty())
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
    pub(crate) fn begin_in_haste(&self, haste: Haste) -> RangeWriter<'_> {
        self.open();
        self.change(|state| state.haste = haste);
        self.one_more(WriterStay::Hastens)
    }

    fn one_more(&self, staying: WriterStay) -> RangeWriter<'_> {
        self.change(|state| state.at_work += 1);
        RangeWriter { ranges: self, at: VecDeque::new(), drains: false, staying }
    }

    /// Waits until the file is there; `None` where no help is needed any more. Whoever joins is waited for.
    pub(crate) fn join(&self) -> Option<RangeWriter<'_>> {
        let mut state = self.lock();
        while state.stage == Admittance::Expected {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.has_work(&state).then(|| {
            state.at_work += 1;
            RangeWriter { ranges: self, at: VecDeque::new(), drains: false, staying: WriterStay::Leaves }
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
            RangeWriter { ranges: self, at: VecDeque::new(), drains: false, staying: WriterStay::Waits }
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
        match state.next >= self.next_most && state.returned.is_empty() {
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

    /// Waits until those at work have the rest written by the time that a receiver has summed what stands before it; false
    /// where that will not be.
    pub(crate) fn are_nearly_written(&self, haste: Haste) -> bool {
        let mut state = self.lock();
        loop {
            if state.stage == Admittance::Over {
                return false;
            }
            let all = state.next >= self.next_most && state.returned.is_empty() && state.at.is_empty();
            if all || state.at_work > state.waiting && self.is_nearly_written(&state, haste) {
                return true;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether one in haste may leave, as others write the rest.
    fn may_leave(&self, state: &RangesState) -> bool {
        let others = state.at_work > 1 + state.waiting + state.draining && state.returned.is_empty();
        others && self.is_nearly_written(state, state.haste)
    }

    fn is_nearly_written(&self, state: &RangesState, haste: Haste) -> bool {
        let missing = state.at.iter().chain(&state.returned).map(|range| range.end - range.start);
        let missing = (self.next_most.saturating_sub(state.next) + missing.sum::<u64>()) as f64;
        let written = self.len as f64 - missing;
        let rate = state.began.map_or(0.0, |began| written / began.elapsed().as_secs_f64().max(1e-6));
        let before = state.front() as f64 / haste.summed.max(1.0) + haste.way_there.as_secs_f64();
        missing < self.len as f64 / 2.0 && missing < rate * before
    }

    /// The next range. Large ones at first, and small ones of so many bytes at `least` in the end, for all to end together.
    /// Who has `under_way` what is to be confirmed does not wait here.
    fn take(&self, staying: WriterStay, least: u64, under_way: bool) -> NextRange {
        let mut state = self.lock();
        loop {
            if state.stage == Admittance::Over || staying == WriterStay::Hastens && self.may_leave(&state) {
                state.draining += 1;
                return NextRange::None;
            }
            if let Some(range) = state.returned.pop() {
                state.at.push(range.clone());
                return NextRange::Some(range);
            }
            if state.next < self.next_most {
                let left = self.next_most - state.next;
                let share = left / (2 * self.connections as u64);
                let begin = state.next;
                state.next += share.clamp(least, RANGE_MOST).min(left);
                let range = begin..state.next;
                state.at.push(range.clone());
                return NextRange::Some(range);
            }
            if staying == WriterStay::Leaves || state.at_work <= 1 + state.waiting {
                state.draining += 1;
                return NextRange::None;
            }
            if under_way {
                return NextRange::NotYet;
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }
}

/// What there is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NextRange {
    Some(Range<u64>),
    /// Nothing, unless others break off.
    NotYet,
    None,
}

/// One who writes. What it has not finished when it leaves, others take up.
pub(crate) struct RangeWriter<'a> {
    ranges: &'a Ranges,
    /// What it is at and is not there yet, in the order in which it comes there.
    at: VecDeque<Range<u64>>,
    /// It takes up no more.
    drains: bool,
    staying: WriterStay,
}

impl RangesState {
    /// Bytes from the beginning of the file that are all there.
    fn front(&self) -> u64 {
        let missing = self.at.iter().chain(&self.returned).map(|range| range.start);
        missing.min().unwrap_or(self.next).min(self.next)
    }

    /// Of this range that somebody is at, what stands before `there` has come.
    fn came(&mut self, range: &Range<u64>, there: u64) {
        match self.at.iter_mut().find(|at| at.end == range.end) {
            Some(at) if there < range.end => at.start = there,
            _ => self.at.retain(|at| at.end != range.end),
        }
    }
}

impl RangeWriter<'_> {
    /// The next range, of so many bytes at least.
    fn take(&mut self, least: u64) -> NextRange {
        let next = self.ranges.take(self.staying, least, !self.at.is_empty());
        match &next {
            NextRange::Some(range) => self.at.push_back(range.clone()),
            NextRange::NotYet => {}
            NextRange::None => self.drains = true,
        }
        next
    }

    /// Whether it is to leave although so many bytes of its last range are not under way: others take them up.
    fn leaves(&mut self, left: u64) -> bool {
        if self.staying != WriterStay::Hastens {
            return false;
        }
        let mut state = self.ranges.lock();
        let leaves = self.ranges.may_leave(&state);
        if let Some(last) = self.at.back_mut().filter(|_| leaves) {
            let rest = last.end - left..last.end;
            state.came(last, last.end);
            last.end = rest.start;
            if last.is_empty() {
                self.at.pop_back();
            } else {
                state.at.push(last.clone());
            }
            state.returned.push(rest);
            state.draining += 1;
            self.drains = true;
            drop(state);
            self.ranges.changed.notify_all();
        }
        leaves
    }

    /// So many bytes more are there.
    fn came(&mut self, mut bytes: u64) {
        while bytes > 0
            && let Some(range) = self.at.front_mut()
        {
            let came = bytes.min(range.end - range.start);
            range.start += came;
            bytes -= came;
            let range = range.clone();
            self.ranges.change(|state| state.came(&range, range.start));
            if range.is_empty() {
                self.at.pop_front();
            }
        }
    }

    /// Writes ranges of `source` until none is left, and closes the file. `moved` hears of bytes, and says whether to go on.
    /// Returns how many were written.
    pub(crate) fn write(
        mut self,
        source: &mut (impl Read + Seek),
        mut pieces: Pieces<'_>,
        moved: &mut dyn FnMut(usize) -> bool,
    ) -> Result<u64, RangeError> {
        let mut ranged = RangedSource { writer: &mut self, source, left: 0, moved, ended: false };
        let written = pieces.write(&mut ranged);
        let ended = ranged.ended;
        let written = match written.map_err(RangeError::Far) {
            Ok(Ok(bytes)) => pieces.close().map_err(RangeError::Far).map(|()| bytes),
            Ok(Err(_)) if ended => Err(RangeError::Ended),
            Ok(Err(error)) => Err(RangeError::Here(error)),
            Err(error) => Err(error),
        };
        self.leave(written.as_ref().err());
        written
    }

    /// Why it leaves, if not for want of work.
    fn leave(&self, error: Option<&RangeError>) {
        match error {
            None => {}
            Some(RangeError::Far(_)) => self.ranges.change(|state| state.hurt = true),
            Some(RangeError::Here(_) | RangeError::Ended) => self.ranges.end(),
        }
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
        self.leave(fetched.as_ref().err());
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
        while let NextRange::Some(range) = self.take(READ_LEAST) {
            let (mut at, mut ended) = (range.start, false);
            let mut each = |bytes: &[u8]| {
                here.write_all_at(bytes, at)?;
                at += bytes.len() as u64;
                self.came(bytes.len() as u64);
                ended = !moved(bytes.len());
                if ended { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            };
            let read = there.read_at(range.clone(), &mut each).map_err(RangeError::Far)?;
            read.map_err(|error| if ended { RangeError::Ended } else { RangeError::Here(error) })?;
            total += range.end - range.start;
        }
        Ok(total)
    }
}

/// Ranges of a file here, one behind the other.
struct RangedSource<'a, 'r, S> {
    writer: &'a mut RangeWriter<'r>,
    source: &'a mut S,
    /// Bytes of the last range that have not been read.
    left: u64,
    moved: &'a mut dyn FnMut(usize) -> bool,
    /// It was told not to go on.
    ended: bool,
}

impl<S: Read + Seek> PieceSource for RangedSource<'_, '_, S> {
    fn next(&mut self, buffer: &mut [u8], _under_way: bool) -> io::Result<NextPiece> {
        if self.left == 0 {
            return match self.writer.take(WRITTEN_LEAST) {
                NextRange::None => Ok(NextPiece::End),
                NextRange::NotYet => Ok(NextPiece::NotYet),
                NextRange::Some(range) => {
                    self.source.seek(SeekFrom::Start(range.start))?;
                    self.left = range.end - range.start;
                    Ok(NextPiece::At(range.start))
                }
            };
        }
        if self.writer.leaves(self.left) {
            return Ok(NextPiece::End);
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.source.read(&mut buffer[..most])?;
        self.left -= n as u64;
        if most > 0 && n == 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.ended = n > 0 && !(self.moved)(n);
        if self.ended { Err(io::ErrorKind::Interrupted.into()) } else { Ok(NextPiece::Bytes(n)) }
    }

    fn confirmed(&mut self, bytes: usize) {
        self.writer.came(bytes as u64);
    }
}

impl Drop for RangeWriter<'_> {
    fn drop(&mut self) {
        let at = std::mem::take(&mut self.at);
        self.ranges.change(|state| {
            state.at_work -= 1;
            state.draining -= usize::from(self.drains);
            state.left = Some(Instant::now());
            state.hurt |= !at.is_empty();
            at.iter().for_each(|range| state.came(range, range.end));
            state.returned.extend(at);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The next range, for one who has nothing under way.
    fn take(ranges: &Ranges, staying: WriterStay) -> Option<Range<u64>> {
        match ranges.take(staying, READ_LEAST, false) {
            NextRange::Some(range) => Some(range),
            NextRange::NotYet | NextRange::None => None,
        }
    }

    /// All that are left, one after another.
    fn take_all(ranges: &Ranges) -> Vec<Range<u64>> {
        let written = std::iter::from_fn(|| take(ranges, WriterStay::Leaves));
        written.inspect(|range| ranges.change(|state| state.came(range, range.end))).collect()
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
                assert!(range.end - range.start <= RANGE_MOST);
                at = range.end;
            }
            assert_eq!(at, len);
        }
    }

    #[test]
    fn a_file_that_is_written_has_its_length_first() {
        for len in [1, END, END + 1, 512 * MIB + 7] {
            let ranges = Ranges::new(len, 8).end_first();
            let mut taken = take_all(&ranges);
            assert_eq!(taken[0].end, len);
            taken.sort_by_key(|range| range.start);
            assert_eq!((taken[0].start, taken[taken.len() - 1].end), (0, len));
            assert!(taken.windows(2).all(|pair| pair[0].end == pair[1].start), "{taken:?}");
            assert_eq!(ranges.finish(), Written::Whole);
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
        let NextRange::Some(left) = second.take(READ_LEAST) else { panic!("nothing to do") };
        take_all(&ranges);
        // What has come of it is not brought once more.
        second.came(MIB);
        assert_eq!(ranges.front(), MIB);
        assert_eq!(ranges.take(WriterStay::Waits, READ_LEAST, true), NextRange::NotYet);
        drop(second);
        assert_eq!(take(&ranges, WriterStay::Waits), Some(left.start + MIB..left.end));
        assert_eq!(take(&ranges, WriterStay::Waits), None);
        drop(first);
        assert_eq!(ranges.finish(), Written::Mended);
        let ranges = Ranges::new(40 * MIB, 2);
        let mut alone = ranges.begin();
        alone.take(READ_LEAST);
        take_all(&ranges);
        drop(alone);
        assert_eq!(ranges.finish(), Written::Partly);
    }

    #[test]
    fn what_one_had_moved_before_it_broke_off_is_not_moved_again() {
        let ranges = Ranges::new(40 * MIB, 2);
        let (first, mut second) = (ranges.begin(), ranges.join().unwrap());
        let NextRange::Some(range) = second.take(READ_LEAST) else { panic!("nothing to do") };
        take_all(&ranges);
        second.came(3 * MIB);
        drop(second);
        assert_eq!(ranges.front(), range.start + 3 * MIB);
        let mut third = ranges.one_more(WriterStay::Leaves);
        assert_eq!(third.take(READ_LEAST), NextRange::Some(range.start + 3 * MIB..range.end));
        // All of it is there; that the file was closed was not told any more.
        third.came(range.end);
        third.leave(Some(&RangeError::Far(SftpError::Lost(String::new()))));
        drop(third);
        assert_eq!(take(&ranges, WriterStay::Waits), None);
        drop(first);
        assert_eq!(ranges.finish(), Written::Mended);
    }

    #[test]
    fn who_is_in_haste_leaves_when_others_will_have_the_rest_written_in_time() {
        let ranges = Ranges::new(512 * MIB, 2);
        let haste = Haste { way_there: Duration::ZERO, summed: 2e9 };
        let (hasty, other) = (ranges.begin_in_haste(haste), ranges.join().unwrap());
        // Two hundred megabytes a second, a tenth of what is reckoned with: a tenth may be left.
        let state = |written: u64| RangesState {
            next: written * MIB,
            at_work: 2,
            began: Some(Instant::now() - Duration::from_secs_f64((written * MIB) as f64 / 2e8)),
            haste,
            ..RangesState::default()
        };
        let leaves = |state: &RangesState| ranges.may_leave(state);
        assert!(!leaves(&state(450)) && leaves(&state(470)));
        assert!(
            !leaves(&RangesState { returned: Some(0..MIB).into_iter().collect(), ..state(470) }),
            "somebody has to write it"
        );
        assert!(!leaves(&RangesState { at_work: 1, ..state(470) }), "nobody else is there");
        assert!(!leaves(&RangesState { draining: 1, ..state(470) }), "nobody else takes up anything");
        let at = |begin: u64, end: u64| Some(begin * MIB..end * MIB).into_iter().collect();
        assert!(!leaves(&RangesState { at: at(400, 512), ..state(512) }), "what was given out is not there yet");
        assert!(leaves(&RangesState { at: at(470, 512), ..state(512) }), "but most of it");
        let haste = Haste { way_there: Duration::from_millis(100), ..haste };
        assert!(leaves(&RangesState { haste, ..state(450) }), "the session takes its time to get there");
        take_all(&ranges);
        drop(hasty);
        drop(other);
        assert_eq!((ranges.finish(), ranges.rate().is_some()), (Written::Whole, true));
    }

    #[test]
    fn who_leaves_in_the_middle_of_a_range_leaves_the_rest_of_it_to_others() {
        let ranges = Ranges::new(64 * MIB, 2);
        let haste = Haste { way_there: Duration::from_secs(60), summed: 1e9 };
        let (mut hasty, mut other) = (ranges.begin_in_haste(haste), ranges.join().unwrap());
        let NextRange::Some(range) = hasty.take(READ_LEAST) else { panic!("nothing to do") };
        assert!(!hasty.leaves(range.end - MIB), "most of the file is missing");
        while ranges.lock().next < ranges.len() {
            other.take(READ_LEAST);
        }
        other.came(ranges.len());
        hasty.came(MIB);
        assert!(hasty.leaves(range.end - 2 * MIB) && ranges.front() == MIB);
        hasty.came(MIB);
        drop(hasty);
        assert_eq!(other.take(READ_LEAST), NextRange::Some(2 * MIB..range.end));
        assert_eq!(other.take(READ_LEAST), NextRange::None);
        other.came(range.end);
        drop(other);
        assert_eq!(ranges.finish(), Written::Whole, "nobody broke off");
    }

    #[test]
    fn who_waits_for_the_end_is_told_before_it_and_when_it_will_not_come() {
        let ranges = Ranges::new(64 * MIB, 2);
        let haste = Haste { way_there: Duration::from_secs(60), summed: 1e9 };
        std::thread::scope(|scope| {
            let told = scope.spawn(|| ranges.are_nearly_written(haste));
            let mut writer = ranges.begin();
            while let NextRange::Some(range) = writer.take(READ_LEAST) {
                writer.came(range.end - range.start);
            }
            assert!(told.join().unwrap() && ranges.are_nearly_written(haste));
        });
        ranges.end();
        assert!(!ranges.are_nearly_written(haste));
    }

    #[test]
    fn all_who_come_wait_for_what_others_leave() {
        let ranges = Ranges::new(40 * MIB, 3);
        let mut hands: Vec<_> = std::iter::repeat_with(|| ranges.come().unwrap()).take(3).collect();
        let left = hands[0].take(READ_LEAST);
        take_all(&ranges);
        assert_eq!(ranges.front(), 0, "the first range is missing");
        let broken = hands.remove(0);
        let taken: Vec<_> = std::thread::scope(|scope| {
            let waiting = hands.into_iter().map(|mut hand| {
                scope.spawn(move || {
                    let taken = hand.take(READ_LEAST);
                    hand.came(u64::MAX);
                    taken
                })
            });
            let waiting: Vec<_> = waiting.collect();
            drop(broken);
            waiting.into_iter().map(|hand| hand.join().unwrap()).collect()
        });
        assert!(taken.contains(&left) && taken.contains(&NextRange::None), "{taken:?}");
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
