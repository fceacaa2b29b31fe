//! Signature files: a magic number, the block length, the length of strong sums, then both sums of each block.

use super::{Input, PIECE, RdiffError, fill};
use protocol::checksum::{BlockRule, SignatureSum, Sum, Weak};
use protocol::sums::SumTable;
use std::io::{Read, Write};

/// The longest block we take, bytes: three of them may be held in memory. It is what a basis of 4 PiB is given unasked.
const BLOCK_MOST: u32 = 64 << 20;
/// The most blocks we take, so that a search needs at most some 2 GiB for them.
const BLOCKS_MOST: u32 = 1 << 25;
/// Block length where the basis' length is not known, bytes.
const BLOCK_UNKNOWN: u32 = 2048;
/// The shortest block that is chosen unasked, bytes.
const BLOCK_LEAST: u64 = 256;
/// Bytes of strong sum that are enough for any basis.
const STRONG_ENOUGH: u32 = 12;

/// Which sums a signature has, and of how long blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    weak: Weak,
    strong: SignatureSum,
    block_length: u32,
    strong_length: u32,
}

impl Cut {
    /// A cut for a basis of `len` bytes, if that is known.
    ///
    /// `block_length` 0 chooses one near the root of `len`. `strong_length` 0 takes the whole sum, and -1 as little as is
    /// safe. The error names the limits.
    pub(crate) fn new(
        weak: Weak,
        strong: SignatureSum,
        block_length: u32,
        strong_length: i32,
        len: Option<u64>,
    ) -> Result<Cut, String> {
        let block_length = match (block_length, len) {
            (0, None) => BLOCK_UNKNOWN,
            (0, Some(len)) => (len.isqrt() / 128 * 128).clamp(BLOCK_LEAST, BLOCK_MOST.into()) as u32,
            (chosen, _) => chosen,
        };
        let strong_length = match strong_length {
            0 => strong.size() as u32,
            -1 => len.map_or(STRONG_ENOUGH, |len| least_strong(len, block_length)).min(strong.size() as u32),
            chosen => u32::try_from(chosen).unwrap_or(0),
        };
        Cut { weak, strong, block_length, strong_length }.checked()
    }

    fn checked(self) -> Result<Cut, String> {
        if !(1..=BLOCK_MOST).contains(&self.block_length) {
            return Err(format!("a block length of {} bytes, where 1 to {BLOCK_MOST} is possible", self.block_length));
        }
        let longest = self.strong.size() as u32;
        if !(1..=longest).contains(&self.strong_length) {
            return Err(format!("strong sums of {} bytes, where 1 to {longest} is possible", self.strong_length));
        }
        Ok(self)
    }

    /// Length of a block, bytes.
    pub(crate) fn block_length(&self) -> u32 {
        self.block_length
    }

    fn rule(&self) -> BlockRule {
        BlockRule::Signature(self.weak, self.strong)
    }

    fn header(&self) -> [u8; 12] {
        let family: u32 = match self.weak {
            Weak::RabinKarp => 0x7273_0140,
            _ => 0x7273_0130,
        };
        let magic = family | if self.strong == SignatureSum::Md4 { 6 } else { 7 };
        let mut bytes = [0; 12];
        for (place, field) in bytes.chunks_exact_mut(4).zip([magic, self.block_length, self.strong_length]) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8; 12]) -> Result<Cut, String> {
        let field = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (weak, strong) = match field(0) {
            0x7273_0136 => (Weak::Rollsum, SignatureSum::Md4),
            0x7273_0137 => (Weak::Rollsum, SignatureSum::Blake2),
            0x7273_0146 => (Weak::RabinKarp, SignatureSum::Md4),
            0x7273_0147 => (Weak::RabinKarp, SignatureSum::Blake2),
            0x7273_0236 => return Err("it is a delta; give the signature first".into()),
            other => return Err(format!("it begins with {other:#010x}, as no signature does")),
        };
        Cut { weak, strong, block_length: field(4), strong_length: field(8) }.checked()
    }
}

/// As few bytes of strong sum as make a false match unlikely: with as many bits as it takes to count all pairs of an
/// offset in a new file, of 16 MiB at least, and a block, and 16 more.
fn least_strong(len: u64, block_length: u32) -> u32 {
    let offsets = len.saturating_add(1 << 24).ilog2();
    let blocks = (len / u64::from(block_length.max(1)) + 1).ilog2();
    2 + (offsets + blocks).div_ceil(8)
}

/// Writes the signature of a basis; returns the number of its blocks.
pub(crate) fn write_signature(basis: &mut impl Read, cut: &Cut, out: &mut impl Write) -> Result<u64, RdiffError> {
    let block_length = cut.block_length as usize;
    out.write_all(&cut.header()).map_err(RdiffError::Write)?;
    // Sixteen blocks are summed at once where that is fastest, and short.
    let together = if block_length <= PIECE { (PIECE / block_length).max(16) } else { 1 };
    let mut buffer = vec![0; together * block_length];
    let mut count = 0;
    let rule = cut.rule();
    loop {
        let len = fill(basis, &mut buffer).map_err(|error| RdiffError::Read(Input::Basis, error))?;
        let write = |block: &[u8], strong: &Sum| {
            count += 1;
            out.write_all(&rule.rolling(block).value().to_be_bytes())?;
            out.write_all(&strong.as_bytes()[..cut.strong_length as usize])
        };
        rule.strong_each(&buffer[..len], block_length, write).map_err(RdiffError::Write)?;
        if len < buffer.len() {
            return out.flush().map_err(RdiffError::Write).map(|()| count);
        }
    }
}

/// A signature in memory: what a search needs.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(super) table: SumTable,
    /// How those were made.
    pub(super) rule: BlockRule,
}

impl Signature {
    /// Reads a signature to its end. Memory grows with what really comes, some 60 bytes a block.
    pub(crate) fn read(input: &mut impl Read) -> Result<Signature, RdiffError> {
        let failed = |error| RdiffError::Read(Input::Signature, error);
        let corrupt = |why: String| RdiffError::Corrupt(Input::Signature, why);
        let mut header = [0; 12];
        if fill(input, &mut header).map_err(failed)? < header.len() {
            return Err(corrupt("it ends in its first 12 bytes".into()));
        }
        let cut = Cut::read(&header).map_err(corrupt)?;
        let mut table = SumTable::open_ended(cut.block_length, cut.strong_length);
        let mut entry = [0; 36];
        let entry = &mut entry[..4 + cut.strong_length as usize];
        loop {
            match fill(input, entry).map_err(failed)? {
                0 => return Ok(Signature { table, rule: cut.rule() }),
                n if n < entry.len() => return Err(corrupt("it ends in the middle of a block's sums".into())),
                _ if table.kept() == BLOCKS_MOST => {
                    return Err(corrupt(format!("it has more than {BLOCKS_MOST} blocks; make it with longer blocks")));
                }
                _ => table.append(u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]), &entry[4..]),
            }
        }
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.table.kept()
    }

    /// Length of a block, bytes.
    pub(crate) fn block_length(&self) -> u32 {
        self.table.head().block_length
    }
}
