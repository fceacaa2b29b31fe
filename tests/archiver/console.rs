//! What operators ask a running archiver and tell it: by its socket, and without one by its table.

use crate::support::archiver::{Place, Run, hex, is_root};
use crate::support::browser::Browser;
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use crate::tables::{Age, Row, TARGET, Table, small_files};
use rusqlite::{Connection, params};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};

/// An archive of SupRsync in a place, copied on this machine.
struct Archive {
    place: Place,
    name: &'static str,
}

impl Archive {
    fn make(name: &'static str) -> Self {
        let archive = Self { place: Place::make(), name };
        let mut init = archive.place.program();
        init.args(["init-db", "--db", &archive.url()]);
        Run::to_end(init).expect(0);
        archive
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.place.path("files.db").display())
    }

    fn table(&self) -> Connection {
        Connection::open(self.place.path("files.db")).unwrap()
    }

    /// Writes files and registers them, failed so often.
    fn add(&self, numbers: std::ops::Range<u64>, len: u64, attempts: u32) {
        let mut table = self.table();
        let rows = table.transaction().unwrap();
        for number in numbers {
            let name = format!("{number:05}.dat");
            let (path, md5) = self.place.source(&name, len, number);
            let row =
                params![path.to_str().unwrap(), hex(md5).to_lowercase(), self.name, format!("17950/{name}"), attempts];
            rows.execute(
                "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                 failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, ?, ?, 1795350012.25, ?, 1, 0)",
                row,
            )
            .unwrap();
        }
        rows.commit().unwrap();
    }

    fn copied(&self) -> i64 {
        let count = "SELECT COUNT(*) FROM supersync_v0 WHERE remote_md5sum = local_md5sum";
        self.table().query_row(count, [], |row| row.get(0)).unwrap()
    }

    fn run(&self) -> Command {
        let mut run = self.place.run();
        run.args(["--db", &self.url(), "--archive-name", self.name, "--poll", "0.2"]);
        run
    }

    fn socket(&self) -> PathBuf {
        self.place.path(&format!("runtime/{}.sock", self.name))
    }

    /// A verb for operators, in the same place.
    fn verb(&self, words: &[&str]) -> Output {
        self.place.program().args(words).output().unwrap()
    }

    /// How it stands by the running service; `None` while nobody answers.
    fn status(&self) -> Option<Value> {
        let said = self.verb(&["status", "--json", "--archive-name", self.name, "--db", &self.url()]);
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        let archive = said["archives"][0].clone();
        (archive["running"] == true).then_some(archive)
    }

    /// Waits until the status of the running service is so.
    fn wait_for(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_until(what, || {
            last = self.status().unwrap_or_default();
            so(&last)
        });
        last
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn a_running_service_tells_how_it_stands_and_the_table_does_where_none_runs() {
    let archive = Archive::make("smurf");
    archive.add(0..3, 1000, 0);
    archive.add(3..4, 1000, 5);
    let by_table = ["status", "--archive-name", "smurf", "--db", &archive.url()];
    let said = archive.verb(&by_table);
    let page = text(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{page}");
    for words in ["smurf  not running", "backlog    3 files, 3.0 kB", "1 given up", "No archiver answers"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let run = Run::start(archive.run());
    let status = archive.wait_for("all is copied and counted", |status| {
        status["run"]["copied"] == 3 && status["backlog"]["files"] == 0 && status["backlog"]["copied"] == 3
    });
    assert_eq!(status["backlog"]["given_up"], 1);
    assert_eq!(status["troubles"][0]["kind"], "given_up");
    assert!(status["last_proven"]["path"].as_str().unwrap().starts_with("17950/"), "{status}");
    let said = archive.verb(&["status"]);
    let page = text(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "a row is given up: {page}");
    for words in ["smurf  trouble", "WRONG 1 row was given up", "nothing waits", "3 files copied"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains('\u{1b}'), "no colour but on a terminal: {page:?}");
    archive.table().execute("UPDATE supersync_v0 SET failed_copy_attempts = 0", []).unwrap();
    archive.wait_for("nothing is wrong", |status| status["troubles"] == serde_json::json!([]));
    assert_eq!(archive.verb(&["status"]).status.code(), Some(0));
    let mode = |path: &str| fs::metadata(archive.place.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("runtime"), mode("runtime/smurf.sock")), (0o700, 0o600));
    run.terminate().0.expect(0);
    assert!(!archive.socket().exists());
}

#[test]
fn a_service_with_mysql_and_ssh_tells_of_its_sessions_and_of_a_node_out_of_reach() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "console", Age::V1);
    table.insert(&small_files(&place, 0..20));
    table.insert(&[Row { instance: "other".into(), ..Row::new(place.source("other", 10, 1)) }]);
    let status = |words: &[&str]| {
        let said = place.program().args(["status", "--json"]).args(words).output().unwrap();
        let report: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        (said.status.code(), report["archives"][0].clone())
    };
    let (code, said) = status(&["--db", &table.url, "--target", TARGET]);
    assert_eq!((code, &said["running"], &said["backlog"]["files"]), (Some(1), &false.into(), &20.into()), "{said}");
    assert_eq!(said["backlog"]["at_least"], false);
    let mut command = place.run_to(&sshd);
    command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.2"]);
    let run = Run::start(command);
    wait_until("all is copied and told", || status(&[]).1["run"]["copied"] == 20);
    let (_, said) = status(&[]);
    assert!(said["sessions"].as_array().is_some_and(|sessions| !sessions.is_empty()), "{said}");
    assert!(said["far_end"].as_str().unwrap().contains("127.0.0.1:/"), "{said}");
    sshd.kill();
    table.insert(&small_files(&place, 20..21));
    wait_until("the node is told to be out of reach", || {
        let (code, said) = status(&[]);
        let trouble = &said["troubles"][0];
        code == Some(1) && trouble["kind"] == "link" && !trouble["remedy"].as_str().unwrap().is_empty()
    });
    run.terminate().0.expect(0);
}

#[test]
fn a_pause_takes_up_nothing_and_goes_on_when_told() {
    let archive = Archive::make("pause");
    let run = Run::start(archive.run());
    archive.wait_for("it runs", |status| status["backlog"]["files"] == 0);
    let said = archive.verb(&["pause"]);
    assert!(said.status.success() && text(&said.stdout).starts_with("pause: Paused"), "{said:?}");
    archive.add(0..5, 100, 0);
    // It has counted the rows, and so had every chance to take them up.
    let status = archive.wait_for("the rows are counted", |status| status["backlog"]["files"] == 5);
    assert_eq!((&status["paused"], archive.copied()), (&true.into(), 0), "{status}");
    assert!(text(&archive.verb(&["status"]).stdout).contains("pause  paused"));
    assert!(archive.verb(&["resume"]).status.success());
    wait_until("it goes on", || archive.copied() == 5);
    assert_eq!(archive.status().unwrap()["paused"], false);
    run.terminate().0.expect(0);
}

#[test]
fn a_row_that_is_given_a_new_chance_is_tried_at_once_where_an_archiver_runs() {
    let archive = Archive::make("again");
    // More rows than a pass goes back over by itself, lest the next poll sees it.
    archive.add(0..1, 100, 5);
    archive.add(1..1200, 0, 0);
    let run = Run::start(archive.run());
    archive.wait_for("it runs", |status| status["run"]["copied"] == 1199 && status["backlog"]["given_up"] == 1);
    let url = archive.url();
    let said = archive.verb(&["retry", "--all", "--db", &url, "--archive-name", "again"]);
    assert!(said.status.success(), "{said:?}");
    wait_until("it is copied", || archive.copied() == 1200);
    run.terminate().0.expect(0);
}

#[test]
fn a_limit_holds_from_when_it_is_told_and_a_timetable_until_then_and_after() {
    let archive = Archive::make("limit");
    let run = Run::start({
        let mut run = archive.run();
        // Whatever the time is: a window of the whole day.
        run.args(["--bwlimit", "00:00-12:00 3m, 12:00-24:00 3m, 5m"]);
        run
    });
    let limit = |status: &Value| status["limit"]["bytes_per_second"].as_u64();
    let status = archive.wait_for("it runs", |status| limit(status) == Some(3 << 20));
    assert_eq!(status["limit"]["timetable"], true);
    // At that rate the file takes days.
    let said = archive.verb(&words("bwlimit 1"));
    assert!(said.status.success(), "{said:?}");
    archive.add(0..1, 30 << 20, 0);
    let status = archive.wait_for("the file is on its way", |status| status["run"]["in_flight"] == 1);
    assert_eq!((limit(&status), &status["limit"]["held"]), (Some(1024), &true.into()));
    assert_eq!(archive.copied(), 0);
    let said = archive.verb(&words("bwlimit 0"));
    assert!(text(&said.stdout).contains("no limit by an operator"), "{said:?}");
    wait_until("it is copied", || archive.copied() == 1);
    let said = archive.verb(&words("bwlimit auto"));
    assert!(text(&said.stdout).contains("3.1 MB/s by the timetable"), "{said:?}");
    assert_eq!(archive.verb(&words("bwlimit quick")).status.code(), Some(2));
    run.terminate().0.expect(0);
}

#[test]
fn a_link_of_another_user_and_a_folder_that_others_write_to_are_refused() {
    if !is_root() {
        return;
    }
    let archive = Archive::make("refused");
    let elsewhere = archive.place.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, archive.place.path("planted")).unwrap();
    std::os::unix::fs::lchown(archive.place.path("planted"), Some(65534), Some(65534)).unwrap();
    fs::create_dir(archive.place.path("open")).unwrap();
    fs::set_permissions(archive.place.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(archive.place.path("theirs")).unwrap();
    fs::set_permissions(archive.place.path("theirs"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(archive.place.path("theirs"), Some(65534), Some(65534)).unwrap();
    fs::create_dir_all(archive.place.path("mine/a")).unwrap();
    fs::write(archive.place.path("mine/file"), "precious").unwrap();
    symlink("file", archive.place.path("mine/link")).unwrap();
    for place in ["planted/s", "open/s", "theirs/s", "mine/file", "mine/link", "mine/a", "absent/folder/s"] {
        let path = archive.place.path(place);
        let run = Run::start({
            let mut run = archive.run();
            run.arg("--once").arg("--control").arg(&path);
            run
        });
        let over = run.wait(crate::support::wait::PATIENCE).expect(0);
        let warned = over.log.lines().any(|line| line.contains("WARN") && line.contains("--control"));
        assert!(warned && over.log.contains(path.to_str().unwrap()), "{place}: {}", over.log);
        // Nor is anybody asked there.
        let said = archive.place.program().arg("pause").arg("--control").arg(&path).output().unwrap();
        assert_eq!(said.status.code(), Some(1), "{place}");
    }
    assert_eq!(fs::read_to_string(archive.place.path("mine/file")).unwrap(), "precious");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_never() {
    let archive = Archive::make("stale");
    let run = Run::start(archive.run());
    archive.wait_for("it runs", |status| status["backlog"]["files"] == 0);
    run.kill();
    assert!(archive.socket().exists(), "nobody was there to take it away");
    assert!(archive.status().is_none());
    let run = Run::start(archive.run());
    archive.wait_for("another one answers there", |status| status["backlog"]["files"] == 0);
    // A second one of the same name waits for the rows, and has a socket besides.
    let second = Run::start(archive.run());
    let all = || {
        let said = archive.verb(&["status", "--json"]);
        let report: Value = serde_json::from_slice(&said.stdout).unwrap();
        report["archives"].as_array().unwrap().clone()
    };
    wait_until("both answer, the second in trouble", || {
        let all = all();
        all.len() == 2 && all.iter().any(|archive| archive["troubles"][0]["kind"] == "database")
    });
    let said = archive.verb(&["pause"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("Several"), "{said:?}");
    let socket = archive.socket();
    assert!(archive.verb(&["pause", "--control", socket.to_str().unwrap()]).status.success());
    second.terminate().0.expect(0);
    assert_eq!(all().len(), 1, "the first one's is left where it was");
    // One that was named is not given another name.
    let over = Run::to_end({
        let mut run = archive.run();
        run.arg("--once").arg("--control").arg(&socket);
        run
    });
    assert!(over.log.contains("another archiver answers there"), "{}", over.log);
    run.terminate().0.expect(0);
}

#[test]
fn two_archives_are_told_apart_by_their_names() {
    let (one, other) = (Archive::make("one"), Archive::make("other"));
    let runtime = one.place.path("runtime");
    let with = |mut command: Command| {
        command.env("RUNTIME_DIRECTORY", &runtime);
        command
    };
    let runs = [Run::start(with(one.run())), Run::start(with(other.run()))];
    let verb = |words: &[&str]| with(other.place.program()).args(words).output().unwrap();
    let page = || text(&verb(&["status"]).stdout);
    wait_until("both are shown", || page().contains("one  ") && page().contains("other  "));
    let said = verb(&["pause"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("name one by --target: one, other"), "{said:?}");
    assert!(verb(&["pause", "--archive-name", "other"]).status.success());
    wait_until("the other pauses", || page().contains("other  paused"));
    assert!(!page().contains("one  paused"));
    assert_eq!(verb(&["resume", "--target", "third"]).status.code(), Some(1));
    for run in runs {
        run.terminate().0.expect(0);
    }
    let said = verb(&["pause"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("No archiver runs"), "{said:?}");
}

#[test]
fn several_targets_of_one_process_are_told_and_steered_each_by_its_name() {
    let (one, other) = (Archive::make("left"), Archive::make("right"));
    let target = |name: &str, of: &Archive| {
        let (url, dir) = (of.url(), of.place.archive());
        format!(
            "[[target]]\nname = \"{name}\"\ndb = \"{url}\"\narchive-name = \"{}\"\ndata-dir = \"{}\"\n",
            of.name,
            dir.display()
        )
    };
    let file = format!("bwlimit = \"3m\"\npoll = 0.2\n{}{}", target("first", &one), target("second", &other));
    fs::write(one.place.path("config.toml"), file).unwrap();
    let run = Run::start({
        let mut run = one.place.program();
        run.args(["run", "--config", "config.toml"]);
        run
    });
    let said = |words: &[&str]| {
        let said = one.verb(words);
        serde_json::from_slice::<Value>(&said.stdout).unwrap_or_default()["archives"].clone()
    };
    wait_until("both answer by one socket", || {
        let all = said(&["status", "--json"]);
        all[0]["archive"] == "first" && all[1]["archive"] == "second" && all[1]["running"] == true
    });
    assert!(one.place.path("runtime/first+second.sock").exists());
    assert_eq!(said(&["status", "--json", "--config", "config.toml"]).as_array().unwrap().len(), 2);
    assert!(one.verb(&["pause", "--target", "right"]).status.success(), "by the archive's name");
    assert_eq!(one.verb(&["pause"]).status.code(), Some(1));
    one.add(0..1, 100, 0);
    other.add(0..1, 100, 0);
    wait_until("the one that does not pause has copied", || one.copied() == 1);
    // One limit holds for both, whoever was told.
    assert!(one.verb(&["bwlimit", "7m", "--target", "first"]).status.success());
    let limits = |all: Value| [0, 1].map(|at| all[at]["limit"]["bytes_per_second"].as_u64().unwrap());
    assert_eq!(limits(said(&["status", "--json"])), [7 << 20; 2]);
    assert_eq!(other.copied(), 0);
    assert!(one.verb(&["resume", "--target", "second"]).status.success());
    wait_until("the other goes on", || other.copied() == 1);
    run.terminate().0.expect(0);
    // Of each the table is looked at.
    let all = said(&["status", "--json", "--config", "config.toml"]);
    assert_eq!((&all[0]["running"], all.as_array().unwrap().len()), (&false.into(), 2), "{all}");
}

/// What a socket answers to these bytes, until it closes.
fn answer(stream: &mut UnixStream, bytes: &[u8]) -> String {
    // It may have hung up before all was said.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    text(&said)
}

#[test]
fn garbage_and_silence_at_the_socket_hurt_nobody() {
    let archive = Archive::make("garbage");
    archive.add(0..3, 100, 0);
    let run = Run::start(archive.run());
    archive.wait_for("it runs", |status| status["run"]["copied"] == 3);
    let connect = || UnixStream::connect(archive.socket()).unwrap();
    // Some who say nothing, or only half of it, stay while others ask.
    let mut silent: Vec<_> = (0..20).map(|_| connect()).collect();
    for stream in &mut silent[10..] {
        stream.write_all(b"POST /pause HTTP/1.1\r\ncontent-length: 100\r\n").unwrap();
    }
    let head = |line: &str, more: &str, body: &str| {
        let length = body.len();
        format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}")
    };
    let json = "content-type: application/json\r\n";
    let long = "x".repeat(1 << 20);
    let lines = (0..1000).map(|n| format!("h{n}: x\r\n")).collect::<String>();
    for (request, status) in [
        ("\0\u{1}\u{2}garbage\r\n\r\n".to_owned(), "400"),
        (head("GET /nothing", "", ""), "404"),
        (head("GET /pause", "", ""), "405"),
        (head("POST /pause", "", "{}"), "415"),
        (head("POST /pause", json, "{"), "400"),
        (head("POST /pause", json, r#"{"archive": "garbage", "what": 1}"#), "400"),
        (head("POST /pause", json, r#"{"archive": "nobody"}"#), "404"),
        (head("POST /bwlimit", json, r#"{"rate": "-3"}"#), "400"),
        (head("POST /pause", json, &format!("{{\"archive\": \"{long}\"}}")), "413"),
        (head(&format!("GET /{long}"), "", ""), "4"),
        (head("GET /status.json", &lines, ""), "431"),
    ] {
        let said = answer(&mut connect(), request.as_bytes());
        let first = said.lines().next().unwrap_or_default();
        // Of what is too long it may have hung up before the answer was read.
        let told = first.starts_with(&format!("HTTP/1.1 {status}")) || (said.is_empty() && request.len() > 16_000);
        assert!(told, "{}: {said}", &request[..request.len().min(80)]);
    }
    let status = archive.status().unwrap();
    assert_eq!((&status["paused"], &status["limit"]["held"]), (&false.into(), &false.into()));
    // Those who say nothing are hung up on.
    let mut rest = Vec::new();
    assert_eq!(silent[0].read_to_end(&mut rest).unwrap(), 0);
    archive.add(3..4, 100, 0);
    wait_until("it copies on", || archive.copied() == 4);
    run.terminate().0.expect(0);
}

#[test]
fn a_listener_that_is_no_archiver_is_told_and_not_waited_for() {
    let archive = Archive::make("mute");
    fs::create_dir(archive.place.path("runtime")).unwrap();
    fs::set_permissions(archive.place.path("runtime"), fs::Permissions::from_mode(0o700)).unwrap();
    let listener = UnixListener::bind(archive.socket()).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-something\r\n").unwrap();
    });
    let said = archive.verb(&["pause", "--control", archive.socket().to_str().unwrap()]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(text(&said.stderr).contains("mute.sock"), "{said:?}");
    answering.join().unwrap();
}

#[test]
fn the_history_outlasts_a_restart_and_a_torn_file() {
    let archive = Archive::make("history");
    let file = archive.place.path("state/history.history");
    // Whatever was there: it is none of ours.
    fs::create_dir(archive.place.path("state")).unwrap();
    fs::write(&file, [7; 1000]).unwrap();
    let run = Run::start(archive.run());
    let asked = || {
        let mut stream = UnixStream::connect(archive.socket()).unwrap();
        let said = answer(&mut stream, b"GET /history.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let (_, body) = said.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<Value>(body).unwrap()[0]["minutes"].as_array().unwrap().clone()
    };
    archive.wait_for("it runs", |status| status["backlog"]["files"] == 0);
    archive.add(0..3, 1000, 0);
    wait_until("a minute is over", || asked().iter().any(|minute| minute["copied"] == 3));
    let before = asked();
    // It is shown when it is over, and written a little later.
    let last = before.last().unwrap()["minute"].as_u64().unwrap().to_le_bytes();
    let written = |bytes: Vec<u8>| bytes.windows(last.len()).any(|word| word == last);
    wait_until("the minute is on the disk", || written(fs::read(&file).unwrap()));
    run.kill();
    let run = Run::start(archive.run());
    archive.wait_for("it runs again", |status| status["backlog"]["files"] == 0);
    let after = asked();
    assert_eq!(after[..before.len()], before);
    let status = archive.status().unwrap();
    assert!(status["speed"]["files_hour"].as_f64().unwrap() > 0.0, "{status}");
    run.terminate().0.expect(0);
}

/// A port of the loopback that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks at a port; the status and all that was answered.
fn ask(port: u16, request: &str, more: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let host = if more.contains("host: ") { String::new() } else { format!("host: 127.0.0.1:{port}\r\n") };
    let length = body.len();
    let head = format!("{request} HTTP/1.1\r\n{host}connection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    let said = text(&said);
    (said.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), said)
}

#[test]
fn a_port_shows_how_it_stands_and_changes_something_for_the_token_alone() {
    let archive = Archive::make("port");
    archive.add(0..3, 1000, 0);
    archive.add(3..4, 1000, 5);
    let token = "0123456789abcdef0123";
    fs::write(archive.place.path("token"), format!("{token}\n")).unwrap();
    let port = free_port();
    let run = Run::start({
        let mut run = archive.run();
        run.args(["--listen", &port.to_string(), "--listen-token-file", "token"]);
        run
    });
    archive
        .wait_for("it runs", |status| status["backlog"]["copied"] == 3 && status["reasons"] != serde_json::json!([]));
    let get = |road: &str| ask(port, &format!("GET {road}"), "", "");
    let (status, page) = get("/");
    assert_eq!(status, 200);
    let policy = page.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap().to_owned();
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "the style and the script");
    assert!(!get("/").1.contains(nonce), "each answer has its own");
    let elsewhere = page.matches("://").count() - page.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(elsewhere, 0, "nothing comes from elsewhere");
    for (road, words) in
        [("/healthz", "ok"), ("/readyz", "ok"), ("/metrics", "archiver_backlog_files{archive=\"port\"} 0.0")]
    {
        let (status, said) = get(road);
        assert!(status == 200 && said.contains(words), "{road}: {said}");
    }
    let tell = |more: &str| ask(port, "POST /pause", &format!("content-type: application/json\r\n{more}"), "{}").0;
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    assert_eq!(tell(""), 401);
    assert_eq!(tell(&bearer("0123456789abcdef0124")), 401);
    assert_eq!(tell(&format!("origin: http://evil.example\r\n{}", bearer(token))), 403);
    assert_eq!(ask(port, "GET /status.json", "host: evil.example\r\n", "").0, 421);
    assert_eq!(archive.status().unwrap()["paused"], false);
    assert_eq!(tell(&bearer(token)), 200);
    assert_eq!(archive.status().unwrap()["paused"], true);
    let more = format!("content-type: application/json\r\n{}", bearer(token));
    assert_eq!(ask(port, "POST /resume", &more, "{}").0, 200);
    let (status, said) = ask(port, "POST /retry", &more, r#"{"ids": [4]}"#);
    assert!(status == 200 && said.contains("1 row will be tried again"), "{said}");
    wait_until("the row is copied", || archive.copied() == 4);
    // The database goes away: it lives, and is not ready.
    fs::rename(archive.place.path("files.db"), archive.place.path("away.db")).unwrap();
    wait_until("it is not ready", || get("/readyz").0 == 503);
    assert_eq!(get("/healthz").0, 200);
    fs::rename(archive.place.path("away.db"), archive.place.path("files.db")).unwrap();
    wait_until("it is ready again", || get("/readyz").0 == 200);
    run.terminate().0.expect(0);
}

#[test]
fn a_port_that_cannot_be_had_and_a_token_that_is_none_are_refused_at_once() {
    let archive = Archive::make("noport");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fs::write(archive.place.path("short"), "secret").unwrap();
    for (options, words) in [
        (vec!["--listen", &port], "--listen"),
        (vec!["--listen", "nowhere"], "--listen"),
        (vec!["--listen", "0", "--listen-token-file", "short"], "--listen-token-file"),
        (vec!["--listen", "0", "--listen-token-file", "absent"], "--listen-token-file"),
        (vec!["--listen-token-file", "short"], "--listen"),
    ] {
        let mut run = archive.run();
        run.arg("--once").args(&options);
        let over = Run::to_end(run).expect(2);
        assert!(over.log.contains(words) && !over.log.contains("secret"), "{}", over.log);
    }
}

#[test]
fn a_database_that_gives_rows_and_takes_no_proofs_is_told_until_it_does() {
    let archive = Archive::make("locked");
    let run = Run::start(archive.run());
    archive.wait_for("it runs", |status| status["backlog"]["files"] == 0);
    assert_eq!(archive.verb(&["pause"]).status.code(), Some(0));
    archive.add(0..3, 1000, 0);
    let holder = archive.table();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(archive.verb(&["resume"]).status.code(), Some(0));
    // Between the two it was asked for rows time and again, and gave them.
    wait_until("proofs were refused twice", || run.log().matches("Cannot record").count() >= 2);
    assert!(!run.log().contains("in reach again"), "{}", run.log());
    let status = archive.status().unwrap();
    assert_eq!(status["troubles"][0]["kind"], "database", "{status}");
    assert!(status["troubles"][0]["remedy"].as_str().unwrap().contains("long transaction"), "{status}");
    holder.execute_batch("COMMIT").unwrap();
    archive.wait_for("all is well", |status| {
        status["troubles"] == serde_json::json!([]) && status["backlog"]["copied"] == 3
    });
    assert!(run.log().contains("The database is in reach again"), "{}", run.log());
    run.terminate().0.expect(0);
}

/// Texts of the page that stand out from what is behind them by less than 4.5 to 1.
const FAINT: &str = r"
const parts = (text) => text.match(/[\d.]+/g).map(Number);
const light = (text) => parts(text).slice(0, 3).map((v) => v / 255)
  .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const ground = getComputedStyle(node).backgroundColor;
    if (parts(ground).length < 4 || parts(ground)[3] > 0) return ground;
  }
  return 'rgb(255, 255, 255)';
};
return [...document.querySelectorAll('body *')]
  .filter((node) => node.checkVisibility() && [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()))
  .map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 40)];
  })
  .filter(([ratio]) => ratio < 4.5);
";
/// What can be used and has no name that is read out.
const NAMELESS: &str = r"
return [...document.querySelectorAll('button, input, summary, progress, svg[role=img], section.archive, dialog')]
  .filter((node) => !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.textContent.trim()
    || (node.labels && node.labels.length)))
  .map((node) => node.outerHTML.slice(0, 80));
";

#[test]
fn a_browser_shows_what_waits_what_is_wrong_and_what_to_do_to_eyes_keys_and_readers() {
    // A phone's.
    let Some(browser) = Browser::open(390, 844) else { return };
    let archive = Archive::make("page");
    archive.add(0..3, 1000, 0);
    archive.add(3..5, 1000, 5);
    let token = "0123456789abcdef0123";
    fs::write(archive.place.path("token"), token).unwrap();
    let port = free_port();
    let run = Run::start({
        let mut run = archive.run();
        run.args(["--listen", &port.to_string(), "--listen-token-file", "token"]);
        run
    });
    archive
        .wait_for("it runs", |status| status["backlog"]["copied"] == 3 && status["reasons"] != serde_json::json!([]));
    browser.show(&format!("http://localhost:{port}/"));
    wait_until("the page has asked", || browser.run("return document.querySelectorAll('.reason').length") == 1);
    // Its own script has run, under its own policy.
    let page = browser.source();
    for words in [
        r#"<h2 id="a-0">page</h2>"#,
        r#"<span class="state bad">Trouble</span>"#,
        "2 rows were given up",
        "<code>retry --all</code>",
        "Try these 2 again",
        "3 files copied",
        "<title>\u{2717} page</title>",
        r#"aria-labelledby="a-0""#,
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let none = serde_json::json!([]);
    let texts = browser.run(&FAINT.replace("ratio < 4.5", "ratio < 22"));
    assert!(texts.as_array().unwrap().len() > 20, "each text is looked at: {texts}");
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        let matches = browser.run(&format!("return matchMedia('(prefers-color-scheme: {scheme})').matches"));
        assert_eq!((matches, browser.run(FAINT)), (true.into(), none.clone()), "{scheme}");
    }
    assert_eq!(browser.run(NAMELESS), none);
    let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.run(wide), 0, "nothing is beyond the side of a phone's screen");
    // By keys alone: each button and each list that opens has its turn, and is seen to have it.
    let mut turns = Vec::new();
    for _ in 0..4 {
        browser.press("\u{e004}");
        let at = browser.run(
            "const at = document.activeElement; return [at.textContent, getComputedStyle(at).outlineStyle !== 'none']",
        );
        assert_eq!(at[1], true, "{at}");
        turns.push(at[0].as_str().unwrap().to_owned());
    }
    assert_eq!(turns, ["Pause", "Limit …", "Which", "Try these 2 again"]);
    // The first of them, the token typed, and all of it told to the archiver.
    browser.run("document.activeElement.blur()");
    browser.run("document.querySelector('.orders button').focus()");
    browser.press("\u{e007}");
    wait_until("it asks for the token", || browser.run("return document.activeElement.id") == "token");
    assert_eq!(browser.run(FAINT), none, "the question is as readable");
    browser.press("\u{e00c}");
    wait_until("Escape closes it", || browser.run("return document.getElementById('ask').open") == false);
    assert_eq!(archive.status().unwrap()["paused"], false);
    browser.run("document.querySelector('.orders button').focus()");
    browser.press("\u{e007}");
    wait_until("it asks again", || browser.run("return document.activeElement.id") == "token");
    browser.press(&format!("{token}\u{e007}"));
    archive.wait_for("it is paused", |status| status["paused"] == true);
    wait_until("the page says so", || {
        browser.run("return document.querySelector('.orders button').textContent") == "Resume"
    });
    run.terminate().0.expect(0);
}
