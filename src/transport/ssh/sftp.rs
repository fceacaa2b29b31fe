//! Files at the far end by SFTP: the road where no program serves there. A connection of its own, used from one thread.

use super::dial::Dialled;
use super::drive::{CallFailure, drive};
use crate::link::Closer;
use libssh2_sys as sys;
use ssh2::{ErrorCode, File, FileStat, OpenFlags, OpenType};
use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::Shutdown;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes handed over at once; libssh2 has that much under way, and a copy of it. Over a long link as many as a stock sshd
/// takes of one channel in a round trip, and what its answers take.
const AHEAD: RangeInclusive<usize> = 1 << 20..=(2 << 20) + (256 << 10);
/// Bytes that a connection may carry in a microsecond: sshd takes no more of one.
const AHEAD_PER_MICROSECOND: u64 = 600;
/// libssh2 has so many times the bytes of a buffer under way that it is to fill.
const READ_AHEAD: u64 = 4;
/// Bytes that are confirmed before what stands behind them is moved to the front.
const SLACK: usize = 1 << 20;
/// How long the goodbye to a file may take that something went wrong with, milliseconds.
const FAREWELL_MS: u32 = 500;
/// Round trips that the start of a session takes: a channel, the subsystem, the version.
const STARTS: u32 = 3;

/// Why something could not be done over there.
#[derive(Debug, thiserror::Error)]
pub enum SftpError {
    /// There is no such name.
    #[error("No such file or directory")]
    Absent,
    /// Something has the name already.
    #[error("File exists")]
    Exists,
    /// We may not.
    #[error("Permission denied")]
    Denied,
    /// There is no room.
    #[error("No space left on device")]
    Full,
    /// The server does not know how.
    #[error("The SFTP server does not support it")]
    Unsupported,
    /// The server gives no better reason.
    #[error("The SFTP server says: {0}")]
    Failed(String),
    /// The connection broke.
    #[error("SFTP connection lost: {0}")]
    Lost(String),
    /// Nothing came for too long.
    #[error("SFTP connection stalled: no answer within {0:?}")]
    Stalled(Duration),
}

impl SftpError {
    /// Not an answer of the server, but the want of one: the connection is of no more use.
    pub fn is_of_the_line(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Stalled(_))
    }
}

/// What stands at a name, itself and not what a symlink points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SftpStat {
    /// A regular file.
    pub is_file: bool,
    /// A directory.
    pub is_dir: bool,
    /// Size in bytes.
    pub len: u64,
    /// Permission bits.
    pub perms: u32,
}

/// Connections to one server that ended while it was to sync a file, none of which had ever done so; the connections in
/// a row share the count.
pub(super) type LostInSync = Arc<SyncLosses>;

/// Where connections ended, one after the other.
#[derive(Debug, Default)]
pub(super) struct SyncLosses {
    files: AtomicU32,
    directories: AtomicU32,
}

/// Bytes that any link is given at once. libssh2 hears no answer before all are sent, so that a slow one would seem to stall.
const TRUSTED: usize = 256 << 10;

/// What a link carries in this part of a stall is no burden for it.
const GOOD_TIME: u32 = 16;

/// After so many it is not asked any more: a server that ends the connection at what it does not know would never take a
/// file.
const LOST_IN_SYNC_MOST: u32 = 2;

/// A file system at the far end.
pub struct Sftp {
    // Before the line: it is shut down on it.
    sftp: ssh2::Sftp,
    line: Dialled,
    stall_limit: Duration,
    /// Whether the server can sync, once that is known.
    syncs: Option<bool>,
    /// Whether it can sync a directory.
    syncs_names: Option<bool>,
    /// Connections that ended in a sync, one after the other, before this one.
    lost_in_sync: LostInSync,
    /// Whether it has refused to set permissions or times.
    keeps_its_own: bool,
    /// What it has refused to do and nobody has asked about yet.
    refused: Vec<String>,
    /// Bytes that are under way at most.
    ahead: usize,
    /// As many as the link has shown that it carries in good time.
    trusted: Cell<usize>,
    buffer: Vec<u8>,
}

impl Sftp {
    pub(super) fn start(
        line: Dialled,
        limit: Duration,
        stall_limit: Duration,
        lost_in_sync: LostInSync,
    ) -> Result<Self, SftpError> {
        let began = Instant::now();
        let deadline = began + limit;
        let sftp = drive(&line.session, &line.tcp, deadline, || line.session.sftp()).map_err(|stop| match stop {
            CallFailure::TimedOut => SftpError::Stalled(limit),
            CallFailure::Failed(error) => SftpError::Failed(error.message().to_owned()),
        })?;
        // A file that is dropped while it is open is closed in blocking mode, and an answer may never come.
        line.session.set_timeout(FAREWELL_MS);
        let round_trip = u64::try_from((began.elapsed() / STARTS).as_micros()).unwrap_or(u64::MAX);
        let ahead = usize::try_from(round_trip.saturating_mul(AHEAD_PER_MICROSECOND)).unwrap_or(usize::MAX);
        let ahead = ahead.clamp(*AHEAD.start(), *AHEAD.end());
        Ok(Self {
            sftp,
            line,
            stall_limit,
            ahead,
            trusted: Cell::new(TRUSTED),
            syncs: None,
            syncs_names: None,
            lost_in_sync,
            keeps_its_own: false,
            refused: Vec::new(),
            buffer: vec![0; ahead + SLACK],
        })
    }

    /// Ends the connection from any thread.
    pub fn closer(&self) -> Closer {
        let tcp = self.line.tcp.clone();
        Closer::new(move || {
            let _ = tcp.shutdown(Shutdown::Both);
        })
    }

    /// Where a login begins.
    pub fn home(&self) -> Result<PathBuf, SftpError> {
        self.drive(|| self.sftp.realpath(Path::new(".")))
    }

    /// What stands at `path`; `None` where nothing does.
    pub fn stat(&self, path: &Path) -> Result<Option<SftpStat>, SftpError> {
        match self.drive(|| self.sftp.lstat(path)) {
            Ok(stat) => Ok(Some(SftpStat {
                is_file: stat.is_file(),
                is_dir: stat.is_dir(),
                len: stat.size.unwrap_or(0),
                perms: stat.perm.unwrap_or(0) & 0o7777,
            })),
            Err(SftpError::Absent) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether `path` is a directory, or a symlink to one.
    pub fn is_dir(&self, path: &Path) -> Result<bool, SftpError> {
        match self.drive(|| self.sftp.stat(path)) {
            Ok(stat) => Ok(stat.is_dir()),
            Err(SftpError::Absent) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory; false where one stands already.
    pub fn make_dir(&self, path: &Path, perms: u32) -> Result<bool, SftpError> {
        if self.is_dir(path)? {
            return Ok(false);
        }
        match self.drive(|| self.sftp.mkdir(path, perms.cast_signed())) {
            Ok(()) => Ok(true),
            // Somebody else may have made it meanwhile.
            Err(error @ (SftpError::Failed(_) | SftpError::Exists)) => match self.is_dir(path)? {
                true => Ok(false),
                false => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Makes a directory without a look whether it is there; false where the server fails at it, as it does where something
    /// stands already. What comes next tells if that is no directory.
    pub fn make_dir_blindly(&self, path: &Path, perms: u32) -> Result<bool, SftpError> {
        match self.new_dir(path, perms) {
            Ok(()) => Ok(true),
            Err(SftpError::Failed(_) | SftpError::Exists) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory where none stands.
    pub fn new_dir(&self, path: &Path, perms: u32) -> Result<(), SftpError> {
        self.drive(|| self.sftp.mkdir(path, perms.cast_signed()))
    }

    /// Gives a file or directory permissions, and a modification time in seconds where one is given.
    pub fn set(&self, path: &Path, perms: Option<u32>, mtime: Option<u64>) -> Result<(), SftpError> {
        let stat = FileStat { size: None, uid: None, gid: None, perm: perms, atime: mtime, mtime };
        self.drive(|| {
            let FileStat { perm, atime, mtime, .. } = stat;
            self.sftp.setstat(path, FileStat { size: None, uid: None, gid: None, perm, atime, mtime })
        })
    }

    /// As [`Sftp::set`], where a server may refuse it, in any words; false where it refuses the one or the other.
    pub fn set_if_it_may_be(&mut self, path: &Path, perms: u32, mtime: Option<u64>) -> Result<bool, SftpError> {
        if !self.keeps_its_own {
            match self.set(path, Some(perms), mtime) {
                Err(error) if !error.is_of_the_line() => {}
                done => return done.map(|()| true),
            }
        }
        for (perms, mtime) in [(Some(perms), None), (None, mtime)] {
            if (perms, mtime) == (None, None) {
                continue;
            }
            match self.set(path, perms, mtime) {
                Err(error) if error.is_of_the_line() => return Err(error),
                Err(error) if !self.keeps_its_own => {
                    self.keeps_its_own = true;
                    self.refused.push(format!(
                        "it sets no permissions or no times ({error}), so files have those it gives them"
                    ));
                }
                _ => {}
            }
        }
        Ok(!self.keeps_its_own)
    }

    /// Whether it is known to leave permissions or times as they are.
    pub fn keeps_its_own(&self) -> bool {
        self.keeps_its_own
    }

    /// What the server has refused to do that files can go without, each once.
    pub fn refused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refused)
    }

    /// Renames without replacing anything; false where something has the new name.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<bool, SftpError> {
        // Version 3 of the protocol, which all speak, refuses by itself; the flags are for later ones.
        let renamed = self.drive(|| self.sftp.rename(from, to, Some(ssh2::RenameFlags::NATIVE)));
        match renamed {
            Ok(()) => Ok(true),
            Err(SftpError::Exists) => Ok(false),
            Err(error @ SftpError::Failed(_)) => match self.stat(to)? {
                Some(_) => Ok(false),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: &Path) -> Result<(), SftpError> {
        self.drive(|| self.sftp.rmdir(path))
    }

    /// Removes a file; one that is not there is fine.
    pub fn remove(&self, path: &Path) -> Result<(), SftpError> {
        match self.drive(|| self.sftp.unlink(path)) {
            Err(SftpError::Absent) => Ok(()),
            done => done,
        }
    }

    /// Bytes that are free to us where `dir` is; `None` where the server does not say.
    pub fn room(&self, dir: &Path) -> Option<u64> {
        self.figures(dir).map(|figures| figures.f_bavail.saturating_mul(figures.f_frsize))
    }

    /// KiB in all and KiB that are free to us where `dir` is; `None` where the server does not say.
    pub fn space(&self, dir: &Path) -> Option<(u64, u64)> {
        let figures = self.figures(dir).filter(|figures| figures.f_blocks > 0)?;
        let kib = |blocks: u64| blocks.saturating_mul(figures.f_frsize) / 1024;
        Some((kib(figures.f_blocks), kib(figures.f_bavail)))
    }

    fn figures(&self, dir: &Path) -> Option<sys::LIBSSH2_SFTP_STATVFS> {
        let mut handle = self.drive(|| self.sftp.opendir(dir)).ok()?;
        let figures = self.drive(|| handle.statvfs());
        self.close(handle).ok()?;
        figures.ok()
    }

    /// Reads a whole file; `each` is given the bytes as they come. Returns how many they were.
    pub fn read(&mut self, path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<u64, SftpError> {
        self.read_from(path, 0, each)
    }

    /// Reads a file from `offset` to its end.
    pub fn read_from(&mut self, path: &Path, offset: u64, each: &mut dyn FnMut(&[u8])) -> Result<u64, SftpError> {
        let mut file = self.drive(|| self.sftp.open(path))?;
        file.seek(SeekFrom::Start(offset)).map_err(|error| SftpError::Failed(error.to_string()))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut total = 0;
        let read = loop {
            match self.drive_io(|| file.read(&mut buffer[..*AHEAD.start()])) {
                Ok(0) => break Ok(total),
                Ok(n) => {
                    total += n as u64;
                    each(&buffer[..n]);
                }
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        let total = read?;
        self.close(file)?;
        Ok(total)
    }

    /// Writes a new file with these permissions, as `next` fills one buffer after the other, and syncs it where the server
    /// can. The inner error is one of `next`; what was written so far stands there then.
    pub fn create(
        &mut self,
        path: &Path,
        perms: u32,
        next: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<io::Result<u64>, SftpError> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
        let file = self.drive(|| self.sftp.open_mode(path, flags, perms.cast_signed(), OpenType::File))?;
        self.fill(file, next)
    }

    /// As [`Sftp::create`], but goes on with a file that is there, behind its first `offset` bytes.
    pub fn go_on(
        &mut self,
        path: &Path,
        offset: u64,
        next: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<io::Result<u64>, SftpError> {
        let mut file = self.drive(|| self.sftp.open_mode(path, OpenFlags::WRITE, 0, OpenType::File))?;
        file.seek(SeekFrom::Start(offset)).map_err(|error| SftpError::Failed(error.to_string()))?;
        self.fill(file, next)
    }

    fn fill(
        &mut self,
        mut file: File,
        next: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<io::Result<u64>, SftpError> {
        let mut bytes = 0;
        let written = self.stream(&mut file, next, &mut bytes);
        if matches!(written, Ok(Ok(()))) && self.syncs != Some(false) {
            self.sync(&mut file)?;
        }
        let closed = self.close(file);
        let written = written?;
        closed.map(|()| written.map(|()| bytes))
    }

    /// Syncs a file. A server that has never done so may refuse it, in any words.
    fn sync(&mut self, file: &mut File) -> Result<(), SftpError> {
        let known = self.syncs.is_some();
        if !known && self.lost_in_sync.files.load(Relaxed) >= LOST_IN_SYNC_MOST {
            self.syncs = Some(false);
            self.refused.push(format!(
                "its connection ended {LOST_IN_SYNC_MOST} times when it was to sync a file, so it is not asked any more, and \
                 the last may be lost if it loses power"
            ));
            return Ok(());
        }
        let refusal = match self.drive(|| file.fsync()) {
            Ok(()) => {
                self.syncs = Some(true);
                self.lost_in_sync.files.store(0, Relaxed);
                return Ok(());
            }
            Err(error) if !known && error.is_of_the_line() => {
                self.lost_in_sync.files.fetch_add(1, Relaxed);
                return Err(error);
            }
            Err(error) if known => return Err(error),
            Err(error) => {
                self.lost_in_sync.files.store(0, Relaxed);
                error
            }
        };
        // The trouble of a disk is told once, a refusal each time.
        match self.drive(|| file.fsync()) {
            Ok(()) => Err(refusal),
            Err(error) if error.is_of_the_line() => Err(error),
            Err(_) => {
                self.syncs = Some(false);
                self.refused.push(format!("it syncs no files ({refusal}), so the last may be lost if it loses power"));
                Ok(())
            }
        }
    }

    /// Syncs a file that is there, where the server can.
    pub fn sync_file(&mut self, path: &Path) -> Result<(), SftpError> {
        if self.syncs == Some(false) {
            return Ok(());
        }
        let mut file = self.drive(|| self.sftp.open_mode(path, OpenFlags::READ, 0, OpenType::File))?;
        let synced = self.sync(&mut file);
        self.close(file).and(synced)
    }

    /// Syncs a directory, so that the names in it outlast a power cut, where the server syncs files. One that does not do
    /// this is not asked again.
    pub fn sync_dir(&mut self, path: &Path) -> Result<(), SftpError> {
        if self.syncs != Some(true) || self.syncs_names == Some(false) {
            return Ok(());
        }
        let known = self.syncs_names.is_some();
        if !known && self.lost_in_sync.directories.load(Relaxed) >= LOST_IN_SYNC_MOST {
            self.leave_names(&format!("its connection ended {LOST_IN_SYNC_MOST} times at that"));
            return Ok(());
        }
        let synced =
            self.drive(|| self.sftp.open_mode(path, OpenFlags::READ, 0, OpenType::File)).and_then(|mut file| {
                let synced = self.drive(|| file.fsync());
                self.close(file).and(synced)
            });
        match synced {
            Ok(()) => {
                self.syncs_names = Some(true);
                self.lost_in_sync.directories.store(0, Relaxed);
                Ok(())
            }
            Err(error) if error.is_of_the_line() && !known => {
                self.lost_in_sync.directories.fetch_add(1, Relaxed);
                Err(error)
            }
            Err(error) if known || error.is_of_the_line() => Err(error),
            Err(refusal) => {
                self.leave_names(&refusal.to_string());
                Ok(())
            }
        }
    }

    fn leave_names(&mut self, why: &str) {
        self.syncs_names = Some(false);
        self.refused.push(format!("it syncs no directories ({why}), so the last names may be lost if it loses power"));
    }

    /// A file to be written in ranges: a new one with these permissions, or one that is there already and stays as it is
    /// elsewhere.
    pub fn pieces(&mut self, path: &Path, new: Option<u32>) -> Result<Pieces<'_>, SftpError> {
        let file = self.open_to_write(path, new)?;
        Ok(self.in_pieces(file))
    }

    /// Opens a file to be written: a new one with these permissions, or one that is there.
    pub fn open_to_write(&self, path: &Path, new: Option<u32>) -> Result<OpenedFile, SftpError> {
        let made = if new.is_some() { OpenFlags::CREATE | OpenFlags::EXCLUSIVE } else { OpenFlags::empty() };
        let perms = new.unwrap_or(0).cast_signed();
        self.drive(|| self.sftp.open_mode(path, OpenFlags::WRITE | made, perms, OpenType::File)).map(OpenedFile)
    }

    /// The file is to be written in ranges.
    pub fn in_pieces(&mut self, file: OpenedFile) -> Pieces<'_> {
        Pieces { sftp: self, file: file.0 }
    }

    /// A file to be read in ranges.
    pub fn reading(&mut self, path: &Path) -> Result<ReadRanges<'_>, SftpError> {
        let file = self.drive(|| self.sftp.open(path))?;
        Ok(ReadRanges { sftp: self, file })
    }

    /// Writes what `next` gives from where the file stands, and adds to `confirmed` what the server says that it has; the inner
    /// error is one of `next`.
    fn stream(
        &mut self,
        file: &mut File,
        next: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
        confirmed: &mut u64,
    ) -> Result<io::Result<()>, SftpError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let streamed = self.stream_by(&mut buffer, file, next, confirmed);
        self.buffer = buffer;
        streamed
    }

    fn stream_by(
        &self,
        buffer: &mut [u8],
        file: &mut File,
        next: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
        confirmed: &mut u64,
    ) -> Result<io::Result<()>, SftpError> {
        // What is under way and not yet confirmed stands from `start` to `end`.
        let (mut start, mut end, mut ended) = (0, 0, false);
        loop {
            if start >= SLACK {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
            }
            let ahead = self.ahead.min(self.trusted.get());
            while !ended && end - start < ahead {
                match next(&mut buffer[end..start + ahead]) {
                    Ok(0) => ended = true,
                    Ok(n) => end += n,
                    Err(error) => return Ok(Err(error)),
                }
            }
            if start == end {
                return Ok(Ok(()));
            }
            let began = Instant::now();
            // It must be shown again; what stands behind it follows at once.
            match self.drive_io(|| file.write(&buffer[start..end]))? {
                0 => return Err(SftpError::Failed("it takes no more bytes".to_owned())),
                n => {
                    start += n;
                    *confirmed += n as u64;
                    if began.elapsed() < self.stall_limit / GOOD_TIME {
                        self.trusted.set((ahead * 2).max(self.trusted.get()).min(self.ahead));
                    }
                }
            }
        }
    }

    fn close(&self, mut file: File) -> Result<(), SftpError> {
        self.drive(|| file.close())
    }

    fn drive<T>(&self, call: impl FnMut() -> Result<T, ssh2::Error>) -> Result<T, SftpError> {
        let deadline = Instant::now() + self.stall_limit;
        drive(&self.line.session, &self.line.tcp, deadline, call).map_err(|stop| match stop {
            CallFailure::TimedOut => SftpError::Stalled(self.stall_limit),
            CallFailure::Failed(error) => self.reason(&error),
        })
    }

    /// As [`Sftp::drive`], for the calls whose errors have lost their code.
    fn drive_io(&self, mut call: impl FnMut() -> io::Result<usize>) -> Result<usize, SftpError> {
        let mut wrong = None;
        let done = self.drive(|| match call() {
            Ok(n) => Ok(n),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ssh2::Error::from_errno(ErrorCode::Session(sys::LIBSSH2_ERROR_EAGAIN)))
            }
            Err(error) => {
                wrong = Some(error);
                Err(ssh2::Error::from_errno(ErrorCode::SFTP(sys::LIBSSH2_FX_FAILURE)))
            }
        });
        match wrong {
            None => done,
            Some(error) => Err(match (error.kind(), ssh2::Error::last_session_error(&self.line.session)) {
                (io::ErrorKind::PermissionDenied, _) => SftpError::Denied,
                (io::ErrorKind::NotFound, _) => SftpError::Absent,
                (_, Some(last)) => self.reason(&last),
                _ => SftpError::Failed(error.to_string()),
            }),
        }
    }

    fn reason(&self, error: &ssh2::Error) -> SftpError {
        match error.code() {
            ErrorCode::SFTP(code) => match code {
                sys::LIBSSH2_FX_NO_SUCH_FILE | sys::LIBSSH2_FX_NO_SUCH_PATH => SftpError::Absent,
                sys::LIBSSH2_FX_PERMISSION_DENIED | sys::LIBSSH2_FX_WRITE_PROTECT => SftpError::Denied,
                sys::LIBSSH2_FX_FILE_ALREADY_EXISTS => SftpError::Exists,
                sys::LIBSSH2_FX_NO_SPACE_ON_FILESYSTEM | sys::LIBSSH2_FX_QUOTA_EXCEEDED => SftpError::Full,
                sys::LIBSSH2_FX_OP_UNSUPPORTED => SftpError::Unsupported,
                sys::LIBSSH2_FX_NO_CONNECTION | sys::LIBSSH2_FX_CONNECTION_LOST => {
                    SftpError::Lost(error.message().to_owned())
                }
                _ => SftpError::Failed(error.message().to_owned()),
            },
            // A server's refusal that reaches us by the session's last error.
            ErrorCode::Session(sys::LIBSSH2_ERROR_SFTP_PROTOCOL) => SftpError::Failed(error.message().to_owned()),
            ErrorCode::Session(_) => SftpError::Lost(error.message().to_owned()),
        }
    }
}

/// A file that is read in ranges, in any order.
pub struct ReadRanges<'a> {
    sftp: &'a mut Sftp,
    file: File,
}

impl ReadRanges<'_> {
    /// Reads a range; `each` is given the bytes as they come, and the inner error is one of its. A file that ends before is one.
    pub fn read_at(
        &mut self,
        range: Range<u64>,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, SftpError> {
        if let Err(error) = self.file.seek(SeekFrom::Start(range.start)) {
            return Ok(Err(error));
        }
        let mut buffer = std::mem::take(&mut self.sftp.buffer);
        let read = self.read_by(&mut buffer, range.end - range.start, each);
        self.sftp.buffer = buffer;
        read
    }

    fn read_by(
        &mut self,
        buffer: &mut [u8],
        mut left: u64,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, SftpError> {
        while left > 0 {
            // What libssh2 asks for ahead is of no use behind the range.
            let most = usize::try_from(left.div_ceil(READ_AHEAD)).unwrap_or(usize::MAX).min(*AHEAD.start());
            let file = &mut self.file;
            let n = match self.sftp.drive_io(|| file.read(&mut buffer[..most]))? {
                0 => return Ok(Err(io::Error::other("it became shorter while it was read"))),
                n => n,
            };
            left -= n as u64;
            if let Err(error) = each(&buffer[..n]) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Closes the file.
    pub fn close(self) -> Result<(), SftpError> {
        self.sftp.close(self.file)
    }
}

/// A file that is open to be written.
pub struct OpenedFile(File);

/// A file that is written in ranges, in any order.
pub struct Pieces<'a> {
    sftp: &'a mut Sftp,
    file: File,
}

impl Pieces<'_> {
    /// Writes what `next` gives from `offset` on, and waits until the server has confirmed it; `confirmed` tells how far that has
    /// come, also where it fails. The inner error is one of `next`.
    pub fn write_at(
        &mut self,
        offset: u64,
        next: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
        confirmed: &mut u64,
    ) -> Result<io::Result<()>, SftpError> {
        if let Err(error) = self.file.seek(SeekFrom::Start(offset)) {
            return Ok(Err(error));
        }
        self.sftp.stream(&mut self.file, next, confirmed)
    }

    /// Closes the file.
    pub fn close(self) -> Result<(), SftpError> {
        self.sftp.close(self.file)
    }
}
