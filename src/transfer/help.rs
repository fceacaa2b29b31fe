//! Files that other sessions may bring in the place of the one that was asked for them.
//!
//! One session decides, tells and counts, as if it were alone. What it was asked for and need not bring itself, it puts up
//! here; those who help take files from here, each for itself, and say what became of them. What nobody brought, or a helper
//! did not bring to its end, is the one session's own again, so that a helper that fails costs time and nothing else.

use super::sent::Sent;
use protocol::checksum::Sum;
use protocol::flist::FileEntry;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Files of one round of a helper: enough to be worth a session, few enough for others to find work.
const ROUND_MOST: usize = 1000;

/// A file that was put up, by the order in which that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HelpTicket(u64);

/// How a file came by a helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brought {
    /// Its bytes.
    pub(crate) sent: Sent,
    /// What they came to.
    pub(crate) sum: Sum,
}

/// What is known of a file that was put up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HelpFate {
    /// Nobody has taken it.
    Waiting,
    /// A helper has.
    AtWork,
    /// It is in its place.
    Brought(Brought),
    /// Helpers could not bring it.
    Returned,
    /// The one session has taken it, or it is settled.
    Own,
}

/// Opens a listed file, in any thread.
pub type OpenApart = Box<dyn Fn() -> io::Result<File> + Send + Sync>;

/// A file to be sent by whoever takes it.
pub struct OfferedFile {
    pub(crate) entry: FileEntry,
    pub(crate) open: OpenApart,
}

/// What is put up, and who helps.
pub struct Help<T> {
    state: Mutex<HelpState<T>>,
    /// For helpers: there is work, or there will be none.
    bell: Condvar,
    /// For the one session: something became of a file, or a helper has left.
    changed: Condvar,
    news: Mutex<Option<Box<dyn Fn() + Send>>>,
}

struct HelpState<T> {
    /// The oldest first; `None` where it is settled.
    files: VecDeque<Option<(Arc<T>, HelpFate, usize)>>,
    /// The ticket of the oldest.
    first: u64,
    /// Those who may still take something.
    helpers: usize,
    /// Helpers that have come so far.
    numbered: usize,
    /// No more will be put up.
    closed: bool,
    /// Bytes that helpers wrote and read.
    moved: (u64, u64),
    /// What is put up is all there is, and helpers go before the one session.
    lone: bool,
}

impl<T> Help<T> {
    /// Nothing is put up. So many may come to help.
    pub(crate) fn new(helpers: usize) -> Self {
        let state = HelpState {
            files: VecDeque::new(),
            first: 0,
            helpers,
            numbered: 0,
            closed: false,
            moved: (0, 0),
            lone: false,
        };
        Self { state: Mutex::new(state), bell: Condvar::new(), changed: Condvar::new(), news: Mutex::new(None) }
    }

    /// For the one file that there is, which one helper brings if it can.
    pub(crate) fn of_a_lone_file() -> Self {
        let help = Self::new(1);
        help.lock().lone = true;
        help
    }

    /// Whether there is but one file.
    pub(crate) fn is_for_a_lone_file(&self) -> bool {
        self.lock().lone
    }

    /// Has this called at each news of what was put up.
    pub(crate) fn tell(&self, news: Box<dyn Fn() + Send>) {
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
    }

    /// Whether there is anybody to help.
    pub(crate) fn is_there(&self) -> bool {
        self.lock().helpers > 0
    }

    /// Puts a file up.
    pub(crate) fn offer(&self, file: T) -> HelpTicket {
        let mut state = self.lock();
        let ticket = HelpTicket(state.first + state.files.len() as u64);
        state.files.push_back(Some((Arc::new(file), HelpFate::Waiting, 0)));
        drop(state);
        self.bell.notify_one();
        ticket
    }

    /// What is known of a file.
    pub(crate) fn fate(&self, ticket: HelpTicket) -> HelpFate {
        self.lock().find(ticket).map_or(HelpFate::Own, |(_, fate, _)| fate.clone())
    }

    /// Takes the oldest file for the one session that helpers could not bring, or that waits and that it `may` take; gives
    /// its ticket.
    pub(crate) fn take_back(&self, may: impl Fn(&T) -> bool) -> Option<HelpTicket> {
        let mut state = self.lock();
        let first = state.first;
        let open = (first..).zip(&mut state.files).filter_map(|(number, file)| Some((number, file.as_mut()?)));
        for (number, (file, fate, _)) in open {
            match fate {
                HelpFate::Returned => {}
                HelpFate::Waiting if may(file) => {}
                _ => continue,
            }
            *fate = HelpFate::Own;
            return Some(HelpTicket(number));
        }
        None
    }

    /// Waits for news, at most so long.
    pub(crate) fn rest(&self, limit: Duration) {
        let state = self.lock();
        drop(self.changed.wait_timeout(state, limit));
    }

    /// Nothing more is to be known of a file.
    pub(crate) fn settle(&self, ticket: HelpTicket) {
        let mut state = self.lock();
        let at = ticket.0.checked_sub(state.first).and_then(|at| usize::try_from(at).ok());
        if let Some(file) = at.and_then(|at| state.files.get_mut(at)) {
            *file = None;
        }
        while state.files.front().is_some_and(Option::is_none) {
            state.files.pop_front();
            state.first += 1;
        }
    }

    /// How many files nobody has taken, up to `most`.
    pub(crate) fn waiting(&self, most: usize) -> usize {
        let state = self.lock();
        state.files.iter().flatten().filter(|(_, fate, _)| *fate == HelpFate::Waiting).take(most).count()
    }

    /// Nothing more will be put up: helpers may leave.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_all();
    }

    /// Bytes that helpers wrote and read so far.
    pub(crate) fn moved(&self) -> (u64, u64) {
        self.lock().moved
    }

    /// One of those who were to help comes; who does not come leaves by dropping what this gives.
    pub(crate) fn helper(&self) -> Helper<'_, T> {
        let mut state = self.lock();
        state.numbered += 1;
        Helper { help: self, number: state.numbered }
    }

    fn lock(&self) -> MutexGuard<'_, HelpState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, act: impl FnOnce(&mut HelpState<T>)) {
        act(&mut self.lock());
        self.changed.notify_all();
        if let Some(news) = &*self.news.lock().unwrap_or_else(PoisonError::into_inner) {
            news();
        }
    }
}

impl<T> fmt::Debug for Help<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Help").field("helpers", &self.lock().helpers).finish_non_exhaustive()
    }
}

impl<T> HelpState<T> {
    fn find(&mut self, ticket: HelpTicket) -> Option<&mut (Arc<T>, HelpFate, usize)> {
        let at = usize::try_from(ticket.0.checked_sub(self.first)?).ok()?;
        self.files.get_mut(at)?.as_mut()
    }
}

/// One who helps. Dropped, it leaves, and what it has not brought is the one session's own.
pub(crate) struct Helper<'a, T> {
    help: &'a Help<T>,
    /// From 1.
    number: usize,
}

impl<T> Helper<'_, T> {
    /// Waits for files that nobody has taken, and shows them; none where there will be no more.
    pub(crate) fn round(&self) -> Vec<(HelpTicket, Arc<T>)> {
        let mut state = self.help.lock();
        loop {
            let first = state.first;
            let waiting = (first..).zip(&state.files).filter_map(|(number, file)| match file {
                Some((file, HelpFate::Waiting, _)) => Some((HelpTicket(number), Arc::clone(file))),
                _ => None,
            });
            let round: Vec<_> = waiting.take(ROUND_MOST).collect();
            if !round.is_empty() || state.closed {
                return round;
            }
            state = self.help.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a file; false where somebody else has.
    pub(crate) fn take(&self, ticket: HelpTicket) -> bool {
        let mut state = self.help.lock();
        let closed = state.closed;
        match state.find(ticket) {
            Some((_, fate, by)) if *fate == HelpFate::Waiting && !closed => {
                (*fate, *by) = (HelpFate::AtWork, self.number);
                true
            }
            _ => false,
        }
    }

    /// A file that was taken is in its place.
    pub(crate) fn brought(&self, ticket: HelpTicket, how: Brought) {
        self.end(ticket, HelpFate::Brought(how));
    }

    /// A file that was taken could not be brought.
    pub(crate) fn give_back(&self, ticket: HelpTicket) {
        self.end(ticket, HelpFate::Returned);
    }

    /// A session with these files is over: what of them still waits, the far end does not ask helpers for.
    pub(crate) fn finish(&self, round: &[HelpTicket]) {
        self.help.change(|state| {
            state.give_back_of(self.number);
            for ticket in round {
                if let Some((_, fate, _)) = state.find(*ticket)
                    && *fate == HelpFate::Waiting
                {
                    *fate = HelpFate::Returned;
                }
            }
        });
    }

    /// Counts what a session wrote and read.
    pub(crate) fn count(&self, written: u64, read: u64) {
        let mut state = self.help.lock();
        state.moved = (state.moved.0 + written, state.moved.1 + read);
    }

    fn end(&self, ticket: HelpTicket, with: HelpFate) {
        self.help.change(|state| {
            if let Some((_, fate, by)) = state.find(ticket)
                && *fate == HelpFate::AtWork
                && *by == self.number
            {
                *fate = with;
            }
        });
    }
}

impl<T> HelpState<T> {
    fn give_back_of(&mut self, number: usize) {
        for (_, fate, by) in self.files.iter_mut().flatten() {
            if *fate == HelpFate::AtWork && *by == number {
                *fate = HelpFate::Returned;
            }
        }
    }
}

impl<T> Drop for Helper<'_, T> {
    fn drop(&mut self) {
        self.help.change(|state| {
            state.give_back_of(self.number);
            state.helpers = state.helpers.saturating_sub(1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::checksum::Sum;

    fn brought() -> Brought {
        Brought { sent: Sent::default(), sum: Sum::new(&[0; 16]).unwrap() }
    }

    #[test]
    fn a_file_is_taken_once_and_whoever_leaves_gives_it_back() {
        let help = Help::new(2);
        let (a, b) = (help.offer("a"), help.offer("b"));
        let (one, two) = (help.helper(), help.helper());
        assert_eq!(one.round().len(), 2);
        assert!(one.take(a) && !two.take(a) && two.take(b) && help.take_back(|_| true).is_none());
        one.brought(a, brought());
        assert_eq!((help.fate(a), help.fate(b)), (HelpFate::Brought(brought()), HelpFate::AtWork));
        drop(two);
        assert!(help.fate(b) == HelpFate::Returned && !one.take(b) && help.is_there());
        assert!(help.take_back(|_| false) == Some(b) && help.fate(b) == HelpFate::Own);
        drop(one);
        assert!(!help.is_there());
        help.settle(b);
        help.settle(a);
        assert_eq!((help.offer("c"), help.waiting(9)), (HelpTicket(2), 1));
        assert!(help.take_back(|_| false).is_none() && help.take_back(|file| *file == "c").is_some());
    }

    #[test]
    fn what_nobody_asks_a_helper_for_comes_back() {
        let help = Help::new(1);
        let (a, b) = (help.offer("a"), help.offer("b"));
        let one = help.helper();
        assert!(one.take(a));
        one.brought(a, brought());
        one.finish(&[a, b]);
        assert_eq!((help.fate(a), help.fate(b)), (HelpFate::Brought(brought()), HelpFate::Returned));
    }

    #[test]
    fn nobody_waits_for_work_that_will_not_come() {
        let help: Help<()> = Help::new(1);
        help.close();
        assert!(help.helper().round().is_empty());
        assert!(!help.is_there());
    }
}
