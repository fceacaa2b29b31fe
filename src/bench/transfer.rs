//! Whole transfers over SSH: our program and stock's against each other, round by round.

use super::far_end::SshReach;
use super::report::{ReceivingEnd, Row};
use super::runner::{Contender, Runner, TransferPlan, content};
use super::scene::{OldCopy, noise, write_noise};
use super::{BenchError, BenchProgress, Findings, find, measure, queue, wan};
use std::fs;
use std::path::Path;
use std::process::Command;
pub use wan::WAN_BYTES;

/// Every scenario, by its id.
pub const SCENARIOS: [&str; 16] = [
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
    "wan-one",
    "wan-lossy",
    "wan-small",
    "wan-push",
    "wan-pull",
];
/// Names for several of them.
pub const GROUPS: [(&str, &[&str]); 3] =
    [("new", &["new-default", "new-gcm"]), ("trickle", &["trickle-agent", "trickle-suprsync"]), ("all", &SCENARIOS)];

/// The files of `small`, bytes.
const SMALL: u64 = 4096;
/// The cipher of `new-gcm`, which stock must be told to use and we use anyway.
const GCM: &str = "aes128-gcm@openssh.com";

/// What stock and we are both told.
struct Duel<'d> {
    /// What makes the far end ready, by a shell there.
    set_up: &'d str,
    /// The files here.
    folder: &'d Path,
    options: &'d [&'d str],
    operands: &'d [String],
    /// The one that stock's ssh is told to take.
    cipher: Option<&'d str>,
}

/// Runs all scenarios of the plan. What cannot be measured is left out and said.
///
/// # Errors
/// When the far end cannot be had, a program fails, or a copy is not equal to its source.
pub fn run(plan: TransferPlan, progress: &BenchProgress) -> Result<Findings, BenchError> {
    progress.expect(plan.scenarios.len());
    let mut runner = Runner::start(plan, progress)?;
    for (id, cipher) in [("new-default", None), ("new-gcm", Some(GCM))] {
        if runner.plan.wants(id) {
            runner.one_file(id, None, cipher)?;
            progress.done();
        }
    }
    for kind in OldCopy::ALL {
        if runner.plan.wants(kind.id()) {
            runner.one_file(kind.id(), Some(kind), None)?;
            progress.done();
        }
    }
    if runner.plan.wants("small") {
        runner.small()?;
        progress.done();
    }
    queue::trickle(&mut runner)?;
    runner.done("trickle");
    wan::run(&mut runner)?;
    runner.done("wan");
    Ok(runner.findings)
}

impl Runner<'_> {
    /// One large file, over an old copy or none.
    fn one_file(&mut self, id: &'static str, old: Option<OldCopy>, cipher: Option<&str>) -> Result<(), BenchError> {
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
        let operands = [source.display().to_string(), to];
        let options = ["-t", "--stats"];
        self.duel(id, &Duel { set_up: &set_up, folder: &folder, options: &options, operands: &operands, cipher })?;
        self.far.sh("rm -rf dst old")?;
        self.fresh("src").map(drop)
    }

    /// Puts the old copy into our folder there.
    fn upload_old(&mut self, kind: OldCopy) -> Result<(), BenchError> {
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
        let operands = [format!("{}/", folder.display()), format!("{}/", self.far.target(&self.far.reach, "dst"))];
        let (set_up, options) = ("rm -rf dst && mkdir dst", ["-rt", "--stats"]);
        self.duel("small", &Duel { set_up, folder: &folder, options: &options, operands: &operands, cipher: None })?;
        self.far.sh("rm -rf dst")?;
        self.fresh("src").map(drop)
    }

    /// Stock against us with the same words, and scp beside them where there is nothing old.
    fn duel(&mut self, id: &'static str, duel: &Duel<'_>) -> Result<(), BenchError> {
        let Duel { set_up, folder, options, operands, cipher } = *duel;
        let reach = self.far.reach.clone();
        let mut contenders = Vec::new();
        if let Some(rsync) = &self.rsync {
            contenders.push(Contender::new("stock rsync", with(reach.stock(rsync, cipher), options, operands)));
        }
        let receivers = self.receivers(id);
        for (receiver, server) in &receivers {
            let by = if *receiver == ReceivingEnd::Stock { "us" } else { "us, our own receiver" };
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

fn scp_command(reach: &SshReach, scp: &Path, operands: &[String]) -> Command {
    let mut command = reach.command(scp);
    command.arg("-q").args(reach.words()).args(operands);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_name_scenarios_that_there_are() {
        assert!(GROUPS.iter().flat_map(|(_, ids)| ids.iter()).all(|id| SCENARIOS.contains(id)));
        assert!(OldCopy::ALL.iter().all(|kind| SCENARIOS.contains(&kind.id())));
    }
}
