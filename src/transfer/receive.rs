//! Receives a list of files. Counterpart: rsync's `do_recv` and `recv_files`.
//!
//! Two threads share a session: the generator asks and writes, the receiver hears and rebuilds. They share only the
//! `Board`, so that hearing never waits for speaking.

mod expected;
mod group;
mod incoming;
mod inflow;
mod lists;
mod rebuild;
mod target;

use super::TransferError;
use super::abort::{Parts, abort, await_hang_up, hear_out, is_link, within};
use super::batch::Tap;
use super::conversation::{Conversation, LinkReader};
use super::dest::{Preserve, in_place};
use super::filters::{self, ClientRules};
use super::generate::{Board, Generate, Note, Worth};
use super::guard::Guard;
use crate::link::Ending;
use crate::transfer::send::Sent;
pub use expected::{Expected, Operands};
use lists::Lists;
use protocol::PeerError;
use protocol::args::Options;
use protocol::checksum::Sum;
use protocol::chmod::Chmod;
use protocol::filter::{self, Rule, RuleSet, Side};
use protocol::flist::{FileEntry, FileList, ListLimits, Ndx};
use protocol::generator::DeleteCounts;
use protocol::handshake::Compat;
use protocol::item::ItemHeader;
use protocol::mux::{IO_DELETE_LIMIT, Message, TextKind};
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts, RuleEvent};
use protocol::sender::FinalStats;
use rebuild::Rebuild;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
pub(super) use target::Target;
use target::{enter, root};

/// How long the generator may take to pass our last words on before the link is closed under it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How to receive.
#[derive(Debug, Clone, Default)]
pub struct ReceivePlan {
    /// What the options ask for.
    pub options: Options,
    /// We are the server.
    pub server: bool,
    /// Where to, as rsync's destination argument: an existing directory is entered; with several files, or a slash at the end, a missing
    /// one is made; otherwise it names the single file.
    pub destination: PathBuf,
    /// How much file list is accepted.
    pub limits: ListLimits,
    /// The filter rules as the user gave them; of a server those for it alone, it hears the others from its client.
    pub rules: Vec<Rule>,
    /// The names to ask for, where `--files-from=-` tells the server that the client has them.
    pub asked: Option<Vec<u8>>,
    /// What the sender may list.
    pub expected: Expected,
    /// How much is said of names: 1 the directory that was made for the session, 2 what is up to date or left alone, too.
    pub names: u8,
    /// It is told where a large file is asked for whole though there is a basis (`--debug=deltasum`).
    pub tells_ways: bool,
    /// What a daemon's module keeps to itself.
    pub guard: Option<Guard>,
}

/// Hears how a receiving session goes; the generator and the receiver speak to it at the same time.
pub trait Witness: Sync {
    /// A list, or the next segment of it, is here; so many bytes it was on the wire.
    fn listed(&self, _list: &FileList, _bytes: u64) {}

    /// An entry of a list that is only to be shown.
    fn entry(&self, _entry: &FileEntry) {}

    /// An entry was changed here, or is to be in a dry run. Also told of unchanged ones where the options ask for it.
    fn item(&self, _ndx: Ndx, _entry: &FileEntry, _header: &ItemHeader) {}

    /// The data of a file begins.
    fn begins(&self, _ndx: Ndx, _entry: &FileEntry, _header: &ItemHeader) {}

    /// So many bytes of the file were rebuilt.
    fn progress(&self, _bytes: u64) {}

    /// The file is whole and in its place.
    fn received(&self, _ndx: Ndx, _entry: &FileEntry, _header: &ItemHeader, _sent: &Sent, _sum: &Sum) {}

    /// The file has come, but is not what it should be; it is asked for once more.
    fn spoilt(&self, _ndx: Ndx, _entry: &FileEntry, _header: &ItemHeader, _sent: &Sent) {}

    /// Words for the user, of the peer or of this side.
    fn message(&self, _message: &Message) {}

    /// Words that this side, a server, tells its client.
    fn told(&self, _message: &Message) {}

    /// The totals of a server that sends.
    fn stats(&self, _stats: &FinalStats) {}
}

impl<F: Fn(&Message) + Sync> Witness for F {
    fn message(&self, message: &Message) {
        self(message);
    }
}

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

/// Receives what the peer sends into the plan's destination.
pub fn receive(session: Conversation, plan: &ReceivePlan, witness: &dyn Witness) -> Result<Received, TransferError> {
    receive_knowing(session, plan, witness, Worth::new)
}

/// The same, with what is known beforehand of bases, and whether they are judged at all.
fn receive_knowing(
    session: Conversation,
    plan: &ReceivePlan,
    witness: &dyn Witness,
    worth: impl FnOnce(bool) -> Worth,
) -> Result<Received, TransferError> {
    let Conversation { agreed, inbox, mut out, mut reader, mut writer, closer, batch, replay } = session;
    let server = plan.server;
    let recorded = batch.is_some();
    reader.tap = batch.map(|file| Tap::new(&inbox, file)).transpose()?;
    if !server {
        out.put(&filter::encode(&plan.rules, Side::Sender, agreed.version)?);
        writer.flush(&mut out)?;
    }
    let facts = ReceiverFacts {
        shape: plan.options.list_shape(agreed.list_checksum.size()),
        limits: plan.limits,
        server,
        // Beside a batch file data is sent, though nothing becomes of it here.
        dry_run: plan.options.dry_run && !replay && (server || !plan.options.only_write_batch),
    };
    let mut receiver = Receiver::new(&agreed, facts, inbox);
    if plan.options.only_write_batch {
        receiver.data_is_held_back();
    }
    let mut received = Received::default();
    let forwarded = plan.options.files_from.as_deref().filter(|name| server == (*name != b"-"));
    let forwarded = match forwarded.map(|name| -> Result<Box<dyn Iterator<Item = _> + Send>, TransferError> {
        Ok(match (server, &plan.asked) {
            (false, Some(names)) => Box::new(std::iter::once(Ok(names.clone()))),
            _ => Box::new(filters::names_to_say(name, &plan.options)?),
        })
    }) {
        None => None,
        Some(Ok(names)) => Some(names),
        Some(Err(error)) => {
            return Err(abort(&agreed, error, server, Parts { out, writer, reader: &mut reader, closer: &closer }));
        }
    };
    let rules = match server {
        true => hear_rules(plan, agreed.version, &mut receiver, &mut reader, witness),
        false => Ok(filters::of_receiving_client(&plan.rules, &plan.options)),
    };
    let prepared = rules.and_then(|rules| Ok((rules, Lists::new(&agreed, &plan.options)?)));
    let (rules, mut lists) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            return Err(abort(&agreed, error, server, Parts { out, writer, reader: &mut reader, closer: &closer }));
        }
    };
    let heard = match forwarded {
        None => hear_lists(&mut receiver, &mut reader, &mut lists, plan, &mut received, witness),
        // Neither end may wait for the other to read before it goes on writing.
        Some(names) => std::thread::scope(|scope| {
            let (agreed, out, writer) = (&agreed, &mut out, &mut writer);
            let saying = scope.spawn(move || writer.send_names(agreed, names, out));
            let heard = hear_lists(&mut receiver, &mut reader, &mut lists, plan, &mut received, witness);
            let join = || saying.join().unwrap_or(Ok(()));
            let said = if heard.is_err() { within(LAST_WORDS, &closer, join) } else { join() };
            heard.and(said)
        }),
    };
    if let Err(error) = heard {
        return Err(abort(&agreed, error, server, Parts { out, writer, reader: &mut reader, closer: &closer }));
    }
    if lists.is_empty() && !plan.server {
        (received.written_bytes, received.read_bytes) = (writer.written, reader.read);
        drop(writer);
        received.ending = reader.remote.wait(super::ENDING_PATIENCE);
        return Ok(received);
    }
    if plan.options.prune_empty_dirs {
        lists.prune(rules.as_ref(), &root(&plan.destination));
    }
    let target = enter(plan, &lists).map(|target| target.filtering(rules.as_ref()));
    let target = match target.and_then(|target| target.with_places(plan)) {
        Ok((target, warnings)) => {
            for warning in warnings {
                out.message(&Message::Text(TextKind::Warning, format!("{warning}\n").into()));
            }
            target
        }
        Err(error) => {
            return Err(abort(&agreed, error, server, Parts { out, writer, reader: &mut reader, closer: &closer }));
        }
    };
    let options = &plan.options;
    let settled = options.whole_file || options.no_whole_file || options.only_write_batch || in_place(options);
    // What is recorded is to be small, and a batch file or an old sender does not say what it leaves out.
    let judges = !settled && !recorded && !replay && agreed.version >= 30;
    let board = Board::new(agreed.compat.has(Compat::INC_RECURSE), worth(judges));
    board.io_error.fetch_or(received.io_error, Ordering::AcqRel);
    for created in target.created.iter().filter(|_| plan.names > 0) {
        let text = [&created[..], b"\n"].concat();
        board.note(Note::Say(Message::Text(TextKind::Info, text)));
    }
    lists.show(&board)?;
    let rules = rules.as_ref();
    let generate = Generate { agreed: &agreed, target: &target, plan, board: &board, witness, out, writer, rules };
    let mut work = Rebuild::new(&agreed, plan, &target, &board, witness, &mut lists, &mut received);
    work.replay = replay;
    let (heard, spoken, writer) = std::thread::scope(|scope| {
        let (closer, board) = (&closer, &board);
        let (heard_out, hearing) = mpsc::channel::<()>();
        let generator = scope.spawn(move || {
            let (result, writer) = generate.run();
            match &result {
                // A peer that was told why hangs up itself.
                Ok(_) | Err(TransferError::Rules(_) | TransferError::Echo) => {}
                // One that takes nothing any more has said why, and is to be heard out.
                Err(TransferError::Link(_)) if !server => {
                    if hearing.recv_timeout(LAST_WORDS) == Err(mpsc::RecvTimeoutError::Timeout) {
                        closer.close();
                    }
                }
                Err(_) => closer.close(),
            }
            board.generator_left();
            // What the receiver has to say last, the peer hears as long as our stream is open.
            let writer = matches!(result, Err(TransferError::Echo)).then_some(writer);
            (result, writer)
        });
        let heard = work.run(&mut receiver, &mut reader);
        drop(heard_out);
        if let Err(error) = &heard {
            board.fail(error, server);
            if !board.wait_for_generator(LAST_WORDS) {
                closer.close();
            }
        }
        match generator.join() {
            Ok((spoken, writer)) => (heard, spoken, writer),
            Err(_) => {
                let text = "The generator thread panicked; please report this".into();
                (heard, Err(TransferError::Refused(text)), None)
            }
        }
    });
    match (&heard, writer) {
        (Err(error), Some(writer)) if !is_link(error) => hear_out(&agreed, server, writer, &mut reader, &closer),
        (Err(_), _) => await_hang_up(&mut reader, &closer),
        (Ok(()), _) => {}
    }
    // Whoever failed first closed the link, and the other's complaint is only its echo.
    match (heard, spoken) {
        (Err(heard), Err(TransferError::Echo)) => return Err(heard),
        (Err(TransferError::Link(_) | TransferError::Remote { .. }), Err(spoken)) => return Err(spoken),
        (Err(heard), _) => return Err(heard),
        (Ok(()), spoken) => {
            let generated = spoken?;
            received.failed += generated.failed;
            received.deleted = generated.deleted;
            if generated.limited {
                received.io_error |= IO_DELETE_LIMIT;
            }
            (received.written_bytes, received.read_bytes) = (generated.written_bytes, reader.read);
        }
    }
    if !plan.server {
        reader.read_to_end()?;
        received.ending = reader.remote.wait(super::ENDING_PATIENCE);
    }
    Ok(received)
}

/// The client's filter rules, which come first where the server needs them.
fn hear_rules(
    plan: &ReceivePlan,
    version: u8,
    receiver: &mut Receiver,
    reader: &mut LinkReader,
    witness: &dyn Witness,
) -> Result<Option<RuleSet>, TransferError> {
    let mut rules = ClientRules::new(&plan.rules, &plan.options, Side::Receiver, version);
    if !plan.options.receiver_hears_rules(version) {
        return Ok(rules.finish());
    }
    loop {
        match receiver.poll_rule()? {
            Some(RuleEvent::Rule(rule)) => rules.hear(&rule)?,
            Some(RuleEvent::End) => return Ok(rules.finish()),
            Some(RuleEvent::Message(message)) => witness.message(&message),
            None => receiver.feed(reader.read()?)?,
        }
    }
}

/// Hears the first list. One with a single entry is not yet known to be all there is: the next segment, or the end, follows
/// at once.
fn hear_lists(
    receiver: &mut Receiver,
    reader: &mut LinkReader,
    lists: &mut Lists,
    plan: &ReceivePlan,
    received: &mut Received,
    witness: &dyn Witness,
) -> Result<(), TransferError> {
    while !lists.complete && !lists.known_to_be_many() {
        match receiver.poll()? {
            Some(ReceiverEvent::List(arrived)) => {
                let bytes = arrived.bytes;
                let list = lists.take(arrived, plan, received)?;
                witness.listed(&list, bytes);
            }
            Some(ReceiverEvent::ListEnd) => lists.complete = true,
            Some(ReceiverEvent::Message(Message::IoError(bits))) => received.io_error |= bits,
            Some(ReceiverEvent::Message(message)) => witness.message(&message),
            Some(_) => return Err(PeerError::Malformed("a file before the list").into()),
            None => receiver.feed(reader.read()?)?,
        }
    }
    Ok(())
}

/// What `--chmod` asks for.
pub(super) fn chmod(options: &Options) -> Result<Option<Chmod>, TransferError> {
    let Some(text) = &options.chmod else { return Ok(None) };
    let bad =
        || TransferError::Usage(format!("Invalid argument passed to --chmod ({})", String::from_utf8_lossy(text)));
    Chmod::parse(text).map(Some).ok_or_else(bad)
}

/// Which attributes the options carry over.
pub(super) fn preserve(options: &Options) -> Preserve {
    Preserve {
        mtime: options.times,
        // Backups beside the files touch every directory.
        dir_times: !(options.omit_dir_times || options.backup && options.backup_dir.is_none()),
        symlink_times: !options.omit_link_times,
        perms: options.perms,
        executability: options.executability,
        owner: options.owner,
        group: options.group,
        atime: options.atimes > 0,
    }
}

#[cfg(test)]
mod tests;
