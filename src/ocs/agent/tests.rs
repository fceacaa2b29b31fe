use super::*;
use std::time::Instant as Clock;

fn config() -> AgentConfig {
    AgentConfig {
        address_root: "observatory".to_owned(),
        instance_id: "a".to_owned(),
        agent_class: "A".to_owned(),
        realm: "test_realm".to_owned(),
        wamp_server: "ws://127.0.0.1:9/ws".to_owned(),
        crossbar_timeout: None,
        access_policy: None,
    }
}

fn refusal(change: impl FnOnce(&mut AgentConfig)) -> String {
    let mut config = config();
    change(&mut config);
    Agent::new(config).err().map(|error| error.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn what_cannot_be_is_refused_at_once() {
    for bad in ["", "a.b", "a b", "a#"] {
        assert!(refusal(|config| config.instance_id = bad.to_owned()).starts_with("Instance id "), "{bad}");
    }
    for bad in ["", "a..b", ".a", "a b"] {
        assert!(refusal(|config| config.address_root = bad.to_owned()).starts_with("Address root "), "{bad}");
    }
    assert!(refusal(|config| config.wamp_server = "http://x/ws".to_owned()).starts_with("Router address http://x/ws "));
    assert!(refusal(|config| config.access_policy = Some("override:a".to_owned())).starts_with("Access policy "));
    let mut agent = Agent::new(config()).unwrap();
    let idle = || Operation::task("idle", |_, _| async { Ok(String::new()) });
    agent.register(idle()).unwrap();
    assert!(matches!(agent.register(idle()), Err(AgentError::Twice(_))));
    agent.register_feed("f", FeedKind::Recorded, Map::new()).unwrap();
    assert!(agent.register_feed("f", FeedKind::Recorded, Map::new()).is_err());
}

#[test]
fn an_agent_needs_a_runtime() {
    assert!(matches!(Agent::new(config()), Err(AgentError::NoRuntime)));
}

#[tokio::test]
async fn an_operation_that_does_not_end_does_not_hold_the_agent() {
    let mut agent = Agent::new(config()).unwrap();
    agent.register(Operation::process("stubborn", |_, _| std::future::pending())).unwrap();
    let (handle, begun) = (agent.handle(), Clock::now());
    handle.start_op("stubborn", Params::new()).unwrap();
    handle.shutdown();
    assert_eq!(agent.run().await, AgentEnd::Asked);
    let taken = begun.elapsed();
    // It would go on for ever.
    assert!(taken >= router::STOP_LIMIT, "{taken:?}");
}

#[tokio::test]
async fn without_a_router_events_are_dropped_and_bad_ones_refused() {
    let mut agent = Agent::new(config()).unwrap();
    agent.register_feed("free", FeedKind::Free, Map::new()).unwrap();
    let handle = agent.handle();
    assert!(!handle.publish("free", Value::from(1)).unwrap());
    assert!(matches!(handle.publish("other", Value::from(1)), Err(FeedError::Unknown(_))));
    let large = Value::from("x".repeat(MAX_MESSAGE));
    assert!(matches!(handle.publish("free", large), Err(FeedError::Size { .. })));
}
