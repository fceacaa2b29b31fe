//! What a storage node owes although the files are here no more: fetched from another node that has proven it, into a folder of
//! this machine, from where it goes on as any file does.

use super::control::Control;
use crate::backoff::Backoff;
use crate::catalog::nodes::LackingCopy;
use crate::catalog::{AnyCatalog, CatalogError, Md5, RecordId};
use crate::transport::ssh::sftp::Sftp;
use crate::transport::{Connect, ConnectError};
use protocol::checksum::{Checksum, FileHasher};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked for what lacks.
const EVERY: Duration = Duration::from_secs(2);
/// Files that lie in the folder at most, and bytes with which no further one is begun.
const FILES_MOST: usize = 64;
const BYTES_MOST: u64 = 1 << 30;

/// Another storage node, that may have what lacks.
#[derive(Clone)]
pub(crate) struct FillSource {
    pub(crate) node: String,
    pub(crate) data_dir: String,
    pub(crate) connect: Arc<dyn Fn() -> Result<Box<dyn Connect>, ConnectError> + Send + Sync>,
}

/// Fetches what one storage node lacks.
#[derive(Clone)]
pub(crate) struct Filler {
    /// A folder of its own.
    pub(crate) folder: PathBuf,
    pub(crate) sources: Vec<FillSource>,
}

impl Filler {
    /// Does it now and then for as long as the run lasts; never ends by itself.
    pub(crate) async fn run(&self, catalog: Arc<AnyCatalog>, control: Control) {
        let mut backoff = Backoff::default();
        loop {
            let pause = match self.round(&catalog).await {
                Ok(Ok(fetched)) => {
                    if fetched > 0 {
                        // They may be rows of any age.
                        control.look_again();
                    }
                    backoff.reset();
                    EVERY
                }
                Ok(Err(why)) => {
                    tracing::warn!(event = "not_filled", "{why}; trying again");
                    backoff.pause().max(EVERY)
                }
                Err(error) => {
                    tracing::info!(event = "database_trouble", "{error}; trying again");
                    backoff.pause().max(EVERY)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = control.stop().stopped() => std::future::pending().await,
            }
        }
    }

    /// Does it once: how many files were fetched, or why one that lacks could not be.
    pub(crate) async fn round(&self, catalog: &AnyCatalog) -> Result<Result<usize, String>, CatalogError> {
        let (files, bytes) = self.tidy(catalog).await?;
        let room = if bytes >= BYTES_MOST { 0 } else { FILES_MOST.saturating_sub(files) };
        if room == 0 {
            return Ok(Ok(0));
        }
        let lacking = catalog.lacking(room).await?;
        if lacking.is_empty() {
            return Ok(Ok(0));
        }
        let (filler, left) = (self.clone(), BYTES_MOST - bytes);
        let fetching = tokio::task::spawn_blocking(move || filler.fetch(lacking, left));
        let (fetched, trouble) = fetching.await.unwrap_or_else(|error| (Vec::new(), Some(error.to_string())));
        for (id, path) in &fetched {
            catalog.lend(*id, &path.to_string_lossy()).await?;
        }
        Ok(trouble.map_or(Ok(fetched.len()), Err))
    }

    /// Removes what is not owed any more; how many files are left, and their bytes.
    async fn tidy(&self, catalog: &AnyCatalog) -> Result<(usize, u64), CatalogError> {
        let here: Vec<(RecordId, PathBuf, u64)> = match fs::read_dir(&self.folder) {
            Ok(entries) => entries.flatten().filter_map(|entry| held(&entry.path())).collect(),
            Err(_) => return Ok((0, 0)),
        };
        let owed = catalog.still_owed(here.iter().map(|(id, ..)| *id).collect()).await?;
        let mut left = (0, 0);
        for ((_, folder, bytes), owed) in here.into_iter().zip(owed) {
            match owed {
                true => left = (left.0 + 1, left.1 + bytes),
                false => drop(fs::remove_dir_all(folder)),
            }
        }
        Ok(left)
    }

    /// Fetches what lacks, as long as there is room; what came, and why the first one of the others did not.
    fn fetch(&self, lacking: Vec<LackingCopy>, mut left: u64) -> (Vec<(RecordId, PathBuf)>, Option<String>) {
        let (mut fetched, mut trouble) = (Vec::new(), None);
        let mut open: Vec<(String, Box<dyn Connect>, Sftp)> = Vec::new();
        for copy in lacking {
            if left == 0 {
                break;
            }
            match self.fetch_one(&copy, &mut open) {
                Ok((path, bytes)) => {
                    left = left.saturating_sub(bytes);
                    tracing::info!(
                        event = "filling",
                        id = copy.id.0,
                        bytes,
                        "Fetched {} to be sent on",
                        path.display()
                    );
                    fetched.push((copy.id, path));
                }
                Err(why) => {
                    trouble.get_or_insert(format!("Row {}: no other storage node gives its copy: {why}", copy.id.0));
                }
            }
        }
        (fetched, trouble)
    }

    fn fetch_one(
        &self,
        copy: &LackingCopy,
        open: &mut Vec<(String, Box<dyn Connect>, Sftp)>,
    ) -> Result<(PathBuf, u64), String> {
        let mut whys = Vec::new();
        for (node, place) in &copy.elsewhere {
            let Some(source) = self.sources.iter().find(|source| source.node == *node) else { continue };
            if !open.iter().any(|(name, ..)| name == node) {
                match (source.connect)().and_then(|mut connect| connect.sftp().map(|sftp| (connect, sftp))) {
                    Ok((connect, sftp)) => open.push((node.clone(), connect, sftp)),
                    Err(error) => {
                        whys.push(format!("{node}: {error}"));
                        continue;
                    }
                }
            }
            let Some((_, _, sftp)) = open.iter_mut().find(|(name, ..)| name == node) else { continue };
            // Absolute places stay as they are.
            match self.take(copy, sftp, &Path::new(&source.data_dir).join(place)) {
                Ok(taken) => return Ok(taken),
                Err(why) => {
                    open.retain(|(name, ..)| name != node);
                    whys.push(format!("{node}: {why}"));
                }
            }
        }
        match whys.is_empty() {
            true => Err("none has proven one".to_owned()),
            false => Err(whys.join("; ")),
        }
    }

    /// Reads a copy into the folder; it must be what was proven.
    fn take(&self, copy: &LackingCopy, sftp: &mut Sftp, from: &Path) -> Result<(PathBuf, u64), String> {
        let folder = self.folder.join(copy.id.0.to_string());
        let name = copy.file.file_name().unwrap_or(OsStr::new("file"));
        let path = folder.join(name);
        let here = |error: io::Error| format!("{} cannot be written: {error}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(here)?;
        if !is_ours(&self.folder).map_err(here)? {
            let folder = self.folder.display();
            return Err(format!("{folder} is not this account's alone; name another folder with --fill-dir"));
        }
        let unfinished = folder.join(".unfinished");
        let mut file = File::create(&unfinished).map_err(here)?;
        let (mut hasher, mut written) = (FileHasher::new(Checksum::Md5), Ok(()));
        let read = sftp.read(from, &mut |bytes| {
            hasher.update(bytes);
            if written.is_ok() {
                written = file.write_all(bytes);
            }
        });
        let taken = match (read, written) {
            (Err(error), _) => Err(format!("{} cannot be read: {error}", from.display())),
            (_, Err(error)) => Err(here(error)),
            (Ok(len), Ok(())) if is_sum(hasher, &copy.md5) => {
                fs::rename(&unfinished, &path).map(|()| len).map_err(here)
            }
            (Ok(_), Ok(())) => Err(format!("{} is not what was proven", from.display())),
        };
        if taken.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        Ok((path, taken?))
    }
}

/// Whether a folder is this account's and nobody else writes in it: what lies there is written over, wherever links lead.
fn is_ours(folder: &Path) -> io::Result<bool> {
    let stat = fs::symlink_metadata(folder)?;
    Ok(stat.is_dir() && stat.uid() == rustix::process::geteuid().as_raw() && stat.mode() & 0o022 == 0)
}

fn is_sum(hasher: FileHasher, md5: &Md5) -> bool {
    hasher.finish().as_bytes() == md5
}

/// A row whose file is in this folder, with its bytes.
fn held(folder: &Path) -> Option<(RecordId, PathBuf, u64)> {
    let id = folder.file_name()?.to_str()?.parse().ok()?;
    let files = fs::read_dir(folder).ok()?.flatten();
    let bytes = files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
    Some((RecordId(id), folder.to_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_folder_of_others_is_not_filled() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_ours(folder.path()).unwrap());
        let link = folder.path().join("link");
        symlink("/tmp", &link).unwrap();
        assert!(!is_ours(&link).unwrap());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!is_ours(folder.path()).unwrap());
    }
}
