//! `--parallel`: several connections, and nothing that could be told from one.

use crate::support::both::{Both, Ends, Outcome, STOCK, all_agree, words};
use crate::support::sshd::Sshd;
use crate::support::stock::{Bench, OURS, Run};
use crate::support::tree::{self, THEN, Tree};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// A remote shell that stays here. What the one session sends comes only so far, until a helper's session has ended: so helpers
/// have all that they can.
const GATE: &str = r#"shift
case "$*" in
*--remove-source-files*) sh -c "$*"; code=$?; touch helped; exit $code;;
*) (dd bs=1 count=9000 2>/dev/null; n=0
    until [ -e helped ] || [ $n = 300 ]; do n=$((n+1)); sleep 0.1; done; cat) | sh -c "$*";;
esac
"#;
/// One over which helpers are never let in.
const REFUSED: &str = "shift\ncase \"$*\" in *--remove-source-files*) exit 255;; esac\nexec sh -c \"$*\"\n";
/// One over which helpers break off in the middle of a file.
const BROKEN: &str = r#"shift
case "$*" in
*--remove-source-files*) dd bs=1000 count=150 2>/dev/null | sh -c "$*"; code=$?; touch helped; exit $code;;
*) (dd bs=1 count=9000 2>/dev/null; n=0
    until [ -e helped ] || [ $n = 300 ]; do n=$((n+1)); sleep 0.1; done; cat) | sh -c "$*";;
esac
"#;

/// Directories, files of all sizes, links of both kinds; at the other end some of it, older or other, and what is not wanted.
fn prepare(work: &Path) {
    let (src, dst) = (work.join("src"), work.join("dst"));
    for dir in ["a/b/c", "a/empty", "z/closed"] {
        fs::create_dir_all(src.join(dir)).unwrap();
    }
    for at in 0..12 {
        let name = format!("a/f{at}");
        tree::put(&src, &name, &tree::noise(270_000 + 1000 * at as usize, at), 0o640, then(at as i64));
        tree::put(&src, format!("a/b/c/g{at}"), &tree::noise(100 * at as usize, at + 50), 0o755, THEN);
    }
    tree::put(&src, "z/big", &tree::noise(2_000_000, 99), 0o600, THEN);
    tree::put(&src, "z/closed/in", &tree::noise(70_000, 98), 0o444, THEN);
    tree::put(&src, "changed", &tree::noise(200_000, 97), 0o644, THEN);
    tree::put(&src, "same", b"as it is", 0o644, THEN);
    fs::hard_link(src.join("a/f1"), src.join("hard")).unwrap();
    symlink("a/f1", src.join("soft")).unwrap();
    fs::create_dir_all(dst.join("a/b")).unwrap();
    fs::create_dir_all(dst.join("gone/deep")).unwrap();
    let mut old = tree::noise(200_000, 97);
    old[100_000..100_100].fill(0);
    tree::put(&dst, "changed", &old, 0o600, then(-100));
    tree::put(&dst, "same", b"as it is", 0o644, THEN);
    tree::put(&dst, "a/f2", b"old", 0o644, then(-5));
    tree::put(&dst, "a/f3", b"newer", 0o644, then(500_000));
    tree::put(&dst, "gone/deep/file", b"not wanted", 0o644, THEN);
    for dir in ["z/closed", "z", "a/b/c", "a/b", "a/empty", "a", "."] {
        touch(&src.join(dir), THEN.0 + 77);
    }
    touch(&dst.join("a"), THEN.0 + 77);
    // Only the one session has to do with directories.
    std::os::unix::fs::chown(src.join("a/b"), Some(1), Some(2)).unwrap();
    fs::set_permissions(src.join("a/b/c"), fs::Permissions::from_mode(0o701)).unwrap();
    fs::set_permissions(src.join("z/closed"), fs::Permissions::from_mode(0o555)).unwrap();
}

/// So many seconds behind that time.
fn then(seconds: i64) -> (i64, i64) {
    (THEN.0 + seconds, THEN.1)
}

fn touch(path: &Path, at: i64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(at.unsigned_abs());
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// All that is said, in its order, but for what two runs never share.
fn said(run: &Run, work: &Path) -> Vec<String> {
    let varies = ["sent ", "total size", "Total bytes", "File list", "created directory"];
    let text = String::from_utf8_lossy(&run.stdout).replace(work.to_str().unwrap(), "WORK");
    let lines = text.lines().filter(|line| !varies.iter().any(|start| line.starts_with(start)));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    // Our own far end tells of deletions where it likes.
    lines.sort_by_key(|line| !line.starts_with("*deleting"));
    lines.extend(run.stderr.lines().map(|line| line.replace(work.to_str().unwrap(), "WORK")));
    lines.extend(strays(&work.join("dst")));
    lines.extend(twins(&work.join("dst")));
    lines
}

/// What a session leaves that broke off.
fn strays(dir: &Path) -> Vec<String> {
    let tree = Tree::of(dir, i64::MAX);
    let names = tree.0.keys().map(|name| String::from_utf8_lossy(name).into_owned());
    names.filter(|name| name.rsplit('/').next().is_some_and(|leaf| leaf.starts_with('.') && leaf != ".")).collect()
}

/// Whether two names are one file.
fn twins(dir: &Path) -> Option<String> {
    let ino = |name: &str| fs::metadata(dir.join(name)).map(|meta| meta.ino()).ok();
    ino("hard").map(|hard| format!("hard is a/f1: {}", Some(hard) == ino("a/f1")))
}

/// What differs between stock over one connection, and ours over four by this remote shell.
fn difference(bench: &Bench, shell: &Path, ends: Ends, line: &str) -> (String, Outcome) {
    let stock = Both { look: &said, ..Both::new(bench, &prepare) };
    let ours = Both { look: &said, shell: shell.to_owned(), ..Both::new(bench, &prepare) };
    let before = stock.run((STOCK, STOCK), &words(line));
    let after = ours.run(ends, &[&["--parallel=4"], &words(line)[..]].concat());
    let text = before.difference(&after);
    (if text.is_empty() { text } else { format!("{} to {}: {line}\n{text}", ends.0, ends.1) }, after)
}

const PUSHES: &[&str] = &[
    "-ai --stats src/ host:WORK/dst/",
    "-aHi --stats --delete src/ host:WORK/dst/",
    "-avi --stats src/ host:WORK/new",
    "-aii --no-i-r --delete-after src/ host:WORK/dst/",
    "-aiR src/./a src/z host:WORK/dst/",
    "-rlt -ii --stats --delete-delay src/ host:WORK/dst",
    "-aiu --delete-before src host:WORK/dst/",
    "-aiW --backup --suffix=.old src/ host:WORK/dst/",
    "-aib --backup-dir=WORK/dst/kept src/ host:WORK/dst/",
    "-aizc --stats src/ host:WORK/dst/",
    "-ai --existing -W src/ host:WORK/dst/",
    "-ai --ignore-existing src/ host:WORK/dst/",
    "-aAi --chmod=D750,F640 --numeric-ids src/ host:WORK/dst/",
    "-ai --max-size=100k --prune-empty-dirs src/ host:WORK/dst/",
    "-ai --link-dest=../src --exclude=g* src/ host:WORK/dst/",
    "-ai --temp-dir=WORK --partial --timeout=300 --out-format=%i|%n|%l|%C src/ host:WORK/dst/",
    "-v --partial-dir=.part -r src/a src/z host:WORK/dst/",
    "-ais src/ host:WORK/dst/",
    "-ai --protocol=30 src/ host:WORK/dst/",
];

/// Where only one connection is used.
const ALONE: &[&str] = &[
    "-ain src/ host:WORK/dst/",
    "-ai --inplace src/ host:WORK/dst/",
    "-ai --delay-updates src/ host:WORK/dst/",
    "-ai --remove-source-files src/ host:WORK/dst/",
    "-aiX src/ host:WORK/dst/",
    "-ai --protocol=29 src/ host:WORK/dst/",
    "-ai src/ dst/",
    "-aiH --delete host:WORK/src/ dst/",
    "-ai --bwlimit=100000 src/ host:WORK/dst/",
];

#[test]
fn several_connections_push_as_one() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let gate = bench.script("gate", GATE);
    let cases: Vec<_> = PUSHES.iter().flat_map(|line| [(line, STOCK), (line, OURS)]).collect();
    all_agree(&cases, |(line, far)| {
        let (text, _) = difference(&bench, &gate, (OURS, far), line);
        text
    });
}

#[test]
fn one_connection_has_to_do_where_several_would_differ() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let plain = bench.shell();
    let cases: Vec<_> = ALONE.iter().flat_map(|line| [(line, STOCK), (line, OURS)]).collect();
    all_agree(&cases, |(line, far)| difference(&bench, &plain, (OURS, far), line).0);
}

/// All that the far end is told to log, by process: helpers have brought most of it.
#[test]
fn helpers_bring_what_they_can() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let gate = bench.script("gate", GATE);
    let look = |run: &Run, work: &Path| {
        let log = fs::read_to_string(work.join("log")).unwrap();
        let of = |line: &str| Some((line.split_whitespace().nth(2)?.to_owned(), line.contains(" [receiver]")));
        let mut by: Vec<_> = log.lines().filter(|line| line.contains("f+++")).filter_map(of).collect();
        by.dedup();
        let log = if by.len() > 1 { "several" } else { &log };
        vec![format!("code {}, {log}", run.code)]
    };
    let both = Both { look: &look, shell: gate, ..Both::new(&bench, &prepare) };
    let line = "-a --parallel=4 -M--log-file=WORK/log -M--log-file-format=%i src/a/ host:WORK/new/";
    for far in [STOCK, OURS] {
        let outcome = both.run((OURS, far), &words(line));
        assert_eq!(outcome.lines, ["code 0, several"], "{far}: {}", outcome.run.stderr);
    }
}

#[test]
fn a_helper_that_is_refused_or_breaks_only_takes_time() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let shells = [bench.script("refused", REFUSED), bench.script("broken", BROKEN)];
    let line = "-aHi --stats --delete src/ host:WORK/dst/";
    let cases: Vec<_> = shells.iter().flat_map(|shell| [(shell, STOCK), (shell, OURS)]).collect();
    all_agree(&cases, |(shell, far)| difference(&bench, shell, (OURS, far), line).0);
}

#[test]
fn a_wrong_number_is_refused_with_what_is_allowed() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let run =
        |words: &[&str], env: &[(&str, &str)]| Both { env, ..Both::new(&bench, &prepare) }.run((OURS, OURS), words).run;
    for value in ["0", "17", "-1", "x", ""] {
        let run = run(&[&format!("--parallel={value}"), "-a", "src/", "dst/"], &[]);
        let told = format!("--parallel={value} is invalid: it takes a number from 1 to 16, or auto");
        assert!(run.code == 1 && run.stderr.contains(&told), "{run:?}");
    }
    let by_variable = run(&["-a", "src/", "dst/"], &[("RSYNC_PARALLEL", "many")]);
    assert!(by_variable.code == 1 && by_variable.stderr.contains("RSYNC_PARALLEL=many is invalid"), "{by_variable:?}");
    // What is said goes before the variable.
    let both = run(&["-av", "--parallel=1", "src/", "dst/"], &[("RSYNC_PARALLEL", "many")]);
    assert_eq!(both.code, 0, "{both:?}");
    let local = run(&["-av", "src/", "dst/"], &[("RSYNC_PARALLEL", "3")]);
    assert!(
        String::from_utf8_lossy(&local.stdout).contains("one connection only: both ends are on this machine\n"),
        "{local:?}"
    );
}

/// By the SSH within and a real sshd, which lets one in that has yet to log in, and no second session over a connection.
#[test]
fn an_sshd_may_let_in_as_many_as_it_likes() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for config in ["", "MaxStartups 1:100:1\nMaxSessions 1"] {
        let Some(sshd) = Sshd::start(config) else { return };
        for far in [STOCK, OURS] {
            let since = tree::now() - 1;
            let work = bench.fresh("work");
            let work = work.path();
            prepare(work);
            let home = home_of(work, &sshd);
            let mut command = Command::new(OURS);
            command.args(["rsync", "-aH", "--delete", "--parallel=4", "--rsync-path", far, "src/"]);
            command.arg(format!("storage:{}/dst/", work.display())).current_dir(work);
            command.env("HOME", &home).env_remove("SSH_AUTH_SOCK").env_remove("RSYNC_RSH");
            let output = command.stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            let of = |name: &str| Tree::of(&work.join(name), since);
            assert_eq!(of("src").difference(&of("dst")), "", "{config}");
        }
    }
}

/// A home whose configuration leads to this sshd.
pub(super) fn home_of(work: &Path, sshd: &Sshd) -> std::path::PathBuf {
    let home = work.join("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    let host = format!(
        "Host storage\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile {}\n UserKnownHostsFile {}\n",
        sshd.port,
        sshd.user(),
        sshd.client_key().display(),
        sshd.known_hosts().display(),
    );
    fs::write(home.join(".ssh/config"), host).unwrap();
    home
}

/// Where SFTP is to be had, several write it and a session proves it; where it is not, the one session sends it.
#[test]
fn one_large_file_is_written_in_ranges() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for (config, by_ranges) in [("Subsystem sftp internal-sftp", true), ("", false)] {
        let Some(sshd) = Sshd::start(config) else { return };
        for (far, place) in [(STOCK, "dst/"), (OURS, "dst/"), (STOCK, "dst/named")] {
            let work = bench.fresh("work");
            let work = work.path();
            tree::put(work, "large", &tree::noise(40 << 20, 5), 0o640, THEN);
            fs::create_dir(work.join("dst")).unwrap();
            let mut command = Command::new(OURS);
            command.args(["rsync", "-ai", "--stats", "--parallel=4", "--rsync-path", far, "large"]);
            command.arg(format!("storage:{}/{place}", work.display())).current_dir(work);
            command.env("HOME", home_of(work, &sshd)).env_remove("SSH_AUTH_SOCK").env_remove("RSYNC_RSH");
            let output = command.stdin(Stdio::null()).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let run = Run { code: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr };
            assert_eq!((run.code, &*run.stderr), (0, ""));
            assert_eq!(String::from_utf8_lossy(&run.stdout).lines().next(), Some("<f+++++++++ large"));
            assert_eq!([run.stat("Literal data"), run.stat("Matched data")], [40 << 20, 0]);
            // Sums came of what was found.
            assert_eq!(run.stat("Total bytes received") > 1000, by_ranges, "{config} {far}: {run:?}");
            let there = Tree::of(&work.join("dst"), i64::MAX).0;
            let left = tree::noise(40 << 20, 5);
            assert_eq!(there.len(), 2, "nothing else is left: {:?}", there.keys());
            let file = there.values().find(|node| node.is_file()).unwrap();
            assert!(file.content == left && file.mode == 0o100_640 && file.mtime == Some(THEN));
        }
    }
}
