//! How those stand who share the rows of a table, by its fleet's own tables.

use super::super::flags::console::StatusArgs;
use super::super::output::printable;
use super::super::plan;
use super::view::{View, at, bytes, files, row, span};
use crate::catalog::{self, FleetLook, FleetStand, LinkStand, MoverStand, NodeDebt, TargetBacklog, TargetLanes};
use crate::clock::unix_now;
use crate::console::fleet::{FleetReport, holds, of};
use anyhow::Result;
use std::fmt::Write;
use std::time::Duration;

/// How long what waits is counted.
const LOOK: Duration = Duration::from_millis(500);

/// Reads the tables of each database that is named.
pub(super) async fn glance(each: &[StatusArgs]) -> Result<Vec<FleetReport>> {
    let (mut fleets, mut asked) = (Vec::new(), Vec::new());
    for args in each {
        let database = plan::database(&args.table.database)?;
        if asked.contains(&database) {
            continue;
        }
        let (table, max_attempts) = (args.table.table.clone(), args.table.max_copy_attempts.into());
        let stand = catalog::fleet_stand(&database, FleetLook { table, max_attempts, limit: LOOK }).await?;
        fleets.push(FleetReport::new(database.to_string(), unix_now(), stand));
        asked.push(database);
    }
    Ok(fleets)
}

/// All of them, one below the other.
pub(super) fn page(view: View, fleets: &[FleetReport]) -> String {
    let blocks: Vec<_> = fleets.iter().map(|fleet| block(view, fleet)).collect();
    blocks.join("\n")
}

fn block(view: View, fleet: &FleetReport) -> String {
    let stand = &fleet.stand;
    let name = view.bold(&printable(&format!("fleet of {}", fleet.database)));
    let word = match (stand.movers.is_empty(), fleet.troubles.is_empty()) {
        (true, _) => view.red("nobody works"),
        (false, false) => view.red("trouble"),
        (false, true) => view.green("all is well"),
    };
    let mut text = format!("{name}  {word}  (at {})\n", at(fleet.time));
    view.troubles(&mut text, &fleet.troubles, fleet.time);
    rows(&mut text, "movers", stand.movers.iter().map(|mover| who(stand, mover)));
    rows(&mut text, "lanes", stand.lanes.iter().map(lanes));
    rows(
        &mut text,
        "waits",
        stand.backlog.iter().filter(|line| line.files + line.given_up > 0).map(|line| waits(stand, line)),
    );
    rows(&mut text, "nodes", stand.nodes.iter().map(debt));
    rows(&mut text, "links", stand.links.iter().map(link));
    text
}

/// Lines under one name.
fn rows(text: &mut String, name: &str, lines: impl Iterator<Item = String>) {
    let mut lines: Vec<_> = lines.map(|line| printable(&line)).collect();
    if lines.is_empty() {
        lines.push("none".to_owned());
    }
    for (at, line) in lines.iter().enumerate() {
        row(text, if at == 0 { name } else { "" }, line);
    }
}

fn who(stand: &FleetStand, mover: &MoverStand) -> String {
    let life = match mover.silent {
        Some(silent) if mover.is_silent() => {
            format!("NOTHING HEARD for {} or more", span(stand.heartbeat_seconds * f64::from(silent)))
        }
        Some(_) => "lives".to_owned(),
        None => "not watched yet".to_owned(),
    };
    let mut line = format!("{}  {life}, {}", mover.mover, holds(mover));
    if let Some(told) = &mover.told {
        let _ = write!(line, "  ({told})");
    }
    line
}

fn lanes(lanes: &TargetLanes) -> String {
    let of = of(&lanes.target, lanes.node.as_deref());
    match lanes.free {
        0 => format!("{of}  all {} held", lanes.lanes),
        free => format!("{of}  {free} of {} WITHOUT A HOLDER", lanes.lanes),
    }
}

fn waits(stand: &FleetStand, line: &TargetBacklog) -> String {
    let least = if line.at_least { "at least " } else { "" };
    let mut text = format!("{}  {least}{}", of(&line.target, line.node.as_deref()), files(line.files));
    if line.given_up > 0 {
        let _ = write!(text, ", {} given up", line.given_up);
    }
    if stand.lanes.iter().all(|lanes| (&lanes.target, &lanes.node) != (&line.target, &line.node)) {
        text.push_str("; no mover was ever started for them");
    }
    text
}

fn link(link: &LinkStand) -> String {
    let of = |limit: Option<String>| limit.map_or(String::new(), |limit| format!(" of {limit}"));
    let sessions = of(link.sessions.map(|sessions| sessions.to_string()));
    let bandwidth = of(link.bandwidth.map(|rate| format!("{}/s", bytes(rate as f64))));
    let mut text = format!(
        "{} to {}  {}{sessions} sessions, {}/s{bandwidth}, {} movers",
        link.site,
        link.node,
        link.in_use,
        bytes(link.moved as f64),
        link.movers
    );
    if let Some(mover) = &link.down_by {
        let _ = write!(text, "; DOWN, {mover} tries it: {}", link.down_why.as_deref().unwrap_or_default());
    }
    text
}

fn debt(debt: &NodeDebt) -> String {
    let least = if debt.at_least { "at least " } else { "" };
    let mut text = format!("{}  {least}{} copies owed", debt.node, debt.owed);
    if debt.lacking > 0 {
        let _ = write!(text, ", {} of files that are here no more", debt.lacking);
    }
    let _ = write!(text, ", {} rows with troubles there", debt.troubles);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_and_what_waits_can_be_read_at_a_glance() {
        let held = catalog::HeldLanes { target: "smurf".to_owned(), node: Some("b".to_owned()), lanes: 4 };
        let mover = |name: &str, silent, lanes| MoverStand {
            mover: name.to_owned(),
            silent,
            lanes,
            told: Some("pysmurf-archiver\u{1b}[2J".to_owned()),
            ..MoverStand::default()
        };
        let stand = FleetStand {
            heartbeat_seconds: 5.0,
            movers: vec![mover("one.1", Some(0), vec![held]), mover("two.2", Some(2), Vec::new())],
            lanes: vec![TargetLanes { target: "smurf".to_owned(), node: Some("b".to_owned()), lanes: 8, free: 4 }],
            backlog: vec![TargetBacklog {
                target: "smurf".to_owned(),
                node: Some("b".to_owned()),
                files: 1234,
                ..TargetBacklog::default()
            }],
            nodes: vec![NodeDebt { node: "b".to_owned(), owed: 3, lacking: 1, ..NodeDebt::default() }],
            ..FleetStand::default()
        };
        let report = FleetReport::new("sqlite:f.db".to_owned(), 0.0, stand);
        let text = block(View::plain(), &report);
        for words in [
            "one.1  lives, 4 lanes: smurf@b 4",
            "two.2  NOTHING HEARD for 10 s or more, no lanes",
            "smurf@b  4 of 8 WITHOUT A HOLDER",
            "smurf@b  1,234 files",
            "b  3 copies owed, 1 of files that are here no more, 0 rows",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
