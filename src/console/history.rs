//! How it went for a day, minute by minute: a ring in memory and on the disk.
//!
//! The file has a slot for each minute of a day, each with a sum of its own: one that was torn, or that another program
//! wrote, is as if it were not there.

use crate::lock::{Lock, Taken};
use protocol::checksum::{Checksum, FileHasher};
use std::collections::VecDeque;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// Minutes that are kept.
pub(crate) const MINUTES: u64 = 24 * 60;
/// Bytes of a slot: six numbers and the sum of them.
const SLOT: usize = 7 * 8;

/// What a minute came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct MinuteSample {
    /// Minutes since 1970.
    pub(crate) minute: u64,
    /// Files that waited at its end, and their bytes.
    pub(crate) backlog_files: u64,
    pub(crate) backlog_bytes: u64,
    /// Bytes of files that were moved in it.
    pub(crate) moved_bytes: u64,
    /// Files that were copied and proven in it, and attempts that failed.
    pub(crate) copied: u64,
    pub(crate) failed: u64,
}

impl MinuteSample {
    fn encode(&self) -> [u8; SLOT] {
        let mut slot = [0; SLOT];
        let numbers = [self.minute, self.backlog_files, self.backlog_bytes, self.moved_bytes, self.copied, self.failed];
        for (place, number) in slot.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = sum_of(&slot[..SLOT - 8]);
        slot[SLOT - 8..].copy_from_slice(&sum);
        slot
    }

    fn decode(slot: &[u8]) -> Option<Self> {
        let (numbers, sum) = slot.split_at_checked(SLOT - 8)?;
        let mut numbers = numbers.chunks_exact(8).map(|number| number.try_into().map(u64::from_le_bytes));
        let mut next = || numbers.next()?.ok();
        let sample = Self {
            minute: next()?,
            backlog_files: next()?,
            backlog_bytes: next()?,
            moved_bytes: next()?,
            copied: next()?,
            failed: next()?,
        };
        (sum == sum_of(&slot[..SLOT - 8]) && sample.minute > 0).then_some(sample)
    }
}

/// A sum that no file of zeros has.
fn sum_of(bytes: &[u8]) -> [u8; 8] {
    let mut hasher = FileHasher::new(Checksum::Xxh64);
    hasher.update(b"archiver minute 1");
    hasher.update(bytes);
    hasher.finish().as_bytes().try_into().unwrap_or([1; 8])
}

/// The samples of the last day, oldest first.
#[derive(Debug, Default)]
pub(crate) struct DayHistory {
    samples: VecDeque<MinuteSample>,
}

impl DayHistory {
    /// Adds a minute. One that is there already is replaced: a process may have been started anew in it, or the clock set back.
    pub(super) fn add(&mut self, sample: MinuteSample) {
        self.samples.retain(|old| old.minute < sample.minute);
        self.samples.push_back(sample);
        self.forget(sample.minute);
    }

    /// What is older than a day before this minute goes.
    fn forget(&mut self, minute: u64) {
        while self.samples.front().is_some_and(|old| old.minute + MINUTES <= minute) {
            self.samples.pop_front();
        }
    }

    pub(crate) fn samples(&self) -> impl DoubleEndedIterator<Item = &MinuteSample> {
        self.samples.iter()
    }

    /// Samples of the last `minutes` before this one, and how many minutes they are of: less than that only where nothing
    /// older is known.
    pub(super) fn last(&self, minutes: u64, now: u64) -> (impl Iterator<Item = &MinuteSample>, u64) {
        let since = now.saturating_sub(minutes);
        let known = self.samples.front().map_or(0, |first| now.saturating_sub(first.minute));
        (self.samples.iter().filter(move |sample| sample.minute >= since && sample.minute < now), known.min(minutes))
    }
}

/// Where the samples outlive the process.
#[derive(Debug)]
pub(super) struct HistoryFile {
    file: Lock,
}

impl HistoryFile {
    /// Opens the file, or makes it and its folder; gives what it holds of the day before this minute.
    pub(super) fn open(path: &Path, minute: u64) -> io::Result<(Self, DayHistory)> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut options = File::options();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
        let file = match Lock::take(file) {
            Ok(lock) => lock,
            Err(Taken::NoLocks(file, _)) => Lock::without(file),
            Err(Taken::ByAnother) => {
                return Err(io::Error::other("another archiver of the same name keeps its history there"));
            }
        };
        let mut samples = Vec::new();
        let mut slot = [0; SLOT];
        for number in 0..MINUTES {
            match file.file().read_exact_at(&mut slot, number * SLOT as u64) {
                Ok(()) => samples.extend(MinuteSample::decode(&slot)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        // What a clock that went wrong has left in the future would never go.
        samples.retain(|sample| sample.minute <= minute && sample.minute + MINUTES > minute);
        samples.sort_by_key(|sample| sample.minute);
        samples.dedup_by_key(|sample| sample.minute);
        Ok((Self { file }, DayHistory { samples: samples.into() }))
    }

    /// Puts a minute into its slot. A crash costs this minute and no other.
    pub(super) fn write(&self, sample: &MinuteSample) -> io::Result<()> {
        self.file.file().write_all_at(&sample.encode(), sample.minute % MINUTES * SLOT as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(minute: u64) -> MinuteSample {
        MinuteSample {
            minute,
            backlog_files: minute * 2,
            backlog_bytes: 1 << 40,
            moved_bytes: 60,
            copied: 1,
            failed: 2,
        }
    }

    fn minutes(history: &DayHistory) -> Vec<u64> {
        history.samples().map(|sample| sample.minute).collect()
    }

    #[test]
    fn a_day_is_kept_and_read_again_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/a.history");
        let start = 29_000_000;
        let (file, mut history) = HistoryFile::open(&path, start).unwrap();
        assert_eq!(minutes(&history), [0; 0]);
        for minute in start..start + MINUTES + 100 {
            history.add(sample(minute));
            file.write(&sample(minute)).unwrap();
        }
        let kept: Vec<_> = (start + 100..start + MINUTES + 100).collect();
        assert_eq!(minutes(&history), kept);
        assert!(HistoryFile::open(&path, start).is_err(), "somebody has it");
        drop(file);
        let (_, again) = HistoryFile::open(&path, start + MINUTES + 99).unwrap();
        assert_eq!((minutes(&again), again.samples.back()), (kept, Some(&sample(start + MINUTES + 99))));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), MINUTES * SLOT as u64);
    }

    #[test]
    fn a_torn_slot_costs_its_minute_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.history");
        let (file, _) = HistoryFile::open(&path, 100).unwrap();
        for minute in 1..=5 {
            file.write(&sample(minute)).unwrap();
        }
        file.file.file().write_all_at(&[7; 20], 3 * SLOT as u64 + 10).unwrap();
        // The last one was cut off.
        file.file.file().set_len(5 * SLOT as u64 + 30).unwrap();
        drop(file);
        let (file, history) = HistoryFile::open(&path, 100).unwrap();
        assert_eq!(minutes(&history), [1, 2, 4]);
        drop(file);
        std::fs::write(&path, vec![0xff; 100_000]).unwrap();
        assert_eq!(minutes(&HistoryFile::open(&path, 100).unwrap().1), [0; 0]);
    }

    #[test]
    fn the_last_minutes_count_as_far_as_they_are_known() {
        let mut history = DayHistory::default();
        for minute in [100, 101, 105] {
            history.add(sample(minute));
        }
        let of = |minutes, now| {
            let (samples, known) = history.last(minutes, now);
            (samples.count(), known)
        };
        assert_eq!(of(60, 106), (3, 6));
        assert_eq!(of(3, 106), (1, 3));
        assert_eq!(of(60, 100), (0, 0));
        history.add(sample(101));
        assert_eq!(minutes(&history), [100, 101], "the clock was set back");
    }
}
