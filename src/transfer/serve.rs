//! The far end of a session: what `--server` does. Counterpart: rsync's `start_server`.

use super::filters::ClientRules;
use super::guard::Guard;
use super::scanned::{Scanned, SendSelection, Trouble};
use super::{
    Asked, Item, Names, ReceiveObserver, ReceivePlan, SendObserver, SendPlan, Sent, TransferError, filters, greet,
    offers, receive, send,
};
use crate::exit;
use crate::link::Link;
use crate::report::ledger::Transferred;
use crate::report::{self, Ledger};
use protocol::args::{Options, ServerArgs};
use protocol::checksum::Sum;
use protocol::filter::{RuleSet, RuleSide};
use protocol::flist::{FileEntry, FileList};
use protocol::handshake::{Hello, Side, VERSION_MOST};
use protocol::mux::{IO_GENERAL, Message, TextKind};
use protocol::sender::Request;
use std::cell::OnceCell;
use std::io;

/// What a served session came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Bits of trouble, as the protocol has them.
    pub io_error: i32,
}

impl Served {
    /// The exit code it is worth.
    pub fn exit_code(self) -> i32 {
        exit::of_trouble(self.io_error)
    }
}

/// Serves one session as the arguments say.
pub fn serve(args: &ServerArgs, link: Link) -> Result<Served, TransferError> {
    let ledger = Ledger::of_server(args).unwrap_or_else(|why| {
        report::complain(&why);
        None
    });
    let served =
        greet(link, hello(args, VERSION_MOST)?).and_then(|session| serve_session(args, session, None, ledger.as_ref()));
    if let (Some(ledger), Err(error)) = (&ledger, &served) {
        ledger.line(&format!("rsync error: {error} (code {})", error.exit_code()));
    }
    served
}

/// What a server with these arguments brings to the handshake.
pub(crate) fn hello(args: &ServerArgs, version: u8) -> Result<Hello, TransferError> {
    let options = &args.options;
    offers::check(options)?;
    let seed = options.checksum_seed.filter(|&seed| seed != 0).map_or_else(random_seed, Ok)?;
    let side = Side::Server { letters: args.capabilities.clone(), seed };
    Ok(offers::hello(side, version, options, args.sender))
}

/// Serves a session that has been greeted, in a module that keeps something to itself if there is a guard, and keeps the
/// ledger.
pub(crate) fn serve_session(
    args: &ServerArgs,
    mut session: super::Conversation,
    guard: Option<&Guard>,
    ledger: Option<&Ledger<'_>>,
) -> Result<Served, TransferError> {
    session.follow(&args.options)?;
    if let Some(ledger) = ledger {
        ledger.begins(&session.agreed);
    }
    let (served, bytes) = match args.sender {
        true => serve_sender(args, session, guard, ledger)?,
        false => serve_receiver(args, session, guard, ledger)?,
    };
    if let Some(ledger) = ledger {
        ledger.ends(bytes.0, bytes.1);
    }
    Ok(served)
}

/// Bytes that were written and read.
type Bytes = (u64, u64);

/// Hears a receiving session for its ledger.
struct Recorded<'a> {
    ledger: Option<&'a Ledger<'a>>,
}

impl ReceiveObserver for Recorded<'_> {
    fn listed(&self, list: &FileList, _bytes: u64) {
        self.ledger.inspect(|ledger| ledger.listed(list));
    }

    fn item(&self, item: &Item<'_>) {
        self.ledger.inspect(|ledger| ledger.changed(item.entry, item.header));
    }

    fn received(&self, item: &Item<'_>, sent: &Sent, sum: &Sum) {
        let (&Item { entry, header, .. }, bytes) = (item, sent.wire_bytes);
        self.ledger.inspect(|ledger| ledger.transferred(&Transferred { entry, header, bytes, sums: 0, sum }));
    }

    fn message(&self, message: &Message) {
        log_message(message);
    }

    fn told(&self, message: &Message) {
        self.ledger.inspect(|ledger| ledger.told(message));
    }
}

fn serve_receiver(
    args: &ServerArgs,
    session: super::Conversation,
    guard: Option<&Guard>,
    ledger: Option<&Ledger<'_>>,
) -> Result<(Served, Bytes), TransferError> {
    let destination = args.paths.first().map(Vec::as_slice).unwrap_or_default();
    let plan = ReceivePlan {
        guard: guard.cloned(),
        rules: args.rules.clone(),
        known: args.known.clone(),
        ..ReceivePlan::of(&args.options, destination)
    };
    let received = receive(session, &plan, &Recorded { ledger })?;
    Ok((Served { io_error: received.trouble() }, (received.written_bytes, received.read_bytes)))
}

/// A seed that the client cannot guess, so that nobody can prepare blocks that look alike.
fn random_seed() -> Result<i32, TransferError> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| TransferError::Local {
        what: "The system gives no random numbers".into(),
        source: io::Error::other(error.to_string()),
    })?;
    Ok(i32::from_le_bytes(bytes) | 1)
}

fn log_message(message: &Message) {
    if let Message::Text(_, text) = message {
        tracing::warn!("The client says: {}", text.escape_ascii());
    }
}

fn serve_sender(
    args: &ServerArgs,
    session: super::Conversation,
    guard: Option<&Guard>,
    ledger: Option<&Ledger<'_>>,
) -> Result<(Served, Bytes), TransferError> {
    // Folders in a list of names are meant with what is in them; that is not said of a server's options.
    let dirs = args.options.dirs || args.options.files_from.is_some();
    let options = &Options { dirs, ..args.options.clone() };
    let agreed = session.agreed;
    let plan = SendPlan {
        client_rules: ClientRules::new(&args.rules, options, RuleSide::Sender, agreed.version).known(&args.known),
        names_from_peer: options.files_from.as_deref() == Some(b"-"),
        ..SendPlan::of(options, &agreed)
    };
    let trouble = Trouble::new(options);
    let rules: OnceCell<Option<RuleSet>> = OnceCell::new();
    let listing = |mut asked: Asked<'_>| {
        let rules = rules.get_or_init(|| asked.rules.take()).as_ref();
        let names = match options.files_from.as_deref() {
            None => None,
            Some(b"-") => Some(asked.names_here(options)),
            Some(name) => Some(Box::new(filters::names_of_file(name, options.from0)?) as Box<Names<'_>>),
        };
        Scanned::list(SendSelection { paths: &args.paths, names, rules, guard }, options, &agreed, &trouble)
    };
    let mut observer = Report { trouble: &trouble, ledger };
    let summary = send(session, &plan, listing, &mut observer)?;
    Ok((Served { io_error: trouble.bits() }, (summary.written_bytes, summary.read_bytes)))
}

struct Report<'a> {
    trouble: &'a Trouble,
    ledger: Option<&'a Ledger<'a>>,
}

impl SendObserver for Report<'_> {
    fn listed(&mut self, list: &FileList) {
        self.ledger.inspect(|ledger| ledger.listed(list));
    }

    fn sent(&mut self, entry: &FileEntry, request: &Request, sent: &Sent, sum: &Sum) {
        let (header, bytes, sums) = (&request.header, sent.wire_bytes, request.sums.head().wire_len());
        self.ledger.inspect(|ledger| ledger.transferred(&Transferred { entry, header, bytes, sums, sum }));
    }

    fn item(&mut self, item: &Item<'_>) {
        self.ledger.inspect(|ledger| ledger.changed(item.entry, item.header));
    }

    fn words(&mut self) -> Option<Message> {
        let word = self.trouble.word()?;
        self.told(&word);
        Some(word)
    }

    fn told(&mut self, message: &Message) {
        self.ledger.inspect(|ledger| ledger.told(message));
    }

    fn message(&mut self, message: &Message) {
        if let Message::Text(TextKind::ErrorXfer, _) = message {
            self.trouble.add(IO_GENERAL);
        }
        log_message(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe;
    use protocol::flist::FileEntry;
    use protocol::flist::{IdNames, ListEncoder};
    use protocol::handshake::Handshake;
    use protocol::mux::Outbox;
    use std::io::Read;

    /// A client with a time limit that has nothing to say for a while must hear that we are still there.
    #[test]
    fn a_patient_client_is_kept_company() {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().to_str().unwrap().as_bytes();
        let words: [&[u8]; 5] = [b"--server", b"-te.LsfxCIvu", b"--timeout=1", b".", dest];
        let args = ServerArgs::parse(&words).unwrap();
        let (mut near, far) = pipe::pair();
        far.remote.end(crate::link::Ending::Lost("the client left".into()));
        let server = std::thread::spawn(move || serve(&args, far));
        let mut out = Outbox::new();
        let hello = Hello::new(Side::Client, 31);
        let mut handshake = Handshake::new(hello, &mut out);
        let mut byte = [0];
        let agreed = loop {
            near.writer.write_all(out.bytes()).unwrap();
            out.clear();
            near.reader.read_exact(&mut byte).unwrap();
            handshake.feed(&byte).unwrap();
            if let Some(agreed) = handshake.poll(&mut out).unwrap() {
                break agreed;
            }
        };
        let mut entry = FileEntry { len: 5, ..FileEntry::new("wanted", 0o100644) };
        let mut list = Vec::new();
        let mut encoder = ListEncoder::new(&agreed, args_shape());
        encoder.entry(&entry, &mut list);
        entry.name = b"wanted too".to_vec();
        encoder.entry(&entry, &mut list);
        encoder.end(0, &IdNames::default(), &mut list);
        out.put(&list);
        near.writer.write_all(out.bytes()).unwrap();
        loop {
            let mut header = [0; 4];
            near.reader.read_exact(&mut header).unwrap();
            if header == [0, 0, 0, 7] {
                break;
            }
            let mut frame = vec![0; usize::from(u16::from_le_bytes([header[0], header[1]]))];
            near.reader.read_exact(&mut frame).unwrap();
        }
        drop(near);
        assert!(server.join().unwrap().is_err());
    }

    fn args_shape() -> protocol::flist::ListShape {
        Options::default().list_shape(0)
    }
}
