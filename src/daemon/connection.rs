//! One client at standard input and output: what the listener, inetd and a remote shell start. Counterpart: rsync's
//! `start_daemon` and `rsync_module`.
//!
//! Each connection has a process of its own. Rights are those of a process, so only so can one client's module be entered
//! as another user and under another root without the next client's being in doubt.

use super::access::{Hosts, Peer, names_matter};
use super::auth::{self, Access, Proof, Secrets};
use super::config::{Config, Environment, Module, Settings};
use super::flags::Flags;
use super::hooks::{self, After};
use super::module::{Entrance, NoEntry, guard, step_down};
use super::request;
use super::talk::{Gone, Talk};
use super::{journal_of, slots};
use crate::transfer::guard::Guard;
use crate::transfer::ids::converter::convert_by;
use crate::transfer::{open_operator_file, trust_all_links};
use protocol::PeerError;
use protocol::daemon::{Digest, Greeting, ServerEvent};
use protocol::handshake::VERSION_MOST;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Longest message of the day that is shown, in bytes.
const MOTD_MOST: u64 = 1 << 20;

/// Why a client is not served: what it hears, if anything, and what the log says.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) client: Option<String>,
    pub(super) log: Option<String>,
}

impl Refusal {
    fn new(client: impl Into<String>, log: impl Into<String>) -> Self {
        Self { client: Some(client.into()), log: Some(log.into()) }
    }
}

impl From<Gone> for Refusal {
    fn from(gone: Gone) -> Self {
        let client = match &gone {
            Gone::Peer(PeerError::Version(version) | PeerError::TooOld(version)) => {
                Some(format!("protocol version mismatch: this server speaks 27 to 32, not {version}"))
            }
            Gone::Peer(error) => Some(error.to_string()),
            Gone::Lost(_) | Gone::Late(_) | Gone::NoProxy(_) => None,
        };
        Self { client, log: Some(gone.to_string()) }
    }
}

impl From<NoEntry> for Refusal {
    fn from(no: NoEntry) -> Self {
        Self::new(no.client, no.log)
    }
}

/// A module, and all that a session in it needs.
pub(super) struct Admitted<'a> {
    pub(super) module: &'a Module,
    pub(super) environment: Environment,
    pub(super) version: u8,
    pub(super) user: Option<String>,
    pub(super) access: Access,
    pub(super) args: Vec<Vec<u8>>,
    /// Why the operator's command wants no transfer.
    pub(super) turned_down: Option<String>,
    /// Whether the root of this process is the module.
    pub(super) is_root: bool,
    pub(super) changes_root: bool,
    /// What the module keeps from its clients.
    pub(super) guard: Option<Guard>,
    /// Held for as long as the session lasts.
    _slot: Option<File>,
    after: Option<After>,
}

/// Serves the client; returns the exit code. `waiting` is closed once its session begins.
pub(super) fn serve(flags: &Flags, waiting: Option<OwnedFd>) -> u8 {
    let (mut peer, by_socket) = peer();
    let mut environment = Environment::of_process();
    let mut talk = Talk::start();
    let config = flags.config(&environment);
    if let Ok(config) = &config {
        talk.within(config.globals.timeout);
    }
    let mut journal = match &config {
        Ok(config) => journal_of(flags, &config.globals, &environment),
        Err(_) => super::journal::Journal::syslog(3, "rsyncd"),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            journal.warn(&error.to_string());
            let _ = talk.say(&Greeting::line(VERSION_MOST));
            let _ = talk.say(b"@ERROR: the server's configuration cannot be used; its log says why\n");
            talk.linger();
            return 1;
        }
    };
    if let Err(no) = step_down(&config.globals, &environment) {
        journal.warn(&no.log);
        let _ = talk.say(&Greeting::line(VERSION_MOST));
        let _ = talk.say(format!("@ERROR: {}\n", no.client).as_bytes());
        talk.linger();
        return 1;
    }
    if by_socket && config.globals.proxy_protocol {
        match behind_proxy(&peer, &mut talk, &config.globals, &environment) {
            Ok(Some(address)) => peer = Peer::at(address),
            Ok(None) => {}
            Err(why) => {
                journal.warn(&why);
                return 5;
            }
        }
    }
    if config.globals.reverse_lookup {
        peer.look_up();
    }
    environment.set("RSYNC_HOST_ADDR", peer.shown_address());
    environment.set("RSYNC_HOST_NAME", peer.shown_name());
    environment.set("RSYNC_PID", std::process::id().to_string());
    journal.say(&format!("connect from {} ({})", peer.shown_name(), peer.shown_address()));
    match attend(&mut talk, &config, &mut peer, environment, &mut journal, flags) {
        Ok(Some(mut admitted)) => {
            drop(waiting);
            let after = admitted.after.take();
            let code = request::serve(admitted, &peer, &journal, talk, flags.bwlimit);
            if let Some(after) = after {
                after.ended(code);
            }
            code
        }
        Ok(None) => {
            talk.linger();
            0
        }
        Err(Refusal { client, log }) => {
            if let Some(log) = log {
                journal.warn(&log);
            }
            if let Some(client) = client {
                let _ = talk.say(format!("@ERROR: {client}\n").as_bytes());
            }
            // A client that is not done speaking would lose our last words to its own next ones.
            talk.linger();
            5
        }
    }
}

/// Who is behind the proxy at our socket, which must be one that is believed.
fn behind_proxy(
    proxy: &Peer,
    talk: &mut Talk,
    settings: &Settings,
    environment: &Environment,
) -> Result<Option<IpAddr>, String> {
    let list = settings.proxy_protocol_hosts.as_deref().map(|list| environment.expand(list)).unwrap_or_default();
    let mut proxy = proxy.clone();
    if settings.reverse_lookup && names_matter(&list) {
        proxy.look_up();
    }
    let who = format!("{} ({})", proxy.shown_name(), proxy.shown_address());
    if !(Hosts { allow: Some(&list), deny: None, forward: settings.forward_lookup }).admit(&proxy) {
        return Err(format!("proxy protocol rejected from untrusted peer {who}"));
    }
    talk.proxied().map_err(|gone| format!("{gone}: {who}"))
}

/// Who is at our standard input, and whether that is a socket; a remote shell tells in its variables.
fn peer() -> (Peer, bool) {
    let socket = io::stdin().as_fd().try_clone_to_owned().map(TcpStream::from).and_then(|stream| stream.peer_addr());
    if let Ok(address) = socket {
        return (Peer::at(address.ip()), true);
    }
    let told = std::env::var("SSH_CONNECTION").ok();
    let address = told.as_deref().and_then(|told| told.split(' ').next()).and_then(|word| word.parse().ok());
    (address.map(Peer::at).unwrap_or_default(), false)
}

/// Talks with the client until its session can begin; nothing where it only wanted the list.
fn attend<'a>(
    talk: &mut Talk,
    config: &'a Config,
    peer: &mut Peer,
    mut environment: Environment,
    journal: &mut super::journal::Journal,
    flags: &Flags,
) -> Result<Option<Admitted<'a>>, Refusal> {
    talk.say(&Greeting::line(VERSION_MOST))?;
    let ServerEvent::Greeted(greeting) = talk.hear()? else { return Err(out_of_order()) };
    if let Some(motd) = &config.globals.motd_file {
        // A missing message is no reason to keep anybody out.
        let mut text = motd_text(Path::new(&environment.expand(motd))).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                journal.warn(&format!("motd file {motd} is not shown: {error}"));
            }
            Vec::new()
        });
        text.push(b'\n');
        talk.say(&text)?;
    }
    let mut early_input = Vec::new();
    let name = loop {
        match talk.hear()? {
            ServerEvent::EarlyInput(bytes) => early_input = bytes,
            ServerEvent::List => {
                let (name, address) = (peer.shown_name(), peer.shown_address());
                journal.say(&format!("module-list request from {name} ({address})"));
                talk.say(&listing(config, &environment))?;
                return Ok(None);
            }
            ServerEvent::Module(name) => break String::from_utf8_lossy(&name).into_owned(),
            _ => return Err(out_of_order()),
        }
    };
    let who = |peer: &Peer| format!("{} ({})", peer.shown_name(), peer.shown_address());
    let unknown = || format!("Unknown module '{name}'");
    let Some(module) = config.module(&name) else {
        return Err(Refusal::new(unknown(), format!("unknown module '{name}' tried from {}", who(peer))));
    };
    let settings = &module.settings;
    if settings.reverse_lookup
        && [&settings.hosts_allow, &settings.hosts_deny].into_iter().flatten().any(|list| names_matter(list))
    {
        peer.look_up();
        environment.set("RSYNC_HOST_NAME", peer.shown_name());
    }
    let expand =
        |environment: &Environment, text: &Option<String>| text.as_deref().map(|text| environment.expand(text));
    let (allow, deny) = (expand(&environment, &settings.hosts_allow), expand(&environment, &settings.hosts_deny));
    let hosts = Hosts { allow: allow.as_deref(), deny: deny.as_deref(), forward: settings.forward_lookup };
    if !hosts.admit(peer) {
        let client = if settings.list { format!("access denied to {name} from {}", who(peer)) } else { unknown() };
        return Err(Refusal::new(client, format!("rsync denied on module {name} from {}", who(peer))));
    }
    journal.say(&format!("rsync allowed access on module {name} from {}", who(peer)));
    let slot = claim(settings.max_connections, expand(&environment, &settings.lock_file).as_deref())?;
    environment.set("RSYNC_MODULE_NAME", name.as_str());
    environment.set("RSYNC_USER_NAME", "");
    let mut access = Access::AsModule;
    let mut user = None;
    if let Some(list) = expand(&environment, &settings.auth_users) {
        let secrets = expand(&environment, &settings.secrets_file);
        let secrets = Secrets { file: secrets.as_deref().map(Path::new), strict: settings.strict_modes };
        let floor = expand(&environment, &settings.auth_digest);
        let (found, allowed) =
            authenticate(talk, &greeting, &list, &secrets, floor.as_deref()).map_err(|log| match log {
                Failed::Told(log) => Refusal::new(
                    format!("auth failed on module {name}"),
                    format!("auth failed on module {name} from {}{log}", who(peer)),
                ),
                Failed::Gone(gone) => gone.into(),
            })?;
        environment.set("RSYNC_USER_NAME", found.as_str());
        (user, access) = (Some(found), allowed);
    }
    let path = expand(&environment, &settings.path).unwrap_or_default();
    environment.set("RSYNC_MODULE_PATH", path);
    // From here on the log is the module's own.
    *journal = journal_of(flags, settings, &environment);
    let failed = |what: &str| {
        let what = what.to_owned();
        move |why: String| {
            let client = if what == "early" { "early exec failed".into() } else { why.clone() };
            Refusal::new(client, format!("{what} exec {why}"))
        }
    };
    let command = |text: &'a Option<String>| text.as_deref().filter(|_| hooks::enabled());
    let after = command(&settings.post_xfer_exec).map(|post| After::start(post, &environment)).transpose();
    let after = after.map_err(failed("post-xfer"))?;
    if let Some(early) = command(&settings.early_exec) {
        hooks::run(early, &environment, &[], &early_input).map_err(failed("early"))?;
    }
    if settings.insecure_links {
        trust_all_links();
    }
    let entrance = Entrance::find(settings, &environment)?;
    let guard = guard(settings, &environment)?;
    let (is_root, changes_root) = (entrance.is_root(), entrance.changes_root());
    let mut entrance = Some(entrance);
    let pre = command(&settings.pre_xfer_exec);
    let mut enter = |journal: &super::journal::Journal| match entrance.take() {
        Some(entrance) => entrance.enter(&|text| journal.warn(text)).map_err(Refusal::from),
        None => Ok(()),
    };
    // The client's arguments are read with its module's rights, unless a command with ours is to see them.
    let converter = settings.name_converter.as_deref();
    if pre.is_none() && converter.is_none() {
        enter(journal)?;
    }
    let mut turned_down = None;
    talk.say(b"@RSYNCD: OK\n")?;
    talk.accept();
    let ServerEvent::Args(args) = talk.hear()? else { return Err(out_of_order()) };
    if pre.is_some() || converter.is_some() {
        let paths: Vec<_> =
            args.iter().skip_while(|arg| *arg != b".").skip(1).map(|path| path.escape_ascii().to_string()).collect();
        environment.set("RSYNC_REQUEST", paths.join(" "));
        let told: Vec<_> = std::iter::once(b"rsyncd".to_vec()).chain(args.iter().cloned()).collect();
        let allowed = pre.map_or(Ok(()), |pre| hooks::run(pre, &environment, &told, b""));
        turned_down = match (allowed, converter) {
            (Err(why), _) => Some(format!("pre-xfer exec {}", why.trim_end())),
            (Ok(()), Some(program)) => hooks::start(program, &environment, &told)
                .and_then(|mut child| convert_by(&mut child).map_err(|error| error.to_string()))
                .err()
                .map(|why| format!("name converter {why}")),
            (Ok(()), None) => None,
        };
        // The client is in its session already, and hears of it there.
        turned_down.iter().for_each(|why| journal.warn(why));
        enter(journal).map_err(|refusal| Refusal { client: None, ..refusal })?;
    }
    let version = greeting.agreed(VERSION_MOST);
    Ok(Some(Admitted {
        module,
        environment,
        version,
        user,
        access,
        args,
        turned_down,
        is_root,
        changes_root,
        guard,
        _slot: slot,
        after,
    }))
}

fn motd_text(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open_operator_file(path)?.take(MOTD_MOST).read_to_end(&mut text)?;
    Ok(text)
}

fn out_of_order() -> Refusal {
    Refusal { client: None, log: Some("the client spoke out of order".into()) }
}

fn listing(config: &Config, environment: &Environment) -> Vec<u8> {
    let mut text = String::new();
    for module in config.modules.iter().filter(|module| module.settings.list) {
        let comment = module.settings.comment.as_deref().map(|text| environment.expand(text)).unwrap_or_default();
        text.push_str(&format!("{:<15}\t{comment}\n", module.name));
    }
    text.push_str("@RSYNCD: EXIT\n");
    text.into_bytes()
}

fn claim(most: i64, lock_file: Option<&str>) -> Result<Option<File>, Refusal> {
    let full = || {
        let text = format!("max connections ({most}) reached");
        Refusal::new(format!("{text} -- try again later"), text)
    };
    if most <= 0 {
        return if most < 0 { Err(full()) } else { Ok(None) };
    }
    let path = Path::new(lock_file.unwrap_or("/var/run/rsyncd.lock"));
    match slots::claim(path, most) {
        Ok(Some(slot)) => Ok(Some(slot)),
        Ok(None) => Err(full()),
        Err(error) => Err(Refusal::new("failed to open lock file", format!("lock file {}: {error}", path.display()))),
    }
}

enum Failed {
    Told(String),
    Gone(Gone),
}

impl From<Gone> for Failed {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

/// Challenges the client, and checks its answer.
fn authenticate(
    talk: &mut Talk,
    greeting: &Greeting,
    list: &str,
    secrets: &Secrets<'_>,
    floor: Option<&str>,
) -> Result<(String, Access), Failed> {
    let told = |why: &str| Failed::Told(format!(": {why}"));
    let rules = auth::rules(list).map_err(|why| told(&why))?;
    let digest = greeting.digest(VERSION_MOST).ok_or_else(|| told("no common digest"))?;
    // MD4 is no proof of anything any more; who wants it still says so.
    let floor = Digest::from_name(floor.unwrap_or(Digest::WEAKEST.name()));
    let floor = floor.ok_or_else(|| told("auth digest names no digest"))?;
    if digest > floor && digest.name() != floor.name() {
        return Err(told(&format!("the client's best digest is {}, weaker than auth digest allows", digest.name())));
    }
    let mut random = [0; 48];
    getrandom::fill(&mut random).map_err(|_| told("the system gives no random numbers"))?;
    let challenge = Digest::challenge(&random);
    talk.challenge();
    talk.say(format!("@RSYNCD: AUTHREQD {challenge}\n").as_bytes())?;
    let ServerEvent::Response { user, answer } = talk.hear()? else { return Err(told("no answer")) };
    let user = String::from_utf8(user).unwrap_or_default();
    // The name may become part of a path.
    if user.is_empty() || user.contains(['/', '\0']) || user.starts_with('.') {
        return Err(told("unusable user name"));
    }
    let proof = Proof { user: &user, answer: &answer, challenge: challenge.as_bytes(), digest };
    match auth::authorise(&rules, secrets, &proof) {
        Ok(access) => Ok((user, access)),
        Err(why) => Err(Failed::Told(format!(" for {user}: {why}"))),
    }
}
