//! Where the looks at the table are.
//!
//! Each pass looks at the newest rows. Older ones are gone through in rounds that take as many passes as they need, so
//! that a new file never waits until a whole table has been seen: from the bottom up, or only those that are to be seen
//! again.

use crate::catalog::{Looked, RecordId};
use std::collections::BTreeSet;

/// Rows to be seen again that are remembered singly; where there are more, all above the lowest of the others are.
const SINGLE_MOST: usize = 10_000;

pub(super) struct Course {
    /// Rows up to this one are left alone.
    above: RecordId,
    /// The new rows are above this one.
    fresh: RecordId,
    /// The round under way: rows above this one are still to be seen,
    sweep: Option<RecordId>,
    /// and these.
    due: BTreeSet<RecordId>,
    /// What the next round is to see, in the same way.
    next_sweep: Option<RecordId>,
    again: BTreeSet<RecordId>,
}

impl Course {
    pub(super) fn new(above: RecordId) -> Self {
        let (due, again) = (BTreeSet::new(), BTreeSet::new());
        Self { above, fresh: above, sweep: Some(above), due, next_sweep: None, again }
    }

    /// A round through all rows begins anew.
    pub(super) fn begin_at_the_bottom(&mut self) {
        *self = Self::new(self.above);
    }

    /// The next round is to see all rows from this one on.
    pub(super) fn see_from(&mut self, id: RecordId) {
        self.next_sweep = lower(self.next_sweep, Some(before(id)));
    }

    /// The next round is to see this row.
    pub(super) fn see_again(&mut self, id: RecordId) {
        if self.again.len() < SINGLE_MOST || self.again.contains(&id) {
            self.again.insert(id);
        } else {
            self.see_from(id);
        }
    }

    /// A pass begins, and with it the next round where the last one is over. Rows get their ids before they are committed:
    /// those within `margin` below the newest one may yet come. Those for which `in_flight` holds need not be seen.
    pub(super) fn begin_pass(&mut self, newest: RecordId, margin: i64, in_flight: impl Fn(RecordId) -> bool) {
        if self.round_is_over() {
            self.sweep = self.next_sweep.take();
            self.due = std::mem::take(&mut self.again);
            self.again = self.due.extract_if(.., |id| in_flight(*id)).collect();
        }
        let fresh = RecordId(newest.0.saturating_sub(margin)).max(self.above);
        if fresh.0 > self.fresh.0.saturating_add(margin) {
            // So many have come that they are no few new ones.
            self.sweep = lower(self.sweep, Some(self.fresh));
            self.fresh = fresh;
        }
        self.fresh = self.fresh.min(fresh);
        if self.sweep.is_some_and(|after| after >= self.fresh) {
            self.sweep = None;
        }
        // They are seen among the new ones.
        self.due.split_off(&RecordId(self.fresh.0.saturating_add(1)));
    }

    /// The next pass sees all rows above this one, whatever else there is to see.
    pub(super) fn see_all_at_once(&mut self, after: RecordId) {
        *self = Self { fresh: RecordId(i64::MAX), ..Self::new(self.above) };
        self.sweep = Some(after);
    }

    /// A pass through the new rows is over: later ones begin here.
    pub(super) fn end_pass(&mut self, newest: RecordId, margin: i64) {
        self.fresh = self.fresh.max(RecordId(newest.0.saturating_sub(margin)));
    }

    /// Above which row the round goes on; `None` where it is over.
    pub(super) fn older(&self) -> Option<RecordId> {
        lower(self.sweep, self.due.first().map(|id| before(*id)))
    }

    /// Above which row the new ones are.
    pub(super) fn fresh(&self) -> RecordId {
        self.fresh
    }

    /// What a look at the older rows has seen needs not be seen again in this round.
    pub(super) fn saw(&mut self, looked: &Looked) {
        let until = looked.until;
        self.due = self.due.split_off(&RecordId(until.0.saturating_add(1)));
        self.sweep = self.sweep.map(|after| after.max(until)).filter(|after| *after < self.fresh);
        if looked.ended {
            (self.sweep, self.due) = (None, BTreeSet::new());
        }
    }

    pub(super) fn round_is_over(&self) -> bool {
        self.older().is_none()
    }
}

fn before(id: RecordId) -> RecordId {
    RecordId(id.0.saturating_sub(1))
}

/// The lower one of those there are.
fn lower(one: Option<RecordId>, other: Option<RecordId>) -> Option<RecordId> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: i64 = 100;

    fn id(number: i64) -> RecordId {
        RecordId(number)
    }

    fn begin(course: &mut Course, newest: i64) {
        course.begin_pass(id(newest), MARGIN, |_| false);
    }

    /// Looks at the next so many ids of the older rows; gives the first.
    fn see(course: &mut Course, ids: i64, newest: i64) -> Option<i64> {
        let after = course.older()?;
        let until = (after.0 + ids).min(newest);
        course.saw(&Looked { rows: Vec::new(), until: id(until), ended: until == newest });
        Some(after.0 + 1)
    }

    #[test]
    fn a_short_table_is_all_new_and_a_long_one_is_gone_through_beside_the_new_rows() {
        let mut course = Course::new(id(5));
        begin(&mut course, 150);
        assert!(course.round_is_over() && course.fresh() == id(5));
        let mut course = Course::new(id(5));
        for (pass, first) in [6, 406, 806].into_iter().enumerate() {
            let newest = 1000 + pass as i64;
            begin(&mut course, newest);
            assert_eq!(see(&mut course, 400, newest), Some(first));
            assert!(course.fresh().0 <= 1000 - MARGIN + pass as i64);
            course.end_pass(id(newest), MARGIN);
        }
        assert!(course.round_is_over());
        // What came in one go is no few new ones.
        begin(&mut course, 5000);
        assert_eq!((course.older(), course.fresh()), (Some(id(902)), id(4900)));
    }

    #[test]
    fn new_rows_begin_where_the_last_pass_may_have_missed_one() {
        let mut course = Course::new(id(0));
        begin(&mut course, 150);
        course.end_pass(id(150), MARGIN);
        begin(&mut course, 160);
        assert_eq!(course.fresh(), id(50), "one that was given its id by then is committed by now");
        // A table that was restored to what it was.
        begin(&mut course, 30);
        assert_eq!(course.fresh(), id(0));
    }

    #[test]
    fn single_rows_are_seen_again_in_the_next_round_and_not_while_aloft() {
        let mut course = Course::new(id(0));
        begin(&mut course, 10_000);
        for number in [3, 4, 2000, 9950] {
            course.see_again(id(number));
        }
        assert_eq!(see(&mut course, 20_000, 10_000), Some(1));
        assert!(course.round_is_over());
        course.end_pass(id(10_000), MARGIN);
        course.begin_pass(id(10_000), MARGIN, |row| row == id(3));
        assert_eq!([(); 3].map(|()| see(&mut course, 10, 10_000)), [Some(4), Some(2000), None]);
        begin(&mut course, 10_000);
        assert_eq!([(); 2].map(|()| see(&mut course, 10, 10_000)), [Some(3), None]);
    }

    #[test]
    fn a_round_under_way_is_not_sent_back() {
        let mut course = Course::new(id(0));
        begin(&mut course, 10_000);
        see(&mut course, 5000, 10_000);
        course.see_from(id(7));
        begin(&mut course, 10_000);
        assert_eq!(see(&mut course, 5000, 10_000), Some(5001));
        begin(&mut course, 10_000);
        assert_eq!(course.older(), Some(id(6)));
        course.begin_at_the_bottom();
        begin(&mut course, 10_000);
        assert_eq!(course.older(), Some(id(0)));
    }

    #[test]
    fn rows_beyond_those_remembered_singly_are_seen_with_all_above_them() {
        let mut course = Course::new(id(0));
        begin(&mut course, 1_000_000);
        see(&mut course, 1_000_000, 1_000_000);
        for number in 0..=SINGLE_MOST as i64 {
            course.see_again(id(20 * number + 1));
        }
        begin(&mut course, 1_000_000);
        assert_eq!(course.sweep, Some(id(20 * SINGLE_MOST as i64)));
        assert_eq!((course.due.len(), course.again.len()), (SINGLE_MOST, 0));
    }
}
