//! pysmurf-archiver: rows of a table become proven copies on another host.
//!
//! The archiver watches a table of files, sends each to a storage node over its own SSH in the true rsync protocol, and
//! writes the proof back. See `README.md` and `docs/` for use, `ARCHITECTURE.md` for the way around, `protocol` for the
//! wire.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod agent;
pub mod archiver;
mod backoff;
pub mod bench;
pub mod catalog;
pub mod cli;
mod clock;
pub mod daemon;
mod disk;
mod exit;
pub mod link;
mod local;
mod lock;
pub mod manifest;
pub mod ocs;
pub mod pipe;
pub mod rdiff;
mod report;
pub mod rsync;
mod service;
pub mod status;
pub mod throttle;
pub mod transfer;
pub mod transport;
