//! What a transfer came to, as its last lines say.

use crate::report::numbers::{human, human_fraction};
use protocol::flist::{FileEntry, FileList, Kind};
use protocol::generator::DeleteCounts;
use std::fmt::Write;
use std::time::Instant;

/// How many of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    files: u64,
    dirs: u64,
    links: u64,
    devices: u64,
    specials: u64,
}

impl Kinds {
    pub(super) fn add(&mut self, kind: Option<Kind>) {
        *match kind {
            Some(Kind::Dir) => &mut self.dirs,
            Some(Kind::Symlink) => &mut self.links,
            Some(Kind::Device) => &mut self.devices,
            Some(Kind::Special) => &mut self.specials,
            Some(Kind::File) | None => &mut self.files,
        } += 1;
    }

    fn text(&self, level: u8) -> String {
        let kinds = [
            ("reg", self.files),
            ("dir", self.dirs),
            ("link", self.links),
            ("dev", self.devices),
            ("special", self.specials),
        ];
        let total = kinds.iter().map(|(_, count)| count).sum();
        let parts: Vec<_> = kinds
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name}: {}", human(*count, level)))
            .collect();
        match parts.is_empty() {
            true => human(total, level),
            false => format!("{} ({})", human(total, level), parts.join(", ")),
        }
    }
}

impl From<&DeleteCounts> for Kinds {
    fn from(counts: &DeleteCounts) -> Self {
        let DeleteCounts { files, dirs, symlinks, devices, specials } = *counts;
        Self { files, dirs, links: symlinks, devices, specials }
    }
}

/// The numbers of one session, at the client.
#[derive(Debug)]
pub(super) struct Stats {
    /// The session's protocol version; before 31 nothing is known of deletions, and before 29 of what is new.
    pub(super) version: u8,
    started: Instant,
    listed: Kinds,
    created: Kinds,
    pub(super) deleted: Kinds,
    pub(super) transferred: u64,
    pub(super) transferred_size: u64,
    pub(super) literal: u64,
    pub(super) matched: u64,
    pub(super) total_size: u64,
    pub(super) list_bytes: u64,
    /// Milliseconds.
    pub(super) list_build: u64,
    /// Milliseconds.
    pub(super) list_transfer: u64,
    pub(super) written: u64,
    pub(super) read: u64,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            version: 0,
            started: Instant::now(),
            listed: Kinds::default(),
            created: Kinds::default(),
            deleted: Kinds::default(),
            transferred: 0,
            transferred_size: 0,
            literal: 0,
            matched: 0,
            total_size: 0,
            list_bytes: 0,
            list_build: 0,
            list_transfer: 0,
            written: 0,
            read: 0,
        }
    }

    /// The list is known. As stock does, this reckons in what was named twice.
    pub(super) fn listed(&mut self, list: &FileList) {
        for entry in list.entries().iter().filter(|entry| !entry.name.is_empty()) {
            self.listed.add(entry.kind());
            if matches!(entry.kind(), Some(Kind::File | Kind::Symlink)) {
                self.total_size += entry.len;
            }
        }
    }

    pub(super) fn created(&mut self, entry: &FileEntry) {
        self.created.add(entry.kind());
    }

    /// The block of `--stats`, an empty line first.
    pub(super) fn block(&self, level: u8) -> String {
        let mut text = String::from("\n");
        let mut line = |name: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}: {value}");
        };
        let seconds = |milliseconds: u64| format!("{}.{:03} seconds", milliseconds / 1000, milliseconds % 1000);
        line("Number of files", self.listed.text(level));
        if self.version > 28 {
            line("Number of created files", self.created.text(level));
        }
        if self.version > 30 {
            line("Number of deleted files", self.deleted.text(level));
        }
        line("Number of regular files transferred", human(self.transferred, level));
        line("Total file size", human(self.total_size, level) + " bytes");
        line("Total transferred file size", human(self.transferred_size, level) + " bytes");
        line("Literal data", human(self.literal, level) + " bytes");
        line("Matched data", human(self.matched, level) + " bytes");
        line("File list size", human(self.list_bytes, level));
        line("File list generation time", seconds(self.list_build));
        line("File list transfer time", seconds(self.list_transfer));
        line("Total bytes sent", human(self.written, level));
        line("Total bytes received", human(self.read, level));
        text
    }

    /// The two lines of a summary, without an empty line before them; a `dry_run` is marked as one.
    pub(super) fn summary(&self, level: u8, dry_run: bool) -> String {
        let moved = self.written + self.read;
        let seconds = self.started.elapsed().as_secs() as f64 + 0.5;
        let rate = human_fraction(moved as f64 / seconds, level);
        let speedup = human_fraction(self.total_size as f64 / moved.max(1) as f64, level);
        format!(
            "sent {} bytes  received {} bytes  {rate} bytes/sec\ntotal size is {}  speedup is {speedup}{}\n",
            human(self.written, level),
            human(self.read, level),
            human(self.total_size, level),
            if dry_run { " (DRY RUN)" } else { "" },
        )
    }
}
