//! How much of a list is held.

use super::FileEntry;

/// How much list a peer may make us hold at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLimits {
    /// Entries.
    pub entries: usize,
    /// Bytes of names, targets and extended attributes, all together.
    pub name_bytes: usize,
}

impl ListLimits {
    /// Counts something in; false when it is more than is left.
    pub(crate) fn take(&mut self, what: Self) -> bool {
        let Some(entries) = self.entries.checked_sub(what.entries) else { return false };
        let Some(name_bytes) = self.name_bytes.checked_sub(what.name_bytes) else { return false };
        *self = Self { entries, name_bytes };
        true
    }

    /// Counts something out again.
    pub(crate) fn put_back(&mut self, what: Self) {
        self.entries += what.entries;
        self.name_bytes += what.name_bytes;
    }

    /// What an entry counts.
    pub(crate) fn of(entry: &FileEntry) -> Self {
        Self { entries: 1, name_bytes: entry.name.len() + entry.extra.target.as_ref().map_or(0, Vec::len) }
    }
}

impl Default for ListLimits {
    fn default() -> Self {
        Self { entries: 10_000_000, name_bytes: 1 << 30 }
    }
}
