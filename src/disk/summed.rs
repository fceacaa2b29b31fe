//! The MD5 of a file as its producer closed it: of one open file, that nobody has written to meanwhile.

use super::digest::each_piece;
use protocol::checksum::{Checksum, FileHasher};
use rustix::fs::{CWD, Mode, OFlags};
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a file comes to, read once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SummedFile {
    pub(crate) md5: [u8; 16],
    pub(crate) stamp: FileStamp,
}

/// By what a file is known to be the same still, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    size: u64,
    seconds: i64,
    nanoseconds: i64,
    inode: u64,
}

impl FileStamp {
    /// Of a file whose metadata these are.
    pub(crate) fn of(meta: &Metadata) -> Self {
        Self { size: meta.len(), seconds: meta.mtime(), nanoseconds: meta.mtime_nsec(), inode: meta.ino() }
    }

    /// Of a regular file of this name; `None` of a link, of anything else, and where there is nothing.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        std::fs::symlink_metadata(path).ok().filter(Metadata::is_file).as_ref().map(Self::of)
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// When it was written, unix time in seconds.
    pub(crate) fn mtime(&self) -> f64 {
        self.seconds as f64 + self.nanoseconds as f64 / 1e9
    }
}

impl fmt::Display for FileStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{:09} {}", self.size, self.seconds, self.nanoseconds, self.inode)
    }
}

/// Whether the last component of a path may be a symlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SymlinkRule {
    Followed,
    Refused,
}

/// Why a file has no sum.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SumError {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is no regular file")]
    NoFile,
    #[error("it was written to while it was read; try again when it is complete")]
    Changed,
}

/// Opens a regular file.
pub(crate) fn open_regular(path: &Path, links: SymlinkRule) -> Result<(File, Metadata), SumError> {
    // A fifo is not waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let flags = if links == SymlinkRule::Refused { flags | OFlags::NOFOLLOW } else { flags };
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(io::Error::from)?);
    let meta = file.metadata()?;
    if meta.is_file() { Ok((file, meta)) } else { Err(SumError::NoFile) }
}

/// Sums a file; each piece that was read is counted. One that is written to meanwhile has no sum.
pub(crate) fn sum(path: &Path, links: SymlinkRule, count: &dyn Fn(u64)) -> Result<SummedFile, SumError> {
    sum_opened(open_regular(path, links)?, count)
}

/// The same of a file just opened.
pub(crate) fn sum_opened((mut file, before): (File, Metadata), count: &dyn Fn(u64)) -> Result<SummedFile, SumError> {
    let mut hasher = FileHasher::new(Checksum::Md5);
    let len = each_piece(&mut file, |piece| {
        hasher.update(piece);
        count(piece.len() as u64);
    })?;
    let after = file.metadata()?;
    if FileStamp::of(&before) != FileStamp::of(&after) || len != after.len() {
        return Err(SumError::Changed);
    }
    let md5 = hasher.finish().as_bytes().try_into().unwrap_or_default();
    Ok(SummedFile { md5, stamp: FileStamp::of(&after) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_sum_is_of_a_whole_regular_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "message digest").unwrap();
        std::os::unix::fs::symlink("f", folder.path().join("link")).unwrap();
        let md5 = |name: &str, links| sum(&folder.path().join(name), links, &|_| {}).map(|summed| summed.md5[0]);
        assert_eq!(md5("f", SymlinkRule::Refused).unwrap(), 0xf9);
        assert_eq!(md5("link", SymlinkRule::Followed).unwrap(), 0xf9);
        assert!(md5("link", SymlinkRule::Refused).is_err());
        assert!(matches!(md5(".", SymlinkRule::Followed), Err(SumError::NoFile)));
    }

    #[test]
    fn a_file_that_is_written_to_meanwhile_has_no_sum() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "message digest").unwrap();
        let write = |_| fs::write(&file, "message").unwrap();
        assert!(matches!(sum(&file, SymlinkRule::Refused, &write), Err(SumError::Changed)));
    }
}
