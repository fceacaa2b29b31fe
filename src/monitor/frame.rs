//! Pieces of a file that is only written at its end: each with its length and a sum, so that one that was cut short is known.

use protocol::checksum::{Checksum, FileHasher};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

/// Length and sum.
pub(super) const HEAD: usize = 12;
/// The longest body: a datagram of UDP with what we know of it, and why it was set aside.
const BODY_MOST: usize = 70_000;

/// Adds a body with its head.
pub(super) fn put(body: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&sum(body));
    out.extend_from_slice(body);
}

/// How long the body behind this head is said to be; `None` where that cannot be.
pub(super) fn body_len(head: &[u8; HEAD]) -> Option<usize> {
    let [a, b, c, d, ..] = *head;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    (len <= BODY_MOST).then_some(len)
}

/// Whether the body is the one that this head was made for.
pub(super) fn is_whole(head: &[u8; HEAD], body: &[u8]) -> bool {
    head[4..] == sum(body)
}

/// Reads the next body; false where there is none that was written whole.
pub(super) fn read(from: &mut impl Read, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut head = [0; HEAD];
    if !fills(from, &mut head)? {
        return Ok(false);
    }
    let Some(len) = body_len(&head) else { return Ok(false) };
    body.resize(len, 0);
    Ok(fills(from, body)? && is_whole(&head, body))
}

/// Whether there was as much to read.
fn fills(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn sum(body: &[u8]) -> [u8; 8] {
    let mut hasher = FileHasher::new(Checksum::Xxh3);
    hasher.update(body);
    hasher.finish().as_bytes().try_into().unwrap_or_default()
}

/// A datagram with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpooledMessage {
    /// Its place in the spool.
    pub(crate) number: u64,
    /// When it came, unix time in seconds.
    pub(crate) received: f64,
    /// Who has sent it; nobody, if it was found on this machine.
    pub(crate) sender: Option<SocketAddr>,
    pub(crate) bytes: Vec<u8>,
}

impl SpooledMessage {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.received.to_bits().to_le_bytes());
        match self.sender {
            None => out.push(0),
            Some(sender) => {
                match sender.ip() {
                    IpAddr::V4(ip) => {
                        out.push(4);
                        out.extend_from_slice(&ip.octets());
                    }
                    IpAddr::V6(ip) => {
                        out.push(6);
                        out.extend_from_slice(&ip.octets());
                    }
                }
                out.extend_from_slice(&sender.port().to_le_bytes());
            }
        }
        out.extend_from_slice(&self.bytes);
    }

    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (number, rest) = body.split_first_chunk::<8>()?;
        let (received, rest) = rest.split_first_chunk::<8>()?;
        let (kind, rest) = rest.split_first()?;
        let (sender, rest) = match kind {
            0 => (None, rest),
            4 => {
                let (ip, rest) = rest.split_first_chunk::<4>()?;
                let (port, rest) = rest.split_first_chunk::<2>()?;
                (Some(SocketAddr::from((*ip, u16::from_le_bytes(*port)))), rest)
            }
            6 => {
                let (ip, rest) = rest.split_first_chunk::<16>()?;
                let (port, rest) = rest.split_first_chunk::<2>()?;
                (Some(SocketAddr::from((*ip, u16::from_le_bytes(*port)))), rest)
            }
            _ => return None,
        };
        let received = f64::from_bits(u64::from_le_bytes(*received));
        Some(Self { number: u64::from_le_bytes(*number), received, sender, bytes: rest.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_went_and_a_cut_one_not_at_all() {
        for sender in [None, Some("10.1.2.3:8200".parse().unwrap()), Some("[fe80::1]:9".parse().unwrap())] {
            let message = SpooledMessage { number: 7, received: 1.5, sender, bytes: b"{\"a\": 1}".to_vec() };
            let (mut body, mut framed) = (Vec::new(), Vec::new());
            message.put(&mut body);
            put(&body, &mut framed);
            let mut back = Vec::new();
            let mut whole = |framed: &[u8]| read(&mut &framed[..], &mut back).unwrap().then(|| back.clone());
            assert_eq!(whole(&framed), Some(body));
            assert_eq!(SpooledMessage::read(&framed[HEAD..]), Some(message));
            for cut in 0..framed.len() {
                assert_eq!(whole(&framed[..cut]), None, "{cut}");
            }
            for at in 0..framed.len() {
                let mut wrong = framed.clone();
                wrong[at] ^= 1;
                assert_eq!(whole(&wrong), None, "{at}");
            }
        }
    }
}
