//! A file being received, under a temporary name beside its final one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Dest;
use super::attrs::Attrs;
use super::error::{DestError, During};
use super::further::{Further, Values};
use crate::transfer::beneath;

/// Longest name of one component on Linux file systems.
const COMPONENT_MAX: usize = 255;
/// Random characters at the end of a temporary name.
const RANDOM: usize = 6;
/// Names tried before a crowded directory counts as an error.
const TRIES: usize = 100;

/// A file that has its bytes but not yet its name; dropped without [`TempFile::commit`] it is removed.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    dir: Arc<OwnedFd>,
    temp: Vec<u8>,
    name: Vec<u8>,
    renamed: bool,
}

impl Dest {
    /// Creates `.NAME.XXXXXX` beside `name`, readable by its owner alone.
    pub fn create_temp(&self, name: &[u8]) -> Result<TempFile, DestError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (dir, temp, fd) = self.with_temp_name("mkstemp", name, |dir, temp| {
            rustix::fs::openat(dir, temp, flags, Mode::RUSR | Mode::WUSR)
        })?;
        Ok(TempFile { file: fd.into(), dir, temp, name: name.to_vec(), renamed: false })
    }

    /// Makes something new under a free temporary name beside `name`.
    pub(super) fn with_temp_name<T>(
        &self,
        action: &'static str,
        name: &[u8],
        make: impl Fn(&OwnedFd, &[u8]) -> Result<T, Errno>,
    ) -> Result<(Arc<OwnedFd>, Vec<u8>, T), DestError> {
        let mut walked_anew = false;
        let (mut dir, leaf) = self.beneath.parent(name).during(action, name)?;
        for _ in 0..TRIES {
            let temp = temp_name(leaf, || fastrand::alphanumeric() as u8);
            match make(&dir, &temp) {
                Ok(made) => return Ok((dir, temp, made)),
                Err(Errno::EXIST) => {}
                // The directory held open may have been removed and made again since.
                Err(Errno::NOENT) if !walked_anew => {
                    walked_anew = true;
                    self.beneath.forget();
                    (dir, _) = self.beneath.parent(name).during(action, name)?;
                }
                Err(error) => return Err(error).during(action, name),
            }
        }
        Err(Errno::EXIST).during(action, name)
    }
}

impl TempFile {
    /// The open file, for preallocation or a look at its size.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its attributes, syncs it when asked, and renames it over the final name, replacing even a symlink.
    pub fn commit(
        mut self,
        dest: &Dest,
        attrs: &Attrs,
        further: Option<(&Further<'_>, &Values)>,
        sync: bool,
    ) -> Result<(), DestError> {
        // What lacks an attribute is better than nothing; the caller hears of it all the same.
        let dressed = match further {
            Some((further, values)) => dest.set_open_further(&self.file, &self.name, attrs, further, values),
            None => dest.set_open(&self.file, &self.name, attrs),
        };
        if sync {
            self.file.sync_all().during("fsync", &self.name)?;
        }
        rename(&self.dir, &self.temp, &self.name)?;
        self.renamed = true;
        if sync {
            sync_dir(&self.dir).during("fsync directory of", &self.name)?;
        }
        dressed
    }
}

impl TempFile {
    /// As [`TempFile::commit`], synced, but never over anything: `false` when something stands at the final name.
    pub fn commit_new(mut self, dest: &Dest, attrs: &Attrs) -> Result<bool, DestError> {
        dest.set_open(&self.file, &self.name, attrs)?;
        self.file.sync_all().during("fsync", &self.name)?;
        let leaf = self.name.rsplit(|&byte| byte == b'/').next().unwrap_or(&self.name);
        let renamed = rustix::fs::renameat_with(&self.dir, &*self.temp, &self.dir, leaf, RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => self.renamed = true,
            Err(Errno::EXIST) => return Ok(false),
            // Network file systems know no such rename. A link is as good; the temporary name goes when we are dropped.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match rustix::fs::linkat(&self.dir, &*self.temp, &self.dir, leaf, AtFlags::empty()) {
                    Ok(()) => discard(&self.dir, &self.temp),
                    Err(Errno::EXIST) => return Ok(false),
                    Err(error) => return Err(error).during("link", &self.name),
                }
                self.renamed = true;
            }
            Err(error) => return Err(error).during("rename", &self.name),
        }
        sync_dir(&self.dir).during("fsync directory of", &self.name)?;
        Ok(true)
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.renamed {
            discard(&self.dir, &self.temp);
        }
    }
}

/// Renames a temporary over the last component of `name`, both in `dir`.
pub(super) fn rename(dir: &OwnedFd, temp: &[u8], name: &[u8]) -> Result<(), DestError> {
    let leaf = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    rustix::fs::renameat(dir, temp, dir, leaf).during("rename", name)
}

/// Removes a temporary; one that cannot be removed is left for the next run to name differently.
pub(super) fn discard(dir: &OwnedFd, temp: &[u8]) {
    let _ = rustix::fs::unlinkat(dir, temp, AtFlags::empty());
}

pub(super) fn sync_dir(dir: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(beneath::readable(dir)?)?)
}

/// `.LEAF.XXXXXX`: a leading dot is not doubled, and the name is shortened to fit without cutting a character.
/// rsync: get_tmpname
pub(super) fn temp_name(leaf: &[u8], mut random: impl FnMut() -> u8) -> Vec<u8> {
    let bare = leaf.strip_prefix(b".").unwrap_or(leaf);
    let room = COMPONENT_MAX - 1 - 1 - RANDOM;
    let mut end = bare.len().min(room);
    if end < bare.len() {
        let continues = |at: usize| bare[at] & 0xC0 == 0x80;
        // At most three continuation bytes belong to one character; more are no UTF-8 and may be cut anywhere.
        if let Some(whole) = (end.saturating_sub(3)..=end).rev().find(|&at| !continues(at)) {
            end = whole;
        }
    }
    let mut temp = Vec::with_capacity(end + 2 + RANDOM);
    temp.push(b'.');
    temp.extend_from_slice(&bare[..end]);
    temp.push(b'.');
    temp.extend((0..RANDOM).map(|_| random()));
    temp
}
