//! Messages that the table has passed by: their files are looked for, and what nobody waits for any more is rejected.

use super::super::aside::{AsideChange, AsideState};
use super::super::lane::EntryStage;
use super::super::making::read_notice;
use super::super::notice::ArchiveName;
use super::super::retry;
use super::{Registrar, RegistrarTrouble, SumKey, disk, job, unsummed};
use crate::catalog::announced::SpoolNumber;
use crate::clock::unix_now;
use crate::disk::summed::{SumError, SummedFile};

impl Registrar {
    /// Has the files of late messages looked for that are due, of those that the table has passed by: of others nobody would
    /// know after the next start that they are registered.
    pub(super) fn look_for_late(&mut self) -> Result<(), RegistrarTrouble> {
        for key in self.course.late.due() {
            let Some(entry) = self.aside.get(&key) else {
                self.course.late.remove(&key);
                continue;
            };
            let message = self.aside.message(entry).map_err(disk)?;
            let read = read_notice(&message);
            let archive = read.as_ref().map_or(ArchiveName::Smurf, |notice| notice.archive);
            if key.spool == self.name && key.number >= self.course.lane(archive).position {
                self.course.late.missed(&key);
                continue;
            }
            match read.and_then(|notice| self.rules.check(&notice, self.table.path_limit()).map(|()| notice)) {
                Ok(notice) => self.pool.submit(job(SumKey { key, archive }, &notice)),
                Err(why) => self.reject_late(&key, why)?,
            }
        }
        Ok(())
    }

    /// Of a watched file, which may take long to be read, who has found it knows better than to wait.
    pub(super) fn hear_of_late(&mut self, of: &SumKey, result: Result<SummedFile, SumError>) {
        let SumKey { key, archive } = of;
        let Some(entry) = self.aside.get(key).filter(|entry| entry.state == AsideState::Waiting) else { return };
        let since = entry.since;
        if let (ArchiveName::Watched, Err(why), Ok(message)) = (archive, &result, self.aside.message(entry)) {
            let done = match unsummed(&message, why) {
                EntryStage::ToReject(why) => self.reject_late(key, why),
                _ => self.aside.change(vec![AsideChange::Remove(key.clone())]).map(drop).map_err(disk),
            };
            match done {
                Ok(()) => self.course.late.remove(key),
                Err(_) => self.course.late.missed(key),
            }
            return;
        }
        let row = result.map_err(|error| error.to_string()).and_then(|summed| {
            let message = self.aside.message(entry).map_err(|error| error.to_string())?;
            self.rules.row(&message, &summed, self.table.path_limit())
        });
        match row {
            Ok(row) => self.course.late.found(key, row),
            Err(why) if unix_now() - since > self.rules.patience.as_secs_f64() => {
                let waited = self.rules.patience.as_secs();
                if self.reject_late(key, format!("{why}, also after {waited} s")).is_err() {
                    self.course.late.missed(key);
                }
            }
            Err(_) => self.course.late.missed(key),
        }
    }

    /// It waits no more.
    pub(super) fn reject_late(&mut self, key: &SpoolNumber, why: String) -> Result<(), RegistrarTrouble> {
        let Some(entry) = self.aside.get(key) else { return Ok(()) };
        let message = self.aside.message(entry).map_err(disk)?;
        self.change(vec![AsideChange::Put {
            key: key.clone(),
            state: AsideState::Rejected,
            since: unix_now(),
            why,
            message,
        }])?;
        self.course.late.remove(key);
        Ok(())
    }

    /// Does what somebody has ordered meanwhile.
    pub(super) fn hear_orders(&mut self) -> Result<(), RegistrarTrouble> {
        let changes = retry::ordered(self.spool.folder(), &self.aside).map_err(disk)?;
        let Some(changes) = changes else { return Ok(()) };
        let keys = changes.iter().filter_map(|change| match change {
            AsideChange::Put { key, .. } => Some(key.clone()),
            AsideChange::Remove(_) => None,
        });
        let keys: Vec<_> = keys.collect();
        self.change(changes)?;
        retry::done(self.spool.folder()).map_err(disk)?;
        keys.into_iter().for_each(|key| self.course.late.look_now(key));
        Ok(())
    }
}
