//! What of a connection's bytes has not arrived yet. The system takes megabytes of a slow link at once, and then nothing moves
//! that could be seen at the socket.

use rustix::fs::fstat;
use std::fs;
use std::net::TcpStream;

/// Bytes that were given to the socket and are not acknowledged; `None` where that is not to be learned.
pub(super) fn queued(tcp: &TcpStream) -> Option<u64> {
    let inode = fstat(tcp).ok()?.st_ino.to_string();
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .find_map(|table| of_line(&fs::read_to_string(table).ok()?, &inode))
}

/// What the table says of the socket with this inode.
fn of_line(table: &str, inode: &str) -> Option<u64> {
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(4);
        let queues = fields.next()?;
        if fields.nth(4)? != inode {
            return None;
        }
        u64::from_str_radix(queues.split(':').next()?, 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn what_nobody_reads_is_queued() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert_eq!(queued(&near), Some(0));
        near.set_nonblocking(true).unwrap();
        while near.write(&[0; 65536]).is_ok() {}
        assert!(queued(&near).is_some_and(|bytes| bytes > 65536), "{:?}", queued(&near));
        drop(far);
    }
}
