//! Which attributes an entry should have here, and setting them without following a symlink.
//! Counterpart: rsync's `set_file_attrs` and `dest_mode`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use protocol::args::Options;
use protocol::flist::{FileEntry, Kind};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::error::{DestError, During};
use super::{Dest, Found};
use crate::disk::acl::{self, Which};
use crate::disk::beneath;
use crate::disk::fake::Fake;
use crate::disk::modes;
use crate::disk::pinned::Pinned;

/// Which attributes the options ask to carry over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preserve {
    /// Modification times (`-t`).
    pub mtime: bool,
    /// With [`Preserve::mtime`]: those of directories too (no `-O`).
    pub dir_times: bool,
    /// With [`Preserve::mtime`]: those of symlinks too (no `-J`).
    pub symlink_times: bool,
    /// All permission bits (`-p`).
    pub perms: bool,
    /// Without [`Preserve::perms`]: whether a file that exists can be executed (`-E`).
    pub executability: bool,
    /// Owner (`-o`), which only root can set.
    pub owner: bool,
    /// Group (`-g`), which others than root can set within their own groups.
    pub group: bool,
    /// Access times (`-U`), of all but directories.
    pub atime: bool,
}

impl Preserve {
    /// What the options carry over.
    pub(in crate::transfer) fn of(options: &Options) -> Self {
        Self {
            mtime: options.times,
            // Backups beside the files touch every directory.
            dir_times: !(options.omit_dir_times || options.backup && options.backup_dir.is_none()),
            symlink_times: !options.omit_link_times,
            perms: options.perms,
            executability: options.executability,
            owner: options.owner,
            group: options.group,
            atime: options.atimes > 0,
        }
    }
}

/// Attributes to set; `None` leaves one alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Permission bits, set-id and sticky bits included.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Modification time: seconds since 1970 and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// Access time: seconds since 1970.
    pub atime: Option<i64>,
}

/// Whether two modification times count as one (`--modify-window` in seconds; a negative one compares nanoseconds too).
pub(crate) fn same_mtime(window: i32, one: (i64, u32), other: (i64, u32)) -> bool {
    match window {
        ..0 => one == other,
        _ => one.0.abs_diff(other.0) <= u64::from(window.unsigned_abs()),
    }
}

impl Attrs {
    pub fn of(found: &Found) -> Attrs {
        Attrs {
            mode: Some(found.mode & 0o7777),
            uid: Some(found.uid),
            gid: Some(found.gid),
            mtime: Some((found.mtime, found.nsec)),
            atime: None,
        }
    }

    /// Only what `found` does not have already; times within `window` (see [`same_mtime`]) count as the same.
    pub fn differing_from(mut self, found: &Found, window: i32) -> Attrs {
        self.uid = self.uid.filter(|&uid| uid != found.uid);
        self.gid = self.gid.filter(|&gid| gid != found.gid);
        self.mtime = self.mtime.filter(|&mtime| !same_mtime(window, mtime, (found.mtime, found.nsec)));
        self.atime = self.atime.filter(|&atime| atime != found.atime);
        // A change of owner clears the set-id bits, so they have to be set again.
        let clears = (self.uid.is_some() || self.gid.is_some()) && found.mode & 0o6000 != 0;
        self.mode =
            self.mode.or(clears.then_some(found.mode & 0o7777)).filter(|&mode| clears || mode != found.mode & 0o7777);
        self
    }

    /// Whether there is nothing to set.
    pub fn is_empty(&self) -> bool {
        *self == Attrs::default()
    }
}

impl Dest {
    /// The attributes `entry` should have here, where `existing` was before; without `-p` new files get the source's
    /// permissions masked by the umask and old ones keep theirs.
    pub fn wanted(&self, entry: &FileEntry, preserve: &Preserve, existing: Option<&Found>) -> Attrs {
        let kind = entry.kind();
        let times = match kind {
            Some(Kind::Dir) => preserve.dir_times,
            Some(Kind::Symlink) => preserve.symlink_times,
            _ => true,
        };
        let existing = existing.filter(|found| found.kind() == kind || lends_permissions(kind, found.kind()));
        let new = existing.is_none() && !preserve.perms;
        let new_perms = if new { self.perms_of_new(&entry.name) } else { 0 };
        let mode = match (kind, existing) {
            (Some(Kind::Symlink), _) => None,
            _ if preserve.perms => Some(entry.mode & 0o7777),
            (Some(Kind::File), Some(found)) if preserve.executability => Some(executable_as(entry.mode, found.mode)),
            (_, Some(found)) => Some(found.mode & 0o7777),
            // mkdir did it already, with a default ACL and an inherited set-gid bit if the parent has them.
            (Some(Kind::Dir), None) if entry.mode & 0o700 == 0o700 => None,
            (_, None) => Some(entry.mode & 0o777 & new_perms),
        };
        Attrs {
            mode,
            uid: (preserve.owner && self.makes_devices()).then_some(entry.uid),
            gid: Some(entry.gid).filter(|gid| preserve.group && (self.makes_devices() || self.groups.contains(gid))),
            atime: (preserve.atime && kind != Some(Kind::Dir)).then_some(entry.extra.atime),
            mtime: (preserve.mtime && times).then_some((entry.mtime, entry.nsec)),
        }
    }

    /// The permissions that something new may have: its directory's default ACL tells, or else the umask.
    /// rsync: default_perms_for_dir
    fn perms_of_new(&self, name: &[u8]) -> u32 {
        let acl = || {
            let (dir, _) = self.beneath.parent(name).ok()?;
            let pinned = Pinned::open(&dir, b".", Kind::Dir).ok()?;
            let acl = acl::read(&pinned, Which::Default, 0, self.fake).ok()?;
            let group = acl.mask.or(acl.group_obj)?;
            Some(u32::from(acl.user_obj?) << 6 | u32::from(group) << 3 | u32::from(acl.other?))
        };
        acl().unwrap_or(0o777 & !self.umask)
    }

    /// Sets attributes of what already stands at `name`; it must still be a `kind`.
    pub fn set_attrs(&self, name: &[u8], kind: Kind, attrs: &Attrs) -> Result<(), DestError> {
        let keeps_claims = self.fake == Fake::Yes && matches!(kind, Kind::File | Kind::Dir);
        if attrs.is_empty() && !keeps_claims {
            return Ok(());
        }
        let (dir, leaf) = self.place(name, kind).during("open parent of", name)?;
        if attrs.is_empty() {
            let pinned = Pinned::open(&dir, leaf, kind).during("open", name)?;
            return self.make_claimable(&pinned, name);
        }
        self.set_at(&dir, leaf, name, kind, attrs)
    }

    /// Sets attributes of `leaf` in a held directory; `name` is only for messages.
    pub(super) fn set_at(
        &self,
        dir: &OwnedFd,
        leaf: &[u8],
        name: &[u8],
        kind: Kind,
        attrs: &Attrs,
    ) -> Result<(), DestError> {
        if self.fake == Fake::Yes {
            return self.set_fake_at((dir, leaf), name, kind, attrs, None);
        }
        if let Some((uid, gid)) = attrs.owners() {
            let done = rustix::fs::chownat(dir, leaf, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            self.unless_unprivileged(done).during("chown", name)?;
        }
        if let (Some(mode), false) = (attrs.mode, kind == Kind::Symlink) {
            chmod(dir, leaf, kind, mode).during("set permissions on", name)?;
        }
        self.set_times_at(dir, leaf, name, attrs)?;
        attrs.possible().during("chown", name)
    }

    pub(super) fn set_times_at(&self, dir: &OwnedFd, leaf: &[u8], name: &[u8], attrs: &Attrs) -> Result<(), DestError> {
        if let Some(times) = attrs.times() {
            rustix::fs::utimensat(dir, leaf, &times, AtFlags::SYMLINK_NOFOLLOW).during("set times on", name)?;
        }
        Ok(())
    }

    /// Sets attributes of an open file, the times last.
    pub(super) fn set_open(&self, fd: impl AsFd, name: &[u8], attrs: &Attrs) -> Result<(), DestError> {
        if self.fake == Fake::No {
            return self.set_raw(fd, name, attrs);
        }
        let pinned = Pinned::of(&fd).during("dup", name)?;
        self.set_claim(&pinned, name, attrs, None)?;
        self.set_raw(fd, name, &Attrs { mtime: attrs.mtime, atime: attrs.atime, ..Attrs::default() })
    }

    /// The same, whatever the file claims with `--fake-super`.
    pub(super) fn set_raw(&self, fd: impl AsFd, name: &[u8], attrs: &Attrs) -> Result<(), DestError> {
        if let Some((uid, gid)) = attrs.owners() {
            self.unless_unprivileged(modes::fchown(&fd, uid, gid)).during("chown", name)?;
        }
        if let Some(mode) = attrs.mode {
            modes::fchmod(&fd, mode).during("set permissions on", name)?;
        }
        if let Some(times) = attrs.times() {
            rustix::fs::futimens(&fd, &times).during("set times on", name)?;
        }
        attrs.possible().during("chown", name)
    }

    /// Without root a foreign owner or group is simply not ours to give.
    pub(super) fn unless_unprivileged(&self, done: Result<(), Errno>) -> Result<(), Errno> {
        if done == Err(Errno::PERM) && !self.am_root { Ok(()) } else { done }
    }
}

impl Attrs {
    pub(super) fn owners(&self) -> Option<(Option<Uid>, Option<Gid>)> {
        // The largest id means "leave alone" to chown, so it can belong to nobody.
        let uid = self.uid.filter(|&uid| uid != u32::MAX).map(Uid::from_raw);
        let gid = self.gid.filter(|&gid| gid != u32::MAX).map(Gid::from_raw);
        (uid.is_some() || gid.is_some()).then_some((uid, gid))
    }

    /// Whether somebody can have the owner and group; the largest id is nobody's.
    fn possible(&self) -> io::Result<()> {
        let what = match (self.uid, self.gid) {
            (Some(u32::MAX), _) => "uid",
            (_, Some(u32::MAX)) => "gid",
            _ => return Ok(()),
        };
        Err(io::Error::other(format!("{what} {} (-1) is impossible to set", u32::MAX)))
    }

    fn times(&self) -> Option<Timestamps> {
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let second = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
        let exact = |(tv_sec, nsec): (i64, u32)| Timespec { tv_sec, tv_nsec: nsec.min(999_999_999).into() };
        (self.mtime.is_some() || self.atime.is_some()).then(|| Timestamps {
            last_access: self.atime.map_or(omitted, second),
            last_modification: self.mtime.map_or(omitted, exact),
        })
    }
}

/// Whether a node gets the permissions of what stood at its name. Stock rsync gives it those of a symlink, too, which let
/// everybody write; here a new node has its own then.
fn lends_permissions(node: Option<Kind>, before: Option<Kind>) -> bool {
    matches!(node, Some(Kind::Device | Kind::Special))
        && matches!(before, Some(Kind::File | Kind::Device | Kind::Special))
}

/// `found`'s permissions made executable, or not, as `wanted` is (`--executability`).
fn executable_as(wanted: u32, found: u32) -> u32 {
    let found = found & 0o7777;
    match (wanted & 0o111 != 0, found & 0o111 != 0) {
        (false, _) => found & !0o111,
        (true, false) => found | (found & 0o444) >> 2,
        (true, true) => found,
    }
}

pub(super) fn chmod(dir: &OwnedFd, leaf: &[u8], kind: Kind, mode: u32) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if matches!(kind, Kind::File | Kind::Dir) {
        let reading = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match rustix::fs::openat(dir, leaf, reading, Mode::empty()) {
            Ok(fd) => {
                still(kind, &fd)?;
                return modes::fchmod(&fd, mode);
            }
            // Ours to change all the same, though not to read.
            Err(Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // A device or fifo must not be opened, and fchmod refuses a descriptor that was not; /proc leads to the same inode.
    let fd = rustix::fs::openat(dir, leaf, flags | OFlags::PATH, Mode::empty())?;
    still(kind, &fd)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
    modes::chmod(&format!("/proc/self/fd/{number}"), mode)
}

fn still(kind: Kind, fd: &OwnedFd) -> io::Result<()> {
    if beneath::kind(rustix::fs::fstat(fd)?.st_mode) == Some(kind) {
        return Ok(());
    }
    Err(io::Error::other("Something else took its place meanwhile"))
}

/// Directories whose last attributes wait until their contents are done.
#[derive(Debug, Default)]
pub(crate) struct LateDirs {
    waiting: Vec<(Box<[u8]>, Attrs)>,
    window: i32,
}

impl LateDirs {
    /// None yet; `window` as in [`same_mtime`].
    pub(crate) fn new(window: i32) -> LateDirs {
        LateDirs { waiting: Vec::new(), window }
    }

    /// Sets what can be set now, keeps the directory open to its owner, and remembers the rest.
    pub(crate) fn enter(
        &mut self,
        dest: &Dest,
        name: &[u8],
        wanted: &Attrs,
        existing: &Found,
    ) -> Result<(), DestError> {
        let last_mode = wanted.mode.unwrap_or(existing.mode & 0o7777);
        let first_mode = if dest.am_root || dest.fake == Fake::Yes { last_mode } else { last_mode | 0o700 };
        let now = Attrs { mode: Some(first_mode), mtime: None, ..*wanted };
        let late =
            Attrs { mode: Some(last_mode).filter(|&mode| mode != first_mode), mtime: wanted.mtime, ..Attrs::default() };
        if !late.is_empty() {
            self.waiting.push((name.into(), late));
        }
        dest.set_attrs(name, Kind::Dir, &now.differing_from(existing, self.window))
    }

    /// Sets what was left, the deepest directories first; returns what failed.
    pub(crate) fn finish(mut self, dest: &Dest) -> Vec<DestError> {
        let depth = |name: &[u8]| if name == b"." { 0 } else { 1 + name.iter().filter(|&&byte| byte == b'/').count() };
        self.waiting.sort_by_cached_key(|(name, _)| std::cmp::Reverse(depth(name)));
        let set = |(name, attrs): (Box<[u8]>, Attrs)| match dest.stat_dir(&name)? {
            // What was made just now may be off by less than the second that a quick check looks at.
            // A kept symlink whose directory was deleted since.
            Some(found) if found.kind() == Some(Kind::Symlink) => Ok(()),
            Some(found) => dest.set_attrs(&name, Kind::Dir, &attrs.differing_from(&found, -1)),
            None => Err(Errno::NOENT).during("set times on", &name),
        };
        self.waiting.into_iter().filter_map(|late| set(late).err()).collect()
    }
}
