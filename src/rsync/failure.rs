//! A session that came to nothing, as its user hears of it.

use crate::exit;
use crate::transfer::copy_as::CopyAsError;
use crate::transport::ConnectError;

/// A session that came to nothing.
pub(super) struct SessionFailure {
    /// What is said of it, if anything.
    pub(super) text: String,
    /// The exit code.
    pub(super) code: i32,
}

impl From<ConnectError> for SessionFailure {
    fn from(error: ConnectError) -> Self {
        Self { text: format!("rsync: {error}"), code: exit::of_connect(&error) }
    }
}

impl From<CopyAsError> for SessionFailure {
    fn from(error: CopyAsError) -> Self {
        Self { text: error.to_string(), code: exit::SYNTAX }
    }
}
