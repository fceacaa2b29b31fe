//! Names of owners and groups, sent after the list. Counterpart: rsync's `uidlist.c`.

use crate::wire::{Decoded, Ints, Reader};

/// Names that go with numeric ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdNames {
    /// Owners.
    pub users: Vec<(u32, Vec<u8>)>,
    /// Groups.
    pub groups: Vec<(u32, Vec<u8>)>,
}

/// Ids at the peer beyond this number are noise or an attack.
pub(super) const IDS_MOST: usize = 1 << 20;

/// One step of an id list: another id with its name, or the end: with the name of id 0 where the session carries it
/// (`id0_names`).
pub(super) fn decode_id(reader: &mut Reader<'_>, ints: Ints, id0_names: bool) -> Decoded<(u32, Option<Vec<u8>>)> {
    let id = ints.int(reader)? as u32;
    if id == 0 && !id0_names {
        return Ok((0, None));
    }
    let len = reader.byte()?;
    Ok((id, Some(reader.take(len.into())?.to_vec())))
}

/// Writes one id list with its end, `id0_names` as for [`decode_id`]. Names longer than 255 bytes stay out.
pub(super) fn encode_ids(ids: &[(u32, Vec<u8>)], ints: Ints, id0_names: bool, out: &mut Vec<u8>) {
    let mut put = |id: u32, name: &[u8]| {
        if let Ok(len) = u8::try_from(name.len()) {
            ints.put_int(out, id as i32);
            out.push(len);
            out.extend_from_slice(name);
        }
    };
    for (id, name) in ids.iter().filter(|(id, _)| *id != 0) {
        put(*id, name);
    }
    let root = ids.iter().find(|(id, name)| *id == 0 && name.len() <= 255).map_or(&b""[..], |(_, name)| name);
    if id0_names {
        put(0, root);
    } else {
        ints.put_int(out, 0);
    }
}
