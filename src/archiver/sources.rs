//! Which files rows may name.
//!
//! Whoever can write to the table names files that we read, copy and delete with our rights. With `--source-root` only
//! those beneath the folders that it names count, wherever links lead. Their file systems are not waited for without end.

use super::patience::{Each, FreshFile, Patience, PatientFile};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a file system may take to answer, unless it is said.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The files that count, and how long their file systems are waited for.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    roots: Arc<Roots>,
    patience: Patience,
}

impl Default for Sources {
    fn default() -> Self {
        Self { roots: Arc::default(), patience: Patience::new(TIMEOUT) }
    }
}

impl Sources {
    /// Only files beneath these folders, or all without any. The folders are opened anew each time: a mount may be away
    /// for a while.
    ///
    /// # Errors
    /// A folder that is not named from `/` on.
    pub(crate) fn beneath(roots: &[PathBuf]) -> Result<Self, String> {
        for root in roots {
            if !root.is_absolute() || root.components().any(|part| part == Component::ParentDir) {
                return Err(format!("Option --source-root cannot be {root:?}; name a folder from / on, without .."));
            }
        }
        Ok(Self { roots: Arc::new(Roots(roots.to_vec())), ..Self::default() })
    }

    /// Where not all files count, those beneath this folder do as well.
    #[must_use]
    pub(crate) fn and(self, root: Option<&Path>) -> Self {
        match self.roots.0.is_empty() {
            true => self,
            false => {
                let roots = self.roots.0.iter().cloned().chain(root.map(Path::to_owned)).collect();
                Self { roots: Arc::new(Roots(roots)), ..self }
            }
        }
    }

    /// A file system may take so long to answer.
    #[must_use]
    pub(crate) fn answering_within(self, limit: Duration) -> Self {
        Self { patience: Patience::new(limit), ..self }
    }

    /// How long a file system may take to answer.
    pub(super) fn limit(&self) -> Duration {
        self.patience.limit()
    }

    /// The place of this path that does not answer.
    pub(super) fn mute_place(&self, path: &Path) -> Option<PathBuf> {
        self.patience.mute_place(path)
    }

    /// The place of this path that did not answer at some time since then.
    pub(super) fn lapsed_since(&self, path: &Path, since: Instant) -> Option<PathBuf> {
        self.patience.lapsed_since(path, since)
    }

    /// Refuses a path that does not lie beneath any of the folders, by its name alone.
    pub(crate) fn admit(&self, path: &Path) -> Result<(), String> {
        self.roots.admit(path)
    }

    /// What a call comes to that has to do with this path, if it comes back in time.
    pub(super) fn within<T: Send + 'static>(
        &self,
        path: &Path,
        call: impl FnOnce(&Roots, &Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (roots, name) = (self.roots.clone(), path.to_owned());
        self.patience.within(path, move || call(&roots, &name))
    }

    /// Opens a regular file to be read; a fifo is not waited for.
    pub(crate) fn open(&self, path: &Path) -> io::Result<PatientFile> {
        let (roots, name) = (self.roots.clone(), path.to_owned());
        PatientFile::open(&self.patience, path, move || roots.open(&name))
    }

    /// Opens such files one after another, as [`Sources::open`] does; so many at most before they are asked for.
    pub(super) fn open_each(&self, paths: Vec<PathBuf>, ahead: usize) -> Each<FreshFile> {
        self.each(paths, ahead, |roots, path| FreshFile::of(roots.open(path)?))
    }

    /// A file that was opened so.
    pub(super) fn opened(&self, opened: FreshFile, path: &Path) -> io::Result<PatientFile> {
        PatientFile::new(opened, &self.patience, path)
    }

    /// What a call comes to for each of these paths, see [`Sources::within`]; so many calls at most are made before their
    /// outcome is asked for.
    pub(super) fn each<T: Send + 'static>(
        &self,
        paths: Vec<PathBuf>,
        ahead: usize,
        call: impl Fn(&Roots, &Path) -> io::Result<T> + Send + Sync + 'static,
    ) -> Each<T> {
        let roots = self.roots.clone();
        Each::new(&self.patience, paths, ahead, move |path| call(&roots, path))
    }

    /// Looks at what a row names; the links before it are followed.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.within(path, Roots::metadata)
    }

    /// Looks at what has a name, be it a link itself; the links before it are followed.
    pub(crate) fn metadata_of_name(&self, path: &Path) -> io::Result<Metadata> {
        self.within(path, |roots, path| {
            let (folder, name) = roots.folder_of(path)?;
            metadata_of(&folder, name)
        })
    }

    /// Removes the name, if `is` says so of what has it; whether it did. Both beneath the same held folder.
    pub(crate) fn remove_if(
        &self,
        path: &Path,
        is: impl FnOnce(&Metadata) -> bool + Send + 'static,
    ) -> io::Result<bool> {
        self.within(path, |roots, path| {
            let (folder, name) = roots.folder_of(path)?;
            if !is(&metadata_of(&folder, name)?) {
                return Ok(false);
            }
            rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
            Ok(true)
        })
    }

    /// The folders beneath which files count; none, where all do.
    pub(crate) fn roots(&self) -> &[PathBuf] {
        &self.roots.0
    }
}

/// The folders; without any, every file counts.
#[derive(Debug, Default)]
pub(super) struct Roots(Vec<PathBuf>);

impl Roots {
    fn admit(&self, path: &Path) -> Result<(), String> {
        if self.0.is_empty() || self.within(path).next().is_some() {
            return Ok(());
        }
        let roots = self.0.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ");
        Err(format!("{} is not beneath --source-root {roots}", path.display()))
    }

    /// The folders that a path lies beneath, each with the rest of it.
    fn within<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a Path, &'a Path)> {
        let plain = path.components().all(|part| part != Component::ParentDir);
        self.0
            .iter()
            .filter_map(move |root| Some((root.as_path(), path.strip_prefix(root).ok()?)))
            .filter(move |(_, rest)| plain && !rest.as_os_str().is_empty())
    }

    /// Opens what a row names. Links are followed, but not out of the folder.
    fn open_as(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if self.0.is_empty() {
            return Ok(rustix::fs::open(path, flags, Mode::empty())?);
        }
        let mut found = self.admit(path).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why)).err();
        for (root, rest) in self.within(path) {
            let opened = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            match opened.map_err(io::Error::from).and_then(|root| open_beneath(root, rest, flags)) {
                Ok(file) => return Ok(file),
                Err(error) => found = Some(error),
            }
        }
        Err(found.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// Opens a regular file to be read; a fifo is not waited for.
    fn open(&self, path: &Path) -> io::Result<File> {
        let file = File::from(self.open_as(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is not a regular file")),
        }
    }

    /// Looks at what a row names; the links before it are followed.
    pub(super) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        match self.0.is_empty() {
            true => std::fs::metadata(path),
            false => File::from(self.open_as(path, OFlags::PATH)?).metadata(),
        }
    }

    /// Holds the folder of a name.
    fn folder_of<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if !self.0.iter().any(|root| root == parent) {
            return Ok((self.open_as(parent, OFlags::PATH | OFlags::DIRECTORY)?, name));
        }
        self.admit(path).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((rustix::fs::open(parent, flags, Mode::empty())?, name))
    }
}

/// Looks at a name in a held folder, be it a link itself.
fn metadata_of(folder: &OwnedFd, name: &OsStr) -> io::Result<Metadata> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?).metadata()
}

fn open_beneath(root: OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACES {
        match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
            // Something was renamed on the way.
            Err(Errno::AGAIN) => {}
            Err(Errno::XDEV) => return Err(led_out()),
            Err(Errno::NOSYS) => return open_without_links(root, path, flags),
            opened => return Ok(opened?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// How often a path is looked up again that was changed meanwhile.
const RACES: usize = 16;

/// For a kernel that cannot be told how far links may lead: none is followed.
fn open_without_links(root: OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mut at = root;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let flags = match parts.peek() {
            Some(_) => OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            None => flags,
        };
        at = match rustix::fs::openat(&at, part.as_os_str(), flags | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(led_out()),
            opened => opened?,
        };
    }
    Ok(at)
}

fn led_out() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a link on the way leads out of --source-root")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_outside_is_opened_looked_at_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for dir in ["in/deep", "out"] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        for file in ["in/top", "in/deep/file", "out/secret", "in-not"] {
            std::fs::write(at(file), file).unwrap();
        }
        symlink("deep/file", at("in/inner")).unwrap();
        symlink("../out/secret", at("in/leaf")).unwrap();
        symlink("../out", at("in/way")).unwrap();
        symlink(at("out/secret"), at("in/absolute")).unwrap();
        let sources = Sources::beneath(&[at("in")]).unwrap();
        for name in ["in/top", "in/deep/file", "in/inner"] {
            assert!(sources.open(&at(name)).is_ok() && sources.metadata(&at(name)).is_ok(), "{name}");
        }
        for name in ["out/secret", "in-not", "in/../out/secret", "in/deep/../../out/secret", "in"] {
            assert!(sources.admit(&at(name)).unwrap_err().contains("--source-root"), "{name}");
            assert!(sources.open(&at(name)).is_err() && sources.metadata(&at(name)).is_err(), "{name}");
            assert!(sources.remove_if(&at(name), |_| true).is_err(), "{name}");
        }
        for name in ["in/leaf", "in/way/secret", "in/absolute"] {
            let why = sources.open(&at(name)).unwrap_err().to_string();
            assert!(why.contains("leads out"), "{name}: {why}");
            assert!(sources.metadata(&at(name)).is_err(), "{name}");
        }
        assert!(sources.remove_if(&at("in/way/secret"), |_| true).is_err());
        assert!(at("out/secret").exists());
        assert!(!sources.remove_if(&at("in/top"), |_| false).unwrap() && at("in/top").exists());
        assert!(sources.remove_if(&at("in/top"), |_| true).unwrap());
        assert!(sources.remove_if(&at("in/deep/file"), |_| true).unwrap());
        assert!(sources.metadata_of_name(&at("in/leaf")).unwrap().is_symlink());
        assert!(!at("in/top").exists() && !at("in/deep/file").exists());
        assert!(Sources::beneath(&["data".into()]).is_err() && Sources::beneath(&["/a/../b".into()]).is_err());
        assert!(Sources::default().open(&at("out/secret")).is_ok());
    }
}
