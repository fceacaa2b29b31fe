//! What to connect to: the options, completed by `~/.ssh/config` and by defaults.

use super::SshOptions;
use crate::transport::ConnectError;
use ssh2_config::{HostParams, ParseRule, SshConfig};
use std::fs;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The keys of `ssh` that are tried when none is named.
const DEFAULT_KEYS: [&str; 3] = [".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"];

/// The known hosts files of `ssh`, the user's first.
const DEFAULT_KNOWN_HOSTS: &str = ".ssh/known_hosts";
const SYSTEM_KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";

/// One far end, everything decided.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) hostname: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// The name under which the host key is looked up.
    pub(super) key_name: String,
    pub(super) keys: Vec<KeyFile>,
    pub(super) known_hosts: Vec<KnownHostsFile>,
    pub(super) agent: bool,
    /// Those to offer; our own choice when empty.
    pub(super) ciphers: Vec<String>,
    pub(super) connect_timeout: Duration,
    pub(super) auth_timeout: Duration,
    pub(super) stall_timeout: Duration,
}

/// A private key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// Named on the command line, so its absence is an error.
    pub(super) named: bool,
}

/// A known hosts file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownHostsFile {
    pub(super) path: PathBuf,
    /// Named on the command line, so its absence is an error.
    pub(super) named: bool,
}

impl Target {
    /// Host and port, for messages.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.hostname, self.port)
    }
}

/// Where `~` is and who we are.
pub(super) struct Local {
    pub(super) home: Option<PathBuf>,
    pub(super) user: Option<String>,
}

impl Local {
    /// From `HOME` and `USER`, else from the password file.
    pub(super) fn from_env() -> Self {
        let uid = rustix::process::getuid().as_raw().to_string();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry: Option<Vec<&str>> =
            passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f.len() > 5 && f[2] == uid);
        let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            home: var("HOME").or_else(|| entry.as_ref().map(|f| f[5].to_owned())).map(PathBuf::from),
            user: var("USER").or_else(|| var("LOGNAME")).or_else(|| entry.as_ref().map(|f| f[0].to_owned())),
        }
    }

    fn below_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }
}

/// Completes the options: they beat the configuration file, and that beats the defaults.
pub(super) fn resolve(options: &SshOptions, local: &Local) -> Result<Target, ConnectError> {
    let (typed_user, typed_host) = match options.host.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, options.host.as_str()),
    };
    let host = typed_host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(typed_host);
    let typed_user = options.user.clone().or(typed_user);
    check_name("host", host)?;
    let params = read_config(options, local)?.query(host);
    refuse_proxies(host, &params)?;

    let hostname = params.host_name.as_deref().map_or_else(|| host.to_owned(), |name| name.replace("%h", host));
    let user = typed_user.or_else(|| params.user.clone()).or_else(|| local.user.clone()).ok_or_else(|| {
        ConnectError::Setup(format!("No user name for {host} is known; write USER@{host}, or give --user"))
    })?;
    check_name("host", &hostname)?;
    check_name("user", &user)?;
    let port = options.port.or(params.port).unwrap_or(22);

    let tokens = Tokens { host, hostname: &hostname, user: &user, port, local };
    let keys = if !options.keys.is_empty() {
        options.keys.iter().map(|path| KeyFile { path: path.clone(), named: true }).collect()
    } else if let Some(files) = &params.identity_file {
        let files = files.iter().filter_map(|path| tokens.path(&path.to_string_lossy()));
        files.map(|path| KeyFile { path, named: false }).collect()
    } else {
        let files = DEFAULT_KEYS.iter().filter_map(|name| local.below_home(name));
        files.map(|path| KeyFile { path, named: false }).collect()
    };
    let known_hosts = if let Some(path) = &options.known_hosts {
        vec![KnownHostsFile { path: path.clone(), named: true }]
    } else {
        let listed = |field: &str| params.unsupported_fields.get(field).cloned();
        let user_files = match listed("userknownhostsfile") {
            Some(files) => files.iter().filter_map(|file| tokens.path(file)).collect(),
            None => Vec::from_iter(local.below_home(DEFAULT_KNOWN_HOSTS)),
        };
        let system_files = match listed("globalknownhostsfile") {
            Some(files) => files.iter().filter_map(|file| tokens.path(file)).collect(),
            None => vec![PathBuf::from(SYSTEM_KNOWN_HOSTS)],
        };
        user_files.into_iter().chain(system_files).map(|path| KnownHostsFile { path, named: false }).collect()
    };
    let key_name = match params.unsupported_fields.get("hostkeyalias").and_then(|words| words.first()) {
        Some(alias) => alias.to_lowercase(),
        None if port == 22 => hostname.to_lowercase(),
        None => format!("[{}]:{port}", hostname.to_lowercase()),
    };
    Ok(Target {
        port,
        user,
        key_name,
        keys,
        known_hosts,
        agent: options.agent,
        ciphers: options.ciphers.clone(),
        connect_timeout: options.connect_timeout,
        auth_timeout: options.auth_timeout,
        stall_timeout: options.stall_timeout,
        hostname,
    })
}

/// A name that begins with a dash, or holds what no name holds, is an attack or a slip.
fn check_name(what: &str, name: &str) -> Result<(), ConnectError> {
    if name.is_empty() || name.starts_with('-') || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(ConnectError::Setup(format!("The {what} name {name:?} cannot be used; check how it was typed")));
    }
    Ok(())
}

fn read_config(options: &SshOptions, local: &Local) -> Result<SshConfig, ConnectError> {
    let named = options.config.clone();
    let Some(path) = named.clone().or_else(|| local.below_home(".ssh/config")) else {
        return Ok(SshConfig::default());
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if named.is_none() && e.kind() == ErrorKind::NotFound => return Ok(SshConfig::default()),
        Err(e) => return Err(unusable(&path, &e.to_string())),
    };
    let text = translate_match(&String::from_utf8_lossy(&bytes));
    let config = match &local.home {
        Some(home) => SshConfig::default().home_dir(home),
        None => SshConfig::default(),
    };
    let rules = ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS;
    config.parse(&mut BufReader::new(text.as_bytes()), rules).map_err(|e| unusable(&path, &e.to_string()))
}

fn unusable(path: &Path, why: &str) -> ConnectError {
    ConnectError::Setup(format!(
        "Cannot use the SSH configuration {}: {why}; correct it or name another with --ssh-config",
        path.display()
    ))
}

/// The parser knows no `Match` and would give such a section's settings to the `Host` above it. Sections that say no
/// more than a `Host` line become one; the others are left out, as they cannot be judged here.
fn translate_match(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut skipping = false;
    for line in text.lines() {
        let mut words = line.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty());
        let keyword = words.next().unwrap_or_default().to_ascii_lowercase();
        match keyword.as_str() {
            "host" => skipping = false,
            "match" => {
                let words: Vec<String> = words.map(|word| word.trim_matches('"').to_owned()).collect();
                let patterns = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                    ["all"] => Some("*".to_owned()),
                    ["host" | "originalhost", patterns] => Some(patterns.replace(',', " ")),
                    _ => None,
                };
                skipping = patterns.is_none();
                if let Some(patterns) = patterns {
                    out.push_str(&format!("Host {patterns}\n"));
                }
                continue;
            }
            _ => {}
        }
        if !skipping {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// To go straight to a host that is reached through another would only time out, far from the cause.
fn refuse_proxies(host: &str, params: &HostParams) -> Result<(), ConnectError> {
    let is_set = |words: &[String]| words.first().is_some_and(|word| !word.eq_ignore_ascii_case("none"));
    let jump = params.proxy_jump.as_deref().is_some_and(is_set);
    let command = params.unsupported_fields.get("proxycommand").is_some_and(|words| is_set(words));
    if jump || command {
        let which = if jump { "ProxyJump" } else { "ProxyCommand" };
        return Err(ConnectError::Setup(format!(
            "The SSH configuration reaches {host} by {which}, which the built-in SSH cannot; forward a port there \
             (ssh -L), and name it with --storage-host USER@localhost and --ssh-port"
        )));
    }
    Ok(())
}

/// The `%` tokens of ssh_config(5) that a path may hold.
struct Tokens<'a> {
    host: &'a str,
    hostname: &'a str,
    user: &'a str,
    port: u16,
    local: &'a Local,
}

impl Tokens<'_> {
    /// The path with `~` and tokens expanded; `None` for the word `none`.
    fn path(&self, word: &str) -> Option<PathBuf> {
        if word.eq_ignore_ascii_case("none") {
            return None;
        }
        let home = self.local.home.as_ref().map(|home| home.to_string_lossy().into_owned()).unwrap_or_default();
        let word = match word.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
            _ => word.to_owned(),
        };
        let mut out = String::new();
        let mut chars = word.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some('d') => out.push_str(&home),
                Some('h') => out.push_str(self.hostname),
                Some('n') => out.push_str(self.host),
                Some('p') => out.push_str(&self.port.to_string()),
                Some('r') => out.push_str(self.user),
                Some('u') => out.push_str(self.local.user.as_deref().unwrap_or_default()),
                other => {
                    out.push('%');
                    out.extend(other);
                }
            }
        }
        Some(PathBuf::from(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(config: &str, change: impl FnOnce(&mut SshOptions)) -> Result<Target, ConnectError> {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        fs::write(home.path().join(".ssh/config"), config).unwrap();
        fs::write(home.path().join(".ssh/more"), "Host inc\n Port 99\n").unwrap();
        let mut options = SshOptions::new("store");
        change(&mut options);
        let mut target = resolve(&options, &Local { home: Some(home.path().to_owned()), user: Some("me".to_owned()) })?;
        let strip = |path: &mut PathBuf| {
            if let Ok(rest) = path.strip_prefix(home.path()) {
                *path = Path::new("HOME").join(rest);
            }
        };
        target.keys.iter_mut().for_each(|key| strip(&mut key.path));
        target.known_hosts.iter_mut().for_each(|file| strip(&mut file.path));
        Ok(target)
    }

    fn paths(target: &Target) -> Vec<String> {
        target.keys.iter().map(|key| key.path.display().to_string()).collect()
    }

    #[test]
    fn defaults_are_those_of_ssh() {
        let target = resolved("", |_| {}).unwrap();
        assert_eq!((target.user.as_str(), target.place().as_str()), ("me", "store:22"));
        assert_eq!(paths(&target), ["HOME/.ssh/id_ed25519", "HOME/.ssh/id_ecdsa", "HOME/.ssh/id_rsa"]);
        let known: Vec<_> = target.known_hosts.iter().map(|file| file.path.display().to_string()).collect();
        assert_eq!(known, ["HOME/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"]);
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
        assert_eq!(target.keys, [KeyFile { path: PathBuf::from("/k"), named: true }]);
        assert_eq!(target.known_hosts, [KnownHostsFile { path: PathBuf::from("/kh"), named: true }]);
    }

    #[test]
    fn includes_are_read() {
        let target = resolved("Include more\n", |options| options.host = "inc".to_owned()).unwrap();
        assert_eq!(target.port, 99);
    }

    #[test]
    fn match_sections_do_not_leak_into_the_host_above() {
        let config = "Host store\n Port 1\nMatch exec \"true\"\n User wrong\nMatch host=other,store\n User right\n\
                      Match all\n HostKeyAlias Alias\n";
        let target = resolved(config, |_| {}).unwrap();
        assert_eq!((target.port, target.user.as_str(), target.key_name.as_str()), (1, "right", "alias"));
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for host in ["-oProxyCommand=x", "", "me@", "me@-x", "a b", "a\nb", "-l@host"] {
            let error = resolved("", |options| options.host = host.to_owned()).unwrap_err();
            assert!(matches!(error, ConnectError::Setup(_)), "{host}: {error}");
        }
        let proxied = resolved("Host store\n ProxyJump gate\n", |_| {}).unwrap_err().to_string();
        assert!(proxied.contains("ProxyJump"), "{proxied}");
        assert!(resolved("Host store\n ProxyJump none\n", |_| {}).is_ok());
        let bad = resolved("Port many\n", |_| {}).unwrap_err().to_string();
        assert!(bad.contains(".ssh/config"), "{bad}");
        let absent = resolved("", |options| options.config = Some(PathBuf::from("/nonexistent/config"))).unwrap_err();
        assert!(absent.to_string().contains("/nonexistent/config"), "{absent}");
    }
}
