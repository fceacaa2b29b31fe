//! The far end of a session: what `--server` does. Counterpart: rsync's `start_server`.

use super::beneath::{reason, shown};
use super::generate::file_sum;
use super::source::{Hooks, Lister, ScanOptions, Severity, Walk};
use super::{Listing, ReceivePlan, SendPlan, Source, TransferError, Watch, greet, ids, receive, send};
use crate::link::Link;
use protocol::PeerError;
use protocol::args::{Options, ServerArgs};
use protocol::flist::{FileEntry, FileList, ListLimits, Ndx};
use protocol::handshake::{Compat, Hello, Offer, Side, VERSION_MOST};
use protocol::mux::{Message, TextKind};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What a served session came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Something could not be read or written: the session is only partly done.
    pub partial: bool,
    /// The only trouble was that files vanished.
    pub vanished: bool,
}

/// Serves one session as the arguments say.
pub fn serve(args: &ServerArgs, link: Link) -> Result<Served, TransferError> {
    serve_session(args, greet(link, hello(args, VERSION_MOST)?)?)
}

/// What a server with these arguments brings to the handshake.
pub(crate) fn hello(args: &ServerArgs, version: u8) -> Result<Hello, TransferError> {
    let options = &args.options;
    let seed = options.checksum_seed.filter(|&seed| seed != 0).map_or_else(random_seed, Ok)?;
    let side = Side::Server { letters: args.capabilities.clone(), seed };
    Ok(Hello {
        side,
        version,
        choice: options.checksum_choice,
        offer: Offer::Stock,
        incremental: options.incremental(!args.sender),
    })
}

/// Serves a session that has been greeted.
pub(crate) fn serve_session(args: &ServerArgs, session: super::Session) -> Result<Served, TransferError> {
    if args.sender { serve_sender(args, session) } else { serve_receiver(args, session) }
}

fn serve_receiver(args: &ServerArgs, session: super::Session) -> Result<Served, TransferError> {
    let options = &args.options;
    let destination = args.paths.first().map(|path| PathBuf::from(OsStr::from_bytes(path))).unwrap_or_default();
    let plan = ReceivePlan { options: options.clone(), server: true, destination, limits: list_limits(options) };
    let received = receive(session, &plan, &mut log_message)?;
    Ok(Served { partial: received.failed > 0 || received.io_error & 1 != 0, vanished: received.io_error & 2 != 0 })
}

/// How much file list is accepted: our own bounds, or less if the options say so.
fn list_limits(options: &Options) -> ListLimits {
    let limits = ListLimits::default();
    match options.max_alloc.and_then(|bytes| usize::try_from(bytes).ok()) {
        Some(bytes) if bytes > 0 => ListLimits { name_bytes: limits.name_bytes.min(bytes), ..limits },
        _ => limits,
    }
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

fn serve_sender(args: &ServerArgs, session: super::Session) -> Result<Served, TransferError> {
    let options = &args.options;
    let sum_size = session.n.list_checksum.size();
    let list_checksum = session.n.list_checksum;
    let plan = SendPlan {
        shape: options.list_shape(sum_size),
        server: true,
        dry_run: options.dry_run,
        whole_file: options.whole_file,
        in_place: super::dest::in_place(options),
        append: options.append,
        max_alloc: options.max_alloc.unwrap_or(0),
    };
    let paths: Vec<_> = args.paths.iter().map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
    let incremental = session.n.compat.has(Compat::INC_RECURSE);
    let trouble = Trouble::default();
    let mut report = |severity: Severity, text: String| match severity {
        Severity::Info => trouble.say(TextKind::Info, &text),
        Severity::Warning => trouble.say(TextKind::Warning, &text),
        Severity::Error => trouble.say(TextKind::ErrorXfer, &format!("rsync: [sender] {text}")),
    };
    let mut sum = |file: &mut File| file_sum(file, list_checksum).map(Some);
    let hooks = Hooks { report: &mut report, sum: if options.checksum { Some(&mut sum) } else { None }, keep: None };
    let listing = |rules: Vec<Vec<u8>>| {
        if let Some(rule) = rules.first() {
            return Err(TransferError::Refused(format!(
                "Filter rules are not supported yet: {:?}",
                rule.escape_ascii().to_string()
            )));
        }
        let mut lister = Lister::new(Walk::new(&scan_options(options), hooks), incremental);
        let list = if incremental { lister.first(&paths) } else { lister.whole(&paths) };
        let list = list.map_err(|error| TransferError::Refused(error.to_string()))?;
        let mut source = Scanned { lister, options, told: ids::Told::default(), trouble: &trouble };
        Ok((source.listing(list), source))
    };
    let mut watch = Report { trouble: &trouble };
    send(session, &plan, listing, &mut watch)?;
    let trouble = trouble.bits.get();
    Ok(Served { partial: trouble & 1 != 0, vanished: trouble & 2 != 0 })
}

fn scan_options(options: &Options) -> ScanOptions {
    ScanOptions {
        recurse: options.recurse,
        dirs: options.dirs,
        relative: options.relative,
        one_file_system: options.one_file_system > 0,
        // Listed whatever the options say: the receiving side reports what it skips.
        links: true,
        copy_links: options.copy_links,
        copy_dirlinks: options.copy_dirlinks,
        devices: true,
        specials: true,
        ignore_missing_args: false,
        hard_links: options.hard_links,
    }
}

/// What went wrong while sending; shared by the list's making, the source and the watch.
#[derive(Default)]
struct Trouble {
    /// As in [`Listing::io_error`].
    bits: Cell<i32>,
    /// Words for the client's user.
    words: RefCell<VecDeque<Message>>,
    /// Full path of the file that was opened last.
    current: RefCell<String>,
}

impl Trouble {
    fn add(&self, bits: i32) {
        self.bits.set(self.bits.get() | bits);
    }

    fn say(&self, kind: TextKind, text: &str) {
        self.words.borrow_mut().push_back(Message::Text(kind, format!("{text}\n").into()));
    }
}

/// Files found by a walk.
struct Scanned<'a> {
    lister: Lister<'a>,
    options: &'a Options,
    told: ids::Told,
    trouble: &'a Trouble,
}

impl Scanned<'_> {
    /// What goes with a list.
    fn listing(&mut self, list: FileList) -> Listing {
        let names = match self.options.numeric_ids || self.options.nameless_ids {
            true => Default::default(),
            false => self.told.names(&list, self.options.owner, self.options.group),
        };
        let io_error = self.lister.take_io_error() as i32;
        self.trouble.add(io_error);
        Listing { list, names, io_error }
    }
}

impl Source for Scanned<'_> {
    fn next_segment(&mut self) -> Option<Result<(u32, Listing), PeerError>> {
        let next = self.lister.next()?;
        Some(next.map(|(dir, list)| (dir, self.listing(list))))
    }

    fn release(&mut self) {
        self.lister.release();
    }

    fn open(&self, ndx: Ndx, entry: &FileEntry) -> io::Result<File> {
        *self.trouble.current.borrow_mut() = shown(&self.lister.full_path(ndx, entry));
        self.lister.open(ndx, entry)
    }

    fn finished(&self, ndx: Ndx, entry: &FileEntry) {
        let remove = self.options.remove_source_files && !self.options.dry_run;
        if !remove || entry.is_dir() {
            return;
        }
        let name = shown(&entry.name);
        let trouble = match self.lister.remove(ndx, entry) {
            Ok(true) => return,
            Ok(false) => format!("ERROR: Skipping sender remove for changed file: {name}"),
            Err(error) => format!("sender failed to remove {name}: {}", reason(&error)),
        };
        self.trouble.add(1);
        self.trouble.say(TextKind::ErrorXfer, &format!("rsync: [sender] {trouble}"));
    }
}

struct Report<'a> {
    trouble: &'a Trouble,
}

impl Watch for Report<'_> {
    fn unreadable(&mut self, _ndx: Ndx, error: &io::Error) {
        let path = self.trouble.current.borrow();
        if error.kind() == io::ErrorKind::NotFound {
            self.trouble.add(2);
            self.trouble.say(TextKind::Warning, &format!("file has vanished: \"{path}\""));
        } else {
            self.trouble.add(1);
            let text = format!("rsync: [sender] cannot read \"{path}\": {}", reason(error));
            self.trouble.say(TextKind::ErrorXfer, &text);
        }
    }

    fn words(&mut self) -> Option<Message> {
        self.trouble.words.borrow_mut().pop_front()
    }

    fn message(&mut self, message: &Message) {
        if let Message::Text(TextKind::ErrorXfer, _) = message {
            self.trouble.add(1);
        }
        log_message(message);
    }
}

/// The exit code that rsync gives for an error that ended a session.
pub fn exit_code(error: &TransferError) -> i32 {
    match error {
        TransferError::Peer(PeerError::Exit(code)) => *code,
        TransferError::Peer(PeerError::NoCommonChecksum { .. } | PeerError::NotOffered(_)) => 4,
        TransferError::Peer(PeerError::UnsafeName { .. }) => 4,
        TransferError::Peer(_) => 2,
        TransferError::Local { .. } => 11,
        TransferError::Usage(_) => 1,
        TransferError::Selection(_) => 3,
        TransferError::Refused(_) => 4,
        TransferError::Stalled(_) => 30,
        TransferError::Link(_) | TransferError::Remote { .. } => 12,
    }
}

/// Says something on standard error, which an `ssh` carries beside the protocol. Nobody may be listening any more.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe;
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
        let hello = Hello { side: Side::Client, version: 31, choice: None, offer: Offer::Stock, incremental: false };
        let mut handshake = Handshake::new(hello, &mut out);
        let mut byte = [0];
        let n = loop {
            near.writer.write_all(out.bytes()).unwrap();
            out.clear();
            near.reader.read_exact(&mut byte).unwrap();
            handshake.feed(&byte).unwrap();
            if let Some(n) = handshake.poll(&mut out).unwrap() {
                break n;
            }
        };
        let mut entry = FileEntry { len: 5, ..FileEntry::new("wanted", 0o100644) };
        let mut list = Vec::new();
        let mut encoder = ListEncoder::new(&n, args_shape());
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
