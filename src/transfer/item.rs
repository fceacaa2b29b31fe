//! An item, as rsync calls it: an entry of the list, and what differs of it.

use protocol::flist::{FileEntry, Ndx};
use protocol::item::ItemHeader;

/// What is told of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its index.
    pub ndx: Ndx,
    /// The entry.
    pub entry: &'a FileEntry,
    /// What differs of it.
    pub header: &'a ItemHeader,
}
