//! Transfer rules: which entries are left as they are here, whatever the sender has.

use super::Work;
use super::entry::told;
use crate::disk::shown;
use crate::transfer::dest::Found;
use protocol::args::Info;
use protocol::flist::{FileEntry, Kind};

impl Work<'_> {
    pub(super) fn is_left_alone(&mut self, name: &[u8], entry: &FileEntry, kind: Kind, found: Option<&Found>) -> bool {
        let above = |(at, &byte): (usize, &u8)| (byte == b'/').then(|| &name[..at]);
        if !self.blocked.is_empty() && name.iter().enumerate().filter_map(above).any(|dir| self.blocked.contains(dir)) {
            let path = shown(name);
            self.board.complain(&format!("recv_generator: failed to stat \"{path}\": Not a directory (20)"));
            return true;
        }
        let Some(found) = found else {
            if self.options.existing {
                let what: &[u8] = if kind == Kind::Dir { b"directory" } else { b"file" };
                self.tell_left(&[b"not creating new ", what, b" \"", name, b"\""]);
                return true;
            }
            return self.has_wrong_size(name, entry, kind);
        };
        let both_dirs = kind == Kind::Dir && found.kind() == Some(Kind::Dir);
        if self.options.ignore_existing && !both_dirs {
            if kind == Kind::Dir {
                self.blocked.insert(name.to_vec());
            }
            match self.options.level(Info::Skip) {
                0 => {}
                1 => self.tell(&[name, b" exists"]),
                _ => {
                    let how = self.difference(name, entry, kind, found);
                    self.tell(&[name, b" exists (", how.as_bytes(), b")"]);
                }
            }
            return true;
        }
        if self.has_wrong_size(name, entry, kind) {
            return true;
        }
        let newer = self.options.update && kind == Kind::File && self.is_newer(found, entry);
        if newer {
            self.tell_left(&[name, b" is newer"]);
        }
        newer
    }

    /// Whether a file is larger or smaller than it may be.
    fn has_wrong_size(&mut self, name: &[u8], entry: &FileEntry, kind: Kind) -> bool {
        let too_large = self.options.max_size.is_some_and(|most| entry.len > most);
        let too_small = self.options.min_size.is_some_and(|least| entry.len < least);
        let wrong = kind == Kind::File && (too_large || too_small);
        if wrong {
            self.tell_left(&[name, if too_large { b" is over max-size" } else { b" is under min-size" }]);
        }
        wrong
    }

    fn tell_left(&mut self, words: &[&[u8]]) {
        if self.options.level(Info::Skip) > 0 {
            self.tell(words);
        }
    }

    /// What of something that exists here is not as the sender has it.
    fn difference(&mut self, name: &[u8], entry: &FileEntry, kind: Kind, found: &Found) -> &'static str {
        if found.kind() != Some(kind) {
            return "type change";
        }
        let Some(dest) = self.dest.clone() else { return "file change" };
        let same = match kind {
            Kind::File => self.is_up_to_date(&dest, name, entry, found),
            Kind::Dir => true,
            _ => dest.is_same_node(name, entry, kind, found).unwrap_or(false),
        };
        match same {
            false if self.options.checksum => "sum change",
            false => "file change",
            true if !told(&self.change(&dest, entry, found), kind).is_empty() => "attr change",
            true => "uptodate",
        }
    }

    /// Whether what stands here is a newer file (`-u`).
    fn is_newer(&self, found: &Found, entry: &FileEntry) -> bool {
        let newer = match self.options.modify_window {
            ..0 => (found.mtime, found.nsec) > (entry.mtime, entry.nsec),
            // As stock does, the window counts what is hardly older as newer.
            window => i128::from(entry.mtime) - i128::from(found.mtime) < i128::from(window),
        };
        found.kind() == Some(Kind::File) && newer
    }
}
