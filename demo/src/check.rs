//! The catalog as the producer fills it, and the judgement at the end: every copy read again, every row looked up.

use anyhow::{Context, Result, ensure};
use protocol::checksum::{Checksum, FileHasher};
use pysmurf_archiver::catalog::{Database, init_db};
use rusqlite::{Connection, OptionalExtension, params};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::mega;
use crate::node::Told;
use crate::tree::Registered;

/// Which of the catalog's archives the files belong to.
pub(crate) const ARCHIVE: &str = "smurf";

/// Differences shown; the rest is only counted.
const SHOWN: usize = 10;

/// What was found, in sentences that hold or do not.
pub(crate) struct Judgement {
    pub(crate) claims: Vec<(String, bool)>,
    pub(crate) all_equal: bool,
}

/// What the archiver says of its own run.
pub(crate) struct Report {
    copied: i64,
    failed: i64,
    pub(crate) reconnects: i64,
    status: Option<i32>,
}

impl Report {
    /// Reads the line of `--json`; SQLite is at hand and knows JSON.
    pub(crate) fn read(json: &str, status: Option<i32>) -> Result<Self> {
        let number = |name: &str| -> Result<i64> {
            let query = "SELECT CAST(json_extract(?1, '$.' || ?2) AS INTEGER)";
            let value: Option<i64> = Connection::open_in_memory()?.query_row(query, [json, name], |row| row.get(0))?;
            value.with_context(|| format!("No {name} in {json:?}"))
        };
        let all = || -> Result<Self> {
            Ok(Self { copied: number("copied")?, failed: number("failed")?, reconnects: number("reconnects")?, status })
        };
        all().with_context(|| format!("The archiver ended with {status:?} and without a report"))
    }
}

/// Makes the catalog and registers the files.
pub(crate) fn register(catalog: &Path, files: &[Registered]) -> Result<()> {
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

/// Reads every copy and every row. Prints what is wrong.
pub(crate) fn judge(
    catalog: &Path,
    archive: &Path,
    files: &[Registered],
    report: &Report,
    told: &Told,
) -> Result<Judgement> {
    let connection = Connection::open(catalog)?;
    let mut row = connection.prepare(
        "SELECT remote_path FROM supersync_v0 \
         WHERE local_path = ?1 AND remote_md5sum = ?2 AND local_md5sum = ?2 AND copied IS NOT NULL",
    )?;
    let rows: i64 = connection.query_row("SELECT COUNT(*) FROM supersync_v0", [], |row| row.get(0))?;
    let rows = usize::try_from(rows)?;
    ensure!(rows == files.len(), "The catalog has {rows} rows, {} were registered", files.len());
    let (mut equal, mut recorded, mut bytes) = (0, 0, 0);
    let mut wrong = Vec::new();
    for file in files {
        let path: Option<String> =
            row.query_row(params![file.local.to_str(), file.md5], |row| row.get(0)).optional()?;
        recorded += usize::from(path.is_some());
        let copy = archive.join(path.as_deref().unwrap_or(&file.remote));
        match md5(&copy) {
            Ok((sum, size)) if sum == file.md5 && size == file.size => {
                equal += 1;
                bytes += size;
            }
            Ok((sum, size)) => wrong.push(format!("{}: {size} bytes, MD5 {sum}", copy.display())),
            Err(error) => wrong.push(format!("{}: {error}", copy.display())),
        }
    }
    for line in wrong.iter().take(SHOWN) {
        println!("Wrong:     {line}");
    }
    let leftovers = leftovers(archive, files.len())?;
    let all_equal = equal == files.len();
    let claims = vec![
        (format!("All MD5s equal ({equal} of {} files, {:.0} MB)", files.len(), mega(bytes)), all_equal),
        (format!("All rows recorded as copied ({recorded} of {rows})"), recorded == rows),
        (format!("Nothing else left at the storage node ({leftovers} stray files)"), leftovers == 0),
        (
            format!(
                "Went on after the cut ({} cut, {} reconnects, {} logins)",
                told.cuts, report.reconnects, told.logins
            ),
            told.cuts == 1 && told.logins > told.cuts && report.reconnects > 0,
        ),
        (
            format!(
                "Archiver agrees (exit code {}, {} copied, {} failed)",
                code(report.status),
                report.copied,
                report.failed
            ),
            report.status == Some(0) && report.failed == 0 && usize::try_from(report.copied) == Ok(files.len()),
        ),
    ];
    Ok(Judgement { claims, all_equal })
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
