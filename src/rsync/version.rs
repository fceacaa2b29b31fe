//! What this is: `--version`, for people and for scripts.

use protocol::handshake::VERSION_MOST;

/// Checksums, the preferred one first.
const CHECKSUMS: &[&str] = &["xxh128", "xxh3", "xxh64", "md5", "md4", "sha1", "none"];
/// Ways of compression, the preferred one first.
const COMPRESSIONS: &[&str] = &["zstd", "lz4", "zlibx", "zlib", "none"];

/// The version of rsync.samba.org whose options, words and protocol these are. Programs read it from the first line to
/// learn what they may ask for.
const COMPATIBLE: &str = "3.5.0";

/// The first line has the shape that scripts read the version from.
fn first_line() -> String {
    format!("rsync  version {COMPATIBLE}  protocol version {VERSION_MOST}")
}

/// `--version`.
pub(super) fn text() -> String {
    format!(
        "{}\npysmurf-archiver {}: its rsync command, written anew to be compatible with rsync {COMPATIBLE} of rsync.samba.org.\n\
         Web site: {}\n\
         Capabilities:\n    64-bit files, 64-bit inums, 64-bit timestamps, 64-bit long ints,\n    symlinks, symtimes, hardlinks, \
         hardlink-specials,\n    hardlink-symlinks, IPv6, atimes, batchfiles, inplace, append, ACLs,\n    xattrs, optional \
         secluded-args, iconv, prealloc, stop-at, no crtimes\n\n\
         Checksum list:\n    {}\n\
         Compress list:\n    {}\n\
         License: {}\n",
        first_line(),
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_REPOSITORY"),
        CHECKSUMS.join(" "),
        COMPRESSIONS.join(" "),
        env!("CARGO_PKG_LICENSE"),
    )
}

/// `-VV`: the same for scripts, in the keys that stock rsync uses.
pub(super) fn json() -> String {
    let value = serde_json::json!({
        "program": "rsync",
        "implementation": "pysmurf-archiver",
        "version": COMPATIBLE,
        "implementation_version": env!("CARGO_PKG_VERSION"),
        "protocol": format!("{VERSION_MOST}.0"),
        "url": env!("CARGO_PKG_REPOSITORY"),
        "capabilities": {
            "file_bits": 64, "inum_bits": 64, "timestamp_bits": 64, "long_int_bits": 64,
            "symlinks": true, "symtimes": true, "hardlinks": true, "hardlink_specials": true, "hardlink_symlinks": true,
            "IPv6": true, "atimes": true, "batchfiles": true, "inplace": true, "append": true, "ACLs": true, "xattrs": true,
            "secluded_args": "optional", "iconv": true, "prealloc": true, "stop_at": true, "crtimes": false
        },
        "checksum_list": CHECKSUMS,
        "compress_list": COMPRESSIONS,
        "license": env!("CARGO_PKG_LICENSE"),
    });
    format!("{value:#}\n")
}
