//! What is done about an entry of any kind: all but regular files is made here at once.

use super::Work;
use super::alternatives::TakenOver;
use super::tell::{header, report};
use crate::disk::links::is_unsafe;
use crate::disk::shown;
use crate::transfer::TransferError;
use crate::transfer::dest::{Attrs, Dest, DestError, Found, Preserve};
use protocol::args::Info;
use protocol::flist::{DirClass, FileEntry, Kind, Ndx};
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::{Message, TextKind};

/// What is to be told of an entry that was seen to.
enum Made {
    /// It is here; ACLs and extended attributes are still to be seen to.
    Here(ItemHeader),
    /// An alternative destination has it.
    Taken(TakenOver),
    /// It is only the way to something, and nothing is told of it.
    OnTheWay,
}

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
        let Some(found) = self.board.or_complain(dest.map_or(Ok(None), look)) else { return Ok(false) };
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
        if self.is_left_alone(name, entry, kind, found.as_ref()) || self.skips(name, entry, kind) {
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
        let made = match (kind, dest) {
            (Kind::File, dest) => return self.file(dest, name, ndx, entry, found).map(|()| true),
            (_, None) => Ok(Some(Made::Here(header(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW))))),
            (Kind::Dir, Some(dest)) => self.dir(dest, name, entry, found).map(Some),
            (_, Some(dest)) => self.link_or_node(dest, name, entry, kind, found),
        };
        match self.board.or_complain(made).flatten() {
            Some(Made::Here(mut header)) => {
                let existed = found.is_some_and(|found| found.kind() == Some(kind));
                let flags = Some(header.flags).filter(|&flags| flags != ItemFlags::default());
                let (flags, unknown) = self.further(dest, name, entry, existed, flags);
                header.flags = flags.unwrap_or_default();
                self.tell_item(ndx, header, unknown);
                if flags.is_none() && kind != Kind::Dir {
                    self.tell_up_to_date(name);
                }
            }
            Some(Made::Taken(taken)) => self.tell_taken(ndx, name, entry.is_dir(), taken),
            Some(Made::OnTheWay) => self.tell_item(ndx, ItemHeader::default(), Vec::new()),
            None => return Ok(false),
        }
        if kind != Kind::Dir {
            self.acknowledge(ndx);
        }
        Ok(true)
    }

    /// Whether an entry of this kind is none that the options ask for, which is told.
    fn skips(&mut self, name: &[u8], entry: &FileEntry, kind: Kind) -> bool {
        let skip = match kind {
            // A server's client knows what it sends, and tells a list of names by nothing.
            Kind::Dir => !(self.server || self.options.recurse || self.options.dirs || self.options.relative),
            Kind::Symlink => !self.options.links,
            Kind::Device | Kind::Special if self.options.drop_devices => true,
            Kind::Device => !self.options.devices || self.dest.as_deref().is_some_and(|dest| !dest.makes_devices()),
            Kind::Special => !self.options.specials,
            Kind::File => false,
        };
        if skip {
            match kind {
                Kind::Dir => self.tell(&[b"skipping directory \"", &entry.name, b"\""]),
                _ if self.options.level(Info::Nonreg) == 0 => {}
                _ => self.tell(&[b"skipping non-regular file \"", &entry.name, b"\""]),
            }
            return true;
        }
        match &entry.extra.target {
            Some(target) if self.options.safe_links && is_unsafe(target, &entry.name) => {
                if self.options.level(Info::Name) > 0 {
                    self.tell(&[b"ignoring unsafe symlink \"", name, b"\" -> \"", target, b"\""]);
                }
                true
            }
            _ => false,
        }
    }

    fn dir(&mut self, dest: &Dest, name: &[u8], entry: &FileEntry, found: Option<Found>) -> Result<Made, DestError> {
        // Only a way to something asked for: its attributes are none of ours.
        if entry.extra.dir_class == DirClass::Implied && self.options.no_implied_dirs {
            if found.is_none() && !self.options.dry_run {
                dest.make_dir(name, 0o777)?;
            }
            return Ok(Made::OnTheWay);
        }
        let existing = found.filter(|found| found.kind() == Some(Kind::Dir));
        let taken = if existing.is_none() { self.alternative_dir(dest, name, entry) } else { None };
        if found.is_some() && existing.is_none() {
            match self.options.dry_run {
                true => dest.would_back_up(name)?,
                false => drop(dest.back_up(name)?),
            }
        }
        if !self.options.dry_run {
            let made = match existing {
                Some(found) => found,
                None => dest.make_dir(name, entry.mode)?,
            };
            let wanted = dest.wanted(entry, &Preserve::of(self.options), existing.as_ref());
            self.board.or_complain(self.late.enter(dest, name, &wanted, &made));
        }
        match (taken, existing) {
            (Some(taken), _) => self.finish_taken(dest, name, entry, taken).map(Made::Taken),
            (None, Some(found)) => Ok(Made::Here(header(report(&self.change(dest, entry, &found))))),
            (None, None) => Ok(Made::Here(header(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW)))),
        }
    }

    /// Returns what to tell, or nothing when the entry failed and that was said.
    fn link_or_node(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        kind: Kind,
        found: Option<Found>,
    ) -> Result<Option<Made>, DestError> {
        let same_kind = found.filter(|found| found.kind() == Some(kind));
        let wanted = dest.wanted(entry, &Preserve::of(self.options), found.as_ref());
        let mut flags = ItemFlags::NEW.and(ItemFlags::LOCAL_CHANGE);
        let mut taken = None;
        if let Some(found) = &same_kind {
            let change = self.change(dest, entry, found);
            flags = report(&told(&change, kind));
            let same = dest.is_same_node(name, entry, kind, found)?;
            // What an alternative has too is not changed, but made anew.
            let shared = same && !change.is_empty() && self.is_of_alternative(dest, name, found);
            if same && !shared {
                if !self.options.dry_run {
                    dest.set_attrs(name, kind, &change)?;
                }
                return Ok(Some(Made::Here(header(flags))));
            }
            if !same {
                flags = flags.and(self.changed_node(entry)).and(ItemFlags::LOCAL_CHANGE);
            }
        } else if found.is_none() {
            match self.alternative_node(dest, name, entry) {
                Some((done, true)) => return Ok(Some(Made::Taken(done))),
                Some((to_make, false)) => taken = Some(to_make),
                None => {}
            }
        }
        match (kind, &entry.extra.target) {
            _ if self.options.dry_run => dest.would_back_up(name)?,
            (Kind::Symlink, Some(target)) => dest.make_symlink(name, target, &wanted)?,
            (Kind::Symlink, None) => return Ok(None),
            _ => dest.make_node(name, entry, &wanted)?,
        }
        match taken {
            Some(taken) => self.finish_taken(dest, name, entry, taken).map(|taken| Some(Made::Taken(taken))),
            None => Ok(Some(Made::Here(header(flags)))),
        }
    }

    /// What is told besides attributes of a symlink or node that becomes another.
    pub(super) fn changed_node(&self, entry: &FileEntry) -> ItemFlags {
        ItemFlags::CHANGE.with(ItemFlags::TIME, self.has_new_time(entry))
    }

    /// Whether something made here has the time at which it was made.
    pub(super) fn has_new_time(&self, entry: &FileEntry) -> bool {
        !self.options.times || (entry.kind() == Some(Kind::Symlink) && self.options.omit_link_times)
    }
}

/// Access times of symlinks are set, but nothing is told of them.
pub(super) fn told(change: &Attrs, kind: Kind) -> Attrs {
    Attrs { atime: change.atime.filter(|_| kind != Kind::Symlink), ..*change }
}
