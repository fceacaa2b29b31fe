//! `batch`: work that is not a row, handed over in a spool folder and asked for there.

mod manifest;

use super::files::wording::bytes;
use super::flags::batch::{AddBatchArgs, BatchArgs, BatchSpoolArgs, BatchVerb, ListBatchArgs, NamedBatchArgs};
use super::output::{print, printable, say};
use super::{SOME_FAILED, USAGE};
use crate::batches::request::{BatchId, BatchRequest, REQUEST_MOST};
use crate::batches::spool::BatchSpool;
use crate::batches::state::{BatchState, BatchStatus};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{self, Read};

/// Does what the verb says.
pub(super) fn batch(args: BatchArgs) -> Result<u8> {
    match args.verb {
        BatchVerb::Add(args) => add(&args),
        BatchVerb::Status(args) => status(&args),
        BatchVerb::Cancel(args) => cancel(&args),
        BatchVerb::List(args) => list(&args),
        BatchVerb::FromManifest(args) => manifest::from_manifest(&args),
    }
}

/// How a batch stands for people: one that nobody has taken has no state.
enum BatchStand {
    New,
    Known(BatchState),
}

impl BatchStand {
    fn of(spool: &BatchSpool, id: &BatchId) -> Result<Option<Self>> {
        // In this order: a request goes only once there is a state.
        let is_new = spool.is_new(id);
        let state = spool.state(id).with_context(|| format!("Batch {id}"))?;
        Ok(match state {
            Some(state) => Some(Self::Known(state)),
            None if is_new => Some(Self::New),
            None => None,
        })
    }

    fn word(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Known(state) => state.status.name(),
        }
    }

    fn json(&self, id: &BatchId) -> Result<String> {
        Ok(match self {
            Self::New => serde_json::json!({"batch": id.as_str(), "status": self.word()}).to_string(),
            Self::Known(state) => serde_json::to_string(state)?,
        })
    }

    /// In a sentence.
    fn told(&self, id: &BatchId) -> String {
        let state = match self {
            Self::New => return format!("Batch {id} is handed over, and no run has taken it yet"),
            Self::Known(state) => state,
        };
        let files = format!("{} of {}, {}", state.done, counted(state.files), bytes(state.bytes));
        let why = state.error.as_deref().map(printable).unwrap_or_default();
        match (state.status, why.is_empty()) {
            (BatchStatus::Done, _) => format!("Batch {id} is done: {}, {}", counted(state.files), bytes(state.bytes)),
            (BatchStatus::Failed, _) => format!("Batch {id} failed: {why}"),
            (BatchStatus::Running, true) => format!("Batch {id} is running: {files}"),
            (BatchStatus::Running, false) => format!("Batch {id} is running: {files}; {why}"),
        }
    }
}

fn counted(files: u64) -> String {
    if files == 1 { "1 file".into() } else { format!("{files} files") }
}

fn find(args: &BatchSpoolArgs) -> Result<BatchSpool> {
    Ok(BatchSpool::find(&args.batches)?)
}

fn add(args: &AddBatchArgs) -> Result<u8> {
    let name = args.file.display();
    let mut text = Vec::new();
    let read = match args.file.as_os_str() == "-" {
        true => io::stdin().take(REQUEST_MOST + 1).read_to_end(&mut text),
        false => File::open(&args.file).and_then(|file| file.take(REQUEST_MOST + 1).read_to_end(&mut text)),
    };
    read.with_context(|| format!("Cannot read {name}"))?;
    if text.len() as u64 > REQUEST_MOST {
        bail!("{name} is larger than {} MiB; hand over smaller batches", REQUEST_MOST >> 20);
    }
    let request = BatchRequest::parse(&text).map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
    let spool = BatchSpool::open(&args.spool.batches)?;
    hand_over(&spool, &request)
}

fn hand_over(spool: &BatchSpool, request: &BatchRequest) -> Result<u8> {
    let handed = spool.hand_over(request).with_context(|| format!("Cannot write to {}", spool.describe()))?;
    match (handed, BatchStand::of(spool, &request.id)?) {
        (false, Some(stand)) => print(&format!("{}; nothing was handed over again", stand.told(&request.id))),
        _ => print(&format!(
            "Batch {} is handed over: {} for {}",
            request.id,
            counted(request.files.len() as u64),
            printable(&request.link)
        )),
    }
    Ok(0)
}

fn status(args: &NamedBatchArgs) -> Result<u8> {
    let (spool, id) = (find(&args.spool)?, BatchId::new(&args.id).map_err(anyhow::Error::msg)?);
    let Some(stand) = BatchStand::of(&spool, &id)? else { return Ok(no_such(&spool, &id)) };
    print(&if args.json { stand.json(&id)? } else { stand.told(&id) });
    Ok(match stand {
        BatchStand::Known(state) if state.status == BatchStatus::Done => 0,
        _ => SOME_FAILED,
    })
}

fn no_such(spool: &BatchSpool, id: &BatchId) -> u8 {
    say(&format!("pysmurf-archiver: There is no batch {id} in {}; see batch list", spool.describe()));
    USAGE
}

fn cancel(args: &NamedBatchArgs) -> Result<u8> {
    let (spool, id) = (find(&args.spool)?, BatchId::new(&args.id).map_err(anyhow::Error::msg)?);
    let Some(stand) = BatchStand::of(&spool, &id)? else { return Ok(no_such(&spool, &id)) };
    let is_over = matches!(&stand, BatchStand::Known(state) if state.status != BatchStatus::Running);
    if !is_over {
        spool.cancel(&id).with_context(|| format!("Cannot write to {}", spool.describe()))?;
    }
    print(&match (args.json, is_over) {
        (true, _) => stand.json(&id)?,
        (false, true) => format!("{}; it is over, and nothing is cancelled", stand.told(&id)),
        (false, false) => format!("Batch {id} will be cancelled by the run that copies it"),
    });
    Ok(if is_over { SOME_FAILED } else { 0 })
}

fn list(args: &ListBatchArgs) -> Result<u8> {
    let spool = find(&args.spool)?;
    let names = spool.names().with_context(|| format!("Cannot read {}", spool.describe()))?;
    let mut lines = Vec::new();
    for id in names {
        let Some(stand) = BatchStand::of(&spool, &id)? else { continue };
        if args.json {
            print(&stand.json(&id)?);
            continue;
        }
        lines.push(match &stand {
            BatchStand::New => {
                [id.to_string(), "new".into(), String::new(), String::new(), String::new(), String::new()]
            }
            BatchStand::Known(state) => [
                id.to_string(),
                stand.word().into(),
                format!("{}/{}", state.done, state.files),
                bytes(state.bytes),
                state.start.get(..19).unwrap_or_default().replace('T', " "),
                state.error.as_deref().map(printable).unwrap_or_default(),
            ],
        });
    }
    match (args.json, lines.len()) {
        (true, _) => {}
        (false, 0) => print("No batch"),
        (false, count) => {
            table(&lines);
            print(&if count == 1 { "1 batch".to_owned() } else { format!("{count} batches") });
        }
    }
    Ok(0)
}

fn table(lines: &[[String; 6]]) {
    let head = ["batch", "status", "files", "size", "since (UTC)", "why"].map(str::to_owned);
    let all: Vec<_> = std::iter::once(&head).chain(lines).collect();
    let width = |column: usize| all.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    for line in all {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        print(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
