//! The filter rules that folders bring along, read through the folder that is held open.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::filter::{RuleSet, Scope, ScopeError};
use protocol::flist::Kind;
use rustix::io::Errno;

use super::operand::Operand;
use super::tree;
use crate::disk::beneath;
use crate::disk::{reason, shown};
use crate::transfer::guard::Guard;

/// Bytes of a per-directory file: a bound on memory.
const FILE_MOST: u64 = 1 << 20;

/// What holds at an operand.
pub(super) struct Scopes {
    /// For the operand itself: no folder above has been entered for it.
    pub(super) asked: Scope,
    /// For the operand itself once more: the folders that `--relative` sends have been entered for it.
    pub(super) beneath_implied: Option<Scope>,
    /// For what is in it: rules of the folders above it, whichever they are, count where a rule asks for that.
    pub(super) inside: Scope,
}

/// What holds at an operand, as stock has it.
pub(super) fn top(rules: &RuleSet, operand: &Operand, guard: Option<&Guard>) -> Result<Scopes, ScopeError> {
    // With `--relative` names begin at the base, else within the folder that is entered.
    let root = if operand.skip > 0 || !operand.implied.is_empty() { &operand.base } else { &operand.root };
    let root = tree::joined(root, b".");
    let asked = rules.top(&root);
    let mut inside = asked.clone();
    let paths = rules.merges_from_above().filter_map(|file| file.path_from(&root));
    let from =
        paths.map(|path| path.iter().rposition(|&byte| byte == b'/').map_or(path.clone(), |at| path[..=at].to_vec()));
    // One pass from the highest of their folders serves all such files.
    if let Some(from) = from.filter(|folder| root.starts_with(folder)).map(|folder| folder.len()).min() {
        // The folder itself is entered later, unless only something in it was asked for.
        let last = (operand.name != b"." && root != b"/").then_some(root.len());
        for end in (from - 1..root.len()).filter(|&at| root[at] == b'/').chain(last) {
            let above = if end == 0 { &b"/"[..] } else { &root[..end] };
            // A folder that cannot be seen has no rules for us.
            if let Ok(dir) = beneath::open_source(Path::new(OsStr::from_bytes(above))) {
                inside = rules
                    .enter_above(&inside, above, &mut |leaf| read(&dir, leaf, guard.map(|guard| (guard, above))))?;
            }
        }
    }
    // The parents that `--relative` sends bring their rules along.
    let mut implied = operand.implied.iter().filter(|name| *name != b".").peekable();
    let has_implied = implied.peek().is_some();
    for name in implied.filter(|_| rules.has_dir_merges()) {
        let path = tree::joined(&operand.base, name);
        if let Ok(dir) = beneath::open_source(Path::new(OsStr::from_bytes(&path))) {
            inside = enter(rules, &inside, name, &dir, guard.map(|guard| (guard, &path[..])))?;
        }
    }
    Ok(Scopes { asked, beneath_implied: has_implied.then(|| inside.clone()), inside })
}

/// What holds in an open folder. A file that a daemon's module keeps to itself is not there; beside its guard stands what
/// the folder is to it.
pub(in crate::transfer) fn enter(
    rules: &RuleSet,
    above: &Scope,
    name: &[u8],
    dir: &OwnedFd,
    guard: Option<(&Guard, &[u8])>,
) -> Result<Scope, ScopeError> {
    rules.enter(above, name, &mut |leaf| read(dir, leaf, guard))
}

/// A file of rules in an open folder. A symlink is followed only when root or we ourselves own it.
fn read(dir: &OwnedFd, leaf: &[u8], guard: Option<(&Guard, &[u8])>) -> Result<Option<Vec<u8>>, String> {
    if guard.is_some_and(|(guard, folder)| guard.hides(&[folder, leaf].join(&b'/'), false)) {
        return Ok(None);
    }
    match read_at(dir, leaf) {
        Ok(bytes) => Ok(Some(bytes)),
        // What is no rule that anybody can follow is none, as with stock: the file itself is one as any other.
        Err(error) if error.kind() != io::ErrorKind::FileTooLarge => Ok(None),
        Err(error) => Err(format!("failed to read exclude file {}: {}", shown(leaf), reason(&error))),
    }
}

fn read_at(dir: &OwnedFd, leaf: &[u8]) -> io::Result<Vec<u8>> {
    let file = beneath::open_file_in(dir, leaf)?;
    if beneath::kind(rustix::fs::fstat(file.as_fd())?.st_mode) != Some(Kind::File) {
        return Err(io::Error::from(Errno::NOENT));
    }
    let mut bytes = Vec::new();
    if file.take(FILE_MOST).read_to_end(&mut bytes)? as u64 == FILE_MOST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "It is larger than 1 MiB"));
    }
    Ok(bytes)
}
