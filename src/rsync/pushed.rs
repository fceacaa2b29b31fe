//! What a session in which files go away tells of itself.

use super::output::{Done, Output};
use crate::transfer::scanned::Trouble;
use crate::transfer::send::Sent;
use crate::transfer::{Answer, SendObserver};
use protocol::checksum::Sum;
use protocol::flist::{FileEntry, FileList, Ndx};
use protocol::generator::DeleteCounts;
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::Message;
use protocol::sender::Request;
use std::io;

/// The output of a session in which files go away.
pub(super) struct Pushed<'a> {
    pub(super) output: &'a Output,
    pub(super) trouble: &'a Trouble,
    /// Nothing is given, whatever the far end asks for.
    pub(super) list_only: bool,
    /// The request that is being answered.
    pub(super) current: Option<Current>,
}

pub(super) struct Current {
    header: ItemHeader,
    /// Bytes of its block sums.
    sums: u64,
    len: u64,
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

    fn requested(&mut self, ndx: Ndx, entry: &FileEntry, request: &Request) -> Answer {
        if self.list_only {
            return Answer::Decline;
        }
        let header = &request.header;
        self.output.begin(ndx);
        if header.flags.has(ItemFlags::NEW) && !request.redo {
            self.output.stats(|stats| stats.created(entry));
        }
        self.output.announce(&Done { entry, header, sent: Sent::default(), sums: 0, sum: None });
        let sums = request.sums.head().wire_len();
        self.current = Some(Current { header: header.clone(), sums, len: entry.len });
        Answer::Send
    }

    fn progress(&mut self, bytes: u64) {
        if let Some(current) = &self.current {
            self.output.advance(bytes, current.len);
        }
    }

    fn sent(&mut self, ndx: Ndx, entry: &FileEntry, sent: &Sent, sum: &Sum) {
        if let Some(Current { header, sums, .. }) = self.current.take() {
            self.output.transferred(ndx, &Done { entry, header: &header, sent: *sent, sums, sum: Some(*sum) });
        }
    }

    fn unreadable(&mut self, _ndx: Ndx, _error: &io::Error) {
        self.drain();
    }

    fn finished(&mut self, _ndx: Ndx) {
        self.drain();
    }

    fn item(&mut self, ndx: Ndx, entry: &FileEntry, header: &ItemHeader) {
        self.output.changed(ndx, entry, header);
    }

    fn deleted(&mut self, counts: &DeleteCounts) {
        self.output.stats(|stats| stats.deleted = counts.into());
    }

    fn message(&mut self, message: &Message) {
        self.output.hear(message);
    }
}
