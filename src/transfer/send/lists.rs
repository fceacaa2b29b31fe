//! The file list on its way out, whole or segment by segment.

use super::side::SenderSide;
use super::{Listing, OUT_MOST, Source};
use crate::transfer::TransferError;
use crate::transfer::conversation::LinkWriter;
use crate::transfer::plan::SendPlan;
use protocol::PeerError;
use protocol::flist::{FileEntry, FileList, Kind, ListEncoder, Ndx, Segments};
use protocol::handshake::{Compat, Negotiated};
use protocol::mux::Message;
use std::sync::Arc;

/// Entries listed beyond the segment at work: enough for the generator not to wait, few enough to hold. Stock's sender
/// keeps at least a thousand.
const LOOK_AHEAD: usize = 4000;

/// What of the file list is out and not yet finished.
pub(super) struct SentLists {
    encoder: ListEncoder,
    pub(super) segments: Segments<Arc<FileList>>,
    /// Nothing more to list.
    complete: bool,
    incremental: bool,
    pub(super) total_size: u64,
}

impl SentLists {
    pub(super) fn new(agreed: &Negotiated, plan: &SendPlan) -> Self {
        let incremental = agreed.compat.has(Compat::INC_RECURSE);
        let encoder = ListEncoder::new(agreed, plan.shape);
        Self { encoder, segments: Segments::new(incremental), complete: !incremental, incremental, total_size: 0 }
    }

    /// Sends the first list, which is the whole one without incremental recursion.
    pub(super) fn first(&mut self, listing: Listing, side: &mut SenderSide<'_>) -> Result<(), TransferError> {
        side.sender.list(&listing.list)?;
        self.write(listing, &mut side.conversation.writer)
    }

    /// Lists further directories while less than the look-ahead is known beyond the oldest segment: the generator goes on
    /// there while files of this one are sent. Its end of a segment can only come once the next one, or the end, is out.
    pub(super) fn look_ahead<S: Source>(
        &mut self,
        source: &mut S,
        side: &mut SenderSide<'_>,
    ) -> Result<(), TransferError> {
        let SenderSide { conversation, sender, observer, .. } = side;
        let writer = &mut conversation.writer;
        while !self.complete && self.segments.ahead() < LOOK_AHEAD {
            match source.next_segment().transpose()? {
                Some((dir, listing)) => {
                    observer.listed(&listing.list);
                    sender.segment(dir, &listing.list, &mut writer.out)?;
                    self.write(listing, writer)?;
                }
                None => {
                    sender.end_list(&mut writer.out);
                    self.complete = true;
                }
            }
        }
        Ok(())
    }

    /// What the receiving side tells something of.
    pub(super) fn reported(&self, ndx: Ndx) -> Result<&FileEntry, PeerError> {
        let expected = "a living entry of the list";
        self.segments.get(ndx).ok_or(PeerError::Range { what: "reported index", value: ndx.0.into(), expected })
    }

    fn write(&mut self, listing: Listing, writer: &mut LinkWriter) -> Result<(), TransferError> {
        let Listing { list, names, io_error } = listing;
        let mut bytes = Vec::new();
        let names_after = if self.incremental {
            self.encoder.know(names);
            None
        } else {
            Some(names)
        };
        for entry in list.to_send() {
            self.encoder.entry(entry, &mut bytes);
            if bytes.len() > OUT_MOST {
                writer.out.put(&bytes);
                bytes.clear();
                writer.flush()?;
            }
        }
        match names_after {
            Some(names) => self.encoder.end(io_error, &names, &mut bytes),
            None => self.encoder.end_segment(io_error, &mut bytes),
        }
        writer.out.put(&bytes);
        if !self.encoder.reports_errors() && io_error != 0 {
            writer.out.message(&Message::IoError(io_error));
        }
        // Stock reckons in what came twice, too.
        self.total_size += list.entries().iter().map(|entry| if has_size(entry) { entry.len } else { 0 }).sum::<u64>();
        let list = Arc::new(list);
        Ok(self.segments.add(&list, Arc::clone(&list))?)
    }
}

/// Whether an entry counts in the total size, as stock rsync reckons it.
fn has_size(entry: &FileEntry) -> bool {
    matches!(entry.kind(), Some(Kind::File | Kind::Symlink))
}
