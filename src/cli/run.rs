//! `run` and `init-db`.

use super::SOME_FAILED;
use super::flags::{DatabaseArgs, LayoutArg, RetryArgs, RunArgs, ServiceArgs, SshArgs, TableArgs};
use super::output::{Screen, json_object, print, printable, start_log, summary};
use crate::archiver::control::Control;
use crate::archiver::stop::Stop;
use crate::archiver::{self, Announcing, Bootstrap, Direction, Ended, Settings, Sources, Upkeep, aside_of, is_static};
use crate::catalog::{self, AnyCatalog, Catalog, CatalogError, Database, Layout, Note, RecordId, Retry, Selection};
use crate::manifest::Manifest;
use crate::ocs::agent::AgentConfig;
use crate::ocs::site::{self, Resolved};
use crate::status::Snapshot;
use crate::throttle::Rate;
use crate::transfer::local::Local;
use crate::transfer::open_operator_lock;
use crate::transport::ssh::{Ssh, SshOptions};
use crate::transport::{Connect, ConnectError};
use anyhow::{Context, Result, anyhow, bail};
use protocol::chmod::Chmod;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The embedded database of a run that names none.
const EMBEDDED: &str = "pysmurf-archiver.db";
/// How long running files may take once we are told to stop; well within docker's ten seconds.
const GRACE: Duration = Duration::from_secs(5);
/// Attempts to open the database in a run with `--once`.
const OPENINGS: u32 = 5;
/// Rows that are shown of those given a new chance.
const SHOWN_MOST: usize = 100;
/// The longest wait between attempts to open the database.
const OPENING_WAIT_MOST: Duration = Duration::from_secs(60);

/// A service as meant: everything checked that can be without a connection.
pub(super) struct Service {
    pub(super) database: Database,
    pub(super) options: catalog::Options,
    pub(super) data_dir: String,
    pub(super) direction: Direction,
    pub(super) ssh: Option<SshOptions>,
    pub(super) bootstrap: Option<Bootstrap>,
    pub(super) sources: Sources,
}

impl Service {
    /// Makes sense of the flags.
    pub(super) fn plan(args: &ServiceArgs) -> Result<Self> {
        if args.data_dir.trim_end_matches('/').is_empty() {
            bail!("Option --data-dir cannot be {:?}; name the archive's base directory", args.data_dir);
        }
        if args.data_dir.contains('\0') || args.data_dir.contains('\n') {
            bail!("Option --data-dir holds a NUL or a line end: {:?}", args.data_dir);
        }
        let (database, options) = table(&args.table)?;
        let (direction, host) = match &args.host {
            Some(host) => (Direction::Pull, Some(("--host", host))),
            None => (Direction::Push, args.storage_host.as_ref().map(|host| ("--storage-host", host))),
        };
        let ssh = host.map(|(option, host)| {
            let address = with_port(host).with_context(|| format!("Option {option}"))?;
            ssh_options(args, address)
        });
        let ssh = ssh.transpose()?;
        Ok(Self {
            database,
            options,
            data_dir: args.data_dir.clone(),
            direction,
            ssh,
            bootstrap: bootstrap(&args.ssh)?,
            sources: Sources::beneath(&args.source_root)
                .map_err(anyhow::Error::msg)?
                .answering_within(Duration::from_secs(args.source_timeout)),
        })
    }

    /// A new way to the far end.
    pub(super) fn connect(&self) -> Result<Box<dyn Connect>, ConnectError> {
        Ok(match &self.ssh {
            Some(options) => Box::new(Ssh::new(options.clone())?),
            None => Box::new(Local::default()),
        })
    }
}

/// What is to be uploaded where no rsync serves.
fn bootstrap(args: &SshArgs) -> Result<Option<Bootstrap>> {
    let Some(named) = &args.bootstrap else { return Ok(None) };
    let file = match named {
        Some(file) => file.clone(),
        None => std::env::current_exe().context("Option --bootstrap: cannot find this program's own file; name one")?,
    };
    let program = readable(&file, "--bootstrap")?.unwrap_or_default();
    match (is_static(&program), named) {
        (true, _) => {}
        (false, None) => bail!(
            "Option --bootstrap: this program needs the libraries of its machine, so it may not run elsewhere; make a static one with `make static`, and name it: --bootstrap FILE"
        ),
        (false, Some(_)) => {
            tracing::warn!("{} is no static program; it runs only where its libraries are", file.display());
        }
    }
    Ok(Some(Bootstrap { file, dir: args.bootstrap_dir.clone(), remove: args.bootstrap_remove }))
}

/// A port behind the host, as in `HOST:PORT`. An IPv6 address is left alone, unless it stands in brackets.
fn with_port(host: &str) -> Result<(&str, Option<u16>)> {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            let port = port.parse().ok().filter(|&port| port > 0);
            let port = port.with_context(|| format!("{host:?} names no host: behind a colon belongs a port"))?;
            Ok((name, Some(port)))
        }
        _ => Ok((host, None)),
    }
}

/// The database that flags and variables name, and which rows of it.
fn table(args: &TableArgs) -> Result<(Database, catalog::Options)> {
    let database = database(&args.database)?;
    let targets = match &database {
        Database::Mysql(_) if args.archive_name.is_some() => {
            bail!("Option --archive-name is for SupRsync's SQLite databases; use --target with {database}")
        }
        Database::Mysql(_) if args.target.is_empty() => {
            bail!("Option --target is missing: name the instance ids of the monitors whose files are to be copied")
        }
        Database::Mysql(_) => args.target.clone(),
        Database::Sqlite(_) => match (&args.archive_name, args.target.as_slice()) {
            (Some(name), []) => vec![name.clone()],
            (None, [one]) => vec![one.clone()],
            (None, []) => bail!("Option --archive-name is missing: name the archive of {database} to be copied"),
            _ => bail!("{database} holds archives: give --archive-name once, and no --target"),
        },
    };
    if targets.iter().any(String::is_empty) {
        let option = if matches!(database, Database::Mysql(_)) { "--target" } else { "--archive-name" };
        bail!("Option {option} is given an empty name; name whose files are to be copied, as the rows have it");
    }
    let layout = args.layout.map(|layout| match layout {
        LayoutArg::Action => Layout::Action,
        LayoutArg::Type => Layout::Type,
    });
    let options = catalog::Options {
        selection: Selection { targets, max_attempts: args.max_copy_attempts.into() },
        table: args.table.clone(),
        layout,
        create: is_embedded(&args.database),
    };
    Ok((database, options))
}

/// Gives rows that were given up a new chance.
pub(super) fn retry(args: RetryArgs) -> Result<u8> {
    let (database, options) = table(&args.table)?;
    let which = match (args.all, args.path) {
        (true, _) => Retry::All,
        (false, Some(pattern)) => Retry::Pattern(pattern),
        (false, None) => Retry::Ids(args.id.into_iter().map(RecordId).collect()),
    };
    let (known, changed) = runtime()?.block_on(async {
        // A database that is not there has no rows to try again, and must not be made.
        let options = catalog::Options { create: false, ..options };
        let chosen = options.selection.targets.clone();
        let catalog = catalog::open(&database, options).await?;
        let known = catalog.given_up(&which, SHOWN_MOST).await;
        let changed = match known {
            Ok(_) => catalog.retry(&which).await,
            Err(_) => Ok(0),
        };
        if matches!(changed, Ok(0))
            && let Ok(Some(strangers)) = catalog::strangers(&catalog, &chosen).await
        {
            super::output::say(&format!("pysmurf-archiver: {strangers}"));
        }
        catalog.close().await;
        anyhow::Ok((known?, changed?))
    })?;
    for note in &known {
        print(&format!("row {}, {}: {}", note.id.0, printable(&note.path), printable(&reason(note))));
    }
    if changed > known.len() as u64 {
        print(&format!("… and {} more", changed - known.len() as u64));
    }
    print(&format!("{changed} rows will be tried again"));
    Ok(0)
}

/// Why a row had failed, as far as that was kept.
pub(super) fn reason(note: &Note) -> String {
    match &note.reason {
        Some((_, why)) => why.clone(),
        None => "why it failed was not kept; see the log of run".to_owned(),
    }
}

fn ssh_options(args: &ServiceArgs, (host, port): (&str, Option<u16>)) -> Result<SshOptions> {
    let ssh = &args.ssh;
    let words = shlex::split(&ssh.rsync_path).filter(|words| !words.is_empty());
    let words = words.with_context(|| format!("Option --rsync-path cannot be {:?}: name a program", ssh.rsync_path))?;
    for key in &ssh.ssh_key {
        let text = readable(key, "--ssh-key")?;
        if text.is_some_and(|text| !String::from_utf8_lossy(&text).contains("PRIVATE KEY-----")) {
            bail!("Option --ssh-key: {} holds no private key; name the file without .pub", key.display());
        }
    }
    if let Some(file) = &ssh.known_hosts {
        readable(file, "--known-hosts")?;
    }
    let mut options = SshOptions::new(host);
    options.port = ssh.ssh_port.or(port);
    options.user = args.user.clone();
    options.keys = ssh.ssh_key.clone();
    options.known_hosts = ssh.known_hosts.clone();
    options.config = ssh.ssh_config.clone();
    options.connect_timeout = Duration::from_secs(ssh.connect_timeout);
    options.auth_timeout = Duration::from_secs(ssh.connect_timeout);
    options.stall_timeout = Duration::from_secs(ssh.stall_timeout);
    options.rsync_path = words.into_iter().map(OsString::from).collect();
    Ok(options)
}

/// The content of a file that an option names; `None` of a pipe, which can be read only once.
fn readable(path: &Path, option: &str) -> Result<Option<Vec<u8>>> {
    let unusable = || format!("Option {option}: cannot read {}; name another file", path.display());
    let meta = std::fs::metadata(path).with_context(unusable)?;
    match meta.is_file() || meta.is_dir() {
        true => std::fs::read(path).map(Some).with_context(unusable),
        false => Ok(None),
    }
}

/// The database that flags and variables name.
pub(super) fn database(args: &DatabaseArgs) -> Result<Database> {
    Ok(chosen(args)?.unwrap_or_else(|| Database::Sqlite(PathBuf::from(EMBEDDED))))
}

fn chosen(args: &DatabaseArgs) -> Result<Option<Database>, CatalogError> {
    Database::choose(args.db.as_deref(), &|name| std::env::var(name).ok())
}

/// Whether nobody names a database, so that the embedded one is meant, which is made where it is absent.
fn is_embedded(args: &DatabaseArgs) -> bool {
    chosen(args).is_ok_and(|database| database.is_none())
}

/// Creates tables where they are absent.
pub(super) fn init_db(args: DatabaseArgs) -> Result<u8> {
    let database = database(&args)?;
    let created = runtime()?.block_on(catalog::init_db(&database))?;
    for table in created {
        let what = if table.new { "created" } else { "was there already, left as it is" };
        print(&format!("Table {} of {database}: {what}", table.table));
    }
    Ok(0)
}

/// A small runtime: it waits for timers, SQL and signals; the work is done by threads.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().context("Cannot start the runtime")
}

/// Watches the table and copies, alone or as an agent.
pub(super) fn run(mut args: RunArgs, agent: Option<Resolved>) -> Result<u8> {
    let mut screen = Screen::new(args.once && !args.service.log.quiet);
    if let Some(agent) = &agent {
        if args.once {
            bail!("Option --once ends by itself, and an agent does not; add --site none to run alone");
        }
        screen.also_to(log_file(agent)?);
        if args.chmod.is_none() {
            args.chmod = agent.agent_class.chmod().and_then(|default| Chmod::parse(default.as_bytes()));
        }
    }
    let wanted = if agent.is_some() { site::log_level(&|name| std::env::var(name).ok())? } else { None };
    start_log(&args.service.log, &screen, wanted);
    let service = Service::plan(&args.service)?;
    upkeep(&args, &service, None)?;
    // Configuration and key files are read now, so that a wrong one is named before any work begins.
    service.connect()?;
    let runtime = runtime()?;
    let result = match agent {
        None => runtime.block_on(work(&args, &service, &screen)),
        Some(agent) => {
            for note in &agent.notes {
                tracing::info!("{note}");
            }
            let config = AgentConfig {
                address_root: agent.address_root,
                instance_id: agent.instance_id,
                agent_class: agent.agent_class.name().to_owned(),
                realm: agent.realm,
                wamp_server: agent.wamp_server,
                // Zero is Python's word for never.
                crossbar_timeout: agent.crossbar_timeout.filter(|limit| !limit.is_zero()),
                access_policy: agent.access_policy,
            };
            runtime.block_on(super::agent::serve(config, args, service))
        }
    };
    screen.clear();
    // A thread that still hangs in a dead file system or database must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// The log file of an agent whose site has a directory for them, as the Python agents keep it.
fn log_file(agent: &Resolved) -> Result<Option<File>> {
    let Some(folder) = agent.log_dir.as_ref().filter(|folder| folder.is_dir()) else { return Ok(None) };
    let path = folder.join(format!("{}.log", agent.agent_address()));
    let file = open_operator_lock(&path);
    file.map(Some).with_context(|| format!("Option --log-dir: cannot write {}", path.display()))
}

/// How the archiver shall work.
pub(super) fn settings(args: &RunArgs, service: &Service) -> Result<Settings> {
    let manifest = args.manifest.as_deref().map(Manifest::open).transpose();
    Ok(Settings {
        sources: sources(args, service)?,
        manifest: manifest.map_err(|why| anyhow!("{why}; correct --manifest"))?.map(Arc::new),
        direction: service.direction,
        data_dir: service.data_dir.clone(),
        relative_paths: matches!(service.database, Database::Sqlite(_)),
        poll: Duration::from_secs_f64(args.poll),
        queue: args.queue as usize,
        queue_bytes: u64::from(args.queue_mib) << 20,
        workers: args.workers,
        split_size: args.split_size,
        once: args.once,
        above: RecordId(0),
        max_attempts: service.options.selection.max_attempts,
        grace: GRACE,
        bootstrap: service.bootstrap.clone(),
        aside: aside_of(&format!("{} {:?}", service.database, service.options.selection.targets)),
        chmod: args.chmod.clone().filter(|chmod| !chmod.is_empty()),
        compress: args.compress,
        rate: Rate::new(args.bwlimit.unwrap_or(0)),
    })
}

/// Which files may be copied and deleted: those of the rows, and those by which we announce.
fn sources(args: &RunArgs, service: &Service) -> Result<Sources> {
    let root = args.suprsync_file_root.as_ref().map(std::path::absolute).transpose();
    Ok(service.sources.clone().and(root.context("Option --suprsync-file-root")?.as_deref()))
}

/// What is to be done beside the copying; `instance` is an agent's name.
pub(super) fn upkeep(args: &RunArgs, service: &Service, instance: Option<&str>) -> Result<Upkeep> {
    if let Database::Mysql(_) = service.database {
        for (option, given) in [
            ("--delete-local-after", args.delete_local_after.is_some()),
            ("--suprsync-file-root", args.suprsync_file_root.is_some()),
        ] {
            if given {
                bail!("Option {option} is for databases of SupRsync, and {} is none; leave it out", service.database);
            }
        }
    }
    let archive = || service.options.selection.targets.first().cloned().unwrap_or_default();
    let announce = args.suprsync_file_root.as_ref().map(|root| {
        let root =
            std::path::absolute(root).with_context(|| format!("Option --suprsync-file-root: {}", root.display()))?;
        let who = instance.map_or_else(archive, str::to_owned).replace('/', "_");
        anyhow::Ok(Announcing { root, who })
    });
    Ok(Upkeep {
        delete_after: args.delete_local_after.map(Duration::from_secs_f64),
        announce: announce.transpose()?,
        sources: sources(args, service)?,
    })
}

async fn work(args: &RunArgs, service: &Service, screen: &Screen) -> Result<u8> {
    let control = Control::new();
    let (first, second) = (control.stop().clone(), control.stop().clone());
    let again = control.clone();
    listen_for_signals(move || first.stop(), move || second.close_links())?;
    listen_for_hangups(move || again.look_again())?;
    let Some(catalog) = open(args.once, service, control.stop()).await? else {
        return Ok(if control.stop().is_stopped() { 0 } else { SOME_FAILED });
    };
    let catalog = Arc::new(catalog);
    tracing::info!("Watching {}", catalog.describe());
    let looking = tokio::spawn(look_for_strangers(catalog.clone(), service.options.selection.targets.clone()));
    if args.once {
        // The work may be over, and the table closed, before it is said.
        let _ = looking.await;
    }
    let settings = settings(args, service)?;
    let progress = control.progress().clone();
    let total = if screen.has_bar() { catalog.totals().await.ok().map(|totals| totals.pending) } else { None };
    let drawing = screen.follow(progress.clone(), total);
    let upkeep = upkeep(args, service, None)?;
    let mut ended = {
        let work = archiver::run(settings.clone(), catalog.clone(), || service.connect(), control.clone());
        tokio::select! {
            ended = work => ended,
            () = upkeep.run(catalog.clone(), control.clone()), if !args.once && !upkeep.is_idle() => Ok(Ended::Stopped),
        }
    };
    if args.once && matches!(ended, Ok(Ended::Drained)) && !upkeep.is_idle() {
        // What has become complete by this run is announced by this run. The others have had their turn.
        let catalog = Arc::new(catalog::open(&service.database, service.options.clone()).await?);
        let settings = Settings { above: catalog.newest().await?, ..settings };
        if upkeep.once(&catalog, &control).await? > 0 {
            ended = archiver::run(settings, catalog, || service.connect(), control).await;
        } else {
            catalog.close().await;
        }
    }
    if let Some(drawing) = drawing {
        drawing.abort();
    }
    screen.clear();
    let ended = ended?;
    let now = progress.snapshot();
    if args.json {
        print(&summary_json(&now));
    }
    if screen.has_bar() {
        super::output::say(&summary(&now));
    }
    let seconds = now.seconds;
    tracing::info!(copied = now.copied, failed_attempts = now.failed, seconds, "Ended: {ended:?}");
    Ok(match ended {
        Ended::Stopped => 0,
        Ended::Drained if now.failed == 0 && now.source.is_none() => 0,
        Ended::Drained => SOME_FAILED,
        Ended::OutOfReach(why) => {
            super::output::say(&format!("pysmurf-archiver: Gave up: {why}"));
            SOME_FAILED
        }
    })
}

/// Warns of names that no row has.
pub(super) async fn look_for_strangers(catalog: Arc<AnyCatalog>, chosen: Vec<String>) -> Option<String> {
    // Whoever does the work says what is wrong with the table.
    let strangers = catalog::strangers(&catalog, &chosen).await.ok().flatten();
    if let Some(strangers) = &strangers {
        tracing::warn!("{strangers}");
    }
    strangers
}

/// Opens the table; a database that is out of reach is waited for. `None` when there is nothing to go on with.
async fn open(once: bool, service: &Service, stop: &Stop) -> Result<Option<AnyCatalog>> {
    let mut wait = Duration::from_secs(1);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let opened = tokio::select! {
            opened = catalog::open(&service.database, service.options.clone()) => opened,
            () = stop.stopped() => return Ok(None),
        };
        match opened {
            Ok(catalog) => return Ok(Some(catalog)),
            Err(CatalogError::Setup(why)) => bail!(why),
            Err(error) if once && attempt >= OPENINGS => {
                super::output::say(&format!("pysmurf-archiver: Gave up: {error}"));
                return Ok(None);
            }
            Err(error) => tracing::warn!(wait_s = wait.as_secs(), "{error}; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
            () = stop.stopped() => return Ok(None),
        }
        wait = (wait * 2).min(OPENING_WAIT_MOST);
    }
}

/// Each SIGHUP calls `look_again`, and ends nothing.
pub(super) fn listen_for_hangups(look_again: impl Fn() + Send + 'static) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hup = signal(SignalKind::hangup()).context("Cannot listen for SIGHUP")?;
    tokio::spawn(async move {
        while hup.recv().await.is_some() {
            tracing::info!("SIGHUP: looking at the whole table; options are read only at the start");
            look_again();
        }
    });
    Ok(())
}

/// The first SIGTERM or SIGINT calls `stop`, each further one `at_once`.
pub(super) fn listen_for_signals(stop: impl Fn() + Send + 'static, at_once: impl Fn() + Send + 'static) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("Cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("Cannot listen for SIGINT")?;
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if round == 0 {
                tracing::info!("Stopping: running files are finished first; a second signal stops at once");
                stop();
            } else {
                at_once();
            }
        }
    });
    Ok(())
}

fn summary_json(now: &Snapshot) -> String {
    json_object([
        ("copied", now.copied.into()),
        ("failed", now.failed.into()),
        ("bytes", (now.literal_bytes + now.matched_bytes).into()),
        ("literal_bytes", now.literal_bytes.into()),
        ("matched_bytes", now.matched_bytes.into()),
        ("reconnects", now.link_troubles.into()),
        ("database_troubles", now.database_troubles.into()),
        ("seconds", ((now.seconds * 1000.0).round() / 1000.0).into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn a_port_may_stand_behind_a_host() {
        let known = [
            ("storage", ("storage", None)),
            ("ocs@storage:2222", ("ocs@storage", Some(2222))),
            ("ocs@[fe80::1]:22", ("ocs@[fe80::1]", Some(22))),
            ("fe80::1", ("fe80::1", None)),
            ("ocs@[fe80::1]", ("ocs@[fe80::1]", None)),
        ];
        for (host, address) in known {
            assert_eq!(with_port(host).unwrap(), address, "{host}");
        }
        for host in ["storage:/data", "storage:", "storage:0", "storage:65536", "[::1]:ssh"] {
            assert!(with_port(host).is_err(), "{host}");
        }
    }
}
