use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const ALL: [Checksum; 8] = [
    Checksum::Xxh128,
    Checksum::Xxh3,
    Checksum::Xxh64,
    Checksum::Md5,
    Checksum::Md4,
    Checksum::Sha1,
    Checksum::None,
    Checksum::Blake3,
];

fn file_sum(checksum: Checksum, data: &[u8]) -> Sum {
    let mut hasher = FileHasher::new(checksum);
    hasher.update(data);
    hasher.finish()
}

#[test]
fn strong_sums_of_hello_world() {
    // Taken from streams between stock rsyncs: block sum under seed 0x6b0f0ca3, under seed -5, whole file.
    let vectors = [
        (Checksum::Xxh64, "77c96bf94d462314", "1d0214b4e8f9c6e5", "68691eb23467ab45"),
        (Checksum::Xxh3, "0248f39aae4cc271", "06388587d6567533", "8b98e640eab147d4"),
        (
            Checksum::Xxh128,
            "0ab3182feeb93631310c1e5685f42fe7",
            "dbce563e19acbba6a4ed7706d8dd9ea1",
            "c7b615cc75879ba90049873fe9098ddf",
        ),
        (
            Checksum::Md5,
            "2aa23022bf99789c74c74236c5ffa048",
            "54bfd023a906a4f1c3cd3d5245e18683",
            "5eb63bbbe01eeed093cb22bb8f5acdc3",
        ),
        (
            Checksum::Md4,
            "ac2ca99abe0b272f4e752589cb5f3f3c",
            "612caba13e69c58ac334d69c42e2a2a1",
            "aa010fbc1d14c795d86ef98c95479d17",
        ),
        (
            Checksum::Sha1,
            "33b89805a01cfeccaeac00f3884ac89615f32e1a",
            "31df321bf785c05f94a87843bdeb72eb25b8f5b7",
            "2aae6c35c94fcfb415dbe95f408b9ce91ee846ed",
        ),
    ];
    let data = b"hello world";
    for (checksum, seeded, negative, whole) in vectors {
        assert_eq!(BlockSeed::new(checksum, 0x6b0f0ca3, true).sum(data).to_string(), seeded, "{checksum:?}");
        assert_eq!(BlockSeed::new(checksum, -5, true).sum(data).to_string(), negative, "{checksum:?}");
        assert_eq!(file_sum(checksum, data).to_string(), whole, "{checksum:?}");
    }
    assert_eq!(
        BlockSeed::new(Checksum::Md5, 0x6b0f0ca3, false).sum(data).to_string(),
        "c88f25307d76cf0615d11c61ec5cc97c"
    );
    assert_eq!(file_sum(Checksum::None, data).to_string(), "00");
    // The value any b3sum prints for these bytes.
    assert_eq!(
        file_sum(Checksum::Blake3, data).to_string(),
        "d74981efa70a0c880b8d8c1985d075dbcbf679b99a5f9914e5aaf96b831a9e24"
    );
}

#[test]
fn without_a_seed_a_block_sums_like_a_file() {
    let data: Vec<u8> = (0..2000u32).map(|i| ((i * i) >> 3) as u8).collect();
    for checksum in ALL {
        for seed_first in [false, true] {
            assert_eq!(BlockSeed::new(checksum, 0, seed_first).sum(&data), file_sum(checksum, &data));
        }
    }
    let mut seeded = b"\x05\0\0\0".to_vec();
    seeded.extend(&data);
    assert_eq!(BlockSeed::new(Checksum::Blake3, 5, true).sum(&data), file_sum(Checksum::Blake3, &seeded));
}

#[test]
fn names_and_sizes() {
    for checksum in ALL {
        assert_eq!(Checksum::from_name(checksum.name().as_bytes()), Some(checksum));
        assert_eq!(file_sum(checksum, b"").as_bytes().len(), checksum.size());
        assert_eq!(BlockSeed::new(checksum, 1, true).sum(b"x").as_bytes().len(), checksum.size());
    }
    assert_eq!(Checksum::from_name(b"xxhash"), Some(Checksum::Xxh64));
    assert_eq!(Checksum::from_name(b"MD5"), None);
    assert_eq!(Checksum::from_name(b""), None);
}

#[test]
fn sums_keep_their_length() {
    assert_eq!(Sum::new(&[]), None);
    assert_eq!(Sum::new(&[0; 33]), None);
    let sum = Sum::new(&[0xab, 0, 0x0f]).unwrap();
    assert_eq!(sum.as_bytes(), [0xab, 0, 0x0f]);
    assert_eq!(sum.to_string(), "ab000f");
    assert_eq!(format!("{sum:?}"), "Sum(ab000f)");
    assert_ne!(Sum::zero(1), Sum::zero(2));
    assert_eq!(Sum::zero(16).as_bytes(), [0; 16]);
    assert_eq!(Sum::zero(0).as_bytes().len(), 1);
    assert_eq!(Sum::zero(999).as_bytes().len(), 32);
}

#[test]
fn weak_sums_of_known_bytes() {
    assert_eq!(weak(b"hello world"), 0x1a00_045c);
    assert_eq!(weak(&[0x80, 0xff, 0x01]), 0xfe7f_ff80);
    assert_eq!(weak(&(0..=255).collect::<Vec<u8>>()), 0x6a80_ff80);
    assert_eq!(weak(&[0xff; 700]), 0x419a_fd44);
    assert_eq!(weak(&[]), 0);
}

/// The definition, with nothing clever in it.
fn plain_weak(block: &[u8]) -> u32 {
    let (mut s1, mut s2) = (0i64, 0i64);
    for (i, &byte) in block.iter().enumerate() {
        s1 += i64::from(byte as i8);
        s2 += (block.len() - i) as i64 * i64::from(byte as i8);
    }
    s1 as u32 & 0xffff | (s2 as u32) << 16
}

#[test]
fn weak_sums_of_the_longest_block_wrap_as_defined() {
    for byte in [0x7f, 0x80, 0xff] {
        let block = vec![byte; 131_072];
        assert_eq!(weak(&block), plain_weak(&block));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rolling_a_window_equals_summing_it_afresh(
        data in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x80), Just(0x7f)], 1..400),
        window in 1usize..200,
    ) {
        let window = window.min(data.len());
        let mut rolling = Rolling::new(&data[..window]);
        for at in 0..data.len() {
            let fresh = &data[at..data.len().min(at + window)];
            prop_assert_eq!(rolling.value(), plain_weak(fresh));
            prop_assert_eq!(rolling.value(), weak(fresh));
            prop_assert_eq!(rolling.len(), fresh.len());
            match data.get(at + window) {
                Some(&next) => rolling.roll_over(&[data[at]], &[next], &mut [0]),
                None => rolling.shrink(data[at]),
            }
        }
        prop_assert!(rolling.is_empty());
    }

    #[test]
    fn several_blocks_at_once_have_the_sums_of_each(
        data in prop::collection::vec(any::<u8>(), 0..9000),
        block_length in 1usize..500,
        seed in prop_oneof![Just(0), any::<i32>()],
        seed_first in any::<bool>(),
    ) {
        let rules = [
            BlockSeed::new(Checksum::Md5, seed, seed_first).into(),
            BlockSeed::new(Checksum::Md4, seed, seed_first).into(),
            BlockRule::Signature(Weak::Rollsum, SignatureSum::Md4),
            BlockSeed::new(Checksum::Xxh128, seed, seed_first).into(),
        ];
        for rule in rules {
            let mut blocks = data.chunks(block_length);
            rule.strong_each(&data, block_length, |block, sum| {
                prop_assert_eq!(Some(block), blocks.next());
                prop_assert_eq!(*sum, rule.strong(block));
                Ok(())
            })?;
            prop_assert!(blocks.next().is_none());
        }
    }

    #[test]
    fn a_file_sum_does_not_depend_on_the_pieces(data in prop::collection::vec(any::<u8>(), 0..600), piece in 1usize..300) {
        for checksum in ALL {
            let mut hasher = FileHasher::new(checksum);
            data.chunks(piece).for_each(|bytes| hasher.update(bytes));
            prop_assert_eq!(hasher.finish(), file_sum(checksum, &data));
        }
    }
}
