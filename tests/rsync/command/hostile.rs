//! A sender that lists what it likes: what a client takes of it, beside stock's.

use crate::support;
use crate::support::stock::{Bench, OURS, Run};
use crate::support::tree::{self, THEN, Tree};

/// Options and operands of the client; options of the sender besides, its operands, and the names in its folder.
type Case = (&'static str, &'static str, &'static str, &'static str);

const NAMES: [&str; 8] = ["a/b", "a/x", "b", "secret", "d/e/f", "core", "q/r/z", "deep/secret/in"];

/// Refused by stock, each by its name.
const REFUSED: &[Case] = &[
    ("-r", "host:a", "", "b"),
    ("-rR", "host:a/b", "", "a/x"),
    ("-rR", "host:a/b", "", "a"),
    ("-rn", "host:a", "", "a b"),
    ("-r --list-only", "host:a", "", "a b"),
    ("-dR", "host:d", "", "d/e/f"),
    ("--files-from=one", "host:", "--no-R", "."),
    ("--files-from=list", "host:", "-r", "."),
    ("-r --exclude=secret", "host:", "--include=*", "secret"),
    ("-r --exclude=secret/", "host:deep", "--include=*", "deep"),
    ("-r --exclude=secret --delete --delete-excluded", "host:", "--include=*", "."),
    ("-r --filter=H_secret --old-args", "host:", "--include=*", "."),
    ("-r --include=a --exclude=*", "host:", "--include=*", "b"),
    ("-r --exclude-from=rules", "host:", "--include=*", "."),
    ("-r --partial-dir=secret", "host:", "--include=*", "deep"),
    ("-r --filter=-p_secret --no-i-r", "host:", "--include=*", "."),
];

/// Taken by stock, for the names cannot be known or judged, or the sender is trusted.
const TAKEN: &[Case] = &[
    ("-r", "host:a/", "", "b"),
    ("-r", "host:*", "", "b a"),
    ("-r --old-args", "host:a", "", "b"),
    ("-r --trust-sender", "host:a", "", "b"),
    ("-rR", "host:a/b", "", "a/b"),
    ("-r --files-from=list", "host:", "", "."),
    ("-r --trust-sender --exclude=secret", "host:", "--include=*", "."),
    ("-r --filter=P_secret", "host:", "--include=*", "."),
    ("-r --filter=:_.rules --exclude=secret", "host:", "--include=*", "."),
    ("-r -C", "host:", "--include=*", "."),
    ("-r --exclude=secret/", "host:", "--include=*", "secret"),
];

fn play(bench: &Bench, program: &[&str], case: &Case) -> (Run, String, Tree) {
    let (options, operands, extra, sent) = *case;
    let work = bench.fresh("work");
    let work = work.path();
    for name in NAMES {
        tree::put(&work.join("theirs"), name, b"x", 0o644, THEN);
    }
    tree::put(work, "list", b"a/b\nd/\nq/./r\n", 0o644, THEN);
    tree::put(work, "one", b"a/b\n", 0o644, THEN);
    tree::put(work, "rules", b"- secret\n", 0o644, THEN);
    tree::put(work, "dst/a/ours", b"precious", 0o644, THEN);
    // Whatever is asked for, it sends what it was told here.
    let script = format!(
        "words=\nfor word; do [ \"$word\" = . ] && break; words=\"$words $word\"; done\ncd {}/theirs\nset -f\n\
         exec rsync $words {extra} . {sent}\n",
        work.display()
    );
    let script = bench.script(&format!("{}-far", work.file_name().unwrap().display()), &script);
    let mut words: Vec<_> = options.split(' ').map(|word| word.replace('_', " ")).collect();
    words.extend(["-e".into(), bench.shell().to_str().unwrap().to_owned()]);
    words.push(format!("--rsync-path={}", script.display()));
    words.extend(operands.split(' ').map(str::to_owned));
    words.push("dst/".into());
    let run = super::run(program, work, &words);
    let errors: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("ERROR: ")).collect();
    let errors = errors.join("\n");
    (run, errors, Tree::of(&work.join("dst"), THEN.0 + 9))
}

#[test]
fn a_pull_takes_only_what_was_asked_for_and_not_left_out() {
    if !support::require("rsync") {
        return;
    }
    let bench = Bench::start();
    std::thread::scope(|scope| {
        for (cases, refused) in [(REFUSED, true), (TAKEN, false)] {
            for cases in cases.chunks(8) {
                let bench = &bench;
                scope.spawn(move || {
                    for case in cases {
                        let stock = play(bench, &["rsync"], case);
                        let ours = play(bench, &[OURS, "rsync"], case);
                        assert_eq!(stock.1.is_empty(), !refused, "{case:?} {}", stock.0.stderr);
                        let told = format!("{case:?}\n{}\n{}", stock.0.stderr, ours.0.stderr);
                        assert_eq!((stock.0.code, &stock.1), (ours.0.code, &ours.1), "{told}");
                        assert_eq!(stock.2.difference(&ours.2), "", "{told}");
                    }
                });
            }
        }
    });
}

/// A folder on the way to what was asked for is not brought into line, whatever the sender says of it.
#[test]
fn a_sender_does_not_widen_what_is_deleted() {
    if !support::require("rsync") {
        return;
    }
    let bench = Bench::start();
    for program in [&["rsync"][..], &[OURS, "rsync"]] {
        let work = bench.fresh("work");
        let work = work.path();
        tree::put(work, "theirs/a/b/c", b"x", 0o644, THEN);
        tree::put(work, "dst/a/precious", b"ours", 0o644, THEN);
        tree::put(work, "dst/a/b/old", b"goes", 0o644, THEN);
        let script = bench.script(
            "wide",
            &format!("cd {}/theirs\nexec rsync --server --sender -re.iLsfxCIvu . -R a\n", work.display()),
        );
        let words = [
            "-rR",
            "--delete",
            "-e",
            bench.shell().to_str().unwrap(),
            &format!("--rsync-path={} #", script.display()),
            "host:a/b",
            "dst/",
        ]
        .map(str::to_owned);
        let run = super::run(program, work, &words);
        assert_eq!((run.code, &*run.stderr), (0, ""), "{program:?}");
        assert!(work.join("dst/a/precious").exists() && !work.join("dst/a/b/old").exists(), "{program:?}");
        assert!(work.join("dst/a/b/c").exists(), "{program:?}");
    }
}
