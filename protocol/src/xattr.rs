//! Extended attributes as the file list carries them, and the exchange of values it leaves out.
//! Counterpart: rsync's `xattrs.c`.

use crate::PeerError;
use crate::wire::{Decoded, Reader, put_varint};
use md5::{Digest, Md5};

/// Longest value that the file list itself carries.
pub(crate) const INLINE_MOST: usize = 32;
/// Attributes of one entry.
const COUNT_MOST: u32 = 65_536;
/// Bytes of a name, the NUL at its end included.
const NAME_MOST: u32 = 4096;
/// Bytes of a value.
const VALUE_MOST: u32 = 16 << 20;

/// The extended attributes of an entry, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct XattrSet(pub Vec<Xattr>);

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Xattr {
    /// Its name with the namespace, without a NUL.
    pub name: Vec<u8>,
    /// Its value.
    pub value: XattrValue,
}

/// A value, or what stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum XattrValue {
    /// A short value.
    Whole(Vec<u8>),
    /// The length and MD5 of a longer one.
    Digest {
        /// Bytes of the value.
        len: u32,
        /// Its MD5, without a seed.
        md5: [u8; 16],
    },
}

impl XattrValue {
    /// A value as the list carries it.
    pub fn of(value: &[u8]) -> Self {
        match value.len() {
            0..=INLINE_MOST => Self::Whole(value.to_vec()),
            len => Self::Digest { len: u32::try_from(len).unwrap_or(u32::MAX), md5: Md5::digest(value).into() },
        }
    }

    /// Whether the list leaves the value itself out.
    pub fn is_digest(&self) -> bool {
        matches!(self, Self::Digest { .. })
    }
}

impl XattrSet {
    /// The attribute of this number; they count from 1.
    pub fn get(&self, number: u32) -> Option<&Xattr> {
        self.0.get((number as usize).checked_sub(1)?)
    }

    /// Bytes of names and values held.
    pub fn bytes(&self) -> usize {
        let value = |xattr: &Xattr| if let XattrValue::Whole(value) = &xattr.value { value.len() } else { 16 };
        self.0.iter().map(|xattr| xattr.name.len() + value(xattr)).sum()
    }

    /// Reads a set that comes whole.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let mut set = Vec::new();
        for _ in 0..reader.size("number of extended attributes", COUNT_MOST)? {
            let name_len = reader.size("length of an extended attribute's name", NAME_MOST)?;
            let len = reader.size("length of an extended attribute", VALUE_MOST)?;
            let Some((0, name)) = reader.take(name_len as usize)?.split_last() else {
                return Err(PeerError::Malformed("the name of an extended attribute without its NUL").into());
            };
            if name.is_empty() || name.contains(&0) {
                return Err(PeerError::Malformed("an empty name of an extended attribute, or a NUL in it").into());
            }
            let value = match len as usize {
                0..=INLINE_MOST => XattrValue::Whole(reader.take(len as usize)?.to_vec()),
                _ => XattrValue::Digest { len, md5: reader.array()? },
            };
            set.push(Xattr { name: name.to_vec(), value });
        }
        Ok(Self(set))
    }

    /// Writes it whole.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let count = self.0.len().min(COUNT_MOST as usize);
        put_varint(out, count as i32);
        for xattr in &self.0[..count] {
            let (len, bytes) = match &xattr.value {
                XattrValue::Whole(value) => (value.len() as i32, &value[..]),
                XattrValue::Digest { len, md5 } => (i32::try_from(*len).unwrap_or(i32::MAX), &md5[..]),
            };
            put_varint(out, xattr.name.len() as i32 + 1);
            put_varint(out, len);
            out.extend_from_slice(&xattr.name);
            out.push(0);
            out.extend_from_slice(bytes);
        }
    }
}

/// What an item says about values that the list left out; attributes go by their number in the entry's set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XattrList {
    /// The generator wants these.
    Wanted(Vec<u32>),
    /// The sender gives these.
    Given(Vec<(u32, Vec<u8>)>),
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrListKind {
    /// What the generator wants.
    Wanted,
    /// What the sender gives.
    Given,
}

impl XattrList {
    /// Reads one.
    pub(crate) fn decode(reader: &mut Reader<'_>, kind: XattrListKind) -> Decoded<Self> {
        let (mut wanted, mut values) = (Vec::new(), Vec::new());
        let mut number = 0u32;
        loop {
            let step = reader.size("number of an extended attribute", COUNT_MOST)?;
            if step == 0 {
                return Ok(match kind {
                    XattrListKind::Wanted => Self::Wanted(wanted),
                    XattrListKind::Given => Self::Given(values),
                });
            }
            number += step;
            if number > COUNT_MOST {
                return Err(PeerError::Malformed("an extended attribute beyond the last").into());
            }
            match kind {
                XattrListKind::Wanted => wanted.push(number),
                XattrListKind::Given => {
                    let len = reader.size("length of an extended attribute", VALUE_MOST)?;
                    values.push((number, reader.take(len as usize)?.to_vec()));
                }
            }
        }
    }

    /// Writes it; numbers must rise.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut before = 0;
        let mut number = |out: &mut Vec<u8>, number: u32| {
            put_varint(out, number.saturating_sub(before) as i32);
            before = number;
        };
        match self {
            Self::Wanted(wanted) => wanted.iter().for_each(|&wanted| number(out, wanted)),
            Self::Given(values) => {
                for (given, value) in values {
                    number(out, *given);
                    put_varint(out, i32::try_from(value.len()).unwrap_or(i32::MAX));
                    out.extend_from_slice(value);
                }
            }
        }
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decode;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    #[test]
    fn nonsense_is_refused() {
        for wire in [
            &b"\xf0\xff\xff\xff\x7f"[..],
            b"\x01\x00\x00",
            b"\x01\x01\x00\x00",
            b"\x01\x02\x00ab",
            b"\x01\x03\x00a\0\0",
            b"\x01\x02\xf0\xff\xff\xff\x7f",
            b"\x01\x02\xf0\xff\xff\xff\xff",
        ] {
            let decoded = XattrSet::decode(&mut Reader::new(wire));
            assert!(matches!(decoded, Err(Decode::Bad(_))), "{wire:?}: {decoded:?}");
        }
    }

    proptest! {
        #[test]
        fn a_set_survives(values in btree_map(vec(1u8.., 1..40), vec(any::<u8>(), 0..80), 0..6)) {
            let xattrs = values.iter().map(|(name, value)| Xattr { name: name.clone(), value: XattrValue::of(value) });
            let set = XattrSet(xattrs.collect());
            let mut out = Vec::new();
            set.encode(&mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(XattrSet::decode(&mut reader), Ok(set.clone()));
            prop_assert_eq!(reader.position(), out.len());
            for cut in 0..out.len() {
                prop_assert_eq!(XattrSet::decode(&mut Reader::new(&out[..cut])), Err(Decode::Incomplete));
            }
            let wanted: Vec<u32> = (1..).take(set.0.len()).filter(|at| at % 2 == 0).collect();
            let given = wanted.iter().map(|&at| (at, values.values().nth(at as usize - 1).unwrap().clone())).collect();
            for (list, kind) in [(XattrList::Wanted(wanted), XattrListKind::Wanted), (XattrList::Given(given), XattrListKind::Given)] {
                let mut out = Vec::new();
                list.encode(&mut out);
                prop_assert_eq!(XattrList::decode(&mut Reader::new(&out), kind), Ok(list));
                for cut in 0..out.len() {
                    prop_assert_eq!(XattrList::decode(&mut Reader::new(&out[..cut]), kind), Err(Decode::Incomplete));
                }
            }
        }

        #[test]
        fn garbage_is_a_set_or_an_error(bytes in vec(any::<u8>(), 0..64)) {
            if let Ok(set) = XattrSet::decode(&mut Reader::new(&bytes)) {
                prop_assert!(set.bytes() <= bytes.len());
            }
            for kind in [XattrListKind::Wanted, XattrListKind::Given] {
                let _ = XattrList::decode(&mut Reader::new(&bytes), kind);
            }
        }
    }
}
