//! `/metrics`: how the archives stand, for Prometheus and its like.

use crate::catalog::MoverStand;
use crate::console::report::{StatusReport, TroubleKind};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// Labels of what an archive has once, and of what it has of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfArchive {
    archive: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    archive: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTarget {
    archive: String,
    target: String,
    /// Empty where there is one for all.
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNode {
    archive: String,
    node: String,
}

/// Kinds of trouble by their labels.
const TROUBLES: [(TroubleKind, &str); 5] = [
    (TroubleKind::Database, "database"),
    (TroubleKind::Link, "link"),
    (TroubleKind::Source, "source"),
    (TroubleKind::GivenUp, "given_up"),
    (TroubleKind::NotRunning, "not_running"),
];

type Gauges = Family<OfArchive, Gauge<f64, AtomicU64>>;

/// The text of OpenMetrics. Names and labels are those of `docs/operating.md`.
pub(super) fn text(archives: &[StatusReport]) -> String {
    let mut registry = Registry::with_prefix("archiver");
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "Version of the archiver", build);
    for (name, help, of) in GAUGES {
        let family = Gauges::default();
        for archive in archives {
            // What is not known is left out.
            if let Some(value) = of(archive) {
                family.get_or_create(&OfArchive { archive: archive.archive.clone() }).set(value);
            }
        }
        registry.register(name, help, family);
    }
    let troubles = Family::<OfKind, Gauge>::default();
    for archive in archives {
        for (kind, name) in TROUBLES {
            let labels = OfKind { archive: archive.archive.clone(), kind: name };
            let has = archive.troubles.iter().any(|trouble| trouble.kind == kind);
            troubles.get_or_create(&labels).set(has.into());
        }
    }
    registry.register("trouble", "1 while something of this kind is wrong", troubles);
    fleets(&mut registry, archives);
    counters(&mut registry, archives);
    let mut text = String::new();
    // A string takes all.
    let _ = encode(&mut text, &registry);
    text
}

/// What of archives whose rows several movers share has more labels.
fn fleets(registry: &mut Registry, archives: &[StatusReport]) {
    let lanes = Family::<OfKind, Gauge>::default();
    let backlog = Family::<OfTarget, Gauge>::default();
    let owed = Family::<OfNode, Gauge>::default();
    let troubles = Family::<OfNode, Gauge>::default();
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for (archive, fleet) in archives.iter().filter_map(|archive| Some((&archive.archive, archive.fleet.as_ref()?))) {
        let ours = fleet.movers.iter().find(|mover| Some(&mover.mover) == fleet.me.as_ref());
        let ours = ours.map_or(0, MoverStand::lanes_held);
        let (all, free) = fleet.lanes.iter().fold((0, 0), |(all, free), of| (all + of.lanes, free + of.free));
        for (kind, number) in [("ours", ours), ("others", all.saturating_sub(free + ours)), ("free", free)] {
            lanes.get_or_create(&OfKind { archive: archive.clone(), kind }).set(number.into());
        }
        for line in &fleet.backlog {
            let (target, node) = (line.target.clone(), line.node.clone().unwrap_or_default());
            backlog.get_or_create(&OfTarget { archive: archive.clone(), target, node }).set(count(line.files));
        }
        for debt in &fleet.nodes {
            let of = OfNode { archive: archive.clone(), node: debt.node.clone() };
            owed.get_or_create(&of).set(count(debt.owed));
            troubles.get_or_create(&of).set(count(debt.troubles));
        }
    }
    registry.register("fleet_lanes", "Lanes of the targets, by whose they are", lanes);
    registry.register("fleet_backlog_files", "Files that wait, by target and storage node", backlog);
    registry.register("fleet_owed_copies", "Copies that a storage node lacks of rows that are done", owed);
    registry.register("fleet_troubled_rows", "Rows with a failure at a storage node", troubles);
}

/// The same as Prometheus had it before OpenMetrics: there a family is called as its samples are, and nothing is an info.
pub(super) fn in_the_older_form(text: &str) -> String {
    let kind = |name: &str| {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        types.into_iter().find(|(family, _)| *family == name).map(|(_, kind)| kind)
    };
    let line = |line: &str| {
        let Some((head, (name, rest))) =
            ["# HELP ", "# TYPE "].iter().find_map(|head| Some((head, line.strip_prefix(head)?.split_once(' ')?)))
        else {
            return if line == "# EOF" { String::new() } else { format!("{line}\n") };
        };
        match kind(name) {
            Some("counter") => format!("{head}{name}_total {rest}\n"),
            Some("info") => format!("{head}{name}_info {}\n", if rest == "info" { "gauge" } else { rest }),
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

type Figure = fn(&StatusReport) -> Option<f64>;

const GAUGES: [(&str, &str, Figure); 16] = [
    ("running", "1 while the archive is archived", |of| Some(f64::from(u8::from(of.running)))),
    ("paused", "1 while no further files are taken up", |of| Some(f64::from(u8::from(of.paused)))),
    ("backlog_files", "Files that wait to be copied, counted once a minute at least", |of| {
        of.backlog.files.map(|files| files as f64)
    }),
    ("backlog_bytes", "Bytes of the files that wait, estimated from the first thousand", |of| {
        of.backlog.bytes.map(|bytes| bytes as f64)
    }),
    ("oldest_pending_age_seconds", "How long the oldest waiting file has been there, 0 where none waits", |of| {
        of.backlog.files.map(|_| of.backlog.oldest_seconds.unwrap_or(0.0))
    }),
    ("given_up_rows", "Rows that failed too often and are left alone", |of| {
        of.backlog.counted.map(|_| of.backlog.given_up as f64)
    }),
    ("copied_rows", "Rows of the table that are copied and proven", |of| {
        of.backlog.counted.map(|_| of.backlog.copied as f64)
    }),
    ("last_proven_timestamp_seconds", "When the last proven copy was recorded, unix time", |of| {
        of.last_proven.as_ref().map(|last| last.time)
    }),
    ("time_left_seconds", "Until the backlog is copied, if it goes on like this", |of| of.speed.as_ref()?.seconds_left),
    ("rate_bytes_per_second", "Bytes of files per second in the last ten seconds", |of| {
        Some(of.speed.as_ref()?.bytes_now)
    }),
    ("bwlimit_bytes_per_second", "The limit of all sessions together, 0 for none", |of| {
        Some(of.limit.as_ref()?.bytes_per_second as f64)
    }),
    ("sessions", "Sessions that have moved something in the last ten seconds", |of| {
        Some(of.sessions.iter().filter(|session| session.rate > 0.0).count() as f64)
    }),
    ("in_flight_files", "Files on their way", |of| Some(of.run.as_ref()?.in_flight as f64)),
    ("fleet_movers", "Archivers that share the rows, this one included", |of| {
        Some(of.fleet.as_ref()?.movers.len() as f64)
    }),
    ("fleet_silent_movers", "Those of them of whom nothing was heard for two heartbeats or more", |of| {
        Some(of.fleet.as_ref()?.movers.iter().filter(|mover| mover.is_silent()).count() as f64)
    }),
    ("run_seconds", "Since this run began", |of| Some(of.run.as_ref()?.seconds)),
];

/// Counts of the run at work; they begin at 0 with each run.
fn counters(registry: &mut Registry, archives: &[StatusReport]) {
    let [copied, link, database] = [(); 3].map(|()| Family::<OfArchive, Counter>::default());
    let [failed, bytes] = [(); 2].map(|()| Family::<OfKind, Counter>::default());
    for (archive, run) in archives.iter().filter_map(|archive| Some((&archive.archive, archive.run.as_ref()?))) {
        let one = OfArchive { archive: archive.clone() };
        copied.get_or_create(&one).inc_by(run.copied);
        link.get_or_create(&one).inc_by(run.link_troubles);
        database.get_or_create(&one).inc_by(run.database_troubles);
        let of = |kind| OfKind { archive: archive.clone(), kind };
        for (kind, count) in run.failures.kinds() {
            failed.get_or_create(&of(kind)).inc_by(count);
        }
        bytes.get_or_create(&of("literal")).inc_by(run.literal_bytes);
        bytes.get_or_create(&of("matched")).inc_by(run.matched_bytes);
    }
    registry.register("copied_files", "Files that were copied and proven", copied);
    registry.register("failed_attempts", "Attempts that failed, by kind", failed);
    registry.register(
        "file_bytes",
        "Bytes of proven files that went over the wire (literal) or were there (matched)",
        bytes,
    );
    registry.register("link_troubles", "How often the far end was out of reach or a session broke", link);
    registry.register("database_troubles", "How often the database was out of reach", database);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::report::{BacklogReport, FailureReport, RunReport, TroubleReport};

    #[test]
    fn each_figure_has_its_name_and_unit() {
        let archive = StatusReport {
            archive: "a \"b\"\n".into(),
            running: true,
            backlog: BacklogReport { files: Some(3), bytes: Some(7), counted: Some(1.0), ..BacklogReport::default() },
            run: Some(RunReport {
                copied: 2,
                literal_bytes: 5,
                failures: FailureReport { missing: 4, ..FailureReport::default() },
                ..RunReport::default()
            }),
            troubles: vec![TroubleReport { kind: TroubleKind::Link, ..TroubleReport::default() }],
            ..StatusReport::default()
        };
        let text = text(&[archive]);
        for line in [
            concat!("archiver_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            r#"archiver_backlog_files{archive="a \"b\"\n"} 3.0"#,
            r#"archiver_oldest_pending_age_seconds{archive="a \"b\"\n"} 0.0"#,
            r#"archiver_copied_files_total{archive="a \"b\"\n"} 2"#,
            r#"archiver_failed_attempts_total{archive="a \"b\"\n",kind="missing"} 4"#,
            r#"archiver_file_bytes_total{archive="a \"b\"\n",kind="literal"} 5"#,
            r#"archiver_trouble{archive="a \"b\"\n",kind="link"} 1"#,
            r#"archiver_trouble{archive="a \"b\"\n",kind="database"} 0"#,
            "# TYPE archiver_backlog_bytes gauge",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("last_proven_timestamp_seconds{"), "what is not known is not said");
        let older = in_the_older_form(&text);
        for line in [
            "# TYPE archiver_build_info gauge",
            "# HELP archiver_copied_files_total Files that were copied and proven.",
            "# TYPE archiver_copied_files_total counter",
            "# TYPE archiver_backlog_bytes gauge",
            r#"archiver_copied_files_total{archive="a \"b\"\n"} 2"#,
        ] {
            assert!(older.lines().any(|found| found == line), "{line}\n{older}");
        }
        assert!(!older.contains("# EOF"));
    }
}
