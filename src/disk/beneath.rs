//! Names resolved beneath one held directory.
//! Every component is opened on its own, without following a symlink, so that nobody who can write in the tree can lead
//! us out of it. Counterpart: the secure path walk of rsync 3.5.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::confine;
use protocol::flist::Kind;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Directories kept open on the way to the last parent; deeper ones are opened anew, so that depth costs no descriptors.
const HELD: usize = 32;
/// Path length the file list can carry, from rsync's own limit.
const NAME_MAX: usize = 4095;
/// Directories held at once on a way with symlinks that must stay beneath its root.
const WAY_MAX: usize = 256;
/// Symlinks followed in one operand before it counts as a loop, as in Linux.
const LINKS_MAX: usize = 40;

/// A held directory, and the way to the last parent opened beneath it.
pub(crate) struct Beneath {
    /// `None` where the directory does not exist.
    root: Option<Arc<OwnedFd>>,
    follow: Follow,
    way: Mutex<Vec<Step>>,
}

/// Which symlinks to directories are followed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    None,
    All,
    /// Those of root and of ourselves.
    Trusted,
    /// The same, as far as they do not lead out of the held directory.
    Within,
}

/// One component on the way, and the directory it led to.
struct Step {
    component: Box<[u8]>,
    dir: Arc<OwnedFd>,
}

impl Beneath {
    pub(crate) fn new(root: Arc<OwnedFd>) -> Self {
        Beneath { root: Some(root), follow: Follow::None, way: Mutex::default() }
    }

    /// A directory that does not exist, as a dry run meets it: nothing is there.
    pub(crate) fn absent() -> Self {
        Beneath { root: None, follow: Follow::None, way: Mutex::default() }
    }

    fn root(&self) -> io::Result<&Arc<OwnedFd>> {
        Ok(self.root.as_ref().ok_or(Errno::NOENT)?)
    }

    /// Follows symlinks to directories on the way (`--copy-links`, `--copy-dirlinks`).
    pub(crate) fn following(root: Arc<OwnedFd>) -> Self {
        Beneath { follow: Follow::All, ..Beneath::new(root) }
    }

    /// Follows symlinks to directories that root or we ourselves own (`--keep-dirlinks`).
    pub(crate) fn trusting(self) -> Self {
        Beneath { follow: Follow::Trusted, ..self }
    }

    /// Follows symlinks to directories that root or we ourselves own and that lead to one beneath the held directory
    /// (`--no-implied-dirs`).
    pub(crate) fn trusting_within(self) -> Self {
        Beneath { follow: Follow::Within, ..self }
    }

    /// The same directory with a way of its own, for another thread.
    pub(crate) fn again(&self) -> Self {
        Beneath { root: self.root.clone(), follow: self.follow, way: Mutex::default() }
    }

    /// The directory that holds `name`, and the name's last component.
    pub(crate) fn parent<'n>(&self, name: &'n [u8]) -> io::Result<(Arc<OwnedFd>, &'n [u8])> {
        check(name)?;
        match name.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => Ok((self.walk(&name[..slash])?, &name[slash + 1..])),
            None => Ok((Arc::clone(self.root()?), name)),
        }
    }

    /// The directory `name` itself, open for path lookups only.
    pub(crate) fn dir(&self, name: &[u8]) -> io::Result<Arc<OwnedFd>> {
        check(name)?;
        if name == b"." { Ok(Arc::clone(self.root()?)) } else { self.walk(name) }
    }

    /// Lets go of the directories held open, because one of them may be gone.
    pub(crate) fn forget(&self) {
        self.way().clear();
    }

    fn walk(&self, name: &[u8]) -> io::Result<Arc<OwnedFd>> {
        let mut flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if self.follow != Follow::All {
            flags |= OFlags::NOFOLLOW;
        }
        let mut way = self.way();
        let root = self.root()?;
        let mut at = Arc::clone(root);
        let mut known = true;
        let mut end = 0;
        for (depth, component) in name.split(|&byte| byte == b'/').enumerate() {
            end += component.len() + usize::from(depth > 0);
            if known {
                match way.get(depth) {
                    Some(step) if *step.component == *component => {
                        at = Arc::clone(&step.dir);
                        continue;
                    }
                    _ => way.truncate(depth),
                }
                known = false;
            }
            at = Arc::new(match self.follow {
                Follow::All => open_following(&at, component, flags)?,
                Follow::None => rustix::fs::openat(&*at, component, flags, Mode::empty())?,
                Follow::Trusted => match rustix::fs::openat(&*at, component, flags, Mode::empty()) {
                    Err(Errno::NOTDIR | Errno::LOOP) => open_operand_from(at.as_fd(), component)?,
                    opened => opened?,
                },
                Follow::Within => match rustix::fs::openat(&*at, component, flags, Mode::empty()) {
                    Err(Errno::NOTDIR | Errno::LOOP) => open_within(root, &name[..end])?,
                    opened => opened?,
                },
            });
            if depth == way.len() && depth < HELD {
                way.push(Step { component: component.into(), dir: Arc::clone(&at) });
            }
        }
        Ok(at)
    }

    fn way(&self) -> MutexGuard<'_, Vec<Step>> {
        // The cache is valid after every step, so a panic elsewhere leaves nothing half done.
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a name that is not a plain path beneath the root (`.` is the root itself).
fn check(name: &[u8]) -> io::Result<()> {
    let plain = |component: &[u8]| !matches!(component, b"" | b"." | b"..");
    let bad = name.len() > NAME_MAX || name.contains(&0) || !name.split(|&byte| byte == b'/').all(plain);
    if bad && name != b"." {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "The name is not a plain path beneath the folder"));
    }
    Ok(())
}

/// Makes the directory an operator named; its parent must exist.
pub(crate) fn make_operand(path: &Path) -> io::Result<()> {
    let (parent, leaf) = parent_of(path);
    Ok(rustix::fs::mkdirat(open_operand(parent)?, leaf, Mode::RWXU | Mode::RWXG | Mode::RWXO)?)
}

/// Makes the directory an operator named, and those on the way to it, unless it is only to be said (`dry_run`). Returns how
/// many were missing.
pub(crate) fn make_operands(path: &Path, dry_run: bool) -> io::Result<usize> {
    let mut above: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    above.reverse();
    let mut missing = 0;
    for path in above {
        match open_operand(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing += 1;
                if !dry_run {
                    make_operand(path)?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// Opens a directory by a path that is relative to one which is to be made. `None` where it is missing, too.
pub(crate) fn open_beside_missing(base: &Path, path: &[u8]) -> io::Result<Option<OwnedFd>> {
    if path.starts_with(b"/") {
        return open_operand(Path::new(OsStr::from_bytes(path))).map(Some);
    }
    // What is missing is no symlink: `..` leads out of it the way one came in.
    let mut there = base.to_owned();
    let mut missing = 0;
    while !there.as_os_str().is_empty() && open_operand(&there).is_err() {
        missing += 1;
        if !there.pop() {
            break;
        }
    }
    for word in words(path) {
        match (word == b"..", missing) {
            (true, 0) => there.push(".."),
            (true, _) => missing -= 1,
            (false, 0) => there.push(OsStr::from_bytes(&word)),
            (false, _) => missing += 1,
        }
    }
    if missing > 0 {
        return Ok(None);
    }
    if there.as_os_str().is_empty() {
        there.push(".");
    }
    open_operand(&there).map(Some)
}

/// Opens the file an operator named. The way to it and a symlink in its place are followed as those of a directory are.
pub(crate) fn open_operand_file(path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    open_file_from(CWD, path, flags, mode, |_| Ok(()))
}

/// The same, to read a regular file; a fifo is not waited for.
pub(crate) fn open_operator_file(path: &Path) -> io::Result<File> {
    let fd = open_operand_file(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
    match kind(rustix::fs::fstat(&fd)?.st_mode) {
        Some(Kind::File) => Ok(fd.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "It is not a regular file")),
    }
}

/// The same, to read a list that somebody may still be writing, such as a fifo.
pub(crate) fn open_operator_list(path: &Path) -> io::Result<File> {
    Ok(open_file_from(CWD, path, OFlags::RDONLY | OFlags::NOCTTY, Mode::empty(), |dir| confine::admit(dir))?.into())
}

/// The same, to read a file by its name in a held directory; a fifo is not waited for.
pub(crate) fn open_file_in(dir: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(open_file_from(dir.as_fd(), Path::new(OsStr::from_bytes(name)), flags, Mode::empty(), |dir| {
        confine::admit(dir)
    })?
    .into())
}

/// The same, to append to a log or to lock; it is made where it is missing, for its owner alone to write.
pub(crate) fn open_operator_lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    Ok(open_operand_file(path, flags, mode)?.into())
}

/// `admit` is asked of every folder in which the file, or a link to it, is looked for.
fn open_file_from(
    base: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    admit: impl Fn(&OwnedFd) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let (parent, leaf) = parent_of(&path);
        let dir = open_operand_from(base, parent.as_os_str().as_bytes())?;
        admit(&dir)?;
        match rustix::fs::openat(&dir, leaf, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode) {
            Err(Errno::LOOP) => {
                let link = rustix::fs::openat(&dir, leaf, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)?;
                trusted_link(&rustix::fs::fstat(&link)?)?;
                let target = rustix::fs::readlinkat(&link, "", Vec::new())?.into_bytes();
                if target.starts_with(b"/") && confine::jail().is_some() {
                    return Err(Errno::LOOP.into());
                }
                // An open pipe of this process (`/dev/fd/63`) has no path, only this link.
                if target.starts_with(b"pipe:[") && confine::jail().is_none() {
                    return Ok(rustix::fs::openat(&dir, leaf, flags | OFlags::CLOEXEC, mode)?);
                }
                path = parent.join(OsStr::from_bytes(&target));
            }
            opened => return Ok(opened?),
        }
    }
    Err(Errno::LOOP.into())
}

/// The directory of a path, and its last component.
fn parent_of(path: &Path) -> (&Path, &OsStr) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    (parent.unwrap_or(Path::new(".")), path.file_name().unwrap_or(OsStr::new(".")))
}

/// A symlink is followed only where nobody can have planted it.
fn trusted_link(stat: &Stat) -> io::Result<()> {
    if confine::trusts_all_links() || stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let text = "A symlink on the way belongs to another user; name its target instead";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Opens the directory an operator named: a symlink on the way is followed only when root or we ourselves own it.
pub(crate) fn open_operand(path: &Path) -> io::Result<OwnedFd> {
    open_operand_from(CWD, path.as_os_str().as_bytes())
}

/// Opens the directory an operator named to send from: any symlink on the way is followed. In a confined process it is
/// no operator's name, and treated as [`open_operand`] treats it.
pub(crate) fn open_source(path: &Path) -> io::Result<OwnedFd> {
    match confine::jail() {
        None => Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?),
        Some(_) => open_operand(path),
    }
}

/// The same, for a path that is relative to a held directory unless it begins with a slash.
pub(crate) fn open_operand_from(base: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<OwnedFd> {
    match resolve(base, bytes)? {
        (at, FileType::Directory) => Ok(at),
        _ => Err(Errno::NOTDIR.into()),
    }
}

/// What a name in a held directory leads to. Symlinks are followed, wherever they lead; in a confined process as those of
/// an operator's path.
pub(crate) fn stat_following(dir: &OwnedFd, leaf: &[u8]) -> io::Result<Stat> {
    match confine::jail() {
        None => Ok(rustix::fs::statat(dir, leaf, AtFlags::empty())?),
        Some(_) => Ok(rustix::fs::fstat(resolve(dir.as_fd(), leaf)?.0)?),
    }
}

/// What a path leads to, found as [`open_source`] finds it.
pub(crate) fn stat_operand(path: &[u8]) -> io::Result<Stat> {
    match confine::jail() {
        None => Ok(rustix::fs::stat(path)?),
        Some(_) => Ok(rustix::fs::fstat(resolve(CWD, path)?.0)?),
    }
}

/// Opens what a name in a held directory leads to, as [`stat_following`] finds it.
pub(crate) fn open_following(dir: &OwnedFd, leaf: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    match confine::jail() {
        None => Ok(rustix::fs::openat(dir, leaf, flags, Mode::empty())?),
        Some(_) if flags.contains(OFlags::DIRECTORY) => open_operand_from(dir.as_fd(), leaf),
        Some(_) => open_file_from(dir.as_fd(), Path::new(OsStr::from_bytes(leaf)), flags, Mode::empty(), |_| Ok(())),
    }
}

/// A directory beneath `root`. A symlink on the way is followed where root or we ourselves own it and it stays beneath.
fn open_within(root: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut ahead = VecDeque::from(words(name));
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(word) = ahead.pop_front() {
        if word == b".." {
            way.pop().ok_or(Errno::XDEV)?;
            continue;
        }
        let fd = rustix::fs::openat(way.last().unwrap_or(root), &word, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
                if links > LINKS_MAX || target.starts_with(b"/") {
                    return Err(Errno::LOOP.into());
                }
                trusted_link(&stat)?;
                for word in words(&target).into_iter().rev() {
                    ahead.push_front(word);
                }
            }
            FileType::Directory if way.len() < WAY_MAX => way.push(fd),
            FileType::Directory => return Err(Errno::NAMETOOLONG.into()),
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    match way.pop() {
        Some(dir) => Ok(dir),
        None => Ok(rustix::io::fcntl_dupfd_cloexec(root, 0)?),
    }
}

/// The components of a path that say something.
fn words(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').filter(|word| !matches!(*word, b"" | b".")).map(<[u8]>::to_vec).collect()
}

/// A descriptor of what a path leads to, for lookups only, and its kind.
fn resolve(base: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<(OwnedFd, FileType)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let jail = confine::jail();
    let start = |path: &[u8]| match (path.starts_with(b"/"), jail) {
        (true, Some(jail)) => rustix::fs::openat(&jail.root, ".", flags | OFlags::DIRECTORY, Mode::empty()),
        (true, None) => rustix::fs::openat(CWD, "/", flags | OFlags::DIRECTORY, Mode::empty()),
        (false, _) => rustix::fs::openat(base, ".", flags | OFlags::DIRECTORY, Mode::empty()),
    };
    if bytes.is_empty() {
        return Err(Errno::NOENT.into());
    }
    let mut at = start(bytes)?;
    let mut kind = FileType::Directory;
    let mut ahead = VecDeque::from(words(bytes));
    let mut links = 0;
    while let Some(word) = ahead.pop_front() {
        if kind != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        if word == b".." && jail.is_some_and(|jail| jail.is_root(&at)) {
            continue;
        }
        let fd = rustix::fs::openat(&at, &word, flags | OFlags::NOFOLLOW, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                trusted_link(&stat)?;
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    if jail.is_some() {
                        return Err(Errno::LOOP.into());
                    }
                    at = start(&target)?;
                }
                for word in words(&target).into_iter().rev() {
                    ahead.push_front(word);
                }
            }
            other => (at, kind) = (fd, other),
        }
    }
    Ok((at, kind))
}

/// A directory opened for path lookups, opened again for reading or syncing.
pub(crate) fn readable(dir: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, ".", flags, Mode::empty())?)
}

/// What a mode's type bits say.
pub(crate) fn kind(mode: u32) -> Option<Kind> {
    Some(match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice | FileType::BlockDevice => Kind::Device,
        FileType::Fifo | FileType::Socket => Kind::Special,
        _ => return None,
    })
}

/// Seconds and nanoseconds of the modification time.
pub(crate) fn mtime(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
}
