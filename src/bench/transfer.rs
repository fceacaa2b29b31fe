//! Whole transfers over SSH: our program and stock's against each other, round by round.

use super::far_end::{FarEnd, Reach, rsync};
use super::report::{Receiver, Row, Trial};
use super::scene::{Kind, noise, write_noise};
use super::{BenchError, Findings, Progress, find, measure, queue};
pub use queue::WAN_BYTES;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every scenario, by its id.
pub const SCENARIOS: [&str; 11] = [
    "new-default",
    "new-gcm",
    "small",
    "trickle-agent",
    "trickle-suprsync",
    "identical",
    "changed",
    "inserted",
    "appended",
    "unrelated",
    "wan",
];
/// Names for several of them.
pub const GROUPS: [(&str, &[&str]); 3] =
    [("new", &["new-default", "new-gcm"]), ("trickle", &["trickle-agent", "trickle-suprsync"]), ("all", &SCENARIOS)];

/// The files of `small`, bytes.
const SMALL: u64 = 4096;
/// The cipher of `new-gcm`, which stock must be told to use and we use anyway.
const GCM: &str = "aes128-gcm@openssh.com";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The user's own host; `None` for a private sshd on this machine.
    pub host: Option<String>,
    /// Ids of [`SCENARIOS`].
    pub scenarios: Vec<&'static str>,
    /// Who receives.
    pub receivers: Vec<Receiver>,
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

impl Plan {
    pub(super) fn wants(&self, id: &str) -> bool {
        self.scenarios.contains(&id)
    }
}

/// Runs all scenarios of the plan. What cannot be measured is left out and said.
///
/// # Errors
/// When the far end cannot be had, a program fails, or a copy is not equal to its source.
pub fn run(plan: Plan, progress: &Progress) -> Result<Findings, BenchError> {
    let mut runner = Runner::start(plan, progress)?;
    for (id, cipher) in [("new-default", None), ("new-gcm", Some(GCM))] {
        if runner.plan.wants(id) {
            runner.one_file(id, None, cipher)?;
        }
    }
    for kind in Kind::ALL {
        if runner.plan.wants(kind.id()) {
            runner.one_file(kind.id(), Some(kind), None)?;
        }
    }
    if runner.plan.wants("small") {
        runner.small()?;
    }
    queue::trickle(&mut runner)?;
    queue::wan(&mut runner)?;
    Ok(runner.findings)
}

/// What the scenarios share.
pub(super) struct Runner<'p> {
    pub(super) plan: Plan,
    pub(super) far: FarEnd,
    /// Stock rsync on this side; without it there is nobody to compare with.
    pub(super) rsync: Option<PathBuf>,
    pub(super) findings: Findings,
    pub(super) scratch: tempfile::TempDir,
    progress: &'p Progress,
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
    pub(super) fn start(plan: Plan, progress: &'p Progress) -> Result<Self, BenchError> {
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
                // What the kernel still has to write of that would be measured with the transfer.
                self.far.sh(&format!("{set_up} && {{ sync -f . 2>/dev/null || sync; }}"))?;
                if let Some(prepare) = contender.prepare {
                    prepare()?;
                }
                let before = self.far.spent();
                let ran = measure::run(&contender.command, self.scratch.path())?;
                let after = self.far.spent();
                let far_cpu = before.zip(after).map(|(before, after)| after - before);
                trials.push(Trial { far_cpu, wire: wire_bytes(&ran.stdout), ..ran.trial });
                if let Some(prove) = contender.prove {
                    prove()?;
                }
                if round == 0
                    && let Some(expected) = expected
                    && self.far.sh(&format!("cd dst && {CONTENT}"))?.trim() != expected
                {
                    return Err(BenchError::Unequal { by: contender.by, scenario });
                }
            }
        }
        Ok(trials)
    }

    /// Our command, once for each receiver that is asked for and there.
    pub(super) fn receivers(&mut self, scenario: &'static str) -> Vec<(Receiver, Option<String>)> {
        let mut found = Vec::new();
        for receiver in self.plan.receivers.clone() {
            match self.far.server(receiver) {
                Ok(server) => found.push((receiver, server.map(str::to_owned))),
                Err(why) => self.findings.skip(format!("{scenario} with our own receiver"), why),
            }
        }
        found
    }

    /// One large file, over an old copy or none.
    fn one_file(&mut self, id: &'static str, old: Option<Kind>, cipher: Option<&str>) -> Result<(), BenchError> {
        self.say(format!("{id}: making files"));
        let folder = self.fresh("src")?;
        let source = folder.join("data");
        write_noise(&source, self.plan.size, 1)?;
        let mut set_up = "rm -rf dst && mkdir dst".to_owned();
        if let Some(kind) = old {
            self.upload_old(kind)?;
            // Not cp: on some file systems it shares the blocks, and then nothing of the copy is in memory.
            set_up.push_str(" && dd if=old of=dst/data bs=1M 2>/dev/null && touch -d @1000000000 dst/data");
        }
        let to = format!("{}/", self.far.target(&self.far.reach, "dst"));
        self.duel(id, &set_up, &folder, &[source.display().to_string(), to], &["-t", "--stats"], cipher)?;
        self.far.sh("rm -rf dst old")?;
        self.fresh("src").map(drop)
    }

    /// Puts the old copy into our folder there.
    fn upload_old(&mut self, kind: Kind) -> Result<(), BenchError> {
        let len =
            usize::try_from(self.plan.size).map_err(|error| BenchError::Setup(format!("Option --size: {error}")))?;
        let old = self.local("old");
        fs::write(&old, kind.old_copy(&noise(len, 1))).map_err(BenchError::local("write", &old))?;
        let mut command = self.far.reach.ours(None)?;
        command.arg("-W").arg(&old).arg(self.far.target(&self.far.reach, "old"));
        measure::run(&command, self.scratch.path())?;
        fs::remove_file(&old).map_err(BenchError::local("remove", &old))
    }

    /// Many small files, none there.
    fn small(&mut self) -> Result<(), BenchError> {
        self.say("small: making files");
        let folder = self.fresh("src")?;
        let many = if self.plan.quick { 200 } else { 10_000 };
        for number in 0..many {
            let subfolder = folder.join(format!("{:03}", number / 100));
            if number % 100 == 0 {
                fs::create_dir(&subfolder).map_err(BenchError::local("make", &subfolder))?;
            }
            write_noise(&subfolder.join(format!("{number:05}.dat")), SMALL, number)?;
        }
        let words = [format!("{}/", folder.display()), format!("{}/", self.far.target(&self.far.reach, "dst"))];
        self.duel("small", "rm -rf dst && mkdir dst", &folder, &words, &["-rt", "--stats"], None)?;
        self.far.sh("rm -rf dst")?;
        self.fresh("src").map(drop)
    }

    /// Stock against us with the same words, and scp beside them where there is nothing old.
    fn duel(
        &mut self,
        id: &'static str,
        set_up: &str,
        folder: &Path,
        operands: &[String],
        options: &[&str],
        cipher: Option<&str>,
    ) -> Result<(), BenchError> {
        let reach = self.far.reach.clone();
        let mut contenders = Vec::new();
        if let Some(rsync) = &self.rsync {
            contenders.push(Contender::new("stock rsync", with(reach.stock(rsync, cipher), options, operands)));
        }
        let receivers = self.receivers(id);
        for (receiver, server) in &receivers {
            let by = if *receiver == Receiver::Stock { "us" } else { "us, our own receiver" };
            contenders.push(Contender::new(by, with(reach.ours(server.as_deref())?, options, operands)));
        }
        if id == "new-default"
            && let Ok(scp) = find("scp")
        {
            contenders.push(Contender::new("scp", scp_command(&reach, &scp, operands)));
        }
        let expected = content(folder)?;
        let trials = self.take_turns(id, self.plan.rounds, set_up, &contenders, Some(&expected))?;
        let theirs = if self.rsync.is_some() { &trials[0][..] } else { &[] };
        let first = usize::from(self.rsync.is_some());
        for ((receiver, _), ours) in receivers.iter().zip(&trials[first..]) {
            self.findings.rows.push(Row::of_times(id, Some(*receiver), (ours, 1.0), (theirs, 1.0), "s"));
        }
        if contenders.last().is_some_and(|last| last.by == "scp")
            && let (Some(scp), Some((receiver, _))) = (trials.last(), receivers.first())
        {
            self.findings.rows.push(Row::of_times("new-scp", Some(*receiver), (&trials[first], 1.0), (scp, 1.0), "s"));
        }
        Ok(())
    }
}

fn with(mut command: Command, options: &[&str], operands: &[String]) -> Command {
    command.args(options).args(operands);
    command
}

fn scp_command(reach: &Reach, scp: &Path, operands: &[String]) -> Command {
    let mut command = reach.command(scp);
    command.arg("-q").args(reach.words()).args(operands);
    command
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
    fn groups_name_scenarios_that_there_are() {
        assert!(GROUPS.iter().flat_map(|(_, ids)| ids.iter()).all(|id| SCENARIOS.contains(id)));
        assert!(Kind::ALL.iter().all(|kind| SCENARIOS.contains(&kind.id())));
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
