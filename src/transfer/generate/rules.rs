//! Transfer rules: which entries are left as they are here, whatever the sender has.

use super::Work;
use crate::disk::shown;
use crate::transfer::dest::Found;
use protocol::flist::{FileEntry, Kind};

impl Work<'_> {
    /// Whether an entry is left alone.
    pub(super) fn is_left_alone(&mut self, name: &[u8], entry: &FileEntry, kind: Kind, found: Option<&Found>) -> bool {
        let above = |(at, &byte): (usize, &u8)| (byte == b'/').then(|| &name[..at]);
        if !self.blocked.is_empty() && name.iter().enumerate().filter_map(above).any(|dir| self.blocked.contains(dir)) {
            let path = shown(name);
            self.board.complain(&format!("recv_generator: failed to stat \"{path}\": Not a directory (20)"));
            return true;
        }
        let Some(found) = found else { return self.options.existing };
        let both_dirs = kind == Kind::Dir && found.kind() == Some(Kind::Dir);
        if self.options.ignore_existing && !both_dirs {
            if kind == Kind::Dir {
                self.blocked.insert(name.to_vec());
            }
            return true;
        }
        self.options.update && kind == Kind::File && self.is_newer(found, entry)
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
