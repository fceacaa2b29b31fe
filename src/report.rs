//! Words about files: what lines of listings, logs and complaints are made of. Counterpart: rsync's `log.c`.

pub(crate) mod format;
pub(crate) mod ledger;
pub(crate) mod listing;
pub(crate) mod log_file;
pub(crate) mod numbers;
pub(crate) mod peer;

pub(crate) use ledger::Ledger;
pub(crate) use log_file::LogFile;

use std::io::{self, Write};

/// Says something on standard error, which an `ssh` carries beside the protocol. Nobody may be listening any more.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
