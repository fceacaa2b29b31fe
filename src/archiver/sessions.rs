//! How many sessions work at once: a fixed number, or as many as pay.
//!
//! A session carries at most one window of its channel per round trip and keeps one core of the far end busy, so on long or
//! wide links several move more than one. One begins. How long a round trip takes is known once it has logged in, and with
//! that how many it takes to fill a fast line; whether there are more to be had only trying tells: their number is doubled
//! while that moves more, and what does not pay is given back. Where the first answer seems to have come a long way, the others
//! set out at once, and log in when the first one has.

use super::first_login::FirstLogin;
use super::link_found::LinkFound;
use super::stop::Stop;
use crate::status::{Progress, Snapshot};
use std::num::{NonZeroUsize, ParseIntError};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// Sessions of [`Workers::Auto`] at most: an sshd with its defaults still answers others who log in meanwhile.
const AUTO_MOST: usize = 16;
/// Sessions of [`Workers::Auto`] that first batches are made for, before it is known how many work.
const AUTO_LIKELY: usize = 8;
/// How often what was moved is looked at.
const WINDOW: Duration = Duration::from_secs(1);
/// Windows that count for a judgement, after one in which new sessions begin.
const WINDOWS: u32 = 2;
/// What twice the sessions must move more, as a factor.
const PAYS: f64 = 1.15;
/// Windows until another attempt, at first and at most.
const HOLD: (u32, u32) = (30, 600);
/// Windows without waiting work after which further sessions end.
const IDLE: u32 = 60;
/// How long those who have set out wait for the first login: no longer than sshd lets them.
const FIRST_LOGIN_MOST: Duration = Duration::from_secs(20);
/// What a file costs besides its bytes, as bytes.
const FILE_COST: u64 = 64 * 1024;

/// Sessions that work at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workers {
    /// So many.
    Fixed(NonZeroUsize),
    /// As many as pay.
    Auto,
}

impl Workers {
    /// The most there may be.
    pub(super) fn most(self) -> usize {
        match self {
            Self::Fixed(number) => number.get(),
            Self::Auto => AUTO_MOST,
        }
    }
}

/// `auto`, or a number from 1 to 64.
impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let number = text.parse().map_err(|error: ParseIntError| format!("{error}; it takes 1 to 64, or auto"))?;
        NonZeroUsize::new(number)
            .filter(|number| number.get() <= 64)
            .map(Self::Fixed)
            .ok_or_else(|| format!("{number} is not in 1..=64; it takes a number of these, or auto"))
    }
}

/// The permits of the workers: those with a number below their count work.
pub(super) struct SessionPermits {
    workers: Workers,
    count: watch::Sender<usize>,
    /// Our share of a link that others use as well: no more of them than that work.
    share: watch::Sender<usize>,
    /// A bit for each worker whose connection may be open.
    open: AtomicU64,
    found: LinkFound,
    /// A worker gave its permit back.
    troubled: AtomicBool,
    /// How many are of use from the beginning.
    link: OnceLock<usize>,
    first: FirstLogin,
    /// How many have set out before that was known; 0 for none.
    early: AtomicUsize,
}

impl SessionPermits {
    pub(super) fn new(workers: Workers) -> Self {
        let sessions = match workers {
            Workers::Fixed(number) => number.get(),
            Workers::Auto => 1,
        };
        Self {
            workers,
            count: watch::Sender::new(sessions),
            share: watch::Sender::new(usize::MAX),
            open: AtomicU64::new(0),
            found: LinkFound::default(),
            troubled: AtomicBool::new(false),
            link: OnceLock::new(),
            first: FirstLogin::default(),
            early: AtomicUsize::new(0),
        }
    }

    /// The first one has been answered, as if so many were of use: they set out.
    pub(super) fn set_out(&self, sessions: usize) {
        if self.workers == Workers::Auto && self.link.get().is_none() && !self.first.is_done() {
            self.count.send_if_modified(|count| {
                let sets_out = *count == 1 && sessions > 1;
                if sets_out {
                    self.early.store(sessions, Ordering::Relaxed);
                    *count = sessions;
                }
                sets_out
            });
        }
    }

    /// Whether this worker may log in, whose connection has been answered. Who has set out before the first one is in waits
    /// for that.
    pub(super) fn may_log_in(&self, number: usize) -> bool {
        let waits = self.workers == Workers::Auto && number > 0 && !self.first.is_done();
        !waits || (self.first.wait(FIRST_LOGIN_MOST) && number < self.sessions())
    }

    /// Somebody has logged in. Those who have set out and are of no use, as far as is known by now, turn back.
    pub(super) fn logged_in(&self) {
        if self.link.get().is_none() {
            self.call_back(1);
        }
        self.first.done();
    }

    /// This worker could not log in.
    pub(super) fn kept_out(&self, number: usize) {
        if number == 0 && !self.first.is_done() {
            self.call_back(1);
            self.first.failed();
        }
    }

    /// Of those who have set out so many go on, and no fewer than there would be otherwise.
    fn call_back(&self, sessions: usize) {
        let early = self.early.swap(0, Ordering::Relaxed);
        self.count.send_if_modified(|count| {
            let begun = if *count == early { 1 } else { *count };
            std::mem::replace(count, sessions.max(begun)) != sessions.max(begun)
        });
    }

    /// The link is known, and so many sessions are of use on it from the beginning.
    pub(super) fn begin_with(&self, sessions: usize) {
        if self.workers == Workers::Auto && self.link.set(sessions).is_ok() {
            self.call_back(sessions);
        }
    }

    /// Whether the link is known to be long, or seems to be.
    pub(super) fn is_long(&self) -> bool {
        self.link.get().is_some_and(|&sessions| sessions > 1) || self.early.load(Ordering::Relaxed) > 0
    }

    /// How many batches are made for: those that work, or are likely to.
    pub(super) fn likely(&self) -> usize {
        match self.workers {
            Workers::Auto if self.link.get().is_none() => AUTO_LIKELY,
            _ => self.sessions(),
        }
    }

    /// How many work now.
    pub(super) fn sessions(&self) -> usize {
        (*self.count.borrow()).min(*self.share.borrow())
    }

    /// Waits until this worker has its permit.
    pub(super) async fn granted(&self, number: usize) {
        let (mut count, mut share) = (self.count.subscribe(), self.share.subscribe());
        loop {
            // The senders live in us, so this ends only when it is so.
            let _ = count.wait_for(|sessions| number < *sessions).await;
            let _ = share.wait_for(|sessions| number < *sessions).await;
            if number < self.sessions() {
                return;
            }
        }
    }

    /// Waits until this worker has none.
    pub(super) async fn revoked(&self, number: usize) {
        let (mut count, mut share) = (self.count.subscribe(), self.share.subscribe());
        tokio::select! {
            _ = count.wait_for(|sessions| number >= *sessions) => {}
            _ = share.wait_for(|sessions| number >= *sessions) => {}
        }
    }

    /// Our share of the link is so many.
    pub(super) fn limit_to(&self, sessions: usize) {
        self.share.send_if_modified(|share| std::mem::replace(share, sessions) != sessions);
    }

    /// Whether this worker is to end its connection, which others wait for.
    pub(super) fn must_leave(&self, number: usize) -> bool {
        number >= *self.share.borrow() && self.open.load(Ordering::Relaxed) & bit(number) != 0
    }

    /// This worker connects.
    pub(super) fn opens(&self, number: usize) {
        self.open.fetch_or(bit(number), Ordering::Relaxed);
    }

    /// This worker's connection is closed.
    pub(super) fn closed(&self, number: usize) {
        self.open.fetch_and(!bit(number), Ordering::Relaxed);
        if number >= *self.share.borrow() {
            self.found.gave_back();
        }
    }

    /// How many connections may be open.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed).count_ones()
    }

    /// How many sessions there is work for, were they to be had.
    pub(super) fn wanted(&self) -> usize {
        let (count, share) = (*self.count.borrow(), *self.share.borrow());
        match self.workers {
            // It would try more if it might.
            Workers::Auto if count >= share => (share.max(1) * 2).min(AUTO_MOST),
            _ => count.min(self.workers.most()),
        }
    }

    /// How the link was found.
    pub(super) fn found(&self) -> &LinkFound {
        &self.found
    }

    /// A worker that cannot reach the far end gives its permit back, if others may go on without it.
    pub(super) fn give_back(&self, number: usize) -> bool {
        let spare = self.workers == Workers::Auto && number > 0;
        if spare && number < self.sessions() {
            self.troubled.store(true, Ordering::Relaxed);
            self.count.send_if_modified(|sessions| {
                let fewer = (*sessions).min(number);
                std::mem::replace(sessions, fewer) != fewer
            });
        }
        spare
    }

    /// Everyone may come and leave: the work is over.
    pub(super) fn open_all(&self) {
        self.count.send_replace(usize::MAX);
        self.share.send_replace(usize::MAX);
    }

    /// Looks after the number of permits for as long as it runs; `waits` tells whether work waits for a worker.
    pub(super) async fn look_after(&self, progress: Arc<Progress>, stop: Stop, waits: impl Fn() -> bool) {
        if self.workers != Workers::Auto {
            return stop.stopped().await;
        }
        let mut tuner = SessionTuner::new(AUTO_MOST);
        let mut tick = tokio::time::interval(WINDOW);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut moved = moved_so_far(&progress.snapshot());
        let mut last = tokio::time::Instant::now();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.stopped() => return,
            }
            let so_far = moved_so_far(&progress.snapshot());
            let seconds = last.elapsed().as_secs_f64().max(1e-3);
            let rate = (so_far - moved) as f64 / seconds;
            (moved, last) = (so_far, tokio::time::Instant::now());
            let troubled = self.troubled.swap(false, Ordering::Relaxed);
            let before = self.sessions();
            tuner.most = AUTO_MOST.min((*self.share.borrow()).max(1));
            let sessions = tuner.window(before, waits(), rate, troubled);
            if sessions != before {
                tracing::info!(
                    event = "sessions",
                    sessions = sessions,
                    rate_mb = (rate / 1e5).round() / 10.0,
                    "Sessions: {before} until now"
                );
                self.count.send_replace(sessions);
            }
        }
    }
}

/// Of a worker; there are no more than 64.
fn bit(number: usize) -> u64 {
    1 << (number % 64)
}

fn moved_so_far(now: &Snapshot) -> u64 {
    now.read_bytes + now.copied * FILE_COST
}

/// Finds out how many sessions pay.
struct SessionTuner {
    most: usize,
    /// Windows since the number last changed.
    since: u32,
    /// What these moved.
    rates: Vec<f64>,
    /// The number before, and what it moved, while more of them are tried.
    before: Option<(usize, f64)>,
    /// Windows until another attempt, and how many there will be after that.
    hold: u32,
    next_hold: u32,
    idle: u32,
}

impl SessionTuner {
    fn new(most: usize) -> Self {
        Self { most, since: 0, rates: Vec::new(), before: None, hold: 0, next_hold: HOLD.0, idle: 0 }
    }

    /// How many there shall be after a window in which there were `sessions`.
    fn window(&mut self, sessions: usize, waits: bool, rate: f64, troubled: bool) -> usize {
        self.hold = self.hold.saturating_sub(1);
        if troubled {
            // The far end wants no more of them, and asking often would make it angry.
            self.next_hold = HOLD.1;
            return self.settle(sessions);
        }
        if !waits {
            self.idle += 1;
            self.measure_anew();
            if sessions > 1 && self.idle >= IDLE {
                self.next_hold = HOLD.0;
                self.settle(1);
                self.hold = 0;
                return 1;
            }
            return sessions;
        }
        self.idle = 0;
        self.since += 1;
        if self.since == 1 {
            return sessions;
        }
        self.rates.push(rate);
        if self.rates.len() < WINDOWS as usize {
            return sessions;
        }
        let mean = self.rates.iter().sum::<f64>() / self.rates.len() as f64;
        if let Some((fewer, less)) = self.before {
            if mean < less * PAYS {
                return self.settle(fewer);
            }
            self.next_hold = HOLD.0;
        }
        if sessions < self.most && self.hold == 0 {
            self.measure_anew();
            self.before = Some((sessions, mean));
            return (sessions * 2).min(self.most);
        }
        self.measure_anew();
        sessions
    }

    /// Stays with this number for a while, each time longer.
    fn settle(&mut self, sessions: usize) -> usize {
        self.measure_anew();
        self.hold = self.next_hold;
        self.next_hold = (self.next_hold * 2).min(HOLD.1);
        sessions
    }

    fn measure_anew(&mut self) {
        self.since = 0;
        self.rates.clear();
        self.before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays windows against a link on which so many sessions move so much; the number in each window.
    fn play(tuner: &mut SessionTuner, mut sessions: usize, windows: usize, link: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut seen = Vec::new();
        for _ in 0..windows {
            sessions = tuner.window(sessions, true, link(sessions), false);
            seen.push(sessions);
        }
        seen
    }

    #[test]
    fn as_many_as_pay() {
        // Each moves 20, all together at most 125.
        let seen = play(&mut SessionTuner::new(16), 1, 25, |sessions| (20.0 * sessions as f64).min(125.0));
        assert_eq!(seen[24], 8, "{seen:?}");
        assert!(seen.iter().all(|&sessions| sessions <= 16));
        let seen = play(&mut SessionTuner::new(16), 1, 25, |sessions| 20.0 * sessions as f64);
        assert_eq!(seen[24], 16, "{seen:?}");
        assert!(seen.windows(2).all(|pair| pair[1] <= pair[0] * 2));
    }

    #[test]
    fn what_does_not_pay_is_given_back_and_tried_ever_more_rarely() {
        let seen = play(&mut SessionTuner::new(16), 1, 400, |_| 600.0);
        let tried = seen.windows(2).filter(|pair| pair[0] == 1 && pair[1] == 2).count();
        assert!((3..=6).contains(&tried), "{tried}");
        assert!(seen.iter().all(|&sessions| sessions <= 2));
    }

    #[test]
    fn a_far_end_that_wants_no_more_is_left_alone() {
        let mut tuner = SessionTuner::new(16);
        assert_eq!(play(&mut tuner, 1, 4, |sessions| sessions as f64)[3], 2);
        assert_eq!(tuner.window(1, true, 1.0, true), 1);
        let seen = play(&mut tuner, 1, HOLD.1 as usize - 10, |sessions| sessions as f64);
        assert!(seen.iter().all(|&sessions| sessions == 1));
    }

    #[test]
    fn without_work_one_is_enough() {
        let mut tuner = SessionTuner::new(16);
        assert_eq!(play(&mut tuner, 1, 12, |sessions| sessions as f64)[11], 16);
        let mut sessions = 16;
        for _ in 0..IDLE {
            sessions = tuner.window(sessions, false, 0.0, false);
        }
        assert_eq!(sessions, 1);
        assert_eq!(play(&mut tuner, 1, 12, |sessions| sessions as f64)[11], 16);
    }

    #[tokio::test]
    async fn permits_go_by_number() {
        let permits = SessionPermits::new(Workers::Auto);
        permits.granted(0).await;
        permits.revoked(1).await;
        assert!(!permits.give_back(0));
        assert_eq!(permits.likely(), AUTO_LIKELY);
        permits.begin_with(4);
        permits.begin_with(8);
        assert_eq!((permits.sessions(), permits.likely()), (4, 4), "the link is known but once");
        permits.granted(3).await;
        assert!(permits.give_back(2));
        assert_eq!(permits.sessions(), 2);
        assert!(permits.give_back(3), "it has none any more");
        assert_eq!(permits.sessions(), 2);
        permits.open_all();
        permits.granted(15).await;
        assert!(!SessionPermits::new("3".parse().unwrap()).give_back(2));
    }

    #[tokio::test]
    async fn no_more_work_than_our_share_of_the_link_allows() {
        let permits = SessionPermits::new("4".parse().unwrap());
        permits.limit_to(2);
        permits.granted(1).await;
        permits.revoked(2).await;
        assert_eq!((permits.sessions(), permits.wanted()), (2, 4));
        permits.opens(0);
        permits.opens(1);
        permits.limit_to(1);
        assert_eq!((permits.must_leave(0), permits.must_leave(1), permits.open()), (false, true, 2));
        permits.closed(1);
        assert_eq!((permits.must_leave(1), permits.open()), (false, 1));
        permits.open_all();
        permits.granted(3).await;
    }

    #[test]
    fn those_who_set_out_log_in_once_the_first_has_and_turn_back_where_it_has_not() {
        let permits = SessionPermits::new(Workers::Auto);
        permits.set_out(5);
        permits.set_out(8);
        assert_eq!((permits.sessions(), permits.likely(), permits.is_long()), (5, AUTO_LIKELY, true));
        assert!(permits.may_log_in(0), "it is the first");
        permits.kept_out(4);
        assert_eq!(permits.sessions(), 5, "it is not");
        let outcome = |tell: &(dyn Fn() + Sync)| {
            std::thread::scope(|scope| {
                let permits = &permits;
                let waiting = [1, 4].map(|number| scope.spawn(move || permits.may_log_in(number)));
                while waiting.iter().any(|waits| !waits.is_finished()) {
                    tell();
                }
                waiting.map(|waits| waits.join().unwrap())
            })
        };
        assert_eq!(outcome(&|| permits.kept_out(0)), [false, false]);
        assert_eq!((permits.sessions(), permits.give_back(4)), (1, true));
        assert!(!permits.troubled.load(Ordering::Relaxed), "nobody turned it away");
        permits.set_out(5);
        assert_eq!(permits.sessions(), 5, "it is tried again");
        permits.begin_with(3);
        assert!(outcome(&|| permits.logged_in())[0]);
        assert_eq!(permits.sessions(), 3);
        permits.set_out(8);
        assert!(permits.sessions() == 3 && permits.may_log_in(7), "who comes later, does not wait");
    }

    #[test]
    fn over_a_short_link_those_who_set_out_turn_back() {
        let permits = SessionPermits::new(Workers::Auto);
        permits.set_out(5);
        permits.logged_in();
        assert!(permits.sessions() == 1 && !permits.is_long());
        permits.begin_with(1);
        assert_eq!(permits.sessions(), 1);
        let fixed = SessionPermits::new("3".parse().unwrap());
        fixed.set_out(5);
        assert!(fixed.sessions() == 3 && fixed.may_log_in(2), "they all begin together");
    }

    #[test]
    fn numbers_are_checked() {
        assert_eq!("auto".parse(), Ok(Workers::Auto));
        assert_eq!("64".parse::<Workers>().unwrap().most(), 64);
        for wrong in ["0", "65", "-1", "", "many"] {
            assert!(wrong.parse::<Workers>().unwrap_err().contains("auto"), "{wrong}");
        }
    }
}
