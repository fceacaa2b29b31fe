//! `--confine-root`: paths that options name lead nowhere but beneath a folder, at the end it is said to.

use crate::support::both::{Both, STOCK};
use crate::support::stock::{Bench, OURS};
use crate::support::tree::{self, THEN};
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

/// What stock refuses, we refuse; what it takes, we take. Whether a refusal ends the session may differ: what lies outside
/// is never used.
#[test]
fn named_paths_stay_within_a_folder() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let both =
        Both { folders: &["out", "in"], look: &|_, _| Vec::new(), since: THEN.0 + 9, ..Both::new(&bench, &prepare) };
    let play = |near: &str, far: &str, line: &str| {
        let words: Vec<_> = line.split(' ').map(|word| word.replace('_', " ")).collect();
        both.run((near, far), &words)
    };
    let [stocks, ours] = [STOCK, OURS].map(|program| format!("{program} --confine-root=WORK/in"));
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
        let (stock, ours) = (play(STOCK, &stocks, line), play(STOCK, &ours, line));
        let told = format!("{line}\n{} {}\n{} {}", stock.run.code, stock.run.stderr, ours.run.code, ours.run.stderr);
        assert_eq!(stock.run.code == 0, ours.run.code == 0, "{told}");
        assert_eq!(stock.tree("out").difference(ours.tree("out")), "", "{told}");
        if same_end {
            assert_eq!(stock.difference(&ours), "", "{line}");
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
        assert_eq!(play(STOCK, STOCK, line).difference(&play(OURS, STOCK, line)), "", "{line}");
    }
}
