//! Answers the generator's requests for one session.
//!
//! Knows nothing of files: the caller reads them and hands over tokens. Counterpart: rsync's `sender.c`.

use crate::PeerError;
use crate::checksum::Sum;
use crate::filter;
use crate::flist::{FileList, Ndx, Segments};
use crate::generator::DeleteCounts;
use crate::handshake::{Compat, Negotiated};
use crate::item::{ItemFlags, ItemHeader, XattrLists};
use crate::mux::{Inbox, Message, Outbox};
use crate::names;
use crate::ndx::{NdxState, NdxValue};
use crate::sums::{BlockIndex, SumHead, SumTable};
use crate::token::{PackError, TokenWriter};
use crate::wire::{Decode, Decoded, Reader};
use crate::xattr::{XattrList, XattrListKind};
use std::collections::HashSet;

/// The few facts a sender needs to know of its session.
#[derive(Debug, Clone, Copy)]
pub struct SenderFacts {
    /// We are the server: filter rules come first, and statistics go last.
    pub server: bool,
    /// Nothing is transferred, only reported.
    pub dry_run: bool,
    /// Entries have extended attributes (`-X`).
    pub xattrs: bool,
    /// Files are appended to: what a request says is only how much is there, without sums.
    pub append: bool,
    /// Block sums beyond this many are not kept, and the file is sent whole: the bound on memory.
    pub sums_most: u32,
}

/// What the peer wants next.
#[derive(Debug)]
pub enum SenderEvent {
    /// A filter rule (server only).
    Filter(Vec<u8>),
    /// The end of the filter rules (server only); now the file list is due.
    FiltersDone,
    /// The data of a file is wanted: answer with [`Sender::begin`] or [`Sender::decline`]. The sums of the request are
    /// still to come: see [`Sender::poll_sums`].
    Request(Request),
    /// The receiving side tells of a change it made itself. It has been echoed.
    Item(Ndx, ItemHeader),
    /// The same, but values of extended attributes are wanted with it: answer with [`Sender::give`].
    Values(Ndx, ItemHeader),
    /// The oldest segment is finished on both sides. Its end has been echoed.
    SegmentDone,
    /// A phase has ended. Its end has been echoed.
    PhaseDone,
    /// What the receiving side deleted. A server has passed it on.
    Deleted(DeleteCounts),
    /// The last phase has ended: answer with [`Sender::farewell`].
    AllDone,
    /// A message.
    Message(Message),
    /// The session is over.
    Goodbye,
}

/// What comes where names are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameEvent {
    /// A name.
    Name(Vec<u8>),
    /// There are no more.
    End,
    /// A message.
    Message(Message),
}

/// A wanted file and what the receiving side has of it.
#[derive(Debug)]
pub struct Request {
    /// Which file.
    pub ndx: Ndx,
    /// What differs. Where values of extended attributes are wanted, they are to be put in their place before
    /// [`Sender::begin`].
    pub header: ItemHeader,
    /// Block sums of the basis, to be filled by [`Sender::poll_sums`]; it stays empty when there is none, or more of them
    /// than we keep.
    pub sums: SumTable,
    /// What is there already stays unseen, and only the rest is wanted.
    pub append: bool,
    /// Asked for the second time, since the first copy did not have the right sum.
    pub redo: bool,
}

/// Totals a server reports to the client it sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FinalStats {
    /// Bytes the sender read from the connection.
    pub read: u64,
    /// Bytes the sender wrote to the connection.
    pub written: u64,
    /// Size of all files in the list.
    pub total_size: u64,
    /// Milliseconds to build the list.
    pub list_build_ms: u64,
    /// Milliseconds to send the list.
    pub list_send_ms: u64,
}

impl FinalStats {
    /// Writes them; before protocol 29 nobody is told of the list.
    pub fn encode(&self, n: &Negotiated, out: &mut Vec<u8>) {
        let numbers = [self.read, self.written, self.total_size, self.list_build_ms, self.list_send_ms];
        for number in &numbers[..Self::count(n)] {
            n.ints().put_long(out, i64::try_from(*number).unwrap_or(i64::MAX), 3);
        }
    }

    /// Reads them.
    pub fn decode(n: &Negotiated, reader: &mut Reader<'_>) -> Decoded<Self> {
        let mut numbers = [0; 5];
        for number in &mut numbers[..Self::count(n)] {
            *number = n.ints().long(reader, 3)?.max(0) as u64;
        }
        let [read, written, total_size, list_build_ms, list_send_ms] = numbers;
        Ok(Self { read, written, total_size, list_build_ms, list_send_ms })
    }

    fn count(n: &Negotiated) -> usize {
        if n.version >= 29 { 5 } else { 3 }
    }
}

#[derive(Debug)]
enum SenderState {
    Filters,
    Items,
    /// Sums come, so many of so many bytes in their strong part.
    Sums {
        left: u32,
        strong_length: u32,
    },
    Farewell,
    Answer,
    LastDone,
    Over,
}

/// The sender's half of a session, from the end of the handshake.
#[derive(Debug)]
pub struct Sender {
    n: Negotiated,
    facts: SenderFacts,
    inbox: Inbox,
    state: SenderState,
    ndx_in: NdxState,
    ndx_out: NdxState,
    tokens: TokenWriter,
    /// With each segment, which of its files were asked for before.
    segments: Segments<HashSet<Ndx>>,
    /// No segment will come any more.
    complete: bool,
    phase: u8,
    /// Names come, and stand outside of all framing.
    plain_names: bool,
    /// File data goes into the batch file, and not to the peer.
    holds_back: bool,
    /// Requests whose answers come later.
    put_off: usize,
    /// The end of a phase has come, and waits for them.
    phase_waits: bool,
}

impl Sender {
    /// Goes on where the handshake ended.
    pub fn new(n: &Negotiated, facts: SenderFacts, inbox: Inbox) -> Self {
        Self {
            n: *n,
            facts,
            inbox,
            state: if facts.server { SenderState::Filters } else { SenderState::Items },
            ndx_in: NdxState::new(n.ints()),
            ndx_out: NdxState::new(n.ints()),
            tokens: TokenWriter::new(n),
            segments: Segments::new(n.compat.has(Compat::INC_RECURSE)),
            complete: !n.compat.has(Compat::INC_RECURSE),
            phase: 0,
            plain_names: false,
            holds_back: false,
            put_off: 0,
            phase_waits: false,
        }
    }

    /// The answer to a request comes later, behind those to others: until then no phase ends.
    pub fn put_off(&mut self) {
        self.put_off += 1;
    }

    /// A request that was put off is answered now.
    pub fn take_up(&mut self) {
        self.put_off = self.put_off.saturating_sub(1);
        self.phase_waits &= self.put_off > 0;
    }

    /// Whether all of a phase has been asked for, and its end waits for what was put off.
    pub fn phase_waits(&self) -> bool {
        self.phase_waits
    }

    /// The peer has names for us: see [`Sender::poll_name`]. To be said before any bytes are fed. Below 31 they stand
    /// outside of all framing.
    pub fn expect_names(&mut self) {
        self.plain_names = self.n.version < 31;
        if self.plain_names && self.facts.server {
            self.inbox.hold();
        }
    }

    /// File data is not for the peer, but only for the record of the outbox (`--only-write-batch`).
    pub fn hold_data_back(&mut self) {
        self.holds_back = true;
    }

    /// The file list, or with incremental recursion its first segment, goes out now: the caller writes its entries.
    /// Refused beyond the indexes there are.
    pub fn list(&mut self, list: &FileList) -> Result<(), PeerError> {
        self.segments.add(list, HashSet::new())
    }

    /// Announces the segment that lists the directory of this number; the caller writes its entries.
    pub fn segment(&mut self, dir: u32, list: &FileList, out: &mut Outbox) -> Result<(), PeerError> {
        put_ndx(&mut self.ndx_out, NdxValue::Segment(dir), out);
        self.list(list)
    }

    /// Says that there are no further segments (incremental recursion).
    pub fn end_list(&mut self, out: &mut Outbox) {
        put_ndx(&mut self.ndx_out, NdxValue::FlistEnd, out);
        self.complete = true;
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        self.inbox.feed(bytes)
    }

    /// The next event; `None` means: feed me. Echoes that the protocol asks for go to `out`.
    pub fn poll(&mut self, out: &mut Outbox) -> Result<Option<SenderEvent>, PeerError> {
        self.inbox.start_mux()?;
        loop {
            match self.step(out) {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(Decode::Bad(error)) => return Err(error),
                Err(Decode::Incomplete) if self.inbox.next_frame()? => {}
                Err(Decode::Incomplete) => return Ok(self.message(out)?.map(SenderEvent::Message)),
            }
        }
    }

    /// The next of the names that the peer has for us (`--files-from`), which come behind the filter rules and before
    /// everything else; `None` means: feed me.
    pub fn poll_name(&mut self) -> Result<Option<NameEvent>, PeerError> {
        if self.plain_names {
            self.inbox.stop_mux()?;
        } else {
            self.inbox.start_mux()?;
        }
        let mut reader = self.inbox.reader();
        match names::decode(&mut reader) {
            Ok(name) => {
                let used = reader.position();
                self.inbox.consume(used);
                Ok(Some(name.map_or(NameEvent::End, NameEvent::Name)))
            }
            Err(Decode::Bad(error)) => Err(error),
            Err(Decode::Incomplete) => match self.inbox.message() {
                Some(Message::ErrorExit(Some(code))) => Err(PeerError::Exit(code)),
                message => Ok(message.map(NameEvent::Message)),
            },
        }
    }

    /// True when the session has ended as it should.
    pub fn is_over(&self) -> bool {
        matches!(self.state, SenderState::Over)
    }

    // One function, long as it is: what may come next is read off its arms, one for each state.
    fn step(&mut self, out: &mut Outbox) -> Result<Option<SenderEvent>, Decode> {
        let mut reader = self.inbox.reader();
        let event = match &mut self.state {
            SenderState::Filters => match filter::decode(&mut reader)? {
                Some(rule) => Some(SenderEvent::Filter(rule)),
                None => {
                    self.state = SenderState::Items;
                    Some(SenderEvent::FiltersDone)
                }
            },
            SenderState::Items => {
                let mut ndx_in = self.ndx_in.clone();
                match ndx_in.decode(&mut reader)? {
                    NdxValue::Index(ndx) => {
                        let (xattrs, dry_run) = (self.facts.xattrs, self.facts.dry_run);
                        let lists = XattrLists::of(&self.n, xattrs, dry_run, XattrListKind::Wanted);
                        let header = ItemHeader::decode_of(&self.n, &mut reader, lists)?;
                        if is_keep_alive(&self.n, ndx, &header, self.segments.next_start()) {
                            self.ndx_in = ndx_in;
                            echo(&self.n, &mut self.ndx_out, Ndx(ndx), &header, out);
                            let used = reader.position();
                            self.inbox.consume(used);
                            return Ok(None);
                        }
                        let Some(seen) = self.segments.find_mut(Ndx(ndx)) else { return Err(out_of_list(ndx)) };
                        if header.flags.has(ItemFlags::TRANSFER) && !self.facts.dry_run {
                            let (size, block_most) = (self.n.checksum.size(), self.n.block_length_most());
                            let head = SumHead::decode_up_to(&reader.array()?, size, block_most)?;
                            self.ndx_in = ndx_in;
                            // Without incremental recursion a file is asked for again only in the second phase.
                            let incremental = self.n.compat.has(Compat::INC_RECURSE);
                            let redo = self.phase > 0 || (incremental && !seen.insert(Ndx(ndx)));
                            let append = self.facts.append && !redo;
                            let sums = match append {
                                true => SumTable::without_sums(head),
                                false => SumTable::new(head, size, self.facts.sums_most),
                            };
                            if !append && head.count > 0 {
                                self.state = SenderState::Sums { left: head.count, strong_length: head.strong_length };
                            }
                            Some(SenderEvent::Request(Request { ndx: Ndx(ndx), header, sums, append, redo }))
                        } else {
                            self.ndx_in = ndx_in;
                            match &header.xattrs {
                                Some(XattrList::Wanted(wanted)) if !wanted.is_empty() => {
                                    Some(SenderEvent::Values(Ndx(ndx), header))
                                }
                                _ => {
                                    echo(&self.n, &mut self.ndx_out, Ndx(ndx), &header, out);
                                    Some(SenderEvent::Item(Ndx(ndx), header))
                                }
                            }
                        }
                    }
                    NdxValue::Done if self.segments.len() > 1 => {
                        self.segments.release();
                        put_ndx(&mut self.ndx_out, NdxValue::Done, out);
                        Some(SenderEvent::SegmentDone)
                    }
                    NdxValue::Done if self.put_off > 0 => {
                        self.phase_waits = true;
                        return Err(Decode::Incomplete);
                    }
                    NdxValue::Done if !self.complete => {
                        return Err(PeerError::Malformed("the end of a phase before the end of the list").into());
                    }
                    NdxValue::Done => {
                        self.phase += 1;
                        if self.phase == self.n.phases() {
                            self.state = SenderState::Farewell;
                            Some(SenderEvent::AllDone)
                        } else {
                            put_ndx(&mut self.ndx_out, NdxValue::Done, out);
                            Some(SenderEvent::PhaseDone)
                        }
                    }
                    NdxValue::DeleteStats => {
                        let counts = delete_counts(&mut reader, &mut self.ndx_out, self.facts.server, out)?;
                        self.ndx_in = ndx_in;
                        Some(SenderEvent::Deleted(counts))
                    }
                    NdxValue::FlistEnd | NdxValue::Segment(_) => {
                        return Err(PeerError::Malformed("a list number in the generator's stream").into());
                    }
                }
            }
            SenderState::Sums { .. } => {
                // Nobody wants them.
                self.take_sums(|_, _| {})?;
                return Ok(None);
            }
            SenderState::Farewell | SenderState::Over => return Err(Decode::Incomplete),
            SenderState::Answer | SenderState::LastDone => {
                let mut ndx_in = self.ndx_in.clone();
                match ndx_in.decode(&mut reader)? {
                    NdxValue::Done => {}
                    NdxValue::DeleteStats => {
                        let counts = delete_counts(&mut reader, &mut self.ndx_out, self.facts.server, out)?;
                        self.ndx_in = ndx_in;
                        let used = reader.position();
                        self.inbox.consume(used);
                        return Ok(Some(SenderEvent::Deleted(counts)));
                    }
                    _ => return Err(PeerError::Malformed("a request after the last phase").into()),
                }
                if matches!(self.state, SenderState::Answer) && self.n.version >= 31 {
                    put_ndx(&mut self.ndx_out, NdxValue::Done, out);
                    self.state = SenderState::LastDone;
                    None
                } else {
                    self.state = SenderState::Over;
                    Some(SenderEvent::Goodbye)
                }
            }
        };
        let used = reader.position();
        self.inbox.consume(used);
        Ok(event)
    }

    /// Puts into the table of a request what has come of its sums; to be asked for before [`Sender::decline`] or the end of
    /// the reply, or not at all. Returns a message that came between them. When the table still has
    /// [some to come](SumTable::remaining), feed me.
    pub fn poll_sums(&mut self, sums: &mut SumTable, out: &mut Outbox) -> Result<Option<Message>, PeerError> {
        while matches!(self.state, SenderState::Sums { .. }) {
            match self.take_sums(|weak, strong| sums.push(weak, strong)) {
                Ok(()) => {}
                Err(Decode::Bad(error)) => return Err(error),
                Err(Decode::Incomplete) if self.inbox.next_frame()? => {}
                Err(Decode::Incomplete) => return self.message(out),
            }
        }
        Ok(None)
    }

    /// Reads the sums that are here, until there are no more to come.
    fn take_sums(&mut self, mut each: impl FnMut(u32, &[u8])) -> Result<(), Decode> {
        let SenderState::Sums { left, strong_length } = &mut self.state else { return Ok(()) };
        let mut reader = self.inbox.reader();
        let size = 4 + *strong_length as usize;
        while *left > 0 {
            let Ok(weak) = reader.uint() else { break };
            let Ok(strong) = reader.take(*strong_length as usize) else { break };
            each(weak, strong);
            *left -= 1;
        }
        // A partly read block stays for the next time.
        let whole = reader.position() / size * size;
        let is_complete = *left == 0;
        self.inbox.consume(whole);
        if !is_complete {
            return Err(Decode::Incomplete);
        }
        self.state = SenderState::Items;
        Ok(())
    }

    /// A message, where the payload before it does not suffice.
    fn message(&mut self, out: &mut Outbox) -> Result<Option<Message>, PeerError> {
        match self.inbox.message() {
            Some(Message::ErrorExit(Some(code))) => {
                out.message(&Message::ErrorExit(None));
                Err(PeerError::Exit(code))
            }
            message => Ok(message),
        }
    }

    /// Answers an item whose values were wanted; they stand in its header now.
    pub fn give(&mut self, ndx: Ndx, header: &ItemHeader, out: &mut Outbox) {
        echo(&self.n, &mut self.ndx_out, ndx, header, out);
    }

    /// Begins the answer to a request. `store` spares the effort to compress a file whose bytes would not shrink.
    pub fn begin(&mut self, request: &Request, store: bool, out: &mut Outbox) -> FileReply<'_> {
        echo(&self.n, &mut self.ndx_out, request.ndx, &request.header, out);
        out.divert(self.holds_back);
        out.put(&request.sums.head().encode());
        self.tokens.begin(store);
        FileReply { sender: self }
    }

    /// Answers that the file cannot be sent; nothing else will come for it. Before protocol 30 the receiving side finds
    /// that out at the end of the phase.
    pub fn decline(&mut self, request: &Request, out: &mut Outbox) {
        out.message(&Message::NoSend(request.ndx));
    }

    /// Ends the last phase; a server adds its statistics.
    pub fn farewell(&mut self, stats: &FinalStats, out: &mut Outbox) {
        put_ndx(&mut self.ndx_out, NdxValue::Done, out);
        let mut bytes = Vec::new();
        stats.encode(&self.n, &mut bytes);
        // A client has nobody to tell but the reader of its batch file.
        out.divert(!self.facts.server);
        out.put(&bytes);
        out.divert(false);
        self.state = SenderState::Answer;
    }
}

/// The answer to one request. Borrowed from the sender, so that a reply out of order does not compile.
#[derive(Debug)]
pub struct FileReply<'s> {
    sender: &'s mut Sender,
}

impl FileReply<'_> {
    /// Literal bytes.
    pub fn literal(&mut self, bytes: &[u8], out: &mut Outbox) -> Result<(), PackError> {
        self.sender.tokens.literal(bytes, out)
    }

    /// A block of the basis, and the bytes it stands for.
    pub fn copy(&mut self, block: BlockIndex, bytes: &[u8], out: &mut Outbox) -> Result<(), PackError> {
        self.sender.tokens.copy(block, bytes, out)
    }

    /// Takes bytes as they came, as [`Sender::feed`] does.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        self.sender.feed(bytes)
    }

    /// As [`Sender::poll_sums`]: the blocks that the reply begins with may be found before all sums have come.
    pub fn poll_sums(&mut self, sums: &mut SumTable, out: &mut Outbox) -> Result<Option<Message>, PeerError> {
        self.sender.poll_sums(sums, out)
    }

    /// The end of the file, with its sum.
    pub fn end(self, sum: &Sum, out: &mut Outbox) -> Result<(), PackError> {
        self.sender.tokens.end(out)?;
        out.put(sum.as_bytes());
        out.divert(false);
        Ok(())
    }
}

fn out_of_list(ndx: u32) -> Decode {
    PeerError::Range { what: "file index", value: ndx.into(), expected: "an index within the file list" }.into()
}

fn put_ndx(state: &mut NdxState, value: NdxValue, out: &mut Outbox) {
    let mut bytes = Vec::with_capacity(6);
    state.encode(value, &mut bytes);
    out.put(&bytes);
}

/// An item that is none: a peer of protocol 29 says so that it is still there.
pub(crate) fn is_keep_alive(n: &Negotiated, ndx: u32, header: &ItemHeader, next: u32) -> bool {
    n.version == 29 && ndx == next && *header == ItemHeader::keep_alive()
}

fn echo(n: &Negotiated, state: &mut NdxState, ndx: Ndx, header: &ItemHeader, out: &mut Outbox) {
    let mut bytes = Vec::with_capacity(16);
    state.encode(NdxValue::Index(ndx.0), &mut bytes);
    match &header.xattrs {
        // What is not at hand is not given.
        Some(XattrList::Wanted(_)) => {
            let given = ItemHeader { xattrs: Some(XattrList::Given(Vec::new())), ..header.clone() };
            given.encode_of(n, &mut bytes);
        }
        _ => header.encode_of(n, &mut bytes),
    }
    out.put(&bytes);
}

/// Reads counts of deletions; a server passes them on.
fn delete_counts(
    reader: &mut crate::wire::Reader<'_>,
    ndx_out: &mut NdxState,
    server: bool,
    out: &mut Outbox,
) -> Result<DeleteCounts, Decode> {
    let counts = DeleteCounts::decode(reader)?;
    if server {
        put_ndx(ndx_out, NdxValue::DeleteStats, out);
        let mut bytes = Vec::with_capacity(16);
        counts.encode(&mut bytes);
        out.put(&bytes);
    }
    Ok(counts)
}
