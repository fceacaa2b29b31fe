//! What the table alone says of how an archive stands.

use super::counts::{TableCounts, bytes_of};
use super::report::{BacklogReport, StatusReport, TroubleKind, TroubleReport};
use super::{ArchiveIdentity, remedy};
use crate::catalog::{AnyCatalog, Catalog, CatalogError, Survey};
use crate::clock::unix_now;
use std::time::Duration;

/// Of a table that was counted.
pub(super) fn backlog(counts: &TableCounts) -> BacklogReport {
    let known = counts.counted.is_some();
    BacklogReport {
        files: known.then_some(counts.totals.pending),
        bytes: Some(counts.backlog_bytes).filter(|bytes| known && (*bytes > 0 || counts.totals.pending == 0)),
        oldest_seconds: counts.oldest.map(age).filter(|_| counts.totals.pending > 0),
        given_up: counts.totals.given_up,
        copied: counts.totals.copied,
        at_least: false,
        counted: counts.counted,
    }
}

fn age(since: f64) -> f64 {
    (unix_now() - since).max(0.0)
}

/// How the archive stands by its table, looked at for about so long.
pub(crate) async fn status(
    catalog: &AnyCatalog,
    identity: &ArchiveIdentity,
    limit: Duration,
) -> Result<StatusReport, CatalogError> {
    let Survey { totals, oldest, complete } = catalog.survey(limit).await?;
    let bytes = match totals.pending {
        0 => Some(0),
        pending if complete => bytes_of(catalog, pending).await,
        _ => None,
    };
    let backlog = BacklogReport {
        files: Some(totals.pending),
        bytes: bytes.filter(|bytes| *bytes > 0 || totals.pending == 0),
        oldest_seconds: oldest.map(age),
        given_up: totals.given_up,
        copied: totals.copied,
        at_least: !complete,
        counted: Some(unix_now()),
    };
    let mut troubles = vec![not_running()];
    troubles.extend(remedy::of_given_up(totals.given_up));
    Ok(StatusReport {
        archive: identity.name.clone(),
        table: catalog.describe(),
        far_end: identity.far_end.clone(),
        time: unix_now(),
        backlog,
        troubles,
        ..StatusReport::default()
    })
}

/// Of a table that cannot be looked at.
pub(crate) fn out_of_reach(identity: &ArchiveIdentity, why: &str) -> StatusReport {
    let remedy = remedy::of_the_database(why).to_owned();
    let trouble = TroubleReport { kind: TroubleKind::Database, why: why.to_owned(), remedy, since: None };
    StatusReport {
        archive: identity.name.clone(),
        far_end: identity.far_end.clone(),
        time: unix_now(),
        troubles: vec![not_running(), trouble],
        ..StatusReport::default()
    }
}

/// Nobody archives, as far as can be seen.
fn not_running() -> TroubleReport {
    TroubleReport {
        kind: TroubleKind::NotRunning,
        why: "No archiver answers on this machine".to_owned(),
        remedy: "If it should run here, start it: `pysmurf-archiver run`, or its service. If it runs elsewhere, ask there; of one \
                 in another place, name the socket by --control"
            .to_owned(),
        since: None,
    }
}

/// The process is there, and archives nothing.
pub(super) fn no_run() -> TroubleReport {
    TroubleReport {
        kind: TroubleKind::NotRunning,
        why: "The process is there, and does not archive".to_owned(),
        remedy: "Start the agent's process run".to_owned(),
        since: None,
    }
}
