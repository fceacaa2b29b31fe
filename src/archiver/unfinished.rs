//! Files that need more than one session to arrive.
//!
//! What a broken session has brought of a file stays at the far end, in a directory of ours beside the file's place, and the
//! next session goes on from there. It is a basis and nothing more: what counts is the proof of the whole file. It goes when
//! the file gets its name, when its row is given up, when its row does not come any more, and when the disk is full.

use super::flight::Job;
use super::layout::RemotePath;
use crate::catalog::RecordId;
use crate::transfer::dest::Dest;
pub(super) use crate::transfer::fetch::KEPT_LEAST;
use crate::transport::Connect;
use crate::transport::ssh::sftp::{Sftp, SftpError};
use protocol::checksum::{Checksum, FileHasher};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How the directories begin in which unfinished files are kept.
const ASIDE: &str = ".archiver-partial";
/// Characters that tell one archiver from another.
const ID: usize = 8;
/// Rows whose unfinished files are remembered.
const STRAYS_MOST: usize = 10_000;
/// A row that has not come again for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Bytes of paths in one command.
const COMMAND_MOST: usize = 64 * 1024;

/// The name of the directories for unfinished files of one archiver, which `identity` tells from others: what two of them
/// write to one place must not meet.
pub(crate) fn aside_of(identity: &str) -> String {
    let mut hasher = FileHasher::new(Checksum::Blake3);
    hasher.update(identity.as_bytes());
    let sum = hasher.finish().to_string();
    format!("{ASIDE}-{}", &sum[..sum.len().min(ID)])
}

/// Whether a directory may be one of those: some archiver's, for the names themselves or a numbered variant.
pub(crate) fn is_aside(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(ASIDE).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let (id, variant) = rest.split_once('.').map_or((rest, None), |(id, variant)| (id, Some(variant)));
    let number = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && variant.is_none_or(number)
}

/// The unfinished files that nobody may come back to.
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of rows that were left, and when.
    left: HashMap<RecordId, (Unfinished, Instant)>,
    /// To be removed.
    due: Vec<Unfinished>,
}

/// An unfinished file, by the name that it is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfinished {
    name: String,
    variant: u32,
}

impl Strays {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row is taken up.
    pub(super) fn take_up(&self, jobs: &[Job]) {
        let mut known = self.lock();
        for job in jobs {
            known.left.remove(&job.id);
        }
    }

    /// A row is left for a later pass, if it comes again.
    pub(super) fn release(&self, job: &Job) {
        let mut known = self.lock();
        if job.headway.has_begun() && known.left.len() < STRAYS_MOST {
            known.left.insert(job.id, (Unfinished::of(job), Instant::now()));
        }
    }

    /// What there is of a row is of no use any more.
    pub(super) fn give_up(&self, job: &Job) {
        let mut known = self.lock();
        if known.due.len() < STRAYS_MOST {
            known.due.push(Unfinished::of(job));
        }
    }

    /// A row that was going there is given up without having been taken up.
    pub(super) fn give_up_row(&self, id: RecordId, place: &RemotePath) {
        let mut known = self.lock();
        // Where an earlier process left it, it was most likely the name itself.
        let of_this_run = known.left.remove(&id).map(|(place, _)| place);
        let place = of_this_run.unwrap_or_else(|| Unfinished { name: place.variant(0), variant: 0 });
        if known.due.len() < STRAYS_MOST {
            known.due.push(place);
        }
    }

    /// The disk is full: what waits for rows that were left must make room as well.
    pub(super) fn make_room<'j>(&self, jobs: impl Iterator<Item = &'j Job>) {
        let mut known = self.lock();
        let Known { left, due } = &mut *known;
        due.extend(left.drain().map(|(_, (place, _))| place));
        due.extend(jobs.filter(|job| job.headway.has_begun()).map(Unfinished::of));
    }

    /// What is to be removed now.
    pub(super) fn due(&self) -> Vec<Unfinished> {
        let mut known = self.lock();
        let Known { left, due } = &mut *known;
        let gone = left.extract_if(|_, (_, since)| since.elapsed() >= GONE_AFTER);
        due.extend(gone.map(|(_, (place, _))| place));
        std::mem::take(due)
    }
}

impl Unfinished {
    fn of(job: &Job) -> Self {
        Self { name: job.place.variant(job.variant), variant: job.variant }
    }

    /// The unfinished file, beneath the archive's base.
    pub(super) fn kept(&self, aside: &str) -> PathBuf {
        let path = Path::new(&self.name);
        path.with_file_name(variant_of(aside, self.variant)).join(path.file_name().unwrap_or_default())
    }
}

/// The directory for unfinished files of one variant of their names: a file's first variant may have the very name that
/// another file is given.
pub(super) fn variant_of(aside: &str, variant: u32) -> String {
    match variant {
        0 => aside.to_owned(),
        number => format!("{aside}.{number}"),
    }
}

/// Where the unfinished file of a job is kept, beneath the archive's base.
pub(super) fn kept(aside: &str, job: &Job) -> PathBuf {
    Unfinished::of(job).kept(aside)
}

/// Removes an unfinished file, and its directory if nothing else is in it.
pub(super) fn remove(sftp: &Sftp, path: &Path) -> Result<(), SftpError> {
    sftp.remove(path)?;
    // Others may have theirs in it.
    match path.parent().map(|aside| sftp.remove_dir(aside)) {
        Some(Err(error @ (SftpError::Lost(_) | SftpError::Stalled(_)))) => Err(error),
        _ => Ok(()),
    }
}

/// Removes unfinished files of an archive on this machine.
pub(super) fn clear_here(data_dir: &str, aside: &str, files: &[Unfinished]) {
    for file in files {
        if let Ok(dest) = Dest::open(data_dir.as_ref()) {
            dest.keeping(&variant_of(aside, file.variant)).drop_partial(file.name.as_bytes());
        }
    }
}

/// Removes unfinished files of an archive at the far end, by a command where the account may run such.
pub(super) fn clear_there(connect: &mut dyn Connect, paths: Vec<PathBuf>) {
    // Nothing behind a symlink that somebody else has put there.
    let script = "s=0; for f; do d=${f%/*}; [ -L \"$d\" ] || { rm -f -- \"$f\"; rmdir -- \"$d\"; } 2>/dev/null; ! [ -f \"$f\" ] || s=1; done; exit $s";
    let start = || -> Vec<OsString> { ["sh", "-c", script, "sh"].map(Into::into).into() };
    let (mut words, mut bytes) = (start(), 0);
    let mut commands = Vec::new();
    for path in paths {
        bytes += path.as_os_str().len();
        words.push(path.into_os_string());
        if bytes >= COMMAND_MOST {
            commands.push(std::mem::replace(&mut words, start()));
            bytes = 0;
        }
    }
    commands.push(words);
    for words in commands.iter().filter(|words| words.len() > 4) {
        // The connection may be the one that broke; the next is new.
        let cleared = connect.run(words).or_else(|_| connect.run(words));
        if cleared.is_ok_and(|output| output.status == Some(0)) {
            continue;
        }
        // Not every account may run such commands.
        let paths = words.iter().skip(4).map(Path::new);
        let by_sftp =
            || connect.sftp().map(|sftp| paths.map(|path| remove(&sftp, path)).filter(Result::is_err).count());
        match by_sftp() {
            Ok(0) => {}
            Ok(left) => tracing::debug!(left, "Unfinished files stay at the far end"),
            Err(error) => tracing::debug!("Unfinished files stay at the far end: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archivers_are_told_apart_and_variants_too() {
        let (one, other) = (aside_of("mysql://db/a files"), aside_of("mysql://db/b files"));
        assert!(one != other && one.starts_with(".archiver-partial-") && one.len() == ASIDE.len() + 9, "{one}");
        assert!(is_aside(&one) && is_aside(&variant_of(&one, 12)));
        for wrong in
            ["", ".archiver-partial", ".archiver-partial-0123456/", ".archiver-partial-01234567/..", "..", "/etc"]
        {
            assert!(!is_aside(wrong) && !is_aside(&format!("{one}{wrong}x")), "{wrong}");
        }
        let place = |name: &str, variant| Unfinished { name: name.into(), variant };
        assert_eq!(place("a/f.1", 0).kept(".x"), Path::new("a/.x/f.1"));
        assert_eq!(place("a/f.1", 1).kept(".x"), Path::new("a/.x.1/f.1"));
        assert_eq!(place("f", 0).kept(".x"), Path::new(".x/f"));
    }
}
