//! The archiver as an agent of the observatory: the process `run`, and tasks beside it.

use super::flags::{RunArgs, rate};
use super::run::{Service, listen_for_hangups, listen_for_signals, settings, upkeep};
use crate::archiver::control::Control;
use crate::archiver::{self, Ended, Settings};
use crate::catalog::{self, AnyCatalog, ArchiveStats, Catalog, Pending, RecordId, Retry, Totals};
use crate::clock::unix_now;
use crate::ocs::agent::{Agent, AgentConfig, AgentHandle};
use crate::ocs::feeds::Block;
use crate::ocs::operation::{Kind, Operation, Outcome, Param, Params};
use crate::ocs::session::Session;
use crate::ocs::site::AgentClass;
use crate::status::{LastCopy, Snapshot};
use crate::throttle::Rate;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often session data and feed are renewed.
const TICK: Duration = Duration::from_secs(5);
/// How often rows are counted at least, and what share of the time that may take: it may scan the table.
const COUNT_EVERY: Duration = Duration::from_secs(60);
const COUNT_SHARE: u32 = 100;
/// How long the run may take to end once the agent has left the router.
const LAST_FILE: Duration = Duration::from_secs(6);
/// Rows that are shown of those given a new chance.
const SHOWN_MOST: usize = 100;
/// The longest wait between attempts to open the table.
const OPENING_WAIT_MOST: Duration = Duration::from_secs(60);
/// The feed besides those of the old agents.
const FEED: &str = "archiver";
/// Feeds of the SupRsync agent.
const TRANSFERS: &str = "transfer_stats";
const ARCHIVE: &str = "archive_stats";
/// How often `transfer_stats` goes out.
const TRANSFERS_EVERY: Duration = Duration::from_secs(600);
/// Waiting files whose sizes are looked up for the backlog; beyond, the sum is scaled.
const SIZED_MOST: usize = 1000;

/// What the operations share.
struct Desk {
    service: Service,
    args: RunArgs,
    /// We stand in for a SupRsync agent, and speak its feeds too.
    suprsync: bool,
    instance: String,
    /// The limit, which outlasts a run.
    rate: Rate,
    /// The table's counts are no longer what they were.
    recount: Notify,
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
    let suprsync = config.agent_class == AgentClass::SupRsync.name();
    let rate = Rate::new(args.bwlimit.unwrap_or(0));
    let instance = config.instance_id.clone();
    let desk =
        Arc::new(Desk { service, args, suprsync, instance, rate, recount: Notify::new(), now: Mutex::default() });
    let mut agent = Agent::new(config)?;
    agent.register_feed(FEED, true, Map::new())?;
    if suprsync {
        let quiet = Map::from_iter([("exclude_aggregator".to_owned(), Value::Bool(true))]);
        agent.register_feed(TRANSFERS, true, quiet)?;
        agent.register_feed(ARCHIVE, true, Map::new())?;
    }
    for operation in operations(&desk, &agent.handle()) {
        agent.register(operation)?;
    }
    let handle = agent.handle();
    let leaving = handle.clone();
    let looking = desk.clone();
    let look_again = move || {
        if let Some(control) = &looking.now().control {
            control.look_again();
        }
    };
    let close_links = move || {
        if let Some(control) = &desk.now().control {
            control.stop().close_links();
        }
    };
    listen_for_signals(move || leaving.shutdown(), close_links)?;
    listen_for_hangups(look_again)?;
    let end = agent.run().await;
    // The agent leaves the router soon; the file under way may take a little longer.
    if let Some(session) = handle.session("run") {
        let _ = tokio::time::timeout(LAST_FILE, session.done()).await;
    }
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
    let bwlimit = desk.clone();
    let bwlimit = Operation::task("bwlimit", move |session, params| bwlimit.clone().bwlimit(session, params))
        .docstring(BWLIMIT)
        .param(Param::optional("rate", Kind::Any, Value::Null));
    let resume = desk.clone();
    let resume = Operation::task("resume", move |_, _| resume.clone().set_paused(false)).docstring(RESUME);
    vec![run, retry, pending, pause, resume, bwlimit]
}

const RUN: &str = "\
run()

**Process** - Watches the table of files, copies every waiting file to the archive, and records what the storage node has
confirmed. Degraded while database, storage node or the files' own folders are out of reach, and while rows are given up;
the messages say why.

The session data, with what the SupRsync agent has for a SupRsync archive::

    {\"archiver\": {\"copied\": 17, \"failed_attempts\": 0, \"read_bytes\": 3400000, \"literal_bytes\": 3400000,
                  \"matched_bytes\": 0, \"pending\": 2, \"given_up\": 0, \"link_troubles\": 0, \"database_troubles\": 0,
                  \"link\": null, \"database\": null, \"road\": null, \"source\": null, \"paused\": false,
                  \"failures\": {\"missing\": 0, \"unreadable\": 0, \"changed\": 0, \"refused\": 0, \"row\": 0},
                  \"session_bytes\": [3400000], \"last_proven\": {\"time\": 1795350041.9, \"path\": \"17953/a/b.npy\"}},
     \"activity\": \"idle\",
     \"last_copy\": {\"start_time\": 1795350042.0, \"files\": [[\"/data/b.npy\", true]], \"stop_time\": 1795350042.1},
     \"counters\": {\"iterations\": 9, \"copies\": 10, \"errors_timeout\": 0, \"errors_nonzero\": 0, \"errors_sqlite\": 0},
     \"archive_stats\": {\"finalized_until\": 1795350012.2, \"num_files\": 9, \"uncopied_files\": 1,
                       \"last_file_added\": \"/data/c.npy\", \"last_file_copied\": \"/data/b.npy\"},
     \"timestamp\": 1795350042.1}

Counts are of this run, `pending` and `given_up` of the table; `link`, `database` and\n`source` (where the files come from) say what is wrong now, `road` how files go where the storage node has no rsync.";
const RETRY: &str = "\
retry(ids=None, pattern=None)

**Task** - Gives rows that failed too often a new chance: those with the ids, or whose source path is like the pattern (`*`
for anything, `?` for one character), or all.

The session data::

    {\"rows\": 1, \"reasons\": [{\"id\": 17, \"path\": \"/data/c.npy\", \"why\": \"it is missing\"}]}

`reasons` says why they had failed, where that was kept, for the first hundred.";
const PENDING: &str = "\
pending()

**Task** - Counts the rows of the table.

The session data::

    {\"pending\": 2, \"given_up\": 0, \"copied\": 17031, \"timestamp\": 1795350042.1}";
const PAUSE: &str = "\
pause()

**Task** - Takes up no further rows until `resume`; what is under way is finished. Outlasts a restart of `run`, not of the
agent.";
const BWLIMIT: &str = "\
bwlimit(rate=None)

**Task** - Limits what all sessions move together from now on, files under way included: KiB per second, or a text with a
suffix as rsync's --bwlimit has it; 0 for no limit. Without a rate it only tells. Outlasts a restart of `run`, not of the
agent.

The session data, in bytes per second, 0 for no limit::

    {\"bwlimit\": 1048576}";
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
        let chosen = self.service.options.selection.targets.clone();
        let (looking, told) = (super::run::look_for_strangers(catalog.clone(), chosen), session.clone());
        tokio::spawn(async move {
            if let Some(strangers) = looking.await {
                told.add_known_message(&strangers);
            }
        });
        let settings = Settings { rate: self.rate.clone(), ..settings(&self.args, &self.service)? };
        let upkeep = upkeep(&self.args, &self.service, Some(&self.instance))?;
        let upkeeping = upkeep.run(catalog.clone(), control.clone());
        let work = archiver::run(settings, catalog.clone(), || self.service.connect(), control.clone());
        let tell = self.tell(session, feed, control, &catalog);
        tokio::select! {
            ended = work => Ok(ended?),
            never = tell => match never {},
            () = upkeeping, if !upkeep.is_idle() => Ok(Ended::Stopped),
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
                    tracing::warn!("{error}; trying again");
                    session.add_known_message(&format!("{error}; trying again"));
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
        let count = tokio::time::sleep(Duration::ZERO);
        let mut count = std::pin::pin!(count);
        let mut transfers = tokio::time::interval(TRANSFERS_EVERY);
        let mut table = Table::default();
        let mut trouble = None;
        let mut before = Snapshot::default();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = count.as_mut() => {
                    let began = Instant::now();
                    table = Table::look(catalog, table).await;
                    let pause = (began.elapsed() * COUNT_SHARE).clamp(TICK, COUNT_EVERY);
                    count.as_mut().reset(tokio::time::Instant::now() + pause);
                    if let Some(stats) = &table.archive {
                        self.publish(feed, ARCHIVE, archive_block(&self.service, stats));
                    }
                    continue;
                }
                () = self.recount.notified() => {
                    count.as_mut().reset(tokio::time::Instant::now());
                    continue;
                }
                _ = transfers.tick(), if self.suprsync => {
                    self.publish(feed, TRANSFERS, transfer_block(&control.progress().snapshot()));
                    continue;
                }
            }
            let now = control.progress().snapshot();
            if now.given_up != before.given_up {
                count.as_mut().reset(tokio::time::Instant::now());
            }
            let trouble_now = trouble_of(&now, &table);
            if trouble_now != trouble {
                session.set_degraded(trouble_now.is_some());
                // Whoever met the trouble has logged it.
                match &trouble_now {
                    Some(trouble) => session.add_known_message(trouble),
                    None => session.add_message("All is in reach again"),
                }
                trouble = trouble_now;
            }
            if now.road != before.road {
                let road = now.road.as_deref().unwrap_or("the storage node's own rsync");
                session.add_message(&format!("Files go by {road}"));
            }
            session.set_data(self.data(&now, &table, control.is_paused()));
            self.publish(feed, FEED, block(&now, &before, &table));
            before = now;
        }
    }

    fn publish(&self, handle: &AgentHandle, feed: &str, block: Block) {
        if let Err(error) = handle.publish(feed, block) {
            tracing::warn!("{error}");
        }
    }

    fn data(&self, now: &Snapshot, table: &Table, paused: bool) -> Value {
        let [missing, unreadable, changed, refused, row] = now.failures;
        let mut data = json!({
            "archiver": {
                "copied": now.copied,
                "failed_attempts": now.failed,
                "read_bytes": now.read_bytes,
                "literal_bytes": now.literal_bytes,
                "matched_bytes": now.matched_bytes,
                "pending": table.totals.pending,
                "given_up": table.totals.given_up,
                "link_troubles": now.link_troubles,
                "database_troubles": now.database_troubles,
                "link": now.link,
                "database": now.database,
                "road": now.road,
                "source": now.source,
                "paused": paused,
                "failures": {
                    "missing": missing, "unreadable": unreadable, "changed": changed, "refused": refused, "row": row,
                },
                "session_bytes": now.session_bytes,
                "last_proven": now.last_proven.as_ref().map(|(time, path)| json!({"time": time, "path": path})),
            },
            "timestamp": unix_now(),
        });
        if let (true, Value::Object(data)) = (self.suprsync, &mut data) {
            let LastCopy { start_time, stop_time, files } = &now.last_copy;
            let stats = table.archive.clone().unwrap_or_default();
            data.extend([
                ("activity".to_owned(), json!(activity(now))),
                ("last_copy".to_owned(), json!({"start_time": start_time, "files": files, "stop_time": stop_time})),
                (
                    "counters".to_owned(),
                    counters(now)
                        .into_iter()
                        .map(|(name, count)| (name.to_owned(), count.into()))
                        .collect::<Map<_, _>>()
                        .into(),
                ),
                (
                    "archive_stats".to_owned(),
                    json!({
                        "finalized_until": stats.finalized_until,
                        "num_files": stats.num_files,
                        "uncopied_files": stats.uncopied_files,
                        "last_file_added": stats.last_file_added,
                        "last_file_copied": stats.last_file_copied,
                    }),
                ),
            ]);
        }
        data
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
        let known = catalog.given_up(&which, SHOWN_MOST).await.map_err(|error| error.to_string())?;
        let rows = catalog.retry(&which).await.map_err(|error| error.to_string())?;
        control.look_again();
        self.recount.notify_one();
        let reasons: Vec<_> = known
            .iter()
            .map(|note| json!({"id": note.id.0, "path": note.path, "why": note.reason.as_ref().map(|(_, why)| why)}))
            .collect();
        session.set_data(json!({"rows": rows, "reasons": reasons}));
        Ok(Retry::told(rows))
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

    async fn bwlimit(self: Arc<Self>, session: Session, params: Params) -> Outcome {
        match params.get("rate").unwrap_or(&Value::Null) {
            Value::Null => {}
            Value::String(text) => self.rate.set(rate(text)?),
            other => self.rate.set(rate(&other.to_string())?),
        }
        let now = self.rate.get();
        session.set_data(json!({"bwlimit": now}));
        Ok(match now {
            0 => "No limit".to_owned(),
            now => format!("At most {now} bytes per second"),
        })
    }

    fn at_work(&self) -> std::result::Result<(Arc<AnyCatalog>, Control), String> {
        let now = self.now();
        now.catalog
            .clone()
            .zip(now.control.clone())
            .ok_or("The process run has no table open; start it first".to_owned())
    }
}

/// What the table said when it was last asked.
#[derive(Default)]
struct Table {
    totals: Totals,
    backlog_bytes: u64,
    oldest: Option<f64>,
    archive: Option<ArchiveStats>,
}

impl Table {
    /// Asks the table; what it does not answer stays as it was.
    async fn look(catalog: &AnyCatalog, before: Self) -> Self {
        let totals = catalog.totals().await.unwrap_or(before.totals);
        let oldest = catalog.oldest().await.unwrap_or(before.oldest);
        let archive = catalog.archive_stats().await.unwrap_or(before.archive);
        let sizes = catalog.pending(RecordId(0), SIZED_MOST).await.map(sizes);
        let backlog_bytes = match sizes {
            Ok(sizes) => {
                let (files, bytes) = tokio::task::spawn_blocking(sizes).await.unwrap_or_default();
                if files == 0 { 0 } else { (bytes as f64 / files as f64 * totals.pending as f64) as u64 }
            }
            Err(_) => before.backlog_bytes,
        };
        Self { totals, backlog_bytes, oldest, archive }
    }
}

/// Looks up how many of the rows' files there are, and their bytes.
fn sizes(rows: Vec<Pending>) -> impl FnOnce() -> (u64, u64) + Send + 'static {
    move || {
        rows.iter().fold((0, 0), |(files, bytes), row| match row {
            Pending::Ready(record) => {
                (files + 1, bytes + std::fs::metadata(&record.source).map_or(0, |meta| meta.len()))
            }
            Pending::Unusable { .. } => (files + 1, bytes),
        })
    }
}

fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn block(now: &Snapshot, before: &Snapshot, table: &Table) -> Block {
    let seconds = (now.seconds - before.seconds).max(0.001);
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let per_session = now
        .session_bytes
        .iter()
        .enumerate()
        .map(|(number, bytes)| rate(*bytes, before.session_bytes.get(number).copied().unwrap_or_default()));
    let sessions = now.session_bytes.len().max(1) as f64;
    let [missing, unreadable, changed, refused, row] = now.failures;
    Block::sample(FEED, unix_now())
        .int("backlog_files", int(table.totals.pending))
        .int("backlog_bytes", int(table.backlog_bytes))
        .float("oldest_pending_age", table.oldest.map_or(0.0, |oldest| (unix_now() - oldest).max(0.0)))
        .int("given_up", int(table.totals.given_up))
        .int("copied", int(now.copied))
        .int("failed_attempts", int(now.failed))
        .int("failed_missing", int(missing))
        .int("failed_unreadable", int(unreadable))
        .int("failed_changed", int(changed))
        .int("failed_refused", int(refused))
        .int("failed_row", int(row))
        .int("literal_bytes", int(now.literal_bytes))
        .int("matched_bytes", int(now.matched_bytes))
        .float("rate_bytes_per_s", rate(now.read_bytes, before.read_bytes))
        .float("session_rate_mean", per_session.clone().fold(0.0, |sum, rate| sum + rate) / sessions)
        .float("session_rate_least", per_session.reduce(f64::min).unwrap_or(0.0))
        .float("last_proven_time", now.last_proven.as_ref().map_or(0.0, |(time, _)| *time))
        .text("last_proven", now.last_proven.as_ref().map_or("", |(_, path)| path))
        .int("link_troubles", int(now.link_troubles))
        .int("database_troubles", int(now.database_troubles))
}

/// What is wrong now, if anything: what keeps all files waiting first.
fn trouble_of(now: &Snapshot, table: &Table) -> Option<String> {
    let given_up = || match table.totals.given_up {
        0 => None,
        1 => Some("1 row is given up; its reason is in the log, and task retry has it tried again".to_owned()),
        rows => {
            Some(format!("{rows} rows are given up; their reasons are in the log, and task retry has them tried again"))
        }
    };
    now.database.clone().or_else(|| now.link.clone()).or_else(|| now.source.clone()).or_else(given_up)
}

fn activity(now: &Snapshot) -> &'static str {
    match (now.in_flight > 0, now.deleting) {
        (true, _) => "copying",
        (false, true) => "deleting",
        (false, false) => "idle",
    }
}

/// SupRsync's five counters, as near as ours come to them.
fn counters(now: &Snapshot) -> [(&'static str, i64); 5] {
    [
        ("iterations", int(now.passes)),
        ("copies", int(now.copied + now.failed)),
        ("errors_timeout", int(now.timeouts)),
        ("errors_nonzero", int(now.link_troubles.saturating_sub(now.timeouts))),
        ("errors_sqlite", int(now.database_troubles)),
    ]
}

fn transfer_block(now: &Snapshot) -> Block {
    counters(now).into_iter().fold(Block::sample("block0", unix_now()), |block, (name, count)| block.int(name, count))
}

/// Named as the archive.
fn archive_block(service: &Service, stats: &ArchiveStats) -> Block {
    let name = service.options.selection.targets.first().map_or("archive", String::as_str);
    Block::sample(name, unix_now())
        .float("finalized_until", stats.finalized_until)
        .int("num_files", stats.num_files)
        .int("uncopied_files", stats.uncopied_files)
        .text("last_file_added", &stats.last_file_added)
        .text("last_file_copied", &stats.last_file_copied)
}
