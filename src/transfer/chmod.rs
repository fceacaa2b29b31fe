//! `--chmod`: changes to the permissions that the sending side gives. Counterpart: rsync's `chmod.c`.

use protocol::flist::{FileEntry, Kind};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// A list of changes, made one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chmod(Vec<Change>);

/// A `--chmod` that cannot be read; in stock's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid argument passed to --chmod ({0})")]
pub struct ChmodError(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    dirs: bool,
    files: bool,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Octal: these bits and no others.
    Exactly(u32),
    Change {
        operator: Operator,
        /// `rwx` of those it is for, and what of it the umask leaves where nobody is named.
        whom: u32,
        named: bool,
        umasked: u32,
        what: What,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// `rwx` as one digit, bits above them, and whether execution depends on the mode (`X`).
    Bits { rwx: u32, top: u32, if_executable: bool },
    /// The permissions of one class, by how far they lie from the right.
    Copy(u32),
}

impl Chmod {
    /// Reads comma-separated items, each for directories (`D`), for all else (`F`) or for both.
    pub fn parse(text: &[u8], umask: u32) -> Result<Self, ChmodError> {
        let items = text.split(|&byte| byte == b',').map(|item| Change::parse(item, umask));
        let changes: Option<_> = items.collect();
        changes.map(Self).ok_or_else(|| ChmodError(String::from_utf8_lossy(text).into_owned()))
    }

    /// The further items after these.
    pub fn and(mut self, later: Self) -> Self {
        self.0.extend(later.0);
        self
    }

    /// The mode that comes of a mode; its type bits stay.
    pub fn apply(&self, mode: u32, dir: bool) -> u32 {
        let changes = self.0.iter().filter(|change| if dir { change.dirs } else { change.files });
        let new = changes.fold(mode & 0o7777, |mode, change| change.action.apply(mode, dir));
        mode & !0o7777 | new
    }

    /// Changes an entry, unless it is a symlink.
    pub fn change(&self, entry: &mut FileEntry) {
        if entry.kind() != Some(Kind::Symlink) {
            entry.mode = self.apply(entry.mode, entry.is_dir());
        }
    }
}

impl Change {
    fn parse(item: &[u8], umask: u32) -> Option<Self> {
        let (dirs, files, item) = match item {
            [b'D', rest @ ..] => (true, false, rest),
            [b'F', rest @ ..] => (false, true, rest),
            _ => (true, true, item),
        };
        let action = if item.first()?.is_ascii_digit() { octal(item)? } else { symbolic(item, umask)? };
        Some(Self { dirs, files, action })
    }
}

fn octal(item: &[u8]) -> Option<Action> {
    let digit = |bits: u32, byte: &u8| (b'0'..=b'7').contains(byte).then(|| bits << 3 | u32::from(byte - b'0'));
    let bits = item.iter().try_fold(0, |bits, byte| digit(bits, byte).filter(|&bits| bits <= 0o7777))?;
    Some(Action::Exactly(bits))
}

fn symbolic(item: &[u8], umask: u32) -> Option<Action> {
    let at = item.iter().position(|byte| b"+-=".contains(byte))?;
    let (mut whom, mut set_ids) = (0, 0);
    for class in &item[..at] {
        let (rwx, top) = match class {
            b'u' => (0o700, SET_UID),
            b'g' => (0o070, SET_GID),
            b'o' => (0o007, 0),
            b'a' => (0o777, SET_UID | SET_GID),
            _ => return None,
        };
        (whom, set_ids) = (whom | rwx, set_ids | top);
    }
    let umasked = if at == 0 { 0o777 & !umask } else { whom };
    let whom = if at == 0 { 0o777 } else { whom };
    let operator = match item[at] {
        b'+' => Operator::Add,
        b'-' => Operator::Remove,
        _ => Operator::Set,
    };
    let what = match &item[at + 1..] {
        b"u" => What::Copy(6),
        b"g" => What::Copy(3),
        b"o" => What::Copy(0),
        letters => {
            let (mut rwx, mut top, mut if_executable) = (0, 0, false);
            for letter in letters {
                match letter {
                    b'r' => rwx |= 4,
                    b'w' => rwx |= 2,
                    b'x' => rwx |= 1,
                    b'X' => if_executable = true,
                    b's' if set_ids == 0 => top |= SET_UID,
                    b's' => top |= set_ids,
                    b't' => top |= STICKY,
                    _ => return None,
                }
            }
            What::Bits { rwx, top, if_executable }
        }
    };
    Some(Action::Change { operator, whom, named: at > 0, umasked, what })
}

impl Action {
    fn apply(self, mode: u32, dir: bool) -> u32 {
        let (operator, whom, named, umasked, what) = match self {
            Self::Exactly(bits) => return bits,
            Self::Change { operator, whom, named, umasked, what } => (operator, whom, named, umasked, what),
        };
        let (rwx, top) = match what {
            What::Copy(shift) => (mode >> shift & 7, 0),
            What::Bits { rwx, top, if_executable: false } => (rwx, top),
            What::Bits { rwx, top, .. } if dir || mode & 0o111 != 0 => (rwx | 1, top),
            What::Bits { rwx, top, .. } => (rwx & !1, top),
        };
        let bits = (rwx * 0o111) & umasked | top;
        match operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => {
                let above = |class: u32, top: u32| if whom & class != 0 { top } else { 0 };
                let set_ids = above(0o700, SET_UID) | above(0o070, SET_GID);
                // A copy clears the bits above, and so does who is given some of them by name.
                let cleared = match what {
                    What::Copy(_) => set_ids | above(0o007, STICKY),
                    What::Bits { .. } if top != 0 && named => set_ids,
                    What::Bits { .. } => 0,
                };
                mode & !(whom | cleared) | bits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stock makes of directories 755, 700, 2750 and files 0, 640, 755, 444, 4711, 1640 with a umask of 022.
    #[test]
    fn as_stock_changes_modes() {
        let dirs = [0o700, 0o755, 0o2750];
        let files = [0, 0o444, 0o640, 0o755, 0o1640, 0o4711];
        for line in include_str!("chmod/stock.txt").lines() {
            let (text, expected) = line.split_once('\t').unwrap();
            let parsed = Chmod::parse(text.as_bytes(), 0o022);
            if expected == "invalid" {
                assert!(parsed.is_err(), "{text}: {parsed:?}");
                continue;
            }
            let chmod = parsed.unwrap_or_else(|error| panic!("{text}: {error}"));
            let modes = dirs.iter().map(|&mode| chmod.apply(mode, true));
            let modes = modes.chain(files.iter().map(|&mode| chmod.apply(mode, false)));
            let modes: Vec<_> = modes.map(|mode| format!("{mode:o}")).collect();
            assert_eq!(modes.join(" "), expected, "{text}");
        }
    }
}
