//! The rsync wire protocol, versions 27 to 32.
//!
//! Bytes in, events out; replies in, bytes out. Nothing here opens a file or a socket, starts a thread or reads a
//! clock. `PROTOCOL.md` beside this crate explains the wire.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod acl;
pub mod args;
pub mod batch;
pub mod charset;
pub mod checksum;
pub mod chmod;
pub mod compress;
pub mod daemon;
pub mod delta;
pub mod error;
pub mod filter;
pub mod flist;
pub mod generator;
pub mod handshake;
pub mod item;
mod listed;
pub mod mux;
pub mod names;
pub mod ndx;
#[cfg(test)]
mod page;
pub mod receiver;
pub mod sender;
mod shared;
pub mod simd;
pub mod sums;
pub mod token;
pub mod wire;
pub mod xattr;

pub use error::PeerError;
