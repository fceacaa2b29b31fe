//! Messages that are neither in the spool's course nor registered: those whose file is waited for, and those that cannot be
//! registered, with why. One file that is only written at its end, and written anew now and then without what is void.

use super::frame::{self, HEAD, SpooledMessage};
use crate::catalog::announced::SpoolNumber;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in the spool's folder.
const FILE: &str = "aside.log";
/// Refusals that are kept; the oldest give way.
pub(crate) const REJECTS_MOST: usize = 10_000;
/// Bytes of messages that are kept, all in all.
const BYTES_MOST: u64 = 256 << 20;
/// With so much that is void it is written anew, if that is more than what is not.
const VOID_MOST: u64 = 1 << 20;
/// The longest reason that is kept, bytes.
const WHY_MOST: usize = 1000;

/// What is to become of a message that was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AsideState {
    /// Its file is looked for again and again.
    Waiting,
    /// It cannot be registered until somebody does something.
    Rejected,
}

/// A message that was set aside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AsideEntry {
    pub(crate) state: AsideState,
    /// Since when it is what it is, unix time in seconds.
    pub(crate) since: f64,
    pub(crate) why: String,
    /// Where its message stands, and its length.
    at: u64,
    len: usize,
}

/// All that was set aside.
pub(crate) struct Aside {
    folder: PathBuf,
    /// `None` of one that is only looked at.
    file: Option<File>,
    entries: BTreeMap<SpoolNumber, AsideEntry>,
    /// Where the file ends that was written whole.
    end: u64,
    live: u64,
    rejected: usize,
}

/// What is done to an entry.
#[derive(Debug, Clone)]
pub(crate) enum AsideChange {
    Put { key: SpoolNumber, state: AsideState, since: f64, why: String, message: SpooledMessage },
    Remove(SpoolNumber),
}

impl Aside {
    /// Opens the file in this folder, and makes it where it is absent.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        File::open(folder)?.sync_all()?;
        let mut aside = Self::read(folder)?;
        file.set_len(aside.end)?;
        aside.file = Some(file);
        Ok(aside)
    }

    /// What is there now, to be looked at while its owner is at work.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut aside =
            Self { folder: folder.to_owned(), file: None, entries: BTreeMap::new(), end: 0, live: 0, rejected: 0 };
        let mut file = match File::open(folder.join(FILE)) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(aside),
            Err(error) => return Err(error),
        };
        let mut body = Vec::new();
        while frame::read(&mut file, &mut body)? {
            let at = aside.end + HEAD as u64;
            if let Some((key, entry)) = read_entry(&body, at) {
                aside.set(key, entry);
            }
            aside.end = at + body.len() as u64;
        }
        Ok(aside)
    }

    /// Whether this message was set aside.
    pub(crate) fn get(&self, key: &SpoolNumber) -> Option<&AsideEntry> {
        self.entries.get(key)
    }

    /// Whether it was refused for this reason.
    pub(crate) fn is_rejected(&self, key: &SpoolNumber, why: &str) -> bool {
        let same = |entry: &AsideEntry| entry.state == AsideState::Rejected && entry.why == kept(why, WHY_MOST);
        self.entries.get(key).is_some_and(same)
    }

    /// All entries, in order of their messages.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&SpoolNumber, &AsideEntry)> {
        self.entries.iter()
    }

    /// How many cannot be registered.
    pub(crate) fn rejected(&self) -> usize {
        self.rejected
    }

    /// How many wait for their file.
    pub(crate) fn waiting(&self) -> usize {
        self.entries.len() - self.rejected
    }

    /// Whether there is room for more that waits.
    pub(crate) fn has_room(&self) -> bool {
        self.live < BYTES_MOST
    }

    /// The message of an entry.
    pub(crate) fn message(&self, entry: &AsideEntry) -> io::Result<SpooledMessage> {
        let mut body = vec![0; entry.len];
        match &self.file {
            Some(file) => file.read_exact_at(&mut body, entry.at)?,
            None => File::open(self.folder.join(FILE))?.read_exact_at(&mut body, entry.at)?,
        }
        SpooledMessage::read(&body)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a message set aside is damaged"))
    }

    /// Does all of it and has it on disk for good. Gives how many of the oldest refusals had to give way.
    pub(crate) fn change(&mut self, changes: Vec<AsideChange>) -> io::Result<usize> {
        if changes.is_empty() {
            return Ok(0);
        }
        let (mut framed, mut done, mut body) = (Vec::new(), Vec::new(), Vec::new());
        for change in changes {
            body.clear();
            let (key, entry) = put_change(change, &mut body);
            let at = self.end + (framed.len() + HEAD) as u64;
            let entry =
                entry.map(|(entry, before)| AsideEntry { at: at + before as u64, len: body.len() - before, ..entry });
            frame::put(&body, &mut framed);
            done.push((key, entry));
        }
        let file = self.file.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        file.write_all_at(&framed, self.end)?;
        file.sync_data()?;
        self.end += framed.len() as u64;
        for (key, entry) in done {
            self.set(key, entry);
        }
        let gone = self.bound()?;
        if self.end.saturating_sub(self.live) > VOID_MOST && self.end > 2 * self.live {
            self.rewrite()?;
        }
        Ok(gone)
    }

    /// Has the oldest refusals give way.
    fn bound(&mut self) -> io::Result<usize> {
        let over = self.rejected.saturating_sub(REJECTS_MOST);
        let full = self.live > BYTES_MOST;
        if over == 0 && !full {
            return Ok(0);
        }
        // Some more than must, so that it is not done for each.
        let most = over.max(1) + REJECTS_MOST / 100;
        let rejected = self.entries.iter().filter(|(_, entry)| entry.state == AsideState::Rejected);
        let mut oldest: Vec<_> = rejected.map(|(key, entry)| (entry.since, key.clone())).collect();
        oldest.sort_by(|one, other| one.0.total_cmp(&other.0));
        oldest.truncate(most);
        let gone = oldest.len();
        if gone > 0 {
            self.change(oldest.into_iter().map(|(_, key)| AsideChange::Remove(key)).collect())?;
        }
        Ok(gone)
    }

    /// Without what is void, in a file that takes the place of this one.
    fn rewrite(&mut self) -> io::Result<()> {
        let fresh = self.folder.join(format!("{FILE}.new"));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        let mut writer = BufWriter::new(&file);
        let (mut body, mut framed) = (Vec::new(), Vec::new());
        for (key, entry) in &self.entries {
            let (state, since, why) = (entry.state, entry.since, entry.why.clone());
            let put = AsideChange::Put { key: key.clone(), state, since, why, message: self.message(entry)? };
            body.clear();
            framed.clear();
            put_change(put, &mut body);
            frame::put(&body, &mut framed);
            writer.write_all(&framed)?;
        }
        writer.flush()?;
        drop(writer);
        file.sync_all()?;
        fs::rename(&fresh, self.folder.join(FILE))?;
        File::open(&self.folder)?.sync_all()?;
        *self = Self { file: Some(file), ..Self::read(&self.folder)? };
        Ok(())
    }

    fn set(&mut self, key: SpoolNumber, entry: Option<AsideEntry>) {
        let is_rejected = |entry: &AsideEntry| usize::from(entry.state == AsideState::Rejected);
        let weight = |entry: &AsideEntry| (entry.len + entry.why.len() + 100) as u64;
        if let Some(entry) = &entry {
            self.rejected += is_rejected(entry);
            self.live += weight(entry);
        }
        let before = match entry {
            Some(entry) => self.entries.insert(key, entry),
            None => self.entries.remove(&key),
        };
        if let Some(before) = before {
            self.rejected -= is_rejected(&before);
            self.live -= weight(&before);
        }
    }
}

/// Writes a change down; gives what it makes of the entry, and where its message begins.
fn put_change(change: AsideChange, body: &mut Vec<u8>) -> (SpoolNumber, Option<(AsideEntry, usize)>) {
    let (key, put) = match change {
        AsideChange::Put { key, state, since, why, message } => (key, Some((state, since, why, message))),
        AsideChange::Remove(key) => (key, None),
    };
    let kind = match &put {
        None => 0,
        Some((AsideState::Waiting, ..)) => 1,
        Some((AsideState::Rejected, ..)) => 2,
    };
    body.push(kind);
    body.extend_from_slice(&key.number.to_le_bytes());
    put_text(&key.spool, 64, body);
    let entry = put.map(|(state, since, why, message)| {
        body.extend_from_slice(&since.to_bits().to_le_bytes());
        let why = put_text(&why, WHY_MOST, body).to_owned();
        let before = body.len();
        message.put(body);
        (AsideEntry { state, since, why, at: 0, len: 0 }, before)
    });
    (key, entry)
}

fn kept(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Adds a text, of which no more is kept than this; gives that.
fn put_text<'a>(text: &'a str, most: usize, body: &mut Vec<u8>) -> &'a str {
    let text = kept(text, most);
    let len = u16::try_from(text.len()).unwrap_or(0);
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(&text.as_bytes()[..len.into()]);
    text
}

fn take_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

fn read_entry(body: &[u8], at: u64) -> Option<(SpoolNumber, Option<AsideEntry>)> {
    let (kind, rest) = body.split_first()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (spool, rest) = take_text(rest)?;
    let key = SpoolNumber { spool, number: u64::from_le_bytes(*number) };
    let state = match kind {
        0 => return Some((key, None)),
        1 => AsideState::Waiting,
        2 => AsideState::Rejected,
        _ => return None,
    };
    let (since, rest) = rest.split_first_chunk::<8>()?;
    let (why, message) = take_text(rest)?;
    let since = f64::from_bits(u64::from_le_bytes(*since));
    let (at, len) = (at + (body.len() - message.len()) as u64, message.len());
    Some((key, Some(AsideEntry { state, since, why, at, len })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> SpoolNumber {
        SpoolNumber { spool: "s".into(), number }
    }

    fn put(number: u64, state: AsideState, why: &str) -> AsideChange {
        let message = SpooledMessage { number, received: 2.0, sender: None, bytes: format!("m{number}").into_bytes() };
        AsideChange::Put { key: key(number), state, since: number as f64, why: why.into(), message }
    }

    fn shown(aside: &Aside) -> Vec<String> {
        let entries = aside.entries().map(|(key, entry)| {
            let message = aside.message(entry).unwrap();
            format!("{} {:?} {} {}", key.number, entry.state, entry.why, String::from_utf8(message.bytes).unwrap())
        });
        entries.collect()
    }

    #[test]
    fn what_was_set_aside_is_there_again_and_what_became_of_it_last_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut aside = Aside::open(folder.path()).unwrap();
        aside.change(vec![put(1, AsideState::Waiting, "not there"), put(2, AsideState::Rejected, "no id")]).unwrap();
        aside.change(vec![put(1, AsideState::Rejected, "never came"), put(3, AsideState::Waiting, "")]).unwrap();
        aside.change(vec![AsideChange::Remove(key(2))]).unwrap();
        let now = ["1 Rejected never came m1", "3 Waiting  m3"];
        assert_eq!(shown(&aside), now);
        assert_eq!((aside.rejected(), aside.waiting()), (1, 1));
        assert_eq!(shown(&Aside::read(folder.path()).unwrap()), now);
        let end = aside.end;
        drop(aside);
        // Cut short in its last change.
        let file = OpenOptions::new().write(true).open(folder.path().join(FILE)).unwrap();
        file.set_len(end - 1).unwrap();
        let mut aside = Aside::open(folder.path()).unwrap();
        assert_eq!(shown(&aside), ["1 Rejected never came m1", "2 Rejected no id m2", "3 Waiting  m3"]);
        aside.change(vec![put(4, AsideState::Waiting, "w")]).unwrap();
        assert_eq!(shown(&Aside::read(folder.path()).unwrap()).len(), 4);
    }

    #[test]
    fn it_does_not_grow_beyond_its_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let mut aside = Aside::open(folder.path()).unwrap();
        let why = "w".repeat(WHY_MOST * 2);
        let mut gone = 0;
        for from in (0..30_000).step_by(1000) {
            gone += aside
                .change((from..from + 1000).map(|number| put(number, AsideState::Rejected, &why)).collect())
                .unwrap();
        }
        assert!(aside.rejected() <= REJECTS_MOST && gone == 30_000 - aside.rejected(), "{gone}");
        assert_eq!(aside.entries().last().map(|(key, _)| key.number), Some(29_999));
        aside.change((0..30_000).map(|number| AsideChange::Remove(key(number))).collect()).unwrap();
        assert!(aside.end < 2 << 20, "{}", aside.end);
        assert!(shown(&aside).is_empty());
    }
}
