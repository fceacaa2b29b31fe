//! Decides what is missing and asks for it. Counterpart: rsync's `generate_files`.

mod alternatives;
mod board;
mod file;
mod fuzzy;
mod links;
mod rules;
mod way;

use super::TransferError;
use super::beneath::shown;
use super::dest::{Attrs, Dest, DestError, Found, LateDirs};
use super::greet::Mouth;
use super::receive::{Target, preserve};
use board::BoardState;
pub(super) use board::{Attempt, Board, Note};
pub(super) use file::file_sum;
use fuzzy::Fuzzy;
use links::{Links, Meeting};
use protocol::args::{ItemDetail, Options};
use protocol::flist::{DirClass, FileEntry, FileList, Kind, LinkId, Ndx, Segments};
use protocol::generator::Generator;
use protocol::handshake::{Compat, Negotiated};
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::{Message, Outbox, TextKind};
use std::collections::{HashSet, VecDeque};
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
            fuzzy: Fuzzy::default(),
            blocked: HashSet::new(),
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
        work.speaker.done(&mut work.out);
        if options.delay_updates {
            work.wait(|_, state| state.phase >= 2)?;
        }
        for _ in 0..if n.version >= 31 { 2 } else { 1 } {
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
    fuzzy: Fuzzy,
    /// Files that stay where directories should be: nothing can come beneath them.
    blocked: HashSet<Vec<u8>>,
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
                let kind = entry.kind().unwrap_or(Kind::File);
                if found.is_some_and(|found| !self.make_way(&dest, name, &found, kind)) {
                    return;
                }
                if let Err(error) = dest.make_link(existing, name) {
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
            self.speaker.item(ndx, &ItemHeader { flags, basis: None, xname: Some(xname) }, &mut self.out);
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
        let found = match dest.map_or(Ok(None), |dest| dest.stat(name)) {
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
            Kind::Device => !self.options.devices || dest.is_some_and(|dest| !dest.makes_devices()),
            Kind::Special => !self.options.specials,
            Kind::File => false,
        };
        if skip {
            let what = if kind == Kind::Dir { "directory" } else { "non-regular file" };
            self.tell(&format!("skipping {what} \"{}\"", shown(name)));
        }
        if skip || self.is_left_alone(name, entry, kind, found.as_ref()) {
            return Ok(false);
        }
        let work = match (kind, dest) {
            (Kind::File, dest) => return self.file(dest, name, ndx, entry, found).map(|()| true),
            (_, None) => Ok(Some(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW))),
            (Kind::Dir, Some(dest)) if self.options.dry_run => Ok(self.difference(name, entry, found.as_ref(), dest)),
            (Kind::Dir, Some(dest)) => self.dir(dest, name, entry, found),
            (_, Some(dest)) => match self.link_or_node(dest, name, entry, kind, found) {
                Ok(Some(header)) => {
                    self.tell_item(ndx, &header);
                    self.acknowledge(ndx);
                    return Ok(true);
                }
                Ok(None) => return Ok(false),
                Err(error) => Err(error),
            },
        };
        match work {
            Ok(flags) => {
                self.report(ndx, flags);
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
    fn report(&mut self, ndx: Ndx, flags: Option<ItemFlags>) {
        self.tell_item(ndx, &ItemHeader { flags: flags.unwrap_or_default(), ..ItemHeader::default() });
    }

    /// The same, with a name or basis to tell.
    fn tell_item(&mut self, ndx: Ndx, header: &ItemHeader) {
        let quiet = ItemFlags::BASIS_TYPE.and(ItemFlags::XNAME).and(ItemFlags::LOCAL_CHANGE);
        let named = header.xname.as_ref().is_some_and(|name| !name.is_empty());
        if self.tells_all() || named || header.flags.0 & !quiet.0 != 0 {
            self.speaker.item(ndx, header, &mut self.out);
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
    fn difference(&mut self, name: &[u8], entry: &FileEntry, found: Option<&Found>, dest: &Dest) -> Option<ItemFlags> {
        match found.filter(|found| found.kind() == Some(Kind::Dir)) {
            Some(found) => reported(&self.change(dest, entry, found)),
            None => {
                let there = self.alternative_dir(dest, name, entry);
                Some(there.unwrap_or(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW)))
            }
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
        let there = if existing.is_none() { self.alternative_dir(dest, name, entry) } else { None };
        if let Some(found) = found.filter(|_| existing.is_none())
            && !self.make_way(dest, name, &found, Kind::Dir)
        {
            return Ok(None);
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
    fn link_or_node(
        &mut self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        kind: Kind,
        found: Option<Found>,
    ) -> Result<Option<ItemHeader>, DestError> {
        let same_kind = found.filter(|found| found.kind() == Some(kind));
        let wanted = dest.wanted(entry, &preserve(self.options), same_kind.as_ref());
        let mut header = ItemHeader::default();
        match &same_kind {
            Some(found) => {
                let change = self.change(dest, entry, found);
                header.flags = report(&change);
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
        if let Some(found) = found.filter(|_| same_kind.is_none())
            && !self.make_way(dest, name, &found, kind)
        {
            return Ok(None);
        }
        if self.options.dry_run {
            return Ok(Some(header));
        }
        match (kind, &entry.target) {
            (Kind::Symlink, Some(target)) => dest.make_symlink(name, target, &wanted)?,
            (Kind::Symlink, None) => return Ok(None),
            _ => dest.make_node(name, entry, &wanted)?,
        }
        Ok(Some(header))
    }

    /// What is told besides attributes of a symlink or node that becomes another.
    fn changed_node(&self, entry: &FileEntry) -> ItemFlags {
        let keeps_time = self.options.times && !(entry.kind() == Some(Kind::Symlink) && self.options.omit_link_times);
        ItemFlags::CHANGE.with(ItemFlags::TIME, !keeps_time)
    }
}

/// Whether a symlink, device or special file is what the entry says, its attributes aside.
fn same_node(there: &Dest, name: &[u8], entry: &FileEntry, kind: Kind, found: &Found) -> Result<bool, DestError> {
    let same_type = found.mode & 0o170000 == entry.mode & 0o170000;
    Ok(match (kind, &entry.target) {
        (Kind::Symlink, Some(target)) => there.read_link(name)?.as_deref() == Some(target),
        (Kind::Device, _) => Some(found.rdev) == entry.rdev && same_type,
        (Kind::Special, _) => same_type,
        _ => false,
    })
}

/// What is told of an entry that was there already; nothing when it needed no change.
fn reported(change: &Attrs) -> Option<ItemFlags> {
    (!change.is_empty()).then(|| report(change))
}

/// The report bits of attributes that differ.
fn report(attrs: &Attrs) -> ItemFlags {
    ItemFlags::default()
        .with(ItemFlags::TIME, attrs.mtime.is_some())
        .with(ItemFlags::PERMS, attrs.mode.is_some())
        .with(ItemFlags::OWNER, attrs.uid.is_some())
        .with(ItemFlags::GROUP, attrs.gid.is_some())
}
