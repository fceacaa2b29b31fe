//! How an archive stands, as it is told to people and machines alike.

use crate::catalog::{ArchiveStats, FleetStand};
use serde::{Deserialize, Serialize};

/// All that one process archives.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct ProcessReport {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) archives: Vec<StatusReport>,
}

/// How one archive stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    /// What it is called: its targets, its archive's name, or the agent's instance id.
    pub(crate) archive: String,
    /// Names by which it is found besides.
    #[serde(default)]
    pub(crate) also: Vec<String>,
    pub(crate) table: String,
    /// Where the copies go, or come from.
    pub(crate) far_end: String,
    /// When this was, unix time in seconds.
    pub(crate) time: f64,
    /// Whether a running archiver says this, or the table alone.
    pub(crate) running: bool,
    pub(crate) paused: bool,
    pub(crate) limit: Option<LimitReport>,
    pub(crate) backlog: BacklogReport,
    pub(crate) speed: Option<SpeedReport>,
    pub(crate) sessions: Vec<SessionReport>,
    /// The road files take where it is not the straight one.
    pub(crate) road: Option<String>,
    pub(crate) last_proven: Option<ProvenReport>,
    /// What this run has done.
    pub(crate) run: Option<RunReport>,
    /// What is wrong now, what keeps all files waiting first.
    pub(crate) troubles: Vec<TroubleReport>,
    /// Why rows were given up, of the first hundred.
    #[serde(default)]
    pub(crate) reasons: Vec<ReasonReport>,
    /// How those stand who share the rows, where several do.
    #[serde(default)]
    pub(crate) fleet: Option<FleetStand>,
    /// As SupRsync has them of its archives; only of these, and only where the whole table was counted.
    #[serde(default)]
    pub(crate) archive_stats: Option<ArchiveStats>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct BacklogReport {
    /// Files that wait; `None` as long as nobody has counted.
    pub(crate) files: Option<u64>,
    /// Their bytes, estimated from the first thousand; `None` where they are not known.
    pub(crate) bytes: Option<u64>,
    /// How long the oldest has been waiting.
    pub(crate) oldest_seconds: Option<f64>,
    /// Rows that were given up, and those that are copied.
    pub(crate) given_up: u64,
    pub(crate) copied: u64,
    /// The counts are of a part of the table: there may be more.
    pub(crate) at_least: bool,
    /// When that was counted, unix time in seconds.
    pub(crate) counted: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct SpeedReport {
    /// Bytes and files per second in the last ten seconds.
    pub(crate) bytes_now: f64,
    pub(crate) files_now: f64,
    /// In the last hour, as far as it is known.
    pub(crate) bytes_hour: f64,
    pub(crate) files_hour: f64,
    /// Of how many seconds that is.
    pub(crate) hour_seconds: u64,
    /// Until the backlog is copied, if it goes on like this.
    pub(crate) seconds_left: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct SessionReport {
    /// Bytes that it has moved.
    pub(crate) bytes: u64,
    /// Bytes per second of late.
    pub(crate) rate: f64,
    /// The file it is at, and how far that is.
    pub(crate) file: Option<FileReport>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct FileReport {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) done: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct ProvenReport {
    pub(crate) time: f64,
    pub(crate) path: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct LimitReport {
    /// Bytes per second; 0 for none.
    pub(crate) bytes_per_second: u64,
    /// An operator has said so, and not the options.
    pub(crate) held: bool,
    /// A timetable holds where no operator does.
    pub(crate) timetable: bool,
    /// The local time at which it changes next.
    pub(crate) until: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct RunReport {
    pub(crate) seconds: f64,
    pub(crate) copied: u64,
    pub(crate) in_flight: u64,
    pub(crate) read_bytes: u64,
    pub(crate) literal_bytes: u64,
    pub(crate) matched_bytes: u64,
    pub(crate) link_troubles: u64,
    pub(crate) database_troubles: u64,
    pub(crate) failed: u64,
    pub(crate) failures: FailureReport,
    /// Rows given up in this run.
    pub(crate) given_up: u64,
}

/// Failed attempts by kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct FailureReport {
    pub(crate) missing: u64,
    pub(crate) unreadable: u64,
    pub(crate) changed: u64,
    pub(crate) refused: u64,
    pub(crate) row: u64,
}

impl FailureReport {
    /// Each kind with its name.
    pub(crate) fn kinds(&self) -> [(&'static str, u64); 5] {
        [
            ("missing", self.missing),
            ("unreadable", self.unreadable),
            ("changed", self.changed),
            ("refused", self.refused),
            ("row", self.row),
        ]
    }
}

/// Rows that were given up for one reason.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct ReasonReport {
    pub(crate) reason: String,
    pub(crate) rows: u64,
    pub(crate) remedy: String,
    /// The whole of what was noted of one of them.
    pub(crate) example: String,
    pub(crate) ids: Vec<i64>,
    /// Some of the files.
    pub(crate) paths: Vec<String>,
}

/// Something that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct TroubleReport {
    pub(crate) kind: TroubleKind,
    pub(crate) why: String,
    pub(crate) remedy: String,
    /// Since when, unix time in seconds, where that is known.
    #[serde(default)]
    pub(crate) since: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TroubleKind {
    Database,
    Link,
    Source,
    GivenUp,
    /// Nobody archives.
    #[default]
    NotRunning,
}

impl LimitReport {
    /// In words.
    pub(crate) fn told(&self) -> String {
        let rate = match self.bytes_per_second {
            0 => "no limit".to_owned(),
            rate => format!("at most {:.1} MB/s", rate as f64 / 1e6),
        };
        let by = match (self.held, self.timetable, &self.until) {
            (true, true, _) => " by an operator, instead of the timetable".to_owned(),
            (true, false, _) => " by an operator".to_owned(),
            (false, true, Some(until)) => format!(" by the timetable, until {until}"),
            (false, true, None) => " by the timetable".to_owned(),
            (false, false, _) => String::new(),
        };
        format!("{rate}{by}")
    }
}

impl StatusReport {
    /// Whether it is called so.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.archive == name || self.also.iter().any(|also| also == name)
    }

    /// Whether something is wrong.
    pub(crate) fn is_troubled(&self) -> bool {
        !self.troubles.is_empty()
    }
}
