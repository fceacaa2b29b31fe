//! Where files are sent to: a private sshd on this machine, or the user's own host.

use super::measure::clean;
use super::report::ReceivingEnd;
use super::sshd::Sshd;
use super::{BenchError, find};
use crate::transport::Connect;
use crate::transport::ssh::{Ssh, SshOptions};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The host's name in the configuration file that we write.
const ALIAS: &str = "bench";

/// A host as ssh and our own SSH know it.
#[derive(Debug, Clone)]
pub(super) struct SshReach {
    host: String,
    /// Where the private server's `.ssh/config` is.
    home: Option<PathBuf>,
}

impl SshReach {
    /// A command whose own SSH goes there.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = clean(program);
        if let Some(home) = &self.home {
            command.env("HOME", home).env_remove("SSH_AUTH_SOCK");
        }
        command
    }

    /// OpenSSH's words to go there, without the host.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = vec!["-oBatchMode=yes".to_owned()];
        if let Some(home) = &self.home {
            words.extend(["-F".to_owned(), home.join(".ssh/config").display().to_string()]);
        }
        words
    }

    /// Stock rsync, with ssh as it comes or with this cipher.
    pub(super) fn stock(&self, rsync: &Path, cipher: Option<&str>) -> Command {
        let mut shell = vec!["ssh".to_owned()];
        shell.extend(self.words());
        shell.extend(cipher.map(|cipher| format!("-oCiphers={cipher}")));
        let mut command = self.command(rsync);
        command.arg("-e").arg(shell.join(" "));
        command
    }

    /// Our own rsync by our own SSH, with this program as the server or stock's.
    pub(super) fn ours(&self, server: Option<&str>) -> Result<Command, BenchError> {
        let mut command = self.command(&ourselves()?);
        command.arg("rsync");
        if let Some(server) = server {
            command.args(["--rsync-path", server]);
        }
        Ok(command)
    }

    /// What the private server's configuration says, such as `Port`.
    pub(super) fn setting(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.config()?).ok()?;
        let mut words = text.lines().map(str::split_whitespace);
        words.find_map(|mut words| if words.next() == Some(name) { words.next().map(str::to_owned) } else { None })
    }

    /// The private server's configuration.
    pub(super) fn config(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".ssh/config"))
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// What our own SSH needs to go there.
    pub(super) fn options(&self) -> SshOptions {
        let mut options = SshOptions::new(&self.host);
        if let Some(home) = &self.home {
            options.config = Some(home.join(".ssh/config"));
            options.agent = false;
        }
        options
    }
}

/// This program's own file.
pub(super) fn ourselves() -> Result<PathBuf, BenchError> {
    std::env::current_exe().map_err(BenchError::local("find", Path::new("this program's file")))
}

/// A far end with a folder of ours on it, which goes when this is dropped.
pub(super) struct FarEnd {
    pub(super) reach: SshReach,
    ssh: Ssh,
    folder: String,
    sshd: Option<Sshd>,
    /// Our program over there.
    server: Option<String>,
}

impl FarEnd {
    /// A private sshd, its files in this folder.
    pub(super) fn private(scratch: &Path) -> Result<Self, BenchError> {
        if scratch.to_string_lossy().contains(|c: char| c.is_whitespace() || "'\"\\$`".contains(c)) {
            let why =
                format!("{} cannot be said to a remote shell; choose another place with --dir", scratch.display());
            return Err(BenchError::Setup(why));
        }
        let at = |name: &str| scratch.join(name);
        for name in ["sshd", "far"] {
            fs::create_dir(at(name)).map_err(BenchError::local("make", &at(name)))?;
        }
        let sshd = Sshd::start(at("sshd"))?;
        let reach = configure(&at("home"), &sshd, sshd.port)?;
        let ssh = Ssh::new(reach.options())?;
        let server = Some(format!("{} rsync", ourselves()?.display()));
        Ok(Self { reach, ssh, folder: at("far").display().to_string(), sshd: Some(sshd), server })
    }

    /// The user's own host; `server` is our program there, if it is there.
    pub(super) fn at(host: &str, server: Option<&str>) -> Result<Self, BenchError> {
        let reach = SshReach { host: host.to_owned(), home: None };
        let ssh = Ssh::new(reach.options())?;
        let server = server.map(|program| format!("{program} rsync"));
        let mut far = Self { reach, ssh, folder: String::new(), sshd: None, server };
        far.folder = far.sh("mktemp -d \"${TMPDIR:-/tmp}/archiver-bench.XXXXXX\"")?.trim().to_owned();
        Ok(far)
    }

    /// Runs a script over there, in our folder; gives its output.
    pub(super) fn sh(&mut self, script: &str) -> Result<String, BenchError> {
        let script = if self.folder.is_empty() { script.to_owned() } else { format!("cd {} && {script}", self.folder) };
        let output = self.ssh.run(&["sh", "-c", &script].map(OsString::from))?;
        if output.status != Some(0) {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let status =
                output.status.map_or_else(|| "no exit status".to_owned(), |code| format!("exit status {code}"));
            return Err(BenchError::Failed { what: format!("{script} at {}", self.reach.host), status, said });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A path in our folder there, for a command line on this side.
    pub(super) fn target(&self, reach: &SshReach, name: &str) -> String {
        format!("{}:{}", reach.host, self.path(name))
    }

    /// The same, for whoever is there.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// What serves as this receiver, `None` for stock's rsync.
    pub(super) fn server(&self, receiver: ReceivingEnd) -> Result<Option<&str>, BenchError> {
        match (receiver, &self.server) {
            (ReceivingEnd::Stock, _) => Ok(None),
            (ReceivingEnd::Ours, Some(server)) => Ok(Some(server)),
            (ReceivingEnd::Ours, None) => Err(BenchError::Setup(format!(
                "Where this program is at {} is not known; say it with --our-path, or leave it out with --receiver stock",
                self.reach.host
            ))),
        }
    }

    /// CPU seconds of all sessions that have ended, on a private server.
    pub(super) fn spent(&mut self) -> Option<f64> {
        // Our own session is on for as long as we live.
        self.ssh.login().ok()?;
        self.sshd.as_ref()?.ended_cpu(1)
    }

    /// The private server's port; `None` of a user's host.
    pub(super) fn port(&self) -> Option<u16> {
        self.sshd.as_ref().map(|sshd| sshd.port)
    }

    /// The private server by another port, with a configuration in `home`.
    pub(super) fn via(&self, home: &Path, port: u16) -> Result<SshReach, BenchError> {
        match &self.sshd {
            Some(sshd) => configure(home, sshd, port),
            None => Err(BenchError::Setup("Only a private server is reached through the link simulator".to_owned())),
        }
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        if self.sshd.is_none() && self.folder.contains("archiver-bench.") {
            let folder = std::mem::take(&mut self.folder);
            let _ = self.sh(&format!("rm -rf {folder}"));
        }
        self.ssh.disconnect();
    }
}

/// Writes `.ssh/config` for the private server at this port.
fn configure(home: &Path, sshd: &Sshd, port: u16) -> Result<SshReach, BenchError> {
    let folder = home.join(".ssh");
    fs::create_dir_all(&folder).map_err(BenchError::local("make", &folder))?;
    let key = fs::read_to_string(sshd.path("host.pub")).map_err(BenchError::local("read", &sshd.path("host.pub")))?;
    let known = folder.join("known_hosts");
    // An alias is looked up with the port behind it by nobody.
    fs::write(&known, format!("{ALIAS} {key}")).map_err(BenchError::local("write", &known))?;
    let user = user()?;
    let text = format!(
        "Host {ALIAS}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n  HostKeyAlias {ALIAS}\n  StrictHostKeyChecking yes\n",
        sshd.path("id").display(),
        known.display(),
    );
    let config = folder.join("config");
    fs::write(&config, text).map_err(BenchError::local("write", &config))?;
    Ok(SshReach { host: ALIAS.to_owned(), home: Some(home.to_owned()) })
}

/// Who we are, to the server on this machine.
fn user() -> Result<String, BenchError> {
    let name = uzers::get_current_username().and_then(|name| name.into_string().ok());
    name.ok_or_else(|| BenchError::Setup("This account has no name to log in with; name a HOST".to_owned()))
}

/// Stock rsync on this side.
pub(super) fn rsync() -> Result<PathBuf, BenchError> {
    find("rsync")
}
