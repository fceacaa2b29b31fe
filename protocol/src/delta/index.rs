//! Where among the blocks of a table a weak sum occurs.

use crate::simd::{self, SPREAD};
use crate::sums::{BlockIndex, SumTable};

/// The filter has at most two to this power of bits: half a megabyte, which the second cache holds.
const FILTER_BITS: u32 = 22;

/// Equal blocks before the output that are asked whether they stand, the last ones first: of so many, one mostly does.
const EARLIER_MOST: usize = 64;

/// The whole blocks of a table by their sums.
///
/// Sorted by weak sum, then strong, then number, so that a look-up is a search by halves however many weak sums are
/// equal: no list of candidates to walk, and so none to cut off. A bit filter before it settles most offsets with one
/// load.
pub(super) struct Index {
    entries: Vec<IndexEntry>,
    starts: Vec<u32>, // where in `entries` each value of a key's upper bits begins; one more marks the end
    starts_shift: u32,
    filter: Vec<u64>, // a bit for each value of a key's upper bits that occurs
    filter_shift: u32,
}

#[derive(Clone, Copy)]
pub(super) struct IndexEntry {
    key: u32,
    block: u32,
}

/// A weak sum's place in the order of the index.
fn key_of(weak: u32) -> u32 {
    weak.wrapping_mul(SPREAD)
}

impl Index {
    pub(super) fn new(table: &SumTable) -> Index {
        let mut entries: Vec<IndexEntry> =
            (0..table.whole()).map(|block| IndexEntry { key: key_of(table.weak(BlockIndex(block))), block }).collect();
        entries.sort_unstable_by(|a, b| {
            let strong = |entry: &IndexEntry| table.strong(BlockIndex(entry.block));
            a.key.cmp(&b.key).then_with(|| strong(a).cmp(strong(b))).then(a.block.cmp(&b.block))
        });
        // About one entry for each start, and 128 to 256 filter bits for each entry while the filter may grow.
        let bits = (entries.len() as u32).max(256).ilog2().min(26);
        let starts_shift = 32 - bits;
        let mut starts = vec![0u32; (1 << bits) + 1];
        let filter_shift = 32 - (bits + 8).min(FILTER_BITS);
        let mut filter = vec![0u64; 1 << (32 - filter_shift - 6)];
        for entry in &entries {
            starts[(entry.key >> starts_shift) as usize + 1] += 1;
            let place = entry.key >> filter_shift;
            filter[(place >> 6) as usize] |= 1 << (place & 63);
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        Index { entries, starts, starts_shift, filter, filter_shift }
    }

    /// The first of these weak sums that may be in the index.
    pub(super) fn probe(&self, sums: &[u32]) -> Option<usize> {
        simd::first_hit(&self.filter, self.filter_shift, sums)
    }

    /// The entries of one weak sum.
    pub(super) fn alike(&self, weak: u32) -> &[IndexEntry] {
        let key = key_of(weak);
        let slot = (key >> self.starts_shift) as usize;
        let near = &self.entries[self.starts[slot] as usize..self.starts[slot + 1] as usize];
        let from = &near[near.partition_point(|entry| entry.key < key)..];
        &from[..from.partition_point(|entry| entry.key == key)]
    }

    /// Among entries of one weak sum: the first block of that strong sum, from block `first` on; or else one before it
    /// that still `stands`.
    pub(super) fn find(
        &self,
        alike: &[IndexEntry],
        table: &SumTable,
        strong: &[u8],
        first: u32,
        stands: impl Fn(BlockIndex) -> bool,
    ) -> Option<BlockIndex> {
        let equal = |entry: &&IndexEntry| table.strong(BlockIndex(entry.block)) == strong;
        let before = |entry: &IndexEntry| (table.strong(BlockIndex(entry.block)), entry.block) < (strong, first);
        let place = alike.partition_point(before);
        if let Some(entry) = alike.get(place).filter(equal) {
            return Some(BlockIndex(entry.block));
        }
        let earlier = alike[..place].iter().rev().take(EARLIER_MOST).take_while(equal);
        earlier.map(|entry| BlockIndex(entry.block)).find(|&block| stands(block))
    }
}
