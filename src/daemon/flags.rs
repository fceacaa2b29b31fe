//! The daemon's own command line.

use super::config::{Config, ConfigError, DaemonVariables};
use clap::Parser;
use protocol::args::ServerArgs;
use std::path::PathBuf;

/// `rsync --daemon`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "rsync --daemon",
    about = "Serves modules to rsync clients, as rsyncd.conf(5) says",
    disable_version_flag = true,
    args_override_self = true
)]
pub(super) struct DaemonFlags {
    /// Run as an rsync daemon
    #[arg(long, required = true)]
    daemon: bool,
    /// Bind to the specified address
    #[arg(long)]
    pub(super) address: Option<String>,
    /// Limit what each connection sends and receives, in KiB per second or with a unit
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(super) bwlimit: Option<u64>,
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
    /// Override the "log format" setting, and log transfers unless it is empty
    #[arg(long, value_name = "FORMAT", visible_alias = "log-format")]
    pub(super) log_file_format: Option<String>,
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
    #[arg(short = '6', long, overrides_with = "ipv4")]
    pub(super) ipv6: bool,
    /// Serve the client at standard input and output
    #[arg(long, hide = true)]
    pub(super) server: bool,
    /// Leave the session of the terminal, and say on standard output that all is ready
    #[arg(long, hide = true)]
    pub(super) detached: bool,
    /// Standard output is no client's, but tells the listener by its end that the session begins
    #[arg(long, hide = true)]
    pub(super) announced: bool,
    /// The dot that a client sends
    #[arg(hide = true)]
    dot: Option<String>,
}

/// A limit of bytes per second, as `--bwlimit` writes it; 0 is none.
fn rate(text: &str) -> Result<u64, String> {
    let options = ServerArgs::parse(&["--server", &format!("--bwlimit={text}"), ".", "."]);
    options.map(|args| args.options.bwlimit.unwrap_or(0)).map_err(|_| "expected a rate such as 500, 1.5m or 0".into())
}

impl DaemonFlags {
    /// Reads the command line, `rsync` first. What it names is where it was started, wherever the daemon goes.
    pub(super) fn of(words: impl Iterator<Item = std::ffi::OsString>) -> Result<Self, clap::Error> {
        let mut flags = Self::try_parse_from(words)?;
        let paths = [&mut flags.config, &mut flags.log_file].into_iter().flatten();
        for path in paths.filter(|path| !path.as_os_str().is_empty()) {
            *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
        }
        Ok(flags)
    }

    /// The configuration file: the system's, or a user's own where they come by a remote shell.
    pub(super) fn config_file(&self) -> PathBuf {
        let own = self.server && !rustix::process::geteuid().is_root();
        let default = if own { "rsyncd.conf" } else { "/etc/rsyncd.conf" };
        self.config.clone().unwrap_or_else(|| default.into())
    }

    /// Reads the configuration, with what the command line overrides.
    pub(super) fn config(&self, environment: &DaemonVariables) -> Result<Config, ConfigError> {
        let mut config = Config::read(&self.config_file(), &self.dparam, environment)?;
        if let Some(format) = &self.log_file_format {
            let modules = config.modules.iter_mut().map(|module| &mut module.settings);
            for settings in modules.chain([&mut config.globals]) {
                settings.transfer_logging = !format.is_empty();
                settings.log_format = Some(format.clone());
            }
        }
        super::check(&mut config)?;
        Ok(config)
    }

    /// The words for a process that serves one connection of ours.
    pub(super) fn for_connection(&self) -> Vec<std::ffi::OsString> {
        let mut words: Vec<std::ffi::OsString> = vec!["--server".into(), "--daemon".into(), "--announced".into()];
        let mut put = |name: &str, value: &std::ffi::OsStr| words.extend([name.into(), value.to_owned()]);
        put("--config", self.config_file().as_os_str());
        if let Some(log_file) = &self.log_file {
            put("--log-file", log_file.as_os_str());
        }
        if let Some(format) = &self.log_file_format {
            put("--log-file-format", format.as_ref());
        }
        if let Some(rate) = self.bwlimit {
            put("--bwlimit", format!("{rate}b").as_ref());
        }
        for dparam in &self.dparam {
            put("--dparam", dparam.as_ref());
        }
        words.push(".".into());
        words
    }
}
