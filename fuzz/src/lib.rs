//! What peers may send, as libFuzzer makes it up, read by everything that hears a peer. Whatever comes is understood, waited
//! for, or refused: nothing panics, overflows, or holds more than it may.
//!
//! Each function is a target of its own (`fuzz_targets`). What stands before the bytes of a peer says what was agreed with
//! it; a test of `protocol` writes recorded sessions in that form, for the fuzzer to begin with.
//!
//! Of the main crate, decoders are compiled here file by file, as what leads to them is no part of a library and needs a hundred
//! crates: `monitor`, `ocs` and so on stand in the place of the modules of that name, whose files they take by way of a symlink.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, dead_code, unused_imports)]

#[path = "../../protocol/tests/replay/case.rs"]
mod case;
#[path = "../../protocol/tests/replay/hostile.rs"]
mod hostile;
#[path = "../../protocol/tests/replay/machines.rs"]
mod machines;
#[path = "../../protocol/tests/replay/session.rs"]
mod session;
#[path = "../../protocol/tests/replay/setup.rs"]
mod setup;
#[path = "../../protocol/tests/replay/streams.rs"]
mod streams;
#[path = "../../protocol/tests/replay/verify.rs"]
mod verify;

mod archiver;
mod catalog;
mod clock;
mod daemon;
mod disk;
mod monitor;
mod ocs;
mod rdiff;
mod transport;

use protocol::args::ServerArgs;
use protocol::batch::BatchHead;
use protocol::charset::Charset;
use protocol::checksum::{BlockRule, Checksum};
use protocol::chmod::Chmod;
use protocol::compress::{Choice, Wish};
use protocol::daemon::{ArgList, Client, Greeting, Server};
use protocol::delta::{Search, Token};
use protocol::filter::{Action, Given, Mode, Origin, ParentDir, Rule, RuleSet, RuleSide, cvs_rules, parse_file};
use protocol::flist::{ListDecoder, ListEncoder, ListLimits};
use protocol::handshake::{Handshake, Hello, Side};
use protocol::item::{ItemHeader, XattrLists};
use protocol::mux::{Inbox, Outbox};
use protocol::ndx::NdxState;
use protocol::receiver::ReceiverFacts;
use protocol::sender::{FinalStats, SenderFacts};
use protocol::sums::{BlockIndex, StrongSums, SumHead, SumTable};
use protocol::token::{TokenEvent, TokenHead, TokenReader};
use protocol::wire::{Decode, Reader};
use protocol::xattr::XattrListKind;
use setup::Setup;

/// So little that the fuzzer reaches it.
const LIMITS: ListLimits = ListLimits { entries: 100, name_bytes: 10_000, beside: 20_000 };

/// What a client or a daemon says before its session; and the words of a server.
pub fn arguments(data: &[u8]) {
    let Some((&end, rest)) = data.split_first() else { return };
    let end = if end & 1 == 0 { 0 } else { b'\n' };
    let mut list = ArgList::new(end);
    let _ = list.feed(rest);
    let words: Vec<&[u8]> = rest.split(|&byte| byte == end).collect();
    if let Ok(args) = ServerArgs::parse(&words) {
        let said = ServerArgs::parse(&args.to_words()).unwrap();
        assert_eq!(said.paths, args.paths);
        // What a sender is not told may have kept segments from it.
        let again = ServerArgs::parse(&said.to_words()).unwrap();
        assert_eq!(ServerArgs { capabilities: said.capabilities.clone(), ..again }, said);
    }
}

/// Both sides of the lines before a daemon's session.
pub fn daemon(data: &[u8]) {
    let Some((&chunk, rest)) = data.split_first() else { return };
    let _ = Greeting::parse(rest);
    let (mut client, mut server) = (Client::new(), Server::new());
    for piece in rest.chunks(usize::from(chunk) + 1) {
        client.feed(piece);
        while let Ok(Some(_)) = client.poll() {}
        server.feed(piece);
        while let Ok(Some(event)) = server.poll() {
            match event {
                protocol::daemon::ServerEvent::Module { .. } if chunk & 1 == 0 => server.challenge(),
                protocol::daemon::ServerEvent::Module { .. } => server.accept(),
                _ => {}
            }
        }
    }
    (client.into_rest(), server.into_rest());
}

/// A new file against the sums of an old one: what the tokens say is the new file.
pub fn delta(data: &[u8]) {
    let Some((&[cut, length, chunk], rest)) = data.split_first_chunk() else { return };
    let (old, new) = rest.split_at(usize::from(cut) * rest.len() / 255);
    let strong = if length & 1 == 0 { StrongSums::Short } else { StrongSums::Whole };
    let head = SumHead::for_basis(old.len() as u64, 16, strong, Some(u32::from(length / 2) + 1));
    let seed = protocol::checksum::BlockSeed::new(Checksum::Md5, 7, true);
    let rule = BlockRule::from(seed);
    let mut table = SumTable::new(head, 16, 1000);
    for block in old.chunks(head.block_length.max(1) as usize) {
        let sum = rule.strong(block);
        table.push(rule.rolling(block).value(), &sum.as_bytes()[..head.strong_length as usize]);
    }
    let mut rebuilt = Vec::new();
    let mut emit = |token: Token<'_>| {
        let bytes = match token {
            Token::Literal(bytes) => bytes,
            Token::Copy(BlockIndex(block), bytes) => {
                assert!(block < head.count);
                // A short sum may be one of other bytes: the sum of the file finds that.
                assert!(strong == StrongSums::Short || old_block(old, &head, block) == bytes);
                bytes
            }
        };
        rebuilt.extend_from_slice(bytes);
        Ok::<_, std::convert::Infallible>(())
    };
    let mut search = Search::new(&table, seed);
    for piece in new.chunks(usize::from(chunk) + 1) {
        search.push(piece, &mut emit).unwrap();
    }
    search.finish(&mut emit).unwrap();
    assert_eq!(rebuilt, new);
}

fn old_block<'o>(old: &'o [u8], head: &SumHead, block: u32) -> &'o [u8] {
    let start = head.offset(BlockIndex(block)) as usize;
    &old[start..start + head.block_len(BlockIndex(block)) as usize]
}

/// Rules of a file, and names they are asked about.
pub fn filters(data: &[u8]) {
    let Some((&[how, side], rest)) = data.split_first_chunk() else { return };
    let bare = [None, Some(Action::Exclude), Some(Action::Include)][usize::from(how % 3)];
    let mode = Mode {
        bare,
        old_prefixes: how & 4 != 0,
        word_split: how & 8 != 0,
        cvs: how & 16 != 0,
        from0: how & 32 != 0,
        delete_excluded: how & 64 != 0,
        ..Mode::default()
    };
    let (name, text) = rest.split_at(rest.len().min(usize::from(side >> 1)).min(rest.len()));
    let Ok(given) = parse_file(text, &mode, Some("rules")) else { return };
    let rules: Vec<_> = given.into_iter().filter_map(rule_of).collect();
    for version in [27, 29, 32] {
        let _ = protocol::filter::encode(&rules, RuleSide::Sender, version);
    }
    let side = if side & 1 == 0 { RuleSide::Sender } else { RuleSide::Receiver };
    let set = RuleSet::new(side, &rules);
    let scope = set.top(b"/top");
    let read = &mut |_: &[u8]| Ok((text.len() < 200).then(|| text.to_vec()));
    if let Ok(inside) = set.enter(&scope, b"dir", read) {
        for is_dir in [false, true] {
            set.excludes(&inside, name, is_dir, ParentDir::Kept);
        }
    }
    if let Some(Rule::Match(like)) = rules.iter().find(|rule| matches!(rule, Rule::Match(_))) {
        cvs_rules(like, &[(Origin::default(), text.to_vec())]);
    }
}

/// The beginning of a session.
pub fn handshake(data: &[u8]) {
    let Some((&[how, version, chunk], rest)) = data.split_first_chunk() else { return };
    let side = if how & 1 == 0 { Side::Client } else { Side::Server { letters: b"LsfxCIvu".to_vec(), seed: 3 } };
    let choice = (how & 2 != 0).then_some((Checksum::Md5, Checksum::Sha1));
    let compression = Wish { choice: if how & 4 != 0 { Choice::Negotiated } else { Choice::Off }, level: None };
    let incremental = how & 8 != 0;
    let hello = Hello { choice, compression, incremental, ..Hello::new(side, 27 + version % 6) };
    let mut out = Outbox::new();
    let mut handshake = Handshake::new(hello, &mut out);
    for piece in rest.chunks(usize::from(chunk) + 1) {
        if handshake.feed(piece).is_err() {
            break;
        }
        match handshake.poll(&mut out) {
            Ok(None) => {}
            Ok(Some(n)) => {
                assert!((27..=32).contains(&n.version));
                break;
            }
            Err(_) => break,
        }
    }
    assert!(out.len() < 200);
}

/// Small things of fixed shape: what was understood is written as it was read.
pub fn heads(data: &[u8]) {
    let Some((setup, rest)) = Setup::read(data) else { return };
    let n = &setup.n;
    if let Some((array, rest)) = rest.split_first_chunk::<16>()
        && let Ok(head) = SumHead::decode(array, n.checksum.size())
    {
        assert!(head.count == 0 || (1..=131_072).contains(&head.block_length));
        assert!(head.remainder <= head.block_length && head.strong_length as usize <= n.checksum.size().max(16));
        assert_eq!(SumHead::decode(&head.encode(), n.checksum.size()), Ok(head));
        head.basis_len();
        if let Ok(TokenHead::Copy(block)) = TokenHead::decode(&mut Reader::new(rest), &head) {
            assert!(block.0 < head.count);
            (head.offset(block), head.block_len(block));
        }
    }
    let kind = if setup.flags & 1 == 0 { XattrListKind::Given } else { XattrListKind::Wanted };
    let lists = XattrLists::of(n, setup.flags & 2 != 0, setup.flags & 4 != 0, kind);
    let mut reader = Reader::new(rest);
    let mut ndx = NdxState::new(n.ints());
    while let Ok(value) = ndx.decode(&mut reader) {
        let mut again = Vec::new();
        NdxState::new(n.ints()).encode(value, &mut again);
        assert_eq!(NdxState::new(n.ints()).decode(&mut Reader::new(&again)), Ok(value));
        match ItemHeader::decode_of(n, &mut reader, lists) {
            Ok(header) => {
                let mut again = Vec::new();
                header.encode_of(n, &mut again);
                assert_eq!(ItemHeader::decode_of(n, &mut Reader::new(&again), lists), Ok(header));
            }
            Err(Decode::Incomplete | Decode::Bad(_)) => break,
        }
    }
    let _ = FinalStats::decode(n, &mut Reader::new(rest));
    if let Ok(head) = BatchHead::decode(&mut Reader::new(rest), 32) {
        let mut options = Default::default();
        if head.apply(&mut options).is_ok() {
            head.negotiated(&options);
        }
    }
}

/// A file list, whole or in segments; whatever was understood can be written.
pub fn lists(data: &[u8]) {
    let Some((setup, rest)) = Setup::read(data) else { return };
    let mut decoder = ListDecoder::new(&setup.n, setup.shape, LIMITS);
    let mut reader = Reader::new(rest);
    let (mut entries, mut names) = (0, 0);
    loop {
        match decoder.step(&mut reader) {
            Ok(true) => {
                let arrived = decoder.next_segment();
                entries += arrived.list.len();
                names += arrived.list.entries().iter().map(|entry| entry.name.len()).sum::<usize>();
                let _ = arrived.list.check_parents();
                let (mut encoder, mut out) = (ListEncoder::new(&setup.n, setup.shape), Vec::new());
                for entry in arrived.list.entries() {
                    encoder.entry(entry, &mut out);
                }
            }
            Ok(false) => {}
            Err(_) => break,
        }
    }
    assert!(entries <= LIMITS.entries && names <= LIMITS.name_bytes, "{entries} {names}");
}

/// Frames: payload and messages.
pub fn mux(data: &[u8]) {
    let Some((&chunk, rest)) = data.split_first() else { return };
    let mut inbox = Inbox::new();
    inbox.start_mux().unwrap();
    let mut out = Outbox::new();
    out.start_mux(31);
    for piece in rest.chunks(usize::from(chunk) + 1) {
        if inbox.feed(piece).is_err() {
            break;
        }
        loop {
            let len = inbox.payload().len();
            inbox.consume(len);
            let Some(message) = inbox.message() else { break };
            out.message(&message);
        }
    }
    assert!(out.len() <= 2 * rest.len() + 100);
    let _ = protocol::mux::ends_in_error_exit(rest);
}

/// Names in other character sets, and those of a list of files.
pub fn names(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    let charsets = ["utf-8", "iso-8859-1", "shift_jis", "gb18030", "euc-kr", "iso-2022-jp", "koi8-r", "big5"];
    if let Some(charset) = Charset::from_name(charsets[usize::from(which) % charsets.len()].as_bytes()) {
        if let Some(text) = charset.to_utf8(rest) {
            charset.from_utf8(&text);
        }
        charset.from_utf8(rest);
        charset.text_from_utf8(&charset.text_to_utf8(rest));
    }
    Charset::from_name(rest);
    let names: Vec<_> = protocol::names::of_file(rest, which & 1 == 0).map(<[u8]>::to_vec).collect();
    for name in &names {
        let clean = protocol::names::clean(name, which & 2 == 0);
        assert!(!clean.contains(&0) || name.contains(&0));
        assert!(clean.len() <= name.len() + 1);
    }
    protocol::names::encode(names.iter().map(Vec::as_slice));
}

/// A receiver that hears a sender.
pub fn receiver(data: &[u8]) {
    let Some((setup, rest)) = Setup::read(data) else { return };
    let facts = ReceiverFacts {
        shape: setup.shape,
        limits: LIMITS,
        server: setup.flags & 1 != 0,
        dry_run: setup.flags & 2 != 0,
    };
    hostile::receive(&setup.n, facts, rest, setup.chunk);
}

/// The same, of bytes that need no frames: the fuzzer gets further.
pub fn segments(data: &[u8]) {
    let Some((setup, rest)) = Setup::read(data) else { return };
    let parts: Vec<_> = rest.chunks(4000).map(<[u8]>::to_vec).collect();
    let facts = ReceiverFacts {
        shape: setup.shape,
        limits: LIMITS,
        server: setup.flags & 1 != 0,
        dry_run: setup.flags & 2 != 0,
    };
    hostile::receive(&setup.n, facts, &hostile::framed(&parts), setup.chunk);
}

/// A sender that hears a generator.
pub fn sender(data: &[u8]) {
    let Some((setup, rest)) = Setup::read(data) else { return };
    let flag = |bit: u8| setup.flags & bit != 0;
    let facts = SenderFacts { server: flag(1), dry_run: flag(2), xattrs: flag(4), append: flag(8), sums_most: 100 };
    // An echo is no longer than what it answers, a farewell is short.
    assert!(hostile::send(&setup.n, facts, 30, rest, setup.chunk) <= 12 * rest.len() + 100);
}

/// Options that are texts.
pub fn texts(data: &[u8]) {
    if let Some(chmod) = Chmod::parse(data) {
        for mode in [0, 0o100_644, 0o040_755, u32::MAX] {
            chmod.apply(mode, mode & 0o040_000 != 0, 0o022);
        }
    }
    protocol::args::parse_size(data, b'K');
    Checksum::from_name(data);
}

/// The data of files, packed in each way.
pub fn tokens(data: &[u8]) {
    let Some((setup, rest)) = Setup::read(data) else { return };
    let Some((&blocks, rest)) = rest.split_first() else { return };
    let head = SumHead { count: u32::from(blocks), block_length: 700, strong_length: 2, remainder: 0 };
    let mut tokens = TokenReader::new(&setup.n);
    let mut reader = Reader::new(rest);
    let (mut files, mut unpacked) = (0, 0);
    tokens.begin(head);
    // What unpacks without end takes its time for each step, and is not what is looked for.
    while files < 50 && unpacked < 1 << 20 {
        match tokens.step(&mut reader) {
            Ok(TokenEvent::End) => {
                files += 1;
                tokens.begin(head);
            }
            Ok(TokenEvent::Copy(block)) => {
                assert!(block.0 < head.count);
                unpacked += 700;
                if tokens.wants_matched() && tokens.matched(&[7; 700]).is_err() {
                    break;
                }
            }
            // They stand in the reader.
            Ok(TokenEvent::Plain(len)) => unpacked += reader.take(len).map_or(0, <[u8]>::len),
            Ok(TokenEvent::Unpacked) => unpacked += tokens.unpacked().len(),
            Ok(TokenEvent::Nothing) => {}
            Err(_) => break,
        }
    }
}

/// The rule that a piece of text gives, if it gives one.
fn rule_of(given: Given) -> Option<Rule> {
    match given {
        Given::Rule(rule) => Some(rule),
        _ => None,
    }
}

/// Datagrams that announce files.
pub fn datagrams(data: &[u8]) {
    monitor::datagrams(data);
}

/// Messages of an OCS router.
pub fn wamp(data: &[u8]) {
    ocs::messages(data);
}

/// The file of an OCS site.
pub fn site(data: &[u8]) {
    ocs::sites(data);
}

/// Places of copies, as rows and batches have them.
pub fn places(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    if which & 1 == 0 { archiver::rows(rest) } else { archiver::batches(rest) }
}

/// Configuration of the daemon; what a proxy says of a client, and who is let in.
pub fn conf(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    if which & 1 == 0 { daemon::modules(rest) } else { daemon::doors(rest) }
}

/// Configuration of SSH; what stands in attributes.
pub fn settings(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    if which & 1 == 0 { transport::settings(rest) } else { disk::kept(rest) }
}

/// A signature, a new file against it, and a delta that somebody has made.
pub fn deltas(data: &[u8]) {
    let Some((&cut, rest)) = data.split_first_chunk() else { return };
    let (first, second) = rest.split_at(usize::from(u16::from_le_bytes(cut)).min(rest.len()));
    if let Ok(signature) = rdiff::Signature::read(&mut &first[..]) {
        let _ = (signature.blocks(), signature.block_length());
        rdiff::write_delta(&signature, &mut &second[..], &mut Vec::new()).unwrap();
    }
    // As long as the commands say: a copy of so little is soon made.
    let mut room = Bounded(1 << 20);
    let _ = rdiff::apply(&mut std::io::Cursor::new(first), &mut &second[..], &mut room);
}

/// Takes so many bytes.
struct Bounded(usize);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
