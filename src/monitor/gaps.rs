//! Numbers that publishers have used and nobody received.

use super::message::{MessageTopic, PublisherMessage};
use super::value::{PyText, PyValue};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

/// Publishers that are remembered; who was not heard for longest gives way.
const PUBLISHERS_MOST: usize = 4096;
/// A message may be overtaken by so many. On one machine that does not happen; over a network it may.
const WINDOW: u64 = 32;
/// With more than this between two messages of one publisher it is another life of it.
const JUMP_MOST: u64 = 1 << 20;

/// One publisher: two of one process have the same host and id, and sockets of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PublisherKey {
    sender: Option<SocketAddr>,
    id: Vec<u8>,
    script: Vec<u8>,
}

#[derive(Debug, Default)]
struct PublisherCourse {
    /// The number above all that were received.
    next: u64,
    /// Numbers below that may still come.
    missing: BTreeSet<u64>,
    heard: u64,
}

/// The courses of all publishers.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    courses: HashMap<PublisherKey, PublisherCourse>,
    heard: u64,
}

impl Gaps {
    /// Takes a message into account; gives how many numbers are known to be lost by it.
    pub(super) fn hear(&mut self, message: &PublisherMessage, sender: Option<SocketAddr>) -> u64 {
        let Some(number) = message.number() else { return 0 };
        let text = |name| {
            let text = message.get(name).and_then(PyValue::str).map(PyText::into_bytes);
            text.unwrap_or_default()
        };
        let key = PublisherKey { sender, id: text("id"), script: text("script") };
        self.heard += 1;
        let mut lost = 0;
        if !self.courses.contains_key(&key) && self.courses.len() >= PUBLISHERS_MOST {
            let silent = self.courses.iter().min_by_key(|(_, course)| course.heard).map(|(key, _)| key.clone());
            lost += silent.and_then(|key| self.courses.remove(&key)).map_or(0, |course| course.missing.len() as u64);
        }
        let begun = PublisherCourse { next: number, ..PublisherCourse::default() };
        let course = self.courses.entry(key).or_insert(begun);
        course.heard = self.heard;
        if message.topic == MessageTopic::Start && number == 0 {
            lost += course.missing.len() as u64;
            *course = PublisherCourse { next: 1, missing: BTreeSet::new(), heard: self.heard };
            return lost;
        }
        match number.checked_sub(course.next) {
            None => drop(course.missing.remove(&number)),
            Some(ahead) if ahead > JUMP_MOST => course.next = number.saturating_add(1),
            Some(ahead) => {
                // Of many only those are kept that may still come.
                let kept = number.saturating_sub(WINDOW).max(course.next);
                lost += ahead - (number - kept);
                course.missing.extend(kept..number);
                course.next = number.saturating_add(1);
            }
        }
        let still = course.missing.split_off(&course.next.saturating_sub(WINDOW + 1));
        lost + std::mem::replace(&mut course.missing, still).len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hearing(Gaps);

    impl Hearing {
        fn hear(&mut self, port: u16, script: &str, topic: &str, numbers: impl IntoIterator<Item = u64>) -> u64 {
            let sender = Some(SocketAddr::from(([127, 0, 0, 1], port)));
            let each = numbers.into_iter().map(|number| {
                let json = format!("{{\"id\":\"i\",\"script\":{script:?},\"seq_no\":{number},\"type\":{topic:?}}}");
                self.0.hear(&PublisherMessage::read(json.as_bytes()).unwrap(), sender)
            });
            each.sum()
        }
    }

    #[test]
    fn numbers_that_never_came_are_counted_once_nothing_can_come_of_them() {
        let mut gaps = Hearing(Gaps::default());
        assert_eq!(gaps.hear(1, "a", "log", 5..10), 0);
        assert_eq!(gaps.hear(1, "a", "log", [12]), 0);
        // The other way round, and twice.
        assert_eq!(gaps.hear(1, "a", "log", [11, 11, 12]), 0);
        assert_eq!(gaps.hear(1, "a", "log", 13..100), 1);
        // More than may be overtaken.
        assert_eq!(gaps.hear(1, "a", "log", [200]) + gaps.hear(1, "a", "log", 201..300), 100);
    }

    #[test]
    fn each_publisher_has_numbers_of_its_own_and_begins_anew_with_its_start() {
        let mut gaps = Hearing(Gaps::default());
        assert_eq!(gaps.hear(1, "a", "log", 0..50), 0);
        assert_eq!(gaps.hear(2, "a", "log", 7..50), 0);
        assert_eq!(gaps.hear(1, "b", "log", [1000]), 0);
        assert_eq!(gaps.hear(1, "a", "log", [52]), 0);
        assert_eq!(gaps.hear(1, "a", "start", [0]), 2);
        assert_eq!(gaps.hear(1, "a", "log", 1..50), 0);
        // Numbers that no publisher comes to.
        assert_eq!(gaps.hear(9, "a", "log", [u64::MAX, u64::MAX, 0, u64::MAX - 1, 1]), 0);
        // Only so many are remembered.
        for port in 0..u16::try_from(PUBLISHERS_MOST + 10).unwrap() {
            gaps.hear(port, "a", "log", [1]);
        }
        assert_eq!(gaps.0.courses.len(), PUBLISHERS_MOST);
    }
}
