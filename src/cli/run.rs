//! `run`: watches tables and copies, alone or as an agent.

mod target;
mod targets;

use super::console::open_doors;
use super::flags::NodeArgs;
use super::layers::NamedRun;
use super::output::Screen;
use super::plan;
use super::site::{exit_code, start_log_of};
use crate::console::Consoles;
use crate::ocs::site::Resolved;
use crate::service::runtime;
use anyhow::{Result, bail};
use protocol::chmod::Chmod;
use std::time::Duration;
use target::RunTarget;

/// Copies to relayed storage nodes what those that feed them have proven.
pub(super) fn relay(targets: Vec<NamedRun>, again: &dyn Fn() -> Result<Vec<NamedRun>>) -> Result<u8> {
    for one in &targets {
        let nodes = &one.args.service.nodes;
        if !plan::is_relayed(nodes) {
            let node = nodes.node.as_deref().unwrap_or("none");
            bail!(
                "`relay` is for a storage node that is fed from another one, and {node} is not; `run` copies to it from here"
            );
        }
    }
    run(targets, None, again)
}

/// Takes those out that are left to a relay, beside others that are not: what these lack may come from there.
fn take_relayed(targets: &mut Vec<NamedRun>) -> Vec<NamedRun> {
    let is_left = |one: &NamedRun| plan::is_relayed(&one.args.service.nodes);
    if targets.iter().all(is_left) {
        return Vec::new();
    }
    targets.extract_if(.., |one| is_left(one)).collect()
}

/// Says which storage nodes others are to copy to.
fn leave_relayed(args: &NodeArgs) {
    for (name, from) in plan::left_to_relay(args) {
        tracing::info!(
            event = "left_to_relay",
            "Storage node {name} is fed from {from}, and left to `pysmurf-archiver relay --node {name}` there"
        );
    }
}

/// Watches tables and copies, alone or as an agent. `again` reads command line, variables and file once more.
pub(super) fn run(
    mut targets: Vec<NamedRun>,
    agent: Option<Resolved>,
    again: &dyn Fn() -> Result<Vec<NamedRun>>,
) -> Result<u8> {
    let elsewhere = take_relayed(&mut targets);
    let Some(first) = targets.first().map(|one| one.args.clone()) else { return Ok(0) };
    let mut screen = Screen::new(first.once && !first.service.log.quiet);
    if let Some(agent) = &agent {
        if first.once {
            bail!("Option --once ends by itself, and an agent does not; add --site none to run alone");
        }
        if first.service.batches.is_some() {
            bail!("Option --batches is not for an agent, which works on a table; add --site none to run alone");
        }
        if targets.len() > 1 {
            bail!("An agent works for one target; choose it with --only NAME, and start an agent for each");
        }
        let chmod = agent.agent_class.chmod().and_then(|default| Chmod::parse(default.as_bytes()));
        for one in targets.iter_mut().filter(|one| one.args.chmod.is_none()) {
            one.args.chmod.clone_from(&chmod);
        }
    }
    start_log_of(agent.as_ref(), &first.service.log, &mut screen)?;
    leave_relayed(&first.service.nodes);
    let instance = agent.as_ref().map(|agent| agent.instance_id.as_str());
    let mut planned = targets.into_iter().map(|one| RunTarget::plan(one, instance)).collect::<Result<Vec<_>>>()?;
    RunTarget::introduce(&mut planned, &elsewhere)?;
    let runtime = runtime()?;
    let consoles = Consoles::default();
    planned.iter().for_each(|target| consoles.add(&target.run.console));
    let opened = {
        let _within = runtime.enter();
        open_doors(&consoles, &first.doors, first.once)?
    };
    let result = match (agent, planned.pop()) {
        (Some(agent), Some(target)) => {
            let served = runtime.block_on(crate::agent::serve(agent, target.run));
            served.map(|end| exit_code(&end)).map_err(Into::into)
        }
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
