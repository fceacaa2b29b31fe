//! A datagram of the pysmurf publisher, as far as all kinds of them are alike.

use super::json::{self, JsonError};
use super::value::{PyText, PyValue};

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageTopic {
    /// A file of pysmurf: `data_file`.
    DataFile,
    /// A file of the streamer: `g3_file`.
    G3File,
    /// A file of a watched folder: of this process alone.
    WatchedFile,
    Metadata,
    /// `session_data` and `session_log`.
    Session,
    Start,
    /// All others; scripts may publish any.
    Other,
}

impl MessageTopic {
    /// Whether it registers a file.
    pub(crate) fn is_file(self) -> bool {
        matches!(self, Self::DataFile | Self::G3File | Self::WatchedFile)
    }
}

/// A datagram that is a message.
#[derive(Debug, Clone)]
pub(crate) struct PublisherMessage {
    pub(crate) topic: MessageTopic,
    /// All of it.
    pub(crate) whole: PyValue,
}

/// Why a datagram is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("Its bytes cannot be read: {0}")]
    Json(#[from] JsonError),
    #[error("It is JSON but no object with a type")]
    NoType,
}

impl PublisherMessage {
    /// Reads a datagram.
    pub(crate) fn read(datagram: &[u8]) -> Result<Self, MessageError> {
        let whole = json::parse(datagram)?;
        let topic = match whole.get("type").ok_or(MessageError::NoType)?.as_text().and_then(PyText::as_str) {
            Some("data_file") => MessageTopic::DataFile,
            Some("g3_file") => MessageTopic::G3File,
            Some("watched_file") => MessageTopic::WatchedFile,
            Some("metadata") => MessageTopic::Metadata,
            Some("session_data" | "session_log") => MessageTopic::Session,
            Some("start") => MessageTopic::Start,
            _ => MessageTopic::Other,
        };
        Ok(Self { topic, whole })
    }

    /// A field of the message itself.
    pub(crate) fn get(&self, name: &str) -> Option<&PyValue> {
        self.whole.get(name)
    }

    /// A field of what it carries.
    pub(crate) fn payload(&self, name: &str) -> Option<&PyValue> {
        self.whole.get("payload")?.get(name)
    }

    /// Its place in what its publisher has sent.
    pub(crate) fn number(&self) -> Option<u64> {
        match self.get("seq_no")? {
            PyValue::Integer(digits) => digits.parse().ok(),
            _ => None,
        }
    }
}
