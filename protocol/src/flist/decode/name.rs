//! Names as they come and as we have them.

use super::{ListDecoder, PATH_MOST};
use crate::PeerError;
use crate::flist::{FileEntry, Sorting, sort, unsafe_name};

impl ListDecoder {
    /// The name as we have it; `None` where it cannot be had in our character set.
    pub(super) fn local_name(&self, name: &[u8]) -> Result<Option<Vec<u8>>, PeerError> {
        // What the name means here is looked at, not what it meant there.
        match self.shape.charset.map(|set| set.from_utf8(name)) {
            None => clean_name(name, self.shape.relative).map(Some),
            Some(Some(name)) if name.len() <= PATH_MOST => clean_name(&name, self.shape.relative).map(Some),
            Some(_) if name.is_empty() => clean_name(name, self.shape.relative).map(Some),
            Some(_) => Ok(None),
        }
    }
}

/// Whether some names began with a slash and others did not.
pub(super) fn are_mixed(rooted: &[bool]) -> bool {
    rooted.windows(2).any(|pair| pair[0] != pair[1])
}

/// Puts entries in the order of the peer, where a slash at the beginning of a name counts; in ours it is gone. Both orders
/// are the same unless some names begin with one and others do not.
pub(super) fn sort_with_slashes(sorting: Sorting, entries: &mut [FileEntry], mut rooted: Vec<bool>) {
    for (entry, _) in entries.iter_mut().zip(&rooted).filter(|(_, rooted)| **rooted) {
        entry.name.insert(0, b'/');
    }
    sort(sorting, entries, &mut rooted);
    for (entry, _) in entries.iter_mut().zip(rooted).filter(|(_, rooted)| *rooted) {
        entry.name.remove(0);
    }
}

/// A name without repeated slashes and `.` components; refused where it would leave the root.
fn clean_name(name: &[u8], relative: bool) -> Result<Vec<u8>, PeerError> {
    if name.is_empty() {
        return Err(unsafe_name(name, "it is empty"));
    }
    if name.contains(&0) {
        return Err(unsafe_name(name, "it holds a NUL"));
    }
    if name.starts_with(b"/") && !relative {
        return Err(unsafe_name(name, "it is absolute"));
    }
    let mut clean = Vec::with_capacity(name.len());
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(unsafe_name(name, "it holds ..")),
            component => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(component);
            }
        }
    }
    if clean.is_empty() {
        clean.push(b'.');
    }
    Ok(clean)
}
