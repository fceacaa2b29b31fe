//! Asks and tells running archivers of this machine, by their sockets.

use super::places::ControlChoice;
pub(crate) use super::router::OrderBody;
use super::socket;
use crate::console::report::ProcessReport;
use crate::disk::reason;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// The longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of the longest answer.
const ANSWER_MOST: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("Socket {}: {why}", path.display())]
    OutOfReach { path: PathBuf, why: String },
    /// The archiver does not do it, and says why.
    #[error("{0}")]
    Refused(String),
}

/// A running archiver, and how it stands.
pub(crate) struct Running {
    pub(crate) socket: PathBuf,
    pub(crate) report: ProcessReport,
    folder: socket::SocketFolder,
    name: std::ffi::OsString,
}

/// All archivers that answer where sockets are looked for. With a socket named, its silence is an error.
pub(crate) async fn running(choice: &ControlChoice) -> Result<Vec<Running>, AskError> {
    let unusable = |path: PathBuf, error: &io::Error| AskError::OutOfReach { path, why: reason(error) };
    let named = match choice {
        ControlChoice::At(path) => Some(path.clone()),
        _ => None,
    };
    let sockets = socket::sockets(choice).map_err(|error| unusable(named.clone().unwrap_or_default(), &error))?;
    let mut found = Vec::new();
    for (folder, name) in sockets {
        let socket = folder.shown(&name);
        let asked = async {
            let stream = folder.connect(&name).await.map_err(|error| unusable(socket.clone(), &error))?;
            let answer = call(stream, Method::GET, "/status.json", None).await;
            answer.map_err(|why| AskError::OutOfReach { path: socket.clone(), why })
        };
        match asked.await.and_then(|(status, body)| understood(status, &body, &socket)) {
            Ok(report) => found.push(Running { socket, report, folder, name }),
            Err(error) if named.is_some() => return Err(error),
            // Left behind by one that has ended.
            Err(error) => tracing::debug!("{error}"),
        }
    }
    Ok(found)
}

fn understood(status: StatusCode, body: &[u8], socket: &std::path::Path) -> Result<ProcessReport, AskError> {
    let why = match (status, serde_json::from_slice(body)) {
        (StatusCode::OK, Ok(report)) => return Ok(report),
        (StatusCode::OK, Err(error)) => format!("its answer is not understood, it may be of another version: {error}"),
        (status, _) => format!("it answers {status}"),
    };
    Err(AskError::OutOfReach { path: socket.to_owned(), why })
}

impl Running {
    /// Why it should be started anew, in words; `None` while it lives and moves.
    pub(crate) async fn illness(&self) -> Result<Option<String>, AskError> {
        let lost = |why: String| AskError::OutOfReach { path: self.socket.clone(), why };
        let stream = self.folder.connect(&self.name).await.map_err(|error| lost(reason(&error)))?;
        let (status, body) = call(stream, Method::GET, "/healthz", None).await.map_err(lost)?;
        Ok((status != StatusCode::OK).then(|| String::from_utf8_lossy(&body).trim().to_owned()))
    }

    /// Tells it something; its reply.
    pub(crate) async fn tell(&self, road: &str, order: &OrderBody) -> Result<Value, AskError> {
        let lost = |why: String| AskError::OutOfReach { path: self.socket.clone(), why };
        let stream = self.folder.connect(&self.name).await.map_err(|error| lost(reason(&error)))?;
        let body = serde_json::to_vec(order).map_err(|error| lost(error.to_string()))?;
        let (status, body) = call(stream, Method::POST, road, Some(body)).await.map_err(lost)?;
        let reply: Value = serde_json::from_slice(&body).map_err(|_| lost(format!("it answers {status}")))?;
        match status {
            StatusCode::OK => Ok(reply),
            _ => Err(AskError::Refused(reply["error"].as_str().map_or(status.to_string(), str::to_owned))),
        }
    }
}

/// One request and its answer.
async fn call(
    stream: UnixStream,
    method: Method,
    road: &str,
    body: Option<Vec<u8>>,
) -> Result<(StatusCode, Bytes), String> {
    let calling = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let driving = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(road)
            .header("host", "localhost")
            .header("connection", "close")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MOST).collect().await.map_err(|error| error.to_string())?;
        driving.abort();
        Ok((status, body.to_bytes()))
    };
    let answered = tokio::time::timeout(LIMIT, calling).await;
    answered.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
}
