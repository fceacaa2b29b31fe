//! The finalization files of SupRsync: one for each complete timecode directory, copied into the archive like any other
//! file, so that whoever packs the data knows that nothing more will come.

use super::Announcing;
use crate::catalog::CatalogError;
use crate::catalog::sqlite::{Complete, NewFile, SqliteCatalog};
use crate::clock::unix_now;
use crate::transfer::dest::{Attrs, Dest, Fsync, umask};
use protocol::checksum::{Checksum, FileHasher};
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

impl Announcing {
    /// Announces what is complete; returns how many timecodes that were.
    pub(super) async fn announce(&self, table: &SqliteCatalog) -> Result<u64, CatalogError> {
        let complete = table.complete_timecodes(unix_now()).await?;
        if complete.is_empty() {
            return Ok(0);
        }
        let until = table.archive_stats().await?.finalized_until;
        let mut announced = 0;
        for timecode in complete {
            let now = unix_now();
            let text = text(table.archive(), &self.who, &timecode, now, until);
            let (digits, archive) = (five_digits(now), table.archive().replace('/', "_"));
            let name = format!("{}_{archive}_{:05}_finalized.yaml", now as i64, timecode.timecode);
            let beneath = PathBuf::from(&digits).join(&self.who).join(&name);
            let local = self.root.join(&beneath);
            let root = self.root.clone();
            let mut hasher = FileHasher::new(Checksum::Md5);
            hasher.update(text.as_bytes());
            let md5 = hasher.finish().to_string();
            let written = tokio::task::spawn_blocking(move || write(&root, &beneath, &text)).await;
            let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
            let local = match (written, local.to_str()) {
                (Ok(()), Some(local)) => local.to_owned(),
                (Err(error), _) => {
                    tracing::warn!("Cannot write {}: {error}; correct --suprsync-file-root", local.display());
                    return Ok(announced);
                }
                (_, None) => {
                    tracing::warn!("--suprsync-file-root is no UTF-8 text, which the table cannot hold");
                    return Ok(announced);
                }
            };
            let remote = format!("{digits}/suprsync/{}/{name}", self.who);
            let (files, again, number) = (timecode.files, timecode.again, timecode.timecode);
            if !table.announce(timecode, NewFile { local: local.clone(), remote, md5 }, now).await? {
                // Files came at this very moment; nobody was told of this one.
                let _ = std::fs::remove_file(&local);
                continue;
            }
            announced += 1;
            let what = if again {
                "Timecode directory is complete again: files came late"
            } else {
                "Timecode directory is complete"
            };
            tracing::info!(event = "timecode_complete", timecode = number, files, again, local, "{what}");
        }
        Ok(announced)
    }
}

fn five_digits(now: f64) -> String {
    (now as i64).to_string().chars().take(5).collect()
}

/// Puts the file under its name beneath `root` whole or not at all, through no symlink there; one of the same second is
/// replaced, since nobody was told of it.
fn write(root: &Path, beneath: &Path, text: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o777).create(root)?;
    let dest = Dest::open(root)?;
    let name = beneath.as_os_str().as_bytes();
    dest.make_dirs(name)?;
    let output = dest.create_temp(name)?;
    output.file().write_all(text.as_bytes())?;
    let attrs = Attrs { mode: Some(0o666 & !umask()), ..Attrs::default() };
    output.commit(&dest, &attrs, None, Fsync::Yes)?;
    dest.sync_way(name)?;
    Ok(())
}

/// The file's text, keys in alphabetical order as SupRsync's YAML library writes them.
fn text(archive: &str, who: &str, complete: &Complete, now: f64, until: f64) -> String {
    let mut subdirs = String::new();
    for subdir in &complete.subdirs {
        subdirs += &format!("\n- {}", scalar(subdir));
    }
    if subdirs.is_empty() {
        subdirs = " []".into();
    }
    format!(
        "archive_name: {}\nfinalized_at: {now:?}\nfinalized_until: {until:?}\ninstance_id: {}\nnum_files: {}\nsubdirs:{subdirs}\ntimecode: {}\n",
        scalar(archive),
        scalar(who),
        complete.files,
        complete.timecode
    )
}

/// A string as YAML: plain where it can be taken for nothing else.
fn scalar(text: &str) -> String {
    let word = text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "_-.".contains(char));
    let reserved = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    if word && !reserved.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    // JSON strings are YAML.
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_stay_strings() {
        for (text, yaml) in [
            ("smurf", "smurf"),
            ("smurf-sync", "smurf-sync"),
            ("crate1slot2", "crate1slot2"),
            ("15895", "\"15895\""),
            ("no", "\"no\""),
            ("a: b", "\"a: b\""),
            ("", "\"\""),
            ("quote\"\n", "\"quote\\\"\\n\""),
        ] {
            assert_eq!(scalar(text), yaml);
        }
    }
}
