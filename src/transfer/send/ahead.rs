//! Requests that others may answer, or that are answered ahead of their turn.
//!
//! The receiving side takes files in any order. So what is asked for may be sent elsewhere, or ahead of its turn; what is told
//! of it, and of all that came after it, keeps the order in which it was asked for.

use super::Source;
use super::outstanding::Due;
use super::sending::{Sending, wanted};
use super::side::SenderSide;
use crate::transfer::TransferError;
use crate::transfer::help::{Brought, Help, HelpFate, HelpTicket, OfferedFile};
use protocol::flist::Kind;
use protocol::mux::Message;
use protocol::sender::{Request, SenderEvent};

/// A file of at most so many bytes is sent here though a helper could: while it goes, nothing more is heard.
const SMALL: u64 = 256 * 1024;
/// Files that must wait for helpers, for a larger one to be sent here.
const PLENTY: usize = 16;

impl<S: Source> Sending<'_, '_, S> {
    /// Puts a wanted file up for others, or answers, at once or when it is its turn.
    pub(super) fn hear(&mut self, event: SenderEvent) -> Result<(), TransferError> {
        let event = match event {
            SenderEvent::Request(request) => match self.offer(&request)? {
                Some(ticket) => {
                    self.side.sender.put_off();
                    self.outstanding.due.push_back(Due::Offered(request, ticket));
                    return Ok(());
                }
                None if self.outstanding.is_empty() => SenderEvent::Request(request),
                None => {
                    let sent = self.send_ahead(request)?;
                    self.outstanding.due.push_back(sent);
                    return Ok(());
                }
            },
            event => event,
        };
        let keeps_its_turn = matches!(
            event,
            SenderEvent::Item(..)
                | SenderEvent::SegmentDone
                | SenderEvent::Message(Message::Text(..) | Message::Deleted(_))
        );
        if keeps_its_turn && !self.outstanding.is_empty() {
            self.outstanding.due.push_back(Due::Other(event));
            return Ok(());
        }
        self.answer(event)
    }

    /// Puts a file up that has no basis and one name, where there is anybody to send it.
    fn offer(&self, request: &Request) -> Result<Option<HelpTicket>, TransferError> {
        let Some(help) = self.outstanding.help.as_ref().filter(|help| help.is_there()) else { return Ok(None) };
        let entry = wanted(&self.lists, request.ndx)?;
        let plain = entry.kind() == Some(Kind::File) && entry.extra.link.is_none() && request.header.xattrs.is_none();
        // A file alone may get another name over there.
        let among_others = help.is_for_a_lone_file() || self.lists.segments.iter().any(|list| list.len() > 1);
        if !plain || !among_others || request.redo || request.append || request.sums.head().count > 0 {
            return Ok(None);
        }
        let open = self.source.apart(request.ndx, entry);
        Ok(open.map(|open| help.offer(OfferedFile { entry: entry.clone(), open })))
    }

    /// Sends a file that is not for others, or waits for the peer and for what becomes of those that are.
    pub(super) fn go_on(&mut self) -> Result<(), TransferError> {
        let Some(help) = self.outstanding.help.clone() else { return Ok(()) };
        let all_known = self.side.sender.phase_waits() || self.outstanding.is_full();
        let enough = all_known || help.waiting(PLENTY) >= PLENTY;
        let (alone, lone) = (!help.is_there(), help.is_for_a_lone_file());
        let may = |file: &OfferedFile| alone || (!lone && (enough || file.entry.len <= SMALL));
        let Some(ticket) = help.take_back(may) else { return self.wait(&help) };
        help.settle(ticket);
        let offered = |step: &Due| matches!(step, Due::Offered(_, other) if *other == ticket);
        let Some(at) = self.outstanding.due.iter().position(offered) else { return Ok(()) };
        let Some(Due::Offered(request, _)) = self.outstanding.due.remove(at) else { return Ok(()) };
        self.side.sender.take_up();
        if at == 0 {
            return self.answer(SenderEvent::Request(request));
        }
        let sent = self.send_ahead(request)?;
        self.outstanding.due.insert(at, sent);
        Ok(())
    }

    /// Waits for the peer's bytes, or for what becomes of a file. The peer is to know that we are there.
    fn wait(&mut self, help: &Help<OfferedFile>) -> Result<(), TransferError> {
        let SenderSide { conversation, sender, plan, .. } = &mut *self.side;
        if conversation.writer.out.is_empty() {
            conversation.writer.out.keep_alive();
        }
        conversation.writer.flush()?;
        if self.outstanding.is_full() {
            help.rest(plan.silence_most());
        } else if let Some(bytes) = conversation.reader.read_or_news()? {
            sender.feed(bytes)?;
        }
        Ok(())
    }

    /// Tells what can be told by now.
    pub(super) fn tell_brought(&mut self) -> Result<(), TransferError> {
        while let Some(step) = self.outstanding.due.pop_front() {
            match step {
                Due::Offered(request, ticket) => {
                    let fate = self.outstanding.help.as_ref().map_or(HelpFate::Own, |help| help.fate(ticket));
                    let HelpFate::Brought(brought) = fate else {
                        self.outstanding.due.push_front(Due::Offered(request, ticket));
                        return Ok(());
                    };
                    self.outstanding.help.iter().for_each(|help| help.settle(ticket));
                    let SenderSide { conversation, sender, .. } = &mut *self.side;
                    sender.decline(&request, &mut conversation.writer.out);
                    sender.take_up();
                    self.count(&brought.sent);
                    self.tell(&request, Some(&brought))?;
                }
                Due::Sent(request, sent) => self.tell(&request, sent.as_ref())?,
                Due::Other(event) => self.answer(event)?,
            }
        }
        Ok(())
    }

    /// Tells of a file whose turn it is, as if it had been sent just now.
    fn tell(&mut self, request: &Request, sent: Option<&Brought>) -> Result<(), TransferError> {
        let entry = wanted(&self.lists, request.ndx)?;
        let observer = &mut *self.side.observer;
        observer.requested(entry, request);
        if let Some(Brought { sent, sum }) = sent {
            observer.progress(sent.literal_bytes + sent.matched_bytes);
            observer.sent(entry, request, sent, sum);
        }
        Ok(())
    }
}
