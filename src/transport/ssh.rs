//! SSH by libssh2: one connection to one far end, one command at a time.
//!
//! The session lives in a thread of its own (see `pump`). It is made at the first call and kept; one that has died while
//! idle is noticed and replaced silently. More throughput means more `Ssh`s, not more links of one.

mod auth;
mod config;
pub(super) mod dial;
pub(super) mod drive;
mod known_hosts;
mod settings;
pub mod sftp;
mod tokens;

use super::pump::{ExecError, Limits, Pump};
use super::{COMMAND_START, CommandOutput, Connect, ConnectError, OnAnswer, collect, shell_command};
use crate::link::{Closer, Link, SignOfLife};
use config::SshTarget;
use sftp::{LostInSync, Sftp, SftpError};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokens::LocalNames;

/// How to reach a far end by SSH.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// `[user@]host`, as typed; the host may be a name in the configuration file.
    pub host: String,
    /// The port; else the configuration's, else 22.
    pub port: Option<u16>,
    /// The user; else the one typed with the host, the configuration's, our own.
    pub user: Option<String>,
    /// Private key files. When any is given, only these (and the agent) are used.
    pub keys: Vec<PathBuf>,
    /// The one known hosts file to believe; else the configuration's, else those of `ssh`.
    pub known_hosts: Option<PathBuf>,
    /// The configuration file; else `~/.ssh/config`, if there is one.
    pub config: Option<PathBuf>,
    /// Ask the agent at `SSH_AUTH_SOCK`, if there is one.
    pub agent: bool,
    /// Limit for name, connection and handshake together, and again for starting a command.
    pub connect_timeout: Duration,
    /// Limit for the login.
    pub auth_timeout: Duration,
    /// A link on which nothing moves for so long, while somebody waits, fails with `TimedOut`.
    pub stall_timeout: Duration,
    /// What counts as moving.
    pub alive: SignOfLife,
    /// A session that has been idle for longer is asked whether it still lives before a command is trusted to it.
    pub trusted_idle: Duration,
    /// The ciphers to offer, the best first; our own choice when empty.
    pub ciphers: Vec<String>,
    /// The words that start rsync over there.
    pub rsync_path: Vec<OsString>,
    /// What errors advise.
    pub remedies: Remedies,
}

/// Whose options the advice of an error names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedies {
    /// Those of the service.
    Service,
    /// Those of the rsync command, which leaves the rest to `ssh`.
    Command,
}

impl Remedies {
    fn say(self, service: &'static str, command: &'static str) -> &'static str {
        match self {
            Self::Service => service,
            Self::Command => command,
        }
    }

    fn config(self) -> &'static str {
        self.say("or name another with --ssh-config", "or have ssh itself used with -e ssh")
    }

    fn key(self) -> &'static str {
        self.say(
            "name the right key with --ssh-key",
            "name the right key in ~/.ssh/config (IdentityFile) or with -e 'ssh -i KEY'",
        )
    }

    fn known_hosts(self) -> &'static str {
        self.say("name a readable one with --known-hosts", "name a readable one in ~/.ssh/config (UserKnownHostsFile)")
    }

    fn user(self) -> &'static str {
        self.say("write USER@host, or give --user", "write USER@host")
    }

    fn proxy(self) -> &'static str {
        self.say(
            "forward a port there (ssh -L), and name it with --storage-host USER@localhost and --ssh-port",
            "have ssh itself used with -e ssh",
        )
    }
}

impl SshOptions {
    /// The defaults for `[user@]host`.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: None,
            user: None,
            keys: Vec::new(),
            known_hosts: None,
            config: None,
            agent: true,
            connect_timeout: Duration::from_secs(15),
            auth_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(60),
            alive: SignOfLife::Progress,
            trusted_idle: Duration::from_secs(5),
            ciphers: Vec::new(),
            rsync_path: vec![OsString::from("rsync")],
            remedies: Remedies::Service,
        }
    }
}

/// A far end reached by SSH. Dropping it leaves a link that is still in use alone.
pub struct Ssh {
    target: Arc<SshTarget>,
    rsync_path: Vec<OsString>,
    /// What serves in its place, if anything.
    uploaded: Option<Vec<OsString>>,
    /// The command by which the server program was started last.
    served_last: Option<String>,
    /// The same command, started ahead of need.
    ahead: Option<WaitingServer>,
    pump: Option<Pump>,
    lost_in_sync: LostInSync,
    answered: Option<OnAnswer>,
    /// The round trip from which on a login is to have one made.
    ahead_from: Option<Duration>,
    sftp_ahead: Arc<Mutex<Option<SftpAhead>>>,
}

/// A connection for files that is being made. It logs in once it is told that somebody has; without that it is given up.
struct SftpAhead {
    dialling: JoinHandle<Result<Sftp, ConnectError>>,
    may_log_in: mpsc::Sender<()>,
}

impl SftpAhead {
    /// `None` where the system gives no thread.
    fn start(target: Arc<SshTarget>, lost_in_sync: LostInSync) -> Option<Self> {
        let (may_log_in, told) = mpsc::channel();
        let (told, limit) = (Mutex::new(told), target.connect_timeout + target.auth_timeout);
        let answered: OnAnswer = Arc::new(move |_| {
            let told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.recv_timeout(limit).is_ok()
        });
        let dial = move || files(&target, Some(&answered), lost_in_sync);
        let dialling = std::thread::Builder::new().name("sftp-ahead".to_owned()).spawn(dial).ok()?;
        Some(Self { dialling, may_log_in })
    }

    /// Waits for it, each step of which has its limit.
    fn made(self) -> Result<Sftp, ConnectError> {
        let _ = self.may_log_in.send(());
        self.dialling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A server program that waits for its session.
struct WaitingServer {
    link: Link,
    since: Instant,
}

impl Ssh {
    /// Reads the configuration; connects to nothing yet.
    ///
    /// # Errors
    /// [`ConnectError::Setup`] when the host's name or the configuration cannot be used.
    pub fn new(options: SshOptions) -> Result<Self, ConnectError> {
        let target = Arc::new(config::resolve(&options, &LocalNames::from_env())?);
        Ok(Self {
            target,
            rsync_path: options.rsync_path,
            uploaded: None,
            served_last: None,
            ahead: None,
            pump: None,
            lost_in_sync: LostInSync::default(),
            answered: None,
            ahead_from: None,
            sftp_ahead: Arc::default(),
        })
    }

    /// Starts a command line that is quoted already for the shell over there.
    ///
    /// # Errors
    /// Those of connecting, and when the command cannot be started.
    pub fn open_line(&mut self, line: &str) -> Result<Link, ConnectError> {
        self.start_line(line, false)
    }

    /// Starts a command. With `once`, it is not tried again when it may already have been started.
    fn start(&mut self, words: &[OsString], once: bool) -> Result<Link, ConnectError> {
        self.start_line(&shell_command(words)?, once)
    }

    fn start_line(&mut self, command: &str, once: bool) -> Result<Link, ConnectError> {
        self.ahead = None;
        loop {
            let (pump, fresh) = match self.pump.take() {
                Some(pump) => (pump, false),
                None => (self.connect()?, true),
            };
            match pump.exec(command) {
                Ok(link) => {
                    self.pump = Some(pump);
                    return Ok(link);
                }
                Err(ExecError::Busy) => {
                    self.pump = Some(pump);
                    return Err(self.timeout("end of the link before"));
                }
                Err(ExecError::Refused(why)) => return Err(ConnectError::NoCommand { host: self.target.place(), why }),
                Err(ExecError::Dead { sent, .. }) if !(fresh || sent && once) => {}
                Err(ExecError::Dead { why, .. }) => {
                    return Err(ConnectError::NoCommand { host: self.target.place(), why });
                }
                Err(ExecError::TimedOut) => return Err(self.timeout(COMMAND_START)),
            }
        }
    }

    fn connect(&self) -> Result<Pump, ConnectError> {
        let target = self.target.clone();
        let limits = Limits {
            // An agent or a resolver may hang it.
            dial: target.connect_timeout + target.auth_timeout,
            start: target.connect_timeout,
            stall: target.stall_timeout,
            alive: target.alive,
            trusted_idle: target.trusted_idle,
        };
        let answered = self.answered_from();
        Pump::start(move || dial::dial(&target, answered.as_ref()), self.target.place(), limits)
    }

    fn ahead(&self) -> MutexGuard<'_, Option<SftpAhead>> {
        self.sftp_ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told that a connection has been answered, which may have another one made for files.
    fn answered_from(&self) -> Option<OnAnswer> {
        let Some(at_least) = self.ahead_from else { return self.answered.clone() };
        let (target, lost_in_sync, told) = (self.target.clone(), self.lost_in_sync.clone(), self.answered.clone());
        let made = self.sftp_ahead.clone();
        Some(Arc::new(move |round_trip| {
            if round_trip >= at_least {
                let ahead = SftpAhead::start(target.clone(), lost_in_sync.clone());
                *made.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
            }
            told.as_ref().is_none_or(|told| told(round_trip))
        }))
    }

    fn timeout(&self, stage: &'static str) -> ConnectError {
        ConnectError::Timeout { host: self.target.place(), limit: self.target.connect_timeout, stage }
    }
}

impl Connect for Ssh {
    fn on_answer(&mut self, told: OnAnswer) {
        self.answered = Some(told);
    }

    fn login(&mut self) -> Result<(), ConnectError> {
        if self.pump.is_none() {
            self.pump = Some(self.connect().inspect_err(|_| *self.ahead() = None)?);
        }
        self.ahead_from = None;
        if let Some(ahead) = &*self.ahead() {
            let _ = ahead.may_log_in.send(());
        }
        Ok(())
    }

    /// One link at a time: while another lives, this waits for its end, at most the connect timeout.
    fn open(&mut self, server_args: &[OsString]) -> Result<Link, ConnectError> {
        let command = shell_command(&[&self.program()[..], server_args].concat())?;
        if let Some(ahead) = self.ahead.take()
            && self.served_last.as_ref() == Some(&command)
            && ahead.link.remote.wait(Duration::ZERO).is_none()
        {
            return Ok(ahead.link);
        }
        let link = self.start_line(&command, false)?;
        self.served_last = Some(command);
        Ok(link)
    }

    fn open_ahead(&mut self) {
        let Some(command) = self.served_last.clone().filter(|_| self.pump.is_some() && self.ahead.is_none()) else {
            return;
        };
        // Whatever is wrong, the session that needs it will hear.
        self.ahead = self.start_line(&command, false).ok().map(|link| WaitingServer { link, since: Instant::now() });
    }

    fn ahead_since(&self) -> Option<Instant> {
        self.ahead.as_ref().map(|ahead| ahead.since)
    }

    fn leave_ahead(&mut self) {
        self.ahead = None;
        *self.ahead() = None;
    }

    fn run_until(&mut self, argv: &[OsString], began: &mut dyn FnMut(Closer)) -> Result<CommandOutput, ConnectError> {
        let link = self.start(argv, true)?;
        began(link.closer.clone());
        collect(link, &self.target.place(), self.target.stall_timeout).map_err(|error| {
            self.disconnect();
            match error {
                ConnectError::Lost { host, why } => ConnectError::NoCommand { host, why },
                error => error,
            }
        })
    }

    fn program(&self) -> Vec<OsString> {
        self.uploaded.clone().unwrap_or_else(|| self.rsync_path.clone())
    }

    fn serve_with(&mut self, program: Option<Vec<OsString>>) {
        self.uploaded = program;
    }

    fn sftp(&mut self) -> Result<Sftp, ConnectError> {
        match self.ahead().take() {
            Some(ahead) => ahead.made(),
            None => files(&self.target, self.answered.as_ref(), self.lost_in_sync.clone()),
        }
    }

    fn sftp_ahead(&mut self, at_least: Duration) {
        self.ahead_from = Some(at_least);
    }

    fn round_trip(&self) -> Option<Duration> {
        self.pump.as_ref().map(Pump::round_trip)
    }

    fn describe(&self) -> String {
        format!("{}@{}", self.target.user, self.target.place())
    }

    fn disconnect(&mut self) {
        self.leave_ahead();
        if let Some(pump) = self.pump.take() {
            pump.stop();
        }
    }
}

/// A connection of its own to the files of the far end.
fn files(target: &SshTarget, answered: Option<&OnAnswer>, lost_in_sync: LostInSync) -> Result<Sftp, ConnectError> {
    let line = dial::dial(target, answered)?;
    Sftp::start(line, target.connect_timeout, target.stall_timeout, lost_in_sync).map_err(|error| match error {
        SftpError::Stalled(limit) => ConnectError::Timeout { host: target.place(), limit, stage: "start of SFTP" },
        error => ConnectError::Lost { host: target.place(), why: format!("it gives no SFTP: {error}") },
    })
}
