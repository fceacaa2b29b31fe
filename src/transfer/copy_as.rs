//! `--copy-as`: what is read and written is read and written as another user. Counterpart: `become_copy_as_user` in
//! rsync's `main.c`.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgid, setgroups, setuid};
use std::ffi::CString;

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
    let known = User::from_name(user).ok().flatten();
    let uid = match (&known, user.parse::<u32>()) {
        (Some(user), _) => user.uid,
        (None, Ok(number)) => Uid::from_raw(number),
        (None, Err(_)) => return Err(no_user()),
    };
    let known = known.or_else(|| User::from_uid(uid).ok().flatten());
    let groups = match group {
        Some(group) => {
            let named = Group::from_name(group).ok().flatten().map(|group| group.gid);
            let numbered = || group.parse().ok().map(Gid::from_raw);
            vec![named.or_else(numbered).ok_or_else(|| CopyAsError::Group(group.to_owned()))?]
        }
        None => {
            let user = known.ok_or_else(no_user)?;
            let name = CString::new(user.name.clone()).map_err(|_| no_user())?;
            let mut groups =
                getgrouplist(&name, user.gid).map_err(|error| CopyAsError::Denied("getgrouplist", error))?;
            groups.retain(|&group| group != user.gid);
            groups.insert(0, user.gid);
            groups
        }
    };
    setgroups(&groups).map_err(|error| CopyAsError::Denied("setgroups", error))?;
    setgid(groups[0]).map_err(|error| CopyAsError::Denied("setgid", error))?;
    setuid(uid).map_err(|error| CopyAsError::Denied("setuid", error))
}
