//! One side of a recorded session played by our machine, which hears the other side from the recording.

use super::case::Case;
use super::session::{Direction, Session};
use super::streams::{Asked, Piece, Segment, Sent, Streams, assert_same};
use super::verify::{basis, not_sent, rebuild};
use protocol::PeerError;
use protocol::delta::{Search, Token};
use protocol::flist::{ListEncoder, ListLimits, Ndx};
use protocol::generator::Generator;
use protocol::handshake::{Compat, Handshake, Hello, Negotiated, Side};
use protocol::item::ItemHeader;
use protocol::mux::{Inbox, Message, Outbox};
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts};
use protocol::sender::{Request, Sender, SenderEvent, SenderFacts};
use protocol::sums::{BlockIndex, SumHead};

/// Machines take no files-from names.
pub(crate) fn playable(session: &Session) -> bool {
    session.files_from.is_none()
}

/// A client of ours offers all checksums; this one's user had another list.
fn offers_as_we_do(case: &Case) -> bool {
    case.number() != 18
}

/// Whether our end could have had this greeting.
fn greets(case: &Case, client: bool) -> bool {
    // An old server knows less than ours, and its client answers accordingly.
    if client { offers_as_we_do(case) } else { !matches!(&case.server[..], "3.0.9" | "3.1.3") }
}

/// Our side of the handshake in the role of the recorded client or server.
pub(crate) fn hello(session: &Session, client: bool) -> Hello {
    let choice = session.words.choice();
    let letters = session.words.capabilities.clone().into_bytes();
    let (side, version) = if client {
        (Side::Client, session.client_version)
    } else {
        (Side::Server { letters, seed: session.n.seed }, session.server_version)
    };
    Hello {
        choice,
        incremental: session.incremental(),
        acknowledges: session.acknowledges(),
        compression: session.words.compression(),
        ..Hello::new(side, version)
    }
}

/// Hears a recording in pieces of `chunk` bytes as far as the end of the handshake.
fn greet<'c>(
    session: &Session,
    client: bool,
    mut heard: &'c [u8],
    chunk: usize,
    out: &mut Outbox,
) -> Result<(Negotiated, Inbox, &'c [u8]), PeerError> {
    let mut handshake = Handshake::new(hello(session, client), out);
    loop {
        if let Some(n) = handshake.poll(out)? {
            return Ok((n, handshake.into_inbox(), heard));
        }
        assert!(!heard.is_empty(), "the handshake has no end");
        let (now, later) = heard.split_at(chunk.min(heard.len()));
        handshake.feed(now)?;
        heard = later;
    }
}

/// The handshake of either side, whatever the session does later.
pub(crate) fn shake(case: &Case, session: &Session, chunk: usize) {
    if session.files_from.is_some() && session.n.version < 31 {
        return; // names come unframed behind it
    }
    let mut out = Outbox::new();
    let client = greet(session, true, &case.s2c, chunk, &mut out);
    if offers_as_we_do(case) {
        assert!(client.is_ok_and(|(n, ..)| n == session.n));
        assert_same(out.bytes(), &case.c2s[..session.c2s_raw], "the client's greeting");
    }
    if session.incremental() {
        let mut handshake = Handshake::new(Hello { incremental: false, ..hello(session, true) }, &mut Outbox::new());
        handshake.feed(&case.s2c[..session.s2c_raw]).unwrap();
        let refused = handshake.poll(&mut Outbox::new()).err();
        assert_eq!(refused, Some(PeerError::NotOffered("incremental recursion")));
    }
    if !greets(case, false) {
        return;
    }
    let mut out = Outbox::new();
    let (n, ..) = greet(session, false, &case.c2s, chunk, &mut out).unwrap();
    // Bits a server sets by its own abilities: iconv of symlinks, in-place partial files.
    let known = |n: Negotiated| Negotiated { compat: Compat(n.compat.0 & !0x044), ..n };
    assert_eq!(known(n), known(session.n));
}

/// Plays the sending side; everything it says must be what stock said.
pub(crate) fn send(case: &Case, session: &Session, streams: &Streams, chunk: usize) {
    let client = !session.words.server_sends;
    if !greets(case, client) {
        return;
    }
    let mut out = Outbox::new();
    let heard = if client { &case.s2c } else { &case.c2s };
    let (_, inbox, mut heard) = greet(session, client, heard, chunk, &mut out).unwrap();
    let spoken_raw = out.bytes().len();
    if client {
        assert_same(out.bytes(), &case.c2s[..session.c2s_raw], "the client's greeting");
    }
    let Some(list) = streams.segments.first() else { return };
    let facts = SenderFacts {
        server: !client,
        dry_run: session.words.has('n'),
        xattrs: streams.shape.xattrs,
        append: session.words.option("--append"),
        sums_most: 1 << 20,
    };
    let mut sender = Sender::new(&session.n, facts, inbox);
    let mut encoder = ListEncoder::new(&session.n, streams.shape);
    let mut write_list = |list: &Segment, out: &mut Outbox| {
        let mut bytes = Vec::new();
        if session.incremental() {
            encoder.know(list.arrived.names.clone());
        }
        for entry in &list.entries {
            let mut entry = entry.clone();
            if case.has_absolute_names() {
                entry.name.insert(0, b'/');
            }
            encoder.entry(&entry, &mut bytes);
        }
        if session.incremental() {
            encoder.end_segment(list.arrived.io_error, &mut bytes);
        } else {
            encoder.end(list.arrived.io_error, &list.arrived.names, &mut bytes);
        }
        out.put(&bytes);
    };
    if client {
        if session.words.filters() {
            out.put(&session.to_server.payload[..session.to_server_start]);
        }
        sender.list(&list.list).unwrap();
        write_list(list, &mut out);
    }
    let declined = not_sent(session);
    let mut files = streams.sent.iter().filter(|sent| matches!(sent, Sent::File(..)));
    let mut asked = streams.asked.iter().filter(|asked| matches!(asked, Asked::Item(..) | Asked::Request(..)));
    let (mut filters, mut messages, mut phases) = (Vec::new(), Vec::new(), 0);
    let mut redone = std::collections::BTreeSet::new();
    let mut ended = None;
    let mut listed = client;
    let mut said = streams.sent.iter().peekable();
    while !sender.is_over() {
        // Segments go out where stock's did.
        while listed && let Some(next) = said.next_if(|next| matches!(next, Sent::Segment(_) | Sent::ListEnd)) {
            if let Sent::Segment(at) = next {
                let segment = &streams.segments[*at];
                sender.segment(segment.parent.unwrap() as u32, &segment.list, &mut out).unwrap();
                write_list(segment, &mut out);
            } else {
                sender.end_list(&mut out);
            }
        }
        let event = match sender.poll(&mut out) {
            Ok(Some(event)) => event,
            Ok(None) if heard.is_empty() => break,
            Ok(None) => {
                let (now, later) = heard.split_at(chunk.min(heard.len()));
                sender.feed(now).unwrap();
                heard = later;
                continue;
            }
            Err(error) => {
                ended = Some(error);
                break;
            }
        };
        match event {
            SenderEvent::Filter(rule) => filters.push(rule),
            SenderEvent::FiltersDone => {
                sender.list(&list.list).unwrap();
                write_list(list, &mut out);
                listed = true;
            }
            SenderEvent::Item(ndx, header) => {
                assert_eq!(asked.next(), Some(&Asked::Item(ndx, header)));
                said.next();
            }
            SenderEvent::Values(ndx, header) => {
                let given = streams.sent.iter().find_map(|sent| match sent {
                    Sent::Item(at, given) if *at == ndx && given.xattrs.is_some() => Some(given.clone()),
                    _ => None,
                });
                assert_eq!(asked.next(), Some(&Asked::Item(ndx, header)));
                sender.give(ndx, &given.unwrap(), &mut out);
            }
            SenderEvent::Request(mut request) => {
                let head = request.sums.head();
                // Of an aborted session the sums may be cut off.
                loop {
                    match sender.poll_sums(&mut request.sums, &mut out) {
                        Ok(Some(message)) => messages.push(message),
                        Ok(None) if request.sums.remaining() == 0 => break,
                        Ok(None) if heard.is_empty() => break,
                        Ok(None) => {
                            let (now, later) = heard.split_at(chunk.min(heard.len()));
                            sender.feed(now).unwrap();
                            heard = later;
                        }
                        Err(error) => {
                            ended = Some(error);
                            break;
                        }
                    }
                }
                if request.sums.remaining() > 0 {
                    break;
                }
                let strong_length = (head.strong_length as usize).min(session.n.checksum.size());
                let Some(Asked::Request(ndx, header, stock_head, sums)) = asked.next() else { panic!("{request:?}") };
                assert_eq!((request.ndx, &request.header, &head), (*ndx, header, stock_head));
                assert_eq!(request.redo, !redone.insert(*ndx), "redo");
                assert_eq!(request.sums.kept() as usize, sums.len());
                for (at, (weak, strong)) in sums.iter().enumerate() {
                    let block = BlockIndex(at as u32);
                    assert_eq!(request.sums.weak(block), *weak);
                    assert_eq!(request.sums.strong(block), &strong.as_bytes()[..strong_length]);
                }
                if declined.contains(ndx) {
                    sender.decline(&request, &mut out);
                    continue;
                }
                let Some(Sent::File(ndx, given, _, pieces, sum)) = files.next() else { panic!("no answer") };
                assert_eq!(*ndx, request.ndx);
                said.next();
                search(case, session, streams, &request, pieces);
                request.header.xattrs.clone_from(&given.xattrs);
                let basis = basis(case, &request.header, &streams.entry(ndx.0).name).unwrap_or_default();
                let mut reply = sender.begin(&request, false, &mut out);
                for piece in pieces {
                    match piece {
                        Piece::Literal(bytes) => reply.literal(bytes, &mut out).unwrap(),
                        Piece::Copy(block) => reply.copy(*block, block_of(basis, &head, *block), &mut out).unwrap(),
                    }
                }
                reply.end(sum, &mut out).unwrap();
            }
            SenderEvent::SegmentDone => {
                said.next();
            }
            SenderEvent::PhaseDone => {
                phases += 1;
                said.next();
            }
            SenderEvent::AllDone => {
                let stats =
                    streams.sent.iter().find_map(|s| if let Sent::Stats(stats) = s { Some(*stats) } else { None });
                sender.farewell(&stats.unwrap_or_default(), &mut out);
            }
            SenderEvent::Message(message) => messages.push(message),
            SenderEvent::Deleted(_) | SenderEvent::Goodbye => {}
        }
    }
    assert_eq!(filters, if client { Vec::new() } else { session.filters.clone() });
    if session.aborted(case) {
        // A client that gives up only hangs up.
        let told = client || session.receiving().0.messages.iter().any(|(_, m)| matches!(m, Message::ErrorExit(_)));
        assert_eq!(ended, told.then_some(PeerError::Exit(case.exit)));
        return;
    }
    let (receiving, _) = session.receiving();
    let expected: Vec<_> = receiving.messages.iter().map(|(_, message)| message.clone()).collect();
    assert_eq!(messages, expected);
    assert!(asked.next().is_none() && files.next().is_none() && heard.is_empty());
    assert!(sender.is_over() || !streams.complete);
    assert_eq!(phases, if streams.complete { session.n.phases() - 1 } else { 0 });
    let spoken = session.said(client, &out.bytes()[spoken_raw..]);
    let (sending, _) = session.sending();
    if session.compressed() {
        let facts = receiver_facts(session, streams);
        let hear = |payload: &[u8]| {
            let mut framed = Outbox::new();
            framed.start_mux(31);
            let filters = if client && session.words.filters() { session.to_server_start } else { 0 };
            framed.put(&payload[filters..]);
            let mut inbox = Inbox::new();
            inbox.start_mux().unwrap();
            let basis = |ndx: Ndx, header: &ItemHeader| known(case, streams, ndx, header);
            listen(&mut Receiver::new(&session.n, facts, inbox), framed.bytes(), chunk, basis)
        };
        assert_eq!(hear(&spoken.payload), hear(&sending.payload), "what the sender said");
    } else {
        assert_same(&spoken.payload, &sending.payload, "what the sender said");
    }
    // Stock's messages overtake payload that waits in its buffer, so only their order is the same.
    let only = |direction: &Direction| -> Vec<Message> {
        let messages = direction.messages.iter().map(|(_, message)| message.clone());
        messages.filter(|message| matches!(message, Message::NoSend(_))).collect()
    };
    assert_eq!(only(&spoken), only(sending));
}

/// Our search finds at least what stock's found, and its tokens make the same file.
fn search(case: &Case, session: &Session, streams: &Streams, request: &Request, stock: &[Piece]) {
    let name = &streams.entry(request.ndx.0).name;
    let content = |node: Option<&super::case::Node>| node.and_then(|node| node.content()).map(<[u8]>::to_vec);
    let source = content(case.node(name)).unwrap();
    let basis = basis(case, &request.header, name).unwrap_or_default();
    let mut pieces = Vec::new();
    let mut emit = |token: Token<'_>| -> Result<(), ()> {
        match token {
            Token::Literal(bytes) => push_literal(&mut pieces, bytes),
            Token::Copy(block, _) => pieces.push(Piece::Copy(block)),
        }
        Ok(())
    };
    let mut search = Search::new(&request.sums, session.seed());
    search.push(&source, &mut emit).unwrap();
    search.finish(&mut emit).unwrap();
    let literals = |pieces: &[Piece]| -> usize {
        pieces.iter().map(|piece| if let Piece::Literal(bytes) = piece { bytes.len() } else { 0 }).sum()
    };
    assert!(rebuild(&pieces, &request.sums.head(), basis) == source, "a wrong match");
    assert!(literals(&pieces) <= literals(stock), "{} literal bytes, stock {}", literals(&pieces), literals(stock));
}

/// What a receiver says it heard, literals joined.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    List(Box<protocol::flist::Arrived>),
    ListEnd,
    SegmentDone,
    Sent(Sent),
    PhaseDone(u8),
    Goodbye,
}

/// Plays the receiving side's ears and mouth.
pub(crate) fn receive(case: &Case, session: &Session, streams: &Streams, chunk: usize) {
    let client = session.words.server_sends;
    if !client && session.words.filters() {
        return; // a receiving server with rules deletes, which ours does not
    }
    if !greets(case, client) {
        return;
    }
    let mut out = Outbox::new();
    let bytes = if client { &case.s2c } else { &case.c2s };
    let (_, inbox, rest) = greet(session, client, bytes, chunk, &mut out).unwrap();
    let mut receiver = Receiver::new(&session.n, receiver_facts(session, streams), inbox);
    let basis = |ndx: Ndx, header: &ItemHeader| known(case, streams, ndx, header);
    let (heard, messages, ended) = listen(&mut receiver, rest, chunk, basis);
    if session.aborted(case) {
        assert!(ended.is_none() && !receiver.is_over(), "stock's sender only acknowledges the end");
        return;
    }
    assert_eq!(ended, None);
    let mut expected = Vec::new();
    let list = |at: usize| Heard::List(Box::new(streams.segments[at].arrived.clone()));
    if !streams.segments.is_empty() {
        expected.push(list(0));
    }
    if !session.incremental() {
        expected.push(Heard::ListEnd);
    }
    let (mut phases, mut live) = (0, 1);
    for sent in &streams.sent {
        match sent {
            Sent::Segment(at) => {
                expected.push(list(*at));
                live += 1;
            }
            Sent::ListEnd => expected.push(Heard::ListEnd),
            Sent::Done if live > 1 => {
                live -= 1;
                expected.push(Heard::SegmentDone);
            }
            Sent::Done if phases == session.n.phases() => {}
            Sent::Done => {
                phases += 1;
                expected.push(Heard::PhaseDone(phases));
            }
            Sent::DeleteStats(_) => {}
            sent => expected.push(Heard::Sent(joined(sent.clone()))),
        }
    }
    if streams.complete {
        expected.push(Heard::Goodbye);
    }
    assert_eq!(heard, expected);
    assert_eq!(receiver.is_over(), streams.complete);
    let (sending, _) = session.sending();
    let expected: Vec<_> = sending.messages.iter().map(|(_, message)| message.clone()).collect();
    assert_eq!(messages, expected);
}

fn receiver_facts(session: &Session, streams: &Streams) -> ReceiverFacts {
    ReceiverFacts {
        shape: streams.shape,
        limits: ListLimits::default(),
        server: !session.words.server_sends,
        dry_run: session.words.has('n'),
    }
}

/// What the receiving side has of a file.
fn known(case: &Case, streams: &Streams, ndx: Ndx, header: &ItemHeader) -> Vec<u8> {
    basis(case, header, &streams.entry(ndx.0).name).unwrap_or_default().to_vec()
}

fn block_of<'b>(basis: &'b [u8], head: &SumHead, block: BlockIndex) -> &'b [u8] {
    let start = head.offset(block) as usize;
    &basis[start..start + head.block_len(block) as usize]
}

/// Feeds a receiver that has a basis for files; gives its events, its messages, and the error that ended them.
pub(crate) fn listen(
    receiver: &mut Receiver,
    mut rest: &[u8],
    chunk: usize,
    basis: impl Fn(Ndx, &ItemHeader) -> Vec<u8>,
) -> (Vec<Heard>, Vec<Message>, Option<PeerError>) {
    let (mut heard, mut messages) = (Vec::new(), Vec::new());
    let mut file: Option<(Ndx, ItemHeader, SumHead, Vec<Piece>)> = None;
    let mut old = Vec::new();
    while !receiver.is_over() {
        let event = match receiver.poll() {
            Ok(Some(event)) => event,
            Ok(None) if rest.is_empty() => break,
            Ok(None) => {
                let (now, later) = rest.split_at(chunk.min(rest.len()));
                rest = later;
                match receiver.feed(now) {
                    Ok(()) => continue,
                    Err(error) => return (heard, messages, Some(error)),
                }
            }
            Err(error) => return (heard, messages, Some(error)),
        };
        match event {
            ReceiverEvent::List(arrived) => heard.push(Heard::List(Box::new(arrived))),
            ReceiverEvent::ListEnd => heard.push(Heard::ListEnd),
            ReceiverEvent::SegmentDone => heard.push(Heard::SegmentDone),
            ReceiverEvent::Item(ndx, header) => heard.push(Heard::Sent(Sent::Item(ndx, header))),
            ReceiverEvent::File(ndx, header, head) => {
                assert!(file.is_none());
                old = basis(ndx, &header);
                old.resize(old.len().max((head.basis_len() as usize).min(1 << 20)), 0);
                file = Some((ndx, header, head, Vec::new()));
            }
            ReceiverEvent::Literal(bytes) => push_literal(&mut file.as_mut().unwrap().3, bytes),
            ReceiverEvent::Copy(block) => {
                let file = file.as_mut().unwrap();
                file.3.push(Piece::Copy(block));
                let start = (file.2.offset(block) as usize).min(old.len());
                let bytes = &old[start..old.len().min(start + file.2.block_len(block) as usize)];
                if let Err(error) = receiver.matched(bytes) {
                    return (heard, messages, Some(error));
                }
            }
            ReceiverEvent::End(sum) => {
                let (ndx, header, head, pieces) = file.take().unwrap();
                heard.push(Heard::Sent(Sent::File(ndx, header, head, pieces, sum)));
            }
            ReceiverEvent::PhaseDone(phase) => heard.push(Heard::PhaseDone(phase)),
            ReceiverEvent::Stats(stats) => heard.push(Heard::Sent(Sent::Stats(stats))),
            ReceiverEvent::Message(message) => messages.push(message),
            ReceiverEvent::Goodbye => heard.push(Heard::Goodbye),
        }
    }
    (heard, messages, None)
}

fn push_literal(pieces: &mut Vec<Piece>, bytes: &[u8]) {
    match pieces.last_mut() {
        Some(Piece::Literal(literal)) => literal.extend_from_slice(bytes),
        _ => pieces.push(Piece::Literal(bytes.to_vec())),
    }
}

fn joined(sent: Sent) -> Sent {
    let Sent::File(ndx, header, head, pieces, sum) = sent else { return sent };
    let mut whole = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Literal(bytes) => push_literal(&mut whole, &bytes),
            copy => whole.push(copy),
        }
    }
    Sent::File(ndx, header, head, whole, sum)
}

/// Our generator asks for the same, and must use the same bytes.
pub(crate) fn generate(session: &Session, streams: &Streams) {
    let mut out = Outbox::new();
    let mut generator = Generator::new(&session.n);
    for asked in &streams.asked {
        match asked {
            Asked::Item(ndx, header) => generator.item(*ndx, header, &mut out),
            Asked::Request(ndx, header, head, sums) => {
                generator.request(*ndx, header, head, &mut out);
                for (weak, strong) in sums {
                    generator.sum(head, *weak, strong, &mut out);
                }
            }
            Asked::Done => generator.done(&mut out),
            Asked::DeleteStats(_) => return, // ours deletes nothing
        }
    }
    let (receiving, start) = session.receiving();
    assert_same(out.bytes(), &receiving.payload[start..], "what the generator asked");
}
