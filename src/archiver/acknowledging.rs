//! When a session's files are acknowledged.
//!
//! Stock's rsync acknowledges each file as soon as it has its name, if asked to, and then has no more than some thirty small
//! files under way: over a long link, few per round trip. Many small files are therefore acknowledged together, by the end of
//! their session: exit code 0 and no word of trouble, which is what rsync promises for files that all were written, summed
//! and renamed. Where a session ends any other way nothing of it counts, and its files are asked for again, one by one.

use super::arguments::Acknowledged;
use super::flight::Job;
use super::verdict::{Carried, Verdict};
use crate::link::Ending;
use std::time::{Duration, Instant};

/// Over shorter links an acknowledgement for each file holds nothing up.
const LONG: Duration = Duration::from_millis(2);
/// Fewer files go in about one round trip.
const MANY: usize = 64;
/// Bytes of a file on average; larger ones fill the line as it is.
const SMALL: u64 = 1 << 20;
/// How long each file is acknowledged after a session that did not end as it should.
const CAREFUL: Duration = Duration::from_secs(600);

/// When the far end is to acknowledge files.
#[derive(Debug, Default)]
pub(super) struct Acknowledging {
    /// Each of them until then.
    careful_until: Option<Instant>,
}

impl Acknowledging {
    /// For a batch of which no session has had a file, to stock's rsync over a link with this round trip.
    pub(super) fn of(&self, jobs: &[Job], round_trip: Duration) -> Acknowledged {
        let bytes: u64 = jobs.iter().map(|job| job.bytes).sum();
        let small = jobs.len() >= MANY && bytes / jobs.len() as u64 <= SMALL;
        let careful = self.careful_until.is_some_and(|until| Instant::now() < until);
        if small && round_trip >= LONG && !careful { Acknowledged::AtTheEnd } else { Acknowledged::EachFile }
    }

    /// What came of a session.
    pub(super) fn learn(&mut self, how: Acknowledged, carried: &Carried) {
        let proven = carried.verdicts.iter().any(|verdict| matches!(verdict, Verdict::Proven(..)));
        if how == Acknowledged::AtTheEnd && !proven {
            self.careful_until = Some(Instant::now() + CAREFUL);
        }
    }
}

/// Whether a session has acknowledged by its end what was sent in it; `words` are what the far end said.
pub(super) fn is_acknowledgement(ending: Option<&Ending>, words: &str) -> bool {
    ending == Some(&Ending::Exited(0)) && words.is_empty()
}
