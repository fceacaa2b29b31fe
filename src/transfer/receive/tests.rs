use super::*;
use crate::link::Link;
use crate::local::Local;
use crate::transfer::Item;
use crate::transfer::greet::greet;
use crate::transport::Connect;
use protocol::args::{Options, ServerArgs};
use protocol::handshake::{Hello, Side};
use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::SystemTime;

const LEN: usize = 4 << 20;
/// New bytes at the end of each file.
const NEW: usize = LEN / 4;

/// Bytes that repeat nowhere.
fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let words = (1..=((LEN + NEW) / 8) as u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        words.flat_map(|word| (word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes()).collect()
    })
}

/// A disk of 16 MiB/s.
fn slow_disk(open: bool) -> DeltaChoice {
    let mut choice = DeltaChoice::new(open);
    choice.summed(64 << 20, Duration::from_secs(4));
    choice.brought(64 << 20, Duration::from_millis(64), false);
    choice.built(32 << 20, 32 << 20);
    choice
}

/// A link of 1 MiB/s.
fn slow_link(open: bool) -> DeltaChoice {
    let mut choice = DeltaChoice::new(open);
    choice.summed(64 << 20, Duration::from_millis(64));
    choice.brought(64 << 20, Duration::from_secs(64), false);
    choice.built(32 << 20, 32 << 20);
    choice
}

thread_local! {
    /// How long this thread has waited for the link, if it has read from it.
    static WAITED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// A link in a time of its own, whatever else the machine does: each byte takes its time on the clock of the thread that
/// reads, and nothing else takes any.
struct Pace {
    began: Instant,
    bytes_per_second: f64,
    /// The generator has looked at the clock.
    looked: Mutex<bool>,
    bell: Condvar,
}

/// Bytes that come before the generator is waited for: a list, and less than a file.
const AT_ONCE: usize = 1 << 20;

impl Pace {
    fn new(bytes_per_second: f64) -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), bytes_per_second, looked: Mutex::default(), bell: Condvar::new() })
    }

    fn now(&self) -> Instant {
        WAITED.get().map_or_else(
            || {
                *self.looked.lock().unwrap() = true;
                self.bell.notify_all();
                self.began
            },
            |waited| self.began + waited,
        )
    }
}

struct Paced {
    link: Box<dyn Read + Send>,
    pace: Arc<Pace>,
    /// No byte beyond the first comes before the generator has looked at the clock.
    gated: bool,
    read: usize,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.link.read(buffer)?;
        self.read += count;
        if self.gated && self.read > AT_ONCE {
            let looked = self.pace.looked.lock().unwrap();
            // So long only where nobody looks, which the test then shows.
            let _ = self.pace.bell.wait_timeout_while(looked, Duration::from_secs(60), |looked| !*looked).unwrap();
        }
        let took = Duration::from_secs_f64(count as f64 / self.pace.bytes_per_second);
        WAITED.set(Some(WAITED.get().unwrap_or_default() + took));
        Ok(count)
    }
}

/// A conversation with a sender in this process.
fn converse(work: &Path, options: &Options, pace: impl FnOnce(Link) -> Link) -> Conversation {
    let path = [work.join("src").as_os_str().as_bytes(), b"/"].concat();
    let args = ServerArgs { sender: true, options: options.clone(), paths: vec![path], ..ServerArgs::default() };
    let words: Vec<_> = args.to_words().into_iter().map(OsString::from_vec).collect();
    let link = pace(Local::default().open(&words).unwrap());
    greet(link, Hello { compression: options.compression(), ..Hello::new(Side::Client, 32) }).unwrap()
}

/// Pulls files with old copies by a link that takes no time; the bytes, and the words said.
fn pull(work: &Path, options: &Options, knowing: impl FnOnce(bool) -> DeltaChoice) -> (Sent, Vec<String>) {
    pull_paced(work, options, &Pace::new(f64::INFINITY), false, knowing)
}

/// The same at this pace. `gated`: what was asked for comes only once the generator looks at the clock.
fn pull_paced(
    work: &Path,
    options: &Options,
    pace: &Arc<Pace>,
    gated: bool,
    knowing: impl FnOnce(bool) -> DeltaChoice,
) -> (Sent, Vec<String>) {
    let session = converse(work, options, |link| {
        let paced = Paced { link: link.reader, pace: Arc::clone(pace), gated, read: 0 };
        Link { reader: Box::new(paced), ..link }
    });
    let dst = work.join("dst");
    let plan = ReceivePlan { options: options.clone(), destination: dst, ..ReceivePlan::default() };
    let said = Mutex::new(Vec::new());
    let observer = |message: &Message| {
        if let Message::Text(_, text) = message {
            said.lock().unwrap().push(String::from_utf8_lossy(text).into_owned());
        }
    };
    let pace = Arc::clone(pace);
    let received = receive_judging(session, &plan, &observer, knowing, Arc::new(move || pace.now())).unwrap();
    assert_eq!((received.failed, received.io_error), (0, 0));
    (received.bytes, said.into_inner().unwrap())
}

/// Makes files, and old copies without what is new; `old` and a number name such a copy.
fn files(work: &Path, count: usize, old: &str) {
    for number in 0..count {
        for (path, len) in [(format!("src/f{number}"), LEN + NEW), (format!("dst/{old}{number}"), LEN)] {
            let path = work.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes()[..len]).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
    }
}

fn are_whole(work: &Path, count: usize) {
    for number in 0..count {
        assert!(fs::read(work.join(format!("dst/f{number}"))).unwrap() == bytes(), "{number}");
    }
}

fn plain() -> Options {
    let mut options = Options { recurse: true, times: true, no_inc_recursive: true, ..Options::default() };
    options.debug.set(b"deltasum").unwrap();
    options
}

#[test]
fn a_basis_is_left_unread_where_that_is_known_to_cost_more() {
    let all = (LEN + NEW) as u64;
    for (options, knowing, whole) in [
        (plain(), slow_disk as fn(bool) -> DeltaChoice, true),
        (Options { backup: true, ..plain() }, slow_disk, true),
        (plain(), slow_link, false),
        (plain(), DeltaChoice::new, false),
        (Options { no_whole_file: true, ..plain() }, slow_disk, false),
        (Options { inplace: true, ..plain() }, slow_disk, false),
        (Options { append: 1, ..plain() }, slow_disk, false),
        (Options { partial: true, ..plain() }, slow_disk, false),
    ] {
        let work = tempfile::tempdir().unwrap();
        files(work.path(), 2, "f");
        let (sent, said) = pull(work.path(), &options, knowing);
        are_whole(work.path(), 2);
        assert_eq!(sent.literal_bytes == 2 * all, whole, "{options:?} {sent:?}");
        let words = said.iter().filter(|words| words.contains(" is asked for whole: ")).count();
        assert_eq!(words, if whole { 2 } else { 0 }, "{said:?}");
    }
}

/// What an earlier try left, or what had to be looked for, is built upon whatever it costs.
#[test]
fn a_resume_is_no_matter_of_time() {
    let (aside, fuzzy) = (Options { partial_dir: Some(b".p".to_vec()), ..plain() }, Options { fuzzy: 1, ..plain() });
    for (options, old) in [(aside, ".p/f"), (fuzzy, "g")] {
        let work = tempfile::tempdir().unwrap();
        files(work.path(), 1, old);
        let (sent, _) = pull(work.path(), &options, slow_disk);
        are_whole(work.path(), 1);
        assert!(sent.matched_bytes > LEN as u64 / 2, "{options:?} {sent:?}");
    }
}

/// A link that is slower than it was said to be shows it by the first file, and nobody goes far ahead of that.
#[test]
fn what_comes_whole_shows_the_link() {
    let work = tempfile::tempdir().unwrap();
    files(work.path(), 18, "f");
    let fast = |open| {
        let mut choice = DeltaChoice::new(open);
        choice.summed(64 << 20, Duration::from_millis(32));
        choice.brought(64 << 20, Duration::from_millis(6), false);
        choice.built(32 << 20, 32 << 20);
        choice
    };
    // The generator looks at the clock when it waits for what it has asked for.
    let (sent, said) = pull_paced(work.path(), &plain(), &Pace::new((64 << 20) as f64), true, fast);
    are_whole(work.path(), 18);
    let whole = said.iter().filter(|words| words.contains(" is asked for whole: ")).count();
    assert_eq!(whole, (64 << 20) / (LEN + NEW) + 1, "{said:?}");
    assert!(sent.matched_bytes > ((18 - whole) * LEN) as u64 * 9 / 10, "{sent:?}");
}

/// A thread of ours that panics.
struct Panicking(&'static str);

impl ReceiveObserver for Panicking {
    fn begins(&self, _item: &Item<'_>) {
        assert_ne!(self.0, "receiver", "as this test wants it");
    }

    fn message(&self, message: &Message) {
        let generates = matches!(message, Message::Text(_, text) if text.starts_with(b"delta-transmission"));
        assert!(!generates || self.0 != "generator", "as this test wants it");
    }
}

/// Nobody waits for a thread that is gone, and it is told as what it is.
#[test]
fn a_panic_ends_the_session_as_a_bug() {
    for thread in ["generator", "receiver"] {
        let work = tempfile::tempdir().unwrap();
        files(work.path(), 2, "f");
        let options = Options { verbose: 2, ..plain() };
        let session = converse(work.path(), &options, |link| link);
        let plan = ReceivePlan { options, destination: work.path().join("dst"), ..ReceivePlan::default() };
        let error = receive(session, &plan, &Panicking(thread)).unwrap_err();
        assert!(matches!(error, TransferError::Bug(name) if name == thread), "{error}");
        assert_eq!(error.exit_code(), 15);
    }
}
