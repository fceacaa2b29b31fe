//! ACLs, extended attributes, owners, modes, times, links and nodes against stock rsync: the same command must leave the
//! same trees, exit code and words whether stock or we are at the far end.

use crate::support;
use crate::support::both::{Both, STOCK, all_agree, words};
use crate::support::stock::{Bench, OURS, Run, client, ended};
use crate::support::tree::{self, THEN, Tree, put};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;

/// Tags of the parts of an ACL.
const OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

fn acl(parts: &[(u16, u16, u32)]) -> Vec<u8> {
    let part = |&(tag, perms, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &perms.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    2u32.to_le_bytes().into_iter().chain(parts.iter().flat_map(part)).collect()
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn access(path: &Path, parts: &[(u16, u16, u32)]) {
    set(path, "system.posix_acl_access", &acl(parts));
}

fn default(path: &Path, parts: &[(u16, u16, u32)]) {
    set(path, "system.posix_acl_default", &acl(parts));
}

/// Everything a session may carry, ACLs and extended attributes above all.
fn build(root: &Path) {
    const NO: u32 = u32::MAX;
    for name in
        ["plain", "named", "mask-equal", "mask-only", "mask-low", "same-acl", "closed", "sub/one", "sub/two", "old"]
    {
        put(root, name, name.as_bytes(), 0o640, THEN);
    }
    put(root, "setuid", b"setuid", 0o6755, THEN);
    put(root, "big", &tree::noise(70_000, 9), 0o604, THEN);
    let path = |name: &str| root.join(name);
    let named = [
        (OWNER, 6, NO),
        (USER, 7, 1),
        (GROUP_OBJ, 4, NO),
        (GROUP, 5, 2),
        (GROUP, 1, 4242),
        (MASK, 7, NO),
        (OTHER, 0, NO),
    ];
    access(&path("named"), &named);
    access(&path("same-acl"), &named);
    access(&path("mask-equal"), &[(OWNER, 6, NO), (USER, 7, 1), (GROUP_OBJ, 4, NO), (MASK, 4, NO), (OTHER, 0, NO)]);
    access(&path("mask-only"), &[(OWNER, 6, NO), (GROUP_OBJ, 6, NO), (MASK, 4, NO), (OTHER, 1, NO)]);
    access(&path("mask-low"), &[(OWNER, 6, NO), (USER, 7, 33), (GROUP_OBJ, 6, NO), (MASK, 2, NO), (OTHER, 1, NO)]);
    access(&path("sub"), &[(OWNER, 7, NO), (USER, 5, 1234), (GROUP_OBJ, 5, NO), (MASK, 5, NO), (OTHER, 5, NO)]);
    default(&path("sub"), &[(OWNER, 7, NO), (USER, 5, 1), (GROUP_OBJ, 5, NO), (MASK, 5, NO), (OTHER, 0, NO)]);
    set(&path("plain"), "user.small", b"v");
    set(&path("plain"), "user.empty", b"");
    set(&path("plain"), "user.rsync.%kept", b"internal");
    set(&path("plain"), "trusted.t", b"by root");
    for name in ["plain", "named", "big", "closed", "old"] {
        set(&path(name), "user.long", &tree::noise(1000, 4));
    }
    set(&path("named"), "user.edge", &[b'e'; 32]);
    set(&path("named"), "user.past-edge", &[b'e'; 33]);
    set(&path("sub"), "user.folder", &tree::noise(300, 5));
    set(root, "user.root", &[b'r'; 40]);
    symlink("plain", path("link")).unwrap();
    set(&path("link"), "trusted.link", &tree::noise(50, 6));
    let node = |name: &str, kind, mode, device| {
        rustix::fs::mknodat(CWD, path(name), kind, Mode::from_raw_mode(mode), device).unwrap();
        tree::set_mtime(&path(name), THEN.0 + 3, 0);
    };
    node("fifo", FileType::Fifo, 0o600, 0);
    node("socket", FileType::Socket, 0o644, 0);
    node("device", FileType::CharacterDevice, 0o644, rustix::fs::makedev(1, 3));
    node("block", FileType::BlockDevice, 0o600, rustix::fs::makedev(7, 300));
    set(&path("device"), "trusted.device", b"null");
    lchown(path("plain"), Some(1000), Some(1001)).unwrap();
    lchown(path("device"), Some(5), Some(6)).unwrap();
    lchown(path("link"), Some(7), Some(8)).unwrap();
    lchown(path("setuid"), Some(33), Some(33)).unwrap();
    fs::set_permissions(path("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(path("sticky")).unwrap();
    fs::set_permissions(path("sticky"), fs::Permissions::from_mode(0o3755)).unwrap();
    for name in ["link", "sub", "sticky", "."] {
        tree::set_mtime(&path(name), THEN.0 + 7, 7);
    }
    set_atimes(root, THEN.0 + 1000);
    set_atimes(&root.join("sub"), THEN.0 + 2000);
}

/// An older copy: some of it the same but for an attribute.
fn build_old(root: &Path) {
    const NO: u32 = u32::MAX;
    put(root, "plain", b"plain", 0o640, THEN);
    put(root, "named", b"named", 0o640, THEN);
    put(root, "same-acl", b"same-acl", 0o640, THEN);
    put(root, "mask-only", b"mask-only", 0o640, THEN);
    put(root, "big", b"not so big yet", 0o600, THEN);
    put(root, "old", b"an older one", 0o640, (THEN.0 - 50, 0));
    put(root, "sub/one", b"sub/one", 0o640, THEN);
    let path = |name: &str| root.join(name);
    let named = [
        (OWNER, 6, NO),
        (USER, 7, 1),
        (GROUP_OBJ, 4, NO),
        (GROUP, 5, 2),
        (GROUP, 1, 4242),
        (MASK, 7, NO),
        (OTHER, 0, NO),
    ];
    access(&path("same-acl"), &named);
    access(&path("sub/one"), &named);
    access(&path("mask-only"), &[(OWNER, 6, NO), (USER, 6, 9), (GROUP_OBJ, 6, NO), (MASK, 4, NO), (OTHER, 1, NO)]);
    default(&path("."), &[(OWNER, 7, NO), (USER, 7, 3), (GROUP_OBJ, 5, NO), (MASK, 7, NO), (OTHER, 0, NO)]);
    set(&path("plain"), "user.small", b"w");
    set(&path("plain"), "user.surplus", b"gone");
    set(&path("old"), "user.long", &tree::noise(1000, 4));
    set(&path("big"), "user.long", &tree::noise(1000, 7));
    lchown(path("plain"), Some(1000), Some(1001)).unwrap();
    symlink("elsewhere", path("link")).unwrap();
    for name in ["link", "sub", "."] {
        tree::set_mtime(&path(name), THEN.0 + 7, 7);
    }
    set_atimes(root, THEN.0 + 1001);
    set_atimes(&root.join("sub"), THEN.0 + 2001);
}

/// Sets the access times of what lies in a folder, one after the other.
fn set_atimes(root: &Path, first: i64) {
    let mut names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for (at, path) in (first..).zip(names) {
        set_atime(&path, at);
    }
}

fn set_atime(path: &Path, seconds: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: seconds, tv_nsec: 0 },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Extended attributes of everything beneath a folder.
fn xattrs(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for name in Tree::of(root, 0).0.into_keys() {
        let path = root.join(OsStr::from_bytes(&name));
        let mut names = vec![0; 10_000];
        let len = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
        for attribute in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 70_000];
            let len = rustix::fs::lgetxattr(&path, OsStr::from_bytes(attribute), &mut value[..]).unwrap();
            let (name, attribute) = (name.escape_ascii(), attribute.escape_ascii());
            lines.push(format!("{name}: {attribute} = {}", value[..len].escape_ascii()));
        }
    }
    lines.sort();
    lines
}

/// Access times that were set long ago, of everything but directories.
fn atimes(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().map(|entry| entry.unwrap());
    let old = entries.filter_map(|entry| {
        let meta = entry.metadata().unwrap();
        let counts = !meta.is_dir() && meta.atime() < THEN.0 + 100_000;
        counts.then(|| format!("{}: accessed at {}", entry.file_name().display(), meta.atime()))
    });
    let mut lines: Vec<_> = old.collect();
    lines.sort();
    lines
}

/// What must be the same besides trees: lines about items and totals, complaints, attributes and access times.
fn look(run: &Run, work: &Path) -> Vec<String> {
    let complaints = run.stderr.lines().map(|line| line.replace(work.to_str().unwrap(), "WORK").replace("/./", "/"));
    let mut complaints: Vec<_> =
        complaints.filter(|line| !line.contains(" at main.c(") && !line.contains("rsync error:")).collect();
    complaints.sort();
    let dst = work.join("dst");
    [run.lines(), complaints, xattrs(&dst), atimes(&dst)].concat()
}

fn ready() -> bool {
    let root = tree::is_root();
    if !root {
        eprintln!("SKIPPED: only root can make the trees; run as root");
    }
    root && support::tools::require("rsync")
}

/// Runs each option set, `SRC` and `DST` in it standing for the two ends (pushed or pulled).
fn table(options: &[&str], versions: &[u8], pushes: &[bool], prepare: &(dyn Fn(&Path) + Sync)) {
    if !ready() {
        return;
    }
    let bench = Bench::start();
    let both = Both { look: &look, ..Both::new(&bench, prepare) };
    let mut cases = Vec::new();
    for options in options {
        for version in versions {
            cases.extend(pushes.iter().map(|&push| (*options, *version, push)));
        }
    }
    all_agree(&cases, |&(options, version, push)| {
        // The newest version lists in segments, the others in one piece.
        let lists = if version == 32 { "--i-r" } else { "--no-i-r" };
        let operands = if push { "src/ host:dst/" } else { "host:src/ dst/" };
        both.difference((STOCK, OURS), &format!("--protocol={version} -i {lists} {options} {operands}"))
    });
}

fn old(work: &Path) {
    build(&work.join("src"));
    build_old(&work.join("dst"));
}

fn empty(work: &Path) {
    build(&work.join("src"));
    fs::create_dir(work.join("dst")).unwrap();
}

#[test]
fn attributes_over_older_ones() {
    table(&["-aAX", "-aXXU"], &[30, 31, 32], &[true, false], &old);
    let options = [
        "-aA",
        "-aX",
        "-rA --numeric-ids",
        "-aAX --numeric-ids",
        "-aAXc",
        "-aAXni",
        "-aAXii",
        "-rptX",
        "-aUU",
        "-rtU",
        "-aAXI",
    ];
    table(&options, &[32], &[true, false], &old);
}

#[test]
fn attributes_where_nothing_is() {
    table(&["-aAX", "-rlptXU"], &[30, 32], &[true, false], &empty);
    table(&["-aA", "-aXX", "-aAXn", "-rAX", "-aAXR"], &[32], &[true, false], &empty);
}

#[test]
fn fake_super_at_the_far_end() {
    // Where the attributes of something that is there come late, stock's own ACLs are among those it removes.
    table(
        &["-aA -M--fake-super", "-aX -M--fake-super", "-aU -M--fake-super", "-aXni -M--fake-super"],
        &[30, 32],
        &[true],
        &old,
    );
    let short = |work: &Path| {
        empty(work);
        set(&work.join("src"), "user.root", b"r");
        set(&work.join("src/sub"), "user.folder", b"f");
        for name in ["access", "default"] {
            rustix::fs::removexattr(work.join("src/sub"), format!("system.posix_acl_{name}")).unwrap();
        }
    };
    let options = ["-aAX -M--fake-super", "-a -M--fake-super"];
    table(&options, &[32], &[true], &short);
    let faked = |work: &Path| {
        short(work);
        fs::rename(work.join("src"), work.join("real")).unwrap();
        let run = support::stock::rsync(work, &["-aAX", "-M--fake-super", "-e", "../rsh", "real/", "host:src/"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        set_atimes(&work.join("src"), THEN.0 + 5000);
    };
    table(&options, &[30, 32], &[false], &faked);
    let again = |work: &Path| {
        short(work);
        let run = support::stock::rsync(work, &["-aAX", "-M--fake-super", "-e", "../rsh", "src/", "host:dst/"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
    };
    table(&["-aAX -M--fake-super", "-aAXc -M--fake-super"], &[32], &[true], &again);
}

/// Runs each command with the far end as a user without powers.
fn powerless(prepare: &(dyn Fn(&Path) + Sync), commands: &[&str]) {
    if !ready() || !support::tools::require("setpriv") {
        return;
    }
    let bench = Bench::start();
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let before = "setpriv --reuid=65534 --regid=65534 --groups=65534,1001 ";
    let both = Both { before, look: &look, ..Both::new(&bench, prepare) };
    all_agree(commands, |command| both.difference((STOCK, OURS), command));
}

#[test]
fn others_than_root() {
    let prepare = |work: &Path| {
        empty(work);
        lchown(work.join("dst"), Some(65534), Some(65534)).unwrap();
        put(work, "dst/theirs", b"theirs", 0o444, THEN);
        put(&work.join("src"), "theirs", b"theirs", 0o444, THEN);
        set(&work.join("src/theirs"), "user.long", &[b't'; 99]);
        lchown(work.join("dst/theirs"), Some(65534), Some(65534)).unwrap();
        lchown(work.join("src/theirs"), Some(65534), Some(65534)).unwrap();
        set_atimes(&work.join("src"), THEN.0 + 3000);
        set_atimes(&work.join("dst"), THEN.0 + 4000);
    };
    powerless(
        &prepare,
        &[
            "-i --no-i-r -aAX src/ host:dst/",
            "-i --no-i-r -aX -M--fake-super src/ host:dst/",
            "-i --no-i-r -rlptX src/ host:dst/",
            "-i --no-i-r -aAX host:src/ dst/",
            "-i --no-i-r -aU host:src/ dst/",
        ],
    );
}

/// Links that lead everywhere, at both ends.
fn links(work: &Path) {
    let src = work.join("src");
    put(&src, "real/f", b"real", 0o644, THEN);
    put(&src, "d/e/g", b"deep", 0o644, THEN);
    put(work, "out/of", b"outside", 0o644, THEN);
    put(work, "out/dir/in", b"outside, in a folder", 0o644, THEN);
    for (name, target) in [
        ("ok", "real/f"),
        ("dangling", "nowhere"),
        ("up", "../out/of"),
        ("up-dir", "../out/dir"),
        ("gone", "../out/gone"),
        ("nested", "d/../../out/of"),
        ("mid", "d/../real/f"),
        ("d/ok2", "../real/f"),
        ("d/e/climbing", "../../real"),
        ("munged", "/rsyncd-munged/real/f"),
        ("to-dir", "real"),
    ] {
        symlink(target, src.join(name)).unwrap();
        tree::set_mtime(&src.join(name), THEN.0, 0);
    }
    put(work, "dst/elsewhere/f", b"older", 0o600, (THEN.0 - 9, 0));
    symlink("elsewhere", work.join("dst/real")).unwrap();
    symlink("gone", work.join("dst/d")).unwrap();
    for name in ["src/real", "src/d/e", "src/d", "src", "out/dir", "out", "dst/elsewhere", "dst"] {
        tree::set_mtime(&work.join(name), THEN.0, 0);
    }
}

#[test]
fn links_of_all_kinds() {
    let options = [
        "-a --safe-links",
        "-av --safe-links",
        "-rt --safe-links",
        "-a --copy-unsafe-links",
        "-av --copy-unsafe-links",
        "-rt --copy-unsafe-links",
        "-a --copy-unsafe-links --safe-links",
        "-a -M--munge-links",
        "-a --munge-links",
        // Stock gives the link the time that is meant for the directory.
        "-aKO",
        "-aKOc",
        "-aKn",
        "-aKOX",
        "-aLKO",
        "-ak",
        "-akKO",
    ];
    table(&options, &[32], &[true, false], &links);
}

#[test]
fn keep_dirlinks_follows_only_links_of_root_and_ours() {
    if !ready() || !support::tools::require("setpriv") {
        return;
    }
    let bench = Bench::start();
    let work = bench.fresh("ours");
    let work = work.path();
    links(work);
    lchown(work.join("dst/real"), Some(4242), None).unwrap();
    let run = bench.rsync(OURS, work, &["-aK", "src/", "host:dst/"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(fs::symlink_metadata(work.join("dst/real")).unwrap().is_dir());
    assert_eq!(fs::read(work.join("dst/elsewhere/f")).unwrap(), b"older");
}

#[test]
fn owners_and_modes_by_option() {
    let prepare = |work: &Path| {
        empty(work);
        for (at, id) in [0u32, 1, 2, 33, 1000, 4242].into_iter().enumerate() {
            put(&work.join("src"), format!("by{id}"), b"owned", 0o640 + at as u32, THEN);
            lchown(work.join("src").join(format!("by{id}")), Some(id), Some(id)).unwrap();
        }
        tree::set_mtime(&work.join("src"), THEN.0, 0);
    };
    let push = [
        "-a --usermap=0-99:nobody",
        "-a --usermap=daemon:33,*:7",
        "-a --usermap=:55 --groupmap=1-33:4,bin:9",
        "-a --groupmap=*:users",
        "-a --usermap=*:2 --numeric-ids",
        "-aA --usermap=daemon:44 --groupmap=bin:45",
        "-a --chown=daemon:bin",
        "-a --usermap=root:5,[cd]*:6",
        "-a --usermap=*:nosuch",
        "-a --drop-D",
        "-rE",
        "-aO",
        "-aJ",
        "-rptgo --chmod=Dg+s,ug+w,Fo-w,+X",
    ];
    table(&push, &[30, 32], &[true], &prepare);
    let pull = ["-aAX --numeric-ids", "-a --chown=daemon:bin", "-a --chmod=D2775,F664", "-a --usermap=0:7"];
    table(&pull, &[32], &[false], &prepare);
    if !ready() {
        return;
    }
    let bench = Bench::start();
    for map in ["bogus", "1:", "1-x:3"] {
        let work = bench.fresh("ours");
        empty(work.path());
        let run = bench.rsync(OURS, work.path(), &["-a", &format!("--usermap={map}"), "src/", "host:dst/"]);
        assert!(run.code != 0 && run.stderr.contains("--usermap"), "{map}: {} {}", run.code, run.stderr);
    }
}

/// A loop device over this file, for as long as it lives.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["-f", "--show"]).arg(file).output().ok()?;
        output.status.success().then(|| Self(String::from_utf8(output.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// What a device holds is sent as a file's content; one that has no length, and perhaps no end, is an empty file.
#[test]
fn devices_are_copied_as_files() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("devices");
    let work = work.path();
    let content = tree::noise(300 * 512, 3);
    fs::write(work.join("disk"), &content).unwrap();
    fs::create_dir(work.join("src")).unwrap();
    let disk = Loop::over(&work.join("disk"));
    let mode = Mode::from_raw_mode(0o640);
    let node = |name: &str, kind, device| {
        let at = work.join("src").join(name);
        rustix::fs::mknodat(CWD, &at, kind, mode, device).unwrap();
    };
    if let Some(disk) = &disk {
        let number = disk.0.trim_start_matches("/dev/loop").parse().unwrap();
        node("block", FileType::BlockDevice, rustix::fs::makedev(7, number));
    } else {
        eprintln!("SKIPPED: no loop device can be had here");
    }
    node("zero", FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    node("pipe", FileType::Fifo, 0);
    tree::put(work, "src/file", b"a file\n", 0o644, THEN);
    for options in ["-rlpgoD", "-rc --no-D", "-rHAX --stats", "-r --list-only", "-rz --no-i-r"] {
        let mut said = Vec::new();
        for (program, dst) in [(STOCK, "stock"), (OURS, "ours")] {
            fs::create_dir_all(work.join(dst)).unwrap();
            // A device has the time at which it is listed: in the second of its last copy it would be found unchanged.
            for copy in fs::read_dir(work.join(dst)).unwrap() {
                tree::set_mtime(&copy.unwrap().path(), THEN.0 + 5, 0);
            }
            let line = format!("-i --copy-devices {options} src/ {dst}/");
            let run = ended(client(program).args(words(&line)).current_dir(work));
            let text = String::from_utf8(run.stdout).unwrap();
            let kept =
                |line: &&str| !line.contains("bytes") && !line.contains("File list") || line.contains("file size");
            // A list shows when it was made.
            // What is skipped is said by the other end, now sooner, now later.
            let mut lines: Vec<_> =
                text.lines().filter(kept).map(|line| line.get(..25).unwrap_or(line).to_owned()).collect();
            lines.sort();
            said.push((run.code, lines, run.stderr));
        }
        assert_eq!(said[0], said[1], "{options}");
        if options.contains("list-only") {
            continue;
        }
        let read = |dst: &str, name: &str| fs::read(work.join(dst).join(name)).unwrap();
        assert!(read("ours", "zero").is_empty() && read("stock", "zero").is_empty());
        assert!(disk.is_none() || read("ours", "block") == content, "{options}");
        for (near, far) in [(OURS, STOCK), (STOCK, OURS)] {
            for operands in ["src/ host:far/", "host:src/ far/"] {
                let _ = fs::remove_dir_all(work.join("far"));
                let line = format!("{options} --copy-devices --rsync-path={far} {operands}");
                let run = ended(client(near).arg("-e").arg(bench.shell()).args(words(&line)).current_dir(work));
                assert_eq!(run.code, 0, "{near} {line}: {}", run.stderr);
                assert!(
                    read("far", "zero").is_empty() && (disk.is_none() || read("far", "block") == content),
                    "{line}"
                );
            }
        }
    }
}
