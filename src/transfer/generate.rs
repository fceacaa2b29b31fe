//! Decides what is missing and asks for it. Counterpart: rsync's `generate_files`.

mod alternatives;
mod board;
mod delete;
mod delta_choice;
mod entry;
mod file;
mod fuzzy;
mod links;
mod lists;
mod names;
mod rules;
mod stage;
mod sums;
mod tell;

use super::TransferError;
use super::abort::LastWords;
use super::conversation::LinkWriter;
use super::dest::{Dest, LateDirs};
use super::observer::ReceiveObserver;
use super::plan::ReceivePlan;
use super::stager::Stager;
use super::target::Target;
use board::BoardState;
pub(super) use board::{Attempt, Board, BoardNote, Clock, FileFate, Missed};
use delete::Deletion;
pub(super) use delta_choice::{DeltaChoice, LARGE};
use file::Turn;
use fuzzy::Fuzzy;
use links::Links;
use protocol::PeerError;
use protocol::args::{Debug, DeleteWhen, Options};
use protocol::filter::RuleSet;
use protocol::flist::{DirClass, FileEntry, FileList, Ndx, Segments};
use protocol::generator::{DeleteCounts, Generator};
use protocol::handshake::{Compat, Negotiated};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Bytes that may wait in the outbox before they are said.
const OUT_MOST: usize = 64 * 1024;

/// What generator and receiver both work with.
#[derive(Clone, Copy)]
pub(super) struct ReceivingSide<'a> {
    pub(super) agreed: &'a Negotiated,
    pub(super) server: bool,
    pub(super) plan: &'a ReceivePlan,
    pub(super) target: &'a Target,
    pub(super) board: &'a Board,
    pub(super) observer: &'a dyn ReceiveObserver,
}

/// The generator's work. Lists come by the board.
pub(super) struct Generate<'a> {
    pub(super) side: ReceivingSide<'a>,
    pub(super) writer: LinkWriter,
    /// What is safe from deletion.
    pub(super) rules: Option<&'a RuleSet>,
}

/// What a generator's work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Generated {
    /// Entries that failed on this side.
    pub(super) failed: u64,
    pub(super) deleted: DeleteCounts,
    /// `--max-delete` kept some of it.
    pub(super) limited: bool,
    /// Bytes written to the link.
    pub(super) written_bytes: u64,
}

impl Generate<'_> {
    /// Runs to the end of the session; gives the way to the peer back, which may not have heard all yet.
    pub(super) fn run(self) -> (Result<Generated, TransferError>, LinkWriter) {
        let Self { side, writer, rules } = self;
        let ReceivingSide { agreed, server, plan, target, board, observer } = side;
        let options = &plan.options;
        let incremental = agreed.compat.has(Compat::INC_RECURSE);
        let mut work = Work {
            agreed,
            server,
            options,
            board,
            observer,
            target,
            dest: target.again().map(Arc::new),
            writer,
            speaker: Generator::new(agreed),
            late: LateDirs::new(options.modify_window),
            incremental,
            fresh: VecDeque::new(),
            lists: Segments::new(incremental),
            open: VecDeque::new(),
            at_work: false,
            complete: false,
            redo: Vec::new(),
            links: Links::default(),
            fuzzy: Fuzzy::default(),
            blocked: HashSet::new(),
            buffer: Vec::new(),
            deletion: Deletion::new(options, rules, target, agreed.version),
            refused: HashSet::new(),
            stager: plan.stager.clone(),
        };
        let result = work.all();
        // A link that broke has nobody at its end; the rest the peer hears of.
        if let Err(error @ TransferError::Rules(_)) = &result
            && let Some(words) = LastWords::new(error, server)
        {
            words.put(agreed, &mut work.writer.out);
            let said = work.writer.flush();
            return (said.and(result), work.writer);
        }
        (result, work.writer)
    }
}

impl Work<'_> {
    /// The whole conversation.
    fn all(&mut self) -> Result<Generated, TransferError> {
        let work = self;
        work.pass_notes()?;
        if work.options.level(Debug::Flist) > 0 {
            let how = if work.options.whole_file { "disabled for local transfer or --whole-file" } else { "enabled" };
            work.tell(&[b"delta-transmission ", how.as_bytes()]);
        }
        work.lists()?;
        work.wait(|_, state| state.phase >= 1)?;
        // Whoever waits for a file that is sent again is served before the end of this phase too.
        for ndx in std::mem::take(&mut work.redo) {
            work.again(ndx)?;
        }
        work.wait(|work, state| work.lists.iter().all(|list| state.is_idle(list)))?;
        // The ends of the redo phase and of delayed updates.
        work.speaker.done(&mut work.writer.out);
        if work.options.delay_updates {
            work.wait(|_, state| state.phase >= 2)?;
        }
        if work.agreed.phases() > 2 {
            work.speaker.done(&mut work.writer.out);
        }
        let when = work.deletion.when();
        if matches!(when, Some(DeleteWhen::After | DeleteWhen::Delay)) {
            work.wait(|_, state| state.phase >= 2)?;
            match work.dest.clone() {
                Some(dest) if when == Some(DeleteWhen::Delay) => work.deletion.delayed(&dest)?,
                _ => {
                    let lists: Vec<_> = work.lists.iter().cloned().collect();
                    lists.iter().try_for_each(|list| work.delete_all(list))?;
                }
            }
        }
        let limited = work.deletion.tell_limit();
        work.pass_told();
        let deleted = work.deletion.counts();
        if work.agreed.version >= 31 {
            if when.is_some() || work.options.force {
                work.speaker.delete_counts(&deleted, &mut work.writer.out);
            }
            work.speaker.done(&mut work.writer.out);
        }
        work.wait(|_, state| state.over)?;
        if let Some(dest) = &work.dest {
            for error in std::mem::take(&mut work.late).finish(dest) {
                work.board.complain(&error.to_string());
            }
        }
        work.pass_notes()?;
        work.speaker.done(&mut work.writer.out);
        work.writer.flush()?;
        let failed = work.board.lock().complaints;
        Ok(Generated { failed, deleted, limited, written_bytes: work.writer.written })
    }
}

struct Work<'a> {
    agreed: &'a Negotiated,
    server: bool,
    options: &'a Options,
    board: &'a Board,
    observer: &'a dyn ReceiveObserver,
    target: &'a Target,
    dest: Option<Arc<Dest>>,
    writer: LinkWriter,
    speaker: Generator,
    late: LateDirs,
    incremental: bool,
    /// Lists that have come and wait their turn.
    fresh: VecDeque<Arc<FileList>>,
    /// Those whose entries may have to be looked up again.
    lists: Segments<Arc<FileList>>,
    /// Those that are done but for what the receiver still has to do, oldest first.
    open: VecDeque<Arc<FileList>>,
    /// A list is being gone through.
    at_work: bool,
    /// No further segments will come.
    complete: bool,
    /// Files to ask for once more in the redo phase.
    redo: Vec<Ndx>,
    links: Links,
    fuzzy: Fuzzy,
    /// Files that stay where directories should be: nothing can come beneath them.
    blocked: HashSet<Vec<u8>>,
    buffer: Vec<u8>,
    deletion: Deletion<'a>,
    /// Folders that a daemon's module takes nothing for.
    refused: HashSet<Vec<u8>>,
    /// Who may bring a large file ahead, once.
    stager: Option<Arc<dyn Stager>>,
}

impl Work<'_> {
    /// Waits while much is on its way whole: what it shows is to be known before more is asked for. The link is busy
    /// meanwhile.
    fn stay_near(&mut self) -> Result<(), TransferError> {
        let mut waiting = None;
        loop {
            let board = self.board;
            let ahead = board.lock().delta_choice.too_far_ahead();
            let Some(ahead) = ahead else { return Ok(()) };
            self.pass_notes()?;
            self.writer.flush()?;
            let now = board.now();
            let since = waiting.filter(|(last, _)| *last == ahead).map_or(now, |(_, since)| since);
            waiting = Some((ahead, since));
            let mut state = board.lock();
            let left = state.delta_choice.patience().saturating_sub(now.saturating_duration_since(since));
            if left.is_zero() || state.over {
                state.delta_choice.give_up_waiting();
            } else if state.notes.is_empty() && !state.failed && state.delta_choice.too_far_ahead() == Some(ahead) {
                let limit = self.keep_alive_every().map_or(left, |every| every.min(left));
                let (state, timed_out) = board.wait(state, Some(limit));
                drop(state);
                if timed_out {
                    self.keep_alive();
                }
            }
        }
    }

    /// Deletes in one directory whose entries a list holds, if its contents are in the transfer.
    fn delete_in(&mut self, list: &FileList, entry: &FileEntry) -> Result<(), TransferError> {
        let Some(dest) = self.dest.clone() else { return Ok(()) };
        let listed = entry.is_dir() && matches!(entry.extra.dir_class, DirClass::Content | DirClass::Argument);
        if listed && !self.is_refused(&entry.name, true) {
            let holds = |name: &[u8]| list.find(name, false).or_else(|| list.find(name, true)).is_some();
            let io_error = self.board.io_error.load(Ordering::Acquire);
            self.deletion.in_dir(&dest, &entry.name, &holds, io_error)?;
            self.pass_told();
        }
        Ok(())
    }

    /// Deletes in all directories of a whole list.
    fn delete_all(&mut self, list: &FileList) -> Result<(), TransferError> {
        for (_, entry) in list.iter() {
            self.delete_in(list, entry)?;
            if self.writer.out.len() > OUT_MOST {
                self.writer.flush()?;
            }
        }
        Ok(())
    }

    /// Removes a directory that is in the way of something else.
    fn clear_way(&mut self, dest: &Dest, name: &[u8], what: &str) -> Result<bool, TransferError> {
        let cleared = self.deletion.clear_way(dest, name, what)?;
        self.pass_told();
        Ok(cleared)
    }

    /// Lets the user hear of deletions.
    fn pass_told(&mut self) {
        let (told, failed) = self.deletion.take_told();
        told.iter().for_each(|message| self.say(message));
        self.board.lock().complaints += failed;
    }

    /// Asks once more for a file that went wrong.
    fn again(&mut self, ndx: Ndx) -> Result<(), TransferError> {
        let Some(list) = self.lists.find(ndx).cloned() else { return Ok(()) };
        let (Some(entry), Some(dest)) = (list.get(ndx), self.dest.clone()) else { return Ok(()) };
        let found = dest.stat(self.target.name(entry)).unwrap_or_default();
        self.request(&dest, ndx, entry, found.as_ref(), Turn::Redo)
    }

    /// Does what the receiver noted so far.
    fn pass_notes(&mut self) -> Result<(), TransferError> {
        let (notes, failed, last_words) = {
            let mut state = self.board.lock();
            (std::mem::take(&mut state.notes), state.failed, state.last_words.take())
        };
        for note in notes {
            match note {
                BoardNote::Say(message) => self.say(&message),
                BoardNote::Redo(ndx) if self.incremental => self.again(ndx)?,
                BoardNote::Redo(ndx) => self.redo.push(ndx),
                BoardNote::List(list) => {
                    if self.options.hard_links {
                        self.links.expect(&list);
                    }
                    self.lists.add(&list, Arc::clone(&list))?;
                    self.fresh.push_back(list);
                }
                BoardNote::ListEnd => self.complete = true,
                BoardNote::Linkable(ndx, fate) => {
                    if let Some(list) = self.lists.find(ndx).cloned()
                        && let Some(entry) = list.get(ndx)
                        && let Some(id) = entry.extra.link
                    {
                        let here = (fate == FileFate::Here).then(|| self.target.name(entry));
                        self.linkable(id, here)?;
                    }
                    self.board.close(ndx);
                }
            }
        }
        if !failed {
            return Ok(());
        }
        if let Some(words) = last_words {
            words.put(self.agreed, &mut self.writer.out);
            self.writer.flush()?;
        }
        Err(TransferError::Echo)
    }

    fn keep_alive(&mut self) {
        let entries = self.lists.iter().map(|list| list.len()).sum();
        self.speaker.keep_alive(entries, &mut self.writer.out);
    }

    /// How long a peer with a time limit may hear nothing of us: half of it, as stock does.
    fn keep_alive_every(&self) -> Option<Duration> {
        let limit = self.options.timeout.filter(|&seconds| seconds > 0)?;
        Some(Duration::from_secs(u64::from(limit).div_ceil(2)))
    }

    /// Says what waits, then serves the receiver's notes until `until` holds.
    fn wait(&mut self, until: impl Fn(&Self, &BoardState) -> bool) -> Result<(), TransferError> {
        let mut silence = Silence { read_at: self.board.read_at(), since: Instant::now() };
        loop {
            self.pass_notes()?;
            self.writer.flush()?;
            let board = self.board;
            let mut state = board.lock();
            while state.notes.is_empty() && !state.failed {
                if until(self, &state) {
                    return Ok(());
                }
                if state.over {
                    return Err(PeerError::Malformed("the end of the session before all that was asked for").into());
                }
                // The receiver's own waits have deadlines, and it fails or ends the session in the end.
                board.rest(&mut state);
                let (woken, timed_out) = board.wait(state, self.keep_alive_every());
                state = woken;
                if timed_out {
                    drop(state);
                    silence.is_borne(self.board.read_at(), self.options.timeout)?;
                    self.keep_alive();
                    break;
                }
            }
        }
    }
}

/// How long the peer has said nothing while both of us wait for it. What we write to keep it content would hide that from the
/// link, where all that moves is a sign of life.
struct Silence {
    read_at: Option<u64>,
    since: Instant,
}

impl Silence {
    /// Fails where the read that waits is the same for longer than `--timeout` says, seconds, and half of that.
    fn is_borne(&mut self, read_at: Option<u64>, limit: Option<u32>) -> Result<(), TransferError> {
        if read_at.is_none() || self.read_at != read_at {
            *self = Self { read_at, since: Instant::now() };
        }
        // A peer that only waits for a word of ours has had one by then.
        let borne = limit.map(|seconds| Duration::from_secs(u64::from(seconds) + u64::from(seconds.div_ceil(2))));
        match borne.filter(|&limit| self.since.elapsed() >= limit) {
            Some(limit) => {
                let why = format!("The other side said nothing for {limit:?}");
                Err(TransferError::Stalled(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
            None => Ok(()),
        }
    }
}
