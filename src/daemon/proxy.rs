//! What a proxy before the daemon says of its client: the PROXY protocol, versions 1 and 2, as HAProxy writes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest first version, line end included.
const LINE_MOST: usize = 107;
/// What the second version begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of its fixed part.
const FIXED: usize = 16;

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Who is behind the proxy; `None` where it speaks for itself, or does not know.
    pub(super) client: Option<IpAddr>,
    /// Length of the header, bytes.
    pub(super) len: usize,
}

/// These bytes begin no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection does not begin with a PROXY header")]
pub(super) struct NoHeader;

/// Reads the header at the beginning of a connection; `None` while there is more to come.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, wanted)| byte == wanted);
    if begins(SIGNATURE) {
        second(bytes)
    } else if begins(b"PROXY ") {
        first(bytes)
    } else {
        Err(NoHeader)
    }
}

fn first(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let head = &bytes[..bytes.len().min(LINE_MOST)];
    let Some(end) = head.iter().position(|&byte| byte == b'\n') else {
        return if head.len() < LINE_MOST { Ok(None) } else { Err(NoHeader) };
    };
    let line = head[..end].strip_suffix(b"\r").ok_or(NoHeader)?;
    let line = std::str::from_utf8(line).map_err(|_| NoHeader)?;
    let mut words = line.split(' ').skip(1);
    let client = match words.next() {
        Some("UNKNOWN") => None,
        Some("TCP4" | "TCP6") => {
            let mut address = || words.next()?.parse::<IpAddr>().ok();
            let (source, destination) = (address(), address());
            let mut port = || words.next()?.parse::<u16>().ok();
            let (from, to) = (port(), port());
            let whole = destination.is_some() && from.is_some() && to.is_some() && words.next().is_none();
            Some(source.filter(|_| whole).ok_or(NoHeader)?)
        }
        _ => return Err(NoHeader),
    };
    Ok(Some(Header { client, len: end + 1 }))
}

fn second(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let len = usize::from(u16::from_be_bytes([high, low]));
    // A connection of the proxy's own, or one that it passes on.
    let passed_on = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(NoHeader),
    };
    // Further fields may follow the addresses.
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let client = match (passed_on, family) {
        (true, 0x11) => {
            let (source, _) = body.split_first_chunk::<4>().filter(|_| len >= 12).ok_or(NoHeader)?;
            Some(Ipv4Addr::from(*source).into())
        }
        (true, 0x21) => {
            let (source, _) = body.split_first_chunk::<16>().filter(|_| len >= 36).ok_or(NoHeader)?;
            Some(Ipv6Addr::from(*source).into())
        }
        _ => None,
    };
    Ok(Some(Header { client, len: FIXED + len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, body].concat()
    }

    /// As stock rsync 3.5.0 takes them, but that it takes ports beyond 65535 and no further fields.
    #[test]
    fn headers_of_both_versions_name_the_client() {
        let four: &[u8] = &[10, 1, 2, 3, 127, 0, 0, 1, 1, 0, 3, 105];
        let six: Vec<u8> = [Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::LOCALHOST.octets()].concat();
        let six = [&six[..], &[1, 0, 3, 105]].concat();
        let tcp4 = b"PROXY TCP4 10.1.2.3 127.0.0.1 1000 873\r\n".to_vec();
        for (bytes, client) in [
            (tcp4, Some("10.1.2.3")),
            (b"PROXY TCP6 ::1 ::1 1000 873\r\n".to_vec(), Some("::1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (version_2(0x21, 0x11, four), Some("10.1.2.3")),
            (version_2(0x21, 0x11, &[four, b"\x04\0\x03abc"].concat()), Some("10.1.2.3")),
            (version_2(0x21, 0x21, &six), Some("::1")),
            (version_2(0x20, 0, b""), None),
            (version_2(0x20, 0x11, b"abc"), None),
            (version_2(0x21, 0, b""), None),
            (version_2(0x21, 0x31, &[b'x'; 216]), None),
        ] {
            let client = client.map(|text| text.parse().unwrap());
            let header = Header { client, len: bytes.len() };
            let shown = bytes.escape_ascii();
            assert_eq!(read(&[&bytes[..], b"@RSYNCD: 31.0\n"].concat()), Ok(Some(header)), "{shown}");
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Ok(None), "{shown} {end}");
            }
        }
    }

    #[test]
    fn anything_else_is_no_header() {
        let long = [b"PROXY TCP4 10.1.2.3 127.0.0.1 1000 873", &[b' '; 100][..]].concat();
        for bytes in [
            b"@RSYNCD: 31.0\n".to_vec(),
            b"PROXY TCP4 10.1.2.333 127.0.0.1 1000 873\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 127.0.0.1 x 873\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 127.0.0.1 70000 873\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 127.0.0.1 1000 873\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 127.0.0.1 1000 873 9\r\n".to_vec(),
            b"PROXY UDP4 10.1.2.3 127.0.0.1 1000 873\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            b"proxy TCP4 10.1.2.3 127.0.0.1 1000 873\r\n".to_vec(),
            long,
            version_2(0x11, 0x11, &[0; 12]),
            version_2(0x22, 0x11, &[0; 12]),
            version_2(0x21, 0x11, &[0; 8]),
            version_2(0x21, 0x21, &[0; 12]),
        ] {
            assert_eq!(read(&bytes), Err(NoHeader), "{}", bytes.escape_ascii());
        }
    }
}
