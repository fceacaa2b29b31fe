//! Entries of a file list that is made of rows and not of a tree.

use super::terms::dir_mode;
use protocol::checksum::Sum;
use protocol::chmod::Chmod;
use protocol::flist::{DirClass, Extras, FileEntry};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// The entry of a file with these attributes.
pub(super) fn file_entry(name: &[u8], meta: &Metadata, mode: u32, sum: Option<Sum>) -> FileEntry {
    FileEntry {
        len: meta.len(),
        mtime: meta.mtime(),
        nsec: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
        extra: Extras { sum, ..Extras::default() }.into(),
        ..FileEntry::new(name, 0o100000 | mode)
    }
}

/// The entry of a directory on the way to a file, of which only the name counts.
pub(super) fn parent_entry(name: &[u8], chmod: Option<&Chmod>) -> FileEntry {
    let extra = Extras { dir_class: DirClass::Implied, ..Extras::default() }.into();
    FileEntry { extra, ..FileEntry::new(name, 0o40000 | dir_mode(chmod)) }
}
