use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn head(count: u32, block_length: u32, strong_length: u32, remainder: u32) -> SumHead {
    SumHead { count, block_length, strong_length, remainder }
}

#[test]
fn stock_cuts_of_a_basis() {
    // Length, block length, strong length, remainder, count: from stock's generator with a 16-byte digest.
    let table = [
        (1, 700, 2, 1, 1),
        (699, 700, 2, 699, 1),
        (700, 700, 2, 0, 1),
        (701, 700, 2, 1, 2),
        (4_000, 700, 2, 500, 6),
        (490_000, 700, 2, 0, 700),
        (490_001, 700, 2, 1, 701),
        (1_000_000, 1_000, 2, 0, 1_000),
        (3_000_000, 1_728, 2, 192, 1_737),
        (100_000_000, 10_000, 3, 0, 10_000),
        (10_000_000_000, 100_000, 4, 0, 100_000),
        (1_000_000_000_000, 131_072, 5, 69_632, 7_629_395),
    ];
    for (len, block_length, strong_length, remainder, count) in table {
        let expected = head(count, block_length, strong_length, remainder);
        assert_eq!(SumHead::for_basis(len, 16, StrongSums::Short, None), expected, "{len}");
        assert_eq!(expected.basis_len(), len);
        assert_eq!(SumHead::for_basis(len, 16, StrongSums::Whole, None), SumHead { strong_length: 16, ..expected });
    }
}

#[test]
fn strong_length_never_exceeds_the_digest() {
    for (digest_size, full) in [(1, 1), (8, 8), (16, 16), (20, 16), (32, 16)] {
        assert_eq!(SumHead::for_basis(5000, digest_size, StrongSums::Whole, None).strong_length, full);
        assert!(SumHead::for_basis(1 << 50, digest_size, StrongSums::Short, None).strong_length <= full);
    }
}

#[test]
fn an_empty_or_unspeakably_long_basis_has_no_blocks() {
    assert_eq!(SumHead::for_basis(0, 16, StrongSums::Short, None), SumHead::NONE);
    assert_eq!(SumHead::NONE, SumHead::default());
    assert_eq!(SumHead::NONE.encode(), [0; 16]);
    assert_eq!(SumHead::NONE.basis_len(), 0);
    assert_eq!(SumHead::for_basis(u64::MAX, 16, StrongSums::Short, None), SumHead::NONE);
    assert_eq!(SumHead::for_basis(i32::MAX as u64, 16, StrongSums::Short, Some(1)).count, i32::MAX as u32);
    assert_eq!(SumHead::for_basis(i32::MAX as u64 + 1, 16, StrongSums::Short, Some(1)), SumHead::NONE);
}

#[test]
fn the_user_may_choose_the_block_length() {
    assert_eq!(SumHead::for_basis(10_000, 16, StrongSums::Short, Some(4096)), head(3, 4096, 2, 1808));
    assert_eq!(SumHead::for_basis(10, 16, StrongSums::Short, Some(0)).block_length, 1);
    assert_eq!(SumHead::for_basis(10, 16, StrongSums::Short, Some(u32::MAX)).block_length, 131_072);
}

#[test]
fn hostile_heads_are_refused() {
    let wire = |fields: [i32; 4]| {
        let mut bytes = [0; 16];
        bytes.chunks_exact_mut(4).zip(fields).for_each(|(place, n)| place.copy_from_slice(&n.to_le_bytes()));
        bytes
    };
    let refused = |fields, digest_size| match SumHead::decode(&wire(fields), digest_size) {
        Err(PeerError::Range { what, .. }) => what,
        other => panic!("{fields:?} gave {other:?}"),
    };
    assert_eq!(refused([-1, 700, 2, 0], 16), "block count");
    assert_eq!(refused([i32::MIN, 700, 2, 0], 16), "block count");
    assert_eq!(refused([1, 0, 2, 0], 16), "block length");
    assert_eq!(refused([1, -1, 2, 0], 16), "block length");
    assert_eq!(refused([1, 131_073, 2, 0], 16), "block length");
    assert_eq!(refused([0, 131_073, 2, 0], 16), "block length");
    assert_eq!(refused([1, 700, 17, 0], 16), "strong sum length");
    assert_eq!(refused([1, 700, 17, 0], 8), "strong sum length");
    assert_eq!(refused([1, 700, -1, 0], 16), "strong sum length");
    assert_eq!(refused([1, 700, 33, 0], 32), "strong sum length");
    assert_eq!(refused([1, 700, 2, 701], 16), "remainder");
    assert_eq!(refused([1, 700, 2, -1], 16), "remainder");
    assert_eq!(refused([0, 0, 0, 1], 16), "remainder");

    let legal =
        [([0, 0, 0, 0], 16), ([i32::MAX, 131_072, 16, 131_072], 8), ([1, 1, 20, 1], 20), ([6, 700, 2, 500], 16)];
    for (fields, digest_size) in legal {
        let head = SumHead::decode(&wire(fields), digest_size).unwrap();
        assert_eq!(head.encode(), wire(fields));
    }
}

#[test]
fn blocks_lie_end_to_end() {
    let h = head(6, 700, 2, 500);
    assert_eq!((0..7).map(|i| h.block_len(BlockIndex(i))).collect::<Vec<_>>(), [700, 700, 700, 700, 700, 500, 0]);
    assert_eq!(h.offset(BlockIndex(5)), 3500);
    assert_eq!(h.basis_len(), 4000);
    let huge = head(u32::MAX, u32::MAX, 16, u32::MAX);
    assert_eq!(huge.basis_len(), u64::from(u32::MAX) * u64::from(u32::MAX));
    assert_eq!(huge.offset(BlockIndex(u32::MAX)), u64::from(u32::MAX) * u64::from(u32::MAX));
}

#[test]
fn a_table_keeps_the_digests_own_bytes() {
    let mut table = SumTable::new(head(2, 700, 16, 0), 8, 100);
    assert!(table.is_empty());
    table.push(1, b"ABCDEFGH________");
    assert_eq!(table.remaining(), 1);
    table.push(2, b"IJKLMNOP________");
    assert_eq!((table.remaining(), table.kept(), table.is_empty()), (0, 2, false));
    assert_eq!(table.strong(BlockIndex(0)), b"ABCDEFGH");
    assert_eq!(table.strong(BlockIndex(1)), b"IJKLMNOP");
    assert_eq!(table.weak(BlockIndex(1)), 2);
    table.push(3, &[0; 16]);
    assert_eq!((table.remaining(), table.kept()), (0, 2));
}

#[test]
fn a_table_too_large_is_counted_but_not_kept() {
    let mut table = SumTable::new(head(3, 700, 2, 0), 16, 2);
    (0..3).for_each(|i| table.push(i, b"xy"));
    assert_eq!((table.remaining(), table.kept(), table.is_empty()), (0, 0, true));
    let mut weak_only = SumTable::new(head(1, 700, 0, 0), 16, 2);
    weak_only.push(1, b"");
    assert!(weak_only.is_empty());
}

#[test]
fn an_announced_table_takes_no_memory_before_it_comes() {
    let table = SumTable::new(head(i32::MAX as u32, 700, 16, 0), 16, u32::MAX);
    assert_eq!(table.weak.capacity() + table.strong.capacity(), 0);
    assert_eq!(table.remaining(), i32::MAX as u32);
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(2), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_covers_the_basis_and_survives_the_wire(
        bits in 0u32..64, low in any::<u64>(), digest in 1usize..33, full: bool, chosen in prop::option::of(any::<u32>()),
    ) {
        let len = (1u64 << bits) | (low & ((1u64 << bits) - 1));
        let strong = if full { StrongSums::Whole } else { StrongSums::Short };
        let h = SumHead::for_basis(len, digest, strong, chosen);
        prop_assert_eq!(SumHead::decode(&h.encode(), digest), Ok(h));
        if h != SumHead::NONE {
            prop_assert_eq!(h.basis_len(), len);
            prop_assert!(h.strong_length as usize <= digest && h.remainder < h.block_length);
        }
    }

    #[test]
    fn decoding_never_panics(bytes: [u8; 16], digest in 1usize..33) {
        if let Ok(h) = SumHead::decode(&bytes, digest) {
            prop_assert_eq!(h.encode(), bytes);
            prop_assert!(h.basis_len() <= h.count as u64 * h.block_length as u64);
        }
    }
}
