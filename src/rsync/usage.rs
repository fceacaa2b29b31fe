//! How a command line is turned down.

/// Why a command line is not carried out: rsync's words and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// What stands before the last line; each without its line end.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

impl Usage {
    /// A slip in the command line.
    pub(super) fn syntax(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }
}

/// An option that exists and is not served.
pub(super) fn refuse(name: &str) -> Usage {
    Usage::syntax(format!("rsync: {name} is not supported by pysmurf-archiver; leave it out or use stock rsync"))
}
