//! What a session in which files go away tells of itself.

use super::output::{Done, Output};
use crate::transfer::Sent;
use crate::transfer::scanned::Trouble;
use crate::transfer::{Answer, Item, SendObserver};
use protocol::checksum::Sum;
use protocol::flist::{FileEntry, FileList, Ndx};
use protocol::generator::DeleteCounts;
use protocol::item::ItemFlags;
use protocol::mux::Message;
use protocol::sender::Request;
use std::io;

/// The output of a session in which files go away.
pub(super) struct Pushed<'a> {
    pub(super) output: &'a Output,
    pub(super) trouble: &'a Trouble,
    /// Nothing is given, whatever the far end asks for.
    pub(super) list_only: bool,
    /// Length of the file that is being sent.
    pub(super) len: u64,
}

impl Pushed<'_> {
    /// Says what went wrong meanwhile.
    pub(super) fn drain(&self) {
        while let Some(word) = self.trouble.word() {
            self.output.hear(&word);
        }
    }
}

impl SendObserver for Pushed<'_> {
    fn listed(&mut self, list: &FileList) {
        self.drain();
        self.output.list(list);
    }

    fn requested(&mut self, entry: &FileEntry, request: &Request) -> Answer {
        if self.list_only {
            return Answer::Decline;
        }
        let header = &request.header;
        self.output.begin(request.ndx);
        if header.flags.has(ItemFlags::NEW) && !request.redo {
            self.output.stats(|stats| stats.created(entry));
        }
        self.output.announce(&Done { entry, header, sent: Sent::default(), sums: 0, sum: None });
        self.len = entry.len;
        Answer::Send
    }

    fn progress(&mut self, bytes: u64) {
        self.output.advance(bytes, self.len);
    }

    fn sent(&mut self, entry: &FileEntry, request: &Request, sent: &Sent, sum: &Sum) {
        let (header, sums) = (&request.header, request.sums.head().wire_len());
        self.output.transferred(request.ndx, &Done { entry, header, sent: *sent, sums, sum: Some(*sum) });
    }

    fn unreadable(&mut self, _ndx: Ndx, _error: &io::Error) {
        self.drain();
    }

    fn finished(&mut self, _ndx: Ndx) {
        self.drain();
    }

    fn item(&mut self, item: &Item<'_>) {
        self.output.changed(item);
    }

    fn deleted(&mut self, counts: &DeleteCounts) {
        self.output.stats(|stats| stats.deleted = counts.into());
    }

    fn message(&mut self, message: &Message) {
        self.output.hear(message);
    }
}
