//! A reader that also wakes for news from within: who waits for a peer's bytes may have to wait for something else as well.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Bytes read at once.
const PIECE: usize = 32 * 1024;
/// Pieces that may wait.
const PIECES: usize = 8;

enum Piece {
    Bytes(Vec<u8>),
    News,
    End(io::Result<()>),
}

/// Wakes who waits at the reader.
#[derive(Clone)]
pub(crate) struct Waker(SyncSender<Piece>);

impl Waker {
    /// Whoever waits goes on. Who has bytes waiting does not wait.
    pub(crate) fn wake(&self) {
        let _ = self.0.try_send(Piece::News);
    }
}

/// What a thread of its own reads. At news, and when nothing has come for a while, it fails with `WouldBlock`.
pub(super) struct NewsReader {
    pieces: Receiver<Piece>,
    rest: Vec<u8>,
    used: usize,
    ended: bool,
    every: Duration,
    /// Somebody waits for nothing but the peer's bytes.
    awaited: Arc<AtomicBool>,
}

impl NewsReader {
    /// Reads from `link` from now on.
    pub(super) fn new(link: Box<dyn Read + Send>, every: Duration) -> io::Result<(Self, Waker)> {
        let (sender, pieces) = sync_channel(PIECES);
        let awaited = Arc::new(AtomicBool::new(false));
        let (waker, by_whom) = (Waker(sender.clone()), awaited.clone());
        thread::Builder::new().name("reader".into()).spawn(move || pass_on(link, &sender, &by_whom))?;
        Ok((Self { pieces, rest: Vec::new(), used: 0, ended: false, every, awaited }, waker))
    }

    /// Waits for bytes, for the end, or for news, which may take as long as those who work elsewhere need.
    fn next(&mut self) -> io::Result<usize> {
        match self.pieces.recv_timeout(self.every) {
            Ok(Piece::Bytes(bytes)) => {
                (self.rest, self.used) = (bytes, 0);
                Ok(self.rest.len())
            }
            Ok(Piece::News) | Err(RecvTimeoutError::Timeout) => Err(ErrorKind::WouldBlock.into()),
            Ok(Piece::End(ended)) => {
                self.ended = true;
                ended.map(|()| 0)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(0),
        }
    }
}

impl Read for NewsReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.rest.len() && (self.ended || self.next()? == 0) {
            return Ok(0);
        }
        let n = buffer.len().min(self.rest.len() - self.used);
        buffer[..n].copy_from_slice(&self.rest[self.used..self.used + n]);
        self.used += n;
        Ok(n)
    }
}

/// Says for whom silence counts: for one who waits for the peer alone.
pub(super) struct Awaited(Arc<AtomicBool>);

impl NewsReader {
    pub(super) fn awaited(&self) -> Awaited {
        Awaited(self.awaited.clone())
    }
}

impl Awaited {
    pub(super) fn set(&self, awaited: bool) {
        self.0.store(awaited, Ordering::Relaxed);
    }
}

fn pass_on(mut link: Box<dyn Read + Send>, pieces: &SyncSender<Piece>, awaited: &AtomicBool) {
    loop {
        let mut buffer = vec![0; PIECE];
        let piece = match link.read(&mut buffer) {
            Ok(0) => Piece::End(Ok(())),
            Ok(n) => {
                buffer.truncate(n);
                Piece::Bytes(buffer)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Nobody is owed a word while others work.
            Err(error) if error.kind() == ErrorKind::TimedOut && !awaited.load(Ordering::Relaxed) => continue,
            Err(error) => Piece::End(Err(error)),
        };
        let over = matches!(piece, Piece::End(_));
        if pieces.send(piece).is_err() || over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_news_and_the_end_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, waker) = NewsReader::new(Box::new(ours), Duration::from_secs(600)).unwrap();
        let mut buffer = [0; 8];
        waker.wake();
        assert_eq!(reader.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        io::Write::write_all(&mut &theirs, b"abc").unwrap();
        assert_eq!((reader.read(&mut buffer[..2]).unwrap(), reader.read(&mut buffer[2..]).unwrap()), (2, 1));
        assert_eq!(&buffer[..3], b"abc");
        drop(theirs);
        assert_eq!((reader.read(&mut buffer).unwrap(), reader.read(&mut buffer).unwrap()), (0, 0));
    }
}
