//! Where sent files come from: scanning arguments into a file list.
//! Owns operands, recursion and opening what was listed; the order of the list and what the peer hears of it are others'
//! business. Counterpart: the sending half of rsync's `flist.c`.

mod attributes;
mod entry;
mod filter;
mod lister;
mod operand;
mod options;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use protocol::filter::{ParentDir, Scope, ScopeError};
use protocol::flist::{DirClass, FileEntry, Kind, compare};
use protocol::mux::{IO_GENERAL, IO_VANISHED};
use rustix::fs::{Access, AtFlags, Dir, Stat};
use rustix::io::Errno;

use super::TransferError;
use crate::disk::beneath;
use crate::disk::pinned::Pinned;
use crate::disk::{reason, shown};
use attributes::AttributeReader;
use entry::{Inspected, described};
pub(super) use filter::enter as enter_scope;
pub(crate) use lister::{ListError, Lister};
use operand::Operand;
pub(crate) use options::Arguments;
pub(crate) use options::{Hooks, ScanOptions, Severity, SumFile};
pub(crate) use tree::{Location, SourceTree};

/// Behind a name that cannot be converted, in the system's words, as stock rsync gives them.
pub(super) const NO_SUCH_LETTER: &str = " (Invalid or incomplete multibyte or wide character)";
/// Longest name the file list carries.
const NAME_MAX: usize = 4095;

/// What ends a scan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// An argument that cannot be scanned at all; a usage error.
    #[error("found \"..\" dir in relative path: {0}")]
    DotDot(String),
    /// The list of names cannot be had.
    #[error("{0}")]
    Names(Box<TransferError>),
    /// A folder brings filter rules that cannot be followed: nobody knows what is to be left out.
    #[error("{0}")]
    Rules(#[from] ScopeError),
}

/// Arguments that are listed again though they were named before, as stock lists and counts them all. Who names one again and
/// again makes nothing grow beyond that.
const REPEATS_MOST: usize = 1 << 14;

/// A walk through the arguments, one directory at a time; whoever walks decides which is next, and when.
pub(crate) struct Walk<'h> {
    options: ScanOptions,
    hooks: Hooks<'h>,
    tree: SourceTree,
    io_error: i32,
    implied: HashSet<Vec<u8>>,
    /// Arguments that were found, and how many were named again.
    asked: HashSet<Vec<u8>>,
    repeats: usize,
    attributes: AttributeReader,
}

/// Something found.
pub(crate) struct Listed {
    pub(crate) entry: FileEntry,
    /// What [`SourceTree::open`] needs.
    pub(crate) at: Location,
    /// Its contents are wanted too: for [`Walk::folder`].
    pub(crate) folder: Option<Box<Folder>>,
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
        let attributes = AttributeReader::new(options, hooks.rules);
        Walk {
            options: *options,
            hooks,
            tree,
            io_error: 0,
            implied: HashSet::new(),
            asked: HashSet::new(),
            repeats: 0,
            attributes,
        }
    }

    /// Bits of trouble since the last time, [`IO_GENERAL`] and [`IO_VANISHED`].
    pub(crate) fn take_io_error(&mut self) -> i32 {
        std::mem::take(&mut self.io_error)
    }

    /// Each argument taken apart.
    fn operands<'a>(&self, arguments: Arguments<'a>) -> impl Iterator<Item = Result<Operand, ScanError>> + use<'a> {
        let relative = self.options.relative;
        let (paths, (folder, names)) = match arguments {
            Arguments::Paths(paths) => (paths, (Path::new("."), None)),
            Arguments::Names(folder, names) => (&[][..], (folder, Some(names))),
        };
        let refused = |name: &[u8]| ScanError::DotDot(shown(name));
        let paths = paths.iter().map(move |path| {
            operand::split(path, relative).ok_or_else(|| refused(path.as_os_str().as_encoded_bytes()))
        });
        let names = names.into_iter().flatten().map(move |name| {
            let name = name.map_err(|error| ScanError::Names(Box::new(error)))?;
            operand::listed(folder, &name, relative).ok_or_else(|| refused(&name))
        });
        paths.chain(names)
    }

    /// Lists what the arguments name, with everything below; beside each entry where it is. Trouble with a file is
    /// reported and leaves it out.
    pub(crate) fn everything(
        &mut self,
        arguments: Arguments<'_>,
    ) -> Result<(Vec<FileEntry>, Vec<Location>), ScanError> {
        let (mut entries, mut places) = (Vec::new(), Vec::new());
        for operand in self.operands(arguments) {
            let mut pending: Vec<Listed> = Vec::new();
            let mut found = self.argument(&operand?)?;
            loop {
                // In the order of the list, in which a directory stands right before what it holds.
                found.sort_by(|a, b| compare(&a.entry, &b.entry));
                let first = pending.len();
                for listed in found {
                    if listed.entry.is_dir() {
                        pending.push(listed);
                    } else {
                        entries.push(listed.entry);
                        places.push(listed.at);
                    }
                }
                pending[first..].reverse();
                let Some(Listed { entry, at, folder }) = pending.pop() else { break };
                entries.push(entry);
                places.push(at);
                found = folder.map(|folder| self.folder(&folder)).transpose()?.unwrap_or_default();
            }
        }
        Ok((entries, places))
    }

    /// Lists what an argument names, with the parents that `--relative` sends, but nothing below.
    fn argument(&mut self, operand: &Operand) -> Result<Vec<Listed>, ScanError> {
        let mut found = Vec::new();
        let place = [operand.root.as_os_str().as_bytes(), &operand.leaf, &operand.name].join(&0);
        if self.asked.contains(&place) {
            if self.repeats >= REPEATS_MOST {
                return Ok(found);
            }
            self.repeats += 1;
        }
        self.operand(operand, &mut found)?;
        if !found.is_empty() {
            self.asked.insert(place);
        }
        Ok(found)
    }

    fn operand(&mut self, operand: &Operand, found: &mut Vec<Listed>) -> Result<(), ScanError> {
        let root = operand.root.as_os_str().as_bytes();
        let barred = self.hooks.guard.is_some_and(|guard| guard.bars(root, true));
        let entered = if barred { Err(Errno::NOENT.into()) } else { self.tree.enter(&operand.root) };
        let entered = entered.and_then(|root| match operand.listed {
            true => self.tree.admit(root).map(|()| root),
            false => Ok(root),
        });
        let root = match entered {
            Ok(root) => root,
            Err(error) => {
                if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound)
                    && let Some(operand) = operand.itself()
                {
                    return self.operand(&operand, found);
                }
                self.not_entered(operand, &error, found);
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
                    self.unnamed(&self.tree.full_path(&operand.name, at), &error);
                }
                return Ok(());
            }
        };
        let is_dir = beneath::kind(stat.st_mode) == Some(Kind::Dir);
        if is_dir && !self.options.recurse && !self.options.dirs {
            (self.hooks.report)(Severity::Info, format!("skipping directory {}", shown(&operand.name)));
            return Ok(());
        }
        let scopes = self.hooks.rules.map(|rules| filter::top(rules, operand, self.hooks.guard)).transpose()?;
        // A folder named for its contents is not itself asked for.
        let mut hidden = |scope: Option<&Scope>| operand.name != b"." && self.hidden(scope, &operand.name, is_dir);
        if hidden(scopes.as_ref().map(|scopes| &scopes.asked)) {
            return Ok(());
        }
        let hidden = hidden(scopes.as_ref().and_then(|scopes| scopes.beneath_implied.as_ref()));
        self.implied_parents(operand, root, found);
        if hidden {
            return Ok(());
        }
        let scope = scopes.map(|scopes| scopes.inside);
        let contents = self.options.recurse || operand.leaf == b".";
        let class = if contents { DirClass::Argument } else { DirClass::NoContent };
        let holding = scope.clone();
        let folder = (is_dir && contents).then(|| {
            let chain = Rc::new(Chain { id: (stat.st_dev, stat.st_ino), above: None });
            Box::new(Folder { name: operand.name.clone(), at, file_system: stat.st_dev, chain, scope })
        });
        if let Some((rules, scope)) = self.hooks.rules.zip(holding.as_ref()) {
            self.attributes.follow(rules.attributes_in(scope));
        }
        let entry = self.entry(&Inspected { dir: &dir, leaf: &leaf, at, stat: &stat }, operand.name.clone(), class);
        found.extend(entry.map(|entry| Listed { entry, at, folder }));
        Ok(())
    }

    /// Says that the folder that an argument is in cannot be entered. That is no missing argument: nothing is known of what
    /// was in it, so what was asked to be deleted for it stays. With full names it is the part behind the base that is not
    /// there; of such an argument nothing is said, and as with stock, a name of a list stands for itself where no folder is gone through.
    fn not_entered(&mut self, operand: &Operand, error: &io::Error, found: &mut Vec<Listed>) {
        let base = operand.base.as_os_str().as_bytes();
        if !self.options.relative || beneath::stat_operand(base).is_err() {
            let folder = if self.options.relative { &operand.base } else { &operand.root };
            return self.failed("change_dir", &tree::joined(folder, b"."), error);
        }
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        if is_missing && self.options.delete_missing_args {
            self.io_error |= IO_VANISHED;
            let path = shown(&tree::joined(&operand.base, &operand.name)).to_string();
            (self.hooks.report)(Severity::Warning, format!("the folder of \"{path}\" has vanished"));
        }
        let by_itself = operand.listed && !self.options.recurse;
        let said = is_missing && self.options.delete_missing_args && !by_itself;
        if !said && !self.missing(operand, error, found) {
            self.unnamed(&tree::joined(&operand.base, &operand.name), error);
        }
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

    fn hidden(&mut self, scope: Option<&Scope>, name: &[u8], is_dir: bool) -> bool {
        let verdict =
            self.hooks.rules.zip(scope).and_then(|(rules, scope)| rules.verdict(scope, name, is_dir, ParentDir::Kept));
        let Some(verdict) = verdict else { return false };
        if self.options.tells_rules {
            (self.hooks.report)(Severity::Info, verdict.said(&shown(name), is_dir));
        }
        verdict.excludes()
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
            (Some(rules), Some(above)) => {
                let path = self.hooks.guard.map(|guard| (guard, self.tree.full_path(&folder.name, folder.at)));
                let guard = path.as_ref().map(|(guard, path)| (*guard, &path[..]));
                Some(filter::enter(rules, above, &folder.name, &dir, guard)?)
            }
            _ => None,
        };
        if let Some((rules, scope)) = self.hooks.rules.zip(scope.as_ref()) {
            self.attributes.follow(rules.attributes_in(scope));
        }
        while let Some(read) = listing.read() {
            match read {
                Ok(child) => match child.file_name().to_bytes() {
                    b"." | b".." => {}
                    leaf => found.extend(self.child(&dir, leaf, folder, scope.as_ref())),
                },
                Err(error) => {
                    let path = self.tree.full_path(&folder.name, folder.at);
                    self.io_error |= IO_GENERAL;
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
            self.io_error |= IO_GENERAL;
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
                    self.io_error |= IO_GENERAL;
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
        let stays = self.options.one_file_system == 0 || stat.st_dev == folder.file_system;
        let descends = is_dir && self.options.recurse && stays;
        let class = if is_dir && !descends { DirClass::NoContent } else { DirClass::Content };
        let at = folder.at;
        if self.hidden(scope, &name, is_dir) || self.keeps(&name, at, &stat) {
            return None;
        }
        if is_dir && !stays && self.options.one_file_system > 1 {
            if self.options.tells_mounts {
                (self.hooks.report)(Severity::Info, format!("[sender] skipping mount-point dir {}", shown(&name)));
            }
            return None;
        }
        let readable = || rustix::fs::accessat(dir, leaf, Access::READ_OK, AtFlags::EACCESS).is_ok();
        let kind = beneath::kind(stat.st_mode);
        if self.hooks.guard.is_some_and(|guard| guard.readable_only) && kind != Some(Kind::Symlink) && !readable() {
            return None;
        }
        let entry = self.entry(&Inspected { dir, leaf, at, stat: &stat }, name, class)?;
        if !descends {
            return Some(Listed { entry, at, folder: None });
        }
        let id = (stat.st_dev, stat.st_ino);
        if folder.chain.holds(id) {
            self.failed("opendir", &self.tree.full_path(&entry.name, at), &Errno::LOOP.into());
            return Some(Listed { entry, at, folder: None });
        }
        let chain = Rc::new(Chain { id, above: Some(Rc::clone(&folder.chain)) });
        let below =
            Folder { name: entry.name.clone(), at, file_system: folder.file_system, chain, scope: scope.cloned() };
        Some(Listed { entry, at, folder: Some(Box::new(below)) })
    }

    /// An argument cannot be looked at. Where it does not exist nothing that does is left out, so nothing keeps the other
    /// side from deleting.
    fn unnamed(&mut self, path: &[u8], error: &io::Error) {
        let before = self.io_error;
        self.failed("link_stat", path, error);
        if error.kind() == io::ErrorKind::NotFound {
            self.io_error = before;
        }
    }

    fn failed(&mut self, action: &str, path: &[u8], error: &io::Error) {
        self.io_error |= IO_GENERAL;
        (self.hooks.report)(Severity::Error, format!("{action} \"{}\" failed: {}", shown(path), reason(error)));
    }

    fn vanished(&mut self, name: &[u8], at: Location) {
        self.io_error |= IO_VANISHED;
        let path = self.tree.full_path(name, at);
        (self.hooks.report)(Severity::Warning, format!("file has vanished: \"{}\"", shown(&path)));
    }
}
