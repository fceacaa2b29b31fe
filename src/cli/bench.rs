//! `bench`: what is measured, and how it is said.

use super::SOME_FAILED;
use super::output::{print, say};
use crate::bench::delta::{self, Extent};
use crate::bench::link::{Relay, Terms};
use crate::bench::transfer::{GROUPS, Plan, SCENARIOS};
use crate::bench::{BenchError, Findings, Progress, Receiver, measure, plot, ssh, transfer};
use crate::service::{listen_for_signals, runtime};
use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use protocol::args::parse_size;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;

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
\"ratio\", \"cpu_ratio\", \"peak_rss_bytes\", \"goal\", \"met\"}. `ratio` is how many
times better than the other we are, or our own number for the cores; `cpu_ratio`
our CPU seconds on this side over the other's; what is not known is null, and
with --quick also \"met\".

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

Without HOST a private sshd is started for the run, with an empty home. With
HOST a folder is made below /tmp there, and removed at the end.

Examples:
  pysmurf-archiver bench transfer --quick
  pysmurf-archiver bench transfer --scenario unrelated,small --receiver both
  pysmurf-archiver bench transfer ocs@storage --size 64M --scenario new --json
  pysmurf-archiver bench transfer --svg throughput.svg --scenario new";

/// What `bench` takes.
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
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
struct Common {
    /// Bytes to measure with, such as 64M; by default 512M for transfers, else 256M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u64>,

    /// Rounds, of which the median counts; by default 5
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// One round with little data: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,

    /// Where files go on this side; by default /dev/shm if there is room, else the temporary folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print the rows as one array of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct TransferArgs {
    /// As `ssh` takes it; without one a private sshd on this machine
    #[arg(value_name = "[USER@]HOST")]
    host: Option<String>,

    #[command(flatten)]
    common: Common,

    /// What to measure; names with commas between
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "all", value_parser = scenario_names(), hide_possible_values = true)]
    scenario: Vec<String>,

    /// Who receives at the far end
    #[arg(long, value_enum, default_value_t = ReceiverArg::Both)]
    receiver: ReceiverArg,

    /// This program at HOST, to receive there
    #[arg(long, value_name = "PROGRAM", requires = "host")]
    our_path: Option<String>,

    /// Also plot throughput against file size and round-trip time, to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReceiverArg {
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

impl Common {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    fn size(&self, quick: u64, full: u64) -> u64 {
        self.size.unwrap_or(if self.quick { quick } else { full })
    }

    /// Where files go: in memory where that holds several times as much.
    fn folder(&self, needed: u64) -> Result<PathBuf> {
        if let Some(dir) = &self.dir {
            let there = || format!("Option --dir: cannot use {}; name another folder", dir.display());
            return dir.canonicalize().with_context(there);
        }
        let memory = PathBuf::from("/dev/shm");
        let roomy = rustix::fs::statvfs(&memory).is_ok_and(|place| place.f_bavail * place.f_frsize > needed * 6);
        Ok(if roomy && available_memory() > needed * 6 { memory } else { std::env::temp_dir() })
    }
}

/// Bytes of memory that may still be used.
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Makes signals end the measurement in good order: its folders are removed on the way out. Holds for as long as what it
/// gives lives.
fn interruptible() -> Result<Runtime> {
    let runtime = runtime()?;
    let inside = runtime.enter();
    listen_for_signals(measure::interrupt, || std::process::exit(SOME_FAILED.into()))?;
    drop(inside);
    Ok(runtime)
}

/// Runs what was asked for.
pub(super) fn bench(args: BenchArgs) -> Result<u8> {
    match args.what {
        What::Delta { common } => {
            let _signals = interruptible()?;
            let size = common.size(8 << 20, 256 << 20);
            let extent = Extent { size: usize::try_from(size).context("Option --size")?, rounds: common.rounds() };
            report(&common, delta::run(extent, &common.folder(size)?, &Progress::new()))
        }
        What::Ssh { host, ref common } => {
            let _signals = interruptible()?;
            let size = common.size(4 << 20, 256 << 20);
            let plan = ssh::Plan { host, size, rounds: common.rounds(), folder: common.folder(size)? };
            report(common, ssh::run(&plan, &Progress::new()))
        }
        What::Transfer(args) => transfers(args),
        What::Link { listen, to, rtt, rate, loss } => {
            link(&listen, &to, Terms { round_trip: Duration::from_millis(rtt), rate, loss: loss / 100.0 })
        }
        What::Measure { to, words } => Ok(measure::measure(&to, &words)?),
    }
}

fn transfers(args: TransferArgs) -> Result<u8> {
    let _signals = interruptible()?;
    let common = args.common;
    let size = common.size(2 << 20, 512 << 20);
    if size == 0 {
        bail!("Option --size cannot be 0; name a number of bytes, such as 64M");
    }
    let wanted = |id: &&str| {
        let group = |name: &str| GROUPS.iter().find(|(group, _)| *group == name).map(|(_, ids)| *ids);
        args.scenario.iter().any(|name| name == id || group(name).is_some_and(|ids| ids.contains(id)))
    };
    let scenarios: Vec<_> = SCENARIOS.into_iter().filter(wanted).collect();
    let largest = if scenarios.contains(&"wan") && !common.quick { size.max(transfer::WAN_BYTES) } else { size };
    let plan = Plan {
        host: args.host,
        scenarios,
        receivers: match args.receiver {
            ReceiverArg::Stock => vec![Receiver::Stock],
            ReceiverArg::Ours => vec![Receiver::Ours],
            ReceiverArg::Both => vec![Receiver::Stock, Receiver::Ours],
        },
        size,
        rounds: common.rounds(),
        quick: common.quick,
        folder: common.folder(largest)?,
        our_path: args.our_path,
    };
    let progress = Progress::new();
    let mut findings = transfer::run(plan.clone(), &progress);
    if let (Ok(findings), Some(svg)) = (&mut findings, &args.svg) {
        match plot::measure(plan, &progress).and_then(|charts| plot::write(svg, &charts)) {
            Ok(()) => findings.notes.push(format!("The plots are in {}.", svg.display())),
            Err(error) => {
                drop(progress);
                say(&format!("pysmurf-archiver: {error}"));
                return report(&common, Ok(std::mem::take(findings))).map(|_| SOME_FAILED);
            }
        }
    }
    drop(progress);
    report(&common, findings)
}

fn report(common: &Common, findings: Result<Findings, BenchError>) -> Result<u8> {
    let findings = match findings {
        Ok(findings) => Findings { quick: common.quick, ..findings },
        Err(error) => {
            say(&format!("pysmurf-archiver: {error}"));
            return Ok(SOME_FAILED);
        }
    };
    for (what, why) in &findings.skipped {
        say(&format!("SKIPPED {what}: {why}"));
    }
    print(&if common.json { findings.json() } else { findings.table() });
    Ok(0)
}

fn link(listen: &str, to: &str, terms: Terms) -> Result<u8> {
    let address = |option: &str, text: &str| -> Result<SocketAddr> {
        let found = text.to_socket_addrs().with_context(|| format!("Option {option}: {text} is no ADDRESS:PORT"))?;
        found.into_iter().next().with_context(|| format!("Option {option}: {text} has no address"))
    };
    let (listen, to) = (address("--listen", listen)?, address("--to", to)?);
    let relay = match Relay::start(listen, to, terms) {
        Ok(relay) => relay,
        Err(error) => {
            say(&format!("pysmurf-archiver: Cannot listen on {listen}: {error}; choose another address with --listen"));
            return Ok(SOME_FAILED);
        }
    };
    print(&format!("{}", relay.address()));
    runtime()?.block_on(async {
        let (stopped, asked) = tokio::sync::oneshot::channel();
        let stopped = std::sync::Mutex::new(Some(stopped));
        let stop = move || {
            let stopped = stopped.lock().ok().and_then(|mut stopped| stopped.take());
            stopped.map(|stopped| stopped.send(()));
        };
        listen_for_signals(stop, || std::process::exit(SOME_FAILED.into()))?;
        let _ = asked.await;
        Ok(0)
    })
}
