//! Names resolved beneath one held directory, and how names and errors are shown.
//! Every component is opened on its own, without following a symlink, so that nobody who can write in the tree can lead
//! us out of it. Counterpart: the secure path walk of rsync 3.5.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::flist::Kind;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Directories kept open on the way to the last parent; deeper ones are opened anew, so that depth costs no descriptors.
const HELD: usize = 32;
/// Path length the file list can carry, from rsync's own limit.
const NAME_MAX: usize = 4095;
/// Symlinks followed in one operand before it counts as a loop, as in Linux.
const LINKS_MAX: usize = 40;

/// A held directory, and the way to the last parent opened beneath it.
pub(crate) struct Beneath {
    root: Arc<OwnedFd>,
    follow: bool,
    way: Mutex<Vec<Step>>,
}

/// One component on the way, and the directory it led to.
struct Step {
    component: Box<[u8]>,
    dir: Arc<OwnedFd>,
}

impl Beneath {
    pub(crate) fn new(root: Arc<OwnedFd>) -> Self {
        Beneath { root, follow: false, way: Mutex::default() }
    }

    /// Follows symlinks to directories on the way (`--copy-links`, `--copy-dirlinks`).
    pub(crate) fn following(root: Arc<OwnedFd>) -> Self {
        Beneath { follow: true, ..Beneath::new(root) }
    }

    /// The same directory with a way of its own, for another thread.
    pub(crate) fn again(&self) -> Self {
        Beneath { root: Arc::clone(&self.root), follow: self.follow, way: Mutex::default() }
    }

    /// The directory that holds `name`, and the name's last component.
    pub(crate) fn parent<'n>(&self, name: &'n [u8]) -> io::Result<(Arc<OwnedFd>, &'n [u8])> {
        check(name)?;
        match name.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => Ok((self.walk(&name[..slash])?, &name[slash + 1..])),
            None => Ok((Arc::clone(&self.root), name)),
        }
    }

    /// The directory `name` itself, open for path lookups only.
    pub(crate) fn dir(&self, name: &[u8]) -> io::Result<Arc<OwnedFd>> {
        check(name)?;
        if name == b"." { Ok(Arc::clone(&self.root)) } else { self.walk(name) }
    }

    /// Lets go of the directories held open, because one of them may be gone.
    pub(crate) fn forget(&self) {
        self.way().clear();
    }

    fn walk(&self, name: &[u8]) -> io::Result<Arc<OwnedFd>> {
        let mut flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if !self.follow {
            flags |= OFlags::NOFOLLOW;
        }
        let mut way = self.way();
        let mut at = Arc::clone(&self.root);
        let mut known = true;
        for (depth, component) in name.split(|&byte| byte == b'/').enumerate() {
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
            at = Arc::new(rustix::fs::openat(&*at, component, flags, Mode::empty())?);
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

/// Opens the directory an operator named: a symlink on the way is followed only when root or we ourselves own it.
pub(crate) fn open_operand(path: &Path) -> io::Result<OwnedFd> {
    open_operand_from(CWD, path.as_os_str().as_bytes())
}

/// The same, for a path that is relative to a held directory unless it begins with a slash.
pub(crate) fn open_operand_from(base: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let start = |path: &[u8]| {
        let from = if path.starts_with(b"/") { "/" } else { "." };
        rustix::fs::openat(base, from, flags | OFlags::DIRECTORY, Mode::empty())
    };
    let words = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|&byte| byte == b'/').filter(|word| !matches!(*word, b"" | b".")).map(<[u8]>::to_vec).collect()
    };
    if bytes.is_empty() {
        return Err(Errno::NOENT.into());
    }
    let mut at = start(bytes)?;
    let mut ahead = VecDeque::from(words(bytes));
    let mut links = 0;
    while let Some(word) = ahead.pop_front() {
        let fd = rustix::fs::openat(&at, &word, flags | OFlags::NOFOLLOW, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => at = fd,
            FileType::Symlink => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        "A symlink on the way belongs to another user; name its target instead",
                    ));
                }
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    at = start(&target)?;
                }
                for word in words(&target).into_iter().rev() {
                    ahead.push_front(word);
                }
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok(at)
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

/// A name for a message: control bytes and bytes that are not UTF-8 appear as `\#ooo`, as rsync prints them.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    let escape = |text: &mut String, byte: u8| {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\#{byte:03o}");
    };
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match u8::try_from(character) {
                Ok(byte) if byte.is_ascii_control() => escape(&mut text, byte),
                _ => text.push(character),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape(&mut text, byte));
    }
    text
}

/// An error as rsync prints it: `Permission denied (13)`.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.rfind(" (os error")) {
        (Some(code), Some(end)) => format!("{} ({code})", &text[..end]),
        _ => text,
    }
}
