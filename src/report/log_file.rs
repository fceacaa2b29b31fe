//! A log file of one session (`--log-file`).

use crate::clock;
use crate::disk::open_operator_lock;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// The default of `--log-file-format`.
pub(crate) const FORMAT: &[u8] = b"%i %n%L";

/// Takes lines until it is dropped.
pub(crate) struct LogFile(File);

impl LogFile {
    /// Appends to a file, which is made where it is missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        open_operator_lock(path).map(Self)
    }

    /// Writes one line, with moment and process before it.
    pub(crate) fn line(&self, text: &[u8]) {
        let moment = clock::local(clock::unix_seconds());
        let mut line = format!("{} {} [{}] ", moment.date(), moment.time(), std::process::id()).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        // A full disk is no reason to end a transfer.
        let _ = (&self.0).write_all(&line);
    }
}
