//! As many sessions as pay.

use crate::support::archiver::{Place, Run, wait_until};
use crate::support::mariadb::MariaDb;
use crate::support::require;
use crate::support::sshd::Sshd;
use crate::tables::{Age, Row, TARGET, Table, expect_all_proven};
use std::time::Duration;

/// A far end that lets only one session work at a time, behind a limit that leaves others nothing to gain.
#[test]
fn sessions_that_gain_nothing_are_given_back() {
    let lock = tempfile::tempdir().unwrap();
    let command = format!("ForceCommand flock -w 1 {}/lock sh -c \"$SSH_ORIGINAL_COMMAND\"", lock.path().display());
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(&command), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "sessions", Age::V1);
    let rows: Vec<_> = (0..90)
        .map(|n| Row::new(place.source(format!("part{n}"), if n % 3 == 0 { 2 << 20 } else { 9000 }, n)))
        .collect();
    table.insert(&rows);
    let mut command = place.run_to(&sshd);
    command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.2", "--queue", "40", "-v"]);
    command.args(["--workers", "auto", "--bwlimit", "8m"]);
    let run = Run::start(command);
    wait_until("more sessions", || run.log().contains("Sessions: 1 until now"));
    wait_until("fewer", || run.log().contains("Sessions: 2 until now") || run.log().contains("One session less"));
    wait_until("all rows", || table.copied() == rows.len());
    let log = run.log();
    run.terminate(Duration::from_secs(20)).0.expect(0);
    assert!(!log.contains("Sessions: 4 until now"), "{log}");
    expect_all_proven(&place, &table, &rows);
}
