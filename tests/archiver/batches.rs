//! Batches: handed over in a spool, copied all together or not at all, by a real sshd and stock rsync.

use crate::outages::Mount;
use crate::support::archiver::{Over, PROGRAM, Place, Run, Stand, Tree, is_temporary};
use crate::support::cutter::Cutter;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether a run has come to some point.
type Moment<'a> = &'a dyn Fn(&Run) -> bool;

/// What batches call the far end here.
const LINK: &str = "b";

/// A place with a spool, whose archive is where a Librarian stages.
#[derive(Clone, Copy)]
struct Staging<'a> {
    place: &'a Place,
    sshd: Option<&'a Sshd>,
    /// What lies between here and the server, if anything.
    port: Option<u16>,
}

impl<'a> Staging<'a> {
    /// With a spool, and that server as the far end.
    fn behind(place: &'a Place, sshd: &'a Sshd) -> Self {
        Self::make(Self { place, sshd: Some(sshd), port: None })
    }

    /// With a spool, and this machine as the far end.
    fn here(place: &'a Place) -> Self {
        Self::make(Self { place, sshd: None, port: None })
    }

    fn make(self) -> Self {
        for part in ["new", "state", "cancel"] {
            fs::create_dir_all(self.spool().join(part)).unwrap();
        }
        fs::set_permissions(self.spool(), fs::Permissions::from_mode(0o700)).unwrap();
        self
    }

    fn spool(&self) -> PathBuf {
        self.place.path("spool")
    }

    fn command(&self) -> Command {
        let mut command = self.place.program();
        command.arg("run").arg("--batches").arg(self.spool()).args(["--link", LINK, "--poll", "0.1", "-v"]);
        if let Some(sshd) = self.sshd {
            let to = format!("{}@127.0.0.1", sshd.user());
            command.args([
                "--storage-host",
                &to,
                "--ssh-config",
                "/dev/null",
                "--ssh-port",
                &self.port.unwrap_or(sshd.port).to_string(),
            ]);
            command.arg("--ssh-key").arg(sshd.client_key()).arg("--known-hosts").arg(self.known_hosts(sshd));
        }
        command
    }

    /// The server's key, at the port that we reach it by.
    fn known_hosts(&self, sshd: &Sshd) -> PathBuf {
        let Some(port) = self.port else { return sshd.known_hosts() };
        let file = self.place.path("known_hosts");
        let key = sshd.known_hosts_line("ed25519");
        fs::write(&file, key.replace(&sshd.port.to_string(), &port.to_string())).unwrap();
        file
    }

    /// Where something goes.
    fn remote(&self, name: &str) -> PathBuf {
        self.place.archive().join(name)
    }

    /// A request of files and directories of the sources, by their names, to places of their own.
    fn request(&self, id: &str, files: &[(&str, &str)]) -> Value {
        let file = |(name, remote): &(&str, &str)| {
            let local = self.place.sources().join(name);
            json!({"local": local, "remote": self.remote(remote), "dir": local.is_dir()})
        };
        let files: Vec<_> = files.iter().map(file).collect();
        json!({"v": 1, "batch": id, "link": LINK, "librarian": "A", "files": files})
    }

    /// Hands a request over as the Librarian's side does.
    fn put(&self, name: &str, text: &str) {
        let new = self.spool().join("new");
        let temporary = new.join(format!(".{name}.tmp"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, new.join(name)).unwrap();
    }

    fn hand_over(&self, id: &str, files: &[(&str, &str)]) {
        self.put(&format!("{id}.json"), &self.request(id, files).to_string());
    }

    fn state(&self, id: &str) -> Value {
        let text = fs::read(self.spool().join(format!("state/{id}.json"))).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or(Value::Null)
    }

    fn wait_for(&self, run: &Run, id: &str, status: &str) -> Value {
        let what = format!("batch {id} is {status}");
        wait_until(&what, || {
            let now = self.state(id);
            let over = ["done", "failed"].iter().any(|end| now["status"] == *end);
            assert!(!over || now["status"] == status, "{now}: {}", run.log());
            now["status"] == status
        });
        self.state(id)
    }

    /// `batch` with these words; exit code and what it said.
    fn batch(&self, words: &[&str]) -> (Option<i32>, String) {
        let mut command = self.place.program();
        command.arg("batch").args(words).arg("--batches").arg(self.spool());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

/// Both trees have the same files, bytes and folders, and nothing else.
fn expect_same(source: &Path, copy: &Path) {
    let (here, there) = (Tree::read(source), Tree::read(copy));
    assert_eq!(here.0.keys().collect::<Vec<_>>(), there.0.keys().collect::<Vec<_>>());
    for (name, _) in here.files() {
        let name = std::str::from_utf8(name).unwrap();
        assert!(fs::read(source.join(name)).unwrap() == fs::read(copy.join(name)).unwrap(), "{name}");
    }
}

/// A book with sub-folders, blanks, letters beyond ASCII, an empty file and an empty folder.
fn book(place: &Place, name: &str) {
    for (at, file) in ["a.dat", "sub/b c.dat", "sub/deep/é ß 日本.npy", "sub/empty", ".hidden"].iter().enumerate() {
        place.source(format!("{name}/{file}"), if *file == "sub/empty" { 0 } else { 3000 }, at as u64);
    }
    fs::create_dir_all(place.sources().join(name).join("nothing here/at all")).unwrap();
}

fn ended_well(over: Over) {
    over.expect(0);
}

#[test]
fn a_batch_is_copied_whole_and_told_to_be_done() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    place.source("single file", 100_000, 1);
    book(&place, "book");
    // The mover is down at the hand-over.
    let request = staging.request("b1", &[("single file", "u1/x y/z"), ("book", "u2/obs/17 é")]);
    fs::write(place.path("request.json"), request.to_string()).unwrap();
    let said = staging.batch(&["add", place.path("request.json").to_str().unwrap()]);
    assert_eq!(said, (Some(0), "Batch b1 is handed over: 2 files for b\n".into()));
    let said = staging.batch(&["status", "b1"]);
    assert_eq!(said, (Some(1), "Batch b1 is handed over, and no run has taken it yet\n".into()));
    let run = Run::start(staging.command());
    let state = staging.wait_for(&run, "b1", "done");
    assert_eq!(
        (&state["v"], &state["files"], &state["done"], &state["bytes"]),
        (&json!(1), &json!(6), &json!(6), &json!(112_000))
    );
    assert_eq!((&state["batch"], &state["error"]), (&json!("b1"), &Value::Null));
    expect_same(&place.sources().join("book"), &staging.remote("u2/obs/17 é"));
    assert!(fs::read(staging.remote("u1/x y/z")).unwrap() == fs::read(place.sources().join("single file")).unwrap());
    assert_eq!(Tree::read(&staging.remote("u1")).names(), ["x y/z"]);
    let (code, said) = staging.batch(&["status", "b1"]);
    assert_eq!((code, said.as_str()), (Some(0), "Batch b1 is done: 6 files, 112.0 kB\n"));
    ended_well(run.terminate().0);
}

#[test]
fn a_run_with_an_end_copies_what_was_handed_over() {
    let place = Place::make();
    let staging = Staging::here(&place);
    book(&place, "book");
    staging.hand_over("b1", &[("book", "u/book")]);
    let mut command = staging.command();
    command.arg("--once");
    Run::to_end(command).expect(0);
    assert_eq!(staging.state("b1")["status"], "done");
    expect_same(&place.sources().join("book"), &staging.remote("u/book"));
}

/// Everything below a folder but those that are only ways to something.
fn names(folder: &Path) -> Vec<String> {
    Tree::read(folder).names()
}

#[test]
fn many_files_of_their_own_places_arrive_together() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    let all: Vec<_> = (0..128).map(|at| (format!("f{at}"), format!("uuid-{at}/obs/{}/name {at}", at % 7))).collect();
    for (at, (name, _)) in all.iter().enumerate() {
        place.source(name, 500 + at as u64, at as u64);
    }
    let files: Vec<_> = all.iter().map(|(name, remote)| (name.as_str(), remote.as_str())).collect();
    staging.hand_over("many", &files);
    let run = Run::start(staging.command());
    let state = staging.wait_for(&run, "many", "done");
    assert_eq!((&state["files"], &state["done"]), (&json!(128), &json!(128)));
    assert_eq!(names(&place.archive()).len(), 128, "no file beside them");
    for (name, remote) in &files {
        assert!(fs::read(place.sources().join(name)).unwrap() == fs::read(staging.remote(remote)).unwrap(), "{name}");
    }
    // The same batch again is none: its request goes, and nothing is copied.
    staging.hand_over("many", &files);
    wait_until("the request goes", || !staging.spool().join("new/many.json").exists());
    let log = run.terminate().0.expect(0).log;
    assert_eq!(log.matches("Copied and proven").count(), 128, "{log}");
    assert_eq!(staging.state("many"), state);
}

#[test]
fn a_batch_survives_the_mover_at_any_moment() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    book(&place, "book");
    for at in 0..40 {
        place.source(format!("book/many/{at}"), 200_000, at);
    }
    staging.hand_over("b1", &[("book", "u/book")]);
    let start = || {
        let mut command = staging.command();
        command.args(["--bwlimit", "4M", "--workers", "1", "--queue", "8"]);
        Run::start(command)
    };
    let state_is_there = || staging.state("b1") != Value::Null;
    let copied = |run: &Run| run.log().matches("Copied and proven").count();
    let moments: [(&str, Moment<'_>); 5] = [
        ("it is taken", &|run| run.log().contains("Batch b1 is taken")),
        ("its state is told", &|_| state_is_there()),
        ("something is on its way", &|_| Tree::read(&place.archive()).files().next().is_some()),
        ("some are proven", &|run| copied(run) > 5),
        ("more are proven", &|run| copied(run) > 5),
    ];
    let mut proven = 0;
    for (what, moment) in moments {
        let run = start();
        wait_until(what, || moment(&run));
        let log = run.kill().log;
        proven += log.matches("Copied and proven").count();
        assert_ne!(staging.state("b1")["status"], "done", "{what} came too late: {log}");
    }
    // The state is made anew of what the mover remembers.
    fs::remove_file(staging.spool().join("state/b1.json")).unwrap();
    let run = start();
    staging.wait_for(&run, "b1", "done");
    let log = run.terminate().0.expect(0).log;
    proven += log.matches("Copied and proven").count();
    expect_same(&place.sources().join("book"), &staging.remote("u/book"));
    // A proof that was not recorded is given again; a file is recorded once.
    assert!((45..=45 + 5 * 8).contains(&proven), "{proven}");
    fs::remove_file(staging.spool().join("state/b1.json")).unwrap();
    let run = Run::start(staging.command());
    staging.wait_for(&run, "b1", "done");
    assert_eq!(copied(&run), 0);
}

#[test]
fn a_link_that_breaks_time_and_again_holds_a_batch_up_and_no_more() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let cutter = Cutter::start(sshd.port, 3 << 20);
    let staging = Staging { port: Some(cutter.port), ..Staging::behind(&place, &sshd) };
    for at in 0..4 {
        place.source(format!("book/large{at}"), 4 << 20, at);
    }
    staging.hand_over("b1", &[("book", "u/book")]);
    let mut command = staging.command();
    command.args(["--workers", "1"]);
    let run = Run::start(command);
    staging.wait_for(&run, "b1", "done");
    assert!(cutter.cuts() > 2, "{}", cutter.cuts());
    expect_same(&place.sources().join("book"), &staging.remote("u/book"));
}

#[test]
fn a_far_end_that_is_away_is_waited_for_with_the_reason() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    book(&place, "book");
    sshd.kill();
    staging.hand_over("b1", &[("book", "u/book")]);
    let run = Run::start(staging.command());
    wait_until("the reason is told", || staging.state("b1")["error"].is_string());
    let state = staging.state("b1");
    assert!(state["status"] == "running" && state["error"].as_str().unwrap().contains("Cannot reach"), "{state}");
    let (code, said) = staging.batch(&["list"]);
    assert!(code == Some(0) && said.contains("b1") && said.contains("Cannot reach"), "{said}");
    sshd.restart();
    let state = staging.wait_for(&run, "b1", "done");
    assert_eq!(state["error"], Value::Null);
}

#[test]
fn a_link_that_is_dead_holds_up_no_other() {
    let place = Place::make();
    let staging = Staging::here(&place);
    place.source("a", 1000, 1);
    staging.hand_over("alive", &[("a", "u1/a")]);
    let mut other = staging.request("dead", &[("a", "u2/a")]);
    other["link"] = json!("nowhere");
    staging.put("dead.json", &other.to_string());
    let file = format!(
        "batches = {:?}\npoll = 0.1\n[[target]]\nname = \"here\"\nlink = {LINK:?}\n[[target]]\nname = \"there\"\nlink = \"nowhere\"\n\
         storage-host = \"nobody@127.0.0.1\"\nssh-port = 1\nssh-config = \"/dev/null\"\nconnect-timeout = 2\n",
        staging.spool()
    );
    fs::write(place.path("config.toml"), file).unwrap();
    let mut command = place.program();
    command.arg("run").arg("--config").arg(place.path("config.toml"));
    let run = Run::start(command);
    staging.wait_for(&run, "alive", "done");
    wait_until("the other waits", || staging.state("dead")["error"].is_string());
    assert_eq!(staging.state("dead")["status"], "running");
    assert_eq!(names(&place.archive()), ["u1/a"]);
}

#[test]
fn a_batch_of_another_link_is_left() {
    let place = Place::make();
    let staging = Staging::here(&place);
    place.source("a", 1000, 1);
    let mut other = staging.request("other", &[("a", "u2/a")]);
    other["link"] = json!("elsewhere");
    staging.put("other.json", &other.to_string());
    staging.hand_over("own", &[("a", "u1/a")]);
    let mut command = staging.command();
    command.arg("--once");
    Run::to_end(command).expect(0);
    assert_eq!((&staging.state("own")["status"], staging.state("other")), (&json!("done"), Value::Null));
    assert!(staging.spool().join("new/other.json").exists());
}

#[test]
fn what_changes_while_it_is_sent_fails_the_batch_and_leaves_nothing() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    place.source("book/first", 30_000, 1);
    let (large, _) = place.source("book/large", 8 << 20, 2);
    staging.hand_over("b1", &[("book", "u/book")]);
    fs::create_dir_all(staging.remote("u")).unwrap();
    fs::write(staging.remote("u/another's"), "stays").unwrap();
    let mut command = staging.command();
    command.args(["--bwlimit", "2M", "--workers", "1", "--max-copy-attempts", "2"]);
    let run = Run::start(command);
    wait_until("it is on its way", || Tree::read(&place.archive()).files().any(|(name, _)| is_temporary(name)));
    let mut bytes = fs::read(&large).unwrap();
    bytes[6 << 20..].reverse();
    fs::write(&large, &bytes).unwrap();
    let state = staging.wait_for(&run, "b1", "failed");
    let why = state["error"].as_str().unwrap();
    assert!(why.contains("book/large") && why.contains("has changed"), "{why}");
    assert_eq!(Tree::read(&place.archive()).0.keys().collect::<Vec<_>>(), [&b"u/"[..], b"u/another's"]);
    let (code, said) = staging.batch(&["status", "b1"]);
    assert!(code == Some(1) && said.starts_with("Batch b1 failed: ") && said.contains("has changed"), "{said}");
}

#[test]
fn a_source_that_is_gone_fails_the_batch() {
    let place = Place::make();
    let staging = Staging::here(&place);
    place.source("there", 1000, 1);
    staging.hand_over("b1", &[("there", "u/there"), ("gone", "u/gone")]);
    let mut command = staging.command();
    command.args(["--max-copy-attempts", "2"]);
    let run = Run::start(command);
    let state = staging.wait_for(&run, "b1", "failed");
    assert!(state["error"].as_str().unwrap().contains("gone cannot be read: No such file"), "{state}");
    assert_eq!(names(&place.archive()), [""; 0]);
}

#[test]
fn a_file_that_goes_after_it_was_read_fails_the_batch() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    place.source("a large one", 3 << 20, 1);
    let (later, _) = place.source("later", 1000, 2);
    staging.hand_over("b1", &[("a large one", "u/a"), ("later", "u/b")]);
    let mut command = staging.command();
    command.args(["--bwlimit", "1M", "--workers", "1", "--queue", "1", "--max-copy-attempts", "2"]);
    let run = Run::start(command);
    wait_until("all is read, and one on its way", || {
        staging.state("b1")["files"] == 2 && Tree::read(&place.archive()).files().next().is_some()
    });
    fs::remove_file(later).unwrap();
    let state = staging.wait_for(&run, "b1", "failed");
    assert!(state["error"].as_str().unwrap().contains("later"), "{state}");
    assert_eq!(names(&place.archive()), [""; 0]);
}

#[test]
fn a_cancelled_batch_goes_with_what_it_wrote_and_nothing_beside() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    book(&place, "book");
    place.source("small", 1000, 7);
    place.source("zlarge", 32 << 20, 8);
    place.source("same", 1000, 9);
    for (name, text) in
        [("u/zlarge.2", "another's"), ("u/.zlarge.backup", "another's"), ("u/.zlarge.1234567", "another's")]
    {
        fs::create_dir_all(staging.remote("u")).unwrap();
        fs::write(staging.remote(name), text).unwrap();
    }
    fs::copy(place.sources().join("same"), staging.remote("u/same")).unwrap();
    let files = [("book", "t/book"), ("small", "u/small"), ("same", "u/same"), ("zlarge", "u/zlarge")];
    staging.hand_over("b1", &files);
    let mut command = staging.command();
    command.args(["--bwlimit", "4M", "--workers", "1"]);
    let run = Run::start(command);
    wait_until("the large one is on its way", || {
        Tree::read(&place.archive()).files().any(|(name, stand)| name.starts_with(b"u/.zlarge.") && stand.len > 1 << 20)
    });
    let (code, said) = staging.batch(&["cancel", "b1"]);
    assert_eq!((code, said.as_str()), (Some(0), "Batch b1 will be cancelled by the run that copies it\n"));
    let state = staging.wait_for(&run, "b1", "failed");
    assert_eq!(state["error"], "it was cancelled");
    let left = ["u/.zlarge.1234567", "u/.zlarge.backup", "u/same", "u/zlarge.2"];
    assert_eq!(names(&place.archive()), left);
    assert_eq!(Tree::read(&place.archive()).0.len(), 6, "and no folder but the way there");
    let (code, said) = staging.batch(&["cancel", "b1"]);
    assert!(code == Some(1) && said.contains("it is over, and nothing is cancelled"), "{said}");
    // The mover goes on with others at once.
    staging.hand_over("b2", &[("small", "u/small")]);
    staging.wait_for(&run, "b2", "done");
    let log = run.terminate().0.expect(0).log;
    assert!(!log.contains("trying again"), "to break it off is no trouble of the link: {log}");
}

#[test]
fn a_batch_that_nobody_has_taken_is_cancelled_before_anything_is_written() {
    let place = Place::make();
    let staging = Staging::here(&place);
    book(&place, "book");
    staging.hand_over("b1", &[("book", "u/book")]);
    assert_eq!(staging.batch(&["cancel", "b1"]).0, Some(0));
    assert_eq!(staging.batch(&["cancel", "b2"]).0, Some(2));
    let mut command = staging.command();
    command.arg("--once");
    Run::to_end(command).expect(1);
    assert_eq!(
        (&staging.state("b1")["status"], &staging.state("b1")["error"]),
        (&json!("failed"), &json!("it was cancelled"))
    );
    assert_eq!(names(&place.archive()), [""; 0]);
}

#[test]
fn what_stands_there_already_is_neither_written_over_nor_removed() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    book(&place, "book");
    place.source("file", 1000, 1);
    place.source("other", 1000, 2);
    for (name, text) in [("u/file", "another's"), ("v/book/x", "another's")] {
        fs::create_dir_all(staging.remote(name).parent().unwrap()).unwrap();
        fs::write(staging.remote(name), text).unwrap();
    }
    staging.hand_over("file", &[("other", "u/other"), ("file", "u/file")]);
    staging.hand_over("book", &[("other", "v/other"), ("book", "v/book")]);
    let mut command = staging.command();
    command.args(["--max-copy-attempts", "2"]);
    let run = Run::start(command);
    let why = staging.wait_for(&run, "file", "failed")["error"].as_str().unwrap().to_owned();
    assert!(why.contains("sources/file") && why.contains("something else stands at its place"), "{why}");
    let why = staging.wait_for(&run, "book", "failed")["error"].as_str().unwrap().to_owned();
    assert!(why.contains("v/book already"), "{why}");
    assert_eq!(names(&place.archive()), ["u/file", "v/book/x"]);
    assert_eq!(fs::read(staging.remote("u/file")).unwrap(), b"another's");
}

#[test]
fn what_cannot_be_taken_is_told_to_have_failed() {
    let place = Place::make();
    let staging = Staging::here(&place);
    place.source("a", 1000, 1);
    let good = staging.request("good", &[("a", "u/a")]);
    let with = |field: &str, value: Value| {
        let mut request = good.clone();
        request[field] = value;
        request.to_string()
    };
    staging.put("no-json.json", "{");
    staging.put("version.json", &with("v", json!(2)));
    staging.put("another-name.json", &good.to_string());
    staging.put("no-files.json", &with("files", json!([])));
    staging.put("up.json", &with("files", json!([{"local": "/a", "remote": "/x/../y", "dir": false}])));
    staging.put("a b.json", &good.to_string());
    let new = staging.spool().join("new");
    fs::create_dir(new.join("0.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", new.join("1.json")).unwrap();
    staging.put(&format!("{}.json", "\n".repeat(200)), &good.to_string());
    let run = Run::start(staging.command());
    for (id, why) in [
        ("no-json", "no JSON"),
        ("version", "version 2"),
        ("another-name", "the file is called another-name.json"),
        ("no-files", "0 entries"),
        ("up", "component . or .."),
        ("a b", "names no batch"),
        ("0", "no regular file"),
        ("1", "it is a link"),
        (&"\\#012".repeat(40), "names no batch"),
    ] {
        let state = staging.wait_for(&run, id, "failed");
        assert!(state["error"].as_str().unwrap().contains(why), "{id}: {state}");
    }
    // Whoever asks by the verb is told at once.
    fs::write(place.path("bad.json"), with("v", json!(2))).unwrap();
    let (code, said) = staging.batch(&["add", place.path("bad.json").to_str().unwrap()]);
    assert!(code == Some(2) && said.contains("version 2"), "{said}");
    staging.hand_over("good", &[("a", "u/a")]);
    staging.wait_for(&run, "good", "done");
    assert_eq!(fs::read_dir(new).unwrap().count(), 1, "what is no file stays, and is in nobody's way");
    let (code, said) = staging.batch(&["list", "--json"]);
    assert_eq!((code, said.lines().count()), (Some(0), 8), "{said}");
    fs::set_permissions(staging.spool(), fs::Permissions::from_mode(0o755)).unwrap();
    let (code, said) = staging.batch(&["list"]);
    assert!(code == Some(2) && said.contains("chmod 700"), "{said}");
    assert!(Run::to_end(staging.command()).expect(2).log.contains("chmod 700"));
}

#[test]
fn a_batch_that_is_too_old_has_failed() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    place.source("a", 1000, 1);
    sshd.kill();
    staging.hand_over("b1", &[("a", "u/a")]);
    let mut command = staging.command();
    command.args(["--batch-deadline", "1"]);
    let run = Run::start(command);
    let state = staging.wait_for(&run, "b1", "failed");
    let why = state["error"].as_str().unwrap();
    assert_eq!(why, "it was not done within 1 s (--batch-deadline)");
}

#[test]
fn a_far_end_with_files_alone_takes_batches_and_is_cleaned_up() {
    let Some(sshd) = Sshd::start("Subsystem sftp internal-sftp\nForceCommand internal-sftp") else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    book(&place, "book");
    place.source("gone", 1000, 1);
    staging.hand_over("b1", &[("book", "u1/book")]);
    let mut command = staging.command();
    command.args(["--max-copy-attempts", "2"]);
    let run = Run::start(command);
    staging.wait_for(&run, "b1", "done");
    expect_same(&place.sources().join("book"), &staging.remote("u1/book"));
    fs::write(place.sources().join("book/bad"), "x").unwrap();
    let request = staging.request("b2", &[("book", "u2/book"), ("gone", "u2/gone")]);
    fs::remove_file(place.sources().join("gone")).unwrap();
    staging.put("b2.json", &request.to_string());
    staging.wait_for(&run, "b2", "failed");
    assert_eq!(names(&staging.remote("u2")), [""; 0]);
    assert!(!staging.remote("u2/book").exists());
}

#[test]
fn a_librarians_manifest_is_queued_and_mended() {
    let place = Place::make();
    let staging = Staging::here(&place);
    book(&place, "store/obs/book 1");
    place.source("store/obs/file.npy", 1000, 1);
    let entry = |name: &str| {
        json!({"name": name, "create_time": "2026-01-31T22:00:00.123456Z", "size": 1000, "checksum": "xxh3:::00", "uploader": "admin", "source": "cryo",
            "instance_path": place.sources().join("store").join(name), "deletion_policy": "DISALLOWED", "instance_available": true, "outgoing_transfer_id": 17})
    };
    let manifest = json!({"librarian_name": "librarian-a", "store_name": "clone", "store_files": [entry("obs/book 1"), entry("obs/file.npy")]});
    let path = place.path("day.json");
    fs::write(&path, manifest.to_string()).unwrap();
    let to = staging.remote("in/day");
    let words =
        ["from-manifest", path.to_str().unwrap(), "--link", LINK, "--to", to.to_str().unwrap(), "--name", "day"];
    let (code, said) = staging.batch(&words);
    assert!(code == Some(0) && said.contains("day.mended.json --store-root "), "{said}");
    let mended: Value = serde_json::from_slice(&fs::read(place.path("day.mended.json")).unwrap()).unwrap();
    let mut expected = manifest.clone();
    (0..2).for_each(|at| expected["store_files"][at]["source"] = json!("librarian-a"));
    assert_eq!(mended, expected);
    let mut command = staging.command();
    command.arg("--once");
    Run::to_end(command).expect(0);
    expect_same(&place.sources().join("store"), &to);
    assert!(staging.batch(&words).1.contains("nothing was handed over again"));
    fs::write(&path, "{\"store_files\": []}").unwrap();
    assert_eq!(staging.batch(&words).0, Some(2));
}

#[test]
fn a_full_disk_is_waited_for_with_the_reason() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    let Some(full) = Mount::new(&place, "full", "size=4m") else { return };
    fs::write(full.0.join("filler"), vec![1; 3 << 20]).unwrap();
    place.source("book/large", 2 << 20, 1);
    place.source("book/small", 10, 2);
    let mut request = staging.request("b1", &[("book", "")]);
    request["files"][0]["remote"] = json!(full.0.join("u/book"));
    staging.put("b1.json", &request.to_string());
    let run = Run::start(staging.command());
    let error = || staging.state("b1")["error"].as_str().unwrap_or_default().to_owned();
    wait_until("the reason is told", || error().contains("No space left on device"));
    assert_eq!(staging.state("b1")["status"], "running");
    fs::remove_file(full.0.join("filler")).unwrap();
    staging.wait_for(&run, "b1", "done");
    expect_same(&place.sources().join("book"), &full.0.join("u/book"));
}

#[test]
fn what_is_removed_under_a_batch_is_brought_again() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    for at in 0..30 {
        place.source(format!("book/{at}"), 100_000, at);
    }
    staging.hand_over("b1", &[("book", "u/book")]);
    let mut command = staging.command();
    command.args(["--bwlimit", "2M", "--workers", "1", "--queue", "4"]);
    let run = Run::start(command);
    wait_until("some are there", || staging.state("b1")["done"].as_u64() > Some(4));
    fs::rename(staging.remote("u"), place.path("taken away")).unwrap();
    let state = staging.wait_for(&run, "b1", "done");
    assert_eq!(state["done"], 30);
    expect_same(&place.sources().join("book"), &staging.remote("u/book"));
}

#[test]
fn what_cannot_be_removed_at_once_is_removed_once_the_far_end_is_back() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    book(&place, "book");
    place.source("large", 32 << 20, 1);
    staging.hand_over("b1", &[("book", "t/book"), ("large", "u/large")]);
    let mut command = staging.command();
    command.args(["--bwlimit", "4M", "--workers", "1"]);
    let run = Run::start(command);
    let is_large = |stand: &Stand| stand.len > 1 << 20;
    wait_until("it is on its way", || Tree::read(&place.archive()).files().any(|(_, stand)| is_large(stand)));
    sshd.kill();
    assert_eq!(staging.batch(&["cancel", "b1"]).0, Some(0));
    let state = staging.wait_for(&run, "b1", "failed");
    let why = state["error"].as_str().unwrap();
    assert!(why.starts_with("it was cancelled; what it has written is not removed yet: "), "{why}");
    drop(run.kill());
    sshd.restart();
    let run = Run::start(staging.command());
    wait_until("it is removed", || names(&place.archive()).is_empty());
    assert_eq!(staging.state("b1")["status"], "failed");
    drop(run.terminate());
}

#[test]
fn a_batch_that_is_cancelled_before_it_was_looked_at_removes_nothing() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    place.source("file", 1000, 1);
    fs::create_dir_all(staging.remote("u")).unwrap();
    fs::write(staging.remote("u/file"), "another's").unwrap();
    sshd.kill();
    staging.hand_over("b1", &[("file", "u/file")]);
    let run = Run::start(staging.command());
    wait_until("it is taken", || staging.state("b1")["error"].is_string());
    assert_eq!(staging.batch(&["cancel", "b1"]).0, Some(0));
    staging.wait_for(&run, "b1", "failed");
    sshd.restart();
    place.source("other", 10, 2);
    staging.hand_over("b2", &[("other", "u/other")]);
    staging.wait_for(&run, "b2", "done");
    assert_eq!(names(&place.archive()), ["u/file", "u/other"]);
}

#[test]
fn a_key_that_may_only_archive_takes_batches_and_it_is_told_what_it_cannot_do() {
    let Some(sshd) = Sshd::start("Subsystem sftp internal-sftp") else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    let mut command = place.program();
    command.args(["authorize", "--program", PROGRAM, "--data-dir"]).arg(place.archive());
    let line = command.arg("--ssh-key").arg(sshd.client_key()).output().unwrap();
    assert!(line.status.success(), "{line:?}");
    fs::write(sshd.path("authorized_keys"), &line.stdout).unwrap();
    place.source("book/a", 1000, 1);
    place.source("book/sub/b", 1000, 2);
    place.source("other", 1000, 3);
    staging.hand_over("b1", &[("book", "u1/book")]);
    let mut command = staging.command();
    command.arg("--data-dir").arg(place.archive()).args(["--max-copy-attempts", "2"]);
    let run = Run::start(command);
    staging.wait_for(&run, "b1", "done");
    expect_same(&place.sources().join("book"), &staging.remote("u1/book"));
    fs::create_dir_all(staging.remote("u2")).unwrap();
    fs::write(staging.remote("u2/other"), "another's").unwrap();
    staging.hand_over("b2", &[("book", "u2/book"), ("other", "u2/other")]);
    let why = staging.wait_for(&run, "b2", "failed")["error"].as_str().unwrap().to_owned();
    assert!(why.contains("something else stands") && why.contains("is not removed: the account at"), "{why}");
    // What lies elsewhere is not for this run.
    let mut request = staging.request("b3", &[("other", "u3/other")]);
    request["files"][0]["remote"] = json!("/elsewhere/other");
    staging.put("b3.json", &request.to_string());
    let why = staging.wait_for(&run, "b3", "failed")["error"].as_str().unwrap().to_owned();
    assert!(why.contains("is not beneath --data-dir"), "{why}");
    let log = run.terminate().0.expect(0).log;
    assert!(log.contains("Empty folders are not made: the account at"), "{log}");
}

#[test]
fn a_batch_that_cannot_be_cleaned_up_keeps_no_other_from_its_end() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let staging = Staging::behind(&place, &sshd);
    let Some(stuck) = Mount::new(&place, "stuck", "size=1m") else { return };
    place.source("book/a", 1000, 1);
    place.source("book/b", 1000, 2);
    // Where something is mounted nothing can be removed.
    let mut request = staging.request("b1", &[("book", "")]);
    request["files"][0]["remote"] = json!(stuck.0);
    request["files"].as_array_mut().unwrap().push(json!({"local": "/nowhere/a", "remote": "/nowhere/a", "dir": false}));
    staging.put("b1.json", &request.to_string());
    let run = Run::start(staging.command());
    wait_until("it waits for a folder that is away", || staging.state("b1")["error"].is_string());
    assert_eq!(staging.batch(&["cancel", "b1"]).0, Some(0));
    let why = staging.wait_for(&run, "b1", "failed")["error"].as_str().unwrap().to_owned();
    assert!(why.contains("not removed yet") && why.contains("busy"), "{why}");
    staging.hand_over("b2", &[("book", "u/book")]);
    staging.wait_for(&run, "b2", "done");
}
