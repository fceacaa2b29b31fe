//! What `--fake-super` keeps in extended attributes of its own: owners, modes, devices and ACLs that only root could
//! give a file. Counterpart: the `%stat` half of rsync's `xattrs.c`.

use protocol::acl::{Acl, AclName};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

/// Owner, mode and device number of a file.
pub(crate) const STAT: &[u8] = b"user.rsync.%stat";
pub(crate) const ACCESS_ACL: &[u8] = b"user.rsync.%aacl";
/// The ACL of what is made in it.
pub(crate) const DEFAULT_ACL: &[u8] = b"user.rsync.%dacl";

/// A part of an ACL that is not there.
const NO_PERMS: u32 = 0x80;
/// Bit of an access word: the name is a user's.
const IS_USER: u32 = 0x8000_0000;

/// Longest target of a symlink, and a byte more to tell.
const TARGET_MOST: u64 = 4096;

/// Whether what only root could set is kept in extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fake {
    #[default]
    No,
    Yes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FakeClaim {
    /// POSIX `st_mode`, type bits included.
    pub(crate) mode: u32,
    pub(crate) rdev: (u32, u32),
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl FakeClaim {
    /// Reads `100644 0,0 1000:1000`.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
        let mut words = text.split(' ');
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let (major, minor) = words.next()?.split_once(',')?;
        let (uid, gid) = words.next()?.split_once(':')?;
        let claim = Self {
            mode,
            rdev: (major.parse().ok()?, minor.parse().ok()?),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        };
        (words.next().is_none() && super::beneath::kind(mode).is_some()).then_some(claim)
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let Self { mode, rdev: (major, minor), uid, gid } = self;
        format!("{mode:o} {major},{minor} {uid}:{gid}").into_bytes()
    }
}

/// Reads an ACL: four objects, then an id and its access for each name.
pub(crate) fn acl(bytes: &[u8]) -> Option<Acl> {
    if bytes.len() < 16 || !bytes.len().is_multiple_of(8) {
        return None;
    }
    let mut words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let mut object = || words.next().filter(|&perms| perms != NO_PERMS).map(|perms| (perms & 7) as u8);
    let mut acl = Acl { user_obj: object(), group_obj: object(), mask: object(), other: object(), names: Vec::new() };
    while let (Some(id), Some(access)) = (words.next(), words.next()) {
        acl.names.push(AclName { group: access & IS_USER == 0, id, perms: (access & 7) as u8 });
    }
    acl.names.sort_unstable();
    Some(acl)
}

pub(crate) fn acl_bytes(acl: &Acl) -> Vec<u8> {
    let object = |perms: Option<u8>| perms.map_or(NO_PERMS, u32::from);
    let objects = [acl.user_obj, acl.group_obj, acl.mask, acl.other].map(object);
    let access = |name: &AclName| [name.id, u32::from(name.perms) | if name.group { 0 } else { IS_USER }];
    objects.into_iter().chain(acl.names.iter().flat_map(access)).flat_map(u32::to_le_bytes).collect()
}

/// The target of a link that is kept as a plain file.
pub(crate) fn target(dir: impl AsFd, leaf: &[u8]) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, leaf, flags, Mode::empty())?);
    let mut target = Vec::new();
    file.take(TARGET_MOST).read_to_end(&mut target)?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stock keeps (recorded).
    #[test]
    fn as_stock_keeps_it() {
        let claim = FakeClaim { mode: 0o020644, rdev: (1, 3), uid: 5, gid: 6 };
        assert_eq!(FakeClaim::parse(b"20644 1,3 5:6"), Some(claim));
        assert_eq!(claim.to_bytes(), b"20644 1,3 5:6");
        for bad in
            [&b""[..], b"20644", b"20644 1,3", b"20644 1,3 5:6 7", b"644 0,0 0:0", b"99 0,0 0:0", b"100644 a,0 0:0"]
        {
            assert_eq!(FakeClaim::parse(bad), None, "{}", bad.escape_ascii());
        }
        let names = vec![AclName { group: false, id: 1, perms: 7 }, AclName { group: true, id: 2, perms: 5 }];
        let kept = Acl { group_obj: Some(4), mask: Some(7), names, ..Acl::default() };
        let hex = "8000000004000000070000008000000001000000070000800200000005000000";
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..][..2], 16).unwrap()).collect();
        assert_eq!(acl(&bytes), Some(kept.clone()));
        assert_eq!(acl_bytes(&kept), bytes);
        assert_eq!(acl(&bytes[..15]), None);
        assert_eq!(acl(&bytes[..20]), None);
    }
}
