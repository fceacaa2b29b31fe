//! Reading the file list. Counterpart: rsync's `recv_file_entry`. Nothing in it is trusted.

use super::ids::{IDS_MOST, decode_id};
use super::{DirClass, FileEntry, FileList, IdNames, Kind, ListShape, Previous, flag, unsafe_name};
use crate::PeerError;
use crate::acl::{Acl, NamedId};
use crate::checksum::Sum;
use crate::handshake::{Compat, Negotiated};
use crate::mux::IO_ERROR_BITS;
use crate::shared::{Heard, Item};
use crate::wire::{Decode, Decoded, Reader};
use crate::xattr::XattrSet;
use std::sync::Arc;

/// Longest name, and longest symlink target, with room for a terminating NUL at the peer.
const PATH_MOST: usize = 4095;

/// How much list a peer may make us hold.
#[derive(Debug, Clone, Copy)]
pub struct ListLimits {
    /// Entries.
    pub entries: usize,
    /// Bytes of names, targets and extended attributes, all together.
    pub name_bytes: usize,
}

impl Default for ListLimits {
    fn default() -> Self {
        Self { entries: 10_000_000, name_bytes: 1 << 30 }
    }
}

/// Reads a list entry by entry.
#[derive(Debug)]
pub struct ListDecoder {
    n: Negotiated,
    shape: ListShape,
    limits: ListLimits,
    previous: Previous,
    stage: Stage,
    entries: Vec<FileEntry>,
    /// Entries of earlier segments.
    kept: usize,
    name_bytes: usize,
    /// Whether names begin with a slash.
    rooted: Option<bool>,
    names: IdNames,
    io_error: i32,
    access_acls: Heard<Acl>,
    default_acls: Heard<Acl>,
    xattrs: Heard<XattrSet>,
}

/// What stands at the end of an entry, often by number.
#[derive(Default)]
struct Attributes {
    access_acl: Option<Item<Acl>>,
    default_acl: Option<Item<Acl>>,
    xattrs: Option<Item<XattrSet>>,
    named: Vec<NamedId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Entries,
    Users,
    Groups,
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
}

impl ListDecoder {
    /// A list of this session.
    pub fn new(n: &Negotiated, shape: ListShape, limits: ListLimits) -> Self {
        Self {
            n: *n,
            shape,
            limits,
            previous: Previous::default(),
            stage: Stage::Entries,
            entries: Vec::new(),
            kept: 0,
            name_bytes: 0,
            rooted: None,
            names: IdNames::default(),
            io_error: 0,
            access_acls: Heard::default(),
            default_acls: Heard::default(),
            xattrs: Heard::default(),
        }
    }

    /// Reads one more item of the list; true when it was the last. After [`Decode::Incomplete`] nothing has changed.
    pub fn step(&mut self, reader: &mut Reader<'_>) -> Decoded<bool> {
        match self.stage {
            Stage::Entries => {
                if let Some(flags) = self.flags(reader)? {
                    let (mut entry, previous) = self.entry(flags, reader)?;
                    let attributes = self.attributes(&entry, reader)?;
                    self.adopt(&mut entry, attributes)?;
                    self.check_rooted(previous.name.starts_with(b"/"))?;
                    self.keep(entry)?;
                    self.previous = previous;
                } else {
                    self.stage = self.after(Stage::Entries);
                }
            }
            stage => {
                let (id, name) = decode_id(reader, self.n.compat.has(Compat::ID0_NAMES))?;
                let names = if stage == Stage::Users { &mut self.names.users } else { &mut self.names.groups };
                if names.len() >= IDS_MOST {
                    return Err(PeerError::Malformed("an id list without end").into());
                }
                if let Some(name) = name.filter(|name| !name.is_empty()) {
                    names.push((id, name));
                }
                if id == 0 {
                    self.stage = self.after(stage);
                }
            }
        }
        Ok(self.stage == Stage::Complete)
    }

    /// The entries of this list or segment that have arrived so far, in the order they came.
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// Takes the segment that [`ListDecoder::step`] has completed, and makes ready for the next one (incremental
    /// recursion). What entries leave out because the one before had it spans segments, and so do the limits.
    pub fn next_segment(&mut self) -> Arrived {
        self.stage = Stage::Entries;
        self.kept += self.entries.len();
        Arrived {
            list: FileList::new(std::mem::take(&mut self.entries)),
            names: std::mem::take(&mut self.names),
            io_error: std::mem::take(&mut self.io_error),
        }
    }

    /// The list, once [`ListDecoder::step`] has said that it is complete.
    pub fn finish(self) -> Arrived {
        Arrived { list: FileList::new(self.entries), names: self.names, io_error: self.io_error }
    }

    fn after(&self, stage: Stage) -> Stage {
        // With incremental recursion names of owners and groups stand in the entries.
        let ids = !self.shape.numeric_ids && !self.n.compat.has(Compat::INC_RECURSE);
        match stage {
            Stage::Entries if ids && (self.shape.owner || self.shape.acls) => Stage::Users,
            Stage::Entries | Stage::Users if ids && (self.shape.group || self.shape.acls) => Stage::Groups,
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
        if flags & flag::EXTENDED != 0 {
            flags |= u32::from(reader.byte()?) << 8;
        }
        if flags == flag::END_WITH_ERROR {
            self.io_error = reader.varint()? & IO_ERROR_BITS;
            return Ok(None);
        }
        Ok(Some(flags))
    }

    fn entry(&self, flags: u32, reader: &mut Reader<'_>) -> Decoded<(FileEntry, Previous)> {
        let shape = self.shape;
        if flags & flag::HLINKED != 0 {
            return Err(PeerError::NotOffered("hard links").into());
        }
        let mut previous = self.previous.clone();
        let shared = if flags & flag::SAME_NAME != 0 { usize::from(reader.byte()?) } else { 0 };
        let suffix = if flags & flag::LONG_NAME != 0 {
            reader.size("name length", PATH_MOST as u32)? as usize
        } else {
            reader.byte()?.into()
        };
        if shared > previous.name.len() || shared + suffix > PATH_MOST {
            return Err(PeerError::Malformed("a name that is too long, or shares more than there is").into());
        }
        previous.name.truncate(shared);
        previous.name.extend_from_slice(reader.take(suffix)?);

        let len = u64::try_from(reader.varlong(3)?).map_err(|_| PeerError::Malformed("a negative file length"))?;
        if flags & flag::SAME_TIME == 0 {
            previous.mtime = reader.varlong(4)?;
        }
        let nsec = if flags & flag::MOD_NSEC != 0 && self.n.version >= 31 {
            reader.size("nanoseconds", 999_999_999)?
        } else {
            0
        };
        if flags & flag::SAME_MODE == 0 {
            previous.mode = reader.uint()?;
        }
        let has_atime = shape.atimes && previous.mode & 0o170000 != 0o040000;
        if has_atime && flags & flag::SAME_ATIME == 0 {
            previous.atime = reader.varlong(4)?;
        }
        if shape.owner && flags & flag::SAME_UID == 0 {
            previous.uid = reader.varint()? as u32;
            if flags & flag::USER_NAME_FOLLOWS != 0 {
                let len = reader.byte()?;
                reader.take(len.into())?;
            }
        }
        if shape.group && flags & flag::SAME_GID == 0 {
            previous.gid = reader.varint()? as u32;
            if flags & flag::GROUP_NAME_FOLLOWS != 0 {
                let len = reader.byte()?;
                reader.take(len.into())?;
            }
        }
        let mut entry = FileEntry {
            name: clean_name(&previous.name, shape.relative)?,
            mode: previous.mode,
            len,
            mtime: previous.mtime,
            nsec,
            atime: if has_atime { previous.atime } else { 0 },
            uid: previous.uid,
            gid: previous.gid,
            target: None,
            rdev: None,
            sum: None,
            access_acl: None,
            default_acl: None,
            xattrs: None,
            dir_class: DirClass::Content,
        };
        let kind = entry.kind().ok_or(PeerError::Range {
            what: "mode of an entry",
            value: entry.mode.into(),
            expected: "a file, directory, link or device",
        })?;
        match kind {
            Kind::Device if shape.devices => entry.rdev = Some(self.rdev(flags, &mut previous, reader)?),
            Kind::Special if shape.specials && self.n.version < 31 => {
                self.rdev(flags, &mut previous, reader)?;
            }
            Kind::Symlink if shape.links => {
                let len = reader.size("symlink target length", PATH_MOST as u32)?;
                let target = reader.take(len as usize)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(unsafe_name(&entry.name, "its symlink target is empty or holds a NUL").into());
                }
                entry.target = Some(target.to_vec());
            }
            Kind::File if shape.sum_size > 0 => entry.sum = Sum::new(reader.take(shape.sum_size)?),
            Kind::Dir => {
                entry.dir_class = match (flags & flag::TOP_DIR != 0, flags & flag::NO_CONTENT_DIR != 0) {
                    (false, false) => DirClass::Content,
                    (true, false) => DirClass::Argument,
                    (false, true) => DirClass::NoContent,
                    (true, true) => DirClass::Implied,
                };
            }
            _ => {}
        }
        if entry.name == b"." && kind != Kind::Dir {
            return Err(unsafe_name(&entry.name, "the root must be a directory").into());
        }
        Ok((entry, previous))
    }

    /// ACLs and extended attributes.
    fn attributes(&self, entry: &FileEntry, reader: &mut Reader<'_>) -> Decoded<Attributes> {
        let mut found = Attributes::default();
        let named = &mut found.named;
        if self.shape.acls && entry.kind() != Some(Kind::Symlink) {
            let what = "ACL number";
            found.access_acl = Some(self.access_acls.decode(reader, what, |reader| Acl::decode(reader, named))?);
            if entry.is_dir() {
                found.default_acl = Some(self.default_acls.decode(reader, what, |reader| Acl::decode(reader, named))?);
            }
        }
        if self.shape.xattrs {
            found.xattrs = Some(self.xattrs.decode(reader, "extended attributes' number", XattrSet::decode)?);
        }
        Ok(found)
    }

    /// Gives the entry its attributes, and numbers those that came whole.
    fn adopt(&mut self, entry: &mut FileEntry, found: Attributes) -> Result<(), Decode> {
        let mut fresh = found.named.iter().map(|named| named.name.len()).sum::<usize>();
        for named in found.named {
            let names = if named.group { &mut self.names.groups } else { &mut self.names.users };
            if names.len() >= IDS_MOST {
                return Err(PeerError::Malformed("names of ids without end").into());
            }
            names.push((named.id, named.name));
        }
        let acl_bytes = |(acl, new): (Arc<Acl>, bool), fresh: &mut usize| {
            *fresh += if new { size_of::<Acl>() + size_of_val(&acl.names[..]) } else { 0 };
            acl
        };
        let keep = |item| acl_bytes(self.access_acls.keep(item), &mut fresh);
        entry.access_acl = found.access_acl.map(keep);
        let keep = |item| acl_bytes(self.default_acls.keep(item), &mut fresh);
        entry.default_acl = found.default_acl.map(keep);
        entry.xattrs = found.xattrs.map(|item| {
            let (xattrs, new) = self.xattrs.keep(item);
            fresh += if new { xattrs.bytes() + size_of_val(&xattrs.0[..]) } else { 0 };
            xattrs
        });
        self.name_bytes += fresh;
        Ok(())
    }

    fn rdev(&self, flags: u32, previous: &mut Previous, reader: &mut Reader<'_>) -> Decoded<(u32, u32)> {
        if flags & flag::SAME_RDEV_MAJOR == 0 {
            previous.major = reader.varint()? as u32;
        }
        Ok((previous.major, reader.varint()? as u32))
    }

    /// Leading slashes count in the peer's order and are gone in ours: a list that mixes both kinds of names would give its
    /// entries other indexes here than there, so it is refused.
    fn check_rooted(&mut self, rooted: bool) -> Result<(), Decode> {
        if *self.rooted.get_or_insert(rooted) == rooted {
            Ok(())
        } else {
            Err(PeerError::Malformed("absolute and relative names in one file list; send them one after the other")
                .into())
        }
    }

    fn keep(&mut self, entry: FileEntry) -> Result<(), Decode> {
        self.name_bytes += entry.name.len() + entry.target.as_ref().map_or(0, Vec::len);
        if self.kept + self.entries.len() >= self.limits.entries || self.name_bytes > self.limits.name_bytes {
            return Err(PeerError::Malformed("a file list larger than our limit").into());
        }
        self.entries.push(entry);
        Ok(())
    }
}

/// A name without repeated slashes and `.` components; refused where it would leave the root.
fn clean_name(name: &[u8], relative: bool) -> Result<Vec<u8>, PeerError> {
    if name.is_empty() {
        return Err(unsafe_name(name, "it is empty"));
    }
    if name.contains(&0) {
        return Err(unsafe_name(name, "it holds a NUL"));
    }
    if name.starts_with(b"/") && !relative {
        return Err(unsafe_name(name, "it is absolute"));
    }
    let mut clean = Vec::with_capacity(name.len());
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(unsafe_name(name, "it holds ..")),
            component => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(component);
            }
        }
    }
    if clean.is_empty() {
        clean.push(b'.');
    }
    Ok(clean)
}
