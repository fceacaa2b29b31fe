//! What is done about an entry of any kind: all but regular files is made here at once.

use super::Work;
use super::tell::{report, reported};
use crate::transfer::TransferError;
use crate::transfer::beneath::shown;
use crate::transfer::dest::{Attrs, Dest, DestError, Found};
use crate::transfer::links::is_unsafe;
use crate::transfer::receive::preserve;
use protocol::flist::{DirClass, FileEntry, Kind, Ndx};
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::{Message, TextKind};

impl Work<'_> {
    /// Whether a daemon's module takes nothing of this name, or of a folder above it; says so once.
    pub(super) fn is_refused(&mut self, name: &[u8], is_dir: bool) -> bool {
        let Some(guard) = &self.target.guard else { return false };
        let mut above = (0..name.len()).filter(|&at| name[at] == b'/').map(|at| &name[..at]);
        if above.any(|folder| self.refused.contains(folder)) || self.refused.contains(name) {
            return true;
        }
        if name == b"." || !guard.hides(name, is_dir) {
            return false;
        }
        let what = if is_dir { "directory" } else { "file" };
        let mut lines = vec![format!("ERROR: daemon refused to receive {what} \"{}\"\n", shown(name))];
        if is_dir {
            lines.push("*** Skipping any contents from this failed directory ***\n".into());
            self.refused.insert(name.to_vec());
        }
        lines.into_iter().for_each(|line| self.say(&Message::Text(TextKind::ErrorXfer, line.into())));
        self.board.lock().complaints += 1;
        true
    }

    /// Brings an entry up to date, or asks for it; false when it was left alone or failed.
    pub(super) fn entry(&mut self, ndx: Ndx, entry: &FileEntry) -> Result<bool, TransferError> {
        let name = self.target.name(entry);
        if self.is_refused(name, entry.is_dir()) {
            return Ok(false);
        }
        let held = self.dest.clone();
        let dest = held.as_deref();
        let look = |dest: &Dest| if entry.is_dir() { dest.stat_dir(name) } else { dest.stat(name) };
        let found = match dest.map_or(Ok(None), look) {
            Ok(found) => found,
            Err(error) => {
                self.board.complain(&error.to_string());
                return Ok(false);
            }
        };
        // A destination made for this session is as new as if it had not been there.
        let found = found.filter(|_| !(self.target.made && name == b"."));
        let Some(kind) = entry.kind() else {
            // An argument that is missing.
            if let Some(dest) = dest.filter(|_| self.options.delete_missing_args) {
                self.deletion.missing(dest, name)?;
                self.pass_told();
            }
            return Ok(false);
        };
        let skip = match kind {
            // A server's client knows what it sends, and tells a list of names by nothing.
            Kind::Dir => !(self.plan.server || self.options.recurse || self.options.dirs || self.options.relative),
            Kind::Symlink => !self.options.links,
            Kind::Device | Kind::Special if self.options.drop_devices => true,
            Kind::Device => !self.options.devices || dest.is_some_and(|dest| !dest.makes_devices()),
            Kind::Special => !self.options.specials,
            Kind::File => false,
        };
        if let (true, Some(target)) = (self.options.safe_links && !skip, &entry.extra.target)
            && is_unsafe(target, &entry.name)
        {
            if self.options.verbose > 0 {
                self.tell(&[b"ignoring unsafe symlink \"", name, b"\" -> \"", target, b"\""]);
            }
            return Ok(false);
        }
        let leave = self.is_left_alone(name, entry, kind, found.as_ref());
        if skip {
            let what = if kind == Kind::Dir { "directory" } else { "non-regular file" };
            self.tell(&[b"skipping ", what.as_bytes(), b" \"", name, b"\""]);
        }
        if leave && kind != Kind::Dir && self.plan.names > 1 {
            match &found {
                None => self.tell(&[b"not creating new file \"", name, b"\""]),
                Some(_) if self.options.ignore_existing => self.tell(&[name, b" exists"]),
                Some(_) => self.tell(&[name, b" is newer"]),
            }
        }
        let stays_missing = kind == Kind::Dir && found.is_none() && self.options.existing;
        if stays_missing && self.plan.names > 1 {
            self.tell(&[b"not creating new directory \"", name, b"\""]);
        }
        let too_small = self.options.min_size.is_some_and(|least| entry.len < least);
        let too_large = self.options.max_size.is_some_and(|most| entry.len > most);
        let wrong_size = kind == Kind::File && (too_small || too_large);
        if skip || leave || wrong_size || stays_missing {
            return Ok(false);
        }
        let in_the_way = found.is_some_and(|found| found.kind() == Some(Kind::Dir)) && kind != Kind::Dir;
        if let (true, Some(dest)) = (in_the_way, dest) {
            let what = match kind {
                Kind::File => "regular file",
                Kind::Symlink => "symlink",
                Kind::Special => "special file",
                _ => "device file",
            };
            if !self.clear_way(dest, name, what)? {
                return Ok(false);
            }
        }
        let work = match (kind, dest) {
            (Kind::File, dest) => return self.file(dest, name, ndx, entry, found).map(|()| true),
            (_, None) => Ok(Some(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW))),
            (Kind::Dir, Some(dest)) if self.options.dry_run => Ok(self.difference(name, entry, found.as_ref(), dest)),
            (Kind::Dir, Some(dest)) => self.dir(dest, name, entry, found),
            (_, Some(dest)) => match self.link_or_node(dest, name, entry, kind, found) {
                Ok(Some(mut header)) => {
                    let existed = found.is_some_and(|found| found.kind() == Some(kind));
                    let flags = Some(header.flags).filter(|&flags| flags != ItemFlags::default());
                    let (flags, unknown) = self.further(Some(dest), name, entry, existed, flags);
                    header.flags = flags.unwrap_or_default();
                    self.tell_item(ndx, header, unknown);
                    if flags.is_none() {
                        self.tell_up_to_date(name);
                    }
                    self.acknowledge(ndx);
                    return Ok(true);
                }
                Ok(None) => return Ok(false),
                Err(error) => Err(error),
            },
        };
        match work {
            Ok(flags) => {
                let here = found.filter(|found| found.kind() == Some(kind));
                let (flags, unknown) = self.further(dest, name, entry, here.is_some(), flags);
                self.report(ndx, flags, unknown);
                if kind != Kind::Dir {
                    self.acknowledge(ndx);
                }
                Ok(true)
            }
            Err(error) => {
                self.board.complain(&error.to_string());
                Ok(false)
            }
        }
    }

    /// What a dry run reports of a directory.
    pub(super) fn difference(
        &mut self,
        name: &[u8],
        entry: &FileEntry,
        found: Option<&Found>,
        dest: &Dest,
    ) -> Option<ItemFlags> {
        match found.filter(|found| found.kind() == Some(Kind::Dir)) {
            Some(found) => reported(&self.change(dest, entry, found)),
            None => {
                let there = self.alternative_dir(dest, name, entry);
                Some(there.unwrap_or(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW)))
            }
        }
    }

    pub(super) fn dir(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        found: Option<Found>,
    ) -> Result<Option<ItemFlags>, DestError> {
        // Only a way to something asked for: its attributes are none of ours.
        if entry.extra.dir_class == DirClass::Implied && self.options.no_implied_dirs {
            if found.is_none() {
                dest.make_dir(name, 0o777)?;
            }
            return Ok(None);
        }
        let existing = found.filter(|found| found.kind() == Some(Kind::Dir));
        let there = if existing.is_none() { self.alternative_dir(dest, name, entry) } else { None };
        if found.is_some() && existing.is_none() {
            dest.back_up(name)?;
        }
        let made = match existing {
            Some(found) => found,
            None => dest.make_dir(name, entry.mode)?,
        };
        let wanted = dest.wanted(entry, &preserve(self.options), existing.as_ref());
        if let Err(error) = self.late.enter(dest, name, &wanted, &made) {
            self.board.complain(&error.to_string());
        }
        Ok(match existing {
            None => Some(there.unwrap_or(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW))),
            Some(found) => reported(&self.change(dest, entry, &found)),
        })
    }

    /// Returns what to tell, or nothing when the entry failed and that was said.
    pub(super) fn link_or_node(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        kind: Kind,
        found: Option<Found>,
    ) -> Result<Option<ItemHeader>, DestError> {
        let same_kind = found.filter(|found| found.kind() == Some(kind));
        let wanted = dest.wanted(entry, &preserve(self.options), found.as_ref());
        let mut header = ItemHeader::default();
        match &same_kind {
            Some(found) => {
                let change = self.change(dest, entry, found);
                header.flags = report(&told(&change, kind));
                if same_node(dest, name, entry, kind, found)? {
                    if !self.options.dry_run {
                        dest.set_attrs(name, kind, &change)?;
                    }
                    return Ok(Some(header));
                }
                header.flags = header.flags.and(self.changed_node(entry)).and(ItemFlags::LOCAL_CHANGE);
            }
            None => match self.alternative_node(dest, name, entry).filter(|_| found.is_none()) {
                Some((there, true)) => return Ok(Some(there)),
                Some((there, false)) => header = there,
                None => header.flags = ItemFlags::NEW.and(ItemFlags::LOCAL_CHANGE),
            },
        }
        if self.options.dry_run {
            return Ok(Some(header));
        }
        match (kind, &entry.extra.target) {
            (Kind::Symlink, Some(target)) => dest.make_symlink(name, target, &wanted)?,
            (Kind::Symlink, None) => return Ok(None),
            _ => dest.make_node(name, entry, &wanted)?,
        }
        Ok(Some(header))
    }

    /// What is told besides attributes of a symlink or node that becomes another.
    pub(super) fn changed_node(&self, entry: &FileEntry) -> ItemFlags {
        let keeps_time = self.options.times && !(entry.kind() == Some(Kind::Symlink) && self.options.omit_link_times);
        ItemFlags::CHANGE.with(ItemFlags::TIME, !keeps_time)
    }
}

/// Whether a symlink, device or special file is what the entry says, its attributes aside.
pub(super) fn same_node(
    there: &Dest,
    name: &[u8],
    entry: &FileEntry,
    kind: Kind,
    found: &Found,
) -> Result<bool, DestError> {
    let same_type = found.mode & 0o170000 == entry.mode & 0o170000;
    Ok(match (kind, &entry.extra.target) {
        (Kind::Symlink, Some(target)) => there.read_link(name)?.as_deref() == Some(target),
        (Kind::Device, _) => Some(found.rdev) == entry.extra.rdev && same_type,
        (Kind::Special, _) => same_type,
        _ => false,
    })
}

/// Access times of symlinks are set, but nothing is told of them.
pub(super) fn told(change: &Attrs, kind: Kind) -> Attrs {
    Attrs { atime: change.atime.filter(|_| kind != Kind::Symlink), ..*change }
}
