//! ACLs and extended attributes of what stands in the destination. Counterpart: `set_acl` and `set_xattr` of rsync.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::acl::Acl;
use protocol::args::Options;
use protocol::flist::{FileEntry, Kind};
use protocol::xattr::{XattrSet, XattrValue};

use super::Dest;
use super::attrs::Attrs;
use super::error::{DestError, During};
use crate::disk::acl::{self, Which};
use crate::disk::pinned::Pinned;
use crate::disk::xattr;

/// Bytes of fetched values that are held in all.
const VALUES_MOST: usize = 1 << 30;

/// The ACLs and extended attributes an entry should have here.
#[derive(Debug, Clone, Copy)]
pub struct Further<'e> {
    mode: u32,
    kind: Kind,
    access: Option<&'e Acl>,
    default: Option<&'e Acl>,
    xattrs: Option<&'e Arc<XattrSet>>,
}

/// Which of them a copy keeps.
#[derive(Clone, Copy)]
pub(super) struct FurtherKept {
    pub(super) xattrs: bool,
    pub(super) acls: bool,
}

#[derive(Debug, Default)]
pub struct FurtherChange {
    pub acl: bool,
    /// Extended attributes differ.
    pub xattrs: bool,
    /// Numbers of those whose values only the sender knows.
    pub unknown: Vec<u32>,
}

impl<'e> Further<'e> {
    /// What the options ask for; `None` when that is nothing.
    pub fn of(entry: &'e FileEntry, options: &Options) -> Option<Self> {
        let kind = entry.kind()?;
        let acls = options.acls && kind != Kind::Symlink;
        let access = entry.extra.access_acl.as_deref().filter(|_| acls);
        let default = entry.extra.default_acl.as_deref().filter(|_| acls && kind == Kind::Dir);
        let xattrs = entry.extra.xattrs.as_ref().filter(|_| options.xattrs > 0);
        let any = access.is_some() || default.is_some() || xattrs.is_some();
        any.then_some(Self { mode: entry.mode, kind, access, default, xattrs })
    }

    /// What differs for something that is not here at all.
    pub fn all(&self) -> FurtherChange {
        let wanted = self.xattrs.map(|set| &set.0[..]).unwrap_or_default();
        let unknown =
            (1..).zip(wanted).filter(|(_, xattr)| xattr.value.is_digest()).map(|(number, _)| number).collect();
        FurtherChange { acl: false, xattrs: !wanted.is_empty(), unknown }
    }

    /// Whether values may be wanting that only an answer of the sender brings.
    pub fn has_digests(&self) -> bool {
        self.xattrs.is_some_and(|set| set.0.iter().any(|xattr| xattr.value.is_digest()))
    }
}

/// Values of extended attributes that the list left out, each asked for once however many entries share it.
#[derive(Default)]
pub struct Values {
    sets: Mutex<HashMap<usize, FetchedAttributes>>,
}

#[derive(Default)]
struct FetchedAttributes {
    /// Keeps the set where it is, for it goes by its place.
    _set: Arc<XattrSet>,
    asked: HashSet<u32>,
    values: HashMap<u32, Arc<[u8]>>,
}

impl Values {
    /// Of `numbers`, those that were not asked for before.
    pub fn ask(&self, further: &Further<'_>, mut numbers: Vec<u32>) -> Vec<u32> {
        let Some(set) = further.xattrs else { return Vec::new() };
        if !numbers.is_empty() {
            self.with(set, |fetched| numbers.retain(|&number| fetched.asked.insert(number)));
        }
        numbers
    }

    /// Keeps what the sender gave; `false` where it is nothing that could have been asked for, or too much.
    pub fn keep(&self, further: &Further<'_>, given: Vec<(u32, Vec<u8>)>) -> bool {
        let Some(set) = further.xattrs else { return given.is_empty() };
        let mut held: usize = self.lock().values().flat_map(|fetched| fetched.values.values()).map(|v| v.len()).sum();
        self.with(set, |fetched| {
            given.into_iter().all(|(number, value)| {
                held += value.len();
                let due = set.get(number).is_some_and(|xattr| xattr.value.is_digest());
                due && held <= VALUES_MOST && fetched.asked.contains(&number) && {
                    fetched.values.insert(number, value.into());
                    true
                }
            })
        })
    }

    fn get(&self, set: &Arc<XattrSet>, number: u32) -> Option<Arc<[u8]>> {
        self.lock().get(&place(set))?.values.get(&number).cloned()
    }

    fn with<T>(&self, set: &Arc<XattrSet>, act: impl FnOnce(&mut FetchedAttributes) -> T) -> T {
        let mut sets = self.lock();
        let new = || FetchedAttributes { _set: Arc::clone(set), ..FetchedAttributes::default() };
        act(sets.entry(place(set)).or_insert_with(new))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<usize, FetchedAttributes>> {
        // Whole after every step, so a panic elsewhere leaves nothing half done.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(set: &Arc<XattrSet>) -> usize {
    Arc::as_ptr(set) as usize
}

impl Dest {
    /// How what stands at `name` differs from what it should have.
    pub fn further_change(
        &self,
        name: &[u8],
        further: &Further<'_>,
        values: &Values,
    ) -> Result<FurtherChange, DestError> {
        let pinned = self.pin(name, further.kind)?;
        let change = || -> io::Result<FurtherChange> {
            let mut change = FurtherChange::default();
            let mode = self.claimed(&pinned)?.mode;
            for (which, wanted) in [(Which::Access, further.access), (Which::Default, further.default)] {
                if let Some(wanted) = wanted {
                    change.acl |= acl::read(&pinned, which, mode, self.fake)? != *wanted;
                }
            }
            if let Some(set) = further.xattrs {
                let difference = xattr::difference(&pinned, &self.reach, set)?;
                change.xattrs = !difference.is_empty();
                change.unknown = difference.differing;
                change.unknown.retain(|&number| {
                    set.get(number).is_some_and(|xattr| xattr.value.is_digest()) && values.get(set, number).is_none()
                });
            }
            Ok(change)
        };
        change().during("get_xattr_names: llistxattr", name)
    }

    /// Gives what stands at `name` its ACLs, and its extended attributes as far as their values are known.
    pub fn set_further(&self, name: &[u8], further: &Further<'_>, values: &Values) -> Result<(), DestError> {
        let pinned = self.pin(name, further.kind)?;
        self.set_xattrs(&pinned, name, further, values, None)?;
        self.set_acls(&pinned, name, further)
    }

    /// The same, for what was made in the image of what `from` has under the name; values that are lacking may stand there.
    pub fn set_further_from(
        &self,
        from: &Dest,
        name: &[u8],
        further: &Further<'_>,
        values: &Values,
    ) -> Result<(), DestError> {
        let basis = if further.has_digests() { from.pin(name, further.kind).ok() } else { None };
        let pinned = self.pin(name, further.kind)?;
        self.set_xattrs(&pinned, name, further, values, basis.as_ref())?;
        self.set_acls(&pinned, name, further)
    }

    /// Sets the attributes of an open file in the order that keeps them all: a new owner costs a file its capabilities,
    /// and others than root need its old permissions. Values that are lacking may stand at the file under its name.
    pub(super) fn set_open_further(
        &self,
        file: impl AsFd,
        name: &[u8],
        attrs: &Attrs,
        further: &Further<'_>,
        values: &Values,
    ) -> Result<(), DestError> {
        let pinned = Pinned::of(&file).during("dup", name)?;
        let basis = if further.has_digests() { self.pin(name, Kind::File).ok() } else { None };
        let owners = Attrs { uid: attrs.uid, gid: attrs.gid, ..Attrs::default() };
        self.set_open(&file, name, &owners)?;
        self.set_xattrs(&pinned, name, further, values, basis.as_ref())?;
        self.set_open(&file, name, &Attrs { mode: attrs.mode, ..Attrs::default() })?;
        self.set_acls(&pinned, name, further)?;
        self.set_open(&file, name, &Attrs { mtime: attrs.mtime, atime: attrs.atime, ..Attrs::default() })
    }

    /// Gives an open file what another has of this.
    pub(super) fn copy_further(
        &self,
        from: impl AsFd,
        to: impl AsFd,
        name: &[u8],
        kept: FurtherKept,
    ) -> Result<(), DestError> {
        let copy = || -> io::Result<()> {
            let (from, to) = (Pinned::of(from)?, Pinned::of(to)?);
            for attribute in from.xattr_names()? {
                let taken = match &attribute[..] {
                    b"system.posix_acl_access" => kept.acls,
                    b"security.selinux" => false,
                    other => kept.xattrs && !other.starts_with(b"system."),
                };
                if let (true, Some(value)) = (taken, from.xattr(&attribute)?) {
                    match to.set_xattr(&attribute, &value) {
                        // Others than root cannot give what is root's.
                        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !self.am_root => {}
                        done => done?,
                    }
                }
            }
            Ok(())
        };
        copy().during("copy_xattr", name)
    }

    fn set_acls(&self, pinned: &Pinned, name: &[u8], further: &Further<'_>) -> Result<(), DestError> {
        for (which, wanted) in [(Which::Access, further.access), (Which::Default, further.default)] {
            let Some(wanted) = wanted else { continue };
            acl::write(pinned, which, wanted, further.mode, self.fake).during("set_acl: sys_acl_set_file", name)?;
        }
        Ok(())
    }

    fn set_xattrs(
        &self,
        pinned: &Pinned,
        name: &[u8],
        further: &Further<'_>,
        values: &Values,
        basis: Option<&Pinned>,
    ) -> Result<(), DestError> {
        self.make_claimable(pinned, name)?;
        let Some(set) = further.xattrs else { return Ok(()) };
        let difference = xattr::difference(pinned, &self.reach, set).during("rsync_xal_set: flistxattr", name)?;
        let value = |number: u32| -> io::Result<Option<Arc<[u8]>>> {
            let Some(xattr) = set.get(number) else { return Ok(None) };
            if let XattrValue::Whole(value) = &xattr.value {
                return Ok(Some(value.as_slice().into()));
            }
            if let Some(value) = values.get(set, number) {
                return Ok(Some(value));
            }
            let Some(basis) = basis else { return Ok(None) };
            let here = xattr::value(basis, &self.reach, &xattr.name)?;
            Ok(here.filter(|value| XattrValue::of(value) == xattr.value).map(Into::into))
        };
        let change = || -> io::Result<()> {
            for number in &difference.differing {
                if let (Some(xattr), Some(value)) = (set.get(*number), value(*number)?) {
                    xattr::set(pinned, &self.reach, &xattr.name, &value)?;
                }
            }
            difference.surplus.iter().try_for_each(|name| pinned.remove_xattr(name))
        };
        self.made_writable(pinned, change).during("rsync_xal_set: fsetxattr", name)
    }

    /// Others than root may only change the attributes of files they may write to.
    fn made_writable(&self, pinned: &Pinned, change: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match change() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !self.am_root => {
                let mode = pinned.stat()?.st_mode & 0o7777;
                if mode & 0o200 != 0 || pinned.set_mode(mode | 0o200).is_err() {
                    return Err(error);
                }
                let done = change();
                pinned.set_mode(mode)?;
                done
            }
            done => done,
        }
    }

    fn pin(&self, name: &[u8], kind: Kind) -> Result<Pinned, DestError> {
        let open = || -> io::Result<Pinned> {
            let (dir, leaf) = self.place(name, kind)?;
            match Pinned::open(&dir, leaf, self.kept_as(kind)) {
                // With `--fake-super`: it is what it is, and not a file that claims so.
                Err(_) if self.kept_as(kind) != kind => Pinned::open(&dir, leaf, kind),
                pinned => pinned,
            }
        };
        open().during("open", name)
    }
}
