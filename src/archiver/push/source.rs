//! The files of a batch, as they are asked for.

use crate::archiver::Sources;
use crate::archiver::flight::Job;
use crate::archiver::patience::{Each, FreshFile, PatientFile};
use crate::transfer::Source;
use protocol::checksum::Sum;
use protocol::flist::{FileEntry, Ndx};
use std::cell::RefCell;
use std::io;

/// Files up to this size are opened and read before they are asked for, where those before them were.
const SMALL: u64 = 64 * 1024;
/// How many at most.
const AHEAD: usize = 16;

pub(super) struct PushSource<'a> {
    jobs: &'a [Job],
    by_ndx: Vec<Option<usize>>,
    /// How large the files of the jobs were when they were listed.
    lens: Vec<u64>,
    sources: &'a Sources,
    ahead: RefCell<OpenAhead>,
}

/// The files that are opened ahead.
#[derive(Default)]
struct OpenAhead {
    /// The one that comes next, if they are asked for in their order.
    next: u32,
    files: Option<Each<FreshFile>>,
}

impl<'a> PushSource<'a> {
    pub(super) fn new(jobs: &'a [Job], by_ndx: Vec<Option<usize>>, lens: Vec<u64>, sources: &'a Sources) -> Self {
        Self { jobs, by_ndx, lens, sources, ahead: RefCell::default() }
    }

    fn job(&self, ndx: Ndx) -> Option<&Job> {
        self.jobs.get(self.at(ndx)?)
    }

    fn at(&self, ndx: Ndx) -> Option<usize> {
        *self.by_ndx.get(ndx.0 as usize)?
    }

    /// Whether an entry of the list is a small file.
    fn is_small(&self, ndx: Ndx) -> bool {
        self.at(ndx).is_some_and(|at| self.lens[at] <= SMALL)
    }

    /// All small files from this one on, up to the next entry that is none.
    fn small_from(&self, ndx: Ndx) -> Each<FreshFile> {
        let small = (ndx.0..).map(Ndx).take_while(|ndx| self.is_small(*ndx));
        let paths = small.filter_map(|ndx| Some(self.job(ndx)?.source.clone())).collect();
        self.sources.open_each(paths, AHEAD)
    }
}

impl Source for PushSource<'_> {
    type File = PatientFile;

    fn open(&self, ndx: Ndx, _entry: &FileEntry) -> io::Result<PatientFile> {
        let job = self.job(ndx).ok_or(io::ErrorKind::NotFound)?;
        let mut ahead = self.ahead.borrow_mut();
        // The first of some is no sign that those behind it will be asked for.
        let follows = ahead.next == ndx.0 && self.is_small(ndx);
        if !follows {
            ahead.files = None;
        } else if ahead.files.is_none() {
            ahead.files = Some(self.small_from(ndx));
        }
        ahead.next = ndx.0 + 1;
        match ahead.files.as_mut().and_then(Iterator::next) {
            Some(opened) => self.sources.opened(opened?, &job.source),
            None => self.sources.open(&job.source),
        }
    }

    fn promised(&self, ndx: Ndx) -> Option<Sum> {
        self.job(ndx).and_then(|job| Sum::new(&job.md5))
    }
}
