//! A list of proven files with their BLAKE3, for `b3sum --check`.
//!
//! `b3sum` takes no line but its own, so sizes stand in a second file, `FILE.sizes`, as `SUM  SIZE  NAME`. Both only grow.

use crate::disk::digest::Digest;
use crate::disk::open_operator_lock;
use crate::lock::Lock;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes at a file's end whose lines are not written again. What a crash makes us prove again was written last.
const REMEMBERED: u64 = 16 << 20;
/// Letters of a BLAKE3 in hexadecimal.
const SUM_LEN: usize = 64;
/// Lines of this run that are remembered, or up to twice as many.
const LINES_KEPT: usize = 50_000;

/// A proven file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name, relative to where `b3sum --check` is to be run.
    pub name: String,
    /// What it holds.
    pub digest: Digest,
}

/// The two files, open and locked.
#[derive(Debug)]
pub(crate) struct Manifest {
    ledgers: Mutex<[ManifestLedger; 2]>,
}

impl Manifest {
    /// Opens the files, or makes them. The error says which one cannot be used, and why.
    pub(crate) fn open(path: &Path) -> Result<Manifest, String> {
        let mut sizes = OsString::from(path);
        sizes.push(".sizes");
        let open =
            |path: &Path| ManifestLedger::open(path).map_err(|why| format!("Cannot use {}: {why}", path.display()));
        Ok(Manifest { ledgers: Mutex::new([open(path)?, open(sizes.as_ref())?]) })
    }

    /// Adds files, and returns once they are on the disk. A line that stands near the end already is not repeated.
    pub(crate) fn append(&self, entries: &[Entry]) -> Result<(), String> {
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let [sums, sizes] = &mut *ledgers;
        let wrong =
            |ledger: &ManifestLedger, error: io::Error| format!("Cannot write {}: {error}", ledger.path.display());
        sizes.append(entries.iter().map(|entry| entry.line(true))).map_err(|error| wrong(sizes, error))?;
        sums.append(entries.iter().map(|entry| entry.line(false))).map_err(|error| wrong(sums, error))
    }
}

impl Entry {
    /// Its line without the end, as `b3sum` escapes names.
    fn line(&self, with_size: bool) -> String {
        let special = self.name.contains(['\\', '\n']);
        let name = if special { self.name.replace('\\', "\\\\").replace('\n', "\\n") } else { self.name.clone() };
        let mark = if special { "\\" } else { "" };
        let size = if with_size { format!("{}  ", self.digest.len) } else { String::new() };
        format!("{mark}{}  {size}{name}", self.digest.blake3)
    }
}

/// Whether bytes are a line of ours, or the beginning of one.
fn is_begun(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"\\").unwrap_or(line);
    let (sum, rest) = line.split_at(line.len().min(SUM_LEN));
    sum.iter().all(u8::is_ascii_hexdigit) && rest.iter().take(2).all(|&byte| byte == b' ')
}

/// A file of lines that only grows.
#[derive(Debug)]
struct ManifestLedger {
    path: PathBuf,
    file: Lock,
    len: u64,
    known: [HashSet<Vec<u8>>; 2],
}

impl ManifestLedger {
    fn open(path: &Path) -> Result<ManifestLedger, String> {
        let say = |error: io::Error| error.to_string();
        let file = open_operator_lock(path).map_err(say)?;
        if !file.metadata().map_err(say)?.is_file() {
            return Err("it is not a regular file".into());
        }
        let mut lock = Lock::take(file).map_err(|_| "another process writes it; give each its own".to_owned())?;
        let file = lock.file_mut();
        let whole = file.metadata().map_err(say)?.len();
        let from = whole.saturating_sub(REMEMBERED);
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(from)).map_err(say)?;
        Read::by_ref(file).take(REMEMBERED).read_to_end(&mut tail).map_err(say)?;
        // A crash may have left half a line.
        let kept = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if kept == 0 && from > 0 {
            return Err("its last lines are none; is it a manifest?".into());
        }
        // Nothing is cut off a file that is none of ours. Where the tail begins in mid-line, that piece is not looked at.
        let mut lines = tail[..kept].split_inclusive(|&byte| byte == b'\n').skip(usize::from(from > 0));
        if !lines.all(|line| line.len() > SUM_LEN && is_begun(line)) || !is_begun(&tail[kept..]) {
            return Err("it has other lines than a manifest; name another file".into());
        }
        let len = from + kept as u64;
        if len < whole {
            file.set_len(len).map_err(say)?;
        }
        // Where the tail begins in mid-line, that piece equals no line.
        let known = tail[..kept].split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(say)?;
        Ok(ManifestLedger { path: path.into(), file: lock, len, known: [known, HashSet::new()] })
    }

    fn append(&mut self, lines: impl Iterator<Item = String>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut fresh = HashSet::new();
        for line in lines.map(String::into_bytes) {
            if !self.known.iter().any(|known| known.contains(&line)) && fresh.insert(line.clone()) {
                bytes.extend_from_slice(&line);
                bytes.push(b'\n');
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.file_mut().write_all(&bytes).and_then(|()| self.file.file().sync_data()) {
            // What is tried again must not stand there twice, or in part.
            let _ = self.file.file().set_len(self.len);
            return Err(error);
        }
        self.len += bytes.len() as u64;
        if self.known[1].len() > LINES_KEPT {
            self.known[0] = std::mem::take(&mut self.known[1]);
        }
        self.known[1].extend(fresh);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::checksum::{Checksum, FileHasher};

    fn entry(name: &str, bytes: &[u8]) -> Entry {
        let mut hasher = FileHasher::new(Checksum::Blake3);
        hasher.update(bytes);
        Entry { name: name.into(), digest: Digest { len: bytes.len() as u64, blake3: hasher.finish() } }
    }

    #[test]
    fn lines_are_those_of_b3sum() {
        // As b3sum 1.2.0 prints them.
        let odd = "\\78b04ae00b427f2e2fd6d0c79309393413e7d3ddd9fd8d269355fb506b798ae1  n\\nl";
        assert_eq!(entry("n\nl", b"x\ny").line(false), odd);
        let back = "\\1104908ab930e671002c7cd7f3fc921570b1bf64ecfa12fe363585c630eaca6b  b\\\\s";
        assert_eq!(entry("b\\s", b"z").line(false), back);
        assert_eq!(entry("a b", b"z").line(true)[64..], *"  1  a b");
    }

    #[test]
    fn a_crash_leaves_no_line_twice_and_none_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let entries = [entry("a", b"1"), entry("b", b"22")];
        {
            let manifest = Manifest::open(&path).unwrap();
            manifest.append(&entries).unwrap();
            assert!(Manifest::open(&path).unwrap_err().contains("another process"));
        }
        let (sums, sizes) = (read("m"), read("m.sizes"));
        assert_eq!((sums.lines().count(), sizes.lines().count()), (2, 2));
        // Killed while the first file was written, and before anything was recorded.
        std::fs::write(&path, &sums[..sums.len() - 5]).unwrap();
        let manifest = Manifest::open(&path).unwrap();
        assert_eq!(read("m").lines().count(), 1);
        manifest.append(&entries).unwrap();
        assert_eq!((read("m"), read("m.sizes")), (sums.clone(), sizes.clone()));
        manifest.append(&[entry("a", b"other")]).unwrap();
        assert!(read("m").starts_with(&sums) && read("m").lines().count() == 3);
    }

    #[test]
    fn what_cannot_be_a_manifest_is_said() {
        assert!(Manifest::open(Path::new("/dev/null")).unwrap_err().contains("not a regular file"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        for bytes in [&b"no line at all"[..], b"some text\n", b"\0\x01\nabc", b"abc\n"] {
            std::fs::write(&path, bytes).unwrap();
            assert!(Manifest::open(&path).unwrap_err().contains("other lines than a manifest"));
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "it stays what it was");
        }
        assert!(Manifest::open(Path::new("/nowhere/m")).unwrap_err().starts_with("Cannot use /nowhere/m: "));
    }
}
