//! Messages on disk between their arrival and their row: files that are only written at their end, each begun anew after some
//! megabytes and deleted once everything in it is registered or set aside.

mod reader;
mod writer;

use super::frame::{self, HEAD, SpooledMessage};
use crate::disk::open_operator_lock;
use crate::lock::{Lock, Taken};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use reader::SpoolReader;
pub(crate) use writer::SpoolWriter;

/// How a file of the spool begins; its own name stands behind.
const MAGIC: &[u8; 8] = b"PASPOOL1";
/// Length of that name, bytes.
const ID: usize = 16;
/// Where the first message stands.
const BEGIN: u64 = (MAGIC.len() + ID) as u64;
/// A file longer than this is followed by another.
const SEGMENT: u64 = 8 << 20;
/// How names of its files end.
const SUFFIX: &str = ".spool";

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("Folder {} of the spool cannot be used: {why}; name another with --spool", folder.display())]
    Folder { folder: PathBuf, why: io::Error },
    #[error("Another monitor uses the spool in {}; end it, or name another folder with --spool", .0.display())]
    Taken(PathBuf),
    #[error("The spool in {} holds the {most} bytes that it may; see why nothing is registered, or give --spool-mib", folder.display())]
    Full { folder: PathBuf, most: u64 },
    #[error("The spool in {} cannot be written: {why}", folder.display())]
    Unwritable { folder: PathBuf, why: io::Error },
}

/// A spool's folder, held by this process alone.
pub(crate) struct Spool {
    folder: PathBuf,
    id: [u8; ID],
    most: u64,
    state: Mutex<SpoolState>,
    _lock: Lock,
}

struct SpoolState {
    /// In order of their messages; the last one is written to.
    segments: VecDeque<SpoolFile>,
    /// The number of the message that comes next.
    next: u64,
    /// Nothing more is written to the last file: what comes next begins another.
    is_last_over: bool,
}

/// A file of the spool, as far as it is on disk for good.
#[derive(Debug, Clone, Copy)]
struct SpoolFile {
    first: u64,
    len: u64,
}

impl Spool {
    /// Takes the folder, which is made where it is absent, and looks what is in it. It grows to so many bytes.
    pub(crate) fn open(folder: &Path, most: u64) -> Result<Arc<Self>, SpoolError> {
        let unusable = |why: io::Error| SpoolError::Folder { folder: folder.to_owned(), why };
        fs::create_dir_all(folder).map_err(unusable)?;
        let lock = match Lock::take(open_operator_lock(&folder.join("lock")).map_err(unusable)?) {
            Ok(lock) => lock,
            Err(Taken::ByAnother) => return Err(SpoolError::Taken(folder.to_owned())),
            Err(Taken::NoLocks(file, error)) => {
                tracing::warn!("No locks in {}: {error}; see that only one monitor uses it", folder.display());
                Lock::without(file)
            }
        };
        let mut firsts: Vec<u64> = Vec::new();
        for entry in fs::read_dir(folder).map_err(unusable)? {
            let name = entry.map_err(unusable)?.file_name();
            firsts.extend(name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse::<u64>().ok()));
        }
        firsts.sort_unstable();
        let mut state = SpoolState { segments: VecDeque::new(), next: 0, is_last_over: false };
        let mut id = None;
        for &first in &firsts {
            let file = File::open(path_of(folder, first)).map_err(unusable)?;
            let mut head = [0; BEGIN as usize];
            match file.read_exact_at(&mut head, 0) {
                Ok(()) if head.starts_with(MAGIC) => {}
                // Made and not begun when its writer ended.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof && Some(&first) == firsts.last() => continue,
                Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(unusable(error)),
                _ => {
                    return Err(unusable(io::Error::new(
                        ErrorKind::InvalidData,
                        format!("{first:020}{SUFFIX} is no file of a spool"),
                    )));
                }
            }
            let own: [u8; ID] = head[MAGIC.len()..].try_into().unwrap_or_default();
            if *id.get_or_insert(own) != own {
                return Err(unusable(io::Error::new(ErrorKind::InvalidData, "its files are of several spools")));
            }
            let len = file.metadata().map_err(unusable)?.len();
            state.segments.push_back(SpoolFile { first, len });
        }
        if let Some(last) = state.segments.back_mut() {
            let (len, next) = whole_part(&path_of(folder, last.first), last.first).map_err(unusable)?;
            last.len = len;
            state.next = next;
        }
        let id = match id {
            Some(id) => id,
            None => {
                let mut id = [0; ID];
                getrandom::fill(&mut id).map_err(|error| unusable(io::Error::other(error.to_string())))?;
                id
            }
        };
        Ok(Arc::new(Self { folder: folder.to_owned(), id, most, state: Mutex::new(state), _lock: lock }))
    }

    /// Its own name, which no other spool has.
    pub(crate) fn name(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes that it takes now.
    pub(crate) fn len(&self) -> u64 {
        self.state().segments.iter().map(|segment| segment.len).sum()
    }

    /// The number of the message that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.state().next
    }

    /// Deletes the files of which all messages have numbers below this.
    pub(crate) fn release(&self, below: u64) {
        let mut state = self.state();
        loop {
            let after = state.segments.get(1).map(|second| second.first);
            // On a full disk there may be room for nothing else.
            let end = after.or_else(|| state.is_last_over.then_some(state.next));
            let is_done = |first: &SpoolFile| end.is_some_and(|end| first.first < end && end <= below);
            if !state.segments.front().is_some_and(is_done) {
                return;
            }
            if let Some(done) = state.segments.pop_front()
                && let Err(error) = fs::remove_file(path_of(&self.folder, done.first))
            {
                let folder = self.folder.display();
                tracing::warn!(
                    event = "spool_trouble",
                    "Cannot delete a registered part of the spool in {folder}: {error}"
                );
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, SpoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritable(&self, why: io::Error) -> SpoolError {
        SpoolError::Unwritable { folder: self.folder.clone(), why }
    }
}

fn path_of(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}{SUFFIX}"))
}

/// How long the part of a file is that was written whole, and the number that follows.
fn whole_part(path: &Path, first: u64) -> io::Result<(u64, u64)> {
    let mut file = BufReader::new(File::open(path)?);
    file.seek(SeekFrom::Start(BEGIN))?;
    let (mut at, mut next, mut body) = (BEGIN, first, Vec::new());
    while frame::read(&mut file, &mut body)? {
        let Some(message) = SpooledMessage::read(&body).filter(|message| message.number >= next) else { break };
        next = message.number + 1;
        at += (HEAD + body.len()) as u64;
    }
    Ok((at, next))
}

/// A message on its way into the spool.
#[derive(Debug, Clone)]
pub(crate) struct UnspooledMessage {
    pub(crate) received: f64,
    pub(crate) sender: Option<std::net::SocketAddr>,
    pub(crate) bytes: Box<[u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> UnspooledMessage {
        UnspooledMessage { received: 1.0, sender: None, bytes: text.as_bytes().into() }
    }

    fn texts(spool: &Arc<Spool>, from: u64) -> Vec<String> {
        let mut reader = SpoolReader::new(spool.clone(), from);
        let mut texts = Vec::new();
        while let Some(message) = reader.read().unwrap() {
            texts.push(format!("{} {}", message.number, String::from_utf8(message.bytes).unwrap()));
        }
        assert_eq!(reader.lost, 0);
        texts
    }

    #[test]
    fn what_was_written_is_there_after_the_next_start_and_goes_on_with_the_next_number() {
        let folder = tempfile::tempdir().unwrap();
        let name = {
            let spool = Spool::open(folder.path(), 1 << 20).unwrap();
            assert!(matches!(Spool::open(folder.path(), 1 << 20), Err(SpoolError::Taken(_))));
            SpoolWriter::new(spool.clone()).append(&[message("a"), message("b")]).unwrap();
            assert_eq!(texts(&spool, 0), ["0 a", "1 b"]);
            spool.name()
        };
        let spool = Spool::open(folder.path(), 1 << 20).unwrap();
        assert_eq!((spool.name(), spool.next()), (name, 2));
        let mut writer = SpoolWriter::new(spool.clone());
        writer.append(&[message("c")]).unwrap();
        writer.append(&[message("d")]).unwrap();
        assert_eq!(texts(&spool, 1), ["1 b", "2 c", "3 d"]);
        spool.release(1);
        assert_eq!(texts(&spool, 0), ["0 a", "1 b", "2 c", "3 d"]);
        spool.release(2);
        assert_eq!(texts(&spool, 0), ["2 c", "3 d"]);
    }

    #[test]
    fn a_message_that_was_cut_short_is_none_wherever_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), 0);
        {
            let spool = Spool::open(folder.path(), 1 << 20).unwrap();
            SpoolWriter::new(spool).append(&[message("first"), message("second")]).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            let _ = fs::remove_dir_all(folder.path());
            fs::create_dir(folder.path()).unwrap();
            fs::write(&path, &whole[..cut]).unwrap();
            let spool = Spool::open(folder.path(), 1 << 20).unwrap();
            let before = texts(&spool, 0);
            assert!(before.len() < 2, "{cut}");
            SpoolWriter::new(spool.clone()).append(&[message("third")]).unwrap();
            let after = texts(&spool, 0);
            assert_eq!(after[..before.len()], before[..], "{cut}");
            assert!(after.len() == before.len() + 1 && after.last().unwrap().ends_with(" third"), "{cut}: {after:?}");
        }
    }

    #[test]
    fn a_full_spool_takes_nothing_and_all_again_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), 2 * SEGMENT).unwrap();
        let mut writer = SpoolWriter::new(spool.clone());
        let large = message(&"x".repeat(60_000));
        let mut taken = 0;
        while writer.append(std::slice::from_ref(&large)).is_ok() {
            taken += 1;
        }
        assert_eq!((spool.next(), texts(&spool, 0).len()), (taken, taken as usize));
        assert!(matches!(writer.append(std::slice::from_ref(&large)), Err(SpoolError::Full { .. })));
        assert!(spool.len() <= 2 * SEGMENT);
        spool.release(spool.next() - 1);
        assert!(spool.len() > 0);
        spool.release(spool.next());
        assert_eq!(spool.len(), 0);
        writer.append(std::slice::from_ref(&large)).unwrap();
        assert_eq!((spool.next(), texts(&spool, 0).len()), (taken + 1, 1));
        // The one that is written to stays.
        spool.release(spool.next());
        assert_eq!(texts(&spool, 0).len(), 1);
    }
}
