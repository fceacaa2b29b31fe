//! `check`: one line for each thing that must be in order, with the remedy. Nothing is written anywhere.

mod database;
mod far_end;
mod report;

use super::flags::RunArgs;
use super::output::{Screen, start_log};
use super::{SOME_FAILED, plan};
use crate::service::runtime;
use anyhow::Result;
use report::CheckReport;

/// Checks all that a `run` with the same flags would need.
pub(super) fn check(args: RunArgs) -> Result<u8> {
    start_log(&args.service.log, &Screen::default(), None);
    let service = plan::service(&args.service)?;
    let mut report = CheckReport::new(args.json, args.service.log.quiet);
    let runtime = runtime()?;
    runtime.block_on(database::check(&service, &mut report));
    // A disk that hangs may hold a thread; nobody waits for it.
    runtime.shutdown_background();
    far_end::check(&service, &mut report);
    Ok(if report.end() { 0 } else { SOME_FAILED })
}
