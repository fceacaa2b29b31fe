//! Reading the file list. Counterpart: rsync's `recv_file_entry`. Nothing in it is trusted.

mod attributes;
mod name;

use super::ids::{IDS_MOST, decode_id};
use super::rdev::rdev;
use super::{
    DirClass, Extra, FileEntry, FileList, IdNames, Kind, LinkId, ListLimits, ListShape, Previous, Sorting, flag,
    unsafe_name,
};
use crate::PeerError;
use crate::acl::Acl;
use crate::checksum::Sum;
use crate::handshake::{Compat, Negotiated};
use crate::mux::IO_ERROR_BITS;
use crate::shared::Heard;
use crate::wire::{Decode, Decoded, Ints, Reader};
use crate::xattr::XattrSet;
use std::collections::HashSet;

/// Longest name, and longest symlink target, with room for a terminating NUL at the peer.
const PATH_MOST: usize = 4095;

/// Reads a list entry by entry.
#[derive(Debug)]
pub struct ListDecoder {
    n: Negotiated,
    shape: ListShape,
    /// What is left of the limits.
    left: ListLimits,
    /// What was to be had beside the list.
    most_beside: usize,
    previous: Previous,
    /// Memory for the one that comes next.
    spare: Previous,
    stage: Stage,
    /// Index of the first entry.
    start: u32,
    entries: Vec<FileEntry>,
    /// What the entries came to.
    held: ListLimits,
    /// First names of files that have several, by index.
    links: HashSet<u32>,
    /// Which entries' names began with a slash.
    rooted: Vec<bool>,
    names: IdNames,
    io_error: i32,
    access_acls: Heard<Acl>,
    default_acls: Heard<Acl>,
    xattrs: Heard<XattrSet>,
    unconverted: Vec<Unconverted>,
    /// Bytes that the list or segment has come to so far.
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Entries,
    Users,
    Groups,
    /// Bits of trouble, before 30.
    Errors,
    Complete,
}

/// A list that has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrived {
    /// The list, sorted.
    pub list: FileList,
    /// Names of owners and groups.
    pub names: IdNames,
    /// Bits of trouble the sending side had while it made the list.
    pub io_error: i32,
    /// What is not in the list since it cannot be had in our character set.
    pub unconverted: Vec<Unconverted>,
    /// How long it was on the wire, framing aside.
    pub bytes: u64,
    /// What it takes of the limits, until [`ListDecoder::release`].
    pub(crate) held: ListLimits,
}

/// An entry that cannot be told in our character set; it has an index and is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconverted {
    /// Its name as it came, in UTF-8 for all we know.
    pub name: Vec<u8>,
    /// The name could be had, but not what the symlink points to.
    pub target: bool,
}

impl ListDecoder {
    /// A list of this session.
    pub fn new(n: &Negotiated, shape: ListShape, limits: ListLimits) -> Self {
        Self {
            n: *n,
            shape,
            left: limits,
            most_beside: limits.beside,
            previous: Previous::default(),
            spare: Previous::default(),
            stage: Stage::Entries,
            start: n.compat.has(Compat::INC_RECURSE).into(),
            entries: Vec::new(),
            held: ListLimits::NONE,
            links: HashSet::new(),
            rooted: Vec::new(),
            names: IdNames::default(),
            io_error: 0,
            access_acls: Heard::default(),
            default_acls: Heard::default(),
            xattrs: Heard::default(),
            unconverted: Vec::new(),
            bytes: 0,
        }
    }

    /// Reads one more item of the list; true when it was the last. After [`Decode::Incomplete`] nothing has changed.
    pub fn step(&mut self, reader: &mut Reader<'_>) -> Decoded<bool> {
        let before = reader.position();
        match self.stage {
            Stage::Entries => {
                if let Some(flags) = self.flags(reader)? {
                    let (users, groups) = (self.names.users.len(), self.names.groups.len());
                    let (mut entry, previous) = self.entry(flags, reader)?;
                    let attributes = match self.attributes(&entry, reader) {
                        Ok(attributes) => attributes,
                        Err(error) => {
                            self.names.users.truncate(users);
                            self.names.groups.truncate(groups);
                            return Err(error);
                        }
                    };
                    self.adopt(&mut entry, attributes)?;
                    self.hold_names(users, groups)?;
                    let rooted = previous.name.starts_with(b"/");
                    if entry.name.is_empty() {
                        let target = self.local_name(&previous.name)?.is_some();
                        let name = previous.name.clone();
                        self.hold(ListLimits { name_bytes: name.len(), ..ListLimits::NONE })?;
                        self.unconverted.push(Unconverted { name, target });
                    }
                    self.keep(entry)?;
                    self.rooted.push(rooted);
                    self.spare = std::mem::replace(&mut self.previous, previous);
                } else {
                    self.stage = self.after(Stage::Entries);
                }
            }
            Stage::Errors => {
                self.io_error = reader.int()? & IO_ERROR_BITS;
                self.stage = Stage::Complete;
            }
            stage => {
                let (id, name) = decode_id(reader, self.n.ints(), self.n.compat.has(Compat::ID0_NAMES))?;
                let names = if stage == Stage::Users { &mut self.names.users } else { &mut self.names.groups };
                if names.len() >= IDS_MOST {
                    return Err(PeerError::Malformed("an id list without end").into());
                }
                if let Some(name) = name.filter(|name| !name.is_empty()) {
                    let takes = name_memory(&name);
                    names.push((id, name));
                    self.hold_beside(takes)?;
                }
                if id == 0 {
                    self.stage = self.after(stage);
                }
            }
        }
        self.bytes += (reader.position() - before) as u64;
        Ok(self.stage == Stage::Complete)
    }

    /// The entries of this list or segment that have arrived so far, in the order they came.
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// Names of owners and groups that came with this list or segment so far.
    pub fn names(&self) -> &IdNames {
        &self.names
    }

    /// Takes the list or segment that [`ListDecoder::step`] has completed, and makes ready for the next one (incremental
    /// recursion). What entries leave out because the one before had it spans segments, and so do the limits.
    pub fn next_segment(&mut self) -> Arrived {
        self.stage = Stage::Entries;
        let mut entries = std::mem::take(&mut self.entries);
        if self.n.version < 30 {
            infer_contents(&mut entries, self.shape);
        }
        let sorting = Sorting::of(self.n.version);
        let rooted = std::mem::take(&mut self.rooted);
        let list = match self.shape.charset {
            None if name::are_mixed(&rooted) => {
                name::sort_with_slashes(sorting, &mut entries, rooted);
                FileList::as_it_came(sorting, self.start, entries)
            }
            None => FileList::sorted(sorting, self.start, entries),
            Some(_) => FileList::as_it_came(sorting, self.start, entries),
        };
        self.start = self.start.saturating_add(list.len() as u32).saturating_add(1);
        Arrived {
            list,
            names: std::mem::take(&mut self.names),
            io_error: std::mem::take(&mut self.io_error),
            unconverted: std::mem::take(&mut self.unconverted),
            bytes: std::mem::take(&mut self.bytes),
            held: std::mem::replace(&mut self.held, ListLimits::NONE),
        }
    }

    /// Counts out what is no longer held of the list.
    pub(crate) fn release(&mut self, held: ListLimits) {
        self.left.put_back(held);
    }

    /// Counts in what is held of the list for longer than its segment.
    pub(crate) fn hold(&mut self, what: ListLimits) -> Result<(), PeerError> {
        if self.left.take(what) { Ok(()) } else { Err(too_large()) }
    }

    /// Counts in the names of owners and groups behind the first so many.
    fn hold_names(&mut self, users: usize, groups: usize) -> Result<(), PeerError> {
        let fresh = self.names.users[users..].iter().chain(&self.names.groups[groups..]);
        let takes = fresh.map(|(_, name)| name_memory(name)).sum();
        self.hold_beside(takes)
    }

    fn hold_beside(&mut self, bytes: usize) -> Result<(), PeerError> {
        let what = ListLimits { beside: bytes, ..ListLimits::NONE };
        let too_much = PeerError::TooMuch { what: "names of owners and groups", most: self.most_beside };
        if self.left.take(what) { Ok(()) } else { Err(too_much) }
    }

    fn after(&self, stage: Stage) -> Stage {
        // With incremental recursion names of owners and groups stand in the entries.
        let ids = !self.shape.numeric_ids && !self.n.compat.has(Compat::INC_RECURSE);
        match stage {
            Stage::Entries if ids && (self.shape.owner || self.shape.acls) => Stage::Users,
            Stage::Entries | Stage::Users if ids && (self.shape.group || self.shape.acls) => Stage::Groups,
            _ if self.n.version < 30 => Stage::Errors,
            _ => Stage::Complete,
        }
    }

    /// The flags word, or `None` at the end of the entries.
    fn flags(&mut self, reader: &mut Reader<'_>) -> Decoded<Option<u32>> {
        if self.n.compat.has(Compat::VARINT_FLIST_FLAGS) {
            let flags = reader.varint()? as u32;
            if flags == 0 {
                self.io_error = reader.varint()? & IO_ERROR_BITS;
                return Ok(None);
            }
            return Ok(Some(flags));
        }
        let mut flags = u32::from(reader.byte()?);
        if flags == 0 {
            return Ok(None);
        }
        if flags & flag::EXTENDED != 0 && self.n.version >= 28 {
            flags |= u32::from(reader.byte()?) << 8;
        }
        if flags == flag::END_WITH_ERROR && self.n.version >= 30 {
            self.io_error = reader.varint()? & IO_ERROR_BITS;
            return Ok(None);
        }
        Ok(Some(flags))
    }

    // One function, long as it is: an entry's fields in their order on the wire, beside `entry` of the encoder.
    fn entry(&mut self, flags: u32, reader: &mut Reader<'_>) -> Decoded<(FileEntry, Previous)> {
        let (shape, version, ints) = (self.shape, self.n.version, self.n.ints());
        let mut previous = std::mem::take(&mut self.spare);
        previous.copy(&self.previous);
        let shared = if flags & flag::SAME_NAME != 0 { usize::from(reader.byte()?) } else { 0 };
        let suffix = if flags & flag::LONG_NAME != 0 {
            ints.size(reader, "name length", PATH_MOST as u32)? as usize
        } else {
            reader.byte()?.into()
        };
        if shared > previous.name.len() || shared + suffix > PATH_MOST {
            return Err(PeerError::Malformed("a name that is too long, or shares more than there is").into());
        }
        previous.name.truncate(shared);
        previous.name.extend_from_slice(reader.take(suffix)?);

        let link = match self.link(flags, reader)? {
            Some(first) if flags & flag::HLINK_FIRST == 0 && first >= self.start => {
                return self.abbreviated(first, previous);
            }
            link => link,
        };
        let len = u64::try_from(ints.long(reader, 3)?).map_err(|_| PeerError::Malformed("a negative file length"))?;
        if flags & flag::SAME_TIME == 0 {
            previous.mtime = match ints {
                Ints::Packed => reader.varlong(4)?,
                Ints::Fixed => reader.uint()?.into(),
            };
        }
        let nsec =
            if flags & flag::MOD_NSEC != 0 && version >= 31 { reader.size("nanoseconds", 999_999_999)? } else { 0 };
        if flags & flag::SAME_MODE == 0 {
            previous.mode = reader.uint()?;
        }
        let has_atime = shape.atimes && previous.mode & 0o170000 != 0o040000;
        if has_atime && flags & flag::SAME_ATIME == 0 {
            previous.atime = reader.varlong(4)?;
        }
        let (mut user, mut group) = (None, None);
        if shape.owner && flags & flag::SAME_UID == 0 {
            previous.uid = ints.int(reader)? as u32;
            if flags & flag::USER_NAME_FOLLOWS != 0 && version >= 30 {
                let len = reader.byte()?;
                user = Some(reader.take(len.into())?.to_vec());
            }
        }
        if shape.group && flags & flag::SAME_GID == 0 {
            previous.gid = ints.int(reader)? as u32;
            if flags & flag::GROUP_NAME_FOLLOWS != 0 && version >= 30 {
                let len = reader.byte()?;
                group = Some(reader.take(len.into())?.to_vec());
            }
        }
        let mut entry = FileEntry {
            name: self.local_name(&previous.name)?.unwrap_or_default(),
            mode: previous.mode,
            len,
            mtime: previous.mtime,
            nsec,
            uid: previous.uid,
            gid: previous.gid,
            extra: Extra::default(),
        };
        if has_atime && previous.atime != 0 {
            entry.extra.atime = previous.atime;
        }
        if let Some(first) = link {
            entry.extra.link = Some(group_of(first));
        }
        let kind = entry.kind();
        if kind.is_none() && !(entry.mode == 0 && shape.missing_args) {
            let expected = "a file, directory, link or device";
            return Err(PeerError::Range { what: "mode of an entry", value: entry.mode.into(), expected }.into());
        }
        match kind {
            Some(Kind::Device) if shape.devices => {
                entry.extra.rdev = Some(rdev(version, flags, &mut previous, reader)?)
            }
            Some(Kind::Special) if shape.specials && version < 31 => {
                rdev(version, flags, &mut previous, reader)?;
            }
            Some(Kind::Symlink) if shape.links => {
                let len = ints.size(reader, "symlink target length", PATH_MOST as u32)?;
                let target = reader.take(len as usize)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(unsafe_name(&entry.name, "its symlink target is empty or holds a NUL").into());
                }
                let set = shape.charset.filter(|_| self.n.compat.has(Compat::SYMLINK_ICONV));
                let target = set.map_or(Some(target.to_vec()), |set| set.from_utf8(target));
                if target.as_ref().is_none_or(|target| target.len() > PATH_MOST) {
                    entry.name.clear();
                }
                entry.extra.target = Some(target.unwrap_or_default());
            }
            Some(Kind::Dir) => {
                let class = dir_class(version, flags);
                if class != DirClass::Content {
                    entry.extra.dir_class = class;
                }
            }
            _ => {}
        }
        if let Some(id) = self.old_link(flags, kind, &mut previous, reader)? {
            entry.extra.link = Some(id);
        }
        if shape.sum_size > 0 && (kind == Some(Kind::File) || version < 28) {
            let sum = Sum::new(reader.take(shape.sum_size)?);
            entry.extra.sum = sum.filter(|_| kind == Some(Kind::File)).or(entry.extra.sum);
        }
        if entry.name == b"." && kind != Some(Kind::Dir) {
            return Err(unsafe_name(&entry.name, "the root must be a directory").into());
        }
        if entry.extra.link.is_some() && kind == Some(Kind::Dir) {
            return Err(unsafe_name(&entry.name, "a directory cannot have several names").into());
        }
        self.names.users.extend(user.map(|name| (entry.uid, name)));
        self.names.groups.extend(group.map(|name| (entry.gid, name)));
        Ok((entry, previous))
    }

    /// The index of the first name of the same file, which may be this one.
    fn link(&self, flags: u32, reader: &mut Reader<'_>) -> Decoded<Option<u32>> {
        if flags & flag::HLINKED == 0 || self.n.version < 30 {
            return Ok(None);
        }
        if !self.shape.hard_links {
            return Err(PeerError::NotOffered("hard links").into());
        }
        let own = self.start.saturating_add(self.entries.len() as u32);
        if flags & flag::HLINK_FIRST != 0 {
            return Ok(Some(own));
        }
        let first = reader.varint()?;
        let known = u32::try_from(first).ok().filter(|first| *first < own && self.links.contains(first));
        let expected = "the index of an earlier entry with several names";
        let unknown = PeerError::Range { what: "hard link", value: first.into(), expected };
        known.map(Some).ok_or(unknown.into())
    }

    /// A further name of a file of the same segment: all but the name is the first one's.
    fn abbreviated(&mut self, first: u32, mut previous: Previous) -> Decoded<(FileEntry, Previous)> {
        let original = self.entries.get((first - self.start) as usize);
        let original = original.ok_or(PeerError::Malformed("a hard link to nothing"))?;
        let entry = FileEntry { name: self.local_name(&previous.name)?.unwrap_or_default(), ..original.clone() };
        if entry.name == b"." {
            return Err(unsafe_name(&entry.name, "the root must be a directory").into());
        }
        (previous.mode, previous.mtime) = (entry.mode, entry.mtime);
        (previous.uid, previous.gid) = (entry.uid, entry.gid);
        if self.shape.atimes {
            previous.atime = entry.extra.atime;
        }
        if let Some((major, _)) = entry.extra.rdev {
            previous.major = major;
        }
        Ok((entry, previous))
    }

    /// What an entry says of the file it is a name of, before 30.
    fn old_link(
        &self,
        flags: u32,
        kind: Option<Kind>,
        previous: &mut Previous,
        reader: &mut Reader<'_>,
    ) -> Decoded<Option<LinkId>> {
        let told = match self.n.version {
            30.. => false,
            28 | 29 => flags & flag::HLINKED != 0 && kind != Some(Kind::Dir),
            _ => kind == Some(Kind::File),
        };
        if !told || !self.shape.hard_links {
            return Ok(None);
        }
        let ints = self.n.ints();
        if flags & flag::SAME_DEV == 0 || self.n.version < 28 {
            previous.link_dev = ints.long(reader, 3)? as u64;
        }
        Ok(Some(LinkId { dev: previous.link_dev.wrapping_sub(1), ino: ints.long(reader, 3)? as u64 }))
    }

    fn keep(&mut self, entry: FileEntry) -> Result<(), Decode> {
        let takes = ListLimits::of(&entry);
        self.hold(takes)?;
        self.held.put_back(takes);
        let own = self.start.saturating_add(self.entries.len() as u32);
        if entry.extra.link == Some(group_of(own)) && self.n.version >= 30 {
            // Kept for the whole session, so never given back.
            self.hold(ListLimits { entries: 1, ..ListLimits::NONE })?;
            self.links.insert(own);
        }
        self.entries.push(entry);
        Ok(())
    }
}

/// How a directory takes part, as its flags say it. Before 30 they tell arguments only; see [`infer_contents`].
fn dir_class(version: u8, flags: u32) -> DirClass {
    match (flags & flag::TOP_DIR != 0, flags & flag::NO_CONTENT_DIR != 0) {
        (true, _) if version < 30 => DirClass::Argument,
        (false, _) if version < 30 => DirClass::NoContent,
        (false, false) => DirClass::Content,
        (true, false) => DirClass::Argument,
        (false, true) => DirClass::NoContent,
        (true, true) => DirClass::Implied,
    }
}

/// Tells the directories whose contents are in the list from those without, where entries do not say it: they are those
/// beneath an argument of a recursive transfer.
fn infer_contents(entries: &mut [FileEntry], shape: ListShape) {
    let class = |entry: &FileEntry| entry.extra.dir_class;
    let arguments: HashSet<&[u8]> =
        entries.iter().filter(|entry| class(entry) == DirClass::Argument).map(|entry| &entry.name[..]).collect();
    let within = |entry: &FileEntry| {
        let name = &entry.name;
        let mut above = name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &name[..at]);
        above.any(|dir| arguments.contains(dir)) || arguments.contains(&b"."[..])
    };
    let unsaid = entries.iter().enumerate().filter(|(_, entry)| class(entry) == DirClass::NoContent);
    let told: Vec<_> = unsaid.map(|(at, entry)| (at, shape.recurse && within(entry))).collect();
    for (at, within) in told {
        match (within, shape.relative) {
            (true, _) => entries[at].extra.dir_class = DirClass::Content,
            (false, true) => entries[at].extra.dir_class = DirClass::Implied,
            (false, false) => {}
        }
    }
}

fn group_of(first: u32) -> LinkId {
    LinkId { dev: 0, ino: first.into() }
}

/// What a name comes to in the tables that both ends keep of it: there and back, and with room to spare.
fn name_memory(name: &[u8]) -> usize {
    2 * name.len() + 160
}

fn too_large() -> PeerError {
    PeerError::Malformed("a file list larger than our limit")
}
