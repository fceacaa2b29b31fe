//! Where sent files come from: scanning arguments into a file list.
//! Owns operands, recursion and opening what was listed; the order of the list and what the peer hears of it are others'
//! business. Counterpart: the sending half of rsync's `flist.c`.

mod attributes;
mod filter;
mod lister;
mod operand;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::charset::Charset;
use protocol::checksum::Sum;
use protocol::filter::{RuleSet, Scope, ScopeError};
use protocol::flist::{DirClass, FileEntry, Kind, LinkId};
use rustix::fs::{Access, AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use super::TransferError;
use super::beneath::{self, mtime, reason, shown};
use super::fake;
use super::guard::Guard;
use super::links;
use super::pinned::Pinned;
use attributes::Attributes;
pub(super) use filter::enter as enter_scope;
pub(crate) use lister::{ListError, Lister};
use operand::Operand;
use tree::Reading;
pub use tree::{Location, SourceTree};

/// Bit of a list's I/O errors: something could not be read.
pub const IOERR_GENERAL: u32 = 1;
/// Bit of a list's I/O errors: something vanished while it was listed.
pub const IOERR_VANISHED: u32 = 2;
/// Behind a name that cannot be converted, in the system's words, as stock rsync gives them.
pub(super) const NO_SUCH_LETTER: &str = " (Invalid or incomplete multibyte or wide character)";
/// Longest name the file list carries.
const NAME_MAX: usize = 4095;

/// The options that decide what is listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Descend into directories (`-r`).
    pub recurse: bool,
    /// Without [`ScanOptions::recurse`]: list directories without descending (`-d`).
    pub dirs: bool,
    /// Send whole names and their parents (`-R`).
    pub relative: bool,
    /// Stay on each argument's file system (`-x`).
    pub one_file_system: bool,
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
    /// How much is said of links that are copied.
    pub verbose: u8,
    /// Tell which names are one file (`-H`).
    pub hard_links: bool,
    /// List devices.
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
pub enum Severity {
    /// Worth knowing.
    Info,
    /// The result lacks something, as the list's I/O errors say.
    Warning,
    /// The same, in rsync's output preceded by `rsync: [sender] `.
    Error,
    /// A name that cannot be told to the peer, in rsync's output preceded by `[sender] `.
    Unconverted,
}

/// Sums one file.
pub type SumFile<'h> = &'h mut dyn FnMut(&mut File) -> io::Result<Option<Sum>>;
/// Whether to list a name, given whether it is a directory.
pub type Keep<'h> = &'h mut dyn FnMut(&[u8], bool) -> bool;

/// What the caller adds to a scan.
pub struct Hooks<'h> {
    /// Receives messages, without a line end.
    pub report: &'h mut dyn FnMut(Severity, String),
    /// Sums each regular file (`-c`); an entry whose file cannot be read has none and goes out as zeros.
    pub sum: Option<SumFile<'h>>,
    /// The caller's say on each name.
    pub keep: Option<Keep<'h>>,
    /// Filter rules of the sending side.
    pub rules: Option<&'h RuleSet>,
    /// What a daemon's module keeps to itself.
    pub guard: Option<&'h Guard>,
}

/// What ends a scan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// An argument that cannot be scanned at all; a usage error.
    #[error("found \"..\" dir in relative path: {0}")]
    DotDot(String),
    /// A folder brings filter rules that cannot be followed: nobody knows what is to be left out.
    #[error("{0}")]
    Rules(#[from] ScopeError),
}

/// What is to be listed.
pub(crate) enum Arguments<'a> {
    /// These paths.
    Paths(&'a [PathBuf]),
    /// These names beneath a folder (`--files-from`).
    Names(&'a Path, &'a [Vec<u8>]),
}

impl<'a> Arguments<'a> {
    /// The paths of a command, or the one folder of it in which a list's names lie.
    pub(crate) fn new(paths: &'a [PathBuf], names: Option<&'a [Vec<u8>]>) -> Result<Self, TransferError> {
        match (names, paths) {
            (None, paths) => Ok(Self::Paths(paths)),
            (Some(names), [folder]) => Ok(Self::Names(folder, names)),
            (Some(_), _) => Err(TransferError::Rules("Only one source folder goes with --files-from; name one".into())),
        }
    }
}

/// A walk through the arguments, one directory at a time; whoever walks decides which is next, and when.
pub(crate) struct Walk<'h> {
    options: ScanOptions,
    hooks: Hooks<'h>,
    tree: SourceTree,
    io_error: u32,
    implied: HashSet<Vec<u8>>,
    attributes: Attributes,
}

/// Something found.
pub(crate) struct Listed {
    pub(crate) entry: FileEntry,
    /// What [`SourceTree::open`] needs.
    pub(crate) at: Location,
    /// Its contents are wanted too: for [`Walk::folder`].
    pub(crate) folder: Option<Folder>,
}

/// A directory whose contents are still to be listed.
pub(crate) struct Folder {
    pub(crate) name: Vec<u8>,
    at: Location,
    file_system: u64,
    chain: Rc<Chain>,
    /// The filter rules that hold for the folder itself; its contents may bring more.
    scope: Option<Scope>,
}

/// The directories above one, so that a symlink back up is noticed.
struct Chain {
    id: (u64, u64),
    above: Option<Rc<Chain>>,
}

impl Chain {
    fn holds(&self, id: (u64, u64)) -> bool {
        let mut link = Some(self);
        while let Some(chain) = link {
            if chain.id == id {
                return true;
            }
            link = chain.above.as_deref();
        }
        false
    }
}

impl<'h> Walk<'h> {
    /// A walk that has found nothing yet.
    pub(crate) fn new(options: &ScanOptions, hooks: Hooks<'h>) -> Self {
        let tree = SourceTree::new(options);
        let attributes = Attributes::new(options);
        Walk { options: *options, hooks, tree, io_error: 0, implied: HashSet::new(), attributes }
    }

    /// Bits of trouble since the last time, [`IOERR_GENERAL`] and [`IOERR_VANISHED`].
    pub(crate) fn take_io_error(&mut self) -> u32 {
        std::mem::take(&mut self.io_error)
    }

    /// Each argument taken apart.
    fn operands<'a>(&self, arguments: &'a Arguments<'a>) -> impl Iterator<Item = Result<Operand, ScanError>> + use<'a> {
        let relative = self.options.relative;
        let (paths, (folder, names)) = match *arguments {
            Arguments::Paths(paths) => (paths, (Path::new("."), &[][..])),
            Arguments::Names(folder, names) => (&[][..], (folder, names)),
        };
        let refused = |name: &[u8]| ScanError::DotDot(shown(name));
        let paths = paths.iter().map(move |path| {
            operand::split(path, relative).ok_or_else(|| refused(path.as_os_str().as_encoded_bytes()))
        });
        let names = names.iter().map(move |name| operand::listed(folder, name, relative).ok_or_else(|| refused(name)));
        paths.chain(names)
    }

    /// Lists what the arguments name, with everything below. Trouble with a file is reported and leaves it out.
    pub(crate) fn everything(&mut self, arguments: &Arguments<'_>) -> Result<Vec<Listed>, ScanError> {
        let mut entries = Vec::new();
        for operand in self.operands(arguments) {
            let mut pending: Vec<Folder> = Vec::new();
            let mut found = self.argument(&operand?)?;
            loop {
                let first = pending.len();
                for mut listed in found {
                    pending.extend(listed.folder.take());
                    entries.push(listed);
                }
                // Neighbours in name are neighbours in the walk; the last is taken first.
                pending[first..].sort_unstable_by(|a, b| b.name.cmp(&a.name));
                let Some(folder) = pending.pop() else { break };
                found = self.folder(&folder)?;
            }
        }
        Ok(entries)
    }

    /// Lists what an argument names, with the parents that `--relative` sends, but nothing below.
    fn argument(&mut self, operand: &Operand) -> Result<Vec<Listed>, ScanError> {
        let mut found = Vec::new();
        self.operand(operand, &mut found)?;
        Ok(found)
    }

    fn operand(&mut self, operand: &Operand, found: &mut Vec<Listed>) -> Result<(), ScanError> {
        let root = operand.root.as_os_str().as_bytes();
        let barred = self.hooks.guard.is_some_and(|guard| guard.bars(root, true));
        let entered = if barred { Err(io::ErrorKind::NotFound.into()) } else { self.tree.enter(&operand.root) };
        let entered = entered.and_then(|root| match operand.listed {
            true => self.tree.admit(root).map(|()| root),
            false => Ok(root),
        });
        let root = match entered {
            Ok(root) => root,
            Err(error) => {
                match (self.missing(operand, &error, found), self.options.relative) {
                    (true, _) => {}
                    (false, true) => self.failed("link_stat", &tree::joined(&operand.base, &operand.name), &error),
                    (false, false) => self.failed("change_dir", &tree::joined(&operand.root, b"."), &error),
                }
                return Ok(());
            }
        };
        // Names in the list are far shorter than 4 GiB: they come from paths the system resolved.
        let at = Location { root, skip: u32::try_from(operand.skip).unwrap_or(u32::MAX) };
        let looked = self.tree.parent(&operand.name, at).and_then(|(dir, leaf)| {
            let stat = self.look(&dir, &leaf, &operand.name)?;
            if self.keeps(&operand.name, at, &stat) {
                return Err(Errno::NOENT.into());
            }
            Ok((dir, leaf, stat))
        });
        let (dir, leaf, stat) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                if !self.missing(operand, &error, found) {
                    self.failed("link_stat", &self.tree.full_path(&operand.name, at), &error);
                }
                return Ok(());
            }
        };
        let is_dir = beneath::kind(stat.st_mode) == Some(Kind::Dir);
        if is_dir && !self.options.recurse && !self.options.dirs {
            (self.hooks.report)(Severity::Info, format!("skipping directory {}", shown(&operand.name)));
            return Ok(());
        }
        let scope = self.hooks.rules.map(|rules| filter::top(rules, operand)).transpose()?;
        // A folder named for its contents is not itself asked for.
        if operand.leaf != b"." && self.hidden(scope.as_ref(), &operand.name, is_dir) {
            return Ok(());
        }
        self.implied_parents(operand, root, found);
        let contents = self.options.recurse || operand.leaf == b".";
        let class = if contents { DirClass::Argument } else { DirClass::NoContent };
        let folder = (is_dir && contents).then(|| {
            let chain = Rc::new(Chain { id: (stat.st_dev, stat.st_ino), above: None });
            Folder { name: operand.name.clone(), at, file_system: stat.st_dev, chain, scope }
        });
        let entry = self.entry(&dir, &leaf, operand.name.clone(), at, &stat, class);
        found.extend(entry.map(|entry| Listed { entry, at, folder }));
        Ok(())
    }

    /// Whether it is no trouble that an argument does not exist.
    fn missing(&mut self, operand: &Operand, error: &io::Error, found: &mut Vec<Listed>) -> bool {
        if error.kind() != io::ErrorKind::NotFound {
            return false;
        }
        if self.options.delete_missing_args && operand.name != b"." && self.converts(&operand.name) {
            // Never opened, so any root will do.
            let at = Location { root: u32::MAX, skip: u32::MAX };
            found.push(Listed { entry: FileEntry::new(operand.name.clone(), 0), at, folder: None });
        }
        self.options.ignore_missing_args || self.options.delete_missing_args
    }

    fn hidden(&self, scope: Option<&Scope>, name: &[u8], is_dir: bool) -> bool {
        let verdict = self.hooks.rules.zip(scope).map(|(rules, scope)| rules.excludes(scope, name, is_dir, false));
        verdict.unwrap_or(false)
    }

    /// Whether a daemon's module keeps a name to itself.
    fn keeps(&self, name: &[u8], at: Location, stat: &Stat) -> bool {
        let is_dir = beneath::kind(stat.st_mode) == Some(Kind::Dir);
        self.hooks.guard.is_some_and(|guard| guard.hides(&self.tree.full_path(name, at), is_dir))
    }

    /// Lists the parents of a `--relative` name, each once; they are real directories even where a symlink stands.
    fn implied_parents(&mut self, operand: &Operand, root: u32, found: &mut Vec<Listed>) {
        for name in &operand.implied {
            if self.implied.contains(name) || !self.converts(name) {
                continue;
            }
            let path = tree::joined(&operand.base, name);
            // Whatever is asked for beneath it has been refused already.
            if self.hooks.guard.is_some_and(|guard| guard.bars(&path, true)) {
                continue;
            }
            match beneath::stat_operand(operand.base.join(OsStr::from_bytes(name)).as_os_str().as_bytes()) {
                Ok(stat) => {
                    self.implied.insert(name.clone());
                    // Never opened, so any root will do.
                    let at = Location { root, skip: u32::MAX };
                    let mut entry = described(name.clone(), &stat, DirClass::Implied);
                    let open = |_| Ok(Pinned::lookup(beneath::open_source(Path::new(OsStr::from_bytes(&path)))?));
                    match self.attributes.fill(&mut entry, open, || path.clone()) {
                        Ok(()) => {
                            found.push(Listed { entry, at, folder: None });
                            self.tree.implied.insert(name.clone(), path);
                        }
                        Err(text) => self.left_out(text),
                    }
                }
                Err(error) => self.failed("link_stat", &path, &error),
            }
        }
    }

    /// Lists a folder's direct contents, in the order the system gives them.
    pub(crate) fn folder(&mut self, folder: &Folder) -> Result<Vec<Listed>, ScanError> {
        let mut found = Vec::new();
        let opened = self.tree.dir(&folder.name, folder.at).and_then(|dir| {
            let readable = beneath::readable(&dir)?;
            // The descriptor that lists is the one that looks, whatever happens to the name meanwhile.
            Ok((Dir::read_from(&readable)?, readable))
        });
        let (mut listing, dir) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.vanished(&folder.name, folder.at);
                return Ok(found);
            }
            Err(error) => {
                self.failed("opendir", &self.tree.full_path(&folder.name, folder.at), &error);
                return Ok(found);
            }
        };
        let scope = match (self.hooks.rules, &folder.scope) {
            (Some(rules), Some(above)) => Some(filter::enter(rules, above, &folder.name, &dir)?),
            _ => None,
        };
        while let Some(read) = listing.read() {
            match read {
                Ok(child) => match child.file_name().to_bytes() {
                    b"." | b".." => {}
                    leaf => found.extend(self.child(&dir, leaf, folder, scope.as_ref())),
                },
                Err(error) => {
                    let path = self.tree.full_path(&folder.name, folder.at);
                    self.io_error |= IOERR_GENERAL;
                    let text = format!("readdir(\"{}\"): {}", shown(&path), reason(&error.into()));
                    (self.hooks.report)(Severity::Error, text);
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Lists one name in a folder.
    fn child(&mut self, dir: &OwnedFd, leaf: &[u8], folder: &Folder, scope: Option<&Scope>) -> Option<Listed> {
        let name = if folder.name == b"." { leaf.to_vec() } else { [&folder.name, leaf].join(&b'/') };
        if name.len() > NAME_MAX {
            self.io_error |= IOERR_GENERAL;
            let text = format!("File name too long to send, left out; shorten it: \"{}\"", shown(&name));
            (self.hooks.report)(Severity::Error, text);
            return None;
        }
        let stat = match self.look(dir, leaf, &name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let dangling = self.follows_links() && rustix::fs::statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW).is_ok();
                if dangling {
                    let path = self.tree.full_path(&name, folder.at);
                    self.io_error |= IOERR_GENERAL;
                    (self.hooks.report)(Severity::Warning, format!("symlink has no referent: \"{}\"", shown(&path)));
                } else {
                    self.vanished(&name, folder.at);
                }
                return None;
            }
            Err(error) => {
                self.failed("link_stat", &self.tree.full_path(&name, folder.at), &error);
                return None;
            }
        };
        let is_dir = beneath::kind(stat.st_mode) == Some(Kind::Dir);
        let stays = !self.options.one_file_system || stat.st_dev == folder.file_system;
        let descends = is_dir && self.options.recurse && stays;
        let class = if is_dir && !descends { DirClass::NoContent } else { DirClass::Content };
        let at = folder.at;
        if self.hidden(scope, &name, is_dir) || self.keeps(&name, at, &stat) {
            return None;
        }
        let readable = || rustix::fs::accessat(dir, leaf, Access::READ_OK, AtFlags::EACCESS).is_ok();
        let kind = beneath::kind(stat.st_mode);
        if self.hooks.guard.is_some_and(|guard| guard.readable_only) && kind != Some(Kind::Symlink) && !readable() {
            return None;
        }
        let entry = self.entry(dir, leaf, name.clone(), at, &stat, class)?;
        if !descends {
            return Some(Listed { entry, at, folder: None });
        }
        let id = (stat.st_dev, stat.st_ino);
        if folder.chain.holds(id) {
            self.failed("opendir", &self.tree.full_path(&name, at), &Errno::LOOP.into());
            return Some(Listed { entry, at, folder: None });
        }
        let chain = Rc::new(Chain { id, above: Some(Rc::clone(&folder.chain)) });
        let below = Folder { name, at, file_system: folder.file_system, chain, scope: scope.cloned() };
        Some(Listed { entry, at, folder: Some(below) })
    }

    /// The entry for a name, if the options and filters want it.
    fn entry(
        &mut self,
        dir: &OwnedFd,
        leaf: &[u8],
        name: Vec<u8>,
        at: Location,
        stat: &Stat,
        class: DirClass,
    ) -> Option<FileEntry> {
        let kind = beneath::kind(stat.st_mode);
        if let Some(keep) = self.hooks.keep.as_mut().filter(|_| name != b".")
            && !keep(&name, kind == Some(Kind::Dir))
        {
            return None;
        }
        let wanted = match kind {
            Some(Kind::File | Kind::Dir) => true,
            Some(Kind::Symlink) => self.options.links,
            Some(Kind::Device) => self.options.devices,
            Some(Kind::Special) => self.options.specials,
            None => false,
        };
        if !self.converts(&name) {
            (self.hooks.report)(
                Severity::Unconverted,
                format!("cannot convert filename: {}{NO_SUCH_LETTER}", shown(&name)),
            );
            self.io_error |= IOERR_GENERAL;
            return None;
        }
        if !wanted {
            (self.hooks.report)(Severity::Info, format!("skipping non-regular file \"{}\"", shown(&name)));
            return None;
        }
        let mut entry = described(name, stat, class);
        if self.options.hard_links && stat.st_nlink > 1 && kind != Some(Kind::Dir) {
            entry.link = Some(LinkId { dev: stat.st_dev, ino: stat.st_ino });
        }
        match kind {
            Some(Kind::Symlink) => match self.target(dir, leaf) {
                Ok(target) if !self.converts(&target) => {
                    let path = self.tree.full_path(&entry.name, at);
                    let text = format!("cannot convert symlink data for: \"{}\"{NO_SUCH_LETTER}", shown(&path));
                    (self.hooks.report)(Severity::Unconverted, text);
                    self.io_error |= IOERR_GENERAL;
                    return None;
                }
                Ok(target) => {
                    entry.len = target.len() as u64;
                    entry.target = Some(target);
                }
                Err(error) => {
                    self.failed("readlink", &self.tree.full_path(&entry.name, at), &error);
                    return None;
                }
            },
            Some(Kind::File) => {
                if let Some(sum) = &mut self.hooks.sum {
                    let opened = match stands_for_device(stat) && stat.st_size == 0 {
                        // One without a length is not read, and may have no end.
                        true => File::open("/dev/null"),
                        false => tree::open_file(dir, leaf, Reading::new(&self.options)),
                    };
                    entry.sum = opened.and_then(|mut file| sum(&mut file)).unwrap_or(None);
                }
            }
            _ => {}
        }
        let behind = self.follows_links() || (self.options.copy_dirlinks && kind == Some(Kind::Dir));
        let follow = behind && kind != Some(Kind::Symlink);
        let stands = |kind| if stands_for_device(stat) { Kind::Device } else { kind };
        let open = |kind| match follow {
            true => Pinned::open_following(dir, leaf, stands(kind)),
            false => Pinned::open(dir, leaf, stands(kind)),
        };
        let (tree, name) = (&self.tree, entry.name.clone());
        if let Err(text) = self.attributes.fill(&mut entry, open, || tree.full_path(&name, at)) {
            self.left_out(text);
            return None;
        }
        Some(entry)
    }

    /// Whether a name can be told to the peer.
    fn converts(&self, name: &[u8]) -> bool {
        self.options.charset.is_none_or(|set| set.to_utf8(name).is_some_and(|name| name.len() <= NAME_MAX))
    }

    fn follows_links(&self) -> bool {
        self.options.copy_links || self.options.copy_unsafe_links
    }

    fn target(&self, dir: &OwnedFd, leaf: &[u8]) -> io::Result<Vec<u8>> {
        if self.options.fake_super {
            match fake::target(dir, leaf) {
                // It is a symlink in truth, made by somebody else.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {}
                target => return target,
            }
        }
        let target = rustix::fs::readlinkat(dir, leaf, Vec::new())?.into_bytes();
        Ok(if self.options.unmunge_links { links::unmunged(target) } else { target })
    }

    fn left_out(&mut self, text: String) {
        self.io_error |= IOERR_GENERAL;
        (self.hooks.report)(Severity::Error, text);
    }

    /// What stands at a name, or behind it where the options follow symlinks.
    fn look(&mut self, dir: &OwnedFd, leaf: &[u8], name: &[u8]) -> io::Result<Stat> {
        let mut stat = self.look_plainly(dir, leaf)?;
        if self.options.copy_unsafe_links && beneath::kind(stat.st_mode) == Some(Kind::Symlink) {
            let target = self.target(dir, leaf)?;
            if links::is_unsafe(&target, name) {
                if self.options.verbose > 0 {
                    let text = format!("copying unsafe symlink \"{}\" -> \"{}\"", shown(name), shown(&target));
                    (self.hooks.report)(Severity::Info, text);
                }
                stat = beneath::stat_following(dir, leaf)?;
            }
        }
        let is_device = beneath::kind(stat.st_mode) == Some(Kind::Device);
        if self.options.fake_super {
            attributes::disguise(dir, leaf, &mut stat)?;
        }
        if is_device && self.options.copy_devices {
            let len = tree::device_length(dir, leaf, Reading::new(&self.options), &stat)?;
            stat.st_mode = FileType::RegularFile.as_raw_mode() | (stat.st_mode & 0o7777);
            stat.st_size = i64::try_from(len).unwrap_or(i64::MAX);
            // When it was written to, a device does not say.
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (stat.st_mtime, stat.st_mtime_nsec) = (since.as_secs() as _, 0);
        }
        Ok(stat)
    }

    fn look_plainly(&self, dir: &OwnedFd, leaf: &[u8]) -> io::Result<Stat> {
        if self.options.copy_links {
            return beneath::stat_following(dir, leaf);
        }
        let stat = rustix::fs::statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?;
        if self.options.copy_dirlinks && beneath::kind(stat.st_mode) == Some(Kind::Symlink) {
            let behind = beneath::stat_following(dir, leaf).ok();
            return Ok(behind.filter(|stat| beneath::kind(stat.st_mode) == Some(Kind::Dir)).unwrap_or(stat));
        }
        Ok(stat)
    }

    fn failed(&mut self, action: &str, path: &[u8], error: &io::Error) {
        self.io_error |= IOERR_GENERAL;
        (self.hooks.report)(Severity::Error, format!("{action} \"{}\" failed: {}", shown(path), reason(error)));
    }

    fn vanished(&mut self, name: &[u8], at: Location) {
        self.io_error |= IOERR_VANISHED;
        let path = self.tree.full_path(name, at);
        (self.hooks.report)(Severity::Warning, format!("file has vanished: \"{}\"", shown(&path)));
    }
}

/// Whether a regular file is the device that `--copy-devices` made it of.
fn stands_for_device(stat: &Stat) -> bool {
    stat.st_rdev != 0 && beneath::kind(stat.st_mode) == Some(Kind::File)
}

/// An entry as `stat` describes it, without a target or sum.
fn described(name: Vec<u8>, stat: &Stat, class: DirClass) -> FileEntry {
    let (mtime, nsec) = mtime(stat);
    let kind = beneath::kind(stat.st_mode);
    let rdev = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    FileEntry {
        name,
        mode: stat.st_mode,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        mtime,
        nsec,
        uid: stat.st_uid,
        gid: stat.st_gid,
        target: None,
        rdev: (kind == Some(Kind::Device)).then(rdev),
        sum: None,
        atime: stat.st_atime,
        access_acl: None,
        default_acl: None,
        xattrs: None,
        dir_class: if kind == Some(Kind::Dir) { class } else { DirClass::Content },
        link: None,
    }
}
