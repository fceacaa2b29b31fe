//! What an agent of a site has around it: where its log goes too, and the code with which it ends.

use super::SOME_FAILED;
use super::flags::LogArgs;
use super::output::{Screen, say, start_log};
use crate::disk::open_operator_lock;
use crate::ocs::agent::AgentEnd;
use crate::ocs::site::{self, Resolved};
use anyhow::{Context, Result};
use std::fs::File;

/// Sets the log up, of an agent or of one who runs alone.
pub(super) fn start_log_of(agent: Option<&Resolved>, log: &LogArgs, screen: &mut Screen) -> Result<()> {
    let Some(agent) = agent else {
        start_log(log, screen, None);
        return Ok(());
    };
    screen.also_to(log_file(agent)?);
    start_log(log, screen, site::log_level(&|name| std::env::var(name).ok())?);
    for note in &agent.notes {
        tracing::info!("{note}");
    }
    Ok(())
}

/// The log file of an agent whose site has a directory for them, as the Python agents keep it.
fn log_file(agent: &Resolved) -> Result<Option<File>> {
    let Some(folder) = agent.log_dir.as_ref().filter(|folder| folder.is_dir()) else { return Ok(None) };
    let path = folder.join(format!("{}.log", agent.agent_address()));
    let file = open_operator_lock(&path);
    file.map(Some).with_context(|| format!("Option --log-dir: cannot write {}", path.display()))
}

/// The exit code of one who ended so.
pub(super) fn exit_code(end: &AgentEnd) -> u8 {
    if end.is_error() {
        say(&format!("pysmurf-archiver: {end}"));
        return SOME_FAILED;
    }
    0
}
