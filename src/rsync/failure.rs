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
        Self { text: format!("rsync: {error}"), code: of_connect(&error) }
    }
}

/// The exit code of a far end that was never reached by our own SSH.
fn of_connect(error: &ConnectError) -> i32 {
    match error {
        ConnectError::Setup(_) => exit::SYNTAX,
        ConnectError::Timeout { .. } => exit::TIMEOUT,
        ConnectError::Unreachable { .. } | ConnectError::NoCommand { .. } | ConnectError::Lost { .. } => exit::SOCKET,
        ConnectError::HostKey { .. } | ConnectError::Auth { .. } => exit::START,
    }
}

impl From<CopyAsError> for SessionFailure {
    fn from(error: CopyAsError) -> Self {
        Self { text: error.to_string(), code: exit::SYNTAX }
    }
}
