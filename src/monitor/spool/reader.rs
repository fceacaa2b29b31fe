//! Reads from a spool what is on disk for good.

use super::super::frame::{self, HEAD, SpooledMessage};
use super::{BEGIN, SUFFIX, Spool, path_of};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Reads what is on disk for good, in order.
pub(crate) struct SpoolReader {
    spool: Arc<Spool>,
    next: u64,
    open: Option<(u64, File, u64)>,
    /// Numbers that could not be read, since somebody else has changed the file.
    pub(super) lost: u64,
}

impl SpoolReader {
    /// Begins with this message, or the first one that there still is.
    pub(crate) fn new(spool: Arc<Spool>, from: u64) -> Self {
        Self { spool, next: from, open: None, lost: 0 }
    }

    /// The number up to which everything was read.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The next message, if there is one.
    pub(crate) fn read(&mut self) -> io::Result<Option<SpooledMessage>> {
        loop {
            let (segment, until, end) = {
                let state = self.spool.state();
                self.next = self.next.max(state.segments.front().map_or(state.next, |first| first.first));
                if self.next >= state.next {
                    return Ok(None);
                }
                let behind = state.segments.partition_point(|segment| segment.first <= self.next);
                let Some(&segment) = behind.checked_sub(1).and_then(|at| state.segments.get(at)) else {
                    return Ok(None);
                };
                (segment, state.segments.get(behind).map_or(state.next, |after| after.first), state.next)
            };
            let (file, at) = match &mut self.open {
                Some((first, file, at)) if *first == segment.first => (file, at),
                open => {
                    let file = File::open(path_of(&self.spool.folder, segment.first))?;
                    let (_, file, at) = open.insert((segment.first, file, BEGIN));
                    (file, at)
                }
            };
            match next_message(file, *at, segment.len)? {
                Some((message, len)) if message.number < until => {
                    *at += len;
                    if message.number >= self.next {
                        self.next = message.number + 1;
                        return Ok(Some(message));
                    }
                }
                // Numbers are left out where a file could not be written to its end.
                _ => {
                    let skipped = until - self.next;
                    if *at < segment.len {
                        self.lost += skipped;
                        let (folder, first) = (self.spool.folder.display(), segment.first);
                        tracing::error!(
                            event = "spool_damaged",
                            messages = skipped,
                            "A file of the spool in {folder} was changed by somebody else: {first:020}{SUFFIX}; up to {skipped} messages in it are lost"
                        );
                    }
                    self.next = until;
                    if until == end {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

fn next_message(file: &File, at: u64, end: u64) -> io::Result<Option<(SpooledMessage, u64)>> {
    let mut head = [0; HEAD];
    if at + HEAD as u64 > end {
        return Ok(None);
    }
    file.read_exact_at(&mut head, at)?;
    let Some(len) = frame::body_len(&head).filter(|len| at + (HEAD + len) as u64 <= end) else { return Ok(None) };
    let mut body = vec![0; len];
    file.read_exact_at(&mut body, at + HEAD as u64)?;
    let message = SpooledMessage::read(&body).filter(|_| frame::is_whole(&head, &body));
    Ok(message.map(|message| (message, (HEAD + len) as u64)))
}
