//! Serves connections, each for only so long and only so many at once.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// Connections of one door at once.
const CONNECTIONS_MOST: usize = 32;
/// How long a request's head may take, and a whole connection.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a request's head, and lines of it.
const HEAD_MOST: usize = 16 << 10;
const HEADERS_MOST: usize = 64;
/// Pause after a connection that could not be accepted: descriptors may have run out.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come in.
pub(super) enum Door {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// What a connection is read and written by.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

impl Door {
    async fn accept(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Serves until it is dropped.
pub(super) async fn serve(door: Door, router: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MOST));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match door.accept().await {
            Ok(stream) => {
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(async move {
                    let mut http = http1::Builder::new();
                    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
                    http.max_buf_size(HEAD_MOST).max_headers(HEADERS_MOST);
                    let connection = http.serve_connection(TokioIo::new(stream), service);
                    // Whatever it was: the next one is none the worse.
                    let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!("A connection of an operator was not accepted: {error}");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}
