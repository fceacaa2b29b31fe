//! What a worker says of its jobs: proven, failed, or left as they are.

use super::flight::{Job, Ticket};
use super::layout::archived_path;
use super::patience::PatientFile;
use super::recorder::{CarriedFile, CopyProof, JobResult};
use super::unfinished::Strays;
use super::{ArchiverSettings, Direction, Sources};
use crate::catalog::Outcome;
use crate::disk::digest::Digest;
use crate::disk::digest::each_piece;
use crate::manifest::Entry;
use crate::status::{Failure, Progress};
use protocol::checksum::{Checksum, FileHasher};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Leads to the recorder.
#[derive(Clone)]
pub(super) struct Results {
    pub(super) settings: Arc<ArchiverSettings>,
    pub(super) strays: Arc<Strays>,
    pub(super) progress: Arc<Progress>,
    pub(super) recorder: mpsc::Sender<JobResult>,
}

impl Results {
    /// The far end has confirmed the bytes; with their digest, where we have read them. What was said before is not said again.
    pub(super) fn proven(&self, job: &Job, digest: Option<Digest>, carried: CarriedFile) {
        let Some(ticket) = job.settle() else { return };
        let digest = digest.or(job.headway.arrived);
        let name = job.place.variant(job.variant);
        let path = archived_path(&self.settings, &name);
        let entry = self.entry(job, name, digest);
        self.give(job, ticket, Outcome::Copied { path, md5: job.md5 }, CopyProof { carried, entry });
    }

    /// An attempt has failed, and is counted.
    pub(super) fn failed(&self, job: Job, kind: Failure, why: String) {
        self.progress.failure(kind);
        // What came of another file than the registered one is of no use, and nothing is of a row that is given up.
        let useless = matches!(kind, Failure::Changed | Failure::Refused | Failure::Row);
        match useless || job.attempts + 1 >= self.settings.max_attempts {
            true => self.strays.give_up(&job),
            false => self.strays.release(&job),
        }
        if let Some(ticket) = job.settle() {
            self.give(&job, ticket, self.settings.failure(kind, why), CopyProof::default());
        }
    }

    /// Lets jobs go without a result: their rows stay as they are.
    pub(super) fn release(&self, jobs: Vec<Job>) {
        jobs.iter().for_each(|job| self.strays.release(job));
    }

    fn give(&self, job: &Job, ticket: Arc<Ticket>, outcome: Outcome, proof: CopyProof) {
        let Job { id, attempts, .. } = *job;
        let result = JobResult { ticket, id, attempts, source: job.source.clone(), outcome, proof };
        // The recorder outlives the workers; without it nothing can be recorded and the row stays pending.
        let _ = self.recorder.blocking_send(result);
    }

    /// What the manifest says of a copy. Where its bytes were not read on their way, those on this machine are.
    fn entry(&self, job: &Job, name: String, digest: Option<Digest>) -> Option<Entry> {
        self.settings.manifest.as_ref()?;
        let (here, sources) = match self.settings.direction {
            Direction::Push => (job.source.clone(), self.settings.sources.clone()),
            Direction::Pull => (Path::new(&self.settings.data_dir).join(&name), Sources::default()),
        };
        let digest = digest.map_or_else(|| digest_of(sources.open(&here), &job.md5), Ok);
        let told =
            |why: String| tracing::warn!(id = job.id.0, "{} is proven and not in the manifest: {why}", here.display());
        digest.map_err(told).ok().map(|digest| Entry { name, digest })
    }
}

/// The digest of a file that must have the registered sum.
fn digest_of(file: io::Result<PatientFile>, md5: &[u8]) -> Result<Digest, String> {
    let mut file = file.map_err(|error| format!("it cannot be read here: {error}"))?;
    let (mut registered, mut blake3) = (FileHasher::new(Checksum::Md5), FileHasher::new(Checksum::Blake3));
    let len = each_piece(&mut file, |bytes| {
        registered.update(bytes);
        blake3.update(bytes);
    });
    let len = len.map_err(|error| format!("it cannot be read here: {error}"))?;
    match registered.finish() {
        sum if sum.as_bytes() == md5 => Ok(Digest { len, blake3: blake3.finish() }),
        _ => Err("the file here has changed since".to_owned()),
    }
}
