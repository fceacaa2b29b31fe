//! One archiver to an archive: a lock on a file beside the database, named by both.

use super::trouble::unavailable;
use crate::catalog::CatalogError;
use crate::lock::{Lock, Taken};
use crate::transfer::open_operator_lock;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

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
        let file = open_operator_lock(&path);
        let file = file.map_err(|error| busy(format!("{error}; the lock file must be ours and writable")))?;
        match Lock::take(file) {
            Ok(lock) => *claim = Some(lock),
            Err(Taken::ByAnother) => {
                return Err(busy("another archiver works on the same --archive-name; stop one of the two".to_owned()));
            }
            // Some network file systems have no such locks; then nobody watches but the operator.
            Err(Taken::NoLocks(file, error)) => {
                tracing::warn!(%error, file = %path.display(), "No lock to be had; see to it that no second archiver runs");
                *claim = Some(Lock::without(file));
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub(super) fn release(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Whether the lock is on the file of this name.
fn is_at(lock: &Lock, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (lock.file().metadata(), std::fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
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
