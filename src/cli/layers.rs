//! Where the value of an option comes from: the configuration file, a variable, the command line, each of which beats those
//! before it. What file and variables say becomes the default of the option, so that one parser reads them all.

mod file;

use super::flags::console::{AimArgs, LimitArgs, StatusArgs, SteerOrder};
use super::flags::{Command as Verb, Flags, RunArgs};
use crate::ocs::site::SiteFlags;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches};
use file::{ConfigFile, ConfiguredTarget, FileError};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// The configuration file that is read where none is named.
pub(super) const DEFAULT_FILE: &str = "/etc/pysmurf-archiver/config.toml";
/// What stands in the place of its name where none is to be read.
const NO_FILE: &str = "none";
/// Before the name of each variable.
const PREFIX: &str = "ARCHIVER_";
/// The verb for storage nodes that others feed.
const RELAY: &str = "relay";
/// Options that only a command line has.
const ONLY_TYPED: [&str; 6] = ["config", "only", "help", "version", "once", "json"];
/// The option that limits the rate.
const LIMIT: &str = "bwlimit";
/// The option that is `/` where it is not said beside the other: batches have whole paths.
const BASE_OF_BATCHES: (&str, &str) = ("data-dir", "batches");
/// Pairs that exclude each other beside those that the parser knows of.
const EXCLUDING: [(&str, &str); 2] = [("target", "archive-name"), ("site", "site-file")];

/// What file or variable says of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) values: Vec<OsString>,
    pub(super) origin: SettingOrigin,
}

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SettingOrigin {
    File {
        path: PathBuf,
        line: usize,
    },
    Variable(String),
    /// Another option implies it.
    Implied(&'static str),
    /// A storage node of the file is what it is.
    Node(String),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Variable(name) => write!(f, "Variable {name}"),
            Self::Implied(option) => write!(f, "Option --{option}"),
            Self::Node(name) => write!(f, "[[node]] {name}"),
        }
    }
}

/// Settings by the long names of their options.
pub(super) type Settings = BTreeMap<String, Setting>;

/// A command line with what stands behind it.
pub(super) struct Layered {
    /// The target of the configuration file that this is for.
    pub(super) target: Option<String>,
    pub(super) verb: Verb,
    /// The verb's own matches.
    pub(super) matches: ArgMatches,
    pub(super) settings: Settings,
    /// The limit of its rate is its own, and not one for all targets.
    own_limit: bool,
}

/// Why a command line cannot be used, or is over with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayerError {
    /// The parser's word: an error, or the help that was asked for.
    #[error(transparent)]
    Parser(#[from] clap::Error),
    #[error(transparent)]
    File(#[from] FileError),
    /// A value that its option does not take.
    #[error("{origin}: {option} = {value:?}: {why}")]
    Value { origin: SettingOrigin, option: String, value: String, why: String },
    #[error("{0}: {1} and {2} ({3}) exclude each other; give one")]
    Excluding(SettingOrigin, String, String, SettingOrigin),
    #[error("Option --only: {file} has no target {name:?}; it has {known}")]
    NoTarget { file: PathBuf, name: String, known: String },
    #[error("{file} has several targets, and this is done for one; choose it with --only NAME: {known}")]
    SeveralTargets { file: PathBuf, known: String },
    #[error("Option --node: {file} has no storage node {name:?}; it has {known}")]
    NoNode { file: PathBuf, name: String, known: String },
    #[error("{file} has several storage nodes, and this is done for one; choose it with --node NAME: {known}")]
    SeveralNodes { file: PathBuf, known: String },
    #[error("{file} has no storage node that is fed from another one; write from = \"OTHER\" in its [[node]]")]
    NoRelay { file: PathBuf },
    #[error("{file} has several storage nodes that are fed from others; choose one with --node NAME: {known}")]
    SeveralRelays { file: PathBuf, known: String },
    #[error(
        "Option --only chooses among the targets of a configuration file, and there is none; name it with --config"
    )]
    NoFile,
}

/// What file and variables say, and what was typed.
struct Layers {
    /// The verb's command, as the parser has it.
    leaf: Command,
    /// The verb, of several words the first one.
    verb: String,
    /// Long names of the options that were typed.
    typed: BTreeSet<String>,
    only: Vec<String>,
    /// The storage node that was typed.
    node: Option<String>,
    /// Names that were typed for a target or an archive.
    named: BTreeSet<String>,
    variables: Settings,
    file: Option<ConfigFile>,
}

/// What `run` is to do for one target.
pub(super) struct NamedRun {
    /// The target's name, where a file has one.
    pub(super) target: Option<String>,
    pub(super) args: RunArgs,
    /// It has a limit of its own; else one limit holds for all targets together.
    pub(super) own_limit: bool,
}

impl Layered {
    /// The arguments of `run` or `check`.
    pub(super) fn into_run(self) -> Option<NamedRun> {
        match self.verb {
            Verb::Run(args) | Verb::Relay(args) | Verb::Check(args) => {
                Some(NamedRun { target: self.target, args, own_limit: self.own_limit })
            }
            _ => None,
        }
    }

    /// What a running archiver is told, and which one is meant.
    pub(super) fn into_order(self) -> Option<(SteerOrder, AimArgs)> {
        match self.verb {
            Verb::Pause(aim) => Some((SteerOrder::Pause, aim)),
            Verb::Resume(aim) => Some((SteerOrder::Resume, aim)),
            Verb::Bwlimit(LimitArgs { rate, aim }) => Some((SteerOrder::Limit(rate), aim)),
            _ => None,
        }
    }

    /// The arguments of `status`.
    pub(super) fn into_status(self) -> Option<StatusArgs> {
        match self.verb {
            Verb::Status(args) => Some(args),
            _ => None,
        }
    }
}

/// Whether a file is there that may say what to run, although nothing is typed.
pub(super) fn is_configured() -> bool {
    variable(&variable_of("config")).is_some() || Path::new(DEFAULT_FILE).exists()
}

/// A target that is meant, and what is said for it, the strongest first.
struct ChosenTarget<'a> {
    /// `None` where no file has it.
    name: Option<String>,
    levels: Vec<&'a Settings>,
    /// What a relayed storage node takes over from the one that feeds it, weaker than all.
    fed: Settings,
    /// How many of them are its own, and not of all.
    own: usize,
}

/// Parses a command line, its program's name first: once for each target of the configuration file that it concerns.
pub(super) fn parse(args: &[OsString]) -> Result<Vec<Layered>, LayerError> {
    let Some(sources) = Layers::find(args)? else {
        let (verb, matches) = strict(Flags::command(), args)?;
        return Ok(vec![Layered { target: None, verb, matches, settings: Settings::new(), own_limit: false }]);
    };
    let targets = sources.targets()?;
    if let (Some(file), true) = (&sources.file, targets.len() > 1 && !takes_many(sources.leaf.get_name())) {
        return Err(LayerError::SeveralTargets { file: file.path.clone(), known: file.names() });
    }
    let each = targets.into_iter().map(|ChosenTarget { name: target, mut levels, fed, own }| {
        let own_limit = levels.iter().take(own).any(|own| own.contains_key(LIMIT)) && !sources.typed.contains(LIMIT);
        levels.push(&fed);
        let settings = sources.combine(levels)?;
        let (verb, matches) =
            strict(layered(Flags::command(), &settings), args).map_err(|error| match error.kind() {
                // What the options are by default is not what a file makes of them.
                ErrorKind::DisplayHelp => strict(Flags::command(), args).err().unwrap_or(error).into(),
                _ => explained(error, &settings),
            })?;
        Ok(Layered { target, verb, matches, settings, own_limit })
    });
    each.collect()
}

/// The options of an agent's place in its observatory that file and variables say, as words before those of `args`.
pub(super) fn site_words(args: &[OsString]) -> Result<Vec<OsString>, LayerError> {
    let Some(sources) = Layers::find(args)? else { return Ok(Vec::new()) };
    let mut targets = sources.targets()?;
    let levels = match (targets.len(), &sources.file) {
        (1, _) => targets.remove(0).levels,
        (_, Some(file)) => vec![&file.common],
        (_, None) => Vec::new(),
    };
    let site = SiteFlags::augment_args(Command::new("site"));
    let settings = sources.combine(levels)?;
    let ours = settings.into_iter().filter(|(name, setting)| {
        let is_site = site.get_arguments().any(|arg| arg.get_long() == Some(name));
        // The framework's own variables beat the file as ours do.
        let own = name.to_ascii_uppercase().replace('-', "_");
        is_site && (matches!(setting.origin, SettingOrigin::Variable(_)) || variable(&own).is_none())
    });
    let words = ours.filter_map(|(name, setting)| {
        let mut word = OsString::from(format!("--{name}="));
        word.push(setting.values.first()?);
        Some(word)
    });
    Ok(words.collect())
}

/// The options that file and variables may say: those of `run`, and what else `monitor` has.
pub(super) fn options() -> Command {
    let mut command = Flags::command();
    command.build();
    let of = |verb: &str| command.find_subcommand(verb).cloned().unwrap_or_else(|| Command::new(verb.to_owned()));
    let run = of("run");
    let is_new = |arg: &&Arg| run.get_arguments().all(|known| known.get_long() != arg.get_long());
    let more: Vec<_> = of("monitor").get_arguments().filter(is_new).cloned().collect();
    run.clone().args(more)
}

/// Whether file and variables may say this one.
pub(super) fn is_setting(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| !ONLY_TYPED.contains(&long)) && !arg.is_hide_set()
}

/// The variable of an option.
pub(super) fn variable_of(option: &str) -> String {
    format!("{PREFIX}{}", option.to_ascii_uppercase().replace('-', "_"))
}

/// Whether a verb is done for each target of a file.
fn takes_many(verb: &str) -> bool {
    ["run", RELAY, "check", "config", "status", "pause", "resume", "bwlimit"].contains(&verb)
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl Layers {
    /// `None` where the verb has nothing to do with a configuration, or help is asked for.
    fn find(args: &[OsString]) -> Result<Option<Self>, LayerError> {
        let mut command = Flags::command().ignore_errors(true);
        let Ok(matches) = command.try_get_matches_from_mut(args) else { return Ok(None) };
        let verb = matches.subcommand_name().unwrap_or_default().to_owned();
        let (leaf, matches) = leaf_of(&command, &matches);
        if leaf.get_arguments().all(|arg| arg.get_id() != "config") {
            return Ok(None);
        }
        let is_typed = |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        let typed = leaf.get_arguments().filter(is_typed).filter_map(Arg::get_long).map(str::to_owned).collect();
        let words = |id: &str| -> Vec<String> {
            let raw = matches.try_get_raw(id).ok().flatten();
            raw.into_iter().flatten().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        let options = options();
        let variables = options.get_arguments().filter(|arg| is_setting(arg)).filter_map(of_variable);
        let named = matches.try_get_raw("config").ok().flatten().and_then(|mut words| words.next_back());
        let file = match named.map(OsStr::to_os_string).or_else(|| variable(&variable_of("config"))) {
            Some(none) if none == NO_FILE => None,
            Some(file) => Some(ConfigFile::read(Path::new(&file), &options)?),
            None if Path::new(DEFAULT_FILE).exists() => Some(ConfigFile::read(Path::new(DEFAULT_FILE), &options)?),
            None => None,
        };
        Ok(Some(Self {
            typed,
            only: words("only"),
            node: words("node").pop(),
            named: words("target").into_iter().chain(words("archive_name")).collect(),
            variables: variables.collect(),
            file,
            leaf: leaf.clone(),
            verb,
        }))
    }

    fn targets<'a>(&'a self) -> Result<Vec<ChosenTarget<'a>>, LayerError> {
        let Some(file) = &self.file else {
            return match self.only.is_empty() {
                true => Ok(vec![ChosenTarget { name: None, levels: Vec::new(), fed: Settings::new(), own: 0 }]),
                false => Err(LayerError::NoFile),
            };
        };
        if let Some(name) = self.only.iter().find(|name| file.targets.iter().all(|target| target.name != **name)) {
            return Err(LayerError::NoTarget { file: file.path.clone(), name: name.clone(), known: file.names() });
        }
        let chosen: Vec<_> = match (self.only.is_empty(), self.named.is_empty()) {
            (false, _) => file.targets.iter().filter(|target| self.only.contains(&target.name)).collect(),
            // What is registered belongs to all targets, or none.
            (true, true) if ["monitor", "rejects"].contains(&self.leaf.get_name()) => Vec::new(),
            (true, true) => file.targets.iter().collect(),
            // Who names rows means the target that has these rows; else one of his own.
            (true, false) => file.targets.iter().filter(|target| target.rows() == self.named).collect(),
        };
        let chosen = match chosen.is_empty() {
            true => vec![ChosenTarget { name: None, levels: vec![&file.common], fed: Settings::new(), own: 0 }],
            false => {
                let target = |target: &'a ConfiguredTarget| ChosenTarget {
                    name: Some(target.name.clone()),
                    levels: vec![&target.own, &file.common],
                    fed: Settings::new(),
                    own: 1,
                };
                chosen.into_iter().map(target).collect()
            }
        };
        self.on_nodes(file, chosen)
    }

    /// Each target once for each storage node that is meant, where the file has several and the verb works with one.
    fn on_nodes<'a>(
        &self,
        file: &'a ConfigFile,
        targets: Vec<ChosenTarget<'a>>,
    ) -> Result<Vec<ChosenTarget<'a>>, LayerError> {
        if file.nodes.is_empty() || self.leaf.get_arguments().all(|arg| arg.get_id() != "node") {
            return Ok(targets);
        }
        let known = || (file.path.clone(), file.node_names());
        match &self.node {
            Some(name) if file.nodes.iter().all(|node| node.name != *name) => {
                let (file, known) = known();
                return Err(LayerError::NoNode { file, name: name.clone(), known });
            }
            None if self.leaf.get_name() == RELAY && file.relayed().count() != 1 => {
                let known = file.relayed().collect::<Vec<_>>().join(", ");
                return Err(match known.is_empty() {
                    true => LayerError::NoRelay { file: file.path.clone() },
                    false => LayerError::SeveralRelays { file: file.path.clone(), known },
                });
            }
            None if !takes_many(self.leaf.get_name()) => {
                let (file, known) = known();
                return Err(LayerError::SeveralNodes { file, known });
            }
            _ => {}
        }
        let unnamed: Vec<String> = match self.named.is_empty() {
            true => file.common_rows().into_iter().collect(),
            false => self.named.iter().cloned().collect(),
        };
        let unnamed = unnamed.join("+");
        // Where nobody chooses, those are meant that this verb is for.
        let is_meant = |node: &&ConfiguredTarget| match (&self.node, self.verb.as_str()) {
            (Some(name), _) => node.name == *name,
            (None, RELAY) => node.from.is_some(),
            (None, "check") => node.from.is_none(),
            (None, _) => true,
        };
        let meant: Vec<&ConfiguredTarget> = file.nodes.iter().filter(is_meant).collect();
        let on = |target: &ChosenTarget<'a>, node: &'a ConfiguredTarget| {
            Ok(ChosenTarget {
                name: Some(format!("{}@{}", target.name.as_ref().unwrap_or(&unnamed), node.name)),
                levels: std::iter::once(&node.own).chain(target.levels.iter().copied()).collect(),
                fed: file.fed(node, &target.levels)?,
                own: target.own + 1,
            })
        };
        targets.iter().flat_map(|target| meant.iter().map(move |node| on(target, node))).collect()
    }

    /// One setting for each option that was not typed. What excludes a stronger one gives way to it.
    fn combine(&self, levels: Vec<&Settings>) -> Result<Settings, LayerError> {
        let mut combined = Settings::new();
        let mut stronger = self.typed.clone();
        for level in std::iter::once(&self.variables).chain(levels) {
            // A switch that is off excludes nothing.
            let on: Settings = level.clone().into_iter().filter(|(name, said)| !self.is_off(name, said)).collect();
            for (name, setting) in level {
                let excludes = |other: &String| on.contains_key(name) && self.exclude(name, other);
                if combined.contains_key(name) || stronger.iter().any(|other| other == name || excludes(other)) {
                    continue;
                }
                if let Some((other, second)) = on.iter().find(|(other, _)| *other > name && excludes(other)) {
                    let (first, second) = (setting.origin.clone(), second.origin.clone());
                    return Err(LayerError::Excluding(first, name.clone(), other.clone(), second));
                }
                combined.insert(name.clone(), setting.clone());
            }
            stronger.extend(on.into_keys());
        }
        let (base, batches) = BASE_OF_BATCHES;
        let is_said = |name: &str| combined.contains_key(name) || self.typed.contains(name);
        if is_said(batches) && !is_said(base) {
            let origin = SettingOrigin::Implied(batches);
            combined.insert(base.to_owned(), Setting { values: vec!["/".into()], origin });
        }
        Ok(combined)
    }

    fn is_off(&self, name: &str, setting: &Setting) -> bool {
        let arg = self.leaf.get_arguments().find(|arg| arg.get_long() == Some(name));
        match arg.map(Arg::get_action) {
            Some(ArgAction::SetTrue) => setting.values == ["false"],
            Some(ArgAction::Count) => setting.values == ["0"],
            _ => false,
        }
    }

    fn exclude(&self, one: &str, other: &str) -> bool {
        let arg = |name: &str| self.leaf.get_arguments().find(|arg| arg.get_long() == Some(name));
        let says = |one: &str, other: &str| {
            arg(one).is_some_and(|arg| {
                self.leaf.get_arg_conflicts_with(arg).iter().any(|arg| arg.get_long() == Some(other))
            }) || EXCLUDING.contains(&(one, other))
        };
        says(one, other) || says(other, one)
    }
}

/// The verb that was called, however deep, with its matches.
fn leaf_of<'a>(command: &'a Command, matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    let below = matches.subcommand().and_then(|(name, matches)| Some((command.find_subcommand(name)?, matches)));
    match below {
        Some((command, matches)) => leaf_of(command, matches),
        None => (command, matches),
    }
}

/// What its variable says of an option; several values stand between commas.
fn of_variable(arg: &Arg) -> Option<(String, Setting)> {
    let option = arg.get_long()?;
    let name = variable_of(option);
    let value = variable(&name)?;
    let values = match (arg.get_action(), value.to_str()) {
        (ArgAction::SetTrue, Some("1" | "yes" | "on")) => vec!["true".into()],
        (ArgAction::SetTrue, Some("0" | "no" | "off")) => vec!["false".into()],
        (ArgAction::Append, Some(text)) => text.split(',').map(|value| value.trim().into()).collect(),
        _ => vec![value],
    };
    Some((option.to_owned(), Setting { values, origin: SettingOrigin::Variable(name) }))
}

/// The command with these settings as its defaults, in each verb that a configuration concerns.
fn layered(command: Command, settings: &Settings) -> Command {
    let concerned = command.get_arguments().any(|arg| arg.get_id() == "config");
    let command = command.mut_subcommands(|verb| layered(verb, settings));
    if !concerned {
        return command;
    }
    command.mut_args(|arg| match arg.get_long().and_then(|long| settings.get(long)) {
        Some(setting) => arg.required(false).default_values(setting.values.clone()),
        None => arg,
    })
}

fn strict(mut command: Command, args: &[OsString]) -> Result<(Verb, ArgMatches), clap::Error> {
    let mut matches = command.try_get_matches_from_mut(args)?;
    let leaf = leaf_of(&command, &matches).1.clone();
    let flags = Flags::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
    Ok((flags.command, leaf))
}

/// The error with the place of the value that it is about, where that was not typed.
fn explained(error: clap::Error, settings: &Settings) -> LayerError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let option = text(ContextKind::InvalidArg).and_then(|arg| arg.strip_prefix("--"));
    let option = option.and_then(|arg| arg.split([' ', '=', '[']).next()).unwrap_or_default();
    let Some(setting) = settings.get(option) else { return error.into() };
    let why = match (std::error::Error::source(&error), error.get(ContextKind::ValidValue)) {
        (Some(why), _) => why.to_string(),
        (None, Some(ContextValue::Strings(known))) if !known.is_empty() => format!("expected {}", known.join(", ")),
        (None, _) => "the option does not take it".to_owned(),
    };
    LayerError::Value {
        origin: setting.origin.clone(),
        option: option.to_owned(),
        value: text(ContextKind::InvalidValue).unwrap_or_default().to_owned(),
        why,
    }
}
