//! Whether the kernel was asked to refuse a process something (Landlock).

use super::stock::OURS;
use std::fs;
use std::process::Command;

/// Whether it was asked to, for good; `None` where this kernel knows no such thing.
pub fn is_held(pid: u32) -> Option<bool> {
    let version = Command::new(OURS).arg("version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    if !version.contains("Landlock ") || version.contains("too old") || version.contains("no Landlock") {
        println!("SKIPPED: no Landlock to be used here");
        return None;
    }
    // Who asks gives up new privileges with it.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Some(status.lines().any(|line| line.starts_with("NoNewPrivs:") && line.ends_with('1')))
}
