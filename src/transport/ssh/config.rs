//! What to connect to: the options, completed by the files of ssh_config(5) and by defaults.

use super::settings::{SettingsOwner, SettingsReader, SshSettings, Value, is_like};
use super::tokens::{LocalNames, PercentTokens};
use super::{Remedies, SshOptions};
use crate::link::SignOfLife;
use crate::transport::ConnectError;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// The keys of `ssh` that are tried when none is named.
const DEFAULT_KEYS: [&str; 3] = [".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"];

/// The known hosts files of `ssh`, the user's first.
const DEFAULT_KNOWN_HOSTS: [&str; 2] = [".ssh/known_hosts", ".ssh/known_hosts2"];
const SYSTEM_KNOWN_HOSTS: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];

/// Those of them that can only be named: what they ask for is not done, and files go all the same.
const WITHOUT_EFFECT: [&str; 6] = [
    "BindAddress",
    "BindInterface",
    "CertificateFile",
    "KnownHostsCommand",
    "PubkeyAcceptedAlgorithms",
    "RequiredRSASize",
];

/// One far end, everything decided.
#[derive(Debug, Clone)]
pub(super) struct SshTarget {
    pub(super) hostname: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// The name under which the host key is looked up.
    pub(super) key_name: String,
    pub(super) keys: Vec<KeyFile>,
    pub(super) known_hosts: Vec<KnownHostsFile>,
    /// A host of which no key is known is believed, and its key known from then on.
    pub(super) accepts_new_keys: bool,
    /// Files of keys that no host may have.
    pub(super) revoked: Option<PathBuf>,
    pub(super) agent: SshAgent,
    /// Those to offer; our own choice when empty.
    pub(super) ciphers: Vec<String>,
    pub(super) algorithms: Algorithms,
    pub(super) connect_timeout: Duration,
    pub(super) auth_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) alive: SignOfLife,
    pub(super) trusted_idle: Duration,
    pub(super) remedies: Remedies,
}

/// Which agent is asked for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SshAgent {
    pub(super) none: bool,
    /// Another than that of `SSH_AUTH_SOCK`.
    pub(super) socket: Option<PathBuf>,
    pub(super) named_keys_only: bool,
}

/// What the configuration says of algorithms.
#[derive(Debug, Clone, Default)]
pub(super) struct Algorithms {
    pub(super) kex: Option<Value>,
    pub(super) ciphers: Option<Value>,
    pub(super) macs: Option<Value>,
    pub(super) host_keys: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    pub(super) named: Named,
}

/// Who has named a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// The command line, so that its absence is an error.
    Here,
    /// The configuration.
    There,
    Default,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownHostsFile {
    pub(super) path: PathBuf,
    /// Named on the command line, so its absence is an error.
    pub(super) named: bool,
}

impl SshTarget {
    /// Host and port, for messages.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.hostname, self.port)
    }
}

/// Completes the options: they beat the configuration files, and those beat the defaults.
pub(super) fn resolve(options: &SshOptions, local: &LocalNames) -> Result<SshTarget, ConnectError> {
    let (typed_user, typed_host) = match options.host.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, options.host.as_str()),
    };
    let host = typed_host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(typed_host);
    let typed_user = options.user.clone().or(typed_user);
    check_name("host", host)?;
    let unusable = |why: String| unusable(&why, options.remedies);
    let settings = read(options, host, typed_user.as_deref(), local).map_err(unusable)?;
    refuse(host, &settings, options.remedies)?;
    say_what_has_no_effect(&settings);

    if let Some(value) = settings.value("port").filter(|value| value.words[0].parse::<u16>().map_or(true, |n| n == 0)) {
        return Err(unusable(format!("{}: Port {} is none", value.place, value.words[0])));
    }
    let tokens = PercentTokens::so_far(host, typed_user.as_deref(), options.port, local, |name| settings.word(name));
    check_name("host", &tokens.hostname)?;
    if tokens.user.is_empty() {
        let remedy = options.remedies.user();
        return Err(ConnectError::Setup(format!("No user name for {host} is known; {remedy}")));
    }
    check_name("user", tokens.user)?;
    let in_file = |keyword: &str, why: String| {
        let place = settings.value(keyword).map(|value| value.place.clone()).unwrap_or_default();
        unusable(format!("{place}: {why}"))
    };
    let paths = |keyword: &str| -> Result<Option<Vec<PathBuf>>, ConnectError> {
        let Some(words) = settings.words(keyword) else { return Ok(None) };
        let paths = words.iter().map(|word| tokens.path(word)).collect::<Result<Vec<_>, _>>();
        paths.map(|paths| Some(paths.into_iter().flatten().collect())).map_err(|why| in_file(keyword, why))
    };
    let defaults = |names: &[&str]| names.iter().filter_map(|name| local.below_home(name)).collect::<Vec<_>>();
    let (files, named) = match paths("identityfile")? {
        _ if !options.keys.is_empty() => (options.keys.clone(), Named::Here),
        Some(files) => (files, Named::There),
        None => (defaults(&DEFAULT_KEYS), Named::Default),
    };
    let known_hosts = if let Some(path) = &options.known_hosts {
        vec![KnownHostsFile { path: path.clone(), named: true }]
    } else {
        let user = paths("userknownhostsfile")?.unwrap_or_else(|| defaults(&DEFAULT_KNOWN_HOSTS));
        let machine =
            paths("globalknownhostsfile")?.unwrap_or_else(|| SYSTEM_KNOWN_HOSTS.iter().map(PathBuf::from).collect());
        user.into_iter().chain(machine).map(|path| KnownHostsFile { path, named: false }).collect()
    };
    let hostname = tokens.hostname.clone();
    let key_name = match settings.word("hostkeyalias") {
        Some(alias) => alias.to_lowercase(),
        None if tokens.port == 22 => hostname.to_lowercase(),
        None => format!("[{}]:{}", hostname.to_lowercase(), tokens.port),
    };
    let value = |keyword| settings.value(keyword).cloned();
    Ok(SshTarget {
        port: tokens.port,
        user: tokens.user.to_owned(),
        key_name,
        keys: files.into_iter().map(|path| KeyFile { path, named }).collect(),
        known_hosts,
        accepts_new_keys: accepts_new_keys(&settings).map_err(|why| in_file("stricthostkeychecking", why))?,
        revoked: paths("revokedhostkeys")?.and_then(|paths| paths.into_iter().next()),
        agent: agent(options, &settings, &tokens).map_err(|why| in_file("identityagent", why))?,
        ciphers: options.ciphers.clone(),
        algorithms: Algorithms {
            kex: value("kexalgorithms"),
            ciphers: value("ciphers"),
            macs: value("macs"),
            host_keys: value("hostkeyalgorithms"),
        },
        connect_timeout: options.connect_timeout,
        auth_timeout: options.auth_timeout,
        stall_timeout: options.stall_timeout,
        alive: options.alive,
        trusted_idle: options.trusted_idle,
        remedies: options.remedies,
        hostname,
    })
}

/// What `StrictHostKeyChecking` says of a new key. A key that has changed is refused whatever it says: `no` asks `ssh` to go
/// on without passwords then, and there is no login here but by keys.
fn accepts_new_keys(settings: &SshSettings) -> Result<bool, String> {
    let Some(word) = settings.word("stricthostkeychecking") else { return Ok(false) };
    match word.to_ascii_lowercase().as_str() {
        "accept-new" | "no" | "off" | "false" => Ok(true),
        // There is nobody to ask.
        "yes" | "true" | "ask" => Ok(false),
        _ => Err(format!("StrictHostKeyChecking {word} is none of yes, ask, accept-new, no, off")),
    }
}

fn agent(options: &SshOptions, settings: &SshSettings, tokens: &PercentTokens<'_>) -> Result<SshAgent, String> {
    let mut agent = SshAgent { none: !options.agent, socket: None, named_keys_only: settings.is_yes("identitiesonly") };
    match settings.word("identityagent") {
        None | Some("SSH_AUTH_SOCK") => {}
        Some(word) => {
            let variable = word.strip_prefix('$').filter(|name| !name.starts_with('{'));
            agent.socket = match variable {
                Some(name) => std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from),
                None => tokens.path(word)?,
            };
            agent.none |= agent.socket.is_none();
        }
    }
    Ok(agent)
}

/// A name that begins with a dash, or holds what no name holds, is an attack or a slip.
fn check_name(what: &str, name: &str) -> Result<(), ConnectError> {
    if name.is_empty() || name.starts_with('-') || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(ConnectError::Setup(format!("The {what} name {name:?} cannot be used; check how it was typed")));
    }
    Ok(())
}

/// The settings for this host: of the one file that is named, else of the user's and the machine's.
fn read(options: &SshOptions, host: &str, user: Option<&str>, local: &LocalNames) -> Result<SshSettings, String> {
    let files = match (&options.config, local.below_home(".ssh/config")) {
        (Some(named), _) => vec![(named.clone(), SettingsOwner::Named)],
        (None, own) => {
            let machine = (PathBuf::from("/etc/ssh/ssh_config"), SettingsOwner::Machine);
            own.map(|path| (path, SettingsOwner::User)).into_iter().chain([machine]).collect()
        }
    };
    let mut reader = SettingsReader {
        host,
        user,
        port: options.port,
        local,
        settings: SshSettings::default(),
        last_pass: false,
        asks_for_last_pass: false,
    };
    for (path, owner) in &files {
        reader.file(path, *owner)?;
    }
    if reader.asks_for_last_pass {
        reader.last_pass = true;
        for (path, owner) in &files {
            reader.file(path, *owner)?;
        }
    }
    Ok(reader.settings)
}

fn unusable(why: &str, remedies: Remedies) -> ConnectError {
    ConnectError::Setup(format!("Cannot use the SSH configuration {why}; correct it {}", remedies.config()))
}

/// To go straight to a host that is reached through another would only time out, far from the cause; and so with others.
fn refuse(host: &str, settings: &SshSettings, remedies: Remedies) -> Result<(), ConnectError> {
    for (keyword, name) in [("proxyjump", "ProxyJump"), ("proxycommand", "ProxyCommand")] {
        let Some(value) = settings.value(keyword) else { continue };
        if value.words.first().is_some_and(|word| !word.eq_ignore_ascii_case("none")) {
            return Err(ConnectError::Setup(format!(
                "The SSH configuration reaches {host} by {name} ({}), which the built-in SSH cannot; {}",
                value.place,
                remedies.proxy()
            )));
        }
    }
    let no = |word: &str| word.eq_ignore_ascii_case("no") || word.eq_ignore_ascii_case("false");
    if let Some(value) = settings.value("pubkeyauthentication").filter(|value| no(&value.words[0])) {
        return Err(ConnectError::Setup(format!(
            "The SSH configuration says PubkeyAuthentication no ({}), and the built-in SSH logs in by keys alone; {}",
            value.place,
            remedies.config()
        )));
    }
    Ok(())
}

/// Says once, by name, what is asked for and not done.
fn say_what_has_no_effect(settings: &SshSettings) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    for name in WITHOUT_EFFECT {
        let Some(value) = settings.value(&name.to_ascii_lowercase()) else { continue };
        let is_none = value.words.iter().all(|word| word.eq_ignore_ascii_case("none"));
        if !is_none && SAID.lock().is_ok_and(|mut said| said.insert(format!("{name} {}", value.place))) {
            tracing::warn!("{}: {name} has no effect: the built-in SSH cannot obey it", value.place);
        }
    }
}

/// The algorithms of a list of ssh_config(5), the best first, among those there are: the list itself, or with `+` before
/// it added to our choice, with `^` put before it, with `-` taken from it.
pub(super) fn chosen(list: &str, ours: &[&str], there_are: &[&str]) -> Vec<String> {
    let (sign, names) = match list.chars().next() {
        Some(sign @ ('+' | '-' | '^')) => (Some(sign), &list[1..]),
        _ => (None, list),
    };
    let named: Vec<&str> = names.split(',').collect();
    let order: Vec<&str> = match sign {
        Some('+') => ours.iter().chain(&named).copied().collect(),
        Some('^') => named.iter().chain(ours).copied().collect(),
        Some(_) => ours.iter().copied().filter(|&name| !named.iter().any(|pattern| is_like(pattern, name))).collect(),
        None => named,
    };
    let mut chosen: Vec<String> = Vec::new();
    for name in order {
        // Certificates of hosts cannot be judged here; the others are no algorithms, and libssh2 adds them by itself.
        let left_out = name.contains("-cert-") || name.starts_with("ext-info-") || name.starts_with("kex-strict-");
        if there_are.contains(&name) && !left_out && !chosen.iter().any(|other| other == name) {
            chosen.push(name.to_owned());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    fn resolved(config: &str, change: impl FnOnce(&mut SshOptions)) -> Result<SshTarget, ConnectError> {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        fs::write(home.path().join(".ssh/config"), config).unwrap();
        fs::write(home.path().join(".ssh/more"), "Host inc\n Port 99\n").unwrap();
        let mut options = SshOptions::new("store");
        change(&mut options);
        let mut target =
            resolve(&options, &LocalNames { home: Some(home.path().to_owned()), user: Some("me".to_owned()) })?;
        let strip = |path: &mut PathBuf| {
            if let Ok(rest) = path.strip_prefix(home.path()) {
                *path = Path::new("HOME").join(rest);
            }
        };
        target.keys.iter_mut().for_each(|key| strip(&mut key.path));
        target.known_hosts.iter_mut().for_each(|file| strip(&mut file.path));
        Ok(target)
    }

    fn paths(target: &SshTarget) -> Vec<String> {
        target.keys.iter().map(|key| key.path.display().to_string()).collect()
    }

    #[test]
    fn defaults_are_those_of_ssh() {
        let target = resolved("", |_| {}).unwrap();
        assert_eq!((target.user.as_str(), target.place().as_str()), ("me", "store:22"));
        assert_eq!(paths(&target), ["HOME/.ssh/id_ed25519", "HOME/.ssh/id_ecdsa", "HOME/.ssh/id_rsa"]);
        let known: Vec<_> = target.known_hosts.iter().map(|file| file.path.display().to_string()).collect();
        assert_eq!(
            known,
            [
                "HOME/.ssh/known_hosts",
                "HOME/.ssh/known_hosts2",
                "/etc/ssh/ssh_known_hosts",
                "/etc/ssh/ssh_known_hosts2"
            ]
        );
        assert_eq!(target.key_name, "store");
    }

    #[test]
    fn the_configuration_beats_defaults_and_options_beat_it() {
        let config = "Host store\n HostName Real.example\n Port 2222\n User arch\n IdentityFile ~/k/%r@%h\n \
                      UserKnownHostsFile ~/kh %d/kh2\n GlobalKnownHostsFile none\n SomeFutureThing yes\n";
        let target = resolved(config, |_| {}).unwrap();
        assert_eq!((target.user.as_str(), target.place().as_str()), ("arch", "Real.example:2222"));
        assert_eq!(paths(&target), ["HOME/k/arch@Real.example"]);
        let known: Vec<_> = target.known_hosts.iter().map(|file| file.path.display().to_string()).collect();
        assert_eq!(known, ["HOME/kh", "HOME/kh2"]);
        assert_eq!(target.key_name, "[real.example]:2222");

        let target = resolved(config, |options| {
            options.host = "typed@store".to_owned();
            options.port = Some(22);
            options.keys = vec![PathBuf::from("/k")];
            options.known_hosts = Some(PathBuf::from("/kh"));
        })
        .unwrap();
        assert_eq!((target.user.as_str(), target.place().as_str()), ("typed", "Real.example:22"));
        assert_eq!(target.keys, [KeyFile { path: PathBuf::from("/k"), named: Named::Here }]);
        assert_eq!(target.known_hosts, [KnownHostsFile { path: PathBuf::from("/kh"), named: true }]);
    }

    #[test]
    fn includes_are_read() {
        let target = resolved("Include more\n", |options| options.host = "inc".to_owned()).unwrap();
        assert_eq!(target.port, 99);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for host in ["-oProxyCommand=x", "", "me@", "me@-x", "a b", "a\nb", "-l@host"] {
            let error = resolved("", |options| options.host = host.to_owned()).unwrap_err();
            assert!(matches!(error, ConnectError::Setup(_)), "{host}: {error}");
        }
        let proxied = resolved("Host store\n ProxyJump gate\n", |_| {}).unwrap_err().to_string();
        assert!(proxied.contains("ProxyJump"), "{proxied}");
        for fine in
            ["ProxyJump none\nProxyCommand nc %h", "ProxyCommand none\nProxyJump gate", "Host x\nProxyJump gate"]
        {
            assert!(resolved(fine, |_| {}).is_ok(), "{fine}");
        }
        let judged = resolved("Match localnetwork 10.0.0.0/8\n Port 1\n", |_| {}).unwrap_err().to_string();
        assert!(judged.contains("config:1") && judged.contains("localnetwork"), "{judged}");
        let unjudged = "Host other\nMatch localnetwork 10.0.0.0/8\n Port 1\nMatch user x localnetwork y\n Port 2\n";
        assert_eq!(
            resolved(&unjudged.replace("Match localnetwork", "Match host other localnetwork"), |_| {}).unwrap().port,
            22
        );
        let keyless = resolved("PubkeyAuthentication no\n", |_| {}).unwrap_err().to_string();
        assert!(keyless.contains("PubkeyAuthentication"), "{keyless}");
        let command =
            resolved("ProxyJump gate\n", |options| options.remedies = Remedies::Command).unwrap_err().to_string();
        assert!(command.contains("-e ssh") && !command.contains("--"), "{command}");
        let bad = resolved("Port many\n", |_| {}).unwrap_err().to_string();
        assert!(bad.contains(".ssh/config"), "{bad}");
        let absent = resolved("", |options| options.config = Some(PathBuf::from("/nonexistent/config"))).unwrap_err();
        assert!(absent.to_string().contains("/nonexistent/config"), "{absent}");
    }

    /// What `ssh -G` says of a host, and whether it refuses.
    fn by_ssh(config: &Path, host: &str) -> Option<Vec<String>> {
        let output = Command::new("ssh").arg("-G").arg("-F").arg(config).arg(host).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let all = |keyword: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(&format!("{keyword} "))).map(str::to_owned).collect()
        };
        let mut said =
            [all("hostname"), all("port"), all("user"), all("hostkeyalias"), all("userknownhostsfile")].concat();
        said.extend(all("identityfile").into_iter().filter(|file| file.starts_with('/')));
        output.status.success().then_some(said)
    }

    fn by_us(config: &Path, host: &str) -> Option<Vec<String>> {
        let mut options = SshOptions::new(host);
        options.config = Some(config.to_owned());
        let target = resolve(&options, &LocalNames::from_env()).ok()?;
        let mut said = vec![target.hostname.to_lowercase(), target.port.to_string(), target.user.clone()];
        if !target.key_name.starts_with('[') && target.key_name != target.hostname.to_lowercase() {
            said.push(target.key_name.clone());
        }
        let known: Vec<_> = target.known_hosts.iter().map(|file| file.path.display().to_string()).collect();
        said.push(known.join(" "));
        let keys = target.keys.iter().filter(|key| key.named != Named::Default);
        said.extend(keys.map(|key| key.path.display().to_string()));
        Some(said)
    }

    #[test]
    fn hosts_are_configured_as_by_ssh() {
        if Command::new("ssh").arg("-V").output().is_err() {
            println!("SKIPPED: ssh is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("more.d")).unwrap();
        fs::write(at("false"), "Match exec false\n Port 1\n User nobody\n").unwrap();
        fs::write(at("hosts"), "Host box\n Port 44\nHost other\n Port 45\nUser late\n").unwrap();
        fs::write(at("more.d/1"), "IdentityFile /more/1\n").unwrap();
        fs::write(at("more.d/2"), "IdentityFile /more/2\nIdentityFile /more/1\n").unwrap();
        fs::write(at("nested"), "Include DIR/hosts\nPort 46\n".replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let head = "Host *\n GlobalKnownHostsFile none\n UserKnownHostsFile /kh\n";
        let cases = [
            "Host box\n ServerAliveInterval 1m\n ForwardAgent /a/path\n ConnectTimeout 1h\n Port 2200\n",
            "Host other\n ServerAliveInterval 1m30s\n RekeyLimit 1G 1h\nHost box\n HostName 10.0.0.1\n",
            "Host box\n Port 1\n Port 2\n User a\n User b\n",
            "Port=7\nUser = \"x\"\n HostName\t=\tReal.Example\n",
            "Host b* !box\n Port 1\nHost !other *\n Port 2\n",
            "Host a box c\n Port 3\nHost \"box\"\n User q\n",
            "Host BOX\n Port 3\nMatch host BOX\n User small\n",
            "Host b?x\n Port 3\nHost [b]ox\n User q\n",
            "Host box # a comment\n Port 3 # another\n",
            "Match originalhost bo*,!box\n Port 4\nMatch originalhost box,other\n User m\n",
            "Match host box user root\n Port 5\nMatch !host other\n Port 6\n",
            "HostName real\nMatch host box\n Port 8\nMatch host real\n Port 9\n",
            "Match exec true\n Port 10\nMatch exec \"test %h = box\"\n User e\n",
            "Match all\n Port 11\n",
            "Match final\n Port 12\nMatch final host real\n User f\nHost box\n HostName real\n",
            "Match user nobody exec \"exit 3\"\n Port 1\nMatch localuser *\n Port 13\n",
            "Include DIR/false\nHost box\n Port 21\n",
            "Host other\n Include DIR/hosts\nHost box\n Port 22\n",
            "Host box\n Include DIR/nested\n User early\nHost *\n User all\n",
            "Include DIR/more.d/* DIR/none DIR/non*\n IdentityFile /last\n",
            "IdentityFile /a\nHost box\n IdentityFile \"/b c\" \n IdentityFile /a\n",
            "HostName %h.example\n HostKeyAlias Named\n",
            "UserKnownHostsFile /one \"/two\"\n",
            "Port many\n",
            "Port 70000\n",
            "User\n",
            "User \"a\n",
            "Match\n Port 1\n",
            "Match host\n Port 1\n",
        ];
        for case in cases {
            let text = format!("{case}{head}").replace("DIR", dir.path().to_str().unwrap());
            fs::write(at("config"), &text).unwrap();
            for host in ["box", "other", "BOX"] {
                assert_eq!(by_us(&at("config"), host), by_ssh(&at("config"), host), "{host} of\n{text}");
            }
        }
    }

    #[test]
    fn settings_of_no_interest_may_have_any_form() {
        let config = "ServerAliveInterval 1m\nForwardAgent ~/agent.sock\nSetEnv A=\"b\nSomethingNew \"unclosed\nCompression maybe\n\
                      ProxyCommand none\nLocalCommand echo \"it's\nPort 9\n";
        assert_eq!(resolved(config, |_| {}).unwrap().port, 9);
    }

    #[test]
    fn tokens_and_variables_are_expanded() {
        let config = "HostName %h.lab%%\nPort 7\nUser you\nIdentityFile %d/%n-%h-%p-%r-%u-%%\nIdentityFile ~root/k\nIdentityAgent $NO_SUCH_AGENT\n";
        let target = resolved(config, |_| {}).unwrap();
        assert_eq!(paths(&target)[0], "HOME/store-store.lab%-7-you-me-%");
        assert_eq!(paths(&target)[1], "/root/k");
        assert!(target.agent.none && !target.agent.named_keys_only);
        let agent = |config| resolved(config, |_| {}).unwrap().agent;
        assert_eq!(agent("IdentityAgent /a/%r\nUser u\nIdentitiesOnly yes").socket, Some("/a/u".into()));
        assert!(agent("IdentityAgent none").none && !agent("IdentityAgent SSH_AUTH_SOCK").none);
        for bad in ["IdentityFile /a/%Z", "IdentityFile ${NO_SUCH_VARIABLE}/x", "IdentityFile ${X"] {
            let error = resolved(bad, |_| {}).unwrap_err().to_string();
            assert!(error.contains(".ssh/config:1"), "{error}");
        }
    }

    #[test]
    fn algorithms_are_added_and_taken_away() {
        let ours = ["a", "b", "c-x", "c-y"];
        let there = ["a", "b", "c-x", "c-y", "d", "kex-strict-c-v00@openssh.com"];
        for (list, expected) in [
            ("d,b,unknown", "d,b"),
            ("+d,a", "a,b,c-x,c-y,d"),
            ("^d,b", "d,b,a,c-x,c-y"),
            ("-c-*,a", "b"),
            ("-*", ""),
            ("+", "a,b,c-x,c-y"),
            ("unknown", ""),
        ] {
            assert_eq!(chosen(list, &ours, &there).join(","), expected, "{list}");
        }
    }

    #[test]
    fn a_configuration_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let ssh = home.path().join(".ssh");
        fs::create_dir(&ssh).unwrap();
        fs::write(ssh.join("config"), "Include more\n").unwrap();
        fs::write(ssh.join("more"), "Port 5\n").unwrap();
        let local = LocalNames { home: Some(home.path().to_owned()), user: Some("me".to_owned()) };
        for (name, mode, fits) in
            [("config", 0o620, false), ("config", 0o644, true), ("more", 0o602, false), ("more", 0o600, true)]
        {
            fs::set_permissions(ssh.join(name), fs::Permissions::from_mode(mode)).unwrap();
            let outcome = resolve(&SshOptions::new("store"), &local).map(|target| target.port);
            assert_eq!(outcome.is_ok(), fits, "{name} {mode:o}: {outcome:?}");
            let said = outcome.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(fits || (said.contains(name) && said.contains("permissions") && said.contains("chmod")), "{said}");
        }
    }
}
