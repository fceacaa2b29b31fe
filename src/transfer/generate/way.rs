//! Room for an entry where something of another kind stands.

use super::Work;
use crate::transfer::beneath::shown;
use crate::transfer::dest::{Dest, Found, in_place};
use protocol::flist::Kind;
use protocol::mux::{Message, TextKind};

impl Work<'_> {
    /// Sees to it that an entry of another kind can take the name; false when it cannot, which has been said.
    pub(super) fn make_way(&mut self, dest: &Dest, name: &[u8], found: &Found, wanted: Kind) -> bool {
        let in_the_way = found.kind() == Some(Kind::Dir);
        // What is no directory gives way in the same step in which the new entry comes, unless that is written in place.
        let keep = wanted != Kind::Dir && !(wanted == Kind::File && in_place(self.options));
        if !in_the_way && (keep || self.options.dry_run) {
            return true;
        }
        let done = match in_the_way {
            false => dest.back_up(name).map(|_| true),
            true => self.remove_dir(dest, name),
        };
        match done {
            Ok(true) => return true,
            Ok(false) => {
                let kind = match wanted {
                    Kind::File => "regular file",
                    Kind::Dir => "directory",
                    Kind::Symlink => "symlink",
                    Kind::Device => "device file",
                    Kind::Special => "special file",
                };
                self.fail(&format!("could not make way for new {kind}: {}", shown(name)));
            }
            Err(error) => self.board.complain(&error.to_string()),
        }
        false
    }

    /// Removes a directory, with all that is in it if the options say so; false when something stays in it.
    fn remove_dir(&mut self, dest: &Dest, name: &[u8]) -> Result<bool, crate::transfer::dest::DestError> {
        let emptied = !self.options.force || self.empty_dir(dest, name)?;
        let full = if self.options.force && self.options.dry_run { false } else { !dest.list(name)?.is_empty() };
        if full || !emptied {
            self.tell(&format!("cannot delete non-empty directory: {}", shown(name)));
            return Ok(false);
        }
        if !self.options.dry_run {
            dest.remove_dir(name)?;
        }
        Ok(true)
    }

    /// Removes what is in a directory, the deepest first; false when something stays.
    fn empty_dir(&mut self, dest: &Dest, top: &[u8]) -> Result<bool, crate::transfer::dest::DestError> {
        // Depth first without recursion: a directory is listed once and, when seen again, removed.
        let mut waiting = vec![(top.to_vec(), false)];
        let mut empty = true;
        while let Some((name, seen)) = waiting.pop() {
            if seen {
                if name == top {
                    continue;
                }
                if !self.options.dry_run && !dest.list(&name)?.is_empty() {
                    self.tell(&format!("cannot delete non-empty directory: {}", shown(&name)));
                    empty = false;
                    continue;
                }
                if !self.options.dry_run {
                    dest.remove_dir(&name)?;
                }
                self.deleted(&name, true);
                continue;
            }
            waiting.push((name.clone(), true));
            let mut children = dest.list(&name)?;
            children.sort();
            let mut files = Vec::new();
            for leaf in children {
                let path = [&name[..], b"/", &leaf].concat();
                match dest.stat(&path)?.and_then(|found| found.kind()) {
                    Some(Kind::Dir) => waiting.push((path, false)),
                    _ => files.push(path),
                }
            }
            for path in files.into_iter().rev() {
                if !self.options.dry_run {
                    dest.back_up(&path)?;
                }
                self.deleted(&path, false);
            }
        }
        Ok(empty)
    }

    /// Tells the client of a deletion.
    fn deleted(&mut self, name: &[u8], dir: bool) {
        let mut name = name.to_vec();
        if dir {
            name.push(0);
        }
        self.out.message(&Message::Deleted(name));
    }

    /// Trouble with an entry in stock's own words.
    fn fail(&mut self, text: &str) {
        self.board.lock().complaints += 1;
        self.out.message(&Message::Text(TextKind::ErrorXfer, format!("{text}\n").into()));
    }
}
