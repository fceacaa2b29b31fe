//! The `--server` argument vector, written and parsed. Counterpart: rsync's `server_options` and `parse_arguments`.

use crate::checksum::Checksum;
use crate::flist::ListShape;

/// Capability letters we send as a client; no `i`: the list comes in one piece.
const CAPABILITIES: &str = "LsfxCIvu";

/// What a server is told by its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerArgs {
    /// The server sends (`--sender`).
    pub sender: bool,
    /// Bundled letters and long options.
    pub options: Options,
    /// The client's capability letters.
    pub capabilities: Vec<u8>,
    /// What stands behind the lone dot.
    pub paths: Vec<Vec<u8>>,
}

/// How hidden details are told to the client: `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ItemDetail {
    /// Only what the protocol needs.
    #[default]
    None,
    /// Changed items (`%i`).
    Changed,
    /// All items (`%i%I`).
    All,
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The options a server can be given, each with rsync's meaning.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Options {
            $($(#[$doc])* pub $name: bool,)*
            /// `-v`, repeated.
            pub verbose: u8,
            /// `-x`, repeated.
            pub one_file_system: u8,
            /// `--checksum-choice`: of the transfer, of the list.
            pub checksum_choice: Option<(Checksum, Checksum)>,
            /// `--checksum-seed`.
            pub checksum_seed: Option<i32>,
            /// `-B`.
            pub block_length: Option<u32>,
            /// `--timeout` in seconds.
            pub timeout: Option<u32>,
            /// `--modify-window` in seconds; -1 compares nanoseconds.
            pub modify_window: i32,
            /// `--log-format`.
            pub detail: ItemDetail,
        }
    };
}

options! {
    /// `-l`: keep symlinks.
    links,
    /// `-L`: follow all symlinks (sending server).
    copy_links,
    /// `-k`: follow symlinks to directories (sending server).
    copy_dirlinks,
    /// `-o`: keep owners.
    owner,
    /// `-g`: keep groups.
    group,
    /// `-D`: keep devices.
    devices,
    /// `-D` without `--no-specials`: keep fifos and sockets.
    specials,
    /// `-t`: keep modification times.
    times,
    /// `-O`: but not of directories.
    omit_dir_times,
    /// `-J`: but not of symlinks.
    omit_link_times,
    /// `-p`: keep permissions.
    perms,
    /// `-E`: keep executability.
    executability,
    /// `-r`: descend into directories.
    recurse,
    /// `-d`: directories without their content.
    dirs,
    /// `-R`: full names.
    relative,
    /// `-c`: compare by checksum.
    checksum,
    /// `-I`: no quick check.
    ignore_times,
    /// `--size-only`.
    size_only,
    /// `-u`: leave files alone that are newer here.
    update,
    /// `--existing`: update only.
    existing,
    /// `--ignore-existing`: create only.
    ignore_existing,
    /// `-n`: change nothing.
    dry_run,
    /// `-W`: no delta.
    whole_file,
    /// `-q`.
    quiet,
    /// `--numeric-ids`.
    numeric_ids,
    /// `--no-implied-dirs`: attributes of implied parents are not kept.
    no_implied_dirs,
    /// `--remove-source-files`: finished files are acknowledged.
    remove_source_files,
    /// `--fsync`.
    fsync,
    /// `--mkpath`: create missing parents of the destination.
    mkpath,
    /// `--stats`.
    stats,
}

/// An argument vector that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// An option we do not have.
    #[error("Option {0} is not supported by this server")]
    Unsupported(String),
    /// A value that cannot be used.
    #[error("Option {option} cannot be {value:?}: expected {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// Something is missing or out of place.
    #[error("{0}")]
    Shape(&'static str),
}

/// Where a bundled letter goes.
fn letter(options: &mut Options, letter: u8) -> Option<&mut bool> {
    Some(match letter {
        b'l' => &mut options.links,
        b'L' => &mut options.copy_links,
        b'k' => &mut options.copy_dirlinks,
        b'o' => &mut options.owner,
        b'g' => &mut options.group,
        b't' => &mut options.times,
        b'O' => &mut options.omit_dir_times,
        b'J' => &mut options.omit_link_times,
        b'p' => &mut options.perms,
        b'E' => &mut options.executability,
        b'r' => &mut options.recurse,
        b'd' => &mut options.dirs,
        b'R' => &mut options.relative,
        b'c' => &mut options.checksum,
        b'I' => &mut options.ignore_times,
        b'u' => &mut options.update,
        b'n' => &mut options.dry_run,
        b'W' => &mut options.whole_file,
        b'q' => &mut options.quiet,
        _ => return None,
    })
}

/// The letters in the order stock clients write them, without those that need more than a flag.
const LETTERS: &[u8] = b"qunldOJLkWogDtpErcIR";

/// Where a long option without a value goes.
fn word<'o>(options: &'o mut Options, word: &str) -> Option<&'o mut bool> {
    Some(match word {
        "--size-only" => &mut options.size_only,
        "--existing" | "--ignore-non-existing" => &mut options.existing,
        "--ignore-existing" => &mut options.ignore_existing,
        "--numeric-ids" => &mut options.numeric_ids,
        "--no-implied-dirs" => &mut options.no_implied_dirs,
        "--remove-source-files" | "--remove-sent-files" => &mut options.remove_source_files,
        "--fsync" => &mut options.fsync,
        "--mkpath" => &mut options.mkpath,
        "--stats" => &mut options.stats,
        _ => return None,
    })
}

const WORDS: [&str; 9] = [
    "--size-only",
    "--existing",
    "--ignore-existing",
    "--numeric-ids",
    "--no-implied-dirs",
    "--remove-source-files",
    "--fsync",
    "--mkpath",
    "--stats",
];

impl ServerArgs {
    /// Parses what follows the program's name. Nothing is ignored that would change the bytes on the wire or on the disk.
    pub fn parse<A: AsRef<[u8]>>(args: &[A]) -> Result<Self, ArgsError> {
        let mut parsed = Self::default();
        let mut args = args.iter().map(AsRef::as_ref);
        if args.next() != Some(b"--server") {
            return Err(ArgsError::Shape("The first server argument must be --server"));
        }
        let mut specials = None;
        let mut dot = false;
        for arg in args.by_ref() {
            match arg {
                b"." => {
                    dot = true;
                    break;
                }
                b"--sender" => parsed.sender = true,
                b"--specials" => specials = Some(true),
                b"--no-specials" => specials = Some(false),
                [b'-', b'-', ..] => parsed.long(&String::from_utf8_lossy(arg))?,
                [b'-', b'B', size @ ..] => {
                    parsed.options.block_length = Some(number("-B", &String::from_utf8_lossy(size), 1, 131_072)?);
                }
                [b'-', letters @ ..] => parsed.letters(letters)?,
                _ => return Err(ArgsError::Shape("Server arguments must be options up to the lone dot")),
            }
        }
        if !dot {
            return Err(ArgsError::Shape("Server arguments lack the lone dot before the paths"));
        }
        parsed.options.specials = specials.unwrap_or(parsed.options.devices);
        parsed.paths = args.map(<[u8]>::to_vec).collect();
        if parsed.paths.is_empty() || (!parsed.sender && parsed.paths.len() != 1) {
            return Err(ArgsError::Shape("Server arguments need one destination, or at least one source"));
        }
        Ok(parsed)
    }

    fn letters(&mut self, letters: &[u8]) -> Result<(), ArgsError> {
        for (at, &byte) in letters.iter().enumerate() {
            match byte {
                b'e' => {
                    let rest = letters.get(at + 1..).unwrap_or_default();
                    // A dot, or the digits of a pre-release version, stand before the capability letters.
                    let start = rest.iter().take_while(|byte| **byte == b'.' || byte.is_ascii_digit()).count();
                    self.capabilities = rest[start..].to_vec();
                    return Ok(());
                }
                b'v' => self.options.verbose = self.options.verbose.saturating_add(1),
                b'x' => self.options.one_file_system = self.options.one_file_system.saturating_add(1),
                b'D' => self.options.devices = true,
                byte => match letter(&mut self.options, byte) {
                    Some(flag) => *flag = true,
                    None => return Err(ArgsError::Unsupported(format!("-{}", byte.escape_ascii()))),
                },
            }
        }
        Ok(())
    }

    fn long(&mut self, text: &str) -> Result<(), ArgsError> {
        if let Some(flag) = word(&mut self.options, text) {
            *flag = true;
            return Ok(());
        }
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name {
            "--checksum-choice" => self.options.checksum_choice = Some(checksum_choice(value)?),
            "--checksum-seed" => {
                let expected = "a number of 32 bits";
                let bad = ArgsError::Value { option: "--checksum-seed", value: value.into(), expected };
                self.options.checksum_seed = Some(value.parse().map_err(|_| bad)?);
            }
            "--timeout" => self.options.timeout = Some(number("--timeout", value, 0, 86_400)?),
            "--modify-window" => self.options.modify_window = number("--modify-window", value, 0, 86_400)? as i32,
            "--log-format" => {
                let all = value.contains("%I");
                let changed = all || value.contains("%i") || value.contains("%o") || value == "X";
                self.options.detail = match (all, changed) {
                    (true, _) => ItemDetail::All,
                    (false, true) => ItemDetail::Changed,
                    _ => ItemDetail::None,
                };
            }
            // These change what is said or how fast, never what is done: safe to pass over.
            "--no-W" | "--use-qsort" | "--info" | "--debug" | "--msgs2stderr" | "--no-msgs2stderr" | "--partial"
            | "--compress-level" | "--no-r" | "--stderr" => {}
            _ => return Err(ArgsError::Unsupported(name.into())),
        }
        Ok(())
    }

    /// The words to start a server with, without the program's name.
    pub fn to_words(&self) -> Vec<Vec<u8>> {
        let mut options = self.options.clone();
        let mut words = vec![b"--server".to_vec()];
        if self.sender {
            words.push(b"--sender".to_vec());
        }
        let mut bundle = vec![b'-'];
        bundle.extend(std::iter::repeat_n(b'v', options.verbose.into()));
        for &byte in LETTERS {
            let set = if byte == b'D' { options.devices } else { letter(&mut options, byte).is_some_and(|flag| *flag) };
            if set {
                bundle.push(byte);
            }
        }
        bundle.extend(std::iter::repeat_n(b'x', options.one_file_system.into()));
        bundle.extend_from_slice(b"e.");
        bundle.extend_from_slice(CAPABILITIES.as_bytes());
        words.push(bundle);
        match (options.devices, options.specials) {
            (true, false) => words.push(b"--no-specials".to_vec()),
            (false, true) => words.push(b"--specials".to_vec()),
            _ => {}
        }
        let mut long = |text: String| words.push(text.into_bytes());
        match options.detail {
            ItemDetail::None => {}
            ItemDetail::Changed => long("--log-format=%i".into()),
            ItemDetail::All => long("--log-format=%i%I".into()),
        }
        if let Some((transfer, list)) = options.checksum_choice {
            long(match transfer == list {
                true => format!("--checksum-choice={}", transfer.name()),
                false => format!("--checksum-choice={},{}", transfer.name(), list.name()),
            });
        }
        if let Some(seed) = options.checksum_seed {
            long(format!("--checksum-seed={seed}"));
        }
        if let Some(length) = options.block_length {
            long(format!("-B{length}"));
        }
        if let Some(seconds) = options.timeout {
            long(format!("--timeout={seconds}"));
        }
        if options.modify_window != 0 {
            long(format!("--modify-window={}", options.modify_window));
        }
        for name in WORDS {
            if word(&mut options, name).is_some_and(|flag| *flag) {
                words.push(name.into());
            }
        }
        words.push(b".".to_vec());
        words.extend(self.paths.iter().cloned());
        words
    }
}

impl Options {
    /// What the entries of the file list carry with these options.
    pub fn list_shape(&self, sum_size: usize) -> ListShape {
        ListShape {
            owner: self.owner,
            group: self.group,
            links: self.links,
            devices: self.devices,
            specials: self.specials,
            sum_size: if self.checksum { sum_size } else { 0 },
            numeric_ids: self.numeric_ids,
            relative: self.relative,
        }
    }
}

fn number(option: &'static str, value: &str, least: u32, most: u32) -> Result<u32, ArgsError> {
    let expected = "a number within the protocol's limits";
    let bad = || ArgsError::Value { option, value: value.into(), expected };
    value.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(bad)
}

fn checksum_choice(value: &str) -> Result<(Checksum, Checksum), ArgsError> {
    let expected = "names such as xxh128, md5 or blake3";
    let bad = || ArgsError::Value { option: "--checksum-choice", value: value.into(), expected };
    let name = |name: &str| Checksum::from_name(name.as_bytes()).ok_or_else(bad);
    match value.split_once(',') {
        Some((transfer, list)) => Ok((name(transfer)?, name(list)?)),
        None => name(value).map(|checksum| (checksum, checksum)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<ServerArgs, ArgsError> {
        ServerArgs::parse(&line.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn stock_vectors_are_understood() {
        let push = parse("--server -vlogDtpre.iLsfxCIvu --log-format=%i --stats . dst/").unwrap();
        assert!(!push.sender && push.options.links && push.options.specials && push.options.recurse);
        assert_eq!((push.options.verbose, push.options.detail), (1, ItemDetail::Changed));
        assert_eq!((&push.capabilities[..], &push.paths[0][..]), (&b"iLsfxCIvu"[..], &b"dst/"[..]));
        let pull = parse("--server --sender -re31.14LsfC --no-specials -B800 . a b").unwrap();
        assert!(pull.sender && !pull.options.specials);
        assert_eq!((pull.options.block_length, pull.paths.len()), (Some(800), 2));
        assert_eq!(pull.capabilities, b"LsfC");
        let choice = parse("--server -ce.v --checksum-choice=md5,xxh64 . d").unwrap().options.checksum_choice;
        assert_eq!(choice, Some((Checksum::Md5, Checksum::Xxh64)));
    }

    #[test]
    fn what_we_lack_is_refused_by_name() {
        for (line, name) in [
            ("--server -logDtprze.iLsfxCIvu . d", "-z"),
            ("--server -lHe.iLsfxCIvu . d", "-H"),
            ("--server -re. --delete . d", "--delete"),
            ("--server -re. --inplace . d", "--inplace"),
        ] {
            assert_eq!(parse(line), Err(ArgsError::Unsupported(name.into())));
        }
        for line in ["-re. . d", "--server -re.", "--server -re. . a b", "--server -re. ."] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("--server -re. -B0 . d").is_err() && parse("--server -re. -B999999 . d").is_err());
    }

    #[test]
    fn what_we_write_we_understand() {
        let mut options = Options::default();
        for &byte in LETTERS {
            if let Some(flag) = letter(&mut options, byte) {
                *flag = true;
            }
        }
        for name in WORDS {
            *word(&mut options, name).unwrap() = true;
        }
        (options.devices, options.verbose, options.one_file_system, options.detail) = (true, 2, 1, ItemDetail::All);
        options.checksum_choice = Some((Checksum::Md5, Checksum::Sha1));
        (options.checksum_seed, options.block_length, options.timeout) = (Some(-7), Some(900), Some(60));
        let args =
            ServerArgs { sender: true, options, capabilities: CAPABILITIES.into(), paths: vec![b"-a b".to_vec()] };
        assert_eq!(ServerArgs::parse(&args.to_words()), Ok(args));
    }
}
