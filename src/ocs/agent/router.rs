//! The agent's life on a router that comes and goes.

use super::calls::{CallAnswer, wait};
use super::{AgentCore, AgentEnd};
use crate::backoff::Backoff;
use crate::ocs::lock;
use crate::ocs::wamp::message::INVOCATION;
use crate::ocs::wamp::{MAX_MESSAGE, WampError, WampMessage, Wire};
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};

/// The first pause between tries to join; each further one is longer by half.
const FIRST_PAUSE: RangeInclusive<Duration> = Duration::from_millis(1500)..=Duration::from_millis(2500);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// What operations get to end in, once the agent is ending.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(3);
/// What the last answers get to be sent in.
const FAREWELL_LIMIT: Duration = Duration::from_millis(200);
/// How long a name that we asked for before may be refused to us: the router may not have noticed yet that we were lost.
const REFUSED_LIMIT: Duration = Duration::from_secs(120);
/// Calls of `wait` that may be pending at once.
const MAX_WAITS: usize = 256;
const TAKEN: &str = "wamp.error.procedure_already_exists";
const FORBIDDEN: &str = "wamp.error.not_authorized";
const FAILED: &str = "wamp.error.runtime_error";

type Events = Receiver<(String, Value)>;

/// The numbers of our two procedures in a session.
struct Registrations {
    operations: u64,
    management: u64,
}

/// Joins, serves and joins again until told to end.
pub(super) async fn run(shared: &Arc<AgentCore>, mut events: Events) -> AgentEnd {
    let mut backoff = Backoff::new(FIRST_PAUSE, 1.5);
    let mut lost_at = Instant::now();
    let mut refused_at: Option<Instant> = None;
    let mut asked = false;
    loop {
        let asked_before = asked;
        let attempt = tokio::select! {
            biased;
            () = shared.shutdown.raised() => return wind_down(shared, AgentEnd::Asked).await,
            () = give_up(shared, lost_at) => return no_router(shared).await,
            attempt = join(shared, &mut asked) => attempt,
        };
        match attempt {
            Ok((wire, registrations)) => {
                tracing::info!("Joined the router at {} as {}", shared.config.wamp_server, shared.address);
                refused_at = None;
                backoff.reset();
                match serve(shared, wire, &registrations, &mut events).await {
                    Ok(()) => return wind_down(shared, AgentEnd::Asked).await,
                    // It comes back by itself, or the next lines say that it does not.
                    Err(error) => tracing::info!("Lost the router: {error}; operations go on"),
                }
                lost_at = Instant::now();
            }
            Err(error) => {
                let url = &shared.config.wamp_server;
                match &error {
                    WampError::Socket(_)
                    | WampError::Silent { .. }
                    | WampError::Closed(_)
                    | WampError::Malformed(_) => {
                        tracing::warn!(
                            "{error} (at {url}); see that a router runs there, or correct wamp_server in the site file, or --site-hub; trying again"
                        );
                    }
                    _ => tracing::warn!("{error} (router at {url})"),
                }
                let end = match &error {
                    WampError::Refused { uri, .. } if uri == TAKEN => {
                        Some(AgentEnd::NameTaken { address: shared.address.clone() })
                    }
                    WampError::Refused { uri, .. } if uri == FORBIDDEN => {
                        Some(AgentEnd::NotAuthorized { address: shared.address.clone() })
                    }
                    _ => None,
                };
                if let Some(end) = end {
                    let since = *refused_at.get_or_insert_with(Instant::now);
                    if !asked_before || since.elapsed() > REFUSED_LIMIT {
                        return wind_down(shared, end).await;
                    }
                }
            }
        }
        let pause = backoff.pause();
        tracing::debug!("Next try in {:.1} s", pause.as_secs_f64());
        tokio::select! {
            () = shared.shutdown.raised() => {}
            () = give_up(shared, lost_at) => {}
            () = sleep(pause) => {}
        }
    }
}

/// Waits until there was no router for as long as allowed.
async fn give_up(shared: &AgentCore, lost_at: Instant) {
    match shared.config.crossbar_timeout.and_then(|limit| lost_at.checked_add(limit)) {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn no_router(shared: &AgentCore) -> AgentEnd {
    let seconds = shared.config.crossbar_timeout.unwrap_or_default().as_secs_f64();
    wind_down(shared, AgentEnd::NoRouter { seconds }).await
}

/// Ends whatever still runs.
async fn wind_down(shared: &AgentCore, end: AgentEnd) -> AgentEnd {
    shared.shutdown.raise();
    if timeout_at(shared.stop_all(), shared.all_done()).await.is_err() {
        for session in shared.running() {
            tracing::warn!("Operation {} did not end within {} s", session.op_name(), STOP_LIMIT.as_secs());
        }
    }
    end
}

/// `asked` becomes true once the router may have heard that we want our name, whether or not its answer comes.
async fn join(shared: &AgentCore, asked: &mut bool) -> Result<(Wire, Registrations), WampError> {
    let mut wire = Wire::join(&shared.config.wamp_server, &shared.config.realm).await?;
    *asked = true;
    let registered = async {
        let operations = wire.register(&format!("{}.ops", shared.address)).await?;
        let management = wire.register(&shared.address).await?;
        Ok(Registrations { operations, management })
    };
    match registered.await {
        Ok(registrations) => Ok((wire, registrations)),
        Err(error) => {
            wire.leave().await;
            Err(error)
        }
    }
}

/// Serves one session with the router until it is lost (an error) or left.
async fn serve(
    shared: &Arc<AgentCore>,
    mut wire: Wire,
    registrations: &Registrations,
    events: &mut Events,
) -> Result<(), WampError> {
    // What was meant for the session before is stale.
    while events.try_recv().is_ok() {}
    shared.told_unreachable.store(false, Relaxed);
    let _joined = Joined::new(shared);
    let mut waits = JoinSet::new();
    heartbeat(shared, &mut wire).await?;
    let mut director = Director::greet(shared, &mut wire).await?;
    let mut ticks = interval(HEARTBEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut leave_at: Option<Instant> = None;
    loop {
        tokio::select! {
            message = wire.next() => match message? {
                WampMessage::Invocation { request, registration, args, kwargs } => {
                    match invoke(shared, registrations, registration, &args, &kwargs) {
                        CallAnswer::Now(answer) => answer_call(&mut wire, request, answer).await?,
                        CallAnswer::Wait { .. } if waits.len() >= MAX_WAITS => {
                            let why = format!("{MAX_WAITS} calls of wait are pending already; ask for the status instead");
                            answer_call(&mut wire, request, Err(why)).await?;
                        }
                        CallAnswer::Wait { session, limit } => {
                            waits.spawn(async move { (request, wait(session, limit).await) });
                        }
                    }
                }
                WampMessage::Goodbye { reason } => {
                    wire.send(&WampMessage::Goodbye { reason: "wamp.close.goodbye_and_out".to_owned() }).await?;
                    return Err(WampError::Closed(reason));
                }
                WampMessage::Abort { reason, text } => return Err(WampError::Closed(format!("{reason} {text}"))),
                other => director.hear(shared, &other),
            },
            _ = ticks.tick() => heartbeat(shared, &mut wire).await?,
            Some((topic, event)) = events.recv() => publish(&mut wire, topic, event).await?,
            Some(answer) = waits.join_next(), if !waits.is_empty() => {
                if let Ok((request, value)) = answer {
                    answer_call(&mut wire, request, Ok(value)).await?;
                }
            }
            () = shared.shutdown.raised(), if leave_at.is_none() => {
                leave_at = Some(shared.stop_all());
            }
            () = shared.all_done(), if leave_at.is_some() => break,
            () = sleep_until(leave_at.unwrap_or_else(Instant::now)), if leave_at.is_some() => break,
        }
    }
    // Who waits for an operation hears of its end.
    let farewell = Instant::now() + FAREWELL_LIMIT;
    while let Ok(Some(Ok((request, value)))) = timeout_at(farewell, waits.join_next()).await {
        answer_call(&mut wire, request, Ok(value)).await?;
    }
    heartbeat(shared, &mut wire).await?;
    wire.leave().await;
    Ok(())
}

/// Says that we are on the router for as long as it lives.
struct Joined<'a>(&'a AgentCore);

impl<'a> Joined<'a> {
    fn new(shared: &'a AgentCore) -> Self {
        shared.joined.store(true, Relaxed);
        Self(shared)
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.0.joined.store(false, Relaxed);
    }
}

/// Has one of our two procedures answer a call.
fn invoke(
    shared: &AgentCore,
    registrations: &Registrations,
    registration: u64,
    args: &[Value],
    kwargs: &Map<String, Value>,
) -> CallAnswer {
    match registration {
        id if id == registrations.management => CallAnswer::Now(shared.manage(args, kwargs)),
        id if id == registrations.operations => shared.operate(args, kwargs),
        id => CallAnswer::Now(Err(format!("No procedure has the registration {id}"))),
    }
}

async fn answer_call(wire: &mut Wire, request: u64, answer: Result<Value, String>) -> Result<(), WampError> {
    let failure = |text: String| {
        let uri = FAILED.to_owned();
        WampMessage::Error { request_type: INVOCATION, request, uri, args: vec![text.into()] }.encode()
    };
    let mut text = match answer {
        Ok(value) => WampMessage::Yield { request, args: vec![value] }.encode(),
        Err(text) => failure(text),
    };
    if text.len() > MAX_MESSAGE {
        text = failure(format!("The answer has {} bytes, more than a message may hold", text.len()));
    }
    wire.send_encoded(text).await
}

async fn publish(wire: &mut Wire, topic: String, event: Value) -> Result<(), WampError> {
    let request = wire.next_request();
    wire.send(&WampMessage::Publish { request, topic, args: vec![event] }).await
}

async fn heartbeat(shared: &AgentCore, wire: &mut Wire) -> Result<(), WampError> {
    let event = {
        let codes = shared.op_codes();
        let feeds = lock(&shared.feeds);
        feeds
            .iter()
            .find(|feed| feed.name == "heartbeat")
            .map(|feed| (feed.address.clone(), json!([codes, feed.encoded()])))
    };
    match event {
        Some((topic, event)) => publish(wire, topic, event).await,
        None => Ok(()),
    }
}

/// What we want of the access director, if the policy names one.
#[derive(Default)]
struct Director {
    subscribe: Option<u64>,
    poll: Option<u64>,
    subscription: Option<u64>,
}

impl Director {
    async fn greet(shared: &AgentCore, wire: &mut Wire) -> Result<Self, WampError> {
        let Some(id) = lock(&shared.access).director().map(str::to_owned) else { return Ok(Self::default()) };
        let director = format!("{}.{id}", shared.config.address_root);
        let subscribe = wire.next_request();
        wire.send(&WampMessage::Subscribe { request: subscribe, topic: format!("{director}.feeds.controls") }).await?;
        let poll = wire.next_request();
        let mut kwargs = Map::new();
        kwargs.insert("instance_id".to_owned(), shared.config.instance_id.clone().into());
        kwargs.insert("agent_class".to_owned(), shared.config.agent_class.clone().into());
        let procedure = format!("{director}.agent_poll");
        wire.send(&WampMessage::Call { request: poll, procedure, args: Vec::new(), kwargs }).await?;
        Ok(Self { subscribe: Some(subscribe), poll: Some(poll), subscription: None })
    }

    /// Takes what concerns the director; anything else is nobody's business.
    fn hear(&mut self, shared: &AgentCore, message: &WampMessage) {
        match message {
            WampMessage::Subscribed { request, subscription } if Some(*request) == self.subscribe => {
                self.subscription = Some(*subscription);
            }
            WampMessage::Error { request, uri, .. } if Some(*request) == self.subscribe => {
                tracing::error!("The router refused the access director's controls: {uri}");
            }
            WampMessage::Error { request, uri, .. } if Some(*request) == self.poll => {
                tracing::warn!("Failed to request access rules from the access director: {uri}");
            }
            WampMessage::Event { subscription, args } if Some(*subscription) == self.subscription => {
                let rules = args.first().and_then(|pair| pair.get(0)).unwrap_or(&Value::Null);
                match lock(&shared.access).update(rules) {
                    Ok(true) => tracing::info!("Access rules updated"),
                    Ok(false) => {}
                    Err(error) => tracing::error!("{error}"),
                }
            }
            other => tracing::debug!(
                "Ignored a message of the router: {}",
                other.encode().chars().take(80).collect::<String>()
            ),
        }
    }
}
