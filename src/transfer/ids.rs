//! Owners and groups across hosts: by name, and by the maps that `--usermap`, `--groupmap` and `--chown` give.
//! Counterpart: rsync's `uidlist.c`.

pub(crate) mod converter;

use super::TransferError;
use crate::disk::wild;
use protocol::args::Options;
use protocol::flist::{FileList, IdNames};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Which ids of the sending side are which here.
pub(super) struct IdMap {
    users: Ids,
    groups: Ids,
    /// Trouble that is to be told: names that nobody has here.
    pub(super) unknown: Vec<String>,
}

struct Ids {
    rules: Vec<IdRule>,
    names: HashMap<u32, Vec<u8>>,
    /// Names are looked up here.
    by_name: bool,
    /// Ids have names (no `--numeric-ids`).
    has_names: bool,
    local: fn(&[u8]) -> Option<u32>,
    local_name: fn(u32) -> Option<Vec<u8>>,
    found: RefCell<HashMap<u32, u32>>,
}

/// One `FROM:TO`.
struct IdRule {
    from: From,
    to: u32,
}

enum From {
    Range(u32, u32),
    Name(Vec<u8>),
}

impl IdMap {
    /// The maps of the options. Owners are looked up by name only by root, who alone can set them.
    pub(super) fn new(options: &Options) -> Result<Self, TransferError> {
        let root = options.super_user.unwrap_or_else(|| rustix::process::geteuid().is_root()) || options.fake_super;
        let mut unknown = Vec::new();
        let mut rules = |map: &Option<Vec<u8>>, option: &str, local: fn(&[u8]) -> Option<u32>| match map {
            Some(map) => rules(map, option, local, &mut unknown),
            None => Ok(Vec::new()),
        };
        let by_name = !options.numeric_ids && !options.nameless_ids;
        let users = Ids {
            rules: rules(&options.usermap, "--usermap", user_here)?,
            by_name: by_name && root,
            has_names: !options.numeric_ids,
            ..Ids::new(user_here, user_name)
        };
        let groups = Ids {
            rules: rules(&options.groupmap, "--groupmap", group_here)?,
            by_name,
            has_names: !options.numeric_ids,
            ..Ids::new(group_here, group_name)
        };
        converter::answered()?;
        Ok(Self { users, groups, unknown })
    }

    /// Hears names that the sending side gives its ids.
    pub(super) fn learn(&mut self, names: &IdNames) {
        self.users.learn(&names.users);
        self.groups.learn(&names.groups);
    }

    /// Gives entries and ACLs the ids they have here.
    pub(super) fn apply(&self, list: &mut FileList) -> Result<(), TransferError> {
        if !self.users.is_idle() || !self.groups.is_idle() {
            let (user, group) = (|uid| self.users.here(uid), |gid| self.groups.here(gid));
            match self.users.has_names {
                true => list.map_ids(user, group),
                // Numbers in ACLs are kept then, as by stock.
                false => list.each(|entry| (entry.uid, entry.gid) = (user(entry.uid), group(entry.gid))),
            }
        }
        converter::answered()
    }
}

impl Ids {
    fn new(local: fn(&[u8]) -> Option<u32>, local_name: fn(u32) -> Option<Vec<u8>>) -> Self {
        let (names, found) = (HashMap::new(), RefCell::default());
        Self { rules: Vec::new(), names, by_name: false, has_names: true, local, local_name, found }
    }

    fn learn(&mut self, names: &[(u32, Vec<u8>)]) {
        for (id, name) in names {
            self.names.insert(*id, name.clone());
            self.found.get_mut().remove(id);
        }
    }

    fn is_idle(&self) -> bool {
        self.rules.is_empty() && (self.names.is_empty() || !self.by_name)
    }

    fn here(&self, id: u32) -> u32 {
        *self.found.borrow_mut().entry(id).or_insert_with(|| self.look_up(id))
    }

    fn look_up(&self, id: u32) -> u32 {
        let sent = self.names.get(&id).cloned();
        // Its name is the same everywhere, and not always sent.
        let root = || if id == 0 && self.has_names { (self.local_name)(0) } else { None };
        let name = sent.clone().or_else(root).unwrap_or_default();
        let matches = |rule: &&IdRule| match &rule.from {
            From::Range(low, high) => (*low..=*high).contains(&id),
            From::Name(pattern) => wild::matches(pattern, &name),
        };
        if let Some(rule) = self.rules.iter().find(matches) {
            return rule.to;
        }
        sent.filter(|_| self.by_name).and_then(|name| (self.local)(&name)).unwrap_or(id)
    }
}

fn rules(
    map: &[u8],
    option: &str,
    local: fn(&[u8]) -> Option<u32>,
    unknown: &mut Vec<String>,
) -> Result<Vec<IdRule>, TransferError> {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut rules = Vec::new();
    for item in map.split(|&byte| byte == b',') {
        let colon = item.iter().position(|&byte| byte == b':');
        let colon =
            colon.ok_or_else(|| TransferError::Usage(format!("No colon found in {option}: {}", shown(item))))?;
        let (from, to) = (&item[..colon], &item[colon + 1..]);
        if to.is_empty() {
            return Err(TransferError::Usage(format!("No name found after colon {option}: {}", shown(item))));
        }
        let from = if from.first().is_some_and(u8::is_ascii_digit) {
            let dash = from.iter().position(|&byte| byte == b'-').unwrap_or(from.len());
            let (low, high) = (number(&from[..dash]), from.get(dash + 1..).map_or(number(from), number));
            match (low, high) {
                (Some(low), Some(high)) => From::Range(low, high),
                _ => return Err(TransferError::Usage(format!("Invalid number in {option}: {}", shown(from)))),
            }
        } else {
            From::Name(from.to_vec())
        };
        if to.iter().all(u8::is_ascii_digit) && number(to).is_none() {
            return Err(TransferError::Usage(format!("Invalid ID number: {}", shown(to))));
        }
        match number(to).or_else(|| local(to)) {
            Some(to) => rules.push(IdRule { from, to }),
            None => unknown.push(format!("Unknown {option} name on receiver: {}", shown(to))),
        }
    }
    Ok(rules)
}

fn user_here(name: &[u8]) -> Option<u32> {
    match converter::ask("usr", name) {
        Some(answer) => number(&answer),
        None => uzers::get_user_by_name(OsStr::from_bytes(name)).map(|user| user.uid()),
    }
}

fn group_here(name: &[u8]) -> Option<u32> {
    match converter::ask("grp", name) {
        Some(answer) => number(&answer),
        None => uzers::get_group_by_name(OsStr::from_bytes(name)).map(|group| group.gid()),
    }
}

fn user_name(uid: u32) -> Option<Vec<u8>> {
    match converter::ask("uid", uid.to_string().as_bytes()) {
        Some(answer) => Some(answer).filter(|answer| !answer.is_empty()),
        None => uzers::get_user_by_uid(uid).map(|user| user.name().as_bytes().to_vec()),
    }
}

fn group_name(gid: u32) -> Option<Vec<u8>> {
    match converter::ask("gid", gid.to_string().as_bytes()) {
        Some(answer) => Some(answer).filter(|answer| !answer.is_empty()),
        None => uzers::get_group_by_gid(gid).map(|group| group.name().as_bytes().to_vec()),
    }
}

/// An id in digits, and nothing else.
fn number(text: &[u8]) -> Option<u32> {
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Names of owners and groups, each told once.
#[derive(Debug, Default)]
pub(super) struct Told {
    users: HashSet<u32>,
    groups: HashSet<u32>,
}

impl Told {
    /// The names that go with the ids of a list, those in ACLs too, and have not been told: of users if the `owner` is kept,
    /// of groups if the `group` is.
    pub(super) fn names(&mut self, list: &FileList, owner: bool, group: bool) -> Result<IdNames, TransferError> {
        let mut names = IdNames::default();
        let mut name_user = |uid: u32| {
            if self.users.insert(uid) {
                names.users.extend(user_name(uid).map(|name| (uid, name)));
            }
        };
        let mut name_group = |gid: u32| {
            if self.groups.insert(gid) {
                names.groups.extend(group_name(gid).map(|name| (gid, name)));
            }
        };
        for (_, entry) in list.iter() {
            if owner {
                name_user(entry.uid);
            }
            if group {
                name_group(entry.gid);
            }
            for name in
                [&entry.extra.access_acl, &entry.extra.default_acl].into_iter().flatten().flat_map(|acl| &acl.names)
            {
                if name.group { name_group(name.id) } else { name_user(name.id) }
            }
        }
        converter::answered()?;
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::flist::FileEntry;

    fn mapped(usermap: &str, numeric_ids: bool) -> Result<Vec<u32>, String> {
        let options =
            Options { usermap: Some(usermap.into()), numeric_ids, super_user: Some(true), ..Options::default() };
        let mut map = IdMap::new(&options).map_err(|error| error.to_string())?;
        let names = [(1, "daemon"), (2, "nobody here is called so"), (1000, "catherine")];
        if !numeric_ids {
            map.learn(&IdNames { users: names.map(|(id, name)| (id, name.into())).into(), groups: vec![] });
        }
        let entry = |uid: u32| FileEntry { uid, ..FileEntry::new(format!("f{uid:06}"), 0o100644) };
        let mut list = FileList::new([0, 1, 2, 1000, 4242].map(entry).into());
        map.apply(&mut list).unwrap();
        Ok(list.iter().map(|(_, entry)| entry.uid).collect())
    }

    #[test]
    fn maps_as_stock_reads_them() {
        for (map, numeric, expected) in [
            ("0-99:65534", false, Ok([65534, 65534, 65534, 1000, 4242])),
            ("daemon:33,*:7", false, Ok([7, 33, 7, 7, 7])),
            (":55", false, Ok([0, 1, 2, 1000, 55])),
            ("d*:66,4242:1", false, Ok([0, 66, 2, 1000, 1])),
            ("[cd]*:44", false, Ok([0, 44, 2, 44, 4242])),
            ("*:no such name", false, Ok([0, 1, 2, 1000, 4242])),
            ("root:5", false, Ok([5, 1, 2, 1000, 4242])),
            ("0:1,0:2", false, Ok([1, 1, 2, 1000, 4242])),
            ("5-1:3", false, Ok([0, 1, 2, 1000, 4242])),
            ("daemon:2", true, Ok([0, 1, 2, 1000, 4242])),
            ("*:2", true, Ok([2; 5])),
            ("bogus", false, Err("No colon found in --usermap: bogus")),
            ("1:", false, Err("No name found after colon --usermap: 1:")),
            ("1-x:3", false, Err("Invalid number in --usermap: 1-x")),
        ] {
            assert_eq!(mapped(map, numeric), expected.map(Vec::from).map_err(str::to_owned), "{map} {numeric}");
        }
    }
}
