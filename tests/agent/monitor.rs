//! The monitor as an agent: beside the genuine one of socs on one router, and steered by the genuine client.

use crate::archiver::{Agent, PATIENCE, steer, until};
use crate::support::crossbar::Crossbar;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A site with a monitor of ours and a genuine one, each with a port and a database.
struct Site {
    folder: TempDir,
    /// Of ours, and of the genuine one.
    ports: [u16; 2],
    publisher: UdpSocket,
}

const OURS: &str = "pysmurf-monitor";
const THEIRS: &str = "genuine";

impl Site {
    fn new(router: &Crossbar, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports =
            [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap()).map(|free| free.local_addr().unwrap().port());
        let at = |name: &str| folder.path().join(name).display().to_string();
        let instance = |id: &str, port: u16, more: &str| {
            format!(
                "    - agent-class: PysmurfMonitor\n      instance-id: {id}\n      \
                 arguments: [[--udp-port, {port}], [--create-table, True], --db-path, {db}{more}]\n",
                db = at(&format!("{id}.db")),
            )
        };
        let yaml = format!(
            "hub:\n  wamp_server: {url}\n  wamp_http: {http}\n  wamp_realm: test_realm\n  address_root: observatory\n\
             hosts:\n  localhost:\n    agent-instances:\n{}{}",
            instance(OURS, ports[0], more),
            instance(THEIRS, ports[1], ""),
            url = router.url(),
            http = router.url().replace("ws://", "http://").replace("/ws", "/call"),
        );
        fs::write(folder.path().join("default.yaml"), yaml).unwrap();
        Self { folder, ports, publisher: UdpSocket::bind("127.0.0.1:0").unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ours as a container starts it: by variables alone.
    fn ours(&self) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pysmurf-archiver"));
        command.env("INSTANCE_ID", OURS).env_remove("RUST_LOG");
        self.start(command, "log")
    }

    fn theirs(&self, router: &Crossbar) -> Agent {
        let mut command = router.python();
        command.args(["-m", "socs.agents.pysmurf_monitor.agent", "--instance-id", THEIRS]);
        self.start(command, "their-log")
    }

    fn start(&self, mut command: Command, log: &str) -> Agent {
        command.env("OCS_CONFIG_DIR", self.folder.path()).env_remove("LOGLEVEL").stdin(Stdio::null());
        let log = File::create(self.at(log)).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Agent(command.spawn().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap()
    }

    /// To both.
    fn send(&self, message: &str) {
        for port in self.ports {
            self.publisher.send_to(message.as_bytes(), ("127.0.0.1", port)).unwrap();
        }
    }

    /// Writes a file and announces it.
    fn announce(&self, name: &str) {
        let path = self.at(name);
        fs::write(&path, "abc\n").unwrap();
        self.send(&format!(
            "{{\"id\":\"crate1slot2\",\"type\":\"data_file\",\"payload\":{{\"path\":{path:?},\"format\":\"txt\",\"timestamp\":1589517264.5,\"action\":\"a\",\"action_ts\":1589517264,\"plot\":false}}}}"
        ));
    }

    /// Names of the files that ours has registered.
    fn registered(&self) -> Vec<String> {
        let Ok(table) = Connection::open(self.at(&format!("{OURS}.db"))) else { return Vec::new() };
        table.busy_timeout(PATIENCE).unwrap();
        let Ok(mut rows) = table.prepare("SELECT local_path FROM supersync_v0 ORDER BY id") else { return Vec::new() };
        let names = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
        names.map(|path| path.unwrap().rsplit('/').next().unwrap().to_owned()).collect()
    }
}

/// Hears every feed of the observatory.
struct Subscriber {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Subscriber {
    fn new(router: &Crossbar) -> Self {
        let mut command = router.snippet("subscriber.py");
        let mut child = command.args([&router.url(), "observatory..feeds."]).stdout(Stdio::piped()).spawn().unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let (lines, heard) = (BufReader::new(child.stdout.take().unwrap()).lines(), events.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let subscriber = Self { child, events };
        until("it subscribes", || !subscriber.events.lock().unwrap().is_empty());
        subscriber
    }

    /// What an agent has published to its feeds but the heartbeat: each event of session data, and of recorded feeds all
    /// samples of each field, in however many events they came. With the feeds themselves, but for what is their agent's.
    fn published(&self, agent: &str) -> BTreeMap<String, (Vec<Value>, Value)> {
        let mut published: BTreeMap<String, (Vec<Value>, Value)> = BTreeMap::new();
        for event in self.events.lock().unwrap().iter() {
            let feed = &event[1][0][1];
            if feed["agent_address"] != format!("observatory.{agent}") || feed["feed_name"] == "heartbeat" {
                continue;
            }
            let payload = &event[1][0][0];
            let name = feed["feed_name"].as_str().unwrap();
            let mut description = feed.clone();
            for own in ["agent_address", "address", "session_id"] {
                description.as_object_mut().unwrap().remove(own);
            }
            if feed["record"] != true {
                published.entry(name.to_owned()).or_default().0.push(payload.clone());
                published.get_mut(name).unwrap().1 = description;
                continue;
            }
            for (block, samples) in payload.as_object().unwrap() {
                assert_eq!((&samples["block_name"], &samples["influxdb_tags"]), (&json!(block), &Value::Null));
                let fields = samples["data"].as_object().unwrap();
                assert_eq!(fields.keys().collect::<Vec<_>>(), [block]);
                let (times, values) = (&samples["timestamps"], fields[block].as_array().unwrap());
                let (known, feed) = published.entry(format!("{name} {block}")).or_default();
                known.extend(times.as_array().unwrap().iter().zip(values).map(|(time, value)| json!([time, value])));
                *feed = description.clone();
            }
        }
        published
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn register(id: &str, time: &str, path: &str, value: &str) -> String {
    format!(
        "{{\"host\":\"h\",\"id\":{id:?},\"script\":\"s\",\"time\":{time},\"seq_no\":0,\"type\":\"metadata\",\"payload\":{{\"path\":{path:?},\"value\":{value},\"type\":\"t\"}}}}"
    )
}

fn session(kind: &str, payload: &str) -> String {
    format!(
        "{{\"host\":\"h\",\"id\":\"crate1slot2\",\"script\":\"s\",\"time\":1589517264.75,\"seq_no\":1,\"type\":{kind:?},\"payload\":{payload}}}"
    )
}

/// The test's own mark, which has the genuine monitor publish what it has kept back until the next message came.
const MARK: &str = "Mark";

#[test]
fn the_feeds_are_those_of_the_genuine_monitor() {
    let Some(router) = Crossbar::shared() else { return };
    let site = Site::new(router, "");
    let (ours, theirs) = (site.ours(), site.theirs(router));
    let subscriber = Subscriber::new(router);
    let stream = "STREAMER:crate1slot2";
    let mut first = 0;
    until("both publish", || {
        first += 1;
        site.send(&session("session_log", &format!("\"{first}\"")));
        [OURS, THEIRS].iter().all(|agent| subscriber.published(agent).contains_key("pysmurf_session_data"))
    });
    for message in [
        session(
            "session_data",
            "{\"bands\": [0, 1.0, 2.5], \"name\": \"\u{e9}\", \"no\": null, \"deep\": {\"a\": [{}]}}",
        ),
        session("session_log", "\"a line\""),
        session("log", "{\"message\": \"for nobody\"}"),
        register(stream, "1589517264.5", "AMCc.FpgaTop[0].Foo:Bar", "3"),
        register(stream, "1589517265.25", "AMCc.FpgaTop[0].Foo:Bar", "4"),
        register(stream, "1589517265.5", "AMCc.Gain", "1.0"),
        register(stream, "1589517266.5", "AMCc.Name", "\"up\""),
        register(stream, "1589517266.5", "AMCc.On", "true"),
        register(stream, "1589517266.5", "__1 a list", "[1, 2]"),
        register(stream, "1589517266.5", "", "7"),
        register(stream, "1589517266.5", "12", "1"),
        register(stream, "1589517266.5", "none", "null"),
        register(stream, "1589517266.5", "object", "{}"),
        register("unidentified", "1589517266.5", "a", "1"),
        register("STREAMER:B-2:c", "1589517266.5", "a", "1"),
    ] {
        site.send(&message);
    }
    let wanted = ["AMCcFpgaTop0FooBar", "AMCcGain", "AMCcName", "AMCcOn", "__a_list", "invalid_field"];
    let mut wanted: Vec<_> = wanted.iter().map(|field| format!("crate1slot2_meta {field}")).collect();
    wanted.extend(["B-2_meta a", "pysmurf_session_data", "unidentified_meta a"].map(str::to_owned));
    wanted.sort();
    let published = |agent: &str| {
        let mut published = subscriber.published(agent);
        published.retain(|name, _| !name.ends_with(MARK));
        // Those before both had joined.
        let data = &mut published.entry("pysmurf_session_data".to_owned()).or_default().0;
        data.retain(|event| event["payload"].as_str().is_none_or(|text| text.parse::<u32>().is_err()));
        published
    };
    let mut samples = 0;
    until("both have published all", || {
        samples += 1;
        for id in [stream, "unidentified", "STREAMER:B-2:c"] {
            site.send(&register(id, &format!("{samples}"), MARK, "0"));
        }
        let is_whole = |agent: &str| {
            let published = published(agent);
            published.keys().eq(&wanted) && published["pysmurf_session_data"].0.len() >= 2
        };
        [OURS, THEIRS].iter().all(|agent| is_whole(agent))
    });
    assert_eq!(published(OURS), published(THEIRS));
    drop(theirs);
    assert!(ours.terminate().success(), "{}", site.log());
}

#[test]
fn the_monitor_is_steered_as_an_agent_and_needs_no_router_to_register() {
    let Some(router) = Crossbar::start() else { return };
    let site = Site::new(&router, ", --test-mode");
    let agent = site.ours();
    until("it listens", || site.log().contains("Listening at UDP"));
    until("it has joined", || steer(&router, OURS, &json!([["run", "status", {}]])).is_some());
    // With --test-mode nothing is registered by itself, and a run in test mode ends.
    site.announce("one");
    let steps = json!([["run", "status", {}], ["run", "start", {"test_mode": true}], ["run", "wait", {"timeout": 60}]]);
    let answers = steer(&router, OURS, &steps).unwrap();
    assert_eq!(answers[0][1], "No session active.", "{answers:?}");
    assert_eq!((&answers[2][0], &answers[2][2]["success"]), (&json!(0), &json!(true)), "{answers:?}");
    assert!(answers[2][2]["messages"].to_string().contains("Monitor exited cleanly."), "{answers:?}");
    assert_eq!(answers[2][2]["data"]["monitor"]["registered"], 1, "{answers:?}");
    assert_eq!(site.registered(), ["one"]);
    // What is announced while it does not run is registered once it does.
    site.announce("two");
    let wrong = json!([["run", "start", {"test_mode": 1}], ["run", "start", {}]]);
    let answers = steer(&router, OURS, &wrong).unwrap();
    assert_eq!(answers[0][0], -1, "{answers:?}");
    assert_eq!(answers[1][0], 0, "{answers:?}");
    until("it is registered", || site.registered() == ["one", "two"]);
    let status =
        || steer(&router, OURS, &json!([["run", "status", {}]])).map_or(Value::Null, |answers| answers[0][2].clone());
    until("the session tells", || status()["data"]["monitor"]["registered"] == 2);
    assert_eq!((&status()["op_code"], &status()["data"]["monitor"]["database"]), (&json!(3), &Value::Null));

    // A database in trouble degrades it.
    let lock = Connection::open(site.at(&format!("{OURS}.db"))).unwrap();
    lock.busy_timeout(PATIENCE).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    site.announce("three");
    until("it is degraded", || status()["degraded"] == true);
    assert!(status()["messages"].to_string().contains("locked"), "{}", status());
    lock.execute_batch("ROLLBACK").unwrap();
    until("it is degraded no more", || status()["degraded"] == false);
    until("it is registered", || site.registered().len() == 3);
    assert!(!site.log().contains("WARN"), "{}", site.log());

    // The router goes, and comes back.
    router.kill();
    site.announce("four");
    until("it is registered without a router", || site.registered().len() == 4);
    router.restart();
    until("the agent is back", || status()["status"] == "running");
    let answers = steer(&router, OURS, &json!([["run", "stop", {}], ["run", "wait", {"timeout": 60}]])).unwrap();
    assert_eq!((&answers[1][0], &answers[1][2]["success"]), (&json!(0), &json!(true)), "{answers:?}");
    assert!(agent.terminate().success());
    assert!(site.log().contains("4 registered"), "{}", site.log());
}
