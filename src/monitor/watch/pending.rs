//! Files that count as finished once they have not changed for a while.

use crate::disk::summed::FileStamp;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many are watched at once; others are found again by looking.
const MOST: usize = 100_000;
/// How often one is looked at while it waits.
const LOOKS: u32 = 4;

/// A file that may still change.
struct PendingFile {
    stamp: Option<FileStamp>,
    since: Instant,
}

/// All of them.
pub(super) struct PendingFiles {
    files: HashMap<PathBuf, PendingFile>,
    settle: Duration,
    looked: Instant,
}

impl PendingFiles {
    /// For so long they may not change.
    pub(super) fn new(settle: Duration) -> Self {
        Self { files: HashMap::new(), settle, looked: Instant::now() }
    }

    /// One more, which has changed just now or was just found; false where there is no room.
    pub(super) fn add(&mut self, file: PathBuf) -> bool {
        if self.files.len() >= MOST && !self.files.contains_key(&file) {
            return false;
        }
        let stamp = FileStamp::at(&file);
        let known = self.files.entry(file).or_insert(PendingFile { stamp, since: Instant::now() });
        if known.stamp != stamp {
            *known = PendingFile { stamp, since: Instant::now() };
        }
        true
    }

    pub(super) fn forget(&mut self, file: &Path) {
        self.files.remove(file);
    }

    /// Those that have not changed for long enough; they are pending no more.
    pub(super) fn settled(&mut self) -> Vec<PathBuf> {
        let now = Instant::now();
        if now.duration_since(self.looked) < self.settle / LOOKS {
            return Vec::new();
        }
        self.looked = now;
        let mut settled = Vec::new();
        self.files.retain(|path, file| {
            let stamp = FileStamp::at(path);
            match stamp {
                None => return false,
                Some(_) if stamp != file.stamp => *file = PendingFile { stamp, since: now },
                Some(_) if now.duration_since(file.since) >= self.settle => {
                    settled.push(path.clone());
                    return false;
                }
                Some(_) => {}
            }
            true
        });
        settled
    }
}
