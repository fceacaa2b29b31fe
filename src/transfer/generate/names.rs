//! Entries that are one name of several.

use super::Work;
use super::links::Meeting;
use super::tell::report;
use crate::transfer::TransferError;
use crate::transfer::dest::Found;
use protocol::flist::{FileEntry, Kind, LinkId, Ndx};
use protocol::item::{ItemFlags, ItemHeader};
use std::collections::VecDeque;

impl Work<'_> {
    /// Deals with an entry that may be one name of several.
    pub(super) fn named(&mut self, ndx: Ndx, entry: &FileEntry) -> Result<(), TransferError> {
        let Some(id) = entry.extra.link.filter(|_| self.options.hard_links) else {
            return self.entry(ndx, entry).map(drop);
        };
        let name = self.target.name(entry);
        let found = self.stands(name);
        if entry.kind().is_some_and(|kind| self.is_left_alone(name, entry, kind, found.as_ref())) {
            let waiting = self.links.pass(id);
            return self.take_up(waiting);
        }
        // Only bytes are worth waiting for a name that has them already.
        match self.links.meet(id, ndx, found.is_some() || !entry.is_file()) {
            Meeting::Wait => self.board.postpone(ndx),
            Meeting::Link(existing) => self.link(ndx, entry, &existing, found),
            Meeting::Lead => {
                let handled = self.entry(ndx, entry)?;
                if self.board.awaits(ndx) {
                    self.links.coming(id);
                    return Ok(());
                }
                let here = handled
                    && (self.options.dry_run || self.stands(name).is_some_and(|found| found.kind() == entry.kind()));
                self.linkable(id, here.then_some(name))?;
            }
        }
        Ok(())
    }

    pub(super) fn stands(&self, name: &[u8]) -> Option<Found> {
        self.dest.as_ref().and_then(|dest| dest.stat(name).ok().flatten())
    }

    /// One name of several is here, or will not be: takes up those that waited for it.
    pub(super) fn linkable(&mut self, id: LinkId, here: Option<&[u8]>) -> Result<(), TransferError> {
        let waiting = match here {
            Some(name) => self.links.here(id, name),
            None => self.links.gone(id),
        };
        self.take_up(waiting)
    }

    pub(super) fn take_up(&mut self, waiting: VecDeque<Ndx>) -> Result<(), TransferError> {
        for ndx in waiting {
            if let Some(list) = self.lists.find(ndx).cloned()
                && let Some(entry) = list.get(ndx)
            {
                self.named(ndx, entry)?;
            }
            self.board.close(ndx);
        }
        Ok(())
    }

    /// Makes an entry another name of what stands at `existing`.
    pub(super) fn link(&mut self, ndx: Ndx, entry: &FileEntry, existing: &[u8], found: Option<Found>) {
        let name = self.target.name(entry);
        let mut flags = ItemFlags::LOCAL_CHANGE.and(ItemFlags::XNAME);
        let mut xname = existing.to_vec();
        if let Some(dest) = self.dest.clone() {
            let leads = dest.stat(existing).unwrap_or_default();
            let inode = |found: &Found| (found.dev, found.ino);
            if leads.is_some() && leads.as_ref().map(inode) == found.as_ref().map(inode) {
                xname.clear();
            } else if !self.options.dry_run {
                let in_the_way = found.is_some_and(|found| found.kind() == Some(Kind::Dir));
                let cleared = if in_the_way { dest.remove_dir(name).map(drop) } else { Ok(()) };
                if let Err(error) = cleared.and_then(|()| dest.make_link(existing, name)) {
                    return self.board.complain(&error.to_string());
                }
            }
            if let Some(found) = found.filter(|found| found.kind() == entry.kind() && !xname.is_empty()) {
                let size = entry.is_file() && found.len != entry.len;
                flags = flags.and(report(&self.change(&dest, entry, &found))).with(ItemFlags::SIZE, size);
            }
        }
        flags = flags.with(ItemFlags::NEW, found.is_none());
        if !xname.is_empty() || self.tells_all() {
            let header = ItemHeader { flags, xname: Some(xname), ..ItemHeader::default() };
            match self.n.has_items() {
                true => self.speaker.item(ndx, &header, &mut self.out),
                false if header.xname.as_ref().is_some_and(|name| !name.is_empty()) => self.tell_user(ndx, &header),
                false => {}
            }
        }
        self.acknowledge(ndx);
    }
}
