//! What went wrong with one name beneath the destination.

use std::fmt;
use std::io;

use crate::disk::{reason, shown};

/// One action on one name that failed; trouble with a file, not with the session.
#[derive(Debug)]
pub struct DestError {
    /// What was tried, in rsync's words (`mkdir`, `rename`, …).
    pub action: &'static str,
    /// The name, relative to the destination.
    pub name: Vec<u8>,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for DestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\" failed: {}", self.action, shown(&self.name), reason(&self.source))
    }
}

impl std::error::Error for DestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<DestError> for io::Error {
    fn from(error: DestError) -> Self {
        io::Error::new(error.source.kind(), error)
    }
}

/// Says which action on which name an error belongs to.
pub(super) trait During<T> {
    fn during(self, action: &'static str, name: &[u8]) -> Result<T, DestError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, action: &'static str, name: &[u8]) -> Result<T, DestError> {
        self.map_err(|source| DestError { action, name: name.to_vec(), source: source.into() })
    }
}
