use super::*;
use fast_rsync::{Signature as Theirs, SignatureOptions, apply_limited, diff};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use protocol::checksum::{SignatureSum, Weak};
use std::io::Cursor;

const KINDS: [(Weak, SignatureSum); 4] = [
    (Weak::Rollsum, SignatureSum::Md4),
    (Weak::Rollsum, SignatureSum::Blake2),
    (Weak::RabinKarp, SignatureSum::Md4),
    (Weak::RabinKarp, SignatureSum::Blake2),
];

fn signature(basis: &[u8], (weak, strong): (Weak, SignatureSum), block: u32, sum: i32) -> Vec<u8> {
    let cut = Cut::new(weak, strong, block, sum, Some(basis.len() as u64)).unwrap();
    let mut out = Vec::new();
    let count = write_signature(&mut &*basis, &cut, &mut out).unwrap();
    assert_eq!(count, basis.chunks(cut.block_length() as usize).count() as u64);
    out
}

fn delta(signature: &[u8], new: &[u8]) -> (Vec<u8>, DeltaStats) {
    let signature = Signature::read(&mut &*signature).unwrap();
    let mut out = Vec::new();
    let stats = write_delta(&signature, &mut &*new, &mut out).unwrap();
    assert_eq!(stats.literal_bytes + stats.copy_bytes, new.len() as u64);
    (out, stats)
}

fn patched(basis: &[u8], delta: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    apply(&mut Cursor::new(basis), &mut &*delta, &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

/// A basis and a file that has much of it, in another order and with new bytes between.
fn pairs() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, u32)> {
    let basis = prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0x80)], 0..4000);
    let pieces = prop::collection::vec(
        (any::<prop::sample::Index>(), 0usize..900, prop::collection::vec(any::<u8>(), 0..90)),
        0..8,
    );
    (basis, pieces, 1u32..300).prop_map(|(basis, pieces, block)| {
        let mut new = Vec::new();
        for (start, len, fresh) in pieces {
            let start = start.index(basis.len() + 1);
            new.extend_from_slice(&basis[start..basis.len().min(start + len)]);
            new.extend(fresh);
        }
        (basis, new, block)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fast_rsync_and_we_understand_each_other((basis, new, block) in pairs(), sum in 4u32..17) {
        let options = SignatureOptions { block_size: block, crypto_hash_size: sum };
        let theirs = Theirs::calculate(&basis, options);
        let ours = signature(&basis, (Weak::Rollsum, SignatureSum::Md4), block, sum as i32);
        prop_assert_eq!(theirs.serialized(), &ours);

        let (our_delta, stats) = delta(theirs.serialized(), &new);
        let mut out = Vec::new();
        apply_limited(&basis, &our_delta, &mut out, new.len()).unwrap();
        prop_assert_eq!(&out, &new);

        let read = Theirs::deserialize(ours).unwrap();
        let mut their_delta = Vec::new();
        diff(&read.index(), &new, &mut their_delta).unwrap();
        prop_assert_eq!(&patched(&basis, &their_delta).unwrap(), &new);
        // They look for whole blocks only; nothing they find escapes us.
        let mut out = Vec::new();
        let found = apply(&mut Cursor::new(&basis), &mut &*their_delta, &mut out).unwrap();
        prop_assert!(stats.copy_bytes >= found.copy_bytes, "{stats:?} {found:?}");
    }

    #[test]
    fn every_kind_of_signature_leads_back((basis, new, block) in pairs()) {
        for kind in KINDS {
            for sum in [0, -1] {
                let (bytes, _) = delta(&signature(&basis, kind, block, sum), &new);
                prop_assert_eq!(&patched(&basis, &bytes).unwrap(), &new);
                let (same, stats) = delta(&signature(&basis, kind, block, sum), &basis);
                prop_assert_eq!(stats.literal_bytes, 0, "{:?} {:?}", kind, stats);
                prop_assert_eq!(&patched(&basis, &same).unwrap(), &basis);
            }
        }
    }

    #[test]
    fn hostile_files_are_refused_or_bounded(
        (basis, new, block) in pairs(),
        kind in prop::sample::select(&KINDS[..]),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut sums = signature(&basis, kind, block, 0);
        let (mut bytes, _) = delta(&sums, &new);
        let cut = at.index(bytes.len());
        prop_assert!(patched(&basis, &bytes[..cut]).is_err());
        prop_assert!(patched(&basis, &[&bytes[..], &[0]].concat()).is_err());
        bytes[cut] = byte;
        let _ = patched(&basis, &bytes);
        let _ = patched(&basis, &[&delta::MAGIC[..], &noise].concat());
        let cut = at.index(sums.len());
        sums[cut] = byte;
        for bytes in [&sums[..], &sums[..cut], &[&sums[..12], &noise].concat()] {
            if let Ok(signature) = Signature::read(&mut &*bytes) {
                let mut out = Vec::new();
                write_delta(&signature, &mut &*new, &mut out).unwrap();
            }
        }
    }
}

#[test]
fn signatures_are_those_of_librsync() {
    // Of the file `abc`, as rdiff 2.3.2 writes them.
    let blake2 = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319";
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let signature = |kind| hex(&signature(b"abc", kind, 0, 0));
    assert_eq!(signature(KINDS[1]), format!("727301370000010000000020{}{blake2}", "03040183"));
    assert_eq!(signature(KINDS[3]), format!("727301470000010000000020{}{blake2}", "66298923"));
}

#[test]
fn cuts_are_chosen_as_rdiff_does() {
    let cut = |sum, len| {
        let cut = Cut::new(Weak::RabinKarp, SignatureSum::Blake2, 0, sum, len).unwrap();
        let mut out = Vec::new();
        write_signature(&mut io::empty(), &cut, &mut out).unwrap();
        (u32::from_be_bytes(out[4..8].try_into().unwrap()), out[11])
    };
    for (len, block, least) in [
        (0, 256, 5),
        (100, 256, 5),
        (1000, 256, 6),
        (100_000, 256, 6),
        (1_000_000, 896, 7),
        (5_000_000, 2176, 7),
        (100_000_000, 9984, 7),
    ] {
        assert_eq!((cut(0, Some(len)), cut(-1, Some(len))), ((block, 32), (block, least)), "{len}");
    }
    assert_eq!((cut(0, None), cut(-1, None)), ((2048, 32), (2048, 12)));
    for (block, sum) in [(1 << 27, 0), (0, 33), (0, -2)] {
        assert!(Cut::new(Weak::Rollsum, SignatureSum::Blake2, block, sum, None).is_err());
    }
    assert!(Cut::new(Weak::Rollsum, SignatureSum::Md4, 0, 17, None).is_err());
}

#[test]
fn what_is_wrong_is_said() {
    let read = |bytes: &[u8]| Signature::read(&mut &*bytes).unwrap_err().to_string();
    assert_eq!(read(b"rs\x01"), "The signature is not usable: it ends in its first 12 bytes");
    assert_eq!(
        read(b"rs\x02\x36\0\0\0\x01\0\0\0\x08"),
        "The signature is not usable: it is a delta; give the signature first"
    );
    assert!(read(b"rs\x01\x36\xff\xff\xff\xff\0\0\0\x08").contains("4294967295 bytes"));
    assert!(read(b"rs\x01\x36\0\0\0\x08\0\0\0\x11").contains("1 to 16"));
    assert!(read(b"rs\x01\x36\0\0\0\x08\0\0\0\x08abc").ends_with("in the middle of a block's sums"));
    let patch = |bytes: &[u8]| patched(b"basis", &[&delta::MAGIC[..], bytes].concat()).unwrap_err();
    assert!(patch(b"").ends_with("before its end command"));
    assert!(patch(b"\x55").ends_with("unknown command 0x55"));
    assert!(patch(b"\x44\xff\xff\xff\xff\xff\xff\xff\xffab").ends_with("middle of a literal"));
    assert!(patch(b"\x45\x01\x05\0").contains("copies 5 bytes from byte 1 on"));
    assert!(patch(b"\x54\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0").contains("does not have"));
    assert!(patched(b"", b"rs\x01\x36\0").unwrap_err().ends_with("does not begin as a delta does"));
}
