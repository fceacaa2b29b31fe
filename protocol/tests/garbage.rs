//! Whatever a peer sends, decoders and machines give a value, ask for more, or refuse: they never panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

#[path = "replay/case.rs"]
mod case;
#[path = "replay/corpora.rs"]
mod corpora;
#[path = "replay/hostile.rs"]
mod hostile;
#[path = "replay/machines.rs"]
mod machines;
#[path = "replay/session.rs"]
mod session;
#[path = "replay/setup.rs"]
mod setup;
#[path = "replay/streams.rs"]
mod streams;
#[path = "replay/verify.rs"]
mod verify;

use case::Case;
use hostile::{framed, receive, send};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use protocol::args::ServerArgs;
use protocol::checksum::Checksum;
use protocol::compress::{Choice, Compression, Method, Wish};
use protocol::flist::{ListDecoder, ListLimits, ListShape};
use protocol::handshake::{Compat, Handshake, Hello, Negotiated, Offer, Side};
use protocol::item::{ItemHeader, XattrLists};
use protocol::mux::Outbox;
use protocol::receiver::ReceiverFacts;
use protocol::sender::SenderFacts;
use protocol::sums::SumHead;
use protocol::token::TokenHead;
use protocol::wire::{Decode, Reader};
use protocol::xattr::XattrListKind;
use session::Session;
use std::sync::LazyLock;

/// Recorded sessions that the machines can play.
static CASES: LazyLock<Vec<(Case, Session)>> = LazyLock::new(|| {
    let cases = case::all().into_iter().map(|case| {
        let session = Session::new(&case);
        (case, session)
    });
    cases.filter(|(_, session)| machines::playable(session)).collect()
});

/// A change to a recording.
#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Drop(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), prop_oneof![Just(0), Just(0xff), Just(0x80), any::<u8>()]).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), 1usize..9).prop_map(|(at, len)| Change::Drop(at, len)),
        (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        at().prop_map(Change::Cut),
    ]
}

fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match change {
            Change::Set(at, byte) => bytes[at.index(len)] = *byte,
            Change::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Change::Drop(at, n) => {
                let at = at.index(len);
                bytes.drain(at..(at + n).min(len));
            }
            Change::Insert(at, new) => {
                let at = at.index(len);
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Cut(at) => bytes.truncate(at.index(len)),
        }
    }
    bytes
}

fn negotiated() -> impl Strategy<Value = Negotiated> {
    let checksum = || {
        prop_oneof![
            Just(Checksum::Xxh3),
            Just(Checksum::Md5),
            Just(Checksum::Sha1),
            Just(Checksum::None),
            Just(Checksum::Blake3)
        ]
    };
    let method =
        prop_oneof![Just(Method::None), Just(Method::Zlib), Just(Method::Zlibx), Just(Method::Lz4), Just(Method::Zstd)];
    (27u8..=32, any::<u32>(), checksum(), checksum(), any::<i32>(), method).prop_map(
        |(version, compat, checksum, list_checksum, seed, method)| {
            let compression = Compression::new(method, None);
            let compat = Compat(if version < 30 { 0 } else { compat & !Compat::INC_RECURSE.0 });
            Negotiated { version, compat, checksum, list_checksum, seed, compression }
        },
    )
}

fn shape() -> impl Strategy<Value = ListShape> {
    (any::<[bool; 12]>(), prop_oneof![Just(0usize), Just(8), Just(32)]).prop_map(|(on, sum_size)| ListShape {
        owner: on[0],
        group: on[1],
        links: on[2],
        devices: on[3],
        specials: on[4],
        numeric_ids: on[5],
        relative: on[6],
        missing_args: on[11],
        hard_links: on[7],
        recurse: on[0],
        charset: None,
        atimes: on[8],
        acls: on[9],
        xattrs: on[10],
        sum_size,
    })
}

fn settings(cases: u32, seed: u64) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(settings(2000, 6))]

    #[test]
    fn small_decoders(bytes in vec(any::<u8>(), 0..40), head in any::<[u32; 4]>(), digest in 1usize..=32) {
        let mut array = [0; 16];
        for (place, number) in array.chunks_exact_mut(4).zip(head) {
            // Small numbers are the interesting ones.
            place.copy_from_slice(&(if number & 1 == 0 { number >> 20 } else { number }).to_le_bytes());
        }
        if let Ok(head) = SumHead::decode(&array, digest) {
            prop_assert!(head.count == 0 || (1..=131_072).contains(&head.block_length));
            prop_assert!(head.remainder <= head.block_length && head.strong_length <= 32);
            prop_assert_eq!(SumHead::decode(&head.encode(), digest), Ok(head));
            let _ = head.basis_len();
            if let Ok(TokenHead::Copy(block)) = TokenHead::decode(&mut Reader::new(&bytes), &head) {
                prop_assert!(block.0 < head.count);
            }
        }
        let mut reader = Reader::new(&bytes);
        let lists = match head[0] % 4 {
            0 => XattrLists::Refused,
            1 => XattrLists::Absent,
            2 => XattrLists::Present { kind: XattrListKind::Given, skip_links: head[1] % 2 == 0 },
            _ => XattrLists::Present { kind: XattrListKind::Wanted, skip_links: head[1] % 2 == 0 },
        };
        match ItemHeader::decode(&mut reader, lists) {
            Ok(header) => {
                let mut again = Vec::new();
                header.encode(&mut again);
                let mut second = Reader::new(&again);
                prop_assert_eq!(ItemHeader::decode(&mut second, lists), Ok(header));
            }
            Err(Decode::Incomplete) => prop_assert!(bytes.len() < 4 || reader.position() <= bytes.len()),
            Err(Decode::Bad(_)) => {}
        }
    }

    #[test]
    fn tokens_are_written_as_they_are_read(token: i32, count in 0u32..=i32::MAX as u32) {
        let head = SumHead { count, block_length: 700, strong_length: 2, remainder: 0 };
        let bytes = token.to_le_bytes();
        match TokenHead::decode(&mut Reader::new(&bytes), &head) {
            Ok(head) => prop_assert_eq!(head.encode(), bytes),
            Err(error) => prop_assert!(matches!(error, Decode::Bad(_)) && token < 0),
        }
    }

    #[test]
    fn server_arguments(words in vec(prop_oneof![
        "[-a-zA-Z0-9=.,%@ ]{0,12}",
        "-[vlogDtpreiLsfxCIuBcnWRqdOJEkL.0-9]{1,12}",
        "--[a-z-]{1,20}(=[-a-z0-9,%]{0,8})?",
        Just("--checksum-choice=md5,xxh64".to_string()), Just("--timeout=60".to_string()), Just("--modify-window=9".to_string()),
        Just("-B700".to_string()), Just("--sender".to_string()), Just(".".to_string()), Just("--specials".to_string()),
        Just("--log-format=%i%I".to_string()), Just("--checksum-seed=-5".to_string()), Just("--server".to_string()),
    ], 0..8), server: bool) {
        let mut words = words;
        if server {
            words.insert(0, "--server".into());
            words.extend([".".to_string(), "x".to_string()]);
        }
        if let Ok(args) = ServerArgs::parse(&words) {
            // What was understood can be said in our own words, apart from what such a server is never told.
            let said = ServerArgs::parse(&args.to_words());
            prop_assert!(said.is_ok(), "{:?} {:?}", args.to_words(), said);
            let said = said.unwrap();
            prop_assert_eq!(&said.paths, &args.paths);
            prop_assert_eq!(ServerArgs::parse(&said.to_words()), Ok(said));
        }
    }

    #[test]
    fn handshakes(bytes in vec(any::<u8>(), 0..80), start in 0usize..6, client: bool, chosen: bool, packed: bool, chunk in 1usize..80) {
        let starts: [&[u8]; 6] = [
            &[],
            &[31, 0, 0, 0],
            &[31, 0, 0, 0, 0x81, 0xbe],
            &[32, 0, 0, 0, 0x80, 0x80, 4],
            &[29, 0, 0, 0],
            &[27, 0, 0, 0, 5],
        ];
        let bytes = [starts[start], &bytes].concat();
        let side = if client { Side::Client } else { Side::Server { letters: b"LsfxCIvu".to_vec(), seed: 3 } };
        let choice = chosen.then_some((Checksum::Md5, Checksum::Sha1));
        let mut out = Outbox::new();
        let choice_of_compression = if packed { Choice::Negotiated } else { Choice::Off };
        let compression = Wish { choice: choice_of_compression, level: None };
        let hello = Hello { choice, offer: Offer::Blake3, compression, ..Hello::new(side, 32) };
        let mut handshake = Handshake::new(hello, &mut out);
        for piece in bytes.chunks(chunk) {
            if handshake.feed(piece).is_err() {
                break;
            }
            match handshake.poll(&mut out) {
                Ok(None) => {}
                Ok(Some(n)) => {
                    prop_assert!((27..=32).contains(&n.version) && !n.compat.has(Compat::INC_RECURSE));
                    break;
                }
                Err(_) => break,
            }
        }
        prop_assert!(out.len() < 200);
    }

    #[test]
    fn senders_hear_garbage(
        n in negotiated(), parts in vec(vec(any::<u8>(), 0..60), 0..8), server: bool, dry_run: bool, xattrs: bool,
        chunk in 1usize..100,
    ) {
        let bytes = framed(&parts);
        let facts = SenderFacts { server, dry_run, xattrs, append: false, sums_most: 100 };
        // An echo is no longer than what it answers, a farewell is short.
        prop_assert!(send(&n, facts, 300, &bytes, chunk) <= 12 * bytes.len() + 100);
        send(&n, facts, 300, &parts.concat(), chunk);
    }

    #[test]
    fn receivers_hear_garbage(
        n in negotiated(), shape in shape(), parts in vec(vec(any::<u8>(), 0..60), 0..8), empty: bool, server: bool,
        dry_run: bool, chunk in 1usize..100,
    ) {
        let mut parts = parts;
        if empty {
            // A list of one file, so that the garbage is heard as files.
            let mut list = vec![0x14, 1, b'f', 0, 0, 3, 0, 0, 0, 0];
            list.extend(0o100_644u32.to_le_bytes());
            parts.insert(0, list);
        }
        let limits = ListLimits { entries: 100, name_bytes: 1000, ..ListLimits::default() };
        let facts = ReceiverFacts { shape, limits, server, dry_run };
        receive(&n, facts, &framed(&parts), chunk);
        receive(&n, facts, &parts.concat(), chunk);
    }

    #[test]
    fn segments_of_garbage(n in negotiated(), shape in shape(), bytes in vec(any::<u8>(), 0..200)) {
        let n = Negotiated { compat: Compat(n.compat.0 | 1), ..n };
        let limits = ListLimits { entries: 10, name_bytes: 500, ..ListLimits::default() };
        let mut decoder = ListDecoder::new(&n, shape, limits);
        let mut reader = Reader::new(&bytes);
        let (mut entries, mut names) = (0, 0);
        loop {
            match decoder.step(&mut reader) {
                Ok(true) => {
                    let list = decoder.next_segment().list;
                    entries += list.len();
                    names += list.entries().iter().map(|entry| entry.name.len()).sum::<usize>();
                }
                Ok(false) => {}
                Err(_) => break,
            }
        }
        prop_assert!(entries <= limits.entries && names <= limits.name_bytes);
    }
}

proptest! {
    #![proptest_config(settings(4000, 7))]

    /// Recorded sessions with something changed get further into the machines than noise does.
    #[test]
    fn recorded_sessions_with_changes(
        which: prop::sample::Index, changes in vec(change(), 1..4), chunk in 1usize..3000,
    ) {
        let (case, session) = which.get(&CASES);
        let (to_server, to_client) = (&case.c2s[session.c2s_raw..], &case.s2c[session.s2c_raw..]);
        let server_sends = session.words.server_sends;
        let (asked, sent) = if server_sends { (to_server, to_client) } else { (to_client, to_server) };
        let dry_run = session.words.has('n');
        let facts = SenderFacts { server: server_sends, dry_run, xattrs: false, append: false, sums_most: 100 };
        let bytes = changed(asked, &changes);
        prop_assert!(send(&session.n, facts, 25, &bytes, chunk) <= 12 * bytes.len() + 100);
        let shape = session.words.shape(session.n.list_checksum);
        let limits = ListLimits { entries: 100, name_bytes: 10_000, ..ListLimits::default() };
        let facts = ReceiverFacts { shape, limits, server: !server_sends, dry_run };
        receive(&session.n, facts, &changed(sent, &changes), chunk);
    }
}

/// `scripts/fuzz` has them written into a folder of its own.
#[test]
fn recorded_sessions_are_something_to_begin_with_for_each_target_of_the_fuzzer() {
    let scratch = std::env::temp_dir().join(format!("corpora-{}", std::process::id()));
    let folder = std::env::var_os("FUZZ_CORPORA").map_or(scratch.clone(), Into::into);
    corpora::write(&folder);
    let targets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    for target in std::fs::read_dir(targets).unwrap() {
        let target = target.unwrap().path();
        let name = target.file_stem().unwrap();
        // Those of the main crate have theirs beside them.
        let inputs = std::fs::read_dir(folder.join(name));
        let inputs = inputs.or_else(|_| std::fs::read_dir(target.with_file_name("../seeds").join(name))).unwrap();
        assert!(inputs.count() > 0, "{}", target.display());
    }
    for (case, session) in CASES.iter() {
        let input = std::fs::read(folder.join("receiver").join(&case.name));
        let Ok(input) = input else { continue };
        let (setup, _) = setup::Setup::read(&input).unwrap();
        let compression = Compression { level: session.n.compression.level, ..setup.n.compression };
        let n = Negotiated { seed: session.n.seed, compression, ..setup.n };
        assert_eq!((n, setup.shape), (session.n, session.words.shape(session.n.list_checksum)), "{}", case.name);
    }
    let _ = std::fs::remove_dir_all(scratch);
}

#[test]
fn recorded_words_are_understood_or_refused_by_name() {
    let (mut understood, mut refused) = (0, 0);
    for case in case::all() {
        let words = session::Words::new(&case.words);
        match ServerArgs::parse(&case.words) {
            Ok(args) => {
                understood += 1;
                let session = Session::new(&case);
                assert_eq!(args.sender, words.server_sends);
                assert_eq!(
                    args.options.list_shape(session.n.list_checksum.size()),
                    words.shape(session.n.list_checksum)
                );
                assert_eq!(args.options.checksum_choice, words.choice());
                assert_eq!(args.options.compression(), words.compression());
                assert_eq!(args.options.block_length, words.block_length());
                assert_eq!(args.capabilities, words.capabilities.as_bytes());
                let again = ServerArgs::parse(&args.to_words()).unwrap();
                assert_eq!(ServerArgs::parse(&again.to_words()), Ok(again));
            }
            Err(error) => {
                refused += 1;
                let message = error.to_string();
                let named = message.split(' ').nth(1).unwrap_or_default();
                assert!(case.words.iter().any(|word| word.contains(named.trim_start_matches('-'))), "{message}");
            }
        }
    }
    assert!(understood >= 100, "{understood} {refused}");
}
