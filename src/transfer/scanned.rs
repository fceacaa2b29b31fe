//! The files that arguments name, as a source to send from; the same for a server and for a client.

use super::beneath::{reason, shown};
use super::generate::file_sum;
use super::source::{Hooks, Location, ScanOptions, Severity, SourceTree, scan};
use super::{Listing, Source, TransferError, ids};
use protocol::args::Options;
use protocol::checksum::Checksum;
use protocol::flist::{FileEntry, FileList, Ndx, compare};
use protocol::mux::{Message, TextKind};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// What went wrong while sending; shared by the list's making, the source and the watch.
#[derive(Debug, Default)]
pub struct Trouble {
    /// As in [`Listing::io_error`].
    bits: Cell<i32>,
    /// Words for the client's user.
    words: RefCell<VecDeque<Message>>,
    /// Full path of the file that was opened last.
    current: RefCell<String>,
    /// Names of files removed here are said.
    pub(super) says_removed: bool,
}

impl Trouble {
    /// None yet. `says_removed`: each file that is removed at the source is named.
    pub fn new(says_removed: bool) -> Self {
        Self { says_removed, ..Self::default() }
    }

    /// Bits as in [`Listing::io_error`].
    pub fn bits(&self) -> i32 {
        self.bits.get()
    }

    /// Adds such bits.
    pub fn add(&self, bits: i32) {
        self.bits.set(self.bits.get() | bits);
    }

    /// The next word for the client's user.
    pub fn word(&self) -> Option<Message> {
        self.words.borrow_mut().pop_front()
    }

    /// A wanted file could not be opened or read to its end.
    pub fn unreadable(&self, error: &io::Error) {
        let path = self.current.borrow();
        if error.kind() == io::ErrorKind::NotFound {
            self.add(2);
            self.say(TextKind::Warning, &format!("file has vanished: \"{path}\""));
        } else {
            self.add(1);
            let text = format!("rsync: [sender] send_files failed to open \"{path}\": {}", reason(error));
            self.say(TextKind::ErrorXfer, &text);
        }
    }

    fn say(&self, kind: TextKind, text: &str) {
        self.words.borrow_mut().push_back(Message::Text(kind, format!("{text}\n").into()));
    }
}

/// Files found by a scan.
pub struct Scanned<'a> {
    tree: SourceTree,
    places: Vec<Location>,
    /// Whether what has arrived is removed here.
    remove: bool,
    trouble: &'a Trouble,
}

impl<'a> Scanned<'a> {
    /// Lists what the paths name, in the order that both ends share.
    pub fn list(
        paths: &[PathBuf],
        options: &Options,
        list_checksum: Checksum,
        trouble: &'a Trouble,
    ) -> Result<(Listing, Self), TransferError> {
        let mut report = |severity: Severity, text: String| match severity {
            Severity::Info => trouble.say(TextKind::Info, &text),
            Severity::Warning => trouble.say(TextKind::Warning, &text),
            Severity::Error => trouble.say(TextKind::ErrorXfer, &format!("rsync: [sender] {text}")),
        };
        let mut sum = |file: &mut File| file_sum(file, list_checksum).map(Some);
        let hooks =
            Hooks { report: &mut report, sum: if options.checksum { Some(&mut sum) } else { None }, keep: None };
        let scan =
            scan(paths, &scan_options(options), hooks).map_err(|error| TransferError::Refused(error.to_string()))?;
        let mut entries = scan.entries;
        entries.sort_by(|(a, _), (b, _)| compare(a, b));
        let (entries, places): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let list = FileList::new(entries);
        let names = match options.numeric_ids {
            true => Default::default(),
            false => ids::names(&list, options.owner, options.group),
        };
        trouble.add(scan.io_error as i32);
        let remove = options.remove_source_files && !options.dry_run;
        Ok((Listing { list, names, io_error: scan.io_error as i32 }, Self { tree: scan.tree, places, remove, trouble }))
    }
}

impl Source for Scanned<'_> {
    fn open(&self, ndx: Ndx, entry: &FileEntry) -> io::Result<File> {
        let place = self.places.get(ndx.0 as usize).ok_or(io::ErrorKind::NotFound)?;
        *self.trouble.current.borrow_mut() = shown(&self.tree.full_path(&entry.name, *place));
        self.tree.open(&entry.name, *place)
    }

    fn finished(&self, ndx: Ndx, entry: &FileEntry) {
        let Some(place) = self.places.get(ndx.0 as usize).filter(|_| self.remove && !entry.is_dir()) else { return };
        let name = shown(&entry.name);
        let trouble = match self.tree.remove(entry, *place) {
            Ok(true) => {
                if self.trouble.says_removed {
                    self.trouble.say(TextKind::Info, &format!("sender removed {name}"));
                }
                return;
            }
            Ok(false) => format!("ERROR: Skipping sender remove for changed file: {name}"),
            Err(error) => format!("sender failed to remove {name}: {}", reason(&error)),
        };
        self.trouble.add(1);
        self.trouble.say(TextKind::ErrorXfer, &format!("rsync: [sender] {trouble}"));
    }
}

fn scan_options(options: &Options) -> ScanOptions {
    ScanOptions {
        recurse: options.recurse,
        dirs: options.dirs,
        relative: options.relative,
        one_file_system: options.one_file_system > 0,
        // Listed whatever the options say: the receiving side reports what it skips.
        links: true,
        copy_links: options.copy_links,
        copy_dirlinks: options.copy_dirlinks,
        devices: true,
        specials: true,
        ignore_missing_args: false,
    }
}
