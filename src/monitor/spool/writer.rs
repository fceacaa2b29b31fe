//! Writes to a spool: only at its end, and all of a group or none of it.

use super::super::frame::{self, SpooledMessage};
use super::{BEGIN, MAGIC, SEGMENT, Spool, SpoolError, SpoolFile, UnspooledMessage, path_of};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

/// The one who writes to a spool.
pub(crate) struct SpoolWriter {
    spool: Arc<Spool>,
    /// The last file; `None` where the next message begins another.
    file: Option<File>,
    framed: Vec<u8>,
}

impl SpoolWriter {
    pub(crate) fn new(spool: Arc<Spool>) -> Self {
        Self { spool, file: None, framed: Vec::new() }
    }

    /// Writes messages and has them on disk for good, all or none of them.
    pub(crate) fn append(&mut self, messages: &[UnspooledMessage]) -> Result<(), SpoolError> {
        if messages.is_empty() {
            return Ok(());
        }
        let (next, last, all) = {
            let state = self.spool.state();
            (state.next, state.segments.back().copied(), state.segments.iter().map(|segment| segment.len).sum::<u64>())
        };
        self.framed.clear();
        let mut body = Vec::new();
        for (number, message) in (next..).zip(messages) {
            let UnspooledMessage { received, sender, bytes } = message;
            body.clear();
            SpooledMessage { number, received: *received, sender: *sender, bytes: bytes.to_vec() }.put(&mut body);
            frame::put(&body, &mut self.framed);
        }
        let len = self.framed.len() as u64;
        if all + len > self.spool.most {
            self.end_file();
            return Err(SpoolError::Full { folder: self.spool.folder.clone(), most: self.spool.most });
        }
        let last = last.filter(|last| self.file.is_some() && last.len < SEGMENT);
        let written = match last {
            Some(last) => self.write(last),
            None => self.begin(next).and_then(|begun| self.write(begun)),
        };
        match written {
            Ok(len) => {
                let mut state = self.spool.state();
                state.next = next + messages.len() as u64;
                state.is_last_over = false;
                match state.segments.back_mut().filter(|back| last.is_some() || back.first == next) {
                    Some(segment) => segment.len = len,
                    None => state.segments.push_back(SpoolFile { first: next, len }),
                }
                Ok(())
            }
            Err(error) => {
                // What the disk holds of it now nobody knows.
                self.end_file();
                Err(self.spool.unwritable(error))
            }
        }
    }

    /// What comes next goes into another file.
    fn end_file(&mut self) {
        self.file = None;
        self.spool.state().is_last_over = true;
    }

    /// Begins a file in which this number is the first.
    fn begin(&mut self, first: u64) -> io::Result<SpoolFile> {
        let path = path_of(&self.spool.folder, first);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&[&MAGIC[..], &self.spool.id].concat())?;
        File::open(&self.spool.folder)?.sync_all()?;
        self.file = Some(file);
        Ok(SpoolFile { first, len: BEGIN })
    }

    fn write(&mut self, segment: SpoolFile) -> io::Result<u64> {
        let Some(file) = &self.file else { return Err(ErrorKind::NotFound.into()) };
        file.write_all_at(&self.framed, segment.len)?;
        file.sync_data()?;
        Ok(segment.len + self.framed.len() as u64)
    }
}
