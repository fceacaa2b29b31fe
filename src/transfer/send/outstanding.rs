//! What was heard and is to be told in its turn, behind a file that somebody else may bring.

use crate::transfer::help::{Brought, Help, HelpTicket, OfferedFile};
use crate::transfer::observer::SendObserver;
use crate::transfer::sent::Sent;
use protocol::checksum::Sum;
use protocol::flist::{FileEntry, Ndx};
use protocol::mux::Message;
use protocol::sender::{Request, SenderEvent};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// What may wait behind a file that a helper has; beyond, nothing more is heard until that is told.
const AHEAD_MOST: usize = 8192;

/// What was heard, and is told in its turn.
pub(super) enum Due {
    /// A file that was put up.
    Offered(Request, HelpTicket),
    /// One that was sent ahead of its turn; nothing where it could not be read.
    Sent(Request, Option<Brought>),
    /// Anything else.
    Other(SenderEvent),
}

/// What waits for its turn, the oldest first.
pub(super) struct Outstanding {
    pub(super) help: Option<Arc<Help<OfferedFile>>>,
    pub(super) due: VecDeque<Due>,
}

impl Outstanding {
    pub(super) fn new(help: Option<Arc<Help<OfferedFile>>>) -> Self {
        Self { help, due: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.due.len() >= AHEAD_MOST
    }
}

/// Keeps what there is to tell of a file that is sent ahead of its turn.
pub(super) struct QuietObserver<'a> {
    told: &'a mut dyn SendObserver,
    sent: &'a mut Option<Brought>,
}

impl<'a> QuietObserver<'a> {
    pub(super) fn new(told: &'a mut dyn SendObserver, sent: &'a mut Option<Brought>) -> Self {
        Self { told, sent }
    }
}

impl SendObserver for QuietObserver<'_> {
    fn sent(&mut self, _entry: &FileEntry, _request: &Request, sent: &Sent, sum: &Sum) {
        *self.sent = Some(Brought { sent: *sent, sum: *sum });
    }

    fn unreadable(&mut self, ndx: Ndx, error: &io::Error) {
        self.told.unreadable(ndx, error);
    }

    fn finished(&mut self, ndx: Ndx) {
        self.told.finished(ndx);
    }

    fn message(&mut self, message: &Message) {
        self.told.message(message);
    }
}
