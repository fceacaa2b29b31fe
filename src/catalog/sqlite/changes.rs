//! Hears of writes to a file and to its write-ahead log, by inotify: so nobody need ask time and again.
//!
//! Only this machine's kernel tells, and not on every file system. Whoever relies on it finds out by asking now and then.

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init, remove_watch};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tokio::io::unix::AsyncFd;

/// Words that are taken from the kernel at once, as bytes.
const WORDS: usize = 4096;
/// How often that is done at most: no producer is so fast that it keeps us.
const TURNS: usize = 64;

/// What is heard of two files.
pub(super) struct Changes {
    /// `None` where the kernel gives none: each user has but so many.
    inotify: Option<AsyncFd<OwnedFd>>,
    /// The two that are watched.
    watched: Mutex<Vec<i32>>,
}

impl Changes {
    /// Hears of nothing yet.
    #[expect(deprecated, reason = "what it is deprecated for cannot be: an OwnedFd is open for as long as it is held")]
    pub(super) fn new() -> Self {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(io::Error::from);
        let inotify = inotify.and_then(AsyncFd::new).inspect_err(|error| {
            tracing::debug!(%error, "Nobody tells of writes to the database; it is asked more often");
        });
        Self { inotify: inotify.ok(), watched: Mutex::default() }
    }

    /// Hears of these from now on, and of no others.
    pub(super) fn follow(&self, files: &[&Path]) {
        let Some(inotify) = &self.inotify else { return };
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that is told to be watched again keeps its number.
        let flags = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
        let now: Vec<i32> = files.iter().filter_map(|file| add_watch(inotify, *file, flags).ok()).collect();
        for gone in watched.iter().filter(|number| !now.contains(number)) {
            // One that was deleted is watched no more.
            let _ = remove_watch(inotify, *gone);
        }
        *watched = now;
    }

    /// Comes back when one of them was written to since this was called last; never, where nobody tells.
    pub(super) async fn heard(&self) {
        let Some(inotify) = &self.inotify else { return std::future::pending().await };
        // Asked itself: the runtime looks at it between other things only.
        if take(inotify.get_ref()).is_ok() {
            return;
        }
        while let Ok(mut ready) = inotify.readable().await {
            if let Ok(Ok(())) = ready.try_io(|inotify| take(inotify.get_ref())) {
                return;
            }
        }
        std::future::pending().await
    }
}

/// Takes what words there are; an error where there are none.
fn take(inotify: &OwnedFd) -> io::Result<()> {
    let mut words = [0; WORDS];
    rustix::io::read(inotify, &mut words)?;
    for _ in 1..TURNS {
        if rustix::io::read(inotify, &mut words).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::fs::{File, write};

    #[tokio::test]
    async fn writes_are_heard_of_once_and_only_those_to_what_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other, third] = ["one", "other", "third"].map(|name| folder.path().join(name));
        for file in [&one, &other, &third] {
            write(file, "").unwrap();
        }
        let changes = Changes::new();
        let is_told = || changes.heard().now_or_never().is_some();
        changes.follow(&[&one, &other]);
        assert!(!is_told());
        write(&other, "x").unwrap();
        write(&other, "y").unwrap();
        assert!(is_told() && !is_told());
        File::open(&one).unwrap();
        write(&third, "x").unwrap();
        assert!(!is_told());
        changes.follow(&[&one, &third]);
        let _ = is_told();
        write(&other, "x").unwrap();
        assert!(!is_told());
        // Also one who waits already hears of it.
        let waits = async { tokio::join!(changes.heard(), async { write(&third, "z").unwrap() }) };
        tokio::time::timeout(std::time::Duration::from_secs(60), waits).await.unwrap();
    }
}
