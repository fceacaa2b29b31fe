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
use plain::{Plain, cut};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use words::Group;
use yaml::YamlContent;

/// The way out of most trouble with finding our entry.
const SITE_HELP: &str = "name ours with --instance-id, or run alone with --site none";
/// The most a time limit may be, in seconds; beyond, clocks overflow.
const TIMEOUT_MOST: f64 = 1e9;

/// The agents of old whose entries in a site file we serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentClass {
    /// The archiver of the table in MySQL; its arguments are ours.
    PysmurfArchiverAgent,
    /// The archiver of a SQLite database; its arguments are translated.
    SupRsync,
}

impl AgentClass {
    /// What the agent of old does to permissions where nothing is said.
    pub fn chmod(self) -> Option<&'static str> {
        match self {
            Self::PysmurfArchiverAgent => None,
            Self::SupRsync => Some("g+rwX,o+rX"),
        }
    }

    const ALL: [Self; 2] = [Self::PysmurfArchiverAgent, Self::SupRsync];

    /// The name in site files and on the network.
    pub fn name(self) -> &'static str {
        match self {
            Self::PysmurfArchiverAgent => "PysmurfArchiverAgent",
            Self::SupRsync => "SupRsync",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
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
    /// URL of its HTTP bridge, if any.
    pub wamp_http: Option<String>,
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
    /// Our entry in the site file, for messages.
    pub origin: SitePlace,
    /// What was found and has no effect, a line each, for the log.
    pub notes: Vec<String>,
}

impl Resolved {
    /// `{address_root}.{instance_id}`
    pub fn agent_address(&self) -> String {
        format!("{}.{}", self.address_root, self.instance_id)
    }
}

/// Finds out whether we are an agent, and which. `args` are those behind the verb; `variable` looks up the environment;
/// `host_name` is this machine's, see [`system_host_name`].
///
/// `None`: we run alone, with `args` as they are. So it is when nothing names an agent or a site, with `--site none`, and
/// when help is asked for. With `OCS_CONFIG_DIR` we are an agent of the site in its `default.yaml`, and without any words it
/// must be there.
///
/// # Errors
/// Whatever is wrong or missing, with the file, the line and what was expected.
pub fn resolve(
    args: &[OsString],
    variable: &dyn Fn(&str) -> Option<String>,
    host_name: &str,
) -> Result<Option<Resolved>, SiteError> {
    if args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "-h" || arg == "--help") {
        return Ok(None);
    }
    let (mut flags, rest) = SiteFlags::take(args)?;
    flags.fill(variable);
    let config_dir = variable("OCS_CONFIG_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let Some((path, derived)) = site_file(&flags, args.is_empty(), config_dir.as_deref())? else {
        return Ok(None);
    };
    if let Some(id) = &flags.instance_id
        && let Some(why) = entry::not_a_component(id)
    {
        return Err(SiteError::Usage(format!(
            "Option --instance-id (or INSTANCE_ID): {:?} is no name: {why}",
            cut(id)
        )));
    }
    let mut hosts = vec![flags.site_host.as_deref().unwrap_or(host_name)];
    if hosts != ["localhost"] {
        hosts.push("localhost");
    }
    let entry = entry::find(&path, derived, &hosts, flags.instance_id.as_deref())?;
    settle(&flags, rest, &entry).map(Some)
}

/// The default site file, where a directory for it is set and it is not there.
pub fn absent_default(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let file = Path::new(&variable("OCS_CONFIG_DIR").filter(|dir| !dir.is_empty())?).join("default.yaml");
    Some(file).filter(|file| !file.exists())
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
    Ok(Some(match level.to_ascii_lowercase().as_str() {
        "none" => LevelFilter::OFF,
        "critical" | "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => {
            let what = "expected none, critical, error, warn, info, debug or trace";
            return Err(SiteError::Usage(format!("Variable LOGLEVEL: found {:?}; {what}", cut(&level))));
        }
    }))
}

/// The site file and what led to it; `None` to run alone.
fn site_file(
    flags: &SiteFlags,
    nothing_typed: bool,
    config_dir: Option<&Path>,
) -> Result<Option<(PathBuf, String)>, SiteError> {
    let site = match (&flags.site_file, &flags.site) {
        (Some(_), Some(_)) => {
            return Err(SiteError::Usage("Options --site and --site-file exclude each other; give one".into()));
        }
        (Some(file), None) => return Ok(Some((file.clone(), "named by --site-file".into()))),
        (None, Some(site)) if site == "none" => return Ok(None),
        (None, site) => site.as_deref().unwrap_or("default"),
    };
    let in_dir = config_dir.map(|dir| {
        let how = match flags.site {
            Some(_) => format!("--site {site} in OCS_CONFIG_DIR={}", dir.display()),
            None => format!("the default in OCS_CONFIG_DIR={}", dir.display()),
        };
        (dir.join(format!("{site}.yaml")), how)
    });
    if flags.ask_for_agent() {
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

/// A value and who said so.
struct AgentWords {
    text: String,
    origin: SettingOrigin,
}

enum SettingOrigin {
    Typed(&'static str),
    File(SitePlace),
}

impl AgentWords {
    fn wrong(&self, expected: &str) -> SiteError {
        let found = cut(&self.text);
        match &self.origin {
            SettingOrigin::Typed(option) => {
                let variable = match *option {
                    "--site-hub" => " (or SITE_HUB)",
                    "--crossbar-timeout" => " (or CROSSBAR_TIMEOUT)",
                    _ => "",
                };
                SiteError::Usage(format!("Option {option}{variable}: found {found:?}; expected {expected}"))
            }
            SettingOrigin::File(place) => SiteError::content(place, format!("Found {found:?}; expected {expected}")),
        }
    }
}

/// The first of: the command line, the arguments of the instance, the sections of the file with their keys.
fn said(
    typed: Option<&str>,
    option: &'static str,
    arguments: &[Group],
    keys: &[(&Section, &str)],
) -> Result<Option<AgentWords>, SiteError> {
    if let Some(text) = typed {
        return Ok(Some(AgentWords { text: text.into(), origin: SettingOrigin::Typed(option) }));
    }
    let group = arguments.iter().rev().find(|group| same_option(&group.name, option));
    if let Some(group) = group {
        let text = group.text()?.to_owned();
        let origin = group.place.clone().map_or(SettingOrigin::Typed(option), SettingOrigin::File);
        return Ok(Some(AgentWords { text, origin }));
    }
    for (section, key) in keys {
        if let Some((text, place)) = section.text(key)? {
            return Ok(Some(AgentWords { text: text.into(), origin: SettingOrigin::File(place) }));
        }
    }
    Ok(None)
}

fn same_option(name: &str, option: &str) -> bool {
    name == option || (name == "--realm" && option == "--site-realm")
}

fn settle(flags: &SiteFlags, rest: Vec<OsString>, entry: &SiteEntry) -> Result<Resolved, SiteError> {
    let mut notes = Vec::new();
    let (agent, own): (Vec<Group>, Vec<Group>) =
        words::last_ones(entry.arguments()?).into_iter().partition(|group| flags::is_site_option(&group.name));
    for group in &agent {
        if let ("--site" | "--site-file" | "--site-host" | "--instance-id", Some(place)) =
            (group.name.as_str(), &group.place)
            && !(group.name == "--instance-id" && group.text()? == entry.instance_id)
        {
            notes
                .push(format!("Site file {place}: Option {} has no effect here, only on the command line", group.name));
        }
    }
    for (key, why) in [
        ("address_root", "it belongs to the hub"),
        ("access_policy", "it belongs to the hub"),
        ("crossbar-timeout", "it is written crossbar_timeout"),
        ("log_dir", "it is written log-dir"),
    ] {
        if let Some(node) = entry.host.get(key) {
            let place = SitePlace::new(&entry.file, node.mark);
            notes.push(format!("Site file {place}: The key {key} of a host has no effect; {why}"));
        }
    }
    let (hub, host) = (&entry.hub, &entry.host);
    let needed = |value: Option<AgentWords>, key: &str, example: &str| {
        value.ok_or_else(|| {
            SiteError::content(
                &hub.place,
                format!("The key {key} of hub is missing; expected, for example, {key}: {example}"),
            )
        })
    };

    let typed = flags.site_hub.as_deref();
    let server = said(typed, "--site-hub", &agent, &[(host, "wamp_server"), (hub, "wamp_server")])?;
    let server = needed(server, "wamp_server", "ws://127.0.0.1:8001/ws")?;
    if !["ws://", "wss://"].iter().any(|scheme| server.text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())) {
        return Err(server.wrong("the router's URL, ws://HOST:PORT/PATH or wss://…"));
    }
    let typed = flags.site_http.as_deref();
    let http = said(typed, "--site-http", &agent, &[(host, "wamp_http"), (hub, "wamp_http")])?;
    let typed = flags.site_realm.as_deref();
    let realm = said(typed, "--site-realm", &agent, &[(host, "wamp_realm"), (hub, "wamp_realm")])?;
    let realm = needed(realm, "wamp_realm", "test_realm")?;
    if realm.text.is_empty() || realm.text.contains(char::is_whitespace) {
        return Err(realm.wrong("the name of a realm, without blanks"));
    }
    let root = said(flags.address_root.as_deref(), "--address-root", &agent, &[(hub, "address_root")])?;
    let root = needed(root, "address_root", "observatory")?;
    if root.text.split('.').any(|part| entry::not_a_component(part).is_some()) {
        return Err(root.wrong("the first part of all addresses, such as observatory, without blanks and empty parts"));
    }
    let policy = said(flags.access_policy.as_deref(), "--access-policy", &agent, &[(hub, "access_policy")])?;
    let working_dir = directory(flags.working_dir.as_deref(), "--working-dir", &agent, &[])?;
    let log_dir = directory(flags.log_dir.as_deref(), "--log-dir", &agent, &[(host, "log-dir")])?;
    let log_dir = log_dir.map(|dir| working_dir.as_ref().map_or(dir.clone(), |base| base.join(&dir)));

    Ok(Resolved {
        agent_class: entry.class,
        instance_id: entry.instance_id.clone(),
        address_root: root.text,
        wamp_server: server.text,
        wamp_http: http.map(|http| http.text),
        realm: realm.text,
        access_policy: policy.map(|policy| policy.text),
        log_dir,
        working_dir,
        crossbar_timeout: timeout(flags, &agent, host)?,
        arguments: arguments(rest, own, entry.class, &mut notes)?,
        origin: entry.instance.place.clone(),
        notes,
    })
}

/// A directory; on the command line it need not be UTF-8.
fn directory(
    typed: Option<&Path>,
    option: &'static str,
    arguments: &[Group],
    keys: &[(&Section, &str)],
) -> Result<Option<PathBuf>, SiteError> {
    match typed {
        Some(path) => Ok(Some(path.to_path_buf())),
        None => Ok(said(None, option, arguments, keys)?.map(|said| said.text.into())),
    }
}

fn timeout(flags: &SiteFlags, arguments: &[Group], host: &Section) -> Result<Option<Duration>, SiteError> {
    const EXPECTED: &str = "whole seconds, 0 for never";
    if let Some(said) = said(flags.crossbar_timeout.as_deref(), "--crossbar-timeout", arguments, &[])? {
        let digits = said.text.trim();
        let seconds = digits.strip_prefix('+').unwrap_or(digits).parse::<u64>().ok();
        let seconds = seconds.filter(|seconds| *seconds as f64 <= TIMEOUT_MOST);
        return seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(|| said.wrong(EXPECTED));
    }
    let Some(node) = host.get("crossbar_timeout") else { return Ok(None) };
    let seconds = match &node.content {
        YamlContent::Scalar(plain) => match plain.as_ref() {
            Plain::Int(digits) => digits.parse::<f64>().ok(),
            Plain::Float(seconds) => Some(*seconds),
            _ => None,
        },
        _ => None,
    };
    let seconds = seconds.filter(|seconds| (0.0..=TIMEOUT_MOST).contains(seconds));
    let wrong = || {
        host.wrong(node.mark, format!("Found {} for crossbar_timeout; expected seconds, 0 for never", node.describe()))
    };
    seconds.map(|seconds| Some(Duration::from_secs_f64(seconds))).ok_or_else(wrong)
}

/// Both command lines in one, in our own options.
fn arguments(
    mut typed: Vec<OsString>,
    file: Vec<Group>,
    class: AgentClass,
    notes: &mut Vec<String>,
) -> Result<Vec<OsString>, SiteError> {
    let end = typed.iter().position(|word| word == "--").unwrap_or(typed.len());
    let tail = typed.split_off(end);
    let mut typed = words::group(typed.into_iter().map(|word| (word, None)));
    let mut file = file;
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
    Ok(words::merge(typed, file).into_iter().flat_map(Group::into_words).chain(tail).collect())
}
