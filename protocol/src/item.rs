//! Item headers: what the generator wants and the sender echoes. Counterpart: `read_ndx_and_attrs`.

use crate::PeerError;
use crate::handshake::{Compat, Negotiated};
use crate::listed::listed;
use crate::wire::{Decoded, Reader, put_vstring};
use crate::xattr::{XattrList, XattrListKind};

/// What an item header says, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ItemFlags(pub u16);

impl ItemFlags {
    listed!(Self {
        /// The access time differs.
        pub ATIME = Self(0x0001);
        /// Content differs by checksum, or a link's target does.
        pub CHANGE = Self(0x0002);
        /// The size differs.
        pub SIZE = Self(0x0004);
        /// The modification time differs.
        pub TIME = Self(0x0008);
        /// The permissions differ.
        pub PERMS = Self(0x0010);
        /// The owner differs.
        pub OWNER = Self(0x0020);
        /// The group differs.
        pub GROUP = Self(0x0040);
        /// The ACL differs.
        pub ACL = Self(0x0080);
        /// Extended attributes differ, and a list about them follows.
        pub XATTR = Self(0x0100);
        /// A basis type follows.
        pub BASIS_TYPE = Self(0x0800);
        /// A name follows.
        pub XNAME = Self(0x1000);
        /// Nothing of that name is there yet.
        pub NEW = Self(0x2000);
        /// The receiving side sees to it alone.
        pub LOCAL_CHANGE = Self(0x4000);
        /// The data is wanted.
        pub TRANSFER = Self(0x8000);
    });

    /// Nothing is known but that the data is wanted: before protocol 29 no more is told. Never on the wire.
    pub const UNTOLD: Self = Self(0x0200);

    /// True when every bit of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits that are not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// `other` added when `when`.
    pub fn with(self, other: Self, when: bool) -> Self {
        if when { self.and(other) } else { self }
    }
}

/// Whether lists about extended attributes stand behind the headers that say they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XattrLists {
    /// No: the session has no extended attributes, and such a header is an error.
    #[default]
    Refused,
    /// No: it is a dry run.
    Absent,
    /// Yes.
    Present {
        /// Which ones.
        kind: XattrListKind,
        /// None behind the headers of hard links.
        skip_links: bool,
    },
}

impl XattrLists {
    /// As the session has it: none without `xattrs`, and no lists in a `dry_run`.
    pub fn of(n: &Negotiated, xattrs: bool, dry_run: bool, kind: XattrListKind) -> Self {
        match (xattrs, dry_run) {
            (false, _) => Self::Refused,
            (true, true) => Self::Absent,
            (true, false) => {
                let skip_links = n.version >= 31 && !n.compat.has(Compat::AVOID_XATTR_OPTIM);
                Self::Present { kind, skip_links }
            }
        }
    }
}

/// Longest extra name that is accepted: a path.
const XNAME_MOST: usize = 4096;

/// What follows an index: flags and what they announce.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ItemHeader {
    /// The flags.
    pub flags: ItemFlags,
    /// Which file is the basis, when it is not the destination itself.
    pub basis: Option<u8>,
    /// Name of a fuzzy basis, or what a hard link was linked to.
    pub xname: Option<Vec<u8>>,
    /// Values of extended attributes, wanted or given.
    pub xattrs: Option<XattrList>,
}

impl ItemHeader {
    /// What stands for a header before protocol 29.
    pub(crate) fn untold() -> Self {
        Self { flags: ItemFlags::TRANSFER.and(ItemFlags::UNTOLD), ..Self::default() }
    }

    /// What takes the place of a header in a keep-alive of protocol 29, behind the index after the last one.
    pub(crate) fn keep_alive() -> Self {
        Self { flags: ItemFlags::NEW, ..Self::default() }
    }

    /// Reads a header of this session.
    pub fn decode_of(n: &Negotiated, reader: &mut Reader<'_>, lists: XattrLists) -> Decoded<Self> {
        if n.has_items() { Self::decode(reader, lists) } else { Ok(Self::untold()) }
    }

    /// Writes a header of this session.
    pub fn encode_of(&self, n: &Negotiated, out: &mut Vec<u8>) {
        if n.has_items() {
            self.encode(out);
        }
    }

    /// Reads a header.
    pub fn decode(reader: &mut Reader<'_>, lists: XattrLists) -> Decoded<Self> {
        let flags = ItemFlags(reader.short()?).without(ItemFlags::UNTOLD);
        let basis = if flags.has(ItemFlags::BASIS_TYPE) { Some(reader.byte()?) } else { None };
        let xname = if flags.has(ItemFlags::XNAME) { Some(reader.vstring()?.to_vec()) } else { None };
        if xname.as_ref().is_some_and(|name| name.len() > XNAME_MOST) {
            return Err(PeerError::Malformed("an item with a name of more than 4096 bytes").into());
        }
        let xattrs = match lists {
            XattrLists::Refused if flags.has(ItemFlags::XATTR) => {
                return Err(PeerError::NotOffered("extended attributes").into());
            }
            XattrLists::Present { kind, skip_links } if lists_follow(flags, skip_links) => {
                Some(XattrList::decode(reader, kind)?)
            }
            _ => None,
        };
        Ok(Self { flags, basis, xname, xattrs })
    }

    /// Writes a header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.flags.0.to_le_bytes());
        out.extend(self.basis);
        if let Some(name) = &self.xname {
            put_vstring(out, name);
        }
        if let Some(list) = &self.xattrs {
            list.encode(out);
        }
    }

    /// Makes room for the list that is to follow, if one is.
    pub fn with_list(mut self, lists: XattrLists) -> Self {
        match lists {
            XattrLists::Present { kind, skip_links } if lists_follow(self.flags, skip_links) => {
                if self.xattrs.is_none() {
                    self.xattrs = Some(match kind {
                        XattrListKind::Wanted => XattrList::Wanted(vec![]),
                        XattrListKind::Given => XattrList::Given(vec![]),
                    });
                }
            }
            _ => self.xattrs = None,
        }
        self
    }
}

fn lists_follow(flags: ItemFlags, skip_links: bool) -> bool {
    let link = flags.has(ItemFlags::XNAME.and(ItemFlags::LOCAL_CHANGE));
    flags.has(ItemFlags::XATTR) && !(skip_links && link)
}
