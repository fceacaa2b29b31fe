//! What an alternative destination has of an entry: `--compare-dest`, `--copy-dest`, `--link-dest`. Nothing is ever written
//! there: what is linked from it has all attributes already. Counterpart: rsync's `try_dests_reg` and `try_dests_non`.

use super::Work;
use super::tell::report;
use crate::transfer::dest::{Attrs, Dest, DestError, Found, Further, FurtherChange, Preserve};
use protocol::args::{AltKind, ItemDetail};
use protocol::flist::{FileEntry, Kind, Ndx};
use protocol::item::{ItemFlags, ItemHeader};

/// How much of an entry an alternative has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AlternativeMatch {
    /// Something of its kind.
    Kind,
    Content,
    /// Its content and all attributes that are kept.
    All,
}

/// What an alternative has of an entry.
struct Base {
    number: u8,
    found: Found,
    level: AlternativeMatch,
    change: Attrs,
    further: FurtherChange,
}

/// What became of an entry that an alternative has.
pub(super) struct TakenOver {
    header: ItemHeader,
    /// Nothing differs from the alternative.
    same: bool,
    /// Numbers of the extended attributes whose values only the sender knows.
    unknown: Vec<u32>,
}

impl Work<'_> {
    /// Takes a regular file over from an alternative, if one has its content; `found` is what stands here. `None` when
    /// it must be asked for or is right already.
    pub(super) fn alternatives(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        found: Option<&Found>,
    ) -> Option<Result<TakenOver, DestError>> {
        let kind = self.options.alt_kind?;
        if let Some(found) = found {
            return self.over_what_stands(dest, name, entry, found, kind);
        }
        let base = self.best(dest, name, entry).filter(|base| base.level > AlternativeMatch::Kind)?;
        Some(self.take_over(dest, entry, None, (base, kind)))
    }

    /// What stands here already gives way only to a perfect match, and to no mere copy of it.
    fn over_what_stands(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        found: &Found,
        kind: AltKind,
    ) -> Option<Result<TakenOver, DestError>> {
        if kind == AltKind::Copy {
            return None;
        }
        let base = self.best(dest, name, entry).filter(|base| base.level == AlternativeMatch::All)?;
        if (found.dev, found.ino) == (base.found.dev, base.found.ino) {
            return None;
        }
        Some(self.take_over(dest, entry, Some(found), (base, kind)))
    }

    fn take_over(
        &mut self,
        dest: &Dest,
        entry: &FileEntry,
        found: Option<&Found>,
        (base, kind): (Base, AltKind),
    ) -> Result<TakenOver, DestError> {
        let name = self.target.name(entry);
        let (header, same) = differs_from(&base);
        let mut taken = TakenOver { header, same, unknown: Vec::new() };
        let Some(from) = dest.alternative(base.number) else { return Ok(taken) };
        if same && kind == AltKind::Compare {
            if found.is_some() && !self.options.dry_run {
                dest.remove_non_dir(name)?;
            }
            return Ok(taken);
        }
        taken.header.flags = taken.header.flags.and(ItemFlags::LOCAL_CHANGE);
        if same && kind == AltKind::Link && (self.options.dry_run || dest.link_from(from, name).is_ok()) {
            taken.header.flags = taken.header.flags.and(ItemFlags::XNAME);
            taken.header.xname = Some(Vec::new());
            return Ok(taken);
        }
        taken.header.flags = taken.header.flags.with(ItemFlags::TIME, !same && self.has_new_time(entry));
        if !self.options.dry_run {
            let attrs = dest.wanted(entry, &Preserve::of(self.options), None);
            dest.copy_from(from, name, &attrs)?;
        }
        taken.unknown = self.further_of_base(dest, name, entry, base)?;
        Ok(taken)
    }

    /// Gives what was made in the image of an alternative its ACLs and extended attributes.
    pub(super) fn finish_taken(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        mut taken: TakenOver,
    ) -> Result<TakenOver, DestError> {
        if let Some(base) = self.best(dest, name, entry) {
            taken.unknown = self.further_of_base(dest, name, entry, base)?;
        }
        Ok(taken)
    }

    /// Returns the numbers of the values that neither the list nor the alternative has.
    fn further_of_base(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        base: Base,
    ) -> Result<Vec<u32>, DestError> {
        let Some(further) = Further::of(entry, self.options) else { return Ok(Vec::new()) };
        let values = &self.board.values;
        if let (false, Some(from)) = (self.options.dry_run, dest.alternative(base.number)) {
            dest.set_further_from(from, name, &further, values)?;
        }
        Ok(values.ask(&further, base.further.unknown))
    }

    /// Tells of what an alternative has.
    pub(super) fn tell_taken(&mut self, ndx: Ndx, name: &[u8], is_dir: bool, taken: TakenOver) {
        let TakenOver { header, same, unknown } = taken;
        if same {
            let slash = if is_dir { &b"/"[..] } else { b"" };
            self.tell_up_to_date(&[name, slash].concat());
        }
        // In words it is up to date, whatever was made of it here.
        if !same || !matches!(self.options.detail, ItemDetail::None | ItemDetail::Names) {
            self.tell_item(ndx, header, unknown);
        }
    }

    /// The first alternative that has a file of this name to build upon, and what is told of its attributes.
    pub(super) fn alternative_basis(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
    ) -> Option<(u8, Found, ItemFlags)> {
        self.options.alt_kind?;
        let base = self.best(dest, name, entry)?;
        Some((base.number, base.found, differs_from(&base).0.flags))
    }

    /// Whether an alternative has anything of an entry's kind.
    pub(super) fn stands_in_alternative(&self, name: &[u8], entry: &FileEntry) -> bool {
        let Some(dest) = self.dest.as_ref().filter(|_| self.options.alt_kind.is_some()) else { return false };
        let there = |number| dest.alternative(number).and_then(|there| there.stat(name).ok().flatten());
        (0..dest.alternatives()).filter_map(there).any(|found| found.kind() == entry.kind())
    }

    /// Whether what stands here is a name of the very file that an alternative has: it is not to be changed.
    pub(super) fn is_of_alternative(&self, dest: &Dest, name: &[u8], found: &Found) -> bool {
        let there = |number| dest.alternative(number).and_then(|there| there.stat(name).ok().flatten());
        (0..dest.alternatives()).filter_map(there).any(|there| (there.dev, there.ino) == (found.dev, found.ino))
    }

    /// What a further name of a file, `existing` being the one that is here, differs by from the alternative that has it:
    /// `None` when none has. The other is true when it is the very file that was linked.
    pub(super) fn alternative_name(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        (existing, lead): (&[u8], Option<&Found>),
    ) -> Option<(ItemFlags, bool)> {
        let kind = self.options.alt_kind?;
        if kind == AltKind::Link {
            // In a dry run the lead is still where it would be linked from.
            let base = if self.options.dry_run { self.best(dest, existing, entry) } else { None };
            let base = base.filter(|base| base.level == AlternativeMatch::All).map(|base| base.found);
            let lead = lead.copied().or(base);
            return lead.filter(|lead| self.is_of_alternative(dest, name, lead)).map(|_| (ItemFlags::default(), true));
        }
        let base = self.best(dest, name, entry).filter(|base| base.level > AlternativeMatch::Kind)?;
        Some((differs_from(&base).0.flags, false))
    }

    /// The alternative that has most of an entry, the first of equals.
    fn best(&mut self, dest: &Dest, name: &[u8], entry: &FileEntry) -> Option<Base> {
        let mut best: Option<Base> = None;
        for number in 0..dest.alternatives() {
            let Some(there) = dest.alternative(number) else { continue };
            let Ok(Some(found)) = there.stat(name) else { continue };
            if found.kind() != entry.kind() {
                continue;
            }
            let change = self.change(dest, entry, &found);
            let further = Further::of(entry, self.options).map_or_else(FurtherChange::default, |further| {
                let change = there.further_change(name, &further, &self.board.values);
                change.unwrap_or_else(|_| further.all())
            });
            let same = change.is_empty() && !further.acl && !further.xattrs;
            let level = match self.has_content(there, name, entry, &found) {
                false => AlternativeMatch::Kind,
                true if same => AlternativeMatch::All,
                true => AlternativeMatch::Content,
            };
            if best.as_ref().is_none_or(|before| level > before.level) {
                best = Some(Base { number, found, level, change, further });
            }
            if level == AlternativeMatch::All {
                break;
            }
        }
        best
    }

    fn has_content(&mut self, there: &Dest, name: &[u8], entry: &FileEntry, found: &Found) -> bool {
        match entry.kind() {
            Some(Kind::File) => self.is_up_to_date(there, name, entry, found),
            Some(Kind::Dir) => true,
            Some(kind) => there.is_same_node(name, entry, kind, found).unwrap_or(false),
            None => false,
        }
    }

    /// Takes a symlink, device or special file that is not here from an alternative; what differs there is only told, and
    /// is to be made. `None` when nothing of its kind is there.
    pub(super) fn alternative_node(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
    ) -> Option<(TakenOver, bool)> {
        let kind = self.options.alt_kind?;
        let base = self.best(dest, name, entry)?;
        let (mut header, same) = differs_from(&base);
        let taken = |header| TakenOver { header, same, unknown: Vec::new() };
        if same && kind == AltKind::Compare {
            return Some((taken(header), true));
        }
        header.flags = header.flags.and(ItemFlags::LOCAL_CHANGE);
        if !same {
            header.flags = header.flags.and(self.changed_node(entry));
        }
        let linked = same
            && kind == AltKind::Link
            && dest.alternative(base.number).is_some_and(|from| {
                // What cannot be linked is made.
                self.options.dry_run || dest.link_from(from, name).is_ok()
            });
        if linked {
            header.flags = header.flags.and(ItemFlags::XNAME);
            header.xname = Some(Vec::new());
        }
        Some((taken(header), linked))
    }

    /// What an alternative has of a directory that is not here: its differences are told instead of a new directory.
    pub(super) fn alternative_dir(&mut self, dest: &Dest, name: &[u8], entry: &FileEntry) -> Option<TakenOver> {
        self.options.alt_kind?;
        let base = self.best(dest, name, entry)?;
        let preserve = Preserve::of(self.options);
        let (mut header, same) = differs_from(&base);
        let untold = preserve.mtime && !preserve.dir_times;
        header.flags = header.flags.and(ItemFlags::LOCAL_CHANGE).with(ItemFlags::TIME, untold);
        Some(TakenOver { header, same, unknown: Vec::new() })
    }
}

/// What is told of the difference from an alternative, and whether there is none.
fn differs_from(base: &Base) -> (ItemHeader, bool) {
    let further =
        ItemFlags::default().with(ItemFlags::ACL, base.further.acl).with(ItemFlags::XATTR, base.further.xattrs);
    let flags = report(&base.change).and(further);
    (ItemHeader { flags, ..ItemHeader::default() }, base.level == AlternativeMatch::All)
}
