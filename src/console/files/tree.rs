//! Files of trees on this machine, found one after the other.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a walk comes by.
pub(crate) enum Sight {
    File(FoundFile),
    /// Something that is left out, and why; whether that is trouble.
    LeftOut {
        path: PathBuf,
        why: String,
        trouble: bool,
    },
}

/// A file as it was found.
pub(crate) struct FoundFile {
    pub(crate) path: PathBuf,
    /// Where it goes: as rsync would name it at the other end.
    pub(crate) place: PathBuf,
    pub(crate) len: u64,
}

/// A file or a folder that somebody named.
pub(crate) struct NamedTree {
    path: PathBuf,
    place: PathBuf,
}

impl NamedTree {
    /// With a slash at its end, what is in a folder is meant, and without it the folder.
    pub(crate) fn new(named: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(named)?;
        let bytes = named.as_os_str().as_bytes();
        let inside = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
        let place = match named.file_name() {
            Some(name) if !inside || !path.is_dir() => PathBuf::from(name),
            _ => PathBuf::new(),
        };
        Ok(Self { path, place })
    }

    /// Hands over what is there for as long as it is taken.
    pub(crate) fn walk(&self, take: &mut dyn FnMut(Sight) -> bool) {
        match fs::metadata(&self.path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(meta) => {
                take(sight(self.path.clone(), self.place.clone(), &meta));
                return;
            }
            Err(error) => {
                take(trouble(&self.path, &error));
                return;
            }
        }
        let mut waiting = vec![(self.path.clone(), self.place.clone())];
        while let Some((folder, place)) = waiting.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    if !take(trouble(&folder, &error)) {
                        return;
                    }
                    continue;
                }
            };
            for entry in entries {
                let seen = entry.and_then(|entry| {
                    let path = entry.path();
                    let meta = fs::symlink_metadata(&path)?;
                    Ok((path, place.join(entry.file_name()), meta))
                });
                let seen = match seen {
                    Ok((path, place, meta)) if meta.is_dir() => {
                        waiting.push((path, place));
                        continue;
                    }
                    Ok((path, place, meta)) => sight(path, place, &meta),
                    Err(error) => trouble(&folder, &error),
                };
                if !take(seen) {
                    return;
                }
            }
        }
    }
}

fn sight(path: PathBuf, place: PathBuf, meta: &Metadata) -> Sight {
    if meta.is_file() {
        return Sight::File(FoundFile { path, place, len: meta.len() });
    }
    let why = if meta.is_symlink() { "it is a symlink" } else { "it is no regular file" };
    Sight::LeftOut { path, why: why.into(), trouble: false }
}

fn trouble(path: &Path, error: &io::Error) -> Sight {
    Sight::LeftOut { path: path.to_owned(), why: format!("it cannot be read: {error}"), trouble: true }
}

/// The name of a file.
pub(crate) fn leaf(path: &Path) -> &[u8] {
    path.file_name().map(OsStr::as_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(named: &Path) -> Vec<(PathBuf, bool)> {
        let mut seen = Vec::new();
        NamedTree::new(named).unwrap().walk(&mut |sight| {
            seen.push(match sight {
                Sight::File(file) => (file.place, true),
                Sight::LeftOut { path, .. } => (PathBuf::from(path.file_name().unwrap()), false),
            });
            true
        });
        seen.sort();
        seen
    }

    #[test]
    fn places_are_as_rsync_would_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("a")).unwrap();
        fs::write(tree.join("a/x"), "1").unwrap();
        fs::write(tree.join("y"), "2").unwrap();
        std::os::unix::fs::symlink("y", tree.join("link")).unwrap();
        let with = |prefix: &str| {
            let file = |name: &str| (PathBuf::from(format!("{prefix}{name}")), true);
            let mut all = vec![file("a/x"), file("y"), (PathBuf::from("link"), false)];
            all.sort();
            all
        };
        assert_eq!(places(&tree), with("tree/"));
        assert_eq!(places(Path::new(&format!("{}/", tree.display()))), with(""));
        assert_eq!(places(&tree.join("y")), [(PathBuf::from("y"), true)]);
    }
}
