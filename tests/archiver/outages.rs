//! Whatever breaks between the ends counts against no file.

use crate::support::archiver::{PATIENCE, Place, Run, wait_until};
use crate::support::mariadb::MariaDb;
use crate::support::require;
use crate::support::sshd::Sshd;
use crate::tables::{Age, FOLDER, Row, TARGET, Table, expect_all_proven, small_files};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

#[test]
fn servers_come_and_go() {
    let (Some(server), Some(sshd), true) = (MariaDb::start(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::new();
    let table = Table::new(&server, "comes_and_goes", Age::V1);
    let mut rows = Vec::new();
    for n in 0..6 {
        rows.extend(small_files(&place, n * 100..n * 100 + 100));
        rows.push(Row::new(place.source(format!("large{n}"), 40 << 20, n)));
    }
    table.insert(&rows);
    let mut command = place.run_to(&sshd);
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
    sshd.kill_sessions();
    after("they die in a large file", 80);
    wait_until("a large file on its way", || place.tree().temporary().iter().any(|(_, stand)| stand.len > 1 << 20));
    sshd.kill_sessions();
    after("sshd dies", 40);
    sshd.kill();
    wait_until("it is noticed", || lines("Cannot reach") > 0);
    sshd.restart();
    after("the database dies", 60);
    server.crash(0.0);
    after("the database stays away", 60);
    server.crash(3.0);
    wait_until("it is noticed", || lines("Cannot record") > 0 || lines("Database mysql:") > 0);
    server.wait_until_up();
    after("both die", 40);
    sshd.kill_sessions();
    server.crash(0.5);
    wait_until(&format!("all files: {}", run.log()), || copied() >= rows.len());
    let (over, took) = run.terminate(Duration::from_secs(20));
    let over = over.expect(0);
    assert!(took < Duration::from_secs(3), "{took:?}");
    eprintln!("{} files through seven outages in {:.1} s, {} KiB", rows.len(), over.seconds, over.peak_kib);
    server.wait_until_up();
    wait_until("the far end's processes are gone", || sshd.sessions().is_empty());
    expect_all_proven(&place, &table, &rows);
}

/// A frozen far end is no reason to wait for ever.
#[test]
fn a_far_end_that_freezes_is_left() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::new();
    let table = Table::new(server, "freezes", Age::V1);
    let rows = vec![Row::new(place.source("large", 60 << 20, 1))];
    table.insert(&rows);
    let mut command = place.run_to(&sshd);
    command.args(["--once", "--db", &table.url, "--target", TARGET, "--stall-timeout", "2"]);
    let run = Run::start(command);
    wait_until("a file on its way", || place.tree().temporary().iter().any(|(_, stand)| stand.len > 1 << 20));
    let frozen = sshd.sessions();
    sshd.stop_signal();
    run.wait(PATIENCE).expect(0);
    let _ = Command::new("kill").arg("-KILL").args(frozen.iter().map(u32::to_string)).status();
    // What a killed receiver leaves is its own unfinished file, under a name of its own.
    for (name, _) in place.tree().temporary() {
        fs::remove_file(place.archive().join(String::from_utf8_lossy(name).as_ref())).unwrap();
    }
    expect_all_proven(&place, &table, &rows);
}

/// A small file system of its own; unmounted when dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(place: &Place, name: &str, options: &str) -> Option<Self> {
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
    let place = Place::new();
    let table = Table::new(server, "far_end", Age::V1);
    let rows = vec![
        Row::new(place.source("a", 3000, 1)),
        Row::new(place.source("b", 3 << 20, 2)),
        Row::new(place.source("c", 1000, 3)),
    ];
    table.insert(&rows);
    let before = table.rows();
    let common = |command: &mut Command| {
        command.args(["--once", "--db", &table.url, "--target", TARGET]);
    };
    let to = |change: &dyn Fn(&mut Command)| {
        let mut command = place.run_to(&sshd);
        common(&mut command);
        change(&mut command);
        command
    };
    let wrong_host = place.path("wrong_known_hosts");
    let rsa = fs::read_to_string(sshd.path("id.pub")).unwrap();
    fs::write(&wrong_host, format!("[127.0.0.1]:{} {rsa}", sshd.port)).unwrap();
    let empty = place.path("no_known_hosts");
    fs::write(&empty, "").unwrap();
    let stranger = place.path("stranger");
    crate::support::sshd::keygen(&stranger, "ed25519");
    let blocked = place.path("blocked");
    fs::write(&blocked, "a file").unwrap();
    let mute = place.path("mute.sh");
    fs::write(&mute, "#!/bin/sh\necho Welcome to the storage node\nexec rsync \"$@\"\n").unwrap();
    fs::set_permissions(&mute, fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = place.path("nobody.sh");
    fs::write(&nobody, "#!/bin/sh\necho 'rsync: out of order' >&2\nexit 14\n").unwrap();
    fs::set_permissions(&nobody, fs::Permissions::from_mode(0o755)).unwrap();
    let data_dir = |command: &mut Command, path: &std::path::Path| {
        command.arg("--data-dir").arg(path);
    };
    let _ = &data_dir;
    let mut cases: Vec<(&str, Command, &str)> = vec![
        ("host key", to(&|c| drop(c.arg("--known-hosts").arg(&wrong_host))), "Host key of 127.0.0.1"),
        ("unknown host", to(&|c| drop(c.arg("--known-hosts").arg(&empty))), "Host key of 127.0.0.1"),
        ("user key", to(&|c| drop(c.arg("--ssh-key").arg(&stranger))), "Authentication as"),
        ("no rsync", to(&|c| drop(c.args(["--rsync-path", "/nonexistent"]))), "no such program"),
        ("noise", to(&|c| drop(c.arg("--rsync-path").arg(&mute))), "Welcome"),
        ("out of order", to(&|c| drop(c.arg("--rsync-path").arg(&nobody))), "out of order"),
        ("nobody listens", to(&|c| drop(c.args(["--ssh-port", "1"]))), "Cannot reach 127.0.0.1"),
    ];
    let _ = &mut cases;
    run_all(cases, &table, &before, &place);
}

fn run_all(cases: Vec<(&str, Command, &str)>, table: &Table<'_>, before: &[crate::tables::Stands], place: &Place) {
    let runs: Vec<_> = cases.into_iter().map(|(what, command, words)| (what, Run::start(command), words)).collect();
    for (what, run, words) in runs {
        let over = run.wait(PATIENCE);
        eprintln!("{what}: {:.1} s: {}", over.seconds, over.log.lines().last().unwrap_or_default());
        assert_eq!(over.status.code(), Some(1), "{what}: {}", over.log);
        assert!(over.log.lines().last().unwrap_or_default().contains(words), "{what}: {}", over.log);
        assert!(over.seconds < 40.0, "{what} took {:.1} s", over.seconds);
        assert!(!over.log.contains("panicked"), "{what}: {}", over.log);
    }
    assert_eq!(table.rows(), before);
    assert_eq!(place.tree().files().count(), 0);
}
