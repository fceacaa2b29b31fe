//! Writing the file list. Counterpart: rsync's `send_file_entry`.

use super::ids::encode_ids;
use super::rdev::{put_rdev, rdev_flags, whole};
use super::{DirClass, FileEntry, IdNames, Kind, LinkId, ListShape, Previous, flag};
use crate::acl::Acl;
use crate::handshake::{Compat, Negotiated};
use crate::shared::Said;
use crate::wire::{Ints, put_varint, put_varlong};
use crate::xattr::XattrSet;
use std::borrow::Cow;
use std::collections::HashMap;

/// Longest prefix that may be shared with the previous name.
const PREFIX_MOST: usize = 255;

/// Writes a list entry by entry, in any order.
#[derive(Debug)]
pub struct ListEncoder {
    n: Negotiated,
    shape: ListShape,
    previous: Previous,
    first: bool,
    access_acls: Said<Acl>,
    default_acls: Said<Acl>,
    xattrs: Said<XattrSet>,
    /// Index of the current segment's first entry, and of the next entry.
    start: u32,
    next: u32,
    /// The first name of each file that has several.
    links: HashMap<LinkId, FirstName>,
    /// Names that go with the first entry of each owner and group (incremental recursion).
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

/// What a reader takes over from the first name of a file for the further ones.
#[derive(Debug, Clone, Copy)]
struct FirstName {
    ndx: u32,
    mode: u32,
    mtime: i64,
    atime: i64,
    uid: u32,
    gid: u32,
    major: Option<u32>,
}

/// What is told of an entry as the entries before it have it, beside what it says itself.
struct EntryParts {
    /// What is as before.
    flags: u32,
    /// The number of a device.
    rdev: Option<(u32, u32)>,
    /// The name of an owner, of a group that no entry has had yet.
    user: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
    /// The file it is a name of, before 30.
    link: Option<LinkId>,
}

impl ListEncoder {
    /// A list for this session.
    pub fn new(n: &Negotiated, shape: ListShape) -> Self {
        let start = n.compat.has(Compat::INC_RECURSE).into();
        Self {
            n: *n,
            shape,
            previous: Previous::default(),
            first: true,
            access_acls: Said::default(),
            default_acls: Said::default(),
            xattrs: Said::default(),
            start,
            next: start,
            links: HashMap::new(),
            users: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    /// Names of owners and groups that no entry has had yet; each goes with the first that has it (incremental
    /// recursion). Those longer than 255 bytes stay out.
    pub fn know(&mut self, names: IdNames) {
        let fits = |(_, name): &(u32, Vec<u8>)| name.len() <= 255;
        self.users.extend(names.users.into_iter().filter(fits));
        self.groups.extend(names.groups.into_iter().filter(fits));
    }

    /// Writes one entry. Entries must be written in the order of their indexes if any has several names, or if names are
    /// converted; whoever lists them leaves out names and targets that cannot be.
    // One function, long as it is: an entry's fields in their order on the wire, beside `entry` of the decoder.
    pub fn entry(&mut self, entry: &FileEntry, out: &mut Vec<u8>) {
        let (shape, previous) = (self.shape, &mut self.previous);
        let kind = entry.kind();
        let rdev = match kind {
            Some(Kind::Device) if shape.devices => Some(entry.extra.rdev.unwrap_or_default()),
            // The number means nothing: the cheapest one goes.
            Some(Kind::Special) if shape.specials && self.n.version < 31 => Some((previous.major, 0)),
            _ => None,
        };
        let version = self.n.version;
        let mut flags = if kind == Some(Kind::Dir) { dir_flags(version, entry.extra.dir_class) } else { 0 };
        let mut set = |bit: u32, when: bool| flags |= if when { bit } else { 0 };
        set(flag::SAME_MODE, entry.mode == previous.mode);
        set(flag::SAME_UID, !shape.owner || (!self.first && entry.uid == previous.uid));
        set(flag::SAME_GID, !shape.group || (!self.first && entry.gid == previous.gid));
        set(flag::SAME_TIME, entry.mtime == previous.mtime);
        set(flag::MOD_NSEC, entry.nsec != 0 && self.n.version >= 31);
        let has_atime = shape.atimes && kind != Some(Kind::Dir);
        set(flag::SAME_ATIME, has_atime && version >= 28 && entry.extra.atime == previous.atime);
        set(rdev.map_or(0, |rdev| rdev_flags(version, kind == Some(Kind::Special), rdev, previous)), true);
        let own = self.next;
        let link = entry.extra.link.filter(|_| shape.hard_links && kind != Some(Kind::Dir));
        let old_link = old_link(version, own, link, kind, shape.hard_links);
        let same_dev = old_link.is_some_and(|id| version >= 28 && id.dev.wrapping_add(1) == previous.link_dev);
        set(flag::SAME_DEV, same_dev);
        set(flag::HLINKED, link.is_some() && version >= 28);
        let link = link.filter(|_| version >= 30);
        let first_name = link.map(|id| {
            *self.links.entry(id).or_insert(FirstName {
                ndx: own,
                mode: entry.mode,
                mtime: entry.mtime,
                atime: entry.extra.atime,
                uid: entry.uid,
                gid: entry.gid,
                major: rdev.map(|(major, _)| major),
            })
        });
        set(flag::HLINK_FIRST, first_name.is_some_and(|first| first.ndx == own));
        let further = first_name.filter(|first| first.ndx != own);
        let abbreviated = further.filter(|first| first.ndx >= self.start);
        let new_user = if shape.owner && flags & flag::SAME_UID == 0 { self.users.remove(&entry.uid) } else { None };
        let new_group = if shape.group && flags & flag::SAME_GID == 0 { self.groups.remove(&entry.gid) } else { None };
        let mut set = |bit: u32, when: bool| flags |= if when { bit } else { 0 };
        set(flag::USER_NAME_FOLLOWS, new_user.is_some());
        set(flag::GROUP_NAME_FOLLOWS, new_group.is_some());
        let name =
            self.shape.charset.map_or(Cow::Borrowed(&entry.name), |set| Cow::Owned(set.text_to_utf8(&entry.name)));
        let shared = name.iter().zip(&previous.name).take(PREFIX_MOST).take_while(|(a, b)| a == b).count();
        let suffix = &name[shared..];
        set(flag::SAME_NAME, shared > 0);
        set(flag::LONG_NAME, suffix.len() > 255);

        let flags = self.put_flags(flags, kind == Some(Kind::Dir), out);
        if shared > 0 {
            out.push(shared as u8);
        }
        match flags & flag::LONG_NAME {
            0 => out.push(suffix.len() as u8),
            _ => self.n.ints().put_int(out, suffix.len() as i32),
        }
        out.extend_from_slice(suffix);
        if let Some(first) = further {
            put_varint(out, first.ndx as i32);
        }
        if abbreviated.is_none() {
            self.attributes(entry, EntryParts { flags, rdev, user: new_user, group: new_group, link: old_link }, out);
        }
        self.shared(entry, out);
        let previous = &mut self.previous;
        if has_atime {
            previous.atime = abbreviated.map_or(entry.extra.atime, |first| first.atime);
        }
        previous.name.clone_from(&name);
        (previous.mode, previous.mtime) = (entry.mode, entry.mtime);
        (previous.uid, previous.gid) = (entry.uid, entry.gid);
        let mut major = rdev.map(|(major, _)| major);
        // The reader has only the first name's attributes, even if the file has changed since.
        if let Some(first) = abbreviated {
            (previous.mode, previous.mtime) = (first.mode, first.mtime);
            (previous.uid, previous.gid) = (first.uid, first.gid);
            major = first.major;
        }
        previous.major = major.unwrap_or(previous.major);
        if let Some((major, minor)) = rdev.filter(|_| kind == Some(Kind::Device)) {
            previous.rdev = whole(major, minor);
        }
        if let Some(id) = old_link {
            previous.link_dev = id.dev.wrapping_add(1);
        }
        self.first = false;
        self.next += 1;
    }

    /// Everything behind the name but what entries share.
    fn attributes(&self, entry: &FileEntry, told: EntryParts, out: &mut Vec<u8>) {
        let EntryParts { flags, rdev, user, group, link } = told;
        let kind = entry.kind();
        let (version, ints) = (self.n.version, self.n.ints());
        ints.put_long(out, entry.len as i64, 3);
        match ints {
            _ if flags & flag::SAME_TIME != 0 => {}
            Ints::Packed => put_varlong(out, entry.mtime, 4),
            // What does not fit is cut off.
            Ints::Fixed => out.extend_from_slice(&(entry.mtime as u32).to_le_bytes()),
        }
        if flags & flag::MOD_NSEC != 0 {
            put_varint(out, entry.nsec as i32);
        }
        if flags & flag::SAME_MODE == 0 {
            out.extend_from_slice(&entry.mode.to_le_bytes());
        }
        if self.shape.atimes && kind != Some(Kind::Dir) && flags & flag::SAME_ATIME == 0 {
            put_varlong(out, entry.extra.atime, 4);
        }
        if flags & flag::SAME_UID == 0 {
            ints.put_int(out, entry.uid as i32);
            put_name(user, out);
        }
        if flags & flag::SAME_GID == 0 {
            ints.put_int(out, entry.gid as i32);
            put_name(group, out);
        }
        if let Some(rdev) = rdev {
            put_rdev(version, flags, rdev, out);
        }
        if let (Some(Kind::Symlink), true) = (kind, self.shape.links) {
            let target = entry.extra.target.as_deref().unwrap_or_default();
            let set = self.shape.charset.filter(|_| self.n.compat.has(Compat::SYMLINK_ICONV));
            let target = set.map_or(Cow::Borrowed(target), |set| Cow::Owned(set.text_to_utf8(target)));
            ints.put_int(out, target.len() as i32);
            out.extend_from_slice(&target);
        }
        if let Some(id) = link {
            if flags & flag::SAME_DEV == 0 || version < 28 {
                ints.put_long(out, id.dev.wrapping_add(1) as i64, 3);
            }
            ints.put_long(out, id.ino as i64, 3);
        }
        if self.shape.sum_size > 0 && (kind == Some(Kind::File) || version < 28) {
            // A file that could not be read has a sum of zeros.
            let mut sum = entry.extra.sum.map(|sum| sum.as_bytes().to_vec()).unwrap_or_default();
            sum.resize(self.shape.sum_size, 0);
            out.extend_from_slice(&sum);
        }
    }

    /// ACLs and extended attributes.
    fn shared(&mut self, entry: &FileEntry, out: &mut Vec<u8>) {
        let (users, groups) = (&mut self.users, &mut self.groups);
        let mut put = |acl: &Acl, out: &mut Vec<u8>| {
            acl.encode(out, |group, id| if group { groups.remove(&id) } else { users.remove(&id) });
        };
        if self.shape.acls && entry.kind() != Some(Kind::Symlink) {
            self.access_acls.encode(&entry.extra.access_acl.clone().unwrap_or_default(), out, &mut put);
            if entry.is_dir() {
                self.default_acls.encode(&entry.extra.default_acl.clone().unwrap_or_default(), out, &mut put);
            }
        }
        if self.shape.xattrs {
            self.xattrs.encode(&entry.extra.xattrs.clone().unwrap_or_default(), out, XattrSet::encode);
        }
    }

    /// Writes the flags, and returns them with what they needed not to be the end of the list.
    fn put_flags(&self, flags: u32, dir: bool, out: &mut Vec<u8>) -> u32 {
        if self.n.compat.has(Compat::VARINT_FLIST_FLAGS) {
            let flags = if flags == 0 { flag::EXTENDED } else { flags };
            put_varint(out, flags as i32);
            return flags;
        }
        let filler = match (self.n.version, dir) {
            (_, false) => flag::TOP_DIR,
            (..28, true) => flag::LONG_NAME,
            (_, true) => flag::EXTENDED,
        };
        let flags = if flags == 0 { filler } else { flags };
        if flags > 0xff || flags == flag::EXTENDED && self.n.version >= 28 {
            out.extend_from_slice(&((flags | flag::EXTENDED) as u16).to_le_bytes());
        } else {
            out.push(flags as u8);
        }
        flags
    }

    /// Ends the list; `io_error` are the bits of trouble while it was made.
    pub fn end(&mut self, io_error: i32, names: &IdNames, out: &mut Vec<u8>) {
        self.end_segment(io_error, out);
        if !self.shape.numeric_ids {
            let (ints, id0) = (self.n.ints(), self.n.compat.has(Compat::ID0_NAMES));
            if self.shape.owner || self.shape.acls {
                encode_ids(&names.users, ints, id0, out);
            }
            if self.shape.group || self.shape.acls {
                encode_ids(&names.groups, ints, id0, out);
            }
        }
        if self.n.version < 30 {
            out.extend_from_slice(&io_error.to_le_bytes());
        }
    }

    /// Ends a segment (incremental recursion); the next one goes on where it ended.
    pub fn end_segment(&mut self, io_error: i32, out: &mut Vec<u8>) {
        if self.n.compat.has(Compat::VARINT_FLIST_FLAGS) {
            put_varint(out, 0);
            put_varint(out, io_error);
        } else if io_error != 0 && self.n.version >= 30 && self.reports_errors() {
            out.extend_from_slice(&(flag::END_WITH_ERROR as u16).to_le_bytes());
            put_varint(out, io_error);
        } else {
            out.push(0);
        }
        self.next += 1;
        self.start = self.next;
    }

    /// Whether the end of the list can say that there were errors; where it cannot, a message must.
    pub fn reports_errors(&self) -> bool {
        self.n.version != 30 || self.n.compat.has(Compat::SAFE_FLIST)
    }
}

/// How a directory takes part, as its flags say it. Before 30 they tell arguments only, which come with their contents.
fn dir_flags(version: u8, class: DirClass) -> u32 {
    match class {
        DirClass::Content => 0,
        DirClass::Argument => flag::TOP_DIR,
        DirClass::NoContent | DirClass::Implied if version < 30 => 0,
        DirClass::NoContent => flag::NO_CONTENT_DIR,
        DirClass::Implied => flag::TOP_DIR | flag::NO_CONTENT_DIR,
    }
}

/// What an entry says of the file it is a name of, before 30. Before 28 each regular file does, so one with a single name
/// gets a number that no other has: no device is 0.
fn old_link(version: u8, own: u32, link: Option<LinkId>, kind: Option<Kind>, hard_links: bool) -> Option<LinkId> {
    match version {
        30.. => None,
        28 | 29 => link,
        _ if !hard_links || kind != Some(Kind::File) => None,
        _ => link.or(Some(LinkId { dev: 0, ino: u64::from(own) + 1 })),
    }
}

fn put_name(name: Option<Vec<u8>>, out: &mut Vec<u8>) {
    if let Some(name) = name {
        // Never longer than the length byte says: see `know`.
        out.push(name.len() as u8);
        out.extend_from_slice(&name);
    }
}
