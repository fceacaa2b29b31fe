//! A client's way from its connection to its session: greeting, module, login, commands, entrance. Counterpart: rsync's
//! `rsync_module`.

use super::access::{Hosts, Peer, names_matter};
use super::auth::{self, Proof, Secrets, UserAccess};
use super::config::{Config, DaemonVariables, Module, Parameters};
use super::flags::DaemonFlags;
use super::hooks::{self, After};
use super::journal::Journal;
use super::module::{Entrance, NoEntry, guard};
use super::talk::{Gone, Talk};
use super::{journal_of, slots};
use crate::disk::{open_operator_file, trust_all_links};
use crate::transfer::guard::Guard;
use crate::transfer::ids::converter::convert_by;
use protocol::PeerError;
use protocol::daemon::{AuthDigest, Greeting, ServerEvent};
use protocol::handshake::VERSION_MOST;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest message of the day that is shown, in bytes.
const MOTD_MOST: u64 = 1 << 20;

/// Why a client is not served: what it hears, if anything, and what the log says.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) client: Option<String>,
    pub(super) log: Option<String>,
}

impl Rejection {
    fn new(client: impl Into<String>, log: impl Into<String>) -> Self {
        Self { client: Some(client.into()), log: Some(log.into()) }
    }
}

impl From<Gone> for Rejection {
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

impl From<NoEntry> for Rejection {
    fn from(no: NoEntry) -> Self {
        Self::new(no.client, no.log)
    }
}

/// A module, and all that a session in it needs.
pub(super) struct Admitted<'a> {
    pub(super) module: &'a Module,
    pub(super) environment: DaemonVariables,
    pub(super) version: u8,
    pub(super) user: Option<String>,
    pub(super) access: UserAccess,
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
    pub(super) after: Option<After>,
}

/// A client that has connected, on its way to its session.
pub(super) struct Applicant<'r, 'c> {
    pub(super) talk: &'r mut Talk,
    pub(super) config: &'c Config,
    pub(super) peer: &'r mut Peer,
    pub(super) environment: DaemonVariables,
    pub(super) journal: &'r mut Journal,
    pub(super) flags: &'r DaemonFlags,
}

impl<'c> Applicant<'_, 'c> {
    /// Talks with the client until its session can begin; nothing where it only wanted the list.
    pub(super) fn attend(mut self) -> Result<Option<Admitted<'c>>, Rejection> {
        let greeting = self.greet()?;
        let Some((name, early_input)) = self.request()? else { return Ok(None) };
        let module = self.module(&name)?;
        let settings = &module.settings;
        let slot = claim(settings.max_connections, self.expand(&settings.lock_file).as_deref())?;
        self.environment.set("RSYNC_MODULE_NAME", name.as_str());
        let (user, access) = self.log_in(module, &greeting)?;
        let path = self.expand(&settings.path).unwrap_or_default();
        self.environment.set("RSYNC_MODULE_PATH", path);
        // From here on the log is the module's own.
        *self.journal = journal_of(self.flags, settings, &self.environment);
        let after = self.first_commands(settings, &early_input)?;
        if settings.insecure_links {
            trust_all_links();
        }
        let entrance = Entrance::find(settings, &self.environment)?;
        let guard = guard(settings, &self.environment)?;
        let (is_root, changes_root) = (entrance.is_root(), entrance.changes_root());
        let (args, turned_down) = self.enter(settings, entrance)?;
        Ok(Some(Admitted {
            module,
            environment: self.environment,
            version: greeting.agreed(VERSION_MOST),
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

    fn who(&self) -> String {
        format!("{} ({})", self.peer.shown_name(), self.peer.shown_address())
    }

    fn expand(&self, text: &Option<String>) -> Option<String> {
        text.as_deref().map(|text| self.environment.expand(text))
    }

    /// Greetings, and the message of the day.
    fn greet(&mut self) -> Result<Greeting, Rejection> {
        self.talk.say(&Greeting::line(VERSION_MOST))?;
        let ServerEvent::Greeted(greeting) = self.talk.hear()? else { return Err(out_of_order()) };
        if let Some(motd) = &self.config.globals.motd_file {
            // A missing message is no reason to keep anybody out.
            let mut text = motd_text(Path::new(&self.environment.expand(motd))).unwrap_or_else(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    self.journal.warn(&format!("motd file {motd} is not shown: {error}"));
                }
                Vec::new()
            });
            text.push(b'\n');
            self.talk.say(&text)?;
        }
        Ok(greeting)
    }

    /// The module's name and the early input; nothing where the client wanted the list.
    fn request(&mut self) -> Result<Option<(String, Vec<u8>)>, Rejection> {
        let mut early_input = Vec::new();
        loop {
            match self.talk.hear()? {
                ServerEvent::EarlyInput(bytes) => early_input = bytes,
                ServerEvent::List => {
                    self.journal.say(&format!("module-list request from {}", self.who()));
                    self.talk.say(&listing(self.config, &self.environment))?;
                    return Ok(None);
                }
                ServerEvent::Module(name) => {
                    return Ok(Some((String::from_utf8_lossy(&name).into_owned(), early_input)));
                }
                _ => return Err(out_of_order()),
            }
        }
    }

    /// The module of that name, if hosts such as the client's may have it.
    fn module(&mut self, name: &str) -> Result<&'c Module, Rejection> {
        let unknown = || format!("Unknown module '{name}'");
        let Some(module) = self.config.module(name) else {
            return Err(Rejection::new(unknown(), format!("unknown module '{name}' tried from {}", self.who())));
        };
        let settings = &module.settings;
        let mut lists = [&settings.hosts_allow, &settings.hosts_deny].into_iter().flatten();
        if settings.reverse_lookup && lists.any(|list| names_matter(list)) {
            self.peer.look_up();
            self.environment.set("RSYNC_HOST_NAME", self.peer.shown_name());
        }
        let (allow, deny) = (self.expand(&settings.hosts_allow), self.expand(&settings.hosts_deny));
        let hosts = Hosts { allow: allow.as_deref(), deny: deny.as_deref(), forward: settings.forward_lookup };
        let who = self.who();
        if !hosts.admit(self.peer) {
            let client = if settings.list { format!("access denied to {name} from {who}") } else { unknown() };
            return Err(Rejection::new(client, format!("rsync denied on module {name} from {who}")));
        }
        self.journal.say(&format!("rsync allowed access on module {name} from {who}"));
        Ok(module)
    }

    /// Who the client is, where the module asks for that, and what he may do.
    fn log_in(&mut self, module: &Module, greeting: &Greeting) -> Result<(Option<String>, UserAccess), Rejection> {
        let settings = &module.settings;
        self.environment.set("RSYNC_USER_NAME", "");
        let Some(list) = self.expand(&settings.auth_users) else { return Ok((None, UserAccess::AsModule)) };
        let secrets = self.expand(&settings.secrets_file);
        let secrets = Secrets { file: secrets.as_deref().map(Path::new), strict: settings.strict_modes };
        let floor = self.expand(&settings.auth_digest);
        let found = authenticate(self.talk, greeting, &list, &secrets, floor.as_deref());
        let (user, access) = found.map_err(|failed| match failed {
            LoginFailure::Told(log) => {
                let client = format!("auth failed on module {}", module.name);
                let log = format!("{client} from {}{log}", self.who());
                Rejection::new(client, log)
            }
            LoginFailure::Gone(gone) => gone.into(),
        })?;
        self.environment.set("RSYNC_USER_NAME", user.as_str());
        Ok((Some(user), access))
    }

    /// Starts the command that waits for the end, and runs the one that comes before all else.
    fn first_commands(&self, settings: &Parameters, early_input: &[u8]) -> Result<Option<After>, Rejection> {
        let after = command(&settings.post_xfer_exec).map(|post| After::start(post, &self.environment)).transpose();
        let after = after.map_err(|why| Rejection::new(why.clone(), format!("post-xfer exec {why}")))?;
        if let Some(early) = command(&settings.early_exec) {
            hooks::run(early, &self.environment, &[], early_input)
                .map_err(|why| Rejection::new("early exec failed", format!("early exec {why}")))?;
        }
        Ok(after)
    }

    /// Enters the module and hears the client's arguments; with them why an operator's command wants no transfer. They are
    /// read with the module's rights, unless a command with ours is to see them.
    fn enter(
        &mut self,
        settings: &Parameters,
        entrance: Entrance,
    ) -> Result<(Vec<Vec<u8>>, Option<String>), Rejection> {
        let commands = (command(&settings.pre_xfer_exec), settings.name_converter.as_deref());
        let journal = &*self.journal;
        let enter = |entrance: Entrance| entrance.enter(&|text| journal.warn(text)).map_err(Rejection::from);
        let outside = match commands {
            (None, None) => enter(entrance).map(|()| None)?,
            _ => Some(entrance),
        };
        self.talk.say(b"@RSYNCD: OK\n")?;
        self.talk.accept();
        let ServerEvent::Args(args) = self.talk.hear()? else { return Err(out_of_order()) };
        let Some(entrance) = outside else { return Ok((args, None)) };
        let turned_down = last_commands(commands, &mut self.environment, &args).err();
        // The client is in its session already, and hears of it there.
        turned_down.iter().for_each(|why| journal.warn(why));
        enter(entrance).map_err(|refusal| Rejection { client: None, ..refusal })?;
        Ok((args, turned_down))
    }
}

/// An operator's command, unless none is to be run.
fn command(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|_| hooks::enabled())
}

/// Runs the command that has a say in the transfer, and starts the converter of names.
fn last_commands(
    (pre, converter): (Option<&str>, Option<&str>),
    environment: &mut DaemonVariables,
    args: &[Vec<u8>],
) -> Result<(), String> {
    let paths = args.iter().skip_while(|arg| *arg != b".").skip(1);
    let paths: Vec<_> = paths.map(|path| path.escape_ascii().to_string()).collect();
    environment.set("RSYNC_REQUEST", paths.join(" "));
    let told: Vec<_> = std::iter::once(b"rsyncd".to_vec()).chain(args.iter().cloned()).collect();
    if let Some(pre) = pre {
        hooks::run(pre, environment, &told, b"").map_err(|why| format!("pre-xfer exec {}", why.trim_end()))?;
    }
    let Some(program) = converter else { return Ok(()) };
    hooks::start(program, environment, &told)
        .and_then(|mut child| convert_by(&mut child).map_err(|error| error.to_string()))
        .map_err(|why| format!("name converter {why}"))
}

fn motd_text(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open_operator_file(path)?.take(MOTD_MOST).read_to_end(&mut text)?;
    Ok(text)
}

fn out_of_order() -> Rejection {
    Rejection { client: None, log: Some("the client spoke out of order".into()) }
}

fn listing(config: &Config, environment: &DaemonVariables) -> Vec<u8> {
    let mut text = String::new();
    for module in config.modules.iter().filter(|module| module.settings.list) {
        let comment = module.settings.comment.as_deref().map(|text| environment.expand(text)).unwrap_or_default();
        text.push_str(&format!("{:<15}\t{comment}\n", module.name));
    }
    text.push_str("@RSYNCD: EXIT\n");
    text.into_bytes()
}

fn claim(most: i64, lock_file: Option<&str>) -> Result<Option<File>, Rejection> {
    let full = || {
        let text = format!("max connections ({most}) reached");
        Rejection::new(format!("{text} -- try again later"), text)
    };
    if most <= 0 {
        return if most < 0 { Err(full()) } else { Ok(None) };
    }
    let path = Path::new(lock_file.unwrap_or("/var/run/rsyncd.lock"));
    match slots::claim(path, most) {
        Ok(Some(slot)) => Ok(Some(slot)),
        Ok(None) => Err(full()),
        Err(error) => Err(Rejection::new("failed to open lock file", format!("lock file {}: {error}", path.display()))),
    }
}

enum LoginFailure {
    Told(String),
    Gone(Gone),
}

impl From<Gone> for LoginFailure {
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
) -> Result<(String, UserAccess), LoginFailure> {
    let told = |why: &str| LoginFailure::Told(format!(": {why}"));
    let rules = auth::rules(list).map_err(|why| told(&why))?;
    let digest = greeting.digest(VERSION_MOST).ok_or_else(|| told("no common digest"))?;
    // MD4 is no proof of anything any more; who wants it still says so.
    let floor = AuthDigest::from_name(floor.unwrap_or(AuthDigest::WEAKEST.name()));
    let floor = floor.ok_or_else(|| told("auth digest names no digest"))?;
    if digest > floor && digest.name() != floor.name() {
        return Err(told(&format!("the client's best digest is {}, weaker than auth digest allows", digest.name())));
    }
    let mut random = [0; 48];
    getrandom::fill(&mut random).map_err(|_| told("the system gives no random numbers"))?;
    let challenge = AuthDigest::challenge(&random);
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
        Err(why) => Err(LoginFailure::Told(format!(" for {user}: {why}"))),
    }
}
