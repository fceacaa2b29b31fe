//! The kit that integration tests share: real servers, started privately.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

// The paths are said because cargo also takes this file for a test of its own, with no test in it.
#[path = "support/archiver.rs"]
pub mod archiver;
#[path = "support/both.rs"]
pub mod both;
#[path = "support/crossbar.rs"]
pub mod crossbar;
#[path = "support/cutter.rs"]
pub mod cutter;
#[path = "support/daemon.rs"]
pub mod daemon;
#[path = "support/mariadb.rs"]
pub mod mariadb;
#[path = "support/sshd.rs"]
pub mod sshd;
#[path = "support/stock.rs"]
pub mod stock;
#[path = "support/tree.rs"]
pub mod tree;

/// Whether `tool` is installed. When it is not, the test fails in CI or under `ARCHIVER_REQUIRE_PEERS`, and else is to
/// return at once, having said that it was skipped.
pub fn require(tool: &str) -> bool {
    if find(tool).is_some() {
        return true;
    }
    let package = match tool {
        "sshd" => "openssh-server",
        "ssh" | "ssh-keygen" | "ssh-agent" | "ssh-add" => "openssh-client",
        "mkfs.xfs" => "xfsprogs",
        "python3" => "python3 python3-venv",
        "mariadbd" | "mariadb-install-db" | "mariadb" => "mariadb-server",
        other => other,
    };
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    assert!(
        !set("CI") && !set("ARCHIVER_REQUIRE_PEERS"),
        "No {tool} here; apt-get install -y --no-install-recommends {package}"
    );
    eprintln!("SKIPPED: no {tool}; apt-get install -y --no-install-recommends {package}");
    false
}

/// Where `tool` is; servers live outside the `PATH` of ordinary accounts.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from))
        .map(|folder| folder.join(tool))
        .find(|file| file.is_file())
}

/// Writes a shell script that can be run. A process of its own writes it: what another thread starts meanwhile would
/// inherit a file of ours for a moment, and nothing can be run that anybody holds open for writing.
pub fn script(path: &Path, text: &str) {
    let mut writer = Command::new("sh");
    writer.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut writer = writer.spawn().unwrap();
    writer.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success(), "Cannot write {}", path.display());
}
