use super::*;
use crate::checksum::Checksum;
use crate::compress::{Compression, Method};
use crate::handshake::{Compat, Negotiated};
use crate::mux::Outbox;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const METHODS: [Method; 5] = [Method::None, Method::Zlib, Method::Zlibx, Method::Lz4, Method::Zstd];

fn session(method: Method, level: Option<i32>, version: u8) -> Negotiated {
    let compression = Compression::new(method, level);
    let checksum = Checksum::Md5;
    Negotiated { version, compat: Compat(0), checksum, list_checksum: checksum, seed: 1, compression }
}

fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// What a file is made of.
#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(Vec<u8>),
    Copy(u32),
}

/// A file over a basis of its own.
#[derive(Debug, Clone)]
struct File {
    head: SumHead,
    basis: Vec<u8>,
    store: bool,
    pieces: Vec<Piece>,
}

impl File {
    fn block(&self, block: u32) -> &[u8] {
        let start = self.head.offset(BlockIndex(block)) as usize;
        &self.basis[start..start + self.head.block_len(BlockIndex(block)) as usize]
    }

    /// Neighbouring literals are one.
    fn joined(&self) -> Vec<Piece> {
        let mut joined = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(bytes) => push_literal(&mut joined, bytes),
                copy => joined.push(copy.clone()),
            }
        }
        joined
    }
}

fn push_literal(pieces: &mut Vec<Piece>, bytes: &[u8]) {
    match pieces.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Piece::Literal(literal)) => literal.extend_from_slice(bytes),
        _ => pieces.push(Piece::Literal(bytes.to_vec())),
    }
}

fn write(n: &Negotiated, files: &[File]) -> Vec<u8> {
    let mut out = Outbox::new();
    let mut writer = TokenWriter::new(n);
    for file in files {
        writer.begin(file.store);
        for piece in &file.pieces {
            match piece {
                Piece::Literal(bytes) => writer.literal(bytes, &mut out).unwrap(),
                Piece::Copy(block) => writer.copy(BlockIndex(*block), file.block(*block), &mut out).unwrap(),
            }
        }
        writer.end(&mut out).unwrap();
    }
    out.bytes().to_vec()
}

/// Reads files from bytes that come in pieces of `chunk`; the error that ended it, if any.
fn read(n: &Negotiated, files: &[File], wire: &[u8], chunk: usize) -> (Vec<Vec<Piece>>, Option<Decode>) {
    let mut tokens = TokenReader::new(n);
    let mut read = Vec::new();
    let (mut start, mut end) = (0, 0);
    for file in files {
        tokens.begin(file.head);
        let mut pieces = Vec::new();
        loop {
            let mut reader = Reader::new(&wire[start..end]);
            match tokens.step(&mut reader) {
                Ok(event) => {
                    start += reader.position();
                    match event {
                        TokenEvent::Nothing => {}
                        TokenEvent::Plain(len) => {
                            push_literal(&mut pieces, &wire[start..start + len]);
                            start += len;
                        }
                        TokenEvent::Unpacked => {
                            assert!((1..=LITERAL_MOST).contains(&tokens.unpacked().len()));
                            push_literal(&mut pieces, tokens.unpacked());
                        }
                        TokenEvent::Copy(block) => {
                            pieces.push(Piece::Copy(block.0));
                            if let Err(error) = tokens.matched(file.block(block.0)) {
                                return (read, Some(error.into()));
                            }
                        }
                        TokenEvent::End => break,
                    }
                }
                Err(Decode::Incomplete) if end < wire.len() => end = wire.len().min(end + chunk),
                Err(error) => return (read, Some(error)),
            }
        }
        read.push(pieces);
    }
    assert!(start == wire.len() || end < wire.len() || read.len() == files.len());
    (read, None)
}

fn check(n: &Negotiated, files: &[File], chunks: &[usize]) -> Vec<u8> {
    let wire = write(n, files);
    let expected: Vec<_> = files.iter().map(File::joined).collect();
    for &chunk in chunks {
        let (read, error) = read(n, files, &wire, chunk);
        assert_eq!(error, None, "{:?} by {chunk}", n.compression);
        assert!(read == expected, "{:?} by {chunk}: other tokens", n.compression);
    }
    wire
}

/// Literals that repeat, do not repeat, or repeat the basis; and blocks, often in a row.
fn file() -> impl Strategy<Value = File> {
    let lengths = prop_oneof![Just(1u32), 2u32..40, Just(700), Just(5000), Just(40_000), Just(70_000), Just(131_072)];
    let piece = (0u8..6, any::<u32>(), 0usize..60_000, 1u32..90);
    (lengths, 1u32..400, any::<bool>(), any::<bool>(), vec(piece, 0..14)).prop_map(
        |(block_length, count, short, store, shapes)| {
            let count = count.min(600_000 / block_length);
            let remainder = if short { block_length / 2 } else { 0 };
            let head = SumHead { count, block_length, strong_length: 2, remainder };
            let basis = noise(count, head.basis_len() as usize);
            let mut pieces = Vec::new();
            let mut next = 0;
            for (shape, seed, len, row) in shapes {
                match shape {
                    0 => pieces.push(Piece::Literal(noise(seed, len))),
                    1 => pieces.push(Piece::Literal(b"over and over ".repeat(len / 14))),
                    2 => pieces.push(Piece::Literal(noise(seed, len % 40))),
                    3 => {
                        // Old data is new again: here the history of blocks pays.
                        let start = seed as usize % basis.len();
                        let end = basis.len().min(start + len % 5000);
                        pieces.push(Piece::Literal(basis[start..end].to_vec()));
                    }
                    _ => {
                        if shape == 4 {
                            next = seed % count;
                        }
                        let end = count.min(next + row);
                        pieces.extend((next..end).map(Piece::Copy));
                        next = if end == count { 0 } else { end };
                    }
                }
            }
            File { head, basis, store, pieces }
        },
    )
}

fn settings(cases: u32, seed: u64) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(settings(120, 11))]

    #[test]
    fn what_is_written_is_read(
        files in vec(file(), 1..4), which in 0usize..5, level in prop_oneof![Just(None), (-7i32..10).prop_map(Some)],
        version in 27u8..=32, chunk in 1usize..20_000,
    ) {
        check(&session(METHODS[which], level, version), &files, &[usize::MAX, chunk]);
    }
}

proptest! {
    #![proptest_config(settings(400, 12))]

    /// Any change of the bytes gives other tokens, an error, or a wait for more; and never more than the bytes can hold.
    #[test]
    fn changed_bytes(
        file in file(), which in 0usize..5, at: prop::sample::Index, byte: u8, cut: bool, chunk in 1usize..9000,
    ) {
        let n = session(METHODS[which], None, 31);
        let files = [file];
        let mut wire = write(&n, &files);
        let at = at.index(wire.len());
        if cut { wire.truncate(at) } else { wire[at] = byte }
        let _ = read(&n, &files, &wire, chunk);
    }

    #[test]
    fn garbage(bytes in vec(prop_oneof![any::<u8>(), Just(0x40), Just(0x21), Just(0), Just(0xff)], 0..300), which in 0usize..5, count in 0u32..50, chunk in 1usize..300) {
        let n = session(METHODS[which], None, 30);
        let head = SumHead { count, block_length: 10, strong_length: 2, remainder: 0 };
        let file = File { head, basis: vec![0; 500], store: false, pieces: Vec::new() };
        let (_, error) = read(&n, &vec![file; 400], &bytes, chunk);
        prop_assert!(error.is_some());
    }
}

fn copies(blocks: impl IntoIterator<Item = u32>, count: u32) -> File {
    let head = SumHead { count, block_length: 1, strong_length: 2, remainder: 0 };
    let pieces = blocks.into_iter().map(Piece::Copy).collect();
    File { head, basis: noise(1, count as usize), store: false, pieces }
}

#[test]
fn blocks_are_written_as_stock_writes_them() {
    let n = session(Method::Zlibx, None, 31);
    // The order of the recorded file of shuffled blocks.
    let order = (150..260).chain(0..50).chain([100, 299, 298, 297, 5]).chain(60..64);
    let wire = check(&n, &[copies(order, 300)], &[1, 2, 3, usize::MAX]);
    let expected = [
        &[0x21, 0x96, 0, 0, 0, 0x6d, 0][..],
        &[0x21, 0, 0, 0, 0, 0x31, 0],
        &[0xb3],
        &[0x20, 0x2b, 1, 0, 0],
        &[0x20, 0x2a, 1, 0, 0],
        &[0x20, 0x29, 1, 0, 0],
        &[0x20, 5, 0, 0, 0],
        &[0xf7, 3, 0],
        &[0],
    ];
    assert_eq!(wire, expected.concat());
    // The longest run, and one block beyond it.
    let wire = check(&n, &[copies(0..65_537, 70_000)], &[1, usize::MAX]);
    assert_eq!(wire, [0xc0, 0xff, 0xff, 0x81, 0]);
    assert_eq!(check(&n, &[copies([], 0)], &[1]), [0]);
}

#[test]
fn impossible_blocks_are_refused() {
    for bytes in [
        &[0x20, 10, 0, 0, 0][..],
        &[0x20, 0xff, 0xff, 0xff, 0xff],
        &[0x21, 0, 0, 0, 0, 10, 0],
        &[0x21, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff],
        &[0x8a],
        &[0x89, 0x81],
        &[0xc1, 9, 0],
        &[0x22],
        &[1],
        &[0x3f],
    ] {
        let (_, error) = read(&session(Method::Zstd, None, 31), &[copies([], 10)], bytes, 1);
        assert!(matches!(error, Some(Decode::Bad(PeerError::Range { .. }))), "{bytes:02x?} {error:?}");
    }
}

#[test]
fn a_small_chunk_that_swells_comes_in_small_pieces() {
    let literal = vec![7; 10 << 20];
    let file = File { pieces: vec![Piece::Literal(literal)], ..copies([], 0) };
    for method in [Method::Zlib, Method::Zlibx, Method::Zstd, Method::Lz4] {
        let n = session(method, None, 32);
        let wire = check(&n, std::slice::from_ref(&file), &[usize::MAX]);
        assert!(wire.len() < 100_000, "{method:?}: {}", wire.len());
    }
}

#[test]
fn stored_files_are_only_wrapped() {
    let literal = b"well compressible ".repeat(10_000);
    for (method, wrapped) in [(Method::Zlib, true), (Method::Zlibx, true), (Method::Lz4, true), (Method::Zstd, false)] {
        let n = session(method, None, 32);
        let file = |store| File { pieces: vec![Piece::Literal(literal.clone())], store, ..copies([], 0) };
        // A file that is packed again follows.
        let wire = check(&n, &[file(true), file(false), file(true)], &[5, usize::MAX]);
        assert_eq!(wire.len() > 2 * literal.len(), wrapped, "{method:?}: {}", wire.len());
        assert!(wire.len() < 2 * literal.len() + 20_000);
    }
}

#[test]
fn matched_blocks_are_history_for_zlib_only() {
    let basis = noise(9, 20_000);
    let head = SumHead { count: 2, block_length: 10_000, strong_length: 2, remainder: 0 };
    let pieces = vec![Piece::Copy(0), Piece::Literal(basis[2000..8000].to_vec()), Piece::Copy(1)];
    let file = File { head, basis, store: false, pieces };
    let len = |method| check(&session(method, None, 31), std::slice::from_ref(&file), &[1, usize::MAX]).len();
    assert!(len(Method::Zlib) < 200, "{}", len(Method::Zlib));
    assert!(len(Method::Zlibx) > 6000 && len(Method::Zstd) > 6000 && len(Method::Lz4) > 6000);
}
