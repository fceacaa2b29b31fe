//! What is said of a run: bytes, summaries, and the far end's own words.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::tables::{Age, Row, TARGET, Table, small_files};
use serde_json::Value;
use std::process::Command;

fn summary(log: &str) -> Value {
    let line = log.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{log}"));
    serde_json::from_str(line).unwrap()
}

/// Files found in place count their bytes, on every road.
#[test]
fn files_found_in_place_count_their_bytes() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let Some(bare) = Sshd::start("Subsystem sftp internal-sftp\nForceCommand internal-sftp") else { return };
    for way in ["local", "stock", "ours", "sftp", "pull"] {
        let command = |place: &Place| match way {
            "local" => place.run(),
            "stock" => place.run_to(&sshd),
            "ours" => FarEnd { rsync_path: PROGRAM.into(), ..place.behind(&sshd) }.command(),
            "sftp" => place.run_to(&bare),
            _ => place.from(&sshd).command(),
        };
        let place = Place::make();
        let table = Table::new(server, &format!("in_place_{way}"), Age::V1);
        let rows: Vec<_> = (0..4).map(|n| Row::new(place.source(format!("f{n}"), 100_000 + n, n))).collect();
        let bytes: u64 = (0..4).map(|n| 100_000 + n).sum();
        for (there, literal, matched) in [(false, bytes, 0), (true, 0, bytes)] {
            table.execute("DELETE FROM pysmurf_files_v1");
            table.insert(&rows);
            let mut command = command(&place);
            command.args(["--once", "--json", "--db", &table.url, "--target", TARGET]);
            let said = summary(&Run::to_end(command).expect(0).log);
            let counts = [&said["copied"], &said["bytes"], &said["literal_bytes"], &said["matched_bytes"]];
            assert_eq!(counts.map(|count| count.as_u64().unwrap()), [4, bytes, literal, matched], "{way}, {there}");
        }
    }
}

/// On a terminal a run with an end does not end without a word.
#[test]
fn on_a_terminal_a_run_with_an_end_is_summed_up() {
    let (Some(server), true) = (MariaDb::shared(), require("script")) else { return };
    let place = Place::make();
    let table = Table::new(server, "terminal", Age::V1);
    let mut rows = small_files(&place, 0..20);
    rows.push(Row { path: place.sources().join("gone"), ..rows[0].clone() });
    table.insert(&rows);
    let mut run = place.run();
    run.args(["--once", "--db", &table.url, "--target", TARGET]);
    let words = std::iter::once(run.get_program()).chain(run.get_args()).map(|word| word.to_str().unwrap());
    let line = shlex::try_join(words).unwrap();
    let mut command = place.program();
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).current_dir(place.path(""));
    for (name, _) in command.env("TERM", "xterm").get_envs() {
        terminal.env_remove(name);
    }
    let over = Run::to_end(terminal).expect(1);
    assert!(over.log.contains("Copied 20 files, ") && over.log.contains("; 1 file failed"), "{}", over.log);
    assert!(over.log.contains("it is missing"), "{}", over.log);
}
