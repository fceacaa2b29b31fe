//! Deletes local files whose copies are proven: after their time, or the oldest first where room is short. Only what still is
//! what was proven: a file that has changed since, or has been replaced, stays, and the log says so once.

mod relief;

use super::removal::{AskedAt, Kept, PruneMode, Purpose, Removed, remove};
use super::stays::Stays;
use crate::archiver::Sources;
use crate::archiver::control::Control;
use crate::catalog::sqlite::{Prunable, SqliteCatalog};
use crate::catalog::{CatalogError, RecordId};
use crate::clock::unix_now;
use relief::Shortages;
pub(super) use relief::{Relief, Relieved};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Files of one transaction.
const PAGE: usize = 64;
/// Files of which it is told that they would go, and that are remembered.
const TOLD_MOST: usize = 100_000;

/// What the rounds remember.
#[derive(Default)]
pub(super) struct PruneMemory {
    pub(super) stays: Stays,
    /// Files of which it was told that they would go, and what room that would give.
    told: HashMap<RecordId, u64>,
    relief: Relief,
}

/// One round of deleting.
pub(super) struct Pruner<'a> {
    pub(super) table: &'a SqliteCatalog,
    pub(super) sources: &'a Sources,
    pub(super) doing: PruneMode,
    pub(super) control: &'a Control,
    pub(super) memory: &'a mut PruneMemory,
}

impl Pruner<'_> {
    /// Deletes what was proven so long ago; returns how long the table was asked.
    pub(super) async fn by_age(&mut self, age: Duration) -> Result<Duration, CatalogError> {
        let mut asked = Duration::ZERO;
        let until = unix_now() - age.as_secs_f64();
        let began = Instant::now();
        let parts = self.table.prunable_parts(until).await?;
        asked += began.elapsed();
        for ids in parts {
            let began = Instant::now();
            let files = self.table.prunable(ids, until).await?;
            asked += began.elapsed();
            if !self.delete_all(files, None, &mut asked).await? {
                break;
            }
        }
        Ok(asked)
    }

    /// Deletes these, page by page, for as long as room is short where that is what it is for; whether to go on.
    async fn delete_all(
        &mut self,
        mut files: Vec<Prunable>,
        mut shortages: Option<&mut Shortages>,
        asked: &mut Duration,
    ) -> Result<bool, CatalogError> {
        let memory = &self.memory;
        files.retain(|file| memory.stays.allows(file.id) && !memory.told.contains_key(&file.id));
        let mut seen = None;
        if files.len() > PAGE {
            // What waits for any of them; with each page only what was registered since.
            let began = Instant::now();
            let (needed, last) = self.table.needed(&mut files, None).await?;
            *asked += began.elapsed();
            seen = Some(last);
            let free = files.into_iter().zip(needed).filter(|(_, needed)| needed.is_none());
            files = free.map(|(file, _)| file).collect();
        }
        while !files.is_empty() {
            if self.control.stop().is_stopped() || shortages.as_ref().is_some_and(|shortages| shortages.are_none()) {
                return Ok(false);
            }
            let page = files.drain(..PAGE.min(files.len()));
            let mut page: Vec<_> = page.map(|file| (self.memory.stays.before(file.id), file)).collect();
            while !page.is_empty() {
                let (began, at) = (Instant::now(), AskedAt::now());
                // With each page, and again where reading took long, since somebody may have registered one of them again
                // meanwhile, or put its row back.
                let (before, mut asked_for): (Vec<_>, Vec<_>) = page.into_iter().unzip();
                let (needed, last) = self.table.needed(&mut asked_for, seen).await?;
                *asked += began.elapsed();
                seen = Some(last);
                let free = before.into_iter().zip(asked_for).zip(needed).filter(|(_, needed)| needed.is_none());
                let free: Vec<_> = free.map(|(file, _)| file).collect();
                let is_read = |before: &Option<Kept>| before.as_ref().is_some_and(|kept| kept.stand.is_some());
                let (files, was_read) = (free.len(), free.first().is_some_and(|(before, _)| is_read(before)));
                page = self.delete(free, at, shortages.as_deref_mut()).await?;
                if page.len() == files && was_read {
                    // A table that takes as long to ask; the next round may find it quicker.
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Deletes files, each with how it stood before, of which the table said then that they may go. Gives those back for
    /// which that is too long ago by now.
    async fn delete(
        &mut self,
        files: Vec<(Option<Kept>, Prunable)>,
        asked: AskedAt,
        shortages: Option<&mut Shortages>,
    ) -> Result<Vec<(Option<Kept>, Prunable)>, CatalogError> {
        let (stop, sources) = (self.control.stop().clone(), self.sources.clone());
        let purpose = if shortages.is_some() { Purpose::Room } else { Purpose::Age };
        let task = (purpose, self.doing, asked);
        let mut short = shortages.as_deref().cloned();
        self.control.progress().set_deleting(true);
        let deleting = tokio::task::spawn_blocking(move || {
            let (mut done, mut late, mut files) = (Vec::new(), Vec::new(), files.into_iter());
            while !stop.is_stopped()
                && late.is_empty()
                && let Some((before, file)) = files.next()
            {
                let removed = match &mut short {
                    None => remove(&sources, &file, before, task),
                    Some(short) => match short.concern(&sources, &file.path) {
                        None => continue,
                        Some(device) => {
                            let removed = remove(&sources, &file, before, task);
                            short.freed(device, &removed);
                            removed
                        }
                    },
                };
                match removed {
                    Removed::Late(kept) => late.push((Some(kept), file)),
                    removed => done.push((removed, file)),
                }
            }
            late.extend(files);
            (done, late, short)
        });
        let deleted = deleting.await;
        self.control.progress().set_deleting(false);
        let Ok((done, late, short)) = deleted else { return Ok(Vec::new()) };
        if let (Some(shortages), Some(short)) = (shortages, short) {
            *shortages = short;
        }
        self.conclude(done).await?;
        Ok(if self.control.stop().is_stopped() { Vec::new() } else { late })
    }

    /// Tells and records what became of files.
    async fn conclude(&mut self, done: Vec<(Removed, Prunable)>) -> Result<(), CatalogError> {
        let mut removed = Vec::new();
        for (outcome, file) in done {
            let path = file.path.display().to_string();
            match outcome {
                Removed::Freed(bytes) if self.doing == PruneMode::Telling => {
                    tracing::info!(
                        event = "would_delete",
                        id = file.id.0,
                        path,
                        bytes,
                        "Would be deleted here; its copy is proven"
                    );
                    if self.memory.told.len() < TOLD_MOST {
                        self.memory.told.insert(file.id, bytes);
                    }
                }
                Removed::Freed(bytes) => {
                    tracing::info!(event = "deleted", id = file.id.0, path, bytes, "Deleted here; its copy is proven");
                    removed.push((file, unix_now()));
                }
                Removed::Gone if self.doing == PruneMode::Telling => {}
                // As SupRsync has it.
                Removed::Gone => removed.push((file, 0.0)),
                Removed::Kept(kept)
                    if self.doing == PruneMode::Deleting && self.memory.stays.is_gone(file.id, &kept) =>
                {
                    removed.push((file, 0.0));
                }
                Removed::Kept(kept) | Removed::Late(kept) => self.keep(&file, &path, kept),
            }
        }
        for (file, _) in &removed {
            self.memory.stays.forget(file.id);
        }
        // What was deleted is recorded also when we are to stop: else the row would say that it is still there.
        self.table.removed(removed).await
    }

    fn keep(&mut self, file: &Prunable, path: &str, kept: Kept) {
        let why = kept.why.clone();
        match self.memory.stays.keep(file.id, kept) {
            true => tracing::warn!(
                event = "not_deleted",
                id = file.id.0,
                path,
                "Not deleted: {why}; it is tried again now and then"
            ),
            false => tracing::debug!(id = file.id.0, path, "Still not deleted: {why}"),
        }
    }
}
