//! What the decoders ask of the disk. Nobody gets anywhere but to the one file that the fuzzer has written.

pub(crate) mod fake;
pub(crate) mod names;
pub(crate) mod wild;

/// What of the walk beneath a directory has to do with names.
pub(crate) mod beneath {
    use protocol::flist::{FileEntry, Kind};

    pub(crate) fn kind(mode: u32) -> Option<Kind> {
        FileEntry::new(Vec::new(), mode).kind()
    }
}

pub(crate) use names::shown;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A folder of this process, in memory.
pub(crate) static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
});

/// Writes the file that is read.
pub(crate) fn written(name: &str, data: &[u8]) -> PathBuf {
    let path = FOLDER.join(name);
    std::fs::write(&path, data).unwrap();
    path
}

pub(crate) fn open_operator_file(path: &Path) -> io::Result<File> {
    if path.starts_with(&*FOLDER) { File::open(path) } else { Err(ErrorKind::NotFound.into()) }
}

pub(crate) fn open_operand(_path: &Path) -> io::Result<File> {
    Err(ErrorKind::NotFound.into())
}

pub(crate) fn readable(folder: &File) -> io::Result<File> {
    folder.try_clone()
}

/// Names as stock keeps them in attributes, and as they are shown.
pub(crate) fn kept(data: &[u8]) {
    if let Some(claim) = fake::FakeClaim::parse(data) {
        assert!(fake::FakeClaim::parse(&claim.to_bytes()).is_some());
    }
    if let Some(acl) = fake::acl(data) {
        let _ = fake::acl_bytes(&acl);
    }
    for eight_bit in [false, true] {
        let mut shown = Vec::new();
        names::put(data, eight_bit, &mut shown);
        assert!(!shown.iter().any(|&byte| byte < b' ' && byte != b'\t'));
    }
}
