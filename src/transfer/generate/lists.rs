//! Goes through the lists as they come.

use super::{OUT_MOST, Work};
use crate::report::listing;
use crate::transfer::TransferError;
use protocol::args::DeleteWhen;
use protocol::flist::{FileList, Ndx};
use protocol::mux::{Message, TextKind};

/// Entries that must be known before a segment's turn comes with `-H`; stock waits for as many.
const LINKS_AHEAD: usize = 500;

impl Work<'_> {
    /// Goes through the lists as they come, and tells the sender of each that is done.
    pub(super) fn lists(&mut self) -> Result<(), TransferError> {
        loop {
            self.pass_notes()?;
            if self.knows_enough()
                && let Some(list) = self.fresh.pop_front()
            {
                self.at_work = true;
                self.list(&list)?;
                self.at_work = false;
                self.open.push_back(list);
                continue;
            }
            self.end_lists()?;
            if self.complete && self.open.is_empty() {
                return Ok(());
            }
            self.wait(|work, state| {
                // A single list ends also while files that went wrong wait for the redo phase.
                let done = |list| !work.incremental || state.is_idle(list);
                (!work.fresh.is_empty() && work.knows_enough())
                    || (work.open.front().is_some_and(|list| done(list)) && work.may_end())
            })?;
        }
    }

    /// Whether enough of the list has come to go on: with `-H` some more than is at work, for a name of a file may be there
    /// already in a segment that is still to come.
    fn knows_enough(&self) -> bool {
        if !self.incremental || !self.options.hard_links || self.complete {
            return true;
        }
        let mut known = self.lists.iter().scan(0, |sum, list| {
            *sum += list.len();
            Some(*sum)
        });
        known.any(|sum| sum >= LINKS_AHEAD)
    }

    pub(super) fn list(&mut self, list: &FileList) -> Result<(), TransferError> {
        if self.options.list_only {
            return self.show(list);
        }
        let when = self.deletion.when();
        // Behind the look at the directory itself, whose time deletions change.
        let at_once = matches!(when, Some(DeleteWhen::During | DeleteWhen::Delay));
        if when == Some(DeleteWhen::Before) {
            self.delete_all(list)?;
        }
        if let Some(parent) = list.parent() {
            self.entry(Ndx(list.start().0 - 1), parent)?;
            if at_once {
                self.delete_in(list, parent)?;
            }
        }
        for (ndx, entry) in list.iter() {
            // With incremental recursion a directory's turn comes with its own segment.
            if !(self.incremental && entry.is_dir()) {
                self.named(ndx, entry)?;
                if at_once {
                    self.delete_in(list, entry)?;
                }
            }
            self.pass_notes()?;
            self.end_lists()?;
            if self.writer.out.len() > OUT_MOST {
                self.writer.flush()?;
            }
            self.stay_near()?;
        }
        Ok(())
    }

    /// Shows a list in the order in which it would be gone through; a server tells its client the lines.
    pub(super) fn show(&mut self, list: &FileList) -> Result<(), TransferError> {
        let here = list.iter().map(|(_, entry)| entry).filter(|entry| !(self.incremental && entry.is_dir()));
        for entry in list.parent().into_iter().chain(here) {
            self.observer.entry(entry);
            if self.server {
                let line = listing::raw_line(entry, self.options.links);
                self.writer.out.message(&Message::Text(TextKind::Info, line));
                if self.writer.out.len() > OUT_MOST {
                    self.writer.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Whether the oldest list may end: the last segment only once it is known to be the last.
    pub(super) fn may_end(&self) -> bool {
        self.complete || self.open.len() + usize::from(self.at_work) + self.fresh.len() > 1
    }

    /// Tells of lists that are done. With incremental recursion that is when all of their files are here; otherwise the
    /// redo phase comes for those that went wrong.
    pub(super) fn end_lists(&mut self) -> Result<(), TransferError> {
        while let Some(list) = self.open.front().filter(|_| self.may_end()).cloned() {
            if self.incremental {
                if !self.board.lock().is_idle(&list) {
                    return Ok(());
                }
                // The sender forgets a segment with its end, so what the receiver says of its files goes first.
                self.pass_notes()?;
            }
            self.open.pop_front();
            if self.lists.len() > 1 {
                self.lists.release();
            }
            self.speaker.done(&mut self.writer.out);
        }
        Ok(())
    }
}
