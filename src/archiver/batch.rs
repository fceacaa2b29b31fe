//! One session over one batch: the file list without a staging tree, and who answers for what.

use super::flight::Job;
use super::origins::look;
use super::patience::PatientFile;
use super::{Sources, squeeze};
use crate::link::{Ending, Link, Remote};
use crate::status::Failure;
use crate::transfer::send::{Digest, Sent};
use crate::transfer::{Answer, Listing, SendPlan, Source, Summary, TransferError, Watch, greet, send};
use protocol::args::{Options, ServerArgs};
use protocol::checksum::{Checksum, Sum};
use protocol::chmod::Chmod;
use protocol::flist::{DirClass, Extras, FileEntry, FileList, IdNames, Kind, Ndx};
use protocol::handshake::{Hello, Offer, Side, VERSION_MOST};
use protocol::item::ItemFlags;
use protocol::mux::Message;
use protocol::sender::Request;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// What changes of permissions leave alone that do not say whose; a container's umask has no say in it.
const UMASK: u32 = 0o022;
/// Bytes of the peer's words that are kept for the log.
const WORDS_KEPT: usize = 64 * 1024;
/// How long the far end's program may take to end once its session has broken.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long the far end's program may take to end after a session that broke.
const ENDING_PATIENCE: Duration = Duration::from_secs(3);

/// What became of one job in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// The far end confirmed the registered bytes under this variant of the name; with their digest, where it was asked
    /// for and we have read them.
    Proven(Sent, Option<Digest>),
    /// Other bytes stand under the name.
    Taken,
    /// Trouble of the file.
    Failed(Failure, String),
    /// The far end asked for the file or not, and did not confirm it, although the session ended in order.
    Refused,
    /// It came whole upon what was there of it. Whether that is what stands under its name the next session sees.
    Arrived(Option<Digest>),
    /// Nothing is known: the session ended too early, or we were told to stop.
    Open,
}

/// How a batch is flown.
pub(super) struct Manner<'a> {
    /// Changes to the permissions of copies.
    pub(super) chmod: Option<&'a Chmod>,
    /// Which files rows may name.
    pub(super) sources: &'a Sources,
    /// File data is compressed on its way.
    pub(super) squeezed: bool,
    /// The BLAKE3 of what is sent is wanted.
    pub(super) digests: bool,
    /// Whether to take up no further file.
    pub(super) stopping: &'a dyn Fn() -> bool,
    /// Hears of bytes of files as they are moved.
    pub(super) progress: &'a dyn Fn(u64),
    /// Hears of each file that the far end has confirmed, and whether it was in place.
    pub(super) confirmed: &'a dyn Fn(&Sent, bool),
}

/// A session's result.
pub(super) struct Flown {
    pub(super) fates: Vec<Fate>,
    /// What the far end said, on whichever channel.
    pub(super) words: String,
    /// `None` where none was needed.
    pub(super) ended: Result<Option<Summary>, TransferError>,
}

/// What a session asks of the far end beyond the usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demands {
    /// Copies are to be on the disk before they count.
    pub(crate) fsync: bool,
    /// Permissions are changed on the way.
    pub(crate) chmod: bool,
    /// File data is compressed on its way.
    pub(crate) squeezed: bool,
    /// Where unfinished files are kept, beside their places.
    pub(crate) partial: Option<String>,
}

/// The server arguments for a batch: attributes are those of the files, parents are made as needed and otherwise left
/// alone, every judgement is by content, and every finished file is acknowledged.
pub(crate) fn server_args(data_dir: &str, demands: Demands) -> Vec<OsString> {
    let Demands { fsync, chmod, squeezed, partial } = demands;
    let options = Options {
        times: true,
        perms: true,
        checksum: true,
        relative: true,
        // With permissions to be given, directories are to have them too.
        no_implied_dirs: !chmod,
        omit_dir_times: true,
        remove_source_files: true,
        fsync,
        compress: squeezed,
        compress_level: squeezed.then_some(squeeze::LEVEL),
        partial_dir: partial.map(String::into_bytes),
        ..Options::default()
    };
    // The dot keeps a base that is not there from being made, where something is to be mounted or was mistyped.
    let destination = format!("{}/.", base(data_dir));
    let args = ServerArgs { options, paths: vec![destination.into_bytes()], ..ServerArgs::default() };
    args.to_words().into_iter().map(OsString::from_vec).collect()
}

/// The base directory as the far end's programs are given it: never taken for an option.
pub(crate) fn base(data_dir: &str) -> String {
    let dash = if data_dir.starts_with('-') { "./" } else { "" };
    format!("{dash}{}", data_dir.trim_end_matches('/'))
}

/// What we bring to a handshake with a server that has [`server_args`].
pub(crate) fn hello(squeezed: bool) -> Hello {
    Hello {
        side: Side::Client,
        version: VERSION_MOST,
        choice: None,
        offer: Offer::Only(Checksum::Md5),
        compression: squeeze::wish(squeezed),
        incremental: false,
        acknowledges: false,
    }
}

/// Sends a batch over a link on which a server with [`server_args`] runs.
pub(super) fn fly(jobs: &[Job], link: Link, manner: &Manner) -> Flown {
    let mut watch = BatchWatch {
        jobs,
        by_ndx: Vec::new(),
        fates: vec![Fate::Open; jobs.len()],
        stages: vec![Stage::Listed; jobs.len()],
        digests: vec![None; jobs.len()],
        current: None,
        lens: vec![0; jobs.len()],
        words: String::new(),
        manner,
    };
    let (entries, by_name) = watch.list(manner.chmod);
    let list = FileList::new(entries);
    watch.by_ndx = vec![None; list.len()];
    for (ndx, entry) in list.iter().filter(|(_, entry)| entry.kind() == Some(Kind::File)) {
        watch.by_ndx[ndx.0 as usize] = by_name.get(&entry.name).copied();
    }
    let source = BatchSource { jobs, by_ndx: watch.by_ndx.clone(), sources: manner.sources };
    let remote = link.remote.clone();
    let ended = greet(link, hello(manner.squeezed)).and_then(|session| {
        let options = Options { checksum: true, relative: true, ..Options::default() };
        let plan = SendPlan {
            shape: options.list_shape(Checksum::Md5.size()),
            digests: manner.digests,
            ..SendPlan::default()
        };
        let listing = Listing { list, names: IdNames::default(), io_error: 0 };
        send(session, &plan, |_| Ok((listing, source)), &mut watch)
    });
    let ended = ended.map_err(|error| explain(error, &remote));
    let BatchWatch { mut fates, stages, mut words, by_ndx, .. } = watch;
    if ended.is_err() {
        // What it says last explains the rest.
        remote.wait(LAST_WORDS);
    }
    words.push_str(&remote.stderr());
    if ended.is_ok() {
        for (at, fate) in fates.iter_mut().enumerate() {
            // What was listed and is now left without a word was refused; what never got a place in the list was not.
            let listed = by_ndx.contains(&Some(at));
            if *fate == Fate::Open && listed && stages[at] != Stage::Held {
                *fate = Fate::Refused;
            }
        }
    }
    Flown { fates, words, ended: ended.map(Some) }
}

/// A write that fails is often only the echo of a far end that gave up: what that said is worth more.
pub(super) fn explain(error: TransferError, remote: &Remote) -> TransferError {
    match (error, remote.wait(ENDING_PATIENCE)) {
        (TransferError::Link(_), Some(ending @ (Ending::Exited(_) | Ending::Signalled(_)))) => {
            TransferError::Remote { ending: Some(ending), text: remote.stderr() }
        }
        (error, _) => error,
    }
}

/// How far a job has come in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Listed,
    /// Its bytes were sent.
    Sent(Sent),
    /// We said no: other bytes are there, or the file is not what was registered.
    Declined,
    /// We were told to stop before it was its turn.
    Held,
}

struct BatchWatch<'a> {
    jobs: &'a [Job],
    by_ndx: Vec<Option<usize>>,
    fates: Vec<Fate>,
    stages: Vec<Stage>,
    digests: Vec<Option<Digest>>,
    /// The job whose bytes are on their way.
    current: Option<usize>,
    /// How large the files were when they were listed.
    lens: Vec<u64>,
    words: String,
    manner: &'a Manner<'a>,
}

impl BatchWatch<'_> {
    /// The entries of all jobs whose files can be had, and of their parents.
    fn list(&mut self, chmod: Option<&Chmod>) -> (Vec<FileEntry>, HashMap<Vec<u8>, usize>) {
        let mut entries = Vec::new();
        let mut parents = BTreeSet::new();
        let mut by_name = HashMap::new();
        for (at, job) in self.jobs.iter().enumerate() {
            let meta = match source_metadata(self.manner.sources, &job.source) {
                Ok(meta) => meta,
                Err(why) => {
                    self.fates[at] = why;
                    continue;
                }
            };
            let name = job.place.variant(job.variant).into_bytes();
            // Two jobs of one name cannot share a list; the other one stays open for the next session.
            if by_name.contains_key(&name) {
                continue;
            }
            for (slash, _) in name.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                parents.insert(name[..slash].to_vec());
            }
            self.lens[at] = meta.len();
            entries.push(file_entry(&name, &meta, Sum::new(&job.md5), chmod));
            by_name.insert(name, at);
        }
        entries.extend(parents.into_iter().map(|name| parent_entry(&name, chmod)));
        (entries, by_name)
    }

    fn job_at(&self, ndx: Ndx) -> Option<usize> {
        *self.by_ndx.get(ndx.0 as usize)?
    }
}

impl Watch for BatchWatch<'_> {
    fn requested(&mut self, ndx: Ndx, entry: &FileEntry, request: &Request) -> Answer {
        let Some(at) = self.job_at(ndx) else { return Answer::Decline };
        // Asked for again: our bytes did not have the registered sum.
        let changed = request.redo && matches!(self.fates[at], Fate::Failed(..));
        let taken = !request.redo && !request.header.flags.has(ItemFlags::NEW);
        if changed || taken {
            self.stages[at] = Stage::Declined;
            if taken {
                self.fates[at] = Fate::Taken;
            }
            return Answer::Decline;
        }
        if (self.manner.stopping)() {
            self.stages[at] = Stage::Held;
            return Answer::Decline;
        }
        self.current = Some(at);
        self.jobs[at].way.found(&self.jobs[at], request.sums.head().basis_len(), entry.len);
        Answer::Send
    }

    fn progress(&mut self, bytes: u64) {
        if let Some(at) = self.current {
            self.jobs[at].way.pass(bytes);
        }
        (self.manner.progress)(bytes);
    }

    fn sent(&mut self, ndx: Ndx, _entry: &FileEntry, sent: &Sent, sum: &Sum) {
        let Some(at) = self.job_at(ndx) else { return };
        self.stages[at] = Stage::Sent(*sent);
        if sum.as_bytes() != self.jobs[at].md5 {
            self.fates[at] = Fate::Failed(Failure::Changed, CHANGED.into());
        }
    }

    fn digest(&mut self, ndx: Ndx, digest: &Digest) {
        if let Some(at) = self.job_at(ndx) {
            self.digests[at] = Some(*digest);
        }
    }

    fn unreadable(&mut self, ndx: Ndx, error: &io::Error) {
        if let Some(at) = self.job_at(ndx) {
            self.stages[at] = Stage::Declined;
            self.fates[at] = match error.kind() {
                io::ErrorKind::UnexpectedEof => Fate::Failed(
                    Failure::Changed,
                    "it has changed since it was registered: it was cut off while it was read".into(),
                ),
                _ => Fate::Failed(Failure::Unreadable, format!("it cannot be read: {error}")),
            };
        }
    }

    fn finished(&mut self, ndx: Ndx) {
        let Some(at) = self.job_at(ndx) else { return };
        // The registered sum went out in the list and as the file's sum, so whatever the far end finished has it. What we
        // declined is no proof, whatever the far end says.
        match (self.stages[at], &self.fates[at]) {
            (Stage::Listed, Fate::Open) => {
                let found = Sent { matched_bytes: self.lens[at], ..Sent::default() };
                self.fates[at] = Fate::Proven(found, None);
            }
            // What others have written to in the meantime may be under the name now: a session that was believed dead, or
            // those who helped.
            (Stage::Sent(sent), Fate::Open) if sent.matched_bytes > 0 => {
                self.fates[at] = Fate::Arrived(self.digests[at]);
            }
            (Stage::Sent(sent), Fate::Open) => self.fates[at] = Fate::Proven(sent, self.digests[at]),
            _ => return,
        }
        if let Fate::Proven(sent, _) = &self.fates[at] {
            (self.manner.confirmed)(sent, self.stages[at] == Stage::Listed);
        }
    }

    fn message(&mut self, message: &Message) {
        push_words(&mut self.words, message);
    }
}

/// Keeps what the far end says, up to a limit.
pub(super) fn push_words(words: &mut String, message: &Message) {
    if let Message::Text(_, text) = message
        && words.len() < WORDS_KEPT
    {
        words.push_str(&String::from_utf8_lossy(text));
    }
}

struct BatchSource<'a> {
    jobs: &'a [Job],
    by_ndx: Vec<Option<usize>>,
    sources: &'a Sources,
}

impl BatchSource<'_> {
    fn job(&self, ndx: Ndx) -> Option<&Job> {
        self.jobs.get((*self.by_ndx.get(ndx.0 as usize)?)?)
    }
}

impl Source for BatchSource<'_> {
    type File = PatientFile;

    fn open(&self, ndx: Ndx, _entry: &FileEntry) -> io::Result<PatientFile> {
        let job = self.job(ndx).ok_or(io::ErrorKind::NotFound)?;
        self.sources.open(&job.source)
    }

    fn promised(&self, ndx: Ndx) -> Option<Sum> {
        self.job(ndx).and_then(|job| Sum::new(&job.md5))
    }
}

/// A file that is not what was registered. Its true sum is not told: the log has other readers than the file.
pub(super) const CHANGED: &str = "it has changed since it was registered: its MD5 is another one now";

/// Looks at a source file, see [`look`].
pub(super) fn source_metadata(sources: &Sources, path: &Path) -> Result<Metadata, Fate> {
    look(sources, path).map_err(|lack| Fate::Failed(lack.kind, lack.why))
}

fn file_entry(name: &[u8], meta: &Metadata, sum: Option<Sum>, chmod: Option<&Chmod>) -> FileEntry {
    FileEntry {
        len: meta.len(),
        mtime: meta.mtime(),
        nsec: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
        extra: Extras { sum, ..Extras::default() }.into(),
        ..FileEntry::new(name, 0o100000 | file_mode(meta.mode(), chmod))
    }
}

/// The permissions of a copy. Set-id and sticky bits have no business in an archive, unless they were asked for.
pub(super) fn file_mode(mode: u32, chmod: Option<&Chmod>) -> u32 {
    let mode = mode & 0o777;
    chmod.map_or(mode, |chmod| chmod.apply(mode, false, UMASK))
}

fn parent_entry(name: &[u8], chmod: Option<&Chmod>) -> FileEntry {
    let mode = chmod.map_or(0o755, |chmod| chmod.apply(0o755, true, UMASK));
    let extra = Extras { dir_class: DirClass::Implied, ..Extras::default() }.into();
    FileEntry { extra, ..FileEntry::new(name, 0o40000 | mode) }
}
