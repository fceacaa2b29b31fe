//! Directories on the way to copies, where they are to have permissions (`--chmod`).
//!
//! A receiver that is sent a directory puts it in the place of a file of that name, and the file may be a proven copy. So
//! sessions that send files leave directories to it, which it makes as they are needed; those that are to have permissions
//! are made before, by a session of their own that leaves alone what is there (`--ignore-existing`), each once.

use super::arguments::{folder_args, hello};
use super::compression::Coding;
use super::entries::parent_entry;
use super::flight::Job;
use super::terms::SessionTerms;
use super::verdict::explain;
use crate::transfer::{Answer, Listing, SendObserver, SendPlan, Sent, Source, Summary, TransferError, greet, send};
use crate::transport::Connect;
use protocol::args::Options;
use protocol::checksum::Sum;
use protocol::chmod::Chmod;
use protocol::flist::{FileEntry, FileList, IdNames, Ndx};
use protocol::mux::Message;
use protocol::sender::Request;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;

/// Directories that are remembered.
const KNOWN_MOST: usize = 20_000;

/// The directories that have their permissions, as far as this worker knows.
#[derive(Debug, Default)]
pub(super) struct MadeFolders {
    known: HashSet<Vec<u8>>,
    /// The far end does not want such sessions.
    refused: bool,
}

impl MadeFolders {
    /// Makes those that are missing on the way to these jobs' places. Where that cannot be, they get the permissions that the
    /// far end gives them: what else is wrong the session says that sends the files.
    pub(super) fn make(&mut self, jobs: &[Job], connect: &mut dyn Connect, terms: &SessionTerms) {
        let Some(chmod) = terms.settings.chmod.as_ref().filter(|_| !self.refused) else { return };
        let mut wanted = BTreeSet::new();
        for job in jobs {
            let name = job.place.variant(job.variant).into_bytes();
            for (slash, _) in name.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                if !self.known.contains(&name[..slash]) {
                    wanted.insert(name[..slash].to_vec());
                }
            }
        }
        if wanted.is_empty() {
            return;
        }
        match session(&wanted, chmod, connect, terms) {
            // What keeps this session from beginning keeps the next one, too, which says it.
            Ok(None) => {}
            Ok(Some(_)) => {
                if self.known.len() + wanted.len() > KNOWN_MOST {
                    self.known.clear();
                }
                self.known.extend(wanted.into_iter().take(KNOWN_MOST));
            }
            Err(error) => {
                // The link's trouble the next session meets, too.
                self.refused = !super::retry::blames_the_link(&error);
                tracing::debug!(host = connect.describe(), "Directories are made without permissions of ours: {error}");
            }
        }
    }

    /// Whoever is reached next may be another.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Makes them; `None` where there could be no session.
fn session(
    wanted: &BTreeSet<Vec<u8>>,
    chmod: &Chmod,
    connect: &mut dyn Connect,
    terms: &SessionTerms,
) -> Result<Option<Summary>, TransferError> {
    let Ok(link) = connect.open(&folder_args(&terms.settings.data_dir)) else { return Ok(None) };
    let _guard = terms.guard(link.closer.clone());
    let remote = link.remote.clone();
    let entries = wanted.iter().map(|name| parent_entry(name, Some(chmod))).collect();
    let done = greet(link, hello(Coding::Plain)).and_then(|session| {
        let options = Options { relative: true, ..Options::default() };
        let plan = SendPlan { shape: options.list_shape(0), ..SendPlan::default() };
        let listing = Listing { list: FileList::new(entries), names: IdNames::default(), io_error: 0 };
        send(session, &plan, |_| Ok((listing, NoFiles)), &mut NothingToSend)
    });
    done.map(Some).map_err(|error| explain(error, &remote))
}

/// There are no files in such a session.
struct NoFiles;

impl Source for NoFiles {
    type File = File;

    fn open(&self, _ndx: Ndx, _entry: &FileEntry) -> io::Result<File> {
        Err(io::ErrorKind::NotFound.into())
    }
}

struct NothingToSend;

impl SendObserver for NothingToSend {
    fn requested(&mut self, _entry: &FileEntry, _request: &Request) -> Answer {
        Answer::Decline
    }

    fn sent(&mut self, _entry: &FileEntry, _request: &Request, _sent: &Sent, _sum: &Sum) {}

    fn message(&mut self, _message: &Message) {}
}
