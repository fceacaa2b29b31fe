//! Folders full of files: made, looked at, compared.

pub use super::noise::noise;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// What stands at one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub mode: u32,
    /// Seconds and nanoseconds; `None` when it was touched after the tree's making began.
    pub mtime: Option<(i64, i64)>,
    pub owner: (u32, u32),
    pub rdev: u64,
    /// A file's bytes or a symlink's target.
    pub content: Vec<u8>,
}

impl Node {
    pub fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    pub fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// Everything beneath a folder, by relative name; the folder itself is `.`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<Vec<u8>, Node>);

impl Tree {
    /// Looks at a folder; nothing there is an empty tree. Times from `since` on (seconds) count as "now".
    pub fn of(root: &Path, since: i64) -> Self {
        let mut tree = Self::default();
        let mut waiting = vec![PathBuf::from(".")];
        while let Some(name) = waiting.pop() {
            let path = root.join(&name);
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let kind = meta.file_type();
            if kind.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| name.join(entry.unwrap().file_name())));
            }
            let content = match () {
                () if kind.is_file() => fs::read(&path).unwrap(),
                () if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
                () => Vec::new(),
            };
            let special = kind.is_char_device() || kind.is_block_device();
            let mtime = (meta.mtime(), meta.mtime_nsec());
            let recent = mtime.0 >= since && mtime.0 <= now() + 1;
            let node = Node {
                mode: meta.mode(),
                mtime: (!recent).then_some(mtime),
                owner: (meta.uid(), meta.gid()),
                rdev: if special { meta.rdev() } else { 0 },
                content,
            };
            tree.0.insert(name.as_os_str().as_bytes().to_vec(), node);
        }
        tree
    }

    /// What differs from `other`, a line for each name; empty when nothing does.
    pub fn difference(&self, other: &Self) -> String {
        let mut lines = String::new();
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        for name in names {
            let (left, right) = (self.0.get(name), other.0.get(name));
            if left != right {
                let show = |node: Option<&Node>| match node {
                    None => "nothing".to_owned(),
                    Some(node) => format!(
                        "{:o} {:?} {:?} {:x} {} bytes",
                        node.mode,
                        node.mtime,
                        node.owner,
                        node.rdev,
                        node.content.len()
                    ),
                };
                lines += &format!("  {}: {} | {}\n", name.escape_ascii(), show(left), show(right));
            }
        }
        lines
    }

    /// The names of regular files.
    pub fn files(&self) -> Vec<&[u8]> {
        self.0.iter().filter(|(_, node)| node.is_file()).map(|(name, _)| &name[..]).collect()
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// Sets the modification time of anything, itself and not what a symlink points to.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Gives what was changed from this time on (seconds) exactly this time; nothing need be there.
pub fn pin_recent(path: &Path, since: i64) {
    if path.symlink_metadata().is_ok_and(|found| found.mtime() >= since) {
        set_mtime(path, since, 0);
    }
}

/// Gives a folder and all folders beneath it this time.
pub fn settle(root: &Path, mtime: (i64, i64)) {
    for (name, _) in Tree::of(root, 0).0.iter().filter(|(_, node)| node.is_dir()) {
        set_mtime(&root.join(OsStr::from_bytes(name)), mtime.0, mtime.1);
    }
}

/// Writes a file with a time and permissions of its own.
pub fn put(root: &Path, name: impl AsRef<[u8]>, content: &[u8], mode: u32, mtime: (i64, i64)) {
    let path = root.join(OsStr::from_bytes(name.as_ref()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    set_mtime(&path, mtime.0, mtime.1);
}

/// A moment well in the past.
pub const THEN: (i64, i64) = (1_500_000_000, 123_456_789);

/// A folder with one of everything that names, kinds, sizes and times can be.
pub fn build(root: &Path) {
    fs::create_dir_all(root).unwrap();
    put(root, "plain", b"plain words\n", 0o644, THEN);
    put(root, "same", b"the same on both sides\n", 0o640, (THEN.0, 0));
    put(root, "empty", b"", 0o600, (THEN.0 + 1, 1));
    put(root, "a b  c", b"spaces", 0o644, THEN);
    put(root, "it's \"quoted\" $HOME `x` \\", b"quotes", 0o644, THEN);
    put(root, "new\nline\ttab", b"controls", 0o644, THEN);
    put(root, b"not\xff\xfeutf8", b"bytes", 0o644, THEN);
    put(root, "unicode-\u{e9}\u{4e16}", b"letters", 0o644, THEN);
    put(root, "-rf", b"dash", 0o644, THEN);
    put(root, "--server", b"dashes", 0o644, THEN);
    put(root, "*?[x]", b"pattern", 0o644, THEN);
    put(root, "n".repeat(255), b"long", 0o644, THEN);
    put(root, "before-1970", b"old", 0o644, (-1_000_000, 5));
    put(root, "far-future", b"new", 0o644, (4_000_000_000, 999_999_999));
    put(root, "program", b"#!/bin/sh\n", 0o4755, THEN);
    put(root, "readonly", b"ro", 0o400, THEN);
    put(root, "big", &noise(300_000, 1), 0o644, THEN);
    put(root, "changed", &noise(200_000, 2), 0o644, THEN);
    put(root, "grown", &noise(60_000, 3), 0o644, THEN);
    put(root, "touched", b"only the time differs", 0o644, THEN);
    put(root, "same-second", b"ditto", 0o644, THEN);
    put(root, "newer-there", b"ours is older", 0o644, THEN);
    put(root, "same-size", b"aaaa", 0o644, THEN);
    put(root, "mode-differs", b"mode", 0o664, THEN);
    put(root, "dir/one", b"1", 0o644, THEN);
    put(root, "dir/sub/two", b"22", 0o644, THEN);
    put(root, "dir/sub/deeper/three", b"333", 0o644, THEN);
    put(root, "dir-x/four", b"4444", 0o644, THEN);
    put(root, "kind", b"a file here, a symlink there", 0o644, THEN);
    fs::create_dir_all(root.join("hollow/within")).unwrap();
    fs::create_dir(root.join("closed")).unwrap();
    put(root, "closed/in", b"in", 0o600, THEN);
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("plain", root.join("to-file")).unwrap();
    symlink("dir", root.join("to-dir")).unwrap();
    symlink("plain", root.join("to-other")).unwrap();
    fs::hard_link(root.join("plain"), root.join("plain-again")).unwrap();
    let node =
        |name: &str, kind, device| rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device);
    node("fifo", FileType::Fifo, 0).unwrap();
    if is_root() {
        node("device", FileType::CharacterDevice, rustix::fs::makedev(1, 3)).unwrap();
        std::os::unix::fs::chown(root.join("big"), Some(1234), Some(5678)).unwrap();
        std::os::unix::fs::lchown(root.join("dangling"), Some(1), Some(2)).unwrap();
        node("device-moved", FileType::CharacterDevice, rustix::fs::makedev(1, 5)).unwrap();
        set_mtime(&root.join("device"), THEN.0, 9);
        set_mtime(&root.join("device-moved"), THEN.0, 9);
    }
    node("fifo-again", FileType::Fifo, 0).unwrap();
    for (name, mode) in [("closed", 0o500), ("dir", 0o750), ("dir/sub", 0o755), ("hollow", 0o1777), (".", 0o755)] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["fifo", "fifo-again", "dangling", "to-file", "to-dir", "to-other"] {
        set_mtime(&root.join(name), THEN.0 + 7, 7);
    }
    for name in ["dir/sub/deeper", "dir/sub", "dir", "dir-x", "hollow/within", "hollow", "closed", "."] {
        set_mtime(&root.join(name), THEN.0 + 9, 99);
    }
}

/// An older copy of what [`build`] makes: some of it the same, some different, some missing, some of another kind.
pub fn build_old(root: &Path) {
    fs::create_dir_all(root).unwrap();
    let earlier = (THEN.0 - 5000, 1);
    put(root, "same", b"the same on both sides\n", 0o640, (THEN.0, 0));
    let mut changed = noise(200_000, 2);
    changed[100_000..100_010].copy_from_slice(b"difference");
    changed.drain(20..25);
    put(root, "changed", &changed, 0o600, earlier);
    put(root, "grown", &noise(60_000, 3)[..40_000], 0o644, earlier);
    put(root, "touched", b"only the time differs", 0o644, earlier);
    put(root, "same-second", b"ditto", 0o644, (THEN.0, 5));
    put(root, "newer-there", b"theirs is newer, and longer", 0o644, (THEN.0 + 5000, 1));
    put(root, "same-size", b"bbbb", 0o644, THEN);
    put(root, "mode-differs", b"mode", 0o600, THEN);
    put(root, "dir/one", b"1", 0o644, THEN);
    put(root, "dir/extra", b"stays", 0o644, THEN);
    symlink("elsewhere", root.join("kind")).unwrap();
    symlink("elsewhere", root.join("to-other")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("fifo"), "a file there").unwrap();
    let node =
        |name: &str, kind, device| rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o600), device);
    node("fifo-again", FileType::Fifo, 0).unwrap();
    if is_root() {
        node("device-moved", FileType::CharacterDevice, rustix::fs::makedev(1, 7)).unwrap();
        set_mtime(&root.join("device-moved"), earlier.0, 2);
    }
    for name in ["kind", "fifo", "fifo-again", "to-other", "empty", "dir", "."] {
        set_mtime(&root.join(name), earlier.0, 2);
    }
}

/// Copies a folder with all attributes.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}

/// Whether we may make devices and give files away.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
