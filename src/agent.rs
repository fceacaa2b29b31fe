//! The archiver as an agent of the observatory: the process `run`, and tasks beside it. The monitor as one: `monitor`.

mod add;
mod feeds;
mod files;
pub(crate) mod monitor;
mod operations;
mod session_data;

use crate::archiver::control::Control;
use crate::archiver::{self, Ended};
use crate::catalog::{Catalog, CatalogError};
use crate::console::{Console, TableCounts};
use crate::ocs::agent::{Agent, AgentEnd, AgentError, AgentHandle};
use crate::ocs::feeds::{Block, FeedKind};
use crate::ocs::operation::OpOutcome;
use crate::ocs::session::OpSession;
use crate::ocs::site::{AgentClass, Resolved};
use crate::service::{ServiceError, ServiceRun, listen_for_hangups, listen_for_signals, systemd};
use crate::status::Snapshot;
use feeds::{ARCHIVE, FEED, TRANSFERS};
use serde_json::{Map, Value};
use session_data::{session_data, suprsync_data, trouble_of};
use std::sync::Arc;
use std::time::Duration;

/// How often session data and feed are renewed.
const TICK: Duration = Duration::from_secs(5);
/// How long the run may take to end once the agent has left the router.
const LAST_FILE: Duration = Duration::from_secs(6);
/// How often `transfer_stats` goes out.
const TRANSFERS_EVERY: Duration = Duration::from_secs(600);

/// The archiver behind its operations: what they share.
struct ArchiverAgent {
    run: ServiceRun,
    /// We stand in for a SupRsync agent, and speak its feeds too.
    suprsync: bool,
    console: Console,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The framework will not have it.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The process cannot hear of signals.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// Serves as an agent until told to end.
pub(crate) async fn serve(site: Resolved, run: ServiceRun) -> Result<AgentEnd, ServeError> {
    let suprsync = site.agent_class == AgentClass::SupRsync;
    let console = run.console.clone();
    let archiver = Arc::new(ArchiverAgent { run, suprsync, console: console.clone() });
    let mut agent = Agent::new(site.into())?;
    agent.register_feed(FEED, FeedKind::Recorded, Map::new())?;
    if suprsync {
        let quiet = Map::from_iter([("exclude_aggregator".to_owned(), Value::Bool(true))]);
        agent.register_feed(TRANSFERS, FeedKind::Recorded, quiet)?;
        agent.register_feed(ARCHIVE, FeedKind::Recorded, Map::new())?;
    }
    for operation in operations::operations(&archiver, &agent.handle()) {
        agent.register(operation)?;
    }
    let handle = agent.handle();
    let leaving = handle.clone();
    let (looking, closing, watched) = (console.clone(), console.clone(), console.clone());
    let look_again = move || {
        tracing::info!("SIGHUP: looking at the whole table; an agent reads its options only at the start");
        looking.look_again();
    };
    listen_for_signals(move || leaving.shutdown(), move || closing.close_links())?;
    listen_for_hangups(look_again)?;
    systemd::ready();
    let attending = tokio::spawn(systemd::attend(move || {
        let now: Vec<_> = watched.progress().iter().map(|progress| progress.snapshot()).collect();
        systemd::line_of_runs(&now)
    }));
    let looking_after = tokio::spawn(console.look_after());
    let end = agent.run().await;
    attending.abort();
    // The agent leaves the router soon; the file under way may take a little longer.
    if let Some(session) = handle.session("run") {
        let _ = tokio::time::timeout(LAST_FILE, session.done()).await;
    }
    looking_after.abort();
    Ok(end)
}

impl ArchiverAgent {
    async fn work(self: Arc<Self>, session: OpSession, feed: AgentHandle) -> OpOutcome {
        let control = Control::new();
        self.console.begin(&control);
        let stop = control.stop().clone();
        let asked = session.clone();
        let listening = tokio::spawn(async move {
            asked.stop_requested().await;
            stop.stop();
        });
        let ended = self.copy(&session, &feed, &control).await;
        listening.abort();
        self.console.ended();
        match ended {
            Ok(Ended::Stopped | Ended::Drained) => Ok("Stopped archiving data.".to_owned()),
            Ok(Ended::OutOfReach(why)) | Err(why) => Err(why),
        }
    }

    async fn copy(&self, session: &OpSession, feed: &AgentHandle, control: &Control) -> Result<Ended, String> {
        let ServiceRun { service, upkeep, .. } = &self.run;
        // However long it takes: also a table or right that is missing may come with time.
        let patient = |error: &CatalogError| {
            session.set_degraded(true);
            session.add_known_message(&format!("{error}; trying again"));
            true
        };
        let opened = service.open(control.stop(), patient).await.map_err(|error| error.to_string())?;
        let Some(catalog) = opened.map(Arc::new) else { return Ok(Ended::Stopped) };
        session.set_degraded(false);
        self.console.opened(&catalog);
        session.add_message(&format!("Watching {}", catalog.describe()));
        let (looking, told) = (service.look_for_strangers(catalog.clone()), session.clone());
        tokio::spawn(async move {
            if let Some(strangers) = looking.await {
                told.add_known_message(&strangers);
            }
        });
        let settings = self.run.begin().map_err(|error| error.to_string())?;
        let work = archiver::run(settings, catalog.clone(), || service.connect(), control.clone());
        let tell = self.tell(session, feed, control);
        tokio::select! {
            ended = work => ended.map_err(|error| error.to_string()),
            never = tell => match never {},
            () = upkeep.run(catalog.clone(), control.clone()), if !upkeep.is_idle() => Ok(Ended::Stopped),
        }
    }

    /// Tells the observatory how it goes, again and again.
    async fn tell(&self, session: &OpSession, feed: &AgentHandle, control: &Control) -> std::convert::Infallible {
        let mut tick = tokio::time::interval(TICK);
        let mut counts = self.console.counts();
        let mut transfers = tokio::time::interval(TRANSFERS_EVERY);
        let mut table = TableCounts::default();
        let mut trouble = None;
        let mut before = Snapshot::default();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                Ok(()) = counts.changed() => {
                    table = counts.borrow_and_update().clone();
                    if let Some(stats) = &table.archive {
                        self.publish(feed, ARCHIVE, feeds::archive_block(&self.run.service, stats));
                    }
                    continue;
                }
                _ = transfers.tick(), if self.suprsync => {
                    self.publish(feed, TRANSFERS, feeds::transfer_block(&control.progress().snapshot()));
                    continue;
                }
            }
            let now = control.progress().snapshot();
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
            let mut data = session_data(&now, &table, control);
            if self.suprsync {
                data.extend(suprsync_data(&now, &table));
            }
            session.set_data(data.into());
            self.publish(feed, FEED, feeds::block(&now, &before, &table));
            before = now;
        }
    }

    fn publish(&self, handle: &AgentHandle, feed: &str, block: Block) {
        if let Err(error) = handle.publish(feed, block) {
            tracing::warn!("{error}");
        }
    }
}
