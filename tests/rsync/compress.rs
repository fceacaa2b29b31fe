//! Compressed file data between our ends and stock rsync's, in both directions.

use crate::support;
use crate::support::engine::{self, Folder, Silent};
use crate::support::stock::{Bench, OURS};
use crate::support::tree::noise;
use protocol::args::{Options, ServerArgs};
use protocol::compress::Method;
use protocol::flist::{FileEntry, FileList};
use protocol::handshake::{Hello, Offer};
use pysmurf_archiver::link::Ending;
use pysmurf_archiver::transfer::send::Summary;
use pysmurf_archiver::transfer::suffixes::Suffixes;
use pysmurf_archiver::transfer::{Conversation, Listing, ReceivePlan, SendPlan, greet, receive, send};
use pysmurf_archiver::transport::child::Child;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::LazyLock;

/// Ways to ask for compression, with the letters and words that a client says for them.
const WAYS: [&str; 10] = [
    "-z",
    "-zz",
    "--compress-choice=zlib",
    "--compress-choice=zlibx",
    "--compress-choice=zstd",
    "--compress-choice=lz4",
    "--compress-choice=zlib --compress-level=1",
    "--compress-choice=zlib --compress-level=0",
    "-z --compress-level=9",
    "-zB70000 --compress-choice=zlib",
];

/// Files of all sorts: new, changed here and there, moved about, incompressible, large, empty.
static SOURCES: LazyLock<Sources> = LazyLock::new(sources);

/// By their names: the content, and the older one that the receiving side has.
type Sources = BTreeMap<&'static str, (Vec<u8>, Option<Vec<u8>>)>;

fn sources() -> Sources {
    let words: Vec<u8> =
        (0..200_000u32).flat_map(|n| format!("line {} of {}\n", n % 7919, n / 3).into_bytes()).collect();
    let old = noise(1_200_000, 3);
    let mut edited = old.clone();
    for at in (5000..edited.len()).step_by(90_000) {
        edited.splice(at..at + 3, *b"an edit");
    }
    // Old data where it was not before, so that what was matched is in the history of new data.
    edited.splice(400_000..400_000, old[380_000..395_000].iter().copied());
    let mut grown = words[..2_000_000].to_vec();
    grown.extend_from_slice(&words[1_000_000..1_600_000]);
    let moved = [&old[600_000..], &old[..600_000], &words[..3000]].concat();
    BTreeMap::from([
        ("edited", (edited, Some(old.clone()))),
        ("empty", (Vec::new(), None)),
        ("emptied", (Vec::new(), Some(old[..5000].to_vec()))),
        ("grown", (grown, Some(words[..2_000_000].to_vec()))),
        ("large", (words, None)),
        ("moved", (moved, Some(old))),
        ("noise", (noise(300_000, 8), None)),
        ("packed.GZ", (b"could be smaller ".repeat(9000), None)),
        ("small", (b"x".to_vec(), None)),
    ])
}

/// `src` and `dst` below a folder.
fn lay(work: &Path) {
    fs::create_dir_all(work.join("src")).unwrap();
    fs::create_dir_all(work.join("dst")).unwrap();
    for (name, (new, old)) in &*SOURCES {
        fs::write(work.join("src").join(name), new).unwrap();
        if let Some(old) = old {
            fs::write(work.join("dst").join(name), old).unwrap();
        }
    }
}

fn assert_arrived(work: &Path, what: &str) {
    for (name, (new, _)) in &*SOURCES {
        assert!(fs::read(work.join("dst").join(name)).unwrap() == *new, "{what}: {name}");
    }
}

/// Bytes that travel at most when the five megabytes of [`SOURCES`] are matched and compressed.
fn bound(way: &str) -> u64 {
    match way {
        way if way.contains("level=0") || way.is_empty() => 7_000_000,
        _ => 3_500_000,
    }
}

fn stock_client(version: u8, push: bool, ways: &[&str]) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for way in ways {
        let what = format!("{way} at {version}, {}", if push { "push" } else { "pull" });
        let work = bench.fresh("work");
        let work = work.path();
        lay(work);
        // Without times every file is looked at; --no-W since delta is the point.
        let mut words: Vec<_> = ["-r", "-I", "--no-W", "--stats", "--checksum-choice=md5"].map(String::from).into();
        words.push(format!("--protocol={version}"));
        words.extend(way.split(' ').map(String::from));
        words.extend(if push { ["src/", "host:dst/"] } else { ["host:src/", "dst/"] }.map(|word| match word {
            "host:dst/" | "host:src/" => format!("host:{}/", work.join(&word[5..8]).display()),
            word => word.into(),
        }));
        let run = bench.rsync(OURS, work, &words);
        assert_eq!(run.code, 0, "{what}: {}", run.stderr);
        assert_arrived(work, &what);
        let travelled = run.stat("Total bytes sent") + run.stat("Total bytes received");
        assert!(travelled < bound(way), "{what}: {travelled}");
        assert!(run.stat("Matched data") > 3_700_000, "{what}: {}", run.stat("Matched data"));
    }
}

#[test]
fn stock_pushes_to_us() {
    stock_client(32, true, &WAYS);
}

#[test]
fn stock_pulls_from_us() {
    stock_client(32, false, &WAYS);
}

#[test]
fn stock_of_older_protocols() {
    let ways = ["-z", "--compress-choice=lz4", "-zB70000 --compress-choice=zlib"];
    for version in [30, 31] {
        stock_client(version, true, &ways);
        stock_client(version, false, &ways);
    }
}

fn options(way: &str) -> Options {
    let level = way.split_once("level=").and_then(|(_, level)| level.parse().ok());
    let choice = way.split_once("choice=").map(|(_, rest)| rest.split(' ').next().unwrap().into());
    Options {
        recurse: true,
        ignore_times: true,
        compress: true,
        compress_choice: if way == "-zz" { Some(b"zlibx".to_vec()) } else { choice },
        compress_level: level,
        block_length: way.contains("B70000").then_some(70_000),
        ..Options::default()
    }
}

/// A stock server, greeted by us.
fn shake(options: &Options, version: u8, sender: bool, path: &Path) -> Conversation {
    let paths = vec![[path.as_os_str().as_bytes(), b"/"].concat()];
    let args = ServerArgs { sender, options: options.clone(), paths, ..ServerArgs::default() };
    let link = engine::open(&mut Child::local(vec!["rsync".into()]), &args);
    greet(link, hello(options, version, if sender { options.takes_segments() } else { options.sends_segments() }))
        .unwrap()
}

fn hello(options: &Options, version: u8, incremental: bool) -> Hello {
    Hello { incremental, compression: options.compression(), ..engine::hello(version, Offer::Stock) }
}

fn push(work: &Path, options: &Options, version: u8, skip_compress: Suffixes) -> (Method, Summary) {
    // The list goes out whole.
    let options = &Options { recurse: false, ..options.clone() };
    let session = shake(options, version, false, &work.join("dst"));
    let method = session.agreed.compression.method;
    let entries = SOURCES.iter().map(|(name, (new, _))| {
        let mtime = 1_700_000_000;
        FileEntry { len: new.len() as u64, mtime, ..FileEntry::new(*name, 0o100_644) }
    });
    let listing = Listing { list: FileList::new(entries.collect()), ..Listing::default() };
    let shape = options.list_shape(session.agreed.list_checksum.size());
    let plan = SendPlan { shape, skip_compress, ..SendPlan::default() };
    let folder = Folder(work.join("src"));
    let summary = send(session, &plan, |_| Ok((listing, folder)), &mut Silent).unwrap();
    assert_eq!(summary.ending, Some(Ending::Exited(0)), "{}", summary.stderr);
    (method, summary)
}

fn expected(way: &str) -> Method {
    match options(way).compress_choice.as_deref() {
        _ if way.contains("level=0") => Method::None,
        None => Method::Zstd,
        Some(name) => Method::from_name(name).unwrap(),
    }
}

#[test]
fn we_push_to_stock() {
    if !support::tools::require("rsync") {
        return;
    }
    for (way, version) in WAYS.map(|way| (way, 32)).into_iter().chain([("-z", 30), (WAYS[9], 30), (WAYS[9], 31)]) {
        let work = tempfile::tempdir().unwrap();
        lay(work.path());
        let (method, summary) = push(work.path(), &options(way), version, Suffixes::default());
        assert_eq!(method, expected(way), "{way}");
        assert_arrived(work.path(), way);
        assert!(summary.written_bytes < bound(way), "{way}: {}", summary.written_bytes);
        assert!(summary.sent.matched_bytes > 3_700_000, "{way}: {:?}", summary.sent);
    }
}

#[test]
fn we_pull_from_stock() {
    if !support::tools::require("rsync") {
        return;
    }
    for (way, version) in WAYS.map(|way| (way, 32)).into_iter().chain([("-z", 30), (WAYS[9], 30), (WAYS[9], 31)]) {
        let work = tempfile::tempdir().unwrap();
        lay(work.path());
        let options = options(way);
        let session = shake(&options, version, true, &work.path().join("src"));
        assert_eq!(session.agreed.compression.method, expected(way), "{way}");
        let destination = work.path().join("dst");
        let plan = ReceivePlan { options, destination, ..ReceivePlan::default() };
        let received =
            receive(session, &plan, &|message: &protocol::mux::Message| panic!("{way}: {message:?}")).unwrap();
        assert_eq!((received.files, received.failed), (9, 0), "{way}");
        assert_eq!(received.ending, Some(Ending::Exited(0)), "{way}");
        assert_arrived(work.path(), way);
        assert!(received.bytes.matched_bytes > 3_700_000, "{way}: {:?}", received.bytes);
    }
}

/// One file of the usual list is stored; with another list it is compressed.
#[test]
fn files_that_would_not_shrink_are_stored() {
    if !support::tools::require("rsync") {
        return;
    }
    for way in ["--compress-choice=zlib", "--compress-choice=zlibx", "--compress-choice=lz4"] {
        let written = [Suffixes::default(), Suffixes::new(b"jpg/[gz]z/zi[p]"), Suffixes::new(b"jpg")].map(|suffixes| {
            let work = tempfile::tempdir().unwrap();
            lay(work.path());
            let (_, summary) = push(work.path(), &options(way), 32, suffixes);
            assert_arrived(work.path(), way);
            summary.written_bytes
        });
        let len = SOURCES["packed.GZ"].0.len() as u64;
        assert_eq!(written[0], written[1], "{way}");
        assert!(written[0] > written[2] + len * 9 / 10, "{way}: {written:?}");
    }
    // A client that pulls says which files its server shall not compress.
    let bench = Bench::start();
    let pull = |list: &str| {
        let work = bench.fresh("work");
        lay(work.path());
        let source = format!("host:{}/", work.path().join("src").display());
        let list = format!("--skip-compress={list}");
        let run = bench.rsync(OURS, work.path(), &["-r", "--stats", "--compress-choice=zlib", &list, &source, "new/"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stat("Total bytes received")
    };
    assert!(pull("") + 100_000 < pull("gz"));
}

/// Ends without a method in common say so and leave.
#[test]
fn no_common_method() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("work");
    lay(work.path());
    let shell = bench.script("limited", "shift\nRSYNC_COMPRESS_LIST=none exec sh -c \"$*\"\n");
    let options = options("-z");
    let args = ServerArgs { options: options.clone(), paths: vec![b"dst".to_vec()], ..ServerArgs::default() };
    let link = engine::open(&mut Child::local(vec![shell.into(), "host".into(), "rsync".into()]), &args);
    let error = greet(link, hello(&options, 32, options.sends_segments())).err().unwrap().to_string();
    assert!(error.contains("No common compression: we offer \"zstd lz4 zlibx zlib\""), "{error}");
}
