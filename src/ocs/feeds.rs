//! Feeds: topics of the agent, and the blocks of numbers that are recorded from them.

use serde_json::{Map, Value, json};
use std::collections::HashMap;

const MAX_NAME: usize = 255;

/// What is wrong with a feed or with what is published to it.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// No feed of that name.
    #[error("Feed {0} is not registered")]
    Unknown(String),
    /// The name is no component of a topic.
    #[error("Feed name {0:?} is not usable in an address; give letters, digits and underscores")]
    Name(String),
    /// A second feed of that name.
    #[error("Feed {0} is registered already")]
    Twice(String),
    /// A recorded feed takes blocks, and only it does.
    #[error("Feed {0} is recorded and takes blocks only")]
    NotBlocks(String),
    /// The reverse.
    #[error("Feed {0} is not recorded and takes no blocks")]
    Blocks(String),
    /// A field name that the recorders refuse.
    #[error("Block {block} has the field name {field:?}; give letters, digits and underscores, a letter first")]
    Field {
        /// The block.
        block: String,
        /// Its field.
        field: String,
    },
    /// A block changed its fields or a field its type.
    #[error("Block {0} has other fields, or other types, than when it was first published")]
    Changed(String),
    /// Lists of different length, no sample, or no field.
    #[error("Block {0} needs as many values in each field as it has timestamps, at least one")]
    Length(String),
    /// Neither infinities nor not-a-number can be recorded.
    #[error("Block {0} holds a number that is not finite")]
    NotFinite(String),
    /// More than a message may hold.
    #[error("Feed {feed} takes no event of {size} bytes; send less at a time")]
    Size {
        /// The feed.
        feed: String,
        /// Of the event, encoded.
        size: usize,
    },
}

/// The values of one field, of one type for ever.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValues {
    /// Always written with a decimal point, so that recorders keep the type.
    Float(Vec<f64>),
    /// Whole numbers.
    Int(Vec<i64>),
    /// Texts.
    Text(Vec<String>),
    /// As others have them, of a type that nobody knows beforehand. A block of nothing else may change its fields.
    Foreign(Vec<Value>),
}

/// Samples of several fields taken at the same times.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    name: String,
    timestamps: Vec<f64>,
    fields: Vec<(String, FieldValues)>,
}

impl Block {
    /// One sample, taken at this unix time in seconds. Fields follow.
    pub fn sample(name: &str, timestamp: f64) -> Self {
        Self::samples(name, vec![timestamp])
    }

    /// Samples taken at these unix times in seconds. Fields follow.
    pub fn samples(name: &str, timestamps: Vec<f64>) -> Self {
        Self { name: name.to_owned(), timestamps, fields: Vec::new() }
    }

    /// Adds a field with as many values as there are times.
    #[must_use]
    pub fn field(mut self, name: &str, values: FieldValues) -> Self {
        self.fields.push((name.to_owned(), values));
        self
    }

    /// Adds a field of one number.
    #[must_use]
    pub fn float(self, name: &str, value: f64) -> Self {
        self.field(name, FieldValues::Float(vec![value]))
    }

    /// Adds a field of one whole number.
    #[must_use]
    pub fn int(self, name: &str, value: i64) -> Self {
        self.field(name, FieldValues::Int(vec![value]))
    }

    /// Adds a field of one text.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.field(name, FieldValues::Text(vec![value.to_owned()]))
    }

    /// Whether all of it is what others have sent.
    fn is_foreign(&self) -> bool {
        self.fields.iter().all(|(_, values)| matches!(values, FieldValues::Foreign(_)))
    }

    fn check(&self) -> Result<(), FeedError> {
        for (field, values) in &self.fields {
            if !is_field_name(field) {
                return Err(FeedError::Field { block: self.name.clone(), field: field.clone() });
            }
            if values.len() != self.timestamps.len() {
                return Err(FeedError::Length(self.name.clone()));
            }
            if matches!(values, FieldValues::Float(numbers) if numbers.iter().any(|number| !number.is_finite())) {
                return Err(FeedError::NotFinite(self.name.clone()));
            }
        }
        if self.fields.is_empty() || self.timestamps.is_empty() {
            return Err(FeedError::Length(self.name.clone()));
        }
        if self.timestamps.iter().any(|time| !time.is_finite()) {
            return Err(FeedError::NotFinite(self.name.clone()));
        }
        Ok(())
    }

    /// Names and types of the fields, in order of their names.
    fn shape(&self) -> Vec<(String, &'static str)> {
        let mut shape: Vec<_> = self.fields.iter().map(|(name, values)| (name.clone(), values.kind())).collect();
        shape.sort_unstable();
        shape
    }

    fn encoded(&self) -> Value {
        let data: Map<_, _> = self.fields.iter().map(|(name, values)| (name.clone(), values.encoded())).collect();
        json!({"block_name": self.name, "data": data, "influxdb_tags": null, "timestamps": self.timestamps})
    }
}

impl FieldValues {
    fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Int(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::Foreign(values) => values.len(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Float(_) => "float",
            Self::Int(_) => "int",
            Self::Text(_) => "text",
            Self::Foreign(_) => "foreign",
        }
    }

    fn encoded(&self) -> Value {
        match self {
            Self::Float(values) => json!(values),
            Self::Int(values) => json!(values),
            Self::Text(values) => json!(values),
            Self::Foreign(values) => json!(values),
        }
    }
}

/// What is published.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// To a recorded feed.
    Blocks(Vec<Block>),
    /// To any other.
    Free(Value),
}

impl From<Block> for Payload {
    fn from(block: Block) -> Self {
        Self::Blocks(vec![block])
    }
}

impl From<Vec<Block>> for Payload {
    fn from(blocks: Vec<Block>) -> Self {
        Self::Blocks(blocks)
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self::Free(value)
    }
}

/// What a feed takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedKind {
    /// Blocks, which recorders keep.
    Recorded,
    /// Anything.
    Free,
}

/// A registered feed.
pub(super) struct Feed {
    pub(super) name: String,
    pub(super) address: String,
    kind: FeedKind,
    encoded: Value,
    shapes: HashMap<String, Vec<(String, &'static str)>>,
}

/// Whom a feed belongs to.
pub(super) struct FeedOwner<'a> {
    pub(super) address: &'a str,
    pub(super) class: &'a str,
    pub(super) session_id: &'a str,
}

impl Feed {
    pub(super) fn new(
        owner: &FeedOwner<'_>,
        name: &str,
        kind: FeedKind,
        agg_params: Map<String, Value>,
    ) -> Result<Self, FeedError> {
        // Lower-case letters, digits and underscores are the rule, and no Python agent is held to it.
        let usable = |c: char| !c.is_whitespace() && !c.is_control() && c != '#' && c != '.';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(usable) {
            return Err(FeedError::Name(name.to_owned()));
        }
        let address = format!("{}.feeds.{name}", owner.address);
        let encoded = json!({
            "agent_address": owner.address,
            "agg_params": agg_params,
            "feed_name": name,
            "address": address,
            "record": kind == FeedKind::Recorded,
            "session_id": owner.session_id,
            "agent_class": owner.class,
        });
        Ok(Self { name: name.to_owned(), address, kind, encoded, shapes: HashMap::new() })
    }

    /// As `get_api` shows it.
    pub(super) fn encoded(&self) -> &Value {
        &self.encoded
    }

    /// The one argument of the event.
    pub(super) fn event(&mut self, payload: Payload) -> Result<Value, FeedError> {
        let payload = match (payload, self.kind) {
            (Payload::Free(value), FeedKind::Free) => value,
            (Payload::Blocks(blocks), FeedKind::Recorded) => self.blocks(&blocks)?,
            (Payload::Free(_), FeedKind::Recorded) => return Err(FeedError::NotBlocks(self.name.clone())),
            (Payload::Blocks(_), FeedKind::Free) => return Err(FeedError::Blocks(self.name.clone())),
        };
        Ok(json!([payload, self.encoded]))
    }

    fn blocks(&mut self, blocks: &[Block]) -> Result<Value, FeedError> {
        for block in blocks {
            block.check()?;
            let shape = block.shape();
            if shape.windows(2).any(|pair| pair[0].0 == pair[1].0)
                || self.shapes.get(&block.name).is_some_and(|known| *known != shape)
            {
                return Err(FeedError::Changed(block.name.clone()));
            }
        }
        // Of the others nothing needs to be kept.
        for block in blocks.iter().filter(|block| !block.is_foreign()) {
            self.shapes.entry(block.name.clone()).or_insert_with(|| block.shape());
        }
        Ok(blocks.iter().map(|block| (block.name.clone(), block.encoded())).collect::<Map<_, _>>().into())
    }
}

/// Letters, digits and underscores, where a letter comes first or right after leading underscores.
fn is_field_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.trim_start_matches('_').starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(kind: FeedKind) -> Feed {
        let owner = FeedOwner { address: "observatory.a", class: "A", session_id: "1795350017.0" };
        Feed::new(&owner, "stats", kind, Map::new()).unwrap()
    }

    #[test]
    fn an_event_is_a_pair_of_blocks_and_feed() {
        let mut feed = feed(FeedKind::Recorded);
        let block = Block::sample("smurf", 5.0).float("until", 7.0).int("num", 7).text("last", "a");
        let event = feed.event(block.into()).unwrap().to_string();
        let expected = concat!(
            r#"[{"smurf":{"block_name":"smurf","data":{"last":["a"],"num":[7],"until":[7.0]},"#,
            r#""influxdb_tags":null,"timestamps":[5.0]}},"#,
            r#"{"address":"observatory.a.feeds.stats","agent_address":"observatory.a","agent_class":"A","#,
            r#""agg_params":{},"feed_name":"stats","record":true,"session_id":"1795350017.0"}]"#
        );
        assert_eq!(event, expected);
    }

    #[test]
    fn a_block_keeps_its_fields_and_types() {
        let mut feed = feed(FeedKind::Recorded);
        feed.event(Block::sample("b", 1.0).float("x", 1.0).int("y", 1).into()).unwrap();
        feed.event(Block::sample("b", 2.0).int("y", 1).float("x", 1.0).into()).unwrap();
        feed.event(Block::sample("c", 2.0).int("x", 1).into()).unwrap();
        for changed in [
            Block::sample("b", 3.0).float("x", 1.0),
            Block::sample("b", 3.0).float("x", 1.0).float("y", 1.0),
            Block::sample("b", 3.0).float("x", 1.0).int("y", 1).int("z", 1),
            Block::sample("new", 3.0).int("x", 1).int("x", 1),
        ] {
            assert!(matches!(feed.event(changed.into()), Err(FeedError::Changed(_))));
        }
    }

    #[test]
    fn what_others_have_sent_may_be_of_any_type() {
        let mut feed = feed(FeedKind::Recorded);
        for value in [json!(1), json!(1.0), json!("a"), json!(true), json!([1, 2])] {
            let block = Block::sample("b", 1.0).field("b", FieldValues::Foreign(vec![value.clone()]));
            assert_eq!(feed.event(block.into()).unwrap()[0]["b"]["data"]["b"], json!([value]));
        }
        assert!(feed.event(Block::sample("b", 1.0).field("1", FieldValues::Foreign(vec![json!(1)])).into()).is_err());
    }

    #[test]
    fn what_recorders_refuse_is_refused() {
        let mut feed = feed(FeedKind::Recorded);
        for bad in [
            Block::sample("b", 1.0).float("x", f64::NAN),
            Block::sample("b", f64::INFINITY).float("x", 1.0),
            Block::sample("b", 1.0),
            Block::samples("b", vec![]).field("x", FieldValues::Int(vec![])),
            Block::samples("b", vec![1.0, 2.0]).int("x", 1),
            Block::sample("b", 1.0).int("1x", 1),
            Block::sample("b", 1.0).int("a-b", 1),
            Block::sample("b", 1.0).int("__", 1),
            Block::sample("b", 1.0).int("", 1),
            Block::sample("b", 1.0).int(&"x".repeat(256), 1),
        ] {
            assert!(feed.event(bad.clone().into()).is_err(), "{bad:?}");
        }
        assert!(feed.event(Block::sample("b", 1.0).int("__x1", 1).into()).is_ok());
        assert!(feed.event(json!({}).into()).is_err());
        assert!(super::tests::feed(FeedKind::Free).event(Block::sample("b", 1.0).int("x", 1).into()).is_err());
    }

    #[test]
    fn a_feed_name_is_one_component() {
        let owner = FeedOwner { address: "observatory.a", class: "A", session_id: "1" };
        for bad in ["", "a.b", "a b", "a#b", &"x".repeat(256)] {
            assert!(Feed::new(&owner, bad, FeedKind::Recorded, Map::new()).is_err(), "{bad}");
        }
    }
}
