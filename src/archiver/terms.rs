//! Under which terms one session carries its batch.

use super::ArchiverSettings;
use super::arguments::Acknowledged;
use super::compression::Coding;
use super::control::Control;
use super::flight::Job;
use super::origins::{look, look_at_each};
use super::recorder::CarriedFile;
use super::results::Results;
use super::unfinished::variant_of;
use super::verdict::Verdict;
use crate::disk::digest::Digest;
use crate::link::Closer;
use crate::status::FileAtWork;
use crate::transfer::Sent;
use crate::transport::ConnectError;
use protocol::chmod::Chmod;
use std::cell::Cell;
use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;

/// What changes of permissions leave alone that do not say whose; a container's umask has no say in it.
const UMASK: u32 = 0o022;
/// Permissions of directories where nothing is said.
const DIR_MODE: u32 = 0o755;

/// Who sees to it that the names of copies outlast a power cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum NamesSynced {
    /// Whoever gives them.
    #[default]
    AsTheyAreGiven,
    /// We do, once the session is over.
    Afterwards,
}

/// The terms of one session, and what it tells whoever watches.
pub(super) struct SessionTerms {
    /// The session's number.
    pub(super) number: usize,
    pub(super) settings: Arc<ArchiverSettings>,
    pub(super) control: Control,
    results: Results,
    /// How the data of files is sent.
    pub(super) coding: Coding,
    /// When files are acknowledged, where they are pushed.
    pub(super) acknowledged: Acknowledged,
    pub(super) names_synced: NamesSynced,
    /// Bytes of files that the session has moved.
    moved: Cell<u64>,
    /// They were counted before, when several wrote them.
    counted: Cell<bool>,
}

impl SessionTerms {
    pub(super) fn new(number: usize, results: &Results, control: &Control, coding: Coding) -> Self {
        let (settings, results, control) = (results.settings.clone(), results.clone(), control.clone());
        let (acknowledged, names_synced, moved, counted) = Default::default();
        Self { number, settings, control, results, coding, acknowledged, names_synced, moved, counted }
    }

    /// Whether to take up no further file.
    pub(super) fn stopping(&self) -> bool {
        self.control.stop().is_stopped()
    }

    /// Has the link closed when running work is to end, as long as the guard lives.
    pub(super) fn guard(&self, closer: Closer) -> super::stop::LinkGuard {
        self.control.stop().guard(closer)
    }

    /// Bytes of files were moved.
    pub(super) fn count(&self, bytes: u64) {
        self.moved.set(self.moved.get() + bytes);
        if !self.counted.get() {
            self.control.progress().read(self.number, bytes);
        }
    }

    /// The session begins with a file of so many bytes.
    pub(super) fn begins(&self, source: &Path, size: u64) {
        let file = FileAtWork { path: source.display().to_string(), size, done: 0 };
        self.control.progress().set_file(self.number, Some(file));
    }

    /// What is moved from now on has been counted.
    pub(super) fn counted_before(&self) {
        self.counted.set(true);
    }

    /// What is moved from now on has not.
    pub(super) fn not_counted_before(&self) {
        self.counted.set(false);
    }

    /// Bytes of files that the session has moved.
    pub(super) fn moved(&self) -> u64 {
        self.moved.get()
    }

    /// A file was found in place.
    pub(super) fn found(&self, sent: &Sent) {
        self.control.progress().found(sent);
    }

    /// A file has come, and is confirmed.
    pub(super) fn confirmed(&self, sent: &Sent) {
        self.control.progress().confirmed(sent);
    }

    /// A file is proven, which need not wait for the end of the session. But for one that has yet to be read for the manifest,
    /// and where names are synced only then.
    pub(super) fn proven(&self, job: &Job, sent: &Sent, digest: Option<Digest>) {
        if self.names_synced == NamesSynced::AsTheyAreGiven && (digest.is_some() || !self.digests()) {
            self.results.proven(job, digest, CarriedFile { sent: *sent, session: self.number });
        }
    }

    /// Why there is no session; silence is counted.
    pub(super) fn trouble(&self, error: &ConnectError) -> String {
        if let ConnectError::Timeout { .. } = error {
            self.control.progress().timed_out();
        }
        error.to_string()
    }

    /// Whether the BLAKE3 of what is sent is wanted.
    pub(super) fn digests(&self) -> bool {
        self.settings.manifest.is_some()
    }

    /// What the directories are called that unfinished files of these jobs, all of one variant, are kept in.
    pub(super) fn aside(&self, jobs: &[Job]) -> String {
        variant_of(&self.settings.aside, jobs.first().map_or(0, |job| job.variant))
    }

    /// Looks at a source file.
    pub(super) fn source_metadata(&self, path: &Path) -> Result<Metadata, Verdict> {
        look(&self.settings.sources, path).map_err(|lack| Verdict::Failed(lack.kind, lack.why))
    }

    /// Looks at the source files of jobs.
    pub(super) fn look_at(&self, jobs: &[Job]) -> impl Iterator<Item = Result<Metadata, Verdict>> {
        let paths = jobs.iter().map(|job| job.source.clone()).collect();
        look_at_each(&self.settings.sources, paths)
            .map(|looked| looked.map_err(|lack| Verdict::Failed(lack.kind, lack.why)))
    }

    /// The permissions of a copy. Set-id and sticky bits have no business in an archive, unless they were asked for.
    pub(super) fn file_mode(&self, mode: u32) -> u32 {
        let mode = mode & 0o777;
        self.settings.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, false, UMASK))
    }
}

impl Drop for SessionTerms {
    fn drop(&mut self) {
        self.control.progress().set_file(self.number, None);
    }
}

/// The permissions of a directory on the way to a copy.
pub(super) fn dir_mode(chmod: Option<&Chmod>) -> u32 {
    chmod.map_or(DIR_MODE, |chmod| chmod.apply(DIR_MODE, true, UMASK))
}
