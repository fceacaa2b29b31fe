//! An entry of the file list. Counterpart: rsync's `struct file_struct`.

use crate::acl::Acl;
use crate::checksum::Sum;
use crate::xattr::XattrSet;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// What an entry is, read from the mode's type bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character or block device.
    Device,
    /// A fifo or a socket.
    Special,
}

/// One entry of the file list, as the wire carries it. A list may hold millions: what few entries have is kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path relative to the transfer's root, raw bytes, `/` between components; the root itself is `.`.
    pub name: Vec<u8>,
    /// POSIX `st_mode`, type bits included.
    pub mode: u32,
    /// Size in bytes; the target's length for a symlink.
    pub len: u64,
    /// Modification time, whole seconds since 1970, may be negative.
    pub mtime: i64,
    /// Nanoseconds of the modification time, below 1,000,000,000.
    pub nsec: u32,
    /// Numeric owner as the sender knows it.
    pub uid: u32,
    /// Numeric group as the sender knows it.
    pub gid: u32,
    /// What only some entries have.
    pub extra: Extra,
}

/// An entry's [`Extras`], which take no memory while they say nothing. To reach for a field in order to write it takes
/// some: it is done where there is something to write.
#[derive(Clone, Default)]
pub struct Extra(Option<Box<Extras>>);

/// What an entry may have besides, by its kind and by the options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extras {
    /// Target of a symlink.
    pub target: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub rdev: Option<(u32, u32)>,
    /// Whole-file sum, when the list carries them (`-c`).
    pub sum: Option<Sum>,
    /// Access time, whole seconds since 1970 (`-U`; not of a directory).
    pub atime: i64,
    /// The ACL, without what follows from the mode (`-A`; not of a symlink).
    pub access_acl: Option<Arc<Acl>>,
    /// The ACL that what is made in a directory gets; one that says nothing where it has none (`-A`).
    pub default_acl: Option<Arc<Acl>>,
    /// Extended attributes (`-X`).
    pub xattrs: Option<Arc<XattrSet>>,
    /// How a directory takes part in the transfer; [`DirClass::Content`] for everything else.
    pub dir_class: DirClass,
    /// What all names of one file have in common (`-H`); `None` for directories and for files with one name.
    pub link: Option<LinkId>,
}

impl Extras {
    /// Nothing besides.
    const NONE: Self = Self {
        target: None,
        rdev: None,
        sum: None,
        atime: 0,
        access_acl: None,
        default_acl: None,
        xattrs: None,
        dir_class: DirClass::Content,
        link: None,
    };
}

impl Default for Extras {
    fn default() -> Self {
        Self::NONE
    }
}

static NO_EXTRAS: Extras = Extras::NONE;

impl Deref for Extra {
    type Target = Extras;

    fn deref(&self) -> &Extras {
        self.0.as_deref().unwrap_or(&NO_EXTRAS)
    }
}

impl DerefMut for Extra {
    fn deref_mut(&mut self) -> &mut Extras {
        self.0.get_or_insert_default()
    }
}

impl From<Extras> for Extra {
    fn from(extras: Extras) -> Self {
        Self((extras != Extras::NONE).then(|| Box::new(extras)))
    }
}

impl PartialEq for Extra {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Extra {}

impl std::fmt::Debug for Extra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

/// Which file it is that has several names. Equal ids are one file; otherwise the numbers mean something to the sending
/// side only: device and inode. The receiving side has the index of the first name to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkId {
    /// Device on the sending side.
    pub dev: u64,
    /// Inode on the sending side.
    pub ino: u64,
}

/// How a directory takes part in the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DirClass {
    /// Its content is part of the transfer.
    #[default]
    Content,
    /// The same, and it was named as an argument.
    Argument,
    /// Sent without its content.
    NoContent,
    /// Only a parent on the way to something asked for (`--relative`).
    Implied,
}

impl FileEntry {
    /// An entry of which nothing is known but its name and mode: empty, root's, of 1970.
    pub fn new(name: impl Into<Vec<u8>>, mode: u32) -> Self {
        let name = name.into();
        Self { name, mode, len: 0, mtime: 0, nsec: 0, uid: 0, gid: 0, extra: Extra::default() }
    }

    /// What the entry is; `None` for a mode whose type bits mean nothing.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self.mode & 0o170000 {
            0o100000 => Kind::File,
            0o040000 => Kind::Dir,
            0o120000 => Kind::Symlink,
            0o020000 | 0o060000 => Kind::Device,
            0o010000 | 0o140000 => Kind::Special,
            _ => return None,
        })
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == Some(Kind::Dir)
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == Some(Kind::File)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extras_that_say_nothing_take_no_memory() {
        let plain = FileEntry::new("f", 0o100644);
        let mut linked = plain.clone();
        assert!(size_of::<FileEntry>() <= 64, "{}", size_of::<FileEntry>());
        linked.extra.link = Some(LinkId { dev: 1, ino: 2 });
        assert_ne!(plain, linked);
        linked.extra.link = None;
        assert_eq!(plain, linked, "whether or not there is memory for them");
        assert!(plain.extra.0.is_none() && Extra::from((*linked.extra).clone()).0.is_none());
    }
}
