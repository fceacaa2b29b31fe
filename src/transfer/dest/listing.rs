//! What a directory of the destination holds, for deletion.

use super::error::During;
use super::{Dest, DestError, Found, absent_as_none};
use crate::disk::beneath;
use crate::disk::modes;
use crate::disk::pinned::Pinned;
use protocol::flist::Kind;
use rustix::fs::{AtFlags, Dir, Stat};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// A directory that is held open for as long as its contents are looked at.
pub struct OpenFolder {
    /// Open for lookups and reading.
    pub dir: OwnedFd,
    /// Its own device.
    pub dev: u64,
    /// Names in it and what they are, without `.` and `..`, in no order.
    pub entries: Vec<(Vec<u8>, Found)>,
}

impl OpenFolder {
    /// Lets its owner change what it holds; returns the permissions it had, for [`OpenFolder::lock`], where they were fewer.
    pub fn unlock(&self) -> Option<u32> {
        let stat = rustix::fs::fstat(&self.dir).ok()?;
        let mode = lacking(&stat, 0o300)?;
        modes::fchmod(&self.dir, mode | 0o300).ok().map(|()| mode)
    }

    /// Gives it its permissions back.
    pub fn lock(&self, mode: Option<u32>) {
        if let Some(mode) = mode {
            // Whoever could take them away can give them back.
            let _ = modes::fchmod(&self.dir, mode);
        }
    }
}

/// The permissions of a directory of ours that lacks some that its owner needs. Root needs none.
fn lacking(stat: &Stat, needed: u32) -> Option<u32> {
    let own = rustix::process::geteuid();
    (!own.is_root() && stat.st_uid == own.as_raw() && stat.st_mode & needed != needed).then_some(stat.st_mode & 0o7777)
}

impl Dest {
    /// Opens a directory that is about to go to its owner, whatever its permissions are. One of others stays as it is.
    pub fn open_to_owner(&self, name: &[u8]) {
        let open = || -> io::Result<()> {
            let (dir, leaf) = self.beneath.parent(name)?;
            let pinned = Pinned::open(&dir, leaf, Kind::Dir)?;
            match lacking(&pinned.stat()?, 0o700) {
                Some(mode) => pinned.set_mode(mode | 0o700),
                None => Ok(()),
            }
        };
        // What cannot be done without says so itself.
        let _ = open();
    }

    /// Lists a directory; `None` where no directory stands, or a symlink to one.
    pub fn list(&self, name: &[u8]) -> Result<Option<OpenFolder>, DestError> {
        let list = || -> io::Result<OpenFolder> {
            let dir = beneath::readable(&*self.beneath.dir(name)?)?;
            let dev = rustix::fs::fstat(&dir)?.st_dev;
            let mut entries = Vec::new();
            for child in Dir::read_from(&dir)? {
                let child = child?;
                let leaf = child.file_name().to_bytes();
                if matches!(leaf, b"." | b"..") {
                    continue;
                }
                match rustix::fs::statat(&dir, leaf, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => entries.push((leaf.to_vec(), stat.into())),
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(OpenFolder { dir, dev, entries })
        };
        absent_as_none(list()).during("opendir", name)
    }
}
