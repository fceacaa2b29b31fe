//! A socket in a folder of this machine: made for us alone, never where somebody else could have put another one.

use super::places::{ControlChoice, SUFFIX, folders, folders_to_ask};
use crate::disk::{open_operand, readable, reason};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// Sockets of one folder that are looked at.
const SOCKETS_MOST: usize = 100;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// Attempts at the folder's lock, and the pause between them: whoever has it only looks at a socket.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("Socket {}: {why}", path.display())]
    Unusable { path: PathBuf, why: String },
    /// A living process has it.
    #[error("Socket {}: another archiver answers there", path.display())]
    Taken { path: PathBuf },
}

/// A folder that is ours or root's, held open.
pub(super) struct SocketFolder {
    fd: OwnedFd,
    path: PathBuf,
}

impl SocketFolder {
    /// The folder of a socket's path, and its name there.
    pub(super) fn of(path: &Path) -> io::Result<(Self, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((Self::look_into(parent)?, name.to_owned()))
    }

    /// One to make a socket in. It is made where it is not there.
    fn make(path: &Path) -> io::Result<Self> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Self::hold(path),
            Err(error) => Err(error.into()),
        }
    }

    /// One that is there, and that nobody but us and root writes to. On the way no symlink of others is followed.
    fn hold(path: &Path) -> io::Result<Self> {
        let fd = readable(&open_operand(path)?)?;
        let stat = rustix::fs::fstat(&fd)?;
        if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the folder belongs to another user"));
        }
        if stat.st_mode & 0o022 != 0 {
            let why = "others may write to the folder; take that from them (chmod go-w), or name another";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(Self { fd, path: path.to_owned() })
    }

    /// One to ask in. What services of other users have below `/run` root may ask: nobody else can have put it there.
    pub(super) fn look_into(path: &Path) -> io::Result<Self> {
        let held = Self::hold(path);
        if held.is_err() && rustix::process::geteuid().is_root() && path.starts_with("/run") {
            return Ok(Self { fd: readable(&open_operand(path)?)?, path: path.to_owned() });
        }
        held
    }

    /// The same, held once more.
    pub(super) fn again(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, path: self.path.clone() })
    }

    /// Its path by way of our descriptor: it cannot be exchanged, and is short.
    pub(super) fn by_descriptor(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    pub(super) fn shown(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// A connection to the socket of that name.
    pub(super) async fn connect(&self, name: &OsStr) -> io::Result<UnixStream> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket"));
        }
        UnixStream::connect(self.by_descriptor().join(name)).await
    }

    fn lock(&self) -> io::Result<FolderLock<'_>> {
        for _ in 0..LOCK_TRIES {
            match flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(FolderLock(&self.fd)),
                Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
                // Some file systems have no locks.
                Err(_) => return Ok(FolderLock(&self.fd)),
            }
        }
        Err(io::Error::other("somebody holds the folder's lock"))
    }
}

/// The sockets of the default folders, or the one that was chosen. Somebody may have left them behind.
pub(super) fn sockets(choice: &ControlChoice) -> io::Result<Vec<(SocketFolder, OsString)>> {
    match choice {
        ControlChoice::Nowhere => Ok(Vec::new()),
        ControlChoice::At(path) => {
            let (folder, name) = SocketFolder::of(path)?;
            Ok(vec![(folder, name)])
        }
        ControlChoice::Default => {
            let mut found = Vec::new();
            for path in folders_to_ask() {
                // What is not there, or belongs to somebody else, is none of ours.
                let Ok(folder) = SocketFolder::look_into(&path) else { continue };
                let mut names: Vec<_> = std::fs::read_dir(folder.by_descriptor())
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.file_name())
                    .filter(|name| name.as_bytes().ends_with(SUFFIX.as_bytes()) && !name.as_bytes().starts_with(b"."))
                    .take(SOCKETS_MOST)
                    .collect();
                names.sort();
                for name in names {
                    found.push((folder.again()?, name));
                }
            }
            Ok(found)
        }
    }
}

struct FolderLock<'a>(&'a OwnedFd);

impl Drop for FolderLock<'_> {
    fn drop(&mut self) {
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

/// A socket that we listen on; removed when dropped.
pub(super) struct BoundSocket {
    folder: SocketFolder,
    name: OsString,
    inode: u64,
    fd: OwnedFd,
}

impl BoundSocket {
    pub(super) fn path(&self) -> PathBuf {
        self.folder.shown(&self.name)
    }

    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        UnixListener::from_std(StdListener::from(self.fd.try_clone()?))
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let stat = rustix::fs::statat(&self.folder.fd, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| stat.st_ino == self.inode) {
            let _ = rustix::fs::unlinkat(&self.folder.fd, &self.name, AtFlags::empty());
        }
    }
}

/// Opens a socket where it was chosen; by default of this name, and of our number besides where a living process has that.
pub(super) fn open(choice: &ControlChoice, name: &str) -> Result<Option<BoundSocket>, SocketError> {
    let unusable = |path: &Path, error: &io::Error| SocketError::Unusable { path: path.to_owned(), why: reason(error) };
    match choice {
        ControlChoice::Nowhere => Ok(None),
        ControlChoice::At(path) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = SocketFolder::make(parent).map_err(|error| unusable(path, &error))?;
            let name = path.file_name().ok_or_else(|| unusable(path, &io::ErrorKind::InvalidInput.into()))?;
            bind(folder, name).map(Some)
        }
        ControlChoice::Default => {
            let mut why = None;
            for path in folders() {
                let bound = match SocketFolder::make(&path) {
                    Ok(folder) => by_default(folder, name),
                    Err(error) => Err(unusable(&path, &error)),
                };
                match bound {
                    Ok(bound) => return Ok(Some(bound)),
                    Err(error) => why = Some(error),
                }
            }
            why.map_or(Ok(None), Err)
        }
    }
}

fn by_default(folder: SocketFolder, name: &str) -> Result<BoundSocket, SocketError> {
    let again = folder.again();
    match (bind(folder, OsStr::new(&format!("{name}{SUFFIX}"))), again) {
        (Err(SocketError::Taken { .. }), Ok(folder)) => {
            bind(folder, OsStr::new(&format!("{name}.{}{SUFFIX}", std::process::id())))
        }
        (bound, _) => bound,
    }
}

/// Makes a socket for us alone, and puts it in the place of one that a dead process left.
fn bind(folder: SocketFolder, name: &OsStr) -> Result<BoundSocket, SocketError> {
    let path = folder.shown(name);
    let unusable = |error: io::Error| SocketError::Unusable { path: path.clone(), why: reason(&error) };
    let locked = folder.lock().map_err(unusable)?;
    let temporary = OsString::from(format!(".{}.new", std::process::id()));
    let _ = rustix::fs::unlinkat(&folder.fd, &temporary, AtFlags::empty());
    let made = listen(&folder, &temporary).and_then(|made| match stands(&folder, name)? {
        Stands::Nothing | Stands::Dead => {
            rustix::fs::renameat(&folder.fd, &temporary, &folder.fd, name)?;
            Ok(Some(made))
        }
        Stands::Living => Ok(None),
        Stands::Other => Err(io::Error::other("something else is there; remove it, or name another place")),
    });
    if !matches!(made, Ok(Some(_))) {
        let _ = rustix::fs::unlinkat(&folder.fd, &temporary, AtFlags::empty());
    }
    drop(locked);
    let (fd, inode) = made.map_err(unusable)?.ok_or_else(|| SocketError::Taken { path: path.clone() })?;
    Ok(BoundSocket { folder, name: name.to_owned(), inode, fd })
}

/// A new socket and its inode. Nobody can connect before it is ours alone.
fn listen(folder: &SocketFolder, name: &OsStr) -> io::Result<(OwnedFd, u64)> {
    let fd = new_socket()?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(folder.by_descriptor().join(name))?)?;
    rustix::fs::chmodat(&folder.fd, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
    let stat = rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok((fd, stat.st_ino))
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// What stands in a socket's place.
enum Stands {
    Nothing,
    Dead,
    Living,
    Other,
}

fn stands(folder: &SocketFolder, name: &OsStr) -> io::Result<Stands> {
    let stat = match rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Stands::Nothing),
        Err(error) => return Err(error.into()),
    };
    let ours = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket || !ours {
        return Ok(Stands::Other);
    }
    let fd = new_socket()?;
    match rustix::net::connect(&fd, &SocketAddrUnix::new(folder.by_descriptor().join(name))?) {
        Err(Errno::CONNREFUSED) => Ok(Stands::Dead),
        // Whoever has no room for another connection lives.
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(Stands::Living),
        Err(error) => Err(error.into()),
    }
}
