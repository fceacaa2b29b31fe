//! ACLs and extended attributes, which stand behind each entry.

use super::ListDecoder;
use crate::PeerError;
use crate::acl::{Acl, NamedId};
use crate::flist::ids::IDS_MOST;
use crate::flist::{FileEntry, Kind, ListLimits};
use crate::shared::SharedValue;
use crate::wire::{Decode, Decoded, Reader};
use crate::xattr::XattrSet;
use std::sync::Arc;

/// What stands at the end of an entry, often by number.
#[derive(Default)]
pub(super) struct Attributes {
    access_acl: Option<SharedValue<Acl>>,
    default_acl: Option<SharedValue<Acl>>,
    xattrs: Option<SharedValue<XattrSet>>,
    named: Vec<NamedId>,
}

impl ListDecoder {
    /// ACLs and extended attributes.
    pub(super) fn attributes(&self, entry: &FileEntry, reader: &mut Reader<'_>) -> Decoded<Attributes> {
        let mut found = Attributes::default();
        let named = &mut found.named;
        if self.shape.acls && entry.kind() != Some(Kind::Symlink) {
            let what = "ACL number";
            found.access_acl = Some(self.access_acls.decode(reader, what, |reader| Acl::decode(reader, named))?);
            if entry.is_dir() {
                found.default_acl = Some(self.default_acls.decode(reader, what, |reader| Acl::decode(reader, named))?);
            }
        }
        if self.shape.xattrs {
            found.xattrs = Some(self.xattrs.decode(reader, "extended attributes' number", XattrSet::decode)?);
        }
        Ok(found)
    }

    /// Gives the entry its attributes, and numbers those that came whole.
    pub(super) fn adopt(&mut self, entry: &mut FileEntry, found: Attributes) -> Result<(), Decode> {
        let mut fresh = 0;
        for named in found.named {
            let names = if named.group { &mut self.names.groups } else { &mut self.names.users };
            if names.len() >= IDS_MOST {
                return Err(PeerError::Malformed("names of ids without end").into());
            }
            names.push((named.id, named.name));
        }
        let acl_bytes = |(acl, new): (Arc<Acl>, bool), fresh: &mut usize| {
            *fresh += if new { size_of::<Acl>() + size_of_val(&acl.names[..]) } else { 0 };
            acl
        };
        if let Some(item) = found.access_acl {
            entry.extra.access_acl = Some(acl_bytes(self.access_acls.keep(item), &mut fresh));
        }
        if let Some(item) = found.default_acl {
            entry.extra.default_acl = Some(acl_bytes(self.default_acls.keep(item), &mut fresh));
        }
        if let Some(item) = found.xattrs {
            let (xattrs, new) = self.xattrs.keep(item);
            fresh += if new { xattrs.bytes() + size_of_val(&xattrs.0[..]) } else { 0 };
            entry.extra.xattrs = Some(xattrs);
        }
        // Numbers are for the whole session, so nothing is given back.
        Ok(self.hold(ListLimits { name_bytes: fresh, ..ListLimits::NONE })?)
    }
}
