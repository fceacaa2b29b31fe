//! A batch written by SFTP, for far ends where no program serves: each file under a temporary name, read back whole,
//! renamed only with the registered MD5, and never over another file. A larger one is written where unfinished files are
//! kept, and both the writing and the reading back go on where a broken connection has left them.

use super::flight::Job;
use super::patience::PatientFile;
use super::terms::{SessionTerms, dir_mode};
use super::unfinished::{self, KEPT_LEAST};
use super::verdict::{CHANGED, Carried, Verdict};
use crate::catalog::RecordId;
use crate::disk::digest::Digest;
use crate::status::Failure;
use crate::transfer::Sent;
use crate::transfer::TransferError;
use crate::transfer::dest::temp_name;
use crate::transport::ssh::sftp::{Pieces, Sftp, SftpError};
use protocol::checksum::{Checksum, FileHasher, Sum};
use protocol::chmod::Chmod;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is written to see whether anything can be. One name for all, so that one at most is ever left.
const PROBE: &str = ".archiver-probe";

/// What a broken connection has left there.
#[derive(Default)]
pub(super) struct Interrupted {
    /// Files of no use, that nobody will come back to.
    leftovers: Vec<PathBuf>,
    /// The file that is half read.
    read_back: Option<ReadBack>,
}

/// Writes a batch by SFTP; the error says why nothing can be written at all.
pub(super) fn carry(
    jobs: &[Job],
    sftp: &mut Sftp,
    interrupted: &mut Interrupted,
    terms: &SessionTerms,
) -> Result<Carried, String> {
    let _guard = terms.guard(sftp.closer());
    let base = PathBuf::from(&terms.settings.data_dir);
    Delivery { sftp, interrupted, base, synced: HashSet::new(), terms }.carry(jobs)
}

/// How a batch is delivered.
struct Delivery<'a> {
    sftp: &'a mut Sftp,
    interrupted: &'a mut Interrupted,
    base: PathBuf,
    /// Directories whose names were synced.
    synced: HashSet<PathBuf>,
    terms: &'a SessionTerms,
}

/// A file over there, read to some point.
struct ReadBack {
    id: RecordId,
    path: PathBuf,
    at: u64,
    hasher: FileHasher,
}

/// Where a file is written.
struct Temp {
    path: PathBuf,
    /// It outlasts a broken connection.
    kept: bool,
    /// Bytes that are there of an earlier session; `None` where there is no such file yet.
    there: Option<u64>,
}

/// What ends the delivery of a batch.
enum SftpTrouble {
    /// One file's.
    File(Verdict),
    /// The line's.
    Line(TransferError),
}

impl From<io::Error> for SftpTrouble {
    fn from(error: io::Error) -> Self {
        Self::File(Verdict::Failed(Failure::Unreadable, format!("it cannot be read: {error}")))
    }
}

impl Delivery<'_> {
    /// Delivers what can be; the error says why nothing can be at all.
    fn carry(mut self, jobs: &[Job]) -> Result<Carried, String> {
        let base = self.base.display().to_string();
        match self.sftp.is_dir(&self.base) {
            Ok(true) => {}
            Ok(false) => {
                return Err(format!("Directory {base} is not there; create or mount it, or correct --data-dir"));
            }
            Err(error) => return Err(format!("Directory {base} cannot be looked at: {error}")),
        }
        while let Some(leftover) = self.interrupted.leftovers.last() {
            match self.sftp.remove(leftover) {
                Err(SftpError::Lost(_) | SftpError::Stalled(_)) => break,
                _ => self.interrupted.leftovers.pop(),
            };
        }
        let mut carried =
            Carried { verdicts: vec![Verdict::Open; jobs.len()], words: String::new(), ended: Ok(None), took: None };
        let mut dirs = HashSet::new();
        for (at, job) in jobs.iter().enumerate() {
            if self.terms.stopping() {
                break;
            }
            if job.is_recalled() {
                continue;
            }
            match self.deliver(job, &mut dirs, &mut carried.words) {
                Ok(verdict) | Err(SftpTrouble::File(verdict)) => {
                    if let Verdict::Proven(sent, _) = &verdict {
                        match sent.literal_bytes {
                            0 => self.terms.found(sent),
                            _ => self.terms.confirmed(sent),
                        }
                    }
                    carried.verdicts[at] = verdict;
                }
                Err(SftpTrouble::Line(error)) => {
                    carried.ended = Err(error);
                    return Ok(carried);
                }
            }
        }
        for refusal in self.sftp.refused() {
            tracing::warn!(base, "The SFTP server does not do all that is wished: {refusal}");
        }
        if carried.verdicts.contains(&Verdict::Refused) && !self.takes_files() {
            return Err(format!("Directory {base} cannot be written to: {}", carried.words.trim_end()));
        }
        Ok(carried)
    }

    fn deliver(&mut self, job: &Job, dirs: &mut HashSet<PathBuf>, words: &mut String) -> Result<Verdict, SftpTrouble> {
        let meta = self.terms.source_metadata(&job.source).map_err(SftpTrouble::File)?;
        let name = job.place.variant(job.variant);
        let place = self.base.join(&name);
        let md5 = Sum::new(&job.md5);
        let mut refuse = |delivery: &Self, error: SftpError| delivery.refuse(error, &name, meta.len(), words);
        match self.sftp.stat(&place).map_err(|error| refuse(self, error))? {
            None => {}
            Some(found) if found.is_file => {
                let begun = self.interrupted.read_back.as_ref().filter(|back| back.id == job.id && back.path == place);
                job.resumes(begun.map_or(0, |back| back.at), found.len);
                let (len, sum) = self.read_back(job, &place).map_err(|error| refuse(self, error))?;
                let same = Some(sum) == md5;
                if same {
                    // Who brought it is not known.
                    let synced = self.sftp.sync_file(&place).and_then(|()| self.sync_way(&place));
                    synced.map_err(|error| refuse(self, error))?;
                    return Ok(Verdict::Proven(Sent { matched_bytes: len, ..Sent::default() }, None));
                }
                if !job.replaces {
                    return Ok(Verdict::Taken);
                }
            }
            Some(_) => return Ok(Verdict::Taken),
        }
        let folder = place.parent().unwrap_or(&self.base);
        if !dirs.contains(folder) {
            match make_way(self.sftp, &self.base, folder, self.terms.settings.chmod.as_ref()) {
                Ok(true) => {}
                Ok(false) => return Err(refuse(self, SftpError::Absent)),
                Err(error) => return Err(refuse(self, error)),
            }
            dirs.insert(folder.to_owned());
        }
        let mut temp = self.temp(job, &place, meta.len()).map_err(|error| refuse(self, error))?;
        let mut outcome = self.write(job, &temp, &place, &meta);
        if matches!(outcome, Ok(Ok(Verdict::Open))) {
            self.discard(&temp).map_err(|error| refuse(self, error))?;
            temp = self.temp(job, &place, meta.len()).map_err(|error| refuse(self, error))?;
            outcome = self.write(job, &temp, &place, &meta);
        }
        let verdict = match outcome {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => {
                let _ = self.discard(&temp);
                return Err(error.into());
            }
            Err(error) => {
                let trouble = refuse(self, error);
                match &trouble {
                    SftpTrouble::File(_) => drop(self.discard(&temp)),
                    SftpTrouble::Line(_) if !temp.kept => self.interrupted.leftovers.push(temp.path),
                    SftpTrouble::Line(_) => {}
                }
                return Err(trouble);
            }
        };
        match verdict {
            Verdict::Proven(..) if !temp.kept => {}
            // The directory is left.
            _ => self.discard(&temp).map_err(|error| refuse(self, error))?,
        }
        Ok(verdict)
    }

    /// Where a file of `len` bytes is written.
    fn temp(&mut self, job: &Job, place: &Path, len: u64) -> Result<Temp, SftpError> {
        let fresh = Temp { path: temporary(place), kept: false, there: None };
        if len < KEPT_LEAST {
            return Ok(fresh);
        }
        let path = self.base.join(unfinished::kept(&self.terms.settings.aside, job));
        let Some(dir) = path.parent() else { return Ok(fresh) };
        self.sftp.make_dir(dir, 0o700)?;
        match self.sftp.stat(&path)? {
            None => Ok(Temp { path, kept: true, there: None }),
            Some(found) if found.is_file && found.len <= len => Ok(Temp { path, kept: true, there: Some(found.len) }),
            Some(found) if found.is_file => {
                self.sftp.remove(&path)?;
                Ok(Temp { path, kept: true, there: None })
            }
            Some(_) => Ok(fresh),
        }
    }

    fn discard(&mut self, temp: &Temp) -> Result<(), SftpError> {
        if temp.kept { unfinished::remove(self.sftp, &temp.path) } else { self.sftp.remove(&temp.path) }
    }

    /// Writes, proves and renames. The inner error is the source's. Open is a file that has turned out to keep the permissions
    /// that it was made with, which are for us alone, or not to go on from what an earlier session had left.
    fn write(
        &mut self,
        job: &Job,
        temp: &Temp,
        place: &Path,
        meta: &Metadata,
    ) -> Result<io::Result<Verdict>, SftpError> {
        let mut source = match self.terms.settings.sources.open(&job.source) {
            Ok(file) => Summed::new(file, self.terms.digests()),
            Err(error) => return Ok(Err(error)),
        };
        let there = temp.there.unwrap_or(0);
        let read =
            self.interrupted.read_back.as_ref().filter(|back| back.id == job.id && back.path == temp.path && there > 0);
        self.terms.begins(&job.source, meta.len());
        job.resumes(there + read.map_or(0, |back| back.at), meta.len());
        if let Err(error) = source.pass(there) {
            return Ok(Err(error));
        }
        let terms = self.terms;
        let mode = terms.file_mode(meta.mode());
        let for_good = self.sftp.keeps_its_own();
        let mut next = |buffer: &mut [u8]| {
            let most = buffer.len().min(terms.settings.rate.piece());
            let n = source.read(&mut buffer[..most])?;
            job.headway.pass(n as u64);
            terms.count(n as u64);
            terms.settings.rate.pay(n, || !terms.stopping());
            Ok(n)
        };
        job.headway.pass(there);
        let written = match temp.there {
            None => self.sftp.create(&temp.path, if for_good { mode } else { 0o600 }, &mut next)?,
            Some(there) => self.sftp.go_on(&temp.path, there, &mut next)?,
        };
        let len = match written {
            Ok(0) => there,
            Ok(written) => {
                // What was read is not all there was.
                self.interrupted.read_back = None;
                there + written
            }
            Err(error) => return Ok(Err(error)),
        };
        let (sum, blake3) = source.finish();
        if Some(sum) != Sum::new(&job.md5) {
            return Ok(Ok(Verdict::Failed(Failure::Changed, CHANGED.into())));
        }
        if self.read_back(job, &temp.path)? != (len, sum) {
            // The beginning may be of an earlier state of the file, or of a disk that lost it: all anew, then.
            if there > 0 {
                return Ok(Ok(Verdict::Open));
            }
            let why = "what the storage node has written is not what was sent; is its disk in order?".to_owned();
            return Ok(Ok(Verdict::Failed(Failure::Refused, why)));
        }
        let mtime = u64::try_from(meta.mtime()).ok();
        if !self.sftp.set_if_it_may_be(&temp.path, mode, mtime)? && !for_good && mode != 0o600 {
            return Ok(Ok(Verdict::Open));
        }
        if job.replaces {
            // The new one is whole and proven beside it.
            self.sftp.remove(place)?;
        }
        Ok(Ok(match self.sftp.rename(&temp.path, place)? {
            true => {
                self.sync_way(place)?;
                let digest = blake3.map(|blake3| Digest { len, blake3 });
                Verdict::Proven(Sent { literal_bytes: len - there, matched_bytes: there, ..Sent::default() }, digest)
            }
            false => Verdict::Taken,
        }))
    }

    /// The name of a copy is to outlast a power cut, with those of the directories on its way, which are synced once.
    fn sync_way(&mut self, place: &Path) -> Result<(), SftpError> {
        for (above, dir) in place.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.base)).enumerate() {
            if above == 0 || !self.synced.contains(dir) {
                self.sftp.sync_dir(dir)?;
                self.synced.insert(dir.to_owned());
            }
        }
        Ok(())
    }

    /// Reads a file back, from where a broken connection has left off.
    fn read_back(&mut self, job: &Job, path: &Path) -> Result<(u64, Sum), SftpError> {
        let begun = self.interrupted.read_back.take().filter(|back| back.id == job.id && back.path == path);
        let begun = begun.unwrap_or_else(|| ReadBack {
            id: job.id,
            path: path.to_owned(),
            at: 0,
            hasher: FileHasher::new(Checksum::Md5),
        });
        let ReadBack { id, path, mut at, mut hasher } = begun;
        job.headway.pass(at);
        let read = self.sftp.read_from(&path, at, &mut |bytes| {
            hasher.update(bytes);
            at += bytes.len() as u64;
            job.headway.pass(bytes.len() as u64);
        });
        match read {
            Ok(_) => Ok((at, hasher.finish())),
            Err(error) => {
                if error.is_of_the_line() {
                    self.interrupted.read_back = Some(ReadBack { id, path, at, hasher });
                }
                Err(error)
            }
        }
    }

    /// Whose trouble it is.
    fn refuse(&self, error: SftpError, name: &str, len: u64, words: &mut String) -> SftpTrouble {
        let error = match error {
            SftpError::Lost(why) => return SftpTrouble::Line(TransferError::Link(io::Error::other(why))),
            SftpError::Stalled(limit) => {
                let why = format!("No answer by SFTP within {limit:?}");
                return SftpTrouble::Line(TransferError::Stalled(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            // A server that gives no reason may have no room.
            SftpError::Failed(_) if self.sftp.room(&self.base).is_some_and(|room| room <= len) => SftpError::Full,
            error => error,
        };
        words.push_str(&format!("{name}: {error}\n"));
        SftpTrouble::File(Verdict::Refused)
    }

    /// Whether the base directory takes files at all.
    fn takes_files(&mut self) -> bool {
        // Into the root itself nothing is written where it is the base.
        if self.base == Path::new("/") {
            return true;
        }
        let probe = self.base.join(PROBE);
        let stands = |sftp: &Sftp| sftp.stat(&probe).is_ok_and(|found| found.is_some());
        // Another session may have one there.
        let made = self.sftp.pieces(&probe, Some(0o600)).and_then(Pieces::close).is_ok() || stands(self.sftp);
        match self.sftp.remove(&probe) {
            Ok(()) => made,
            Err(_) => {
                self.interrupted.leftovers.push(probe);
                false
            }
        }
    }
}

/// Makes a directory beneath the base and those above it that are missing; false where the base is. From below upwards, since
/// mostly none or one is missing.
pub(super) fn make_way(sftp: &mut Sftp, base: &Path, dir: &Path, chmod: Option<&Chmod>) -> Result<bool, SftpError> {
    let above: Vec<&Path> = dir.ancestors().take_while(|dir| *dir != base && dir.starts_with(base)).collect();
    if above.is_empty() {
        return Ok(true);
    }
    let mut missing = 0;
    for dir in &above {
        if make_beneath(sftp, dir, chmod)? {
            break;
        }
        missing += 1;
    }
    if missing == above.len() {
        return Ok(false);
    }
    for dir in above[..missing].iter().rev() {
        if !make_beneath(sftp, dir, chmod)? {
            return Err(SftpError::Absent);
        }
    }
    Ok(true)
}

/// Makes a directory; false where the one above it is not there.
fn make_beneath(sftp: &mut Sftp, dir: &Path, chmod: Option<&Chmod>) -> Result<bool, SftpError> {
    let mode = dir_mode(chmod);
    match sftp.make_dir_blindly(dir, mode) {
        Err(SftpError::Absent) => Ok(false),
        made => {
            if made? && chmod.is_some() {
                // The server's umask may have taken some away.
                sftp.set_if_it_may_be(dir, mode, None)?;
            }
            Ok(true)
        }
    }
}

/// A source that is summed as it is read.
struct Summed {
    file: PatientFile,
    md5: FileHasher,
    blake3: Option<FileHasher>,
}

impl Summed {
    fn new(file: PatientFile, digests: bool) -> Self {
        let blake3 = digests.then(|| FileHasher::new(Checksum::Blake3));
        Self { file, md5: FileHasher::new(Checksum::Md5), blake3 }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.md5.update(&buffer[..n]);
        if let Some(blake3) = &mut self.blake3 {
            blake3.update(&buffer[..n]);
        }
        Ok(n)
    }

    /// Reads so many bytes only to sum them. Should there be fewer, the sum tells.
    fn pass(&mut self, mut bytes: u64) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from(bytes.min(256 * 1024)).unwrap_or_default()];
        while bytes > 0 {
            let most = buffer.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            match self.read(&mut buffer[..most])? {
                0 => break,
                n => bytes -= n as u64,
            }
        }
        Ok(())
    }

    fn finish(self) -> (Sum, Option<Sum>) {
        (self.md5.finish(), self.blake3.map(FileHasher::finish))
    }
}

/// A name beside `place` as rsync gives unfinished files.
fn temporary(place: &Path) -> PathBuf {
    let leaf = place.file_name().unwrap_or_default().as_bytes();
    place.with_file_name(OsString::from_vec(temp_name(leaf, || fastrand::alphanumeric() as u8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_fit_and_stand_beside() {
        for name in ["a/f.npy".to_owned(), "a/.hidden".into(), format!("a/{}", "é".repeat(127))] {
            let temp = temporary(Path::new(&name));
            let leaf = temp.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(temp.parent(), Some(Path::new("a")));
            assert!(leaf.starts_with('.') && !leaf.starts_with("..") && leaf.len() <= 255, "{leaf}");
        }
    }
}
