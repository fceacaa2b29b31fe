//! POSIX ACLs as Linux keeps them, in an extended attribute.

use protocol::acl::{Acl, AclName};
use std::io;

use super::fake::{self, Fake};
use super::pinned::Pinned;

/// Where Linux keeps a file's ACL.
const ACCESS: &[u8] = b"system.posix_acl_access";
/// Where it keeps the one that what is made in a directory gets.
const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY: usize = 8;
const NO_ID: u32 = u32::MAX;

mod tag {
    pub(crate) const USER_OBJ: u16 = 0x01;
    pub(crate) const USER: u16 = 0x02;
    pub(crate) const GROUP_OBJ: u16 = 0x04;
    pub(crate) const GROUP: u16 = 0x08;
    pub(crate) const MASK: u16 = 0x10;
    pub(crate) const OTHER: u16 = 0x20;
}

/// Which of the two ACLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Access,
    Default,
}

impl Which {
    fn name(self, fake: Fake) -> &'static [u8] {
        match (self, fake) {
            (Self::Access, Fake::No) => ACCESS,
            (Self::Default, Fake::No) => DEFAULT,
            (Self::Access, Fake::Yes) => fake::ACCESS_ACL,
            (Self::Default, Fake::Yes) => fake::DEFAULT_ACL,
        }
    }
}

/// Reads an ACL; the access ACL without what follows from `mode`. One that is not there says nothing.
pub(crate) fn read(pinned: &Pinned, which: Which, mode: u32, fake: Fake) -> io::Result<Acl> {
    let Some(bytes) = pinned.xattr(which.name(fake))? else { return Ok(Acl::default()) };
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "The ACL is not one that rsync knows");
    match (fake, which) {
        (Fake::Yes, Which::Default) => fake::acl(&bytes).ok_or_else(bad),
        (Fake::Yes, Which::Access) => {
            let acl = fake::acl(&bytes).ok_or_else(bad)?;
            Ok(Acl { group_obj: acl.group_obj, ..acl.stripped(mode) })
        }
        (Fake::No, Which::Default) => from_bytes(&bytes).ok_or_else(bad),
        (Fake::No, Which::Access) => Ok(from_bytes(&bytes).ok_or_else(bad)?.stripped(mode)),
    }
}

/// Sets an ACL or, where it says nothing, takes it away.
pub(crate) fn write(pinned: &Pinned, which: Which, acl: &Acl, mode: u32, fake: Fake) -> io::Result<()> {
    let name = which.name(fake);
    let says_nothing = match which {
        Which::Access => acl.mask.is_none() && acl.names.is_empty(),
        Which::Default => acl.is_empty(),
    };
    match (says_nothing, fake) {
        (true, _) => pinned.remove_xattr(name),
        // The mask may be the mode's own group permissions, and is kept all the same.
        (false, Fake::Yes) => {
            let mask = acl.completed(mode).mask;
            pinned.set_xattr(name, &fake::acl_bytes(&Acl { mask, ..acl.clone() }))
        }
        (false, Fake::No) => pinned.set_xattr(name, &to_bytes(&acl.completed(mode))),
    }
}

fn from_bytes(bytes: &[u8]) -> Option<Acl> {
    let (version, rest) = bytes.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || !rest.len().is_multiple_of(ENTRY) {
        return None;
    }
    let mut acl = Acl::default();
    for entry in rest.chunks_exact(ENTRY) {
        let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        let (kind, perms) = (half(0), (half(2) & 7) as u8);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        match kind {
            tag::USER_OBJ => acl.user_obj = Some(perms),
            tag::GROUP_OBJ => acl.group_obj = Some(perms),
            tag::MASK => acl.mask = Some(perms),
            tag::OTHER => acl.other = Some(perms),
            tag::USER => acl.names.push(AclName { group: false, id, perms }),
            tag::GROUP => acl.names.push(AclName { group: true, id, perms }),
            _ => return None,
        }
    }
    acl.names.sort_unstable();
    Some(acl)
}

fn to_bytes(acl: &Acl) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    let mut entry = |tag: u16, perms: Option<u8>, id: u32| {
        if let Some(perms) = perms {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(u16::from(perms).to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
    };
    let mut names = acl.names.clone();
    names.sort_unstable();
    let (users, groups): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| !name.group);
    entry(tag::USER_OBJ, acl.user_obj, NO_ID);
    users.iter().for_each(|name| entry(tag::USER, Some(name.perms), name.id));
    entry(tag::GROUP_OBJ, acl.group_obj, NO_ID);
    groups.iter().for_each(|name| entry(tag::GROUP, Some(name.perms), name.id));
    entry(tag::MASK, acl.mask, NO_ID);
    entry(tag::OTHER, acl.other, NO_ID);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_acl_survives(
            perms: [u8; 3], mask: Option<u8>,
            names in proptest::collection::btree_map((any::<bool>(), any::<u32>()), 0u8..8, 0..6),
        ) {
            let [user_obj, group_obj, other] = perms.map(|perms| Some(perms & 7));
            let names = names.into_iter().map(|((group, id), perms)| AclName { group, id, perms }).collect();
            let acl = Acl { user_obj, group_obj, mask: mask.map(|perms| perms & 7), other, names };
            prop_assert_eq!(from_bytes(&to_bytes(&acl)), Some(acl));
        }

        #[test]
        fn garbage_is_an_acl_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..64), whole: bool) {
            let mut bytes = bytes;
            if whole {
                bytes.splice(..bytes.len().min(4), VERSION.to_le_bytes());
            }
            if let Some(acl) = from_bytes(&bytes) {
                prop_assert!(acl.names.len() <= bytes.len() / ENTRY);
            }
        }
    }
}
