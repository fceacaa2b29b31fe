//! What is to be listed, and how.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use protocol::charset::Charset;
use protocol::checksum::Sum;
use protocol::filter::RuleSet;

use crate::transfer::guard::Guard;
use crate::transfer::{Names, TransferError};

/// The options that decide what is listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScanOptions {
    /// Descend into directories (`-r`).
    pub recurse: bool,
    /// Without [`ScanOptions::recurse`]: list directories without descending (`-d`).
    pub dirs: bool,
    /// Send whole names and their parents (`-R`).
    pub relative: bool,
    /// Stay on each argument's file system (`-x`); 2: list no folder on which another one is mounted.
    pub one_file_system: u8,
    /// Whether mount points that are not listed are told.
    pub tells_mounts: bool,
    /// Whether symlinks that lead out of the tree and are followed are told.
    pub tells_unsafe_links: bool,
    /// Whether it is told which rule hides or shows a name.
    pub tells_rules: bool,
    /// List symlinks as symlinks (`-l`).
    pub links: bool,
    /// List what every symlink points to (`-L`).
    pub copy_links: bool,
    /// List directories that symlinks point to (`-k`).
    pub copy_dirlinks: bool,
    /// List what symlinks point to that lead out of the tree (`--copy-unsafe-links`).
    pub copy_unsafe_links: bool,
    /// Undo the munging of symlinks.
    pub unmunge_links: bool,
    /// Tell when files were read last (`-U`).
    pub atimes: bool,
    /// Tell which names are one file (`-H`).
    pub hard_links: bool,
    pub devices: bool,
    /// List devices as files that hold what the devices do (`--copy-devices`).
    pub copy_devices: bool,
    /// List fifos and sockets.
    pub specials: bool,
    /// Read ACLs (`-A`).
    pub acls: bool,
    /// Read extended attributes (`-X`, 2 for `-XX`).
    pub xattrs: u8,
    /// Files are what their extended attributes claim (`--fake-super`).
    pub fake_super: bool,
    /// Do as root does, or as others do, whoever we are (`--super`).
    pub super_user: Option<bool>,
    /// Leave access times alone (`--open-noatime`).
    pub open_noatime: bool,
    /// Say nothing of arguments that do not exist.
    pub ignore_missing_args: bool,
    /// List arguments that do not exist as such, so that the receiving side deletes what it has of them.
    pub delete_missing_args: bool,
    /// What names and targets of symlinks must have a meaning in (`--iconv`).
    pub charset: Option<Charset>,
}

/// How a message is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Worth knowing.
    Info,
    /// The result lacks something, as the list's I/O errors say.
    Warning,
    /// The same, in rsync's output preceded by `rsync: [sender] `.
    Error,
    /// A name that cannot be told to the peer, in rsync's output preceded by `[sender] `.
    Unconverted,
}

pub(crate) type SumFile<'h> = Box<dyn FnMut(&mut File) -> io::Result<Option<Sum>> + 'h>;
/// Whether to list a name, given whether it is a directory.
pub(crate) type Keep<'h> = Box<dyn FnMut(&[u8], bool) -> bool + 'h>;

/// What the caller adds to a scan.
pub(crate) struct Hooks<'h> {
    /// Receives messages, without a line end.
    pub report: Box<dyn FnMut(Severity, String) + 'h>,
    /// Sums each regular file (`-c`); an entry whose file cannot be read has none and goes out as zeros.
    pub sum: Option<SumFile<'h>>,
    /// The caller's say on each name.
    pub keep: Option<Keep<'h>>,
    /// Filter rules of the sending side.
    pub rules: Option<&'h RuleSet>,
    /// What a daemon's module keeps to itself.
    pub guard: Option<&'h Guard>,
}

impl Default for Hooks<'_> {
    fn default() -> Self {
        Self { report: Box::new(|_, _| ()), sum: None, keep: None, rules: None, guard: None }
    }
}

/// What is to be listed.
pub(crate) enum Arguments<'a> {
    Paths(&'a [PathBuf]),
    /// These names beneath a folder (`--files-from`).
    Names(&'a Path, Box<Names<'a>>),
}

impl<'a> Arguments<'a> {
    /// The paths of a command, or the one folder of it in which a list's names lie.
    pub(crate) fn new(paths: &'a [PathBuf], names: Option<Box<Names<'a>>>) -> Result<Self, TransferError> {
        match (names, paths) {
            (None, paths) => Ok(Self::Paths(paths)),
            (Some(names), [folder]) => Ok(Self::Names(folder, names)),
            (Some(_), _) => Err(TransferError::Rules("Only one source folder goes with --files-from; name one".into())),
        }
    }
}
