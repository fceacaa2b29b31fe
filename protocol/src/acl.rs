//! POSIX ACLs as the file list carries them. Counterpart: rsync's `acls.c`.

use crate::PeerError;
use crate::wire::{Decoded, Reader, put_varint};

/// Named users and groups that one ACL may have; an extended attribute holds no more.
const NAMES_MOST: u32 = 8192;

/// Bits of the byte that says which parts follow.
mod part {
    pub(super) const USER_OBJ: u8 = 0x01;
    pub(super) const GROUP_OBJ: u8 = 0x02;
    pub(super) const MASK: u8 = 0x04;
    pub(super) const OTHER: u8 = 0x08;
    pub(super) const NAMES: u8 = 0x10;
}

/// An access control list; permissions are the bits r 4, w 2, x 1. A part that follows from the file's mode may be absent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Acl {
    /// What the owner may do.
    pub user_obj: Option<u8>,
    /// What the owning group may do.
    pub group_obj: Option<u8>,
    /// The most that named users and any group may do.
    pub mask: Option<u8>,
    /// What everybody else may do.
    pub other: Option<u8>,
    /// What named users and groups may do.
    pub names: Vec<AclName>,
}

/// One named user or group of an ACL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AclName {
    /// A group, not a user.
    pub group: bool,
    /// Its number.
    pub id: u32,
    /// What it may do.
    pub perms: u8,
}

/// The name that came with an id (incremental recursion only).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedId {
    pub(crate) group: bool,
    pub(crate) id: u32,
    pub(crate) name: Vec<u8>,
}

impl Acl {
    /// Without the parts of an access ACL that follow from `mode`.
    pub fn stripped(&self, mode: u32) -> Self {
        let group = (mode >> 3 & 7) as u8;
        let mut acl = Self { user_obj: None, other: None, ..self.clone() };
        acl.group_obj = self.group_obj.filter(|&perms| self.mask.is_some() && perms != group);
        acl.mask = self.mask.filter(|&perms| self.names.is_empty() || perms != group);
        acl
    }

    /// With the parts that an access ACL leaves to `mode`.
    pub fn completed(&self, mode: u32) -> Self {
        let perms = |shift: u32| (mode >> shift & 7) as u8;
        let mut acl = self.clone();
        acl.user_obj = Some(self.user_obj.unwrap_or(perms(6)));
        acl.group_obj = Some(self.group_obj.unwrap_or(perms(3)));
        acl.other = Some(self.other.unwrap_or(perms(0)));
        if !acl.names.is_empty() {
            acl.mask = Some(self.mask.unwrap_or(perms(3)));
        }
        acl
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// With other ids, in the order in which the system keeps them.
    pub(crate) fn with_ids(&self, user: impl Fn(u32) -> u32, group: impl Fn(u32) -> u32) -> Self {
        let mut acl = self.clone();
        for name in &mut acl.names {
            name.id = if name.group { group(name.id) } else { user(name.id) };
        }
        acl.names.sort_unstable();
        acl
    }

    /// Reads one that comes whole. Names of ids go to `named`.
    pub(crate) fn decode(reader: &mut Reader<'_>, named: &mut Vec<NamedId>) -> Decoded<Self> {
        let parts = reader.byte()?;
        let mut perms = |part: u8| -> Decoded<Option<u8>> {
            if parts & part == 0 { Ok(None) } else { Ok(Some(reader.size("permissions of an ACL", 7)? as u8)) }
        };
        let (user_obj, group_obj) = (perms(part::USER_OBJ)?, perms(part::GROUP_OBJ)?);
        let (mask, other) = (perms(part::MASK)?, perms(part::OTHER)?);
        let mut names = Vec::new();
        if parts & part::NAMES != 0 {
            for _ in 0..reader.size("number of names in an ACL", NAMES_MOST)? {
                let id = reader.varint()? as u32;
                let access = reader.varint()? as u32;
                let (perms, group) = (access >> 2, access & 2 == 0);
                if access & 1 != 0 {
                    let len = reader.byte()?;
                    named.push(NamedId { group, id, name: reader.take(len.into())?.to_vec() });
                }
                if perms > 7 {
                    let expected = "permissions up to 7";
                    return Err(PeerError::Range { what: "access in an ACL", value: access.into(), expected }.into());
                }
                names.push(AclName { group, id, perms: perms as u8 });
            }
        }
        Ok(Self { user_obj, group_obj, mask, other, names })
    }

    /// Writes it whole. `name` gives the name that is to go with an id.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, mut name: impl FnMut(bool, u32) -> Option<Vec<u8>>) {
        let objects = [
            (part::USER_OBJ, self.user_obj),
            (part::GROUP_OBJ, self.group_obj),
            (part::MASK, self.mask),
            (part::OTHER, self.other),
        ];
        let mut parts = if self.names.is_empty() { 0 } else { part::NAMES };
        for (bit, perms) in objects {
            parts |= if perms.is_some() { bit } else { 0 };
        }
        out.push(parts);
        for perms in objects.iter().filter_map(|(_, perms)| *perms) {
            put_varint(out, perms.into());
        }
        if self.names.is_empty() {
            return;
        }
        let count = self.names.len().min(NAMES_MOST as usize);
        put_varint(out, count as i32);
        for entry in &self.names[..count] {
            let text = name(entry.group, entry.id).filter(|text| text.len() <= 255);
            let access = u32::from(entry.perms) << 2 | if entry.group { 0 } else { 2 } | u32::from(text.is_some());
            put_varint(out, entry.id as i32);
            put_varint(out, access as i32);
            if let Some(text) = text {
                out.push(text.len() as u8);
                out.extend_from_slice(&text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decode;
    use proptest::prelude::*;

    fn name(group: bool, id: u32, perms: u8) -> AclName {
        AclName { group, id, perms }
    }

    fn full(group_obj: u8, mask: Option<u8>, names: &[AclName]) -> Acl {
        Acl { user_obj: Some(6), group_obj: Some(group_obj), mask, other: Some(0), names: names.to_vec() }
    }

    /// What stock sends for each of these (recorded).
    #[test]
    fn stock_leaves_to_the_mode_what_follows_from_it() {
        for (acl, mode, wire) in [
            (full(4, Some(7), &[name(false, 1, 7), name(true, 2, 5)]), 0o670, &b"\x12\x04\x02\x01\x1e\x02\x14"[..]),
            (full(4, Some(4), &[name(false, 1, 7)]), 0o640, b"\x10\x01\x01\x1e"),
            (full(6, Some(4), &[]), 0o641, b"\x06\x06\x04"),
            (full(6, Some(2), &[name(false, 33, 7)]), 0o621, b"\x12\x06\x01\x21\x1e"),
            (full(4, None, &[]), 0o640, b"\x00"),
        ] {
            let stripped = acl.stripped(mode);
            let mut out = Vec::new();
            stripped.encode(&mut out, |_, _| None);
            assert_eq!(out, wire, "{acl:?}");
            let completed = stripped.completed(mode);
            assert_eq!(completed, Acl { other: Some((mode & 7) as u8), ..acl });
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for wire in [&b"\x01\x08"[..], b"\x10\x01\x01\x20", b"\x10\xc0\x00\x40", b"\x10\xf0\xff\xff\xff\xff"] {
            let decoded = Acl::decode(&mut Reader::new(wire), &mut Vec::new());
            assert!(matches!(decoded, Err(Decode::Bad(_))), "{wire:?}: {decoded:?}");
        }
    }

    proptest! {
        #[test]
        fn an_acl_survives(
            objects: [Option<u8>; 4],
            names in proptest::collection::vec((any::<bool>(), any::<u32>(), 0u8..8), 0..9),
            named: bool,
        ) {
            let [user_obj, group_obj, mask, other] = objects.map(|perms| perms.map(|perms| perms & 7));
            let names = names.into_iter().map(|(group, id, perms)| AclName { group, id, perms }).collect();
            let acl = Acl { user_obj, group_obj, mask, other, names };
            let mut out = Vec::new();
            acl.encode(&mut out, |_, id| named.then(|| id.to_string().into_bytes()));
            let mut heard = Vec::new();
            let mut reader = Reader::new(&out);
            prop_assert_eq!(Acl::decode(&mut reader, &mut heard), Ok(acl.clone()));
            prop_assert_eq!(reader.position(), out.len());
            prop_assert_eq!(heard.len(), if named { acl.names.len() } else { 0 });
            for cut in 0..out.len() {
                let decoded = Acl::decode(&mut Reader::new(&out[..cut]), &mut Vec::new());
                prop_assert_eq!(decoded, Err(Decode::Incomplete));
            }
        }

        #[test]
        fn garbage_is_an_acl_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut named = Vec::new();
            if let Ok(acl) = Acl::decode(&mut Reader::new(&bytes), &mut named) {
                prop_assert!(acl.names.len() <= bytes.len());
            }
        }
    }
}
