//! ACLs, extended attributes and `--fake-super` claims of what is listed.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use protocol::acl::Acl;
use protocol::filter::{AttributeRules, RuleSet};
use protocol::flist::{FileEntry, Kind};
use protocol::xattr::XattrSet;
use rustix::fs::Stat;

use super::ScanOptions;
use crate::disk::acl::{self, Which};
use crate::disk::fake::{Fake, FakeClaim, STAT};
use crate::disk::pinned::Pinned;
use crate::disk::xattr::{self, Reach};
use crate::disk::{reason, shown};

/// Reads what the options ask for beyond `stat`. Entries with the same lists share them.
pub(super) struct AttributeReader {
    acls: bool,
    xattrs: bool,
    reach: Reach,
    seen_acls: HashSet<Arc<Acl>>,
    seen_sets: HashSet<Arc<XattrSet>>,
}

impl AttributeReader {
    pub(super) fn new(options: &ScanOptions, rules: Option<&RuleSet>) -> Self {
        let rules = rules.map(RuleSet::attributes).unwrap_or_default();
        Self {
            acls: options.acls,
            xattrs: options.xattrs > 0,
            reach: Reach { rules, ..reach(options) },
            seen_acls: HashSet::new(),
            seen_sets: HashSet::new(),
        }
    }

    /// From here on extended attributes are those that these rules let out.
    pub(super) fn follow(&mut self, rules: Arc<AttributeRules>) {
        self.reach.rules = rules;
    }

    /// Gives an entry its ACLs and extended attributes; on failure says why it must be left out, `path` being its name in
    /// messages.
    pub(super) fn fill(
        &mut self,
        entry: &mut FileEntry,
        open: impl Fn(Kind) -> io::Result<Pinned>,
        path: impl Fn() -> Vec<u8>,
    ) -> Result<(), String> {
        let Some(kind) = entry.kind().filter(|_| self.acls || self.xattrs) else { return Ok(()) };
        let failed =
            |action: &str, error: &io::Error| format!("{action}(\"{}\") failed: {}", shown(&path()), reason(error));
        let kept_as = match (self.reach.fake, kind) {
            (Fake::Yes, Kind::Dir) | (Fake::No, _) => kind,
            (Fake::Yes, _) => Kind::File,
        };
        // With `--fake-super`: it is what it is, and not a file that claims so.
        let opened = open(kept_as).or_else(|error| if kept_as == kind { Err(error) } else { open(kind) });
        let pinned = opened.map_err(|error| failed("open", &error))?;
        if self.acls && kind != Kind::Symlink {
            let mut read = |which| {
                let acl = acl::read(&pinned, which, entry.mode, self.reach.fake);
                let acl = acl.map_err(|error| failed("get_acl: sys_acl_get_file", &error))?;
                Ok::<_, String>(Some(shared(&mut self.seen_acls, acl)))
            };
            entry.extra.access_acl = read(Which::Access)?;
            if kind == Kind::Dir {
                entry.extra.default_acl = read(Which::Default)?;
            }
        }
        if self.xattrs {
            let set = xattr::read(&pinned, &self.reach).map_err(|unreadable| {
                let (path, name, why) = (path(), shown(&unreadable.name), reason(&unreadable.error));
                match name.is_empty() {
                    true => format!("get_xattr_names: llistxattr(\"{}\",1024) failed: {why}", shown(&path)),
                    false => format!("get_xattr_data: lgetxattr(\"{}\",\"{name}\",0) failed: {why}", shown(&path)),
                }
            })?;
            entry.extra.xattrs = Some(shared(&mut self.seen_sets, set));
        }
        Ok(())
    }
}

fn shared<T: Eq + std::hash::Hash>(seen: &mut HashSet<Arc<T>>, value: T) -> Arc<T> {
    match seen.get(&value) {
        Some(known) => Arc::clone(known),
        None => {
            let new = Arc::new(value);
            seen.insert(Arc::clone(&new));
            new
        }
    }
}

/// Which extended attributes the options let out.
pub(super) fn reach(options: &ScanOptions) -> Reach {
    let fake = if options.fake_super { Fake::Yes } else { Fake::No };
    let root = options.super_user.unwrap_or_else(|| rustix::process::geteuid().is_root());
    Reach { root, internal: options.xattrs > 1, fake, source: true, ..Reach::default() }
}

/// Lets a file's claim stand for what a look at it found (`--fake-super`).
pub(super) fn disguise(dir: &OwnedFd, leaf: &[u8], stat: &mut Stat) -> io::Result<()> {
    let Some(kind @ (Kind::File | Kind::Dir)) = crate::disk::beneath::kind(stat.st_mode) else { return Ok(()) };
    let pinned = Pinned::open(dir, leaf, kind)?;
    if let Some(claim) = pinned.xattr(STAT)?.as_deref().and_then(FakeClaim::parse) {
        (stat.st_mode, stat.st_uid, stat.st_gid) = (claim.mode, claim.uid, claim.gid);
        stat.st_rdev = rustix::fs::makedev(claim.rdev.0, claim.rdev.1);
    }
    Ok(())
}
