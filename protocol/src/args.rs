//! The `--server` argument vector, written and parsed. Counterpart: rsync's `server_options` and `parse_arguments`.

mod options;
mod size;
#[cfg(test)]
mod tests;
mod verbosity;

use crate::checksum::Checksum;
use crate::compress::Method;
use crate::filter::Rule;
pub use options::{AltKind, DeleteWhen, ItemDetail, Options};
pub use size::parse_size;
pub use verbosity::{Debug, Flag, Info, Levels, Row};

/// Capability letters we send as a client, behind an `i` where the file list may come in segments.
pub(crate) const CAPABILITIES: &str = "LsfxCIvu";

/// What a server is told by its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerArgs {
    /// The server sends (`--sender`).
    pub sender: bool,
    /// Bundled letters and long options.
    pub options: Options,
    /// The client's capability letters.
    pub capabilities: Vec<u8>,
    /// The client announces a version below 30, and has no capabilities.
    pub old: bool,
    /// What stands behind the lone dot.
    pub paths: Vec<Vec<u8>>,
    /// Filter rules for this server alone, which its client passed on.
    pub rules: Vec<Rule>,
    /// Those that it will hear of its client, if that is in the same process: where they were read goes over no wire.
    pub known: Vec<Rule>,
}

/// What understands an option that is not among those a server is told by itself: given the options so far, its word and
/// the words behind it.
pub type Understand<'a> =
    dyn FnMut(&mut Options, &[u8], &mut dyn Iterator<Item = &'a [u8]>) -> Result<(), ArgsError> + 'a;

/// An argument vector that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// An option we do not have.
    #[error("on remote machine: {0}: unknown option")]
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
    /// What the command line would be refused for.
    #[error("{0}")]
    Refused(String),
}

/// Understands none.
fn unknown(_: &mut Options, word: &[u8], _: &mut dyn Iterator<Item = &[u8]>) -> Result<(), ArgsError> {
    Err(ArgsError::Unsupported(String::from_utf8_lossy(word).into_owned()))
}

/// Where a bundled letter goes that is given once.
fn letter(options: &mut Options, letter: u8) -> Option<&mut bool> {
    Some(match letter {
        b'q' => &mut options.quiet,
        b'b' => &mut options.backup,
        b'u' => &mut options.update,
        b'n' => &mut options.dry_run,
        b'l' => &mut options.links,
        b'd' => &mut options.dirs,
        b'K' => &mut options.keep_dirlinks,
        b'm' => &mut options.prune_empty_dirs,
        b'O' => &mut options.omit_dir_times,
        b'J' => &mut options.omit_link_times,
        b'L' => &mut options.copy_links,
        b'k' => &mut options.copy_dirlinks,
        b'W' => &mut options.whole_file,
        b'H' => &mut options.hard_links,
        b'o' => &mut options.owner,
        b'g' => &mut options.group,
        b'D' => &mut options.devices,
        b't' => &mut options.times,
        b'N' => &mut options.crtimes,
        b'p' => &mut options.perms,
        b'E' => &mut options.executability,
        b'A' => &mut options.acls,
        b'r' => &mut options.recurse,
        b'c' => &mut options.checksum,
        b'C' => &mut options.cvs_exclude,
        b'I' => &mut options.ignore_times,
        b'R' => &mut options.relative,
        b'S' => &mut options.sparse,
        b'z' => &mut options.compress,
        _ => return None,
    })
}

/// Where a bundled letter goes that counts.
fn count(options: &mut Options, letter: u8) -> Option<&mut u8> {
    Some(match letter {
        b'v' => &mut options.verbose,
        b'y' => &mut options.fuzzy,
        b'U' => &mut options.atimes,
        b'X' => &mut options.xattrs,
        b'x' => &mut options.one_file_system,
        _ => return None,
    })
}

/// The letters in the order in which stock clients write them.
const LETTERS: &[u8] = b"vqbunldKmOJyLkWHogDtUNpEAXrcCIRxSz";

/// Letters that only a receiving server is told.
const LETTERS_TO_RECEIVER: &[u8] = b"KmOJy";
/// Letters that only a sending server is told.
const LETTERS_TO_SENDER: &[u8] = b"Lk";

/// Whom a long option is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Both,
    Receiver,
    Sender,
}

/// A long option without a value, whom it is for, and where it goes.
type Word = (&'static str, For, fn(&mut Options) -> &mut bool);

/// Long options without a value.
const WORDS: [Word; 32] = [
    ("--list-only", For::Both, |o| &mut o.list_only),
    ("--size-only", For::Receiver, |o| &mut o.size_only),
    ("--stats", For::Receiver, |o| &mut o.stats),
    ("--existing", For::Receiver, |o| &mut o.existing),
    ("--ignore-existing", For::Receiver, |o| &mut o.ignore_existing),
    ("--delete-excluded", For::Receiver, |o| &mut o.delete_excluded),
    ("--force", For::Receiver, |o| &mut o.force),
    ("--delay-updates", For::Receiver, |o| &mut o.delay_updates),
    ("--partial", For::Receiver, |o| &mut o.partial),
    ("--fsync", For::Receiver, |o| &mut o.fsync),
    ("--mkpath", For::Receiver, |o| &mut o.mkpath),
    ("--preallocate", For::Receiver, |o| &mut o.preallocate),
    ("--write-devices", For::Receiver, |o| &mut o.write_devices),
    ("--drop-D", For::Receiver, |o| &mut o.drop_devices),
    ("--no-W", For::Receiver, |o| &mut o.no_whole_file),
    ("--ignore-missing-args", For::Sender, |o| &mut o.ignore_missing_args),
    ("--copy-devices", For::Sender, |o| &mut o.copy_devices),
    ("--delete-missing-args", For::Both, |o| &mut o.delete_missing_args),
    ("--ignore-errors", For::Both, |o| &mut o.ignore_errors),
    ("--copy-unsafe-links", For::Both, |o| &mut o.copy_unsafe_links),
    ("--safe-links", For::Both, |o| &mut o.safe_links),
    ("--munge-links", For::Both, |o| &mut o.munge_links),
    ("--numeric-ids", For::Both, |o| &mut o.numeric_ids),
    ("--inplace", For::Both, |o| &mut o.inplace),
    ("--no-implied-dirs", For::Both, |o| &mut o.no_implied_dirs),
    ("--remove-source-files", For::Both, |o| &mut o.remove_source_files),
    ("--open-noatime", For::Both, |o| &mut o.open_noatime),
    ("--from0", For::Both, |o| &mut o.from0),
    ("--fake-super", For::Both, |o| &mut o.fake_super),
    ("--trust-sender", For::Both, |o| &mut o.trust_sender),
    ("--use-qsort", For::Both, |o| &mut o.no_inc_recursive),
    ("--no-inc-recursive", For::Both, |o| &mut o.no_inc_recursive),
];

/// Words of [`WORDS`] that stay at home: what the client is told of itself, or says by a missing capability letter.
const HOME: [&str; 5] = ["--munge-links", "--fake-super", "--trust-sender", "--use-qsort", "--no-inc-recursive"];

/// Long options whose value may be a word of its own, as stock clients send it, so that a shell may expand `~`.
const OWN_WORD: [&str; 10] = [
    "--backup-dir",
    "--partial-dir",
    "--temp-dir",
    "--compare-dest",
    "--copy-dest",
    "--link-dest",
    "--files-from",
    "--log-file",
    "--log-file-format",
    "--confine-root",
];

impl ServerArgs {
    /// Parses what follows the program's name. Nothing is ignored that would change the bytes on the wire or on the disk.
    pub fn parse<A: AsRef<[u8]>>(args: &[A]) -> Result<Self, ArgsError> {
        Self::parse_with(args, &mut unknown)
    }

    /// The same with somebody who understands the options that a server is not told by itself.
    pub fn parse_with<'a, A: AsRef<[u8]>>(args: &'a [A], understand: &mut Understand<'a>) -> Result<Self, ArgsError> {
        let parsed = Self::parse_any(args, understand)?;
        if parsed.options.crtimes {
            return Err(ArgsError::Shape("The server does not support --crtimes (-N)"));
        }
        if parsed.options.fake_super && parsed.options.xattrs > 1 {
            return Err(ArgsError::Shape("--fake-super conflicts with -XX"));
        }
        if parsed.options.insecure_links && parsed.options.confine_root.is_some() {
            return Err(ArgsError::Shape("--insecure-links cannot be combined with --confine-root"));
        }
        if parsed.options.confine_root.as_ref().is_some_and(|root| !root.starts_with(b"/")) {
            return Err(ArgsError::Shape("--confine-root must be an absolute path"));
        }
        Ok(parsed)
    }

    /// Parses without asking what goes together.
    fn parse_any<'a, A: AsRef<[u8]>>(args: &'a [A], understand: &mut Understand<'a>) -> Result<Self, ArgsError> {
        let mut parsed = Self::default();
        let mut args = args.iter().map(AsRef::as_ref);
        let mut server = false;
        let mut specials = None;
        let mut dot = false;
        let mut further = |options: &mut Options,
                           specials: &mut Option<bool>,
                           word: &[u8],
                           more: &mut dyn Iterator<Item = &'a [u8]>| {
            options.specials = specials.unwrap_or(options.devices);
            let before = (options.devices, options.specials);
            understand(options, word, more)?;
            if before != (options.devices, options.specials) {
                *specials = Some(options.specials);
            }
            Ok::<(), ArgsError>(())
        };
        while let Some(arg) = args.next() {
            match arg {
                b"." => {
                    dot = true;
                    break;
                }
                // Wrappers end the options so.
                b"--" => {
                    dot = args.next() == Some(b".");
                    break;
                }
                b"--server" => server = true,
                b"--sender" => parsed.sender = true,
                // Only who starts the server may say so, never a client.
                b"--insecure-links" => parsed.options.insecure_links = true,
                b"--specials" => specials = Some(true),
                b"--no-specials" => specials = Some(false),
                [b'-', b'-', ..] => match OWN_WORD.into_iter().find(|name| name.as_bytes() == arg) {
                    Some(name) => {
                        let missing = ArgsError::Shape("The last server option lacks its value");
                        parsed.options.valued(name, args.next().ok_or(missing)?)?;
                    }
                    None => match parsed.options.long(arg) {
                        Err(ArgsError::Unsupported(_)) => further(&mut parsed.options, &mut specials, arg, &mut args)?,
                        done => done?,
                    },
                },
                [b'-', b'B', size @ ..] => {
                    parsed.options.block_length = Some(number("-B", size, 1, 131_072)? as u32);
                }
                [b'-', b'@', window @ ..] => {
                    parsed.options.modify_window = number("-@", window, i32::MIN.into(), i32::MAX.into())? as i32;
                }
                [b'-', letters @ ..] => {
                    if let Some(unknown) = parsed.letters(letters) {
                        let word = [b"-", unknown].concat();
                        further(&mut parsed.options, &mut specials, &word, &mut args)?;
                    }
                }
                _ => return Err(ArgsError::Shape("Server arguments must be options up to the lone dot")),
            }
        }
        if !server {
            return Err(ArgsError::Shape("Server arguments must hold --server"));
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

    /// Takes a bundle of letters; gives what is left of it where one is unknown.
    fn letters<'l>(&mut self, letters: &'l [u8]) -> Option<&'l [u8]> {
        for (at, &byte) in letters.iter().enumerate() {
            if byte == b'e' {
                let rest = letters.get(at + 1..).unwrap_or_default();
                // A dot, or the digits of a pre-release version, stand before the capability letters.
                let start = rest.iter().take_while(|byte| **byte == b'.' || byte.is_ascii_digit()).count();
                self.capabilities = rest[start..].to_vec();
                return None;
            }
            if byte == b's' {
                self.options.secluded_args = true;
            } else if let Some(count) = count(&mut self.options, byte) {
                *count = count.saturating_add(1);
            } else if let Some(flag) = letter(&mut self.options, byte) {
                *flag = true;
            } else {
                return letters.get(at..);
            }
        }
        None
    }

    /// The words to start a server with, without the program's name.
    pub fn to_words(&self) -> Vec<Vec<u8>> {
        let mut options = self.options.clone();
        let mut words = vec![b"--server".to_vec()];
        if self.sender {
            words.push(b"--sender".to_vec());
        }
        // Before protocol 30 there may be no letter to say.
        words.extend(Some(self.bundle(&mut options)).filter(|bundle| bundle.len() > 1));
        // With `-s` it stands among the few words that do not travel in the set it names.
        words.extend(options.iconv.as_ref().map(|set| [b"--iconv=", &set[..]].concat()));
        match (options.devices, options.specials) {
            (true, false) => words.push(b"--no-specials".to_vec()),
            (false, true) => words.push(b"--specials".to_vec()),
            _ => {}
        }
        for (name, whom, flag) in WORDS {
            if self.hears(whom) && !HOME.contains(&name) && *flag(&mut options) {
                words.push(name.into());
            }
        }
        options.values(self.sender, &mut words);
        words.extend(options.info.word_for(self.sender).map(String::into_bytes));
        words.extend(options.remote_options);
        words.push(b".".to_vec());
        words.extend(self.paths.iter().cloned());
        words
    }

    fn hears(&self, whom: For) -> bool {
        whom == For::Both || (whom == For::Sender) == self.sender
    }

    fn bundle(&self, options: &mut Options) -> Vec<u8> {
        let mut bundle = vec![b'-'];
        for &byte in LETTERS {
            let unheard = if self.sender { LETTERS_TO_RECEIVER } else { LETTERS_TO_SENDER };
            let named = |name: &[u8]| options.compress_choice.as_deref().is_some_and(|choice| choice != name);
            if unheard.contains(&byte) || (byte == b'z' && named(b"zlib")) {
                continue;
            }
            let times = match letter(options, byte) {
                Some(flag) => usize::from(*flag),
                None => count(options, byte).map_or(0, |count| usize::from(*count)),
            };
            bundle.extend(std::iter::repeat_n(byte, times));
        }
        if self.old {
            return bundle;
        }
        bundle.extend_from_slice(b"e.");
        // The client receives from a server that sends.
        if options.incremental(self.sender) {
            bundle.push(b'i');
        }
        bundle.extend_from_slice(CAPABILITIES.as_bytes());
        bundle
    }
}

impl Options {
    /// Takes a long option without a value, or with one behind `=`.
    fn long(&mut self, text: &[u8]) -> Result<(), ArgsError> {
        let alias: &[u8] = match text {
            b"--ignore-non-existing" => b"--existing",
            b"--remove-sent-files" => b"--remove-source-files",
            other => other,
        };
        if let Some((_, _, flag)) = WORDS.into_iter().find(|(name, _, _)| name.as_bytes() == alias) {
            *flag(self) = true;
            return Ok(());
        }
        let when = match text {
            b"--delete" => Some(DeleteWhen::Default),
            b"--delete-before" => Some(DeleteWhen::Before),
            b"--delete-during" | b"--del" => Some(DeleteWhen::During),
            b"--delete-delay" => Some(DeleteWhen::Delay),
            b"--delete-after" => Some(DeleteWhen::After),
            _ => None,
        };
        if when.is_some() {
            self.delete = when;
            return Ok(());
        }
        match text {
            b"--append" => self.append = (self.append + 1).min(2),
            b"--super" => self.super_user = Some(true),
            b"--no-super" => self.super_user = Some(false),
            b"--old-compress" => self.compress_choice = Some(b"zlib".to_vec()),
            b"--new-compress" => {
                self.compress = true;
                self.compress_choice = Some(b"zlibx".to_vec());
            }
            b"--no-relative" => self.relative = false,
            // These change what is said or how fast, never what is done: safe to pass over.
            b"--no-r" | b"--msgs2stderr" | b"--no-msgs2stderr" => {}
            _ => {
                let Some(at) = text.iter().position(|&byte| byte == b'=') else {
                    return Err(ArgsError::Unsupported(String::from_utf8_lossy(text).into_owned()));
                };
                self.valued(&String::from_utf8_lossy(&text[..at]), &text[at + 1..])?;
            }
        }
        Ok(())
    }

    /// Takes a long option with its value.
    fn valued(&mut self, name: &str, value: &[u8]) -> Result<(), ArgsError> {
        let owned = || Some(value.to_vec());
        match name {
            "--checksum-choice" => self.checksum_choice = Some(checksum_choice(value)?),
            "--checksum-seed" => {
                self.checksum_seed =
                    Some(number("--checksum-seed", value, i32::MIN.into(), u32::MAX.into())? as u32 as i32);
            }
            // A day of silence is long enough, whatever more is asked for.
            "--timeout" => self.timeout = Some(number("--timeout", value, 0, i32::MAX.into())?.min(86_400) as u32),
            "--modify-window" => {
                self.modify_window = number("--modify-window", value, i32::MIN.into(), i32::MAX.into())? as i32;
            }
            "--log-format" => {
                let has = |what: &[u8]| value.windows(what.len()).any(|window| window == what);
                self.detail = match () {
                    () if has(b"%I") => ItemDetail::All,
                    () if has(b"%i") => ItemDetail::Changed,
                    () if has(b"%o") || value == b"X" => ItemDetail::Names,
                    () => ItemDetail::None,
                };
            }
            "--max-delete" => self.max_delete = Some(number("--max-delete", value, -1, i32::MAX.into())?.max(0) as u64),
            "--min-size" => self.min_size = Some(size("--min-size", value, b'b')?),
            "--max-size" => self.max_size = Some(size("--max-size", value, b'b')?),
            "--max-alloc" => self.max_alloc = Some(size("--max-alloc", value, b'b')?),
            "--bwlimit" => self.bwlimit = Some(size("--bwlimit", value, b'K')?),
            "--backup-dir" => self.backup_dir = owned(),
            "--suffix" => self.suffix = owned(),
            "--partial-dir" => self.partial_dir = owned(),
            "--temp-dir" => self.temp_dir = owned(),
            "--compare-dest" => self.alternative(AltKind::Compare, value)?,
            "--copy-dest" => self.alternative(AltKind::Copy, value)?,
            "--link-dest" => self.alternative(AltKind::Link, value)?,
            "--files-from" => self.files_from = owned(),
            "--usermap" => self.usermap = owned(),
            "--groupmap" => self.groupmap = owned(),
            "--iconv" => self.iconv = owned(),
            "--compress-choice" => {
                if value != b"auto" && Method::from_name(value).is_none() {
                    let value = String::from_utf8_lossy(value).into_owned();
                    let expected = "zstd, lz4, zlibx, zlib, auto or none";
                    return Err(ArgsError::Value { option: "--compress-choice", value, expected });
                }
                self.compress = value != b"none";
                self.compress_choice = owned();
            }
            "--compress-level" => {
                let (least, most) = (i32::MIN.into(), i32::MAX.into());
                self.compress_level = Some(number("--compress-level", value, least, most)? as i32);
            }
            "--skip-compress" => self.skip_compress = owned(),
            "--only-write-batch" => self.only_write_batch = true,
            "--log-file" => self.log_file = owned(),
            "--log-file-format" => self.log_file_format = owned(),
            "--confine-root" => self.confine_root = owned(),
            // Only who starts the server may say so, never a client.
            "--copy-as" => self.copy_as = owned(),
            // A client may know of more than we do.
            "--info" => drop(self.info.set(value)),
            "--debug" => drop(self.debug.set(value)),
            // As with those of `long`.
            "--stderr" => {}
            _ => return Err(ArgsError::Unsupported(name.into())),
        }
        Ok(())
    }

    fn alternative(&mut self, kind: AltKind, dir: &[u8]) -> Result<(), ArgsError> {
        /// As many as stock takes.
        const DIRS_MOST: usize = 20;
        if self.alt_kind.is_some_and(|earlier| earlier != kind) {
            return Err(ArgsError::Shape("--compare-dest, --copy-dest and --link-dest cannot be mixed"));
        }
        if self.alt_dirs.len() == DIRS_MOST {
            return Err(ArgsError::Shape("At most 20 --compare-dest, --copy-dest or --link-dest options can be given"));
        }
        self.alt_kind = Some(kind);
        self.alt_dirs.push(dir.to_vec());
        Ok(())
    }

    /// Adds the words of the options that have values.
    fn values(&self, to_sender: bool, words: &mut Vec<Vec<u8>>) {
        let mut long = |name: &str, value: &[u8]| words.push([name.as_bytes(), b"=", value].concat());
        let mut text = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                long(name, value.as_bytes());
            }
        };
        text(
            "--checksum-choice",
            self.checksum_choice.map(|(transfer, list)| match transfer == list {
                true => transfer.name().to_owned(),
                false => format!("{},{}", transfer.name(), list.name()),
            }),
        );
        text("--checksum-seed", self.checksum_seed.map(|seed| seed.to_string()));
        text("--timeout", self.timeout.map(|seconds| seconds.to_string()));
        // The server takes it in its own unit, KiB, unless a suffix says otherwise.
        text("--bwlimit", self.bwlimit.map(|rate| format!("{rate}b")));
        text("--max-alloc", self.max_alloc.map(|bytes| format!("{bytes}b")));
        text("--compress-level", self.compress_level.map(|level| level.to_string()));
        if !to_sender {
            text(
                "--log-format",
                match self.detail {
                    ItemDetail::None => None,
                    ItemDetail::Names => Some("X".into()),
                    ItemDetail::Changed => Some("%i".into()),
                    ItemDetail::All => Some("%i%I".into()),
                },
            );
            text("--max-delete", self.max_delete.map(|most| if most == 0 { -1 } else { most as i64 }.to_string()));
            text("--min-size", self.min_size.map(|bytes| format!("{bytes}b")));
            text("--max-size", self.max_size.map(|bytes| format!("{bytes}b")));
        }
        let mut bytes = |name: &str, value: &Option<Vec<u8>>| {
            if let Some(value) = value {
                long(name, value);
            }
        };
        bytes("--suffix", &self.suffix);
        match self.compress_choice.as_deref() {
            Some(b"zlib" | b"zlibx") | None => {}
            Some(_) => bytes("--compress-choice", &self.compress_choice),
        }
        if to_sender {
            bytes("--skip-compress", &self.skip_compress);
        } else {
            bytes("--usermap", &self.usermap);
            bytes("--groupmap", &self.groupmap);
        }
        self.own_words(to_sender, words);
        self.bare_words(to_sender, words);
    }

    /// Adds the words whose values are in them, and those that stand for a value.
    fn bare_words(&self, to_sender: bool, words: &mut Vec<Vec<u8>>) {
        let mut word = |word: &str| words.push(word.as_bytes().to_vec());
        if let Some(length) = self.block_length {
            word(&format!("-B{length}"));
        }
        match self.compress_choice.as_deref() {
            Some(b"zlib") => word("--old-compress"),
            Some(b"zlibx") => word("--new-compress"),
            _ => {}
        }
        (0..self.append).for_each(|_| word("--append"));
        if to_sender {
            return;
        }
        if self.modify_window != 0 {
            word(&match self.modify_window {
                ..0 => format!("-@{}", self.modify_window),
                window => format!("--modify-window={window}"),
            });
        }
        if let Some(when) = self.delete {
            if !self.recurse {
                word("--no-r");
            }
            word(match when {
                DeleteWhen::Default => "--delete",
                DeleteWhen::Before => "--delete-before",
                DeleteWhen::During => "--delete-during",
                DeleteWhen::Delay => "--delete-delay",
                DeleteWhen::After => "--delete-after",
            });
        }
        // As with stock, `--no-super` is for this end alone.
        if self.super_user == Some(true) {
            word("--super");
        }
        if self.only_write_batch {
            word("--only-write-batch=X");
        }
    }

    fn own_words(&self, to_sender: bool, words: &mut Vec<Vec<u8>>) {
        let mut pair = |name: &str, value: &[u8]| words.extend([name.as_bytes().to_vec(), value.to_vec()]);
        if let Some(dir) = &self.backup_dir {
            pair("--backup-dir", dir);
        }
        if !to_sender {
            for (name, dir) in [("--partial-dir", &self.partial_dir), ("--temp-dir", &self.temp_dir)] {
                if let Some(dir) = dir {
                    pair(name, dir);
                }
            }
            let name = match self.alt_kind {
                Some(AltKind::Compare) => "--compare-dest",
                Some(AltKind::Copy) => "--copy-dest",
                Some(AltKind::Link) | None => "--link-dest",
            };
            self.alt_dirs.iter().for_each(|dir| pair(name, dir));
        }
        match self.files_from.as_deref() {
            Some(b"-") => words.push(b"--files-from=-".to_vec()),
            Some(name) => pair("--files-from", name),
            None => {}
        }
        // A list of names means full names unless the other end is told.
        if self.files_from.is_some() && !self.relative {
            words.push(b"--no-relative".to_vec());
        }
    }
}

fn number(option: &'static str, value: &[u8], least: i64, most: i64) -> Result<i64, ArgsError> {
    let expected = "a number within the protocol's limits";
    let text = String::from_utf8_lossy(value);
    let bad = || ArgsError::Value { option, value: text.clone().into_owned(), expected };
    text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(bad)
}

fn size(option: &'static str, value: &[u8], unit: u8) -> Result<u64, ArgsError> {
    let expected = "a size such as 700, 1.5m or 2GB";
    let bad = || ArgsError::Value { option, value: String::from_utf8_lossy(value).into_owned(), expected };
    parse_size(value, unit).ok_or_else(bad)
}

fn checksum_choice(value: &[u8]) -> Result<(Checksum, Checksum), ArgsError> {
    let expected = "names such as xxh128, md5 or blake3";
    let bad = || ArgsError::Value {
        option: "--checksum-choice",
        value: String::from_utf8_lossy(value).into_owned(),
        expected,
    };
    let name = |name: &[u8]| Checksum::from_name(name).ok_or_else(bad);
    match value.iter().position(|&byte| byte == b',') {
        Some(comma) => Ok((name(&value[..comma])?, name(&value[comma + 1..])?)),
        None => name(value).map(|checksum| (checksum, checksum)),
    }
}
