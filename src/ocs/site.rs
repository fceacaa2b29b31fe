//! The site configuration: who we are in an observatory, and with which options we run.
//!
//! A site file, shared by all agents, holds the hub, the hosts and on each host the agents with their arguments. From it,
//! the command line and the variables of `ocs-agent-cli` comes one [`Resolved`]. Nothing here connects to anything.
//! Counterpart: `ocs/site_config.py`. What it silently ignores we note, what makes it crash we refuse with its place.

mod entry;
mod error;
mod flags;
mod plain;
mod suprsync;
#[cfg(test)]
mod tests;
mod words;
mod yaml;

pub use error::{SiteError, SitePlace};
pub use flags::SiteFlags;

use entry::{Section, SiteEntry};
use error::cut;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use words::Group;

/// The most a time limit may be, in seconds; beyond, clocks overflow.
const TIMEOUT_MOST: f64 = 1e9;

/// The agents of old whose entries in a site file we serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentClass {
    /// The archiver of the table in MySQL; its arguments are ours.
    PysmurfArchiverAgent,
    /// The archiver of a SQLite database; its arguments are translated.
    SupRsync,
    /// What registers the files that pysmurf announces; its arguments are those of `monitor`.
    PysmurfMonitor,
}

/// Which agents may be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedAgent {
    /// One that copies.
    Archiver,
    /// One that registers.
    Monitor,
    /// One that copies; whichever an instance id names.
    Any,
}

impl WantedAgent {
    /// Those that may be meant, with an instance id or without.
    fn classes(self, named: bool) -> &'static [AgentClass] {
        match (self, named) {
            (Self::Monitor, _) => &[AgentClass::PysmurfMonitor],
            (Self::Any, true) => &AgentClass::ALL,
            _ => &[AgentClass::PysmurfArchiverAgent, AgentClass::SupRsync],
        }
    }
}

impl AgentClass {
    /// What the agent of old does to permissions where nothing is said.
    pub fn chmod(self) -> Option<&'static str> {
        match self {
            Self::PysmurfArchiverAgent | Self::PysmurfMonitor => None,
            Self::SupRsync => Some("g+rwX,o+rX"),
        }
    }

    const ALL: [Self; 3] = [Self::PysmurfArchiverAgent, Self::SupRsync, Self::PysmurfMonitor];

    /// The name in site files and on the network.
    pub fn name(self) -> &'static str {
        match self {
            Self::PysmurfArchiverAgent => "PysmurfArchiverAgent",
            Self::SupRsync => "SupRsync",
            Self::PysmurfMonitor => "PysmurfMonitor",
        }
    }
}

impl fmt::Display for AgentClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An agent's place in its observatory, and its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// As the site file has it.
    pub agent_class: AgentClass,
    /// One part of an address: not empty, without dots and blanks.
    pub instance_id: String,
    /// First part of the address; may itself have dots.
    pub address_root: String,
    /// URL of the router, `ws://` or `wss://`.
    pub wamp_server: String,
    /// The realm.
    pub realm: String,
    /// As written; `None` where nothing is said.
    pub access_policy: Option<String>,
    /// Directory of the log file; made absolute by `working_dir` where that is given.
    pub log_dir: Option<PathBuf>,
    /// As given on the command line or in the arguments.
    pub working_dir: Option<PathBuf>,
    /// Leave after so long without a router; zero means never. `None`: nobody said anything, and we go on for ever
    /// (Python agents would leave after ten seconds).
    pub crossbar_timeout: Option<Duration>,
    /// Words for our own parser, without the program's name, the verb and the options of [`SiteFlags`].
    pub arguments: Vec<OsString>,
    /// Options of SupRsync that were found and have no effect, a line each, for the log.
    pub notes: Vec<String>,
}

impl Resolved {
    /// `{address_root}.{instance_id}`
    pub fn agent_address(&self) -> String {
        format!("{}.{}", self.address_root, self.instance_id)
    }
}

/// Finds out whether we are an agent, and which of those that may be meant. `args` are those behind the verb; `variable` looks
/// up the environment; `host_name` is this machine's, see [`system_host_name`].
///
/// `None`: we run alone, with `args` as they are. So it is when nothing names an agent or a site, with `--site none`, and
/// when help is asked for. With `OCS_CONFIG_DIR` we are an agent of the site in its `default.yaml`, and without any words it
/// must be there.
///
/// # Errors
/// Whatever is wrong or missing, with the file, the line and what was expected.
pub fn resolve(
    wanted: WantedAgent,
    args: &[OsString],
    variable: &dyn Fn(&str) -> Option<String>,
    host_name: &str,
) -> Result<Option<Resolved>, SiteError> {
    let (words, behind) = args.split_at(args.iter().position(|word| word == "--").unwrap_or(args.len()));
    if words.iter().any(|word| word == "-h" || word == "--help") {
        return Ok(None);
    }
    let (typed, rest) = flags::part(words::group(words.iter().map(|word| (word.clone(), None))))?;
    let flags = flags::or_set(typed, variable);
    let config_dir = variable("OCS_CONFIG_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let Some((path, derived)) = site_file(&flags, args.is_empty(), config_dir.as_deref())? else {
        return Ok(None);
    };
    let instance_id = find(&flags, "--instance-id").map(entry::component).transpose()?;
    let host = find(&flags, "--site-host").map(Group::text).transpose()?;
    let mut hosts = vec![host.unwrap_or(host_name)];
    if hosts != ["localhost"] {
        hosts.push("localhost");
    }
    let entry = entry::find(&path, derived, &hosts, (instance_id, wanted.classes(instance_id.is_some())))?;
    let mut resolved = settle(flags, rest, &entry)?;
    resolved.arguments.extend_from_slice(behind);
    Ok(Some(resolved))
}

/// The default site file, where a directory for it is set and it is not there.
pub fn absent_default(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let file = Path::new(&variable("OCS_CONFIG_DIR").filter(|dir| !dir.is_empty())?).join("default.yaml");
    Some(file).filter(|file| !file.exists())
}

/// Whether an agent or a site is named among these words.
pub fn is_named(words: &[OsString]) -> bool {
    let typed = flags::part(words::group(words.iter().map(|word| (word.clone(), None))));
    typed.is_ok_and(|(typed, _)| flags::ask_for_agent(&typed) || find(&typed, "--site-file").is_some())
}

/// The machine's name, as Python's `socket.gethostname` has it.
pub fn system_host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The verbosity that the variable `LOGLEVEL` asks for; `None` if it is not set.
///
/// # Errors
/// Another word than txaio knows.
pub fn log_level(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<LevelFilter>, SiteError> {
    let Some(level) = variable("LOGLEVEL").filter(|level| !level.is_empty()) else { return Ok(None) };
    let known = match level.to_ascii_lowercase().as_str() {
        "none" => "off".parse(),
        "critical" => "error".parse(),
        "warning" => "warn".parse(),
        other => other.parse(),
    };
    known.map(Some).map_err(|_| {
        let expected = "expected none, critical, error, warn, info, debug or trace";
        SiteError::Usage(format!("Variable LOGLEVEL: found {:?}; {expected}", cut(&level)))
    })
}

/// The site file and what led to it; `None` to run alone.
fn site_file(
    flags: &[Group],
    nothing_typed: bool,
    config_dir: Option<&Path>,
) -> Result<Option<(PathBuf, String)>, SiteError> {
    let named = find(flags, "--site").map(Group::text).transpose()?;
    let site = match (find(flags, "--site-file"), named) {
        (Some(_), Some(_)) => {
            return Err(SiteError::Usage("Options --site and --site-file exclude each other; give one".into()));
        }
        (Some(file), None) => return Ok(Some((file.value()?.into(), "named by --site-file".into()))),
        (None, Some("none")) => return Ok(None),
        (None, site) => site.unwrap_or("default"),
    };
    let in_dir = config_dir.map(|dir| {
        let how = match named {
            Some(_) => format!("--site {site} in OCS_CONFIG_DIR={}", dir.display()),
            None => format!("the default in OCS_CONFIG_DIR={}", dir.display()),
        };
        (dir.join(format!("{site}.yaml")), how)
    });
    if flags::ask_for_agent(flags) {
        return match in_dir {
            Some(found) => Ok(Some(found)),
            None => Err(SiteError::Usage(
                "Variable OCS_CONFIG_DIR is not set, so there is no site file; set it to the site file's directory, name the file with --site-file, or run alone with --site none"
                    .into(),
            )),
        };
    }
    // Whatever is typed beside it: who looks into an agent's container means that agent. Only a directory without the file
    // says nothing, as that of an image that is used without a site.
    Ok(in_dir.filter(|(path, _)| nothing_typed || path.exists()))
}

/// An option among groups of which each is another.
fn find<'a>(groups: &'a [Group], option: &str) -> Option<&'a Group> {
    groups.iter().find(|group| group.name == option)
}

/// What is said by an option, else by the first of these keys that is there.
fn said(flags: &[Group], option: &str, keys: &[(&Section, &str)]) -> Result<Option<Group>, SiteError> {
    match find(flags, option) {
        Some(group) => Ok(Some(group.clone())),
        None => keys.iter().find_map(|(section, key)| section.said(key).transpose()).transpose(),
    }
}

fn settle(flags: Vec<Group>, rest: Vec<Group>, entry: &SiteEntry) -> Result<Resolved, SiteError> {
    let (in_file, own) = flags::part(entry.arguments()?)?;
    let flags = words::merge(flags, in_file);
    let (hub, host) = (&entry.hub, &entry.host);
    let needed = |said: Option<Group>, key: &str, example: &str| {
        let missing = || format!("The key {key} of hub is missing; expected, for example, {key}: {example}");
        said.ok_or_else(|| SiteError::content(&hub.place, missing()))
    };
    let text = |said: Option<Group>| said.map(|group| group.text().map(str::to_owned)).transpose();
    let directory = |said: Option<Group>| said.map(|group| group.value().map(PathBuf::from)).transpose();

    let server = said(&flags, "--site-hub", &[(host, "wamp_server"), (hub, "wamp_server")])?;
    let server = needed(server, "wamp_server", "ws://127.0.0.1:8001/ws")?;
    let url = server.text()?;
    if !["ws://", "wss://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())) {
        return Err(server.found(url, "the router's URL, ws://HOST:PORT/PATH or wss://…"));
    }
    let realm = said(&flags, "--site-realm", &[(host, "wamp_realm"), (hub, "wamp_realm")])?;
    let realm = needed(realm, "wamp_realm", "test_realm")?;
    let realm_name = realm.text()?;
    if realm_name.is_empty() || realm_name.contains(char::is_whitespace) {
        return Err(realm.found(realm_name, "the name of a realm, without blanks"));
    }
    let root = needed(said(&flags, "--address-root", &[(hub, "address_root")])?, "address_root", "observatory")?;
    let address_root = root.text()?;
    if address_root.split('.').any(|part| entry::not_a_component(part).is_some()) {
        let expected = "the first part of all addresses, such as observatory, without blanks and empty parts";
        return Err(root.found(address_root, expected));
    }
    let working_dir = directory(said(&flags, "--working-dir", &[])?)?;
    let log_dir = directory(said(&flags, "--log-dir", &[(host, "log-dir")])?)?;
    let mut notes = Vec::new();

    Ok(Resolved {
        agent_class: entry.class,
        instance_id: entry.instance_id.clone(),
        address_root: address_root.to_owned(),
        wamp_server: url.to_owned(),
        realm: realm_name.to_owned(),
        access_policy: text(said(&flags, "--access-policy", &[(hub, "access_policy")])?)?,
        log_dir: log_dir.map(|dir| working_dir.as_ref().map_or(dir.clone(), |base| base.join(&dir))),
        working_dir,
        crossbar_timeout: timeout(said(&flags, "--crossbar-timeout", &[(host, "crossbar_timeout")])?)?,
        arguments: arguments(rest, own, entry.class, &mut notes)?,
        notes,
    })
}

fn timeout(said: Option<Group>) -> Result<Option<Duration>, SiteError> {
    let Some(said) = said else { return Ok(None) };
    let seconds = said.text()?.trim().parse::<f64>().ok();
    match seconds.filter(|seconds| (0.0..=TIMEOUT_MOST).contains(seconds)) {
        Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
        None => Err(said.found(said.text()?, "seconds, 0 for never")),
    }
}

/// Both command lines in one, in our own options.
fn arguments(
    mut typed: Vec<Group>,
    file: Vec<Group>,
    class: AgentClass,
    notes: &mut Vec<String>,
) -> Result<Vec<OsString>, SiteError> {
    let mut file = words::last_ones(file);
    if class == AgentClass::SupRsync {
        // Before they are compared: --ssh-host in the file gives way to --storage-host on the command line.
        let mut translate = |groups: Vec<Group>| {
            let groups = groups.into_iter().filter_map(|group| suprsync::translate(group, notes).transpose());
            groups.collect::<Result<Vec<_>, _>>()
        };
        // What was typed replaces what stands in the file, also where the file's could not be translated.
        file.retain(|group| typed.iter().all(|other| other.name != group.name));
        typed = translate(typed)?;
        file = translate(file)?;
    }
    Ok(words::merge(typed, file).into_iter().flat_map(Group::into_words).collect())
}
