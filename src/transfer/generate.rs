//! Decides what is missing and asks for it. Counterpart: rsync's `generate_files`.

mod alternatives;
mod board;
mod delete;
mod file;
mod fuzzy;
mod links;
mod rules;

use super::TransferError;
use super::abort::LastWords;
use super::beneath::shown;
use super::dest::{Attrs, Dest, DestError, Found, Further, LateDirs};
use super::greet::Mouth;
use super::links::is_unsafe;
use super::receive::{ReceivePlan, Target, Witness, preserve};
use board::BoardState;
pub(super) use board::{Attempt, Board, Missed, Note};
use delete::Deletion;
pub(super) use delete::IOERR_DEL_LIMIT;
pub(super) use file::file_sum;
use fuzzy::Fuzzy;
use links::{Links, Meeting};
use protocol::PeerError;
use protocol::args::{DeleteWhen, ItemDetail, Options};
use protocol::filter::RuleSet;
use protocol::flist::{DirClass, FileEntry, FileList, Kind, LinkId, Ndx, Segments};
use protocol::generator::{DeleteCounts, Generator};
use protocol::handshake::{Compat, Negotiated};
use protocol::item::{ItemFlags, ItemHeader, XattrLists};
use protocol::mux::{Message, Outbox, TextKind};
use protocol::xattr::XattrList;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes that may wait in the outbox before they are said.
const OUT_MOST: usize = 64 * 1024;

/// Entries that must be known before a segment's turn comes with `-H`; stock waits for as many.
const LINKS_AHEAD: usize = 500;

/// The generator's work. Lists come by the board.
pub(super) struct Generate<'a> {
    pub(super) n: &'a Negotiated,
    pub(super) target: &'a Target,
    pub(super) plan: &'a ReceivePlan,
    pub(super) board: &'a Board,
    pub(super) witness: &'a dyn Witness,
    pub(super) out: Outbox,
    pub(super) mouth: Mouth,
    /// What is safe from deletion.
    pub(super) rules: Option<&'a RuleSet>,
}

/// What a generator's work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Generated {
    /// Entries that failed on this side.
    pub(super) failed: u64,
    /// What was deleted.
    pub(super) deleted: DeleteCounts,
    /// `--max-delete` kept some of it.
    pub(super) limited: bool,
    /// Bytes written to the link.
    pub(super) written_bytes: u64,
}

impl Generate<'_> {
    /// Runs to the end of the session.
    pub(super) fn run(self) -> Result<Generated, TransferError> {
        let Self { n, target, plan, board, witness, out, mouth, rules } = self;
        let options = &plan.options;
        let incremental = n.compat.has(Compat::INC_RECURSE);
        let mut work = Work {
            n,
            options,
            plan,
            board,
            witness,
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
            at_work: false,
            complete: false,
            redo: Vec::new(),
            links: Links::default(),
            fuzzy: Fuzzy::default(),
            blocked: HashSet::new(),
            buffer: Vec::new(),
            deletion: Deletion::new(options, rules, target),
            refused: HashSet::new(),
        };
        let result = work.all();
        // A link that broke has nobody at its end; the rest the peer hears of.
        if let Err(error @ TransferError::Rules(_)) = &result
            && let Some(words) = LastWords::new(error, plan.server)
        {
            words.put(n, &mut work.out);
            work.mouth.say(&mut work.out)?;
        }
        result
    }
}

impl Work<'_> {
    /// The whole conversation.
    fn all(&mut self) -> Result<Generated, TransferError> {
        let work = self;
        work.pass_notes()?;
        if work.options.verbose > 1 {
            let how = if work.options.whole_file { "disabled for local transfer or --whole-file" } else { "enabled" };
            work.tell(&[b"delta-transmission ", how.as_bytes()]);
        }
        work.lists()?;
        work.wait(|_, state| state.phase >= 1)?;
        // Whoever waits for a file that is sent again is served before the end of this phase too.
        for ndx in std::mem::take(&mut work.redo) {
            work.again(ndx)?;
        }
        work.wait(|work, state| work.lists.iter().all(|list| state.is_idle(list)))?;
        // The ends of the redo phase and of delayed updates.
        work.speaker.done(&mut work.out);
        if work.options.delay_updates {
            work.wait(|_, state| state.phase >= 2)?;
        }
        work.speaker.done(&mut work.out);
        let when = work.deletion.when();
        if matches!(when, Some(DeleteWhen::After | DeleteWhen::Delay)) {
            work.wait(|_, state| state.phase >= 2)?;
            match work.dest.clone() {
                Some(dest) if when == Some(DeleteWhen::Delay) => work.deletion.delayed(&dest)?,
                _ => {
                    let lists: Vec<_> = work.lists.iter().cloned().collect();
                    lists.iter().try_for_each(|list| work.delete_all(list))?;
                }
            }
        }
        let limited = work.deletion.tell_limit();
        work.pass_told();
        let deleted = work.deletion.counts();
        if work.n.version >= 31 {
            if when.is_some() || work.options.force {
                work.speaker.delete_counts(&deleted, &mut work.out);
            }
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
        let failed = work.board.lock().complaints;
        Ok(Generated { failed, deleted, limited, written_bytes: work.mouth.said })
    }
}

struct Work<'a> {
    n: &'a Negotiated,
    options: &'a Options,
    plan: &'a ReceivePlan,
    board: &'a Board,
    witness: &'a dyn Witness,
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
    /// A list is being gone through.
    at_work: bool,
    /// No further segments will come.
    complete: bool,
    /// Files to ask for once more in the redo phase.
    redo: Vec<Ndx>,
    links: Links,
    fuzzy: Fuzzy,
    /// Files that stay where directories should be: nothing can come beneath them.
    blocked: HashSet<Vec<u8>>,
    buffer: Vec<u8>,
    deletion: Deletion<'a>,
    /// Folders that a daemon's module takes nothing for.
    refused: HashSet<Vec<u8>>,
}

impl Work<'_> {
    /// Deletes in one directory whose entries a list holds, if its contents are in the transfer.
    fn delete_in(&mut self, list: &FileList, entry: &FileEntry) -> Result<(), TransferError> {
        let Some(dest) = self.dest.clone() else { return Ok(()) };
        let listed = entry.is_dir() && matches!(entry.extra.dir_class, DirClass::Content | DirClass::Argument);
        if listed && !self.is_refused(&entry.name, true) {
            let holds = |name: &[u8]| list.find(name, false).or_else(|| list.find(name, true)).is_some();
            let io_error = self.board.io_error.load(Ordering::Acquire);
            self.deletion.in_dir(&dest, &entry.name, &holds, io_error)?;
            self.pass_told();
        }
        Ok(())
    }

    /// Deletes in all directories of a whole list.
    fn delete_all(&mut self, list: &FileList) -> Result<(), TransferError> {
        for (_, entry) in list.iter() {
            self.delete_in(list, entry)?;
            if self.out.len() > OUT_MOST {
                self.mouth.say(&mut self.out)?;
            }
        }
        Ok(())
    }

    /// Removes a directory that is in the way of something else.
    fn clear_way(&mut self, dest: &Dest, name: &[u8], what: &str) -> Result<bool, TransferError> {
        let cleared = self.deletion.clear_way(dest, name, what)?;
        self.pass_told();
        Ok(cleared)
    }

    /// Whether a daemon's module takes nothing of this name, or of a folder above it; says so once.
    fn is_refused(&mut self, name: &[u8], is_dir: bool) -> bool {
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

    /// Lets the user hear of deletions.
    fn pass_told(&mut self) {
        let (told, failed) = self.deletion.take_told();
        told.iter().for_each(|message| self.say(message));
        self.board.lock().complaints += failed;
    }

    /// Goes through the lists as they come, and tells the sender of each that is done.
    fn lists(&mut self) -> Result<(), TransferError> {
        loop {
            self.pass_notes()?;
            if self.knows_enough()
                && let Some(list) = self.fresh.pop_front()
            {
                self.at_work = true;
                self.list(&list)?;
                self.at_work = false;
                self.open.push_back(list);
                continue;
            }
            self.end_lists()?;
            if self.complete && self.open.is_empty() {
                return Ok(());
            }
            self.wait(|work, state| {
                // A single list ends also while files that went wrong wait for the redo phase.
                let done = |list| !work.incremental || state.is_idle(list);
                (!work.fresh.is_empty() && work.knows_enough())
                    || (work.open.front().is_some_and(|list| done(list)) && work.may_end())
            })?;
        }
    }

    /// Whether enough of the list has come to go on: with `-H` some more than is at work, for a name of a file may be there
    /// already in a segment that is still to come.
    fn knows_enough(&self) -> bool {
        if !self.incremental || !self.options.hard_links || self.complete {
            return true;
        }
        let mut known = self.lists.iter().scan(0, |sum, list| {
            *sum += list.len();
            Some(*sum)
        });
        known.any(|sum| sum >= LINKS_AHEAD)
    }

    fn list(&mut self, list: &FileList) -> Result<(), TransferError> {
        if self.options.list_only {
            self.show(list);
            return Ok(());
        }
        let when = self.deletion.when();
        // Behind the look at the directory itself, whose time deletions change.
        let at_once = matches!(when, Some(DeleteWhen::During | DeleteWhen::Delay));
        if when == Some(DeleteWhen::Before) {
            self.delete_all(list)?;
        }
        if let Some(parent) = list.parent() {
            self.entry(Ndx(list.start().0 - 1), parent)?;
            if at_once {
                self.delete_in(list, parent)?;
            }
        }
        for (ndx, entry) in list.iter() {
            // With incremental recursion a directory's turn comes with its own segment.
            if !(self.incremental && entry.is_dir()) {
                self.named(ndx, entry)?;
                if at_once {
                    self.delete_in(list, entry)?;
                }
            }
            self.pass_notes()?;
            self.end_lists()?;
            if self.out.len() > OUT_MOST {
                self.mouth.say(&mut self.out)?;
            }
        }
        Ok(())
    }

    /// Shows a list in the order in which it would be gone through.
    fn show(&self, list: &FileList) {
        let here = list.iter().map(|(_, entry)| entry).filter(|entry| !(self.incremental && entry.is_dir()));
        list.parent().into_iter().chain(here).for_each(|entry| self.witness.entry(entry));
    }

    /// Whether the oldest list may end: the last segment only once it is known to be the last.
    fn may_end(&self) -> bool {
        self.complete || self.open.len() + usize::from(self.at_work) + self.fresh.len() > 1
    }

    /// Tells of lists that are done. With incremental recursion that is when all of their files are here; otherwise the
    /// redo phase comes for those that went wrong.
    fn end_lists(&mut self) -> Result<(), TransferError> {
        while let Some(list) = self.open.front().filter(|_| self.may_end()).cloned() {
            if self.incremental {
                if !self.board.lock().is_idle(&list) {
                    return Ok(());
                }
                // The sender forgets a segment with its end, so what the receiver says of its files goes first.
                self.pass_notes()?;
            }
            self.open.pop_front();
            if self.lists.len() > 1 {
                self.lists.release();
            }
            self.speaker.done(&mut self.out);
        }
        Ok(())
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

    fn stands(&self, name: &[u8]) -> Option<Found> {
        self.dest.as_ref().and_then(|dest| dest.stat(name).ok().flatten())
    }

    /// One name of several is here, or will not be: takes up those that waited for it.
    fn linkable(&mut self, id: LinkId, here: Option<&[u8]>) -> Result<(), TransferError> {
        let waiting = match here {
            Some(name) => self.links.here(id, name),
            None => self.links.gone(id),
        };
        self.take_up(waiting)
    }

    fn take_up(&mut self, waiting: VecDeque<Ndx>) -> Result<(), TransferError> {
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
                Note::Say(message) => self.say(&message),
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
                        && let Some(id) = entry.extra.link
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
                if state.over {
                    return Err(PeerError::Malformed("the end of the session before all that was asked for").into());
                }
                // The receiver's own waits have deadlines, and it fails or ends the session in the end.
                board.rest(&mut state);
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

    /// Tells of a change made here; where nothing changed, only if the client wants to hear of that too.
    fn report(&mut self, ndx: Ndx, flags: Option<ItemFlags>, unknown: Vec<u32>) {
        self.tell_item(ndx, ItemHeader { flags: flags.unwrap_or_default(), ..ItemHeader::default() }, unknown);
    }

    /// The same, with a name or basis to tell; `unknown` are the values of extended attributes that are wanted.
    fn tell_item(&mut self, ndx: Ndx, header: ItemHeader, unknown: Vec<u32>) {
        let quiet = ItemFlags::BASIS_TYPE.and(ItemFlags::XNAME).and(ItemFlags::LOCAL_CHANGE);
        let named = header.xname.as_ref().is_some_and(|name| !name.is_empty());
        if self.tells_all() || named || header.flags.0 & !quiet.0 != 0 {
            let header = self.with_values(header, unknown);
            self.speaker.item(ndx, &header, &mut self.out);
        }
    }

    /// A header with the values of extended attributes that are wanted with it.
    fn with_values(&self, header: ItemHeader, unknown: Vec<u32>) -> ItemHeader {
        let lists = XattrLists::of(self.n, self.options.xattrs > 0, self.options.dry_run, false);
        ItemHeader { xattrs: Some(XattrList::Wanted(unknown)), ..header }.with_list(lists)
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
        if entry.extra.dir_class == DirClass::Implied && self.options.no_implied_dirs {
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
    fn tell(&mut self, words: &[&[u8]]) {
        self.say(&Message::Text(TextKind::Info, [words.concat(), b"\n".to_vec()].concat()));
    }

    /// Words for the user go over the wire only where the user is at the other end.
    fn say(&mut self, message: &Message) {
        match message {
            Message::Text(..) | Message::Deleted(_) if !self.plan.server => self.witness.message(message),
            message => self.out.message(message),
        }
    }

    fn tell_up_to_date(&mut self, name: &[u8]) {
        if self.plan.names > 1 && self.options.detail == ItemDetail::None {
            self.tell(&[name, b" is uptodate"]);
        }
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
    fn link_or_node(
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
    fn changed_node(&self, entry: &FileEntry) -> ItemFlags {
        let keeps_time = self.options.times && !(entry.kind() == Some(Kind::Symlink) && self.options.omit_link_times);
        ItemFlags::CHANGE.with(ItemFlags::TIME, !keeps_time)
    }
}

/// Whether a symlink, device or special file is what the entry says, its attributes aside.
fn same_node(there: &Dest, name: &[u8], entry: &FileEntry, kind: Kind, found: &Found) -> Result<bool, DestError> {
    let same_type = found.mode & 0o170000 == entry.mode & 0o170000;
    Ok(match (kind, &entry.extra.target) {
        (Kind::Symlink, Some(target)) => there.read_link(name)?.as_deref() == Some(target),
        (Kind::Device, _) => Some(found.rdev) == entry.extra.rdev && same_type,
        (Kind::Special, _) => same_type,
        _ => false,
    })
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
