//! The agent under test: the framework with a process, tasks and a recorded feed.

use pysmurf_archiver::ocs::agent::{Agent, AgentConfig, AgentEnd, AgentHandle};
use pysmurf_archiver::ocs::feeds::{Block, FeedKind};
use pysmurf_archiver::ocs::operation::{Operation, Param, ParamKind, Params};
use serde_json::{Map, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// A running agent.
pub(super) struct Running {
    runtime: Runtime,
    pub(super) handle: AgentHandle,
    end: Option<JoinHandle<AgentEnd>>,
}

/// Who and where; for tests to change.
pub(super) fn config(instance_id: &str, url: &str) -> AgentConfig {
    AgentConfig {
        address_root: "observatory".to_owned(),
        instance_id: instance_id.to_owned(),
        agent_class: "TestAgent".to_owned(),
        realm: "test_realm".to_owned(),
        wamp_server: url.to_owned(),
        crossbar_timeout: None,
        access_policy: None,
    }
}

impl Running {
    /// Starts it.
    pub(super) fn start(config: AgentConfig) -> Self {
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let mut agent = Agent::new(config).unwrap();
        let mut agg_params = Map::new();
        agg_params.insert("frame_length".to_owned(), json!(60));
        agent.register_feed("stats", FeedKind::Recorded, agg_params).unwrap();
        for operation in operations(&agent.handle()) {
            agent.register(operation).unwrap();
        }
        let handle = agent.handle();
        let end = Some(runtime.spawn(agent.run()));
        drop(inside);
        Self { runtime, handle, end }
    }

    /// Starts it and waits until it is on the router.
    pub(super) fn join(config: AgentConfig) -> Self {
        let running = Self::start(config);
        running.joined(true);
        running
    }

    /// Waits until it is on the router, or is not any more.
    pub(super) fn joined(&self, joined: bool) {
        until("joined", || self.handle.is_joined() == joined);
    }

    /// Waits for its end.
    pub(super) fn end(&mut self) -> AgentEnd {
        let end = self.end.take().unwrap();
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), end).await.unwrap().unwrap() })
    }

    /// Whether it has not ended.
    pub(super) fn lives(&self) -> bool {
        self.end.as_ref().is_some_and(|end| !end.is_finished())
    }
}

/// Waits for something that must happen soon.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn operations(handle: &AgentHandle) -> Vec<Operation> {
    let handle = handle.clone();
    let run = Operation::process("run", move |session, _| {
        let handle = handle.clone();
        async move {
            let mut rounds = 0;
            while !session.is_stop_requested() {
                rounds += 1;
                let data = json!({"fields": {"rounds": rounds, "rate": 2.0}, "timestamp": now()});
                session.set_data(data);
                session.set_degraded(rounds % 2 == 0);
                let block = Block::sample("stats", now()).float("rate", 2.0).int("rounds", rounds).text("last", "/a b");
                handle.publish("stats", block).map_err(|error| error.to_string())?;
                tokio::select! {
                    () = session.stop_requested() => {}
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
            }
            Ok("Exited cleanly.".to_owned())
        }
    });
    let delay = Operation::task("delay", |session, params: Params| async move {
        let seconds = params["delay"].as_f64().unwrap();
        session.add_message(&format!("Sleeping {seconds} s"));
        tokio::select! {
            () = session.stop_requested() => Err("Aborted.".to_owned()),
            () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => Ok(format!("Slept {seconds} s.")),
        }
    });
    let delay = delay
        .abortable()
        .docstring("delay(delay, mode='slow')\n\n**Task** - Sleeps.")
        .param(Param::required("delay", ParamKind::Float))
        .param(Param::optional("mode", ParamKind::Text, "slow"));
    vec![
        run.docstring("run()\n\n**Process** - Runs.").at_start(Params::new()),
        delay,
        Operation::task("crash", |_, _| -> std::future::Ready<_> { panic!("on purpose") }),
        Operation::task("guarded", |_, _| async { Ok("Done.".to_owned()) }).min_privs(2),
    ]
}
