//! How a batch stands, as whoever handed it over reads it.

use super::request::{BatchId, VERSION};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What has become of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BatchStatus {
    Running,
    /// Every file is proven by the storage node.
    Done,
    /// It cannot be completed; what was written is removed.
    Failed,
}

impl BatchStatus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// How a batch stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchState {
    pub(super) v: u64,
    pub(crate) batch: String,
    pub(crate) status: BatchStatus,
    /// When it was taken, in ISO 8601.
    pub(crate) start: String,
    pub(crate) end: Option<String>,
    /// Bytes of the files that are known by now, and their number.
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    /// Files that are proven.
    pub(crate) done: u64,
    /// Why it failed, or what keeps it.
    pub(crate) error: Option<String>,
}

impl BatchState {
    /// Of a batch that begins; times are unix time in seconds.
    pub(crate) fn new(batch: &str, start: f64) -> Self {
        Self {
            v: VERSION,
            batch: batch.to_owned(),
            status: BatchStatus::Running,
            start: iso(start),
            end: None,
            bytes: 0,
            files: 0,
            done: 0,
            error: None,
        }
    }

    /// It ended so.
    pub(crate) fn ended(self, status: BatchStatus, end: f64) -> Self {
        Self { status, end: Some(iso(end)), ..self }
    }

    pub(crate) fn id(&self) -> Option<BatchId> {
        BatchId::new(&self.batch).ok()
    }
}

/// A time in words that programs read.
fn iso(seconds: f64) -> String {
    let micros = (seconds * 1e6) as i64;
    // With all digits and the offset in numbers, which the oldest readers take.
    Timestamp::from_microsecond(micros)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_written_as_it_was_agreed() {
        let state = BatchState::new("b1", 1_700_000_000.5);
        let text = serde_json::to_string(&state).unwrap();
        let expected = "{\"v\":1,\"batch\":\"b1\",\"status\":\"running\",\"start\":\"2023-11-14T22:13:20.500000+00:00\",\"end\":null,\
            \"bytes\":0,\"files\":0,\"done\":0,\"error\":null}";
        assert_eq!(text, expected);
        let done = state.ended(BatchStatus::Done, 1_700_000_001.0);
        assert!(serde_json::to_string(&done).unwrap().contains("\"end\":\"2023-11-14T22:13:21.000000+00:00\""));
    }
}
