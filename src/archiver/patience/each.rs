//! One call after another, for one path after another, by one thread: a call of its own for each would wake two threads.

use super::{Lapse, Patience, SourceCall, place_of};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Instant;

type PathCall<T> = dyn Fn(&Path) -> io::Result<T> + Send + Sync;

/// What a call comes to for each of some paths, in their order. Each is waited for so long and no longer, and those behind one
/// that does not come back are made by another thread.
pub(in crate::archiver) struct Each<T> {
    paths: Arc<Vec<PathBuf>>,
    next: usize,
    call: Arc<PathCall<T>>,
    /// How many calls are made ahead at most.
    ahead: usize,
    patience: Patience,
    begun: Option<Begun<T>>,
}

/// The calls from some path on.
struct Begun<T> {
    results: mpsc::Receiver<io::Result<T>>,
    thread: mpsc::Sender<SourceCall>,
    answered: Arc<AtomicBool>,
}

impl<T: Send + 'static> Each<T> {
    /// Makes nothing yet.
    pub(in crate::archiver) fn new(
        patience: &Patience,
        paths: Vec<PathBuf>,
        ahead: usize,
        call: impl Fn(&Path) -> io::Result<T> + Send + Sync + 'static,
    ) -> Self {
        Self { paths: Arc::new(paths), next: 0, call: Arc::new(call), ahead, patience: patience.clone(), begun: None }
    }

    fn begin(&self) -> io::Result<Begun<T>> {
        let (give, results) = mpsc::sync_channel(self.ahead);
        let answered = Arc::new(AtomicBool::new(false));
        let (over, paths, call, from) = (answered.clone(), self.paths.clone(), self.call.clone(), self.next);
        let patience = self.patience.clone();
        let calls: SourceCall = Box::new(move || {
            for path in &paths[from..] {
                let came = match patience.mute_place(path) {
                    Some(_) => Err(patience.late()),
                    None => call(path),
                };
                // When nobody waits any more, one has taken too long, or the rest is of no use.
                if give.send(came).is_err() {
                    break;
                }
            }
            over.store(true, Relaxed);
        });
        let thread = self.patience.hand_over(calls)?;
        Ok(Begun { results, thread, answered })
    }

    fn next_of(&mut self, path: &Path) -> io::Result<T> {
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.begin()?,
        };
        match begun.results.recv_timeout(self.patience.limit) {
            Ok(came) => {
                self.begun = Some(begun);
                came
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let lapse = Lapse { place: place_of(path), at: Instant::now(), answered: begun.answered };
                self.patience.shared.lapses().push(lapse);
                Err(self.patience.late())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other("the call panicked; please report this")),
        }
    }
}

impl<T: Send + 'static> Iterator for Each<T> {
    type Item = io::Result<T>;

    fn next(&mut self) -> Option<io::Result<T>> {
        let path = self.paths.get(self.next)?.clone();
        let came = self.next_of(&path);
        self.next += 1;
        Some(came)
    }
}

/// A thread that has nothing more to do is free for others; one that has ends with it, as it may never come back.
impl<T> Drop for Each<T> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take()
            && begun.answered.load(Relaxed)
        {
            self.patience.keep(begun.thread);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Duration;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn one_thread_makes_the_calls_in_their_order_and_is_free_afterwards() {
        let patience = Patience::new(Duration::from_secs(60));
        let names = ["/d/a", "/d/b", "/e/c"];
        let mut each = Each::new(&patience, paths(&names), 1, |path| match path.ends_with("b") {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok((path.to_owned(), std::thread::current().id())),
        });
        let (first, thread) = each.next().unwrap().unwrap();
        assert_eq!(first, Path::new("/d/a"));
        assert_eq!(each.next().unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(each.next().unwrap().unwrap(), ("/e/c".into(), thread));
        assert!(each.next().is_none());
        // Nothing is begun before it is asked for.
        drop(Each::<()>::new(&patience, paths(&names), 1, |_| unreachable!()));
    }

    #[test]
    fn one_that_does_not_come_back_holds_up_its_place_alone() {
        let patience = Patience::new(Duration::from_millis(50));
        let (end, ended) = mpsc::channel::<()>();
        let ended = Mutex::new(ended);
        let mut each = Each::new(&patience, paths(&["/away/a", "/away/b", "/there/c"]), 4, move |path| {
            if path.ends_with("a") {
                let _ = ended.lock().unwrap().recv();
            }
            Ok(path.to_owned())
        });
        assert_eq!(each.next().unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(each.next().unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(each.next().unwrap().unwrap(), Path::new("/there/c"));
        assert_eq!(patience.mute_place(Path::new("/away/x")), Some("/away".into()));
        drop(end);
    }
}
