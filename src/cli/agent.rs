//! The archiver as an agent of the observatory: the process `run`, and tasks beside it.

use super::flags::RunArgs;
use super::run::{Service, settings};
use crate::archiver::control::Control;
use crate::archiver::{self, Ended};
use crate::catalog::{self, AnyCatalog, Catalog, RecordId, Retry, Totals};
use crate::ocs::agent::{Agent, AgentConfig, AgentHandle};
use crate::ocs::feeds::Block;
use crate::ocs::operation::{Kind, Operation, Outcome, Param, Params};
use crate::ocs::session::Session;
use crate::status::Snapshot;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};

/// How often session data and feed are renewed.
const TICK: Duration = Duration::from_secs(5);
/// How often rows are counted, which may scan the table.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// The longest wait between attempts to open the table.
const OPENING_WAIT_MOST: Duration = Duration::from_secs(60);
/// The feed besides those of the old agents.
const FEED: &str = "archiver";

/// What the operations share.
struct Desk {
    service: Service,
    args: RunArgs,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    control: Option<Control>,
    catalog: Option<Arc<AnyCatalog>>,
    paused: bool,
}

/// Serves as an agent until told to end; returns the exit code.
pub(super) async fn serve(config: AgentConfig, args: RunArgs, service: Service) -> Result<u8> {
    let desk = Arc::new(Desk { service, args, now: Mutex::default() });
    let mut agent = Agent::new(config)?;
    agent.register_feed(FEED, true, Map::new())?;
    for operation in operations(&desk, &agent.handle()) {
        agent.register(operation)?;
    }
    listen_for_signals(desk, agent.handle())?;
    let end = agent.run().await;
    if end.is_error() {
        super::output::say(&format!("pysmurf-archiver: {end}"));
        return Ok(super::SOME_FAILED);
    }
    Ok(0)
}

fn operations(desk: &Arc<Desk>, handle: &AgentHandle) -> Vec<Operation> {
    let (run, feed) = (desk.clone(), handle.clone());
    let run = Operation::process("run", move |session, _| run.clone().run(session, feed.clone()))
        .docstring(RUN)
        .at_start(Params::new());
    let retry = desk.clone();
    let retry = Operation::task("retry", move |session, params| retry.clone().retry(session, params))
        .docstring(RETRY)
        .param(Param::optional("ids", Kind::List, Value::Null))
        .param(Param::optional("pattern", Kind::Text, Value::Null));
    let pending = desk.clone();
    let pending = Operation::task("pending", move |session, _| pending.clone().pending(session)).docstring(PENDING);
    let pause = desk.clone();
    let pause = Operation::task("pause", move |_, _| pause.clone().set_paused(true)).docstring(PAUSE);
    let resume = desk.clone();
    let resume = Operation::task("resume", move |_, _| resume.clone().set_paused(false)).docstring(RESUME);
    vec![run, retry, pending, pause, resume]
}

const RUN: &str = "\
run()

**Process** - Watches the table of files, copies every waiting file to the archive, and records what the storage node has
confirmed. Degraded while database or storage node is out of reach; the messages say why.

The session data::

    {\"copied\": 17, \"failed_attempts\": 0, \"read_bytes\": 3400000, \"literal_bytes\": 3400000, \"matched_bytes\": 0,
     \"pending\": 2, \"given_up\": 0, \"link_troubles\": 0, \"database_troubles\": 0, \"link\": null, \"database\": null,
     \"paused\": false, \"timestamp\": 1795350042.1}

Counts are of this run, `pending` and `given_up` of the table; `link` and `database` say what is wrong now.";
const RETRY: &str = "\
retry(ids=None, pattern=None)

**Task** - Gives rows that failed too often a new chance: those with the ids, or whose source path is like the pattern (`*`
for anything, `?` for one character), or all.

The session data::

    {\"rows\": 3}";
const PENDING: &str = "\
pending()

**Task** - Counts the rows of the table.

The session data::

    {\"pending\": 2, \"given_up\": 0, \"copied\": 17031, \"timestamp\": 1795350042.1}";
const PAUSE: &str = "\
pause()

**Task** - Takes up no further rows until `resume`; what is under way is finished. Outlasts a restart of `run`, not of the
agent.";
const RESUME: &str = "\
resume()

**Task** - Goes on after `pause`.";

impl Desk {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, session: Session, feed: AgentHandle) -> Outcome {
        let control = Control::new();
        {
            let mut now = self.now();
            if now.paused {
                control.pause();
            }
            now.control = Some(control.clone());
        }
        let stop = control.stop().clone();
        let asked = session.clone();
        let listening = tokio::spawn(async move {
            asked.stop_requested().await;
            stop.stop();
        });
        let ended = self.work(&session, &feed, &control).await;
        listening.abort();
        {
            let mut now = self.now();
            (now.control, now.catalog) = (None, None);
        }
        match ended {
            Ok(Ended::Stopped | Ended::Drained) => Ok("Stopped archiving data.".to_owned()),
            Ok(Ended::OutOfReach(why)) => Err(why),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    async fn work(&self, session: &Session, feed: &AgentHandle, control: &Control) -> Result<Ended> {
        let Some(catalog) = self.open(session, control).await else { return Ok(Ended::Stopped) };
        let catalog = Arc::new(catalog);
        self.now().catalog = Some(catalog.clone());
        session.add_message(&format!("Watching {}", catalog.describe()));
        let settings = settings(&self.args, &self.service);
        let work = archiver::run(settings, catalog.clone(), || self.service.connect(), control.clone());
        let tell = self.tell(session, feed, control, &catalog);
        tokio::select! {
            ended = work => Ok(ended?),
            never = tell => match never {},
        }
    }

    /// Opens the table, however long it takes: also a table or right that is missing may come with time.
    async fn open(&self, session: &Session, control: &Control) -> Option<AnyCatalog> {
        let mut wait = Duration::from_secs(1);
        loop {
            let opened = tokio::select! {
                opened = catalog::open(&self.service.database, self.service.options.clone()) => opened,
                () = control.stop().stopped() => return None,
            };
            match opened {
                Ok(catalog) => {
                    session.set_degraded(false);
                    return Some(catalog);
                }
                Err(error) => {
                    session.set_degraded(true);
                    session.add_message(&format!("{error}; trying again"));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
                () = control.stop().stopped() => return None,
            }
            wait = (wait * 2).min(OPENING_WAIT_MOST);
        }
    }

    /// Tells the observatory how it goes, again and again.
    async fn tell(
        &self,
        session: &Session,
        feed: &AgentHandle,
        control: &Control,
        catalog: &AnyCatalog,
    ) -> std::convert::Infallible {
        let mut tick = tokio::time::interval(TICK);
        let mut count = tokio::time::interval(COUNT_EVERY);
        let mut totals = Totals::default();
        let mut trouble = None;
        let mut before = Snapshot::default();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = count.tick() => {
                    totals = catalog.totals().await.unwrap_or(totals);
                    continue;
                }
            }
            let now = control.progress().snapshot();
            let trouble_now = now.database.clone().or_else(|| now.link.clone());
            if trouble_now != trouble {
                session.set_degraded(trouble_now.is_some());
                session.add_message(trouble_now.as_deref().unwrap_or("All is in reach again"));
                trouble = trouble_now;
            }
            session.set_data(data(&now, &totals, control.is_paused()));
            if let Err(error) = feed.publish(FEED, block(&now, &before, &totals)) {
                tracing::warn!("{error}");
            }
            before = now;
        }
    }

    async fn retry(self: Arc<Self>, session: Session, params: Params) -> Outcome {
        let which = match (params.get("ids").and_then(Value::as_array), params.get("pattern").and_then(Value::as_str)) {
            (Some(_), Some(_)) => return Err("Give ids or a pattern, not both".to_owned()),
            (Some(ids), None) => {
                let numbers: Option<Vec<_>> = ids.iter().map(|id| id.as_i64().map(RecordId)).collect();
                Retry::Ids(numbers.ok_or("Param 'ids' must be a list of whole numbers")?)
            }
            (None, Some(pattern)) => Retry::Pattern(pattern.to_owned()),
            (None, None) => Retry::All,
        };
        let (catalog, control) = self.at_work()?;
        let rows = catalog.retry(&which).await.map_err(|error| error.to_string())?;
        control.look_again();
        session.set_data(json!({"rows": rows}));
        Ok(format!("{rows} rows will be tried again"))
    }

    async fn pending(self: Arc<Self>, session: Session) -> Outcome {
        let (catalog, _) = self.at_work()?;
        let Totals { pending, given_up, copied } = catalog.totals().await.map_err(|error| error.to_string())?;
        session.set_data(json!({"pending": pending, "given_up": given_up, "copied": copied, "timestamp": unix_now()}));
        Ok(format!("{pending} rows wait, {given_up} were given up"))
    }

    async fn set_paused(self: Arc<Self>, paused: bool) -> Outcome {
        let mut now = self.now();
        now.paused = paused;
        if let Some(control) = &now.control {
            if paused { control.pause() } else { control.resume() }
        }
        Ok(if paused { "Paused" } else { "Resumed" }.to_owned())
    }

    fn at_work(&self) -> std::result::Result<(Arc<AnyCatalog>, Control), String> {
        let now = self.now();
        now.catalog
            .clone()
            .zip(now.control.clone())
            .ok_or("The process run has no table open; start it first".to_owned())
    }
}

fn data(now: &Snapshot, totals: &Totals, paused: bool) -> Value {
    json!({
        "copied": now.copied,
        "failed_attempts": now.failed,
        "read_bytes": now.read_bytes,
        "literal_bytes": now.literal_bytes,
        "matched_bytes": now.matched_bytes,
        "pending": totals.pending,
        "given_up": totals.given_up,
        "link_troubles": now.link_troubles,
        "database_troubles": now.database_troubles,
        "link": now.link,
        "database": now.database,
        "paused": paused,
        "timestamp": unix_now(),
    })
}

fn block(now: &Snapshot, before: &Snapshot, totals: &Totals) -> Block {
    let seconds = (now.seconds - before.seconds).max(0.001);
    let int = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Block::sample(FEED, unix_now())
        .int("backlog_files", int(totals.pending))
        .int("given_up", int(totals.given_up))
        .int("copied", int(now.copied))
        .int("failed_attempts", int(now.failed))
        .int("literal_bytes", int(now.literal_bytes))
        .int("matched_bytes", int(now.matched_bytes))
        .float("rate_bytes_per_s", now.read_bytes.saturating_sub(before.read_bytes) as f64 / seconds)
        .int("link_troubles", int(now.link_troubles))
        .int("database_troubles", int(now.database_troubles))
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The first SIGTERM or SIGINT leaves the router properly, the second closes the links at once.
fn listen_for_signals(desk: Arc<Desk>, handle: AgentHandle) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("Cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("Cannot listen for SIGINT")?;
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if round == 0 {
                tracing::info!("Stopping: running files are finished first; a second signal stops at once");
                handle.shutdown();
            } else if let Some(control) = &desk.now().control {
                control.stop().close_links();
            }
        }
    });
    Ok(())
}
