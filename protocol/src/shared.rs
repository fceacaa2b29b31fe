//! Values that many entries share: sent whole once, and by number from then on.

use crate::PeerError;
use crate::wire::{Decoded, Reader, put_varint};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// The values a peer has sent so far.
#[derive(Debug, Clone)]
pub(crate) struct Heard<T>(Vec<Arc<T>>);

impl<T> Default for Heard<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// A value that an item carried or pointed at.
#[derive(Debug, Clone)]
pub(crate) struct SharedValue<T> {
    pub(crate) value: Arc<T>,
    /// It came whole, and has its number once [`Heard::keep`] is told.
    new: bool,
}

impl<T> Heard<T> {
    /// Reads one item; `literal` reads a value that comes whole.
    pub(crate) fn decode(
        &self,
        reader: &mut Reader<'_>,
        what: &'static str,
        literal: impl FnOnce(&mut Reader<'_>) -> Decoded<T>,
    ) -> Decoded<SharedValue<T>> {
        let number = reader.varint()?;
        if number == 0 {
            return Ok(SharedValue { value: Arc::new(literal(reader)?), new: true });
        }
        let known = usize::try_from(number).ok().and_then(|number| self.0.get(number - 1)).cloned();
        let expected = "the number of one that came before";
        let value = known.ok_or(PeerError::Range { what, value: number.into(), expected })?;
        Ok(SharedValue { value, new: false })
    }

    /// Numbers the value of an item that was read whole; true when it is a new one.
    pub(crate) fn keep(&mut self, item: SharedValue<T>) -> (Arc<T>, bool) {
        if item.new {
            self.0.push(Arc::clone(&item.value));
        }
        (item.value, item.new)
    }
}

/// The values we have sent so far, with their numbers.
#[derive(Debug, Clone)]
pub(crate) struct Said<T>(HashMap<Arc<T>, i32>);

impl<T> Default for Said<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Hash + Eq> Said<T> {
    /// Writes one item; `literal` writes a value that was not sent before.
    pub(crate) fn encode(&mut self, value: &Arc<T>, out: &mut Vec<u8>, literal: impl FnOnce(&T, &mut Vec<u8>)) {
        if let Some(number) = self.0.get(value) {
            return put_varint(out, *number);
        }
        put_varint(out, 0);
        literal(value, out);
        // The peer counts no further either.
        if let Ok(number) = i32::try_from(self.0.len() + 1) {
            self.0.insert(Arc::clone(value), number);
        }
    }
}
