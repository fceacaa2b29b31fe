//! What `bench` takes.

use crate::bench::rivals::{OtherTool, RACES};
use crate::bench::transfer::{GROUPS, SCENARIOS};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use protocol::args::parse_size;
use std::ffi::OsString;
use std::path::PathBuf;

const BENCH_HELP: &str = "\
Is this machine fast?     pysmurf-archiver bench delta
And the link to a host?   pysmurf-archiver bench ssh storage
                          pysmurf-archiver bench transfer storage --size 64M
Both ends on this machine (needs sshd, rsync):
                          pysmurf-archiver bench transfer
What would a long link do?
                          pysmurf-archiver bench link --listen 127.0.0.1:2222 \\
                              --to storage:22 --rtt 100 --rate 125M

Times on a busy machine mean little; ratios of one run mean more, as both sides
take turns. Each number is the median of --rounds. Hosts are reached as `ssh`
reaches them, by ~/.ssh/config.

With --json: one array of {\"id\", \"receiver\", \"ours\", \"theirs\", \"unit\",
\"ratio\", \"cpu_ratio\", \"peak_rss_bytes\"}. `ratio` is how many times better
than the other we are, or our own number for the cores; `cpu_ratio` our CPU
seconds on this side over the other's; what is not known is null.

Exit codes: 0 measured, 1 something failed, 2 usage.";

const TRANSFER_HELP: &str = "\
Scenarios, by name or group:
  new          new-default (ssh's own cipher), new-gcm (aes128-gcm): one new file
  small        10,000 new files of 4 KiB
  trickle      trickle-agent, trickle-suprsync: the archiver on files of 200 KiB,
               proven and recorded, against one rsync per file, and against rsync
               in batches with md5sum behind them
  identical, changed, inserted, appended, unrelated
               one file over an old copy that has another time, 1 % other bytes,
               lacks 1 KiB, lacks the last eleventh, has nothing in common
  wan          64 files of 25 MB at 100 ms and 1 Gbit/s (private sshd only)
  wan-one      one file of --size there
  wan-lossy    the same with 0.1 % of packets lost
  wan-small    5,000 files of 4 KiB there
  wan-push, wan-pull
               one file of --size there by the rsync command with --parallel=auto,
               to the far end and from it

Without HOST a private sshd is started for the run, with an empty home. With
HOST a folder is made below /tmp there, and removed at the end.

Examples:
  pysmurf-archiver bench transfer --quick
  pysmurf-archiver bench transfer --scenario unrelated,small --receiver both
  pysmurf-archiver bench transfer ocs@storage --size 64M --scenario new --json
  pysmurf-archiver bench transfer --svg throughput.svg --scenario new";

const RIVALS_HELP: &str = "\
Races, at a private sshd on this machine:
  new          one new file of --size (512M)
  small        10,000 new files of 4 KiB
  wan-one      one file of --size at 100 ms and 1 Gbit/s, 4 MiB under way of
               each connection at most, as Linux has it
  wan          64 files of 25 MB there

All take turns, --rounds times; each number is a median. A round in which other
work took more than a fifth of the machine is thrown away and repeated, up to
three times as many as asked for; then the least disturbed count, and it is
said. What is not installed is said and left out. Every tool's command line is
shown. With --json each tool in each race with all its rounds; `others` is the
share of the machine that other work took.

Examples:
  pysmurf-archiver bench rivals --quick
  pysmurf-archiver bench rivals --race new,small --json
  pysmurf-archiver bench rivals --race wan-one \\
      --tool 'sftp=echo put {source} {target}/ | sftp -q -b - -F {config} {host}'";

const FLEET_HELP: &str = "\
Nothing is copied: clock, table and links are simulated, what shares the rows is
the code that does so in a fleet (init-db --fleet). A server writes 0.8 MB/s and
2.5 rows a second. All share one link of 10 Gbit/s at 100 ms, over which an
archiver brings 16 sessions of 2 MiB under way, 336 MB/s, and 1,500 rows/s.

Of the day: the link at a tenth from 2 to 3 h, the node away from 6 to 8, one
archiver's machine down from 10 to 11, the database still for 10 min at 12, all
archivers replaced at 14, ten times as much written from 16 to 17, and one
archiver killed every two hours.

  waiting GB    what waited at most
  half, 99 %    seconds within which so many rows were copied; last: all, hours
  worst server  its mean wait, over that of all
  behind h      hours from the burst's end until less waited than comes in a minute
  SQL/s (most)  statements of the archivers, on average and in the worst 5 s

Examples:
  pysmurf-archiver bench fleet
  pysmurf-archiver bench fleet --servers 400 --movers 2,3,4 --svg day.svg";

/// What `bench` takes.
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub(in crate::cli) struct BenchArgs {
    #[command(subcommand)]
    pub(in crate::cli) what: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BenchCommand {
    /// The cores in memory: sums and search, beside fast_rsync and stock's sender
    Delta {
        #[command(flatten)]
        common: Common,
    },
    /// Connecting, logging in, and each cipher, beside OpenSSH's client
    Ssh {
        /// As `ssh` takes it; without one a private sshd on this machine
        #[arg(value_name = "[USER@]HOST")]
        host: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Whole transfers, beside stock rsync and scp
    #[command(after_help = TRANSFER_HELP)]
    Transfer(TransferArgs),
    /// Ourselves among other tools that are installed here: rsync, scp, tar through ssh, rclone, mscp, and any you name
    #[command(after_help = RIVALS_HELP)]
    Rivals(RivalsArgs),
    /// Simulate a day of a whole observatory with its troubles: how many archivers it takes, and what waits meanwhile
    #[command(after_help = FLEET_HELP)]
    Fleet(FleetArgs),
    /// Relay TCP as a long link would: a round-trip time, a bandwidth, losses; until it is interrupted
    Link {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
        listen: String,
        /// What to relay to
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        /// Round-trip time, milliseconds
        #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=60_000))]
        rtt: u64,
        /// Bytes per second in each direction, such as 125M; 0 for no limit
        #[arg(long, value_name = "RATE", default_value = "0", value_parser = size)]
        rate: u64,
        /// Packets lost, percent
        #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
        loss: f64,
        /// Bytes that each connection has under way at most, such as 4M, what Linux has by default; 0 for no limit
        #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
        window: u64,
    },
    /// Run a program and write what it used
    #[command(hide = true)]
    Measure {
        #[arg(long)]
        to: PathBuf,
        #[arg(last = true, required = true)]
        words: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Common {
    /// Bytes to measure with, such as 64M; by default 512M for transfers, else 256M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(in crate::cli) size: Option<u64>,

    /// Rounds, of which the median counts; by default 5
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(in crate::cli) rounds: Option<u32>,

    /// One round with little data: whether it works, not how fast it is
    #[arg(long)]
    pub(in crate::cli) quick: bool,

    /// Where files go on this side; by default /dev/shm if there is room, else the temporary folder
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) dir: Option<PathBuf>,

    /// Print the rows as one array of JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FleetArgs {
    /// Servers that write; numbers with commas between
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [40, 100, 200, 400], value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub(in crate::cli) servers: Vec<u32>,

    /// Archivers that share them; numbers with commas between
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [1, 2, 4], value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(in crate::cli) movers: Vec<u32>,

    /// Of what comes by chance: the same number gives the same day
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(in crate::cli) seed: u64,

    /// Also plot what waits over the day, for the most servers, to this file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) svg: Option<PathBuf>,

    /// Print an array of JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RivalsArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,

    /// What to race over; names with commas between
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = RACES, value_parser = PossibleValuesParser::new(RACES))]
    pub(in crate::cli) race: Vec<String>,

    /// Another tool: a command line for sh with {source}, {host}, {target} and {config} in it
    #[arg(long, value_name = "NAME=COMMAND", value_parser = OtherTool::parse)]
    pub(in crate::cli) tool: Vec<OtherTool>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TransferArgs {
    /// As `ssh` takes it; without one a private sshd on this machine
    #[arg(value_name = "[USER@]HOST")]
    pub(in crate::cli) host: Option<String>,

    #[command(flatten)]
    pub(in crate::cli) common: Common,

    /// What to measure; names with commas between
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "all", value_parser = scenario_names(), hide_possible_values = true)]
    pub(in crate::cli) scenario: Vec<String>,

    /// Who receives at the far end
    #[arg(long, value_enum, default_value_t = ReceiverArg::Both)]
    pub(in crate::cli) receiver: ReceiverArg,

    /// This program at HOST, to receive there
    #[arg(long, value_name = "PROGRAM", requires = "host")]
    pub(in crate::cli) our_path: Option<String>,

    /// Also plot throughput against file size and round-trip time, to this file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) svg: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum ReceiverArg {
    /// Stock rsync
    Stock,
    /// This program
    Ours,
    Both,
}

fn scenario_names() -> PossibleValuesParser {
    let groups = GROUPS.iter().map(|(name, _)| *name);
    PossibleValuesParser::new(groups.chain(SCENARIOS).collect::<Vec<_>>())
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text.as_bytes(), b'b').ok_or_else(|| "write a number of bytes, such as 64M".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    parsed.ok_or_else(|| "write a number from 0 to 100".to_owned())
}
