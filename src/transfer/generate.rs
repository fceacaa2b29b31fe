//! Decides what is missing and asks for it. Counterpart: rsync's `generate_files`.

mod alternatives;
mod file;
mod fuzzy;
mod rules;
mod way;

pub(super) use file::file_sum;

use super::TransferError;
use super::abort::LastWords;
use super::basis::Proposals;
use super::beneath::shown;
use super::dest::{Attrs, Dest, DestError, Found, LateDirs};
use super::greet::Mouth;
use super::receive::{Target, preserve};
use fuzzy::Fuzzy;
use protocol::args::{ItemDetail, Options};
use protocol::flist::{DirClass, FileEntry, FileList, Kind, Ndx};
use protocol::generator::Generator;
use protocol::handshake::Negotiated;
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::{Message, Outbox, TextKind};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may wait in the outbox before they are said.
const OUT_MOST: usize = 64 * 1024;

/// What the receiver wants the generator to do.
#[derive(Debug)]
pub(super) enum Note {
    /// Pass this on.
    Say(Message),
    /// Ask for this file again.
    Redo(Ndx),
}

/// What generator and receiver tell each other. Nobody waits to write on it.
pub(super) struct Board {
    state: Mutex<BoardState>,
    bell: Condvar,
    requested: Vec<AtomicBool>,
    /// What was asked for, and how.
    pub(super) proposals: Proposals,
}

#[derive(Default)]
struct BoardState {
    notes: VecDeque<Note>,
    phase: u8,
    over: bool,
    /// The receiver gave up.
    failed: bool,
    /// What the peer is to hear of it.
    last_words: Option<LastWords>,
    generator_left: bool,
    complaints: u64,
}

impl Board {
    pub(super) fn new(entries: usize) -> Self {
        let requested = std::iter::repeat_with(AtomicBool::default).take(entries).collect();
        Self { state: Mutex::default(), bell: Condvar::new(), requested, proposals: Proposals::default() }
    }

    pub(super) fn note(&self, note: Note) {
        self.lock().notes.push_back(note);
        self.bell.notify_all();
    }

    /// Trouble with one file: the peer hears of it and ends with exit code 23.
    pub(super) fn complain(&self, text: &str) {
        tracing::warn!("{text}");
        self.lock().complaints += 1;
        self.note(Note::Say(Message::Text(TextKind::ErrorXfer, format!("rsync: [receiver] {text}\n").into())));
    }

    pub(super) fn phase(&self, phase: u8) {
        self.lock().phase = phase;
        self.bell.notify_all();
    }

    pub(super) fn over(&self) {
        self.lock().over = true;
        self.bell.notify_all();
    }

    pub(super) fn fail(&self, error: &TransferError, server: bool) {
        let mut state = self.lock();
        state.failed = true;
        state.last_words = LastWords::new(error, server);
        drop(state);
        self.bell.notify_all();
    }

    pub(super) fn generator_left(&self) {
        self.lock().generator_left = true;
        self.bell.notify_all();
    }

    /// Waits until the generator has left; false when it has not in time.
    pub(super) fn wait_for_generator(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !state.generator_left {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn mark_request(&self, ndx: Ndx) {
        if let Some(flag) = self.requested.get(ndx.0 as usize) {
            flag.store(true, Ordering::Release);
        }
    }

    /// True when the file was asked for and has not come yet.
    pub(super) fn take_request(&self, ndx: Ndx) -> bool {
        self.requested.get(ndx.0 as usize).is_some_and(|flag| flag.swap(false, Ordering::AcqRel))
    }

    fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The generator's work.
pub(super) struct Generate<'a> {
    pub(super) n: &'a Negotiated,
    pub(super) list: &'a FileList,
    pub(super) target: &'a Target,
    pub(super) options: &'a Options,
    pub(super) board: &'a Board,
    pub(super) out: Outbox,
    pub(super) mouth: Mouth,
}

impl Generate<'_> {
    /// Runs to the end of the session; returns how many entries failed on this side.
    pub(super) fn run(self) -> Result<u64, TransferError> {
        let Self { n, list, target, options, board, out, mouth } = self;
        let dest = target.again();
        let mut work = Work {
            n,
            options,
            board,
            out,
            mouth,
            speaker: Generator::new(),
            late: LateDirs::new(options.modify_window),
            redo: Vec::new(),
            fuzzy: Fuzzy::default(),
            blocked: None,
            buffer: Vec::new(),
        };
        for (ndx, entry) in list.iter() {
            work.entry(dest.as_ref(), target.name(entry), ndx, entry, target.made)?;
            work.pass_notes()?;
            if work.out.len() > OUT_MOST {
                work.mouth.say(&mut work.out)?;
            }
        }
        work.speaker.done(&mut work.out);
        work.wait(|state| state.phase >= 1)?;
        for ndx in std::mem::take(&mut work.redo) {
            if let (Some(entry), Some(dest)) = (list.get(ndx), &dest) {
                let found = dest.stat(target.name(entry)).unwrap_or_default();
                work.request(dest, target.name(entry), ndx, entry, found.as_ref(), true)?;
            }
        }
        // The ends of the redo phase, of delayed updates and of late deletions.
        work.speaker.done(&mut work.out);
        if options.delay_updates {
            work.wait(|state| state.phase >= 2)?;
        }
        for _ in 0..if n.version >= 31 { 2 } else { 1 } {
            work.speaker.done(&mut work.out);
        }
        work.wait(|state| state.over)?;
        if let Some(dest) = &dest {
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
    out: Outbox,
    mouth: Mouth,
    speaker: Generator,
    late: LateDirs,
    redo: Vec<Ndx>,
    fuzzy: Fuzzy,
    /// A file that stays where a directory should be: nothing can come beneath it.
    blocked: Option<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Work<'_> {
    /// Does what the receiver noted so far.
    fn pass_notes(&mut self) -> Result<(), TransferError> {
        let (notes, failed, last_words) = {
            let mut state = self.board.lock();
            (std::mem::take(&mut state.notes), state.failed, state.last_words.take())
        };
        for note in notes {
            match note {
                Note::Say(message) => self.out.message(&message),
                Note::Redo(ndx) => self.redo.push(ndx),
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
    fn wait(&mut self, until: impl Fn(&BoardState) -> bool) -> Result<(), TransferError> {
        loop {
            self.pass_notes()?;
            self.mouth.say(&mut self.out)?;
            let mut state = self.board.lock();
            while state.notes.is_empty() && !state.failed {
                if until(&state) {
                    return Ok(());
                }
                // The receiver's own waits have deadlines, and it fails or ends the session in the end.
                let Some(pause) = self.keep_alive_every() else {
                    state = self.board.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                };
                let (woken, timeout) =
                    self.board.bell.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                if timeout.timed_out() {
                    self.out.keep_alive();
                    break;
                }
            }
        }
    }

    /// `root_is_new`: the destination itself was made for this session.
    fn entry(
        &mut self,
        dest: Option<&Dest>,
        name: &[u8],
        ndx: Ndx,
        entry: &FileEntry,
        root_is_new: bool,
    ) -> Result<(), TransferError> {
        let found = match dest.map_or(Ok(None), |dest| dest.stat(name)) {
            Ok(found) => found,
            Err(error) => {
                self.board.complain(&error.to_string());
                return Ok(());
            }
        };
        let found = found.filter(|_| !(root_is_new && name == b"."));
        let Some(kind) = entry.kind() else { return Ok(()) };
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
            return Ok(());
        }
        let work = match (kind, dest) {
            (Kind::File, dest) => return self.file(dest, name, ndx, entry, found),
            (_, None) => Ok(Some(ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW))),
            (Kind::Dir, Some(dest)) if self.options.dry_run => Ok(self.difference(name, entry, found.as_ref(), dest)),
            (Kind::Dir, Some(dest)) => self.dir(dest, name, entry, found),
            (_, Some(dest)) => {
                match self.link_or_node(dest, name, entry, kind, found) {
                    Ok(Some(header)) => {
                        self.tell_item(ndx, &header);
                        self.acknowledge(ndx);
                    }
                    Ok(None) => {}
                    Err(error) => self.board.complain(&error.to_string()),
                }
                return Ok(());
            }
        };
        match work {
            Ok(flags) => {
                self.report(ndx, flags);
                if kind != Kind::Dir {
                    self.acknowledge(ndx);
                }
            }
            Err(error) => self.board.complain(&error.to_string()),
        }
        Ok(())
    }

    /// Tells of a change made here; where nothing changed, only if the client wants to hear of that too.
    fn report(&mut self, ndx: Ndx, flags: Option<ItemFlags>) {
        self.tell_item(ndx, &ItemHeader { flags: flags.unwrap_or_default(), ..ItemHeader::default() });
    }

    /// The same, with a name or basis to tell.
    fn tell_item(&mut self, ndx: Ndx, header: &ItemHeader) {
        let wordy = self.options.detail == ItemDetail::All || self.options.verbose > 1;
        let quiet = ItemFlags::BASIS_TYPE.and(ItemFlags::XNAME).and(ItemFlags::LOCAL_CHANGE);
        let named = header.xname.as_ref().is_some_and(|name| !name.is_empty());
        if wordy || named || header.flags.0 & !quiet.0 != 0 {
            self.speaker.item(ndx, header, &mut self.out);
        }
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
