//! One archiver to an archive: a lock on a file beside the database, named by both.

use super::trouble::unavailable;
use crate::catalog::CatalogError;
use crate::disk::open_operator_lock;
use crate::lock::{Lock, Taken};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Attempts at a lock whose file is taken away time and again, or has another number each time that it is looked at.
const RACES: usize = 16;

/// The lock of the archiver that works on this archive, held open.
#[derive(Clone, Default)]
pub(super) struct Claim(Arc<Mutex<Option<Lock>>>);

impl Claim {
    /// Takes the lock, unless it is ours.
    pub(super) fn take(&self, database: &str, file: &Path, archive: &str) -> Result<(), CatalogError> {
        let path = lock_file(file, archive);
        let mut claim = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever replaces the folder replaces the lock with it, and another archiver would take the new one.
        if claim.as_ref().is_some_and(|lock| is_at(lock, &path)) {
            return Ok(());
        }
        *claim = None;
        let busy = |why: String| unavailable(database, format!("{}: {why}", path.display()));
        match lock_at(&path, || open_operator_lock(&path)) {
            Ok(lock) => *claim = Some(lock),
            Err(Unclaimed::NoFile(error)) => {
                return Err(busy(format!("{error}; the lock file must be ours and writable")));
            }
            Err(Unclaimed::Taken(Taken::ByAnother)) => {
                return Err(busy("another archiver works on the same --archive-name; stop one of the two".to_owned()));
            }
            // Some network file systems have no such locks; then nobody watches but the operator.
            Err(Unclaimed::Taken(Taken::NoLocks(file, error))) => {
                tracing::warn!(%error, file = %path.display(), "No lock to be had; see to it that no second archiver runs");
                *claim = Some(Lock::without(file));
            }
        }
        Ok(())
    }

    /// Gives the lock back, if it is ours, and with it takes its file away: one of a mistyped archive would stay for ever.
    pub(super) fn release(&self, file: &Path, archive: &str) {
        let Some(lock) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let path = lock_file(file, archive);
        // A link that an operator has put there stays.
        if std::fs::symlink_metadata(&path).is_ok_and(|named| is_of(&lock, &named)) {
            // While it is locked, so that whoever has opened it sees that it is gone. Where it may not be removed, it stays.
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Why an archive is not claimed.
enum Unclaimed {
    NoFile(io::Error),
    Taken(Taken),
}

/// Locks the file of this name, and not one that was taken away between its opening and its locking.
fn lock_at(path: &Path, open: impl Fn() -> io::Result<File>) -> Result<Lock, Unclaimed> {
    let mut attempt = 0;
    loop {
        let lock = Lock::take(open().map_err(Unclaimed::NoFile)?).map_err(Unclaimed::Taken)?;
        attempt += 1;
        if is_at(&lock, path) || attempt == RACES {
            return Ok(lock);
        }
    }
}

/// Whether the lock is on the file of this name.
fn is_at(lock: &Lock, path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|named| is_of(lock, &named))
}

/// Whether the lock is on this file.
fn is_of(lock: &Lock, named: &Metadata) -> bool {
    lock.file().metadata().is_ok_and(|held| (held.dev(), held.ino()) == (named.dev(), named.ino()))
}

/// The file that is locked by whoever works on an archive: beside the database, named by both.
fn lock_file(database: &Path, archive: &str) -> PathBuf {
    let archive: String = archive
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() || "-_".contains(char) {
                char.to_string()
            } else {
                format!("%{:x}", u32::from(char))
            }
        })
        .collect();
    let mut name = database.as_os_str().to_owned();
    name.push(format!(".{archive}.lock"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn open(path: &Path) -> io::Result<File> {
        File::options().create(true).append(true).open(path)
    }

    #[test]
    fn a_file_that_was_taken_away_is_not_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.smurf.lock");
        let gone = Cell::new(Some(open(&path).unwrap()));
        std::fs::remove_file(&path).unwrap();
        // Opened before the other archiver has ended, locked after.
        let lock = lock_at(&path, || gone.take().map_or_else(|| open(&path), Ok)).ok().unwrap();
        assert!(is_at(&lock, &path));
        assert!(matches!(lock_at(&path, || open(&path)), Err(Unclaimed::Taken(Taken::ByAnother))));
    }
}
