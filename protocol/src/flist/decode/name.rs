//! Names as they come and as we have them.

use super::{ListDecoder, PATH_MOST};
use crate::PeerError;
use crate::flist::unsafe_name;
use crate::wire::Decode;

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

    /// Leading slashes count in the peer's order and are gone in ours: a list that mixes both kinds of names would give its
    /// entries other indexes here than there, so it is refused.
    pub(super) fn check_rooted(&mut self, rooted: bool) -> Result<(), Decode> {
        if *self.rooted.get_or_insert(rooted) == rooted {
            Ok(())
        } else {
            Err(PeerError::Malformed("absolute and relative names in one file list; send them one after the other")
                .into())
        }
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
