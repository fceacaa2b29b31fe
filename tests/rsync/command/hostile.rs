//! A sender that lists what it likes: what a client takes of it, beside stock's.

use crate::support::both::{Both, Outcome, STOCK, all_agree};
use crate::support::stock::{Bench, OURS, Run};
use crate::support::tree::{self, THEN};
use std::path::Path;

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

/// A sender that sends, whatever is asked for, what its second word names, with the options of its first.
const FAR: &str = "extra=$1 sent=$2; shift 2\nwords=\n\
    for word; do [ \"$word\" = . ] && break; words=\"$words $word\"; done\ncd theirs\nset -f\n\
    exec rsync $words $extra . $sent\n";

/// Runs a case with this client.
fn play(both: &Both, program: &str, far: &Path, (options, operands, extra, sent): Case) -> Outcome {
    let options = options.split(' ').map(|word| word.replace('_', " "));
    let operands = operands.split(' ').chain(["dst/"]).map(str::to_owned);
    let far = format!("{} '{extra}' '{sent}'", far.display());
    both.run((program, &far), &options.chain(operands).collect::<Vec<_>>())
}

#[test]
fn a_pull_takes_only_what_was_asked_for_and_not_left_out() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let prepare = |work: &Path| {
        for name in NAMES {
            tree::put(&work.join("theirs"), name, b"x", 0o644, THEN);
        }
        tree::put(work, "list", b"a/b\nd/\nq/./r\n", 0o644, THEN);
        tree::put(work, "one", b"a/b\n", 0o644, THEN);
        tree::put(work, "rules", b"- secret\n", 0o644, THEN);
        tree::put(work, "dst/a/ours", b"precious", 0o644, THEN);
    };
    let look = |run: &Run, _: &Path| {
        run.stderr.lines().filter(|line| line.starts_with("ERROR: ")).map(str::to_owned).collect()
    };
    let both = Both { folders: &["dst"], look: &look, since: THEN.0 + 9, ..Both::new(&bench, &prepare) };
    let far = bench.script("far", FAR);
    let cases = REFUSED.iter().map(|case| (*case, true)).chain(TAKEN.iter().map(|case| (*case, false)));
    all_agree(&cases.collect::<Vec<_>>(), |(case, refused)| {
        let stock = play(&both, STOCK, &far, *case);
        assert_eq!(stock.lines.is_empty(), !refused, "{case:?} {}", stock.run.stderr);
        let text = stock.difference(&play(&both, OURS, &far, *case));
        if text.is_empty() { text } else { format!("{case:?}\n{text}") }
    });
}

/// A folder on the way to what was asked for is not brought into line, whatever the sender says of it.
#[test]
fn a_sender_does_not_widen_what_is_deleted() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for program in [STOCK, OURS] {
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
