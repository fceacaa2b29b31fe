//! How far the paths that this process is given may lead. A process serves one session, so each of these is said once: a
//! root that no path leaves (a module, `authorize`), a folder that the paths of options stay within (`--confine-root`), and
//! whether symlinks of others are followed.

use super::names::reason;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the paths that are named end, if anywhere short of `/`.
static JAIL: OnceLock<Jail> = OnceLock::new();

/// Symlinks are followed whoever owns them.
static TRUSTS_ALL: AtomicBool = AtomicBool::new(false);

pub(crate) struct Jail {
    pub(crate) root: OwnedFd,
    id: (u64, u64),
}

impl Jail {
    pub(crate) fn is_root(&self, dir: &OwnedFd) -> bool {
        // What cannot be looked at is not left upwards either.
        rustix::fs::fstat(dir).map_or(true, |stat| (stat.st_dev, stat.st_ino) == self.id)
    }
}

/// Confines this process: no path that is named from now on leads out of `root`, which becomes the working directory. To
/// absolute paths it is `/`, `..` in it leads nowhere, absolute symlinks are refused. A `chroot` for those who may not.
pub(crate) fn confine(root: OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(&root)?;
    rustix::process::fchdir(&root)?;
    let jail = Jail { root, id: (stat.st_dev, stat.st_ino) };
    JAIL.set(jail).map_err(|_| io::Error::other("The process is confined already"))
}

/// From now on symlinks in the paths that an operator names are followed whoever owns them (`--insecure-links`).
pub(crate) fn trust_all_links() {
    TRUSTS_ALL.store(true, Ordering::Release);
}

/// Whether [`trust_all_links`] was called.
pub(crate) fn trusts_all_links() -> bool {
    TRUSTS_ALL.load(Ordering::Acquire)
}

/// Where all paths end, if [`confine`] was called.
pub(crate) fn jail() -> Option<&'static Jail> {
    JAIL.get()
}

/// Whether [`confine`] was called.
pub(crate) fn is_confined() -> bool {
    JAIL.get().is_some()
}

/// The folder of `--confine-root`. The folders that are copied are no such paths: who starts us has looked at them. What
/// options name is asked where it came out, whoever made the links on the way. Device and number; `None` where it is not
/// there, and so nothing lies within.
static BOUND: OnceLock<Option<(u64, u64)>> = OnceLock::new();

/// From now on paths that options name lead nowhere but beneath `root`, which must be absolute.
pub(crate) fn bound(root: &[u8]) {
    let stat = rustix::fs::statat(CWD, Path::new(OsStr::from_bytes(root)), AtFlags::empty());
    // A process serves one session, so there is but one.
    let _ = BOUND.set(stat.ok().map(|stat| (stat.st_dev, stat.st_ino)));
}

/// Refuses a folder that lies outside, with the error of a link that is not followed.
pub(crate) fn admit(dir: impl AsFd) -> io::Result<()> {
    match BOUND.get() {
        None => Ok(()),
        Some(Some(root)) if lies_beneath(dir.as_fd(), *root)? => Ok(()),
        Some(_) => Err(Errno::LOOP.into()),
    }
}

/// Whether an error is that of [`admit`].
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    BOUND.get().is_some() && Errno::from_io_error(error) == Some(Errno::LOOP)
}

fn lies_beneath(dir: BorrowedFd<'_>, root: (u64, u64)) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(dir, ".", flags, Mode::empty())?;
    let mut before = None;
    loop {
        let stat = rustix::fs::fstat(&at)?;
        let here = (stat.st_dev, stat.st_ino);
        // Above `/` is only `/` again.
        if here == root || before == Some(here) {
            return Ok(here == root);
        }
        before = Some(here);
        at = rustix::fs::openat(&at, "..", flags, Mode::empty())?;
    }
}

/// The error of [`admit`] in words, or the system's.
pub(crate) fn said(error: &io::Error) -> String {
    match is_refusal(error) {
        true => "It leads out of the folder of --confine-root".into(),
        false => reason(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn where_a_folder_lies_is_found_from_below() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("in/deep/er")).unwrap();
        std::fs::create_dir(folder.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../../out", folder.path().join("in/deep/way")).unwrap();
        let id = |name: &str| {
            let stat = rustix::fs::stat(folder.path().join(name)).unwrap();
            (stat.st_dev, stat.st_ino)
        };
        let lies = |name: &str, root: &str| {
            lies_beneath(File::open(folder.path().join(name)).unwrap().as_fd(), id(root)).unwrap()
        };
        assert!(lies("in", "in") && lies("in/deep/er", "in") && lies("in/deep/way/../in", "in"));
        assert!(!lies("out", "in") && !lies("in/deep/way", "in") && !lies(".", "in"));
        let root = rustix::fs::stat("/").unwrap();
        assert!(lies_beneath(File::open("/").unwrap().as_fd(), (root.st_dev, root.st_ino)).unwrap());
    }
}
