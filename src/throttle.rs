//! A limit on how fast bytes go over a link: `--bwlimit`.

use crate::link::Link;
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long one piece may be held back. A closed link, or one that is to end, is noticed between pieces.
const PIECE: Duration = Duration::from_millis(100);

/// A rate that links share. Clones are the same rate.
#[derive(Debug, Clone)]
pub struct Rate(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    /// Bytes per second.
    rate: NonZeroU64,
    /// When all that was let through so far is paid for.
    paid: Mutex<Instant>,
}

impl Rate {
    /// So many bytes per second.
    pub fn new(rate: NonZeroU64) -> Self {
        Self(Arc::new(Bucket { rate, paid: Mutex::new(Instant::now()) }))
    }

    /// The link with what it writes held to the rate.
    pub fn on_writing(&self, link: Link) -> Link {
        Link { writer: self.slow(link.writer), ..link }
    }

    /// A writer held to the rate.
    pub(crate) fn slow(&self, writer: Box<dyn Write + Send>) -> Box<dyn Write + Send> {
        Box::new(Slow { inner: writer, rate: self.clone() })
    }

    /// The link with what it reads held to the rate; the far end feels it once the buffers between are full.
    pub fn on_reading(&self, link: Link) -> Link {
        Link { reader: Box::new(Slow { inner: link.reader, rate: self.clone() }), ..link }
    }

    /// The most that is moved at once.
    fn piece(&self) -> usize {
        usize::try_from(self.0.rate.get() / 10).unwrap_or(usize::MAX).max(1)
    }

    /// Waits until so many more bytes may have gone.
    pub(crate) fn pay(&self, bytes: usize) {
        let price = Duration::from_secs_f64(bytes as f64 / self.0.rate.get() as f64);
        let until = {
            let mut paid = self.0.paid.lock().unwrap_or_else(PoisonError::into_inner);
            // What was not used meanwhile is lost, but for a moment's worth.
            let earliest = Instant::now().checked_sub(PIECE).unwrap_or(*paid);
            *paid = (*paid).max(earliest) + price;
            *paid
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

struct Slow<T> {
    inner: T,
    rate: Rate,
}

impl<T: Write> Write for Slow<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(&bytes[..bytes.len().min(self.rate.piece())])?;
        // Bytes wait in the buffers below until they are flushed, and the far end would wait with us.
        self.inner.flush()?;
        self.rate.pay(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Slow<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(self.rate.piece());
        let read = self.inner.read(&mut bytes[..most])?;
        self.rate.pay(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe;

    #[test]
    fn a_rate_is_kept_in_both_directions_together() {
        let rate = Rate::new(NonZeroU64::new(1_000_000).unwrap());
        let (near, far) = pipe::pair();
        let (near, mut far) = (rate.on_writing(near), rate.on_reading(far));
        let began = Instant::now();
        let mut writer = near.writer;
        let writing = thread::spawn(move || writer.write_all(&vec![7; 200_000]));
        let mut bytes = Vec::new();
        far.reader.read_to_end(&mut bytes).unwrap();
        writing.join().unwrap().unwrap();
        assert_eq!(bytes, vec![7; 200_000]);
        // Each byte is paid for twice, and a tenth of a second is free.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(290), "{took:?}");
    }

    #[test]
    fn even_the_slowest_goes_on() {
        let rate = Rate::new(NonZeroU64::MIN);
        assert_eq!(rate.piece(), 1);
        assert!(Rate::new(NonZeroU64::MAX).piece() > 1 << 40);
    }
}
