//! Coding of file indexes and the control numbers that travel among them. Counterpart: `read_ndx`, `write_ndx`.

use crate::PeerError;
use crate::wire::{Decoded, Ints, Reader};

/// What stands where an index is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NdxValue {
    /// An index, 0 or more.
    Index(u32),
    /// End of a phase or of the session.
    Done,
    /// No more file-list segments (incremental recursion).
    FlistEnd,
    /// Counts of deletions follow.
    DeleteStats,
    /// The list of this directory follows (incremental recursion).
    Segment(u32),
}

const DONE: i32 = -1;
const FLIST_END: i32 = -2;
const DELETE_STATS: i32 = -3;
const SEGMENT_BASE: i32 = -101;

impl NdxValue {
    fn number(self) -> i64 {
        match self {
            Self::Index(ndx) => ndx.into(),
            Self::Done => DONE.into(),
            Self::FlistEnd => FLIST_END.into(),
            Self::DeleteStats => DELETE_STATS.into(),
            Self::Segment(dir) => i64::from(SEGMENT_BASE) - i64::from(dir),
        }
    }

    fn from_number(number: i64) -> Result<Self, PeerError> {
        let bad = PeerError::Range { what: "file index", value: number, expected: "an index or a control number" };
        // The packed form has 31 bits beside the sign.
        let number = i32::try_from(number).ok().filter(|number| *number != i32::MIN);
        Ok(match number.ok_or_else(|| bad.clone())? {
            DONE => Self::Done,
            FLIST_END => Self::FlistEnd,
            DELETE_STATS => Self::DeleteStats,
            ndx if ndx >= 0 => Self::Index(ndx as u32),
            ndx if ndx <= SEGMENT_BASE => Self::Segment((SEGMENT_BASE - ndx) as u32),
            _ => return Err(bad),
        })
    }
}

/// One direction's memory for index coding; lives for the whole session.
#[derive(Debug, Clone)]
pub struct NdxState {
    ints: Ints,
    positive: i64,
    negative: i64,
}

impl Default for NdxState {
    fn default() -> Self {
        Self::new(Ints::Packed)
    }
}

impl NdxState {
    /// A direction in which nothing was said yet. Indexes of fixed size need no memory.
    pub fn new(ints: Ints) -> Self {
        Self { ints, positive: -1, negative: 1 }
    }

    /// Writes a value (rsync: `write_ndx`).
    pub fn encode(&mut self, value: NdxValue, out: &mut Vec<u8>) {
        let number = value.number();
        if self.ints == Ints::Fixed {
            return out.extend_from_slice(&(number as i32).to_le_bytes());
        }
        if number == i64::from(DONE) {
            return out.push(0);
        }
        let magnitude = number.abs();
        let previous = if number >= 0 {
            &mut self.positive
        } else {
            out.push(0xff);
            &mut self.negative
        };
        let step = magnitude - *previous;
        *previous = magnitude;
        match step {
            1..=253 => out.push(step as u8),
            0 | 254..=32767 => out.extend_from_slice(&[0xfe, (step >> 8) as u8, step as u8]),
            _ => {
                let [low, second, third, top] = (magnitude as u32).to_le_bytes();
                out.extend_from_slice(&[0xfe, top | 0x80, low, second, third]);
            }
        }
    }

    /// Reads a value (rsync: `read_ndx`). The memory changes only when the whole value is there.
    pub fn decode(&mut self, reader: &mut Reader<'_>) -> Decoded<NdxValue> {
        if self.ints == Ints::Fixed {
            return match NdxValue::from_number(reader.int()?.into())? {
                value @ (NdxValue::Index(_) | NdxValue::Done) => Ok(value),
                _ => Err(PeerError::Malformed("a control number that is unknown before protocol 30").into()),
            };
        }
        let mut first = reader.byte()?;
        if first == 0 {
            return Ok(NdxValue::Done);
        }
        let negative = first == 0xff;
        if negative {
            first = reader.byte()?;
        }
        let previous = if negative { self.negative } else { self.positive };
        let magnitude = if first == 0xfe {
            let [high, low] = reader.array()?;
            if high & 0x80 != 0 {
                let [second, third] = reader.array()?;
                i64::from(u32::from_le_bytes([low, second, third, high & 0x7f]))
            } else {
                previous + i64::from(u16::from_be_bytes([high, low]))
            }
        } else {
            previous + i64::from(first)
        };
        let value = NdxValue::from_number(if negative { -magnitude } else { magnitude })?;
        *(if negative { &mut self.negative } else { &mut self.positive }) = magnitude;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decode;
    use proptest::prelude::*;

    #[test]
    fn first_occurrences() {
        for (value, wire) in [
            (NdxValue::Done, &[0][..]),
            (NdxValue::FlistEnd, &[0xff, 1]),
            (NdxValue::DeleteStats, &[0xff, 2]),
            (NdxValue::Segment(0), &[0xff, 0x64]),
            (NdxValue::Index(0), &[1]),
        ] {
            let mut out = Vec::new();
            NdxState::default().encode(value, &mut out);
            assert_eq!(out, wire, "{value:?}");
        }
    }

    #[test]
    fn before_30_an_index_takes_four_bytes() {
        let mut state = NdxState::new(Ints::Fixed);
        let mut out = Vec::new();
        for value in [NdxValue::Index(7), NdxValue::Done, NdxValue::Index(7)] {
            state.encode(value, &mut out);
        }
        assert_eq!(out, [7, 0, 0, 0, 255, 255, 255, 255, 7, 0, 0, 0]);
        let mut reader = Reader::new(&out);
        for value in [NdxValue::Index(7), NdxValue::Done, NdxValue::Index(7)] {
            assert_eq!(state.decode(&mut reader), Ok(value));
        }
        for unknown in [-2i32, -3, -101, i32::MIN] {
            assert!(matches!(state.decode(&mut Reader::new(&unknown.to_le_bytes())), Err(Decode::Bad(_))), "{unknown}");
        }
    }

    #[test]
    fn what_has_no_form_is_no_number() {
        let mut state = NdxState::default();
        // 2^31 - 1, and from there one more.
        let largest = [0xff, 0xfe, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(state.decode(&mut Reader::new(&largest)), Ok(NdxValue::Segment(2_147_483_546)));
        assert!(matches!(state.decode(&mut Reader::new(&[0xff, 1])), Err(Decode::Bad(_))));
    }

    proptest! {
        #[test]
        fn values_survive(values in proptest::collection::vec(prop_oneof![
            (0u32..=i32::MAX as u32).prop_map(NdxValue::Index), (0u32..500).prop_map(NdxValue::Index),
            Just(NdxValue::Done), Just(NdxValue::FlistEnd), Just(NdxValue::DeleteStats), (0u32..100_000).prop_map(NdxValue::Segment),
        ], 0..50)) {
            let mut out = Vec::new();
            let mut writer = NdxState::default();
            for value in &values { writer.encode(*value, &mut out); }
            let mut state = NdxState::default();
            let mut reader = Reader::new(&out);
            for value in &values { prop_assert_eq!(state.decode(&mut reader), Ok(*value)); }
            prop_assert_eq!(reader.position(), out.len());
        }

        #[test]
        fn garbage_is_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..30), fixed: bool) {
            let mut state = NdxState::new(if fixed { Ints::Fixed } else { Ints::Packed });
            let mut reader = Reader::new(&bytes);
            while state.decode(&mut reader).is_ok() {}
        }
    }
}
