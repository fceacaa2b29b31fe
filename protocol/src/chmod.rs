//! `--chmod`: changes to permissions, in the words of chmod(1) with rsync's `D` and `F`. Counterpart: rsync's `chmod.c`.

use crate::flist::{FileEntry, Kind};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// A list of changes, made one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chmod(Vec<Change>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    dirs: bool,
    files: bool,
    action: ChmodAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChmodAction {
    /// Octal: these bits and no others.
    Exactly(u32),
    Change {
        operator: Operator,
        /// `rwx` of those it is for; `None` for all, less the umask.
        whom: Option<u32>,
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
    /// Reads comma-separated items such as `Dg+s,ug+w,Fo-w,+X` or `D2775,F664`, each for directories (`D`), for all else
    /// (`F`) or for both; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        text.split(|&byte| byte == b',').map(Change::parse).collect::<Option<_>>().map(Self)
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The permissions (`0o7777`) of `mode` after the changes; its other bits stay. Items without `u`, `g`, `o` or `a`
    /// leave the bits of `umask` alone.
    pub fn apply(&self, mode: u32, is_dir: bool, umask: u32) -> u32 {
        let changes = self.0.iter().filter(|change| if is_dir { change.dirs } else { change.files });
        // Whether somebody may execute is asked of the mode as it was.
        let executable = is_dir || mode & 0o111 != 0;
        let new = changes.fold(mode & 0o7777, |mode, change| change.action.apply(mode, executable, umask));
        mode & !0o7777 | new
    }

    /// Changes an entry, unless it is a symlink.
    pub fn change(&self, entry: &mut FileEntry, umask: u32) {
        if entry.kind() != Some(Kind::Symlink) {
            entry.mode = self.apply(entry.mode, entry.is_dir(), umask);
        }
    }
}

impl Change {
    fn parse(item: &[u8]) -> Option<Self> {
        let (dirs, files, item) = match item {
            [b'D', rest @ ..] => (true, false, rest),
            [b'F', rest @ ..] => (false, true, rest),
            _ => (true, true, item),
        };
        let action = if item.first()?.is_ascii_digit() { octal(item)? } else { symbolic(item)? };
        Some(Self { dirs, files, action })
    }
}

fn octal(item: &[u8]) -> Option<ChmodAction> {
    let digit = |bits: u32, byte: &u8| (b'0'..=b'7').contains(byte).then(|| bits << 3 | u32::from(byte - b'0'));
    let bits = item.iter().try_fold(0, |bits, byte| digit(bits, byte).filter(|&bits| bits <= 0o7777))?;
    Some(ChmodAction::Exactly(bits))
}

fn symbolic(item: &[u8]) -> Option<ChmodAction> {
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
    Some(ChmodAction::Change { operator, whom: (at > 0).then_some(whom), what })
}

impl ChmodAction {
    fn apply(self, mode: u32, executable: bool, umask: u32) -> u32 {
        let (operator, named, what) = match self {
            Self::Exactly(bits) => return bits,
            Self::Change { operator, whom, what } => (operator, whom, what),
        };
        let whom = named.unwrap_or(0o777);
        let umasked = named.unwrap_or(0o777 & !umask);
        let (rwx, top) = match what {
            What::Copy(shift) => (mode >> shift & 7, 0),
            What::Bits { rwx, top, if_executable: false } => (rwx, top),
            What::Bits { rwx, top, .. } if executable => (rwx | 1, top),
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
                    What::Bits { .. } if top != 0 && named.is_some() => set_ids,
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
            let parsed = Chmod::parse(text.as_bytes());
            if expected == "invalid" {
                assert_eq!(parsed, None, "{text}");
                continue;
            }
            let chmod = parsed.unwrap_or_else(|| panic!("{text}"));
            let modes = dirs.iter().map(|&mode| chmod.apply(mode, true, 0o022));
            let modes = modes.chain(files.iter().map(|&mode| chmod.apply(mode, false, 0o022)));
            let modes: Vec<_> = modes.map(|mode| format!("{mode:o}")).collect();
            assert_eq!(modes.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn modes_become_what_stock_makes_of_them() {
        for (text, file, dir) in [
            ("g+rwX,o+rX", 0o664, 0o775),
            ("D2775,F664", 0o664, 0o2775),
            ("Dg+s,ug+w,Fo-w,+X", 0o664, 0o2775),
            ("a=r", 0o444, 0o444),
            ("u=rwx,g=,o=", 0o700, 0o700),
            ("Fu+x,+X", 0o744, 0o755),
            ("u+rs", 0o4644, 0o4755),
            ("=s", 0o4000, 0o4000),
            ("a+t", 0o1644, 0o1755),
            ("Fu=s", 0o4044, 0o755),
            ("a-w", 0o444, 0o555),
            ("600", 0o600, 0o600),
            ("+w", 0o644, 0o755),
        ] {
            let chmod = Chmod::parse(text.as_bytes()).unwrap();
            let after = (chmod.apply(0o100644, false, 0o022), chmod.apply(0o040755, true, 0o022));
            assert_eq!((after.0 & 0o7777, after.1 & 0o7777), (file, dir), "{text}");
            assert_eq!((after.0 & 0o170000, after.1 & 0o170000), (0o100000, 0o040000));
        }
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for text in ["", "rw", "g+rw,", "8", "77777", "u+q", "z+r", "DF+r", "u+r-w", "0x1"] {
            assert_eq!(Chmod::parse(text.as_bytes()), None, "{text}");
        }
    }
}
