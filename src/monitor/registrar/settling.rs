//! Writes what is settled: rows into the table, and beside it what the table is to pass by.

use super::super::aside::{AsideChange, AsideState};
use super::super::lane::EntryStage;
use super::super::making::{read_notice, refusal_key, told};
use super::super::message::PublisherMessage;
use super::super::notice::ArchiveName;
use super::{BATCH, Registrar, RegistrarTrouble, WAITING_MOST, disk};
use crate::catalog::announced::{AnnouncedBatch, AnnouncedFile, AnnouncedOutcome, LaneStep, SpoolNumber};
use crate::clock::unix_now;
use std::sync::atomic::Ordering::Relaxed;

impl Registrar {
    /// Registers what is at the heads of the lanes and what is late, as far as it is settled.
    pub(super) fn register(&mut self) -> Result<(), RegistrarTrouble> {
        loop {
            self.set_aside()?;
            let batch = self.batch();
            if batch.files.is_empty() && batch.steps.is_empty() {
                return Ok(());
            }
            let (rows, late) = (batch.files.len(), batch.late.clone());
            let steps: Vec<_> = batch.steps.iter().map(|step| (step.lane, step.to)).collect();
            let Some(outcome) = self.table.announce(batch.clone(), &self.stop) else { return Ok(()) };
            match outcome {
                AnnouncedOutcome::Elsewhere => return Err(RegistrarTrouble::Elsewhere),
                AnnouncedOutcome::Refused(index, why) => self.refused(index, &batch, &why)?,
                AnnouncedOutcome::Registered(known) => {
                    for (_, file) in batch.files.iter().enumerate().filter(|(index, _)| !known.contains(index)) {
                        tracing::info!(event = "registered", archive = file.archive, "Registered {}", file.path);
                    }
                    self.counters.registered.fetch_add((rows - known.len()) as u64, Relaxed);
                    let watched = batch.files.iter().filter_map(|file| file.watched.as_ref());
                    let refused = watched.map(|mark| refusal_key(mark.key.clone()));
                    let refused = refused.filter(|key| self.aside.get(key).is_some()).collect();
                    self.registered(&steps, late, refused)?;
                }
            }
        }
    }

    /// Puts on disk what the table is to pass by.
    fn set_aside(&mut self) -> Result<(), RegistrarTrouble> {
        let mut room = WAITING_MOST.saturating_sub(self.aside.waiting());
        room = if self.aside.has_room() { room } else { 0 };
        let (now, mut changes, mut waiting) = (unix_now(), Vec::new(), Vec::new());
        for lane in &mut self.course.lanes {
            let archive = lane.archive;
            for entry in lane.settled(BATCH) {
                let (state, why) = match std::mem::replace(&mut entry.stage, EntryStage::Aside) {
                    EntryStage::ToWait(why) if room > 0 => (AsideState::Waiting, why),
                    EntryStage::ToWait(why) => {
                        (AsideState::Rejected, format!("{why}; and {WAITING_MOST} files are waited for already"))
                    }
                    EntryStage::ToReject(why) => (AsideState::Rejected, why),
                    stage => {
                        entry.stage = stage;
                        continue;
                    }
                };
                let mut key = SpoolNumber { spool: self.name.clone(), number: entry.message.number };
                if state == AsideState::Waiting {
                    room -= 1;
                    waiting.push(key.clone());
                } else if archive == ArchiveName::Watched
                    && let Ok(notice) = read_notice(&entry.message)
                {
                    key = refusal_key(self.rules.watched_key(&notice.path));
                    if self.aside.is_rejected(&key, &why) {
                        continue;
                    }
                }
                changes.push(AsideChange::Put { key, state, since: now, why, message: entry.message.clone() });
            }
        }
        let changed = self.change(changes.clone());
        if changed.is_err() {
            // Nothing of it is on disk for sure.
            for change in changes {
                let AsideChange::Put { state, why, message, .. } = change else { continue };
                let entry = self.course.lanes.iter_mut().find_map(|lane| lane.entry(message.number));
                if let Some(entry) = entry {
                    entry.stage =
                        if state == AsideState::Waiting { EntryStage::ToWait(why) } else { EntryStage::ToReject(why) };
                }
            }
        }
        waiting.into_iter().for_each(|key| self.course.late.wait(key));
        changed
    }

    /// Changes what is aside, and tells of it.
    pub(super) fn change(&mut self, changes: Vec<AsideChange>) -> Result<(), RegistrarTrouble> {
        let gone = self.aside.change(changes.clone()).map_err(disk)?;
        if gone > 0 {
            tracing::error!(
                event = "rejects_full",
                gone,
                "The {gone} oldest refusals had to give way to new ones; see `monitor rejects`"
            );
        }
        for change in changes {
            let AsideChange::Put { state, why, message, .. } = change else { continue };
            let what = told(&message);
            match state {
                AsideState::Waiting => tracing::info!(event = "awaited", "Waiting for {what}: {why}"),
                AsideState::Rejected => {
                    self.counters.rejected.fetch_add(1, Relaxed);
                    let is_told = match PublisherMessage::read(&message.bytes) {
                        Ok(_) => true,
                        Err(_) => self.course.garbage.hear(message.sender.map(|sender| sender.ip())),
                    };
                    if is_told {
                        tracing::error!(event = "rejected", "Not registered: {what}: {why}; see `monitor rejects`");
                    }
                }
            }
        }
        Ok(())
    }

    fn batch(&mut self) -> AnnouncedBatch {
        let mut batch = AnnouncedBatch::default();
        for lane in &mut self.course.lanes {
            let (from, mut to) = (lane.position, None);
            for entry in lane.settled(BATCH) {
                match &entry.stage {
                    EntryStage::Ready(file) => batch.files.push((**file).clone()),
                    EntryStage::Aside | EntryStage::Void => {}
                    // Not set aside yet.
                    _ => break,
                }
                to = Some(entry.message.number + 1);
            }
            let lane = lane.archive.name();
            batch.steps.extend(to.map(|to| LaneStep { spool: self.name.clone(), lane, from, to }));
        }
        let is_passed = |key: &SpoolNumber, file: &AnnouncedFile| {
            let watched = file.watched.is_some();
            let name = if watched { ArchiveName::Watched.name() } else { &file.archive };
            let lane = self.course.lanes.iter().find(|lane| lane.archive.name() == name);
            key.spool != self.name || lane.is_some_and(|lane| key.number < lane.position)
        };
        for (key, file) in self.course.late.ready(BATCH).filter(|(key, file)| is_passed(key, file)) {
            batch.files.push(file.clone());
            batch.late.push(key.clone());
        }
        batch.forgotten.clone_from(&self.course.forgotten);
        batch
    }

    /// The table does not take this one of a batch: it is set aside, and the others go on without it.
    fn refused(&mut self, index: usize, batch: &AnnouncedBatch, why: &str) -> Result<(), RegistrarTrouble> {
        let why = format!("The table does not take it: {why}");
        let late = batch.files.len() - batch.late.len();
        if let Some(key) = index.checked_sub(late).and_then(|at| batch.late.get(at)) {
            return self.reject_late(&key.clone(), why);
        }
        let heads = self.course.lanes.iter_mut().flat_map(|lane| lane.settled(BATCH));
        let mut ready = heads.filter(|entry| matches!(entry.stage, EntryStage::Ready(_)));
        if let Some(entry) = ready.nth(index) {
            entry.stage = EntryStage::ToReject(why);
        }
        Ok(())
    }

    /// The table says so of these steps, of late ones, and of watched files that were refused before.
    fn registered(
        &mut self,
        steps: &[(&'static str, u64)],
        late: Vec<SpoolNumber>,
        refused: Vec<SpoolNumber>,
    ) -> Result<(), RegistrarTrouble> {
        for (name, to) in steps {
            for lane in self.course.lanes.iter_mut().filter(|lane| lane.archive.name() == *name) {
                let done: Vec<_> = lane
                    .settled(BATCH)
                    .filter(|entry| entry.message.number < *to)
                    .map(|entry| entry.message.bytes.len())
                    .collect();
                self.course.bytes -= done.iter().sum::<usize>();
                lane.done(done.len(), *to);
            }
        }
        let lanes = self.course.lanes.each_ref().map(|lane| (lane.archive.name(), lane.position));
        self.table.remember(self.spool.folder(), &self.name, lanes);
        let gone: Vec<_> = late.iter().chain(&refused).cloned().collect();
        gone.iter().for_each(|key| self.course.late.remove(key));
        self.course.forgotten.clear();
        self.aside.change(gone.into_iter().map(AsideChange::Remove).collect()).map_err(disk)?;
        self.course.forgotten = late;
        Ok(())
    }

    /// Tells how much came that is no message.
    pub(super) fn tell_garbage(&mut self) {
        for (sender, more) in self.course.garbage.due() {
            let sender = sender.map_or_else(|| "several senders".to_owned(), |sender| sender.to_string());
            tracing::error!(
                event = "rejected",
                more,
                sender,
                "Not registered: {more} more datagrams from {sender} that are no messages; see `monitor rejects`"
            );
        }
    }
}
