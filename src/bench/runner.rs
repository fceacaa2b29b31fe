//! Those that are measured take turns, at the same far end and with the same files.

use super::far_end::{FarEnd, rsync};
use super::measure::MachineUse;
use super::report::{ReceivingEnd, Trial};
use super::{BenchError, BenchProgress, Findings, find, measure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone)]
pub struct TransferPlan {
    /// The user's own host; `None` for a private sshd on this machine.
    pub host: Option<String>,
    /// Ids of [`SCENARIOS`](super::transfer::SCENARIOS).
    pub scenarios: Vec<&'static str>,
    pub receivers: Vec<ReceivingEnd>,
    /// Length of a large file, bytes.
    pub size: u64,
    /// Rounds, of which the median counts.
    pub rounds: u32,
    /// Few and small files.
    pub quick: bool,
    /// Where files go on this side.
    pub folder: PathBuf,
    /// Our program at the user's host.
    pub our_path: Option<String>,
}

impl TransferPlan {
    pub(super) fn wants(&self, id: &str) -> bool {
        self.scenarios.contains(&id)
    }
}

/// What the scenarios share.
pub(super) struct Runner<'p> {
    pub(super) plan: TransferPlan,
    pub(super) far: FarEnd,
    /// Stock rsync on this side; without it there is nobody to compare with.
    pub(super) rsync: Option<PathBuf>,
    pub(super) findings: Findings,
    pub(super) scratch: tempfile::TempDir,
    progress: &'p BenchProgress,
}

/// One of those that take turns.
pub(super) struct Contender<'c> {
    /// Whose copy it is, for messages.
    pub(super) by: &'static str,
    pub(super) command: Command,
    /// Done before each round on this side.
    pub(super) prepare: Option<&'c dyn Fn() -> Result<(), BenchError>>,
    /// Done after each round on this side.
    pub(super) prove: Option<&'c dyn Fn() -> Result<(), BenchError>>,
}

impl Contender<'_> {
    pub(super) fn new(by: &'static str, command: Command) -> Self {
        Self { by, command, prepare: None, prove: None }
    }
}

impl<'p> Runner<'p> {
    pub(super) fn start(plan: TransferPlan, progress: &'p BenchProgress) -> Result<Self, BenchError> {
        let scratch = tempfile::Builder::new().prefix("archiver-bench").tempdir_in(&plan.folder);
        let scratch = scratch.map_err(BenchError::local("make a folder in", &plan.folder))?;
        let far = match &plan.host {
            Some(host) => FarEnd::at(host, plan.our_path.as_deref())?,
            None => FarEnd::private(scratch.path())?,
        };
        let mut findings = Findings::default();
        let stock = rsync().and_then(|rsync| find("ssh").map(|_| rsync));
        if let Err(why) = &stock {
            findings.skip("stock rsync", why);
        }
        if plan.host.is_some() {
            findings.notes.push("CPU seconds there are known of a private server only.".to_owned());
        }
        Ok(Self { plan, far, rsync: stock.ok(), findings, scratch, progress })
    }

    pub(super) fn local(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(super) fn say(&self, what: impl Into<String>) {
        self.progress.say(what);
    }

    /// The scenarios whose names begin so are measured.
    pub(super) fn done(&self, name: &str) {
        let done = self.plan.scenarios.iter().filter(|id| id.starts_with(name));
        done.for_each(|_| self.progress.done());
    }

    /// A new empty folder of the scratch place.
    pub(super) fn fresh(&self, name: &str) -> Result<PathBuf, BenchError> {
        let folder = self.local(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(BenchError::local("remove", &folder))?;
        }
        fs::create_dir(&folder).map_err(BenchError::local("make", &folder))?;
        Ok(folder)
    }

    /// Lets all of them take turns, `rounds` times. Before each turn the far end is set up by a script; in the first round
    /// every copy is compared with what it should be.
    pub(super) fn take_turns(
        &mut self,
        scenario: &'static str,
        rounds: u32,
        set_up: &str,
        contenders: &[Contender<'_>],
        expected: Option<&str>,
    ) -> Result<Vec<Vec<Trial>>, BenchError> {
        let mut trials = vec![Vec::new(); contenders.len()];
        for round in 0..rounds.max(1) {
            for (contender, trials) in contenders.iter().zip(&mut trials) {
                self.say(format!("{scenario}: round {} of {}, {}", round + 1, rounds.max(1), contender.by));
                trials.push(self.turn(set_up, contender)?);
                if let Some(expected) = expected.filter(|_| round == 0) {
                    self.compare(scenario, contender.by, expected)?;
                }
            }
        }
        Ok(trials)
    }

    /// One turn of one of them, its far end set up by a script.
    pub(super) fn turn(&mut self, set_up: &str, contender: &Contender<'_>) -> Result<Trial, BenchError> {
        // What the kernel still has to write of that would be measured with the transfer.
        self.far.sh(&format!("{set_up} && {{ sync -f . 2>/dev/null || sync; }}"))?;
        if let Some(prepare) = contender.prepare {
            prepare()?;
        }
        let (before, machine) = (self.far.spent(), MachineUse::now());
        let ran = measure::run(&contender.command, self.scratch.path())?;
        let after = self.far.spent();
        let far_cpu = before.zip(after).map(|(before, after)| after - before);
        let others = machine.zip(MachineUse::now()).zip(far_cpu);
        let others = others.map(|((from, to), far_cpu)| from.others_until(&to, ran.trial.cpu + far_cpu));
        if let Some(prove) = contender.prove {
            prove()?;
        }
        Ok(Trial { far_cpu, others, wire: wire_bytes(&ran.stdout), ..ran.trial })
    }

    /// Whether the copy that somebody has made is what it should be.
    pub(super) fn compare(
        &mut self,
        scenario: &'static str,
        by: &'static str,
        expected: &str,
    ) -> Result<(), BenchError> {
        match self.far.sh(&format!("cd dst && {CONTENT}"))?.trim() == expected {
            true => Ok(()),
            false => Err(BenchError::Unequal { by, scenario }),
        }
    }

    /// Our command, once for each receiver that is asked for and there.
    pub(super) fn receivers(&mut self, scenario: &'static str) -> Vec<(ReceivingEnd, Option<String>)> {
        let mut found = Vec::new();
        for receiver in self.plan.receivers.clone() {
            match self.far.server(receiver) {
                Ok(server) => found.push((receiver, server.map(str::to_owned))),
                Err(why) => self.findings.skip(format!("{scenario} with our own receiver"), why),
            }
        }
        found
    }
}

/// Says what all files of a folder hold together.
const CONTENT: &str = "find . -type f | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 cat | md5sum";

/// What all files of a local folder hold together.
pub(super) fn content(folder: &Path) -> Result<String, BenchError> {
    let output = Command::new("sh").args(["-c", CONTENT]).current_dir(folder).output();
    let output = output.map_err(BenchError::local("read", folder))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Bytes sent and received, as `--stats` says them.
fn wire_bytes(stdout: &str) -> Option<u64> {
    let of = |name: &str| -> Option<u64> {
        let line = stdout.lines().find_map(|line| line.strip_prefix(name))?;
        line.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok()
    };
    Some(of("Total bytes sent:")? + of("Total bytes received:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_give_the_bytes() {
        assert_eq!(wire_bytes("x\nTotal bytes sent: 1,234\nTotal bytes received: 56\n"), Some(1290));
        assert_eq!(wire_bytes("nothing"), None);
    }

    #[test]
    fn the_content_of_a_folder_is_that_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let before = content(folder.path()).unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let one = content(folder.path()).unwrap();
        fs::write(folder.path().join("a"), "2").unwrap();
        assert!(before != one && one != content(folder.path()).unwrap());
    }
}
