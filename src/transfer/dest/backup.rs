//! Backups of what is replaced or deleted. Counterpart: rsync's `backup.c`.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use protocol::args::Options;
use protocol::flist::Kind;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::attrs::Attrs;
use super::error::{DestError, During};
use super::further::FurtherKept;
use super::output::open_regular;
use super::places::{Backup, Make, Place};
use super::{Dest, Found};
use crate::disk::links::is_unsafe;
use crate::disk::shown;

/// Whether the file stays until something else takes its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Later,
    Now,
}

impl Dest {
    /// Whether backups are made.
    pub fn backs_up(&self) -> bool {
        self.places.backup.is_some()
    }

    /// Where the backup of `name` goes: the directory it is beneath, and its name there.
    fn backup_of(&self, name: &[u8], make: Make) -> io::Result<Option<(&Dest, Vec<u8>)>> {
        let Some(backup) = &self.places.backup else { return Ok(None) };
        let dest = match &backup.dir {
            Some(place) => {
                if make == Make::All {
                    self.announce(backup, place);
                }
                place.dest(self, make)?
            }
            None => self,
        };
        Ok(Some((dest, [name, &backup.suffix].concat())))
    }

    /// Keeps what stands at `name`, not a directory, and takes it away; where backups are not made, or `name` is a backup
    /// itself, it is only taken away. For deletions and for what is in the way of another kind. `false` where nothing
    /// stood.
    pub fn back_up(&self, name: &[u8]) -> Result<bool, DestError> {
        let is_backup = self.places.backup.as_ref().is_some_and(|backup| {
            backup.dir.is_none() && name.ends_with(&backup.suffix) && name.len() > backup.suffix.len()
        });
        if !self.backs_up() || is_backup {
            return self.remove_non_dir(name);
        }
        if self.is_unsafe_link(name)? {
            self.tell_backup(name);
            return self.remove_non_dir(name);
        }
        self.save(name, Leaving::Now)
    }

    /// Tells of the backup that there would be, were this no dry run.
    pub fn would_back_up(&self, name: &[u8]) -> Result<(), DestError> {
        let Some(backup) = self.places.backup.as_ref().filter(|backup| backup.tells) else { return Ok(()) };
        let stands = self.stat(name)?.is_some_and(|found| found.kind() != Some(Kind::Dir));
        if stands {
            backup.dir.iter().for_each(|place| self.announce(backup, place));
            self.tell_backup(name);
        }
        Ok(())
    }

    /// What the user is to hear of backups since the last time.
    pub fn take_words(&self) -> Vec<String> {
        match self.backs_up() {
            true => std::mem::take(&mut *self.words.lock().unwrap_or_else(PoisonError::into_inner)),
            false => Vec::new(),
        }
    }

    fn tell(&self, words: String) {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).push(words);
    }

    /// Tells once where backups go, and whether that is yet to be made.
    fn announce(&self, backup: &Backup, place: &Place) {
        if backup.tells && !backup.announced.swap(true, Ordering::Relaxed) {
            let new = if place.dest(self, Make::Nothing).is_err() { "(new) " } else { "" };
            self.tell(format!("{new}backup_dir is {}", shown(bare(&place.path))));
        }
    }

    fn tell_backup(&self, name: &[u8]) {
        let Some(backup) = self.places.backup.as_ref().filter(|backup| backup.tells) else { return };
        let dir = backup.dir.as_ref().map(|place| [bare(&place.path), b"/"].concat()).unwrap_or_default();
        let at = [&dir, name, &backup.suffix].concat();
        self.tell(format!("backed up {} to {}", shown(name), shown(&at)));
    }

    /// Keeps what stands at `name`, which is about to be replaced; a directory is not kept.
    pub(super) fn back_up_replaced(&self, name: &[u8]) -> Result<(), DestError> {
        match self.backs_up() {
            true if self.is_unsafe_link(name)? => self.tell_backup(name),
            true => drop(self.save(name, Leaving::Later)?),
            false => {}
        }
        Ok(())
    }

    /// Whether a symlink stands at `name` that `--safe-links` would not let in: it is not kept either, though stock tells of
    /// it as of the others.
    fn is_unsafe_link(&self, name: &[u8]) -> Result<bool, DestError> {
        if !self.places.backup.as_ref().is_some_and(|backup| backup.safe_links) {
            return Ok(false);
        }
        Ok(self.read_link(name)?.is_some_and(|target| is_unsafe(&target, name)))
    }

    /// Copies the file that is about to be written in place; its blocks are then found in the copy. Of a device the
    /// content is kept, as far as it has a length.
    pub fn back_up_copy(&self, name: &[u8], options: &Options) -> Result<(), DestError> {
        let Some(found) = self.stat(name)? else { return Ok(()) };
        let device = found.kind() == Some(Kind::Device) && self.places.write_devices;
        if found.kind() != Some(Kind::File) && !device {
            return Ok(());
        }
        let Some((to, at)) = self.backup_of(name, Make::All).during("backup", name)? else { return Ok(()) };
        self.prepare(to, name, &at)?;
        if device {
            let Some(mut source) = self.basis(name)? else { return Ok(()) };
            // A character device has no end.
            let len = source.seek(SeekFrom::End(0)).and_then(|len| source.rewind().map(|()| len)).unwrap_or(0);
            to.copy_to(source.take(len), &at, |copy| to.set_open(copy, &at, &Attrs::of(&found)))?;
            self.tell_backup(name);
            return Ok(());
        }
        let (dir, leaf) = self.beneath.parent(name).during("backup", name)?;
        let source = open_regular(&dir, leaf).during("backup", name)?;
        to.copy_to(&source, &at, |copy| {
            let kept = FurtherKept { xattrs: options.xattrs > 0, acls: options.acls };
            to.copy_further(&source, copy, &at, kept)?;
            to.set_open(copy, &at, &Attrs::of(&found))
        })?;
        self.tell_backup(name);
        Ok(())
    }

    /// Opens the backup of a file that is written in place.
    pub fn open_backup(&self, name: &[u8]) -> Result<Option<std::fs::File>, DestError> {
        match self.backup_of(name, Make::Nothing).during("open", name)? {
            Some((to, at)) => to.basis(&at),
            None => Ok(None),
        }
    }

    fn save(&self, name: &[u8], leaving: Leaving) -> Result<bool, DestError> {
        let saved = self.saved(name, leaving)?;
        if saved {
            self.tell_backup(name);
        }
        Ok(saved)
    }

    fn saved(&self, name: &[u8], leaving: Leaving) -> Result<bool, DestError> {
        let Some(found) = self.stat(name)?.filter(|found| found.kind() != Some(Kind::Dir)) else { return Ok(false) };
        let Some((to, at)) = self.backup_of(name, Make::All).during("backup", name)? else { return Ok(false) };
        self.prepare(to, name, &at)?;
        let (dir, leaf) = self.beneath.parent(name).during("backup", name)?;
        let (backups, last) = to.beneath.parent(&at).during("backup", name)?;
        let done = match leaving {
            Leaving::Later => rustix::fs::linkat(&*dir, leaf, &*backups, last, AtFlags::empty()),
            Leaving::Now => rustix::fs::renameat(&*dir, leaf, &*backups, last),
        };
        if done.is_ok() {
            return Ok(true);
        }
        // Another file system, or one without hard links (of this kind).
        if leaving == Leaving::Later && rustix::fs::renameat(&*dir, leaf, &*backups, last).is_ok() {
            return Ok(true);
        }
        self.copy_any(&dir, leaf, &found, to, &at)?;
        if leaving == Leaving::Now {
            self.remove_non_dir(name)?;
        }
        Ok(true)
    }

    /// Makes room and parents for a backup. Parents get the permissions of those they stand for.
    fn prepare(&self, to: &Dest, name: &[u8], at: &[u8]) -> Result<(), DestError> {
        for (slash, _) in at.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
            let above = &at[..slash];
            // A symlink to a directory is one where names are found through it.
            if to.beneath.dir(above).is_ok() {
                continue;
            }
            to.remove_non_dir(above)?;
            to.make_dir(above, 0o777)?;
            if let Some(found) = self.stat_dir(&name[..slash])?.filter(|found| found.kind() == Some(Kind::Dir)) {
                to.set_attrs(above, Kind::Dir, &Attrs { mtime: None, ..Attrs::of(&found) })?;
            }
        }
        match to.stat(at)?.and_then(|found| found.kind()) {
            Some(Kind::Dir) => to.remove_dir(at).map(drop),
            Some(_) => to.remove_non_dir(at).map(drop),
            None => Ok(()),
        }
    }

    /// Copies a file, symlink or node with all its attributes to another file system.
    fn copy_any(&self, dir: &Arc<OwnedFd>, leaf: &[u8], found: &Found, to: &Dest, at: &[u8]) -> Result<(), DestError> {
        match found.kind() {
            Some(Kind::File) => {
                let source = open_regular(dir, leaf).during("backup", at)?;
                to.copy_to(&source, at, |copy| to.set_open(copy, at, &Attrs::of(found)))
            }
            Some(Kind::Symlink) => {
                let target = rustix::fs::readlinkat(&**dir, leaf, Vec::new()).during("backup", at)?.into_bytes();
                to.make_symlink(at, &target, &Attrs::of(found))
            }
            Some(Kind::Device | Kind::Special) => {
                let (parent, last) = to.beneath.parent(at).during("backup", at)?;
                let device = rustix::fs::makedev(found.rdev.0, found.rdev.1);
                let kind = rustix::fs::FileType::from_raw_mode(found.mode);
                rustix::fs::mknodat(&*parent, last, kind, Mode::RUSR | Mode::WUSR, device).during("backup", at)?;
                found.kind().map_or(Ok(()), |kind| to.set_attrs(at, kind, &Attrs::of(found)))
            }
            _ => Err(Errno::INVAL).during("backup", at),
        }
    }
}

/// A directory's path without the slashes at its end.
fn bare(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(path.len().min(1), |last| last + 1);
    &path[..end]
}
