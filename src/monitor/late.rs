//! Messages whose file is looked for again and again.

use super::aside::{Aside, AsideState};
use crate::catalog::announced::{AnnouncedFile, SpoolNumber};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The first pause before a file is looked for again, and the longest; each is twice the one before.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// So many are looked for at once.
const AT_ONCE: usize = 64;

/// A message that waits for its file.
#[derive(Debug)]
pub(super) struct LateFile {
    due: Instant,
    pause: Duration,
    stage: LateStage,
}

#[derive(Debug)]
enum LateStage {
    Waiting,
    Summing,
    Ready(Box<AnnouncedFile>),
}

/// All of them.
#[derive(Default)]
pub(super) struct LateFiles(BTreeMap<SpoolNumber, LateFile>);

impl LateFiles {
    /// Those that were set aside before; all are due.
    pub(super) fn of(aside: &Aside) -> Self {
        let waiting = aside.entries().filter(|(_, entry)| entry.state == AsideState::Waiting);
        let mut late = Self::default();
        waiting.for_each(|(key, _)| late.add(key.clone(), Duration::ZERO));
        late
    }

    /// One more, which is due after the first pause.
    pub(super) fn wait(&mut self, key: SpoolNumber) {
        self.add(key, FIRST);
    }

    /// One more, which is due now.
    pub(super) fn look_now(&mut self, key: SpoolNumber) {
        self.add(key, Duration::ZERO);
    }

    fn add(&mut self, key: SpoolNumber, pause: Duration) {
        self.0.insert(key, LateFile { due: Instant::now() + pause, pause: FIRST, stage: LateStage::Waiting });
    }

    /// Those whose file is to be looked for now; from here on it is.
    pub(super) fn due(&mut self) -> Vec<SpoolNumber> {
        let now = Instant::now();
        let busy = self.0.values().filter(|late| matches!(late.stage, LateStage::Summing)).count();
        let due = self.0.iter_mut().filter(|(_, late)| matches!(late.stage, LateStage::Waiting) && late.due <= now);
        due.take(AT_ONCE.saturating_sub(busy))
            .map(|(key, late)| {
                late.stage = LateStage::Summing;
                key.clone()
            })
            .collect()
    }

    /// It is there.
    pub(super) fn found(&mut self, key: &SpoolNumber, file: AnnouncedFile) {
        if let Some(late) = self.0.get_mut(key) {
            late.stage = LateStage::Ready(Box::new(file));
        }
    }

    /// It is still not there; looked for again after a longer pause.
    pub(super) fn missed(&mut self, key: &SpoolNumber) {
        if let Some(late) = self.0.get_mut(key) {
            late.pause = (late.pause * 2).min(LONGEST);
            late.due = Instant::now() + late.pause;
            late.stage = LateStage::Waiting;
        }
    }

    /// Those that can be registered, as many as this.
    pub(super) fn ready(&self, most: usize) -> impl Iterator<Item = (&SpoolNumber, &AnnouncedFile)> {
        let ready = self.0.iter().filter_map(|(key, late)| match &late.stage {
            LateStage::Ready(file) => Some((key, &**file)),
            _ => None,
        });
        ready.take(most)
    }

    /// It is registered, or waits no more.
    pub(super) fn remove(&mut self, key: &SpoolNumber) {
        self.0.remove(key);
    }
}
