//! Calls to file systems that may be away. Nothing ends a call that does not come back: so each is made by another thread,
//! and waited for no longer than so.

mod each;
mod file;

pub(super) use each::Each;
pub(super) use file::FreshFile;
pub(crate) use file::PatientFile;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Threads that are kept for the next call.
const IDLE_MOST: usize = 64;
/// How long it is remembered that a place did not answer, once it does.
const REMEMBERED: Duration = Duration::from_secs(3600);

type SourceCall = Box<dyn FnOnce() + Send>;

/// Makes calls, and waits for each so long and no longer. All clones share what is known of the file systems.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    limit: Duration,
    shared: Arc<FileSystems>,
}

#[derive(Debug, Default)]
struct FileSystems {
    idle: Mutex<Vec<mpsc::Sender<SourceCall>>>,
    lapses: Mutex<Vec<Lapse>>,
}

/// A call that has not come back in time.
#[derive(Debug)]
struct Lapse {
    place: PathBuf,
    at: Instant,
    /// It has come back by now.
    answered: Arc<AtomicBool>,
}

impl FileSystems {
    fn lapses(&self) -> MutexGuard<'_, Vec<Lapse>> {
        let mut lapses = self.lapses.lock().unwrap_or_else(PoisonError::into_inner);
        lapses.retain(|lapse| !lapse.answered.load(Relaxed) || lapse.at.elapsed() < REMEMBERED);
        lapses
    }
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, shared: Arc::default() }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// The place of this path that does not answer.
    pub(super) fn mute_place(&self, path: &Path) -> Option<PathBuf> {
        let lapses = self.shared.lapses();
        let mut mute = lapses.iter().filter(|lapse| !lapse.answered.load(Relaxed));
        mute.find(|lapse| path.starts_with(&lapse.place)).map(|lapse| lapse.place.clone())
    }

    /// The place of this path that did not answer at some time since then.
    pub(super) fn lapsed_since(&self, path: &Path, since: Instant) -> Option<PathBuf> {
        let lapses = self.shared.lapses();
        let mut lapsed = lapses.iter().filter(|lapse| lapse.at >= since);
        lapsed.find(|lapse| path.starts_with(&lapse.place)).map(|lapse| lapse.place.clone())
    }

    fn late(&self) -> io::Error {
        let why = format!("its file system has not answered within {} s", self.limit.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    /// What a call comes to that has to do with this path.
    ///
    /// # Errors
    /// Those of the call; `TimedOut` when it does not come back in time, and at once as long as an earlier one has not.
    pub(super) fn within<T: Send + 'static>(
        &self,
        path: &Path,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.begin(path, call)?.wait(path)
    }

    fn begin<T: Send + 'static>(
        &self,
        path: &Path,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<BegunCall<T>> {
        match self.mute_place(path) {
            Some(_) => Err(self.late()),
            None => self.begin_anyway(call),
        }
    }

    /// Begins a call that has to be made in the end, such as closing a file: nobody who waits may be held up by it.
    fn begin_anyway<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<BegunCall<T>> {
        let (give, result) = mpsc::channel();
        let answered = Arc::new(AtomicBool::new(false));
        let over = answered.clone();
        let call: SourceCall = Box::new(move || {
            let came = call();
            over.store(true, Relaxed);
            // Nobody may be waiting any more.
            let _ = give.send(came);
        });
        let thread = self.hand_over(call)?;
        Ok(BegunCall { result, thread, answered, patience: self.clone() })
    }

    /// Has an idle thread make a call, else a new one.
    fn hand_over(&self, call: SourceCall) -> io::Result<mpsc::Sender<SourceCall>> {
        let idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(thread) = idle else { return begin_thread(call) };
        match thread.send(call) {
            Ok(()) => Ok(thread),
            Err(mpsc::SendError(call)) => begin_thread(call),
        }
    }

    /// Keeps a thread for the next call.
    fn keep(&self, thread: mpsc::Sender<SourceCall>) {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MOST {
            idle.push(thread);
        }
    }
}

/// A thread that makes this call, and then those that it is sent.
fn begin_thread(first: SourceCall) -> io::Result<mpsc::Sender<SourceCall>> {
    let (thread, calls) = mpsc::channel::<SourceCall>();
    std::thread::Builder::new().name("source".into()).spawn(move || {
        first();
        calls.iter().for_each(|call| call());
    })?;
    Ok(thread)
}

/// A call that is being made.
#[derive(Debug)]
struct BegunCall<T> {
    result: mpsc::Receiver<io::Result<T>>,
    thread: mpsc::Sender<SourceCall>,
    answered: Arc<AtomicBool>,
    patience: Patience,
}

impl<T> BegunCall<T> {
    fn wait(self, path: &Path) -> io::Result<T> {
        match self.result.recv_timeout(self.patience.limit) {
            Ok(came) => {
                self.patience.keep(self.thread);
                came
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let lapse = Lapse { place: place_of(path), at: Instant::now(), answered: self.answered };
                self.patience.shared.lapses().push(lapse);
                Err(self.patience.late())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other("the call panicked; please report this")),
        }
    }
}

/// What does not answer when a call for this path does not: the file system that it is on by its name, else its folder.
fn place_of(path: &Path) -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_point(path, &mounts).unwrap_or_else(|| path.parent().unwrap_or(path).to_owned())
}

/// The mount point above a path, but for the root.
fn mount_point(path: &Path, mountinfo: &str) -> Option<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    points
        .filter(|point| point != Path::new("/") && path.starts_with(point))
        .max_by_key(|point| point.as_os_str().len())
}

/// A field of a table of mounts, in which blanks and backslashes are octal.
fn unescaped(field: &str) -> PathBuf {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |field, (escape, character)| field.replace(escape, character))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_does_not_come_back_is_left_and_its_place_not_asked_until_it_does() {
        let patience = Patience::new(Duration::from_millis(20));
        let (path, other) = (Path::new("/away/folder/file"), Path::new("/elsewhere/file"));
        let (end, ended) = mpsc::channel::<()>();
        let began = Instant::now();
        let hung = patience.within(path, move || {
            let _ = ended.recv();
            Ok(())
        });
        assert_eq!(hung.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(patience.mute_place(Path::new("/away/folder/next")), Some("/away/folder".into()));
        assert_eq!(patience.lapsed_since(other, began), None);
        // Not even begun: there would be no end of threads.
        let next = patience.within(path, || -> io::Result<()> { unreachable!() });
        assert_eq!(next.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let patient = Patience { limit: Duration::from_secs(60), ..patience.clone() };
        assert_eq!(patient.within(other, || Ok(7)).unwrap(), 7);
        drop(end);
        let mut turns = 0;
        while patience.mute_place(path).is_some() {
            turns += 1;
            assert!(turns < 1_000_000_000, "it never answered");
            std::thread::yield_now();
        }
        assert_eq!(patient.within(path, || Ok(8)).unwrap(), 8);
        // What has failed meanwhile is not to blame, though its place answers by now.
        assert_eq!(patience.lapsed_since(path, began), Some("/away/folder".into()));
        assert_eq!(patience.lapsed_since(path, Instant::now()), None);
    }

    #[test]
    fn threads_are_used_again() {
        let patience = Patience::new(Duration::from_secs(60));
        let ids: Vec<_> =
            (0..5).map(|_| patience.within(Path::new("/d/f"), || Ok(std::thread::current().id())).unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let panicked = patience.within(Path::new("/d/f"), || -> io::Result<()> { panic!("on purpose") });
        assert!(panicked.unwrap_err().to_string().contains("panicked"));
        assert_eq!(patience.within(Path::new("/d/f"), || Ok(1)).unwrap(), 1);
    }

    #[test]
    fn the_file_system_of_a_path_is_known_by_its_name() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /data rw - nfs a rw\n3 1 8:3 / /data/my\\040disk rw - nfs b rw\n";
        let of = |path: &str| mount_point(Path::new(path), mounts);
        assert_eq!(of("/data/x/y"), Some("/data".into()));
        assert_eq!(of("/data/my disk/y"), Some("/data/my disk".into()));
        assert_eq!((of("/database/y"), of("/etc/y")), (None, None));
    }
}
