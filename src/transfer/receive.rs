//! Receives a list of files. Counterpart: rsync's `do_recv` and `recv_files`.
//!
//! Two threads share a session: the generator asks and writes, the receiver hears and rebuilds. They share only the
//! `Board`, so that hearing never waits for speaking.

mod group;
mod incoming;

use super::abort::{Parts, abort, await_hang_up};
use super::basis::Asked;
use super::beneath::{self, reason, shown};
use super::dest::{Dest, Further, Missing, Preserve, umask};
use super::generate::{Attempt, Board, Generate, IOERR_DEL_LIMIT, Note};
use super::greet::{Ears, Session};
use super::ids::IdMap;
use super::{TransferError, filters, links};
use crate::link::Ending;
use crate::transfer::send::Sent;
use group::Unsynced;
use incoming::{Ending as FileEnding, Incoming};
use protocol::PeerError;
use protocol::args::Options;
use protocol::checksum::Sum;
use protocol::chmod::Chmod;
use protocol::filter::{self, Rule, RuleSet, Side};
use protocol::flist::{Arrived, FileEntry, FileList, LinkId, ListLimits, Ndx, Segments};
use protocol::generator::DeleteCounts;
use protocol::handshake::{Compat, Negotiated};
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::{Message, TextKind};
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts, RuleEvent};
use protocol::sender::FinalStats;
use protocol::sums::{BlockIndex, SumHead};
use protocol::xattr::XattrList;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

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
    /// The filter rules as the user gave them (client only; a server hears them from its client).
    pub rules: Vec<Rule>,
    /// The names to ask for, where `--files-from=-` tells the server that the client has them.
    pub asked: Option<Vec<u8>>,
    /// How much is said of names: 1 the directory that was made for the session, 2 what is up to date or left alone, too.
    pub names: u8,
}

/// Hears how a receiving session goes; the generator and the receiver speak to it at the same time.
pub trait Witness: Sync {
    /// A list, or the next segment of it, is here.
    fn listed(&self, _list: &FileList) {}

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

    /// Words for the user, of the peer or of this side.
    fn message(&self, _message: &Message) {}

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
pub fn receive(session: Session, plan: &ReceivePlan, witness: &dyn Witness) -> Result<Received, TransferError> {
    let Session { n, inbox, mut out, mut ears, mut mouth, closer } = session;
    let server = plan.server;
    if !server {
        out.put(&filter::encode(&plan.rules, Side::Sender));
        mouth.say(&mut out)?;
    }
    let facts = ReceiverFacts {
        shape: plan.options.list_shape(n.list_checksum.size()),
        limits: plan.limits,
        server,
        dry_run: plan.options.dry_run,
    };
    let mut receiver = Receiver::new(&n, facts, inbox);
    let mut received = Received::default();
    let forwarded = plan.options.files_from.as_deref().filter(|name| server == (*name != b"-"));
    let forwarded = match forwarded.map(|name| match (server, &plan.asked) {
        (false, Some(names)) => Ok(names.clone()),
        _ => filters::names_to_forward(name, plan.options.from0),
    }) {
        None => None,
        Some(Ok(names)) => Some(names),
        Some(Err(error)) => {
            return Err(abort(&n, error, server, Parts { out, mouth, ears: &mut ears, closer: &closer }));
        }
    };
    let texts = match server && plan.options.receiver_hears_rules() {
        true => hear_rules(&mut receiver, &mut ears, witness),
        false => Ok(Vec::new()),
    };
    let rules = texts.and_then(|texts| match server {
        true => filters::of_client(&texts, &plan.options, Side::Receiver),
        false => Ok(plan.rules.clone()),
    });
    let prepared = rules.and_then(|rules| Ok((rules, Lists::new(&n, &plan.options)?)));
    let (rules, mut lists) = match prepared {
        Ok((rules, lists)) => (filters::rule_set(&rules, Side::Receiver), lists),
        Err(error) => return Err(abort(&n, error, server, Parts { out, mouth, ears: &mut ears, closer: &closer })),
    };
    let heard = match forwarded {
        None => hear_lists(&mut receiver, &mut ears, &mut lists, plan, &mut received, witness),
        // Neither end may wait for the other to read before it goes on writing.
        Some(names) => std::thread::scope(|scope| {
            out.put(&names);
            let (out, mouth) = (&mut out, &mut mouth);
            let saying = scope.spawn(move || mouth.say(out));
            let heard = hear_lists(&mut receiver, &mut ears, &mut lists, plan, &mut received, witness);
            if heard.is_err() {
                closer.close();
            }
            let said = saying.join().unwrap_or(Ok(()));
            heard.and(said)
        }),
    };
    if let Err(error) = heard {
        return Err(abort(&n, error, server, Parts { out, mouth, ears: &mut ears, closer: &closer }));
    }
    if lists.is_empty() && !plan.server {
        (received.written_bytes, received.read_bytes) = (mouth.said, ears.heard);
        drop(mouth);
        received.ending = ears.remote.wait(super::ENDING_PATIENCE);
        return Ok(received);
    }
    if plan.options.prune_empty_dirs {
        lists.prune(rules.as_ref(), &root(&plan.destination));
    }
    let target = match enter(plan, &lists).and_then(|target| target.with_places(plan)) {
        Ok((target, warnings)) => {
            for warning in warnings {
                out.message(&Message::Text(TextKind::Warning, format!("{warning}\n").into()));
            }
            target
        }
        Err(error) => return Err(abort(&n, error, server, Parts { out, mouth, ears: &mut ears, closer: &closer })),
    };
    let board = Board::new(n.compat.has(Compat::INC_RECURSE));
    board.io_error.fetch_or(received.io_error, Ordering::AcqRel);
    if plan.names > 0 && target.is_new() {
        let path = plan.destination.as_os_str().as_bytes();
        let text = [b"created directory ", path.strip_suffix(b"/").unwrap_or(path), b"\n"].concat();
        board.note(Note::Say(Message::Text(TextKind::Info, text)));
    }
    lists.show(&board)?;
    let rules = rules.as_ref();
    let generate = Generate { n: &n, target: &target, plan, board: &board, witness, out, mouth, rules };
    let mut work = Rebuild {
        n: &n,
        lists: &mut lists,
        target: &target,
        plan,
        options: &plan.options,
        board: &board,
        witness,
        current: None,
        delayed: Vec::new(),
        unsynced: Vec::new(),
        received: &mut received,
        block: Vec::new(),
    };
    let (heard, spoken) = std::thread::scope(|scope| {
        let closer = &closer;
        let generator = scope.spawn(|| {
            let result = generate.run();
            // A peer that was told why hangs up itself.
            if result.as_ref().is_err_and(|error| !matches!(error, TransferError::Rules(_))) {
                closer.close();
            }
            board.generator_left();
            result
        });
        let heard = work.run(&mut receiver, &mut ears);
        if let Err(error) = &heard {
            board.fail(error, server);
            if !board.wait_for_generator(LAST_WORDS) {
                closer.close();
            }
        }
        let spoken = generator.join().unwrap_or_else(|_| {
            Err(TransferError::Refused("The generator thread panicked; please report this".into()))
        });
        (heard, spoken)
    });
    if heard.is_err() {
        await_hang_up(&n, &mut ears, &closer);
    }
    // Whoever failed first closed the link, and the other's complaint is only its echo.
    match (heard, spoken) {
        (Err(TransferError::Link(_) | TransferError::Remote { .. }), Err(spoken)) => return Err(spoken),
        (Err(heard), _) => return Err(heard),
        (Ok(()), spoken) => {
            let generated = spoken?;
            received.failed += generated.failed;
            received.deleted = generated.deleted;
            if generated.limited {
                received.io_error |= IOERR_DEL_LIMIT;
            }
            (received.written_bytes, received.read_bytes) = (generated.written_bytes, ears.heard);
        }
    }
    if !plan.server {
        ears.hear_the_end()?;
        received.ending = ears.remote.wait(super::ENDING_PATIENCE);
    }
    Ok(received)
}

/// The client's filter rules, which come first where the server needs them.
fn hear_rules(receiver: &mut Receiver, ears: &mut Ears, witness: &dyn Witness) -> Result<Vec<Vec<u8>>, TransferError> {
    let mut rules = Vec::new();
    loop {
        match receiver.poll_rule()? {
            Some(RuleEvent::Rule(rule)) => rules.push(rule),
            Some(RuleEvent::End) => return Ok(rules),
            Some(RuleEvent::Message(message)) => witness.message(&message),
            None => receiver.feed(ears.hear()?)?,
        }
    }
}

/// Hears the first list. One with a single entry is not yet known to be all there is: the next segment, or the end, follows
/// at once.
fn hear_lists(
    receiver: &mut Receiver,
    ears: &mut Ears,
    lists: &mut Lists,
    plan: &ReceivePlan,
    received: &mut Received,
    witness: &dyn Witness,
) -> Result<(), TransferError> {
    while !lists.complete && !lists.known_to_be_many() {
        match receiver.poll()? {
            Some(ReceiverEvent::List(arrived)) => {
                let list = lists.take(arrived, plan, received)?;
                witness.listed(&list);
            }
            Some(ReceiverEvent::ListEnd) => lists.complete = true,
            Some(ReceiverEvent::Message(Message::IoError(bits))) => received.io_error |= bits,
            Some(ReceiverEvent::Message(message)) => witness.message(&message),
            Some(_) => return Err(PeerError::Malformed("a file before the list").into()),
            None => receiver.feed(ears.hear()?)?,
        }
    }
    Ok(())
}

/// The lists that are in use.
struct Lists {
    segments: Segments<Arc<FileList>>,
    ids: IdMap,
    chmod: Option<Chmod>,
    complete: bool,
}

impl Lists {
    fn new(n: &Negotiated, options: &Options) -> Result<Self, TransferError> {
        let segments = Segments::new(n.compat.has(Compat::INC_RECURSE));
        let ids = IdMap::new(options)?;
        for trouble in &ids.unknown {
            super::serve::complain(trouble);
        }
        Ok(Self { segments, ids, chmod: chmod(options)?, complete: false })
    }

    /// Takes a list that has arrived.
    fn take(
        &mut self,
        arrived: Arrived,
        plan: &ReceivePlan,
        received: &mut Received,
    ) -> Result<Arc<FileList>, TransferError> {
        let Arrived { mut list, names, io_error, .. } = arrived;
        received.io_error |= io_error;
        list.join_contents();
        self.ids.learn(&names);
        self.ids.apply(&mut list);
        if let Some(chmod) = &self.chmod {
            let umask = umask();
            list.each(|entry| chmod.change(entry, umask));
        }
        if plan.options.munge_links {
            list.each(|entry| entry.target = entry.target.take().map(|target| links::munged(&target)));
        }
        let list = Arc::new(list);
        self.segments.add(&list, Arc::clone(&list))?;
        Ok(list)
    }

    /// Drops directories that hold nothing (`--prune-empty-dirs`), of a list that has come whole.
    fn prune(&mut self, rules: Option<&RuleSet>, root: &[u8]) {
        let top = rules.map(|rules| (rules, rules.top(root)));
        let safe =
            |entry: &FileEntry| top.as_ref().is_some_and(|(rules, top)| rules.excludes(top, &entry.name, true, false));
        for list in self.segments.iter_mut() {
            Arc::make_mut(list).prune(safe);
        }
    }

    /// Shows the generator what has come so far.
    fn show(&self, board: &Board) -> Result<(), TransferError> {
        for list in self.segments.iter() {
            board.list(list)?;
        }
        if self.complete {
            board.note(Note::ListEnd);
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.segments.iter().map(|list| list.len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn known_to_be_many(&self) -> bool {
        self.segments.len() > 1 || self.len() > 1
    }

    /// The only entry, where there is but one and it is no directory.
    fn has_single_file(&self) -> bool {
        self.len() == 1 && !self.segments.iter().any(|list| list.entries().iter().any(FileEntry::is_dir))
    }
}

/// What `--chmod` asks for.
pub(super) fn chmod(options: &Options) -> Result<Option<Chmod>, TransferError> {
    let Some(text) = &options.chmod else { return Ok(None) };
    let bad =
        || TransferError::Usage(format!("Invalid argument passed to --chmod ({})", String::from_utf8_lossy(text)));
    Chmod::parse(text).map(Some).ok_or_else(bad)
}

/// Where received files go.
pub(super) struct Target {
    /// `None` in a dry run whose destination does not exist.
    pub(super) dest: Option<Dest>,
    /// The destination was not there before this session.
    pub(super) made: bool,
    /// Absolute path of the folder, for filter rules and messages.
    pub(super) root: Vec<u8>,
    /// It would have been made, were this no dry run.
    would_make: bool,
    /// The name for the only file of a list, where the destination is a file name.
    single: Option<Vec<u8>>,
}

impl Target {
    /// Nothing of it was there before this session.
    fn is_new(&self) -> bool {
        self.made || self.would_make
    }

    /// The name of an entry at this end.
    pub(super) fn name<'a>(&'a self, entry: &'a FileEntry) -> &'a [u8] {
        self.single.as_deref().unwrap_or(&entry.name)
    }

    /// Takes the further directories that the options name; returns what the user should know.
    fn with_places(mut self, plan: &ReceivePlan) -> Result<(Self, Vec<String>), TransferError> {
        let path = std::path::absolute(&plan.destination).unwrap_or_else(|_| plan.destination.clone());
        let path = path.as_os_str().as_bytes();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut warnings = Vec::new();
        if let Some(dest) = self.dest.take() {
            let (dest, missing) = dest.with_places(&plan.options, path);
            self.dest = Some(dest);
            for missing in missing {
                match missing {
                    Missing::Warning(text) => warnings.push(text),
                    Missing::Fatal(text) => return Err(TransferError::Usage(text)),
                }
            }
        }
        Ok((self, warnings))
    }

    pub(super) fn again(&self) -> Option<Dest> {
        self.dest.as_ref().map(Dest::handle)
    }
}

/// Enters the destination as rsync does: an existing directory is entered; with several files, or a slash at the end, a
/// missing one is made; otherwise the argument names the single file. rsync: get_local_name
fn enter(plan: &ReceivePlan, lists: &Lists) -> Result<Target, TransferError> {
    let path = match plan.destination.as_os_str().is_empty() {
        true => Path::new("."),
        false => plan.destination.as_path(),
    };
    let bytes = path.as_os_str().as_bytes();
    let options = &plan.options;
    if options.list_only {
        return Ok(Target { dest: None, made: false, would_make: false, root: root(path), single: None });
    }
    let cannot_make = |source: io::Error| {
        let what = format!("mkdir \"{}\" failed (make its parent first, or use --mkpath)", path.display());
        TransferError::Local { what, source }
    };
    let make_parents = |path: &Path| match options.mkpath && !options.dry_run {
        true => beneath::make_operands(path).map_err(cannot_make),
        false => Ok(()),
    };
    if path.is_dir() {
        let (root, dest) = (root(path), Some(entered(path, options)?));
        return Ok(Target { dest, made: false, would_make: false, root, single: None });
    }
    // Nothing comes, so nothing is made for it.
    if lists.is_empty() && !bytes.ends_with(b"/") {
        return Ok(Target { dest: None, made: false, would_make: false, root: root(path), single: None });
    }
    let single_file = lists.has_single_file() && !bytes.ends_with(b"/");
    if !single_file {
        if path.exists() {
            let text = format!("\"{}\" must be a directory to receive more than one file", path.display());
            return Err(TransferError::Selection(text));
        }
        if options.dry_run {
            return Ok(Target { dest: None, made: false, would_make: true, root: root(path), single: None });
        }
        make_parents(path)?;
        let dest = Dest::open(path, true).map_err(cannot_make)?.with(options);
        return Ok(Target { dest: Some(dest), made: true, would_make: false, root: root(path), single: None });
    }
    let cut = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let parent = if cut == 0 { Path::new(".") } else { Path::new(OsStr::from_bytes(&bytes[..cut])) };
    make_parents(parent)?;
    let (root, single) = (root(parent), Some(bytes[cut..].to_vec()));
    Ok(Target { dest: Some(entered(parent, options)?), made: false, would_make: false, root, single })
}

fn root(path: &Path) -> Vec<u8> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.into_os_string().into_encoded_bytes()
}

fn entered(path: &Path, options: &Options) -> Result<Dest, TransferError> {
    Dest::open(path, false)
        .map(|dest| dest.with(options))
        .map_err(|error| TransferError::Selection(format!("Cannot enter \"{}\": {}", path.display(), reason(&error))))
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

/// The receiver's work: files out of tokens.
struct Rebuild<'a> {
    n: &'a Negotiated,
    lists: &'a mut Lists,
    target: &'a Target,
    plan: &'a ReceivePlan,
    options: &'a Options,
    board: &'a Board,
    witness: &'a dyn Witness,
    current: Option<Current>,
    /// Files that wait for the end of the transfer.
    delayed: Vec<(Arrival, Sent)>,
    /// Files that are to be on the disk before they count (`--fsync`).
    unsynced: Vec<(Arrival, Sent, Sum, Unsynced)>,
    received: &'a mut Received,
    block: Vec<u8>,
}

/// The file that is coming in.
struct Current {
    arrival: Arrival,
    /// It was asked for the second time.
    again: bool,
    incoming: Incoming,
}

/// A file that comes in, with what was said of it.
struct Arrival {
    ndx: Ndx,
    header: ItemHeader,
    entry: FileEntry,
}

impl Rebuild<'_> {
    fn run(&mut self, receiver: &mut Receiver, ears: &mut Ears) -> Result<(), TransferError> {
        let dest = self.target.again();
        let heard = self.hear(dest.as_ref(), receiver, ears);
        self.sync(dest.as_ref());
        if heard.is_err() {
            self.break_off(dest.as_ref());
        }
        heard
    }

    fn hear(&mut self, dest: Option<&Dest>, receiver: &mut Receiver, ears: &mut Ears) -> Result<(), TransferError> {
        while !receiver.is_over() {
            let Some(event) = receiver.poll()? else {
                // Nothing that is here already waits for what is not.
                self.sync(dest);
                receiver.feed(ears.hear()?)?;
                continue;
            };
            if let ReceiverEvent::PhaseDone(_) | ReceiverEvent::SegmentDone = event {
                self.sync(dest);
            }
            match event {
                ReceiverEvent::File(ndx, header, head) => {
                    let entry = self.entry(ndx)?.clone();
                    let attempt = self.board.take(ndx).filter(|_| !header.flags.has(ItemFlags::LOCAL_CHANGE));
                    let unasked = PeerError::Malformed("data of a file that was not asked for");
                    let again = attempt.ok_or(unasked)? == Attempt::Second;
                    let asked = self.board.proposals.take(ndx).filter(|asked| asked.agrees(&header));
                    let asked =
                        asked.ok_or(PeerError::Malformed("a file built upon another basis than was asked for"))?;
                    self.witness.begins(ndx, &entry, &header);
                    self.keep_values(&entry, header.xattrs.clone())?;
                    self.begin(dest, Arrival { ndx, header, entry }, asked, head, again);
                }
                ReceiverEvent::Literal(bytes) => self.write(dest, bytes),
                ReceiverEvent::Copy(block) => {
                    self.copy(dest, block);
                    if receiver.wants_matched() {
                        if let Some(current) = &self.current {
                            current.incoming.block(block, &mut self.block);
                        }
                        receiver.matched(&self.block)?;
                    }
                }
                ReceiverEvent::End(sum) => self.end(dest, &sum),
                ReceiverEvent::Item(ndx, header) => {
                    let entry = self.entry_of_any_kind(ndx)?;
                    self.witness.item(ndx, entry, &header);
                    let has_values = header.flags.has(ItemFlags::XATTR);
                    self.keep_values(entry, header.xattrs)?;
                    if has_values {
                        self.complete(dest, entry);
                    }
                }
                ReceiverEvent::PhaseDone(phase) => {
                    if phase == 2 {
                        self.place_delayed(dest);
                    }
                    self.board.phase(phase);
                }
                ReceiverEvent::SegmentDone => {
                    self.lists.segments.release();
                    self.board.release();
                }
                ReceiverEvent::Message(Message::IoError(bits)) => {
                    self.received.io_error |= bits;
                    self.board.io_error.fetch_or(bits, Ordering::AcqRel);
                }
                ReceiverEvent::Message(Message::NoSend(ndx)) => {
                    let link = self.entry_of_any_kind(ndx)?.link;
                    self.board.proposals.take(ndx);
                    if self.board.take(ndx).is_some() {
                        self.settle(ndx, link, false);
                    }
                }
                ReceiverEvent::Message(message) => self.witness.message(&message),
                ReceiverEvent::Stats(stats) => self.witness.stats(&stats),
                ReceiverEvent::Goodbye => {}
                ReceiverEvent::List(arrived) => {
                    let list = self.lists.take(arrived, self.plan, self.received)?;
                    self.board.io_error.fetch_or(self.received.io_error, Ordering::AcqRel);
                    self.witness.listed(&list);
                    self.board.list(&list)?;
                }
                ReceiverEvent::ListEnd => {
                    self.lists.complete = true;
                    self.board.note(Note::ListEnd);
                }
            }
        }
        self.board.over();
        Ok(())
    }

    /// Keeps values of extended attributes that the generator asked for.
    fn keep_values(&self, entry: &FileEntry, list: Option<XattrList>) -> Result<(), PeerError> {
        let Some(XattrList::Given(given)) = list else { return Ok(()) };
        let further = Further::of(entry, self.options);
        if given.is_empty() || further.is_some_and(|further| self.board.values.keep(&further, given)) {
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
            let wanted = dest.wanted(entry, &preserve(self.options), Some(&found));
            dest.set_attrs(name, kind, &wanted.differing_from(&found, -1))
        });
        if let Err(error) = done {
            self.board.complain(&error.to_string());
        }
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

    /// Whoever waits for a file is served, be it here whole or not.
    fn settle(&self, ndx: Ndx, link: Option<LinkId>, whole: bool) {
        match link.filter(|_| self.options.hard_links) {
            Some(_) => self.board.note(Note::Linkable(ndx, whole)),
            None => self.board.close(ndx),
        }
    }

    fn begin(&mut self, dest: Option<&Dest>, arrival: Arrival, asked: Asked, head: SumHead, again: bool) {
        let name = self.target.name(&arrival.entry);
        let incoming = Incoming::begin(self.n, self.options, dest, name, &arrival.entry, asked, head);
        if let Some(error) = incoming.trouble() {
            self.board.complain(&error);
        }
        self.current = Some(Current { arrival, again, incoming });
    }

    fn write(&mut self, dest: Option<&Dest>, bytes: &[u8]) {
        if let Some(current) = &mut self.current
            && let Err(trouble) = current.incoming.literal(dest, bytes, &mut self.block)
        {
            self.board.complain(&trouble);
        }
        self.witness.progress(bytes.len() as u64);
    }

    fn copy(&mut self, dest: Option<&Dest>, block: BlockIndex) {
        let Some(current) = &mut self.current else { return };
        match current.incoming.copy(dest, block, &mut self.block) {
            Ok(len) => self.witness.progress(len),
            Err(trouble) => self.board.complain(&trouble),
        }
    }

    fn end(&mut self, dest: Option<&Dest>, sum: &Sum) {
        let Some(current) = self.current.take() else { return };
        let (ndx, link) = (current.arrival.ndx, current.arrival.entry.link);
        if let Some(whole) = self.finish(dest, current, sum) {
            self.settle(ndx, link, whole);
        }
    }

    /// Puts a file in its place; `None` when it is asked for once more, or will be in its place only later.
    fn finish(&mut self, dest: Option<&Dest>, current: Current, sum: &Sum) -> Option<bool> {
        let Current { arrival, again, incoming } = current;
        let shown = shown(self.target.name(&arrival.entry));
        let Some(dest) = dest else {
            self.received.failed += 1;
            return Some(false);
        };
        let sent = incoming.sent;
        match incoming.end(dest, self.options, &arrival.entry, &self.board.values, sum, &mut self.block) {
            FileEnding::Done => {
                self.witness.received(arrival.ndx, &arrival.entry, &arrival.header, &sent, sum);
                self.arrived(arrival.ndx, sent);
            }
            FileEnding::Delayed => {
                self.witness.received(arrival.ndx, &arrival.entry, &arrival.header, &sent, sum);
                self.delayed.push((arrival, sent));
            }
            FileEnding::Unsynced(file) => {
                self.unsynced.push((arrival, sent, *sum, file));
                if self.unsynced.len() >= group::FILES_MOST {
                    self.sync(Some(dest));
                }
                return None;
            }
            FileEnding::Wrong(what) if again => {
                self.received.failed += 1;
                self.board.complain(&format!("ERROR: {shown} failed verification -- update {what}."));
                return Some(false);
            }
            FileEnding::Wrong(what) => {
                let text = format!("WARNING: {shown} failed verification -- update {what} (will try again).\n");
                self.board.note(Note::Say(Message::Text(TextKind::Warning, text.into())));
                self.board.note(Note::Redo(arrival.ndx));
                return None;
            }
            FileEnding::Failed(trouble) => {
                self.received.failed += 1;
                if let Some(trouble) = trouble {
                    self.board.complain(&trouble);
                }
                return Some(false);
            }
        }
        Some(true)
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
        for ((arrival, sent, sum), placed) in told.into_iter().zip(placed) {
            match &placed {
                Ok(()) => {
                    self.witness.received(arrival.ndx, &arrival.entry, &arrival.header, &sent, &sum);
                    self.arrived(arrival.ndx, sent);
                }
                Err(trouble) => {
                    self.received.failed += 1;
                    self.board.complain(trouble);
                }
            }
            self.settle(arrival.ndx, arrival.entry.link, placed.is_ok());
        }
    }

    /// A file is whole and under its name.
    fn arrived(&mut self, ndx: Ndx, sent: Sent) {
        self.received.files += 1;
        self.received.bytes.literal_bytes += sent.literal_bytes;
        self.received.bytes.matched_bytes += sent.matched_bytes;
        if self.options.remove_source_files {
            self.board.note(Note::Say(Message::Success(ndx)));
        }
    }

    /// Gives the files that were put aside their names (`--delay-updates`).
    fn place_delayed(&mut self, dest: Option<&Dest>) {
        for (arrival, sent) in std::mem::take(&mut self.delayed) {
            let name = self.target.name(&arrival.entry);
            match dest.map_or(Ok(()), |dest| dest.place_delayed(name)) {
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
            && let Err(error) = incoming.break_off(dest, self.options, &arrival.entry)
        {
            tracing::warn!("{error}");
        }
    }
}
