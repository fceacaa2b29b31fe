//! `bench`: what is measured, and how it is said.

use super::SOME_FAILED;
use super::flags::bench::{BenchArgs, BenchCommand, Common, FleetArgs, ReceiverArg, RivalsArgs, TransferArgs};
use super::output::{print, say};
use crate::bench::delta::{self, Extent};
use crate::bench::fleet::{Day, DayReport, simulate};
use crate::bench::link::{Relay, Terms};
use crate::bench::plot::{Chart, Curve};
use crate::bench::rivals::{self as bench_rivals, RACES, RivalsPlan};
use crate::bench::runner::TransferPlan;
use crate::bench::transfer::{GROUPS, SCENARIOS};
use crate::bench::{BenchError, BenchProgress, Findings, ReceivingEnd, measure, plot, ssh, transfer};
use crate::service::{listen_for_signals, runtime};
use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;

impl Common {
    /// For programs nothing is drawn.
    fn progress(&self) -> BenchProgress {
        if self.json { BenchProgress::silent() } else { BenchProgress::new() }
    }

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
        BenchCommand::Delta { common } => {
            let _signals = interruptible()?;
            let size = common.size(8 << 20, 256 << 20);
            let extent = Extent { size: usize::try_from(size).context("Option --size")?, rounds: common.rounds() };
            report(&common, delta::run(extent, &common.folder(size)?, &common.progress()))
        }
        BenchCommand::Ssh { host, ref common } => {
            let _signals = interruptible()?;
            let size = common.size(4 << 20, 256 << 20);
            let plan = ssh::SshPlan { host, size, rounds: common.rounds(), folder: common.folder(size)? };
            report(common, ssh::run(&plan, &common.progress()))
        }
        BenchCommand::Transfer(args) => transfers(args),
        BenchCommand::Rivals(args) => rivals(args),
        BenchCommand::Fleet(args) => fleet(&args),
        BenchCommand::Link { listen, to, rtt, rate, loss, window } => {
            link(&listen, &to, Terms { round_trip: Duration::from_millis(rtt), rate, loss: loss / 100.0, window })
        }
        BenchCommand::Measure { to, words } => Ok(measure::measure(&to, &words)?),
    }
}

/// Simulates the days one after another, and says each as soon as it is over.
fn fleet(args: &FleetArgs) -> Result<u8> {
    let most = args.servers.iter().max().copied().unwrap_or_default();
    let (mut objects, mut curves) = (Vec::new(), Vec::new());
    let widths = DayReport::HEADS.map(|head| head.len().max(7));
    let line = |cells: [&str; 11]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}"));
        print(cells.collect::<Vec<_>>().join("  ").trim_end());
    };
    if !args.json {
        line(DayReport::HEADS);
    }
    for &servers in &args.servers {
        for &movers in &args.movers {
            let report = simulate(Day { servers, movers, seed: args.seed });
            match args.json {
                true => objects.push(report.json()),
                false => line(report.cells().each_ref().map(String::as_str)),
            }
            if report.servers() == most {
                curves.push(Curve { name: report.name(), points: report.waiting });
            }
        }
    }
    if args.json {
        print(&serde_json::Value::from(objects).to_string());
    }
    if let Some(file) = &args.svg {
        let chart = Chart {
            title: format!("What waits of {most} servers over a day with troubles"),
            axis: "hours".into(),
            measure: "GB",
            logarithmic: false,
            curves,
        };
        plot::write(file, &[chart])?;
    }
    Ok(0)
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
    let plan = TransferPlan {
        host: args.host,
        scenarios,
        receivers: match args.receiver {
            ReceiverArg::Stock => vec![ReceivingEnd::Stock],
            ReceiverArg::Ours => vec![ReceivingEnd::Ours],
            ReceiverArg::Both => vec![ReceivingEnd::Stock, ReceivingEnd::Ours],
        },
        size,
        rounds: common.rounds(),
        quick: common.quick,
        folder: common.folder(largest)?,
        our_path: args.our_path,
    };
    let progress = common.progress();
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

fn rivals(args: RivalsArgs) -> Result<u8> {
    let _signals = interruptible()?;
    let RivalsArgs { common, race, tool } = args;
    let size = common.size(2 << 20, 512 << 20);
    let races: Vec<_> = RACES.into_iter().filter(|id| race.iter().any(|name| name == id)).collect();
    let largest = if races.contains(&"wan") && !common.quick { size.max(transfer::WAN_BYTES) } else { size };
    let transfer = TransferPlan {
        host: None,
        scenarios: Vec::new(),
        receivers: Vec::new(),
        size,
        rounds: common.rounds(),
        quick: common.quick,
        folder: common.folder(largest)?,
        our_path: None,
    };
    let progress = common.progress();
    let standings = bench_rivals::run(RivalsPlan { transfer, races, others: tool }, &progress);
    drop(progress);
    let standings = match standings {
        Ok(standings) => standings,
        Err(error) => {
            say(&format!("pysmurf-archiver: {error}"));
            return Ok(SOME_FAILED);
        }
    };
    for (what, why) in &standings.skipped {
        say(&format!("SKIPPED {what}: {why}"));
    }
    if common.json {
        standings.notes.iter().for_each(|note| say(note));
    }
    print(&if common.json { standings.json() } else { standings.table() });
    Ok(0)
}

fn report(common: &Common, findings: Result<Findings, BenchError>) -> Result<u8> {
    let findings = match findings {
        Ok(findings) => findings,
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
