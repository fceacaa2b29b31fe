//! The monitor as an agent of the observatory, with the process and the feeds of the Python monitor.

mod feeds;

use super::ServeError;
use crate::clock::unix_now;
use crate::monitor::{Monitor, MonitorCounters, MonitorSnapshot, RegistrarGate};
use crate::ocs::agent::{Agent, AgentEnd};
use crate::ocs::feeds::FeedKind;
use crate::ocs::operation::{OpOutcome, Operation, Param, ParamKind, Params};
use crate::ocs::session::OpSession;
use crate::ocs::site::Resolved;
use feeds::SESSION;
pub(crate) use feeds::{FeedAudience, FeedQueue};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often the session data are renewed.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked whether a test is over.
const TEST_TICK: Duration = Duration::from_millis(100);

const RUN: &str = "\
run(test_mode=False)

**Process** - Registers the files that publishers announce. What is announced is received and kept whether it runs or not.
Degraded while the database or the spool is out of reach; the messages say why.

With `test_mode` it ends once all is registered that was announced.

The session data::

    {\"monitor\": {\"received\": 1204, \"registered\": 1150, \"at_work\": 0, \"waiting\": 2, \"rejects\": 1, \"others\": 51,
                 \"spooled\": 1153, \"rejected\": 1, \"dropped\": 0, \"lost\": 0, \"gaps\": 40, \"strangers\": 0,
                 \"spool_bytes\": 524288, \"database\": null, \"spool\": null},
     \"timestamp\": 1795350042.1}

`waiting` wait for their file, `rejects` are those that `monitor rejects` lists, `others` announced no file; `dropped` by the
kernel, `lost` for want of room, `gaps` are numbers of publishers that never came. `database` and `spool` say what is wrong.";

/// What the operations share.
struct MonitorAgent {
    gate: RegistrarGate,
    counters: Arc<MonitorCounters>,
}

/// Serves as an agent until told to end, or until `over`.
pub(crate) async fn serve(
    site: Resolved,
    monitor: &Monitor,
    at_start: Autostart,
    feeds: FeedQueue,
    over: impl Future<Output = ()>,
) -> Result<AgentEnd, ServeError> {
    let mut agent = Agent::new(site.into())?;
    agent.register_feed(SESSION, FeedKind::Free, Map::new())?;
    let of = Arc::new(MonitorAgent { gate: monitor.gate().clone(), counters: monitor.counters().clone() });
    let run = Operation::process("run", move |session, params| of.clone().work(session, params))
        .docstring(RUN)
        .param(Param::optional("test_mode", ParamKind::Bool, false));
    agent.register(match at_start {
        Autostart::Run => run.at_start(Params::new()),
        Autostart::Wait => run,
    })?;
    let handle = agent.handle();
    let publishing = tokio::spawn(feeds.publish(handle.clone()));
    let mut serving = std::pin::pin!(agent.run());
    let end = tokio::select! {
        end = &mut serving => end,
        () = over => {
            handle.shutdown();
            serving.await
        }
    };
    publishing.abort();
    Ok(end)
}

/// Whether `run` is at work from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Autostart {
    Run,
    Wait,
}

impl MonitorAgent {
    async fn work(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let turns = self.counters.turns.load(Relaxed);
        self.gate.open();
        let is_test = params.get("test_mode") == Some(&Value::Bool(true));
        let mut tick = tokio::time::interval(TICK);
        let mut looking = tokio::time::interval(TEST_TICK);
        let mut trouble = None;
        loop {
            tokio::select! {
                () = session.stop_requested() => break,
                _ = tick.tick() => self.tell(&session, &mut trouble),
                // The first turn may have begun before.
                _ = looking.tick(), if is_test => {
                    if self.counters.turns.load(Relaxed) > turns + 1 && self.counters.snapshot().at_work == 0 {
                        break;
                    }
                }
            }
        }
        self.gate.close();
        self.tell(&session, &mut trouble);
        Ok("Monitor exited cleanly.".to_owned())
    }

    /// Tells the observatory how it goes.
    fn tell(&self, session: &OpSession, before: &mut Option<String>) {
        let now = self.counters.snapshot();
        let trouble = now.troubles.why().map(str::to_owned);
        if trouble != *before {
            session.set_degraded(trouble.is_some());
            // Whoever met the trouble has logged it.
            match &trouble {
                Some(trouble) => session.add_known_message(trouble),
                None => session.add_message("All is in reach again"),
            }
            *before = trouble;
        }
        session.set_data(session_data(&now));
    }
}

fn session_data(now: &MonitorSnapshot) -> Value {
    let monitor = json!({
        "received": now.received,
        "registered": now.registered,
        "at_work": now.at_work,
        "waiting": now.waiting,
        "rejects": now.rejects,
        "others": now.others,
        "spooled": now.spooled,
        "rejected": now.rejected,
        "dropped": now.dropped,
        "lost": now.lost,
        "gaps": now.gaps,
        "strangers": now.strangers,
        "spool_bytes": now.spool_bytes,
        "database": now.troubles.database.as_ref().map(|trouble| &trouble.why),
        "spool": now.troubles.spool,
    });
    json!({"monitor": monitor, "timestamp": unix_now()})
}
