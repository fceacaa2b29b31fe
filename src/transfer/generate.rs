//! Decides what is missing and asks for it. Counterpart: rsync's `generate_files`.

mod board;
mod links;

use super::TransferError;
use super::beneath::shown;
use super::dest::{Attrs, Dest, Found, Further, LateDirs, same_mtime};
use super::greet::Mouth;
use super::links::is_unsafe;
use super::receive::{Target, preserve};
use board::BoardState;
pub(super) use board::{Attempt, Board, Note};
use links::{Links, Meeting};
use protocol::args::{ItemDetail, Options};
use protocol::checksum::{Checksum, FileHasher, Sum, weak};
use protocol::flist::{DirClass, FileEntry, FileList, Kind, LinkId, Ndx, Segments};
use protocol::generator::Generator;
use protocol::handshake::{Compat, Negotiated};
use protocol::item::{ItemFlags, ItemHeader, XattrLists};
use protocol::mux::{Message, Outbox, TextKind};
use protocol::sums::{BlockIndex, SumHead};
use protocol::xattr::XattrList;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that may wait in the outbox before they are said.
const OUT_MOST: usize = 64 * 1024;

/// The generator's work. Lists come by the board.
pub(super) struct Generate<'a> {
    pub(super) n: &'a Negotiated,
    pub(super) target: &'a Target,
    pub(super) options: &'a Options,
    pub(super) board: &'a Board,
    pub(super) out: Outbox,
    pub(super) mouth: Mouth,
}

impl Generate<'_> {
    /// Runs to the end of the session; returns how many entries failed on this side.
    pub(super) fn run(self) -> Result<u64, TransferError> {
        let Self { n, target, options, board, out, mouth } = self;
        let incremental = n.compat.has(Compat::INC_RECURSE);
        let mut work = Work {
            n,
            options,
            board,
            target,
            dest: target.again().map(Arc::new),
            out,
            mouth,
            speaker: Generator::new(),
            late: LateDirs::new(options.modify_window),
            incremental,
            fresh: VecDeque::new(),
            lists: Segments::new(incremental),
            open: VecDeque::new(),
            complete: false,
            redo: Vec::new(),
            links: Links::default(),
            buffer: Vec::new(),
        };
        work.lists()?;
        work.wait(|_, state| state.phase >= 1)?;
        // Whoever waits for a file that is sent again is served before the end of this phase too.
        for ndx in std::mem::take(&mut work.redo) {
            work.again(ndx)?;
        }
        work.wait(|work, state| work.lists.iter().all(|list| state.is_idle(list)))?;
        // The ends of the redo phase, of delayed updates and of late deletions.
        for _ in 0..if n.version >= 31 { 3 } else { 2 } {
            work.speaker.done(&mut work.out);
        }
        work.wait(|_, state| state.over)?;
        if let Some(dest) = &work.dest {
            for error in std::mem::take(&mut work.late).finish(dest) {
                work.board.complain(&error.to_string());
            }
        }
        work.pass_notes()?;
        work.speaker.done(&mut work.out);
        work.mouth.say(&mut work.out)?;
        let complaints = board.lock().complaints;
        Ok(complaints)
    }
}

struct Work<'a> {
    n: &'a Negotiated,
    options: &'a Options,
    board: &'a Board,
    target: &'a Target,
    dest: Option<Arc<Dest>>,
    out: Outbox,
    mouth: Mouth,
    speaker: Generator,
    late: LateDirs,
    incremental: bool,
    /// Lists that have come and wait their turn.
    fresh: VecDeque<Arc<FileList>>,
    /// Those whose entries may have to be looked up again.
    lists: Segments<Arc<FileList>>,
    /// Those that are done but for what the receiver still has to do, oldest first.
    open: VecDeque<Arc<FileList>>,
    /// No further segments will come.
    complete: bool,
    /// Files to ask for once more in the redo phase.
    redo: Vec<Ndx>,
    links: Links,
    buffer: Vec<u8>,
}

impl Work<'_> {
    /// Goes through the lists as they come, and tells the sender of each that is done.
    fn lists(&mut self) -> Result<(), TransferError> {
        loop {
            self.pass_notes()?;
            if let Some(list) = self.fresh.pop_front() {
                self.open.push_back(Arc::clone(&list));
                self.list(&list)?;
                self.end_lists();
                continue;
            }
            self.end_lists();
            if self.complete && self.open.is_empty() {
                return Ok(());
            }
            self.wait(|work, state| {
                let idle = work.open.front().is_some_and(|list| state.is_idle(list));
                !work.fresh.is_empty() || (idle && work.may_end())
            })?;
        }
    }

    fn list(&mut self, list: &FileList) -> Result<(), TransferError> {
        if let Some(parent) = list.parent() {
            self.entry(Ndx(list.start().0 - 1), parent)?;
        }
        for (ndx, entry) in list.iter() {
            // With incremental recursion a directory's turn comes with its own segment.
            if !(self.incremental && entry.is_dir()) {
                self.named(ndx, entry)?;
            }
            self.pass_notes()?;
            if self.incremental && self.open.len() > 1 {
                self.end_lists();
            }
            if self.out.len() > OUT_MOST {
                self.mouth.say(&mut self.out)?;
            }
        }
        Ok(())
    }

    /// Whether the oldest list may end: the last segment only once it is known to be the last.
    fn may_end(&self) -> bool {
        self.complete || self.open.len() + self.fresh.len() > 1
    }

    /// Tells of lists that are done. With incremental recursion that is when all of their files are here; otherwise the
    /// redo phase comes for those that went wrong.
    fn end_lists(&mut self) {
        while let Some(list) = self.open.front().filter(|_| self.may_end()) {
            if self.incremental && !self.board.lock().is_idle(list) {
                return;
            }
            self.open.pop_front();
            if self.lists.len() > 1 {
                self.lists.release();
            }
            self.speaker.done(&mut self.out);
        }
    }

    /// Asks once more for a file that went wrong.
    fn again(&mut self, ndx: Ndx) -> Result<(), TransferError> {
        let Some(list) = self.lists.find(ndx).cloned() else { return Ok(()) };
        let (Some(entry), Some(dest)) = (list.get(ndx), self.dest.clone()) else { return Ok(()) };
        let name = self.target.name(entry);
        let found = dest.stat(name).unwrap_or_default();
        self.request(&dest, name, ndx, entry, found.as_ref(), true)
    }

    /// Deals with an entry that may be one name of several.
    fn named(&mut self, ndx: Ndx, entry: &FileEntry) -> Result<(), TransferError> {
        let Some(id) = entry.link.filter(|_| self.options.hard_links) else {
            return self.entry(ndx, entry).map(drop);
        };
        let name = self.target.name(entry);
        let found = self.stands(name);
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

    fn stands(&self, name: &[u8]) -> Option<Found> {
        self.dest.as_ref().and_then(|dest| dest.stat(name).ok().flatten())
    }

    /// One name of several is here, or will not be: takes up those that waited for it.
    fn linkable(&mut self, id: LinkId, here: Option<&[u8]>) -> Result<(), TransferError> {
        let waiting = match here {
            Some(name) => self.links.here(id, name),
            None => self.links.gone(id),
        };
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
    fn link(&mut self, ndx: Ndx, entry: &FileEntry, existing: &[u8], found: Option<Found>) {
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
            self.speaker.item(ndx, &ItemHeader { flags, xname: Some(xname), ..ItemHeader::default() }, &mut self.out);
        }
        self.acknowledge(ndx);
    }

    /// Does what the receiver noted so far.
    fn pass_notes(&mut self) -> Result<(), TransferError> {
        let (notes, failed, last_words) = {
            let mut state = self.board.lock();
            (std::mem::take(&mut state.notes), state.failed, state.last_words.take())
        };
        for note in notes {
            match note {
                Note::Say(message) => self.out.message(&message),
                Note::Redo(ndx) if self.incremental => self.again(ndx)?,
                Note::Redo(ndx) => self.redo.push(ndx),
                Note::List(list) => {
                    if self.options.hard_links {
                        self.links.expect(&list);
                    }
                    self.lists.add(&list, Arc::clone(&list))?;
                    self.fresh.push_back(list);
                }
                Note::ListEnd => self.complete = true,
                Note::Linkable(ndx, here) => {
                    if let Some(list) = self.lists.find(ndx).cloned()
                        && let Some(entry) = list.get(ndx)
                        && let Some(id) = entry.link
                    {
                        self.linkable(id, here.then(|| self.target.name(entry)))?;
                    }
                    self.board.close(ndx);
                }
            }
        }
        if !failed {
            return Ok(());
        }
        if let Some(words) = last_words {
            words.put(self.n, &mut self.out);
            self.mouth.say(&mut self.out)?;
        }
        Err(TransferError::Refused("The receiver gave up".into()))
    }

    /// How long a peer with a time limit may hear nothing of us: half of it, as stock does.
    fn keep_alive_every(&self) -> Option<Duration> {
        let limit = self.options.timeout.filter(|&seconds| seconds > 0)?;
        Some(Duration::from_secs(u64::from(limit).div_ceil(2)))
    }

    /// Says what waits, then serves the receiver's notes until `until` holds.
    fn wait(&mut self, until: impl Fn(&Self, &BoardState) -> bool) -> Result<(), TransferError> {
        loop {
            self.pass_notes()?;
            self.mouth.say(&mut self.out)?;
            let board = self.board;
            let mut state = board.lock();
            while state.notes.is_empty() && !state.failed {
                if until(self, &state) {
                    return Ok(());
                }
                // The receiver's own waits have deadlines, and it fails or ends the session in the end.
                let (woken, timed_out) = board.wait(state, self.keep_alive_every());
                state = woken;
                if timed_out {
                    self.out.keep_alive();
                    break;
                }
            }
        }
    }

    /// Brings an entry up to date, or asks for it; false when it was left alone or failed.
    fn entry(&mut self, ndx: Ndx, entry: &FileEntry) -> Result<bool, TransferError> {
        let name = self.target.name(entry);
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
        let Some(kind) = entry.kind() else { return Ok(false) };
        let skip = match kind {
            Kind::Dir => !(self.options.recurse || self.options.dirs || self.options.relative),
            Kind::Symlink => !self.options.links,
            Kind::Device | Kind::Special if self.options.drop_devices => true,
            Kind::Device => !self.options.devices || dest.is_some_and(|dest| !dest.makes_devices()),
            Kind::Special => !self.options.specials,
            Kind::File => false,
        };
        if let (true, Some(target)) = (self.options.safe_links && !skip, &entry.target)
            && is_unsafe(target, &entry.name)
        {
            if self.options.verbose > 0 {
                self.tell(&format!("ignoring unsafe symlink \"{}\" -> \"{}\"", shown(name), shown(target)));
            }
            return Ok(false);
        }
        let leave = kind != Kind::Dir
            && match &found {
                None => self.options.existing,
                Some(found) => {
                    self.options.ignore_existing
                        || (self.options.update && found.mtime > entry.mtime && kind == Kind::File)
                }
            };
        if skip {
            let what = if kind == Kind::Dir { "directory" } else { "non-regular file" };
            self.tell(&format!("skipping {what} \"{}\"", shown(name)));
        }
        if skip || leave || (kind == Kind::Dir && found.is_none() && self.options.existing) {
            return Ok(false);
        }
        let work = match (kind, dest) {
            (Kind::File, dest) => return self.file(dest, name, ndx, entry, found).map(|()| true),
            (_, None) => Ok(Some(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW))),
            (Kind::Dir, Some(dest)) if self.options.dry_run => Ok(self.difference(entry, found.as_ref(), dest)),
            (Kind::Dir, Some(dest)) => self.dir(dest, name, entry, found),
            (_, Some(dest)) => self.link_or_node(dest, name, entry, kind, found),
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

    /// Tells of a change made here; where nothing changed, only if the client wants to hear of that too.
    fn report(&mut self, ndx: Ndx, flags: Option<ItemFlags>, unknown: Vec<u32>) {
        if let Some(flags) = flags.or_else(|| self.tells_all().then(ItemFlags::default)) {
            let header = self.header(flags, unknown);
            self.speaker.item(ndx, &header, &mut self.out);
        }
    }

    /// A header with these flags, and the values of extended attributes that are wanted with it.
    fn header(&self, flags: ItemFlags, unknown: Vec<u32>) -> ItemHeader {
        let lists = XattrLists::of(self.n, self.options.xattrs > 0, self.options.dry_run, false);
        ItemHeader { flags, xattrs: Some(XattrList::Wanted(unknown)), ..ItemHeader::default() }.with_list(lists)
    }

    /// Sets ACLs and extended attributes of what stands here, as far as their values are known. Returns what is to be
    /// told of them with `flags`, and the numbers of the values that are wanting.
    fn further(
        &mut self,
        dest: Option<&Dest>,
        name: &[u8],
        entry: &FileEntry,
        existed: bool,
        flags: Option<ItemFlags>,
    ) -> (Option<ItemFlags>, Vec<u32>) {
        let Some(further) = Further::of(entry, self.options) else { return (flags, Vec::new()) };
        if entry.dir_class == DirClass::Implied && self.options.no_implied_dirs {
            return (flags, Vec::new());
        }
        let values = &self.board.values;
        let done = match dest.filter(|_| existed || !self.options.dry_run) {
            None => Ok(further.all()),
            Some(dest) => dest.further_change(name, &further, values).and_then(|change| {
                // What the receiver will complete is left to it whole.
                if !self.options.dry_run && change.unknown.is_empty() {
                    dest.set_further(name, &further, values)?;
                }
                Ok(change)
            }),
        };
        match done {
            Ok(change) => {
                let told = ItemFlags::default()
                    .with(ItemFlags::ACL, change.acl && existed)
                    .with(ItemFlags::XATTR, change.xattrs);
                let flags = flags.map(|flags| flags.and(told)).or((told != ItemFlags::default()).then_some(told));
                (flags, values.ask(&further, change.unknown))
            }
            Err(error) => {
                self.board.complain(&error.to_string());
                (flags, Vec::new())
            }
        }
    }

    /// Whether the client wants to hear of what did not change, too.
    fn tells_all(&self) -> bool {
        self.options.detail == ItemDetail::All || self.options.verbose > 1
    }

    /// Says that an entry is here whole, under its name, so that its source may go.
    fn acknowledge(&mut self, ndx: Ndx) {
        if self.options.remove_source_files && !self.options.dry_run {
            self.out.message(&Message::Success(ndx));
        }
    }

    /// What of an existing entry's attributes is not yet as the options want it.
    fn change(&self, dest: &Dest, entry: &FileEntry, found: &Found) -> Attrs {
        let wanted = dest.wanted(entry, &preserve(self.options), Some(found));
        wanted.differing_from(found, self.options.modify_window)
    }

    /// Tells the client's user something.
    fn tell(&mut self, text: &str) {
        self.out.message(&Message::Text(TextKind::Info, format!("{text}\n").into()));
    }

    /// What a dry run reports of a directory.
    fn difference(&self, entry: &FileEntry, found: Option<&Found>, dest: &Dest) -> Option<ItemFlags> {
        match found.filter(|found| found.kind() == Some(Kind::Dir)) {
            Some(found) => reported(&self.change(dest, entry, found)),
            None => Some(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW)),
        }
    }

    fn dir(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        found: Option<Found>,
    ) -> Result<Option<ItemFlags>, super::dest::DestError> {
        // Only a way to something asked for: its attributes are none of ours.
        if entry.dir_class == DirClass::Implied && self.options.no_implied_dirs {
            if found.is_none() {
                dest.make_dir(name, 0o777)?;
            }
            return Ok(None);
        }
        let existing = found.filter(|found| found.kind() == Some(Kind::Dir));
        if found.is_some() && existing.is_none() {
            dest.remove_non_dir(name)?;
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
            None => Some(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW)),
            Some(found) => reported(&self.change(dest, entry, &found)),
        })
    }

    fn link_or_node(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        kind: Kind,
        found: Option<Found>,
    ) -> Result<Option<ItemFlags>, super::dest::DestError> {
        let same_kind = found.filter(|found| found.kind() == Some(kind));
        let same = match (&same_kind, kind, &entry.target) {
            (Some(_), Kind::Symlink, Some(target)) => dest.read_link(name)?.as_deref() == Some(target),
            (Some(found), Kind::Device, _) => {
                Some(found.rdev) == entry.rdev && found.mode & 0o170000 == entry.mode & 0o170000
            }
            (Some(found), Kind::Special, _) => found.mode & 0o170000 == entry.mode & 0o170000,
            _ => false,
        };
        let wanted = dest.wanted(entry, &preserve(self.options), same_kind.as_ref());
        let change = same_kind.map(|found| self.change(dest, entry, &found));
        if let (true, Some(change)) = (same, &change) {
            if !self.options.dry_run {
                dest.set_attrs(name, kind, change)?;
            }
            return Ok(reported(&told(change, kind)));
        }
        let flags = match &change {
            Some(change) => {
                let keeps_time = self.options.times && !(kind == Kind::Symlink && self.options.omit_link_times);
                report(&told(change, kind)).and(ItemFlags::CHANGE).with(ItemFlags::TIME, !keeps_time)
            }
            None => ItemFlags::NEW,
        };
        let flags = Some(flags.and(ItemFlags::LOCAL_CHANGE));
        if self.options.dry_run {
            return Ok(flags);
        }
        if found.is_some_and(|found| found.kind() == Some(Kind::Dir)) {
            dest.remove_dir(name)?;
        }
        match (kind, &entry.target) {
            (Kind::Symlink, Some(target)) => dest.make_symlink(name, target, &wanted)?,
            (Kind::Symlink, None) => return Ok(None),
            _ => dest.make_node(name, entry, &wanted)?,
        }
        Ok(flags)
    }

    fn file(
        &mut self,
        dest: Option<&Dest>,
        name: &[u8],
        ndx: Ndx,
        entry: &FileEntry,
        found: Option<Found>,
    ) -> Result<(), TransferError> {
        let Some(dest) = dest else {
            let (flags, unknown) = self.wanted_further(None, name, entry);
            let header = self.header(ItemFlags::TRANSFER.and(ItemFlags::NEW).and(flags), unknown);
            self.speaker.item(ndx, &header, &mut self.out);
            return Ok(());
        };
        let in_the_way = !self.options.dry_run && found.is_some_and(|found| found.kind() == Some(Kind::Dir));
        if in_the_way && let Err(error) = dest.remove_dir(name) {
            self.board.complain(&error.to_string());
            return Ok(());
        }
        let found = found.filter(|found| found.kind() == Some(Kind::File));
        if let Some(found) = found.filter(|found| self.is_up_to_date(dest, name, entry, found)) {
            let change = self.change(dest, entry, &found);
            // Told by its bytes, a file gets its exact time too, though a fraction of a second is not worth a word.
            let wanted = dest.wanted(entry, &preserve(self.options), Some(&found));
            let exact = wanted.differing_from(&found, -1);
            if !self.options.dry_run
                && let Err(error) =
                    dest.set_attrs(name, Kind::File, if self.options.checksum { &exact } else { &change })
            {
                self.board.complain(&error.to_string());
                return Ok(());
            }
            let (flags, unknown) = self.further(Some(dest), name, entry, true, reported(&change));
            // The ACL brings the permissions, and stock's report of them with it.
            let by_acl =
                !self.options.dry_run && dest.acls_are_real() && flags.is_some_and(|flags| flags.has(ItemFlags::ACL));
            let flags = flags.map(|flags| if by_acl { flags.without(ItemFlags::PERMS) } else { flags });
            self.report(ndx, flags, unknown);
            self.acknowledge(ndx);
            return Ok(());
        }
        self.request(dest, name, ndx, entry, found.as_ref(), false)
    }

    /// rsync's quick check, or the sum of the list.
    fn is_up_to_date(&mut self, dest: &Dest, name: &[u8], entry: &FileEntry, found: &Found) -> bool {
        if found.len != entry.len {
            return false;
        }
        if self.options.checksum {
            return match dest.basis(name) {
                Ok(Some(mut file)) => {
                    entry.sum.is_some() && file_sum(&mut file, self.n.list_checksum).ok() == entry.sum
                }
                _ => false,
            };
        }
        if self.options.size_only {
            return true;
        }
        let (here, there) = ((found.mtime, found.nsec), (entry.mtime, entry.nsec));
        !self.options.ignore_times && same_mtime(self.options.modify_window, here, there)
    }

    /// What is told of a file's ACL and extended attributes when its data is asked for, and the values wanted with it.
    /// `dest` where the file exists.
    fn wanted_further(&self, dest: Option<&Dest>, name: &[u8], entry: &FileEntry) -> (ItemFlags, Vec<u32>) {
        let Some(further) = Further::of(entry, self.options) else { return Default::default() };
        let values = &self.board.values;
        let change = dest.map_or_else(|| Ok(further.all()), |dest| dest.further_change(name, &further, values));
        let change = change.unwrap_or_else(|_| further.all());
        let told = ItemFlags::default().with(ItemFlags::ACL, change.acl).with(ItemFlags::XATTR, change.xattrs);
        (told, values.ask(&further, change.unknown))
    }

    fn request(
        &mut self,
        dest: &Dest,
        name: &[u8],
        ndx: Ndx,
        entry: &FileEntry,
        found: Option<&Found>,
        redo: bool,
    ) -> Result<(), TransferError> {
        let mut flags = ItemFlags::TRANSFER;
        match found {
            None => flags = flags.and(ItemFlags::NEW),
            Some(found) => {
                flags = flags
                    .and(report(&self.change(dest, entry, found)))
                    .with(ItemFlags::TIME, !self.options.times)
                    .with(ItemFlags::SIZE, found.len != entry.len)
                    .with(ItemFlags::CHANGE, self.options.checksum);
            }
        }
        let (told, unknown) = self.wanted_further(found.map(|_| dest), name, entry);
        let header = self.header(flags.and(told), unknown);
        if self.options.dry_run {
            self.speaker.item(ndx, &header, &mut self.out);
            return Ok(());
        }
        self.board.ask(ndx);
        let usable = !self.options.whole_file && self.n.checksum != Checksum::None;
        let basis = if usable && found.is_some() { dest.basis(name).unwrap_or_default() } else { None };
        let head = match basis.as_ref().map(File::metadata) {
            Some(Ok(meta)) => SumHead::for_basis(meta.len(), self.n.checksum.size(), redo, self.options.block_length),
            _ => SumHead::NONE,
        };
        self.speaker.request(ndx, &header, &head, &mut self.out);
        if let (Some(mut basis), 1..) = (basis, head.count) {
            self.sums(&mut basis, &head)?;
        }
        Ok(())
    }

    /// Sends the sums of all blocks. Where the basis cannot be read they are of zeros, which match nothing that matters.
    fn sums(&mut self, basis: &mut File, head: &SumHead) -> Result<(), TransferError> {
        let seed = self.n.block_seed();
        let per_read = (256 * 1024 / head.block_length.max(1)).max(1);
        let mut block = 0;
        while block < head.count {
            let last = head.count.min(block + per_read);
            let len: u64 = (block..last).map(|block| u64::from(head.block_len(BlockIndex(block)))).sum();
            self.buffer.clear();
            self.buffer.resize(len as usize, 0);
            read_up_to(basis, &mut self.buffer);
            let mut rest = &self.buffer[..];
            for block in block..last {
                let (bytes, later) = rest.split_at(head.block_len(BlockIndex(block)) as usize);
                rest = later;
                self.speaker.sum(head, weak(bytes), &seed.sum(bytes), &mut self.out);
            }
            block = last;
            if self.out.len() > OUT_MOST {
                self.mouth.say(&mut self.out)?;
            }
        }
        Ok(())
    }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => return,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// The whole-file sum of an open file, from where it stands.
pub(super) fn file_sum(file: &mut File, checksum: Checksum) -> io::Result<Sum> {
    let mut hasher = FileHasher::new(checksum);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Access times of symlinks are set, but nothing is told of them.
fn told(change: &Attrs, kind: Kind) -> Attrs {
    Attrs { atime: change.atime.filter(|_| kind != Kind::Symlink), ..*change }
}

/// What is told of an entry that was there already; nothing when it needed no change.
fn reported(change: &Attrs) -> Option<ItemFlags> {
    (!change.is_empty()).then(|| report(change))
}

/// The report bits of attributes that differ.
fn report(attrs: &Attrs) -> ItemFlags {
    ItemFlags::default()
        .with(ItemFlags::TIME, attrs.mtime.is_some())
        .with(ItemFlags::ATIME, attrs.atime.is_some())
        .with(ItemFlags::PERMS, attrs.mode.is_some())
        .with(ItemFlags::OWNER, attrs.uid.is_some())
        .with(ItemFlags::GROUP, attrs.gid.is_some())
}
