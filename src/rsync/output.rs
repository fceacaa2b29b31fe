//! What the user of a client sees: names, itemized changes, progress, messages, totals; and the log file.
//! Owns standard output and error of a session; both threads of a receiving one speak to it.

use super::command_line::{CommandLine, Outbuf, StderrMode};
use super::progress::{ProgressLine, Tally};
use super::stats::Stats;
use crate::disk::names;
use crate::disk::{reason, shown};
use crate::link::Closer;
use crate::report::format::{self, Event, KeptAttributes};
use crate::report::{LogFile, listing, log_file};
use crate::transfer::Sent;
use crate::transfer::{Item, ReceiveObserver};
use protocol::args::{Info, Options};
use protocol::checksum::{Checksum, Sum};
use protocol::flist::{FileEntry, FileList, Kind, Ndx};
use protocol::handshake::Negotiated;
use protocol::item::{ItemFlags, ItemHeader};
use protocol::mux::{Message, TextKind};
use protocol::sender::FinalStats;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What this session is, as far as its output goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Role {
    pub(super) sends: bool,
    /// Within this machine.
    pub(super) local: bool,
    /// Sources as they were named, for `%f`.
    pub(super) sources: Vec<Vec<u8>>,
}

/// The output of one session.
pub(super) struct Output(Mutex<OutputState>);

struct OutputState {
    role: Role,
    /// For each entry; `None` when nothing is said of them.
    format: Option<Vec<u8>>,
    /// The format asks what changed, so every change is worth a line.
    itemizes: bool,
    /// Unchanged entries are worth a line.
    all: bool,
    name_level: u8,
    delete_level: u8,
    progress_level: u8,
    links: bool,
    kept: KeptAttributes,
    quiet: bool,
    human: u8,
    eight_bit: bool,
    stderr_mode: StderrMode,
    outbuf: Option<Outbuf>,
    stdout: BufWriter<io::Stdout>,
    log: Option<Log>,
    progress: ProgressLine,
    /// A line of progress stands on the terminal without its end.
    line_open: bool,
    /// How many entries stand before the one that is dealt with.
    at: u64,
    entries: u64,
    /// First index of each list that came, and how many entries stand before it.
    starts: Vec<(u32, u64)>,
    stats: Stats,
    /// The session's for whole files, and that of its list.
    checksums: [Checksum; 2],
    /// Something was not transferred.
    partial: bool,
    /// The link of the session, to be closed when nobody reads what is to be seen at once.
    closer: Option<Closer>,
    /// Nobody reads it.
    unread: bool,
}

/// How a receiving client hears of changes.
#[derive(Clone, Copy)]
struct Hearing {
    names: bool,
    /// The version has items.
    items: bool,
    /// What changed is shown.
    itemizes: bool,
}

struct Log {
    file: LogFile,
    format: Vec<u8>,
    /// The format asks what changed.
    itemizes: bool,
    /// Nothing happens to any file.
    dry_run: bool,
    /// The names of new folders stand in it, where names do.
    new_folders: bool,
}

impl Log {
    /// The lines of an entry. Where we receive, the generator adds the names of what it changed itself, if they are asked for,
    /// in a log that does not say what changed; before protocol 29 these are all there is.
    fn lines(&self, done: &Done<'_>, told: bool, hearing: Option<Hearing>, event: &Event<'_>) -> Vec<Vec<u8>> {
        let transfers = done.header.flags.has(ItemFlags::TRANSFER);
        let by_name = hearing.is_some_and(|hearing| hearing.names && !(self.itemizes && hearing.items))
            && format::is_logged_by_name(done.entry, done.header, self.new_folders);
        let name = by_name.then(|| format::named(&done.entry.name, done.entry, done.header));
        let has_line = match transfers {
            true => !self.dry_run,
            false => hearing.is_none_or(|hearing| hearing.items || self.itemizes && hearing.itemizes),
        };
        name.into_iter().chain((told && has_line).then(|| format::expand(&self.format, event))).collect()
    }

    fn new(file: LogFile, format: Vec<u8>, options: &Options) -> Self {
        let (itemizes, new_folders) = (format::holds(&format, b'i'), format::logs_new_folders(options));
        Self { file, format, itemizes, dry_run: options.dry_run, new_folders }
    }
}

impl Output {
    /// Opens the log file, if there is to be one; without it, all goes on and is told as ever.
    pub(super) fn new(line: &CommandLine, role: Role) -> Self {
        let path = line.log_file.as_deref().filter(|path| !path.as_os_str().is_empty());
        let format = || line.log_file_format.clone().unwrap_or_else(|| log_file::FORMAT.to_vec());
        let opened = path.map(|path| LogFile::open(path).map_err(|error| (path, error)));
        let (log, refused) = match opened.transpose() {
            Ok(file) => (file.map(|file| Log::new(file, format(), &line.options)), None),
            Err(refused) => (None, Some(refused)),
        };
        let name_level = line.options.level(Info::Name);
        let format = match (&line.out_format, line.itemize, name_level) {
            (Some(format), _, _) => Some(format.clone()),
            (None, 1.., _) => Some(b"%i %n%L".to_vec()),
            (None, 0, 1..) => Some(b"%n%L".to_vec()),
            (None, 0, 0) => None,
        };
        let itemizes = format.as_ref().is_some_and(|format| format::holds(format, b'i'));
        let output = Self(Mutex::new(OutputState {
            role,
            itemizes,
            all: itemizes && (line.itemize > 1 || name_level > 1),
            format,
            name_level,
            delete_level: line.options.level(Info::Del),
            progress_level: line.options.level(Info::Progress),
            links: line.options.links,
            kept: KeptAttributes::of(&line.options),
            quiet: line.quiet > 0,
            human: line.human,
            eight_bit: line.eight_bit,
            stderr_mode: line.stderr,
            outbuf: line.outbuf,
            stdout: BufWriter::with_capacity(64 * 1024, io::stdout()),
            log,
            progress: ProgressLine::new(line.human),
            line_open: false,
            at: 0,
            entries: 0,
            starts: Vec::new(),
            stats: Stats::new(),
            checksums: [Checksum::Md5; 2],
            partial: false,
            closer: None,
            unread: false,
        }));
        if let Some((path, error)) = refused {
            let path = shown(path.as_os_str().as_bytes());
            output.complain(&format!("rsync: [client] failed to open log-file {path}: {}", reason(&error)));
            output.say("Ignoring \"log file\" setting.\n");
        }
        output
    }

    fn lock(&self) -> MutexGuard<'_, OutputState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An ordinary line or more.
    pub(super) fn say(&self, text: &str) {
        let mut state = self.lock();
        state.put(text.as_bytes());
    }

    /// The same, to the log file as well.
    pub(super) fn say_and_log(&self, text: &str) {
        let mut state = self.lock();
        state.put(text.as_bytes());
        for line in text.lines().filter(|line| !line.is_empty()) {
            state.log_line(line.as_bytes());
        }
    }

    /// A line that is not for the log file, of any bytes.
    fn show(&self, words: &[u8]) {
        let mut state = self.lock();
        let mut line = Vec::with_capacity(words.len() + 1);
        names::put(words, state.eight_bit, &mut line);
        line.push(b'\n');
        state.put(&line);
    }

    /// To the log file only.
    pub(super) fn log(&self, text: &str) {
        self.lock().log_line(text.as_bytes());
    }

    /// A line on standard error.
    pub(super) fn complain(&self, text: &str) {
        let mut state = self.lock();
        state.error(text.as_bytes());
    }

    /// The link to close when nobody reads what is to be read line by line.
    pub(super) fn ends_with(&self, closer: Closer) {
        self.lock().closer = Some(closer);
    }

    /// Whether it was closed.
    pub(super) fn is_unread(&self) -> bool {
        self.lock().unread
    }

    /// Whether something was reported that was not transferred.
    pub(super) fn is_partial(&self) -> bool {
        self.lock().partial
    }

    /// What the two ends have agreed on.
    pub(super) fn agreed(&self, agreed: &Negotiated) {
        let mut state = self.lock();
        state.stats.version = agreed.version;
        state.checksums = [agreed.checksum, agreed.list_checksum];
    }

    /// Changes the numbers.
    pub(super) fn stats<T>(&self, act: impl FnOnce(&mut Stats) -> T) -> T {
        act(&mut self.lock().stats)
    }

    /// A file goes over the wire: its name, where it comes before the progress.
    pub(super) fn begin(&self, ndx: Ndx) {
        let mut state = self.lock();
        state.at = state.rank(ndx);
        if state.progress_level == 1 {
            state.progress.restart();
        }
    }

    /// A file was transferred: its line and its progress.
    pub(super) fn transferred(&self, ndx: Ndx, done: &Done<'_>) {
        let mut state = self.lock();
        let stats = &mut state.stats;
        stats.transferred += 1;
        stats.transferred_size += done.entry.len;
        stats.literal += done.sent.literal_bytes;
        stats.matched += done.sent.matched_bytes;
        let shown = state.progress_level == 0 || !state.names_first();
        state.line(done, shown);
        state.at = state.rank(ndx);
        state.progress_line(done.entry.len);
    }

    /// The name of a file that is about to be transferred, where progress follows it.
    pub(super) fn announce(&self, done: &Done<'_>) {
        let mut state = self.lock();
        if state.progress_level > 0 && state.names_first() {
            state.line(done, true);
        }
    }

    /// Bytes of the current file, whose length is `total`.
    pub(super) fn advance(&self, bytes: u64, total: u64) {
        let mut state = self.lock();
        if state.progress_level == 0 || state.quiet {
            return;
        }
        let total = if state.progress_level > 1 { state.stats.total_size } else { total };
        if let Some(text) = state.progress.advance(bytes, total) {
            state.raw(text.as_bytes());
            state.line_open = true;
        }
    }

    /// An entry that was changed without data, or would be transferred were this no dry run.
    pub(super) fn changed(&self, item: &Item<'_>) {
        let &Item { ndx, entry, header } = item;
        let mut state = self.lock();
        state.at = state.rank(ndx);
        if header.flags.has(ItemFlags::NEW) {
            state.stats.created(entry);
        }
        if header.flags.has(ItemFlags::TRANSFER) {
            state.stats.transferred += 1;
            state.stats.transferred_size += entry.len;
        }
        state.line(&Done { entry, header, sent: Sent::default(), sums: 0, sum: None }, true);
    }

    /// Ends a line of progress that is still open, and shows what waits.
    pub(super) fn flush(&self) {
        let mut state = self.lock();
        if state.progress_level > 1 && state.line_open {
            let entries = state.entries;
            state.at = entries.saturating_sub(1);
            state.progress_line(0);
        }
        state.end_line();
        let _ = state.stdout.flush();
    }
}

/// A finished file.
pub(super) struct Done<'a> {
    pub(super) entry: &'a FileEntry,
    pub(super) header: &'a ItemHeader,
    pub(super) sent: Sent,
    /// Bytes of block sums, where we send.
    pub(super) sums: u64,
    pub(super) sum: Option<Sum>,
}

impl OutputState {
    /// Whether a name stands before its progress: a format that tells of what was sent comes after it.
    fn names_first(&self) -> bool {
        !self.format.as_ref().is_some_and(|format| b"bcC".iter().any(|letter| format::holds(format, *letter)))
    }

    /// Indexes leave gaps between segments; ranks do not.
    fn rank(&self, ndx: Ndx) -> u64 {
        let after = self.starts.partition_point(|(start, _)| *start <= ndx.0);
        match after.checked_sub(1).and_then(|at| self.starts.get(at)) {
            Some((start, before)) => before + u64::from(ndx.0 - start),
            None => 0,
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        let result = match self.stderr_mode {
            StderrMode::All => io::stderr().write_all(bytes),
            _ => self.stdout.write_all(bytes).and_then(|()| match self.outbuf {
                Some(Outbuf::Block) => Ok(()),
                Some(Outbuf::Line | Outbuf::None) | None => self.stdout.flush(),
            }),
        };
        // Nobody may be reading any more. The transfer goes on, unless each line was to be read as it comes.
        let line_by_line = matches!(self.outbuf, Some(Outbuf::Line | Outbuf::None));
        if result.is_err() && line_by_line && self.stderr_mode != StderrMode::All {
            self.unread = true;
            self.closer.take().inspect(Closer::close);
        }
    }

    fn end_line(&mut self) {
        if std::mem::take(&mut self.line_open) {
            self.raw(b"\n");
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if !self.quiet {
            self.end_line();
            self.raw(bytes);
        }
    }

    fn error(&mut self, text: &[u8]) {
        self.end_line();
        let _ = self.stdout.flush();
        let mut line = text.to_vec();
        line.push(b'\n');
        let _ = io::stderr().write_all(&line);
        self.log_line(text);
    }

    fn log_line(&mut self, text: &[u8]) {
        if let Some(log) = &self.log {
            log.file.line(text);
        }
    }

    fn progress_line(&mut self, total: u64) {
        if self.progress_level == 0 || self.quiet {
            return;
        }
        let total = if self.progress_level > 1 { self.stats.total_size } else { total };
        let tally = Tally {
            transferred: self.stats.transferred,
            left: self.entries.saturating_sub(self.at + 1),
            entries: self.entries,
        };
        let text = self.progress.finished(total, tally);
        self.raw(text.as_bytes());
        self.line_open = true;
        if self.progress_level == 1 {
            self.end_line();
        }
    }

    fn event<'a>(&self, done: &'a Done<'_>, path: Option<&'a [u8]>) -> Event<'a> {
        // Old versions do not say whether a symlink's time can be set, and stock takes it that it cannot.
        let unsaid = 1..if self.role.sends { 30 } else { 29 };
        let timeless = done.entry.kind() == Some(Kind::Symlink) && unsaid.contains(&self.stats.version);
        Event {
            entry: Some(done.entry),
            name: &done.entry.name,
            header: done.header,
            sends: self.role.sends,
            local: self.role.local,
            sent: done.sent.wire_bytes,
            sums: done.sums,
            sum: done.sum,
            checksums: self.checksums,
            path,
            site: None,
            kept: KeptAttributes { times: self.kept.times && !timeless, ..self.kept },
            human: self.human,
        }
    }

    /// The lines of an entry: on standard output if `shown`, and in the log.
    fn line(&mut self, done: &Done<'_>, shown: bool) {
        let flags = done.header.flags;
        let changed = format::is_change(done.header);
        let moved =
            flags.has(ItemFlags::TRANSFER) || (flags.has(ItemFlags::LOCAL_CHANGE) && format::is_told(done.header));
        let path = self.source(&done.entry.name);
        let event = self.event(done, path.as_deref());
        let told = match self.itemizes {
            true => changed,
            false => moved || (changed && done.entry.is_dir()),
        };
        // A server that receives says this itself.
        let attributes = changed && self.name_level > 1 && !self.itemizes && !self.role.sends;
        let text = match &self.format {
            Some(format) if shown => match () {
                () if told || self.all => Some(format::expand(format, &event)),
                () if attributes => Some(done.entry.name.clone()),
                () => None,
            },
            _ => None,
        };
        let (names, items) = (self.name_level > 0, self.stats.version >= 29);
        let hearing = Hearing { names, items, itemizes: self.itemizes };
        let hearing = Some(hearing).filter(|_| !self.role.sends);
        let logged = self.log.as_ref().map(|log| log.lines(done, told, hearing, &event)).unwrap_or_default();
        if let Some(text) = text {
            let mut line = Vec::with_capacity(text.len() + 1);
            names::put(&text, self.eight_bit, &mut line);
            line.push(b'\n');
            self.put(&line);
        }
        for text in logged {
            let mut line = Vec::with_capacity(text.len());
            names::put(&text, self.eight_bit, &mut line);
            self.log_line(&line);
        }
    }

    /// The path of an entry here, as far as the arguments tell it.
    fn source(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.role.sends.then(|| format::path_by_arguments(&self.role.sources, name)).flatten()
    }

    fn deleted(&mut self, name: &[u8]) {
        // A directory's name comes with a zero byte at its end.
        let (name, is_dir) = match name.strip_suffix(b"\0").or_else(|| name.strip_suffix(b"/")) {
            Some(name) => (name, true),
            None => (name, false),
        };
        let name = if is_dir { [name, b"/"].concat() } else { name.to_vec() };
        let header = ItemHeader::default();
        let event = Event {
            entry: None,
            name: &name,
            header: &header,
            sends: self.role.sends,
            local: self.role.local,
            sent: 0,
            sums: 0,
            sum: None,
            checksums: self.checksums,
            path: None,
            site: None,
            kept: self.kept,
            human: self.human,
        };
        let text = match &self.format {
            Some(format) => Some(format::deleted(format, &event)),
            None if self.delete_level > 0 => Some(format::deleted(b"", &event)),
            None => None,
        };
        let logged = self.log.as_ref().filter(|log| !log.dry_run).map(|log| format::deleted(&log.format, &event));
        if let Some(text) = text {
            let mut line = Vec::new();
            names::put(&text, self.eight_bit, &mut line);
            line.push(b'\n');
            self.put(&line);
        }
        if let Some(text) = logged {
            self.log_line(&text);
        }
    }

    fn message(&mut self, message: &Message) {
        match message {
            Message::Text(kind, text) => {
                let mut shown = Vec::with_capacity(text.len());
                names::put_text(text, self.eight_bit, &mut shown);
                let line = shown.strip_suffix(b"\n").unwrap_or(&shown).to_vec();
                match kind {
                    TextKind::Info => {
                        self.put(&shown);
                        for line in line.split(|&byte| byte == b'\n') {
                            self.log_line(line);
                        }
                    }
                    TextKind::ErrorXfer => {
                        self.partial = true;
                        self.error(&line);
                    }
                    TextKind::Error | TextKind::Warning => self.error(&line),
                }
            }
            Message::Deleted(name) => self.deleted(name),
            _ => {}
        }
    }

    fn listed(&mut self, list: &FileList) {
        self.starts.push((list.start().0, self.entries));
        self.entries += list.iter().count() as u64;
        self.stats.listed(list);
    }
}

impl Output {
    pub(super) fn list(&self, list: &FileList) {
        self.lock().listed(list);
    }

    /// A line of a listing.
    pub(super) fn entry(&self, entry: &FileEntry) {
        let mut state = self.lock();
        let line = listing::line(entry, state.human, state.eight_bit, state.links);
        state.put(&line);
    }

    /// Words of either side.
    pub(super) fn hear(&self, message: &Message) {
        self.lock().message(message);
    }
}

/// The output of a session in which files come here.
pub(super) struct Pulled<'a> {
    pub(super) output: &'a Output,
    /// Length of the file that is coming in.
    pub(super) current: std::sync::atomic::AtomicU64,
}

impl ReceiveObserver for Pulled<'_> {
    fn listed(&self, list: &FileList, bytes: u64) {
        self.output.list(list);
        self.output.stats(|stats| stats.list_bytes += bytes);
    }

    fn entry(&self, entry: &FileEntry) {
        self.output.entry(entry);
    }

    fn item(&self, item: &Item<'_>) {
        self.output.changed(item);
    }

    fn begins(&self, item: &Item<'_>) {
        let &Item { ndx, entry, header } = item;
        self.current.store(entry.len, std::sync::atomic::Ordering::Relaxed);
        self.output.begin(ndx);
        if header.flags.has(ItemFlags::NEW) {
            self.output.stats(|stats| stats.created(entry));
        }
        self.output.announce(&Done { entry, header, sent: Sent::default(), sums: 0, sum: None });
        self.output.advance(0, entry.len);
    }

    fn progress(&self, bytes: u64) {
        self.output.advance(bytes, self.current.load(std::sync::atomic::Ordering::Relaxed));
    }

    fn received(&self, item: &Item<'_>, sent: &Sent, sum: &Sum) {
        let &Item { ndx, entry, header } = item;
        self.output.transferred(ndx, &Done { entry, header, sent: *sent, sums: 0, sum: Some(*sum) });
    }

    fn spoilt(&self, item: &Item<'_>, sent: &Sent) {
        let &Item { ndx, entry, header } = item;
        self.output.transferred(ndx, &Done { entry, header, sent: *sent, sums: 0, sum: None });
    }

    fn message(&self, message: &Message) {
        self.output.hear(message);
    }

    fn aside(&self, words: &[u8]) {
        self.output.show(words);
    }

    fn stats(&self, totals: &FinalStats) {
        self.output.stats(|stats| {
            (stats.read, stats.written) = (totals.written, totals.read);
            stats.total_size = totals.total_size;
            stats.list_build = totals.list_build_ms;
            stats.list_transfer = totals.list_send_ms;
        });
    }
}
