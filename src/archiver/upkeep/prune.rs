//! Deletes local files whose copies are proven. Only what still is what was proven: a file that has changed since, or has
//! been replaced, stays, and the log says so once. What stays is looked at again after pauses that grow.

use crate::archiver::Sources;
use crate::archiver::control::Control;
use crate::archiver::origins::{Lack, look};
use crate::catalog::sqlite::{Prunable, SqliteCatalog};
use crate::catalog::{CatalogError, RecordId};
use crate::clock::unix_now;
use crate::disk::digest::sum_of;
use crate::status::Failure;
use crate::transfer::send::FileContent;
use protocol::checksum::{Checksum, Sum};
use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// Files that are looked for together: for each round the table is gone through once.
const ROUND: usize = 20_000;
/// Files of one transaction.
const PAGE: usize = 64;
/// The first pause after a file could not go, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(6 * 3600)];
/// Files that stay and are remembered; further ones are tried each time.
const KEPT_MOST: usize = 100_000;

/// What became of a file.
enum Pruned {
    Removed,
    /// It was not there any more.
    Gone,
    Kept(Kept),
}

/// Why a file stays.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    why: String,
    /// How it stood, where it was read.
    stand: Option<Stand>,
    /// Its bytes are not the proven ones.
    changed: bool,
    folder: FolderStand,
}

/// What is known of the folder of a file that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FolderStand {
    There,
    /// Its file system does not answer: nothing is known of its files, however long that lasts.
    Silent,
    /// It is not there, or the file system that it was on is not.
    Away,
}

/// What tells whether a file is still the same without reading it: whoever writes to it changes its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stand([i64; 2], [u64; 3], [i64; 2]);

impl Stand {
    fn of(meta: &Metadata) -> Self {
        Self([meta.mtime(), meta.mtime_nsec()], [meta.dev(), meta.ino(), meta.len()], [meta.ctime(), meta.ctime_nsec()])
    }
}

/// The files that are due and stay.
#[derive(Default)]
pub(super) struct Stays {
    stays: HashMap<RecordId, Stay>,
    /// The place that is away, as it was told last: once for all its files.
    away: Option<String>,
}

struct Stay {
    kept: Kept,
    pause: Duration,
    until: Instant,
}

impl Stays {
    /// Whether a file may be tried now.
    fn allows(&self, id: RecordId) -> bool {
        self.stays.get(&id).is_none_or(|stay| stay.until <= Instant::now())
    }

    /// Whether a place has been away for so long that its files count as gone.
    fn is_gone(&self, id: RecordId, kept: &Kept) -> bool {
        let is_away = |kept: &Kept| kept.folder == FolderStand::Away;
        is_away(kept) && self.stays.get(&id).is_some_and(|stay| is_away(&stay.kept) && stay.pause == PAUSES[1])
    }

    /// A file stays again; true where that is news.
    fn keep(&mut self, id: RecordId, kept: Kept) -> bool {
        let before = self.stays.get(&id);
        let mut news = before.is_none_or(|stay| stay.kept.why != kept.why);
        if news && kept.folder != FolderStand::There {
            news = self.away.replace(kept.why.clone()).is_none_or(|told| told != kept.why);
        }
        let pause = before.map_or(PAUSES[0], |stay| (stay.pause * 2).min(PAUSES[1]));
        if before.is_some() || self.stays.len() < KEPT_MOST {
            self.stays.insert(id, Stay { kept, pause, until: Instant::now() + pause });
        }
        news
    }
}

/// Deletes what may go; returns how long the table was gone through.
pub(super) async fn prune(
    table: &SqliteCatalog,
    sources: &Sources,
    age: Duration,
    stays: &mut Stays,
    control: &Control,
) -> Result<Duration, CatalogError> {
    let mut after = Some(RecordId(i64::MIN));
    let mut scanned = Duration::ZERO;
    while let Some(above) = after {
        let began = Instant::now();
        let (mut files, next) = table.due(above, unix_now() - age.as_secs_f64(), ROUND).await?;
        files.retain(|file| stays.allows(file.id));
        let mut seen = None;
        if !files.is_empty() {
            let (unneeded, last) = table.unneeded(files, None).await?;
            (files, seen) = (unneeded, Some(last));
        }
        scanned += began.elapsed();
        after = next;
        while !files.is_empty() {
            if control.stop().is_stopped() {
                return Ok(scanned);
            }
            let page = files.drain(..PAGE.min(files.len())).collect();
            // Somebody may have registered one of them again meanwhile.
            let (page, last) = table.unneeded(page, seen).await?;
            seen = Some(last);
            delete(table, sources, page, stays, control).await?;
        }
    }
    Ok(scanned)
}

async fn delete(
    table: &SqliteCatalog,
    sources: &Sources,
    files: Vec<Prunable>,
    stays: &mut Stays,
    control: &Control,
) -> Result<(), CatalogError> {
    let files: Vec<_> = files
        .into_iter()
        .map(|file| {
            let before = stays.stays.get(&file.id).map(|stay| stay.kept.clone());
            (file, before)
        })
        .collect();
    let (stop, sources) = (control.stop().clone(), sources.clone());
    control.progress().set_deleting(true);
    let deleting = tokio::task::spawn_blocking(move || {
        let files = files.into_iter().take_while(|_| !stop.is_stopped());
        files.map(|(file, before)| (remove(&sources, &file, before), file)).collect::<Vec<_>>()
    });
    let done = deleting.await.unwrap_or_default();
    control.progress().set_deleting(false);
    let mut removed = Vec::new();
    for (pruned, file) in done {
        let path = file.path.display().to_string();
        match pruned {
            Pruned::Removed => {
                tracing::info!(event = "deleted", id = file.id.0, path, "Deleted here; its copy is proven");
                removed.push((file, unix_now()));
            }
            // As SupRsync has it.
            Pruned::Gone => removed.push((file, 0.0)),
            Pruned::Kept(kept) if stays.is_gone(file.id, &kept) => removed.push((file, 0.0)),
            Pruned::Kept(kept) => {
                let why = kept.why.clone();
                match stays.keep(file.id, kept) {
                    true => tracing::warn!(
                        event = "not_deleted",
                        id = file.id.0,
                        path,
                        "Not deleted: {why}; it is tried again now and then"
                    ),
                    false => tracing::debug!(id = file.id.0, path, "Still not deleted: {why}"),
                }
                continue;
            }
        }
    }
    for (file, _) in &removed {
        stays.stays.remove(&file.id);
    }
    // What was deleted is recorded also when we are to stop: else the row would say that it is still there.
    table.removed(removed).await
}

fn remove(sources: &Sources, file: &Prunable, before: Option<Kept>) -> Pruned {
    let folder = FolderStand::There;
    let kept = |why: String, stand, changed| Pruned::Kept(Kept { why, stand, changed, folder });
    let mut stand = None;
    let removed = proven(sources, file, before, &mut stand).and_then(|verdict| match verdict {
        Ok(()) => sources.remove(&file.path).map(|()| Pruned::Removed),
        Err(why) => Ok(kept(why.into(), stand, true)),
    });
    match removed {
        Ok(pruned) => pruned,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::TimedOut) => {
            match look(sources, &file.path) {
                Err(Lack { kind, place: Some(place), .. }) => {
                    let why = format!("folder {} {}", place.folder.display(), place.why);
                    let folder = if kind == Failure::Missing { FolderStand::Away } else { FolderStand::Silent };
                    Pruned::Kept(Kept { why, stand: None, changed: false, folder })
                }
                _ if error.kind() == io::ErrorKind::NotFound => Pruned::Gone,
                _ => kept(error.to_string(), stand, false),
            }
        }
        Err(error) => kept(error.to_string(), stand, false),
    }
}

/// Whether the file has the proven bytes, and is under its name what was read; else why not. One that stands as it stood
/// when it was read last is not read again.
fn proven(
    sources: &Sources,
    file: &Prunable,
    before: Option<Kept>,
    stand: &mut Option<Stand>,
) -> io::Result<Result<(), &'static str>> {
    const CHANGED: &str = "it has changed since its copy was proven";
    let now = Stand::of(&sources.metadata(&file.path)?);
    if let Some(before) = before.filter(|before| before.stand == Some(now)) {
        *stand = Some(now);
        return Ok(if before.changed { Err(CHANGED) } else { Ok(()) });
    }
    let mut open = sources.open(&file.path)?;
    let first = Stand::of(&open.metadata()?);
    let right = Sum::new(&file.md5) == Some(sum_of(&mut open, Checksum::Md5)?.0);
    // Whoever writes to it right now changes its time.
    if Stand::of(&sources.metadata(&file.path)?) != first {
        return Ok(Err("it was changed while it was read"));
    }
    *stand = Some(first);
    Ok(if right { Ok(()) } else { Err(CHANGED) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_folder_that_is_away_count_as_gone_only_when_it_stays_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = |id, name: &str| Prunable { id: RecordId(id), path: folder.path().join(name), md5: [1; 16] };
        let sources = Sources::default();
        assert!(matches!(remove(&sources, &file(1, "gone"), None), Pruned::Gone));
        let mut stays = Stays::default();
        let mut told = 0;
        for id in [2, 3] {
            let Pruned::Kept(kept) = remove(&sources, &file(id, "away/f"), None) else { panic!("counts as gone") };
            assert!(!stays.is_gone(RecordId(id), &kept));
            told += usize::from(stays.keep(RecordId(id), kept.clone()));
            while stays.stays[&RecordId(id)].pause < PAUSES[1] {
                assert!(!stays.is_gone(RecordId(id), &kept));
                stays.keep(RecordId(id), kept.clone());
            }
            assert!(stays.is_gone(RecordId(id), &kept));
        }
        assert_eq!(told, 1, "once for all files of the folder");
    }

    /// What hangs is not gone, however long it hangs; and it is said once for all that is on it.
    #[test]
    fn files_of_a_file_system_that_does_not_answer_never_count_as_gone() {
        let sources = Sources::default().answering_within(Duration::from_millis(20));
        let file = |id| Prunable { id: RecordId(id), path: "/no/such/folder/f".into(), md5: [1; 16] };
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let hung = sources.within(&file(1).path, move |_, _| Ok(ended.recv().is_ok()));
        assert_eq!(hung.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut stays = Stays::default();
        let mut told = 0;
        for id in [1, 2] {
            let Pruned::Kept(kept) = remove(&sources, &file(id), None) else { panic!("counts as gone") };
            assert!(kept.why.contains("/no/such/folder has not answered"), "{kept:?}");
            told += usize::from(stays.keep(RecordId(id), kept.clone()));
            while stays.stays[&RecordId(id)].pause < PAUSES[1] {
                stays.keep(RecordId(id), kept.clone());
            }
            assert!(!stays.is_gone(RecordId(id), &kept));
        }
        assert_eq!(told, 1);
        drop(end);
    }

    #[test]
    fn what_stays_is_said_once_and_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "other bytes").unwrap();
        let file = Prunable { id: RecordId(1), path: path.clone(), md5: [1; 16] };
        let sources = Sources::default();
        let Pruned::Kept(kept) = remove(&sources, &file, None) else { panic!("deleted") };
        assert!(kept.changed && kept.stand.is_some(), "{kept:?}");
        let mut stays = Stays::default();
        assert!(stays.allows(file.id) && stays.keep(file.id, kept.clone()) && !stays.allows(file.id));
        assert!(!stays.keep(file.id, kept.clone()), "the same again is no news");
        assert_eq!(stays.stays[&file.id].pause, PAUSES[0] * 2);
        // As it stands, it is judged without being read: a verdict that its bytes would not give is taken over.
        let good = Kept { changed: false, ..kept };
        assert!(matches!(remove(&sources, &file, Some(good.clone())), Pruned::Removed));
        std::fs::write(&path, "written anew").unwrap();
        let Pruned::Kept(kept) = remove(&sources, &file, Some(good)) else { panic!("deleted") };
        assert!(kept.why.contains("changed"), "{kept:?}");
    }
}
