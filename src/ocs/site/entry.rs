//! Our place in a site file: the hub, the host's entry and ours in it.

use super::error::{Mark, SiteError, SitePlace, cut};
use super::words::{self, Group};
use super::yaml::{self, Map, Node, YamlContent};
use super::{AgentClass, plain};
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

/// Names listed in a message at most.
const NAMES_MOST: usize = 20;
/// Values and lists visited in one `arguments`; lists of lists by aliases may be many from few letters.
const ARGUMENTS_MOST: usize = 10_000;

/// The parts of a site file that concern us.
pub(super) struct SiteEntry {
    pub(super) hub: Section,
    pub(super) host: Section,
    pub(super) instance: Section,
    pub(super) class: AgentClass,
    pub(super) instance_id: String,
}

/// A mapping with its place.
#[derive(Clone)]
pub(super) struct Section {
    pub(super) place: SitePlace,
    map: Rc<Map>,
}

impl Section {
    fn of(file: &Path, node: &Node, what: &str) -> Result<Self, SiteError> {
        let place = SitePlace::new(file, node.mark);
        match &node.content {
            YamlContent::Map(map) => Ok(Self { place, map: map.clone() }),
            _ => Err(SiteError::content(
                &place,
                format!("Found {} for {what}; expected a mapping of keys and values", node.describe()),
            )),
        }
    }

    /// Refuses keys that are written twice: of which Python would silently take the last.
    fn once(self) -> Result<Self, SiteError> {
        match self.map.twice() {
            None => Ok(self),
            Some((key, first, second)) => Err(self.wrong(
                second,
                format!("Found the key {} twice, first in line {}; remove one of them", cut(key), first.line),
            )),
        }
    }

    pub(super) fn wrong(&self, mark: Mark, what: String) -> SiteError {
        SiteError::YamlContent { place: SitePlace::new(&self.place.file, mark), what }
    }

    /// A value that is there, and not null.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.map.get(key).filter(|node| !node.is_null())
    }

    /// A key and its text, where it is there and not null.
    pub(super) fn said(&self, key: &str) -> Result<Option<Group>, SiteError> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let place = Some(SitePlace::new(&self.place.file, node.mark));
        match node.text() {
            Some(text) => Ok(Some(Group { name: key.into(), attached: Some(text.into()), values: Vec::new(), place })),
            None => Err(self.wrong(node.mark, format!("Found {} for {key}; expected text", node.describe()))),
        }
    }

    /// A key that must be there.
    pub(super) fn needed(&self, key: &str) -> Result<Group, SiteError> {
        self.said(key)?.ok_or_else(|| SiteError::content(&self.place, format!("The key {key} is missing")))
    }
}

/// Reads a site file and finds our entry.
pub(super) fn find(
    path: &Path,
    derived: String,
    hosts_tried: &[&str],
    ours: (Option<&str>, &[AgentClass]),
) -> Result<SiteEntry, SiteError> {
    let text = read(path, derived)?;
    let root = yaml::parse(path, &text)?;
    let root = Section::of(path, &root, "the whole file")?.once()?;
    let section = |key: &str| match root.map.get(key) {
        Some(node) => Section::of(path, node, key)?.once(),
        None => Err(SiteError::content(&root.place, format!("The key {key} is missing; expected hub and hosts"))),
    };
    let (hub, hosts) = (section("hub")?, section("hosts")?);
    let (host_name, host) = find_host(&hosts, hosts_tried)?;
    let host = Section::of(path, host, &format!("host {host_name}"))?.once()?;
    let list = host.map.get("agent-instances").ok_or_else(|| {
        SiteError::content(&host.place, format!("The key agent-instances of host {host_name} is missing"))
    })?;
    let YamlContent::List(entries) = &list.content else {
        let what = format!("Found {} for agent-instances; expected a list of mappings", list.describe());
        return Err(host.wrong(list.mark, what));
    };
    let entries = entries.iter().map(|entry| Section::of(path, entry, "an agent instance"));
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let instance = choose(&entries, ours, &host_name, SitePlace::new(path, list.mark))?.clone().once()?;
    let id = instance.needed("instance-id")?;
    let instance_id = component(&id)?.to_owned();
    let class = instance.needed("agent-class")?;
    let name = class.text()?;
    let class = named(name, ours.1).ok_or_else(|| class.found(name, &any_of(ours.1)))?;
    Ok(SiteEntry { hub, host, instance, class, instance_id })
}

fn read(path: &Path, derived: String) -> Result<String, SiteError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path);
    let got = file.and_then(|file| file.take(yaml::SIZE_MOST as u64 + 1).read_to_end(&mut bytes));
    got.map_err(|source| SiteError::Unreadable { path: path.to_path_buf(), derived, source })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = String::from_utf8_lossy(good).lines().next_back().map_or(0, |line| line.chars().count()) + 1;
        let place = SitePlace::new(path, Mark { line, column });
        SiteError::content(&place, "Found bytes that are no UTF-8; save the file as UTF-8")
    })
}

fn find_host<'a>(hosts: &'a Section, tried: &[&str]) -> Result<(String, &'a Node), SiteError> {
    for name in tried {
        if let Some(node) = hosts.map.get(name) {
            return Ok(((*name).to_owned(), node));
        }
    }
    let there = listed(hosts.map.keys().map(str::to_owned));
    let tried = tried.join(" or ");
    let what = format!("Found no host {tried}; those there are: {there}; name one with --site-host");
    Err(SiteError::content(&hosts.place, what))
}

/// The one of these classes that has this name.
fn named(name: &str, classes: &[AgentClass]) -> Option<AgentClass> {
    classes.iter().copied().find(|class| class.name() == name)
}

fn any_of(classes: &[AgentClass]) -> String {
    classes.iter().map(|class| class.name()).collect::<Vec<_>>().join(" or ")
}

/// The entry with our id, or without one the only entry of our classes.
fn choose<'a>(
    entries: &'a [Section],
    (id, classes): (Option<&str>, &[AgentClass]),
    host: &str,
    list: SitePlace,
) -> Result<&'a Section, SiteError> {
    let text = |entry: &'a Section, key| entry.get(key).and_then(Node::text);
    let is_ours = |entry: &&'a Section| match id {
        Some(id) => text(entry, "instance-id") == Some(id),
        None => text(entry, "agent-class").is_some_and(|name| named(name, classes).is_some()),
    };
    let names = |entries: &[&'a Section]| {
        listed(entries.iter().map(|entry| {
            let part = |key| text(entry, key).map_or_else(|| "?".to_owned(), cut);
            format!("{} ({}, line {})", part("instance-id"), part("agent-class"), entry.place.line)
        }))
    };
    let found: Vec<&Section> = entries.iter().filter(is_ours).collect();
    match (found.as_slice(), id) {
        ([one], _) => Ok(one),
        ([], _) => {
            let (wanted, help) = match id {
                Some(id) => (format!("instance-id {:?}", cut(id)), ""),
                None => (
                    format!("agent-class {}", any_of(classes)),
                    "; name ours with --instance-id, or run alone with --site none",
                ),
            };
            let there = names(&entries.iter().collect::<Vec<_>>());
            let what = format!("Found no {wanted} for host {host}; those there are: {there}{help}");
            Err(SiteError::content(&list, what))
        }
        ([_, second, ..], Some(id)) => {
            let what =
                format!("Found the instance-id {:?} a second time; expected it once: {}", cut(id), names(&found));
            Err(SiteError::content(&second.place, what))
        }
        ([_, second, ..], None) => {
            let what = format!(
                "Found a second instance of our agent-class; choose with --instance-id among {}",
                names(&found)
            );
            Err(SiteError::content(&second.place, what))
        }
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.take(NAMES_MOST + 1).map(|name| cut(&name)).collect();
    if names.len() > NAMES_MOST {
        names[NAMES_MOST] = "…".into();
    }
    match names.is_empty() {
        true => "none".into(),
        false => names.join(", "),
    }
}

/// The instance id that an option or a key names: one part of a WAMP address.
pub(super) fn component(said: &Group) -> Result<&str, SiteError> {
    let text = said.text()?;
    match not_a_component(text) {
        None => Ok(text),
        Some(why) => Err(said.found(text, &format!("a name, and {why}"))),
    }
}

/// Why a text cannot be one part of a WAMP address; `None` if it can.
pub(super) fn not_a_component(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if text.contains('.') {
        Some("a dot would split it")
    } else if text.contains('#') || text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        Some("an address holds no blank and no #")
    } else {
        None
    }
}

impl SiteEntry {
    /// The words of `arguments` in groups.
    pub(super) fn arguments(&self) -> Result<Vec<Group>, SiteError> {
        let Some(node) = self.instance.map.get("arguments") else { return Ok(Vec::new()) };
        let YamlContent::List(list) = &node.content else {
            let what = format!("Found {} for arguments; expected a list, such as [--poll, 5]", node.describe());
            return Err(self.instance.wrong(node.mark, what));
        };
        let mut words = Vec::new();
        let mut visits = 0;
        self.flatten(list, &mut words, &mut visits)?;
        let mut groups = words::group(words).into_iter();
        match groups.next() {
            Some(Group { values, place: Some(place), .. }) if !values.is_empty() => Err(SiteError::content(
                &place,
                format!("Found the argument {:?} before any option; expected an option, such as --poll", values[0]),
            )),
            _ => Ok(groups.collect()),
        }
    }

    fn flatten(
        &self,
        list: &[Node],
        words: &mut Vec<(OsString, Option<SitePlace>)>,
        visits: &mut usize,
    ) -> Result<(), SiteError> {
        for node in list {
            let wrong = |what: String| self.instance.wrong(node.mark, what);
            *visits += 1;
            if *visits > ARGUMENTS_MOST {
                return Err(wrong(format!("Found more than {ARGUMENTS_MOST} arguments")));
            }
            let text = match &node.content {
                YamlContent::List(list) => {
                    self.flatten(list, words, visits)?;
                    continue;
                }
                YamlContent::Scalar { text, is_plain: false } => text.to_string(),
                YamlContent::Scalar { text, is_plain: true } => plain::python(text).ok_or_else(|| {
                    let what = "as an argument; put it in quotes to have it as it stands";
                    wrong(format!("Found the unusual value {} {what}", cut(text)))
                })?,
                YamlContent::Map(_) => {
                    return Err(wrong("Found a mapping as an argument; expected text, a number or a list".into()));
                }
            };
            if text.bytes().all(|byte| byte == b'-') {
                return Err(wrong(format!("Found {text:?} as an argument; expected an option or a value")));
            }
            if text.contains('\0') {
                return Err(wrong("Found a NUL in an argument".into()));
            }
            words.push((text.into(), Some(SitePlace::new(&self.instance.place.file, node.mark))));
        }
        Ok(())
    }
}
