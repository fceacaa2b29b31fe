//! What a mover makes of the tables: who lives, which lanes are its own, which it wants and which are to go.

use super::{Claimed, FleetRules, FleetStand, Hold, MoverStand, Serves};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the tables say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Muster {
    /// Each mover by its name.
    pub(crate) movers: HashMap<String, MusteredMover>,
    /// How many movers want lanes of each of our targets, by its place among them.
    pub(crate) servers: HashMap<u32, u32>,
    /// The lanes of our targets.
    pub(crate) lanes: Vec<FleetLane>,
}

/// A mover as the table has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct MusteredMover {
    pub(crate) beat: i64,
    /// What people are told of it.
    pub(crate) told: Option<String>,
}

/// A lane as the table has it.
#[derive(Debug, Clone)]
pub(crate) struct FleetLane {
    /// The place of its target among ours, times the lanes of each, and its own number.
    pub(crate) lane: u32,
    pub(crate) holder: Option<String>,
    pub(crate) taking: i64,
}

/// How another mover's beat was found.
#[derive(Debug, Clone, Copy)]
struct Seen {
    beat: i64,
    /// Our own heartbeats since it changed.
    silent: u32,
    /// It has changed before our eyes.
    lives: bool,
}

pub(crate) struct LanePlan {
    mover: String,
    rules: FleetRules,
    others: HashMap<String, Seen>,
    /// Our lanes with their takings.
    held: BTreeMap<u32, i64>,
    /// Those of them that are to go.
    leaving: BTreeSet<u32>,
    wanted: Vec<u32>,
    claimed: Claimed,
    /// The next look counts the silence of others.
    counts: bool,
}

impl LanePlan {
    pub(crate) fn new(mover: String, rules: FleetRules) -> Self {
        Self {
            mover,
            rules,
            others: HashMap::new(),
            held: BTreeMap::new(),
            leaving: BTreeSet::new(),
            wanted: Vec::new(),
            claimed: Claimed::Unsettled,
            counts: false,
        }
    }

    pub(crate) fn counts(&mut self) {
        self.counts = true;
    }

    /// Plans by what the tables say; whether lanes have come.
    pub(crate) fn see(&mut self, muster: &Muster, serves: Serves) -> bool {
        self.watch(muster);
        let before = std::mem::take(&mut self.held);
        self.held = muster
            .lanes
            .iter()
            .filter(|lane| lane.holder.as_ref() == Some(&self.mover))
            .map(|lane| (lane.lane, lane.taking))
            .collect();
        let came = self.held.iter().any(|(lane, taking)| before.get(lane) != Some(taking));
        self.share(muster, serves);
        let lives = |holder: &Option<String>| {
            holder
                .as_ref()
                .is_some_and(|holder| *holder == self.mover || self.others.get(holder).is_some_and(|seen| seen.lives))
        };
        self.claimed = match muster.lanes.iter().all(|lane| lives(&lane.holder)) {
            true => Claimed::Settled,
            false => Claimed::Unsettled,
        };
        came
    }

    /// Counts for how long each of the others has been silent.
    fn watch(&mut self, muster: &Muster) {
        let counts = u32::from(std::mem::take(&mut self.counts));
        let before = std::mem::take(&mut self.others);
        for (mover, now) in muster.movers.iter().filter(|(mover, _)| **mover != self.mover) {
            let beat = now.beat;
            let seen = match before.get(mover) {
                None => Seen { beat, silent: 0, lives: false },
                Some(seen) if seen.beat != beat => Seen { beat, silent: 0, lives: true },
                Some(seen) => Seen { silent: seen.silent + counts, ..*seen },
            };
            self.others.insert(mover.clone(), seen);
        }
    }

    /// Each target's lanes are shared by those who want some.
    fn share(&mut self, muster: &Muster, serves: Serves) {
        let of = self.rules.lanes;
        let before = std::mem::take(&mut self.leaving);
        self.wanted.clear();
        // Those that are free, by the target: once for all, for there may be hundreds of targets.
        let mut free: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for lane in &muster.lanes {
            let free = free.entry(lane.lane / of).or_default();
            if lane.holder.is_none() {
                free.push(lane.lane);
            }
        }
        for (target, mut free) in free {
            let share = match serves {
                Serves::Lanes => of.div_ceil(muster.servers.get(&target).copied().unwrap_or(1).max(1)) as usize,
                Serves::Nothing => 0,
            };
            let within = target * of..target.saturating_add(1) * of;
            let mut held: Vec<u32> = self.held.range(within).map(|(lane, _)| *lane).collect();
            // Those that were to go go first, then the highest.
            held.sort_by_key(|lane| (before.contains(lane), *lane));
            self.leaving.extend(held.iter().skip(share));
            // So that two who take at once seldom want the same.
            fastrand::shuffle(&mut free);
            self.wanted.extend(free.into_iter().take(share.saturating_sub(held.len())));
        }
    }

    /// Those who have been silent for too long, with their beats.
    pub(crate) fn dead(&self) -> Vec<(String, i64)> {
        let silent = self.others.iter().filter(|(_, seen)| seen.silent >= self.rules.patience);
        silent.map(|(mover, seen)| (mover.clone(), seen.beat)).collect()
    }

    /// How all stands by what was seen last; `rows_of` says by what the rows of a lane are known, and its target.
    pub(super) fn stand(&self, seen: &Muster, rows_of: impl Fn(u32) -> (String, String)) -> FleetStand {
        let mover = |(name, mover): (&String, &MusteredMover)| {
            let silent = match self.others.get(name) {
                Some(seen) if seen.lives || seen.silent > 0 => Some(seen.silent),
                Some(_) => None,
                None => Some(0),
            };
            let (mover, beat, told) = (name.clone(), mover.beat, mover.told.clone());
            MoverStand { mover, told, beat, silent, ..MoverStand::default() }
        };
        let lane = |lane: &FleetLane| {
            let (rows, target) = rows_of(lane.lane);
            (rows, target, lane.holder.clone())
        };
        let lanes: Vec<_> = seen.lanes.iter().map(lane).collect();
        let stand = FleetStand::new(self.rules.heartbeat, seen.movers.iter().map(mover).collect(), &lanes);
        FleetStand { me: Some(self.mover.clone()), ..stand }
    }

    /// Free lanes up to our share.
    pub(crate) fn wanted(&self) -> Vec<u32> {
        self.wanted.clone()
    }

    pub(crate) fn leaving(&self) -> &BTreeSet<u32> {
        &self.leaving
    }

    /// These lanes are given back.
    pub(crate) fn gave(&mut self, lanes: &[u32]) {
        for lane in lanes {
            self.held.remove(lane);
            self.leaving.remove(lane);
        }
    }

    /// The lanes whose rows may be taken up, with their takings.
    pub(crate) fn working(&self) -> BTreeMap<u32, i64> {
        let working = self.held.iter().filter(|(lane, _)| !self.leaving.contains(lane));
        working.map(|(lane, taking)| (*lane, *taking)).collect()
    }

    pub(super) fn holds(&self, hold: Hold) -> bool {
        self.held.get(&hold.lane) == Some(&hold.taking)
    }

    pub(super) fn claimed(&self) -> Claimed {
        self.claimed
    }
}
