//! What a daemon's module makes of a session: each parameter, with our daemon and with stock's, must show the client the
//! same and leave the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use support::daemon::Daemon;
use support::stock::{Bench, OURS};
use support::tree::{self, THEN, Tree};

/// A module's folder, something to push, and files of rules.
fn prepare(work: &Path) {
    for name in
        ["a.txt", "b.tmp", "c.tmp", "sub/keep.o", "sub/drop.o", "secret/s", "secret/deep/t", "open/x", "back\\slash"]
    {
        tree::put(&work.join("mod"), name, name.as_bytes(), 0o644, THEN);
    }
    for name in ["x.o", "ok", "y.tmp", "c.tmp", "secret/new", "secret/deep/new", "open/new", "sub/drop.o", "sub/in"] {
        tree::put(&work.join("up"), name, b"pushed", 0o644, THEN);
    }
    fs::write(work.join("leave"), "*.tmp\n# comment\n").unwrap();
    fs::write(work.join("take"), "/sub/keep.o\n/c.tmp\n").unwrap();
    fs::create_dir(work.join("none")).unwrap();
    for dir in [
        "mod",
        "mod/sub",
        "mod/secret",
        "mod/secret/deep",
        "mod/open",
        "up",
        "up/sub",
        "up/secret",
        "up/secret/deep",
        "up/open",
        "none",
    ] {
        tree::set_mtime(&work.join(dir), THEN.0 - 7, 0);
    }
}

/// Plays the commands against modules of this text, once with each daemon.
fn same(modules: &str, before: &dyn Fn(&Path), commands: &[&str]) {
    if !support::require("rsync") {
        return;
    }
    let bench = Bench::start();
    for command in commands {
        let ends = ["rsync", OURS].map(|program| {
            let work = bench.fresh("work");
            prepare(work.path());
            before(work.path());
            tree::set_mtime(&work.path().join("mod"), THEN.0 - 7, 0);
            let daemon = Daemon::start(program, work.path(), &format!("use chroot = no\nuid = 0\ngid = 0\n{modules}"));
            let run = daemon.client(work.path(), command);
            let told =
                |line: &&str| line.starts_with("ERROR") || line.starts_with("***") || line.contains("cannot convert");
            let mut errors: Vec<_> = run.stderr.lines().filter(told).map(str::to_owned).collect();
            errors.sort();
            let mut shown: Vec<_> = String::from_utf8_lossy(&run.stdout).lines().map(str::to_owned).collect();
            shown.retain(|line| {
                line.as_bytes().get(11) == Some(&b' ') || line.contains("delet") || line.starts_with(['-', 'd', 'l'])
            });
            shown.sort();
            let trees = ["mod", "got"].map(|name| Tree::of(&work.path().join(name), 0));
            (run, errors, shown, trees, daemon.said())
        });
        let [stock, ours] = &ends;
        let context = format!("{command}\n{}\n{}\n{}\n{}", stock.0.stderr, stock.4, ours.0.stderr, ours.4);
        assert_eq!((stock.0.code, &stock.1, &stock.2), (ours.0.code, &ours.1, &ours.2), "{context}");
        for (left, right) in stock.3.iter().zip(&ours.3) {
            assert_eq!(left.difference(right), "", "stock | ours: {context}");
        }
    }
}

const KEPT: &str = "[m]\npath = WORK/mod\nread only = no\nexclude from = WORK/leave\ninclude from = WORK/take\n\
     exclude = /secret *.o\ninclude = z.tmp\n\
     [f]\npath = WORK/mod\nread only = no\nfilter = - /secret/*** + /sub/keep.o - *.o\nexclude = + c.tmp *.tmp\n";

#[test]
fn what_a_module_keeps_is_not_there_for_who_pulls() {
    same(
        KEPT,
        &|_| (),
        &[
            "-ai URL/m/ got",
            "-ai --no-i-r URL/f/ got",
            "-ai URL/f/ got",
            "-aR --itemize-changes URL/m/./sub/keep.o got",
            "-ai URL/m/secret/ got",
            "-ai URL/m/secret/s got",
            "-ai URL/f/secret got",
            "-ai URL/m/b.tmp URL/m/c.tmp got",
            "-ai URL/m/sub/ got",
            "-ai URL/m/*.tmp got",
            "-ais URL/m/back\\slash got",
            "-ai URL/m/back\\slash got",
        ],
    );
}

#[test]
fn what_a_module_keeps_is_not_taken_and_not_deleted() {
    same(
        KEPT,
        &|_| (),
        &[
            "-ri up/ URL/m/",
            "-ri --no-i-r up/ URL/m/",
            "-rin up/ URL/m/",
            "-ri --delete up/ URL/f/",
            "-ri --delete none/ URL/m/",
            "-ri --delete-after none/ URL/f/",
            "-ri up/ok URL/m/secret/",
            "-ri up/ok URL/m/secret/deep/",
            "-ri up/ok URL/m/z.o",
            "-ri up/sub/ URL/m/sub/",
            "-ri --backup-dir=secret up/ok URL/m/a.txt",
            "-ri --link-dest=/secret/deep up/ok URL/m/",
        ],
    );
}

#[test]
fn what_the_user_cannot_read_is_not_there() {
    let before = |work: &Path| {
        fs::set_permissions(work.join("mod/a.txt"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(work.join("mod/secret"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("nowhere", work.join("mod/link")).unwrap();
        tree::set_mtime(&work.join("mod/link"), THEN.0, 0);
    };
    same(
        "[m]\npath = WORK/mod\nuid = nobody\nignore nonreadable = yes\n",
        &before,
        &["-rl URL/m/", "-r --list-only URL/m/secret"],
    );
}

#[test]
fn a_module_has_a_character_set() {
    let latin = |work: &Path| {
        fs::write(work.join("mod").join(OsStr::from_bytes(b"\xe4")), "ae").unwrap();
        fs::write(work.join("up/ö"), "oe").unwrap();
        symlink(OsStr::from_bytes(b"\xe4"), work.join("mod/to")).unwrap();
    };
    same(
        "[m]\npath = WORK/mod\nread only = no\ncharset = iso-8859-1\n\
         [j]\npath = WORK/mod\nuse chroot = yes\ncharset = latin1\n",
        &latin,
        &[
            "-rli --iconv=utf-8 URL/m/ got",
            "-rli --iconv=utf-8,koi8-r URL/j/ got",
            "-ris --iconv=utf-8 URL/m/ä got",
            "-rli --iconv=utf-8 up/ URL/m/",
            "-rlis --iconv=utf-8 up/ö URL/m/nöw/",
            "-rli URL/m/ got",
        ],
    );
}

#[test]
fn a_module_changes_what_comes_and_goes() {
    let links = |work: &Path| {
        symlink("/etc/passwd", work.join("up/out")).unwrap();
        symlink("/rsyncd-munged//etc/passwd", work.join("mod/munged")).unwrap();
        fs::create_dir(work.join("mod/tmp")).unwrap();
    };
    same(
        "[m]\npath = WORK/mod\nread only = no\nincoming chmod = Dg+s,F600\noutgoing chmod = Fg-r,o-rwx\n\
         [l]\npath = WORK/mod\nread only = no\nmunge symlinks = yes\n[t]\npath = WORK/mod\nread only = no\ntemp dir = /tmp\n\
         [s]\npath = WORK/mod\nread only = no\nfake super = yes\nuid = nobody\n[n]\npath = WORK/mod\nnumeric ids = yes\nmax verbosity = 0\n",
        &links,
        &[
            "-rpi URL/m/ got",
            "-rpi up/ URL/m/",
            "-rli up/ URL/l/",
            "-rli URL/l/ got",
            "-ri up/ URL/t/",
            "-ai URL/n/ got",
            "-ai URL/s/ got",
        ],
    );
}
