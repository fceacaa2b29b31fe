//! A file that is read by calls which are waited for only so long.

use super::{BegunCall, Patience};
use crate::transfer::send::FileContent;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read by one call.
const PIECE: usize = 256 * 1024;

/// A file whose file system is not waited for longer than so. The next piece is read while the last one is used. Of a small
/// one all is there when it is opened, and it is closed by then.
#[derive(Debug)]
pub(crate) struct PatientFile {
    /// `None` where its piece is all there is.
    file: Option<Arc<File>>,
    meta: Metadata,
    path: PathBuf,
    patience: Patience,
    piece: Vec<u8>,
    /// Where the piece begins in the file, and what comes next.
    begin: u64,
    at: u64,
    /// Nothing was behind it.
    is_over: bool,
    ahead: Option<BegunCall<Vec<u8>>>,
}

/// What opening a file gives.
pub(in crate::archiver) struct FreshFile {
    file: Option<File>,
    meta: Metadata,
    piece: Vec<u8>,
}

impl FreshFile {
    /// Reads the first piece along.
    pub(in crate::archiver) fn of(file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let piece = piece_of(&file, 0, meta.len())?;
        let file = (piece.len() == PIECE).then_some(file);
        Ok(Self { file, meta, piece })
    }
}

impl PatientFile {
    /// Opens a file, whose first piece is read along.
    pub(in crate::archiver) fn open(
        patience: &Patience,
        path: &Path,
        open: impl FnOnce() -> io::Result<File> + Send + 'static,
    ) -> io::Result<Self> {
        let opened = patience.within(path, move || FreshFile::of(open()?))?;
        Self::new(opened, patience, path)
    }

    /// One that was opened by such a call.
    pub(in crate::archiver) fn new(opened: FreshFile, patience: &Patience, path: &Path) -> io::Result<Self> {
        let FreshFile { file, meta, piece } = opened;
        let (file, path, patience) = (file.map(Arc::new), path.to_owned(), patience.clone());
        let (begin, at) = (0, 0);
        let mut opened = Self { file, meta, path, patience, piece: Vec::new(), begin, at, is_over: false, ahead: None };
        opened.put(piece, 0)?;
        Ok(opened)
    }

    /// Uses the piece that begins there, and has the one behind it read.
    fn put(&mut self, piece: Vec<u8>, begin: u64) -> io::Result<()> {
        (self.piece, self.begin) = (piece, begin);
        self.is_over = self.piece.len() < PIECE;
        self.ahead = if self.is_over { None } else { Some(self.ask_for(self.end())?) };
        Ok(())
    }

    /// Where the piece ends in the file.
    fn end(&self) -> u64 {
        self.begin + self.piece.len() as u64
    }

    fn ask_for(&self, at: u64) -> io::Result<BegunCall<Vec<u8>>> {
        let (file, len) = (self.file.clone().ok_or(io::ErrorKind::NotConnected)?, self.meta.len());
        self.patience.begin(&self.path, move || piece_of(&file, at, len))
    }
}

/// As many bytes as there are from here on, up to a piece; the file was so long when it was opened.
fn piece_of(file: &File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    // A byte more: whether it ends there is to be seen.
    let expected = usize::try_from(len.saturating_sub(at).saturating_add(1)).unwrap_or(PIECE);
    let mut piece = vec![0; expected.min(PIECE)];
    let mut filled = 0;
    while filled < PIECE {
        if filled == piece.len() {
            piece.resize(PIECE, 0);
        }
        match file.read_at(&mut piece[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece)
}

/// To close a file takes its file system as well.
impl Drop for PatientFile {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        let is_mute = self.patience.mute_place(&self.path).is_some();
        let closing = self.patience.begin_anyway(move || {
            drop(file);
            Ok(())
        });
        // Where it does not answer, the thread is left to it.
        if let (Ok(closing), false) = (closing, is_mute) {
            let _ = closing.wait(&self.path);
        }
    }
}

impl Read for PatientFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end() && !self.is_over && !buffer.is_empty() {
            let pending = match self.ahead.take() {
                Some(pending) => pending,
                None => self.ask_for(self.at)?,
            };
            let piece = pending.wait(&self.path)?;
            self.put(piece, self.at)?;
        }
        // Behind the end there is nothing.
        let used = usize::try_from(self.at - self.begin).unwrap_or(usize::MAX).min(self.piece.len());
        let n = (&self.piece[used..]).read(buffer)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl FileContent for PatientFile {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.meta.clone())
    }
}

impl Seek for PatientFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.meta.len().checked_add_signed(by),
        };
        let to = to.ok_or(io::ErrorKind::InvalidInput)?;
        if self.file.is_some() && !(self.begin..=self.end()).contains(&to) {
            (self.piece, self.begin) = (Vec::new(), to);
            (self.is_over, self.ahead) = (false, None);
        }
        self.at = to;
        Ok(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_comes_whole_from_wherever_it_is_read() {
        let patience = Patience::new(Duration::from_secs(60));
        let folder = tempfile::tempdir().unwrap();
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 17] {
            let path = folder.path().join(len.to_string());
            let content: Vec<u8> = (0..len).map(|at| (at * 31 % 251) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            let name = path.clone();
            let mut file = PatientFile::open(&patience, &path, move || File::open(name)).unwrap();
            assert_eq!(file.metadata().unwrap().len(), len as u64);
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert!(read == content, "{len}");
            for at in [0, len / 2, len, len + 5] {
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                let mut few = [0; 3];
                let n = file.read(&mut few).unwrap();
                assert_eq!(few[..n], content[at.min(len)..(at + n).min(len)], "{len} at {at}");
                assert_eq!(file.stream_position().unwrap(), (at + n) as u64);
                let mut rest = Vec::new();
                file.read_to_end(&mut rest).unwrap();
                assert!(rest == content[(at + n).min(len)..], "{len} behind {at}");
            }
        }
    }
}
