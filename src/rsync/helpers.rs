//! Further connections that bring files (`--parallel`).
//!
//! The one ordinary session of the command lists, decides, makes directories and links, deletes, tells and counts. Of the files
//! that it is asked for whole it puts up what others may bring. Each helper has a connection of its own, and on it sessions of
//! its own with lists of such files alone; what the far end has acknowledged of them, the one session need not send any more.
//! A helper whose connection fails is gone, and what it had is sent by the one session, as if it had never been put up.

use super::command_line::CommandLine;
use super::operands::{Host, Plan, RemoteHost};
use super::way::{HELPERS_PATIENCE, Traveller, Way};
use crate::link::{Closer, Link};
use crate::transfer::help::{Brought, Help, HelpTicket, Helper, OfferedFile};
use crate::transfer::scanned::list_again;
use crate::transfer::{
    Answer, Conversation, SendObserver, SendPlan, Sent, Source, TransferError, greet_with, offers, send,
};
use crate::transport::ssh::Ssh;
use protocol::args::{ItemDetail, Options};
use protocol::checksum::Sum;
use protocol::flist::{FileEntry, Kind, Ndx};
use protocol::handshake::Side;
use protocol::mux::{Message, TextKind};
use protocol::sender::Request;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that a stock sshd takes in a round trip.
const WINDOW: f64 = 2.0 * 1024.0 * 1024.0;
/// Bytes per second of a line that is worth to be filled: 1 Gbit/s.
const LINE: f64 = 125e6;
/// The most that `--parallel=auto` calls for: an sshd bears ten that have yet to log in.
const AUTO_MOST: usize = 8;
/// Between the arrivals of two: an sshd turns some away where many have yet to log in.
const ARRIVAL: Duration = Duration::from_millis(60);
/// How long sessions may take to end once there is nothing more to bring.
const GOODBYE: Duration = Duration::from_secs(10);

/// How many connections a link with this round trip is worth: one takes no more than a window in that time.
pub(super) fn worth(round_trip: Duration) -> usize {
    let windows = LINE * round_trip.as_secs_f64() / WINDOW;
    (windows.ceil() as usize).clamp(1, AUTO_MOST)
}

/// Why one connection has to do; `None` where others may help.
pub(super) fn why_alone(line: &CommandLine, plan: &Plan, pull: bool, version: u8) -> Option<&'static str> {
    let options = &line.options;
    let batch = &line.batch;
    let reasons = [
        (plan.remote.is_none(), "both ends are on this machine"),
        (plan.remote.as_ref().is_some_and(|remote| remote.daemon), "a daemon counts its connections"),
        (pull, "files are pulled"),
        (version < 30, "the far end speaks an old protocol"),
        (options.list_only || options.dry_run, "nothing is transferred"),
        (batch.read.is_some() || batch.write.is_some() || batch.only_write.is_some(), "a batch is of one session"),
        (options.append > 0 || options.inplace || options.write_devices, "files are written where they stand"),
        (options.copy_devices, "devices are read (--copy-devices)"),
        (options.delay_updates, "--delay-updates puts all files in place at once"),
        (options.partial_dir.is_some() && options.whole_file, "--partial-dir is given with --whole-file"),
        (options.remove_source_files, "--remove-source-files is given"),
        (options.xattrs > 0, "extended attributes are kept (--xattrs)"),
        (options.bwlimit.is_some(), "the rate is limited (--bwlimit)"),
        (options.charset.is_some(), "names are converted (--iconv)"),
        (options.copy_as.is_some(), "--copy-as is given"),
    ];
    reasons.into_iter().find(|(holds, _)| *holds).map(|(_, why)| why)
}

/// Those who help.
pub(super) struct Helpers {
    help: Arc<Help<OfferedFile>>,
    crew: Arc<Crew>,
}

/// What is known of them.
#[derive(Default)]
struct Crew {
    state: Mutex<CrewState>,
    bell: Condvar,
}

#[derive(Default)]
struct CrewState {
    /// Sessions at work, and what ends them.
    sessions: HashMap<usize, Closer>,
    /// No session may begin.
    dismissed: bool,
}

impl Helpers {
    /// Has so many log in.
    pub(super) fn call(line: &CommandLine, plan: &Plan, version: u8, count: usize) -> Self {
        let help = Arc::new(Help::new(count));
        let crew = Arc::new(Crew::default());
        let line = CommandLine { options: options(&line.options), peer_words: Vec::new(), ..line.clone() };
        for number in 0..count {
            let (line, plan, offers, crew) = (line.clone(), plan.clone(), help.clone(), crew.clone());
            let work = move || {
                let hand = Hand { helper: &offers.helper(), way: &way(&line, &plan, version), crew: &crew, number };
                if let Err(why) = hand.work() {
                    tracing::debug!(number, "A helper leaves: {why}");
                }
            };
            if thread::Builder::new().name(format!("helper {number}")).spawn(work).is_err() {
                drop(help.helper());
            }
        }
        Self { help, crew }
    }

    /// What is put up for them.
    pub(super) fn help(&self) -> Arc<Help<OfferedFile>> {
        self.help.clone()
    }

    /// Lets them go, as there is nothing more to bring; sessions may end in order.
    pub(super) fn dismiss(self) {
        self.help.close();
        let deadline = Instant::now() + GOODBYE;
        let mut state = self.crew.lock();
        state.dismissed = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.sessions.is_empty() || left.is_zero() {
                return;
            }
            state = self.crew.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.help.close();
        let mut state = self.crew.lock();
        state.dismissed = true;
        state.sessions.values().for_each(Closer::close);
    }
}

impl Crew {
    fn lock(&self) -> MutexGuard<'_, CrewState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins; false where none may.
    fn begins(&self, number: usize, closer: &Closer) -> bool {
        let mut state = self.lock();
        if !state.dismissed {
            state.sessions.insert(number, closer.clone());
        }
        !state.dismissed
    }

    /// Waits; false when all is over meanwhile.
    fn pause(&self, pause: Duration) -> bool {
        let state = self.lock();
        let over = |state: &mut CrewState| !state.dismissed;
        let waited = self.bell.wait_timeout_while(state, pause, over).unwrap_or_else(PoisonError::into_inner);
        !waited.0.dismissed
    }

    fn ends(&self, number: usize) {
        self.lock().sessions.remove(&number);
        self.bell.notify_all();
    }
}

/// The options of a session that brings nothing but files, and says of each that it is there.
fn options(options: &Options) -> Options {
    Options {
        relative: true,
        no_implied_dirs: true,
        omit_dir_times: true,
        remove_source_files: true,
        recurse: false,
        dirs: false,
        mkpath: false,
        hard_links: false,
        prune_empty_dirs: false,
        cvs_exclude: false,
        delete: None,
        delete_excluded: false,
        delete_missing_args: false,
        ignore_missing_args: false,
        max_delete: None,
        force: false,
        files_from: None,
        fuzzy: 0,
        // What one that lags behind has left could take the place of the file that has come by then.
        partial: false,
        partial_dir: None,
        verbose: 0,
        quiet: false,
        stats: false,
        detail: ItemDetail::None,
        info: Default::default(),
        debug: Default::default(),
        ..options.clone()
    }
}

fn way<'a>(line: &'a CommandLine, plan: &'a Plan, version: u8) -> Way<'a> {
    Way { line, plan, pull: false, version, names_here: false, rules: &[], traveller: Traveller::Helper }
}

/// One who helps.
struct Hand<'a> {
    helper: &'a Helper<'a, OfferedFile>,
    way: &'a Way<'a>,
    crew: &'a Crew,
    number: usize,
}

impl Hand<'_> {
    /// Brings files as long as there are any; the error says why no longer.
    fn work(&self) -> Result<(), String> {
        if !self.crew.pause(ARRIVAL * u32::try_from(self.number).unwrap_or(0)) {
            return Ok(());
        }
        let mut ssh = self.log_in()?;
        loop {
            let round = self.helper.round();
            if round.is_empty() {
                return Ok(());
            }
            let link = self.way.connect(&mut ssh, &|_| {}).map_err(|failure| failure.text)?;
            if !self.crew.begins(self.number, &link.closer) {
                link.closer.close();
                return Ok(());
            }
            let done = self.session(link, &round);
            self.crew.ends(self.number);
            let tickets: Vec<_> = round.iter().map(|(ticket, _)| *ticket).collect();
            self.helper.finish(&tickets);
            done?;
        }
    }

    /// Logs in ahead of all work, where the SSH within does that.
    fn log_in(&self) -> Result<Option<Ssh>, String> {
        let Some(RemoteHost { host, .. }) = self.way.plan.remote.as_ref().filter(|_| self.way.line.rsh.is_none())
        else {
            return Ok(None);
        };
        let host: &Host = host;
        let mut ssh = Way::ssh(host, HELPERS_PATIENCE).map_err(|failure| failure.text)?;
        ssh.login().map_err(|error| error.to_string())?;
        Ok(Some(ssh))
    }

    /// One session with a list of these files.
    fn session(&self, mut link: Link, round: &[(HelpTicket, Arc<OfferedFile>)]) -> Result<(), String> {
        let remote = link.remote.clone();
        let options = &self.way.line.options;
        if options.secluded_args {
            self.way.send_arguments(&mut link).map_err(|failure| failure.text)?;
        }
        let hello = offers::hello(Side::Client, self.way.version, options, false);
        let done = greet_with(link, hello, options).and_then(|session| self.send(session, round));
        done.map_err(|error| format!("{error} {}", remote.stderr().trim()))
    }

    fn send(&self, mut session: Conversation, round: &[(HelpTicket, Arc<OfferedFile>)]) -> Result<(), TransferError> {
        let options = &self.way.line.options;
        session.follow(options)?;
        let plan = SendPlan::of(options, &session.agreed);
        let entries = round.iter().map(|(_, file)| file.entry.clone()).collect();
        let listing = list_again(entries, options)?;
        let by_name: HashMap<_, _> = round.iter().map(|file| (&file.1.entry.name[..], file)).collect();
        let mut files = HashMap::new();
        for (ndx, entry) in listing.list.iter().filter(|(_, entry)| entry.kind() == Some(Kind::File)) {
            files.extend(by_name.get(&entry.name[..]).map(|(ticket, file)| (ndx, (*ticket, file.clone()))));
        }
        let mut watch = HelperWatch { helper: self.helper, files: &files, sent: HashMap::new(), troubled: false };
        let source = OfferedFiles(&files);
        let summary = send(session, &plan, |_| Ok((listing, source)), &mut watch)?;
        self.helper.count(summary.written_bytes, summary.read_bytes);
        Ok(())
    }
}

/// The files of a session by their indexes.
type FilesByNdx = HashMap<Ndx, (HelpTicket, Arc<OfferedFile>)>;

struct OfferedFiles<'a>(&'a FilesByNdx);

impl Source for OfferedFiles<'_> {
    type File = File;

    fn open(&self, ndx: Ndx, _entry: &FileEntry) -> io::Result<File> {
        let (_, file) = self.0.get(&ndx).ok_or(io::ErrorKind::NotFound)?;
        (file.open)()
    }
}

/// What becomes of a helper's files.
struct HelperWatch<'a> {
    helper: &'a Helper<'a, OfferedFile>,
    files: &'a FilesByNdx,
    /// What was sent and is not acknowledged.
    sent: HashMap<Ndx, Brought>,
    /// The far end has complained, perhaps of one of these.
    troubled: bool,
}

impl HelperWatch<'_> {
    fn give_back(&self, ndx: Ndx) {
        if let Some((ticket, _)) = self.files.get(&ndx) {
            self.helper.give_back(*ticket);
        }
    }
}

impl SendObserver for HelperWatch<'_> {
    fn requested(&mut self, _entry: &FileEntry, request: &Request) -> Answer {
        let Some((ticket, _)) = self.files.get(&request.ndx) else { return Answer::Decline };
        if request.redo {
            self.helper.give_back(*ticket);
            return Answer::Decline;
        }
        if !self.troubled && self.helper.take(*ticket) { Answer::Send } else { Answer::Decline }
    }

    fn sent(&mut self, _entry: &FileEntry, request: &Request, sent: &Sent, sum: &Sum) {
        match self.troubled {
            true => self.give_back(request.ndx),
            false => drop(self.sent.insert(request.ndx, Brought { sent: *sent, sum: *sum })),
        }
    }

    fn unreadable(&mut self, ndx: Ndx, _error: &io::Error) {
        self.sent.remove(&ndx);
        self.give_back(ndx);
    }

    /// Words of trouble are the one session's to tell, which meets the same with the file: so that it is told once, and counts.
    fn message(&mut self, message: &Message) {
        if matches!(message, Message::Text(TextKind::Info, _) | Message::Noop) {
            return;
        }
        self.troubled = true;
        for ndx in std::mem::take(&mut self.sent).into_keys() {
            self.give_back(ndx);
        }
    }

    fn finished(&mut self, ndx: Ndx) {
        if let (Some((ticket, _)), Some(brought)) = (self.files.get(&ndx), self.sent.remove(&ndx)) {
            self.helper.brought(*ticket, brought);
        }
    }
}
