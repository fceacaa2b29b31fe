//! One target of `run`: a table, a far end, and what was copied between them.

use crate::archiver::control::Control;
use crate::archiver::{self, ArchiverSettings, Ended, FillSource};
use crate::batches::{BatchKeeper, BatchTerms};
use crate::catalog::{self, AnyCatalog, Catalog, CatalogError, StorageNode};
use crate::cli::flags::RunArgs;
use crate::cli::layers::NamedRun;
use crate::cli::output::{Screen, print, say, summary, summary_json};
use crate::cli::{SOME_FAILED, plan};
use crate::service::{Service, ServiceRun};
use anyhow::{Context, Result, bail};
use std::sync::Arc;

/// Attempts to open the database in a run with `--once`.
const OPENINGS: u32 = 5;

/// A target as meant.
pub(super) struct RunTarget {
    /// Its name, where a file has one.
    pub(super) name: Option<String>,
    /// What was said, to see what has changed when it is said again.
    pub(super) args: RunArgs,
    pub(super) own_limit: bool,
    pub(super) run: ServiceRun,
}

impl RunTarget {
    /// Checked as far as that can be without a connection; `instance` is an agent's name.
    pub(super) fn plan(named: NamedRun, instance: Option<&str>) -> Result<Self> {
        let NamedRun { target: name, args, own_limit } = named;
        let planned = plan::run(args.clone(), instance, name.as_deref()).and_then(|run| {
            // Configuration and key files are read now, so that a wrong one is named before any work begins.
            run.service.connect()?;
            Ok(run)
        });
        match (planned, &name) {
            (Ok(run), _) => Ok(Self { name, args, own_limit, run }),
            (Err(error), Some(name)) => Err(error).with_context(|| format!("Target {name}")),
            (Err(error), None) => Err(error),
        }
    }

    /// Tells each target whose copies go to several storage nodes where else they are, as far as those are among them, or
    /// `elsewhere`, where they are left to a relay.
    pub(super) fn introduce(targets: &mut [Self], elsewhere: &[NamedRun]) -> Result<()> {
        for at in 0..targets.len() {
            let mut sources = Vec::new();
            for other in targets.iter().filter(|other| targets[at].is_beside(&other.run.service)) {
                if targets[at].run.service.is_same_place(&other.run.service) {
                    let of = |target: &Self| target.name.clone().unwrap_or_default();
                    bail!(
                        "{} and {} are one place, {}: copies there would be proven twice; give each node a place of its own",
                        of(&targets[at]),
                        of(other),
                        other.run.service.describe_far_end()
                    );
                }
                sources.extend(fill_source(plan::service(&other.args.service)?));
            }
            if targets[at].run.filler.is_some() {
                for other in elsewhere {
                    match plan::service(&other.args.service) {
                        Ok(service) if targets[at].is_beside(&service) => sources.extend(fill_source(service)),
                        Ok(_) => {}
                        Err(error) => tracing::warn!(
                            event = "not_filled",
                            "Nothing is fetched from {}: {error:#}",
                            other.target.as_deref().unwrap_or_default()
                        ),
                    }
                }
            }
            if let Some(filler) = &mut targets[at].run.filler {
                filler.sources = sources;
            }
        }
        Ok(())
    }

    /// Whether the other one has the copies of the same rows at another storage node.
    fn is_beside(&self, others: &Service) -> bool {
        let ours = &self.run.service;
        ours.options.node.as_ref().map(StorageNode::name) != others.options.node.as_ref().map(StorageNode::name)
            && ours.options.selection.targets == others.options.selection.targets
            && ours.database.to_string() == others.database.to_string()
    }

    /// Copies until told to stop, or with `--once` all that waits; the exit code.
    pub(super) async fn work(&self, control: Control, screen: &Screen) -> Result<u8> {
        let run = &self.run;
        run.console.begin(&control);
        let ended = tokio::select! {
            ended = self.copy_all(control, screen) => ended,
            never = run.console.clone().look_after() => match never {},
        };
        run.console.ended();
        ended
    }

    async fn copy_all(&self, control: Control, screen: &Screen) -> Result<u8> {
        let run = &self.run;
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
        tracing::info!(event = "watching", "Watching {}", catalog.describe());
        if run.batches.is_none() {
            let looking = tokio::spawn(run.service.look_for_strangers(catalog.clone()));
            if run.settings.once {
                // The work may be over, and the table closed, before it is said.
                let _ = looking.await;
            }
        }
        let settings = run.begin()?;
        let progress = control.progress().clone();
        let total = if screen.has_bar() { catalog.totals().await.ok().map(|totals| totals.pending) } else { None };
        let drawing = screen.follow(progress.clone(), total);
        let ended = match &run.batches {
            Some(terms) => copy_batches(run, terms, settings, catalog, control).await,
            None => copy(run, settings, catalog, control).await.map(|ended| (ended, 0)),
        };
        if let Some(drawing) = drawing {
            drawing.abort();
        }
        screen.clear();
        let (ended, undone) = ended?;
        let now = progress.snapshot();
        if self.args.json {
            print(&summary_json(self.name.as_deref(), &now));
        }
        if screen.has_bar() {
            say(&summary(&now));
        }
        let (seconds, target) = (now.seconds, self.name.as_deref());
        tracing::info!(
            event = "ended",
            target_name = target,
            copied = now.copied,
            failed_attempts = now.failed,
            seconds,
            "Ended: {ended:?}"
        );
        Ok(match ended {
            Ended::Stopped => 0,
            Ended::Drained if now.failed == 0 && now.source.is_none() && undone == 0 => 0,
            Ended::Drained => SOME_FAILED,
            Ended::OutOfReach(why) => gave_up(&why),
        })
    }
}

/// What a storage node may give to others.
fn fill_source(service: Service) -> Option<FillSource> {
    let node = service.options.node.as_ref()?.name().to_owned();
    let (data_dir, service) = (service.data_dir.clone(), Arc::new(service));
    Some(FillSource { node, data_dir, connect: Arc::new(move || service.connect()) })
}

/// Copies until told to stop, or with `--once` all that waits.
async fn copy(
    run: &ServiceRun,
    settings: ArchiverSettings,
    catalog: Arc<AnyCatalog>,
    control: Control,
) -> Result<Ended> {
    let (service, upkeep, once) = (&run.service, &run.upkeep, settings.once);
    if let (Some(filler), true) = (&run.filler, once)
        && let Err(why) = filler.round(&catalog).await?
    {
        tracing::warn!(event = "not_filled", "{why}");
    }
    let work = archiver::run(settings.clone(), catalog.clone(), || service.connect(), control.clone());
    let filling = async {
        match &run.filler {
            Some(filler) if !once => filler.run(catalog.clone(), control.clone()).await,
            _ => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = work => ended?,
        () = filling => Ended::Stopped,
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

/// The same of batches; also how many of those at work are not done.
async fn copy_batches(
    run: &ServiceRun,
    terms: &BatchTerms,
    settings: ArchiverSettings,
    catalog: Arc<AnyCatalog>,
    control: Control,
) -> Result<(Ended, usize)> {
    let service = &run.service;
    let mut keeper = BatchKeeper::new(terms.clone(), catalog.clone(), control.clone(), service.connect()?);
    if settings.once {
        // All that is to be sent has its rows before they have their turn.
        keeper.settle().await?;
    }
    let once = settings.once;
    let work = archiver::run(settings, catalog, || service.connect(), control);
    let ended = tokio::select! {
        ended = work => ended?,
        () = keeper.run(), if !once => Ended::Stopped,
    };
    if ended != Ended::Drained {
        return Ok((ended, 0));
    }
    let catalog = Arc::new(catalog::open(&service.database, service.options.clone()).await?);
    keeper.go_on_with(catalog.clone());
    let undone = keeper.settle().await?;
    catalog.close().await;
    Ok((ended, undone))
}

fn gave_up(why: &str) -> u8 {
    say(&format!("pysmurf-archiver: Gave up: {why}"));
    SOME_FAILED
}
