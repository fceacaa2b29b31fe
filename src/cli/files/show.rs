//! `files show`: where is my file?

use super::super::flags::files::ShowArgs;
use super::super::output::{json_fields, print, printable, say};
use super::super::{SOME_FAILED, USAGE};
use super::wording::{age, moment};
use super::{inspect, tell_strangers};
use crate::catalog::at_node::{AtNodeState, AtNodes};
use crate::catalog::files::{FileQuery, FileRow, FileState};
use crate::catalog::nodes::NodeStand;
use crate::catalog::{AnyCatalog, Catalog, RecordId};
use crate::clock::unix_now;
use crate::console::files::told::{FIELDS, FilePlaces, hex, reason, unusable, values};
use crate::service::runtime;
use anyhow::Result;

/// Rows that one name may mean.
const SHOWN: usize = 20;
/// Rows with a name like it that are told where there is none.
const LIKE: usize = 5;

/// Shows the rows of a file.
pub(super) fn show(args: &ShowArgs) -> Result<u8> {
    runtime()?.block_on(async {
        let catalog = inspect(&args.table).await?;
        let code = show_in(args, &catalog).await;
        catalog.close().await;
        code
    })
}

async fn show_in(args: &ShowArgs, catalog: &AnyCatalog) -> Result<u8> {
    let found = match (args.id, &args.path) {
        (Some(id), _) => {
            let query = FileQuery { ids: Some(vec![RecordId(id)]), ..FileQuery::default() };
            catalog.files(&query, RecordId(i64::MIN), 1).await?.rows
        }
        (None, Some(path)) => catalog.find(&meant(path), SHOWN + 1).await?,
        (None, None) => Vec::new(),
    };
    if found.is_empty() {
        tell_absence(args, catalog).await?;
        return Ok(USAGE);
    }
    for (at, row) in found.iter().take(SHOWN).enumerate() {
        let stands = catalog.stands(row.id()).await?;
        let given_up = if stands.is_empty() { Vec::new() } else { given_up_by(catalog, row.id()).await? };
        if args.json {
            let nodes = (!stands.is_empty()).then(|| ("nodes", json_of(&stands, &given_up)));
            print(&json_fields(FIELDS.into_iter().zip(values(row)).chain(nodes)));
            continue;
        }
        if at > 0 {
            print("");
        }
        for line in lines(row, &given_up, catalog) {
            print(&line);
        }
        for stand in &stands {
            print(&format!("  {:<11} {}", "node", printable(&words_of(stand, &given_up))));
        }
    }
    if found.len() > SHOWN {
        say(&format!("There are more rows of that name than {SHOWN}; name more of the path"));
    }
    let copied = found.iter().all(|row| row.state == FileState::Copied);
    Ok(if copied { 0 } else { SOME_FAILED })
}

/// The storage nodes that alone gave a row up.
async fn given_up_by(catalog: &AnyCatalog, id: RecordId) -> Result<Vec<String>> {
    let at = AtNodes::failed_at(&catalog.node_names().await?);
    let query = FileQuery { ids: Some(vec![id]), at, ..FileQuery::default() };
    let rows = catalog.files(&query, RecordId(id.0.saturating_sub(1)), 1).await?.rows;
    let given_up = rows.into_iter().filter_map(|row| row.at).filter(|at| at.state == AtNodeState::GivenUp);
    Ok(given_up.map(|at| at.node).collect())
}

/// How a storage node stands to a row, in words.
fn words_of(stand: &NodeStand, given_up: &[String]) -> String {
    let NodeStand { node, proof, owes, failed, from } = stand;
    let state = match (proof, owes, from) {
        (Some((path, at)), ..) => format!("{path}, proven on {}", moment(*at)),
        (None, _, Some(from)) => format!("has no proven copy; it comes from {from}, by `relay`"),
        (None, true, None) => "owes its copy".to_owned(),
        (None, false, None) => "has no proven copy".to_owned(),
    };
    let gave_up = if given_up.contains(node) { "gave it up: " } else { "" };
    let failed = failed.as_ref().map(|(times, why)| format!("; {gave_up}failed {times} times, the last because {why}"));
    format!("{node}: {state}{}", failed.unwrap_or_default())
}

fn json_of(stands: &[NodeStand], given_up: &[String]) -> serde_json::Value {
    let one = |NodeStand { node, proof, owes, failed, from }: &NodeStand| {
        serde_json::json!({
            "node": node,
            "copy": proof.as_ref().map(|(path, _)| path),
            "proven_at": proof.as_ref().map(|(_, at)| at),
            "owes": owes,
            "from": from,
            "given_up": given_up.contains(node),
            "attempts": failed.as_ref().map_or(0, |(times, _)| *times),
            "reason": failed.as_ref().map(|(_, why)| why),
        })
    };
    stands.iter().map(one).collect()
}

/// A file that is here and named in the way of the shell is meant by its full path.
fn meant(path: &str) -> String {
    let relative = path.starts_with("./") || path.starts_with("../");
    match std::path::absolute(path) {
        Ok(full) if relative => full.to_string_lossy().into_owned(),
        _ => path.to_owned(),
    }
}

/// Says that there is no row, and what there is that may be meant.
async fn tell_absence(args: &ShowArgs, catalog: &AnyCatalog) -> Result<()> {
    let place = catalog.describe();
    let Some(path) = &args.path else {
        say(&format!("pysmurf-archiver: No row {} in {place}", args.id.unwrap_or_default()));
        tell_strangers(catalog, &args.table).await;
        return Ok(());
    };
    say(&format!("pysmurf-archiver: No row of {place} is of a file {}", printable(path)));
    let name = path.rsplit('/').next().unwrap_or_default();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let near = match stem.chars().count() {
        0..3 => Vec::new(),
        _ => {
            let query =
                FileQuery { path: Some(format!("*{}*", stem.replace(['*', '?'], "?"))), ..FileQuery::default() };
            let mut pages = super::Pages::new(catalog, query);
            pages.next(LIKE).await?
        }
    };
    for row in &near {
        say(&format!("There is row {}: {}", row.id().0, printable(FilePlaces::of(row).shown())));
    }
    if near.is_empty() {
        say("A file that is not registered is not copied; `files add` registers it");
        tell_strangers(catalog, &args.table).await;
    }
    Ok(())
}

/// A row for people: first how it stands, then what is known of it. `given_up`: the storage nodes that alone gave it up.
fn lines(row: &FileRow, given_up: &[String], catalog: &AnyCatalog) -> Vec<String> {
    let places = FilePlaces::of(row);
    let now = unix_now();
    let since = |at: f64| format!("{} ({} ago)", moment(at), age(now - at));
    let mut lines = vec![sentence(row, given_up)];
    let mut tell = |what: &str, text: String| lines.push(format!("  {what:<11} {}", printable(&text)));
    let owner = if catalog.layout().is_none() { "archive" } else { "target" };
    tell("row", format!("{} of {}, {owner} {}", row.id().0, catalog.describe(), row.owner));
    if let Some(source) = &places.source {
        tell("file", source.clone());
    }
    let beneath = if catalog.layout().is_none() { ", beneath the archive's base" } else { "" };
    if let Some(copy) = &places.copy {
        tell("copy", format!("{copy}{beneath}"));
    }
    if let Some(place) = &places.place {
        tell("goes to", format!("{place}, beneath the archive's base"));
    }
    if let Some(time) = row.time {
        tell(if catalog.layout().is_none() { "registered" } else { "file's time" }, since(time));
    }
    if let Some(md5) = row.md5() {
        match row.state {
            FileState::Copied => {
                let when = row.copied_at.map(|at| format!(", on {}", moment(at))).unwrap_or_default();
                tell("proof", format!("MD5 {}, found in the copy{when}", hex(&md5)));
            }
            _ => tell("MD5", format!("{}, as registered", hex(&md5))),
        }
    }
    if row.attempts() > 0 {
        tell("failed", if row.attempts() == 1 { "once".into() } else { format!("{} times", row.attempts()) });
    }
    if let Some(why) = reason(row) {
        let at = row.reason.as_ref().map(|(at, _)| format!(", {}", since(*at))).unwrap_or_default();
        tell("why", format!("{why}{at}"));
    }
    if let Some(removed) = row.removed_at {
        tell("local file", if removed > 0.0 { format!("deleted {}", since(removed)) } else { "was gone".to_owned() });
    }
    tell("next", next(row, given_up));
    lines
}

/// How it stands, in one sentence.
fn sentence(row: &FileRow, given_up: &[String]) -> String {
    let nodes = given_up.join(" and ");
    let times = |count: i64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    match row.state {
        FileState::Waiting | FileState::Retrying if !nodes.is_empty() => {
            format!("Not copied to all its storage nodes: {nodes} gave it up.")
        }
        FileState::Copied if !nodes.is_empty() => format!("Copied, and the copy is proven; {nodes} gave it up."),
        FileState::Waiting if unusable(row).is_some() => "Not copied: the row cannot be used as it stands.".into(),
        FileState::Waiting => "Not copied yet: it waits for its turn.".into(),
        FileState::Retrying => format!("Not copied: it failed {}, and will be tried again.", times(row.attempts())),
        FileState::GivenUp => format!("Not copied, and given up: it failed {}.", times(row.attempts())),
        FileState::Copied => "Copied, and the copy is proven.".into(),
        FileState::Ignored(_) => "Not copied, and nobody will copy it: it is ignored.".into(),
    }
}

/// What is to be done about it.
fn next(row: &FileRow, given_up: &[String]) -> String {
    let id = row.id().0;
    let changed = reason(row).is_some_and(|why| why.contains("has changed since"));
    let accept = format!("if it is right as it is now, `files accept --id {id}`");
    match row.state {
        FileState::Retrying if changed => accept,
        FileState::Waiting | FileState::Retrying | FileState::Copied if !given_up.is_empty() => {
            format!("see to the cause at {}, then `files retry --id {id}`", given_up.join(" and "))
        }
        FileState::Waiting => "nothing, as long as `run` is at work".into(),
        FileState::Retrying => "nothing, as long as `run` is at work and the cause passes".into(),
        FileState::GivenUp if changed => accept,
        FileState::GivenUp => {
            format!("see to the cause, then `files retry --id {id}`; or `files ignore --id {id}` if it is not wanted")
        }
        FileState::Copied => format!("nothing; `files verify --id {id}` has the copy read again"),
        FileState::Ignored(_) => format!("`files unignore --id {id}`, if it is to be copied after all"),
    }
}
