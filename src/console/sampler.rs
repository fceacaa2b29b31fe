//! How fast a run goes: of late, and over the last hour.

use super::history::{DayHistory, MinuteSample};
use super::report::{FileReport, SessionReport, SpeedReport};
use crate::status::Snapshot;
use crate::status::pace::{Pace, done_bytes};
use std::collections::VecDeque;
use std::time::Instant;

/// Minutes of an hour.
const HOUR: u64 = 60;
/// The last seconds, which say how fast a session goes.
const OF_LATE: f64 = 10.0;

/// What is measured of a run.
#[derive(Default)]
pub(super) struct Paces {
    pace: Pace,
    /// Bytes and files per second, of late.
    rates: (f64, f64),
    /// Bytes of each session at moments of the last seconds.
    sessions: VecDeque<(f64, Vec<u64>)>,
    /// What the run had done when it was looked at last, and when this minute began.
    last: RunDone,
    minute: RunDone,
    /// What it had done by a moment, and the last one at which that was something new.
    pulse: Option<(Pulse, Instant)>,
    /// Bytes and confirmed files, and the last moment at which they were others, or nothing was on its way.
    moved: Option<((u64, u64), Instant)>,
    measured: Option<Instant>,
}

/// What moves as long as the run does: passes, troubles, bytes, confirmed files.
type Pulse = [u64; 5];

/// Bytes, files and failures of a run.
#[derive(Debug, Clone, Copy, Default)]
struct RunDone {
    bytes: u64,
    copied: u64,
    failed: u64,
}

/// How fast it goes now.
pub(super) struct Speeds {
    pub(super) speed: SpeedReport,
    pub(super) sessions: Vec<SessionReport>,
}

impl Paces {
    pub(super) fn learn(&mut self, now: &Snapshot) {
        self.rates = self.pace.learn(now);
        self.sessions.push_back((now.seconds, now.session_bytes.clone()));
        while self.sessions.len() > 2 && self.sessions.get(1).is_some_and(|(then, _)| now.seconds - then > OF_LATE) {
            self.sessions.pop_front();
        }
        let pulse = [now.passes, now.database_troubles, now.link_troubles, now.read_bytes, now.confirmed];
        let moved = self.pulse.is_none_or(|(before, _)| before != pulse);
        self.measured = Some(Instant::now());
        if moved {
            self.pulse = Some((pulse, Instant::now()));
        }
        let files = (now.read_bytes, now.confirmed);
        if now.in_flight == 0 || self.moved.is_none_or(|(before, _)| before != files) {
            self.moved = Some((files, Instant::now()));
        }
        self.last = RunDone { bytes: done_bytes(now), copied: now.copied, failed: now.failed };
    }

    /// What was done since the last minute ended.
    pub(super) fn end_minute(&mut self) -> MinuteSample {
        let before = std::mem::replace(&mut self.minute, self.last);
        MinuteSample {
            moved_bytes: self.last.bytes.saturating_sub(before.bytes),
            copied: self.last.copied.saturating_sub(before.copied),
            failed: self.last.failed.saturating_sub(before.failed),
            ..MinuteSample::default()
        }
    }

    /// For how many seconds nothing has moved, and nobody has measured.
    pub(super) fn still(&self) -> (f64, f64) {
        let since = |moment: Instant| moment.elapsed().as_secs_f64();
        (self.pulse.map_or(0.0, |(_, moved)| since(moved)), self.measured.map_or(0.0, since))
    }

    /// For how many seconds files are on their way and none has come on.
    pub(super) fn stuck(&self) -> f64 {
        self.moved.map_or(0.0, |(_, moved)| moved.elapsed().as_secs_f64())
    }

    /// Speeds as they were learned last.
    pub(super) fn speeds(&self, now: &Snapshot) -> Speeds {
        let (bytes_now, files_now) = self.rates;
        let (then, before) = match self.sessions.front() {
            Some((then, before)) => (*then, before.as_slice()),
            None => (0.0, [].as_slice()),
        };
        let seconds = (now.seconds - then).max(0.001);
        let session = |(number, bytes): (usize, &u64)| SessionReport {
            bytes: *bytes,
            rate: bytes.saturating_sub(before.get(number).copied().unwrap_or(0)) as f64 / seconds,
            file: now.session_files.get(number).and_then(Option::as_ref).map(|file| FileReport {
                path: file.path.clone(),
                size: file.size,
                done: file.done,
            }),
        };
        Speeds {
            speed: SpeedReport { bytes_now, files_now, ..SpeedReport::default() },
            sessions: now.session_bytes.iter().enumerate().map(session).collect(),
        }
    }

    /// What was done in the minute that is not over.
    pub(super) fn this_minute(&self) -> MinuteSample {
        MinuteSample {
            moved_bytes: self.last.bytes.saturating_sub(self.minute.bytes),
            copied: self.last.copied.saturating_sub(self.minute.copied),
            ..MinuteSample::default()
        }
    }
}

/// Adds what the last hour came to, `this` minute included, of which so many seconds are over. Minutes of which nothing is known had no archiver, and moved nothing.
pub(super) fn add_hour(speed: &mut SpeedReport, history: &DayHistory, this: MinuteSample, seconds: u64) {
    let minute = this.minute;
    let (samples, known) = history.last(HOUR, minute);
    let (bytes, files) = samples.fold((this.moved_bytes, this.copied), |(bytes, files), sample| {
        (bytes + sample.moved_bytes, files + sample.copied)
    });
    speed.hour_seconds = known * 60 + seconds;
    let whole = speed.hour_seconds.max(1) as f64;
    (speed.bytes_hour, speed.files_hour) = (bytes as f64 / whole, files as f64 / whole);
}
