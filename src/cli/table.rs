//! `init-db` and `retry`: what is done to the table alone.

use super::flags::RetryArgs;
use super::flags::files::InitDbArgs;
use super::output::{print, printable, say};
use super::plan;
use crate::catalog::{self, Catalog, FarLink, LinkLimits, Note, RecordId, Retry};
use crate::service::runtime;
use anyhow::Result;
use std::collections::BTreeSet;

/// Rows that are shown of those given a new chance.
const SHOWN_MOST: usize = 100;

/// Gives rows that were given up a new chance.
pub(super) fn retry(args: RetryArgs) -> Result<u8> {
    let (database, options) = plan::table(&args.table)?;
    let which = match (args.all, args.path) {
        (true, _) => Retry::All,
        (false, Some(pattern)) => Retry::Pattern(pattern),
        (false, None) => Retry::Ids(args.id.into_iter().map(RecordId).collect()),
    };
    let chosen = options.selection.targets.clone();
    let (known, changed) = runtime()?.block_on(async {
        // A database that is not there has no rows to try again, and must not be made.
        let options = catalog::Options { create: false, ..options };
        let catalog = catalog::open(&database, options).await?;
        let known = catalog.given_up(&which, SHOWN_MOST).await;
        let changed = match known {
            Ok(_) => catalog.retry(&which).await,
            Err(_) => Ok(0),
        };
        if matches!(changed, Ok(0))
            && let Ok(Some(strangers)) = catalog::strangers(&catalog, &chosen).await
        {
            say(&format!("pysmurf-archiver: {strangers}"));
        }
        catalog.close().await;
        anyhow::Ok((known?, changed?))
    })?;
    let shown = known.iter().map(|note| note.id).collect::<BTreeSet<_>>().len() as u64;
    for note in &known {
        let node = note.node.as_ref().map(|node| format!(", at storage node {node}")).unwrap_or_default();
        print(&format!("row {}, {}{node}: {}", note.id.0, printable(&note.path), printable(&reason(note))));
    }
    if changed > shown {
        print(&format!("… and {} more", changed - shown));
    }
    if changed > 0 {
        super::console::have_looked(&chosen);
    }
    print(&Retry::told(changed));
    Ok(0)
}

/// Why a row had failed, as far as that was kept.
pub(super) fn reason(note: &Note) -> String {
    match &note.reason {
        Some((_, why)) => why.clone(),
        None => "why it failed was not kept; see the log of run".to_owned(),
    }
}

/// Creates tables where they are absent, and our indexes if they are wanted.
pub(super) fn init_db(args: InitDbArgs) -> Result<u8> {
    let database = plan::database(&args.database)?;
    let told = |new| if new { "created" } else { "was there already, left as it is" };
    let runtime = runtime()?;
    for table in runtime.block_on(catalog::init_db(&database))? {
        print(&format!("Table {} of {database}: {}", table.table, told(table.new)));
    }
    if args.fleet || args.nodes || args.link_node.is_some() {
        let made = match args.nodes {
            true => runtime.block_on(catalog::make_node_tables(&database)),
            false => runtime.block_on(catalog::make_fleet(&database)),
        };
        for table in made? {
            print(&format!("Table {} of {database}: {}", table.table, told(table.new)));
        }
    }
    if let Some(node) = args.link_node {
        if args.link_sessions.is_none() && args.link_bandwidth.is_none() {
            anyhow::bail!(
                "Option --link-node sets what a link may have; give --link-sessions, --link-bandwidth, or both"
            );
        }
        let some = |number: u64| Some(number).filter(|number| *number > 0);
        let limits = LinkLimits {
            sessions: args.link_sessions.map(|number| Some(number).filter(|number| *number > 0)),
            bandwidth: args.link_bandwidth.map(some),
        };
        let link = FarLink { site: args.link_site.clone(), node: node.clone() };
        runtime.block_on(catalog::limit_link(&database, link, limits))?;
        print(&format!("Link from {} to {} of {database}: limited", printable(&args.link_site), printable(&node)));
    }
    if args.indexes {
        for index in runtime.block_on(catalog::make_indexes(&database))? {
            print(&format!("Index {} of {database}: {}", index.table, told(index.new)));
        }
    }
    Ok(0)
}
