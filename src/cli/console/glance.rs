//! How archives stand: by those who archive them, else by their table.

use super::super::flags::console::StatusArgs;
use super::super::output::say;
use super::super::plan;
use crate::catalog;
use crate::console::report::{ProcessReport, StatusReport};
use crate::console::{ArchiveIdentity, table};
use crate::web::ask::{self, AskError};
use anyhow::{Context, Result};
use std::time::Duration;

/// How long a table is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long it is where all of it is to be counted.
const EXACT: Duration = Duration::from_secs(3600);

/// Asks those who run, and the tables of those that nobody runs.
pub(super) async fn glance(each: &[StatusArgs]) -> Result<Vec<ProcessReport>> {
    let choice = each.iter().find_map(|args| args.control.clone()).unwrap_or_default();
    let mut reports: Vec<_> = match ask::running(&choice).await {
        Ok(running) => running.into_iter().map(|running| running.report).collect(),
        // A socket that was named and does not answer: the table may still tell.
        Err(error @ AskError::OutOfReach { .. }) if each.iter().any(has_table) => {
            say(&format!("pysmurf-archiver: {error}"));
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    if each.iter().all(|args| !names(args).is_empty()) {
        let is_meant = |archive: &StatusReport| each.iter().flat_map(names).any(|name| archive.is(name));
        for report in &mut reports {
            report.archives.retain(is_meant);
        }
    }
    for args in each {
        let names = names(args);
        let mut archives = reports.iter().flat_map(|report| &report.archives);
        if !archives.any(|archive| names.is_empty() || names.iter().any(|name| archive.is(name))) {
            reports.push(by_table(args).await?);
        }
    }
    Ok(reports)
}

/// The archives that are asked for by name.
fn names(args: &StatusArgs) -> Vec<&str> {
    args.table.target.iter().chain(&args.table.archive_name).map(String::as_str).collect()
}

fn has_table(args: &StatusArgs) -> bool {
    plan::table(&args.table).is_ok()
}

async fn by_table(args: &StatusArgs) -> Result<ProcessReport> {
    let (database, options) = plan::table(&args.table)
        .context("No archiver answers on this machine, and no table is named to look at instead; name it as for run, or start the archiver")?;
    let name = options.selection.targets.join("+");
    let identity = ArchiveIdentity { name, ..ArchiveIdentity::default() };
    let limit = if args.exact { EXACT } else { LOOK };
    let looked = async {
        let catalog = catalog::inspect(&database, options).await?;
        let mut report = table::status(&catalog, &identity, limit).await;
        if let Ok(report) = &mut report
            && args.exact
        {
            report.archive_stats = catalog.archive_stats().await?;
        }
        catalog::Catalog::close(&catalog).await;
        report
    };
    let archive = looked.await.unwrap_or_else(|error| table::out_of_reach(&identity, &error.to_string()));
    Ok(ProcessReport { archives: vec![archive], ..ProcessReport::default() })
}
