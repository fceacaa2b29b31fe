//! A batch pushed to a program at the far end: the file list without a staging tree, and who answers for what.

mod renames;
mod source;

use super::acknowledging::is_acknowledgement;
use super::append::append;
use super::arguments::{Acknowledged, Demands, hello, server_args};
use super::compression::Coding;
use super::entries::{file_entry, parent_entry};
use super::far_end::FarProgram;
use super::flight::Job;
use super::patience::PatientFile;
use super::shared_file::{Sharing, Staged, StagedFiles};
use super::terms::{NamesSynced, SessionTerms};
use super::unfinished::kept;
use super::verdict::{CHANGED, Carried, LAST_WORDS, Verdict, explain, push_words};
use crate::disk::digest::{Digest, sum_of};
use crate::link::{Closer, Link};
use crate::status::Failure;
use crate::transfer::Sent;
use crate::transfer::{Answer, Listing, SendObserver, SendPlan, greet, send};
use crate::transport::Connect;
use protocol::args::Options;
use protocol::checksum::{Checksum, Sum};
use protocol::chmod::Chmod;
use protocol::flist::{FileEntry, FileList, IdNames, Kind, Ndx};
use protocol::item::ItemFlags;
use protocol::mux::Message;
use protocol::sender::Request;
use renames::Renames;
use source::PushSource;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

/// Pushes a batch to the program that serves there.
pub(super) fn carry(
    jobs: &[Job],
    connect: &mut dyn Connect,
    far_end: Option<FarProgram>,
    sharing: &mut Sharing,
    terms: &SessionTerms,
) -> Result<Carried, String> {
    let settings = &terms.settings;
    // A program that nobody knows may be one that only lets certain options pass.
    let known = far_end.is_some();
    let mut staged = if known { sharing.stage(jobs, connect, terms) } else { StagedFiles::none(jobs.len()) };
    let shared = staged.are_any();
    let appended = if known && !shared { append(jobs, connect, terms) } else { Ok(0) };
    let prepared = match appended {
        Ok(bytes) => shared || bytes > 0,
        Err((error, words)) => {
            let verdicts = vec![Verdict::Open; jobs.len()];
            return Ok(Carried { verdicts, words, ended: Err(error), took: None });
        }
    };
    if prepared {
        terms.counted_before();
    }
    let began = Instant::now();
    let acknowledged = if prepared { Acknowledged::EachFile } else { terms.acknowledged };
    let demands = Demands {
        fsync: far_end.is_some_and(FarProgram::syncs),
        compressed: terms.coding == Coding::Compressed,
        partial: Some(terms.aside(jobs)),
        acknowledged,
    };
    // Else the program there starts while the file is written.
    staged.write_if_long(sharing, terms);
    let link = connect.open(&server_args(&settings.data_dir, demands)).map_err(|error| terms.trouble(&error))?;
    let _guard = terms.guard(link.closer.clone());
    let link = settings.rate.on_writing(link);
    let carried = send_batch((jobs, staged, sharing), link, acknowledged, terms);
    Ok(Carried { took: (!prepared).then(|| began.elapsed()), ..carried })
}

/// Sends a batch, and of each job what was done before, over a link on which a server with [`server_args`] runs.
fn send_batch(
    (jobs, staged, sharing): (&[Job], StagedFiles, &mut Sharing),
    link: Link,
    acknowledged: Acknowledged,
    terms: &SessionTerms,
) -> Carried {
    let mut watch = PushWatch {
        jobs,
        in_place: in_place(&staged, jobs.len(), terms),
        staged,
        sharing,
        renames: Renames::default(),
        by_ndx: Vec::new(),
        verdicts: vec![Verdict::Open; jobs.len()],
        stages: vec![JobStage::Listed; jobs.len()],
        digests: vec![None; jobs.len()],
        current: None,
        lens: vec![0; jobs.len()],
        words: String::new(),
        closer: link.closer.clone(),
        terms,
    };
    let (entries, by_name) = watch.list(terms.settings.chmod.as_ref());
    let list = FileList::new(entries);
    watch.by_ndx = vec![None; list.len()];
    for (ndx, entry) in list.iter().filter(|(_, entry)| entry.kind() == Some(Kind::File)) {
        watch.by_ndx[ndx.0 as usize] = by_name.get(&entry.name).copied();
    }
    let source = PushSource::new(jobs, watch.by_ndx.clone(), watch.lens.clone(), &terms.settings.sources);
    let remote = link.remote.clone();
    let ended = greet(link, hello(terms.coding)).and_then(|session| {
        let options = Options { checksum: true, relative: true, ..Options::default() };
        let plan = SendPlan {
            shape: options.list_shape(Checksum::Md5.size()),
            digests: terms.digests(),
            ..SendPlan::default()
        };
        // What is listed is asked for.
        watch.staged.write(watch.sharing, terms);
        let listing = Listing { list, names: IdNames::default(), io_error: 0 };
        send(session, &plan, |_| Ok((listing, source)), &mut watch)
    });
    let ended = ended.map_err(|error| explain(error, &remote));
    if let (Acknowledged::AtTheEnd, Ok(summary)) = (acknowledged, &ended)
        && is_acknowledgement(summary.ending.as_ref(), &watch.words)
    {
        watch.all_finished();
    }
    watch.have_named();
    let PushWatch { mut verdicts, stages, mut words, by_ndx, .. } = watch;
    if ended.is_err() {
        // What it says last explains the rest.
        remote.wait(LAST_WORDS);
    }
    words.push_str(&remote.stderr());
    if ended.is_ok() && acknowledged == Acknowledged::EachFile {
        for (at, verdict) in verdicts.iter_mut().enumerate() {
            // What was listed and is now left without a word was refused; what never got a place in the list was not.
            let listed = by_ndx.contains(&Some(at));
            if *verdict == Verdict::Open && listed && stages[at] != JobStage::Held {
                *verdict = Verdict::Refused;
            }
        }
    }
    Carried { verdicts, words, ended: ended.map(Some), took: None }
}

/// Which jobs' files are proven where several have written them. They get their names by SFTP, so that is for a far end whose
/// names we have synced.
fn in_place(staged: &StagedFiles, jobs: usize, terms: &SessionTerms) -> Vec<bool> {
    let synced = terms.names_synced == NamesSynced::Afterwards;
    (0..jobs).map(|at| synced && staged.may_be_whole(at)).collect()
}

/// How far a job has come in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobStage {
    Listed,
    /// Its bytes were sent.
    Sent(Sent),
    /// We said no: other bytes are there, or the file is not what was registered.
    Declined,
    /// We were told to stop before it was its turn.
    Held,
}

struct PushWatch<'a> {
    jobs: &'a [Job],
    staged: StagedFiles,
    /// The jobs whose files are listed by the names that they have as unfinished ones.
    in_place: Vec<bool>,
    renames: Renames,
    sharing: &'a mut Sharing,
    by_ndx: Vec<Option<usize>>,
    verdicts: Vec<Verdict>,
    stages: Vec<JobStage>,
    digests: Vec<Option<Digest>>,
    /// The job whose bytes are on their way.
    current: Option<usize>,
    /// How large the files were when they were listed.
    lens: Vec<u64>,
    words: String,
    /// Ends the session in the middle of a file that is not wanted any more.
    closer: Closer,
    terms: &'a SessionTerms,
}

impl PushWatch<'_> {
    /// The entries of all jobs whose files can be had, and of their parents.
    fn list(&mut self, chmod: Option<&Chmod>) -> (Vec<FileEntry>, HashMap<Vec<u8>, usize>) {
        let mut entries = Vec::new();
        let mut parents = BTreeSet::new();
        let mut by_name = HashMap::new();
        let looks = self.terms.look_at(self.jobs);
        for ((at, job), looked) in self.jobs.iter().enumerate().zip(looks) {
            let meta = match looked {
                Ok(meta) => meta,
                Err(why) => {
                    self.verdicts[at] = why;
                    continue;
                }
            };
            let name = match self.in_place[at] {
                true => kept(&self.terms.settings.aside, job).as_os_str().as_bytes().to_vec(),
                false => job.place.variant(job.variant).into_bytes(),
            };
            // Two jobs of one name cannot share a list; the other one stays open for the next session.
            if by_name.contains_key(&name) {
                continue;
            }
            for (slash, _) in name.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                parents.insert(name[..slash].to_vec());
            }
            self.lens[at] = meta.len();
            let mode = self.terms.file_mode(meta.mode());
            entries.push(file_entry(&name, &meta, mode, Sum::new(&job.md5)));
            by_name.insert(name, at);
        }
        entries.extend(parents.into_iter().map(|name| parent_entry(&name, chmod)));
        (entries, by_name)
    }

    /// Everything that was sent has arrived.
    fn all_finished(&mut self) {
        for ndx in (0..self.by_ndx.len()).filter_map(|ndx| u32::try_from(ndx).ok()).map(Ndx) {
            if self.job_at(ndx).is_some_and(|at| matches!(self.stages[at], JobStage::Sent(_))) {
                self.finished(ndx);
            }
        }
    }

    fn job_at(&self, ndx: Ndx) -> Option<usize> {
        *self.by_ndx.get(ndx.0 as usize)?
    }

    /// The far end has the registered bytes where several have written them: the file is to get its name.
    fn found_in_place(&mut self, at: usize) {
        if self.staged.of(at) != Staged::Whole {
            // Somebody who broke off may still be writing to it.
            self.verdicts[at] = Verdict::Arrived(None);
            return;
        }
        let (job, settings) = (&self.jobs[at], &self.terms.settings);
        let base = Path::new(&settings.data_dir);
        let names = (base.join(kept(&settings.aside, job)), base.join(job.place.variant(job.variant)));
        self.renames.begin(at, names, self.sharing, self.terms);
    }

    /// Waits for the names; what has one is proven, and what has none the next session goes on with.
    fn have_named(&mut self) {
        let named = std::mem::take(&mut self.renames).end(self.sharing);
        for at in (0..self.jobs.len()).filter(|at| self.in_place[*at]) {
            match self.verdicts[at] {
                Verdict::Open if named.contains(&at) => {
                    let sent = Sent { matched_bytes: self.lens[at], ..Sent::default() };
                    self.terms.confirmed(&sent);
                    self.verdicts[at] = Verdict::Proven(sent, None);
                }
                Verdict::Open if self.stages[at] != JobStage::Held => self.verdicts[at] = Verdict::Arrived(None),
                _ => {}
            }
        }
    }

    /// Whether the file here is another than the one that was registered; of one that cannot be read now, nothing is known.
    fn has_changed(&self, at: usize) -> bool {
        let Self { terms, jobs, .. } = self;
        let source = terms.settings.sources.open(&jobs[at].source);
        let sum = source.and_then(|file| sum_of(&mut UntilStopped { file, terms }, Checksum::Md5));
        sum.is_ok_and(|(sum, _)| sum.as_bytes() != jobs[at].md5)
    }
}

/// A source that is read for as long as we are not to stop.
struct UntilStopped<'a> {
    file: PatientFile,
    terms: &'a SessionTerms,
}

impl Read for UntilStopped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.terms.stopping() {
            true => Err(io::Error::other("the work is to end")),
            false => self.file.read(buffer),
        }
    }
}

impl SendObserver for PushWatch<'_> {
    fn requested(&mut self, entry: &FileEntry, request: &Request) -> Answer {
        let Some(at) = self.job_at(request.ndx) else { return Answer::Decline };
        // It is only looked at; the next session makes of it what is to be made.
        if self.in_place[at] {
            if request.header.flags.has(ItemFlags::NEW) {
                self.sharing.is_elsewhere();
            }
            self.stages[at] = JobStage::Declined;
            self.verdicts[at] = Verdict::Arrived(None);
            return Answer::Decline;
        }
        if !request.redo && !request.header.flags.has(ItemFlags::NEW) && !self.jobs[at].replaces {
            self.stages[at] = JobStage::Declined;
            self.verdicts[at] = Verdict::Taken;
            return Answer::Decline;
        }
        // Asked for again: what came of it did not have the registered sum.
        if request.redo && !self.terms.stopping() && self.has_changed(at) {
            self.stages[at] = JobStage::Declined;
            self.verdicts[at] = Verdict::Failed(Failure::Changed, CHANGED.into());
            return Answer::Decline;
        }
        if self.terms.stopping() || self.jobs[at].is_recalled() {
            self.stages[at] = JobStage::Held;
            return Answer::Decline;
        }
        self.current = Some(at);
        self.terms.begins(&self.jobs[at].source, entry.len);
        let (job, there) = (&self.jobs[at], request.sums.head().basis_len());
        match self.staged.of(at) {
            Staged::Not => job.resumes(there, entry.len),
            _ => drop(job.headway.found(there)),
        }
        Answer::Send
    }

    fn progress(&mut self, bytes: u64) {
        if let Some(at) = self.current {
            self.jobs[at].headway.pass(bytes);
            if self.jobs[at].is_recalled() {
                self.closer.close();
            }
        }
        self.terms.count(bytes);
    }

    fn sent(&mut self, _entry: &FileEntry, request: &Request, sent: &Sent, _sum: &Sum) {
        if let Some(at) = self.job_at(request.ndx) {
            self.stages[at] = JobStage::Sent(*sent);
        }
    }

    fn digest(&mut self, ndx: Ndx, digest: &Digest) {
        if let Some(at) = self.job_at(ndx) {
            self.digests[at] = Some(*digest);
        }
    }

    fn unreadable(&mut self, ndx: Ndx, error: &io::Error) {
        if let Some(at) = self.job_at(ndx) {
            self.stages[at] = JobStage::Declined;
            self.verdicts[at] = match error.kind() {
                io::ErrorKind::UnexpectedEof => Verdict::Failed(
                    Failure::Changed,
                    "it has changed since it was registered: it was cut off while it was read".into(),
                ),
                _ => Verdict::Failed(Failure::Unreadable, format!("it cannot be read: {error}")),
            };
        }
    }

    fn finished(&mut self, ndx: Ndx) {
        let Some(at) = self.job_at(ndx) else { return };
        // The registered sum went out in the list and as the file's sum, so whatever the far end finished has it. What we
        // declined is no proof, whatever the far end says.
        match (self.stages[at], &self.verdicts[at]) {
            (JobStage::Listed, Verdict::Open) if self.in_place[at] => return self.found_in_place(at),
            (JobStage::Listed, Verdict::Open) => {
                let found = Sent { matched_bytes: self.lens[at], ..Sent::default() };
                self.verdicts[at] = Verdict::Proven(found, None);
            }
            // What others have written to in the meantime may be under the name now: a session that was believed dead, or
            // those who broke off when several wrote it.
            (JobStage::Sent(sent), Verdict::Open) if sent.matched_bytes > 0 && self.staged.of(at) != Staged::Whole => {
                self.verdicts[at] = Verdict::Arrived(self.digests[at]);
            }
            (JobStage::Sent(sent), Verdict::Open) => self.verdicts[at] = Verdict::Proven(sent, self.digests[at]),
            _ => return,
        }
        if let Verdict::Proven(sent, digest) = &self.verdicts[at] {
            match self.stages[at] {
                JobStage::Listed => self.terms.found(sent),
                _ => self.terms.confirmed(sent),
            }
            self.terms.proven(&self.jobs[at], sent, *digest);
        }
    }

    fn message(&mut self, message: &Message) {
        push_words(&mut self.words, message);
    }
}
