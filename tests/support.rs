//! The kit of the integration tests: private real servers, and what to do without them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod sshd;

use std::path::Path;

/// Is this program installed? Without it the test is skipped, loudly; where peers are required, it fails.
pub fn require(tool: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(tool).is_file());
    if !found {
        let required = ["CI", "ARCHIVER_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!required, "{tool} is required: apt-get install -y openssh-server mariadb-server rsync");
        eprintln!("SKIPPED: no {tool}");
    }
    found
}
