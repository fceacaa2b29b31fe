//! `--copy-as`: what is read and written is read and written as another user. Counterpart: `become_copy_as_user` in
//! rsync's `main.c`.

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// Why another user's place cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyAsError {
    /// There is no such user.
    #[error("Invalid copy-as user: {0}")]
    User(String),
    /// There is no such group.
    #[error("Invalid copy-as group: {0}")]
    Group(String),
    /// The system does not allow it.
    #[error("{0} failed: {1}")]
    Denied(&'static str, nix::Error),
}

/// Takes the place of `USER[:GROUP]`, for good and with all threads. Either may be a number; without a group the user's own
/// groups count.
pub(crate) fn copy_as(text: &[u8]) -> Result<(), CopyAsError> {
    let text = String::from_utf8_lossy(text);
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (&*text, None),
    };
    let no_user = || CopyAsError::User(user.to_owned());
    let known = uzers::get_user_by_name(user);
    let uid = known.as_ref().map(uzers::User::uid).or_else(|| user.parse().ok()).ok_or_else(no_user)?;
    let known = known.or_else(|| uzers::get_user_by_uid(uid));
    let groups = match group {
        Some(group) => {
            let named = uzers::get_group_by_name(group).map(|group| group.gid());
            let gid = named.or_else(|| group.parse().ok()).ok_or_else(|| CopyAsError::Group(group.to_owned()))?;
            vec![Gid::from_raw(gid)]
        }
        None => {
            let user = known.ok_or_else(no_user)?;
            let first = user.primary_group_id();
            let others = user.groups().unwrap_or_default().into_iter().map(|group| group.gid());
            std::iter::once(first).chain(others.filter(|&gid| gid != first)).map(Gid::from_raw).collect::<Vec<_>>()
        }
    };
    setgroups(&groups).map_err(|error| CopyAsError::Denied("setgroups", error))?;
    setgid(groups[0]).map_err(|error| CopyAsError::Denied("setgid", error))?;
    setuid(Uid::from_raw(uid)).map_err(|error| CopyAsError::Denied("setuid", error))
}
