//! Folders of this machine as a source: each file that is finished in them is a message of its own.
//!
//! inotify tells of most; what it cannot promise is found by looking: what was there before, what came into a folder before
//! that was watched, and all of it again after its queue was too short. What is found is compared with what the table knows,
//! so nothing here needs to be remembered.

mod events;
mod pending;
mod scan;
mod terms;

use super::intake::{Intake, Offered};
use super::table::MonitorTable;
use crate::disk::summed::FileStamp;
use events::{FolderEvent, FolderWatches};
use pending::PendingFiles;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use scan::{Descent, FolderScan, ScanStep};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
pub(crate) use terms::{FinishRule, MarkerName, WatchRoot, WatchTerms};

/// How soon what nobody tells of is noticed.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks for a folder that is not there.
const LOOK: Duration = Duration::from_secs(1);
/// Files that the table is asked about at once.
const ASKED: usize = 500;
/// Steps of a scan between two looks at what inotify tells.
const STEPS: usize = 2000;
/// How often all is looked at while not all folders can be watched.
const BLIND_EVERY: Duration = Duration::from_secs(60);

/// Why folders cannot be watched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("Cannot watch {}: {why}", folder.display())]
    Folder { folder: PathBuf, why: std::io::Error },
    #[error(
        "There are more folders below {} than can be watched: the kernel allows {allowed} (fs.inotify.max_user_watches), all watchers of this user together; allow more with sysctl -w fs.inotify.max_user_watches=N, or watch less",
        folder.display()
    )]
    Kernel { folder: PathBuf, allowed: String },
    #[error("There are more than {most} folders below {}; allow more with --watch-folders, or watch less", folder.display())]
    Most { folder: PathBuf, most: usize },
}

/// Watches folders.
pub(crate) struct WatchSource {
    terms: Arc<WatchTerms>,
    watches: FolderWatches,
    pending: PendingFiles,
    scan: FolderScan,
    /// Files that are finished, to be handed over.
    finished: BTreeSet<PathBuf>,
    /// Found by looking, and not compared with the table yet.
    found: Vec<(PathBuf, FileStamp)>,
    /// When all is to be looked at again.
    rescan: Instant,
    /// Roots that are not there, since then looked for.
    missing: Vec<PathBuf>,
    looked: Instant,
    is_blind: bool,
}

/// What a source needs of its monitor.
pub(crate) struct WatchDesk {
    pub(super) intake: Intake,
    pub(super) table: MonitorTable,
}

impl WatchSource {
    /// Watches all folders that there are, before it is said that anybody does.
    pub(crate) fn open(terms: WatchTerms) -> Result<Self, WatchError> {
        let mut watches = FolderWatches::new(&terms)?;
        for root in &terms.roots {
            scan::each_folder(&root.folder, &mut |folder| match terms.passes_by(folder) {
                true => Ok(Descent::Not),
                false => watches.add(folder).map(|()| Descent::Below),
            })?;
        }
        let now = Instant::now();
        let mut source = Self {
            pending: PendingFiles::new(terms.settle),
            watches,
            scan: FolderScan::default(),
            finished: BTreeSet::new(),
            found: Vec::new(),
            rescan: now,
            missing: Vec::new(),
            looked: now,
            is_blind: false,
            terms: Arc::new(terms),
        };
        source.look_at_all();
        Ok(source)
    }

    /// How many folders it watches.
    pub(crate) fn folders(&self) -> usize {
        self.watches.len()
    }

    /// What it watches, for people.
    pub(crate) fn describe(&self) -> String {
        let roots: Vec<_> = self.terms.roots.iter().map(|root| root.folder.display().to_string()).collect();
        let below = self.folders().saturating_sub(roots.len());
        format!("{} and {below} folders below", roots.join(", "))
    }

    /// Hands over what is finished until told to stop.
    pub(crate) fn run(mut self, mut desk: WatchDesk, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            self.wait();
            self.hear();
            self.look_for_missing();
            if Instant::now() >= self.rescan && self.scan.is_idle() {
                self.look_at_all();
            }
            self.look(&mut desk, stop);
            self.finished.extend(self.pending.settled());
            if !self.hand_over(&desk, stop) {
                return;
            }
        }
    }

    fn wait(&self) {
        let is_busy = !self.scan.is_idle() || !self.found.is_empty();
        let limit = Timespec::try_from(if is_busy { Duration::ZERO } else { TICK }).unwrap_or_default();
        let mut fds = [PollFd::from_borrowed_fd(self.watches.inotify(), PollFlags::IN)];
        // Interrupted or not: it is looked at in any case.
        let _ = poll(&mut fds, Some(&limit));
    }

    /// All roots once more.
    fn look_at_all(&mut self) {
        let every = if self.is_blind { BLIND_EVERY.min(self.terms.rescan) } else { self.terms.rescan };
        self.rescan = Instant::now() + every;
        self.is_blind = false;
        for root in &self.terms.roots {
            self.scan.add(root.folder.clone());
        }
    }

    fn hear(&mut self) {
        for event in self.watches.read() {
            match event {
                FolderEvent::Overflow => {
                    tracing::warn!(
                        event = "watch_overflow",
                        "More came than the kernel's queue for watchers holds (fs.inotify.max_queued_events): looking at all folders again"
                    );
                    self.rescan = Instant::now();
                }
                FolderEvent::NewFolder(folder) => self.scan.add(folder),
                FolderEvent::LostFolder(folder) => {
                    if self.terms.roots.iter().any(|root| root.folder == folder) && !self.missing.contains(&folder) {
                        tracing::warn!(event = "watch_gone", folder = %folder.display(), "{} is gone, and is watched again once it is there", folder.display());
                        self.missing.push(folder);
                    }
                }
                FolderEvent::Closed(file) => self.seen(file, FileSight::Closed),
                FolderEvent::Made(file) => self.seen(file, FileSight::Made),
            }
        }
    }

    /// A root that was away is looked at whole.
    fn look_for_missing(&mut self) {
        if self.missing.is_empty() || self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        for folder in self.missing.extract_if(.., |folder| folder.is_dir()) {
            tracing::info!(event = "watch_back", folder = %folder.display(), "{} is there again", folder.display());
            self.scan.add(folder);
        }
    }

    /// A file that somebody tells of.
    fn seen(&mut self, file: PathBuf, sight: FileSight) {
        let terms = self.terms.clone();
        let marked = terms.marked_by(&file);
        let is_marker = marked.is_some();
        self.finished.extend(marked.filter(|of| !terms.skips(of)));
        if is_marker || terms.skips(&file) {
            return;
        }
        match (&terms.finish, sight) {
            (FinishRule::Closed, FileSight::Closed) => self.finished.extend([file]),
            // A second name of a file that was closed before; of any other it is told once it is closed.
            (FinishRule::Closed, FileSight::Made) if links(&file) > 1 => self.pend(file),
            (FinishRule::Settled, _) => self.pend(file),
            // Its marker was there first.
            (FinishRule::Marker(pattern), FileSight::Closed) if pattern.stands_by(&file) => {
                self.finished.extend([file])
            }
            (FinishRule::Closed | FinishRule::Marker(_), _) => {}
        }
    }

    fn pend(&mut self, file: PathBuf) {
        if !self.pending.add(file) {
            // They are found again by the next look at all.
            self.rescan = self.rescan.min(Instant::now() + BLIND_EVERY);
        }
    }

    /// Goes on with a scan, and asks the table about what was found.
    fn look(&mut self, desk: &mut WatchDesk, stop: &AtomicBool) {
        for _ in 0..STEPS {
            if self.found.len() >= ASKED {
                break;
            }
            match self.scan.step() {
                None => break,
                Some(ScanStep::Folder(folder)) if self.terms.passes_by(&folder) => self.scan.pass_by(),
                Some(ScanStep::Folder(folder)) => {
                    if let Err(error) = self.watches.add(&folder) {
                        self.blind(&error);
                    }
                }
                Some(ScanStep::File(file, stamp))
                    if !self.terms.skips(&file) && self.terms.marked_by(&file).is_none() =>
                {
                    self.found.push((file, stamp));
                }
                Some(ScanStep::File(..) | ScanStep::Nothing) => {}
            }
        }
        if self.found.is_empty() || (self.found.len() < ASKED && !self.scan.is_idle()) {
            return;
        }
        let terms = self.terms.clone();
        let keys = self.found.iter().map(|(file, _)| terms.key_of(file)).collect();
        // Out of reach: it was waited a little.
        let Some(known) = desk.table.watched_stamps(keys, stop) else { return };
        for (file, stamp) in std::mem::take(&mut self.found) {
            if known.get(&terms.key_of(&file)).is_some_and(|known| *known == stamp.to_string()) {
                continue;
            }
            match &terms.finish {
                FinishRule::Marker(pattern) => {
                    if pattern.stands_by(&file) {
                        self.finished.insert(file);
                    }
                }
                // Whether somebody still writes to it nobody tells any more.
                FinishRule::Closed | FinishRule::Settled => self.pend(file),
            }
        }
    }

    /// Not all folders can be watched: what is in them is looked for.
    fn blind(&mut self, error: &WatchError) {
        if matches!(error, WatchError::Folder { .. }) {
            // Gone again, or not for us; a folder that is unreadable is told by the scan.
            return;
        }
        if !self.is_blind {
            tracing::error!(
                event = "watch_limit",
                "{error}; until then files in the others are looked for once a minute"
            );
        }
        self.is_blind = true;
        self.rescan = self.rescan.min(Instant::now() + BLIND_EVERY);
    }

    /// False once nobody takes anything any more. Waits for room rather than lose a file.
    fn hand_over(&mut self, desk: &WatchDesk, stop: &AtomicBool) -> bool {
        while let Some(file) = self.finished.pop_first() {
            self.pending.forget(&file);
            // Gone, or no regular file.
            let Some(stamp) = FileStamp::at(&file) else { continue };
            let Some(message) = self.terms.message(&file, &stamp) else {
                let file = file.display();
                tracing::warn!(
                    event = "watch_refused",
                    "Not registered: {file}: its name holds bytes that are no letters, which no table holds; rename it"
                );
                continue;
            };
            match desk.intake.offer_patiently(message, stop) {
                Offered::Taken => {}
                Offered::Stopped => return false,
            }
        }
        true
    }
}

/// How a file came to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileSight {
    /// Its writer has closed it, or it got its name when it was whole.
    Closed,
    Made,
}

/// How many names a file has.
fn links(file: &Path) -> u64 {
    std::fs::symlink_metadata(file).map_or(0, |meta| meta.nlink())
}

/// Whether a path is below a folder, and how it goes on from there.
pub(super) fn below<'a>(folder: &Path, path: &'a Path) -> Option<&'a Path> {
    path.strip_prefix(folder).ok().filter(|rest| !rest.as_os_str().is_empty())
}
