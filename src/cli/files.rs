//! `files`: questions to the table, and what is done to its rows, beside a `run` or without one.

mod add;
mod change;
mod list;
mod meter;
mod prunable;
mod show;
mod timecodes;
mod verify;
pub(super) mod wording;

use super::flags::TableArgs;
use super::flags::files::{ChoiceArgs, FilesArgs, FilesVerb};
use super::output::say;
use super::{plan, table};
use crate::catalog::files::{FileQuery, FileStates};
use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::{self, AnyCatalog, Catalog, RecordId};
use crate::console::files::Pages;
use anyhow::{Result, anyhow, bail};

/// Rows that are read at once.
const PAGE: usize = 2000;

/// Does what the verb says.
pub(super) fn files(args: FilesArgs) -> Result<u8> {
    match args.verb {
        FilesVerb::List(args) => list::list(&args),
        FilesVerb::Show(args) => show::show(&args),
        FilesVerb::Add(args) => add::add(&args),
        FilesVerb::Retry(args) => table::retry(args),
        FilesVerb::Ignore(args) => change::ignore(&args),
        FilesVerb::Unignore(args) => change::unignore(&args),
        FilesVerb::Accept(args) => change::accept(&args),
        FilesVerb::Recopy(args) => change::recopy(&args),
        FilesVerb::Owe(args) => change::owe(&args),
        FilesVerb::Prunable(args) => prunable::prunable(&args),
        FilesVerb::Timecodes(args) => timecodes::timecodes(&args),
        FilesVerb::Verify(args) => verify::verify(&args),
    }
}

/// A table to be read and not changed, not even made.
async fn inspect(args: &TableArgs) -> Result<AnyCatalog> {
    let (database, options) = plan::table(args)?;
    Ok(catalog::inspect(&database, options).await?)
}

/// A table to be changed, which must be there.
async fn open(args: &TableArgs) -> Result<AnyCatalog> {
    let (database, options) = plan::table(args)?;
    Ok(catalog::open(&database, catalog::Options { create: false, ..options }).await?)
}

/// The table, where it is SupRsync's.
fn suprsync<'a>(catalog: &'a AnyCatalog, verb: &str) -> Result<&'a SqliteCatalog> {
    match catalog {
        AnyCatalog::Sqlite(table) => Ok(table),
        AnyCatalog::Mysql(_) => bail!("{verb} is for databases of SupRsync, and {} is none", catalog.describe()),
    }
}

/// Says which of the chosen names no row has: then nothing was found for a reason.
async fn tell_strangers(catalog: &AnyCatalog, args: &TableArgs) {
    let Ok((_, options)) = plan::table(args) else { return };
    if let Ok(Some(strangers)) = catalog::strangers(catalog, &options.selection.targets).await {
        say(&format!("pysmurf-archiver: {strangers}"));
    }
}

/// The rows that are chosen. Of those named by id any state is asked for, so that it can be told why one does not fit.
fn chosen(choice: &ChoiceArgs, states: FileStates) -> FileQuery {
    let ids = (!choice.id.is_empty()).then(|| choice.id.iter().copied().map(RecordId).collect());
    let states = if ids.is_some() { FileStates::default() } else { states };
    FileQuery { states, ids, path: choice.path.clone(), ..FileQuery::default() }
}

/// What is said where the rows have no storage node of this name.
fn no_node<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> anyhow::Error {
    let known = known.map(String::as_str).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none" } else { &known };
    anyhow!("Option --node: these rows have no storage node {name:?}; they have {known}")
}

/// So many rows, in words.
fn rows(count: u64) -> String {
    if count == 1 { "1 row".into() } else { format!("{count} rows") }
}
