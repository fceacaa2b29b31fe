//! A limit on how fast bytes go over a link: `--bwlimit`.

use crate::link::{Link, Sink};
use protocol::args::parse_size;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long one piece may be held back. A closed link, or one that is to end, is noticed between pieces.
const PIECE: Duration = Duration::from_millis(100);

/// A rate that links share, and that may change at any time. Clones are the same rate.
#[derive(Debug, Clone)]
pub(crate) struct Rate {
    own: Arc<Bucket>,
    /// Another one that holds besides.
    within: Option<Arc<Bucket>>,
}

/// Bytes per second, from KiB per second or a text with a suffix, as rsync's `--bwlimit` has it.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    parse_size(text.as_bytes(), b'K').ok_or_else(|| "expected a rate such as 500 (KiB/s), 1.5m or 0".into())
}

#[derive(Debug)]
struct Bucket {
    /// Bytes per second; 0 for no limit.
    rate: AtomicU64,
    /// When all that was let through so far is paid for.
    paid: Mutex<Instant>,
}

impl Rate {
    /// So many bytes per second; 0 for no limit.
    pub(crate) fn new(rate: u64) -> Self {
        Self { own: Arc::new(Bucket { rate: AtomicU64::new(rate), paid: Mutex::new(Instant::now()) }), within: None }
    }

    /// The same rate, and no more than the other one allows.
    pub(crate) fn within(&self, other: &Self) -> Self {
        Self { own: self.own.clone(), within: Some(other.own.clone()) }
    }

    /// From now on so many bytes per second; 0 for no limit.
    pub(crate) fn set(&self, rate: u64) {
        self.own.rate.store(rate, Ordering::Relaxed);
    }

    /// Bytes per second; 0 for no limit.
    pub(crate) fn get(&self) -> u64 {
        let rates = [Some(&self.own), self.within.as_ref()].into_iter().flatten().map(|bucket| bucket.rate());
        rates.filter(|rate| *rate > 0).min().unwrap_or(0)
    }

    /// The link with what it writes held to the rate.
    pub(crate) fn on_writing(&self, link: Link) -> Link {
        Link { writer: self.slow(link.writer), ..link }
    }

    /// A writer held to the rate.
    pub(crate) fn slow(&self, writer: Box<dyn Sink>) -> Box<dyn Sink> {
        Box::new(Slow { inner: writer, rate: self.clone() })
    }

    /// The link with what it reads held to the rate; the far end feels it once the buffers between are full.
    pub(crate) fn on_reading(&self, link: Link) -> Link {
        Link { reader: Box::new(Slow { inner: link.reader, rate: self.clone() }), ..link }
    }

    /// The most that is moved at once.
    fn piece(&self) -> usize {
        match self.get() {
            0 => usize::MAX,
            rate => usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1),
        }
    }

    /// Waits until so many more bytes may have gone.
    pub(crate) fn pay(&self, bytes: usize) {
        let due = [Some(&self.own), self.within.as_ref()].into_iter().flatten().filter_map(|bucket| bucket.pay(bytes));
        if let Some(until) = due.max() {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }
}

impl Bucket {
    fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// When so many bytes more are paid for.
    fn pay(&self, bytes: usize) -> Option<Instant> {
        let rate = self.rate();
        if rate == 0 {
            return None;
        }
        let price = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used meanwhile is lost, but for a moment's worth.
        let earliest = Instant::now().checked_sub(PIECE).unwrap_or(*paid);
        *paid = (*paid).max(earliest) + price;
        Some(*paid)
    }
}

struct Slow<T> {
    inner: T,
    rate: Rate,
}

impl<T: Write> Write for Slow<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(&bytes[..bytes.len().min(self.rate.piece())])?;
        if self.rate.get() == 0 {
            return Ok(written);
        }
        // Bytes wait in the buffers below until they are flushed, and the far end would wait with us.
        self.inner.flush()?;
        self.rate.pay(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Sink> Sink for Slow<T> {
    fn give(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if self.rate.get() == 0 {
            return self.inner.give(bytes);
        }
        self.write_all(bytes)?;
        bytes.clear();
        Ok(())
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
        let rate = Rate::new(1_000_000);
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
    fn of_two_rates_the_lower_one_holds() {
        let (own, link) = (Rate::new(0), Rate::new(0));
        let both = own.within(&link);
        assert_eq!(both.get(), 0);
        link.set(500);
        assert_eq!(both.get(), 500);
        own.set(100);
        assert_eq!((both.get(), own.get(), link.get()), (100, 100, 500));
        own.set(0);
        link.set(1_000_000);
        let began = Instant::now();
        both.pay(300_000);
        assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
    }

    #[test]
    fn even_the_slowest_goes_on() {
        assert_eq!(Rate::new(1).piece(), 1);
        assert!(Rate::new(u64::MAX).piece() > 1 << 40);
    }

    #[test]
    fn a_rate_may_change_meanwhile() {
        let rate = Rate::new(1);
        let (near, mut far) = pipe::pair();
        let mut writer = rate.on_writing(near).writer;
        rate.set(0);
        let began = Instant::now();
        let writing = thread::spawn(move || writer.write_all(&[7; 100_000]));
        let mut bytes = Vec::new();
        far.reader.read_to_end(&mut bytes).unwrap();
        writing.join().unwrap().unwrap();
        assert_eq!(bytes.len(), 100_000);
        assert!(began.elapsed() < Duration::from_secs(60), "a day and more at the rate before");
        rate.set(5);
        assert_eq!((rate.get(), rate.clone().piece()), (5, 1));
    }
}
