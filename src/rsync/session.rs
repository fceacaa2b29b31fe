//! One session of a client: connects, sends or receives, and says what came of it. Counterpart: rsync's `client_run`.

use super::batch;
use super::command_line::CommandLine;
use super::daemon::{self, Call, Connected, DaemonError, Shell, Site};
use super::failure::SessionFailure;
use super::helpers::{self, EarlyHelpers, Helpers, Pullers};
use super::operands::{Host, Plan, RemoteHost};
use super::output::{Output, Pulled, Role};
use super::pushed::Pushed;
use super::until::Until;
use super::usage::Usage;
use super::wanted::{Wanted, rules_of_script};
use super::way::{Traveller, Way};
use crate::disk::names;
use crate::exit;
use crate::link::{Closer, Ending, Link};
use crate::transfer::batch::{BatchFile, Playback, PlaybackError};
use crate::transfer::charset;
use crate::transfer::copy_as::copy_as;
use crate::transfer::filters;
use crate::transfer::offers;
use crate::transfer::scanned::{Scanned, SendSelection, Trouble};
use crate::transfer::{
    Asked, Conversation, Expected, Names, Operands, ReceivePlan, SendPlan, TransferError, greet_agreed, greet_with,
    receive, send,
};
use crate::transport::Connect;
use crate::transport::tcp::Family;
use protocol::PeerError;
use protocol::args::{Debug, Info};
use protocol::filter::RuleSide;
use protocol::handshake::{Compat, Offer, Side, VERSION_LEAST, VERSION_MOST};
use protocol::mux::{IO_GENERAL, Message, TextKind};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a server within this process may take to leave once its link is closed: it puts its files in order.
const LEAVING: Duration = Duration::from_secs(5);
/// Round trips that the handshake takes at least, where the connection does not know how long they are.
const ANSWERS: u32 = 2;

/// Runs a transfer; gives its exit code.
pub(super) fn run(line: &CommandLine, plan: &Plan) -> Result<i32, Usage> {
    let version = line.protocol.unwrap_or(VERSION_MOST.into());
    let Some(version) = u8::try_from(version).ok().filter(|version| (VERSION_LEAST..=VERSION_MOST).contains(version))
    else {
        let text = format!("--protocol must be at least {VERSION_LEAST} and no more than {VERSION_MOST}.");
        return Err(Usage { text, code: exit::PROTOCOL });
    };
    if line.options.insecure_links {
        crate::disk::trust_all_links();
    }
    let local = plan.remote.is_none();
    // A copy without a destination is a listing, and lists come from a sender at the other end.
    let pull = plan.pull || plan.destination.is_none() || (local && line.options.list_only);
    let who = if pull { "Receiver" } else { "sender" };
    let mut line = line.clone();
    charset::of_client(&mut line.options)
        .map_err(|error| Usage { text: error.to_string(), code: error.exit_code() })?;
    let for_script = rules_of_script(&line)?;
    batch::constrain(&mut line)?;
    let wanted = Wanted::of(&mut line, plan, pull)?;
    // Files of rules and lists that stand on the command line have been read by now.
    line.options.confine_root.as_deref().inspect(|root| crate::disk::bound(root));
    let written = batch::create(&line, plan, &for_script)?;
    let recorded = line.batch.read.is_some() || written.is_some();
    line.options.whole_file |= local && !recorded && !line.options.no_whole_file;
    let role = Role { sends: !pull, local, sources: plan.sources.clone() };
    let output = Output::new(&line, role);
    let playback = match line.batch.read.clone() {
        None => None,
        Some(name) => Some(play(&mut line, &name, version, &output)?),
    };
    let client = ClientSession { line: &line, plan, pull, version, output: &output, wanted };
    let outcome = match playback {
        Some(playback) => client.play(playback),
        None => client.session(written),
    };
    let code = match outcome {
        Ok(code) => code,
        Err(SessionFailure { text, code }) => {
            if !text.is_empty() {
                output.complain(&text);
            }
            code
        }
    };
    output.flush();
    if code != 0 {
        output.complain(&exit::line(code, who));
    }
    Ok(code)
}

/// Opens the batch file that takes the place of a far end, and makes the options follow it.
fn play(line: &mut CommandLine, name: &[u8], version: u8, output: &Output) -> Result<Playback, Usage> {
    let playback = crate::transfer::batch::play(&batch::path(name), &mut line.options, version);
    let playback = playback.map_err(|error| {
        let text = match &error {
            PlaybackError::Options(_) | PlaybackError::File(TransferError::Peer(PeerError::BatchTooNew { .. })) => {
                error.to_string()
            }
            PlaybackError::File(TransferError::Remote { .. }) => {
                "rsync: connection unexpectedly closed (0 bytes received so far) [Receiver]".into()
            }
            PlaybackError::File(error) => format!("rsync: [Receiver] {error}"),
        };
        Usage { text, code: error.exit_code() }
    })?;
    if line.options.level(Info::Misc) > 0 {
        playback.changed.iter().for_each(|text| output.say(&format!("{text}\n")));
    }
    Ok(playback)
}

/// Counts what is heard, for the last words of a session that breaks.
struct Counted {
    reader: Box<dyn Read + Send>,
    heard: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.heard.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A link to the far end, with what is known of both.
struct Reached {
    link: Link,
    /// The protocol version that a daemon has agreed on.
    version: Option<u8>,
    round_trip: Option<Duration>,
    /// Those who log in already.
    helpers: Option<EarlyHelpers>,
}

struct ClientSession<'a> {
    line: &'a CommandLine,
    plan: &'a Plan,
    pull: bool,
    version: u8,
    output: &'a Output,
    wanted: Wanted,
}

impl ClientSession<'_> {
    /// Plays a batch file.
    fn play(&self, playback: Playback) -> Result<i32, SessionFailure> {
        self.line.options.copy_as.as_deref().map(copy_as).transpose()?;
        let until = self.watch(playback.closer)?;
        self.output.agreed(&playback.session.agreed);
        let result = self.pull(playback.session, None);
        match (result, until.ended()) {
            (Err(_), Some(code)) => Err(SessionFailure { text: String::new(), code }),
            (Err(error), None) => Err(self.failure(&error, 0)),
            (Ok(code), _) => Ok(code),
        }
    }

    /// What is said of a session that broke, of which so many bytes were heard.
    fn failure(&self, error: &TransferError, heard: u64) -> SessionFailure {
        let who = if self.pull { "Receiver" } else { "sender" };
        let text = match error {
            TransferError::Remote { .. } => {
                format!("rsync: connection unexpectedly closed ({heard} bytes received so far) [{who}]")
            }
            TransferError::Peer(PeerError::Exit(_)) => String::new(),
            error if !error.is_signed() => error.to_string(),
            error => format!("rsync: [{who}] {error}"),
        };
        SessionFailure { text, code: error.exit_code() }
    }

    fn session(&self, written: Option<BatchFile>) -> Result<i32, SessionFailure> {
        let Some(Reached { mut link, version, round_trip, helpers }) = self.reach()? else { return Ok(0) };
        self.line.options.copy_as.as_deref().map(copy_as).transpose()?;
        let heard = Arc::new(AtomicU64::new(0));
        link.reader = Box::new(Counted { reader: link.reader, heard: heard.clone() });
        if self.way().starts_server() && self.line.options.secluded_args {
            self.way().send_arguments(&mut link)?;
        }
        let remote = link.remote.clone();
        let until = self.watch(link.closer.clone())?;
        self.output.ends_with(link.closer.clone());
        let began = Instant::now();
        let greeted = self.greet(link, version, written.as_ref());
        let result = greeted.and_then(|session| {
            let round_trip = round_trip.unwrap_or(began.elapsed() / ANSWERS);
            self.transfer(session, written, (round_trip, helpers))
        });
        if let (Err(_), Some(code)) = (&result, until.ended()) {
            remote.wait(LEAVING);
            let text = if code == exit::TIMEOUT { "rsync: stopped at the time that was set" } else { "" };
            return Err(SessionFailure { text: text.into(), code });
        }
        // By the SSH within, the far end's words come apart from the session.
        let words = remote.stderr();
        if !words.is_empty() && self.way().starts_server() {
            let (mut shown, eight_bit) = (Vec::with_capacity(words.len()), self.line.eight_bit);
            names::put_text(words.trim_end().as_bytes(), eight_bit, &mut shown);
            self.output.complain(&String::from_utf8_lossy(&shown));
        }
        if self.output.is_unread() {
            return Err(SessionFailure { text: String::new(), code: exit::DIAGNOSTICS });
        }
        result.map_err(|error| self.failure(&error, heard.load(Ordering::Relaxed)))
    }

    fn way(&self) -> Way<'_> {
        let Self { line, plan, pull, version, wanted, .. } = self;
        let names_here = wanted.here.is_some();
        let (pull, version, rules, traveller) = (*pull, *version, &wanted.rules[..], Traveller::Client);
        Way { line, plan, pull, version, names_here, rules, traveller }
    }

    /// A link to the far end; `None` where a daemon's modules were listed.
    fn reach(&self) -> Result<Option<Reached>, SessionFailure> {
        if let Some(RemoteHost { host, daemon: true }) = &self.plan.remote {
            let connected = self.by_daemon(host)?;
            let reached =
                |Connected { link, version }| Reached { link, version: Some(version), round_trip: None, helpers: None };
            return Ok(connected.map(reached));
        }
        let mut kept = self.way().ssh_within()?;
        let early = Arc::new(Mutex::new(None));
        if let Some(ssh) = kept.as_mut().filter(|_| self.line.parallel.is_some()) {
            let (line, plan, pull, version) = (self.line.clone(), self.plan.clone(), self.pull, self.version);
            let early = early.clone();
            // Only now: many that log in before might keep this very session out.
            ssh.on_answer(Arc::new(move |round_trip| {
                let mut early = early.lock().unwrap_or_else(PoisonError::into_inner);
                *early = early.take().or_else(|| EarlyHelpers::call(&line, &plan, pull, version, round_trip));
                true
            }));
            ssh.login()?;
        }
        let helpers = early.lock().unwrap_or_else(PoisonError::into_inner).take();
        helpers.iter().for_each(EarlyHelpers::admit);
        let link = self.way().connect(&mut kept, &|words| self.tell_command(words))?;
        let round_trip = kept.and_then(|ssh| ssh.round_trip());
        Ok(Some(Reached { link, version: None, round_trip, helpers }))
    }

    /// Closes the link at a signal, or at `--stop-at`.
    fn watch(&self, closer: Closer) -> Result<Until, SessionFailure> {
        Until::watch(closer, self.line.options.stop_at).map_err(|error| SessionFailure {
            text: format!("rsync: Cannot listen for signals: {error}"),
            code: exit::IPC,
        })
    }

    /// Shakes hands; `agreed` is the version that a daemon has agreed on.
    fn greet(
        &self,
        link: Link,
        agreed: Option<u8>,
        written: Option<&BatchFile>,
    ) -> Result<Conversation, TransferError> {
        let options = &self.line.options;
        let mut hello = offers::hello(Side::Client, agreed.unwrap_or(self.version), options, self.pull);
        if written.is_some() {
            // A batch file names no algorithm.
            hello.offer = Offer::Unnamed;
        }
        match agreed {
            Some(_) => greet_agreed(link, hello),
            None => greet_with(link, hello, options),
        }
    }

    /// How many others are to log in, if that is asked for and they can help.
    fn helpers_worth(&self, version: u8, round_trip: Duration) -> Option<usize> {
        let others = helpers::others_worth(self.line, round_trip)?;
        if let Some(why) = helpers::why_alone(self.line, self.plan, self.pull, version) {
            if self.line.options.verbose > 0 {
                self.output.say(&format!("one connection only: {why}\n"));
            }
            return None;
        }
        Some(others)
    }

    fn transfer(
        &self,
        mut session: Conversation,
        written: Option<BatchFile>,
        (round_trip, early): (Duration, Option<EarlyHelpers>),
    ) -> Result<i32, TransferError> {
        session.follow(&self.line.options)?;
        self.output.agreed(&session.agreed);
        if let Some(file) = written {
            session.record(&self.line.options, file)?;
        }
        let others = self.helpers_worth(session.agreed.version, round_trip);
        match (others, early) {
            (Some(_), Some(EarlyHelpers::Pull(pullers))) => self.pull(session, Some(&pullers)),
            _ if self.pull => self.pull(session, None),
            (Some(_), Some(EarlyHelpers::Push(helpers))) => self.push(session, Some(helpers)),
            (others, _) => {
                let helpers = others.map(|others| Helpers::call(self.line, self.plan, self.version, others));
                self.push(session, helpers)
            }
        }
    }

    /// Reaches a module of a daemon; `None` where its modules were listed.
    fn by_daemon(&self, host: &Host) -> Result<Option<Connected>, SessionFailure> {
        let line = self.line;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let site = Site { host: text(&host.name), port: host.port, user: host.user.as_deref().map(text) };
        let seconds = |seconds: Option<u32>| {
            seconds.filter(|&seconds| seconds > 0).map(|seconds| Duration::from_secs(seconds.into()))
        };
        let shell = match line.rsh.as_ref().filter(|_| line.rsh_given) {
            None => None,
            Some(shell) => {
                let mut words = self.way().shell_words(shell)?;
                let says_user = words.iter().any(|word| word == b"-l");
                if let Some(user) = host.user.as_ref().filter(|_| !says_user) {
                    words.extend([b"-l".to_vec(), user.clone()]);
                }
                words.push(host.name.clone());
                let program = line.rsync_path.clone().unwrap_or_else(|| b"rsync".to_vec());
                let words = words.into_iter().map(OsString::from_vec).collect();
                Some(Shell { words, program: OsString::from_vec(program) })
            }
        };
        let call = Call {
            port: line.port,
            address: line.address.as_deref().map(text),
            family: match line.family {
                Some(4) => Family::V4,
                Some(_) => Family::V6,
                None => Family::Any,
            },
            sockopts: line.sockopts.as_deref().map(text),
            contimeout: seconds(line.contimeout),
            timeout: seconds(line.options.timeout),
            no_motd: line.no_motd,
            password_file: line.password_file.clone(),
            early_input: line.early_input.clone(),
            shell,
            version: self.version,
            tells_connection: line.options.level(Debug::Connect) > 0,
            tells_words: line.options.level(Debug::Cmd) > 0,
        };
        let mut say = |words: &[u8]| self.output.hear(&Message::Text(TextKind::Info, [words, b"\n"].concat()));
        let args = self.way().server_args(&charset::to_peer, &|word, _| word.to_vec());
        let failed = |error: DaemonError| SessionFailure { text: format!("{error}"), code: error.exit_code() };
        if self.pull && self.plan.sources.iter().all(Vec::is_empty) {
            daemon::list_modules(&site, &call, &mut say).map_err(failed)?;
            return Ok(None);
        }
        daemon::connect(&site, &call, &args, &mut say).map(Some).map_err(failed)
    }

    fn tell_command(&self, words: &[Vec<u8>]) {
        if self.line.options.level(Debug::Cmd) > 0 && self.line.quiet == 0 {
            let shown: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
            let text = format!("opening connection using: {}  ({} args)\n", shown.join(" "), words.len());
            self.output.say(&text);
        }
    }

    /// What stands on the first line of a wordy transfer.
    fn announce_list(&self, verb: [&str; 2], incremental: bool) -> bool {
        let options = &self.line.options;
        let logged = if self.pull { "receiving file list" } else { "building file list" };
        self.output.log(logged);
        if self.line.options.level(Info::Flist) == 0 || !(options.recurse || options.dirs) {
            return false;
        }
        // A receiver that must know the whole list first, at either end, has it come in one piece.
        let at_once = incremental && options.takes_segments();
        if at_once {
            self.output.say(&format!("{} incremental file list\n", verb[0]));
            return false;
        }
        self.output.say(&format!("{} file list ... ", verb[1]));
        true
    }

    fn push(&self, session: Conversation, helpers: Option<Helpers>) -> Result<i32, TransferError> {
        let options = &self.line.options;
        let trouble = Trouble::new(options);
        let agreed = session.agreed;
        let plan = SendPlan {
            rules: options.receiver_hears_rules(agreed.version).then(|| self.wanted.rules.clone()),
            names_from_peer: options.files_from.is_some() && self.wanted.here.is_none(),
            only_batch: options.only_write_batch && batch::written(self.line).is_some(),
            help: helpers.as_ref().map(Helpers::help),
            ..SendPlan::of(options, &agreed)
        };
        let rules = filters::rule_set(&self.wanted.rules, RuleSide::Sender);
        let listing = |asked: Asked<'_>| {
            let open = self.announce_list(["sending", "building"], agreed.version >= 30);
            let started = Instant::now();
            let names = match &self.wanted.here {
                Some(names) => Some(Box::new(names.iter().cloned().map(Ok)) as Box<Names<'_>>),
                None => plan.names_from_peer.then(|| asked.names_here(options)),
            };
            let selection = SendSelection { paths: &self.plan.sources, names, rules: rules.as_ref(), guard: None };
            let listed = Scanned::list(selection, options, &agreed, &trouble);
            self.output.stats(|stats| stats.list_build = started.elapsed().as_millis() as u64);
            if open {
                self.output.say_and_log("done\n");
            }
            listed
        };
        let mut watch = Pushed { output: self.output, trouble: &trouble, list_only: options.list_only, len: 0 };
        let summary = send(session, &plan, listing, &mut watch)?;
        watch.drain();
        // What a session moved is known once it has ended.
        let (written, read) = helpers.map_or((0, 0), Helpers::dismiss);
        self.output.stats(|stats| {
            (stats.written, stats.read) = (summary.written_bytes + written, summary.read_bytes + read);
        });
        self.end(trouble.bits(), summary.ending.as_ref())
    }

    /// What a sender may bring that is not ourselves; what a batch file holds was judged when it was made.
    fn expected(&self) -> Expected {
        let Some(remote) = self.plan.remote.as_ref().filter(|_| self.line.batch.read.is_none()) else {
            return Expected::default();
        };
        let operands = match (&self.wanted.asked, &self.line.options.files_from) {
            (Some(asked), _) => Operands::Listed(&asked.names),
            (None, Some(_)) => Operands::Unknown,
            (None, None) if remote.daemon => Operands::InModules(&self.plan.sources),
            (None, None) => Operands::Arguments(&self.plan.sources),
        };
        Expected::new(operands, &self.wanted.rules, &self.line.options)
    }

    fn pull(&self, session: Conversation, helpers: Option<&Pullers>) -> Result<i32, TransferError> {
        let destination = self.plan.destination.as_deref().unwrap_or_default();
        let from_batch = self.line.batch.read.is_some();
        let mut plan = ReceivePlan {
            rules: self.wanted.rules.clone(),
            asked: self.wanted.asked.as_ref().map(|asked| asked.bytes.clone()),
            expected: self.expected(),
            stager: helpers.map(Pullers::stager),
            ..ReceivePlan::of(&self.line.options, destination)
        };
        // A batch that is tried dry brings its data along.
        plan.options.only_write_batch |= plan.options.dry_run && from_batch;
        let verbs = if self.plan.remote.is_none() && !from_batch {
            ["sending", "building"]
        } else {
            ["receiving", "receiving"]
        };
        let incremental =
            if from_batch { session.agreed.compat.has(Compat::INC_RECURSE) } else { session.agreed.version >= 30 };
        if self.announce_list(verbs, incremental) {
            self.output.say_and_log("done\n");
        }
        let observer = Pulled { output: self.output, current: Default::default() };
        let received = receive(session, &plan, &observer)?;
        let read = received.read_bytes + helpers.map_or(0, Pullers::dismiss);
        self.output.stats(|stats| stats.deleted = (&received.deleted).into());
        // A batch tells what its sender read and wrote.
        if !from_batch {
            self.output.stats(|stats| (stats.written, stats.read) = (received.written_bytes, read));
        }
        self.end(received.trouble(), received.ending.as_ref())
    }

    /// The last lines and the exit code.
    fn end(&self, bits: i32, ending: Option<&Ending>) -> Result<i32, TransferError> {
        self.output.flush();
        let line = self.line;
        let level = line.options.level(Info::Stats);
        if level > 1 {
            self.output.say_and_log(&self.output.stats(|stats| stats.block(line.human)));
        }
        if level > 0 {
            self.output.say("\n");
            self.output.say_and_log(&self.output.stats(|stats| stats.summary(line.human, line.options.dry_run)));
        } else {
            let text = self.output.stats(|stats| {
                format!("sent {} bytes  received {} bytes  total size {}", stats.written, stats.read, stats.total_size)
            });
            self.output.log(&text);
        }
        let partial = if self.output.is_partial() { IO_GENERAL } else { 0 };
        let own = exit::of_trouble(bits | partial);
        Ok(own.max(ending.map_or(0, exit::of_ending)))
    }
}
