//! Whether a local file may go, and its removal. Only what still is what was proven goes: the very file that was read, under
//! its own name and by way of no link.

use crate::archiver::Sources;
use crate::archiver::origins::{Lack, look};
use crate::catalog::sqlite::Prunable;
use crate::clock::boot_time;
use crate::disk::digest::sum_of;
use crate::status::Failure;
use crate::transfer::send::FileContent;
use protocol::checksum::{Checksum, Sum};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Whether files are deleted, or only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PruneMode {
    #[default]
    Deleting,
    Telling,
}

/// What a file is deleted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Its time is over.
    Age,
    /// The room that it takes.
    Room,
}

/// How long the table's word is good that a file may go: reading a large one takes longer, and so may a machine sleep.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// When the table was asked, by the clock that goes on while the machine sleeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedAt(Duration);

impl AskedAt {
    pub(super) fn now() -> Self {
        Self(boot_time())
    }

    fn is_long_ago(self) -> bool {
        boot_time().saturating_sub(self.0) > GOOD_FOR
    }

    #[cfg(test)]
    pub(super) fn long_ago() -> Self {
        Self(boot_time().saturating_sub(GOOD_FOR * 2))
    }
}

/// What became of a file.
pub(super) enum Removed {
    /// It is gone, or would be, which gives so many bytes.
    Freed(u64),
    /// It was not there any more.
    Gone,
    Kept(Kept),
    /// It may go, by the table's word of long ago; so it stood when it was read.
    Late(Kept),
}

/// Why a file stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) why: String,
    /// How it stood, where it was read.
    pub(super) stand: Option<Stand>,
    /// Its bytes are not the proven ones.
    pub(super) changed: bool,
    pub(super) folder: FolderStand,
}

/// What is known of the folder of a file that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FolderStand {
    There,
    /// Its file system does not answer: nothing is known of its files, however long that lasts.
    Silent,
    /// It is not there, or the file system that it was on is not.
    Away,
}

/// What tells whether a file is still the same without reading it: whoever writes to it changes its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stand([i64; 2], [u64; 3], [i64; 2]);

impl Stand {
    fn of(meta: &Metadata) -> Self {
        Self([meta.mtime(), meta.mtime_nsec()], [meta.dev(), meta.ino(), meta.len()], [meta.ctime(), meta.ctime_nsec()])
    }
}

/// Why a file is not removed.
#[derive(Debug, thiserror::Error)]
enum NotRemoved {
    #[error("it has changed since its copy was proven")]
    Changed,
    #[error("it was changed while it was read")]
    Changing,
    #[error("the table was asked too long ago")]
    Late,
    #[error("{0}")]
    Unfit(String),
}

/// What is done to a file, what for, and when the table said that it may go.
pub(super) type RemovalTask = (Purpose, PruneMode, AskedAt);

/// Removes the file if it may go; `before` says how it stayed when it was tried last.
pub(super) fn remove(sources: &Sources, file: &Prunable, before: Option<Kept>, task: RemovalTask) -> Removed {
    let folder = FolderStand::There;
    let mut stand = None;
    let kept = |why: String, stand, changed| Removed::Kept(Kept { why, stand, changed, folder });
    match try_to_remove(sources, file, before, task, &mut stand) {
        Ok(Ok(freed)) => Removed::Freed(freed),
        Ok(Err(why @ NotRemoved::Late)) => Removed::Late(Kept { why: why.to_string(), stand, changed: false, folder }),
        Ok(Err(why)) => kept(why.to_string(), stand, matches!(why, NotRemoved::Changed)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::TimedOut) => {
            match look(sources, &file.path) {
                Err(Lack { kind, place: Some(place), .. }) => {
                    let why = format!("folder {} {}", place.folder.display(), place.why);
                    let folder = if kind == Failure::Missing { FolderStand::Away } else { FolderStand::Silent };
                    Removed::Kept(Kept { why, stand: None, changed: false, folder })
                }
                _ if error.kind() == io::ErrorKind::NotFound => Removed::Gone,
                _ => kept(error.to_string(), stand, false),
            }
        }
        Err(error) => kept(error.to_string(), stand, false),
    }
}

/// Whether what a file holds is read before it is said that it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PruneReading {
    Nothing,
    Bytes,
}

/// What room it would give to delete a file; or why it may not go. Nothing is changed.
pub(crate) fn would_free(sources: &Sources, file: &Prunable, reading: PruneReading) -> Result<u64, String> {
    let absent = || "it is not there any more".to_owned();
    match reading {
        PruneReading::Bytes => match remove(sources, file, None, (Purpose::Age, PruneMode::Telling, AskedAt::now())) {
            Removed::Freed(bytes) => Ok(bytes),
            Removed::Gone => Err(absent()),
            Removed::Kept(kept) | Removed::Late(kept) => Err(kept.why),
        },
        PruneReading::Nothing => match fit(sources, file) {
            Ok(Ok(meta)) if meta.nlink() > 1 => Ok(0),
            Ok(Ok(meta)) => Ok(meta.blocks().saturating_mul(512)),
            Ok(Err(why)) => Err(why),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(absent()),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn try_to_remove(
    sources: &Sources,
    file: &Prunable,
    before: Option<Kept>,
    (purpose, doing, asked): RemovalTask,
    stand: &mut Option<Stand>,
) -> io::Result<Result<u64, NotRemoved>> {
    let meta = match fit(sources, file)? {
        Ok(meta) => meta,
        Err(why) => return Ok(Err(NotRemoved::Unfit(why))),
    };
    if purpose == Purpose::Room && meta.nlink() > 1 {
        let why = format!("it has {} names, so that to delete one of them gives no room", meta.nlink());
        return Ok(Err(NotRemoved::Unfit(why)));
    }
    if let Err(why) = proven(sources, file, &meta, before, stand)? {
        return Ok(Err(why));
    }
    let freed = if meta.nlink() > 1 { 0 } else { meta.blocks().saturating_mul(512) };
    if doing == PruneMode::Telling {
        return Ok(Ok(freed));
    }
    let read = *stand;
    // Looked at once more, beneath the held folder in which it is removed.
    match sources.remove_if(&file.path, move |meta| Some(Stand::of(meta)) == read && !asked.is_long_ago())? {
        true => Ok(Ok(freed)),
        false if asked.is_long_ago() => Ok(Err(NotRemoved::Late)),
        false => Ok(Err(NotRemoved::Changing)),
    }
}

/// Looks whether the file may go, apart from what is in it; else why not.
fn fit(sources: &Sources, file: &Prunable) -> io::Result<Result<Metadata, String>> {
    let meta = sources.metadata_of_name(&file.path)?;
    if meta.is_symlink() {
        return Ok(Err("it is a symlink, and nothing is deleted by way of one".to_owned()));
    }
    if !meta.is_file() {
        return Ok(Err("it is not a regular file".to_owned()));
    }
    for rival in &file.rivals {
        // A file that lies elsewhere may be the same by way of a link on the path to either.
        let seen = sources.within(rival, |_, rival| std::fs::metadata(rival));
        match seen {
            Ok(seen) if (seen.dev(), seen.ino()) != (meta.dev(), meta.ino()) => {}
            Ok(_) => return Ok(Err(format!("it is also {}, for which a row still waits", rival.display()))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => {
                let rival = rival.display();
                return Ok(Err(format!(
                    "a row waits for {rival}, and whether that is this file cannot be seen: {error}"
                )));
            }
        }
    }
    Ok(Ok(meta))
}

/// Whether the file has the proven bytes, and is under its name what was read; else why not. One that stands as it stood
/// when it was read last is not read again.
fn proven(
    sources: &Sources,
    file: &Prunable,
    meta: &Metadata,
    before: Option<Kept>,
    stand: &mut Option<Stand>,
) -> io::Result<Result<(), NotRemoved>> {
    let now = Stand::of(meta);
    if let Some(before) = before.filter(|before| before.stand == Some(now)) {
        *stand = Some(now);
        return Ok(if before.changed { Err(NotRemoved::Changed) } else { Ok(()) });
    }
    let mut open = sources.open(&file.path)?;
    if Stand::of(&open.metadata()?) != now {
        return Ok(Err(NotRemoved::Changing));
    }
    let right = Sum::new(&file.md5) == Some(sum_of(&mut open, Checksum::Md5)?.0);
    // Whoever writes to it right now changes its time.
    if Stand::of(&sources.metadata_of_name(&file.path)?) != now {
        return Ok(Err(NotRemoved::Changing));
    }
    *stand = Some(now);
    Ok(if right { Ok(()) } else { Err(NotRemoved::Changed) })
}
