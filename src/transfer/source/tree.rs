//! The folders that arguments named, and opening what was listed beneath them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::flist::{DirClass, FileEntry, Kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::ScanOptions;
use super::attributes::reach;
use crate::disk::beneath::{self, Beneath};
use crate::disk::confine;
use crate::disk::fake::Fake;
use crate::disk::pinned::Pinned;
use crate::disk::xattr::{self, Reach};
use crate::transfer::help::OpenApart;

/// Roots held open at once; further ones are opened again when needed and must be the same directory still.
const ROOTS_HELD: usize = 128;

/// Where an entry lies: the root it was found under, and how much of its name stands for that root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(super) root: u32,
    pub(super) skip: u32,
}

/// Everything that was listed, ready to be opened.
#[derive(Default)]
pub(crate) struct SourceTree {
    roots: Vec<Root>,
    by_path: HashMap<PathBuf, u32>,
    /// Paths of the parents that `--relative` added.
    pub(super) implied: HashMap<Vec<u8>, Vec<u8>>,
    /// The root whose way is held open; only one keeps it, so that many roots cost one descriptor each.
    walking: Mutex<u32>,
    follow_dirs: bool,
    reading: Reading,
    reach: Reach,
}

/// How files are opened to be read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    /// Symlinks are followed.
    pub(super) follow: bool,
    /// Access times are left alone.
    pub(super) noatime: bool,
    /// A device serves as a file.
    pub(super) devices: bool,
}

impl Reading {
    pub(super) fn new(options: &ScanOptions) -> Self {
        Self {
            follow: options.copy_links || options.copy_unsafe_links,
            noatime: options.open_noatime,
            devices: options.copy_devices,
        }
    }
}

struct Root {
    path: PathBuf,
    dev: u64,
    ino: u64,
    held: Option<Beneath>,
    /// The same for other threads.
    apart: Option<Arc<Beneath>>,
}

impl SourceTree {
    pub(super) fn new(options: &ScanOptions) -> Self {
        SourceTree {
            follow_dirs: options.copy_dirlinks || options.copy_links || options.copy_unsafe_links,
            reach: reach(options),
            reading: Reading::new(options),
            ..SourceTree::default()
        }
    }

    /// Opens an entry's regular file for reading; `name` is the entry's name in the list. Nothing else is opened and no
    /// symlink is followed unless the options ask for it. Never waits for a fifo's other end.
    pub(crate) fn open(&self, name: &[u8], at: Location) -> io::Result<File> {
        let (dir, leaf) = self.parent(name, at)?;
        open_file(&dir, &leaf, self.reading)
    }

    /// What opens the same file in another thread; `None` where its root is not held open.
    pub(crate) fn apart(&self, name: &[u8], at: Location) -> Option<OpenApart> {
        let root = Arc::clone(self.roots.get(at.root as usize)?.apart.as_ref()?);
        let (inside, reading) = (beneath_root(name, at).to_vec(), self.reading);
        Some(Box::new(move || {
            // With a way of its own, which leaves no directories open.
            let way = root.again();
            let (dir, leaf) = way.parent(&inside)?;
            open_file(&dir, leaf, reading)
        }))
    }

    /// The value of an extended attribute of an entry, by the name it has in the list.
    pub(crate) fn xattr(&self, entry: &FileEntry, at: Location, xattr: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let Some(kind) = entry.kind() else { return Ok(None) };
        let pinned = match entry.extra.dir_class {
            DirClass::Implied => {
                let path = self.implied.get(&entry.name).ok_or(io::ErrorKind::NotFound)?;
                Pinned::lookup(beneath::open_source(Path::new(OsStr::from_bytes(path)))?)
            }
            _ => {
                let (dir, leaf) = self.parent(&entry.name, at)?;
                let open = |kind| {
                    let follow = self.reading.follow || (self.follow_dirs && kind == Kind::Dir);
                    match follow && kind != Kind::Symlink {
                        true => Pinned::open_following(&dir, &leaf, kind),
                        false => Pinned::open(&dir, &leaf, kind),
                    }
                };
                let kept_as = if self.reach.fake == Fake::Yes && kind != Kind::Dir { Kind::File } else { kind };
                // It is what it is, and not a file that claims so.
                open(kept_as).or_else(|error| if kept_as == kind { Err(error) } else { open(kind) })?
            }
        };
        xattr::value(&pinned, &self.reach, xattr)
    }

    /// Removes a sent file (`--remove-source-files`) if it is still what `entry` says; `false` when it has changed.
    pub(crate) fn remove(&self, entry: &FileEntry, at: Location) -> io::Result<bool> {
        let (dir, leaf) = self.parent(&entry.name, at)?;
        let stat = rustix::fs::statat(&*dir, leaf.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
        let same = beneath::kind(stat.st_mode) == entry.kind()
            && entry.kind() != Some(Kind::Dir)
            && beneath::mtime(&stat) == (entry.mtime, entry.nsec)
            && u64::try_from(stat.st_size).is_ok_and(|len| len == entry.len);
        if same {
            rustix::fs::unlinkat(&*dir, leaf.as_slice(), AtFlags::empty())?;
        }
        Ok(same)
    }

    /// The root at `path`, entered once however often it is named. Symlinks in it are followed: the operator chose them.
    pub(super) fn enter(&mut self, path: &Path) -> io::Result<u32> {
        if let Some(&known) = self.by_path.get(path) {
            return Ok(known);
        }
        let (fd, stat) = open_root(path)?;
        let number = u32::try_from(self.roots.len()).map_err(io::Error::other)?;
        let held = (self.roots.len() < ROOTS_HELD).then(|| self.beneath(fd));
        let apart = held.as_ref().map(|held| Arc::new(held.again()));
        self.roots.push(Root { path: path.to_owned(), dev: stat.st_dev, ino: stat.st_ino, held, apart });
        self.by_path.insert(path.to_owned(), number);
        Ok(number)
    }

    /// Refuses a root that lies out of the bound of paths that options name.
    pub(super) fn admit(&self, root: u32) -> io::Result<()> {
        self.at(root, |beneath| confine::admit(beneath.dir(b".")?))
    }

    /// The held directory of a listed name and its last component.
    pub(super) fn parent(&self, name: &[u8], at: Location) -> io::Result<(Arc<OwnedFd>, Vec<u8>)> {
        let inside = beneath_root(name, at);
        self.at(at.root, |beneath| beneath.parent(inside).map(|(dir, leaf)| (dir, leaf.to_vec())))
    }

    /// A listed directory, open for lookups.
    pub(super) fn dir(&self, name: &[u8], at: Location) -> io::Result<Arc<OwnedFd>> {
        self.at(at.root, |beneath| beneath.dir(beneath_root(name, at)))
    }

    /// The full path of a listed name, for messages only.
    pub(in crate::transfer) fn full_path(&self, name: &[u8], at: Location) -> Vec<u8> {
        let Some(root) = self.roots.get(at.root as usize) else { return name.to_vec() };
        joined(&root.path, beneath_root(name, at))
    }

    fn at<T>(&self, number: u32, act: impl FnOnce(&Beneath) -> io::Result<T>) -> io::Result<T> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "The folder it was listed under is no longer the same");
        let root = self.roots.get(number as usize).ok_or_else(gone)?;
        let Some(held) = &root.held else {
            let (fd, stat) = open_root(&root.path)?;
            return if (stat.st_dev, stat.st_ino) == (root.dev, root.ino) {
                act(&self.beneath(fd))
            } else {
                Err(gone())
            };
        };
        let mut walking = self.walking.lock().unwrap_or_else(PoisonError::into_inner);
        if *walking != number {
            if let Some(before) = self.roots.get(*walking as usize).and_then(|root| root.held.as_ref()) {
                before.forget();
            }
            *walking = number;
        }
        act(held)
    }

    fn beneath(&self, fd: OwnedFd) -> Beneath {
        if self.follow_dirs { Beneath::following(Arc::new(fd)) } else { Beneath::new(Arc::new(fd)) }
    }
}

/// The length of what a device holds; 0 where it has none, as a terminal.
pub(super) fn device_length(dir: &OwnedFd, leaf: &[u8], how: Reading, stat: &Stat) -> io::Result<u64> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => open_file(dir, leaf, how)?.seek(SeekFrom::End(0)),
        // Opening some of these does something by itself.
        _ => Ok(0),
    }
}

/// Opens a regular file in a held directory.
pub(super) fn open_file(dir: &OwnedFd, leaf: &[u8], how: Reading) -> io::Result<File> {
    let Reading { follow, noatime, devices } = how;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |flags| match follow {
        true => beneath::open_following(dir, leaf, flags),
        false => Ok(rustix::fs::openat(dir, leaf, flags | OFlags::NOFOLLOW, Mode::empty())?),
    };
    let fd = match open(if noatime { flags | OFlags::NOATIME } else { flags }) {
        // Only the owner may.
        Err(error) if noatime && Errno::from_io_error(&error) == Some(Errno::PERM) => open(flags)?,
        opened => opened?,
    };
    let usable = match beneath::kind(rustix::fs::fstat(&fd)?.st_mode) {
        Some(Kind::File) => true,
        Some(Kind::Device) => devices,
        _ => false,
    };
    if !usable {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "It is no longer a regular file"));
    }
    Ok(fd.into())
}

/// The full path of a name beneath an operator's folder, for messages. A daemon's client sees names within its module.
pub(super) fn joined(folder: &Path, inside: &[u8]) -> Vec<u8> {
    if confine::is_confined() {
        let folder = if folder == Path::new(".") { Path::new("") } else { folder };
        return match inside {
            b"." => folder.as_os_str().as_bytes().to_vec(),
            inside => folder.join(OsStr::from_bytes(inside)).into_os_string().into_vec(),
        };
    }
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let mut full = folder.as_os_str().as_bytes().to_vec();
    while full.len() > 1 && full.ends_with(b"/") {
        full.pop();
    }
    if inside != b"." {
        if !full.ends_with(b"/") {
            full.push(b'/');
        }
        full.extend_from_slice(inside);
    }
    full
}

fn beneath_root(name: &[u8], at: Location) -> &[u8] {
    match name.get(at.skip as usize..) {
        Some(inside) if !inside.is_empty() => inside,
        _ => b".",
    }
}

fn open_root(path: &Path) -> io::Result<(OwnedFd, Stat)> {
    let fd = beneath::open_source(path)?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok((fd, stat))
}
