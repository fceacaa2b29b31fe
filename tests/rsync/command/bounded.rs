//! `--confine-root`: paths that options name lead nowhere but beneath a folder, at the end it is said to.

use crate::support;
use crate::support::stock::{Bench, OURS, Run};
use crate::support::tree::{self, THEN, Tree};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn prepare(work: &Path) {
    tree::put(&work.join("in"), "src/a", b"a\n", 0o644, THEN);
    tree::put(&work.join("in"), "src/sub/b", b"b\n", 0o644, THEN);
    tree::put(&work.join("in"), "src/.own", b"- a\n", 0o644, THEN);
    tree::put(&work.join("in"), "src/.nest", b". .far\n", 0o644, THEN);
    tree::put(&work.join("in"), "dst/a", b"older\n", 0o644, (THEN.0 - 99, 0));
    tree::put(&work.join("out"), "basis/a", b"a\n", 0o644, THEN);
    for folder in ["in", "out"] {
        tree::put(&work.join(folder), "rules", b"- a\n", 0o644, THEN);
        tree::put(&work.join(folder), "list", b"a\n", 0o644, THEN);
    }
    tree::put(work, "names", b"way/basis/a\nsrc/a\n", 0o644, THEN);
    for (target, link) in [
        ("../../out/rules", "in/src/.far"),
        ("../rules", "in/src/.near"),
        ("../out", "in/way"),
        ("../in/list", "out/back"),
    ] {
        symlink(target, work.join(link)).unwrap();
    }
}

/// Runs a line; `server` is the program at the other end with its own words.
fn play(bench: &Bench, program: &[&str], server: &str, line: &str) -> (Run, Tree, Tree) {
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let here = |text: &str| text.replace("WORK", work.to_str().unwrap());
    let shell = bench.script("here", &format!("shift\ncd {}\nexec sh -c \"$*\"\n", work.display()));
    let mut words: Vec<_> = line.split(' ').map(|word| here(word).replace('_', " ")).collect();
    words.extend(["-e".into(), shell.to_str().unwrap().to_owned()]);
    words.push(format!("--rsync-path={}", here(server)));
    let run = super::run(program, work, &words);
    fs::remove_file(work.join("log")).ok();
    (run, Tree::of(&work.join("in"), THEN.0 + 9), Tree::of(&work.join("out"), THEN.0 + 9))
}

/// What stock refuses, we refuse; what it takes, we take. Whether a refusal ends the session may differ: what lies outside
/// is never used.
#[test]
fn named_paths_stay_within_a_folder() {
    if !support::require("rsync") {
        return;
    }
    let bench = Bench::start();
    let far = |program: &str| format!("{program} --confine-root=WORK/in");
    for (line, same_end) in [
        ("-r --filter=:_.far host:in/src/ in/new/", true),
        ("-r --filter=:_.near host:in/src/ in/new/", true),
        ("-r --filter=:_.own host:in/src/ in/new/", true),
        ("-r --filter=:_.nest host:in/src/ in/new/", false),
        ("-r --delete --filter=:_.far host:in/src/ in/new/", true),
        ("-r host:out/basis/ in/new/", true),
        ("-r host:in/way/basis/ in/new/", true),
        ("-r --files-from=:out/list host:in/src/ in/new/", false),
        ("-r --files-from=:out/back host:in/src/ in/new/", false),
        ("-r --files-from=:in/list host:in/src/ in/new/", true),
        ("-r --files-from=:in/src/../list host:in/src/ in/new/", true),
        ("-r --files-from=names host:in/ in/new/", true),
        ("-rt --link-dest=WORK/out/basis in/src/ host:in/other/", false),
        ("-rt --copy-dest=../way/basis in/src/ host:in/other/", false),
        ("-rt --compare-dest=WORK/in/src in/src/ host:in/other/", true),
        ("-r --temp-dir=WORK/out in/src/ host:in/dst/", false),
        ("-rb --backup-dir=../way/kept in/src/ host:in/dst/", false),
        ("-rb --backup-dir=../kept in/src/ host:in/dst/", true),
        ("-r in/src/ host:in/way/new/", true),
        ("-r -M--insecure-links in/src/ host:in/dst/", false),
    ] {
        let stock = play(&bench, &["rsync"], &far("rsync"), line);
        let ours = play(&bench, &["rsync"], &far(OURS), line);
        let told = format!("{line}\n{} {}\n{} {}", stock.0.code, stock.0.stderr, ours.0.code, ours.0.stderr);
        assert_eq!(stock.0.code == 0, ours.0.code == 0, "{told}");
        assert_eq!(stock.2.difference(&ours.2), "", "{told}");
        if same_end {
            assert_eq!(stock.0.code, ours.0.code, "{told}");
            assert_eq!(stock.1.difference(&ours.1), "", "{told}");
        }
    }
    // At a client, what stands on its own command line is the operator's word.
    for line in [
        "-r --confine-root=WORK/in --filter=:_.far in/src/ in/new/",
        "-r --confine-root=WORK/in --exclude-from=out/rules in/src/ in/new/",
        "-r --confine-root=WORK/in --files-from=out/list in/src/ in/new/",
        "-r --confine-root=WORK/in --files-from=names in/ in/new/",
        "-r --confine-root=/ --filter=:_.far in/src/ in/new/",
        "-r --confine-root=WORK/nowhere --filter=:_.own in/src/ in/new/",
        "-r --confine-root=WORK/in in/src/ host:in/new/",
    ] {
        let stock = play(&bench, &["rsync"], "rsync", line);
        let ours = play(&bench, &[OURS, "rsync"], "rsync", line);
        let told = format!("{line}\n{} {}\n{} {}", stock.0.code, stock.0.stderr, ours.0.code, ours.0.stderr);
        assert_eq!(stock.0.code, ours.0.code, "{told}");
        assert_eq!(stock.1.difference(&ours.1), "", "{told}");
    }
}
