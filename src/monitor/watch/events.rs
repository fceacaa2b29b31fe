//! What inotify tells of folders, in terms of paths.

use super::{FinishRule, WatchError, WatchTerms};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of events that are read at once: some hundreds.
const BUFFER: usize = 16 << 10;
/// So many are taken before anything is done about them.
const EVENTS: usize = 4096;

/// Something that has happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FolderEvent {
    /// Some were not told.
    Overflow,
    NewFolder(PathBuf),
    LostFolder(PathBuf),
    /// A file was closed by who wrote to it, or moved to this name.
    Closed(PathBuf),
    Made(PathBuf),
}

/// The folders that are watched.
pub(super) struct FolderWatches {
    inotify: OwnedFd,
    folders: HashMap<i32, PathBuf>,
    most: usize,
    flags: WatchFlags,
    roots: Vec<PathBuf>,
}

impl FolderWatches {
    pub(super) fn new(terms: &WatchTerms) -> Result<Self, WatchError> {
        let failed = |why: Errno| WatchError::Folder {
            folder: terms.roots.first().map(|root| root.folder.clone()).unwrap_or_default(),
            why: why.into(),
        };
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let mut flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        if matches!(terms.finish, FinishRule::Settled) {
            flags |= WatchFlags::ATTRIB;
        }
        let roots = terms.roots.iter().map(|root| root.folder.clone()).collect();
        Ok(Self { inotify, folders: HashMap::new(), most: terms.folders_most, flags, roots })
    }

    pub(super) fn inotify(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    pub(super) fn len(&self) -> usize {
        self.folders.len()
    }

    /// Watches a folder; one that is watched already is so under this name.
    pub(super) fn add(&mut self, folder: &Path) -> Result<(), WatchError> {
        // A root may be a link: who named it means where it leads.
        let follows = self.roots.iter().any(|root| root == folder);
        let flags = if follows { self.flags } else { self.flags | WatchFlags::DONT_FOLLOW };
        match inotify::add_watch(&self.inotify, folder, flags) {
            Ok(watch) => {
                if self.folders.len() >= self.most && !self.folders.contains_key(&watch) {
                    let _ = inotify::remove_watch(&self.inotify, watch);
                    return Err(WatchError::Most { folder: self.root_of(folder), most: self.most });
                }
                self.folders.insert(watch, folder.to_owned());
                Ok(())
            }
            Err(Errno::NOSPC) => {
                let allowed = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches");
                let allowed = allowed.map_or_else(|_| "no more".to_owned(), |text| text.trim().to_owned());
                Err(WatchError::Kernel { folder: self.root_of(folder), allowed })
            }
            Err(why) => Err(WatchError::Folder { folder: folder.to_owned(), why: why.into() }),
        }
    }

    fn root_of(&self, folder: &Path) -> PathBuf {
        let root = self.roots.iter().find(|root| folder.starts_with(root));
        root.cloned().unwrap_or_else(|| folder.to_owned())
    }

    /// What has happened, as far as it is told by now.
    pub(super) fn read(&mut self) -> Vec<FolderEvent> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut told = Vec::new();
        let mut moved = Vec::new();
        {
            let mut reader = Reader::new(&self.inotify, &mut buffer);
            while told.len() < EVENTS {
                let Ok(event) = reader.next() else { break };
                let events = event.events();
                if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                    told.push(FolderEvent::Overflow);
                    continue;
                }
                let Some(folder) = self.folders.get(&event.wd()).cloned() else { continue };
                let is_own = events.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT);
                if events.contains(ReadFlags::IGNORED) {
                    self.folders.remove(&event.wd());
                    told.push(FolderEvent::LostFolder(folder));
                    continue;
                }
                if is_own {
                    // Of another folder than a root, the one above tells.
                    if self.roots.contains(&folder) {
                        moved.push(folder.clone());
                        told.push(FolderEvent::LostFolder(folder));
                    }
                    continue;
                }
                let Some(name) = event.file_name() else { continue };
                let path = folder.join(OsStr::from_bytes(name.to_bytes()));
                let is_folder = events.contains(ReadFlags::ISDIR);
                if !is_folder {
                    if events.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) {
                        told.push(FolderEvent::Closed(path));
                    } else if events.intersects(ReadFlags::CREATE | ReadFlags::ATTRIB) {
                        told.push(FolderEvent::Made(path));
                    }
                } else if events.contains(ReadFlags::MOVED_FROM) {
                    // What is told of it from now on is told of another name.
                    forget(&mut self.folders, &self.inotify, &path);
                } else if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    told.push(FolderEvent::NewFolder(path));
                }
            }
        }
        for root in moved {
            forget(&mut self.folders, &self.inotify, &root);
        }
        told
    }
}

/// A folder and all below it are watched no more.
fn forget(folders: &mut HashMap<i32, PathBuf>, inotify: &OwnedFd, gone: &Path) {
    folders.retain(|watch, known| {
        let stays = !known.starts_with(gone);
        if !stays {
            let _ = inotify::remove_watch(inotify, *watch);
        }
        stays
    });
}
