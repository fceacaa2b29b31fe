//! The folder by which batches are handed over, and by which it is told how they stand: files that appear whole or not at all.
//! It is for its owner alone, since whoever writes to it names files that are read and places that are written to.

use super::request::{BatchId, BatchRequest, REQUEST_MOST};
use super::state::BatchState;
use crate::disk::shown;
use crate::disk::summed::{SymlinkRule, open_regular};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where requests, states and cancellations are.
const NEW: &str = "new";
const STATE: &str = "state";
const CANCEL: &str = "cancel";
/// The mover's own memory.
const FILES: &str = "files.db";
/// How the names of requests and states end.
const SUFFIX: &str = ".json";
/// Bytes of a state.
const STATE_MOST: u64 = 64 << 10;

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchSpoolError {
    #[error("Folder {} of the spool cannot be used: {why}; name another", folder.display())]
    Unusable { folder: PathBuf, why: io::Error },
    #[error("Folder {} of the spool belongs to another user ({owner}); run as that user, or name another", folder.display())]
    Foreign { folder: PathBuf, owner: u32 },
    #[error("Folder {} of the spool is open to others (mode {mode:04o}), who could have any file copied; close it with: chmod 700 {}", folder.display(), folder.display())]
    Open { folder: PathBuf, mode: u32 },
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct BatchSpool {
    folder: PathBuf,
}

/// Something that was put into the spool, by its name.
pub(super) struct SpoolName {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

impl BatchSpool {
    /// The folder as it is meant; it is made, with what belongs into it, where it is absent.
    pub(crate) fn open(folder: &Path) -> Result<Self, BatchSpoolError> {
        let folder = std::path::absolute(folder).map_err(|why| unusable(folder, why))?;
        let parts = [NEW, STATE, CANCEL].map(|name| folder.join(name));
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for folder in std::iter::once(&folder).chain(&parts) {
            builder.create(folder).map_err(|why| unusable(folder, why))?;
        }
        Self::look(&folder)?;
        Ok(Self { folder })
    }

    /// The folder, which must be there.
    pub(crate) fn find(folder: &Path) -> Result<Self, BatchSpoolError> {
        Self::look(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn look(folder: &Path) -> Result<(), BatchSpoolError> {
        let meta = fs::metadata(folder).map_err(|why| unusable(folder, why))?;
        if !meta.is_dir() {
            return Err(unusable(folder, ErrorKind::NotADirectory.into()));
        }
        let (mode, owner) = (meta.mode() & 0o7777, meta.uid());
        if owner != rustix::process::geteuid().as_raw() {
            return Err(BatchSpoolError::Foreign { folder: folder.to_owned(), owner });
        }
        match mode & 0o077 {
            0 => Ok(()),
            _ => Err(BatchSpoolError::Open { folder: folder.to_owned(), mode }),
        }
    }

    /// The database in which the mover remembers the batches of this folder, and their files.
    pub(crate) fn database(folder: &Path) -> PathBuf {
        folder.join(FILES)
    }

    pub(crate) fn describe(&self) -> String {
        self.folder.display().to_string()
    }

    /// Hands a batch over; false where one of its name was before.
    pub(crate) fn hand_over(&self, request: &BatchRequest) -> io::Result<bool> {
        if self.state(&request.id)?.is_some() || self.request_path(&request.id).exists() {
            return Ok(false);
        }
        self.put(NEW, &named(&request.id), request.to_json().as_bytes())?;
        Ok(true)
    }

    /// Has a batch cancelled.
    pub(crate) fn cancel(&self, id: &BatchId) -> io::Result<()> {
        self.put(CANCEL, id.as_str(), b"")
    }

    /// How a batch stands, if that is known.
    pub(crate) fn state(&self, id: &BatchId) -> io::Result<Option<BatchState>> {
        let path = self.folder.join(STATE).join(named(id));
        match read(&path, STATE_MOST) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| io::Error::other(format!("{} is no state: {error}", path.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a batch was handed over, and nobody has taken it.
    pub(crate) fn is_new(&self, id: &BatchId) -> bool {
        self.request_path(id).exists()
    }

    /// The names of all batches that there is something of.
    pub(crate) fn names(&self) -> io::Result<Vec<BatchId>> {
        let mut ids = Vec::new();
        for part in [NEW, STATE] {
            for entry in self.listed(part)? {
                ids.extend(entry.name.strip_suffix(SUFFIX).and_then(|id| BatchId::new(id).ok()));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Requests that nobody has taken, in the order of their names.
    pub(super) fn requests(&self) -> io::Result<Vec<SpoolName>> {
        self.listed(NEW)
    }

    /// Cancellations that nobody has followed.
    pub(super) fn cancellations(&self) -> io::Result<Vec<SpoolName>> {
        self.listed(CANCEL)
    }

    /// Reads a request; the inner error is the request's own.
    pub(super) fn read_request(&self, entry: &SpoolName) -> io::Result<Result<BatchRequest, String>> {
        let id = entry.name.strip_suffix(SUFFIX);
        let id = match id.ok_or_else(|| "requests end in .json".to_owned()).and_then(BatchId::new) {
            Ok(id) => id,
            Err(why) => return Ok(Err(format!("its file's name does not fit: {why}"))),
        };
        let text = match read(&entry.path, REQUEST_MOST) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                return Ok(Err(format!(
                    "the request is larger than {} MiB; hand over smaller batches",
                    REQUEST_MOST >> 20
                )));
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        Ok(BatchRequest::parse(&text).and_then(|request| match request.id == id {
            true => Ok(request),
            false => Err(format!("field batch is {:?}, and the file is called {}", request.id.as_str(), entry.name)),
        }))
    }

    /// What is done with goes.
    pub(super) fn remove(&self, entry: &SpoolName) -> io::Result<()> {
        match fs::remove_file(&entry.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Tells how a batch stands.
    pub(super) fn tell(&self, state: &BatchState) -> io::Result<()> {
        let text = serde_json::to_string(state).map_err(io::Error::other)?;
        self.put(STATE, &format!("{}{SUFFIX}", state.batch), text.as_bytes())
    }

    /// A batch is forgotten.
    pub(super) fn forget(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(STATE).join(format!("{id}{SUFFIX}"))) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn request_path(&self, id: &BatchId) -> PathBuf {
        self.folder.join(NEW).join(named(id))
    }

    fn listed(&self, part: &str) -> io::Result<Vec<SpoolName>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.folder.join(part))? {
            let entry = entry?;
            // Those that begin with a dot are not whole yet.
            if entry.file_name().as_bytes().starts_with(b".") {
                continue;
            }
            found.push(SpoolName { name: shown(entry.file_name().as_bytes()), path: entry.path() });
        }
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Writes a file that is there whole, and for good, or not at all.
    fn put(&self, part: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let folder = self.folder.join(part);
        let temporary = folder.join(format!(".{:016x}.tmp", fastrand::u64(..)));
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()?;
                fs::rename(&temporary, folder.join(name))
            });
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        File::open(&folder)?.sync_all()
    }
}

fn unusable(folder: &Path, why: io::Error) -> BatchSpoolError {
    BatchSpoolError::Unusable { folder: folder.to_owned(), why }
}

fn named(id: &BatchId) -> String {
    format!("{id}{SUFFIX}")
}

/// Reads a regular file of so many bytes at most.
fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    use crate::disk::summed::SumError;
    let (file, meta) = open_regular(path, SymlinkRule::Refused).map_err(|error| match error {
        SumError::Unreadable(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            io::Error::new(ErrorKind::InvalidInput, "it is a link")
        }
        SumError::Unreadable(error) => error,
        error => io::Error::new(ErrorKind::InvalidInput, error.to_string()),
    })?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    match meta.len() > most || bytes.len() as u64 > most {
        true => Err(ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_spool_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        BatchSpool::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let why = BatchSpool::open(&path).unwrap_err().to_string();
        assert!(why.contains("0750") && why.contains("chmod 700"), "{why}");
        assert!(BatchSpool::find(&path).is_err() && BatchSpool::find(&folder.path().join("none")).is_err());
    }

    #[test]
    fn what_is_handed_over_is_read_once_and_nothing_else_is_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let spool = BatchSpool::open(&folder.path().join("spool")).unwrap();
        let text =
            "{\"v\":1,\"batch\":\"b1\",\"link\":\"l\",\"files\":[{\"local\":\"/a\",\"remote\":\"/b\",\"dir\":false}]}";
        let request = BatchRequest::parse(text.as_bytes()).unwrap();
        assert!(spool.hand_over(&request).unwrap() && !spool.hand_over(&request).unwrap());
        let new = spool.folder.join(NEW);
        fs::write(new.join(".half.tmp"), "{").unwrap();
        fs::write(new.join("b2.json"), text).unwrap();
        fs::write(new.join("b 3.json"), text).unwrap();
        fs::create_dir(new.join("b4.json")).unwrap();
        std::os::unix::fs::symlink("b1.json", new.join("b5.json")).unwrap();
        let large = File::create(new.join("b6.json")).unwrap();
        large.set_len(REQUEST_MOST + 1).unwrap();
        let read: Vec<_> = spool.requests().unwrap();
        let names: Vec<_> = read.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["b 3.json", "b1.json", "b2.json", "b4.json", "b5.json", "b6.json"]);
        let of = |at: usize| spool.read_request(&read[at]);
        assert_eq!(of(1).unwrap().unwrap(), request);
        for (at, why) in [(0, "does not fit"), (2, "the file is called b2.json"), (3, "no regular"), (5, "larger than")]
        {
            assert!(of(at).unwrap().unwrap_err().contains(why), "{at}");
        }
        assert_eq!(of(4).unwrap().unwrap_err(), "it is a link");
        spool.remove(&read[1]).unwrap();
        assert!(!spool.is_new(&request.id));
        let state = BatchState::new("b1", 1.0);
        spool.tell(&state).unwrap();
        assert_eq!(spool.state(&request.id).unwrap(), Some(state));
        assert!(!spool.hand_over(&request).unwrap(), "it is known already");
    }
}
