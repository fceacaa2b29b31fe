//! Reads the files of a batch, each once, before any of them is sent: its MD5 is what the copy is proven by, so a file that
//! changes meanwhile is refused.

use super::request::HandedFile;
use crate::archiver::Sources;
use crate::archiver::layout::RemotePath;
use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::sqlite::batches::BatchedFile;
use crate::disk::shown;
use crate::disk::summed::{SumError, SymlinkRule, sum};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Files that are registered at once, and how long one waits for that.
const PORTION: usize = 200;
const PATIENCE: Duration = Duration::from_secs(1);
/// Files and folders of one batch.
const ENTRIES_MOST: usize = 1_000_000;

/// Why a batch cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadTrouble {
    /// It may pass, and counts as a failed attempt.
    Passing(String),
    /// It is not the file's: its folder is away, or its file system is in trouble.
    Place(String),
    /// It is so for good.
    Lasting(String),
    /// Nobody wants it any more.
    Stopped,
}

/// What is to be read, and where it is registered.
pub(super) struct BatchReader {
    pub(super) batch: String,
    pub(super) units: Vec<HandedFile>,
    /// The archive's base, which all places begin with; without a slash at its end.
    pub(super) base: String,
    pub(super) sources: Sources,
    pub(super) table: Arc<crate::catalog::AnyCatalog>,
    pub(super) stop: Arc<AtomicBool>,
}

/// What was found and not registered yet.
struct Portion {
    files: Vec<BatchedFile>,
    folders: Vec<String>,
    since: Instant,
}

impl BatchReader {
    /// Reads all files that are not registered yet, on a thread that may wait.
    pub(super) fn run(&self, runtime: &Handle) -> Result<(), ReadTrouble> {
        let crate::catalog::AnyCatalog::Sqlite(table) = &*self.table else {
            return Err(ReadTrouble::Lasting("batches are kept in SQLite".into()));
        };
        let known = runtime.block_on(table.batch_places(&self.batch)).map_err(passing)?;
        let known: HashSet<_> = known.files.into_iter().collect();
        let mut entries = 0;
        let mut portion = Portion { files: Vec::new(), folders: Vec::new(), since: Instant::now() };
        for unit in &self.units {
            self.sources.admit(&unit.local).map_err(ReadTrouble::Lasting)?;
            let meta = self.sources.metadata(&unit.local).map_err(|error| unreadable(&unit.local, &error))?;
            let place = place_of(&unit.remote, &self.base).map_err(ReadTrouble::Lasting)?;
            let name = || shown(unit.local.as_os_str().as_bytes());
            let mut found = match (unit.is_dir, meta.is_dir()) {
                (true, true) => walk(&unit.local, &place)?,
                (false, false) => vec![WalkedEntry { path: unit.local.clone(), place, is_dir: false }],
                (true, false) => return Err(ReadTrouble::Lasting(format!("{} is no directory", name()))),
                (false, true) => {
                    return Err(ReadTrouble::Lasting(format!("{} is a directory; hand it over as one", name())));
                }
            };
            entries += found.len();
            if entries > ENTRIES_MOST {
                return Err(ReadTrouble::Lasting(format!(
                    "it has more than {ENTRIES_MOST} files; hand over smaller batches"
                )));
            }
            for entry in found.drain(..) {
                if self.stop.load(Relaxed) {
                    return Err(ReadTrouble::Stopped);
                }
                self.take(entry, &known, &mut portion)?;
                if portion.files.len() >= PORTION || portion.since.elapsed() >= PATIENCE {
                    self.register(table, &mut portion, runtime)?;
                }
            }
        }
        self.register(table, &mut portion, runtime)
    }

    fn take(&self, entry: WalkedEntry, known: &HashSet<String>, portion: &mut Portion) -> Result<(), ReadTrouble> {
        let WalkedEntry { path, place, is_dir } = entry;
        RemotePath::new(place.clone()).map_err(ReadTrouble::Lasting)?;
        if is_dir {
            portion.folders.push(place);
            return Ok(());
        }
        if known.contains(&place) {
            return Ok(());
        }
        let source = path.to_str().ok_or_else(|| no_text(&path))?.to_owned();
        let stopped = || self.stop.load(Relaxed);
        let summed = sum(&path, SymlinkRule::Followed, &|_| {}).map_err(|error| match error {
            SumError::Unreadable(error) => unreadable(&path, &error),
            error => ReadTrouble::Passing(format!("{}: {error}", shown(path.as_os_str().as_bytes()))),
        })?;
        if stopped() {
            return Err(ReadTrouble::Stopped);
        }
        portion.files.push(BatchedFile { source, place, md5: summed.md5, bytes: summed.stamp.size() });
        Ok(())
    }

    fn register(&self, table: &SqliteCatalog, portion: &mut Portion, runtime: &Handle) -> Result<(), ReadTrouble> {
        let (files, folders) = (std::mem::take(&mut portion.files), std::mem::take(&mut portion.folders));
        portion.since = Instant::now();
        if files.is_empty() && folders.is_empty() {
            return Ok(());
        }
        runtime.block_on(table.add_to_batch(&self.batch, files, folders)).map_err(passing)
    }
}

/// The table's trouble is no file's.
fn passing(error: impl std::fmt::Display) -> ReadTrouble {
    ReadTrouble::Place(error.to_string())
}

fn unreadable(path: &Path, error: &io::Error) -> ReadTrouble {
    let why = format!("{} cannot be read: {error}", shown(path.as_os_str().as_bytes()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => ReadTrouble::Passing(why),
        io::ErrorKind::NotFound if path.parent().is_some_and(Path::is_dir) => ReadTrouble::Passing(why),
        _ => ReadTrouble::Place(why),
    }
}

fn no_text(path: &Path) -> ReadTrouble {
    ReadTrouble::Lasting(format!("the name {} is no UTF-8 text; rename it", shown(path.as_os_str().as_bytes())))
}

/// Where something goes beneath the archive's base.
pub(super) fn place_of(remote: &str, base: &str) -> Result<String, String> {
    let place = remote.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')).filter(|place| !place.is_empty());
    place.map(str::to_owned).ok_or_else(|| format!("remote {remote:?} is not beneath --data-dir {base}"))
}

/// A file or folder, and where it goes.
struct WalkedEntry {
    path: PathBuf,
    place: String,
    is_dir: bool,
}

/// Everything in a folder, itself first.
fn walk(folder: &Path, place: &str) -> Result<Vec<WalkedEntry>, ReadTrouble> {
    let mut found = Vec::new();
    let mut waiting = vec![(folder.to_owned(), place.to_owned())];
    while let Some((folder, place)) = waiting.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| unreadable(&folder, &error))? {
            let entry = entry.map_err(|error| unreadable(&folder, &error))?;
            let path = entry.path();
            let name = entry.file_name();
            let place = format!("{place}/{}", name.to_str().ok_or_else(|| no_text(&path))?);
            let kind = fs::symlink_metadata(&path).map_err(|error| unreadable(&path, &error))?;
            // As the Librarian sums a folder: a link to a file is that file.
            let meta = fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
            let why = match (kind.is_symlink(), meta.is_dir(), meta.is_file()) {
                (false, true, _) => {
                    waiting.push((path, place));
                    continue;
                }
                (_, false, true) => {
                    found.push(WalkedEntry { path, place, is_dir: false });
                    continue;
                }
                (true, true, _) => "is a link to a folder, which is not followed",
                _ => "is neither file nor folder",
            };
            return Err(ReadTrouble::Lasting(format!("{} {why}; take it out", shown(path.as_os_str().as_bytes()))));
        }
        if found.len() + waiting.len() > ENTRIES_MOST {
            return Err(ReadTrouble::Lasting(format!("{} has more than {ENTRIES_MOST} files", folder.display())));
        }
        found.push(WalkedEntry { path: folder, place, is_dir: true });
    }
    found.sort_by(|one, other| one.place.cmp(&other.place));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_beneath_the_base() {
        assert_eq!(place_of("/a/b", ""), Ok("a/b".into()));
        assert_eq!(place_of("/a/b", "/a"), Ok("b".into()));
        for (remote, base) in [("/ab/c", "/a"), ("/a", "/a"), ("/b", "/a")] {
            assert!(place_of(remote, base).unwrap_err().contains("--data-dir"), "{remote} {base}");
        }
    }

    #[test]
    fn a_folder_is_walked_with_what_is_empty_in_it_and_no_further_than_itself() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("book/sub/empty")).unwrap();
        for file in ["book/a b", "book/sub/é", "out"] {
            fs::write(at(file), file).unwrap();
        }
        std::os::unix::fs::symlink("../out", at("book/link")).unwrap();
        let places: Vec<_> =
            walk(&at("book"), "x/y").unwrap().into_iter().map(|entry| (entry.place, entry.is_dir)).collect();
        let file = |name: &str| (format!("x/y/{name}"), false);
        let dir = |name: &str| (format!("x/y{name}"), true);
        assert_eq!(places, [dir(""), file("a b"), file("link"), dir("/sub"), dir("/sub/empty"), file("sub/é")]);
        std::os::unix::fs::symlink("sub", at("book/way")).unwrap();
        assert!(matches!(walk(&at("book"), "x"), Err(ReadTrouble::Lasting(why)) if why.contains("way is a link")));
    }
}
