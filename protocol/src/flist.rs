//! The file list: its entries and the order both sides share.

use crate::checksum::Sum;

/// Index of an entry in the sorted file list; how both sides name a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ndx(pub u32);

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

/// One entry of the file list, as the wire carries it.
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
    /// Target of a symlink.
    pub target: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub rdev: Option<(u32, u32)>,
    /// Whole-file sum, when the list carries them (`-c`).
    pub sum: Option<Sum>,
    /// How a directory takes part in the transfer; [`DirClass::Content`] for everything else.
    pub dir_class: DirClass,
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
}
