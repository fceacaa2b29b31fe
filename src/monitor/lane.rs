//! The messages of one archive between spool and table, in the order of their arrival.

use super::frame::SpooledMessage;
use super::notice::ArchiveName;
use crate::catalog::announced::AnnouncedFile;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Those behind a file that is being summed wait so long for it, and then it comes later.
pub(super) const HOLD: Duration = Duration::from_secs(30);

/// A message in hand.
pub(super) struct LaneEntry {
    pub(super) message: SpooledMessage,
    pub(super) stage: EntryStage,
}

/// How far a message has come.
#[derive(Debug)]
pub(super) enum EntryStage {
    /// Its file is being read, since then.
    Summing(Instant),
    Ready(Box<AnnouncedFile>),
    /// To be set aside and tried again, for this reason.
    ToWait(String),
    /// To be set aside for good.
    ToReject(String),
    /// It was set aside.
    Aside,
    /// Nothing comes of it.
    Void,
}

/// The messages of an archive.
pub(super) struct ArchiveLane {
    pub(super) archive: ArchiveName,
    /// Below this all is done, and the table says so.
    pub(super) position: u64,
    entries: VecDeque<LaneEntry>,
}

impl ArchiveLane {
    pub(super) fn new(archive: ArchiveName) -> Self {
        Self { archive, position: 0, entries: VecDeque::new() }
    }

    /// Forgets what is in hand, and begins there.
    pub(super) fn begin(&mut self, position: u64) {
        self.position = position;
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// One more, which came after all others.
    pub(super) fn push(&mut self, message: SpooledMessage, stage: EntryStage) {
        self.entries.push_back(LaneEntry { message, stage });
    }

    /// The number of the first message that is not done.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.message.number)
    }

    pub(super) fn entry(&mut self, number: u64) -> Option<&mut LaneEntry> {
        let at = self.entries.binary_search_by_key(&number, |entry| entry.message.number).ok()?;
        self.entries.get_mut(at)
    }

    /// Files that take too long are ones that wait.
    pub(super) fn let_go(&mut self) {
        for entry in &mut self.entries {
            match entry.stage {
                EntryStage::Summing(since) if since.elapsed() > HOLD => {
                    let why = format!("it could not be read within {} s", HOLD.as_secs());
                    entry.stage = EntryStage::ToWait(why);
                }
                _ => {}
            }
        }
    }

    /// Those at its head of which no file is being summed, as many as this.
    pub(super) fn settled(&mut self, most: usize) -> impl Iterator<Item = &mut LaneEntry> {
        self.entries.iter_mut().take(most).take_while(|entry| !matches!(entry.stage, EntryStage::Summing(_)))
    }

    /// The first ones are done, and the table says so.
    pub(super) fn done(&mut self, count: usize, position: u64) {
        self.entries.drain(..count.min(self.entries.len()));
        self.position = position;
    }
}
