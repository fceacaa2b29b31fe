//! One run of an operation, as its code and its callers see it.

use super::{Latch, lock};
use crate::clock::unix_now;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

const MAX_MESSAGES: usize = 10_000;
/// Messages that are kept however old they are.
const MIN_MESSAGES: usize = 5;
/// Seconds after which a message may be dropped.
const MESSAGE_AGE: f64 = 3600.0;
/// Seconds between two looks for old messages.
const PURGE_EVERY: f64 = 720.0;
/// Bytes of one message; what is longer is cut.
const MAX_TEXT: usize = 4096;
/// Bytes of session data, encoded, that are still accepted.
const MAX_DATA: usize = 256 << 10;

/// How far a run is. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpStatus {
    /// Asked for, its code does not run yet.
    Starting,
    /// Its code runs.
    Running,
    /// It was asked to end.
    Stopping,
    /// It has ended.
    Done,
}

impl OpStatus {
    fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Done => "done",
        }
    }
}

/// The code of an operation that has never run.
pub const OP_CODE_NONE: u8 = 1;

/// A run of an operation. Clones are the same run.
#[derive(Clone)]
pub struct OpSession(Arc<Inner>);

struct Inner {
    id: u64,
    op_name: String,
    cred_level: u8,
    start_time: f64,
    state: Mutex<SessionState>,
    stop: Latch,
    done: Latch,
}

struct SessionState {
    status: OpStatus,
    degraded: bool,
    success: Option<bool>,
    end_time: Option<f64>,
    data: Map<String, Value>,
    messages: VecDeque<(f64, String)>,
    purged: f64,
}

impl OpSession {
    /// A run that is starting.
    pub(super) fn new(id: u64, op_name: &str, cred_level: u8) -> Self {
        let start_time = unix_now();
        let state = SessionState {
            status: OpStatus::Starting,
            degraded: false,
            success: None,
            end_time: None,
            data: Map::new(),
            messages: VecDeque::new(),
            purged: start_time,
        };
        let inner = Inner {
            id,
            op_name: op_name.to_owned(),
            cred_level,
            start_time,
            state: Mutex::new(state),
            stop: Latch::new(),
            done: Latch::new(),
        };
        let session = Self(Arc::new(inner));
        session.note(&mut lock(&session.0.state), start_time, status_text(OpStatus::Starting));
        session
    }

    /// Its number, counted over all operations of the agent.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The operation's name.
    pub fn op_name(&self) -> &str {
        &self.0.op_name
    }

    /// How far it is.
    pub fn status(&self) -> OpStatus {
        lock(&self.0.state).status
    }

    /// Moves forward; a step back is ignored. The framework sets all of them itself, [`OpStatus::Done`] it alone.
    pub fn set_status(&self, status: OpStatus) {
        let mut state = lock(&self.0.state);
        if status > state.status && status != OpStatus::Done {
            state.status = status;
            self.note(&mut state, unix_now(), status_text(status));
        }
    }

    /// Adds a line for the people who watch; it is logged too.
    pub fn add_message(&self, text: &str) {
        self.note(&mut lock(&self.0.state), unix_now(), text.to_owned());
    }

    /// Adds a line that the log has from elsewhere.
    pub fn add_known_message(&self, text: &str) {
        lock(&self.0.state).keep(unix_now(), text.to_owned());
    }

    /// Replaces the data that clients see. It is to be an object with a unix `timestamp` in it, well below 100 kB;
    /// anything else than an object, or more than 256 KiB, is refused with a line in the log.
    pub fn set_data(&self, data: Value) {
        let size = data.to_string().len();
        match data {
            Value::Object(data) if size <= MAX_DATA => lock(&self.0.state).data = data,
            Value::Object(_) => {
                tracing::error!("Session data of {} has {size} bytes; the former data stays", self.0.op_name);
            }
            _ => tracing::error!("Session data of {} is no object; the former data stays", self.0.op_name),
        }
    }

    /// Says that the operation runs but cannot do its job, or that it can again.
    pub fn set_degraded(&self, degraded: bool) {
        lock(&self.0.state).degraded = degraded;
    }

    /// Whether somebody asked it to end.
    pub fn is_stop_requested(&self) -> bool {
        self.0.stop.is_raised()
    }

    /// Waits until somebody asks it to end.
    pub async fn stop_requested(&self) {
        self.0.stop.raised().await;
    }

    /// Waits until it has ended.
    pub async fn done(&self) {
        self.0.done.raised().await;
    }

    /// Whether it succeeded, once it has ended.
    pub fn success(&self) -> Option<bool> {
        lock(&self.0.state).success
    }

    /// Asks it to end.
    pub(super) fn request_stop(&self) {
        self.0.stop.raise();
    }

    /// Records its end: success or failure, with the words of its last message but one.
    pub(super) fn finish(&self, outcome: Result<String, String>) {
        let success = outcome.is_ok();
        let mut state = lock(&self.0.state);
        let now = unix_now();
        self.note(&mut state, now, outcome.unwrap_or_else(|text| text));
        state.success = Some(success);
        state.end_time = Some(now);
        state.status = OpStatus::Done;
        self.note(&mut state, now, status_text(OpStatus::Done));
        drop(state);
        self.0.done.raise();
    }

    /// The number that stands for its state in heartbeats.
    pub fn op_code(&self) -> u8 {
        lock(&self.0.state).op_code()
    }

    /// As clients get it. Of the messages, the newest that have room in `budget` bytes.
    pub(super) fn encoded(&self, budget: usize) -> Value {
        let mut state = lock(&self.0.state);
        state.purge(unix_now());
        let mut room = budget;
        let mut messages: Vec<Value> = Vec::new();
        for (time, text) in state.messages.iter().rev() {
            // A character takes up to six bytes as an escape.
            let size = text.len() + text.chars().filter(|c| c.is_control() || matches!(c, '"' | '\\')).count() * 5 + 32;
            if size > room {
                break;
            }
            room -= size;
            messages.push(json!([time, text]));
        }
        messages.reverse();
        json!({
            "session_id": self.0.id,
            "op_name": self.0.op_name,
            "op_code": state.op_code(),
            "cred_level": self.0.cred_level,
            "status": state.status.name(),
            "degraded": state.degraded,
            "success": state.success,
            "start_time": self.0.start_time,
            "end_time": state.end_time,
            "data": state.data,
            "messages": messages,
        })
    }

    fn note(&self, state: &mut SessionState, time: f64, text: String) {
        tracing::info!("{}:{} {}", self.0.op_name, self.0.id, &text[..text.floor_char_boundary(MAX_TEXT)]);
        state.keep(time, text);
    }
}

fn status_text(status: OpStatus) -> String {
    format!("Status is now \"{}\".", status.name())
}

impl SessionState {
    fn keep(&mut self, time: f64, mut text: String) {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        self.messages.push_back((time, text));
        self.purge(time);
    }

    fn op_code(&self) -> u8 {
        match (self.status, self.success) {
            (OpStatus::Starting, _) => 2,
            (OpStatus::Running, _) if self.degraded => 8,
            (OpStatus::Running, _) => 3,
            (OpStatus::Stopping, _) => 4,
            (OpStatus::Done, Some(true)) => 5,
            (OpStatus::Done, _) => 6,
        }
    }

    fn purge(&mut self, now: f64) {
        while self.messages.len() > MAX_MESSAGES {
            self.messages.pop_front();
        }
        if now - self.purged < PURGE_EVERY {
            return;
        }
        self.purged = now;
        while self.messages.len() > MIN_MESSAGES
            && self.messages.front().is_some_and(|(time, _)| now - time > MESSAGE_AGE)
        {
            self.messages.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_exactly_the_eleven_fields() {
        let session = OpSession::new(3, "run", 1);
        let encoded = session.encoded(1 << 20);
        let mut keys: Vec<_> = encoded.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let expected = [
            "cred_level",
            "data",
            "degraded",
            "end_time",
            "messages",
            "op_code",
            "op_name",
            "session_id",
            "start_time",
            "status",
            "success",
        ];
        assert_eq!(keys, expected);
        assert_eq!(encoded["op_code"], 2);
        assert_eq!(encoded["success"], Value::Null);
        assert_eq!(encoded["messages"][0][1], "Status is now \"starting\".");
        assert_eq!(encoded["messages"][0][0], encoded["start_time"]);
    }

    #[test]
    fn status_moves_forward_only_and_op_codes_follow() {
        let session = OpSession::new(0, "run", 1);
        session.set_status(OpStatus::Running);
        assert_eq!(session.op_code(), 3);
        session.set_degraded(true);
        assert_eq!(session.op_code(), 8);
        session.set_status(OpStatus::Stopping);
        assert_eq!(session.op_code(), 4);
        session.set_status(OpStatus::Running);
        session.set_status(OpStatus::Done);
        assert_eq!(session.status(), OpStatus::Stopping);
        session.finish(Ok("Stopped".to_owned()));
        assert_eq!((session.op_code(), session.success()), (5, Some(true)));
        let encoded = session.encoded(1 << 20);
        let texts: Vec<_> = encoded["messages"].as_array().unwrap().iter().map(|pair| pair[1].clone()).collect();
        let status = |name: &str| Value::from(format!("Status is now \"{name}\"."));
        assert_eq!(
            texts,
            [status("starting"), status("running"), status("stopping"), "Stopped".into(), status("done")]
        );
        assert!(encoded["end_time"].is_f64());
    }

    #[test]
    fn messages_are_bounded_in_number_length_and_bytes_shown() {
        let session = OpSession::new(0, "run", 1);
        for i in 0..MAX_MESSAGES + 10 {
            session.add_message(&i.to_string());
        }
        session.add_message(&"é\"\n".repeat(5000));
        assert_eq!(lock(&session.0.state).messages.len(), MAX_MESSAGES);
        let text = session.encoded(20_000).to_string();
        assert!(text.len() < 21_000, "{}", text.len());
        let all = session.encoded(1 << 20);
        assert_eq!(all["messages"].as_array().unwrap().len(), MAX_MESSAGES);
    }

    #[test]
    fn old_messages_go_but_for_the_last_five() {
        let session = OpSession::new(0, "run", 1);
        for i in 0..20 {
            session.add_message(&i.to_string());
        }
        let mut state = lock(&session.0.state);
        for (time, _) in &mut state.messages {
            *time -= 4000.0;
        }
        state.purge(unix_now());
        assert_eq!(state.messages.len(), 21, "not yet time to look");
        state.purge(unix_now() + PURGE_EVERY);
        assert_eq!(state.messages.len(), MIN_MESSAGES);
    }

    #[test]
    fn data_is_an_object_of_bounded_size() {
        let session = OpSession::new(0, "run", 1);
        session.set_data(json!({"rate": f64::NAN, "timestamp": 1.0}));
        session.set_data(json!([1]));
        session.set_data(json!({"x": "y".repeat(MAX_DATA)}));
        assert_eq!(session.encoded(0)["data"], json!({"rate": null, "timestamp": 1.0}));
    }
}
