//! A file, directory, link or node held by descriptor, and the extended attributes of it and of nothing else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::OnceLock;

use protocol::flist::Kind;
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::{beneath, modes};

/// Longest value or list of names that is read; Linux itself stops at 64 KiB.
const READ_MOST: usize = 16 << 20;

/// What one name led to, whatever the name leads to later.
pub(crate) struct Pinned {
    fd: OwnedFd,
    /// Where the descriptor serves for lookups only: the way to the same inode.
    path: Option<String>,
}

impl Pinned {
    /// Holds `leaf` itself, not what a symlink points to; it must be a `kind`.
    pub(crate) fn open(dir: &OwnedFd, leaf: &[u8], kind: Kind) -> io::Result<Self> {
        let open = |flags| Ok(rustix::fs::openat(dir, leaf, flags | OFlags::NOFOLLOW, Mode::empty())?);
        Self::open_with(kind, open)
    }

    /// Holds `leaf`, or what it points to where it is a symlink.
    pub(crate) fn open_following(dir: &OwnedFd, leaf: &[u8], kind: Kind) -> io::Result<Self> {
        Self::open_with(kind, |flags| beneath::open_following(dir, leaf, flags))
    }

    fn open_with(kind: Kind, open: impl Fn(OFlags) -> io::Result<OwnedFd>) -> io::Result<Self> {
        // Only looked up: a device or fifo must not be opened, and a file need not be readable to us.
        let held = Self::lookup(open(OFlags::PATH | OFlags::CLOEXEC)?).still(kind)?;
        if proc_is_there() || !matches!(kind, Kind::File | Kind::Dir) {
            return Ok(held);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = Self { fd: open(flags)?, path: None };
        let (there, here) = (held.stat()?, open.stat()?);
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) { Ok(open) } else { Err(replaced()) }
    }

    /// Holds what a descriptor for lookups stands for.
    pub(crate) fn lookup(fd: OwnedFd) -> Self {
        let path = Some(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        Self { fd, path }
    }

    /// Holds an open file.
    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self { fd: file.as_fd().try_clone_to_owned()?, path: None })
    }

    fn still(self, kind: Kind) -> io::Result<Self> {
        if beneath::kind(self.stat()?.st_mode) == Some(kind) {
            return Ok(self);
        }
        Err(replaced())
    }

    pub(crate) fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.fd)?)
    }

    /// The value of an extended attribute; `None` where there is none, or none of its kind can be.
    pub(crate) fn xattr(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let read = |buffer: &mut Vec<u8>| match &self.path {
            None => rustix::fs::fgetxattr(&self.fd, name, spare_capacity(buffer)),
            Some(path) => rustix::fs::getxattr(path, name, spare_capacity(buffer)),
        };
        match whole(read) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of all extended attributes, in no order.
    pub(crate) fn xattr_names(&self) -> io::Result<Vec<Vec<u8>>> {
        let read = |buffer: &mut Vec<u8>| match &self.path {
            None => rustix::fs::flistxattr(&self.fd, spare_capacity(buffer)),
            Some(path) => rustix::fs::listxattr(path, spare_capacity(buffer)),
        };
        match whole(read) {
            Ok(names) => {
                let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
                Ok(names.map(<[u8]>::to_vec).collect())
            }
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        let done = match &self.path {
            None => rustix::fs::fsetxattr(&self.fd, name, value, XattrFlags::empty()),
            Some(path) => rustix::fs::setxattr(path, name, value, XattrFlags::empty()),
        };
        Ok(done?)
    }

    /// Removes an extended attribute; one that is not there is fine.
    pub(crate) fn remove_xattr(&self, name: &[u8]) -> io::Result<()> {
        let done = match &self.path {
            None => rustix::fs::fremovexattr(&self.fd, name),
            Some(path) => rustix::fs::removexattr(path, name),
        };
        match done {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets permissions, of a symlink's own never.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        match &self.path {
            None => modes::fchmod(&self.fd, mode),
            Some(path) => modes::chmod(path, mode),
        }
    }
}

fn replaced() -> io::Error {
    io::Error::other("Something else took its place meanwhile")
}

/// Whether descriptors for lookups can be used through /proc, which a chroot need not have.
fn proc_is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| std::path::Path::new("/proc/self/fd").is_dir())
}

/// Reads with ever more room until it is enough.
fn whole(read: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::with_capacity(256);
    loop {
        match read(&mut buffer) {
            Ok(_) => return Ok(buffer),
            Err(Errno::RANGE) if buffer.capacity() < READ_MOST => {
                let more = buffer.capacity() * 4;
                buffer.clear();
                buffer.reserve(more);
            }
            Err(error) => return Err(error),
        }
    }
}
