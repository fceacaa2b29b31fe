//! The same command in all four pairings of stock rsync and ours, both ways, by pipe, sshd and daemon: what it leaves behind
//! and what it says must be what stock with stock leaves and says.
//!
//! Every row runs on every road and in both directions; the pairings take turns, and with `ARCHIVER_SLOW=1` all of them run
//! every row. Further tests put the versions of other Debian releases at the far end and at the near.
#![allow(unreachable_pub, missing_docs)]

#[path = "matrix/roads.rs"]
mod roads;
#[path = "matrix/rows.rs"]
mod rows;

use crate::support;
use crate::support::both::{Outcome, all_agree};
use crate::support::stock::OURS;
use crate::support::tree;
use roads::{Road, Roads};
use rows::{ROWS, Row};
use std::path::PathBuf;

/// One end's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The rsync that is installed, or one of another release.
    Stock(PathBuf),
    /// Our program called `rsync`.
    Ours,
}

impl End {
    fn installed() -> Self {
        Self::Stock(support::tools::find("rsync").unwrap_or_else(|| "rsync".into()))
    }

    fn name(&self) -> String {
        match self {
            Self::Stock(path) => format!("stock {}", path.display()),
            Self::Ours => "ours".into(),
        }
    }
}

/// Which way the files go, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Push,
    Pull,
}

/// Runs one row and looks at what it left.
fn play(roads: &Roads, road: Road, row: &Row, way: Way, client: &End, server: &End) -> Outcome {
    let since = tree::now() - 1;
    let work = roads.prepared(road);
    let run = roads.run(road, row, way, client, server, work.path());
    let lines = run.lines();
    Outcome::new(run, lines, work.path(), &["src", "dst"], since)
}

/// Plays rows against their references; nothing may differ.
fn compare(roads: &Roads, road: Road, cases: &[(&Row, Way, End, End)], reference: &End) {
    all_agree(cases, |(row, way, client, server)| {
        let mut stock = play(roads, road, row, *way, reference, reference);
        let mut ours = play(roads, road, row, *way, client, server);
        if *reference != End::installed() {
            // Older releases count devices among the symlinks, newer ones count blocks.
            for outcome in [&mut stock, &mut ours] {
                outcome.lines.retain(|line| !line.starts_with("Number of files:"));
                outcome.lines.retain(|line| !line.starts_with("Number of 4 KiB logical blocks"));
            }
        }
        let text = stock.difference(&ours);
        let pairing = format!("{} to {}", client.name(), server.name());
        if text.is_empty() { text } else { format!("{road:?} {way:?}, {pairing}: {}\n{text}", row.options) }
    });
}

fn pairings() -> [(End, End); 3] {
    [(End::installed(), End::Ours), (End::Ours, End::installed()), (End::Ours, End::Ours)]
}

fn whole(road: Road) {
    if !support::tools::require("rsync") {
        return;
    }
    let Some(roads) = Roads::open(road) else { return };
    let all = std::env::var_os("ARCHIVER_SLOW").is_some();
    let share = match road {
        Road::Pipe => 0,
        Road::Sshd => 1,
        Road::Daemon => 2,
    };
    let mut cases = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        for (way, turn) in [(Way::Push, 0), (Way::Pull, 1)] {
            if !row.goes(road, way) {
                continue;
            }
            for (place, (client, server)) in pairings().into_iter().enumerate() {
                if all || (number + turn + share) % 3 == place {
                    cases.push((row, way, client, server));
                }
            }
        }
    }
    compare(&roads, road, &cases, &End::installed());
}

#[test]
fn by_pipe() {
    whole(Road::Pipe);
}

#[test]
fn by_sshd() {
    whole(Road::Sshd);
}

#[test]
fn by_daemon() {
    whole(Road::Daemon);
}

/// Rows at the versions before 30, in every pairing where `all`; else the pairings take turns.
fn before_30(road: Road, all: bool) {
    if !support::tools::require("rsync") {
        return;
    }
    let Some(roads) = Roads::open(road) else { return };
    let slow = std::env::var_os("ARCHIVER_SLOW").is_some();
    let rows = (27..30).flat_map(|version| rows::before_30(version).into_iter());
    let rows: Vec<_> = rows.filter(|row| slow || row.wire).collect();
    let mut cases = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        for (way, turn) in [(Way::Push, 0), (Way::Pull, 1)] {
            for (place, (client, server)) in pairings().into_iter().enumerate() {
                if row.goes(road, way) && (all || (number + turn) % 3 == place) {
                    cases.push((row, way, client, server));
                }
            }
        }
    }
    compare(&roads, road, &cases, &End::installed());
}

#[test]
fn versions_before_30_by_pipe() {
    before_30(Road::Pipe, true);
}

#[test]
fn versions_before_30_by_daemon() {
    before_30(Road::Daemon, std::env::var_os("ARCHIVER_SLOW").is_some());
}

/// Rows that concern the wire, with the rsyncs of other releases at either end.
#[test]
fn with_other_releases() {
    let Some(roads) = Roads::open(Road::Pipe) else { return };
    let releases = roads::other_releases();
    for release in &releases {
        let stock = End::Stock(release.clone());
        let mut cases = Vec::new();
        for row in ROWS.iter().filter(|row| row.wire) {
            for way in [Way::Push, Way::Pull] {
                if row.goes(Road::Pipe, way) {
                    cases.push((row, way, stock.clone(), End::Ours));
                    cases.push((row, way, End::Ours, stock.clone()));
                }
            }
        }
        compare(&roads, Road::Pipe, &cases, &stock);
    }
}

/// Where stock sends, ours at the other end has heard as many bytes of list as stock would have. Stock counts the framing
/// around them, four bytes at a time, as it happens to fall.
#[test]
fn the_length_of_a_list() {
    if !support::tools::require("rsync") {
        return;
    }
    let Some(roads) = Roads::open(Road::Pipe) else { return };
    for row in ROWS.iter().filter(|row| ["-a", "-a --no-inc-recursive", "-ac", "-aHAX"].contains(&row.options)) {
        let length = |client: &End| {
            play(&roads, Road::Pipe, row, Way::Pull, client, &End::installed()).run.stat("File list size")
        };
        let (ours, stock) = (length(&End::Ours), length(&End::installed()));
        let framing = stock.checked_sub(ours).unwrap_or_else(|| panic!("{}: {ours}, stock {stock}", row.options));
        assert!(framing % 4 == 0 && framing <= 64, "{}: {ours}, stock {stock}", row.options);
    }
}

#[test]
fn there_are_enough_rows() {
    assert!(ROWS.len() >= 60, "{}", ROWS.len());
    assert!(PathBuf::from(OURS).is_file());
}
