//! All that is said and heard while files are sent, from the first filter rule to the goodbye.

use super::lists::Lists;
use super::reply::{Content, Reply};
use super::{Answer, Asked, Listing, OUT_MOST, SendPlan, Sent, Source, Watch};
use crate::link::Closer;
use crate::transfer::TransferError;
use crate::transfer::abort::{HANG_UP, within};
use crate::transfer::beneath::shown;
use crate::transfer::conversation::{LinkReader, LinkWriter};
use protocol::PeerError;
use protocol::filter::{self, RuleSet, Side};
use protocol::flist::{FileEntry, Ndx};
use protocol::handshake::Negotiated;
use protocol::item::ItemHeader;
use protocol::mux::{IO_GENERAL, IO_VANISHED, Inbox, Message, Outbox, TextKind};
use protocol::sender::{FinalStats, NameEvent, Sender, SenderEvent, SenderFacts};
use protocol::xattr::XattrList;
use std::io;
use std::time::Instant;

/// Bytes of a file read at once.
const READ_SIZE: usize = 256 * 1024;

/// The session's parts, lent for as long as it goes well.
pub(super) struct Line<'a> {
    pub(super) agreed: &'a Negotiated,
    pub(super) out: &'a mut Outbox,
    pub(super) reader: &'a mut LinkReader,
    pub(super) writer: &'a mut LinkWriter,
    pub(super) closer: &'a Closer,
}

/// The whole conversation; returns how many files were sent, and their bytes.
pub(super) fn converse<S: Source>(
    line: Line<'_>,
    inbox: Inbox,
    plan: &SendPlan,
    listing: impl FnOnce(Asked<'_>) -> Result<(Listing, S), TransferError>,
    watch: &mut dyn Watch,
) -> Result<(u64, Sent), TransferError> {
    let Line { agreed, out, reader, writer, closer } = line;
    let facts = SenderFacts {
        server: plan.server,
        dry_run: plan.dry_run,
        xattrs: plan.shape.xattrs,
        append: plan.append > 0,
        sums_most: if plan.whole_file { 0 } else { plan.sums_most() },
    };
    let mut sender = Sender::new(agreed, facts, inbox);
    if plan.names_from_peer {
        sender.expect_names();
    }
    if plan.only_batch {
        sender.hold_data_back();
    }
    let done = session(&mut sender, (agreed, out, reader, writer), plan, listing, watch);
    match done {
        // Who hangs up on us has said why before, and that has arrived.
        Err(error @ TransferError::Link(_)) if !plan.server => {
            Err(within(HANG_UP, closer, || last_words(&mut sender, reader, out, watch)).unwrap_or(error))
        }
        done => done,
    }
}

/// Hears what there is still to be heard of a peer that takes nothing any more; with its exit code, where it gives one.
fn last_words(
    sender: &mut Sender,
    reader: &mut LinkReader,
    out: &mut Outbox,
    watch: &mut dyn Watch,
) -> Option<TransferError> {
    loop {
        match sender.poll(out) {
            Ok(Some(SenderEvent::Message(message))) => watch.message(&message),
            Ok(Some(_)) => out.clear(),
            Ok(None) => sender.feed(reader.read().ok()?).ok()?,
            Err(error @ PeerError::Exit(_)) => return Some(error.into()),
            Err(_) => return None,
        }
    }
}

/// The conversation as far as it goes well.
fn session<S: Source>(
    sender: &mut Sender,
    (agreed, out, reader, writer): (&Negotiated, &mut Outbox, &mut LinkReader, &mut LinkWriter),
    plan: &SendPlan,
    listing: impl FnOnce(Asked<'_>) -> Result<(Listing, S), TransferError>,
    watch: &mut dyn Watch,
) -> Result<(u64, Sent), TransferError> {
    if let Some(rules) = &plan.rules {
        out.put(&filter::encode(rules, Side::Receiver, agreed.version)?);
    }
    // What the receiving side deletes is its own affair.
    if writer.batch.is_some() {
        out.record();
    }
    let rules = if plan.server { filter_rules(plan, sender, reader, writer, out, watch)? } else { None };
    let started = Instant::now();
    let names = HeardNames { sender, reader, writer, out, watch };
    let mut names = names.into_iter(plan.names_from_peer);
    let listed = listing(Asked { rules, names: &mut names });
    if listed.is_ok() {
        names.try_for_each(|name| name.map(drop))?;
    }
    drop(names);
    pass_words(watch, out);
    let (listing, mut source) = listed?;
    let list_build_ms = started.elapsed().as_millis() as u64;
    let started = Instant::now();
    // An empty list ends a pull at once: the client has nothing to ask.
    let nothing = plan.server && listing.list.is_empty();
    let mut lists = Lists::new(agreed, plan);
    watch.listed(&listing.list);
    lists.first(listing, sender, out, writer)?;
    lists.look_ahead(&mut source, sender, out, writer, watch)?;
    writer.flush(out)?;
    let list_send_ms = started.elapsed().as_millis() as u64;

    let mut files = 0;
    let mut total = Sent::default();
    let mut buffer = vec![0; READ_SIZE];
    while !sender.is_over() && !nothing {
        lists.look_ahead(&mut source, sender, out, writer, watch)?;
        let Some(event) = sender.poll(out)? else {
            writer.flush(out)?;
            sender.feed(reader.read()?)?;
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
                        let bit = if error.kind() == io::ErrorKind::NotFound { IO_VANISHED } else { IO_GENERAL };
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
                    out.message(&Message::IoError(IO_GENERAL));
                    continue;
                }
                give_values(&source, request.ndx, entry, &mut request.header)?;
                let promised = source.promised(request.ndx);
                let content = Content { file, promised, store: plan.skip_compress.holds(&entry.name) };
                let mut reply =
                    Reply { agreed, plan, lists: &lists, source: &source, reader, watch, buffer: &mut buffer };
                match reply.send(sender, &mut request, entry, content, (out, writer))? {
                    Ok(sent) => {
                        files += 1;
                        total.literal_bytes += sent.literal_bytes;
                        total.matched_bytes += sent.matched_bytes;
                    }
                    Err(error) => {
                        source.broken_off(request.ndx, entry, &error);
                        watch.unreadable(request.ndx, &error);
                    }
                }
            }
            SenderEvent::Message(message) => hear_message(&message, &lists, &source, watch)?,
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
            SenderEvent::Deleted(counts) => watch.deleted(&counts),
            SenderEvent::SegmentDone => {
                lists.segments.release();
                source.release();
            }
            SenderEvent::AllDone => {
                let total_size = lists.total_size;
                let (read, written) = (reader.read, writer.written);
                sender.farewell(&FinalStats { read, written, total_size, list_build_ms, list_send_ms }, out);
            }
            SenderEvent::PhaseDone | SenderEvent::Goodbye => {}
            SenderEvent::Filter(_) | SenderEvent::FiltersDone => {
                return Err(PeerError::Malformed("filter rules after the list").into());
            }
        }
        pass_words(watch, out);
        if out.len() > OUT_MOST {
            writer.flush(out)?;
        }
    }
    writer.flush(out)?;
    Ok((files, total))
}

/// Hears a message.
pub(super) fn hear_message<S: Source>(
    message: &Message,
    lists: &Lists,
    source: &S,
    watch: &mut dyn Watch,
) -> Result<(), TransferError> {
    let Message::Success(ndx) = *message else {
        watch.message(message);
        return Ok(());
    };
    let expected = "an index within the file list";
    let unknown = PeerError::Range { what: "acknowledged index", value: ndx.0.into(), expected };
    source.finished(ndx, lists.segments.get(ndx).ok_or(unknown)?);
    watch.finished(ndx);
    Ok(())
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

/// The client's filter rules, which come first at a server that sends.
fn filter_rules(
    plan: &SendPlan,
    sender: &mut Sender,
    reader: &mut LinkReader,
    writer: &mut LinkWriter,
    out: &mut Outbox,
    watch: &mut dyn Watch,
) -> Result<Option<RuleSet>, TransferError> {
    let mut rules = plan.client_rules.clone();
    loop {
        match sender.poll(out)? {
            Some(SenderEvent::Filter(rule)) => rules.hear(&rule)?,
            Some(SenderEvent::FiltersDone) => return Ok(rules.finish()),
            Some(SenderEvent::Message(message)) => watch.message(&message),
            Some(_) => return Err(PeerError::Malformed("a request before the filter rules").into()),
            None => {
                writer.flush(out)?;
                sender.feed(reader.read()?)?;
            }
        }
    }
}

/// The names the peer has for us. They are heard one at a time, and what there is to say of each is said meanwhile: so
/// neither they nor the words pile up.
struct HeardNames<'a> {
    sender: &'a mut Sender,
    reader: &'a mut LinkReader,
    writer: &'a mut LinkWriter,
    out: &'a mut Outbox,
    watch: &'a mut dyn Watch,
}

impl HeardNames<'_> {
    fn into_iter(mut self, any: bool) -> impl Iterator<Item = Result<Vec<u8>, TransferError>> {
        let mut over = !any;
        std::iter::from_fn(move || {
            let name = if over { None } else { self.next().transpose() };
            over |= !matches!(name, Some(Ok(_)));
            name
        })
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, TransferError> {
        pass_words(self.watch, self.out);
        if self.out.len() > OUT_MOST {
            self.writer.flush(self.out)?;
        }
        loop {
            match self.sender.poll_name()? {
                Some(NameEvent::Name(name)) => return Ok(Some(name)),
                Some(NameEvent::End) => return Ok(None),
                Some(NameEvent::Message(message)) => self.watch.message(&message),
                None => {
                    self.writer.flush(self.out)?;
                    self.sender.feed(self.reader.read()?)?;
                }
            }
        }
    }
}

fn pass_words(watch: &mut dyn Watch, out: &mut Outbox) {
    while let Some(message) = watch.words() {
        out.message(&message);
    }
}
