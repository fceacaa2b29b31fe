//! When the table is asked whether there are new rows.
//!
//! A new row is not to wait, and an archiver without work is to cost next to nothing. So where the database tells of
//! writes, it is asked right after each, and seldom besides. Where it does not, it is asked often while rows come, and then
//! as often as a small share of a core allows, by what a question has cost.

use std::time::{Duration, Instant};

/// Between two questions where new rows are expected: half of it is what a row waits.
const OFTEN: Duration = Duration::from_millis(20);
/// Between two questions where hardly any is.
const SELDOM: Duration = Duration::from_millis(250);
/// After a word, until the first question: a write is told of a moment before it counts.
const AT_ONCE: Duration = Duration::from_millis(1);
/// By how much each pause is longer than the one before, after a word.
const LONGER: u32 = 4;
/// How long a write may take to count, once it was told of: a commit waits for its disk. A row that comes later came without a word.
const WRITING: Duration = Duration::from_secs(1);
/// How long more rows are expected after one.
const LATELY: Duration = Duration::from_secs(60);
/// Of how many parts of a core's time asking takes one, when there is nothing else to do: 0.4 %.
const SHARE: u32 = 250;
/// How many questions their cost is averaged over.
const AVERAGED: u32 = 8;

/// When to ask next, and what that is known from.
pub(super) struct Asking {
    due: Instant,
    /// The pause before the question that is due, after a word.
    pause: Duration,
    /// When there was a word last.
    told: Option<Instant>,
    /// A row came without a word: none says anything.
    is_untold: bool,
    /// When there was a new row last.
    found: Instant,
    /// What a question costs of a core's time.
    cost: Duration,
    /// The time of cores that was used when the last question was put, if there was nothing but questions since.
    used: Option<Duration>,
}

impl Asking {
    /// Rows are expected.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, pause: OFTEN, told: None, is_untold: false, found: now, cost: OFTEN / SHARE, used: None }
    }

    /// The table was looked at, and is left alone for a while.
    pub(super) fn begin(&mut self, now: Instant) {
        self.used = None;
        self.due = now + self.next(now);
    }

    /// When to ask next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether a word is of use before the next question. Right after one another is not, so that it does not matter how
    /// many come.
    pub(super) fn listens(&self) -> bool {
        self.pause >= OFTEN
    }

    /// Something was written.
    pub(super) fn told(&mut self, now: Instant) {
        if self.listens() {
            self.pause = AT_ONCE;
            self.due = self.due.min(now + AT_ONCE);
        }
        self.told = Some(now);
    }

    /// There was a question, and nothing new. `used`: the time of cores that this process has used, where it has no work.
    pub(super) fn asked(&mut self, now: Instant, used: Option<Duration>) {
        if let (Some(before), Some(used)) = (self.used, used) {
            self.cost = (self.cost * (AVERAGED - 1) + used.saturating_sub(before)) / AVERAGED;
        }
        self.used = used;
        self.pause = (self.pause * LONGER).min(OFTEN);
        self.due = now + self.next(now);
    }

    /// There was a new row.
    pub(super) fn found(&mut self, now: Instant) {
        self.found = now;
        self.is_untold |= self.told.is_some_and(|told| now.saturating_duration_since(told) > WRITING);
    }

    fn next(&self, now: Instant) -> Duration {
        let since = |moment: Instant| now.saturating_duration_since(moment);
        match self.told {
            _ if !self.listens() => self.pause,
            Some(told) if !self.is_untold => match since(told) <= WRITING {
                true => OFTEN,
                false => SELDOM,
            },
            _ if self.used.is_none() || since(self.found) <= LATELY => OFTEN,
            _ => (self.cost * SHARE).clamp(OFTEN, SELDOM),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for so long, each question at the cost of so much of a core; how many there were.
    fn ask(asking: &mut Asking, now: &mut Instant, span: Duration, cost: Duration) -> u32 {
        let (end, mut used) = (*now + span, Duration::ZERO);
        asking.begin(*now);
        let mut questions = 0;
        while asking.due() < end {
            *now = asking.due();
            used += cost;
            asking.asked(*now, Some(used));
            questions += 1;
        }
        *now = end;
        questions
    }

    const CHEAP: Duration = Duration::from_micros(60);
    const DEAR: Duration = Duration::from_micros(300);

    #[test]
    fn who_is_not_told_asks_often_while_rows_come_and_then_for_a_small_share_of_a_core() {
        let mut now = Instant::now();
        let mut asking = Asking::new(now);
        assert_eq!(ask(&mut asking, &mut now, LATELY, DEAR), 2999);
        let quiet = Duration::from_secs(60);
        // The average has come near.
        let questions = ask(&mut asking, &mut now, quiet, DEAR);
        assert!(DEAR * questions <= quiet / SHARE * 101 / 100, "{questions}");
        assert!(questions >= 790, "{questions}");
        asking.found(now);
        assert_eq!(ask(&mut asking, &mut now, LATELY, DEAR), 2999);
        // What costs little may go on.
        ask(&mut asking, &mut now, quiet, CHEAP);
        assert_eq!(ask(&mut asking, &mut now, quiet, CHEAP), 2999);
        // However dear, a row is seen within the longest pause.
        ask(&mut asking, &mut now, quiet, SELDOM);
        assert_eq!(ask(&mut asking, &mut now, quiet, SELDOM), 240);
    }

    #[test]
    fn work_is_no_reason_to_ask_seldom() {
        let mut now = Instant::now();
        let mut asking = Asking::new(now);
        ask(&mut asking, &mut now, 2 * LATELY, DEAR);
        asking.asked(now, None);
        assert_eq!(asking.due() - now, OFTEN);
    }

    #[test]
    fn who_is_told_asks_at_once_and_seldom_besides() {
        let mut now = Instant::now();
        let mut asking = Asking::new(now);
        asking.begin(now);
        asking.told(now);
        assert!(!asking.listens());
        let mut pauses = Vec::new();
        for _ in 0..5 {
            pauses.push((asking.due() - now).as_millis());
            now = asking.due();
            asking.told(now);
            asking.asked(now, Some(Duration::ZERO));
        }
        // Words without end change nothing until it listens again.
        assert_eq!(pauses, [1, 4, 16, 20, 4]);
        now += 2 * WRITING;
        asking.begin(now);
        asking.told(now);
        now = asking.due();
        asking.found(now);
        ask(&mut asking, &mut now, 2 * WRITING, DEAR);
        assert_eq!(ask(&mut asking, &mut now, Duration::from_secs(10), DEAR), 39);
        // A row without a word: there is no relying on them.
        asking.found(now);
        assert_eq!(ask(&mut asking, &mut now, Duration::from_secs(10), DEAR), 499);
    }
}
