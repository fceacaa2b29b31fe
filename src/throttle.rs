//! A limit on how fast bytes go over a link: `--bwlimit`.

use crate::link::{Link, Sink};
use protocol::args::parse_size;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long one piece may be held back. A closed link, or one that is to end, is noticed between pieces.
const PIECE: Duration = Duration::from_millis(100);
/// The same where the rate was lowered when the piece had gone: the next one is held back for what is left then.
const LONGEST: Duration = Duration::from_secs(1);

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
    account: Mutex<Account>,
}

/// What went and what is paid for, in bytes: so that a rate that changes holds for what waits, too.
#[derive(Debug)]
struct Account {
    charged: f64,
    paid: f64,
    /// Until when it is paid.
    at: Instant,
}

impl Rate {
    /// So many bytes per second; 0 for no limit.
    pub(crate) fn new(rate: u64) -> Self {
        let account = Mutex::new(Account { charged: 0.0, paid: 0.0, at: Instant::now() });
        Self { own: Arc::new(Bucket { rate: AtomicU64::new(rate), account }), within: None }
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
    pub(crate) fn piece(&self) -> usize {
        match self.get() {
            0 => usize::MAX,
            rate => usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1),
        }
    }

    /// Waits until so many more bytes may have gone, or it is not to go on.
    pub(crate) fn pay(&self, bytes: usize, mut goes_on: impl FnMut() -> bool) {
        let buckets = [Some(&self.own), self.within.as_ref()].into_iter().flatten();
        let tickets: Vec<_> = buckets.map(|bucket| (bucket, bucket.charge(bytes))).collect();
        loop {
            let due = tickets.iter().map(|(bucket, ticket)| bucket.due(*ticket)).max().unwrap_or_default();
            if due.is_zero() || !goes_on() {
                return;
            }
            thread::sleep(due.min(PIECE));
        }
    }

    /// Waits until a piece may have gone.
    fn pay_piece(&self, bytes: usize) {
        let deadline = Instant::now() + LONGEST;
        self.pay(bytes, || Instant::now() < deadline);
    }
}

impl Bucket {
    fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// The account as it is now.
    fn account(&self) -> MutexGuard<'_, Account> {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = now.saturating_duration_since(account.at);
        account.at = now;
        account.paid = match self.rate() {
            0 => account.charged,
            // What was not used meanwhile is lost, but for a moment's worth.
            rate => {
                let rate = rate as f64;
                let spare = account.charged + rate * PIECE.as_secs_f64();
                (account.paid + rate * since.as_secs_f64()).min(spare)
            }
        };
        account
    }

    /// Puts bytes to account; what must be paid until they are.
    fn charge(&self, bytes: usize) -> f64 {
        let mut account = self.account();
        account.charged += bytes as f64;
        account.charged
    }

    /// How long it takes until so much is paid, as the rate is now.
    fn due(&self, ticket: f64) -> Duration {
        let left = ticket - self.account().paid;
        match self.rate() {
            rate if rate > 0 && left > 0.0 => Duration::try_from_secs_f64(left / rate as f64).unwrap_or(Duration::MAX),
            _ => Duration::ZERO,
        }
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
        self.rate.pay_piece(written);
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
        self.rate.pay_piece(read);
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
        both.pay(300_000, || true);
        assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
    }

    #[test]
    fn even_the_slowest_goes_on() {
        assert_eq!(Rate::new(1).piece(), 1);
        assert!(Rate::new(u64::MAX).piece() > 1 << 40);
    }

    #[test]
    fn what_has_gone_already_waits_by_the_rate_as_it_becomes() {
        let rate = Rate::new(1);
        let waiting = thread::spawn({
            let rate = rate.clone();
            move || rate.pay(1_000_000, || true)
        });
        while rate.own.account().charged == 0.0 {
            thread::yield_now();
        }
        rate.set(1_000_000_000);
        waiting.join().unwrap();
        rate.set(1);
        // It is not to go on.
        rate.pay(1_000_000, || false);
        // The rate was lowered when a piece had gone.
        let (near, _far) = pipe::pair();
        let mut writer = rate.slow(near.writer);
        let began = Instant::now();
        writer.write_all(b"x").unwrap();
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
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
