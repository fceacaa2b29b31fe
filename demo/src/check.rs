//! The catalog as the producer fills it, and the judgement at the end: every copy read again, every row looked up.

use anyhow::{Context, Result, ensure};
use protocol::checksum::{Checksum, FileHasher};
use pysmurf_archiver::catalog::{Database, init_db};
use rusqlite::{Connection, OptionalExtension, params};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::archiver::Ended;
use crate::mega;
use crate::node::Told;
use crate::tree::Registered;

/// Which of the catalog's archives the files belong to.
pub(crate) const ARCHIVE: &str = "smurf";

/// Differences shown.
const SHOWN: usize = 10;

/// The archiver's exit code when it did its work and some file could not be copied.
const SOME_FAILED: i32 = 1;

/// What was registered, and where all of it is to be found.
pub(crate) struct Night<'a> {
    pub(crate) catalog: &'a Path,
    /// The base of the copies.
    pub(crate) archive: &'a Path,
    /// Files that are to be copied.
    pub(crate) good: &'a [Registered],
    /// The one that is not what was registered.
    pub(crate) bad: &'a Registered,
}

/// What was found, in sentences that hold or do not, and what is wrong.
pub(crate) struct Judgement {
    pub(crate) claims: Vec<(String, bool)>,
    pub(crate) wrong: Vec<String>,
}

/// What the archiver says of its own run.
pub(crate) struct Report {
    pub(crate) copied: i64,
    /// Bytes of the copied files.
    pub(crate) bytes: i64,
    failed: i64,
    pub(crate) reconnects: i64,
    /// Bytes of copied files that were at the node already, from before the cut.
    pub(crate) kept: i64,
    status: Option<i32>,
}

impl Report {
    /// Reads the line of `--json`; SQLite is at hand and knows JSON.
    pub(crate) fn read(ended: &Ended) -> Result<Self> {
        let (json, status) = (ended.json.trim(), ended.status);
        let number = |name: &str| -> Result<i64> {
            let query = "SELECT CAST(json_extract(?1, '$.' || ?2) AS INTEGER)";
            let value: Option<i64> = Connection::open_in_memory()?.query_row(query, [json, name], |row| row.get(0))?;
            value.with_context(|| format!("No {name} in {json:?}"))
        };
        let all = || -> Result<Self> {
            Ok(Self {
                copied: number("copied")?,
                failed: number("failed")?,
                reconnects: number("reconnects")?,
                bytes: number("bytes")?,
                kept: number("matched_bytes")?,
                status,
            })
        };
        all()
            .with_context(|| format!("The archiver ended with {status:?} and without a report; it said: {}", ended.log))
    }
}

/// Makes the catalog and registers the files.
pub(crate) fn register<'a>(catalog: &Path, files: impl Iterator<Item = &'a Registered>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(init_db(&Database::Sqlite(catalog.to_owned())))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let mut connection = Connection::open(catalog)?;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare(
            "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
             failed_copy_attempts, deletable, \"ignore\") VALUES (?1, ?2, ?3, ?4, ?5, 0, 1, 0)",
        )?;
        for file in files {
            let local = file.local.to_str().context("The temporary folder's name is no UTF-8 text")?;
            insert.execute(params![local, file.md5, ARCHIVE, file.remote, now])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Reads every copy and every row.
pub(crate) fn judge(night: &Night<'_>, report: &Report, told: &Told) -> Result<Judgement> {
    let files = night.good;
    let connection = Connection::open(night.catalog)?;
    let mut row = connection.prepare(
        "SELECT remote_path FROM supersync_v0 \
         WHERE local_path = ?1 AND remote_md5sum = ?2 AND local_md5sum = ?2 AND copied IS NOT NULL",
    )?;
    let count = |rows: &str| -> Result<usize> {
        let query = format!("SELECT COUNT(*) FROM supersync_v0 WHERE {rows}");
        Ok(usize::try_from(connection.query_row(&query, [], |row| row.get::<_, i64>(0))?)?)
    };
    let rows = count("TRUE")?;
    ensure!(rows == files.len() + 1, "The catalog has {rows} rows, {} were registered", files.len() + 1);
    let (mut equal, mut recorded, mut bytes) = (0, 0, 0);
    let mut wrong = Vec::new();
    for file in files {
        let path: Option<String> =
            row.query_row(params![file.local.to_str(), file.md5], |row| row.get(0)).optional()?;
        recorded += usize::from(path.is_some());
        let copy = night.archive.join(path.as_deref().unwrap_or(&file.remote));
        match md5(&copy) {
            Ok((sum, size)) if sum == file.md5 && size == file.size => {
                equal += 1;
                bytes += size;
            }
            Ok((sum, size)) => wrong.push(format!("{}: {size} bytes, MD5 {sum}", copy.display())),
            Err(error) => wrong.push(format!("{}: {error}", copy.display())),
        }
    }
    wrong.truncate(SHOWN);
    let unproven = count("copied IS NULL")?;
    let leftovers = leftovers(night.archive, files.len())?;
    let agrees =
        report.status == Some(SOME_FAILED) && report.failed == 1 && usize::try_from(report.copied) == Ok(files.len());
    let claims = vec![
        (
            format!(
                "The demo has read every byte of every copy and taken its MD5: {equal} of {} files, {:.0} MB, have \
                 the MD5 and the size with which they were written.",
                files.len(),
                mega(bytes)
            ),
            equal == files.len(),
        ),
        (
            format!("Their rows say copied, with that MD5 as the copy's: {recorded} of {}.", files.len()),
            recorded == files.len(),
        ),
        (
            format!("The file that was changed is not called copied, and is not at the node: {unproven} such row."),
            unproven == 1 && !night.archive.join(&night.bad.remote).exists(),
        ),
        (
            format!("Nothing else lies at the storage node, no half file from before the cut: {leftovers} strays."),
            leftovers == 0,
        ),
        (
            format!(
                "The line was cut and the work went on: cuts {}, reconnects {}, logins {}.",
                told.cuts, report.reconnects, told.logins
            ),
            told.cuts == 1 && told.logins > told.cuts && report.reconnects > 0,
        ),
        (
            format!(
                "The archiver's own count is the same: {} copied, {} failed, and exit code {}, which says so.",
                report.copied,
                report.failed,
                code(report.status)
            ),
            agrees,
        ),
    ];
    Ok(Judgement { claims, wrong })
}

fn code(status: Option<i32>) -> String {
    status.map_or_else(|| "none, a signal".to_owned(), |code| code.to_string())
}

fn md5(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut md5 = FileHasher::new(Checksum::Md5);
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((md5.finish().to_string(), size));
        }
        md5.update(&buffer[..read]);
        size += read as u64;
    }
}

/// How many files there are beyond the expected ones: a cut must leave no half file behind.
fn leftovers(archive: &Path, expected: usize) -> Result<usize> {
    let mut folders = vec![archive.to_owned()];
    let mut found: usize = 0;
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir()? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found += 1;
            }
        }
    }
    Ok(found.saturating_sub(expected))
}
