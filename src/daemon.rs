//! The rsync daemon, and how its clients reach it. Counterpart: rsync's `clientserver.c`.

mod access;
mod auth;
mod config;
mod journal;
mod refuse;
mod slots;
mod wild;

pub use config::ConfigError;
