//! Words about files: what lines of listings and logs are made of. Counterpart: rsync's `log.c`.

pub(crate) mod format;
pub(crate) mod ledger;
pub(crate) mod listing;
pub(crate) mod log_file;
pub(crate) mod numbers;

pub(crate) use ledger::Ledger;
pub(crate) use log_file::LogFile;
