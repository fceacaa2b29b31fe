//! Fetches named files, each whole and to a place of its own. Counterpart: a pull with `--files-from`.
//!
//! Where `receive` brings a directory into line with a list, this takes single files from anywhere over there and never
//! replaces one here. So there is no generator's judgement, no basis but what an earlier session has left of the file, and
//! one thread: requests are few and small.

pub(crate) mod sums;

use super::TransferError;
use super::conversation::{Conversation, LinkReader, LinkWriter};
use super::dest::{Dest, DestError, Fsync, OutputFile, Preserve};
use super::send::Summary;
use super::sent::Sent;
use protocol::PeerError;
use protocol::args::Options;
use protocol::checksum::{BlockRule, Checksum, FileHasher, Sum, weak};
use protocol::flist::{Arrived, FileEntry, FileList, ListLimits, ListShape, Ndx};
use protocol::generator::Generator;
use protocol::handshake::{Compat, Negotiated};
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::Message;
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts};
use protocol::sums::{BlockIndex, StrongSums, SumHead};
use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// Requests that wait for their answer: enough to keep a long line busy with small files.
const AHEAD: usize = 32;
/// Bytes of the names of one session. They are said before anything is heard, so pipes must hold them.
const NAMES_MOST: usize = 48 * 1024;
/// Smaller files are not kept when they break off.
pub(crate) const KEPT_LEAST: u64 = 1 << 20;
/// Bytes of a basis that are read at once.
const READ_SIZE: u32 = 256 * 1024;
/// What stands in a request that is built upon what an earlier session has left.
const PARTIAL: u8 = 0x81;

/// The options of a far end that serves a fetch: what stands behind a symlink is sent, and of the way to a file nothing.
/// The names follow on the wire, where no shell and no parser of options sees them.
pub(crate) fn options() -> Options {
    Options {
        copy_links: true,
        dirs: true,
        relative: true,
        no_implied_dirs: true,
        files_from: Some(b"-".to_vec()),
        from0: true,
        ..Options::default()
    }
}

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedFile {
    /// Its full path over there, less the slash it begins with; without empty, `.` and `..` components.
    pub name: Vec<u8>,
    /// Where it goes, beneath the destination.
    pub place: Vec<u8>,
    /// The MD5 it must have.
    pub md5: Option<Sum>,
    /// What stands at its place is replaced by it.
    pub replaces: bool,
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// It is here, whole, under its name and on the disk.
    Kept(Sent),
    /// Something stands at its place already, and is as it was.
    Taken,
    /// It came whole, and has another MD5; it was thrown away.
    Changed(Sum),
    /// It did not come whole.
    Garbled,
    /// It did not come whole upon what an earlier session had left, which is away now. The next one can have it.
    Misbuilt,
    /// The far end listed it and could not read it.
    NotSent,
    /// The far end has no such name, or may not look.
    NotListed,
    /// It is no regular file.
    NotAFile,
    /// It could not be stored here, in the system's words.
    NotStored(String),
}

/// Hears how a fetch goes.
pub trait FetchObserver {
    /// Whether to stop after the file that is coming in.
    fn stopping(&self) -> bool {
        false
    }

    /// Whether others are to bring a file of so many bytes ahead of the session, of which nothing is here.
    fn has_helpers(&self, _len: u64) -> bool {
        false
    }

    /// Has a file of so many bytes brought into one that is empty; whatever is missing then comes by the session.
    fn stage(&mut self, _at: usize, _len: u64, _here: File) {}

    /// A file goes on behind so many of its bytes, which are here.
    fn resumes(&mut self, _at: usize, _bytes: u64, _len: u64) {}

    /// Bytes of the current file have come, or were found here.
    fn progress(&mut self, _bytes: u64) {}

    /// The permissions a file gets that has `mode` over there.
    fn mode(&self, mode: u32) -> u32 {
        mode & 0o777
    }

    /// What became of the wish of this number. A wish that nothing is said of was not tried.
    fn fetched(&mut self, at: usize, fetched: Fetched);

    /// The peer said something.
    fn message(&mut self, _message: &Message) {}
}

/// Fetches what is wished for from a server that has `options`, its source being `/`.
/// Files are asked for in order up to about `bytes_most`, and at least one.
pub fn fetch(
    mut conversation: Conversation,
    wishes: &[WantedFile],
    dest: &Dest,
    bytes_most: u64,
    observer: &mut dyn FetchObserver,
) -> Result<Summary, TransferError> {
    let done = match converse(&mut conversation, wishes, (dest, bytes_most), observer) {
        Ok(done) => done,
        Err(error) => return Err(conversation.abort(error)),
    };
    let Conversation { mut reader, writer, closer, .. } = conversation;
    let (written_bytes, read_bytes) = (writer.written, reader.read);
    drop(writer);
    let mut ending = None;
    if done.whole {
        ending = reader.await_end()?;
    } else {
        closer.close();
    }
    let stderr = reader.remote.stderr();
    Ok(Summary { files: done.files, sent: done.bytes, written_bytes, read_bytes, ending, stderr })
}

/// What a conversation came to.
#[derive(Default)]
struct FetchDone {
    files: u64,
    bytes: Sent,
    /// It went to its end, and was not left when we were told to stop.
    whole: bool,
}

fn converse(
    conversation: &mut Conversation,
    wishes: &[WantedFile],
    (dest, bytes_most): (&Dest, u64),
    observer: &mut dyn FetchObserver,
) -> Result<FetchDone, TransferError> {
    if conversation.agreed.compat.has(Compat::INC_RECURSE) {
        return Err(PeerError::NotOffered("incremental recursion").into());
    }
    let wished = send_names(conversation, wishes)?;
    let shape = ListShape { sum_size: 0, ..options().list_shape(0) };
    let facts = ReceiverFacts { shape, limits: ListLimits::default(), server: false, dry_run: false };
    let inbox = conversation.take_inbox();
    let mut receiver = Receiver::new(&conversation.agreed, facts, inbox);
    let Arrived { list, .. } = hear_list(&mut receiver, &mut conversation.reader, observer)?;
    let Conversation { agreed, reader, writer, .. } = conversation;
    let mut work = Fetch {
        agreed,
        writer,
        speaker: Generator::new(agreed),
        wishes,
        dest,
        observer,
        list: &list,
        queue: VecDeque::new(),
        asked: VecDeque::new(),
        all_asked: false,
        ways: HashSet::new(),
        block: Vec::new(),
        current: None,
        done: FetchDone::default(),
    };
    work.sort_out(wished, bytes_most);
    if list.is_empty() {
        // The far end leaves by itself.
        work.done.whole = true;
    } else {
        work.fetch_all(&mut receiver, reader)?;
    }
    Ok(work.done)
}

/// Takes what was asked for out of what waits for its answer.
fn take(asked: &mut VecDeque<(Ndx, usize)>, ndx: Ndx) -> Option<usize> {
    let at = asked.iter().position(|(waiting, _)| *waiting == ndx)?;
    asked.remove(at).map(|(_, at)| at)
}

/// Sends an empty filter list and the names, as many as may be sent at once; gives whose names these were.
fn send_names<'w>(
    conversation: &mut Conversation,
    wishes: &'w [WantedFile],
) -> Result<HashMap<&'w [u8], usize>, TransferError> {
    let Conversation { agreed, writer, .. } = conversation;
    writer.out.put(&0i32.to_le_bytes());
    let mut names = Vec::new();
    let mut wished = HashMap::new();
    for (at, wish) in wishes.iter().enumerate() {
        let fits = wished.is_empty() || names.len() + wish.name.len() < NAMES_MOST;
        // What is wished for twice comes once; the other wish waits for another session.
        if !fits || wish.name.is_empty() || wish.name.contains(&0) || wished.contains_key(&wish.name[..]) {
            continue;
        }
        names.extend_from_slice(&wish.name);
        names.push(0);
        wished.insert(&wish.name[..], at);
    }
    names.push(0);
    writer.send_names(agreed, std::iter::once(Ok(names)))?;
    Ok(wished)
}

fn hear_list(
    receiver: &mut Receiver,
    reader: &mut LinkReader,
    observer: &mut dyn FetchObserver,
) -> Result<Arrived, TransferError> {
    let mut heard = receiver.consumed();
    loop {
        // An entry has come, or several.
        if receiver.consumed() > heard {
            heard = receiver.consumed();
            reader.brought_on();
        }
        match receiver.poll()? {
            Some(ReceiverEvent::List(arrived)) => {
                reader.brought_on();
                return Ok(arrived);
            }
            Some(ReceiverEvent::Message(message)) => observer.message(&message),
            Some(_) => return Err(PeerError::Malformed("a file before the list").into()),
            None => receiver.feed(reader.read()?)?,
        }
    }
}

struct Fetch<'a> {
    agreed: &'a Negotiated,
    writer: &'a mut LinkWriter,
    speaker: Generator,
    wishes: &'a [WantedFile],
    dest: &'a Dest,
    observer: &'a mut dyn FetchObserver,
    list: &'a FileList,
    /// What is still to be asked for: entries, and the numbers of their wishes.
    queue: VecDeque<(Ndx, usize)>,
    /// What was asked for and has not come.
    asked: VecDeque<(Ndx, usize)>,
    all_asked: bool,
    /// Directories known to be on the disk.
    ways: HashSet<Vec<u8>>,
    /// The block of a basis that was used last.
    block: Vec<u8>,
    current: Option<CurrentFile>,
    done: FetchDone,
}

struct CurrentFile {
    at: usize,
    entry: FileEntry,
    /// Why it cannot be stored, once that is known: the rest is heard and thrown away.
    temp: Result<OutputFile, String>,
    /// The transfer's own sum.
    sum: FileHasher,
    /// The registered one, where that is another.
    md5: Option<FileHasher>,
    /// What it is built upon.
    head: SumHead,
    bytes: Sent,
}

impl CurrentFile {
    fn hash(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }
}

impl Fetch<'_> {
    /// Which entries to ask for. What else the far end lists is none of ours.
    fn sort_out(&mut self, mut wished: HashMap<&[u8], usize>, bytes_most: u64) {
        let mut bytes = 0u64;
        for (ndx, entry) in self.list.iter() {
            let Some(at) = wished.remove(&entry.name[..]) else { continue };
            if !entry.is_file() {
                self.observer.fetched(at, Fetched::NotAFile);
            } else if self.queue.is_empty() || bytes.saturating_add(entry.len) <= bytes_most {
                bytes = bytes.saturating_add(entry.len);
                self.queue.push_back((ndx, at));
            }
        }
        for at in wished.into_values() {
            self.observer.fetched(at, Fetched::NotListed);
        }
    }

    /// Asks and hears to the end of the session, or until we are told to stop.
    fn fetch_all(&mut self, receiver: &mut Receiver, reader: &mut LinkReader) -> Result<(), TransferError> {
        while !receiver.is_over() {
            self.ask_ahead()?;
            let Some(event) = receiver.poll()? else {
                self.writer.flush()?;
                receiver.feed(reader.read()?)?;
                continue;
            };
            match &event {
                ReceiverEvent::Literal(bytes) => reader.brought(bytes.len()),
                ReceiverEvent::Message(message) => reader.brought_message(message),
                _ => reader.brought_on(),
            }
            match event {
                ReceiverEvent::File(ndx, _, head) => self.begin(ndx, head)?,
                ReceiverEvent::Literal(bytes) => self.write(bytes),
                ReceiverEvent::Copy(block) => {
                    self.copy(block)?;
                    if receiver.wants_matched() {
                        receiver.matched(&self.block)?;
                    }
                }
                ReceiverEvent::End(sum) => {
                    self.end(&sum);
                    if self.observer.stopping() {
                        self.queue.clear();
                        if !self.asked.is_empty() {
                            return Ok(());
                        }
                    }
                }
                ReceiverEvent::Message(Message::NoSend(ndx)) => {
                    if let Some(at) = take(&mut self.asked, ndx) {
                        self.observer.fetched(at, Fetched::NotSent);
                    }
                }
                ReceiverEvent::Message(message) => self.observer.message(&message),
                ReceiverEvent::PhaseDone(1) => self.end_phase()?,
                ReceiverEvent::PhaseDone(_) | ReceiverEvent::Stats(_) | ReceiverEvent::Goodbye => {}
                ReceiverEvent::Item(..) | ReceiverEvent::ListEnd => {}
                ReceiverEvent::List(_) | ReceiverEvent::SegmentDone => {
                    return Err(PeerError::Malformed("a second file list").into());
                }
            }
        }
        self.speaker.done(&mut self.writer.out);
        self.writer.flush()?;
        self.done.whole = true;
        Ok(())
    }

    /// Asks for as many files as may wait for their answers.
    fn ask_ahead(&mut self) -> Result<(), TransferError> {
        // Below 30 nobody tells of a file that cannot be sent; then all that is wanted is asked for at once.
        let ahead = if self.agreed.version >= 30 { AHEAD } else { usize::MAX };
        while !self.all_asked && self.asked.len() < ahead {
            let Some((ndx, at)) = self.queue.pop_front() else {
                self.speaker.done(&mut self.writer.out);
                self.all_asked = true;
                return Ok(());
            };
            let Some(entry) = self.list.get(ndx) else { continue };
            let mut kept = self.kept(entry, at);
            let staged = kept.is_none() && self.is_provable(entry) && self.observer.has_helpers(entry.len);
            // Who sends many sums, or waits for others, hears nothing meanwhile, so there must be nothing to be heard.
            if (kept.is_some() || staged) && !self.asked.is_empty() {
                self.queue.push_front((ndx, at));
                return Ok(());
            }
            if staged {
                self.writer.flush()?;
                self.stage(entry, at);
                kept = self.kept(entry, at);
            }
            let mut header = ItemHeader { flags: ItemFlags::TRANSFER.and(ItemFlags::NEW), ..ItemHeader::default() };
            match kept {
                None => self.speaker.request(ndx, &header, &SumHead::NONE, &mut self.writer.out),
                Some((basis, head)) => {
                    header.flags = header.flags.and(ItemFlags::BASIS_TYPE);
                    header.basis = Some(PARTIAL);
                    self.speaker.request(ndx, &header, &head, &mut self.writer.out);
                    self.send_sums(&basis, &head)?;
                }
            }
            self.asked.push_back((ndx, at));
        }
        Ok(())
    }

    /// Sends the sums of all blocks of a basis. Where it cannot be read they are of zeros, which match nothing that matters.
    fn send_sums(&mut self, basis: &File, head: &SumHead) -> Result<(), TransferError> {
        let rule = BlockRule::from(self.agreed.block_seed());
        let together = (READ_SIZE / head.block_length.max(1)).max(1);
        let mut buffer = Vec::new();
        let mut block = 0;
        while block < head.count {
            let last = head.count.min(block.saturating_add(together));
            let len: u64 = (block..last).map(|block| u64::from(head.block_len(BlockIndex(block)))).sum();
            buffer.resize(len as usize, 0);
            if basis.read_exact_at(&mut buffer, head.offset(BlockIndex(block))).is_err() {
                buffer.fill(0);
            }
            let (speaker, out) = (&mut self.speaker, &mut self.writer.out);
            let summed = rule.strong_each(&buffer, head.block_length as usize, |bytes, strong| {
                speaker.sum(head, weak(bytes), strong, out);
                Ok::<(), Infallible>(())
            });
            let Ok(()) = summed;
            self.writer.flush()?;
            block = last;
        }
        Ok(())
    }

    /// All that was asked for has come, but for what could not be sent.
    fn end_phase(&mut self) -> Result<(), PeerError> {
        if !self.all_asked {
            return Err(PeerError::Malformed("the end of a phase that goes on"));
        }
        for (_, at) in self.asked.drain(..) {
            self.observer.fetched(at, Fetched::NotSent);
        }
        // The ends of the redo phase, of delayed updates and of late deletions.
        for _ in 0..self.agreed.phases() - 1 + u8::from(self.agreed.version >= 31) {
            self.speaker.done(&mut self.writer.out);
        }
        Ok(())
    }

    /// Whether what there is of a file can be built upon.
    fn is_provable(&self, entry: &FileEntry) -> bool {
        entry.len >= KEPT_LEAST && self.agreed.compat.has(Compat::INPLACE_PARTIAL_DIR)
    }

    /// Has a file brought by others where what earlier sessions leave is kept.
    fn stage(&mut self, entry: &FileEntry, at: usize) {
        // Whatever is wrong here the usual way meets, too, and tells.
        if let Ok(output) = self.create(at, entry, &SumHead::NONE)
            && let Ok(here) = output.file().try_clone()
        {
            self.observer.stage(at, entry.len, here);
        }
    }

    /// What an earlier session has left of a file, to be built upon.
    fn kept(&self, entry: &FileEntry, at: usize) -> Option<(File, SumHead)> {
        let place = &self.wishes[at].place;
        if !self.is_provable(entry) {
            return None;
        }
        let found = self.dest.partial(place).ok()?.filter(|found| (1..=entry.len).contains(&found.len))?;
        let basis = self.dest.open_partial(place).ok()??;
        let head = SumHead::for_basis(found.len, self.agreed.checksum.size(), StrongSums::Short, None);
        (head.count > 0).then_some((basis, head))
    }

    fn begin(&mut self, ndx: Ndx, head: SumHead) -> Result<(), PeerError> {
        let at = take(&mut self.asked, ndx).ok_or(PeerError::Malformed("data of a file that was not asked for"))?;
        let Some(entry) = self.list.get(ndx).cloned() else { return Ok(()) };
        self.observer.resumes(at, head.basis_len(), entry.len);
        let temp = self.create(at, &entry, &head).map_err(|error| error.to_string());
        let md5 = (self.agreed.checksum != Checksum::Md5).then(|| FileHasher::new(Checksum::Md5));
        self.current = Some(CurrentFile {
            at,
            entry,
            temp,
            sum: FileHasher::new(self.agreed.checksum),
            md5,
            head,
            bytes: Sent::default(),
        });
        Ok(())
    }

    fn create(&mut self, at: usize, entry: &FileEntry, head: &SumHead) -> Result<OutputFile, DestError> {
        let place = &self.wishes[at].place;
        let way = place.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |slash| &place[..slash]);
        if !self.ways.contains(way) {
            self.dest.make_dirs(place)?;
            self.dest.sync_way(place)?;
            self.ways.insert(way.to_vec());
        }
        if entry.len < KEPT_LEAST {
            return self.dest.create_temp(place);
        }
        if head.count == 0 {
            // What there is of it cannot be used.
            self.dest.drop_partial(place);
        }
        self.dest.open_kept(place)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.observer.progress(bytes.len() as u64);
        let Some(current) = &mut self.current else { return };
        current.hash(bytes);
        current.bytes.literal_bytes += bytes.len() as u64;
        if let Ok(temp) = &mut current.temp
            && let Err(error) = temp.write_all(bytes)
        {
            current.temp = Err(format!("write failed: {}", crate::disk::reason(&error)));
        }
    }

    /// Takes a block of what is here. Should it not be what it was, the sum of it all tells.
    fn copy(&mut self, block: BlockIndex) -> Result<(), PeerError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if block.0 >= current.head.count {
            return Err(PeerError::Malformed("a block of a basis that is not there"));
        }
        let offset = current.head.offset(block);
        self.block.resize(current.head.block_len(block) as usize, 0);
        if let Ok(temp) = &mut current.temp {
            let read = temp.file().read_exact_at(&mut self.block, offset);
            let done = match read {
                Ok(()) if temp.position() == offset => temp.pass(self.block.len() as u64),
                Ok(()) => temp.write_all(&self.block),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                current.temp = Err(format!("read or write failed: {}", crate::disk::reason(&error)));
            }
        }
        current.hash(&self.block);
        current.bytes.matched_bytes += self.block.len() as u64;
        self.observer.progress(self.block.len() as u64);
        Ok(())
    }

    fn end(&mut self, sum: &Sum) {
        let Some(CurrentFile { at, entry, temp, sum: hasher, md5, bytes, head }) = self.current.take() else { return };
        let ours = hasher.finish();
        let md5 = md5.map_or(ours, FileHasher::finish);
        let promised = self.wishes[at].md5;
        let fetched = match temp {
            Err(why) => Fetched::NotStored(why),
            _ if self.agreed.checksum != Checksum::None && ours != *sum && head.count > 0 => Fetched::Misbuilt,
            _ if self.agreed.checksum != Checksum::None && ours != *sum => Fetched::Garbled,
            _ if promised.is_some_and(|promised| promised != md5) => Fetched::Changed(md5),
            Ok(temp) => match self.keep(temp, &entry, self.wishes[at].replaces) {
                Ok(true) => Fetched::Kept(bytes),
                Ok(false) => Fetched::Taken,
                Err(error) => Fetched::NotStored(error.to_string()),
            },
        };
        if let Fetched::Kept(sent) = &fetched {
            self.done.files += 1;
            self.done.bytes.literal_bytes += sent.literal_bytes;
            self.done.bytes.matched_bytes += sent.matched_bytes;
        } else if entry.len >= KEPT_LEAST {
            self.dest.drop_partial(&self.wishes[at].place);
        }
        self.observer.fetched(at, fetched);
    }

    fn keep(&self, temp: OutputFile, entry: &FileEntry, replaces: bool) -> Result<bool, DestError> {
        let entry = FileEntry { mode: entry.mode & !0o7777 | self.observer.mode(entry.mode), ..entry.clone() };
        let preserve = Preserve { mtime: true, perms: true, ..Preserve::default() };
        let wanted = self.dest.wanted(&entry, &preserve, None);
        match replaces {
            true => temp.commit(self.dest, &wanted, None, Fsync::Yes).map(|()| true),
            false => temp.commit_new(self.dest, &wanted),
        }
    }
}
