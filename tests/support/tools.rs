//! What must be installed: real servers and peers.

use std::path::PathBuf;

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
        "cc" => "gcc",
        "python3" => "python3 python3-venv",
        "chromedriver" => "chromium-driver",
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
