//! `files list`: rows in a table for people, or a line each for programs.

use super::super::flags::files::ListArgs;
use super::super::output::{json_fields, print, printable};
use super::wording::age;
use super::{PAGE, Pages, inspect, rows, tell_strangers};
use crate::catalog::files::{FileQuery, FileRow, FileState, FileStates};
use crate::catalog::{AnyCatalog, Catalog};
use crate::clock::unix_now;
use crate::console::files::told::{FIELDS, FilePlaces, reason, state_words, values};
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
    let query = FileQuery { states, ids: None, path: args.path.clone(), before };
    let for_people = !args.json && !args.csv;
    let limit = match args.limit {
        Some(0) => u64::MAX,
        Some(limit) => limit,
        None if for_people => SHOWN,
        None => u64::MAX,
    };
    let mut listing = match (args.json, args.csv) {
        (true, _) => ListForm::Json,
        (_, true) => ListForm::csv()?,
        _ => ListForm::Table { head: true },
    };
    let mut pages = Pages::new(catalog, query);
    let mut listed = 0u64;
    loop {
        let room = limit.saturating_sub(listed).saturating_add(1).min(PAGE as u64);
        let mut page = pages.next(room as usize).await?;
        if page.is_empty() {
            break;
        }
        let more = listed + page.len() as u64 > limit;
        page.truncate((limit - listed) as usize);
        listed += page.len() as u64;
        listing.put(&page)?;
        if more {
            if for_people {
                print(&format!("The first {}; --limit N for more, 0 for all", rows(listed)));
            }
            return Ok(());
        }
    }
    if for_people {
        print(&match listed {
            0 => "No such row".to_owned(),
            listed => rows(listed),
        });
    }
    if listed == 0 {
        tell_strangers(catalog, &args.table).await;
    }
    Ok(())
}

/// In which form.
enum ListForm {
    Table { head: bool },
    Json,
    Csv(Box<csv::Writer<io::Stdout>>),
}

impl ListForm {
    fn csv() -> Result<Self> {
        let mut writer = csv::Writer::from_writer(io::stdout());
        writer.write_record(FIELDS).map_err(io_error)?;
        writer.flush()?;
        Ok(Self::Csv(Box::new(writer)))
    }

    fn put(&mut self, page: &[FileRow]) -> Result<()> {
        match self {
            Self::Table { head } => {
                let text = table(page, std::mem::take(head));
                write!(io::stdout(), "{text}").context("Cannot write")?;
            }
            Self::Json => {
                let mut text = String::new();
                for row in page {
                    text.push_str(&json_fields(FIELDS.into_iter().zip(values(row))));
                    text.push('\n');
                }
                io::stdout().write_all(text.as_bytes())?;
            }
            Self::Csv(writer) => {
                for row in page {
                    let fields = values(row).map(|value| match value {
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

/// The rows, each with why it is not copied on a line below. `head`: with a line above that names the columns.
fn table(page: &[FileRow], head: bool) -> String {
    let now = unix_now();
    let lines: Vec<[String; 5]> = page
        .iter()
        .map(|row| {
            let places = FilePlaces::of(row);
            let path = match (&places.source, &places.copy) {
                (Some(source), Some(copy)) => format!("{} -> {}", printable(source), printable(copy)),
                _ => printable(places.shown()),
            };
            let tries = if row.state == FileState::Waiting { String::new() } else { row.attempts().to_string() };
            let age = row.time.map(|time| age(now - time)).unwrap_or_default();
            [row.id().0.to_string(), state_words(row.state).to_owned(), tries, age, path]
        })
        .collect();
    let names = ["ID", "STATE", "FAILED", "AGE", "FILE"].map(str::to_owned);
    let width = |column: usize| {
        let widths = lines.iter().chain([&names]).map(|line| line[column].chars().count());
        widths.max().unwrap_or(0).min(PATH_WIDTH)
    };
    let widths = [width(0), width(1), width(2), width(3)];
    let line = |[id, state, tries, age, path]: &[String; 5]| {
        let [of_id, of_state, of_tries, of_age] = widths;
        format!("{id:>of_id$}  {state:of_state$}  {tries:>of_tries$}  {age:>of_age$}  {path}\n")
    };
    let indent = widths[0] + 2;
    let mut text = if head { line(&names) } else { String::new() };
    for (row, columns) in page.iter().zip(&lines) {
        text.push_str(&line(columns));
        if let Some(why) = reason(row) {
            let why = printable(&why);
            text.push_str(&format!("{:indent$}{why}\n", ""));
        }
    }
    text
}
