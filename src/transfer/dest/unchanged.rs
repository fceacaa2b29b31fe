//! Files that turn out to have their new content already: they stay where they are and only get their attributes.
//! Stock rsync writes them anew, so this is done only where the inode number alone tells the difference.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::args::Options;
use protocol::checksum::Sum;
use protocol::flist::FileEntry;
use rustix::io::Errno;

use super::attrs::{Attrs, Preserve};
use super::error::{DestError, During};
use super::further::{Further, Values};
use super::output::Fsync;
use super::{Dest, Found};
use crate::disk::fake::Fake;
use protocol::flist::Kind;

/// A change within one tick of the kernel's clock leaves the same change time as the one before; this is several.
const TICKS: Duration = Duration::from_millis(50);
/// Bytes of attribute names that are looked through.
const NAMES_MOST: usize = 4096;

/// Which file it is, and when it was changed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    found: Found,
    /// Seconds and nanoseconds of the last change.
    changed: (i64, i64),
}

/// The sum of all of a file's bytes, and which file that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    /// What its bytes came to.
    pub sum: Sum,
    /// The file, before and after they were read.
    pub stamp: Stamp,
}

impl Stamp {
    pub fn of(file: &File) -> io::Result<Stamp> {
        let stat = rustix::fs::fstat(file)?;
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        Ok(Stamp { found: Found { atime: 0, ..Found::from(stat) }, changed })
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.found.len
    }

    /// Whether the last change lies so far back that the next one will show.
    pub fn is_settled(&self) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let since = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
        SystemTime::now().duration_since(UNIX_EPOCH + since).is_ok_and(|passed| passed > TICKS)
    }
}

impl Dest {
    /// The stamp of the open file that stands at a name, if it may stay should its new content be the one it has: a new
    /// file in its place would have the same owner, the same attributes and no second name.
    pub fn may_stay(&self, file: &File, entry: &FileEntry, options: &Options, preserve: &Preserve) -> Option<Stamp> {
        let placed = options.temp_dir.is_some() || options.delay_updates;
        let rewritten = placed || options.sparse || options.preallocate || !options.times;
        // By their sums the two are known to differ.
        if rewritten || options.checksum || self.fake == Fake::Yes || self.backs_up() {
            return None;
        }
        let stat = rustix::fs::fstat(file).ok()?;
        let stamp = Stamp::of(file).ok()?;
        let found = &stamp.found;
        if found.kind() != Some(Kind::File)
            || stat.st_nlink != 1
            || found.len != entry.len
            || entry.extra.link.is_some()
        {
            return None;
        }
        let wanted = self.wanted(entry, preserve, Some(found));
        let owner = wanted.uid.is_some() || found.uid == rustix::process::geteuid().as_raw();
        let group = wanted.gid.is_some() || self.has_group_of_new(found, &entry.name);
        (owner && group && self.keeps_no_further(file, options)).then_some(stamp)
    }

    fn has_group_of_new(&self, found: &Found, name: &[u8]) -> bool {
        let inherits = |stat: rustix::fs::Stat| stat.st_mode & 0o2000 != 0;
        let dir = self.beneath.parent(name).ok().and_then(|(dir, _)| rustix::fs::fstat(dir).ok());
        found.gid == rustix::process::getegid().as_raw() && dir.is_some_and(|stat| !inherits(stat))
    }

    /// Whether the file has no extended attributes or ACL but those that the options see to.
    fn keeps_no_further(&self, file: &File, options: &Options) -> bool {
        let mut names = [0; NAMES_MOST];
        let len = match rustix::fs::flistxattr(file, &mut names) {
            Ok(len) => len,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
            Err(_) => return false,
        };
        let seen_to = |name: &[u8]| match name {
            b"" | b"security.selinux" => true,
            name if name.starts_with(b"system.") => options.acls,
            name => options.xattrs > 0 && (self.am_root || name.starts_with(b"user.")),
        };
        names.get(..len).is_some_and(|names| names.split(|&byte| byte == 0).all(seen_to))
    }

    /// Lets a file stay whose content is known to be right, and gives it its attributes; syncs it when asked. False when
    /// it is no longer the file that was looked at.
    pub fn leave(
        &self,
        name: &[u8],
        (file, stamp): (&File, &Stamp),
        attrs: &Attrs,
        further: Option<(&Further<'_>, &Values)>,
        fsync: Fsync,
    ) -> Result<bool, DestError> {
        let inode = |found: &Found| (found.dev, found.ino);
        let stands = self.stat(name)?.is_some_and(|found| inode(&found) == inode(&stamp.found));
        if !stands || Stamp::of(file).during("stat", name)? != *stamp {
            return Ok(false);
        }
        let missing = attrs.differing_from(&stamp.found, -1);
        match further {
            Some((further, values)) => self.set_open_further(file, name, &missing, further, values)?,
            None => self.set_open(file, name, &missing)?,
        }
        if fsync == Fsync::Yes {
            file.sync_all().during("fsync", name)?;
            let (dir, _) = self.beneath.parent(name).during("fsync directory of", name)?;
            super::output::sync_dir(&dir).during("fsync directory of", name)?;
        }
        Ok(true)
    }
}
