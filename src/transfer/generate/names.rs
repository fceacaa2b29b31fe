//! Entries that are one name of several.

use super::Work;
use super::links::Meeting;
use super::tell::{header, report};
use crate::transfer::TransferError;
use crate::transfer::dest::Found;
use protocol::args::ItemDetail;
use protocol::flist::{FileEntry, Kind, LinkId, Ndx};
use protocol::item::{ItemFlags, ItemHeader};
use std::collections::VecDeque;

impl Work<'_> {
    /// Deals with an entry that may be one name of several.
    pub(super) fn named(&mut self, ndx: Ndx, entry: &FileEntry) -> Result<(), TransferError> {
        self.one_of_several(ndx, entry, false)
    }

    fn one_of_several(&mut self, ndx: Ndx, entry: &FileEntry, waited: bool) -> Result<(), TransferError> {
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
        let stands = found.is_some_and(|found| found.kind() == entry.kind());
        let exists = stands || !entry.is_file() || self.stands_in_alternative(name, entry);
        match self.links.meet(id, ndx, exists) {
            Meeting::Wait => self.board.postpone(ndx),
            Meeting::Link(existing) => self.link(ndx, entry, &existing, found, waited),
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
                self.one_of_several(ndx, entry, true)?;
            }
            self.board.close(ndx);
        }
        Ok(())
    }

    /// Makes an entry another name of what stands at `existing`; `waited` for it or not.
    fn link(&mut self, ndx: Ndx, entry: &FileEntry, existing: &[u8], found: Option<Found>, waited: bool) {
        let name = self.target.name(entry);
        let mut told = header(ItemFlags::LOCAL_CHANGE.and(ItemFlags::XNAME));
        told.xname = Some(existing.to_vec());
        let (mut same, mut differs) = (false, false);
        if let Some(dest) = self.dest.clone() {
            let leads = dest.stat(existing).unwrap_or_default();
            let inode = |found: &Found| (found.dev, found.ino);
            same = leads.is_some() && leads.as_ref().map(inode) == found.as_ref().map(inode);
            if same {
                told.xname = Some(Vec::new());
            } else if !self.options.dry_run {
                let in_the_way = found.is_some_and(|found| found.kind() == Some(Kind::Dir));
                let cleared = if in_the_way { dest.remove_dir(name).map(drop) } else { Ok(()) };
                if self.board.or_complain(cleared.and_then(|()| dest.make_link(existing, name))).is_none() {
                    return;
                }
            }
            let alike = found.filter(|found| found.kind() == entry.kind());
            if let Some(found) = alike {
                let change = self.change(&dest, entry, &found);
                // Only a dry run finds the name unlike the file that was looked at before it.
                differs = !change.is_empty();
                let flags = report(&change);
                let size = entry.is_file() && found.len != entry.len;
                let new_time = !same && self.has_new_time(entry);
                told.flags = told.flags.and(flags).with(ItemFlags::SIZE, size).with(ItemFlags::TIME, new_time);
            }
            // What had to wait is told as stock tells it then, without a look at the alternatives.
            let there = match found.is_none() && !waited {
                true => self.alternative_name(&dest, name, entry, (existing, leads.as_ref())),
                false => None,
            };
            if let Some((flags, linked)) = there {
                told.flags = told.flags.and(flags);
                if linked {
                    self.tell_linked_in_base(ndx, name, told);
                    return self.acknowledge(ndx);
                }
            } else {
                told.flags = told.flags.with(ItemFlags::NEW, alike.is_none());
            }
        } else {
            told.flags = told.flags.and(ItemFlags::NEW);
        }
        if same {
            self.tell_up_to_date(name);
        }
        if !same || differs || self.options.detail != ItemDetail::None {
            self.tell_item(ndx, told, Vec::new());
        }
        self.acknowledge(ndx);
    }

    /// Tells of a name that is one of the same file in the alternative destination, too: only who wants to hear of all.
    fn tell_linked_in_base(&mut self, ndx: Ndx, name: &[u8], header: ItemHeader) {
        self.tell_up_to_date(name);
        if self.tells_all() && self.options.detail != ItemDetail::None {
            self.tell_item(ndx, header, Vec::new());
        }
    }
}
