//! All that is said and heard while files are sent, from the first filter rule to the goodbye.

use super::lists::SentLists;
use super::outstanding::{Due, Outstanding, QuietObserver};
use super::reply::{Content, Reply, hear_message};
use super::side::SenderSide;
use super::{Asked, FileContent, Listing, OUT_MOST, Source};
use crate::disk::shown;
use crate::transfer::TransferError;
use crate::transfer::abort::{HANG_UP, within};
use crate::transfer::conversation::Conversation;
use crate::transfer::help::Brought;
use crate::transfer::observer::{Answer, Item, SendObserver};
use crate::transfer::sent::Sent;
use protocol::PeerError;
use protocol::filter::{self, RuleSet, RuleSide};
use protocol::flist::{FileEntry, Ndx};
use protocol::item::ItemHeader;
use protocol::mux::{IO_GENERAL, IO_VANISHED, Message, TextKind};
use protocol::sender::{FinalStats, Request, SenderEvent};
use protocol::xattr::XattrList;
use std::io;
use std::time::Instant;

/// Bytes of a file read at once.
const READ_SIZE: usize = 256 * 1024;

impl SenderSide<'_> {
    /// The whole conversation; returns how many files were sent, and their bytes.
    pub(super) fn converse<S: Source>(
        mut self,
        listing: impl FnOnce(Asked<'_>) -> Result<(Listing, S), TransferError>,
    ) -> Result<(u64, Sent), TransferError> {
        match self.list_and_answer(listing) {
            // Who hangs up on us has said why before, and that has arrived.
            Err(error @ TransferError::Link(_)) if !self.conversation.server => {
                let closer = self.conversation.closer.clone();
                Err(within(HANG_UP, &closer, || self.last_words()).unwrap_or(error))
            }
            done => done,
        }
    }

    /// The conversation as far as it goes well.
    fn list_and_answer<S: Source>(
        &mut self,
        listing: impl FnOnce(Asked<'_>) -> Result<(Listing, S), TransferError>,
    ) -> Result<(u64, Sent), TransferError> {
        if let Some(rules) = &self.plan.rules {
            let Conversation { agreed, writer, .. } = &mut *self.conversation;
            writer.out.put(&filter::encode(rules, RuleSide::Receiver, agreed.version)?);
        }
        // What the receiving side deletes is its own affair.
        if self.conversation.writer.batch.is_some() {
            self.conversation.writer.out.record();
        }
        let rules = if self.conversation.server { self.filter_rules()? } else { None };
        let started = Instant::now();
        let (listing, source) = self.list(rules, listing)?;
        let list_build_ms = started.elapsed().as_millis() as u64;
        let started = Instant::now();
        // An empty list ends a pull at once: the client has nothing to ask.
        let nothing = self.conversation.server && listing.list.is_empty();
        let lists = SentLists::new(&self.conversation.agreed, self.plan);
        let buffer = vec![0; READ_SIZE];
        let stats = FinalStats { list_build_ms, ..FinalStats::default() };
        let outstanding = Outstanding::new(self.plan.help.clone());
        let mut sending =
            Sending { side: self, lists, source, buffer, stats, files: 0, total: Sent::default(), outstanding };
        sending.send_list(listing)?;
        sending.stats.list_send_ms = started.elapsed().as_millis() as u64;
        if !nothing {
            sending.answer_all()?;
        }
        let (files, total) = (sending.files, sending.total);
        self.conversation.writer.flush()?;
        Ok((files, total))
    }

    /// Has the list made, of names that the peer has, if it has them.
    fn list<S: Source>(
        &mut self,
        rules: Option<RuleSet>,
        listing: impl FnOnce(Asked<'_>) -> Result<(Listing, S), TransferError>,
    ) -> Result<(Listing, S), TransferError> {
        let mut names = self.names();
        let listed = listing(Asked { rules, names: &mut names });
        if listed.is_ok() {
            names.try_for_each(|name| name.map(drop))?;
        }
        drop(names);
        self.pass_words();
        listed
    }
}

/// Files on their way, once they are listed.
pub(super) struct Sending<'s, 'a, S> {
    pub(super) side: &'s mut SenderSide<'a>,
    pub(super) lists: SentLists,
    pub(super) source: S,
    buffer: Vec<u8>,
    /// What the farewell tells.
    stats: FinalStats,
    /// Files sent, and their bytes.
    files: u64,
    total: Sent,
    /// What was heard behind a file that others may bring.
    pub(super) outstanding: Outstanding,
}

impl<S: Source> Sending<'_, '_, S> {
    fn send_list(&mut self, listing: Listing) -> Result<(), TransferError> {
        self.side.observer.listed(&listing.list);
        self.lists.first(listing, self.side)?;
        self.lists.look_ahead(&mut self.source, self.side)?;
        self.side.conversation.writer.flush()
    }

    fn answer_all(&mut self) -> Result<(), TransferError> {
        while !self.side.sender.is_over() {
            self.lists.look_ahead(&mut self.source, self.side)?;
            let SenderSide { conversation, sender, .. } = &mut *self.side;
            let event = if self.outstanding.is_full() { None } else { sender.poll(&mut conversation.writer.out)? };
            match event {
                Some(event) => {
                    match &event {
                        SenderEvent::Message(message) => conversation.reader.brought_message(message),
                        _ => conversation.reader.brought_on(),
                    }
                    self.hear(event)?;
                }
                None if self.outstanding.is_empty() => sender.feed(conversation.exchange()?)?,
                None => self.go_on()?,
            }
            self.tell_brought()?;
            self.side.pass_words();
            self.side.conversation.writer.flush_beyond(OUT_MOST)?;
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, event: SenderEvent) -> Result<(), TransferError> {
        let SenderSide { conversation, sender, plan, observer } = &mut *self.side;
        let out = &mut conversation.writer.out;
        match event {
            SenderEvent::Request(request) => {
                self.answer_request(request)?;
            }
            SenderEvent::Message(message) => hear_message(&message, &self.lists, &self.source, *observer)?,
            SenderEvent::Item(ndx, header) => {
                observer.item(&Item { ndx, entry: self.lists.reported(ndx)?, header: &header })
            }
            SenderEvent::Values(ndx, mut header) => {
                let entry = self.lists.reported(ndx)?;
                give_values(&self.source, ndx, entry, &mut header)?;
                sender.give(ndx, &header, out);
                observer.item(&Item { ndx, entry, header: &header });
            }
            SenderEvent::Deleted(counts) => observer.deleted(&counts),
            SenderEvent::SegmentDone => {
                self.lists.segments.release();
                self.source.release();
            }
            SenderEvent::AllDone => {
                if plan.tells_matches {
                    let words = matches(&self.total);
                    match conversation.server {
                        true => {
                            observer.told(&words);
                            conversation.writer.out.message(&words);
                        }
                        false => observer.message(&words),
                    }
                }
                let (read, written) = (conversation.reader.read, conversation.writer.written);
                let total_size = self.lists.total_size;
                let stats = FinalStats { read, written, total_size, ..self.stats };
                sender.farewell(&stats, &mut conversation.writer.out);
            }
            SenderEvent::PhaseDone | SenderEvent::Goodbye => {}
            SenderEvent::Filter(_) | SenderEvent::FiltersDone => {
                return Err(PeerError::Malformed("filter rules after the list").into());
            }
        }
        Ok(())
    }

    /// Sends a wanted file, or tells why not.
    fn answer_request(&mut self, request: Request) -> Result<(), TransferError> {
        let entry = wanted(&self.lists, request.ndx)?;
        let SenderSide { conversation, sender, observer, .. } = &mut *self.side;
        if observer.requested(entry, &request) == Answer::Decline {
            sender.decline(&request, &mut conversation.writer.out);
            return Ok(());
        }
        self.send_file(request, None).map(drop)
    }

    /// Sends a wanted file ahead of its turn: what there is to tell of it is told later.
    pub(super) fn send_ahead(&mut self, request: Request) -> Result<Due, TransferError> {
        let mut sent = None;
        let request = self.send_file(request, Some(&mut sent))?;
        Ok(Due::Sent(request, sent))
    }

    /// Sends a file, or tells why not; gives the request back. `ahead`: where to put what it came to, instead of telling it.
    fn send_file(
        &mut self,
        mut request: Request,
        ahead: Option<&mut Option<Brought>>,
    ) -> Result<Request, TransferError> {
        let Self { side, lists, source, buffer, .. } = self;
        let entry = wanted(lists, request.ndx)?;
        let SenderSide { conversation, sender, plan, observer } = &mut **side;
        let Conversation { agreed, reader, writer, .. } = &mut **conversation;
        let file = match source.open(request.ndx, entry) {
            Ok(file) => file,
            Err(error) => {
                let bit = if error.kind() == io::ErrorKind::NotFound { IO_VANISHED } else { IO_GENERAL };
                sender.decline(&request, &mut writer.out);
                writer.out.message(&Message::IoError(bit));
                observer.unreadable(request.ndx, &error);
                return Ok(request);
            }
        };
        if has_diminished(&file, entry, &request) {
            sender.decline(&request, &mut writer.out);
            let text = format!("skipped diminished file: {}\n", shown(&entry.name));
            writer.out.message(&Message::Text(TextKind::Warning, text.into()));
            writer.out.message(&Message::IoError(IO_GENERAL));
            return Ok(request);
        }
        give_values(source, request.ndx, entry, &mut request.header)?;
        let promised = source.promised(request.ndx);
        let content = Content { file, promised, store: plan.skip_compress.holds(&entry.name) };
        let mut recorder = ahead.map(|sent| QuietObserver::new(*observer, sent));
        let told: &mut dyn SendObserver = match &mut recorder {
            Some(recorder) => recorder,
            None => *observer,
        };
        let mut reply = Reply { agreed, plan, lists, source, reader, observer: told, buffer };
        match reply.send(sender, writer, &mut request, entry, content)? {
            Ok(sent) => self.count(&sent),
            Err(error) => {
                source.broken_off(request.ndx, entry, &error);
                observer.unreadable(request.ndx, &error);
            }
        }
        Ok(request)
    }

    /// A file has gone over.
    pub(super) fn count(&mut self, sent: &Sent) {
        self.files += 1;
        self.total.literal_bytes += sent.literal_bytes;
        self.total.matched_bytes += sent.matched_bytes;
        self.total.matches += sent.matches;
        self.total.false_alarms += sent.false_alarms;
    }
}

/// A regular file that the peer asks for.
pub(super) fn wanted(lists: &SentLists, ndx: Ndx) -> Result<&FileEntry, PeerError> {
    let expected = "a regular file of the list";
    let entry = lists.segments.get(ndx).filter(|entry| entry.is_file());
    entry.ok_or(PeerError::Range { what: "requested index", value: ndx.0.into(), expected })
}

/// What the search for known blocks came to. rsync: match_report
fn matches(total: &Sent) -> Message {
    let Sent { matches, false_alarms, literal_bytes, .. } = total;
    let hits = matches + false_alarms;
    let text =
        format!("total: matches={matches}  hash_hits={hits}  false_alarms={false_alarms} data={literal_bytes}\n");
    Message::Text(TextKind::Info, text.into())
}

/// Whether it has less than the receiving side has, or was promised: that is no file to append from.
fn has_diminished(file: &impl FileContent, entry: &FileEntry, request: &Request) -> bool {
    let there = if request.append { request.sums.head().basis_len() } else { 0 };
    request.append && file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() < entry.len.max(there))
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
