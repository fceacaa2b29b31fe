//! What is known of a session from outside: the trees, the rules for sums, and how often each side says DONE.

use super::case::{Case, Kind};
use super::session::Session;
use super::streams::{Asked, Piece, Sent, Streams};
use protocol::checksum::{Checksum, FileHasher, Sum, weak};
use protocol::flist::{FileEntry, Ndx};
use protocol::item::ItemHeader;
use protocol::mux::Message;
use protocol::sums::{BlockIndex, StrongSums, SumHead};
use protocol::xattr::XattrList;
use std::collections::BTreeSet;

/// How much was compared.
#[derive(Default, Debug)]
pub(crate) struct Verified {
    pub(crate) entries: usize,
    pub(crate) files: usize,
    pub(crate) blocks: usize,
    pub(crate) redone: usize,
}

pub(crate) fn verify(case: &Case, session: &Session, streams: &Streams) -> Verified {
    let mut verified = Verified::default();
    for entry in streams.segments.iter().flat_map(|segment| &segment.entries) {
        check_entry(case, session, entry);
        verified.entries += 1;
    }
    check_requests(case, session, streams, &mut verified);
    let damaged = check_files(case, session, streams, &mut verified);
    assert_eq!(damaged, verified.redone, "a damaged copy is asked for again");
    assert!(!case.flipped || damaged == 1);
    check_messages(session);
    check_echoes(case, session, streams);
    check_done(case, session, streams);
    verified
}

fn check_entry(case: &Case, session: &Session, entry: &FileEntry) {
    let name = entry.name.escape_ascii().to_string();
    if case.unknown_source {
        match &entry.name[..] {
            b"dev/null" => assert_eq!(entry.extra.rdev, Some((1, 3))),
            b"dev/zero" => assert_eq!(entry.extra.rdev, Some((1, 5))),
            b"huge" => assert_eq!(entry.len, 5 << 30),
            b"big" => assert_eq!(entry.len, 3_000_000_000),
            _ => assert!(entry.is_dir(), "{name}"),
        }
        return;
    }
    let node = case.node(&entry.name).unwrap_or_else(|| panic!("{name} is not in the tree"));
    let words = &session.words;
    if words.has('t') && !case.unreadable {
        // Before 30 there are but the lower 32 bits.
        let known = if session.n.version < 30 { node.mtime & 0xffff_ffff } else { node.mtime };
        assert_eq!(entry.mtime, known, "{name}");
    }
    assert_eq!(entry.nsec, if session.n.version >= 31 { node.nsec } else { 0 }, "{name}");
    if !case.unreadable {
        // An ACL's mask stands where the group's permissions were.
        let known = if words.has('A') { 0o7707 } else { 0o7777 };
        assert!(entry.mode & known == node.mode & known || entry.extra.target.is_some(), "{name}: {:o}", entry.mode);
        assert!(!words.has('o') || entry.uid == node.uid, "{name}");
        assert!(!words.has('g') || entry.gid == node.gid, "{name}");
    }
    match &node.kind {
        Kind::File(content) => {
            assert!(entry.is_file() && entry.len == content.len() as u64, "{name}");
            if words.has('c') {
                assert_eq!(entry.extra.sum, Some(sum_of(session.n.list_checksum, content)), "{name}");
            }
        }
        Kind::Link(target) => assert_eq!(entry.extra.target.as_ref(), words.has('l').then_some(target), "{name}"),
        Kind::Dir => assert!(entry.is_dir(), "{name}"),
        Kind::Fifo => assert_eq!(entry.mode & 0o170000, 0o010000, "{name}"),
    }
}

pub(crate) fn sum_of(checksum: Checksum, content: &[u8]) -> Sum {
    let mut hasher = FileHasher::new(checksum);
    hasher.update(content);
    hasher.finish()
}

/// What the receiving side has of a file, by the basis the item names.
pub(crate) fn basis<'c>(case: &'c Case, header: &ItemHeader, name: &[u8]) -> Option<&'c [u8]> {
    let dest = |name: &[u8]| case.dest.get(name)?.content();
    match header.basis.unwrap_or(0x80) {
        0x80 | 0x82 => dest(name),
        0x81 => dest(&[b".~p/", name].concat()),
        0x83 => dest(header.xname.as_ref()?),
        // The recorder had copied it into the other folder.
        _ => dest(b"report-v1.dat"),
    }
}

fn check_requests(case: &Case, session: &Session, streams: &Streams, verified: &mut Verified) {
    let mut seen = BTreeSet::new();
    let size = session.n.checksum.size();
    let receiver = if session.words.server_sends { &case.client } else { &case.server };
    for asked in &streams.asked {
        let Asked::Request(ndx, header, head, sums) = asked else { continue };
        let redo = !seen.insert(*ndx);
        verified.redone += usize::from(redo);
        if head.count == 0 {
            assert_eq!(*head, SumHead::NONE);
            continue;
        }
        let basis = basis(case, header, &streams.entry(ndx.0).name).expect("sums, and no basis known");
        let strong = if redo { StrongSums::Whole } else { StrongSums::Short };
        let mut expected = SumHead::for_basis(basis.len() as u64, size, strong, session.words.block_length());
        if redo && receiver.as_str() < "3.5" {
            // Releases up to 3.4.3 announce more than a short digest has.
            expected.strong_length = 16;
        }
        assert_eq!(*head, expected);
        for (at, (block_weak, strong)) in sums.iter().enumerate() {
            let block = BlockIndex(at as u32);
            let start = head.offset(block) as usize;
            let bytes = &basis[start..start + head.block_len(block) as usize];
            assert_eq!(*block_weak, weak(bytes));
            let full = session.seed().sum(bytes);
            let known = (head.strong_length as usize).min(size);
            assert_eq!(strong.as_bytes()[..known], full.as_bytes()[..known], "strong sum of block {at}");
            verified.blocks += 1;
        }
    }
}

/// Rebuilds each file that was sent; how many had been damaged on their way.
fn check_files(case: &Case, session: &Session, streams: &Streams, verified: &mut Verified) -> usize {
    let mut damaged = 0;
    for sent in &streams.sent {
        let Sent::File(ndx, header, head, pieces, sum) = sent else { continue };
        let name = &streams.entry(ndx.0).name;
        let basis = basis(case, header, name).unwrap_or_default();
        let content = rebuild(pieces, head, basis);
        let source = case.node(name).and_then(|node| node.content()).expect("a file of the source");
        if case.flipped && content.windows(8).any(|bytes| bytes == b"FLIPME01") {
            assert_ne!(sum_of(session.n.checksum, &content), *sum);
            damaged += 1;
            continue;
        }
        assert_eq!(content, source);
        assert_eq!(sum_of(session.n.checksum, &content), *sum);
        verified.files += 1;
    }
    damaged
}

pub(crate) fn rebuild(pieces: &[Piece], head: &SumHead, basis: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Literal(bytes) => content.extend_from_slice(bytes),
            Piece::Copy(block) => {
                let start = head.offset(*block) as usize;
                content.extend_from_slice(&basis[start..start + head.block_len(*block) as usize]);
            }
        }
    }
    content
}

fn check_messages(session: &Session) {
    for (direction, from_client) in [(&session.to_server, true), (&session.to_client, false)] {
        let from_sender = from_client != session.words.server_sends;
        for (_, message) in &direction.messages {
            match message {
                Message::Success(_) | Message::Deleted(_) => assert!(!from_sender, "{message:?}"),
                Message::NoSend(_) | Message::IoError(_) => assert!(from_sender, "{message:?}"),
                Message::Text(..) => assert!(!from_client, "{message:?}"),
                _ => {}
            }
        }
    }
}

/// Files that the sender could not send.
pub(crate) fn not_sent(session: &Session) -> BTreeSet<Ndx> {
    let messages = &session.sending().0.messages;
    messages.iter().filter_map(|(_, m)| if let Message::NoSend(ndx) = m { Some(*ndx) } else { None }).collect()
}

/// The sender answers every item in the order it was asked for.
fn check_echoes(case: &Case, session: &Session, streams: &Streams) {
    if session.aborted(case) {
        return;
    }
    let declined = not_sent(session);
    // What is given is what was wanted.
    let numbers = |header: &ItemHeader| {
        let mut header = header.clone();
        if let Some(XattrList::Given(values)) = &header.xattrs {
            header.xattrs = Some(XattrList::Wanted(values.iter().map(|(number, _)| *number).collect()));
        }
        header
    };
    let asked: Vec<_> = streams
        .asked
        .iter()
        .filter_map(|asked| match asked {
            Asked::Item(ndx, header) => Some((*ndx, numbers(header), None)),
            Asked::Request(ndx, header, head, _) => Some((*ndx, numbers(header), Some(head))),
            _ => None,
        })
        .filter(|(ndx, ..)| !declined.contains(ndx))
        .collect();
    let sent: Vec<_> = streams
        .sent
        .iter()
        .filter_map(|sent| match sent {
            Sent::Item(ndx, header) => Some((*ndx, numbers(header), None)),
            Sent::File(ndx, header, head, ..) => Some((*ndx, numbers(header), Some(head))),
            _ => None,
        })
        .collect();
    assert_eq!(asked, sent);
}

fn check_done(case: &Case, session: &Session, streams: &Streams) {
    if session.aborted(case) {
        return;
    }
    assert!(streams.flist_end || !streams.complete, "the list has no end");
    if !streams.complete {
        assert!(
            streams.asked.is_empty() && streams.sent.iter().all(|sent| *sent == Sent::ListEnd),
            "only a pull of nothing ends at once"
        );
        return;
    }
    let (phases, extra) = (usize::from(session.n.phases()), usize::from(session.n.version >= 31));
    let count = streams.asked.iter().filter(|asked| matches!(asked, Asked::Done)).count();
    assert_eq!(count, streams.segments.len() + phases + extra, "the generator's DONEs");
    let count = streams.sent.iter().filter(|sent| matches!(sent, Sent::Done)).count();
    assert_eq!(count, streams.segments.len() + phases - 1 + extra, "the sender's DONEs");
    let told: Vec<_> =
        streams.sent.iter().filter_map(|s| if let Sent::DeleteStats(n) = s { Some(*n) } else { None }).collect();
    let known: Vec<_> =
        streams.asked.iter().filter_map(|a| if let Asked::DeleteStats(n) = a { Some(*n) } else { None }).collect();
    assert_eq!(told, if session.words.server_sends { known } else { Vec::new() }, "counts of deletions");
}
