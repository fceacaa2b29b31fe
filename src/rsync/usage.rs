//! How a command line is turned down.

use crate::exit;

/// Why a command line is not carried out: rsync's words and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    /// What stands before the last line; each without its line end.
    pub text: String,
    pub code: i32,
}

impl Usage {
    /// A slip in the command line.
    pub(super) fn syntax(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: exit::SYNTAX }
    }
}

/// An option that exists and is not served.
pub(super) fn refuse(name: &str) -> Usage {
    Usage::syntax(format!("rsync: {name} is not supported by pysmurf-archiver; leave it out or use stock rsync"))
}
