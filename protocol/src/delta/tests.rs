use std::convert::Infallible;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::checksum::{BlockSeed, Checksum};
use crate::sums::{StrongSums, SumHead};

const SEED: BlockSeed = BlockSeed { checksum: Checksum::Xxh128, seed: 77, seed_first: true };

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Copy(u32),
}
use Piece::{Copy, Literal};

fn table_of(basis: &[u8], block_length: u32) -> SumTable {
    let head = SumHead::for_basis(basis.len() as u64, 16, StrongSums::Whole, Some(block_length));
    let mut table = SumTable::new(head, 16, u32::MAX);
    for block in basis.chunks(block_length as usize) {
        table.push(Rolling::new(block).value(), &SEED.sum(block).as_bytes()[..head.strong_length as usize]);
    }
    assert_eq!(table.remaining(), 0);
    table
}

/// Numbers that look random and are the same every time.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn run<'a>(mut search: Search<'_>, pushes: impl IntoIterator<Item = &'a [u8]>) -> Vec<Piece> {
    let mut tokens = Vec::new();
    let mut emit = |token: Token<'_>| {
        tokens.push(match token {
            Token::Literal(bytes) => Literal(bytes.to_vec()),
            Token::Copy(block, _) => Copy(block.0),
        });
        Ok::<_, Infallible>(())
    };
    for bytes in pushes {
        let Ok(()) = search.push(bytes, &mut emit);
    }
    let Ok(()) = search.finish(&mut emit);
    tokens
}

fn tokens(source: &[u8], table: &SumTable) -> Vec<Piece> {
    run(Search::new(table, SEED), [source])
}

fn block(basis: &[u8], head: SumHead, index: u32) -> &[u8] {
    let from = head.offset(BlockIndex(index)) as usize;
    &basis[from..from + head.block_len(BlockIndex(index)) as usize]
}

fn apply(basis: &[u8], head: SumHead, tokens: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    for token in tokens {
        match token {
            Literal(bytes) => out.extend(bytes),
            Copy(index) => out.extend(block(basis, head, *index)),
        }
    }
    out
}

/// As a receiver does that writes over its only copy.
fn apply_in_place(basis: &[u8], head: SumHead, tokens: &[Piece]) -> Vec<u8> {
    let mut file = basis.to_vec();
    let mut at = 0;
    for token in tokens {
        let bytes = match token {
            Literal(bytes) => bytes.clone(),
            Copy(index) => block(&file, head, *index).to_vec(),
        };
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        at += bytes.len();
    }
    file.truncate(at);
    file
}

/// Neighbouring literals as one.
fn joined(tokens: &[Piece]) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for token in tokens {
        match (joined.last_mut(), token) {
            (Some(Literal(before)), Literal(bytes)) => before.extend(bytes),
            _ => joined.push(token.clone()),
        }
    }
    joined
}

fn literal_bytes(tokens: &[Piece]) -> usize {
    tokens.iter().map(|token| if let Literal(bytes) = token { bytes.len() } else { 0 }).sum()
}

#[test]
fn an_unchanged_file_is_all_copies_in_order() {
    for (len, block_length) in [(1, 700), (699, 700), (700, 700), (701, 700), (100_000, 700), (300_000, 131_072)] {
        let basis = noise(len, 1);
        let table = table_of(&basis, block_length);
        assert_eq!(tokens(&basis, &table), (0..table.head().count).map(Copy).collect::<Vec<_>>(), "{len}");
    }
}

#[test]
fn a_change_costs_its_own_blocks_only() {
    let basis = noise(1_000_000, 2);
    let table = table_of(&basis, 1000);
    let mut source = basis.clone();
    source.splice(500_300..500_300, noise(37, 3));
    let found = tokens(&source, &table);
    assert_eq!(apply(&basis, table.head(), &found), source);
    assert_eq!(literal_bytes(&found), 1037);

    source.drain(100_000..100_001);
    source[777_777] ^= 1;
    let found = tokens(&source, &table);
    assert_eq!(apply(&basis, table.head(), &found), source);
    assert_eq!(literal_bytes(&found), 1037 + 999 + 1000);
}

#[test]
fn an_empty_table_lends_the_input_in_pieces() {
    let source = noise(100_000, 4);
    let not_kept = SumTable::new(SumHead::for_basis(1_000_000, 16, StrongSums::Short, None), 16, 10);
    for table in [SumTable::new(SumHead::NONE, 16, 10), not_kept] {
        let mut search = Search::new(&table, SEED);
        let mut lent = Vec::new();
        let Ok(()) = search.push(&source, |token| {
            match token {
                Token::Literal(bytes) => lent.push((bytes.as_ptr() as usize - source.as_ptr() as usize, bytes.len())),
                Token::Copy(block, _) => panic!("{block:?} of an empty table"),
            }
            Ok::<_, Infallible>(())
        });
        assert_eq!(lent, [(0, 32_768), (32_768, 32_768), (65_536, 32_768), (98_304, 1_696)]);
        let Ok(()) = search.finish(|token| -> Result<(), Infallible> { panic!("{token:?} after everything") });
    }
}

#[test]
fn without_a_checksum_nothing_matches() {
    // One zero byte is every block's strong sum, so the weak sum alone would decide.
    let basis = noise(5000, 5);
    let mut table = SumTable::new(SumHead::for_basis(5000, 1, StrongSums::Short, Some(700)), 1, 10);
    basis.chunks(700).for_each(|block| table.push(Rolling::new(block).value(), &[0]));
    let seed = BlockSeed::new(Checksum::None, 0, true);
    assert_eq!(run(Search::new(&table, seed), [&basis[..]]), [Literal(basis.clone())]);
}

#[test]
fn an_empty_source_is_no_token() {
    assert_eq!(tokens(&[], &table_of(b"basis", 700)), []);
    assert_eq!(tokens(&[], &SumTable::new(SumHead::NONE, 16, 0)), []);
}

#[test]
fn pushes_decide_only_where_literals_are_cut() {
    let basis = noise(5000, 6);
    let table = table_of(&basis, 700);
    let source = [&noise(500_000, 7)[..], &basis, &noise(100_000, 8)].concat();
    let whole = tokens(&source, &table);
    assert!(
        whole.iter().all(|token| matches!(token, Copy(_)) || matches!(token, Literal(bytes) if bytes.len() <= 32_768))
    );
    assert_eq!(apply(&basis, table.head(), &whole), source);
    for piece in [1, 699, 32_768, 300_000] {
        let pushed = run(Search::new(&table, SEED), source.chunks(piece));
        assert_eq!(joined(&pushed), joined(&whole), "pushes of {piece}");
    }
}

#[test]
fn the_carry_stays_small() {
    let basis = noise(3_000_000, 8);
    let table = table_of(&basis, 131_072);
    let mut source = noise(3_000_000, 9);
    source.extend(&basis);
    let mut search = Search::new(&table, SEED);
    for bytes in source.chunks(1_000_000) {
        let Ok(()) = search.push(bytes, |_| Ok::<_, Infallible>(()));
        assert!(search.carry.capacity() <= 3 * 131_072);
    }
}

#[test]
fn the_short_last_block_matches_only_at_the_end() {
    let basis = noise(1500, 10);
    let table = table_of(&basis, 700);
    let tail = &basis[1400..];
    assert_eq!(tokens(tail, &table), [Copy(2)]);
    assert_eq!(tokens(&[b"new", tail].concat(), &table), [Literal(b"new".to_vec()), Copy(2)]);
    assert_eq!(tokens(&[tail, &basis[..700]].concat(), &table), [Literal(tail.to_vec()), Copy(0)]);
    assert_eq!(tokens(&[&basis[..700], tail].concat(), &table), [Copy(0), Copy(2)]);
    assert_eq!(tokens(&[tail, b"!"].concat(), &table), [Literal([tail, b"!"].concat())]);
}

#[test]
fn the_block_after_the_last_match_comes_first() {
    let (a, b) = (noise(700, 11), noise(700, 12));
    let basis = [&a[..], &a, &b, &a, &a].concat();
    let table = table_of(&basis, 700);
    assert_eq!(tokens(&basis, &table), [0, 1, 2, 3, 4].map(Copy));
    assert_eq!(tokens(&[&b[..], b"x", &a, &a, &a].concat(), &table)[2..], [3, 4, 0].map(Copy));
}

#[test]
fn many_equal_blocks_cost_no_more_than_different_ones() {
    let basis = vec![0; 400_000];
    let table = table_of(&basis, 4);
    assert_eq!(tokens(&basis, &table), (0..100_000).map(Copy).collect::<Vec<_>>());
    let mut source = vec![1];
    source.extend(&basis);
    let found = tokens(&source, &table);
    assert_eq!(found[0], Literal(vec![1]));
    assert_eq!(found.len(), 100_001);
    let in_place = run(Search::new(&table, SEED).in_place(), [&source[..]]);
    assert_eq!(apply_in_place(&basis, table.head(), &in_place), source);
    assert!(literal_bytes(&in_place) < 10, "{} literal bytes", literal_bytes(&in_place));
}

#[test]
fn weak_sums_that_fit_everywhere_and_prove_nothing_are_given_up() {
    // A peer that wants our time: every block has the weak sum of zeros, and a strong sum that fits nothing.
    for (checksum, block_length) in [(Checksum::Md5, 131_072), (Checksum::Xxh128, 700), (Checksum::Md5, 1)] {
        let head = SumHead { count: 20_000, block_length, strong_length: 16, remainder: 0 };
        let mut table = SumTable::new(head, 16, u32::MAX);
        (0..20_000u128).for_each(|i| table.push(0, &(i / 2).to_be_bytes()));
        let source = vec![0; 1_000_000];
        let mut search = Search::new(&table, BlockSeed::new(checksum, 5, true));
        let mut literal = 0;
        let Ok(()) = search.push(&source, |token| {
            match token {
                Token::Literal(bytes) => literal += bytes.len(),
                Token::Copy(block, _) => panic!("{block:?} was found"),
            }
            Ok::<_, Infallible>(())
        });
        assert_eq!(literal, 1_000_000 - block_length as usize);
        let allowed = VAIN_ALLOWED + VAIN_PER_BYTE * 1_000_000 + VAIN_LEAST + u64::from(block_length);
        assert!(search.vain_bytes > 0 && search.vain_bytes <= allowed, "{} bytes in vain", search.vain_bytes);
    }
}

#[test]
fn an_equal_weak_sum_needs_an_equal_strong_sum() {
    let basis = noise(2100, 13);
    let head = SumHead::for_basis(2100, 16, StrongSums::Short, Some(700));
    let mut table = SumTable::new(head, 16, 10);
    for (i, block) in basis.chunks(700).enumerate() {
        let mut strong = SEED.sum(block).as_bytes()[..2].to_vec();
        strong[1] ^= u8::from(i == 1);
        table.push(Rolling::new(block).value(), &strong);
    }
    assert_eq!(tokens(&basis, &table), [Copy(0), Literal(basis[700..1400].to_vec()), Copy(2)]);

    let mut short = SumTable::new(SumHead::for_basis(100, 16, StrongSums::Short, Some(700)), 16, 10);
    short.push(Rolling::new(&basis[..100]).value(), b"no");
    assert_eq!(tokens(&basis[..100], &short), [Literal(basis[..100].to_vec())]);
}

#[test]
fn a_short_block_never_stands_for_a_whole_one() {
    // A peer that announces a last block of 100 bytes with the sums of 700.
    let source = noise(700, 20);
    let mut table = SumTable::new(SumHead::for_basis(800, 16, StrongSums::Whole, Some(700)), 16, 10);
    table.push(1, &[0; 16]);
    table.push(Rolling::new(&source).value(), SEED.sum(&source).as_bytes());
    assert_eq!(tokens(&source, &table), [Literal(source)]);
}

#[test]
fn a_table_still_arriving_is_used_as_far_as_it_came() {
    let basis = noise(1500, 14);
    let head = SumHead::for_basis(1500, 16, StrongSums::Whole, Some(700));
    let mut table = SumTable::new(head, 16, 10);
    table.push(Rolling::new(&basis[..700]).value(), SEED.sum(&basis[..700]).as_bytes());
    assert_eq!(joined(&tokens(&basis, &table)), [Copy(0), Literal(basis[700..].to_vec())]);
}

#[test]
fn in_place_takes_nothing_already_overwritten() {
    let basis = noise(7000, 15);
    let table = table_of(&basis, 700);
    let grown = [b"grown", &basis[..]].concat();
    assert_eq!(literal_bytes(&tokens(&grown, &table)), 5);
    let found = run(Search::new(&table, SEED).in_place(), [&grown[..]]);
    assert_eq!(literal_bytes(&found), grown.len());

    let shrunk = &basis[5..];
    let found = run(Search::new(&table, SEED).in_place(), [shrunk]);
    assert_eq!(literal_bytes(&found), 695);
    assert_eq!(apply_in_place(&basis, table.head(), &found), shrunk);
}

#[test]
fn in_place_prefers_what_is_already_there() {
    let [a, b, c, d] = [16, 17, 18, 19].map(|seed| noise(700, seed));
    let basis = [&a[..], &b, &c, &b].concat();
    let table = table_of(&basis, 700);
    let source = [&c[..], &b].concat();
    assert_eq!(tokens(&source, &table), [2, 3].map(Copy));
    assert_eq!(run(Search::new(&table, SEED).in_place(), [&source[..]]), [2, 1].map(Copy));

    let source = [&a[..], &d, &c, &b].concat();
    assert_eq!(run(Search::new(&table, SEED).in_place(), [&source[..]]), [Copy(0), Literal(d), Copy(2), Copy(3)]);
}

#[test]
fn in_place_takes_again_what_was_found_where_it_is() {
    let [a, b, c, d] = [16, 17, 18, 19].map(|seed| noise(700, seed));
    let basis = [&a[..], &b, &c, &d].concat();
    let table = table_of(&basis, 700);
    let source = [&a[..], &b, &a, &b, &c].concat();
    let found = run(Search::new(&table, SEED).in_place(), [&source[..]]);
    assert_eq!(found, [0, 1, 0, 1].map(Copy).into_iter().chain([Literal(c.clone())]).collect::<Vec<_>>());
    assert_eq!(apply_in_place(&basis, table.head(), &found), source);

    // What a lead settled stands, but for what went out as a literal.
    let basis: Vec<u8> = (0..64).flat_map(|seed| noise(700, 100 + seed)).collect();
    let table = table_of(&basis, 700);
    let mut source = [&basis[..], &basis[700 * 10..700 * 40]].concat();
    source[700 * 20..][..5].copy_from_slice(b"other");
    let (mut lead, mut tokens) = (Lead::new(SEED), Vec::new());
    let Ok(settled) = lead.push(&source, &table, |token| {
        tokens.push(match token {
            Token::Literal(bytes) => Literal(bytes.to_vec()),
            Token::Copy(block, _) => Copy(block.0),
        });
        Ok::<_, Infallible>(())
    });
    assert!(settled > 700 * 60, "{settled}");
    tokens.extend(run(Search::behind(&table, &lead).in_place(), [&source[settled..]]));
    assert_eq!(apply_in_place(&basis, table.head(), &tokens), source);
    assert_eq!(literal_bytes(&tokens), 2 * 700);
}

#[test]
fn in_place_finds_an_equal_block_that_is_still_there() {
    let kinds: Vec<Vec<u8>> = (0..5).map(|seed| noise(64, seed)).collect();
    let blocks = |seed| noise(2000, seed).into_iter().map(|n| &kinds[usize::from(n) % 5][..]).collect::<Vec<_>>();
    let (mut old, new) = (blocks(21), blocks(22));
    old[1500..].fill(&kinds[0]);
    let (basis, source) = (old.concat(), new.concat());
    let table = table_of(&basis, 64);
    let found = run(Search::new(&table, SEED).in_place(), [&source[..]]);
    assert_eq!(apply_in_place(&basis, table.head(), &found), source);
    let stands = |i: usize, block| (0..i).any(|j| old[j] == new[j] && new[j] == block);
    let lost = new.iter().enumerate().filter(|&(i, &block)| !old[i..].contains(&block) && !stands(i, block)).count();
    assert!(lost < 10, "{lost}");
    assert_eq!(literal_bytes(&found), lost * 64);
}

/// A source of which only the end is known, after a long way that is not.
#[test]
fn a_leap_loses_no_long_run() {
    let block_length = 4096;
    let known = noise(40 * block_length, 30);
    let table = table_of(&known, block_length as u32);
    for (stray, pushed) in [(3, 1 << 20), (17 << 20, 256 << 10), ((17 << 20) + 5, 1 << 30), ((20 << 20) + 77, 1000)] {
        let mut source = noise(stray, 31);
        source.extend_from_slice(&known);
        let found = run(Search::new(&table, SEED), source.chunks(pushed));
        assert_eq!(apply(&known, table.head(), &found), source);
        let lost = literal_bytes(&found) - stray;
        assert!(lost <= (LEAP_MOST as usize + 2) * block_length, "{lost} bytes lost of pushes of {pushed}");
        if pushed > 1 << 20 {
            assert_eq!(lost, 0, "what was leapt over is looked at again");
        }
    }
}

#[test]
fn an_error_of_emit_comes_back() {
    let basis = noise(2000, 19);
    let table = table_of(&basis, 700);
    assert_eq!(Search::new(&table, SEED).push(&basis, |_| Err("full")), Err("full"));
    let mut search = Search::new(&table, SEED);
    assert_eq!(search.push(&basis[..100], |_| Err("full")), Ok(()));
    assert_eq!(search.finish(|_| Err("full")), Err("full"));
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(usize, Vec<u8>),
    Delete(usize, usize),
    Overwrite(usize, Vec<u8>),
    Swap(usize, usize),
    Repeat(usize, usize),
}

impl Edit {
    fn make(&self, file: &mut Vec<u8>) {
        let len = file.len();
        let place = |at: usize| at % (len + 1);
        let range = |at: usize, n: usize| place(at)..(place(at) + n).min(len);
        match self {
            Edit::Insert(at, bytes) => drop(file.splice(place(*at)..place(*at), bytes.iter().copied())),
            Edit::Delete(at, n) => drop(file.drain(range(*at, *n))),
            Edit::Overwrite(at, bytes) => drop(file.splice(range(*at, bytes.len()), bytes.iter().copied())),
            Edit::Swap(at, n) => file.rotate_left(range(*at, *n).len().min(len)),
            Edit::Repeat(at, n) => {
                let again = file[range(*at, *n)].to_vec();
                drop(file.splice(place(*at)..place(*at), again));
            }
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0usize..4000;
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        (at(), bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), 0usize..200).prop_map(|(at, n)| Edit::Delete(at, n)),
        (at(), bytes()).prop_map(|(at, bytes)| Edit::Overwrite(at, bytes)),
        (at(), 0usize..900).prop_map(|(at, n)| Edit::Swap(at, n)),
        (at(), 0usize..900).prop_map(|(at, n)| Edit::Repeat(at, n)),
    ]
}

/// Noise, a file of few different bytes, and one of very few: tables without and with many equal blocks.
fn file() -> impl Strategy<Value = Vec<u8>> {
    (0usize..3000, any::<u64>(), prop_oneof![Just(0xff), Just(0x80), Just(0x00)], any::<bool>()).prop_map(
        |(len, seed, mask, sparse)| {
            let keep = |(i, byte): (usize, u8)| if sparse && i % 97 != 0 { 0 } else { byte & mask };
            noise(len, seed).into_iter().enumerate().map(keep).collect()
        },
    )
}

/// Pushes all into a lead of which all sums are here; returns the copies, the literals' bytes and where it ended.
fn led(source: &[u8], table: &SumTable) -> (usize, usize, usize) {
    let (mut copies, mut literal) = (0, 0);
    let mut lead = Lead::new(SEED);
    let Ok(settled) = lead.push(source, table, |token| {
        match token {
            Token::Copy(..) => copies += 1,
            Token::Literal(bytes) => literal += bytes.len(),
        }
        Ok::<_, Infallible>(())
    });
    assert_eq!(copies * table.head().block_length as usize + literal, settled);
    (copies, literal, settled)
}

#[test]
fn a_lead_passes_over_a_few_changed_blocks() {
    let (len, block_length) = (4 << 20, 1024);
    let basis = noise(len, 5);
    let table = table_of(&basis, block_length as u32);
    let changed = |blocks: &[std::ops::Range<usize>]| {
        let mut source = basis.clone();
        let bytes = blocks.iter().map(|blocks| blocks.start * block_length..blocks.end * block_length);
        bytes.for_each(|range| source[range].iter_mut().for_each(|byte| *byte = !*byte));
        source
    };
    let all = len / block_length;
    assert_eq!(led(&basis, &table), (all, 0, len));
    assert_eq!(led(&changed(&[0..1, 7..9, 50..54]), &table), (all - 7, 7 * block_length, len));
    // More at a stretch is for the search.
    assert_eq!(led(&changed(&[3..4, 50..55]), &table), (49, block_length, 50 * block_length));
    // And so is what differs all the time: 64 KiB are free, then a share of what was found.
    let every_other: Vec<_> = (0..all).step_by(2).map(|block| block..block + 1).collect();
    let (copies, literal, _) = led(&changed(&every_other), &table);
    assert_eq!((copies, literal / block_length), (66, 66));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn the_tokens_give_the_source_however_it_is_pushed(
        basis in file(),
        edits in prop::collection::vec(edit(), 0..6),
        block_length in prop_oneof![1u32..9, 9u32..130, Just(700)],
        piece in prop_oneof![1usize..20, 20usize..900],
    ) {
        let mut source = basis.clone();
        edits.iter().for_each(|edit| edit.make(&mut source));
        let table = table_of(&basis, block_length);

        let found = tokens(&source, &table);
        prop_assert!(apply(&basis, table.head(), &found) == source);
        prop_assert!(joined(&run(Search::new(&table, SEED), source.chunks(piece))) == joined(&found));

        let in_place = run(Search::new(&table, SEED).in_place(), [&source[..]]);
        prop_assert!(apply_in_place(&basis, table.head(), &in_place) == source);
        let pushed = run(Search::new(&table, SEED).in_place(), source.chunks(piece));
        prop_assert!(joined(&pushed) == joined(&in_place));
    }

    /// While sums still come, the source's beginning is settled block by block. The tokens are those of one search, or in
    /// place of a few blocks there is a literal.
    #[test]
    fn a_lead_and_a_search_behind_it_give_the_source(
        basis in file(),
        edits in prop::collection::vec(edit(), 0..3),
        block_length in prop_oneof![1u32..9, 9u32..130, Just(700)],
        arrivals in prop::collection::vec(0usize..9, 0..40),
        piece in 1usize..900,
        checksum in prop_oneof![Just(Checksum::Xxh128), Just(Checksum::Md5), Just(Checksum::None)],
        short in any::<bool>(),
    ) {
        let mut source = basis.clone();
        edits.iter().for_each(|edit| edit.make(&mut source));
        let seed = BlockSeed { checksum, ..SEED };
        let strong = if short { StrongSums::Short } else { StrongSums::Whole };
        let head = SumHead::for_basis(basis.len() as u64, checksum.size(), strong, Some(block_length));
        let mut whole = SumTable::new(head, checksum.size(), u32::MAX);
        let sums: Vec<_> = basis
            .chunks(block_length as usize)
            .map(|block| (Rolling::new(block).value(), seed.sum(block)))
            .collect();
        let push = |table: &mut SumTable, at: usize| {
            table.push(sums[at].0, &sums[at].1.as_bytes()[..head.strong_length as usize]);
        };
        (0..sums.len()).for_each(|at| push(&mut whole, at));
        for in_place in [false, true] {
            let placed = |search: Search<'static>| if in_place { search.in_place() } else { search };
            let whole: &'static SumTable = Box::leak(Box::new(whole.clone()));
            let expected = run(placed(Search::new(whole, seed)), [&source[..]]);

            let mut table = SumTable::new(head, checksum.size(), u32::MAX);
            let mut lead = Lead::new(seed);
            let (mut found, mut settled, mut seen, mut arrived) = (Vec::new(), 0, 0, 0);
            let mut passed_over = Vec::new();
            for more in &arrivals {
                for _ in 0..(*more).min(sums.len() - arrived) {
                    push(&mut table, arrived);
                    arrived += 1;
                }
                seen = (seen + piece).min(source.len());
                let Ok(taken) = lead.push(&source[settled..seen], &table, |token| {
                    found.push(match token {
                        Token::Copy(block, bytes) => {
                            assert_eq!(bytes.len(), block_length as usize);
                            Copy(block.0)
                        }
                        Token::Literal(bytes) => {
                            passed_over.push(bytes.len());
                            Literal(bytes.to_vec())
                        }
                    });
                    Ok::<_, Infallible>(())
                });
                settled += taken;
            }
            let behind = placed(Search::behind(whole, &lead));
            found.extend(run(behind, source[settled..].chunks(piece)));
            if passed_over.is_empty() {
                prop_assert_eq!(joined(&found), joined(&expected));
            }
            let is_short = |&len: &usize| len <= 4 * block_length as usize && len.is_multiple_of(block_length as usize);
            prop_assert!(passed_over.iter().all(is_short), "{:?}", passed_over);
            if in_place {
                let by_search = apply_in_place(&basis, head, &expected);
                prop_assert!(short || checksum == Checksum::None || by_search == source);
                prop_assert!(apply_in_place(&basis, head, &found) == source || by_search != source);
            } else {
                let by_search = apply(&basis, head, &expected);
                prop_assert!(short || checksum == Checksum::None || by_search == source);
                prop_assert!(apply(&basis, head, &found) == source || by_search != source);
            }
        }
    }

    #[test]
    fn every_whole_block_in_a_literal_would_have_matched(
        basis in file(),
        edits in prop::collection::vec(edit(), 0..6),
        block_length in 9u32..130,
    ) {
        let mut source = basis.clone();
        edits.iter().for_each(|edit| edit.make(&mut source));
        let table = table_of(&basis, block_length);
        let len = block_length as usize;
        let whole: std::collections::HashSet<&[u8]> = basis.chunks_exact(len).collect();
        for token in tokens(&source, &table) {
            if let Literal(bytes) = token {
                prop_assert!(bytes.windows(len).all(|window| !whole.contains(window)));
            }
        }
    }
}
