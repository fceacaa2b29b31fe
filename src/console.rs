//! What an operator may ask a running archiver and tell it: one console for each archive of a process, whoever the operator
//! speaks through.

mod counts;
pub(crate) mod files;
pub(crate) mod fleet;
mod history;
mod limit;
mod reasons;
mod remedy;
pub(crate) mod report;
mod sampler;
pub(crate) mod table;

use crate::archiver::control::Control;
use crate::catalog::{AnyCatalog, Catalog, CatalogError, Note, Retry, Totals};
use crate::clock::{unix_now, unix_seconds};
use crate::status::Progress;
pub(crate) use counts::TableCounts;
pub(crate) use history::MinuteSample;
use history::{DayHistory, HistoryFile};
use limit::LimitNow;
pub(crate) use limit::{Limit, LimitOrder, Timetable};
use report::{BacklogReport, FailureReport, LimitReport, ProvenReport, RunReport, StatusReport};
use sampler::{Paces, Speeds};
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// How often rows are counted at most and at least, and what share of the time that may take: it may scan the table.
const COUNT_SOONEST: Duration = Duration::from_secs(5);
const COUNT_RAREST: Duration = Duration::from_secs(3600);
const COUNT_SHARE: u32 = 100;
/// How often speeds are measured, and the time of day is looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// For how many seconds a run may not move, longer than its pauses after troubles, and nobody measure.
const STILL_MOST: f64 = 900.0;
const UNMEASURED_MOST: f64 = 60.0;
/// Rows that are shown of those given a new chance.
const SHOWN_MOST: usize = 100;

/// What a console is of.
#[derive(Debug, Clone, Default)]
pub(crate) struct ArchiveIdentity {
    /// Targets, the archive's name, or the agent's instance id.
    pub(crate) name: String,
    /// Names by which it is found besides.
    pub(crate) also: Vec<String>,
    /// Where the copies go, or come from.
    pub(crate) far_end: String,
}

impl ArchiveIdentity {
    /// Whether it is called so.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name || self.also.iter().any(|also| also == name)
    }
}

/// One archive of this process, to be asked and told. Clones are the same console.
#[derive(Clone)]
pub(crate) struct Console(Arc<ConsoleShared>);

struct ConsoleShared {
    identity: ArchiveIdentity,
    /// For how many seconds a run may not move.
    still_most: f64,
    limit: Mutex<Limit>,
    run: watch::Sender<ArchiverRun>,
    counts: watch::Sender<TableCounts>,
    /// The table's counts are no longer what they were.
    recount: Notify,
    paces: Mutex<Paces>,
    history: Mutex<DayHistory>,
    /// Where the history is kept, and whether somebody is just writing there.
    file: Mutex<Option<Arc<HistoryFile>>>,
}

/// The archives of a process; some may come and go. Clones are the same list.
#[derive(Clone, Default)]
pub(crate) struct Consoles(Arc<Mutex<Vec<Console>>>);

impl Consoles {
    pub(crate) fn all(&self) -> Vec<Console> {
        lock(&self.0).clone()
    }

    /// One that is there already is there once.
    pub(crate) fn add(&self, console: &Console) {
        let mut all = lock(&self.0);
        if !all.iter().any(|other| Arc::ptr_eq(&other.0, &console.0)) {
            all.push(console.clone());
        }
    }

    pub(crate) fn remove(&self, console: &Console) {
        lock(&self.0).retain(|other| !Arc::ptr_eq(&other.0, &console.0));
    }
}

/// What the run has open, while it runs.
#[derive(Clone, Default)]
struct ArchiverRun {
    control: Option<Control>,
    catalog: Option<Arc<AnyCatalog>>,
    table: String,
    paused: bool,
}

/// Why something cannot be done now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsoleError {
    /// There is no table open.
    #[error("No run has its table open; start it first, or wait until its database is in reach")]
    NotRunning,
    /// The table does not answer.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Rows that were given a new chance.
pub(crate) struct Retried {
    pub(crate) rows: u64,
    /// Why they had failed; a hundred at most.
    pub(crate) known: Vec<Note>,
}

impl Retried {
    /// Why they had failed, for programs.
    pub(crate) fn reasons(&self) -> Vec<serde_json::Value> {
        let one = |note: &Note| {
            let why = note.reason.as_ref().map(|(_, why)| why);
            serde_json::json!({"id": note.id.0, "path": note.path, "node": note.node, "why": why})
        };
        self.known.iter().map(one).collect()
    }
}

impl Console {
    /// For an archive whose table is asked so often, and that moves at the limit's rate.
    pub(crate) fn new(identity: ArchiveIdentity, poll: Duration, limit: Limit) -> Self {
        Self(Arc::new(ConsoleShared {
            identity,
            still_most: STILL_MOST.max(3.0 * poll.as_secs_f64()),
            limit: Mutex::new(limit),
            run: watch::Sender::default(),
            counts: watch::Sender::default(),
            recount: Notify::new(),
            paces: Mutex::default(),
            history: Mutex::default(),
            file: Mutex::default(),
        }))
    }

    pub(crate) fn identity(&self) -> &ArchiveIdentity {
        &self.0.identity
    }

    /// How the run goes, while one is at work.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.0.run.borrow().control.as_ref().map(|control| control.progress().clone())
    }

    /// Goes on from where the console was that the same archive had before: paused or not, and with its history.
    pub(crate) fn take_over(&self, before: &Self) {
        let paused = before.0.run.borrow().paused;
        self.0.run.send_modify(|run| run.paused = paused);
        let history = std::mem::take(&mut *lock(&before.0.history));
        *lock(&self.0.history) = history;
        let file = lock(&before.0.file).take();
        *lock(&self.0.file) = file;
    }

    /// A run begins. It pauses where that was said before.
    pub(crate) fn begin(&self, control: &Control) {
        self.0.run.send_modify(|run| {
            if run.paused {
                control.pause();
            }
            run.control = Some(control.clone());
        });
        *lock(&self.0.paces) = Paces::default();
    }

    /// The run has its table open.
    pub(crate) fn opened(&self, catalog: &Arc<AnyCatalog>) {
        self.0.run.send_modify(|run| {
            run.table = catalog.describe();
            run.catalog = Some(catalog.clone());
        });
    }

    /// The run is over.
    pub(crate) fn ended(&self) {
        self.0.run.send_modify(|run| (run.control, run.catalog) = (None, None));
    }

    /// Keeps the history in a file, and takes up what it holds.
    pub(crate) fn keep_history(&self, path: &Path) -> std::io::Result<()> {
        let (file, history) = HistoryFile::open(path, minute_now())?;
        *lock(&self.0.history) = history;
        *lock(&self.0.file) = Some(Arc::new(file));
        Ok(())
    }

    /// Counts, measures and looks at the clock for as long as it is awaited.
    pub(crate) async fn look_after(self) -> Infallible {
        tokio::select! {
            never = self.count() => never,
            never = self.sample() => never,
        }
    }

    /// The counts of the table, as they come.
    pub(crate) fn counts(&self) -> watch::Receiver<TableCounts> {
        self.0.counts.subscribe()
    }

    /// The counts are no longer what they were.
    pub(crate) fn count_again(&self) {
        self.0.recount.notify_one();
    }

    /// Takes up no further rows; what is under way is finished. Outlasts a run.
    pub(crate) fn pause(&self) {
        self.set_paused(true);
    }

    /// Goes on after a pause.
    pub(crate) fn resume(&self) {
        self.set_paused(false);
    }

    fn set_paused(&self, paused: bool) {
        tracing::info!(
            event = "paused",
            paused,
            archive = self.0.identity.name,
            "{}",
            if paused { "Paused by an operator" } else { "Goes on" }
        );
        self.0.run.send_modify(|run| {
            run.paused = paused;
            if let Some(control) = &run.control {
                if paused { control.pause() } else { control.resume() }
            }
        });
    }

    /// Limits what all sessions move together, files under way included. Outlasts a run.
    pub(crate) fn limit(&self, order: LimitOrder) {
        self.limit_of().order(order);
    }

    /// The limit whose rate it moves at.
    pub(crate) fn limit_of(&self) -> Limit {
        lock(&self.0.limit).clone()
    }

    /// Another limit, which may be one of several archives together; for a run that has not begun.
    pub(crate) fn share_limit(&self, limit: &Limit) {
        *lock(&self.0.limit) = limit.clone();
    }

    /// The limit as it stands.
    pub(crate) fn limit_now(&self) -> LimitReport {
        let LimitNow { rate, held, until, timetable } = self.limit_of().now();
        LimitReport { bytes_per_second: rate, held, timetable, until }
    }

    /// Looks at the whole table soon, and counts it anew: somebody has changed rows.
    pub(crate) fn look_again(&self) {
        self.count_again();
        if let Some(control) = &self.0.run.borrow().control {
            control.look_again();
        }
    }

    /// Ends running work too.
    pub(crate) fn close_links(&self) {
        if let Some(control) = &self.0.run.borrow().control {
            control.stop().close_links();
        }
    }

    /// Gives rows that were given up a new chance.
    pub(crate) async fn retry(&self, which: &Retry) -> Result<Retried, ConsoleError> {
        let catalog = self.catalog()?;
        let known = catalog.given_up(which, SHOWN_MOST).await?;
        let rows = catalog.retry(which).await?;
        self.look_again();
        Ok(Retried { rows, known })
    }

    /// Counts the table's rows now.
    pub(crate) async fn totals(&self) -> Result<Totals, ConsoleError> {
        Ok(self.catalog()?.totals().await?)
    }

    /// The table, while a run has it open.
    pub(crate) fn catalog(&self) -> Result<Arc<AnyCatalog>, ConsoleError> {
        self.0.run.borrow().catalog.clone().ok_or(ConsoleError::NotRunning)
    }

    /// The samples of the last day, oldest first.
    pub(crate) fn history(&self) -> Vec<MinuteSample> {
        lock(&self.0.history).samples().copied().collect()
    }

    /// How it stands. Asks nobody: the table was counted before.
    pub(crate) fn status(&self) -> StatusReport {
        let run = self.0.run.borrow().clone();
        let counts = self.0.counts.borrow().clone();
        let mut report = StatusReport {
            archive: self.0.identity.name.clone(),
            also: self.0.identity.also.clone(),
            table: run.table.clone(),
            far_end: self.0.identity.far_end.clone(),
            time: unix_now(),
            running: run.control.is_some(),
            paused: run.paused,
            limit: Some(self.limit_now()),
            backlog: table::backlog(&counts),
            ..StatusReport::default()
        };
        if let Some(control) = &run.control {
            self.add_run(&mut report, control);
        } else {
            report.troubles.push(table::no_run());
        }
        report.troubles.extend(remedy::of_given_up(counts.totals.given_up));
        let stand = run.catalog.as_ref().and_then(|catalog| catalog.fleet_stand());
        report.fleet = stand.map(|stand| fleet::counted(stand, &counts));
        report.reasons = counts.reasons;
        report.archive_stats = counts.archive;
        report
    }

    fn add_run(&self, report: &mut StatusReport, control: &Control) {
        let now = control.progress().snapshot();
        let (Speeds { mut speed, sessions }, this, stuck) = {
            let paces = lock(&self.0.paces);
            (paces.speeds(&now), MinuteSample { minute: minute_now(), ..paces.this_minute() }, paces.stuck())
        };
        sampler::add_hour(&mut speed, &lock(&self.0.history), this, (now.seconds as u64).min(second_now()));
        let [missing, unreadable, changed, refused, row] = now.failures;
        report.troubles = remedy::of_the_run(&now);
        // Whoever has met a trouble says it better.
        if report.troubles.is_empty() && !report.paused {
            report.troubles.extend(remedy::of_standstill(stuck, now.in_flight));
        }
        speed.seconds_left = seconds_left(&report.backlog, &speed, report.paused || !report.troubles.is_empty());
        report.sessions = sessions;
        report.speed = Some(speed);
        report.road = now.road;
        report.last_proven = now.last_proven.map(|(time, path)| ProvenReport { time, path });
        report.run = Some(RunReport {
            seconds: now.seconds,
            copied: now.copied,
            in_flight: now.in_flight,
            read_bytes: now.read_bytes,
            literal_bytes: now.literal_bytes,
            matched_bytes: now.matched_bytes,
            link_troubles: now.link_troubles,
            database_troubles: now.database_troubles,
            failed: now.failed,
            failures: FailureReport { missing, unreadable, changed, refused, row },
            given_up: now.given_up,
        });
    }

    /// Whether the process lives and its run moves; why not.
    pub(crate) fn health(&self) -> Result<(), String> {
        let paused = {
            let run = self.0.run.borrow();
            if run.control.is_none() {
                return Ok(());
            }
            run.paused
        };
        let (still, unmeasured) = lock(&self.0.paces).still();
        match () {
            () if unmeasured > UNMEASURED_MOST => {
                Err(format!("nobody has measured for {unmeasured:.0} s: the process is stuck"))
            }
            () if still > self.0.still_most && !paused => Err(format!("the run has not moved for {still:.0} s")),
            () => Ok(()),
        }
    }

    /// Whether table and far end are in reach; why not.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        let run = self.0.run.borrow();
        let (Some(control), Some(_)) = (&run.control, &run.catalog) else {
            return Err("no table is open".to_owned());
        };
        let now = control.progress().snapshot();
        let link = now.link.as_ref().filter(|_| !now.flows());
        now.database.as_ref().or(link).map_or(Ok(()), |trouble| Err(trouble.why.clone()))
    }

    fn is_database_troubled(&self) -> bool {
        let run = self.0.run.borrow();
        run.control.as_ref().is_some_and(|control| control.progress().snapshot().database.is_some())
    }

    /// Renews the counts for as long as it is awaited.
    async fn count(&self) -> Infallible {
        let mut opened = self.0.run.subscribe();
        let mut cost = Duration::ZERO;
        loop {
            // The sender lives in us.
            let opened = opened.wait_for(|run| run.catalog.is_some()).await.map(|run| run.catalog.clone());
            let Ok(Some(catalog)) = opened else { continue };
            let began = Instant::now();
            let before = self.0.counts.borrow().clone();
            let mut closed = self.0.run.subscribe();
            tokio::select! {
                counts = TableCounts::look(&catalog, before) => { self.0.counts.send_replace(counts); }
                _ = closed.wait_for(|run| run.catalog.is_none()) => continue,
            }
            drop(catalog);
            // How long it waited for a database in trouble is not what it costs.
            if cost.is_zero() || !self.is_database_troubled() {
                cost = began.elapsed();
            }
            let pause = (cost * COUNT_SHARE).clamp(COUNT_SOONEST, COUNT_RAREST);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.recount.notified() => {}
            }
        }
    }

    /// Measures speeds and looks at the clock for as long as it is awaited.
    async fn sample(&self) -> Infallible {
        let mut tick = tokio::time::interval(SAMPLE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut minute = minute_now();
        let mut given_up = 0;
        loop {
            tick.tick().await;
            self.limit_of().apply();
            let control = self.0.run.borrow().control.clone();
            let now = control.map(|control| control.progress().snapshot());
            if let Some(now) = &now {
                lock(&self.0.paces).learn(now);
                if std::mem::replace(&mut given_up, now.given_up) < now.given_up {
                    self.count_again();
                }
            }
            let current = minute_now();
            if std::mem::replace(&mut minute, current) != current {
                let sample = self.end_minute(current.saturating_sub(1));
                self.keep(sample);
            }
        }
    }

    /// The sample of the minute that has ended.
    fn end_minute(&self, minute: u64) -> MinuteSample {
        let moved = lock(&self.0.paces).end_minute();
        let counts = self.0.counts.borrow();
        let sample =
            MinuteSample { minute, backlog_files: counts.totals.pending, backlog_bytes: counts.backlog_bytes, ..moved };
        lock(&self.0.history).add(sample);
        sample
    }

    /// Writes a sample without waiting for the disk; while it hangs, those of further minutes are not written.
    fn keep(&self, sample: MinuteSample) {
        let Some(file) = lock(&self.0.file).take() else { return };
        let console = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = file.write(&sample) {
                tracing::warn!("The history cannot be written: {error}");
            }
            *lock(&console.0.file) = Some(file);
        });
    }
}

/// How long the backlog takes if it goes on like this. What the hour has brought says nothing where something keeps files from
/// moving.
fn seconds_left(backlog: &BacklogReport, speed: &report::SpeedReport, held_up: bool) -> Option<f64> {
    let of = |left: Option<u64>, now: f64, hour: f64| {
        let rate = if now > 0.0 || held_up { now } else { hour };
        left.filter(|left| *left > 0 && rate > 0.0).map(|left| left as f64 / rate)
    };
    if backlog.files == Some(0) {
        return Some(0.0);
    }
    of(backlog.bytes, speed.bytes_now, speed.bytes_hour)
        .or_else(|| of(backlog.files, speed.files_now, speed.files_hour))
        .filter(|left| left.is_finite())
}

fn minute_now() -> u64 {
    u64::try_from(unix_seconds() / 60).unwrap_or(0)
}

/// Seconds of this minute that are over.
fn second_now() -> u64 {
    unix_seconds().rem_euclid(60).unsigned_abs()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_goes_by_the_hour_only_where_nothing_holds_files_up() {
        let backlog = BacklogReport { files: Some(20), bytes: Some(4000), ..BacklogReport::default() };
        let speed = |now, hour| report::SpeedReport { bytes_now: now, bytes_hour: hour, ..Default::default() };
        assert_eq!(seconds_left(&backlog, &speed(40.0, 10.0), true), Some(100.0));
        assert_eq!(seconds_left(&backlog, &speed(0.0, 10.0), false), Some(400.0));
        assert_eq!(seconds_left(&backlog, &speed(0.0, 10.0), true), None);
        assert_eq!(seconds_left(&BacklogReport { files: Some(0), ..backlog }, &speed(0.0, 0.0), true), Some(0.0));
    }
}
