//! What generator and receiver tell each other.

use super::delta_choice::DeltaChoice;
use crate::transfer::Sent;
use crate::transfer::TransferError;
use crate::transfer::abort::LastWords;
use crate::transfer::basis::Proposals;
use crate::transfer::dest::Values;
use protocol::PeerError;
use protocol::flist::{FileList, Ndx, Segments};
use protocol::mux::{Message, TextKind};
use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the receiver wants the generator to do.
#[derive(Debug)]
pub(in crate::transfer) enum BoardNote {
    /// Pass this on.
    Say(Message),
    /// Ask for this file again.
    Redo(Ndx),
    /// Go on with this list, or segment.
    List(Arc<FileList>),
    /// There are no further segments.
    ListEnd,
    /// What became of a file with several names.
    Linkable(Ndx, FileFate),
}

/// What became of a file that others may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transfer) enum FileFate {
    /// It is under its name.
    Here,
    /// It will not come, or could not be put there.
    Missing,
}

/// Says what time it is.
pub(in crate::transfer) type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// What generator and receiver tell each other. Nobody waits to write on it.
pub(in crate::transfer) struct Board {
    state: Mutex<BoardState>,
    bell: Condvar,
    /// The time by which both learn what bases cost.
    clock: Clock,
    /// What was asked for, and how.
    pub(in crate::transfer) proposals: Proposals,
    /// The sending side's I/O error bits so far, for deletions.
    pub(in crate::transfer) io_error: AtomicI32,
    /// Values of extended attributes that came over the wire.
    pub(in crate::transfer) values: Values,
    /// Reads of the receiver that have begun or ended: odd while it waits for the peer.
    reads: AtomicU64,
}

pub(super) struct BoardState {
    pub(super) notes: VecDeque<BoardNote>,
    pub(super) phase: u8,
    pub(super) over: bool,
    /// The receiver gave up.
    pub(super) failed: bool,
    /// What the peer is to hear of it.
    pub(super) last_words: Option<LastWords>,
    generator_left: bool,
    /// The generator has done all it can for now.
    rests: bool,
    pub(super) complaints: u64,
    orders: Segments<Orders>,
    /// What bases have cost and saved.
    pub(super) delta_choice: DeltaChoice,
    /// The file whose sums are on their way to the sender.
    pub(super) summing: Option<Ndx>,
}

/// What is under way of a list, or segment.
struct Orders {
    start: Ndx,
    attempts: Vec<Attempt>,
    /// Entries that are asked for, or wait for others.
    open: usize,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::transfer) enum Attempt {
    #[default]
    None,
    Asked,
    First,
    AskedAgain,
    Second,
}

/// Which files a batch has no more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transfer) enum Missed {
    /// Those of the oldest segment.
    Segment,
    All,
}

impl Board {
    /// With an `incremental` list, segments are still to come.
    pub(in crate::transfer) fn new(incremental: bool, delta_choice: DeltaChoice, clock: Clock) -> Self {
        let state = BoardState {
            notes: VecDeque::new(),
            phase: 0,
            over: false,
            failed: false,
            last_words: None,
            generator_left: false,
            rests: false,
            complaints: 0,
            orders: Segments::new(incremental),
            delta_choice,
            summing: None,
        };
        Self {
            state: Mutex::new(state),
            bell: Condvar::new(),
            clock,
            proposals: Proposals::default(),
            io_error: AtomicI32::new(0),
            reads: AtomicU64::new(0),
            values: Values::default(),
        }
    }

    pub(in crate::transfer) fn now(&self) -> Instant {
        (self.clock)()
    }

    pub(in crate::transfer) fn note(&self, note: BoardNote) {
        self.lock().notes.push_back(note);
        self.bell.notify_all();
    }

    /// Gives the generator a list, or segment.
    pub(in crate::transfer) fn list(&self, list: &Arc<FileList>) -> Result<(), PeerError> {
        let orders = Orders { start: list.start(), attempts: vec![Attempt::None; list.len()], open: 0 };
        let mut state = self.lock();
        state.orders.add(list, orders)?;
        state.notes.push_back(BoardNote::List(Arc::clone(list)));
        drop(state);
        self.bell.notify_all();
        Ok(())
    }

    /// The oldest segment is finished.
    pub(in crate::transfer) fn release(&self) {
        self.lock().orders.release();
    }

    /// Trouble with one file: the peer hears of it and ends with exit code 23.
    pub(in crate::transfer) fn complain(&self, text: &str) {
        tracing::warn!("{text}");
        self.lock().complaints += 1;
        self.note(BoardNote::Say(Message::Text(TextKind::ErrorXfer, format!("rsync: [receiver] {text}\n").into())));
    }

    /// What was done of a file; of trouble with it the peer hears.
    pub(in crate::transfer) fn or_complain<T>(&self, done: Result<T, impl Display>) -> Option<T> {
        done.inspect_err(|error| self.complain(&error.to_string())).ok()
    }

    pub(in crate::transfer) fn phase(&self, phase: u8) {
        self.lock().phase = phase;
        self.bell.notify_all();
    }

    pub(in crate::transfer) fn over(&self) {
        self.lock().over = true;
        self.bell.notify_all();
    }

    /// `server` as for [`LastWords::new`].
    pub(in crate::transfer) fn fail(&self, error: &TransferError, server: bool) {
        let mut state = self.lock();
        state.failed = true;
        state.last_words = LastWords::new(error, server);
        drop(state);
        self.bell.notify_all();
    }

    pub(in crate::transfer) fn generator_left(&self) {
        self.lock().generator_left = true;
        self.bell.notify_all();
    }

    /// Waits until the generator has done all it can for now: a batch file does not wait for requests.
    pub(in crate::transfer) fn catch_up(&self) {
        let mut state = self.lock();
        state.rests = false;
        self.bell.notify_all();
        while !(state.rests && state.notes.is_empty() || state.generator_left) {
            state = self.wait(state, None).0;
        }
    }

    /// The generator is about to wait.
    pub(super) fn rest(&self, state: &mut BoardState) {
        if !state.rests {
            state.rests = true;
            self.bell.notify_all();
        }
    }

    /// Takes the files that are asked for as if they had come; with each, for which time that was.
    pub(in crate::transfer) fn give_up(&self, which: Missed) -> Vec<(Ndx, Attempt)> {
        let mut state = self.lock();
        let most = if which == Missed::Segment { 1 } else { usize::MAX };
        let mut missed = Vec::new();
        for orders in state.orders.iter_mut().take(most) {
            for (at, attempt) in (0..).zip(&mut orders.attempts) {
                *attempt = match attempt {
                    Attempt::Asked => Attempt::First,
                    Attempt::AskedAgain => Attempt::Second,
                    Attempt::None | Attempt::First | Attempt::Second => continue,
                };
                missed.push((Ndx(orders.start.0 + at), *attempt));
            }
        }
        missed
    }

    /// Waits until the generator has left; false when it has not in time.
    pub(in crate::transfer) fn wait_for_generator(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !state.generator_left {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.wait(state, Some(left)).0;
        }
        true
    }

    pub(super) fn ask(&self, ndx: Ndx) {
        let mut state = self.lock();
        let Some(orders) = state.orders.find_mut(ndx) else { return };
        let Some(attempt) = orders.attempt(ndx) else { return };
        match attempt {
            Attempt::None => {
                *attempt = Attempt::Asked;
                orders.open += 1;
            }
            Attempt::First => *attempt = Attempt::AskedAgain,
            Attempt::Asked | Attempt::AskedAgain | Attempt::Second => {}
        }
    }

    /// A file begins to arrive, or is not sent; `None` when it was not asked for.
    pub(in crate::transfer) fn take(&self, ndx: Ndx) -> Option<Attempt> {
        let mut state = self.lock();
        let attempt = state.orders.find_mut(ndx)?.attempt(ndx)?;
        *attempt = match attempt {
            Attempt::Asked => Attempt::First,
            Attempt::AskedAgain => Attempt::Second,
            Attempt::None | Attempt::First | Attempt::Second => return None,
        };
        Some(*attempt)
    }

    /// A file was asked for and has not come whole yet.
    pub(super) fn awaits(&self, ndx: Ndx) -> bool {
        let mut state = self.lock();
        let attempt = state.orders.find_mut(ndx).and_then(|orders| orders.attempt(ndx).copied());
        attempt.is_some_and(|attempt| attempt != Attempt::None)
    }

    /// An entry waits for another one.
    pub(super) fn postpone(&self, ndx: Ndx) {
        if let Some(orders) = self.lock().orders.find_mut(ndx) {
            orders.open += 1;
        }
    }

    /// Nothing more is to be waited for with an entry that was asked for or postponed.
    pub(in crate::transfer) fn close(&self, ndx: Ndx) {
        let mut state = self.lock();
        let Some(orders) = state.orders.find_mut(ndx) else { return };
        orders.open = orders.open.saturating_sub(1);
        if orders.open == 0 {
            drop(state);
            self.bell.notify_all();
        }
    }

    /// Whether the sender may still wait for sums of this file.
    pub(in crate::transfer) fn is_summing(&self, ndx: Ndx) -> bool {
        self.lock().summing == Some(ndx)
    }

    /// A large file has come: so many of its bytes in this time of the link, and what it was built of if it has a basis.
    pub(in crate::transfer) fn learn(&self, brought: (u64, Duration), built: Option<Sent>) {
        let choice = &mut self.lock().delta_choice;
        choice.brought(brought.0, brought.1, built.is_some());
        if let Some(sent) = built {
            choice.built(sent.literal_bytes, sent.matched_bytes);
        }
    }

    /// A file of so many bytes that was asked for whole though it has a basis has come, or will not.
    pub(in crate::transfer) fn whole_came(&self, len: u64) {
        self.lock().delta_choice.whole_came(len);
        self.bell.notify_all();
    }

    /// The receiver begins to wait for the peer, or has heard it.
    pub(in crate::transfer) fn reads(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it did that, where it waits for the peer now.
    pub(super) fn read_at(&self) -> Option<u64> {
        Some(self.reads.load(Ordering::Relaxed)).filter(|reads| !reads.is_multiple_of(2))
    }

    pub(super) fn wait<'b>(
        &self,
        state: MutexGuard<'b, BoardState>,
        limit: Option<Duration>,
    ) -> (MutexGuard<'b, BoardState>, bool) {
        let Some(limit) = limit else {
            return (self.bell.wait(state).unwrap_or_else(PoisonError::into_inner), false);
        };
        let (state, timeout) = self.bell.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner);
        (state, timeout.timed_out())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BoardState {
    /// Whether nothing is under way of a list, or segment.
    pub(super) fn is_idle(&self, list: &FileList) -> bool {
        // An empty one has no index of its own.
        list.is_empty() || self.orders.find(list.start()).is_none_or(|orders| orders.open == 0)
    }
}

impl Orders {
    fn attempt(&mut self, ndx: Ndx) -> Option<&mut Attempt> {
        self.attempts.get_mut(ndx.0.checked_sub(self.start.0)? as usize)
    }
}
