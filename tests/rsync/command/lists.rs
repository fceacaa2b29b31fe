//! `RSYNC_CHECKSUM_LIST` and `RSYNC_COMPRESS_LIST`: what both ends then agree on, beside stock's.

use crate::support::both::{Ends, STOCK};
use crate::support::stock::{Bench, OURS, client, ended};
use crate::support::tree::{self, THEN};
use std::process::{Command, Stdio};

/// The lists of the two ends (stock takes `-` for none), an option, and the checksum of `abc` that shows which was taken;
/// empty where the ends do not agree.
const CHECKSUMS: &[(&str, &str, &str, &str)] = &[
    ("md5", "", "", "900150983cd24fb0d6963f7d28e17f72"),
    ("sha1", "", "", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    ("bogus sha1 & md5", "", "", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    ("", "sha1", "", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    ("", "md5 & sha1", "", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    ("md5 &", "& md5", "", "900150983cd24fb0d6963f7d28e17f72"),
    ("sha1", "md5", "", ""),
    ("bogus", "", "", ""),
    ("", "bogus", "", ""),
    ("sha1", "", "--checksum-choice=md5", "900150983cd24fb0d6963f7d28e17f72"),
    ("", "sha1", "--checksum-choice=md5", ""),
];

fn play(bench: &Bench, (near, far): Ends, lists: [&str; 4], option: &str) -> (i32, String, String) {
    let work = bench.fresh("work");
    let work = work.path();
    tree::put(work, "src/f", b"abc", 0o644, THEN);
    let there = format!(
        "shift\ncd {}\nexport RSYNC_CHECKSUM_LIST='{}' RSYNC_COMPRESS_LIST='{}'\nexec sh -c \"$*\"\n",
        work.display(),
        lists[1],
        lists[3]
    );
    let shell = bench.script("there", &there);
    let mut command = client(near);
    command.args(["-rtc", "--out-format=%C", "--debug=NSTR"]).args((!option.is_empty()).then_some(option));
    command.arg("-e").arg(shell).args(["--rsync-path", far, "src/", "host:dst/"]).current_dir(work);
    let run = ended(command.env("RSYNC_CHECKSUM_LIST", lists[0]).env("RSYNC_COMPRESS_LIST", lists[2]));
    (run.code, String::from_utf8_lossy(&run.stdout).into_owned(), run.stderr)
}

#[test]
fn lists_in_the_environment_are_followed() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let pairs = [(STOCK, STOCK), (OURS, STOCK), (STOCK, OURS), (OURS, OURS)];
    for (client, server, option, sum) in CHECKSUMS {
        let codes = pairs.map(|ends| {
            let (code, out, err) = play(&bench, ends, [client, server, "", ""], option);
            let told = format!("{ends:?}: {client:?} {server:?} {option} {code}\n{out}{err}");
            assert_eq!(code == 0, !sum.is_empty(), "{told}");
            assert!(out.lines().any(|line| line == *sum) || sum.is_empty(), "{told}");
            code
        });
        assert!(codes.iter().all(|code| *code == codes[0] || codes[0] != 0), "{client} {server} {codes:?}");
    }
    // Two ends of stock would each take another of several; with ours at either end they agree.
    for ends in [(OURS, STOCK), (OURS, OURS)] {
        let (code, out, err) = play(&bench, ends, ["sha1 md5 xxh64", "", "", ""], "");
        assert!(code == 0 && out.contains("a9993e364706816aba3e25717850c26c9cd0d89d"), "{ends:?} {out}{err}");
    }
    for (client, server, option, agrees) in [
        ("lz4", "", "-z", true),
        ("zlib & lz4", "", "-z", true),
        ("", "zstd & zlibx", "-z", true),
        ("bogus", "", "-z", false),
        ("bogus", "", "", true),
        ("lz4", "", "--zc=zstd", true),
        ("", "lz4", "--zc=zstd", false),
    ] {
        for ends in pairs {
            let (code, out, err) = play(&bench, ends, ["", "", client, server], option);
            assert_eq!(code == 0, agrees, "{ends:?}: {client:?} {server:?} {option} {code}\n{out}{err}");
        }
    }
}

/// Nobody reads our output: a transfer goes on, unless its lines were to be read one by one.
#[test]
fn an_output_that_nobody_reads_ends_a_transfer_as_stocks() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for (options, code) in [(&["-av"][..], 0), (&["-av", "--outbuf=L"], 13), (&["-av", "--outbuf=N"], 13)] {
        for ends in [["src/", "dst/"], ["src/", "host:dst/"], ["host:src/", "dst/"]] {
            for program in [&["rsync"][..], &[OURS, "rsync"]] {
                let work = bench.fresh("work");
                let work = work.path();
                for name in 0..200 {
                    tree::put(&work.join("src"), format!("file{name}"), b"x", 0o644, THEN);
                }
                let shell = bench.script("there", &format!("shift\ncd {}\nexec sh -c \"$*\"\n", work.display()));
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                let mut command = Command::new(program[0]);
                command.args(&program[1..]).args(options).arg("-e").arg(shell).args(ends).current_dir(work);
                let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(code), "{program:?} {options:?} {ends:?} {said}");
                assert_eq!(said.contains("errors with program diagnostics (code 13)"), code == 13, "{said}");
                let whole = std::fs::read_dir(work.join("dst")).map_or(0, Iterator::count) == 200;
                assert!(whole || code == 13, "{program:?} {options:?} {ends:?} {said}");
            }
        }
    }
}

/// Where names begin may be said in any part of a listed name, at its end too.
#[test]
fn listed_names_begin_where_they_say() {
    super::scripts::reads_like_stock(
        r#"mkdir -p w/from/d/e; echo 1 >w/from/f; echo 2 >w/from/d/g; echo 3 >w/top; find w -exec touch -hd 2020-01-01 {} +
        t() { "$@" 2>/dev/null; echo "$? $(cd to 2>/dev/null && find . | sort | tr '\n' ' ')"; rm -rf to; }
        for e in from/./ from/.// from/././ from/. from/./. from/./d from/./d/ from/d/./ ./ . ././ \
            /from/./d/g 'from/./\nfrom/f' 'top\nfrom/./d/g'; do
            for o in -a --no-R; do
                echo "== $e $o"; printf "$e\n" >l
                t $R -t $o --files-from=l w to/
                t $R -t $o -e $RSH --rsync-path=$S --files-from=l lh:$W/w to/
                t $R -t $o -e $RSH --rsync-path=$S --files-from=:$W/l lh:$W/w to/
                t $R -t $o -e $RSH --rsync-path=$S --files-from=l w lh:$W/to/
            done
            printf "$e\0" >l; t $R -a0 --files-from=l w to/
        done"#,
    );
}
