//! Asks for what is missing. Only speaks; its ears are the receiver's. Counterpart: rsync's `generator.c`.

use crate::checksum::Sum;
use crate::flist::Ndx;
use crate::handshake::Negotiated;
use crate::item::{ItemFlags, ItemHeader};
use crate::mux::Outbox;
use crate::ndx::{NdxState, NdxValue};
use crate::sums::SumHead;
use crate::wire::{Decode, Reader, put_varint};

/// Larger counts of deletions are refused by every reader.
const COUNT_MOST: u32 = 1 << 28;

/// What was deleted on the receiving side, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeleteCounts {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Devices.
    pub devices: u64,
    /// Fifos and sockets.
    pub specials: u64,
}

impl DeleteCounts {
    /// All kinds together.
    pub fn total(&self) -> u64 {
        self.files + self.dirs + self.symlinks + self.devices + self.specials
    }

    /// Reads what [`DeleteCounts::encode`] wrote.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Decode> {
        let mut count = || reader.size("count of deletions", COUNT_MOST).map(u64::from);
        Ok(Self { files: count()?, dirs: count()?, symlinks: count()?, devices: count()?, specials: count()? })
    }

    /// As it stands on the wire.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        for count in [self.files, self.dirs, self.symlinks, self.devices, self.specials] {
            put_varint(bytes, count.min(COUNT_MOST.into()) as i32);
        }
    }
}

/// The generator's stream of one session.
#[derive(Debug)]
pub struct Generator {
    n: Negotiated,
    ndx_out: NdxState,
    /// Phases that are over.
    phases: u8,
}

impl Generator {
    /// A stream that has said nothing yet.
    pub fn new(n: &Negotiated) -> Self {
        Self { n: *n, ndx_out: NdxState::new(n.ints()), phases: 0 }
    }

    /// Tells of a change made here, where the peer can be told; carries no request.
    pub fn item(&mut self, ndx: Ndx, header: &ItemHeader, out: &mut Outbox) {
        if self.n.has_items() || header.flags.has(ItemFlags::TRANSFER) {
            let mut bytes = Vec::with_capacity(16);
            self.ndx_out.encode(NdxValue::Index(ndx.0), &mut bytes);
            header.encode_of(&self.n, &mut bytes);
            out.put(&bytes);
        }
    }

    /// Says that we are still there; `entries` are in the list.
    pub fn keep_alive(&mut self, entries: usize, out: &mut Outbox) {
        match u32::try_from(entries) {
            _ if out.is_muxed() => out.keep_alive(),
            // Behind its last phase the sender hears only the farewell, and before 29 nothing is known by this name.
            Ok(next) if self.n.version == 29 && self.phases < self.n.phases() => {
                self.item(Ndx(next), &ItemHeader::keep_alive(), out);
            }
            _ => {}
        }
    }

    /// Asks for a file's data. `head.count` sums must follow, by [`Generator::sum`].
    pub fn request(&mut self, ndx: Ndx, header: &ItemHeader, head: &SumHead, out: &mut Outbox) {
        self.item(ndx, header, out);
        out.put(&head.encode());
    }

    /// The sums of one block of the basis.
    pub fn sum(&mut self, head: &SumHead, weak: u32, strong: &Sum, out: &mut Outbox) {
        out.put(&weak.to_le_bytes());
        let len = (head.strong_length as usize).min(strong.as_bytes().len());
        out.put(&strong.as_bytes()[..len]);
    }

    /// What was deleted; stands before the end of the last phase, from protocol 31 on.
    pub fn delete_counts(&mut self, counts: &DeleteCounts, out: &mut Outbox) {
        let mut bytes = Vec::with_capacity(16);
        self.ndx_out.encode(NdxValue::DeleteStats, &mut bytes);
        counts.encode(&mut bytes);
        out.put(&bytes);
    }

    /// The end of a phase, or of the session.
    pub fn done(&mut self, out: &mut Outbox) {
        let mut bytes = Vec::with_capacity(1);
        self.ndx_out.encode(NdxValue::Done, &mut bytes);
        self.phases = self.phases.saturating_add(1);
        out.put(&bytes);
    }
}
