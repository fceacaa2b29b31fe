//! Sums files on several threads: a large one never stands before a small one.

use crate::disk::summed::{SumError, SummedFile, SymlinkRule, open_regular, sum_opened};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Files from this size on are summed by threads of their own: a hundredth of a second's work.
const LARGE: u64 = 4 << 20;
/// How many of those there are.
const LARGE_THREADS: usize = 2;
/// A file that is written to while it is read is read again so often at once.
const READINGS: u32 = 3;
/// A thread that has read nothing for so long hangs in a file system, and another takes its place.
const HANGS: Duration = Duration::from_secs(30);
/// So many threads may hang before those who wait, wait for them.
const HANGING_MOST: usize = 16;

/// A file to be summed, for somebody who knows by this key what it is for.
pub(super) struct SumJob<K> {
    pub(super) key: K,
    pub(super) path: PathBuf,
    /// Whether the path may be a link.
    pub(super) links: SymlinkRule,
}

/// The threads; each gives its results to the same one.
pub(super) struct SumPool<K> {
    shared: Arc<PoolShared<K>>,
    crew: Vec<PoolThread>,
}

struct PoolShared<K> {
    queues: Mutex<PoolQueues<K>>,
    small: Condvar,
    large: Condvar,
    deliver: Box<dyn Fn(K, Result<SummedFile, SumError>) + Send + Sync>,
    epoch: Instant,
}

struct PoolQueues<K> {
    small: VecDeque<SumJob<K>>,
    large: VecDeque<SumJob<K>>,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobSize {
    Small,
    Large,
}

/// A thread as others see it.
struct PoolThread {
    size: JobSize,
    /// Milliseconds since the pool began at which it last read something; 0 while it has nothing to do.
    pulse: Arc<AtomicU64>,
    /// Another has taken its place: it ends with what it does.
    replaced: Arc<AtomicBool>,
}

impl<K: Send + 'static> SumPool<K> {
    /// So many threads for small files, and some for large ones.
    pub(super) fn new(
        threads: usize,
        deliver: impl Fn(K, Result<SummedFile, SumError>) + Send + Sync + 'static,
    ) -> Self {
        let queues = PoolQueues { small: VecDeque::new(), large: VecDeque::new(), closed: false };
        let (small, large) = Default::default();
        let shared =
            PoolShared { queues: Mutex::new(queues), small, large, deliver: Box::new(deliver), epoch: Instant::now() };
        let mut pool = Self { shared: Arc::new(shared), crew: Vec::new() };
        (0..threads).for_each(|_| pool.hire(JobSize::Small));
        (0..LARGE_THREADS).for_each(|_| pool.hire(JobSize::Large));
        pool
    }

    /// Has a file summed; there is no bound but the caller's.
    pub(super) fn submit(&self, job: SumJob<K>) {
        self.shared.lock().small.push_back(job);
        self.shared.small.notify_one();
    }

    /// Puts others into the places of threads that hang.
    pub(super) fn look_after(&mut self) {
        let now = self.shared.now();
        let mut hanging = 0;
        let mut lacking = Vec::new();
        self.crew.retain(|thread| !(thread.replaced.load(Relaxed) && Arc::strong_count(&thread.pulse) == 1));
        for thread in &self.crew {
            let pulse = thread.pulse.load(Relaxed);
            let hangs = pulse > 0 && now.saturating_sub(pulse) > HANGS.as_millis() as u64;
            if hangs || thread.replaced.load(Relaxed) {
                hanging += 1;
            }
            if hangs && !thread.replaced.load(Relaxed) && hanging <= HANGING_MOST {
                thread.replaced.store(true, Relaxed);
                lacking.push(thread.size);
            }
        }
        for size in lacking {
            tracing::warn!(
                event = "sum_hangs",
                "Reading a file has not come on for {} s; look at its file system",
                HANGS.as_secs()
            );
            self.hire(size);
        }
    }

    fn hire(&mut self, size: JobSize) {
        let (pulse, replaced) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        self.crew.push(PoolThread { size, pulse: pulse.clone(), replaced: replaced.clone() });
        let shared = self.shared.clone();
        thread::spawn(move || shared.work(size, &pulse, &replaced));
    }
}

impl<K> Drop for SumPool<K> {
    fn drop(&mut self) {
        let mut queues = self.shared.lock();
        queues.closed = true;
        queues.small.clear();
        queues.large.clear();
        drop(queues);
        self.shared.small.notify_all();
        self.shared.large.notify_all();
    }
}

impl<K> PoolShared<K> {
    fn lock(&self) -> MutexGuard<'_, PoolQueues<K>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn next(&self, size: JobSize) -> Option<SumJob<K>> {
        let mut queues = self.lock();
        loop {
            if queues.closed {
                return None;
            }
            let queue = if size == JobSize::Small { &mut queues.small } else { &mut queues.large };
            if let Some(job) = queue.pop_front() {
                return Some(job);
            }
            let bell = if size == JobSize::Small { &self.small } else { &self.large };
            queues = bell.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, size: JobSize, pulse: &AtomicU64, replaced: &AtomicBool) {
        while !replaced.load(Relaxed)
            && let Some(job) = self.next(size)
        {
            pulse.store(self.now(), Relaxed);
            match self.sum(&job, size, pulse) {
                Some(result) => (self.deliver)(job.key, result),
                None => {
                    self.lock().large.push_back(job);
                    self.large.notify_one();
                }
            }
            pulse.store(0, Relaxed);
        }
    }

    /// `None` of a file that others are there for.
    fn sum(&self, job: &SumJob<K>, size: JobSize, pulse: &AtomicU64) -> Option<Result<SummedFile, SumError>> {
        let beats = |_| pulse.store(self.now(), Relaxed);
        let mut result = Err(SumError::Changed);
        for _ in 0..READINGS {
            let opened = match open_regular(&job.path, job.links) {
                Ok((_, meta)) if size == JobSize::Small && meta.len() >= LARGE => return None,
                Ok(opened) => opened,
                Err(error) => return Some(Err(error)),
            };
            result = sum_opened(opened, &beats);
            if !matches!(result, Err(SumError::Changed)) {
                break;
            }
        }
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn small_files_do_not_wait_for_large_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let pool = SumPool::new(1, move |key: usize, result| drop(tell.lock().unwrap().send((key, result))));
        for large in 0..6 {
            let path = folder.path().join(format!("large{large}"));
            std::fs::File::create(&path).unwrap().set_len(LARGE * 32).unwrap();
            pool.submit(SumJob { key: large, path, links: SymlinkRule::Followed });
        }
        let path = folder.path().join("small");
        std::fs::write(&path, "abc\n").unwrap();
        pool.submit(SumJob { key: 100, path, links: SymlinkRule::Followed });
        pool.submit(SumJob { key: 101, path: folder.path().join("absent"), links: SymlinkRule::Followed });
        let (mut large, mut small) = (0, Vec::new());
        while small.len() < 2 {
            match told.recv().unwrap() {
                (0..100, _) => large += 1,
                result => small.push(result),
            }
        }
        assert!(large < 6, "all large ones came first");
        assert_eq!(small[0].1.as_ref().unwrap().md5[..4], [0x0b, 0xee, 0x89, 0xb0]);
        assert!(matches!(small[1].1, Err(SumError::Unreadable(_))));
    }
}
