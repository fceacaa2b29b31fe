//! `monitor`: registers what publishers announce, alone or as an agent; and what could not be registered.

mod watching;

use super::console::state_dir;
use super::flags::monitor::{MonitorArgs, MonitorCommand, MonitorVerb, RejectsArgs, SpoolArgs};
use super::output::{Screen, json_object, print, printable};
use super::site::{exit_code, start_log_of};
use super::{SOME_FAILED, plan};
use crate::agent::monitor::{Autostart, FeedAudience, serve};
use crate::catalog::{self, Database, Selection};
use crate::monitor::{
    DropCount, MessageAudience, Monitor, MonitorAddress, MonitorSettings, MonitorSnapshot, NameRule, RegistrarGate,
    RegistrarRules, Reject, UdpSource, WatchSource, read_rejects, retry_rejects,
};
use crate::ocs::site::Resolved;
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
/// Where publishers of pysmurf send unless they are told otherwise.
const UDP_PORT: u16 = 8200;
/// Archives of SupRsync are named by the messages; the table is opened for one of them.
const ANY_ARCHIVE: &str = "smurf";
/// Where an agent's database is of which nothing is said, as with the Python monitor.
const DATABASE_OF_AGENTS: &str = "/data/so/databases/suprsync.db";

/// Does what the command line says.
pub(super) fn monitor(command: MonitorCommand, agent: Option<Resolved>) -> Result<u8> {
    match command.verb {
        Some(MonitorVerb::Rejects(args)) => rejects(&args),
        None => run(&command.args, agent),
    }
}

fn folder(args: &SpoolArgs) -> Result<PathBuf> {
    let default = || state_dir(None).map(|folder| folder.join(FOLDER));
    args.spool.clone().or_else(default).context("Option --spool is missing: name the folder of the spool")
}

/// The spool of a container's agent outlives the container, as its database does.
fn folder_of_agent(args: &SpoolArgs, database: &Database) -> Result<PathBuf> {
    match (database, std::env::var_os("STATE_DIRECTORY")) {
        (Database::Sqlite(file), None) if args.spool.is_none() => {
            let mut name = file.clone().into_os_string();
            name.push(".spool");
            Ok(name.into())
        }
        _ => folder(args),
    }
}

/// What the options mean.
fn settings(args: &MonitorArgs, agent: Option<&Resolved>) -> Result<MonitorSettings> {
    let database = match &args.db_path {
        Some(path) => Database::Sqlite(path.clone()),
        None if agent.is_some() && plan::is_embedded(&args.database) => Database::Sqlite(DATABASE_OF_AGENTS.into()),
        None => plan::database(&args.database)?,
    };
    let spool = match agent {
        Some(_) => folder_of_agent(&args.spool, &database)?,
        None => folder(&args.spool)?,
    };
    let own = agent.filter(|_| matches!(database, Database::Mysql(_))).map(Resolved::agent_address);
    let address = match (&database, args.register_as.as_ref().or(own.as_ref())) {
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
    let names = if args.plain_names { NameRule::Plain } else { NameRule::Any };
    let whose = address.as_ref().map_or(ANY_ARCHIVE, |address| &address.instance).to_owned();
    let selection = Selection { targets: vec![whose], max_attempts: 1 };
    Ok(MonitorSettings {
        database,
        options: catalog::Options { selection, table: args.table.clone(), create: true, ..catalog::Options::default() },
        spool,
        spool_bytes: u64::from(args.spool_mib) << 20,
        memory_bytes: (args.memory_mib as usize) << 20,
        rules: RegistrarRules { patience: Duration::from_secs_f64(args.patience), address, names },
        gate: match agent {
            // Its process opens it.
            Some(_) => RegistrarGate::closed(),
            None => RegistrarGate::opened(),
        },
    })
}

fn run(args: &MonitorArgs, agent: Option<Resolved>) -> Result<u8> {
    start_log_of(agent.as_ref(), &args.log, &mut Screen::default())?;
    let settings = settings(args, agent.as_ref())?;
    let watched = watching::terms(&args.watch, settings.rules.owner())?;
    let about = format!("{}, spool {}", settings.database, settings.spool.display());
    let runtime = runtime()?;
    let (stop, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    let notify = stopped.clone();
    // Before it is said that anybody listens. What is received is in the spool, or will be within a moment.
    runtime.block_on(async { listen_for_signals(move || notify.notify_one(), || {}) })?;
    let (audience, feeds) = FeedAudience::new();
    let audience = agent.is_some().then(|| Box::new(audience) as Box<dyn MessageAudience>);
    // First the spool, so that of two monitors one alone listens.
    let monitor = Monitor::start(settings, audience, runtime.handle().clone())?;
    let udp_port = args.udp_port.or_else(|| watched.is_none().then_some(UDP_PORT));
    let listening = udp_port.map(|port| listen(args, port)).transpose()?;
    let drops = listening.as_ref().map(UdpSource::drops);
    let watching = watched.map(WatchSource::open).transpose()?;
    if let Some(source) = &listening {
        let heard = source.address()?;
        tracing::info!(event = "monitoring", address = %heard, buffer = source.buffer, "Listening at UDP {heard} for {about}");
    }
    if let Some(source) = &watching {
        let folders = source.folders();
        tracing::info!(event = "watching_folders", folders, "Watching {} for {about}", source.describe());
    }
    let mut sources = Vec::new();
    if let (Some(source), Some(intake)) = (listening, monitor.intake()) {
        let (counters, stop) = (monitor.counters().clone(), stop.clone());
        sources.push(std::thread::spawn(move || source.run(&intake, &counters, &stop)));
    }
    if let (Some(source), Some(desk)) = (watching, monitor.watch_desk()) {
        let stop = stop.clone();
        sources.push(std::thread::spawn(move || source.run(desk, &stop)));
    }
    let counters = monitor.counters().clone();
    let attending = attend(&monitor, drops.as_ref(), &stopped);
    let code = match agent {
        None => runtime.block_on(attending).map(|()| 0),
        Some(site) => runtime.block_on(async {
            let mut attended = Ok(());
            let at_start = if args.test_mode { Autostart::Wait } else { Autostart::Run };
            let over = async { attended = attending.await };
            let end = serve(site, &monitor, at_start, feeds, over).await?;
            attended.map(|()| exit_code(&end))
        }),
    };
    stop.store(true, Relaxed);
    if let Some(dropped) = drops.as_ref().and_then(DropCount::read) {
        counters.dropped.store(dropped, Relaxed);
    }
    for source in sources {
        let _ = source.join();
    }
    let code = code?;
    drop(monitor);
    let now = counters.snapshot();
    tracing::info!(event = "ended", "Ended: {}", now.line());
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(code)
}

fn listen(args: &MonitorArgs, port: u16) -> Result<UdpSource> {
    let address = SocketAddr::new(args.udp_bind, port);
    UdpSource::bind(address, args.udp_allow.clone())
        .map_err(|error| anyhow!("Cannot listen at UDP {address}: {error}; end who does, or give another --udp-port"))
}

/// Tells how it stands until it is stopped; an error if it works no more.
async fn attend(monitor: &Monitor, drops: Option<&DropCount>, stopped: &tokio::sync::Notify) -> Result<()> {
    systemd::ready();
    let counters = monitor.counters();
    let attended = counters.clone();
    let attending = systemd::attend(move || attended.snapshot().line());
    let mut attending = std::pin::pin!(attending);
    let mut said = MonitorSnapshot::default();
    let mut status = tokio::time::interval(STATUS_EVERY);
    let mut looking = tokio::time::interval(DROPS_EVERY);
    loop {
        tokio::select! {
            () = stopped.notified() => return Ok(()),
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
            } else if let Some(dropped) = drops.and_then(DropCount::read) {
                let before = counters.dropped.swap(dropped, Relaxed);
                if dropped > before {
                    tracing::error!(event = "datagrams_dropped", dropped = dropped - before, "The kernel dropped {} datagrams, for which its buffer had no room", dropped - before);
                }
            },
        }
    }
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
