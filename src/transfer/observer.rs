//! Who hears how a session goes, at either end.

use super::sent::Sent;
use crate::disk::digest::Digest;
use protocol::checksum::Sum;
use protocol::flist::{FileEntry, FileList, Ndx};
use protocol::generator::DeleteCounts;
use protocol::item::ItemHeader;
use protocol::mux::Message;
use protocol::sender::{FinalStats, Request};
use std::io;

/// An item, as rsync calls it: an entry of the list, and what differs of it.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its index.
    pub ndx: Ndx,
    /// The entry.
    pub entry: &'a FileEntry,
    /// What differs of it.
    pub header: &'a ItemHeader,
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

    /// A file was sent, with this sum: the one that was promised, or else what its bytes came to.
    fn sent(&mut self, _entry: &FileEntry, _request: &Request, _sent: &Sent, _sum: &Sum) {}

    /// What was read of the file that was [sent](SendObserver::sent) just now (only with
    /// [`SendPlan::digests`](super::SendPlan::digests)).
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

/// Hears how a receiving session goes; the generator and the receiver speak to it at the same time.
pub trait ReceiveObserver: Sync {
    /// A list, or the next segment of it, is here; so many bytes it was on the wire.
    fn listed(&self, _list: &FileList, _bytes: u64) {}

    /// An entry of a list that is only to be shown.
    fn entry(&self, _entry: &FileEntry) {}

    /// An entry was changed here, or is to be in a dry run. Also told of unchanged ones where the options ask for it.
    fn item(&self, _item: &Item<'_>) {}

    /// The data of a file begins.
    fn begins(&self, _item: &Item<'_>) {}

    /// So many bytes of the file were rebuilt.
    fn progress(&self, _bytes: u64) {}

    /// The file is whole and in its place.
    fn received(&self, _item: &Item<'_>, _sent: &Sent, _sum: &Sum) {}

    /// The file has come, but is not what it should be; it is asked for once more.
    fn spoilt(&self, _item: &Item<'_>, _sent: &Sent) {}

    /// Words for the user, of the peer or of this side.
    fn message(&self, _message: &Message) {}

    /// Words for the user of this side that are no news for a log, without the end of their line.
    fn aside(&self, _words: &[u8]) {}

    /// Words that this side, a server, tells its client.
    fn told(&self, _message: &Message) {}

    /// The totals of a server that sends.
    fn stats(&self, _stats: &FinalStats) {}
}

impl<F: Fn(&Message) + Sync> ReceiveObserver for F {
    fn message(&self, message: &Message) {
        self(message);
    }
}
