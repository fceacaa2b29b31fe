//! Sends a list of files. Counterpart: rsync's `send_files`.

mod ahead;
mod lists;
mod outstanding;
mod reply;
mod sending;
mod side;

use super::TransferError;
use super::charset;
use super::conversation::Conversation;
use super::help::OpenApart;
use super::observer::SendObserver;
use super::plan::SendPlan;
use super::sent::Sent;
use crate::link::Ending;
use protocol::args::Options;
use protocol::checksum::Sum;
use protocol::filter::RuleSet;
use protocol::flist::{FileEntry, FileList, IdNames, Ndx};
use side::SenderSide;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};

/// Bytes that may wait in the outbox before they are said.
const OUT_MOST: usize = 256 * 1024;

/// What the peer asks for before the list is made.
pub struct Asked<'a> {
    /// The client's filter rules, if we are the server and it has any.
    pub rules: Option<RuleSet>,
    /// The names of what to send, where the peer has them.
    pub names: &'a mut Names<'a>,
}

impl Asked<'_> {
    /// The peer's names as this side looks them up.
    pub(crate) fn names_here<'b>(self, options: &'b Options) -> Box<Names<'b>>
    where
        Self: 'b,
    {
        Box::new(self.names.map(|name| Ok(charset::from_peer(&name?, options))))
    }
}

/// Names of what to send, heard or read as far as they are asked for: all of them may be more than memory holds.
pub type Names<'a> = dyn Iterator<Item = Result<Vec<u8>, TransferError>> + 'a;

/// A file list, or a segment of one, with what goes with it.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The files.
    pub list: FileList,
    /// Names of owners and groups; of a segment only those that none before had.
    pub names: IdNames,
    /// Bits of trouble while it was made.
    pub io_error: i32,
}

/// A file as a source hands it over: read from where it stands.
pub trait FileContent: Read + Seek {
    /// What it is, and how long.
    fn metadata(&self) -> io::Result<Metadata>;
}

impl FileContent for File {
    fn metadata(&self) -> io::Result<Metadata> {
        File::metadata(self)
    }
}

/// Where the bytes come from.
pub trait Source {
    /// What it opens.
    type File: FileContent;

    /// The list's next segment, and the number of the directory whose contents it is; `None` after the last one. Asked for
    /// as the receiving side gets on, and only with incremental recursion.
    fn next_segment(&mut self) -> Option<Result<(u32, Listing), TransferError>> {
        None
    }

    /// The oldest segment is finished: none of its files will be asked for again.
    fn release(&mut self) {}

    /// Opens a regular file of the list.
    fn open(&self, ndx: Ndx, entry: &FileEntry) -> io::Result<Self::File>;

    /// What opens the same file in another thread; `None` where nothing does, and nobody else can send it.
    fn apart(&self, _ndx: Ndx, _entry: &FileEntry) -> Option<OpenApart> {
        None
    }

    /// The value of an entry's extended attribute; `None` where there is none.
    fn xattr(&self, _ndx: Ndx, _entry: &FileEntry, _name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// A wanted file could not be read to its end.
    fn broken_off(&self, _ndx: Ndx, _entry: &FileEntry, _error: &io::Error) {}

    /// The sum that was promised for the file, if any. It goes out as the file's sum whatever the bytes are, which
    /// are not summed here: the receiving side itself refuses a file that has changed since.
    fn promised(&self, _ndx: Ndx) -> Option<Sum> {
        None
    }

    /// The receiving side has the entry, whole and under its name (only with `--remove-source-files`). Here a source
    /// that moves rather than copies removes its own.
    fn finished(&self, _ndx: Ndx, _entry: &FileEntry) {}
}

/// What a session came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Files sent.
    pub files: u64,
    /// Their bytes.
    pub sent: Sent,
    /// Bytes written to the link.
    pub written_bytes: u64,
    /// Bytes read from the link.
    pub read_bytes: u64,
    /// How the far end's program ended; `None` when it did not within seconds.
    pub ending: Option<Ending>,
    /// What it said on its error output.
    pub stderr: String,
}

/// Sends the files that `listing` gives, as far as the receiving side wants them. `listing` is called once, with the
/// client's filter rules if we are the server, and the names to send if the peer has them; with incremental recursion it
/// gives the first segment only, and the source the others.
pub fn send<S: Source>(
    mut conversation: Conversation,
    plan: &SendPlan,
    listing: impl FnOnce(Asked<'_>) -> Result<(Listing, S), TransferError>,
    observer: &mut dyn SendObserver,
) -> Result<Summary, TransferError> {
    conversation.writer.batch = conversation.batch.take();
    if let Some(help) = &plan.help {
        let waker = conversation.reader.hear_news(plan.silence_most())?;
        help.tell(Box::new(move || waker.wake()));
    }
    let (files, sent) = match SenderSide::new(&mut conversation, plan, observer).converse(listing) {
        Ok(done) => done,
        Err(error) => return Err(conversation.abort(error)),
    };
    let Conversation { server, mut reader, writer, .. } = conversation;
    let (written_bytes, read_bytes) = (writer.written, reader.read);
    drop(writer);
    // The client waits for a server to leave, not the other way round.
    let ending = if server { None } else { reader.await_end()? };
    Ok(Summary { files, sent, written_bytes, read_bytes, ending, stderr: reader.remote.stderr() })
}
