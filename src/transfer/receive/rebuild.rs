//! Files out of tokens: what the receiving thread does with all it hears. Counterpart: rsync's `recv_files`.

use super::Received;
use super::group::{self, Unsynced};
use super::incoming::{FileEnding, Incoming, WriteFailure};
use super::link_pace::LinkPace;
use super::lists::ReceivedLists;
use crate::disk::shown;
use crate::transfer::TransferError;
use crate::transfer::basis::Proposal;
use crate::transfer::batch;
use crate::transfer::conversation::LinkReader;
use crate::transfer::dest::{Dest, Further, Preserve};
use crate::transfer::generate::{Attempt, Board, BoardNote, FileFate, LARGE, Missed, ReceivingSide};
use crate::transfer::observer::{Item, ReceiveObserver};
use crate::transfer::plan::ReceivePlan;
use crate::transfer::sent::Sent;
use crate::transfer::target::Target;
use protocol::PeerError;
use protocol::args::Options;
use protocol::checksum::Sum;
use protocol::flist::{Arrived, FileEntry, LinkId, Ndx};
use protocol::handshake::Negotiated;
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::{Message, TextKind};
use protocol::receiver::{Receiver, ReceiverEvent};
use protocol::sums::{BlockIndex, SumHead};
use protocol::xattr::XattrList;
use std::sync::atomic::Ordering;

/// The receiver's work: files out of tokens.
pub(super) struct Rebuild<'a> {
    agreed: &'a Negotiated,
    lists: &'a mut ReceivedLists,
    target: &'a Target,
    plan: &'a ReceivePlan,
    options: &'a Options,
    board: &'a Board,
    observer: &'a dyn ReceiveObserver,
    /// The stream comes out of a batch file.
    replay: bool,
    /// The file that is passed over, of a batch that does not meet what is here.
    passing: Option<SumHead>,
    current: Option<Current<'a>>,
    /// Files that wait for the end of the transfer.
    delayed: Vec<(Arrival, Sent)>,
    /// Files that are to be on the disk before they count (`--fsync`).
    unsynced: Vec<(Arrival, Sent, Sum, Unsynced)>,
    received: &'a mut Received,
    block: Vec<u8>,
}

struct Current<'a> {
    arrival: Arrival,
    /// It was asked for the second time.
    again: bool,
    incoming: Incoming<'a>,
    /// How fast a large one comes.
    pace: Option<LinkPace>,
    /// It is over a basis.
    built: bool,
    /// Its length, where its basis was not worth reading.
    asked_whole: Option<u64>,
}

/// A file that comes in, with what was said of it.
struct Arrival {
    ndx: Ndx,
    header: ItemHeader,
    entry: FileEntry,
    head: SumHead,
    /// What of the session's stream came before its head.
    heard_before: u64,
}

impl Arrival {
    fn item(&self) -> Item<'_> {
        Item { ndx: self.ndx, entry: &self.entry, header: &self.header }
    }
}

impl<'a> Rebuild<'a> {
    /// Nothing has come yet. `replay`: the stream comes out of a batch file.
    pub(super) fn new(
        side: ReceivingSide<'a>,
        replay: bool,
        lists: &'a mut ReceivedLists,
        received: &'a mut Received,
    ) -> Self {
        let ReceivingSide { agreed, plan, target, board, observer, .. } = side;
        Self {
            agreed,
            lists,
            target,
            plan,
            options: &plan.options,
            board,
            observer,
            replay,
            passing: None,
            current: None,
            delayed: Vec::new(),
            unsynced: Vec::new(),
            received,
            block: Vec::new(),
        }
    }
}

impl Rebuild<'_> {
    /// Hears the sender to the end of the session.
    pub(super) fn run(&mut self, receiver: &mut Receiver, reader: &mut LinkReader) -> Result<(), TransferError> {
        let dest = self.target.again().filter(|_| !self.options.only_write_batch);
        let heard = self.hear(dest.as_ref(), receiver, reader);
        self.sync(dest.as_ref());
        if heard.is_err() {
            self.break_off(dest.as_ref());
        }
        heard
    }

    fn hear(
        &mut self,
        dest: Option<&Dest>,
        receiver: &mut Receiver,
        reader: &mut LinkReader,
    ) -> Result<(), TransferError> {
        while !receiver.is_over() {
            let Some(event) = receiver.poll()? else {
                // Nothing that is here already waits for what is not.
                self.sync(dest);
                let pace = self.current.as_mut().and_then(|current| {
                    Some((current.pace.as_mut()?, !self.board.is_summing(current.arrival.ndx), self.board.now()))
                });
                self.board.reads();
                let heard = reader.read()?;
                self.board.reads();
                if let Some((pace, counts, began)) = pace {
                    pace.read(began, self.board.now(), counts);
                }
                receiver.feed(heard)?;
                continue;
            };
            if let ReceiverEvent::PhaseDone(_) | ReceiverEvent::SegmentDone = event {
                self.sync(dest);
            }
            match event {
                ReceiverEvent::File(ndx, header, head) => {
                    let heard_before = receiver.consumed().saturating_sub(SumHead::SIZE);
                    let arrival = Arrival { ndx, header, entry: self.entry(ndx)?.clone(), head, heard_before };
                    match self.replay {
                        true => self.play(dest, arrival),
                        false => self.take_up(dest, arrival)?,
                    }
                }
                ReceiverEvent::Literal(bytes) => self.write(dest, bytes)?,
                ReceiverEvent::Copy(block) => {
                    self.copy(dest, block)?;
                    if receiver.wants_matched() {
                        receiver.matched(self.matched(block))?;
                    }
                }
                ReceiverEvent::End(sum) => {
                    if let Some(current) = &mut self.current {
                        let heard = receiver.consumed().saturating_sub(current.arrival.heard_before);
                        current.incoming.sent.wire_bytes = heard;
                    }
                    self.end(dest, &sum)?;
                }
                ReceiverEvent::Item(ndx, header) => self.hear_item(dest, ndx, header)?,
                ReceiverEvent::PhaseDone(phase) => {
                    self.give_up_missing(Missed::All);
                    if phase == 2 {
                        self.place_delayed(dest);
                    }
                    self.board.phase(phase);
                }
                ReceiverEvent::SegmentDone => {
                    self.give_up_missing(Missed::Segment);
                    self.lists.segments.release();
                    self.board.release();
                }
                ReceiverEvent::Message(message) => self.hear_message(&message)?,
                ReceiverEvent::Stats(stats) => self.observer.stats(&stats),
                ReceiverEvent::Goodbye => {}
                ReceiverEvent::List(arrived) => self.hear_list(arrived)?,
                ReceiverEvent::ListEnd => {
                    self.lists.complete = true;
                    self.board.note(BoardNote::ListEnd);
                }
            }
        }
        self.board.over();
        Ok(())
    }

    /// A file that was asked for begins to come in.
    fn take_up(&mut self, dest: Option<&Dest>, arrival: Arrival) -> Result<(), PeerError> {
        let Arrival { ndx, header, entry, .. } = &arrival;
        let attempt = self.board.take(*ndx).filter(|_| !header.flags.has(ItemFlags::LOCAL_CHANGE));
        let attempt = attempt.ok_or(PeerError::Malformed("data of a file that was not asked for"))?;
        let asked = self.board.proposals.take(*ndx).filter(|asked| asked.agrees(header));
        let asked = asked.ok_or(PeerError::Malformed("a file built upon another basis than was asked for"))?;
        self.observer.begins(&arrival.item());
        self.keep_values(entry, header.xattrs.clone())?;
        self.begin(dest, arrival, asked, attempt);
        Ok(())
    }

    /// The bytes of a block that is part of the file, or of one that is passed over.
    fn matched(&mut self, block: BlockIndex) -> &[u8] {
        if let Some(head) = &self.passing {
            self.block.clear();
            self.block.resize(head.block_len(block) as usize, 0);
        } else if let Some(current) = &self.current {
            current.incoming.block(block, &mut self.block);
        }
        &self.block
    }

    /// The sender tells of an entry without data.
    fn hear_item(&mut self, dest: Option<&Dest>, ndx: Ndx, header: ItemHeader) -> Result<(), PeerError> {
        if self.replay {
            self.board.catch_up();
        }
        let entry = self.entry_of_any_kind(ndx)?;
        self.observer.item(&Item { ndx, entry, header: &header });
        let has_values = header.flags.has(ItemFlags::XATTR);
        self.keep_values(entry, header.xattrs)?;
        if has_values {
            self.complete(dest, entry);
        }
        // The data of this one went into the client's batch file.
        let link = entry.extra.link;
        if self.options.only_write_batch && self.board.take(ndx).is_some() {
            self.board.proposals.take(ndx);
            self.settle(ndx, link, FileFate::Here);
        }
        Ok(())
    }

    fn hear_message(&mut self, message: &Message) -> Result<(), PeerError> {
        match *message {
            Message::IoError(bits) => {
                self.received.io_error |= bits;
                self.board.io_error.fetch_or(bits, Ordering::AcqRel);
            }
            Message::NoSend(ndx) => {
                let link = self.entry_of_any_kind(ndx)?.extra.link;
                let asked = self.board.proposals.take(ndx);
                if let Some(len) = asked.and_then(|asked| asked.asked_whole) {
                    self.board.whole_came(len);
                }
                if self.board.take(ndx).is_some() {
                    self.settle(ndx, link, FileFate::Missing);
                }
            }
            _ => self.observer.message(message),
        }
        Ok(())
    }

    /// The next segment of the list.
    fn hear_list(&mut self, arrived: Arrived) -> Result<(), TransferError> {
        let bytes = arrived.bytes;
        let list = self.lists.take(arrived, self.plan, self.received)?;
        self.lists.say(self.board);
        self.board.io_error.fetch_or(self.received.io_error, Ordering::AcqRel);
        self.observer.listed(&list, bytes);
        self.board.list(&list)?;
        Ok(())
    }

    /// Keeps values of extended attributes that the generator asked for.
    fn keep_values(&self, entry: &FileEntry, list: Option<XattrList>) -> Result<(), PeerError> {
        let Some(XattrList::Given(given)) = list else { return Ok(()) };
        let further = Further::of(entry, self.options);
        if given.is_empty() || further.is_some_and(|further| self.board.values.keep(&further, given)) || self.replay {
            return Ok(());
        }
        Err(PeerError::Malformed("values of extended attributes that nobody asked for"))
    }

    /// Sets the extended attributes that had to wait for their values.
    fn complete(&self, dest: Option<&Dest>, entry: &FileEntry) {
        let (Some(dest), Some(kind)) = (dest, entry.kind()) else { return };
        let Some(further) = Further::of(entry, self.options) else { return };
        if self.options.dry_run || !further.has_digests() {
            return;
        }
        let name = self.target.name(entry);
        let done = dest.set_further(name, &further, &self.board.values).and_then(|()| {
            // As stock does, all the rest with it, the fraction of a second too.
            let Some(found) = dest.stat(name)?.filter(|found| found.kind() == entry.kind() && !entry.is_dir()) else {
                return Ok(());
            };
            let wanted = dest.wanted(entry, &Preserve::of(self.options), Some(&found));
            dest.set_attrs(name, kind, &wanted.differing_from(&found, -1))
        });
        self.board.or_complain(done);
    }

    fn entry_of_any_kind(&self, ndx: Ndx) -> Result<&FileEntry, PeerError> {
        let expected = "a living entry of the list";
        self.lists.segments.get(ndx).ok_or(PeerError::Range { what: "file index", value: ndx.0.into(), expected })
    }

    fn entry(&self, ndx: Ndx) -> Result<&FileEntry, PeerError> {
        let expected = "a regular file of the list";
        let entry = self.lists.segments.get(ndx).filter(|entry| entry.is_file());
        entry.ok_or(PeerError::Range { what: "file index", value: ndx.0.into(), expected })
    }

    /// Whoever waits for a file is served, be it here or not.
    fn settle(&self, ndx: Ndx, link: Option<LinkId>, fate: FileFate) {
        match link.filter(|_| self.options.hard_links) {
            Some(_) => self.board.note(BoardNote::Linkable(ndx, fate)),
            None => self.board.close(ndx),
        }
    }

    fn begin(&mut self, dest: Option<&Dest>, arrival: Arrival, asked: Proposal, attempt: Attempt) {
        let name = self.target.name(&arrival.entry);
        let (asked_whole, built) = (asked.asked_whole, arrival.head.count > 0);
        let pace = (arrival.entry.len >= LARGE && !self.replay).then(LinkPace::new);
        let mut incoming = Incoming::new(self.agreed, self.options, name, asked, arrival.head);
        if let Some(Err(trouble)) = dest.map(|dest| incoming.open(dest, &arrival.entry)) {
            self.board.complain(&trouble);
        }
        let again = attempt == Attempt::Second;
        self.current = Some(Current { arrival, again, incoming, pace, built, asked_whole });
    }

    /// A file of a batch: taken if it is wanted here, and passed over if not.
    fn play(&mut self, dest: Option<&Dest>, arrival: Arrival) {
        self.board.catch_up();
        let Some(attempt) = self.board.take(arrival.ndx) else {
            self.pass_over(&arrival);
            return;
        };
        let asked = self.board.proposals.take(arrival.ndx).unwrap_or_default();
        // What follows upon another beginning is of no use.
        if asked.append && asked.head.basis_len() != arrival.head.basis_len() {
            self.pass_over(&arrival);
            self.received.failed += 1;
            self.settle(arrival.ndx, arrival.entry.extra.link, FileFate::Missing);
            return;
        }
        self.observer.begins(&arrival.item());
        // Values that are not wanted here do no harm.
        let _ = self.keep_values(&arrival.entry, arrival.header.xattrs.clone());
        self.begin(dest, arrival, asked, attempt);
    }

    fn pass_over(&mut self, arrival: &Arrival) {
        let text = batch::skipped(self.target.name(&arrival.entry));
        self.observer.message(&Message::Text(TextKind::Info, text));
        self.passing = Some(arrival.head);
    }

    /// A batch has no more for what has been asked for so far.
    fn give_up_missing(&mut self, which: Missed) {
        if !self.replay {
            if !self.agreed.tells_failures() {
                self.settle_unsent(which);
            }
            return;
        }
        loop {
            self.board.catch_up();
            let missed = self.board.give_up(which);
            if missed.is_empty() {
                return;
            }
            for (ndx, attempt) in missed {
                self.board.proposals.take(ndx);
                self.received.failed += 1;
                let Ok(entry) = self.entry_of_any_kind(ndx) else { continue };
                let link = entry.extra.link;
                if attempt == Attempt::First {
                    let text = batch::missing(self.target.name(entry));
                    self.observer.message(&Message::Text(TextKind::ErrorXfer, text));
                }
                self.settle(ndx, link, FileFate::Missing);
            }
        }
    }

    /// What did not come with its phase the sender could not send, and has said so to the user.
    fn settle_unsent(&mut self, which: Missed) {
        for (ndx, _) in self.board.give_up(which) {
            self.board.proposals.take(ndx);
            let Ok(entry) = self.entry_of_any_kind(ndx) else { continue };
            self.settle(ndx, entry.extra.link, FileFate::Missing);
        }
    }

    fn write(&mut self, dest: Option<&Dest>, bytes: &[u8]) -> Result<(), TransferError> {
        if self.passing.is_some() {
            return Ok(());
        }
        if let Some(current) = &mut self.current {
            if let Some(pace) = &mut current.pace {
                pace.bring(bytes.len() as u64);
            }
            match current.incoming.literal(dest, bytes, &mut self.block) {
                Ok(()) => {}
                Err(WriteFailure::File(trouble)) => self.board.complain(&trouble),
                Err(WriteFailure::Disk(error)) => return Err(error),
            }
        }
        self.observer.progress(bytes.len() as u64);
        Ok(())
    }

    fn copy(&mut self, dest: Option<&Dest>, block: BlockIndex) -> Result<(), TransferError> {
        if self.passing.is_some() {
            return Ok(());
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        match current.incoming.copy(dest, block, &mut self.block) {
            Ok(len) => self.observer.progress(len),
            Err(WriteFailure::File(trouble)) => self.board.complain(&trouble),
            Err(WriteFailure::Disk(error)) => return Err(error),
        }
        Ok(())
    }

    fn end(&mut self, dest: Option<&Dest>, sum: &Sum) -> Result<(), TransferError> {
        if self.passing.take().is_some() {
            return Ok(());
        }
        let Some(mut current) = self.current.take() else { return Ok(()) };
        if let Some(pace) = current.pace.take() {
            self.board.learn(pace.end(self.board.now()), current.built.then_some(current.incoming.sent));
        }
        if let Some(len) = current.asked_whole {
            self.board.whole_came(len);
        }
        let (ndx, link) = (current.arrival.ndx, current.arrival.entry.extra.link);
        if let Some(fate) = self.finish(dest, current, sum)? {
            self.settle(ndx, link, fate);
        }
        Ok(())
    }

    /// Puts a file in its place; `None` when it is asked for once more, or will be in its place only later.
    fn finish(
        &mut self,
        dest: Option<&Dest>,
        current: Current<'_>,
        sum: &Sum,
    ) -> Result<Option<FileFate>, TransferError> {
        let Current { arrival, again, incoming, .. } = current;
        let shown = shown(self.target.name(&arrival.entry));
        if self.options.only_write_batch {
            self.observer.received(&arrival.item(), &incoming.sent, sum);
            return Ok(Some(FileFate::Here));
        }
        let Some(dest) = dest else {
            self.received.failed += 1;
            return Ok(Some(FileFate::Missing));
        };
        let sent = incoming.sent;
        let ending = incoming.end(dest, &arrival.entry, &self.board.values, sum, &mut self.block);
        self.pass_words(dest);
        match ending {
            FileEnding::Done => {
                self.observer.received(&arrival.item(), &sent, sum);
                self.arrived(arrival.ndx, sent);
            }
            FileEnding::Delayed => {
                self.observer.received(&arrival.item(), &sent, sum);
                self.delayed.push((arrival, sent));
            }
            FileEnding::Unsynced(file) => {
                self.unsynced.push((arrival, sent, *sum, file));
                if self.unsynced.len() >= group::FILES_MOST {
                    self.sync(Some(dest));
                }
                return Ok(None);
            }
            FileEnding::Full(error) => return Err(error),
            FileEnding::Wrong(what) if again => {
                self.received.failed += 1;
                self.board.complain(&format!("ERROR: {shown} failed verification -- update {what}."));
                return Ok(Some(FileFate::Missing));
            }
            FileEnding::Wrong(what) => {
                self.observer.spoilt(&arrival.item(), &sent);
                let hope = if self.replay { "may" } else { "will" };
                let text = format!("WARNING: {shown} failed verification -- update {what} ({hope} try again).\n");
                self.board.note(BoardNote::Say(Message::Text(TextKind::Warning, text.into())));
                self.board.note(BoardNote::Redo(arrival.ndx));
                return Ok(None);
            }
            FileEnding::Failed(trouble) => {
                self.received.failed += 1;
                if let Some(trouble) = trouble {
                    self.board.complain(&trouble);
                }
                return Ok(Some(FileFate::Missing));
            }
        }
        Ok(Some(FileFate::Here))
    }

    /// Has files on the disk, and under their names, that are whole.
    fn sync(&mut self, dest: Option<&Dest>) {
        let Some(dest) = dest.filter(|_| !self.unsynced.is_empty()) else { return };
        let (mut told, mut files) = (Vec::new(), Vec::new());
        for (arrival, sent, sum, file) in std::mem::take(&mut self.unsynced) {
            told.push((arrival, sent, sum));
            files.push(file);
        }
        let names: Vec<_> = told.iter().map(|(arrival, ..)| self.target.name(&arrival.entry).to_vec()).collect();
        let placed = group::place(dest, &names, files);
        self.pass_words(dest);
        for ((arrival, sent, sum), placed) in told.into_iter().zip(placed) {
            let fate = match &placed {
                Ok(()) => {
                    self.observer.received(&arrival.item(), &sent, &sum);
                    self.arrived(arrival.ndx, sent);
                    FileFate::Here
                }
                Err(trouble) => {
                    self.received.failed += 1;
                    self.board.complain(trouble);
                    FileFate::Missing
                }
            };
            self.settle(arrival.ndx, arrival.entry.extra.link, fate);
        }
    }

    /// Lets the user hear of backups.
    fn pass_words(&self, dest: &Dest) {
        for words in dest.take_words() {
            self.board.note(BoardNote::Say(Message::Text(TextKind::Info, format!("{words}\n").into())));
        }
    }

    /// A file is whole and under its name.
    fn arrived(&mut self, ndx: Ndx, sent: Sent) {
        self.received.files += 1;
        self.received.bytes.literal_bytes += sent.literal_bytes;
        self.received.bytes.matched_bytes += sent.matched_bytes;
        if self.options.remove_source_files {
            self.board.note(BoardNote::Say(Message::Success(ndx)));
        }
    }

    /// Gives the files that were put aside their names (`--delay-updates`).
    fn place_delayed(&mut self, dest: Option<&Dest>) {
        for (arrival, sent) in std::mem::take(&mut self.delayed) {
            let name = self.target.name(&arrival.entry);
            let placed = dest.map_or(Ok(()), |dest| dest.place_delayed(name));
            dest.into_iter().for_each(|dest| self.pass_words(dest));
            match placed {
                Ok(()) => self.arrived(arrival.ndx, sent),
                Err(error) => {
                    self.received.failed += 1;
                    self.board.complain(&error.to_string());
                }
            }
        }
    }

    /// The session broke off: what there is of a file is kept, if the options ask for it.
    fn break_off(&mut self, dest: Option<&Dest>) {
        if let (Some(Current { arrival, incoming, .. }), Some(dest)) = (self.current.take(), dest)
            && let Err(error) = incoming.break_off(dest, &arrival.entry)
        {
            tracing::warn!("{error}");
        }
    }
}
