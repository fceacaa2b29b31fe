//! The files that could not be deleted: why each stays is said once, and it is looked at again after pauses that grow.

use super::removal::{FolderStand, Kept};
use crate::catalog::RecordId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The first pause after a file could not go, and the longest.
pub(super) const PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(6 * 3600)];
/// Files that stay and are remembered; further ones are tried each time.
const KEPT_MOST: usize = 100_000;

/// The files that stay.
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
    pub(super) fn allows(&self, id: RecordId) -> bool {
        self.stays.get(&id).is_none_or(|stay| stay.until <= Instant::now())
    }

    /// Whether a place has been away for so long that its files count as gone.
    pub(super) fn is_gone(&self, id: RecordId, kept: &Kept) -> bool {
        let is_away = |kept: &Kept| kept.folder == FolderStand::Away;
        is_away(kept) && self.stays.get(&id).is_some_and(|stay| is_away(&stay.kept) && stay.pause == PAUSES[1])
    }

    /// How a file stayed when it was tried last.
    pub(super) fn before(&self, id: RecordId) -> Option<Kept> {
        self.stays.get(&id).map(|stay| stay.kept.clone())
    }

    /// It stays no more.
    pub(super) fn forget(&mut self, id: RecordId) {
        self.stays.remove(&id);
    }

    /// A file stays again; true where that is news.
    pub(super) fn keep(&mut self, id: RecordId, kept: Kept) -> bool {
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

    /// For tests: after which pause it is tried again.
    #[cfg(test)]
    pub(super) fn pause_of(&self, id: RecordId) -> Duration {
        self.stays[&id].pause
    }
}

#[cfg(test)]
mod tests {
    use super::super::removal::{AskedAt, PruneMode, Purpose, Removed, remove};
    use super::*;
    use crate::archiver::Sources;
    use crate::catalog::sqlite::Prunable;
    use std::io;

    #[test]
    fn files_of_a_folder_that_is_away_count_as_gone_only_when_it_stays_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = |id, name: &str| Prunable {
            id: RecordId(id),
            path: folder.path().join(name),
            md5: [1; 16],
            since: 0.0,
            rivals: Vec::new(),
        };
        let sources = Sources::default();
        assert!(matches!(
            remove(&sources, &file(1, "gone"), None, (Purpose::Age, PruneMode::Deleting, AskedAt::now())),
            Removed::Gone
        ));
        let mut stays = Stays::default();
        let mut told = 0;
        for id in [2, 3] {
            let Removed::Kept(kept) =
                remove(&sources, &file(id, "away/f"), None, (Purpose::Age, PruneMode::Deleting, AskedAt::now()))
            else {
                panic!("counts as gone")
            };
            assert!(!stays.is_gone(RecordId(id), &kept));
            told += usize::from(stays.keep(RecordId(id), kept.clone()));
            while stays.pause_of(RecordId(id)) < PAUSES[1] {
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
        let file = |id| Prunable {
            id: RecordId(id),
            path: "/no/such/folder/f".into(),
            md5: [1; 16],
            since: 0.0,
            rivals: Vec::new(),
        };
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let hung = sources.within(&file(1).path, move |_, _| Ok(ended.recv().is_ok()));
        assert_eq!(hung.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut stays = Stays::default();
        let mut told = 0;
        for id in [1, 2] {
            let Removed::Kept(kept) =
                remove(&sources, &file(id), None, (Purpose::Age, PruneMode::Deleting, AskedAt::now()))
            else {
                panic!("counts as gone")
            };
            assert!(kept.why.contains("/no/such/folder has not answered"), "{kept:?}");
            told += usize::from(stays.keep(RecordId(id), kept.clone()));
            while stays.pause_of(RecordId(id)) < PAUSES[1] {
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
        let file = Prunable { id: RecordId(1), path: path.clone(), md5: [1; 16], since: 0.0, rivals: Vec::new() };
        let sources = Sources::default();
        let late = (Purpose::Age, PruneMode::Deleting, AskedAt::long_ago());
        let task = (Purpose::Age, PruneMode::Deleting, AskedAt::now());
        let Removed::Kept(kept) = remove(&sources, &file, None, task) else { panic!("deleted") };
        assert!(kept.changed && kept.stand.is_some(), "{kept:?}");
        let mut stays = Stays::default();
        assert!(stays.allows(file.id) && stays.keep(file.id, kept.clone()) && !stays.allows(file.id));
        assert!(!stays.keep(file.id, kept.clone()), "the same again is no news");
        assert_eq!(stays.pause_of(file.id), PAUSES[0] * 2);
        // As it stands, it is judged without being read: a verdict that its bytes would not give is taken over.
        let good = Kept { changed: false, ..kept };
        // By the table's word of long ago nothing goes.
        let Removed::Late(kept) = remove(&sources, &file, Some(good.clone()), late) else { panic!("not late") };
        assert!(path.exists() && kept.stand == good.stand && !kept.changed, "{kept:?}");
        assert!(matches!(remove(&sources, &file, Some(kept), task), Removed::Freed(_)));
        std::fs::write(&path, "written anew").unwrap();
        let Removed::Kept(kept) =
            remove(&sources, &file, Some(good), (Purpose::Age, PruneMode::Deleting, AskedAt::now()))
        else {
            panic!("deleted")
        };
        assert!(kept.why.contains("changed"), "{kept:?}");
    }
}
