//! `check`: one line for each thing that must be in order, with the remedy. Nothing is written anywhere.

mod database;
mod far_end;
mod report;

use super::layers::NamedRun;
use super::output::{Screen, start_log};
use super::{SOME_FAILED, plan};
use crate::service::runtime;
use anyhow::Result;
use report::CheckReport;

/// Checks all that a `run` with the same flags would need, for each target by its name.
pub(super) fn check(targets: Vec<NamedRun>) -> Result<u8> {
    let Some(NamedRun { args: first, .. }) = targets.first() else { return Ok(0) };
    let left = plan::left_to_relay(&first.service.nodes);
    start_log(&first.service.log, &Screen::default(), None);
    let mut report = CheckReport::new(first.json, first.service.log.quiet);
    // All are read before the first is tried: what cannot be used is said at once.
    let services = targets.iter().map(|one| Ok((&one.target, plan::service(&one.args.service)?)));
    for (target, service) in services.collect::<Result<Vec<_>>>()? {
        report.begin(target.as_deref());
        let runtime = runtime()?;
        runtime.block_on(database::check(&service, &mut report));
        // A disk that hangs may hold a thread; nobody waits for it.
        runtime.shutdown_background();
        far_end::check(&service, &mut report);
    }
    report.begin(None);
    for (name, from) in left {
        let why = format!("it is fed from {from}; `check --node {name}` there looks at it");
        report.not_checked(&[&format!("node {name}")], &why);
    }
    Ok(if report.end() { 0 } else { SOME_FAILED })
}
