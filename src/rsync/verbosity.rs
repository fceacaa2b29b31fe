//! How much is said about what: the flags of `--info` and `--debug`, and what `-v` sets of them.

use super::usage::Usage;

/// One flag with its help and highest level.
pub(super) struct Flag {
    /// As it is typed, in capitals.
    pub(super) name: &'static str,
    /// What it shows.
    pub(super) help: &'static str,
    /// From how many `-v` on it is at level 1, 2, ….
    pub(super) verbose: &'static [u8],
}

const fn flag(name: &'static str, help: &'static str, verbose: &'static [u8]) -> Flag {
    Flag { name, help, verbose }
}

/// What `--info` knows.
pub(super) const INFO: &[Flag] = &[
    flag("BACKUP", "files that were backed up", &[2]),
    flag("COPY", "files copied locally on the receiving side", &[1]),
    flag("DEL", "deletions on the receiving side", &[1]),
    flag("FLIST", "sending and receiving of the file list (levels 1-2)", &[1]),
    flag("MISC", "this and that (levels 1-2)", &[1, 2]),
    flag("MOUNT", "mount points found or skipped", &[2]),
    flag("NAME", "names that 1) were updated, 2) are up to date", &[1, 2]),
    flag("NONREG", "skipped non-regular files (on by itself; 0 silences)", &[0]),
    flag("PROGRESS", "progress of 1) each file, 2) the whole transfer", &[]),
    flag("REMOVE", "files removed on the sending side", &[2]),
    flag("SKIP", "files left alone because of an option (levels 1-2)", &[2]),
    flag("STATS", "statistics at the end (levels 1-2)", &[1]),
    flag("SYMSAFE", "symlinks that are unsafe", &[1]),
];

/// What `--debug` knows.
pub(super) const DEBUG: &[Flag] = &[
    flag("ACL", "ACLs", &[3]),
    flag("BACKUP", "backups (levels 1-2)", &[3]),
    flag("BIND", "binding of sockets", &[2]),
    flag("CHDIR", "changes of directory", &[5]),
    flag("CONNECT", "connections (levels 1-2)", &[2, 3]),
    flag("CMD", "commands and their options (levels 1-2)", &[2, 4]),
    flag("DEL", "deletion (levels 1-3)", &[2, 3, 4]),
    flag("DELTASUM", "checksums of the delta transfer (levels 1-4)", &[2, 3, 4, 5]),
    flag("DUP", "duplicate names", &[2]),
    flag("EXIT", "ends of processes (levels 1-3)", &[3, 4]),
    flag("FILTER", "filter rules (levels 1-3)", &[2, 3]),
    flag("FLIST", "the file list (levels 1-4)", &[2, 3, 4, 5]),
    flag("FUZZY", "choice of a fuzzy basis (levels 1-2)", &[3, 5]),
    flag("GENR", "the generator", &[3]),
    flag("HASH", "hash tables", &[5]),
    flag("HLINK", "hard links (levels 1-3)", &[5]),
    flag("ICONV", "character sets (levels 1-2)", &[2, 4]),
    flag("IO", "input and output (levels 1-4)", &[]),
    flag("NSTR", "negotiated names", &[]),
    flag("OWN", "owners and groups (levels 1-2)", &[3, 4]),
    flag("PROTO", "the protocol", &[4]),
    flag("RECV", "the receiver", &[3]),
    flag("SEND", "the sender", &[3]),
    flag("TIME", "modification times (levels 1-2)", &[3, 4]),
];

/// The levels of one kind of flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    option: &'static str,
    given: Vec<Option<u8>>,
    /// What `-v` and the like set.
    base: Vec<u8>,
}

impl Levels {
    /// Those of `--info`.
    pub fn info() -> Self {
        Self::new("info", INFO)
    }

    /// Those of `--debug`.
    pub fn debug() -> Self {
        Self::new("debug", DEBUG)
    }

    fn new(option: &'static str, flags: &[Flag]) -> Self {
        let mut levels = Self { option, given: vec![None; flags.len()], base: vec![0; flags.len()] };
        levels.verbose(0);
        levels
    }

    fn flags(&self) -> &'static [Flag] {
        if self.option == "info" { INFO } else { DEBUG }
    }

    /// Sets what so many `-v` mean.
    pub(super) fn verbose(&mut self, verbose: u8) {
        for (flag, level) in self.flags().iter().zip(&mut self.base) {
            *level = flag.verbose.iter().filter(|least| verbose >= **least).count() as u8;
        }
    }

    /// At least this, unless the option said otherwise.
    pub(super) fn raise(&mut self, name: &str, least: u8) {
        if let Some(at) = self.at(name) {
            self.base[at] = self.base[at].max(least);
        }
    }

    fn at(&self, name: &str) -> Option<usize> {
        self.flags().iter().position(|flag| flag.name == name)
    }

    /// The level of a flag; 0 for silence.
    pub fn level(&self, name: &str) -> u8 {
        self.at(name).map_or(0, |at| self.given[at].unwrap_or(self.base[at]))
    }

    /// Takes the option's value; true when help was asked for.
    pub(super) fn set(&mut self, value: &[u8]) -> Result<bool, Usage> {
        for word in value.split(|&byte| byte == b',').filter(|word| !word.is_empty()) {
            let digits = word.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            let (name, level) = word.split_at(word.len() - digits);
            let level = std::str::from_utf8(level).unwrap_or_default();
            let level: u8 = if level.is_empty() { 1 } else { level.parse().unwrap_or(u8::MAX) };
            match String::from_utf8_lossy(name).to_ascii_uppercase().as_str() {
                "HELP" => return Ok(true),
                "ALL" => self.given.fill(Some(level)),
                "NONE" => self.given.fill(Some(0)),
                name => match self.at(name) {
                    Some(at) => self.given[at] = Some(level),
                    None => {
                        let item = String::from_utf8_lossy(word).into_owned();
                        return Err(Usage::syntax(format!("Unknown --{} item: {item:?}", self.option)));
                    }
                },
            }
        }
        Ok(false)
    }

    /// What the other end is told: the flags that were given and mean something there.
    pub(super) fn for_peer(&self) -> Option<String> {
        let here = ["FLIST", "PROGRESS"];
        let said = self.flags().iter().zip(&self.given).filter(|(flag, _)| !here.contains(&flag.name));
        let said: Vec<_> = said
            .filter_map(|(flag, level)| {
                level.map(|level| match level {
                    1 => flag.name.to_owned(),
                    level => format!("{}{level}", flag.name),
                })
            })
            .collect();
        (!said.is_empty()).then(|| format!("--{}={}", self.option, said.join(",")))
    }

    /// The text of `=help`.
    pub(super) fn help(&self) -> String {
        let mut text = String::from("NAME or NAME1 for level 1, NAME2 for level 2, and so on; NAME0 silences.\n\n");
        for flag in self.flags() {
            text += &format!("{:<10} {}\n", flag.name, flag.help);
        }
        text += &format!(
            "\nALL        every flag of --{} (ALL4: at that level)\nNONE       none of them (as ALL0)\nHELP       this text\n\nEach -v adds:\n",
            self.option
        );
        for verbose in 0..=5u8 {
            let added = self.flags().iter().flat_map(|flag| {
                flag.verbose.iter().enumerate().filter(|(_, least)| **least == verbose).map(|(level, _)| match level {
                    0 => flag.name.to_owned(),
                    level => format!("{}{}", flag.name, level + 1),
                })
            });
            let added: Vec<_> = added.collect();
            if !added.is_empty() {
                text += &format!("{verbose}) {}\n", added.join(","));
            }
        }
        text
    }
}
