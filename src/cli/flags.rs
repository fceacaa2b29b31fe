//! The command line as typed.

pub(super) mod batch;
pub(super) mod bench;
pub(super) mod config;
pub(super) mod console;
pub(super) mod files;
pub(super) mod monitor;

use crate::archiver::{Compress, UPLOAD_DIR, Workers};
use crate::console::Timetable;
use crate::disk::room::FreeMark;
use crate::ocs::site::SiteFlags;
use batch::BatchArgs;
use bench::BenchArgs;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use config::{CONFIG_HELP, ConfigCommand};
use console::{AimArgs, DoorArgs, LimitArgs, StatusArgs};
use files::{FilesArgs, InitDbArgs};
use monitor::{MONITOR_HELP, MonitorCommand};
use protocol::args::parse_size;
use protocol::chmod::Chmod;
use std::ffi::OsString;
use std::path::PathBuf;

/// Archives SMuRF files to a storage node over its own SSH and the rsync protocol, and proves every copy.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, after_help = AFTER_HELP, disable_help_subcommand = true)]
#[command(args_override_self = true)]
pub(super) struct Flags {
    #[command(subcommand)]
    pub(super) command: Command,
}

// Lines of at most 80 letters stay whole on every terminal.
const AFTER_HELP: &str = "\
First check, then run, with the same flags:
  pysmurf-archiver check --target smurf-monitor --storage-host ocs@storage \\
      --data-dir /data/pysmurf --db mysql://ocs@db/files
  pysmurf-archiver run   --target smurf-monitor --storage-host ocs@storage \\
      --data-dir /data/pysmurf --db mysql://ocs@db/files

Copy what waits in a database of SupRsync to a disk here, then end:
  pysmurf-archiver run --once --archive-name smurf --data-dir /mnt/usb \\
      --db sqlite:/data/so/suprsync.db

All of that may stand in a file, of which `config example` shows every key, and
several targets in one; each option is also a variable, as ARCHIVER_DATA_DIR:
  pysmurf-archiver run --config /etc/pysmurf-archiver/config.toml

The database comes from --db, else from MYSQL_HOST, MYSQL_PORT, MYSQL_USER,
MYSQL_PASSWORD (or MYSQL_PASSWORD_FILE) and MYSQL_DATABASE. Keep the password
out of the command line: it is taken from there also beside --db.

Flags without a command mean `run`. As `pysmurf-archiver rsync`, or by a link
named rsync, this program is the rsync command, its server and daemon included:
  pysmurf-archiver rsync --help

Exit codes: 0 all is well, 1 something failed or is out of reach, 2 usage.";

const CHECK_HELP: &str = "\
Each line begins with ok, warn (files are copied all the same), FAIL, or skip
(not checked). Nothing is written anywhere. All flags of `run` are accepted.

Exit codes: 0 nothing failed, 1 something failed, 2 usage.";

const STATUS_HELP: &str = "\
A running archiver answers by its socket; all that are found are shown. Where
none runs, the table is looked at, named as for `run`: its newest rows for as
long as that takes no time, so counts may be \"at least\"; --exact counts all.

Examples:
  pysmurf-archiver status --watch
  pysmurf-archiver status --json | jq '.archives[].backlog.files'
  pysmurf-archiver status --fleet --db mysql://ocs@db/files

Exit codes: 0 all is well, 1 something is wrong or nothing runs, 2 usage.";

const STEER_HELP: &str = "\
It lasts until it is told otherwise, or ends.

Exit codes: 0 done, 1 no archiver runs or it cannot do it, 2 usage.";

const BWLIMIT_HELP: &str = "\
It lasts until it is told otherwise, or ends. A timetable of `run --bwlimit`
holds again after `bwlimit auto`.

Examples:
  pysmurf-archiver bwlimit 20M
  pysmurf-archiver bwlimit auto

Exit codes: 0 done, 1 no archiver runs or it cannot do it, 2 usage.";

const INIT_DB_HELP: &str = "\
In MySQL or MariaDB that is pysmurf_files_v1, unless an older table of files
is there; in SQLite the two tables of SupRsync, and the file itself.

Examples:
  pysmurf-archiver init-db --db sqlite:/var/lib/archiver/files.db
  MYSQL_PASSWORD_FILE=/run/secrets/db pysmurf-archiver init-db --db mysql://ocs@db/files";

const AUTHORIZE_HELP: &str = "\
With that line the key starts this program at the storage node, which receives
files for that directory and refuses everything else: a shell, another path,
SFTP, sending files back.

Example, as the user who runs the archiver:
  pysmurf-archiver authorize --ssh-key ~/.ssh/id_ed25519 --data-dir /data/pysmurf \\
      --program /usr/local/bin/pysmurf-archiver | ssh ocs@storage 'cat >> .ssh/authorized_keys'";

const RDIFF_HELP: &str = "\
A file named - is standard input or output. Files of any length pass through in
a stream; only a signature is held in memory.

Example, with the old file here and the new one there:
  pysmurf-archiver rdiff signature old sums
  pysmurf-archiver rdiff delta sums new changes
  pysmurf-archiver rdiff patch old changes new

Exit codes: 0 done, 1 a file cannot be read or written, 2 a corrupt file or usage.";

const RELAY_HELP: &str = "\
The same as `run --node NAME` of a storage node whose [[node]] has a line
from = \"OTHER\". With one such node in the configuration file --node may be left
out.

Example, at storage-a:
  pysmurf-archiver relay --config /etc/pysmurf-archiver/config.toml --node datacentre";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Watch the table and copy every waiting file
    Run(RunArgs),
    /// Copy to a storage node what another one has proven, from that one's archive: started where that is a folder
    #[command(after_help = RELAY_HELP)]
    Relay(RunArgs),
    /// Say what is in order, from the database to the storage node's disk, and what to do where it is not
    #[command(after_help = CHECK_HELP)]
    #[command(mut_arg("json", |arg| arg.help("Print an array of {\"item\", \"status\", \"detail\"} on standard output")))]
    #[command(mut_arg("once", hidden), mut_arg("poll", hidden), mut_arg("queue", hidden))]
    #[command(mut_arg("queue_mib", hidden), mut_arg("workers", hidden))]
    #[command(
        mut_arg("bwlimit", hidden),
        mut_arg("split_size", hidden),
        mut_arg("compress", hidden),
        mut_arg("chmod", hidden),
        mut_arg("existing", hidden),
        mut_arg("batch_deadline", hidden),
        mut_arg("manifest", hidden),
        mut_arg("delete_local_after", hidden),
        mut_arg("delete_when_below", hidden),
        mut_arg("delete_dry_run", hidden),
        mut_arg("suprsync_file_root", hidden),
        mut_arg("control", hidden),
        mut_arg("listen", hidden),
        mut_arg("listen_token_file", hidden),
        mut_arg("state_dir", hidden)
    )]
    Check(RunArgs),
    /// Say how archiving stands: what waits, how fast it goes, what is wrong and what to do about it
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Have a running archiver take up no further files; what is under way is finished
    #[command(after_help = STEER_HELP)]
    Pause(AimArgs),
    /// Have a running archiver go on after a pause
    #[command(after_help = STEER_HELP)]
    Resume(AimArgs),
    /// Tell or change the limit of a running archiver, files under way included
    #[command(after_help = BWLIMIT_HELP)]
    Bwlimit(LimitArgs),
    /// What the configuration file, the variables and the command line say together
    #[command(after_help = CONFIG_HELP)]
    Config(ConfigCommand),
    /// Register the files that publishers of pysmurf announce by UDP
    #[command(after_help = MONITOR_HELP)]
    Monitor(Box<MonitorCommand>),
    /// Create the table of files where it is absent; never alter one that is there
    #[command(after_help = INIT_DB_HELP)]
    InitDb(InitDbArgs),
    /// Ask the table about files, register files, and change what is to become of them
    Files(FilesArgs),
    /// Hand over files and directories that are copied all together or not at all, and ask how they stand
    Batch(BatchArgs),
    /// Give rows that were given up a new chance: sets their count of failed attempts to 0
    Retry(RetryArgs),
    /// Signatures and deltas of files, exchangeable with librsync's rdiff
    #[command(after_help = RDIFF_HELP)]
    Rdiff(crate::rdiff::RdiffWords),
    /// Measure this machine, or the link to a host, beside stock rsync and OpenSSH
    Bench(BenchArgs),
    /// Print the line for the storage node's authorized_keys that lets a key archive, and do nothing else
    #[command(after_help = AUTHORIZE_HELP)]
    Authorize(AuthorizeArgs),
    /// Say which version this is, and which libraries and walls of the kernel it works with
    Version(VersionArgs),
    /// Print the manual page of a verb, or completions for a shell
    #[command(hide = true)]
    Generate(GenerateArgs),
    /// What that line starts
    #[command(hide = true)]
    Confined(ConfinedArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct VersionArgs {
    /// Print a JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct GenerateArgs {
    /// What to print; `man` writes a page for each verb into a directory
    pub(super) what: GeneratedText,
    /// Directory for the manual pages
    #[arg(required_if_eq("what", "man"))]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GeneratedText {
    Man,
    Bash,
    Zsh,
    Fish,
}

/// Where archivers stand that say nothing of it.
pub(super) const SITE: &str = "main";

/// A site's name, as the table of links has it.
pub(super) fn link_site(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match text {
        "" => Err("expected a name".into()),
        text if text.len() <= 32 && text.bytes().all(fits) => Ok(text.to_owned()),
        _ => Err("expected up to 32 letters, digits, dots, dashes and underscores".into()),
    }
}

/// The name of this very program, where a program is to be named.
pub(super) const SELF: &str = "self";

#[derive(Debug, clap::Args)]
pub(super) struct AuthorizeArgs {
    /// The archiver's key: the public half, or the private one with KEY.pub beside it
    #[arg(long, value_name = "KEY")]
    pub(super) ssh_key: PathBuf,
    /// The archive's directory at the storage node, as `run` has it
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: String,
    /// This program at the storage node
    #[arg(long, value_name = "PATH", default_value = "pysmurf-archiver")]
    pub(super) program: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ConfinedArgs {
    /// The archive's directory
    pub(super) data_dir: String,
}

/// An agent's arguments for another verb, which may be one of another's: what only `run` takes is left out, so that each
/// finds its own in a site file.
pub(super) fn without_those_of_run(words: &[OsString], verbs: &[&str]) -> Vec<OsString> {
    let command = Flags::command();
    let takes = |verbs: &[&str], word: &str| {
        let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
        let verb = verbs.iter().try_fold(&command, |command, verb| command.find_subcommand(verb));
        verb.into_iter().flat_map(clap::Command::get_arguments).any(|argument| {
            argument.get_long() == Some(name)
                || argument.get_all_aliases().into_iter().flatten().any(|alias| alias == name)
        })
    };
    let mut keep = true;
    let kept = words.iter().filter(|word| {
        if let Some(option) = word.to_str().filter(|word| word.starts_with("--") && word.len() > 2) {
            keep = takes(verbs, option) || !takes(&["run"], option);
        }
        keep
    });
    kept.cloned().collect()
}

/// Of no use to the command, and accepted so that flags need not be sorted.
fn hidden(arg: clap::Arg) -> clap::Arg {
    arg.hide(true)
}

/// Where the table is.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Database")]
pub(super) struct DatabaseArgs {
    /// mysql://USER@HOST:PORT/DATABASE or sqlite:PATH; by default what the MYSQL_* variables say, else the file
    /// `pysmurf-archiver.db` in the current directory. HOST1,HOST2 names nodes of one Galera cluster, of which the first that
    /// serves is used
    #[arg(long, value_name = "URL")]
    pub(super) db: Option<String>,

    #[command(flatten)]
    #[allow(dead_code, reason = "read before the command line is parsed")]
    pub(super) config: ConfigArgs,
}

/// Where else options come from.
#[derive(Debug, Clone, PartialEq, Args)]
pub(super) struct ConfigArgs {
    /// Configuration file, whose keys are these options without their dashes; by default the variable ARCHIVER_CONFIG, or
    /// /etc/pysmurf-archiver/config.toml where that is; `none` for none. Variables win over it, and options typed here over both
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub(super) config: Option<PathBuf>,

    /// Only this target of the file; may be repeated
    #[arg(long, value_name = "NAME", help_heading = "Configuration")]
    pub(super) only: Vec<String>,
}

/// Which rows of which table.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Database")]
pub(super) struct TableArgs {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,

    /// MySQL: instance ids of the monitors whose files are copied
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub(super) target: Vec<String>,

    /// SQLite: the archive of SupRsync whose files are copied
    #[arg(long, value_name = "NAME")]
    pub(super) archive_name: Option<String>,

    /// MySQL: the table, by default the newest of pysmurf_files_v1, pysmurf_files_v0, pysmurf_files
    #[arg(long, value_name = "NAME")]
    pub(super) table: Option<String>,

    /// MySQL: how archived files are named; by default `action` where the table has that column, else `type`
    #[arg(long, value_enum)]
    pub(super) layout: Option<LayoutArg>,

    /// Leave rows alone that have failed this many times
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_copy_attempts: u32,

    #[command(flatten)]
    #[allow(dead_code, reason = "taken out of the command line before it is parsed")]
    pub(super) site: SiteFlags,
}

/// What `retry` needs.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct RetryArgs {
    #[command(flatten)]
    pub(super) table: TableArgs,

    /// All rows that were given up
    #[arg(long, group = "which")]
    pub(super) all: bool,

    /// Rows with these ids
    #[arg(long, value_name = "ID", num_args = 1.., group = "which")]
    pub(super) id: Vec<i64>,

    /// Rows whose source path is like this; * stands for anything, ? for one character
    #[arg(long, value_name = "PATTERN", group = "which")]
    pub(super) path: Option<String>,
}

/// What `run` and `check` share.
#[derive(Debug, Clone, PartialEq, Args)]
pub(super) struct ServiceArgs {
    /// Base directory of the archive: at the storage node with --storage-host, else on this machine. With --batches / unless
    /// it is given: batches go nowhere else
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: String,

    /// Copy the batches that are handed over in this folder, and no table; it is made where it is absent
    #[arg(long, value_name = "SPOOL", conflicts_with_all = ["db", "target", "archive_name", "host"])]
    pub(super) batches: Option<PathBuf>,

    /// With --batches: what batches call this far end; by default what --storage-host says. Those of other links are left
    #[arg(long, value_name = "NAME")]
    pub(super) link: Option<String>,

    /// Storage node to push to by SSH; without it and --host files are copied on this machine
    #[arg(long, value_name = "[USER@]HOST[:PORT]")]
    pub(super) storage_host: Option<String>,

    /// Smurf-server to pull from by SSH: the table's paths are on it, and --data-dir on this machine
    #[arg(long, value_name = "[USER@]HOST[:PORT]", conflicts_with = "storage_host")]
    pub(super) host: Option<String>,

    /// Folder beneath which the table's files must lie; may be repeated. Rows that name others are refused, and nothing of
    /// those is read, copied or deleted. Without it whoever writes to the table can have any file that we can read
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub(super) source_root: Vec<PathBuf>,

    /// Longest wait for a file system that files come from to answer; what is on it waits until it does, and the rest goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..86_400))]
    pub(super) source_timeout: u64,

    /// SSH user; else the one in --storage-host or --host, the configuration file's, or our own
    #[arg(long, value_name = "NAME")]
    pub(super) user: Option<String>,

    /// Where this archiver stands. Those of one site share what may go over the link to a storage node: see init-db --link-node
    #[arg(long, value_name = "NAME", default_value = SITE, value_parser = link_site, help_heading = "Storage nodes")]
    pub(super) link_site: String,

    /// Accepted for the old agent's command lines, and without effect
    #[arg(long, value_enum, hide = true)]
    pub(super) mode: Option<OldMode>,

    #[command(flatten)]
    pub(super) nodes: NodeArgs,

    #[command(flatten)]
    pub(super) table: TableArgs,

    #[command(flatten)]
    pub(super) ssh: SshArgs,

    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// Several storage nodes.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Storage nodes")]
pub(super) struct NodeArgs {
    /// Where copies go to several storage nodes: the name of this one. A [[node]] of the configuration file says it by itself,
    /// and one process works for all of them; typed, only this one of them is meant
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,

    /// All of their names, the one first whose paths are to stand in the table; the [[node]]s say it by themselves
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(super) nodes: Vec<String>,

    /// A row is done once this many nodes have proven their copies; by default all. The others get theirs as well
    #[arg(long, value_name = "N", conflicts_with = "share")]
    pub(super) copies: Option<usize>,

    /// Folder on this machine through which what one node lacks comes from another one, where the files are here no more: up
    /// to 64 of them at a time. Without it such copies stay owed
    #[arg(long, value_name = "DIR", requires = "node")]
    pub(super) fill_dir: Option<PathBuf>,

    /// Each row goes to one of the nodes, by the name of its file, and not to all
    #[arg(long)]
    pub(super) share: bool,

    /// Further nodes, each fed from another one's copies, and behind a colon from which; the [[node]]s say it by `from`
    #[arg(long, value_name = "NAME:FROM", num_args = 1..)]
    pub(super) relays: Vec<String>,

    /// Of such a node: where this machine has the archive of the one that feeds it; by default where that one says it is
    #[arg(long, value_name = "DIR", requires = "node")]
    pub(super) from_dir: Option<PathBuf>,

    /// Of such a node: the data-dir of the one that feeds it; the [[node]]s say it by themselves
    #[arg(long, value_name = "DIR", requires = "node")]
    pub(super) from_data_dir: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "SSH")]
pub(super) struct SshArgs {
    /// Private key; may be repeated. By default the agent's keys and those in ~/.ssh
    #[arg(long, value_name = "FILE")]
    pub(super) ssh_key: Vec<PathBuf>,

    /// Port; by default the one behind the host, the configuration file's, or 22
    #[arg(long, value_name = "N")]
    pub(super) ssh_port: Option<u16>,

    /// Configuration file; by default ~/.ssh/config
    #[arg(long, value_name = "FILE")]
    pub(super) ssh_config: Option<PathBuf>,

    /// Known host keys; by default ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts. A host that is not in them is refused
    #[arg(long, value_name = "FILE")]
    pub(super) known_hosts: Option<PathBuf>,

    /// Program at the far end that serves files: rsync, or this program
    #[arg(long, value_name = "PROGRAM", default_value = "rsync")]
    pub(super) rsync_path: String,

    /// Upload this program to a storage node that has no rsync, and have it serve there: a static build (`make static`);
    /// without FILE, or as `self`, this very program, if it is one. Without the option, files go there by SFTP
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = SELF)]
    pub(super) bootstrap: Option<PathBuf>,

    /// Where it is put there; relative to where a login begins
    #[arg(long, value_name = "DIR", default_value = UPLOAD_DIR)]
    pub(super) bootstrap_dir: PathBuf,

    /// Remove it there at the end
    #[arg(long)]
    pub(super) bootstrap_remove: bool,

    /// Limit for connecting, and for logging in
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..86_400))]
    pub(super) connect_timeout: u64,

    /// A connection that brings nothing on for so long counts as lost; keep-alives and words bring nothing on
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..86_400))]
    pub(super) stall_timeout: u64,
}

#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct LogArgs {
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    pub(super) log_format: LogFormat,

    /// Say more; repeat for more still
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,

    /// Say only what went wrong; with run these are rows given up, and with --once all files that are not copied
    #[arg(long, short, conflicts_with = "verbose")]
    pub(super) quiet: bool,
}

#[derive(Debug, Clone, PartialEq, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) service: ServiceArgs,

    /// Try each row that waits once, then end
    #[arg(long, help_heading = "Work")]
    pub(super) once: bool,

    /// Pause between looks at the table; new rows are asked for all the time
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds, help_heading = "Work")]
    pub(super) poll: f64,

    /// Files in flight at most
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Work")]
    pub(super) queue: u32,

    /// Size of the files in flight at most, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Work")]
    pub(super) queue_mib: u32,

    /// Limit for all sessions together, in KiB per second, or with a suffix as rsync has it; 0 for none. Also by the time of
    /// day: "08:00-18:00 20M, 22:00-06:00 5M, 100M", where the last one is for all other times
    #[arg(long, value_name = "RATE", value_parser = Timetable::parse, help_heading = "Work")]
    pub(super) bwlimit: Option<Timetable>,

    /// Compress what goes over the link
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, help_heading = "Work")]
    pub(super) compress: Compress,

    /// Change the permissions of copies and of their directories, in chmod's words; an empty one for none
    #[arg(long, value_name = "CHMOD", value_parser = chmod, help_heading = "Work")]
    pub(super) chmod: Option<Chmod>,

    /// What becomes of the copy of a file that is registered anew with other bytes; other files' copies always stay. By default
    /// replace with SQLite and number with MySQL, as with the agents of old
    #[arg(long, value_name = "WHAT", value_enum, help_heading = "Work")]
    pub(super) existing: Option<ExistingArg>,

    /// With --batches: a batch that is older than this has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(1..=31_536_000), help_heading = "Work")]
    pub(super) batch_deadline: u64,

    /// List each proven copy in FILE, for `b3sum --check` in --data-dir, and with its size in FILE.sizes
    #[arg(long, value_name = "FILE", help_heading = "Work")]
    pub(super) manifest: Option<PathBuf>,

    /// SQLite: delete local files so long after their copy was proven, if they still are what was proven
    #[arg(long, value_name = "SECONDS", value_parser = age, help_heading = "SupRsync", conflicts_with = "host")]
    pub(super) delete_local_after: Option<f64>,

    /// SQLite: where less than this is free on a file system that files come from, such as 10% or 200G, delete the oldest
    /// proven local files there, until a tenth more than that is free
    #[arg(long, value_name = "PERCENT|BYTES", value_parser = FreeMark::parse, help_heading = "SupRsync", conflicts_with = "host")]
    pub(super) delete_when_below: Option<FreeMark>,

    /// SQLite: say which local files would be deleted, and delete none
    #[arg(long, help_heading = "SupRsync")]
    pub(super) delete_dry_run: bool,

    /// SQLite: write a file below this directory for each complete timecode directory, and copy it to the archive
    #[arg(long, value_name = "DIR", help_heading = "SupRsync", conflicts_with = "host")]
    pub(super) suprsync_file_root: Option<PathBuf>,

    /// SSH sessions, one thread each; auto for as many as make it faster, up to 16
    #[arg(long, value_name = "N", default_value = "auto", help_heading = "Work")]
    pub(super) workers: Workers,

    /// With several workers: over a long link, files of this size and more are moved by as many as it takes to fill the
    /// line; 0 for never
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = split_size, help_heading = "Work")]
    pub(super) split_size: u64,

    #[command(flatten)]
    pub(super) doors: DoorArgs,

    /// With --once: print a summary as one JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OldMode {
    Idle,
    Init,
    Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LayoutArg {
    /// <5 ctime digits>/<pub_id>/<action_timestamp>_<action>/<plots|outputs>/<file>
    Action,
    /// <5 ctime digits>/<type>/<file>
    Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ExistingArg {
    /// The new copy takes its place
    Replace,
    /// It stays, and the new copy becomes NAME.1
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// The same as text
    Auto,
    Text,
    Json,
}

fn split_size(text: &str) -> Result<u64, String> {
    parse_size(text.as_bytes(), b'b').ok_or_else(|| "expected a number of bytes such as 64M, or 0".into())
}

fn chmod(text: &str) -> Result<Chmod, String> {
    match text {
        "" => Ok(Chmod::default()),
        text => Chmod::parse(text.as_bytes()).ok_or_else(|| "expected changes such as g+rwX,o+rX or D2775,F664".into()),
    }
}

fn age(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e10).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds".into()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, from 0.05 to 86400".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn each_verb_takes_its_own_from_a_site_file() {
        let line = "--archive-name smurf --data-dir=/a --ssh-key k --once --max-copy-attempts 3 --all --unknown x --db=sqlite:d";
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let kept = without_those_of_run(&words, &["retry"]).join(std::ffi::OsStr::new(" "));
        assert_eq!(kept, "--archive-name smurf --max-copy-attempts 3 --all --unknown x --db=sqlite:d");
        let line = "a.npy --json --archive-name smurf --data-dir /a --db=sqlite:d";
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let kept = without_those_of_run(&words, &["files", "show"]).join(std::ffi::OsStr::new(" "));
        assert_eq!(kept, "a.npy --json --archive-name smurf --db=sqlite:d");
    }

    #[test]
    fn the_old_agents_flags_are_accepted() {
        let line = "a run --data-dir /data/pysmurf --user cryo --mode run --target m1 m2 --storage-host data@node";
        let Command::Run(args) = Flags::try_parse_from(line.split(' ')).unwrap().command else { panic!("not run") };
        assert_eq!(args.service.table.target, ["m1", "m2"]);
        assert_eq!((args.service.mode, args.service.user.as_deref()), (Some(OldMode::Run), Some("cryo")));
    }
}
