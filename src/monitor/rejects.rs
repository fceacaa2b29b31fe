//! What could not be registered, for people, beside a monitor at work or without one.

use super::aside::{Aside, AsideEntry, AsideState};
use super::making::told;
use super::retry;
use super::spool::{Spool, SpoolError};
use crate::catalog::announced::SpoolNumber;
use std::io;
use std::path::Path;

/// A message that was set aside.
pub(crate) struct Reject {
    /// Its file is looked for again and again.
    pub(crate) is_waiting: bool,
    /// Since when, unix time in seconds.
    pub(crate) since: f64,
    /// Its file, or how it begins.
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) received: f64,
    pub(crate) sender: Option<std::net::SocketAddr>,
    /// The datagram.
    pub(crate) bytes: Vec<u8>,
}

/// All that was set aside in this spool, in order of arrival.
pub(crate) fn read_rejects(folder: &Path) -> io::Result<Vec<Reject>> {
    let aside = Aside::read(folder)?;
    let read = |(_, entry): (&SpoolNumber, &AsideEntry)| {
        let message = aside.message(entry)?;
        Ok(Reject {
            is_waiting: entry.state == AsideState::Waiting,
            since: entry.since,
            what: told(&message),
            why: entry.why.clone(),
            received: message.received,
            sender: message.sender,
            bytes: message.bytes,
        })
    };
    aside.entries().map(read).collect()
}

/// Has them tried again, by the monitor that is at work or by the next one that is.
pub(crate) fn retry_rejects(folder: &Path) -> io::Result<bool> {
    retry::order(folder)?;
    Ok(matches!(Spool::open(folder, 0), Err(SpoolError::Taken(_))))
}
