//! Who may do what at a TCP door: reading is open, changing takes the token, and no web page of others gets in through
//! somebody's browser.

use super::router::RefusedRequest;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Letters of the shortest token.
const TOKEN_LEAST: usize = 16;
/// Pause after a wrong token.
const WRONG_PAUSE: Duration = Duration::from_millis(500);

/// An address to listen at; a port alone is one of this machine only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenAddress(pub(super) SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let local = |port: &str| format!("127.0.0.1:{port}");
        let address = match text.strip_prefix("localhost:") {
            Some(port) => local(port),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => local(text),
            None => text.to_owned(),
        };
        let address =
            address.parse().map_err(|_| format!("{text:?} is no address; expected a port, or ADDRESS:PORT"))?;
        Ok(Self(address))
    }
}

/// What lets people change something.
pub(crate) struct ListenToken(Vec<u8>);

impl ListenToken {
    /// The token of a file, without the blanks around it.
    pub(crate) fn of(content: &[u8]) -> Result<Self, String> {
        let token = content.trim_ascii();
        let plain = token.iter().all(u8::is_ascii_graphic);
        match token.len() >= TOKEN_LEAST && plain {
            true => Ok(Self(token.to_owned())),
            false => Err(format!(
                "a token has {TOKEN_LEAST} letters at least and no blanks; make one with `openssl rand -hex 32`"
            )),
        }
    }

    fn is(&self, given: &[u8]) -> bool {
        self.0.as_slice().ct_eq(given).into()
    }
}

/// The rules of one TCP door.
pub(super) struct Gate {
    /// Only this machine reaches it.
    pub(super) loopback: bool,
    pub(super) token: Option<ListenToken>,
}

/// Lets a request pass, or says why not.
pub(super) async fn admit(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.judge(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            if refusal.0 == StatusCode::UNAUTHORIZED && request.headers().contains_key(header::AUTHORIZATION) {
                tokio::time::sleep(WRONG_PAUSE).await;
            }
            refusal.into_response()
        }
    }
}

impl Gate {
    fn judge(&self, method: &Method, headers: &HeaderMap) -> Result<(), RefusedRequest> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        // A page of others whose name leads here (DNS rebinding) has its own name in this line.
        if self.loopback && !is_local(host) {
            let why = "This door is for this machine: ask for localhost or 127.0.0.1".to_owned();
            return Err(RefusedRequest(StatusCode::MISDIRECTED_REQUEST, why));
        }
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        let origin = text(header::ORIGIN).map(|origin| origin.split("://").nth(1).unwrap_or(origin));
        if origin.is_some_and(|origin| origin != host) {
            return Err(RefusedRequest(StatusCode::FORBIDDEN, "A page of another site may change nothing".to_owned()));
        }
        let Some(token) = &self.token else {
            let why = "Nothing can be changed here: start run with --listen-token-file, or use the socket".to_owned();
            return Err(RefusedRequest(StatusCode::FORBIDDEN, why));
        };
        match headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer ")) {
            Some(given) if token.is(given) => Ok(()),
            Some(_) => {
                Err(RefusedRequest(StatusCode::UNAUTHORIZED, "This is not the token of --listen-token-file".to_owned()))
            }
            None => Err(RefusedRequest(
                StatusCode::UNAUTHORIZED,
                "Give the token of --listen-token-file: Authorization: Bearer …".to_owned(),
            )),
        }
    }
}

/// Whether a Host line names this machine as one that nobody else can be.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(gate: &Gate, method: Method, lines: &[(&str, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        gate.judge(&method, &headers).map_or_else(|refusal| refusal.0.as_u16(), |()| 200)
    }

    #[test]
    fn reading_is_open_and_changing_takes_the_token() {
        let token = || Some(ListenToken::of(b" 0123456789abcdef\n").unwrap());
        let gate = Gate { loopback: true, token: token() };
        let host = ("host", "localhost:9187");
        let bearer = |text| ("authorization", text);
        assert_eq!(judged(&gate, Method::GET, &[host]), 200);
        assert_eq!(judged(&gate, Method::POST, &[host]), 401);
        assert_eq!(judged(&gate, Method::POST, &[host, bearer("Bearer 0123456789abcdeX")]), 401);
        assert_eq!(judged(&gate, Method::POST, &[host, bearer("Bearer 0123456789abcdef")]), 200);
        assert_eq!(judged(&gate, Method::POST, &[host, bearer("Basic 0123456789abcdef")]), 401);
        assert_eq!(judged(&gate, Method::DELETE, &[host]), 401);
        let own = ("origin", "http://localhost:9187");
        assert_eq!(judged(&gate, Method::POST, &[host, own, bearer("Bearer 0123456789abcdef")]), 200);
        let other = ("origin", "http://evil.example");
        assert_eq!(judged(&gate, Method::POST, &[host, other, bearer("Bearer 0123456789abcdef")]), 403);
        let without = Gate { loopback: true, token: None };
        assert_eq!(judged(&without, Method::POST, &[host, bearer("Bearer 0123456789abcdef")]), 403);
        assert!(ListenToken::of(b"short").is_err() && ListenToken::of(b"0123456789 abcdef").is_err());
    }

    #[test]
    fn a_name_that_may_lead_here_from_elsewhere_is_refused() {
        let gate = Gate { loopback: true, token: None };
        for (host, status) in [
            ("localhost", 200),
            ("LOCALHOST:80", 200),
            ("127.0.0.1:9187", 200),
            ("[::1]:9187", 200),
            ("[::1]", 200),
            ("evil.example:9187", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example:9187", 421),
            ("10.0.0.1", 421),
            ("", 421),
        ] {
            assert_eq!(judged(&gate, Method::GET, &[("host", host)]), status, "{host}");
            assert_eq!(judged(&Gate { loopback: false, token: None }, Method::GET, &[("host", host)]), 200);
        }
    }

    #[test]
    fn a_port_alone_is_of_this_machine() {
        let of = |text: &str| text.parse::<ListenAddress>().map(|address| address.0.to_string());
        assert_eq!(of("9187").as_deref(), Ok("127.0.0.1:9187"));
        assert_eq!(of("localhost:9187").as_deref(), Ok("127.0.0.1:9187"));
        assert_eq!(of("0.0.0.0:9187").as_deref(), Ok("0.0.0.0:9187"));
        assert_eq!(of("[::]:80").as_deref(), Ok("[::]:80"));
        for wrong in ["", ":9187", "host:9187", "70000", "10.0.0.1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
