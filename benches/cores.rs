//! The delta cores: sums, and the search over each kind of old copy; the scenes are those of `bench transfer`.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fast_rsync::{Signature, SignatureOptions, diff};
use pysmurf_archiver::bench::delta::{make_sums, search, sums};
use pysmurf_archiver::bench::scene::{OldCopy, noise};
use std::hint::black_box;

/// Stays below what the search leaps after, so that every offset is looked at.
const SIZE: usize = 8 << 20;

fn cores(criterion: &mut Criterion) {
    let new = noise(SIZE, 1);
    let mut group = criterion.benchmark_group("sums");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(20);
    let length = sums(&new).table.head().block_length;
    group.bench_function("ours", |bencher| bencher.iter(|| make_sums(black_box(&new), length as usize)));
    let options = SignatureOptions { block_size: length, crypto_hash_size: 16 };
    group.bench_function("fast_rsync", |bencher| bencher.iter(|| Signature::calculate(black_box(&new), options)));
    group.finish();

    let mut group = criterion.benchmark_group("search");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(10);
    for kind in OldCopy::ALL {
        let old = kind.old_copy(&new);
        let table = sums(&old);
        group.bench_function(BenchmarkId::new("ours", kind.id()), |bencher| {
            bencher.iter(|| search(black_box(&new), &table));
        });
        let signature = Signature::calculate(&old, options);
        group.bench_function(BenchmarkId::new("fast_rsync", kind.id()), |bencher| {
            bencher.iter(|| diff(&signature.index(), black_box(&new), std::io::sink()));
        });
    }
    group.finish();
}

criterion_group!(benches, cores);
criterion_main!(benches);
