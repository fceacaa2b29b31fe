//! Where received files go: everything beneath one held directory.
//! Owns names, temporary files, attributes and their order; which file is wanted is the generator's business.
//! Counterpart: the parts of rsync's `generator.c`, `receiver.c` and `rsync.c` that touch the disk.

mod alternative;
mod attrs;
mod backup;
mod error;
mod fake;
mod further;
mod link;
mod listing;
mod output;
mod partial;
mod places;
#[cfg(test)]
mod tests;
mod unchanged;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use protocol::args::Options;
use protocol::filter::AttributeRules;
use protocol::flist::{FileEntry, Kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::disk::beneath::{self, Beneath};
use crate::disk::fake::Fake;
use crate::disk::xattr::Reach;
use error::During;
use places::Places;

pub(crate) use attrs::{Attrs, LateDirs, Preserve, same_mtime};
pub(crate) use error::DestError;
pub(crate) use further::{Further, FurtherChange, Values};
pub(crate) use listing::OpenFolder;
pub(in crate::transfer) use output::sync_dir;
pub(crate) use output::temp_name;
pub(crate) use output::{Fsync, OutputFile};
pub(crate) use places::{Missing, in_place};
pub(crate) use unchanged::{Stamp, Whole};

/// The destination directory; names are relative to it and no symlink beneath it is followed.
pub struct Dest {
    beneath: Beneath,
    umask: u32,
    am_root: bool,
    /// The groups that others than root can give files to.
    groups: Arc<[u32]>,
    /// What only root could set is kept in extended attributes.
    fake: Fake,
    reach: Reach,
    places: Arc<Places>,
    /// A symlink to a directory counts as one (`--keep-dirlinks`).
    keeps_dirlinks: bool,
    /// What the user is to hear of backups.
    words: Mutex<Vec<String>>,
}

/// What stands at a name, itself and not what a symlink points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// POSIX `st_mode`, type bits included.
    pub mode: u32,
    /// Size in bytes.
    pub len: u64,
    /// Modification time, whole seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of the modification time.
    pub nsec: u32,
    /// Access time, whole seconds since 1970.
    pub atime: i64,
    pub uid: u32,
    pub gid: u32,
    /// Device the file is on.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Major and minor number, of a device only.
    pub rdev: (u32, u32),
}

impl Found {
    pub fn kind(&self) -> Option<Kind> {
        beneath::kind(self.mode)
    }
}

impl From<Stat> for Found {
    fn from(stat: Stat) -> Self {
        let (mtime, nsec) = beneath::mtime(&stat);
        Found {
            mode: stat.st_mode,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime,
            nsec,
            atime: stat.st_atime,
            uid: stat.st_uid,
            gid: stat.st_gid,
            dev: stat.st_dev,
            ino: stat.st_ino,
            rdev: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        }
    }
}

impl Dest {
    /// Opens the destination; symlinks in `path` are followed only when root or we own them.
    pub fn open(path: &Path) -> io::Result<Dest> {
        beneath::open_operand(path).map(Dest::from_dir)
    }

    /// The same, where a missing last component is made.
    pub fn open_or_make(path: &Path) -> io::Result<Dest> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                beneath::make_operand(path)?;
                Self::open(path)
            }
            opened => opened,
        }
    }

    /// Takes a directory that is already open.
    pub fn from_dir(dir: OwnedFd) -> Dest {
        Self::within(Beneath::new(Arc::new(dir)))
    }

    /// A destination that does not exist, as a dry run meets it.
    pub(in crate::transfer) fn absent() -> Dest {
        Self::within(Beneath::absent())
    }

    fn within(beneath: Beneath) -> Dest {
        let am_root = rustix::process::geteuid().is_root();
        let own = rustix::process::getegid().as_raw();
        let further = rustix::process::getgroups().unwrap_or_default();
        let groups = further.iter().map(|group| group.as_raw()).chain([own]).collect();
        let reach = Reach { root: am_root, ..Reach::default() };
        let places = Arc::default();
        let (fake, words) = (Fake::No, Mutex::default());
        Dest { beneath, umask: umask(), am_root, groups, fake, reach, places, keeps_dirlinks: false, words }
    }

    /// With what the options say of root's powers and of extended attributes.
    pub fn with(mut self, options: &Options) -> Dest {
        self.am_root = options.super_user.unwrap_or(self.am_root);
        if options.fake_super {
            (self.am_root, self.fake) = (false, Fake::Yes);
        }
        self.keeps_dirlinks = options.keep_dirlinks;
        if options.keep_dirlinks {
            self.beneath = self.beneath.trusting();
        } else if options.relative && options.no_implied_dirs {
            self.beneath = self.beneath.trusting_within();
        }
        self.reach = Reach { root: self.am_root, internal: options.xattrs > 1, fake: self.fake, ..self.reach };
        self
    }

    /// With rules for the names of extended attributes.
    pub(in crate::transfer) fn filtering(mut self, rules: Arc<AttributeRules>) -> Dest {
        self.reach.rules = rules;
        self
    }

    /// The same destination for another thread, which then keeps its own place in the tree.
    pub fn handle(&self) -> Dest {
        let (beneath, groups, places) = (self.beneath.again(), self.groups.clone(), self.places.clone());
        Dest { beneath, groups, places, reach: self.reach.clone(), words: Mutex::default(), ..*self }
    }

    /// Whether we can make devices.
    pub fn makes_devices(&self) -> bool {
        self.am_root || self.fake == Fake::Yes
    }

    /// What stands at `name`; `None` where nothing does.
    pub fn stat(&self, name: &[u8]) -> Result<Option<Found>, DestError> {
        let stat = || -> io::Result<Found> {
            let (dir, leaf) = self.beneath.parent(name)?;
            let found = Found::from(rustix::fs::statat(&*dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?);
            self.disguised(&dir, leaf, found)
        };
        absent_as_none(stat()).during("stat", name)
    }

    /// The same for what is to be a directory: with `--keep-dirlinks` a symlink to one is one.
    pub fn stat_dir(&self, name: &[u8]) -> Result<Option<Found>, DestError> {
        let found = self.stat(name)?;
        if !self.keeps_dirlinks || found.and_then(|found| found.kind()) != Some(Kind::Symlink) {
            return Ok(found);
        }
        match self.beneath.dir(name) {
            Ok(dir) => Ok(Some(rustix::fs::fstat(&*dir).during("stat", name)?.into())),
            Err(_) => Ok(found),
        }
    }

    /// A directory as a place, or anything else by its name in its parent.
    fn place<'n>(&self, name: &'n [u8], kind: Kind) -> io::Result<(Arc<OwnedFd>, &'n [u8])> {
        if kind == Kind::Dir && self.keeps_dirlinks {
            return Ok((self.beneath.dir(name)?, b"."));
        }
        self.beneath.parent(name)
    }

    /// Opens the regular file that stands at `name`; `None` for anything else.
    pub fn basis(&self, name: &[u8]) -> Result<Option<File>, DestError> {
        let open = || -> io::Result<OwnedFd> {
            let (dir, leaf) = self.beneath.parent(name)?;
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            Ok(rustix::fs::openat(&*dir, leaf, flags, Mode::empty())?)
        };
        let opened = absent_as_none(open()).during("open", name)?;
        let Some(fd) = opened else { return Ok(None) };
        let stat = rustix::fs::fstat(&fd).during("stat", name)?;
        let usable = match beneath::kind(stat.st_mode) {
            Some(Kind::File) => true,
            Some(Kind::Device) => self.places.write_devices,
            _ => false,
        };
        Ok(usable.then(|| fd.into()))
    }

    /// The target of the symlink that stands at `name`; `None` for anything else.
    pub fn read_link(&self, name: &[u8]) -> Result<Option<Vec<u8>>, DestError> {
        let read = || -> io::Result<Vec<u8>> {
            let (dir, leaf) = self.beneath.parent(name)?;
            if self.fake == Fake::Yes {
                return crate::disk::fake::target(&*dir, leaf);
            }
            Ok(rustix::fs::readlinkat(&*dir, leaf, Vec::new())?.into_bytes())
        };
        match read() {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(None),
            target => absent_as_none(target).during("readlink", name),
        }
    }

    /// Whether a symlink, device or special file is what the entry says, its attributes aside.
    pub(in crate::transfer) fn is_same_node(
        &self,
        name: &[u8],
        entry: &FileEntry,
        kind: Kind,
        found: &Found,
    ) -> Result<bool, DestError> {
        let same_type = found.mode & 0o170000 == entry.mode & 0o170000;
        Ok(match (kind, &entry.extra.target) {
            (Kind::Symlink, Some(target)) => self.read_link(name)?.as_deref() == Some(target),
            (Kind::Device, _) => Some(found.rdev) == entry.extra.rdev && same_type,
            (Kind::Special, _) => same_type,
            _ => false,
        })
    }

    /// Makes a directory, open to its owner until its contents are done, and returns what it became; one that exists
    /// is fine.
    pub fn make_dir(&self, name: &[u8], mode: u32) -> Result<Found, DestError> {
        let (dir, leaf) = self.beneath.parent(name).during("mkdir", name)?;
        match rustix::fs::mkdirat(&*dir, leaf, Mode::from_raw_mode(mode & 0o777 | 0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).during("mkdir", name),
        }
        let stat = rustix::fs::statat(&*dir, leaf, AtFlags::SYMLINK_NOFOLLOW).during("mkdir", name)?;
        let found = Found::from(stat);
        if found.kind() == Some(Kind::Dir) { Ok(found) } else { Err(Errno::EXIST).during("mkdir", name) }
    }

    /// Makes the directories on the way to `name` that are missing, with the umask's permissions.
    pub fn make_dirs(&self, name: &[u8]) -> Result<(), DestError> {
        for (at, _) in name.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
            self.make_dir(&name[..at], 0o777)?;
        }
        Ok(())
    }

    /// Syncs the directories on the way to `name`, the root first: those made just now are then there for good.
    pub fn sync_way(&self, name: &[u8]) -> Result<(), DestError> {
        let ends = name.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| &name[..at]);
        for dir in std::iter::once(&b"."[..]).chain(ends) {
            let synced = self.beneath.dir(dir).and_then(|dir| output::sync_dir(&dir));
            synced.during("fsync directory", dir)?;
        }
        Ok(())
    }

    /// Syncs a file that is there, and the directories on the way to it.
    pub fn sync_standing(&self, name: &[u8]) -> Result<(), DestError> {
        if let Some(file) = self.basis(name)? {
            file.sync_all().during("fsync", name)?;
        }
        self.sync_way(name)
    }

    /// Puts a symlink at `name` in one step, replacing anything but a directory.
    pub fn make_symlink(&self, name: &[u8], target: &[u8], attrs: &Attrs) -> Result<(), DestError> {
        if self.fake == Fake::Yes {
            let new = (0o120_777, (0, 0));
            return self.replace("symlink", name, attrs, new, |dir, temp| Self::stand_in(dir, temp, target));
        }
        let new = (0o120_777, (0, 0));
        self.replace("symlink", name, attrs, new, |dir, temp| rustix::fs::symlinkat(target, dir, temp))
    }

    /// Puts the fifo, socket or device that `entry` describes at `name`, replacing anything but a directory.
    pub fn make_node(&self, name: &[u8], entry: &FileEntry, attrs: &Attrs) -> Result<(), DestError> {
        let (major, minor) = match (entry.kind(), entry.extra.rdev) {
            (Some(Kind::Special), _) => (0, 0),
            (Some(Kind::Device), Some(rdev)) => rdev,
            _ => return Err(Errno::INVAL).during("mknod", name),
        };
        let new = (entry.mode, (major, minor));
        if self.fake == Fake::Yes {
            return self.replace("mknod", name, attrs, new, |dir, temp| Self::stand_in(dir, temp, b""));
        }
        let device = rustix::fs::makedev(major, minor);
        let node = FileType::from_raw_mode(entry.mode);
        self.replace("mknod", name, attrs, new, |dir, temp| {
            rustix::fs::mknodat(dir, temp, node, Mode::RUSR | Mode::WUSR, device)
        })
    }

    /// Removes what stands at `name` unless it is a directory; `false` where nothing did.
    pub fn remove_non_dir(&self, name: &[u8]) -> Result<bool, DestError> {
        self.remove("unlink", name, AtFlags::empty())
    }

    /// Removes an empty directory; `false` where nothing stood.
    pub fn remove_dir(&self, name: &[u8]) -> Result<bool, DestError> {
        self.beneath.forget();
        self.remove("rmdir", name, AtFlags::REMOVEDIR)
    }

    fn remove(&self, action: &'static str, name: &[u8], flags: AtFlags) -> Result<bool, DestError> {
        let (dir, leaf) = self.beneath.parent(name).during(action, name)?;
        match rustix::fs::unlinkat(&*dir, leaf, flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).during(action, name),
        }
    }

    /// Makes something under a temporary name, `mode` and `rdev` saying what, gives it its attributes and renames it over `name`.
    fn replace(
        &self,
        action: &'static str,
        name: &[u8],
        attrs: &Attrs,
        (mode, rdev): (u32, (u32, u32)),
        make: impl Fn(&OwnedFd, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), DestError> {
        let (dir, temp, ()) = self.with_temp_name(action, name, make)?;
        let kind = beneath::kind(mode).unwrap_or(Kind::Special);
        let done = match self.fake {
            Fake::No => self.set_at(&dir, &temp, name, kind, attrs),
            Fake::Yes => self.set_fake_at((&dir, &temp), name, kind, attrs, Some((mode, rdev))),
        };
        // What lacks an attribute is better than nothing; the caller hears of it all the same.
        let renamed = self.back_up_replaced(name).and_then(|()| output::rename(&dir, &temp, name));
        if renamed.is_err() {
            output::discard(&dir, &temp);
        }
        done.and(renamed)
    }
}

/// Nothing there, a parent that is no directory, or a symlink where none may be followed: no file of ours.
fn absent_as_none<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The process's umask, read without changing it where the kernel tells.
pub(crate) fn umask() -> u32 {
    let told = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
        u32::from_str_radix(line.trim(), 8).ok()
    });
    told.unwrap_or_else(|| {
        let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
        rustix::process::umask(mask);
        mask.as_raw_mode()
    })
}
