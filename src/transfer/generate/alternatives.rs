//! Files that an alternative destination has: `--compare-dest`, `--copy-dest`, `--link-dest`. Counterpart: rsync's
//! `try_dests_reg` and `try_dests_non`.

use super::Work;
use super::entry::same_node;
use super::tell::report;
use crate::transfer::dest::{Dest, DestError, Found};
use crate::transfer::receive::preserve;
use protocol::args::AltKind;
use protocol::flist::{FileEntry, Kind};
use protocol::item::{ItemFlags, ItemHeader};

/// How much of an entry an alternative has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    /// Something of its kind.
    Kind,
    /// Its content.
    Content,
    /// Its content and all attributes that are kept.
    All,
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
    ) -> Option<Result<ItemHeader, DestError>> {
        let kind = self.options.alt_kind?;
        // What stands here already gives way only to a perfect match, and to no mere copy of it.
        if found.is_some() && kind == AltKind::Copy {
            return None;
        }
        let (number, there, level) = self.best(dest, name, entry)?;
        if level == Match::Kind || (found.is_some() && level < Match::All) {
            return None;
        }
        if found.is_some_and(|found| (found.dev, found.ino) == (there.dev, there.ino)) {
            return None;
        }
        Some(self.take_over(dest, name, entry, found, (number, there, level), kind))
    }

    fn take_over(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        found: Option<&Found>,
        (number, there, level): (u8, Found, Match),
        kind: AltKind,
    ) -> Result<ItemHeader, DestError> {
        let Some(from) = dest.alternative(number) else { return Ok(ItemHeader::default()) };
        let mut header = ItemHeader { flags: report(&self.change(dest, entry, &there)), ..ItemHeader::default() };
        if level == Match::All && kind == AltKind::Compare {
            if found.is_some() && !self.options.dry_run {
                dest.remove_non_dir(name)?;
            }
            return Ok(header);
        }
        header.flags = header.flags.and(ItemFlags::LOCAL_CHANGE);
        let mut linked = false;
        if level == Match::All && kind == AltKind::Link {
            linked = self.options.dry_run || dest.link_from(from, name).is_ok();
        }
        if linked {
            header.flags = header.flags.and(ItemFlags::XNAME);
            header.xname = Some(Vec::new());
        } else if !self.options.dry_run {
            let attrs = dest.wanted(entry, &preserve(self.options), None);
            dest.copy_from(from, name, &attrs)?;
        }
        Ok(header)
    }

    /// The first alternative that has a file of this name to build upon.
    pub(super) fn alternative_basis(&mut self, dest: &Dest, name: &[u8], entry: &FileEntry) -> Option<(u8, Found)> {
        self.options.alt_kind?;
        self.best(dest, name, entry).map(|(number, there, _)| (number, there))
    }

    /// The alternative that has most of an entry, the first of equals.
    fn best(&mut self, dest: &Dest, name: &[u8], entry: &FileEntry) -> Option<(u8, Found, Match)> {
        let mut best: Option<(u8, Found, Match)> = None;
        for number in 0..dest.alternatives() {
            let Some(there) = dest.alternative(number) else { continue };
            let Ok(Some(found)) = there.stat(name) else { continue };
            if found.kind() != entry.kind() {
                continue;
            }
            let level = match self.has_content(there, name, entry, &found) {
                false => Match::Kind,
                true if self.change(dest, entry, &found).is_empty() => Match::All,
                true => Match::Content,
            };
            if best.as_ref().is_none_or(|(_, _, before)| level > *before) {
                best = Some((number, found, level));
            }
            if level == Match::All {
                break;
            }
        }
        best
    }

    fn has_content(&mut self, there: &Dest, name: &[u8], entry: &FileEntry, found: &Found) -> bool {
        match entry.kind() {
            Some(Kind::File) => self.is_up_to_date(there, name, entry, found),
            Some(kind) => same_node(there, name, entry, kind, found).unwrap_or(false),
            None => false,
        }
    }

    /// What an alternative has of a symlink, device or special file that is not here, and whether it is taken from there
    /// entirely: `None` when nothing of its kind is there, else what to report.
    pub(super) fn alternative_node(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
    ) -> Option<(ItemHeader, bool)> {
        let kind = self.options.alt_kind?;
        let (number, there, level) = self.best(dest, name, entry)?;
        let mut header = ItemHeader { flags: report(&self.change(dest, entry, &there)), ..ItemHeader::default() };
        if level == Match::All && kind == AltKind::Compare {
            return Some((header, true));
        }
        header.flags = header.flags.and(ItemFlags::LOCAL_CHANGE);
        if level == Match::Kind {
            header.flags = header.flags.and(self.changed_node(entry));
        }
        if level == Match::All && kind == AltKind::Link {
            let from = dest.alternative(number)?;
            if self.options.dry_run || dest.link_from(from, name).is_ok() {
                header.flags = header.flags.and(ItemFlags::XNAME);
                header.xname = Some(Vec::new());
                return Some((header, true));
            }
        }
        Some((header, false))
    }

    /// What an alternative has of a directory that is not here: its differences are reported instead of a new directory.
    pub(super) fn alternative_dir(&mut self, dest: &Dest, name: &[u8], entry: &FileEntry) -> Option<ItemFlags> {
        self.options.alt_kind?;
        let number = (0..dest.alternatives()).find(|&number| {
            let there = dest.alternative(number).and_then(|there| there.stat(name).ok().flatten());
            there.is_some_and(|found| found.kind() == Some(Kind::Dir))
        })?;
        let there = dest.alternative(number)?.stat(name).ok().flatten()?;
        let preserve = preserve(self.options);
        let flags = report(&self.change(dest, entry, &there)).and(ItemFlags::LOCAL_CHANGE);
        Some(flags.with(ItemFlags::TIME, preserve.mtime && !preserve.dir_times))
    }
}
