//! What a person asked for: all that a command line can say. It is read in `parse`.

use super::usage::Usage;
use protocol::args::{DeleteWhen, Options};
use std::path::PathBuf;

#[cfg(test)]
mod tests;

/// Which option a filter rule came with; its text means something else with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterKind {
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
pub(crate) enum Ask {
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
pub(crate) struct Batch {
    /// `--write-batch`.
    pub write: Option<Vec<u8>>,
    /// `--only-write-batch`.
    pub only_write: Option<Vec<u8>>,
    /// `--read-batch`.
    pub read: Option<Vec<u8>>,
}

/// How standard output is buffered: `--outbuf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outbuf {
    /// Every line at once.
    Line,
    /// Every write at once.
    None,
    /// When the buffer is full.
    Block,
}

/// Where messages go: `--stderr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum StderrMode {
    /// Errors to standard error; all else to standard output.
    #[default]
    Errors,
    /// Everything to standard error, at the remote side too.
    All,
    /// Errors of the remote side come through the connection.
    Client,
}

/// Over how many connections files go: `--parallel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parallel {
    /// As many as the link is worth.
    Auto,
    /// So many, the one that decides among them.
    Connections(u8),
}

impl Parallel {
    /// How many there are at most.
    pub(crate) const MOST: u8 = 16;
}

/// Filter rules as they were given.
pub(super) type Filters = [(FilterKind, Vec<u8>)];

/// A whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
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
    /// `--parallel`.
    pub parallel: Option<Parallel>,
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
            parallel: None,
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
    /// Remembers when to delete; that two of these were given is found in the end. Those that find what to delete on the way
    /// go together, and the last one counts.
    pub(super) fn delete_when(&mut self, when: DeleteWhen) {
        let on_the_way = |when| matches!(when, DeleteWhen::During | DeleteWhen::Delay);
        let before = self.options.delete;
        if before != Some(when) && !(before.is_some_and(on_the_way) && on_the_way(when)) {
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
