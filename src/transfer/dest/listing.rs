//! What a directory of the destination holds, for deletion.

use super::error::During;
use super::{Dest, DestError, Found, absent_as_none};
use crate::transfer::beneath;
use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// A directory that is held open for as long as its contents are looked at.
pub struct Folder {
    /// Open for lookups and reading.
    pub dir: OwnedFd,
    /// Its own device.
    pub dev: u64,
    /// Names in it and what they are, without `.` and `..`, in no order.
    pub entries: Vec<(Vec<u8>, Found)>,
}

impl Dest {
    /// Lists a directory; `None` where no directory stands, or a symlink to one.
    pub fn list(&self, name: &[u8]) -> Result<Option<Folder>, DestError> {
        let list = || -> io::Result<Folder> {
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
            Ok(Folder { dir, dev, entries })
        };
        absent_as_none(list()).during("opendir", name)
    }
}
