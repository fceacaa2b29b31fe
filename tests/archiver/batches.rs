//! Batches: handed over in a spool, copied all together or not at all, by a real sshd and stock rsync.

use crate::support::archiver::{Over, Place, Run, Tree};
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What batches call the far end here.
const LINK: &str = "b";

/// A place with a spool, whose archive is where a Librarian stages.
struct Staging<'a> {
    place: &'a Place,
    sshd: Option<&'a Sshd>,
}

impl Staging<'_> {
    fn spool(&self) -> PathBuf {
        self.place.path("spool")
    }

    fn command(&self) -> Command {
        let mut command = self.place.program();
        command.arg("run").arg("--batches").arg(self.spool()).args(["--link", LINK, "--poll", "0.1", "-v"]);
        if let Some(sshd) = self.sshd {
            let to = format!("{}@127.0.0.1", sshd.user());
            command.args(["--storage-host", &to, "--ssh-config", "/dev/null", "--ssh-port", &sshd.port.to_string()]);
            command.arg("--ssh-key").arg(sshd.client_key()).arg("--known-hosts").arg(sshd.known_hosts());
        }
        command
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

    fn make_spool(&self) {
        for part in ["new", "state", "cancel"] {
            fs::create_dir_all(self.spool().join(part)).unwrap();
        }
        fs::set_permissions(self.spool(), fs::Permissions::from_mode(0o700)).unwrap();
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
    let staging = Staging { place: &place, sshd: Some(&sshd) };
    place.source("single file", 100_000, 1);
    book(&place, "book");
    staging.make_spool();
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
    let staging = Staging { place: &place, sshd: None };
    book(&place, "book");
    staging.make_spool();
    staging.hand_over("b1", &[("book", "u/book")]);
    let mut command = staging.command();
    command.arg("--once");
    Run::to_end(command).expect(0);
    assert_eq!(staging.state("b1")["status"], "done");
    expect_same(&place.sources().join("book"), &staging.remote("u/book"));
    let _ = PATIENCE;
}
