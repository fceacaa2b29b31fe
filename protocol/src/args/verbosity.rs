//! How much is said of what: the flags of `--info` and `--debug`, and what `-v` sets of them.

use super::For::{self, Both, Nobody, Receiver, Sender};
use std::marker::PhantomData;

/// A kind of flags: those of one option.
pub trait Flag: Copy + 'static {
    /// The option, without dashes.
    const OPTION: &'static str;
    /// What is known of each, in the order of their numbers.
    const ROWS: &'static [Row];

    /// Its number.
    fn number(self) -> usize;

    /// Of the levels of both kinds those of this one.
    fn levels<'l>(both: (&'l Levels<Info>, &'l Levels<Debug>)) -> &'l Levels<Self>;
}

/// What is known of a flag.
pub struct Row {
    /// As it is typed, in capitals.
    pub name: &'static str,
    /// What it shows; empty where we never show any of it.
    pub help: &'static str,
    /// From how many `-v` on it is at level 1, 2, ….
    pub verbose: &'static [u8],
    /// The servers that are told of it.
    told: For,
}

impl Row {
    /// The level that so many `-v` set.
    fn base(&self, verbose: u8) -> u8 {
        self.verbose.iter().filter(|least| verbose >= **least).count() as u8
    }
}

macro_rules! flags {
    ($(#[$doc:meta])* $kind:ident, $option:literal, $place:tt {
        $($flag:ident = $name:literal, [$($verbose:literal),*], $told:expr, $help:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind { $(#[doc = concat!("`", $name, "`: ", $help)] $flag),* }

        impl Flag for $kind {
            const OPTION: &'static str = $option;
            const ROWS: &'static [Row] =
                &[$(Row { name: $name, help: $help, verbose: &[$($verbose),*], told: $told }),*];

            fn number(self) -> usize {
                self as usize
            }

            fn levels<'l>(both: (&'l Levels<Info>, &'l Levels<Debug>)) -> &'l Levels<Self> {
                both.$place
            }
        }
    };
}

flags! {
    /// What `--info` knows.
    Info, "info", 0 {
        Backup = "BACKUP", [2], Receiver, "files that were backed up";
        Copy = "COPY", [1], Receiver, "";
        Del = "DEL", [1], Receiver, "deletions on the receiving side";
        Flist = "FLIST", [1], Nobody, "sending and receiving of the file list";
        Misc = "MISC", [1, 2], Both, "what a batch file changes of the options";
        Mount = "MOUNT", [2], Both, "mount points found or skipped";
        Name = "NAME", [1, 2], Both, "names that 1) were updated, 2) are up to date";
        Nonreg = "NONREG", [0], Receiver, "skipped non-regular files (on by itself; 0 silences)";
        Progress = "PROGRESS", [], Nobody, "progress of 1) each file, 2) the whole transfer";
        Remove = "REMOVE", [2], Sender, "files removed on the sending side";
        Skip = "SKIP", [2], Receiver, "files left alone because of an option, 2) and what differs";
        Stats = "STATS", [1], Both, "statistics at the end (levels 1-2)";
        Symsafe = "SYMSAFE", [1], Both, "unsafe symlinks that are followed";
    }
}

flags! {
    /// What `--debug` knows. No server is told: its own `-v` count.
    Debug, "debug", 1 {
        Acl = "ACL", [3], Nobody, "";
        Backup = "BACKUP", [3], Nobody, "";
        Bind = "BIND", [2], Nobody, "";
        Chdir = "CHDIR", [5], Nobody, "";
        Connect = "CONNECT", [2, 3], Nobody, "the connection to a daemon";
        Cmd = "CMD", [2, 4], Nobody, "the command that reaches the other end";
        Del = "DEL", [2, 3, 4], Nobody, "";
        Deltasum = "DELTASUM", [2, 3, 4, 5], Nobody, "what the search for known blocks came to";
        Dup = "DUP", [2], Nobody, "";
        Exit = "EXIT", [3, 4], Nobody, "";
        Filter = "FILTER", [2, 3], Nobody, "names that a filter rule hides, shows, protects or risks";
        Flist = "FLIST", [2, 3, 4, 5], Nobody, "whether files are sent as differences";
        Fuzzy = "FUZZY", [3, 5], Nobody, "";
        Genr = "GENR", [3], Nobody, "";
        Hash = "HASH", [5], Nobody, "";
        Hlink = "HLINK", [5], Nobody, "";
        Iconv = "ICONV", [2, 4], Nobody, "";
        Io = "IO", [], Nobody, "";
        Nstr = "NSTR", [], Nobody, "";
        Own = "OWN", [3, 4], Nobody, "";
        Proto = "PROTO", [4], Nobody, "";
        Recv = "RECV", [3], Nobody, "";
        Send = "SEND", [3], Nobody, "";
        Time = "TIME", [3, 4], Nobody, "";
    }
}

/// The highest level that a flag can be given.
const LEVEL_MOST: u8 = 4;

/// The levels of one kind of flags, beside what `-v` sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels<F> {
    given: Vec<Option<u8>>,
    /// What other options ask for at least, unless the level was given.
    least: Vec<u8>,
    kind: PhantomData<F>,
}

impl<F: Flag> Default for Levels<F> {
    fn default() -> Self {
        let count = F::ROWS.len();
        Self { given: vec![None; count], least: vec![0; count], kind: PhantomData }
    }
}

impl<F: Flag> Levels<F> {
    /// Takes the option's value; true when help was asked for.
    ///
    /// # Errors
    /// The first item that there is none of. Those behind it are taken all the same.
    pub fn set(&mut self, value: &[u8]) -> Result<bool, String> {
        let mut unknown = None;
        for word in value.split(|&byte| byte == b',').filter(|word| !word.is_empty()) {
            let digits = word.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            let (item, level) = word.split_at(word.len() - digits);
            let level = std::str::from_utf8(level).unwrap_or_default();
            let level = if level.is_empty() { 1 } else { level.parse().unwrap_or(LEVEL_MOST).min(LEVEL_MOST) };
            match String::from_utf8_lossy(item).to_ascii_uppercase().as_str() {
                "HELP" => return Ok(true),
                "ALL" => self.given.fill(Some(level)),
                "NONE" => self.given.fill(Some(0)),
                name => match F::ROWS.iter().position(|row| row.name == name) {
                    Some(at) => self.given[at] = Some(level),
                    None => {
                        let item = if item.is_empty() { word } else { item };
                        unknown.get_or_insert_with(|| String::from_utf8_lossy(item).into_owned());
                    }
                },
            }
        }
        match unknown {
            Some(item) => Err(format!("Unknown --{} item: {item:?}", F::OPTION)),
            None => Ok(false),
        }
    }

    /// At least this, unless the option said otherwise.
    pub fn raise(&mut self, flag: F, least: u8) {
        let at = &mut self.least[flag.number()];
        *at = (*at).max(least);
    }

    /// At most what so many `-v` set.
    pub fn limit(&mut self, verbose: u8) {
        for (row, level) in F::ROWS.iter().zip(&mut self.given) {
            *level = level.map(|level| level.min(row.base(verbose)));
        }
    }

    /// The level of the flag of this number beside so many `-v`; 0 for silence.
    pub(super) fn level(&self, at: usize, verbose: u8) -> u8 {
        self.given[at].unwrap_or_else(|| F::ROWS[at].base(verbose).max(self.least[at]))
    }

    /// The same levels, all of them said: for another end of the same command.
    pub fn in_full(&self, verbose: u8) -> Self {
        let differs = |at| Some(self.level(at, verbose)).filter(|level| *level != F::ROWS[at].base(verbose));
        Self { given: (0..F::ROWS.len()).map(differs).collect(), ..Self::default() }
    }

    /// The option as a server within the same command is told of it.
    pub fn whole_word(&self) -> Option<String> {
        self.word(|_| true)
    }

    /// The option as a server elsewhere, the `sender` or not, is told of it; nothing where none of what was given concerns it.
    pub(super) fn word_for(&self, sender: bool) -> Option<String> {
        self.word(|row| row.told.hears(sender))
    }

    fn word(&self, hears: impl Fn(&Row) -> bool) -> Option<String> {
        let heard: Vec<_> = F::ROWS.iter().zip(&self.given).filter(|(row, _)| hears(row)).collect();
        let said: Vec<_> = heard.iter().filter_map(|(row, level)| Some((row.name, (**level)?))).collect();
        let spelt = |name: &str, level: u8| if level == 1 { name.to_owned() } else { format!("{name}{level}") };
        let mut words = Vec::new();
        // Where each has a level, the most common one stands for all of them.
        let common = (0..=LEVEL_MOST).rev().max_by_key(|most| said.iter().filter(|(_, level)| level == most).count());
        let common = common.filter(|_| !said.is_empty() && said.len() == heard.len());
        if let Some(level) = common {
            words.push(if level == 0 { "NONE".to_owned() } else { spelt("ALL", level) });
        }
        let rest = said.into_iter().filter(|(_, level)| Some(*level) != common);
        words.extend(rest.map(|(name, level)| spelt(name, level)));
        (!words.is_empty()).then(|| format!("--{}={}", F::OPTION, words.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    fn info(value: &str) -> Levels<Info> {
        let mut levels = Levels::default();
        levels.set(value.as_bytes()).unwrap();
        levels
    }

    /// As stock 3.5.0 says them.
    #[test]
    fn a_server_is_told_what_concerns_it() {
        for (given, receiver, sender) in [
            ("backup", "BACKUP", ""),
            ("remove,flist,progress2", "", "REMOVE"),
            ("skip,misc,name2,symsafe0", "MISC,NAME2,SKIP,SYMSAFE0", "MISC,NAME2,SYMSAFE0"),
            ("all,name2", "ALL,NAME2", "ALL,NAME2"),
            ("name,all", "ALL", "ALL"),
            ("none,skip", "NONE,SKIP", "NONE"),
            ("all2,skip3,misc999", "ALL2,MISC4,SKIP3", "ALL2,MISC4"),
            ("misc,mount,name,stats,symsafe,remove", "MISC,MOUNT,NAME,STATS,SYMSAFE", "ALL"),
            ("flist", "", ""),
        ] {
            let told = |sender: bool| info(given).word_for(sender).unwrap_or_default();
            let word = |flags: &str| if flags.is_empty() { String::new() } else { format!("--info={flags}") };
            assert_eq!((told(false), told(true)), (word(receiver), word(sender)), "{given}");
        }
        let mut debug = Levels::<Debug>::default();
        debug.set(b"all").unwrap();
        assert_eq!((debug.word_for(false), debug.word_for(true)), (None, None));
        assert_eq!(debug.whole_word().as_deref(), Some("--debug=ALL"));
    }

    /// A name that begins like another is not the other.
    #[test]
    fn a_flag_is_meant_by_its_whole_name() {
        let mut options = Options { verbose: 1, ..Options::default() };
        options.debug.set(b"DELTASUM").unwrap();
        assert_eq!((options.level(Debug::Del), options.level(Debug::Deltasum)), (0, 1));
        assert_eq!((options.level(Info::Skip), options.level(Info::Name), options.level(Info::Nonreg)), (0, 1, 1));
        options.info.raise(Info::Name, 2);
        assert_eq!(options.info.set(b"foo7,skip2,2").unwrap_err(), "Unknown --info item: \"foo\"");
        assert_eq!((options.level(Info::Skip), options.level(Info::Name)), (2, 2));
        assert_eq!(options.info.in_full(1).whole_word().as_deref(), Some("--info=NAME2,SKIP2"));
        options.info.limit(1);
        assert_eq!((options.level(Info::Skip), options.level(Info::Stats)), (0, 1));
        assert!(options.info.set(b"none,help").unwrap());
    }

    /// Made readable it is longer than it came.
    #[test]
    fn what_is_no_text_is_unknown() {
        let mut options = Options::default();
        let unknown = options.debug.set(b"\xff\xfe7,recv").unwrap_err();
        assert_eq!(unknown, "Unknown --debug item: \"\u{fffd}\u{fffd}\"");
        assert_eq!(options.level(Debug::Recv), 1);
    }
}
