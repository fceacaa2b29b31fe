//! `--iconv`: the same command with stock rsync and with us at either end must leave the same names, exit code and words.

use crate::support;
use crate::support::stock::{Bench, OURS};
use crate::support::tree::{self, THEN, Tree};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a client's run came to.
struct Ran {
    code: Option<i32>,
    /// What it said of names, in no order that matters.
    said: Vec<String>,
    src: Tree,
    dst: Tree,
}

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

fn run(bench: &Bench, prepare: &dyn Fn(&Path), client: &[&str], server: &str, words: &[OsString]) -> Ran {
    let work = bench.fresh("work");
    prepare(work.path());
    for dir in ["src", "dst"] {
        fs::create_dir_all(work.path().join(dir)).unwrap();
        tree::set_mtime(&work.path().join(dir), THEN.0 - 9, 0);
    }
    let output = Command::new("timeout")
        .args(["120", client[0]])
        .args(&client[1..])
        .arg("-e")
        .arg(bench.shell())
        .arg(format!("--rsync-path={server}"))
        .args(words)
        .env("LC_ALL", "C.UTF-8")
        .current_dir(work.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&out).replace(work.path().to_str().unwrap(), "WORK").replace("\\#134#", "\\#");
    let kept = ["cannot convert", "*deleting", "IO error", "iconv_open", "link_stat", "created directory"];
    let mut said: Vec<_> = text
        .lines()
        .filter(|line| kept.iter().any(|start| line.contains(start)) || line.as_bytes().get(11) == Some(&b' '))
        // How bytes that are in no set are spelt differs from printer to printer.
        .map(|line| if line.contains("link_stat") { "link_stat".into() } else { line.to_owned() })
        .collect();
    said.sort();
    Ran {
        code: output.status.code(),
        said,
        src: Tree::of(&work.path().join("src"), 0),
        dst: Tree::of(&work.path().join("dst"), 0),
    }
}

/// Plays each command with stock at both ends, and with us at one or both.
fn table(prepare: &(dyn Fn(&Path) + Sync), commands: &[&str]) -> Vec<Ran> {
    let bench = Bench::start();
    let play = |command: &&str| {
        let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        let stock = run(&bench, prepare, &["rsync"], "rsync", &words);
        for (client, server) in [(&["rsync"][..], OURS), (&[OURS, "rsync"], "rsync"), (&[OURS, "rsync"], OURS)] {
            let ours = run(&bench, prepare, client, server, &words);
            let pair = format!("{command}, {} to {server}", client[0]);
            assert_eq!((ours.code, &ours.said), (stock.code, &stock.said), "{pair}");
            assert_eq!(stock.src.difference(&ours.src), "", "{pair}: source after stock | after ours");
            assert_eq!(stock.dst.difference(&ours.dst), "", "{pair}: destination after stock | after ours");
        }
        stock
    };
    std::thread::scope(|scope| {
        let play = &play;
        let shares: Vec<_> = commands
            .chunks(commands.len().div_ceil(4))
            .map(|share| scope.spawn(move || share.iter().map(play).collect::<Vec<_>>()))
            .collect();
        shares.into_iter().flat_map(|share| share.join().unwrap()).collect()
    })
}

#[test]
fn names_arrive_in_the_other_set() {
    if !support::require("rsync") {
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
    let names: Vec<_> = runs.iter().map(|run| run.code).collect();
    assert_eq!(names[..11], [Some(0); 11]);
    assert_eq!(names[11..], [Some(12), Some(4)]);
}

#[test]
fn the_order_is_that_of_the_wire() {
    if !support::require("rsync") {
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
    if !support::require("rsync") {
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
    assert!(runs.iter().all(|run| run.code == Some(23) && run.said.iter().any(|line| line.contains("cannot convert"))));
}

/// Stock's receiver tells of its own names in words that depend on its terminal, and with segments it gives up.
#[test]
fn what_the_receiver_cannot_tell_is_left_out() {
    if !support::require("rsync") {
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
    let bench = Bench::start();
    let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
    let push = words("-ai --no-i-r --iconv=utf-8,latin1 src/ host:dst/");
    let stock = run(&bench, &prepare, &["rsync"], "rsync", &push);
    assert_eq!(stock.code, Some(23));
    for (client, server, options) in [
        (&["rsync"][..], OURS, "-ai --no-i-r --iconv=utf-8,latin1 src/ host:dst/"),
        (&["rsync"], OURS, "-ai --iconv=utf-8,latin1 src/ host:dst/"),
        (&[OURS, "rsync"], OURS, "-ai --iconv=utf-8,latin1 src/ host:dst/"),
        (&[OURS, "rsync"], "rsync", "-ai --iconv=latin1,utf-8 host:src/ dst/"),
        (&[OURS, "rsync"], "rsync", "-ai --no-i-r --iconv=latin1,utf-8 host:src/ dst/"),
        (&[OURS, "rsync"], OURS, "-ai --iconv=utf-8,latin1 src/ dst/"),
    ] {
        let ours = run(&bench, &prepare, client, server, &words(options));
        assert_eq!(ours.code, Some(23), "{options} {:?}", ours.said);
        assert_eq!(stock.dst.difference(&ours.dst), "", "{options} with {server}");
        let told = |what: &str| ours.said.iter().filter(|line| line.contains(what)).count();
        assert!(told("eceiver] cannot convert filename: ") >= 3, "{options} {:?}", ours.said);
        assert_eq!(told("Receiver] cannot convert symlink data for: "), 1, "{options} {:?}", ours.said);
    }
}

#[test]
fn lists_of_names_are_converted_with_secluded_arguments() {
    if !support::require("rsync") {
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
    assert!(runs.iter().all(|run| run.code == Some(23)));
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
