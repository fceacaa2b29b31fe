//! An agent: its operations, feeds and sessions, and its life on the router.

mod calls;
mod router;

use super::access::{AccessError, AgentAccess};
use super::feeds::{Feed, FeedError, FeedKind, FeedOwner, Payload};
use super::operation::{OpType, Operation, Params};
use super::session::{OpSession, OpStatus};
use super::site::Resolved;
use super::wamp::{self, MAX_MESSAGE, WampError};
use super::{Latch, lock};
use crate::clock::unix_now;
use serde_json::{Map, Value};
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events waiting to be sent.
const MAX_EVENTS: usize = 64;

/// Who an agent is and where its router is.
pub struct AgentConfig {
    /// The prefix of the site, such as `observatory`.
    pub address_root: String,
    /// The name of this agent at the site, without dots.
    pub instance_id: String,
    /// What kind of agent it is.
    pub agent_class: String,
    /// The router's realm, such as `test_realm`.
    pub realm: String,
    /// The router's WebSocket URL, such as `ws://127.0.0.1:8001/ws`.
    pub wamp_server: String,
    /// End after so long without a router; `None` and zero never end.
    pub crossbar_timeout: Option<Duration>,
    /// `none`, `override:PASSWORD2,PASSWORD3` or `director:INSTANCE-ID`; `None` is `none`.
    pub access_policy: Option<String>,
}

impl From<Resolved> for AgentConfig {
    fn from(site: Resolved) -> Self {
        Self {
            address_root: site.address_root,
            instance_id: site.instance_id,
            agent_class: site.agent_class.name().to_owned(),
            realm: site.realm,
            wamp_server: site.wamp_server,
            // Zero is Python's word for never.
            crossbar_timeout: site.crossbar_timeout.filter(|limit| !limit.is_zero()),
            access_policy: site.access_policy,
        }
    }
}

/// Why there can be no such agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A name that cannot be part of an address.
    #[error("{what} {text:?} is not usable in an address; give letters, digits, - and _ without blanks{hint}")]
    Name {
        /// What it is the name of.
        what: &'static str,
        /// As given.
        text: String,
        /// What else is not allowed.
        hint: &'static str,
    },
    /// The router's URL.
    #[error(transparent)]
    Address(#[from] WampError),
    /// The access policy.
    #[error(transparent)]
    AgentAccess(#[from] AccessError),
    /// A feed.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A second operation of that name.
    #[error("Operation {0} is registered already")]
    Twice(String),
    /// Operations need somewhere to run.
    #[error("An agent needs a tokio runtime around it")]
    NoRuntime,
}

/// Why an agent has ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AgentEnd {
    /// By [`AgentHandle::shutdown`].
    #[error("Agent was asked to end")]
    Asked,
    /// There was no router for as long as allowed. Agents end with status 0 then.
    #[error("No router for {seconds} s, the limit set by --crossbar-timeout")]
    NoRouter {
        /// How long, in seconds.
        seconds: f64,
    },
    /// Another agent has the name.
    #[error(
        "Agent address {address} is taken on the router: this agent runs already; end the other one or give another --instance-id"
    )]
    NameTaken {
        /// The address both want.
        address: String,
    },
    /// The router does not let us use the address.
    #[error(
        "The router does not let an agent use the address {address}; make the realm and address_root of the site file agree with the router's configuration"
    )]
    NotAuthorized {
        /// The address.
        address: String,
    },
}

impl AgentEnd {
    /// Whether it is a failure.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::NameTaken { .. } | Self::NotAuthorized { .. })
    }
}

/// An agent to be. Register operations and feeds, then run it.
pub struct Agent {
    shared: Arc<AgentCore>,
    events: mpsc::Receiver<(String, Value)>,
}

/// A hold on an agent, from any thread. Clones are the same hold.
#[derive(Clone)]
pub struct AgentHandle(Arc<AgentCore>);

struct AgentCore {
    config: AgentConfig,
    address: String,
    session_id: String,
    access: Mutex<AgentAccess>,
    operations: Mutex<BTreeMap<String, Arc<Operation>>>,
    sessions: Mutex<Sessions>,
    feeds: Mutex<Vec<Feed>>,
    events: mpsc::Sender<(String, Value)>,
    joined: AtomicBool,
    told_unreachable: AtomicBool,
    shutdown: Latch,
    stop_by: OnceLock<Instant>,
    runtime: Handle,
}

#[derive(Default)]
struct Sessions {
    next: u64,
    last: HashMap<String, OpSession>,
}

/// Who starts an operation.
enum Caller<'a> {
    Ourselves,
    Client { password: &'a str },
}

/// The answer to an operation call: code, message, and the session, with how it looked at that moment.
struct StartReply(i8, String, Option<(OpSession, Value)>);

/// Bytes of messages in an answer; with the data they stay below what a WAMP message may hold.
const MESSAGE_BUDGET: usize = 512 << 10;

impl StartReply {
    fn with(code: i8, text: String, session: OpSession) -> Self {
        let encoded = session.encoded(MESSAGE_BUDGET);
        Self(code, text, Some((session, encoded)))
    }
}

impl Agent {
    /// An agent without operations. Call it inside a tokio runtime, where its operations will run.
    pub fn new(mut config: AgentConfig) -> Result<Self, AgentError> {
        config.crossbar_timeout = config.crossbar_timeout.filter(|limit| !limit.is_zero());
        let usable = |c: char| !c.is_whitespace() && !c.is_control() && c != '#';
        let name = |what, text: &String, hint| AgentError::Name { what, text: text.clone(), hint };
        if config.instance_id.is_empty() || !config.instance_id.chars().all(|c| usable(c) && c != '.') {
            return Err(name("Instance id", &config.instance_id, " or dots"));
        }
        let root = &config.address_root;
        if root.split('.').any(str::is_empty) || !root.chars().all(usable) {
            return Err(name("Address root", root, ""));
        }
        wamp::request(&config.wamp_server)?;
        let access = AgentAccess::new(config.access_policy.as_deref(), &config.instance_id, &config.agent_class)?;
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let shared = AgentCore {
            address: format!("{}.{}", config.address_root, config.instance_id),
            config,
            // As Python prints a float.
            session_id: format!("{:?}", unix_now()),
            access: Mutex::new(access),
            operations: Mutex::default(),
            sessions: Mutex::default(),
            feeds: Mutex::default(),
            events: sender,
            joined: AtomicBool::new(false),
            // Until we have been there once, those who look for the router tell.
            told_unreachable: AtomicBool::new(true),
            shutdown: Latch::new(),
            stop_by: OnceLock::new(),
            runtime: Handle::try_current().map_err(|_| AgentError::NoRuntime)?,
        };
        Ok(Self { shared: Arc::new(shared), events })
    }

    /// Adds an operation.
    pub fn register(&mut self, operation: Operation) -> Result<(), AgentError> {
        let mut operations = lock(&self.shared.operations);
        if operations.contains_key(&operation.name) {
            return Err(AgentError::Twice(operation.name));
        }
        operations.insert(operation.name.clone(), Arc::new(operation));
        Ok(())
    }

    /// Adds a feed; `agg_params` tells the recorders how to treat it.
    pub fn register_feed(
        &mut self,
        name: &str,
        kind: FeedKind,
        agg_params: Map<String, Value>,
    ) -> Result<(), AgentError> {
        Ok(self.shared.add_feed(name, kind, agg_params)?)
    }

    /// A hold on it, for operations and signal handlers.
    pub fn handle(&self) -> AgentHandle {
        AgentHandle(self.shared.clone())
    }

    /// Starts the operations that are to start, and serves on the router, whenever there is one, until told to end.
    pub async fn run(self) -> AgentEnd {
        let Self { shared, events } = self;
        if let Err(error) = shared.add_feed("heartbeat", FeedKind::Free, Map::new()) {
            tracing::error!("{error}");
        }
        tracing::info!("Agent {} of class {} begins", shared.address, shared.config.agent_class);
        let operations: Vec<_> = lock(&shared.operations).values().cloned().collect();
        for operation in operations {
            if let Some(params) = &operation.at_start {
                let StartReply(_, text, _) = shared.start(&operation.name, &params.clone().into(), &Caller::Ourselves);
                tracing::info!("{text}");
            }
        }
        let end = router::run(&shared, events).await;
        tracing::info!("{end}");
        end
    }
}

impl AgentHandle {
    /// Adds a feed while the agent is at work.
    pub fn register_feed(&self, name: &str, kind: FeedKind) -> Result<(), FeedError> {
        self.0.add_feed(name, kind, Map::new())
    }

    /// As [`Self::publish`], and waits for its turn where much waits for the router.
    pub async fn publish_in_turn(&self, feed: &str, payload: impl Into<Payload> + Send) -> Result<bool, FeedError> {
        let event = self.0.event(feed, payload.into())?;
        let sent = self.is_joined() && self.0.events.send(event).await.is_ok();
        Ok(sent || self.0.unreachable())
    }

    /// Publishes to a registered feed; false when there is no router to take it, or too much waits for it.
    pub fn publish(&self, feed: &str, payload: impl Into<Payload>) -> Result<bool, FeedError> {
        self.0.publish(feed, payload.into())
    }

    /// Begins the end: operations are asked to stop, then the agent leaves the router.
    pub fn shutdown(&self) {
        self.0.shutdown.raise();
    }

    /// Starts an operation as the agent itself does, or says why not.
    pub fn start_op(&self, name: &str, params: Params) -> Result<OpSession, String> {
        match self.0.start(name, &params.into(), &Caller::Ourselves) {
            StartReply(0, _, Some((session, _))) => Ok(session),
            StartReply(_, text, _) => Err(text),
        }
    }

    /// The running or last run of an operation.
    pub fn session(&self, name: &str) -> Option<OpSession> {
        self.0.session(name)
    }

    /// Whether the agent is on a router now.
    pub fn is_joined(&self) -> bool {
        self.0.joined.load(Relaxed)
    }
}

fn ask_to_end(session: &OpSession) {
    // In this order: once asked, it may have ended before the next line.
    session.set_status(OpStatus::Stopping);
    session.request_stop();
}

impl AgentCore {
    fn add_feed(&self, name: &str, kind: FeedKind, agg_params: Map<String, Value>) -> Result<(), FeedError> {
        let owner = FeedOwner { address: &self.address, class: &self.config.agent_class, session_id: &self.session_id };
        let feed = Feed::new(&owner, name, kind, agg_params)?;
        let mut feeds = lock(&self.feeds);
        if feeds.iter().any(|known| known.name == name) {
            return Err(FeedError::Twice(name.to_owned()));
        }
        feeds.push(feed);
        Ok(())
    }

    fn operation(&self, name: &str) -> Option<Arc<Operation>> {
        lock(&self.operations).get(name).cloned()
    }

    fn session(&self, name: &str) -> Option<OpSession> {
        lock(&self.sessions).last.get(name).cloned()
    }

    /// What is to be sent of it, and where.
    fn event(&self, name: &str, payload: Payload) -> Result<(String, Value), FeedError> {
        let (address, event) = {
            let mut feeds = lock(&self.feeds);
            let feed = feeds.iter_mut().find(|feed| feed.name == name);
            let feed = feed.ok_or_else(|| FeedError::Unknown(name.to_owned()))?;
            (feed.address.clone(), feed.event(payload)?)
        };
        let size = event.to_string().len() + address.len() + 64;
        if size > MAX_MESSAGE {
            return Err(FeedError::Size { feed: name.to_owned(), size });
        }
        Ok((address, event))
    }

    fn publish(&self, name: &str, payload: Payload) -> Result<bool, FeedError> {
        let event = self.event(name, payload)?;
        Ok(self.joined.load(Relaxed) && self.events.try_send(event).is_ok() || self.unreachable())
    }

    /// Tells once that nothing can be published; never true.
    fn unreachable(&self) -> bool {
        if !self.told_unreachable.swap(true, Relaxed) {
            tracing::warn!("Could not publish to Feed. crossbar server likely unreachable.");
        }
        false
    }

    /// What a heartbeat carries: the state of every operation.
    fn op_codes(&self) -> Value {
        let sessions = lock(&self.sessions);
        let code = |name: &String| sessions.last.get(name).map_or(super::session::OP_CODE_NONE, OpSession::op_code);
        let codes: Map<_, _> = lock(&self.operations).keys().map(|name| (name.clone(), code(name).into())).collect();
        codes.into()
    }

    fn start(&self, name: &str, params: &Value, caller: &Caller<'_>) -> StartReply {
        let Some(operation) = self.operation(name) else {
            return StartReply(-1, format!("No task or process called \"{name}\""), None);
        };
        // Held to the end, so that two starts cannot both find it idle.
        let mut sessions = lock(&self.sessions);
        if let Some(session) = sessions.last.get(name).filter(|session| session.status() != OpStatus::Done) {
            return StartReply::with(-1, format!("Operation \"{name}\" already in progress."), session.clone());
        }
        let level = {
            let access = lock(&self.access);
            match caller {
                Caller::Ourselves => Ok(access.own_level()),
                Caller::Client { password } => access.check_start(password, operation.min_privs),
            }
        };
        let level = match level {
            Ok(level) => level,
            Err(text) => return StartReply(-1, text, None),
        };
        let params = match operation.check(params) {
            Ok(params) => params,
            Err(text) => return StartReply(-1, text, None),
        };
        if self.shutdown.is_raised() {
            return StartReply(-1, format!("Operation \"{name}\" is not started because the agent is ending."), None);
        }
        let session = OpSession::new(sessions.next, name, level);
        sessions.next += 1;
        sessions.last.insert(name.to_owned(), session.clone());
        let text = format!("Started {} \"{name}\".", operation.op_type.name());
        // Made before the launch, so that it shows the run still starting.
        let reply = StartReply::with(0, text, session.clone());
        self.launch(operation, session, params);
        reply
    }

    fn launch(&self, operation: Arc<Operation>, session: OpSession, params: Params) {
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            session.set_status(OpStatus::Running);
            // On a task of its own, so that a panic of its code ends the run and nothing else.
            let own = session.clone();
            let run = runtime.spawn(async move { (operation.code)(own, params).await });
            session.finish(run.await.unwrap_or_else(|error| Err(format!("CRASH: {}", words_of(error)))));
        });
    }

    fn running(&self) -> Vec<OpSession> {
        lock(&self.sessions).last.values().filter(|session| session.status() != OpStatus::Done).cloned().collect()
    }

    /// Asks everything that runs to end; the moment until which to wait for it, the same however often it is asked.
    fn stop_all(&self) -> Instant {
        for session in self.running() {
            tracing::info!("Stopping session {}", session.op_name());
            ask_to_end(&session);
        }
        *self.stop_by.get_or_init(|| Instant::now() + router::STOP_LIMIT)
    }

    async fn all_done(&self) {
        for session in self.running() {
            session.done().await;
        }
    }
}

fn words_of(error: tokio::task::JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "cancelled".to_owned() };
    let payload: &(dyn Any + Send) = &*payload;
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[cfg(test)]
mod tests;
