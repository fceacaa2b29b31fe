//! Orders to try again what could not be registered: a file in the spool's folder, for a monitor at work to find.

use super::aside::{Aside, AsideChange, AsideState};
use crate::clock::unix_now;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The order's name.
const FILE: &str = "retry";

/// Leaves the order.
pub(crate) fn order(folder: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join(FILE))?;
    file.write_all(b"all\n")?;
    file.sync_all()
}

/// What is to be done if there is one: all that was rejected is looked for anew.
pub(crate) fn ordered(folder: &Path, aside: &Aside) -> io::Result<Option<Vec<AsideChange>>> {
    match fs::metadata(folder.join(FILE)) {
        Ok(_) => anew(aside).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The order was carried out.
pub(crate) fn done(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn anew(aside: &Aside) -> io::Result<Vec<AsideChange>> {
    let since = unix_now();
    let rejected = aside.entries().filter(|(_, entry)| entry.state == AsideState::Rejected);
    let changes = rejected.map(|(key, entry)| {
        let (message, why) =
            (aside.message(entry)?, format!("tried again: {}", entry.why.trim_start_matches("tried again: ")));
        Ok(AsideChange::Put { key: key.clone(), state: AsideState::Waiting, since, why, message })
    });
    changes.collect()
}
