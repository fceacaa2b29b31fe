//! The places that files come from. Where a folder is away, or most of what is to be copied at once, nothing is counted
//! against any file: it is said once, and looked at again.

use super::sources::{Roots, Sources};
use crate::backoff::Backoff;
use crate::status::{Failure, LASTING, Progress};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Folders whose trouble is remembered; what is in others comes again with the next poll.
const FOLDERS_MOST: usize = 1000;
/// Files that are looked at together before their number can speak against their place.
const MANY: usize = 10;
/// A folder for which no row has come for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Files that are looked at before what was seen of them is asked for.
const LOOKS_AHEAD: usize = 64;
/// Symlinks that are followed to see which folder they need.
const LINKS_MOST: usize = 8;

/// A folder in trouble, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FolderTrouble {
    pub(super) folder: PathBuf,
    pub(super) why: String,
}

/// Why a file cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) kind: Failure,
    pub(super) why: String,
    /// Where it is the trouble of the place.
    pub(super) place: Option<FolderTrouble>,
}

/// A file that was looked at, and what it lacks.
pub(super) struct Look<'a> {
    pub(super) source: &'a Path,
    pub(super) lack: Option<Option<FolderTrouble>>,
    /// It has failed before. That it is missing again says nothing of its place: bad rows come back together.
    pub(super) failed_before: bool,
}

/// What is known of the places.
pub(super) struct Origins {
    away: Mutex<HashMap<PathBuf, Away>>,
    /// On which device the files of a folder were seen last.
    devices: Mutex<HashMap<PathBuf, u64>>,
    progress: Arc<Progress>,
    sources: Sources,
    once: bool,
}

struct Away {
    why: String,
    since: Instant,
    /// Somebody was called because it lasts.
    called: bool,
    /// The folder by which it was told; further ones of the same are not.
    told: PathBuf,
    backoff: Backoff,
    until: Instant,
}

impl Away {
    fn holds(&self, once: bool) -> bool {
        once || self.until > Instant::now()
    }
}

/// What is entered of a folder.
struct TroubleFound {
    words: String,
    files: usize,
}

impl Origins {
    /// With `once` nobody comes back to a folder that is away.
    pub(super) fn new(progress: Arc<Progress>, sources: Sources, once: bool) -> Self {
        Self { away: Mutex::default(), devices: Mutex::default(), progress, sources, once }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Away>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when a file is not to be looked at, since its place is in trouble. With `once` that lasts as long as the run.
    pub(super) fn hold(&self, source: &Path) -> Option<Instant> {
        let away = self.lock();
        if away.is_empty() {
            return None;
        }
        let held =
            source.ancestors().skip(1).filter_map(|folder| away.get(folder)).find(|away| away.holds(self.once))?;
        Some(held.until)
    }

    /// How long one look may take.
    pub(super) fn limit(&self) -> Duration {
        self.sources.limit()
    }

    /// Whether some place is in trouble.
    pub(super) fn in_trouble(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Everything may be looked at again now.
    pub(super) fn look_again(&self) {
        for away in self.lock().values_mut() {
            away.until = Instant::now();
        }
    }

    /// Looks at a source file, see [`look`]. A folder whose files were on another file system before has lost it.
    pub(super) fn look(&self, path: &Path) -> Result<Metadata, Lack> {
        self.seen(path, look(&self.sources, path))
    }

    /// The same for one file after another.
    pub(super) fn look_at(&self, paths: Vec<PathBuf>) -> impl Iterator<Item = Result<Metadata, Lack>> {
        let looks = look_at_each(&self.sources, paths.clone());
        paths.into_iter().zip(looks).map(|(path, looked)| self.seen(&path, looked))
    }

    fn seen(&self, path: &Path, looked: Result<Metadata, Lack>) -> Result<Metadata, Lack> {
        let folder = folder_of(path);
        let device = || self.sources.within(path, |_, path| Ok(std::fs::metadata(folder_of(path))?.dev())).ok();
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Ok(meta) => {
                if devices.len() >= FOLDERS_MOST && !devices.contains_key(folder) {
                    devices.clear();
                }
                devices.insert(folder.to_owned(), meta.dev());
                Ok(meta)
            }
            Err(mut lack) => {
                let before = devices.get(folder).copied();
                drop(devices);
                if let (Failure::Missing, None, Some(before)) = (lack.kind, &lack.place, before)
                    && device().is_some_and(|now| now != before)
                {
                    let why = "has lost the file system that its files were on".to_owned();
                    lack.place = Some(FolderTrouble { folder: folder.to_owned(), why });
                }
                Err(lack)
            }
        }
    }

    /// Judges files that were looked at together, from `since` on: says of each whether it is held back, its place being in
    /// trouble.
    pub(super) fn judge(&self, looks: &[Look<'_>], since: Instant) -> Vec<bool> {
        let lacking = looks.iter().filter(|look| look.lack.is_some()).count();
        if lacking == 0 && !self.in_trouble() {
            return vec![false; looks.len()];
        }
        let (mut fresh, mut fresh_lacking) = (0, 0);
        for look in looks.iter().filter(|look| !look.failed_before) {
            fresh += 1;
            fresh_lacking += usize::from(look.lack.is_some());
        }
        let most = fresh >= MANY && fresh_lacking * 2 > fresh;
        let known = self.still_missing(looks);
        let mut found: HashMap<PathBuf, (FolderTrouble, usize, PathBuf)> = HashMap::new();
        let mut held = vec![false; looks.len()];
        let mut nameless = Vec::new();
        for (look, held) in looks.iter().zip(&mut held) {
            match &look.lack {
                Some(Some(place)) => {
                    *held = true;
                    let told = || self.existing_above(look.source, &place.folder);
                    found.entry(place.folder.clone()).or_insert_with(|| (place.clone(), 0, told())).1 += 1;
                }
                Some(None) if most || known.contains(folder_of(look.source)) => {
                    *held = true;
                    nameless.push(folder_of(look.source));
                }
                _ => {}
            }
        }
        let common =
            nameless.iter().fold(None, |common: Option<&Path>, folder| {
                Some(common.map_or(*folder, |common| {
                    common.ancestors().find(|above| folder.starts_with(above)).unwrap_or(common)
                }))
            });
        let mut away = self.lock();
        for (FolderTrouble { folder, why }, files, told) in found.values() {
            let words = format!("Folder {} {why}", folder.display());
            self.enter(&mut away, folder, told, TroubleFound { words, files: *files });
        }
        for folder in nameless {
            let told = common.unwrap_or(folder);
            let words = format!("Folder {}: {lacking} of {} files looked for are missing", told.display(), looks.len());
            self.enter(&mut away, folder, told, TroubleFound { words, files: lacking });
        }
        self.leave(&mut away, looks, &held, since);
        self.progress.set_source(first(&away));
        held
    }

    /// The folder above this one of a file's that is there, so that its trouble is told once for all that are not; itself
    /// where none answers.
    fn existing_above(&self, source: &Path, folder: &Path) -> PathBuf {
        let name = folder.to_owned();
        let above = move || name.ancestors().skip(1).find(|above| above.is_dir()).map(Path::to_owned);
        self.sources.within(source, move |_, _| Ok(above())).ok().flatten().unwrap_or_else(|| folder.to_owned())
    }

    /// The place of a file that did not answer at some time since then, though it may by now.
    pub(super) fn lapsed_since(&self, source: &Path, since: Instant) -> Option<FolderTrouble> {
        self.sources.lapsed_since(source, since).map(|folder| unanswered(&self.sources, folder))
    }

    /// The folders in trouble of whose files most are missing still. Those that are there were copied at the first look, so
    /// what is left may be few.
    fn still_missing<'a>(&self, looks: &[Look<'a>]) -> HashSet<&'a Path> {
        let away = self.lock();
        if away.is_empty() {
            return HashSet::new();
        }
        let mut counts: HashMap<&Path, (usize, usize)> = HashMap::new();
        for look in looks {
            let (looked, lacking) = counts.entry(folder_of(look.source)).or_default();
            *looked += 1;
            *lacking += usize::from(look.lack.is_some());
        }
        counts.retain(|folder, (looked, lacking)| away.contains_key(*folder) && *lacking * 2 > *looked);
        counts.into_keys().collect()
    }

    fn enter(&self, away: &mut HashMap<PathBuf, Away>, folder: &Path, told: &Path, trouble: TroubleFound) {
        let now = Instant::now();
        let TroubleFound { words, files } = trouble;
        if let Some(known) = away.get_mut(folder) {
            // One look at many files is one.
            if known.until <= now {
                known.until = now + known.backoff.pause();
            }
            let lasts = !self.once && now.duration_since(known.since).as_secs_f64() >= LASTING;
            if lasts && !std::mem::replace(&mut known.called, true) && known.told == folder {
                tracing::warn!(
                    event = "source_trouble",
                    "{words}; its files wait, and no attempt is counted. Is the file system mounted?"
                );
            }
            return;
        }
        if away.len() >= FOLDERS_MOST {
            return;
        }
        let new = !away.values().any(|away| away.told == told);
        let waits = if files == 1 { "a file waits".to_owned() } else { format!("{files} files wait") };
        let tail = format!("{waits}, and no attempt is counted. Is the file system mounted?");
        match (new, self.once) {
            (true, true) => tracing::error!(event = "source_trouble", "{words}; {tail}"),
            (true, false) => tracing::info!(event = "source_trouble", "{words}; {tail} It is looked at again"),
            (false, _) => tracing::debug!("{words}; {tail}"),
        }
        let mut backoff = Backoff::default();
        let until = now + backoff.pause();
        away.insert(
            folder.to_owned(),
            Away { why: words, since: now, called: false, told: told.to_owned(), backoff, until },
        );
    }

    /// Lets go of places whose time had come before these looks, and whose files were not held back this time. What was seen
    /// earlier, and has only now been copied, says nothing about those that were missing then.
    fn leave(&self, away: &mut HashMap<PathBuf, Away>, looks: &[Look<'_>], held: &[bool], since: Instant) {
        if self.once || away.is_empty() {
            return;
        }
        for (look, _) in looks.iter().zip(held).filter(|(_, held)| !**held) {
            for folder in look.source.ancestors().skip(1) {
                if away.get(folder).is_some_and(|away| !away.holds(false) && away.until <= since)
                    && let Some(over) = away.remove(folder)
                {
                    let others = away.values().any(|away| away.told == over.told);
                    if !others {
                        tracing::info!(event = "source_fine", "Its files are taken up again: {}", over.why);
                    }
                }
            }
        }
    }

    /// Forgets places for which no row comes any more.
    pub(super) fn tidy(&self, poll: Duration) {
        let mut away = self.lock();
        if away.is_empty() || self.once {
            return;
        }
        away.retain(|_, away| away.holds(false) || away.until + FORGOTTEN + poll * 2 > Instant::now());
        self.progress.set_source(first(&away));
    }
}

/// The trouble that is told, of those there are: always the same as long as it lasts.
fn first(away: &HashMap<PathBuf, Away>) -> Option<String> {
    away.iter().min_by_key(|(folder, _)| *folder).map(|(_, away)| away.why.clone())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Looks at a source file. Symlinks are followed: the path is what an operator's program registered, and what stands
/// behind it must have the registered sum.
pub(super) fn look(sources: &Sources, path: &Path) -> Result<Metadata, Lack> {
    let looked = sources.within(path, |roots, path| Ok(look_now(roots, path)));
    looked.unwrap_or_else(|error| Err(not_seen(sources, path, &error)))
}

/// The same for one file after another.
pub(super) fn look_at_each(sources: &Sources, paths: Vec<PathBuf>) -> impl Iterator<Item = Result<Metadata, Lack>> {
    let looks = sources.each(paths.clone(), LOOKS_AHEAD, |roots, path| Ok(look_now(roots, path)));
    paths
        .into_iter()
        .zip(looks)
        .map(|(path, looked)| looked.unwrap_or_else(|error| Err(not_seen(sources, &path, &error))))
}

fn not_seen(sources: &Sources, path: &Path, error: &io::Error) -> Lack {
    let folder = sources.mute_place(path).unwrap_or_else(|| folder_of(path).to_owned());
    let place = match error.kind() {
        io::ErrorKind::TimedOut => unanswered(sources, folder),
        _ => FolderTrouble { folder, why: format!("cannot be looked at: {error}") },
    };
    Lack { kind: Failure::Unreadable, why: format!("it cannot be looked at: {error}"), place: Some(place) }
}

fn unanswered(sources: &Sources, folder: PathBuf) -> FolderTrouble {
    FolderTrouble { folder, why: format!("has not answered within {} s", sources.limit().as_secs()) }
}

fn look_now(roots: &Roots, path: &Path) -> Result<Metadata, Lack> {
    match roots.metadata(path) {
        Ok(meta) if meta.is_file() => Ok(meta),
        Ok(_) => Err(Lack { kind: Failure::Missing, why: "it is not a regular file".into(), place: None }),
        Err(error) => {
            let (kind, why) = match error.kind() {
                io::ErrorKind::NotFound => (Failure::Missing, "it is missing".to_owned()),
                _ => (Failure::Unreadable, format!("it cannot be looked at: {error}")),
            };
            Err(Lack { kind, why, place: place_to_blame(path, &error, LINKS_MOST) })
        }
    }
}

/// The place whose trouble keeps a file from being looked at, if it is not the file's own.
fn place_to_blame(path: &Path, error: &io::Error, links: usize) -> Option<FolderTrouble> {
    let folder = folder_of(path);
    let blame = |folder: &Path, why: String| Some(FolderTrouble { folder: folder.to_owned(), why });
    if let Some(place) = folder_in_trouble(folder) {
        return Some(place);
    }
    match Errno::from_io_error(error) {
        // Only a folder can keep a file from being looked at.
        Some(Errno::ACCESS | Errno::PERM) => {
            let (folder, why) = (deepest_seen(folder), format!("cannot be entered: {error}"));
            blame(folder, why)
        }
        Some(errno) if speaks_of_the_place(errno) => blame(folder, format!("cannot be read: {error}")),
        // A bad spot on a disk is one file's; on a dead disk the folder cannot be read either.
        Some(Errno::IO) => {
            let broken = std::fs::read_dir(folder).and_then(|mut entries| entries.next().transpose()).err()?;
            blame(folder, format!("cannot be read: {broken}"))
        }
        Some(Errno::NOENT) => match std::fs::read_link(path) {
            Ok(target) if links > 0 => {
                let target = folder.join(target);
                let error = std::fs::metadata(&target).err()?;
                place_to_blame(&target, &error, links - 1)
            }
            _ => not_mounted(folder),
        },
        _ => None,
    }
}

/// Errors of a file system or a machine as a whole.
fn speaks_of_the_place(errno: Errno) -> bool {
    const THESE: [Errno; 23] = [
        Errno::STALE,
        Errno::NOTCONN,
        Errno::TIMEDOUT,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::CONNREFUSED,
        Errno::CONNRESET,
        Errno::CONNABORTED,
        Errno::SHUTDOWN,
        Errno::REMOTEIO,
        Errno::NODEV,
        Errno::NXIO,
        Errno::NOMEDIUM,
        Errno::NOLINK,
        Errno::NOKEY,
        Errno::KEYEXPIRED,
        Errno::KEYREVOKED,
        Errno::AGAIN,
        // Our own machine's.
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
    ];
    THESE.contains(&errno)
}

/// What keeps this folder from being entered, if something does; the topmost that is in trouble.
fn folder_in_trouble(folder: &Path) -> Option<FolderTrouble> {
    let mut trouble = None;
    for folder in folder.ancestors().filter(|folder| *folder != Path::new("")) {
        let why = match std::fs::metadata(folder) {
            Ok(meta) if meta.is_dir() => break,
            Ok(_) => "is no folder".to_owned(),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                "is not there".to_owned()
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let above = folder.parent().map_or(folder, deepest_seen);
                trouble = Some(FolderTrouble { folder: above.to_owned(), why: format!("cannot be entered: {error}") });
                continue;
            }
            Err(error) => format!("cannot be read: {error}"),
        };
        trouble = Some(FolderTrouble { folder: folder.to_owned(), why });
    }
    trouble
}

/// The deepest folder on the way that can be looked at.
fn deepest_seen(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(folder)
}

/// The mount point on the way to this folder that is to be mounted at each boot, and is not.
fn not_mounted(folder: &Path) -> Option<FolderTrouble> {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let point = unmounted(folder, &text("/etc/fstab"), &text("/proc/self/mountinfo"))?;
    Some(FolderTrouble { folder: point, why: "has nothing mounted on it".into() })
}

fn unmounted(folder: &Path, fstab: &str, mountinfo: &str) -> Option<PathBuf> {
    let wanted = fstab.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (point, options) = (fields.next()?, fields.nth(1).unwrap_or_default());
        let boots = !options.split(',').any(|option| option == "noauto");
        (boots && point.starts_with('/') && folder.starts_with(point)).then_some(point)
    });
    let point = wanted.max_by_key(|point| point.len())?;
    let mounted = mountinfo.lines().any(|line| line.split(' ').nth(4) == Some(point));
    (!mounted).then(|| point.into())
}

/// Words by which a far end says that it is its file system, or itself, that is in trouble.
const FAR_PLACE: [&str; 10] = [
    "Stale file handle",
    "Transport endpoint is not connected",
    "Connection timed out",
    "Host is down",
    "No route to host",
    "Remote I/O error",
    "Required key not available",
    "Key has expired",
    "Too many open files",
    "Cannot allocate memory",
];

/// Whether what the far end said about a file speaks of its place.
pub(super) fn far_place(words: &str) -> bool {
    FAR_PLACE.iter().any(|these| words.contains(these))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn origins(once: bool) -> Origins {
        Origins::new(Arc::default(), Sources::default(), once)
    }

    fn looks<'a>(paths: &'a [PathBuf], lack: &Option<Option<FolderTrouble>>) -> Vec<Look<'a>> {
        paths.iter().map(|path| Look { source: path, lack: lack.clone(), failed_before: false }).collect()
    }

    fn paths(folder: &str, count: usize) -> Vec<PathBuf> {
        (0..count).map(|n| format!("{folder}/{n}").into()).collect()
    }

    #[test]
    fn most_of_a_large_batch_speaks_against_the_place_and_half_of_it_does_not() {
        let (gone, there) = (paths("/d/a", 6), paths("/d/b", 4));
        let mut batch = looks(&gone, &Some(None));
        batch.extend(looks(&there, &None));
        let origins = origins(false);
        assert_eq!(origins.judge(&batch, Instant::now()), [[true; 6].as_slice(), &[false; 4]].concat());
        assert!(origins.hold(&gone[0]).is_some() && origins.hold(&there[0]).is_none());
        assert!(origins.progress.snapshot().source.unwrap().why.contains("/d/a"));
        for (lacking, found) in [(5, 5), (9, 0)] {
            let origins = self::origins(false);
            let mut batch = looks(&gone[..lacking.min(6)], &Some(None));
            batch.truncate(lacking);
            let more = paths("/d/a", lacking.saturating_sub(6));
            batch.extend(looks(&more, &Some(None)));
            batch.extend(looks(&there[..found.min(4)], &None));
            let rest = paths("/d/c", found.saturating_sub(4));
            batch.extend(looks(&rest, &None));
            assert!(!origins.judge(&batch, Instant::now()).contains(&true), "{lacking} of {}", lacking + found);
        }
    }

    #[test]
    fn bad_rows_that_come_back_together_do_not_speak_against_their_place() {
        let origins = origins(false);
        let (bad, new) = (paths("/d/a", 14), paths("/d/b", 12));
        let mut batch = looks(&bad, &Some(None));
        batch.iter_mut().for_each(|look| look.failed_before = true);
        batch.extend(looks(&new[..2], &None));
        assert_eq!(origins.judge(&batch, Instant::now()), [false; 16]);
        assert!(!origins.in_trouble());
        // Beside others that are missing for the first time they wait with those.
        batch.truncate(14);
        batch.extend(looks(&new, &Some(None)));
        assert_eq!(origins.judge(&batch, Instant::now()), [true; 26]);
    }

    #[test]
    fn a_place_is_looked_at_again_and_let_go_when_its_files_are_there() {
        let origins = origins(false);
        let files = paths("/d/away", 2);
        let place = FolderTrouble { folder: "/d/away".into(), why: "is not there".into() };
        assert_eq!(origins.judge(&looks(&files, &Some(Some(place.clone()))), Instant::now()), [true, true]);
        assert!(origins.hold(&files[0]).is_some());
        assert!(origins.hold(Path::new("/d/other")).is_none());
        origins.look_again();
        assert!(origins.hold(&files[0]).is_none());
        assert_eq!(origins.judge(&looks(&files, &Some(Some(place))), Instant::now()), [true, true]);
        origins.look_again();
        assert_eq!(origins.judge(&looks(&files, &None), Instant::now()), [false, false]);
        assert!(!origins.in_trouble() && origins.progress.snapshot().source.is_none());
    }

    #[test]
    fn a_place_most_of_whose_files_are_missing_is_in_trouble_until_most_are_there() {
        let origins = origins(false);
        let files = paths("/d/a", 12);
        let look = |lacking: usize, found: usize| {
            let mut batch = looks(&files[..lacking], &Some(None));
            batch.extend(looks(&files[12 - found..], &None));
            origins.look_again();
            origins.judge(&batch, Instant::now())
        };
        assert_eq!(look(7, 5), [[true; 7].as_slice(), &[false; 5]].concat());
        // The five are copied by then.
        assert_eq!(look(7, 0), [true; 7]);
        assert_eq!(look(2, 1), [true, true, false]);
        assert_eq!(look(2, 2), [false; 4]);
        assert!(!origins.in_trouble());
        assert_eq!(look(7, 0), [false; 7]);
    }

    #[test]
    fn files_seen_before_the_trouble_was_do_not_end_it() {
        let origins = origins(false);
        let files = paths("/d/a", 12);
        let mut batch = looks(&files[..7], &Some(None));
        batch.extend(looks(&files[7..], &None));
        let began = Instant::now();
        assert_eq!(origins.judge(&batch, began).iter().filter(|held| **held).count(), 7);
        // They took so long to be copied that the others may be looked at again by now.
        origins.look_again();
        assert_eq!(origins.judge(&looks(&files[7..], &None), began), [false; 5]);
        assert!(origins.in_trouble());
        assert_eq!(origins.judge(&looks(&files[..7], &Some(None)), Instant::now()), [true; 7]);
    }

    #[test]
    fn a_run_with_an_end_looks_once() {
        let origins = origins(true);
        let files = paths("/d/away", 1);
        let place = FolderTrouble { folder: "/d/away".into(), why: "is not there".into() };
        origins.judge(&looks(&files, &Some(Some(place))), Instant::now());
        origins.look_again();
        assert!(origins.hold(&files[0]).is_some());
    }

    #[test]
    fn a_folder_that_does_not_answer_is_held_until_it_has() {
        let sources = Sources::default().answering_within(Duration::from_millis(20));
        let origins = Origins::new(Arc::default(), sources.clone(), false);
        let files = paths("/d/hung", 3);
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let began = Instant::now();
        let hung = sources.within(&files[0], move |_, _| Ok(ended.recv().is_ok()));
        assert_eq!(hung.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let lack = look(&sources, &files[1]).unwrap_err();
        assert_eq!(lack.place.as_ref().map(|place| place.folder.as_path()), Some(Path::new("/d/hung")));
        let looks = looks(&files[1..2], &Some(lack.place));
        assert_eq!(origins.judge(&looks, Instant::now()), [true]);
        assert!(origins.hold(&files[2]).is_some());
        assert!(origins.progress.snapshot().source.unwrap().why.contains("has not answered"));
        // A further look takes no call, and ends as the first.
        origins.look_again();
        let lack = look(&sources, &files[2]).unwrap_err();
        assert_eq!(
            origins.judge(&[Look { source: &files[2], lack: Some(lack.place), failed_before: false }], Instant::now()),
            [true]
        );
        assert!(origins.hold(&files[2]).is_some());
        drop(end);
        while sources.mute_place(&files[2]).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(look(&sources, &files[2]).unwrap_err().kind, Failure::Missing);
        let lapsed = origins.lapsed_since(&files[2], began).unwrap();
        assert_eq!(lapsed.folder, Path::new("/d/hung"));
    }

    #[test]
    fn a_missing_file_is_its_own_fault_only_where_its_folder_is() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs::create_dir(at("there")).unwrap();
        fs::write(at("there/f"), "x").unwrap();
        for (link, target) in [("dangling", "gone"), ("away", "/no/such/mount/f"), ("loop", "loop")] {
            std::os::unix::fs::symlink(target, at("there").join(link)).unwrap();
        }
        let look = |path: &Path| look(&Sources::default(), path);
        assert_eq!(look(&at("there/f")).unwrap().len(), 1);
        let place = |name: &str| look(&at(name)).unwrap_err().place.map(|place| place.folder);
        for name in ["there/gone", "there", "there/dangling", "there/loop"] {
            assert_eq!(place(name), None, "{name}");
        }
        assert_eq!(place("gone/deep/f"), Some(at("gone")));
        assert_eq!(place("there/f/g"), Some(at("there/f")));
        assert_eq!(place("there/f/g/h"), Some(at("there/f")));
        assert_eq!(place("there/away"), Some("/no".into()));
    }

    #[test]
    fn what_is_to_be_mounted_and_is_not_is_seen() {
        let fstab = "# /dev/x /data ext4 defaults\nserver:/x  /data/smurf nfs rw,hard 0 0\n/dev/cd /data/cd iso9660 ro,noauto 0 0\nUUID=1 none swap sw 0 0\n";
        let mounts =
            |point: &str| format!("22 1 0:2 / / rw - ext4 /dev/x rw\n23 22 0:4 / {point} rw - nfs server:/x rw\n");
        let folder = Path::new("/data/smurf/17950/a");
        assert_eq!(unmounted(folder, fstab, &mounts("/data")), Some("/data/smurf".into()));
        assert_eq!(unmounted(folder, fstab, &mounts("/data/smurf")), None);
        assert_eq!(unmounted(Path::new("/data/smurfs"), fstab, ""), None);
        assert_eq!(unmounted(Path::new("/data/cd/a"), fstab, ""), None);
    }
}
