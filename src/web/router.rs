//! What is asked and told, and how it is answered.

use super::metrics;
use crate::catalog::{RecordId, Retry};
use crate::console::report::ProcessReport;
use crate::console::{Console, ConsoleError, Consoles, LimitOrder};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// Bytes of what is told in one request.
const BODY_MOST: usize = 64 << 10;
/// How long a request may take; counting a table that does not answer is given up.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// What is told; each road takes of it what it needs.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OrderBody {
    /// Which archive; needless where there is but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) archive: Option<String>,
    /// For `bwlimit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<String>,
    /// For `retry`: which rows, by their ids or by a pattern of their paths; else all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ids: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pattern: Option<String>,
}

/// Why a request is not followed.
pub(super) struct RefusedRequest(pub(super) StatusCode, pub(super) String);

impl IntoResponse for RefusedRequest {
    fn into_response(self) -> Response {
        (self.0, json_of(&json!({"error": self.1}))).into_response()
    }
}

impl From<ConsoleError> for RefusedRequest {
    fn from(error: ConsoleError) -> Self {
        let status = match error {
            ConsoleError::NotRunning => StatusCode::CONFLICT,
            ConsoleError::Catalog(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

/// The roads to these archives.
pub(super) fn router(consoles: Consoles) -> Router {
    let reading = Router::new()
        .route("/", get(page))
        .route("/status.json", get(status))
        .route("/history.json", get(history))
        .route("/metrics", get(figures))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz));
    let changing = Router::new()
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/bwlimit", post(bwlimit))
        .route("/look", post(look))
        .route("/retry", post(retry));
    reading
        .merge(changing)
        .with_state(consoles)
        .layer(DefaultBodyLimit::max(BODY_MOST))
        .layer(middleware::from_fn(in_time))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let why = format!("It took more than {} s; nothing is known of what came of it", REQUEST_LIMIT.as_secs());
            RefusedRequest(StatusCode::GATEWAY_TIMEOUT, why).into_response()
        }
    }
}

/// A reply of JSON, which nobody keeps.
fn json_of(value: &impl Serialize) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, serde_json::to_vec(value).unwrap_or_default()).into_response()
}

/// How all archives of this process stand.
fn report(consoles: &Consoles) -> ProcessReport {
    ProcessReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        archives: consoles.all().iter().map(Console::status).collect(),
    }
}

async fn status(State(consoles): State<Consoles>) -> Response {
    json_of(&report(&consoles))
}

async fn history(State(consoles): State<Consoles>) -> Response {
    let of = |console: &Console| json!({"archive": console.identity().name, "minutes": console.history()});
    json_of(&consoles.all().iter().map(of).collect::<Vec<_>>())
}

/// The page, with nothing from elsewhere in it, and leave for its own script and style alone.
async fn page() -> Response {
    let mut secret = [0; 18];
    if getrandom::fill(&mut secret).is_err() {
        return RefusedRequest(StatusCode::INTERNAL_SERVER_ERROR, "There is no randomness".to_owned()).into_response();
    }
    let nonce = BASE64_STANDARD.encode(secret);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let text = include_str!("page.html").replace("NONCE", &nonce);
    let fixed = |value| HeaderValue::from_static(value);
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).unwrap_or(fixed("default-src 'none'"))),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
        (header::CACHE_CONTROL, fixed("no-store")),
    ];
    (headers, Html(text)).into_response()
}

async fn figures(State(consoles): State<Consoles>, headers: HeaderMap) -> Response {
    let text = metrics::text(&report(&consoles).archives);
    let asked = headers.get(header::ACCEPT).and_then(|kinds| kinds.to_str().ok()).unwrap_or_default();
    let (kind, text) = match asked.contains("application/openmetrics-text") {
        true => ("application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        false => ("text/plain; version=0.0.4; charset=utf-8", metrics::in_the_older_form(&text)),
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}

/// Whether each is as it should be, and why not.
fn verdict(consoles: &Consoles, judge: impl Fn(&Console) -> Result<(), String>) -> Response {
    let consoles = consoles.all();
    let faults = consoles.iter().filter_map(|console| Some((console, judge(console).err()?)));
    let lines: Vec<_> = faults.map(|(console, why)| format!("{}: {why}\n", console.identity().name)).collect();
    match lines.is_empty() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, lines.concat()).into_response(),
    }
}

async fn healthz(State(consoles): State<Consoles>) -> Response {
    verdict(&consoles, Console::health)
}

async fn readyz(State(consoles): State<Consoles>) -> Response {
    verdict(&consoles, Console::readiness)
}

/// What the body says, of which archive.
fn told(consoles: &Consoles, headers: &HeaderMap, body: &Bytes) -> Result<(Console, OrderBody), RefusedRequest> {
    let refuse = |why: String| RefusedRequest(StatusCode::BAD_REQUEST, why);
    let is_json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !is_json {
        return Err(RefusedRequest(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Send application/json".to_owned()));
    }
    let order: OrderBody =
        serde_json::from_slice(body).map_err(|error| refuse(format!("The body cannot be read: {error}")))?;
    let consoles = consoles.all();
    let names = || consoles.iter().map(|console| console.identity().name.as_str()).collect::<Vec<_>>().join(", ");
    let console = match (&order.archive, consoles.as_slice()) {
        (Some(name), all) => all.iter().find(|console| console.identity().is(name)).ok_or_else(|| {
            RefusedRequest(
                StatusCode::NOT_FOUND,
                format!("Nothing is archived by the name {name:?} here; there is {}", names()),
            )
        })?,
        (None, [one]) => one,
        (None, _) => return Err(refuse(format!("Say which archive: {}", names()))),
    };
    Ok((console.clone(), order))
}

fn done(console: &Console, said: &str, more: Value) -> Response {
    let mut reply = json!({"archive": console.identity().name, "said": said});
    if let (Value::Object(reply), Value::Object(more)) = (&mut reply, more) {
        reply.extend(more);
    }
    json_of(&reply)
}

async fn pause(State(consoles): State<Consoles>, headers: HeaderMap, body: Bytes) -> Result<Response, RefusedRequest> {
    let (console, _) = told(&consoles, &headers, &body)?;
    console.pause();
    Ok(done(&console, "Paused: no further files are taken up, and those under way are finished", Value::Null))
}

async fn resume(State(consoles): State<Consoles>, headers: HeaderMap, body: Bytes) -> Result<Response, RefusedRequest> {
    let (console, _) = told(&consoles, &headers, &body)?;
    console.resume();
    Ok(done(&console, "Goes on", Value::Null))
}

async fn look(State(consoles): State<Consoles>, headers: HeaderMap, body: Bytes) -> Result<Response, RefusedRequest> {
    let (console, _) = told(&consoles, &headers, &body)?;
    console.look_again();
    console.count_again();
    Ok(done(&console, "Looks at the whole table", Value::Null))
}

async fn bwlimit(
    State(consoles): State<Consoles>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, RefusedRequest> {
    let (console, order) = told(&consoles, &headers, &body)?;
    if let Some(rate) = &order.rate {
        let order = LimitOrder::parse(rate).map_err(|why| RefusedRequest(StatusCode::BAD_REQUEST, why))?;
        console.limit(order);
        tracing::info!(bytes_per_second = console.limit_now().bytes_per_second, "Limit set by an operator: {rate}");
    }
    let limit = console.limit_now();
    Ok(done(&console, &limit.told(), json!({"limit": limit})))
}

async fn retry(State(consoles): State<Consoles>, headers: HeaderMap, body: Bytes) -> Result<Response, RefusedRequest> {
    let (console, order) = told(&consoles, &headers, &body)?;
    let which = match (order.ids, order.pattern) {
        (Some(_), Some(_)) => {
            return Err(RefusedRequest(StatusCode::BAD_REQUEST, "Give ids or a pattern, not both".to_owned()));
        }
        (Some(ids), None) => Retry::Ids(ids.into_iter().map(RecordId).collect()),
        (None, Some(pattern)) => Retry::Pattern(pattern),
        (None, None) => Retry::All,
    };
    let retried = console.retry(&which).await?;
    let reasons = retried.reasons();
    Ok(done(&console, &Retry::told(retried.rows), json!({"rows": retried.rows, "reasons": reasons})))
}
