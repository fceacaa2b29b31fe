//! The doors of a run: the socket, and where its history is kept.

use super::super::flags::console::DoorArgs;
use crate::console::Consoles;
use crate::disk::open_operator_file;
use crate::web::places::socket_name;
use crate::web::{Doors, ListenToken};
use anyhow::{Context, Result, anyhow};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What is kept below the folders of users.
const FOLDER: &str = "pysmurf-archiver";
/// Bytes of the longest file of a token.
const TOKEN_FILE_MOST: u64 = 4096;

/// Opens them for operators of these archives; closed when dropped. A run with an end (`once`) keeps no history unless
/// asked to.
pub(in crate::cli) fn open_doors(consoles: &Consoles, args: &DoorArgs, once: bool) -> Result<Doors> {
    let asked = args.state_dir.is_some();
    if let Some(folder) = state_dir(args.state_dir.as_deref()).filter(|_| asked || !once) {
        for console in consoles.all() {
            let path = folder.join(format!("{}.history", socket_name(&[&console.identity().name])));
            match console.keep_history(&path) {
                Ok(()) => {}
                Err(error) if asked => {
                    tracing::warn!("{}: {error}; the history is lost with this process", path.display())
                }
                Err(error) => tracing::debug!("{}: {error}; the history is lost with this process", path.display()),
            }
        }
    }
    let token = args.listen_token_file.as_deref().map(token).transpose()?;
    let mut doors = Doors::open(consoles, &args.control.clone().unwrap_or_default());
    if let Some(address) = args.listen {
        doors.listen(consoles, address, token)?;
    }
    Ok(doors)
}

/// The token of a file.
fn token(path: &Path) -> Result<ListenToken> {
    let mut content = Vec::new();
    let read = open_operator_file(path).and_then(|file| file.take(TOKEN_FILE_MOST).read_to_end(&mut content));
    read.with_context(|| format!("Option --listen-token-file: cannot read {}; name another file", path.display()))?;
    ListenToken::of(&content).map_err(|why| anyhow!("Option --listen-token-file: {}: {why}", path.display()))
}

/// Where states are kept: in the folder that was named, or the default one.
pub(in crate::cli) fn state_dir(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(folder) = named {
        return Some(folder.to_owned()).filter(|folder| folder != Path::new("none"));
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(list) = set("STATE_DIRECTORY") {
        return std::env::split_paths(&list).next();
    }
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(set("HOME")?).join(".local/state"));
    state.or_else(home).filter(|folder| folder.is_absolute()).map(|folder| folder.join(FOLDER))
}
