//! The rest of a large unfinished file, behind what is there of it at the far end.
//!
//! An ordinary session that finds an unfinished file as its basis reads it at both ends, so that a file that takes many
//! sessions would be read as often. Where a session broke far behind the beginning of a file, another goes before the
//! ordinary one: it appends (`--append`) to the unfinished file under its own name, and reads nothing of what is there. It
//! proves nothing either. The ordinary session that follows once the file has its length does, as always.

use super::arguments::{append_args, hello};
use super::entries::{file_entry, parent_entry};
use super::flight::Job;
use super::patience::PatientFile;
use super::retry::blames_the_link;
use super::terms::SessionTerms;
use super::unfinished::kept;
use super::verdict::{LAST_WORDS, explain};
use crate::transfer::{Answer, Listing, SendObserver, SendPlan, Source, TransferError, greet, send};
use crate::transport::Connect;
use protocol::args::Options;
use protocol::flist::{FileEntry, FileList, IdNames, Ndx};
use protocol::sender::Request;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// What must be there of a file for a session of its own, bytes: to read less at both ends takes no longer than that session
/// takes to begin.
const PART_LEAST: u64 = 64 << 20;

/// Appends what is missing of the unfinished files, as far as that is worth a session. Returns the bytes that went over. An
/// error is the link's; where the far end does not want to append, the ordinary session sends what is missing.
pub(super) fn append(
    jobs: &[Job],
    connect: &mut dyn Connect,
    terms: &SessionTerms,
) -> Result<u64, (TransferError, String)> {
    let begun: Vec<_> = jobs.iter().filter(|job| job.headway.left_at() >= PART_LEAST).collect();
    let Some((entries, jobs)) = list(&begun, terms) else { return Ok(0) };
    let settings = &terms.settings;
    // What keeps this session from beginning keeps the next one, too, which says it.
    let Ok(link) = connect.open(&append_args(&settings.data_dir, terms.coding)) else { return Ok(0) };
    let _guard = terms.guard(link.closer.clone());
    let link = settings.rate.on_writing(link);
    let remote = link.remote.clone();
    let list = FileList::new(entries);
    let job_of = |ndx: Ndx| list.get(ndx).and_then(|entry| jobs.iter().find(|(name, _)| *name == entry.name));
    let by_ndx: Vec<_> = list.iter().map(|(ndx, _)| job_of(ndx).map(|(_, job)| *job)).collect();
    let source = RestSource { by_ndx: &by_ndx, terms };
    let mut watch = AppendWatch { by_ndx: &by_ndx, current: None, terms, moved: 0 };
    let ended = greet(link, hello(terms.coding)).and_then(|session| {
        let options = Options { relative: true, append: 1, ..Options::default() };
        let plan = SendPlan { shape: options.list_shape(0), append: 1, ..SendPlan::default() };
        let listing = Listing { list, names: IdNames::default(), io_error: 0 };
        send(session, &plan, |_| Ok((listing, source)), &mut watch)
    });
    match ended.map_err(|error| explain(error, &remote)) {
        Err(error) if blames_the_link(&error) && watch.moved > 0 => {
            remote.wait(LAST_WORDS);
            Err((error, remote.stderr()))
        }
        // A disk that is full, a file that may not be written: the ordinary session hears of it as of any other trouble.
        Err(error) => {
            tracing::debug!("Not all was appended: {error}");
            Ok(watch.moved)
        }
        Ok(_) => Ok(watch.moved),
    }
}

/// The names of files that lack something, and their jobs.
type JobsByName<'a> = Vec<(Vec<u8>, &'a Job)>;

/// The entries of what is to be appended to, and of their parents; nothing where no file lacks anything.
fn list<'a>(begun: &[&'a Job], terms: &SessionTerms) -> Option<(Vec<FileEntry>, JobsByName<'a>)> {
    let (mut entries, mut jobs, mut parents) = (Vec::new(), Vec::new(), BTreeSet::new());
    for job in begun {
        // Whatever is wrong with a source, the ordinary session tells.
        let Ok(meta) = terms.source_metadata(&job.source) else { continue };
        if meta.len() <= job.headway.left_at() {
            continue;
        }
        let path = kept(&terms.settings.aside, job);
        let name = path.as_os_str().as_bytes().to_vec();
        let above = path.ancestors().skip(1).map(|path| path.as_os_str().as_bytes().to_vec());
        parents.extend(above.filter(|name| !name.is_empty()));
        entries.push(file_entry(&name, &meta, terms.file_mode(meta.mode()), None));
        jobs.push((name, *job));
    }
    entries.extend(parents.into_iter().map(|name| parent_entry(&name, terms.settings.chmod.as_ref())));
    (!jobs.is_empty()).then_some((entries, jobs))
}

/// The sources of files that are appended to.
struct RestSource<'a> {
    by_ndx: &'a [Option<&'a Job>],
    terms: &'a SessionTerms,
}

impl Source for RestSource<'_> {
    type File = PatientFile;

    fn open(&self, ndx: Ndx, _entry: &FileEntry) -> io::Result<PatientFile> {
        let job = self.by_ndx.get(ndx.0 as usize).copied().flatten().ok_or(io::ErrorKind::NotFound)?;
        self.terms.settings.sources.open(&job.source)
    }
}

struct AppendWatch<'a> {
    by_ndx: &'a [Option<&'a Job>],
    current: Option<&'a Job>,
    terms: &'a SessionTerms,
    moved: u64,
}

impl SendObserver for AppendWatch<'_> {
    fn requested(&mut self, entry: &FileEntry, request: &Request) -> Answer {
        let job = self.by_ndx.get(request.ndx.0 as usize).copied().flatten();
        let there = request.sums.head().basis_len();
        // What is gone, or does not come to the sum that it should, is for the ordinary session to mend.
        let wanted = there >= PART_LEAST && !request.redo && !self.terms.stopping();
        let Some(job) = job.filter(|job| wanted && job.headway.may_append(there)) else { return Answer::Decline };
        job.resumes(there, entry.len);
        job.headway.pass(there);
        self.current = Some(job);
        Answer::Send
    }

    fn progress(&mut self, bytes: u64) {
        if let Some(job) = self.current {
            job.headway.pass(bytes);
        }
        self.moved += bytes;
        self.terms.count(bytes);
    }
}
