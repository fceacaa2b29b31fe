//! `run`: watches the table and copies, alone or as an agent.

use super::flags::RunArgs;
use super::output::{Screen, print, say, start_log, summary, summary_json};
use super::{SOME_FAILED, console, plan};
use crate::archiver::control::Control;
use crate::archiver::{self, ArchiverSettings, Ended};
use crate::catalog::{self, AnyCatalog, Catalog, CatalogError};
use crate::disk::open_operator_lock;
use crate::ocs::site::{self, Resolved};
use crate::service::{ServiceRun, listen_for_hangups, listen_for_signals, runtime};
use anyhow::{Context, Result, bail};
use protocol::chmod::Chmod;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// Attempts to open the database in a run with `--once`.
const OPENINGS: u32 = 5;

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
    let (json, doors) = (args.json, args.doors.clone());
    let run = plan::run(args, agent.as_ref().map(|agent| agent.instance_id.as_str()))?;
    // Configuration and key files are read now, so that a wrong one is named before any work begins.
    run.service.connect()?;
    let runtime = runtime()?;
    let opened = {
        let _within = runtime.enter();
        console::open_doors(std::slice::from_ref(&run.console), &doors, run.settings.once)?
    };
    let result = match agent {
        None => runtime.block_on(alone(&run, &screen, json)),
        Some(agent) => runtime.block_on(as_agent(agent, run)),
    };
    screen.clear();
    drop(opened);
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

async fn as_agent(agent: Resolved, run: ServiceRun) -> Result<u8> {
    for note in &agent.notes {
        tracing::info!("{note}");
    }
    let end = crate::agent::serve(agent, run).await?;
    if end.is_error() {
        say(&format!("pysmurf-archiver: {end}"));
        return Ok(SOME_FAILED);
    }
    Ok(0)
}

async fn alone(run: &ServiceRun, screen: &Screen, json: bool) -> Result<u8> {
    let control = Control::new();
    let (first, second) = (control.stop().clone(), control.stop().clone());
    let again = control.clone();
    listen_for_signals(move || first.stop(), move || second.close_links())?;
    listen_for_hangups(move || again.look_again())?;
    run.console.begin(&control);
    let looking_after = tokio::spawn(run.console.clone().look_after());
    let mut attempts = 0;
    let patient = |error: &CatalogError| {
        attempts += 1;
        match error {
            CatalogError::Setup(_) => false,
            _ => !run.settings.once || attempts < OPENINGS,
        }
    };
    let catalog = match run.service.open(control.stop(), patient).await {
        Ok(Some(catalog)) => Arc::new(catalog),
        Ok(None) => return Ok(0),
        Err(CatalogError::Setup(why)) => bail!(why),
        Err(error) => return Ok(gave_up(&error.to_string())),
    };
    run.console.opened(&catalog);
    tracing::info!("Watching {}", catalog.describe());
    let looking = tokio::spawn(run.service.look_for_strangers(catalog.clone()));
    if run.settings.once {
        // The work may be over, and the table closed, before it is said.
        let _ = looking.await;
    }
    let settings = run.begin()?;
    let progress = control.progress().clone();
    let total = if screen.has_bar() { catalog.totals().await.ok().map(|totals| totals.pending) } else { None };
    let drawing = screen.follow(progress.clone(), total);
    let ended = copy(run, settings, catalog, control).await;
    run.console.ended();
    looking_after.abort();
    if let Some(drawing) = drawing {
        drawing.abort();
    }
    screen.clear();
    let ended = ended?;
    let now = progress.snapshot();
    if json {
        print(&summary_json(&now));
    }
    if screen.has_bar() {
        say(&summary(&now));
    }
    let seconds = now.seconds;
    tracing::info!(copied = now.copied, failed_attempts = now.failed, seconds, "Ended: {ended:?}");
    Ok(match ended {
        Ended::Stopped => 0,
        Ended::Drained if now.failed == 0 && now.source.is_none() => 0,
        Ended::Drained => SOME_FAILED,
        Ended::OutOfReach(why) => gave_up(&why),
    })
}

/// Copies until told to stop, or with `--once` all that waits.
async fn copy(
    run: &ServiceRun,
    settings: ArchiverSettings,
    catalog: Arc<AnyCatalog>,
    control: Control,
) -> Result<Ended> {
    let (service, upkeep, once) = (&run.service, &run.upkeep, settings.once);
    let work = archiver::run(settings.clone(), catalog.clone(), || service.connect(), control.clone());
    let ended = tokio::select! {
        ended = work => ended?,
        () = upkeep.run(catalog.clone(), control.clone()), if !once && !upkeep.is_idle() => Ended::Stopped,
    };
    if once && ended == Ended::Drained && !upkeep.is_idle() {
        // What has become complete by this run is announced by this run. The others have had their turn.
        let catalog = Arc::new(catalog::open(&service.database, service.options.clone()).await?);
        let settings = ArchiverSettings { above: catalog.newest().await?, ..settings };
        if upkeep.once(&catalog, &control).await? > 0 {
            return Ok(archiver::run(settings, catalog, || service.connect(), control).await?);
        }
        catalog.close().await;
    }
    Ok(ended)
}

fn gave_up(why: &str) -> u8 {
    say(&format!("pysmurf-archiver: Gave up: {why}"));
    SOME_FAILED
}
