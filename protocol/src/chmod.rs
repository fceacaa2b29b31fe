//! `--chmod`: changes to permissions, in the words of chmod(1) with rsync's `D` and `F`.

/// Changes to permissions, applied in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chmod(Vec<Clause>);

/// What one clause concerns, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clause {
    dirs: bool,
    files: bool,
    change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// All twelve bits.
    Octal(u32),
    Symbolic {
        /// The permission bits of those concerned, as in `0o770`; `None` for all, less the umask.
        who: Option<u32>,
        op: Op,
        /// Permissions as for the owner, `0o7`.
        bits: u32,
        /// Execution only where it is a directory or somebody may execute already.
        execute_if: bool,
        /// Set-id.
        set_id: bool,
        sticky: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Take,
    Set,
}

impl Chmod {
    /// Reads clauses such as `Dg+s,ug+w,Fo-w,+X` or `D2775,F664`; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        text.split(|&byte| byte == b',').map(clause).collect::<Option<_>>().map(Self)
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The permissions (`0o7777`) of `mode` after the changes; its other bits stay. Clauses without `u`, `g`, `o` or `a`
    /// leave the bits of `umask` alone.
    pub fn apply(&self, mode: u32, is_dir: bool, umask: u32) -> u32 {
        let concerned = |clause: &&Clause| if is_dir { clause.dirs } else { clause.files };
        // Whether somebody may execute is asked of the mode as it was.
        let executable = is_dir || mode & 0o111 != 0;
        self.0.iter().filter(concerned).fold(mode, |mode, clause| clause.change.apply(mode, executable, umask))
    }
}

fn clause(text: &[u8]) -> Option<Clause> {
    let (dirs, files, text) = match text {
        [b'D', rest @ ..] => (true, false, rest),
        [b'F', rest @ ..] => (false, true, rest),
        rest => (true, true, rest),
    };
    let change = match text {
        [b'0'..=b'7', ..] if text.len() <= 5 && text.iter().all(|byte| (b'0'..=b'7').contains(byte)) => {
            let value = text.iter().fold(0u32, |value, byte| value * 8 + u32::from(byte - b'0'));
            Change::Octal(Some(value).filter(|value| *value <= 0o7777)?)
        }
        text => symbolic(text)?,
    };
    Some(Clause { dirs, files, change })
}

fn symbolic(text: &[u8]) -> Option<Change> {
    let at = text.iter().position(|byte| b"+-=".contains(byte))?;
    let mut who = None;
    for byte in &text[..at] {
        let bits = match byte {
            b'u' => 0o700,
            b'g' => 0o070,
            b'o' => 0o007,
            b'a' => 0o777,
            _ => return None,
        };
        who = Some(who.unwrap_or(0) | bits);
    }
    let op = match text[at] {
        b'+' => Op::Add,
        b'-' => Op::Take,
        _ => Op::Set,
    };
    let (mut bits, mut execute_if, mut set_id, mut sticky) = (0, false, false, false);
    for byte in &text[at + 1..] {
        match byte {
            b'r' => bits |= 4,
            b'w' => bits |= 2,
            b'x' => bits |= 1,
            b'X' => execute_if = true,
            b's' => set_id = true,
            b't' => sticky = true,
            _ => return None,
        }
    }
    Some(Change::Symbolic { who, op, bits, execute_if, set_id, sticky })
}

impl Change {
    fn apply(self, mode: u32, executable: bool, umask: u32) -> u32 {
        let Self::Symbolic { who, op, bits, execute_if, set_id, sticky } = self else {
            let Self::Octal(value) = self else { return mode };
            return mode & !0o7777 | value;
        };
        let concerned = who.unwrap_or(0o777 & !umask);
        let bits = bits | u32::from(execute_if && executable);
        let mut change = (bits * 0o111) & concerned;
        let of = |whose: u32, special: u32| if concerned & whose != 0 { special } else { 0 };
        let specials = of(0o700, 0o4000) | if who.is_some() { of(0o070, 0o2000) } else { 0 };
        if set_id {
            change |= specials;
        }
        if sticky {
            change |= 0o1000;
        }
        match op {
            Op::Add => mode | change,
            Op::Take => mode & !change,
            Op::Set => mode & !concerned & !(if set_id { specials } else { 0 }) | change,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
