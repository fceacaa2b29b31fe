//! What a person asked for: the command line, read as stock rsync reads it.
//! Owns the reading of words in their order; what the words are stands in `table`, what may not stand together in
//! `checks`. Counterpart: rsync's `parse_arguments`, popt included.

use super::table::{self, Apply, Opt};
use super::{checks, environment::Environment};
#[cfg(test)]
mod tests;

use protocol::args::{DeleteWhen, Options};
use std::path::PathBuf;

/// Why a command line is not carried out: rsync's words and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// What stands before the last line; each without its line end.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

impl Usage {
    /// A slip in the command line.
    pub(super) fn syntax(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }
}

/// Which option a filter rule came with; its text means something else with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterKind {
    /// `--filter`: a rule.
    Rule,
    /// `--exclude`: a pattern.
    Exclude,
    /// `--include`: a pattern.
    Include,
    /// `--exclude-from`: a file of patterns.
    ExcludeFrom,
    /// `--include-from`: a file of patterns.
    IncludeFrom,
}

/// What is asked for instead of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `--help`.
    Help,
    /// `--version`; again for JSON.
    Version,
    /// The same as JSON.
    VersionJson,
    /// `--info=help`.
    InfoHelp,
    /// `--debug=help`.
    DebugHelp,
}

/// Which file names a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// `--write-batch`.
    pub write: Option<Vec<u8>>,
    /// `--only-write-batch`.
    pub only_write: Option<Vec<u8>>,
    /// `--read-batch`.
    pub read: Option<Vec<u8>>,
}

/// How standard output is buffered: `--outbuf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbuf {
    /// Every line at once.
    Line,
    /// Every write at once.
    None,
    /// When the buffer is full.
    Block,
}

/// Where messages go: `--stderr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StderrMode {
    /// Errors to standard error; all else to standard output.
    #[default]
    Errors,
    /// Everything to standard error, at the remote side too.
    All,
    /// Errors of the remote side come through the connection.
    Client,
}

/// A whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// What both ends may have to know.
    pub options: Options,
    /// What stands beside the options: sources and a destination.
    pub operands: Vec<Vec<u8>>,
    /// Filter rules in their order.
    pub filters: Vec<(FilterKind, Vec<u8>)>,
    /// Help or version instead of a transfer.
    pub ask: Option<Ask>,
    /// `-e`.
    pub rsh: Option<Vec<u8>>,
    /// `-e` was said here, not in the environment: only then is a daemon started by it.
    pub rsh_given: bool,
    /// `--rsync-path`.
    pub rsync_path: Option<Vec<u8>>,
    /// `--old-args`; `None` when neither it nor its negation was given.
    pub old_args: Option<bool>,
    /// `-s`; likewise.
    pub secluded_args: Option<bool>,
    /// `-i`, repeated.
    pub itemize: u8,
    /// `-q`, repeated.
    pub quiet: u8,
    /// `--out-format`.
    pub out_format: Option<Vec<u8>>,
    /// `--log-file`.
    pub log_file: Option<PathBuf>,
    /// `--log-file-format`.
    pub log_file_format: Option<Vec<u8>>,
    /// `-h`: 0 plain digits, 1 grouped, 2 units of 1000, 3 units of 1024.
    pub human: u8,
    /// `-8`.
    pub eight_bit: bool,
    /// `--outbuf`, where it was said.
    pub outbuf: Option<Outbuf>,
    /// `--stderr`.
    pub stderr: StderrMode,
    /// `--progress`.
    pub progress: bool,
    /// `--protocol`.
    pub protocol: Option<u32>,
    /// `--password-file`.
    pub password_file: Option<PathBuf>,
    /// `--early-input`.
    pub early_input: Option<PathBuf>,
    /// `--contimeout` in seconds.
    pub contimeout: Option<u32>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--address`.
    pub address: Option<Vec<u8>>,
    /// `--sockopts`.
    pub sockopts: Option<Vec<u8>>,
    /// `-4` or `-6`.
    pub family: Option<u8>,
    /// `--no-motd`.
    pub no_motd: bool,
    /// The words of options as they were given, each with the word that is its value.
    pub(super) given: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Batch files.
    pub batch: Batch,
    /// `--old-dirs`.
    pub old_dirs: bool,
    /// `-R` or its negation.
    pub(super) relative: Option<bool>,
    /// `-d` or its negation.
    pub(super) dirs: Option<bool>,
    /// `-W` or its negation.
    pub(super) whole_file: Option<bool>,
    /// `-r` only as a part of `-a`.
    pub(super) recurse_by_archive: bool,
    /// How many different times of deletion were named.
    pub(super) deletes: u8,
    /// The options that say who is to own files instead, and of which group they are to be.
    pub(super) mapped: [Option<&'static str>; 2],
    /// `-F`, repeated.
    pub(super) merge_files: u8,
    /// Words for the other end beside those of the options.
    pub(super) peer_words: Vec<Vec<u8>>,
    /// Words of the command line, for messages that repeat it.
    pub(super) word: String,
}

impl Default for CommandLine {
    fn default() -> Self {
        Self {
            options: Options::default(),
            operands: Vec::new(),
            filters: Vec::new(),
            ask: None,
            rsh: None,
            rsh_given: false,
            rsync_path: None,
            old_args: None,
            secluded_args: None,
            itemize: 0,
            quiet: 0,
            out_format: None,
            log_file: None,
            log_file_format: None,
            human: 1,
            eight_bit: false,
            outbuf: None,
            stderr: StderrMode::default(),
            progress: false,
            protocol: None,
            password_file: None,
            early_input: None,
            contimeout: None,
            port: None,
            address: None,
            sockopts: None,
            family: None,
            no_motd: false,
            given: Vec::new(),
            batch: Batch::default(),
            old_dirs: false,
            relative: None,
            dirs: None,
            whole_file: None,
            recurse_by_archive: false,
            deletes: 0,
            mapped: [None; 2],
            merge_files: 0,
            peer_words: Vec::new(),
            word: String::new(),
        }
    }
}

impl CommandLine {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// What stock rsync refuses, in its words.
    pub fn parse<A: AsRef<[u8]>>(words: &[A], environment: &Environment) -> Result<Self, Usage> {
        let mut line = Self::default();
        let all = words;
        let mut words = words.iter().map(AsRef::as_ref);
        let alone = words.len() == 1;
        while let Some(word) = words.next() {
            let left = words.len();
            match word {
                b"--" => {
                    line.given.push((word.to_vec(), None));
                    line.operands.extend(words.by_ref().map(<[u8]>::to_vec));
                }
                b"-h" if alone => line.ask = Some(Ask::Help),
                [b'-', b'-', name @ ..] => line.long(word, name, &mut words)?,
                [b'-', letters @ ..] if !letters.is_empty() => line.letters(word, letters, &mut words)?,
                operand => {
                    line.operands.push(operand.to_vec());
                    continue;
                }
            }
            if word != b"--" {
                let value = (words.len() < left).then(|| all[all.len() - left].as_ref().to_vec());
                line.given.push((word.to_vec(), value));
            }
        }
        if line.ask.is_none() {
            checks::finish(&mut line, environment)?;
        }
        Ok(line)
    }

    /// Takes one word of options and, where it stands apart, its value.
    pub(super) fn option(&mut self, word: &[u8], more: &mut dyn Iterator<Item = &[u8]>) -> Result<(), Usage> {
        let mut more = more;
        match word {
            [b'-', b'-', name @ ..] => self.long(word, name, &mut more),
            [b'-', letters @ ..] => self.letters(word, letters, &mut more),
            _ => Err(unknown(word)),
        }
    }

    fn long<'w>(&mut self, word: &[u8], text: &[u8], more: &mut impl Iterator<Item = &'w [u8]>) -> Result<(), Usage> {
        let equals = text.iter().position(|&byte| byte == b'=');
        let name = &text[..equals.unwrap_or(text.len())];
        let option = table::by_name(name).ok_or_else(|| unknown(word))?;
        self.take(option, word, equals.map(|at| &text[at + 1..]), more)
    }

    fn letters<'w>(
        &mut self,
        word: &[u8],
        mut letters: &[u8],
        more: &mut impl Iterator<Item = &'w [u8]>,
    ) -> Result<(), Usage> {
        while let [letter, rest @ ..] = letters {
            let option = table::by_letter(*letter).ok_or_else(|| unknown(word))?;
            if option.value.is_empty() {
                if rest.first() == Some(&b'=') {
                    return Err(takes_none(word));
                }
                self.take(option, word, None, more)?;
                letters = rest;
                continue;
            }
            let value = match rest {
                [] => None,
                [b'=', value @ ..] => Some(value),
                value => Some(value),
            };
            return self.take(option, word, value, more);
        }
        Ok(())
    }

    fn take<'w>(
        &mut self,
        option: &Opt,
        word: &[u8],
        value: Option<&[u8]>,
        more: &mut impl Iterator<Item = &'w [u8]>,
    ) -> Result<(), Usage> {
        self.word = String::from_utf8_lossy(word).into_owned();
        let value = match (option.value.is_empty(), value) {
            (true, Some(_)) => return Err(takes_none(word)),
            (true, None) => &b""[..],
            (false, Some(value)) => value,
            (false, None) => more
                .next()
                .ok_or_else(|| Usage::syntax(format!("rsync: {}: missing argument", String::from_utf8_lossy(word))))?,
        };
        match &option.apply {
            Apply::Set(flag) => *flag(self) = true,
            Apply::Clear(flag) => *flag(self) = false,
            Apply::Count(count) => {
                let count = count(self);
                *count = count.saturating_add(1);
            }
            Apply::Zero(count) => *count(self) = 0,
            Apply::Text(text) => *text(self) = Some(value.to_vec()),
            Apply::Path(path) => {
                use std::os::unix::ffi::OsStrExt;
                *path(self) = Some(std::ffi::OsStr::from_bytes(value).into());
            }
            Apply::Do(act) => act(self),
            Apply::Take(act) => act(self, value)?,
        }
        Ok(())
    }

    /// Remembers when to delete; that two of these were given is found in the end.
    pub(super) fn delete_when(&mut self, when: DeleteWhen) {
        if self.options.delete != Some(when) {
            self.deletes += 1;
        }
        self.options.delete = Some(when);
    }

    /// Notes that the option `by` says who is to own files instead, which may be said once.
    pub(super) fn maps(&mut self, whose: Whose, by: &'static str) -> Result<(), Usage> {
        let (which, carried, what) = match whose {
            Whose::Owner => (0, &mut self.options.owner, "user"),
            Whose::Group => (1, &mut self.options.group, "group"),
        };
        *carried = true;
        match self.mapped[which].replace(by) {
            None => Ok(()),
            Some(before) if before != by => Err(Usage::syntax(format!("rsync: {by} conflicts with prior {before}."))),
            Some("--chown") => {
                Err(Usage::syntax(format!("rsync: You can only specify a {what}-affecting --chown once.")))
            }
            Some(_) => Err(Usage::syntax(format!("rsync: You can only specify {by} once."))),
        }
    }
}

/// Whom `--usermap`, `--groupmap` and `--chown` replace.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    Owner,
    Group,
}

fn unknown(word: &[u8]) -> Usage {
    let given = String::from_utf8_lossy(word);
    let hint = table::resembling(&given).map(|name| format!("; did you mean --{name}?")).unwrap_or_default();
    Usage::syntax(format!("rsync: {given}: unknown option{hint}"))
}

fn takes_none(word: &[u8]) -> Usage {
    Usage::syntax(format!("rsync: {}: option does not take an argument", String::from_utf8_lossy(word)))
}
