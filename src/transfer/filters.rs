//! The filter rules of a session: gathered from options, files and the wire.
//! Counterpart: the parts of rsync's `exclude.c` that read files.

use super::{TransferError, charset};
use crate::disk::beneath::open_operator_list;
use crate::disk::reason;
use protocol::PeerError;
use protocol::args::Options;
use protocol::filter::{
    Action, FilterError, Given, Match, MergeFile, Mode, Modifiers, Origin, Pattern, Rule, RuleSet, RuleSide, cvs_rules,
    parse_file, parse_rule,
};
use protocol::flist::ListLimits;
use protocol::handshake::VERSION_MOST;
use protocol::names;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Merge files within merge files are followed this deep, as by stock.
const DEPTH_MOST: usize = 32;
/// Bytes of a file of rules or names: far more than anyone writes, and a bound on memory.
const FILE_MOST: u64 = 1 << 30;

/// Rules of a client that name files in directories: each costs in every directory that is entered.
const MERGES_MOST: usize = 256;
/// Bytes of a name from a file: more than any path may have.
const NAME_MOST: usize = 4097;
/// Bytes of names that go over at once.
const SAID_AT_ONCE: usize = 32 * 1024;
/// What is said of a list of names that cannot be had.
const UNREADABLE: &str = "Cannot read the list of names";

/// A rule list that cannot be gathered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RulesError {
    /// A rule that means nothing.
    #[error("{0}")]
    Rule(#[from] FilterError),
    /// A file of rules that cannot be read.
    #[error("failed to open {what} {name}: {why}")]
    File {
        /// The file's part, in rsync's words.
        what: &'static str,
        name: String,
        /// The system's words.
        why: String,
    },
    /// Files that name each other without end.
    #[error("merge-file include depth limit (32) exceeded at {0}")]
    Depth(String),
}

/// Rules in the order in which they were given on a command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    from0: bool,
    delete_excluded: bool,
    no_files: bool,
}

impl Rules {
    /// No rules yet. `from0` and `delete_excluded` tell how those to come are read.
    pub(crate) fn new(options: &Options) -> Self {
        let Options { from0, delete_excluded, .. } = *options;
        Self { rules: Vec::new(), from0, delete_excluded, no_files: false }
    }

    /// The same for rules of somebody who may have no file read.
    pub(crate) fn without_files(options: &Options) -> Self {
        Self { no_files: true, ..Self::new(options) }
    }

    /// The rules so far.
    pub(crate) fn given(self) -> Vec<Rule> {
        self.rules
    }

    fn read(&self, what: &'static str, name: &[u8], shown: &str) -> Result<Vec<u8>, RulesError> {
        let failed = |why: String| RulesError::File { what, name: shown.to_owned(), why };
        match self.no_files {
            true => Err(failed("Its rules must be given one by one here".into())),
            false => read(name).map_err(|error| failed(reason(&error))),
        }
    }

    fn mode(&self, mode: Mode) -> Mode {
        Mode { from0: self.from0, delete_excluded: self.delete_excluded, ..mode }
    }

    pub(crate) fn filter(&mut self, text: &[u8]) -> Result<(), RulesError> {
        let given = parse_rule(text, &self.mode(Mode::default()))?;
        self.take(given, None, 0)
    }

    /// `--exclude` or `--include`
    pub(crate) fn pattern(&mut self, action: Action, text: &[u8]) -> Result<(), RulesError> {
        let given = parse_rule(text, &self.mode(Mode::old_style(action)))?;
        self.take(given, None, 0)
    }

    /// `--exclude-from` or `--include-from`; `-` is standard input.
    pub(crate) fn file(&mut self, action: Action, name: &[u8]) -> Result<(), RulesError> {
        let what = if action == Action::Exclude { "exclude file" } else { "include file" };
        let shown = name.escape_ascii().to_string();
        let given = parse_file(&self.read(what, name, &shown)?, &self.mode(Mode::old_style(action)), Some(&shown))?;
        self.take(given, Some(&shown), 0)
    }

    /// Several rules in one line, as a daemon's configuration has them: patterns of one kind, or whole rules.
    pub(crate) fn words(&mut self, action: Option<Action>, text: &[u8]) -> Result<(), RulesError> {
        let mode = action.map(Mode::old_style).unwrap_or_default();
        let given = parse_file(text, &self.mode(Mode { word_split: true, ..mode }), None)?;
        self.take(given, None, 0)
    }

    /// The rules that other options imply, after all that were given; then the list is complete.
    pub(crate) fn finish(mut self, options: &Options) -> Result<Vec<Rule>, RulesError> {
        if options.cvs_exclude {
            self.implied(b":C")?;
            self.filter(b"-C")?;
        }
        let deletes = options.delete.is_some() && !options.delete_excluded;
        if options.backup && options.backup_dir.is_none() && deletes {
            let suffix = options.suffix.as_deref().unwrap_or(b"~");
            self.implied(&[b"-r *", suffix].concat())?;
        }
        let delayed = options.delay_updates.then_some(&b".~tmp~"[..]);
        if let Some(dir) = options.partial_dir.as_deref().or(delayed).filter(|dir| !dir.starts_with(b"/")) {
            self.implied(&[b"-p ", dir, b"/"].concat())?;
        }
        Ok(self.rules)
    }

    fn implied(&mut self, text: &[u8]) -> Result<(), RulesError> {
        let known = self.rules.len();
        self.filter(text)?;
        for rule in &mut self.rules[known..] {
            match rule {
                Rule::Match(rule) | Rule::Cvs(rule) => rule.modifiers.implied = true,
                Rule::DirMerge(file) => file.mode.modifiers.implied = true,
            }
        }
        Ok(())
    }

    /// `from` is what the file is called that they stand in.
    fn take(&mut self, given: Vec<Given>, from: Option<&str>, depth: usize) -> Result<(), RulesError> {
        for given in given {
            match given {
                Given::Rule(Rule::Cvs(like)) => self.rules.extend(cvs_rules(&like, &cvs_of_user())),
                Given::Rule(rule) => self.rules.push(rule),
                Given::Clear => self.rules.clear(),
                Given::Merge(file, line) => {
                    // A name that stands in a file is not for everybody's eyes either.
                    let (shown, from) = match from {
                        None => (file.name.escape_ascii().to_string(), file.name.escape_ascii().to_string()),
                        Some(from) => {
                            (format!("<rule from {from} line {line}>"), format!("a file named at {from} line {line}"))
                        }
                    };
                    if depth == DEPTH_MOST {
                        return Err(RulesError::Depth(shown));
                    }
                    let bytes = self.read("exclude file", &file.name, &shown)?;
                    let given = parse_file(&bytes, &file.mode, Some(&from))?;
                    self.take(given, Some(&from), depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

/// The rules that a client sends its server, taken in one by one.
#[derive(Debug, Clone)]
pub struct ClientRules {
    mode: Mode,
    side: RuleSide,
    /// `-C` stands for rules of its own.
    cvs: bool,
    /// Rules that the server has of its own command line; they come first.
    own: Vec<Rule>,
    rules: Vec<Rule>,
    /// Where those were read that are known beforehand, by their texts.
    origins: HashMap<Vec<u8>, Origin>,
    /// How many of them name files in directories.
    merges: usize,
    /// Memory for them that is left, and that there was.
    left: usize,
    most: usize,
}

impl Default for ClientRules {
    fn default() -> Self {
        Self::new(&[], &Options::default(), RuleSide::Sender, VERSION_MOST)
    }
}

impl ClientRules {
    /// None yet.
    pub(crate) fn new(own: &[Rule], options: &Options, side: RuleSide, version: u8) -> Self {
        let mode = if version < 29 { Mode::old_style(Action::Exclude) } else { Mode::default() };
        let mode = Mode {
            from0: options.from0,
            delete_excluded: options.delete_excluded && side == RuleSide::Receiver,
            ..mode
        };
        let cvs = side == RuleSide::Sender && options.cvs_exclude;
        let most = ListLimits::within(options.max_alloc.unwrap_or(0)).beside;
        let (rules, origins) = Default::default();
        Self { mode, side, cvs, own: own.to_vec(), rules, origins, merges: 0, left: most, most }
    }

    /// The same where these will come: they are told as where they were read.
    pub(super) fn known(mut self, rules: &[Rule]) -> Self {
        let origin = |rule: &Rule| match rule {
            Rule::Match(found) if found.origin != Origin::Words => Some((rule.text(), found.origin)),
            _ => None,
        };
        self.origins = rules.iter().filter_map(origin).collect();
        self
    }

    pub(super) fn hear(&mut self, text: &[u8]) -> Result<(), TransferError> {
        let refused = |error: FilterError| TransferError::Rules(error.to_string());
        for given in parse_rule(text, &self.mode).map_err(refused)? {
            match given {
                Given::Rule(Rule::Cvs(like)) => {
                    cvs_rules(&like, &cvs_of_user()).into_iter().try_for_each(|rule| self.keep(rule))?;
                }
                Given::Rule(rule) => self.keep(rule)?,
                Given::Clear => (self.rules, self.merges, self.left) = (Vec::new(), 0, self.most),
                Given::Merge(file, _) => {
                    let name = file.name.escape_ascii();
                    return Err(TransferError::Rules(format!("A merge rule is for the client to follow: {name}")));
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, mut rule: Rule) -> Result<(), TransferError> {
        if !self.origins.is_empty() {
            let origin = self.origins.get(&rule.text());
            if let (Rule::Match(rule), Some(&origin)) = (&mut rule, origin) {
                rule.origin = origin;
            }
        }
        if matches!(rule, Rule::DirMerge(_)) {
            self.merges += 1;
            if self.merges > MERGES_MOST {
                return Err(TransferError::Rules(format!(
                    "more than {MERGES_MOST} rules that name files in directories"
                )));
            }
        }
        let left = self.left.checked_sub(rule.memory());
        self.left = left.ok_or(PeerError::TooMuch { what: "filter rules", most: self.most })?;
        self.rules.push(rule);
        Ok(())
    }

    /// What they come to on this side, after the server's own; nothing when none of them concerns it.
    pub(super) fn finish(self) -> Option<RuleSet> {
        let mut rules = self.own;
        rules.extend(self.rules);
        if self.cvs {
            rules.extend(of_cvs());
        }
        Some(RuleSet::of(self.side, rules)).filter(|set| !set.is_empty())
    }
}

/// The rules of a client that receives: what it told its server, and what `-C` stands for, which the server adds by itself.
pub(super) fn of_receiving_client(told: &[Rule], options: &Options) -> Option<RuleSet> {
    let cvs = if options.cvs_exclude { of_cvs() } else { Vec::new() };
    let rules = told.iter().cloned().chain(cvs).collect();
    Some(RuleSet::of(RuleSide::Receiver, rules)).filter(|set| !set.is_empty())
}

/// What `-C` stands for at an end that is not told its rules one by one. They concern both sides, `--delete-excluded` or
/// not.
pub(crate) fn of_cvs() -> Vec<Rule> {
    let file = MergeFile {
        name: b".cvsignore".to_vec(),
        mode: Mode { cvs: true, word_split: true, bare: Some(Action::Exclude), ..Mode::default() },
        no_inherit: true,
    };
    let like = Match {
        action: Action::Exclude,
        pattern: Pattern::new(b""),
        negated: false,
        modifiers: Modifiers::default(),
        origin: Origin::Cvs,
    };
    let fixed = cvs_rules(&like, &cvs_of_user());
    std::iter::once(Rule::DirMerge(file)).chain(fixed).collect()
}

/// The names in a file of `--files-from`, for who looks them up here, one after another; comments are left out. With
/// `from0` they end in zero bytes.
pub(crate) fn names_of_file(
    name: &[u8],
    from0: bool,
) -> Result<impl Iterator<Item = Result<Vec<u8>, TransferError>> + use<>, TransferError> {
    let mut names = NamesInFile::open(name, from0)?;
    Ok(std::iter::from_fn(move || names.next().transpose())
        .filter(|name| !name.as_ref().is_ok_and(|name| names::is_comment(name))))
}

/// A file of names, read as far as they are asked for: it may be longer than memory.
struct NamesInFile {
    file: BufReader<Box<dyn Read + Send>>,
    from0: bool,
}

impl NamesInFile {
    fn open(name: &[u8], from0: bool) -> Result<Self, TransferError> {
        let file: Box<dyn Read + Send> = match name {
            b"-" => Box::new(io::stdin()),
            name => Box::new(open_operator_list(Path::new(OsStr::from_bytes(name))).map_err(|error| {
                unreadable(&RulesError::File {
                    what: "files-from file",
                    name: name.escape_ascii().to_string(),
                    why: reason(&error),
                })
            })?),
        };
        Ok(Self { file: BufReader::with_capacity(64 * 1024, file), from0 })
    }

    /// The next name that is not blank. Of one that no path can be there is enough for the system to say so.
    fn next(&mut self) -> Result<Option<Vec<u8>>, TransferError> {
        let mut name = Vec::new();
        loop {
            let bytes = match self.file.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(TransferError::Local { what: UNREADABLE.into(), source }),
            };
            if bytes.is_empty() {
                return Ok(Some(name).filter(|name| !name.is_empty()));
            }
            let ends = |byte: &u8| if self.from0 { *byte == 0 } else { matches!(byte, b'\n' | b'\r' | 0) };
            let end = bytes.iter().position(ends);
            let part = &bytes[..end.unwrap_or(bytes.len())];
            name.extend_from_slice(&part[..part.len().min(NAME_MOST.saturating_sub(name.len()))]);
            let used = part.len() + usize::from(end.is_some());
            self.file.consume(used);
            if end.is_some() && !name.is_empty() {
                return Ok(Some(name));
            }
        }
    }
}

/// The names in a file of `--files-from` as they go over to a peer that looks them up, a good deal at a time.
pub(super) fn names_to_say(
    name: &[u8],
    options: &Options,
) -> Result<impl Iterator<Item = Result<Vec<u8>, TransferError>> + Send + use<>, TransferError> {
    let (mut names, options) = (NamesInFile::open(name, options.from0)?, options.clone());
    let mut ended = false;
    Ok(std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        while !ended && bytes.len() < SAID_AT_ONCE {
            match names.next() {
                Ok(Some(name)) => names::put(&charset::to_peer(&name, &options), &mut bytes),
                Ok(None) => {
                    names::end(&mut bytes);
                    ended = true;
                }
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(bytes)).filter(|bytes| bytes.as_ref().is_ok_and(|bytes| !bytes.is_empty()))
    }))
}

/// A file of `--files-from` for a peer that looks the names up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forwarded {
    /// The file as it goes over.
    pub bytes: Vec<u8>,
    /// The names in it. What would be a comment here is a name over there.
    pub names: Vec<Vec<u8>>,
}

pub(crate) fn names_to_forward(name: &[u8], options: &Options) -> Result<Forwarded, TransferError> {
    let bytes = list_of_names(name)?;
    let names: Vec<_> = names::of_file(&bytes, options.from0).map(<[u8]>::to_vec).collect();
    let sent: Vec<_> = names.iter().map(|name| charset::to_peer(name, options)).collect();
    Ok(Forwarded { bytes: names::encode(sent.iter().map(Vec::as_slice)), names })
}

fn list_of_names(name: &[u8]) -> Result<Vec<u8>, TransferError> {
    let name_of = |error: io::Error| RulesError::File {
        what: "files-from file",
        name: name.escape_ascii().to_string(),
        why: reason(&error),
    };
    read(name).map_err(|error| unreadable(&name_of(error)))
}

fn unreadable(error: &RulesError) -> TransferError {
    TransferError::Usage(format!("{UNREADABLE}: {error}"))
}

/// What the rules come to on one side; nothing when none of them concerns it.
pub(crate) fn rule_set(rules: &[Rule], side: RuleSide) -> Option<RuleSet> {
    Some(RuleSet::new(side, rules)).filter(|set| !set.is_empty())
}

/// The user's own words on what CVS ignores.
fn cvs_of_user() -> Vec<(Origin, Vec<u8>)> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cvsignore"));
    let file = home.and_then(|path| read(path.as_os_str().as_bytes()).ok());
    let words = std::env::var_os("CVSIGNORE").map(|words| words.as_bytes().to_vec());
    file.map(|file| (Origin::CvsFile, file)).into_iter().chain(words.map(|words| (Origin::Cvs, words))).collect()
}

/// A file that the operator named.
fn read(name: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let done = match name {
        b"-" => io::stdin().lock().take(FILE_MOST).read_to_end(&mut bytes),
        name => open_operator_list(Path::new(OsStr::from_bytes(name)))
            .and_then(|file| file.take(FILE_MOST).read_to_end(&mut bytes)),
    };
    match done? as u64 {
        FILE_MOST => Err(io::Error::other("It is larger than 1 GiB")),
        _ => Ok(bytes),
    }
}
