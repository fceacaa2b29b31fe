//! The configuration file: TOML, whose keys are the long names of `run`'s options. What stands above the tables `[[target]]`
//! holds for all of them, what stands in one for this one.

use super::{Setting, SettingOrigin, Settings, is_setting};
use crate::cli::flags::SELF;
use clap::{Arg, ArgAction, Command};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::de::{DeArray, DeTable, DeValue};

/// The longest file that is read; all options said a hundred times are shorter.
const FILE_MOST: u64 = 1 << 20;
/// How like a known key a wrong one must be to be told that it may be meant.
const LIKE: f64 = 0.75;
/// The key of a target's name, and the one that the tables of targets have.
const NAME: &str = "name";
const TARGET: &str = "target";
/// The same of storage nodes, and the option with the names of all.
const NODE: &str = "node";
const NODES: &str = "nodes";
/// What feeds a relayed node, in its table, and the options that say it.
const FROM: &str = "from";
const RELAYS: &str = "relays";
const FROM_DATA_DIR: &str = "from-data-dir";
/// Where a node is.
const HOST: &str = "storage-host";
const PORT: &str = "ssh-port";
const DATA_DIR: &str = "data-dir";

/// A configuration file as read.
pub(in crate::cli) struct ConfigFile {
    pub(super) path: PathBuf,
    /// What holds for all targets.
    pub(super) common: Settings,
    pub(super) targets: Vec<ConfiguredTarget>,
    /// The storage nodes that the copies of all targets go to, where there are several.
    pub(super) nodes: Vec<ConfiguredTarget>,
}

/// A `[[target]]`, or a `[[node]]`.
pub(super) struct ConfiguredTarget {
    /// What it is called in logs and by `--only`.
    pub(super) name: String,
    pub(super) own: Settings,
    /// Of a storage node: the one that feeds it, if it is a relayed one.
    pub(super) from: Option<String>,
}

impl ConfiguredTarget {
    /// Whose rows are copied.
    pub(super) fn rows(&self) -> BTreeSet<String> {
        rows(&self.own).into_iter().collect()
    }
}

fn rows(own: &Settings) -> Vec<String> {
    let values =
        [TARGET, "archive-name"].into_iter().filter_map(|key| own.get(key)).flat_map(|setting| &setting.values);
    values.map(|value| value.to_string_lossy().into_owned()).collect()
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum FileError {
    #[error("Configuration file {}: {why}; name another with --config, or none with --config none", path.display())]
    Unreadable { path: PathBuf, why: String },
    #[error("{}, line {line}: {why}", path.display())]
    Content { path: PathBuf, line: usize, why: String },
    #[error("{}: the nodes {one} and {other} are one place; give each a storage-host or a data-dir of its own", path.display())]
    OnePlace { path: PathBuf, one: String, other: String },
}

/// A file at work on.
struct ConfigReading<'a> {
    path: &'a Path,
    text: &'a str,
    options: &'a Command,
}

impl ConfigFile {
    /// Reads it; `options` are those it may say.
    pub(super) fn read(path: &Path, options: &Command) -> Result<Self, FileError> {
        let unreadable = |why: String| FileError::Unreadable { path: path.to_owned(), why };
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(FILE_MOST + 1).read_to_string(&mut text));
        read.map_err(|error| unreadable(error.to_string()))?;
        if text.len() as u64 > FILE_MOST {
            return Err(unreadable(format!("longer than {FILE_MOST} bytes")));
        }
        ConfigReading { path, text: &text, options }.read()
    }

    /// The names of the targets, for messages.
    pub(super) fn names(&self) -> String {
        names(&self.targets)
    }

    /// Whose rows are copied where no target says it.
    pub(super) fn common_rows(&self) -> BTreeSet<String> {
        rows(&self.common).into_iter().collect()
    }

    /// What a relayed node takes over from the one that feeds it, for a target whose settings these are. The error: both are
    /// one place.
    pub(super) fn fed(&self, node: &ConfiguredTarget, levels: &[&Settings]) -> Result<Settings, FileError> {
        let mut others = self.nodes.iter().filter(|source| source.name != node.name);
        let Some(source) = others.find(|source| Some(&source.name) == node.from.as_ref()) else {
            return Ok(Settings::new());
        };
        let said = |of: &ConfiguredTarget, option: &str| {
            let all = std::iter::once(&of.own).chain(levels.iter().copied());
            all.filter_map(|level| level.get(option)).next().cloned()
        };
        let place = |of| [HOST, PORT, DATA_DIR].map(|option| said(of, option).map(|said| said.values));
        if place(node) == place(source) {
            let (one, other, path) = (node.name.clone(), source.name.clone(), self.path.clone());
            return Err(FileError::OnePlace { path, one, other });
        }
        let data_dir = said(source, DATA_DIR);
        Ok(data_dir.map(|setting| (FROM_DATA_DIR.to_owned(), setting)).into_iter().collect())
    }

    /// The names of the storage nodes that others feed.
    pub(super) fn relayed(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|node| node.from.is_some()).map(|node| node.name.as_str())
    }

    /// Those of the storage nodes.
    pub(super) fn node_names(&self) -> String {
        names(&self.nodes)
    }
}

fn names(all: &[ConfiguredTarget]) -> String {
    match all {
        [] => "none".to_owned(),
        all => all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

impl ConfigReading<'_> {
    fn wrong<T>(&self, at: usize, why: impl Into<String>) -> Result<T, FileError> {
        let line = self.line(at);
        Err(FileError::Content { path: self.path.to_owned(), line, why: why.into() })
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn read(&self) -> Result<ConfigFile, FileError> {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => return self.wrong(error.span().map_or(0, |span| span.start), error.message()),
        };
        let mut common = Settings::new();
        let (mut targets, mut nodes) = (Vec::new(), Vec::new());
        for (key, value) in &table {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            match value.get_ref() {
                DeValue::Array(tables) if name == TARGET && tables.iter().any(|one| one.get_ref().is_table()) => {
                    targets = self.tables(TARGET, tables, |at, table| self.target(at, table, None))?;
                }
                DeValue::Array(tables) if name == NODE && tables.iter().any(|one| one.get_ref().is_table()) => {
                    nodes = self.tables(NODE, tables, |at, table| self.node(at, table))?;
                    self.enter(&mut nodes);
                }
                DeValue::Table(_) if [TARGET, NODE].contains(&name) => {
                    let why = format!("there may be several {name}s; write [[{name}]] in the place of [{name}]");
                    return self.wrong(at, why);
                }
                DeValue::Table(_) => {
                    return self.wrong(
                        at,
                        format!("there is no table [{name}]; options stand above all tables, or in a [[target]]"),
                    );
                }
                value => {
                    self.setting(&mut common, name, at, value)?;
                }
            }
        }
        Ok(ConfigFile { path: self.path.to_owned(), common, targets, nodes })
    }

    /// Several tables of one kind, each with a name of its own.
    fn tables(
        &self,
        kind: &str,
        tables: &DeArray<'_>,
        read: impl Fn(usize, &DeTable<'_>) -> Result<ConfiguredTarget, FileError>,
    ) -> Result<Vec<ConfiguredTarget>, FileError> {
        let mut all: Vec<ConfiguredTarget> = Vec::new();
        for one in tables.iter() {
            let at = one.span().start;
            let Some(table) = one.get_ref().as_table() else {
                return self.wrong(at, format!("a {kind} is a table; write [[{kind}]] above its keys"));
            };
            let one = read(at, table)?;
            if all.iter().any(|other| other.name == one.name) {
                return self.wrong(at, format!("there is a {kind} {:?} already; give it a name of its own", one.name));
            }
            all.push(one);
        }
        Ok(all)
    }

    /// A storage node, whose options beat those of targets.
    fn node(&self, at: usize, table: &DeTable<'_>) -> Result<ConfiguredTarget, FileError> {
        if !table.iter().any(|(key, _)| key.get_ref().as_ref() == NAME) {
            return self.wrong(at, "a node needs a name, such as name = \"storage-a\"");
        }
        let line = table.iter().find(|(key, _)| key.get_ref().as_ref() == FROM);
        let from = match line.map(|(key, value)| (key.span().start, value.get_ref())) {
            None => None,
            Some((_, DeValue::String(from))) if !from.is_empty() => Some(from.to_string()),
            Some((at, _)) => return self.wrong(at, "from is the name of another node, such as from = \"storage-a\""),
        };
        let node = self.target(at, table, from)?;
        match rows(&node.own).is_empty() {
            true => Ok(node),
            false => self.wrong(at, "a node has the copies of all targets; say whose files these are in a [[target]]"),
        }
    }

    /// Tells each node which one it is.
    fn enter(&self, nodes: &mut [ConfiguredTarget]) {
        let direct = nodes.iter().filter(|node| node.from.is_none());
        let names: Vec<OsString> = direct.map(|node| node.name.clone().into()).collect();
        let pair = |node: &ConfiguredTarget| Some(format!("{}:{}", node.name, node.from.as_ref()?).into());
        let relays: Vec<OsString> = nodes.iter().filter_map(pair).collect();
        for node in nodes {
            let origin = SettingOrigin::Node(node.name.clone());
            let setting = |values| Setting { values, origin: origin.clone() };
            node.own.insert(NODE.to_owned(), setting(vec![node.name.clone().into()]));
            for (option, values) in [(NODES, &names), (RELAYS, &relays)] {
                if !values.is_empty() {
                    node.own.insert(option.to_owned(), setting(values.clone()));
                }
            }
        }
    }

    /// `from`: what was read of such a line, which a target has none of.
    fn target(&self, at: usize, table: &DeTable<'_>, from: Option<String>) -> Result<ConfiguredTarget, FileError> {
        let (mut own, mut name) = (Settings::new(), None);
        for (key, value) in table {
            let (key, at) = (key.get_ref().as_ref(), key.span().start);
            match (key, value.get_ref()) {
                // Read already.
                (FROM, _) if from.is_some() => {}
                (NAME, DeValue::String(text)) if !text.is_empty() => name = Some(text.to_string()),
                (NAME, _) => return self.wrong(at, "the name of a target is a text, such as name = \"timestreams\""),
                (_, DeValue::Table(_)) => return self.wrong(at, format!("there is no table {key} in a target")),
                (_, value) => self.setting(&mut own, key, at, value)?,
            }
        }
        let name = name.unwrap_or_else(|| rows(&own).join("+"));
        if name.is_empty() {
            return self.wrong(at, "a target needs a name, or the target or archive-name whose files it copies");
        }
        Ok(ConfiguredTarget { name, own, from })
    }

    fn setting(&self, settings: &mut Settings, key: &str, at: usize, value: &DeValue<'_>) -> Result<(), FileError> {
        let known = || self.options.get_arguments().filter(|arg| is_setting(arg));
        let Some(arg) = known().find(|arg| arg.get_long() == Some(key)) else {
            let like = |long: &&str| strsim::jaro_winkler(&key.replace('_', "-"), long);
            let nearest = known().filter_map(Arg::get_long).max_by(|one, other| like(one).total_cmp(&like(other)));
            let hint = nearest.filter(|long| like(long) >= LIKE).map(|long| format!("; do you mean {long}?"));
            let all = "; `pysmurf-archiver config example` shows all".to_owned();
            return self.wrong(at, format!("there is no option {key}{}", hint.unwrap_or(all)));
        };
        let values = match values(arg, value) {
            Ok(values) => values,
            Err(expected) => return self.wrong(at, format!("{key} is {}; expected {expected}", value.type_str())),
        };
        if let Some(values) = values {
            let origin = SettingOrigin::File { path: self.path.to_owned(), line: self.line(at) };
            settings.insert(key.to_owned(), Setting { values, origin });
        }
        Ok(())
    }
}

/// The values of an option as the parser takes them, `None` to leave it as it is; or what belongs there.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Option<Vec<OsString>>, &'static str> {
    let may_be_bare = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(OsString::from(text.as_ref())),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().into()),
        DeValue::Float(number) => Some(number.as_str().into()),
        _ => None,
    };
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(set)) => Ok(Some(vec![set.to_string().into()])),
        (ArgAction::SetTrue, _) => Err("true or false"),
        (ArgAction::Append, DeValue::Array(values)) => {
            let values: Option<Vec<_>> = values.iter().map(|value| scalar(value.get_ref())).collect();
            values.filter(|values| !values.is_empty()).map(Some).ok_or("a list of texts, one at least")
        }
        (ArgAction::Append, value) => scalar(value).map(|value| Some(vec![value])).ok_or("a text, or a list of texts"),
        (_, DeValue::Boolean(set)) if may_be_bare => Ok(set.then(|| vec![SELF.into()])),
        (_, value) => scalar(value).map(|value| Some(vec![value])).ok_or("a text or a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::options;
    use super::*;

    fn read(text: &str) -> Result<ConfigFile, String> {
        let reading = ConfigReading { path: Path::new("c.toml"), text, options: &options() };
        reading.read().map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_target_says_stands_beside_what_holds_for_all() {
        let text = "data-dir = '/a'\npoll = 0.5\nbootstrap-remove = true\nssh-key = ['k', 'l']\n\n[[target]]\nname = 'one'\n\
                    target = ['m1', 'm2']\n[[target]]\narchive-name = 'smurf'\nqueue = 1_000\n";
        let file = read(text).unwrap();
        let values = |settings: &Settings, key: &str| settings[key].values.clone();
        assert_eq!(values(&file.common, "data-dir"), ["/a"]);
        assert_eq!(values(&file.common, "poll"), ["0.5"]);
        assert_eq!(values(&file.common, "bootstrap-remove"), ["true"]);
        assert_eq!(values(&file.common, "ssh-key"), ["k", "l"]);
        assert_eq!(file.common["ssh-key"].origin.to_string(), "c.toml, line 4");
        assert_eq!(file.names(), "one, smurf");
        assert_eq!(file.targets[0].rows(), ["m1".to_owned(), "m2".to_owned()].into());
        assert_eq!(values(&file.targets[1].own, "queue"), ["1000"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_line() {
        let known = [
            ("data-dir = '/a'\ndata_dri = '/b'", "c.toml, line 2: there is no option data_dri; do you mean data-dir?"),
            ("data_dir = 1", "c.toml, line 1: there is no option data_dir; do you mean data-dir?"),
            ("zzz = 1", "c.toml, line 1: there is no option zzz; `pysmurf-archiver config example` shows all"),
            ("once = true", "c.toml, line 1: there is no option once; `pysmurf-archiver config example` shows all"),
            ("bootstrap-remove = 'yes'", "c.toml, line 1: bootstrap-remove is string; expected true or false"),
            ("poll = [1]", "c.toml, line 1: poll is array; expected a text or a number"),
            ("ssh-key = []", "c.toml, line 1: ssh-key is array; expected a list of texts, one at least"),
            (
                "[ssh]\nssh-key = 'k'",
                "c.toml, line 1: there is no table [ssh]; options stand above all tables, or in a [[target]]",
            ),
            (
                "[target]\nname = 'a'",
                "c.toml, line 1: there may be several targets; write [[target]] in the place of [target]",
            ),
            (
                "[[target]]\nqueue = 1",
                "c.toml, line 1: a target needs a name, or the target or archive-name whose files it copies",
            ),
            ("[[target]]\nname = 1", "c.toml, line 2: the name of a target is a text, such as name = \"timestreams\""),
            (
                "[[target]]\nname = 'a'\n[[target]]\nname = 'a'",
                "c.toml, line 3: there is a target \"a\" already; give it a name of its own",
            ),
            (
                "[[node]]\nname = 'a'\n[[node]]\nname = 'a'",
                "c.toml, line 3: there is a node \"a\" already; give it a name of its own",
            ),
            ("[[node]]\nqueue = 1", "c.toml, line 1: a node needs a name, such as name = \"storage-a\""),
            (
                "[[node]]\nname = 'a'\narchive-name = 'x'",
                "c.toml, line 1: a node has the copies of all targets; say whose files these are in a [[target]]",
            ),
            ("[node]\nname = 'a'", "c.toml, line 1: there may be several nodes; write [[node]] in the place of [node]"),
        ];
        for (text, expected) in known {
            assert_eq!(read(text).err().unwrap_or_default(), expected, "{text}");
        }
        assert!(read("poll = \n").err().unwrap().starts_with("c.toml, line 1: "));
        assert!(read("poll = 1\npoll = 2\n").err().unwrap().starts_with("c.toml, line 2: "));
    }
}
