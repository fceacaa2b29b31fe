//! How one path argument splits into a folder to enter and a name to send.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One argument: `root` is entered, `leaf` within it is sent as `name`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operand {
    /// The folder to enter; symlinks on the way to it are followed, for the operator named them.
    pub(super) root: PathBuf,
    /// What to send from there; `.` for the folder's own contents.
    pub(super) leaf: Vec<u8>,
    /// Its name in the file list.
    pub(super) name: Vec<u8>,
    /// Length of the part of a name in the list that stands for `root`, slash included.
    pub(super) skip: usize,
    /// Parents to send before it (`--relative`), as names in the list; each is found at its name beneath `base`.
    pub(super) implied: Vec<Vec<u8>>,
    /// Where `--relative` names begin.
    pub(super) base: PathBuf,
    /// It comes from a list of names, and so leads out of no bound.
    pub(super) listed: bool,
}

impl Operand {
    /// What is named with full names and a slash at its end, without the slash: it may be no folder.
    pub(super) fn itself(&self) -> Option<Self> {
        if self.leaf != b"." || self.name == b"." {
            return None;
        }
        let at = self.name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let root = if at == 0 { self.base.clone() } else { self.base.join(path(&self.name[..at])) };
        Some(Self {
            root,
            leaf: self.name[at..].to_vec(),
            name: self.name.clone(),
            skip: at,
            implied: self.implied.clone(),
            base: self.base.clone(),
            listed: self.listed,
        })
    }
}

/// Splits an argument; `None` when `..` stands in the part whose names would be sent. With `relative` that is all behind `/./`.
pub(super) fn split(argument: &Path, relative: bool) -> Option<Operand> {
    let bytes = argument.as_os_str().as_bytes();
    let bytes = if bytes.is_empty() { b"." } else { bytes };
    if relative { split_relative(bytes) } else { Some(split_plain(bytes)) }
}

/// The same, `relative` or not, for a name listed in a file, beneath the folder that the operator named.
pub(super) fn listed(folder: &Path, name: &[u8], relative: bool) -> Option<Operand> {
    let name = protocol::names::clean(name, relative);
    let folder = folder.as_os_str().as_bytes();
    let folder = if folder.is_empty() { b"." } else { folder };
    let listed = |operand| Operand { listed: true, ..operand };
    if !relative {
        return Some(listed(split_plain(&[folder, &name].join(&b'/'))));
    }
    let inner = name.windows(3).position(|window| window == b"/./");
    let (base, active, implied) = match inner {
        Some(at) => ([folder, &name[..at]].join(&b'/'), &name[at + 3..], vec![]),
        None if name.starts_with(b"./") => (folder.to_vec(), &name[..], vec![b".".to_vec()]),
        None => (folder.to_vec(), &name[..], vec![]),
    };
    beneath(&base, active, implied).map(listed)
}

fn split_plain(bytes: &[u8]) -> Operand {
    let (folder, last) = match bytes.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&bytes[..=slash], &bytes[slash + 1..]),
        None => (&b"."[..], bytes),
    };
    let contents = matches!(last, b"" | b"." | b"..");
    let (root, leaf) = if contents { (bytes, &b"."[..]) } else { (folder, last) };
    Operand {
        root: path(root),
        leaf: leaf.to_vec(),
        name: leaf.to_vec(),
        skip: 0,
        implied: vec![],
        base: path(root),
        listed: false,
    }
}

fn split_relative(bytes: &[u8]) -> Option<Operand> {
    let (base, active, implied) = match bytes.windows(3).position(|window| window == b"/./") {
        Some(at) => (&bytes[..=at], &bytes[at + 3..], vec![]),
        None if bytes.starts_with(b"/") => (&b"/"[..], bytes, vec![]),
        None if bytes.starts_with(b"./") => (&b"."[..], bytes, vec![b".".to_vec()]),
        None => (&b"."[..], bytes, vec![]),
    };
    beneath(base, active, implied)
}

/// What `active` names beneath `base`, with its parents.
fn beneath(base: &[u8], active: &[u8], mut implied: Vec<Vec<u8>>) -> Option<Operand> {
    let words: Vec<&[u8]> = active.split(|&byte| byte == b'/').filter(|word| !matches!(*word, b"" | b".")).collect();
    if words.contains(&&b".."[..]) {
        return None;
    }
    let base = path(base);
    let Some((last, parents)) = words.split_last() else {
        let here = b".".to_vec();
        return Some(Operand {
            root: base.clone(),
            leaf: here.clone(),
            name: here,
            skip: 0,
            implied: vec![],
            base,
            listed: false,
        });
    };
    implied.extend((1..=parents.len()).map(|count| parents[..count].join(&b'/')));
    let name = words.join(&b'/');
    let contents = active.ends_with(b"/") || active.ends_with(b"/.");
    // A trailing slash follows a symlink, so the folder itself becomes the root and nothing below it need follow one.
    let (inside, leaf) = if contents { (name.clone(), &b"."[..]) } else { (parents.join(&b'/'), *last) };
    let skip = if inside.is_empty() { 0 } else { inside.len() + 1 };
    let root = if inside.is_empty() { base.clone() } else { base.join(path(&inside)) };
    Some(Operand { root, leaf: leaf.to_vec(), name, skip, implied, base, listed: false })
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
