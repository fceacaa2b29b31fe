//! `version`: what an operator is asked for with a report, and what a list of weak libraries is compared with.

use super::flags::VersionArgs;
use super::output::print;
use crate::disk::landlock;
use protocol::handshake::{VERSION_LEAST, VERSION_MOST};
use serde::Serialize;

/// What this program is, and what it is made of.
#[derive(Debug, Serialize)]
struct Versions {
    name: &'static str,
    version: &'static str,
    /// Versions of rsync's protocol that are spoken, the lowest first.
    rsync_protocol: [u8; 2],
    libssh2: &'static str,
    /// Whether its functions are replaced by those that take whole packets and refuse malformed ones.
    libssh2_edited: bool,
    /// Of the library that is loaded now.
    openssl: &'static str,
    sqlite: &'static str,
    /// What the kernel could refuse a session that went wrong.
    kernel: String,
}

/// Says which version this is.
pub(super) fn version(args: &VersionArgs) -> u8 {
    let made = Versions {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        rsync_protocol: [VERSION_LEAST, VERSION_MOST],
        libssh2: env!("LIBSSH2_VERSION"),
        libssh2_edited: cfg!(whole_packets),
        openssl: openssl::version::version(),
        sqlite: rusqlite::version(),
        kernel: landlock::of_this_kernel(),
    };
    if args.json {
        // There is nothing in it that JSON could not say.
        print(&serde_json::to_string(&made).unwrap_or_default());
        return 0;
    }
    let edited = if made.libssh2_edited { ", with our edits" } else { ", as shipped" };
    print(&format!("{} {}", made.name, made.version));
    print(&format!("rsync protocol  {} to {}", made.rsync_protocol[0], made.rsync_protocol[1]));
    print(&format!("libssh2         {}{edited}", made.libssh2));
    print(&format!("OpenSSL         {}", made.openssl.trim_start_matches("OpenSSL ")));
    print(&format!("SQLite          {}", made.sqlite));
    print(&format!("kernel          {}", made.kernel));
    0
}
