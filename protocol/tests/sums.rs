//! Block sums on their way from a generator to a sender that begins before all are there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use protocol::checksum::{BlockSeed, Checksum, FileHasher, weak};
use protocol::compress::Compression;
use protocol::delta::{Lead, Search, Token};
use protocol::flist::{FileEntry, FileList, Ndx};
use protocol::generator::Generator;
use protocol::handshake::{Compat, Negotiated};
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::{Inbox, Message, Outbox, TextKind};
use protocol::sender::{Request, Sender, SenderEvent, SenderFacts};
use protocol::sums::{StrongSums, SumHead};
use protocol::token::PackError;

const SEED: BlockSeed = BlockSeed { checksum: Checksum::Xxh128, seed: 3, seed_first: true };

fn sender() -> Sender {
    let n = negotiated();
    let mut inbox = Inbox::new();
    inbox.start_mux().unwrap();
    let facts = SenderFacts { server: false, dry_run: false, xattrs: false, append: false, sums_most: 1000 };
    let mut sender = Sender::new(&n, facts, inbox);
    let files = (0..3).map(|n| FileEntry::new(format!("file{n}"), 0o100_644)).collect();
    sender.list(&FileList::new(files)).unwrap();
    sender
}

fn negotiated() -> Negotiated {
    Negotiated {
        version: 31,
        compat: Compat::default(),
        checksum: SEED.checksum,
        list_checksum: SEED.checksum,
        seed: SEED.seed,
        compression: Compression::NONE,
    }
}

/// Asks for a file with the sums of this basis; words of the other side stand after every third of them.
fn ask(generator: &mut Generator, ndx: u32, basis: &[u8], head: &SumHead, out: &mut Outbox) {
    generator.request(Ndx(ndx), &ItemHeader { flags: ItemFlags::TRANSFER, ..ItemHeader::default() }, head, out);
    for (number, block) in basis.chunks(head.block_length as usize).enumerate() {
        generator.sum(head, weak(block), &SEED.sum(block), out);
        if number % 3 == 2 {
            out.message(&Message::Text(TextKind::Info, format!("word {number}").into()));
        }
    }
}

fn request(sender: &mut Sender, out: &mut Outbox) -> Request {
    match sender.poll(out).unwrap() {
        Some(SenderEvent::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reply_begins_while_sums_and_words_still_come() {
    let basis: Vec<u8> = (0..2300u32).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect();
    let head = SumHead::for_basis(basis.len() as u64, SEED.checksum.size(), StrongSums::Short, Some(100));
    let (mut generator, mut said) = (Generator::new(&negotiated()), Outbox::new());
    said.start_mux(31);
    ask(&mut generator, 1, &basis, &head, &mut said);
    // All blocks but one stand in the basis where they did.
    let mut source = basis.clone();
    source[1500] ^= 1;

    let (mut sender, mut out) = (sender(), Outbox::new());
    out.start_mux(31);
    let bytes = said.bytes();
    let (first, mut rest) = bytes.split_at(4 + 1 + 2 + 16 + 5);
    sender.feed(first).unwrap();
    let request = request(&mut sender, &mut out);
    let mut sums = request.sums.clone();
    assert_eq!((request.ndx, sums.remaining(), sums.head()), (Ndx(1), 23, head));
    let mut reply = sender.begin(&request, false, &mut out);
    let (mut lead, mut settled, mut words, mut copies) = (Lead::new(SEED), 0, Vec::new(), 0);
    let (mut waits, mut literal) = (0, 0);
    loop {
        while let Some(message) = reply.poll_sums(&mut sums, &mut out).unwrap() {
            words.push(message);
        }
        settled += lead
            .push(&source[settled..], &sums, |token| match token {
                Token::Literal(bytes) => {
                    literal += bytes.len();
                    reply.literal(bytes, &mut out)
                }
                Token::Copy(block, bytes) => {
                    copies += 1;
                    reply.copy(block, bytes, &mut out)
                }
            })
            .unwrap();
        // As far as its sums are here; to pass over the change takes the sum behind it.
        let kept = sums.kept() as usize;
        assert_eq!(settled, (if kept == 16 { 15 } else { kept }) * 100);
        if sums.remaining() == 0 {
            break;
        }
        waits += 1;
        let (now, later) = rest.split_at(rest.len().min(7));
        reply.feed(now).unwrap();
        rest = later;
    }
    assert!(waits > 20 && !lead.is_over());
    assert_eq!((copies, literal), (22, 100));
    let mut search = Search::behind(&sums, &lead);
    let mut emit = |token: Token<'_>| -> Result<(), PackError> {
        match token {
            Token::Literal(bytes) => literal += bytes.len(),
            Token::Copy(..) => copies += 1,
        }
        Ok(())
    };
    search.push(&source[settled..], &mut emit).unwrap();
    search.finish(&mut emit).unwrap();
    assert_eq!((copies, literal, words.len()), (22, 100, 7));
    let mut hasher = FileHasher::new(SEED.checksum);
    hasher.update(&source);
    reply.end(&hasher.finish(), &mut out).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn a_request_declined_early_has_its_sums_passed_over() {
    let basis = [7; 1000];
    let head = SumHead::for_basis(1000, SEED.checksum.size(), StrongSums::Whole, Some(100));
    let (mut generator, mut said) = (Generator::new(&negotiated()), Outbox::new());
    said.start_mux(31);
    ask(&mut generator, 0, &basis, &head, &mut said);
    ask(&mut generator, 2, &basis, &head, &mut said);
    let (mut sender, mut out) = (sender(), Outbox::new());
    out.start_mux(31);
    let mut asked = Vec::new();
    let mut words = 0;
    for byte in said.bytes() {
        sender.feed(&[*byte]).unwrap();
        while let Some(event) = sender.poll(&mut out).unwrap() {
            match event {
                SenderEvent::Request(request) => {
                    assert_eq!(request.sums.kept(), 0);
                    asked.push(request.ndx);
                    sender.decline(&request, &mut out);
                }
                SenderEvent::Message(_) => words += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((asked, words), (vec![Ndx(0), Ndx(2)], 6));
}

#[test]
fn a_peer_that_leaves_among_its_sums_is_heard() {
    let head = SumHead::for_basis(1000, SEED.checksum.size(), StrongSums::Whole, Some(100));
    let (mut generator, mut said) = (Generator::new(&negotiated()), Outbox::new());
    said.start_mux(31);
    ask(&mut generator, 0, &[7; 300], &head, &mut said);
    said.message(&Message::ErrorExit(Some(11)));
    let (mut sender, mut out) = (sender(), Outbox::new());
    out.start_mux(31);
    sender.feed(said.bytes()).unwrap();
    let mut request = request(&mut sender, &mut out);
    assert!(matches!(sender.poll_sums(&mut request.sums, &mut out), Ok(Some(Message::Text(..)))));
    let left = sender.poll_sums(&mut request.sums, &mut out).unwrap_err();
    assert_eq!(left, protocol::PeerError::Exit(11));
    assert_eq!((request.sums.kept(), request.sums.remaining()), (3, 7));
}
