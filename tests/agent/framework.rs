//! The OCS agent framework on a real crossbar router, against the genuine `ocs` of PyPI.

#[path = "framework/agent.rs"]
mod agent;
#[path = "framework/hostile.rs"]
mod hostile;

use crate::support::crossbar::{Crossbar, certificate};
use agent::{Running, config, until};
use pysmurf_archiver::ocs::agent::AgentEnd;
use pysmurf_archiver::ocs::session::OpStatus;
use pysmurf_archiver::ocs::wamp::{WampMessage, Wire};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs the genuine client through these steps; what it got.
fn client(router: &Crossbar, instance: &str, password: &str, steps: &Value) -> Value {
    parsed(router.snippet("client.py").args([instance, password, &steps.to_string()]))
}

fn parsed(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stdout)))
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn texts(session: &Value) -> Vec<&str> {
    session["messages"].as_array().unwrap().iter().map(|pair| pair[1].as_str().unwrap()).collect()
}

fn status(name: &str) -> String {
    format!("Status is now \"{name}\".")
}

/// A child that ends with its test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_genuine_client_finds_and_describes_the_agent() {
    let Some(router) = Crossbar::shared() else { return };
    let _agent = Running::join(config("described", &router.url()));
    let got = client(
        router,
        "described",
        "",
        &json!([
            ["call", "", ["get_api"], {}],
            ["call", "", ["get_tasks"], {"more": 1}],
            ["call", "", ["get_agent_class"], {}],
            ["call", "", ["nonesuch"], {}],
            ["call", "", [], {}],
            ["call", "", [], {"q": "get_feeds"}],
        ]),
    );
    let api = &got["results"][0];
    let parts = ["access_control", "agent_class", "feeds", "instance_hostname", "instance_pid", "processes", "tasks"];
    assert_eq!(keys(api), parts);
    assert_eq!(api["agent_class"], "TestAgent");
    assert_eq!(api["instance_pid"], std::process::id());
    assert!(!api["instance_hostname"].as_str().unwrap().is_empty());
    let feeds: Vec<_> = api["feeds"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect();
    assert_eq!(feeds, ["stats", "heartbeat"]);
    let session_id = api["feeds"][0][1]["session_id"].as_str().unwrap();
    assert!(session_id.contains('.') && session_id.parse::<f64>().is_ok());
    let feed = json!({"agent_address": "observatory.described", "agg_params": {}, "feed_name": "heartbeat",
        "address": "observatory.described.feeds.heartbeat", "record": false, "session_id": session_id,
        "agent_class": "TestAgent"});
    assert_eq!(api["feeds"][1][1], feed);
    let names: Vec<_> = api["tasks"].as_array().unwrap().iter().map(|task| task[0].as_str().unwrap()).collect();
    assert_eq!(names, ["crash", "delay", "guarded"]);
    let info = json!({"abortable": true, "blocking": true, "docstring": "delay(delay, mode='slow')\n\n**Task** - Sleeps.",
        "op_type": "task", "min_privs": 1});
    assert_eq!(api["tasks"][1], json!(["delay", {"op_name": "delay", "status": "no_history"}, info]));
    assert_eq!(api["processes"][0][1]["status"], "running");
    assert_eq!(keys(&api["processes"][0][2]), ["blocking", "docstring", "min_privs", "op_type"]);
    let access = &api["access_control"];
    assert_eq!(keys(access), ["policy", "step", "update_count", "update_timestamp", "version"]);
    assert_eq!((&access["policy"], &access["version"]), (&json!("none"), &json!(1)));
    assert_eq!(got["results"][1], api["tasks"]);
    assert_eq!(got["results"][2], "TestAgent");
    assert_eq!(got["results"][3], Value::Null);
    assert_eq!(got["results"][4]["error"], "wamp.error.runtime_error");
    assert_eq!(got["results"][5], api["feeds"]);
    assert!(got["doc"].as_str().unwrap().contains("**Task** - Sleeps."));
}

#[test]
fn operations_answer_as_those_of_python_agents() {
    let Some(router) = Crossbar::shared() else { return };
    let _agent = Running::join(config("steered", &router.url()));
    let ops = |args: Value, kwargs: Value| json!(["call", ".ops", args, kwargs]);
    // Each step with the answer's code and text; the answers to WAMP errors are looked at below.
    let table = [
        (json!(["run", "start", {}]), -1, r#"Operation "run" already in progress."#),
        (json!(["run", "wait", {"timeout": 0.2}]), 1, r#"Operation "run" still running; wait timed out."#),
        (json!(["run", "wait", {"timeout": -1}]), 1, r#"Operation "run" still running; wait timed out."#),
        (json!(["run", "status", {}]), 0, "Session active."),
        (json!(["run", "stop", {}]), 0, r#"Requested stop on process run"."#),
        (json!(["run", "wait", {}]), 0, r#"Operation "run" is currently not running (SUCCEEDED)."#),
        (json!(["run", "wait", {"timeout": -1}]), 0, r#"Operation "run" is currently not running (SUCCEEDED)."#),
        (json!(["run", "stop", {}]), -1, "The operation is already done"),
        (json!(["run", "status", {}]), 0, "Session active."),
        (json!(["run", "start", {}]), 0, r#"Started process "run"."#),
        (json!(["delay", "status", {}]), 0, "No session active."),
        (json!(["delay", "wait", {}]), 0, "Idle."),
        (json!(["delay", "abort", {}]), -1, "No session active."),
        (json!(["delay", "start", {"delay": "x"}]), -1, "Param 'delay'=x is not of required type (<class 'float'>)"),
        (json!(["delay", "start", {"delay": 1, "zzz": 2}]), -1, "params included unexpected values: ['zzz']"),
        (json!(["delay", "start", {}]), -1, "Param 'delay' is required and must not be None"),
        (json!(["delay", "start", {"delay": 30}]), 0, r#"Started task "delay"."#),
        (json!(["delay", "abort", {}]), 0, r#"Requested abort on task delay"."#),
        (json!(["delay", "wait", {}]), 0, r#"Operation "delay" is currently not running (FAILED)."#),
        (json!(["delay", "__call__", {"delay": 0}]), 0, r#"Operation "delay" is currently not running (SUCCEEDED)."#),
        (json!(["crash", "__call__", {}]), 0, r#"Operation "crash" is currently not running (FAILED)."#),
        (json!(["crash", "abort", {}]), -1, "The operation is already done"),
        (
            json!(["guarded", "start", {}]),
            -1,
            "The action requires credential level 2-ADVANCED but the client has only level 1-BASIC",
        ),
        (ops(json!(["start", "X"]), json!({})), -1, r#"No task or process called "X""#),
        (ops(json!(["stop", "X"]), json!({})), -1, r#"No operation called "X"."#),
        (ops(json!(["wait", "X", {}]), json!({"timeout": null})), -1, r#"Unknown operation "X"."#),
        (ops(json!(["status"]), json!({"op_name": "X", "params": null})), -1, r#"No task or process called "X""#),
        (ops(json!(["dance", "run"]), json!({})), -1, r#"No implementation for "run""#),
        (ops(json!(["abort", "run"]), json!({})), -1, r#"Cannot "abort" "run" because it is a "{op_type}"."#),
        (ops(json!(["stop", "delay"]), json!({})), -1, r#"Cannot "stop" "delay" because it is a "{op_type}"."#),
        (ops(json!([]), json!({"action": "status", "op_name": "run"})), 0, "Session active."),
    ];
    let mut steps: Vec<_> = table.iter().map(|(step, _, _)| step.clone()).collect();
    steps.push(ops(json!(["start", "run"]), json!({"foo": 1})));
    steps.push(ops(json!(["start"]), json!({})));
    let got = client(router, "steered", "", &steps.into());
    let got = got["results"].as_array().unwrap();
    for ((step, code, text), reply) in table.iter().zip(got) {
        assert_eq!((&reply[0], &reply[1]), (&json!(code), &json!(text)), "{step}");
        if *code == 0 && reply[1] != "Idle." && reply[1] != "No session active." {
            assert_eq!(keys(&reply[2]).len(), 11, "{step}");
        }
    }
    let unexpected = "OCSAgent._ops_handler() got an unexpected keyword argument 'foo'";
    assert_eq!(got[table.len()], json!({"error": "wamp.error.runtime_error", "args": [unexpected]}));
    assert_eq!(got[table.len() + 1]["error"], "wamp.error.runtime_error");

    let ended = &got[5][2];
    assert_eq!(ended["session_id"], 0);
    assert_eq!((&ended["op_code"], &ended["status"], &ended["success"]), (&json!(5), &json!("done"), &json!(true)));
    assert!(ended["start_time"].is_f64() && ended["end_time"].is_f64());
    assert_eq!(keys(&ended["data"]), ["fields", "timestamp"]);
    assert!(ended["data"]["fields"]["rate"].is_f64() && ended["data"]["fields"]["rounds"].is_i64());
    let expected =
        [status("starting"), status("running"), status("stopping"), "Exited cleanly.".to_owned(), status("done")];
    assert_eq!(texts(ended), expected);
    let started = &got[9][2];
    assert_eq!(
        (&started["status"], &started["op_code"], &started["session_id"]),
        (&json!("starting"), &json!(2), &json!(1))
    );
    assert_eq!((&started["success"], &started["end_time"]), (&Value::Null, &Value::Null));
    assert_eq!(texts(&got[18][2])[4], "Aborted.");
    assert_eq!(texts(&got[20][2])[2], "CRASH: on purpose");
    assert_eq!((&got[20][2]["op_code"], &got[20][2]["success"]), (&json!(6), &json!(false)));
}

#[test]
fn others_are_served_while_a_wait_is_pending() {
    let Some(router) = Crossbar::shared() else { return };
    let agent = Running::join(config("waited-for", &router.url()));
    let waiting = router
        .snippet("client.py")
        .args(["waited-for", "", &json!([["run", "wait", {}]]).to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let got = client(
        router,
        "waited-for",
        "",
        &json!([["run", "wait", {"timeout": 1}], ["delay", "__call__", {"delay": 0.1}], ["run", "stop", {}]]),
    );
    let codes: Vec<_> = got["results"].as_array().unwrap().iter().map(|reply| reply[0].as_i64().unwrap()).collect();
    assert_eq!(codes, [1, 0, 0]);
    let got: Value = serde_json::from_slice(&waiting.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(got["results"][0][2]["op_code"], 5);
    assert!(agent.lives());
}

#[test]
fn heartbeats_and_blocks_reach_python_and_the_registry() {
    let Some(router) = Crossbar::shared() else { return };
    let mut registry = router.python();
    registry.args(["-m", "ocs.agents.registry.agent", "--instance-id", "registry"]);
    let _registry = Background(registry.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let mut subscriber = router.snippet("subscriber.py");
    subscriber.args([&router.url(), "observatory..feeds."]);
    let mut subscriber = Background(subscriber.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(subscriber.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "[\"subscribed\"]");
    let mut agent = Running::join(config("heard", &router.url()));
    let mut beats = Vec::new();
    let mut blocks = Vec::new();
    while beats.len() < 3 || blocks.len() < 5 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        match event[0].as_str().unwrap() {
            "observatory.heard.feeds.heartbeat" => beats.push(event),
            "observatory.heard.feeds.stats" => blocks.push(event),
            _ => {}
        }
    }
    for event in beats.iter().chain(&blocks) {
        assert_eq!(event[1].as_array().unwrap().len(), 1, "one positional argument");
        assert_eq!(event[1][0].as_array().unwrap().len(), 2, "payload and feed");
        assert_eq!(event[2], json!({}));
        let feed = &event[1][0][1];
        let parts = ["address", "agent_address", "agent_class", "agg_params", "feed_name", "record", "session_id"];
        assert_eq!(keys(feed), parts);
        assert_eq!(feed["address"], event[0]);
        assert_eq!(feed["session_id"], beats[0][1][0][1]["session_id"]);
    }
    let codes = &beats[2][1][0][0];
    assert_eq!(keys(codes), ["crash", "delay", "guarded", "run"]);
    assert!(codes["run"] == 3 || codes["run"] == 8);
    assert_eq!(codes["delay"], 1);
    let pair = &blocks[0][1][0];
    assert_eq!((&pair[1]["record"], &pair[1]["agg_params"]), (&json!(true), &json!({"frame_length": 60})));
    let block = &pair[0]["stats"];
    assert_eq!(keys(block), ["block_name", "data", "influxdb_tags", "timestamps"]);
    assert_eq!((&block["block_name"], &block["influxdb_tags"]), (&json!("stats"), &Value::Null));
    assert!(block["timestamps"][0].is_f64());
    assert!(block["data"]["rate"][0].is_f64() && block["data"]["rounds"][0].is_i64(), "types are kept");
    assert_eq!(block["data"]["last"], json!(["/a b"]));

    let seen = |how| parsed(router.snippet("registry.py").args(["observatory.heard", how]));
    let alive = seen("alive");
    assert_eq!((&alive["agent_class"], &alive["op_codes"]["delay"]), (&json!("TestAgent"), &json!(1)));
    agent.handle.shutdown();
    assert_eq!(agent.end(), AgentEnd::Asked);
    assert_eq!(seen("expired")["op_codes"]["run"], 7);
}

#[test]
fn a_router_that_dies_three_times_stops_nothing() {
    let Some(router) = Crossbar::start() else { return };
    let agent = Running::join(config("steady", &router.url()));
    let mut impatient = config("impatient", &router.url());
    impatient.crossbar_timeout = Some(Duration::from_secs(2));
    let mut impatient = Running::join(impatient);
    let before = client(&router, "steady", "", &json!([["call", "", ["get_feeds"], {}], ["run", "status", {}]]));
    for _ in 0..3 {
        router.kill();
        agent.joined(false);
        let run = agent.handle.session("run").unwrap();
        assert!(run.status() == OpStatus::Running && agent.lives());
        router.restart();
        agent.joined(true);
    }
    assert_eq!(impatient.end(), AgentEnd::NoRouter { seconds: 2.0 });
    let after = client(&router, "steady", "", &json!([["call", "", ["get_feeds"], {}], ["run", "status", {}]]));
    assert_eq!(before["results"][0], after["results"][0], "feeds and their session id");
    let (before, after) = (&before["results"][1][2], &after["results"][1][2]);
    for same in ["session_id", "start_time", "status", "messages"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    let rounds = |session: &Value| session["data"]["fields"]["rounds"].as_i64().unwrap();
    assert!(rounds(after) > rounds(before));
}

#[test]
fn a_second_agent_of_the_name_ends_and_the_first_stays() {
    let Some(router) = Crossbar::shared() else { return };
    let first = Running::join(config("only-one", &router.url()));
    let mut second = Running::start(config("only-one", &router.url()));
    let end = second.end();
    assert_eq!(end, AgentEnd::NameTaken { address: "observatory.only-one".to_owned() });
    assert!(end.is_error() && end.to_string().contains("this agent runs already"));
    assert!(second.handle.session("run").unwrap().success().is_some(), "its operations have ended");
    assert!(first.handle.is_joined());
    let got = client(router, "only-one", "", &json!([["run", "status", {}]]));
    assert_eq!(got["results"][0][2]["status"], "running");
}

#[test]
fn an_address_outside_the_site_is_refused() {
    let Some(router) = Crossbar::shared() else { return };
    let mut foreign = config("foreign", &router.url());
    foreign.address_root = "elsewhere".to_owned();
    let end = Running::start(foreign).end();
    assert_eq!(end, AgentEnd::NotAuthorized { address: "elsewhere.foreign".to_owned() });
}

#[test]
fn passwords_of_an_override_give_levels() {
    let Some(router) = Crossbar::shared() else { return };
    let mut guarded = config("guarded", &router.url());
    guarded.access_policy = Some("override:two,three".to_owned());
    let _agent = Running::join(guarded);
    let steps = json!([["guarded", "__call__", {}], ["run", "status", {}]]);
    let got = client(router, "guarded", "wrong", &steps);
    let words = "The action requires credential level 2-ADVANCED but the client has only level 1-BASIC";
    assert_eq!((&got["results"][0][0], &got["results"][0][1]), (&json!(-1), &json!(words)));
    assert_eq!(got["results"][1][2]["cred_level"], 4, "what the agent starts itself");
    for (password, level) in [("two", 2), ("three", 3)] {
        let got = client(router, "guarded", password, &steps);
        assert_eq!((&got["results"][0][0], &got["results"][0][2]["cred_level"]), (&json!(0), &json!(level)));
    }
}

#[test]
fn shutdown_leaves_the_router_and_frees_the_name() {
    let Some(router) = Crossbar::shared() else { return };
    let mut agent = Running::join(config("leaving", &router.url()));
    agent.handle.shutdown();
    assert_eq!(agent.end(), AgentEnd::Asked);
    assert_eq!(agent.handle.session("run").unwrap().success(), Some(true));
    assert!(agent.handle.start_op("run", serde_json::Map::new()).is_err());
    let _again = Running::join(config("leaving", &router.url()));
}

#[test]
fn without_a_router_operations_run_all_the_same() {
    let mut agent = Running::start(config("alone", "ws://127.0.0.1:9/ws"));
    until("run", || agent.handle.session("run").is_some_and(|run| run.status() == OpStatus::Running));
    assert!(!agent.handle.is_joined());
    agent.handle.shutdown();
    assert_eq!(agent.end(), AgentEnd::Asked);
    assert_eq!(agent.handle.session("run").unwrap().success(), Some(true));
}

#[test]
fn only_an_explicit_timeout_ends_an_agent_without_a_router() {
    let mut impatient = config("impatient", "ws://127.0.0.1:9/ws");
    impatient.crossbar_timeout = Some(Duration::from_secs(2));
    let mut agent = Running::start(impatient);
    let begun = Instant::now();
    let end = agent.end();
    assert_eq!(end, AgentEnd::NoRouter { seconds: 2.0 });
    assert!(!end.is_error() && begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(agent.handle.session("run").unwrap().success(), Some(true));
}

#[test]
fn a_frozen_router_is_noticed() {
    let Some(router) = Crossbar::start() else { return };
    let agent = Running::join(config("noticing", &router.url()));
    router.freeze();
    // Ten seconds to the next ping at most, and five for its answer; the connection itself stays.
    agent.joined(false);
    assert_eq!(agent.handle.session("run").unwrap().status(), OpStatus::Running);
}

#[test]
fn the_genuine_access_director_rules() {
    let Some(router) = Crossbar::start() else { return };
    let rules = json!({
        "passwords": [
            {"default": true, "password_1": "", "password_2": {"hash": "none", "value": "two"}},
            {"agent_class": "Other*", "password_3": {"hash": "none", "value": "other"}},
            {"instance_id": "direc*,!directo", "password_3": {"hash": "none", "value": "three"}},
        ],
        "exclusive_access_blocks": [{"name": "test-grant", "password": "please",
            "grants": [{"instance_id": "directed", "cred_level": 3, "lockout_levels": [1, 2, 3]}]}],
    });
    std::fs::write(router.path("access.yaml"), rules.to_string()).unwrap();
    let mut directed = config("directed", &router.url());
    directed.access_policy = Some("director:access-dir".to_owned());
    let _agent = Running::join(directed);
    let start = json!([["guarded", "__call__", {}]]);
    let run = |password: &str| client(&router, "directed", password, &start)["results"][0].clone();
    let words = "The action requires credential level 2-ADVANCED but the client has only level ";
    assert_eq!(run("two")[1], format!("{words}0-BLOCKED"), "before the director has spoken");

    let mut director = router.python();
    director.args(["-m", "ocs.agents.access_director.agent", "--instance-id", "access-dir"]);
    let _director = Background(director.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let updated = |times: u64| {
        until("rules", || {
            let api = client(&router, "directed", "", &json!([["call", "", ["get_api"], {}]]));
            api["results"][0]["access_control"]["update_count"].as_u64().unwrap() >= times
        });
    };
    updated(1);
    assert_eq!(run("")[1], format!("{words}1-BASIC"));
    assert_eq!(run("other")[1], format!("{words}1-BASIC"), "a rule for others");
    for (password, level) in [("two", 2), ("three", 3)] {
        let reply = run(password);
        assert_eq!((&reply[0], &reply[2]["cred_level"]), (&json!(0), &json!(level)), "{reply}");
    }
    let expire_at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64() + 600.0;
    let ask = json!({"grant_name": "test-grant", "password": "please", "action": "acquire", "grantee": "me",
        "expire_at": expire_at});
    let got = client(&router, "directed", "", &json!([["raw", "observatory.access-dir.request_exclusive", [], ask]]));
    let granted = got["results"][0]["password"].as_str().unwrap_or_else(|| panic!("{got}"));
    updated(2);
    let locked = format!("{words}0-BLOCKED Privileges diminished; lockouts active: ['test-grant[me]']");
    assert_eq!(run("two")[1], locked);
    assert_eq!(run(granted)[2]["cred_level"], 3);
}

/// Where the child of the next test finds its router, and for how many seconds it tries to join.
const TLS_URL: &str = "OCS_TEST_TLS_URL";
const TLS_SECONDS: &str = "OCS_TEST_TLS_SECONDS";

#[test]
fn an_agent_joins_over_tls() {
    let Some(router) = Crossbar::start_tls() else { return };
    let url = router.url().replace("ws:", "wss:");
    // A process of its own, because trust comes from the environment.
    let child = |trusted: &str, seconds: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "framework::tls_child", "--nocapture"]).env(TLS_URL, &url).env(TLS_SECONDS, seconds);
        child.env("SSL_CERT_FILE", trusted);
        child.env_remove("SSL_CERT_DIR").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(child(router.path("cert.pem").to_str().unwrap(), "120"));
    let stranger = tempfile::tempdir().unwrap();
    certificate(stranger.path());
    assert!(!child(stranger.path().join("cert.pem").to_str().unwrap(), "3"), "a certificate nobody vouches for");
}

#[test]
fn tls_child() {
    // Does nothing but for its parent.
    let Ok(url) = std::env::var(TLS_URL) else { return };
    let agent = Running::start(config("secure", &url));
    let seconds = std::env::var(TLS_SECONDS).unwrap().parse().unwrap();
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !agent.handle.is_joined() {
        assert!(Instant::now() < deadline, "not joined");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn pending_waits_are_bounded_and_hinder_nobody() {
    let Some(router) = Crossbar::shared() else { return };
    let mut agent = Running::join(config("crowded", &router.url()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let call = |request: u64, action: &str| WampMessage::Call {
        request,
        procedure: "observatory.crowded.ops".to_owned(),
        args: vec![action.into(), "run".into()],
        kwargs: serde_json::Map::new(),
    };
    runtime.block_on(async {
        let mut wire = Wire::join(&router.url(), "test_realm").await.unwrap();
        for _ in 0..300 {
            let request = wire.next_request();
            wire.send(&call(request, "wait")).await.unwrap();
        }
        let request = wire.next_request();
        wire.send(&call(request, "status")).await.unwrap();
        let mut refused = 0;
        loop {
            match wire.next().await.unwrap() {
                WampMessage::Error { .. } => refused += 1,
                WampMessage::Result { request: of, .. } if of == request => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(refused, 300 - 256);
        // Those that wait hear of the end before the agent leaves.
        agent.handle.shutdown();
        for _ in 0..256 {
            assert!(matches!(wire.next().await.unwrap(), WampMessage::Result { .. }));
        }
        wire.leave().await;
    });
    assert_eq!(agent.end(), AgentEnd::Asked);
}
