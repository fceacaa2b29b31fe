//! The wire codecs: framing, the file list, and the tokens of a file.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::checksum::Checksum;
use protocol::compress::{Compression, Method};
use protocol::flist::{FileEntry, IdNames, ListDecoder, ListEncoder, ListLimits, ListShape};
use protocol::handshake::{Compat, Negotiated};
use protocol::mux::{Inbox, Outbox};
use protocol::sums::{BlockIndex, StrongSums, SumHead};
use protocol::token::{TokenEvent, TokenReader, TokenWriter};
use protocol::wire::Reader;
use pysmurf_archiver::bench::scene::noise;
use std::hint::black_box;

const LITERAL: usize = 32 * 1024;
const BYTES: usize = 4 << 20;
const ENTRIES: u64 = 10_000;

/// A session as two new rsyncs have it, at the newest protocol.
fn session() -> Negotiated {
    let flags = [Compat::SAFE_FLIST, Compat::CHECKSUM_SEED_FIX, Compat::VARINT_FLIST_FLAGS, Compat::ID0_NAMES];
    Negotiated {
        version: 32,
        compat: Compat(flags.iter().fold(0, |all, flag| all | flag.0)),
        checksum: Checksum::Xxh128,
        list_checksum: Checksum::Xxh128,
        seed: 7,
        compression: Compression::new(Method::None, None),
    }
}

fn framing(criterion: &mut Criterion) {
    let payload = noise(BYTES, 1);
    let mut group = criterion.benchmark_group("framing");
    group.throughput(Throughput::Bytes(BYTES as u64));
    let frame = |out: &mut Outbox| {
        for piece in payload.chunks(LITERAL) {
            out.put(piece);
        }
    };
    group.bench_function("out", |bencher| {
        let mut out = Outbox::new();
        out.start_mux(31);
        bencher.iter(|| {
            frame(&mut out);
            black_box(out.bytes());
            out.clear();
        });
    });
    let mut out = Outbox::new();
    out.start_mux(31);
    frame(&mut out);
    let framed = out.bytes().to_vec();
    group.bench_function("in", |bencher| {
        let mut inbox = Inbox::new();
        inbox.start_mux().expect("nothing has arrived");
        bencher.iter(|| {
            for piece in framed.chunks(64 * 1024) {
                inbox.feed(piece).expect("well framed");
                let taken = black_box(inbox.payload()).len();
                inbox.consume(taken);
            }
        });
    });
    group.finish();
}

fn entries() -> Vec<FileEntry> {
    let entry = |number: u64| {
        let mut entry = FileEntry::new(format!("{:03}/{number:05}_timestream.g3", number / 100), 0o100_644);
        (entry.len, entry.mtime, entry.uid, entry.gid) = (number * 37, 1_795_350_012 + number as i64, 1000, 1001);
        entry
    };
    (0..ENTRIES).map(entry).collect()
}

fn file_list(criterion: &mut Criterion) {
    let (n, entries) = (session(), entries());
    let shape = ListShape { owner: true, group: true, links: true, ..ListShape::default() };
    let encode = || {
        let mut out = Vec::new();
        let mut encoder = ListEncoder::new(&n, shape);
        for entry in &entries {
            encoder.entry(entry, &mut out);
        }
        encoder.end(0, &IdNames::default(), &mut out);
        out
    };
    let list = encode();
    let mut group = criterion.benchmark_group("file list");
    group.throughput(Throughput::Elements(ENTRIES)).sample_size(30);
    group.bench_function("encode", |bencher| bencher.iter(encode));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let mut decoder = ListDecoder::new(&n, shape, ListLimits::default());
            let mut reader = Reader::new(&list);
            while !decoder.step(&mut reader).expect("a whole list") {}
            assert_eq!(decoder.next_segment().list.len(), ENTRIES as usize);
        });
    });
    group.finish();
}

fn tokens(criterion: &mut Criterion) {
    let data = noise(BYTES, 2);
    let head = SumHead::for_basis(BYTES as u64, 16, StrongSums::Short, Some(4096));
    let mut group = criterion.benchmark_group("tokens");
    group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(20);
    for method in [Method::None, Method::Zstd, Method::Lz4, Method::Zlibx] {
        let n = Negotiated { compression: Compression::new(method, Some(1)), ..session() };
        let write = |writer: &mut TokenWriter, out: &mut Outbox| {
            writer.begin(false);
            for (number, piece) in data.chunks(LITERAL).enumerate() {
                // As many blocks as literals.
                match number % 2 {
                    0 => writer.literal(piece, out).expect("packed"),
                    _ => writer.copy(BlockIndex(number as u32), &piece[..4096], out).expect("packed"),
                }
            }
            writer.end(out).expect("packed");
        };
        let mut out = Outbox::new();
        write(&mut TokenWriter::new(&n), &mut out);
        let written = out.bytes().to_vec();
        group.bench_function(format!("write {method:?}"), |bencher| {
            bencher.iter(|| {
                let mut out = Outbox::new();
                write(&mut TokenWriter::new(&n), &mut out);
                black_box(out.len())
            });
        });
        group.bench_function(format!("read {method:?}"), |bencher| {
            bencher.iter(|| read(&n, head, &data, &written));
        });
    }
    group.finish();
}

/// Reads the tokens of a file; gives how many bytes of it were new.
fn read(n: &Negotiated, head: SumHead, data: &[u8], written: &[u8]) -> usize {
    let mut tokens = TokenReader::new(n);
    tokens.begin(head);
    let (mut at, mut literal) = (0, 0);
    loop {
        let mut reader = Reader::new(&written[at..]);
        let event = tokens.step(&mut reader).expect("whole tokens");
        at += reader.position();
        match event {
            TokenEvent::Nothing => {}
            TokenEvent::Plain(len) => {
                literal += black_box(&written[at..at + len]).len();
                at += len;
            }
            TokenEvent::Unpacked => literal += black_box(tokens.unpacked()).len(),
            TokenEvent::Copy(block) => {
                let from = block.0 as usize * LITERAL;
                tokens.matched(&data[from..from + 4096]).expect("a block that was named");
            }
            TokenEvent::End => return literal,
        }
    }
}

criterion_group!(benches, framing, file_list, tokens);
criterion_main!(benches);
