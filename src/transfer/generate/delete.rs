//! Deletes what the sender does not have. Counterpart: rsync's `delete.c` and `delete_in_dir`.
//!
//! Works on one directory at a time, given which names of it are in the file list; so it does not matter whether the
//! list came at once or directory by directory.

use crate::disk::shown;
use crate::transfer::TransferError;
use crate::transfer::dest::{Dest, DestError, Found, OpenFolder};
use crate::transfer::guard::Guard;
use crate::transfer::source::enter_scope;
use crate::transfer::target::Target;
use protocol::args::{Debug, DeleteWhen, Info, Options};
use protocol::filter::{ParentDir, RuleSet, Scope};
use protocol::flist::{Kind, Sorting};
use protocol::generator::DeleteCounts;
use protocol::mux::{IO_GENERAL, Message, TextKind};
use rustix::io::Errno;
use std::cmp::Reverse;

/// What a session deletes, and has deleted.
pub(in crate::transfer) struct Deletion<'a> {
    options: &'a Options,
    /// How names sort: what would come last goes first.
    sorting: Sorting,
    /// When `--delete` is due.
    default: DeleteWhen,
    rules: Option<&'a RuleSet>,
    /// What a daemon's module keeps to itself.
    guard: Option<&'a Guard>,
    /// What holds in each directory from the root to the one looked at last.
    scopes: Vec<(Vec<u8>, Scope)>,
    top: Option<Scope>,
    counts: DeleteCounts,
    /// Deletions that the limit forbade.
    skipped: u64,
    /// Found, to be deleted at the end (`--delete-delay`).
    later: Vec<(Vec<u8>, Found)>,
    told_of_errors: bool,
    /// What the user is to hear, in order; [`Message::Deleted`] names what is gone.
    told: Vec<Message>,
    failed: u64,
}

/// What became of something that was to go.
#[derive(PartialEq, Eq)]
enum Fate {
    Gone,
    /// A directory that still holds something.
    Full,
    Kept,
}

impl<'a> Deletion<'a> {
    /// Nothing deleted yet. `root` is the absolute path of the destination, for rules about absolute paths.
    pub(in crate::transfer) fn new(
        options: &'a Options,
        rules: Option<&'a RuleSet>,
        target: &'a Target,
        version: u8,
    ) -> Self {
        // What old peers call the default.
        let default = if version < 30 { DeleteWhen::Before } else { DeleteWhen::During };
        Self {
            options,
            sorting: Sorting::of(version),
            default,
            rules,
            scopes: Vec::new(),
            top: rules.map(|rules| rules.top(&target.root)),
            guard: target.guard.as_ref(),
            counts: DeleteCounts::default(),
            skipped: 0,
            later: Vec::new(),
            told_of_errors: false,
            told: Vec::new(),
            failed: 0,
        }
    }

    /// When deletions are due; `None` without `--delete`.
    pub(in crate::transfer) fn when(&self) -> Option<DeleteWhen> {
        // Without either, directories are not compared at all.
        let compares = self.options.recurse || self.options.dirs;
        let when = self.options.delete.or(self.options.delete_excluded.then_some(DeleteWhen::Default))?;
        compares.then_some(if when == DeleteWhen::Default { self.default } else { when })
    }

    /// Deletes what stands in a directory and is not in the list; with `--delete-delay` only remembers it.
    /// `holds` tells whether the list has a name; `io_error` are the sender's bits so far.
    pub(in crate::transfer) fn in_dir(
        &mut self,
        dest: &Dest,
        name: &[u8],
        holds: &dyn Fn(&[u8]) -> bool,
        io_error: i32,
    ) -> Result<(), TransferError> {
        if io_error & IO_GENERAL != 0 && !self.options.ignore_errors {
            if !std::mem::replace(&mut self.told_of_errors, true) {
                self.say(TextKind::Info, "IO error encountered -- skipping file deletion".into());
            }
            return Ok(());
        }
        let mut folder = match dest.list(name) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.fail(&error);
                return Ok(());
            }
        };
        let scope = self.scope(dest, name, &folder)?;
        last_first(&mut folder, self.sorting);
        let locked = if self.options.dry_run || self.at_limit() { None } else { folder.unlock() };
        let done = self.surplus_of(dest, name, &folder, scope.as_ref(), holds);
        folder.lock(locked);
        done
    }

    /// Deletes what an open directory holds and the list does not.
    fn surplus_of(
        &mut self,
        dest: &Dest,
        name: &[u8],
        folder: &OpenFolder,
        scope: Option<&Scope>,
        holds: &dyn Fn(&[u8]) -> bool,
    ) -> Result<(), TransferError> {
        for (leaf, found) in &folder.entries {
            let full = joined(name, leaf);
            let is_dir = found.kind() == Some(Kind::Dir);
            // Who wants to hear of rules hears of what the list has, too.
            let is_told_safe = self.tells_rules() && self.is_safe(scope, &full, is_dir, ParentDir::Kept);
            if is_told_safe
                || holds(&full)
                || (!self.tells_rules() && self.is_safe(scope, &full, is_dir, ParentDir::Kept))
            {
                continue;
            }
            if self.options.one_file_system > 0 && is_dir && found.dev != folder.dev {
                if self.options.level(Info::Mount) > 0 {
                    self.say(TextKind::Info, format!("cannot delete mount point: {}", shown(&full)));
                }
            } else if self.when() == Some(DeleteWhen::Delay) {
                self.later.push((full, *found));
            } else {
                self.item(dest, &full, found, scope, 0)?;
            }
        }
        Ok(())
    }

    /// Deletes what `--delete-delay` remembered.
    pub(in crate::transfer) fn delayed(&mut self, dest: &Dest) -> Result<(), TransferError> {
        for (name, found) in std::mem::take(&mut self.later) {
            let scope = self.scope_of_parent(dest, &name)?;
            self.item(dest, &name, &found, scope.as_ref(), 0)?;
        }
        Ok(())
    }

    /// Removes a directory that stands where something else is to come; a full one only with `--force` or `--delete`.
    /// False when it is still there.
    pub(in crate::transfer) fn clear_way(
        &mut self,
        dest: &Dest,
        name: &[u8],
        what: &str,
    ) -> Result<bool, TransferError> {
        let recursive = self.options.force || self.when().is_some();
        if recursive && !self.options.dry_run {
            dest.open_to_owner(name);
        }
        let empty = match dest.list(name) {
            Ok(Some(folder)) if recursive => {
                let scope = self.scope_of_parent(dest, name)?;
                self.contents(dest, name, folder, scope.as_ref(), 0)?
            }
            Ok(Some(folder)) => folder.entries.is_empty(),
            _ => true,
        };
        let fate = match (empty, self.options.dry_run) {
            (false, _) => Fate::Full,
            (true, true) => Fate::Gone,
            (true, false) => match dest.remove_dir(name) {
                Ok(_) => Fate::Gone,
                // Backups of what it held stay in it.
                Err(error) if error.source.raw_os_error() == Some(Errno::NOTEMPTY.raw_os_error()) => Fate::Full,
                Err(error) => {
                    self.fail(&error);
                    Fate::Kept
                }
            },
        };
        if fate == Fate::Full {
            self.say(TextKind::Info, format!("cannot delete non-empty directory: {}", shown(name)));
        }
        if fate != Fate::Gone {
            self.failed += 1;
            let text = format!("could not make way for new {what}: {}", shown(name));
            self.say(TextKind::ErrorXfer, text);
        }
        Ok(fate == Fate::Gone)
    }

    /// Deletes what stands where an argument of the sender is missing (`--delete-missing-args`).
    pub(in crate::transfer) fn missing(&mut self, dest: &Dest, name: &[u8]) -> Result<(), TransferError> {
        match dest.stat(name) {
            Ok(Some(found)) => {
                let recursive = self.options.force || self.when().is_some();
                let empty = |folder: Option<OpenFolder>| folder.is_none_or(|folder| folder.entries.is_empty());
                if found.kind() == Some(Kind::Dir) && !recursive && !dest.list(name).map(empty).unwrap_or(true) {
                    self.say(TextKind::Info, format!("cannot delete non-empty directory: {}", shown(name)));
                    return Ok(());
                }
                let scope = self.scope_of_parent(dest, name)?;
                self.item(dest, name, &found, scope.as_ref(), 0)?;
            }
            Ok(None) => {}
            Err(error) => self.fail(&error),
        }
        Ok(())
    }

    /// How much was deleted.
    pub(in crate::transfer) fn counts(&self) -> DeleteCounts {
        self.counts
    }

    /// Says what the limit prevented; true when it prevented anything.
    pub(in crate::transfer) fn tell_limit(&mut self) -> bool {
        if self.skipped > 0 {
            let text = format!("Deletions stopped due to --max-delete limit ({} skipped)", self.skipped);
            self.say(TextKind::Warning, text);
        }
        self.skipped > 0
    }

    /// What the user is to hear since the last time, and how many things failed.
    pub(in crate::transfer) fn take_told(&mut self) -> (Vec<Message>, u64) {
        (std::mem::take(&mut self.told), std::mem::take(&mut self.failed))
    }

    /// Deletes one thing, whatever it holds.
    fn item(
        &mut self,
        dest: &Dest,
        name: &[u8],
        found: &Found,
        scope: Option<&Scope>,
        depth: u32,
    ) -> Result<Fate, TransferError> {
        let is_dir = found.kind() == Some(Kind::Dir);
        if is_dir {
            if !(self.options.dry_run || self.at_limit()) {
                dest.open_to_owner(name);
            }
            let empty = match dest.list(name) {
                Ok(Some(folder)) => self.contents(dest, name, folder, scope, depth)?,
                Ok(None) => return Ok(Fate::Gone),
                Err(error) => {
                    self.fail(&error);
                    return Ok(Fate::Kept);
                }
            };
            if !empty {
                self.say(TextKind::Info, format!("cannot delete non-empty directory: {}", shown(name)));
                // Within a directory that goes, stock tries such a one a second time, and says or counts it again.
                match depth > 0 && self.at_limit() {
                    true => self.skipped += 1,
                    false if depth > 0 => {
                        self.say(TextKind::Info, format!("cannot delete non-empty directory: {}", shown(name)));
                    }
                    false => {}
                }
                return Ok(Fate::Full);
            }
        }
        if self.at_limit() {
            self.skipped += 1;
            return Ok(Fate::Kept);
        }
        let removed = match (self.options.dry_run, is_dir) {
            (true, true) => Ok(true),
            (true, false) => dest.would_back_up(name).map(|()| true),
            (false, true) => dest.remove_dir(name),
            (false, false) => dest.back_up(name),
        };
        for words in dest.take_words() {
            self.say(TextKind::Info, words);
        }
        Ok(match removed {
            Ok(true) => {
                let counts = &mut self.counts;
                *match found.kind() {
                    Some(Kind::Dir) => &mut counts.dirs,
                    Some(Kind::Symlink) => &mut counts.symlinks,
                    Some(Kind::Device) => &mut counts.devices,
                    Some(Kind::Special) => &mut counts.specials,
                    _ => &mut counts.files,
                } += 1;
                let mut name = name.to_vec();
                if is_dir {
                    name.push(0);
                }
                self.told.push(Message::Deleted(name));
                Fate::Gone
            }
            Ok(false) => Fate::Gone,
            Err(error) if error.source.raw_os_error() == Some(Errno::NOTEMPTY.raw_os_error()) => {
                self.say(TextKind::Info, format!("cannot delete non-empty directory: {}", shown(name)));
                Fate::Full
            }
            Err(error) => {
                self.fail(&error);
                Fate::Kept
            }
        })
    }

    /// Deletes what a directory holds; true when nothing is left of it.
    fn contents(
        &mut self,
        dest: &Dest,
        name: &[u8],
        mut folder: OpenFolder,
        above: Option<&Scope>,
        depth: u32,
    ) -> Result<bool, TransferError> {
        let scope = match (self.rules, above) {
            (Some(rules), Some(above)) => Some(entered(rules, above, name, &folder, self.guard)?),
            _ => None,
        };
        last_first(&mut folder, self.sorting);
        let (entries, dev) = (std::mem::take(&mut folder.entries), folder.dev);
        // However deep the tree, one descriptor at a time.
        drop(folder);
        let mut empty = true;
        for (leaf, found) in entries {
            let full = joined(name, &leaf);
            let is_dir = found.kind() == Some(Kind::Dir);
            if self.is_safe(scope.as_ref(), &full, is_dir, ParentDir::Deleted) {
                empty = false;
            } else if self.options.one_file_system > 0 && is_dir && found.dev != dev {
                if self.options.verbose > 1 {
                    self.say(TextKind::Info, format!("mount point, {}, pins parent directory", shown(&full)));
                }
                empty = false;
            } else {
                empty &= self.item(dest, &full, &found, scope.as_ref(), depth + 1)? == Fate::Gone;
            }
        }
        Ok(empty)
    }

    fn at_limit(&self) -> bool {
        self.options.max_delete.is_some_and(|most| self.counts.total() >= most)
    }

    fn tells_rules(&self) -> bool {
        self.options.level(Debug::Filter) > 0
    }

    fn is_safe(&mut self, scope: Option<&Scope>, name: &[u8], is_dir: bool, parent: ParentDir) -> bool {
        if self.guard.is_some_and(|guard| guard.hides(name, is_dir)) {
            return true;
        }
        let verdict = self.rules.zip(scope).and_then(|(rules, scope)| rules.verdict(scope, name, is_dir, parent));
        let Some(verdict) = verdict else { return false };
        if self.tells_rules() {
            self.say(TextKind::Info, verdict.said(&shown(name), is_dir));
        }
        verdict.excludes()
    }

    /// The rules that hold in a directory: those of all directories on the way count.
    fn scope(&mut self, dest: &Dest, name: &[u8], folder: &OpenFolder) -> Result<Option<Scope>, TransferError> {
        let (Some(rules), Some(top)) = (self.rules, self.top.clone()) else { return Ok(None) };
        if !rules.has_dir_merges() {
            return Ok(Some(top));
        }
        let within = |outer: &[u8]| outer == b"." || (name.starts_with(outer) && name.get(outer.len()) == Some(&b'/'));
        self.scopes.retain(|(outer, _)| within(outer) && outer != name);
        let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let ways = std::iter::once(&b"."[..]).chain(slashes.map(|at| &name[..at]));
        for way in ways.filter(|way| *way != name) {
            if self.scopes.iter().any(|(outer, _)| outer == way) {
                continue;
            }
            let above = self.scopes.last().map_or_else(|| top.clone(), |(_, scope)| scope.clone());
            let Ok(Some(between)) = dest.list(way) else { continue };
            let scope = entered(rules, &above, way, &between, self.guard)?;
            self.scopes.push((way.to_vec(), scope));
        }
        let above = self.scopes.last().map_or(top, |(_, scope)| scope.clone());
        let scope = entered(rules, &above, name, folder, self.guard)?;
        self.scopes.push((name.to_vec(), scope.clone()));
        Ok(Some(scope))
    }

    fn scope_of_parent(&mut self, dest: &Dest, name: &[u8]) -> Result<Option<Scope>, TransferError> {
        let parent = name.iter().rposition(|&byte| byte == b'/').map_or(&b"."[..], |slash| &name[..slash]);
        match (self.rules, dest.list(parent)) {
            (Some(_), Ok(Some(folder))) => self.scope(dest, parent, &folder),
            _ => Ok(self.top.clone()),
        }
    }

    fn say(&mut self, kind: TextKind, text: String) {
        self.told.push(Message::Text(kind, format!("{text}\n").into()));
    }

    fn fail(&mut self, error: &DestError) {
        self.failed += 1;
        self.say(TextKind::ErrorXfer, format!("rsync: [generator] {error}"));
    }
}

/// What holds in a folder. Rules that cannot be read might be all that keeps a file from being deleted: an error.
fn entered(
    rules: &RuleSet,
    above: &Scope,
    name: &[u8],
    folder: &OpenFolder,
    guard: Option<&Guard>,
) -> Result<Scope, TransferError> {
    enter_scope(rules, above, name, &folder.dir, guard.map(|guard| (guard, name)))
        .map_err(|error| TransferError::Rules(error.to_string()))
}

fn joined(dir: &[u8], leaf: &[u8]) -> Vec<u8> {
    if dir == b"." { leaf.to_vec() } else { [dir, leaf].join(&b'/') }
}

/// The order in which stock deletes: the reverse of the file list's.
fn last_first(folder: &mut OpenFolder, sorting: Sorting) {
    folder.entries.sort_by_cached_key(|(leaf, found)| {
        let is_dir = found.kind() == Some(Kind::Dir) && sorting == Sorting::Folders;
        let mut key = leaf.clone();
        if is_dir {
            key.push(b'/');
        }
        Reverse((is_dir, key))
    });
}
