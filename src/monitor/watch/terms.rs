//! What is watched, when a file counts as finished, and what its row says.

use super::super::spool::UnspooledMessage;
use super::below;
use crate::catalog::announced::watched_key;
use crate::clock::unix_now;
use crate::disk::summed::FileStamp;
use crate::disk::wild;
use serde_json::json;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Letters of a format that columns hold.
const FORMAT_MOST: usize = 32;

/// When a file is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FinishRule {
    /// Once who wrote to it has closed it, or it was moved to its name.
    Closed,
    /// Once it has not changed for a while.
    Settled,
    /// Once another file is there.
    Marker(MarkerName),
}

/// How markers are named: what stands before and behind a file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MarkerName {
    before: Vec<u8>,
    behind: Vec<u8>,
}

impl MarkerName {
    /// Of a pattern such as `{}.done`.
    pub(crate) fn parse(pattern: &str) -> Result<Self, String> {
        let parts: Vec<_> = pattern.split("{}").collect();
        match parts[..] {
            [before, behind] if before.len() + behind.len() > 0 && !pattern.contains('/') => {
                Ok(Self { before: before.into(), behind: behind.into() })
            }
            _ => Err("expected a name with {} once in the place of the file's, such as {}.done".into()),
        }
    }

    /// The marker of a file.
    fn of(&self, file: &Path) -> Option<PathBuf> {
        let name = [&self.before, file.file_name()?.as_bytes(), &self.behind].concat();
        Some(file.with_file_name(OsStr::from_bytes(&name)))
    }

    /// Whether the marker of a file is there.
    pub(super) fn stands_by(&self, file: &Path) -> bool {
        self.of(file).is_some_and(|marker| marker.exists())
    }

    /// The file of a marker.
    fn marks(&self, file: &Path) -> Option<PathBuf> {
        let name = file.file_name()?.as_bytes().strip_prefix(&self.before[..])?.strip_suffix(&self.behind[..])?;
        Some(file.with_file_name(OsStr::from_bytes(name))).filter(|_| !name.is_empty())
    }
}

/// A folder that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WatchRoot {
    pub(crate) folder: PathBuf,
    /// The archive that its files belong to.
    pub(crate) archive: String,
    /// Whose they are, in the pysmurf tables.
    pub(crate) publisher: String,
    /// Before their paths below it, where they go.
    pub(crate) prefix: Option<String>,
}

/// All that is said of folders that are watched.
#[derive(Debug, Clone)]
pub(crate) struct WatchTerms {
    pub(crate) roots: Vec<WatchRoot>,
    pub(crate) finish: FinishRule,
    pub(crate) settle: Duration,
    /// Names that are passed over.
    pub(crate) skip: Vec<String>,
    /// Between two looks at all there is.
    pub(crate) rescan: Duration,
    pub(crate) folders_most: usize,
    pub(crate) file_type: String,
    pub(crate) deletable: bool,
    /// Whose rows they are: the same path on another machine is another file.
    pub(crate) owner: String,
}

impl WatchTerms {
    /// The file of which this is the marker, if it is one.
    pub(super) fn marked_by(&self, file: &Path) -> Option<PathBuf> {
        match &self.finish {
            FinishRule::Marker(pattern) => pattern.marks(file),
            FinishRule::Closed | FinishRule::Settled => None,
        }
    }

    /// Whether it is none of those that are registered: a hidden file, or one of a name that is passed over, or below such a
    /// folder.
    pub(super) fn skips(&self, file: &Path) -> bool {
        let Some(rest) = self.root_of(file).and_then(|root| below(&root.folder, file)) else { return true };
        rest.iter().map(OsStr::as_bytes).any(|name| {
            name.starts_with(b".") || self.skip.iter().any(|pattern| wild::matches(pattern.as_bytes(), name))
        })
    }

    /// Whether nothing in the folder is registered.
    pub(super) fn passes_by(&self, folder: &Path) -> bool {
        self.roots.iter().all(|root| root.folder != folder) && self.skips(folder)
    }

    /// The innermost one.
    fn root_of(&self, file: &Path) -> Option<&WatchRoot> {
        let of = self.roots.iter().filter(|root| below(&root.folder, file).is_some());
        of.max_by_key(|root| root.folder.as_os_str().len())
    }

    /// By what the table knows the file.
    pub(super) fn key_of(&self, file: &Path) -> String {
        watched_key(&self.owner, file.as_os_str().as_bytes())
    }

    /// The message that registers it; `None` where its name is no text, which no table holds.
    pub(super) fn message(&self, file: &Path, stamp: &FileStamp) -> Option<UnspooledMessage> {
        let root = self.root_of(file)?;
        let rest = below(&root.folder, file)?;
        let remote = match &root.prefix {
            Some(prefix) => Path::new(prefix).join(rest),
            None => rest.to_owned(),
        };
        // What is longer is no format.
        let format = file.extension().and_then(OsStr::to_str).filter(|format| format.len() <= FORMAT_MOST);
        let now = unix_now();
        let payload = json!({
            "path": file.to_str()?,
            "remote": remote.to_str()?,
            "archive_name": root.archive,
            "format": format.unwrap_or_default(),
            "action": self.file_type,
            "timestamp": stamp.mtime(),
            "action_ts": stamp.mtime().floor() as i64,
            "plot": false,
            "deletable": self.deletable,
        });
        let message = json!({"type": "watched_file", "id": root.publisher, "time": now, "payload": payload});
        Some(UnspooledMessage { received: now, sender: None, bytes: message.to_string().into_bytes().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_named_by_its_file() {
        let done = MarkerName::parse("{}.done").unwrap();
        assert_eq!(done.of(Path::new("/d/a.dat")), Some("/d/a.dat.done".into()));
        assert_eq!(done.marks(Path::new("/d/a.dat.done")), Some("/d/a.dat".into()));
        assert_eq!(done.marks(Path::new("/d/a.dat")), None);
        assert_eq!(done.marks(Path::new("/d/.done")), None);
        let before = MarkerName::parse("ok-{}").unwrap();
        assert_eq!(before.marks(Path::new("/d/ok-a")), Some("/d/a".into()));
        for bad in ["", "{}", ".done", "{}{}.x", "a/{}"] {
            assert!(MarkerName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_of_the_innermost_folder_and_hidden_ones_are_none() {
        let root = |folder: &str| WatchRoot {
            folder: folder.into(),
            archive: folder.rsplit('/').next().unwrap().into(),
            publisher: "p".into(),
            prefix: None,
        };
        let terms = WatchTerms {
            roots: vec![root("/d/a"), root("/d/a/b")],
            finish: FinishRule::Closed,
            settle: Duration::from_secs(1),
            skip: vec!["*.tmp".into()],
            rescan: Duration::from_secs(1),
            folders_most: 1,
            file_type: "t".into(),
            deletable: false,
            owner: String::new(),
        };
        assert_eq!(terms.root_of(Path::new("/d/a/b/c")).unwrap().archive, "b");
        assert_eq!(terms.root_of(Path::new("/d/a/c")).unwrap().archive, "a");
        for (file, skipped) in [
            ("/d/a/x", false),
            ("/d/a/.x", true),
            ("/d/a/.git/x", true),
            ("/d/a/x.tmp", true),
            ("/d/a/c.tmp/x", true),
            ("/elsewhere/x", true),
            ("/d/a", true),
        ] {
            assert_eq!(terms.skips(Path::new(file)), skipped, "{file}");
        }
    }
}
