//! The engine where only size, two ends of ours, or the file system bring it out: what is sent and written of large files.

use crate::support;
use crate::support::both::{Ends, PAIRINGS, STOCK};
use crate::support::stock::{Bench, OURS, Run, client, ended};
use crate::support::tree::{THEN, noise, put, set_mtime};
use protocol::checksum::{Checksum, FileHasher};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Pushes a folder with these programs, and gives the numbers of that.
fn copy(bench: &Bench, ends: Ends, options: &str, source: &Path, dest: &Path) -> Run {
    run(bench, ends, options, &format!("{}/", source.display()), &format!("host:{}/", dest.display()))
}

fn run(bench: &Bench, (near, far): Ends, options: &str, from: &str, to: &str) -> Run {
    let mut command = client(near);
    command.args(options.split_whitespace()).arg("--stats").arg("-e").arg(bench.shell());
    let run = ended(command.args(["--rsync-path", far, from, to]));
    assert_eq!(run.code, 0, "{near} to {far} with {options}: {}", run.stderr);
    run
}

/// A file of 9 MiB, in small blocks of more sums than a pipe holds, and old copies of it.
fn large() -> (Vec<u8>, Vec<(&'static str, Vec<u8>)>) {
    let new = noise(9 << 20, 1);
    let mut changed = new.clone();
    for at in [700, 5 << 20, (7 << 20) + 3, new.len() - 1] {
        changed[at] ^= 1;
    }
    let early = [&new[..3 << 20], &new[(3 << 20) + 11..]].concat();
    let olds = vec![
        ("identical", new.clone()),
        ("changed", changed),
        ("appended", new[..8 << 20].to_vec()),
        ("inserted", early),
    ];
    (new, olds)
}

/// The sender begins while sums still come: the numbers are stock's all the same, and nobody waits for anybody forever.
#[test]
fn large_files_cost_what_stock_makes_of_them() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let (new, olds) = large();
    for (options, pull) in [
        ("-rt --no-W -B700", false),
        ("-rt --no-W -B700", true),
        ("-rtI --no-W --checksum-choice=md5", false),
        ("-rt --no-W --inplace -B1000", false),
    ] {
        for (name, old) in &olds {
            let work = bench.fresh("large");
            let source = work.path().join("src");
            put(&source, "file", &new, 0o644, THEN);
            let mut stats = Vec::new();
            for (at, ends) in PAIRINGS.into_iter().chain([(STOCK, STOCK)]).enumerate() {
                let dest = work.path().join(format!("dst{at}"));
                put(&dest, "file", old, 0o644, (THEN.0 - 5, 0));
                let (source, there) = (format!("{}/", source.display()), format!("{}/", dest.display()));
                let run = match pull {
                    false => run(&bench, ends, options, &source, &format!("host:{there}")),
                    true => run(&bench, ends, options, &format!("host:{source}"), &there),
                };
                assert!(fs::read(dest.join("file")).unwrap() == new, "{name} with {options}, pair {at}");
                assert_eq!(fs::metadata(dest.join("file")).unwrap().mtime(), THEN.0);
                stats.push((run.stat("Literal data"), run.stat("Matched data")));
            }
            assert!(stats.iter().all(|pair| *pair == stats[0]), "{name} with {options}: {stats:?}");
        }
    }
}

/// BLAKE3 is known to two of ours only.
#[test]
fn two_of_ours_can_agree_on_blake3() {
    let bench = Bench::start();
    let work = bench.fresh("blake3");
    let (source, dest) = (work.path().join("src"), work.path().join("dst"));
    let new = noise(300_000, 2);
    put(&source, "file", &new, 0o644, THEN);
    let mut old = new.clone();
    old[150_000] ^= 1;
    put(&dest, "file", &old, 0o644, (THEN.0 - 5, 0));
    let options = "-rt --no-W --checksum-choice=blake3 --out-format=%C";
    let run = copy(&bench, (OURS, OURS), options, &source, &dest);
    assert!(fs::read(dest.join("file")).unwrap() == new);
    let literal = run.stat("Literal data");
    assert!((1..2000).contains(&literal), "{literal} literal bytes");
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let mut hasher = FileHasher::new(Checksum::Blake3);
    hasher.update(&new);
    let sum = hasher.finish().to_string();
    assert!(said.lines().any(|line| line == sum), "{sum} is not in {said}");
    // By their bytes, with another time: nothing to send.
    set_mtime(&dest.join("file"), THEN.0 + 9, 0);
    let options = "-rtc --checksum-choice=blake3";
    assert_eq!(copy(&bench, (OURS, OURS), options, &source, &dest).stat("Literal data"), 0);
    if support::tools::require("rsync") {
        let args = ["-rt", "--checksum-choice=blake3", "src/", "host:dst/"];
        assert_ne!(bench.rsync("rsync", work.path(), &args).code, 0, "stock knows no BLAKE3");
    }
}

/// A file system in a file of this folder; `None` where none can be mounted.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn xfs(folder: &Path) -> Option<Self> {
        if !support::tools::require("mkfs.xfs") {
            return None;
        }
        let (image, place) = (folder.join("image"), folder.join("mounted"));
        fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
        fs::create_dir(&place).unwrap();
        let made = Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image).status().unwrap().success();
        assert!(made, "mkfs.xfs failed");
        let mounted = Command::new("mount").args(["-o", "loop"]).args([&image, &place]).output().unwrap();
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
            eprintln!("SKIPPED: may not mount a file system; run as root with loop devices: {why}");
            return None;
        }
        Some(Self(place))
    }

    fn used(&self) -> u64 {
        assert!(Command::new("sync").arg("-f").arg(&self.0).status().unwrap().success());
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Where the file system can share blocks, only what changed is written, to a new file all the same.
#[test]
fn a_changed_file_shares_the_blocks_of_the_old_one() {
    let bench = Bench::start();
    let work = bench.fresh("reflink");
    let Some(mounted) = Mounted::xfs(work.path()) else { return };
    let (source, dest) = (work.path().join("src"), mounted.0.join("dst"));
    let new = noise(32 << 20, 3);
    put(&source, "file", &new, 0o644, THEN);
    let mut old = new.clone();
    old[10 << 20] ^= 1;
    old[20 << 20] ^= 1;
    put(&dest, "file", &old, 0o644, (THEN.0 - 5, 0));
    let name = dest.join("file");
    // Kept open, the old file stays as it was.
    let before = fs::File::open(&name).unwrap();
    let inode = fs::metadata(&name).unwrap().ino();
    let used = mounted.used();
    let run = copy(&bench, (OURS, OURS), "-rt --no-W", &source, &dest);
    assert!(run.stat("Literal data") < 100_000);
    assert!(fs::read(&name).unwrap() == new);
    assert_ne!(fs::metadata(&name).unwrap().ino(), inode);
    let grown = mounted.used().saturating_sub(used);
    assert!(grown < 4 << 20, "{grown} bytes for a new file of 32 MiB that differs in two");
    drop(before);
}
