//! A large file that others bring ahead of the session, which takes it for what an earlier try has left, and proves it.

use super::dest::OutputFile;
use protocol::flist::FileEntry;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Who brings one file.
pub trait Stager: Debug + Send + Sync {
    /// Whether this is the file.
    fn brings(&self, entry: &FileEntry) -> bool;

    /// Begins to write so many bytes of it into a file that is empty.
    fn begin(&self, len: u64, here: File);

    /// Waits until so many bytes of its beginning are there, at most so long: whether they are, or will be. `None` while it
    /// goes on.
    fn reaches(&self, bytes: u64, limit: Duration) -> Option<bool>;

    /// Nothing more is to be written: once it returns nobody does.
    fn end(&self);
}

/// A file that is being brought. Dropping it ends that.
pub(super) struct Bringing(pub(super) Arc<dyn Stager>);

impl Drop for Bringing {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A file that others have written, from when it is asked for until it is rebuilt.
#[derive(Debug, Clone)]
pub(super) struct StagedFile(Arc<Mutex<Option<OutputFile>>>);

impl StagedFile {
    pub(super) fn new(output: OutputFile) -> Self {
        Self(Arc::new(Mutex::new(Some(output))))
    }

    /// Takes it, once.
    pub(super) fn take(&self) -> Option<OutputFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The file, to be read.
    pub(super) fn reader(&self) -> io::Result<File> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(output) => output.file().try_clone(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl PartialEq for StagedFile {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StagedFile {}
