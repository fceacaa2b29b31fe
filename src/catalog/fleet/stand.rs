//! How a fleet stands, for people and machines: who is there, who has which lanes, what waits where.

use super::LinkStand;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Looks at the beats within one heartbeat, while it is found out who lives.
const LOOKS: u32 = 5;
/// Heartbeats for which a mover must have stood still to be told as silent: half of one's own may fall between two looks.
pub(crate) const SILENT: u32 = 2;
/// Rows of `fleet_owed` and `fleet_trouble` that are counted of each node: both may grow as long as the table of files.
pub(in crate::catalog) const DEBTS_MOST: u64 = 100_000;

/// How a fleet stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct FleetStand {
    /// The mover that says this, where it is not the tables alone.
    pub(crate) me: Option<String>,
    pub(crate) heartbeat_seconds: f64,
    pub(crate) movers: Vec<MoverStand>,
    pub(crate) lanes: Vec<TargetLanes>,
    pub(crate) backlog: Vec<TargetBacklog>,
    pub(crate) nodes: Vec<NodeDebt>,
    /// What movers share of links; not by heart.
    #[serde(default)]
    pub(crate) links: Vec<LinkStand>,
}

/// One of its movers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct MoverStand {
    pub(crate) mover: String,
    /// Its program, machine and process, as it says.
    pub(crate) told: Option<String>,
    pub(crate) beat: i64,
    /// For how many heartbeats it was seen to stand still; `None` while nobody has watched for so long.
    pub(crate) silent: Option<u32>,
    pub(crate) lanes: Vec<HeldLanes>,
}

/// Lanes that one mover has of a target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct HeldLanes {
    pub(crate) target: String,
    pub(crate) node: Option<String>,
    pub(crate) lanes: u32,
}

/// The lanes of a target, at one of its storage nodes where it has several.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct TargetLanes {
    pub(crate) target: String,
    pub(crate) node: Option<String>,
    pub(crate) lanes: u32,
    /// Those of nobody.
    pub(crate) free: u32,
}

/// What waits of a target, at one of its storage nodes where it has several.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct TargetBacklog {
    pub(crate) target: String,
    pub(crate) node: Option<String>,
    pub(crate) files: u64,
    pub(crate) given_up: u64,
    /// Not all rows were looked at: there may be more.
    pub(crate) at_least: bool,
}

/// What a storage node lacks of rows that are done, and what it failed at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct NodeDebt {
    pub(crate) node: String,
    pub(crate) owed: u64,
    /// Those of them whose file is here no more.
    pub(crate) lacking: u64,
    /// Rows with a failure there.
    pub(crate) troubles: u64,
    /// Only so many were counted.
    pub(crate) at_least: bool,
}

/// A lane as it stands in the table: by what its rows are known, its target, its holder.
pub(in crate::catalog) type LaneRow = (String, String, Option<String>);

impl FleetStand {
    /// Of movers, and of lanes with the storage nodes of their rows.
    pub(in crate::catalog) fn new(heartbeat: Duration, movers: Vec<MoverStand>, lanes: &[LaneRow]) -> Self {
        let mut all: BTreeMap<(&str, Option<&str>), TargetLanes> = BTreeMap::new();
        let mut held: HashMap<&str, BTreeMap<(&str, Option<&str>), u32>> = HashMap::new();
        for (rows, target, holder) in lanes {
            let (target, node) = (target.as_str(), rows.split_once('@').map(|(_, node)| node));
            let lanes = all.entry((target, node)).or_default();
            lanes.lanes += 1;
            // Whose holder has no row any more is of nobody: the next sweep frees it.
            match holder.as_deref().filter(|holder| movers.iter().any(|mover| mover.mover == *holder)) {
                Some(holder) => *held.entry(holder).or_default().entry((target, node)).or_default() += 1,
                None => lanes.free += 1,
            }
        }
        let named = |(target, node): (&str, Option<&str>)| (target.to_owned(), node.map(str::to_owned));
        let lanes = all.into_iter().map(|(of, lanes)| {
            let (target, node) = named(of);
            TargetLanes { target, node, ..lanes }
        });
        let lanes = lanes.collect();
        let movers = movers.iter().map(|mover| {
            let held = held.remove(mover.mover.as_str()).unwrap_or_default().into_iter();
            let lanes = held.map(|(of, lanes)| {
                let (target, node) = named(of);
                HeldLanes { target, node, lanes }
            });
            MoverStand { lanes: lanes.collect(), ..mover.clone() }
        });
        let mut movers: Vec<_> = movers.collect();
        movers.sort_by(|one, other| one.mover.cmp(&other.mover));
        Self { heartbeat_seconds: heartbeat.as_secs_f64(), movers, lanes, ..Self::default() }
    }

    /// Finds out who lives, without anybody's clock: looks at the beats until each has changed, or for as long as a living one
    /// needs at most. One that has gone meanwhile is gone.
    pub(in crate::catalog) async fn watch<E>(
        &mut self,
        heartbeat: Duration,
        mut beats: impl AsyncFnMut() -> Result<HashMap<String, i64>, E>,
    ) -> Result<(), E> {
        for _ in 0..LOOKS * SILENT {
            if self.movers.iter().all(|mover| mover.silent.is_some()) {
                break;
            }
            tokio::time::sleep(heartbeat / LOOKS).await;
            let now = beats().await?;
            self.movers.retain(|mover| now.contains_key(&mover.mover));
            for mover in &mut self.movers {
                if now.get(&mover.mover).is_some_and(|beat| *beat != mover.beat) {
                    mover.silent = Some(0);
                }
            }
        }
        for mover in &mut self.movers {
            mover.silent = mover.silent.or(Some(SILENT));
        }
        Ok(())
    }
}

impl MoverStand {
    /// Whether nothing was heard of it for too long.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.is_some_and(|silent| silent >= SILENT)
    }

    pub(crate) fn lanes_held(&self) -> u32 {
        self.lanes.iter().map(|held| held.lanes).sum()
    }
}

/// What is counted of a table of files, look by look.
#[derive(Debug, Default)]
pub(in crate::catalog) struct BacklogCount {
    /// Rows that wait, and that were given up, by target.
    rows: BTreeMap<String, [u64; 2]>,
    /// Those that wait and are proven by a node.
    proven: BTreeMap<(String, String), u64>,
}

impl BacklogCount {
    pub(in crate::catalog) fn add(&mut self, target: String, [waiting, given_up]: [u64; 2]) {
        let rows = self.rows.entry(target).or_default();
        rows[0] += waiting;
        rows[1] += given_up;
    }

    pub(in crate::catalog) fn add_proven(&mut self, target: String, node: String, rows: u64) {
        *self.proven.entry((target, node)).or_default() += rows;
    }

    /// By target and node, given the nodes of each target. `at_least`: not all rows were looked at.
    pub(in crate::catalog) fn done(self, nodes: &[(String, String)], at_least: bool) -> Vec<TargetBacklog> {
        let mut backlog = Vec::new();
        for (target, [files, given_up]) in self.rows {
            let line = TargetBacklog { target: target.clone(), node: None, files, given_up, at_least };
            let before = backlog.len();
            for (_, node) in nodes.iter().filter(|(of, _)| *of == target) {
                let proven = self.proven.get(&(target.clone(), node.clone())).copied().unwrap_or(0);
                let files = files.saturating_sub(proven);
                backlog.push(TargetBacklog { node: Some(node.clone()), files, ..line.clone() });
            }
            if backlog.len() == before {
                backlog.push(line);
            }
        }
        backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mover(name: &str) -> MoverStand {
        MoverStand { mover: name.to_owned(), beat: 1, ..MoverStand::default() }
    }

    fn lane(rows: &str, holder: Option<&str>) -> LaneRow {
        (rows.to_owned(), "smurf".to_owned(), holder.map(str::to_owned))
    }

    #[test]
    fn lanes_of_those_who_are_gone_are_free() {
        let lanes = [lane("files@b", Some("one")), lane("files@b", None), lane("files@b", Some("gone"))];
        let stand = FleetStand::new(Duration::from_secs(5), vec![mover("two"), mover("one")], &lanes);
        assert_eq!(stand.movers.iter().map(MoverStand::lanes_held).collect::<Vec<_>>(), [1, 0]);
        let all = TargetLanes { target: "smurf".to_owned(), node: Some("b".to_owned()), lanes: 3, free: 2 };
        assert_eq!(stand.lanes, [all]);
    }

    #[tokio::test]
    async fn who_does_not_beat_is_silent_and_who_leaves_is_gone() {
        let mut stand = FleetStand { movers: ["a", "b", "c"].map(mover).to_vec(), ..FleetStand::default() };
        let heartbeat = Duration::from_millis(1);
        let beats = async || Ok::<_, ()>([("a".to_owned(), 2), ("b".to_owned(), 1)].into());
        stand.watch(heartbeat, beats).await.unwrap();
        let silent: Vec<_> = stand.movers.iter().map(|mover| (mover.mover.as_str(), mover.is_silent())).collect();
        assert_eq!(silent, [("a", false), ("b", true)]);
    }

    #[test]
    fn what_a_node_has_proven_waits_there_no_more() {
        let mut count = BacklogCount::default();
        count.add("t".to_owned(), [5, 1]);
        count.add("t".to_owned(), [2, 0]);
        count.add("other".to_owned(), [1, 0]);
        count.add_proven("t".to_owned(), "b".to_owned(), 4);
        let nodes = ["a", "b"].map(|node| ("t".to_owned(), node.to_owned()));
        let told: Vec<_> =
            count.done(&nodes, false).into_iter().map(|line| (line.target, line.node, line.files)).collect();
        let of = |target: &str, node: Option<&str>, files| (target.to_owned(), node.map(str::to_owned), files);
        assert_eq!(told, [of("other", None, 1), of("t", Some("a"), 7), of("t", Some("b"), 3)]);
    }
}
