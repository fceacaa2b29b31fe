//! Large files and long tables: memory and database work stay bounded.

use crate::support::archiver::{Place, Run, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{wait_until, wait_within};
use crate::tables::{Age, FOLDER, Row, TARGET, Table};
use std::fs::{self, File};
use std::time::Duration;

/// The most memory a run may take beside its program, KiB: with a program of the release that is less than 64 MiB in all.
const MEMORY_MOST: u64 = 32 * 1024;

/// Whether to take the time for the full sizes.
fn slow() -> bool {
    std::env::var_os("ARCHIVER_SLOW").is_some_and(|value| !value.is_empty())
}

fn one_large_file(name: &str, len: u64) {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, name, Age::V1);
    let path = place.sources().join("large.g3");
    File::create(&path).unwrap().set_len(len).unwrap();
    let md5 = md5_of(&path);
    table.insert(&[Row::new((path, md5))]);
    let mut command = place.run_to(&sshd);
    command.args(["--once", "--db", &table.url, "--target", TARGET]);
    let over = Run::start(command).wait(Duration::from_secs(600)).expect(0);
    let rate = len as f64 / 1e6 / over.seconds;
    eprintln!("{} MiB: {:.1} s, {rate:.0} MB/s, {} KiB at most", len >> 20, over.seconds, over.own_peak_kib);
    assert!(over.own_peak_kib < MEMORY_MOST, "{} KiB", over.own_peak_kib);
    let copy = place.archive().join(FOLDER).join("large.g3");
    assert_eq!(fs::metadata(&copy).unwrap().len(), len);
    assert_eq!(md5_of(&copy), md5);
    assert_eq!(table.copied(), 1);
}

#[test]
fn memory_stays_small_with_a_large_file() {
    one_large_file("one_gib", 1 << 30);
    // More than a minute in a debug build.
    if slow() {
        one_large_file("four_gib", 4 << 30);
    }
}

#[test]
fn a_long_backlog_takes_little_memory_and_idle_polls_are_cheap() {
    let rows_many: u64 = if slow() { 20_000 } else { 6_000 };
    let (Some(server), Some(sshd), true) = (MariaDb::start(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(&server, "backlog", Age::V1);
    let sources: Vec<_> = (0..10).map(|n| place.source(format!("source{n}"), n * 300, n)).collect();
    let mut rows = Vec::new();
    for n in 0..rows_many {
        let (source, md5) = &sources[n as usize % sources.len()];
        let path = place.sources().join(format!("{n}.dat"));
        fs::hard_link(source, &path).unwrap();
        let action_timestamp = Some(1_589_517_264 + n as i64 / 500);
        rows.push(Row { action_timestamp, ..Row::new((path, *md5)) });
    }
    table.insert(&rows);
    let mut command = place.run_to(&sshd);
    command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.1"]);
    let run = Run::start(command);
    let began = std::time::Instant::now();
    wait_within(Duration::from_secs(300), "the backlog is drained", || {
        // Looking is a scan of the table: not too often.
        std::thread::sleep(Duration::from_millis(100));
        table.copied() as u64 == rows_many
    });
    let seconds = began.elapsed().as_secs_f64();
    let status = |name: &str| -> u64 {
        let text = server.execute(&format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // The first idle poll still goes through all.
    let polls = || status("Com_stmt_execute");
    let start = polls();
    wait_until("some idle polls", || polls() > start + 10);
    let (began_at, read) = (polls(), status("Handler_read_next") + status("Handler_read_rnd_next"));
    wait_until("more idle polls", || polls() > began_at + 20);
    let (ended_at, read_now) = (polls(), status("Handler_read_next") + status("Handler_read_rnd_next"));
    let each = (read_now - read) as f64 / (ended_at - began_at) as f64;
    let (over, took) = run.terminate();
    let over = over.expect(0);
    eprintln!(
        "{rows_many} small files in {seconds:.1} s, {:.0} a second, {} KiB at most; an idle poll reads {each:.0} rows; stopped after {took:?}",
        rows_many as f64 / seconds,
        over.own_peak_kib
    );
    assert!(over.own_peak_kib < MEMORY_MOST, "{} KiB", over.own_peak_kib);
    assert!(each < 2500.0, "an idle poll reads {each} rows of {rows_many}");
    let stands = table.rows();
    assert!(stands.iter().all(|row| row.copied == 1 && row.attempts == Some(0)));
    assert_eq!(place.tree().files().count() as u64, rows_many);
}
