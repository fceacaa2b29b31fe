//! A lock on a whole file.
//!
//! The kernel keeps such a lock for as long as anybody holds the opened file, and a program that another thread is just
//! starting holds a copy of it. So it is given back in words: it is free once its holder says so.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// A file that is locked for us until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

/// Why there is no lock.
pub(crate) enum Taken {
    /// Somebody else has it.
    ByAnother,
    /// The file system has no locks.
    NoLocks(File, io::Error),
}

impl Lock {
    /// Locks a file, unless somebody else has it.
    pub(crate) fn take(file: File) -> Result<Self, Taken> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(Errno::WOULDBLOCK) => Err(Taken::ByAnother),
            Err(error) => Err(Taken::NoLocks(file, error.into())),
        }
    }

    /// Stands for a lock that cannot be had.
    pub(crate) fn without(file: File) -> Self {
        Self(file)
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    pub(crate) fn file_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_once_dropped_though_a_copy_of_its_file_lives_on() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let open = || File::options().append(true).open(&path).unwrap();
        let file = open();
        // As a child has it between its fork and its exec.
        let copy = file.try_clone().unwrap();
        let lock = Lock::take(file).ok().unwrap();
        assert!(matches!(Lock::take(open()), Err(Taken::ByAnother)));
        drop(lock);
        assert!(Lock::take(open()).is_ok());
        drop(copy);
    }
}
