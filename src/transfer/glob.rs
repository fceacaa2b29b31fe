//! Wildcards in what a client asks for, where no shell expands them: a daemon's paths, and those that come by the
//! connection (`-s`). Counterpart: rsync's `glob_expand`.

use super::guard::Guard;
use crate::disk::wild::{is_wild, matches, unescaped};
use crate::disk::{open_source, readable};
use protocol::PeerError;
use rustix::fs::Dir;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Memory for all paths that the wildcards of one request come to: a hundred thousand of usual length.
const PATHS_MOST: usize = 16 << 20;

/// The wildcards of one request.
pub(crate) struct Globs {
    left: usize,
}

impl Globs {
    /// Nothing is expanded yet.
    pub(crate) fn new() -> Self {
        Self { left: PATHS_MOST }
    }

    /// What a path stands for: every match of its wildcards that a daemon's module shows, or itself where there is none.
    pub(crate) fn expand(&mut self, path: &[u8], guard: Option<&Guard>) -> Result<Vec<Vec<u8>>, PeerError> {
        if !is_wild(path) {
            return Ok(vec![path.to_vec()]);
        }
        let (start, rest) = path.strip_prefix(b"/").map_or((&b""[..], path), |rest| (b"/", rest));
        let mut found = vec![start.to_vec()];
        let mut left = self.left;
        for word in rest.split(|&byte| byte == b'/') {
            left = self.left;
            let mut next = Vec::new();
            for folder in found {
                next.extend(children(folder, word, &mut left)?);
            }
            found = next;
        }
        self.left = left;
        if let Some(guard) = guard {
            found.retain(|path| !guard.bars(path, Path::new(OsStr::from_bytes(path)).is_dir()));
        }
        found.sort();
        if found.is_empty() {
            found.push(path.to_vec());
        }
        Ok(found)
    }
}

/// Counts a path in.
fn hold(path: Vec<u8>, left: &mut usize) -> Result<Vec<u8>, PeerError> {
    let too_much = PeerError::TooMuch { what: "paths that wildcards stand for", most: PATHS_MOST };
    *left = left.checked_sub(path.len() + 2 * size_of::<Vec<u8>>()).ok_or(too_much)?;
    Ok(path)
}

fn children(folder: Vec<u8>, word: &[u8], left: &mut usize) -> Result<Vec<Vec<u8>>, PeerError> {
    let join = |name: &[u8]| match &folder[..] {
        b"" | [.., b'/'] => [&folder, name].concat(),
        folder => [folder, name].join(&b'/'),
    };
    if !is_wild(word) {
        let path = join(&unescaped(word));
        // A trailing slash is no name, and what does not exist is no match.
        return if word.is_empty() || exists(&path) { Ok(vec![hold(path, left)?]) } else { Ok(Vec::new()) };
    }
    let name = if folder.is_empty() { &b"."[..] } else { &folder };
    let Ok(dir) = open_source(Path::new(OsStr::from_bytes(name))).and_then(|dir| readable(&dir)) else {
        return Ok(Vec::new());
    };
    let Ok(listing) = Dir::read_from(&dir) else { return Ok(Vec::new()) };
    let names = listing.filter_map(Result::ok).map(|entry| entry.file_name().to_bytes().to_vec());
    // Hidden names are named as such.
    let shown = |name: &Vec<u8>| !name.starts_with(b".") || word.starts_with(b".");
    let names = names.filter(|name| !matches!(&name[..], b"." | b"..") && shown(name));
    names.filter(|name| matches(word, name)).map(|name| hold(join(&name), left)).collect()
}

/// Whether anything stands at a path; a symlink is something, wherever it leads.
fn exists(path: &[u8]) -> bool {
    let path = Path::new(OsStr::from_bytes(path));
    let (Some(name), parent) = (path.file_name(), path.parent()) else { return true };
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    open_source(parent).is_ok_and(|dir| rustix::fs::statat(&dir, name, flags).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As stock rsync 3.5.0 expands what comes by `-s`.
    #[test]
    fn a_pattern_without_a_match_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ab", r"a\b", r"a\\b", "a*", ".a", "d/x1", "d/x2", "e/x1"] {
            std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let top = folder.path().to_str().unwrap();
        for (pattern, wanted) in [
            (r"a\b", r"a\b"),
            (r"a\\b", r"a\\b"),
            (r"a\*", "a*"),
            (r"a\\*", r"a\b a\\b"),
            (r"a\[b", r"a\[b"),
            (r"z\*", r"z\*"),
            ("a?b", r"a\b"),
            ("[a]b", "ab"),
            ("*", r"a* a\b a\\b ab d e"),
            (".*", ".a"),
            ("*/x1", "d/x1 e/x1"),
            ("d//x*", "d/x1 d/x2"),
            ("[de]/", "d/ e/"),
            ("d/x[12]", "d/x1 d/x2"),
            ("nothing*", "nothing*"),
        ] {
            let found = Globs::new().expand(format!("{top}/{pattern}").as_bytes(), None).unwrap();
            let found: Vec<_> = found.iter().map(|path| String::from_utf8_lossy(path).replace("//", "/")).collect();
            let mut wanted: Vec<_> = wanted.split(' ').map(|name| format!("{top}/{name}")).collect();
            wanted.sort();
            assert_eq!(found, wanted, "{pattern}");
        }
    }
}
