//! The command line of `monitor` as typed.

use super::{ConfigArgs, DatabaseArgs, LogArgs};
use crate::ocs::site::SiteFlags;
use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;

pub(in crate::cli) const MONITOR_HELP: &str = "\
Takes the place of the PysmurfMonitor agent: each file that a publisher of pysmurf
or a smurf-streamer announces becomes a row, in SupRsync's SQLite database or in
a pysmurf table of MySQL. A message is on disk, in the spool, before anything
else is done for it; what is in the spool is registered after the next start.

Examples:
  pysmurf-archiver monitor --db sqlite:/data/so/databases/suprsync.db
  pysmurf-archiver monitor --db mysql://ocs@db/files --register-as observatory.pysmurf-monitor
  pysmurf-archiver monitor --db sqlite:/var/lib/archiver/files.db --watch /data/camera
  pysmurf-archiver monitor rejects

Exit codes: 0 ended by a signal, 1 something failed, 2 usage.";

const REJECTS_HELP: &str = "\
What was announced and could not be registered, and why; and what waits for its
file. A monitor at work takes up an order to --retry within a second, another one
when it starts.

Exit codes: 0 nothing was rejected, or the order is given; 1 something was; 2 usage.";

#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct MonitorCommand {
    #[command(subcommand)]
    pub(in crate::cli) verb: Option<MonitorVerb>,

    #[command(flatten)]
    pub(in crate::cli) args: MonitorArgs,
}

#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum MonitorVerb {
    /// List what could not be registered and why, or have it tried again
    #[command(after_help = REJECTS_HELP)]
    Rejects(RejectsArgs),
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SpoolArgs {
    /// Folder of the spool, for this monitor alone. By default `monitor` in $STATE_DIRECTORY, or in pysmurf-archiver in
    /// $XDG_STATE_HOME or ~/.local/state; of an agent with a file of SQLite, that file's name with .spool behind it
    #[arg(long, value_name = "DIR", help_heading = "Monitor")]
    pub(in crate::cli) spool: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct MonitorArgs {
    #[command(flatten)]
    pub(in crate::cli) database: DatabaseArgs,

    /// SQLite: the database file, as the PysmurfMonitor agent has it; the same as --db sqlite:PATH
    #[arg(long, value_name = "PATH", conflicts_with = "db", help_heading = "Monitor")]
    pub(in crate::cli) db_path: Option<PathBuf>,

    /// MySQL: the table, by default the newest of pysmurf_files_v1, pysmurf_files_v0, pysmurf_files
    #[arg(long, value_name = "NAME", help_heading = "Monitor")]
    pub(in crate::cli) table: Option<String>,

    /// MySQL: whose rows they are, in columns site and instance_id; by default an agent's own address
    #[arg(long, value_name = "SITE.INSTANCE", help_heading = "Monitor")]
    pub(in crate::cli) register_as: Option<String>,

    /// Port at which publishers send: 8200, or with --watch none
    #[arg(long, value_name = "PORT", help_heading = "Monitor")]
    pub(in crate::cli) udp_port: Option<u16>,

    /// Address to listen at: all of this machine's. 127.0.0.1 where all publishers are on it
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0", help_heading = "Monitor")]
    pub(in crate::cli) udp_bind: IpAddr,

    /// Listen to publishers of this network alone, such as 10.0.1.0/24 or 127.0.0.1/32; may be repeated. Without it whoever
    /// reaches the port can have any file registered
    #[arg(long, value_name = "CIDR", help_heading = "Monitor")]
    pub(in crate::cli) udp_allow: Vec<IpNet>,

    #[command(flatten)]
    pub(in crate::cli) watch: WatchArgs,

    #[command(flatten)]
    pub(in crate::cli) spool: SpoolArgs,

    /// Size of the spool at most, in MiB; some 2000 announcements each
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=1_000_000), help_heading = "Monitor")]
    pub(in crate::cli) spool_mib: u32,

    /// Memory for messages while the spool takes none, in MiB; those beyond are lost, and counted
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Monitor")]
    pub(in crate::cli) memory_mib: u32,

    /// How long a file is waited for that is not there, cannot be read, or is still written to; then its announcement is
    /// rejected
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = patience, help_heading = "Monitor")]
    pub(in crate::cli) patience: f64,

    /// Accepted for the PysmurfMonitor agent's command lines, and without effect
    #[arg(long, num_args = 0..=1, default_missing_value = "true", hide = true)]
    pub(in crate::cli) create_table: Option<String>,

    /// Reject announcements whose id, action or path would lead elsewhere, by .. or a slash
    #[arg(long, help_heading = "Monitor")]
    pub(in crate::cli) plain_names: bool,

    /// As an agent: the process `run` is not started by itself
    #[arg(long, help_heading = "Monitor")]
    pub(in crate::cli) test_mode: bool,

    #[command(flatten)]
    #[allow(dead_code, reason = "taken out of the command line before it is parsed")]
    pub(in crate::cli) site: SiteFlags,

    /// Accepted likewise
    #[arg(long, hide = true)]
    pub(in crate::cli) echo_sql: bool,

    #[command(flatten)]
    pub(in crate::cli) log: LogArgs,
}

/// When a file of a watched folder is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FinishArg {
    /// Once who wrote to it has closed it, or it was moved to its name
    Closed,
    /// Once size and time have not changed for --watch-settle
    Settled,
    /// Once its marker is there
    Marker,
}

/// Folders whose files are registered, without anybody announcing them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Watched folders")]
pub(in crate::cli) struct WatchArgs {
    /// Register the files that come into this folder and all below it; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) watch: Vec<PathBuf>,

    /// When a file is finished
    #[arg(long, value_enum, default_value_t = FinishArg::Closed)]
    pub(in crate::cli) watch_finished: FinishArg,

    /// How long a file may not have changed; also of those that were there before anybody watched
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = settle)]
    pub(in crate::cli) watch_settle: f64,

    /// How a file's marker is named, {} for the file's name
    #[arg(long, value_name = "PATTERN", default_value = "{}.done")]
    pub(in crate::cli) watch_marker: String,

    /// Pass over files and folders of such a name; may be repeated. Names that begin with a dot are always
    #[arg(long, value_name = "PATTERN")]
    pub(in crate::cli) watch_skip: Vec<String>,

    /// SQLite: the archive that the files belong to, by default named as the folder
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) watch_archive: Option<String>,

    /// MySQL: whose files they are (column pub_id), by default named as the folder
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) watch_id: Option<String>,

    /// MySQL: what they are (column action, or type)
    #[arg(long, value_name = "TEXT", default_value = "watched")]
    pub(in crate::cli) watch_type: String,

    /// SQLite: the files may be deleted once they are copied
    #[arg(long)]
    pub(in crate::cli) watch_deletable: bool,

    /// How often all is looked at, beside what the kernel tells; on a network file system it tells nothing of others' files
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = settle)]
    pub(in crate::cli) watch_rescan: f64,

    /// Folders that are watched at most, those below included
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) watch_folders: u32,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct RejectsArgs {
    #[command(flatten)]
    pub(in crate::cli) spool: SpoolArgs,

    /// Have all of them tried again
    #[arg(long)]
    pub(in crate::cli) retry: bool,

    /// Print an object on each line, with the datagram
    #[arg(long)]
    pub(in crate::cli) json: bool,

    #[command(flatten)]
    #[allow(dead_code, reason = "read before the command line is parsed")]
    pub(in crate::cli) config: ConfigArgs,
}

fn patience(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e7).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds".into()),
    }
}

fn settle(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=1e7).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, 0.1 at least".into()),
    }
}
