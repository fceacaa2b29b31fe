//! Hears the sender's stream: the file list, then the files. Counterpart: rsync's `receiver.c`.

use crate::PeerError;
use crate::checksum::Sum;
use crate::filter;
use crate::flist::{Arrived, FileEntry, ListDecoder, ListLimits, ListShape, Ndx, Segments};
use crate::generator::DeleteCounts;
use crate::handshake::{Compat, Negotiated};
use crate::item::{ItemFlags, ItemHeader, XattrLists};
use crate::mux::{Inbox, Message, WordEvent};
use crate::ndx::{NdxState, NdxValue};
use crate::sender::{FinalStats, is_keep_alive};
use crate::sums::{BlockIndex, SumHead};
use crate::token::{TokenEvent, TokenReader};
use crate::wire::Decode;
use crate::xattr::XattrListKind;
use std::collections::{HashMap, HashSet};

/// The few facts a receiver needs to know of its session.
#[derive(Debug, Clone, Copy)]
pub struct ReceiverFacts {
    /// What the list's entries carry.
    pub shape: ListShape,
    /// How much list we hold.
    pub limits: ListLimits,
    /// We are the server: no statistics come.
    pub server: bool,
    /// Nothing is transferred, only reported.
    pub dry_run: bool,
}

/// What the sender said.
#[derive(Debug)]
pub enum ReceiverEvent<'a> {
    /// The file list, or its next segment. The first one has no directory of its own unless it begins with the root.
    List(Arrived),
    /// There are no further segments. Comes once in every session.
    ListEnd,
    /// The oldest segment is finished on both sides.
    SegmentDone,
    /// An echo of what the generator told; no data.
    Item(Ndx, ItemHeader),
    /// A file begins, to be rebuilt over these blocks.
    File(Ndx, ItemHeader, SumHead),
    /// Bytes of the file.
    Literal(&'a [u8]),
    /// A block of the basis is part of the file. Tell its bytes by [`Receiver::matched`].
    Copy(BlockIndex),
    /// The file's end, with the sum it must have.
    End(Sum),
    /// A phase has ended: 1 transfer, 2 redo, 3 delayed updates (from protocol 29 on).
    PhaseDone(u8),
    /// The server's statistics (client only).
    Stats(FinalStats),
    /// A message.
    Message(Message),
    /// The sender has said its last word; the generator's last one is due.
    Goodbye,
}

#[derive(Debug)]
enum ReceiverState {
    /// The first list, or the segment of this directory.
    List(Option<u32>),
    Items,
    Tokens,
    FileSum,
    Stats,
    LastDone,
    Goodbye,
    Over,
}

/// What a step came to; lent bytes are lent by the one who takes it.
enum Next {
    Nothing,
    Event(ReceiverEvent<'static>),
    Plain(usize),
    Unpacked,
}

/// Below 31 the sender does not answer the generator's last but one DONE.
fn last_word(version: u8) -> ReceiverState {
    if version >= 31 { ReceiverState::LastDone } else { ReceiverState::Goodbye }
}

/// Directories that were listed, by number in the order both sides give them.
#[derive(Debug, Default)]
struct Dirs {
    next: u32,
    /// Those whose own contents have not come.
    unlisted: HashMap<u32, FileEntry>,
    /// Those whose names we cannot have, and so nothing in them either.
    nameless: HashSet<u32>,
}

/// The receiver's half of a session, from the end of the handshake.
#[derive(Debug)]
pub struct Receiver {
    /// Only file data is kept from us, for a batch file; all else comes as if it did.
    held_back: bool,
    n: Negotiated,
    facts: ReceiverFacts,
    inbox: Inbox,
    state: ReceiverState,
    ndx_in: NdxState,
    tokens: TokenReader,
    list: ListDecoder,
    segments: Segments<ListLimits>,
    dirs: Dirs,
    /// No segment will come any more.
    complete: bool,
    phase: u8,
    /// Payload lent with the last event.
    lent: usize,
}

impl Receiver {
    /// Goes on where the handshake ended.
    pub fn new(n: &Negotiated, facts: ReceiverFacts, inbox: Inbox) -> Self {
        let incremental = n.compat.has(Compat::INC_RECURSE);
        Self {
            held_back: false,
            n: *n,
            facts,
            inbox,
            state: ReceiverState::List(None),
            ndx_in: NdxState::new(n.ints()),
            tokens: TokenReader::new(n),
            list: ListDecoder::new(n, facts.shape, facts.limits),
            segments: Segments::new(incremental),
            dirs: Dirs::default(),
            complete: false,
            phase: 0,
            lent: 0,
        }
    }

    /// The sender keeps file data, and nothing else, for a batch file (`--only-write-batch`).
    pub fn data_is_held_back(&mut self) {
        self.held_back = true;
    }

    /// How much of the stream has been understood, without frames and messages.
    pub fn consumed(&self) -> u64 {
        self.inbox.consumed()
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        self.return_lent();
        self.inbox.feed(bytes)
    }

    /// The next event; `None` means: feed me. Literals are lent, not copied.
    pub fn poll(&mut self) -> Result<Option<ReceiverEvent<'_>>, PeerError> {
        self.return_lent();
        self.inbox.start_mux()?;
        loop {
            let next = match self.state {
                ReceiverState::Tokens => self.token(),
                _ => self.step().map(|event| event.map_or(Next::Nothing, Next::Event)),
            };
            match next {
                Ok(Next::Nothing) => {}
                Ok(Next::Event(event)) => return Ok(Some(event)),
                Ok(Next::Plain(len)) => {
                    self.lent = len;
                    return Ok(Some(ReceiverEvent::Literal(&self.inbox.payload()[..len])));
                }
                Ok(Next::Unpacked) => return Ok(Some(ReceiverEvent::Literal(self.tokens.unpacked()))),
                Err(Decode::Bad(error)) => return Err(error),
                Err(Decode::Incomplete) => {
                    return Ok(self.inbox.message_or_exit()?.map(ReceiverEvent::Message));
                }
            }
        }
    }

    /// Whether the bytes of matched blocks are due: one way of compressing looks back into them.
    pub fn wants_matched(&self) -> bool {
        self.tokens.wants_matched()
    }

    /// The bytes of the block that the last event named, of the length the file's head gives it; due after every
    /// [`ReceiverEvent::Copy`] where [`Receiver::wants_matched`], wrong ones rather than none.
    pub fn matched(&mut self, block: &[u8]) -> Result<(), PeerError> {
        self.tokens.matched(block)
    }

    /// True when the session has ended as it should.
    pub fn is_over(&self) -> bool {
        matches!(self.state, ReceiverState::Over)
    }

    /// The next of the client's filter rules, which come before the list at a server that needs them; `None` means:
    /// feed me.
    pub fn poll_rule(&mut self) -> Result<Option<WordEvent>, PeerError> {
        self.inbox.start_mux()?;
        self.inbox.poll_word(filter::decode)
    }

    fn return_lent(&mut self) {
        self.inbox.consume(std::mem::take(&mut self.lent));
    }

    /// A step through a file's tokens.
    fn token(&mut self) -> Result<Next, Decode> {
        let mut reader = self.inbox.reader();
        let event = self.tokens.step(&mut reader)?;
        let used = reader.position();
        self.inbox.consume(used);
        Ok(match event {
            TokenEvent::Nothing => Next::Nothing,
            TokenEvent::Plain(len) => Next::Plain(len),
            TokenEvent::Unpacked => Next::Unpacked,
            TokenEvent::Copy(block) => Next::Event(ReceiverEvent::Copy(block)),
            TokenEvent::End => {
                self.state = ReceiverState::FileSum;
                Next::Nothing
            }
        })
    }

    // One function, long as it is: what may come next is read off its arms, one for each state.
    fn step(&mut self) -> Result<Option<ReceiverEvent<'static>>, Decode> {
        let mut reader = self.inbox.reader();
        let event = match &mut self.state {
            ReceiverState::List(dir) => {
                let dir = *dir;
                let complete = self.list.step(&mut reader)?;
                let used = reader.position();
                self.inbox.consume(used);
                return Ok(if complete { Some(ReceiverEvent::List(self.listed(dir)?)) } else { None });
            }
            ReceiverState::Items if !self.complete && !self.n.compat.has(Compat::INC_RECURSE) => {
                self.complete = true;
                return Ok(Some(ReceiverEvent::ListEnd));
            }
            ReceiverState::Items => {
                let mut ndx_in = self.ndx_in.clone();
                match ndx_in.decode(&mut reader)? {
                    NdxValue::Index(ndx) => {
                        let (xattrs, dry_run) = (self.facts.shape.xattrs, self.facts.dry_run);
                        let lists = XattrLists::of(&self.n, xattrs, dry_run && !self.held_back, XattrListKind::Given);
                        let header = ItemHeader::decode_of(&self.n, &mut reader, lists)?;
                        if is_keep_alive(&self.n, ndx, &header, self.segments.next_start()) {
                            self.ndx_in = ndx_in;
                            let used = reader.position();
                            self.inbox.consume(used);
                            return Ok(None);
                        }
                        if self.segments.find(Ndx(ndx)).is_none() {
                            let expected = "an index within the file list";
                            return Err(PeerError::Range { what: "file index", value: ndx.into(), expected }.into());
                        }
                        if header.flags.has(ItemFlags::TRANSFER) && !self.facts.dry_run {
                            let head = SumHead::decode(&reader.array()?, self.n.checksum.size())?;
                            self.tokens.begin(head);
                            self.state = ReceiverState::Tokens;
                            self.ndx_in = ndx_in;
                            Some(ReceiverEvent::File(Ndx(ndx), header, head))
                        } else {
                            self.ndx_in = ndx_in;
                            Some(ReceiverEvent::Item(Ndx(ndx), header))
                        }
                    }
                    NdxValue::Done if self.segments.len() > 1 => {
                        if let Some(held) = self.segments.release() {
                            self.list.release(held);
                        }
                        Some(ReceiverEvent::SegmentDone)
                    }
                    NdxValue::Done if !self.complete => {
                        return Err(PeerError::Malformed("the end of a phase before the end of the list").into());
                    }
                    NdxValue::Done => {
                        self.phase += 1;
                        if self.phase == self.n.phases() {
                            self.state = match (self.facts.server, self.n.version) {
                                (false, _) => ReceiverState::Stats,
                                (true, version) => last_word(version),
                            };
                        }
                        Some(ReceiverEvent::PhaseDone(self.phase))
                    }
                    NdxValue::Segment(dir) if !self.complete => {
                        if !(self.dirs.unlisted.contains_key(&dir) || self.dirs.nameless.contains(&dir)) {
                            let expected = "a directory whose contents have not come yet";
                            return Err(
                                PeerError::Range { what: "listed directory", value: dir.into(), expected }.into()
                            );
                        }
                        self.ndx_in = ndx_in;
                        self.state = ReceiverState::List(Some(dir));
                        None
                    }
                    NdxValue::FlistEnd if !self.complete => {
                        self.ndx_in = ndx_in;
                        self.complete = true;
                        Some(ReceiverEvent::ListEnd)
                    }
                    NdxValue::Segment(_) | NdxValue::FlistEnd => {
                        return Err(PeerError::Malformed("a segment of a list that was complete").into());
                    }
                    NdxValue::DeleteStats => {
                        return Err(PeerError::Malformed("counts of deletions among the files").into());
                    }
                }
            }
            ReceiverState::FileSum => {
                let bytes = reader.take(self.n.checksum.size())?;
                self.state = ReceiverState::Items;
                Some(ReceiverEvent::End(Sum::new(bytes).ok_or(PeerError::Malformed("a whole-file sum"))?))
            }
            ReceiverState::Stats => {
                let stats = FinalStats::decode(&self.n, &mut reader)?;
                self.state = last_word(self.n.version);
                Some(ReceiverEvent::Stats(stats))
            }
            ReceiverState::LastDone => {
                let mut ndx_in = self.ndx_in.clone();
                match ndx_in.decode(&mut reader)? {
                    NdxValue::Done => {
                        self.state = ReceiverState::Over;
                        Some(ReceiverEvent::Goodbye)
                    }
                    NdxValue::DeleteStats => {
                        DeleteCounts::decode(&mut reader)?;
                        self.ndx_in = ndx_in;
                        None
                    }
                    _ => return Err(PeerError::Malformed("a file after the last phase").into()),
                }
            }
            ReceiverState::Goodbye => {
                self.state = ReceiverState::Over;
                Some(ReceiverEvent::Goodbye)
            }
            ReceiverState::Tokens | ReceiverState::Over => return Err(Decode::Incomplete),
        };
        let used = reader.position();
        self.inbox.consume(used);
        Ok(event)
    }

    /// Takes a list that has arrived, and the directories in it.
    fn listed(&mut self, dir: Option<u32>) -> Result<Arrived, PeerError> {
        let mut arrived = self.list.next_segment();
        let incremental = self.n.compat.has(Compat::INC_RECURSE);
        let mut parent = None;
        let nameless = dir.is_some_and(|dir| self.dirs.nameless.remove(&dir));
        match dir.and_then(|dir| self.dirs.unlisted.remove(&dir)) {
            Some(dir) => {
                arrived.list.check_children(&dir.name)?;
                self.list.release(ListLimits::of(&dir));
                parent = Some(dir);
            }
            None if !incremental => arrived.list.check_parents()?,
            // A directory that does not exist here has nothing in it.
            None if nameless && arrived.list.iter().next().is_some() => {
                return Err(PeerError::Malformed("a name that can be converted in a directory whose name cannot"));
            }
            None if nameless => {}
            None => {
                arrived.list.check_children(b".")?;
                parent = arrived.list.iter().next().map(|(_, entry)| entry).filter(|entry| entry.name == b".").cloned();
            }
        }
        if incremental {
            for (at, entry) in arrived.list.entries().iter().enumerate().filter(|(_, entry)| entry.is_dir()) {
                let alive = arrived.list.get(Ndx(arrived.list.start().0 + at as u32)).is_some();
                // The root's contents are those of the first segment.
                if alive && entry.name != b"." {
                    self.list.hold(ListLimits::of(entry))?;
                    self.dirs.unlisted.insert(self.dirs.next, entry.clone());
                } else if entry.name.is_empty() {
                    self.list.hold(ListLimits { entries: 1, ..ListLimits::NONE })?;
                    self.dirs.nameless.insert(self.dirs.next);
                }
                self.dirs.next += 1;
            }
        }
        arrived.list = arrived.list.of_dir(parent);
        self.segments.add(&arrived.list, arrived.held)?;
        self.state = ReceiverState::Items;
        Ok(arrived)
    }
}
