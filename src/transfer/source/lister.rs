//! File lists out of a walk: the whole list at once, or segment by segment as far as somebody asks (incremental
//! recursion). Counterpart: `send_file_list` and `send_extra_file_list` in rsync's `flist.c`.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use protocol::PeerError;
use protocol::flist::{FileEntry, FileList, Ndx, Segments, Sorting, compare, sort};
use rustix::io::Errno;

use super::{Arguments, Folder, Listed, Location, ScanError, Walk};
use crate::transfer::help::OpenApart;

/// Lists what a walk finds and remembers where it was found, as long as it may be asked for.
pub(crate) struct Lister<'h> {
    walk: Walk<'h>,
    /// Directories whose segments are due; the last is next, so that the walk goes depth first.
    due: Vec<DueFolder>,
    /// What `--relative` arguments name below the first level, by directory.
    below: HashMap<Vec<u8>, Vec<Listed>>,
    /// Number of the next directory.
    dirs: u32,
    sorting: Sorting,
    places: Segments<ListedPlaces>,
}

/// Where the entries of a living segment are.
struct ListedPlaces {
    start: Ndx,
    /// Of the directory it lists, whose index stands before the first.
    parent: Option<Location>,
    entries: Vec<Location>,
}

/// A directory whose segment is due.
struct DueFolder {
    number: u32,
    entry: FileEntry,
    at: Location,
    /// Where its contents are; more than one where arguments overlap.
    folders: Vec<Folder>,
}

impl<'h> Lister<'h> {
    /// Has listed nothing yet.
    pub(crate) fn new(walk: Walk<'h>, incremental: bool, sorting: Sorting) -> Self {
        Lister { walk, due: Vec::new(), below: HashMap::new(), dirs: 0, sorting, places: Segments::new(incremental) }
    }

    /// The whole list.
    pub(crate) fn whole(&mut self, arguments: Arguments<'_>) -> Result<FileList, ListError> {
        let (mut entries, mut places) = self.walk.everything(arguments)?;
        sort(self.sorting, &mut entries, &mut places);
        let list = FileList::sorted(self.sorting, self.places.next_start(), entries);
        self.places.add(&list, ListedPlaces { start: list.start(), parent: None, entries: places })?;
        Ok(list)
    }

    /// The first segment: what the arguments name, and the contents of those that stand for their contents.
    pub(crate) fn first(&mut self, arguments: Arguments<'_>) -> Result<FileList, ListError> {
        let mut found = Vec::new();
        for operand in self.walk.operands(arguments) {
            for mut listed in self.walk.argument(&operand?)? {
                match listed.entry.name.iter().rposition(|&byte| byte == b'/') {
                    Some(slash) => {
                        let dir = listed.entry.name[..slash].to_vec();
                        self.below.entry(dir).or_default().push(listed);
                    }
                    None => {
                        let root = if listed.entry.name == b"." { listed.folder.take() } else { None };
                        found.push(listed);
                        found.extend(root.map(|root| self.walk.folder(&root)).transpose()?.into_iter().flatten());
                    }
                }
            }
        }
        Ok(self.segment(None, found)?)
    }

    /// The next segment and the number of the directory it lists; `None` after the last.
    pub(crate) fn next(&mut self) -> Option<Result<(u32, FileList), ListError>> {
        let due = self.due.pop()?;
        Some(self.contents(due))
    }

    fn contents(&mut self, due: DueFolder) -> Result<(u32, FileList), ListError> {
        let DueFolder { number, entry, at, folders } = due;
        let mut found = Vec::new();
        for folder in &folders {
            found.extend(self.walk.folder(folder)?);
        }
        found.extend(self.below.remove(&entry.name).into_iter().flatten());
        Ok((number, self.segment(Some((entry, at)), found)?))
    }

    /// Bits of trouble since the last time.
    pub(crate) fn take_io_error(&mut self) -> i32 {
        self.walk.take_io_error()
    }

    /// Lets go of the oldest segment.
    pub(crate) fn release(&mut self) {
        self.places.release();
    }

    /// Opens a listed regular file.
    pub(crate) fn open(&self, ndx: Ndx, entry: &FileEntry) -> io::Result<File> {
        self.walk.tree.open(&entry.name, self.place(ndx)?)
    }

    /// What opens it in another thread; see [`super::SourceTree::apart`].
    pub(crate) fn apart(&self, ndx: Ndx, entry: &FileEntry) -> Option<OpenApart> {
        self.walk.tree.apart(&entry.name, self.place(ndx).ok()?)
    }

    /// Removes a sent file; see [`super::SourceTree::remove`].
    pub(crate) fn remove(&self, ndx: Ndx, entry: &FileEntry) -> io::Result<bool> {
        self.walk.tree.remove(entry, self.place(ndx)?)
    }

    /// The value of an extended attribute; see [`super::SourceTree::xattr`].
    pub(crate) fn xattr(&self, ndx: Ndx, entry: &FileEntry, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.walk.tree.xattr(entry, self.place(ndx)?, name)
    }

    /// The full path of an entry, for messages only.
    pub(crate) fn full_path(&self, ndx: Ndx, entry: &FileEntry) -> Vec<u8> {
        self.place(ndx).map_or_else(|_| entry.name.clone(), |at| self.walk.tree.full_path(&entry.name, at))
    }

    fn place(&self, ndx: Ndx) -> io::Result<Location> {
        let place = self.places.find(ndx).and_then(|places| match ndx.0.checked_sub(places.start.0) {
            Some(at) => places.entries.get(at as usize).copied(),
            None => places.parent,
        });
        place.ok_or_else(|| io::Error::from(Errno::NOENT))
    }

    fn segment(&mut self, parent: Option<(FileEntry, Location)>, found: Vec<Listed>) -> Result<FileList, PeerError> {
        let (list, places, folders) = self.sorted(found);
        let mut due: Vec<DueFolder> = Vec::new();
        for (at, folder) in folders {
            let entry = &list.entries()[at];
            let number = self.dirs;
            self.dirs += 1;
            // The root's contents are in this very segment.
            if entry.name == b"." {
                continue;
            }
            match due.last_mut().filter(|due| due.entry.name == entry.name) {
                // Both sides keep the first of several; its segment has the contents of all.
                Some(first) => first.folders.extend(folder.map(|folder| *folder)),
                None => {
                    let folders = folder.map(|folder| *folder).into_iter().collect();
                    due.push(DueFolder { number, entry: entry.clone(), at: places[at], folders });
                }
            }
        }
        self.due.extend(due.into_iter().rev());
        let root = || {
            let entry = list.iter().next().map(|(_, entry)| entry).filter(|entry| entry.name == b".")?;
            Some((entry.clone(), *places.first()?))
        };
        let parent = parent.or_else(|| if self.places.is_empty() { root() } else { None });
        let (parent, place) = parent.unzip();
        let list = list.of_dir(parent);
        self.places.add(&list, ListedPlaces { start: list.start(), parent: place, entries: places })?;
        Ok(list)
    }

    /// The list of what was found, the places of its entries, and of each directory its place and folder.
    #[allow(clippy::type_complexity)]
    fn sorted(&self, mut found: Vec<Listed>) -> (FileList, Vec<Location>, Vec<(usize, Option<Box<Folder>>)>) {
        // The list sorts the same way, and leaves what is sorted as it is.
        found.sort_by(|a, b| compare(&a.entry, &b.entry));
        let (mut entries, mut places, mut folders) = (Vec::new(), Vec::new(), Vec::new());
        for (number, Listed { entry, at, folder }) in found.into_iter().enumerate() {
            if entry.is_dir() {
                folders.push((number, folder));
            }
            entries.push(entry);
            places.push(at);
        }
        (FileList::segment(self.places.next_start(), entries), places, folders)
    }
}

/// Why arguments give no list.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    /// An argument or a filter rule is refused.
    #[error("{0}")]
    Scan(#[from] ScanError),
    /// There are more entries than indexes.
    #[error("{0}")]
    TooMany(#[from] PeerError),
}
