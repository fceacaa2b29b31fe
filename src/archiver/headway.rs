//! How a file comes on where it needs more than one session to arrive.

use crate::disk::digest::Digest;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What a session must have moved to have got on; less may all have been lost on the way.
const STEP_LEAST: u64 = 64 * 1024;

/// How a file has come on, over all its sessions.
#[derive(Debug, Default)]
pub(super) struct Headway {
    /// Bytes that were there when the latest session came to it.
    found: AtomicU64,
    /// How far that session came.
    at: AtomicU64,
    /// How far the one before came that came to it.
    left_at: AtomicU64,
    /// What the latest session found that appended; all there can be once one has left nothing.
    appended_to: AtomicU64,
    /// What a session must find to have got on.
    due: u64,
    /// A session has had it.
    begun: AtomicBool,
    /// It has been told that it is resumed.
    told: AtomicBool,
    /// Several sessions have begun to write it.
    staged: AtomicBool,
    /// The digest of what was sent, where it has yet to be found whole under its name.
    pub(super) arrived: Option<Digest>,
}

impl Headway {
    /// A session begins.
    pub(super) fn begin(&self) {
        self.begun.store(true, Relaxed);
        self.found.store(0, Relaxed);
        match self.at.swap(0, Relaxed) {
            0 => {}
            at => self.left_at.store(at, Relaxed),
        }
    }

    /// Whether no session has had it yet.
    pub(super) fn is_new(&self) -> bool {
        !self.begun.load(Relaxed)
    }

    /// About how much of the file the last session that came to it has left at the far end, bytes.
    pub(super) fn left_at(&self) -> u64 {
        self.left_at.load(Relaxed)
    }

    /// A session goes on behind so many bytes; true the first time that there are any.
    pub(super) fn found(&self, bytes: u64) -> bool {
        self.found.store(bytes, Relaxed);
        bytes > 0 && !self.told.swap(true, Relaxed)
    }

    /// Whether to append to so many bytes. Where that left nothing the time before, the far end cannot write to the file.
    pub(super) fn may_append(&self, there: u64) -> bool {
        let grew = there > self.appended_to.load(Relaxed);
        self.appended_to.store(if grew { there } else { u64::MAX }, Relaxed);
        grew
    }

    /// A session has come so much further, what was there included.
    pub(super) fn pass(&self, bytes: u64) {
        self.at.fetch_add(bytes, Relaxed);
    }

    /// Whether something of the file may be at the far end.
    pub(super) fn has_begun(&self) -> bool {
        self.at.load(Relaxed) > 0 || self.left_at() > 0 || self.told.load(Relaxed) || self.staged.load(Relaxed)
    }

    /// Several sessions begin to write it.
    pub(super) fn is_staged(&self) {
        self.staged.store(true, Relaxed);
    }

    /// Whether the session that broke got on: it moved something, and found more than the one before.
    pub(super) fn advance(&mut self) -> bool {
        let found = self.found.load(Relaxed);
        if self.at.load(Relaxed) < found + STEP_LEAST {
            return false;
        }
        // The next must find more again, be it that this one began anew.
        found >= std::mem::replace(&mut self.due, found + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_as_it_is_is_not_appended_to_again() {
        let headway = Headway::default();
        assert!([100, 160, 220].into_iter().all(|there| headway.may_append(there)));
        assert!([220, 280, u64::MAX].into_iter().all(|there| !headway.may_append(there)));
    }

    #[test]
    fn a_session_gets_on_if_what_it_moved_is_found_by_the_next() {
        let mut headway = Headway::default();
        let mut session = |found, at| {
            headway.begin();
            headway.found.store(found, Relaxed);
            headway.pass(at);
            headway.advance()
        };
        assert!(!session(0, 1000), "nothing to speak of");
        assert!(session(0, 300_000), "it may be there");
        assert!(!session(0, 300_000), "it was not");
        assert!(session(200_000, 500_000));
        assert!(!session(400_000, 400_000), "it found more and moved nothing");
        assert!(session(400_000, 700_000));
        assert!(!session(400_000, 700_000), "nothing stayed");
        assert!(!session(0, 400_000), "it begins anew");
        assert!(session(300_000, 600_000));
    }
}
