//! Receives a list of files. Counterpart: rsync's `do_recv` and `recv_files`.
//!
//! Two threads share a session: the generator asks and writes, the receiver hears and rebuilds. They share only the
//! `Board`, so that hearing never waits for speaking.

mod expected;
mod group;
mod incoming;
mod link_pace;
mod lists;
mod rebuild;
mod threads;

use super::TransferError;
use super::abort::{await_hang_up, is_link, within};
use super::batch::Tap;
use super::conversation::{Conversation, LinkReader};
use super::dest::in_place;
use super::filters::{self, ClientRules};
use super::generate::{Board, BoardNote, Clock, DeltaChoice, Generate, ReceivingSide};
use super::observer::ReceiveObserver;
use super::plan::ReceivePlan;
use super::sent::Sent;
use super::target::{Target, enter, root};
use crate::link::Ending;
pub use expected::{Expected, Operands};
use lists::ReceivedLists;
use protocol::PeerError;
use protocol::filter::{self, RuleSet, RuleSide};
use protocol::generator::DeleteCounts;
use protocol::handshake::Compat;
use protocol::mux::{IO_DELETE_LIMIT, IO_GENERAL, Message, TextKind, WordEvent};
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts};
use rebuild::Rebuild;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use threads::{Threads, ThreadsEnded};

/// How long the generator may take to pass our last words on before the link is closed under it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a receiving session came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// Files rebuilt and renamed into place.
    pub files: u64,
    /// Their bytes.
    pub bytes: Sent,
    /// Files that could not be written or did not verify.
    pub failed: u64,
    /// Bits of trouble on the sending side, and whether the limit of deletions was reached.
    pub io_error: i32,
    /// What was deleted.
    pub deleted: DeleteCounts,
    /// Bytes written to the link.
    pub written_bytes: u64,
    /// Bytes read from the link.
    pub read_bytes: u64,
    /// How the far end's program ended (client only).
    pub ending: Option<Ending>,
}

impl Received {
    /// The bits of trouble of both sides.
    pub(crate) fn trouble(&self) -> i32 {
        self.io_error | if self.failed > 0 { IO_GENERAL } else { 0 }
    }
}

/// Receives what the peer sends into the plan's destination.
pub fn receive(
    conversation: Conversation,
    plan: &ReceivePlan,
    observer: &dyn ReceiveObserver,
) -> Result<Received, TransferError> {
    receive_judging(conversation, plan, observer, DeltaChoice::new, Arc::new(Instant::now))
}

/// The same, with what is known beforehand of bases and whether they are judged at all, and the clock for what they cost.
fn receive_judging(
    mut conversation: Conversation,
    plan: &ReceivePlan,
    observer: &dyn ReceiveObserver,
    choice: impl FnOnce(bool) -> DeltaChoice,
    clock: Clock,
) -> Result<Received, TransferError> {
    let mut session = Receiving::begin(&mut conversation, plan, observer)?;
    match session.prepare(&mut conversation) {
        Ok(Some(prepared)) => session.rebuild(conversation, prepared, choice, clock),
        Ok(None) => {
            let Conversation { reader, writer, .. } = conversation;
            let (written_bytes, read_bytes) = (writer.written, reader.read);
            drop(writer);
            let ending = reader.remote.wait(super::ENDING_PATIENCE);
            Ok(Received { written_bytes, read_bytes, ending, ..session.received })
        }
        Err(error) => Err(conversation.abort(error)),
    }
}

/// Names for the peer, as far as they are asked for.
type NamesToSend = Box<dyn Iterator<Item = Result<Vec<u8>, TransferError>> + Send>;

/// A session of ours with a sender.
struct Receiving<'a> {
    plan: &'a ReceivePlan,
    observer: &'a dyn ReceiveObserver,
    receiver: Receiver,
    received: Received,
    /// The peer's words are kept in a batch file.
    recorded: bool,
}

/// What is known once the first list is here.
struct Prepared {
    lists: ReceivedLists,
    rules: Option<RuleSet>,
    target: Target,
}

impl<'a> Receiving<'a> {
    /// Sends a client's rules.
    fn begin(
        conversation: &mut Conversation,
        plan: &'a ReceivePlan,
        observer: &'a dyn ReceiveObserver,
    ) -> Result<Self, TransferError> {
        let Conversation { server, replay, .. } = *conversation;
        let batch = conversation.batch.take();
        let recorded = batch.is_some();
        conversation.reader.tap = batch.map(|file| Tap::new(&conversation.inbox, file)).transpose()?;
        if !server {
            let rules = filter::encode(&plan.rules, RuleSide::Sender, conversation.agreed.version)?;
            conversation.writer.out.put(&rules);
            conversation.writer.flush()?;
        }
        let facts = ReceiverFacts {
            shape: plan.options.list_shape(conversation.agreed.list_checksum.size()),
            limits: plan.limits,
            server,
            // Beside a batch file data is sent, though nothing becomes of it here.
            dry_run: plan.options.dry_run && !replay && (server || !plan.options.only_write_batch),
        };
        let inbox = conversation.take_inbox();
        let mut receiver = Receiver::new(&conversation.agreed, facts, inbox);
        if plan.options.only_write_batch {
            receiver.data_is_held_back();
        }
        Ok(Self { plan, observer, receiver, received: Received::default(), recorded })
    }
}

impl Receiving<'_> {
    /// Hears the first list and finds where it goes; `None` where nothing comes. Of what goes wrong here the peer is to be
    /// told.
    fn prepare(&mut self, conversation: &mut Conversation) -> Result<Option<Prepared>, TransferError> {
        let options = &self.plan.options;
        let server = conversation.server;
        let names = self.names_to_send(server)?;
        let rules = match server {
            true => self.hear_rules(conversation.agreed.version, &mut conversation.reader)?,
            false => filters::of_receiving_client(&self.plan.rules, options),
        };
        let mut lists = ReceivedLists::new(&conversation.agreed, options)?;
        match names {
            None => self.hear_first_list(&mut conversation.reader, &mut lists)?,
            Some(names) => self.hear_first_list_of(names, conversation, &mut lists)?,
        }
        if lists.is_empty() && !server {
            return Ok(None);
        }
        if options.prune_empty_dirs {
            lists.prune(rules.as_ref(), &root(&self.plan.destination));
        }
        let (target, warnings) = enter(self.plan, lists.coming())?.filtering(rules.as_ref()).with_places(self.plan)?;
        for warning in warnings {
            let text = format!("{warning}\n").into();
            conversation.writer.out.message(&Message::Text(TextKind::Warning, text));
        }
        Ok(Some(Prepared { lists, rules, target }))
    }

    /// The names of `--files-from` that the peer has to hear of us, if any.
    fn names_to_send(&self, server: bool) -> Result<Option<NamesToSend>, TransferError> {
        let Some(name) = self.plan.options.files_from.as_deref().filter(|name| server == (*name != b"-")) else {
            return Ok(None);
        };
        Ok(Some(match (server, &self.plan.asked) {
            (false, Some(names)) => Box::new(std::iter::once(Ok(names.clone()))),
            _ => Box::new(filters::names_to_say(name, &self.plan.options)?),
        }))
    }

    /// The client's filter rules, which come first where the server needs them.
    fn hear_rules(&mut self, version: u8, reader: &mut LinkReader) -> Result<Option<RuleSet>, TransferError> {
        let ReceivePlan { rules, known, options, .. } = self.plan;
        let mut rules = ClientRules::new(rules, options, RuleSide::Receiver, version).known(known);
        if !options.receiver_hears_rules(version) {
            return Ok(rules.finish());
        }
        loop {
            match self.receiver.poll_rule()? {
                Some(WordEvent::Word(rule)) => rules.hear(&rule)?,
                Some(WordEvent::End) => return Ok(rules.finish()),
                Some(WordEvent::Message(message)) => self.observer.message(&message),
                None => self.receiver.feed(reader.read()?)?,
            }
        }
    }

    /// Hears the first list. One with a single entry is not yet known to be all there is: the next segment, or the end,
    /// follows at once.
    fn hear_first_list(&mut self, reader: &mut LinkReader, lists: &mut ReceivedLists) -> Result<(), TransferError> {
        while !lists.complete && !lists.known_to_be_many() {
            match self.receiver.poll()? {
                Some(ReceiverEvent::List(arrived)) => {
                    let bytes = arrived.bytes;
                    let list = lists.take(arrived, self.plan, &mut self.received)?;
                    self.observer.listed(&list, bytes);
                }
                Some(ReceiverEvent::ListEnd) => lists.complete = true,
                Some(ReceiverEvent::Message(Message::IoError(bits))) => self.received.io_error |= bits,
                Some(ReceiverEvent::Message(message)) => self.observer.message(&message),
                Some(_) => return Err(PeerError::Malformed("a file before the list").into()),
                None => self.receiver.feed(reader.read()?)?,
            }
        }
        Ok(())
    }

    /// Hears the list of these names while they are sent: neither end may wait for the other to read before it goes on
    /// writing.
    fn hear_first_list_of(
        &mut self,
        names: NamesToSend,
        conversation: &mut Conversation,
        lists: &mut ReceivedLists,
    ) -> Result<(), TransferError> {
        let Conversation { agreed, reader, writer, closer, .. } = conversation;
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| writer.send_names(agreed, names));
            let heard = self.hear_first_list(reader, lists);
            let join = || sending.join().unwrap_or(Err(TransferError::Bug("file list")));
            let sent = if heard.is_err() { within(LAST_WORDS, closer, join) } else { join() };
            heard.and(sent)
        })
    }

    /// Has the generator ask for what is missing, and makes files of what comes.
    fn rebuild(
        self,
        mut conversation: Conversation,
        prepared: Prepared,
        choice: impl FnOnce(bool) -> DeltaChoice,
        clock: Clock,
    ) -> Result<Received, TransferError> {
        let Self { plan, observer, mut receiver, mut received, recorded } = self;
        let Prepared { mut lists, rules, target } = prepared;
        let options = &plan.options;
        let agreed = conversation.agreed;
        let settled = options.whole_file || options.no_whole_file || options.only_write_batch || in_place(options);
        // What is recorded is to be small, and a batch file or an old sender does not say what it leaves out.
        let judges = !settled && !recorded && !conversation.replay && agreed.version >= 30;
        let board = Board::new(agreed.compat.has(Compat::INC_RECURSE), choice(judges), clock);
        board.io_error.fetch_or(received.io_error, Ordering::AcqRel);
        for created in target.created.iter().filter(|_| options.tells_names()) {
            let text = [&created[..], b"\n"].concat();
            board.note(BoardNote::Say(Message::Text(TextKind::Info, text)));
        }
        lists.show(&board)?;
        let Conversation { server, replay, .. } = conversation;
        let side = ReceivingSide { agreed: &agreed, server, plan, target: &target, board: &board, observer };
        let generate = Generate { side, writer: conversation.writer, rules: rules.as_ref() };
        let mut work = Rebuild::new(side, replay, &mut lists, &mut received);
        let threads = Threads { board: &board, closer: &conversation.closer, server };
        let ThreadsEnded { heard, generated, writer } =
            threads.run(generate, || work.run(&mut receiver, &mut conversation.reader));
        if let Err(error) = heard {
            match writer {
                Some(writer) if !is_link(&error) => {
                    conversation.writer = writer;
                    conversation.hear_out();
                }
                _ => await_hang_up(&mut conversation.reader, &conversation.closer),
            }
            // Whoever failed first closed the link, and the other's complaint is only its echo.
            return Err(match (error, generated) {
                (heard, Err(TransferError::Echo)) => heard,
                (_, Err(bug @ TransferError::Bug(_))) => bug,
                (TransferError::Link(_) | TransferError::Remote { .. }, Err(generated)) => generated,
                (heard, _) => heard,
            });
        }
        let generated = generated?;
        received.failed += generated.failed;
        received.deleted = generated.deleted;
        if generated.limited {
            received.io_error |= IO_DELETE_LIMIT;
        }
        (received.written_bytes, received.read_bytes) = (generated.written_bytes, conversation.reader.read);
        if !server {
            received.ending = conversation.reader.await_end()?;
        }
        Ok(received)
    }
}

#[cfg(test)]
mod tests;
