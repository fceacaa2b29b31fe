//! The database, its table, the rows that wait, and their files.

use super::report::{CheckReport, CheckStatus};
use crate::archiver::layout::place;
use crate::archiver::{Direction, Sources};
use crate::batches::spool::BatchSpool;
use crate::catalog::{
    self, AnyCatalog, Catalog, CatalogError, Database, Keeping, Layout, NOTES, Pending, RecordId, Retry, StorageNode,
};
use crate::cli::table::reason;
use crate::service::Service;
use std::path::{Path, PathBuf};

/// Waiting rows whose files are looked at.
const LOOKED_AT: usize = 20;

/// Says how database, table, rows and source stand.
pub(super) async fn check(service: &Service, report: &mut CheckReport) {
    let database = &service.database;
    if let Some(folder) = &service.spool
        && !spool(folder, report)
    {
        return report.not_checked(&["database", "table", "rows", "source"], "no batch was taken yet");
    }
    match catalog::reach(database).await {
        Ok(product) => report.ok("database", &format!("{}, {product}", address(database))),
        Err(error) => {
            report.fail("database", &with_remedy(database, &error));
            return report.not_checked(&["table", "rows", "source"], "the database cannot be used");
        }
    }
    let catalog = match catalog::inspect(database, service.options.clone()).await {
        Ok(catalog) => catalog,
        Err(error) => {
            report.fail("table", &with_remedy(database, &error));
            return report.not_checked(&["rows", "source"], "the table cannot be used");
        }
    };
    report.ok("table", &format!("{}; {}", table(&catalog), notes(&catalog).await));
    rows(service, &catalog, report).await;
    match service.direction {
        Direction::Push => sources(service, &catalog, report).await,
        Direction::Pull => report.not_checked(&["source"], "the files are at the far end"),
    }
    catalog.close().await;
}

/// Says how the spool of batches stands; whether batches were taken.
fn spool(folder: &Path, report: &mut CheckReport) -> bool {
    match BatchSpool::find(folder) {
        Ok(spool) => report.ok("spool", &spool.describe()),
        Err(_) if !folder.exists() => report.ok("spool", &format!("{} is made by run", folder.display())),
        Err(error) => report.fail("spool", &error.to_string()),
    }
    BatchSpool::database(folder).exists()
}

/// The address with the account, never with the password.
fn address(database: &Database) -> String {
    let address = database.to_string();
    match (database, address.strip_prefix("mysql://")) {
        (Database::Mysql(server), Some(place)) => format!("mysql://{}@{place}", server.user),
        _ => address,
    }
}

fn with_remedy(database: &Database, error: &CatalogError) -> String {
    match (error, database) {
        (CatalogError::Unavailable { .. }, Database::Mysql(_)) => {
            format!("{error}; check that the server runs, and host and port in --db or in MYSQL_HOST and MYSQL_PORT")
        }
        _ => error.to_string(),
    }
}

fn table(catalog: &AnyCatalog) -> String {
    let name = catalog.table();
    match catalog.layout() {
        None => format!("{name}, whose rows say the path in the archive themselves"),
        Some(layout) => {
            let (word, rule) = match layout {
                Layout::Action => ("action", "<5 digits>/<pub_id>/<time>_<action>/<plots|outputs>/<file>"),
                Layout::Type => ("type", "<5 digits>/<type>/<file>"),
            };
            let limit = match catalog.path_limit() {
                usize::MAX => String::new(),
                limit => format!(", paths of up to {limit} characters"),
            };
            format!("{name}, layout {word} ({rule}){limit}; all columns there and writable")
        }
    }
}

async fn rows(service: &Service, catalog: &AnyCatalog, report: &mut CheckReport) {
    let selection = &service.options.selection;
    let totals = match catalog.totals().await {
        Ok(totals) => totals,
        Err(error) => return report.fail("rows", &error.to_string()),
    };
    let counts = format!("{} pending, {} given up, {} copied", totals.pending, totals.given_up, totals.copied);
    match catalog::strangers(catalog, &selection.targets).await {
        Ok(Some(strangers)) => return report.say("rows", CheckStatus::Warn, &format!("{counts}: {strangers}")),
        Ok(None) => {}
        Err(error) => return report.fail("rows", &error.to_string()),
    }
    let option = match catalog.layout() {
        Some(_) => "--target",
        None => "--archive-name",
    };
    if totals.pending + totals.given_up + totals.copied == 0 && service.spool.is_none() {
        if let Some(feed) = service.options.node.as_ref().and_then(StorageNode::feed) {
            let why = format!("{counts}: {} has not proven any yet", feed.node);
            return report.say("rows", CheckStatus::Ok, &why);
        }
        let names = selection.targets.join(", ");
        let why = format!("{counts}: no row at all, also for {names}; check {option} if files were registered already");
        return report.say("rows", CheckStatus::Warn, &why);
    }
    if totals.given_up > 0 {
        let most = selection.max_attempts;
        let first = match catalog.given_up(&Retry::All, 1).await {
            Ok(known) => known
                .first()
                .map(|note| format!(", first row {}, {}: {}", note.id.0, note.path, reason(note)))
                .unwrap_or_default(),
            Err(error) => return report.fail("rows", &error.to_string()),
        };
        let why = format!(
            "{counts}; given up after {most} failed attempts{first}. Once that is mended, `pysmurf-archiver retry --all` \
             with the same --db and {option} says why and has them tried again; so has a larger --max-copy-attempts"
        );
        return report.say("rows", CheckStatus::Warn, &why);
    }
    report.ok("rows", &counts);
}

/// Whether it can be read again why rows failed.
async fn notes(catalog: &AnyCatalog) -> String {
    match catalog.keeping().await {
        Ok(Keeping::There) => format!("why rows failed is kept in {NOTES}"),
        Ok(Keeping::Later) => format!("why rows fail will be kept in {NOTES}, which the first failure makes"),
        Ok(Keeping::Not(why)) => format!(
            "why rows fail is said only in the log of run, since {NOTES} is not there and {why}: let init-db make it by \
             another account, and grant SELECT, INSERT, UPDATE, DELETE on it"
        ),
        Err(error) => format!("whether it is kept why rows fail is not known: {error}"),
    }
}

/// The files of the rows that have waited longest.
async fn sources(service: &Service, catalog: &AnyCatalog, report: &mut CheckReport) {
    let pending = match catalog.pending(RecordId(0), LOOKED_AT).await {
        Ok(pending) => pending,
        Err(error) => return report.fail("source", &error.to_string()),
    };
    let looked_at = pending.len();
    let mut files = Vec::new();
    let mut bad = Vec::new();
    for row in pending {
        match row {
            Pending::Unusable { id, source, why, .. } => {
                bad.push(format!("row {}, {}: {why}", id.0, source.as_deref().unwrap_or("(no path)")));
            }
            Pending::Ready(record) => match service.sources.admit(&record.source).and_then(|()| place(&record)) {
                Ok(_) => files.push(record.source),
                Err(why) => bad.push(format!("row {}, {}: {why}", record.id.0, record.source.display())),
            },
        }
    }
    let sources = service.sources.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let bad = |file: &PathBuf| Some(format!("{}: {}", file.display(), trouble(file, &sources)?));
        files.iter().filter_map(bad).collect::<Vec<_>>()
    });
    bad.extend(looked.await.unwrap_or_else(|error| vec![error.to_string()]));
    let which = match looked_at {
        0 => return report.not_checked(&["source"], "no row is pending"),
        1 => "the only pending row".to_owned(),
        looked_at => format!("the {looked_at} oldest pending rows"),
    };
    match bad.first() {
        None => report.ok("source", &format!("the files of {which} can be read")),
        Some(first) if bad.len() == looked_at => report.fail(
            "source",
            &format!("no file of {which} can be had, first {first}; is the data of the monitors mounted here under the same path?"),
        ),
        Some(first) => {
            let why = format!("{} of {which} cannot be copied, first {first}; what is wrong with a file itself counts failed attempts", bad.len());
            report.say("source", CheckStatus::Warn, &why);
        }
    }
}

/// What keeps a file from being read, if something does.
fn trouble(path: &Path, sources: &Sources) -> Option<String> {
    let not_regular = || Some("it is not a regular file".to_owned());
    match sources.metadata(path) {
        Ok(meta) if !meta.is_file() => return not_regular(),
        Ok(_) => {}
        Err(error) => return Some(error.to_string()),
    }
    sources.open(path).err().map(|error| error.to_string())
}
