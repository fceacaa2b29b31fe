//! Asks for what is missing. Only speaks; its ears are the receiver's. Counterpart: rsync's `generator.c`.

use crate::checksum::Sum;
use crate::flist::Ndx;
use crate::item::ItemHeader;
use crate::mux::Outbox;
use crate::ndx::{NdxState, NdxValue};
use crate::sums::SumHead;

/// The generator's stream of one session.
#[derive(Debug, Default)]
pub struct Generator {
    ndx_out: NdxState,
}

impl Generator {
    /// A stream that has said nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells of a change made here; carries no request.
    pub fn item(&mut self, ndx: Ndx, header: &ItemHeader, out: &mut Outbox) {
        let mut bytes = Vec::with_capacity(16);
        self.ndx_out.encode(NdxValue::Index(ndx.0), &mut bytes);
        header.encode(&mut bytes);
        out.put(&bytes);
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

    /// The end of a phase, or of the session.
    pub fn done(&mut self, out: &mut Outbox) {
        let mut bytes = Vec::with_capacity(1);
        self.ndx_out.encode(NdxValue::Done, &mut bytes);
        out.put(&bytes);
    }
}
