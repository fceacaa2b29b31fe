//! Receives a list of files. Counterpart: rsync's `do_recv` and `recv_files`.
//!
//! Two threads share a session: the generator asks and writes, the receiver hears and rebuilds. They share only the
//! `Board`, so that hearing never waits for speaking.

mod incoming;

use super::abort::{Parts, abort, await_hang_up};
use super::basis::Asked;
use super::beneath::{self, reason, shown};
use super::dest::{Dest, Missing, Preserve};
use super::generate::{Attempt, Board, Generate, Note};
use super::greet::{Ears, Session};
use super::{TransferError, ids};
use crate::link::Ending;
use crate::transfer::send::Sent;
use incoming::{Ending as FileEnding, Incoming};
use protocol::PeerError;
use protocol::args::Options;
use protocol::checksum::Sum;
use protocol::flist::{Arrived, FileEntry, FileList, LinkId, ListLimits, Ndx, Segments};
use protocol::handshake::{Compat, Negotiated};
use protocol::item::ItemFlags;
use protocol::mux::{Message, TextKind};
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts};
use protocol::sums::{BlockIndex, SumHead};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    /// Bits of trouble on the sending side.
    pub io_error: i32,
    /// How the far end's program ended (client only).
    pub ending: Option<Ending>,
}

/// Receives what the peer sends into the plan's destination. `say` hears the peer's messages.
pub fn receive(session: Session, plan: &ReceivePlan, say: &mut dyn FnMut(&Message)) -> Result<Received, TransferError> {
    let Session { n, inbox, mut out, mut ears, mut mouth, closer } = session;
    let server = plan.server;
    if !server {
        // The server waits for filter rules, and ours are none.
        out.put(&0i32.to_le_bytes());
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
    let mut lists = Lists::new(&n);
    if let Err(error) = hear_lists(&mut receiver, &mut ears, &mut lists, plan, &mut received, say) {
        return Err(abort(&n, error, server, Parts { out, mouth, ears: &mut ears, closer: &closer }));
    }
    if lists.is_empty() && !plan.server {
        drop(mouth);
        received.ending = ears.remote.wait(super::ENDING_PATIENCE);
        return Ok(received);
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
    lists.show(&board)?;
    let generate = Generate { n: &n, target: &target, options: &plan.options, board: &board, out, mouth };
    let mut work = Rebuild {
        n: &n,
        lists: &mut lists,
        target: &target,
        plan,
        options: &plan.options,
        board: &board,
        current: None,
        delayed: Vec::new(),
        received: &mut received,
        block: Vec::new(),
    };
    let (heard, spoken) = std::thread::scope(|scope| {
        let closer = &closer;
        let generator = scope.spawn(|| {
            let result = generate.run();
            if result.is_err() {
                closer.close();
            }
            board.generator_left();
            result
        });
        let heard = work.run(&mut receiver, &mut ears, say);
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
        (Ok(()), spoken) => received.failed += spoken?,
    }
    if !plan.server {
        ears.hear_the_end()?;
        received.ending = ears.remote.wait(super::ENDING_PATIENCE);
    }
    Ok(received)
}

/// Hears the first list. One with a single entry is not yet known to be all there is: the next segment, or the end, follows
/// at once.
fn hear_lists(
    receiver: &mut Receiver,
    ears: &mut Ears,
    lists: &mut Lists,
    plan: &ReceivePlan,
    received: &mut Received,
    say: &mut dyn FnMut(&Message),
) -> Result<(), TransferError> {
    while !lists.complete && !lists.known_to_be_many() {
        match receiver.poll()? {
            Some(ReceiverEvent::List(arrived)) => {
                lists.take(arrived, plan, received)?;
            }
            Some(ReceiverEvent::ListEnd) => lists.complete = true,
            Some(ReceiverEvent::Message(Message::IoError(bits))) => received.io_error |= bits,
            Some(ReceiverEvent::Message(message)) => say(&message),
            Some(_) => return Err(PeerError::Malformed("a file before the list").into()),
            None => receiver.feed(ears.hear()?)?,
        }
    }
    Ok(())
}

/// The lists that are in use.
struct Lists {
    segments: Segments<Arc<FileList>>,
    mapping: ids::Mapping,
    complete: bool,
}

impl Lists {
    fn new(n: &Negotiated) -> Self {
        let segments = Segments::new(n.compat.has(Compat::INC_RECURSE));
        Self { segments, mapping: ids::Mapping::default(), complete: false }
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
        if !plan.options.numeric_ids && !plan.options.nameless_ids {
            self.mapping.apply(&mut list, &names);
        }
        let list = Arc::new(list);
        self.segments.add(&list, Arc::clone(&list))?;
        Ok(list)
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

/// Where received files go.
pub(super) struct Target {
    /// `None` in a dry run whose destination does not exist.
    pub(super) dest: Option<Dest>,
    /// The destination was not there before this session.
    pub(super) made: bool,
    /// The name for the only file of a list, where the destination is a file name.
    single: Option<Vec<u8>>,
}

impl Target {
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
    let cannot_make = |source: io::Error| {
        let what = format!("mkdir \"{}\" failed (make its parent first, or use --mkpath)", path.display());
        TransferError::Local { what, source }
    };
    let make_parents = |path: &Path| match options.mkpath && !options.dry_run {
        true => beneath::make_operands(path).map_err(cannot_make),
        false => Ok(()),
    };
    if path.is_dir() {
        return Ok(Target { dest: Some(entered(path)?), made: false, single: None });
    }
    let single_file = lists.has_single_file() && !bytes.ends_with(b"/");
    if !single_file {
        if path.exists() {
            let text = format!("\"{}\" must be a directory to receive more than one file", path.display());
            return Err(TransferError::Selection(text));
        }
        if options.dry_run {
            return Ok(Target { dest: None, made: false, single: None });
        }
        make_parents(path)?;
        let dest = Dest::open(path, true).map_err(cannot_make)?;
        return Ok(Target { dest: Some(dest), made: true, single: None });
    }
    let cut = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let parent = if cut == 0 { Path::new(".") } else { Path::new(OsStr::from_bytes(&bytes[..cut])) };
    make_parents(parent)?;
    Ok(Target { dest: Some(entered(parent)?), made: false, single: Some(bytes[cut..].to_vec()) })
}

fn entered(path: &Path) -> Result<Dest, TransferError> {
    Dest::open(path, false)
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
    current: Option<Current>,
    /// Files that wait for the end of the transfer.
    delayed: Vec<(FileEntry, Ndx, Sent)>,
    received: &'a mut Received,
    block: Vec<u8>,
}

/// The file that is coming in.
struct Current {
    ndx: Ndx,
    entry: FileEntry,
    /// It was asked for the second time.
    again: bool,
    incoming: Incoming,
}

impl Rebuild<'_> {
    fn run(
        &mut self,
        receiver: &mut Receiver,
        ears: &mut Ears,
        say: &mut dyn FnMut(&Message),
    ) -> Result<(), TransferError> {
        let dest = self.target.again();
        let heard = self.hear(dest.as_ref(), receiver, ears, say);
        if heard.is_err() {
            self.break_off(dest.as_ref());
        }
        heard
    }

    fn hear(
        &mut self,
        dest: Option<&Dest>,
        receiver: &mut Receiver,
        ears: &mut Ears,
        say: &mut dyn FnMut(&Message),
    ) -> Result<(), TransferError> {
        while !receiver.is_over() {
            let Some(event) = receiver.poll()? else {
                receiver.feed(ears.hear()?)?;
                continue;
            };
            match event {
                ReceiverEvent::File(ndx, header, head) => {
                    let entry = self.entry(ndx)?.clone();
                    let attempt = self.board.take(ndx).filter(|_| !header.flags.has(ItemFlags::LOCAL_CHANGE));
                    let unasked = PeerError::Malformed("data of a file that was not asked for");
                    let again = attempt.ok_or(unasked)? == Attempt::Second;
                    let asked = self.board.proposals.take(ndx).filter(|asked| asked.agrees(&header));
                    let asked =
                        asked.ok_or(PeerError::Malformed("a file built upon another basis than was asked for"))?;
                    self.begin(dest, ndx, entry, asked, head, again);
                }
                ReceiverEvent::Literal(bytes) => self.write(bytes),
                ReceiverEvent::Copy(block) => self.copy(block),
                ReceiverEvent::End(sum) => self.end(dest, &sum),
                ReceiverEvent::Item(ndx, _) => {
                    self.entry_of_any_kind(ndx)?;
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
                ReceiverEvent::Message(Message::IoError(bits)) => self.received.io_error |= bits,
                ReceiverEvent::Message(Message::NoSend(ndx)) => {
                    let link = self.entry_of_any_kind(ndx)?.link;
                    self.board.proposals.take(ndx);
                    if self.board.take(ndx).is_some() {
                        self.settle(ndx, link, false);
                    }
                }
                ReceiverEvent::Message(message) => say(&message),
                ReceiverEvent::Stats(_) | ReceiverEvent::Goodbye => {}
                ReceiverEvent::List(arrived) => {
                    let list = self.lists.take(arrived, self.plan, self.received)?;
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

    fn begin(&mut self, dest: Option<&Dest>, ndx: Ndx, entry: FileEntry, asked: Asked, head: SumHead, again: bool) {
        let name = self.target.name(&entry);
        let incoming = Incoming::begin(self.n, self.options, dest, name, &entry, asked, head);
        if let Some(error) = incoming.trouble() {
            self.board.complain(&error);
        }
        self.current = Some(Current { ndx, entry, again, incoming });
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(current) = &mut self.current
            && let Err(trouble) = current.incoming.literal(bytes)
        {
            self.board.complain(&trouble);
        }
    }

    fn copy(&mut self, block: BlockIndex) {
        if let Some(current) = &mut self.current
            && let Err(trouble) = current.incoming.copy(block, &mut self.block)
        {
            self.board.complain(&trouble);
        }
    }

    fn end(&mut self, dest: Option<&Dest>, sum: &Sum) {
        let Some(current) = self.current.take() else { return };
        let (ndx, link) = (current.ndx, current.entry.link);
        if let Some(whole) = self.finish(dest, current, sum) {
            self.settle(ndx, link, whole);
        }
    }

    /// Puts a file in its place; `None` when it is asked for once more.
    fn finish(&mut self, dest: Option<&Dest>, current: Current, sum: &Sum) -> Option<bool> {
        let Current { ndx, entry, again, incoming } = current;
        let shown = shown(self.target.name(&entry));
        let Some(dest) = dest else {
            self.received.failed += 1;
            return Some(false);
        };
        let sent = incoming.sent;
        match incoming.end(dest, self.options, &entry, sum) {
            FileEnding::Done => self.arrived(ndx, sent),
            FileEnding::Delayed => self.delayed.push((entry, ndx, sent)),
            FileEnding::Wrong(what) if again => {
                self.received.failed += 1;
                self.board.complain(&format!("ERROR: {shown} failed verification -- update {what}."));
                return Some(false);
            }
            FileEnding::Wrong(what) => {
                let text = format!("WARNING: {shown} failed verification -- update {what} (will try again).\n");
                self.board.note(Note::Say(Message::Text(TextKind::Warning, text.into())));
                self.board.note(Note::Redo(ndx));
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
        for (entry, ndx, sent) in std::mem::take(&mut self.delayed) {
            let name = self.target.name(&entry);
            match dest.map_or(Ok(()), |dest| dest.place_delayed(name)) {
                Ok(()) => self.arrived(ndx, sent),
                Err(error) => {
                    self.received.failed += 1;
                    self.board.complain(&error.to_string());
                }
            }
        }
    }

    /// The session broke off: what there is of a file is kept, if the options ask for it.
    fn break_off(&mut self, dest: Option<&Dest>) {
        if let (Some(Current { entry, incoming, .. }), Some(dest)) = (self.current.take(), dest)
            && let Err(error) = incoming.break_off(dest, self.options, &entry)
        {
            tracing::warn!("{error}");
        }
    }
}
