//! A day of a whole observatory in seconds: many servers, some archivers that share them, one link to the archive, and the
//! troubles that a day brings. Lanes are shared by the very code that shares them in a fleet; clock, table and links are
//! simulated. What it shows is queues, not programs: how fast a program is, `bench transfer` tells.

mod troubles;

use crate::catalog::{FleetLane, FleetRules, LanePlan, Muster, MusteredMover, Serves};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use troubles::Troubles;

/// Seconds of a step, which is a heartbeat.
const STEP: u64 = 5;
/// Steps of a day.
const DAY: u64 = 86_400 / STEP;
/// Bytes a second of a server on average: 60,000 detectors on 40 servers write a petabyte a year.
const WRITTEN: f64 = 800_000.0;
/// Rows a second of a server on average.
const ROWS: f64 = 2.5;
/// The link to the archive, bytes a second, for all.
const LINK: f64 = 1.25e9;
/// What one archiver brings over it at 100 ms: sixteen sessions with a window of 2 MiB each.
const MOVER: f64 = 16.0 * (2 << 20) as f64 / 0.1;
/// Rows a second that one archiver copies at most, however small they are.
const MOVER_ROWS: f64 = 1_500.0;
/// Rows that are recorded in one transaction.
const RECORDED: f64 = 100.0;
/// Statements of a mover in a heartbeat: its fence, and three looks.
const HEARTBEAT: f64 = 4.0;
/// Statements of a transaction besides those of its rows: begin, fence, proofs, commit.
const TRANSACTION: f64 = 4.0;
/// Cheap questions for new rows, a second.
const QUESTIONS: f64 = 10.0;

/// One day to be simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Day {
    /// Servers that write files.
    pub(crate) servers: u32,
    /// Archivers.
    pub(crate) movers: u32,
    /// Of what comes by chance.
    pub(crate) seed: u64,
}

/// What a day came to.
#[derive(Debug, Clone)]
pub(crate) struct DayReport {
    day: Day,
    bytes: f64,
    rows: f64,
    /// Bytes that waited at most.
    most: f64,
    /// Seconds from the row to its copy, of half of the rows, of 99 in 100, and of the last one.
    waits: [f64; 3],
    /// The longest mean wait of a server, over that of all.
    unfair: f64,
    /// Hours from the end of the last trouble until all were copied as soon as they came.
    catching_up: f64,
    evicted: u32,
    /// Statements of the database, a second: on average, and in the step with most.
    statements: [f64; 2],
    /// Gigabytes that wait, by the hour.
    pub(crate) waiting: Vec<(f64, f64)>,
}

/// Files of a server that came in one step.
#[derive(Clone, Copy)]
struct Came {
    at: u64,
    bytes: f64,
    rows: f64,
}

struct SimulatedMover {
    name: String,
    beat: i64,
    /// `None` while it does not run.
    plan: Option<LanePlan>,
}

struct World {
    day: Day,
    rules: FleetRules,
    troubles: Troubles,
    chance: fastrand::Rng,
    now: u64,
    movers: Vec<SimulatedMover>,
    /// Names of all that ever joined.
    joined: u32,
    /// The tables: rows of those that died, too.
    tables: Muster,
    queues: Vec<VecDeque<Came>>,
    waiting: f64,
    /// Rows by the steps that they waited.
    waits: BTreeMap<u64, f64>,
    /// Of each server: rows, and the sum of their waits.
    by_server: Vec<(f64, f64)>,
    evicted: u32,
    statements: f64,
    most_statements: f64,
}

/// Simulates a day, and what follows of it until nothing waits, for at most two more.
pub(crate) fn simulate(day: Day) -> DayReport {
    // The plan takes lanes by chance.
    fastrand::seed(day.seed);
    let rules = FleetRules { lanes: 8, heartbeat: Duration::from_secs(STEP), patience: 6 };
    let lanes = day.servers * rules.lanes;
    let mut world = World {
        day,
        rules,
        troubles: Troubles::of(day.movers, day.seed),
        chance: fastrand::Rng::with_seed(day.seed),
        now: 0,
        movers: Vec::new(),
        joined: 0,
        tables: Muster {
            lanes: (0..lanes).map(|lane| FleetLane { lane, holder: None, taking: 0 }).collect(),
            ..Muster::default()
        },
        queues: vec![VecDeque::new(); lanes as usize],
        waiting: 0.0,
        waits: BTreeMap::new(),
        by_server: vec![(0.0, 0.0); day.servers as usize],
        evicted: 0,
        statements: 0.0,
        most_statements: 0.0,
    };
    world.movers = (0..day.movers).map(|_| SimulatedMover { name: String::new(), beat: 0, plan: None }).collect();
    world.run()
}

impl World {
    fn run(mut self) -> DayReport {
        let mut report = DayReport {
            day: self.day,
            bytes: 0.0,
            rows: 0.0,
            most: 0.0,
            waits: [0.0; 3],
            unfair: 0.0,
            catching_up: 0.0,
            evicted: 0,
            statements: [0.0; 2],
            waiting: Vec::new(),
        };
        let mut lagging = 0;
        while self.now < DAY || (self.waiting > 0.5 && self.now < 3 * DAY) {
            if self.now < DAY {
                let (bytes, rows) = self.write();
                report.bytes += bytes;
                report.rows += rows;
            }
            let before = self.statements;
            if !self.troubles.database_stands(self.now) {
                self.share();
                self.copy();
            }
            self.most_statements = self.most_statements.max(self.statements - before);
            report.most = report.most.max(self.waiting);
            // Less than comes in a minute is no queue.
            if self.waiting > WRITTEN * f64::from(self.day.servers) * 60.0 {
                lagging = self.now;
            }
            if self.now.is_multiple_of(600 / STEP) {
                report.waiting.push((self.now as f64 * STEP as f64 / 3600.0, self.waiting / 1e9));
            }
            self.now += 1;
        }
        report.waits = [0.5, 0.99, 1.0].map(|share| self.wait(share));
        report.unfair = self.unfairness();
        report.catching_up = lagging.saturating_sub(self.troubles.last_end()) as f64 * STEP as f64 / 3600.0;
        report.evicted = self.evicted;
        let seconds = self.now as f64 * STEP as f64;
        report.statements = [self.statements / seconds, self.most_statements / STEP as f64];
        report
    }

    /// What the servers write in a step; bytes and rows.
    fn write(&mut self) -> (f64, f64) {
        let burst = self.troubles.burst(self.now);
        let (mut all_bytes, mut all_rows) = (0.0, 0.0);
        for server in 0..self.day.servers {
            let much = burst * (0.5 + self.chance.f64()) * STEP as f64;
            let (bytes, rows) = (WRITTEN * much, ROWS * much);
            let lane = server * self.rules.lanes + self.chance.u32(0..self.rules.lanes);
            self.queues[lane as usize].push_back(Came { at: self.now, bytes, rows });
            all_bytes += bytes;
            all_rows += rows;
        }
        self.waiting += all_bytes;
        (all_bytes, all_rows)
    }

    /// A heartbeat of each mover: who is there, who is gone, whose the lanes are.
    fn share(&mut self) {
        for at in 0..self.movers.len() {
            let runs = self.troubles.runs(at, self.now);
            match (self.movers[at].plan.is_some(), runs) {
                (false, true) => self.join(at),
                // It is killed: its row and its lanes stay behind.
                (true, false) => self.movers[at].plan = None,
                _ => {}
            }
        }
        for at in 0..self.movers.len() {
            if self.movers[at].plan.is_some() {
                self.beat(at);
            }
        }
    }

    fn join(&mut self, at: usize) {
        self.joined += 1;
        let name = format!("mover{at}.{}", self.joined);
        let plan = Some(LanePlan::new(name.clone(), self.rules));
        self.tables.movers.insert(name.clone(), MusteredMover::default());
        self.counted();
        self.movers[at] = SimulatedMover { name, beat: 0, plan };
    }

    fn beat(&mut self, at: usize) {
        let mover = &mut self.movers[at];
        let Some(mut plan) = mover.plan.take() else { return };
        mover.beat += 1;
        let name = mover.name.clone();
        if let Some(seen) = self.tables.movers.get_mut(&name) {
            seen.beat = self.movers[at].beat;
        }
        self.statements += HEARTBEAT + QUESTIONS * STEP as f64;
        plan.counts();
        plan.see(&self.tables, Serves::Lanes);
        for (dead, _) in plan.dead() {
            self.tables.movers.remove(&dead);
            self.counted();
            self.evicted += 1;
            self.statements += 3.0;
            self.free(|holder| holder == dead);
        }
        let leaving: BTreeSet<u32> = plan.leaving().clone();
        let wanted = plan.wanted();
        if !leaving.is_empty() || !wanted.is_empty() {
            // What is in flight of a lane is done within a step.
            for &lane in &leaving {
                self.tables.lanes[lane as usize].holder = None;
            }
            for &lane in wanted.iter() {
                let lane = &mut self.tables.lanes[lane as usize];
                if lane.holder.is_none() {
                    lane.holder = Some(name.clone());
                    lane.taking += 1;
                }
            }
            self.statements += 6.0;
            plan.see(&self.tables, Serves::Lanes);
        }
        self.movers[at].plan = Some(plan);
    }

    fn free(&mut self, of: impl Fn(&str) -> bool) {
        for lane in &mut self.tables.lanes {
            if lane.holder.as_deref().is_some_and(&of) {
                lane.holder = None;
            }
        }
    }

    /// All serve all targets; those that died, until they are evicted.
    fn counted(&mut self) {
        let serving = u32::try_from(self.tables.movers.len()).unwrap_or(u32::MAX);
        self.tables.servers = (0..self.day.servers).map(|server| (server, serving)).collect();
    }

    /// What the movers copy in a step, each of its own lanes, the oldest rows first.
    fn copy(&mut self) {
        let working: Vec<Vec<u32>> = self
            .movers
            .iter()
            .filter_map(|mover| mover.plan.as_ref())
            .map(|plan| plan.working().keys().copied().filter(|lane| !self.queues[*lane as usize].is_empty()).collect())
            .filter(|lanes: &Vec<u32>| !lanes.is_empty())
            .collect();
        let link = LINK * self.troubles.link(self.now) / working.len().max(1) as f64;
        for lanes in working {
            let mut bytes = link.min(MOVER) * STEP as f64;
            let mut rows = MOVER_ROWS * STEP as f64;
            let mut heads: BTreeSet<(u64, u32)> =
                lanes.iter().filter_map(|&lane| Some((self.queues[lane as usize].front()?.at, lane))).collect();
            let mut done = 0.0;
            while let Some((at, lane)) = heads.pop_first() {
                let queue = &mut self.queues[lane as usize];
                let Some(came) = queue.front_mut() else { continue };
                let part = (bytes / came.bytes).min(rows / came.rows).min(1.0);
                let (moved, copied) = (came.bytes * part, came.rows * part);
                came.bytes -= moved;
                came.rows -= copied;
                (bytes, rows, done) = (bytes - moved, rows - copied, done + copied);
                self.waiting = (self.waiting - moved).max(0.0);
                *self.waits.entry(self.now - at).or_default() += copied;
                let server = &mut self.by_server[(lane / self.rules.lanes) as usize];
                *server = (server.0 + copied, server.1 + copied * (self.now - at) as f64);
                if part < 1.0 {
                    break;
                }
                queue.pop_front();
                heads.extend(queue.front().map(|came| (came.at, lane)));
            }
            self.statements += done + TRANSACTION * (done / RECORDED).ceil();
        }
    }

    /// Seconds within which this share of the rows was copied.
    fn wait(&self, share: f64) -> f64 {
        let all: f64 = self.waits.values().sum();
        let mut sum = 0.0;
        for (steps, rows) in &self.waits {
            sum += rows;
            if sum >= all * share * (1.0 - 1e-9) {
                // It comes at any time of its step.
                return (*steps as f64 + 0.5) * STEP as f64;
            }
        }
        0.0
    }

    fn unfairness(&self) -> f64 {
        let means = self.by_server.iter().filter(|(rows, _)| *rows > 0.0).map(|(rows, waits)| waits / rows + 0.5);
        let (mut worst, mut sum, mut count) = (0.0f64, 0.0, 0.0);
        for mean in means {
            (worst, sum, count) = (worst.max(mean), sum + mean, count + 1.0);
        }
        if sum > 0.0 { worst * count / sum } else { 1.0 }
    }
}

impl DayReport {
    /// The heads of the table that [`DayReport::line`] has the lines of.
    pub(crate) const HEADS: [&str; 11] = [
        "servers",
        "movers",
        "TB",
        "rows",
        "waiting GB",
        "half s",
        "99 % s",
        "last h",
        "worst server",
        "behind h",
        "SQL/s (most)",
    ];

    pub(crate) fn cells(&self) -> [String; 11] {
        [
            self.day.servers.to_string(),
            self.day.movers.to_string(),
            format!("{:.1}", self.bytes / 1e12),
            format!("{:.0}", self.rows),
            format!("{:.0}", self.most / 1e9),
            format!("{:.0}", self.waits[0]),
            format!("{:.0}", self.waits[1]),
            format!("{:.1}", self.waits[2] / 3600.0),
            format!("{:.2}", self.unfair),
            format!("{:.1}", self.catching_up),
            format!("{:.0} ({:.0})", self.statements[0], self.statements[1]),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "servers": self.day.servers, "movers": self.day.movers, "bytes": self.bytes, "rows": self.rows,
            "waiting_most_bytes": self.most, "wait_median_s": self.waits[0], "wait_p99_s": self.waits[1],
            "wait_most_s": self.waits[2], "worst_server": self.unfair, "behind_after_h": self.catching_up,
            "evicted": self.evicted, "statements_per_s": self.statements[0], "statements_per_s_most": self.statements[1],
        })
    }

    pub(crate) fn name(&self) -> String {
        format!("{} movers", self.day.movers)
    }

    pub(crate) fn servers(&self) -> u32 {
        self.day.servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_copied_whole_by_enough_movers_and_the_same_each_time() {
        let day = Day { servers: 3, movers: 3, seed: 1 };
        let report = simulate(day);
        let copied: f64 = report.rows;
        assert!((copied / (3.0 * ROWS * 86_400.0) - 1.4).abs() < 0.2, "{copied}");
        assert!(report.evicted >= 1, "one of them was killed");
        // Two hours without the node, and an hour's burst.
        assert!(report.waits[0] < 60.0 && report.waits[2] > 3600.0, "{:?}", report.waits);
        assert!(report.catching_up < 1.0 && report.unfair < 1.5, "{report:?}");
        assert_eq!(report.waiting, simulate(day).waiting);
    }
}
