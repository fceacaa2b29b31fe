//! Machines that hear whatever somebody sends.

use super::machines;
use protocol::flist::{FileEntry, FileList};
use protocol::handshake::Negotiated;
use protocol::mux::{Inbox, Outbox};
use protocol::receiver::{Receiver, ReceiverFacts};
use protocol::sender::{FinalStats, Sender, SenderEvent, SenderFacts};
use protocol::sums::BlockIndex;

/// A sender that hears this and says no to everything; how much it answered, in bytes.
pub(crate) fn send(n: &Negotiated, facts: SenderFacts, entries: usize, bytes: &[u8], chunk: usize) -> usize {
    let mut inbox = Inbox::new();
    inbox.start_mux().unwrap();
    let mut sender = Sender::new(n, facts, inbox);
    let list = FileList::new(vec![FileEntry::new("f", 0o100_644); entries]);
    if !facts.server {
        sender.list(&list).unwrap();
    }
    let mut out = Outbox::new();
    out.start_mux(31);
    for piece in bytes.chunks(chunk) {
        if sender.feed(piece).is_err() {
            break;
        }
        loop {
            match sender.poll(&mut out) {
                Ok(Some(SenderEvent::Request(mut request))) => {
                    // Sums are heard, or declined while they come.
                    if request.ndx.0 % 2 == 0 {
                        while let Ok(Some(_)) = sender.poll_sums(&mut request.sums, &mut out) {}
                    }
                    // What is kept may be looked at.
                    for block in (0..request.sums.kept()).map(BlockIndex) {
                        let _ = (request.sums.weak(block), request.sums.strong(block));
                    }
                    assert!(request.sums.kept() <= facts.sums_most);
                    sender.decline(&request, &mut out);
                }
                Ok(Some(SenderEvent::FiltersDone)) => sender.list(&list).unwrap(),
                Ok(Some(SenderEvent::AllDone)) => sender.farewell(&FinalStats::default(), &mut out),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return out.len(),
            }
        }
    }
    out.len()
}

/// A receiver that hears this, and has something old for each file.
pub(crate) fn receive(n: &Negotiated, facts: ReceiverFacts, bytes: &[u8], chunk: usize) {
    let mut inbox = Inbox::new();
    inbox.start_mux().unwrap();
    let mut receiver = Receiver::new(n, facts, inbox);
    machines::listen(&mut receiver, bytes, chunk, |_, _| b"some old bytes ".repeat(100));
}

/// Garbage in frames, as a peer would have to send it.
pub(crate) fn framed(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Outbox::new();
    out.start_mux(31);
    for part in parts {
        out.put(part);
        out.bytes();
    }
    out.bytes().to_vec()
}
