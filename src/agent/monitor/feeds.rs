//! The feeds of the Python monitor: session data of pysmurf for its controllers, and registers that a streamer tells of.
//!
//! Who receives messages never waits for a router: what has no room here is not published, and counted.

use crate::monitor::{MessageAudience, MessageTopic, PublisherMessage, PyText, PyValue};
use crate::ocs::agent::AgentHandle;
use crate::ocs::feeds::{Block, FeedError, FeedKind, FieldValues};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// The feed of session data and session logs.
pub(super) const SESSION: &str = "pysmurf_session_data";
/// Registers of a stream are published together for so long, as by the Python monitor.
const BUFFER: Duration = Duration::from_secs(1);
/// Bytes of them that are published at once; a message on a router holds a megabyte.
const BUFFER_BYTES: usize = 256 << 10;
/// Streams that have a feed; an observatory has a few dozen.
const STREAMS_MOST: usize = 200;
/// Messages that wait to be published, and their bytes.
const WAITING_MOST: usize = 1 << 16;
const WAITING_BYTES: usize = 16 << 20;
/// The longest name of a field.
const NAME_MOST: usize = 255;
/// How often it is said that something is not published.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// A message to be published.
enum FeedMessage {
    Session(Value),
    Register(RegisterSample),
}

/// What a streamer says of a register.
#[derive(Debug, PartialEq)]
struct RegisterSample {
    stream: String,
    field: String,
    time: f64,
    value: Value,
}

/// Where messages wait.
struct FeedRoom {
    bytes: AtomicUsize,
    /// Those for which there was none.
    unpublished: AtomicU64,
}

/// Hears messages as they come.
pub(crate) struct FeedAudience {
    sender: mpsc::Sender<(FeedMessage, usize)>,
    room: Arc<FeedRoom>,
}

/// What it has heard.
pub(crate) struct FeedQueue {
    receiver: mpsc::Receiver<(FeedMessage, usize)>,
    room: Arc<FeedRoom>,
}

impl FeedAudience {
    pub(crate) fn new() -> (Self, FeedQueue) {
        let (sender, receiver) = mpsc::channel(WAITING_MOST);
        let room = Arc::new(FeedRoom { bytes: AtomicUsize::new(0), unpublished: AtomicU64::new(0) });
        (Self { sender, room: room.clone() }, FeedQueue { receiver, room })
    }
}

impl MessageAudience for FeedAudience {
    fn hear(&mut self, message: &PublisherMessage, bytes: &[u8]) {
        // The Python monitor publishes nothing that does not say who sends it.
        let heard = match message.topic {
            MessageTopic::Session if message.get("id").is_some() => Some(FeedMessage::Session(message.whole.to_json())),
            MessageTopic::Metadata => RegisterSample::of(message).map(FeedMessage::Register),
            _ => None,
        };
        let Some(heard) = heard else { return };
        let len = bytes.len();
        let has_room = self.room.bytes.fetch_add(len, Relaxed) + len <= WAITING_BYTES;
        if !has_room || self.sender.try_send((heard, len)).is_err() {
            self.room.bytes.fetch_sub(len, Relaxed);
            self.room.unpublished.fetch_add(1, Relaxed);
        }
    }
}

impl RegisterSample {
    /// What a message says, where it says all of it and feeds take it.
    fn of(message: &PublisherMessage) -> Option<Self> {
        let id = message.get("id").and_then(PyValue::as_text)?.shown();
        message.payload("type")?;
        let field = field_name(&message.payload("path").and_then(PyValue::as_text).map(PyText::shown)?);
        let is_single = |value: &PyValue| !matches!(value, PyValue::None | PyValue::List(_) | PyValue::Dict(_));
        let value = message.payload("value").filter(|value| match value {
            PyValue::List(values) => values.iter().all(is_single),
            value => is_single(value),
        });
        let sample = Self {
            // `STREAMER:<stream-id>`, or the id of a publisher that does not know of that.
            stream: id.split(':').nth(1).unwrap_or(&id).to_owned(),
            field,
            time: message.get("time").and_then(PyValue::as_number).filter(|time| time.is_finite())?,
            value: value?.to_json(),
        };
        // What JSON has no letters for is no number that recorders keep.
        Some(sample).filter(|sample| !sample.value.is_null() && !sample.field.is_empty())
    }
}

/// A path as the name of a field. Counterpart: `Feed.enforce_field_name_rules` of ocs.
fn field_name(path: &str) -> String {
    if path.is_empty() {
        return "invalid_field".to_owned();
    }
    let plain: String = path
        .chars()
        .map(|letter| if letter == ' ' { '_' } else { letter })
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .collect();
    let behind = plain.trim_start_matches('_');
    let (underscores, _) = plain.split_at(plain.len() - behind.len());
    let letters = behind.trim_start_matches(|letter: char| !letter.is_ascii_alphabetic());
    format!("{underscores}{letters}").chars().take(NAME_MOST).collect()
}

/// The registers of a stream since they were last published.
#[derive(Default)]
struct StreamBuffer {
    fields: BTreeMap<String, (Vec<f64>, Vec<Value>)>,
    bytes: usize,
    due: Option<Instant>,
}

impl StreamBuffer {
    /// Whether the sample goes with those that are there: recorders take values of one type in a list.
    fn suits(&self, sample: &RegisterSample, len: usize) -> bool {
        let kind = |value: &Value| {
            (value.is_f64(), value.is_number(), value.is_string(), value.is_boolean(), value.is_array())
        };
        let last = self.fields.get(&sample.field).and_then(|(_, values)| values.last());
        self.bytes + len <= BUFFER_BYTES && last.is_none_or(|last| kind(last) == kind(&sample.value))
    }

    fn add(&mut self, sample: RegisterSample, len: usize) {
        let (times, values) = self.fields.entry(sample.field).or_default();
        times.push(sample.time);
        values.push(sample.value);
        self.bytes += len;
        self.due.get_or_insert_with(|| Instant::now() + BUFFER);
    }

    fn take(&mut self) -> Vec<Block> {
        let Self { fields, .. } = std::mem::take(self);
        let block = |(name, (times, values)): (String, _)| {
            Block::samples(&name, times).field(&name, FieldValues::Foreign(values))
        };
        fields.into_iter().map(block).collect()
    }
}

fn feed_of(stream: &str) -> String {
    format!("{stream}_meta")
}

impl FeedQueue {
    /// Publishes what was heard, for as long as there is an agent.
    pub(super) async fn publish(mut self, agent: AgentHandle) {
        let mut streams: BTreeMap<String, StreamBuffer> = BTreeMap::new();
        let mut grumbles = Grumbles::default();
        loop {
            let due = streams.values().filter_map(|stream| stream.due).min();
            let heard = tokio::select! {
                heard = self.receiver.recv() => heard,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let now = Instant::now();
                    for (name, stream) in streams.iter_mut().filter(|(_, stream)| stream.due.is_some_and(|due| due <= now)) {
                        grumbles.hear(agent.publish_in_turn(&feed_of(name), stream.take()).await);
                    }
                    continue;
                }
            };
            let Some((heard, len)) = heard else { return };
            self.room.bytes.fetch_sub(len, Relaxed);
            match heard {
                FeedMessage::Session(value) => grumbles.hear(agent.publish_in_turn(SESSION, value).await),
                FeedMessage::Register(sample) => {
                    let known = streams.len();
                    let stream = match streams.get_mut(&sample.stream) {
                        Some(stream) => stream,
                        None if known >= STREAMS_MOST => {
                            grumbles
                                .say(&format!("Stream {:?} has no feed, as {STREAMS_MOST} others have", sample.stream));
                            continue;
                        }
                        None => {
                            if let Err(error) = agent.register_feed(&feed_of(&sample.stream), FeedKind::Recorded) {
                                grumbles.say(&error.to_string());
                                continue;
                            }
                            streams.entry(sample.stream.clone()).or_default()
                        }
                    };
                    if !stream.suits(&sample, len) {
                        grumbles.hear(agent.publish_in_turn(&feed_of(&sample.stream), stream.take()).await);
                    }
                    stream.add(sample, len);
                }
            }
            let unpublished = self.room.unpublished.swap(0, Relaxed);
            if unpublished > 0 {
                grumbles.say(&format!("{unpublished} messages were not published: more came than the router takes"));
            }
        }
    }
}

/// Says what is not published, and not more often than anybody reads.
#[derive(Default)]
struct Grumbles(Option<Instant>);

impl Grumbles {
    fn hear(&mut self, published: Result<bool, FeedError>) {
        if let Err(error) = published {
            self.say(&error.to_string());
        }
    }

    fn say(&mut self, why: &str) {
        if self.0.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            self.0 = Some(Instant::now());
            tracing::warn!(event = "unpublished", "{why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As ocs 0.12.1 has them.
    #[test]
    fn fields_are_named_as_python_names_them() {
        for (path, name) in [
            ("AMCc.FpgaTop[0].Foo:Bar", "AMCcFpgaTop0FooBar"),
            ("", "invalid_field"),
            ("a b", "a_b"),
            ("__1_a", "__a"),
            (" 1a\u{e9}b", "_ab"),
            ("12", ""),
        ] {
            assert_eq!(field_name(path), name, "{path}");
        }
        assert_eq!(field_name(&"a".repeat(300)).len(), 255);
    }

    fn sample(changed: &str) -> Option<RegisterSample> {
        let text = format!(
            "{{\"id\": \"STREAMER:crate1slot2\", \"time\": 5, \"type\": \"metadata\", \"payload\": {{\"path\": \"a.b\", \"value\": 3, \"type\": \"int\"}}{changed}}}"
        );
        RegisterSample::of(&PublisherMessage::read(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_register_is_of_its_stream_and_what_the_python_monitor_loses_is_none() {
        let known = RegisterSample { stream: "crate1slot2".into(), field: "ab".into(), time: 5.0, value: json!(3) };
        assert_eq!(sample(""), Some(known));
        assert_eq!(sample(", \"id\": \"unidentified\"").unwrap().stream, "unidentified");
        assert_eq!(sample(", \"id\": \"STREAMER:a:b\"").unwrap().stream, "a");
        let value =
            |value: &str| sample(&format!(", \"payload\": {{\"path\": \"a\", \"value\": {value}, \"type\": \"t\"}}"));
        for taken in ["1.0", "\"x\"", "true", "[1, 2]", "[]"] {
            assert!(value(taken).is_some(), "{taken}");
        }
        for lost in ["null", "{}", "[null]", "[[1]]", "NaN"] {
            assert_eq!(value(lost), None, "{lost}");
        }
        for lost in
            [", \"id\": 5", ", \"time\": null", ", \"payload\": {\"path\": \"a\", \"value\": 1}", ", \"payload\": {}"]
        {
            assert_eq!(sample(lost), None, "{lost}");
        }
    }
}
