//! Owners and groups by name across hosts. Counterpart: rsync's `uidlist.c`.

use protocol::flist::{FileList, IdNames, ListShape};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Gives each entry the ids that its owner's and group's names have here. Names unknown here keep their numbers; owners
/// are looked up only by root, who alone can set them.
pub(super) fn map(list: &mut FileList, names: &IdNames) {
    let name = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let mut users = HashMap::new();
    if rustix::process::geteuid().is_root() {
        for (id, user) in &names.users {
            users.extend(uzers::get_user_by_name(&name(user)).map(|here| (*id, here.uid())));
        }
    }
    let mut groups = HashMap::new();
    for (id, group) in &names.groups {
        groups.extend(uzers::get_group_by_name(&name(group)).map(|here| (*id, here.gid())));
    }
    if users.iter().chain(&groups).any(|(there, here)| there != here) {
        list.map_ids(|uid| *users.get(&uid).unwrap_or(&uid), |gid| *groups.get(&gid).unwrap_or(&gid));
    }
}

/// The names that go with the ids of a list, those in ACLs too.
pub(super) fn names(list: &FileList, shape: &ListShape) -> IdNames {
    let mut names = IdNames::default();
    let mut known = (HashSet::new(), HashSet::new());
    let mut user = |uid: u32| {
        if known.0.insert(uid) {
            let user = uzers::get_user_by_uid(uid);
            names.users.extend(user.map(|user| (uid, user.name().as_bytes().to_vec())));
        }
    };
    let mut group = |gid: u32| {
        if known.1.insert(gid) {
            let group = uzers::get_group_by_gid(gid);
            names.groups.extend(group.map(|group| (gid, group.name().as_bytes().to_vec())));
        }
    };
    for (_, entry) in list.iter() {
        if shape.owner {
            user(entry.uid);
        }
        if shape.group {
            group(entry.gid);
        }
        for name in [&entry.access_acl, &entry.default_acl].into_iter().flatten().flat_map(|acl| &acl.names) {
            if name.group { group(name.id) } else { user(name.id) }
        }
    }
    names
}
