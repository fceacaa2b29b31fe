//! Integers and strings as the wire carries them. Counterpart: rsync's `io.c`.
//!
//! Decoders are straight-line functions over a [`Reader`]. Running out of bytes is an ordinary value,
//! [`Decode::Incomplete`]: the item is tried again when more has come.

use crate::PeerError;

/// Why an item could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decode {
    /// More bytes are needed; nothing was consumed.
    Incomplete,
    /// The bytes are wrong.
    Bad(PeerError),
}

impl From<PeerError> for Decode {
    fn from(error: PeerError) -> Self {
        Self::Bad(error)
    }
}

/// What a decoder gives.
pub type Decoded<T> = Result<T, Decode>;

/// A cursor over bytes that have arrived.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been taken.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The bytes that have not been taken.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Decoded<&'a [u8]> {
        let taken = self.rest().get(..n).ok_or(Decode::Incomplete)?;
        self.at += n;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub(crate) fn byte(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian 16-bit number.
    pub(crate) fn short(&mut self) -> Decoded<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A little-endian signed 32-bit number.
    pub fn int(&mut self) -> Decoded<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// A little-endian unsigned 32-bit number.
    pub fn uint(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A 32-bit number in 1 to 5 bytes (rsync: `read_varint`).
    pub fn varint(&mut self) -> Decoded<i32> {
        let first = self.byte()?;
        let extra = extra_bytes(first);
        if extra > 4 {
            return Err(PeerError::Malformed("a varint of more than five bytes").into());
        }
        let mut bytes = [0; 8];
        bytes[..extra].copy_from_slice(self.take(extra)?);
        bytes[extra] = payload_bits(first, extra);
        Ok(u64::from_le_bytes(bytes) as u32 as i32)
    }

    /// A varint that may not be negative.
    pub fn size(&mut self, what: &'static str, most: u32) -> Decoded<u32> {
        within(what, self.varint()?, most)
    }

    /// A 64-bit number in `min` to 9 bytes (rsync: `read_varlong`).
    pub(crate) fn varlong(&mut self, min: usize) -> Decoded<i64> {
        let first = self.byte()?;
        let extra = extra_bytes(first);
        let rest = min - 1 + extra;
        if rest > 8 {
            return Err(PeerError::Malformed("a varlong of more than nine bytes").into());
        }
        let mut bytes = [0; 9];
        bytes[..rest].copy_from_slice(self.take(rest)?);
        bytes[rest] = payload_bits(first, extra);
        let mut low = [0; 8];
        low.copy_from_slice(&bytes[..8]);
        Ok(i64::from_le_bytes(low))
    }

    /// A string with its length in one or two bytes before it.
    pub fn vstring(&mut self) -> Decoded<&'a [u8]> {
        let mut len = usize::from(self.byte()?);
        if len & 0x80 != 0 {
            len = (len & 0x7f) << 8 | usize::from(self.byte()?);
        }
        self.take(len)
    }
}

/// How many bytes follow the first one of a varint or varlong, beyond the minimum.
fn extra_bytes(first: u8) -> usize {
    match first >> 2 {
        0x00..=0x1f => 0,
        0x20..=0x2f => 1,
        0x30..=0x37 => 2,
        0x38..=0x3b => 3,
        0x3c..=0x3d => 4,
        0x3e => 5,
        _ => 6,
    }
}

fn payload_bits(first: u8, extra: usize) -> u8 {
    if extra == 0 { first } else { first & ((1u16 << (8 - extra)) - 1) as u8 }
}

/// Appends a varint (rsync: `write_varint`).
pub fn put_varint(out: &mut Vec<u8>, value: i32) {
    let bytes = value.to_le_bytes();
    let mut n = 4;
    while n > 1 && bytes[n - 1] == 0 {
        n -= 1;
    }
    let top = bytes[n - 1];
    if u16::from(top) < 1 << (8 - n) {
        out.push((0xff00u16 >> (n - 1)) as u8 | top);
        out.extend_from_slice(&bytes[..n - 1]);
    } else {
        out.push((0xff00u16 >> n) as u8);
        out.extend_from_slice(&bytes[..n]);
    }
}

/// Appends a varlong of at least `min` bytes (rsync: `write_varlong`).
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64, min: usize) {
    let bytes = value.to_le_bytes();
    let mut n = 8;
    while n > min && bytes[n - 1] == 0 {
        n -= 1;
    }
    let top = bytes[n - 1];
    if u16::from(top) >= 1 << (7 + min - n) {
        out.push((0xff00u16 >> (n + 1 - min)) as u8);
        out.extend_from_slice(&bytes[..n]);
    } else {
        let prefix = if n > min { (0xff00u16 >> (n - min)) as u8 } else { 0 };
        out.push(prefix | top);
        out.extend_from_slice(&bytes[..n - 1]);
    }
}

/// Appends a string with its length before it; cut at 32,767 bytes, which no caller reaches.
pub(crate) fn put_vstring(out: &mut Vec<u8>, string: &[u8]) {
    let string = &string[..string.len().min(0x7fff)];
    match u8::try_from(string.len()) {
        Ok(len) if len < 0x80 => out.push(len),
        _ => out.extend_from_slice(&[0x80 | (string.len() >> 8) as u8, string.len() as u8]),
    }
    out.extend_from_slice(string);
}

/// How a session writes its numbers: in 4 bytes, or 12 where they are large, before protocol 30; in as few as they need
/// from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ints {
    /// Before protocol 30.
    Fixed,
    /// From protocol 30 on.
    #[default]
    Packed,
}

impl Ints {
    /// As a protocol version has them.
    pub fn of(version: u8) -> Self {
        if version < 30 { Self::Fixed } else { Self::Packed }
    }

    /// Reads a 32-bit number.
    pub fn int(self, reader: &mut Reader<'_>) -> Decoded<i32> {
        match self {
            Self::Fixed => reader.int(),
            Self::Packed => reader.varint(),
        }
    }

    /// Reads a 32-bit number that may not be negative.
    pub fn size(self, reader: &mut Reader<'_>, what: &'static str, most: u32) -> Decoded<u32> {
        within(what, self.int(reader)?, most)
    }

    /// Reads a 64-bit number, of at least `min` bytes where it is packed (rsync: `read_longint`).
    pub fn long(self, reader: &mut Reader<'_>, min: usize) -> Decoded<i64> {
        match self {
            Self::Packed => reader.varlong(min),
            Self::Fixed => match reader.int()? {
                -1 => Ok(i64::from_le_bytes(reader.array()?)),
                small => Ok(small.into()),
            },
        }
    }

    /// Writes a 32-bit number.
    pub(crate) fn put_int(self, out: &mut Vec<u8>, value: i32) {
        match self {
            Self::Fixed => out.extend_from_slice(&value.to_le_bytes()),
            Self::Packed => put_varint(out, value),
        }
    }

    /// Writes a 64-bit number, in at least `min` bytes where it is packed.
    pub(crate) fn put_long(self, out: &mut Vec<u8>, value: i64, min: usize) {
        match (self, i32::try_from(value)) {
            (Self::Packed, _) => put_varlong(out, value, min),
            (Self::Fixed, Ok(small @ 0..)) => out.extend_from_slice(&small.to_le_bytes()),
            (Self::Fixed, _) => {
                out.extend_from_slice(&[0xff; 4]);
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
}

fn within(what: &'static str, value: i32, most: u32) -> Decoded<u32> {
    u32::try_from(value).ok().filter(|&size| size <= most).ok_or_else(|| {
        PeerError::Range { what, value: value.into(), expected: "a size within the protocol's limits" }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As the specification has them; -1 would be the mark of a long one.
    #[test]
    fn fixed_numbers() {
        for (value, wire) in [
            (0, "00000000"),
            (0x7fff_ffff, "ffffff7f"),
            (0x8000_0000, "ffffffff0000008000000000"),
            (5 << 30, "ffffffff0000004001000000"),
            (-1, "ffffffffffffffffffffffff"),
        ] {
            let mut out = Vec::new();
            Ints::Fixed.put_long(&mut out, value, 3);
            assert_eq!(hex(&out), wire, "{value}");
            assert_eq!(Ints::Fixed.long(&mut Reader::new(&out), 3), Ok(value));
            assert_eq!(Ints::Fixed.long(&mut Reader::new(&out[..out.len() - 1]), 3), Err(Decode::Incomplete));
        }
        assert_eq!(Ints::Fixed.size(&mut Reader::new(&[5, 0, 0, 0]), "it", 5), Ok(5));
        for bad in [[6, 0, 0, 0], [0xff; 4]] {
            assert!(matches!(Ints::Fixed.size(&mut Reader::new(&bad), "it", 5), Err(Decode::Bad(_))));
        }
        assert_eq!((Ints::of(29), Ints::of(30)), (Ints::Fixed, Ints::Packed));
    }

    #[test]
    fn varint_vectors() {
        for (value, wire) in [
            (0, "00"),
            (1, "01"),
            (127, "7f"),
            (128, "8080"),
            (255, "80ff"),
            (256, "8100"),
            (0x1ff, "81ff"),
            (16383, "bfff"),
            (16384, "c00040"),
            (65534, "c0feff"),
            (2097151, "dfffff"),
            (2097152, "e0000020"),
            (123456789, "e715cd5b"),
            (268435456, "f000000010"),
            (2147483647, "f0ffffff7f"),
            (-1, "f0ffffffff"),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(hex(&out), wire, "{value}");
            assert_eq!(Reader::new(&out).varint(), Ok(value));
        }
    }

    #[test]
    fn varlong_vectors() {
        for (value, min, wire) in [
            (0, 3, "000000"),
            (1, 3, "000100"),
            (1500, 3, "00dc05"),
            (65535, 3, "00ffff"),
            (0x7fffff, 3, "7fffff"),
            (0x800000, 3, "80000080"),
            (1 << 31, 3, "c000000080"),
            (1 << 32, 3, "c100000000"),
            (1 << 40, 3, "e10000000000"),
            (i64::MAX, 3, "fcffffffffffffff7f"),
            (1700000000, 4, "6500f153"),
            (-315360000, 4, "f800fd33edffffffff"),
            (2147483648, 4, "8000000080"),
            (5000000000, 4, "8100f2052a"),
        ] {
            let mut out = Vec::new();
            put_varlong(&mut out, value, min);
            assert_eq!(hex(&out), wire, "{value}");
            assert_eq!(Reader::new(&out).varlong(min), Ok(value));
        }
    }

    #[test]
    fn overlong_numbers_are_refused() {
        assert!(matches!(Reader::new(&[0xf8; 9]).varint(), Err(Decode::Bad(_))));
        assert!(matches!(Reader::new(&[0xff; 12]).varlong(4), Err(Decode::Bad(_))));
    }

    proptest! {
        #[test]
        fn numbers_survive(value: i32, long: i64, min in 3usize..5, string in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_varlong(&mut out, long, min);
            put_vstring(&mut out, &string);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.varlong(min), Ok(long));
            prop_assert_eq!(reader.vstring(), Ok(&string[..]));
            prop_assert_eq!(reader.position(), out.len());
            for cut in 0..out.len() {
                let mut reader = Reader::new(&out[..cut]);
                let all = reader.varint().and_then(|_| reader.varlong(min)).and_then(|_| reader.vstring());
                prop_assert_eq!(all, Err(Decode::Incomplete));
            }
        }
    }
}
