//! The session data of `run`: what clients see of it.

use super::feeds::counters;
use crate::archiver::control::Control;
use crate::clock::unix_now;
use crate::console::TableCounts;
use crate::status::{LastCopy, Ongoing, Snapshot};
use serde_json::{Map, Value, json};

/// What every archive has, as the docstring of `run` tells it.
pub(super) fn session_data(now: &Snapshot, table: &TableCounts, control: &Control) -> Map<String, Value> {
    let [missing, unreadable, changed, refused, row] = now.failures;
    let archiver = json!({
        "copied": now.copied,
        "failed_attempts": now.failed,
        "read_bytes": now.read_bytes,
        "literal_bytes": now.literal_bytes,
        "matched_bytes": now.matched_bytes,
        "pending": table.totals.pending,
        "given_up": table.totals.given_up,
        "link_troubles": now.link_troubles,
        "database_troubles": now.database_troubles,
        "link": why(&now.link),
        "database": why(&now.database),
        "road": now.road,
        "source": why(&now.source),
        "paused": control.is_paused(),
        "failures": {
            "missing": missing, "unreadable": unreadable, "changed": changed, "refused": refused, "row": row,
        },
        "session_bytes": now.session_bytes,
        "last_proven": now.last_proven.as_ref().map(|(time, path)| json!({"time": time, "path": path})),
    });
    Map::from_iter([("archiver".to_owned(), archiver), ("timestamp".to_owned(), unix_now().into())])
}

/// What a SupRsync agent has besides.
pub(super) fn suprsync_data(now: &Snapshot, table: &TableCounts) -> Map<String, Value> {
    let LastCopy { start_time, stop_time, files } = &now.last_copy;
    let counters: Map<_, _> = counters(now).into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    Map::from_iter([
        ("activity".to_owned(), activity(now).into()),
        ("last_copy".to_owned(), json!({"start_time": start_time, "files": files, "stop_time": stop_time})),
        ("counters".to_owned(), counters.into()),
        ("archive_stats".to_owned(), json!(table.archive.clone().unwrap_or_default())),
    ])
}

fn why(trouble: &Option<Ongoing>) -> Option<&str> {
    trouble.as_ref().map(|trouble| trouble.why.as_str())
}

fn activity(now: &Snapshot) -> &'static str {
    match (now.in_flight > 0, now.deleting) {
        (true, _) => "copying",
        (false, true) => "deleting",
        (false, false) => "idle",
    }
}

/// What is wrong now, if anything: what keeps all files waiting first.
pub(super) fn trouble_of(now: &Snapshot, table: &TableCounts) -> Option<String> {
    let given_up = || match table.totals.given_up {
        0 => None,
        1 => Some("1 row is given up; its reason is in the log, and task retry has it tried again".to_owned()),
        rows => {
            Some(format!("{rows} rows are given up; their reasons are in the log, and task retry has them tried again"))
        }
    };
    why(&now.database).or_else(|| why(&now.link)).or_else(|| why(&now.source)).map(str::to_owned).or_else(given_up)
}
