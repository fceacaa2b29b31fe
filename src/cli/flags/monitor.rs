//! The command line of `monitor` as typed.

use super::{ConfigArgs, DatabaseArgs, LogArgs};
use crate::ocs::site::SiteFlags;
use clap::{Args, Subcommand};
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

    /// Port at which publishers send
    #[arg(long, value_name = "PORT", default_value_t = 8200, help_heading = "Monitor")]
    pub(in crate::cli) udp_port: u16,

    /// Address to listen at: all of this machine's. 127.0.0.1 where all publishers are on it
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0", help_heading = "Monitor")]
    pub(in crate::cli) udp_bind: IpAddr,

    /// Listen to publishers of this network alone, such as 10.0.1.0/24 or 127.0.0.1/32; may be repeated. Without it whoever
    /// reaches the port can have any file registered
    #[arg(long, value_name = "CIDR", help_heading = "Monitor")]
    pub(in crate::cli) udp_allow: Vec<IpNet>,

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
