//! Decides what is missing and asks for it. Counterpart: rsync's `generate_files`.

use super::TransferError;
use super::abort::LastWords;
use super::beneath::shown;
use super::dest::{Attrs, Dest, Found, Further, LateDirs, Values, same_mtime};
use super::greet::Mouth;
use super::links;
use super::receive::{Target, preserve};
use protocol::args::{ItemDetail, Options};
use protocol::checksum::{Checksum, FileHasher, Sum, weak};
use protocol::flist::{DirClass, FileEntry, FileList, Kind, Ndx};
use protocol::generator::Generator;
use protocol::handshake::Negotiated;
use protocol::item::{ItemFlags, ItemHeader, XattrLists};
use protocol::mux::{Message, Outbox, TextKind};
use protocol::sums::{BlockIndex, SumHead};
use protocol::xattr::XattrList;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
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
    /// Values of extended attributes that came over the wire.
    pub(super) values: Values,
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
        Self { state: Mutex::default(), bell: Condvar::new(), requested, values: Values::default() }
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
        for _ in 0..if n.version >= 31 { 3 } else { 2 } {
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
        let look = |dest: &Dest| if entry.is_dir() { dest.stat_dir(name) } else { dest.stat(name) };
        let found = match dest.map_or(Ok(None), look) {
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
            Kind::Device | Kind::Special if self.options.drop_devices => true,
            Kind::Device => !self.options.devices || dest.is_some_and(|dest| !dest.makes_devices()),
            Kind::Special => !self.options.specials,
            Kind::File => false,
        };
        if let (true, Some(target)) = (self.options.safe_links && !skip, &entry.target)
            && links::is_unsafe(target, &entry.name)
        {
            if self.options.verbose > 0 {
                self.tell(&format!("ignoring unsafe symlink \"{}\" -> \"{}\"", shown(name), shown(target)));
            }
            return Ok(());
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
            return Ok(());
        }
        let work = match (kind, dest) {
            (Kind::File, dest) => return self.file(dest, name, ndx, entry, found),
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
            }
            Err(error) => self.board.complain(&error.to_string()),
        }
        Ok(())
    }

    /// Tells of a change made here; where nothing changed, only if the client wants to hear of that too.
    fn report(&mut self, ndx: Ndx, flags: Option<ItemFlags>, unknown: Vec<u32>) {
        let wordy = self.options.detail == ItemDetail::All || self.options.verbose > 1;
        if let Some(flags) = flags.or_else(|| wordy.then(ItemFlags::default)) {
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
        self.board.mark_request(ndx);
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
