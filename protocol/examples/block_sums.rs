//! How fast this machine sums blocks: `cargo run --release -p protocol --example block_sums [BLOCK_LENGTH]`.

use protocol::checksum::{BlockRule, BlockSeed, Checksum, FileHasher, Rolling, SignatureSum, Sum, Weak, weak};
use std::convert::Infallible;
use std::hint::black_box;
use std::time::Instant;

/// Prints the best of several rates over these bytes.
fn rate(what: &str, bytes: &[u8], work: impl Fn(&[u8])) {
    let mut best = 0f64;
    for _ in 0..7 {
        let start = Instant::now();
        work(black_box(bytes));
        best = best.max(bytes.len() as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    println!("{what:34} {best:6.2} GB/s");
}

fn main() {
    let block_length = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(8192);
    let bytes: Vec<u8> = (0..16u64 << 20).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    println!("vectors {:?}, blocks of {block_length} bytes", protocol::simd::Vectors::here());
    for checksum in [Checksum::Xxh128, Checksum::Md5, Checksum::Md4, Checksum::Blake3] {
        let seed = BlockSeed::new(checksum, 7, true);
        rate(&format!("{} of a file", checksum.name()), &bytes, |bytes| {
            let mut hasher = FileHasher::new(checksum);
            hasher.update(bytes);
            black_box(hasher.finish());
        });
        rate(&format!("{} block by block", checksum.name()), &bytes, |bytes| {
            bytes.chunks(block_length).for_each(|block| {
                black_box(seed.sum(block));
            });
        });
        let rule = BlockRule::from(seed);
        let all = |bytes: &[u8], weak: &dyn Fn(&[u8]) -> u32| {
            let each = |block: &[u8], sum: &Sum| {
                black_box((weak(block), sum));
                Ok::<(), Infallible>(())
            };
            let Ok(()) = rule.strong_each(bytes, block_length, each);
        };
        rate(&format!("{} of all blocks", checksum.name()), &bytes, |bytes| all(bytes, &|_| 0));
        rate(&format!("{} of all blocks, and weak", checksum.name()), &bytes, |bytes| all(bytes, &weak));
    }
    rate("librsync's blake2", &bytes, |bytes| {
        bytes.chunks(block_length).for_each(|block| {
            black_box(SignatureSum::Blake2.sum(block));
        });
    });
    for kind in [Weak::Rsync, Weak::Rollsum, Weak::RabinKarp] {
        rate(&format!("{kind:?} weak sums"), &bytes, |bytes| {
            bytes.chunks(block_length).for_each(|block| {
                black_box(Rolling::of(kind, block));
            });
        });
    }
}
