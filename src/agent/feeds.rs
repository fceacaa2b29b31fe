//! The feeds that are recorded: one of ours, and those of the SupRsync agent.

use crate::catalog::ArchiveStats;
use crate::clock::unix_now;
use crate::console::TableCounts;
use crate::ocs::feeds::Block;
use crate::service::Service;
use crate::status::Snapshot;

/// The feed besides those of the old agents.
pub(super) const FEED: &str = "archiver";
/// Feeds of the SupRsync agent.
pub(super) const TRANSFERS: &str = "transfer_stats";
pub(super) const ARCHIVE: &str = "archive_stats";

pub(super) fn block(now: &Snapshot, before: &Snapshot, table: &TableCounts) -> Block {
    let seconds = (now.seconds - before.seconds).max(0.001);
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let per_session = now
        .session_bytes
        .iter()
        .enumerate()
        .map(|(number, bytes)| rate(*bytes, before.session_bytes.get(number).copied().unwrap_or_default()));
    let sessions = now.session_bytes.len().max(1) as f64;
    let [missing, unreadable, changed, refused, row] = now.failures;
    Block::sample(FEED, unix_now())
        .int("backlog_files", int(table.totals.pending))
        .int("backlog_bytes", int(table.backlog_bytes))
        .float("oldest_pending_age", table.oldest.map_or(0.0, |oldest| (unix_now() - oldest).max(0.0)))
        .int("given_up", int(table.totals.given_up))
        .int("copied", int(now.copied))
        .int("failed_attempts", int(now.failed))
        .int("failed_missing", int(missing))
        .int("failed_unreadable", int(unreadable))
        .int("failed_changed", int(changed))
        .int("failed_refused", int(refused))
        .int("failed_row", int(row))
        .int("literal_bytes", int(now.literal_bytes))
        .int("matched_bytes", int(now.matched_bytes))
        .float("rate_bytes_per_s", rate(now.read_bytes, before.read_bytes))
        .float("session_rate_mean", per_session.clone().fold(0.0, |sum, rate| sum + rate) / sessions)
        .float("session_rate_least", per_session.reduce(f64::min).unwrap_or(0.0))
        .float("last_proven_time", now.last_proven.as_ref().map_or(0.0, |(time, _)| *time))
        .text("last_proven", now.last_proven.as_ref().map_or("", |(_, path)| path))
        .int("link_troubles", int(now.link_troubles))
        .int("database_troubles", int(now.database_troubles))
}

pub(super) fn transfer_block(now: &Snapshot) -> Block {
    counters(now).into_iter().fold(Block::sample("block0", unix_now()), |block, (name, count)| block.int(name, count))
}

/// Named as the archive.
pub(super) fn archive_block(service: &Service, stats: &ArchiveStats) -> Block {
    let name = service.options.selection.targets.first().map_or("archive", String::as_str);
    Block::sample(name, unix_now())
        .float("finalized_until", stats.finalized_until)
        .int("num_files", stats.num_files)
        .int("uncopied_files", stats.uncopied_files)
        .text("last_file_added", &stats.last_file_added)
        .text("last_file_copied", &stats.last_file_copied)
}

/// SupRsync's five counters, as near as ours come to them.
pub(super) fn counters(now: &Snapshot) -> [(&'static str, i64); 5] {
    [
        ("iterations", int(now.passes)),
        ("copies", int(now.copied + now.failed)),
        ("errors_timeout", int(now.timeouts)),
        ("errors_nonzero", int(now.link_troubles.saturating_sub(now.timeouts))),
        ("errors_sqlite", int(now.database_troubles)),
    ]
}

fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
