//! The order both sides share. Counterpart: rsync's `f_name_cmp`.

use super::FileEntry;
use std::cmp::Ordering;

/// Compares two entries as protocol 29 and later do: in each directory all other things stand before the directories, a
/// directory stands before what it holds, and a directory's name is compared as if it ended in a slash.
pub fn compare(a: &FileEntry, b: &FileEntry) -> Ordering {
    compare_names(&a.name, a.is_dir(), &b.name, b.is_dir())
}

/// Place of the first entry with this name and kind among what sorts so.
pub(super) fn find<'a, T>(
    sorted: &'a [T],
    entry: impl Fn(&'a T) -> &'a FileEntry,
    name: &[u8],
    dir: bool,
) -> Option<usize> {
    let before = |one: &'a T| compare_names(&entry(one).name, entry(one).is_dir(), name, dir).is_lt();
    let (mut low, mut high) = (0, sorted.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if before(&sorted[middle]) { low = middle + 1 } else { high = middle }
    }
    sorted.get(low).map(&entry).filter(|entry| entry.name == name && entry.is_dir() == dir).map(|_| low)
}

fn compare_names(a: &[u8], a_dir: bool, b: &[u8], b_dir: bool) -> Ordering {
    let mut a = Components { rest: Some(a), dir: a_dir };
    let mut b = Components { rest: Some(b), dir: b_dir };
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((a_branch, a)), Some((b_branch, b))) => {
                let order = a_branch
                    .cmp(&b_branch)
                    .then_with(|| if a_branch { a.iter().chain(b"/").cmp(b.iter().chain(b"/")) } else { a.cmp(b) });
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

/// The components of a name; the flag says whether it is a directory there.
struct Components<'a> {
    rest: Option<&'a [u8]>,
    dir: bool,
}

impl<'a> Iterator for Components<'a> {
    type Item = (bool, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        match rest.iter().position(|&byte| byte == b'/') {
            Some(slash) => {
                self.rest = Some(&rest[slash + 1..]);
                Some((true, &rest[..slash]))
            }
            // The root itself comes before everything in it.
            None if self.dir && rest == b"." => Some((false, b"")),
            None => Some((self.dir, rest)),
        }
    }
}
