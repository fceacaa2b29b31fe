//! Writing the file list. Counterpart: rsync's `send_file_entry`.

use super::ids::encode_ids;
use super::{DirClass, FileEntry, IdNames, Kind, ListShape, Previous, flag};
use crate::acl::Acl;
use crate::handshake::{Compat, Negotiated};
use crate::shared::Said;
use crate::wire::{put_varint, put_varlong};
use crate::xattr::XattrSet;

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
}

impl ListEncoder {
    /// A list for this session.
    pub fn new(n: &Negotiated, shape: ListShape) -> Self {
        Self {
            n: *n,
            shape,
            previous: Previous::default(),
            first: true,
            access_acls: Said::default(),
            default_acls: Said::default(),
            xattrs: Said::default(),
        }
    }

    /// Writes one entry.
    pub fn entry(&mut self, entry: &FileEntry, out: &mut Vec<u8>) {
        let (shape, previous) = (self.shape, &mut self.previous);
        let kind = entry.kind();
        let rdev = match kind {
            Some(Kind::Device) if shape.devices => Some(entry.rdev.unwrap_or_default()),
            // The number means nothing: the cheapest one goes.
            Some(Kind::Special) if shape.specials && self.n.version < 31 => Some((previous.major, 0)),
            _ => None,
        };
        let mut flags = 0;
        let mut set = |bit: u32, when: bool| flags |= if when { bit } else { 0 };
        if kind == Some(Kind::Dir) {
            set(flag::TOP_DIR, matches!(entry.dir_class, DirClass::Argument | DirClass::Implied));
            set(flag::NO_CONTENT_DIR, matches!(entry.dir_class, DirClass::NoContent | DirClass::Implied));
        }
        set(flag::SAME_MODE, entry.mode == previous.mode);
        set(flag::SAME_UID, !shape.owner || (!self.first && entry.uid == previous.uid));
        set(flag::SAME_GID, !shape.group || (!self.first && entry.gid == previous.gid));
        set(flag::SAME_TIME, entry.mtime == previous.mtime);
        set(flag::MOD_NSEC, entry.nsec != 0 && self.n.version >= 31);
        let has_atime = shape.atimes && kind != Some(Kind::Dir);
        set(flag::SAME_ATIME, has_atime && entry.atime == previous.atime);
        set(flag::SAME_RDEV_MAJOR, rdev.is_some_and(|(major, _)| major == previous.major));
        let shared = entry.name.iter().zip(&previous.name).take(PREFIX_MOST).take_while(|(a, b)| a == b).count();
        let suffix = &entry.name[shared..];
        set(flag::SAME_NAME, shared > 0);
        set(flag::LONG_NAME, suffix.len() > 255);

        self.put_flags(flags, kind == Some(Kind::Dir), out);
        if shared > 0 {
            out.push(shared as u8);
        }
        match u8::try_from(suffix.len()) {
            Ok(len) => out.push(len),
            Err(_) => put_varint(out, suffix.len() as i32),
        }
        out.extend_from_slice(suffix);
        put_varlong(out, entry.len as i64, 3);
        if flags & flag::SAME_TIME == 0 {
            put_varlong(out, entry.mtime, 4);
        }
        if flags & flag::MOD_NSEC != 0 {
            put_varint(out, entry.nsec as i32);
        }
        if flags & flag::SAME_MODE == 0 {
            out.extend_from_slice(&entry.mode.to_le_bytes());
        }
        if has_atime && flags & flag::SAME_ATIME == 0 {
            put_varlong(out, entry.atime, 4);
        }
        if flags & flag::SAME_UID == 0 {
            put_varint(out, entry.uid as i32);
        }
        if flags & flag::SAME_GID == 0 {
            put_varint(out, entry.gid as i32);
        }
        if let Some((major, minor)) = rdev {
            if flags & flag::SAME_RDEV_MAJOR == 0 {
                put_varint(out, major as i32);
            }
            put_varint(out, minor as i32);
        }
        if let (Some(Kind::Symlink), true) = (kind, shape.links) {
            let target = entry.target.as_deref().unwrap_or_default();
            put_varint(out, target.len() as i32);
            out.extend_from_slice(target);
        }
        if kind == Some(Kind::File) && shape.sum_size > 0 {
            // A file that could not be read has a sum of zeros.
            let mut sum = entry.sum.map(|sum| sum.as_bytes().to_vec()).unwrap_or_default();
            sum.resize(shape.sum_size, 0);
            out.extend_from_slice(&sum);
        }
        self.attributes(entry, out);
        let previous = &mut self.previous;
        if has_atime {
            previous.atime = entry.atime;
        }
        previous.name.clone_from(&entry.name);
        (previous.mode, previous.mtime) = (entry.mode, entry.mtime);
        (previous.uid, previous.gid) = (entry.uid, entry.gid);
        if let Some((major, _)) = rdev {
            previous.major = major;
        }
        self.first = false;
    }

    /// ACLs and extended attributes.
    fn attributes(&mut self, entry: &FileEntry, out: &mut Vec<u8>) {
        let put = |acl: &Acl, out: &mut Vec<u8>| acl.encode(out, |_, _| None);
        if self.shape.acls && entry.kind() != Some(Kind::Symlink) {
            self.access_acls.encode(&entry.access_acl.clone().unwrap_or_default(), out, put);
            if entry.is_dir() {
                self.default_acls.encode(&entry.default_acl.clone().unwrap_or_default(), out, put);
            }
        }
        if self.shape.xattrs {
            self.xattrs.encode(&entry.xattrs.clone().unwrap_or_default(), out, XattrSet::encode);
        }
    }

    fn put_flags(&self, flags: u32, dir: bool, out: &mut Vec<u8>) {
        if self.n.compat.has(Compat::VARINT_FLIST_FLAGS) {
            // Zero would be the end of the list.
            return put_varint(out, if flags == 0 { flag::EXTENDED } else { flags } as i32);
        }
        let flags = if flags == 0 && !dir { flag::TOP_DIR } else { flags };
        if flags > 0xff || flags == 0 {
            out.extend_from_slice(&((flags | flag::EXTENDED) as u16).to_le_bytes());
        } else {
            out.push(flags as u8);
        }
    }

    /// Ends the list; `io_error` are the bits of trouble while it was made.
    pub fn end(mut self, io_error: i32, names: &IdNames, out: &mut Vec<u8>) {
        self.end_segment(io_error, out);
        if !self.shape.numeric_ids {
            let id0 = self.n.compat.has(Compat::ID0_NAMES);
            if self.shape.owner || self.shape.acls {
                encode_ids(&names.users, id0, out);
            }
            if self.shape.group || self.shape.acls {
                encode_ids(&names.groups, id0, out);
            }
        }
    }

    /// Ends a segment (incremental recursion); the next one goes on where it ended.
    pub fn end_segment(&mut self, io_error: i32, out: &mut Vec<u8>) {
        if self.n.compat.has(Compat::VARINT_FLIST_FLAGS) {
            put_varint(out, 0);
            put_varint(out, io_error);
        } else if io_error != 0 && self.reports_errors() {
            out.extend_from_slice(&(flag::END_WITH_ERROR as u16).to_le_bytes());
            put_varint(out, io_error);
        } else {
            out.push(0);
        }
    }

    /// Whether the end of the list can say that there were errors; where it cannot, a message must.
    pub fn reports_errors(&self) -> bool {
        self.n.version >= 31 || self.n.compat.has(Compat::SAFE_FLIST)
    }
}
