//! Sender against Receiver and Generator, whole sessions in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "replay/pair.rs"]
mod pair;

use pair::{Plan, Planned, Receiving, Sending, hold};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use protocol::checksum::Checksum;
use protocol::compress::Compression;
use protocol::compress::{Choice, Method, Wish};
use protocol::flist::{FileEntry, FileList, IdNames, ListEncoder, ListLimits, ListShape};
use protocol::generator::Generator;
use protocol::handshake::{Compat, Negotiated};
use protocol::mux::{Inbox, Outbox};
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts};
use protocol::sender::{Sender, SenderEvent, SenderFacts};

const CHECKSUMS: [Checksum; 8] = [
    Checksum::Xxh128,
    Checksum::Xxh3,
    Checksum::Xxh64,
    Checksum::Md5,
    Checksum::Md4,
    Checksum::Sha1,
    Checksum::None,
    Checksum::Blake3,
];
const CHOICES: [Choice; 6] = [
    Choice::Off,
    Choice::Negotiated,
    Choice::Named(Method::Zlib),
    Choice::Named(Method::Zlibx),
    Choice::Named(Method::Lz4),
    Choice::Named(Method::Zstd),
];
const LETTERS: [&[u8]; 3] = [b"LsfxCIvu", b"LsfxC", b"Lsf"];

fn bytes(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn planned(name: &str, content: Vec<u8>, basis: Option<Vec<u8>>) -> Planned {
    Planned { name: name.into(), content, basis, damaged: false, declined: false }
}

/// A file of each sort.
fn files() -> Vec<Planned> {
    let old = bytes(1, 5000);
    let mut new = old.clone();
    new.splice(1500..1510, *b"something else");
    let mut damaged = planned("bad", new.clone(), Some(old.clone()));
    damaged.damaged = true;
    let mut declined = planned("dir/unreadable", bytes(2, 100), None);
    declined.declined = true;
    vec![
        planned("new", bytes(3, 3000), None),
        planned("empty", Vec::new(), None),
        planned("emptied", Vec::new(), Some(old.clone())),
        planned("dir/changed", new, Some(old.clone())),
        planned("dir/same", old.clone(), Some(old)),
        planned("large", bytes(4, 100_000), None),
        damaged,
        declined,
    ]
}

/// Small, and with all of the above in it.
fn small(version: u8, push: bool) -> Plan {
    let old = bytes(1, 1500);
    let mut changed = planned("a", [&old[..710], b"!", &old[710..]].concat(), Some(old));
    changed.damaged = true;
    let mut declined = planned("dir/c", b"c".to_vec(), None);
    declined.declined = true;
    let files = vec![changed, planned("b", b"bee".to_vec(), None), declined];
    Plan { version, checksum: Checksum::Xxh3, letters: LETTERS[0], push, files, seed: -77, compression: Wish::OFF }
}

fn check(plan: &Plan, chunk: usize) -> pair::Held {
    let held = hold(plan, chunk);
    let detects = plan.checksum != Checksum::None;
    for file in &plan.files {
        if file.declined {
            assert!(held.not_sent.contains(&file.name) && !held.built.contains_key(&file.name));
        } else if detects || !file.damaged {
            assert_eq!(held.built.get(&file.name), Some(&file.content), "{}", file.name);
        }
    }
    let damaged = plan.files.iter().filter(|file| file.damaged).count();
    assert_eq!(held.redone, if detects { damaged } else { 0 });
    held
}

#[test]
fn every_version_checksum_and_role() {
    for version in 27..=32 {
        for checksum in CHECKSUMS {
            for letters in LETTERS {
                for push in [true, false] {
                    let compression = Wish::OFF;
                    let plan = Plan { version, checksum, letters, push, files: files(), seed: 1_000_003, compression };
                    check(&plan, usize::MAX);
                    for choice in CHOICES {
                        let compression = Wish { choice, level: None };
                        if checksum == Checksum::Xxh3 {
                            check(&Plan { compression, ..plan.clone() }, usize::MAX);
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

    /// Any tree arrives, and the events are the same however the bytes are split.
    #[test]
    fn any_session_in_any_pieces(
        version in 27u8..=32,
        checksum in 0usize..8,
        letters in 0usize..3,
        choice in 0usize..6,
        push: bool,
        seed: i32,
        shapes in proptest::collection::vec((0usize..4000, 0usize..4, any::<bool>(), 0usize..8), 0..8),
        chunk in 1usize..600,
    ) {
        let files = shapes.iter().enumerate().map(|(at, &(len, basis, dir, fate))| {
            let content = bytes(at as u32 + 9, len);
            let basis = match basis {
                0 => None,
                1 => Some(content.clone()),
                2 => Some([&content[len / 2..], &content[..len / 2]].concat()),
                _ => Some(bytes(1000, len)),
            };
            let name = if dir { format!("dir/{at}") } else { format!("{at}") };
            // Only literals are damaged.
            let damaged = fate == 0 && basis.is_none() && len > 0;
            Planned { name, content, basis, damaged, declined: fate == 1 }
        }).collect();
        let compression = Wish { choice: CHOICES[choice], level: None };
        let plan = Plan { version, checksum: CHECKSUMS[checksum], letters: LETTERS[letters], push, files, seed, compression };
        let whole = check(&plan, usize::MAX);
        let split = check(&plan, chunk);
        prop_assert_eq!(whole.sending_log, split.sending_log);
        prop_assert_eq!(whole.receiving_log, split.receiving_log);
    }
}

#[test]
fn byte_by_byte_is_the_same() {
    for version in 27..=32 {
        for push in [true, false] {
            for choice in CHOICES {
                let plan = Plan { compression: Wish { choice, level: None }, ..small(version, push) };
                let (whole, single) = (check(&plan, usize::MAX), check(&plan, 1));
                assert_eq!((whole.sending_log, whole.receiving_log), (single.sending_log, single.receiving_log));
            }
        }
    }
}

#[test]
fn a_session_cut_off_is_never_over() {
    for version in 27..=32 {
        for push in [true, false] {
            let plan = small(version, push);
            let held = hold(&plan, usize::MAX);
            for cut in 0..held.to_sending.len() {
                let mut sending = Sending::new(&plan);
                sending.hear(&held.to_sending[..cut]).unwrap();
                assert!(!sending.is_over() && held.sending_log.starts_with(&sending.log), "{cut}");
            }
            for cut in 0..held.to_receiving.len() {
                let mut receiving = Receiving::new(&plan);
                receiving.hear(&held.to_receiving[..cut]).unwrap();
                assert!(!receiving.is_over() && held.receiving_log.starts_with(&receiving.log), "{cut}");
            }
        }
    }
}

#[test]
fn a_changed_byte_is_an_error_or_other_events() {
    let plan = small(31, true);
    let held = hold(&plan, usize::MAX);
    let mut unnoticed = 0;
    for at in 0..held.to_sending.len() {
        for bit in 0..8 {
            let mut bytes = held.to_sending.clone();
            bytes[at] ^= 1 << bit;
            let mut sending = Sending::new(&plan);
            let ended = sending.hear(&bytes);
            // Whatever was asked for, no answer is out of proportion to the question.
            assert!(sending.out.len() < 20_000, "{at}.{bit}");
            unnoticed += usize::from(ended.is_ok() && sending.is_over() && sending.log == held.sending_log);
        }
    }
    assert!(unnoticed < held.to_sending.len() / 4, "{unnoticed}");
    for at in 0..held.to_receiving.len() {
        for bit in 0..8 {
            let mut bytes = held.to_receiving.clone();
            bytes[at] ^= 1 << bit;
            let mut receiving = Receiving::new(&plan);
            let ended = receiving.hear(&bytes);
            for (name, content) in &receiving.built {
                // A file that arrived whole is right: its sum says so. Only its name may be another's.
                assert!(plan.files.iter().any(|file| file.content == *content), "{at}.{bit} {name}");
            }
            let same = receiving.log == held.receiving_log;
            assert!(ended.is_err() || !same || receiving.is_over(), "{at}.{bit}");
        }
    }
}

/// A silent generator of 29 says so by an item that is none. The sender answers alike, and the receiver passes over it; but
/// behind the last phase, and before 29, nobody says so.
#[test]
fn keep_alives_before_30_change_nothing() {
    let n = |version| Negotiated {
        version,
        compat: Compat(0),
        checksum: Checksum::SeededMd4(7),
        list_checksum: Checksum::Md4,
        seed: 7,
        compression: Compression::NONE,
    };
    let list = || FileList::new(vec![FileEntry::new("f", 0o100_644)]);
    let (mut generator, mut said) = (Generator::new(&n(29)), Outbox::new());
    generator.keep_alive(1, &mut said);
    let keep_alive = [1, 0, 0, 0, 0, 0x20];
    assert_eq!(said.bytes(), keep_alive);

    let facts = SenderFacts { server: true, dry_run: false, xattrs: false, append: false, sums_most: 10 };
    let mut inbox = Inbox::new();
    inbox.stay_bare();
    let (mut sender, mut out) = (Sender::new(&n(29), facts, inbox), Outbox::new());
    sender.feed(&[0; 4]).unwrap();
    assert!(matches!(sender.poll(&mut out), Ok(Some(SenderEvent::FiltersDone))));
    sender.list(&list()).unwrap();
    for byte in said.bytes() {
        sender.feed(&[*byte]).unwrap();
        assert!(matches!(sender.poll(&mut out), Ok(None)));
    }
    assert_eq!(out.bytes(), keep_alive);

    let (limits, shape) = (ListLimits::default(), ListShape::default());
    let facts = ReceiverFacts { shape, limits, server: true, dry_run: false };
    let mut inbox = Inbox::new();
    inbox.stay_bare();
    let mut receiver = Receiver::new(&n(29), facts, inbox);
    let (mut bytes, mut encoder) = (Vec::new(), ListEncoder::new(&n(29), shape));
    list().entries().iter().for_each(|entry| encoder.entry(entry, &mut bytes));
    encoder.end(0, &IdNames::default(), &mut bytes);
    receiver.feed(&bytes).unwrap();
    assert!(matches!(receiver.poll(), Ok(Some(ReceiverEvent::List(_)))));
    assert!(matches!(receiver.poll(), Ok(Some(ReceiverEvent::ListEnd))));
    receiver.feed(out.bytes()).unwrap();
    assert!(matches!(receiver.poll(), Ok(None)));

    for (version, phases, told) in [(29, 3, false), (29, 2, true), (28, 0, false), (27, 0, false)] {
        let (mut generator, mut said) = (Generator::new(&n(version)), Outbox::new());
        (0..phases).for_each(|_| generator.done(&mut said));
        let before = said.len();
        generator.keep_alive(1, &mut said);
        assert_eq!(said.len() > before, told, "{version} {phases}");
    }
}
