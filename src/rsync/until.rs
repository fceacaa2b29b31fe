//! What may end a session before its time: a signal, or the moment that `--stop-at` names.

use super::exit;
use crate::clock::unix_seconds;
use crate::link::Closer;
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long a session may take to tidy up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watches over one link until dropped.
pub(crate) struct Until {
    code: Arc<AtomicI32>,
    // Dropping it ends the watch.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Until {
    /// Closes the link at a signal, or at `stop_at` (seconds since 1970), so that what was begun is removed or kept as after
    /// a lost link. At a second signal, or when the session does not end within seconds, the program ends at once.
    pub(crate) fn watch(closer: Closer, stop_at: Option<i64>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let code = Arc::new(AtomicI32::new(0));
        let (mut interrupt, mut terminate, mut hangup, mut user, too_large) = {
            let _inside = runtime.enter();
            let of = |kind: SignalKind| signal(kind);
            (
                of(SignalKind::interrupt())?,
                of(SignalKind::terminate())?,
                of(SignalKind::hangup())?,
                of(SignalKind::user_defined1())?,
                of(SignalKind::from_raw(Signal::XFSZ.as_raw()))?,
            )
        };
        let told = code.clone();
        runtime.spawn(async move {
            // A file that may not grow is an error of the write that meets the limit.
            let _unheeded = too_large;
            let mut limit = stop_at;
            for first in [true, false] {
                let why = tokio::select! {
                    _ = interrupt.recv() => exit::SIGNAL,
                    _ = terminate.recv() => exit::SIGNAL,
                    _ = hangup.recv() => exit::SIGNAL,
                    _ = user.recv() => exit::USR1,
                    () = moment(limit), if first => exit::TIMEOUT,
                    () = tokio::time::sleep(PATIENCE), if !first => told.load(Ordering::Acquire),
                };
                if !first {
                    std::process::exit(why);
                }
                limit = None;
                told.store(why, Ordering::Release);
                closer.close();
            }
        });
        Ok(Self { code, runtime: Some(runtime) })
    }

    /// The exit code of what ended the session, if this did.
    pub(crate) fn ended(&self) -> Option<i32> {
        Some(self.code.load(Ordering::Acquire)).filter(|&code| code != 0)
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn moment(stop_at: Option<i64>) {
    let Some(stop_at) = stop_at else { return std::future::pending().await };
    loop {
        let left = u64::try_from(stop_at.saturating_sub(unix_seconds())).unwrap_or(0);
        if left == 0 {
            return;
        }
        // In steps, as the clock may be set meanwhile.
        tokio::time::sleep(Duration::from_secs(left.min(60))).await;
    }
}
