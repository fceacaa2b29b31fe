//! `files list`: rows in a table for people, or a line each for programs.

use super::super::flags::files::ListArgs;
use super::super::output::{json_fields, print, printable};
use super::wording::age;
use super::{PAGE, Pages, inspect, no_node, rows, tell_strangers};
use crate::catalog::at_node::AtNodes;
use crate::catalog::files::{FileQuery, FileRow, FileState, FileStates};
use crate::catalog::{AnyCatalog, Catalog, RecordId, Spread, StorageNode};
use crate::clock::unix_now;
use crate::console::files::told::{
    FIELDS, FilePlaces, NODE_FIELDS, node_reason, node_state_words, node_values, reason, state_words, values,
};
use crate::service::runtime;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Rows of a table for people.
const SHOWN: u64 = 1000;
/// Widest path that sets the width of its column.
const PATH_WIDTH: usize = 60;

/// Lists rows.
pub(super) fn list(args: &ListArgs) -> Result<u8> {
    runtime()?.block_on(async {
        let catalog = inspect(&args.table).await?;
        let listed = list_all(args, &catalog).await;
        catalog.close().await;
        match listed {
            // Who reads no further has seen enough.
            Err(error)
                if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) =>
            {
                Ok(0)
            }
            listed => listed.map(|()| 0),
        }
    })
}

async fn list_all(args: &ListArgs, catalog: &AnyCatalog) -> Result<()> {
    let mut states =
        FileStates { pending: args.pending, failed: args.failed, copied: args.copied, ignored: args.ignored };
    if states.any() {
        (states.pending, states.failed) = (true, true);
    }
    let before = args.older_than.map(|age| unix_now() - age.as_secs_f64());
    let at = at_nodes(args, catalog, states).await?;
    let query = FileQuery { states, ids: None, path: args.path.clone(), before, at };
    let for_people = !args.json && !args.csv;
    let limit = match args.limit {
        Some(0) => u64::MAX,
        Some(limit) => limit,
        None if for_people => SHOWN,
        None => u64::MAX,
    };
    // What there is of several storage nodes alone.
    let nodes = query.at != AtNodes::Nowhere;
    let mut listing = match (args.json, args.csv) {
        (true, _) => ListForm::Json { nodes },
        (_, true) => ListForm::csv(nodes)?,
        _ => ListForm::Table { head: true, nodes },
    };
    let mut pages = Pages::new(catalog, query);
    let (mut listed, mut count) = (0u64, RowCount::default());
    loop {
        let room = limit.saturating_sub(listed).saturating_add(1).min(PAGE as u64);
        let mut page = pages.next(room as usize).await?;
        if page.is_empty() {
            break;
        }
        let more = listed + page.len() as u64 > limit;
        page.truncate((limit - listed) as usize);
        listed += page.len() as u64;
        count.add(&page);
        listing.put(&page)?;
        if more {
            if for_people {
                print(&format!("The first {}; --limit N for more, 0 for all", count.words()));
            }
            return Ok(());
        }
    }
    if for_people {
        print(&match listed {
            0 => "No such row".to_owned(),
            _ => count.words(),
        });
    }
    if listed == 0 {
        tell_strangers(catalog, &args.table).await;
    }
    Ok(())
}

/// At which storage nodes rows are asked for: at that which is named, or where anything failed. Without any that are known to the
/// tables there is no more to ask.
async fn at_nodes(args: &ListArgs, catalog: &AnyCatalog, states: FileStates) -> Result<AtNodes> {
    if args.node.is_none() && !states.failed {
        return Ok(AtNodes::Nowhere);
    }
    let names = catalog.node_names().await?;
    let Some(name) = &args.node else { return Ok(AtNodes::failed_at(&names)) };
    let spread = match (args.share, args.copies) {
        (true, _) => Spread::Share,
        (false, copies) => Spread::Mirror { copies: copies.unwrap_or(names.direct.len()) },
    };
    let node = StorageNode::known(name, &names, spread).ok_or_else(|| no_node(name, names.all()))?;
    Ok(AtNodes::LackedBy(node))
}

/// Lines, and the rows that they are of: one may have a line for each storage node.
#[derive(Default)]
struct RowCount {
    lines: u64,
    rows: u64,
    last: Option<RecordId>,
}

impl RowCount {
    fn add(&mut self, page: &[FileRow]) {
        for id in page.iter().map(FileRow::id) {
            self.lines += 1;
            self.rows += u64::from(self.last.replace(id) != Some(id));
        }
    }

    fn words(&self) -> String {
        match self.lines {
            lines if lines == self.rows => rows(self.rows),
            lines => format!("{lines} lines of {}", rows(self.rows)),
        }
    }
}

/// In which form; `nodes`: with what is said of storage nodes.
enum ListForm {
    Table { head: bool, nodes: bool },
    Json { nodes: bool },
    Csv { writer: Box<csv::Writer<io::Stdout>>, nodes: bool },
}

impl ListForm {
    /// `nodes`: with what is said of storage nodes.
    fn csv(nodes: bool) -> Result<Self> {
        let mut writer = csv::Writer::from_writer(io::stdout());
        writer.write_record(FIELDS.into_iter().chain(NODE_FIELDS.into_iter().filter(|_| nodes))).map_err(io_error)?;
        writer.flush()?;
        Ok(Self::Csv { writer: Box::new(writer), nodes })
    }

    fn put(&mut self, page: &[FileRow]) -> Result<()> {
        match self {
            Self::Table { head, nodes } => {
                let text = table(page, std::mem::take(head), *nodes);
                write!(io::stdout(), "{text}").context("Cannot write")?;
            }
            Self::Json { nodes } => {
                let mut text = String::new();
                for row in page {
                    let at_node = NODE_FIELDS.into_iter().zip(node_values(row)).filter(|_| *nodes);
                    text.push_str(&json_fields(FIELDS.into_iter().zip(values(row)).chain(at_node)));
                    text.push('\n');
                }
                io::stdout().write_all(text.as_bytes())?;
            }
            Self::Csv { writer, nodes } => {
                for row in page {
                    let at_node = node_values(row).into_iter().filter(|_| *nodes);
                    let fields = values(row).into_iter().chain(at_node).map(|value| match value {
                        Value::Null => String::new(),
                        // A program is to have names as they are, and people nothing that a terminal obeys.
                        Value::String(text) if io::stdout().is_terminal() => printable(&text),
                        Value::String(text) => text,
                        value => value.to_string(),
                    });
                    writer.write_record(fields).map_err(io_error)?;
                }
                writer.flush()?;
            }
        }
        Ok(())
    }
}

fn io_error(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        error => anyhow::anyhow!("Cannot write a line: {error:?}"),
    }
}

/// The rows, each with why it is not copied on a line below. `head`: with a line above that names the columns; `nodes`: one of them
/// is for storage nodes.
fn table(page: &[FileRow], head: bool, nodes: bool) -> String {
    let lines: Vec<_> = page.iter().map(columns).collect();
    let names = COLUMNS.map(str::to_owned);
    let last = COLUMNS.len() - 1;
    let width = |column: usize| {
        let widths = lines.iter().chain([&names]).map(|line| line[column].chars().count());
        widths.max().unwrap_or(0).min(PATH_WIDTH)
    };
    let widths: Vec<_> = (0..last).map(width).collect();
    let line = |columns: &[String; 6]| {
        let mut text = String::new();
        for ((name, column), &width) in COLUMNS.iter().zip(columns).zip(&widths) {
            match *name {
                "NODE" if !nodes => {}
                "STATE" | "NODE" => text.push_str(&format!("{column:width$}  ")),
                _ => text.push_str(&format!("{column:>width$}  ")),
            }
        }
        format!("{text}{}\n", columns[last])
    };
    let indent = widths[0] + 2;
    let mut text = if head { line(&names) } else { String::new() };
    for (row, columns) in page.iter().zip(&lines) {
        text.push_str(&line(columns));
        let why = match &row.at {
            Some(at) => node_reason(row, at),
            None => reason(row),
        };
        if let Some(why) = why {
            let why = printable(&why);
            text.push_str(&format!("{:indent$}{why}\n", ""));
        }
    }
    text
}

/// What a table for people says of a row, the last without a width.
const COLUMNS: [&str; 6] = ["ID", "STATE", "FAILED", "AGE", "NODE", "FILE"];

/// The same of one row, or of it at a storage node.
fn columns(row: &FileRow) -> [String; 6] {
    let places = FilePlaces::of(row);
    let path = match (&places.source, &places.copy) {
        (Some(source), Some(copy)) => format!("{} -> {}", printable(source), printable(copy)),
        _ => printable(places.shown()),
    };
    let (state, attempts, node) = match &row.at {
        Some(at) => (node_state_words(at.state), (at.attempts > 0).then_some(at.attempts), at.node.as_str()),
        None => (state_words(row.state), (row.state != FileState::Waiting).then(|| row.attempts()), ""),
    };
    let tries = attempts.map(|attempts| attempts.to_string()).unwrap_or_default();
    let age = row.time.map(|time| age(unix_now() - time)).unwrap_or_default();
    [row.id().0.to_string(), state.to_owned(), tries, age, printable(node), path]
}
