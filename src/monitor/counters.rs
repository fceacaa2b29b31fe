//! What became of messages, for whoever asks.

use crate::status::Ongoing;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Counts of this run and how it stands; all may be read at any time.
#[derive(Debug, Default)]
pub(crate) struct MonitorCounters {
    /// Datagrams taken from the socket, and messages of other sources.
    pub(crate) received: AtomicU64,
    /// Those of senders that are not allowed.
    pub(crate) strangers: AtomicU64,
    /// Those that register no file.
    pub(crate) others: AtomicU64,
    /// Those that are in the spool for good.
    pub(crate) spooled: AtomicU64,
    /// Those for which there was no room, neither in the spool nor in memory.
    pub(crate) lost: AtomicU64,
    /// Those that the kernel had no room for, of this socket.
    pub(crate) dropped: AtomicU64,
    /// Numbers that publishers have used and nobody received.
    pub(crate) gaps: AtomicU64,
    /// Rows that were written.
    pub(crate) registered: AtomicU64,
    /// Refusals of this run.
    pub(crate) rejected: AtomicU64,
    /// Messages taken in hand and not registered yet, but for those below.
    pub(crate) at_work: AtomicU64,
    /// Those that wait for their file.
    pub(crate) waiting: AtomicU64,
    /// Refusals that are kept.
    pub(crate) rejects: AtomicU64,
    /// Bytes of the spool.
    pub(crate) spool_bytes: AtomicU64,
    /// How often all was looked at that there is.
    pub(crate) turns: AtomicU64,
    troubles: Mutex<MonitorTroubles>,
}

/// What is in the way now, in words.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MonitorTroubles {
    pub(crate) database: Option<Ongoing>,
    pub(crate) spool: Option<String>,
}

impl MonitorTroubles {
    /// What is in the way, the spool first.
    pub(crate) fn why(&self) -> Option<&str> {
        self.spool.as_deref().or_else(|| self.database.as_ref().map(|trouble| trouble.why.as_str()))
    }
}

/// How a monitor stands at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MonitorSnapshot {
    pub(crate) received: u64,
    pub(crate) strangers: u64,
    pub(crate) others: u64,
    pub(crate) spooled: u64,
    pub(crate) lost: u64,
    pub(crate) dropped: u64,
    pub(crate) gaps: u64,
    pub(crate) registered: u64,
    pub(crate) rejected: u64,
    pub(crate) at_work: u64,
    pub(crate) waiting: u64,
    pub(crate) rejects: u64,
    pub(crate) spool_bytes: u64,
    pub(crate) troubles: MonitorTroubles,
}

impl MonitorCounters {
    /// How it stands.
    pub(crate) fn snapshot(&self) -> MonitorSnapshot {
        let of = |count: &AtomicU64| count.load(Relaxed);
        MonitorSnapshot {
            received: of(&self.received),
            strangers: of(&self.strangers),
            others: of(&self.others),
            spooled: of(&self.spooled),
            lost: of(&self.lost),
            dropped: of(&self.dropped),
            gaps: of(&self.gaps),
            registered: of(&self.registered),
            rejected: of(&self.rejected),
            at_work: of(&self.at_work),
            waiting: of(&self.waiting),
            rejects: of(&self.rejects),
            spool_bytes: of(&self.spool_bytes),
            troubles: self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Something else is in the way, or nothing any more.
    pub(super) fn set_trouble<T>(&self, set: impl FnOnce(&mut MonitorTroubles) -> T) -> T {
        set(&mut self.troubles.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MonitorSnapshot {
    /// In one line.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{} received, {} registered", self.received, self.registered);
        for (count, what) in [
            (self.at_work, "at work"),
            (self.waiting, "waiting for their file"),
            (self.rejects, "rejected"),
            (self.dropped, "dropped by the kernel"),
            (self.lost, "lost"),
            (self.gaps, "never received"),
            (self.strangers, "of strangers"),
        ] {
            if count > 0 {
                line.push_str(&format!(", {count} {what}"));
            }
        }
        if let Some(why) = self.troubles.why() {
            line.push_str(&format!("; waiting: {}", why.replace(char::is_control, " ")));
        }
        line
    }
}
