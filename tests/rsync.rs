//! Our `rsync`, as client and as server, beside stock's: the same command must leave the same trees, exit code and words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "rsync/attributes.rs"]
mod attributes;
#[path = "rsync/batch.rs"]
mod batch;
#[path = "rsync/command.rs"]
mod command;
#[path = "rsync/compress.rs"]
mod compress;
#[path = "rsync/daemon.rs"]
mod daemon;
#[path = "rsync/engine.rs"]
mod engine;
#[path = "rsync/faults.rs"]
mod faults;
#[path = "rsync/filters.rs"]
mod filters;
#[path = "rsync/iconv.rs"]
mod iconv;
#[path = "rsync/interop.rs"]
mod interop;
#[path = "rsync/matrix.rs"]
mod matrix;
#[path = "rsync/recursion.rs"]
mod recursion;
#[allow(unreachable_pub)]
#[path = "support"]
mod support {
    pub mod both;
    pub mod cutter;
    pub mod daemon;
    pub mod engine;
    pub mod held;
    pub mod noise;
    pub mod processes;
    pub mod script;
    pub mod sshd;
    pub mod stock;
    pub mod tiny;
    pub mod tools;
    pub mod tree;
}
#[path = "rsync/writes.rs"]
mod writes;
