//! What is to be run, opened and watched: the table, the way to the far end, and how the archiver works between them.

pub(crate) mod systemd;

use crate::archiver::stop::Stop;
use crate::archiver::{ArchiverSettings, Bootstrap, Direction, Filler, Sources, Upkeep};
use crate::backoff::Backoff;
use crate::batches::BatchTerms;
use crate::catalog::{self, AnyCatalog, CatalogError, Database};
use crate::console::{Console, Limit};
use crate::local::Local;
use crate::manifest::Manifest;
use crate::status::{LASTING, told};
use crate::transport::ssh::{Ssh, SshOptions};
use crate::transport::{Connect, ConnectError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Why nothing can be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// The list of proven files cannot be written.
    #[error("{0}; correct --manifest")]
    Manifest(String),
    /// The system lets us not hear of a signal.
    #[error("Cannot listen for {0}")]
    Signal(&'static str, #[source] io::Error),
    #[error("Cannot start the runtime")]
    Runtime(#[source] io::Error),
}

/// A service as meant: everything checked that can be without a connection.
pub(crate) struct Service {
    pub(crate) database: Database,
    pub(crate) options: catalog::Options,
    pub(crate) data_dir: String,
    /// The folder of batches whose rows these are.
    pub(crate) spool: Option<PathBuf>,
    pub(crate) direction: Direction,
    pub(crate) ssh: Option<SshOptions>,
    pub(crate) bootstrap: Option<Bootstrap>,
    pub(crate) sources: Sources,
}

impl Service {
    /// A new way to the far end.
    pub(crate) fn connect(&self) -> Result<Box<dyn Connect>, ConnectError> {
        Ok(match &self.ssh {
            Some(options) => Box::new(Ssh::new(options.clone())?),
            None => Box::new(Local::default()),
        })
    }

    /// Whether copies go to the same folder, as far as that can be told from here.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        let of = |service: &Self| {
            let host = service.ssh.as_ref().map(|ssh| (ssh.host.clone(), ssh.port));
            (host, service.data_dir.trim_end_matches('/').to_owned())
        };
        of(self) == of(other)
    }

    /// Where the copies go, or the files come from, for people.
    pub(crate) fn describe_far_end(&self) -> String {
        match (&self.ssh, self.direction) {
            (Some(ssh), Direction::Push) => format!("{}:{}", ssh.host, self.data_dir),
            (Some(ssh), Direction::Pull) => format!("{}, from {}", self.data_dir, ssh.host),
            (None, _) => self.data_dir.clone(),
        }
    }

    /// Opens the table, and after a failure again, for as long as `goes_on` says so of it. `None` once told to stop.
    pub(crate) async fn open(
        &self,
        stop: &Stop,
        mut goes_on: impl FnMut(&CatalogError) -> bool,
    ) -> Result<Option<AnyCatalog>, CatalogError> {
        let mut backoff = Backoff::default();
        let began = Instant::now();
        loop {
            let wait = backoff.pause();
            let opened = tokio::select! {
                opened = catalog::open(&self.database, self.options.clone()) => opened,
                () = stop.stopped() => return Ok(None),
            };
            match opened {
                Ok(catalog) => return Ok(Some(catalog)),
                Err(error) if !goes_on(&error) => return Err(error),
                Err(error) => {
                    let lasts = began.elapsed().as_secs_f64() >= LASTING;
                    told!(lasts, event = "database_trouble", wait_s = wait.as_secs(), "{error}; trying again")
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.stopped() => return Ok(None),
            }
        }
    }

    /// Warns of names that no row has, and gives the words.
    pub(crate) fn look_for_strangers(
        &self,
        catalog: Arc<AnyCatalog>,
    ) -> impl Future<Output = Option<String>> + Send + 'static {
        let chosen = self.options.selection.targets.clone();
        async move {
            // Whoever does the work says what is wrong with the table.
            let strangers = catalog::strangers(&catalog, &chosen).await.ok().flatten();
            if let Some(strangers) = &strangers {
                tracing::warn!(event = "no_such_rows", "{strangers}");
            }
            strangers
        }
    }
}

pub(crate) struct ServiceRun {
    pub(crate) service: Service,
    /// How the archiver works; its manifest is opened when it begins.
    pub(crate) settings: ArchiverSettings,
    /// Where proven copies are listed.
    pub(crate) manifest: Option<PathBuf>,
    /// What is done beside the copying.
    pub(crate) upkeep: Upkeep,
    /// Fetches from other storage nodes what this one lacks.
    pub(crate) filler: Option<Filler>,
    /// The batches that are copied, in the place of a table's rows.
    pub(crate) batches: Option<BatchTerms>,
    /// Who asks and tells it, speaks through this.
    pub(crate) console: Console,
}

impl ServiceRun {
    /// Takes a limit of several runs together in the place of its own.
    pub(crate) fn share_limit(&mut self, limit: &Limit) {
        self.console.share_limit(limit);
        self.settings.rate = limit.rate();
    }

    /// The settings with the manifest open.
    pub(crate) fn begin(&self) -> Result<ArchiverSettings, ServiceError> {
        let manifest = self.manifest.as_deref().map(Manifest::open).transpose().map_err(ServiceError::Manifest)?;
        Ok(ArchiverSettings { manifest: manifest.map(Arc::new), ..self.settings.clone() })
    }
}

/// A small runtime: it waits for timers, SQL and signals; the work is done by threads.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, ServiceError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().map_err(ServiceError::Runtime)
}

/// Each SIGHUP calls `hung_up`, and ends nothing.
pub(crate) fn listen_for_hangups(hung_up: impl Fn() + Send + 'static) -> Result<(), ServiceError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hup = signal(SignalKind::hangup()).map_err(|error| ServiceError::Signal("SIGHUP", error))?;
    tokio::spawn(async move {
        while hup.recv().await.is_some() {
            hung_up();
        }
    });
    Ok(())
}

/// The first SIGTERM or SIGINT calls `stop`, each further one `at_once`.
pub(crate) fn listen_for_signals(
    stop: impl Fn() + Send + 'static,
    at_once: impl Fn() + Send + 'static,
) -> Result<(), ServiceError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).map_err(|error| ServiceError::Signal("SIGTERM", error))?;
    let mut int = signal(SignalKind::interrupt()).map_err(|error| ServiceError::Signal("SIGINT", error))?;
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if round == 0 {
                tracing::info!(
                    event = "stopping",
                    "Stopping: running files are finished first; a second signal stops at once"
                );
                systemd::stopping();
                stop();
            } else {
                at_once();
            }
        }
    });
    Ok(())
}
