//! Signals that end a session: the link is closed, so that whatever was begun is removed or kept as after a lost link.

use crate::link::Closer;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a session that was told to end.
pub(super) const INTERRUPTED: u8 = 20;
/// How long a session may take to tidy up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a signal has come.
#[derive(Clone)]
pub(super) struct Interrupts(Arc<AtomicBool>);

impl Interrupts {
    /// Closes the link at the first SIGINT, SIGTERM or SIGHUP. At a second one, or when the session does not end within
    /// seconds, the program ends at once.
    pub(super) fn closing(closer: Closer) -> io::Result<Self> {
        let caught = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&caught);
        let (ready, listening) = mpsc::channel();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = runtime.map(|runtime| {
                runtime.block_on(async move {
                    let mut signals = match Signals::new() {
                        Ok(signals) => signals,
                        Err(error) => return ready.send(Err(error)).unwrap_or_default(),
                    };
                    if ready.send(Ok(())).is_err() {
                        return;
                    }
                    signals.next().await;
                    seen.store(true, Ordering::Release);
                    closer.close();
                    let _ = tokio::time::timeout(PATIENCE, signals.next()).await;
                    std::process::exit(INTERRUPTED.into());
                });
            });
            if let Err(error) = result {
                tracing::warn!("Cannot listen for signals: {error}");
            }
        })?;
        match listening.recv() {
            Ok(ready) => ready.map(|()| Self(caught)),
            Err(_) => Err(io::Error::other("Cannot listen for signals")),
        }
    }

    /// Whether the session was told to end.
    pub(super) fn caught(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct Signals {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
            _ = self.hup.recv() => {}
        }
    }
}
