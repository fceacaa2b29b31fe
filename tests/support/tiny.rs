//! A file system that is soon full.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A small file system of its own; unmounted when dropped.
pub struct Tiny(PathBuf);

impl Tiny {
    /// `None` where we may not mount.
    pub fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o"]).arg(format!("size={size}")).arg("tmpfs").arg(&at);
        let done = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        done.then_some(Self(at))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
