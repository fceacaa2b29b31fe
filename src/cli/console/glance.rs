//! How archives stand: by those who archive them, else by their table.

use super::super::flags::console::StatusArgs;
use super::super::plan;
use crate::catalog;
use crate::console::report::ProcessReport;
use crate::console::{ArchiveIdentity, table};
use crate::web::ask::{self, AskError};
use anyhow::{Context, Result};
use std::time::Duration;

/// How long a table is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long it is where all of it is to be counted.
const EXACT: Duration = Duration::from_secs(3600);

/// Asks those who run, and the table where none of them is meant.
pub(super) async fn glance(args: &StatusArgs) -> Result<Vec<ProcessReport>> {
    let choice = args.control.clone().unwrap_or_default();
    let running = ask::running(&choice).await;
    let named = names(args);
    let mut reports: Vec<_> = match running {
        Ok(running) => running.into_iter().map(|running| running.report).collect(),
        // A socket that was named and does not answer: the table may still tell.
        Err(error @ AskError::OutOfReach { .. }) if has_table(args) => {
            tracing::warn!("{error}");
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    if !named.is_empty() {
        for report in &mut reports {
            report.archives.retain(|archive| named.iter().any(|name| archive.is(name)));
        }
        reports.retain(|report| !report.archives.is_empty());
    }
    if reports.is_empty() {
        reports.push(by_table(args).await?);
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
        let report = table::status(&catalog, &identity, limit).await;
        catalog::Catalog::close(&catalog).await;
        report
    };
    let archive = looked.await.unwrap_or_else(|error| table::out_of_reach(&identity, &error.to_string()));
    Ok(ProcessReport { archives: vec![archive], ..ProcessReport::default() })
}
