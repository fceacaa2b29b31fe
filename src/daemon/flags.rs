//! The daemon's own command line.

use super::config::{Config, ConfigError, Environment};
use clap::Parser;
use std::path::PathBuf;

/// `rsync --daemon`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "rsync --daemon",
    about = "Serves modules to rsync clients, as rsyncd.conf(5) says",
    disable_version_flag = true
)]
pub(super) struct Flags {
    /// Run as an rsync daemon
    #[arg(long, required = true)]
    daemon: bool,
    /// Bind to the specified address
    #[arg(long)]
    pub(super) address: Option<String>,
    /// Specify alternate rsyncd.conf file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override global daemon config parameter
    #[arg(short = 'M', long = "dparam", value_name = "OVERRIDE")]
    dparam: Vec<String>,
    /// Do not detach from the parent
    #[arg(long)]
    pub(super) no_detach: bool,
    /// Listen on alternate port number
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// Override the "log file" setting
    #[arg(long, value_name = "FILE")]
    pub(super) log_file: Option<PathBuf>,
    /// Specify custom TCP options
    #[arg(long, value_name = "OPTIONS")]
    pub(super) sockopts: Option<String>,
    /// Increase verbosity
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Prefer IPv4
    #[arg(short = '4', long)]
    pub(super) ipv4: bool,
    /// Prefer IPv6
    #[arg(short = '6', long, conflicts_with = "ipv4")]
    pub(super) ipv6: bool,
    /// Serve the client at standard input and output
    #[arg(long, hide = true)]
    pub(super) server: bool,
    /// Leave the session of the terminal, and say on standard output that all is ready
    #[arg(long, hide = true)]
    pub(super) detached: bool,
    /// The dot that a client sends
    #[arg(hide = true)]
    dot: Option<String>,
}

impl Flags {
    /// The configuration file: the system's, or a user's own where they come by a remote shell.
    pub(super) fn config_file(&self) -> PathBuf {
        let own = self.server && !rustix::process::geteuid().is_root();
        let default = if own { "rsyncd.conf" } else { "/etc/rsyncd.conf" };
        self.config.clone().unwrap_or_else(|| default.into())
    }

    /// Reads the configuration, with what the command line overrides.
    pub(super) fn config(&self, environment: &Environment) -> Result<Config, ConfigError> {
        let mut config = Config::read(&self.config_file(), &self.dparam, environment)?;
        super::check(&mut config)?;
        Ok(config)
    }

    /// The words for a process that serves one connection of ours.
    pub(super) fn for_connection(&self) -> Vec<std::ffi::OsString> {
        let mut words: Vec<std::ffi::OsString> = vec!["--server".into(), "--daemon".into()];
        let mut put = |name: &str, value: &std::ffi::OsStr| words.extend([name.into(), value.to_owned()]);
        put("--config", self.config_file().as_os_str());
        if let Some(log_file) = &self.log_file {
            put("--log-file", log_file.as_os_str());
        }
        for dparam in &self.dparam {
            put("--dparam", dparam.as_ref());
        }
        words.push(".".into());
        words
    }
}
