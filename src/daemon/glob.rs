//! Wildcards in what a client asks for. Counterpart: rsync's `glob_expand_module`.

use super::module::os;
use super::wild;
use crate::transfer::guard::Guard;
use crate::transfer::{open_operand, readable};
use rustix::fs::Dir;
use std::path::Path;

/// Most paths that one request comes to.
const PATHS_MOST: usize = 100_000;

/// What a path within the module stands for: every match of its wildcards that the module shows, or itself where there
/// is none.
pub(super) fn expand(path: &[u8], guard: Option<&Guard>) -> Vec<Vec<u8>> {
    if !wild::is_wild(path) {
        return vec![path.to_vec()];
    }
    let mut found = vec![Vec::new()];
    for word in path.split(|&byte| byte == b'/') {
        found = found.into_iter().flat_map(|folder| children(folder, word)).take(PATHS_MOST).collect();
    }
    if let Some(guard) = guard {
        found.retain(|path| !guard.bars(path, Path::new(os(path)).is_dir()));
    }
    found.sort();
    if found.is_empty() {
        found.push(path.to_vec());
    }
    found
}

fn children(folder: Vec<u8>, word: &[u8]) -> Vec<Vec<u8>> {
    let join = |name: &[u8]| if folder.is_empty() { name.to_vec() } else { [&folder, name].join(&b'/') };
    if !wild::is_wild(word) {
        let path = join(&wild::unescaped(word));
        // A trailing slash is no name, and what does not exist is no match.
        return if word.is_empty() || exists(&path) { vec![path] } else { Vec::new() };
    }
    let name = if folder.is_empty() { &b"."[..] } else { &folder };
    let Ok(dir) = open_operand(Path::new(os(name))).and_then(|dir| readable(&dir)) else { return Vec::new() };
    let Ok(listing) = Dir::read_from(&dir) else { return Vec::new() };
    let names = listing.filter_map(Result::ok).map(|entry| entry.file_name().to_bytes().to_vec());
    // Hidden names are named as such.
    let shown = |name: &Vec<u8>| !name.starts_with(b".") || word.starts_with(b".");
    let names = names.filter(|name| !matches!(&name[..], b"." | b"..") && shown(name));
    names.filter(|name| wild::matches(word, name)).map(|name| join(&name)).collect()
}

/// Whether anything stands at a path; a symlink is something, wherever it leads.
fn exists(path: &[u8]) -> bool {
    let path = Path::new(os(path));
    let (Some(name), parent) = (path.file_name(), path.parent()) else { return true };
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    open_operand(parent).is_ok_and(|dir| rustix::fs::statat(&dir, name, flags).is_ok())
}
