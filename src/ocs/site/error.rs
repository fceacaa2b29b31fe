//! What can be wrong with a site file, or with the flags that name it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A place in a site file; prints as `FILE:LINE:COLUMN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SitePlace {
    /// The site file, as it was named.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
}

impl SitePlace {
    pub(super) fn new(file: &Path, mark: Mark) -> Self {
        Self { file: file.to_path_buf(), line: mark.line, column: mark.column }
    }
}

impl fmt::Display for SitePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A place in a file that goes without saying; both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Why there is no site configuration. All are usage errors: nothing gets better by trying again.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// A flag or a variable is wrong.
    #[error("{0}")]
    Usage(String),
    /// The site file cannot be read.
    #[error("{}", unreadable(path, derived, source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Which flags or variables led to it.
        derived: String,
        /// Why not.
        source: io::Error,
    },
    /// The site file says something that cannot be used.
    #[error("Site file {place}: {what}")]
    YamlContent {
        /// Where.
        place: SitePlace,
        /// What was found, what was expected.
        what: String,
    },
}

fn unreadable(path: &Path, derived: &str, source: &io::Error) -> String {
    let path = path.display();
    match source.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "There is no site file at {path} ({derived}); name another with --site-file, or run alone with --site none"
            )
        }
        _ => format!("Cannot read site file {path} ({derived}): {source}; name another with --site-file"),
    }
}

impl SiteError {
    pub(super) fn content(place: &SitePlace, what: impl Into<String>) -> Self {
        Self::YamlContent { place: place.clone(), what: what.into() }
    }
}

/// The beginning of a text, short enough for a message.
pub(super) fn cut(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}
