//! Batch files: ours and stock's are one another's.

use crate::support::both::STOCK;
use crate::support::stock::{Bench, OURS, Run, client, ended};
use crate::support::tree::{self, THEN, Tree};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn run(work: &Path, which: &str, line: &str) -> Run {
    let words: Vec<_> = line.split(' ').map(|word| word.replace("WORK", work.to_str().unwrap())).collect();
    ended(client(which).args(words).current_dir(work))
}

/// A tree as it was, `old`, and as it is, `src`.
fn prepare(work: &Path) {
    let src = work.join("src");
    tree::put(&src, "one", b"one line\n", 0o644, THEN);
    tree::put(&src, "d/big", &tree::noise(200_000, 1), 0o644, THEN);
    tree::put(&src, "d/gone", b"gone\n", 0o644, THEN);
    symlink("one", src.join("link")).unwrap();
    tree::copy(&src, &work.join("old"));
    fs::remove_file(src.join("d/gone")).unwrap();
    tree::put(&src, "one", b"one line, and another\n", 0o600, (THEN.0 + 60, 0));
    let big =
        [tree::noise(90_000, 1), b"something else".to_vec(), tree::noise(200_000, 1)[100_000..].to_vec()].concat();
    tree::put(&src, "d/big", &big, 0o644, (THEN.0 + 60, 5));
    tree::put(&src, "e/new", b"new\n", 0o640, THEN);
    fs::hard_link(src.join("e/new"), src.join("e/twin")).unwrap();
    for name in ["src/link", "old/link", "src/e", "src/d", "old/d", "src", "old"] {
        tree::set_mtime(&work.join(name), THEN.0 + 9, 0);
    }
}

/// A copy of the old tree under this name.
fn old(work: &Path, name: &str) {
    let _ = fs::remove_dir_all(work.join(name));
    tree::copy(&work.join("old"), &work.join(name));
}

fn tree_of(path: &Path) -> Tree {
    Tree::of(path, i64::MAX)
}

/// Lines of ours and stock's that say the same, without names of programs.
fn words_of(run: &Run) -> (i32, String, String) {
    let stderr = run.stderr.lines().map(|line| line.split(" at ").next().unwrap().to_owned()).collect::<Vec<_>>();
    // How fast it went says nothing.
    let stdout = String::from_utf8_lossy(&run.stdout);
    let stdout: String =
        stdout.split_inclusive('\n').map(|line| line.split_once(" bytes/sec").map_or(line, without_rate)).collect();
    (run.code, stdout, stderr.join("\n"))
}

fn without_rate<'t>((line, _): (&'t str, &str)) -> &'t str {
    line.rsplit_once("  ").map_or(line, |(rest, _)| rest)
}

/// Writes with one, by each road, and reads with both.
fn exchanged(options: &str) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("batch");
    let work = work.path();
    prepare(work);
    let remote = |server: &str| format!("-e {} --rsync-path={server}", bench.shell().display());
    let mut roads = vec![];
    for writer in [STOCK, OURS] {
        roads.push((writer, OURS, "", "src/ copy/"));
        for server in [STOCK, OURS] {
            if (writer, server) != (STOCK, STOCK) {
                roads.push((writer, server, "by", "src/ host:WORK/copy/"));
                roads.push((writer, server, "by", "host:WORK/src/ copy/"));
            }
        }
    }
    for (writer, server, by, operands) in roads {
        let by = if by.is_empty() { "--whole-file --no-whole-file".into() } else { remote(server) };
        for kind in ["write-batch", "only-write-batch"] {
            old(work, "copy");
            let line = format!("{options} {by} --{kind}=batch {operands}");
            let written = run(work, writer, &line);
            let what = format!("{writer:?} to {server:?}: {line}");
            assert_eq!((written.code, written.stderr.as_str()), (0, ""), "{what}");
            let expected = if kind == "write-batch" { "src" } else { "old" };
            let lines = tree_of(&work.join(expected)).difference(&tree_of(&work.join("copy")));
            let deletes = options.contains("--delete") || kind != "write-batch";
            assert!(lines.is_empty() || !deletes && lines.contains("gone"), "{what}:\n{lines}");
            let mode = |name: &str| fs::metadata(work.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode("batch"), mode("batch.sh")), (0o600, 0o700));
            for reader in [STOCK, OURS] {
                old(work, "there");
                let line = format!("{options} -i --read-batch=batch there/");
                let read = run(work, reader, &line);
                assert_eq!((read.code, read.stderr.as_str()), (0, ""), "{reader:?} after {what}");
                let lines = tree_of(&work.join("src")).difference(&tree_of(&work.join("there")));
                let deletes = options.contains("--delete");
                assert!(lines.is_empty() || !deletes && lines.contains("gone"), "{reader:?} after {what}:\n{lines}");
                let said = String::from_utf8_lossy(&read.stdout).into_owned();
                assert!(
                    said.contains("stp..... one\n") && said.contains("st...... d/big\n"),
                    "{reader:?} after {what}: {said}"
                );
            }
        }
    }
}

#[test]
fn batches_of_segments_are_exchanged() {
    exchanged("-aH --delete");
}

#[test]
fn batches_of_one_list_are_exchanged() {
    exchanged("-aHc --no-i-r");
}

#[test]
fn compressed_batches_with_further_attributes_are_exchanged() {
    exchanged("-azHAX --delete");
}

#[test]
fn batches_written_in_place_and_of_older_versions_are_exchanged() {
    exchanged("-aH --inplace --protocol=31 --delete-delay");
}

#[test]
fn a_script_plays_its_batch() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("batch");
    let work = work.path();
    prepare(work);
    for (writer, name) in [(STOCK, "it's"), (OURS, "it's too")] {
        old(work, "copy");
        let words = ["-aH", "--delete", "--exclude=gone", &format!("--write-batch={name}"), "src/", "copy/"];
        let written = ended(client(writer).args(words).current_dir(work));
        assert_eq!((written.code, written.stderr.as_str()), (0, ""));
        for there in ["copy", "elsewhere"] {
            old(work, there);
            let mut script = Command::new("sh");
            script.arg(format!("./{name}.sh")).args((there != "copy").then_some("elsewhere/")).current_dir(work);
            assert!(script.status().unwrap().success());
            let lines = tree_of(&work.join("src")).difference(&tree_of(&work.join(there)));
            assert!(lines.lines().count() == 1 && lines.contains("d/gone"), "{writer:?} {there}\n{lines}");
        }
    }
    let text = |name: &str| fs::read_to_string(work.join(name)).unwrap();
    let (_, stocks) = text("it's.sh").split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(text("it's too.sh").ends_with(&stocks.replace("it'\\''s", "it'\\''s too")), "{}", text("it's too.sh"));
}

/// What differs from the tree that the batch was made for is told as stock tells it; stock itself waits for ever where
/// segments are concerned, so these are of one list.
#[test]
fn other_trees_than_the_batch_was_made_for() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("batch");
    let work = work.path();
    prepare(work);
    old(work, "copy");
    assert_eq!(run(work, STOCK, "-aH --no-i-r --write-batch=list src/ copy/").code, 0);
    old(work, "copy");
    assert_eq!(run(work, STOCK, "-aH --write-batch=segments src/ copy/").code, 0);
    let play = |which: &str, line: &str, change: &dyn Fn(&Path)| {
        old(work, "there");
        change(&work.join("there"));
        let run = run(work, which, line);
        (words_of(&run), tree_of(&work.join("there")))
    };
    let done = |there: &Path| {
        fs::remove_dir_all(there).unwrap();
        tree::copy(&work.join("src"), there);
    };
    let unknown = |there: &Path| tree::put(there, "link", b"a file now\n", 0o644, THEN);
    for (line, change) in [
        ("-avH --no-i-r --read-batch=list there/", &done as &dyn Fn(&Path)),
        ("-ivaH --no-i-r -n --read-batch=list there/", &|_: &Path| ()),
        ("-vt --no-i-r --read-batch=list there/", &|_: &Path| ()),
        ("-avHczAX --no-i-r --inplace --read-batch=list there/", &|_: &Path| ()),
        ("-aH --no-i-r --read-batch=list there/", &unknown),
        ("-avH --read-batch=segments there/", &done),
        ("-avvH --read-batch=segments there/", &|_: &Path| ()),
        ("-aH --existing --read-batch=segments there/", &|_: &Path| ()),
    ] {
        let (stock, ours) = (play(STOCK, line, change), play(OURS, line, change));
        assert_eq!(stock.0, ours.0, "{line}");
        let lines = stock.1.difference(&ours.1);
        assert!(lines.is_empty(), "{line}\n{lines}");
    }
    // A file that changed is wanted though the batch has nothing for it, and one has another beginning.
    let changed = |there: &Path| {
        tree::put(there, "d/big", &tree::noise(200_000, 7), 0o644, THEN);
        fs::remove_file(there.join("one")).unwrap();
    };
    for batch in ["list", "segments"] {
        let ((code, _, said), there) = play(OURS, &format!("-aH --read-batch={batch} there/"), &changed);
        assert_eq!(code, 23, "{said}");
        assert!(said.contains("WARNING: d/big failed verification -- update discarded (may try again)."), "{said}");
        let lines = tree_of(&work.join("src")).difference(&there);
        let wrong = |line: &&str| !line.contains("d/big") && !line.contains("d/gone");
        assert!(!lines.lines().any(|line| wrong(&line)), "{lines}");
    }
    old(work, "copy");
    assert_eq!(run(work, OURS, "-aH --write-batch=nothing old/ copy/").code, 0);
    let untouched = |there: &Path| tree::put(there, "d/gone", b"another", 0o644, THEN);
    let ((code, _, said), _) = play(OURS, "-aH --read-batch=nothing there/", &untouched);
    assert_eq!((code, said.lines().next().unwrap()), (23, "(No batched update for \"d/gone\")"));
}

#[test]
fn batches_that_cannot_be_used_are_refused_as_stock_refuses_them() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("batch");
    let work = work.path();
    prepare(work);
    old(work, "copy");
    assert_eq!(run(work, STOCK, "-a --write-batch=b src/ copy/").code, 0);
    let bytes = fs::read(work.join("b")).unwrap();
    fs::write(work.join("short"), &bytes[..13]).unwrap();
    fs::write(work.join("new"), [&bytes[..4], &[33], &bytes[5..]].concat()).unwrap();
    fs::write(work.join("empty"), "").unwrap();
    for line in [
        "-a --read-batch=nonex copy",
        "-a --read-batch=empty copy",
        "-a --read-batch=short copy",
        "-a --read-batch=new copy",
        "-a --protocol=31 --read-batch=b copy",
        "-a --read-batch=b host:copy",
        "-a --read-batch=b --write-batch=c copy",
        "-a --read-batch=b --files-from=b copy",
        "-a --read-batch=b --remove-source-files copy",
        "-a --delete-after --read-batch=b copy",
        "-a --write-batch=src src/ copy/",
        "-a --write-batch=nonex/b src/ copy/",
        "-an --write-batch=unwritten src/ copy/",
    ] {
        let [stock, ours] = [STOCK, OURS].map(|which| {
            let (code, out, err) = words_of(&run(work, which, line));
            (code, out, err.lines().filter(|line| !line.starts_with("rsync error")).collect::<Vec<_>>().join("\n"))
        });
        assert_eq!(stock, ours, "{line}");
    }
    assert!(!work.join("unwritten").exists());
    old(work, "there");
    let stdin = File::open(work.join("b")).unwrap();
    let read = ended(client(OURS).args(["-a", "--read-batch=-", "there/"]).current_dir(work).stdin(stdin));
    assert_eq!(read.code, 0, "{}", read.stderr);
    let lines = tree_of(&work.join("src")).difference(&tree_of(&work.join("there")));
    assert!(lines.lines().all(|line| line.contains("d/gone") || line.contains("e/")), "{lines}");
    for option in ["--checksum-choice=xxh128", "--compress-choice=zstd"] {
        let refused = run(work, OURS, &format!("-az {option} --write-batch=c src/ copy/"));
        assert!(refused.code == 4 && refused.stderr.contains(option), "{}", refused.stderr);
    }
}

/// A batch file comes from anywhere: whatever is in it, reading ends, and nothing leaves the destination.
#[test]
fn spoiled_batches_end_in_an_error_or_a_copy() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("batch");
    let work = work.path();
    prepare(work);
    tree::put(&work.join("src"), "d/big", b"small", 0o644, THEN);
    let outside = tree_of(&work.join("old"));
    for options in ["-aH", "-azH --no-i-r"] {
        old(work, "copy");
        assert_eq!(run(work, OURS, &format!("{options} --write-batch=b src/ copy/")).code, 0);
        let bytes = fs::read(work.join("b")).unwrap();
        let step = bytes.len() / 25;
        for (number, at) in (0..bytes.len()).step_by(step.max(1)).enumerate() {
            let spoiled = match number % 4 {
                0 => bytes[..at].to_vec(),
                1 => [&bytes[..at], &[bytes[at] ^ 1 << (at % 8)], &bytes[at + 1..]].concat(),
                2 => [&bytes[..at], &[0xff; 5], &bytes[at..]].concat(),
                _ => [&bytes[..at], &bytes[at + 1..]].concat(),
            };
            fs::write(work.join("spoiled"), spoiled).unwrap();
            old(work, "there");
            let run = run(work, OURS, &format!("{options} --read-batch=spoiled there/"));
            assert!((0..=30).contains(&run.code), "{at}: {} {}", run.code, run.stderr);
        }
    }
    assert!(outside.difference(&tree_of(&work.join("old"))).is_empty());
}
