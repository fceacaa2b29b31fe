//! WAMP v2 in JSON over WebSocket: one session with a router.

pub mod message;

pub use message::WampMessage;

use futures_util::{SinkExt, StreamExt};
use message::Malformed;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Bytes, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// The largest message either side takes, in bytes. Python agents drop the connection over a larger one.
pub const MAX_MESSAGE: usize = 1 << 20;
/// For name lookup, TCP, TLS and the WebSocket handshake together.
const CONNECT_LIMIT: Duration = Duration::from_millis(7500);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const WRITE_LIMIT: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_LIMIT: Duration = Duration::from_secs(5);
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Messages that may arrive between a request and its answer.
const MAX_EARLY: usize = 256;

/// Why there is no session with the router, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum WampError {
    /// The address is none this client can use.
    #[error("Router address {url} is not usable ({reason}); give a ws:// or wss:// URL such as ws://127.0.0.1:8001/ws")]
    Address {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection, or it broke.
    #[error("Connection to the router: {0}")]
    Socket(#[from] tungstenite::Error),
    /// Nothing came, or nothing could be sent, for too long.
    #[error("The router gave no {what} within {seconds} s")]
    Silent {
        /// What was awaited.
        what: &'static str,
        /// For how long.
        seconds: f64,
    },
    /// The router ended the session or the connection.
    #[error("The router closed the session: {0}")]
    Closed(String),
    /// The router sent something that is no WAMP.
    #[error("The router sent a malformed message. {0}")]
    Malformed(#[from] Malformed),
    /// The router sent more than an agent takes in.
    #[error("The router sent {MAX_EARLY} messages instead of an answer")]
    Flood,
    /// A request was refused.
    #[error("The router refused {what}: {uri} {text}")]
    Refused {
        /// The request.
        what: String,
        /// The error URI.
        uri: String,
        /// The router's words.
        text: String,
    },
}

/// A joined session.
pub struct Wire {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    requests: u64,
    early: VecDeque<WampMessage>,
    ping_at: Instant,
    pong_by: Option<Instant>,
}

/// The HTTP request that opens a WebSocket to `url`.
pub fn request(url: &str) -> Result<Request, WampError> {
    let bad = |reason: String| WampError::Address { url: url.to_owned(), reason };
    let mut request = url.into_client_request().map_err(|error| bad(error.to_string()))?;
    if !matches!(request.uri().scheme_str(), Some("ws" | "wss")) {
        return Err(bad("its scheme is neither ws nor wss".to_owned()));
    }
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("wamp.2.json"));
    Ok(request)
}

impl Wire {
    /// Connects to `url` and joins `realm`.
    pub async fn join(url: &str, realm: &str) -> Result<Self, WampError> {
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let (socket, _) = in_time(
            CONNECT_LIMIT,
            "WebSocket connection",
            connect_async_with_config(request(url)?, Some(config), true),
        )
        .await??;
        let ping_at = Instant::now() + PING_EVERY;
        let mut wire = Self { socket, requests: 0, early: VecDeque::new(), ping_at, pong_by: None };
        wire.send(&WampMessage::Hello { realm: realm.to_owned() }).await?;
        match in_time(ANSWER_LIMIT, "WELCOME", wire.receive()).await?? {
            WampMessage::Welcome { .. } => Ok(wire),
            WampMessage::Abort { reason, text } => {
                Err(WampError::Refused { what: format!("to let us join realm {realm}"), uri: reason, text })
            }
            other => Err(WampError::Closed(format!("instead of WELCOME it sent {}", shorten(&other)))),
        }
    }

    /// The number of the next request.
    pub fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Registers a procedure; the number that its invocations carry.
    pub async fn register(&mut self, procedure: &str) -> Result<u64, WampError> {
        let request = self.next_request();
        self.send(&WampMessage::Register { request, procedure: procedure.to_owned() }).await?;
        match in_time(ANSWER_LIMIT, "answer to REGISTER", self.answer(request)).await?? {
            WampMessage::Registered { registration, .. } => Ok(registration),
            WampMessage::Error { uri, args, .. } => {
                let text = args.first().and_then(|text| text.as_str()).unwrap_or_default().to_owned();
                Err(WampError::Refused { what: format!("to register {procedure}"), uri, text })
            }
            other => Err(WampError::Closed(format!("it answered REGISTER with {}", shorten(&other)))),
        }
    }

    /// Waits for the answer to a request; whatever else comes is kept for later.
    async fn answer(&mut self, request: u64) -> Result<WampMessage, WampError> {
        loop {
            match self.receive().await? {
                message if message.answers(request) => return Ok(message),
                WampMessage::Goodbye { reason } | WampMessage::Abort { reason, .. } => {
                    return Err(WampError::Closed(reason));
                }
                other if self.early.len() < MAX_EARLY => self.early.push_back(other),
                _ => return Err(WampError::Flood),
            }
        }
    }

    /// The next message. May be dropped at any time without losing one. Pings and answers pings meanwhile.
    pub async fn next(&mut self) -> Result<WampMessage, WampError> {
        match self.early.pop_front() {
            Some(message) => Ok(message),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Result<WampMessage, WampError> {
        loop {
            let wake = self.pong_by.unwrap_or(self.ping_at);
            // What has arrived comes first: after a long pause of ours, the answer to a ping may be among it.
            tokio::select! {
                biased;
                frame = self.socket.next() => match frame {
                    None => return Err(WampError::Closed("the connection ended".to_owned())),
                    Some(Ok(Frame::Text(text))) => if let Some(message) = WampMessage::decode(&text)? {
                        return Ok(message);
                    },
                    Some(Ok(Frame::Pong(_))) => self.pong_by = None,
                    // The answer is written already; it only has to leave.
                    Some(Ok(Frame::Ping(_))) => in_time(WRITE_LIMIT, "room for a pong", self.socket.flush()).await??,
                    Some(Ok(Frame::Close(frame))) => {
                        let words = frame.map(|frame| format!("{} {}", u16::from(frame.code), frame.reason));
                        return Err(WampError::Closed(words.unwrap_or_else(|| "without a reason".to_owned())));
                    }
                    Some(Ok(Frame::Binary(_) | Frame::Frame(_))) => {
                        return Err(Malformed::Form { code: 0, what: "text" }.into());
                    }
                    Some(Err(error)) => return Err(error.into()),
                },
                () = sleep_until(wake) => {
                    if self.pong_by.is_some() {
                        return Err(WampError::Silent { what: "answer to our ping", seconds: PONG_LIMIT.as_secs_f64() });
                    }
                    let now = Instant::now();
                    self.pong_by = Some(now + PONG_LIMIT);
                    self.ping_at = now + PING_EVERY;
                    self.put(Frame::Ping(Bytes::from_static(b"are-you-here"))).await?;
                }
            }
        }
    }

    /// Sends a message. It must not be larger than [`MAX_MESSAGE`] when encoded.
    pub async fn send(&mut self, message: &WampMessage) -> Result<(), WampError> {
        self.put(Frame::text(message.encode())).await
    }

    /// Sends a message that is already encoded.
    pub async fn send_encoded(&mut self, text: String) -> Result<(), WampError> {
        self.put(Frame::text(text)).await
    }

    async fn put(&mut self, frame: Frame) -> Result<(), WampError> {
        Ok(in_time(WRITE_LIMIT, "room for a message", self.socket.send(frame)).await??)
    }

    /// Leaves properly: GOODBYE, its answer, close 1000. Takes some three seconds at most, whatever the router does.
    pub async fn leave(mut self) {
        let goodbye = WampMessage::Goodbye { reason: "wamp.close.normal".to_owned() };
        let farewell = async {
            self.send(&goodbye).await?;
            while !matches!(self.next().await?, WampMessage::Goodbye { .. }) {}
            Ok::<_, WampError>(())
        };
        if !matches!(timeout(CLOSE_LIMIT, farewell).await, Ok(Ok(()))) {
            tracing::debug!("The router did not say goodbye");
        }
        let frame = CloseFrame { code: CloseCode::Normal, reason: "wamp.close.normal".into() };
        let _ = timeout(CLOSE_LIMIT, self.socket.close(Some(frame))).await;
        let _ = timeout(CLOSE_LIMIT, async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
    }
}

async fn in_time<T>(limit: Duration, what: &'static str, work: impl Future<Output = T>) -> Result<T, WampError> {
    timeout(limit, work).await.map_err(|_| WampError::Silent { what, seconds: limit.as_secs_f64() })
}

/// The beginning of a message, for an error about it.
fn shorten(message: &WampMessage) -> String {
    message.encode().chars().take(80).collect()
}

#[cfg(test)]
mod tests;
