//! Datagrams of publishers, which anybody on the network may send.

mod frame;
mod json;
mod message;
mod notice;
mod value;

use frame::SpooledMessage;

/// A datagram: what it comes to, and the same bytes as a spool that may be cut short.
pub(crate) fn datagrams(data: &[u8]) {
    if let Ok(message) = message::PublisherMessage::read(data) {
        let _ = message.number();
        if let Ok(notice) = notice::FileNotice::of(&message, 1e9) {
            let _ = (notice.is_plain(), notice.file());
        }
    }
    let (mut from, mut body) = (data, Vec::new());
    while let Ok(true) = frame::read(&mut from, &mut body) {}
    if let Some(message) = SpooledMessage::read(data) {
        let mut again = Vec::new();
        message.put(&mut again);
        assert_eq!(again, data);
    }
    let mut framed = Vec::new();
    frame::put(data, &mut framed);
    assert!(frame::read(&mut &framed[..], &mut body).is_ok_and(|whole| whole) && body == data);
}
