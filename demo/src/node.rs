//! The storage node: keys, a listening port, and the one cut of the connection.

use anyhow::{Context, Result};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::{LineEnding, PrivateKey};
use russh::server::Config;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Waker, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::ssh_server::{self, Login};

/// A running storage node; it ends when dropped.
pub(crate) struct Node {
    port: u16,
    keys: PathBuf,
    counters: Arc<Counters>,
    _runtime: Runtime,
}

/// What the node has seen.
pub(crate) struct Told {
    /// Connections cut on purpose.
    pub(crate) cuts: u64,
    /// Successful logins.
    pub(crate) logins: u64,
    /// Bytes that came by all connections, SSH's own among them.
    pub(crate) received: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    received: AtomicU64,
    cuts: AtomicU64,
    pub(crate) logins: AtomicU64,
}

impl Node {
    /// Starts one on 127.0.0.1, whose `rsync` is `binary`, or which has none, and whose logins begin in `home`; with its keys and the client's below `keys`. After
    /// `cut_after` received bytes the connection they came by is cut, once.
    pub(crate) fn start(keys: &Path, binary: Option<PathBuf>, home: PathBuf, cut_after: Option<u64>) -> Result<Self> {
        fs::create_dir_all(keys)?;
        let host_key = fresh_key()?;
        let client_key = fresh_key()?;
        // Written with mode 600, as ssh demands it.
        client_key.write_openssh_file(keys.join("id_ed25519"), LineEnding::LF).context("Cannot write the key")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).context("Cannot listen on 127.0.0.1")?;
        let port = listener.local_addr()?.port();
        let known = format!("[127.0.0.1]:{port} {}\n", host_key.public_key().to_openssh()?);
        fs::write(keys.join("known_hosts"), known)?;

        let counters = Arc::new(Counters::default());
        let login =
            Login { key: client_key.public_key().key_data().clone(), binary, home, counters: Arc::clone(&counters) };
        let config = Arc::new(ssh_server::config(host_key));
        runtime.spawn(accept(listener, config, login, Arc::clone(&counters), cut_after));
        Ok(Self { port, keys: keys.to_owned(), counters, _runtime: runtime })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The private key that is let in.
    pub(crate) fn client_key(&self) -> PathBuf {
        self.keys.join("id_ed25519")
    }

    /// A file that knows the node's key.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.keys.join("known_hosts")
    }

    pub(crate) fn told(&self) -> Told {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Told {
            cuts: read(&self.counters.cuts),
            logins: read(&self.counters.logins),
            received: read(&self.counters.received),
        }
    }
}

/// Returns when the operator wants to stop: Ctrl-C or SIGTERM.
pub(crate) fn interrupted() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            _ = terminate.recv() => Ok(()),
        }
    })
}

fn fresh_key() -> Result<PrivateKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("No random numbers")?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

async fn accept(
    listener: TcpListener,
    config: Arc<Config>,
    login: Login,
    counters: Arc<Counters>,
    cut_after: Option<u64>,
) {
    // Accepting fails when descriptors run out; this client has few connections.
    while let Ok((tcp, _)) = listener.accept().await {
        let _ = tcp.set_nodelay(true);
        let stream = Cuttable { tcp, counters: Arc::clone(&counters), cut_after };
        let (config, handler) = (Arc::clone(&config), login.handler());
        tokio::spawn(async move {
            if let Ok(session) = russh::server::run_stream(config, stream, handler).await {
                let _ = session.await;
            }
        });
    }
}

/// A connection that breaks when the node has received enough.
struct Cuttable {
    tcp: TcpStream,
    counters: Arc<Counters>,
    cut_after: Option<u64>,
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(waker, buffer);
        let read = (buffer.filled().len() - before) as u64;
        let received = self.counters.received.fetch_add(read, Ordering::Relaxed) + read;
        if self.cut_after.is_some_and(|limit| read > 0 && received >= limit)
            && self.counters.cuts.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        polled
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(waker, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(waker)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(waker)
    }
}
