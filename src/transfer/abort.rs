//! Ending a session before its time, so that the peer hears why. Counterpart: `MSG_ERROR_EXIT` in rsync's `exit_cleanup`.

use super::TransferError;
use super::conversation::{Conversation, LinkReader};
use crate::link::Closer;
use protocol::PeerError;
use protocol::handshake::Negotiated;
use protocol::mux::{ACKNOWLEDGEMENT_MOST, Message, Outbox, TextKind, ends_in_error_exit};
use std::sync::mpsc;
use std::time::Duration;

/// How long the peer may take to hang up once it has been told.
pub(super) const HANG_UP: Duration = Duration::from_secs(5);

/// How long one that cannot be told to leave may go on speaking.
const MOMENT: Duration = Duration::from_secs(1);

/// What the peer is told of an error.
#[derive(Debug, Clone)]
pub(super) struct LastWords {
    code: i32,
    /// For the client's user, where we are its server.
    text: Option<String>,
}

impl LastWords {
    /// `None` where there is nobody left to tell. Only a `server` has words: a client's user hears of it anyway.
    pub(super) fn new(error: &TransferError, server: bool) -> Option<Self> {
        match error {
            error if is_link(error) => None,
            TransferError::Peer(PeerError::Exit(code)) => Some(Self { code: *code, text: None }),
            error => {
                let text = error.to_string();
                let who = if error.is_signed() { "rsync: " } else { "" };
                Some(Self { code: error.exit_code(), text: server.then(|| format!("{who}{text}\n")) })
            }
        }
    }

    pub(super) fn put(self, agreed: &Negotiated, out: &mut Outbox) {
        if let Some(text) = self.text {
            out.message(&Message::Text(TextKind::Error, text.into()));
        }
        if agreed.version >= 31 {
            out.message(&Message::ErrorExit(Some(self.code)));
        }
    }
}

impl Conversation {
    /// Tells the peer why and waits for it to hang up: a link that is closed at once may break under what it still writes,
    /// and then it never reads our reason.
    pub(super) fn abort(mut self, error: TransferError) -> TransferError {
        if is_link(&error) {
            return error;
        }
        // A peer that has given up by itself only waits for the acknowledgement, which is in the outbox already.
        let gave_up = matches!(error, TransferError::Peer(PeerError::Exit(_)));
        if let Some(words) = LastWords::new(&error, self.server).filter(|_| !gave_up) {
            words.put(&self.agreed, &mut self.writer.out);
        }
        if self.writer.flush().is_ok() {
            self.hear_out();
        }
        error
    }

    /// Ends a session before it has begun, with these words for the client's user. `code` is the exit code of both ends.
    pub(crate) fn refuse(mut self, text: &str, code: i32) {
        LastWords { code, text: Some(format!("{text}\n")) }.put(&self.agreed, &mut self.writer.out);
        if self.writer.flush().is_ok() {
            self.hear_out();
        }
    }

    /// Tells the client, ahead of everything else, after how many seconds of silence this end gives up.
    pub(crate) fn tell_timeout(&mut self, seconds: i32) {
        if self.agreed.version >= 31 {
            self.writer.out.message(&Message::IoTimeout(seconds));
        }
    }

    /// Hears a peer out that has been told why. A client that still writes takes the end of our stream for a connection
    /// that broke, and reads no word; one that has acknowledged it, and a server, wait for that end.
    pub(super) fn hear_out(self) {
        let Self { agreed, server, writer, mut reader, closer, .. } = self;
        let limit = if server && agreed.version < 31 { MOMENT } else { HANG_UP };
        let open = server.then_some(writer);
        within(limit, &closer, || {
            let mut end = Vec::new();
            while let Ok(bytes) = reader.read() {
                end.extend_from_slice(&bytes[bytes.len().saturating_sub(ACKNOWLEDGEMENT_MOST)..]);
                end.drain(..end.len().saturating_sub(ACKNOWLEDGEMENT_MOST));
                if server && agreed.version >= 31 && ends_in_error_exit(&end) {
                    break;
                }
            }
        });
        drop(open);
        await_hang_up(&mut reader, &closer);
    }
}

pub(super) fn is_link(error: &TransferError) -> bool {
    matches!(error, TransferError::Link(_) | TransferError::Stalled(_) | TransferError::Remote { .. })
}

/// Reads until the peer has hung up; closes the link when it does not.
pub(super) fn await_hang_up(reader: &mut LinkReader, closer: &Closer) {
    within(HANG_UP, closer, || while reader.read().is_ok() {});
}

/// Does what waits for the peer, and closes the link under it when it takes too long.
pub(super) fn within<T>(limit: Duration, closer: &Closer, act: impl FnOnce() -> T) -> T {
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                closer.close();
            }
        });
        let result = act();
        drop(done);
        result
    })
}
