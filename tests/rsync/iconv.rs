//! `--iconv`: the same command with stock rsync and with us at either end must leave the same names, exit code and words.

use crate::support;
use crate::support::both::{Both, Outcome, PAIRINGS, STOCK, all_agree, words};
use crate::support::stock::{Bench, OURS, Run};
use crate::support::tree::{self, THEN};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

fn put(root: &Path, at: &[u8]) {
    let path = root.join(name(at));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, at).unwrap();
    tree::set_mtime(&path, THEN.0, THEN.1);
}

/// Names in UTF-8, of which latin1 lacks one at the top; a name that is no UTF-8; links; two names of one file. In KOI8-R
/// the Russian ones sort in another order.
fn source(root: &Path) {
    let names: [&str; 10] =
        ["plain", "ä", "z", "zz/ü", "zz/a", "dö/in", "dö/deep/ß", "ä.dir/b", "\u{80}ctl", "\u{e9}t\u{e9}"];
    names.iter().for_each(|name| put(root, name.as_bytes()));
    fs::hard_link(root.join("ä"), root.join("y-ä")).unwrap();
    std::os::unix::fs::symlink("ä", root.join("link-ö")).unwrap();
}

fn russian(root: &Path) {
    for name in ["юг", "абв", "щит", "яма", "цех/ь", "цех/а", "ёж", "мир/ю/я", "мир/б", "a", "z"]
    {
        put(root, name.as_bytes());
    }
    fs::hard_link(root.join("юг"), root.join("аист")).unwrap();
    fs::hard_link(root.join("юг"), root.join("цех/м")).unwrap();
    std::os::unix::fs::symlink("юг", root.join("ссылка")).unwrap();
}

/// What was said of names, in no order that matters.
fn said(run: &Run, work: &Path) -> Vec<String> {
    let out = [&run.stdout[..], run.stderr.as_bytes()].concat();
    let text = String::from_utf8_lossy(&out).replace(work.to_str().unwrap(), "WORK").replace("\\#134#", "\\#");
    let kept = ["cannot convert", "*deleting", "IO error", "iconv_open", "link_stat", "created directory"];
    let mut said: Vec<_> = text
        .lines()
        .filter(|line| kept.iter().any(|start| line.contains(start)) || line.as_bytes().get(11) == Some(&b' '))
        // How bytes that are in no set are spelt differs from printer to printer.
        .map(|line| if line.contains("link_stat") { "link_stat".into() } else { line.to_owned() })
        .collect();
    said.sort();
    said
}

/// Runs `play` with what runs commands on folders that `prepare` has filled.
fn with<T>(prepare: &(dyn Fn(&Path) + Sync), play: impl FnOnce(&Both) -> T) -> T {
    let bench = Bench::start();
    let prepare = |work: &Path| {
        prepare(work);
        for dir in ["src", "dst"] {
            fs::create_dir_all(work.join(dir)).unwrap();
            tree::set_mtime(&work.join(dir), THEN.0 - 9, 0);
        }
    };
    play(&Both { look: &said, since: 0, env: &[("LC_ALL", "C.UTF-8")], ..Both::new(&bench, &prepare) })
}

/// Plays each command with stock at both ends, and with us at one or both; gives what came of it with stock.
fn table(prepare: &(dyn Fn(&Path) + Sync), commands: &[&str]) -> Vec<Outcome> {
    with(prepare, |both| {
        let stocks: Vec<_> = commands.iter().map(|command| (*command, OnceLock::new())).collect();
        all_agree(&stocks, |(command, place)| {
            let stock = both.run((STOCK, STOCK), &words(command));
            let differences = PAIRINGS.map(|ends| stock.difference(&both.run(ends, &words(command))));
            place.set(stock).unwrap();
            let told = PAIRINGS.iter().zip(differences).filter(|(_, text)| !text.is_empty());
            told.map(|(ends, text)| format!("{command}, {ends:?}\n{text}")).collect()
        });
        stocks.into_iter().map(|(_, stock)| stock.into_inner().unwrap()).collect()
    })
}

#[test]
fn names_arrive_in_the_other_set() {
    if !support::tools::require("rsync") {
        return;
    }
    let prepare = |work: &Path| {
        source(&work.join("src"));
        put(&work.join("dst"), b"old-\xe4");
        put(&work.join("dst"), b"z");
    };
    let runs = table(
        &prepare,
        &[
            "-ai --iconv=utf-8,iso-8859-1 src/ host:dst/",
            "-aiH --iconv=utf-8,iso-8859-1 --no-i-r src/ host:dst/",
            "-ai --iconv=utf8,latin1 --protocol=30 src/ host:dst/",
            "-ai --iconv=latin1,utf-8 host:src/ dst/",
            "-ai --iconv=latin1,utf-8 --no-i-r host:src/ dst/",
            "-ai --iconv=UTF-8,ISO-8859-15 --delete src/ host:dst/",
            "-aiR --iconv=.,latin1 src/./dö host:dst/",
            "-ais --iconv=utf-8,latin1 src/ä host:dst/nöw/",
            "-aii --iconv=utf-8,latin1 src/ dst/",
            "-ai --iconv=utf-8 src/ host:dst/",
            "-ai --iconv=- src/ host:dst/",
            "-ai --iconv=utf8,bogus src/ host:dst/",
            "-ai --iconv=bogus,utf8 src/ host:dst/",
        ],
    );
    let names: Vec<_> = runs.iter().map(|stock| stock.run.code).collect();
    assert_eq!(names[..11], [0; 11]);
    assert_eq!(names[11..], [12, 4]);
}

#[test]
fn the_order_is_that_of_the_wire() {
    if !support::tools::require("rsync") {
        return;
    }
    let prepare = |work: &Path| russian(&work.join("src"));
    table(
        &prepare,
        &[
            // With segments, which of several links is sent depends on what has arrived, with stock as with us.
            "-ai --iconv=utf-8,koi8-r src/ host:dst/",
            "-aiH --iconv=utf-8,koi8-r --no-i-r src/ host:dst/",
            "-ai --iconv=koi8-r,utf-8 host:src/ dst/",
            "-aiH --iconv=koi8-r,utf-8 --no-i-r host:src/ dst/",
            "-ai --iconv=koi8-r,utf-8 --no-i-r -m host:src/ dst/",
            "-aic --iconv=utf-8,windows-1251 src/ host:dst/",
        ],
    );
}

#[test]
fn what_cannot_be_told_is_left_out() {
    if !support::tools::require("rsync") {
        return;
    }
    let prepare = |work: &Path| {
        let src = work.join("src");
        source(&src);
        put(&src, "€".as_bytes());
        put(&src, b"bad-\xff");
        put(&src, b"dir-\xff/in");
        std::os::unix::fs::symlink("€", src.join("to-euro")).unwrap();
        std::os::unix::fs::symlink(name(b"\xff"), src.join("to-bad")).unwrap();
        put(&work.join("dst"), b"old");
    };
    let runs = table(
        &prepare,
        &[
            "-ai --iconv=utf-8,utf-8 src/ host:dst/",
            "-ai --iconv=utf-8,utf-8 host:src/ dst/",
            "-ai --iconv=utf-8,utf-8 --no-i-r --delete host:src/ dst/",
            "-ai --iconv=utf-8,utf-8 --no-i-r --delete src/ host:dst/",
        ],
    );
    assert!(runs.iter().all(|it| it.run.code == 23 && it.lines.iter().any(|line| line.contains("cannot convert"))));
}

/// Stock's receiver tells of its own names in words that depend on its terminal, and with segments it gives up.
#[test]
fn what_the_receiver_cannot_tell_is_left_out() {
    if !support::tools::require("rsync") {
        return;
    }
    let prepare = |work: &Path| {
        let src = work.join("src");
        source(&src);
        put(&src, "€".as_bytes());
        put(&src, "zz/€".as_bytes());
        put(&src, "€d/deep/in".as_bytes());
        std::os::unix::fs::symlink("€", src.join("to-euro")).unwrap();
    };
    with(&prepare, |both| {
        let stock = both.run((STOCK, STOCK), &words("-ai --no-i-r --iconv=utf-8,latin1 src/ host:dst/"));
        assert_eq!(stock.run.code, 23);
        for (ends, line) in [
            ((STOCK, OURS), "-ai --no-i-r --iconv=utf-8,latin1 src/ host:dst/"),
            ((STOCK, OURS), "-ai --iconv=utf-8,latin1 src/ host:dst/"),
            ((OURS, OURS), "-ai --iconv=utf-8,latin1 src/ host:dst/"),
            ((OURS, STOCK), "-ai --iconv=latin1,utf-8 host:src/ dst/"),
            ((OURS, STOCK), "-ai --no-i-r --iconv=latin1,utf-8 host:src/ dst/"),
            ((OURS, OURS), "-ai --iconv=utf-8,latin1 src/ dst/"),
        ] {
            let ours = both.run(ends, &words(line));
            assert_eq!(ours.run.code, 23, "{line} {:?}", ours.lines);
            assert_eq!(stock.tree("dst").difference(ours.tree("dst")), "", "{line} with {ends:?}");
            let told = |what: &str| ours.lines.iter().filter(|line| line.contains(what)).count();
            assert!(told("eceiver] cannot convert filename: ") >= 3, "{line} {:?}", ours.lines);
            assert_eq!(told("Receiver] cannot convert symlink data for: "), 1, "{line} {:?}", ours.lines);
        }
    });
}

#[test]
fn lists_of_names_are_converted_with_secluded_arguments() {
    if !support::tools::require("rsync") {
        return;
    }
    let prepare = |work: &Path| {
        for at in [&b"\xe4"[..], b"\xfc/in", b"z"] {
            put(&work.join("src"), at);
        }
        fs::write(work.join("latin"), b"\xe4\n\xfc/in\nmissing\n").unwrap();
        fs::write(work.join("utf8"), "ä\nü/in\nmissing\n").unwrap();
    };
    let runs = table(
        &prepare,
        &[
            "-ais --iconv=utf-8,latin1 --files-from=utf8 host:src dst/",
            "-ai --iconv=utf-8,latin1 --files-from=utf8 host:src dst/",
            "-ais --iconv=utf-8,latin1 --files-from=:latin host:src dst/",
            "-ais --iconv=latin1,utf-8 --files-from=:utf8 src host:dst/",
            "-ais --iconv=latin1,utf-8 --files-from=latin src host:dst/",
            "-ai --iconv=latin1,utf-8 --files-from=:latin src host:dst/",
        ],
    );
    assert!(runs.iter().all(|stock| stock.run.code == 23));
}

#[test]
fn the_environment_has_a_say() {
    let bench = Bench::start();
    let work = bench.fresh("work");
    put(&work.path().join("src"), "ä".as_bytes());
    let run = |words: &[&str]| {
        let status = Command::new(OURS)
            .args(["rsync", "-a"])
            .args(words)
            .env("RSYNC_ICONV", "utf-8,latin1")
            .current_dir(work.path())
            .status()
            .unwrap();
        assert!(status.success());
    };
    run(&["src/", "latin/"]);
    run(&["--no-iconv", "src/", "utf8/"]);
    let found =
        |dir: &str| fs::read_dir(work.path().join(dir)).unwrap().next().unwrap().unwrap().file_name().into_vec();
    assert_eq!(found("latin"), b"\xe4");
    assert_eq!(found("utf8"), "ä".as_bytes());
}
