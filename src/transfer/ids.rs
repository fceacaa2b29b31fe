//! Owners and groups by name across hosts. Counterpart: rsync's `uidlist.c`.

use protocol::flist::{FileList, IdNames};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The ids here of owners and groups there, as far as their names have come.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
}

impl Mapping {
    /// Gives each entry the ids that its owner's and group's names have here; `names` are those that came with the list.
    /// Names unknown here keep their numbers; owners are looked up only by root, who alone can set them.
    pub(super) fn apply(&mut self, list: &mut FileList, names: &IdNames) {
        let name = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        let differs = |(there, here): &(u32, u32)| there != here;
        if rustix::process::geteuid().is_root() {
            let here =
                names.users.iter().filter_map(|(id, user)| Some((*id, uzers::get_user_by_name(&name(user))?.uid())));
            self.users.extend(here.filter(differs));
        }
        let here =
            names.groups.iter().filter_map(|(id, group)| Some((*id, uzers::get_group_by_name(&name(group))?.gid())));
        self.groups.extend(here.filter(differs));
        if !self.users.is_empty() || !self.groups.is_empty() {
            list.map_ids(|uid| *self.users.get(&uid).unwrap_or(&uid), |gid| *self.groups.get(&gid).unwrap_or(&gid));
        }
    }
}

/// Names of owners and groups, each told once.
#[derive(Debug, Default)]
pub(super) struct Told {
    users: HashSet<u32>,
    groups: HashSet<u32>,
}

impl Told {
    /// The names that go with the ids of a list and have not been told.
    pub(super) fn names(&mut self, list: &FileList, owner: bool, group: bool) -> IdNames {
        let mut names = IdNames::default();
        for (_, entry) in list.iter() {
            if owner && self.users.insert(entry.uid) {
                let user = uzers::get_user_by_uid(entry.uid);
                names.users.extend(user.map(|user| (entry.uid, user.name().as_bytes().to_vec())));
            }
            if group && self.groups.insert(entry.gid) {
                let group = uzers::get_group_by_gid(entry.gid);
                names.groups.extend(group.map(|group| (entry.gid, group.name().as_bytes().to_vec())));
            }
        }
        names
    }
}
