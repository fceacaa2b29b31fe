//! `monitor`: registers what publishers announce, alone; and what could not be registered.

use super::console::state_dir;
use super::flags::monitor::{MonitorArgs, MonitorCommand, MonitorVerb, RejectsArgs, SpoolArgs};
use super::output::{Screen, json_object, print, printable, start_log};
use super::{SOME_FAILED, plan};
use crate::catalog::{self, Database, Selection};
use crate::monitor::{
    Monitor, MonitorAddress, MonitorSettings, MonitorSnapshot, RegistrarRules, Reject, UdpSource, read_rejects,
    retry_rejects,
};
use crate::service::{listen_for_signals, runtime, systemd};
use anyhow::{Context, Result, anyhow, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// What a monitor has of its folder of states.
const FOLDER: &str = "monitor";
/// How often it is said how it goes, where anything has happened.
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// How often the kernel is asked what it dropped.
const DROPS_EVERY: Duration = Duration::from_secs(2);
/// Archives of SupRsync are named by the messages; the table is opened for one of them.
const ANY_ARCHIVE: &str = "smurf";

/// Does what the command line says.
pub(super) fn monitor(command: MonitorCommand) -> Result<u8> {
    match command.verb {
        Some(MonitorVerb::Rejects(args)) => rejects(&args),
        None => run(&command.args),
    }
}

fn folder(args: &SpoolArgs) -> Result<PathBuf> {
    let default = || state_dir(None).map(|folder| folder.join(FOLDER));
    args.spool.clone().or_else(default).context("Option --spool is missing: name the folder of the spool")
}

/// What the options mean.
fn settings(args: &MonitorArgs) -> Result<MonitorSettings> {
    let database = match &args.db_path {
        Some(path) => Database::Sqlite(path.clone()),
        None => plan::database(&args.database)?,
    };
    let address = match (&database, &args.register_as) {
        (Database::Sqlite(_), Some(_)) => {
            bail!("Option --register-as is for MySQL tables, and {database} is none; leave it out")
        }
        (Database::Sqlite(_), None) => None,
        (Database::Mysql(_), None) => {
            bail!("Option --register-as is missing: name whose rows they are, such as observatory.pysmurf-monitor")
        }
        (Database::Mysql(_), Some(address)) => {
            let parts = address.split_once('.').filter(|(site, instance)| {
                let fits = |text: &str| (1..=32).contains(&text.chars().count()) && !text.contains('.');
                fits(site) && fits(instance)
            });
            let (site, instance) = parts.with_context(|| {
                format!("Option --register-as cannot be {address:?}: give SITE.INSTANCE, each of 1 to 32 letters")
            })?;
            Some(MonitorAddress { site: site.to_owned(), instance: instance.to_owned() })
        }
    };
    let whose = address.as_ref().map_or(ANY_ARCHIVE, |address| &address.instance).to_owned();
    let selection = Selection { targets: vec![whose], max_attempts: 1 };
    Ok(MonitorSettings {
        database,
        options: catalog::Options { selection, table: args.table.clone(), layout: None, create: true },
        spool: folder(&args.spool)?,
        spool_bytes: u64::from(args.spool_mib) << 20,
        memory_bytes: (args.memory_mib as usize) << 20,
        rules: RegistrarRules { patience: Duration::from_secs_f64(args.patience), address },
    })
}

fn run(args: &MonitorArgs) -> Result<u8> {
    start_log(&args.log, &Screen::default(), None);
    let settings = settings(args)?;
    let about = format!("{}, spool {}", settings.database, settings.spool.display());
    let runtime = runtime()?;
    let (stop, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    let (told, notify) = (stop.clone(), stopped.clone());
    let end = move || {
        told.store(true, Relaxed);
        notify.notify_one();
    };
    // Before it is said that anybody listens. What is received is in the spool, or will be within a moment.
    runtime.block_on(async { listen_for_signals(end, || {}) })?;
    // First the spool, so that of two monitors one alone listens.
    let monitor = Monitor::start(settings, None, runtime.handle().clone())?;
    let address = SocketAddr::new(args.udp_bind, args.udp_port);
    let source = UdpSource::bind(address, args.udp_allow.clone()).map_err(|error| {
        anyhow!("Cannot listen at UDP {address}: {error}; end who does, or give another --udp-port")
    })?;
    let drops = source.drops();
    let heard = source.address()?;
    tracing::info!(event = "monitoring", address = %heard, buffer = source.buffer, "Listening at UDP {heard} for {about}");
    let receiving = monitor.intake().map(|intake| {
        let (counters, stop) = (monitor.counters().clone(), stop.clone());
        std::thread::spawn(move || source.run(&intake, &counters, &stop))
    });
    let counters = monitor.counters().clone();
    runtime.block_on(async {
        systemd::ready();
        let attended = counters.clone();
        let attending = systemd::attend(move || attended.snapshot().line());
        let mut attending = std::pin::pin!(attending);
        let mut said = MonitorSnapshot::default();
        let mut status = tokio::time::interval(STATUS_EVERY);
        let mut looking = tokio::time::interval(DROPS_EVERY);
        loop {
            tokio::select! {
                () = stopped.notified() => return anyhow::Ok(()),
                () = attending.as_mut() => {}
                _ = status.tick() => {
                    let now = counters.snapshot();
                    if now != said {
                        tracing::info!(event = "monitor_status", received = now.received, registered = now.registered, at_work = now.at_work, waiting = now.waiting, rejects = now.rejects, dropped = now.dropped, lost = now.lost, gaps = now.gaps, "{}", now.line());
                        said = now;
                    }
                }
                _ = looking.tick() => if !monitor.is_alive() {
                    bail!("A thread of the monitor has died, see above; what was received is in the spool, start it again");
                } else if let Some(dropped) = drops.read() {
                    let before = counters.dropped.swap(dropped, Relaxed);
                    if dropped > before {
                        tracing::error!(event = "datagrams_dropped", dropped = dropped - before, "The kernel dropped {} datagrams, for which its buffer had no room", dropped - before);
                    }
                },
            }
        }
    })?;
    if let Some(dropped) = drops.read() {
        counters.dropped.store(dropped, Relaxed);
    }
    if let Some(receiving) = receiving {
        let _ = receiving.join();
    }
    monitor.end();
    let now = counters.snapshot();
    tracing::info!(event = "ended", "Ended: {}", now.line());
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(0)
}

fn rejects(args: &RejectsArgs) -> Result<u8> {
    let folder = folder(&args.spool)?;
    let unreadable = || format!("Cannot read the spool in {}; name its folder with --spool", folder.display());
    if !folder.is_dir() {
        bail!("There is no spool in {}; name its folder with --spool", folder.display());
    }
    let all = read_rejects(&folder).with_context(unreadable)?;
    let rejected = all.iter().filter(|reject| !reject.is_waiting).count();
    if args.retry {
        let at_work = retry_rejects(&folder).with_context(unreadable)?;
        let when = if at_work { "now" } else { "when a monitor starts" };
        print(&format!("{} will be tried again {when}", messages(rejected)));
        return Ok(0);
    }
    for reject in &all {
        print(&if args.json { json(reject) } else { text(reject) });
    }
    if !args.json {
        let waiting = all.len() - rejected;
        print(&format!("{} rejected, {} for their file", messages(rejected), waits(waiting)));
    }
    Ok(if rejected > 0 { SOME_FAILED } else { 0 })
}

fn messages(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

fn waits(count: usize) -> String {
    if count == 1 { "1 waits".to_owned() } else { format!("{count} wait") }
}

fn text(reject: &Reject) -> String {
    let state = if reject.is_waiting { "waits" } else { "rejected" };
    let since = crate::clock::local(reject.since as i64);
    format!("{} {}  {state}  {}: {}", since.date(), since.time(), printable(&reject.what), printable(&reject.why))
}

fn json(reject: &Reject) -> String {
    json_object([
        ("state", if reject.is_waiting { "waiting" } else { "rejected" }.into()),
        ("since", reject.since.into()),
        ("what", reject.what.clone().into()),
        ("why", reject.why.clone().into()),
        ("received", reject.received.into()),
        ("sender", reject.sender.map(|sender| sender.to_string()).into()),
        ("datagram", String::from_utf8_lossy(&reject.bytes).into()),
    ])
}
