//! Hostile lists in segments: what a sender may not say to a receiver, nor a generator to a sender.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use protocol::PeerError;
use protocol::checksum::Checksum;
use protocol::compress::Compression;
use protocol::flist::{Extras, FileEntry, FileList, LinkId, ListEncoder, ListLimits, ListShape};
use protocol::handshake::{Compat, Negotiated};
use protocol::mux::{Inbox, Outbox};
use protocol::ndx::{NdxState, NdxValue};
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts};
use protocol::sender::{Sender, SenderEvent, SenderFacts};

const DIR: u32 = 0o040_755;
const FILE: u32 = 0o100_644;

fn negotiated() -> Negotiated {
    let compat = Compat(0x1bf);
    Negotiated {
        version: 31,
        compat,
        checksum: Checksum::Md5,
        list_checksum: Checksum::Md5,
        seed: 1,
        compression: Compression::NONE,
    }
}

/// What a sender writes, in order.
struct Stream {
    encoder: ListEncoder,
    ndx: NdxState,
    bytes: Vec<u8>,
}

impl Stream {
    fn new(shape: ListShape) -> Self {
        Self { encoder: ListEncoder::new(&negotiated(), shape), ndx: NdxState::default(), bytes: Vec::new() }
    }

    fn list(mut self, entries: &[(&str, u32)]) -> Self {
        for (name, mode) in entries {
            self.encoder.entry(&FileEntry::new(*name, *mode), &mut self.bytes);
        }
        self.encoder.end_segment(0, &mut self.bytes);
        self
    }

    fn say(mut self, value: NdxValue) -> Self {
        self.ndx.encode(value, &mut self.bytes);
        self
    }

    /// An item without data.
    fn item(self, ndx: u32) -> Self {
        let mut stream = self.say(NdxValue::Index(ndx));
        stream.bytes.extend([8, 0]);
        stream
    }

    fn segment(self, dir: u32, entries: &[(&str, u32)]) -> Self {
        self.say(NdxValue::Segment(dir)).list(entries)
    }
}

/// How a receiver takes it: how many events, and the error that ended them.
fn receive(stream: &Stream, shape: ListShape, limits: ListLimits) -> (usize, Option<PeerError>) {
    let mut out = Outbox::new();
    out.start_mux(31);
    out.put(&stream.bytes);
    let mut inbox = Inbox::new();
    inbox.start_mux().unwrap();
    let facts = ReceiverFacts { shape, limits, server: true, dry_run: false };
    let mut receiver = Receiver::new(&negotiated(), facts, inbox);
    receiver.feed(out.bytes()).unwrap();
    let mut events = 0;
    loop {
        match receiver.poll() {
            Ok(Some(ReceiverEvent::Message(message))) => panic!("{message:?}"),
            Ok(Some(_)) => events += 1,
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
    }
}

fn refused(stream: Stream, what: &str) {
    let (_, error) = receive(&stream, ListShape::default(), ListLimits::default());
    assert!(error.is_some(), "{what}");
}

fn root() -> Stream {
    Stream::new(ListShape::default()).list(&[(".", DIR), ("d", DIR), ("f", FILE)])
}

#[test]
fn what_is_right_is_taken() {
    let stream = root().item(0).item(2).segment(1, &[("d/x", FILE), ("d/e", DIR)]).item(5).item(6);
    let stream = stream.segment(2, &[]).item(7).say(NdxValue::FlistEnd).say(NdxValue::Done).say(NdxValue::Done);
    assert_eq!(receive(&stream, ListShape::default(), ListLimits::default()), (11, None));
}

#[test]
fn segments_only_of_directories_that_were_announced() {
    refused(root().segment(2, &[]), "a directory that was never listed");
    refused(root().segment(0, &[]), "the root, whose contents are in the first list");
    refused(root().segment(1, &[]).segment(1, &[]), "a directory twice");
    refused(root().say(NdxValue::FlistEnd).segment(1, &[]), "behind the end");
    refused(root().say(NdxValue::FlistEnd).say(NdxValue::FlistEnd), "two ends");
    refused(root().segment(1, &[("e/x", FILE)]), "another directory's child");
    refused(root().segment(1, &[("d/e/x", FILE)]), "a grandchild");
    refused(root().segment(1, &[("x", FILE)]), "the root's child");
    refused(root().segment(1, &[(".", DIR)]), "the root again");
    refused(Stream::new(ListShape::default()).list(&[("d/x", FILE)]), "a first list with depth");
    refused(Stream::new(ListShape::default()).list(&[(".", FILE)]), "a root that is a file");
    let twice = || Stream::new(ListShape::default()).list(&[("d", DIR), ("d", DIR)]);
    refused(twice().segment(1, &[]), "the dead one of two");
    assert_eq!(receive(&twice().segment(0, &[]), ListShape::default(), ListLimits::default()).1, None);
    let link = Stream::new(ListShape::default()).list(&[("d", 0o120_777)]);
    refused(link.segment(0, &[("d/passwd", FILE)]), "a symlink as a directory");
}

#[test]
fn indexes_only_of_living_segments() {
    let bare = || Stream::new(ListShape::default()).list(&[("d", DIR)]);
    refused(bare().item(0), "no root, so no index 0");
    refused(bare().item(2), "between two segments");
    refused(root().item(4), "a directory whose segment has not come");
    let two = || root().segment(1, &[("d/x", FILE)]);
    assert_eq!(receive(&two().item(3), ListShape::default(), ListLimits::default()).1, None);
    refused(two().say(NdxValue::Done).item(3), "a segment that was finished");
    refused(two().say(NdxValue::Done).say(NdxValue::Done), "the last segment's end before the list's");
}

#[test]
fn what_is_held_is_bounded_not_what_passes() {
    let limits = ListLimits { entries: 4, name_bytes: 100, ..ListLimits::default() };
    let mut stream = Stream::new(ListShape::default()).list(&[("d0", DIR)]);
    let mut dir = "d0".to_owned();
    for depth in 0..12 {
        let child = format!("{dir}/d");
        stream = stream.segment(depth, &[(&child, DIR)]).say(NdxValue::Done);
        dir = child;
    }
    assert_eq!(receive(&stream, ListShape::default(), limits).1, None);
    let mut stream = Stream::new(ListShape::default()).list(&[("d0", DIR), ("d1", DIR)]);
    stream = stream.segment(0, &[("d0/a", FILE), ("d0/b", FILE)]);
    assert!(receive(&stream, ListShape::default(), limits).1.is_some());
}

#[test]
fn hard_links_only_to_earlier_first_names() {
    let shape = ListShape { hard_links: true, ..ListShape::default() };
    let entry = |name: &str, ino| {
        let link = Some(LinkId { dev: 1, ino });
        FileEntry { extra: Extras { link, ..Extras::default() }.into(), ..FileEntry::new(name, FILE) }
    };
    let mut good = Stream::new(shape);
    for (name, ino) in [("a", 1), ("b", 1), ("c", 2)] {
        good.encoder.entry(&entry(name, ino), &mut good.bytes);
    }
    good.encoder.end_segment(0, &mut good.bytes);
    assert_eq!(receive(&good, shape, ListLimits::default()).1, None);
    // Where -H is off the same bytes mean nothing good.
    assert!(receive(&good, ListShape::default(), ListLimits::default()).1.is_some());
    // "b" refers to index 1; all other numbers are no first name before it.
    let at = good.bytes.windows(2).position(|bytes| bytes == [b'b', 1]).unwrap() + 1;
    for wrong in [0u8, 2, 3, 0x7f] {
        let mut bad = Stream::new(shape);
        bad.bytes.clone_from(&good.bytes);
        bad.bytes[at] = wrong;
        assert!(receive(&bad, shape, ListLimits::default()).1.is_some(), "{wrong}");
    }
}

#[test]
fn a_generator_ends_no_list_that_has_not_ended() {
    let mut inbox = Inbox::new();
    inbox.start_mux().unwrap();
    let facts = SenderFacts { server: false, dry_run: true, xattrs: false, append: false, sums_most: 10 };
    let mut sender = Sender::new(&negotiated(), facts, inbox);
    let mut out = Outbox::new();
    out.start_mux(31);
    sender.list(&FileList::segment(1, vec![FileEntry::new("d", DIR)])).unwrap();
    let hear = |sender: &mut Sender, values: &[NdxValue], ndx: &mut NdxState| {
        let mut said = Outbox::new();
        said.start_mux(31);
        let mut bytes = Vec::new();
        for value in values {
            ndx.encode(*value, &mut bytes);
            if let NdxValue::Index(_) = value {
                bytes.extend([8, 0]);
            }
        }
        said.put(&bytes);
        sender.feed(said.bytes()).unwrap();
    };
    let mut ndx = NdxState::default();
    sender.segment(0, &FileList::segment(3, vec![]).of_dir(Some(FileEntry::new("d", DIR))), &mut out).unwrap();
    hear(&mut sender, &[NdxValue::Index(2), NdxValue::Done], &mut ndx);
    assert!(matches!(sender.poll(&mut out), Ok(Some(SenderEvent::Item(..)))));
    assert!(matches!(sender.poll(&mut out), Ok(Some(SenderEvent::SegmentDone))));
    let mut early = NdxState::default();
    hear(&mut sender, &[NdxValue::Done], &mut early);
    assert!(sender.poll(&mut out).is_err());
}
