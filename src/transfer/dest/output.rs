//! A file being written: under a temporary name beside its final one, or where it stands.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use protocol::args::Options;
use protocol::flist::Kind;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::attrs::Attrs;
use super::error::{DestError, During};
use super::further::{Further, Values};
use super::places::Make;
use super::{Dest, Found};
use crate::disk::beneath;
use crate::disk::modes;
use crate::disk::pinned::Pinned;

/// Longest name of one component on Linux file systems.
const COMPONENT_MAX: usize = 255;
/// Random characters at the end of a temporary name.
const RANDOM: usize = 6;
/// Names tried before a crowded directory counts as an error.
const TRIES: usize = 100;
/// Bytes copied at once.
const COPY_SIZE: u64 = 256 * 1024;
/// Zeros that are worth a hole: a block of most file systems.
const HOLE: u64 = 4096;

/// A file that gets its bytes. One under a temporary name is removed when dropped without [`OutputFile::commit`] or
/// [`OutputFile::keep`].
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    dir: Arc<OwnedFd>,
    leaf: Vec<u8>,
    name: Vec<u8>,
    standing: OldFile,
    device: bool,
    at: u64,
    /// Bytes that were there before, or are reserved.
    reach: u64,
    sparse: bool,
    /// Zeros before `at` that are not written yet.
    zeros: u64,
    /// The permissions of a file that its owner could not write to before.
    locked: Option<u32>,
}

/// Whether a file is to be on the disk before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// The system writes it when it likes.
    No,
    /// It is waited for.
    Yes,
}

impl Fsync {
    /// As the options ask for it (`--fsync`).
    pub fn asked(options: &Options) -> Self {
        if options.fsync { Self::Yes } else { Self::No }
    }
}

/// Where a file is while it is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OldFile {
    /// Under a temporary name in its final directory.
    Beside,
    /// Under a temporary name elsewhere.
    Apart,
    /// Where broken-off files are kept.
    Kept,
    /// Under its final name.
    InPlace,
}

impl Dest {
    /// Creates `.NAME.XXXXXX` beside `name` (or `NAME.XXXXXX` in the directory for temporary files), for its owner alone.
    pub fn create_temp(&self, name: &[u8]) -> Result<OutputFile, DestError> {
        self.create_with(name, OFlags::WRONLY)
    }

    /// The same, to be read, too, and for others to write so many bytes into.
    pub(in crate::transfer) fn create_staged(&self, name: &[u8], len: u64) -> Result<OutputFile, DestError> {
        let mut output = self.create_with(name, OFlags::RDWR)?;
        output.reach = len;
        Ok(output)
    }

    fn create_with(&self, name: &[u8], access: OFlags) -> Result<OutputFile, DestError> {
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |dir: &OwnedFd, temp: &[u8]| rustix::fs::openat(dir, temp, flags, Mode::RUSR | Mode::WUSR);
        let (dir, leaf, fd) = match &self.places.temp {
            None => {
                let (dir, leaf, fd) = self.with_temp_name("mkstemp", name, make)?;
                return Ok(OutputFile::new(fd.into(), dir, leaf, name, OldFile::Beside));
            }
            Some(place) => {
                let temp = place.dest(self, Make::Nothing).during("mkstemp", name)?;
                let (dir, leaf, fd) = temp.with_temp_name("mkstemp", leaf_of(name), |dir, temp| {
                    make(dir, temp.strip_prefix(b".").unwrap_or(temp))
                })?;
                (dir, leaf.strip_prefix(b".").unwrap_or(&leaf).to_vec(), fd)
            }
        };
        Ok(OutputFile::new(fd.into(), dir, leaf, name, OldFile::Apart))
    }

    /// Opens the file at `name` to be written where it stands; one that is missing is made, for its owner alone.
    pub fn open_in_place(&self, name: &[u8]) -> Result<OutputFile, DestError> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let (dir, leaf) = self.beneath.parent(name).during("open", name)?;
        let open = || rustix::fs::openat(&*dir, leaf, flags, Mode::RUSR | Mode::WUSR);
        let mut locked = None;
        let fd = match open() {
            Err(Errno::ACCESS) => {
                locked = self.unlock(&dir, leaf);
                open()
            }
            opened => opened,
        };
        if let (Err(_), Some((pinned, mode))) = (&fd, &locked) {
            let _ = pinned.set_mode(*mode);
        }
        let fd = fd.during("open", name)?;
        let found = Found::from(rustix::fs::fstat(&fd).during("stat", name)?);
        let device = found.kind() == Some(Kind::Device) && self.places.write_devices;
        if found.kind() != Some(Kind::File) && !device {
            return Err(Errno::INVAL).during("open", name);
        }
        let mut output = OutputFile::new(fd.into(), Arc::clone(&dir), leaf.to_vec(), name, OldFile::InPlace);
        output.reach = found.len;
        output.device = device;
        output.locked = locked.map(|(_, mode)| mode);
        Ok(output)
    }

    /// Lets the owner write to a regular file; returns the permissions it had, for what has no others in the end.
    fn unlock(&self, dir: &OwnedFd, leaf: &[u8]) -> Option<(Pinned, u32)> {
        let pinned = Pinned::open(dir, leaf, Kind::File).ok()?;
        let mode = pinned.stat().ok()?.st_mode & 0o7777;
        pinned.set_mode(mode | 0o600).ok().map(|()| (pinned, mode))
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

/// Where a finished or broken-off file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    Home,
    Aside,
}

impl OutputFile {
    fn new(file: File, dir: Arc<OwnedFd>, leaf: Vec<u8>, name: &[u8], standing: OldFile) -> Self {
        let name = name.to_vec();
        let (device, at, reach, sparse, zeros, locked) = Default::default();
        Self { file, dir, leaf, name, standing, device, at, reach, sparse, zeros, locked }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the next byte goes.
    pub fn position(&self) -> u64 {
        self.at
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether the file is where broken-off files are kept.
    pub(super) fn is_kept(&self) -> bool {
        self.standing == OldFile::Kept
    }

    /// Leaves runs of zeros out from now on.
    pub fn make_holes(&mut self) {
        self.sparse = !self.device;
    }

    /// Reserves room for a file of `len` bytes.
    pub fn reserve(&mut self, len: u64) -> io::Result<()> {
        if len > self.reach && !self.device {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => self.reach = len,
                // A file system that cannot reserve.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Has the file system share the bytes of `basis` with this empty file; false where it cannot.
    pub(in crate::transfer) fn share(&mut self, basis: &File, len: u64) -> bool {
        let shared = rustix::fs::ioctl_ficlone(&self.file, basis).is_ok();
        if shared {
            self.reach = len;
        }
        shared
    }

    /// Begins with the first bytes of `basis`.
    pub(in crate::transfer) fn copy_beginning(&mut self, basis: &File, len: u64) -> io::Result<()> {
        let (mut from, mut to) = (self.at, self.at);
        while from < len {
            let most = usize::try_from(len - from).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(basis, Some(&mut from), &self.file, Some(&mut to), most) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.at = to;
        // Not every file system can.
        let mut buffer = vec![0; usize::try_from((len - from).min(COPY_SIZE)).unwrap_or_default()];
        while self.at < len {
            let most = buffer.len().min(usize::try_from(len - self.at).unwrap_or(usize::MAX));
            basis.read_exact_at(&mut buffer[..most], self.at)?;
            self.file.write_all_at(&buffer[..most], self.at)?;
            self.at += most as u64;
        }
        Ok(())
    }

    /// Goes on behind these bytes, which are right already; of runs of zeros holes are made where that is asked for.
    pub fn pass_over(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.sparse { self.put_sparse(bytes, true) } else { self.pass(bytes.len() as u64) }
    }

    /// Goes on behind bytes that are right already.
    pub fn pass(&mut self, len: u64) -> io::Result<()> {
        self.fill()?;
        self.at += len;
        Ok(())
    }

    /// The same, of a file that is written where a broken-off try at `name` was kept.
    pub(super) fn kept_for(mut self, name: &[u8]) -> Self {
        self.name = name.to_vec();
        self.standing = OldFile::Kept;
        self
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.sparse {
            self.file.write_all_at(bytes, self.at)?;
            self.at += bytes.len() as u64;
            return Ok(());
        }
        self.put_sparse(bytes, false)
    }

    /// Leaves runs of zeros out; `stand` means that the bytes are in the file.
    fn put_sparse(&mut self, bytes: &[u8], stand: bool) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let to_boundary = (HOLE - self.at % HOLE) as usize;
            let (piece, later) = rest.split_at(rest.len().min(to_boundary));
            if piece.iter().all(|&byte| byte == 0) {
                self.zeros += piece.len() as u64;
            } else {
                self.fill()?;
                if !stand {
                    self.file.write_all_at(piece, self.at)?;
                }
            }
            self.at += piece.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Makes the zeros left out so far true: where something was before, a hole is punched.
    fn fill(&mut self) -> io::Result<()> {
        let zeros = std::mem::take(&mut self.zeros);
        let from = self.at - zeros;
        let within = self.reach.min(self.at);
        if zeros == 0 || from >= within {
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, punch, from, within - from) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let block = [0; HOLE as usize];
                let mut at = from;
                while at < within {
                    let len = (within - at).min(HOLE);
                    self.file.write_all_at(&block[..len as usize], at)?;
                    at += len;
                }
                Ok(())
            }
            done => Ok(done?),
        }
    }

    /// The file has all its bytes: what lies beyond is cut off.
    fn complete(&mut self) -> io::Result<()> {
        self.fill()?;
        if !self.device && (self.sparse || self.reach > self.at) {
            self.file.set_len(self.at)?;
        }
        Ok(())
    }

    /// Gives a file that was made writable its permissions back.
    fn lock(&mut self) {
        if let Some(mode) = self.locked.take() {
            // Whoever could take them away can give them back.
            let _ = modes::fchmod(&self.file, mode);
        }
    }

    /// Whether the file is written under its final name, and so stays whatever happens.
    pub(super) fn is_in_place(&self) -> bool {
        self.standing == OldFile::InPlace
    }

    /// Gives the file its length and attributes, and syncs it when asked.
    /// What lacks an attribute is better than nothing, so trouble with those is not the end, but what is returned.
    pub(in crate::transfer) fn settle(
        &mut self,
        dest: &Dest,
        attrs: &Attrs,
        further: Option<(&Further<'_>, &Values)>,
        fsync: Fsync,
    ) -> Result<Result<(), DestError>, DestError> {
        self.complete().during("write", &self.name)?;
        self.lock();
        let dressed = match further {
            Some((further, values)) => dest.set_open_further(&self.file, &self.name, attrs, further, values),
            None => dest.set_open(&self.file, &self.name, attrs),
        };
        if fsync == Fsync::Yes {
            self.sync()?;
        }
        Ok(dressed)
    }

    /// Gives the file its attributes, syncs it when asked, and renames it over the final name, replacing even a symlink.
    /// What stood there goes to the backups, where there are any.
    pub fn commit(
        mut self,
        dest: &Dest,
        attrs: &Attrs,
        further: Option<(&Further<'_>, &Values)>,
        fsync: Fsync,
    ) -> Result<(), DestError> {
        let dressed = self.settle(dest, attrs, further, fsync)?;
        let name = self.name.clone();
        let dir = self.place(dest, attrs)?;
        if fsync == Fsync::Yes {
            sync_dir(&dir).during("fsync directory of", &name)?;
        }
        dressed
    }

    /// Syncs a settled file.
    pub(in crate::transfer) fn sync(&self) -> Result<(), DestError> {
        if self.device { Ok(()) } else { self.file.sync_all().during("fsync", &self.name) }
    }

    /// Renames a settled file over the final name, as [`OutputFile::commit`] does, and returns the directory it is in then.
    pub(in crate::transfer) fn place(mut self, dest: &Dest, attrs: &Attrs) -> Result<Arc<OwnedFd>, DestError> {
        if !self.is_in_place() {
            dest.back_up_replaced(&self.name)?;
            let name = std::mem::take(&mut self.name);
            if self.standing == OldFile::Beside {
                rename(&self.dir, &self.leaf, &name)?;
                self.standing = OldFile::InPlace;
            } else {
                self.move_to(dest, &name, attrs, Moved::Home)?;
            }
        }
        Ok(Arc::clone(&self.dir))
    }

    /// As [`OutputFile::commit`], synced, but never over anything: `false` when something stands at the final name. For a file
    /// under a temporary name beside its final one, or where broken-off files are kept.
    pub fn commit_new(mut self, dest: &Dest, attrs: &Attrs) -> Result<bool, DestError> {
        self.settle(dest, attrs, None, Fsync::Yes)??;
        let home = match self.standing {
            OldFile::Kept => dest.beneath.parent(&self.name).during("rename", &self.name)?.0,
            _ => Arc::clone(&self.dir),
        };
        let leaf = leaf_of(&self.name);
        let renamed = rustix::fs::renameat_with(&self.dir, &*self.leaf, &home, leaf, RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(false),
            // Network file systems know no such rename. A link is as good.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match rustix::fs::linkat(&self.dir, &*self.leaf, &home, leaf, AtFlags::empty()) {
                    Ok(()) => discard(&self.dir, &self.leaf),
                    Err(Errno::EXIST) => return Ok(false),
                    Err(error) => return Err(error).during("link", &self.name),
                }
            }
            Err(error) => return Err(error).during("rename", &self.name),
        }
        let was_kept = self.is_kept();
        self.standing = OldFile::InPlace;
        sync_dir(&home).during("fsync directory of", &self.name)?;
        if was_kept {
            dest.drop_partial(&self.name);
        }
        Ok(true)
    }

    /// Moves the file to a name beneath `to`; over to another file system it is copied.
    pub(super) fn move_to(&mut self, to: &Dest, name: &[u8], attrs: &Attrs, moved: Moved) -> Result<(), DestError> {
        let (dir, leaf) = to.beneath.parent(name).during("rename", name)?;
        match rustix::fs::renameat(&*self.dir, &self.leaf, &*dir, leaf) {
            Err(Errno::XDEV) => {
                to.copy_over(&self.dir, &self.leaf, name, attrs)?;
                discard(&self.dir, &self.leaf);
            }
            done => done.during("rename", name)?,
        }
        self.standing = if moved == Moved::Home { OldFile::InPlace } else { OldFile::Kept };
        self.dir = Arc::clone(&dir);
        self.leaf = leaf.to_vec();
        Ok(())
    }
}

impl Dest {
    /// Copies a file of a held directory over `name`. Where there is no room for two, the old one makes room first.
    pub(super) fn copy_over(&self, dir: &OwnedFd, leaf: &[u8], name: &[u8], attrs: &Attrs) -> Result<(), DestError> {
        let source = open_regular(dir, leaf).during("open", name)?;
        let dress = |copy: &File| self.set_open(copy, name, attrs);
        match self.copy_to(&source, name, dress) {
            Err(error) if error.source.kind() == io::ErrorKind::StorageFull => {
                self.remove_non_dir(name)?;
                let source = open_regular(dir, leaf).during("open", name)?;
                self.copy_to(&source, name, dress)
            }
            done => done,
        }
    }

    /// Copies an open file, from where it stands, over `name`; `dress` gives the copy its attributes.
    pub(super) fn copy_to(
        &self,
        mut source: impl Read,
        name: &[u8],
        dress: impl FnOnce(&File) -> Result<(), DestError>,
    ) -> Result<(), DestError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (dir, leaf, fd) = self.with_temp_name("mkstemp", name, |dir, temp| {
            rustix::fs::openat(dir, temp, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let mut output = OutputFile::new(fd.into(), dir, leaf, name, OldFile::Beside);
        io::copy(&mut source, &mut output.file).during("copy", name)?;
        dress(&output.file)?;
        rename(&output.dir, &output.leaf, name)?;
        output.standing = OldFile::InPlace;
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        self.lock();
        if matches!(self.standing, OldFile::Beside | OldFile::Apart) {
            discard(&self.dir, &self.leaf);
        }
    }
}

/// Opens a regular file of a held directory for reading.
pub(super) fn open_regular(dir: &OwnedFd, leaf: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, leaf, flags, Mode::empty())?;
    match beneath::kind(rustix::fs::fstat(&fd)?.st_mode) {
        Some(Kind::File) => Ok(fd.into()),
        _ => Err(Errno::INVAL.into()),
    }
}

/// The last component of a name.
pub(super) fn leaf_of(name: &[u8]) -> &[u8] {
    name.rsplit(|&byte| byte == b'/').next().unwrap_or(name)
}

/// Renames a temporary over the last component of `name`, both in `dir`.
pub(super) fn rename(dir: &OwnedFd, temp: &[u8], name: &[u8]) -> Result<(), DestError> {
    rustix::fs::renameat(dir, temp, dir, leaf_of(name)).during("rename", name)
}

/// Removes a temporary; one that cannot be removed is left for the next run to name differently.
pub(super) fn discard(dir: &OwnedFd, temp: &[u8]) {
    let _ = rustix::fs::unlinkat(dir, temp, AtFlags::empty());
}

pub(in crate::transfer) fn sync_dir(dir: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(beneath::readable(dir)?)?)
}

/// `.LEAF.XXXXXX`: a leading dot is not doubled, and the name is shortened to fit without cutting a character.
/// rsync: get_tmpname
pub(crate) fn temp_name(leaf: &[u8], mut random: impl FnMut() -> u8) -> Vec<u8> {
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
