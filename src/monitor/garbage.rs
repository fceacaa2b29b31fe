//! Datagrams that are no messages, told once a minute for each sender.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often it is told of one.
const EVERY: Duration = Duration::from_secs(60);
/// Senders that are told apart.
const SENDERS: usize = 1000;

/// What came from whom since it was last told.
#[derive(Default)]
pub(super) struct GarbageLog(HashMap<Option<IpAddr>, GarbageCount>);

struct GarbageCount {
    told: Instant,
    since: u64,
}

impl GarbageLog {
    /// One more came; whether it is to be told now.
    pub(super) fn hear(&mut self, sender: Option<IpAddr>) -> bool {
        let known = self.0.contains_key(&sender);
        let sender = if known || self.0.len() < SENDERS { sender } else { None };
        match self.0.get_mut(&sender) {
            Some(count) => {
                count.since += 1;
                false
            }
            None => {
                self.0.insert(sender, GarbageCount { told: Instant::now(), since: 0 });
                true
            }
        }
    }

    /// How many more came of whom, of those that were told a minute ago.
    pub(super) fn due(&mut self) -> Vec<(Option<IpAddr>, u64)> {
        let mut due = Vec::new();
        self.0.retain(|sender, count| {
            if count.told.elapsed() < EVERY {
                return true;
            }
            if count.since > 0 {
                due.push((*sender, count.since));
                *count = GarbageCount { told: Instant::now(), since: 0 };
                return true;
            }
            false
        });
        due
    }

    #[cfg(test)]
    fn age(&mut self) {
        self.0.values_mut().for_each(|count| count.told -= EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_is_told_once_and_then_counted_for_a_minute() {
        let mut log = GarbageLog::default();
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|ip| Some(ip.parse().unwrap()));
        assert!(log.hear(one) && log.hear(other));
        assert!((0..5).all(|_| !log.hear(one)));
        assert_eq!(log.due(), []);
        log.age();
        assert_eq!(log.due(), [(one, 5)]);
        assert!(log.hear(other), "it was silent for a minute");
        log.age();
        assert_eq!(log.due(), []);
    }

    #[test]
    fn of_more_senders_than_are_told_apart_the_others_are_one() {
        let mut log = GarbageLog::default();
        let of = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        assert_eq!((0..SENDERS as u32 + 50).filter(|n| log.hear(of(*n))).count(), SENDERS + 1);
        log.age();
        assert_eq!(log.due(), [(None, 49)]);
    }
}
