//! `files timecodes`: what each timecode directory waits for.

use super::super::USAGE;
use super::super::flags::files::TimecodesArgs;
use super::super::output::{json_object, print, printable, say};
use super::wording::{age, moment};
use super::{inspect, open, suprsync, tell_strangers};
use crate::catalog::files::{FileQuery, FileRow};
use crate::catalog::sqlite::{QUIET, SqliteCatalog, TimecodeStand};
use crate::catalog::{AnyCatalog, Catalog, RecordId};
use crate::clock::unix_now;
use crate::console::files::told::reason;
use crate::service::runtime;
use anyhow::Result;

/// Announced timecodes that are listed, unless all are asked for.
const ANNOUNCED: usize = 5;
/// Seconds of one timecode; and for how long after it more files may come.
const TIMECODE: i64 = 100_000;

/// Lists the timecodes, or has some announced anew.
pub(super) fn timecodes(args: &TimecodesArgs) -> Result<u8> {
    runtime()?.block_on(async {
        let catalog = if args.rebuild.is_empty() { inspect(&args.table).await? } else { open(&args.table).await? };
        let code = match suprsync(&catalog, "files timecodes") {
            Ok(table) if args.rebuild.is_empty() => list(args, &catalog, table).await,
            Ok(table) => rebuild(args, table).await,
            Err(error) => Err(error),
        };
        if matches!(code, Ok(None)) {
            tell_strangers(&catalog, &args.table).await;
        }
        catalog.close().await;
        code.map(|code| code.unwrap_or(0))
    })
}

async fn rebuild(args: &TimecodesArgs, table: &SqliteCatalog) -> Result<Option<u8>> {
    let mut code = 0;
    for timecode in &args.rebuild {
        match table.rebuild_timecode(*timecode).await? {
            Some(files) => print(&format!(
                "Timecode {timecode}: its {files} files are looked at anew, and it is announced again once all are proven, by a \
                 `run` with --suprsync-file-root"
            )),
            None => {
                say(&format!(
                    "pysmurf-archiver: No file of archive {} belongs to timecode {timecode}",
                    table.archive()
                ));
                code = USAGE;
            }
        }
    }
    Ok(Some(code))
}

/// How a timecode stands, in a word for programs.
fn state(stand: &TimecodeStand) -> &'static str {
    match (&stand.announced, stand.completed, stand.waiting) {
        (Some(_), _, _) if stand.late => "late",
        (Some(_), _, _) => "announced",
        (None, false, _) => "open",
        (None, true, 0) => "complete",
        (None, true, waiting) if waiting == stand.given_up => "failed",
        (None, true, _) => "waiting",
    }
}

async fn list(args: &TimecodesArgs, catalog: &AnyCatalog, table: &SqliteCatalog) -> Result<Option<u8>> {
    let now = unix_now();
    let stands = table.timecodes(now).await?;
    let announced = stands.iter().filter(|stand| state(stand) == "announced").count();
    let mut left_out = if args.all { 0 } else { announced.saturating_sub(ANNOUNCED) };
    let told = left_out;
    for stand in &stands {
        if state(stand) == "announced" && left_out > 0 {
            left_out -= 1;
            continue;
        }
        let oldest = match stand.oldest {
            Some(id) => row(catalog, id).await?,
            None => None,
        };
        print(&if args.json { object(stand, oldest.as_ref()) } else { lines(stand, oldest.as_ref(), now) });
    }
    if !args.json && told > 0 {
        print(&format!("{told} earlier ones are announced; --all lists them"));
    }
    if !args.json && stands.is_empty() {
        print("No timecode");
    }
    Ok((!stands.is_empty()).then_some(0))
}

async fn row(catalog: &AnyCatalog, id: RecordId) -> Result<Option<FileRow>> {
    let query = FileQuery { ids: Some(vec![id]), ..FileQuery::default() };
    Ok(catalog.files(&query, RecordId(i64::MIN), 1).await?.rows.pop())
}

fn object(stand: &TimecodeStand, oldest: Option<&FileRow>) -> String {
    json_object([
        ("timecode", stand.timecode.into()),
        ("state", state(stand).into()),
        ("files", stand.files.into()),
        ("waiting", stand.waiting.into()),
        ("given_up", stand.given_up.into()),
        ("oldest_id", oldest.map(|row| row.id().0).into()),
        ("oldest", oldest.map(|row| row.path().to_string_lossy().into_owned()).into()),
        ("oldest_time", oldest.and_then(|row| row.time).into()),
        ("oldest_reason", oldest.and_then(reason).into()),
        ("announced_at", stand.announced.as_ref().map(|announced| announced.at).into()),
        ("announced_by", stand.announced.as_ref().map(|announced| announced.remote.clone()).into()),
    ])
}

/// How it stands, for people; below, what it waits for.
fn lines(stand: &TimecodeStand, oldest: Option<&FileRow>, now: f64) -> String {
    let files = if stand.files == 1 { "1 file".to_owned() } else { format!("{} files", stand.files) };
    let proven = stand.files - stand.waiting;
    let mut text = format!("{:05}  {:9}  {files}", stand.timecode, state(stand));
    let mut tell = |line: String| text.push_str(&format!("\n       {}", printable(&line)));
    if let Some(announced) = &stand.announced {
        let copied = if announced.copied { "" } else { ", which is not copied yet" };
        tell(format!("announced on {} by {}{copied}", moment(announced.at), announced.remote));
    }
    match state(stand) {
        "open" => {
            let until = moment(((stand.timecode + 2) * TIMECODE) as f64);
            tell(format!("more files may come, until a later timecode begins or {until}"));
        }
        "late" if stand.waiting == 0 => {
            let left = (stand.last_at + QUIET - now).max(0.0);
            tell(format!("files came late: it is announced again, in {} if no more come", age(left)));
        }
        "late" => tell("files came late: it is announced again once all are proven".to_owned()),
        "complete" => tell("all are proven: a `run` with --suprsync-file-root announces it".to_owned()),
        _ => {}
    }
    if stand.waiting > 0 {
        let given_up = match stand.given_up {
            0 => String::new(),
            count => format!(", {count} of them given up (`files list --failed`)"),
        };
        tell(format!("{proven} are proven, {} are not{given_up}", stand.waiting));
    }
    if let Some(row) = oldest {
        let since = row.time.map(|time| format!(", for {}", age(now - time))).unwrap_or_default();
        let why = reason(row).map(|why| format!(": {why}")).unwrap_or_default();
        tell(format!("the oldest of these is row {}, {}{since}{why}", row.id().0, row.path().display()));
    }
    text
}
