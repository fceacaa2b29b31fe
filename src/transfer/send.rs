//! Sends a list of files. Counterpart: rsync's `send_files`.

use super::TransferError;
use super::abort::{Parts, abort};
use super::beneath::shown;
use super::greet::{Ears, Mouth, Session};
use super::suffixes::Suffixes;
use crate::link::Ending;
use protocol::PeerError;
use protocol::checksum::{Checksum, FileHasher, Sum};
use protocol::delta::{Search, Token};
use protocol::filter::{self, Rule, Side};
use protocol::flist::{FileEntry, FileList, IdNames, Kind, ListEncoder, ListShape, Ndx, Segments};
use protocol::handshake::{Compat, Negotiated};
use protocol::item::ItemHeader;
use protocol::mux::{Inbox, Message, Outbox, TextKind};
use protocol::sender::{FinalStats, NameEvent, Request, Sender, SenderEvent, SenderFacts};
use protocol::xattr::XattrList;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of a file read at once.
const READ_SIZE: usize = 256 * 1024;
/// Bytes that may wait in the outbox before they are said.
const OUT_MOST: usize = 256 * 1024;
/// Block sums kept of one file: 24 MiB of memory, enough for a basis of 128 GiB. Beyond, a file is sent whole.
const SUMS_MOST: u32 = 1 << 20;
/// Memory for the sums of one block, bytes.
const SUM_SIZE: u64 = 24;

/// Bytes of names that the peer may have for us, with what it takes to hold them.
const NAMES_MOST: usize = 1 << 30;
/// Entries listed beyond the segment at work: enough for the generator not to wait, few enough to hold. Stock's sender
/// keeps at least a thousand.
const LOOK_AHEAD: usize = 4000;

/// How to send.
#[derive(Debug, Clone, Default)]
pub struct SendPlan {
    /// What the entries of the list carry.
    pub shape: ListShape,
    /// We are the server: the client's filter rules come first, statistics go last.
    pub server: bool,
    /// Nothing is transferred.
    pub dry_run: bool,
    /// No search for known blocks.
    pub whole_file: bool,
    /// The receiving side writes over its own basis.
    pub in_place: bool,
    /// The receiving side has the beginning of each file already; 2: and proves it.
    pub append: u8,
    /// Most bytes of memory for one purpose (`--max-alloc`), where that is less than our own bounds; 0 for none.
    pub max_alloc: u64,
    /// Names whose files are not worth compressing.
    pub skip_compress: Suffixes,
    /// The user's filter rules, for a server that hears them (see [`Options::receiver_hears_rules`]); else nothing.
    ///
    /// [`Options::receiver_hears_rules`]: protocol::args::Options::receiver_hears_rules
    pub rules: Option<Vec<Rule>>,
    /// The names of what to send come from the peer (`--files-from`).
    pub names_from_peer: bool,
    /// File data goes into the batch file only (`--only-write-batch`).
    pub only_batch: bool,
    /// The watch is told the BLAKE3 of each file sent.
    pub digests: bool,
}

impl SendPlan {
    fn sums_most(&self) -> u32 {
        match self.max_alloc {
            0 => SUMS_MOST,
            bytes => u32::try_from(bytes / SUM_SIZE).unwrap_or(u32::MAX).min(SUMS_MOST),
        }
    }
}

/// What the peer asks for before the list is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The client's filter rules, if we are the server.
    pub rules: Vec<Vec<u8>>,
    /// The names of what to send, where the peer has them.
    pub names: Vec<Vec<u8>>,
}

/// A file list, or a segment of one, with what goes with it.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The files.
    pub list: FileList,
    /// Names of owners and groups; of a segment only those that none before had.
    pub names: IdNames,
    /// Bits of trouble while it was made.
    pub io_error: i32,
}

/// Where the bytes come from.
pub trait Source {
    /// The list's next segment, and the number of the directory whose contents it is; `None` after the last one. Asked for
    /// as the receiving side gets on, and only with incremental recursion.
    fn next_segment(&mut self) -> Option<Result<(u32, Listing), TransferError>> {
        None
    }

    /// The oldest segment is finished: none of its files will be asked for again.
    fn release(&mut self) {}

    /// Opens a regular file of the list.
    fn open(&self, ndx: Ndx, entry: &FileEntry) -> io::Result<File>;

    /// The value of an entry's extended attribute; `None` where there is none.
    fn xattr(&self, _ndx: Ndx, _entry: &FileEntry, _name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// A wanted file could not be opened or read to its end.
    fn unreadable(&self, _ndx: Ndx, _entry: &FileEntry, _error: &io::Error) {}

    /// The sum that was promised for the file, if any. It goes out as the file's sum whatever the bytes are: so the
    /// receiving side itself refuses a file that has changed since.
    fn promised(&self, _ndx: Ndx) -> Option<Sum> {
        None
    }

    /// The receiving side has the entry, whole and under its name (only with `--remove-source-files`). Here a source
    /// that moves rather than copies removes its own.
    fn finished(&self, _ndx: Ndx, _entry: &FileEntry) {}
}

/// Whether a requested file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Send,
    /// No; the receiving side leaves what it has.
    Decline,
}

/// Hears how the transfer goes, and has a say.
pub trait Watch {
    /// A list, or the next segment of it, is made and about to be sent.
    fn listed(&mut self, _list: &FileList) {}

    /// The receiving side wants a file.
    fn requested(&mut self, _ndx: Ndx, _entry: &FileEntry, _request: &Request) -> Answer {
        Answer::Send
    }

    /// Bytes of the current file were read.
    fn progress(&mut self, _bytes: u64) {}

    /// A file was sent. `sum` is what its bytes came to.
    fn sent(&mut self, _ndx: Ndx, _entry: &FileEntry, _sent: &Sent, _sum: &Sum) {}

    /// What was read of the file that was [sent](Watch::sent) just now (only with [`SendPlan::digests`]).
    fn digest(&mut self, _ndx: Ndx, _digest: &Digest) {}

    /// A wanted file could not be opened or read to its end.
    fn unreadable(&mut self, _ndx: Ndx, _error: &io::Error) {}

    /// The receiving side has the file, whole and under its name (only with `--remove-source-files`).
    fn finished(&mut self, _ndx: Ndx) {}

    /// The receiving side tells of a change it made itself.
    fn item(&mut self, _ndx: Ndx, _entry: &FileEntry, _header: &ItemHeader) {}

    /// The peer said something.
    fn message(&mut self, _message: &Message) {}

    /// Something the peer's user should hear; asked for until there is nothing more.
    fn words(&mut self) -> Option<Message> {
        None
    }
}

/// Bytes of one sent file, or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Bytes that went over the wire.
    pub literal_bytes: u64,
    /// Bytes the receiving side had already.
    pub matched_bytes: u64,
}

/// A file's length and BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Length, bytes.
    pub len: u64,
    /// BLAKE3 of all bytes.
    pub blake3: Sum,
}

/// What a session came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Files sent.
    pub files: u64,
    /// Their bytes.
    pub sent: Sent,
    /// Bytes written to the link.
    pub written_bytes: u64,
    /// Bytes read from the link.
    pub read_bytes: u64,
    /// How the far end's program ended; `None` when it did not within seconds.
    pub ending: Option<Ending>,
    /// What it said on its error output.
    pub stderr: String,
}

/// Sends the files that `listing` gives, as far as the receiving side wants them. `listing` is called once, with the
/// client's filter rules if we are the server, and the names to send if the peer has them; with incremental recursion it
/// gives the first segment only, and the source the others.
pub fn send<S: Source>(
    session: Session,
    plan: &SendPlan,
    listing: impl FnOnce(Asked) -> Result<(Listing, S), TransferError>,
    watch: &mut dyn Watch,
) -> Result<Summary, TransferError> {
    let Session { n, inbox, mut out, mut ears, mut mouth, closer, batch, .. } = session;
    mouth.batch = batch;
    let line = Line { n: &n, out: &mut out, ears: &mut ears, mouth: &mut mouth };
    let (files, sent) = match converse(line, inbox, plan, listing, watch) {
        Ok(done) => done,
        Err(error) => {
            return Err(abort(&n, error, plan.server, Parts { out, mouth, ears: &mut ears, closer: &closer }));
        }
    };
    let (written_bytes, read_bytes) = (mouth.said, ears.heard);
    drop(mouth);
    let mut ending = None;
    // The client waits for a server to leave, not the other way round.
    if !plan.server {
        ears.hear_the_end()?;
        ending = ears.remote.wait(super::ENDING_PATIENCE);
    }
    let stderr = ears.remote.stderr();
    Ok(Summary { files, sent, written_bytes, read_bytes, ending, stderr })
}

/// The session's parts, lent for as long as it goes well.
struct Line<'a> {
    n: &'a Negotiated,
    out: &'a mut Outbox,
    ears: &'a mut Ears,
    mouth: &'a mut Mouth,
}

/// The whole conversation; returns how many files were sent, and their bytes.
fn converse<S: Source>(
    line: Line<'_>,
    inbox: Inbox,
    plan: &SendPlan,
    listing: impl FnOnce(Asked) -> Result<(Listing, S), TransferError>,
    watch: &mut dyn Watch,
) -> Result<(u64, Sent), TransferError> {
    let Line { n, out, ears, mouth } = line;
    let facts = SenderFacts {
        server: plan.server,
        dry_run: plan.dry_run,
        xattrs: plan.shape.xattrs,
        append: plan.append > 0,
        sums_most: if plan.whole_file { 0 } else { plan.sums_most() },
    };
    let mut sender = Sender::new(n, facts, inbox);
    if plan.names_from_peer {
        sender.expect_names();
    }
    if plan.only_batch {
        sender.hold_data_back();
    }
    if let Some(rules) = &plan.rules {
        out.put(&filter::encode(rules, Side::Receiver));
    }
    // What the receiving side deletes is its own affair.
    if mouth.batch.is_some() {
        out.record();
    }
    let rules = if plan.server { filter_rules(&mut sender, ears, mouth, out, watch)? } else { Vec::new() };
    let names = if plan.names_from_peer { names(&mut sender, ears, mouth, out, watch)? } else { Vec::new() };
    let started = Instant::now();
    let listed = listing(Asked { rules, names });
    pass_words(watch, out);
    let (listing, mut source) = listed?;
    let list_build_ms = started.elapsed().as_millis() as u64;
    let started = Instant::now();
    // An empty list ends a pull at once: the client has nothing to ask.
    let nothing = plan.server && listing.list.is_empty();
    let mut lists = Lists::new(n, plan);
    watch.listed(&listing.list);
    lists.first(listing, &mut sender, out, mouth)?;
    lists.look_ahead(&mut source, &mut sender, out, mouth, watch)?;
    mouth.say(out)?;
    let list_send_ms = started.elapsed().as_millis() as u64;

    let mut files = 0;
    let mut total = Sent::default();
    let mut buffer = vec![0; READ_SIZE];
    while !sender.is_over() && !nothing {
        lists.look_ahead(&mut source, &mut sender, out, mouth, watch)?;
        let Some(event) = sender.poll(out)? else {
            mouth.say(out)?;
            sender.feed(ears.hear()?)?;
            continue;
        };
        match event {
            SenderEvent::Request(mut request) => {
                let entry =
                    lists.segments.get(request.ndx).filter(|entry| entry.is_file()).ok_or(PeerError::Range {
                        what: "requested index",
                        value: request.ndx.0.into(),
                        expected: "a regular file of the list",
                    })?;
                if watch.requested(request.ndx, entry, &request) == Answer::Decline {
                    sender.decline(&request, out);
                    continue;
                }
                let file = match source.open(request.ndx, entry) {
                    Ok(file) => file,
                    Err(error) => {
                        let bit = if error.kind() == io::ErrorKind::NotFound { 2 } else { 1 };
                        sender.decline(&request, out);
                        out.message(&Message::IoError(bit));
                        source.unreadable(request.ndx, entry, &error);
                        watch.unreadable(request.ndx, &error);
                        continue;
                    }
                };
                // Less than the receiving side has, or was promised, is no file to append from.
                let there = if request.append { request.sums.head().basis_len() } else { 0 };
                if request.append
                    && file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() < entry.len.max(there))
                {
                    sender.decline(&request, out);
                    let name = shown(&entry.name);
                    out.message(&Message::Text(TextKind::Warning, format!("skipped diminished file: {name}\n").into()));
                    out.message(&Message::IoError(1));
                    continue;
                }
                give_values(&source, request.ndx, entry, &mut request.header)?;
                let promised = source.promised(request.ndx);
                let mut work = Reply { n, plan, out, mouth, buffer: &mut buffer, watch };
                let store = plan.skip_compress.holds(&entry.name);
                match work.send(&mut sender, &request, entry, file, promised, store)? {
                    Ok(sent) => {
                        files += 1;
                        total.literal_bytes += sent.literal_bytes;
                        total.matched_bytes += sent.matched_bytes;
                    }
                    Err(error) => {
                        source.unreadable(request.ndx, entry, &error);
                        watch.unreadable(request.ndx, &error);
                    }
                }
            }
            SenderEvent::Message(Message::Success(ndx)) => {
                let expected = "an index within the file list";
                let unknown = PeerError::Range { what: "acknowledged index", value: ndx.0.into(), expected };
                source.finished(ndx, lists.segments.get(ndx).ok_or(unknown)?);
                watch.finished(ndx);
            }
            SenderEvent::Message(message) => watch.message(&message),
            SenderEvent::Item(ndx, header) => {
                let expected = "a living entry of the list";
                let unknown = PeerError::Range { what: "reported index", value: ndx.0.into(), expected };
                watch.item(ndx, lists.segments.get(ndx).ok_or(unknown)?, &header);
            }
            SenderEvent::Values(ndx, mut header) => {
                let expected = "a living entry of the list";
                let unknown = PeerError::Range { what: "reported index", value: ndx.0.into(), expected };
                let entry = lists.segments.get(ndx).ok_or(unknown)?;
                give_values(&source, ndx, entry, &mut header)?;
                sender.give(ndx, &header, out);
                watch.item(ndx, entry, &header);
            }
            SenderEvent::SegmentDone => {
                lists.segments.release();
                source.release();
            }
            SenderEvent::AllDone => {
                let total_size = lists.total_size;
                let (read, written) = (ears.heard, mouth.said);
                sender.farewell(&FinalStats { read, written, total_size, list_build_ms, list_send_ms }, out);
            }
            SenderEvent::PhaseDone | SenderEvent::Goodbye => {}
            SenderEvent::Filter(_) | SenderEvent::FiltersDone => {
                return Err(PeerError::Malformed("filter rules after the list").into());
            }
        }
        pass_words(watch, out);
        if out.len() > OUT_MOST {
            mouth.say(out)?;
        }
    }
    mouth.say(out)?;
    Ok((files, total))
}

/// Puts the values of extended attributes in the place of their numbers. Those that cannot be read are left out, which
/// the receiving side reports. rsync: send_xattr_request
fn give_values<S: Source>(
    source: &S,
    ndx: Ndx,
    entry: &FileEntry,
    header: &mut ItemHeader,
) -> Result<(), TransferError> {
    let Some(XattrList::Wanted(wanted)) = &header.xattrs else { return Ok(()) };
    let mut given = Vec::with_capacity(wanted.len());
    for &number in wanted {
        let xattr = entry.extra.xattrs.as_ref().and_then(|set| set.get(number)).filter(|xattr| xattr.value.is_digest());
        let expected = "the number of a long extended attribute";
        let xattr = xattr.ok_or(PeerError::Range { what: "wanted attribute", value: number.into(), expected })?;
        if let Ok(Some(value)) = source.xattr(ndx, entry, &xattr.name) {
            given.push((number, value));
        }
    }
    header.xattrs = Some(XattrList::Given(given));
    Ok(())
}

/// What of the file list is out and not yet finished.
struct Lists {
    encoder: ListEncoder,
    segments: Segments<Arc<FileList>>,
    /// Nothing more to list.
    complete: bool,
    incremental: bool,
    total_size: u64,
}

impl Lists {
    fn new(n: &Negotiated, plan: &SendPlan) -> Self {
        let incremental = n.compat.has(Compat::INC_RECURSE);
        let encoder = ListEncoder::new(n, plan.shape);
        Self { encoder, segments: Segments::new(incremental), complete: !incremental, incremental, total_size: 0 }
    }

    /// Sends the first list, which is the whole one without incremental recursion.
    fn first(
        &mut self,
        listing: Listing,
        sender: &mut Sender,
        out: &mut Outbox,
        mouth: &mut Mouth,
    ) -> Result<(), TransferError> {
        sender.list(&listing.list)?;
        self.write(listing, out, mouth)
    }

    /// Lists further directories while less than the look-ahead is known beyond the oldest segment: the generator goes on
    /// there while files of this one are sent. Its end of a segment can only come once the next one, or the end, is out.
    fn look_ahead<S: Source>(
        &mut self,
        source: &mut S,
        sender: &mut Sender,
        out: &mut Outbox,
        mouth: &mut Mouth,
        watch: &mut dyn Watch,
    ) -> Result<(), TransferError> {
        while !self.complete && self.segments.ahead() < LOOK_AHEAD {
            match source.next_segment().transpose()? {
                Some((dir, listing)) => {
                    watch.listed(&listing.list);
                    sender.segment(dir, &listing.list, out)?;
                    self.write(listing, out, mouth)?;
                }
                None => {
                    sender.end_list(out);
                    self.complete = true;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, listing: Listing, out: &mut Outbox, mouth: &mut Mouth) -> Result<(), TransferError> {
        let Listing { list, names, io_error } = listing;
        let mut bytes = Vec::new();
        let names_after = if self.incremental {
            self.encoder.know(names);
            None
        } else {
            Some(names)
        };
        for entry in list.entries() {
            self.encoder.entry(entry, &mut bytes);
            if bytes.len() > OUT_MOST {
                out.put(&bytes);
                bytes.clear();
                mouth.say(out)?;
            }
        }
        match names_after {
            Some(names) => self.encoder.end(io_error, &names, &mut bytes),
            None => self.encoder.end_segment(io_error, &mut bytes),
        }
        out.put(&bytes);
        if !self.encoder.reports_errors() && io_error != 0 {
            out.message(&Message::IoError(io_error));
        }
        // Stock reckons in what came twice, too.
        self.total_size += list.entries().iter().map(|entry| if has_size(entry) { entry.len } else { 0 }).sum::<u64>();
        let list = Arc::new(list);
        Ok(self.segments.add(&list, Arc::clone(&list))?)
    }
}

/// The client's filter rules, which come first at a server that sends.
fn filter_rules(
    sender: &mut Sender,
    ears: &mut Ears,
    mouth: &mut Mouth,
    out: &mut Outbox,
    watch: &mut dyn Watch,
) -> Result<Vec<Vec<u8>>, TransferError> {
    let mut rules = Vec::new();
    loop {
        match sender.poll(out)? {
            Some(SenderEvent::Filter(rule)) => rules.push(rule),
            Some(SenderEvent::FiltersDone) => return Ok(rules),
            Some(SenderEvent::Message(message)) => watch.message(&message),
            Some(_) => return Err(PeerError::Malformed("a request before the filter rules").into()),
            None => {
                mouth.say(out)?;
                sender.feed(ears.hear()?)?;
            }
        }
    }
}

/// The names the peer has for us.
fn names(
    sender: &mut Sender,
    ears: &mut Ears,
    mouth: &mut Mouth,
    out: &mut Outbox,
    watch: &mut dyn Watch,
) -> Result<Vec<Vec<u8>>, TransferError> {
    let mut names = Vec::new();
    let mut bytes = 0;
    loop {
        match sender.poll_name()? {
            Some(NameEvent::Name(name)) => {
                bytes += name.len() + size_of::<Vec<u8>>();
                if bytes > NAMES_MOST {
                    return Err(PeerError::Malformed("a list of names that is too long").into());
                }
                names.push(name);
            }
            Some(NameEvent::End) => return Ok(names),
            Some(NameEvent::Message(message)) => watch.message(&message),
            None => {
                mouth.say(out)?;
                sender.feed(ears.hear()?)?;
            }
        }
    }
}

fn pass_words(watch: &mut dyn Watch, out: &mut Outbox) {
    while let Some(message) = watch.words() {
        out.message(&message);
    }
}

/// Whether an entry counts in the total size, as stock rsync reckons it.
fn has_size(entry: &FileEntry) -> bool {
    matches!(entry.kind(), Some(Kind::File | Kind::Symlink))
}

/// Whether the receiving side writes over the very file whose blocks are sought.
fn overwrites_basis(n: &Negotiated, plan: &SendPlan, header: &ItemHeader) -> bool {
    match header.basis {
        None | Some(0x80) => plan.in_place,
        Some(0x81) => n.compat.has(Compat::INPLACE_PARTIAL_DIR),
        Some(_) => false,
    }
}

/// What it takes to answer a request.
struct Reply<'a> {
    n: &'a Negotiated,
    plan: &'a SendPlan,
    out: &'a mut Outbox,
    mouth: &'a mut Mouth,
    buffer: &'a mut [u8],
    watch: &'a mut dyn Watch,
}

impl Reply<'_> {
    /// Sends one file, or tells why it could not be read to its end, in which case the sum that goes out is wrong on
    /// purpose and the receiving side discards what it got.
    fn send(
        &mut self,
        sender: &mut Sender,
        request: &Request,
        entry: &FileEntry,
        mut file: File,
        promised: Option<Sum>,
        store: bool,
    ) -> Result<io::Result<Sent>, TransferError> {
        let mut hasher = FileHasher::new(self.n.checksum);
        let mut blake3 = self.plan.digests.then(|| FileHasher::new(Checksum::Blake3));
        let mut read = 0;
        let mut search = Search::new(&request.sums, self.n.block_seed());
        if overwrites_basis(self.n, self.plan, &request.header) {
            search = search.in_place();
        }
        // What the receiving side has already: it may ask that the sum covers it.
        let mut there = if request.append { request.sums.head().basis_len() } else { 0 };
        let mut position = 0;
        let mut trouble = None;
        if there > 0 && self.plan.append < 2 {
            trouble = file.seek(SeekFrom::Start(there)).err();
            (position, there) = (there, 0);
        }
        let mut sent = Sent::default();
        let mut reply = sender.begin(request, store, self.out);
        let (out, mouth) = (&mut *self.out, &mut *self.mouth);
        let mut emit = |token: Token<'_>| {
            match token {
                Token::Literal(bytes) => {
                    sent.literal_bytes += bytes.len() as u64;
                    reply.literal(bytes, out)?;
                }
                Token::Copy(block, bytes) => {
                    sent.matched_bytes += bytes.len() as u64;
                    reply.copy(block, bytes, out)?;
                }
            }
            if out.len() > OUT_MOST { mouth.say(out) } else { Ok(()) }
        };
        // A device may have no end.
        let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
        let mut file = file.take(if is_file { u64::MAX } else { entry.len });
        while trouble.is_none() {
            match file.read(self.buffer) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&self.buffer[..n]);
                    if let Some(blake3) = &mut blake3 {
                        blake3.update(&self.buffer[..n]);
                    }
                    read += n as u64;
                    let known = usize::try_from(there).unwrap_or(usize::MAX).min(n);
                    there -= known as u64;
                    search.push(&self.buffer[known..n], &mut emit)?;
                    self.watch.progress(n as u64);
                    position += n as u64;
                    // What was listed is here; to ask for more would cost small files as much as their bytes.
                    if n < self.buffer.len() && position == entry.len {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => trouble = Some(error),
            }
        }
        search.finish(&mut emit)?;
        let sum = hasher.finish();
        match trouble {
            None => {
                reply.end(&promised.unwrap_or(sum), self.out)?;
                self.watch.sent(request.ndx, entry, &sent, &sum);
                if let Some(blake3) = blake3 {
                    self.watch.digest(request.ndx, &Digest { len: read, blake3: blake3.finish() });
                }
                Ok(Ok(sent))
            }
            Some(error) => {
                let zero = Sum::zero(self.n.checksum.size());
                let last = if zero == sum { 1 } else { 0 };
                let mut wrong = zero.as_bytes().to_vec();
                if let Some(byte) = wrong.last_mut() {
                    *byte = last;
                }
                reply.end(&Sum::new(&wrong).unwrap_or(zero), self.out)?;
                self.out.message(&Message::IoError(1));
                Ok(Err(error))
            }
        }
    }
}
