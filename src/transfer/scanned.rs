//! The files that arguments name, as a source to send from; the same for a server and for a client.

use super::chmod;
use super::dest::umask;
use super::guard::Guard;
use super::help::OpenApart;
use super::source::{Arguments, Hooks, ListError, Lister, ScanError, ScanOptions, Severity, SumFile, Walk};
use super::{Listing, Names, Source, TransferError, ids};
use crate::disk::digest::sum_of;
use crate::disk::{reason, shown};
use protocol::args::{Debug, Info, Options};
use protocol::checksum::Checksum;
use protocol::chmod::Chmod;
use protocol::filter::RuleSet;
use protocol::flist::{DirClass, Extras, FileEntry, FileList, Ndx, Sorting};
use protocol::handshake::{Compat, Negotiated};
use protocol::mux::{IO_GENERAL, IO_VANISHED, Message, TextKind};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What went wrong while sending; shared by the list's making, the source and the observer.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// As in [`Listing::io_error`].
    bits: Cell<i32>,
    /// Words for the client's user.
    words: RefCell<VecDeque<Message>>,
    /// Names of files removed here are said.
    pub(super) says_removed: bool,
}

impl Trouble {
    /// None yet; of what else there is to say the options tell.
    pub(crate) fn new(options: &Options) -> Self {
        Self { says_removed: options.level(Info::Remove) > 0, ..Self::default() }
    }

    /// Bits as in [`Listing::io_error`].
    pub(crate) fn bits(&self) -> i32 {
        self.bits.get()
    }

    /// Adds such bits.
    pub(crate) fn add(&self, bits: i32) {
        self.bits.set(self.bits.get() | bits);
    }

    /// The next word for the client's user.
    pub(crate) fn word(&self) -> Option<Message> {
        self.words.borrow_mut().pop_front()
    }

    /// A wanted file could not be opened.
    fn unreadable(&self, path: &[u8], error: &io::Error) {
        let path = shown(path);
        if error.kind() == io::ErrorKind::NotFound {
            self.add(IO_VANISHED);
            self.say(TextKind::Warning, &format!("file has vanished: \"{path}\""));
        } else {
            self.add(IO_GENERAL);
            let text = format!("rsync: [sender] send_files failed to open \"{path}\": {}", reason(error));
            self.say(TextKind::ErrorXfer, &text);
        }
    }

    /// Hears what a walk reports.
    fn report(&self, severity: Severity, text: &str) {
        let (kind, who) = match severity {
            Severity::Info => (TextKind::Info, ""),
            Severity::Warning => (TextKind::Warning, ""),
            Severity::Error => (TextKind::ErrorXfer, "rsync: [sender] "),
            Severity::Unconverted => (TextKind::ErrorXfer, "[sender] "),
        };
        if kind == TextKind::ErrorXfer {
            self.add(IO_GENERAL);
        }
        self.say(kind, &format!("{who}{text}"));
    }

    fn say(&self, kind: TextKind, text: &str) {
        self.words.borrow_mut().push_back(Message::Text(kind, format!("{text}\n").into()));
    }
}

/// What is to be listed, and what of it is left out.
pub(crate) struct SendSelection<'n, 'a> {
    /// The paths of the command, or the one folder in which `names` are.
    pub(crate) paths: &'n [Vec<u8>],
    /// Names of a list (`--files-from`).
    pub(crate) names: Option<Box<Names<'n>>>,
    /// The sending side's filter rules.
    pub(crate) rules: Option<&'a RuleSet>,
    /// What a daemon's module keeps to itself.
    pub(crate) guard: Option<&'a Guard>,
}

/// Files found by a walk.
pub(crate) struct Scanned<'a> {
    lister: Lister<'a>,
    options: &'a Options,
    told: ids::Told,
    chmod: Option<Chmod>,
    trouble: &'a Trouble,
}

impl<'a> Scanned<'a> {
    /// Lists what is selected: all of it, or the first segment.
    pub(crate) fn list(
        selection: SendSelection<'_, 'a>,
        options: &'a Options,
        agreed: &Negotiated,
        trouble: &'a Trouble,
    ) -> Result<(Listing, Self), TransferError> {
        let SendSelection { paths, names, rules, guard } = selection;
        let paths: Vec<_> = paths.iter().map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
        let arguments = Arguments::new(&paths, names)?;
        let sum = options.checksum.then(|| summer(agreed.list_checksum));
        let report = Box::new(|severity, text: String| trouble.report(severity, &text));
        let walk = Walk::new(&scan_options(options), Hooks { report, sum, keep: None, rules, guard });
        let incremental = agreed.compat.has(Compat::INC_RECURSE);
        let mut lister = Lister::new(walk, incremental, Sorting::of(agreed.version));
        let list = if incremental { lister.first(arguments) } else { lister.whole(arguments) };
        let list = list.map_err(refused)?;
        let mut source = Self { lister, options, told: ids::Told::default(), chmod: chmod::asked(options)?, trouble };
        Ok((source.listing(list)?, source))
    }

    /// What goes with a list.
    fn listing(&mut self, mut list: FileList) -> Result<Listing, TransferError> {
        if let Some(chmod) = &self.chmod {
            let umask = umask();
            list.each(|entry| chmod.change(entry, umask));
        }
        let names = match self.options.numeric_ids || self.options.nameless_ids {
            true => Default::default(),
            false => self.told.names(&list, self.options.owner, self.options.group)?,
        };
        let io_error = self.lister.take_io_error();
        self.trouble.add(io_error);
        // The receiving side, which would delete nothing for it, is not to mind.
        let io_error = if self.options.ignore_errors { 0 } else { io_error };
        Ok(Listing { list, names, io_error })
    }
}

/// The list of files that another list has. The directories they are in are only the way to them.
pub(crate) fn list_again(mut entries: Vec<FileEntry>, options: &Options) -> Result<Listing, TransferError> {
    let mut parents = BTreeSet::new();
    for FileEntry { name, .. } in &entries {
        parents.extend((0..name.len()).filter(|&at| name[at] == b'/').map(|at| name[..at].to_vec()));
    }
    entries.extend(parents.into_iter().map(|name| {
        let extra = Extras { dir_class: DirClass::Implied, ..Extras::default() }.into();
        FileEntry { extra, ..FileEntry::new(name, 0o40755) }
    }));
    let list = FileList::new(entries);
    let names = match options.numeric_ids || options.nameless_ids {
        true => Default::default(),
        false => ids::Told::default().names(&list, options.owner, options.group)?,
    };
    Ok(Listing { list, names, io_error: 0 })
}

/// Sums a file for a list (`-c`).
fn summer<'h>(checksum: Checksum) -> SumFile<'h> {
    Box::new(move |file| sum_of(file, checksum).map(|(sum, _)| Some(sum)))
}

impl Source for Scanned<'_> {
    type File = File;

    fn next_segment(&mut self) -> Option<Result<(u32, Listing), TransferError>> {
        let next = self.lister.next()?;
        Some(next.map_err(refused).and_then(|(dir, list)| Ok((dir, self.listing(list)?))))
    }

    fn release(&mut self) {
        self.lister.release();
    }

    fn open(&self, ndx: Ndx, entry: &FileEntry) -> io::Result<File> {
        let opened = self.lister.open(ndx, entry);
        opened.inspect_err(|error| self.trouble.unreadable(&self.lister.full_path(ndx, entry), error))
    }

    fn apart(&self, ndx: Ndx, entry: &FileEntry) -> Option<OpenApart> {
        self.lister.apart(ndx, entry)
    }

    fn broken_off(&self, ndx: Ndx, entry: &FileEntry, error: &io::Error) {
        let path = shown(&self.lister.full_path(ndx, entry));
        self.trouble.add(IO_GENERAL);
        let text = format!("rsync: [sender] read errors mapping \"{path}\": {}", reason(error));
        self.trouble.say(TextKind::ErrorXfer, &text);
    }

    fn xattr(&self, ndx: Ndx, entry: &FileEntry, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let value = self.lister.xattr(ndx, entry, name);
        if !matches!(value, Ok(Some(_))) {
            let path = shown(&self.lister.full_path(ndx, entry));
            self.trouble.add(IO_GENERAL);
            let text = format!("rsync: [sender] failed to re-read xattr {} for {path}", shown(name));
            self.trouble.say(TextKind::ErrorXfer, &text);
        }
        value
    }

    fn finished(&self, ndx: Ndx, entry: &FileEntry) {
        let Options { remove_source_files, dry_run, list_only, .. } = *self.options;
        let remove = remove_source_files && !dry_run && !list_only;
        if !remove || entry.is_dir() {
            return;
        }
        let name = shown(&entry.name);
        let trouble = match self.lister.remove(ndx, entry) {
            Ok(true) if self.trouble.says_removed => {
                return self.trouble.say(TextKind::Info, &format!("sender removed {name}"));
            }
            Ok(true) => return,
            Ok(false) => format!("ERROR: Skipping sender remove for changed file: {name}"),
            Err(error) => format!("sender failed to remove {name}: {}", reason(&error)),
        };
        self.trouble.add(IO_GENERAL);
        self.trouble.say(TextKind::ErrorXfer, &format!("rsync: [sender] {trouble}"));
    }
}

fn refused(error: ListError) -> TransferError {
    match error {
        ListError::Scan(ScanError::Rules(error)) => TransferError::Rules(error.to_string()),
        ListError::Scan(ScanError::Names(error)) => *error,
        ListError::TooMany(error) => error.into(),
        error => TransferError::Refused(error.to_string().into()),
    }
}

fn scan_options(options: &Options) -> ScanOptions {
    ScanOptions {
        recurse: options.recurse,
        dirs: options.dirs,
        relative: options.relative,
        one_file_system: options.one_file_system,
        tells_mounts: options.level(Info::Mount) > 0,
        tells_unsafe_links: options.level(Info::Symsafe) > 0,
        tells_rules: options.level(Debug::Filter) > 0,
        // Listed whatever the options say: the receiving side reports what it skips.
        links: true,
        copy_links: options.copy_links,
        copy_dirlinks: options.copy_dirlinks,
        devices: true,
        copy_devices: options.copy_devices,
        specials: true,
        ignore_missing_args: options.ignore_missing_args,
        delete_missing_args: options.delete_missing_args,
        charset: options.charset,
        atimes: options.atimes > 0,
        hard_links: options.hard_links,
        copy_unsafe_links: options.copy_unsafe_links,
        unmunge_links: options.munge_links,
        acls: options.acls,
        xattrs: options.xattrs,
        fake_super: options.fake_super,
        super_user: options.super_user,
        open_noatime: options.open_noatime || options.atimes > 1,
    }
}
