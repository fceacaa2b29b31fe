//! How much of a list, and of what goes with it, is held.

use super::FileEntry;

/// How much list a peer may make us hold at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLimits {
    /// Entries.
    pub entries: usize,
    /// Bytes of names, targets and extended attributes, all together.
    pub name_bytes: usize,
    /// Bytes of memory for what stands beside the list: filter rules, names of owners and groups.
    pub beside: usize,
}

/// Memory for what a peer makes us hold beside a list: some hundred thousand rules or owners.
const BESIDE_MOST: usize = 24 << 20;

impl ListLimits {
    /// Nothing at all.
    pub const NONE: Self = Self { entries: 0, name_bytes: 0, beside: 0 };

    /// Our own bounds, or less where the options say so (`--max-alloc`); 0 says nothing.
    pub fn within(max_alloc: u64) -> Self {
        let limits = Self::default();
        match usize::try_from(max_alloc).unwrap_or(usize::MAX) {
            0 => limits,
            bytes => Self {
                entries: limits.entries.min(bytes / size_of::<FileEntry>()),
                name_bytes: limits.name_bytes.min(bytes),
                beside: limits.beside.min(bytes),
            },
        }
    }

    /// Counts something in; false when it is more than is left.
    pub(crate) fn take(&mut self, what: Self) -> bool {
        let Some(entries) = self.entries.checked_sub(what.entries) else { return false };
        let Some(name_bytes) = self.name_bytes.checked_sub(what.name_bytes) else { return false };
        let Some(beside) = self.beside.checked_sub(what.beside) else { return false };
        *self = Self { entries, name_bytes, beside };
        true
    }

    /// Counts something out again.
    pub(crate) fn put_back(&mut self, what: Self) {
        self.entries += what.entries;
        self.name_bytes += what.name_bytes;
        self.beside += what.beside;
    }

    /// What an entry counts.
    pub(crate) fn of(entry: &FileEntry) -> Self {
        let name_bytes = entry.name.len() + entry.extra.target.as_ref().map_or(0, Vec::len);
        Self { entries: 1, name_bytes, beside: 0 }
    }
}

impl Default for ListLimits {
    fn default() -> Self {
        Self { entries: 10_000_000, name_bytes: 1 << 30, beside: BESIDE_MOST }
    }
}
