//! Whose trouble the failures of one session are: the files' own, or that of the places they come from.

use super::Direction;
use super::far_end::FarFolders;
use super::flight::Job;
use super::origins::{Look, Origins};
use crate::catalog::FailedSide;
use crate::status::Failure;
use std::path::PathBuf;
use std::time::Instant;

/// A job whose file has failed, and how.
pub(super) struct FileFailure {
    pub(super) job: Job,
    pub(super) kind: Failure,
    pub(super) why: String,
}

/// Where the trouble of a kind of failure is, for rows with several storage nodes.
pub(super) fn side_of(kind: Failure) -> FailedSide {
    match kind {
        Failure::Missing | Failure::Unreadable | Failure::Changed | Failure::Row => FailedSide::Source,
        Failure::Refused => FailedSide::Destination,
    }
}

/// The files of one session.
pub(super) struct SessionFiles {
    pub(super) files: usize,
    /// Where they come from, if some place is in trouble; only then does it matter which files were there.
    sources: Vec<PathBuf>,
    /// When the session began.
    since: Instant,
}

impl SessionFiles {
    /// The files of a session that began at `since`.
    pub(super) fn of(jobs: &[Job], origins: &Origins, since: Instant) -> Self {
        let sources = match origins.in_trouble() {
            true => jobs.iter().map(|job| job.source.clone()).collect(),
            false => Vec::new(),
        };
        Self { files: jobs.len(), sources, since }
    }

    /// Says of each failure whether the file is held back, its place being in trouble.
    pub(super) fn held(
        &self,
        failed: &[FileFailure],
        origins: &Origins,
        mut far_folders: FarFolders<'_>,
        direction: Direction,
    ) -> Vec<bool> {
        if failed.is_empty() && self.sources.is_empty() {
            return Vec::new();
        }
        let mut place = |FileFailure { job, kind, why }: &FileFailure| match (kind, direction) {
            (Failure::Missing | Failure::Unreadable, Direction::Push) => {
                let place = origins.look(&job.source).err().and_then(|lack| lack.place);
                Some(place.or_else(|| origins.lapsed_since(&job.source, self.since)))
            }
            (Failure::Missing | Failure::Unreadable, Direction::Pull) => Some(far_folders.place(&job.source, why)),
            _ => None,
        };
        let nowhere = PathBuf::new();
        let looks = failed.iter().map(|failure| Look {
            source: &failure.job.source,
            lack: place(failure),
            failed_before: failure.job.attempts > 0,
        });
        let others = self.sources.iter().filter(|source| !failed.iter().any(|failed| failed.job.source == **source));
        let others =
            others.chain(std::iter::repeat(&nowhere)).map(|source| Look { source, lack: None, failed_before: false });
        let looks: Vec<_> = looks.chain(others).take(self.files).collect();
        origins.judge(&looks, self.since)
    }
}
