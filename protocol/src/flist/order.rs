//! The order both sides share. Counterpart: rsync's `f_name_cmp`.

use super::FileEntry;
use std::cmp::Ordering;

/// How the entries of a list stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sorting {
    /// In each directory all other things stand before the directories, a directory stands before what it holds, and a
    /// directory's name is compared as if it ended in a slash.
    #[default]
    Folders,
    /// By the bytes of whole names, before protocol 29.
    Bytes,
}

impl Sorting {
    /// As a protocol version has it.
    pub fn of(version: u8) -> Self {
        if version < 29 { Self::Bytes } else { Self::Folders }
    }

    /// Compares two entries.
    pub(crate) fn compare(self, a: &FileEntry, b: &FileEntry) -> Ordering {
        self.compare_names((&a.name, a.is_dir()), (&b.name, b.is_dir()))
    }

    fn compare_names(self, a: (&[u8], bool), b: (&[u8], bool)) -> Ordering {
        match self {
            Self::Folders => compare_names(a, b),
            Self::Bytes => a.0.cmp(b.0),
        }
    }
}

/// Compares two entries as protocol 29 and later do.
pub fn compare(a: &FileEntry, b: &FileEntry) -> Ordering {
    Sorting::Folders.compare(a, b)
}

/// Puts entries in order, and with each what stands beside it. Entries that are equal stay as they stand.
pub fn sort<T>(sorting: Sorting, entries: &mut [FileEntry], beside: &mut [T]) {
    if entries.is_sorted_by(|a, b| sorting.compare(a, b).is_le()) {
        return;
    }
    // A list is large: no second one is made, but the places are sorted and the entries then exchanged.
    let mut order = order_of(sorting, entries);
    for start in 0..entries.len() {
        let mut at = start;
        loop {
            let from = std::mem::replace(&mut order[at], at as u32) as usize;
            if from == start {
                break;
            }
            entries.swap(at, from);
            beside.swap(at, from);
            at = from;
        }
    }
}

/// The places of entries as they sort.
pub(super) fn order_of(sorting: Sorting, entries: &[FileEntry]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..).take(entries.len()).collect();
    order.sort_by(|&a, &b| sorting.compare(&entries[a as usize], &entries[b as usize]));
    order
}

/// Place of the first entry with this name and kind among what sorts so.
pub(super) fn find<'a, T>(
    sorting: Sorting,
    sorted: &'a [T],
    entry: impl Fn(&'a T) -> &'a FileEntry,
    name: &[u8],
    is_dir: bool,
) -> Option<usize> {
    let before = |one: &'a T| sorting.compare_names((&entry(one).name, entry(one).is_dir()), (name, is_dir)).is_lt();
    let (mut low, mut high) = (0, sorted.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if before(&sorted[middle]) { low = middle + 1 } else { high = middle }
    }
    // By bytes alone a name may stand there as a directory and as something else.
    let same = sorted[low..].iter().map(&entry).take_while(|entry| entry.name == name);
    same.map(FileEntry::is_dir).position(|one| one == is_dir).map(|at| low + at)
}

/// Compares two names, each with whether it is a directory's.
fn compare_names((a, a_dir): (&[u8], bool), (b, b_dir): (&[u8], bool)) -> Ordering {
    // Components that both share are the same kind of thing in both. Neighbours in a list share nearly all.
    let shared = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let start = a[..shared].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let mut a = Components { rest: Some(&a[start..]), dir: a_dir };
    let mut b = Components { rest: Some(&b[start..]), dir: b_dir };
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((a_branch, a)), Some((b_branch, b))) => {
                let order =
                    a_branch.cmp(&b_branch).then_with(|| if a_branch { compare_branches(a, b) } else { a.cmp(b) });
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

/// Compares the names of two directories as if each ended in a slash.
fn compare_branches(a: &[u8], b: &[u8]) -> Ordering {
    let both = a.len().min(b.len());
    let end = |name: &[u8]| name.get(both).copied().unwrap_or(b'/');
    a[..both].cmp(&b[..both]).then_with(|| end(a).cmp(&end(b))).then_with(|| a.len().cmp(&b.len()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same by the whole names, one component after the other.
    fn plainly(a: &[u8], a_dir: bool, b: &[u8], b_dir: bool) -> Ordering {
        let keys = |name: &[u8], dir: bool| -> Vec<(bool, Vec<u8>)> {
            let key =
                |(branch, part): (bool, &[u8])| (branch, if branch { [part, b"/"].concat() } else { part.into() });
            Components { rest: Some(name), dir }.map(key).collect()
        };
        keys(a, a_dir).cmp(&keys(b, b_dir))
    }

    proptest! {
        #[test]
        fn what_stands_beside_an_entry_goes_with_it(names in prop::collection::vec("[ab]{1,2}(/[ab]){0,2}", 0..40)) {
            let mut entries: Vec<_> = names.iter().map(|name| FileEntry::new(name.as_str(), 0o100644)).collect();
            let mut beside: Vec<_> = names.iter().cloned().zip(0..).collect();
            let mut expected: Vec<_> = entries.iter().cloned().zip(beside.iter().cloned()).collect();
            sort(Sorting::Folders, &mut entries, &mut beside);
            expected.sort_by(|a, b| compare(&a.0, &b.0));
            prop_assert_eq!(entries.into_iter().zip(beside).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn what_names_share_makes_no_difference(
            a in "[ab.!0]{1,3}(/[ab.!0]{1,3}){0,3}", a_dir: bool,
            b in "[ab.!0]{1,3}(/[ab.!0]{1,3}){0,3}", b_dir: bool,
            shared in "([ab.!]{1,2}/){0,3}[ab.]{0,2}",
        ) {
            let (a, b) = (shared.clone() + &a, shared + &b);
            let (a, b) = (a.as_bytes(), b.as_bytes());
            prop_assert_eq!(compare_names((a, a_dir), (b, b_dir)), plainly(a, a_dir, b, b_dir));
            prop_assert_eq!(compare_names((a, a_dir), (a, b_dir)), plainly(a, a_dir, a, b_dir));
        }
    }
}
