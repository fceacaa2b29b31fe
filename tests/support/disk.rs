//! A disk that remembers what it was told, so that its power can be cut afterwards, at any moment and again and again: a file
//! that this process serves by FUSE, with a loop device over it. What was flushed stays; of the rest each sector may have
//! stayed or not, for disks keep writes for a while and choose their own order.

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// What sizes are counted in.
const SECTOR: usize = 512;
/// In such pieces is kept what was written since the power came back.
const BLOCK: usize = 4096;
/// The name of the file.
const NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);
/// Nothing of it changes but by way of the kernel.
const TTL: Duration = Duration::from_secs(3600);

/// What a disk is told.
#[derive(Debug, Clone)]
enum Told {
    Write { at: usize, bytes: Vec<u8> },
    Flush,
}

/// What is on the disk.
#[derive(Default)]
struct Platter {
    image: Vec<u8>,
    /// Blocks written since the power came back, which the next cut takes away; `None` where it was never cut.
    since: Option<HashMap<usize, Vec<u8>>>,
    log: Vec<Told>,
}

impl Platter {
    fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let end = (at + len).min(self.image.len());
        let mut bytes = self.image[at.min(end)..end].to_vec();
        for block in self.since.iter().flat_map(|_| at / BLOCK..end.div_ceil(BLOCK)) {
            if let Some(newer) = self.since.as_ref().and_then(|since| since.get(&block)) {
                let (from, to) = ((block * BLOCK).max(at), ((block + 1) * BLOCK).min(end));
                bytes[from - at..to - at].copy_from_slice(&newer[from - block * BLOCK..to - block * BLOCK]);
            }
        }
        bytes
    }

    /// False beyond the end.
    fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        let end = at + bytes.len();
        if end > self.image.len() {
            return false;
        }
        let Some(since) = &mut self.since else {
            self.image[at..end].copy_from_slice(bytes);
            self.log.push(Told::Write { at, bytes: bytes.to_vec() });
            return true;
        };
        for block in at / BLOCK..end.div_ceil(BLOCK) {
            let start = block * BLOCK;
            let image = &self.image;
            let newer = since.entry(block).or_insert_with(|| image[start..image.len().min(start + BLOCK)].to_vec());
            let (from, to) = (start.max(at), (start + BLOCK).min(end));
            newer[from - start..to - start].copy_from_slice(&bytes[from - at..to - at]);
        }
        true
    }
}

/// The file system of one file.
struct Served(Arc<Mutex<Platter>>);

impl Served {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_root = ino == INodeNo::ROOT;
        let size = if is_root { 0 } else { self.platter().image.len() as u64 };
        FileAttr {
            ino,
            size,
            blocks: size / SECTOR as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_root { FileType::Directory } else { FileType::RegularFile },
            perm: if is_root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: BLOCK as u32,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME { reply.entry(&TTL, &self.attr(FILE), Generation(0)) } else { reply.error(Errno::ENOENT) }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    // Times alone: its length is what it is.
    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&TTL, &self.attr(ino));
    }

    // Past the page cache: what the loop device writes and flushes comes here at once, and a cut leaves nothing old behind.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&self.platter().read(at as usize, size as usize));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if self.platter().write(at as usize, bytes) {
            reply.written(bytes.len() as u32);
        } else {
            reply.error(Errno::ENOSPC);
        }
    }

    // Closing is no promise.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut platter = self.platter();
        if platter.since.is_none() {
            platter.log.push(Told::Flush);
        }
        reply.ok();
    }
}

/// A disk, as a block device.
pub struct Disk {
    platter: Arc<Mutex<Platter>>,
    /// Bytes that are written at once, or not at all.
    sector: usize,
    device: String,
    session: Option<BackgroundSession>,
    folder: TempDir,
}

impl Disk {
    /// An empty one of so many bytes, which writes a sector of so many at once or not at all; or why there can be none.
    pub fn make(size: usize, sector: usize) -> Result<Self, String> {
        Self::serve(Platter { image: vec![0; size], ..Platter::default() }, sector)
    }

    fn serve(platter: Platter, sector: usize) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("archiver-disk").tempdir_in("/tmp").unwrap();
        let platter = Arc::new(Mutex::new(platter));
        let mut config = Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("archiver-disk".into())];
        File::open("/dev/fuse").map_err(|error| format!("may not mount by FUSE: /dev/fuse: {error}"))?;
        let session = fuser::spawn_mount(Served(Arc::clone(&platter)), folder.path(), &config)
            .map_err(|error| format!("may not mount by FUSE: {error}"))?;
        let mut disk = Self { platter, sector, device: String::new(), session: Some(session), folder };
        let output = Command::new("losetup").args(["-f", "--show"]).arg(disk.file()).output();
        let output = output.map_err(|error| format!("no loop device can be had here: losetup: {error}"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!("no loop device can be had here: {why}"));
        }
        disk.device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Ok(disk)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    pub fn device(&self) -> &str {
        &self.device
    }

    /// How often it was told something so far.
    pub fn told(&self) -> usize {
        self.platter.lock().unwrap().log.len()
    }

    /// What it has been told so far was long ago; gives what is on it.
    pub fn forget(&self) -> Vec<u8> {
        let mut platter = self.platter.lock().unwrap();
        platter.log.clear();
        platter.image.clone()
    }

    /// What it was told since it had these bytes, for its power to be cut.
    pub fn end(self, begun: Vec<u8>) -> Result<Replay, String> {
        let log = std::mem::take(&mut self.platter.lock().unwrap().log);
        let sector = self.sector;
        drop(self);
        let disk = Self::serve(Platter { image: begun, since: Some(HashMap::new()), log: Vec::new() }, sector)?;
        Ok(Replay { disk, log, safe: 0 })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.device.is_empty() {
            let _ = Command::new("losetup").args(["-d", &self.device]).status();
        }
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

/// A disk whose power can be cut at each moment of what it was told.
pub struct Replay {
    disk: Disk,
    log: Vec<Told>,
    /// So much of the log is in the image.
    safe: usize,
}

/// What a cut has taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Writes that no flush had followed.
    pub open: usize,
    /// Those that are gone, at least in part.
    pub hurt: usize,
}

impl Replay {
    pub fn device(&self) -> &str {
        self.disk.device()
    }

    /// How often the disk was told something, and how often to flush.
    pub fn told(&self) -> (usize, usize) {
        (self.log.len(), self.log.iter().filter(|told| matches!(told, Told::Flush)).count())
    }

    /// Has the disk be as after a cut behind the first `at` things that it was told, of which what was not flushed stayed as
    /// `random` has it. Later cuts come later in the log.
    pub fn cut(&mut self, at: usize, random: &mut fastrand::Rng) -> Cut {
        let flushed = self.log[..at].iter().rposition(|told| matches!(told, Told::Flush)).map_or(0, |flush| flush + 1);
        assert!(flushed >= self.safe, "the log is gone through once");
        let mut platter = self.disk.platter.lock().unwrap();
        for told in &self.log[self.safe..flushed] {
            if let Told::Write { at, bytes } = told {
                platter.image[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        self.safe = flushed;
        platter.since = Some(HashMap::new());
        let mut cut = Cut::default();
        // Now and then nothing stayed, or all that had come so far; else writes stay or go one by one, some of them torn.
        let (stays, torn) = match random.u8(..8) {
            0 => (0.0, 0.0),
            1 => (1.0, 0.0),
            2..=4 => (random.f64(), 0.0),
            _ => (random.f64(), 0.5),
        };
        for told in &self.log[flushed..at] {
            let Told::Write { at, bytes } = told else { continue };
            cut.open += 1;
            let is_torn = random.f64() < torn;
            let keeps = random.f64() < stays;
            if !is_torn && keeps {
                platter.write(*at, bytes);
                continue;
            }
            cut.hurt += 1;
            if is_torn {
                for (number, sector) in bytes.chunks(self.disk.sector).enumerate().filter(|_| random.f64() < stays) {
                    platter.write(at + number * self.disk.sector, sector);
                }
            }
        }
        cut
    }
}
