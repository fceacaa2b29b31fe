//! Whatever breaks between the ends counts against no file.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, Tree, kill_connections, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::noise::noise;
use crate::support::sshd::{Sshd, keygen};
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, FOLDER, Row, TARGET, Table, expect_all_proven, small_files};
use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;

#[test]
fn servers_come_and_go() {
    come_and_go("comes_and_goes", Place::run_to);
}

#[test]
fn servers_come_and_go_while_pulling() {
    come_and_go("pulled_come_and_go", |place, sshd| place.from(sshd).command());
}

fn come_and_go(name: &str, far_end: fn(&Place, &Sshd) -> Command) {
    let (Some(server), Some(sshd), true) = (MariaDb::start(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(&server, name, Age::V1);
    let mut rows = Vec::new();
    for n in 0..6 {
        rows.extend(small_files(&place, n * 100..n * 100 + 100));
        rows.push(Row::new(place.source(format!("large{n}"), 40 << 20, n)));
    }
    table.insert(&rows);
    let mut command = far_end(&place, &sshd);
    // In small portions, so that there is always something left to break.
    command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.2", "--queue", "20", "-v"]);
    let run = Run::start(command);
    let lines = |words: &str| run.log().lines().filter(|line| line.contains(words)).count();
    let copied = || lines("Copied and proven");
    let mut steps = 0;
    let mut after = |what: &str, more: usize| {
        steps += more;
        wait_until(&format!("{steps} files, before {what}: {}", run.log()), || copied() >= steps);
    };
    after("connections die", 30);
    kill_connections(&sshd);
    after("they die in a large file", 80);
    wait_until("a large file on its way", || place.tree().temporary().iter().any(|(_, stand)| stand.len > 1 << 20));
    kill_connections(&sshd);
    after("sshd dies", 40);
    sshd.kill();
    wait_until("it is noticed that sshd is gone", || lines("Cannot reach") > 0);
    sshd.restart();
    after("the database dies", 60);
    server.crash(0.0);
    after("the database stays away", 60);
    server.crash(3.0);
    wait_until("it is noticed that the database is gone", || {
        lines("Cannot record") > 0 || lines("Database mysql:") > 0
    });
    server.wait_until_up();
    after("both die", 40);
    sshd.signal("KILL");
    server.crash(0.5);
    // This server forgets the last second when it crashes, as many are set up to do: what was recorded must be recorded
    // again.
    server.wait_until_up();
    wait_until("all rows", || table.copied() == rows.len());
    let (over, took) = run.terminate();
    let over = over.expect(0);
    let (files, seconds) = (rows.len(), over.seconds);
    eprintln!("{files} files through seven outages in {seconds:.1} s, {} KiB; stopped after {took:?}", over.peak_kib);
    server.wait_until_up();
    wait_until("the far end's processes are gone", || sshd.sessions().is_empty());
    forget_temporary(&place);
    expect_all_proven(&place, &table, &rows);
}

/// Takes away what receivers left that were killed themselves: unfinished files under names of their own.
fn forget_temporary(place: &Place) {
    for (name, _) in place.tree().temporary() {
        fs::remove_file(place.archive().join(String::from_utf8_lossy(name).as_ref())).unwrap();
    }
}

/// A frozen far end is no reason to wait for ever.
#[test]
fn a_far_end_that_freezes_is_left() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "freezes", Age::V1);
    let rows = vec![Row::new(place.source("large", 60 << 20, 1))];
    table.insert(&rows);
    let mut command = place.run_to(&sshd);
    command.args(["--once", "--db", &table.url, "--target", TARGET, "--stall-timeout", "2"]);
    let run = Run::start(command);
    wait_until("a file on its way", || place.tree().temporary().iter().any(|(_, stand)| stand.len > 1 << 20));
    let frozen = sshd.sessions();
    sshd.signal("STOP");
    run.wait(PATIENCE).expect(0);
    let _ = Command::new("kill").arg("-KILL").args(frozen.iter().map(u32::to_string)).status();
    forget_temporary(&place);
    expect_all_proven(&place, &table, &rows);
}

/// A way to `port` on which each connection falls silent once it has carried so much that way.
fn falling_silent(port: u16, after: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (mut back, mut home) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut back, &mut home));
            let (mut near, mut far) = (near, far);
            std::thread::spawn(move || {
                let (mut bytes, mut carried) = ([0; 16384], 0);
                while let Ok(n @ 1..) = near.read(&mut bytes) {
                    carried += n;
                    if carried <= after && far.write_all(&bytes[..n]).is_err() {
                        break;
                    }
                }
                let _ = far.shutdown(Shutdown::Both);
            });
        }
    });
    ours
}

/// A link on which nothing moves any more, and which does not break, is in trouble; the files on it are not.
#[test]
fn a_link_that_falls_silent_counts_against_no_file() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    for (name, once) in [("silent", false), ("silent_once", true)] {
        let place = Place::make();
        let table = Table::new(server, name, Age::V1);
        // Nothing of them can be had from elsewhere in them: none comes whole meanwhile.
        let source = |n| {
            let path = place.sources().join(format!("f{n}"));
            fs::write(&path, noise(4 << 20, n)).unwrap();
            let md5 = md5_of(&path);
            Row::new((path, md5))
        };
        let rows: Vec<_> = (0..3).map(source).collect();
        table.insert(&rows);
        let far = FarEnd { port: falling_silent(sshd.port, 300_000), ..place.behind(&sshd) };
        let key = fs::read_to_string(&far.known_hosts).unwrap();
        fs::write(&far.known_hosts, key.replace(&sshd.port.to_string(), &far.port.to_string())).unwrap();
        let mut command = far.command();
        command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.1", "--stall-timeout", "1"]);
        let told = |log: &str| log.lines().filter(|line| line.contains("Link stalled")).count();
        let log = if once {
            command.arg("--once");
            Run::to_end(command).expect(1).log
        } else {
            let run = Run::start(command);
            wait_until("it is told again and again", || told(&run.log()) >= 4);
            run.terminate().0.expect(0).log
        };
        assert!(told(&log) >= 4 && !log.contains("Not copied"), "{log}");
        assert!(table.rows().iter().all(|row| (row.copied, row.attempts) == (0, Some(0))), "{log}");
    }
}

/// A small file system of its own; unmounted when dropped.
pub(crate) struct Mount(pub(crate) std::path::PathBuf);

impl Mount {
    pub(crate) fn new(place: &Place, name: &str, options: &str) -> Option<Self> {
        let folder = place.path(name);
        fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&folder).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        assert!(std::env::var_os("CI").is_none(), "Cannot mount a tmpfs; run the tests as root");
        eprintln!("SKIPPED: cannot mount a tmpfs; run as root");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn trouble_of_the_far_end_is_no_files_fault() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let rows = vec![
        Row::new(place.source("a", 3000, 1)),
        Row::new(place.source("b", 3 << 20, 2)),
        Row::new(place.source("c", 1000, 3)),
    ];
    // A table to each case: one archiver works on a target at a time.
    let tables = RefCell::new(Vec::new());
    let at = |change: &dyn Fn(&mut FarEnd<'_>)| {
        let table = Table::new(server, &format!("far_end_{}", tables.borrow().len()), Age::V1);
        table.insert(&rows);
        let before = table.rows();
        let mut far_end = place.behind(&sshd);
        change(&mut far_end);
        let mut command = far_end.command();
        command.args(["--once", "--db", &table.url, "--target", TARGET]);
        tables.borrow_mut().push((table, before));
        command
    };
    let wrong_host = place.path("wrong_known_hosts");
    fs::write(&wrong_host, format!("[127.0.0.1]:{} {}", sshd.port, fs::read_to_string(sshd.path("id.pub")).unwrap()))
        .unwrap();
    let nobody = place.path("no_known_hosts");
    fs::write(&nobody, "").unwrap();
    let stranger = place.path("stranger");
    keygen(&stranger, "ed25519");
    let blocked = place.path("blocked");
    fs::write(&blocked, "a file").unwrap();
    let noise = place.script("noise", "echo Welcome to the storage node; exec rsync \"$@\"");
    let broken = place.script("broken", "echo out of order >&2; exit 14");
    let (Some(full), Some(fixed)) = (Mount::new(&place, "full", "size=1m"), Mount::new(&place, "fixed", "ro")) else {
        return;
    };
    let cases = [
        ("host key", at(&|far| far.known_hosts = wrong_host.clone()), "Host key of"),
        ("unknown host", at(&|far| far.known_hosts = nobody.clone()), "Host key of"),
        ("user key", at(&|far| far.key = stranger.clone()), "Authentication as"),
        ("user", at(&|far| far.user = "no-such-user".into()), "Authentication as no-such-user"),
        ("no rsync", at(&|far| far.rsync_path = "/nonexistent".into()), "no such program"),
        ("noise", at(&|far| far.rsync_path = noise.clone()), "Welcome"),
        ("broken program", at(&|far| far.rsync_path = broken.clone()), "out of order"),
        ("nobody listens", at(&|far| far.port = 1), "Cannot reach 127.0.0.1:1"),
        ("no parent", at(&|far| far.data_dir = place.path("not/there")), "is not there"),
        ("a file", at(&|far| far.data_dir = blocked.clone()), "is not there"),
        ("below a file", at(&|far| far.data_dir = blocked.join("x")), "is not there"),
        ("read-only", at(&|far| far.data_dir = fixed.0.clone()), "ead-only"),
        ("full", at(&|far| far.data_dir = full.0.clone()), "No space left on device"),
    ];
    let runs: Vec<_> = cases.into_iter().map(|(what, command, words)| (what, Run::start(command), words)).collect();
    let mut wrong = Vec::new();
    for (what, run, words) in runs {
        let over = run.wait(PATIENCE);
        let last = over.log.lines().last().unwrap_or_default();
        eprintln!("{what}: {:.1} s: {last}", over.seconds);
        let unsound = ["panicked", "Not copied"].iter().any(|words| over.log.contains(words));
        if over.status.code() != Some(1) || !last.contains(words) || unsound {
            wrong.push(format!("{what}: {}, {}", over.status, over.log));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The one that fits onto the small file system is there; nothing is counted against the others.
    for (table, before) in tables.into_inner() {
        let after = table.rows();
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.attempts, Some(0), "{after:?}");
            let path = format!("{}/{FOLDER}", full.0.display()).into_bytes();
            assert!(after == before || after.copied == 1 && after.path.starts_with(&path), "{after:?}");
        }
        assert_eq!(after[1], before[1], "it cannot fit");
    }
    let left: Vec<_> =
        Tree::read(&full.0).temporary().iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(place.tree().files().count(), 0);
}

/// Something may be to be mounted there, or it is mistyped.
#[test]
fn an_archive_that_is_not_there_is_waited_for_and_not_made() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    for name in ["here", "stock", "ours"] {
        let place = Place::make();
        fs::remove_dir(place.archive()).unwrap();
        let table = Table::new(server, &format!("no_archive_{name}"), Age::V1);
        // One alone, which rsync takes for a name, and several.
        let rows = small_files(&place, 0..3);
        table.insert(&rows[..1]);
        let mut command = match name {
            "here" => place.run(),
            "stock" => place.run_to(&sshd),
            _ => FarEnd { rsync_path: PROGRAM.into(), ..place.behind(&sshd) }.command(),
        };
        command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.2", "--workers", "1"]);
        let run = Run::start(command);
        let told = || run.log().matches("is not there").count();
        wait_until("it is told", || told() > 0);
        table.insert(&rows[1..]);
        let before = told();
        wait_until("it is told again", || told() > before + 1);
        assert!(!place.archive().exists(), "{name}: {}", run.log());
        fs::create_dir(place.archive()).unwrap();
        wait_until("all rows", || table.copied() == rows.len());
        expect_all_proven(&place, &table, &rows);
        run.terminate().0.expect(0);
    }
}
