//! Files of a batch that several move to where an ordinary session will find them, and what has become of each.

use super::file_to_stage::FileToStage;
use super::{FileCourse, PAYS, SharedFile, SharedFiles, Sharing, moved};
use crate::archiver::ArchiverSettings;
use crate::archiver::flight::Job;
use crate::archiver::terms::SessionTerms;
use crate::archiver::unfinished::kept;
use crate::transport::Connect;
use crate::transport::ranges::{Haste, RangeError, Written, connections_worth};
use crate::transport::ssh::sftp::{OpenedFile, Sftp};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Bytes per second at which no machine sums a file by MD5.
const SUMMED: f64 = 1.1e9;
/// Round trips from when we leave for our session until its receiver is at the file: what we have sent is confirmed, then
/// that the file is closed, and half a one takes what the session says.
const WAY_THERE: f64 = 2.5;
/// How long a program at the far end may wait for a file that is being written.
const WAITED_FOR: Duration = Duration::from_secs(30);

/// What several have done about a file before its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archiver) enum Staged {
    /// Nothing: the session is the first.
    Not,
    /// It stands there whole, in a file that nobody else had to do with or writes to any more.
    Whole,
    /// Some of it may stand there, and somebody who broke off may still be writing to it.
    Partly,
}

/// What has become of the files of a batch that several were to write beforehand.
pub(in crate::archiver) struct StagedFiles {
    known: Vec<Staged>,
    /// The last one, which others may still be writing, and whose job it is.
    last: Option<(usize, BegunFile)>,
}

impl StagedFiles {
    /// Of so many files, none of which several wrote.
    pub(in crate::archiver) fn none(files: usize) -> Self {
        Self { known: vec![Staged::Not; files], last: None }
    }

    /// Whether there is one that several wrote.
    pub(in crate::archiver) fn are_any(&self) -> bool {
        self.last.is_some() || self.known.iter().any(|staged| *staged != Staged::Not)
    }

    /// Whether several wrote it or are about to, none of whom is known to have broken off.
    pub(in crate::archiver) fn may_be_whole(&self, at: usize) -> bool {
        self.known[at] == Staged::Whole || self.last.as_ref().is_some_and(|(last, begun)| *last == at && begun.is_new)
    }

    /// What has become of a file at first: it is the last one from now on, where it is begun.
    pub(super) fn note(&mut self, at: usize, begun: Result<BegunFile, Staged>) {
        match begun {
            Ok(begun) => self.last = Some((at, begun)),
            Err(staged) => self.known[at] = staged,
        }
    }

    /// Writes our part of the last one, and waits for the others'.
    pub(super) fn finish_last(&mut self, sharing: &mut Sharing, terms: &SessionTerms) {
        if let Some((at, mut begun)) = self.last.take() {
            begun.write(sharing, terms);
            self.known[at] = begun.conclude();
        }
    }

    /// Writes our part of the last one, if it will be so long that nothing that waits for it should be begun before.
    pub(in crate::archiver) fn write_if_long(&mut self, sharing: &mut Sharing, terms: &SessionTerms) {
        if self.last.as_ref().is_some_and(|(_, begun)| begun.at_least() > WAITED_FOR) {
            self.write(sharing, terms);
        }
    }

    /// Writes our part of the last one. What is left then others are about to have written when the far end has
    /// summed what stands before it.
    pub(in crate::archiver) fn write(&mut self, sharing: &mut Sharing, terms: &SessionTerms) {
        if let Some((_, begun)) = &mut self.last {
            begun.write(sharing, terms);
        }
    }

    /// What has become of a file, once nobody writes it any more.
    pub(in crate::archiver) fn of(&mut self, at: usize) -> Staged {
        if let Some((_, begun)) = self.last.take_if(|(last, _)| *last == at) {
            self.known[at] = begun.conclude();
        }
        self.known[at]
    }
}

impl Drop for StagedFiles {
    /// Nobody goes on with a file that no session will find.
    fn drop(&mut self) {
        if let Some((_, begun)) = self.last.take() {
            begun.shared.ranges.end();
            begun.conclude();
        }
    }
}

/// What sharing a file promises.
#[derive(Clone, Copy)]
pub(super) struct Prospect {
    connections: usize,
    /// Bytes per second of one session alone.
    alone: f64,
    round_trip: Duration,
}

impl Prospect {
    /// Of a file of so many bytes; `None` where one session does as well.
    pub(super) fn of(
        len: u64,
        files: &SharedFiles,
        connect: &dyn Connect,
        settings: &ArchiverSettings,
    ) -> Option<Self> {
        if files.one_each.load(Ordering::Relaxed) {
            return None;
        }
        let round_trip = connect.round_trip()?;
        let connections = connections_worth(len, round_trip).min(settings.workers.most());
        let alone = files.lone().alone(settings.direction, round_trip).filter(|_| connections > 1)?;
        Some(Self { connections, alone, round_trip })
    }
}

/// Moves files of a batch to where an ordinary session will find them, over one connection.
pub(super) struct Staging<'a> {
    files: Arc<SharedFiles>,
    connect: &'a mut dyn Connect,
    terms: &'a SessionTerms,
    sharing: &'a mut Sharing,
}

impl<'a> Staging<'a> {
    pub(super) fn new(sharing: &'a mut Sharing, connect: &'a mut dyn Connect, terms: &'a SessionTerms) -> Self {
        Self { files: sharing.files.clone(), connect, terms, sharing }
    }

    /// Has one file begun to be written, if that is of use; or what has become of it.
    pub(super) fn push(&mut self, job: &Job, len: u64) -> Result<BegunFile, Staged> {
        let settings = &self.terms.settings;
        let prospect = Prospect::of(len, &self.files, self.connect, settings).ok_or(Staged::Not)?;
        let target = Path::new(&settings.data_dir).join(kept(&settings.aside, job));
        let course = FileCourse::Push(settings.sources.clone(), target.clone());
        let shared = SharedFile::of(&job.source, course, (len, prospect.connections));
        let new = !job.headway.has_begun();
        let mut begun = self.offer(shared, prospect).ok_or(Staged::Not)?;
        begun.is_new = new;
        let made = FileToStage { job, path: &target, terms: self.terms }.make_by_command(self.connect);
        if made == Some(false) {
            begun.shared.ranges.end();
            begun.conclude();
            return Err(Staged::Not);
        }
        if made.is_some() {
            job.headway.is_staged();
            begun.shared.ranges.open();
        }
        match self.open(job, &target, made.is_some()) {
            Ok(Some(ours)) => {
                job.headway.is_staged();
                begun.shared.ranges.open();
                begun.ours = Some(ours);
                Ok(begun)
            }
            Ok(None) => {
                begun.shared.ranges.end();
                begun.conclude();
                Err(Staged::Not)
            }
            Err(error) => {
                begun.failed = Some(error);
                Err(begun.conclude())
            }
        }
    }

    /// Reads one file into an empty one, if that is of use.
    pub(super) fn pull(&mut self, job: &Job, len: u64, here: File) -> Staged {
        let settings = &self.terms.settings;
        let Some(prospect) = Prospect::of(len, &self.files, self.connect, settings) else { return Staged::Not };
        let shared = SharedFile::of(&job.source, FileCourse::Pull(here), (len, prospect.connections));
        let Some(mut begun) = self.offer(shared, prospect) else { return Staged::Not };
        begun.failed = self.fetch(job, &begun.shared).err();
        begun.conclude()
    }

    /// Puts a file up for others to help with, who log in while we do; `None` where there is other work, or another file.
    fn offer(&mut self, shared: Arc<SharedFile>, prospect: Prospect) -> Option<BegunFile> {
        let files = self.files.clone();
        (!files.work_waits() && files.offer(&shared)).then(|| BegunFile {
            files,
            shared,
            prospect,
            host: self.connect.describe(),
            began: Instant::now(),
            is_new: true,
            ours: None,
            failed: None,
        })
    }

    /// Opens the file that is to be written, over a connection of our own, and makes it if it is not `made`; `None` where it
    /// is not to be.
    fn open(&mut self, job: &Job, target: &Path, made: bool) -> Result<Option<(OpenedFile, Sftp)>, StagingError> {
        let mut sftp = self.sftp()?;
        let guard = self.terms.guard(sftp.closer());
        let opened = match made {
            true => sftp.open_to_write(target, None).map(Some),
            false => FileToStage { job, path: target, terms: self.terms }.make(&mut sftp),
        };
        drop(guard);
        match opened.map_err(|error| StagingError::of(RangeError::Far(error), target))? {
            Some(file) => Ok(Some((file, sftp))),
            None => {
                self.sharing.keep(sftp);
                Ok(None)
            }
        }
    }

    /// Reads the file together with those who come.
    fn fetch(&mut self, job: &Job, shared: &SharedFile) -> Result<(), StagingError> {
        let mut sftp = self.sftp()?;
        let guard = self.terms.guard(sftp.closer());
        job.headway.is_staged();
        let fetched = shared.help(shared.ranges.begin(), &mut sftp, self.terms);
        fetched.map_err(|error| StagingError::of(error, &shared.source))?;
        drop(guard);
        self.sharing.keep(sftp);
        Ok(())
    }

    fn sftp(&mut self) -> Result<Sftp, StagingError> {
        self.sharing.sftp(self.connect).map_err(|error| StagingError::Refused(error.to_string()))
    }
}

/// A file that several have begun to write, or have read.
pub(super) struct BegunFile {
    files: Arc<SharedFiles>,
    shared: Arc<SharedFile>,
    prospect: Prospect,
    host: String,
    began: Instant,
    /// No earlier session had begun it.
    is_new: bool,
    /// The file as we made it and our connection, until we have written our part.
    ours: Option<(OpenedFile, Sftp)>,
    failed: Option<StagingError>,
}

impl BegunFile {
    /// How long it takes at the very least.
    fn at_least(&self) -> Duration {
        let most = self.prospect.connections as f64 * self.prospect.alone;
        Duration::from_secs_f64((self.shared.ranges.len() as f64 / most.max(1.0)).min(1e9))
    }

    /// Writes our part.
    fn write(&mut self, sharing: &mut Sharing, terms: &SessionTerms) {
        let Some((file, mut sftp)) = self.ours.take() else { return };
        let guard = terms.guard(sftp.closer());
        let haste = Haste { way_there: self.prospect.round_trip.mul_f64(WAY_THERE), summed: SUMMED };
        let hand = self.shared.ranges.begin_in_haste(haste);
        let written = terms.settings.sources.open(&self.shared.source).map_err(RangeError::Here);
        let written = written
            .and_then(|mut source| hand.write(&mut source, sftp.in_pieces(file), &mut |bytes| moved(terms, bytes)));
        drop(guard);
        match written {
            Ok(bytes) => {
                tracing::debug!(bytes, there = self.shared.ranges.front(), "Wrote our part");
                sharing.keep(sftp);
            }
            Err(error) => self.failed = Some(StagingError::of(error, &self.shared.source)),
        }
    }

    /// Waits until nobody is at work any more, each of whom is held to its connection's own limits; what has become of it.
    fn conclude(self) -> Staged {
        let Self { files, shared, prospect, host, .. } = self;
        files.withdraw(&shared);
        if self.failed.is_some() || self.ours.is_some() {
            shared.ranges.end();
        }
        let done = shared.ranges.finish();
        let ((did, done_by), source) = (shared.course.words(), shared.source.display());
        match (self.failed, done, shared.ranges.rate()) {
            (None, Written::Whole | Written::Mended, Some(rate)) => {
                let (mb, ms) = (|rate: f64| (rate / 1e5).round() / 10.0, self.began.elapsed().as_millis() as u64);
                let (rate_mb, alone_mb) = (mb(rate), mb(prospect.alone));
                tracing::debug!(rate_mb, alone_mb, ms, "Several {did} {source}");
                if rate < prospect.alone * PAYS {
                    files.found_useless();
                }
                if done == Written::Whole && self.is_new { Staged::Whole } else { Staged::Partly }
            }
            (failed, ..) => {
                let why = match failed {
                    None => "those who helped broke off".to_owned(),
                    Some(StagingError::Broken(why)) => why,
                    Some(StagingError::Refused(why)) => {
                        files.found_useless();
                        why
                    }
                };
                tracing::debug!(host, "Not {done_by} by several: {why}");
                Staged::Partly
            }
        }
    }
}

/// Why a file was not moved by several.
enum StagingError {
    /// It broke off, and may go well with the next file.
    Broken(String),
    /// The far end does not want it so.
    Refused(String),
}

impl StagingError {
    fn of(error: RangeError, path: &Path) -> Self {
        let why = format!("{}: {error}", path.display());
        match error {
            RangeError::Far(error) if !error.is_of_the_line() => Self::Refused(why),
            _ => Self::Broken(why),
        }
    }
}
