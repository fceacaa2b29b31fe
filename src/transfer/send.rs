//! Sends a list of files. Counterpart: rsync's `send_files`.

mod lists;
mod reply;
mod sending;
mod side;

use super::TransferError;
use super::conversation::Conversation;
use super::filters::ClientRules;
use super::item::Item;
use super::suffixes::Suffixes;
use crate::link::Ending;
use protocol::checksum::Sum;
use protocol::filter::{Rule, RuleSet};
use protocol::flist::{FileEntry, FileList, IdNames, ListShape, Ndx};
use protocol::generator::DeleteCounts;
use protocol::mux::Message;
use protocol::sender::Request;
use side::SenderSide;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};

/// Bytes that may wait in the outbox before they are said.
const OUT_MOST: usize = 256 * 1024;
/// Block sums kept of one file: 24 MiB of memory, enough for a basis of 128 GiB. Beyond, a file is sent whole.
const SUMS_MOST: u32 = 1 << 20;
/// Memory for the sums of one block, bytes.
const SUM_SIZE: u64 = 24;

/// How to send.
#[derive(Debug, Clone, Default)]
pub struct SendPlan {
    /// What the entries of the list carry.
    pub shape: ListShape,
    /// How those rules are read.
    pub client_rules: ClientRules,
    /// Nothing is transferred.
    pub dry_run: bool,
    /// No search for known blocks.
    pub whole_file: bool,
    /// The receiving side writes over its own basis.
    pub in_place: bool,
    /// The receiving side has the beginning of each file already; 2: and proves it.
    pub append: u8,
    /// Most bytes of memory for one purpose (`--max-alloc`), where that is less than our own bounds; 0 for none.
    pub max_alloc: u64,
    /// Names whose files are not worth compressing.
    pub skip_compress: Suffixes,
    /// The user's filter rules, for a server that hears them (see [`Options::receiver_hears_rules`]); else nothing.
    ///
    /// [`Options::receiver_hears_rules`]: protocol::args::Options::receiver_hears_rules
    pub rules: Option<Vec<Rule>>,
    /// The names of what to send come from the peer (`--files-from`).
    pub names_from_peer: bool,
    /// File data goes into the batch file only (`--only-write-batch`).
    pub only_batch: bool,
    /// The user is told what the search for known blocks came to.
    pub tells_matches: bool,
    /// The observer is told the BLAKE3 of each file sent.
    pub digests: bool,
}

impl SendPlan {
    fn sums_most(&self) -> u32 {
        match self.max_alloc {
            0 => SUMS_MOST,
            bytes => u32::try_from(bytes / SUM_SIZE).unwrap_or(u32::MAX).min(SUMS_MOST),
        }
    }
}

/// What the peer asks for before the list is made.
pub struct Asked<'a> {
    /// The client's filter rules, if we are the server and it has any.
    pub rules: Option<RuleSet>,
    /// The names of what to send, where the peer has them.
    pub names: &'a mut Names<'a>,
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

    /// The value of an entry's extended attribute; `None` where there is none.
    fn xattr(&self, _ndx: Ndx, _entry: &FileEntry, _name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// A wanted file could not be read to its end.
    fn broken_off(&self, _ndx: Ndx, _entry: &FileEntry, _error: &io::Error) {}

    /// The sum that was promised for the file, if any. It goes out as the file's sum whatever the bytes are: so the
    /// receiving side itself refuses a file that has changed since.
    fn promised(&self, _ndx: Ndx) -> Option<Sum> {
        None
    }

    /// The receiving side has the entry, whole and under its name (only with `--remove-source-files`). Here a source
    /// that moves rather than copies removes its own.
    fn finished(&self, _ndx: Ndx, _entry: &FileEntry) {}
}

/// Whether a requested file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Send,
    /// No; the receiving side leaves what it has.
    Decline,
}

/// Hears how the transfer goes, and has a say.
pub trait SendObserver {
    /// A list, or the next segment of it, is made and about to be sent.
    fn listed(&mut self, _list: &FileList) {}

    /// The receiving side wants a file.
    fn requested(&mut self, _entry: &FileEntry, _request: &Request) -> Answer {
        Answer::Send
    }

    /// Bytes of the current file were read.
    fn progress(&mut self, _bytes: u64) {}

    /// A file was sent. `sum` is what its bytes came to.
    fn sent(&mut self, _entry: &FileEntry, _request: &Request, _sent: &Sent, _sum: &Sum) {}

    /// What was read of the file that was [sent](SendObserver::sent) just now (only with [`SendPlan::digests`]).
    fn digest(&mut self, _ndx: Ndx, _digest: &Digest) {}

    /// A wanted file could not be opened or read to its end.
    fn unreadable(&mut self, _ndx: Ndx, _error: &io::Error) {}

    /// The receiving side has the file, whole and under its name (only with `--remove-source-files`).
    fn finished(&mut self, _ndx: Ndx) {}

    /// The receiving side tells of a change it made itself.
    fn item(&mut self, _item: &Item<'_>) {}

    /// The receiving side tells how much it deleted.
    fn deleted(&mut self, _counts: &DeleteCounts) {}

    /// The peer said something.
    fn message(&mut self, _message: &Message) {}

    /// The peer's user is told something of the session as a whole.
    fn told(&mut self, _message: &Message) {}

    /// Something the peer's user should hear; asked for until there is nothing more.
    fn words(&mut self) -> Option<Message> {
        None
    }
}

/// Bytes of one sent file, or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Bytes that went over the wire.
    pub literal_bytes: u64,
    /// Bytes the receiving side had already.
    pub matched_bytes: u64,
    /// The blocks that they were found as.
    pub matches: u64,
    /// How often a block's weak sum fitted and its strong sum did not.
    pub false_alarms: u64,
    /// All that went over the wire for them: what was said of each file, its tokens and its sum, as they are compressed.
    pub wire_bytes: u64,
}

/// A file's length and BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Length, bytes.
    pub len: u64,
    /// BLAKE3 of all bytes.
    pub blake3: Sum,
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
