//! How a run stands: one truth for progress bars, summaries and whoever else asks.

pub(crate) mod pace;

use crate::clock::unix_now;
use crate::transfer::Sent;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Whose trouble a failed attempt was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The file is not there, or is no file.
    Missing,
    /// The file cannot be read.
    Unreadable,
    /// The file is not what was registered.
    Changed,
    /// The storage node does not take the file.
    Refused,
    /// The row cannot be used.
    Row,
}

/// How many kinds of failure there are.
const FAILURES: usize = 5;
/// What a link may swallow that carries nothing: all that fits into the buffers on the way.
const SWALLOWED_MOST: u64 = 16 << 20;
/// Copies that are remembered by name.
const COPIES_KEPT: usize = 100;
/// Seconds of a trouble from which on it counts as one that does not pass by itself: a service that is started anew, or a
/// node that boots, is back by then or needs somebody.
pub(crate) const LASTING: f64 = 60.0;

/// The copies recorded last.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct LastCopy {
    /// When the first of them was recorded, unix time in seconds.
    pub start_time: f64,
    /// When the last one was.
    pub stop_time: f64,
    /// Sources, and whether they were proven; at most a hundred.
    pub files: Vec<(String, bool)>,
}

/// A file that a session is at.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct FileAtWork {
    pub path: String,
    pub size: u64,
    /// Bytes of it that were read, or are there already.
    pub done: u64,
}

/// What the database is wanted for: one that gives rows may still take no outcomes, as while somebody holds its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum DatabaseUse {
    #[default]
    Asking,
    Recording,
}

/// Something that is wrong, for as long as it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ongoing {
    pub why: String,
    /// Unix time in seconds.
    pub since: f64,
}

impl Ongoing {
    /// Whether it has not passed by itself, so that somebody is to look.
    pub(crate) fn lasts(&self) -> bool {
        unix_now() - self.since >= LASTING
    }

    /// Renews what is wrong; it begins only once.
    pub(crate) fn renew(of: &mut Option<Self>, why: &str) -> Self {
        let since = of.as_ref().map_or_else(unix_now, |ongoing| ongoing.since);
        of.insert(Self { why: why.to_owned(), since }).clone()
    }
}

/// Says at level INFO what passes by itself, and as a warning what lasts: `told!(lasts, event = …, "…")`.
macro_rules! told {
    ($lasts:expr, $($what:tt)*) => {
        if $lasts { tracing::warn!($($what)*) } else { tracing::info!($($what)*) }
    };
}
pub(crate) use told;

/// How a running archiver stands. Shared by all its parts.
pub(crate) struct Progress {
    started: Instant,
    now: Mutex<Snapshot>,
}

/// What there is to know of a run at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Snapshot {
    /// Rows recorded as copied.
    pub copied: u64,
    /// Failed attempts recorded.
    pub failed: u64,
    /// Bytes read from files to be sent.
    pub read_bytes: u64,
    /// Bytes of proven files that went over the wire.
    pub literal_bytes: u64,
    /// Bytes of proven files that were there already.
    pub matched_bytes: u64,
    /// How often the far end was out of reach or a session broke.
    pub link_troubles: u64,
    /// How many of these were silence beyond a limit.
    pub timeouts: u64,
    /// How often the database was out of reach.
    pub database_troubles: u64,
    /// Failed attempts by kind, in the order of [`Failure`].
    pub failures: [u64; FAILURES],
    /// Passes through the waiting rows.
    pub passes: u64,
    /// Rows on their way now.
    pub in_flight: u64,
    /// Files that the far end has confirmed, some of which may not be recorded yet.
    pub confirmed: u64,
    /// Bytes of confirmed files that were in place, and so were not read.
    pub found_bytes: u64,
    /// Rows taken up, and the bytes of their files as far as they are known beforehand.
    pub taken: u64,
    pub taken_bytes: u64,
    /// Rows given up in this run.
    pub given_up: u64,
    /// Bytes read since the link was last in trouble.
    pub read_since_trouble: u64,
    /// Local files are being deleted.
    pub deleting: bool,
    /// Bytes read by each session.
    pub session_bytes: Vec<u64>,
    /// The file that each session is at, if any.
    pub session_files: Vec<Option<FileAtWork>>,
    /// The copies recorded last.
    pub last_copy: LastCopy,
    /// When the last proven copy was recorded, unix time in seconds, and where it is.
    pub last_proven: Option<(f64, String)>,
    /// Seconds since the run began.
    pub seconds: f64,
    /// What is wrong with the link now, if anything.
    pub link: Option<Ongoing>,
    /// What is wrong with the database now, if anything.
    pub database: Option<Ongoing>,
    /// Who has met that.
    pub database_met: DatabaseUse,
    /// What is wrong with the place where files come from now, if anything.
    pub source: Option<Ongoing>,
    /// The road files take where it is not the straight one, and why.
    pub road: Option<String>,
    /// Why the whole run is given up, if it is.
    pub hopeless: Option<String>,
}

impl Snapshot {
    /// Whether file data has moved since the link was last in trouble.
    pub(crate) fn flows(&self) -> bool {
        self.read_since_trouble > 0
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self { started: Instant::now(), now: Mutex::default() }
    }
}

impl Progress {
    /// How it stands now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { seconds: self.started.elapsed().as_secs_f64(), ..self.update(|now| now.clone()) }
    }

    /// Changes it, or looks at it, in one step.
    fn update<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes were read for the session of this number.
    pub(crate) fn read(&self, session: usize, bytes: u64) {
        let was = self.update(|now| {
            now.read_bytes += bytes;
            now.read_since_trouble += bytes;
            let was = if now.read_since_trouble > SWALLOWED_MOST { now.link.take() } else { None };
            if now.session_bytes.len() <= session {
                now.session_bytes.resize(session + 1, 0);
            }
            now.session_bytes[session] += bytes;
            if let Some(Some(file)) = now.session_files.get_mut(session) {
                file.done = (file.done + bytes).min(file.size);
            }
            was
        });
        link_fine(was);
    }

    /// The session of this number begins with a file, or has none any more.
    pub(crate) fn set_file(&self, session: usize, file: Option<FileAtWork>) {
        self.update(|now| {
            if now.session_files.len() <= session {
                now.session_files.resize(session + 1, None);
            }
            now.session_files[session] = file;
        });
    }

    pub(crate) fn failure(&self, kind: Failure) {
        self.update(|now| now.failures[kind as usize] += 1);
    }

    pub(crate) fn pass(&self) {
        self.update(|now| now.passes += 1);
    }

    pub(crate) fn admitted(&self, bytes: u64) {
        self.update(|now| {
            now.in_flight += 1;
            now.taken += 1;
            now.taken_bytes += bytes;
        });
    }

    pub(crate) fn settled(&self) {
        self.update(|now| now.in_flight -= 1);
    }

    pub(crate) fn set_deleting(&self, deleting: bool) {
        self.update(|now| now.deleting = deleting);
    }

    /// A batch of outcomes begins to be recorded.
    pub(crate) fn recording(&self) {
        let time = unix_now();
        self.update(|now| now.last_copy = LastCopy { start_time: time, stop_time: time, files: Vec::new() });
    }

    /// The far end has confirmed a file that was there already: none of it was read.
    pub(crate) fn found(&self, sent: &Sent) {
        self.update(|now| now.found_bytes += sent.matched_bytes);
        self.confirmed(sent);
    }

    /// The far end has confirmed a file.
    pub(crate) fn confirmed(&self, sent: &Sent) {
        let was = self.update(|now| {
            now.confirmed += 1;
            now.literal_bytes += sent.literal_bytes;
            now.matched_bytes += sent.matched_bytes;
            now.link.take()
        });
        link_fine(was);
    }

    /// An outcome was recorded; `path` is where a proven copy is.
    pub(crate) fn recorded(&self, source: &str, path: Option<&str>) {
        let time = unix_now();
        self.update(|now| {
            now.last_copy.stop_time = time;
            if now.last_copy.files.len() < COPIES_KEPT {
                now.last_copy.files.push((source.to_owned(), path.is_some()));
            }
            match path {
                Some(path) => {
                    now.copied += 1;
                    now.last_proven = Some((time, path.to_owned()));
                }
                None => now.failed += 1,
            }
        });
    }

    pub(crate) fn link_trouble(&self, why: &str) -> Ongoing {
        self.update(|now| {
            now.link_troubles += 1;
            now.read_since_trouble = 0;
            Ongoing::renew(&mut now.link, why)
        })
    }

    /// Sets the road; whether it is another than before.
    pub(crate) fn set_road(&self, road: Option<String>) -> bool {
        self.update(|now| {
            let is_new = now.road != road;
            now.road = road;
            is_new
        })
    }

    pub(crate) fn timed_out(&self) {
        self.update(|now| now.timeouts += 1);
    }

    pub(crate) fn database_trouble(&self, met: DatabaseUse, why: &str) -> Ongoing {
        self.update(|now| {
            now.database_troubles += 1;
            if now.database.is_none() || met == DatabaseUse::Recording {
                now.database_met = met;
            }
            Ongoing::renew(&mut now.database, why)
        })
    }

    pub(crate) fn database_troubles(&self) -> u64 {
        self.update(|now| now.database_troubles)
    }

    /// The database is fine for this use, which ends the trouble that was met with it.
    pub(crate) fn database_fine(&self, with: DatabaseUse) {
        let over = |now: &mut Snapshot| if now.database_met == with { now.database.take() } else { None };
        if let Some(was) = self.update(over) {
            let seconds = (unix_now() - was.since).round();
            tracing::info!(event = "database_fine", seconds, "The database is in reach again, after {seconds} s");
        }
    }

    /// What is wrong with the place where files come from.
    pub(crate) fn set_source(&self, why: Option<String>) {
        self.update(|now| match why {
            Some(why) => drop(Ongoing::renew(&mut now.source, &why)),
            None => now.source = None,
        });
    }

    /// A row was given up.
    pub(crate) fn gave_up(&self) {
        self.update(|now| now.given_up += 1);
    }

    pub(crate) fn give_up(&self, why: &str) {
        self.update(|now| {
            now.hopeless.get_or_insert_with(|| why.to_owned());
        });
    }

    pub(crate) fn given_up(&self) -> Option<String> {
        self.update(|now| now.hopeless.clone())
    }
}

/// Says that the link carries again, where it was in trouble.
fn link_fine(was: Option<Ongoing>) {
    if let Some(was) = was {
        let seconds = (unix_now() - was.since).round();
        tracing::info!(event = "link_fine", seconds, "Files move again, after {seconds} s");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl From<&str> for Ongoing {
        fn from(why: &str) -> Self {
            Self { why: why.to_owned(), since: 1.0 }
        }
    }

    #[test]
    fn a_trouble_begins_once_however_often_it_is_met_and_ends_with_a_proof() {
        let progress = Progress::default();
        let first = progress.link_trouble("no route");
        assert!(!first.lasts());
        let again = progress.link_trouble("refused");
        assert_eq!((again.since, again.why.as_str()), (first.since, "refused"));
        assert!(Ongoing { since: first.since - LASTING, ..again }.lasts());
        progress.confirmed(&Sent::default());
        assert_eq!(progress.snapshot().link, None);
    }

    #[test]
    fn a_database_that_gives_rows_and_takes_no_outcomes_stays_in_trouble() {
        let progress = Progress::default();
        progress.database_trouble(DatabaseUse::Recording, "locked");
        progress.database_fine(DatabaseUse::Asking);
        assert!(progress.snapshot().database.is_some(), "nothing was recorded meanwhile");
        progress.database_fine(DatabaseUse::Recording);
        assert_eq!(progress.snapshot().database, None);
        progress.database_trouble(DatabaseUse::Asking, "away");
        progress.database_fine(DatabaseUse::Asking);
        assert_eq!(progress.snapshot().database, None);
    }
}
