//! What a sender's side of a conversation hears and says before and beside the files.

use super::OUT_MOST;
use crate::transfer::TransferError;
use crate::transfer::conversation::Conversation;
use crate::transfer::observer::SendObserver;
use crate::transfer::plan::SendPlan;
use protocol::PeerError;
use protocol::filter::RuleSet;
use protocol::mux::WordEvent;
use protocol::sender::{Sender, SenderEvent, SenderFacts};

/// A session of ours with a receiving side.
pub(super) struct SenderSide<'a> {
    pub(super) conversation: &'a mut Conversation,
    pub(super) sender: Sender,
    pub(super) plan: &'a SendPlan,
    pub(super) observer: &'a mut dyn SendObserver,
}

impl<'a> SenderSide<'a> {
    /// Nothing has been said.
    pub(super) fn new(
        conversation: &'a mut Conversation,
        plan: &'a SendPlan,
        observer: &'a mut dyn SendObserver,
    ) -> Self {
        let facts = SenderFacts {
            server: conversation.server,
            dry_run: plan.dry_run,
            xattrs: plan.shape.xattrs,
            append: plan.append > 0,
            sums_most: if plan.whole_file { 0 } else { plan.sums_most() },
        };
        let inbox = conversation.take_inbox();
        let mut sender = Sender::new(&conversation.agreed, facts, inbox);
        if plan.names_from_peer {
            sender.expect_names();
        }
        if plan.only_batch {
            sender.hold_data_back();
        }
        Self { conversation, sender, plan, observer }
    }
}

impl SenderSide<'_> {
    /// The client's filter rules, which come first at a server that sends.
    pub(super) fn filter_rules(&mut self) -> Result<Option<RuleSet>, TransferError> {
        let mut rules = self.plan.client_rules.clone();
        loop {
            match self.sender.poll(&mut self.conversation.writer.out)? {
                Some(SenderEvent::Filter(rule)) => rules.hear(&rule)?,
                Some(SenderEvent::FiltersDone) => return Ok(rules.finish()),
                Some(SenderEvent::Message(message)) => self.observer.message(&message),
                Some(_) => return Err(PeerError::Malformed("a request before the filter rules").into()),
                None => self.sender.feed(self.conversation.exchange()?)?,
            }
        }
    }

    /// The names the peer has for us. They are heard one at a time, and what there is to say of each is said meanwhile: so
    /// neither they nor the words pile up.
    pub(super) fn names(&mut self) -> impl Iterator<Item = Result<Vec<u8>, TransferError>> {
        let mut over = !self.plan.names_from_peer;
        std::iter::from_fn(move || {
            let name = if over { None } else { self.next_name().transpose() };
            over |= !matches!(name, Some(Ok(_)));
            name
        })
    }

    fn next_name(&mut self) -> Result<Option<Vec<u8>>, TransferError> {
        self.pass_words();
        self.conversation.writer.flush_beyond(OUT_MOST)?;
        loop {
            match self.sender.poll_name()? {
                Some(WordEvent::Word(name)) => return Ok(Some(name)),
                Some(WordEvent::End) => return Ok(None),
                Some(WordEvent::Message(message)) => self.observer.message(&message),
                None => self.sender.feed(self.conversation.exchange()?)?,
            }
        }
    }

    /// Passes on what the peer's user should hear.
    pub(super) fn pass_words(&mut self) {
        while let Some(message) = self.observer.words() {
            self.conversation.writer.out.message(&message);
        }
    }

    /// Hears what there is still to be heard of a peer that takes nothing any more; with its exit code, where it gives one.
    pub(super) fn last_words(&mut self) -> Option<TransferError> {
        loop {
            let out = &mut self.conversation.writer.out;
            match self.sender.poll(out) {
                Ok(Some(SenderEvent::Message(message))) => self.observer.message(&message),
                Ok(Some(_)) => out.clear(),
                Ok(None) => self.sender.feed(self.conversation.reader.read().ok()?).ok()?,
                Err(error @ PeerError::Exit(_)) => return Some(error.into()),
                Err(_) => return None,
            }
        }
    }
}
