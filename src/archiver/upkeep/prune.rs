//! Deletes local files whose copies are proven. Only what still is what was proven: a file that has changed since, or has
//! been replaced, stays, and the log says so.

use super::Table;
use crate::archiver::control::Control;
use crate::catalog::sqlite::Prunable;
use crate::catalog::{CatalogError, RecordId};
use crate::status::unix_now;
use protocol::checksum::{Checksum, FileHasher, Sum};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Files of one transaction.
const PAGE: usize = 64;

/// What became of a file.
enum Pruned {
    Removed,
    /// It was not there any more.
    Gone,
    /// It stays, for this reason.
    Kept(String),
}

/// Deletes what may go; returns how many files went.
pub(super) async fn prune(table: &Table, age: Duration, control: &Control) -> Result<u64, CatalogError> {
    let mut after = RecordId(0);
    let mut count = 0;
    loop {
        let files = table.prunable(after, unix_now() - age.as_secs_f64(), PAGE).await?;
        let Some(last) = files.last() else { return Ok(count) };
        after = last.id;
        let stop = control.stop().clone();
        control.progress().deleting(true);
        let deleting = tokio::task::spawn_blocking(move || {
            let files = files.into_iter().take_while(|_| !stop.is_stopped());
            files.map(|file| (remove(&file), file)).collect::<Vec<_>>()
        });
        let done = deleting.await.unwrap_or_default();
        control.progress().deleting(false);
        let mut removed = Vec::new();
        for (pruned, file) in done {
            let path = file.path.display().to_string();
            match pruned {
                Pruned::Removed => {
                    tracing::info!(id = file.id.0, path, "Deleted here; its copy is proven");
                    removed.push((file.id, unix_now()));
                    count += 1;
                }
                // As SupRsync has it.
                Pruned::Gone => removed.push((file.id, 0.0)),
                Pruned::Kept(why) => tracing::warn!(id = file.id.0, path, "Not deleted: {why}"),
            }
        }
        // What was deleted is recorded also when we are to stop: else the row would say that it is still there.
        table.removed(removed).await?;
        if control.stop().is_stopped() {
            return Ok(count);
        }
    }
}

fn remove(file: &Prunable) -> Pruned {
    match still_the_same(&file.path, &file.md5).and_then(|same| match same {
        Same::Yes => std::fs::remove_file(&file.path).map(|()| Pruned::Removed),
        Same::No(why) => Ok(Pruned::Kept(why.into())),
    }) {
        Ok(pruned) => pruned,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Pruned::Gone,
        Err(error) => Pruned::Kept(error.to_string()),
    }
}

enum Same {
    Yes,
    No(&'static str),
}

/// Whether the file has the proven bytes, and is under its name what was read.
fn still_the_same(path: &Path, md5: &[u8]) -> io::Result<Same> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Ok(Same::No("it is no regular file"));
    }
    if sum(&mut file)? != Sum::new(md5) {
        return Ok(Same::No("it has changed since its copy was proven"));
    }
    let same = |one: &Metadata, other: &Metadata| {
        let of = |meta: &Metadata| (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        of(one) == of(other)
    };
    // Whoever writes to it right now changes its time.
    match same(&before, &std::fs::metadata(path)?) {
        true => Ok(Same::Yes),
        false => Ok(Same::No("it was changed while it was read")),
    }
}

fn sum(file: &mut File) -> io::Result<Option<Sum>> {
    let mut hasher = FileHasher::new(Checksum::Md5);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
