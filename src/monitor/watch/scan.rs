//! Looks at folders and what is in them, a step at a time.

use super::WatchError;
use crate::disk::summed::FileStamp;
use std::collections::{HashSet, VecDeque};
use std::fs::{self, ReadDir};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What a step has come to.
#[derive(Debug, PartialEq)]
pub(super) enum ScanStep {
    /// A folder whose files come next: watched before it is read, nothing that comes into it is missed.
    Folder(PathBuf),
    File(PathBuf, FileStamp),
    Nothing,
}

/// A look at folders and all below them; links are not followed.
#[derive(Default)]
pub(super) struct FolderScan {
    /// Folders to be looked at, in their order, and to be found.
    folders: VecDeque<PathBuf>,
    queued: HashSet<PathBuf>,
    /// The one whose turn it is.
    next: Option<PathBuf>,
    reading: Option<ReadDir>,
}

impl FolderScan {
    /// One more.
    pub(super) fn add(&mut self, folder: PathBuf) {
        if self.queued.insert(folder.clone()) {
            self.folders.push_back(folder);
        }
    }

    /// What is in the folder of the last step is not looked at.
    pub(super) fn pass_by(&mut self) {
        self.next = None;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.folders.is_empty() && self.next.is_none() && self.reading.is_none()
    }

    /// The next step; `None` where there is none.
    pub(super) fn step(&mut self) -> Option<ScanStep> {
        if let Some(folder) = self.next.take() {
            match fs::read_dir(&folder) {
                Ok(reading) => self.reading = Some(reading),
                Err(error) => tell(&folder, &error),
            }
            return Some(ScanStep::Nothing);
        }
        if let Some(reading) = &mut self.reading {
            let entry = match reading.next() {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    tracing::warn!(event = "watch_unreadable", "A watched folder cannot be read to its end: {error}");
                    self.reading = None;
                    return Some(ScanStep::Nothing);
                }
                None => {
                    self.reading = None;
                    return Some(ScanStep::Nothing);
                }
            };
            let path = entry.path();
            return Some(match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    self.add(path);
                    ScanStep::Nothing
                }
                Ok(kind) if kind.is_file() => match FileStamp::at(&path) {
                    Some(stamp) => ScanStep::File(path, stamp),
                    None => ScanStep::Nothing,
                },
                _ => ScanStep::Nothing,
            });
        }
        let folder = self.folders.pop_front()?;
        self.queued.remove(&folder);
        self.next = Some(folder.clone());
        Some(ScanStep::Folder(folder))
    }
}

fn tell(folder: &Path, error: &std::io::Error) {
    if error.kind() != ErrorKind::NotFound && error.kind() != ErrorKind::NotADirectory {
        let folder = folder.display();
        tracing::warn!(event = "watch_unreadable", "What is in {folder} is not registered: it cannot be read: {error}");
    }
}

/// Whether to look below a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descent {
    Below,
    Not,
}

/// Calls it for a folder and all below; what vanishes meanwhile is passed over.
pub(super) fn each_folder(
    root: &Path,
    call: &mut dyn FnMut(&Path) -> Result<Descent, WatchError>,
) -> Result<(), WatchError> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let descent = match call(&folder) {
            Err(WatchError::Folder { .. }) if folder != root => Descent::Not,
            called => called?,
        };
        if descent == Descent::Not {
            continue;
        }
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.map(|entry| entry.path()));
    }
    Ok(())
}
