//! Extended attributes on the disk, and which of them take part in a transfer. Counterpart: rsync's `xattrs.c`.

use protocol::filter::AttributeRules;
use protocol::xattr::{Xattr, XattrSet, XattrValue};
use std::io;
use std::sync::Arc;

use super::fake::Fake;
use super::pinned::Pinned;

/// Where `--fake-super` keeps the attributes of other namespaces.
const PREFIX: &[u8] = b"user.rsync.";

/// Which extended attributes take part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reach {
    /// All namespaces but the system's; without it only the user's.
    pub(crate) root: bool,
    /// Also those that `--fake-super` keeps for itself (`-XX`).
    pub(crate) internal: bool,
    pub(crate) fake: Fake,
    /// It is a source, of which root reads all whatever files claim.
    pub(crate) source: bool,
    /// Those that the filter leaves alone take no part.
    pub(crate) rules: Arc<AttributeRules>,
}

impl Reach {
    /// The name in a transfer of what is called `name` on the disk; `None` where it takes no part.
    fn shown<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        if self.rules.exclude(name) {
            return None;
        }
        let user = name.starts_with(b"user.");
        let all = self.root && (self.source || self.fake == Fake::No);
        let taken = if all { !name.starts_with(b"system.") } else { user };
        let kept = name.strip_prefix(PREFIX);
        match kept {
            Some([b'%', ..]) if !self.internal => None,
            Some([b'%', ..]) => taken.then_some(name),
            Some(inner) if self.fake == Fake::Yes => Some(inner),
            _ => taken.then_some(name),
        }
    }

    /// The name on the disk of what a transfer calls `name`; `None` where it cannot be kept.
    fn stored(&self, name: &[u8]) -> Option<Vec<u8>> {
        if self.rules.exclude(name) {
            return None;
        }
        if name.starts_with(b"user.") {
            let internal = name.strip_prefix(PREFIX).is_some_and(|inner| inner.starts_with(b"%"));
            return (self.internal || !internal).then(|| name.to_vec());
        }
        match (self.fake, self.root) {
            (Fake::Yes, _) => Some([PREFIX, name].concat()),
            (Fake::No, true) => (!name.starts_with(b"system.")).then(|| name.to_vec()),
            (Fake::No, false) => None,
        }
    }
}

/// Reading one attribute that failed, in stock's words.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) name: Vec<u8>,
    pub(crate) error: io::Error,
}

/// The extended attributes that take part, as the list carries them.
pub(crate) fn read(pinned: &Pinned, reach: &Reach) -> Result<XattrSet, Unreadable> {
    let unreadable = |name: &[u8]| {
        let name = name.to_vec();
        move |error| Unreadable { name, error }
    };
    let mut set = Vec::new();
    for name in pinned.xattr_names().map_err(unreadable(b""))? {
        let Some(shown) = reach.shown(&name) else { continue };
        if let Some(value) = pinned.xattr(&name).map_err(unreadable(&name))? {
            set.push(Xattr { name: shown.to_vec(), value: XattrValue::of(&value) });
        }
    }
    set.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(XattrSet(set))
}

/// The value of an attribute by its name in the transfer.
pub(crate) fn value(pinned: &Pinned, reach: &Reach, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some(stored) = reach.stored(name) else { return Ok(None) };
    match pinned.xattr(&stored)? {
        None if reach.root && reach.source => pinned.xattr(name),
        value => Ok(value),
    }
}

/// What makes the attributes of one thing those of another.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Numbers of attributes that are missing or have another value.
    pub(crate) differing: Vec<u32>,
    /// Names, on the disk, of attributes that are too many.
    pub(crate) surplus: Vec<Vec<u8>>,
}

impl Difference {
    pub(crate) fn is_empty(&self) -> bool {
        self.differing.is_empty() && self.surplus.is_empty()
    }
}

/// How the attributes there differ from `wanted`. Those that cannot be kept here do not count.
pub(crate) fn difference(pinned: &Pinned, reach: &Reach, wanted: &XattrSet) -> io::Result<Difference> {
    let mut difference = Difference::default();
    let mut surplus: Vec<_> = pinned.xattr_names()?.into_iter().filter(|name| reach.shown(name).is_some()).collect();
    for (number, xattr) in (1..).zip(&wanted.0) {
        let Some(stored) = reach.stored(&xattr.name) else { continue };
        surplus.retain(|name| *name != stored);
        let here = pinned.xattr(&stored)?;
        if here.map(|value| XattrValue::of(&value)).as_ref() != Some(&xattr.value) {
            difference.differing.push(number);
        }
    }
    difference.surplus = surplus;
    Ok(difference)
}

/// Sets one attribute by its name in the transfer.
pub(crate) fn set(pinned: &Pinned, reach: &Reach, name: &[u8], value: &[u8]) -> io::Result<()> {
    match reach.stored(name) {
        Some(stored) => pinned.set_xattr(&stored, value),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_as_stock_has_them() {
        let root = Reach { root: true, ..Reach::default() };
        let fake = Reach { root: true, fake: Fake::Yes, ..Reach::default() };
        let other = Reach::default();
        for (name, by_root, by_fake, by_other) in [
            ("user.a", Some("user.a"), Some("user.a"), Some("user.a")),
            ("trusted.t", Some("trusted.t"), None, None),
            ("system.posix_acl_access", None, None, None),
            ("user.rsync.trusted.t", Some("user.rsync.trusted.t"), Some("trusted.t"), Some("user.rsync.trusted.t")),
            ("user.rsync.%stat", None, None, None),
        ] {
            let shown = |reach: &Reach| reach.shown(name.as_bytes()).map(<[u8]>::to_vec);
            let expected = |name: Option<&str>| name.map(|name| name.as_bytes().to_vec());
            assert_eq!(shown(&root), expected(by_root), "{name} by root");
            assert_eq!(shown(&fake), expected(by_fake), "{name} by fake root");
            assert_eq!(shown(&other), expected(by_other), "{name} by others");
        }
        assert_eq!(fake.stored(b"trusted.t").as_deref(), Some(&b"user.rsync.trusted.t"[..]));
        assert_eq!(other.stored(b"trusted.t"), None);
        assert_eq!(root.stored(b"trusted.t").as_deref(), Some(&b"trusted.t"[..]));
        assert_eq!(root.stored(b"user.rsync.%stat"), None);
        assert_eq!(root.stored(b"system.posix_acl_access"), None);
        let internal = Reach { internal: true, ..root };
        assert!(internal.shown(STAT).is_some() && internal.stored(STAT).is_some());
    }

    const STAT: &[u8] = super::super::fake::STAT;
}
