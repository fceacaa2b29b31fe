//! A batch written by SFTP, for far ends where no program serves: each file under a temporary name, read back whole,
//! renamed only with the registered MD5, and never over another file.

use super::batch::{CHANGED, Fate, Flown, Manner, file_mode, source_metadata};
use super::flight::Job;
use crate::status::Failure;
use crate::throttle::Rate;
use crate::transfer::TransferError;
use crate::transfer::send::{Digest, Sent};
use crate::transport::ssh::sftp::{Sftp, SftpError};
use protocol::checksum::{Checksum, FileHasher, Sum};
use protocol::chmod::Chmod;
use std::collections::HashSet;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Permissions of directories where nothing is said.
const DIR_MODE: u32 = 0o755;

/// How a batch is delivered.
pub(super) struct Delivery<'a> {
    pub(super) sftp: &'a mut Sftp,
    /// Unfinished files that a broken connection left there.
    pub(super) leftovers: &'a mut Vec<PathBuf>,
    pub(super) base: PathBuf,
    pub(super) rate: &'a Rate,
    pub(super) manner: &'a Manner<'a>,
}

/// What ends the delivery of a batch.
enum Trouble {
    /// One file's.
    File(Fate),
    /// The line's.
    Line(TransferError),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::File(Fate::Failed(Failure::Unreadable, format!("it cannot be read: {error}")))
    }
}

impl Delivery<'_> {
    /// Delivers what can be; the error says why nothing can be at all.
    pub(super) fn fly(mut self, jobs: &[Job]) -> Result<Flown, String> {
        let base = self.base.display().to_string();
        match self.sftp.is_dir(&self.base) {
            Ok(true) => {}
            Ok(false) => {
                return Err(format!("Directory {base} is not there; create or mount it, or correct --data-dir"));
            }
            Err(error) => return Err(format!("Directory {base} cannot be looked at: {error}")),
        }
        while let Some(leftover) = self.leftovers.last() {
            match self.sftp.remove(leftover) {
                Err(SftpError::Lost(_) | SftpError::Stalled(_)) => break,
                _ => self.leftovers.pop(),
            };
        }
        let mut flown = Flown { fates: vec![Fate::Open; jobs.len()], words: String::new(), ended: Ok(None) };
        let mut dirs = HashSet::new();
        for (at, job) in jobs.iter().enumerate() {
            if (self.manner.stopping)() {
                break;
            }
            match self.deliver(job, &mut dirs, &mut flown.words) {
                Ok(fate) | Err(Trouble::File(fate)) => {
                    if let Fate::Proven(sent, _) = &fate {
                        (self.manner.confirmed)(sent, sent.literal_bytes == 0);
                    }
                    flown.fates[at] = fate;
                }
                Err(Trouble::Line(error)) => {
                    flown.ended = Err(error);
                    return Ok(flown);
                }
            }
        }
        if flown.fates.contains(&Fate::Refused) && !self.takes_files() {
            return Err(format!("Directory {base} cannot be written to: {}", flown.words.trim_end()));
        }
        Ok(flown)
    }

    fn deliver(&mut self, job: &Job, dirs: &mut HashSet<PathBuf>, words: &mut String) -> Result<Fate, Trouble> {
        let meta = source_metadata(self.manner.sources, &job.source).map_err(Trouble::File)?;
        let name = job.place.variant(job.variant);
        let place = self.base.join(&name);
        let md5 = Sum::new(&job.md5);
        let mut refuse = |delivery: &Self, error: SftpError| delivery.refuse(error, &name, meta.len(), words);
        match self.sftp.stat(&place).map_err(|error| refuse(self, error))? {
            None => {}
            Some(found) if found.is_file => {
                let (len, sum) = self.read_back(&place).map_err(|error| refuse(self, error))?;
                let same = Some(sum) == md5;
                return Ok(if same {
                    Fate::Proven(Sent { matched_bytes: len, literal_bytes: 0 }, None)
                } else {
                    Fate::Taken
                });
            }
            Some(_) => return Ok(Fate::Taken),
        }
        make_way(self.sftp, &self.base, &name, self.manner.chmod, dirs).map_err(|error| refuse(self, error))?;
        let temp = temporary(&place);
        let outcome = self.write(job, &temp, &place, &meta);
        let fate = match outcome {
            Ok(Ok(fate)) => fate,
            Ok(Err(error)) => {
                let _ = self.sftp.remove(&temp);
                return Err(error.into());
            }
            Err(error) => {
                let trouble = refuse(self, error);
                match &trouble {
                    Trouble::File(_) => drop(self.sftp.remove(&temp)),
                    Trouble::Line(_) => self.leftovers.push(temp),
                }
                return Err(trouble);
            }
        };
        if !matches!(fate, Fate::Proven(..)) {
            self.sftp.remove(&temp).map_err(|error| refuse(self, error))?;
        }
        Ok(fate)
    }

    /// Writes, proves and renames. The inner error is the source's.
    fn write(&mut self, job: &Job, temp: &Path, place: &Path, meta: &Metadata) -> Result<io::Result<Fate>, SftpError> {
        let mut file = match self.manner.sources.open(&job.source) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let md5 = Sum::new(&job.md5);
        let (progress, rate) = (self.manner.progress, self.rate);
        let mut hasher = FileHasher::new(Checksum::Md5);
        let mut blake3 = self.manner.digests.then(|| FileHasher::new(Checksum::Blake3));
        let written = self.sftp.create(temp, 0o600, &mut |buffer| {
            let n = loop {
                match file.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            hasher.update(&buffer[..n]);
            if let Some(blake3) = &mut blake3 {
                blake3.update(&buffer[..n]);
            }
            progress(n as u64);
            rate.pay(n);
            Ok(n)
        })?;
        let len = match written {
            Ok(len) => len,
            Err(error) => return Ok(Err(error)),
        };
        let sum = hasher.finish();
        if Some(sum) != md5 {
            return Ok(Ok(Fate::Failed(Failure::Changed, CHANGED.into())));
        }
        if self.read_back(temp)? != (len, sum) {
            let why = "what the storage node has written is not what was sent; is its disk in order?".to_owned();
            return Ok(Ok(Fate::Failed(Failure::Refused, why)));
        }
        let mtime = u64::try_from(meta.mtime()).ok();
        self.sftp.set(temp, Some(file_mode(meta.mode(), self.manner.chmod)), mtime)?;
        Ok(Ok(match self.sftp.rename(temp, place)? {
            true => {
                let digest = blake3.map(|blake3| Digest { len, blake3: blake3.finish() });
                Fate::Proven(Sent { literal_bytes: len, matched_bytes: 0 }, digest)
            }
            false => Fate::Taken,
        }))
    }

    fn read_back(&mut self, path: &Path) -> Result<(u64, Sum), SftpError> {
        let mut hasher = FileHasher::new(Checksum::Md5);
        let len = self.sftp.read(path, &mut |bytes| hasher.update(bytes))?;
        Ok((len, hasher.finish()))
    }

    /// Whose trouble it is.
    fn refuse(&self, error: SftpError, name: &str, len: u64, words: &mut String) -> Trouble {
        let error = match error {
            SftpError::Lost(why) => return Trouble::Line(TransferError::Link(io::Error::other(why))),
            SftpError::Stalled(limit) => {
                let why = format!("No answer by SFTP within {limit:?}");
                return Trouble::Line(TransferError::Stalled(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            // A server that gives no reason may have no room.
            SftpError::Failed(_) if self.sftp.room(&self.base).is_some_and(|room| room <= len) => SftpError::Full,
            error => error,
        };
        words.push_str(&format!("{name}: {error}\n"));
        Trouble::File(Fate::Refused)
    }

    /// Whether the base directory takes files at all.
    fn takes_files(&mut self) -> bool {
        let probe = temporary(&self.base.join("archiver-probe"));
        let made = self.sftp.create(&probe, 0o600, &mut |_| Ok(0)).is_ok();
        made && self.sftp.remove(&probe).is_ok()
    }
}

/// Makes the directories on the way to `name` that are missing; `dirs` are known to be there.
pub(super) fn make_way(
    sftp: &Sftp,
    base: &Path,
    name: &str,
    chmod: Option<&Chmod>,
    dirs: &mut HashSet<PathBuf>,
) -> Result<(), SftpError> {
    for (at, _) in name.match_indices('/') {
        let dir = base.join(&name[..at]);
        if dirs.contains(&dir) {
            continue;
        }
        let mode = chmod.map_or(DIR_MODE, |chmod| chmod.apply(DIR_MODE, true, 0o022));
        if sftp.make_dir(&dir, mode)? && chmod.is_some() {
            // The server's umask may have taken some away.
            sftp.set(&dir, Some(mode), None)?;
        }
        dirs.insert(dir);
    }
    Ok(())
}

/// A name beside `place` as rsync gives unfinished files.
fn temporary(place: &Path) -> PathBuf {
    let random: String = std::iter::repeat_with(fastrand::alphanumeric).take(6).collect();
    let name = place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bare = name.strip_prefix('.').unwrap_or(&name);
    let mut end = bare.len().min(255 - 8);
    while !bare.is_char_boundary(end) {
        end -= 1;
    }
    place.with_file_name(format!(".{}.{random}", &bare[..end]))
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
