//! How the archivers stand that share a table's rows.

use super::TableCounts;
use super::report::{TroubleKind, TroubleReport};
use crate::catalog::{FleetStand, MoverStand, TargetBacklog, TargetLanes};
use serde::Serialize;
use std::fmt::Write;

/// How a fleet stands by its tables, with what is wrong.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct FleetReport {
    pub(crate) database: String,
    /// When this was, unix time in seconds.
    pub(crate) time: f64,
    #[serde(flatten)]
    pub(crate) stand: FleetStand,
    pub(crate) troubles: Vec<TroubleReport>,
}

impl FleetReport {
    pub(crate) fn new(database: String, time: f64, stand: FleetStand) -> Self {
        let troubles = troubles(&stand);
        Self { database, time, stand, troubles }
    }
}

/// Completes what a mover knows by heart with what was counted of its rows.
pub(super) fn counted(mut stand: FleetStand, counts: &TableCounts) -> FleetStand {
    stand.nodes = counts.debts.clone();
    // Of one target alone all was counted.
    stand.backlog = match (stand.lanes.as_slice(), counts.counted) {
        ([one], Some(_)) => {
            let (files, given_up) = (counts.totals.pending, counts.totals.given_up);
            let (target, node) = (one.target.clone(), one.node.clone());
            vec![TargetBacklog { target, node, files, given_up, at_least: false }]
        }
        _ => counts.by_target.clone(),
    };
    stand
}

/// What somebody has to do something about.
fn troubles(stand: &FleetStand) -> Vec<TroubleReport> {
    let mut troubles = Vec::new();
    let mut tell = |why: String, remedy: &str| {
        let remedy = remedy.to_owned();
        troubles.push(TroubleReport { kind: TroubleKind::NotRunning, why, remedy, since: None });
    };
    if stand.movers.is_empty() && stand.backlog.iter().any(|line| line.files > 0) {
        tell(
            "Files wait, and there is no mover at all".to_owned(),
            "Start `run` with their target, wherever they can be read",
        );
        return troubles;
    }
    for mover in stand.movers.iter().filter(|mover| mover.is_silent()) {
        let seconds = stand.heartbeat_seconds * f64::from(mover.silent.unwrap_or(0));
        let of = mover.told.as_ref().map_or(String::new(), |told| format!(" ({told})"));
        tell(
            format!("Mover {}{of} has written nothing for {seconds:.0} s or more: it is dead, or cut off", mover.mover),
            "See what became of it. Others that live take over its lanes by themselves; where none does, start one",
        );
    }
    let waits = |target: &str, node: &Option<String>| {
        stand.backlog.iter().any(|line| line.target == target && line.node == *node && line.files > 0)
    };
    for lanes in stand.lanes.iter().filter(|lanes| lanes.free > 0 && waits(&lanes.target, &lanes.node)) {
        tell(
            format!(
                "{} of {} lanes of {} have no holder",
                lanes.free,
                lanes.lanes,
                of(&lanes.target, lanes.node.as_deref())
            ),
            "Nobody copies their files. Movers take free lanes within some heartbeats: if it stays so, start one with this target, or `resume` it",
        );
    }
    troubles
}

/// A target, at its storage node where it has several.
pub(crate) fn of(target: &str, node: Option<&str>) -> String {
    node.map_or(target.to_owned(), |node| format!("{target}@{node}"))
}

/// What a mover holds, in words.
pub(crate) fn holds(mover: &MoverStand) -> String {
    let each = mover.lanes.iter().map(|held| format!("{} {}", of(&held.target, held.node.as_deref()), held.lanes));
    match mover.lanes_held() {
        0 => "no lanes: it is paused, or about to take some".to_owned(),
        1 => format!("1 lane: {}", each.collect::<Vec<_>>().join(", ")),
        lanes => format!("{lanes} lanes: {}", each.collect::<Vec<_>>().join(", ")),
    }
}

/// In one line, for an archive of one of its movers.
pub(crate) fn line(stand: &FleetStand) -> String {
    let sum = |of: fn(&TargetLanes) -> u32| stand.lanes.iter().map(of).sum::<u32>();
    let me = stand.movers.iter().find(|mover| Some(&mover.mover) == stand.me.as_ref());
    let mut text = format!(
        "{} of {} lanes are ours, {} without a holder",
        me.map_or(0, MoverStand::lanes_held),
        sum(|lanes| lanes.lanes),
        sum(|lanes| lanes.free)
    );
    let silent = stand.movers.iter().filter(|mover| mover.is_silent()).count();
    let _ = write!(text, "; {} movers", stand.movers.len());
    if silent > 0 {
        let _ = write!(text, ", {silent} of them silent");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_and_what_nobody_copies_are_told() {
        let mover = |name: &str, silent| MoverStand { mover: name.to_owned(), silent, ..MoverStand::default() };
        let lanes = |target: &str, free| TargetLanes { target: target.to_owned(), node: None, lanes: 8, free };
        let waits =
            |target: &str, files| TargetBacklog { target: target.to_owned(), files, ..TargetBacklog::default() };
        let stand = FleetStand {
            heartbeat_seconds: 5.0,
            movers: vec![mover("alive", Some(0)), mover("dead", Some(2)), mover("new", None)],
            lanes: vec![lanes("busy", 2), lanes("idle", 8), lanes("well", 0)],
            backlog: vec![waits("busy", 3), waits("idle", 0), waits("well", 7)],
            ..FleetStand::default()
        };
        let troubles: Vec<_> = troubles(&stand).into_iter().map(|trouble| trouble.why).collect();
        assert_eq!(troubles.len(), 2, "{troubles:?}");
        assert!(troubles[0].contains("Mover dead") && troubles[0].contains("10 s"), "{troubles:?}");
        assert!(troubles[1].contains("2 of 8 lanes of busy"), "{troubles:?}");
    }
}
