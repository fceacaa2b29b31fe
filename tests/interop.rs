//! Our ends against stock rsync's: the same command must leave the same trees, exit code and words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;
use support::stock::{Bench, OURS, Run, difference};
use support::tree::{self, Tree};

/// Options whose bytes on the wire depend on the version, for a copy of `src/` over an older `dst/`.
const CORE: &[&str] = &[
    "-a",
    "-ac",
    "-a --checksum-choice=xxh128",
    "-a --checksum-choice=md5",
    "-a --checksum-choice=none",
    "-ac --checksum-choice=md5,sha1",
    "-aI --no-W -B700",
    "-ad --no-r",
    "-r",
    "-rlptD --no-specials",
    "-a --numeric-ids",
    "-an",
    "-a --remove-source-files",
    "-aL",
    "-aii",
];

/// Further options every end must treat alike.
const MORE: &[&str] = &[
    "-a --checksum-choice=xxh3",
    "-a --checksum-choice=xxh64",
    "-a --checksum-choice=md4",
    "-a --checksum-choice=sha1",
    "-aW",
    "-aI",
    "-a --no-W -B131072",
    "-d",
    "-rlt",
    "-rE",
    "-rp",
    "-rpgoD",
    "-rl",
    "-rt",
    "-rtO",
    "-rltJ",
    "-rlpt --specials",
    "-aO",
    "-au",
    "-a --existing",
    "-a --ignore-existing",
    "-a --size-only",
    "-a --modify-window=6000",
    "-ac --modify-window=6000",
    "-acn",
    "-a --fsync",
    "-ak",
    "-axv",
    "-vvv -a",
    "-a --timeout=20",
];

fn words(options: &str) -> Vec<String> {
    options.split(' ').map(str::to_owned).collect()
}

/// Runs a command with stock's and with our program as the far end, each on its own copy of everything.
fn both(bench: &Bench, prepare: &dyn Fn(&Path), command: &[String], since: i64) -> (String, Run) {
    let mut ends = Vec::new();
    for (name, server) in [("stock", "rsync"), ("ours", OURS)] {
        let work = bench.path().join(name);
        let _ = std::process::Command::new("rm").arg("-rf").arg(&work).status().unwrap();
        fs::create_dir(&work).unwrap();
        prepare(&work);
        let run = bench.rsync(server, &work, command);
        ends.push((run, Tree::of(&work.join("src"), since), Tree::of(&work.join("dst"), since)));
    }
    (difference(&ends[0], &ends[1]), ends[1].0.clone())
}

fn matrix(version: u8, push: bool) {
    if !support::require("rsync") {
        return;
    }
    let bench = Bench::start();
    let since = tree::now() - 1;
    tree::build(&bench.path().join("src"));
    tree::build_old(&bench.path().join("dst"));
    let prepare = |work: &Path| {
        tree::copy(&bench.path().join("src"), &work.join("src"));
        tree::copy(&bench.path().join("dst"), &work.join("dst"));
    };
    let mut failures = String::new();
    let more = if version == 32 { MORE } else { &[] };
    for options in CORE.iter().chain(more) {
        let mut command = vec![format!("--protocol={version}"), "-i".into(), "--stats".into(), "--no-i-r".into()];
        command.extend(words(options));
        command.extend(if push { ["src/", "host:dst/"] } else { ["host:src/", "dst/"] }.map(String::from));
        let (text, _) = both(&bench, &prepare, &command, since);
        if !text.is_empty() {
            failures += &format!("{options}\n{text}");
        }
    }
    assert!(failures.is_empty(), "{} {version}:\n{failures}", if push { "push" } else { "pull" });
}

#[test]
fn push_30() {
    matrix(30, true);
}

#[test]
fn push_31() {
    matrix(31, true);
}

#[test]
fn push_32() {
    matrix(32, true);
}

#[test]
fn pull_30() {
    matrix(30, false);
}

#[test]
fn pull_31() {
    matrix(31, false);
}

#[test]
fn pull_32() {
    matrix(32, false);
}
