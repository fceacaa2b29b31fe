//! Both streams of a session read with the codecs, from the first byte to the last, and written again with the encoders:
//! what comes out must be what stock wrote.

use super::case::Case;
use super::session::Session;
use protocol::checksum::Sum;
use protocol::flist::{Arrived, FileEntry, FileList, IdNames, ListDecoder, ListEncoder, ListLimits, ListShape, Ndx};
use protocol::item::{ItemFlags, ItemHeader, XattrLists};
use protocol::mux::Outbox;
use protocol::ndx::{NdxState, NdxValue};
use protocol::sender::FinalStats;
use protocol::sums::{BlockIndex, SumHead};
use protocol::token::{TokenEvent, TokenReader, TokenWriter};
use protocol::wire::{Reader, put_varint};
use protocol::xattr::XattrListKind;
use std::collections::BTreeSet;

/// A piece of a file as it travelled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Literal(Vec<u8>),
    Copy(BlockIndex),
}

/// What the generator wrote.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Item(Ndx, ItemHeader),
    Request(Ndx, ItemHeader, SumHead, Vec<(u32, Sum)>),
    Done,
    DeleteStats([u32; 5]),
}

/// What the sender wrote behind its first list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sent {
    /// A further list, by its place in [`Streams::segments`].
    Segment(usize),
    ListEnd,
    Item(Ndx, ItemHeader),
    File(Ndx, ItemHeader, SumHead, Vec<Piece>, Sum),
    Done,
    DeleteStats([u32; 5]),
    Stats(FinalStats),
}

/// A list or a segment of it.
pub(crate) struct Segment {
    /// The directory it lists, by its number.
    pub(crate) parent: Option<usize>,
    pub(crate) list: FileList,
    /// In the order they came.
    pub(crate) entries: Vec<FileEntry>,
    pub(crate) arrived: Arrived,
}

/// A session as the codecs understand it.
pub(crate) struct Streams {
    pub(crate) segments: Vec<Segment>,
    pub(crate) dirs: Vec<FileEntry>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) shape: ListShape,
    /// The sender's stream has its proper end.
    pub(crate) complete: bool,
    /// Entries that were written again and compared with stock's bytes.
    pub(crate) compared: usize,
    /// Compressed files that we would have written byte for byte as stock did.
    pub(crate) alike: usize,
    pub(crate) flist_end: bool,
}

struct Writing {
    out: Vec<u8>,
    ndx: NdxState,
    list: ListEncoder,
    tokens: TokenWriter,
}

impl Writing {
    fn new(session: &Session, shape: ListShape) -> Self {
        let list = ListEncoder::new(&session.n, shape);
        Self { out: Vec::new(), ndx: NdxState::new(session.n.ints()), list, tokens: TokenWriter::new(&session.n) }
    }
}

impl Streams {
    pub(crate) fn new(case: &Case, session: &Session) -> Self {
        let shape = session.words.shape(session.n.list_checksum);
        let mut streams = Self {
            segments: Vec::new(),
            dirs: Vec::new(),
            sent: Vec::new(),
            asked: Vec::new(),
            shape,
            complete: false,
            compared: 0,
            alike: 0,
            flist_end: !session.incremental(),
        };
        let (sending, start) = session.sending();
        let bytes = &sending.payload[start..];
        if !(session.aborted(case) && bytes.is_empty()) {
            let mut reader = Reader::new(bytes);
            let mut writing = Writing::new(session, shape);
            streams.sender(case, session, bytes, &mut reader, &mut writing);
            assert_eq!(reader.position(), bytes.len(), "the sender's stream goes on");
            assert_same(&writing.out, bytes, "the sender's stream");
        }
        let (receiving, start) = session.receiving();
        streams.generator(session, &receiving.payload[start..]);
        streams
    }

    fn sender(&mut self, case: &Case, session: &Session, bytes: &[u8], reader: &mut Reader<'_>, writing: &mut Writing) {
        let mut decoder = ListDecoder::new(&session.n, self.shape, ListLimits::default());
        self.list(case, session, &mut decoder, None, reader, writing);
        let server = session.words.server_sends;
        let mut ndx_in = NdxState::new(session.n.ints());
        let mut tokens = TokenReader::new(&session.n);
        let mut listed = BTreeSet::new();
        let (mut phases, mut released) = (0, 0);
        if server && self.segments[0].entries.is_empty() {
            // A pull of nothing ends at once.
            if session.incremental() {
                assert_eq!(ndx_in.decode(reader), Ok(NdxValue::FlistEnd));
                writing.ndx.encode(NdxValue::FlistEnd, &mut writing.out);
                self.flist_end = true;
                self.sent.push(Sent::ListEnd);
            }
            return;
        }
        while phases < session.n.phases() {
            if reader.position() == bytes.len() {
                assert!(session.aborted(case), "the sender's stream ends early");
                return;
            }
            let value = ndx_in.decode(reader).unwrap();
            writing.ndx.encode(value, &mut writing.out);
            match value {
                NdxValue::Done => {
                    if session.incremental() && released + 1 < self.segments.len() {
                        released += 1;
                    } else {
                        phases += 1;
                    }
                    self.sent.push(Sent::Done);
                }
                NdxValue::FlistEnd => {
                    assert!(!self.flist_end, "two ends of the list");
                    self.flist_end = true;
                    self.sent.push(Sent::ListEnd);
                }
                NdxValue::Segment(dir) => {
                    assert!(session.incremental() && (dir as usize) < self.dirs.len() && listed.insert(dir));
                    self.sent.push(Sent::Segment(self.segments.len()));
                    self.list(case, session, &mut decoder, Some(dir as usize), reader, writing);
                }
                NdxValue::DeleteStats => self.sent.push(Sent::DeleteStats(delete_stats(reader, writing))),
                NdxValue::Index(ndx) => {
                    let header =
                        ItemHeader::decode_of(&session.n, reader, self.lists(session, XattrListKind::Given)).unwrap();
                    header.encode_of(&session.n, &mut writing.out);
                    let name = &self.entry(ndx).name;
                    let sent = if header.flags.has(ItemFlags::TRANSFER) && !session.words.has('n') {
                        let basis = super::verify::basis(case, &header, name).unwrap_or_default();
                        let file = Answer { session, ndx, header, basis };
                        let (sent, alike) = file.read(&mut tokens, reader, writing);
                        self.alike += usize::from(alike);
                        sent
                    } else {
                        Sent::Item(Ndx(ndx), header)
                    };
                    self.sent.push(sent);
                }
            }
        }
        if server {
            let stats = FinalStats::decode(&session.n, reader).unwrap();
            stats.encode(&session.n, &mut writing.out);
            self.sent.push(Sent::Stats(stats));
        }
        if session.n.version >= 31 {
            let mut value = ndx_in.decode(reader).unwrap();
            writing.ndx.encode(value, &mut writing.out);
            if value == NdxValue::DeleteStats {
                self.sent.push(Sent::DeleteStats(delete_stats(reader, writing)));
                value = ndx_in.decode(reader).unwrap();
                writing.ndx.encode(value, &mut writing.out);
            }
            assert_eq!(value, NdxValue::Done);
            self.sent.push(Sent::Done);
        }
        self.complete = true;
    }

    fn list(
        &mut self,
        case: &Case,
        session: &Session,
        decoder: &mut ListDecoder,
        parent: Option<usize>,
        reader: &mut Reader<'_>,
        writing: &mut Writing,
    ) {
        let mut entries = Vec::new();
        let mut end = reader.clone();
        let mut named = (0, 0);
        let since =
            |mut start: Reader<'_>, now: &Reader<'_>| start.take(now.position() - start.position()).unwrap().to_vec();
        loop {
            let start = reader.clone();
            let complete = decoder.step(reader).unwrap();
            if decoder.entries().len() == entries.len() {
                if complete {
                    break;
                }
                continue;
            }
            let entry = decoder.entries()[entries.len()].clone();
            let stock = &since(start, reader)[..];
            end = reader.clone();
            let mut ours = Vec::new();
            let mut written = entry.clone();
            if case.has_absolute_names() {
                written.name.insert(0, b'/');
            }
            let names = decoder.names();
            let (users, groups) = (names.users[named.0..].to_vec(), names.groups[named.1..].to_vec());
            named = (names.users.len(), names.groups.len());
            writing.list.know(IdNames { users, groups });
            writing.list.entry(&written, &mut ours);
            assert_same(&ours, stock, &format!("entry {:?}", entry.name.escape_ascii().to_string()));
            writing.out.extend_from_slice(&ours);
            self.compared += 1;
            entries.push(entry);
        }
        let mut arrived = decoder.next_segment();
        let mut tail = Vec::new();
        if session.incremental() {
            writing.list.end_segment(arrived.io_error, &mut tail);
        } else {
            writing.list.end(arrived.io_error, &arrived.names, &mut tail);
        }
        assert_same(&tail, &since(end, reader), "the list's end");
        writing.out.extend(tail);
        let first_is_root = |list: &FileList| list.iter().next().is_some_and(|(_, e)| e.name == b"." && e.is_dir());
        let parent = match (session.incremental(), self.segments.is_empty()) {
            (true, true) => first_is_root(&arrived.list).then_some(0),
            (true, false) => parent,
            (false, _) => None,
        };
        if session.incremental() {
            self.check_place(parent, &entries);
        } else {
            arrived.list.check_parents().unwrap();
        }
        self.dirs.extend(arrived.list.entries().iter().filter(|e| e.is_dir()).cloned());
        arrived.list = arrived.list.of_dir(parent.map(|dir| self.dirs[dir].clone()));
        self.segments.push(Segment { parent, list: arrived.list.clone(), entries, arrived });
    }

    /// A segment holds the direct children of its directory only.
    fn check_place(&self, parent: Option<usize>, entries: &[FileEntry]) {
        for entry in entries {
            let dir = entry.name.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |at| &entry.name[..at]);
            let expected = match parent {
                Some(parent) if !self.segments.is_empty() => &self.dirs[parent].name[..],
                _ => b"",
            };
            assert!(dir == expected || (expected == b"." && dir.is_empty()), "{:?}", entry.name);
        }
    }

    /// The entry a peer means by an index.
    pub(crate) fn entry(&self, ndx: u32) -> &FileEntry {
        for segment in &self.segments {
            if let Some(entry) = segment.list.get(Ndx(ndx)) {
                return entry;
            }
        }
        panic!("index {ndx} is in no segment");
    }

    fn lists(&self, session: &Session, kind: XattrListKind) -> XattrLists {
        XattrLists::of(&session.n, self.shape.xattrs, session.words.has('n'), kind)
    }

    fn generator(&mut self, session: &Session, bytes: &[u8]) {
        let mut reader = Reader::new(bytes);
        let mut ndx_in = NdxState::new(session.n.ints());
        let mut writing = Writing::new(session, self.shape);
        while reader.position() < bytes.len() {
            let value = ndx_in.decode(&mut reader).unwrap();
            writing.ndx.encode(value, &mut writing.out);
            let asked = match value {
                NdxValue::Done => Asked::Done,
                NdxValue::DeleteStats => Asked::DeleteStats(delete_stats(&mut reader, &mut writing)),
                NdxValue::Index(ndx) => {
                    let header =
                        ItemHeader::decode_of(&session.n, &mut reader, self.lists(session, XattrListKind::Wanted))
                            .unwrap();
                    header.encode_of(&session.n, &mut writing.out);
                    let entry = self.entry(ndx);
                    if header.flags.has(ItemFlags::TRANSFER) {
                        assert!(entry.is_file(), "data of something else than a file is wanted");
                    }
                    if header.flags.has(ItemFlags::TRANSFER) && !session.words.has('n') {
                        let head = sum_head(session, &mut reader, &mut writing);
                        let sums = (0..head.count)
                            .map(|_| {
                                let weak = reader.uint().unwrap();
                                let strong = reader.take(head.strong_length as usize).unwrap();
                                writing.out.extend_from_slice(&weak.to_le_bytes());
                                writing.out.extend_from_slice(strong);
                                (weak, Sum::new(strong).unwrap())
                            })
                            .collect();
                        Asked::Request(Ndx(ndx), header, head, sums)
                    } else {
                        Asked::Item(Ndx(ndx), header)
                    }
                }
                other => panic!("{other:?} from the generator"),
            };
            self.asked.push(asked);
        }
        assert_same(&writing.out, bytes, "the generator's stream");
    }
}

/// A file that the sender answers with.
struct Answer<'a> {
    session: &'a Session,
    ndx: u32,
    header: ItemHeader,
    basis: &'a [u8],
}

impl Answer<'_> {
    /// Reads it, and writes it again; whether compressed tokens came out as stock wrote them. Plain ones must.
    fn read(self, tokens: &mut TokenReader, reader: &mut Reader<'_>, writing: &mut Writing) -> (Sent, bool) {
        let head = sum_head(self.session, reader, writing);
        let block = |block: BlockIndex| {
            let start = head.offset(block) as usize;
            &self.basis[start..start + head.block_len(block) as usize]
        };
        let mut pieces = Vec::new();
        let mut start = reader.clone();
        tokens.begin(head);
        loop {
            match tokens.step(reader).unwrap() {
                TokenEvent::Nothing => {}
                TokenEvent::Plain(len) => pieces.push(Piece::Literal(reader.take(len).unwrap().to_vec())),
                TokenEvent::Unpacked => pieces.push(Piece::Literal(tokens.unpacked().to_vec())),
                TokenEvent::Copy(index) => {
                    tokens.matched(block(index)).unwrap();
                    pieces.push(Piece::Copy(index));
                }
                TokenEvent::End => break,
            }
        }
        let stock = start.take(reader.position() - start.position()).unwrap();
        let mut out = Outbox::new();
        writing.tokens.begin(false);
        for piece in &pieces {
            match piece {
                Piece::Literal(bytes) => writing.tokens.literal(bytes, &mut out).unwrap(),
                Piece::Copy(index) => writing.tokens.copy(*index, block(*index), &mut out).unwrap(),
            }
        }
        writing.tokens.end(&mut out).unwrap();
        let alike = self.session.compressed() && out.bytes() == stock;
        writing.out.extend_from_slice(if self.session.compressed() { stock } else { out.bytes() });
        let sum = reader.take(self.session.n.checksum.size()).unwrap();
        writing.out.extend_from_slice(sum);
        (Sent::File(Ndx(self.ndx), self.header, head, pieces, Sum::new(sum).unwrap()), alike)
    }
}

fn sum_head(session: &Session, reader: &mut Reader<'_>, writing: &mut Writing) -> SumHead {
    let head = SumHead::decode(&reader.array().unwrap(), session.n.checksum.size()).unwrap();
    writing.out.extend_from_slice(&head.encode());
    head
}

fn delete_stats(reader: &mut Reader<'_>, writing: &mut Writing) -> [u32; 5] {
    let mut counts = [0; 5];
    for count in &mut counts {
        *count = reader.size("count of deletions", 1 << 28).unwrap();
        put_varint(&mut writing.out, *count as i32);
    }
    counts
}

pub(crate) fn assert_same(ours: &[u8], stock: &[u8], what: &str) {
    if ours == stock {
        return;
    }
    let at = ours.iter().zip(stock).take_while(|(a, b)| a == b).count();
    let near = |bytes: &[u8]| bytes[at.saturating_sub(8).min(bytes.len())..(at + 24).min(bytes.len())].to_vec();
    panic!("{what} differs at byte {at}: ours …{:02x?}, stock's …{:02x?}", near(ours), near(stock));
}
