//! The file list: its entries and the order both sides share. Counterpart: rsync's `flist.c`.

mod decode;
mod encode;
mod entry;
mod ids;
mod limits;
mod order;
mod rdev;
mod segments;
#[cfg(test)]
mod tests;

use crate::PeerError;
use crate::acl::Acl;
use crate::charset::Charset;
pub use decode::{Arrived, ListDecoder, Unconverted};
pub use encode::ListEncoder;
pub use entry::{DirClass, Extra, Extras, FileEntry, Kind, LinkId};
pub use ids::IdNames;
pub use limits::ListLimits;
pub use order::{Sorting, compare, sort};
pub use segments::Segments;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Index of an entry in the sorted file list; how both sides name a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ndx(pub u32);

/// Which optional fields the entries of this session carry; both sides know it from the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListShape {
    /// Owners (`-o`).
    pub owner: bool,
    /// Groups (`-g`).
    pub group: bool,
    /// Targets of symlinks (`-l`).
    pub links: bool,
    /// Numbers of devices (`-D`).
    pub devices: bool,
    /// Numbers of fifos and sockets, before protocol 31 (`-D`).
    pub specials: bool,
    /// Access times of all but directories (`-U`).
    pub atimes: bool,
    /// ACLs of all but symlinks (`-A`).
    pub acls: bool,
    /// Extended attributes (`-X`).
    pub xattrs: bool,
    /// Bytes of whole-file sum for each regular file (`-c`), 0 for none.
    pub sum_size: usize,
    /// Ids only, no names (`--numeric-ids`).
    pub numeric_ids: bool,
    /// Absolute names are allowed and lose their leading slash (`-R`).
    pub relative: bool,
    /// Entries of mode 0 stand for arguments that are missing (`--delete-missing-args`).
    pub missing_args: bool,
    /// Which names are one file (`-H`).
    pub hard_links: bool,
    /// Directories come with what they hold (`-r`), which entries do not say before protocol 30.
    pub recurse: bool,
    /// What names are in at this end, where that is to be converted (`--iconv`); on the wire they are in UTF-8 then.
    pub charset: Option<Charset>,
}

/// A list in the order both sides share: the whole one, or a segment of it (incremental recursion). An entry's index is
/// its place here, counted from the list's first index. With `--iconv` the two ends' names sort differently, and the order
/// that both share is that of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileList {
    start: u32,
    parent: Option<Box<FileEntry>>,
    sorting: Sorting,
    entries: Vec<FileEntry>,
    /// The places of the entries as they sort, where they do not stand so.
    order: Option<Vec<u32>>,
    dead: Vec<bool>,
}

impl FileList {
    /// Sorts the entries of a whole list as both sides do. Of entries that share a name the first lives, or the directory;
    /// the others keep their index and are dead.
    pub fn new(entries: Vec<FileEntry>) -> Self {
        Self::segment(0, entries)
    }

    /// The same for a segment with this first index.
    pub fn segment(start: u32, entries: Vec<FileEntry>) -> Self {
        Self::sorted(Sorting::Folders, start, entries)
    }

    /// The same in the order of a session.
    pub fn sorted(sorting: Sorting, start: u32, mut entries: Vec<FileEntry>) -> Self {
        let mut nothing = vec![(); entries.len()];
        sort(sorting, &mut entries, &mut nothing);
        Self::with_order(sorting, start, entries, None)
    }

    /// A segment whose entries keep the place in which they came; they are gone through as they sort all the same. Those
    /// without a name are dead.
    pub(crate) fn as_it_came(sorting: Sorting, start: u32, entries: Vec<FileEntry>) -> Self {
        let order = order::order_of(sorting, &entries);
        Self::with_order(sorting, start, entries, Some(order))
    }

    fn with_order(sorting: Sorting, start: u32, entries: Vec<FileEntry>, order: Option<Vec<u32>>) -> Self {
        let mut list = Self { start, parent: None, sorting, entries, order, dead: Vec::new() };
        let entries = &list.entries;
        let dirs: HashSet<&[u8]> =
            entries.iter().filter(|entry| entry.is_dir()).map(|entry| entry.name.as_slice()).collect();
        let mut dead = vec![false; entries.len()];
        for nth in 0..entries.len() {
            let entry = &entries[list.place(nth)];
            let before = nth.checked_sub(1).map(|nth| &entries[list.place(nth)]);
            let repeated = before.is_some_and(|before| before.name == entry.name && before.is_dir() == entry.is_dir());
            dead[list.place(nth)] =
                repeated || entry.name.is_empty() || (!entry.is_dir() && dirs.contains(entry.name.as_slice()));
        }
        list.dead = dead;
        list
    }

    /// Where the entry stands that sorts as the nth.
    fn place(&self, nth: usize) -> usize {
        self.order.as_ref().map_or(nth, |order| order[nth] as usize)
    }

    /// Says which directory the segment lists; it has the index before the first.
    #[must_use]
    pub fn of_dir(mut self, parent: Option<FileEntry>) -> Self {
        self.parent = parent.map(Box::new);
        self
    }

    /// The directory the segment lists.
    pub fn parent(&self) -> Option<&FileEntry> {
        self.parent.as_deref()
    }

    /// Index of the first entry.
    pub fn start(&self) -> Ndx {
        Ndx(self.start)
    }

    /// How many entries, dead ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at an index, which may be the directory's that the segment lists; `None` outside the list and for dead
    /// ones.
    pub fn get(&self, ndx: Ndx) -> Option<&FileEntry> {
        let Some(at) = ndx.0.checked_sub(self.start) else {
            return self.parent().filter(|_| ndx.0 + 1 == self.start);
        };
        if *self.dead.get(at as usize)? { None } else { self.entries.get(at as usize) }
    }

    /// All entries in order, dead ones too.
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// The same as they go over the wire: each directory before what it holds, and next to it.
    pub fn to_send(&self) -> impl Iterator<Item = &FileEntry> {
        let places = (self.sorting == Sorting::Bytes && self.order.is_none())
            .then(|| order::order_of(Sorting::Folders, &self.entries));
        (0..self.entries.len()).map(move |nth| match &places {
            Some(places) => &self.entries[places[nth] as usize],
            None => &self.entries[nth],
        })
    }

    /// The living entries with their indexes, as they sort.
    pub fn iter(&self) -> impl Iterator<Item = (Ndx, &FileEntry)> {
        (0..self.entries.len())
            .map(|nth| self.place(nth))
            .filter(|&at| !self.dead[at])
            .map(|at| (Ndx(self.start + at as u32), &self.entries[at]))
    }

    /// Replaces owners and groups, those in ACLs too; the order does not depend on them.
    pub fn map_ids(&mut self, user: impl Fn(u32) -> u32, group: impl Fn(u32) -> u32) {
        // Entries share their ACLs, before as after.
        let mut mapped: HashMap<Arc<Acl>, Arc<Acl>> = HashMap::new();
        let mut map = |acl: &mut Option<Arc<Acl>>| {
            if let Some(acl) = acl.as_mut().filter(|acl| !acl.names.is_empty()) {
                let new = || Arc::new(acl.with_ids(&user, &group));
                *acl = Arc::clone(mapped.entry(Arc::clone(acl)).or_insert_with(new));
            }
        };
        for entry in self.entries.iter_mut().chain(self.parent.as_deref_mut()) {
            (entry.uid, entry.gid) = (user(entry.uid), group(entry.gid));
            if entry.extra.access_acl.is_some() || entry.extra.default_acl.is_some() {
                map(&mut entry.extra.access_acl);
                map(&mut entry.extra.default_acl);
            }
        }
    }

    /// Lets every entry be changed in what the order does not depend on: not its name, nor what it is.
    pub fn each(&mut self, change: impl FnMut(&mut FileEntry)) {
        self.entries.iter_mut().chain(self.parent.as_deref_mut()).for_each(change);
    }

    /// The index of a living entry.
    pub fn find(&self, name: &[u8], is_dir: bool) -> Option<Ndx> {
        let nth = match &self.order {
            None => order::find(self.sorting, &self.entries, |entry| entry, name, is_dir),
            Some(order) => order::find(self.sorting, order, |&at| &self.entries[at as usize], name, is_dir),
        };
        nth.map(|nth| self.place(nth)).filter(|&at| !self.dead[at]).map(|at| Ndx(self.start + at as u32))
    }

    /// A directory that came once with and once without its content has it.
    pub fn join_contents(&mut self) {
        for nth in 1..self.entries.len() {
            let at = self.place(nth - 1);
            let (first, second) = (&self.entries[at], &self.entries[self.place(nth)]);
            if matches!(first.extra.dir_class, DirClass::NoContent | DirClass::Implied)
                && matches!(second.extra.dir_class, DirClass::Content | DirClass::Argument)
                && self.sorting.compare(first, second).is_eq()
            {
                self.entries[at].extra.dir_class = second.extra.dir_class;
            }
        }
    }

    /// Drops directories that hold nothing but directories (`--prune-empty-dirs`), unless `keep` wants them. They keep
    /// their index and are dead.
    pub fn prune(&mut self, keep: impl Fn(&FileEntry) -> bool) {
        let mut needed: HashSet<Vec<u8>> = HashSet::new();
        for nth in (0..self.entries.len()).rev() {
            let at = self.place(nth);
            let entry = &self.entries[at];
            if self.dead[at] || entry.name == b"." {
                continue;
            }
            if entry.is_dir() && !needed.contains(&entry.name) && !keep(entry) {
                self.dead[at] = true;
            } else if let Some(slash) = entry.name.iter().rposition(|&byte| byte == b'/')
                && !needed.contains(&entry.name[..slash])
            {
                needed.insert(entry.name[..slash].to_vec());
            }
        }
    }

    /// Refuses a list in which something stands beneath a name that is not a directory of the same list: a hostile sender
    /// could otherwise write through a symlink it sent itself.
    pub fn check_parents(&self) -> Result<(), PeerError> {
        let mut checked: &[u8] = b"";
        for (_, entry) in self.iter() {
            // What is missing at the sender has nothing to be written through.
            if entry.kind().is_none() {
                continue;
            }
            if let Some(slash) = entry.name.iter().rposition(|&byte| byte == b'/') {
                let parent = &entry.name[..slash];
                if parent != checked && self.find(parent, true).is_none() {
                    return Err(unsafe_name(&entry.name, "its directory is not in the list"));
                }
                checked = parent;
            }
        }
        Ok(())
    }

    /// Refuses a segment that holds anything else than what lies directly in its directory, for the same reason.
    pub(crate) fn check_children(&self, dir: &[u8]) -> Result<(), PeerError> {
        for entry in self.entries.iter().filter(|entry| !entry.name.is_empty()) {
            let parent = match entry.name.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => &entry.name[..slash],
                None => b".",
            };
            if parent != dir {
                return Err(unsafe_name(&entry.name, "it is not in the directory that was announced"));
            }
        }
        Ok(())
    }
}

fn unsafe_name(name: &[u8], why: &'static str) -> PeerError {
    PeerError::UnsafeName { name: name.escape_ascii().to_string(), why }
}

/// Bits of an entry's flags word.
pub(crate) mod flag {
    crate::listed::listed!(u32 {
        pub(super) TOP_DIR = 0x0001;
        pub(super) SAME_MODE = 0x0002;
        /// A second byte of flags follows; in varint form only a filler.
        pub(super) EXTENDED = 0x0004;
        pub(super) SAME_UID = 0x0008;
        pub(super) SAME_GID = 0x0010;
        pub(super) SAME_NAME = 0x0020;
        pub(super) LONG_NAME = 0x0040;
        pub(super) SAME_TIME = 0x0080;
        /// The same bit before 28: the number of a device is the one before.
        pub(super) SAME_RDEV = 0x0004;
        /// On devices.
        pub(super) SAME_RDEV_MAJOR = 0x0100;
        /// On directories.
        pub(super) NO_CONTENT_DIR = 0x0100;
        pub(super) HLINKED = 0x0200;
        pub(super) USER_NAME_FOLLOWS = 0x0400;
        pub(super) GROUP_NAME_FOLLOWS = 0x0800;
        /// In 28 and 29 with `HLINKED`.
        pub(super) SAME_DEV = 0x0400;
        /// In 28 and 29 on devices: the minor number is a byte.
        pub(super) RDEV_MINOR_8 = 0x0800;
        /// With `HLINKED`.
        pub(super) HLINK_FIRST = 0x1000;
        pub(super) MOD_NSEC = 0x2000;
        pub(super) SAME_ATIME = 0x4000;
    });
    /// The whole word that says: end of list, I/O errors follow.
    pub(super) const END_WITH_ERROR: u32 = 0x1004;
}

/// What the previous entry leaves behind for the next one's compression; the same on both sides.
#[derive(Debug, Default)]
struct Previous {
    name: Vec<u8>,
    mode: u32,
    mtime: i64,
    atime: i64,
    uid: u32,
    gid: u32,
    major: u32,
    /// A device's whole number, before 28.
    rdev: u32,
    /// One more than the device of the last file with several names, before 30.
    link_dev: u64,
}

impl Previous {
    /// Becomes the same in the memory it has: there is one for each entry.
    fn copy(&mut self, other: &Self) {
        let mut name = std::mem::take(&mut self.name);
        name.clone_from(&other.name);
        *self = Self { name, ..*other };
    }
}
