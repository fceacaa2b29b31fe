//! The archiver as an agent: the real binary on a real crossbar router, steered by the genuine `ocs` client of PyPI.

use crate::support::crossbar::Crossbar;
use crate::support::processes::signal;
use protocol::checksum::{Checksum, FileHasher};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A SupRsync site of one agent that copies on this machine.
pub(crate) struct Site {
    folder: TempDir,
}

impl Site {
    fn new(router: &Crossbar, instance: &str) -> Self {
        Self::with(router, instance, "")
    }

    /// With more arguments of the agent, as YAML that begins with a comma.
    fn with(router: &Crossbar, instance: &str, more: &str) -> Self {
        Self::at_router(&router.url(), instance, more)
    }

    /// As [`Site::with`], the router being there.
    pub(crate) fn at_router(url: &str, instance: &str, more: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(site.at("source")).unwrap();
        fs::create_dir(site.at("archive")).unwrap();
        let at = |name: &str| site.at(name).display().to_string();
        let yaml = format!(
            "hub:\n  wamp_server: {url}\n  wamp_http: {http}\n  wamp_realm: test_realm\n  address_root: observatory\n\
             hosts:\n  localhost:\n    log-dir: {log}\n    agent-instances:\n    - agent-class: SupRsync\n      \
             instance-id: {instance}\n      arguments: [--archive-name, smurf, [--remote-basedir, {base}], --db-path, {db}, [--sleep-time, 1]{more}]\n",
            http = url.replace("ws://", "http://").replace("/ws", "/call"),
            log = site.folder.path().display(),
            base = at("archive"),
            db = at("files.db"),
        );
        fs::write(site.at("default.yaml"), yaml).unwrap();
        let init = site.command().args(["init-db", "--db", &format!("sqlite:{}", at("files.db"))]).output().unwrap();
        assert!(init.status.success());
        site
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pysmurf-archiver"));
        command.env("OCS_CONFIG_DIR", self.folder.path()).env_remove("RUST_LOG").env_remove("LOGLEVEL");
        command
    }

    /// Starts the agent as a container does: by variables alone.
    pub(crate) fn agent(&self, instance: &str, log: &str) -> Agent {
        let mut command = self.command();
        command.env("INSTANCE_ID", instance).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(self.at(log)).unwrap());
        Agent(command.spawn().unwrap())
    }

    pub(crate) fn table(&self) -> Connection {
        let table = Connection::open(self.at("files.db")).unwrap();
        table.busy_timeout(PATIENCE).unwrap();
        table
    }

    /// Writes a file and registers it.
    pub(crate) fn add(&self, name: &str, attempts: u32) {
        let path = self.at("source").join(name);
        fs::write(&path, name).unwrap();
        let mut hasher = FileHasher::new(Checksum::Md5);
        hasher.update(name.as_bytes());
        let row = (path.to_str().unwrap(), hasher.finish().to_string(), format!("17950/{name}"), attempts);
        let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                      failed_copy_attempts, deletable, \"ignore\") VALUES (?1, ?2, 'smurf', ?3, 1795350000.5, ?4, 1, 0)";
        self.table().execute(insert, row).unwrap();
    }

    pub(crate) fn copied(&self) -> i64 {
        let count = "SELECT COUNT(*) FROM supersync_v0 WHERE remote_md5sum = local_md5sum";
        self.table().query_row(count, [], |row| row.get(0)).unwrap()
    }
}

pub(crate) struct Agent(pub(crate) Child);

impl Agent {
    pub(crate) fn terminate(mut self) -> ExitStatus {
        signal("TERM", &[self.0.id()]);
        let mut status = None;
        until("the agent has ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "Waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Runs the genuine client through these steps; the answers, or `None` when there is no agent.
pub(crate) fn steer(router: &Crossbar, instance: &str, steps: &Value) -> Option<Vec<Value>> {
    let output = router.snippet("client.py").args([instance, "", &steps.to_string()]).output().unwrap();
    let answers: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(answers["results"].as_array().unwrap().clone())
}

#[test]
fn an_archive_is_served_and_steered() {
    let Some(router) = Crossbar::start() else { return };
    let site = Site::new(&router, "smurf-sync");
    for name in ["a.npy", "b b.npy", "c.txt"] {
        site.add(name, 0);
    }
    site.add("given-up.txt", 5);
    let agent = site.agent("smurf-sync", "log");
    until("the files are copied", || site.copied() == 3);

    // The session tells of it at the next tick, in the words of the SupRsync agent and in ours.
    let mut data = Value::Null;
    until("the session tells of three copies", || {
        let status = steer(&router, "smurf-sync", &json!([["run", "status", {}]]));
        data = status.map_or(Value::Null, |answers| answers[0][2]["data"].clone());
        data["archiver"]["copied"] == 3 && data["archive_stats"]["num_files"] == 4 && data["activity"] == "idle"
    });
    let counters: Vec<_> = data["counters"].as_object().unwrap().keys().collect();
    assert_eq!(counters, ["copies", "errors_nonzero", "errors_sqlite", "errors_timeout", "iterations"]);
    assert_eq!(data["counters"]["copies"], 3);
    assert!(data["last_copy"]["files"].as_array().unwrap().iter().all(|file| file[1] == true));
    assert!(data["archive_stats"]["finalized_until"].is_f64());
    assert_eq!(data["archiver"]["last_proven"]["path"].as_str().map(|path| path.starts_with("17950/")), Some(true));
    assert_eq!(data["archiver"]["failures"]["missing"], 0);

    // A row that is given up is trouble, until somebody does something about it.
    let status = || {
        steer(&router, "smurf-sync", &json!([["run", "status", {}]]))
            .map_or(Value::Null, |answers| answers[0][2].clone())
    };
    until("the session is degraded", || status()["degraded"] == true);
    assert!(status()["messages"].to_string().contains("1 row is given up"), "{}", status());

    // Tasks.
    let steps = json!([
        ["pending", "start", {}], ["pending", "wait", {"timeout": 60}],
        ["retry", "start", {"pattern": "*/given-*"}], ["retry", "wait", {"timeout": 60}],
        ["retry", "start", {"ids": [1], "pattern": "*"}], ["retry", "wait", {"timeout": 60}],
        ["bwlimit", "start", {"rate": "1.5m"}], ["bwlimit", "wait", {"timeout": 60}],
        ["bwlimit", "start", {"rate": -1}], ["bwlimit", "wait", {"timeout": 60}],
        ["bwlimit", "start", {"rate": 0}], ["bwlimit", "wait", {"timeout": 60}],
        ["pause", "start", {}], ["pause", "wait", {"timeout": 60}],
        ["status", "start", {}], ["status", "wait", {"timeout": 60}],
    ]);
    let answers = steer(&router, "smurf-sync", &steps).unwrap();
    assert_eq!(answers[1][2]["data"]["given_up"], 1, "{answers:?}");
    assert_eq!(answers[3][2]["data"]["rows"], 1, "{answers:?}");
    assert!(answers[3][2]["data"]["reasons"][0]["path"].as_str().unwrap().ends_with("/given-up.txt"), "{answers:?}");
    assert_eq!(answers[5][2]["success"], false, "{answers:?}");
    assert_eq!(answers[7][2]["data"]["bwlimit"], 3 << 19, "{answers:?}");
    assert_eq!(answers[9][2]["success"], false, "{answers:?}");
    assert_eq!(answers[11][2]["data"]["bwlimit"], 0, "{answers:?}");
    assert_eq!(answers[13][2]["success"], true, "{answers:?}");
    let data = &answers[15][2]["data"];
    assert_eq!((&data["archive"], &data["paused"]), (&json!("smurf-sync"), &json!(true)), "{answers:?}");
    let answers = steer(&router, "smurf-sync", &json!([["resume", "start", {}], ["resume", "wait", {"timeout": 60}]]));
    assert_eq!(answers.unwrap()[1][0], 0);
    until("the row given up is copied", || site.copied() == 4);
    until("the session is degraded no more", || status()["degraded"] == false);

    // The process stops and starts.
    let steps = json!([["run", "stop", {}], ["run", "wait", {"timeout": 60}], ["run", "start", {}]]);
    let answers = steer(&router, "smurf-sync", &steps).unwrap();
    assert_eq!((&answers[1][0], &answers[1][2]["success"]), (&json!(0), &json!(true)), "{answers:?}");
    assert_eq!(answers[2][2]["status"], "starting", "{answers:?}");
    let session = answers[2][2]["session_id"].clone();

    // A router that is gone stops nothing, and the agent comes back.
    router.kill();
    site.add("without-router.txt", 0);
    until("a file is copied without a router", || site.copied() == 5);
    router.restart();
    until("the agent is back", || {
        let status = steer(&router, "smurf-sync", &json!([["run", "status", {}]]));
        status.is_some_and(|answers| answers[0][2]["session_id"] == session && answers[0][2]["status"] == "running")
    });

    // A second one of the same name goes away, with a reason.
    let mut second = site.agent("smurf-sync", "second.log");
    until("the second instance has ended", || second.0.try_wait().unwrap().is_some());
    assert!(!second.0.wait().unwrap().success());
    let log = fs::read_to_string(site.at("second.log")).unwrap();
    assert!(log.contains("runs already"), "{log}");

    assert!(agent.terminate().success());
    let log = fs::read_to_string(site.at("observatory.smurf-sync.log")).unwrap();
    assert!(log.contains("Copied and proven"), "{log}");
}

#[test]
fn archiving_begins_without_a_router() {
    let Some(router) = Crossbar::start() else { return };
    let site = Site::new(&router, "early");
    router.kill();
    site.add("early.txt", 0);
    let agent = site.agent("early", "log");
    until("the file is copied", || site.copied() == 1);
    router.restart();
    until("the agent is there", || steer(&router, "early", &json!([["run", "status", {}]])).is_some());
    assert!(agent.terminate().success());
}

/// The lines of a log with these words.
fn lines<'a>(log: &'a str, words: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(words)).collect()
}

/// Each try tells the time until the next one, and calls nobody as it may pass by itself; the session, which tells of it
/// too, adds no line of its own.
fn expect_told_by_who_met_it(log: &str, words: &str) {
    let told = lines(log, words);
    let by_who_met_it = |line: &&str| line.contains("INFO") && line.contains("wait_ms");
    assert!(!told.is_empty() && told.iter().all(by_who_met_it), "{told:#?}");
}

#[test]
fn trouble_is_told_once_and_calls_nobody_before_it_lasts() {
    let Some(router) = Crossbar::shared() else { return };
    let site = Site::new(router, "told");
    site.add("a.txt", 0);
    let agent = site.agent("told", "log");
    let log = || fs::read_to_string(site.at("log")).unwrap();
    let status =
        || steer(router, "told", &json!([["run", "status", {}]])).map_or(Value::Null, |answers| answers[0][2].clone());
    until("the file is copied, and told", || status()["data"]["archiver"]["copied"] == 1);
    for word in ["WARN", "ERROR", "Could not publish"] {
        assert_eq!(lines(&log(), word), [""; 0], "{}", log());
    }
    // A service has its options from its start; what it can do is to look again.
    signal("HUP", &[agent.0.id()]);
    until("it has heard", || log().contains("SIGHUP"));
    // The database goes away and comes back.
    fs::rename(site.at("files.db"), site.at("away.db")).unwrap();
    until("the session is degraded", || status()["degraded"] == true);
    assert!(status()["messages"].to_string().contains("not there any more"), "{}", status());
    fs::rename(site.at("away.db"), site.at("files.db")).unwrap();
    until("the session is degraded no more", || status()["degraded"] == false);
    expect_told_by_who_met_it(&log(), "not there any more");
    assert!(agent.terminate().success());
}

#[test]
fn a_storage_node_out_of_reach_is_told_once() {
    let Some(router) = Crossbar::shared() else { return };
    // Nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let site = Site::with(router, "link", &format!(", [--ssh-host, 127.0.0.1], [--ssh-port, {port}]"));
    site.add("a.txt", 0);
    let agent = site.agent("link", "log");
    let log = || fs::read_to_string(site.at("log")).unwrap();
    until("it was tried three times", || lines(&log(), "refused").len() >= 3);
    expect_told_by_who_met_it(&log(), "refused");
    let status =
        || steer(router, "link", &json!([["run", "status", {}]])).map_or(Value::Null, |answers| answers[0][2].clone());
    until("the session tells of it", || status()["messages"].to_string().contains("refused"));
    assert!(agent.terminate().success());
}

#[test]
fn rows_are_listed_shown_and_changed_and_copies_verified_by_tasks() {
    let Some(router) = Crossbar::shared() else { return };
    let site = Site::new(router, "tasks");
    for name in ["a.npy", "b.npy"] {
        site.add(name, 0);
    }
    site.add("gone.txt", 5);
    site.add("changed.txt", 5);
    fs::remove_file(site.at("source/gone.txt")).unwrap();
    fs::write(site.at("source/changed.txt"), "otherwise").unwrap();
    let agent = site.agent("tasks", "log");
    until("the files are copied", || site.copied() == 2);
    let wait = |task: &str| json!([task, "wait", {"timeout": 60}]);
    let done = |steps: &Value| -> Vec<Value> {
        let answers = steer(router, "tasks", steps).unwrap();
        answers.into_iter().skip(1).step_by(2).map(|answer| answer[2].clone()).collect()
    };
    let answers = done(&json!([
        ["list", "start", {}], wait("list"),
        ["list", "start", {"state": "copied", "limit": 1}], wait("list"),
        ["list", "start", {"state": "all"}], wait("list"),
        ["show", "start", {"path": "gone.txt"}], wait("show"),
        ["show", "start", {"path": "nobody.txt"}], wait("show"),
        ["ignore", "start", {"pattern": "*/gone.txt"}], wait("ignore"),
        ["ignore", "start", {"ids": [1]}], wait("ignore"),
        ["ignore", "start", {}], wait("ignore"),
        ["verify", "start", {"pattern": "*"}], wait("verify"),
        ["accept", "start", {"pattern": "*"}], wait("accept"),
        ["recopy", "start", {"ids": [1]}], wait("recopy"),
    ]));
    let data = |at: usize| &answers[at]["data"];
    let names: Vec<_> = data(0)["files"].as_array().unwrap().iter().map(|row| row["state"].clone()).collect();
    assert_eq!(names, ["given_up", "given_up"], "{answers:#?}");
    assert_eq!((data(1)["files"].as_array().unwrap().len(), &data(1)["more"]), (1, &json!(true)), "{answers:#?}");
    assert_eq!(answers[2]["success"], false, "{answers:#?}");
    assert_eq!((&data(3)["files"][0]["state"], &data(3)["files"][0]["id"]), (&json!("given_up"), &json!(3)));
    assert_eq!(answers[4]["success"], false, "{answers:#?}");
    assert_eq!((&data(5)["changed"], &data(5)["left"]), (&json!(1), &json!([])), "{answers:#?}");
    assert_eq!((&data(6)["changed"], &data(6)["left"][0]["why"]), (&json!(0), &json!("copied")), "{answers:#?}");
    assert_eq!(answers[7]["success"], false, "nobody means all rows by saying nothing: {answers:#?}");
    assert_eq!((&data(8)["right"], &data(8)["missing"]), (&json!(2), &json!(0)), "{answers:#?}");
    assert_eq!(data(9)["changed"], 1, "{answers:#?}");
    assert_eq!(data(10)["changed"], 1, "{answers:#?}");
    until("the accepted file is copied, and the other one proven again", || site.copied() == 3);
    // A copy that went away is found and made again; an ignored row comes back.
    fs::remove_file(site.at("archive/17950/b.npy")).unwrap();
    let answers = done(&json!([
        ["verify", "start", {"ids": [2], "repair": true}], wait("verify"),
        ["unignore", "start", {"ids": [3]}], wait("unignore"),
    ]));
    assert_eq!(answers[0]["success"], false, "{answers:#?}");
    assert_eq!(
        (&answers[0]["data"]["missing"], &answers[0]["data"]["reopened"]),
        (&json!(1), &json!(1)),
        "{answers:#?}"
    );
    assert_eq!(answers[1]["data"]["changed"], 1, "{answers:#?}");
    until("the copy is there again", || site.at("archive/17950/b.npy").exists() && site.copied() == 3);
    // Files that nobody had registered.
    fs::create_dir(site.at("source/more")).unwrap();
    fs::write(site.at("source/more/new.npy"), "new").unwrap();
    let answers = done(&json!([
        ["add", "start", {"paths": [site.at("source/more")], "remote_prefix": "added"}], wait("add"),
        ["add", "start", {"paths": [site.at("source/more")], "remote_prefix": "added"}], wait("add"),
        ["add", "start", {"paths": ["source/more"]}], wait("add"),
        ["add", "start", {"paths": [site.at("source/a.npy")], "type": "npy"}], wait("add"),
        ["add", "start", {"paths": [site.at("source/more/new.npy")], "target": "other"}], wait("add"),
        ["add", "start", {"paths": [site.at("source/changed.txt"), site.at("archive")], "timestamp": "tomorrow"}], wait("add"),
    ]));
    let counts = |at: usize| ["registered", "known", "failed"].map(|name| answers[at]["data"][name].clone());
    assert_eq!(counts(0), [json!(1), json!(0), json!(0)], "{answers:#?}");
    assert_eq!(counts(1), [json!(0), json!(1), json!(0)], "{answers:#?}");
    let refused: Vec<_> = answers[2..].iter().map(|answer| answer["messages"].to_string()).collect();
    for (said, words) in
        refused.iter().zip(["no path from /", "Param type is for MySQL", "\\\"other\\\"", "expected mtime, now"])
    {
        assert!(said.contains(words), "{said} says nothing of {words}");
    }
    assert!(answers[2..].iter().all(|answer| answer["success"] == false), "{answers:#?}");
    until("the new file is copied", || site.at("archive/added/more/new.npy").exists() && site.copied() == 4);
    assert!(agent.terminate().success());
}

#[test]
fn questions_to_the_table_know_it_from_the_site_file() {
    let Some(router) = Crossbar::shared() else { return };
    let site = Site::with(router, "asked", ", [--ssh-host, node], [--ssh-key, /nowhere/key]");
    site.add("waits.txt", 2);
    let ask = |words: &[&str]| {
        let mut command = site.command();
        // Whoever else archives on this machine is not asked.
        command.env("INSTANCE_ID", "asked").env("RUNTIME_DIRECTORY", site.folder.path());
        let output = command.args(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said, error) = ask(&["files", "list", "--json"]);
    assert!(code == Some(0) && said.contains("waits.txt"), "{said}{error}");
    let (code, said, error) = ask(&["files", "show", "waits.txt"]);
    assert!(code == Some(1) && said.contains("it failed 2 times"), "{said}{error}");
    let (code, said, error) = ask(&["status"]);
    assert!(code == Some(1) && said.contains("backlog    1 file"), "{said}{error}");
    let (code, _, error) = ask(&["files", "list", "--site", "none"]);
    assert!(code == Some(2), "{error}");
}
