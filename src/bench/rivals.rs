//! Ourselves among other tools that bring files by SSH, in rounds: as far as they are installed here.

mod standings;
mod tools;

use super::link::Relay;
use super::queue::Queue;
use super::report::Trial;
use super::runner::{Contender, Runner, TransferPlan, content};
use super::wan::{LONG, WAN};
use super::{BenchError, BenchProgress};
pub use standings::{RaceResult, Standings};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
pub use tools::OtherTool;
use tools::Tool;

/// What is raced over, by its id.
pub const RACES: [&str; 4] = ["new", "small", "wan-one", "wan"];
/// A round counts in which other work took no larger share of the machine.
pub const OTHERS_MOST: f64 = 0.2;
/// Rounds that are tried for each one that is to count.
const TRIES: u32 = 3;
/// What makes the far end ready.
const SET_UP: &str = "rm -rf dst && mkdir dst";

/// What is to be raced.
pub struct RivalsPlan {
    /// Size, rounds and place; it names no scenario.
    pub transfer: TransferPlan,
    /// Of [`RACES`].
    pub races: Vec<&'static str>,
    /// Further tools of the user's own.
    pub others: Vec<OtherTool>,
}

/// One race.
#[derive(Debug, Clone, Copy)]
struct Race {
    id: &'static str,
    /// How many files of which length.
    files: (usize, u64),
    /// By way of the long link.
    far: bool,
}

impl Race {
    fn of(id: &'static str, plan: &TransferPlan) -> Self {
        let files = match (id, plan.quick) {
            ("small", quick) => (if quick { 40 } else { 10_000 }, 4096),
            ("wan", true) => (4, 500_000),
            ("wan", false) => WAN,
            _ => (1, plan.size),
        };
        Self { id, files, far: id.starts_with("wan") }
    }
}

/// Rounds of one race: of each of the tools what it took.
type RaceRound = Vec<Trial>;

/// Lets all of them race.
///
/// # Errors
/// When there is no private sshd to be had, one of ours fails, or a copy is not equal to its source.
pub fn run(plan: RivalsPlan, progress: &BenchProgress) -> Result<Standings, BenchError> {
    progress.expect(plan.races.len());
    let mut standings = Standings::default();
    let mut runner = Runner::start(plan.transfer.clone(), progress)?;
    for id in RACES.into_iter().filter(|id| plan.races.contains(id)) {
        let race = Race::of(id, &plan.transfer);
        race.run(&mut runner, &plan.others, &mut standings)?;
        progress.done();
    }
    let missing = std::mem::take(&mut runner.findings.skipped);
    standings.skipped.extend(missing.into_iter().filter(|(what, _)| what != "stock rsync"));
    Ok(standings)
}

impl Race {
    fn run(self, runner: &mut Runner<'_>, others: &[OtherTool], standings: &mut Standings) -> Result<(), BenchError> {
        runner.say(format!("{}: making files", self.id));
        let queue = Queue::make(runner, self.files.0, self.files.1)?;
        let relay = self.far.then(|| Self::relay(runner)).transpose()?;
        let reach = match &relay {
            Some(relay) => runner.far.via(&runner.local("home-wan"), relay.address().port())?,
            None => runner.far.reach.clone(),
        };
        let way = tools::RaceWay { reach: &reach, queue: &queue, to: runner.far.path("dst"), far: self.far };
        let mut tools = Vec::new();
        for tool in Tool::all(others) {
            match tool.command(&way, runner) {
                Ok(command) => tools.push((tool.name(), tool.is_ours(), command)),
                Err(why) => standings.skip(tool.name(), &why),
            }
        }
        let (fill, prove) = (|| queue.fill(), || queue.prove());
        let mut racers: Vec<_> = tools.into_iter().map(|(name, ours, command)| Racer { name, ours, command }).collect();
        let expected = content(&queue.folder)?;
        let mut rounds = Rounds::default();
        // A quick run is to work, whatever else is at work.
        let most = runner.plan.rounds * if runner.plan.quick { 1 } else { TRIES };
        while rounds.quiet.len() < runner.plan.rounds as usize && rounds.tried < most {
            rounds.tried += 1;
            let (mut round, mut at) = (RaceRound::new(), 0);
            while at < racers.len() {
                let racer = &racers[at];
                runner.say(format!("{}: round {}, {}", self.id, rounds.tried, racer.name));
                let archiver = racer.name.starts_with("archiver");
                let mut contender = Contender::new("one of the tools", copied(&racer.command));
                contender.prepare = archiver.then_some(&fill as &dyn Fn() -> Result<(), BenchError>);
                contender.prove = archiver.then_some(&prove as &dyn Fn() -> Result<(), BenchError>);
                let done = runner.turn(SET_UP, &contender).and_then(|trial| {
                    let first = rounds.tried == 1;
                    first.then(|| runner.compare(self.id, "one of the tools", &expected)).transpose().map(|_| trial)
                });
                match done {
                    Ok(trial) => {
                        round.push(trial);
                        at += 1;
                    }
                    Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
                    // A stranger's trouble is told, and is not ours.
                    Err(why) if !racer.ours && rounds.tried == 1 => {
                        standings.skip(format!("{} ({})", racer.name, self.id), &why);
                        racers.remove(at);
                    }
                    Err(why) => return Err(why),
                }
            }
            rounds.add(round);
        }
        standings.notes.extend(rounds.notes(self.id, runner.plan.rounds));
        let counted = rounds.counted(runner.plan.rounds);
        for (at, racer) in racers.iter().enumerate() {
            let trials = counted.iter().filter_map(|round| round.get(at).copied()).collect();
            standings.rows.push(RaceResult::new(self.id, &racer.name, &racer.command, trials));
        }
        drop(relay);
        runner.far.sh("rm -rf dst")?;
        runner.fresh("src").map(drop)
    }

    fn relay(runner: &Runner<'_>) -> Result<Relay, BenchError> {
        let port = runner.far.port().ok_or_else(|| BenchError::Setup("There is no private sshd".to_owned()))?;
        let (any, to) = (SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from(([127, 0, 0, 1], port)));
        Relay::start(any, to, LONG).map_err(BenchError::local("relay to", Path::new("the private sshd")))
    }
}

/// One that races.
struct Racer {
    name: String,
    ours: bool,
    command: Command,
}

/// The same command once more.
fn copied(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(name, value),
            None => copy.env_remove(name),
        };
    }
    copy
}

/// Rounds by how quiet the machine was.
#[derive(Default)]
struct Rounds {
    tried: u32,
    quiet: Vec<RaceRound>,
    /// With the largest share that other work took of the machine.
    disturbed: Vec<(f64, RaceRound)>,
}

impl Rounds {
    fn add(&mut self, round: RaceRound) {
        let others = round.iter().filter_map(|trial| trial.others).fold(0.0, f64::max);
        match others > OTHERS_MOST {
            true => self.disturbed.push((others, round)),
            false => self.quiet.push(round),
        }
    }

    /// Those that count: the quiet ones, and where they are too few the least disturbed of the others.
    fn counted(&mut self, wanted: u32) -> Vec<RaceRound> {
        let lacking = (wanted as usize).saturating_sub(self.quiet.len());
        self.disturbed.sort_by(|(one, _), (two, _)| one.total_cmp(two));
        let filled = self.disturbed.drain(..lacking.min(self.disturbed.len())).map(|(_, round)| round);
        self.quiet.drain(..).chain(filled).collect()
    }

    fn notes(&mut self, id: &str, wanted: u32) -> Vec<String> {
        let lacking = (wanted as usize).saturating_sub(self.quiet.len());
        let thrown = self.disturbed.len().saturating_sub(lacking);
        self.disturbed.sort_by(|(one, _), (two, _)| one.total_cmp(two));
        let mut notes = Vec::new();
        if thrown > 0 {
            notes.push(format!(
                "{id}: {thrown} of {} rounds thrown away, as other work took more than a fifth of the machine.",
                self.tried
            ));
        }
        let kept = self.disturbed.iter().take(lacking).next_back();
        if let Some((most, _)) = kept {
            notes.push(format!(
                "{id}: NOT QUIET. In {lacking} of the {wanted} rounds that count other work took up to {:.0} % of the machine; \
                 {} tries brought no quieter ones.",
                most * 100.0,
                self.tried
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(others: f64) -> RaceRound {
        vec![
            Trial { wall: others, others: Some(others / 2.0), ..Trial::default() },
            Trial { wall: others, others: Some(others), ..Trial::default() },
        ]
    }

    #[test]
    fn rounds_that_others_disturb_are_thrown_away_and_said() {
        let mut rounds = Rounds { tried: 5, ..Rounds::default() };
        [0.9, 0.1, 0.3, 0.2, 0.05].into_iter().for_each(|others| rounds.add(round(others)));
        assert_eq!(rounds.notes("new", 3).len(), 1);
        let walls: Vec<_> = rounds.counted(3).iter().map(|round| round[1].wall).collect();
        assert_eq!(walls, [0.1, 0.2, 0.05]);
        let mut rounds = Rounds { tried: 3, ..Rounds::default() };
        [0.9, 0.1, 0.3].into_iter().for_each(|others| rounds.add(round(others)));
        let notes = rounds.notes("new", 2);
        assert!(notes[0].contains("1 of 3 rounds") && notes[1].contains("NOT QUIET. In 1 of the 2"), "{notes:?}");
        let walls: Vec<_> = rounds.counted(2).iter().map(|round| round[1].wall).collect();
        assert_eq!(walls, [0.1, 0.3]);
    }
}
