//! Room for new files: where a file system has too little, the oldest proven files that are on it go.

use super::Pruner;
use crate::archiver::Sources;
use crate::archiver::upkeep::removal::{PruneMode, Removed};
use crate::catalog::CatalogError;
use crate::disk::room::{FreeMark, Room, room_of};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Beyond every time at which something may be proven.
const ANY_TIME: f64 = f64::MAX;

/// What is remembered of file systems with too little room.
#[derive(Default)]
pub(in super::super) struct Relief {
    /// Those of which it was told, and whether also that nothing more may go.
    told: BTreeMap<u64, bool>,
}

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Relieved {
    /// There is room enough, or will be soon.
    Enough,
    /// There is too little still, and nothing more may go.
    Short,
}

/// A file system, by a path on it.
#[derive(Debug, Clone)]
struct MeasuredDisk {
    device: u64,
    place: PathBuf,
    room: Room,
}

/// How many bytes must still become free on which devices.
#[derive(Debug, Clone, Default)]
pub(super) struct Shortages(BTreeMap<u64, u64>);

impl Shortages {
    /// Whether there are none any more.
    pub(super) fn are_none(&self) -> bool {
        self.0.values().all(|bytes| *bytes == 0)
    }

    /// The device of a file, if room is short there.
    pub(super) fn concern(&self, sources: &Sources, path: &Path) -> Option<u64> {
        // What cannot be seen gives no room.
        let device = sources.metadata_of_name(path).ok()?.dev();
        self.0.get(&device).is_some_and(|bytes| *bytes > 0).then_some(device)
    }

    /// A file of this device was tried.
    pub(super) fn freed(&mut self, device: u64, removed: &Removed) {
        if let (Some(lacking), Removed::Freed(bytes)) = (self.0.get_mut(&device), removed) {
            *lacking = lacking.saturating_sub(*bytes);
        }
    }
}

impl Pruner<'_> {
    /// Deletes the oldest proven files of file systems that have less room than this, until they have.
    pub(in super::super) async fn relieve(&mut self, mark: FreeMark) -> Result<Relieved, CatalogError> {
        let disks = self.measure().await?;
        let lacking = |disk: &MeasuredDisk| mark.lacking(disk.room);
        let short: Vec<_> = disks.iter().filter(|disk| lacking(disk).is_some()).cloned().collect();
        self.tell_fine(&disks, &short);
        if short.is_empty() {
            return Ok(Relieved::Enough);
        }
        for disk in &short {
            self.tell_low(disk, mark);
        }
        let would = self.memory.told.values().sum::<u64>();
        let needed = |disk: &MeasuredDisk| lacking(disk).unwrap_or(0).saturating_sub(would);
        let mut shortages = Shortages(short.iter().map(|disk| (disk.device, needed(disk))).collect());
        let mut asked = Duration::ZERO;
        if !shortages.are_none() {
            for ids in self.table.prunable_parts(ANY_TIME).await? {
                let files = self.table.prunable(ids, ANY_TIME).await?;
                if !self.delete_all(files, Some(&mut shortages), &mut asked).await? {
                    break;
                }
            }
        }
        if shortages.are_none() || self.control.stop().is_stopped() {
            return Ok(Relieved::Enough);
        }
        for disk in short.iter().filter(|disk| shortages.0.get(&disk.device).is_some_and(|bytes| *bytes > 0)) {
            self.tell_short(disk, mark);
        }
        Ok(Relieved::Short)
    }

    /// Looks at the file systems of the source roots, or else of the files that came last.
    async fn measure(&self) -> Result<Vec<MeasuredDisk>, CatalogError> {
        let mut places = self.sources.roots().to_vec();
        if places.is_empty() {
            places = self.table.newest_folders().await?;
        }
        let sources = self.sources.clone();
        let measuring = tokio::task::spawn_blocking(move || {
            let mut devices = BTreeSet::new();
            let measured = places.into_iter().filter_map(|place| {
                // One that is away has no files to delete either.
                let measured = sources.within(&place, |_, place| measure(place)).ok()?;
                devices.insert(measured.device).then_some(measured)
            });
            measured.collect()
        });
        Ok(measuring.await.unwrap_or_default())
    }

    fn tell_low(&mut self, disk: &MeasuredDisk, mark: FreeMark) {
        if self.memory.relief.told.contains_key(&disk.device) {
            return;
        }
        self.memory.relief.told.insert(disk.device, false);
        let verb = if self.doing == PruneMode::Deleting { "go" } else { "would go" };
        let (place, free) = (disk.place.display().to_string(), free(disk.room));
        tracing::info!(
            event = "disk_low",
            place,
            free = disk.room.free,
            "{place}: {free} is free, less than {mark}; the oldest proven files {verb}"
        );
    }

    fn tell_short(&mut self, disk: &MeasuredDisk, mark: FreeMark) {
        let told = self.memory.relief.told.entry(disk.device).or_default();
        if std::mem::replace(told, true) {
            return;
        }
        let (place, free) = (disk.place.display().to_string(), free(disk.room));
        tracing::warn!(
            event = "disk_short",
            place,
            free = disk.room.free,
            "{place}: {free} is free, less than {mark}, and no further file there may be deleted; `files prunable` says why"
        );
    }

    fn tell_fine(&mut self, disks: &[MeasuredDisk], short: &[MeasuredDisk]) {
        let told = &mut self.memory.relief.told;
        for disk in disks.iter().filter(|disk| !short.iter().any(|short| short.device == disk.device)) {
            if told.remove(&disk.device).is_some() {
                let (place, free) = (disk.place.display().to_string(), free(disk.room));
                tracing::info!(event = "disk_fine", place, free = disk.room.free, "{place}: {free} is free again");
            }
        }
    }
}

fn measure(place: &Path) -> io::Result<MeasuredDisk> {
    let device = std::fs::metadata(place)?.dev();
    let room = room_of(place)?;
    let is_there = |above: &&Path| std::fs::metadata(above).is_ok_and(|meta| meta.dev() == device);
    // People know it by where it is mounted.
    let place = place.ancestors().take_while(is_there).last().unwrap_or(place).to_owned();
    Ok(MeasuredDisk { device, place, room })
}

/// How much is free, for people.
fn free(room: Room) -> String {
    let percent = room.free as f64 * 100.0 / room.all.max(1) as f64;
    format!("{:.1} GB ({percent:.1} %)", room.free as f64 / 1e9)
}
