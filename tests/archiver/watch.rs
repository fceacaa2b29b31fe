//! The archiver as a service: beside producers, beside another archiver, and told to stop.

use crate::support::archiver::{Place, Run};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, Row, TARGET, Table, expect_all_proven, small_files};
use std::process::Command;
use std::time::{Duration, Instant};

fn service(place: &Place, sshd: &Sshd, table: &Table<'_>) -> Command {
    let mut command = place.run_to(sshd);
    command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.2"]);
    command
}

#[test]
fn rows_are_picked_up_as_they_come_and_producers_never_wait() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "watch", Age::V1);
    let run = Run::start(service(&place, &sshd, &table));
    wait_until("it watches", || run.log().contains("Watching"));
    let first = small_files(&place, 0..3);
    table.insert(&first);
    wait_until("the first rows", || table.copied() == 3);
    // A backlog, and rows that come while it is copied.
    let mut rows = first;
    let backlog = small_files(&place, 3..1500);
    table.insert(&backlog);
    rows.extend(backlog);
    wait_until("the backlog has begun", || table.copied() > 3);
    let mut slowest = Duration::ZERO;
    let mut inserted_beside = 0;
    for n in 1500..1600 {
        let row = small_files(&place, n..n + 1);
        let statement = table.insertion(&row);
        let began = Instant::now();
        table.execute(&statement);
        slowest = slowest.max(began.elapsed());
        inserted_beside += usize::from(n < 1540 || table.copied() < 1500);
        rows.extend(row);
    }
    wait_until("all rows", || table.copied() == rows.len());
    // Each insertion starts a client of its own, which is most of it.
    eprintln!("{inserted_beside} insertions beside the copying, slowest {slowest:?}, client and all");
    assert!(slowest < Duration::from_secs(30), "a producer waited {slowest:?}");
    let (over, took) = run.terminate();
    eprintln!("idle stop after {took:?}; {} KiB", over.peak_kib);
    over.expect(0);
    expect_all_proven(&place, &table, &rows);
}

/// A large file on its way; the far end goes on, or freezes.
fn told_to_stop_in_a_large_file(name: &str, frozen: bool) {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, name, Age::V1);
    let mut rows = small_files(&place, 0..10);
    rows.push(Row::new(place.source("large", 100 << 20, 1)));
    rows.extend(small_files(&place, 10..20));
    table.insert(&rows);
    let before = table.rows();
    let run = Run::start({
        let mut command = service(&place, &sshd, &table);
        // Longer than any patience here: it is not what ends the wait for a frozen far end.
        command.args(["--stall-timeout", "3600"]);
        command
    });
    wait_until("a large file on its way", || place.tree().temporary().iter().any(|(_, stand)| stand.len > 1 << 20));
    if frozen {
        sshd.signal("STOP");
    }
    let (over, took) = run.terminate();
    if frozen {
        sshd.signal("CONT");
    }
    let over = over.expect(0);
    eprintln!("{name}: stopped after {took:?}, {} of {} rows copied", table.copied(), rows.len());
    assert!(!over.log.contains("panicked"), "{}", over.log);
    for (stands, before) in table.rows().iter().zip(&before) {
        assert_eq!(stands.attempts, Some(0), "{stands:?}");
        assert!(stands.copied == 1 || stands == before, "{stands:?}");
    }
    wait_until("the far end's processes are gone", || sshd.sessions().is_empty());
    let again = Run::start({
        let mut command = service(&place, &sshd, &table);
        command.arg("--once");
        command
    });
    again.wait(PATIENCE).expect(0);
    wait_until("the far end's processes are gone", || sshd.sessions().is_empty());
    expect_all_proven(&place, &table, &rows);
}

#[test]
fn told_to_stop_while_copying() {
    told_to_stop_in_a_large_file("stop", false);
}

#[test]
fn told_to_stop_while_the_far_end_is_frozen() {
    told_to_stop_in_a_large_file("stop_frozen", true);
}

/// A second signal does not wait for the file.
fn told_to_stop_twice(table: &Table<'_>, place: &Place, gone: impl Fn() -> bool, command: impl Fn() -> Command) {
    let rows = vec![Row::new(place.source("large", 400 << 20, 1))];
    table.insert(&rows);
    let before = table.rows();
    let run = Run::start(command());
    wait_until("a large file on its way", || place.tree().temporary().iter().any(|(_, stand)| stand.len > 1 << 20));
    run.signal("TERM");
    wait_until("it has heard", || run.log().contains("Stopping"));
    let (over, took) = run.terminate();
    eprintln!("{}: stopped by a second signal after {took:?}", table.name);
    over.expect(0);
    // The file was not waited for.
    assert_eq!(table.rows(), before);
    wait_until("the far end has gone", gone);
    // What came stays for the next run to go on from.
    let tree = place.tree();
    assert_eq!(tree.files().count(), tree.temporary().len(), "{:?}", tree.names());
}

#[test]
fn a_second_signal_stops_at_once() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "stop_twice", Age::V1);
    told_to_stop_twice(&table, &place, || sshd.sessions().is_empty(), || service(&place, &sshd, &table));
}

#[test]
fn a_second_signal_stops_a_local_copy_at_once() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    let table = Table::new(server, "stop_twice_local", Age::V1);
    told_to_stop_twice(
        &table,
        &place,
        || true,
        || {
            let mut command = place.run();
            command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.2"]);
            command
        },
    );
}

#[test]
fn told_to_stop_while_nothing_answers() {
    let (Some(server), Some(sshd)) = (MariaDb::shared(), Sshd::start("")) else { return };
    let place = Place::make();
    let table = Table::new(server, "stop_away", Age::V1);
    table.insert(&small_files(&place, 0..3));
    sshd.kill();
    stops_in_a_pause(service(&place, &sshd, &table));
    // Nor does a database that is away keep it from stopping.
    let mut command = place.run_to(&sshd);
    command.args(["--db", "mysql://nobody:x@127.0.0.1:1/files", "--target", TARGET]);
    stops_in_a_pause(command);
}

/// Told to stop in a pause between two attempts, it does not wait for its end.
fn stops_in_a_pause(command: Command) {
    let run = Run::start(command);
    let pause = || {
        let log = run.log();
        let line = log.lines().rfind(|line| line.contains("trying again"))?;
        let number = |name: &str| line.split(name).nth(1)?.split_whitespace().next()?.parse().ok();
        number("wait_s=").map(Duration::from_secs).or_else(|| number("wait_ms=").map(Duration::from_millis))
    };
    // Pauses grow, and are at least half of what is said.
    wait_until("it waits long", || pause().is_some_and(|pause| pause >= Duration::from_secs(8)));
    let least = pause().unwrap() / 2;
    let (over, took) = run.terminate();
    over.expect(0);
    assert!(took < least, "{took:?} of {least:?}");
}

#[test]
fn a_new_row_waits_for_no_poll() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "news", Age::V1);
    let mut command = service(&place, &sshd, &table);
    command.args(["--poll", "3600"]);
    let run = Run::start(command);
    wait_until("it watches", || run.log().contains("Watching"));
    let mut rows = Vec::new();
    // The first may come before the first pass; the others find a far end's program that was started ahead.
    for n in 0..4 {
        let row = small_files(&place, n..n + 1);
        table.insert(&row);
        rows.extend(row);
        wait_until("the row", || table.copied() == rows.len());
    }
    run.terminate().0.expect(0);
    wait_until("the far end's processes are gone", || sshd.sessions().is_empty());
    expect_all_proven(&place, &table, &rows);
}

#[test]
fn a_question_for_new_rows_is_one_statement() {
    let (Some(server), Some(sshd), true) = (MariaDb::start(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(&server, "asked", Age::V1);
    let mut command = service(&place, &sshd, &table);
    command.args(["--poll", "3600"]);
    let run = Run::start(command);
    let count = |name: &str| -> u64 {
        let told = server.execute(&format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        told.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // What is counted between: questions, and words that are none (COM_PING and its like).
    let counts = || (count("Com_stmt_execute"), count("Com_stmt_prepare"), count("Com_admin_commands"));
    wait_until("it asks", || run.log().contains("Watching") && count("Com_stmt_execute") > 20);
    let before = counts();
    wait_until("it has asked", || count("Com_stmt_execute") >= before.0 + 100);
    let after = counts();
    assert!(after.1 - before.1 + after.2 - before.2 < 20, "{before:?} to {after:?}");
    run.terminate().0.expect(0);
}

#[test]
fn a_server_that_ends_the_connection_of_the_questions_is_asked_on_another() {
    let (Some(server), Some(sshd), true) = (MariaDb::start(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(&server, "killed", Age::V1);
    let mut command = service(&place, &sshd, &table);
    command.args(["--poll", "3600"]);
    let run = Run::start(command);
    let connections = "SELECT id FROM information_schema.processlist WHERE user = 'killed' ORDER BY id";
    let mut rows = Vec::new();
    for n in 0..3 {
        let row = small_files(&place, n..n + 1);
        table.insert(&row);
        rows.extend(row);
        wait_until("the row", || table.copied() == rows.len());
        // But for the one that holds the lock.
        for id in server.execute(connections).lines().skip(1) {
            server.execute(&format!("KILL {id}"));
        }
    }
    let (over, _) = run.terminate();
    assert!(!over.expect(0).log.contains("WARN"));
    expect_all_proven(&place, &table, &rows);
}

/// New rows are no reason to ask again and again.
#[test]
fn a_table_that_another_works_on_is_left_alone_for_as_long_as_is_said() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "held", Age::V1);
    let rows = small_files(&place, 0..3);
    table.insert(&rows);
    let first = Run::start(service(&place, &sshd, &table));
    wait_until("all rows", || table.copied() == rows.len());
    let began = Instant::now();
    let second = Run::start(service(&place, &sshd, &table));
    let waits = || -> Vec<u64> {
        let log = second.log();
        let told = log.lines().filter(|line| line.contains("another archiver"));
        told.filter_map(|line| line.split_once("wait_ms=")?.1.split_whitespace().next()?.parse().ok()).collect()
    };
    wait_until("it was held off three times", || waits().len() > 2);
    let told = Duration::from_millis(waits()[..2].iter().sum());
    assert!(began.elapsed() >= told, "{:?} is less than {told:?}: {}", began.elapsed(), second.log());
    second.terminate().0.expect(0);
    first.terminate().0.expect(0);
}

#[test]
fn two_archivers_on_one_table_do_no_harm() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "two", Age::V1);
    let mut rows = small_files(&place, 0..200);
    rows.push(Row::new(place.source("large", 20 << 20, 1)));
    rows.extend(small_files(&place, 200..400));
    table.insert(&rows);
    let runs = [1, 2].map(|_| {
        let mut command = service(&place, &sshd, &table);
        command.arg("--once");
        Run::start(command)
    });
    let overs = runs.map(|run| run.wait(PATIENCE));
    assert!(overs.iter().any(|over| over.status.success()), "neither did the work");
    for over in overs.into_iter().filter(|over| !over.status.success()) {
        assert!(over.log.contains("another archiver"), "{}", over.log);
        over.expect(1);
    }
    wait_until("the far end's processes are gone", || sshd.sessions().is_empty());
    expect_all_proven(&place, &table, &rows);
}
