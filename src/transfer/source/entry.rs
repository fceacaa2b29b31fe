//! One name: what stands there, and the entry it gets.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use protocol::flist::{DirClass, Extras, FileEntry, Kind, LinkId};
use protocol::mux::IO_GENERAL;
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::tree::{self, Reading};
use super::{Location, NAME_MAX, NO_SUCH_LETTER, Severity, Walk, attributes};
use crate::clock::unix_seconds;
use crate::disk::beneath::{self, mtime};
use crate::disk::pinned::Pinned;
use crate::disk::shown;
use crate::disk::{fake, links};

/// What stands at a name.
pub(super) struct Inspected<'a> {
    /// The directory, and the name in it.
    pub(super) dir: &'a OwnedFd,
    pub(super) leaf: &'a [u8],
    pub(super) at: Location,
    pub(super) stat: &'a Stat,
}

impl Walk<'_> {
    /// The entry for a name, if the options and filters want it.
    pub(super) fn entry(&mut self, inspected: &Inspected<'_>, name: Vec<u8>, class: DirClass) -> Option<FileEntry> {
        let &Inspected { dir, leaf, at, stat } = inspected;
        let kind = beneath::kind(stat.st_mode);
        if !self.wants(&name, kind) {
            return None;
        }
        let mut entry = described(name, stat, class);
        if self.options.atimes && kind != Some(Kind::Dir) {
            entry.extra.atime = stat.st_atime;
        }
        if self.options.hard_links && stat.st_nlink > 1 && kind != Some(Kind::Dir) {
            entry.extra.link = Some(LinkId { dev: stat.st_dev, ino: stat.st_ino });
        }
        match kind {
            Some(Kind::Symlink) => {
                let target = self.target_to_tell(inspected, &entry.name)?;
                entry.extra.target = Some(target);
            }
            Some(Kind::File) => {
                if let Some(sum) = &mut self.hooks.sum {
                    let opened = match stands_for_device(stat) && stat.st_size == 0 {
                        // One without a length is not read, and may have no end.
                        true => File::open("/dev/null"),
                        false => tree::open_file(dir, leaf, Reading::new(&self.options)),
                    };
                    entry.extra.sum = opened.and_then(|mut file| sum(&mut file)).unwrap_or(None);
                }
            }
            _ => {}
        }
        let behind = self.follows_links() || (self.options.copy_dirlinks && kind == Some(Kind::Dir));
        let follow = behind && kind != Some(Kind::Symlink);
        let stands = |kind| if stands_for_device(stat) { Kind::Device } else { kind };
        let open = |kind| match follow {
            true => Pinned::open_following(dir, leaf, stands(kind)),
            false => Pinned::open(dir, leaf, stands(kind)),
        };
        if self.options.acls || self.options.xattrs > 0 {
            let (tree, name) = (&self.tree, entry.name.clone());
            if let Err(text) = self.attributes.fill(&mut entry, open, || tree.full_path(&name, at)) {
                self.left_out(text);
                return None;
            }
        }
        Some(entry)
    }

    /// Whether the caller and the options want what stands at a name, and the peer can be told of it.
    fn wants(&mut self, name: &[u8], kind: Option<Kind>) -> bool {
        if let Some(keep) = self.hooks.keep.as_mut().filter(|_| name != b".")
            && !keep(name, kind == Some(Kind::Dir))
        {
            return false;
        }
        let wanted = match kind {
            Some(Kind::File | Kind::Dir) => true,
            Some(Kind::Symlink) => self.options.links,
            Some(Kind::Device) => self.options.devices,
            Some(Kind::Special) => self.options.specials,
            None => false,
        };
        if !self.converts(name) {
            let text = format!("cannot convert filename: {}{NO_SUCH_LETTER}", shown(name));
            (self.hooks.report)(Severity::Unconverted, text);
            self.io_error |= IO_GENERAL;
            return false;
        }
        if !wanted {
            (self.hooks.report)(Severity::Info, format!("skipping non-regular file \"{}\"", shown(name)));
        }
        wanted
    }

    /// Where a symlink leads; `None`, with words, where that cannot be read or told.
    fn target_to_tell(&mut self, inspected: &Inspected<'_>, name: &[u8]) -> Option<Vec<u8>> {
        let path = || self.tree.full_path(name, inspected.at);
        match self.target(inspected.dir, inspected.leaf) {
            Ok(target) if self.converts(&target) => Some(target),
            Ok(_) => {
                let text = format!("cannot convert symlink data for: \"{}\"{NO_SUCH_LETTER}", shown(&path()));
                (self.hooks.report)(Severity::Unconverted, text);
                self.io_error |= IO_GENERAL;
                None
            }
            Err(error) => {
                let path = path();
                self.failed("readlink", &path, &error);
                None
            }
        }
    }

    /// Whether a name can be told to the peer.
    pub(super) fn converts(&self, name: &[u8]) -> bool {
        self.options.charset.is_none_or(|set| set.to_utf8(name).is_some_and(|name| name.len() <= NAME_MAX))
    }

    pub(super) fn follows_links(&self) -> bool {
        self.options.copy_links || self.options.copy_unsafe_links
    }

    fn target(&self, dir: &OwnedFd, leaf: &[u8]) -> io::Result<Vec<u8>> {
        if self.options.fake_super {
            match fake::target(dir, leaf) {
                // It is a symlink in truth, made by somebody else.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {}
                target => return target,
            }
        }
        let target = rustix::fs::readlinkat(dir, leaf, Vec::new())?.into_bytes();
        Ok(if self.options.unmunge_links { links::unmunged(target) } else { target })
    }

    pub(super) fn left_out(&mut self, text: String) {
        self.io_error |= IO_GENERAL;
        (self.hooks.report)(Severity::Error, text);
    }

    /// What stands at a name, or behind it where the options follow symlinks.
    pub(super) fn look(&mut self, dir: &OwnedFd, leaf: &[u8], name: &[u8]) -> io::Result<Stat> {
        let mut stat = self.look_plainly(dir, leaf)?;
        if self.options.copy_unsafe_links && beneath::kind(stat.st_mode) == Some(Kind::Symlink) {
            let target = self.target(dir, leaf)?;
            if links::is_unsafe(&target, name) {
                if self.options.tells_unsafe_links {
                    let text = format!("copying unsafe symlink \"{}\" -> \"{}\"", shown(name), shown(&target));
                    (self.hooks.report)(Severity::Info, text);
                }
                stat = beneath::stat_following(dir, leaf)?;
            }
        }
        let is_device = beneath::kind(stat.st_mode) == Some(Kind::Device);
        if self.options.fake_super {
            attributes::disguise(dir, leaf, &mut stat)?;
        }
        if is_device && self.options.copy_devices {
            let len = tree::device_length(dir, leaf, Reading::new(&self.options), &stat)?;
            stat.st_mode = FileType::RegularFile.as_raw_mode() | (stat.st_mode & 0o7777);
            stat.st_size = i64::try_from(len).unwrap_or(i64::MAX);
            // When it was written to, a device does not say.
            (stat.st_mtime, stat.st_mtime_nsec) = (unix_seconds() as _, 0);
        }
        Ok(stat)
    }

    fn look_plainly(&self, dir: &OwnedFd, leaf: &[u8]) -> io::Result<Stat> {
        if self.options.copy_links {
            return beneath::stat_following(dir, leaf);
        }
        let stat = rustix::fs::statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?;
        if self.options.copy_dirlinks && beneath::kind(stat.st_mode) == Some(Kind::Symlink) {
            let behind = beneath::stat_following(dir, leaf).ok();
            return Ok(behind.filter(|stat| beneath::kind(stat.st_mode) == Some(Kind::Dir)).unwrap_or(stat));
        }
        Ok(stat)
    }
}

/// Whether a regular file is the device that `--copy-devices` made it of.
fn stands_for_device(stat: &Stat) -> bool {
    stat.st_rdev != 0 && beneath::kind(stat.st_mode) == Some(Kind::File)
}

/// An entry as `stat` describes it, without a target or sum.
pub(super) fn described(name: Vec<u8>, stat: &Stat, class: DirClass) -> FileEntry {
    let (mtime, nsec) = mtime(stat);
    let kind = beneath::kind(stat.st_mode);
    let rdev = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let extras = Extras {
        rdev: (kind == Some(Kind::Device)).then(rdev),
        dir_class: if kind == Some(Kind::Dir) { class } else { DirClass::Content },
        ..Extras::default()
    };
    FileEntry {
        name,
        mode: stat.st_mode,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        mtime,
        nsec,
        uid: stat.st_uid,
        gid: stat.st_gid,
        extra: extras.into(),
    }
}
