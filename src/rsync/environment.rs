//! The variables of the environment that count as options.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// What the environment says; empty for a test that wants none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    /// `RSYNC_RSH`.
    pub rsh: Option<Vec<u8>>,
    /// `RSYNC_PROTECT_ARGS`.
    pub protect_args: Option<bool>,
    /// `RSYNC_OLD_ARGS`.
    pub old_args: Option<bool>,
    /// `RSYNC_PARTIAL_DIR`.
    pub partial_dir: Option<Vec<u8>>,
    /// `RSYNC_MAX_ALLOC`.
    pub max_alloc: Option<Vec<u8>>,
    /// `RSYNC_ICONV`.
    pub iconv: Option<Vec<u8>>,
    /// `RSYNC_PASSWORD`.
    pub password: Option<Vec<u8>>,
    /// `RSYNC_PARALLEL`.
    pub parallel: Option<Vec<u8>>,
}

impl Environment {
    /// The variables of this process.
    pub(crate) fn of_process() -> Self {
        let text = |name: &str| std::env::var_os(name).map(OsString::into_vec).filter(|value| !value.is_empty());
        let flag = |name: &str| std::env::var_os(name).map(|value| value != "0" && !value.is_empty());
        Self {
            rsh: text("RSYNC_RSH"),
            protect_args: flag("RSYNC_PROTECT_ARGS"),
            old_args: flag("RSYNC_OLD_ARGS"),
            partial_dir: text("RSYNC_PARTIAL_DIR"),
            max_alloc: text("RSYNC_MAX_ALLOC"),
            iconv: text("RSYNC_ICONV"),
            password: text("RSYNC_PASSWORD"),
            parallel: text("RSYNC_PARALLEL"),
        }
    }
}
