//! `run`: watches tables and copies, alone or as an agent.

mod target;
mod targets;

use super::SOME_FAILED;
use super::console::open_doors;
use super::layers::NamedRun;
use super::output::{Screen, say, start_log};
use crate::console::Consoles;
use crate::disk::open_operator_lock;
use crate::ocs::site::{self, Resolved};
use crate::service::{ServiceRun, runtime};
use anyhow::{Context, Result, bail};
use protocol::chmod::Chmod;
use std::fs::File;
use std::time::Duration;
use target::RunTarget;

/// Watches tables and copies, alone or as an agent. `again` reads command line, variables and file once more.
pub(super) fn run(
    mut targets: Vec<NamedRun>,
    agent: Option<Resolved>,
    again: &dyn Fn() -> Result<Vec<NamedRun>>,
) -> Result<u8> {
    let Some(first) = targets.first().map(|one| one.args.clone()) else { return Ok(0) };
    let mut screen = Screen::new(first.once && !first.service.log.quiet);
    if let Some(agent) = &agent {
        if first.once {
            bail!("Option --once ends by itself, and an agent does not; add --site none to run alone");
        }
        if targets.len() > 1 {
            bail!("An agent works for one target; choose it with --only NAME, and start an agent for each");
        }
        screen.also_to(log_file(agent)?);
        let chmod = agent.agent_class.chmod().and_then(|default| Chmod::parse(default.as_bytes()));
        for one in targets.iter_mut().filter(|one| one.args.chmod.is_none()) {
            one.args.chmod.clone_from(&chmod);
        }
    }
    let wanted = if agent.is_some() { site::log_level(&|name| std::env::var(name).ok())? } else { None };
    start_log(&first.service.log, &screen, wanted);
    let instance = agent.as_ref().map(|agent| agent.instance_id.as_str());
    let mut planned = targets.into_iter().map(|one| RunTarget::plan(one, instance)).collect::<Result<Vec<_>>>()?;
    let runtime = runtime()?;
    let consoles = Consoles::default();
    planned.iter().for_each(|target| consoles.add(&target.run.console));
    let opened = {
        let _within = runtime.enter();
        open_doors(&consoles, &first.doors, first.once)?
    };
    let result = match (agent, planned.pop()) {
        (Some(agent), Some(target)) => runtime.block_on(as_agent(agent, target.run)),
        (_, last) => {
            planned.extend(last);
            runtime.block_on(targets::run(planned, consoles, &screen, again))
        }
    };
    screen.clear();
    drop(opened);
    // A thread that still hangs in a dead file system or database must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// The log file of an agent whose site has a directory for them, as the Python agents keep it.
fn log_file(agent: &Resolved) -> Result<Option<File>> {
    let Some(folder) = agent.log_dir.as_ref().filter(|folder| folder.is_dir()) else { return Ok(None) };
    let path = folder.join(format!("{}.log", agent.agent_address()));
    let file = open_operator_lock(&path);
    file.map(Some).with_context(|| format!("Option --log-dir: cannot write {}", path.display()))
}

async fn as_agent(agent: Resolved, run: ServiceRun) -> Result<u8> {
    for note in &agent.notes {
        tracing::info!("{note}");
    }
    let end = crate::agent::serve(agent, run).await?;
    if end.is_error() {
        say(&format!("pysmurf-archiver: {end}"));
        return Ok(SOME_FAILED);
    }
    Ok(0)
}
