//! The messages of WAMP v2 that an agent speaks, as JSON arrays.

use serde_json::{Map, Value, json};

/// A WAMP message; options and details that no agent needs are left out.
#[derive(Debug, Clone, PartialEq)]
pub enum WampMessage {
    /// We want to join.
    Hello {
        /// The realm to join.
        realm: String,
    },
    /// We have joined.
    Welcome {
        /// The router's number for this session.
        session: u64,
    },
    /// We may not join, or the session ends at once.
    Abort {
        /// An error URI.
        reason: String,
        /// Words for people, perhaps none.
        text: String,
    },
    /// The session ends, or its end is acknowledged.
    Goodbye {
        /// A close URI.
        reason: String,
    },
    /// A request failed.
    Error {
        /// The code of the message that failed.
        request_type: u64,
        /// Its request number.
        request: u64,
        /// An error URI.
        uri: String,
        /// Words for people, mostly.
        args: Vec<Value>,
    },
    /// An event for whoever listens.
    Publish {
        /// Request number.
        request: u64,
        /// Topic URI.
        topic: String,
        /// The event.
        args: Vec<Value>,
    },
    /// We want the events of a topic.
    Subscribe {
        /// Request number.
        request: u64,
        /// Topic URI.
        topic: String,
    },
    /// We get them.
    Subscribed {
        /// Of the request.
        request: u64,
        /// The number that events carry.
        subscription: u64,
    },
    /// An event of a subscribed topic.
    Event {
        /// Which subscription it belongs to.
        subscription: u64,
        /// The event.
        args: Vec<Value>,
    },
    /// We call a procedure.
    Call {
        /// Request number.
        request: u64,
        /// Procedure URI.
        procedure: String,
        /// By position.
        args: Vec<Value>,
        /// By keyword.
        kwargs: Map<String, Value>,
    },
    /// What a call of ours gave.
    Result {
        /// Of the call.
        request: u64,
        /// What was returned.
        args: Vec<Value>,
    },
    /// We offer a procedure.
    Register {
        /// Request number.
        request: u64,
        /// Procedure URI.
        procedure: String,
    },
    /// It is ours.
    Registered {
        /// Of the request.
        request: u64,
        /// The number that invocations carry.
        registration: u64,
    },
    /// Somebody calls a procedure of ours.
    Invocation {
        /// The router's request number.
        request: u64,
        /// Which procedure.
        registration: u64,
        /// By position.
        args: Vec<Value>,
        /// By keyword.
        kwargs: Map<String, Value>,
    },
    /// Our answer to an invocation.
    Yield {
        /// Of the invocation.
        request: u64,
        /// What is returned.
        args: Vec<Value>,
    },
}

/// Why a text is no WAMP message.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not JSON, or nested too deeply.
    #[error("Not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but not of the form the message has.
    #[error("WAMP message {code} lacks {what} at its place")]
    Form {
        /// The message's code, 0 when it has none.
        code: u64,
        /// What was expected.
        what: &'static str,
    },
}

/// The code of INVOCATION, which errors about invocations carry.
pub const INVOCATION: u64 = 68;

impl WampMessage {
    /// The message as JSON text.
    pub fn encode(&self) -> String {
        let none = Map::new();
        match self {
            Self::Hello { realm } => {
                json!([1, realm, {"roles": {"publisher": {}, "subscriber": {}, "caller": {}, "callee": {}}}])
                    .to_string()
            }
            Self::Welcome { session } => json!([2, session, {}]).to_string(),
            Self::Abort { reason, text } => json!([3, {"message": text}, reason]).to_string(),
            Self::Goodbye { reason } => json!([6, {}, reason]).to_string(),
            Self::Error { request_type, request, uri, args } => {
                with_args(json!([8, request_type, request, {}, uri]), args, &none)
            }
            Self::Publish { request, topic, args } => with_args(json!([16, request, {}, topic]), args, &none),
            Self::Subscribe { request, topic } => json!([32, request, {}, topic]).to_string(),
            Self::Subscribed { request, subscription } => json!([33, request, subscription]).to_string(),
            Self::Event { subscription, args } => with_args(json!([36, subscription, 1, {}]), args, &none),
            Self::Call { request, procedure, args, kwargs } => {
                with_args(json!([48, request, {}, procedure]), args, kwargs)
            }
            Self::Result { request, args } => with_args(json!([50, request, {}]), args, &none),
            Self::Register { request, procedure } => json!([64, request, {}, procedure]).to_string(),
            Self::Registered { request, registration } => json!([65, request, registration]).to_string(),
            Self::Invocation { request, registration, args, kwargs } => {
                with_args(json!([INVOCATION, request, registration, {}]), args, kwargs)
            }
            Self::Yield { request, args } => with_args(json!([70, request, {}]), args, &none),
        }
    }

    /// Reads a message; `None` when it is of a type no agent has a use for.
    pub fn decode(text: &str) -> Result<Option<Self>, Malformed> {
        let Value::Array(items) = serde_json::from_str(text)? else {
            return Err(Malformed::Form { code: 0, what: "a list" });
        };
        let mut parts = MessageParts { code: 0, items: items.into_iter() };
        parts.code = parts.id("a message code")?;
        Ok(Some(match parts.code {
            1 => Self::Hello { realm: parts.uri("a realm")? },
            2 => Self::Welcome { session: parts.id("a session")? },
            3 => {
                let details = parts.object("details")?;
                let text = details.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
                Self::Abort { reason: parts.uri("a reason")?, text }
            }
            6 => {
                parts.object("details")?;
                Self::Goodbye { reason: parts.uri("a reason")? }
            }
            8 => {
                let (request_type, request) = (parts.id("a request type")?, parts.id("a request")?);
                parts.object("details")?;
                Self::Error { request_type, request, uri: parts.uri("an error")?, args: parts.args()? }
            }
            16 => {
                let request = parts.request()?;
                Self::Publish { request, topic: parts.uri("a topic")?, args: parts.args()? }
            }
            32 => Self::Subscribe { request: parts.request()?, topic: parts.uri("a topic")? },
            33 => Self::Subscribed { request: parts.id("a request")?, subscription: parts.id("a subscription")? },
            36 => {
                let subscription = parts.id("a subscription")?;
                parts.id("a publication")?;
                parts.object("details")?;
                Self::Event { subscription, args: parts.args()? }
            }
            48 => {
                let (request, procedure) = (parts.request()?, parts.uri("a procedure")?);
                Self::Call { request, procedure, args: parts.args()?, kwargs: parts.kwargs()? }
            }
            50 => Self::Result { request: parts.request()?, args: parts.args()? },
            64 => Self::Register { request: parts.request()?, procedure: parts.uri("a procedure")? },
            65 => Self::Registered { request: parts.id("a request")?, registration: parts.id("a registration")? },
            INVOCATION => {
                let (request, registration) = (parts.id("a request")?, parts.id("a registration")?);
                parts.object("details")?;
                Self::Invocation { request, registration, args: parts.args()?, kwargs: parts.kwargs()? }
            }
            70 => Self::Yield { request: parts.request()?, args: parts.args()? },
            _ => return Ok(None),
        }))
    }

    /// Whether this answers the request of ours that has this number.
    pub fn answers(&self, number: u64) -> bool {
        match self {
            Self::Error { request_type, request, .. } => *request == number && *request_type != INVOCATION,
            Self::Subscribed { request, .. } | Self::Result { request, .. } | Self::Registered { request, .. } => {
                *request == number
            }
            _ => false,
        }
    }
}

fn with_args(mut message: Value, args: &[Value], kwargs: &Map<String, Value>) -> String {
    if let Value::Array(items) = &mut message {
        if !args.is_empty() || !kwargs.is_empty() {
            items.push(args.into());
        }
        if !kwargs.is_empty() {
            items.push(kwargs.clone().into());
        }
    }
    message.to_string()
}

/// What is left of a message being read.
struct MessageParts {
    code: u64,
    items: std::vec::IntoIter<Value>,
}

impl MessageParts {
    fn lacks(&self, what: &'static str) -> Malformed {
        Malformed::Form { code: self.code, what }
    }

    fn id(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.items.next().and_then(|item| item.as_u64()).ok_or_else(|| self.lacks(what))
    }

    fn uri(&mut self, what: &'static str) -> Result<String, Malformed> {
        match self.items.next() {
            Some(Value::String(text)) => Ok(text),
            _ => Err(self.lacks(what)),
        }
    }

    fn object(&mut self, what: &'static str) -> Result<Map<String, Value>, Malformed> {
        match self.items.next() {
            Some(Value::Object(map)) => Ok(map),
            _ => Err(self.lacks(what)),
        }
    }

    /// A request number with the options that follow it.
    fn request(&mut self) -> Result<u64, Malformed> {
        let request = self.id("a request")?;
        self.object("options")?;
        Ok(request)
    }

    fn args(&mut self) -> Result<Vec<Value>, Malformed> {
        match self.items.next() {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.lacks("arguments")),
        }
    }

    fn kwargs(&mut self) -> Result<Map<String, Value>, Malformed> {
        match self.items.next() {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map),
            Some(_) => Err(self.lacks("keyword arguments")),
        }
    }
}

#[cfg(test)]
mod tests;
