//! The other end of a session, as a log names it.

/// The other end of a daemon's session, and what it asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoggedPeer {
    /// `%a`: its address.
    pub(crate) address: String,
    /// `%h`: its name.
    pub(crate) host: String,
    /// `%m`: the module.
    pub(crate) module: String,
    /// `%u`: who it proved to be.
    pub(crate) user: String,
    /// `%P`: the module's path.
    pub(crate) path: String,
}
