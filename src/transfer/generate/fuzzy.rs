//! A file of a similar name to build upon, where none of the same name is (`--fuzzy`).

use crate::transfer::basis::Basis;
use crate::transfer::dest::{Dest, Found, same_mtime};
use protocol::flist::{FileEntry, Kind};

/// Files of one directory that are looked at; in a fuller one a basis is not worth the search.
const NEIGHBOURS_MOST: usize = 20_000;
/// Bytes of names compared with each other, for one entry.
const COMPARED_MOST: usize = 4 << 20;

/// The directory that was looked at last, here and in the alternative destinations.
#[derive(Default)]
pub(super) struct Fuzzy {
    dir: Option<Vec<u8>>,
    /// Number of the alternative destination if any, the name's last component, what stands there.
    neighbours: Vec<(Option<u8>, Vec<u8>, Found)>,
}

impl Fuzzy {
    /// The likeliest basis: a file of the same size and time, else the one whose name is most alike. `depth` 2 looks into
    /// the alternative destinations too.
    pub(super) fn find(&mut self, dest: &Dest, name: &[u8], entry: &FileEntry, depth: u8) -> Option<Basis> {
        let above = name.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |slash| &name[..slash]);
        if self.dir.as_deref() != Some(above) {
            self.dir = Some(above.to_vec());
            self.neighbours.clear();
            self.look(dest, None, above);
            for number in (0..dest.alternatives()).filter(|_| depth > 1) {
                if let Some(there) = dest.alternative(number) {
                    self.look(there, Some(number), above);
                }
            }
        }
        let leaf = &name[if above.is_empty() { 0 } else { above.len() + 1 }..];
        let same = |found: &Found| {
            found.len == entry.len && same_mtime(0, (found.mtime, found.nsec), (entry.mtime, entry.nsec))
        };
        let twin = self.neighbours.iter().find(|(_, _, found)| same(found));
        let chosen = twin.or_else(|| {
            let budget = COMPARED_MOST / leaf.len().max(1);
            let mut compared = 0;
            let alike = self.neighbours.iter().filter_map(|neighbour| {
                compared += neighbour.1.len();
                (compared <= budget)
                    .then(|| (likeness(leaf, &neighbour.1), neighbour))
                    .filter(|(likeness, _)| *likeness > 0)
            });
            // The first of equals.
            alike
                .fold(None, |best: Option<(usize, _)>, one| match best {
                    Some(best) if best.0 >= one.0 => Some(best),
                    _ => Some(one),
                })
                .map(|(_, neighbour)| neighbour)
        })?;
        Some(match chosen.0 {
            None => Basis::Fuzzy(chosen.1.clone()),
            Some(number) => Basis::FuzzyAlternative(number, chosen.1.clone()),
        })
    }

    fn look(&mut self, dest: &Dest, number: Option<u8>, above: &[u8]) {
        let Ok(Some(folder)) = dest.list(if above.is_empty() { b"." } else { above }) else { return };
        for (leaf, found) in folder.entries.into_iter().take(NEIGHBOURS_MOST) {
            if found.kind() == Some(Kind::File) && found.len > 0 {
                self.neighbours.push((number, leaf, found));
            }
        }
        self.neighbours.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    }
}

/// How alike two names are: their common beginning and end, if these are at least half of the longer name; 0 if not.
fn likeness(one: &[u8], other: &[u8]) -> usize {
    let shorter = one.len().min(other.len());
    let start = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let end = one.iter().rev().zip(other.iter().rev()).take(shorter - start).take_while(|(a, b)| a == b).count();
    let common = start + end;
    if common * 2 >= one.len().max(other.len()) { common } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::likeness;

    #[test]
    fn names_are_alike_by_their_ends() {
        assert_eq!(likeness(b"report-2024.txt", b"report-2025.txt"), 14);
        assert_eq!(likeness(b"a", b"a"), 1);
        assert_eq!(likeness(b"aaa", b"aaaa"), 3);
        assert_eq!(likeness(b"some", b"thing"), 0);
        assert_eq!(likeness(b"", b"x"), 0);
    }
}
