//! What the flags mean, checked as far as it can be without a connection: the database, the service, the run.

use super::flags::{DatabaseArgs, ExistingArg, LayoutArg, NodeArgs, RunArgs, SELF, ServiceArgs, SshArgs, TableArgs};
use crate::archiver::{
    Announcing, ArchiverSettings, Bootstrap, Direction, Existing, Filler, PruneMode, PruneRules, Sources, Upkeep,
    aside_of, is_static,
};
use crate::batches::BatchTerms;
use crate::batches::spool::BatchSpool;
use crate::catalog::{
    self, CatalogError, Database, FarLink, Layout, NodeNames, RecordId, RelayFeed, Selection, Spread, StorageNode,
};
use crate::console::{ArchiveIdentity, Console, Limit};
use crate::service::{Service, ServiceRun};
use crate::transport::ssh::SshOptions;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Letters of a far end's name in the table of links.
const FAR_END_MOST: usize = 128;
/// The embedded database of a run that names none.
const EMBEDDED: &str = "pysmurf-archiver.db";
/// How long running files may take once we are told to stop; well within docker's ten seconds.
const GRACE: Duration = Duration::from_secs(5);

/// The service that flags and variables mean.
pub(super) fn service(args: &ServiceArgs) -> Result<Service> {
    if args.data_dir.trim_end_matches('/').is_empty() && args.batches.is_none() {
        bail!("Option --data-dir cannot be {:?}; name the archive's base directory", args.data_dir);
    }
    if args.data_dir.contains('\0') || args.data_dir.contains('\n') {
        bail!("Option --data-dir holds a NUL or a line end: {:?}", args.data_dir);
    }
    let (database, mut options) = match &args.batches {
        Some(spool) => spooled(args, spool)?,
        None if args.link.is_some() => bail!("Option --link is for batches; give --batches, or leave it out"),
        None => table(&args.table)?,
    };
    options.node = storage_node(args, &database)?;
    let feed = options.node.as_ref().and_then(StorageNode::feed);
    // Of a relayed node the rows' files are copies, all in one archive.
    let roots = feed.map_or_else(|| args.source_root.clone(), |feed| vec![feed.here.clone()]);
    let (direction, host) = match &args.host {
        Some(host) => (Direction::Pull, Some(("--host", host))),
        None => (Direction::Push, args.storage_host.as_ref().map(|host| ("--storage-host", host))),
    };
    let ssh = host.map(|(option, host)| {
        let address = with_port(host).with_context(|| format!("Option {option}"))?;
        ssh_options(args, address)
    });
    let ssh = ssh.transpose()?;
    options.link = ssh.as_ref().map(|ssh| far_link(args, &options, ssh));
    Ok(Service {
        database,
        options,
        data_dir: args.data_dir.clone(),
        spool: args.batches.clone(),
        direction,
        ssh,
        bootstrap: bootstrap(&args.ssh)?,
        sources: Sources::beneath(&roots)
            .map_err(anyhow::Error::msg)?
            .answering_within(Duration::from_secs(args.source_timeout)),
    })
}

/// By what movers know the link to this far end: its node, else its host.
fn far_link(args: &ServiceArgs, options: &catalog::Options, ssh: &SshOptions) -> FarLink {
    let host = || match ssh.port.filter(|port| *port != 22) {
        Some(port) => format!("{}:{port}", ssh.host.rsplit('@').next().unwrap_or_default()),
        None => ssh.host.rsplit('@').next().unwrap_or_default().to_owned(),
    };
    let node = options.node.as_ref().map_or_else(host, |node| node.name().to_owned());
    FarLink { site: args.link_site.clone(), node: node.chars().take(FAR_END_MOST).collect() }
}

/// The storage node that is worked for, where there are several.
fn storage_node(args: &ServiceArgs, database: &Database) -> Result<Option<StorageNode>> {
    let NodeArgs { node, nodes, copies, share, relays, .. } = &args.nodes;
    let Some(name) = node else {
        for (option, given) in [
            ("--nodes", !nodes.is_empty()),
            ("--relays", !relays.is_empty()),
            ("--copies", copies.is_some()),
            ("--share", *share),
        ] {
            if given {
                bail!("Option {option} is for several storage nodes; write a [[node]] for each, or leave it out");
            }
        }
        return Ok(None);
    };
    for (option, given) in [("--batches", args.batches.is_some()), ("--host", args.host.is_some())] {
        if given {
            bail!("Option {option} does not go with several storage nodes; leave out one or the other");
        }
    }
    if nodes.is_empty() {
        bail!(
            "Option --node names one of several storage nodes; write a [[node]] for each, or name all with --nodes: one at \
             least has the files from here"
        );
    }
    let pair = |pair: &String| {
        let pair = pair.split_once(':').map(|(name, from)| (name.to_owned(), from.to_owned()));
        pair.with_context(|| "Option --relays: behind the name of each node belongs a colon, and what feeds it")
    };
    let relayed = relays.iter().map(pair).collect::<Result<Vec<_>>>()?;
    let from = relayed.iter().find(|(relayed, _)| relayed == name).map(|(_, from)| from.clone());
    let names = NodeNames { direct: nodes.clone(), relayed };
    names.check().map_err(anyhow::Error::msg)?;
    let feed = from.map(|from| feed(args, from, database)).transpose()?;
    let spread = match share {
        true => Spread::Share,
        false => Spread::Mirror { copies: copies.unwrap_or(nodes.len()) },
    };
    StorageNode::new(name.clone(), names, spread, feed).map(Some).map_err(anyhow::Error::msg)
}

/// Whether the storage node that is worked for is one that another feeds.
pub(super) fn is_relayed(args: &NodeArgs) -> bool {
    relayed(args).any(|(name, _)| args.node.as_deref() == Some(name))
}

/// The storage nodes that others feed, and by which, where one is worked for that gets its files from here.
pub(super) fn left_to_relay(args: &NodeArgs) -> Vec<(&str, &str)> {
    if is_relayed(args) { Vec::new() } else { relayed(args).collect() }
}

fn relayed(args: &NodeArgs) -> impl Iterator<Item = (&str, &str)> {
    args.relays.iter().filter_map(|pair| pair.split_once(':'))
}

/// Where the copies of the node are that feeds this one.
fn feed(args: &ServiceArgs, node: String, database: &Database) -> Result<RelayFeed> {
    let NodeArgs { from_dir, from_data_dir, .. } = &args.nodes;
    let there = from_data_dir.clone().or_else(|| Some(from_dir.as_ref()?.to_str()?.to_owned()));
    let Some(there) = there else {
        bail!("Option --from-dir is missing: name the folder that {node} has its archive in, on this machine");
    };
    let here = from_dir.clone().unwrap_or_else(|| PathBuf::from(&there));
    if !here.is_absolute() {
        bail!(
            "The archive of {node} is in {}; name its folder on this machine from / on, with --from-dir",
            here.display()
        );
    }
    if args.storage_host.is_none() && Path::new(&args.data_dir) == here {
        bail!(
            "The copies would be where those of {node} are, in {}; give each node a place of its own",
            here.display()
        );
    }
    // Those of SupRsync are relative.
    let base = matches!(database, Database::Mysql(_)).then(|| there.trim_end_matches('/').to_owned());
    Ok(RelayFeed { node, base, here })
}

/// The table of a spool's batches, of one link.
fn spooled(args: &ServiceArgs, spool: &Path) -> Result<(Database, catalog::Options)> {
    let TableArgs { table, layout, max_copy_attempts, .. } = &args.table;
    for (option, given) in [("--table", table.is_some()), ("--layout", layout.is_some())] {
        if given {
            bail!("Option {option} is for tables, and --batches has none; leave it out");
        }
    }
    let link = match (&args.link, &args.storage_host) {
        (Some(link), _) | (None, Some(link)) if !link.is_empty() => link.clone(),
        _ => {
            bail!("Option --link is missing: with --batches and no --storage-host, name what batches call this machine")
        }
    };
    let selection = Selection { targets: vec![link], max_attempts: (*max_copy_attempts).into() };
    let options = catalog::Options { selection, create: true, ..catalog::Options::default() };
    Ok((Database::Sqlite(BatchSpool::database(spool)), options))
}

/// What a run does with batches.
fn batches(args: &RunArgs, service: &Service, settings: &ArchiverSettings) -> Result<Option<BatchTerms>> {
    let Some(spool) = &args.service.batches else { return Ok(None) };
    for (option, given) in [
        ("--existing", args.existing.is_some()),
        ("--delete-local-after", args.delete_local_after.is_some()),
        ("--delete-when-below", args.delete_when_below.is_some()),
        ("--suprsync-file-root", args.suprsync_file_root.is_some()),
    ] {
        if given {
            bail!("Option {option} is not for batches, whose files and places are another's; leave it out");
        }
    }
    Ok(Some(BatchTerms {
        spool: BatchSpool::open(spool)?,
        link: service.options.selection.targets.concat(),
        deadline: Duration::from_secs(args.batch_deadline),
        attempts: settings.max_attempts,
        data_dir: service.data_dir.clone(),
        sources: service.sources.clone(),
        aside: settings.aside.clone(),
        poll: settings.poll,
    }))
}

/// What is to be uploaded where no rsync serves.
fn bootstrap(args: &SshArgs) -> Result<Option<Bootstrap>> {
    let Some(named) = &args.bootstrap else { return Ok(None) };
    let is_own = named.as_os_str() == SELF;
    let file = match is_own {
        false => named.clone(),
        true => std::env::current_exe().context("Option --bootstrap: cannot find this program's own file; name one")?,
    };
    let program = readable(&file, "--bootstrap")?.unwrap_or_default();
    match (is_static(&program), is_own) {
        (true, _) => {}
        (false, true) => bail!(
            "Option --bootstrap: this program needs the libraries of its machine, so it may not run elsewhere; make a static one with `make static`, and name it: --bootstrap FILE"
        ),
        (false, false) => {
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
pub(super) fn table(args: &TableArgs) -> Result<(Database, catalog::Options)> {
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
        node: None,
        link: None,
    };
    Ok((database, options))
}

/// The database that flags and variables name.
pub(super) fn database(args: &DatabaseArgs) -> Result<Database> {
    Ok(chosen(args)?.unwrap_or_else(|| Database::Sqlite(PathBuf::from(EMBEDDED))))
}

fn chosen(args: &DatabaseArgs) -> Result<Option<Database>, CatalogError> {
    Database::choose(args.db.as_deref(), &|name| std::env::var(name).ok())
}

/// Whether nobody names a database, so that the embedded one is meant, which is made where it is absent.
pub(super) fn is_embedded(args: &DatabaseArgs) -> bool {
    chosen(args).is_ok_and(|database| database.is_none())
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

/// The run that the flags mean; `instance` is an agent's name, `target` the one that a file gives it.
pub(super) fn run(args: RunArgs, instance: Option<&str>, target: Option<&str>) -> Result<ServiceRun> {
    let service = service(&args.service)?;
    let upkeep = upkeep(&args, &service, instance)?;
    let limit = Limit::new(args.bwlimit.clone().unwrap_or_default());
    let rate = limit.rate();
    let identity = identity(&service, instance.or(target));
    let console = Console::new(identity, Duration::from_secs_f64(args.poll), limit);
    let settings = ArchiverSettings {
        sources: upkeep.sources.clone(),
        existing: match args.service.batches {
            Some(_) => Existing::Refuse,
            None => existing(args.existing, &service.database),
        },
        manifest: None,
        direction: service.direction,
        data_dir: service.data_dir.clone(),
        fed_from: service.options.node.as_ref().and_then(StorageNode::feed).map(|feed| feed.node.clone()),
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
        rate,
    };
    let batches = batches(&args, &service, &settings)?;
    let filler = filler(&args, &service, &settings)?;
    Ok(ServiceRun { service, settings, manifest: args.manifest, upkeep, filler, batches, console })
}

/// What fetches from other storage nodes; they are entered once all are known.
fn filler(args: &RunArgs, service: &Service, settings: &ArchiverSettings) -> Result<Option<Filler>> {
    let (Some(dir), Some(node)) = (&args.service.nodes.fill_dir, &service.options.node) else { return Ok(None) };
    let dir = std::path::absolute(dir).with_context(|| format!("Option --fill-dir: {}", dir.display()))?;
    // Of each table and node its own.
    let folder = dir.join(format!("{}-{}", settings.aside.trim_start_matches('.'), node.name()));
    Ok(Some(Filler { folder, sources: Vec::new() }))
}

/// What becomes of earlier copies: as with the agent that had such a table.
fn existing(given: Option<ExistingArg>, database: &Database) -> Existing {
    match (given, database) {
        (Some(ExistingArg::Replace), _) | (None, Database::Sqlite(_)) => Existing::Replace,
        (Some(ExistingArg::Number), _) | (None, Database::Mysql(_)) => Existing::Number,
    }
}

/// What a service is called: by its name, or by what it archives.
fn identity(service: &Service, name: Option<&str>) -> ArchiveIdentity {
    let targets = &service.options.selection.targets;
    let rows = targets.join("+");
    let node = service.options.node.as_ref().map(StorageNode::name);
    let all = node.map_or(rows.clone(), |node| format!("{rows}@{node}"));
    // All nodes of a target are meant by its name.
    let target = node.zip(name).and_then(|(node, name)| Some(name.strip_suffix(node)?.strip_suffix('@')?.to_owned()));
    let also = targets
        .iter()
        .chain([&all, &rows])
        .chain(&target)
        .filter(|also| name.is_some_and(|name| name != *also) || **also != all)
        .cloned()
        .collect();
    ArchiveIdentity { name: name.map_or(all.clone(), str::to_owned), also, far_end: service.describe_far_end() }
}

/// What is to be done beside the copying.
fn upkeep(args: &RunArgs, service: &Service, instance: Option<&str>) -> Result<Upkeep> {
    if let Database::Mysql(_) = service.database {
        for (option, given) in [
            ("--delete-local-after", args.delete_local_after.is_some()),
            ("--delete-when-below", args.delete_when_below.is_some()),
            ("--delete-dry-run", args.delete_dry_run),
            ("--suprsync-file-root", args.suprsync_file_root.is_some()),
        ] {
            if given {
                bail!("Option {option} is for databases of SupRsync, and {} is none; leave it out", service.database);
            }
        }
    }
    let root = args.suprsync_file_root.as_ref().map(|root| {
        std::path::absolute(root).with_context(|| format!("Option --suprsync-file-root: {}", root.display()))
    });
    let root = root.transpose()?;
    // Files may be copied and deleted that the rows name, and those by which we announce; and what other storage nodes give.
    let sources = service.sources.clone().and(root.as_deref()).and(args.service.nodes.fill_dir.as_deref());
    let archive = || service.options.selection.targets.first().map(String::as_str).unwrap_or_default();
    let who = instance.unwrap_or_else(archive).replace('/', "_");
    let deletion = PruneRules {
        after: args.delete_local_after.map(Duration::from_secs_f64),
        below: args.delete_when_below,
        doing: if args.delete_dry_run { PruneMode::Telling } else { PruneMode::Deleting },
    };
    if args.delete_dry_run && deletion.after.is_none() && deletion.below.is_none() {
        bail!(
            "Option --delete-dry-run needs --delete-local-after or --delete-when-below, which say what would be deleted"
        );
    }
    if service.options.node.as_ref().is_some_and(|node| !node.is_first()) {
        return Ok(Upkeep { deletion: PruneRules::default(), announce: None, sources });
    }
    Ok(Upkeep { deletion, announce: root.map(|root| Announcing { root, who }), sources })
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
