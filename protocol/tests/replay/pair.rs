//! Both ends of a session joined by buffers, without threads: entries and basis contents in memory.

use protocol::PeerError;
use protocol::checksum::{Checksum, FileHasher, Sum, weak};
use protocol::compress::Wish;
use protocol::delta::{Search, Token};
use protocol::flist::{FileEntry, FileList, IdNames, ListEncoder, ListLimits, ListShape, Ndx, Sorting};
use protocol::generator::Generator;
use protocol::handshake::{Handshake, Hello, Negotiated, Side};
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::{Inbox, Message, Outbox};
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts};
use protocol::sender::{FinalStats, Request, Sender, SenderEvent, SenderFacts};
use protocol::sums::{BlockIndex, StrongSums, SumHead};
use std::collections::{BTreeMap, BTreeSet};

/// A session to be held.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) version: u8,
    pub(crate) checksum: Checksum,
    pub(crate) letters: &'static [u8],
    /// The sending side is the client.
    pub(crate) push: bool,
    pub(crate) files: Vec<Planned>,
    pub(crate) seed: i32,
    pub(crate) compression: Wish,
}

/// A file of it.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    pub(crate) basis: Option<Vec<u8>>,
    /// The first attempt goes wrong on its way.
    pub(crate) damaged: bool,
    /// The sender cannot read it.
    pub(crate) declined: bool,
}

impl Plan {
    fn hello(&self, sending: bool) -> Hello {
        let (side, version) = if sending == self.push {
            (Side::Client, self.version)
        } else {
            // The older of the two decides.
            (Side::Server { letters: self.letters.to_vec(), seed: self.seed }, 32)
        };
        let choice = Some((self.checksum, self.checksum));
        Hello { choice, incremental: true, compression: self.compression, ..Hello::new(side, version) }
    }

    fn entries(&self) -> Vec<FileEntry> {
        let entry = |name: &str, mode, len| FileEntry { len, mtime: 1_700_000_000, ..FileEntry::new(name, mode) };
        let mut entries = vec![entry(".", 0o40755, 4096), entry("dir", 0o40700, 4096)];
        entries.extend(self.files.iter().map(|file| entry(&file.name, 0o100644, file.content.len() as u64)));
        entries
    }
}

/// The end that has the files.
pub(crate) struct Sending<'p> {
    plan: &'p Plan,
    list: FileList,
    greeting: Option<Handshake>,
    n: Option<Negotiated>,
    sender: Option<Sender>,
    /// A request whose sums are still to come.
    waiting: Option<Request>,
    pub(crate) out: Outbox,
    pub(crate) log: Vec<String>,
}

impl<'p> Sending<'p> {
    pub(crate) fn new(plan: &'p Plan) -> Self {
        let mut out = Outbox::new();
        let greeting = Some(Handshake::new(plan.hello(true), &mut out));
        let list = FileList::sorted(Sorting::of(plan.version), 0, plan.entries());
        Self { plan, list, greeting, n: None, sender: None, waiting: None, out, log: Vec::new() }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.sender.as_ref().is_some_and(Sender::is_over)
    }

    fn write_list(&mut self, n: &Negotiated) {
        let mut bytes = Vec::new();
        let mut encoder = ListEncoder::new(n, ListShape::default());
        self.list.entries().iter().for_each(|entry| encoder.entry(entry, &mut bytes));
        encoder.end(0, &IdNames::default(), &mut bytes);
        self.out.put(&bytes);
    }

    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        if let Some(sender) = &mut self.sender {
            sender.feed(bytes)?;
        } else if let Some(mut greeting) = self.greeting.take() {
            greeting.feed(bytes)?;
            let Some(n) = greeting.poll(&mut self.out)? else {
                self.greeting = Some(greeting);
                return Ok(());
            };
            self.log.push(format!("{n:?}"));
            let server = !self.plan.push;
            let facts = SenderFacts { server, dry_run: false, xattrs: false, append: false, sums_most: 1000 };
            let mut sender = Sender::new(&n, facts, greeting.into_inbox());
            sender.list(&self.list)?;
            self.sender = Some(sender);
            self.n = Some(n);
            if self.plan.push {
                self.write_list(&n);
            }
        }
        self.answer()
    }

    fn answer(&mut self) -> Result<(), PeerError> {
        let (Some(mut sender), Some(n)) = (self.sender.take(), self.n) else { return Ok(()) };
        let result = loop {
            let event = match &mut self.waiting {
                Some(request) => match sender.poll_sums(&mut request.sums, &mut self.out) {
                    Ok(None) if request.sums.remaining() > 0 => Ok(None),
                    Ok(None) => Ok(self.waiting.take().map(SenderEvent::Request)),
                    other => other.map(|message| message.map(SenderEvent::Message)),
                },
                None => sender.poll(&mut self.out),
            };
            match event {
                // What is declined is so while its sums still come.
                Ok(Some(SenderEvent::Request(request))) if request.sums.remaining() > 0 && !self.declines(&request) => {
                    self.waiting = Some(request);
                }
                Ok(Some(event)) => self.act(&n, &mut sender, event)?,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.sender = Some(sender);
        result
    }

    fn declines(&self, request: &Request) -> bool {
        let Some(file) = self.list.get(request.ndx) else { return true };
        self.plan.files.iter().any(|planned| planned.name.as_bytes() == file.name && planned.declined)
    }

    fn act(&mut self, n: &Negotiated, sender: &mut Sender, event: SenderEvent) -> Result<(), PeerError> {
        self.log.push(format!("{event:?}"));
        match event {
            SenderEvent::FiltersDone => self.write_list(n),
            SenderEvent::Request(request) => {
                // Garbage may ask for a directory.
                let Some(file) = self.list.get(request.ndx).filter(|entry| entry.is_file()) else {
                    sender.decline(&request, &mut self.out);
                    return Ok(());
                };
                let file = self.plan.files.iter().find(|planned| planned.name.as_bytes() == file.name).unwrap();
                if file.declined {
                    sender.decline(&request, &mut self.out);
                    return Ok(());
                }
                let mut damage = file.damaged && !request.redo;
                let mut reply = sender.begin(&request, false, &mut self.out);
                let out = &mut self.out;
                let mut emit = |token: Token<'_>| -> Result<(), PeerError> {
                    match token {
                        Token::Literal(bytes) if damage => {
                            let mut bytes = bytes.to_vec();
                            bytes[0] ^= 1;
                            damage = false;
                            reply.literal(&bytes, out).unwrap();
                        }
                        Token::Literal(bytes) => reply.literal(bytes, out).unwrap(),
                        Token::Copy(block, bytes) => reply.copy(block, bytes, out).unwrap(),
                    }
                    Ok(())
                };
                let mut search = Search::new(&request.sums, n.block_seed());
                search.push(&file.content, &mut emit)?;
                search.finish(&mut emit)?;
                reply.end(&sum_of(n.checksum, &file.content), &mut self.out).unwrap();
            }
            SenderEvent::AllDone => {
                sender.farewell(&FinalStats { total_size: 77, ..FinalStats::default() }, &mut self.out);
            }
            SenderEvent::Filter(_)
            | SenderEvent::Item(..)
            | SenderEvent::Values(..)
            | SenderEvent::SegmentDone
            | SenderEvent::PhaseDone
            | SenderEvent::Message(_)
            | SenderEvent::Deleted(_)
            | SenderEvent::Goodbye => {}
        }
        Ok(())
    }
}

pub(crate) fn sum_of(checksum: Checksum, content: &[u8]) -> Sum {
    let mut hasher = FileHasher::new(checksum);
    hasher.update(content);
    hasher.finish()
}

struct Building {
    ndx: Ndx,
    head: SumHead,
    basis: Vec<u8>,
    content: Vec<u8>,
    literal: bool,
}

/// The end that wants them.
pub(crate) struct Receiving<'p> {
    plan: &'p Plan,
    list: FileList,
    greeting: Option<Handshake>,
    n: Option<Negotiated>,
    receiver: Option<Receiver>,
    generator: Option<Generator>,
    asked: BTreeSet<Ndx>,
    pub(crate) out: Outbox,
    pub(crate) log: Vec<String>,
    building: Option<Building>,
    block: Vec<u8>,
    again: Vec<Ndx>,
    pub(crate) built: BTreeMap<String, Vec<u8>>,
    pub(crate) redone: usize,
    pub(crate) not_sent: BTreeSet<String>,
}

impl<'p> Receiving<'p> {
    pub(crate) fn new(plan: &'p Plan) -> Self {
        let mut out = Outbox::new();
        let greeting = Some(Handshake::new(plan.hello(false), &mut out));
        Self {
            plan,
            list: FileList::default(),
            greeting,
            n: None,
            receiver: None,
            generator: None,
            asked: BTreeSet::new(),
            out,
            log: Vec::new(),
            building: None,
            block: Vec::new(),
            again: Vec::new(),
            built: BTreeMap::new(),
            redone: 0,
            not_sent: BTreeSet::new(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.receiver.as_ref().is_some_and(Receiver::is_over)
    }

    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        if let Some(receiver) = &mut self.receiver {
            receiver.feed(bytes)?;
        } else if let Some(mut greeting) = self.greeting.take() {
            greeting.feed(bytes)?;
            let Some(n) = greeting.poll(&mut self.out)? else {
                self.greeting = Some(greeting);
                return Ok(());
            };
            self.log.push(format!("{n:?}"));
            self.start(&n, greeting.into_inbox());
        }
        let (Some(mut receiver), Some(n)) = (self.receiver.take(), self.n) else { return Ok(()) };
        let result = loop {
            match receiver.poll() {
                Ok(Some(event)) => {
                    let copied = matches!(event, ReceiverEvent::Copy(_));
                    self.act(&n, event);
                    if copied && let Err(error) = receiver.matched(&self.block) {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.receiver = Some(receiver);
        result
    }

    fn start(&mut self, n: &Negotiated, inbox: Inbox) {
        let limits = ListLimits { entries: 1000, name_bytes: 100_000, ..ListLimits::default() };
        let facts = ReceiverFacts { shape: ListShape::default(), limits, server: self.plan.push, dry_run: false };
        self.receiver = Some(Receiver::new(n, facts, inbox));
        self.generator = Some(Generator::new(n));
        self.n = Some(*n);
        if !self.plan.push {
            // No filter rules.
            self.out.put(&[0; 4]);
        }
    }

    fn act(&mut self, n: &Negotiated, event: ReceiverEvent<'_>) {
        if let ReceiverEvent::Literal(bytes) = event {
            let building = self.building.as_mut().unwrap();
            building.content.extend_from_slice(bytes);
            if !std::mem::replace(&mut building.literal, true) {
                self.log.push("Literal".into());
            }
            return;
        }
        self.log.push(format!("{event:?}"));
        if let Some(building) = &mut self.building {
            building.literal = false;
        }
        match event {
            ReceiverEvent::List(arrived) => {
                self.list = arrived.list;
                let root = ItemHeader { flags: ItemFlags::TIME, ..ItemHeader::default() };
                self.generator.as_mut().unwrap().item(Ndx(0), &root, &mut self.out);
                let files: Vec<_> = self.list.iter().filter(|(_, e)| e.is_file()).map(|(ndx, _)| ndx).collect();
                files.into_iter().for_each(|ndx| self.ask(n, ndx, false));
                self.generator.as_mut().unwrap().done(&mut self.out);
            }
            ReceiverEvent::File(ndx, _, head) => {
                self.asked.remove(&ndx);
                let basis = self.basis(ndx);
                self.building = Some(Building { ndx, head, basis, content: Vec::new(), literal: false });
            }
            ReceiverEvent::Copy(block) => {
                let Building { head, basis, content, .. } = self.building.as_mut().unwrap();
                // Garbage may copy what we do not have.
                let start = head.offset(block) as usize;
                let end = start + head.block_len(block) as usize;
                self.block = basis.get(start..end).unwrap_or_default().to_vec();
                content.extend_from_slice(&self.block);
            }
            ReceiverEvent::End(sum) => {
                let building = self.building.take().unwrap();
                if sum == sum_of(n.checksum, &building.content) {
                    let entry = self.list.get(building.ndx);
                    let name = entry.map(|entry| String::from_utf8_lossy(&entry.name).into_owned());
                    self.built.insert(name.unwrap_or_default(), building.content);
                } else {
                    self.log.push("wrong sum".into());
                    self.again.push(building.ndx);
                }
            }
            ReceiverEvent::PhaseDone(1) => {
                // Nobody says so before 30.
                for ndx in std::mem::take(&mut self.asked).into_iter().filter(|_| !n.tells_failures()) {
                    let entry = self.list.get(ndx);
                    self.not_sent.extend(entry.map(|entry| String::from_utf8_lossy(&entry.name).into_owned()));
                }
                for ndx in std::mem::take(&mut self.again) {
                    self.redone += 1;
                    self.ask(n, ndx, true);
                }
                let dones = n.phases() - 1 + u8::from(n.version >= 31);
                (0..dones).for_each(|_| self.generator.as_mut().unwrap().done(&mut self.out));
            }
            ReceiverEvent::Message(Message::NoSend(ndx)) => {
                let entry = self.list.get(ndx);
                self.not_sent.extend(entry.map(|entry| String::from_utf8_lossy(&entry.name).into_owned()));
            }
            ReceiverEvent::Goodbye => self.generator.as_mut().unwrap().done(&mut self.out),
            _ => {}
        }
    }

    fn basis(&self, ndx: Ndx) -> Vec<u8> {
        let entry = self.list.get(ndx);
        let file = self.plan.files.iter().find(|file| entry.is_some_and(|e| e.name == file.name.as_bytes()));
        file.and_then(|file| file.basis.clone()).unwrap_or_default()
    }

    fn ask(&mut self, n: &Negotiated, ndx: Ndx, full: bool) {
        let basis = self.basis(ndx);
        let head = match n.checksum {
            Checksum::None => SumHead::NONE,
            checksum => {
                let strong = if full { StrongSums::Whole } else { StrongSums::Short };
                SumHead::for_basis(basis.len() as u64, checksum.size(), strong, None)
            }
        };
        let header =
            ItemHeader { flags: ItemFlags::TRANSFER.with(ItemFlags::NEW, head.count == 0), ..ItemHeader::default() };
        self.asked.insert(ndx);
        self.generator.as_mut().unwrap().request(ndx, &header, &head, &mut self.out);
        for block in (0..head.count).map(BlockIndex) {
            let start = head.offset(block) as usize;
            let bytes = &basis[start..start + head.block_len(block) as usize];
            self.generator.as_mut().unwrap().sum(&head, weak(bytes), &n.block_seed().sum(bytes), &mut self.out);
        }
    }
}

/// What a session left behind.
pub(crate) struct Held {
    pub(crate) to_sending: Vec<u8>,
    pub(crate) to_receiving: Vec<u8>,
    pub(crate) sending_log: Vec<String>,
    pub(crate) receiving_log: Vec<String>,
    pub(crate) built: BTreeMap<String, Vec<u8>>,
    pub(crate) redone: usize,
    pub(crate) not_sent: BTreeSet<String>,
}

/// Holds a session, the bytes going over in pieces of `chunk`.
pub(crate) fn hold(plan: &Plan, chunk: usize) -> Held {
    let (mut sending, mut receiving) = (Sending::new(plan), Receiving::new(plan));
    let (mut to_sending, mut to_receiving) = (Vec::new(), Vec::new());
    loop {
        let there = sending.out.bytes().to_vec();
        sending.out.clear();
        let back = receiving.out.bytes().to_vec();
        receiving.out.clear();
        if there.is_empty() && back.is_empty() {
            break;
        }
        there.chunks(chunk).for_each(|bytes| receiving.hear(bytes).unwrap());
        back.chunks(chunk).for_each(|bytes| sending.hear(bytes).unwrap());
        to_receiving.extend(there);
        to_sending.extend(back);
    }
    assert!(sending.is_over() && receiving.is_over(), "{:?} {:?}", sending.log.last(), receiving.log.last());
    Held {
        to_sending,
        to_receiving,
        sending_log: sending.log,
        receiving_log: receiving.log,
        built: receiving.built,
        redone: receiving.redone,
        not_sent: receiving.not_sent,
    }
}
